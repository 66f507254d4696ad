//! Sequence numbers and timestamps made whole: RFC 3550 appendix A.1, with the whole call to look at.
//!
//! An [`Epoch`] is a stretch of one SSRC with one numbering and one clock. A packet that does not fit the numbering
//! is odd in one number (the next packets go on as before, and its other number tells its place), a stray (neither
//! does), the far side of a long outage (its timestamp went on with the clock), or the first of a new epoch (the sender
//! began anew). One that came before is a duplicate only if it says the same, and what follows it neither goes on from it
//! with something new nor is the same prompt, played again: senders that begin each utterance at the same numbers do.
//! One that is missing and whose timestamp is just what its number says is late, however far back. Memory: 24 bytes a
//! packet.

use std::ops::Range;

use super::behind::Behind;
use super::looks::Looks;
use super::others::used_by_others;
use super::{Counts, Rx, RxKind, index};

/// A greater step forward of the sequence number is a restart, unless time says otherwise (RFC 3550 MAX_DROPOUT).
const DROPOUT: i64 = 3000;
/// A packet that is farther back, as live ones overtake a queue, fits exactly or it is none of the epoch. RFC 3550 says
/// 100; bursts on mobile networks reorder more.
const MISORDER: i64 = 300;
/// No packet lasts longer: how far timestamps may run for each sequence number.
const PACKET_MAX_S: f64 = 0.12;
/// No packet arrives before it was sent: a timestamp that makes one this much earlier than any so far jumped.
const AHEAD_MAX_US: i64 = 10_000_000;
/// The most epochs of a channel: one each quarter of a second for four hours. The packets of more are strays.
const EPOCHS_MAX: usize = 65_536;
/// A copy of a packet that comes this much later is asked whether its sender began anew.
pub(super) const COPY_LATE_US: i64 = 500_000;
/// The same of one that never came, and is this much later than what came before it.
const OVERDUE_US: i64 = 300_000;
/// A packet of which one number is odd is no farther ahead by the other than this.
const ODD_STEPS: i64 = 3;
/// Packets that arrive closer to each other belong together: several packets' lengths.
pub(super) const NEAR_US: i64 = 200_000;

/// One packet in its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwrapped {
    /// Which packet: an index into the slice given to [`unwrap`].
    pub rx: u32,
    /// The extended sequence number; the epoch's first packet to arrive has 0.
    pub sequence: i64,
    /// The extended timestamp in ticks; the epoch's first packet to arrive has 0.
    pub ticks: i64,
}

/// A stretch of one SSRC with one numbering.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// Ticks in a second.
    pub clock_hz: u32,
    /// Which packets of [`AllEpochs::packets`] it has.
    range: Range<u32>,
    first_rx: u32,
}

/// All epochs of a channel, in the order in which they began.
#[derive(Clone, Debug, Default)]
pub struct AllEpochs {
    /// The epochs, as many as there may be.
    pub epochs: Vec<Epoch>,
    /// The packets of all epochs, those of each in order of their sequence numbers.
    pub packets: Vec<Unwrapped>,
    /// Duplicates, reordered packets and strays, and the sequence numbers of epochs that never arrived.
    pub counts: Counts,
    /// What finds packets by their numbers, of epochs that are over: to make one takes longer than a short epoch.
    spare: Vec<Vec<u32>>,
}

impl AllEpochs {
    /// The packets of an epoch.
    #[must_use]
    pub fn packets_of(&self, epoch: &Epoch) -> &[Unwrapped] {
        &self.packets[index(epoch.range.start)..index(epoch.range.end)]
    }

    /// Begins an epoch.
    fn begin(&mut self, rx: u32, packet: &Rx) -> Builder {
        let places = self.spare.pop().unwrap_or_else(|| vec![0; PLACES]);
        Builder::begin(rx, packet, places)
    }

    /// Takes over an epoch that is over.
    fn finish(&mut self, epoch: Builder) {
        let Builder { first_rx, clock_hz, mut packets, places, .. } = epoch;
        self.spare.push(places);
        if self.epochs.len() == EPOCHS_MAX {
            self.counts.stray += u64::try_from(packets.len()).unwrap_or(0);
            return;
        }
        if !packets.is_sorted_by_key(|unwrapped| unwrapped.sequence) {
            packets.sort_by_key(|unwrapped| unwrapped.sequence);
        }
        let steps = packets.windows(2).map(|pair| pair[1].sequence - pair[0].sequence - 1);
        self.counts.lost += steps.map(|missing| u64::try_from(missing).unwrap_or(0)).sum::<u64>();
        let start = count(&self.packets);
        if start == 0 {
            self.packets = packets;
        } else {
            self.packets.append(&mut packets);
        }
        self.epochs.push(Epoch { clock_hz, range: start..count(&self.packets), first_rx });
    }
}

fn count(packets: &[Unwrapped]) -> u32 {
    u32::try_from(packets.len()).unwrap_or(u32::MAX)
}

/// Unwraps the packets of one channel, given in the order of their receipt.
#[must_use]
pub fn unwrap(packets: &[Rx]) -> AllEpochs {
    let ssrc = |rx: &u32| packets[index(*rx)].ssrc;
    // By source, and each source's in the order of their receipt.
    let mut order: Vec<u32> = (0u32..).zip(packets).map(|(rx, _)| rx).collect();
    order.sort_by_key(ssrc);
    let mut all = AllEpochs::default();
    for source in order.chunk_by(|one, other| ssrc(one) == ssrc(other)) {
        unwrap_source(source, packets, &mut all);
    }
    all.epochs.sort_by_key(|epoch| epoch.first_rx);
    all.spare = Vec::new();
    if packets.iter().any(|packet| packet.ssrc != packets[0].ssrc) {
        all.counts.lost -= used_by_others(&all, packets);
    }
    all
}

fn unwrap_source(source: &[u32], packets: &[Rx], all: &mut AllEpochs) {
    let mut current: Option<Builder> = None;
    let mut previous: Option<Builder> = None;
    let mut looks = Looks::at(source.len());
    for (position, rx) in source.iter().enumerate() {
        let packet = &packets[index(*rx)];
        let Some(epoch) = &mut current else {
            // Numbers of packets without audio say nothing about where the audio begins.
            if packet.kind != RxKind::Beside {
                current = Some(all.begin(*rx, packet));
            }
            continue;
        };
        let behind = Behind { source: &source[position + 1..], packets };
        let mut fit = epoch.try_packet(*rx, packets, false);
        if fit == Fit::Overdue {
            let is_anew = behind.begins_anew(epoch, packet, &mut looks);
            fit = if is_anew { Fit::Not } else { epoch.add_late(*rx, packet) };
        }
        if fit == Fit::Not
            && let Some(before) = previous.as_mut().filter(|before| seconds(before, packet) < 3.0)
        {
            fit = before.try_packet(*rx, packets, true);
            if fit == Fit::Overdue {
                let is_stray = behind.goes_on(epoch, packet).is_some();
                fit = if is_stray { before.add_late(*rx, packet) } else { Fit::Not };
            }
        }
        if let Fit::Duplicate { late_us } = fit
            && late_us > COPY_LATE_US
        {
            if behind.begins_anew(epoch, packet, &mut looks) {
                fit = Fit::Not;
            } else {
                epoch.copied_us = Some(packet.arrival.0);
            }
        }
        match fit {
            Fit::Forward => continue,
            Fit::Late => all.counts.reordered += 1,
            Fit::Duplicate { .. } => all.counts.duplicate += 1,
            Fit::Not | Fit::Overdue | Fit::OddNumber | Fit::OddTime if packet.kind == RxKind::Beside => {
                all.counts.stray += 1;
            }
            Fit::Not | Fit::Overdue | Fit::OddNumber | Fit::OddTime => {
                if let Some(next) = behind.goes_on(epoch, packet) {
                    let is_placed = epoch.add_odd(*rx, packet, fit, next);
                    all.counts.stray += u64::from(!is_placed);
                } else if fit == Fit::OddNumber && epoch.add_jump(*rx, packet) {
                    continue;
                } else if epoch.is_beyond_outage(packet) {
                    epoch.add_beyond_outage(*rx, packet);
                } else {
                    let restarted = current.replace(all.begin(*rx, packet));
                    if let Some(over) = std::mem::replace(&mut previous, restarted) {
                        all.finish(over);
                    }
                }
            }
        }
    }
    previous.into_iter().chain(current).for_each(|over| all.finish(over));
}

/// Whether a packet says the same as one that came with its number.
pub(super) fn is_same(came: &Rx, packet: &Rx) -> bool {
    came.timestamp == packet.timestamp && came.digest == packet.digest
}

fn seconds(before: &Builder, packet: &Rx) -> f64 {
    as_seconds(packet.arrival.0.saturating_sub(before.last_arrival_us))
}

#[expect(clippy::cast_precision_loss, reason = "only compared with thresholds of whole milliseconds")]
fn as_seconds(us: i64) -> f64 {
    us as f64 / 1e6
}

/// The signed step from one 16-bit number to another.
pub(super) fn sequence_step(from: u16, to: u16) -> i16 {
    to.wrapping_sub(from).cast_signed()
}

/// The signed step from one 32-bit timestamp to another.
pub(super) fn timestamp_step(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Forward,
    Late,
    /// It would be late by more than the network keeps a packet back.
    Overdue,
    /// It came before, by so much.
    Duplicate {
        late_us: i64,
    },
    /// Its timestamp goes on, its sequence number does not.
    OddNumber,
    /// Its sequence number goes on, its timestamp does not.
    OddTime,
    Not,
}

/// Enough to find a packet within [`DROPOUT`]; a power of two.
const PLACES: usize = 4096;
/// A packet that is far back fits by one that is so many numbers off at most.
const FITS_BY: i64 = 64;

pub(super) struct Builder {
    first_rx: u32,
    pub(super) clock_hz: u32,
    packets: Vec<Unwrapped>,
    pub(super) top: i64,
    pub(super) top_sequence: u16,
    pub(super) top_timestamp: u32,
    top_ticks: i64,
    pub(super) last_arrival_us: i64,
    /// The least that arrival is behind media time.
    least_delay_us: i64,
    /// What the timestamp last advanced by from one number to the next. 0 until it did.
    step_ticks: i64,
    /// When the last copy came that was late and no more.
    pub(super) copied_us: Option<i64>,
    /// Where in `packets` those are that came last, by number modulo [`PLACES`]; elsewhere, anything.
    places: Vec<u32>,
}

impl Builder {
    fn begin(rx: u32, packet: &Rx, places: Vec<u32>) -> Self {
        let mut builder = Self {
            first_rx: rx,
            clock_hz: packet.clock_hz,
            packets: Vec::new(),
            top: 0,
            top_sequence: packet.sequence,
            top_timestamp: packet.timestamp,
            top_ticks: 0,
            last_arrival_us: packet.arrival.0,
            least_delay_us: packet.arrival.0,
            step_ticks: 0,
            copied_us: None,
            places,
        };
        builder.add(rx, packet, 0, 0);
        builder
    }

    fn try_packet(&mut self, rx: u32, packets: &[Rx], only_late: bool) -> Fit {
        let packet = &packets[index(rx)];
        let is_beside = packet.kind == RxKind::Beside;
        if packet.clock_hz != self.clock_hz && !is_beside {
            return Fit::Not;
        }
        let step = i64::from(sequence_step(self.top_sequence, packet.sequence));
        let ticks = i64::from(timestamp_step(self.top_timestamp, packet.timestamp));
        let clock = f64::from(self.clock_hz);
        let media_s = f64::from(timestamp_step(self.top_timestamp, packet.timestamp)) / clock;
        let sequence = self.top + step;
        if step <= 0 {
            let is_far = step < -MISORDER;
            if is_far && self.goes_on_in_time(ticks) {
                return Fit::OddNumber;
            }
            if let Some(came) = self.came(sequence).filter(|_| step >= -DROPOUT) {
                let came = &packets[index(came.rx)];
                let late_us = packet.arrival.0.saturating_sub(came.arrival.0);
                return if is_same(came, packet) { Fit::Duplicate { late_us } } else { Fit::Not };
            }
            if is_far {
                let is_late = step >= -DROPOUT && !only_late && !is_beside && self.is_missing(packet);
                return if is_late { Fit::Overdue } else { Fit::Not };
            }
            if !is_beside && !(-41.0..=0.5).contains(&media_s) {
                return Fit::Not;
            }
            if self.is_overdue(packet, ticks) {
                return Fit::Overdue;
            }
            return self.add_late(rx, packet);
        }
        if only_late {
            return Fit::Not;
        }
        if step > DROPOUT {
            return if self.goes_on_in_time(ticks) { Fit::OddNumber } else { Fit::Not };
        }
        if is_beside {
            // DTMF repeats the timestamp of the key's beginning: its number counts, its time does not.
            self.add(rx, packet, sequence, self.top_ticks);
            return Fit::Forward;
        }
        let most_s = f64::from(i32::try_from(step).unwrap_or(i32::MAX)) * PACKET_MAX_S + 0.2;
        let is_too_early = self.delay_us(packet, self.top_ticks + ticks) < self.least_delay_us - AHEAD_MAX_US;
        if media_s < 0.0 || (media_s > most_s && is_too_early) {
            return if step <= ODD_STEPS { Fit::OddTime } else { Fit::Not };
        }
        if step > ODD_STEPS && 2 * ticks < step * self.step_ticks && self.goes_on_in_time(ticks) {
            return Fit::OddNumber;
        }
        self.add(rx, packet, sequence, self.top_ticks + ticks);
        Fit::Forward
    }

    /// Whether a packet with a lower number is far behind the one that came last. That of a key press says no time.
    fn is_overdue(&self, packet: &Rx, ticks: i64) -> bool {
        let ticks = if packet.kind == RxKind::Beside { 0 } else { ticks };
        let media_us = ticks.saturating_mul(1_000_000) / i64::from(self.clock_hz);
        packet.arrival.0.saturating_sub(self.last_arrival_us).saturating_sub(media_us) > OVERDUE_US
    }

    /// Adds a packet that others with higher numbers overtook.
    fn add_late(&mut self, rx: u32, packet: &Rx) -> Fit {
        let step = i64::from(sequence_step(self.top_sequence, packet.sequence));
        let ticks = i64::from(timestamp_step(self.top_timestamp, packet.timestamp));
        self.add(rx, packet, self.top + step, self.top_ticks + ticks);
        Fit::Late
    }

    /// Whether the packet's timestamp went on with the clock over a time in which nothing arrived, so that its
    /// sequence number is unknown by multiples of 2^16 only.
    fn is_beyond_outage(&self, packet: &Rx) -> bool {
        let media_s =
            f64::from(timestamp_step(self.top_timestamp, packet.timestamp)) / f64::from(self.clock_hz);
        let arrived_s = as_seconds(packet.arrival.0.saturating_sub(self.last_arrival_us));
        let is_in_step = (media_s - arrived_s).abs() < 0.5;
        packet.clock_hz == self.clock_hz && media_s > 0.0 && is_in_step && arrived_s > 2.0
    }

    /// Whether a timestamp is that of the next packet, or one soon behind it.
    fn goes_on_in_time(&self, ticks: i64) -> bool {
        ticks > 0 && ticks <= ODD_STEPS * self.step_ticks
    }

    /// Adds a packet of which one number is odd by the other one; `next` goes on behind it. Whether there is a place.
    fn add_odd(&mut self, rx: u32, packet: &Rx, fit: Fit, next: &Rx) -> bool {
        let step = match fit {
            Fit::OddNumber => 1,
            Fit::OddTime => i64::from(sequence_step(self.top_sequence, packet.sequence)),
            _ => return false,
        };
        let next_step = i64::from(sequence_step(self.top_sequence, next.sequence));
        if next_step <= step || self.step_ticks == 0 {
            return false;
        }
        let own_ticks = i64::from(timestamp_step(self.top_timestamp, packet.timestamp));
        let next_ticks = i64::from(timestamp_step(self.top_timestamp, next.timestamp));
        let is_near_next = next.arrival.0.saturating_sub(packet.arrival.0) < NEAR_US;
        let ticks = match fit {
            Fit::OddNumber => own_ticks,
            _ if is_near_next => next_ticks - (next_step - step) * self.step_ticks,
            _ => step * self.step_ticks,
        };
        if ticks <= 0 || ticks >= next_ticks {
            return false;
        }
        let step_as = |step: i64| u32::try_from(step).unwrap_or(0);
        let timestamp = self.top_timestamp.wrapping_add(step_as(ticks));
        let sequence = self.top_sequence.wrapping_add(u16::try_from(step).unwrap_or(0));
        self.add(rx, &Rx { timestamp, sequence, ..*packet }, self.top + step, self.top_ticks + ticks);
        true
    }

    /// Adds a packet whose number jumped ahead although its timestamp did not, and behind which the numbers go on from
    /// there. Not one that is too far.
    fn add_jump(&mut self, rx: u32, packet: &Rx) -> bool {
        let step = i64::from(sequence_step(self.top_sequence, packet.sequence));
        let ticks = i64::from(timestamp_step(self.top_timestamp, packet.timestamp));
        let is_near = (1..=DROPOUT).contains(&step);
        if is_near {
            self.add(rx, packet, self.top + step, self.top_ticks + ticks);
        }
        is_near
    }

    fn add_beyond_outage(&mut self, rx: u32, packet: &Rx) {
        let step = i64::from(packet.sequence.wrapping_sub(self.top_sequence)).max(1);
        let ticks = i64::from(timestamp_step(self.top_timestamp, packet.timestamp));
        self.add(rx, packet, self.top + step, self.top_ticks + ticks);
    }

    fn add(&mut self, rx: u32, packet: &Rx, sequence: i64, ticks: i64) {
        self.places[slot(sequence)] = count(&self.packets);
        self.packets.push(Unwrapped { rx, sequence, ticks });
        self.last_arrival_us = self.last_arrival_us.max(packet.arrival.0);
        if packet.kind != RxKind::Beside {
            self.least_delay_us = self.least_delay_us.min(self.delay_us(packet, ticks));
        }
        if sequence >= self.top {
            if sequence == self.top + 1 && packet.kind != RxKind::Beside && ticks > self.top_ticks {
                self.step_ticks = ticks - self.top_ticks;
            }
            self.top = sequence;
            self.top_sequence = packet.sequence;
            if packet.kind != RxKind::Beside {
                self.top_timestamp = packet.timestamp;
                self.top_ticks = ticks;
            }
        }
    }

    /// How far the arrival of a packet is behind its media time.
    fn delay_us(&self, packet: &Rx, ticks: i64) -> i64 {
        let media_us = i128::from(ticks) * 1_000_000 / i128::from(self.clock_hz);
        packet.arrival.0.saturating_sub(i64::try_from(media_us).unwrap_or(i64::MAX))
    }

    /// The packet of a number, if it came.
    pub(super) fn came(&self, sequence: i64) -> Option<&Unwrapped> {
        let at = self.places[slot(sequence)];
        self.packets.get(index(at)).filter(|unwrapped| unwrapped.sequence == sequence)
    }

    /// Whether a packet that did not come is missing in the middle, and its timestamp is just what its number says.
    pub(super) fn is_missing(&self, packet: &Rx) -> bool {
        let step = i64::from(sequence_step(self.top_sequence, packet.sequence));
        let from_top = i64::from(timestamp_step(self.top_timestamp, packet.timestamp));
        let (sequence, ticks) = (self.top + step, self.top_ticks + from_top);
        let fits = |near: i64| {
            let steps_ticks = (sequence - near) * self.step_ticks;
            self.came(near).is_some_and(|near| near.ticks + steps_ticks == ticks)
        };
        let is_in_middle = sequence > 0 && step < 0 && self.step_ticks > 0;
        is_in_middle
            && (from_top == step * self.step_ticks
                || (1..=FITS_BY).any(|by| fits(sequence - by) || fits(sequence + by)))
    }
}

fn slot(sequence: i64) -> usize {
    let size = i64::try_from(PLACES).expect("a small constant");
    usize::try_from(sequence.rem_euclid(size)).expect("a remainder is not negative")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    fn rx(n: u32) -> Rx {
        Rx {
            arrival: Wall(i64::from(n) * 20_000),
            ssrc: 9,
            timestamp: 0xffff_0000_u32.wrapping_add(n.wrapping_mul(960)),
            clock_hz: 48_000,
            samples: 960,
            sequence: u16::try_from(n & 0xffff).unwrap().wrapping_add(65_000),
            bytes: 60,
            digest: u16::try_from(n & 0xffff).unwrap(),
            kind: RxKind::Audio,
            is_speech: None,
        }
    }

    #[test]
    fn numbers_wrap_without_a_seam() {
        let packets: Vec<_> = (0..140_000).map(rx).collect();
        let all = unwrap(&packets);
        assert_eq!(all.epochs.len(), 1);
        assert_eq!((all.counts.lost, all.packets.len()), (0, 140_000));
        assert_eq!(all.packets.last().unwrap().ticks, 139_999 * 960);
    }

    #[test]
    fn an_outage_longer_than_the_numbers_reach_is_one_epoch() {
        let packets: Vec<_> = (0..100).chain(5_000..5_100).map(rx).collect();
        let all = unwrap(&packets);
        assert_eq!((all.epochs.len(), all.counts.lost), (1, 4_900));
        assert_eq!(all.packets[100].ticks, 5_000 * 960);
    }

    #[test]
    fn a_sender_that_begins_anew_opens_an_epoch() {
        let again = |n: u32| Rx { sequence: u16::try_from(n).unwrap() + 30_000, timestamp: n * 960, ..rx(n) };
        let packets: Vec<_> = (0..100).map(rx).chain((100..200).map(again)).collect();
        let all = unwrap(&packets);
        assert_eq!(all.epochs.len(), 2);
        assert_eq!(all.counts, Counts::default());
    }

    #[test]
    fn a_channel_has_so_many_epochs_and_what_is_beyond_them_is_stray() {
        let packets: Vec<_> = (0..70_000).map(|n| Rx { ssrc: n, ..rx(n) }).collect();
        let all = unwrap(&packets);
        assert_eq!((all.epochs.len(), all.counts.stray), (EPOCHS_MAX, 70_000 - 65_536));
    }

    #[test]
    fn a_change_of_clock_opens_an_epoch() {
        let packets: Vec<_> =
            (0..20).map(|n| Rx { clock_hz: if n < 10 { 48_000 } else { 8000 }, ..rx(n) }).collect();
        assert_eq!(unwrap(&packets).epochs.len(), 2);
    }
}
