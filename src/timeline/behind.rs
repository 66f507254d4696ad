//! What follows a packet that does not go on from those before it, and whether its sender began anew with it.

use super::looks::Looks;
use super::unwrap::{Builder, COPY_LATE_US, NEAR_US, is_same, sequence_step, timestamp_step};
use super::{Rx, index};

/// So many packets behind one are asked.
const COPIES_ASKED: usize = 64;
/// Packets looked at behind one that does not fit.
const LOOK_AHEAD: usize = 3;
/// Fewer copies in a row are what a link makes.
const RUN_MIN: usize = 8;
/// Numbers from one of them to the next, for what is lost or overtaken.
const RUN_STEP: i16 = 8;
/// A sender that begins anew does so at the first number, of which some may have been lost. If it began before what was
/// heard, a longer run, and no copy this long before, tell it from a link that sends all twice.
const BEGINNING: i64 = 16;
const ALONE_US: i64 = 10_000_000;

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

    /// Whether a sender began anew with a packet that seems to have come before, or to be late. It did if
    /// - what follows goes on from it with what has not come before under these numbers, or
    /// - it begins a run of copies: the same prompt is played again, or
    /// - it never came, is not missing in the middle, and is behind a time without packets, and nothing that follows came
    ///   before or goes on with the old.
    pub(super) fn begins_anew(&self, epoch: &Builder, packet: &Rx, looks: &mut Looks) -> bool {
        let number = epoch.top + i64::from(sequence_step(epoch.top_sequence, packet.sequence));
        let is_copy = epoch.came(number).is_some();
        let (mut fit_old, mut fit_new) = (0, 0);
        let mut run = Run { copies: usize::from(is_copy), last: packet, is_over: false };
        for next in self.next(COPIES_ASKED) {
            let on = i64::from(sequence_step(packet.sequence, next.sequence));
            let came = epoch.came(number + on).filter(|_| on > 0);
            if !looks.take() {
                return false;
            } else if let Some(came) = came {
                if !is_same(&self.packets[index(came.rx)], next) {
                    return true;
                }
                run.push(next);
            } else if (1..100).contains(&i64::from(sequence_step(epoch.top_sequence, next.sequence))) {
                run.is_over = true;
                fit_old += 1;
                if fit_old == LOOK_AHEAD {
                    break;
                }
            } else if on > 0 {
                fit_new += 1;
            }
        }
        let before_us = packet.arrival.0.saturating_sub(epoch.last_arrival_us);
        if is_copy {
            let is_at_beginning = number <= BEGINNING;
            let is_alone =
                epoch.copied_us.is_none_or(|before| packet.arrival.0.saturating_sub(before) > ALONE_US);
            let is_behind_pause = before_us > COPY_LATE_US && fit_old == 0;
            let is_prompt = if run.is_in_real_time(packet) {
                is_at_beginning || (is_alone && run.copies >= COPIES_ASKED / 2)
            } else {
                is_at_beginning && is_behind_pause
            };
            return is_prompt && run.copies >= RUN_MIN;
        }
        let is_new = before_us > NEAR_US && fit_old == 0 && fit_new >= LOOK_AHEAD;
        is_new && !epoch.is_missing(packet)
    }
}

/// Copies that come in the order of their numbers with nothing new between them.
struct Run<'a> {
    copies: usize,
    last: &'a Rx,
    is_over: bool,
}

impl<'a> Run<'a> {
    fn push(&mut self, next: &'a Rx) {
        let on = sequence_step(self.last.sequence, next.sequence);
        self.is_over |= !(-RUN_STEP..=RUN_STEP).contains(&on);
        if !self.is_over {
            self.copies += 1;
            self.last = if on > 0 { next } else { self.last };
        }
    }

    /// Whether it comes, from this packet on, about as fast as it is played. What a network delays varies.
    fn is_in_real_time(&self, first: &Rx) -> bool {
        let ticks = i64::from(timestamp_step(first.timestamp, self.last.timestamp));
        let media_us = ticks.saturating_mul(1_000_000) / i64::from(first.clock_hz);
        2 * self.last.arrival.0.saturating_sub(first.arrival.0) >= media_us
    }
}
