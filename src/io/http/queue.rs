//! Work for requests that takes a thread: so much at once, so many requests that wait for it, and no more.
//!
//! A request waits only as long as its client does. Work that has begun and that nobody waits for any more is told so,
//! and is counted until it has really stopped: clients that go as fast as they come find the next thread no sooner.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;
use tracing::debug;

use super::Problem;
use crate::io::demand::{Asker, Demand};

/// Work of one kind.
#[derive(Debug)]
pub(super) struct Queue {
    /// Held by work until it has stopped.
    turns: Arc<Semaphore>,
    /// Held by requests, those that wait among them.
    places: Arc<Semaphore>,
}

/// A place in the queue.
#[derive(Debug)]
pub(super) struct Place {
    turns: Arc<Semaphore>,
    _place: OwnedSemaphorePermit,
}

impl Queue {
    /// Lets so much be done at once, while so many requests wait.
    pub(super) fn new(at_once: usize, waiting: usize) -> Self {
        let (turns, places) = (Semaphore::new(at_once), Semaphore::new(at_once + waiting));
        Self { turns: Arc::new(turns), places: Arc::new(places) }
    }

    /// Takes a place, if there is one.
    pub(super) fn enter(&self) -> Result<Place, Problem> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| {
            debug!("a request is refused, too many wait");
            Problem::busy()
        })?;
        Ok(Place { turns: Arc::clone(&self.turns), _place: place })
    }
}

impl Place {
    /// Waits for its turn, and does the work on a thread of its own. An error says that it panicked.
    pub(super) async fn work<T: Send + 'static>(
        self,
        work: impl FnOnce(&Demand) -> T + Send + 'static,
    ) -> Result<Result<T, JoinError>, Problem> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Problem::stopping())?;
        let asker = Asker::default();
        let demand = asker.demand();
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&demand);
            drop(turn);
            done
        });
        Ok(done.await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test]
    async fn what_nobody_waits_for_is_told_so_and_keeps_its_turn_until_it_has_stopped() {
        let queue = Queue::new(1, 1);
        let stopped = Arc::new(AtomicUsize::new(0));
        let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
        let note = Arc::clone(&stopped);
        let work = queue.enter().unwrap().work(move |demand| {
            begun.send(()).unwrap();
            while demand.check().is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
            note.fetch_add(1, Ordering::SeqCst);
        });
        let request = tokio::spawn(work);
        has_begun.recv().await.unwrap();
        let next = queue.enter().unwrap();
        assert_eq!(queue.enter().unwrap_err().status, 503, "one is at work, and one waits");
        request.abort();
        let seen = Arc::clone(&stopped);
        let seen = next.work(move |_| seen.load(Ordering::SeqCst)).await.unwrap().unwrap();
        assert_eq!(seen, 1, "the turn came only when the other had stopped");
        assert!(queue.enter().is_ok(), "its place is free again");
    }

    #[tokio::test]
    async fn a_client_that_goes_leaves_its_place_to_others() {
        let queue = Queue::new(1, 1);
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let busy = tokio::spawn(queue.enter().unwrap().work(move |_| wait.recv().is_ok()));
        for _ in 0..100 {
            let waits = tokio::spawn(queue.enter().unwrap().work(|_| ()));
            tokio::task::yield_now().await;
            waits.abort();
            assert!(waits.await.unwrap_err().is_cancelled());
        }
        go_on.send(()).unwrap();
        assert!(busy.await.unwrap().unwrap().unwrap());
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_turn_back() {
        let queue = Queue::new(1, 0);
        let panicked = queue.enter().unwrap().work(|_| panic!("on purpose")).await.unwrap();
        assert!(panicked.is_err());
        assert_eq!(queue.enter().unwrap().work(|_| 7).await.unwrap().unwrap(), 7);
    }
}
