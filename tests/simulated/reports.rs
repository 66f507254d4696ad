//! Sender reports: every five seconds or so each sender says what its clocks are, over the same network as its packets.
//!
//! They are part of every call; a placement may look at them or not. What a report says depends on the [`Style`] of the
//! sender, which is chosen when a call is placed: the same call, told in another way.

use std::collections::HashMap;

use sidetape::timeline::Report;

use super::random::Random;
use super::{ORIGIN, Packet, Role, ticks, us};

/// How far apart reports are (RFC 3550 section 6.2: five seconds, and half as much again at random).
const INTERVAL_S: std::ops::Range<f64> = 2.5..7.5;

/// How a sender makes up its reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Style {
    /// Extrapolates from the last packet that it sent (pion, libwebrtc).
    Extrapolated,
    /// The same from the end of that packet's audio, which is when it was sent: a clock of capture that runs on.
    Captured,
    /// Counts real time since its first packet, whatever its packets count.
    Running,
    /// Repeats the timestamp of the last packet, however long ago that was.
    Still,
    /// Extrapolates by a wall clock that is stepped by so many seconds every forty.
    Stepping(f64),
    /// Extrapolates by a wall clock that is wrong at random by up to so many seconds.
    Random(f64),
}

/// What the network carries of a report: all that any style needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SentReport {
    first_timestamp: u32,
    since_first_s: f64,
    since_last_s: f64,
    last_length_s: f64,
}

/// Puts a report between packets of a sender wherever one is due.
pub(crate) fn among(sent: &[Packet], random: &mut Random) -> Vec<Packet> {
    let mut sources: HashMap<u32, Source> = HashMap::new();
    let mut all = Vec::with_capacity(sent.len() + 16);
    for packet in sent {
        let next_s = packet.sent_s + random.within(0.5..5.0);
        let source = sources.entry(packet.ssrc).or_insert(Source { first: *packet, last: *packet, next_s });
        while source.next_s < packet.sent_s {
            all.push(source.report(source.next_s));
            source.next_s += random.within(INTERVAL_S);
        }
        if packet.role != Role::Beside {
            source.last = *packet;
        }
        all.push(*packet);
    }
    // Who leaves says so, and a BYE goes behind a report (RFC 3550 section 6.1).
    let mut leaving: Vec<Packet> =
        sources.values().map(|source| source.report(source.last.sent_s + 0.2)).collect();
    leaving.sort_by(|a, b| a.sent_s.total_cmp(&b.sent_s));
    all.extend(leaving);
    all
}

struct Source {
    first: Packet,
    last: Packet,
    next_s: f64,
}

impl Source {
    fn report(&self, sent_s: f64) -> Packet {
        let report = SentReport {
            first_timestamp: self.first.timestamp,
            since_first_s: sent_s - self.first.sent_s,
            since_last_s: sent_s - self.last.sent_s,
            last_length_s: self.last.length_s,
        };
        Packet { role: Role::Report, report: Some(report), sent_s, ..self.last }
    }
}

/// What a receiver sees of the reports of a sender of this style.
pub(crate) fn of(reports: &[Packet], style: Style) -> Vec<Report> {
    let mut random = Random::seeded(7);
    let report = |packet: &Packet| {
        let sent = packet.report.unwrap();
        let after = |timestamp: u32, s: f64| timestamp.wrapping_add(ticks(s, packet.clock_hz));
        let timestamp = match style {
            Style::Captured => after(packet.timestamp, sent.since_last_s + sent.last_length_s),
            Style::Running => after(sent.first_timestamp, sent.since_first_s),
            Style::Still => packet.timestamp,
            _ => after(packet.timestamp, sent.since_last_s),
        };
        let wrong_s = match style {
            Style::Stepping(step_s) => step_s * (packet.sent_s / 40.0).floor(),
            Style::Random(most_s) => random.within(-most_s..most_s),
            _ => 0.0,
        };
        Report {
            arrival: ORIGIN.plus_us(us(packet.arrival_s)),
            ssrc: packet.ssrc,
            ntp: ntp(packet.sent_s + wrong_s),
            timestamp,
        }
    };
    reports.iter().map(report).collect()
}

/// A moment as a sender's wall clock shows it, which need not be right: this one is five hours fast.
fn ntp(at_s: f64) -> u64 {
    let us = i128::from(us(at_s)) + 3_976_329_600_000_000;
    u64::try_from((us << 32) / 1_000_000).unwrap()
}
