//! How many frames of a connection were refused, by channel and by reason, while it was live: its manifest tells them apart
//! from what a network has lost.
//!
//! The words are those of the shell, a closed list, so there are never more entries than that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Channel, Scope};

/// Frames of kind RTP, which the sender has counted as sent.
const OF_RTP: [&str; 3] = ["bad_rtp", "rtcp_as_rtp", "key_exchange"];
/// Those that may have been audio.
const OF_AUDIO: [&str; 2] = ["bad_rtp", "other_source"];

/// Counts by reason.
pub type Reasons = BTreeMap<String, u64>;

/// How many frames were refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    caller: Reasons,
    ai: Reasons,
    /// Of the connection as a whole.
    whole: Reasons,
}

impl Refused {
    /// Counts a frame. True each time that there are twice as many as at the last time.
    pub fn add(&mut self, scope: Scope, reason: &'static str) -> bool {
        let reasons = match scope {
            Scope::Channel(Channel::Caller) => &mut self.caller,
            Scope::Channel(Channel::Ai) => &mut self.ai,
            Scope::Whole => &mut self.whole,
        };
        match reasons.get_mut(reason) {
            Some(count) => *count = count.saturating_add(1),
            None => drop(reasons.insert(reason.to_owned(), 1)),
        }
        let all = [&self.caller, &self.ai, &self.whole];
        all.into_iter().flat_map(BTreeMap::values).sum::<u64>().is_power_of_two()
    }

    /// Those of a channel, by reason.
    #[must_use]
    pub fn of(&self, channel: Channel) -> &Reasons {
        match channel {
            Channel::Caller => &self.caller,
            Channel::Ai => &self.ai,
        }
    }

    /// Those of the connection as a whole.
    #[must_use]
    pub fn of_whole(&self) -> &Reasons {
        &self.whole
    }

    /// How many of a channel were of kind RTP.
    #[must_use]
    pub fn rtp(&self, channel: Channel) -> u64 {
        sum(self.of(channel), &OF_RTP)
    }

    /// Whether any were.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.caller.is_empty() && self.ai.is_empty() && self.whole.is_empty()
    }
}

/// Whether audio may be missing for these.
#[must_use]
pub fn may_have_been_audio(reasons: &Reasons) -> bool {
    sum(reasons, &OF_AUDIO) > 0
}

fn sum(reasons: &Reasons, words: &[&str]) -> u64 {
    words.iter().filter_map(|word| reasons.get(*word)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_frames_are_counted_by_channel_and_reason_and_noted_ever_more_rarely() {
        let mut refused = Refused::default();
        let caller = Scope::Channel(Channel::Caller);
        let noted = (0..1000).filter(|_| refused.add(caller, "bad_rtp")).count();
        assert_eq!(noted, 10);
        refused.add(Scope::Whole, "bad_json");
        refused.add(Scope::Channel(Channel::Ai), "bad_rtcp");
        assert_eq!((refused.rtp(Channel::Caller), refused.rtp(Channel::Ai)), (1000, 0));
        assert_eq!(refused.of_whole().get("bad_json"), Some(&1));
        assert!(may_have_been_audio(refused.of(Channel::Caller)));
        assert!(!may_have_been_audio(refused.of(Channel::Ai)));
        let noted = serde_json::to_string(&refused).unwrap();
        assert_eq!(serde_json::from_str::<Refused>(&noted).unwrap(), refused);
    }
}
