//! What holds of every placement: nothing is placed later than it can have been heard.
//!
//! The audio of a packet from a sender in real time was over when the packet arrived, so that a later position is wrong,
//! whatever the level; later by its lead only where the sender begins each utterance ahead of what is heard. A packet from a sender in bursts waits in a queue, which plays it behind what came before. Joins of
//! stretches and the smoothing of levels may leave a position some milliseconds too late: it is drawn back, and what is
//! around it with it, at the pace of a clock's drift, which nobody hears. Where more is wrong, no decision about the level
//! was right: the stretch is placed by arrival, and said to be uncertain. Both bounds hold there, too, and packets keep their
//! order and do not overlap: of a sender in real time each ends when it arrived, or earlier, where the next one begins; of a
//! sender in bursts each is where the queue plays it.

use super::level::{SLEW, to_us};
use super::pace::Mode;
use super::stretch::Member;

/// What rounding leaves.
const TOLERANCE_S: f64 = 0.001;
/// What may be put right at the pace of drift: more than joins and the motion of levels leave.
pub(super) const DRAWN_MAX_S: f64 = 0.060;

/// Brings the positions of a stretch to where they can be. `lead_s` is how far ahead of what is heard its sender is.
/// Returns whether no level keeps them there, and they are those of arrival now. Then neither can be trusted: the error is no
/// less than what they differ by.
pub(super) fn hold(
    members: &[Member],
    positions: &mut [f64],
    error_us: &mut [u32],
    mode: Mode,
    lead_s: f64,
) -> bool {
    let worst = match mode {
        Mode::Paced => {
            let late = members.iter().zip(&*positions).map(|(member, at)| lateness(member, *at, lead_s));
            late.fold(f64::NEG_INFINITY, f64::max)
        }
        Mode::Burst => behind_queue(members, positions),
    };
    if worst > DRAWN_MAX_S {
        let by_arrival = match mode {
            Mode::Paced => back_to_back(members),
            Mode::Burst => queued(members),
        };
        for ((at, arrived), error_us) in positions.iter_mut().zip(by_arrival).zip(error_us) {
            *error_us = (*error_us).max(to_us((*at - arrived).abs()));
            *at = arrived;
        }
        return true;
    }
    if worst > TOLERANCE_S && mode == Mode::Paced {
        draw(members, positions, lead_s);
    }
    false
}

/// By how much a packet ends behind its arrival.
fn lateness(member: &Member, at: f64, lead_s: f64) -> f64 {
    at + member.duration() - member.arrival - lead_s
}

/// How much later the latest packet is than a queue plays it.
fn behind_queue(members: &[Member], positions: &[f64]) -> f64 {
    let late = queued(members).into_iter().zip(positions).map(|(played, at)| at - played);
    late.fold(f64::NEG_INFINITY, f64::max)
}

/// Where a queue plays each packet that plays it when it has arrived and what was before is over, with the silence that
/// timestamps show.
fn queued(members: &[Member]) -> Vec<f64> {
    let mut before: Option<(f64, f64)> = None;
    let play = |member: &Member| {
        let arrived = member.arrival - member.duration();
        let played =
            before.map_or(arrived, |(end, media_end)| arrived.max(end + (member.media - media_end).max(0.0)));
        before = Some((played + member.duration(), member.media_end()));
        played
    };
    members.iter().map(play).collect()
}

/// The latest that each packet can be of a sender in real time.
fn back_to_back(members: &[Member]) -> Vec<f64> {
    let mut next = f64::INFINITY;
    let mut latest: Vec<f64> = members
        .iter()
        .rev()
        .map(|member| {
            next = member.arrival.min(next) - member.duration();
            next
        })
        .collect();
    latest.reverse();
    latest
}

/// Draws what is too late to its arrival, and what is around it at the pace of drift.
fn draw(members: &[Member], positions: &mut [f64], lead_s: f64) {
    let late = members.iter().zip(&*positions).map(|(member, at)| lateness(member, *at, lead_s).max(0.0));
    let mut shift: Vec<f64> = late.collect();
    let fade = |from: usize, to: usize| SLEW * (members[to].media - members[from].media).abs();
    for at in (1..shift.len()).rev() {
        shift[at - 1] = shift[at - 1].max(shift[at] - fade(at - 1, at));
    }
    for at in 1..shift.len() {
        shift[at] = shift[at].max(shift[at - 1] - fade(at - 1, at));
    }
    positions.iter_mut().zip(shift).for_each(|(at, shift)| *at -= shift);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of a catch-up burst, which arrive at once, one behind the other.
    fn burst(lengths_ms: &[u32], arrival_s: f64) -> Vec<Member> {
        let mut media = 0.0;
        let member = |(at, ms): (u32, &u32)| {
            let samples = ms * 48;
            let own = media;
            media += f64::from(samples) / 48_000.0;
            Member {
                rx: at,
                media: own,
                arrival: arrival_s,
                samples,
                is_next: true,
                is_speech: None,
                is_behind_pause: false,
                missing: 0,
            }
        };
        (0..).zip(lengths_ms).map(member).collect()
    }

    #[test]
    fn by_arrival_packets_keep_their_order_and_do_not_overlap() {
        let members = burst(&[20, 120, 20, 60, 120, 20], 5.0);
        for mode in [Mode::Paced, Mode::Burst] {
            let mut positions: Vec<f64> = members.iter().map(|member| 9.0 + member.media).collect();
            let mut error_us = vec![3000; members.len()];
            assert!(hold(&members, &mut positions, &mut error_us, mode, 0.0));
            for (at, pair) in positions.windows(2).enumerate() {
                assert!(pair[1] >= pair[0] + members[at].duration() - 1e-9, "{mode:?}: {positions:?}");
            }
            let worst = match mode {
                Mode::Paced => {
                    let late = members.iter().zip(&positions).map(|(member, at)| lateness(member, *at, 0.0));
                    late.fold(f64::NEG_INFINITY, f64::max)
                }
                Mode::Burst => behind_queue(&members, &positions),
            };
            assert!(worst <= 1e-9, "{mode:?}: {worst} s too late: {positions:?}");
            assert!(error_us.iter().all(|error_us| *error_us > 3_900_000), "{mode:?}: {error_us:?}");
        }
    }

    #[test]
    fn what_is_a_little_too_late_is_drawn_back_and_is_no_uncertainty() {
        let members = burst(&[20; 50], 1.05);
        let mut positions: Vec<f64> = members.iter().map(|member| 0.08 + member.media).collect();
        assert!(!hold(&members, &mut positions, &mut [0; 50], Mode::Paced, 0.0));
        let late = members.iter().zip(&positions).map(|(member, at)| lateness(member, *at, 0.0));
        assert!(late.fold(f64::NEG_INFINITY, f64::max) <= 1e-9);
        assert!(positions.is_sorted());
    }
}
