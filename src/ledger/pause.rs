//! The times of a call that are not kept, as its spool tells them: for the manifest, and to take out what is there all the same.

use super::{Ledger, Moment};
use crate::connection::claims::Claims;
use crate::connection::pauses::{Begun, Standing};
use crate::frame::PauseMode;
use crate::id::{Channel, Scope};

/// Why a time is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// A PAUSE.
    Paused,
    /// META said that the call is not to be kept.
    NotWanted,
}

/// A time of a channel that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PauseSpan {
    /// When it began.
    pub from: Moment,
    /// When it ended, if it did.
    pub to: Option<Moment>,
    /// What it leaves in the recording.
    pub mode: PauseMode,
    /// Why.
    pub reason: PauseReason,
}

/// The times of a channel that are not kept, in the order in which they began to be told.
#[derive(Clone, Debug, Default)]
pub struct PauseSpans {
    all: Vec<PauseSpan>,
    /// Those that have not ended, for either reason.
    standing: [Option<usize>; 2],
}

impl PauseSpans {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[PauseSpan] {
        &self.all
    }

    /// When they began and ended, to be brought to another clock.
    pub(super) fn moments(&mut self) -> impl Iterator<Item = &mut Moment> {
        self.all.iter_mut().flat_map(|span| [Some(&mut span.from), span.to.as_mut()]).flatten()
    }

    fn standing(&mut self, reason: PauseReason) -> &mut Option<usize> {
        match reason {
            PauseReason::Paused => &mut self.standing[0],
            PauseReason::NotWanted => &mut self.standing[1],
        }
    }

    fn begin(&mut self, from: Moment, mode: PauseMode, reason: PauseReason, begun: Begun) {
        let new = PauseSpan { from, to: None, mode, reason };
        match (begun, *self.standing(reason)) {
            (Begun::Same, _) => return,
            (Begun::Earlier, Some(at)) => {
                self.all[at] = new;
                return;
            }
            (Begun::OtherMode, Some(_)) => self.end(from, reason),
            _ => {}
        }
        *self.standing(reason) = Some(self.all.len());
        self.all.push(new);
    }

    fn end(&mut self, to: Moment, reason: PauseReason) {
        if let Some(at) = self.standing(reason).take() {
            self.all[at].to = Some(to);
        }
    }
}

impl Ledger {
    pub(super) fn begin_pause(&mut self, scope: Scope, when: Moment, mode: PauseMode) {
        let moments = self.by_packets(when);
        let begun = self.claims.begin_pause(when.stamp(), scope, mode);
        for ((spans, begun), when) in self.pauses.iter_mut().zip(begun).zip(moments) {
            spans.begin(when, mode, PauseReason::Paused, begun);
        }
    }

    pub(super) fn end_pause(&mut self, scope: Scope, when: Moment) {
        let moments = self.by_packets(when);
        let ended = self.claims.end_pause(when.stamp(), scope);
        for ((spans, has_ended), when) in self.pauses.iter_mut().zip(ended).zip(moments) {
            if has_ended {
                spans.end(when, PauseReason::Paused);
            }
        }
    }

    pub(super) fn decide(&mut self, when: Moment, is_recorded: bool) {
        let moments = self.by_packets(when);
        let is_news = self.claims.decide(when.stamp(), is_recorded);
        if is_news && is_recorded {
            self.channels.iter_mut().for_each(|channel| channel.numbering.end_unwanted());
        }
        for (spans, when) in self.pauses.iter_mut().zip(moments).filter(|_| is_news) {
            if is_recorded {
                spans.end(when, PauseReason::NotWanted);
            } else {
                spans.begin(when, PauseMode::Silence, PauseReason::NotWanted, Begun::New);
            }
        }
    }

    /// A moment by the clock of each channel's packets.
    fn by_packets(&self, when: Moment) -> [Moment; 2] {
        Channel::BOTH.map(|channel| Moment::new(self.claims.by_packets(channel, when.stamp())))
    }

    /// Takes over what stands, as the file notes it. That of its beginning is older than the file; elsewhere it is news only
    /// where something was lost.
    pub(super) fn restore_pauses(&mut self, claims: Claims, when: Moment, is_first: bool) {
        self.claims.restore(claims);
        for channel in Channel::BOTH {
            let spans = &mut self.pauses[channel.index()];
            let noted = self.claims.standing(channel);
            for (standing, reason) in noted.into_iter().zip([PauseReason::Paused, PauseReason::NotWanted]) {
                let is_open = spans.standing(reason).is_some();
                match standing {
                    Some(standing) if !is_open => {
                        let from = if is_first { moment_of(standing) } else { when };
                        spans.begin(from, standing.mode, reason, Begun::New);
                    }
                    None if is_open => {
                        spans.end(when, reason);
                        if reason == PauseReason::NotWanted {
                            self.channels[channel.index()].numbering.end_unwanted();
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Takes out the packets of a pause that were received before it was told of.
    pub(super) fn take_out_paused(&mut self) {
        if !self.claims.takes_out() {
            return;
        }
        for channel in Channel::BOTH {
            let taken_out = self.claims.taken_out(channel);
            let ledger = &mut self.channels[channel.index()];
            for (rx, payload) in ledger.rx.iter().zip(&mut ledger.payloads) {
                if !payload.is_withheld() && taken_out.has(rx.arrival) {
                    payload.withhold();
                    self.has_paused = true;
                }
            }
            ledger.copies.leave_out(|own| taken_out.has(own));
            let is_out =
                |mark: &super::Mark| mark.scope.covers(channel) && taken_out.has(mark.own[channel.index()]);
            for mark in self.marks.iter_mut().filter(|mark| is_out(mark)) {
                self.has_paused |= mark.fields.keep_name();
            }
        }
    }
}

/// When a pause began that is older than the file.
fn moment_of(standing: Standing) -> Moment {
    let gateway = standing.is_stamped.then_some(standing.from);
    Moment { at: standing.from, received: standing.from, gateway }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LONGEST, enter, ledger};
    use crate::time::Wall;
    use crate::timeline::RxKind;

    /// A packet with the copy of the one before it.
    fn red(sequence: u8, copy: [u8; 2]) -> Vec<u8> {
        let timestamp = (u32::from(sequence) * 960).to_be_bytes();
        let head =
            [0x80, 63, 0, sequence, timestamp[0], timestamp[1], timestamp[2], timestamp[3], 0, 0, 0, 5];
        let block = [0x80 | 111, 0x0f, 0, 2, 111, copy[0], copy[1], 0xfc, sequence];
        [&head[..], &block].concat()
    }

    /// What is left of a call of which the packets 5 to 7 did not come: numbers of audio.
    fn left(commands: &[(u8, i64)], copy: impl Fn(u8) -> [u8; 2]) -> Vec<u16> {
        let mut ledger = ledger();
        let stamp = |sequence: i64| Some(Wall(10_000_000 + sequence * 20_000));
        enter(&mut ledger, 3, 0, None, br#"{"payload_types":{"63":"red/48000/2"}}"#);
        for sequence in (0..5).chain(8..12u8) {
            let at = u64::from(sequence) * 20_000;
            enter(
                &mut ledger,
                1,
                at,
                stamp(sequence.into()),
                &red(sequence, copy(sequence - u8::from(sequence > 0))),
            );
        }
        for (kind, sequence) in commands {
            enter(&mut ledger, *kind, 240_000, stamp(*sequence), b"");
        }
        ledger.close(LONGEST);
        let audio = ledger.channels[0].rx.iter().filter(|rx| rx.kind == RxKind::Audio);
        audio.map(|rx| rx.sequence).collect()
    }

    #[test]
    fn a_copy_is_of_its_own_time_and_not_of_that_of_the_packet_that_brings_it() {
        let copy = |sequence| [0xfc, sequence];
        assert_eq!(left(&[], copy), [u16::MAX, 0, 1, 2, 3, 4, 7, 8, 9, 10, 11]);
        assert_eq!(left(&[(6, 5), (7, 8)], copy), [u16::MAX, 0, 1, 2, 3, 4, 8, 9, 10, 11]);
    }

    #[test]
    fn a_copy_that_was_kept_out_mends_no_loss() {
        let copy = |sequence| if sequence == 7 { [0, 0] } else { [0xfc, sequence] };
        assert_eq!(left(&[], copy), [u16::MAX, 0, 1, 2, 3, 4, 8, 9, 10, 11]);
    }
}
