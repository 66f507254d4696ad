//! Which clock the arrivals of a call are by: the gateway's times where they can be believed, else the daemon's.
//!
//! The gateway's times are better, because no socket lies between them and the network; the daemon's cannot step. Where
//! the gateway's clock was set in mid-call, the time from its stamp to receipt changes at one packet and stays changed:
//! such steps are taken out again (`steps`). They are not looked for where one of the clocks is not that of real
//! time, as in a capture that is replayed fast.

use std::time::Duration;

use super::lone_times::repair_lone_times;
use super::steps::{Stamp, Step, are_by_one_clock, find_steps, shift_us};
use super::{ChannelLedger, Ledger, Moment, PauseSpans};
use crate::id::Channel;
use crate::timeline::Report;

/// Gateway and daemon clocks that differ by less are taken for one, where only some frames carry a gateway time.
const SAME_CLOCK_US: i64 = 2_000_000;

impl Ledger {
    /// Decides which clock the arrivals are by.
    ///
    /// The gateway's times are better, where they can be believed. One that is far from both its neighbours, seen
    /// from the daemon's clock, is wrong and is replaced. If with that they still spread over longer than a recording
    /// may be, beyond the time in which they came, they are all ignored: no clock fault makes hours of silence.
    pub(super) fn settle_clocks(&mut self, longest: Duration) {
        self.undo_steps();
        self.bring_clocks_together();
        self.choose_clock(longest);
        for ledger in &mut self.channels {
            let reports = ledger.heard.iter().map(|(when, report)| Report {
                arrival: when.at,
                ssrc: report.ssrc,
                ntp: report.ntp,
                timestamp: report.timestamp,
            });
            ledger.reports = reports.collect();
        }
    }

    /// Brings the gateway's times to what its clock showed at first: what both channels are stamped by, then each channel's.
    fn undo_steps(&mut self) {
        let mut stamps: Vec<Stamp> =
            Channel::BOTH.into_iter().flat_map(|channel| self.stamps_of(channel)).collect();
        stamps.sort_by_key(|stamp| stamp.offset);
        let is_one = are_by_one_clock(&stamps);
        let steps = if is_one { find_steps(&stamps, &self.restarted_at) } else { Vec::new() };
        drop(stamps);
        if !steps.is_empty() {
            self.clock_steps = u32::try_from(steps.len()).unwrap_or(u32::MAX);
            self.channels.iter_mut().for_each(|ledger| shift_packets(ledger, &steps));
            self.moments().for_each(|when| shift_moment(when, &steps));
        }
        Channel::BOTH.into_iter().for_each(|channel| self.undo_steps_of(channel));
    }

    /// The same of a channel that is stamped by a clock of its own, or was for a while.
    fn undo_steps_of(&mut self, channel: Channel) {
        let stamps: Vec<Stamp> = self.stamps_of(channel).collect();
        let steps = find_steps(&stamps, &self.restarted_at);
        if steps.is_empty() {
            return;
        }
        let count = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        self.clock_steps = self.clock_steps.saturating_add(count);
        shift_packets(&mut self.channels[channel.index()], &steps);
        self.moments_of(channel, |when| shift_moment(when, &steps));
    }

    fn stamps_of(&self, channel: Channel) -> impl Iterator<Item = Stamp> {
        let ledger = &self.channels[channel.index()];
        let both = ledger.rx.iter().zip(&ledger.payloads);
        both.filter_map(move |(rx, payload)| Stamp::of(channel, rx, payload))
    }

    /// All that happened beside audio.
    fn moments(&mut self) -> impl Iterator<Item = &mut Moment> {
        let marks = self.marks.iter_mut().map(|mark| &mut mark.when);
        let pauses = self.pauses.iter_mut().flat_map(PauseSpans::moments);
        let heard = self.channels.iter_mut().flat_map(|ledger| &mut ledger.heard);
        marks.chain(pauses).chain(&mut self.clears).chain(heard.map(|(when, _)| when))
    }

    fn choose_clock(&mut self, longest: Duration) {
        let mut offsets = Vec::new();
        for ledger in &mut self.channels {
            repair_lone_times(&mut ledger.rx, &ledger.payloads);
            let both = ledger.rx.iter().zip(&ledger.payloads);
            let stamped = both.filter(|(_, payload)| payload.has_gateway_time);
            offsets.extend(stamped.map(|(rx, payload)| rx.arrival.0.saturating_sub(payload.received.0)));
        }
        offsets.sort_unstable();
        // Without a single packet stamped by the gateway, all is by the daemon's clock, and so is what happened.
        let (Some(least), Some(greatest)) = (offsets.first(), offsets.last()) else { return };
        let median = offsets[offsets.len() / 2];
        let longest_us = i64::try_from(longest.as_micros()).unwrap_or(i64::MAX);
        self.is_gateway_ignored = greatest.saturating_sub(*least) > longest_us;
        if self.is_gateway_ignored {
            for ledger in &mut self.channels {
                ledger
                    .rx
                    .iter_mut()
                    .zip(&ledger.payloads)
                    .for_each(|(rx, payload)| rx.arrival = payload.received);
            }
            self.moments().for_each(|when| when.at = when.received);
            return;
        }
        let is_same = median.abs() < SAME_CLOCK_US;
        let offset = if is_same { 0 } else { median };
        for ledger in &mut self.channels {
            // By another clock, what a packet's neighbour shows is nearer: a capture may be replayed fast.
            let mut last = offset;
            for (rx, payload) in ledger.rx.iter_mut().zip(&ledger.payloads) {
                if !payload.has_gateway_time {
                    rx.arrival = payload.received.plus_us(last);
                } else if !is_same {
                    last = rx.arrival.0.saturating_sub(payload.received.0);
                }
            }
        }
        for when in self.moments() {
            when.at = when.gateway.unwrap_or(when.received.plus_us(offset));
        }
    }
}

fn shift_packets(ledger: &mut ChannelLedger, steps: &[Step]) {
    let both = ledger.rx.iter_mut().zip(&ledger.payloads);
    for (rx, payload) in both.filter(|(_, payload)| payload.has_gateway_time) {
        rx.arrival = rx.arrival.plus_us(shift_us(steps, payload.received, rx.arrival));
    }
}

fn shift_moment(when: &mut Moment, steps: &[Step]) {
    when.gateway = when.gateway.map(|gateway| gateway.plus_us(shift_us(steps, when.received, gateway)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ConnectionId, Scope};
    use crate::spool::scan::Located;
    use crate::spool::{Header, Record, RecordKind};
    use crate::time::{Mono, Wall};
    use crate::timeline::{Sender, place};

    const LONGEST: Duration = Duration::from_secs(14_400);
    const HOUR_US: i64 = 3_600_000_000;
    /// The gateway's clock when a call begins, by which the truth is told.
    const BEGIN: Wall = Wall(1_767_323_045_000_000);
    const LENGTH_US: i64 = 60_000_000;

    /// A call as a socket delivers it.
    struct Delivery {
        /// When the gateway's clock is set, and by how much.
        steps: Vec<(i64, i64)>,
        /// Whose clock that is, if not that of both.
        of: Option<Channel>,
        /// How many times faster than real time frames come.
        speed: i64,
        /// When the socket stalls, and for how long.
        stalls: Vec<(i64, i64)>,
        /// When a single packet has a wrong time, and by how much.
        wrong: Option<(i64, i64)>,
        /// Whether nothing at all is sent for two seconds of ten.
        has_pauses: bool,
        restart_us: Option<i64>,
    }

    impl Default for Delivery {
        fn default() -> Self {
            let (steps, stalls) = (Vec::new(), Vec::new());
            Self { steps, of: None, speed: 1, stalls, wrong: None, has_pauses: false, restart_us: None }
        }
    }

    /// Numbers that look random: jitter of up to 8 ms, and now and then of 70 ms.
    fn jitter_us(seed: &mut u64) -> i64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let drawn = i64::try_from(*seed >> 40).unwrap();
        if drawn.rem_euclid(200) == 0 { 70_000 } else { drawn % 8000 }
    }

    impl Delivery {
        fn play(&self, seed: u64) -> Ledger {
            let mut seed = seed;
            let mut frames: Vec<(i64, u8, Channel, Vec<u8>)> = Vec::new();
            let (mut sent, mut spoken) = (0_u16, 0_u16);
            for n in 0..LENGTH_US / 20_000 {
                let at_us = n * 20_000;
                if self.has_pauses && at_us % 10_000_000 >= 8_000_000 {
                    continue;
                }
                frames.push((at_us + jitter_us(&mut seed), 1, Channel::Caller, rtp(1, sent, sent)));
                sent += 1;
                // The AI speaks for three seconds of five, and its timestamps do not show the rest.
                if at_us % 5_000_000 < 3_000_000 {
                    frames.push((at_us + jitter_us(&mut seed), 1, Channel::Ai, rtp(2, spoken, spoken)));
                    spoken += 1;
                }
                if n % 250 == 100 {
                    frames.push((at_us, 8, Channel::Caller, br#"{"name":"m"}"#.to_vec()));
                }
            }
            frames.sort_by_key(|frame| frame.0);
            let mut ledger = ledger();
            let (mut received, mut base, mut offset) = (0, 0, 1000);
            for (at_us, kind, channel, body) in frames {
                offset += 100;
                if self.restart_us.is_some_and(|restart_us| base == 0 && at_us >= restart_us) {
                    let wall = (BEGIN.0 + at_us + 700_000).to_be_bytes();
                    let record = Record::resumed(Mono(0), &wall);
                    ledger.record(&Located { record, body_offset: offset });
                    (base, received) = (at_us, 0);
                }
                let stall = self.stalls.iter().find(|(from, length)| (*from..from + length).contains(&at_us));
                let held_us = stall.map_or(0, |(from, length)| from + length - at_us);
                let latency_us = 200 + jitter_us(&mut seed) / 2 + held_us;
                received = received.max((at_us - base) / self.speed + latency_us);
                let is_set = self.of.is_none_or(|of| channel == of);
                let steps = self.steps.iter().filter(|(from, _)| is_set && at_us >= *from);
                let set_us: i64 = steps.map(|(_, by)| by).sum();
                let wrong = self.wrong.filter(|(from, _)| {
                    channel == Channel::Caller && (*from..from + 10_000).contains(&at_us)
                });
                let gateway = BEGIN.plus_us(at_us + set_us + wrong.map_or(0, |(_, by)| by));
                let record = Record {
                    kind: RecordKind::Tap(kind),
                    scope: Scope::Channel(channel),
                    at: Mono(u64::try_from(received).unwrap()),
                    gateway: Some(gateway),
                    body: &body,
                };
                ledger.record(&Located { record, body_offset: offset });
            }
            ledger.close(LONGEST);
            ledger
        }
    }

    fn ledger() -> Ledger {
        let connection = ConnectionId::new("c").unwrap();
        Ledger::new(Header::derived(connection, BEGIN.plus_us(40_000), Mono(0), 1))
    }

    fn rtp(ssrc: u8, sequence: u16, packets: u16) -> Vec<u8> {
        let [high, low] = sequence.to_be_bytes();
        let mut packet = vec![0x80, 111, high, low];
        packet.extend_from_slice(&(u32::from(packets) * 960).to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0, ssrc, 0xf8, 1, 2]);
        packet
    }

    /// The greatest difference of two ledgers in the places of their packets, and in their marks.
    fn difference_us(one: &Ledger, other: &Ledger) -> (i64, i64) {
        let mut packets = 0;
        for channel in Channel::BOTH {
            let placed = [one, other].map(|ledger| {
                let ledger = &ledger.channels[channel.index()];
                place(&ledger.rx, Sender::Any, BEGIN, &[], &[]).packets
            });
            assert_eq!(placed[0].len(), placed[1].len());
            for (a, b) in placed[0].iter().zip(&placed[1]) {
                assert_eq!(a.rx, b.rx);
                packets = packets.max((a.at.to_us() - b.at.to_us()).abs());
            }
        }
        let pairs = one.marks.iter().zip(&other.marks);
        let marks = pairs.map(|(a, b)| (a.when.at.0 - b.when.at.0).abs()).max().unwrap_or(0);
        (packets, marks)
    }

    #[test]
    fn steps_of_the_gateways_clock_are_taken_out() {
        let cases: [&[(i64, i64)]; 10] = [
            &[(20_000_000, 400_000)],
            &[(33_333_000, 3_000_000)],
            &[(20_010_000, -300_000)],
            &[(44_000_000, -2_000_000)],
            &[(10_000_000, 1_500_000), (25_000_000, -700_000), (43_210_000, 2_500_000)],
            &[(30_000_000, 2 * HOUR_US)],
            &[(30_000_000, -2 * HOUR_US)],
            &[(30_000_000, 90_000)],
            &[(4_000_000, -90_000)],
            &[(58_500_000, 500_000)],
        ];
        for steps in cases {
            for seed in 1..4 {
                let straight = Delivery::default().play(seed);
                assert_eq!(straight.clock_steps, 0);
                let stepped = Delivery { steps: steps.to_vec(), ..Delivery::default() }.play(seed);
                let (packets, marks) = difference_us(&straight, &stepped);
                assert_eq!(usize::try_from(stepped.clock_steps).unwrap(), steps.len(), "{steps:?}");
                assert!(packets <= 10_000 && marks <= 10_000, "{steps:?}: {packets} {marks}");
            }
        }
    }

    #[test]
    fn steps_near_the_ends_are_taken_out() {
        for near_us in [60_000, 100_000, 400_000, 700_000] {
            for at_us in [near_us, LENGTH_US - near_us] {
                for by_us in [-HOUR_US, HOUR_US, -3_000_000, 3_000_000, 300_000, -300_000] {
                    for seed in 1..4 {
                        let straight = Delivery::default().play(seed);
                        let stepped = Delivery { steps: vec![(at_us, by_us)], ..Delivery::default() };
                        let stepped = stepped.play(seed);
                        let (packets, marks) = difference_us(&straight, &stepped);
                        assert_eq!(stepped.clock_steps, 1, "{by_us} at {at_us}, seed {seed}");
                        assert!(
                            packets <= 10_000 && marks <= 10_000,
                            "{by_us} at {at_us}: {packets} {marks}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn steps_of_a_clock_that_stamps_one_channel_are_taken_out_of_that() {
        for by_us in [-HOUR_US, HOUR_US, -10_000_000, 3_000_000, -3_000_000] {
            for seed in 1..4 {
                let straight = Delivery::default().play(seed);
                let stepped = Delivery {
                    steps: vec![(31_000_000, by_us)],
                    of: Some(Channel::Ai),
                    ..Delivery::default()
                };
                let stepped = stepped.play(seed);
                let (packets, marks) = difference_us(&straight, &stepped);
                assert_eq!(stepped.clock_steps, 1, "{by_us}, seed {seed}");
                assert!(packets <= 10_000 && marks <= 10_000, "{by_us}: {packets} {marks}");
            }
        }
    }

    #[test]
    fn steps_of_one_channels_clock_near_the_ends_are_taken_out() {
        let straight = Delivery::default().play(1);
        for near_us in [100_000, 500_000, 1_500_000] {
            for at_us in [near_us, LENGTH_US - 2_000_000 - near_us, LENGTH_US - near_us] {
                for by_us in [-HOUR_US, -3_000_000, -500_000, 700_000, HOUR_US] {
                    for of in Channel::BOTH {
                        let stepped =
                            Delivery { steps: vec![(at_us, by_us)], of: Some(of), ..Delivery::default() };
                        let stepped = stepped.play(1);
                        let (packets, marks) = difference_us(&straight, &stepped);
                        assert!(
                            packets <= 15_000 && marks <= 15_000,
                            "{by_us} at {at_us} of {of:?}: {packets} {marks}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_clock_that_steps_and_returns_at_once_moves_nothing() {
        let straight = Delivery::default().play(1);
        for of in [None, Some(Channel::Caller), Some(Channel::Ai)] {
            for at_us in [2_000_000, 31_000_000] {
                for for_us in [300_000, 1_300_000] {
                    for by_us in [-HOUR_US, -30_000_000, -3_000_000, -400_000] {
                        let steps = vec![(at_us, by_us), (at_us + for_us, -by_us)];
                        let stepped = Delivery { steps, of, ..Delivery::default() }.play(1);
                        let (packets, marks) = difference_us(&straight, &stepped);
                        assert!(
                            packets <= 15_000 && marks <= 15_000,
                            "{by_us} for {for_us} at {at_us} of {of:?}: {packets} {marks}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_step_is_not_taken_for_one() {
        let stalls = vec![(10_000_000, 800_000), (20_000_000, 3_000_000), (40_000_000, 6_000_000)];
        let at_ends =
            [60_000, 100_000, 300_000, 500_000].map(|long| vec![(0, long), (LENGTH_US - long, long)]);
        for seed in 1..4 {
            for stalls in [Vec::new(), stalls.clone()].into_iter().chain(at_ends.clone()) {
                let delivery = Delivery { stalls, ..Delivery::default() };
                assert_eq!(delivery.play(seed).clock_steps, 0);
            }
            for (speed, has_pauses) in
                [1, 2, 10, 1_000, 1_000_000].map(|speed| [(speed, false), (speed, true)]).concat()
            {
                let delivery = Delivery { speed, has_pauses, ..Delivery::default() };
                assert_eq!(delivery.play(seed).clock_steps, 0, "{speed} times as fast");
            }
            let wrong = Delivery { wrong: Some((30_000_000, HOUR_US)), ..Delivery::default() }.play(seed);
            assert_eq!(wrong.clock_steps, 0);
            let restarted = Delivery { restart_us: Some(30_000_000), ..Delivery::default() }.play(seed);
            assert_eq!((restarted.clock_steps, restarted.restarts), (0, 1));
        }
    }

    #[test]
    fn a_single_wrong_time_moves_nothing() {
        for seed in 1..3 {
            let straight = Delivery::default().play(seed);
            for at_us in [0, 20_000, 30_000_000, LENGTH_US - 40_000, LENGTH_US - 20_000] {
                for by_us in [-100_000, -1_000_000, -20_000_000, -59_000_000, -HOUR_US, HOUR_US] {
                    let wrong = Delivery { wrong: Some((at_us, by_us)), ..Delivery::default() }.play(seed);
                    let (packets, _) = difference_us(&straight, &wrong);
                    assert_eq!(wrong.clock_steps, 0, "{by_us} at {at_us}");
                    assert!(packets <= 10_000, "{by_us} at {at_us}, seed {seed}: {packets}");
                }
            }
        }
    }

    #[test]
    fn a_step_before_a_restart_is_still_one_behind_it() {
        let steps = vec![(15_000_000, -HOUR_US), (45_000_000, 400_000)];
        let straight = Delivery { restart_us: Some(30_000_000), ..Delivery::default() }.play(1);
        let delivery = Delivery { restart_us: Some(30_000_000), steps, ..Delivery::default() };
        let stepped = delivery.play(1);
        assert_eq!(stepped.clock_steps, 2);
        let (packets, marks) = difference_us(&straight, &stepped);
        assert!(packets <= 10_000 && marks <= 10_000, "{packets} {marks}");
    }
}
