//! One connection's spool file: what is to be written to it, and how far it is written.
//!
//! Receivers add records to its buffer, under the buffer's own lock. Whoever writes, which is the writer or, while a file is
//! written again, the rewriter, holds the lock of its disk side: so there is one at a time. Each write is one block.
//!
//! A file may be taken away under an open call: removed, replaced, cut, or its directory moved. Once a second while it is written
//! to, every few seconds while it is open, and when the call is over or the daemon stops, what stands at its path is compared with what was written. As long as this process has the file open, all
//! of it is copied to its path again; else what comes is written to a new one, with a note of what is lost. Either way it goes
//! on under a new opening.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tracing::error;

use super::random::draw;
use super::spool_dir::{self, set_aside};
use super::spool_writer::lock;
use crate::id::RecordingId;
use crate::spool::block::{self, OpeningCause, append_opening};
use crate::spool::name::{Aside, Made};
use crate::spool::{Header, Record};
use crate::time::Mono;

/// More than a header and an opening.
const FRONT_MAX_BYTES: usize = 1024;
/// How often what stands at a path is compared with what was written.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What one connection has to be written.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Records, behind the room for the header of a block.
    bytes: Vec<u8>,
    /// Whether the writer knows that there is something.
    pub(super) is_dirty: bool,
    /// The seal, while the file is still to be written again: no sealed file has anything to be taken out, unless the disk had no
    /// room for that.
    seal: Option<Vec<u8>>,
    /// Whether nothing will follow: the last record is a seal.
    pub is_sealed: bool,
    /// The seal that was appended, for what has to be said in front of it.
    sealed: Vec<u8>,
    /// Whether the state is to be appended as soon as the disk takes what waits: there was no room for it.
    is_state_owed: bool,
    /// Bytes taken from here that are not on disk yet.
    pub(super) pending: usize,
    /// How many of the bytes are in the sum of all buffers.
    pub(super) counted: usize,
}

impl Buffer {
    /// Where records are appended.
    pub fn records(&mut self) -> &mut Vec<u8> {
        if self.bytes.is_empty() {
            block::append_room(&mut self.bytes);
        }
        &mut self.bytes
    }

    /// Appends what was held back. False if there was nothing.
    pub(super) fn append_seal(&mut self) -> bool {
        let Some(seal) = self.seal.take() else { return false };
        self.records().extend_from_slice(&seal);
        self.sealed = seal;
        self.is_sealed = true;
        true
    }

    /// Appends what `append` does, in front of the seal where there is one: nothing stands behind that. If the seal is taken
    /// already, the last of what waits is another.
    fn append_before_seal(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        let seal = std::mem::take(&mut self.sealed);
        let records = self.records();
        if records.ends_with(&seal) {
            records.truncate(records.len() - seal.len());
        }
        append(records);
        records.extend_from_slice(&seal);
        self.sealed = seal;
    }

    /// Asks whoever writes to append the state then: until there is room, it takes no memory.
    pub(super) fn owe_state(&mut self) {
        self.is_state_owed = true;
        // There is something to write.
        self.records();
    }

    /// Whether the state is still to be appended.
    pub(super) fn owes_state(&self) -> bool {
        self.is_state_owed
    }

    /// Says that the state was appended.
    pub(super) fn note_state(&mut self) {
        self.is_state_owed = false;
    }

    /// How many bytes wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.bytes.len() + self.pending
    }
}

/// Hands the whole state of a file's connection to somebody, as JSON, while nothing is added to the file's buffer.
pub type Describe = Box<dyn Fn(&mut dyn FnMut(Mono, &[u8])) + Send + Sync>;

/// A connection's spool file and what is still to be written to it.
pub struct SpoolFile {
    /// Where it is.
    pub path: PathBuf,
    /// What is to be appended. Locked for the time of a copy, never over I/O.
    pub buffer: Mutex<Buffer>,
    /// Its disk side. Locked by whoever writes.
    pub(super) disk: Mutex<Disk>,
    /// What the file says of itself.
    pub(super) header: Header,
    /// How often it is still to be written again before anybody may finish it.
    pub(super) rewrites: AtomicU32,
    /// How long it is, as far as was seen.
    pub(super) bytes: AtomicU64,
    /// No other file of this process has it: the threads find a file by it a hundred times as fast as by its path.
    pub(super) number: u64,
    describe: OnceLock<Describe>,
}

impl std::fmt::Debug for SpoolFile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("SpoolFile")
            .field("path", &self.path)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// How far a file is written.
#[derive(Debug)]
pub(super) struct Disk {
    file: Option<File>,
    /// When the file that is open was last written to.
    pub(super) used: u64,
    /// The opening that is to be appended first.
    opening: Option<OpeningCause>,
    next_block: u32,
    /// How long the file is, as far as this process knows; `None` before it was opened.
    length: Option<u64>,
    /// Which file it is: device and number.
    identity: (u64, u64),
    looked: Option<Instant>,
    /// What is to be written next: a whole block, or what is left of one.
    rest: Vec<u8>,
    /// How many bytes of it are in the sum of all buffers.
    counted: usize,
    /// Before then it is not written again.
    pub(super) rewritten_until: Option<Instant>,
    /// Whether the seal is written.
    is_complete: bool,
}

/// What became of a file that was looked at.
pub(super) enum Look {
    /// All is as it should be.
    Whole,
    /// Something was not, and what says so is to be written.
    Mended,
    /// The call is over, and all of it is written.
    Over,
}

/// How much of a buffer got into its file.
#[derive(Default)]
pub(super) struct Written {
    pub(super) bytes: usize,
    /// How many bytes leave the sum of all buffers.
    pub(super) freed: usize,
    pub(super) error: Option<io::Error>,
    /// Whether the call is over and all of it is written.
    pub(super) is_complete: bool,
    /// Whether the file is another, and its directory could not be synced.
    pub(super) is_renamed: bool,
}

impl SpoolFile {
    /// A file that is to be made.
    #[must_use]
    pub fn new(path: PathBuf, header: Header) -> Self {
        Self::with(path, header, OpeningCause::Made)
    }

    /// A file that another process has written.
    #[must_use]
    pub fn resumed(path: PathBuf, header: Header) -> Self {
        let spool = Self::with(path, header, OpeningCause::Resumed);
        // One that is gone already is missed when it is opened.
        let found = fs::metadata(&spool.path);
        let mut disk = lock(&spool.disk);
        disk.length = Some(found.as_ref().map_or(1, |found| found.len()));
        disk.identity = found.map_or((0, 0), |found| (found.dev(), found.ino()));
        spool.bytes.store(disk.length.unwrap_or(0), Ordering::Relaxed);
        drop(disk);
        spool
    }

    fn with(path: PathBuf, header: Header, opening: OpeningCause) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let disk = Disk {
            file: None,
            used: 0,
            opening: Some(opening),
            next_block: 0,
            length: None,
            identity: (0, 0),
            looked: None,
            rest: Vec::new(),
            counted: 0,
            rewritten_until: None,
            is_complete: false,
        };
        Self {
            path,
            buffer: Mutex::default(),
            disk: Mutex::new(disk),
            header,
            rewrites: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            describe: OnceLock::new(),
        }
    }

    /// Appends a seal to what waits in the buffer, or holds it back until the file has been written again.
    pub fn seal(&self, buffer: &mut Buffer, seal: Vec<u8>) {
        buffer.seal = Some(seal);
        if self.rewrites.load(Ordering::Acquire) == 0 {
            buffer.append_seal();
        }
    }

    /// Gives up writing the file again, if its call is over, and seals it as it is. False if the call goes on.
    pub(super) fn seal_unwritten(
        self: &Arc<Self>,
        note: impl Fn(&Arc<Self>, MutexGuard<'_, Buffer>),
    ) -> bool {
        let mut buffer = lock(&self.buffer);
        if buffer.seal.is_none() {
            return false;
        }
        if self.rewrites.fetch_sub(1, Ordering::AcqRel) == 1 {
            buffer.append_seal();
            note(self, buffer);
        }
        true
    }

    /// The recording that is made of it.
    #[must_use]
    pub fn recording(&self) -> RecordingId {
        self.header.recording
    }

    /// Says who knows the connection's state.
    pub fn described_by(&self, describe: Describe) {
        // Whoever was first knows it as well.
        drop(self.describe.set(describe));
    }

    /// Writes what waits, as a block. `spare` is empty, and gives its memory to the buffer.
    pub(super) fn write(&self, disk: &mut Disk, spare: &mut Vec<u8>, round: u64) -> Written {
        // Told of once more, after its end: the finisher may have removed it by now.
        if disk.is_complete || (disk.rest.is_empty() && lock(&self.buffer).bytes.is_empty()) {
            return Written::default();
        }
        disk.used = round;
        let mut bytes = 0;
        let result = self.try_write(disk, spare, &mut bytes);
        self.bytes.store(disk.length.unwrap_or(0), Ordering::Relaxed);
        let is_complete = {
            let mut buffer = lock(&self.buffer);
            buffer.pending = disk.rest.len();
            result.is_ok() && buffer.is_sealed && buffer.bytes.is_empty()
        };
        let freed = if disk.rest.is_empty() { disk.counted } else { disk.counted.min(bytes) };
        disk.counted -= freed;
        disk.is_complete = is_complete;
        Written { bytes, freed, error: result.err(), is_complete, is_renamed: false }
    }

    fn try_write(&self, disk: &mut Disk, spare: &mut Vec<u8>, written: &mut usize) -> io::Result<()> {
        let is_sealed = lock(&self.buffer).is_sealed;
        disk.open(self)?;
        if is_sealed || disk.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.look(disk)?;
        }
        // The beginning of a file goes with its first block, so that no crash leaves it without a state.
        if disk.rest.len() > FRONT_MAX_BYTES {
            disk.flush(written)?;
        }
        self.take(disk, spare);
        disk.flush(written)?;
        *spare = std::mem::take(&mut disk.rest);
        Ok(())
    }

    /// Takes what waits as the next block.
    fn take(&self, disk: &mut Disk, spare: &mut Vec<u8>) {
        self.append_owed();
        let mut buffer = lock(&self.buffer);
        let mut block = std::mem::replace(&mut buffer.bytes, std::mem::take(spare));
        disk.counted += std::mem::take(&mut buffer.counted);
        drop(buffer);
        if !block.is_empty() {
            block::complete(&mut block, disk.next_block);
            disk.next_block = disk.next_block.wrapping_add(1);
        }
        if disk.rest.is_empty() {
            disk.rest = block;
        } else {
            disk.rest.extend_from_slice(&block);
        }
    }

    /// Sees to it that the file is at its path, whether there is something to be written or not.
    pub(super) fn check(&self, disk: &mut Disk) -> io::Result<()> {
        disk.open(self)?;
        self.look(disk).map(drop)
    }

    /// Sees to it that a file that is open, and may not be written to for long, is at its path.
    pub(super) fn check_open(&self, disk: &mut Disk) -> io::Result<Look> {
        // Its finisher may have removed it.
        if disk.is_complete {
            return Ok(Look::Over);
        }
        let is_mended = disk.file.is_some() && self.look(disk)?;
        Ok(if is_mended { Look::Mended } else { Look::Whole })
    }

    /// Compares what stands at the path with what was written, and mends what is not as it should be. True if anything was: then
    /// something is to be written, and the directory is synced with that.
    fn look(&self, disk: &mut Disk) -> io::Result<bool> {
        disk.looked = Some(Instant::now());
        let Some(length) = disk.length else { return Ok(false) };
        let found = match fs::symlink_metadata(&self.path) {
            Ok(found) => Some((found.dev(), found.ino(), found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let (dev, ino) = disk.identity;
        match found {
            Some((device, number, found)) if (device, number) == (dev, ino) => {
                if found >= length {
                    disk.length = Some(found);
                    return Ok(false);
                }
                disk.length = Some(found);
                if let Err(error) = self.restore_header(disk) {
                    // Looked at again.
                    disk.length = Some(length);
                    return Err(error);
                }
                let (connection, path) = self.named();
                error!(connection, %path, bytes = length - found, "spool file was cut under a live call, what it had is lost");
                disk.begin_again();
                self.describe_again(length - found);
                Ok(true)
            }
            // It may be moved away, or have no name any more, and be there all the same.
            _ if disk.file.is_some() => {
                self.copy_back(disk, found.is_some(), length)?;
                Ok(true)
            }
            _ => {
                let (connection, path) = self.named();
                error!(connection, %path, bytes = length, "spool file was removed under a live call, what it had is lost");
                self.make_way(found.is_some())?;
                (disk.length, disk.opening) = (None, Some(OpeningCause::MadeAnew));
                disk.open(self)?;
                self.describe_again(length);
                Ok(true)
            }
        }
    }

    /// Copies the file that is open to its path again.
    fn copy_back(&self, disk: &mut Disk, is_taken: bool, length: u64) -> io::Result<()> {
        let Some(file) = &mut disk.file else { return Ok(()) };
        self.make_way(is_taken)?;
        let temporary = spool_dir::beside(&self.path, Made::New);
        remove_if_there(&temporary)?;
        let mut copy = create(&temporary)?;
        file.seek(SeekFrom::Start(0))?;
        let copied = io::copy(file, &mut copy)?;
        fs::rename(&temporary, &self.path)?;
        disk.adopt(copy)?;
        let lost = length.saturating_sub(copied);
        let (connection, path) = self.named();
        let lost_bytes = (lost > 0).then_some(lost);
        error!(connection, %path, bytes = lost_bytes, "spool file was removed under a live call, it is copied back");
        disk.begin_again();
        if lost > 0 {
            self.describe_again(lost);
        }
        Ok(())
    }

    /// Makes the directory anew, and sets aside what has taken the file's place.
    fn make_way(&self, is_taken: bool) -> io::Result<()> {
        spool_dir::make(self.directory())?;
        if is_taken {
            set_aside(&self.path, Aside::Failed)?;
        }
        Ok(())
    }

    /// Notes what is lost, and the whole state behind what waits, because what said it is gone.
    fn describe_again(&self, lost: u64) {
        let Some(describe) = self.describe.get() else { return };
        describe(&mut |at, state| {
            let mut buffer = lock(&self.buffer);
            buffer.append_before_seal(|records| {
                Record::append_lost(at, lost, records);
                Record::state(at, state).append_to(records);
            });
            buffer.note_state();
        });
    }

    /// Appends the state, if there was no room for it when it became another.
    fn append_owed(&self) {
        if !lock(&self.buffer).owes_state() {
            return;
        }
        let Some(describe) = self.describe.get() else { return };
        describe(&mut |at, state| {
            let mut buffer = lock(&self.buffer);
            buffer.append_before_seal(|records| Record::state(at, state).append_to(records));
            buffer.note_state();
        });
    }

    /// Writes the file again behind a header, where others have cut that off: what is there by now are blocks without one.
    fn restore_header(&self, disk: &mut Disk) -> io::Result<()> {
        let Some(file) = &mut disk.file else { return Ok(()) };
        let mut front = Vec::new();
        self.append_header(&mut front);
        let mut found = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        (&*file).take(u64::try_from(front.len()).unwrap_or(u64::MAX)).read_to_end(&mut found)?;
        if Header::parse(&found).is_ok_and(|(header, _)| header.recording == self.header.recording) {
            return Ok(());
        }
        let temporary = spool_dir::beside(&self.path, Made::New);
        remove_if_there(&temporary)?;
        let mut copy = create(&temporary)?;
        copy.write_all(&front)?;
        file.seek(SeekFrom::Start(0))?;
        io::copy(file, &mut copy)?;
        fs::rename(&temporary, &self.path)?;
        disk.adopt(copy)
    }

    /// Appends a header with another file id than any before.
    fn append_header(&self, out: &mut Vec<u8>) {
        Header { file: draw(), ..self.header.clone() }.append_to(out);
    }

    /// How the log names it.
    fn named(&self) -> (&str, std::path::Display<'_>) {
        (self.header.connection.as_str(), self.path.display())
    }

    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }
}

impl Disk {
    /// Opens the file, and makes it where it is new. What is to be written first goes in front of the rest.
    fn open(&mut self, spool: &SpoolFile) -> io::Result<()> {
        if self.file.is_none() {
            let is_new = self.length.is_none();
            let mut options = OpenOptions::new();
            options.create_new(is_new).append(true).read(true).mode(0o600);
            let opened = match options.open(&spool.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && is_new => {
                    spool_dir::make(spool.directory())?;
                    options.open(&spool.path)
                }
                opened => opened,
            };
            match opened {
                Ok(file) if self.length.is_none() => self.adopt(file)?,
                Ok(file) => {
                    let found = file.metadata()?;
                    let is_own = self.identity == (found.dev(), found.ino());
                    self.file = is_own.then_some(file);
                    // Somebody has put another in its place.
                    if !is_own {
                        self.looked = None;
                        return Ok(());
                    }
                }
                // What is known of it tells what is to be done about that.
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.length.is_some() => {
                    self.looked = None;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        let Some(opening) = self.opening.take() else { return Ok(()) };
        let mut front = Vec::new();
        if self.length == Some(0) {
            spool.append_header(&mut front);
        }
        append_opening(opening, &draw(), &mut front);
        self.next_block = 0;
        self.rest.splice(..0, front);
        Ok(())
    }

    /// What is written behind the rest is under another opening.
    fn begin_again(&mut self) {
        append_opening(OpeningCause::MadeAnew, &draw(), &mut self.rest);
        self.next_block = 0;
    }

    /// Goes on with this file.
    pub(super) fn adopt(&mut self, file: File) -> io::Result<()> {
        let found = file.metadata()?;
        self.identity = (found.dev(), found.ino());
        self.length = Some(found.len());
        self.file = Some(file);
        Ok(())
    }

    /// Goes on with a file that was just written, in its one opening, with so many blocks.
    pub(super) fn adopt_rewritten(&mut self, file: File, blocks: u32) -> io::Result<()> {
        self.adopt(file)?;
        (self.opening, self.next_block) = (None, blocks);
        Ok(())
    }

    /// Lets go of the descriptor.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    fn flush(&mut self, written: &mut usize) -> io::Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let mut done = 0;
        let result = loop {
            match file.write(&self.rest[done..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => done += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
            if done == self.rest.len() {
                break Ok(());
            }
        };
        *written += done;
        self.length = self.length.map(|length| length + u64::try_from(done).unwrap_or(0));
        if result.is_ok() {
            self.rest.clear();
        } else {
            self.rest.drain(..done);
        }
        result
    }
}

/// Makes a file that is to take another's place.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create_new(true).append(true).read(true).mode(0o600).open(path)
}

/// Removes a file, if it is there.
///
/// # Errors
/// Where the disk says no.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
