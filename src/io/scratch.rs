//! Where a recording is made when the spool's disk has no room for it: in the storage, where that is a local directory, else in
//! memory. The recording is published from there, which lets the spool file go, and so makes room for the next.
//!
//! One at a time: what is made there is kept from no attempt to the next, and whoever comes next waits until the one before is
//! published or has failed. In memory it may take [`MEMORY_MAX_BYTES`]; a larger one waits for room on the spool's disk.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tracing::warn;

use super::finish::{FinishError, Finisher, Prepared};
use super::render::{RenderError, Rendered, render_in};
use super::retire::clear_up;
use super::spool_dir::{ReadError, nameless_beside};
use super::spool_rewrite::{rewrite_elsewhere, rewrite_file};
use super::spool_writer::lock;
use crate::connection::Rules;

/// What may be made in memory at once: the longest recording of the default settings, of which four hours in `compat` take most.
const MEMORY_MAX_BYTES: u64 = 128 << 20;
/// How often it is said that recordings are not made beside the spool.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Where what is made of a spool file is written.
#[derive(Clone, Debug)]
pub(super) enum Room {
    /// Beside it.
    Beside,
    /// In this directory of the storage, in files without a name.
    Storage(PathBuf),
    /// In memory, of which so many bytes are left.
    Memory(Arc<AtomicU64>),
}

impl Room {
    fn memory() -> Self {
        Self::Memory(Arc::new(AtomicU64::new(MEMORY_MAX_BYTES)))
    }

    /// Makes a file without a name, which is gone when it is closed.
    pub(super) fn nameless(&self, spool: &Path) -> io::Result<Sink> {
        match self {
            Self::Beside => nameless_beside(spool).map(Sink::from),
            Self::Storage(directory) => tempfile::tempfile_in(directory).map(Sink::from),
            Self::Memory(left) => {
                let file = File::from(memfd_create("sidetape", MemfdFlags::CLOEXEC)?);
                Ok(Sink { file, left: Some(Arc::clone(left)) })
            }
        }
    }
}

/// A file that is written, and what is left of the memory that it may take.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    left: Option<Arc<AtomicU64>>,
}

impl From<File> for Sink {
    fn from(file: File) -> Self {
        Self { file, left: None }
    }
}

impl Sink {
    pub(super) fn into_file(self) -> File {
        self.file
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(left) = &self.left {
            let wanted = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let take = |left: u64| left.checked_sub(wanted);
            if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
                let cause = "it is too large to be made in memory, and waits for room on the spool's disk";
                return Err(io::Error::new(io::ErrorKind::StorageFull, cause));
            }
        }
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// By which path a file without a name can be opened as long as it is held.
pub(super) fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Whether a disk said that it has no room: no bytes, no inodes, or no more for this user.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether that is behind an error.
pub(super) fn tells_full(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(is_full) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whose turn it is to be made elsewhere, and when it was last said that anything is.
#[derive(Debug)]
pub(super) struct Elsewhere {
    turn: Arc<Semaphore>,
    told: Mutex<Option<Instant>>,
}

/// The turn of a recording that was made elsewhere. It ends when that is dropped.
pub(super) type TurnElsewhere = OwnedSemaphorePermit;

impl Default for Elsewhere {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), told: Mutex::default() }
    }
}

impl Elsewhere {
    fn tell(&self, spool: &Path, room: &Room) {
        let mut told = lock(&self.told);
        if told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        *told = Some(Instant::now());
        let path = spool.parent().unwrap_or(Path::new(".")).display();
        let place = match room {
            Room::Storage(directory) => directory.display().to_string(),
            _ => "memory".to_owned(),
        };
        warn!(%path, place, "the spool's disk is full, recordings are made elsewhere and published one after the other");
    }
}

impl Finisher {
    /// Makes a recording for which the spool's disk has no room, when it is its turn here and then as any other's is. Nobody who
    /// waits here has a turn there.
    pub(super) async fn make_elsewhere(
        self: &Arc<Self>,
        spool: &Path,
    ) -> Result<(Option<Prepared>, Option<SemaphorePermit<'_>>), FinishError> {
        let path = spool.to_owned();
        // What could be written of it takes room.
        self.hands.run(move || clear_up(&path)).await??;
        let turn = Arc::clone(&self.elsewhere.turn).acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        let finisher = Arc::clone(self);
        let room = self.hands.run(move || finisher.room_elsewhere()).await?;
        self.elsewhere.tell(spool, &room);
        let (made, ahead) = self.make(spool, room).await?;
        Ok((made.map(|made| made.with_turn(turn)), ahead))
    }

    /// In the storage, if that is a directory. One that cannot be written to may have a backup that can.
    fn room_elsewhere(&self) -> Room {
        match self.store.directory() {
            Some(directory) if tempfile::tempfile_in(directory).is_ok() => {
                Room::Storage(directory.to_owned())
            }
            _ => Room::memory(),
        }
    }

    /// Renders what may be kept of a spool file.
    pub(super) fn render_kept(
        &self,
        spool: &Path,
        room: &Room,
    ) -> Result<Result<Rendered, RenderError>, ReadError> {
        let render = |spool: &Path| {
            let render = || match room {
                Room::Beside => (self.renderer)(spool, &self.options),
                _ => render_in(spool, &self.options, room),
            };
            // A bug that one call brings to light must not leave it unfinished for ever.
            catch_unwind(AssertUnwindSafe(render)).unwrap_or(Err(RenderError::Panicked))
        };
        let rendered = render(spool);
        let Err(RenderError::Paused) = rendered else { return Ok(rendered) };
        // Whoever should have taken it out was killed, or the disk was full.
        let rules = Rules::for_reading(self.options.masks_digits);
        if matches!(room, Room::Beside) {
            rewrite_file(spool, rules)?;
            return Ok(render(spool));
        }
        let Some(copy) = rewrite_elsewhere(spool, rules, room)? else { return Ok(rendered) };
        match render(&path_of(&copy)) {
            Ok(rendered) if rendered.keep.is_none() => Ok(Ok(rendered)),
            Err(error) if error.is_worth_a_retry() => Ok(Err(error)),
            // The spool file would stay, with what was paused in it.
            _ => Err(io::Error::from(io::ErrorKind::StorageFull).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::io::Read as _;

    #[test]
    fn a_full_disk_and_a_quota_that_is_used_up_are_told_from_other_errors() {
        let of = |errno: Errno| {
            let error = RenderError::from(io::Error::from(errno));
            tells_full(&FinishError::from(error))
        };
        assert!(of(Errno::NOSPC) && of(Errno::DQUOT));
        assert!(!of(Errno::IO) && !of(Errno::ROFS) && !of(Errno::MFILE));
        assert!(tells_full(&FinishError::from(ReadError::from(io::Error::from(Errno::DQUOT)))));
        assert!(tells_full(&FinishError::from(io::Error::from(Errno::NOSPC))));
        assert!(!tells_full(&FinishError::Panicked));
    }

    #[test]
    fn all_that_is_made_in_memory_together_has_a_limit() {
        let room = Room::Memory(Arc::new(AtomicU64::new(10)));
        let (mut one, mut two) =
            (room.nameless(Path::new("x")).unwrap(), room.nameless(Path::new("x")).unwrap());
        one.write_all(b"123456").unwrap();
        two.write_all(b"1234").unwrap();
        assert!(is_full(&one.write_all(b"7").unwrap_err()));
        let file = one.into_file();
        let mut read = String::new();
        File::open(path_of(&file)).unwrap().read_to_string(&mut read).unwrap();
        assert_eq!(read, "123456", "it can be opened by its path, from its beginning");
    }
}
