//! What frames have said of a connection: references, holds, pauses, and whether it is to be kept at all. It outlasts
//! restarts and parts, and what is not to be kept outlasts a new opening, too.

use serde::{Deserialize, Serialize};

use super::Keep;
use super::pauses::{Begun, Pauses, Skew, Stamp, Standing, TakenOut};
use crate::frame::PauseMode;
use crate::id::{Channel, Scope};
use crate::time::Wall;

/// What frames have said of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    pub(super) references: [bool; 2],
    pub(super) holds: u32,
    pauses: [Pauses; 2],
    /// The times in which nothing is wanted, as META says: pauses of both channels.
    unwanted: [Pauses; 2],
    skew: Skew,
}

impl Claims {
    /// Those of a connection that has just been opened: two references, no pause.
    #[must_use]
    pub fn new(now: Stamp, is_recorded: bool) -> Self {
        let mut unwanted = Pauses::default();
        if !is_recorded {
            unwanted.begin(Stamp::received(now.received), PauseMode::Silence);
        }
        let unwanted = [unwanted.clone(), unwanted];
        Self { references: [true; 2], holds: 0, pauses: Default::default(), unwanted, skew: Skew::default() }
    }

    /// Those of a connection that is opened again after its end.
    #[must_use]
    pub fn reopened(&self) -> Self {
        Self { references: [true; 2], holds: 0, ..self.clone() }
    }

    /// Whether a claim stands that a stream is still coming.
    #[must_use]
    pub fn is_referenced(&self) -> bool {
        self.references != [false; 2] || self.holds > 0
    }

    /// The mode of the PAUSE that stands on a channel.
    #[must_use]
    pub fn pause(&self, channel: Channel) -> Option<PauseMode> {
        Some(self.pauses[channel.index()].standing()?.mode)
    }

    /// What stands on a channel: a PAUSE, and what META has said of the call as a whole.
    #[must_use]
    pub fn standing(&self, channel: Channel) -> [Option<Standing>; 2] {
        [&self.pauses, &self.unwanted].map(|lane| lane[channel.index()].standing())
    }

    /// Whether the gateway's time of a command can be one: by its clock, as the packets tell it, it is within a day.
    #[must_use]
    pub fn is_credible(&self, at: Stamp) -> bool {
        self.skew.credible(at) == at
    }

    /// When a command came, by the clock of a channel's packets where they have stamps and it has none.
    #[must_use]
    pub fn by_packets(&self, channel: Channel, at: Stamp) -> Stamp {
        self.pauses[channel.index()].by_packets(self.skew.credible(at))
    }

    /// When something happened, by the clock of a channel's packets.
    #[must_use]
    pub fn own_of(&self, channel: Channel, at: Stamp) -> Wall {
        self.pauses[channel.index()].happened(self.by_packets(channel, at))
    }

    /// Takes the state that was noted, and goes on knowing what is still to be taken out.
    pub fn restore(&mut self, noted: Self) {
        let Self { references, holds, pauses, unwanted, skew } = noted;
        (self.references, self.holds, self.skew) = (references, holds, skew);
        let lanes = self.pauses.iter_mut().chain(&mut self.unwanted);
        lanes.zip(pauses.into_iter().chain(unwanted)).for_each(|(own, noted)| own.restore(noted));
    }

    /// Whether a PAUSE stands on each channel that a scope takes in.
    #[must_use]
    pub fn is_paused(&self, scope: Scope) -> bool {
        scope.channels().all(|channel| self.pause(channel).is_some())
    }

    /// Whether audio is kept where there is no PAUSE.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.unwanted.iter().all(|unwanted| unwanted.standing().is_none())
    }

    /// Whether the channel's audio is not kept now, for either reason.
    #[must_use]
    pub fn is_kept_out(&self, channel: Channel) -> bool {
        self.pause(channel).is_some() || !self.is_recorded()
    }

    /// Notes an RTP packet, and tells what to keep of it.
    pub fn enter_packet(&mut self, at: Stamp, scope: Scope) -> Keep {
        self.skew.learn(at);
        let mut keep = Keep::Whole;
        for channel in scope.channels() {
            let is_unwanted = self.unwanted[channel.index()].standing().is_some();
            // Both take note of it, so that what comes behind it is told from what came before.
            let lanes = [&mut self.pauses, &mut self.unwanted];
            let is_out = lanes.map(|lane| lane[channel.index()].enter_packet(at));
            keep = match (is_unwanted, is_out) {
                (true, _) => Keep::Unrecorded,
                (false, [false, false]) => keep,
                (false, _) => Keep::HeaderOnly,
            };
        }
        keep
    }

    /// Notes a packet of which only the header was kept.
    pub fn enter_withheld(&mut self, at: Stamp, scope: Scope) {
        self.skew.learn(at);
        for channel in scope.channels() {
            self.pauses[channel.index()].enter_withheld(at);
            self.unwanted[channel.index()].enter_withheld(at);
        }
    }

    /// Whether a packet is of a time of which nothing is kept.
    #[must_use]
    pub fn keeps_out_packet(&self, at: Stamp, scope: Scope) -> bool {
        scope.channels().any(|channel| self.keeps_out(channel, at))
    }

    /// Notes a mark, and tells what to keep of it. One of the whole call may tell what was said on either channel.
    pub fn enter_mark(&mut self, at: Stamp, scope: Scope) -> Keep {
        if scope.channels().any(|channel| self.keeps_out(channel, self.by_packets(channel, at))) {
            return Keep::NameOnly;
        }
        for channel in scope.channels() {
            let own = self.by_packets(channel, at).own();
            self.pauses[channel.index()].note_kept(own);
            self.unwanted[channel.index()].note_kept(own);
        }
        Keep::Whole
    }

    fn keeps_out(&self, channel: Channel, at: Stamp) -> bool {
        [&self.pauses, &self.unwanted].iter().any(|lane| lane[channel.index()].keep_out(at))
    }

    /// Begins a PAUSE. Tells what that did on each channel.
    pub fn begin_pause(&mut self, at: Stamp, scope: Scope, mode: PauseMode) -> [Begun; 2] {
        let at = self.skew.credible(at);
        self.each(scope, |pauses| pauses.begin(at, mode)).map(|begun| begun.unwrap_or(Begun::Same))
    }

    /// Whether a RESUME has a time that ends each PAUSE that stands in its scope: one that can be, and is none before that.
    #[must_use]
    pub fn ends_by_its_time(&self, at: Stamp, scope: Scope) -> bool {
        let Some(to) = self.skew.credible(at).gateway else { return false };
        let standing = scope.channels().filter_map(|channel| self.pauses[channel.index()].standing());
        standing.map(|standing| standing.from).all(|from| from <= to)
    }

    /// Ends a PAUSE. Tells whether one has ended on each channel.
    pub fn end_pause(&mut self, at: Stamp, scope: Scope) -> [bool; 2] {
        let at = self.skew.credible(at);
        let ended = |pauses: &mut Pauses| {
            let stood = pauses.standing().is_some();
            pauses.end(at);
            pauses.forget(at.received);
            stood && pauses.standing().is_none()
        };
        self.each(scope, ended).map(|ended| ended.unwrap_or(false))
    }

    /// Keeps the call from now on, or no more. True if that is news.
    pub fn decide(&mut self, at: Stamp, is_recorded: bool) -> bool {
        let at = self.skew.credible(at);
        let was_recorded = self.is_recorded();
        for unwanted in &mut self.unwanted {
            if is_recorded {
                unwanted.end(at);
                unwanted.forget(at.received);
            } else {
                unwanted.begin(at, PauseMode::Silence);
            }
        }
        was_recorded != self.is_recorded()
    }

    /// Notes that packets may have come until then of which nobody knows, because nothing of them was wanted.
    pub fn note_restart(&mut self, received: Wall) {
        for unwanted in self.unwanted.iter_mut().filter(|unwanted| unwanted.standing().is_some()) {
            unwanted.note_unknown(received);
        }
    }

    /// The latest own time of anything that was kept.
    #[must_use]
    pub fn kept_until(&self) -> Option<Wall> {
        self.pauses.iter().filter_map(Pauses::kept_until).max()
    }

    /// Whether anything that was kept is to be taken out.
    #[must_use]
    pub fn takes_out(&self) -> bool {
        self.pauses.iter().chain(&self.unwanted).any(Pauses::takes_out)
    }

    /// The times of a channel of which all that was kept is to be taken out.
    #[must_use]
    pub fn taken_out(&self, channel: Channel) -> TakenOut {
        let [pauses, unwanted] = [&self.pauses, &self.unwanted].map(|lane| lane[channel.index()].taken_out());
        pauses.and(&unwanted)
    }

    /// Notes that what was to be taken out is.
    pub fn note_taken_out(&mut self) {
        self.pauses.iter_mut().chain(&mut self.unwanted).for_each(Pauses::note_taken_out);
    }

    fn each<T>(&mut self, scope: Scope, mut change: impl FnMut(&mut Pauses) -> T) -> [Option<T>; 2] {
        Channel::BOTH.map(|channel| scope.covers(channel).then(|| change(&mut self.pauses[channel.index()])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: Scope = Scope::Channel(Channel::Caller);
    /// The gateway's clock is so many seconds ahead of the daemon's.
    const AHEAD: i64 = 5;

    fn second(s: i64) -> Wall {
        Wall(s * 1_000_000)
    }

    /// Received then, by the daemon's clock.
    fn untold(s: i64) -> Stamp {
        Stamp::received(second(s))
    }

    /// The same, with what the gateway says.
    fn told(s: i64, gateway: i64) -> Stamp {
        Stamp { received: second(s), gateway: Some(second(gateway)) }
    }

    /// A call with a packet each second, from 0 to 9.
    fn claims() -> Claims {
        let mut claims = Claims::new(untold(0), true);
        for s in 0..10 {
            assert_eq!(claims.enter_packet(told(s, s + AHEAD), CALLER), Keep::Whole);
        }
        claims
    }

    #[test]
    fn a_mark_without_a_time_is_kept_out_by_the_clock_of_the_packets() {
        for ends_at in [16, 18] {
            let mut claims = claims();
            claims.begin_pause(told(10, 10 + AHEAD), CALLER, PauseMode::Silence);
            // It says that the pause ends two seconds later than the mark comes, or when it comes.
            claims.end_pause(told(10, ends_at), CALLER);
            let is_in = ends_at > 16;
            let expected = if is_in { Keep::NameOnly } else { Keep::Whole };
            assert_eq!(claims.enter_mark(untold(11), CALLER), expected, "until {ends_at}");
            assert_eq!(claims.enter_mark(untold(11), Scope::Whole), expected, "of both");
            assert_eq!(claims.enter_mark(untold(11), Scope::Channel(Channel::Ai)), Keep::Whole);
            assert_eq!(claims.enter_mark(untold(14), CALLER), Keep::Whole, "behind it");
        }
    }

    #[test]
    fn a_mark_without_a_time_is_taken_out_although_nothing_comes_behind_it() {
        // It came at 12, which is 17 by the clock of the packets. A decision takes out as a pause does.
        let mark = |at| {
            let mut claims = claims();
            assert_eq!(claims.enter_mark(at, CALLER), Keep::Whole);
            let mut decided = claims.clone();
            claims.begin_pause(told(13, 16), CALLER, PauseMode::Silence);
            decided.decide(told(13, 16), false);
            [claims, decided]
                .map(|claims| claims.takes_out() && claims.taken_out(Channel::Caller).has(second(17)))
        };
        assert_eq!(mark(untold(12)), [true; 2]);
        assert_eq!(mark(told(12, 17)), [true; 2]);
        assert_eq!(mark(untold(10)), [false; 2], "it came before");
    }

    #[test]
    fn a_channel_without_packets_has_the_daemons_clock() {
        let claims = claims();
        assert_eq!(claims.own_of(Channel::Caller, untold(12)), second(12 + AHEAD));
        assert_eq!(claims.own_of(Channel::Ai, untold(12)), second(12));
    }
}
