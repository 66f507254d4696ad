//! A stretch of audio with one numbering: media time against arrival time, packet by packet.
//!
//! Here the sender's clock is taken for what it is, not for what it was declared to be: the tick rate is the standard
//! rate that its own packets show, and a timestamp that says nothing is replaced by the packets' lengths. A packet
//! that begins an utterance with the timestamp of the last one's end is brought to the utterance.
//! All times are in seconds, media time from the first packet on, arrival from the origin of the timeline.

use super::unwrap::Unwrapped;
use super::{Rx, RxKind, index};
use crate::time::Wall;

/// Rates that senders are known to count timestamps in, whatever their SDP says.
const RATES_HZ: [f64; 10] =
    [8000.0, 11_025.0, 12_000.0, 16_000.0, 22_050.0, 24_000.0, 32_000.0, 44_100.0, 48_000.0, 96_000.0];
/// Pairs of consecutive packets that it takes to tell a rate.
const RATE_PAIRS_MIN: usize = 5;
/// How close to a standard rate a pair must be.
const RATE_TOLERANCE: f64 = 0.01;
/// Different steps of timestamps that are remembered: a sender that shows a rate has few.
const STEPS_MAX: usize = 32;
/// A packet this late, in front of a gap of the same length, has a stale timestamp. Above any jitter.
const STALE_S: f64 = 0.25;
/// The shortest such gap.
const STALE_GAP_S: f64 = 0.2;
/// How well the two lengths must agree.
const STALE_AGREE_S: f64 = 0.06;
/// Packets up to this size are comfort noise, not the onset of an utterance.
const COMFORT_BYTES: u16 = 8;

/// One audio packet of a stretch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member {
    /// Which packet: an index into the slice given to [`super::place`].
    pub rx: u32,
    /// Media time at which it begins.
    pub media: f64,
    /// When it arrived. A reordered one counts as arriving no later than its successors.
    pub arrival: f64,
    /// How long it lasts, in samples at 48 kHz.
    pub samples: u32,
    /// Whether its sequence number is the one behind that of the member before it.
    pub is_next: bool,
    /// Whether somebody speaks in it, if that is known.
    pub is_speech: Option<bool>,
    /// Whether packets were withheld directly in front of it.
    pub is_behind_pause: bool,
    /// How many sequence numbers are missing directly in front of it. Those of packets without audio are not.
    pub missing: u32,
}

impl Member {
    /// How long it lasts.
    #[must_use]
    pub fn duration(&self) -> f64 {
        f64::from(self.samples) / 48_000.0
    }

    /// Media time at which it ends.
    #[must_use]
    pub fn media_end(&self) -> f64 {
        self.media + self.duration()
    }
}

/// Gathers the audio packets of a piece of an epoch, in order of sequence, with times in seconds.
#[must_use]
pub fn gather(piece: &[Unwrapped], tick_hz: Option<f64>, packets: &[Rx], origin: Wall) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::with_capacity(piece.len());
    let first_ticks = piece.first().map_or(0, |first| first.ticks);
    // Since the last audio.
    let (mut is_behind_pause, mut beside, mut last_sequence) = (false, 0, 0);
    for unwrapped in piece {
        let rx = &packets[index(unwrapped.rx)];
        match rx.kind {
            RxKind::Audio => {}
            RxKind::Withheld => {
                (is_behind_pause, beside) = (true, beside + 1);
                continue;
            }
            RxKind::Beside | RxKind::Unusable => {
                beside += 1;
                continue;
            }
        }
        let media = match (tick_hz, members.last()) {
            (Some(hz), _) => seconds(unwrapped.ticks - first_ticks) / hz,
            // Timestamps that say nothing: one packet after the other, lost ones as long as the one before.
            (None, Some(last)) => {
                last.media + last.duration() * seconds((unwrapped.sequence - last_sequence).max(1))
            }
            (None, None) => 0.0,
        };
        let step = if members.is_empty() { 0 } else { unwrapped.sequence - last_sequence };
        let missing = u32::try_from(step - beside - 1).unwrap_or(0);
        (beside, last_sequence) = (0, unwrapped.sequence);
        members.push(Member {
            rx: unwrapped.rx,
            media,
            arrival: seconds(rx.arrival.0.saturating_sub(origin.0)) / 1e6,
            samples: rx.samples,
            is_next: step == 1,
            is_speech: rx.is_speech,
            is_behind_pause: std::mem::take(&mut is_behind_pause),
            missing,
        });
    }
    mend_stale_onsets(&mut members, packets);
    for at in (1..members.len()).rev() {
        members[at - 1].arrival = members[at - 1].arrival.min(members[at].arrival);
    }
    members
}

/// Tells how many ticks a second of an epoch's audio takes. A packet's length is in its payload, so that what timestamps
/// advance by from one to the next tells their rate: the standard rate that at least half of the consecutive pairs show,
/// else any rate that they show by which no packet begins before the one in front of it is over, else the declared one.
/// `None` where timestamps say nothing: they stand still, or count packets whatever their lengths.
#[must_use]
pub fn tick_rate(epoch: &[Unwrapped], declared_hz: u32, packets: &[Rx]) -> Option<f64> {
    let mut steps = Steps::default();
    for pair in epoch.windows(2) {
        let (from, to) = (&packets[index(pair[0].rx)], &packets[index(pair[1].rx)]);
        let is_pair = pair[1].sequence == pair[0].sequence + 1
            && from.kind == RxKind::Audio
            && to.kind == RxKind::Audio
            && from.samples > 0;
        if is_pair {
            steps.add(pair[1].ticks - pair[0].ticks, from.samples);
        }
    }
    let declared = f64::from(declared_hz);
    if steps.pairs < RATE_PAIRS_MIN {
        return Some(declared);
    }
    if steps.of(|step| step.ticks == 0) * 2 > steps.pairs {
        return None;
    }
    let standard = |hz: &f64| steps.of(|step| (step.rate() - hz).abs() <= RATE_TOLERANCE * hz);
    let votes = RATES_HZ.map(|hz| (standard(&hz), hz));
    if let Some((count, hz)) = votes.into_iter().max_by_key(|(count, _)| *count)
        && count * 2 >= steps.pairs
    {
        return Some(hz);
    }
    // Packets that begin before the one in front of them is over, by the declared clock.
    let overlapping = |step: &Step| step.ticks > 0 && step.rate() < declared * (1.0 - RATE_TOLERANCE);
    if steps.of(overlapping) * 2 < steps.pairs {
        return Some(declared);
    }
    let shown = steps.seen.iter().filter(|(step, _)| overlapping(step)).map(|(step, _)| step.rate());
    let best = shown.map(|hz| (standard(&hz), hz)).max_by_key(|(count, _)| *count);
    best.filter(|(count, _)| count * 2 >= steps.pairs).map(|(_, hz)| hz)
}

/// What timestamps advance by over packets of different lengths.
#[derive(Default)]
struct Steps {
    pairs: usize,
    seen: Vec<(Step, usize)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Step {
    ticks: i64,
    samples: u32,
}

impl Step {
    fn rate(&self) -> f64 {
        seconds(self.ticks) * 48_000.0 / f64::from(self.samples)
    }
}

impl Steps {
    /// Counts a pair. A step beyond [`STEPS_MAX`] takes the place of the rarest.
    fn add(&mut self, ticks: i64, samples: u32) {
        self.pairs += 1;
        let step = Step { ticks, samples };
        // Most are like the one before, which is in front.
        match self.seen.iter().position(|(seen, _)| *seen == step) {
            Some(at) => {
                self.seen[at].1 += 1;
                self.seen.swap(0, at);
            }
            None if self.seen.len() < STEPS_MAX => {
                self.seen.push((step, 1));
            }
            None => {
                if let Some(rarest) = self.seen.iter_mut().min_by_key(|(_, count)| *count) {
                    *rarest = (step, 1);
                }
            }
        }
    }

    /// How many pairs have such a step.
    fn of(&self, is_such: impl Fn(&Step) -> bool) -> usize {
        self.seen.iter().filter(|(step, _)| is_such(step)).map(|(_, count)| count).sum()
    }
}

/// Some senders stamp a packet before they learn that there was a pause: the first packet of an utterance carries the
/// time of the last one's end (pion's packetizer; rtpproxy 61). They do so each time; a single packet that a stall brings
/// behind a pause looks the same.
fn mend_stale_onsets(members: &mut [Member], packets: &[Rx]) {
    let (mut stale, mut gaps) = (Vec::new(), 0);
    for at in 1..members.len().saturating_sub(1) {
        let (before, own, after) = (&members[at - 1], &members[at], &members[at + 1]);
        let gap = after.media - own.media_end();
        if gap <= STALE_GAP_S {
            continue;
        }
        gaps += 1;
        let late = (own.arrival - own.media) - (before.arrival - before.media);
        let apart = after.arrival - own.arrival;
        let is_audio = [own, after].iter().all(|m| packets[index(m.rx)].bytes > COMFORT_BYTES);
        let is_stale = late > STALE_S
            && after.is_next
            && (gap - late).abs() < STALE_AGREE_S
            && (0.002..3.0 * own.duration() + 0.02).contains(&apart)
            && is_audio;
        if is_stale {
            stale.push(at);
        }
    }
    if stale.len() * 2 >= gaps {
        stale.into_iter().for_each(|at| members[at].media = members[at + 1].media - members[at].duration());
    }
}

#[expect(clippy::cast_precision_loss, reason = "ticks and microseconds of a call are far below 2^52")]
fn seconds(count: i64) -> f64 {
    count as f64
}
