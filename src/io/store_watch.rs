//! A storage that takes no recordings, summed up: since when, how many wait, and how long the spool's disk lasts.
//!
//! What one recording says of its failures is lost among those of others. So from the first minute on there is one line for
//! all, at one, two, four … minutes and then each hour, and one when it is over. Metrics say the same each second.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::finish::Finisher;
use super::ingest::Ingest;
use super::scrape::waiting;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What fails for less is a hiccup.
const TELL_FIRST: Duration = Duration::from_secs(60);
/// How often it is told at the least.
const TELL_EVERY: Duration = Duration::from_secs(3600);
/// A rate of growth that is measured for less says nothing.
const MEASURED_MIN: Duration = Duration::from_secs(30);

/// What there is to say now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// It has been failing for so long.
    Failing(Duration),
    /// It had been.
    Over(Duration),
}

/// What is known of a storage, decided without looking at anything.
#[derive(Debug, Default)]
struct StoreWatch {
    /// For how long it had been failing when it was first seen to, and what was free then.
    first: Option<(Duration, u64)>,
    /// When it is told next.
    tell_at: Duration,
    /// For how long it had been failing at the last look.
    last: Duration,
    /// Whether it was told at all.
    is_told: bool,
}

impl StoreWatch {
    /// Looks at how long the storage has been failing, if it is. Returns what there is to say.
    fn look(&mut self, failing_for: Option<Duration>, free_bytes: u64) -> Option<Word> {
        let Some(failing_for) = failing_for else {
            let before = std::mem::take(self);
            return before.is_told.then_some(Word::Over(before.last));
        };
        if self.first.is_none() || failing_for < self.last {
            // It worked in between.
            self.first = Some((failing_for, free_bytes));
            self.tell_at = TELL_FIRST.max(self.tell_at.min(TELL_EVERY));
        }
        self.last = failing_for;
        if failing_for < self.tell_at {
            return None;
        }
        self.tell_at = failing_for + failing_for.min(TELL_EVERY);
        self.is_told = true;
        Some(Word::Failing(failing_for))
    }

    /// How long it takes until the disk has no more than that free, at the rate at which it has filled since the storage fails.
    /// `None` if it does not fill, or that is not known yet.
    fn lasts(&self, free_bytes: u64, min_free_bytes: u64) -> Option<Duration> {
        let (first, free_at_first) = self.first?;
        let measured = self.last.saturating_sub(first);
        let filled = free_at_first.checked_sub(free_bytes).filter(|filled| *filled > 0)?;
        let left = free_bytes.saturating_sub(min_free_bytes);
        let us = measured.as_micros().saturating_mul(left.into()) / u128::from(filled);
        (measured >= MEASURED_MIN).then(|| Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX)))
    }
}

impl Finisher {
    /// Watches the first storage until `stop`. Calls are refused when the spool's disk has no more than `min_free_bytes` free.
    pub async fn watch_store(
        self: Arc<Self>,
        ingest: Arc<Ingest>,
        min_free_bytes: u64,
        stop: CancellationToken,
    ) {
        let mut watch = StoreWatch::default();
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = stop.cancelled() => return,
            }
            let free_bytes = ingest.spool.free_bytes().unwrap_or(0);
            let failing_for = self.health.failing_for();
            let word = watch.look(failing_for, free_bytes);
            let lasts = watch.lasts(free_bytes, min_free_bytes);
            let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let metrics = self.metrics();
            metrics.storage_failing_ms.store(failing_for.map_or(0, ms), Ordering::Relaxed);
            metrics.spool_lasts_ms.store(lasts.map_or(u64::MAX, ms), Ordering::Relaxed);
            let Some(word) = word else { continue };
            let counted = Arc::clone(&ingest);
            let waiting = self.hands.run(move || waiting(&counted)).await.unwrap_or(0);
            match word {
                Word::Failing(failing_for) => {
                    let ago_us = i64::try_from(failing_for.as_micros()).unwrap_or(i64::MAX);
                    let hours = lasts.map(|lasts| (lasts.as_secs_f64() / 360.0).round() / 10.0);
                    warn!(
                        since = ingest.clock.wall().plus_us(-ago_us).to_rfc3339(),
                        waiting,
                        disk_lasts_hours = hours,
                        free_bytes,
                        "the storage takes no recordings, they wait in the spool"
                    );
                }
                Word::Over(failed_for) => {
                    info!(elapsed_ms = ms(failed_for), waiting, "the storage takes recordings again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn an_outage_is_told_a_few_times_whatever_its_length_and_once_when_it_is_over() {
        let mut watch = StoreWatch::default();
        assert_eq!(watch.look(None, GIB), None);
        let told = (0..6 * 3600).filter(|second| watch.look(Some(seconds(*second)), GIB).is_some());
        assert_eq!(
            told.collect::<Vec<_>>(),
            [60, 120, 240, 480, 960, 1920, 3840, 7440, 11_040, 14_640, 18_240]
        );
        assert_eq!(watch.look(None, GIB), Some(Word::Over(seconds(6 * 3600 - 1))));
        assert_eq!(watch.look(None, GIB), None);
        // A hiccup is not told, nor is its end.
        assert_eq!((watch.look(Some(seconds(59)), GIB), watch.look(None, GIB)), (None, None));
    }

    #[test]
    fn how_long_the_disk_lasts_is_what_is_left_at_the_rate_at_which_it_fills() {
        let mut watch = StoreWatch::default();
        watch.look(Some(seconds(5)), 101 * GIB);
        assert_eq!(watch.lasts(101 * GIB, GIB), None);
        watch.look(Some(seconds(25)), 100 * GIB);
        assert_eq!(watch.lasts(100 * GIB, GIB), None, "too soon to tell");
        watch.look(Some(seconds(3605)), 91 * GIB);
        assert_eq!(watch.lasts(91 * GIB, GIB), Some(seconds(9 * 3600)));
        assert_eq!(watch.lasts(GIB / 2, GIB), Some(Duration::ZERO));
        assert_eq!(watch.lasts(102 * GIB, GIB), None, "it has more room than before");
    }
}
