//! Copies of packets that later ones brought (RFC 2198): kept where the packet itself does not come.
//!
//! A copy of a packet that came shortly before is left out at once. One of a packet that has not come is kept, and left out
//! again if the packet comes after all. So what is remembered is what came last and what was missing, however many copies
//! there are.

use std::collections::{HashMap, VecDeque};

use super::ChannelLedger;
use super::payload::Payload;
use crate::time::Wall;
use crate::timeline::Rx;

/// A sequence number comes again after 65,536 packets; a copy is of one no farther away than this.
const REACH: usize = 4096;
/// So many more packets than came by themselves are not made of copies: beyond half of a call lost, and a second, nobody
/// mends it.
const MORE_THAN_CAME: usize = 64;

/// The copies of one channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Copies {
    kept: Vec<Copy>,
    /// By source and number: which packet came last with it, or carried a copy of it that was kept.
    last: HashMap<(u32, u16), Last>,
    /// The same by age.
    order: VecDeque<((u32, u16), usize)>,
    /// Whether there is any redundancy in the channel: else nothing has to be remembered.
    is_used: bool,
}

/// A copy of a packet, found in a later one.
#[derive(Clone, Copy, Debug)]
struct Copy {
    /// The packet that carried it: an index into `rx`.
    carrier: usize,
    rx: Rx,
    payload: Payload,
    is_left_out: bool,
    /// How much older it is than that one, by their timestamps.
    older_ticks: u32,
}

impl Copy {
    /// When it would have come by itself.
    fn said(&self) -> Wall {
        let us = u64::from(self.older_ticks) * 1_000_000 / u64::from(self.rx.clock_hz.max(1));
        self.rx.arrival.plus_us(-i64::try_from(us).unwrap_or(0))
    }
}

#[derive(Clone, Copy, Debug)]
struct Last {
    at: usize,
    /// Which of the kept copies it is.
    kept: Option<usize>,
}

impl Copies {
    /// Whether a copy of the packet with this source and number is wanted, which the packet to be entered next carries.
    pub(super) fn are_wanted(&mut self, before: &[Rx], ssrc: u32, sequence: u16) -> bool {
        let carrier = before.len();
        if self.kept.len() > carrier + MORE_THAN_CAME {
            return false;
        }
        if !self.is_used {
            self.is_used = true;
            let first = carrier.saturating_sub(REACH);
            (first..).zip(&before[first..]).for_each(|(at, rx)| self.remember(at, rx, None));
        }
        self.last.get(&(ssrc, sequence)).is_none_or(|last| carrier - last.at > REACH)
    }

    /// Enters a copy that is wanted, of the packet to be entered next.
    pub(super) fn enter(&mut self, carrier: usize, rx: Rx, payload: Payload, older_ticks: u32) {
        self.remember(carrier, &rx, Some(self.kept.len()));
        self.kept.push(Copy { carrier, rx, payload, is_left_out: false, older_ticks });
    }

    /// Notes a packet that came by itself, the one with this index.
    pub(super) fn note(&mut self, at: usize, rx: &Rx) {
        if !self.is_used {
            return;
        }
        let last = self.last.get(&(rx.ssrc, rx.sequence)).copied();
        if let Some(Last { at: carrier, kept: Some(kept) }) = last
            && at - carrier <= REACH
            && let Some(copy) = self.kept.get_mut(kept)
        {
            copy.is_left_out = true;
        }
        self.remember(at, rx, None);
    }

    fn remember(&mut self, at: usize, rx: &Rx, kept: Option<usize>) {
        let key = (rx.ssrc, rx.sequence);
        self.last.insert(key, Last { at, kept });
        self.order.push_back((key, at));
        while let Some((key, old)) = self.order.front().copied()
            && at - old > REACH
        {
            self.order.pop_front();
            if self.last.get(&key).is_some_and(|last| last.at == old) {
                self.last.remove(&key);
            }
        }
    }

    /// Leaves out those of times that are not to be kept, and those whose carriers are of such.
    pub(super) fn leave_out(&mut self, is_out: impl Fn(Wall) -> bool) {
        let is_out = |copy: &Copy| is_out(copy.rx.arrival) || is_out(copy.said());
        self.kept.iter_mut().for_each(|copy| copy.is_left_out |= is_out(copy));
    }
}

impl ChannelLedger {
    /// Puts copies in the places of packets that never came, in front of the packets that carried them. They arrived with
    /// these.
    pub(super) fn restore_lost(&mut self) {
        let Copies { mut kept, .. } = std::mem::take(&mut self.copies);
        kept.retain(|copy| !copy.is_left_out);
        let (mut from, mut to) = (self.rx.len(), self.rx.len() + kept.len());
        let Some(last) = kept.last() else { return };
        self.rx.resize(to, last.rx);
        self.payloads.resize(to, last.payload);
        // From the back, so that nothing is written over that is still needed.
        while let Some(copy) = kept.pop() {
            while from > copy.carrier {
                (from, to) = (from - 1, to - 1);
                self.rx[to] = self.rx[from];
                self.payloads[to] = self.payloads[from];
            }
            to -= 1;
            self.rx[to] = Rx { arrival: self.rx[to + 1].arrival, ..copy.rx };
            self.payloads[to] = copy.payload;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::payload::enter_block;
    use crate::packet::Rtp;
    use crate::red::Block;
    use crate::rtpmap::Rtpmap;
    use proptest::prelude::*;

    fn entry(sequence: u16, age: u16, at: usize) -> (Rx, Payload) {
        let packet = Rtp { ssrc: 7, sequence, timestamp: 0, payload_type: 111, payload: &[0xf8] };
        let block = Block { payload_type: 111, age, older_ticks: 0, payload: &[0xf8] };
        let arrival = Wall(i64::try_from(at).unwrap());
        enter_block(&packet, &block, (Rtpmap::default_for(111), 0), 0, (arrival, arrival, false), false)
    }

    /// The packets with these numbers, each with copies of so many before it, and what is left: numbers, and whether copies.
    fn restored(packets: &[(u16, u16)]) -> Vec<(u16, bool)> {
        let mut ledger = ChannelLedger::default();
        for (at, (sequence, copies)) in packets.iter().enumerate() {
            for age in (1..=*copies).rev() {
                let (rx, payload) = entry(*sequence, age, at);
                if ledger.copies.are_wanted(&ledger.rx, rx.ssrc, rx.sequence) {
                    ledger.copies.enter(ledger.rx.len(), rx, payload, 0);
                }
            }
            let (rx, payload) = entry(*sequence, 0, at);
            ledger.copies.note(ledger.rx.len(), &rx);
            ledger.rx.push(rx);
            ledger.payloads.push(payload);
        }
        ledger.restore_lost();
        let both = ledger.rx.iter().zip(&ledger.payloads);
        both.map(|(rx, payload)| (rx.sequence, payload.is_copy)).collect()
    }

    /// The same by its definition, in quadratic time.
    fn defined(packets: &[(u16, u16)]) -> Vec<(u16, bool)> {
        let mut known: HashMap<u16, Vec<usize>> = HashMap::new();
        packets.iter().enumerate().for_each(|(at, (number, _))| known.entry(*number).or_default().push(at));
        let mut left = Vec::new();
        for (at, (number, copies)) in packets.iter().enumerate() {
            for age in (1..=*copies).rev() {
                let same = known.entry(number.wrapping_sub(age)).or_default();
                if same.iter().all(|other| other.abs_diff(at) > REACH) {
                    same.push(at);
                    left.push((number.wrapping_sub(age), true));
                }
            }
            left.push((*number, false));
        }
        left
    }

    #[test]
    fn a_packet_that_comes_after_its_copy_takes_its_place() {
        let packets = [(1, 0), (3, 1), (2, 0), (6, 2)];
        assert_eq!(
            restored(&packets),
            [(1, false), (3, false), (2, false), (4, true), (5, true), (6, false)]
        );
    }

    #[test]
    fn a_number_that_comes_again_far_away_is_another_packet() {
        let mut packets: Vec<(u16, u16)> = (0..10_000).map(|n| (n, 0)).collect();
        packets.remove(5000);
        packets.extend((10_000..=65_535).map(|n| (n, 0)).chain((0..5000).map(|n| (n, 0))));
        packets.push((5001, 1));
        assert_eq!(restored(&packets), defined(&packets));
    }

    #[test]
    fn no_more_is_made_of_copies_than_came() {
        let packets: Vec<(u16, u16)> = (0..1000).map(|n| (n * 33, 32)).collect();
        let restored = restored(&packets);
        let copies = restored.iter().filter(|(_, is_copy)| *is_copy).count();
        assert!((1000..=1100).contains(&copies), "{copies}");
        assert_eq!(restored.len() - copies, 1000);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_never_comes(packets in proptest::collection::vec((0..80u16, 0..4u16), 0..60)) {
            prop_assert_eq!(restored(&packets), defined(&packets));
        }
    }
}
