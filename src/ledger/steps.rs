//! Steps of the gateway's clock: where it was set in mid-call, and by how much.
//!
//! The time from its stamp to receipt changes at one packet and stays changed. Steps are not looked for across a restart of the
//! daemon. Limit: two steps within a second are not told apart. Within half a second of the beginning or the end, a step is
//! seen where no socket can explain it: stamps from the future, times that no stall lasts, or a latency that stays while
//! packets keep their pace.

use super::Payload;
use crate::time::Wall;
use crate::timeline::Rx;

/// A change of the least latency by less is jitter, or a slower socket.
const STEP_US: i64 = 60_000;
/// So much more for each second without a packet, in millionths: one clock may run faster than the other.
const STEP_PPM: i64 = 20_000;
/// Latencies of neighbours closer than this have no step between them.
const NEIGHBOURS_US: i64 = 30_000;
/// The stretch on both sides that a step is judged by: so many packets, and so long. A socket that stalls for longer is
/// not taken for a step either, because all that it held up comes at once.
const WINDOW_PACKETS: usize = 50;
const WINDOW_US: i64 = 2_000_000;
/// More packets than this are not looked at.
const WINDOW_PACKETS_MAX: usize = 400;
/// What is enough at the ends of a call.
const END_PACKETS: usize = 20;
const END_US: i64 = 500_000;
/// No socket stalls for longer: a minute.
const STALL_MAX_US: i64 = 60_000_000;
/// So many packets, stamped over such a time, show their pace at an end.
const PACE_PACKETS: usize = 3;
const PACE_US: i64 = 30_000;
/// The least latencies of both halves of such a stretch differ by less where both clocks are those of real time.
const HALVES_US: i64 = 20_000;
/// So close to a step, a stamp may be by the clock from before it or after it, whatever the order of receipt.
const NEAR_STEP_US: i64 = 500_000;

/// A packet with a time of the gateway's.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    /// Its place in the file: the order of receipt over both channels.
    pub(super) offset: u64,
    received: i64,
    /// From the gateway's time to receipt, plus what the clocks differ by.
    latency: i64,
    ssrc: u32,
}

impl Stamp {
    pub(super) fn of(rx: &Rx, payload: &Payload) -> Option<Self> {
        payload.has_gateway_time.then(|| Self {
            ssrc: rx.ssrc,
            offset: payload.offset,
            received: payload.received.0,
            latency: payload.received.0.saturating_sub(rx.arrival.0),
        })
    }
}

/// The gateway's clock was set.
pub(super) struct Step {
    /// When the first packet stamped after it was received.
    received: i64,
    /// What is to be added to the gateway's times from there on.
    shift_us: i64,
    /// The least latency around it, by the clock as it was at first.
    least_us: i64,
}

/// Whether packets of different senders that were received one after the other, in the order of receipt, took as long as each
/// other, but for one in ten.
pub(super) fn are_by_one_clock(stamps: &[Stamp]) -> bool {
    let (mut pairs, mut apart) = (0_usize, 0_usize);
    for pair in stamps.windows(2) {
        let is_pair = pair[0].ssrc != pair[1].ssrc
            && pair[1].received.saturating_sub(pair[0].received).saturating_abs() <= NEAR_STEP_US;
        pairs += usize::from(is_pair);
        let apart_us = pair[1].latency.saturating_sub(pair[0].latency).saturating_abs();
        apart += usize::from(is_pair && apart_us > STEP_US);
    }
    apart * 10 <= pairs
}

/// Finds where the gateway's clock was set, in packets in the order of receipt.
pub(super) fn find_steps(stamps: &[Stamp], restarted_at: &[u64]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut latencies: Vec<i64> = stamps.iter().map(|stamp| stamp.latency).collect();
    let mut start = 0;
    let mut shift_us: i64 = 0;
    let ends = restarted_at.iter().map(|offset| stamps.partition_point(|stamp| stamp.offset < *offset));
    for end in ends.chain([stamps.len()]) {
        let (own, run) = (&mut latencies[start..end], &stamps[start..end]);
        // Shifted no farther ahead than one looks, so that many steps do not each go through the whole call.
        let mut shifted = 0;
        for at in 1..run.len() {
            let ahead = run.len().min(at + WINDOW_PACKETS_MAX);
            own[shifted..ahead].iter_mut().for_each(|latency| *latency = latency.saturating_sub(shift_us));
            shifted = ahead;
            if own[at].saturating_sub(own[at - 1]).saturating_abs() <= NEIGHBOURS_US {
                continue;
            }
            let Some((least_us, change_us)) = step_at(run, own, at) else { continue };
            shift_us = shift_us.saturating_add(change_us);
            own[at..shifted].iter_mut().for_each(|latency| *latency = latency.saturating_sub(change_us));
            steps.push(Step { received: run[at].received, shift_us, least_us });
        }
        start = end;
    }
    steps
}

/// The least latency in front of a packet, and by how much it is another from there on, if it is.
fn step_at(run: &[Stamp], latencies: &[i64], at: usize) -> Option<(i64, i64)> {
    let first = run[..at].iter().rev().take(WINDOW_PACKETS_MAX);
    let before = window(run[at - 1].received, first).map(|count| at - count);
    let behind = window(run[at].received, run[at..].iter().take(WINDOW_PACKETS_MAX)).map(|count| at + count);
    let (least_us, behind_us, behind) = match (before, behind) {
        (Some(before), Some(behind)) => {
            (steady_least(&latencies[before..at])?, steady_least(&latencies[at..behind])?, behind)
        }
        (Some(before), None) => {
            let least_us = steady_least(&latencies[before..at])?;
            (least_us, least_at_end(&run[at..], &latencies[at..], least_us)?, run.len())
        }
        (None, Some(behind)) => {
            let behind_us = steady_least(&latencies[at..behind])?;
            (least_at_end(&run[..at], &latencies[..at], behind_us)?, behind_us, behind)
        }
        (None, None) => return None,
    };
    let change_us = behind_us.saturating_sub(least_us);
    let gap_us = run[at].received.saturating_sub(run[at - 1].received).saturating_abs();
    if change_us.saturating_abs() <= STEP_US + gap_us / 1_000_000 * STEP_PPM {
        return None;
    }
    let middle_us = least_us.saturating_add(change_us / 2);
    let is_above = |latency: &i64| *latency > middle_us;
    let next = &latencies[at..behind.min(at + 8)];
    let above = next.iter().filter(|latency| is_above(latency)).count();
    // A latency may be far above the least, but not below it: a fall shows at once, a rise when no more are below.
    let is_here = if change_us > 0 {
        above + 1 >= next.len() && is_above(&next[0]) && !is_above(&latencies[at - 1])
    } else {
        above * 2 < next.len() && !is_above(&next[0]) && is_above(&latencies[at - 1])
    };
    is_here.then_some((least_us, change_us))
}

/// How many of these packets it takes to judge by, or none if they are too few or come too fast.
fn window<'s>(from: i64, stamps: impl Iterator<Item = &'s Stamp>) -> Option<usize> {
    let (mut count, mut span_us) = (0, 0);
    for stamp in stamps {
        (count, span_us) = (count + 1, stamp.received.saturating_sub(from).saturating_abs());
        if count >= WINDOW_PACKETS && span_us >= WINDOW_US {
            return Some(count);
        }
    }
    let is_at_end = (END_PACKETS..WINDOW_PACKETS_MAX).contains(&count) && span_us >= END_US;
    is_at_end.then_some(count)
}

/// The least latency of the few packets at an end of a run, if their stamps are by another clock than those of the rest,
/// whose least latency is `rest_us`.
fn least_at_end(stamps: &[Stamp], latencies: &[i64], rest_us: i64) -> Option<i64> {
    if latencies.len() >= WINDOW_PACKETS_MAX {
        return None;
    }
    let (least, greatest) = (*latencies.iter().min()?, *latencies.iter().max()?);
    // Stamped later than they were received: all of them, so that it is no single wrong time.
    let is_ahead = latencies.len() > 1 && greatest < rest_us.saturating_sub(STEP_US);
    let is_far = latencies.len() > 1 && least > rest_us.saturating_add(STALL_MAX_US);
    // What a stall holds up comes at once: the earlier it was stamped, the later it is.
    let stamped = |stamp: &Stamp| stamp.received.saturating_sub(stamp.latency);
    let first = stamps.iter().map(stamped).min()?;
    let span_us = stamps.iter().map(stamped).max()?.saturating_sub(first);
    let is_flat = greatest.saturating_sub(least) <= (span_us / 3).min(HALVES_US);
    let keeps_pace = latencies.len() >= PACE_PACKETS && span_us >= PACE_US && is_flat;
    (is_ahead || is_far || keeps_pace && least > rest_us.saturating_add(STEP_US)).then_some(least)
}

/// The least of latencies, two odd ones left out; none if it is another in the second half of them.
fn steady_least(latencies: &[i64]) -> Option<i64> {
    let (first, second) = latencies.split_at(latencies.len() / 2);
    let least = |half: &[i64]| {
        let mut half = half.to_vec();
        (half.len() > 2).then(|| *half.select_nth_unstable(2).1)
    };
    let (first, second) = (least(first)?, least(second)?);
    (first.saturating_sub(second).saturating_abs() <= HALVES_US).then_some(first.min(second))
}

/// What to add to a time of the gateway's.
pub(super) fn shift_us(steps: &[Step], received: Wall, gateway: Wall) -> i64 {
    let passed = steps.partition_point(|step| step.received <= received.0);
    let shift_us = |passed: usize| passed.checked_sub(1).map_or(0, |last| steps[last].shift_us);
    let is_near = |at: &usize| steps[*at].received.saturating_sub(received.0).saturating_abs() < NEAR_STEP_US;
    // In order of their receipt, so none that is farther away is near.
    let behind = (0..passed).rev().take_while(is_near).take(2);
    let near: Vec<usize> = behind.chain((passed..steps.len()).take_while(is_near).take(2)).collect();
    let [at] = near[..] else { return shift_us(passed) };
    let latency_us = |shift_us: i64| received.0.saturating_sub(gateway.0.saturating_add(shift_us));
    let possible = [shift_us(at), shift_us(at + 1)].into_iter();
    let possible = possible.filter(|shift_us| latency_us(*shift_us) >= steps[at].least_us - HALVES_US);
    possible.min_by_key(|shift_us| latency_us(*shift_us)).unwrap_or(shift_us(passed))
}
