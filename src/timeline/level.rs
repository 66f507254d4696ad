//! The level of a stretch of audio: how far its media time lies from arrival time.
//!
//! Network delay only ever adds to the difference, so the packet that was delayed least tells it: the level is the
//! minimum over the stretch. One odd packet never sets it: each difference counts as no lower than the lower of
//! its two neighbours'. Subtracting the packet's own length cancels the sender's packetisation delay.
//!
//! A sender that delivers faster than real time is early with most of its audio, so that its least delayed packet
//! says nothing: where less than half of the audio lies near the minimum, the first packet sets the level.
//!
//! This is the ordinary case, one level for a piece. Drift and pauses that timestamps do not show need a level for
//! each packet; they go in here.

use super::unwrap::Unwrapped;
use super::{Rx, RxKind, index};
use crate::time::{Samples48k, Wall};

/// A packet this close to the least delayed one (100 ms) is one of a sender that keeps to real time: above the jitter
/// of ordinary networks. Paced senders measured 0.83 to 1.0 of their audio within it, bursting ones 0 to 0.13.
const NEAR_SAMPLES: i64 = 4800;

/// Returns the position, counted from `origin`, of the media time 0 of a piece of an epoch, in order of sequence.
/// `None` for a piece without audio.
#[must_use]
pub fn of_piece(piece: &[Unwrapped], clock_hz: u32, packets: &[Rx], origin: Wall) -> Option<Samples48k> {
    let mut differences: Vec<i64> = Vec::with_capacity(piece.len());
    // From the back, so that a reordered packet counts as arriving no later than its successors.
    let mut earliest = i64::MAX;
    for unwrapped in piece.iter().rev() {
        let rx = &packets[index(unwrapped.rx)];
        if rx.kind == RxKind::Beside {
            continue;
        }
        earliest = earliest.min(rx.arrival.0);
        let arrival = Samples48k::from_us(earliest.saturating_sub(origin.0)).0;
        differences.push(arrival - media_samples(unwrapped.ticks, clock_hz) - i64::from(rx.samples));
    }
    let with_neighbours = differences.iter().enumerate().map(|(at, own)| {
        let before = at.checked_sub(1).map(|at| differences[at]);
        let after = differences.get(at + 1).copied();
        match (before, after) {
            (Some(before), Some(after)) => (*own).max(before.min(after)),
            (Some(only), None) | (None, Some(only)) => (*own).max(only),
            (None, None) => *own,
        }
    });
    let smooth: Vec<i64> = with_neighbours.collect();
    let least = *smooth.iter().min()?;
    let near = smooth.iter().filter(|difference| **difference - least <= NEAR_SAMPLES).count();
    // The differences were gathered from the back: the last of them is the first packet's.
    let first = *smooth.last()?;
    Some(Samples48k(if near * 2 >= smooth.len() { least } else { first }))
}

/// Converts extended ticks to samples at 48 kHz, rounded to the nearest, without adding up errors.
#[must_use]
pub fn media_samples(ticks: i64, clock_hz: u32) -> i64 {
    let clock = i128::from(clock_hz);
    let samples = (i128::from(ticks) * 48_000 + clock / 2).div_euclid(clock);
    i64::try_from(samples).unwrap_or(if ticks < 0 { i64::MIN / 4 } else { i64::MAX / 4 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_any_clock_become_samples_without_drift() {
        assert_eq!(media_samples(160, 8000), 960);
        assert_eq!(media_samples(11_025 * 3600, 11_025), 48_000 * 3600);
        assert_eq!(media_samples(-960, 48_000), -960);
    }
}
