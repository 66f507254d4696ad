//! Spool files written again: without what a pause with an earlier time takes out, and as version 2 where they were of version 1.
//!
//! A file is written beside itself, synced, and renamed into its own place, so that a crash at any moment leaves one of both.
//! What a crash leaves undone is done when the file is found, or before it is finished.
//!
//! A live file is written again within a second (0.4 s, and what the disk takes), by a thread of its own; what is received
//! meanwhile waits in the connection's buffer. A PAUSE and a RESUME that come together are both known by then, so
//! that no more is taken out than what lies between them. Who pauses again and again has a file written again for a
//! fifth of the time at most.
//!
//! Where the disk has no room for a second file, a live one is tried each second. When its call is over it is left as it is, so
//! that it can be published, which makes room: whoever finishes it leaves out what was paused.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::log::chain;
use super::random::draw;
use super::scratch::{Room, Sink, tells_full};
use super::spool_dir::{ReadError, beside, read, sync_dir};
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
const WAIT: Duration = Duration::from_millis(400);
/// How soon it is tried again where the disk said no.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a file is left alone, in times of what writing it again took.
const REST: u32 = 4;
/// A block of a file that is written again.
const BLOCK_BYTES: usize = 256 * 1024;
/// How soon the finisher is asked again whether it has room.
const ROOM_AGAIN: Duration = Duration::from_millis(50);

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
    let (replay, tail) = read(path, |header| Replay::new(header, rules), Replay::record)?;
    let taken_out = replay.taken_out();
    if taken_out.is_none() && !replay.header.is_of_before() {
        return Ok(None);
    }
    let temporary = beside(path, Made::New);
    remove_if_there(&temporary)?;
    let file = OpenOptions::new().create_new(true).append(true).read(true).mode(0o600).open(&temporary)?;
    let rewrite = Rewrite::new(replay.header, rules, taken_out.unwrap_or_default());
    let written = write(path, file.into(), rules, rewrite, lost_bytes(&tail));
    match written {
        Ok(Some(rewritten)) => {
            rewritten.file.sync_all()?;
            fs::rename(&temporary, path)?;
            sync_dir(path.parent().unwrap_or(Path::new(".")))?;
            Ok(Some(rewritten))
        }
        other => {
            remove_if_there(&temporary)?;
            other
        }
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
    let written = write(path, room.nameless(path)?, rules, rewrite, lost_bytes(&tail))?;
    Ok(written.map(|written| written.file))
}

/// Writes what stays of a file. Nothing, if all of it does.
fn write(
    path: &Path,
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
    let ((mut out, rewrite), _) = read(path, begin, |(out, rewrite), located| {
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
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    is_stopping: bool,
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
        queue.jobs.push_back(Job { file: Arc::clone(file), due, is_reported: false });
        drop(queue);
        self.wake.notify_all();
    }

    /// Does at once what there is, and no more.
    pub(super) fn stop(&self) {
        lock(&self.queue).is_stopping = true;
        self.wake.notify_all();
    }

    /// Writes files again until [`Rewrites::stop`]. Files whose calls are over then go to `over`. What was written of a buffer
    /// on the way is told to `written`, what is left to the writer to `note`.
    pub(super) fn run(
        &self,
        rules: Rules,
        over: &mpsc::Sender<PathBuf>,
        written: impl Fn(&Arc<SpoolFile>, Written),
        note: impl Fn(&Arc<SpoolFile>, MutexGuard<'_, Buffer>),
    ) {
        while let Some((job, is_last_try)) = self.next() {
            match rewrite(&job.file, rules, &written, is_last_try) {
                Ok(Done::Later(due)) => lock(&self.queue).jobs.push_back(Job { due, ..job }),
                Ok(Done::Over) => hand_over(&job.file.path, over, is_last_try),
                Ok(Done::Open) => {}
                Err(error) => {
                    let (connection, path) = (job.file.header.connection.as_str(), job.file.path.display());
                    let is_without_room = tells_full(&error);
                    let error = chain(&error);
                    if is_last_try {
                        warn!(connection, %path, error, "what was paused cannot be taken out of the spool, tried again before it is published");
                    } else if job.is_reported {
                        debug!(connection, %path, error, "what was paused is still in the spool");
                    } else {
                        error!(connection, %path, error, "what was paused cannot be taken out of the spool, trying again");
                    }
                    // At the end there is no other try: whoever finishes it takes it out.
                    if (is_without_room || is_last_try) && job.file.seal_unwritten(&note) {
                        continue;
                    }
                    if !is_last_try {
                        let due = Instant::now() + AGAIN;
                        lock(&self.queue).jobs.push_back(Job { due, is_reported: true, ..job });
                    }
                }
            }
        }
    }

    /// Waits for the next job that is due, or for the end. Whether there will be another try is told beside it.
    fn next(&self) -> Option<(Job, bool)> {
        let mut queue = lock(&self.queue);
        loop {
            let now = Instant::now();
            let first = (0..queue.jobs.len()).min_by_key(|at| queue.jobs[*at].due);
            let wait = match first {
                Some(at) if queue.is_stopping || queue.jobs[at].due <= now => {
                    let is_last_try = queue.is_stopping;
                    return queue.jobs.remove(at).map(|job| (job, is_last_try));
                }
                Some(at) => queue.jobs[at].due - now,
                None if queue.is_stopping => return None,
                None => Duration::from_secs(3600),
            };
            let woken = self.wake.wait_timeout(queue, wait);
            queue = woken.map_or_else(|poisoned| poisoned.into_inner().0, |(queue, _)| queue);
        }
    }
}

enum Done {
    /// Not before then.
    Later(Instant),
    /// The call goes on.
    Open,
    /// The call is over, and nobody else hands it over.
    Over,
}

fn rewrite(
    file: &Arc<SpoolFile>,
    rules: Rules,
    told: &impl Fn(&Arc<SpoolFile>, Written),
    is_last_try: bool,
) -> Result<Done, ReadError> {
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
        if let Some(Rewritten { file: new, blocks }) = rewrite_file(&file.path, rules)? {
            disk.adopt_rewritten(new, blocks)?;
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
