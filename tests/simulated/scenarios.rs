//! Calls, one for each difficulty. What a scenario does not say is plain: a caller on a steady microphone, an AI that
//! speaks in real time and shows its pauses, a few milliseconds of jitter.

use std::ops::Range;

use super::network::Network;
use super::random::Random;
use super::senders::{Drift, Microphone, PACKET_S, Pace, Silence, Utterance, Voice};
use super::{Call, Packet, Role, WAY_S, nearest, packets_in, ticks};

/// A scenario of the table.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) play: fn(&mut Random) -> Call,
}

/// Every scenario, with what may vary drawn at random. 13, a stepping wall clock, is not about placement.
pub(crate) const ALL: [Scenario; 35] = [
    Scenario { name: "01 jitter", play: jitter },
    Scenario { name: "02 wraparound", play: wraparound },
    Scenario { name: "03 reordered, duplicated", play: reordered_and_duplicated },
    Scenario { name: "04 loss", play: loss },
    Scenario {
        name: "05 silence suppressed",
        play: |random| silence_suppressed(Silence::Suppressed, 0.01, random),
    },
    Scenario { name: "06 hidden pauses", play: hidden_pauses },
    Scenario { name: "07 bursts, shown pauses", play: |random| bursts(rate(random), random) },
    Scenario {
        name: "08 bursts, hidden pauses",
        play: |random| bursts_with_hidden_pauses(rate(random), random),
    },
    Scenario { name: "09 delay spikes", play: delay_spikes },
    Scenario { name: "10 spikes and pauses", play: spikes_and_hidden_pauses },
    Scenario { name: "11 re-INVITE", play: reinvited },
    Scenario { name: "12 drift, 1 h", play: |random| drift([any_ppm(random), any_ppm(random)], random) },
    Scenario { name: "14 packet lengths", play: packet_lengths },
    Scenario { name: "15 barge-in", play: barge_in },
    Scenario { name: "15b barge-in, flushed", play: barge_in_flushed },
    Scenario { name: "16 wrong clock", play: |random| wrong_clock(random.pick(&WRONG_CLOCKS), random) },
    Scenario { name: "17 late start, backlog", play: late_start_and_backlog },
    Scenario { name: "18 one channel missing", play: one_channel_missing },
    Scenario { name: "19 capture stalls", play: capture_stalls },
    Scenario { name: "20 route change", play: route_change },
    Scenario { name: "21 stale onset", play: stale_onsets },
    Scenario { name: "22 bufferbloat", play: bufferbloat },
    Scenario { name: "23 ahead of time", play: ahead_of_time },
    Scenario { name: "24 long outage", play: |random| outage(random.pick(&[90.0, 700.0, 1320.0]), random) },
    Scenario { name: "25 everything", play: everything },
    Scenario { name: "26 DTMF, padding, damage", play: dtmf_padding_and_damage },
    Scenario { name: "27 slow pacing", play: slow_pacing },
    Scenario { name: "28 SSRC per utterance", play: source_for_each_utterance },
    Scenario { name: "29 timestamp jumps", play: timestamp_jumps },
    Scenario { name: "30 recorder frozen", play: recorder_frozen },
    Scenario { name: "31 jittery timestamps", play: jittery_timestamps },
    Scenario { name: "32 heavy wifi", play: heavy_wifi },
    Scenario { name: "33 drift wanders, 30 min", play: wandering_drift },
    Scenario { name: "34 short call", play: |random| short_call(random.within(0.5..4.0), random) },
    Scenario { name: "35 sources overlap", play: overlapping_sources },
];

/// Ticks that a timestamp grows by each 20 ms, and the clock that was signalled: three ways to get Opus wrong, and
/// G.722 counting its samples where RFC 3551 wants half of them.
pub(crate) const WRONG_CLOCKS: [(u32, u32); 4] = [(160, 48_000), (320, 48_000), (480, 48_000), (320, 8000)];
/// How many times faster than real time bursts arrive.
pub(crate) const RATES: [f64; 4] = [1.5, 3.0, 8.0, 40.0];

fn rate(random: &mut Random) -> f64 {
    random.pick(&RATES)
}

fn any_ppm(random: &mut Random) -> f64 {
    random.within(-200.0..200.0)
}

fn steady(length_s: f64, random: &mut Random) -> Vec<Packet> {
    Network::of_jitter(0.006).carry(&Microphone::of(length_s).send(random), random)
}

fn steady_voice(length_s: f64, random: &mut Random) -> Vec<Packet> {
    let voice = Voice { shows_pauses: true, ..Voice::of(length_s) };
    Network::of_jitter(0.004).carry(&voice.send(random), random)
}

fn pausing_voice(length_s: f64, random: &mut Random) -> Vec<Packet> {
    Network::of_jitter(0.004).carry(&Voice::of(length_s).send(random), random)
}

/// Moments at which a link freezes, and for how long.
fn freezes(length_s: f64, count: u32, each_s: Range<f64>, random: &mut Random) -> Vec<Range<f64>> {
    let freeze = |_| {
        let start_s = random.within(2.0..length_s - 3.0);
        start_s..start_s + random.within(each_s.clone())
    };
    (0..count).map(freeze).collect()
}

pub(crate) fn jitter(random: &mut Random) -> Call {
    Call::of(steady(120.0, random), steady_voice(120.0, random))
}

pub(crate) fn wraparound(random: &mut Random) -> Call {
    let caller = Microphone {
        first_sequence: u16::try_from(65_536 - random.whole(1..2000)).ok(),
        first_timestamp: Some(random.whole(1..48_000 * 60).wrapping_neg()),
        ..Microphone::of(120.0)
    };
    let ai = Voice {
        first_sequence: Some(65_500),
        first_timestamp: Some(4000_u32.wrapping_neg()),
        shows_pauses: true,
        ..Voice::of(120.0)
    };
    let network = Network::of_jitter(0.006);
    Call::of(network.carry(&caller.send(random), random), network.carry(&ai.send(random), random))
}

/// 135 000 packets on each channel.
pub(crate) fn two_wraparounds(random: &mut Random) -> Call {
    let ai = Microphone { ssrc: 2, ..Microphone::of(2700.0) };
    Call::of(steady(2700.0, random), Network::of_jitter(0.004).carry(&ai.send(random), random))
}

pub(crate) fn reordered_and_duplicated(random: &mut Random) -> Call {
    let network = Network { reordering: 0.03, duplication: 0.03, ..Network::of_jitter(0.006) };
    both(120.0, &network, random)
}

pub(crate) fn loss(random: &mut Random) -> Call {
    both(120.0, &Network { loss: 0.03, burst_loss: 0.02, ..Network::of_jitter(0.006) }, random)
}

fn both(length_s: f64, network: &Network, random: &mut Random) -> Call {
    let ai = Voice { shows_pauses: true, ..Voice::of(length_s) };
    let caller = Microphone::of(length_s).send(random);
    Call::of(network.carry(&caller, random), network.carry(&ai.send(random), random))
}

pub(crate) fn silence_suppressed(silence: Silence, loss: f64, random: &mut Random) -> Call {
    let clock_hz = if silence == Silence::Noise { 8000 } else { 48_000 };
    let caller = Microphone { silence, clock_hz, ..Microphone::of(180.0) };
    let network = Network { loss, ..Network::of_jitter(0.008) };
    Call::of(network.carry(&caller.send(random), random), steady_voice(180.0, random))
}

pub(crate) fn hidden_pauses(random: &mut Random) -> Call {
    Call::of(steady(180.0, random), pausing_voice(180.0, random))
}

pub(crate) fn bursts(rate: f64, random: &mut Random) -> Call {
    let ai = Voice { pace: Pace::Burst(rate), shows_pauses: true, ..Voice::of(180.0) };
    Call::of(steady(180.0, random), Network::of_jitter(0.004).carry(&ai.send(random), random))
}

pub(crate) fn bursts_with_hidden_pauses(rate: f64, random: &mut Random) -> Call {
    let pace = if random.chance(0.5) { Pace::Sentences(rate) } else { Pace::Burst(rate) };
    let ai = Voice { pace, pause_s: 2.0..9.0, ..Voice::of(180.0) };
    Call::of(steady(180.0, random), Network::of_jitter(0.004).carry(&ai.send(random), random))
}

pub(crate) fn delay_spikes(random: &mut Random) -> Call {
    let spikes = freezes(180.0, 25, 0.15..1.5, random);
    let network = Network { freezes: spikes, loss: 0.01, ..Network::of_jitter(0.015) };
    let caller = network.carry(&Microphone::of(180.0).send(random), random);
    let network = Network { freezes: freezes(180.0, 10, 0.2..1.2, random), ..Network::of_jitter(0.004) };
    let ai = Voice { shows_pauses: true, ..Voice::of(180.0) };
    Call::of(caller, network.carry(&ai.send(random), random))
}

pub(crate) fn spikes_and_hidden_pauses(random: &mut Random) -> Call {
    let spikes = freezes(180.0, 15, 0.15..0.9, random);
    let network = Network { freezes: spikes, loss: 0.005, ..Network::of_jitter(0.008) };
    let caller = network.carry(&Microphone::of(180.0).send(random), random);
    let network = Network { freezes: freezes(180.0, 20, 0.1..0.8, random), ..Network::of_jitter(0.004) };
    Call::of(caller, network.carry(&Voice::of(180.0).send(random), random))
}

/// PCMU, then Opus of another source, whose timestamps then begin anew, and which then changes to PCMA.
pub(crate) fn reinvited(random: &mut Random) -> Call {
    let narrow = |length_s| Microphone { clock_hz: 8000, ssrc: 11, ..Microphone::of(length_s) };
    let mut caller = narrow(50.0).send(random);
    let start_s = 50.0 + random.within(0.0..0.8);
    let wide = |start_s| Microphone { start_s, ssrc: 12, ..Microphone::of(60.0) };
    caller.extend(wide(start_s).send(random));
    let again = Microphone { first_timestamp: None, ..wide(112.0).after(&caller) };
    caller.extend(again.send(random));
    let last = Microphone { start_s: 173.5, ssrc: 12, ..narrow(50.0) };
    caller.extend(Microphone { first_timestamp: None, ..last.after(&caller) }.send(random));
    Call::of(Network::of_jitter(0.006).carry(&caller, random), steady_voice(220.0, random))
}

/// One hour in which both clocks are off.
pub(crate) fn drift([caller_ppm, ai_ppm]: [f64; 2], random: &mut Random) -> Call {
    let caller = Microphone { drift: Drift::Steady(caller_ppm), ..Microphone::of(3600.0) };
    let network = Network { freezes: freezes(3600.0, 60, 0.1..0.8, random), ..Network::of_jitter(0.008) };
    let caller = network.carry(&caller.send(random), random);
    let ai = Microphone { drift: Drift::Steady(ai_ppm), ssrc: 2, ..Microphone::of(3600.0) };
    Call::of(caller, Network::of_jitter(0.004).carry(&ai.send(random), random))
}

/// Half an hour in which the caller's clock gains and loses by turns.
pub(crate) fn wandering_drift(random: &mut Random) -> Call {
    let swing_ppm = random.within(50.0..150.0);
    let phase = random.within(0.0..std::f64::consts::TAU);
    let drift = Drift::Wandering { mean_ppm: 60.0, swing_ppm, phase };
    let network = Network { loss: 0.01, ..Network::of_jitter(0.008) };
    let caller = Microphone { drift, ..Microphone::of(1800.0) };
    Call::of(network.carry(&caller.send(random), random), steady_voice(1800.0, random))
}

/// The caller's packets become 120 ms and then 40 ms long, the AI's are of 60 ms.
pub(crate) fn packet_lengths(random: &mut Random) -> Call {
    let first = Microphone { packet_s: random.pick(&[0.02, 0.06]), ..Microphone::of(60.0) };
    let mut caller = first.send(random);
    for (start_s, packet_s) in [(60.0, 0.12), (120.0, 0.04)] {
        let next = Microphone { start_s, packet_s, ..Microphone::of(60.0) };
        caller.extend(next.after(&caller).send(random));
    }
    let network = Network { loss: 0.01, ..Network::of_jitter(0.008) };
    let ai = Voice { packet_s: 0.06, ..Voice::of(180.0) };
    Call::of(network.carry(&caller, random), Network::of_jitter(0.004).carry(&ai.send(random), random))
}

/// The caller interrupts again and again: short pieces and short pauses, none of which timestamps show.
pub(crate) fn barge_in(random: &mut Random) -> Call {
    let ai = Voice { utterance_s: 0.25..3.0, pause_s: 0.15..1.5, ..Voice::of(180.0) };
    Call::of(steady(180.0, random), Network::of_jitter(0.004).carry(&ai.send(random), random))
}

/// The same with a voice that delivers eight times faster than real time. What the gateway has not played when the
/// caller interrupts, it drops, and says so.
pub(crate) fn barge_in_flushed(random: &mut Random) -> Call {
    const LENGTH_S: f64 = 180.0;
    const RATE: f64 = 8.0;
    let mut sent: Vec<Packet> = Vec::new();
    let mut clears_s = Vec::new();
    let mut media_s = 0.0;
    let mut start_s = 1.0;
    while start_s < LENGTH_S - 8.0 {
        let length_s = random.within(2.0..6.0);
        // The sender has sent all of it by then.
        let soonest_s = f64::max(0.5, length_s / RATE + 0.1);
        let heard_s = random.within(soonest_s..length_s * 0.9);
        let cut_s = random.chance(0.6).then_some(start_s + heard_s + WAY_S);
        let voice = Voice {
            pace: Pace::Burst(RATE),
            first_sequence: Some(sent.last().map_or(0, |last| last.sequence.wrapping_add(1))),
            first_timestamp: Some(ticks(media_s, 48_000).wrapping_add(12_345)),
            ..Voice::of(LENGTH_S)
        };
        let mut utterance = voice.speak(&[Utterance { start_s, length_s }], random);
        media_s += f64::from(u32::try_from(utterance.len()).unwrap()) * PACKET_S;
        for packet in &mut utterance {
            if cut_s.is_some_and(|cut_s| packet.truth_s >= cut_s) {
                packet.role = Role::Cleared;
            }
        }
        let end_s = utterance.last().unwrap().truth_s + PACKET_S;
        start_s =
            cut_s.map_or(end_s + random.within(0.5..3.0), |cut_s| cut_s - WAY_S + random.within(0.3..1.5));
        clears_s.extend(cut_s);
        sent.extend(utterance);
    }
    let mut call = Call::of(steady(LENGTH_S, random), Network::of_jitter(0.002).carry(&sent, random));
    call.ai.clears_s = clears_s;
    call
}

/// `(ticks, clock_hz)`: what a timestamp grows by with each packet of 20 ms, and the clock that was signalled.
pub(crate) fn wrong_clock((ticks, clock_hz): (u32, u32), random: &mut Random) -> Call {
    let caller = Microphone { ticks_per_packet: Some(ticks), clock_hz, ..Microphone::of(120.0) };
    let network = Network { loss: 0.02, ..Network::of_jitter(0.006) };
    Call::of(network.carry(&caller.send(random), random), steady_voice(120.0, random))
}

/// The caller's beginning arrives all at once; the AI joins later.
pub(crate) fn late_start_and_backlog(random: &mut Random) -> Call {
    let backlog = 0.0..random.within(0.3..2.0);
    let network = Network { freezes: vec![backlog], ..Network::of_jitter(0.006) };
    let caller = network.carry(&Microphone::of(120.0).send(random), random);
    let ai = Voice { start_s: random.within(4.0..20.0), ..Voice::of(120.0) };
    Call::of(caller, Network::of_jitter(0.004).carry(&ai.send(random), random))
}

pub(crate) fn one_channel_missing(random: &mut Random) -> Call {
    let caller = Microphone { start_s: random.within(0.0..5.0), ..Microphone::of(60.0) };
    Call::of(Network::of_jitter(0.006).carry(&caller.send(random), random), Vec::new())
}

pub(crate) fn capture_stalls(random: &mut Random) -> Call {
    let mut stalls: Vec<(f64, f64)> =
        (0..60).map(|_| (random.within(5.0..295.0), random.within(0.04..0.40))).collect();
    stalls.sort_by(|a, b| a.0.total_cmp(&b.0));
    let caller = Microphone { stalls, ..Microphone::of(300.0) };
    Call::of(Network::of_jitter(0.006).carry(&caller.send(random), random), steady_voice(300.0, random))
}

pub(crate) fn route_change(random: &mut Random) -> Call {
    let network = Network { detours: vec![(60.0, 0.045), (150.0, -0.045)], ..Network::of_jitter(0.006) };
    let caller = network.carry(&Microphone::of(240.0).send(random), random);
    Call::of(caller, steady_voice(240.0, random))
}

pub(crate) fn stale_onsets(random: &mut Random) -> Call {
    let ai = Voice { shows_pauses: true, is_stale_at_onset: true, ..Voice::of(180.0) };
    Call::of(steady(180.0, random), Network::of_jitter(0.004).carry(&ai.send(random), random))
}

pub(crate) fn bufferbloat(random: &mut Random) -> Call {
    let queues = vec![(30.0..60.0, 0.3), (100.0..110.0, 0.8), (150.0..153.0, 1.0)];
    let network = Network { queues, ..Network::of_jitter(0.010) };
    let caller = network.carry(&Microphone::of(240.0).send(random), random);
    let network = Network { queues: vec![(60.0..75.0, 0.25)], ..Network::of_jitter(0.004) };
    Call::of(caller, network.carry(&Voice::of(240.0).send(random), random))
}

pub(crate) fn ahead_of_time(random: &mut Random) -> Call {
    let pace = Pace::Ahead(random.within(0.12..0.4));
    let ai = Voice { pace, shows_pauses: random.chance(0.5), ..Voice::of(180.0) };
    Call::of(steady(180.0, random), Network::of_jitter(0.004).carry(&ai.send(random), random))
}

/// The caller is away, sending into the void.
pub(crate) fn outage(away_s: f64, random: &mut Random) -> Call {
    let network = Network { outages: vec![100.0..100.0 + away_s], ..Network::of_jitter(0.006) };
    let caller = network.carry(&Microphone::of(1500.0).send(random), random);
    let ai = Voice { pause_s: 3.0..60.0, ..Voice::of(1500.0) };
    Call::of(caller, Network::of_jitter(0.004).carry(&ai.send(random), random))
}

pub(crate) fn everything(random: &mut Random) -> Call {
    const LENGTH_S: f64 = 600.0;
    let spikes = random.whole(0..40);
    let network = Network {
        jitter_s: random.within(0.002..0.02),
        freezes: freezes(LENGTH_S, spikes, 0.1..1.2, random),
        loss: random.within(0.0..0.05),
        burst_loss: random.within(0.0..0.01),
        reordering: random.within(0.0..0.02),
        duplication: random.within(0.0..0.02),
        ..Network::default()
    };
    let caller = Microphone {
        drift: Drift::Steady(any_ppm(random)),
        silence: if random.chance(0.4) { Silence::Suppressed } else { Silence::Sent },
        clock_hz: random.pick(&[8000, 16_000, 48_000]),
        ..Microphone::of(LENGTH_S)
    };
    let caller = network.carry(&caller.send(random), random);
    let spikes = random.whole(0..15);
    let network = Network {
        jitter_s: random.within(0.001..0.01),
        freezes: freezes(LENGTH_S, spikes, 0.1..0.8, random),
        loss: random.within(0.0..0.01),
        ..Network::default()
    };
    let shows_pauses = random.chance(0.5);
    let rate = random.pick(&[2.0, 5.0, 20.0]);
    let pace = match random.whole(0..4) {
        0 | 1 => Pace::RealTime,
        2 => Pace::Ahead(0.24),
        // A queue that runs dry would contradict timestamps that show the pauses.
        _ if !shows_pauses && random.chance(0.3) => Pace::Sentences(rate),
        _ => Pace::Burst(rate),
    };
    let ai = Voice {
        pace,
        shows_pauses,
        start_s: random.within(0.2..5.0),
        clock_hz: random.pick(&[24_000, 48_000]),
        pause_s: 0.5..8.0,
        ..Voice::of(LENGTH_S)
    };
    Call::of(caller, network.carry(&ai.send(random), random))
}

/// Keys pressed, padding sent, and now and then a timestamp that is damaged.
pub(crate) fn dtmf_padding_and_damage(random: &mut Random) -> Call {
    let mut caller = Vec::new();
    let mut key: Option<Packet> = None;
    let mut key_packets = 0;
    let mut padding: u16 = 0;
    for packet in Microphone::of(120.0).send(random) {
        let mut packet = packet;
        if key_packets == 0 && random.chance(0.002) {
            (key, key_packets) = (Some(packet), 8);
        }
        if key.is_none() && random.chance(0.005) {
            let sequence = packet.sequence.wrapping_add(padding);
            let sent_s = packet.sent_s - 0.001;
            caller.push(Packet { role: Role::Beside, bytes: 0, sequence, sent_s, ..packet });
            padding += 1;
        }
        packet.sequence = packet.sequence.wrapping_add(padding);
        if let Some(pressed) = key {
            packet = Packet { role: Role::Beside, bytes: 4, timestamp: pressed.timestamp, ..packet };
            key_packets -= 1;
            key = key.filter(|_| key_packets > 0);
        } else if random.chance(0.002) {
            packet = Packet { role: Role::Expendable, timestamp: random.bits(), ..packet };
        }
        caller.push(packet);
    }
    Call::of(Network::of_jitter(0.006).carry(&caller, random), steady_voice(120.0, random))
}

/// A voice that sleeps between packets, and so takes 2 to 5 percent longer than its timestamps say.
pub(crate) fn slow_pacing(random: &mut Random) -> Call {
    let slowness = random.within(1.02..1.05);
    let voice = Voice { first_sequence: Some(5), first_timestamp: Some(77), ..Voice::of(180.0) };
    let utterances = voice.utterances(random);
    let mut ai = voice.speak(&utterances, random);
    let mut clock_s: f64 = 0.0;
    let mut packets = ai.iter_mut();
    for utterance in utterances {
        clock_s = clock_s.max(utterance.start_s);
        for packet in packets.by_ref().take(packet_count(utterance)) {
            (packet.sent_s, packet.truth_s) = (clock_s, clock_s - PACKET_S + WAY_S);
            clock_s += PACKET_S * slowness;
        }
    }
    Call::of(steady(180.0, random), Network::of_jitter(0.003).carry(&ai, random))
}

fn packet_count(utterance: Utterance) -> usize {
    usize::try_from(packets_in(utterance.length_s + PACKET_S / 2.0, PACKET_S).max(1)).unwrap()
}

pub(crate) fn source_for_each_utterance(random: &mut Random) -> Call {
    let voice = Voice::of(180.0);
    let mut ai = Vec::new();
    for (ssrc, utterance) in (100..).zip(voice.utterances(random)) {
        ai.extend(Voice { ssrc, ..voice.clone() }.speak(&[utterance], random));
    }
    Call::of(steady(180.0, random), Network::of_jitter(0.003).carry(&ai, random))
}

pub(crate) fn timestamp_jumps(random: &mut Random) -> Call {
    let mut jumps_s: Vec<f64> = (0..5).map(|_| random.within(10.0..170.0)).collect();
    jumps_s.sort_by(f64::total_cmp);
    timestamp_jumps_at(&jumps_s, random)
}

/// A jump right behind another, and one right before the end.
pub(crate) fn timestamp_jumps_in_a_row(random: &mut Random) -> Call {
    timestamp_jumps_at(&[60.0, 60.25, 120.0, 179.8], random)
}

/// Continuous audio whose timestamps jump by half a second to five, ahead or back.
fn timestamp_jumps_at(jumps_s: &[f64], random: &mut Random) -> Call {
    let mut jumps_s = jumps_s.iter().peekable();
    let mut jumped: u32 = 0;
    let mut caller = Microphone::of(180.0).send(random);
    for packet in &mut caller {
        while jumps_s.next_if(|at_s| packet.sent_s >= **at_s).is_some() {
            let jump_s = random.within(0.5..5.0);
            jumped = jumped.wrapping_add(ticks(if random.chance(0.5) { jump_s } else { -jump_s }, 48_000));
        }
        packet.timestamp = packet.timestamp.wrapping_add(jumped);
    }
    Call::of(Network::of_jitter(0.006).carry(&caller, random), steady_voice(180.0, random))
}

/// Both channels are held up at the same time.
pub(crate) fn recorder_frozen(random: &mut Random) -> Call {
    let network =
        Network { freezes: vec![30.0..32.0, 90.0..90.6, 120.0..121.1], ..Network::of_jitter(0.005) };
    let caller = network.carry(&Microphone::of(180.0).send(random), random);
    Call::of(caller, network.carry(&Voice::of(180.0).send(random), random))
}

/// Timestamps from a clock of capture, up to 3 ms off.
pub(crate) fn jittery_timestamps(random: &mut Random) -> Call {
    let mut caller = Microphone::of(120.0).send(random);
    for packet in &mut caller {
        packet.timestamp = packet
            .timestamp
            .wrapping_add_signed(i32::try_from(nearest(random.within(-144.0..144.0))).unwrap());
    }
    Call::of(Network::of_jitter(0.006).carry(&caller, random), steady_voice(120.0, random))
}

pub(crate) fn heavy_wifi(random: &mut Random) -> Call {
    let network = Network {
        freezes: freezes(180.0, 40, 0.1..0.5, random),
        loss: 0.04,
        reordering: 0.02,
        ..Network::of_jitter(0.045)
    };
    let caller = network.carry(&Microphone::of(180.0).send(random), random);
    Call::of(caller, Network::of_jitter(0.020).carry(&Voice::of(180.0).send(random), random))
}

pub(crate) fn short_call(length_s: f64, random: &mut Random) -> Call {
    let voice = Voice::of(length_s + 1.0);
    let ai = Voice { start_s: 0.1, utterance_s: 0.1..0.8, pause_s: 0.2..0.8, ..voice };
    Call::of(steady(length_s, random), Network::of_jitter(0.004).carry(&ai.send(random), random))
}

/// Another source takes over before the first has ended; later the first comes back with its old numbering.
pub(crate) fn overlapping_sources(random: &mut Random) -> Call {
    const HANDOVER_S: Range<f64> = 39.93..40.0;
    let network = Network::of_jitter(0.006);
    let mut first = Microphone::of(40.0).send(random);
    let mut second = Microphone { start_s: HANDOVER_S.start, ssrc: 2, ..Microphone::of(40.0) }.send(random);
    let third = Microphone { start_s: 80.4, ..Microphone::of(40.0) }.after(&first).send(random);
    for packet in first.iter_mut().chain(&mut second) {
        let begins_s = packet.truth_s - WAY_S;
        if begins_s < HANDOVER_S.end && begins_s + packet.length_s > HANDOVER_S.start {
            packet.role = Role::Expendable;
        }
    }
    let mut caller = network.carry(&first, random);
    caller.extend(network.carry(&second, random));
    caller.extend(network.carry(&third, random));
    Call::of(caller, steady_voice(120.0, random))
}
