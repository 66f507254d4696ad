//! Ports for plain RTP: four for a call, and a task that turns what comes there into frames.
//!
//! Ports are handed out one group after the other through the whole range, so that one that was just given back rests
//! as long as possible: a sender that did not notice the end of its call should not reach another. They are noted in the
//! STATE of the connection's spool file, which no sender can write; a restart opens the same ones again, and the sender notices
//! nothing.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::gate::Via;
use super::ingest::Ingest;
use super::spool_writer::lock;
use crate::config::PortRange;
use crate::frame::encode;
use crate::id::{Channel, ConnectionId, Scope};
use crate::metrics::DropReason;
use crate::packet::{byes, parse_rtp};
use crate::plain::{Held, Opening, Source, is_rtcp};
use crate::time::Mono;

/// Ports of a call: RTP and RTCP of each channel.
const GROUP: u16 = 4;
/// The longest packet that is taken: more than any link carries, and than 60 ms of 16-bit stereo at 48 kHz.
const PACKET_MAX_BYTES: usize = 16 * 1024;
/// Datagrams taken from a socket before the others get their turn.
const BATCH: usize = 64;
/// How soon ports are given back when their call has ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How soon at most what is held of others is refused then: well within the linger, so that the manifest tells.
const LOOK_EVERY_WHILE_HOLDING: Duration = Duration::from_millis(100);
const LOOKS_WHILE_LINGERING: u32 = 4;
/// How often it is looked for at most.
const LOOK_EVERY_LEAST: Duration = Duration::from_millis(10);

const RTP: u8 = 1;
const END: u8 = 2;
const META: u8 = 3;
const RTCP: u8 = 10;

/// The ports of one daemon.
#[derive(Debug)]
pub struct RtpPorts {
    range: PortRange,
    /// Calls that have ports at once.
    calls_max: usize,
    /// Where packets are received, whoever opens a call.
    runtime: Handle,
    ingest: Arc<Ingest>,
    taken: Mutex<Taken>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Which groups of ports are in use, and with which the search for a free one begins.
#[derive(Debug, Default)]
struct Taken {
    groups: HashSet<u16>,
    next: u16,
}

/// A call that waits for its packets.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its id.
    pub connection: ConnectionId,
    /// The address that its ports are on.
    pub address: IpAddr,
    /// The ports for RTP of caller and AI. The next one of each is for RTCP.
    pub ports: [u16; 2],
}

/// Why a call got no ports.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A connection of the id is live.
    #[error("a connection of this id is live")]
    Live,
    /// All ports are in use.
    #[error("all ports of AUDIO_RTP_PORTS are in use")]
    NoPorts,
    /// The connection is refused.
    #[error("the connection is refused: {}", .0.name())]
    Refused(DropReason),
}

/// The sockets of one channel, the first for RTP.
type Pair = [UdpSocket; 2];

/// Sockets, and the ports that they give back at their end.
#[derive(Debug)]
struct Group {
    sockets: [Pair; 2],
    base: u16,
    owner: Arc<RtpPorts>,
}

impl Drop for Group {
    fn drop(&mut self) {
        lock(&self.owner.taken).groups.remove(&self.base);
    }
}

impl RtpPorts {
    /// Hands out ports of `range` to `calls_max` calls at once, whose packets go to `ingest`, until `stop`. Receivers are
    /// tracked by `tasks`, and run where this is called.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn new(
        range: PortRange,
        calls_max: usize,
        ingest: Arc<Ingest>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let runtime = Handle::current();
        Arc::new(Self { range, calls_max, runtime, ingest, taken: Mutex::default(), stop, tasks })
    }

    /// Opens a connection and ports for it.
    ///
    /// # Errors
    /// [`OpenError`]; then nothing is open.
    pub fn open(self: &Arc<Self>, opening: &Opening) -> Result<Opened, OpenError> {
        let is_live = |id: &ConnectionId| self.ingest.live_spool(id.as_str()).is_some();
        if opening.connection.as_ref().is_some_and(is_live) {
            return Err(OpenError::Live);
        }
        let group = self.free_group().ok_or(OpenError::NoPorts)?;
        let ports = [group.base, group.base + 2];
        let connection = match &opening.connection {
            Some(id) => id.clone(),
            None => self.make_up_id(group.base),
        };
        for (scope, object) in opening.to_objects() {
            let body = serde_json::to_vec(&object).expect("keys are text");
            let frame = encode(META, scope, None, &connection, &body);
            self.ingest.take(&frame, Via::Ports).map_err(OpenError::Refused)?;
        }
        self.ingest.note_ports(&connection, ports);
        info!(
            connection = connection.as_str(),
            caller = ports[0],
            ai = ports[1],
            "ports for plain RTP opened"
        );
        self.receive(connection.clone(), group);
        Ok(Opened { connection, address: self.range.host, ports })
    }

    /// Opens the ports again that a connection had before a restart, if they are of this range: it may be another one now.
    pub fn open_again(self: &Arc<Self>, connection: ConnectionId, ports: [u16; 2]) {
        let base = ports[0];
        let index = base.checked_sub(self.range.low).map(|above| above / GROUP);
        let is_one = ports[1] == base.saturating_add(2)
            && index.is_some_and(|index| {
                index < self.range.groups(GROUP) && self.range.low + index * GROUP == base
            });
        let group = if is_one { self.group(base) } else { None };
        let Some(group) = group else {
            warn!(
                connection = connection.as_str(),
                caller = ports[0],
                ai = ports[1],
                "the call's ports cannot be had again, its recording ends here"
            );
            return;
        };
        info!(
            connection = connection.as_str(),
            caller = ports[0],
            ai = ports[1],
            "ports for plain RTP opened"
        );
        self.receive(connection, group);
    }

    fn make_up_id(&self, port: u16) -> ConnectionId {
        let text = format!("rtp-{}-{port}", self.ingest.wall().0);
        ConnectionId::new(&text).expect("short, and of letters and digits")
    }

    /// The next group of which all ports can be had.
    fn free_group(self: &Arc<Self>) -> Option<Group> {
        let groups = self.range.groups(GROUP);
        let first = lock(&self.taken).next;
        for step in 0..groups {
            let index = (u32::from(first) + u32::from(step)) % u32::from(groups);
            let index = u16::try_from(index).expect("less than the number of groups");
            if let Some(group) = self.group(self.range.low + index * GROUP) {
                lock(&self.taken).next = index + 1;
                return Some(group);
            }
        }
        None
    }

    /// A group, unless a call has it or another program one of its ports.
    fn group(self: &Arc<Self>, base: u16) -> Option<Group> {
        {
            let mut taken = lock(&self.taken);
            if taken.groups.len() >= self.calls_max || !taken.groups.insert(base) {
                return None;
            }
        }
        let _within = self.runtime.enter();
        let bind = |port: u16| bind(SocketAddr::new(self.range.host, port));
        let pair = |base: u16| Ok::<_, io::Error>([bind(base)?, bind(base + 1)?]);
        match pair(base).and_then(|caller| Ok([caller, pair(base + 2)?])) {
            Ok(sockets) => Some(Group { sockets, base, owner: Arc::clone(self) }),
            Err(_) => {
                lock(&self.taken).groups.remove(&base);
                None
            }
        }
    }

    fn receive(self: &Arc<Self>, connection: ConnectionId, group: Group) {
        let receiver = Receiver {
            ingest: Arc::clone(&self.ingest),
            connection,
            sources: Default::default(),
            datagram: vec![0; PACKET_MAX_BYTES].into(),
        };
        self.tasks.spawn_on(receiver.run(group, self.stop.clone()), &self.runtime);
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Waits until then, or for ever.
async fn wait_until(end: Option<Mono>, now: Mono) {
    match end {
        Some(end) => tokio::time::sleep(end.since(now)).await,
        None => std::future::pending().await,
    }
}

/// What receives the packets of one call.
struct Receiver {
    ingest: Arc<Ingest>,
    connection: ConnectionId,
    sources: [Source; 2],
    datagram: Box<[u8]>,
}

impl Receiver {
    /// Receives until the connection has ended, or `stop`, and then what the sockets still hold.
    async fn run(mut self, group: Group, stop: CancellationToken) {
        let soon = self.ingest.limits.rules.linger / LOOKS_WHILE_LINGERING;
        let soon = soon.clamp(LOOK_EVERY_LEAST, LOOK_EVERY_WHILE_HOLDING);
        let [mut look, mut look_soon] = [LOOK_EVERY, soon].map(tokio::time::interval);
        look_soon.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let [[caller, caller_rtcp], [ai, ai_rtcp]] = &group.sockets;
        loop {
            let end = self.next_end();
            let is_holding = self.sources.iter().any(Source::is_holding);
            // Which of them it was, and whether that went well, the receiving itself tells.
            let is_last = tokio::select! {
                _ = caller.readable() => false,
                _ = caller_rtcp.readable() => false,
                _ = ai.readable() => false,
                _ = ai_rtcp.readable() => false,
                () = wait_until(end, self.ingest.now()) => false,
                _ = look.tick() => self.has_ended(),
                _ = look_soon.tick(), if is_holding => self.has_ended(),
                () = stop.cancelled() => true,
            };
            let mut is_more = false;
            for (channel, pair) in Channel::BOTH.into_iter().zip(&group.sockets) {
                for socket in pair {
                    is_more |= self.receive_batch(socket, channel);
                }
            }
            let is_stopping = is_last && !is_more;
            self.settle_held();
            self.end_streams(is_stopping);
            if is_stopping {
                return;
            }
            if is_more {
                tokio::task::yield_now().await;
            }
        }
    }

    /// When the next stream ends of which nothing follows, or an address has its port that sent before.
    fn next_end(&self) -> Option<Mono> {
        let linger = self.ingest.limits.rules.linger;
        let ends = |source: &Source| [source.ends_at(linger), source.gives_way_at()];
        self.sources.iter().flat_map(ends).flatten().min()
    }

    /// Whether the connection is over. While it lingers, what is held is refused.
    fn has_ended(&mut self) -> bool {
        if self.sources.iter().any(Source::is_holding) && !self.ingest.is_referenced(&self.connection) {
            Channel::BOTH.into_iter().for_each(|channel| self.refuse_held(channel));
        }
        self.ingest.live_spool(self.connection.as_str()).is_none()
    }

    fn refuse_held(&mut self, channel: Channel) {
        let held = self.sources[channel.index()].refused();
        self.refuse(held, channel);
    }

    fn refuse(&self, held: impl IntoIterator<Item = Held>, channel: Channel) {
        for held in held {
            let frame = encode(RTP, Scope::Channel(channel), None, &self.connection, &held.bytes);
            self.ingest.drop_frame(DropReason::OtherSource, &frame);
        }
    }

    /// Gives ports to those who have waited for them.
    fn settle_held(&mut self) {
        let now = self.ingest.now();
        for channel in Channel::BOTH {
            self.sources[channel.index()].give_way(now);
            self.take_settled(channel, now);
        }
    }

    /// Takes what was held and is believed now, as of the moment when it came.
    fn take_settled(&mut self, channel: Channel, now: Mono) {
        for (held, is_believed) in self.sources[channel.index()].settled(now) {
            if is_believed {
                let frame = encode(RTP, Scope::Channel(channel), None, &self.connection, &held.bytes);
                self.ingest.receive(&frame, Via::Ports, held.at);
            } else {
                self.refuse([held], channel);
            }
        }
    }

    /// Ends the streams that have taken their leave and that nothing has followed; with `is_stopping` at once.
    fn end_streams(&mut self, is_stopping: bool) {
        let (now, linger) = (self.ingest.now(), self.ingest.limits.rules.linger);
        for channel in Channel::BOTH {
            let ends_at = self.sources[channel.index()].ends_at(linger);
            if is_stopping || ends_at.is_some_and(|end| now >= end) {
                self.refuse_held(channel);
            }
            if ends_at.is_some_and(|end| is_stopping || now >= end) {
                self.sources[channel.index()].note_end();
                let end = encode(END, Scope::Channel(channel), None, &self.connection, &[]);
                self.ingest.receive(&end, Via::Ports, now);
            }
        }
    }

    /// Receives what is there, a batch at most. True if there may be more.
    fn receive_batch(&mut self, socket: &UdpSocket, channel: Channel) -> bool {
        for _ in 0..BATCH {
            match socket.try_recv_from(&mut self.datagram) {
                Ok((length, from)) => self.handle(length, from, channel),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => warn!(connection = self.connection.as_str(), %error, "port for plain RTP"),
            }
        }
        true
    }

    fn handle(&mut self, length: usize, from: SocketAddr, channel: Channel) {
        let (bytes, now) = (&self.datagram[..length], self.ingest.now());
        let scope = Scope::Channel(channel);
        let source = &mut self.sources[channel.index()];
        let frame = |kind, body| encode(kind, scope, None, &self.connection, body);
        if is_rtcp(bytes) {
            if !source.believes(from) {
                return self.ingest.drop_frame(DropReason::OtherRtcp, &frame(RTCP, bytes));
            }
            source.take_leave(byes(bytes), now);
            self.ingest.receive(&frame(RTCP, bytes), Via::Ports, now);
            return;
        }
        match parse_rtp(bytes) {
            Err(error) => self.ingest.drop_frame(error.into(), &frame(RTP, bytes)),
            // One that fills all there is may have been longer.
            Ok(_) if length >= PACKET_MAX_BYTES => {
                self.ingest.drop_frame(DropReason::Rtp, &frame(RTP, bytes))
            }
            Ok(rtp) if source.admit(from, &rtp, now) => {
                let frame = frame(RTP, bytes);
                self.take_settled(channel, now);
                self.ingest.receive(&frame, Via::Ports, now);
            }
            Ok(_) if self.ingest.is_kept_out(&self.connection, channel) => {
                self.ingest.drop_frame(DropReason::OtherSource, &frame(RTP, bytes));
                let held = source.bar();
                self.refuse(held, channel);
            }
            Ok(_) if source.hold(from, bytes, now) => {}
            Ok(_) => self.ingest.drop_frame(DropReason::OtherSource, &frame(RTP, bytes)),
        }
    }
}
