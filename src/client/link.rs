//! One open socket to a daemon, of any of the three kinds, and the numbered PINGs that ask how far it has read.
//!
//! | endpoint | socket | a frame is |
//! | --- | --- | --- |
//! | `udp:127.0.0.1:5055` | UDP | a datagram |
//! | `unix-dgram:/path` | Unix datagram | a datagram |
//! | `unix-stream:/path` | Unix stream | a u16 length, big-endian, and so many bytes (RFC 4571) |
//!
//! Frames are sent as they are given, signed where there is a key; nothing here looks into them, or waits for an answer.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use rustix::net::SocketAddrUnix;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UdpSocket, UnixDatagram, UnixStream};

use crate::config::Secret;
use crate::frame::{HEADER_BYTES, Message, PING_MAX_BYTES, PONG_KIND, TRAILER_BYTES, encode};
use crate::id::{CONNECTION_ID_MAX_BYTES, ConnectionId, Scope};
use crate::io::clock::Clock;
use crate::tap_key::{Signer, TapKey};

/// The longest frame that can be sent over any of the sockets: a UDP datagram holds 65,507 bytes, the trailer among them.
pub(super) const FRAME_MAX_BYTES: usize = 65_507 - TRAILER_BYTES;
/// The connection id of PINGs. They open no connection, so it may be the same for each client.
const PING_ID: &str = "tap-client";
/// The longest answer: a PONG is as long as the PING.
const ANSWER_MAX_BYTES: usize = HEADER_BYTES + CONNECTION_ID_MAX_BYTES + PING_MAX_BYTES;

/// Where a daemon listens for frames. Reads and prints as `udp:…`, `unix-dgram:…` or `unix-stream:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A UDP address.
    Udp(SocketAddr),
    /// The path of a Unix datagram socket.
    UnixDatagram(PathBuf),
    /// The path of a Unix stream socket.
    UnixStream(PathBuf),
}

/// Text that names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an endpoint such as udp:127.0.0.1:5055, unix-dgram:/path or unix-stream:/path: {0:?}")]
pub struct EndpointError(String);

/// An open socket. What it says may be of a daemon that is long gone: only an answer to a PING tells.
#[derive(Debug)]
pub(super) struct Link {
    socket: Socket,
    signer: Option<Signer>,
    /// What has come of answers that are not whole yet.
    unread: Vec<u8>,
    out: Vec<u8>,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    UnixDatagram(UnixDatagram),
    UnixStream(UnixStream),
}

impl Endpoint {
    /// Whether a socket of this kind loses what its receiver does not read in time.
    pub(super) fn is_lossy(&self) -> bool {
        !matches!(self, Self::UnixStream(_))
    }
}

impl Link {
    /// Opens a socket. That nobody listens shows here, except over UDP. With the daemon's `key`, frames are signed.
    pub(super) async fn open(endpoint: &Endpoint, key: Option<&Secret>) -> io::Result<Self> {
        let socket = Socket::open(endpoint).await?;
        let signer = key.map(|key| Signer::new(TapKey::new(key.expose()), random()));
        Ok(Self { socket, signer, unread: Vec::new(), out: Vec::new() })
    }

    /// Sends frames, each at most [`FRAME_MAX_BYTES`] long: over a stream all in one piece. Waits where the socket is
    /// full. Must not be given up half-way: a stream would go on in the middle of a frame.
    pub(super) async fn send<'f>(&mut self, frames: impl Iterator<Item = &'f [u8]>) -> io::Result<()> {
        self.out.clear();
        for frame in frames {
            let signed = self.signer.as_mut().map(|signer| signer.sign(frame, Clock::start().wall()));
            let frame = signed.as_deref().unwrap_or(frame);
            match &self.socket {
                Socket::Udp(socket) => drop(socket.send(frame).await?),
                Socket::UnixDatagram(socket) => drop(socket.send(frame).await?),
                Socket::UnixStream(_) => {
                    let length = u16::try_from(frame.len()).map_err(io::Error::other)?;
                    self.out.extend_from_slice(&length.to_be_bytes());
                    self.out.extend_from_slice(frame);
                }
            }
        }
        match &mut self.socket {
            Socket::UnixStream(socket) => socket.write_all(&self.out).await,
            Socket::Udp(_) | Socket::UnixDatagram(_) => Ok(()),
        }
    }

    /// Waits for the answer to a PING, and returns its number. May be given up at any time.
    pub(super) async fn pong(&mut self) -> io::Result<u64> {
        loop {
            if !matches!(self.socket, Socket::UnixStream(_)) {
                self.unread.clear();
                self.unread.reserve(ANSWER_MAX_BYTES);
            }
            let number = match &mut self.socket {
                Socket::Udp(socket) => {
                    socket.recv_buf(&mut self.unread).await?;
                    number_of(&self.unread)
                }
                Socket::UnixDatagram(socket) => {
                    socket.recv_buf(&mut self.unread).await?;
                    number_of(&self.unread)
                }
                Socket::UnixStream(socket) => match split_off_answer(&mut self.unread) {
                    Some(answer) => number_of(&answer),
                    None if socket.read_buf(&mut self.unread).await? == 0 => {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    None => None,
                },
            };
            if let Some(number) = number {
                return Ok(number);
            }
        }
    }
}

/// Takes the first answer off what a stream has brought, once all of it is there.
fn split_off_answer(unread: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = 2 + usize::from(u16::from_be_bytes(*unread.first_chunk()?));
    let answer = unread.get(2..end)?.to_vec();
    unread.drain(..end);
    Some(answer)
}

/// A PING of this number, by which its answer is told from others.
pub(super) fn ping(number: u64) -> Vec<u8> {
    let id = ConnectionId::new(PING_ID).expect("the id of PINGs follows the rules");
    encode(Message::Ping.kind(), Scope::Whole, None, &id, &number.to_be_bytes())
}

/// The number in an answer to one of our PINGs.
fn number_of(answer: &[u8]) -> Option<u64> {
    let (rest, number) = answer.split_last_chunk()?;
    let is_ours = rest.get(3) == Some(&PONG_KIND) && rest.get(HEADER_BYTES..) == Some(PING_ID.as_bytes());
    is_ours.then(|| u64::from_be_bytes(*number))
}

/// A number that nobody has drawn before: the standard library seeds its hash maps from the system's randomness.
fn random() -> u32 {
    let drawn = RandomState::new().hash_one(std::process::id()).to_be_bytes();
    u32::from_be_bytes([drawn[0], drawn[1], drawn[2], drawn[3]])
}

impl Socket {
    async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Udp(address) => {
                let any = if address.is_ipv4() {
                    Ipv4Addr::UNSPECIFIED.into()
                } else {
                    Ipv6Addr::UNSPECIFIED.into()
                };
                let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
                socket.connect(address).await?;
                Ok(Self::Udp(socket))
            }
            Endpoint::UnixDatagram(path) => {
                let socket = UnixDatagram::unbound()?;
                // Without a name there is nowhere to send an answer. Linux chooses a free one outside the file
                // system, which needs no permission for the daemon to answer and leaves nothing to clean up.
                rustix::net::bind(&socket, &SocketAddrUnix::new_unnamed())?;
                socket.connect(path)?;
                Ok(Self::UnixDatagram(socket))
            }
            Endpoint::UnixStream(path) => UnixStream::connect(path).await.map(Self::UnixStream),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError(text.chars().take(128).collect());
        match text.split_once(':').ok_or_else(wrong)? {
            ("udp", address) => address.parse().map(Self::Udp).map_err(|_| wrong()),
            (_, "") => Err(wrong()),
            ("unix-dgram", path) => Ok(Self::UnixDatagram(path.into())),
            ("unix-stream", path) => Ok(Self::UnixStream(path.into())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(out, "udp:{address}"),
            Self::UnixDatagram(path) => write!(out, "unix-dgram:{}", path.display()),
            Self::UnixStream(path) => write!(out, "unix-stream:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::pong;

    #[test]
    fn answers_are_taken_off_a_stream_when_they_are_whole() {
        let answer = pong(&ping(7));
        let framed = [&u16::try_from(answer.len()).unwrap().to_be_bytes(), &answer[..]].concat();
        let mut unread = Vec::new();
        for byte in framed.iter().chain(&framed) {
            assert!(split_off_answer(&mut unread).is_none());
            unread.push(*byte);
            if unread.len() == framed.len() {
                assert_eq!(number_of(&split_off_answer(&mut unread).unwrap()), Some(7));
            }
        }
        assert!(unread.is_empty());
    }

    #[test]
    fn only_answers_to_our_own_pings_have_a_number() {
        let answer = pong(&ping(7));
        assert_eq!(number_of(&answer), Some(7));
        assert_eq!(number_of(&ping(7)), None);
        assert_eq!(number_of(&answer[..answer.len() - 1]), None);
        assert_eq!(number_of(b""), None);
    }

    #[test]
    fn endpoints_read_back_as_they_print() {
        for text in ["udp:127.0.0.1:5055", "udp:[::1]:5055", "unix-dgram:/run/a:b", "unix-stream:tap.sock"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for wrong in ["", "udp:", "udp:5055", "127.0.0.1:5055", "unix-dgram:", "unix:/a", "tcp:127.0.0.1:1"] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }
}
