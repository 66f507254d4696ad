//! Who speaks on a call: a [`Microphone`], sent as it is captured, and a synthesised [`Voice`], sent as its maker likes.

use std::ops::Range;

use super::random::Random;
use super::{OPUS_HZ, Packet, Role, WAY_S, packets_in, ticks};

/// The length of a packet, unless a scenario says otherwise.
pub(crate) const PACKET_S: f64 = 0.02;
/// How often a sender that suppresses silence sends an update of its noise.
const UPDATE_S: f64 = 0.4;

/// What a microphone sends while nobody speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Packets, as ever.
    Sent,
    /// A tiny packet now and then (Opus DTX).
    Suppressed,
    /// Comfort noise now and then (RFC 3389), which is no audio.
    Noise,
}

/// How far a sender's clock is from the true one, in millionths.
#[derive(Clone, Copy)]
pub(crate) enum Drift {
    Steady(f64),
    Wandering { mean_ppm: f64, swing_ppm: f64, phase: f64 },
}

impl Drift {
    fn ppm(self, at_s: f64) -> f64 {
        match self {
            Self::Steady(ppm) => ppm,
            Self::Wandering { mean_ppm, swing_ppm, phase } => {
                mean_ppm + swing_ppm * (at_s / 300.0 + phase).sin()
            }
        }
    }
}

/// A sender that captures all the time and sends at once.
#[derive(Clone)]
pub(crate) struct Microphone {
    pub(crate) start_s: f64,
    pub(crate) length_s: f64,
    pub(crate) packet_s: f64,
    pub(crate) clock_hz: u32,
    /// What a timestamp grows by with each packet, where that is not what the clock says.
    pub(crate) ticks_per_packet: Option<u32>,
    pub(crate) ssrc: u32,
    /// Random if not given.
    pub(crate) first_sequence: Option<u16>,
    /// Random if not given.
    pub(crate) first_timestamp: Option<u32>,
    pub(crate) drift: Drift,
    pub(crate) silence: Silence,
    /// When capture stalls, and for how long: nothing is sent, and timestamps do not show it.
    pub(crate) stalls: Vec<(f64, f64)>,
}

impl Microphone {
    /// An Opus sender with nothing odd about it.
    pub(crate) fn of(length_s: f64) -> Self {
        Self {
            start_s: 0.0,
            length_s,
            packet_s: PACKET_S,
            clock_hz: OPUS_HZ,
            ticks_per_packet: None,
            ssrc: 1,
            first_sequence: None,
            first_timestamp: None,
            drift: Drift::Steady(0.0),
            silence: Silence::Sent,
            stalls: Vec::new(),
        }
    }

    /// This sender, taken up where `before` ended: the numbering goes on.
    pub(crate) fn after(self, before: &[Packet]) -> Self {
        let last = before.last().unwrap();
        Self {
            first_sequence: Some(last.sequence.wrapping_add(1)),
            first_timestamp: Some(last.timestamp.wrapping_add(ticks(last.length_s, last.clock_hz))),
            ..self
        }
    }

    pub(crate) fn send(&self, random: &mut Random) -> Vec<Packet> {
        let turns = turns(self.length_s, random);
        let mut turn = turns.iter().peekable();
        let mut stalls = self.stalls.iter().peekable();
        let mut sequence = self.first_sequence.unwrap_or_else(|| random.whole(0..65_536).try_into().unwrap());
        let first_timestamp = self.first_timestamp.unwrap_or_else(|| random.bits());
        let (mut stalled_s, mut drifted_s) = (0.0, 0.0);
        let mut last_sent_s = f64::MIN;
        let mut was_silent = true;
        let mut sent = Vec::new();
        for number in 0..packets_in(self.length_s, self.packet_s) {
            let media_s = f64::from(number) * self.packet_s;
            drifted_s += self.packet_s * self.drift.ppm(media_s) * 1e-6;
            while let Some((_, length_s)) = stalls.next_if(|(at_s, _)| media_s + stalled_s >= *at_s) {
                stalled_s += length_s;
            }
            while turn.next_if(|turn| media_s >= turn.end_s).is_some() {}
            let is_speech = turn.peek().is_some_and(|turn| turn.is_speech);
            let sent_s = self.start_s + stalled_s + media_s + self.packet_s + drifted_s;
            let is_quiet = !is_speech && self.silence != Silence::Sent;
            if is_quiet && was_silent && sent_s - last_sent_s < UPDATE_S - 1e-6 {
                continue;
            }
            was_silent = !is_speech;
            last_sent_s = sent_s;
            let step = self.ticks_per_packet.map(|ticks| ticks.wrapping_mul(number));
            let is_noise = is_quiet && self.silence == Silence::Noise;
            sent.push(Packet {
                sent_s,
                truth_s: sent_s - self.packet_s + WAY_S,
                length_s: self.packet_s,
                ssrc: self.ssrc,
                timestamp: first_timestamp
                    .wrapping_add(step.unwrap_or_else(|| ticks(media_s, self.clock_hz))),
                sequence,
                clock_hz: self.clock_hz,
                bytes: match (self.clock_hz, is_quiet, is_speech) {
                    (_, true, _) => 3,
                    (OPUS_HZ, false, false) => 20,
                    (OPUS_HZ, false, true) => 80,
                    _ => 160,
                },
                is_speech,
                role: if is_noise { Role::Beside } else { Role::Heard },
                ..Packet::default()
            });
            sequence = sequence.wrapping_add(1);
        }
        sent
    }
}

struct Turn {
    end_s: f64,
    is_speech: bool,
}

/// Speech and silence in turn, as in a conversation.
fn turns(length_s: f64, random: &mut Random) -> Vec<Turn> {
    let mut turns = Vec::new();
    let (mut end_s, mut is_speech) = (0.0, true);
    while end_s < length_s {
        end_s += random.within(if is_speech { 1.0..4.0 } else { 0.5..4.0 });
        turns.push(Turn { end_s, is_speech });
        is_speech = !is_speech;
    }
    turns
}

/// When a voice sends what it has synthesised.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// A packet as soon as the one before it has been played.
    RealTime,
    /// The same, after a beginning of this length at once, so that the far end has something in hand.
    Ahead(f64),
    /// This many times faster than real time.
    Burst(f64),
    /// The same, sentence by sentence, each as soon as it is synthesised.
    Sentences(f64),
}

/// One stretch of synthesised speech.
#[derive(Clone, Copy)]
pub(crate) struct Utterance {
    pub(crate) start_s: f64,
    pub(crate) length_s: f64,
}

/// A sender that has nothing to send between utterances.
#[derive(Clone)]
pub(crate) struct Voice {
    pub(crate) start_s: f64,
    pub(crate) length_s: f64,
    pub(crate) packet_s: f64,
    pub(crate) clock_hz: u32,
    pub(crate) ssrc: u32,
    /// Random if not given.
    pub(crate) first_sequence: Option<u16>,
    /// Random if not given.
    pub(crate) first_timestamp: Option<u32>,
    pub(crate) utterance_s: Range<f64>,
    pub(crate) pause_s: Range<f64>,
    pub(crate) pace: Pace,
    /// Whether timestamps show the pauses. Else an utterance begins where the one before it ended.
    pub(crate) shows_pauses: bool,
    /// Whether the first packet of an utterance carries the timestamp that followed the one before it, although
    /// those behind it show the pause: a sender that adds the elapsed time one packet too late.
    pub(crate) is_stale_at_onset: bool,
}

impl Voice {
    /// A voice that speaks in real time, and whose timestamps stand still while it does not.
    pub(crate) fn of(length_s: f64) -> Self {
        Self {
            start_s: 1.0,
            length_s,
            packet_s: PACKET_S,
            clock_hz: OPUS_HZ,
            ssrc: 2,
            first_sequence: None,
            first_timestamp: None,
            utterance_s: 0.6..6.0,
            pause_s: 0.4..6.0,
            pace: Pace::RealTime,
            shows_pauses: false,
            is_stale_at_onset: false,
        }
    }

    pub(crate) fn send(&self, random: &mut Random) -> Vec<Packet> {
        let utterances = self.utterances(random);
        self.speak(&utterances, random)
    }

    pub(crate) fn utterances(&self, random: &mut Random) -> Vec<Utterance> {
        let mut utterances = Vec::new();
        let mut start_s = self.start_s;
        loop {
            let length_s = random.within(self.utterance_s.clone());
            if start_s + length_s > self.length_s {
                return utterances;
            }
            utterances.push(Utterance { start_s, length_s });
            start_s += length_s + random.within(self.pause_s.clone());
        }
    }

    pub(crate) fn speak(&self, utterances: &[Utterance], random: &mut Random) -> Vec<Packet> {
        let mut sequence = self.first_sequence.unwrap_or_else(|| random.whole(0..65_536).try_into().unwrap());
        let first_timestamp = self.first_timestamp.unwrap_or_else(|| random.bits());
        let mut sent: Vec<Packet> = Vec::new();
        let mut media_s = 0.0;
        // What the far end has queued is played out by then.
        let mut played_s = f64::MIN;
        for utterance in utterances {
            let stale_s = (self.is_stale_at_onset && !sent.is_empty()).then_some(media_s);
            if self.shows_pauses {
                let elapsed_s = utterance.start_s - utterances[0].start_s;
                media_s = (elapsed_s / self.packet_s).round().max((media_s / self.packet_s).round())
                    * self.packet_s;
            }
            let trail_s = if utterance.length_s < 0.6 { 0.0 } else { random.within(0.06..0.25) };
            let free_s = sent.last().map_or(0.0, |last| last.sent_s);
            for (number, sent_s) in (0u32..).zip(self.sending_times(*utterance, free_s, random)) {
                let spoken_s = f64::from(number) * self.packet_s;
                let soonest_s = sent_s - self.packet_s + WAY_S;
                let truth_s = match self.pace {
                    _ if self.shows_pauses => sent.first().map_or(soonest_s, |first| first.truth_s + media_s),
                    Pace::RealTime | Pace::Ahead(_) => utterance.start_s + spoken_s - self.packet_s + WAY_S,
                    Pace::Burst(_) | Pace::Sentences(_) => soonest_s.max(played_s),
                };
                let is_speech = number >= 2 && spoken_s <= utterance.length_s - trail_s;
                let stamped_s = stale_s.filter(|_| number == 0).unwrap_or(media_s);
                sent.push(Packet {
                    sent_s,
                    truth_s,
                    length_s: self.packet_s,
                    ssrc: self.ssrc,
                    timestamp: first_timestamp.wrapping_add(ticks(stamped_s, self.clock_hz)),
                    sequence,
                    clock_hz: self.clock_hz,
                    bytes: if is_speech { 80 } else { 25 },
                    is_speech,
                    ..Packet::default()
                });
                sequence = sequence.wrapping_add(1);
                media_s += self.packet_s;
                played_s = truth_s + self.packet_s;
            }
        }
        sent
    }

    /// When each packet of an utterance is sent, none before `free_s`.
    fn sending_times(&self, utterance: Utterance, free_s: f64, random: &mut Random) -> Vec<f64> {
        let count = packets_in(utterance.length_s + self.packet_s / 2.0, self.packet_s).max(1);
        let mut times = Vec::new();
        match self.pace {
            Pace::RealTime => {
                // A sender's timer fires late, never early.
                let late = |number| f64::from(number) * self.packet_s + 0.002 * random.normal().abs();
                times.extend((0..count).map(late));
            }
            Pace::Ahead(lead_s) => {
                let in_hand = packets_in(lead_s, self.packet_s);
                times.extend((0..count).map(|number| {
                    let paced_s = f64::from(number.saturating_sub(in_hand)) * self.packet_s;
                    paced_s + f64::from(number.min(in_hand)) * 0.0003 + 0.001 * random.normal().abs()
                }));
            }
            Pace::Burst(rate) => {
                times.extend((0..count).map(|number| f64::from(number) * self.packet_s / rate))
            }
            Pace::Sentences(rate) => {
                let (mut left, mut ready_s) = (count, 0.0);
                while left > 0 {
                    let sentence = packets_in(random.within(0.5..2.5), self.packet_s).min(left);
                    let sends = |number| ready_s + f64::from(number) * self.packet_s / rate;
                    times.extend((0..sentence).map(sends));
                    let synthesis_s = random.within(0.05..0.9) * f64::from(sentence) * self.packet_s;
                    ready_s = times.last().unwrap() + synthesis_s;
                    left -= sentence;
                }
            }
        }
        let mut latest_s = free_s;
        for time_s in &mut times {
            latest_s = latest_s.max(utterance.start_s + *time_s);
            *time_s = latest_s;
        }
        times
    }
}
