//! HTTP/1.1 on plain sockets, as the rig's servers and its proxy speak it, and a client for them.
//!
//! No framework: a fault has to happen at a chosen byte of a message, and a server has to see how far a body came that
//! was cut. Knows lengths, chunks and bodies that end with the connection; no trailers, no `100 Continue`.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::PATIENCE;
use super::http::Answer;

/// How much of a body is handed on at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Longer lines than any client sends.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// A message without its body: a request or an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    /// The first line.
    pub(crate) start: String,
    /// Names and values in the order in which they came.
    pub(crate) headers: Vec<(String, String)>,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// After so many bytes.
    Bytes(u64),
    /// With an empty chunk.
    Chunks,
    /// With the connection.
    Connection,
}

impl Head {
    /// An answer's.
    pub(crate) fn answer(status: u16) -> Self {
        Self { start: format!("HTTP/1.1 {status} {}", reason(status)), headers: Vec::new() }
    }

    /// The same head with one more header.
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Reads the next one; nothing where the connection ends instead.
    pub(crate) fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let start = read_line(input)?;
        if start.is_empty() {
            return Ok(None);
        }
        let mut head = Self { start, headers: Vec::new() };
        loop {
            let line = read_line(input)?;
            if line.is_empty() {
                return Ok(Some(head));
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            head.headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Takes out a header.
    pub(crate) fn remove(&mut self, name: &str) {
        self.headers.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
    }

    /// A request's method.
    pub(crate) fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// A request's target.
    pub(crate) fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// An answer's status; 0 if it has none.
    pub(crate) fn status(&self) -> u16 {
        self.target().parse().unwrap_or_default()
    }

    /// Where the body of a request ends.
    pub(crate) fn request_extent(&self) -> Extent {
        self.extent().unwrap_or(Extent::Bytes(0))
    }

    /// Where the body of the answer to a request of this method ends.
    pub(crate) fn answer_extent(&self, method: &str) -> Extent {
        if method == "HEAD" || matches!(self.status(), 100..200 | 204 | 304) {
            return Extent::Bytes(0);
        }
        self.extent().unwrap_or(Extent::Connection)
    }

    fn extent(&self) -> Option<Extent> {
        if self.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return Some(Extent::Chunks);
        }
        self.header("content-length").and_then(|length| length.parse().ok()).map(Extent::Bytes)
    }

    /// Writes it.
    pub(crate) fn write_to(&self, mut out: impl Write) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        out.write_all(text.as_bytes())
    }
}

/// Reads a body and hands it on piece by piece, as it comes. A body that is cut is an error.
pub(crate) fn read_body(
    input: &mut impl BufRead,
    extent: Extent,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    match extent {
        Extent::Bytes(bytes) => read_exactly(input, bytes, &mut sink),
        Extent::Chunks => loop {
            let line = read_line(input)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let bytes = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            read_exactly(input, bytes, &mut sink)?;
            read_line(input)?;
            if bytes == 0 {
                return Ok(());
            }
        },
        Extent::Connection => loop {
            let mut piece = vec![0; PIECE_BYTES];
            match input.read(&mut piece)? {
                0 => return Ok(()),
                read => sink(&piece[..read])?,
            }
        },
    }
}

fn read_exactly(
    input: &mut impl BufRead,
    mut left: u64,
    sink: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    while left > 0 {
        let most = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let read = input.read(&mut piece[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sink(&piece[..read])?;
        left -= u64::try_from(read).expect("at most a piece");
    }
    Ok(())
}

/// Reads a body as a whole.
pub(crate) fn read_whole(input: &mut impl BufRead, extent: Extent) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    read_body(input, extent, |piece| {
        body.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(body)
}

/// A line without its end; an empty one also where the connection ends.
fn read_line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.take(LINE_BYTES_MAX).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        308 => "Resume Incomplete",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Precondition Failed",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

/// Asks once, on a connection of its own.
pub(crate) fn send(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let link = TcpStream::connect_timeout(&address, PATIENCE)?;
    link.set_read_timeout(Some(PATIENCE))?;
    let mut head = Head { start: format!("{method} {target} HTTP/1.1"), headers: Vec::new() };
    for (name, value) in headers {
        head = head.with(name, value);
    }
    if head.header("host").is_none() {
        head = head.with("Host", address);
    }
    if head.extent().is_none() {
        head = head.with("Content-Length", body.len());
    }
    head.with("Connection", "close").write_to(&link)?;
    // A server may answer before it has read all, and close: then its answer counts, not the error.
    let written = (&link).write_all(body);
    let mut input = BufReader::new(&link);
    let Some(head) = Head::read(&mut input)? else {
        written?;
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let body = read_whole(&mut input, head.answer_extent(method))?;
    let mut text = Vec::new();
    head.write_to(&mut text)?;
    let status = head.status();
    Ok(Answer { status, head: String::from_utf8(text).expect("made of strings"), body })
}

/// A listening socket and all connections to it, which end when this is dropped.
pub(crate) struct Serving {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    open: Arc<Mutex<HashMap<u64, TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Listens, and runs `converse` for each connection on a thread of its own.
    pub(crate) fn start(
        address: SocketAddr,
        converse: impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let open = Arc::new(Mutex::new(HashMap::new()));
        let (stop, links, converse) = (stopping.clone(), open.clone(), Arc::new(converse));
        let thread = std::thread::spawn(move || {
            for (id, link) in (0..).zip(listener.incoming()) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(link) = link else { continue };
                let Ok(other) = link.try_clone() else { continue };
                links.lock().expect("nobody panics with it").insert(id, other);
                let (links, converse) = (links.clone(), converse.clone());
                std::thread::spawn(move || {
                    link.set_nodelay(true).ok();
                    // How a conversation ended is for the peer to complain of.
                    converse(&link).ok();
                    drop(link);
                    links.lock().expect("nobody panics with it").remove(&id);
                });
            }
        });
        Ok(Self { address, stopping, open, thread: Some(thread) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // The thread waits for a connection: this is one.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it does not panic");
        }
        for link in self.open.lock().expect("nobody panics with it").values() {
            link.shutdown(Shutdown::Both).ok();
        }
    }
}

/// Encodes bytes as RFC 4648 section 4 says.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = LETTERS[usize::try_from(bits >> (18 - 6 * at) & 63).expect("six bits")];
            text.push(if at <= u32::try_from(three.len()).expect("at most 3") {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

/// Decodes what [`base64`] encodes.
pub(crate) fn from_base64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let letters = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::new();
    for four in letters.chunks(4) {
        let bits = four.iter().fold(0_u32, |bits, letter| bits << 6 | u32::from(value(*letter)));
        let [_, three @ ..] = (bits << (6 * (4 - four.len()))).to_be_bytes();
        bytes.extend_from_slice(&three[..four.len() * 6 / 8]);
    }
    bytes
}

/// Decodes `%` and two hexadecimal digits.
pub(crate) fn from_percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let code = text.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(code) if bytes[at] == b'%' => {
                out.push(code);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).expect("names are UTF-8")
}

/// Encodes all but the unreserved characters, and `/` where it may stay.
pub(crate) fn to_percent(text: &str, keep_slash: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let stays = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slash && byte == b'/');
        out += &if stays { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    }
    out
}
