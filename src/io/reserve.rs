//! Room on the spool's disk for the ends of calls: a file named `reserve`, without content of its own.
//!
//! A call is published when its end is in its spool file, and only then its spool file goes. On a disk that is full there would be
//! no room for the end. So the writer gives the reserve up for the ends of calls, and for nothing else, and makes it again
//! before anything else is written. It also has an inode, for a call whose spool file could not be made.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Its name.
const NAME: &str = "reserve";
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
    path: PathBuf,
    wanted: u64,
    held: u64,
    /// Whether the file system can keep room for a file.
    is_possible: bool,
}

impl Reserve {
    /// The reserve of a directory, which an earlier process may have made.
    pub(super) fn of(directory: &Path) -> Self {
        let path = directory.join(NAME);
        let disk = rustix::fs::statvfs(directory);
        let disk_bytes = disk.map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
        let held = fs::symlink_metadata(&path).map_or(0, |found| found.blocks() * BLOCK_BYTES);
        Self { path, wanted: MOST_BYTES.min(disk_bytes / PART), held, is_possible: true }
    }

    /// Makes it as large as it should be, or as large as there is room for.
    pub(super) fn refill(&mut self) {
        // Others may have removed it.
        if !self.path.exists() {
            self.held = 0;
        }
        if !self.is_possible || self.held >= self.wanted {
            return;
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600);
        // What says no now is asked again in the next round.
        let Ok(file) = options.open(&self.path) else { return };
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
        let grown = fallocate(file, FallocateFlags::empty(), 0, to);
        match grown {
            Ok(()) => self.held = to,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.is_possible = false,
            Err(_) => {}
        }
        grown
    }

    /// Gives it up. False if there was nothing.
    pub(super) fn give_up(&mut self) -> bool {
        self.held = 0;
        fs::remove_file(&self.path).is_ok()
    }
}

/// Gives the reserve of a directory up, where nobody makes it again.
pub(super) fn give_up(directory: &Path) -> io::Result<()> {
    super::spool_file::remove_if_there(&directory.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_given_up_and_taken_again_and_what_another_process_kept_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::of(dir.path());
        reserve.refill();
        if !reserve.is_possible {
            println!("the file system of {} keeps no room for files", dir.path().display());
            return;
        }
        let blocks = || fs::metadata(dir.path().join(NAME)).unwrap().blocks() * BLOCK_BYTES;
        assert!(reserve.wanted > 0 && blocks() >= reserve.wanted);
        assert!(Reserve::of(dir.path()).held >= reserve.wanted);
        assert!(reserve.give_up() && !reserve.give_up());
        assert_eq!(Reserve::of(dir.path()).held, 0);
        reserve.refill();
        assert!(blocks() >= reserve.wanted);
        fs::remove_file(dir.path().join(NAME)).unwrap();
        reserve.refill();
        assert!(blocks() >= reserve.wanted, "others have removed it");
        give_up(dir.path()).unwrap();
        give_up(dir.path()).unwrap();
        assert!(!dir.path().join(NAME).exists());
    }
}
