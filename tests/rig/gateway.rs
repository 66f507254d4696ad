//! A gateway: the tap protocol as its own side writes it, over each of the three sockets.
//!
//! Nothing is lost on the way to the daemon: after every few frames a PING is sent and its answer awaited.

use std::io::{self, Read as _, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tempfile::TempDir;

use super::PATIENCE;
use super::daemon::Daemon;
use super::media::Sent;
use super::place::Place;

/// The channel byte of the caller.
pub(crate) const CALLER: u8 = 0;
/// The channel byte of the AI.
pub(crate) const AI: u8 = 1;
/// The channel byte for the connection as a whole.
pub(crate) const WHOLE: u8 = 255;

/// The kind bytes of frames.
pub(crate) mod kind {
    pub(crate) const RTP: u8 = 1;
    pub(crate) const END: u8 = 2;
    pub(crate) const META: u8 = 3;
    pub(crate) const HOLD: u8 = 4;
    pub(crate) const RELEASE: u8 = 5;
    pub(crate) const PAUSE: u8 = 6;
    pub(crate) const RESUME: u8 = 7;
    pub(crate) const MARK: u8 = 8;
    pub(crate) const CLEAR: u8 = 9;
    pub(crate) const RTCP: u8 = 10;
    pub(crate) const PING: u8 = 11;
    pub(crate) const PONG: u8 = 12;
}

/// Few enough frames that the smallest socket buffer (Unix datagrams: 10 of them, but those block) holds them.
const FRAMES_BETWEEN_PINGS: usize = 16;

/// One of the daemon's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Socket {
    /// UDP.
    Udp,
    /// Unix datagrams.
    UnixDgram,
    /// A Unix stream, each frame behind its length.
    UnixStream,
}

/// All of them.
pub(crate) const SOCKETS: [Socket; 3] = [Socket::Udp, Socket::UnixDgram, Socket::UnixStream];

/// Writes one frame as contract section 2 says.
pub(crate) fn frame(kind: u8, channel: u8, at_us: u64, id: &[u8], body: &[u8]) -> Vec<u8> {
    let mut frame = vec![b'S', b'T', 1, kind, channel, u8::try_from(id.len()).expect("a short id"), 0, 0];
    frame.extend_from_slice(&at_us.to_be_bytes());
    frame.extend_from_slice(id);
    frame.extend_from_slice(body);
    frame
}

/// Signs a frame as README.md says: the flag, the sender, the counter, and the tag over all of that.
pub(crate) fn signed(frame: &[u8], key: &[u8], sender: u32, counter: u64) -> Vec<u8> {
    let mut signed = frame.to_vec();
    signed[7] |= 1;
    signed.extend_from_slice(&sender.to_be_bytes());
    signed.extend_from_slice(&counter.to_be_bytes());
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    hmac.update(&signed);
    signed.extend_from_slice(&hmac.finalize().into_bytes()[..16]);
    signed
}

/// A connected sender.
pub(crate) struct Gateway {
    link: Link,
    signer: Option<(Vec<u8>, u32)>,
    since_ping: usize,
    pings: u64,
}

enum Link {
    Udp(UdpSocket),
    UnixDgram(UnixDatagram, TempDir),
    UnixStream(UnixStream),
}

impl Gateway {
    /// Connects to one of the daemon's sockets.
    pub(crate) fn connect(place: &Place, daemon: &Daemon, socket: Socket) -> Self {
        let link = match socket {
            Socket::Udp => {
                let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
                udp.connect(daemon.udp()).expect("loopback is there");
                udp.set_read_timeout(Some(PATIENCE)).expect("a valid time");
                Link::Udp(udp)
            }
            Socket::UnixDgram => {
                // Answers come to a name, so the gateway needs one of its own.
                let folder = TempDir::new().expect("a temporary folder");
                let dgram = UnixDatagram::bind(folder.path().join("gateway")).expect("a socket of its own");
                dgram.connect(place.dgram()).expect("the daemon's datagram socket");
                dgram.set_read_timeout(Some(PATIENCE)).expect("a valid time");
                Link::UnixDgram(dgram, folder)
            }
            Socket::UnixStream => {
                let stream = UnixStream::connect(place.stream()).expect("the daemon's stream socket");
                stream.set_read_timeout(Some(PATIENCE)).expect("a valid time");
                Link::UnixStream(stream)
            }
        };
        Self { link, signer: None, since_ping: 0, pings: 0 }
    }

    /// Signs all frames from now on.
    pub(crate) fn sign(&mut self, key: &str, sender: u32) {
        self.signer = Some((key.as_bytes().to_vec(), sender));
    }

    /// Sends the bytes of a frame, and waits for the daemon every now and then.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.write(frame);
        self.since_ping += 1;
        if self.since_ping >= FRAMES_BETWEEN_PINGS {
            self.sync();
        }
    }

    /// Waits until the daemon has read all that was sent so far.
    pub(crate) fn sync(&mut self) {
        self.since_ping = 0;
        self.pings += 1;
        let body = self.pings.to_be_bytes();
        self.write(&frame(kind::PING, WHOLE, 0, b"a gateway", &body));
        let answer = self.read();
        assert_eq!(answer, frame(kind::PONG, WHOLE, 0, b"a gateway", &body), "the answer to a ping");
    }

    /// Sends RTP packets on a channel at the times that they carry.
    pub(crate) fn play(&mut self, id: &str, channel: u8, packets: &[Sent]) {
        for packet in packets {
            self.send(&frame(kind::RTP, channel, packet.at_us, id.as_bytes(), &packet.rtp));
        }
    }

    /// Sends both channels' packets in the order of their times.
    pub(crate) fn play_both(&mut self, id: &str, caller: &[Sent], ai: &[Sent]) {
        let tagged = |channel: u8| move |sent: &Sent| (sent.at_us, channel, sent.rtp.clone());
        let mut all: Vec<_> = caller.iter().map(tagged(CALLER)).chain(ai.iter().map(tagged(AI))).collect();
        all.sort_by_key(|(at_us, ..)| *at_us);
        for (at_us, channel, rtp) in all {
            self.send(&frame(kind::RTP, channel, at_us, id.as_bytes(), &rtp));
        }
    }

    /// Sends a frame without a time of its own about the connection or a channel.
    pub(crate) fn say(&mut self, kind: u8, channel: u8, id: &str) {
        self.send(&frame(kind, channel, 0, id.as_bytes(), b""));
    }

    /// Sends a frame of a moment.
    pub(crate) fn say_at(&mut self, kind: u8, channel: u8, at_us: u64, id: &str) {
        self.send(&frame(kind, channel, at_us, id.as_bytes(), b""));
    }

    /// Sends metadata.
    pub(crate) fn meta(&mut self, id: &str, object: &Value) {
        self.send(&frame(kind::META, WHOLE, 0, id.as_bytes(), object.to_string().as_bytes()));
    }

    /// Ends the call: both channels. The daemon has read all of it when this returns.
    pub(crate) fn end(&mut self, id: &str) {
        self.say(kind::END, WHOLE, id);
        self.sync();
    }

    /// Sends a frame, signed if that was asked for. Returns what was sent.
    pub(crate) fn write(&mut self, frame: &[u8]) -> Vec<u8> {
        let signer = self.signer.as_ref();
        let bytes =
            signer.map_or_else(|| frame.to_vec(), |(key, id)| signed(frame, key, *id, next_counter()));
        self.write_bytes(&bytes);
        bytes
    }

    /// Sends bytes as one unit, whatever they are.
    pub(crate) fn write_bytes(&mut self, bytes: &[u8]) {
        self.try_write(bytes).expect("the daemon takes what is sent");
    }

    /// Sends bytes to a daemon that may have been killed.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.link {
            Link::Udp(udp) => udp.send(bytes).map(drop),
            Link::UnixDgram(dgram, _) => dgram.send(bytes).map(drop),
            Link::UnixStream(stream) => {
                let length = u16::try_from(bytes.len()).expect("a unit of the stream is short");
                stream.write_all(&[&length.to_be_bytes()[..], bytes].concat())
            }
        }
    }

    /// Like [`Gateway::sync`], of a daemon that may have been killed; then `is_killed` ends the wait.
    pub(crate) fn try_sync(&mut self, is_killed: &AtomicBool) -> io::Result<()> {
        self.pings += 1;
        let body = self.pings.to_be_bytes();
        self.try_write(&frame(kind::PING, WHOLE, 0, b"a gateway", &body))?;
        self.set_read_timeout(Duration::from_millis(20));
        loop {
            match self.try_read() {
                Ok(answer) => {
                    assert_eq!(
                        answer,
                        frame(kind::PONG, WHOLE, 0, b"a gateway", &body),
                        "the answer to a ping"
                    );
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if is_killed.load(Ordering::Acquire) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }

    fn set_read_timeout(&self, time: Duration) {
        let set = match &self.link {
            Link::Udp(udp) => udp.set_read_timeout(Some(time)),
            Link::UnixDgram(dgram, _) => dgram.set_read_timeout(Some(time)),
            Link::UnixStream(stream) => stream.set_read_timeout(Some(time)),
        };
        set.expect("a valid time");
    }

    fn read(&mut self) -> Vec<u8> {
        self.try_read().expect("an answer")
    }

    fn try_read(&mut self) -> io::Result<Vec<u8>> {
        let mut answer = vec![0; 2048];
        let length = match &mut self.link {
            Link::Udp(udp) => again(|| udp.recv(&mut answer))?,
            Link::UnixDgram(dgram, _) => again(|| dgram.recv(&mut answer))?,
            Link::UnixStream(stream) => {
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                let length = usize::from(u16::from_be_bytes(length));
                stream.read_exact(&mut answer[..length])?;
                length
            }
        };
        answer.truncate(length);
        Ok(answer)
    }
}

/// The wall clock in microseconds, and never the same twice.
pub(crate) fn next_counter() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set").as_micros();
    let now = u64::try_from(now).expect("this millennium");
    let next = |last: u64| Some(now.max(last + 1));
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).expect("it always succeeds");
    now.max(last + 1)
}

/// Does it again as long as it is interrupted, which a machine that was halted does to a read with a time limit.
fn again(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
