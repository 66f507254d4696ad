//! What holds of every placement: nothing is placed later than it can have been heard.
//!
//! The audio of a packet from a sender in real time was over when the packet arrived, so that a later position is wrong,
//! whatever the level. A packet from a sender in bursts waits in a queue, which plays it behind what came before. Joins of
//! stretches and the smoothing of levels may leave a position some milliseconds too late: it is drawn back, and what is
//! around it with it, at the pace of a clock's drift, which nobody hears. Where more is wrong, no decision about the level
//! was right: the stretch is placed by arrival, and said to be uncertain.

use super::level::SLEW;
use super::pace::Mode;
use super::stretch::Member;

/// What rounding leaves.
const TOLERANCE_S: f64 = 0.001;
/// What may be put right at the pace of drift: more than joins and the motion of levels leave.
pub(super) const DRAWN_MAX_S: f64 = 0.060;

/// Brings the positions of a stretch to where they can be. `lead_s` is how far ahead of what is heard its sender is.
/// Returns whether no level keeps them there, and they are those of arrival now.
pub(super) fn hold(members: &[Member], positions: &mut [f64], mode: Mode, lead_s: f64) -> bool {
    let worst = match mode {
        Mode::Paced => {
            let late = members.iter().zip(&*positions).map(|(member, at)| lateness(member, *at, lead_s));
            late.fold(f64::NEG_INFINITY, f64::max)
        }
        Mode::Burst => behind_queue(members, positions),
    };
    if worst > DRAWN_MAX_S {
        members.iter().zip(positions).for_each(|(member, at)| *at = member.arrival - member.duration());
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

/// How much later the latest packet is than a queue plays it that plays each when it has arrived and what was before is
/// over, with the silence that timestamps show.
fn behind_queue(members: &[Member], positions: &[f64]) -> f64 {
    let mut worst = f64::NEG_INFINITY;
    let mut before: Option<(f64, f64)> = None;
    for (member, at) in members.iter().zip(positions) {
        let arrived = member.arrival - member.duration();
        let played =
            before.map_or(arrived, |(end, media_end)| arrived.max(end + (member.media - media_end).max(0.0)));
        worst = worst.max(at - played);
        before = Some((played + member.duration(), member.media_end()));
    }
    worst
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
