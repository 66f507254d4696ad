//! The stretches of a channel without audio: the first ones one by one, all others together.

use super::ArrangedChannel;
use crate::sound::Audio;
use crate::time::Samples48k;
use crate::timeline::Gap;

/// Stretches without audio that are told one by one: a call that loses more is judged by its counts.
pub const HOLES_MAX: usize = 2000;
/// A stretch of silence shorter than this is the breath between two words: 1 s. A loss is told at any length.
const HOLE_MIN_SAMPLES: i64 = 48_000;

/// A stretch of a channel without audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Whether what was there was sent and got lost.
    pub is_loss: bool,
    /// Where it begins.
    pub from: Samples48k,
    /// Where it ends.
    pub to: Samples48k,
}

/// Stretches without audio that are told together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoreHoles {
    /// How many.
    pub count: u64,
    /// How long those are that were lost.
    pub lost: Samples48k,
    /// How long the others are.
    pub silence: Samples48k,
}

/// Measures the time of a channel without audio, up to the end of the conversation.
pub(super) fn with_holes(mut channel: ArrangedChannel, end: Samples48k) -> ArrangedChannel {
    let packets = std::mem::take(&mut channel.packets);
    let (mut reached, mut before) = (0, 0);
    let behind = packets.iter().map(|packet| (packet.at.0, missing_in(packet), packet.samples));
    for (at, missing, samples) in behind.chain([(end.0, 0, 0)]) {
        // Nobody knows where in a longer gap a packet was: it is told where it is concealed, behind what was heard.
        let lost_to = reached + lost_samples(at - reached, missing, samples.max(before));
        for (is_loss, from, to) in [(true, reached, lost_to), (false, lost_to, at)] {
            add_hole(&mut channel, Hole { is_loss, from: Samples48k(from), to: Samples48k(to) });
        }
        (reached, before) = (reached.max(at + i64::from(samples)), samples);
    }
    ArrangedChannel { packets, ..channel }
}

/// How many packets were lost in the gap in front of one.
fn missing_in(packet: &Audio) -> u16 {
    if packet.gap == Gap::Loss { packet.missing } else { 0 }
}

/// How much of a gap was lost: no more than so many packets. What is left is silence, unless it is shorter than one of them.
fn lost_samples(gap: i64, missing: u16, packet: u32) -> i64 {
    let packet = i64::from(packet);
    let most = i64::from(missing) * packet;
    if missing > 0 && gap - most < packet { gap } else { most }
}

fn add_hole(channel: &mut ArrangedChannel, hole: Hole) {
    let length = hole.to.0 - hole.from.0;
    if length <= 0 {
        return;
    }
    channel.silence.0 += if hole.is_loss { 0 } else { length };
    let more = &mut channel.more_holes;
    if !hole.is_loss && length < HOLE_MIN_SAMPLES {
        // The breath between two words.
    } else if channel.holes.len() < HOLES_MAX {
        channel.holes.push(hole);
    } else {
        more.count += 1;
        let together = if hole.is_loss { &mut more.lost } else { &mut more.silence };
        together.0 += length;
    }
}
