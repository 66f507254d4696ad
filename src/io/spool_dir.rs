//! The spool directory: its lock, its files, and how to read one of them.
//!
//! What a file is, its name says: [`crate::spool::name`]. Besides there is `lock`, held by the one process that works on the
//! directory, and `ended`, of calls that have ended not long ago. What is set aside never takes the place of another file: its
//! name gets `-2`, `-3` … Nobody but a person removes it.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::num::{NonZeroU16, NonZeroU32};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tracing::{debug, info, warn};

use super::backup::Choice;
use super::reserve;
use super::spool_writer::lock;
use crate::id::{ConnectionId, RecordingId};
use crate::spool::name::{Aside, FileName, Made, SpoolName};
use crate::spool::scan::{Located, Scanner, Tail};
use crate::spool::{Header, HeaderError};
use crate::time::{Mono, Wall};

/// The name of the lock.
pub(super) const LOCK: &str = "lock";
/// How much of a file is read at once.
const READ_BYTES: usize = 256 * 1024;
/// More than a header can have.
const HEADER_MAX_BYTES: u64 = 4096;

/// The spool directory, locked for this process.
#[derive(Debug)]
pub struct SpoolDir {
    path: PathBuf,
    lock: Mutex<File>,
}

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolDirError {
    /// It could not be made, opened or locked.
    #[error("opening the spool directory {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process works on it.
    #[error("the spool directory {} is in use by another sidetape", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// A spool file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk said no.
    #[error("reading a spool file")]
    Io(#[from] io::Error),
    /// Not a spool file, or its header is damaged.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

impl SpoolDir {
    /// Makes the directory if it is not there, locks it, and removes what a crash left that was to take a spool file's place,
    /// and notes about files that are gone.
    ///
    /// # Errors
    /// [`SpoolDirError`]; a directory in use is told apart from one that cannot be written.
    pub fn open(path: &Path) -> Result<Self, SpoolDirError> {
        let lock = take_lock(path)?;
        remove_unfinished(path);
        Ok(Self { path: path.to_owned(), lock: Mutex::new(lock) })
    }

    /// Sees to it that the directory is there and locked, whatever others have done to it. True if that had to be mended.
    ///
    /// # Errors
    /// [`SpoolDirError`]; another process may have taken the directory.
    pub fn keep(&self) -> Result<bool, SpoolDirError> {
        let mut lock = lock(&self.lock);
        let held = lock.metadata().map(|held| (held.dev(), held.ino())).ok();
        let found = fs::symlink_metadata(self.path.join(LOCK)).map(|found| (found.dev(), found.ino())).ok();
        if held.is_some() && held == found {
            return Ok(false);
        }
        *lock = take_lock(&self.path)?;
        Ok(true)
    }

    /// Gives up what is reserved for the ends of calls, where no daemon is to write them.
    ///
    /// # Errors
    /// Where the disk says no.
    pub fn give_up_reserve(&self) -> io::Result<()> {
        reserve::give_up(&self.path)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name for a new connection's file that no file has.
    #[must_use]
    pub fn new_file(&self, connection: &ConnectionId, opened: Wall, recording: RecordingId) -> PathBuf {
        let name = SpoolName::new(connection, opened, recording);
        let path = |number| self.path.join(os(&FileName::pending(name.numbered(number).to_string())));
        // More files of one recording, whose id has just been drawn, there cannot be.
        let mut numbers = (1..u16::MAX).filter_map(NonZeroU16::new);
        numbers
            .find_map(|number| Some(path(number)).filter(|file| !file.exists()))
            .unwrap_or_else(|| path(NonZeroU16::MAX))
    }

    /// The spool files of connections, oldest first.
    ///
    /// # Errors
    /// Where the directory cannot be listed.
    pub fn list(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if parse_name(&path).is_some_and(|name| name.is_pending()) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// Free bytes on the disk that holds the directory.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn free_bytes(&self) -> io::Result<u64> {
        free_bytes(&self.path)
    }
}

/// Makes the directory if it is not there, and locks it.
fn take_lock(path: &Path) -> Result<File, SpoolDirError> {
    let failed = |source| SpoolDirError::Io { path: path.to_owned(), source };
    make(path).map_err(failed)?;
    let mut options = OpenOptions::new();
    let lock = options.create(true).truncate(false).write(true).mode(0o600).open(path.join(LOCK));
    let lock = lock.map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(SpoolDirError::InUse { path: path.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Makes a spool directory, if it is not there, for this user alone: what people said on the phone is nobody else's
/// business.
///
/// # Errors
/// Where the disk says no.
pub fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes files that were to take the places of others, and notes about files that are gone. They are known to be in nobody's hands: the directory is locked.
fn remove_unfinished(directory: &Path) {
    // Whoever lists the directory next says so if that cannot be done.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_unfinished = parse_name(&path).is_some_and(|name| match name.made() {
            Some(Made::New) => true,
            Some(made) if Made::NOTES.contains(&made) => is_left_alone(&path, &name),
            _ => false,
        }) && entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_unfinished {
            continue;
        }
        match fs::remove_file(&path) {
            Ok(()) => info!(path = %path.display(), "unfinished file removed"),
            Err(error) => warn!(path = %path.display(), %error, "unfinished file cannot be removed"),
        }
    }
}

/// Whether there is no spool file that a note could be about.
fn is_left_alone(note: &Path, name: &FileName) -> bool {
    let (before, backup) = (name.before(), name.before().aside(Aside::BackedUp, NonZeroU32::MIN));
    let is_there = |name: &FileName| note.with_file_name(os(name)).symlink_metadata().is_ok();
    !is_there(&name.file()) && !(name.made() == Some(Made::Name) && (is_there(&before) || is_there(&backup)))
}

/// Free bytes on the disk that holds a path.
///
/// # Errors
/// Where the system does not say.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Reads a spool file from front to back: `begin` makes something of its header, `record` enters each record.
///
/// A damaged header costs no more than other damage, as long as a record follows: the file's name stands in for it.
///
/// # Errors
/// [`ReadError`] where the disk is bad, or this is no spool file. Damage is in the [`Tail`].
pub fn read<T>(
    path: &Path,
    begin: impl FnOnce(Header) -> T,
    record: impl FnMut(&mut T, &Located<'_>),
) -> Result<(T, Tail), ReadError> {
    read_from(File::open(path)?, path, begin, record)
}

/// The same for bytes of the spool file at `path` that come from `input`.
///
/// # Errors
/// [`ReadError`] where reading fails, or where neither its header nor its name says whose it is.
pub(super) fn read_from<T>(
    mut input: impl Read,
    path: &Path,
    begin: impl FnOnce(Header) -> T,
    mut record: impl FnMut(&mut T, &Located<'_>),
) -> Result<(T, Tail), ReadError> {
    let mut scanner = Scanner::default();
    let mut piece = vec![0; READ_BYTES];
    let mut begin = Some(begin);
    let mut made: Option<T> = None;
    let mut headless: Option<HeaderError> = None;
    loop {
        let length = input.read(&mut piece)?;
        if length == 0 {
            scanner.end();
        }
        scanner.feed(&piece[..length]);
        if made.is_none() && headless.is_none() {
            match scanner.header() {
                Ok(header) => made = header.and_then(|header| Some(begin.take()?(header))),
                Err(error @ HeaderError::Version(_)) => return Err(error.into()),
                Err(error) => headless = Some(error),
            }
        }
        while made.is_some() || headless.is_some() {
            let Some(located) = scanner.next_record() else { break };
            if made.is_none() {
                let header = header_from_name(path, located.record.at);
                made = header.and_then(|header| Some(begin.take()?(header)));
            }
            let Some(made) = &mut made else { break };
            record(made, &located);
        }
        if length == 0 {
            let made = made.ok_or(headless.unwrap_or(HeaderError::Short))?;
            return Ok((made, scanner.tail()));
        }
    }
}

/// Reads the header of a spool file alone.
///
/// # Errors
/// [`ReadError`] where the disk is bad, or this is no spool file.
pub fn header_of(path: &Path) -> Result<Header, ReadError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(HEADER_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(Header::parse(&bytes)?.0)
}

/// Whose call a spool file is of, as its header says: for the log.
#[must_use]
pub fn connection_of(path: &Path) -> Option<String> {
    header_of(path).ok().map(|header| header.connection.as_str().to_owned())
}

/// What the name of a spool file tells of its header, where that is damaged: the time, and as much of the id as
/// [`SpoolDir::new_file`] puts there, which for most ids is all. The clocks are paired at the first record.
#[must_use]
pub fn header_from_name(path: &Path, first: Mono) -> Option<Header> {
    let name = own_name(path)?;
    let connection = ConnectionId::new(name.shown_id()).ok()?;
    let header = Header::derived(connection, name.opened(), first, 1);
    let recording = name.recording().unwrap_or(header.recording);
    Some(Header { recording, ..header })
}

/// Reads the name of a file. `None` where it is not that of a spool file or of what is made of one.
#[must_use]
pub fn parse_name(path: &Path) -> Option<FileName> {
    FileName::parse(path.file_name()?.as_bytes())
}

/// What [`SpoolDir::new_file`] put into the name of a file. `None` where somebody else named it.
#[must_use]
pub fn own_name(path: &Path) -> Option<SpoolName> {
    parse_name(path)?.spool_name()
}

/// The name of a spool file, which may be any that a person gave it.
fn name_of(spool: &Path) -> FileName {
    parse_name(spool).unwrap_or_else(|| FileName::pending(spool.file_name().unwrap_or_default().as_bytes()))
}

fn os(name: &FileName) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&name.to_bytes()))
}

/// Renames a file of the spool, so that no start takes it up again, to a name that says why and that no file has. Another
/// state that the name told of before is over.
///
/// # Errors
/// Where the disk says no.
pub fn set_aside(path: &Path, why: Aside) -> io::Result<PathBuf> {
    let name = name_of(path);
    for number in (1..=u32::MAX).filter_map(NonZeroU32::new) {
        let aside = path.with_file_name(os(&name.aside(why, number)));
        match rename_if_free(path, &aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => {
                done?;
                // After a power failure it may have its name of before: then the same is done with it again.
                try_to_sync_dir_of(path);
                return Ok(aside);
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Renames unless the new name is taken. File systems that cannot do so in one step get a hard link instead.
///
/// # Errors
/// Where the disk says no; [`io::ErrorKind::AlreadyExists`] where the name is taken.
pub(super) fn rename_if_free(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        other => other.map_err(io::Error::from),
    }
}

/// Syncs the directory of a file, where after a power failure no more than work is done again.
pub(super) fn try_to_sync_dir_of(path: &Path) {
    if let Err(error) = sync_dir(path.parent().unwrap_or(Path::new("."))) {
        debug!(path = %path.display(), %error, "the directory cannot be synced");
    }
}

/// Makes what was done to the names in a directory outlast a power failure.
///
/// # Errors
/// Where the disk says no.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The path of what is made of a spool file, beside it.
#[must_use]
pub fn beside(spool: &Path, made: Made) -> PathBuf {
    spool.with_file_name(os(&name_of(spool).beside(made)))
}

/// The path of the note of which number the recording of a spool file has in a store, whatever state the file is in.
pub(super) fn number_note(spool: &Path, store: Choice) -> PathBuf {
    let before = name_of(spool).before();
    let name = match store {
        Choice::First => before,
        Choice::Backup => before.aside(Aside::BackedUp, NonZeroU32::MIN),
    };
    spool.with_file_name(os(&name.beside(Made::Name)))
}

/// Makes a file in the directory of a spool file that has no name, and is gone when it is closed, whatever happens.
///
/// # Errors
/// Where the disk says no.
pub fn nameless_beside(spool: &Path) -> io::Result<File> {
    let directory = spool.parent().filter(|parent| !parent.as_os_str().is_empty());
    tempfile::tempfile_in(directory.unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::name::State;

    #[test]
    fn a_directory_is_locked_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = SpoolDir::open(dir.path()).unwrap();
        assert!(matches!(SpoolDir::open(dir.path()), Err(SpoolDirError::InUse { .. })));
        drop(first);
        SpoolDir::open(dir.path()).unwrap();
    }

    #[test]
    fn what_was_to_take_a_files_place_is_gone_at_the_next_start_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "a.spool",
            "a.spool.new",
            "a.spool.opus",
            "a.spool.trying",
            "a.spool.backup.name",
            "b.spool.backup.new",
            "b.spool.alone",
            "b.spool.name",
            "notes.new",
            ".spool.new",
        ];
        names.iter().for_each(|name| fs::write(dir.path().join(name), b"").unwrap());
        fs::create_dir(dir.path().join("c.spool.new")).unwrap();
        SpoolDir::open(dir.path()).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let (ours, others) = (["a.spool.opus", "a.spool.trying", "c.spool.new"], ["lock", "notes.new"]);
        assert_eq!(left, [&[".spool.new", "a.spool", "a.spool.backup.name"][..], &ours, &others].concat());
    }

    #[test]
    fn a_directory_that_was_removed_is_made_and_locked_again_unless_somebody_else_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let spool = SpoolDir::open(&path).unwrap();
        assert!(!spool.keep().unwrap());
        fs::remove_dir_all(&path).unwrap();
        assert!(spool.keep().unwrap() && !spool.keep().unwrap());
        assert!(matches!(SpoolDir::open(&path), Err(SpoolDirError::InUse { .. })));
        fs::remove_file(path.join(LOCK)).unwrap();
        let other = SpoolDir::open(&path).unwrap();
        assert!(matches!(spool.keep(), Err(SpoolDirError::InUse { .. })));
        drop(other);
        assert!(spool.keep().unwrap(), "it has gone");
    }

    #[test]
    fn file_names_are_plain_whatever_the_id_is() {
        let dir = tempfile::tempdir().unwrap();
        let spool = SpoolDir::open(dir.path()).unwrap();
        let id = ConnectionId::new("../../\u{e9} x/\u{1f600}").unwrap();
        let (opened, recording) = (Wall(1_767_323_045_678_901), RecordingId::derived(b"x"));
        let file = spool.new_file(&id, opened, recording);
        assert_eq!(file.parent(), Some(dir.path()));
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("20260102T030405.678901Z-.._.._") && name.is_ascii(), "{name}");
        fs::write(&file, b"").unwrap();
        assert_ne!(spool.new_file(&id, opened, recording), file);
    }

    #[test]
    fn a_name_tells_what_the_header_did() {
        let dir = tempfile::tempdir().unwrap();
        let spool = SpoolDir::open(dir.path()).unwrap();
        let (connection, opened) = (ConnectionId::new("call-1.a").unwrap(), Wall(1_767_323_045_678_901));
        let recording = RecordingId::derived(b"x");
        let header = Header::derived(connection.clone(), opened, Mono(7), 1);
        let expected = Header { recording, ..header };
        for _ in 0..2 {
            let file = spool.new_file(&connection, opened, recording);
            fs::write(&file, b"").unwrap();
            assert_eq!(header_from_name(&file, Mono(7)), Some(expected.clone()), "{}", file.display());
            let aside = set_aside(&file, Aside::BackedUp).unwrap();
            assert_eq!(header_from_name(&aside, Mono(7)), Some(expected.clone()), "{}", aside.display());
            fs::write(&file, b"").unwrap();
        }
        assert_eq!(header_from_name(Path::new("notes-of-mine-today.spool"), Mono(7)), None);
    }

    #[test]
    fn what_is_set_aside_takes_the_place_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.spool");
        for number in 0..3u8 {
            fs::write(&file, [number]).unwrap();
            set_aside(&file, Aside::Failed).unwrap();
        }
        for (number, name) in (0u8..).zip(["x.spool.failed", "x.spool.failed-2", "x.spool.failed-3"]) {
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), [number]);
        }
    }

    #[test]
    fn a_new_state_is_one_that_is_known_whatever_the_file_was_called() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(249);
        let names: [&[u8]; 5] =
            [b"letter", b"letter.backup.damaged", b"letter.backup-2", b"\xff\n", long.as_bytes()];
        for stem in names {
            for why in Aside::ALL {
                let file = dir.path().join(os(&FileName::pending(stem)));
                fs::write(&file, stem).unwrap();
                for made in Made::ALL {
                    fs::write(beside(&file, made), b"").unwrap();
                    assert_eq!(parse_name(&beside(&file, made)).unwrap().made(), Some(made));
                }
                let aside = set_aside(&file, why).unwrap();
                assert_eq!(fs::read(&aside).unwrap(), stem);
                assert_eq!(parse_name(&aside).unwrap().state(), State::Aside(why, NonZeroU32::MIN));
            }
        }
    }
}
