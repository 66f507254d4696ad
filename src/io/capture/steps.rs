//! The clock of the machine that captured, where it was set back while it did.
//!
//! The order of the file is that of arrival, but only within a stream: packets of several interfaces may be written out of
//! order. So a step is where the sequence number of a stream goes on and the time goes back. How long it really was from the
//! one packet to the next, its RTP timestamps say. The first stream that sees a step says how large it is, and all that come
//! later follow. A clock that was set forward is told by
//! what comes behind that ([`super::forward`]).
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use crate::packet::Rtp;

/// Times of a stream that go back by less are only written out of order.
const STEP_US: i64 = 50_000;
/// Two streams that say of one step how large it was differ by less, and less far from it a packet may be by either clock.
const NEAR_US: i64 = 1_000_000;
/// Sequence numbers that advance by no more are the stream going on.
const GOES_ON: u16 = 3000;
/// What is taken for the time between two packets where the stream has not shown its clock rate yet.
const USUAL_US: i64 = 20_000;
/// Longer than any call was silent.
const ELAPSED_MAX_US: i64 = 86_400_000_000;

/// The steps of a capture so far.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// What is to be added to times after the last step, and before it.
    shift_us: i64,
    shift_before_us: i64,
    /// The last time before it, as captured.
    before_us: Option<i64>,
}

/// How far one stream has come.
#[derive(Debug)]
pub(super) struct Progress {
    captured_us: i64,
    mended_us: i64,
    shift_us: i64,
    sequence: u16,
    timestamp: u32,
    /// Time and ticks over which the stream went on steadily.
    steady_us: i64,
    steady_ticks: i64,
}

impl Steps {
    /// Returns when the next packet of a stream was captured, by a clock that was not set back.
    pub(super) fn mend(&mut self, captured_us: i64, rtp: &Rtp<'_>, progress: &mut Option<Progress>) -> i64 {
        let Some(last) = progress else {
            let shift_us =
                if self.is_from_before(captured_us) { self.shift_before_us } else { self.shift_us };
            let mended_us = captured_us.saturating_add(shift_us);
            *progress = Some(Progress {
                captured_us,
                mended_us,
                shift_us,
                sequence: rtp.sequence,
                timestamp: rtp.timestamp,
                steady_us: 0,
                steady_ticks: 0,
            });
            return mended_us;
        };
        let goes_on = (1..=GOES_ON).contains(&rtp.sequence.wrapping_sub(last.sequence));
        let ticks = i64::from(rtp.timestamp.wrapping_sub(last.timestamp));
        let is_back = last.captured_us.saturating_sub(captured_us) >= STEP_US;
        if goes_on && is_back {
            let mended_us = last.mended_us.saturating_add(last.elapsed_us(ticks));
            let shift_us = mended_us.saturating_sub(captured_us);
            if shift_us.abs_diff(self.shift_us) > NEAR_US.unsigned_abs() {
                let before_us = Some(last.captured_us);
                *self = Self { shift_us, shift_before_us: last.shift_us, before_us };
            }
            last.shift_us = self.shift_us;
        } else {
            let expected_us = last.mended_us.saturating_add(last.elapsed_us(ticks));
            let is_near = |shift_us: i64| {
                let mended_us = captured_us.saturating_add(shift_us);
                goes_on && mended_us.abs_diff(expected_us) < NEAR_US.unsigned_abs()
            };
            let is_undone =
                self.before_us.is_some() && is_near(self.shift_before_us) && !is_near(self.shift_us);
            if is_near(last.shift_us) {
                // By the clock that the packet before it was captured by.
            } else if is_undone {
                // The clock was set right again, or a single time was wrong.
                let (shift_us, shift_before_us) = (self.shift_before_us, self.shift_us);
                *self = Self { shift_us, shift_before_us, before_us: Some(last.captured_us) };
                last.shift_us = shift_us;
            } else if !self.is_from_before(captured_us) {
                last.shift_us = self.shift_us;
            }
        }
        let mended_us = captured_us.saturating_add(last.shift_us);
        let us = mended_us.saturating_sub(last.mended_us);
        if goes_on && !is_back && ticks > 0 && (1..NEAR_US).contains(&us) {
            last.steady_us = last.steady_us.saturating_add(us);
            last.steady_ticks = last.steady_ticks.saturating_add(ticks);
        }
        if goes_on || rtp.sequence.wrapping_sub(last.sequence) < u16::MAX / 2 {
            (last.sequence, last.timestamp) = (rtp.sequence, rtp.timestamp);
        }
        (last.captured_us, last.mended_us) = (captured_us, mended_us);
        mended_us
    }

    /// Whether a packet may have been captured before the last step, though it stands behind it in the file.
    fn is_from_before(&self, captured_us: i64) -> bool {
        self.before_us.is_some_and(|before_us| captured_us.abs_diff(before_us) < NEAR_US.unsigned_abs())
    }
}

impl Progress {
    /// How long so many ticks last, by what the stream has shown.
    fn elapsed_us(&self, ticks: i64) -> i64 {
        let us = i128::from(ticks).saturating_mul(self.steady_us.into());
        let us = us.checked_div(self.steady_ticks.into()).and_then(|us| i64::try_from(us).ok());
        us.filter(|us| (0..ELAPSED_MAX_US).contains(us)).unwrap_or(USUAL_US)
    }
}
