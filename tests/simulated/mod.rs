//! Simulated calls of which the truth is known: what each sender said when, and what the network made of it.
//!
//! [`senders`] make packets, a [`network`] delays, loses and reorders them, [`scenarios`] put both together into
//! calls, one for each difficulty that placement has to master; [`figures`] say how far a placement is from the
//! truth. All of it is drawn from one seeded sequence of [`random`] numbers.
//!
//! Times are seconds since the call began, as real numbers; they become integers where a packet becomes an [`Rx`].
//! The truth of a packet is where its first sample belongs: when it was sent, less its own length, plus the least
//! time that it can take over the network. Where a sender delivers faster than real time, the far end queues, and the
//! truth is when the queue plays the packet.

pub(crate) mod congested;
pub(crate) mod figures;
pub(crate) mod network;
pub(crate) mod random;
pub(crate) mod reports;
pub(crate) mod scenarios;
pub(crate) mod senders;

use std::collections::HashSet;

use sidetape::time::{Samples48k, Wall};
use sidetape::timeline::{self, Placement, Report, Rx, RxKind, Sender};

use reports::{SentReport, Style};

/// The least time that a packet takes over the network.
pub(crate) const WAY_S: f64 = 0.030;
/// The wall time at which each call begins.
pub(crate) const ORIGIN: Wall = Wall(1_767_323_045_000_000);
/// The clock of Opus (RFC 7587): only its packets say whether they hold speech.
pub(crate) const OPUS_HZ: u32 = 48_000;

/// What a packet is to the recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// Audio that the far end heard.
    #[default]
    Heard,
    /// Audio that may be left out: its numbers are damaged, or another sender speaks at the same time.
    Expendable,
    /// Audio that the gateway dropped before anyone heard it.
    Cleared,
    /// No audio: comfort noise, DTMF or padding.
    Beside,
    /// No RTP at all: a sender report.
    Report,
}

/// A packet, and beside it what a receiver cannot know.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Packet {
    pub(crate) sent_s: f64,
    pub(crate) truth_s: f64,
    pub(crate) length_s: f64,
    pub(crate) arrival_s: f64,
    pub(crate) ssrc: u32,
    pub(crate) timestamp: u32,
    pub(crate) sequence: u16,
    pub(crate) clock_hz: u32,
    pub(crate) bytes: u16,
    pub(crate) is_speech: bool,
    pub(crate) role: Role,
    /// What it is a report of, if it is one.
    pub(crate) report: Option<SentReport>,
}

impl Packet {
    /// What the receiver sees of it.
    fn rx(&self) -> Rx {
        let samples = Samples48k::from_us(us(self.length_s)).0;
        let is_beside = self.role == Role::Beside;
        Rx {
            arrival: ORIGIN.plus_us(us(self.arrival_s)),
            ssrc: self.ssrc,
            timestamp: self.timestamp,
            clock_hz: self.clock_hz,
            samples: if is_beside { 0 } else { u32::try_from(samples).unwrap() },
            sequence: self.sequence,
            kind: if is_beside { RxKind::Beside } else { RxKind::Audio },
            bytes: self.bytes,
            digest: digest(self.sent_s),
            is_speech: (self.clock_hz == OPUS_HZ && !is_beside).then_some(self.is_speech),
        }
    }

    /// What two copies of one packet have in common, and no two packets of a channel.
    fn identity(&self) -> (u32, u16, u64) {
        (self.ssrc, self.sequence, self.sent_s.to_bits())
    }
}

/// The packets of one channel in the order of their arrival.
pub(crate) struct Channel {
    pub(crate) sender: Sender,
    pub(crate) packets: Vec<Packet>,
    /// When the gateway dropped what it had queued.
    pub(crate) clears_s: Vec<f64>,
    /// The sender reports, which only a placement with reports looks at.
    pub(crate) reports: Vec<Packet>,
}

impl Channel {
    /// A channel of what came over the network.
    pub(crate) fn of(mut packets: Vec<Packet>) -> Self {
        packets.sort_by(|a, b| a.arrival_s.total_cmp(&b.arrival_s));
        let (reports, packets) = packets.into_iter().partition(|packet| packet.role == Role::Report);
        Self { sender: Sender::Any, packets, clears_s: Vec::new(), reports }
    }

    /// How much later than it arrived a packet was placed, at most, in milliseconds. One that was overtaken counts as
    /// arriving with what overtook it.
    pub(crate) fn lateness_ms(&self, placement: &Placement) -> f64 {
        let packet = |placed: &timeline::Placed| &self.packets[usize::try_from(placed.rx).unwrap()];
        let mut arrival_s = f64::INFINITY;
        let mut latest_s = f64::NEG_INFINITY;
        for placed in placement.packets.iter().rev() {
            arrival_s = arrival_s.min(packet(placed).arrival_s);
            let end_s = f64::from(i32::try_from(placed.at.0).unwrap()) / 48_000.0 + packet(placed).length_s;
            latest_s = latest_s.max(end_s - arrival_s);
        }
        latest_s * 1e3
    }

    /// Places the channel by its packets alone.
    pub(crate) fn place(&self) -> Placement {
        self.place_with(&[])
    }

    /// Places the channel by its packets, and by the reports of a sender of this style.
    pub(crate) fn place_with_reports(&self, style: Style) -> Placement {
        self.place_with(&reports::of(&self.reports, style))
    }

    fn place_with(&self, reports: &[Report]) -> Placement {
        let packets: Vec<Rx> = self.packets.iter().map(Packet::rx).collect();
        let clears: Vec<Wall> = self.clears_s.iter().map(|clear| ORIGIN.plus_us(us(*clear))).collect();
        timeline::place(&packets, self.sender, ORIGIN, &clears, reports)
    }

    /// Whether each packet repeats one that arrived before it.
    pub(crate) fn duplicates(&self) -> Vec<bool> {
        let mut seen = HashSet::new();
        self.packets.iter().map(|packet| !seen.insert(packet.identity())).collect()
    }

    /// Packets that were sent between others of the channel and never arrived. For a sender with one numbering.
    pub(crate) fn lost(&self) -> u64 {
        let mut sent: Vec<Packet> = self.packets.clone();
        sent.sort_by(|a, b| a.sent_s.total_cmp(&b.sent_s));
        sent.dedup_by_key(|packet| packet.identity());
        let steps = sent.windows(2).map(|pair| pair[1].sequence.wrapping_sub(pair[0].sequence));
        steps.map(|step| u64::from(step - 1)).sum()
    }
}

/// Both channels of a call.
pub(crate) struct Call {
    pub(crate) caller: Channel,
    pub(crate) ai: Channel,
}

impl Call {
    pub(crate) fn of(caller: Vec<Packet>, ai: Vec<Packet>) -> Self {
        let caller = Channel { sender: Sender::RealTime, ..Channel::of(caller) };
        Self { caller, ai: Channel::of(ai) }
    }

    pub(crate) fn channels(&self) -> [&Channel; 2] {
        [&self.caller, &self.ai]
    }
}

/// A digest of what a packet says, which no other packet says at that moment.
fn digest(sent_s: f64) -> u16 {
    u16::try_from(us(sent_s).wrapping_mul(0x9e37_79b9) >> 11 & 0xffff).unwrap()
}

/// The nearest whole microsecond.
pub(crate) fn us(seconds: f64) -> i64 {
    nearest(seconds * 1e6)
}

/// A length as a step of RTP timestamps, which wrap.
pub(crate) fn ticks(seconds: f64, clock_hz: u32) -> u32 {
    u32::try_from(nearest(seconds * f64::from(clock_hz)).rem_euclid(1 << 32)).unwrap()
}

/// How many whole packets are in a length.
pub(crate) fn packets_in(seconds: f64, packet_s: f64) -> u32 {
    // A hair more, so that what divides evenly does so in real numbers too.
    u32::try_from(nearest((seconds / packet_s + 1e-6).floor())).unwrap()
}

#[expect(clippy::cast_possible_truncation, reason = "no call lasts longer than an i64 reaches")]
pub(crate) fn nearest(value: f64) -> i64 {
    value.round() as i64
}
