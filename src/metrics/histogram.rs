//! How long things took: counts in fixed classes, from a write to the spool to a store that was down for a day.
//!
//! All histograms have the same bounds, so that one look compares them. Observing is two additions without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::micros;

/// The upper bounds of the classes, in milliseconds. Below a second they tell a disk's writes and syncs apart (a write of
/// 50 ms, after a wait of 40, is what the 100 ms of a kill allow), above it the attempts to publish; 300 s, 1 h and 1 d are
/// where people are called for.
pub const BOUNDS_MS: [u64; 18] = [
    1, 5, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000,
    14_400_000, 86_400_000,
];

/// Durations, counted by class.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each bound, and one for what is longer than all of them.
    classes: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        let us = micros(duration);
        let class = BOUNDS_MS.partition_point(|bound_ms| bound_ms.saturating_mul(1000) < us);
        // Relaxed: read only for show, as all counters.
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// For each bound how many durations were not longer, and at last how many there were.
    #[must_use]
    pub fn cumulated(&self) -> [u64; BOUNDS_MS.len() + 1] {
        let mut total = 0;
        std::array::from_fn(|class| {
            total += self.classes[class].load(Ordering::Relaxed);
            total
        })
    }

    /// The sum of all durations, in microseconds.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_class_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::default();
        for us in [0, 1000, 1001, 86_400_000_000, 86_400_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let counts = histogram.cumulated();
        assert_eq!((counts[0], counts[1]), (2, 3));
        assert_eq!((counts[17], counts[18]), (4, 5));
        assert_eq!(histogram.sum_us(), 172_800_002_002);
    }

    #[test]
    fn the_longest_duration_there_is_is_counted_like_any_other() {
        let histogram = Histogram::default();
        histogram.observe(Duration::MAX);
        assert_eq!(histogram.cumulated()[18], 1);
    }
}
