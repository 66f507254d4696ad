//! What ingest knows of one live connection, and its deadlines.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::held::Waiting;
use super::spool_writer::SpoolFile;
use crate::connection::End;
use crate::connection::call::Call;
use crate::connection::metadata::decides;
use crate::connection::vigil::{Noticed, sound};
use crate::frame::{Frame, Message};
use crate::id::{ConnectionId, Scope};
use crate::metrics::DropReason;
use crate::packet;
use crate::replay::Anchor;
use crate::rtpmap::Codec;
use crate::spool::{BODY_OFFSET, Record, SealCause};
use crate::time::{Mono, Wall};

/// Frames beside RTP that one recording may have, and their bytes. A call of four hours with a report a second on each
/// channel has 28,800.
const CONTROL_FRAMES_MAX: u32 = 65_536;
const CONTROL_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What finishing a recording may take of memory: this, and 1.5 times the bytes of its spool file.
pub(super) const FINISHING_BYTES: u64 = 64 * 1024 * 1024;
/// What it takes for a packet at most: measured by `cargo bench --bench hostile`, with some to spare.
pub(super) const PACKET_BYTES: u64 = 125;

/// One recording in the making, or the tombstone of one.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: ConnectionId,
    pub(super) part: u16,
    /// When the recording was opened.
    pub(super) opened: Wall,
    /// What brings steady times to the wall, as the file has it.
    pub(super) anchor: Anchor,
    /// The latest own time of what was kept in the parts before.
    pub(super) kept_before: Option<Wall>,
    pub(super) file: Arc<SpoolFile>,
    pub(super) state: Mutex<SlotState>,
    /// Whether a RESUME is waited for, so that no packet else has to ask: set while the state is locked.
    pub(super) has_waiting: AtomicBool,
}

#[derive(Debug)]
pub(super) struct SlotState {
    pub(super) call: Call,
    /// Frames that could not be spooled since the last record that could.
    pub(super) dropped: u32,
    /// Packets that wait for a RESUME.
    pub(super) waiting: Waiting,
    /// Frames beside RTP, and their bytes.
    control: (u32, usize),
    /// What finishing takes for the packets so far beyond what their bytes in the spool allow for.
    finishing: u64,
}

impl SlotState {
    pub(super) fn new(call: Call) -> Self {
        Self { call, dropped: 0, waiting: Waiting::default(), control: (0, 0), finishing: 0 }
    }

    /// Counts a frame. An error where no call can need so many; what ends a call or a pause may come as often again.
    pub(super) fn count(&mut self, frame: &Frame<'_>) -> Result<(), DropReason> {
        if matches!(frame.message, Message::Rtp) {
            return Ok(());
        }
        let (frames, bytes) = (self.control.0.saturating_add(1), self.control.1 + frame.body.len());
        let is_needed = match &frame.message {
            Message::End { .. } | Message::Pause(_) | Message::Resume | Message::Release => true,
            Message::Meta(object) => decides(object).is_some(),
            _ => false,
        };
        let share: u8 = if is_needed { 2 } else { 1 };
        if frames > CONTROL_FRAMES_MAX * u32::from(share) || bytes > CONTROL_BYTES_MAX * usize::from(share) {
            return Err(DropReason::ControlFull);
        }
        self.control = (frames, bytes);
        Ok(())
    }

    /// Weighs an RTP packet of which so many bytes were kept: whether finishing what is here takes all the memory that it may.
    pub(super) fn weigh(&mut self, frame: &Frame<'_>, kept: usize) -> bool {
        let allowed = u64::try_from(BODY_OFFSET.saturating_add(kept)).unwrap_or(u64::MAX) * 3 / 2;
        let needed = PACKET_BYTES * if self.has_copies(frame) { 2 } else { 1 };
        self.finishing = self.finishing.saturating_add(needed).saturating_sub(allowed);
        self.finishing >= FINISHING_BYTES
    }

    /// Whether a packet carries copies of others, of which as many are kept as came by themselves.
    fn has_copies(&self, frame: &Frame<'_>) -> bool {
        let (Scope::Channel(channel), Ok(packet)) = (frame.scope, packet::parse_rtp(frame.body)) else {
            return false;
        };
        self.call.metadata.rtpmap(channel, packet.payload_type).codec == Codec::Red
    }

    /// Counts bytes that a frame has led to, besides its own.
    pub(super) fn charge(&mut self, bytes: usize) {
        self.control.1 = self.control.1.saturating_add(bytes);
    }

    /// Listens to a packet: whether a channel is not heard while the other one talks for as long as `patience`.
    pub(super) fn listen(&mut self, frame: &Frame<'_>, now: Mono, patience: Duration) -> Option<Noticed> {
        let (Message::Rtp, Scope::Channel(channel)) = (&frame.message, frame.scope) else { return None };
        let Call { connection, metadata, .. } = &mut self.call;
        if !connection.is_live() || !connection.is_next_sampled(channel) {
            return None;
        }
        let packet = packet::parse_rtp(frame.body).ok()?;
        let sound = sound(&packet, |payload_type| metadata.rtpmap(channel, payload_type));
        connection.hear(now, channel, sound, patience)
    }

    /// Appends a note of the frames that could not be spooled, if there are any.
    pub(super) fn append_dropped(&mut self, at: Mono, out: &mut Vec<u8>) {
        if self.dropped > 0 {
            Record::append_dropped(at, std::mem::take(&mut self.dropped), out);
        }
    }
}

/// What a spool file says of the end of its connection.
pub(super) fn cause_of(end: End) -> SealCause {
    match end {
        End::Released => SealCause::Released,
        End::Stale => SealCause::Stale,
        End::Shutdown => SealCause::Shutdown,
        End::NotResumed => SealCause::NotResumed,
        End::PartFull => SealCause::PartFull,
    }
}

/// A deadline of a slot. Ordered by time alone. It does not keep the slot: a call of a minute must not stay in memory
/// for the hours that its recording might have lasted.
#[derive(Debug)]
pub(super) struct Timer {
    pub(super) at: Mono,
    pub(super) slot: Weak<Slot>,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Timer {}
impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}
