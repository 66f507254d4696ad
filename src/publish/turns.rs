//! Whose turn it is, when more files wait for a place than there are places.
//!
//! - Smaller ones go first, but each byte counts as no more than a microsecond of waiting: a file of 60 MB is passed by no
//!   smaller one that came more than a minute after it. So none waits for ever.
//! - Some places take only small files, of [`SMALL_BYTES`] at most. However many large ones are worked on, and for however
//!   long, a small one has to wait for small ones alone.
//! - A suspect is a file that was being worked on when a process died. It is worked on alone, so that it is known whose
//!   fault it is if the process dies again: after all others, or when it has waited for [`PATIENCE`]. Then no other
//!   begins until it has had its turn. But small ones do, as long as it still has to wait for a large one.
//!
//! It decides only; whoever asks has the clock and the threads.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crate::time::Mono;

/// No small file is larger: some four minutes of a call in Opus.
pub const SMALL_BYTES: u64 = 4 << 20;
/// How long a suspect lets others go first.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a file may have a place for small ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// It may.
    Small,
    /// It may not.
    Large,
}

/// One that waits for its turn, or has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// What a ticket has a turn on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// One that takes any file.
    Wide(Size),
    /// One that takes small files.
    Narrow,
    /// All of them.
    Alone,
}

/// The places, and who waits for them.
#[derive(Debug)]
pub struct Turns {
    wide: usize,
    narrow: usize,
    /// By when each would begin if it had waited enough; the ticket tells those of one moment apart.
    small: BTreeMap<(u64, u64), Ticket>,
    large: BTreeMap<(u64, u64), Ticket>,
    suspects: VecDeque<(Ticket, Mono)>,
    begun: HashMap<Ticket, Place>,
    tickets: u64,
}

impl Size {
    /// The size of a file of so many bytes.
    #[must_use]
    pub fn of(bytes: u64) -> Self {
        if bytes <= SMALL_BYTES { Self::Small } else { Self::Large }
    }

    /// Its place where something is kept for each size.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Small => 0,
            Self::Large => 1,
        }
    }
}

impl Turns {
    /// So many places for files of any size, and so many for small ones.
    #[must_use]
    pub fn new(wide: usize, narrow: usize) -> Self {
        Self {
            wide,
            narrow,
            small: BTreeMap::new(),
            large: BTreeMap::new(),
            suspects: VecDeque::new(),
            begun: HashMap::new(),
            tickets: 0,
        }
    }

    /// Asks for a turn with a file of so many bytes.
    pub fn ask(&mut self, now: Mono, bytes: u64) -> Ticket {
        let ticket = self.ticket();
        let queue = match Size::of(bytes) {
            Size::Small => &mut self.small,
            Size::Large => &mut self.large,
        };
        queue.insert((now.0.saturating_add(bytes), ticket.0), ticket);
        ticket
    }

    /// Asks for a turn with a suspect.
    pub fn ask_alone(&mut self, now: Mono) -> Ticket {
        let ticket = self.ticket();
        self.suspects.push_back((ticket, now));
        ticket
    }

    /// Who may begin now, if anybody may. To be asked until nobody may, after each change.
    pub fn next(&mut self, now: Mono) -> Option<Ticket> {
        if self.count(|place| place == Place::Alone) > 0 {
            return None;
        }
        if let Some((suspect, since)) = self.suspects.front().copied() {
            let is_due = now.since(since) >= PATIENCE;
            if self.begun.is_empty() && (is_due || (self.small.is_empty() && self.large.is_empty())) {
                self.suspects.pop_front();
                self.begun.insert(suspect, Place::Alone);
                return Some(suspect);
            }
            if is_due {
                let is_behind_large = self.count(|place| place == Place::Wide(Size::Large)) > 0;
                return if is_behind_large { self.next_small() } else { None };
            }
        }
        let (small, large) = (self.small.first_key_value(), self.large.first_key_value());
        let is_small_first = large.is_none_or(|(large, _)| small.is_some_and(|(small, _)| small < large));
        if !is_small_first && self.has_wide() {
            let (_, ticket) = self.large.pop_first()?;
            self.begun.insert(ticket, Place::Wide(Size::Large));
            return Some(ticket);
        }
        self.next_small()
    }

    /// Lets others begin beside a suspect that has its turn.
    pub fn end_alone(&mut self, ticket: Ticket) {
        if let Some(place @ Place::Alone) = self.begun.get_mut(&ticket) {
            *place = Place::Wide(Size::Large);
        }
    }

    /// Ends a turn, or the waiting for one.
    pub fn leave(&mut self, ticket: Ticket) {
        if self.begun.remove(&ticket).is_none() {
            self.small.retain(|_, other| *other != ticket);
            self.large.retain(|_, other| *other != ticket);
            self.suspects.retain(|(other, _)| *other != ticket);
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn next_small(&mut self) -> Option<Ticket> {
        // A wide place is left to those that need it.
        let place = if self.count(|place| place == Place::Narrow) < self.narrow {
            Place::Narrow
        } else if self.has_wide() {
            Place::Wide(Size::Small)
        } else {
            return None;
        };
        let (_, ticket) = self.small.pop_first()?;
        self.begun.insert(ticket, place);
        Some(ticket)
    }

    fn has_wide(&self) -> bool {
        self.count(|place| matches!(place, Place::Wide(_))) < self.wide
    }

    fn count(&self, is_meant: impl Fn(Place) -> bool) -> usize {
        self.begun.values().filter(|place| is_meant(**place)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000;
    const LARGE: u64 = 60_000_000;

    fn all(turns: &mut Turns, now: u64) -> Vec<Ticket> {
        std::iter::from_fn(|| turns.next(Mono(now))).collect()
    }

    #[test]
    fn a_small_one_begins_at_once_beside_any_number_of_large_ones() {
        let mut turns = Turns::new(2, 1);
        let large: Vec<_> = (0..10).map(|_| turns.ask(Mono(0), LARGE)).collect();
        assert_eq!(all(&mut turns, 0), large[..2]);
        for hour in 1..5 {
            let now = hour * 3600 * SECOND;
            let small = turns.ask(Mono(now), 20_000);
            assert_eq!(all(&mut turns, now), [small]);
            turns.leave(small);
            assert_eq!(all(&mut turns, now), [], "no large one gets the place of the small ones");
        }
        turns.leave(large[0]);
        assert_eq!(all(&mut turns, 9), [large[2]]);
    }

    #[test]
    fn of_those_that_wait_the_smaller_go_first_until_the_larger_have_waited_for_as_long_as_their_size() {
        let mut turns = Turns::new(1, 0);
        let first = turns.ask(Mono(0), 1);
        assert_eq!(all(&mut turns, 0), [first]);
        let large = turns.ask(Mono(0), LARGE);
        let before = turns.ask(Mono(59 * SECOND), 1000);
        let behind = turns.ask(Mono(60 * SECOND), 1000);
        let mut order = Vec::new();
        let mut begun = first;
        while order.len() < 3 {
            turns.leave(begun);
            begun = turns.next(Mono(100 * SECOND)).unwrap();
            order.push(begun);
        }
        assert_eq!(order, [before, large, behind]);
    }

    #[test]
    fn a_suspect_begins_after_all_others_and_alone() {
        let mut turns = Turns::new(2, 1);
        let suspects = [turns.ask_alone(Mono(0)), turns.ask_alone(Mono(0))];
        let others = [turns.ask(Mono(0), LARGE), turns.ask(Mono(0), 1)];
        let mut begun = all(&mut turns, 0);
        begun.sort_by_key(|ticket| ticket.0);
        assert_eq!(begun, others);
        turns.leave(others[0]);
        assert_eq!(all(&mut turns, 0), []);
        turns.leave(others[1]);
        assert_eq!(all(&mut turns, 0), suspects[..1]);
        let small = turns.ask(Mono(1), 1);
        assert_eq!(all(&mut turns, 2 * 3600 * SECOND), [], "nobody begins beside it");
        turns.end_alone(suspects[0]);
        assert_eq!(all(&mut turns, 1), [small], "unless that is allowed");
        turns.leave(small);
        assert_eq!(all(&mut turns, 1), [], "the next one does not begin beside the first");
        turns.leave(suspects[0]);
        assert_eq!(all(&mut turns, 1), suspects[1..]);
    }

    #[test]
    fn a_suspect_gets_its_turn_however_many_others_come_and_small_ones_do_not_wait_for_large_ones() {
        let mut turns = Turns::new(1, 1);
        let large = turns.ask(Mono(0), LARGE);
        assert_eq!(all(&mut turns, 0), [large]);
        let suspect = turns.ask_alone(Mono(0));
        let late = turns.ask(Mono(1), LARGE);
        let now = 61 * SECOND;
        let small = turns.ask(Mono(now), 1);
        assert_eq!(all(&mut turns, now), [small], "the suspect waits for the large one anyway");
        turns.leave(large);
        let smaller = turns.ask(Mono(now), 0);
        assert_eq!(all(&mut turns, now), [], "now it waits for the small one alone");
        turns.leave(small);
        assert_eq!(all(&mut turns, now), [suspect]);
        turns.leave(suspect);
        assert_eq!(all(&mut turns, now), [late, smaller], "it has waited for as long as its size");
    }

    #[test]
    fn whoever_leaves_before_its_turn_is_not_waited_for() {
        let mut turns = Turns::new(1, 0);
        let gone = [turns.ask(Mono(0), 1), turns.ask(Mono(0), LARGE), turns.ask_alone(Mono(0))];
        let last = turns.ask(Mono(0), 2 * LARGE);
        gone.into_iter().for_each(|ticket| turns.leave(ticket));
        assert_eq!(all(&mut turns, 0), [last]);
    }

    /// One that comes: how long after the one before, its size, how long its turn takes, and whether it is a suspect.
    fn comer() -> impl Strategy<Value = (u64, u64, u64, bool)> {
        let bytes = prop_oneof![3 => 0..SMALL_BYTES, 1 => SMALL_BYTES + 1..4 * LARGE];
        (0..3 * SECOND, bytes, 1..30 * SECOND, prop::bool::weighted(0.05))
    }

    proptest! {
        /// Runs days of comers on a clock of the test's own.
        #[test]
        fn each_gets_its_turn_no_place_is_taken_twice_and_none_is_passed_for_longer_than_its_size(
            comers in prop::collection::vec(comer(), 1..120), wide in 1..4usize, narrow in 1..3usize,
        ) {
            let mut turns = Turns::new(wide, narrow);
            let mut coming = comers.iter().scan(0, |at, comer| { *at += comer.0; Some((*at, comer)) }).peekable();
            let mut about = HashMap::new();
            let mut working: BTreeMap<(u64, u64), Ticket> = BTreeMap::new();
            let (mut now, mut begun) = (0, 0);
            while begun < comers.len() || !working.is_empty() {
                let end = working.first_key_value().map(|((at, _), _)| *at);
                let come = coming.peek().map(|(at, _)| *at);
                prop_assert!(end.or(come).is_some(), "{} wait for ever", comers.len() - begun);
                if come.is_some_and(|come| end.is_none_or(|end| come <= end)) {
                    let (at, (_, bytes, takes, is_suspect)) = coming.next().unwrap();
                    now = at;
                    let ticket = if *is_suspect { turns.ask_alone(Mono(now)) } else { turns.ask(Mono(now), *bytes) };
                    about.insert(ticket, (at, *bytes, *takes, *is_suspect, None));
                } else if let Some(((at, _), ticket)) = working.pop_first() {
                    now = at;
                    turns.leave(ticket);
                }
                while let Some(ticket) = turns.next(Mono(now)) {
                    let (_, _, takes, _, start) = about.get_mut(&ticket).unwrap();
                    prop_assert!(start.replace((now, begun)).is_none(), "twice");
                    working.insert((now + *takes, ticket.0), ticket);
                    begun += 1;
                    let of = |ticket: &Ticket| about[ticket];
                    let large = working.values().filter(|ticket| of(ticket).1 > SMALL_BYTES && !of(ticket).3).count();
                    let is_alone = working.values().any(|ticket| of(ticket).3);
                    prop_assert!(working.len() <= wide + narrow && large <= wide && (!is_alone || working.len() == 1));
                }
            }
            let ordinary: Vec<_> = about.values().filter(|(.., is_suspect, _)| !is_suspect).collect();
            for (came, bytes, _, _, start) in &ordinary {
                for (later, other_bytes, _, _, other_start) in &ordinary {
                    let is_same_kind = (*bytes <= SMALL_BYTES) == (*other_bytes <= SMALL_BYTES);
                    if is_same_kind && *later > came + bytes {
                        prop_assert!(start.unwrap().1 < other_start.unwrap().1, "one that came later began before");
                    }
                }
            }
        }
    }
}
