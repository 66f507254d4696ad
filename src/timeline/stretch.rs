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
/// A packet this late, in front of a gap of the same length, has a stale timestamp. Above any jitter.
const STALE_S: f64 = 0.25;
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
    /// Whether sequence numbers are missing directly in front of it. Those of packets without audio are not.
    pub is_behind_loss: bool,
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
        let is_behind_loss = step - beside > 1;
        (beside, last_sequence) = (0, unwrapped.sequence);
        members.push(Member {
            rx: unwrapped.rx,
            media,
            arrival: seconds(rx.arrival.0.saturating_sub(origin.0)) / 1e6,
            samples: rx.samples,
            is_next: step == 1,
            is_speech: rx.is_speech,
            is_behind_pause: std::mem::take(&mut is_behind_pause),
            is_behind_loss,
        });
    }
    mend_stale_onsets(&mut members, packets);
    for at in (1..members.len()).rev() {
        members[at - 1].arrival = members[at - 1].arrival.min(members[at].arrival);
    }
    members
}

/// Tells how many ticks a second of an epoch's audio takes: the standard rate that at least half of the consecutive
/// pairs show, else the declared one. `None` where timestamps stand still.
#[must_use]
pub fn tick_rate(epoch: &[Unwrapped], declared_hz: u32, packets: &[Rx]) -> Option<f64> {
    let mut votes = [0usize; RATES_HZ.len()];
    let (mut pairs, mut still) = (0usize, 0usize);
    // What the pair before was and voted for: most are alike.
    let mut last = ((0, 0), None);
    for pair in epoch.windows(2) {
        let (from, to) = (&packets[index(pair[0].rx)], &packets[index(pair[1].rx)]);
        let is_pair = pair[1].sequence == pair[0].sequence + 1
            && from.kind == RxKind::Audio
            && to.kind == RxKind::Audio
            && from.samples > 0;
        if !is_pair {
            continue;
        }
        pairs += 1;
        let ticks = pair[1].ticks - pair[0].ticks;
        still += usize::from(ticks == 0);
        if last.0 != (ticks, from.samples) {
            let rate = seconds(ticks) * 48_000.0 / f64::from(from.samples);
            let named = RATES_HZ.iter().position(|hz| (rate - hz).abs() <= RATE_TOLERANCE * hz);
            last = ((ticks, from.samples), named);
        }
        if let Some(named) = last.1 {
            votes[named] += 1;
        }
    }
    let declared = Some(f64::from(declared_hz));
    if pairs < RATE_PAIRS_MIN {
        return declared;
    }
    if still * 2 > pairs {
        return None;
    }
    let (best, count) = votes.iter().enumerate().max_by_key(|(_, count)| **count).unwrap_or((0, &0));
    if count * 2 >= pairs { Some(RATES_HZ[best]) } else { declared }
}

/// Some senders stamp a packet before they learn that there was a pause: the first packet of an utterance carries the
/// time of the last one's end (pion's packetizer; rtpproxy 61).
fn mend_stale_onsets(members: &mut [Member], packets: &[Rx]) {
    for at in 1..members.len().saturating_sub(1) {
        let (before, own, after) = (&members[at - 1], &members[at], &members[at + 1]);
        let late = (own.arrival - own.media) - (before.arrival - before.media);
        if late <= STALE_S {
            continue;
        }
        let gap = after.media - own.media_end();
        let apart = after.arrival - own.arrival;
        let is_audio = [own, after].iter().all(|m| packets[index(m.rx)].bytes > COMFORT_BYTES);
        let is_stale = after.is_next
            && gap > 0.2
            && (gap - late).abs() < STALE_AGREE_S
            && (0.002..3.0 * own.duration() + 0.02).contains(&apart)
            && is_audio;
        if is_stale {
            members[at].media = after.media - own.duration();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "ticks and microseconds of a call are far below 2^52")]
fn seconds(count: i64) -> f64 {
    count as f64
}
