//! The sending end: many calls' datagrams over one socket, many at a time.

use std::collections::VecDeque;
use std::io::{IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, sendmmsg, sendmsg};
use sidetape::frame::{HEADER_BYTES, encode};
use sidetape::id::{Channel, ConnectionId, Scope};
use sidetape::spool::{Header, Record, RecordKind};
use sidetape::time::{Mono, Wall};

use super::peer::PATIENCE;

const RTP: u8 = 1;
const END: u8 = 2;
const PING: u8 = 11;
/// As long as a UUID, which is what gateways call their calls.
const ID_BYTES: usize = 36;
/// An RTP header, and 20 ms of Opus at 24 kb/s.
const BODY_BYTES: usize = 12 + 60;
/// One datagram with audio.
pub(crate) const FRAME_BYTES: usize = HEADER_BYTES + ID_BYTES + BODY_BYTES;
/// A PING, by whose length the bare loop knows it.
pub(crate) const PING_BYTES: usize = HEADER_BYTES + ID_BYTES + 8;
/// Where the gateway's timestamp stands in a frame.
const STAMP_AT: usize = 8;
/// Where the sequence number stands, and behind it the RTP timestamp.
const SEQUENCE_AT: usize = HEADER_BYTES + ID_BYTES + 2;
/// Datagrams handed to the kernel in one system call.
const BATCH: usize = 64;
/// How long the answer to a PING is waited for where some may be lost.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// 20 ms at 48 kHz, and in microseconds.
const TICKS: u32 = 960;
const PACKET_US: u64 = 20_000;

/// How datagrams are handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// Each goes the whole way alone, 64 to a system call.
    Mmsg,
    /// 64 go the way to the receiver's socket together (UDP GSO), which costs the sender a fraction.
    Gso,
}

/// Calls, the datagrams of their next packets side by side in memory.
pub(crate) struct Calls {
    /// The gateway's clock at the first packet.
    start_us: u64,
    ids: Vec<ConnectionId>,
    frames: Vec<u8>,
    /// Packets sent on each channel.
    sent: Vec<u32>,
}

impl Calls {
    /// Makes so many calls that begin now.
    pub(crate) fn new(count: usize) -> Self {
        Self::begun(count, Duration::ZERO)
    }

    /// Makes so many calls that began some time ago. Two frames for each: the caller's, then the AI's.
    pub(crate) fn begun(count: usize, ago: Duration) -> Self {
        let start = (SystemTime::now() - ago).duration_since(UNIX_EPOCH).unwrap();
        let start_us = start.as_micros().try_into().unwrap();
        let ids: Vec<_> = (0..count).map(id).collect();
        let mut frames = Vec::with_capacity(count * 2 * FRAME_BYTES);
        for id in &ids {
            for channel in Channel::BOTH {
                let mut rtp = vec![0x80, 111, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
                // A CELT frame, in which every bit means something.
                rtp.push(0xf8);
                rtp.extend((1..60u8).map(|n| n.wrapping_mul(151)));
                frames.extend_from_slice(&encode(RTP, Scope::Channel(channel), None, id, &rtp));
            }
        }
        assert_eq!(frames.len(), count * 2 * FRAME_BYTES);
        Self { start_us, ids, frames, sent: vec![0; count * 2] }
    }

    /// The number of channels: two for each call.
    pub(crate) fn channels(&self) -> usize {
        self.sent.len()
    }

    /// Packets made so far.
    pub(crate) fn packets(&self) -> u64 {
        self.sent.iter().map(|sent| u64::from(*sent)).sum()
    }

    /// What the spool files of all calls amount to, once nothing is missing: a header each, and the records.
    pub(crate) fn spool_bytes(&self) -> u64 {
        let (connection, body) = (self.ids[0].clone(), [0; BODY_BYTES]);
        let mut header = Vec::new();
        Header::derived(connection, Wall(0), Mono(0), 1).append_to(&mut header);
        let mut record = Vec::new();
        let kind = RecordKind::Tap(RTP);
        Record { kind, scope: Scope::Whole, at: Mono(0), gateway: None, body: &body }.append_to(&mut record);
        (self.ids.len() * header.len()) as u64 + self.packets() * record.len() as u64
    }

    /// The next datagrams of some channels, side by side.
    pub(crate) fn next(&mut self, channels: std::ops::Range<usize>) -> &[u8] {
        for channel in channels.clone() {
            let number = self.sent[channel];
            self.sent[channel] = number + 1;
            let frame = &mut self.frames[channel * FRAME_BYTES..][..FRAME_BYTES];
            let stamp = self.start_us + u64::from(number) * PACKET_US;
            frame[STAMP_AT..][..8].copy_from_slice(&stamp.to_be_bytes());
            frame[SEQUENCE_AT..][..2].copy_from_slice(&number.to_be_bytes()[2..]);
            frame[SEQUENCE_AT + 2..][..4].copy_from_slice(&number.wrapping_mul(TICKS).to_be_bytes());
        }
        &self.frames[channels.start * FRAME_BYTES..channels.end * FRAME_BYTES]
    }

    /// The frame that ends both channels of a call.
    pub(crate) fn end(&self, call: usize) -> Vec<u8> {
        encode(END, Scope::Whole, None, &self.ids[call], b"")
    }

    /// The ids.
    pub(crate) fn ids(&self) -> &[ConnectionId] {
        &self.ids
    }
}

fn id(call: usize) -> ConnectionId {
    ConnectionId::new(&format!("0192a0b4-7c1e-7d3f-8a2b-{call:012}")).unwrap()
}

fn ping(number: u64) -> Vec<u8> {
    encode(PING, Scope::Whole, None, &id(0), &number.to_be_bytes())
}

/// A UDP socket to the receiver.
pub(crate) struct Udp {
    socket: UdpSocket,
    headers: MultiHeaders<()>,
    sending: Sending,
    /// PINGs that have not come back.
    unanswered: VecDeque<u64>,
    pings: u64,
}

impl Udp {
    pub(crate) fn connect(to: SocketAddr, sending: Sending) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let headers = MultiHeaders::preallocate(BATCH, None);
        let mut udp = Self { socket, headers, sending, unanswered: VecDeque::new(), pings: 0 };
        udp.ping();
        udp.settle(0);
        udp
    }

    /// Sends datagrams that stand side by side. Returns when the kernel has them all.
    pub(crate) fn send(&mut self, frames: &[u8]) {
        for batch in frames.chunks(BATCH * FRAME_BYTES) {
            match self.sending {
                Sending::Mmsg => self.send_each(batch),
                Sending::Gso => self.send_together(batch),
            }
        }
    }

    fn send_each(&mut self, batch: &[u8]) {
        let slices: Vec<[IoSlice<'_>; 1]> =
            batch.chunks(FRAME_BYTES).map(|frame| [IoSlice::new(frame)]).collect();
        let mut rest = &slices[..];
        while !rest.is_empty() {
            let addresses = [None; BATCH];
            let sent = sendmmsg(
                self.socket.as_raw_fd(),
                &mut self.headers,
                rest.iter(),
                &addresses[..rest.len()],
                [],
                MsgFlags::empty(),
            );
            rest = &rest[sent.unwrap().count()..];
        }
    }

    fn send_together(&self, batch: &[u8]) {
        let segment = u16::try_from(FRAME_BYTES).unwrap();
        let slices = [IoSlice::new(batch)];
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        let sent =
            sendmsg::<()>(self.socket.as_raw_fd(), &slices, &control, MsgFlags::empty(), None).unwrap();
        assert_eq!(sent, batch.len());
    }

    /// Sends a PING: its answer says that all before it has been read.
    pub(crate) fn ping(&mut self) {
        self.pings += 1;
        self.unanswered.push_back(self.pings);
        assert_eq!(self.socket.send(&ping(self.pings)).unwrap(), PING_BYTES);
    }

    /// Waits until no more than `left` PINGs are unanswered.
    pub(crate) fn settle(&mut self, left: usize) {
        let mut answer = [0; 256];
        while self.unanswered.len() > left {
            let length = self.socket.recv(&mut answer).expect("an answer to a ping: was it lost?");
            let number = self.unanswered.pop_front();
            assert_eq!(
                number.map(u64::to_be_bytes).as_ref().map(|n| &n[..]),
                Some(&answer[length - 8..length])
            );
        }
    }
}

impl Udp {
    /// Waits until all that was sent has been read or lost, even if PINGs are lost.
    pub(crate) fn settle_whatever_is_lost(&mut self) {
        self.socket.set_read_timeout(Some(ASK_AGAIN)).unwrap();
        let (begun, mut answer) = (Instant::now(), [0; 256]);
        self.ping();
        loop {
            match self.socket.recv(&mut answer) {
                Ok(length) if answer[length - 8..length] == self.pings.to_be_bytes() => break,
                Ok(_) => {}
                Err(_) => self.ping(),
            }
            assert!(begun.elapsed() < PATIENCE, "no ping is answered");
        }
        self.unanswered.clear();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

/// A Unix stream socket to the receiver.
pub(crate) struct Stream {
    socket: UnixStream,
    framed: Vec<u8>,
    pings: u64,
}

impl Stream {
    pub(crate) fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, framed: Vec::new(), pings: 0 }
    }

    /// Sends frames that stand side by side, each behind its length.
    pub(crate) fn send(&mut self, frames: &[u8]) {
        let length = u16::try_from(FRAME_BYTES).unwrap().to_be_bytes();
        self.framed.clear();
        for frame in frames.chunks(FRAME_BYTES) {
            self.framed.extend_from_slice(&length);
            self.framed.extend_from_slice(frame);
        }
        self.socket.write_all(&self.framed).unwrap();
    }

    /// Sends frames that stand side by side, each by a system call of its own, as a gateway relays them.
    pub(crate) fn send_each(&mut self, frames: &[u8]) {
        for frame in frames.chunks(FRAME_BYTES) {
            self.send(frame);
        }
    }

    /// Sends one frame of any kind.
    pub(crate) fn send_one(&mut self, frame: &[u8]) {
        let length = u16::try_from(frame.len()).unwrap().to_be_bytes();
        self.socket.write_all(&[&length[..], frame].concat()).unwrap();
    }

    /// Waits until all that was sent has been read.
    pub(crate) fn settle(&mut self) {
        self.pings += 1;
        self.send_one(&ping(self.pings));
        let mut answer = [0; 2 + PING_BYTES];
        self.socket.read_exact(&mut answer).unwrap();
        assert_eq!(&answer[2 + PING_BYTES - 8..], &self.pings.to_be_bytes());
    }
}
