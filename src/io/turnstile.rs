//! Waiting for one's turn: [`Turns`] with a clock, and a way to be called.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::clock::Clock;
use super::spool_writer::lock;
use crate::publish::turns::{Ticket, Turns};

/// Some places, and those who wait for one.
#[derive(Debug)]
pub(super) struct Turnstile {
    clock: Clock,
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    turns: Turns,
    /// Of those who wait. To drop one is to call its owner.
    calls: HashMap<Ticket, oneshot::Sender<()>>,
}

/// A turn. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turnstile: Arc<Turnstile>,
    ticket: Ticket,
}

impl Turnstile {
    /// So many places for files of any size, and so many for small ones.
    pub(super) fn new(wide: usize, narrow: usize) -> Arc<Self> {
        let waiting = Waiting { turns: Turns::new(wide, narrow), calls: HashMap::new() };
        Arc::new(Self { clock: Clock::start(), waiting: Mutex::new(waiting) })
    }

    /// Waits for a turn with a file of so many bytes.
    pub(super) async fn enter(self: &Arc<Self>, bytes: u64) -> Turn {
        let now = self.clock.now();
        self.wait(|turns| turns.ask(now, bytes)).await
    }

    /// Waits for a turn alone.
    pub(super) async fn enter_alone(self: &Arc<Self>) -> Turn {
        let now = self.clock.now();
        self.wait(|turns| turns.ask_alone(now)).await
    }

    async fn wait(self: &Arc<Self>, ask: impl FnOnce(&mut Turns) -> Ticket) -> Turn {
        let (call, called) = oneshot::channel();
        // Made before it is waited for: who gives up waiting leaves.
        let turn = self.change(|waiting| {
            let ticket = ask(&mut waiting.turns);
            waiting.calls.insert(ticket, call);
            Turn { turnstile: Arc::clone(self), ticket }
        });
        drop(called.await);
        turn
    }

    /// Changes something, and calls those who may begin by that.
    fn change<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let mut waiting = lock(&self.waiting);
        let changed = change(&mut waiting);
        while let Some(next) = waiting.turns.next(self.clock.now()) {
            waiting.calls.remove(&next);
        }
        changed
    }
}

impl Turn {
    /// What [`Turn::end_alone`] needs where the turn itself has been given away.
    pub(super) fn key(&self) -> (Arc<Turnstile>, Ticket) {
        (Arc::clone(&self.turnstile), self.ticket)
    }

    /// Lets others begin beside one that has its turn alone.
    pub(super) fn end_alone((turnstile, ticket): (Arc<Turnstile>, Ticket)) {
        turnstile.change(|waiting| waiting.turns.end_alone(ticket));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turnstile.change(|waiting| {
            waiting.calls.remove(&self.ticket);
            waiting.turns.leave(self.ticket);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::turns::SMALL_BYTES;
    use std::pin::pin;
    use std::time::Duration;

    const LARGE: u64 = 10 * SMALL_BYTES;

    async fn is_waiting<T>(turn: impl Future<Output = T> + Unpin) -> bool {
        tokio::time::timeout(Duration::from_millis(10), turn).await.is_err()
    }

    #[tokio::test]
    async fn who_waits_is_called_when_another_leaves_or_gives_up_waiting() {
        let turnstile = Turnstile::new(1, 1);
        let large = turnstile.enter(LARGE).await;
        drop(turnstile.enter(1).await);
        let mut second = Box::pin(turnstile.enter(LARGE));
        let mut third = pin!(turnstile.enter(2 * LARGE));
        assert!(is_waiting(&mut second).await && is_waiting(third.as_mut()).await);
        drop(second);
        drop(large);
        drop(third.await);
        assert!(lock(&turnstile.waiting).calls.is_empty());
    }

    #[tokio::test]
    async fn one_that_is_alone_keeps_others_waiting_until_it_leaves_or_lets_them() {
        let turnstile = Turnstile::new(1, 1);
        let alone = turnstile.enter_alone().await;
        let mut other = pin!(turnstile.enter(1));
        assert!(is_waiting(other.as_mut()).await);
        Turn::end_alone(alone.key());
        drop(other.await);
        drop(alone);
        drop(turnstile.enter_alone().await);
    }
}
