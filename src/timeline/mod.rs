//! Placement: from packets' times to positions on one 48 kHz timeline that both channels share.
//!
//! A pure function over metadata ([`Rx`]); payloads stay in the spool. The stages, each a file:
//!
//! 1. [`unwrap`]: 16-bit sequence numbers and 32-bit timestamps become integers that only grow, within *epochs*:
//!    stretches of one SSRC with one numbering. Duplicates and strays fall out here.
//! 2. [`stretch`]: media time and arrival time in seconds, by the sender's true tick rate.
//! 3. [`level`]: how far media time lies from arrival time: the one thing that arrival is asked for. It tells a burst
//!    and a delay spike (timestamps are right) from a pause that timestamps do not show (arrival is right).
//! 4. [`reports`]: between which bounds the level lies, where the sender said what its clock was.
//! 5. [`place`], here: positions, joins, and the kind of gap in front of each packet.
//!
//! The mux then brings positions to the grid of Opus frames. Steps of the gateway's clock are taken out before.
//!
//! Invariants: positions of a channel only grow; no packet is placed twice; what is not placed is counted.

mod behind;
mod causality;
mod evidence;
pub mod level;
mod looks;
mod others;
pub mod pace;
pub mod reports;
mod sources;
pub mod stretch;
mod stretches;
pub mod unwrap;

use crate::time::{Samples48k, Wall};
use level::{Levels, SLEW};
use looks::Looks;
use pace::Mode;
pub use reports::Report;
use reports::Reports;
use stretch::Member;
use stretches::{Stretch, Stretches};

/// The metadata of one received RTP packet of one channel. 32 bytes: an hour of 20 ms packets is 6 MB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rx {
    /// When it arrived, by the clock that is best known (the gateway's, else the daemon's).
    pub arrival: Wall,
    /// Synchronisation source.
    pub ssrc: u32,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Ticks of the timestamp in a second. Never zero.
    pub clock_hz: u32,
    /// Audio in it, in samples at 48 kHz; 0 where it is none.
    pub samples: u32,
    /// Sequence number.
    pub sequence: u16,
    /// Bytes of its payload.
    pub bytes: u16,
    /// What tells its payload from another one: most of those that differ have different digests.
    pub digest: u16,
    /// What it is to the timeline.
    pub kind: RxKind,
    /// Whether somebody speaks in it, as far as its codec says.
    pub is_speech: Option<bool>,
}

/// What a packet is to the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxKind {
    /// Audio, to be placed.
    Audio,
    /// Part of the stream without audio of its own: comfort noise, DTMF, padding.
    Beside,
    /// Audio that was not kept because of a PAUSE: its time is silence, it is not lost.
    Withheld,
    /// Audio of a codec that cannot be recorded, or damaged: its time is silence.
    Unusable,
}

/// What is known of who sends a channel, before anything arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Somebody who speaks, sampled by a clock: nothing comes faster than real time but what was held up.
    RealTime,
    /// A gateway that may deliver what it makes itself as fast as it likes, into a queue that plays it.
    Any,
}

/// What lies between a packet and the one before it on the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Nothing, or less than the rounding of timestamps.
    None,
    /// The time before the first packet.
    Start,
    /// Packets that were sent and did not arrive.
    Loss,
    /// The sender suppressed silence: timestamps advance, no sequence number is missing, at most 420 ms.
    Silence,
    /// The stream paused, was withheld, or began anew.
    Pause,
}

/// A sender that suppresses silence (DTX) sends an update of its comfort noise every 400 ms, so a gap between two of
/// its packets is shorter than this. A longer one is a pause: 420 ms.
const SUPPRESSED_MAX_SAMPLES: i64 = 20_160;

/// Two packets closer than this to touching are meant to touch.
const CONTIGUOUS_S: f64 = 0.030;

/// The shortest stretch that tells a drift: jitter of a millisecond over it is 17 ppm.
const DRIFT_SPAN_MIN_S: f64 = 60.0;

/// One packet with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Which packet: an index into the slice given to [`place`].
    pub rx: u32,
    /// Where its audio begins, counted from the origin given to [`place`].
    pub at: Samples48k,
    /// What lies in front of it.
    pub gap: Gap,
    /// How many packets are missing in front of it, if it is behind a loss.
    pub missing: u16,
}

/// What happened to the packets of one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sequence numbers that never arrived.
    pub lost: u64,
    /// Packets that had already arrived.
    pub duplicate: u64,
    /// Packets that arrived after one with a higher number.
    pub reordered: u64,
    /// Packets whose numbers fit nowhere: not placed.
    pub stray: u64,
    /// Packets of another SSRC at a time that was taken: not placed.
    pub overlapping: u64,
    /// AI packets that the gateway dropped before they were heard (CLEAR).
    pub cleared: u64,
}

/// One channel, placed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// The packets that carry audio, in order of their positions.
    pub packets: Vec<Placed>,
    /// What became of the others.
    pub counts: Counts,
    /// How fast the sender's clock runs against the clock of arrival, in parts per million: positive if it is fast.
    /// Told by the longest stretch; 0 where that is shorter than a minute, or delivered in bursts.
    pub drift_ppm: f64,
    /// How far packets may be off their true places, in microseconds: nineteen of twenty are estimated to be no
    /// farther. What all packets have in common, the network's least delay, is not in it.
    pub error_us: i64,
    /// The audio of packets that are left out because another source spoke at the time.
    pub left_out: Samples48k,
    /// How the sender delivered, as far as its packets tell.
    pub mode: Mode,
    /// Whether a stretch is placed by arrival alone, because no level places it where it can have been heard.
    pub is_uncertain: bool,
}

/// Places the packets of one channel, given in the order of their receipt.
///
/// `origin` is the wall time that position 0 stands for. `clears` are the moments, in order, at which the gateway
/// dropped what it had queued: what is placed after one and had arrived before it is left out. `reports` are the
/// senders' reports of the channel, in any order.
#[must_use]
pub fn place(packets: &[Rx], sender: Sender, origin: Wall, clears: &[Wall], reports: &[Report]) -> Placement {
    let mut clears = clears.to_vec();
    clears.sort_unstable();
    let unwrapped = unwrap::unwrap(packets);
    let mut counts = unwrapped.counts;
    let context = Context { packets, origin, clears: &clears };
    let stretches = Stretches::of(unwrapped, &context);
    // A sender delivers in one way for the whole call; a short stretch alone could not tell.
    let mode = stretches.pace.mode(sender, !clears.is_empty());
    let is_one = stretches.count == 1;
    let mut reports = Reports::of(reports, origin);
    let mut placed: Vec<Candidate> = Vec::new();
    let mut of_one: Vec<Placed> = Vec::new();
    let mut end = None;
    let (mut longest, mut drift_ppm) = (DRIFT_SPAN_MIN_S, 0.0);
    let mut errors = Vec::new();
    let mut is_uncertain = false;
    let mut looks = Looks::at(packets.len());
    stretches.for_each(&context, |Stretch { epoch, is_behind_clear, tick_hz, members, mut delays }| {
        if let Some(hz) = tick_hz {
            let knots = reports.knots(&members, hz, packets);
            delays.bound(&knots);
        }
        let mut levels = delays.levels(&members, mode, sender);
        let (span, drift) = levels.drift(&members);
        if mode == Mode::Paced && span >= longest {
            (longest, drift_ppm) = (span, drift * 1e6);
        }
        let mut error_us = std::mem::take(&mut levels.error_us);
        let mut positions = positions(&members, &mut levels, mode);
        let is_by_arrival = causality::hold(&members, &mut positions, &mut error_us, mode, levels.lead_s);
        is_uncertain |= is_by_arrival;
        if is_one {
            errors = error_us
        } else {
            errors.extend(error_us)
        }
        if let Some(before) = end.filter(|_| !is_behind_clear && !is_by_arrival) {
            let overlap_s = join(&members, &mut positions, before, mode, &mut Looks::at(members.len()));
            draw_back_placed(&mut placed, packets, overlap_s, &mut looks);
        }
        of_one.reserve(if is_one { members.len() } else { 0 });
        let push =
            |own| if is_one { of_one.push(own) } else { placed.push(Candidate { epoch, placed: own }) };
        push_stretch(&members, &positions, &levels, &context, &mut counts, push);
        end = members.last().zip(positions.last()).map(|(last, at)| at + last.duration());
    });
    let mut left_out = Samples48k(0);
    let packets = if is_one {
        of_one.sort_by_key(|placed| placed.at);
        if let Some(first) = of_one.first_mut() {
            first.gap = Gap::Start;
        }
        of_one
    } else {
        // Epochs follow each other, with an overlap at most where a sender changed over: a stable sort keeps the order
        // of sequence numbers wherever positions are equal.
        placed.sort_by_key(|candidate| candidate.placed.at);
        sources::one_at_a_time(placed, packets, &mut left_out, &mut counts)
    };
    Placement {
        packets,
        counts,
        drift_ppm,
        error_us: nineteen_of_twenty(errors),
        left_out,
        mode,
        is_uncertain,
    }
}

fn nineteen_of_twenty(mut errors_us: Vec<u32>) -> i64 {
    if errors_us.is_empty() {
        return 0;
    }
    let at = errors_us.len() * 19 / 20;
    i64::from(*errors_us.select_nth_unstable(at).1)
}

struct Candidate {
    epoch: u32,
    placed: Placed,
}

/// What all stretches are placed by.
struct Context<'a> {
    packets: &'a [Rx],
    origin: Wall,
    clears: &'a [Wall],
}

/// The position of each packet of a stretch, in seconds.
fn positions(members: &[Member], levels: &mut Levels, mode: Mode) -> Vec<f64> {
    let mut positions = std::mem::take(&mut levels.level);
    positions.iter_mut().zip(members).for_each(|(position, member)| *position += member.media);
    let mut looks = Looks::at(members.len());
    settle(members, &mut positions, mode, &mut looks);
    for at in (1..members.len()).filter(|at| levels.is_step[*at]) {
        // Timestamps jumped, the audio did not: no seam is to be heard.
        if members[at].is_next {
            let end = positions[at - 1] + members[at - 1].duration();
            let (before, behind) = positions.split_at_mut(at);
            let overlap_s = join(&members[at..], behind, end, mode, &mut looks);
            draw_back_positions(members, before, overlap_s, &mut looks);
        }
    }
    positions
}

/// Hands out the packets of a stretch that were not cleared before they were heard.
fn push_stretch(
    members: &[Member],
    positions: &[f64],
    levels: &Levels,
    context: &Context<'_>,
    counts: &mut Counts,
    mut push: impl FnMut(Placed),
) {
    for (at, member) in members.iter().enumerate() {
        let rx = &context.packets[index(member.rx)];
        let position = to_samples(positions[at]);
        // The first flush after its arrival is the one that may have come before it was heard.
        let flush = context.clears.get(context.clears.partition_point(|clear| *clear <= rx.arrival));
        let is_cleared =
            |clear: &Wall| position >= Samples48k::from_us(clear.0.saturating_sub(context.origin.0));
        if flush.is_some_and(is_cleared) {
            counts.cleared += 1;
            continue;
        }
        let gap = match at.checked_sub(1) {
            None => Gap::Pause,
            Some(_) if member.is_behind_pause || levels.is_step[at] => Gap::Pause,
            Some(before) => gap_between(&members[before], member, positions[at] - positions[before]),
        };
        let missing = u16::try_from(member.missing).unwrap_or(u16::MAX);
        push(Placed { rx: member.rx, at: position, gap, missing });
    }
}

/// Keeps packets that follow each other from overlapping, and smooths what rounding and the level's motion leave
/// between two that are contiguous: they are drawn towards their places by 2 % for each 20 ms.
fn settle(members: &[Member], positions: &mut [f64], mode: Mode, looks: &mut Looks) {
    for at in 1..positions.len() {
        let (own, before) = (&members[at], &members[at - 1]);
        let end = positions[at - 1] + before.duration();
        let is_behind = own.media >= before.media_end() - 1e-6;
        if positions[at] < end - 0.005 && is_behind {
            let overlap_s = end - positions[at];
            if mode == Mode::Paced && overlap_s <= causality::DRAWN_MAX_S {
                draw_back_positions(members, &mut positions[..at], overlap_s, looks);
                continue;
            }
            positions[at] = end;
        }
        let error = positions[at] - end;
        let is_contiguous = own.is_next
            && (own.media - before.media - before.duration()).abs() <= 0.5 * before.duration()
            && error.abs() < CONTIGUOUS_S;
        if is_contiguous {
            positions[at] = end + own.duration().min(1.0) * error;
        }
    }
}

/// Joins a stretch to the end of the one before where they all but touch, and lets the difference fade at the pace of
/// a clock's drift. Where it would have to be later than it arrived, it stays: the one before has to be earlier, by what is
/// returned.
fn join(members: &[Member], positions: &mut [f64], before: f64, mode: Mode, looks: &mut Looks) -> f64 {
    let difference = positions[0] - before;
    if difference.abs() > CONTIGUOUS_S {
        return 0.0;
    }
    if difference < 0.0 && mode == Mode::Paced {
        return -difference;
    }
    let first = members[0].media;
    for (member, position) in members.iter().zip(positions) {
        let left = difference.abs() - SLEW * (member.media - first);
        if left <= 0.0 || !looks.take() {
            break;
        }
        *position -= left.copysign(difference);
    }
    0.0
}

/// Makes the end of a stretch earlier.
fn draw_back_positions(members: &[Member], positions: &mut [f64], by_s: f64, looks: &mut Looks) {
    let backwards = members.iter().zip(positions).rev();
    let span = |(member, position): &(&Member, &mut f64)| (**position, **position + member.duration());
    draw_back(backwards, by_s, looks, span, |(_, position), by_s| *position -= by_s);
}

/// The same, of what is placed already.
fn draw_back_placed(placed: &mut [Candidate], packets: &[Rx], by_s: f64, looks: &mut Looks) {
    let span = |placed: &&mut Placed| {
        let begin = to_seconds(placed.at);
        (begin, begin + f64::from(packets[index(placed.rx)].samples) / 48_000.0)
    };
    let backwards = placed.iter_mut().rev().map(|candidate| &mut candidate.placed);
    draw_back(backwards, by_s, looks, span, |placed, by_s| {
        placed.at = to_samples(to_seconds(placed.at) - by_s)
    });
}

/// Makes the last packets earlier, as far as nothing is between them, at the pace of drift. `span` is from where to where
/// one of them is, `draw` makes it earlier.
fn draw_back<T>(
    backwards: impl Iterator<Item = T>,
    by_s: f64,
    looks: &mut Looks,
    span: impl Fn(&T) -> (f64, f64),
    draw: impl Fn(T, f64),
) {
    let (mut left, mut next): (f64, Option<f64>) = (by_s, None);
    for packet in backwards {
        let (begin, end) = span(&packet);
        left = left_in_front(left, end, begin, next);
        if left <= 0.0 || !looks.take() {
            break;
        }
        next = Some(begin);
        draw(packet, left);
    }
}

/// How much earlier a packet has to be than it is, if the `next` one has to be by `left`: what is between them takes up what
/// it can, and what is contiguous fades.
fn left_in_front(left: f64, end: f64, position: f64, next: Option<f64>) -> f64 {
    match next {
        None => left,
        Some(next) if next - end > CONTIGUOUS_S => left - (next - end),
        Some(next) => left - SLEW * (next - position).max(0.0),
    }
}

fn gap_between(before: &Member, after: &Member, distance: f64) -> Gap {
    let length = to_samples(distance - before.duration()).0;
    if after.missing > 0 {
        Gap::Loss
    } else if length <= 0 {
        Gap::None
    } else if length <= SUPPRESSED_MAX_SAMPLES {
        Gap::Silence
    } else {
        Gap::Pause
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a call's length in samples; the cast saturates")]
fn to_samples(seconds: f64) -> Samples48k {
    Samples48k((seconds * 48_000.0).round() as i64)
}

#[expect(clippy::cast_precision_loss, reason = "a call's length in samples is far below 2^52")]
fn to_seconds(at: Samples48k) -> f64 {
    at.0 as f64 / 48_000.0
}

/// An index out of the 32-bit form in which it is stored.
pub(crate) fn index(rx: u32) -> usize {
    usize::try_from(rx).expect("a usize has at least 32 bits")
}

#[cfg(test)]
mod tests;
