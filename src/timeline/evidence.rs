//! What proves that a sender in real time paused without showing it: real time at the new level.
//!
//! Behind a hidden pause the audio goes on in real time, at a higher delay for good. Behind a stall of the link comes a
//! burst that catches up, however late. At the end of a call a queue need not come back, so that a delay never returns is
//! no proof by itself.

use super::stretch::Member;

/// So much audio in real time on the envelope proves a level.
const PROOF_S: f64 = 0.3;
/// Where the envelope jumps again sooner, half of the pairs prove it, at least so many: of 362 calls that were cut in the
/// middle of a queue, one or two pairs were near the envelope by chance in 6, three in none.
const PAIRS_MIN: usize = 3;

/// What is behind each packet of a stretch.
#[derive(Debug)]
pub(super) struct Evidence {
    stands: Vec<bool>,
    stands_later: Vec<bool>,
}

/// What was seen since the envelope's last jump, backwards.
#[derive(Default)]
struct Seen {
    audio_s: f64,
    near: usize,
    pairs: usize,
}

impl Evidence {
    /// Looks for real time on the envelope. Neighbours show it that are both within `near_s` of the envelope and arrived
    /// apart by half a packet or more; a rise of the envelope by `near_s` parts what is in front of it from what is behind.
    pub(super) fn of(
        members: &[Member],
        delay: &[f64],
        envelope: &[f64],
        is_barrier: &[bool],
        near_s: f64,
    ) -> Self {
        let count = members.len();
        let (mut stands, mut stands_later) = (vec![false; count], vec![false; count]);
        let (mut seen, mut is_later, mut is_last) = (Seen::default(), false, true);
        for at in (0..count).rev() {
            let is_proof_short =
                seen.near >= PAIRS_MIN && 2 * seen.near >= seen.pairs && (is_later || is_last);
            stands[at] = seen.audio_s >= PROOF_S || is_proof_short;
            stands_later[at] = is_later;
            let Some(before) = at.checked_sub(1) else { break };
            if is_barrier[at] || envelope[at] - envelope[before] > near_s {
                is_later |= stands[at];
                (seen, is_last) = (Seen::default(), false);
                continue;
            }
            seen.pairs += 1;
            let is_near = delay[at].max(delay[before]) - envelope[at] <= near_s;
            let apart_s = members[at].arrival - members[before].arrival;
            if is_near && apart_s >= 0.5 * members[before].duration() {
                seen.near += 1;
                seen.audio_s += members[at].duration();
            }
        }
        Self { stands, stands_later }
    }

    /// Whether the audio from a packet to the envelope's next jump is in real time on the envelope.
    pub(super) fn stands(&self, at: usize) -> bool {
        self.stands[at]
    }

    /// Whether audio behind that jump is.
    pub(super) fn stands_later(&self, at: usize) -> bool {
        self.stands_later[at]
    }
}
