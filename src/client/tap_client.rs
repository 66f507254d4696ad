//! The patient sender: it waits where sending on would risk that frames are lost. For programs that have all of a call
//! at hand, such as `replay`, `demo` and `load`, and for tests; a gateway takes the sender beside it.
//!
//! A call in real time needs no flow control, one that is sent faster does: a datagram socket whose receiver falls
//! behind drops what does not fit. So after every few datagrams a PING is sent and its answer awaited, which the
//! daemon gives in the order in which it reads.

use std::io;
use std::time::Duration;

use super::link::{Endpoint, FRAME_MAX_BYTES, Link, ping};
use crate::config::Secret;

/// Datagrams sent without knowing that the ones before were read. A UDP receive buffer may be as small as 200 kB,
/// where the kernel charges some 2 kB for a frame of speech, and other gateways share it. (Where
/// `net.unix.max_dgram_qlen` is smaller, often 10, sending to a Unix socket waits by itself.)
const IN_FLIGHT_MAX: usize = 16;
/// How long a PING waits for its answer before it is sent again, as UDP may have dropped it. Even a daemon that
/// waits for a slow disk answers sooner.
const PING_PATIENCE: Duration = Duration::from_secs(2);
/// How often a PING is sent on a datagram socket: together with the patience, 6 seconds.
const PING_ATTEMPTS: u32 = 3;

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
    /// No socket takes it.
    #[error("frame of {0} bytes is longer than {FRAME_MAX_BYTES}")]
    TooLong(usize),
}

/// An open socket to a daemon that has answered at least once.
#[derive(Debug)]
pub struct TapClient {
    endpoint: Endpoint,
    link: Link,
    in_flight: usize,
    pings: u64,
}

impl TapClient {
    /// Connects, and waits for the answer to a PING. With the daemon's `key`, frames are signed.
    ///
    /// # Errors
    /// [`TapError`], if nothing listens there or it does not answer.
    pub async fn connect(endpoint: &Endpoint, key: Option<&Secret>) -> Result<Self, TapError> {
        let mut client = Self::open(endpoint, key).await?;
        client.confirm().await?;
        Ok(client)
    }

    /// Sends one frame, and waits where sending on would risk that frames are lost.
    ///
    /// # Errors
    /// [`TapError`]; what was sent since the last answer may then be lost.
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), TapError> {
        if frame.len() > FRAME_MAX_BYTES {
            return Err(TapError::TooLong(frame.len()));
        }
        self.write(frame).await?;
        self.in_flight += 1;
        // A stream holds its sender back by itself.
        if self.in_flight < IN_FLIGHT_MAX || !self.endpoint.is_lossy() {
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

    async fn open(endpoint: &Endpoint, key: Option<&Secret>) -> Result<Self, TapError> {
        let link = Link::open(endpoint, key).await;
        let link = link.map_err(|source| TapError::Socket { endpoint: endpoint.clone(), source })?;
        Ok(Self { endpoint: endpoint.clone(), link, in_flight: 0, pings: 0 })
    }

    /// Sends a PING until it is answered, at most [`PING_ATTEMPTS`] times.
    async fn ping(&mut self, patience: Duration) -> Result<(), TapError> {
        // By its number, the answer is told from a late one to a PING before.
        self.pings += 1;
        let number = self.pings;
        // A stream loses nothing: a second PING there would only wait behind the first.
        let (attempts, patience) = if self.endpoint.is_lossy() {
            (PING_ATTEMPTS, patience)
        } else {
            (1, patience.saturating_mul(PING_ATTEMPTS))
        };
        for _ in 0..attempts {
            self.write(&ping(number)).await?;
            let answer = async {
                while self.link.pong().await? != number {}
                Ok(())
            };
            if let Ok(answer) = tokio::time::timeout(patience, answer).await {
                return answer.map_err(|source| self.refused(source));
            }
        }
        Err(TapError::Silent(self.endpoint.clone()))
    }

    async fn write(&mut self, frame: &[u8]) -> Result<(), TapError> {
        let sent = self.link.send(std::iter::once(frame)).await;
        sent.map_err(|source| self.refused(source))
    }

    fn refused(&self, source: io::Error) -> TapError {
        TapError::Socket { endpoint: self.endpoint.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use std::path::PathBuf;
    use std::thread::{self, JoinHandle};

    use super::*;
    use crate::frame::{Message, encode, pong};
    use crate::id::{ConnectionId, Scope};

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
        let mut client = TapClient::open(&endpoint, None).await.unwrap();
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
    async fn a_frame_that_is_longer_than_a_datagram_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (endpoint, daemon) = unix_stream_daemon(folder.path().join("stream"));
        let mut client = TapClient::connect(&endpoint, None).await.unwrap();
        assert!(matches!(client.send(&[0; 65_536]).await, Err(TapError::TooLong(65_536))));
        client.send(&frame(END, b"")).await.unwrap();
        assert!(daemon.join().unwrap().is_empty());
    }
}
