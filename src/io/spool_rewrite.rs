//! Spool files written again: without what a pause with an earlier time takes out, and as version 2 where they were of version 1.
//!
//! A file is written beside itself, synced, and renamed into its own place, so that a crash at any moment leaves one of both.
//! What a crash leaves undone is done when the file is found, or before it is finished.
//!
//! A live file is written again within a second (0.4 s, and what the disk takes), by threads of their own; what is received
//! meanwhile waits in the connection's buffer. A PAUSE and a RESUME that come together are both known by then, so
//! that no more is taken out than what lies between them. Who pauses again and again has a file written again for a
//! fifth of the time at most. The smallest file comes first, and of large ones there is one at a time, so that no call waits for
//! another that is longer than itself. A stop waits two seconds for all of them: what is not done by then the next start does.
//!
//! Where the disk has no room for a second file, a live one is tried each second. When its call is over it is left as it is, so
//! that it can be published, which makes room: whoever finishes it leaves out what was paused.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::log::chain;
use super::random::draw;
use super::scratch::{Room, Sink, tells_full};
use super::spool_dir::{ReadError, beside, read, read_from, sync_dir, try_to_sync_dir_of};
use super::spool_file::{Buffer, Disk, SpoolFile, Written, remove_if_there};
use super::spool_writer::lock;
use crate::connection::Rules;
use crate::replay::{Replay, Rewrite};
use crate::spool::block::{self, OpeningCause, append_opening};
use crate::spool::name::Made;
use crate::spool::scan::Tail;
use crate::spool::{BODY_OFFSET, Header, Record, VERSION};
use crate::time::Mono;

/// How long is waited for a RESUME that belongs to a PAUSE: over HTTP, each is answered when it is in the spool, which takes some
/// 150 ms.
pub(super) const WAIT: Duration = Duration::from_millis(400);
/// How soon it is tried again where the disk said no.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a file is left alone, in times of what writing it again took.
const REST: u32 = 4;
/// A block of a file that is written again.
const BLOCK_BYTES: usize = 256 * 1024;
/// How soon the finisher is asked again whether it has room.
const ROOM_AGAIN: Duration = Duration::from_millis(50);

/// Threads that write files again. Most of what a small file takes is waiting for the disk, which syncs many in the time of one.
pub(super) const THREADS: usize = 8;
/// So many of them read and write at once, so that something is left of two cores for what is received.
const BUSY_MAX: usize = 2;
/// A file from this size on is large: what half an hour of two voices takes.
const LARGE_BYTES: u64 = 32 * 1024 * 1024;
/// How long a stop waits.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// A file that was written again.
#[derive(Debug)]
pub struct Rewritten {
    /// Open for appending.
    pub file: File,
    /// The blocks that its one opening has.
    pub blocks: u32,
}

/// Writes a file again, if something is to be taken out of it or it is of version 1. Nobody else may write to it meanwhile.
///
/// # Errors
/// Where it cannot be read or written; then it is as it was.
pub fn rewrite_file(path: &Path, rules: Rules) -> Result<Option<Rewritten>, ReadError> {
    let Some(made) = make(path, rules, &|| false)? else { return Ok(None) };
    let rewritten = made.put(path)?;
    // After a power failure the one before may be there: then the same is done with it again.
    try_to_sync_dir_of(path);
    Ok(Some(rewritten))
}

/// A file that is written again, beside that whose place it is to take.
struct New {
    temporary: PathBuf,
    rewritten: Rewritten,
}

impl New {
    /// Has it take its place, in a directory that is still to be synced: whatever becomes of that, the file before is gone.
    fn put(self, path: &Path) -> io::Result<Rewritten> {
        let put = self.rewritten.file.sync_all().and_then(|()| fs::rename(&self.temporary, path));
        if put.is_err() {
            remove_if_there(&self.temporary)?;
        }
        put.map(|()| self.rewritten)
    }
}

/// Writes a file again beside itself, if something is to be taken out of it or it is of version 1. An error as soon as
/// `is_given_up`.
fn make(path: &Path, rules: Rules, is_given_up: &dyn Fn() -> bool) -> Result<Option<New>, ReadError> {
    let open = || Ok::<_, io::Error>(Unless { input: File::open(path)?, is_given_up });
    let (replay, tail) = read_from(open()?, path, |header| Replay::new(header, rules), Replay::record)?;
    let taken_out = replay.taken_out();
    if taken_out.is_none() && !replay.header.is_of_before() {
        return Ok(None);
    }
    let temporary = beside(path, Made::New);
    remove_if_there(&temporary)?;
    let file = OpenOptions::new().create_new(true).append(true).read(true).mode(0o600).open(&temporary)?;
    let rewrite = Rewrite::new(replay.header, rules, taken_out.unwrap_or_default());
    match write((open()?, path), file.into(), rules, rewrite, lost_bytes(&tail)) {
        Ok(Some(rewritten)) => Ok(Some(New { temporary, rewritten })),
        other => {
            remove_if_there(&temporary)?;
            other.map(|_| None)
        }
    }
}

/// What is read until somebody gives up.
struct Unless<'g> {
    input: File,
    is_given_up: &'g dyn Fn() -> bool,
}

impl Read for Unless<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if (self.is_given_up)() { Err(io::ErrorKind::TimedOut.into()) } else { self.input.read(out) }
    }
}

/// Writes what stays of a file elsewhere, where there is no room for it beside the file, which is not touched. Nothing, if all of
/// it stays.
///
/// # Errors
/// Where it cannot be read or written.
pub(super) fn rewrite_elsewhere(path: &Path, rules: Rules, room: &Room) -> Result<Option<File>, ReadError> {
    let (replay, tail) = read(path, |header| Replay::new(header, rules), Replay::record)?;
    let rewrite = Rewrite::new(replay.header.clone(), rules, replay.taken_out().unwrap_or_default());
    let input = (File::open(path)?, path);
    let written = write(input, room.nameless(path)?, rules, rewrite, lost_bytes(&tail))?;
    Ok(written.map(|written| written.file))
}

/// Writes what stays of a file. Nothing, if all of it does.
fn write(
    (input, path): (impl Read, &Path),
    file: Sink,
    rules: Rules,
    rewrite: Rewrite,
    lost_bytes: u64,
) -> Result<Option<Rewritten>, ReadError> {
    let mut out = Out { file, block: Vec::new(), blocks: 0, failure: None };
    let begin = |header: Header| {
        let header = Header { version: VERSION, file: draw(), ..header };
        let mut front = Vec::new();
        header.append_to(&mut front);
        append_opening(OpeningCause::Rewritten, &draw(), &mut front);
        out.write(&front);
        (out, rewrite)
    };
    let mut is_first = true;
    let ((mut out, rewrite), _) = read_from(input, path, begin, |(out, rewrite), located| {
        rewrite.record(located, out.records());
        // What was damaged or missing can be seen no more, and is still told.
        if std::mem::replace(&mut is_first, false) && lost_bytes > 0 {
            Record::append_lost(located.record.at, lost_bytes, out.records());
        }
        if out.block.len() >= BLOCK_BYTES {
            out.end_block();
        }
    })?;
    if is_first {
        // A file of which nothing was written but its header.
        let header = super::spool_dir::header_of(path)?;
        let state = Replay::new(header, rules).call.to_state();
        Record::state(Mono(0), &state).append_to(out.records());
    }
    out.end_block();
    if let Some(failure) = out.failure {
        return Err(failure.into());
    }
    Ok((rewrite.is_other() || is_first)
        .then_some(Rewritten { file: out.file.into_file(), blocks: out.blocks }))
}

/// What a file has lost: of a block that is missing, no more is known than what the smallest has.
fn lost_bytes(tail: &Tail) -> u64 {
    let least = u64::try_from(block::HEADER_BYTES + BODY_OFFSET).unwrap_or(u64::MAX);
    tail.damaged_bytes.saturating_add(tail.missing_blocks.saturating_mul(least))
}

struct Out {
    file: Sink,
    block: Vec<u8>,
    blocks: u32,
    failure: Option<io::Error>,
}

impl Out {
    fn records(&mut self) -> &mut Vec<u8> {
        if self.block.is_empty() {
            block::append_room(&mut self.block);
        }
        &mut self.block
    }

    fn end_block(&mut self) {
        let mut block = std::mem::take(&mut self.block);
        if block.is_empty() {
            return;
        }
        block::complete(&mut block, self.blocks);
        self.blocks = self.blocks.wrapping_add(1);
        self.write(&block);
        block.clear();
        self.block = block;
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.failure.is_none() {
            self.failure = self.file.write_all(bytes).err();
        }
    }
}

struct Job {
    file: Arc<SpoolFile>,
    due: Instant,
    is_reported: bool,
}

/// Live files that are to be written again.
#[derive(Default)]
pub(super) struct Rewrites {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// When a stop waits no more.
    stop_by: OnceLock<Instant>,
    busy: Busy,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    is_stopping: bool,
    /// Whether a large file is being written again.
    has_large: bool,
}

/// How many threads read and write.
#[derive(Default)]
struct Busy {
    count: Mutex<usize>,
    wake: Condvar,
}

/// The right to do so.
struct Turn<'b>(&'b Busy);

impl Busy {
    fn wait(&self) -> Turn<'_> {
        let is_full = |count: &mut usize| *count >= BUSY_MAX;
        let count = self.wake.wait_while(lock(&self.count), is_full);
        *count.unwrap_or_else(PoisonError::into_inner) += 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.count) -= 1;
        self.0.wake.notify_one();
    }
}

impl std::fmt::Debug for Rewrites {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Rewrites").finish_non_exhaustive()
    }
}

impl Rewrites {
    /// Adds a file, if it does not wait already.
    pub(super) fn add(&self, file: &Arc<SpoolFile>) {
        let mut queue = lock(&self.queue);
        if queue.jobs.iter().any(|job| Arc::ptr_eq(&job.file, file)) {
            return;
        }
        file.rewrites.fetch_add(1, Ordering::AcqRel);
        let due = Instant::now() + WAIT;
        queue.jobs.push(Job { file: Arc::clone(file), due, is_reported: false });
        drop(queue);
        self.wake.notify_all();
    }

    /// Has all that there is done at once, as far as that takes no longer than two seconds, and no more.
    pub(super) fn stop(&self) {
        self.stop_within(STOP_WITHIN);
    }

    fn stop_within(&self, time: Duration) {
        self.stop_by.get_or_init(|| Instant::now() + time);
        lock(&self.queue).is_stopping = true;
        self.wake.notify_all();
    }

    fn is_given_up(&self) -> bool {
        self.stop_by.get().is_some_and(|by| Instant::now() >= *by)
    }

    /// Writes files again until [`Rewrites::stop`]: what each of the threads does. Files whose calls are over then go to `over`. What
    /// was written of a buffer on the way is told to `written`, what is left to the writer to `note`.
    pub(super) fn run(
        &self,
        rules: Rules,
        over: &mpsc::Sender<PathBuf>,
        written: impl Fn(&Arc<SpoolFile>, Written),
        note: impl Fn(&Arc<SpoolFile>, MutexGuard<'_, Buffer>),
    ) {
        while let Some(Next { job, is_last_try, is_large }) = self.next() {
            let done = self.rewrite(&job.file, rules, &written, is_last_try);
            if is_large {
                lock(&self.queue).has_large = false;
                self.wake.notify_all();
            }
            match done {
                Ok(Done::Later(due)) => self.again(Job { due, ..job }),
                Ok(Done::Over) => hand_over(&job.file.path, over, is_last_try),
                Ok(Done::Open) => {}
                Err(error) => {
                    let is_last_try = is_last_try || self.is_given_up();
                    let is_without_room = tells_full(&error);
                    self.report(&job, &error, is_last_try);
                    // At the end there is no other try: whoever finishes it takes it out.
                    if (is_without_room || is_last_try) && job.file.seal_unwritten(&note) {
                        continue;
                    }
                    if !is_last_try {
                        self.again(Job { due: Instant::now() + AGAIN, is_reported: true, ..job });
                    }
                }
            }
        }
    }

    fn again(&self, job: Job) {
        lock(&self.queue).jobs.push(job);
        self.wake.notify_one();
    }

    fn report(&self, job: &Job, error: &ReadError, is_last_try: bool) {
        let (connection, path) = (job.file.header.connection.as_str(), job.file.path.display());
        let error = chain(error);
        if self.is_given_up() {
            info!(connection, %path, "what was paused is taken out of the spool at the next start");
        } else if is_last_try {
            warn!(connection, %path, error, "what was paused cannot be taken out of the spool, tried again before it is published");
        } else if job.is_reported {
            debug!(connection, %path, error, "what was paused is still in the spool");
        } else {
            error!(connection, %path, error, "what was paused cannot be taken out of the spool, trying again");
        }
    }

    /// Waits for the next job that is due, or for the end: the smallest file first, and a large one if there is no other.
    fn next(&self) -> Option<Next> {
        let mut queue = lock(&self.queue);
        loop {
            let (now, is_last_try) = (Instant::now(), queue.is_stopping);
            let is_due = |job: &Job| is_last_try || job.due <= now;
            let sized = queue.jobs.iter().enumerate().filter(|(_, job)| is_due(job));
            let sized = sized.map(|(at, job)| (job.file.bytes.load(Ordering::Relaxed), at));
            if let Some((bytes, at)) = sized.min()
                && !(queue.has_large && bytes >= LARGE_BYTES)
            {
                let is_large = bytes >= LARGE_BYTES;
                queue.has_large |= is_large;
                return Some(Next { job: queue.jobs.swap_remove(at), is_last_try, is_large });
            }
            if is_last_try {
                return None;
            }
            let due = queue.jobs.iter().map(|job| job.due).filter(|due| *due > now).min();
            let wait = due.map_or(Duration::from_secs(3600), |due| due - now);
            let woken = self.wake.wait_timeout(queue, wait);
            queue = woken.map_or_else(|poisoned| poisoned.into_inner().0, |(queue, _)| queue);
        }
    }
}

/// What a thread does next.
struct Next {
    job: Job,
    /// Whether there will be no other try.
    is_last_try: bool,
    is_large: bool,
}

enum Done {
    /// Not before then.
    Later(Instant),
    /// The call goes on.
    Open,
    /// The call is over, and nobody else hands it over.
    Over,
}

impl Rewrites {
    fn rewrite(
        &self,
        file: &Arc<SpoolFile>,
        rules: Rules,
        told: &impl Fn(&Arc<SpoolFile>, Written),
        is_last_try: bool,
    ) -> Result<Done, ReadError> {
        // Before nobody else can write to it.
        let turn = self.busy.wait();
        let mut disk = lock(&file.disk);
        let begun = Instant::now();
        if let Some(until) = disk.rewritten_until.filter(|until| *until > begun && !is_last_try) {
            return Ok(Done::Later(until));
        }
        file.check(&mut disk)?;
        let round = disk.used;
        let write = |disk: &mut Disk| {
            let mut written = file.write(disk, &mut Vec::new(), round);
            let (is_complete, failure) = (written.is_complete, written.error.take());
            told(file, written);
            failure.map_or(Ok(is_complete), Err)
        };
        write(&mut disk)?;
        if file.rewrites.load(Ordering::Acquire) > 0 {
            let made = make(&file.path, rules, &|| self.is_given_up())?;
            drop(turn);
            if let Some(made) = made {
                let Rewritten { file: new, blocks } = made.put(&file.path)?;
                disk.adopt_rewritten(new, blocks)?;
                if sync_dir(file.directory()).is_err() {
                    told(file, Written { is_renamed: true, ..Written::default() });
                }
                let (connection, path) = (file.header.connection.as_str(), file.path.display());
                let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                info!(connection, %path, elapsed_ms, "what was paused is taken out of the spool");
            }
            disk.rewritten_until = Some(Instant::now() + begun.elapsed() * REST);
            // Whoever seals meanwhile sees either that there is nothing to wait for, or has its seal appended here.
            let mut buffer = lock(&file.buffer);
            if file.rewrites.fetch_sub(1, Ordering::AcqRel) == 1 {
                buffer.append_seal();
            }
        }
        if !write(&mut disk)? {
            return Ok(Done::Open);
        }
        disk.close();
        Ok(Done::Over)
    }
}

/// Hands a file over to the finisher. When all stops, the next start finds it.
fn hand_over(path: &Path, over: &mpsc::Sender<PathBuf>, is_stopping: bool) {
    let mut path = path.to_owned();
    while let Err(mpsc::error::TrySendError::Full(back)) = over.try_send(path) {
        if is_stopping {
            return;
        }
        path = back;
        std::thread::sleep(ROOM_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Channel, ConnectionId, Scope};
    use crate::spool::{RecordKind, SealCause};
    use crate::time::Wall;

    const OPENED: Wall = Wall(1_767_323_045_000_000);

    /// A file of so many packets with a text that a pause behind them takes out, as a restart finds it.
    fn file(path: &Path, packets: u32) -> Arc<SpoolFile> {
        let header = Header::derived(ConnectionId::new("c").unwrap(), OPENED, Mono(0), 1);
        let (mut bytes, mut records) = (Vec::new(), Vec::new());
        header.append_to(&mut bytes);
        append_opening(OpeningCause::Made, &draw(), &mut bytes);
        block::append_room(&mut records);
        let mut put = |kind, ms: u32, body: &[u8]| {
            let (at, gateway) = (Mono(u64::from(ms) * 1000), Some(OPENED.plus_us(i64::from(ms) * 1000)));
            let scope = Scope::Channel(Channel::Caller);
            Record { kind: RecordKind::Tap(kind), scope, at, gateway, body }.append_to(&mut records);
        };
        for number in 0..packets {
            let [.., high, low] = number.to_be_bytes();
            let head = [0x80, 0, high, low, 0, 0, high, low, 0, 0, 0, 1];
            put(1, number * 20, &[&head[..], b"secret"].concat());
        }
        put(6, 0, b"");
        block::complete(&mut records, 0);
        bytes.extend_from_slice(&records);
        fs::write(path, bytes).unwrap();
        Arc::new(SpoolFile::resumed(path.to_owned(), header))
    }

    fn holds_secret(path: &Path) -> bool {
        fs::read(path).unwrap().windows(6).any(|found| found == b"secret")
    }

    fn run(rewrites: &Rewrites) -> Vec<PathBuf> {
        let (over, mut found) = mpsc::channel(9);
        rewrites.run(Rules::for_reading(false), &over, |_, _| {}, |_, _| {});
        std::iter::from_fn(|| found.try_recv().ok()).collect()
    }

    #[test]
    fn the_smallest_file_comes_first_and_of_large_ones_there_is_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let rewrites = Rewrites::default();
        let sizes = [LARGE_BYTES + 1, 7000, LARGE_BYTES, 300, LARGE_BYTES - 1];
        let files = sizes.map(|bytes| {
            let file = file(&dir.path().join(format!("{bytes}.spool")), 1);
            file.bytes.store(bytes, Ordering::Relaxed);
            rewrites.add(&file);
            file
        });
        assert_eq!(files[0].rewrites.load(Ordering::Relaxed), 1);
        // All are due.
        lock(&rewrites.queue).jobs.iter_mut().for_each(|job| job.due = Instant::now());
        let next = || {
            let mut queue = lock(&rewrites.queue);
            queue.is_stopping = queue.jobs.len() < 2;
            drop(queue);
            rewrites.next().map(|next| next.job.file.bytes.load(Ordering::Relaxed))
        };
        assert_eq!([(); 4].map(|()| next()), [300, 7000, LARGE_BYTES - 1, LARGE_BYTES].map(Some));
        assert_eq!(next(), None, "the one that is being written again is large");
        lock(&rewrites.queue).has_large = false;
        assert_eq!(next(), Some(LARGE_BYTES + 1));
    }

    #[test]
    fn a_stop_that_has_no_time_left_leaves_a_file_as_it_was_to_whoever_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.spool");
        let rewrites = Rewrites::default();
        rewrites.add(&file(&path, 50));
        let before = fs::read(&path).unwrap();
        rewrites.stop_within(Duration::ZERO);
        assert!(run(&rewrites).is_empty());
        assert!(fs::read(&path).unwrap().starts_with(&before), "nothing is missing");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "and nothing is left beside it");
        assert!(rewrite_file(&path, Rules::for_reading(false)).unwrap().is_some() && !holds_secret(&path));
    }

    #[test]
    fn a_stop_that_has_time_has_it_done() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| dir.path().join(format!("{name}.spool")));
        let rewrites = Rewrites::default();
        paths.iter().for_each(|path| rewrites.add(&file(path, 50)));
        rewrites.stop();
        run(&rewrites);
        assert!(!paths.iter().any(|path| holds_secret(path)));
    }

    #[test]
    fn a_call_that_is_over_is_sealed_although_its_file_is_not_written_again_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.spool");
        let rewrites = Rewrites::default();
        let file = file(&path, 50);
        rewrites.add(&file);
        let mut seal = Vec::new();
        Record::append_seal(Mono(9_000_000), SealCause::Released, file.recording(), &mut seal);
        file.seal(&mut lock(&file.buffer), seal);
        rewrites.stop_within(Duration::ZERO);
        let (over, _) = mpsc::channel(9);
        let noted = Mutex::new(0);
        rewrites.run(Rules::for_reading(false), &over, |_, _| {}, |_, _| *lock(&noted) += 1);
        assert!(*lock(&noted) == 1 && lock(&file.buffer).is_sealed, "the writer writes it");
    }
}
