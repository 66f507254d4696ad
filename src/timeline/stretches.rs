//! The stretches of a channel: the pieces of its epochs between two flushes of the sender's queue, one after the other.
//!
//! How a sender delivers is told by all of them together, before the first of them is placed. The packets of a few can be held
//! meanwhile; those of more are gathered a second time, so that memory goes by the packets and not by the stretches.

use std::collections::VecDeque;

use super::Context;
use super::index;
use super::level::Delays;
use super::pace::Pace;
use super::stretch::{Member, gather, tick_rate};
use super::unwrap::{AllEpochs, Unwrapped};

/// So many packets are held: half an hour of them.
const HELD_MAX: usize = 100_000;

/// A piece of an epoch between two flushes of the sender's queue.
pub(super) struct Stretch {
    /// Which epoch it is of.
    pub(super) epoch: u32,
    /// Whether the sender's queue was flushed in front of it: then it has nothing to do with the end of what was.
    pub(super) is_behind_clear: bool,
    /// Ticks of a second of its audio.
    pub(super) tick_hz: Option<f64>,
    pub(super) members: Vec<Member>,
    pub(super) delays: Delays,
}

/// All stretches of a channel.
pub(super) struct Stretches {
    all: AllEpochs,
    /// The first ones.
    held: VecDeque<Stretch>,
    /// How many there are.
    pub(super) count: usize,
    /// The pace at which all of them were delivered.
    pub(super) pace: Pace,
}

impl Stretches {
    /// Measures the stretches of these epochs.
    pub(super) fn of(mut all: AllEpochs, context: &Context<'_>) -> Self {
        if let [epoch] = &all.epochs[..]
            && context.clears.is_empty()
        {
            let tick_hz = tick_rate(&all.packets, epoch.clock_hz, context.packets);
            let members = gather(&all.packets, tick_hz, context.packets, context.origin);
            // Nothing of it is asked for again.
            all.packets = Vec::new();
            let stretch = Stretch::of(0, false, tick_hz, members);
            let pace = stretch.as_ref().map(Stretch::pace).unwrap_or_default();
            let held = VecDeque::from_iter(stretch);
            return Self { all, count: held.len(), held, pace };
        }
        let (mut held, mut count, mut packets, mut pace) = (VecDeque::new(), 0, 0, Pace::default());
        for_each(&all, context, |stretch| {
            pace = pace.plus(stretch.pace());
            count += 1;
            packets += stretch.members.len();
            if packets <= HELD_MAX && held.len() + 1 == count {
                held.push_back(stretch);
            }
        });
        Self { all, held, count, pace }
    }

    /// Hands out each, in order.
    pub(super) fn for_each(mut self, context: &Context<'_>, mut take: impl FnMut(Stretch)) {
        let held = self.held.len();
        self.held.drain(..).for_each(&mut take);
        if held < self.count {
            let mut number = 0;
            for_each(&self.all, context, |stretch| {
                number += 1;
                if number > held {
                    take(stretch);
                }
            });
        }
    }
}

impl Stretch {
    fn of(epoch: u32, is_behind_clear: bool, tick_hz: Option<f64>, members: Vec<Member>) -> Option<Self> {
        let delays = (!members.is_empty()).then(|| Delays::of(&members))?;
        Some(Self { epoch, is_behind_clear, tick_hz, members, delays })
    }

    fn pace(&self) -> Pace {
        self.delays.pace(&self.members)
    }
}

/// Gathers the stretches of all epochs.
fn for_each(all: &AllEpochs, context: &Context<'_>, mut take: impl FnMut(Stretch)) {
    for (number, epoch) in (0u32..).zip(&all.epochs) {
        let unwrapped = all.packets_of(epoch);
        let tick_hz = tick_rate(unwrapped, epoch.clock_hz, context.packets);
        for (at, piece) in split_at_clears(unwrapped, context).into_iter().enumerate() {
            let members = gather(piece, tick_hz, context.packets, context.origin);
            Stretch::of(number, at > 0, tick_hz, members).into_iter().for_each(&mut take);
        }
    }
}

/// Cuts an epoch where the sender's queue was flushed: the level begins anew behind it.
fn split_at_clears<'e>(epoch: &'e [Unwrapped], context: &Context<'_>) -> Vec<&'e [Unwrapped]> {
    let mut pieces = Vec::new();
    let (mut start, mut flushes) = (0, 0);
    for (at, unwrapped) in epoch.iter().enumerate() {
        let arrival = context.packets[index(unwrapped.rx)].arrival;
        let passed = context.clears.partition_point(|clear| *clear <= arrival);
        if passed > flushes {
            if at > start {
                pieces.push(&epoch[start..at]);
            }
            (start, flushes) = (at, passed);
        }
    }
    pieces.push(&epoch[start..]);
    pieces
}
