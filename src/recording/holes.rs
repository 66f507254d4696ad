//! The stretches of a channel without audio: the first ones one by one, all others by the minute.

use super::ArrangedChannel;
use crate::sound::Audio;
use crate::time::Samples48k;
use crate::timeline::Gap;

/// Stretches without audio that are told one by one: a call that loses more is judged by its counts.
pub const HOLES_MAX: usize = 2000;
/// A stretch of silence shorter than this is the breath between two words: 1 s. A loss is told at any length.
const HOLE_MIN_SAMPLES: i64 = 48_000;
/// A minute, of which others are told: a day of them takes 35 kB.
const MINUTE_SAMPLES: i64 = 60 * 48_000;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MoreHoles {
    /// How many.
    pub count: u64,
    /// How long those are that were lost.
    pub lost: Samples48k,
    /// How long the others are.
    pub silence: Samples48k,
    /// The minutes of the recording that have any, in order.
    pub minutes: Vec<Minute>,
}

/// What is told together of a minute, or of the part of one in which it lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Minute {
    /// Where the first of it begins.
    pub from: Samples48k,
    /// Where the last of it ends.
    pub to: Samples48k,
    /// How much was lost in it.
    pub lost: Samples48k,
    /// How much of it is silence.
    pub silence: Samples48k,
}

impl MoreHoles {
    /// Adds a hole behind all others.
    fn push(&mut self, hole: Hole) {
        self.count += 1;
        *(if hole.is_loss { &mut self.lost.0 } else { &mut self.silence.0 }) += hole.to.0 - hole.from.0;
        let mut from = hole.from.0;
        while from < hole.to.0 {
            let number = from.div_euclid(MINUTE_SAMPLES);
            let to = hole.to.0.min((number + 1) * MINUTE_SAMPLES);
            if self.minutes.last().is_none_or(|last| last.from.0.div_euclid(MINUTE_SAMPLES) != number) {
                self.minutes.push(Minute { from: Samples48k(from), ..Minute::default() });
            }
            if let Some(minute) = self.minutes.last_mut() {
                minute.to = Samples48k(to);
                *(if hole.is_loss { &mut minute.lost.0 } else { &mut minute.silence.0 }) += to - from;
            }
            from = to;
        }
    }
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
    if !hole.is_loss && length < HOLE_MIN_SAMPLES {
        // The breath between two words.
    } else if channel.holes.len() < HOLES_MAX {
        channel.holes.push(hole);
    } else {
        channel.more_holes.push(hole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opus::packet::{Configuration, Shape};
    use crate::sound::Format;

    const PACKET: i64 = 960;

    fn packet(at: i64, gap: Gap) -> Audio {
        let shape = Shape { configuration: Configuration::of_toc(9 << 3), frames: 1 };
        let format = Format::Opus(shape);
        Audio {
            at: Samples48k(at),
            samples: 960,
            format,
            gap,
            missing: u16::from(gap == Gap::Loss),
            noise: None,
            is_quiet: false,
        }
    }

    #[test]
    fn holes_beyond_the_limit_are_told_by_the_minute_and_sum_up_to_all() {
        // Every other packet is lost, of 200 s; then nothing comes for two minutes and a half.
        let lossy: Vec<_> = (0..5000).map(|n| packet(2 * n * PACKET, Gap::Loss)).collect();
        let last = 9999 * PACKET + 150 * 48_000;
        let packets = [lossy, vec![packet(last, Gap::Pause)]].concat();
        let end = Samples48k(last + PACKET);
        let channel = with_holes(ArrangedChannel { packets, ..ArrangedChannel::default() }, end);
        assert_eq!(channel.holes.len(), HOLES_MAX);
        let more = &channel.more_holes;
        let silence = last - 9999 * PACKET;
        assert_eq!((more.count, more.lost.0, more.silence.0), (3000, 2999 * PACKET, silence));
        assert_eq!(more.minutes.iter().map(|minute| minute.lost.0).sum::<i64>(), more.lost.0);
        assert_eq!(more.minutes.iter().map(|minute| minute.silence.0).sum::<i64>(), more.silence.0);
        let shares: Vec<_> = more
            .minutes
            .iter()
            .map(|minute| [minute.from, minute.to, minute.lost, minute.silence].map(|at| at.0 / 48_000))
            .collect();
        // From 80 s on; of the second minute a third is told one by one.
        let expected =
            [[80, 120, 20, 0], [120, 180, 30, 0], [180, 240, 9, 40], [240, 300, 0, 60], [300, 349, 0, 49]];
        assert_eq!(shares, expected);
    }
}
