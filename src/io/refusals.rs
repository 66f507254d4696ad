//! What is refused: counted, logged, and noted in the connection that it was meant for, so that its manifest tells it.

use tracing::warn;

use super::ingest::Ingest;
use super::slot::Slot;
use super::spool_writer::lock;
use crate::connection::call::Call;
use crate::frame;
use crate::metrics::DropReason;

/// Whether a frame that was refused for this reason was meant for a call, and would have been in its recording. What is not
/// signed may be anybody's; what the disk did not take is noted where it is missing; the rest comes before a call or after it.
fn is_of_call(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::Body
            | DropReason::Json
            | DropReason::Rtp
            | DropReason::RtcpAsRtp
            | DropReason::KeyExchange
            | DropReason::OtherSource
            | DropReason::OtherRtcp
            | DropReason::Rtcp
            | DropReason::MetadataFull
            | DropReason::ControlFull
            | DropReason::ReleaseWithoutHold
    )
}

impl Ingest {
    /// Counts and reports a frame that was not kept.
    pub fn drop_frame(&self, reason: DropReason, bytes: &[u8]) {
        self.metrics.drop_frame(reason);
        self.drops.report(reason, self.metrics.dropped(reason), self.clock.now(), bytes);
        if is_of_call(reason) {
            self.note_refused(reason, bytes);
        }
    }

    /// Counts it in its call. A note of that goes into the spool each time that there are twice as many, and at the end.
    fn note_refused(&self, reason: DropReason, bytes: &[u8]) {
        let Some((scope, id)) = frame::address_of(bytes) else { return };
        let Some(slot) = self.find(id) else { return };
        let mut state = lock(&slot.state);
        if state.call.connection.is_live() && state.call.refuse(scope, reason.name()) {
            let noted = self.append_state(&slot, &mut state, self.clock.now());
            state.charge(noted);
        }
    }

    /// Says that META of a call had values that are not understood. Each key is told of once.
    pub(super) fn report_meta(slot: &Slot, call: &Call) {
        let keys: Vec<&str> = call.metadata.not_understood.iter().map(String::as_str).collect();
        let (connection, keys) = (slot.id.as_str(), keys.join(" "));
        warn!(connection, keys, "metadata of the wrong form is kept as it is and not used");
    }
}
