//! A sender in real time over a congested link, as captures of mobile uplinks show it.
//!
//! The queue in front of the bottleneck fills for seconds and is worked off in a burst: most of the audio comes more than
//! 0.1 s late, some of it 12 s and more, and the delay returns to its least every 10 to 60 s. Packets grow from 20 to 120 ms
//! as the sender notices; packets are lost in a row; now and then the sender suppresses silence, which its timestamps show.
//! The truth is the timestamp.

use super::random::Random;
use super::{Channel, OPUS_HZ, Packet, Role, WAY_S, ticks};

const LENGTH_S: f64 = 120.0;
/// How long the link stands still.
const STALLS_S: [f64; 7] = [0.6, 1.0, 1.5, 2.4, 4.0, 7.5, 12.5];

/// What a codec says of speech.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Speech {
    Always,
    Random,
    Never,
}

/// Such a channel, of whose packets a share of about `loss` is lost.
pub(crate) fn channel(loss: f64, speech: Speech, random: &mut Random) -> Channel {
    let mut packets: Vec<Packet> = Vec::new();
    let (first_sequence, first_timestamp) = (random.whole(0..60_000), random.bits());
    let (mut media_s, mut number, mut lost) = (0.0, 0, 0);
    let (mut free_s, mut stalled_to_s, mut next_stall_s) = (0.0_f64, 0.0_f64, random.within(2.0..8.0));
    while media_s < LENGTH_S {
        let length_s = packet_s(media_s, random);
        if random.chance(0.002) {
            media_s += random.within(1.0..20.0);
        }
        let sent_s = media_s + length_s;
        if sent_s > next_stall_s {
            stalled_to_s = sent_s + random.pick(&STALLS_S) * random.within(0.8..1.2);
            let pause = if random.chance(0.6) { 0.3..3.0 } else { 10.0..25.0 };
            next_stall_s = stalled_to_s + random.within(pause);
        }
        free_s = free_s.max(sent_s);
        if sent_s <= stalled_to_s || free_s < stalled_to_s {
            free_s = free_s.max(stalled_to_s);
        }
        // What it takes to send it once the link is free.
        free_s += length_s * random.within(0.02..0.1);
        let jitter_s = -0.004 * (1.0 - random.unit()).ln();
        if lost > 0 {
            lost -= 1;
        } else if random.chance(loss / 8.0) {
            lost = if loss > 0.3 { random.pick(&[1, 2, 4, 8, 30]) } else { random.pick(&[1, 2, 4, 12]) };
        } else {
            let earliest_s = packets.last().map_or(0.0, |last| last.arrival_s + 1e-5);
            packets.push(Packet {
                sent_s,
                truth_s: media_s + WAY_S,
                length_s,
                arrival_s: (free_s + WAY_S + jitter_s).max(earliest_s),
                ssrc: 1,
                timestamp: first_timestamp.wrapping_add(ticks(media_s, OPUS_HZ)),
                sequence: u16::try_from((first_sequence + number) & 0xffff).unwrap(),
                clock_hz: OPUS_HZ,
                bytes: 80,
                is_speech: match speech {
                    Speech::Always => true,
                    Speech::Random => random.chance(0.6),
                    Speech::Never => false,
                },
                role: Role::Heard,
                report: None,
            });
        }
        (number, media_s) = (number + 1, media_s + length_s);
    }
    Channel::of(packets)
}

fn packet_s(media_s: f64, random: &mut Random) -> f64 {
    match media_s {
        ..20.0 => 0.02,
        ..45.0 => random.pick(&[0.02, 0.04]),
        ..80.0 => random.pick(&[0.04, 0.06, 0.08]),
        _ => random.pick(&[0.08, 0.1, 0.12]),
    }
}
