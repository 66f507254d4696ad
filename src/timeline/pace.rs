//! How a sender delivers: in real time, or faster into somebody's queue.
//!
//! How late audio is does not tell. A queue in the network and a queue that is to be played both lie seconds away from
//! the least delay. What tells is the pace: a sender in real time shows real time whenever the link is free, and in a
//! queue that stands, too; one that delivers faster never does.

use super::Sender;
use super::stretch::Member;

/// The pace is taken over so much audio, and a silence longer than this ends a flow: bursts of 1.1 to 40 times real time and
/// congested links were farthest apart with it.
const WINDOW_S: f64 = 0.3;
/// An arrival later than its predecessor by this is a stall.
pub(super) const STALL_S: f64 = 0.060;
/// Audio came in real time, or slower, if its least delay fell by no more than this share of its length. With a fifth,
/// bursts of 1.25 times real time are taken for it.
const FALL_SHARE: f64 = 0.05;
/// Below this share of pairs in real time a sender delivers faster: 0 to 0.008 in bursts of 1.1 to 40 times real time,
/// 0.195 and more over congested links, 0.23 and more in captures of them.
const REAL_TIME_SHARE_MIN: f64 = 0.05;
/// The same where the sender's queue was flushed, so that there is one.
const REAL_TIME_SHARE_MIN_OF_QUEUED: f64 = 0.5;
/// Nothing is said of a sender by less than this share of its audio: bursts have 0.43 to 0.9 in pairs, jitter of a
/// quarter of a second 0.02 to 0.15.
const SEEN_SHARE_MIN: f64 = 0.4;

/// A flow that is shorter shows nothing, and one that took this share of its length, or less, came at once. Of utterances too
/// short to show a pace, this share has to.
const FLOW_MIN_S: f64 = 0.1;
const AT_ONCE_SHARE: f64 = 0.5;
const AT_ONCE_SHARE_OF_ALL: f64 = 0.9;

/// How a sender delivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In real time.
    #[default]
    Paced,
    /// Faster than real time, into somebody's queue.
    Burst,
}

/// What the packets of a sender show of its pace: pairs of neighbouring windows with no stall and no silence in between.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    all_s: f64,
    pairs: f64,
    in_real_time: f64,
    /// Audio in flows that came at once.
    at_once_s: f64,
}

impl Pace {
    /// The pace of a stretch with these delays.
    #[must_use]
    pub fn of(members: &[Member], delay: &[f64]) -> Self {
        let mut pace = Self::default();
        let mut before: Option<f64> = None;
        let (mut audio_s, mut least) = (0.0, f64::INFINITY);
        let mut flow = 0;
        for (at, (member, delay_s)) in members.iter().zip(delay).enumerate() {
            let is_broken = at > 0
                && (member.media - members[at - 1].media_end() > WINDOW_S
                    || delay_s - delay[at - 1] > STALL_S);
            if is_broken {
                pace.at_once_s += at_once_s(&members[flow..at]);
                flow = at;
                (before, audio_s, least) = (None, 0.0, f64::INFINITY);
            }
            pace.all_s += member.duration();
            audio_s += member.duration();
            least = least.min(*delay_s);
            if audio_s >= WINDOW_S - 1e-6 {
                if let Some(before) = before {
                    pace.pairs += 1.0;
                    pace.in_real_time += f64::from(u8::from(least - before >= -FALL_SHARE * WINDOW_S));
                }
                (before, audio_s, least) = (Some(least), 0.0, f64::INFINITY);
            }
        }
        pace.at_once_s += at_once_s(&members[flow..]);
        pace
    }

    /// Adds another stretch of the same sender.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            all_s: self.all_s + other.all_s,
            pairs: self.pairs + other.pairs,
            in_real_time: self.in_real_time + other.in_real_time,
            at_once_s: self.at_once_s + other.at_once_s,
        }
    }

    /// How a sender of this kind delivers; `is_queued` says whether there is known to be a queue that it fills.
    #[must_use]
    pub fn mode(self, sender: Sender, is_queued: bool) -> Mode {
        let least = if is_queued { REAL_TIME_SHARE_MIN_OF_QUEUED } else { REAL_TIME_SHARE_MIN };
        let is_seen = self.pairs * WINDOW_S >= SEEN_SHARE_MIN * self.all_s;
        let is_faster = if is_seen {
            self.pairs > 0.0 && self.in_real_time < least * self.pairs
        } else {
            self.at_once_s > 0.0 && self.at_once_s >= AT_ONCE_SHARE_OF_ALL * self.all_s
        };
        match sender {
            Sender::Any if is_faster => Mode::Burst,
            Sender::Any | Sender::RealTime => Mode::Paced,
        }
    }
}

/// How long a flow is, if it came at once.
fn at_once_s(flow: &[Member]) -> f64 {
    let length_s: f64 = flow.iter().map(Member::duration).sum();
    let took_s = flow.last().zip(flow.first()).map_or(0.0, |(last, first)| last.arrival - first.arrival);
    if length_s >= FLOW_MIN_S && took_s <= AT_ONCE_SHARE * length_s { length_s } else { 0.0 }
}
