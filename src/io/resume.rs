//! Connections of an earlier process go on: with the frames that have come for them while the spool was read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::awaited::{Group, HeldFrame};
use super::ingest::Ingest;
use super::slot::Slot;
use super::spool_writer::{SpoolFile, lock};
use crate::connection::call::Call;
use crate::frame;
use crate::metrics::{DropReason, Metrics};
use crate::replay::Anchor;
use crate::spool::{Header, Record};

/// A connection found in the spool after a restart, ready to go on.
#[derive(Debug)]
pub struct Resumed {
    /// Its file, already cut to its last whole record.
    pub path: PathBuf,
    /// What the file says of itself.
    pub header: Header,
    /// Its state as its records left it, not yet told of the restart.
    pub call: Call,
    /// Whether nothing can be added to its file, so that it goes on in another.
    pub is_closed: bool,
}

impl Ingest {
    /// Takes up the open connections that were found in a group of spool files, and then lets in the frames that have come for
    /// them meanwhile.
    pub fn take_up(&self, group: &Group, found: Vec<Resumed>) {
        let slots: Vec<_> = found.into_iter().map(|resumed| self.resume(resumed)).collect();
        let enter = |held: &HeldFrame| {
            let entered = catch_unwind(AssertUnwindSafe(|| self.enter_held(&slots, held)));
            if let Err(reason) = entered.unwrap_or(Err(DropReason::InternalError)) {
                self.drop_frame(reason, &held.bytes);
            }
        };
        self.awaited.release(group, enter, |dropped| {
            for slot in &slots {
                let mut state = lock(&slot.state);
                state.dropped = state.dropped.saturating_add(dropped);
                drop(state);
                self.connections.insert(slot.id.clone(), Arc::clone(slot));
            }
        });
        for slot in &slots {
            let deadline = lock(&slot.state).call.connection.poll_timeout();
            self.wake_at(deadline, slot);
        }
    }

    /// Goes on with a connection found in the spool: notes the restart in its file, and waits for its gateway.
    fn resume(&self, resumed: Resumed) -> Arc<Slot> {
        let Resumed { path, header, mut call, is_closed } = resumed;
        let now = self.clock.now();
        call.note_restart(self.clock.wall());
        let recorded_us = self.clock.wall().0.saturating_sub(header.opened.0);
        let recorded = Duration::from_micros(u64::try_from(recorded_us).unwrap_or(0));
        self.open.fetch_add(1, Ordering::Relaxed);
        Metrics::add(&self.metrics().resumed);
        if is_closed {
            let (id, part) = (header.connection, header.part.saturating_add(1));
            let mut next = call.next_part(now);
            next.connection = next.connection.resume(now, Duration::ZERO);
            return self.new_slot(id, part, next, now);
        }
        call.connection = call.connection.resume(now, recorded);
        // Of the time when this process began, because frames that were held are older than this moment.
        let (mono, wall) = self.begun;
        let (id, part, opened) = (header.connection.clone(), header.part, header.opened);
        let file = SpoolFile::resumed(path, header);
        let slot = self.slot(id, part, (opened, Anchor::new(mono, wall), None), file, call);
        let mut state = lock(&slot.state);
        self.append(&slot, &mut state, &Record::resumed(mono, &wall.0.to_be_bytes()));
        self.append_state(&slot, &mut state, mono);
        drop(state);
        slot
    }

    /// Enters a frame that was held, into one of these connections or into another.
    fn enter_held(&self, slots: &[Arc<Slot>], held: &HeldFrame) -> Result<(), DropReason> {
        let frame = frame::parse(&held.bytes)?;
        let slot = slots.iter().find(|slot| slot.id.as_str() == frame.connection);
        let slot = slot.map_or_else(|| self.find_or_open(&frame, held.at), |slot| Ok(Arc::clone(slot)))?;
        self.receive_into(&slot, &frame, held.at)
    }
}
