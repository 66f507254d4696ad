//! Numbers that tell recordings of one name apart: which one is free, without asking for each.
//!
//! A store says of one name at a time whether it is free. Any free number will do, and all that are taken stand close
//! together as a rule: so [`Search`] asks in steps that double, and then halves the last one. What is found is remembered in
//! [`Numbers`], so that in one process only the first of ten thousand recordings of a name has to search.
//!
//! Neither is more than a guess: the store itself never lets a name be taken twice.

use std::collections::HashMap;

/// The highest number: with its digits a name is not longer than file systems allow.
pub const NUMBER_MAX: u32 = 9_999_999;
/// Names that are remembered. Of those that were not needed for the longest time is searched again.
const NAMES_MAX: usize = 1024;

/// A search for a free number.
#[derive(Debug)]
pub struct Search {
    /// The highest that is known to be taken. After a miss others below the first that is asked about may be free.
    taken: u32,
    step: u32,
    /// The lowest that is known to be free.
    free: Option<u32>,
}

impl Search {
    /// Begins behind a number that is taken. Where the store has said `misses` times that a number is free and then did not
    /// give it, so many of those behind it are passed by, and twice as many the next time.
    #[must_use]
    pub fn beyond(taken: u32, misses: u32) -> Self {
        let passed_by = 1_u32.checked_shl(misses).map_or(NUMBER_MAX, |passed_by| passed_by - 1);
        Self { taken: taken.saturating_add(passed_by), step: 1, free: None }
    }

    /// The number to ask the store about. `None` when there is nothing to ask.
    #[must_use]
    pub fn ask(&self) -> Option<u32> {
        let Some(free) = self.free else {
            let next = self.taken.saturating_add(self.step).min(NUMBER_MAX);
            return (next > self.taken).then_some(next);
        };
        (free - self.taken > 1).then(|| self.taken + (free - self.taken) / 2)
    }

    /// Notes what the store said of the number that was asked about.
    pub fn tell(&mut self, is_free: bool) {
        let Some(asked) = self.ask() else { return };
        if is_free {
            self.free = Some(asked);
        } else {
            self.taken = asked;
            self.step = self.step.saturating_mul(2);
        }
    }

    /// The number that was found. `None` where all are taken, or while there is something to ask.
    #[must_use]
    pub fn found(&self) -> Option<u32> {
        self.free.filter(|_| self.ask().is_none())
    }
}

/// Which number is the next one, for names of which this process knows.
#[derive(Debug, Default)]
pub struct Numbers {
    /// The next number, and when it was last asked for.
    names: HashMap<String, (u32, u64)>,
    asked: u64,
}

impl Numbers {
    /// Whether anything is known of a name: then more than one recording has it.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Takes the next number of a name, if that is known. Nobody else gets it.
    pub fn take(&mut self, name: &str) -> Option<u32> {
        self.asked += 1;
        let (next, last) = self.names.get_mut(name)?;
        *last = self.asked;
        *next += 1;
        Some(*next - 1)
    }

    /// Takes a number of a name that was found free, or a later one if that has been taken by somebody else here.
    pub fn enter(&mut self, name: &str, free: u32) -> u32 {
        if !self.names.contains_key(name) && self.names.len() >= NAMES_MAX {
            let oldest = self.names.iter().min_by_key(|(_, (_, last))| *last).map(|(name, _)| name.clone());
            oldest.and_then(|oldest| self.names.remove(&oldest));
        }
        let next = self.names.entry(name.to_owned()).or_default();
        next.0 = next.0.max(free);
        self.take(name).unwrap_or(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Searches in a store that has some numbers. Returns what was found, and how often it asked.
    fn search(mut search: Search, is_free: impl Fn(u32) -> bool) -> (Option<u32>, u32) {
        let mut asked = 0;
        while let Some(number) = search.ask() {
            search.tell(is_free(number));
            asked += 1;
        }
        (search.found(), asked)
    }

    #[test]
    fn the_first_free_number_of_ten_thousand_is_found_by_some_twenty_questions() {
        for (taken, most) in [(1, 1), (2, 3), (100, 13), (10_000, 27), (NUMBER_MAX - 1, 50)] {
            let (found, asked) = search(Search::beyond(1, 0), |number| number > taken);
            assert!(found == Some(taken + 1) && asked <= most, "{taken}: {found:?}, {asked}");
        }
        assert_eq!(search(Search::beyond(1, 0), |_| false).0, None, "all are taken");
        assert_eq!(search(Search::beyond(NUMBER_MAX, 0), |_| true), (None, 0));
    }

    #[test]
    fn where_a_store_does_not_give_what_it_calls_free_larger_and_larger_steps_are_made() {
        let (mut taken, mut misses) = (1, 0);
        while taken <= 10_000 {
            let (found, asked) = search(Search::beyond(taken, misses), |_| true);
            assert_eq!(asked, 1);
            (taken, misses) = (found.unwrap(), misses + 1);
        }
        assert!(misses <= 15, "{misses}");
        assert_eq!(search(Search::beyond(1, 99), |_| true).0, None);
    }

    #[test]
    fn what_is_known_of_a_name_is_never_given_twice() {
        let mut numbers = Numbers::default();
        assert_eq!((numbers.take("a"), numbers.knows("a")), (None, false));
        assert_eq!((numbers.enter("a", 5), numbers.enter("a", 5), numbers.take("a")), (5, 6, Some(7)));
        assert_eq!(numbers.enter("a", 100), 100, "somebody else has the numbers between");
        assert_eq!(numbers.take("a"), Some(101));
    }

    #[test]
    fn as_many_names_are_known_as_there_is_room_for_and_of_more_those_that_are_needed() {
        let mut numbers = Numbers::default();
        numbers.enter("needed", 2);
        for name in 0..3 * NAMES_MAX {
            numbers.enter(&name.to_string(), 2);
            assert!(numbers.take("needed").is_some() && numbers.names.len() <= NAMES_MAX);
        }
        assert!(!numbers.knows("0"));
    }

    proptest! {
        #[test]
        fn whatever_is_taken_what_is_found_is_free(
            taken in prop::collection::btree_set(2..300u32, 0..200), from in 1..200u32, misses in 0..4u32,
        ) {
            let (found, asked) = search(Search::beyond(from, misses), |number| !taken.contains(&number));
            prop_assert!(found.is_some_and(|found| found > from && !taken.contains(&found)));
            prop_assert!(asked < 25);
        }
    }
}
