//! The UDP socket: one datagram, one frame, many of them to a system call.
//!
//! A thread of its own receives. When it has emptied the socket it naps for a millisecond, so that what comes meanwhile is
//! taken together: else a thousand calls would wake it a hundred thousand times a second, which costs more than all the
//! rest. All datagrams of one batch get one time of arrival, which is therefore good to about a millisecond. It does not
//! nap where the socket's buffer is too small for what comes in a nap.
//!
//! Where a sender hands the kernel many datagrams of one length at once (UDP GSO), or the network card puts them together
//! (GRO), they are received together, too: a run. Three times as many come through then.
//!
//! A datagram that the socket has no room for is lost, and nothing else that the machine does is. So the thread goes
//! before others where it may: without that, 5,000 calls on two cores, each datagram received alone, lost up to a tenth
//! of their frames.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::sockopt::UdpGroSegment;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg, sendto, setsockopt,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::gate::Via;
use super::ingest::Ingest;

/// What the socket may hold while the daemon is not scheduled: a tenth of a second of five thousand calls. With 8 MiB
/// these lost some frames on two busy cores. What is not used takes no memory.
const RECEIVE_BUFFER_BYTES: usize = 32 * 1024 * 1024;
/// The largest UDP datagram.
const DATAGRAM_MAX_BYTES: usize = 65_536;
/// From one datagram's place in memory to the next. Not a power of two: else their beginnings, all that most of them have,
/// would share a few lines of the processor's cache.
const STRIDE_BYTES: usize = DATAGRAM_MAX_BYTES + 256;
/// Datagrams, or runs of them, taken by one system call. More gain nothing.
const BATCH: usize = 32;
/// How long what arrives may wait to be received together.
const NAP: Duration = Duration::from_millis(1);
/// It naps only while what came since the last nap would fill no more than one part in so many of the socket's buffer: a
/// busy machine may let it sleep several times as long as it asked to.
const NAP_SHARE: usize = 4;
/// What the kernel charges for a datagram beside its bytes: 768 for a small one.
const OVERHEAD_BYTES: usize = 768;
/// Its priority, if the process may raise it (`LimitNICE=` of systemd, `CAP_SYS_NICE`).
const NICE: i32 = -10;
/// How often an idle socket's thread looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long it goes on receiving what comes after that.
const DRAIN_MAX: Duration = Duration::from_secs(1);

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
    if let Err(error) = setsockopt(&socket, UdpGroSegment, &true) {
        debug!(%error, "udp datagrams are received one by one");
    }
    socket.set_read_timeout(Some(LOOK_EVERY))?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The socket's number in the kernel's list of sockets.
#[must_use]
pub fn inode(socket: &UdpSocket) -> Option<u64> {
    rustix::fs::fstat(socket).ok().map(|found| found.st_ino)
}

/// Starts a thread that receives until `stop`, and then what the socket still holds. What is returned resolves when it
/// has ended.
///
/// # Errors
/// Where the system gives no thread.
pub fn serve(
    socket: UdpSocket,
    ingest: Arc<Ingest>,
    stop: CancellationToken,
) -> io::Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    let run = move || {
        // Of this thread: where Linux says process it means thread.
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            debug!(%error, "the thread that receives over udp has no priority");
        }
        Receiver::new(&socket).run(&ingest, &stop);
        // Nobody may wait for it any more.
        drop(ended);
    };
    std::thread::Builder::new().name("udp".to_owned()).spawn(run)?;
    Ok(end)
}

struct Receiver<'s> {
    socket: &'s UdpSocket,
    /// Room for a batch.
    space: Vec<u8>,
    /// What may come from one nap to the next.
    nap_max_bytes: usize,
}

/// What one system call brought.
struct Received {
    count: usize,
    /// As the kernel charges it to the socket's buffer, at most.
    charged_bytes: usize,
}

impl<'s> Receiver<'s> {
    fn new(socket: &'s UdpSocket) -> Self {
        let buffer_bytes = SockRef::from(socket).recv_buffer_size().unwrap_or(0);
        Self { socket, space: vec![0; STRIDE_BYTES * BATCH], nap_max_bytes: buffer_bytes / NAP_SHARE }
    }

    fn run(mut self, ingest: &Ingest, stop: &CancellationToken) {
        let mut since_nap_bytes = 0;
        while !stop.is_cancelled() {
            // Waits for the first datagram, and takes what is there beside it.
            let received = self.receive(ingest, MsgFlags::MSG_WAITFORONE);
            since_nap_bytes += received.charged_bytes;
            if received.count < BATCH {
                if received.count > 0 && since_nap_bytes <= self.nap_max_bytes {
                    std::thread::sleep(NAP);
                }
                since_nap_bytes = 0;
            }
        }
        let begun = Instant::now();
        while self.receive(ingest, MsgFlags::MSG_DONTWAIT).count > 0 && begun.elapsed() < DRAIN_MAX {}
    }

    /// Receives a batch at most.
    fn receive(&mut self, ingest: &Ingest, flags: MsgFlags) -> Received {
        let mut slices = self.space.chunks_exact_mut(STRIDE_BYTES);
        let mut slices: [_; BATCH] = std::array::from_fn(|_| {
            let slice = slices.next().expect("there is room for a batch");
            [IoSliceMut::new(&mut slice[..DATAGRAM_MAX_BYTES])]
        });
        let mut received = Received { count: 0, charged_bytes: 0 };
        // Anew each time: the kernel writes into the headers how long the control messages are, and takes that for the
        // room that they have when it is handed them again.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, Some(cmsg_space!(i32)));
        let runs = match recvmmsg(self.socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None) {
            Ok(runs) => runs,
            Err(Errno::EAGAIN | Errno::EINTR) => return received,
            // An answer to a ping that found nobody comes back as an error of the next receive.
            Err(error) => {
                warn!(%error, "udp socket");
                return received;
            }
        };
        let now = ingest.now();
        for run in runs {
            received.count += 1;
            received.charged_bytes += OVERHEAD_BYTES + 2 * run.bytes;
            for datagram in datagrams_of(&run) {
                if let Some(answer) = ingest.receive(datagram, Via::Udp, now)
                    && let Some(peer) = run.address
                    && let Err(error) =
                        sendto(self.socket.as_raw_fd(), &answer, &peer, MsgFlags::MSG_DONTWAIT)
                {
                    warn!(%error, %peer, "ping not answered");
                }
            }
        }
        received
    }
}

/// The datagrams of a run: all have the length that the kernel says, but the last, which may be shorter.
fn datagrams_of<'r>(run: &'r RecvMsg<'_, '_, SockaddrStorage>) -> impl Iterator<Item = &'r [u8]> {
    let bytes = run.iovs().next().unwrap_or_default();
    let mut messages = run.cmsgs().into_iter().flatten();
    let length = messages.find_map(|message| match message {
        ControlMessageOwned::UdpGroSegments(bytes) => usize::try_from(bytes).ok(),
        _ => None,
    });
    let length = length.filter(|length| *length > 0).unwrap_or(DATAGRAM_MAX_BYTES);
    // An empty datagram is one, too, and has no chunks.
    bytes.chunks(length).chain(bytes.is_empty().then_some(bytes))
}
