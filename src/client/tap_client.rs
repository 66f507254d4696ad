//! The sending end of the tap protocol, over any of the three sockets: for `replay` and `demo`, and for tests.
//!
//! | endpoint | socket | a frame is |
//! | --- | --- | --- |
//! | `udp:127.0.0.1:5055` | UDP | a datagram |
//! | `unix-dgram:/path` | Unix datagram | a datagram |
//! | `unix-stream:/path` | Unix stream | a u16 length, big-endian, and so many bytes (RFC 4571) |
//!
//! A call in real time needs no flow control, one that is sent faster does: a datagram socket whose receiver falls
//! behind drops what does not fit. So after every few datagrams a PING is sent and its answer awaited, which the
//! daemon gives in the order in which it reads. Frames are sent as they are given, signed where the daemon has a key;
//! nothing here looks into them.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rustix::net::SocketAddrUnix;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UdpSocket, UnixDatagram, UnixStream};

use crate::config::Secret;
use crate::frame::{HEADER_BYTES, Message, PING_MAX_BYTES, encode, pong};
use crate::id::{CONNECTION_ID_MAX_BYTES, ConnectionId, Scope};
use crate::io::clock::Clock;
use crate::tap_key::{Signer, TapKey};

/// Datagrams sent without knowing that the ones before were read. A UDP receive buffer may be as small as 200 kB,
/// where the kernel charges some 2 kB for a frame of speech, and other gateways share it. (Where
/// `net.unix.max_dgram_qlen` is smaller, often 10, sending to a Unix socket waits by itself.)
const IN_FLIGHT_MAX: usize = 16;
/// How long a PING waits for its answer before it is sent again, as UDP may have dropped it. Even a daemon that
/// waits for a slow disk answers sooner.
const PING_PATIENCE: Duration = Duration::from_secs(2);
/// How often a PING is sent on a datagram socket: together with the patience, 6 seconds.
const PING_ATTEMPTS: u32 = 3;
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

/// Why frames do not reach the daemon.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The socket refuses.
    #[error("cannot send to {endpoint} (is sidetape running there?)")]
    Socket {
        /// Where to.
        endpoint: Endpoint,
        /// What the socket said.
        source: io::Error,
    },
    /// Something may be there, but it does not answer.
    #[error("no answer to PING from {0}: is sidetape running there?")]
    Silent(Endpoint),
    /// A stream socket's length field has 16 bits.
    #[error("frame of {0} bytes is longer than 65535")]
    TooLong(usize),
}

/// An open socket to a daemon that has answered at least once.
#[derive(Debug)]
pub struct TapClient {
    endpoint: Endpoint,
    socket: Socket,
    signer: Option<Signer>,
    in_flight: usize,
    pings: u64,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    UnixDatagram(UnixDatagram),
    UnixStream(UnixStream),
}

impl TapClient {
    /// Connects, and waits for the answer to a PING. With the daemon's `key`, frames are signed.
    ///
    /// # Errors
    /// [`TapError`], if nothing listens there or it does not answer.
    pub async fn connect(endpoint: &Endpoint, key: Option<&Secret>) -> Result<Self, TapError> {
        let mut client = Self::open(endpoint).await?;
        client.signer = key.map(|key| Signer::new(TapKey::new(key.expose()), random()));
        client.confirm().await?;
        Ok(client)
    }

    /// Sends one frame, and waits where sending on would risk that frames are lost.
    ///
    /// # Errors
    /// [`TapError`]; what was sent since the last answer may then be lost.
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), TapError> {
        self.write(frame).await?;
        self.in_flight += 1;
        // A stream holds its sender back by itself.
        if self.in_flight < IN_FLIGHT_MAX || matches!(self.socket, Socket::UnixStream(_)) {
            return Ok(());
        }
        self.confirm().await
    }

    /// Waits until the daemon has read everything that was sent.
    ///
    /// # Errors
    /// [`TapError::Silent`], if it does not say so within a few seconds.
    pub async fn confirm(&mut self) -> Result<(), TapError> {
        self.ping(PING_PATIENCE).await?;
        self.in_flight = 0;
        Ok(())
    }

    async fn open(endpoint: &Endpoint) -> Result<Self, TapError> {
        let socket = Socket::open(endpoint).await;
        let socket = socket.map_err(|source| TapError::Socket { endpoint: endpoint.clone(), source })?;
        Ok(Self { endpoint: endpoint.clone(), socket, signer: None, in_flight: 0, pings: 0 })
    }

    /// Sends a PING until it is answered, at most [`PING_ATTEMPTS`] times.
    async fn ping(&mut self, patience: Duration) -> Result<(), TapError> {
        // By its number, the answer is told from a late one to a PING before.
        self.pings += 1;
        let id = ConnectionId::new(PING_ID).expect("the id of PINGs follows the rules");
        let ping = encode(Message::Ping.kind(), Scope::Whole, None, &id, &self.pings.to_be_bytes());
        let expected = pong(&ping);
        // A stream loses nothing: a second PING there would only wait behind the first.
        let is_stream = matches!(self.socket, Socket::UnixStream(_));
        let (attempts, patience) =
            if is_stream { (1, patience.saturating_mul(PING_ATTEMPTS)) } else { (PING_ATTEMPTS, patience) };
        for _ in 0..attempts {
            self.write(&ping).await?;
            let answer = async {
                while self.socket.read().await? != expected {}
                Ok(())
            };
            if let Ok(answer) = tokio::time::timeout(patience, answer).await {
                return answer.map_err(|source| self.refused(source));
            }
        }
        Err(TapError::Silent(self.endpoint.clone()))
    }

    async fn write(&mut self, frame: &[u8]) -> Result<(), TapError> {
        let signed = self.signer.as_mut().map(|signer| signer.sign(frame, Clock::start().wall()));
        let frame = signed.as_deref().unwrap_or(frame);
        let sent = match &mut self.socket {
            Socket::Udp(socket) => socket.send(frame).await.map(|_| ()),
            Socket::UnixDatagram(socket) => socket.send(frame).await.map(|_| ()),
            Socket::UnixStream(socket) => {
                let length = u16::try_from(frame.len()).map_err(|_| TapError::TooLong(frame.len()))?;
                socket.write_all(&[&length.to_be_bytes(), frame].concat()).await
            }
        };
        sent.map_err(|source| self.refused(source))
    }

    fn refused(&self, source: io::Error) -> TapError {
        TapError::Socket { endpoint: self.endpoint.clone(), source }
    }
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

    /// Reads what the daemon says next.
    async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut answer = vec![0; ANSWER_MAX_BYTES];
        let length = match self {
            Self::Udp(socket) => socket.recv(&mut answer).await?,
            Self::UnixDatagram(socket) => socket.recv(&mut answer).await?,
            Self::UnixStream(socket) => {
                answer.resize(usize::from(socket.read_u16().await?), 0);
                socket.read_exact(&mut answer).await?
            }
        };
        answer.truncate(length);
        Ok(answer)
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
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use std::thread::{self, JoinHandle};

    use super::*;

    const PING: u8 = 11;
    const END: u8 = 2;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        encode(kind, Scope::Whole, None, &ConnectionId::new("c").unwrap(), body)
    }

    /// Answers PINGs as a daemon does, until it is sent an END, and returns the other frames.
    fn daemon(
        mut read: impl FnMut() -> (Vec<u8>, Box<dyn FnOnce(&[u8])>) + Send + 'static,
    ) -> JoinHandle<Vec<Vec<u8>>> {
        thread::spawn(move || {
            let mut frames = Vec::new();
            loop {
                let (bytes, answer) = read();
                match bytes[3] {
                    END => return frames,
                    PING => answer(&pong(&bytes)),
                    _ => frames.push(bytes),
                }
            }
        })
    }

    fn udp_daemon() -> (Endpoint, JoinHandle<Vec<Vec<u8>>>) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::Udp(socket.local_addr().unwrap());
        let read = move || {
            let mut bytes = vec![0; 65_535];
            let (length, peer) = socket.recv_from(&mut bytes).unwrap();
            bytes.truncate(length);
            let socket = socket.try_clone().unwrap();
            let answer = move |pong: &[u8]| assert_eq!(socket.send_to(pong, peer).unwrap(), pong.len());
            (bytes, Box::new(answer) as Box<dyn FnOnce(&[u8])>)
        };
        (endpoint, daemon(read))
    }

    fn unix_datagram_daemon(path: PathBuf) -> (Endpoint, JoinHandle<Vec<Vec<u8>>>) {
        let socket = UnixDatagram::bind(&path).unwrap();
        let read = move || {
            let mut bytes = vec![0; 65_535];
            let (length, peer) = socket.recv_from(&mut bytes).unwrap();
            bytes.truncate(length);
            let socket = socket.try_clone().unwrap();
            let answer = move |pong: &[u8]| assert_eq!(socket.send_to_addr(pong, &peer).unwrap(), pong.len());
            (bytes, Box::new(answer) as Box<dyn FnOnce(&[u8])>)
        };
        (Endpoint::UnixDatagram(path), daemon(read))
    }

    fn unix_stream_daemon(path: PathBuf) -> (Endpoint, JoinHandle<Vec<Vec<u8>>>) {
        let listener = UnixListener::bind(&path).unwrap();
        let mut accepted: Option<UnixStream> = None;
        let read = move || {
            let socket = accepted.get_or_insert_with(|| listener.accept().unwrap().0);
            let mut length = [0; 2];
            socket.read_exact(&mut length).unwrap();
            let mut bytes = vec![0; u16::from_be_bytes(length).into()];
            socket.read_exact(&mut bytes).unwrap();
            let mut socket = socket.try_clone().unwrap();
            let answer = move |pong: &[u8]| {
                let length = u16::try_from(pong.len()).unwrap().to_be_bytes();
                socket.write_all(&[&length, pong].concat()).unwrap();
            };
            (bytes, Box::new(answer) as Box<dyn FnOnce(&[u8])>)
        };
        (Endpoint::UnixStream(path), daemon(read))
    }

    #[tokio::test]
    async fn a_thousand_frames_at_once_arrive_whole_and_in_order_on_each_socket() {
        let folder = tempfile::tempdir().unwrap();
        let daemons = [
            udp_daemon(),
            unix_datagram_daemon(folder.path().join("dgram")),
            unix_stream_daemon(folder.path().join("stream")),
        ];
        for (endpoint, daemon) in daemons {
            let mut client = TapClient::connect(&endpoint, None).await.unwrap();
            let frames: Vec<Vec<u8>> =
                (0..1000_u16).map(|n| frame(1, &n.to_be_bytes().repeat(400))).collect();
            for frame in &frames {
                client.send(frame).await.unwrap();
            }
            client.confirm().await.unwrap();
            client.send(&frame(END, b"")).await.unwrap();
            assert!(daemon.join().unwrap() == frames, "{endpoint}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_said_at_once() {
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for endpoint in [
            Endpoint::Udp(closed),
            Endpoint::UnixDatagram("/nonexistent/a".into()),
            Endpoint::UnixStream("/nonexistent/b".into()),
        ] {
            let error = TapClient::connect(&endpoint, None).await.unwrap_err();
            assert!(matches!(error, TapError::Socket { .. }), "{error:?}");
            assert_eq!(error.to_string(), format!("cannot send to {endpoint} (is sidetape running there?)"));
        }
    }

    #[tokio::test]
    async fn a_lost_ping_is_sent_again_and_silence_is_said_in_the_end() {
        let mute = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::Udp(mute.local_addr().unwrap());
        let mut client = TapClient::open(&endpoint).await.unwrap();
        let error = client.ping(Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("no answer to PING from {endpoint}: is sidetape running there?")
        );
        for _ in 0..PING_ATTEMPTS {
            let mut bytes = [0; 64];
            let (length, peer) = mute.recv_from(&mut bytes).unwrap();
            assert_eq!(crate::frame::parse(&bytes[..length]).unwrap().message, Message::Ping);
            // Too late: it must not pass for the answer to the next.
            assert_eq!(mute.send_to(&pong(&bytes[..length]), peer).unwrap(), length);
        }
        assert!(matches!(client.ping(Duration::from_millis(1)).await, Err(TapError::Silent(_))));
    }

    #[tokio::test]
    async fn a_frame_that_no_length_field_can_announce_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (endpoint, daemon) = unix_stream_daemon(folder.path().join("stream"));
        let mut client = TapClient::connect(&endpoint, None).await.unwrap();
        assert!(matches!(client.send(&[0; 65_536]).await, Err(TapError::TooLong(65_536))));
        client.send(&frame(END, b"")).await.unwrap();
        assert!(daemon.join().unwrap().is_empty());
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
