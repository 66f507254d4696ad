//! Single times of the gateway's that are wrong among right ones, seen from the daemon's clock.
//!
//! Frames are read in the order in which they were sent, so what a frame took from its stamp to its receipt lies between what
//! those around it took, but for jitter: a stall of the socket holds up what comes behind it as well. One that seems to have
//! taken much longer than both was stamped too early, and would draw all audio in front of it to an earlier place.

use super::Payload;
use crate::timeline::Rx;

/// A gateway time this much later than its neighbours', or earlier where they cannot tell, is wrong. A minute: a capture that is
/// replayed fast moves by a few packets' lengths from one to the next.
const FAR_US: i64 = 60_000_000;
/// A frame that took longer than both its neighbours by this was stamped too early: as a change of the latency, it would be a
/// step of the clock.
const EARLY_US: i64 = 60_000;

/// Replaces each gateway time that is alone in being wrong: by the daemon's clock and its neighbour's difference.
pub(super) fn repair_lone_times(rx: &mut [Rx], payloads: &[Payload]) {
    let offset = |rx: &[Rx], at: usize| {
        let payload = payloads.get(at).filter(|payload| payload.has_gateway_time)?;
        Some(rx[at].arrival.0.saturating_sub(payload.received.0))
    };
    let is_far = |a: i64, b: i64| a.saturating_sub(b).saturating_abs() > FAR_US;
    for at in 0..rx.len() {
        let Some(own) = offset(rx, at) else { continue };
        let of = |at: Option<usize>| at.and_then(|at| offset(rx, at));
        // The first and the last are judged by two on one side.
        let (nearest, other) = match (of(at.checked_sub(1)), of(Some(at + 1))) {
            (Some(before), None) => (before, of(at.checked_sub(2)).or(Some(before))),
            (Some(before), after) => (before, after),
            (None, Some(after)) => (after, of(Some(at + 2))),
            (None, None) => continue,
        };
        let Some(other) = other.filter(|other| !is_far(nearest, *other)) else { continue };
        let is_early = own < nearest.min(other).saturating_sub(EARLY_US);
        if is_early || is_far(own, nearest) {
            rx[at].arrival =
                payloads[at].received.plus_us(if is_early { nearest.min(other) } else { nearest });
        }
    }
}
