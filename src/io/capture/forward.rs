//! The clock of the machine that captured, where it was set forward while it did.
//!
//! That looks like a pause of all that was captured. It is told from one by the RTP timestamps and sequence numbers: each stream
//! goes on as if no time had passed, both directions of a call among them, from the same moment on and by as much. A hold in
//! which the timestamps of either go on with the clock is none, nor is a link that stood still: behind that, the packets
//! come faster than they were spoken until it has caught up. What one direction says alone may be a pause that
//! its timestamps hide, and stays one.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use std::collections::{BTreeMap, HashSet};

use super::streams::RtpStream;
use crate::packet::{Rtp, parse_rtp};

/// A clock that is set by less stays within what placement takes for delay.
const STEP_US: i64 = 1_000_000;
/// What witnesses of one step differ by at most, which is jitter; less than what two sides need to take up a call again.
const SAME_US: i64 = 50_000;
/// A stream that has nothing for longer on either side of a step is no witness.
const NEAR_US: i64 = 1_000_000;
/// How long behind a step it is looked whether packets come in time, and for how long they have to.
const LOOK_US: i64 = 3_000_000;
const SHOWN_US: i64 = 500_000;
/// Sequence numbers that advance by no more are the stream going on.
const GOES_ON: u16 = 3000;

/// How far a stream has come.
#[derive(Default)]
struct Progress {
    /// Its last packet: when it was captured, its number and its timestamp.
    last: Option<(i64, u16, u32)>,
    /// Time and ticks over which it went on steadily.
    steady_us: i64,
    steady_ticks: i64,
}

/// What a stream says of a step.
struct Witness {
    /// How much later its first packet came than its timestamp says.
    late_us: i64,
    /// That packet, and how long others came behind it.
    at_us: i64,
    timestamp: u32,
    shown_us: i64,
}

/// A packet by the time of its capture, its stream, and its place in that.
type Place = (i64, usize, usize);

/// Mends the times of streams of one capture.
pub(super) fn mend(streams: &mut [RtpStream]) {
    let mut order: Vec<Place> = Vec::new();
    for (number, stream) in streams.iter().enumerate() {
        order.extend(stream.packets.iter().enumerate().map(|(place, packet)| (packet.at_us, number, place)));
    }
    order.sort_by_key(|(at_us, ..)| *at_us);
    let mut progress: Vec<Progress> = streams.iter().map(|_| Progress::default()).collect();
    // From when on, and by how much in all.
    let mut steps: Vec<(i64, i64)> = Vec::new();
    let mut before_us: Option<i64> = None;
    for (at, place) in order.iter().enumerate() {
        let (at_us, stream, _) = *place;
        if let Some(before_us) = before_us
            && at_us.saturating_sub(before_us) >= STEP_US
            && let Some(step_us) = step_us(streams, &progress, before_us, order.get(at..).unwrap_or_default())
        {
            let sum_us = steps.last().map_or(0, |(_, sum_us)| *sum_us);
            steps.push((at_us, step_us.saturating_add(sum_us)));
        }
        before_us = Some(at_us);
        if let (Some(rtp), Some(progress)) = (rtp_of(streams, place), progress.get_mut(stream)) {
            progress.advance(at_us, &rtp);
        }
    }
    for packet in streams.iter_mut().flat_map(|stream| &mut stream.packets) {
        let over = steps.partition_point(|(from_us, _)| *from_us <= packet.at_us);
        let step = over.checked_sub(1).and_then(|last| steps.get(last));
        packet.at_us = packet.at_us.saturating_sub(step.map_or(0, |(_, sum_us)| *sum_us));
    }
}

fn rtp_of<'a>(streams: &'a [RtpStream], (_, stream, place): &Place) -> Option<Rtp<'a>> {
    parse_rtp(&streams.get(*stream)?.packets.get(*place)?.payload).ok()
}

/// How far the clock was set forward between the time of the last packet and these, if it was.
fn step_us(streams: &[RtpStream], progress: &[Progress], before_us: i64, behind: &[Place]) -> Option<i64> {
    let (begin_us, ..) = behind.first()?;
    let mut witnesses: BTreeMap<usize, Witness> = BTreeMap::new();
    for place in behind.iter().take_while(|(at_us, ..)| at_us.saturating_sub(*begin_us) < LOOK_US) {
        let (at_us, stream, _) = *place;
        let (Some(rtp), Some(progress)) = (rtp_of(streams, place), progress.get(stream)) else { continue };
        if let Some(witness) = witnesses.get_mut(&stream) {
            let ticks = i64::from(rtp.timestamp.wrapping_sub(witness.timestamp).cast_signed());
            witness.shown_us = at_us.saturating_sub(witness.at_us);
            if witness.shown_us.saturating_sub(progress.elapsed_us(ticks)?) < SAME_US.saturating_neg() {
                return None;
            }
            continue;
        }
        let Some((last_us, sequence, timestamp)) = progress.last else { continue };
        let gone_us = at_us.saturating_sub(last_us);
        let Some(told_us) = progress.elapsed_us(i64::from(rtp.timestamp.wrapping_sub(timestamp))) else {
            continue;
        };
        let late_us = gone_us.saturating_sub(told_us);
        let is_near = at_us.saturating_sub(*begin_us).max(before_us.saturating_sub(last_us)) < NEAR_US;
        if !is_near && late_us >= STEP_US {
            continue;
        }
        // It goes on by other numbers, or has told the time that went by.
        if !(1..=GOES_ON).contains(&rtp.sequence.wrapping_sub(sequence)) || late_us < STEP_US {
            return None;
        }
        witnesses.insert(stream, Witness { late_us, at_us, timestamp: rtp.timestamp, shown_us: 0 });
    }
    let least_us = witnesses.values().map(|witness| witness.late_us).min()?;
    let most_us = witnesses.values().map(|witness| witness.late_us).max()?;
    let is_shown = witnesses.values().all(|witness| witness.shown_us >= SHOWN_US);
    let ways: HashSet<(&str, &str)> =
        witnesses.keys().filter_map(|stream| way(streams.get(*stream)?)).collect();
    let is_both_ways = ways.iter().any(|(from, to)| from != to && ways.contains(&(to, from)));
    (is_shown && is_both_ways && most_us.saturating_sub(least_us) <= SAME_US).then_some(least_us)
}

fn way(stream: &RtpStream) -> Option<(&str, &str)> {
    Some((&stream.source, &stream.destination))
}

impl Progress {
    fn advance(&mut self, at_us: i64, rtp: &Rtp<'_>) {
        if let Some((last_us, sequence, timestamp)) = self.last {
            let us = at_us.saturating_sub(last_us);
            let ticks = i64::from(rtp.timestamp.wrapping_sub(timestamp).cast_signed());
            let number = rtp.sequence.wrapping_sub(sequence);
            if number > u16::MAX / 2 {
                // One that was overtaken.
                return;
            }
            if (1..=GOES_ON).contains(&number) && ticks > 0 && (1..STEP_US).contains(&us) {
                self.steady_us = self.steady_us.saturating_add(us);
                self.steady_ticks = self.steady_ticks.saturating_add(ticks);
            }
        }
        self.last = Some((at_us, rtp.sequence, rtp.timestamp));
    }

    /// How long so many ticks last, by what the stream has shown.
    fn elapsed_us(&self, ticks: i64) -> Option<i64> {
        let us = i128::from(ticks).saturating_mul(self.steady_us.into());
        us.checked_div(self.steady_ticks.into()).and_then(|us| i64::try_from(us).ok())
    }
}
