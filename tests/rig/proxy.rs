//! A proxy in front of an HTTP/1.1 server that lets things go wrong: by dice, or once on demand, and counted.
//!
//! It handles one request at a time per connection and opens a connection of its own to the server for each. Bodies of
//! requests pass through as they come, so that the server sees how far one came that was cut; answers are read first,
//! because that is how one is lost that the server believes delivered. With one connection at a time a seed repeats a
//! run; with more, the order in which they roll the dice is up to the scheduler.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use socket2::SockRef;

use super::wait_for;
use super::wire::{Extent, Head, Serving, read_body, read_whole};

/// How long a slow connection pauses before each piece of a body.
const PAUSE: Duration = Duration::from_millis(10);
/// Where a body whose length is not known beforehand is cut at the latest.
const CUT_BYTES_MAX: u64 = 1 << 20;
/// How long a server may take to notice that a body will not go on.
const DONE_WITHIN: Duration = Duration::from_secs(1);
/// What an answer with a delay asks for, in seconds, unless told otherwise.
pub(crate) const RETRY_AFTER_S: u64 = 1;

/// What can go wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is reset before the server hears of the request.
    ResetBefore,
    /// It is reset when a part of the body has reached the server.
    ResetWithin,
    /// 429, and no word of when to come back.
    TooMany,
    /// 429 with `Retry-After`.
    TooManyForNow,
    /// 500.
    Internal,
    /// 503.
    Unavailable,
    /// 408.
    TimedOut,
    /// 401, as when credentials have expired.
    Unauthorized,
    /// Both bodies pass slowly.
    Slow,
    /// The server does what was asked and answers, and the client never hears of it.
    CutAnswer,
    /// A checksum in the answer is another one; counted only where there was one.
    BadChecksum,
}

impl Fault {
    /// All of them.
    pub(crate) const ALL: [Self; 11] = [
        Self::ResetBefore,
        Self::ResetWithin,
        Self::TooMany,
        Self::TooManyForNow,
        Self::Internal,
        Self::Unavailable,
        Self::TimedOut,
        Self::Unauthorized,
        Self::Slow,
        Self::CutAnswer,
        Self::BadChecksum,
    ];

    /// What the proxy answers instead of the server.
    fn status(self) -> Option<u16> {
        match self {
            Self::TooMany | Self::TooManyForNow => Some(429),
            Self::Internal => Some(500),
            Self::Unavailable => Some(503),
            Self::TimedOut => Some(408),
            Self::Unauthorized => Some(401),
            _ => None,
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|fault| *fault == self).expect("all of them")
    }
}

/// The proxy, which ends when this is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    upstream: SocketAddr,
    serving: Mutex<Option<Serving>>,
    state: Arc<Mutex<State>>,
}

struct State {
    dice: Dice,
    chances: [f64; Fault::ALL.len()],
    injected: [u64; Fault::ALL.len()],
    /// What happens to the next requests, whatever the dice say.
    due: VecDeque<Option<Fault>>,
    requests: u64,
    /// When each request came.
    came: Vec<Instant>,
    retry_after_s: u64,
}

impl Proxy {
    /// Starts one in front of a server, with everything going well until told otherwise. The seed is printed, and taken
    /// from `SIDETAPE_SEED` if that is set.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time of this century");
        let given = std::env::var("SIDETAPE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(since.subsec_nanos()));
        println!("the proxy's dice: SIDETAPE_SEED={seed}");
        Self::start_with_seed(upstream, seed)
    }

    /// Starts one with dice that fall as they did before with this seed.
    pub(crate) fn start_with_seed(upstream: SocketAddr, seed: u64) -> Self {
        let state = Arc::new(Mutex::new(State {
            dice: Dice(seed),
            chances: [0.0; Fault::ALL.len()],
            injected: [0; Fault::ALL.len()],
            due: VecDeque::new(),
            requests: 0,
            came: Vec::new(),
            retry_after_s: RETRY_AFTER_S,
        }));
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let serving = listen(any, upstream, &state).expect("a free port");
        let address = serving.address();
        Self { address, upstream, serving: Mutex::new(Some(serving)), state }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a client takes it for its endpoint.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets a fault happen with this probability from now on; a request has one fault at most.
    pub(crate) fn set(&self, fault: Fault, chance: f64) {
        self.lock().chances[fault.index()] = chance;
    }

    /// Lets each fault happen with this probability from now on; 0 is: all goes well again.
    pub(crate) fn set_all(&self, chance: f64) {
        self.lock().chances = [chance; Fault::ALL.len()];
    }

    /// Lets a fault happen to the next request that none is planned for yet.
    pub(crate) fn set_next(&self, fault: Fault) {
        self.set_next_after(0, fault);
    }

    /// The same, after so many more that go well.
    pub(crate) fn set_next_after(&self, good: usize, fault: Fault) {
        let mut state = self.lock();
        state.due.extend(std::iter::repeat_n(None, good));
        state.due.push_back(Some(fault));
    }

    /// How often a fault happened.
    pub(crate) fn injected(&self, fault: Fault) -> u64 {
        self.lock().injected[fault.index()]
    }

    /// How often any fault happened.
    pub(crate) fn injected_in_all(&self) -> u64 {
        self.lock().injected.iter().sum()
    }

    /// How many requests came, with faults or without.
    pub(crate) fn requests(&self) -> u64 {
        self.lock().requests
    }

    /// When each request came.
    pub(crate) fn came(&self) -> Vec<Instant> {
        self.lock().came.clone()
    }

    /// Sets what an answer with a delay asks for.
    pub(crate) fn ask_for_patience(&self, seconds: u64) {
        self.lock().retry_after_s = seconds;
    }

    /// Breaks all connections and refuses new ones, until [`Self::up`].
    pub(crate) fn down(&self) {
        *self.serving.lock().expect("nobody panics with it") = None;
    }

    /// Listens again, at the same address.
    pub(crate) fn up(&self) {
        let mut serving = self.serving.lock().expect("nobody panics with it");
        if serving.is_none() {
            // Somebody's outgoing connection may have the port for a moment.
            let again = || listen(self.address, self.upstream, &self.state).ok();
            *serving = Some(wait_for("the proxy's port to be free again", again));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nobody panics with it")
}

fn listen(address: SocketAddr, upstream: SocketAddr, state: &Arc<Mutex<State>>) -> io::Result<Serving> {
    let state = state.clone();
    Serving::start(address, move |link| converse(&state, upstream, link))
}

/// One connection of a client, from its first request to its end.
fn converse(state: &Mutex<State>, upstream: SocketAddr, client: &TcpStream) -> io::Result<()> {
    let mut input = BufReader::with_capacity(64 * 1024, client);
    while let Some(head) = Head::read(&mut input)? {
        let ((fault, luck), retry_after_s) = {
            let mut state = lock(state);
            state.came.push(Instant::now());
            (state.roll(), state.retry_after_s)
        };
        let extent = head.request_extent();
        if fault == Some(Fault::ResetBefore) {
            return reset(client);
        }
        if let Some(fault) = fault
            && let Some(status) = fault.status()
        {
            read_body(&mut input, extent, |_| Ok(()))?;
            let answer = Head::answer(status).with("Content-Length", 0);
            let is_dated = fault == Fault::TooManyForNow;
            let answer = if is_dated { answer.with("Retry-After", retry_after_s) } else { answer };
            answer.write_to(client)?;
            continue;
        }
        let server = TcpStream::connect(upstream)?;
        server.set_nodelay(true)?;
        if fault == Some(Fault::ResetWithin) {
            forward_part(&head, &mut input, &server, luck)?;
            return reset(client);
        }
        let pause = if fault == Some(Fault::Slow) { PAUSE } else { Duration::ZERO };
        forward(&head, &mut input, &server, pause)?;
        let Some((mut answer, mut body)) = read_answer(&head, &server)? else { return reset(client) };
        if fault == Some(Fault::CutAnswer) {
            return reset(client);
        }
        if fault == Some(Fault::BadChecksum) && spoil_checksum(&mut answer, &mut body) {
            lock(state).injected[Fault::BadChecksum.index()] += 1;
        }
        // The server names itself in here: what follows has to come this way, too.
        for (name, value) in &mut answer.headers {
            if name.eq_ignore_ascii_case("location") {
                let here = format!("http://{}", client.local_addr()?);
                *value = value.replace(&format!("http://{upstream}"), &here);
            }
        }
        answer.write_to(client)?;
        send_slowly(client, &body, pause)?;
        let is_last = head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if is_last {
            return client.shutdown(Shutdown::Write);
        }
    }
    Ok(())
}

/// Ends a connection so that the peer sees an error, not an end.
fn reset(link: &TcpStream) -> io::Result<()> {
    SockRef::from(link).set_linger(Some(Duration::ZERO))
}

/// Hands a request on, or as much of it as the server takes.
fn forward(
    head: &Head,
    input: &mut BufReader<&TcpStream>,
    server: &TcpStream,
    pause: Duration,
) -> io::Result<()> {
    let extent = head.request_extent();
    // A server may answer before it has read all, and close: then its answer is waited for all the same.
    let mut is_broken = begin(head, server).is_err();
    read_body(input, extent, |piece| {
        std::thread::sleep(pause);
        is_broken = is_broken || send_piece(server, extent, piece).is_err();
        Ok(())
    })?;
    if extent == Extent::Chunks && !is_broken {
        // As above.
        (&*server).write_all(b"0\r\n\r\n").ok();
    }
    Ok(())
}

/// Hands on a part of a request: `luck` thousandths of its body, and never the end.
fn forward_part(
    head: &Head,
    input: &mut BufReader<&TcpStream>,
    server: &TcpStream,
    luck: u16,
) -> io::Result<()> {
    let extent = head.request_extent();
    let whole = match extent {
        Extent::Bytes(bytes) => bytes,
        Extent::Chunks | Extent::Connection => CUT_BYTES_MAX,
    };
    if whole == 0 {
        return Ok(());
    }
    let mut left = whole * u64::from(luck) / 1000;
    begin(head, server)?;
    let cut = read_body(input, extent, |piece| {
        let most = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        left -= u64::try_from(most).expect("at most a piece");
        send_piece(server, extent, &piece[..most])?;
        if left == 0 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    });
    // The server has to be done with it before the client hears of it: else the client's next request could come first.
    server.shutdown(Shutdown::Write)?;
    server.set_read_timeout(Some(DONE_WITHIN))?;
    let done = (&*server).read_to_end(&mut Vec::new());
    // However all of this ended, it was to end badly.
    cut.and(done.map(drop)).or(Ok(()))
}

/// Sends a request's head, by which the server closes the connection afterwards.
fn begin(head: &Head, server: &TcpStream) -> io::Result<()> {
    let mut head = head.clone();
    head.remove("connection");
    head.with("Connection", "close").write_to(server)
}

fn send_piece(mut server: &TcpStream, extent: Extent, piece: &[u8]) -> io::Result<()> {
    if extent != Extent::Chunks {
        return server.write_all(piece);
    }
    if piece.is_empty() {
        return Ok(());
    }
    let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
    chunk.extend_from_slice(piece);
    chunk.extend_from_slice(b"\r\n");
    server.write_all(&chunk)
}

/// Reads the server's answer, and gives it a length; nothing where it did not answer.
fn read_answer(asked: &Head, server: &TcpStream) -> io::Result<Option<(Head, Vec<u8>)>> {
    let mut input = BufReader::new(server);
    let Ok(Some(mut answer)) = Head::read(&mut input) else { return Ok(None) };
    let Ok(body) = read_whole(&mut input, answer.answer_extent(asked.method())) else { return Ok(None) };
    answer.remove("connection");
    answer.remove("transfer-encoding");
    let has_body = asked.method() != "HEAD" && !matches!(answer.status(), 204 | 304);
    if has_body {
        answer.remove("content-length");
        answer = answer.with("Content-Length", body.len());
    }
    // HTTP/1.0 servers would have the client close.
    answer.start = answer.start.replacen("HTTP/1.0", "HTTP/1.1", 1);
    Ok(Some((answer, body)))
}

fn send_slowly(mut client: &TcpStream, body: &[u8], pause: Duration) -> io::Result<()> {
    for piece in body.chunks(16 * 1024) {
        std::thread::sleep(pause);
        client.write_all(piece)?;
    }
    Ok(())
}

/// Changes the first letter of each checksum in an answer; whether there was one.
fn spoil_checksum(answer: &mut Head, body: &mut [u8]) -> bool {
    let other = |letter: u8| if letter == b'A' { b'B' } else { b'A' };
    let mut is_spoilt = false;
    for (name, value) in &mut answer.headers {
        let name = name.to_ascii_lowercase();
        let is_checksum = ["x-goog-hash", "content-md5", "x-ms-content-crc64", "x-ms-blob-content-md5"]
            .contains(&name.as_str())
            || name.strip_prefix("x-amz-checksum-").is_some_and(|kind| kind != "type");
        if is_checksum {
            let at = value.find("crc32c=").map_or(0, |at| at + "crc32c=".len());
            let letter = value.as_bytes().get(at).copied().unwrap_or_default();
            value.replace_range(at..=at, &char::from(other(letter)).to_string());
            is_spoilt = true;
        }
    }
    let field = b"\"crc32c\":\"";
    if let Some(at) = body.windows(field.len()).position(|window| window == field) {
        let letter = &mut body[at + field.len()];
        *letter = other(*letter);
        is_spoilt = true;
    }
    is_spoilt
}

impl State {
    /// Decides what happens to a request, counts it, and adds a number below 1000 for where.
    fn roll(&mut self) -> (Option<Fault>, u16) {
        self.requests += 1;
        let mut rolled = f64::from(self.dice.roll()) / 4_294_967_296.0;
        let luck = u16::try_from(self.dice.roll() % 1000).expect("below 1000");
        let by_dice = Fault::ALL.into_iter().find(|fault| {
            rolled -= self.chances[fault.index()];
            rolled < 0.0
        });
        let fault = self.due.pop_front().unwrap_or(by_dice);
        // Whether an answer has a checksum will be seen.
        if let Some(fault) = fault.filter(|fault| *fault != Fault::BadChecksum) {
            self.injected[fault.index()] += 1;
        }
        (fault, luck)
    }
}

/// Numbers that look random and are the same for the same seed: SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((bits ^ bits >> 31) >> 32).expect("the upper half")
    }
}
