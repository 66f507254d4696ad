//! Who is connected, how long each may take, and who goes when there is no room for the next.
//!
//! A connection is either the daemon's turn, which is bounded by itself, or the client's: to send the head of a request
//! or its body, or to read the answer. Each of these has its time. When all seats are taken the connection goes whose
//! client has been owing something for the longest: strangers that hold connections give way to each other, and whoever
//! sends a request at once is answered: a connection cannot go before it has been looked at. Only where all are being worked
//! for is the next turned away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::io::log::Sparing;
use crate::io::spool_writer::lock;

/// From the first byte of a request, or the beginning of the connection, to the end of its head.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// From the end of the head to that of the body, which has 64 KiB at most.
pub(super) const BODY_WITHIN: Duration = Duration::from_secs(10);
/// From an answer to the next request. Scrapers ask once a minute or more often.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// While an answer is read, from one piece of it to the next.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// How long one that has come waits for a seat, and with it those behind it, and how often it is looked for one.
const PATIENCE: Duration = Duration::from_millis(250);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A client that has taken nothing of its answer for so long may have to go for others.
const SLOW: Duration = Duration::from_secs(1);

/// Whose turn it is, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The client's, to ask again.
    Idle,
    /// The client's, to finish the head of a request.
    Head,
    /// The client's, to finish the body.
    Body,
    /// The client's, to read the answer.
    Answer,
    /// The daemon's, to look what the client has sent since it connected.
    New,
    /// The daemon's, to make the answer.
    Work,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Seat {
    /// Since when: in the phase `Answer` since the last piece of it was taken.
    phase: Mutex<(Phase, Instant)>,
    /// Others need its place.
    pub(super) given_up: CancellationToken,
}

impl Seat {
    fn new() -> Self {
        Self { phase: Mutex::new((Phase::New, Instant::now())), given_up: CancellationToken::new() }
    }

    /// Enters a phase.
    pub(super) fn enter(&self, phase: Phase) {
        *lock(&self.phase) = (phase, Instant::now());
    }

    /// Notes that the answer has been handed over.
    pub(super) fn note_answered(&self) {
        let mut phase = lock(&self.phase);
        if phase.0 == Phase::Answer {
            *phase = (Phase::Idle, Instant::now());
        }
    }

    /// Notes that nothing has come yet.
    pub(super) fn note_empty(&self) {
        let mut phase = lock(&self.phase);
        if phase.0 == Phase::New {
            *phase = (Phase::Head, Instant::now());
        }
    }

    /// Notes that bytes came: the first of the next request, if one is waited for.
    pub(super) fn note_read(&self) {
        let mut phase = lock(&self.phase);
        if phase.0 == Phase::Idle {
            *phase = (Phase::Head, Instant::now());
        }
    }

    /// Notes that bytes were taken.
    pub(super) fn note_written(&self) {
        let mut phase = lock(&self.phase);
        if phase.0 == Phase::Answer {
            phase.1 = Instant::now();
        }
    }

    /// Whether the client has had its time. That of a body ends with an answer, which is not this one's matter.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        let (phase, since) = *lock(&self.phase);
        let most = match phase {
            Phase::Head => HEAD_WITHIN,
            Phase::Idle => IDLE_MAX,
            Phase::Answer => READ_WITHIN,
            Phase::Body | Phase::New | Phase::Work => return false,
        };
        now.saturating_duration_since(since) >= most
    }

    /// How soon it goes for others, the least first; never, where the daemon or the client is at work.
    fn rank(&self, now: Instant) -> Option<(Phase, Instant)> {
        let (phase, since) = *lock(&self.phase);
        match phase {
            // Between an idle connection and one that is half through a head nobody can tell who is the stranger.
            Phase::Idle | Phase::Head => Some((Phase::Idle, since)),
            Phase::Body => Some((phase, since)),
            Phase::Answer => (now.saturating_duration_since(since) >= SLOW).then_some((phase, since)),
            Phase::New | Phase::Work => None,
        }
    }
}

/// The seats of all connections.
#[derive(Debug)]
pub(super) struct Seats {
    most: usize,
    taken: Mutex<Taken>,
    given_up: Sparing,
    turned_away: Sparing,
}

#[derive(Debug, Default)]
struct Taken {
    seats: HashMap<u64, Arc<Seat>>,
    next: u64,
}

/// A seat, until this is dropped.
#[derive(Debug)]
pub(super) struct Occupied {
    pub(super) seat: Arc<Seat>,
    seats: Arc<Seats>,
    number: u64,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        lock(&self.seats.taken).seats.remove(&self.number);
    }
}

impl Seats {
    pub(super) fn new(most: usize) -> Arc<Self> {
        let (given_up, turned_away) = (Sparing::default(), Sparing::default());
        Arc::new(Self { most, taken: Mutex::default(), given_up, turned_away })
    }

    /// Waits a moment for a seat. None where all are being worked for.
    pub(super) async fn take_soon(self: &Arc<Self>) -> Option<Occupied> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.take() {
                None if Instant::now() < until => tokio::time::sleep(LOOK_EVERY).await,
                None => {
                    if let Some(count) = self.turned_away.count() {
                        warn!(
                            count,
                            open = self.most,
                            "requests over HTTP are refused, so many are worked for"
                        );
                    }
                    return None;
                }
                taken => return taken,
            }
        }
    }

    /// Takes a seat, for which another connection may have to go.
    fn take(self: &Arc<Self>) -> Option<Occupied> {
        let now = Instant::now();
        let mut taken = lock(&self.taken);
        if taken.seats.len() >= self.most {
            let ranks = taken.seats.iter().filter_map(|(number, seat)| Some((seat.rank(now)?, *number)));
            let (_, number) = ranks.min()?;
            if let Some(seat) = taken.seats.remove(&number) {
                seat.given_up.cancel();
            }
            if let Some(count) = self.given_up.count() {
                warn!(count, open = self.most, "connections over HTTP are closed to make room for others");
            }
        }
        let (number, seat) = (taken.next, Arc::new(Seat::new()));
        taken.next += 1;
        taken.seats.insert(number, Arc::clone(&seat));
        Some(Occupied { seat, seats: Arc::clone(self), number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seats in these phases, each a minute longer than the next.
    fn seated(phases: &[Phase]) -> (Arc<Seats>, Vec<Occupied>) {
        let seats = Seats::new(phases.len());
        let taken: Vec<Occupied> = phases.iter().map(|_| seats.take().unwrap()).collect();
        for (age, (occupied, phase)) in taken.iter().zip(phases).rev().enumerate() {
            let since = Instant::now() - Duration::from_secs(60 * (u64::try_from(age).unwrap() + 1));
            *lock(&occupied.seat.phase) = (*phase, since);
        }
        (seats, taken)
    }

    fn gone(taken: &[Occupied]) -> Vec<usize> {
        let gone = taken.iter().enumerate().filter(|(_, occupied)| occupied.seat.given_up.is_cancelled());
        gone.map(|(place, _)| place).collect()
    }

    #[test]
    fn who_owes_a_request_for_the_longest_goes_first_and_who_is_worked_for_stays() {
        use Phase::{Answer, Body, Head, Idle, New, Work};
        let (seats, taken) = seated(&[New, Answer, Body, Idle, Head, Idle, Work]);
        let mut order = Vec::new();
        let mut new = Vec::new();
        for _ in 0..5 {
            let occupied = seats.take().expect("somebody can go");
            new.push(occupied);
            order.extend(gone(&taken).into_iter().filter(|place| !order.contains(place)).collect::<Vec<_>>());
        }
        assert_eq!(order, [3, 4, 5, 2, 1]);
        assert!(seats.take().is_none(), "all are worked for, or not looked at yet");
        new[2].seat.note_empty();
        assert!(seats.take().is_some() && new[2].seat.given_up.is_cancelled());
    }

    #[test]
    fn a_client_that_reads_its_answer_does_not_go() {
        let (seats, taken) = seated(&[Phase::Answer]);
        taken[0].seat.note_written();
        assert!(seats.take().is_none());
        assert!(gone(&taken).is_empty());
    }

    #[test]
    fn one_that_had_to_go_does_not_take_a_seat_with_it() {
        let (seats, taken) = seated(&[Phase::Idle, Phase::Idle]);
        let new = seats.take().unwrap();
        drop(taken);
        assert_eq!(lock(&seats.taken).seats.len(), 1);
        drop(new);
        assert!(lock(&seats.taken).seats.is_empty());
    }

    #[test]
    fn each_of_the_client_s_turns_has_its_time() {
        let seat = Seat::new();
        seat.note_empty();
        let after = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert!(seat.is_overdue(after(11)) && !seat.is_overdue(after(9)), "a head");
        seat.note_read();
        assert!(seat.is_overdue(after(11)), "one byte does not begin the time anew");
        seat.enter(Phase::Work);
        assert!(!seat.is_overdue(after(1000)), "the daemon's");
        seat.enter(Phase::Answer);
        assert!(seat.is_overdue(after(31)) && !seat.is_overdue(after(29)), "an answer");
        seat.note_answered();
        assert!(seat.is_overdue(after(76)) && !seat.is_overdue(after(74)), "idle");
        seat.note_read();
        assert!(seat.is_overdue(after(11)), "the next head");
    }
}
