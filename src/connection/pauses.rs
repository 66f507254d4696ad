//! The times of one channel that are not kept: what PAUSE and RESUME have said, each with a time of its own.
//!
//! Time is told here as the channel's packets tell it, by the gateway's stamps where they have any ([`Stamp::own`]). A PAUSE or
//! RESUME without a stamp comes right behind the last packet; where that has none either, a RESUME not later than its own
//! receipt. A PAUSE holds from its time, or from its receipt if that is earlier, until a RESUME that is received after it. So a
//! packet is kept out if a pause stands when it comes, or if its own time lies in one that is over. A PAUSE with an earlier time
//! also takes out what was kept before it came: [`Pauses::taken_out`].
//!
//! Two stamps of the gateway are compared as they are: a RESUME that is older than the PAUSE was overtaken by it and ends
//! nothing, unless it is older by more than a minute: then the gateway's clock was set.

use serde::{Deserialize, Serialize};

use crate::frame::PauseMode;
use crate::time::Wall;

/// How much older a RESUME may be than the PAUSE that has overtaken it.
const OVERTAKEN_MAX_US: i64 = 60_000_000;
/// How long after a pause packets of it may still come.
const LATE_MAX_US: i64 = 60_000_000;
/// Pauses that are over and still kept in mind.
const CLOSED_MAX: usize = 64;
/// A command whose stamp lies farther than this from its receipt has no clock: longer than a call. A day.
const APART_MAX_US: i64 = 86_400_000_000;
/// Gateway and daemon clocks that differ by less are taken for one.
const SAME_CLOCK_US: i64 = 2_000_000;

/// When something happened: by the daemon's clock when it was received, and by the gateway's own stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// When it was received.
    pub received: Wall,
    /// What the gateway says.
    pub gateway: Option<Wall>,
}

impl Stamp {
    /// A stamp of the daemon alone.
    #[must_use]
    pub fn received(received: Wall) -> Self {
        Self { received, gateway: None }
    }

    /// The gateway's time; without one, when it was received.
    #[must_use]
    pub fn own(self) -> Wall {
        self.gateway.unwrap_or(self.received)
    }
}

/// A pause that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// From when on packets are kept out.
    pub from: Wall,
    /// Whether the gateway has said so, or it follows from the receipt.
    pub is_stamped: bool,
    /// What it leaves in the recording.
    pub mode: PauseMode,
    /// Times of which something was kept before it came, and is to be taken out: the first and the last.
    kept: Option<(Wall, Wall)>,
}

/// A pause that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Closed {
    from: Wall,
    to: Wall,
    /// When its RESUME was received.
    ended: Wall,
}

/// What a PAUSE did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It began a pause.
    New,
    /// The pause that stands begins earlier.
    Earlier,
    /// The pause that stood has ended, one of another mode begins.
    OtherMode,
    /// Nothing: the pause stands already.
    Same,
}

/// The pauses of one channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pauses {
    standing: Option<Standing>,
    closed: Vec<Closed>,
    /// The last packet.
    last: Option<Stamp>,
    /// The latest own time of what was kept.
    kept_until: Option<Wall>,
    /// Times of which something was kept, from and to, and is to be taken out.
    #[serde(skip)]
    taken_out: Vec<(Wall, Wall)>,
}

impl Pauses {
    /// The pause that stands.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        self.standing
    }

    /// When a command came, by the clock of the packets where they have stamps and it has none.
    #[must_use]
    pub fn by_packets(&self, at: Stamp) -> Stamp {
        let estimate = |last: Stamp| {
            let gateway = last.gateway?;
            let ahead_us = gateway.0.saturating_sub(last.received.0);
            Some(at.received.plus_us(ahead_us).max(after(gateway)))
        };
        Stamp { gateway: at.gateway.or_else(|| estimate(self.last?)), ..at }
    }

    /// When something happened of which [`Pauses::by_packets`] has told the time.
    #[must_use]
    pub fn happened(&self, at: Stamp) -> Wall {
        at.gateway.map_or(at.received, |_| self.own_of(at))
    }

    /// Notes a packet, and tells whether it is to be kept out.
    pub fn enter_packet(&mut self, at: Stamp) -> bool {
        let own = at.own();
        self.last = Some(at);
        let is_out = self.keep_out(at);
        if !is_out {
            self.note_kept(own);
        }
        is_out
    }

    /// Notes a packet of which only the header was kept.
    pub fn enter_withheld(&mut self, at: Stamp) {
        self.last = Some(at);
    }

    /// Notes that packets may have come until then, as if the last had come then.
    pub fn note_unknown(&mut self, received: Wall) {
        let Some(last) = self.last else { return };
        let later_us = received.0.saturating_sub(last.received.0).max(0);
        self.last = Some(Stamp {
            received: last.received.plus_us(later_us),
            gateway: last.gateway.map(|gateway| gateway.plus_us(later_us)),
        });
    }

    /// Whether something is to be kept out that happened then.
    #[must_use]
    pub fn keep_out(&self, at: Stamp) -> bool {
        let (own, received) = (at.own(), at.received);
        let is_in = |pause: &&Closed| {
            pause.from <= own && own < pause.to && received.0.saturating_sub(pause.ended.0) <= LATE_MAX_US
        };
        self.standing.is_some() || self.closed.iter().rev().any(|pause| is_in(&pause))
    }

    /// The latest own time of what was kept.
    #[must_use]
    pub fn kept_until(&self) -> Option<Wall> {
        self.kept_until
    }

    /// Notes that something of this time was kept.
    pub fn note_kept(&mut self, own: Wall) {
        self.kept_until = self.kept_until.max(Some(own));
    }

    /// Begins a pause.
    pub fn begin(&mut self, at: Stamp, mode: PauseMode) -> Begun {
        let from = self.own_of(at);
        let is_stamped = at.gateway.is_some();
        // A packet of the same stamp as a PAUSE behind it was spoken before.
        let kept = self.kept_until.filter(|kept| is_stamped && from < *kept).map(|kept| (from, kept));
        let begun = match self.standing {
            None => Begun::New,
            Some(standing) if from < standing.from && is_stamped => Begun::Earlier,
            Some(standing) if standing.mode != mode => {
                self.close(from.max(standing.from), None, at.received);
                Begun::OtherMode
            }
            Some(standing) => {
                // The first has told no time, and this one does: one that reaches back.
                let kept = if standing.is_stamped { standing.kept } else { joined(kept, standing.kept) };
                self.standing = Some(Standing { kept, ..standing });
                return Begun::Same;
            }
        };
        let kept = joined(kept, self.standing.and_then(|standing| standing.kept));
        self.standing = Some(Standing { from, is_stamped, mode, kept });
        begun
    }

    /// Ends the pause that stands. False if this was overtaken by the PAUSE and ends nothing.
    pub fn end(&mut self, at: Stamp) -> bool {
        let Some(standing) = self.standing else { return true };
        let to = self.own_of(at);
        let early_us = standing.from.0.saturating_sub(to.0);
        let is_stamped = at.gateway.is_some() && standing.is_stamped;
        if is_stamped && (1..=OVERTAKEN_MAX_US).contains(&early_us) {
            return false;
        }
        // One without a time says no more than that it is over now, and so does an older one that ends it all the same.
        let stamped = (at.gateway.is_some() && early_us <= 0).then_some(to);
        let to = stamped.unwrap_or_else(|| {
            let behind = self.own_of(Stamp::received(at.received));
            match self.last {
                // Packets that were read at once with the RESUME have one time; those behind it are not of the pause.
                Some(Stamp { gateway: None, .. }) => behind.min(at.received),
                _ => behind,
            }
        });
        self.close(to, stamped, at.received);
        true
    }

    /// Whether something that was kept is to be taken out.
    #[must_use]
    pub fn takes_out(&self) -> bool {
        !self.taken_out.is_empty() || self.standing.is_some_and(|standing| standing.kept.is_some())
    }

    /// The times of which all that was kept is to be taken out: in order, and none touches another.
    #[must_use]
    pub fn taken_out(&self) -> TakenOut {
        let standing =
            self.standing.and_then(|standing| standing.kept).map(|(from, last)| (from, after(last)));
        TakenOut::of(self.taken_out.iter().copied().chain(standing))
    }

    /// Takes the state that was noted, and goes on knowing what is still to be taken out.
    pub fn restore(&mut self, noted: Self) {
        let mut taken_out = std::mem::take(&mut self.taken_out);
        let kept = self.standing.and_then(|standing| standing.kept);
        *self = Self { taken_out: Vec::new(), ..noted };
        // Whoever noted it has left it to the rewriter, who reads this.
        match &mut self.standing {
            Some(standing) => standing.kept = joined(kept, standing.kept),
            None => taken_out.extend(kept.map(|(from, last)| (from, after(last)))),
        }
        self.taken_out = taken_out;
    }

    /// Notes that what is to be taken out is.
    pub fn note_taken_out(&mut self) {
        self.taken_out.clear();
        if let Some(standing) = &mut self.standing {
            standing.kept = None;
        }
    }

    /// Forgets what no packet can ask for any more.
    pub fn forget(&mut self, now: Wall) {
        self.closed.retain(|pause| now.0.saturating_sub(pause.ended.0) <= LATE_MAX_US);
        let many = self.closed.len().saturating_sub(CLOSED_MAX);
        self.closed.drain(..many);
    }

    /// When something happened, as packets tell it.
    fn own_of(&self, at: Stamp) -> Wall {
        match (at.gateway, self.last) {
            // Packets are by the daemon's clock, which the gateway's may be ahead of; nobody speaks of what is to come.
            (Some(gateway), Some(Stamp { gateway: None, received })) => {
                gateway.min(received.max(at.received))
            }
            (Some(gateway), _) => gateway,
            (None, last) => last.map_or(at.received, |last| after(last.own())),
        }
    }

    /// Ends the pause that stands. What was kept before it came is taken out up to its end, if the gateway has said when
    /// that was.
    fn close(&mut self, to: Wall, stamped: Option<Wall>, ended: Wall) {
        let Some(Standing { from, kept, .. }) = self.standing.take() else { return };
        if let Some((first, last)) = kept {
            let until = stamped.map_or(after(last), |to| to.min(after(last)));
            self.taken_out.extend((first < until).then_some((first, until)));
        }
        if from < to {
            self.closed.push(Closed { from, to, ended });
        }
    }
}

/// Times of which something was kept, as one.
fn joined(one: Option<(Wall, Wall)>, other: Option<(Wall, Wall)>) -> Option<(Wall, Wall)> {
    match (one, other) {
        (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
        (one, other) => one.or(other),
    }
}

fn after(at: Wall) -> Wall {
    at.plus_us(1)
}

/// Times of which nothing may be kept: in order, and none touches another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenOut(Vec<(Wall, Wall)>);

impl TakenOut {
    fn of(times: impl Iterator<Item = (Wall, Wall)>) -> Self {
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        times.dedup_by(|next, before| {
            let is_one = next.0 <= before.1;
            if is_one {
                before.1 = before.1.max(next.1);
            }
            is_one
        });
        Self(times)
    }

    /// These times and others.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self::of(self.0.iter().chain(&other.0).copied())
    }

    /// When the last of them was over that are over at an own time.
    #[must_use]
    pub fn ended_before(&self, own: Wall) -> Option<Wall> {
        let over = self.0.partition_point(|(_, to)| *to <= own);
        Some(self.0.get(over.checked_sub(1)?)?.1)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something of this own time is taken out.
    #[must_use]
    pub fn has(&self, own: Wall) -> bool {
        let before = self.0.partition_point(|(from, _)| *from <= own);
        before.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, to)| own < *to)
    }
}

/// What the gateway's clock is ahead of the daemon's, as the last packet tells it: microseconds, and 0 where they are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Skew(i64);

impl Skew {
    /// Learns what the clocks differ by from a packet.
    pub fn learn(&mut self, packet: Stamp) {
        let Some(gateway) = packet.gateway else { return };
        let differ_us = gateway.0.saturating_sub(packet.received.0);
        self.0 = if differ_us.saturating_abs() < SAME_CLOCK_US { 0 } else { differ_us };
    }

    /// The stamp of a command, if it can be one.
    #[must_use]
    pub fn credible(self, at: Stamp) -> Stamp {
        let is_near = |gateway: &Wall| {
            let apart_us = gateway.0.saturating_sub(at.received.0.saturating_add(self.0));
            apart_us.saturating_abs() <= APART_MAX_US
        };
        Stamp { gateway: at.gateway.filter(is_near), ..at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(received_s: i64, gateway_s: Option<i64>) -> Stamp {
        Stamp { received: second(received_s), gateway: gateway_s.map(second) }
    }

    fn second(s: i64) -> Wall {
        Wall(s * 1_000_000)
    }

    /// The seconds of which packets are kept out that come in order, with stamps or without.
    fn out(pauses: &mut Pauses, seconds: std::ops::Range<i64>, is_stamped: bool) -> Vec<i64> {
        seconds.filter(|s| pauses.enter_packet(stamp(*s, is_stamped.then_some(*s)))).collect()
    }

    fn taken_out(pauses: &Pauses, seconds: std::ops::Range<i64>) -> Vec<i64> {
        let times = pauses.taken_out();
        seconds.filter(|s| times.has(second(*s))).collect()
    }

    const MODE: PauseMode = PauseMode::Silence;

    #[test]
    fn what_comes_in_a_pause_is_kept_out_and_what_is_late_too() {
        for is_stamped in [true, false] {
            let mut pauses = Pauses::default();
            let at = |s| stamp(s, is_stamped.then_some(s));
            assert!(out(&mut pauses, 0..3, is_stamped).is_empty());
            assert_eq!(pauses.begin(at(3), MODE), Begun::New);
            assert_eq!(out(&mut pauses, 3..6, is_stamped), [3, 4, 5]);
            assert!(pauses.end(at(6)));
            assert!(out(&mut pauses, 6..9, is_stamped).is_empty());
            assert!(!pauses.takes_out());
            assert!(pauses.enter_packet(stamp(9, Some(4))), "late");
            assert!(!pauses.enter_packet(stamp(9, Some(2))));
        }
    }

    #[test]
    fn an_earlier_time_takes_out_what_was_kept() {
        let mut pauses = Pauses::default();
        out(&mut pauses, 0..10, true);
        assert_eq!(pauses.begin(stamp(10, Some(6)), MODE), Begun::New);
        assert_eq!(taken_out(&pauses, 0..20), [6, 7, 8, 9]);
        assert_eq!(pauses.begin(stamp(10, Some(4)), MODE), Begun::Earlier);
        assert_eq!(pauses.begin(stamp(10, Some(8)), MODE), Begun::Same);
        assert_eq!(taken_out(&pauses, 0..20), [4, 5, 6, 7, 8, 9]);
        let mut resumed = pauses.clone();
        assert!(resumed.end(stamp(11, None)));
        assert_eq!(taken_out(&resumed, 0..20), [4, 5, 6, 7, 8, 9], "until now");
        assert!(pauses.end(stamp(11, Some(6))));
        assert_eq!(taken_out(&pauses, 0..20), [4, 5], "until then");
        assert!(out(&mut pauses, 11..13, true).is_empty());
    }

    #[test]
    fn a_pause_of_the_same_stamp_as_the_packet_before_it_leaves_that() {
        let mut pauses = Pauses::default();
        out(&mut pauses, 0..10, true);
        pauses.begin(stamp(10, Some(9)), MODE);
        assert!(!pauses.takes_out());
        pauses.end(stamp(10, Some(9)));
        pauses.begin(stamp(10, Some(8)), MODE);
        assert_eq!(taken_out(&pauses, 0..20), [8, 9]);
    }

    #[test]
    fn a_command_without_a_time_is_behind_the_last_packet_whatever_the_clocks() {
        // The gateway's clock is a second behind or ahead.
        for differ in [-1, 1] {
            let mut pauses = Pauses::default();
            assert!((0..5).all(|s| !pauses.enter_packet(stamp(s, Some(s + differ)))));
            pauses.begin(stamp(5, None), MODE);
            assert!(!pauses.takes_out());
            assert!((5..8).all(|s| pauses.enter_packet(stamp(s, Some(s + differ)))));
            pauses.end(stamp(8, None));
            assert!((8..12).all(|s| !pauses.enter_packet(stamp(s, Some(s + differ)))));
        }
    }

    #[test]
    fn what_is_read_at_once_with_a_resume_and_comes_behind_it_is_kept() {
        let mut pauses = Pauses::default();
        assert!(!pauses.enter_packet(stamp(3, None)));
        pauses.begin(stamp(3, None), MODE);
        assert!(pauses.enter_packet(stamp(3, None)));
        pauses.end(stamp(3, None));
        assert!(!pauses.enter_packet(stamp(3, None)));
        // The wall clock was set back while the daemon was not running.
        pauses.begin(stamp(9, None), MODE);
        assert!(pauses.enter_packet(stamp(10, None)));
        pauses.end(stamp(7, None));
        assert!(!pauses.enter_packet(stamp(7, None)));
    }

    #[test]
    fn a_resume_that_was_overtaken_ends_nothing_and_a_clock_that_was_set_does() {
        let mut pauses = Pauses::default();
        out(&mut pauses, 90..100, true);
        pauses.begin(stamp(100, Some(100)), MODE);
        assert!(!pauses.end(stamp(101, Some(95))));
        assert!(pauses.standing().is_some());
        assert!(pauses.clone().end(stamp(102, None)));
        assert!(pauses.end(stamp(103, Some(20))) && pauses.standing().is_none());
    }

    #[test]
    fn what_is_taken_out_twice_is_one_time() {
        let mut pauses = Pauses::default();
        out(&mut pauses, 0..10, true);
        for (from, to) in [(4, 6), (1, 3), (5, 8), (3, 4)] {
            pauses.begin(stamp(10, Some(from)), MODE);
            assert!(pauses.end(stamp(10, Some(to))));
        }
        assert_eq!(pauses.taken_out(), TakenOut(vec![(second(1), second(8))]));
        pauses.note_taken_out();
        assert!(!pauses.takes_out());
    }

    #[test]
    fn a_stamp_of_no_clock_is_left_out() {
        let mut skew = Skew::default();
        assert_eq!(skew.credible(stamp(500_000, Some(1))), stamp(500_000, None));
        assert_eq!(skew.credible(stamp(500_000, Some(499_000))), stamp(500_000, Some(499_000)));
        skew.learn(stamp(500_000, Some(5)));
        assert_eq!(skew.credible(stamp(500_000, Some(1))), stamp(500_000, Some(1)));
    }

    #[test]
    fn only_so_many_pauses_are_kept_in_mind() {
        let mut pauses = Pauses::default();
        for s in 0..1000 {
            pauses.begin(stamp(s, Some(s * 2)), MODE);
            pauses.end(stamp(s, Some(s * 2 + 1)));
            pauses.forget(second(s));
        }
        assert_eq!(pauses.closed.len(), 61, "those of the last minute");
    }
}
