//! Which spool files were being rendered when a process died, and which of them is to blame.
//!
//! A process may be killed by what it renders: it may need more memory than there is, or bring a bug to light that no
//! panic tells of. Started again it would do the same again, for ever, and all other calls would suffer. So a note stands
//! beside a spool file while it is rendered; a note that a start finds there is what a death has left:
//!
//! | note | what it says of the spool file | what is done |
//! | --- | --- | --- |
//! | none | it was not being rendered when a process died | it is rendered in its turn |
//! | `….spool.trying` | it was, maybe with others: a suspect | it is rendered once more, alone, after all others |
//! | `….spool.alone` | it was, and alone, after a death before: that was its doing | it is set aside |
//!
//! A note is an empty file, made before the directory is synced, and removed when rendering is over, however it ended.
//! Where the disk does not remove one, the process remembers that nobody has died. No note is kept from when the daemon is asked to stop: whoever is killed then is not killed for what it renders. A
//! disk that takes no note is no reason not to render.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tracing::debug;

use super::spool_dir::{beside, try_to_sync_dir_of};
use super::spool_file::remove_if_there;
use super::spool_writer::lock;
use crate::spool::name::Made;

/// What the notes beside a spool file say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No process has died over it.
    Clear,
    /// One process has died while this was rendered, maybe with others.
    Suspect,
    /// Two have, the second one while nothing but this was rendered.
    Convicted,
}

impl Standing {
    /// Reads it.
    pub(super) fn of(spool: &Path) -> Self {
        let has = |note| beside(spool, note).symlink_metadata().is_ok();
        match (has(Made::Alone), has(Made::Trying)) {
            (true, _) => Self::Convicted,
            (_, true) => Self::Suspect,
            _ => Self::Clear,
        }
    }
}

/// The notes of this process.
#[derive(Debug, Default)]
pub(super) struct Trials(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    is_over: bool,
    /// Of what is being rendered.
    kept: HashMap<PathBuf, Made>,
    /// What is true where the disk has kept notes that were to be removed.
    stuck: HashMap<PathBuf, Standing>,
}

/// A note that stands beside a spool file until this is dropped.
#[derive(Debug)]
pub(super) struct Trial {
    trials: Arc<Trials>,
    spool: PathBuf,
    was_suspect: bool,
    is_adjourned: bool,
}

impl Trials {
    /// What is to be believed of a spool file.
    pub(super) fn standing(&self, spool: &Path) -> Standing {
        let stuck = lock(&self.0).stuck.get(spool).copied();
        stuck.unwrap_or_else(|| Standing::of(spool))
    }

    /// Notes that a spool file is rendered from now on. Whoever calls this syncs the directory before that begins.
    pub(super) fn begin(self: &Arc<Self>, spool: &Path, standing: Standing) -> Trial {
        let mut notes = lock(&self.0);
        if !notes.is_over {
            let noted = match standing {
                Standing::Clear => make(&beside(spool, Made::Trying)).map(|()| Made::Trying),
                Standing::Suspect | Standing::Convicted => {
                    fs::rename(beside(spool, Made::Trying), beside(spool, Made::Alone)).map(|()| Made::Alone)
                }
            };
            match noted {
                Ok(note) => drop(notes.kept.insert(spool.to_owned(), note)),
                Err(error) => debug!(path = %spool.display(), %error, "rendered without a note of it"),
            }
        }
        Trial {
            trials: Arc::clone(self),
            spool: spool.to_owned(),
            was_suspect: standing != Standing::Clear,
            is_adjourned: false,
        }
    }

    /// Notes that others are rendered beside a suspect from now on.
    pub(super) fn end_alone(&self, spool: &Path) {
        let mut notes = lock(&self.0);
        if let Some(note) = notes.kept.get_mut(spool)
            && lift(spool)
        {
            *note = Made::Trying;
        }
    }

    /// Takes the notes back, and keeps none from now on: the process is about to end.
    pub(super) fn end(&self) {
        let mut notes = lock(&self.0);
        notes.is_over = true;
        for (spool, note) in notes.kept.drain() {
            match note {
                Made::Alone => drop(lift(&spool)),
                _ => remove(&spool, note),
            }
        }
    }
}

impl Trial {
    /// Says that rendering has ended before its end, for a reason that tells nothing of the spool file: a suspect stays one.
    pub(super) fn adjourn(&mut self) {
        self.is_adjourned = true;
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let note = lock(&self.trials.0).kept.remove(&self.spool);
        let standing = if self.is_adjourned && self.was_suspect {
            // Where others were rendered beside it, or the process stops, that is done.
            if note == Some(Made::Alone) {
                lift(&self.spool);
                try_to_sync_dir_of(&self.spool);
            }
            Standing::Suspect
        } else {
            forget(&self.spool);
            Standing::Clear
        };
        let mut notes = lock(&self.trials.0);
        if Standing::of(&self.spool) == standing {
            notes.stuck.remove(&self.spool);
        } else {
            notes.stuck.insert(self.spool.clone(), standing);
        }
    }
}

/// Removes the notes beside a spool file.
pub(super) fn forget(spool: &Path) {
    let was_suspect = Standing::of(spool) == Standing::Convicted;
    [Made::Trying, Made::Alone].into_iter().for_each(|note| remove(spool, note));
    if Standing::of(spool) == Standing::Convicted {
        // A disk that removes nothing may still rename: one death more shall not be its second.
        lift(spool);
    }
    if was_suspect {
        // That it has stood its trial must outlast a power failure, which would convict it.
        try_to_sync_dir_of(spool);
    }
}

/// Makes the note of one that is rendered alone that of one that is rendered with others, and returns whether it is.
fn lift(spool: &Path) -> bool {
    let lifted = fs::rename(beside(spool, Made::Alone), beside(spool, Made::Trying));
    if let Err(error) = &lifted {
        debug!(path = %spool.display(), %error, "a note stays as it is");
    }
    lifted.is_ok()
}

fn make(note: &Path) -> io::Result<()> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(note).map(drop)
}

fn remove(spool: &Path, note: Made) {
    if let Err(error) = remove_if_there(&beside(spool, note)) {
        debug!(path = %spool.display(), %error, "a note stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that has begun to render, and dies: nothing of it is dropped.
    fn die(trials: Arc<Trials>, trial: Trial) {
        std::mem::forget((trials, trial));
    }

    fn begin(spool: &Path) -> (Arc<Trials>, Trial) {
        let trials = Arc::new(Trials::default());
        let trial = trials.begin(spool, Standing::of(spool));
        (trials, trial)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn two_deaths_convict_and_what_ends_well_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("x.spool");
        let (trials, trial) = begin(&spool);
        assert_eq!(names(dir.path()), ["x.spool.trying"]);
        drop((trials, trial));
        assert_eq!(names(dir.path()), [""; 0]);
        assert_eq!(Standing::of(&spool), Standing::Clear);

        let (trials, trial) = begin(&spool);
        die(trials, trial);
        assert_eq!(Standing::of(&spool), Standing::Suspect);
        let (trials, trial) = begin(&spool);
        assert_eq!(names(dir.path()), ["x.spool.alone"]);
        die(trials, trial);
        assert_eq!(Standing::of(&spool), Standing::Convicted);
        forget(&spool);
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn a_suspect_that_was_not_tried_when_another_process_died_is_no_more_than_a_suspect() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("x.spool");
        let (trials, trial) = begin(&spool);
        die(trials, trial);
        for _ in 0..3 {
            assert_eq!(Standing::of(&spool), Standing::Suspect);
        }
        let (trials, trial) = begin(&spool);
        trials.end_alone(&spool);
        die(trials, trial);
        assert_eq!(Standing::of(&spool), Standing::Suspect, "others were rendered beside it");
        drop(begin(&spool));
        assert_eq!(Standing::of(&spool), Standing::Clear, "it has stood its trial");
    }

    #[test]
    fn who_is_killed_while_it_stops_leaves_no_new_suspect_and_convicts_none() {
        let dir = tempfile::tempdir().unwrap();
        let [innocent, suspect, late] = ["a.spool", "b.spool", "c.spool"].map(|name| dir.path().join(name));
        let (trials, trial) = begin(&suspect);
        die(trials, trial);
        let trials = Arc::new(Trials::default());
        let begun = [&innocent, &suspect].map(|spool| trials.begin(spool, Standing::of(spool)));
        assert_eq!(names(dir.path()), ["a.spool.trying", "b.spool.alone"]);
        trials.end();
        let late = trials.begin(&late, Standing::Clear);
        assert_eq!(names(dir.path()), ["b.spool.trying"]);
        std::mem::forget((begun, late));
    }

    #[test]
    fn a_note_that_the_disk_does_not_remove_tells_of_no_death() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("x.spool");
        // What is a directory cannot be removed as a file.
        let get_stuck = |note| {
            fs::remove_file(beside(&spool, note)).unwrap();
            fs::create_dir(beside(&spool, note)).unwrap();
        };
        let trials = Arc::new(Trials::default());
        let trial = trials.begin(&spool, trials.standing(&spool));
        get_stuck(Made::Trying);
        drop(trial);
        assert_eq!((Standing::of(&spool), trials.standing(&spool)), (Standing::Suspect, Standing::Clear));
        fs::remove_dir(beside(&spool, Made::Trying)).unwrap();
        drop(trials.begin(&spool, trials.standing(&spool)));
        assert!(lock(&trials.0).stuck.is_empty());

        let (trials, trial) = begin(&spool);
        die(trials, trial);
        let (trials, trial) = begin(&spool);
        get_stuck(Made::Alone);
        drop(trial);
        assert_eq!(trials.standing(&spool), Standing::Clear, "it has stood its trial");
        assert_eq!(Standing::of(&spool), Standing::Suspect, "another death is not its second");
    }

    #[test]
    fn what_ends_for_lack_of_room_stays_as_suspect_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("x.spool");
        let (_trials, mut trial) = begin(&spool);
        trial.adjourn();
        drop(trial);
        assert_eq!(Standing::of(&spool), Standing::Clear, "no process has died over it");

        let (trials, trial) = begin(&spool);
        die(trials, trial);
        let (trials, mut trial) = begin(&spool);
        trial.adjourn();
        drop(trial);
        assert_eq!(Standing::of(&spool), Standing::Suspect, "its trial has not ended");
        assert!(lock(&trials.0).kept.is_empty());

        for does_stop in [false, true] {
            let (trials, mut trial) = begin(&spool);
            if does_stop {
                trials.end();
            } else {
                trials.end_alone(&spool);
            }
            trial.adjourn();
            drop(trial);
            assert_eq!(
                (Standing::of(&spool), trials.standing(&spool)),
                (Standing::Suspect, Standing::Suspect)
            );
        }
    }
}
