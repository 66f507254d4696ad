//! What becomes of a spool file when the store has its recording: durability step 8.
//!
//! It is removed, or set aside where it holds what the recording does not. The disk may refuse any of it: then the same is
//! tried again, and nothing else. What is published is not made, put, counted or told a second time, whatever of the spool
//! is left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{error, warn};

use super::finish::{End, Finisher, GONE, Prepared};
use super::publishing::{Published, forget_numbers};
use super::render::Keep;
use super::spool_dir::{beside, set_aside, sync_dir};
use super::spool_file::remove_if_there;
use super::trials::forget;
use crate::manifest::Outcome;
use crate::metrics::Metrics;
use crate::spool::name::{Aside, Made};

/// What is said of a spool file over which two processes have died.
pub(super) const DEADLY: &str = "the daemon died twice while it made this recording";

impl Finisher {
    /// Tells and counts, once, that a recording is published.
    pub(super) fn tell_published(&self, spool: &Path, ready: &Prepared, published: &Published) {
        published.log(&ready.rendered, ready.since);
        if ready.is_recording() {
            let manifest = &ready.rendered.manifest;
            Metrics::add(&self.metrics.published);
            self.metrics.finish(manifest.outcome);
            self.metrics.record(manifest);
            self.metrics.end_to_published.observe(since_end(spool));
        }
    }

    /// Does what is left when all is in the store. Each step may have been done before.
    pub(super) fn retire(&self, spool: &Path, ready: &Prepared) -> io::Result<()> {
        match self.put_away(spool, ready) {
            // Others have removed what was to be kept: no attempt brings it back.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                forget_numbers(spool);
                let (connection, path) = (&ready.rendered.manifest.connection_id, spool.display());
                if !ready.is_recording() {
                    self.metrics.finish(Outcome::Failed);
                }
                error!(connection, %path, error = GONE, "a spool file that was to be kept is gone: find out who removes files from the spool directory");
                Ok(())
            }
            done => done,
        }
    }

    fn put_away(&self, spool: &Path, ready: &Prepared) -> io::Result<()> {
        let connection = &ready.rendered.manifest.connection_id;
        match &ready.end {
            End::Fail(reason) => self.give_up(spool, Some(connection), reason),
            End::Convict => self.convict(spool, Some(connection)),
            End::Gone => {
                clear_up(spool)?;
                forget_numbers(spool);
                self.metrics.finish(Outcome::Failed);
                error!(
                    connection,
                    outcome = "failed",
                    path = %spool.display(),
                    error = GONE,
                    "no recording could be made, and the spool is lost: find out who removes files from the spool directory"
                );
                Ok(())
            }
            End::Remove => {
                clear_up(spool)?;
                remove(spool)?;
                forget_numbers(spool);
                Ok(())
            }
            End::Keep(keep) => {
                warn_of_kept(connection, &put_aside(spool, aside_of(*keep))?, *keep);
                Ok(())
            }
        }
    }

    /// Sets a spool aside over which two processes have died.
    pub(super) fn convict(&self, spool: &Path, connection: Option<&String>) -> io::Result<()> {
        let kept = self.keep_failed(spool)?;
        // Whoever gives it its name back wants it to be tried.
        forget(spool);
        error!(
            connection,
            outcome = "failed",
            path = %kept.display(),
            error = DEADLY,
            "recording cannot be made without ending the daemon, the spool is kept: give the file its name back and run sidetape recover where there is more memory"
        );
        Ok(())
    }

    /// Sets a spool aside as failed, and returns where it is.
    fn keep_failed(&self, spool: &Path) -> io::Result<PathBuf> {
        let kept = put_aside(spool, Aside::Failed)?;
        self.metrics.finish(Outcome::Failed);
        Ok(kept)
    }

    /// Sets a spool aside of which no recording can be made.
    pub(super) fn give_up(&self, spool: &Path, connection: Option<&String>, reason: &str) -> io::Result<()> {
        let kept = self.keep_failed(spool)?;
        error!(
            connection,
            outcome = "failed",
            path = %kept.display(),
            error = reason,
            "no recording could be made, the spool is kept"
        );
        Ok(())
    }
}

/// Sets a spool aside with nothing left beside it, and returns where it is.
fn put_aside(spool: &Path, why: Aside) -> io::Result<PathBuf> {
    clear_up(spool)?;
    let kept = set_aside(spool, why)?;
    forget_numbers(spool);
    Ok(kept)
}

fn warn_of_kept(connection: &str, kept: &Path, keep: Keep) {
    let path = kept.display();
    match keep {
        Keep::Undecodable => {
            warn!(connection, %path, "spool kept, it holds audio of a codec that this version cannot record");
        }
        Keep::Overlapping => {
            warn!(connection, %path, "spool kept, two sources spoke on one channel at once and one is left out");
        }
        Keep::Damaged => {
            error!(connection, %path, "spool file is damaged, what could be read is published; look at the disk, remove the file when it is not needed");
        }
    }
}

/// Removes what rendering left beside a spool file.
///
/// # Errors
/// Where the disk says no.
pub(super) fn clear_up(spool: &Path) -> io::Result<()> {
    for made in Made::RENDERED {
        match fs::remove_file(beside(spool, made)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes a spool file whose recording is published.
fn remove(spool: &Path) -> io::Result<()> {
    // Somebody else may have done so: what is published is not lost by that.
    remove_if_there(spool)?;
    sync_dir(spool.parent().unwrap_or(Path::new(".")))
}

fn aside_of(keep: Keep) -> Aside {
    if keep == Keep::Damaged { Aside::Damaged } else { Aside::Kept }
}

/// How long ago a connection ended: its seal was the last that was written to its spool file. By the wall clock, since
/// the daemon may have been started again in between.
fn since_end(spool: &Path) -> Duration {
    let written = fs::metadata(spool).and_then(|found| found.modified());
    written.ok().and_then(|written| written.elapsed().ok()).unwrap_or_default()
}
