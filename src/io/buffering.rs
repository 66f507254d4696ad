//! What ingest puts into a connection's buffer: records, as long as there is room, the whole state, and the seal.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::debug;

use super::ingest::Ingest;
use super::slot::{Slot, SlotState, cause_of};
use super::spool_writer::{BUFFER_MAX_BYTES, lock};
use crate::connection::End;
use crate::id::{Channel, ConnectionId};
use crate::spool::Record;
use crate::time::Mono;

impl Ingest {
    /// Notes the ports for plain RTP that a connection was given, so that a restart finds them.
    pub fn note_ports(&self, id: &ConnectionId, ports: [u16; 2]) {
        let Some(slot) = self.connections.get(id.as_str()).map(|slot| Arc::clone(&slot)) else { return };
        let mut state = lock(&slot.state);
        state.call.ports = Some(ports);
        self.append_state(&slot, &mut state, self.clock.now());
    }

    /// Appends a record to a connection's buffer. False if the buffer is full because the disk does not take it.
    pub(super) fn append(&self, slot: &Slot, state: &mut SlotState, record: &Record<'_>) -> bool {
        let mut buffer = lock(&slot.file.buffer);
        let is_room = buffer.waiting() + record.body.len() < BUFFER_MAX_BYTES && self.writer.has_room();
        if is_room {
            let has_dropped = state.dropped > 0;
            state.append_dropped(record.at, buffer.records());
            record.append_to(buffer.records());
            if has_dropped {
                // A PAUSE may have been among them.
                Record::state(record.at, &state.call.to_state()).append_to(buffer.records());
                buffer.note_state();
            }
        } else {
            state.dropped = state.dropped.saturating_add(1);
        }
        self.writer.note(&slot.file, buffer);
        is_room
    }

    /// Appends the whole state: what has led to it may be gone from the file. Where the disk takes nothing and there is no room
    /// left, the writer appends it as soon as there is, so that whoever pauses again and again takes no memory. Returns how many
    /// bytes it took.
    pub(super) fn append_state(&self, slot: &Slot, state: &mut SlotState, at: Mono) -> usize {
        let mut buffer = lock(&slot.file.buffer);
        if buffer.waiting() >= BUFFER_MAX_BYTES || !self.writer.has_room() {
            buffer.owe_state();
            self.writer.note(&slot.file, buffer);
            return 0;
        }
        drop(buffer);
        self.append_state_at_once(slot, state, at)
    }

    /// Appends the whole state, which there is always room for.
    fn append_state_at_once(&self, slot: &Slot, state: &mut SlotState, at: Mono) -> usize {
        let noted = state.call.to_state();
        let mut buffer = lock(&slot.file.buffer);
        Record::state(at, &noted).append_to(buffer.records());
        buffer.note_state();
        self.writer.note(&slot.file, buffer);
        noted.len()
    }

    /// Closes a connection: its seal is the last record.
    pub(super) fn seal(&self, slot: &Slot, end: End, now: Mono) {
        debug!(connection = slot.id.as_str(), ?end, "connection sealed");
        self.open.fetch_sub(1, Ordering::Relaxed);
        let mut state = lock(&slot.state);
        let has_unrecorded = Channel::BOTH.iter().any(|channel| state.call.counts(*channel).unrecorded > 0);
        // Only the state says how many there were. And nobody knows it when the connection is forgotten.
        if has_unrecorded || !state.call.refused().is_empty() || lock(&slot.file.buffer).owes_state() {
            self.append_state_at_once(slot, &mut state, now);
        }
        if end != End::PartFull {
            self.note_ended(slot, &state, end, now);
        }
        let mut buffer = lock(&slot.file.buffer);
        state.append_dropped(now, buffer.records());
        let mut seal = Vec::new();
        Record::append_seal(now, cause_of(end), slot.file.recording(), &mut seal);
        slot.file.seal(&mut buffer, seal);
        self.writer.note(&slot.file, buffer);
    }
}
