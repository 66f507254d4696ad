//! Whether the gateway's times make sense, channel by channel, by the daemon's own clock at the receipt.
//!
//! Times that stand still while packets come are left out: those of the channel are the daemon's then. Of two channels by two
//! clocks that are ten seconds apart, the one that is farther from the daemon's clock is brought to the other; so is one whose
//! times are ahead of their receipt where the other's are not. A clock that is days
//! off, as one that counts from the start of a machine, keeps its precision and is brought to the daemon's: the least latency
//! counts as none. Calls that come faster than real time, as captures do, keep their days, but none is of before 1990.
//!
//! What is done here is said: [`Doubts`]. Steps of a clock are another matter, and are looked for before clocks are brought
//! together.

use super::{ChannelLedger, Ledger, Moment};
use crate::connection::pauses::Stamp;
use crate::id::{Channel, Scope};
use crate::time::Wall;

/// What was found wrong with the gateway's times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubts {
    /// Some were left out.
    pub has_ignored: bool,
    /// Some were put right: in another unit, or by another clock.
    pub has_corrected: bool,
}

/// So few packets, or so short a time, tell nothing of a clock.
const PACKETS_MIN: usize = 10;
const SPAN_MIN_US: i64 = 2_000_000;
/// A clock that runs so many times slower than the daemon's stands still: milliseconds do so a thousand times.
const STANDS_STILL: i64 = 10;
/// Clocks closer than this may be one, of which one channel is delivered later.
const APART_MIN_US: i64 = 10_000_000;
/// Stamped with times so far ahead of their receipt, and by as much each, the packets of one channel are by a clock that is
/// ahead, if the other channel's are not.
const AHEAD_MIN_US: i64 = 250_000;
const ALIKE_US: i64 = 100_000;
/// Packets of both channels tell what their clocks differ by, if so many pairs do, the half of them as closely.
const PAIR_US: i64 = 1_000_000;
const PAIRS_MIN: usize = 8;
/// A clock that is farther off than a day is not that of the time of day.
const OFF_MAX_US: i64 = 86_400_000_000;
/// 1990: what is older is not a time of day either.
const OLDEST: Wall = Wall(631_152_000_000_000);
/// How many packets the least latency is told by.
const FIRST_PACKETS: usize = 100;

/// How long the packets of a channel took, by the gateway's clock and by the daemon's.
#[derive(Clone, Copy, Debug)]
struct Spans {
    count: usize,
    told_us: i64,
    received_us: i64,
}

impl Ledger {
    /// Notes what a record's time had to become.
    pub(super) fn note_unit(&mut self, told: Option<Wall>, at: Stamp) {
        if told != at.gateway {
            self.doubts.has_ignored |= at.gateway.is_none();
            self.doubts.has_corrected |= at.gateway.is_some();
        }
    }

    /// Leaves out the times that make no sense.
    pub(super) fn doubt_gateway(&mut self) {
        for channel in Channel::BOTH {
            if self.channels[channel.index()].spans().stands_still() {
                self.leave_out(channel);
            }
        }
    }

    /// Brings clocks together that are apart, and what is left to the daemon's if it is days off. Behind steps, since a clock
    /// that is set in mid-call is no less that of another machine.
    pub(super) fn bring_clocks_together(&mut self) {
        self.bring_together();
        self.bring_to_receipt();
    }

    fn leave_out(&mut self, channel: Channel) {
        self.doubts.has_ignored = true;
        let ledger = &mut self.channels[channel.index()];
        let told = ledger.told();
        for (rx, payload) in ledger.rx.iter_mut().zip(&mut ledger.payloads) {
            rx.arrival = payload.received;
            payload.has_gateway_time = false;
        }
        self.moments_of(channel, leave_out);
        // What is of the whole call may be stamped by the same clock.
        let is_of_it = |when: &Moment| {
            let (Some(gateway), Some((least, most))) = (when.gateway, told) else { return false };
            gateway >= least.plus_us(-PAIR_US) && gateway <= most.plus_us(PAIR_US)
        };
        self.whole_marks().filter(|when| is_of_it(when)).for_each(leave_out);
    }

    /// Brings the channel whose clock is farther from the daemon's to that of the other, if they are two.
    fn bring_together(&mut self) {
        if !self.channels.iter().all(|channel| channel.spans().is_in_real_time()) {
            return;
        }
        let mut apart_us = self.apart_us();
        if apart_us.len() < PAIRS_MIN {
            return;
        }
        apart_us.sort_unstable();
        let [low, middle, high] = [1, 2, 3].map(|quarter| apart_us[(apart_us.len() - 1) * quarter / 4]);
        let late = |channel: Channel| self.channels[channel.index()].median_late_us();
        let lates = Channel::BOTH.map(late);
        let spread_us = high.saturating_sub(low);
        let is_apart = middle.saturating_abs() >= APART_MIN_US && spread_us <= PAIR_US;
        let is_ahead = lates.iter().any(|late_us| *late_us < -AHEAD_MIN_US)
            && lates.iter().any(|late_us| late_us.saturating_abs() < AHEAD_MIN_US)
            && middle.saturating_abs() > ALIKE_US
            && spread_us <= ALIKE_US;
        if !is_apart && !is_ahead {
            return;
        }
        let (channel, by_us) = if late(Channel::Ai).saturating_abs() >= late(Channel::Caller).saturating_abs()
        {
            (Channel::Ai, middle)
        } else {
            (Channel::Caller, middle.saturating_neg())
        };
        let late_us = lates[channel.index()];
        let is_of_it = |when: &Moment| {
            let own = when.gateway.map(|gateway| when.received.0.saturating_sub(gateway.0));
            is_apart && own.is_some_and(|own| own.saturating_sub(late_us).saturating_abs() <= PAIR_US)
        };
        self.shift(channel, by_us);
        self.whole_marks().filter(|when| is_of_it(when)).for_each(|when| shift(when, by_us));
    }

    /// What the AI's packets are later than the caller's: each packet beside the nearest of the other channel, however long
    /// before or after it that was received, since sides that take turns are not heard together.
    fn apart_us(&self) -> Vec<i64> {
        let mut stamped = Vec::new();
        for (channel, ledger) in Channel::BOTH.into_iter().zip(&self.channels) {
            let all = ledger.stamped();
            stamped.extend(all.map(|(offset, received_us, late_us)| (offset, channel, received_us, late_us)));
        }
        stamped.sort_unstable_by_key(|(offset, ..)| *offset);
        // When the last packet of each channel was received so far, and how late it was.
        let mut last = [None; 2];
        let mut others: Vec<Option<(i64, i64)>> = Vec::with_capacity(stamped.len());
        for (_, channel, received_us, late_us) in &stamped {
            last[channel.index()] = Some((*received_us, *late_us));
            others.push(last[1 - channel.index()]);
        }
        last = [None; 2];
        let mut apart_us = Vec::with_capacity(stamped.len());
        for ((_, channel, received_us, late_us), before) in stamped.iter().zip(others).rev() {
            last[channel.index()] = Some((*received_us, *late_us));
            let both = [before, last[1 - channel.index()]].into_iter().flatten();
            let far_us = |(other_us, _): &(i64, i64)| other_us.saturating_sub(*received_us).saturating_abs();
            let Some((_, other_late_us)) = both.min_by_key(far_us) else { continue };
            let later_us = late_us.saturating_sub(other_late_us);
            apart_us.push(if *channel == Channel::Ai { later_us } else { later_us.saturating_neg() });
        }
        apart_us
    }

    /// Brings a clock that is days off to the daemon's.
    fn bring_to_receipt(&mut self) {
        let mut first: Vec<(u64, i64)> = Vec::new();
        for ledger in &self.channels {
            first.extend(ledger.stamped().take(FIRST_PACKETS).map(|(offset, _, late_us)| (offset, late_us)));
        }
        first.sort_unstable_by_key(|(offset, _)| *offset);
        first.truncate(FIRST_PACKETS);
        let Some(least_us) = first.iter().map(|(_, late_us)| *late_us).min() else { return };
        let is_old = self.channels.iter().any(ChannelLedger::is_of_long_ago);
        let is_in_real_time = self.channels.iter().any(|channel| channel.spans().is_in_real_time());
        if least_us.saturating_abs() > OFF_MAX_US && (is_old || is_in_real_time) {
            Channel::BOTH.into_iter().for_each(|channel| self.shift(channel, least_us));
            self.whole_marks().for_each(|when| shift(when, least_us));
        }
    }

    /// Adds so much to the gateway's times of a channel.
    fn shift(&mut self, channel: Channel, by_us: i64) {
        self.doubts.has_corrected = true;
        let ledger = &mut self.channels[channel.index()];
        for (rx, payload) in ledger.rx.iter_mut().zip(&ledger.payloads) {
            if payload.has_gateway_time {
                rx.arrival = rx.arrival.plus_us(by_us);
            }
        }
        self.moments_of(channel, |when| shift(when, by_us));
    }

    /// When what is marked of the whole call was.
    fn whole_marks(&mut self) -> impl Iterator<Item = &mut Moment> {
        self.marks.iter_mut().filter(|mark| mark.scope == Scope::Whole).map(|mark| &mut mark.when)
    }

    /// All that happened on a channel beside audio. CLEAR is about the AI's.
    pub(super) fn moments_of(&mut self, channel: Channel, mut change: impl FnMut(&mut Moment)) {
        let marks = self.marks.iter_mut().filter(|mark| mark.scope == Scope::Channel(channel));
        marks.for_each(|mark| change(&mut mark.when));
        self.pauses[channel.index()].moments().for_each(&mut change);
        self.channels[channel.index()].heard.iter_mut().for_each(|(when, _)| change(when));
        if channel == Channel::Ai {
            self.clears.iter_mut().for_each(change);
        }
    }
}

fn leave_out(when: &mut Moment) {
    (when.gateway, when.at) = (None, when.received);
}

fn shift(when: &mut Moment, by_us: i64) {
    if let Some(gateway) = &mut when.gateway {
        *gateway = gateway.plus_us(by_us);
        when.at = *gateway;
    }
}

impl ChannelLedger {
    /// Of each packet with a time of the gateway's: its place in the file, when it was received, and how much later that was.
    fn stamped(&self) -> impl Iterator<Item = (u64, i64, i64)> {
        let both = self.rx.iter().zip(&self.payloads).filter(|(_, payload)| payload.has_gateway_time);
        both.map(|(rx, payload)| {
            (payload.offset, payload.received.0, payload.received.0.saturating_sub(rx.arrival.0))
        })
    }

    fn median_late_us(&self) -> i64 {
        let mut late_us: Vec<i64> = self.stamped().map(|(.., late_us)| late_us).collect();
        let middle = late_us.len() / 2;
        if late_us.is_empty() { 0 } else { *late_us.select_nth_unstable(middle).1 }
    }

    /// The first and the last of the gateway's times.
    fn told(&self) -> Option<(Wall, Wall)> {
        let both = self.rx.iter().zip(&self.payloads).filter(|(_, payload)| payload.has_gateway_time);
        both.map(|(rx, _)| (rx.arrival, rx.arrival))
            .reduce(|(least, most), (at, _)| (least.min(at), most.max(at)))
    }

    fn is_of_long_ago(&self) -> bool {
        let first = self.rx.iter().zip(&self.payloads).find(|(_, payload)| payload.has_gateway_time);
        first.is_some_and(|(rx, _)| rx.arrival < OLDEST)
    }

    fn spans(&self) -> Spans {
        let mut ends: Option<[i64; 4]> = None;
        let mut count = 0;
        for (_, received, late) in self.stamped() {
            let told = received.saturating_sub(late);
            let [first, last, least, most] = ends.get_or_insert([received, received, told, told]);
            (*first, *last) = ((*first).min(received), (*last).max(received));
            (*least, *most) = ((*least).min(told), (*most).max(told));
            count += 1;
        }
        let [first, last, least, most] = ends.unwrap_or_default();
        Spans { count, told_us: most.saturating_sub(least), received_us: last.saturating_sub(first) }
    }
}

impl Spans {
    fn tells(self) -> bool {
        self.count >= PACKETS_MIN && self.received_us >= SPAN_MIN_US
    }

    fn stands_still(self) -> bool {
        self.tells() && self.told_us.saturating_mul(STANDS_STILL) < self.received_us
    }

    fn is_in_real_time(self) -> bool {
        let (told_us, received_us) = (self.told_us, self.received_us);
        self.tells() && told_us <= received_us.saturating_mul(2) && received_us <= told_us.saturating_mul(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConnectionId;
    use crate::spool::scan::Located;
    use crate::spool::{Header, Record, RecordKind};
    use crate::time::Mono;
    use std::time::Duration;

    const OPENED: Wall = Wall(1_767_323_045_000_000);
    const HOUR_US: i64 = 3_600_000_000;

    /// A call of ten seconds in real time, a mark in its middle and latencies of up to 5 ms, with the gateway's times made by
    /// `told`: of a channel and the true time.
    fn call(pace: u64, told: impl Fn(Channel, i64) -> i64) -> Ledger {
        call_where(500, pace, |_, _| true, told)
    }

    /// The same of so many packets' time, of which those are sent that `speaks` says.
    fn call_where(
        packets: u16,
        pace: u64,
        speaks: impl Fn(Channel, u16) -> bool,
        told: impl Fn(Channel, i64) -> i64,
    ) -> Ledger {
        let header = Header::derived(ConnectionId::new("c").unwrap(), OPENED, Mono(0), 1);
        let mut ledger = Ledger::new(header);
        for n in 0..packets {
            for channel in Channel::BOTH.into_iter().filter(|channel| speaks(*channel, n)) {
                let late_us = u64::from(n * 7 % 5) * 1000 + 200;
                let true_us = i64::from(n) * 20_000 + 3000 * i64::try_from(channel.index()).unwrap();
                let at = Mono(u64::try_from(true_us).unwrap() / pace + late_us);
                let gateway = Some(Wall(told(channel, OPENED.0 + true_us)));
                let head = [&[0x80, 0][..], &n.to_be_bytes(), &(u32::from(n) * 160).to_be_bytes()].concat();
                let body = [&head[..], &[0, 0, 0, 1], &[0x55; 160]].concat();
                let scope = Scope::Channel(channel);
                let offset = u64::from(n) * 1000 + u64::try_from(channel.index()).unwrap() * 500;
                let record = Record { kind: RecordKind::Tap(1), scope, at, gateway, body: &body };
                ledger.record(&Located { record, body_offset: offset });
                if n == 250 {
                    let record = Record { kind: RecordKind::Tap(8), body: br#"{"name":"m"}"#, ..record };
                    ledger.record(&Located { record, body_offset: offset + 400 });
                    // One of the whole call, by the clock of what came last.
                    let record = Record { scope: Scope::Whole, ..record };
                    ledger.record(&Located { record, body_offset: offset + 450 });
                }
            }
        }
        ledger.close(Duration::from_secs(14_400));
        ledger
    }

    /// How far packets and marks are from their true times at most, and what is said.
    fn judge(ledger: &Ledger) -> (i64, Doubts) {
        let mut worst = 0;
        for (channel, of) in ledger.channels.iter().zip([0, 3000]) {
            for (n, rx) in (0..).zip(&channel.rx) {
                worst = worst.max((rx.arrival.0 - OPENED.0 - n * 20_000 - of).abs());
            }
        }
        for (mark, of) in ledger.marks.iter().zip([0, 0, 3000, 3000]) {
            worst = worst.max((mark.when.at.0 - OPENED.0 - 250 * 20_000 - of).abs());
        }
        (worst, ledger.doubts)
    }

    const NONE: Doubts = Doubts { has_ignored: false, has_corrected: false };
    const IGNORED: Doubts = Doubts { has_ignored: true, has_corrected: false };
    const CORRECTED: Doubts = Doubts { has_ignored: false, has_corrected: true };

    /// What the gateway's clock shows, of a channel and the true time.
    type Told<'a> = dyn Fn(Channel, i64) -> i64 + 'a;

    #[test]
    fn times_that_make_no_sense_are_put_right_or_left_out_and_that_is_said() {
        let day = 24 * HOUR_US;
        let is_ai = |channel: Channel| channel == Channel::Ai;
        let cases: [(&str, Doubts, &Told<'_>); 11] = [
            ("as they should be", NONE, &|_, at| at),
            ("a clock that is off by a little", NONE, &|_, at| at + 1_500_000),
            ("nanoseconds", CORRECTED, &|_, at| at * 1000),
            ("milliseconds", CORRECTED, &|_, at| at / 1000),
            ("milliseconds on one channel", CORRECTED, &|channel, at| {
                if is_ai(channel) { at / 1000 } else { at }
            }),
            ("seconds", IGNORED, &|_, at| at / 1_000_000),
            ("the time of the call's start", IGNORED, &|_, _| OPENED.0),
            ("that on one channel", IGNORED, &|channel, at| if is_ai(channel) { OPENED.0 } else { at }),
            ("since the machine was started", CORRECTED, &|_, at| at - OPENED.0 + 5_000_000),
            ("years ago", CORRECTED, &|_, at| at - 7000 * day),
            ("another machine's on one channel", CORRECTED, &|channel, at| {
                if is_ai(channel) { at + HOUR_US } else { at }
            }),
        ];
        for (name, doubts, told) in cases {
            let (worst, found) = judge(&call(1, told));
            assert_eq!(found, doubts, "{name}");
            let most = if name.contains("little") { 1_500_000 } else { 5300 };
            assert!(worst <= most, "{name}: {worst}");
        }
    }

    #[test]
    fn what_comes_faster_than_real_time_keeps_its_days_unless_they_cannot_be() {
        let month = 30 * 24 * HOUR_US;
        let ledger = call(1000, |_, at| at - month);
        assert_eq!(ledger.doubts, NONE);
        assert_eq!(ledger.channels[0].rx[0].arrival, OPENED.plus_us(-month));
        let ledger = call(1000, |_, at| at - OPENED.0 + 5_000_000);
        assert_eq!(ledger.doubts, CORRECTED);
        let rx = &ledger.channels[0].rx;
        assert!(
            rx[0].arrival > OPENED.plus_us(-10_100_000)
                && rx[499].arrival.0 - rx[0].arrival.0 == 499 * 20_000
        );
    }

    #[test]
    fn clocks_that_are_apart_are_brought_together_where_the_sides_take_turns() {
        type Speaks = fn(Channel, u16) -> bool;
        let turns: [Speaks; 5] = [
            |channel, n| if channel == Channel::Ai { n % 300 >= 150 } else { n % 300 < 120 },
            |channel, n| if channel == Channel::Ai { n % 400 < 170 } else { n % 400 > 180 },
            // Nobody speaks for a second in between.
            |channel, n| if channel == Channel::Ai { n % 400 < 150 } else { (200..350).contains(&(n % 400)) },
            // A single turn of each.
            |channel, n| (channel == Channel::Ai) == (n >= 600),
            |_, _| true,
        ];
        for speaks in turns {
            for off_s in [-5000, -600, -20, 0, 12, 20, 60, 600, 5000] {
                for (of, step_s) in [(Channel::Ai, 0), (Channel::Ai, 15), (Channel::Caller, -30)] {
                    let ledger = call_where(1000, 1, speaks, |channel, at| {
                        let is_stepped = channel == of && at > OPENED.0 + 10_000_000;
                        let off_s = if channel == Channel::Ai { off_s } else { 0 };
                        at + (off_s + if is_stepped { step_s } else { 0 }) * 1_000_000
                    });
                    for (channel, ledger) in Channel::BOTH.into_iter().zip(&ledger.channels) {
                        for (rx, payload) in ledger.rx.iter().zip(&ledger.payloads) {
                            let late_us = payload.received.0 - rx.arrival.0;
                            assert!(
                                (-10_000..20_000).contains(&late_us),
                                "{off_s} s off, {step_s} s of {of:?}: {channel:?} at {}: {late_us}",
                                payload.received.0 - OPENED.0
                            );
                        }
                    }
                    if step_s == 0 {
                        // One turn of each may as well be one clock that was set in between.
                        let is_said = ledger.doubts.has_corrected || ledger.clock_steps > 0;
                        assert_eq!(is_said, off_s != 0, "{off_s}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_ai_that_is_stamped_for_the_time_when_it_is_heard_is_believed() {
        let queued = |at: i64| 1_000_000 + (at - OPENED.0) / 2 % 3_000_000;
        let ledger = call(1, |channel, at| if channel == Channel::Ai { at + queued(at) } else { at });
        assert_eq!(ledger.doubts, NONE);
    }
}
