//! The level: how far media time lies from arrival time, for each packet of a stretch.
//!
//! Arrival never places audio directly; it is asked for this one number. Network delay can only push the difference of
//! a packet up, and it comes back down; a pause that timestamps do not show pushes it up for good. Looking at what
//! follows tells the two apart. The stages:
//!
//! 1. *Delay*: d = arrival − media − duration, where a reordered packet counts as arriving no later than its
//!    successors.
//! 2. *Barrier*: a gap in the timestamps behind which the delay stays lower than ever before: the timestamps had run
//!    ahead (`barriers`).
//! 3. *Envelope*: the least delay to come, which may fall by the drift of two clocks: what is left of d without the
//!    network (`envelope`). Nothing arrives before it was sent, so the level of a sender in real time is never above it.
//! 4. *Mode*: a sender whose audio never comes at the pace of real time delivers faster ([`pace`](super::pace)).
//! 5. *Level*, of a paced sender: follows the envelope at drift's pace, and rises in a step where the envelope jumped by
//!    more than 60 ms and what follows stands on it in real time (`paced`, `evidence.rs`). Of a bursting
//!    sender: a queue that plays out; a step only where the queue had run empty (`burst`).
//! 6. *Smoothing*: between two steps the level is averaged, since a clock runs straight (`smooth`).
//!
//! How late a packet is says nothing of a pause: links stall for fifteen seconds. Where sender reports bound the level,
//! the envelope is kept within them, and a step makes up what is left between two of them (`known_step`).
//!
//! The thresholds were found on 35 simulated scenarios with known truth, and on captures of congested mobile links;
//! `tests/placement.rs` runs the like of both.

use super::Sender;
use super::evidence::Evidence;
use super::looks::Looks;
use super::pace::{Mode, Pace, STALL_S};
use super::reports::{Bounds, Knot, bounds};
use super::stretch::Member;

/// A jump of the envelope by more than this is a pause: three frames, far below the gap between two turns. 40 ms would
/// take a change of route for one, 80 ms and more would place audio later than need be.
const STEP_S: f64 = 0.060;
/// The fastest that a level follows a clock: two and a half times the worst specified drift.
pub const SLEW: f64 = 500e-6;
/// The same for clocks that are in order, of 50 ppm each (ITU-T G.711): what a mobile link's least delay moves by looks
/// like up to 500.
const SLEW_IN_ORDER: f64 = 100e-6;
/// The level is averaged over so much on each side: several times what lies between two packets that were not delayed.
const SMOOTH_S: f64 = 10.0;
/// A rise without a stall is a queue building up; beyond this it is taken for a slow sender.
const GRADUAL_S: f64 = 0.5;
/// A drop of the level at a timestamp gap below all before it by this much is one of the timestamps. A queue that runs dry
/// in a silence drops by more, but not below what was.
const DROP_S: f64 = 0.150;

/// A stall that holds up the end of an utterance is shorter; beyond it, a catch-up burst is what follows a pause.
const STALL_OF_END_S: f64 = 2.1;
/// Reports correct the envelope where it is off by more than this: their own jitter, by a sender's timers.
const BOUND_JITTER_S: f64 = 0.020;

/// What a sender may send at once when it begins, in most utterances: so many, or each one where nothing else came late.
const LEAD_MIN_S: f64 = 0.060;
const LEAD_MAX_S: f64 = 2.0;
const LEADS_AGREE_S: f64 = 0.060;
const LEADS_MIN: usize = 5;
const FEW_LEADS_ERROR_S: f64 = 0.008;

/// What is left open of a level: timers and the rounding of timestamps; of a queue that plays out, which nobody sees; of
/// a single packet, by its jitter; of jitter, as a share of its median; of a queue that held up all of the packets
/// around, where the sender hides pauses, as a share of its length. Chosen on the simulated scenarios, where nineteen
/// channels of twenty keep within.
const LEAST_ERROR_S: f64 = 0.004;
const BURST_ERROR_S: f64 = 0.020;
const FEW_ERROR_S: f64 = 0.040;
const JITTER_SHARE: f64 = 0.5;
const QUEUE_SHARE: f64 = 0.05;
/// A packet closer to the least delay than this shows it: the link is free around it.
const FREE_S: f64 = 0.020;
/// How many packets on each side are around one.
const QUEUE_PACKETS: usize = 10;

/// The delays of a stretch, and what follows from them alone.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    delay: Vec<f64>,
    is_barrier: Vec<bool>,
    envelope: Vec<f64>,
    /// What sender reports say of each packet's level. Empty if there are none.
    bounds: Vec<Bounds>,
    /// Whether the packet begins a chunk: it comes later than its predecessor by more than 60 ms.
    begins_chunk: Vec<bool>,
}

/// The level of each packet of a stretch.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    /// In seconds: position on the timeline = media time + level.
    pub level: Vec<f64>,
    /// Whether a pause that the timestamps do not show lies in front of the packet.
    pub is_step: Vec<bool>,
    /// How far the level may be off, in nineteen packets of twenty.
    pub error_us: Vec<u32>,
    /// How far its sender is ahead of what is heard.
    pub lead_s: f64,
}

impl Levels {
    fn with_room_for(members: &[Member]) -> Self {
        let count = members.len();
        Self {
            level: Vec::with_capacity(count),
            is_step: vec![false; count],
            error_us: Vec::new(),
            lead_s: 0.0,
        }
    }

    /// How long a stretch is, in seconds of media time, and how fast its sender's clock runs: the fall of the level
    /// over the middle half of the stretch, steps left out, for each second.
    #[must_use]
    pub fn drift(&self, members: &[Member]) -> (f64, f64) {
        let (Some(first), Some(last)) = (members.first(), members.last()) else { return (0.0, 0.0) };
        let span = last.media - first.media;
        let from = members.partition_point(|member| member.media < first.media + span / 4.0);
        let to = members.partition_point(|member| member.media < first.media + span * 3.0 / 4.0);
        let changes = (from + 1..to.max(from + 1)).filter(|at| !self.is_step[*at]);
        let change: f64 = changes.map(|at| self.level[at] - self.level[at - 1]).sum();
        (span, if span > 0.0 { -change / (span / 2.0) } else { 0.0 })
    }
}

impl Delays {
    /// Measures the delays of a stretch.
    #[must_use]
    pub fn of(members: &[Member]) -> Self {
        let delay: Vec<f64> = members.iter().map(|member| member.arrival - member.media_end()).collect();
        let begins_chunk =
            (0..delay.len()).map(|at| at == 0 || delay[at] - delay[at - 1] > STALL_S).collect();
        let is_barrier = barriers(members, &delay);
        let envelope = envelope(members, &delay, &is_barrier, SLEW);
        Self { delay, is_barrier, envelope, bounds: Vec::new(), begins_chunk }
    }

    /// Takes in what the sender's reports say.
    pub fn bound(&mut self, knots: &[Knot]) {
        self.bounds = bounds(knots, &self.envelope, &self.is_barrier);
    }

    /// Brings the envelope to where sender reports allow it. Jitter is left to the envelope, which knows more of it.
    fn bring_within_bounds(&mut self) {
        for ((envelope, known), delay) in self.envelope.iter_mut().zip(&self.bounds).zip(&self.delay) {
            if *envelope > known.high + BOUND_JITTER_S {
                *envelope = known.high;
            } else if *envelope < known.low - BOUND_JITTER_S {
                *envelope = known.low.min(*delay);
            }
        }
    }

    /// The pace at which the sender delivered.
    #[must_use]
    pub fn pace(&self, members: &[Member]) -> Pace {
        Pace::of(members, &self.delay)
    }

    /// The levels of a stretch whose sender delivers in this mode.
    #[must_use]
    pub fn levels(self, members: &[Member], mode: Mode, sender: Sender) -> Levels {
        match mode {
            Mode::Paced => paced(members, self, sender),
            Mode::Burst => burst(members, &self),
        }
    }
}

/// The timestamp gap in front of a packet.
fn gap_before(members: &[Member], at: usize) -> f64 {
    at.checked_sub(1).map_or(0.0, |before| members[at].media - members[before].media_end())
}

/// Finds the gaps of the timestamps behind which the delay is lower, flat, and stays so.
fn barriers(members: &[Member], delay: &[f64]) -> Vec<bool> {
    let mut is_barrier = vec![false; members.len()];
    let Some(first) = delay.first() else { return is_barrier };
    let (mut least, mut last_barrier) = (*first, 0);
    let mut looks = Looks::at(members.len());
    for at in 1..members.len() {
        let gap = gap_before(members, at);
        if gap > 0.030 {
            let (after, audio, is_all) = look_behind(members, delay, at, &mut looks);
            let mut before = delay[at - 1];
            for earlier in (last_barrier..at - 1).rev() {
                if members[at].media - members[earlier].media >= 3.0 + gap || !looks.take() {
                    break;
                }
                before = before.min(delay[earlier]);
            }
            let is_flat = delay[at] - after < 0.06 && (audio >= 0.3 || is_all);
            let drop = before - after;
            if is_flat && drop <= gap + 0.05 && after < least - DROP_S {
                is_barrier[at] = true;
                (least, last_barrier) = (delay[at], at);
            }
        }
        least = least.min(delay[at]);
    }
    is_barrier
}

/// The least delay in the three seconds from a packet on, as far as they are one flow; the audio in them; and whether
/// they reach to the end, or to another gap so soon that more of them cannot be asked for.
fn look_behind(members: &[Member], delay: &[f64], from: usize, looks: &mut Looks) -> (f64, f64, bool) {
    let (mut least, mut audio) = (delay[from], 0.0);
    for at in from..members.len() {
        if !looks.take() {
            return (least, audio, false);
        }
        let is_at_gap = at > from && gap_before(members, at) > 0.5;
        let is_at_stall = at > from && delay[at] - delay[at - 1] > STALL_S;
        if members[at].media - members[from].media >= 3.0 || is_at_gap || is_at_stall {
            return (least, audio, is_at_gap && audio >= 0.1);
        }
        least = least.min(delay[at]);
        audio += members[at].duration();
    }
    (least, audio, true)
}

/// The backward lower envelope of the delays: the least to come, allowed to fall by `slew`.
fn envelope(members: &[Member], delay: &[f64], is_barrier: &[bool], slew: f64) -> Vec<f64> {
    let mut envelope = delay.to_vec();
    for at in (1..envelope.len()).rev() {
        if !is_barrier[at] {
            let reach = envelope[at] + slew * (members[at].media - members[at - 1].media);
            envelope[at - 1] = envelope[at - 1].min(reach);
        }
    }
    envelope
}

fn paced(members: &[Member], mut delays: Delays, sender: Sender) -> Levels {
    delays.bring_within_bounds();
    let jitter = jitter(&delays);
    let mut levels = follow(members, &delays, SLEW);
    let has_steps = levels.is_step.contains(&true);
    if !has_steps && spread(&levels.level) <= STEP_S {
        // The timestamps never stood still, and the clocks are in order: what more moves is the network.
        drop(levels);
        delays.envelope = Vec::new();
        delays.envelope = envelope(members, &delays.delay, &delays.is_barrier, SLEW_IN_ORDER);
        delays.bring_within_bounds();
        levels = follow(members, &delays, SLEW_IN_ORDER);
    }
    (delays.is_barrier, delays.bounds) = Default::default();
    let unfollowed_most = if sender == Sender::RealTime && !has_steps { STEP_S } else { f64::INFINITY };
    let open = Open { jitter, unfollowed_most, hides_pauses: has_steps };
    levels.error_us = errors_us(members, &mut delays, &levels.level, &open);
    smooth(members, &mut levels);
    if sender == Sender::Any {
        add_lead(members, &delays, &mut levels);
    }
    levels
}

/// How far the highest of some levels is above the lowest.
fn spread(levels: &[f64]) -> f64 {
    let (low, high) = levels
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), level| (low.min(*level), high.max(*level)));
    high - low
}

/// The level of a paced sender, whose clock may be off by `slew`.
fn follow(members: &[Member], delays: &Delays, slew: f64) -> Levels {
    let evidence = Evidence::of(members, &delays.delay, &delays.envelope, &delays.is_barrier, STEP_S);
    let mut levels = Levels::with_room_for(members);
    let Some(mut level) = delays.envelope.first().copied() else { return levels };
    // How much of the envelope's rise came in jumps: stalls make jumps, a queue that builds up does not.
    let mut jumped = 0.0;
    let mut chunk = Chunk::at(0, members, delays);
    for at in 0..members.len() {
        if delays.begins_chunk[at] && at > 0 {
            chunk = Chunk::at(at, members, delays);
        }
        if at > 0 {
            let ahead = delays.envelope[at] - level;
            let rise = delays.envelope[at] - delays.envelope[at - 1];
            jumped += if rise >= 0.020 { rise } else { 0.0 };
            if delays.is_barrier[at] {
                (level, jumped) = (delays.envelope[at], 0.0);
                levels.is_step[at] = true;
            } else if ahead > STEP_S {
                let to = match delays.bounds.get(at).filter(|known| known.are_closed()) {
                    Some(known) => known_step(delays, known, &chunk, at, level),
                    None => {
                        let before = chunk.start.checked_sub(1);
                        let was_quiet = before.is_some_and(|before| members[before].is_speech == Some(false));
                        let is_pause = evidence.stands(at) || was_quiet && evidence.stands_later(at);
                        let is_jump = jumped >= 0.5 * ahead || ahead >= GRADUAL_S;
                        (is_pause && is_jump).then_some(delays.envelope[at])
                    }
                };
                if let Some(to) = to {
                    (level, jumped) = (to, 0.0);
                    levels.is_step[at] = true;
                }
            } else {
                jumped = if ahead < 0.020 { 0.0 } else { jumped };
                let most = slew * (members[at].media - members[at - 1].media).max(0.0);
                level += ahead.clamp(-most, most);
            }
        }
        levels.level.push(level);
    }
    levels
}

/// Averages the level between two steps, its trend taken out and put back: a clock runs straight, and the teeth that
/// jitter leaves on the envelope are no part of it.
fn smooth(members: &[Member], levels: &mut Levels) {
    let starts: Vec<usize> = (0..members.len()).filter(|at| *at == 0 || levels.is_step[*at]).collect();
    let ends = starts.iter().skip(1).copied().chain([members.len()]);
    for (start, end) in starts.iter().copied().zip(ends) {
        let (members, level) = (&members[start..end], &mut levels.level[start..end]);
        let last = members.len() - 1;
        let span = members[last].media - members[0].media;
        let trend = if span > 0.0 { (level[last] - level[0]) / span } else { 0.0 };
        let straight: Vec<f64> =
            members.iter().zip(&*level).map(|(m, level)| level - trend * m.media).collect();
        let (mut sum, mut from, mut to) = (0.0, 0, 0);
        for (member, level) in members.iter().zip(level) {
            while to < members.len() && members[to].media <= member.media + SMOOTH_S {
                sum += straight[to];
                to += 1;
            }
            while members[from].media < member.media - SMOOTH_S {
                sum -= straight[from];
                from += 1;
            }
            let count = u32::try_from(to - from).unwrap_or(u32::MAX);
            *level = sum / f64::from(count) + trend * member.media;
        }
    }
}

/// What decides how much of a level is left open.
struct Open {
    /// The link's jitter where it is free.
    jitter: f64,
    /// A rise of the envelope that was not followed tells of no more: what is sampled by a clock and has hidden no pause before
    /// hides none at its end, where a queue has not come back yet.
    unfollowed_most: f64,
    hides_pauses: bool,
}

/// How far each level may be off, as far as delays tell. Where the envelope left the level and was not followed, by
/// all of that; by what clocks may drift until the link is free again, or since it was; and by what jitter and the number of
/// packets leave open. A queue that is worked off leaves nothing open but, where the sender hides pauses, which of them are
/// under it.
#[expect(clippy::cast_possible_truncation, reason = "seconds, to a millionth")]
fn errors_us(members: &[Member], delays: &mut Delays, level: &[f64], open: &Open) -> Vec<u32> {
    let both = delays.envelope.iter().zip(level);
    let unfollowed = both.map(|(envelope, level)| (envelope - level).abs().min(open.unfollowed_most) as f32);
    let unfollowed: Vec<f32> = unfollowed.collect();
    // The envelope is not needed any more: in its place, how far the delay is above it.
    let mut above = std::mem::take(&mut delays.envelope);
    above.iter_mut().zip(&delays.delay).for_each(|(above, delay)| *above = (delay - *above).max(0.0));
    let few = FEW_ERROR_S / f64::from(u32::try_from(above.len()).unwrap_or(u32::MAX));
    let away = away_from_free(members, &above);
    let queues = if open.hides_pauses { least_around(above) } else { vec![0.0; above.len()] };
    let error = |((unfollowed, away), queue): ((f32, f32), &f64)| {
        let drift = SLEW * f64::from(away);
        let by_delays = JITTER_SHARE * open.jitter + QUEUE_SHARE * queue + f64::from(unfollowed);
        to_us(LEAST_ERROR_S + few + drift + by_delays)
    };
    unfollowed.into_iter().zip(away).zip(&queues).map(error).collect()
}

/// For each packet, how far in media time the next one is, before or behind, that shows the least delay.
#[expect(clippy::cast_possible_truncation, reason = "seconds, to a millionth")]
fn away_from_free(members: &[Member], above: &[f64]) -> Vec<f32> {
    let mut away = vec![f32::INFINITY; above.len()];
    let mut pass = |order: &mut dyn Iterator<Item = usize>| {
        let mut free: Option<f64> = None;
        for at in order {
            let media = members[at].media;
            if above[at] <= FREE_S {
                free = Some(media);
            }
            if let Some(free) = free {
                away[at] = away[at].min((media - free).abs() as f32);
            }
        }
    };
    pass(&mut (0..above.len()));
    pass(&mut (0..above.len()).rev());
    away
}

/// The jitter of the link where no queue holds up all packets around: how far the packet in the middle is above the envelope.
fn jitter(delays: &Delays) -> f64 {
    let both = delays.delay.iter().zip(&delays.envelope);
    let above: Vec<f64> = both.map(|(delay, least)| (delay - least).max(0.0)).collect();
    let queues = least_around(above.clone());
    let mut free: Vec<f64> =
        above.iter().zip(&queues).filter(|(_, queue)| **queue <= FREE_S).map(|(above, _)| *above).collect();
    let middle = free.len() / 2;
    if free.is_empty() { 0.0 } else { *free.select_nth_unstable_by(middle, f64::total_cmp).1 }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an error is shorter than an hour and not negative; the cast saturates"
)]
pub(super) fn to_us(seconds: f64) -> u32 {
    (seconds * 1e6) as u32
}

/// The least among each value and its neighbours, [`QUEUE_PACKETS`] on each side.
fn least_around(mut values: Vec<f64>) -> Vec<f64> {
    let (count, window) = (values.len(), 2 * QUEUE_PACKETS + 1);
    values.splice(..0, [f64::INFINITY; QUEUE_PACKETS]);
    values.extend([f64::INFINITY; QUEUE_PACKETS]);
    // The least of a window is that of two shorter ones that together make it.
    let mut width = 1;
    while width < window {
        let step = width.min(window - width);
        for at in 0..values.len() - step {
            values[at] = values[at].min(values[at + step]);
        }
        width += step;
    }
    values.truncate(count);
    values
}

/// A run of packets without a stall between them.
struct Chunk {
    start: usize,
    end: usize,
    /// Whether it came as a stream and is no mere catch-up burst.
    is_settled: bool,
}

impl Chunk {
    /// The one that begins here. Only reports ask for more than its beginning.
    fn at(start: usize, members: &[Member], delays: &Delays) -> Self {
        if delays.bounds.is_empty() {
            return Self { start, end: start, is_settled: false };
        }
        let behind = delays.begins_chunk.iter().skip(start + 1);
        let end = start + 1 + behind.take_while(|begins| !**begins).count();
        let in_time =
            |at: &usize| members[*at].arrival - members[*at - 1].arrival >= 0.5 * members[*at - 1].duration();
        let duration = |at: usize| members[at].duration();
        let paced: f64 = (start + 1..end).filter(in_time).map(duration).sum();
        let all: f64 = (start + 1..end).map(duration).sum();
        Self { start, end, is_settled: paced >= 0.050 || end - start == 1 || paced >= 0.5 * all }
    }
}

/// Where a level steps to that reports bound on both sides: to the upper bound, if the envelope reaches it. Below it
/// there may be a pause, with another to come, or the end of an utterance that a stall held up.
fn known_step(delays: &Delays, known: &Bounds, chunk: &Chunk, at: usize, level: f64) -> Option<f64> {
    if known.high - level <= STEP_S {
        return None;
    }
    let envelope = delays.envelope[at];
    if envelope >= known.high - STEP_S {
        return Some(envelope);
    }
    // A queue that was there before and behind is there now.
    let before = delays.delay[at.saturating_sub(5)..at].iter().map(|delay| delay - level);
    let queue = before.fold(f64::INFINITY, f64::min).max(known.queues[0]).min(known.queues[1]);
    let to = if queue > STEP_S { envelope - queue } else { envelope };
    // Behind a chunk's beginning nothing new has come: there the bounds have changed, not the delay.
    let is_at_start = at < chunk.start + 3 && chunk.end - chunk.start > 1;
    let is_pause = chunk.is_settled || to - level > STALL_OF_END_S;
    (is_at_start && is_pause && to - level > STEP_S).then_some(to)
}

/// A sender that begins each utterance with a small burst is ahead of what is heard by the length of that burst. Those of
/// a sender are of one length; stalls of a link are not, and hold up more than beginnings. Where the two cannot be told
/// apart, the error says so.
fn add_lead(members: &[Member], delays: &Delays, levels: &mut Levels) {
    let is_start = |at: &usize| *at == 0 || levels.is_step[*at] || gap_before(members, *at) > 0.3;
    let starts: Vec<usize> = (0..members.len()).filter(is_start).collect();
    // What is over at once shows nothing: a packet that CLEAR left behind, say.
    let ends = starts.iter().skip(1).copied().chain([members.len()]);
    let shows = |at: usize, end: usize| members[end - 1].media_end() - members[at].media > LEAD_MIN_S;
    let telling = starts.iter().copied().zip(ends).filter(|(at, end)| shows(*at, *end));
    let mut leads: Vec<f64> = telling.map(|(at, _)| delays.delay[at] - levels.level[at]).collect();
    leads.sort_by(f64::total_cmp);
    let tenth = |n: usize| leads.get(n * leads.len() / 10).copied().unwrap_or_default();
    let (lower, median, upper) = (tenth(2), tenth(5), tenth(7));
    if upper < LEAD_MIN_S {
        return;
    }
    let is_alike = (LEAD_MIN_S..LEAD_MAX_S).contains(&lower) && upper - lower < LEADS_AGREE_S;
    let is_link_free = (0..members.len()).filter(|at| delays.begins_chunk[*at]).all(|at| is_start(&at));
    let open_s = if is_alike && (leads.len() >= LEADS_MIN || is_link_free) {
        levels.level.iter_mut().for_each(|level| *level += median);
        levels.lead_s = median;
        match leads.len() {
            // The link may have held up the only beginning.
            1 => upper,
            // Few do not tell more than they were delayed by, each.
            2..LEADS_MIN => upper - lower + FEW_LEADS_ERROR_S,
            _ => 0.0,
        }
    } else {
        upper
    };
    let open_us = to_us(open_s);
    levels.error_us.iter_mut().for_each(|error_us| *error_us = error_us.saturating_add(open_us));
}

fn burst(members: &[Member], delays: &Delays) -> Levels {
    let delay = &delays.delay;
    let mut levels = Levels::with_room_for(members);
    levels.error_us = vec![to_us(BURST_ERROR_S); members.len()];
    let Some(mut level) = delay.first().copied() else { return levels };
    let candidates: Vec<usize> =
        (0..members.len()).filter(|at| delays.begins_chunk[*at] || gap_before(members, *at) > 0.1).collect();
    let mut number = 0;
    let mut looks = Looks::at(members.len());
    for at in 0..members.len() {
        if candidates.get(number + 1) == Some(&at) {
            number += 1;
            let gap = gap_before(members, at);
            // Where the next utterances would begin, seen from the present level.
            let following = candidates.iter().skip(number + 1).take(39);
            let following = following.filter(|next| gap_before(members, **next) > 0.1);
            let following: Vec<f64> = following.take(3).map(|next| delay[*next] - level).collect();
            let played_to = members[at - 1].media_end() + level;
            let has_run_empty = members[at].arrival - members[at].duration() >= played_to - 0.02;
            let ahead = delay[at] - level;
            if ahead > STALL_S {
                let returns = comes_back(members, delay, at, level, &mut looks);
                let is_spike =
                    returns || (gap > 0.1 && following.iter().any(|next| next.abs() <= STEP_S / 2.0));
                if !is_spike {
                    level = delay[at];
                    levels.is_step[at] = true;
                }
            } else if gap > 0.1
                && has_run_empty
                && ahead < -STEP_S
                && let [first, second, ..] = following[..]
                && first < -STEP_S / 2.0
                && second < -STEP_S / 2.0
            {
                level += ahead.max(first).max(second).max(-gap);
            }
        }
        levels.level.push(level);
    }
    levels
}

/// Whether the delay comes back to the level and stays there for half a second of audio: then it was a spike.
fn comes_back(members: &[Member], delay: &[f64], from: usize, level: f64, looks: &mut Looks) -> bool {
    let mut flat = 0.0;
    for at in from..members.len() {
        if members[at].media - members[from].media >= 60.0 || !looks.take() {
            return false;
        }
        let ahead = delay[at] - level;
        if ahead.abs() <= 0.04 {
            flat += members[at].duration();
            if flat >= 0.5 {
                return true;
            }
        } else {
            flat = 0.0;
        }
        if ahead < -0.10 || (at > from && delay[at] - delay[at - 1] > 1.0) {
            return false;
        }
    }
    false
}
