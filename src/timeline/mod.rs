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

mod evidence;
pub mod level;
mod looks;
pub mod pace;
pub mod reports;
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
}

/// Places the packets of one channel, given in the order of their receipt.
///
/// `origin` is the wall time that position 0 stands for. `clears` are the moments, in order, at which the gateway
/// dropped what it had queued: what is placed after one and had arrived before it is left out. `reports` are the
/// senders' reports of the channel, in any order.
#[must_use]
pub fn place(
    packets: &[Rx],
    sender: Sender,
    origin: Wall,
    clears: &[Wall],
    reports: &[Report],
) -> Placement {
    let mut clears = clears.to_vec();
    clears.sort_unstable();
    let unwrapped = unwrap::unwrap(packets);
    let mut counts = unwrapped.counts;
    let context = Context { packets, origin, clears: &clears };
    let stretches = Stretches::of(unwrapped, &context);
    // A sender delivers in one way for the whole call; a short stretch alone could not tell.
    let mode = stretches.pace.mode(sender);
    let is_one = stretches.count == 1;
    let mut reports = Reports::of(reports, origin);
    let mut placed: Vec<Candidate> = Vec::new();
    let mut of_one: Vec<Placed> = Vec::new();
    let mut end = None;
    let (mut longest, mut drift_ppm) = (DRIFT_SPAN_MIN_S, 0.0);
    let mut errors = Vec::new();
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
        let error_us = std::mem::take(&mut levels.error_us);
        if is_one {
            errors = error_us
        } else {
            errors.extend(error_us)
        }
        let before = end.filter(|_| !is_behind_clear);
        of_one.reserve(if is_one { members.len() } else { 0 });
        let push =
            |own| if is_one { of_one.push(own) } else { placed.push(Candidate { epoch, placed: own }) };
        end = Some(place_stretch(&members, levels, before, &context, &mut counts, push));
    });
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
        drop_overlaps(placed, packets, &mut counts)
    };
    Placement { packets, counts, drift_ppm, error_us: nineteen_of_twenty(errors) }
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

/// Gives each packet of a stretch its position; `before` is where the audio that it goes on from ends. Returns where the
/// stretch ends. In seconds.
fn place_stretch(
    members: &[Member],
    levels: Levels,
    before: Option<f64>,
    context: &Context<'_>,
    counts: &mut Counts,
    mut push: impl FnMut(Placed),
) -> f64 {
    let mut positions = levels.level;
    positions.iter_mut().zip(members).for_each(|(position, member)| *position += member.media);
    settle(members, &mut positions);
    let mut looks = Looks::at(members.len());
    for at in (1..members.len()).filter(|at| levels.is_step[*at]) {
        // Timestamps jumped, the audio did not: no seam is to be heard.
        if members[at].is_next {
            let end = positions[at - 1] + members[at - 1].duration();
            join(&members[at..], &mut positions[at..], end, &mut looks);
        }
    }
    if let Some(before) = before {
        join(members, &mut positions, before, &mut looks);
    }
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
        push(Placed { rx: member.rx, at: position, gap });
    }
    let last = members.len() - 1;
    positions[last] + members[last].duration()
}

/// Keeps packets that follow each other from overlapping, and smooths what rounding and the level's motion leave
/// between two that are contiguous: they are drawn towards their places by 2 % a packet.
fn settle(members: &[Member], positions: &mut [f64]) {
    for at in 1..positions.len() {
        let (own, before) = (&members[at], &members[at - 1]);
        let end = positions[at - 1] + before.duration();
        let is_behind = own.media >= before.media_end() - 1e-6;
        if positions[at] < end - 0.005 && is_behind {
            positions[at] = end;
        }
        let error = positions[at] - end;
        let is_contiguous = own.is_next
            && (own.media - before.media - before.duration()).abs() <= 0.5 * before.duration()
            && error.abs() < CONTIGUOUS_S;
        if is_contiguous {
            positions[at] = end + 0.02 * error;
        }
    }
}

/// Joins a stretch to the end of the one before where they all but touch, and lets the difference fade at the pace of
/// a clock's drift.
fn join(members: &[Member], positions: &mut [f64], before: f64, looks: &mut Looks) {
    let difference = positions[0] - before;
    if difference.abs() > CONTIGUOUS_S {
        return;
    }
    let first = members[0].media;
    for (member, position) in members.iter().zip(positions) {
        let left = difference.abs() - SLEW * (member.media - first);
        if left <= 0.0 || !looks.take() {
            break;
        }
        *position -= left.copysign(difference);
    }
}

fn gap_between(before: &Member, after: &Member, distance: f64) -> Gap {
    let length = to_samples(distance - before.duration()).0;
    if after.is_behind_loss {
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

/// Drops packets of another epoch that fall into time already taken, by more than half of themselves. Within an
/// epoch nothing is dropped: the mux puts such packets one behind the other.
fn drop_overlaps(mut candidates: Vec<Candidate>, packets: &[Rx], counts: &mut Counts) -> Vec<Placed> {
    // The epoch of the last one kept, its packet, and where it ends.
    let mut last: Option<(u32, &Rx, i64)> = None;
    candidates.retain_mut(|Candidate { epoch, placed }| {
        let packet = &packets[index(placed.rx)];
        let samples = i64::from(packet.samples);
        match last {
            None => placed.gap = Gap::Start,
            Some((before, _, end)) if before != *epoch && end - placed.at.0 > samples / 2 => {
                counts.overlapping += 1;
                return false;
            }
            Some((before, kept, _)) if before != *epoch => {
                let goes_on = kept.ssrc == packet.ssrc && placed.gap != Gap::Loss;
                placed.gap = if goes_on { placed.gap } else { Gap::Pause };
            }
            Some(_) => {}
        }
        last = Some((*epoch, packet, placed.at.0 + samples));
        true
    });
    candidates.into_iter().map(|candidate| candidate.placed).collect()
}

/// An index out of the 32-bit form in which it is stored.
pub(crate) fn index(rx: u32) -> usize {
    usize::try_from(rx).expect("a usize has at least 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Wall = Wall(1_000_000_000_000);

    /// Packet `n` of 20 ms, arriving `delay_ms` after it was spoken.
    fn rx(n: u16, delay_ms: i64) -> Rx {
        Rx {
            arrival: ORIGIN.plus_us((i64::from(n) * 20 + 20 + delay_ms) * 1000),
            ssrc: 1,
            timestamp: 0xffff_f000_u32.wrapping_add(u32::from(n) * 960),
            clock_hz: 48_000,
            samples: 960,
            sequence: 65_500_u16.wrapping_add(n),
            bytes: 60,
            kind: RxKind::Audio,
            is_speech: None,
        }
    }

    fn positions(placement: &Placement) -> Vec<i64> {
        placement.packets.iter().map(|placed| placed.at.0 / 48).collect()
    }

    #[test]
    fn jitter_does_not_move_audio_and_the_fastest_packet_sets_the_level() {
        let packets: Vec<_> = (0..100).map(|n| rx(n, if n == 50 || n == 51 { 10 } else { 35 })).collect();
        let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
        assert_eq!(positions(&placement), (0..100).map(|n| 10 + n * 20).collect::<Vec<_>>());
        assert_eq!(placement.counts, Counts::default());
        assert!(placement.packets[1..].iter().all(|placed| placed.gap == Gap::None));
        assert_eq!(placement.packets[0].gap, Gap::Start);
    }

    #[test]
    fn loss_reordering_and_duplicates_are_told_apart() {
        let mut packets: Vec<_> = (0..20).map(|n| rx(n, 10)).collect();
        packets.remove(15);
        packets.remove(15);
        packets.swap(4, 5);
        packets.insert(9, packets[8]);
        let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
        let expected = Counts { lost: 2, duplicate: 1, reordered: 1, ..Counts::default() };
        assert_eq!(placement.counts, expected);
        assert_eq!(placement.packets.len(), 18);
        assert_eq!(placement.packets[15].gap, Gap::Loss);
        assert_eq!(positions(&placement)[14..16], [290, 350]);
    }

    #[test]
    fn silence_suppression_is_no_loss() {
        let mut packets: Vec<_> = (0..10).map(|n| rx(n, 10)).collect();
        for packet in &mut packets[5..] {
            packet.timestamp = packet.timestamp.wrapping_add(400 * 48);
            packet.arrival = packet.arrival.plus_us(400_000);
        }
        for packet in &mut packets[8..] {
            packet.timestamp = packet.timestamp.wrapping_add(48_000);
            packet.arrival = packet.arrival.plus_us(1_000_000);
        }
        let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
        assert_eq!(placement.counts.lost, 0);
        assert_eq!((placement.packets[5].gap, positions(&placement)[5]), (Gap::Silence, 510));
        assert_eq!((placement.packets[8].gap, positions(&placement)[8]), (Gap::Pause, 1570));
    }

    #[test]
    fn a_packet_without_audio_keeps_the_numbering_whole() {
        let mut packets: Vec<_> = (0..10).map(|n| rx(n, 10)).collect();
        packets[4].kind = RxKind::Beside;
        packets[4].timestamp = packets[2].timestamp;
        let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
        assert_eq!(placement.counts.lost, 0);
        assert_eq!((placement.packets[4].gap, positions(&placement)[4]), (Gap::Silence, 110));
    }

    #[test]
    fn a_new_ssrc_is_placed_by_its_own_arrival() {
        let mut packets: Vec<_> = (0..10).map(|n| rx(n, 10)).collect();
        for (n, packet) in packets.iter_mut().enumerate().skip(5) {
            packet.ssrc = 2;
            packet.timestamp = 77 + 960 * u32::try_from(n).unwrap();
            packet.sequence = 7 + u16::try_from(n).unwrap();
            packet.arrival = packet.arrival.plus_us(500_000);
        }
        let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
        assert_eq!((placement.packets[5].gap, positions(&placement)[5]), (Gap::Pause, 610));
        assert_eq!(placement.counts, Counts::default());
    }

    #[test]
    fn two_sources_at_once_do_not_double_the_call() {
        let mut packets = Vec::new();
        for n in 0..100 {
            packets.push(rx(n, 10));
            packets.push(Rx { ssrc: 2, ..rx(n, 12) });
        }
        let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
        assert_eq!(placement.packets.len(), 100);
        assert_eq!(placement.counts.overlapping, 100);
    }

    #[test]
    fn one_bad_timestamp_makes_no_silence() {
        let mut packets: Vec<_> = (0..100).map(|n| rx(n, 10)).collect();
        packets[40].timestamp = packets[40].timestamp.wrapping_add(0x7000_0000);
        let placement = place(&packets, Sender::Any, ORIGIN, &[], &[]);
        assert_eq!(positions(&placement).last(), Some(&1990));
        assert_eq!(placement.counts.stray, 1);
    }

    #[test]
    fn what_was_cleared_before_it_was_heard_is_left_out() {
        // Two seconds of speech, delivered at once; cleared half a second later; then the next sentence.
        let at = |us: i64| ORIGIN.plus_us(us);
        let mut packets: Vec<_> =
            (0..100).map(|n| Rx { arrival: at(20_000 + i64::from(n)), ..rx(n, 0) }).collect();
        packets.extend((100..150).map(|n| Rx { arrival: at(800_000 + i64::from(n) * 20_000), ..rx(n, 0) }));
        let placement = place(&packets, Sender::Any, ORIGIN, &[at(500_000)], &[]);
        assert_eq!(placement.counts.cleared, 75);
        let after = placement.packets.iter().find(|placed| placed.rx >= 100).unwrap();
        assert_eq!((after.gap, after.at.0 / 48), (Gap::Pause, 2780));
    }

    #[test]
    fn an_empty_channel_has_no_placement() {
        assert_eq!(place(&[], Sender::Any, ORIGIN, &[], &[]), Placement::default());
    }
}
