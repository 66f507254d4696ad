//! Sender reports as evidence: what a sender says of its clock is free of the network's delay.
//!
//! A report says that the moment `ntp` of the sender's wall clock is a media time. The difference of the two, its
//! *base*, stands still while timestamps run with the clock, and jumps by exactly the length of a pause that timestamps
//! hide. What it does not say is how the sender's wall clock and the clock of arrival differ: that one number is what
//! the lowest envelope of all reports leaves over ([`bounds`]). Then the level is known at each report, and between
//! two of them it lies between both.
//!
//! Reports are hearsay; what cannot be is not believed. A single one is left out where its media time is not the one
//! that the last packet before it leads to (`APART_S`), all of a source where that is so for many, or where its clock
//! runs away from that of arrival (`RUNAWAY_S`). Where the sender's clock may have stepped, reports before and after
//! say nothing about each other (`NEIGHBOURS`). Limit: 48 bytes a report.

use std::collections::HashMap;

use super::level::SLEW;
use super::stretch::Member;
use super::{Rx, index};
use crate::time::Wall;

/// How far a report's media time may be from where the last packet before it leads to: jitter. A sender that goes on
/// counting in its reports through a pause that its packets hide is farther off, as is one that stands still.
const APART_S: f64 = 0.150;
/// A report this long behind the last packet is still about it: the one that goes with a BYE (RFC 3550 section 6.1).
const BEHIND_S: f64 = 10.0;
/// A sender's clock that goes by more than this against arrival from one report to the next is set, not slewed; no
/// stall that a call survives is as long.
const RUNAWAY_S: f64 = 10.0;
/// How many reports behind and in front of one tell whether the sender's clock stepped there: a minute at the usual
/// pace, longer than queues stay full.
const NEIGHBOURS: usize = 12;
/// A change of the least delay of reports by this much is a step of the sender's clock.
const CLOCK_STEP_S: f64 = 0.060;
/// One in so many reports may be unfit before none is believed.
const UNFIT_ONE_IN: usize = 4;
/// A base that falls by this, or a report that took longer than the fastest ones by it, shows that its times are not
/// taken with care: twice the lateness of a timer.
const CARELESS_S: f64 = 0.020;
/// This share of reports, eleven in twenty, takes hardly longer than the fastest: nine in ten do on a common network,
/// and a third where the sender's clock is read with an error of 30 ms.
const NEAR_OF_20: usize = 11;
/// One in so many may have such a base: falls are noise or a clock set back.
const FALLS_ONE_IN: usize = 8;

/// One sender report of a channel, as it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// When it arrived, by the clock of the packets' arrivals.
    pub arrival: Wall,
    /// Whose packets it is about.
    pub ssrc: u32,
    /// The moment, in units of 2^-32 s of the sender's wall clock. 0 where it has none.
    pub ntp: u64,
    /// The media time of that moment, in ticks of the packets' timestamps.
    pub timestamp: u32,
}

/// The reports of a channel by source, each handed out once.
#[derive(Debug, Default)]
pub struct Reports {
    sources: HashMap<u32, Source>,
}

#[derive(Debug, Default)]
struct Source {
    heard: Vec<Heard>,
    next: usize,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    arrival: f64,
    /// Since the source's first report.
    ntp: f64,
    timestamp: u32,
}

/// A report in its place among the packets of a stretch.
#[derive(Clone, Copy, Debug)]
pub struct Knot {
    /// How many packets of the stretch had arrived before it.
    pub at: usize,
    /// When it was sent, by the sender's clock.
    ntp: f64,
    /// That moment less its media time.
    base: f64,
    /// How long it took to arrive, but for a constant.
    delay: f64,
}

impl Reports {
    /// Sorts the reports by source and arrival. Times are in seconds from `origin`.
    #[must_use]
    pub fn of(reports: &[Report], origin: Wall) -> Self {
        let mut by_source: HashMap<u32, Vec<&Report>> = HashMap::new();
        for report in reports.iter().filter(|report| report.ntp != 0) {
            by_source.entry(report.ssrc).or_default().push(report);
        }
        let mut sources = HashMap::new();
        for (ssrc, mut reports) in by_source {
            reports.sort_by_key(|report| report.arrival);
            let first = reports[0].ntp;
            let heard = |report: &&Report| Heard {
                arrival: real(report.arrival.0.saturating_sub(origin.0)) / 1e6,
                ntp: real(report.ntp.wrapping_sub(first).cast_signed()) / 4_294_967_296.0,
                timestamp: report.timestamp,
            };
            let heard: Vec<Heard> = reports.iter().map(heard).collect();
            let is_runaway = |pair: &[Heard]| {
                (pair[1].arrival - pair[0].arrival - pair[1].ntp + pair[0].ntp).abs() > RUNAWAY_S
            };
            if !heard.windows(2).any(is_runaway) {
                sources.insert(ssrc, Source { heard, next: 0 });
            }
        }
        Self { sources }
    }

    /// The knots of a stretch whose timestamps tick at `tick_hz`: none where its sender was wrong about that, and may
    /// be in its reports. Stretches are to be asked for in their order.
    #[must_use]
    pub fn knots(&mut self, members: &[Member], tick_hz: f64, packets: &[Rx]) -> Vec<Knot> {
        let (Some(first), Some(last)) = (members.first(), members.last()) else { return Vec::new() };
        let packet = &packets[index(first.rx)];
        let Some(source) = self.sources.get_mut(&packet.ssrc) else { return Vec::new() };
        if (tick_hz - f64::from(packet.clock_hz)).abs() > 1.0 {
            return Vec::new();
        }
        let (mut knots, mut unfit, mut captured) = (Vec::new(), 0, 0);
        let end = last.arrival + BEHIND_S;
        while let Some(heard) = source.heard.get(source.next).filter(|heard| heard.arrival <= end) {
            source.next += 1;
            let at = members.partition_point(|member| member.arrival <= heard.arrival);
            let Some(before) = at.checked_sub(1).map(|before| &members[before]) else { continue };
            let ticks = heard.timestamp.wrapping_sub(packets[index(before.rx)].timestamp).cast_signed();
            let media = before.media + f64::from(ticks) / tick_hz;
            let apart = (media - before.media) - (heard.arrival - before.arrival);
            // One that repeats the last packet's timestamp, whenever that was, says nothing of the moment.
            if ticks != 0 && (-APART_S..before.duration() + APART_S).contains(&apart) {
                let (base, delay) = (heard.ntp - media, heard.arrival - heard.ntp);
                captured += usize::from(apart > before.duration() / 2.0);
                knots.push(Knot { at, ntp: heard.ntp, base, delay });
            } else {
                unfit += 1;
            }
        }
        // Where packets differ in length, it matters which end of one a report means.
        let is_even = members.iter().all(|member| (member.duration() - first.duration()).abs() < 0.001);
        let is_plain = is_even || captured * 5 <= knots.len() || captured * 5 >= knots.len() * 4;
        if captured * 2 < knots.len() {
            // The media time that goes with a moment is that of the packet sent then, whose audio ends there.
            knots.iter_mut().for_each(|knot| knot.base -= members[knot.at - 1].duration());
        }
        let is_fit = unfit * UNFIT_ONE_IN <= knots.len() + unfit;
        if is_fit && is_plain && are_careful(&knots) { knots } else { Vec::new() }
    }
}

/// Whether the times in reports agree with each other well enough to correct arrivals by them.
fn are_careful(knots: &[Knot]) -> bool {
    let falls = knots.windows(2).filter(|pair| pair[1].base < pair[0].base - CARELESS_S).count();
    let least = lowest(knots, |knot| knot.delay);
    let near = knots.iter().zip(&least).filter(|(knot, least)| knot.delay - **least < CARELESS_S).count();
    knots.len() >= 2 && falls * FALLS_ONE_IN <= knots.len() && near * 20 >= knots.len() * NEAR_OF_20
}

/// What reports say of the level of a run of packets.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The level is no lower.
    pub low: f64,
    /// The level is no higher.
    pub high: f64,
    /// How long the network held up the report before, and the one behind.
    pub queues: [f64; 2],
}

impl Bounds {
    /// What is known without reports.
    pub const NONE: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY, queues: [0.0; 2] };

    /// Whether there is a report on both sides.
    #[must_use]
    pub fn are_closed(&self) -> bool {
        self.low.is_finite() && self.high.is_finite()
    }
}

/// The bounds of each packet's level, by the envelope of their delays; none at all where there are no knots. Where
/// timestamps fell back (`is_barrier`), the level may do what it likes.
#[must_use]
pub fn bounds(knots: &[Knot], envelope: &[f64], is_barrier: &[bool]) -> Vec<Bounds> {
    if knots.is_empty() {
        return Vec::new();
    }
    let mut bounds = vec![Bounds::NONE; envelope.len()];
    let is_cut: Vec<bool> = (0..knots.len()).map(|at| is_cut_before(knots, at, is_barrier)).collect();
    let mut start = 0;
    while start < knots.len() {
        let end = (start + 1..knots.len()).find(|at| is_cut[*at]).unwrap_or(knots.len());
        if end - start >= 2 {
            bound_run(&knots[start..end], envelope, &mut bounds);
        }
        start = end;
    }
    bounds
}

/// Whether a knot and the one before it say nothing about each other.
fn is_cut_before(knots: &[Knot], at: usize, is_barrier: &[bool]) -> bool {
    let Some(before) = at.checked_sub(1) else { return true };
    let least = |range: std::ops::Range<usize>| {
        knots[range].iter().map(|knot| knot.delay).fold(f64::INFINITY, f64::min)
    };
    let change = least(at..(at + NEIGHBOURS).min(knots.len())) - least(at.saturating_sub(NEIGHBOURS)..at);
    change.abs() > CLOCK_STEP_S
        || knots[at].base < knots[before].base - CLOCK_STEP_S
        || is_barrier[knots[before].at..knots[at].at].contains(&true)
}

fn bound_run(run: &[Knot], envelope: &[f64], bounds: &mut [Bounds]) {
    // What the level is above the base: the same for all knots of a run, but for the drift of two clocks.
    let above: Vec<f64> = lowest(run, |knot| envelope[knot.at - 1] - knot.base);
    let least_delay = lowest(run, |knot| knot.delay);
    let level = |at: usize| run[at].base + above[at];
    for at in 1..run.len() {
        let queue = |at: usize| run[at].delay - least_delay[at];
        let (before, own) = (level(at - 1), level(at));
        let known =
            Bounds { low: before.min(own), high: before.max(own), queues: [queue(at - 1), queue(at)] };
        bounds[run[at - 1].at..run[at].at].fill(known);
    }
}

/// The lower envelope of something on both sides, which may rise and fall at the pace of drift.
fn lowest(run: &[Knot], of: impl Fn(&Knot) -> f64) -> Vec<f64> {
    let mut lowest: Vec<f64> = run.iter().map(of).collect();
    let reach = |from: usize, to: usize| SLEW * (run[to].ntp - run[from].ntp).abs();
    for at in 1..run.len() {
        lowest[at] = lowest[at].min(lowest[at - 1] + reach(at - 1, at));
    }
    for at in (1..run.len()).rev() {
        lowest[at - 1] = lowest[at - 1].min(lowest[at] + reach(at - 1, at));
    }
    lowest
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds of a call are far below 2^52, and a clock's 2^-32 s below it"
)]
fn real(count: i64) -> f64 {
    count as f64
}
