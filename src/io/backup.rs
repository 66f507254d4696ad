//! The backup storage: where recordings go while the first choice does not take them, and how they come back.
//!
//! When the first choice has failed for as long as the operator said, a recording is put into the backup and its spool
//! file set aside as `….spool.backup`: the call can be had, and the outbox is not held up. The spool file stays the
//! recording's true home. Every so often a few of these files are tried on the first choice again; when that works,
//! all follow, each is removed from the backup, and only then is its spool file removed.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::finish::{FinishError, Finisher, Prepared};
use super::log::chain;
use super::retire::clear_up;
use super::spool_dir::{connection_of, parse_name, set_aside};
use super::spool_writer::lock;
use super::store::Store;
use crate::metrics::Metrics;
use crate::spool::name::Aside;

/// How often the first choice is tried with what is in the backup, at least.
const TRY_EVERY_MAX: Duration = Duration::from_secs(60);
const TRY_EVERY_MIN: Duration = Duration::from_secs(1);
/// After so many failures in a row the first choice is left alone until the next time. One alone may be one file's own.
const FAILURES_MAX: usize = 3;

/// A second store, and when it is used.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The store.
    pub store: Store,
    /// How long the first choice must have failed.
    pub after: Duration,
}

/// One of the two stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Where recordings go.
    First,
    /// Where they go while that does not take them.
    Backup,
}

/// Since when the first choice has been failing.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<Instant>>);

impl Choice {
    /// Its place where something is kept for each.
    pub(super) fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Backup => 1,
        }
    }
}

impl Health {
    pub(super) fn note_success(&self) {
        *lock(&self.0) = None;
    }

    /// How long there have been nothing but failures, if the last attempt was one.
    pub(super) fn failing_for(&self) -> Option<Duration> {
        lock(&self.0).map(|since| since.elapsed())
    }

    /// Notes a failure. Returns how long there have been nothing but failures.
    pub(super) fn note_failure(&self) -> Duration {
        lock(&self.0).get_or_insert_with(Instant::now).elapsed()
    }
}

/// Whether the recording of a spool file is in the backup.
pub(super) fn is_backed_up(spool: &Path) -> bool {
    parse_name(spool).is_some_and(|name| name.is_backed_up())
}

/// The spool files of a directory whose recordings are in the backup, oldest first.
///
/// # Errors
/// Where the directory cannot be listed.
pub fn backed_up(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        // Opening a pipe would wait for ever, and all others with it.
        if is_backed_up(&path) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

impl Finisher {
    /// Puts into the backup what the first choice has not taken, if it is time for that. `error` says why. What no recording
    /// could be made of stays where it is, beside the notes of why.
    pub(super) async fn back_up(
        &self,
        spool: &Path,
        ready: &Prepared,
        error: FinishError,
    ) -> Result<(), FinishError> {
        let failing_for = self.health.note_failure();
        let is_wanted = ready.is_recording() && !is_backed_up(spool);
        let backup = self.backup.as_ref().filter(|backup| failing_for >= backup.after && is_wanted);
        let Some(backup) = backup else { return Err(error) };
        let published = match self.publish(&backup.store, Choice::Backup, spool, ready).await {
            Ok(published) => published,
            Err(second) => {
                debug!(path = %spool.display(), error = chain(&second), "the backup storage does not take it either");
                return Err(error);
            }
        };
        clear_up(spool)?;
        let kept = set_aside(spool, Aside::BackedUp)?;
        Metrics::add(&self.metrics().backed_up);
        warn!(
            connection = ready.connection_id(),
            path = %published.place,
            spool = %kept.display(),
            error = chain(&error),
            advice = error.advice(),
            "recording is in the backup storage, and goes to the first choice when that works again"
        );
        Ok(())
    }

    /// Removes from the backup what the first choice has now.
    pub(super) async fn empty_backup(&self, spool: &Path, ready: &Prepared) -> Result<(), FinishError> {
        let Some(backup) = self.backup.as_ref().filter(|_| is_backed_up(spool)) else { return Ok(()) };
        // What is there already is found, to the byte, and not put again.
        let published = self.publish(&backup.store, Choice::Backup, spool, ready).await?;
        for key in &published.keys {
            backup.store.remove(key).await?;
        }
        info!(connection = ready.connection_id(), path = %published.place, "removed from the backup storage");
        Ok(())
    }

    /// Brings back what is in the backup, whenever the first choice takes it, until `stop`.
    pub async fn bring_back(self: Arc<Self>, directory: PathBuf, stop: CancellationToken) {
        let every = self.backup.as_ref().map_or(TRY_EVERY_MAX, |backup| backup.after);
        let every = every.clamp(TRY_EVERY_MIN, TRY_EVERY_MAX);
        let run = async {
            let mut published = HashMap::new();
            for round in 0.. {
                tokio::time::sleep(every).await;
                match backed_up(&directory) {
                    Ok(mut found) => {
                        published.retain(|path, _| found.binary_search(path).is_ok());
                        // Each time begins with another, so that those that always fail do not hide the rest.
                        let begin = (round * FAILURES_MAX).checked_rem(found.len()).unwrap_or(0);
                        found.rotate_left(begin);
                        self.bring_back_each(&found, &mut published).await;
                    }
                    Err(error) => {
                        warn!(path = %directory.display(), %error, "the spool cannot be listed, look at its disk");
                    }
                }
            }
        };
        tokio::select! {
            () = run => {}
            () = stop.cancelled() => {}
        }
    }

    /// Tries each. `published` keeps, from one round to the next, those that the first choice has and that the disk does not
    /// remove.
    async fn bring_back_each(
        self: &Arc<Self>,
        found: &[PathBuf],
        published: &mut HashMap<PathBuf, Arc<Prepared>>,
    ) {
        let mut failures = 0;
        for spool in found {
            let mut prepared = published.remove(spool);
            let Err(error) = self.finish(spool, &mut prepared).await else {
                failures = 0;
                continue;
            };
            if let Some(ready) = prepared.filter(|ready| ready.is_published()) {
                published.insert(spool.clone(), ready);
            }
            self.metrics().publish_retries.add(error.cause());
            match error {
                FinishError::Store(_) => {
                    debug!(path = %spool.display(), error = chain(&error), "stays in the backup storage");
                    failures += 1;
                    // The others would not get farther.
                    if failures == FAILURES_MAX {
                        return;
                    }
                }
                error => {
                    warn!(connection = connection_of(spool), path = %spool.display(), error = chain(&error), advice = error.advice(), "cannot be brought back from the backup storage, trying again");
                }
            }
        }
    }
}
