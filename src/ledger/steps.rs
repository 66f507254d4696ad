//! Steps of the gateway's clock: where it was set in mid-call, and by how much.
//!
//! The time from its stamp to receipt changes at one packet and stays changed. Steps are not looked for across a restart of the
//! daemon. A clock that is set back and returns within seconds (`moment_at`)
//! makes two steps; other steps within a second of each other are not told apart. Within half a second of the beginning or the end, a step is
//! seen where no socket can explain it: stamps from the future, times that no stall lasts, or a latency that stays while
//! packets keep their pace.

use super::Payload;
use crate::id::Channel;
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
/// A clock that is set and set back is seen if so much was stamped in between: a stall that holds that up would show.
const MOMENT_MIN_US: i64 = 100_000;
/// What lasts longer is two steps.
const MOMENT_MAX_US: i64 = 2 * WINDOW_US;
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
    sender: (Channel, u32),
}

impl Stamp {
    pub(super) fn of(channel: Channel, rx: &Rx, payload: &Payload) -> Option<Self> {
        payload.has_gateway_time.then(|| Self {
            sender: (channel, rx.ssrc),
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
/// other, but for one in ten; or for half of them where one sender was silent in between, as a step may lie there.
pub(super) fn are_by_one_clock(stamps: &[Stamp]) -> bool {
    let [(near, near_apart), (far, far_apart)] = pairs(stamps);
    let are_near_alike = near_apart * 10 <= near;
    near_apart + far_apart <= 1 || are_near_alike && (far_apart <= 1 || far_apart * 2 <= far)
}

/// Whether one of the senders of these packets is by another clock than the others.
fn is_one_apart(stamps: &[Stamp]) -> bool {
    let [(near, near_apart), (far, far_apart)] = pairs(stamps);
    near_apart + far_apart > 1 && (near_apart + far_apart) * 2 > near + far
}

/// How many pairs there are of neighbours of different senders, and how many of these took longer than each other: of those
/// that were received close to each other, and of the rest.
fn pairs(stamps: &[Stamp]) -> [(usize, usize); 2] {
    let mut counts = [(0, 0); 2];
    for pair in stamps.windows(2).filter(|pair| pair[0].sender != pair[1].sender) {
        let gap_us = pair[1].received.saturating_sub(pair[0].received).saturating_abs();
        let apart_us = pair[1].latency.saturating_sub(pair[0].latency).saturating_abs();
        let (pairs, apart) = &mut counts[usize::from(gap_us > NEAR_STEP_US)];
        *pairs += 1;
        *apart += usize::from(apart_us > STEP_US + gap_us / 1_000_000 * STEP_PPM);
    }
    counts
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
        let (mut shifted, mut returned) = (0, 0);
        for at in 1..run.len() {
            let ahead = run.len().min(at + WINDOW_PACKETS_MAX);
            own[shifted..ahead].iter_mut().for_each(|latency| *latency = latency.saturating_sub(shift_us));
            shifted = ahead;
            let has_moved = own[at].saturating_sub(own[at - 1]).saturating_abs() > NEIGHBOURS_US;
            if !has_moved || at < returned {
                continue;
            }
            let received = run[at].received;
            if let Some((least_us, change_us)) = step_at(run, own, at) {
                shift_us = shift_us.saturating_add(change_us);
                own[at..shifted].iter_mut().for_each(|latency| *latency = latency.saturating_sub(change_us));
                steps.push(Step { received, shift_us, least_us });
            } else if let Some((least_us, change_us, back)) = moment_at(run, &own[..shifted], at) {
                own[at..back].iter_mut().for_each(|latency| *latency = latency.saturating_sub(change_us));
                steps.push(Step { received, shift_us: shift_us.saturating_add(change_us), least_us });
                steps.push(Step { received: run[back].received, shift_us, least_us });
                returned = back;
            }
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
    // Of one channel alone, it is looked for in that.
    if is_one_apart(&run[before.unwrap_or(0)..at]) || is_one_apart(&run[at..behind]) {
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

/// The least latency in front of a packet, by how much it is more from there on for a moment, and which packet is the first
/// behind that: the clock was set back, and returned. A moment is too short to be judged as a stretch of its own.
fn moment_at(run: &[Stamp], latencies: &[i64], at: usize) -> Option<(i64, i64, usize)> {
    let first = run[..at].iter().rev().take(WINDOW_PACKETS_MAX);
    let before = window(run[at - 1].received, first).map(|count| at - count)?;
    let least_us = steady_least(&latencies[before..at])?;
    let is_above = |latency: &i64| *latency > least_us.saturating_add(STEP_US);
    let are_below = |some: &[i64]| some.len() > 1 && some.iter().filter(|some| is_above(some)).count() <= 1;
    if is_above(&latencies[at - 1]) || !are_below(&latencies[at.saturating_sub(8)..at]) {
        return None;
    }
    let back =
        at + latencies[at..].iter().position(|latency| !is_above(latency)).filter(|count| *count > 0)?;
    let within = &latencies[at..back];
    let has_returned = are_below(&latencies[back..latencies.len().min(back + 8)]);
    let lasted_us = run[back].received.saturating_sub(run[at].received);
    let span_us = stamped_span_us(&run[at..back], within)?;
    let is_far =
        within.len() > 1 && within.iter().all(|latency| *latency > least_us.saturating_add(STALL_MAX_US));
    let moment_us = if is_far {
        within.iter().copied().min()?
    } else {
        // What a stall holds up comes at once, whatever its pace was.
        paced_least(within, span_us).filter(|_| span_us >= MOMENT_MIN_US)?
    };
    let is_moment = has_returned && lasted_us <= MOMENT_MAX_US && !is_one_apart(&run[at..back]);
    is_moment.then_some((least_us, moment_us.saturating_sub(least_us), back))
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
    let span_us = stamped_span_us(stamps, latencies)?;
    let is_flat = greatest.saturating_sub(least) <= (span_us / 3).min(HALVES_US);
    let keeps_pace = latencies.len() >= PACE_PACKETS && span_us >= PACE_US && is_flat;
    // Of more packets, some may be late.
    let paced_us = if keeps_pace { Some(least) } else { paced_least(latencies, span_us) };
    let paced_us = paced_us.filter(|_| keeps_pace || span_us >= MOMENT_MIN_US);
    let is_behind = |paced_us: &i64| *paced_us > rest_us.saturating_add(STEP_US);
    if is_ahead || is_far { Some(least) } else { paced_us.filter(is_behind) }
}

/// How long it took to stamp these packets.
fn stamped_span_us(stamps: &[Stamp], latencies: &[i64]) -> Option<i64> {
    let both = stamps.iter().zip(latencies);
    let stamped = both.map(|(stamp, latency)| stamp.received.saturating_sub(*latency));
    let (first, last) = (stamped.clone().min()?, stamped.max()?);
    Some(last.saturating_sub(first))
}

/// The least of latencies, two odd ones left out; none if it is another in the second half of them.
fn steady_least(latencies: &[i64]) -> Option<i64> {
    let (first, second) = halves_least(latencies)?;
    (first.saturating_sub(second).saturating_abs() <= HALVES_US).then_some(first.min(second))
}

/// The same of few packets that were stamped over such a time: what was held up would come closer by half of that.
fn paced_least(latencies: &[i64], span_us: i64) -> Option<i64> {
    let (first, second) = halves_least(latencies)?;
    let most_us = HALVES_US.max(span_us / 4);
    (first.saturating_sub(second).saturating_abs() <= most_us).then_some(first.min(second))
}

fn halves_least(latencies: &[i64]) -> Option<(i64, i64)> {
    let (first, second) = latencies.split_at(latencies.len() / 2);
    let least = |half: &[i64]| {
        let mut half = half.to_vec();
        (half.len() > 2).then(|| *half.select_nth_unstable(2).1)
    };
    Some((least(first)?, least(second)?))
}

/// What to add to a time of the gateway's.
pub(super) fn shift_us(steps: &[Step], received: Wall, gateway: Wall) -> i64 {
    let passed = steps.partition_point(|step| step.received <= received.0);
    let shift_us = |passed: usize| passed.checked_sub(1).map_or(0, |last| steps[last].shift_us);
    let is_near = |at: &usize| steps[*at].received.saturating_sub(received.0).saturating_abs() < NEAR_STEP_US;
    // In order of their receipt, so none that is farther away is near.
    let behind = (0..passed).rev().take_while(is_near).take(2);
    let ahead = (passed..steps.len()).take_while(is_near).take(2);
    let Some(first) = behind.last().or(ahead.clone().next()) else { return shift_us(passed) };
    let last = ahead.last().unwrap_or(first.max(passed.saturating_sub(1)));
    let latency_us = |shift_us: i64| received.0.saturating_sub(gateway.0.saturating_add(shift_us));
    let possible = (first..=last + 1).map(shift_us);
    let possible = possible.filter(|shift_us| latency_us(*shift_us) >= steps[first].least_us - HALVES_US);
    possible.min_by_key(|shift_us| latency_us(*shift_us)).unwrap_or(shift_us(passed))
}
