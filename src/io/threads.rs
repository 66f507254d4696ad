//! Threads of a part's own, for work that blocks. The runtime's pool is for what comes over HTTP too: whoever fills that
//! must not keep recordings from being finished, and finishing must not keep anybody waiting there.
//!
//! Threads are started when there is work for them, as many as were asked for at most, and then stay. Those that must be
//! there when memory is short are started before.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;
use tracing::debug;

use super::spool_writer::lock;

/// As much as the runtime gives its own threads, of which only what is used takes memory.
const STACK_BYTES: usize = 8 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// Some threads, and the work that waits for one. Dropping it ends them when they have done what they are at.
pub struct Threads {
    shared: Arc<Shared>,
}

/// Work was not done.
#[derive(Debug, thiserror::Error)]
pub enum ThreadsError {
    /// The system gives no thread.
    #[error("starting a thread")]
    Start(#[from] io::Error),
    /// A bug.
    #[error("the work panicked")]
    Panicked,
}

struct Shared {
    name: &'static str,
    most: usize,
    /// How much less than others they get where all want the processor.
    nice: i32,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    started: usize,
    idle: usize,
    is_closed: bool,
}

impl Threads {
    /// At most so many threads of that name.
    #[must_use]
    pub fn new(name: &'static str, most: usize, nice: i32) -> Self {
        let (queue, wake) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { name, most, nice, queue, wake }) }
    }

    /// Starts so many, before there is work for them.
    ///
    /// # Errors
    /// Where the system gives none at all.
    pub fn start(&self, count: usize) -> io::Result<()> {
        let mut queue = lock(&self.shared.queue);
        while queue.started < count.min(self.shared.most) {
            match self.shared.start(&mut queue) {
                Ok(()) => {}
                Err(error) if queue.started == 0 => return Err(error),
                Err(error) => {
                    debug!(%error, threads = queue.started, "no further thread can be had");
                    break;
                }
            }
        }
        Ok(())
    }

    /// Does work on one of the threads. It is done, too, where nobody waits for the result any more.
    ///
    /// # Errors
    /// Where there is no thread at all, or the work panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ThreadsError> {
        let (done, result) = oneshot::channel();
        let job = move || {
            // Without a result the other end hears of the panic; nobody may wait for a result any more.
            if let Ok(made) = catch_unwind(AssertUnwindSafe(work)) {
                drop(done.send(made));
            }
        };
        self.shared.add(Box::new(job))?;
        result.await.map_err(|_| ThreadsError::Panicked)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        lock(&self.shared.queue).is_closed = true;
        self.shared.wake.notify_all();
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Threads").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

/// Does one piece of work on a thread of its own.
///
/// # Errors
/// Where the system gives no thread. That the work panicked is seen by the receiver.
pub fn once<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (done, result) = oneshot::channel();
    let run = move || drop(done.send(work()));
    thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(run)?;
    Ok(result)
}

impl Shared {
    fn add(self: &Arc<Self>, job: Job) -> io::Result<()> {
        let mut queue = lock(&self.queue);
        if queue.jobs.len() >= queue.idle && queue.started < self.most {
            match self.start(&mut queue) {
                Ok(()) => {}
                Err(error) if queue.started == 0 => return Err(error),
                Err(error) => debug!(%error, threads = queue.started, "no further thread can be had"),
            }
        }
        queue.jobs.push_back(job);
        self.wake.notify_one();
        Ok(())
    }

    fn start(self: &Arc<Self>, queue: &mut Queue) -> io::Result<()> {
        let shared = Arc::clone(self);
        let builder = thread::Builder::new().name(self.name.to_owned()).stack_size(STACK_BYTES);
        builder.spawn(move || shared.work())?;
        queue.started += 1;
        Ok(())
    }

    fn work(&self) {
        // Of this thread: where Linux says process it means thread.
        if self.nice != 0
            && let Err(error) = rustix::process::setpriority_process(None, self.nice)
        {
            debug!(%error, name = self.name, "threads have the usual priority");
        }
        let mut queue = lock(&self.queue);
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                job();
                queue = lock(&self.queue);
                continue;
            }
            if queue.is_closed {
                return;
            }
            queue.idle += 1;
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn there_are_no_more_threads_than_were_asked_for_and_all_of_the_work_is_done() {
        let threads = Threads::new("test", 2, 0);
        threads.start(9).unwrap();
        assert_eq!(lock(&threads.shared.queue).started, 2);
        let names = Arc::new(Mutex::new(std::collections::HashSet::new()));
        let work = |number: usize| {
            let names = Arc::clone(&names);
            threads.run(move || {
                assert_eq!(thread::current().name(), Some("test"));
                lock(&names).insert(thread::current().id());
                number
            })
        };
        let mut sum = 0;
        for number in 0..50 {
            let (one, other) = tokio::join!(work(number), work(number));
            sum += one.unwrap() + other.unwrap();
        }
        assert_eq!(sum, 50 * 49);
        assert!((1..=2).contains(&lock(&names).len()));
    }

    #[tokio::test]
    async fn work_that_blocks_does_not_keep_other_work_from_the_other_threads() {
        let threads = Threads::new("test", 2, 0);
        let (go, wait) = mpsc::channel::<()>();
        let blocked = threads.run(move || wait.recv().is_err());
        let mut blocked = Box::pin(blocked);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), &mut blocked).await.is_err());
        assert_eq!(threads.run(|| 7).await.unwrap(), 7);
        drop(go);
        assert!(blocked.await.unwrap());
    }

    #[tokio::test]
    async fn a_panic_is_told_and_costs_no_thread() {
        let threads = Threads::new("test", 1, 5);
        assert!(matches!(threads.run(|| panic!("a bug")).await, Err::<(), _>(ThreadsError::Panicked)));
        assert_eq!(threads.run(|| 7).await.unwrap(), 7);
    }
}
