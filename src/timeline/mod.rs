//! Placement: from packets' times to positions on one 48 kHz timeline that both channels share.
//!
//! A pure function over metadata ([`Rx`]); payloads stay in the spool. The stages, each a file:
//!
//! 1. [`unwrap`]: 16-bit sequence numbers and 32-bit timestamps become integers that only grow, within *epochs*:
//!    stretches of one SSRC with one numbering. Duplicates and strays fall out here.
//! 2. [`level`]: how far media time lies from arrival time, for each epoch: the one thing that arrival is asked for.
//! 3. [`place`], here: positions, and the kind of gap in front of each packet.
//!
//! The mux then brings positions to the grid of Opus frames. What this version takes for granted is that a sender's
//! timestamps advance with its clock; pauses that timestamps do not show, drift and delivery in bursts belong
//! into [`level`], whose signature leaves room for them.
//!
//! Invariants: positions of a channel only grow; no packet is placed twice; what is not placed is counted.

pub mod level;
pub mod unwrap;

use crate::time::{Samples48k, Wall};
use unwrap::Epoch;

/// The metadata of one received RTP packet of one channel. 40 bytes: an hour of a call is 7 MB a channel.
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
    /// What it is to the timeline.
    pub kind: RxKind,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The packets that carry audio, in order of their positions.
    pub packets: Vec<Placed>,
    /// What became of the others.
    pub counts: Counts,
}

/// Places the packets of one channel, given in the order of their receipt.
///
/// `origin` is the wall time that position 0 stands for. `clears` are the moments, in order, at which the gateway
/// dropped what it had queued: what is placed after one and had arrived before it is left out.
#[must_use]
pub fn place(packets: &[Rx], origin: Wall, clears: &[Wall]) -> Placement {
    let unwrapped = unwrap::unwrap(packets);
    let mut counts = unwrapped.counts;
    let mut placed: Vec<Candidate> = Vec::with_capacity(packets.len());
    for (number, epoch) in unwrapped.epochs.iter().enumerate() {
        counts.lost += epoch.lost;
        for piece in split_at_clears(epoch, packets, clears) {
            place_piece(piece, epoch, packets, (origin, clears), number, &mut placed, &mut counts);
        }
    }
    // Epochs follow each other, with an overlap at most where a sender changed over: a stable sort keeps the order
    // of sequence numbers wherever positions are equal.
    placed.sort_by_key(|candidate| candidate.placed.at);
    Placement { packets: drop_overlaps(placed, packets, &mut counts), counts }
}

struct Candidate {
    epoch: usize,
    samples: i64,
    placed: Placed,
}

/// Cuts an epoch where the sender's queue was flushed: the level begins anew behind it.
fn split_at_clears<'e>(epoch: &'e Epoch, packets: &[Rx], clears: &[Wall]) -> Vec<&'e [unwrap::Unwrapped]> {
    let mut pieces = Vec::new();
    let mut rest = epoch.packets.as_slice();
    for clear in clears {
        let is_before = |unwrapped: &unwrap::Unwrapped| packets[index(unwrapped.rx)].arrival < *clear;
        let cut = rest.iter().position(|unwrapped| !is_before(unwrapped)).unwrap_or(rest.len());
        let (before, after) = rest.split_at(cut);
        pieces.push(before);
        rest = after;
    }
    pieces.push(rest);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

fn place_piece(
    piece: &[unwrap::Unwrapped],
    epoch: &Epoch,
    packets: &[Rx],
    (origin, clears): (Wall, &[Wall]),
    number: usize,
    placed: &mut Vec<Candidate>,
    counts: &mut Counts,
) {
    let Some(level) = level::of_piece(piece, epoch.clock_hz, packets, origin) else { return };
    let mut previous: Option<(&unwrap::Unwrapped, i64)> = None;
    for unwrapped in piece {
        let rx = &packets[index(unwrapped.rx)];
        let at = level::media_samples(unwrapped.ticks, epoch.clock_hz) + level.0;
        let samples = i64::from(rx.samples);
        if rx.kind == RxKind::Audio {
            let is_cleared = clears
                .iter()
                .any(|clear| rx.arrival < *clear && at >= Samples48k::from_us(clear.0 - origin.0).0);
            if is_cleared {
                counts.cleared += 1;
            } else {
                let gap =
                    previous.map_or(Gap::Pause, |(before, end)| gap_between(before, unwrapped, at - end));
                placed.push(Candidate {
                    epoch: number,
                    samples,
                    placed: Placed { rx: unwrapped.rx, at: Samples48k(at), gap },
                });
            }
        }
        // What carries no audio still says that nothing was lost before it; what was withheld is a pause.
        let end = if rx.kind == RxKind::Beside { previous.map_or(at, |(_, end)| end) } else { at + samples };
        previous = Some((unwrapped, end));
    }
}

fn gap_between(before: &unwrap::Unwrapped, after: &unwrap::Unwrapped, length: i64) -> Gap {
    if before.is_withheld {
        Gap::Pause
    } else if after.sequence - before.sequence > 1 {
        Gap::Loss
    } else if length <= 0 {
        Gap::None
    } else if length <= SUPPRESSED_MAX_SAMPLES {
        Gap::Silence
    } else {
        Gap::Pause
    }
}

/// Drops packets of another epoch that fall into time already taken, by more than half of themselves. Within an
/// epoch nothing is dropped: the mux puts such packets one behind the other.
fn drop_overlaps(placed: Vec<Candidate>, packets: &[Rx], counts: &mut Counts) -> Vec<Placed> {
    let mut kept: Vec<Placed> = Vec::with_capacity(placed.len());
    let mut last: Option<(usize, i64)> = None;
    for candidate in placed {
        let mut placed = candidate.placed;
        match last {
            None => placed.gap = Gap::Start,
            Some((epoch, end)) if epoch != candidate.epoch => {
                if end - placed.at.0 > candidate.samples / 2 {
                    counts.overlapping += 1;
                    continue;
                }
                let is_same_source = kept
                    .last()
                    .is_some_and(|before| packets[index(before.rx)].ssrc == packets[index(placed.rx)].ssrc);
                placed.gap = if is_same_source && placed.gap != Gap::Loss { placed.gap } else { Gap::Pause };
            }
            Some(_) => {}
        }
        last = Some((candidate.epoch, placed.at.0 + candidate.samples));
        kept.push(placed);
    }
    kept
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
            kind: RxKind::Audio,
        }
    }

    fn positions(placement: &Placement) -> Vec<i64> {
        placement.packets.iter().map(|placed| placed.at.0 / 48).collect()
    }

    #[test]
    fn jitter_does_not_move_audio_and_the_fastest_packet_sets_the_level() {
        let packets: Vec<_> = (0..100).map(|n| rx(n, if n == 50 || n == 51 { 10 } else { 35 })).collect();
        let placement = place(&packets, ORIGIN, &[]);
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
        let placement = place(&packets, ORIGIN, &[]);
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
        let placement = place(&packets, ORIGIN, &[]);
        assert_eq!(placement.counts.lost, 0);
        assert_eq!((placement.packets[5].gap, positions(&placement)[5]), (Gap::Silence, 510));
        assert_eq!((placement.packets[8].gap, positions(&placement)[8]), (Gap::Pause, 1570));
    }

    #[test]
    fn a_packet_without_audio_keeps_the_numbering_whole() {
        let mut packets: Vec<_> = (0..10).map(|n| rx(n, 10)).collect();
        packets[4].kind = RxKind::Beside;
        packets[4].timestamp = packets[2].timestamp;
        let placement = place(&packets, ORIGIN, &[]);
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
        let placement = place(&packets, ORIGIN, &[]);
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
        let placement = place(&packets, ORIGIN, &[]);
        assert_eq!(placement.packets.len(), 100);
        assert_eq!(placement.counts.overlapping, 100);
    }

    #[test]
    fn one_bad_timestamp_makes_no_silence() {
        let mut packets: Vec<_> = (0..100).map(|n| rx(n, 10)).collect();
        packets[40].timestamp = packets[40].timestamp.wrapping_add(0x7000_0000);
        let placement = place(&packets, ORIGIN, &[]);
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
        let placement = place(&packets, ORIGIN, &[at(500_000)]);
        assert_eq!(placement.counts.cleared, 75);
        let after = placement.packets.iter().find(|placed| placed.rx >= 100).unwrap();
        assert_eq!((after.gap, after.at.0 / 48), (Gap::Pause, 2780));
    }

    #[test]
    fn an_empty_channel_has_no_placement() {
        assert_eq!(place(&[], ORIGIN, &[]), Placement::default());
    }
}
