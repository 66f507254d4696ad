//! Sources that speak at once: a recording has one of them, the one that came first, wherever its audio lies.
//!
//! A sender that changes its SSRC has two for a moment. Others come from two senders on one channel, such as music on hold
//! beside a voice: which of them is heard must not hang on a jitter of milliseconds. So a source has *runs*: what it says
//! without a pause. In a run of a source that came before, nothing of another one is heard; behind it, all of it is. A packet
//! that is alone, as updates of comfort noise and stragglers are, makes no run, and gives way to those of every source.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::time::Samples48k;

use super::{Candidate, Counts, Gap, Placed, Rx, index};

/// A source goes on that is heard again within this, 200 ms: longer than what a network mostly loses in a row, shorter than
/// between two updates of comfort noise.
const GOES_ON_SAMPLES: i64 = 9600;

/// What a source says without a pause, in samples.
struct Run {
    rank: u32,
    from: i64,
    to: i64,
}

/// Which source is heard when.
struct Runs {
    /// From when on the first of the sources is which, in order; none where no source speaks.
    first: Vec<(i64, Option<u32>)>,
    /// The sources in the order in which they came.
    ranks: HashMap<u32, u32>,
}

impl Runs {
    fn of(candidates: &[Candidate], packets: &[Rx]) -> Self {
        let ranks = ranks(packets);
        if ranks.len() < 2 {
            return Self { first: Vec::new(), ranks };
        }
        let mut runs: Vec<Run> = Vec::new();
        // The last packets of each source: as long as there is one only, where it is; then which run they are.
        let mut last: HashMap<u32, (i64, i64, Option<usize>)> = HashMap::new();
        for Candidate { placed, .. } in candidates {
            let packet = &packets[index(placed.rx)];
            let own = (placed.at.0, placed.at.0 + i64::from(packet.samples));
            let before = last.get(&packet.ssrc).filter(|(_, to, _)| own.0 - to <= GOES_ON_SAMPLES);
            let run = before.map(|(from, to, run)| {
                let to = own.1.max(*to);
                let run = run.unwrap_or_else(|| {
                    runs.push(Run { rank: ranks[&packet.ssrc], from: *from, to });
                    runs.len() - 1
                });
                runs[run].to = to;
                run
            });
            last.insert(packet.ssrc, (own.0, own.1, run));
        }
        runs.sort_unstable_by_key(|run| run.from);
        Self { first: first_of(&runs), ranks }
    }

    /// Whether another source is heard in place of a packet.
    fn is_second(&self, packet: &Rx, at: i64) -> bool {
        let middle = at + i64::from(packet.samples) / 2;
        let heard = self.first.partition_point(|(from, _)| *from <= middle).checked_sub(1);
        // One that is alone is in no run of its own source.
        heard.and_then(|at| self.first[at].1).is_some_and(|rank| self.ranks.get(&packet.ssrc) != Some(&rank))
    }
}

/// The first of the sources that speak, wherever it changes.
fn first_of(runs: &[Run]) -> Vec<(i64, Option<u32>)> {
    let mut ends: Vec<i64> = runs.iter().map(|run| run.to).collect();
    ends.sort_unstable();
    let (mut ends, mut begins) = (ends.into_iter().peekable(), runs.iter().peekable());
    let mut speaking: BinaryHeap<Reverse<(u32, i64)>> = BinaryHeap::new();
    let mut first: Vec<(i64, Option<u32>)> = Vec::new();
    while let Some(end) = ends.peek() {
        let at = begins.peek().map_or(*end, |run| run.from.min(*end));
        while let Some(run) = begins.next_if(|run| run.from <= at) {
            speaking.push(Reverse((run.rank, run.to)));
        }
        while ends.next_if(|end| *end <= at).is_some() {}
        while speaking.peek().is_some_and(|Reverse((_, to))| *to <= at) {
            speaking.pop();
        }
        let rank = speaking.peek().map(|Reverse((rank, _))| *rank);
        if first.last().is_none_or(|(_, before)| *before != rank) {
            first.push((at, rank));
        }
    }
    first
}

/// Drops what is of a source while one is heard that came before it, and packets of another epoch that fall into time
/// already taken by more than half of themselves. Within an epoch nothing is dropped: the mux puts such packets one behind
/// the other. The candidates are in the order of their positions.
pub(super) fn one_at_a_time(
    mut candidates: Vec<Candidate>,
    packets: &[Rx],
    left_out: &mut Samples48k,
    counts: &mut Counts,
) -> Vec<Placed> {
    let runs = Runs::of(&candidates, packets);
    // The epoch of the last one kept, its packet, and where it ends.
    let mut last: Option<(u32, &Rx, i64)> = None;
    candidates.retain_mut(|Candidate { epoch, placed }| {
        let packet = &packets[index(placed.rx)];
        let samples = i64::from(packet.samples);
        let is_taken =
            last.is_some_and(|(before, _, end)| before != *epoch && end - placed.at.0 > samples / 2);
        if is_taken || runs.is_second(packet, placed.at.0) {
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
