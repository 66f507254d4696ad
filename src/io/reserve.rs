//! Room on the spool's disk for the ends of calls: blocks of the spool's lock file, which is empty, and an inode.
//!
//! A call is published when its end is in its spool file, and only then its spool file goes. On a disk that is full there would be
//! no room for the end. So the writer gives the reserve up for the ends of calls, and for nothing else, and makes it again
//! before anything else is written. The blocks outlive the process; the inode, of a file without a name, is for a call whose
//! spool file could not be made.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::spool_dir::LOCK;

/// Four times what may wait of a call in memory.
const MOST_BYTES: u64 = 4 << 20;
/// It takes no larger part of a small disk.
const PART: u64 = 16;
/// What it grows by where not all of it can be had, and at least.
const PIECE_BYTES: u64 = 256 << 10;
const PAGE_BYTES: u64 = 4 << 10;
/// The kernel counts blocks of so many bytes.
const BLOCK_BYTES: u64 = 512;

/// The reserve of a spool directory.
#[derive(Debug)]
pub(super) struct Reserve {
    directory: PathBuf,
    /// What has the inode.
    nameless: Option<File>,
    wanted: u64,
    held: u64,
    /// Whether the file system can keep room for a file.
    is_possible: bool,
}

impl Reserve {
    /// The reserve of a directory.
    pub(super) fn of(directory: &Path) -> Self {
        let disk = rustix::fs::statvfs(directory);
        let disk_bytes = disk.map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
        let wanted = MOST_BYTES.min(disk_bytes / PART);
        let held = held(directory);
        Self { directory: directory.to_owned(), nameless: None, wanted, held, is_possible: true }
    }

    /// Makes it as large as it should be, or as large as there is room for. What says no now is asked again in the next round.
    pub(super) fn refill(&mut self) {
        if self.nameless.is_none() {
            self.nameless = tempfile::tempfile_in(&self.directory).ok();
        }
        if !self.is_possible {
            return;
        }
        // The lock may have been removed, and with it what it held.
        self.held = held(&self.directory);
        if self.held >= self.wanted {
            return;
        }
        let Ok(file) = lock_file(&self.directory) else { return };
        if self.grow(&file, self.wanted).is_ok() {
            return;
        }
        let mut piece = PIECE_BYTES;
        while self.held < self.wanted && piece >= PAGE_BYTES {
            if self.grow(&file, self.wanted.min(self.held + piece)).is_err() {
                piece /= 2;
            }
        }
    }

    fn grow(&mut self, file: &File, to: u64) -> rustix::io::Result<()> {
        let grown = fallocate(file, FallocateFlags::KEEP_SIZE, 0, to);
        match grown {
            Ok(()) => self.held = to,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.is_possible = false,
            Err(_) => {}
        }
        grown
    }

    /// Gives it up. False if there was nothing.
    pub(super) fn give_up(&mut self) -> bool {
        let has_inode = self.nameless.take().is_some();
        let has_blocks = std::mem::take(&mut self.held) > 0 && give_up(&self.directory).is_ok();
        has_inode || has_blocks
    }
}

/// Gives the blocks of a directory's reserve up, where nobody makes it again.
pub(super) fn give_up(directory: &Path) -> io::Result<()> {
    lock_file(directory)?.set_len(0)
}

/// How much a directory's reserve holds.
fn held(directory: &Path) -> u64 {
    fs::symlink_metadata(directory.join(LOCK)).map_or(0, |found| found.blocks() * BLOCK_BYTES)
}

fn lock_file(directory: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(directory.join(LOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_given_up_and_taken_again_and_what_another_process_kept_is_known() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK), "").unwrap();
        let mut reserve = Reserve::of(dir.path());
        reserve.refill();
        if !reserve.is_possible {
            println!("the file system of {} keeps no room for files", dir.path().display());
            return;
        }
        let lock = || fs::metadata(dir.path().join(LOCK)).unwrap();
        assert!(reserve.wanted > 0 && lock().blocks() * BLOCK_BYTES >= reserve.wanted);
        assert_eq!(lock().len(), 0);
        assert!(Reserve::of(dir.path()).held >= reserve.wanted);
        assert!(reserve.give_up() && !reserve.give_up());
        assert_eq!((lock().blocks(), Reserve::of(dir.path()).held), (0, 0));
        reserve.refill();
        assert!(lock().blocks() * BLOCK_BYTES >= reserve.wanted);
        fs::remove_file(dir.path().join(LOCK)).unwrap();
        fs::write(dir.path().join(LOCK), "").unwrap();
        reserve.refill();
        assert!(lock().blocks() * BLOCK_BYTES >= reserve.wanted, "it is made again with the lock");
        give_up(dir.path()).unwrap();
        assert_eq!(lock().blocks(), 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
