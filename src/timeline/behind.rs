//! What follows a packet that does not go on from those before it, and whether its sender began anew with it.

use super::looks::Looks;
use super::unwrap::{Builder, NEAR_US, sequence_step, timestamp_step};
use super::{Rx, index};

/// So many packets behind one are asked.
const COPIES_ASKED: usize = 64;
/// Packets looked at behind one that does not fit.
const LOOK_AHEAD: usize = 3;

/// The packets of a source behind one of them.
pub(super) struct Behind<'a> {
    pub(super) source: &'a [u32],
    pub(super) packets: &'a [Rx],
}

impl<'a> Behind<'a> {
    fn next(&self, count: usize) -> impl Iterator<Item = &'a Rx> {
        let packets = self.packets;
        self.source.iter().take(count).map(move |rx| &packets[index(*rx)])
    }

    /// The first of the next packets to go on with the old numbering, if more of them do than with this packet's.
    pub(super) fn goes_on(&self, epoch: &Builder, packet: &Rx) -> Option<&'a Rx> {
        let (mut fit_old, mut fit_new, mut first) = (0, 0, None);
        for next in self.next(LOOK_AHEAD) {
            let on_from_new = i64::from(sequence_step(packet.sequence, next.sequence));
            let new_s =
                f64::from(timestamp_step(packet.timestamp, next.timestamp)) / f64::from(packet.clock_hz);
            let on_from_old = i64::from(sequence_step(epoch.top_sequence, next.sequence));
            let old_s =
                f64::from(timestamp_step(epoch.top_timestamp, next.timestamp)) / f64::from(epoch.clock_hz);
            if (1..=3).contains(&on_from_new) && (0.0..3.0).contains(&new_s) {
                fit_new += 1;
            } else if (1..100).contains(&on_from_old)
                && (0.0..15.0).contains(&old_s)
                && next.clock_hz == epoch.clock_hz
            {
                fit_old += 1;
                first = first.or(Some(next));
            }
        }
        first.filter(|_| fit_old > fit_new)
    }

    /// Whether what follows a packet that seems to have come before, or to be late, goes on from it with what has not come
    /// before. If nothing that follows came before, nor goes on with the old, a time without packets in front tells.
    pub(super) fn begins_anew(&self, epoch: &Builder, packet: &Rx, looks: &mut Looks) -> bool {
        let copied = epoch.top + i64::from(sequence_step(epoch.top_sequence, packet.sequence));
        let is_copy = epoch.seen(copied).is_some();
        let (mut fit_old, mut fit_new) = (0, 0);
        for next in self.next(COPIES_ASKED) {
            let on = i64::from(sequence_step(packet.sequence, next.sequence));
            let seen = epoch.seen(copied + on).filter(|_| on > 0);
            if !looks.take() {
                return false;
            } else if let Some(seen) = seen {
                if !seen.is_of(next) {
                    return true;
                }
            } else if (1..100).contains(&i64::from(sequence_step(epoch.top_sequence, next.sequence))) {
                fit_old += 1;
                if fit_old == LOOK_AHEAD {
                    return false;
                }
            } else if on > 0 {
                fit_new += 1;
            }
        }
        let is_behind_gap = packet.arrival.0.saturating_sub(epoch.last_arrival_us) > NEAR_US;
        !is_copy && is_behind_gap && fit_old == 0 && fit_new >= LOOK_AHEAD
    }
}
