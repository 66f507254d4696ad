//! Sources that speak at once: a recording has one of them, the one that came first, for as long as it goes on.
//!
//! A sender that changes its SSRC has two for a moment. Others come from two senders on one channel, such as music on hold
//! beside a voice: which of them is heard must not hang on a jitter of milliseconds.

use std::collections::HashMap;

use crate::time::Samples48k;

use super::{Candidate, Counts, Gap, Placed, Rx, index};

/// A source goes on that is heard again within this: longer than between two updates of comfort noise.
const GOES_ON_SAMPLES: i64 = 48_000;

/// The source that is heard.
struct Heard {
    /// Its place among the sources in the order of their coming.
    rank: u32,
    /// Where it is heard next.
    next: Option<i64>,
}

impl Heard {
    fn goes_on(&self, at: i64) -> bool {
        self.next.is_some_and(|next| next - at <= GOES_ON_SAMPLES)
    }
}

/// Drops what is of a source while one goes on that came before it, and packets of another epoch that fall into time
/// already taken by more than half of themselves. Within an epoch nothing is dropped: the mux puts such packets one behind
/// the other. The candidates are in the order of their positions.
pub(super) fn one_at_a_time(
    mut candidates: Vec<Candidate>,
    packets: &[Rx],
    left_out: &mut Samples48k,
    counts: &mut Counts,
) -> Vec<Placed> {
    let ranks = ranks(packets);
    let next = if ranks.len() > 1 { next_of_source(&candidates, packets) } else { Vec::new() };
    let mut next = next.into_iter();
    let mut heard: Option<Heard> = None;
    // The epoch of the last one kept, its packet, and where it ends.
    let mut last: Option<(u32, &Rx, i64)> = None;
    candidates.retain_mut(|Candidate { epoch, placed }| {
        let packet = &packets[index(placed.rx)];
        let samples = i64::from(packet.samples);
        let own = Heard { rank: ranks.get(&packet.ssrc).copied().unwrap_or(0), next: next.next().flatten() };
        let is_second =
            heard.as_ref().is_some_and(|heard| heard.rank < own.rank && heard.goes_on(placed.at.0));
        let is_taken =
            last.is_some_and(|(before, _, end)| before != *epoch && end - placed.at.0 > samples / 2);
        if is_second || is_taken {
            counts.overlapping += 1;
            left_out.0 += samples;
            return false;
        }
        match last {
            None => placed.gap = Gap::Start,
            Some((before, kept, _)) if before != *epoch => {
                let goes_on = kept.ssrc == packet.ssrc && placed.gap != Gap::Loss;
                placed.gap = if goes_on { placed.gap } else { Gap::Pause };
            }
            Some(_) => {}
        }
        last = Some((*epoch, packet, placed.at.0 + samples));
        heard = Some(own);
        true
    });
    candidates.into_iter().map(|candidate| candidate.placed).collect()
}

/// The sources in the order in which they came.
fn ranks(packets: &[Rx]) -> HashMap<u32, u32> {
    let mut ranks = HashMap::new();
    let mut before = None;
    for packet in packets {
        if before.replace(packet.ssrc) != Some(packet.ssrc) {
            let rank = u32::try_from(ranks.len()).unwrap_or(u32::MAX);
            ranks.entry(packet.ssrc).or_insert(rank);
        }
    }
    ranks
}

/// Where the source of each candidate is heard next.
fn next_of_source(candidates: &[Candidate], packets: &[Rx]) -> Vec<Option<i64>> {
    let mut last: HashMap<u32, i64> = HashMap::new();
    let next =
        |candidate: &Candidate| last.insert(packets[index(candidate.placed.rx)].ssrc, candidate.placed.at.0);
    let mut next: Vec<Option<i64>> = candidates.iter().rev().map(next).collect();
    next.reverse();
    next
}
