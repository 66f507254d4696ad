//! Packets that come behind a PAUSE with an earlier time, and wait for its RESUME: only that says whether they are of the pause.
//!
//! Where the two are sent together, what is received between them may have been said after the time of the RESUME. So it waits for
//! [`WAIT`], as the spool file does to be written again, in memory alone: nothing of it is in the spool, a recording or an excerpt.
//! A RESUME with a time goes before what waits; then the state machine keeps of each packet what it keeps of any of its time.
//! Without one, and of more than [`PACKETS_MAX`] or [`BYTES_MAX`], it is what came in the pause: its headers. A kill loses what
//! waits, and no more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ingest::Ingest;
use super::slot::Slot;
use super::spool_rewrite::WAIT;
use super::spool_writer::lock;
use crate::connection::metadata::decides;
use crate::connection::pauses::Stamp;
use crate::frame::{self, Frame, Message, encode};
use crate::id::{Channel, ConnectionId, Scope};
use crate::metrics::DropReason;
use crate::time::Mono;

/// Packets of a channel that wait: ten times as many as come in that time.
const PACKETS_MAX: usize = 200;
/// And their bytes: five times those of wideband speech that is not encoded.
const BYTES_MAX: usize = 64 * 1024;

/// What waits of a connection.
#[derive(Debug, Default)]
pub(super) struct Waiting([Lane; 2]);

#[derive(Debug, Default)]
struct Lane {
    /// Until when, if a RESUME is waited for.
    until: Option<Mono>,
    packets: Vec<Held>,
    bytes: usize,
}

/// A frame, and when it was received.
type Held = (Mono, Vec<u8>);

impl Waiting {
    /// Waits for a RESUME from now on, on the channels of a PAUSE that reaches back. Returns until when.
    pub(super) fn begin(&mut self, scope: Scope, now: Mono) -> Mono {
        let until = now.after(WAIT);
        for channel in scope.channels() {
            self.0[channel.index()].until.get_or_insert(until);
        }
        until
    }

    fn is_none(&self) -> bool {
        self.0.iter().all(|lane| lane.until.is_none())
    }

    /// Takes a packet, if it has to wait and there is room.
    fn hold(&mut self, frame: &Frame<'_>, now: Mono, id: &ConnectionId) -> bool {
        let Scope::Channel(channel) = frame.scope else { return false };
        let lane = &mut self.0[channel.index()];
        if lane.until.is_none() || lane.packets.len() >= PACKETS_MAX || lane.bytes >= BYTES_MAX {
            return false;
        }
        lane.bytes = lane.bytes.saturating_add(frame.body.len());
        let bytes = encode(frame.message.kind(), frame.scope, frame.gateway, id, frame.body);
        lane.packets.push((now, bytes));
        true
    }

    /// Ends the waiting of some channels, and returns what waited.
    fn end(&mut self, is_over: impl Fn(Channel, Mono) -> bool) -> Vec<Held> {
        let mut held = Vec::new();
        for channel in Channel::BOTH {
            let lane = &mut self.0[channel.index()];
            if lane.until.is_some_and(|until| is_over(channel, until)) {
                held.append(&mut std::mem::take(lane).packets);
            }
        }
        held
    }
}

impl Ingest {
    /// Enters a frame into a connection of which packets may wait.
    pub(super) fn enter_or_hold(
        &self,
        slot: &Arc<Slot>,
        frame: &Frame<'_>,
        now: Mono,
    ) -> Result<(), DropReason> {
        self.release(slot, |_, until| until <= now);
        let is_resume = matches!(frame.message, Message::Resume);
        match &frame.message {
            Message::Rtp => {
                if lock(&slot.state).waiting.hold(frame, now, &slot.id) {
                    return Ok(());
                }
                // Where there is no room for more.
                self.release(slot, |channel, _| frame.scope.covers(channel));
            }
            // What came before a RESUME that ends the pause when it comes is of that.
            Message::Resume if !self.ends_by_its_time(slot, frame, now) => {
                self.release(slot, |channel, _| frame.scope.covers(channel));
            }
            Message::End { .. } => self.release(slot, |_, _| true),
            Message::Meta(object) if decides(object).is_some() => self.release(slot, |_, _| true),
            _ => {}
        }
        let entered = self.enter(slot, frame, now);
        if is_resume {
            self.release(slot, |channel, _| frame.scope.covers(channel));
        }
        entered
    }

    fn ends_by_its_time(&self, slot: &Slot, frame: &Frame<'_>, now: Mono) -> bool {
        let at = Stamp::of(slot.anchor.wall_of(now), frame.gateway);
        lock(&slot.state).call.connection.claims().ends_by_its_time(at, frame.scope)
    }

    /// Ends the waiting of some channels: what waited is entered, by the time of its receipt.
    pub(super) fn release(&self, slot: &Arc<Slot>, is_over: impl Fn(Channel, Mono) -> bool) {
        if !slot.has_waiting.load(Ordering::Acquire) {
            return;
        }
        let held = {
            let mut state = lock(&slot.state);
            let held = state.waiting.end(is_over);
            slot.has_waiting.store(!state.waiting.is_none(), Ordering::Release);
            held
        };
        for (at, bytes) in held {
            let entered = frame::parse(&bytes).map_err(DropReason::from);
            if let Err(reason) = entered.and_then(|frame| self.enter(slot, &frame, at)) {
                self.drop_frame(reason, &bytes);
            }
        }
    }
}
