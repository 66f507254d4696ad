//! The UDP socket: one datagram, one frame.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::gate::Via;
use super::ingest::Ingest;

/// What the socket may hold while the daemon is not scheduled: a second of some hundred calls.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// The largest UDP datagram.
const DATAGRAM_MAX_BYTES: usize = 65_536;
/// Datagrams taken in one go before other tasks get their turn.
const BATCH: usize = 256;

/// Binds the socket.
///
/// # Errors
/// Where the system refuses the address.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // The system may give less (net.core.rmem_max), unless the process is privileged. Either way it works.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES).is_err()
        && let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)
    {
        warn!(%error, "udp receive buffer keeps its default size");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// The socket's number in the kernel's list of sockets.
#[must_use]
pub fn inode(socket: &UdpSocket) -> Option<u64> {
    rustix::fs::fstat(socket).ok().map(|found| found.st_ino)
}

/// Receives until `stop`, and then what the socket still holds.
pub async fn serve(socket: UdpSocket, ingest: Arc<Ingest>, stop: CancellationToken) {
    let mut datagram = vec![0; DATAGRAM_MAX_BYTES];
    loop {
        tokio::select! {
            ready = socket.readable() => if let Err(error) = ready {
                warn!(%error, "udp socket");
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
fn receive_batch(socket: &UdpSocket, ingest: &Ingest, datagram: &mut [u8]) -> bool {
    for _ in 0..BATCH {
        match socket.try_recv_from(datagram) {
            Ok((length, peer)) => {
                if let Some(answer) = ingest.receive(&datagram[..length], Via::Udp)
                    && let Err(error) = socket.try_send_to(&answer, peer)
                {
                    warn!(%error, %peer, "ping not answered");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            // An answer to a ping that found nobody comes back as an error of the next receive.
            Err(error) => warn!(%error, "udp socket"),
        }
    }
    true
}
