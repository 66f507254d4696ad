//! From a datagram to the spool buffer: the path that every packet takes, and the timers beside it.
//!
//! Receivers call [`Ingest::receive`] with the bytes of one frame. It parses, finds the connection, asks its state
//! machine what to keep, and appends a record to the connection's buffer; the spool writer does the rest. No lock is
//! held over I/O: a connection's own lock for the time of a copy, the map's shard for the time of a look-up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::awaited::{Awaited, Hold};
use super::clock::Clock;
use super::gate::{Gate, Via};
use super::log::DropLog;
use super::random::draw;
use super::slot::{Slot, SlotState, Timer};
use super::spool_dir::SpoolDir;
use super::spool_writer::{SpoolFile, SpoolWriter, lock};
use crate::connection::call::{Call, Kept};
use crate::connection::pauses::Stamp;
use crate::connection::{End, Rules, Timeout};
use crate::frame::{self, Frame, Message};
use crate::id::{Channel, ConnectionId, RecordingId};
use crate::metrics::{DropReason, Metrics};
use crate::packet;
use crate::replay::Anchor;
use crate::spool::{Header, Record, RecordKind};
use crate::time::{Mono, Wall};

/// Deadlines kept for each connection that is remembered before those of forgotten ones are looked for. A connection
/// has three at most: its greatest length, its linger, its tombstone.
const TIMERS_PER_CONNECTION: usize = 4;
/// As many are not worth the looking.
const TIMERS_MIN: usize = 4096;

/// What ingest needs to know of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// False: frames are accepted and dropped.
    pub is_recording: bool,
    /// The most connections open at once.
    pub max_connections: usize,
    /// The waiting times of a connection.
    pub rules: Rules,
    /// The most RTP packets in one recording; a longer call goes on as another part. Rendering takes memory for each.
    pub max_packets: u64,
}

/// What one recording's RTP packets may be: four hours of both channels in frames of 20 ms, twice over.
pub const PACKETS_MAX: u64 = 3_000_000;
/// How often the processor is left to whoever begins the next part, which takes microseconds.
const YIELDS_MAX: u32 = 10_000;
/// Connections remembered, the finished ones of the last minute among them, for each that may be open.
const REMEMBERED_PER_OPEN: usize = 4;

/// All live connections, and the way to them.
#[derive(Debug)]
pub struct Ingest {
    pub(super) limits: Limits,
    gate: Gate,
    pub(super) clock: Clock,
    /// Both clocks at the beginning.
    pub(super) begun: (Mono, Wall),
    pub(super) metrics: Arc<Metrics>,
    pub(super) drops: DropLog,
    pub(super) spool: Arc<SpoolDir>,
    pub(super) writer: SpoolWriter,
    pub(super) connections: DashMap<ConnectionId, Arc<Slot>>,
    /// Connections of an earlier process, which are not recovered yet.
    pub(super) awaited: Awaited,
    timers: Mutex<BinaryHeap<Reverse<Timer>>>,
    pub(super) open: AtomicUsize,
    /// The spool's disk has too little room for new connections.
    pub(super) is_disk_low: AtomicBool,
    /// Another process has the spool directory.
    pub(super) is_spool_contested: AtomicBool,
    pub(super) is_stopping: AtomicBool,
    /// Cancelled when no new connections are to be taken any more, and the end of the open ones is waited for.
    pub(super) draining: CancellationToken,
    /// For how long one channel may talk without the other being heard, if that is watched.
    pub(super) silence_alert: Option<Duration>,
}

impl Ingest {
    /// Begins without connections.
    #[must_use]
    pub fn new(
        limits: Limits,
        gate: Gate,
        clock: Clock,
        metrics: Arc<Metrics>,
        spool: Arc<SpoolDir>,
        writer: SpoolWriter,
    ) -> Self {
        Self {
            limits,
            gate,
            clock,
            begun: (clock.now(), clock.wall()),
            metrics,
            drops: DropLog::default(),
            spool,
            writer,
            connections: DashMap::new(),
            awaited: Awaited::default(),
            timers: Mutex::default(),
            open: AtomicUsize::new(0),
            is_disk_low: AtomicBool::new(false),
            is_spool_contested: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            draining: CancellationToken::new(),
            silence_alert: None,
        }
    }

    /// Receives the bytes of one frame that arrived at `now`: one reading of the clock does for all that was read at once.
    /// Returns the answer to send back if it was a PING.
    pub fn receive(&self, bytes: &[u8], via: Via, now: Mono) -> Option<Vec<u8>> {
        self.take_at(bytes, via, now).unwrap_or_default()
    }

    /// Receives the bytes of one frame of a sender that wants to know what became of it.
    ///
    /// # Errors
    /// Why it was refused, which is counted and reported.
    pub fn take(&self, bytes: &[u8], via: Via) -> Result<Option<Vec<u8>>, DropReason> {
        self.take_at(bytes, via, self.clock.now())
    }

    fn take_at(&self, bytes: &[u8], via: Via, now: Mono) -> Result<Option<Vec<u8>>, DropReason> {
        // A bug that one frame brings to light must not end the receiver, and with it all other calls.
        let received = catch_unwind(AssertUnwindSafe(|| self.try_receive(bytes, via, now)));
        let received = received.unwrap_or(Err(DropReason::InternalError));
        received.inspect_err(|reason| self.drop_frame(*reason, bytes))
    }

    /// Whether a sender that can wait should.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.writer.is_congested()
    }

    fn try_receive(&self, bytes: &[u8], via: Via, now: Mono) -> Result<Option<Vec<u8>>, DropReason> {
        self.gate.check(bytes, via, &self.clock)?;
        let received = self.try_parsed(bytes, now);
        if received == Err(DropReason::Json)
            && let Some(pause) = frame::pause_without_body(bytes)
        {
            // It is refused, and holds all the same.
            drop(self.try_parsed(&pause, now));
        }
        received
    }

    fn try_parsed(&self, bytes: &[u8], now: Mono) -> Result<Option<Vec<u8>>, DropReason> {
        let frame = frame::parse(bytes)?;
        match frame.message {
            Message::Ping => return Ok(Some(frame::pong(bytes))),
            Message::Rtp => {
                packet::parse_rtp(frame.body)?;
            }
            Message::Rtcp => packet::check_rtcp(frame.body)?,
            _ => {}
        }
        if !self.limits.is_recording {
            return Err(DropReason::Disabled);
        }
        let slot = match self.find(frame.connection) {
            Some(slot) => slot,
            None => match self.awaited.hold(frame.connection, bytes, now) {
                Hold::Held => return Ok(None),
                Hold::Full => return Err(DropReason::SpoolOverflow),
                Hold::NotAwaited => self.find_or_open(&frame, now)?,
            },
        };
        self.receive_into(&slot, &frame, now)?;
        Ok(None)
    }

    pub(super) fn find(&self, connection: &str) -> Option<Arc<Slot>> {
        self.connections.get(connection).map(|slot| Arc::clone(&slot))
    }

    /// It may have been recovered since it was not found.
    pub(super) fn find_or_open(&self, frame: &Frame<'_>, now: Mono) -> Result<Arc<Slot>, DropReason> {
        self.find(frame.connection).map_or_else(|| self.open(frame, now), Ok)
    }

    /// Enters a frame into its connection, or lets it wait for another.
    pub(super) fn receive_into(
        &self,
        slot: &Arc<Slot>,
        frame: &Frame<'_>,
        now: Mono,
    ) -> Result<(), DropReason> {
        let has_waiting = slot.has_waiting.load(Ordering::Acquire);
        if has_waiting { self.enter_or_hold(slot, frame, now) } else { self.enter(slot, frame, now) }
    }

    /// Enters a frame into its connection.
    pub(super) fn enter(&self, slot: &Arc<Slot>, frame: &Frame<'_>, now: Mono) -> Result<(), DropReason> {
        let handled = match self.handle(slot, frame, now) {
            // It goes on as another part, which it found in the making.
            Err(DropReason::Late) => match self.part_behind(slot) {
                Some(next) => self.handle(&next, frame, now),
                None => Err(DropReason::Late),
            },
            handled => handled,
        };
        if handled? {
            let next = self.reopen(slot, frame, now)?;
            self.handle(&next, frame, now)?;
        }
        Metrics::add(&self.metrics.frames);
        Ok(())
    }

    /// The part that takes over from one that is full. Whoever has closed that is about to put the next in its place.
    fn part_behind(&self, slot: &Arc<Slot>) -> Option<Arc<Slot>> {
        if !lock(&slot.state).call.connection.is_continued() {
            return None;
        }
        (0..YIELDS_MAX).find_map(|_| {
            let found = self.find(slot.id.as_str()).filter(|found| !Arc::ptr_eq(found, slot));
            if found.is_none() {
                std::thread::yield_now();
            }
            found
        })
    }

    /// Handles a frame about a known connection. True if the frame asks for the connection to open again.
    fn handle(&self, slot: &Arc<Slot>, frame: &Frame<'_>, now: Mono) -> Result<bool, DropReason> {
        let mut state = lock(&slot.state);
        let at = Stamp::of(slot.anchor.wall_of(now), frame.gateway);
        if state.call.connection.is_live()
            && let Err(full) = state.count(frame)
        {
            // Whoever has paused a call a hundred thousand times may be mad, but what is said now is not to be kept. There are
            // three such states at most, because nothing that would end them is taken any more.
            if state.call.keeps_out_more(frame.scope, &frame.message) {
                drop(state.call.enter(now, at, frame.scope, &frame.message, frame.body));
                self.append_state(slot, &mut state, now);
                if state.call.connection.claims().takes_out() {
                    self.writer.rewrite(&slot.file);
                }
            }
            return Err(full);
        }
        let misunderstood = state.call.metadata.not_understood.len();
        let entered = state.call.enter(now, at, frame.scope, &frame.message, frame.body);
        if state.call.metadata.not_understood.len() > misunderstood {
            Self::report_meta(slot, &state.call);
        }
        let (step, kept) = entered.map_err(|_| DropReason::MetadataFull)?;
        let whole = RecordKind::Tap(frame.message.kind());
        let record = match &kept {
            Kept::Whole => Some((whole, frame.body)),
            Kept::Body(body) => Some((whole, &body[..])),
            Kept::Withheld(header) => Some((RecordKind::Withheld, &header[..])),
            Kept::Unrecorded => None,
            Kept::Refused(refusal) => return Err((*refusal).into()),
            Kept::Reopen => return Ok(true),
        };
        let is_rtp = matches!(frame.message, Message::Rtp);
        let is_heavy = is_rtp && record.is_some_and(|(_, body)| state.weigh(frame, body.len()));
        let kept = record.is_none_or(|(kind, body)| {
            let record = Record { kind, scope: frame.scope, at: now, gateway: frame.gateway, body };
            self.append(slot, &mut state, &record)
        });
        if !kept && (step.keeps_out_more || step.takes_out) {
            // A kill must not bring back what is not to be kept.
            self.append_state(slot, &mut state, now);
        }
        if step.is_decision {
            // It says how many frames there were of which nothing is kept. Whoever decides again and again pays for it.
            let bytes = self.append_state(slot, &mut state, now);
            state.charge(bytes);
        }
        if step.takes_out && !is_rtp {
            // From here on that is the rewriter's, who reads it out of the file.
            state.call.connection.claims_mut().note_taken_out();
            self.writer.rewrite(&slot.file);
            if slot.kept_before.is_some_and(|kept| at.own() < kept) {
                let (connection, recording) = (slot.id.as_str(), slot.file.recording());
                error!(connection, %recording, part = slot.part, "a pause reaches back into the part before, which is over: delete that recording, or take out what is in it");
            }
        }
        let waits_until = (step.takes_out && matches!(frame.message, Message::Pause(_))).then(|| {
            slot.has_waiting.store(true, Ordering::Release);
            state.waiting.begin(frame.scope, now)
        });
        let is_full = is_rtp && (is_heavy || state.call.received() >= self.limits.max_packets);
        let full = is_full.then(|| state.call.connection.fill(now));
        let noticed = self.silence_alert.and_then(|patience| state.listen(frame, now, patience));
        drop(state);
        if let Some(full) = full {
            self.settle(slot, full, now);
        }
        for channel in Channel::BOTH.into_iter().filter(|channel| step.released[channel.index()]) {
            info!(connection = slot.id.as_str(), %channel, "reference released");
        }
        if let Some(noticed) = noticed {
            self.report(slot, noticed);
        }
        for at in [step.wake_at, waits_until].into_iter().flatten() {
            self.wake_at(at, slot);
        }
        match (kept, step.is_cut) {
            (true, false) => Ok(false),
            (true, true) => Err(DropReason::MetadataFull),
            (false, _) => Err(DropReason::SpoolOverflow),
        }
    }

    /// Opens a connection with its first frame, if that is one that may.
    fn open(&self, frame: &Frame<'_>, now: Mono) -> Result<Arc<Slot>, DropReason> {
        if !matches!(frame.message, Message::Rtp | Message::Meta(_)) {
            return Err(DropReason::UnknownConnection);
        }
        self.replace(frame, None, now)
    }

    /// Opens a finished connection again, with a new recording.
    fn reopen(&self, old: &Arc<Slot>, frame: &Frame<'_>, now: Mono) -> Result<Arc<Slot>, DropReason> {
        self.replace(frame, Some(old), now)
    }

    /// Puts a new slot where there was none, or only `old`. If another socket was quicker, its slot stands.
    fn replace(
        &self,
        frame: &Frame<'_>,
        old: Option<&Arc<Slot>>,
        now: Mono,
    ) -> Result<Arc<Slot>, DropReason> {
        self.admit()?;
        let id = ConnectionId::new(frame.connection).map_err(frame::FrameError::Id)?;
        let part = old.map_or(1, |old| old.part.saturating_add(1));
        let call = match old {
            Some(old) => lock(&old.state).call.opened_again(now, &frame.message),
            None => Call::open(now, Stamp::received(self.clock.wall()), self.limits.rules),
        };
        let slot = self.new_slot(id.clone(), part, call, now);
        match self.connections.entry(id) {
            Entry::Occupied(entry) if old.is_none_or(|old| !Arc::ptr_eq(entry.get(), old)) => {
                return Ok(Arc::clone(entry.get()));
            }
            entry => drop(entry.insert(Arc::clone(&slot))),
        }
        self.begin(&slot);
        Ok(slot)
    }

    fn admit(&self) -> Result<(), DropReason> {
        if self.is_stopping.load(Ordering::Acquire) {
            Err(DropReason::ShuttingDown)
        } else if self.draining.is_cancelled() {
            Err(DropReason::Draining)
        } else if self.open.load(Ordering::Relaxed) >= self.limits.max_connections
            || self.connections.len() >= self.limits.max_connections.saturating_mul(REMEMBERED_PER_OPEN)
        {
            Err(DropReason::TooManyConnections)
        } else if self.is_disk_low.load(Ordering::Relaxed) {
            Err(DropReason::LowDisk)
        } else if self.writer.is_failing() {
            Err(DropReason::SpoolUnwritable)
        } else {
            Ok(())
        }
    }

    /// Makes a slot with a spool file of its own, whose first record, the state, waits in the buffer for the writer. Nothing is
    /// counted or logged until [`Ingest::begin`].
    pub(super) fn new_slot(&self, id: ConnectionId, part: u16, call: Call, now: Mono) -> Arc<Slot> {
        self.new_slot_behind(None, id, part, call, now)
    }

    /// The same, of a call of which something was kept in a part before, up to then.
    fn new_slot_behind(
        &self,
        kept_before: Option<Wall>,
        id: ConnectionId,
        part: u16,
        call: Call,
        now: Mono,
    ) -> Arc<Slot> {
        let opened = self.clock.wall();
        let recording = RecordingId::draw(opened, draw());
        let path = self.spool.new_file(&id, opened, recording);
        let header = Header { recording, ..Header::derived(id.clone(), opened, now, part) };
        let file = SpoolFile::new(path, header);
        Record::state(now, &call.to_state()).append_to(lock(&file.buffer).records());
        self.slot(id, part, (opened, Anchor::new(now, opened), kept_before), file, call)
    }

    pub(super) fn slot(
        &self,
        id: ConnectionId,
        part: u16,
        (opened, anchor, kept_before): (Wall, Anchor, Option<Wall>),
        file: SpoolFile,
        call: Call,
    ) -> Arc<Slot> {
        let (file, state) = (Arc::new(file), Mutex::new(SlotState::new(call)));
        let has_waiting = AtomicBool::new(false);
        let slot = Arc::new(Slot { id, part, opened, anchor, kept_before, file, state, has_waiting });
        let (of, clock) = (Arc::downgrade(&slot), self.clock);
        slot.file.described_by(Box::new(move |give| {
            let Some(slot) = of.upgrade() else { return };
            let state = lock(&slot.state);
            give(clock.now(), &state.call.to_state());
        }));
        slot
    }

    /// Begins a recording, once its slot is in the map.
    fn begin(&self, slot: &Arc<Slot>) {
        let deadline = lock(&slot.state).call.connection.poll_timeout();
        self.wake_at(deadline, slot);
        self.open.fetch_add(1, Ordering::Relaxed);
        Metrics::add(&self.metrics.opened);
        let path = slot.file.path.display();
        info!(connection = slot.id.as_str(), part = slot.part, %path, "connection opened");
        // Also where nothing more is kept of it: else nobody would know of it after a kill.
        self.writer.note(&slot.file, lock(&slot.file.buffer));
    }

    /// Handles every deadline that has passed. The daemon calls this some fifty times a second.
    pub fn handle_timers(&self) {
        let now = self.clock.now();
        let timers_max = TIMERS_MIN.max(self.connections.len() * TIMERS_PER_CONNECTION);
        let mut timers = lock(&self.timers);
        if timers.len() > timers_max {
            // A deadline hours away keeps the memory of its slot, though not what is in it.
            timers.retain(|Reverse(timer)| timer.slot.strong_count() > 0);
        }
        drop(timers);
        loop {
            let due = {
                let mut timers = lock(&self.timers);
                if timers.peek().is_none_or(|Reverse(timer)| timer.at > now) {
                    return;
                }
                timers.pop()
            };
            let Some(Reverse(Timer { slot, .. })) = due else { return };
            let Some(slot) = slot.upgrade() else { continue };
            let over = lock(&slot.state).call.connection.poll_timeout();
            self.release(&slot, |_, until| until <= now || over <= now);
            let timeout = lock(&slot.state).call.connection.handle_timeout(now);
            self.settle(&slot, timeout, now);
        }
    }

    /// Closes every connection that has been silent for too long. Returns how many were open, and how many stale.
    pub fn sweep(&self) -> (usize, usize) {
        let now = self.clock.now();
        let slots = self.slots();
        let mut stale = 0;
        let mut open = 0;
        for slot in slots {
            let timeout = {
                let mut state = lock(&slot.state);
                open += usize::from(state.call.connection.is_live());
                state.call.connection.handle_sweep(now)
            };
            stale += usize::from(matches!(timeout, Timeout::Seal(..)));
            self.settle(&slot, timeout, now);
        }
        info!(
            open,
            stale,
            frames = self.metrics.frames.load(Ordering::Relaxed),
            opened = self.metrics.opened.load(Ordering::Relaxed),
            finished = self.metrics.finished(),
            published = self.metrics.published.load(Ordering::Relaxed),
            retries = self.metrics.publish_retries.total(),
            dropped = self.metrics.dropped_summary(),
            "sweep"
        );
        (open, stale)
    }

    /// The spool file of a connection, if that is live.
    #[must_use]
    pub fn live_spool(&self, id: &str) -> Option<PathBuf> {
        let slot = Arc::clone(&*self.connections.get(id)?);
        let is_live = lock(&slot.state).call.connection.is_live();
        is_live.then(|| slot.file.path.clone())
    }

    /// Whether a connection is live, and its end has not been told: what comes behind that is waited for no longer than the
    /// linger.
    #[must_use]
    pub fn is_referenced(&self, id: &ConnectionId) -> bool {
        self.find(id.as_str()).is_some_and(|slot| lock(&slot.state).call.connection.is_referenced())
    }

    /// Whether a channel's audio is not to be kept now.
    #[must_use]
    pub fn is_kept_out(&self, id: &ConnectionId, channel: Channel) -> bool {
        let is_kept_out = |slot: Arc<Slot>| lock(&slot.state).call.connection.claims().is_kept_out(channel);
        self.find(id.as_str()).is_some_and(is_kept_out)
    }

    /// Why a new connection would be refused now, if it would.
    #[must_use]
    pub fn refusal(&self) -> Option<&'static str> {
        self.admit().err().map(DropReason::name)
    }

    /// The daemon's steady clock.
    #[must_use]
    pub fn now(&self) -> Mono {
        self.clock.now()
    }

    /// Reads the wall clock.
    #[must_use]
    pub fn wall(&self) -> Wall {
        self.clock.wall()
    }

    /// The metrics that this counts into.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn settle(&self, slot: &Arc<Slot>, timeout: Timeout, now: Mono) {
        match timeout {
            Timeout::Wait(None) => {}
            Timeout::Wait(Some(at)) => self.wake_at(at, slot),
            Timeout::Retire => {
                if self.connections.remove_if(&slot.id, |_, current| Arc::ptr_eq(current, slot)).is_some() {
                    self.writer.ended().retire(&slot.id);
                }
            }
            Timeout::Seal(end, retire_at) => {
                self.seal(slot, end, now);
                if end == End::PartFull {
                    self.begin_next_part(slot, now);
                    // It finds its way into that.
                    self.release(slot, |_, _| true);
                } else {
                    self.wake_at(retire_at, slot);
                }
            }
        }
    }

    fn begin_next_part(&self, slot: &Slot, now: Mono) {
        let (call, kept) = {
            let state = lock(&slot.state);
            (state.call.next_part(now), state.call.connection.claims().kept_until())
        };
        let part = slot.part.saturating_add(1);
        let next = self.new_slot_behind(kept, slot.id.clone(), part, call, now);
        self.connections.insert(slot.id.clone(), Arc::clone(&next));
        self.begin(&next);
    }

    pub(super) fn wake_at(&self, at: Mono, slot: &Arc<Slot>) {
        lock(&self.timers).push(Reverse(Timer { at, slot: Arc::downgrade(slot) }));
    }

    /// All slots, so that none of the map's locks is held while they are handled.
    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        self.connections.iter().map(|entry| Arc::clone(entry.value())).collect()
    }
}
