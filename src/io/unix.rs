//! The Unix sockets: datagrams, one a frame, and byte streams, each frame behind its length as u16 (RFC 4571).
//!
//! A socket has mode 0660 from its first moment, whatever the umask is. Behind a [`Door`] the peer's user counts, too.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net as blocking;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixDatagram, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::gate::Via;
use super::ingest::Ingest;
use super::log::Sparing;
use crate::metrics::DropReason;

/// The longest frame that a length of 16 bits can announce.
const FRAME_MAX_BYTES: usize = 65_535;
/// Frames taken in one go before other tasks get their turn.
const BATCH: usize = 256;
/// Read from a byte stream at once, if so much is there.
const STREAM_BUFFER_BYTES: usize = 256 * 1024;
/// How long a byte stream may be held up by a disk that is behind.
const CONGESTION_PATIENCE_MS: u32 = 1000;
/// Sockets are for their owner and group.
const SOCKET_MODE: u32 = 0o660;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Asked of the kernel for the datagram socket.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Binds the datagram socket, mode 0660. A dead socket at the path is replaced.
///
/// # Errors
/// Where another process listens there, or the system refuses.
pub fn bind_datagram(path: &Path) -> io::Result<UnixDatagram> {
    replace_dead_socket(path, |path| blocking::UnixDatagram::unbound()?.connect(path))?;
    let socket = bind(path, Type::DGRAM)?;
    if rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES).is_err() {
        debug!("unix datagram receive buffer keeps its default size");
    }
    UnixDatagram::from_std(socket.into())
}

/// Binds a stream socket, mode 0660. A dead socket at the path is replaced.
///
/// # Errors
/// Where another process listens there, or the system refuses.
pub fn bind_stream(path: &Path) -> io::Result<UnixListener> {
    replace_dead_socket(path, |path| blocking::UnixStream::connect(path).map(drop))?;
    let socket = bind(path, Type::STREAM)?;
    socket.listen(BACKLOG)?;
    UnixListener::from_std(socket.into())
}

fn bind(path: &Path, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    // Linux makes the file with the mode of the socket less the umask; what the umask took is given back below. So
    // there is no moment in which others could connect.
    if let Err(error) = rustix::fs::fchmod(&socket, Mode::from_raw_mode(SOCKET_MODE)) {
        debug!(%error, "the mode of a unix socket is set only after it is bound");
    }
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// How many datagrams the kernel queues on a Unix socket before a sender must wait, if it says.
#[must_use]
pub fn datagram_queue_length() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").ok()?.trim().parse().ok()
}

/// Removes what a killed daemon left at `path`. A socket that somebody answers on is left alone, and so is a file
/// that is no socket: `bind` then says that the address is in use.
fn replace_dead_socket(path: &Path, connect: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let is_dead =
        is_socket && connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_dead { std::fs::remove_file(path) } else { Ok(()) }
}

/// Receives datagrams until `stop`, and then what the socket still holds.
pub async fn serve_datagrams(socket: UnixDatagram, ingest: Arc<Ingest>, stop: CancellationToken) {
    let mut datagram = vec![0; FRAME_MAX_BYTES + 1];
    loop {
        tokio::select! {
            ready = socket.readable() => if let Err(error) = ready {
                warn!(%error, "unix datagram socket");
            },
            () = stop.cancelled() => {
                while receive_batch(&socket, &ingest, &mut datagram) {}
                return;
            }
        }
        if receive_batch(&socket, &ingest, &mut datagram) {
            tokio::task::yield_now().await;
        }
    }
}

/// Receives what is there, a batch at most. True if there may be more.
fn receive_batch(socket: &UnixDatagram, ingest: &Ingest, datagram: &mut [u8]) -> bool {
    let now = ingest.now();
    for _ in 0..BATCH {
        match socket.try_recv_from(datagram) {
            Ok((length, peer)) => {
                if let Some(answer) = ingest.receive(&datagram[..length], Via::Unix, now) {
                    answer_ping(socket, &answer, &peer);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => warn!(%error, "unix datagram socket"),
        }
    }
    true
}

/// Answers a PING. A sender whose socket has no name cannot be answered.
fn answer_ping(socket: &UnixDatagram, answer: &[u8], peer: &tokio::net::unix::SocketAddr) {
    // Tokio's address cannot be sent to; the standard library's can, and that covers abstract names as well.
    let peer: blocking::SocketAddr = peer.clone().into();
    if peer.is_unnamed() {
        debug!("ping from a unix socket without a name cannot be answered");
        return;
    }
    let sent = socket.try_io(tokio::io::Interest::WRITABLE, || {
        socket2::SockRef::from(socket).send_to(answer, &to_sock_addr(&peer)?).map(drop)
    });
    if let Err(error) = sent {
        warn!(%error, "ping not answered");
    }
}

fn to_sock_addr(peer: &blocking::SocketAddr) -> io::Result<SockAddr> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    if let Some(path) = peer.as_pathname() {
        return SockAddr::unix(path);
    }
    let name = peer.as_abstract_name().unwrap_or_default();
    let path = [b"\0", name].concat();
    SockAddr::unix(std::ffi::OsStr::from_bytes(&path))
}

/// A stream socket that lets in only processes of certain users, if it is told which.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    allowed: Option<Vec<u32>>,
    refused: Sparing,
}

impl Door {
    /// Lets in who may connect to the socket, and of those only `allowed` users if that is not `None`.
    #[must_use]
    pub fn new(listener: UnixListener, allowed: Option<Vec<u32>>) -> Self {
        Self { listener, allowed, refused: Sparing::default() }
    }

    /// Waits for the next connection that may come in.
    pub async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if self.lets_in(&stream) => return stream,
                Ok(_) => {}
                Err(error) => {
                    warn!(%error, "unix stream socket");
                    // Out of file descriptors, most likely: leave the system time to get some.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Asks the kernel whose process connected. A process cannot choose what is answered.
    fn lets_in(&self, stream: &UnixStream) -> bool {
        let Some(allowed) = &self.allowed else { return true };
        let peer = stream.peer_cred();
        if peer.as_ref().is_ok_and(|peer| allowed.contains(&peer.uid())) {
            return true;
        }
        if let Some(count) = self.refused.count() {
            let (uid, pid) = peer.map_or((None, None), |peer| (Some(peer.uid()), peer.pid()));
            warn!(uid, pid, count, "connection of a user that is not allowed is refused");
        }
        false
    }
}

/// Accepts byte streams, `streams_max` at once, until `stop`; then waits for those that are open to hand over what they
/// hold.
pub async fn serve_streams(door: Door, ingest: Arc<Ingest>, streams_max: usize, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(streams_max));
    let streams = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            stream = door.accept() => stream,
            () = stop.cancelled() => break,
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            warn!(open = streams_max, "too many byte streams, one is refused");
            continue;
        };
        let (ingest, stop) = (Arc::clone(&ingest), stop.clone());
        streams.spawn(async move {
            serve_stream(stream, &ingest, &stop).await;
            drop(permit);
        });
    }
    streams.close();
    streams.wait().await;
}

/// Makes the sender wait while the disk is behind, so that a burst is not cut: for a second, then calls that are spoken
/// now come first.
async fn wait_for_room(ingest: &Ingest) {
    for _ in 0..CONGESTION_PATIENCE_MS {
        if !ingest.is_congested() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What has been read from a byte stream and not yet been taken as frames.
struct Unread {
    space: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Unread {
    fn new() -> Self {
        Self { space: vec![0; STREAM_BUFFER_BYTES + 2 + FRAME_MAX_BYTES], begin: 0, end: 0 }
    }

    /// Takes the next whole frame, where it stands.
    fn next_frame(&mut self) -> Option<&[u8]> {
        let (length, rest) = self.space[self.begin..self.end].split_first_chunk::<2>()?;
        let frame = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
        self.begin += 2 + frame.len();
        Some(frame)
    }

    /// What is left: the beginning of a frame.
    fn rest(&self) -> &[u8] {
        &self.space[self.begin..self.end]
    }

    /// Room behind what is left.
    fn room(&mut self) -> &mut [u8] {
        self.space.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        &mut self.space[self.end..]
    }
}

async fn serve_stream(stream: UnixStream, ingest: &Ingest, stop: &CancellationToken) {
    let (mut read, mut write) = stream.into_split();
    let mut unread = Unread::new();
    loop {
        let length = tokio::select! {
            biased;
            length = read.read(unread.room()) => length.unwrap_or(0),
            () = stop.cancelled() => 0,
        };
        unread.end += length;
        // The end between two frames is the gateway's way to close; inside one, something is missing.
        if length == 0 {
            if !unread.rest().is_empty() {
                ingest.drop_frame(DropReason::StreamTruncated, unread.rest());
            }
            return;
        }
        let now = ingest.now();
        while let Some(frame) = unread.next_frame() {
            let answer = ingest.receive(frame, Via::Unix, now);
            wait_for_room(ingest).await;
            if let Some(answer) = answer {
                let length = u16::try_from(answer.len()).unwrap_or(u16::MAX).to_be_bytes();
                if write.write_all(&[&length[..], &answer].concat()).await.is_err() {
                    return;
                }
            }
        }
    }
}
