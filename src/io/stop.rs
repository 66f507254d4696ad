//! The two ways in which recording ends: a stop, which is told what becomes of open connections, and a drain, which takes no
//! new ones and waits for the end of the last.
//!
//! A stop that leaves connections open leaves their spool files as a kill would, but synced and without anything missing
//! that was received: the next start takes them up ([`super::recover`]).

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{info, warn};

use super::ingest::Ingest;
use super::spool_dir::sync_dir;
use super::spool_writer::lock;
use crate::config::OnStop;
use crate::connection::Timeout;

/// How often a drain looks whether the last connection is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Looks in a row that must find nothing open: between two parts of a long call there is a moment in which neither is.
const LOOKS: u32 = 2;
/// Beyond so many files, one sync of the whole file system is cheaper than one of each.
const SYNC_EACH_MAX: usize = 32;

/// What a stop did with the connections that were live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Sealed, to be finished now.
    pub finalised: usize,
    /// Left open in the spool for the next start.
    pub left_open: usize,
}

impl Ingest {
    /// Refuses new connections and closes the open ones, or leaves those open to which a reference still holds. Nothing may
    /// be received any more.
    pub fn shut_down(&self, on_stop: OnStop) -> Stopped {
        self.is_stopping.store(true, Ordering::Release);
        let now = self.clock.now();
        let mut stopped = Stopped::default();
        for slot in self.slots() {
            self.release(&slot, |_, _| true);
            let mut state = lock(&slot.state);
            let connection = &mut state.call.connection;
            if on_stop == OnStop::Resume && connection.is_live() && connection.is_referenced() {
                stopped.left_open += 1;
                // What the disk did not take was to be noted with the next frame, and of this process there is none.
                state.append_dropped(now, lock(&slot.file.buffer).records());
                self.append_state(&slot, &mut state, now);
                continue;
            }
            let timeout = connection.handle_shutdown(now);
            drop(state);
            stopped.finalised += usize::from(matches!(timeout, Timeout::Seal(..)));
            self.settle(&slot, timeout, now);
        }
        stopped
    }

    /// Writes all buffers to the spool, ends its threads, and syncs what is left open there. Frames received after this are
    /// lost.
    pub fn stop_writer(&self) {
        self.writer.stop();
        // The thread that syncs may have ended before the one that writes had written its last.
        if let Err(error) = self.sync_open() {
            let path = self.spool.path().display();
            warn!(%path, %error, "the spool cannot be synced before the end");
        }
    }

    fn sync_open(&self) -> io::Result<()> {
        let slots = self.slots();
        let open = slots.iter().filter(|slot| lock(&slot.state).call.connection.is_live());
        let open: Vec<PathBuf> = open.map(|slot| slot.file.path.clone()).collect();
        if open.is_empty() {
            return Ok(());
        }
        if open.len() > SYNC_EACH_MAX {
            return Ok(rustix::fs::syncfs(File::open(self.spool.path())?)?);
        }
        for path in &open {
            File::open(path)?.sync_data()?;
        }
        sync_dir(self.spool.path())
    }

    /// Takes no new connections from now on. The open ones go on, as do the further parts of a long call. Once more is
    /// harmless.
    pub fn drain(&self) {
        if !self.draining.is_cancelled() {
            self.draining.cancel();
            info!(open = self.left_open(), "draining, new connections are refused");
        }
    }

    /// How many connections a drain waits for: those that are live, and the files of an earlier process that nobody has
    /// looked at yet.
    #[must_use]
    pub fn left_open(&self) -> usize {
        self.awaited.left() + self.open.load(Ordering::Acquire)
    }

    /// Waits for a drain to begin.
    pub async fn drain_begun(&self) {
        self.draining.cancelled().await;
    }

    /// Waits for a drain to begin, and then for the end of the last connection.
    pub async fn drained(&self) {
        self.drain_begun().await;
        let mut looks = 0;
        while looks < LOOKS {
            tokio::time::sleep(LOOK_EVERY).await;
            // In this order: what is recovered is open before it is no longer awaited.
            let is_over = self.is_recovered() && self.open.load(Ordering::Acquire) == 0;
            looks = if is_over { looks + 1 } else { 0 };
        }
    }
}
