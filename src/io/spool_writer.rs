//! The threads that bring what was received to disk: one writes, one syncs, and some write files again that hold what a pause
//! with an earlier time takes out ([`super::spool_rewrite`]).
//!
//! Receivers put records into a connection's buffer and note the connection as dirty. In rounds the writer takes
//! all dirty buffers and appends each to its file, so that what was read from a socket is in the kernel's hands within
//! 100 ms (promise 1 of the contract): a killed daemon loses no more. Syncing, which a slow disk may draw out for
//! seconds, is the other thread's, so that writing never waits for it. It bounds what a power failure can take.
//!
//! A buffer that could not be written goes back in front of what came after it, and is tried again. It may grow to
//! [`BUFFER_MAX_BYTES`], and all together to [`BUFFERS_MAX_BYTES`]; beyond that frames are dropped and counted. A buffer
//! that fills quickly does not wait for the next round. For the ends of calls a full disk has a reserve.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{error, warn};

use super::ended::Ended;
use super::reserve::Reserve;
use super::scratch::is_full;
use super::spool_dir::sync_dir;
pub use super::spool_file::{Buffer, SpoolFile};
use super::spool_file::{Look, Written};
use super::spool_rewrite::{self, Rewrites};
use crate::connection::Rules;
use crate::metrics::{Metrics, SpoolFigures};

/// How long a record may wait in its buffer: 25 ms, which the system may let the thread wait, less than promised. A file
/// that is written first in one round may be the last one in the next, so what waits longest waits from the beginning
/// of a round to the end of the next. Rounds are as rare as that allows, because each costs a system call for each call
/// that talks.
const WAIT_MAX: Duration = Duration::from_millis(75);
/// What a round leaves to the others when it takes more than half of that.
const REST: Duration = Duration::from_millis(5);
/// What one connection may have in memory while the disk does not take it: a minute of two voices.
pub const BUFFER_MAX_BYTES: usize = 1024 * 1024;
/// What all connections together may have in memory.
pub const BUFFERS_MAX_BYTES: usize = 256 * 1024 * 1024;
/// A buffer of this size is written at once.
const HURRY_BYTES: usize = BUFFER_MAX_BYTES / 8;
/// A buffer of this size holds up senders that can wait.
const CONGESTED_BYTES: usize = BUFFER_MAX_BYTES / 2;
/// Memory that a written buffer gives to the next: what a call of two voices fills in a round, twenty times over. What a
/// burst has made larger than this is freed, for each connection keeps one, however quiet it becomes.
const KEEP_BYTES: usize = 8192;
/// Spool files held open, at most, and never more than half of what the system allows this process. More connections
/// than this cost an open each time they are written.
const OPEN_FILES_MAX: u64 = 32_768;
/// Beyond so many files, one sync of the whole file system is cheaper than one of each.
const SYNC_EACH_MAX: usize = 32;
/// In how many rounds each open file is looked at, whether anything is written to it or not: some five seconds.
const LOOK_ROUNDS: u64 = 64;
/// A disk that does not take data is reported this often, and at once where it says something else.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Files by their numbers.
type Files = HashMap<u64, Arc<SpoolFile>>;

/// The list of files with something to write. The lock is held for a push or a swap.
#[derive(Debug, Default)]
struct Work {
    dirty: Mutex<Vec<Arc<SpoolFile>>>,
    wake: Condvar,
    is_stopping: AtomicBool,
    /// Whether the disk did not take what was last written.
    is_failing: AtomicBool,
    /// Whether a buffer has grown so much that it should not wait for the next round.
    is_urgent: AtomicBool,
    /// Whether a buffer has grown so much that senders should wait for the next round.
    is_congested: AtomicBool,
    /// Bytes in all buffers.
    buffered: AtomicUsize,
    /// How often all dirty buffers have been written, or tried to be.
    rounds: AtomicU64,
    figures: SpoolFigures,
    ended: Ended,
    complained: Mutex<Option<(Instant, io::ErrorKind)>>,
}

/// The threads. Dropping it without [`SpoolWriter::stop`] leaves them running to the end of the process.
#[derive(Debug)]
pub struct SpoolWriter {
    work: Arc<Work>,
    rewrites: Arc<Rewrites>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl SpoolWriter {
    /// Starts the threads. Paths of sealed files, once wholly written, are sent to `sealed`.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(
        dir: &Path,
        sync_every: Duration,
        rules: Rules,
        sealed: mpsc::Sender<PathBuf>,
    ) -> io::Result<Self> {
        let work = Arc::new(Work::default());
        let written = Arc::new(Mutex::new(Files::new()));
        let rewrites = Arc::new(Rewrites::default());
        let mut threads = Vec::new();
        for number in 1..=spool_rewrite::THREADS {
            let (work, rewrites, to_sync) = (Arc::clone(&work), Arc::clone(&rewrites), Arc::clone(&written));
            let over = sealed.clone();
            let run = move || {
                let written = |file: &Arc<SpoolFile>, written: Written| {
                    work.enter(file, &written);
                    if written.bytes > 0 || written.is_renamed {
                        lock(&to_sync).insert(file.number, Arc::clone(file));
                    }
                };
                let note = |file: &Arc<SpoolFile>, buffer: MutexGuard<'_, Buffer>| work.note(file, buffer);
                rewrites.run(rules, &over, written, note);
            };
            threads.push(std::thread::Builder::new().name(format!("rewriter-{number}")).spawn(run)?);
        }
        let writer = {
            let (work, written) = (Arc::clone(&work), Arc::clone(&written));
            let (reserve, dir) = (Reserve::of(dir), dir.to_owned());
            let run = move || Writer::new(written, sealed, reserve).run(&work, &dir);
            std::thread::Builder::new().name("spool-writer".to_owned()).spawn(run)?
        };
        let syncer = {
            let (work, dir) = (Arc::clone(&work), dir.to_owned());
            let run = move || sync_loop(&work, &written, &dir, sync_every);
            std::thread::Builder::new().name("spool-sync".to_owned()).spawn(run)?
        };
        threads.extend([writer, syncer]);
        Ok(Self { work, rewrites, threads: Mutex::new(threads) })
    }

    /// Writes a file again, soon: it holds what may not be kept.
    pub fn rewrite(&self, file: &Arc<SpoolFile>) {
        self.rewrites.add(file);
    }

    /// Whether all buffers together have room for more.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.work.buffered.load(Ordering::Relaxed) < BUFFERS_MAX_BYTES
    }

    /// Whether a sender that can wait should, so that nothing of it has to be dropped. Not where the disk takes nothing:
    /// that may last.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.work.is_congested.load(Ordering::Relaxed) && !self.is_failing()
    }

    /// Takes note of what has been added to a file's buffer, and lets go of it.
    pub fn note(&self, file: &Arc<SpoolFile>, buffer: MutexGuard<'_, Buffer>) {
        self.work.note(file, buffer);
    }

    /// Whether the disk does not take what is received.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.work.is_failing.load(Ordering::Relaxed)
    }

    /// How many bytes wait to be written.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.work.buffered.load(Ordering::Relaxed)
    }

    /// The notes of calls that have ended.
    pub(super) fn ended(&self) -> &Ended {
        &self.work.ended
    }

    /// How often the writer has gone through what was dirty. What is in a buffer now has been written, or has failed to
    /// be, when this has grown by two: the round that is going on may have begun before.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.work.rounds.load(Ordering::Acquire)
    }

    /// What the threads have counted.
    #[must_use]
    pub fn figures(&self) -> &SpoolFigures {
        &self.work.figures
    }

    /// Writes all that there is, syncs, and ends the threads.
    pub fn stop(&self) {
        // First what is to be written again: then the writer ends with all that there is.
        self.rewrites.stop();
        for (number, thread) in std::mem::take(&mut *lock(&self.threads)).into_iter().enumerate() {
            if thread.join().is_err() {
                error!("a spool thread has panicked");
            }
            // Those that write again, which are the first, may leave something to the writer.
            if number + 1 >= spool_rewrite::THREADS {
                self.work.is_stopping.store(true, Ordering::Release);
                self.work.wake.notify_all();
            }
        }
    }
}

/// Locks a mutex of the shell. What these guard is whole between any two statements, so a panic elsewhere spoils
/// nothing, and must not take other connections down with it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Work {
    fn note(&self, file: &Arc<SpoolFile>, mut buffer: MutexGuard<'_, Buffer>) {
        let length = buffer.records().len();
        let grown = length - std::mem::replace(&mut buffer.counted, length);
        self.buffered.fetch_add(grown, Ordering::Relaxed);
        let is_news = !std::mem::replace(&mut buffer.is_dirty, true);
        drop(buffer);
        if is_news {
            lock(&self.dirty).push(Arc::clone(file));
        }
        if length >= HURRY_BYTES && !self.is_urgent.swap(true, Ordering::Relaxed) {
            self.wake.notify_all();
        }
        if length >= CONGESTED_BYTES {
            self.is_congested.store(true, Ordering::Relaxed);
        }
    }

    /// Enters what was written into the books. Returns what went wrong.
    fn enter(&self, file: &SpoolFile, written: &Written) {
        self.buffered.fetch_sub(written.freed, Ordering::Relaxed);
        self.figures.written_bytes.fetch_add(u64::try_from(written.bytes).unwrap_or(0), Ordering::Relaxed);
        if let Some(error) = &written.error {
            Metrics::add(&self.figures.failed_writes);
            let mut complained = lock(&self.complained);
            let is_said = |(at, kind): (Instant, _)| kind == error.kind() && at.elapsed() < COMPLAIN_EVERY;
            if !complained.is_some_and(is_said) {
                *complained = Some((Instant::now(), error.kind()));
                error!(path = %file.path.display(), %error, "the spool cannot be written, trying again");
            }
        }
    }
}

struct Writer {
    /// Those that are open.
    files: Files,
    /// Those that the other thread has to sync.
    written: Arc<Mutex<Files>>,
    /// Empty, with the memory of the buffer that was written last.
    spare: Vec<u8>,
    sealed: mpsc::Sender<PathBuf>,
    /// Sealed files that the finisher had no room for.
    waiting: Vec<PathBuf>,
    round: u64,
    open_files_max: usize,
    reserve: Reserve,
}

impl Writer {
    fn new(written: Arc<Mutex<Files>>, sealed: mpsc::Sender<PathBuf>, reserve: Reserve) -> Self {
        let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let open_files_max = allowed.map_or(OPEN_FILES_MAX, |allowed| OPEN_FILES_MAX.min(allowed / 2));
        Self {
            files: HashMap::new(),
            written,
            spare: Vec::new(),
            sealed,
            waiting: Vec::new(),
            round: 0,
            open_files_max: usize::try_from(open_files_max).unwrap_or(usize::MAX),
            reserve,
        }
    }

    fn run(mut self, work: &Work, dir: &Path) {
        // Two lists in turn, so that neither has to grow anew.
        let mut dirty = Vec::new();
        loop {
            let is_last = work.is_stopping.load(Ordering::Acquire);
            work.is_urgent.store(false, Ordering::Relaxed);
            std::mem::swap(&mut dirty, &mut *lock(&work.dirty));
            let (begun, is_any) = (Instant::now(), !dirty.is_empty());
            let (mut left, mut written) = (Vec::new(), Vec::with_capacity(dirty.len()));
            let (mut is_failing, mut ends) = (false, Vec::new());
            self.reserve.refill();
            // Before the ends that they are about.
            work.ended.write(dir);
            for file in dirty.drain(..) {
                lock(&file.buffer).is_dirty = false;
                match self.write(&file, work) {
                    Round::Done { is_some } => written.extend(is_some.then(|| (file.number, file))),
                    Round::Failed { is_full } => {
                        is_failing = true;
                        if is_full && lock(&file.buffer).is_sealed {
                            ends.push(file);
                        } else {
                            left.extend(keep_dirty(&file).then_some(file));
                        }
                    }
                    Round::Busy => left.extend(keep_dirty(&file).then_some(file)),
                }
            }
            let has_room = !ends.is_empty() && self.reserve.give_up();
            for file in ends {
                match has_room.then(|| self.write(&file, work)) {
                    Some(Round::Done { is_some }) => written.extend(is_some.then(|| (file.number, file))),
                    _ => left.extend(keep_dirty(&file).then_some(file)),
                }
            }
            // Before what has ended is made into recordings.
            self.reserve.refill();
            written.extend(self.look(work, is_last));
            lock(&self.written).extend(written);
            if is_any {
                work.figures.write_time.observe(begun.elapsed());
            }
            work.is_failing.store(is_failing, Ordering::Relaxed);
            work.is_congested.store(false, Ordering::Relaxed);
            lock(&work.dirty).extend(left);
            self.round += 1;
            work.rounds.fetch_add(1, Ordering::Release);
            self.hand_over();
            if is_last {
                return;
            }
            let guard = lock(&work.dirty);
            // What the disk does not take now it will hardly take at once.
            let is_urgent = work.is_urgent.load(Ordering::Relaxed) && !guard.is_empty();
            if !is_urgent || work.is_failing.load(Ordering::Relaxed) {
                let took = begun.elapsed();
                let rest = WAIT_MAX.saturating_sub(took * 2).max(REST);
                drop(work.wake.wait_timeout(guard, rest));
            }
        }
    }

    /// Appends a file's buffer.
    fn write(&mut self, file: &Arc<SpoolFile>, work: &Work) -> Round {
        // Who has it is writing it again, and writes what waits as well.
        let Ok(mut disk) = file.disk.try_lock() else { return Round::Busy };
        if !self.files.contains_key(&file.number) {
            self.make_room();
            self.files.insert(file.number, Arc::clone(file));
        }
        let written = file.write(&mut disk, &mut self.spare, self.round);
        if self.spare.capacity() > KEEP_BYTES {
            self.spare = Vec::new();
        }
        work.enter(file, &written);
        if written.is_complete {
            disk.close();
            self.files.remove(&file.number);
            // Else whoever writes it again hands it over.
            if file.rewrites.load(Ordering::Acquire) == 0 {
                self.waiting.push(file.path.clone());
            }
        }
        match &written.error {
            Some(error) => Round::Failed { is_full: is_full(error) },
            None => Round::Done { is_some: written.bytes > 0 },
        }
    }

    /// Looks at open files to which nothing may have been written for long: a share of them in each round, and all in the last.
    /// Returns those that had to be mended.
    fn look(&mut self, work: &Work, is_last: bool) -> Vec<(u64, Arc<SpoolFile>)> {
        let turn = self.round % LOOK_ROUNDS;
        let is_due = |file: &&Arc<SpoolFile>| is_last || file.number % LOOK_ROUNDS == turn;
        let due: Vec<_> = self.files.values().filter(is_due).cloned().collect();
        let mut mended = Vec::new();
        for file in due {
            // Whoever has it looks at it as well.
            let Ok(mut disk) = file.disk.try_lock() else { continue };
            let looked = file.check_open(&mut disk);
            drop(disk);
            match looked {
                Ok(Look::Whole) => {}
                Ok(Look::Over) => drop(self.files.remove(&file.number)),
                Ok(Look::Mended) => {
                    self.write(&file, work);
                    mended.push((file.number, file));
                }
                Err(error) => {
                    work.enter(&file, &Written { error: Some(error), ..Written::default() });
                }
            }
        }
        mended
    }

    /// Closes files where too many are open: those that were not written in this round, or else all.
    fn make_room(&mut self) {
        if self.files.len() < self.open_files_max {
            return;
        }
        let round = self.round;
        let close = |file: &Arc<SpoolFile>, is_forced: bool| {
            let Ok(mut disk) = file.disk.try_lock() else { return false };
            let is_due = is_forced || disk.used != round;
            if is_due {
                disk.close();
            }
            is_due
        };
        self.files.retain(|_, file| !close(file, false));
        if self.files.len() >= self.open_files_max {
            self.files.retain(|_, file| !close(file, true));
        }
    }

    fn hand_over(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for path in waiting {
            match self.sealed.try_send(path) {
                Ok(()) => {}
                // No room: next time. Closed: the daemon stops, and the next start finds the file sealed.
                Err(mpsc::error::TrySendError::Full(path)) => self.waiting.push(path),
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
    }
}

/// What a round did for a file.
enum Round {
    /// All is written, if there was something.
    Done { is_some: bool },
    /// The disk did not take all.
    Failed { is_full: bool },
    /// Somebody else has it.
    Busy,
}

/// Sees to it that a file is looked at again. True if nobody else has seen to it since.
fn keep_dirty(file: &SpoolFile) -> bool {
    !std::mem::replace(&mut lock(&file.buffer).is_dirty, true)
}

fn sync_loop(work: &Work, written: &Mutex<Files>, dir: &Path, every: Duration) {
    loop {
        let is_last = work.is_stopping.load(Ordering::Acquire);
        let files = std::mem::take(&mut *lock(written));
        if !files.is_empty() {
            let begun = Instant::now();
            let synced = sync(&files, dir);
            work.figures.sync_time.observe(begun.elapsed());
            if let Err(error) = synced {
                Metrics::add(&work.figures.failed_syncs);
                warn!(path = %dir.display(), %error, "the spool cannot be synced, trying again");
                lock(written).extend(files);
            }
        }
        if is_last {
            return;
        }
        // Short sleeps, so that stopping need not wait for a long interval.
        let until = Instant::now() + every;
        while Instant::now() < until && !work.is_stopping.load(Ordering::Acquire) {
            std::thread::sleep(every.min(Duration::from_millis(50)));
        }
    }
}

fn sync(files: &Files, dir: &Path) -> io::Result<()> {
    if files.len() > SYNC_EACH_MAX {
        rustix::fs::syncfs(File::open(dir)?)?;
        return Ok(());
    }
    for file in files.values() {
        match File::open(&file.path) {
            Ok(file) => file.sync_data()?,
            // Finished and published since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ended::sync(dir)?;
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConnectionId;
    use crate::spool::{Header, Record};
    use crate::time::{Mono, Wall};

    #[test]
    fn what_the_rewriter_writes_is_synced_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let (sealed, _finisher) = mpsc::channel(1);
        let rules = Rules::for_reading(false);
        let writer = SpoolWriter::start(dir.path(), Duration::from_millis(1), rules, sealed).unwrap();
        let header = Header::derived(ConnectionId::new("c").unwrap(), Wall(1), Mono(0), 1);
        let file = Arc::new(SpoolFile::new(dir.path().join("c.spool"), header));
        // Nobody tells the writer of it.
        Record::append_lost(Mono(0), 1, lock(&file.buffer).records());
        writer.rewrite(&file);
        let syncs = || writer.figures().sync_time.cumulated().last().copied().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while syncs() == 0 {
            assert!(Instant::now() < until, "{} bytes written", std::fs::metadata(&file.path).unwrap().len());
            std::thread::sleep(Duration::from_millis(5));
        }
        writer.stop();
    }
}
