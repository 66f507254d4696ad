//! What is looked at once a second: whether the spool's disk has room for new connections, and whether the spool directory is
//! there and this process's.

use std::sync::atomic::Ordering;

use tracing::{error, info, warn};

use super::ingest::Ingest;
use super::log::chain;

impl Ingest {
    /// Looks at the free space of the spool's disk, and refuses new connections while there is too little.
    pub fn watch_disk(&self, min_free_bytes: u64) {
        self.keep_spool();
        let Ok(free_bytes) = self.spool.free_bytes() else { return };
        let is_low = free_bytes < min_free_bytes;
        if self.is_disk_low.swap(is_low, Ordering::Relaxed) != is_low {
            let path = self.spool.path().display();
            if is_low {
                warn!(%path, free_bytes, min_free_bytes, "spool disk is low, new connections are refused");
            } else {
                info!(%path, free_bytes, "spool disk has room again");
            }
        }
    }

    /// Sees to it that the spool directory is there, and nobody else's.
    fn keep_spool(&self) {
        let path = self.spool.path().display();
        match self.spool.keep() {
            Ok(false) => self.is_spool_contested.store(false, Ordering::Relaxed),
            Ok(true) => {
                error!(%path, "the spool directory or its lock was removed or replaced, it is made anew: find out who did that");
            }
            Err(error) => {
                if !self.is_spool_contested.swap(true, Ordering::Relaxed) {
                    error!(%path, error = chain(&error), "the spool directory is not this process's any more: stop the other one");
                }
            }
        }
    }
}
