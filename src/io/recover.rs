//! What a start finds in the spool: the same steps as ever, taken up where the last process left them.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::awaited::Group;
use super::ingest::Ingest;
use super::log::chain;
use super::random::draw;
use super::resume::Resumed;
use super::rtp_ports::RtpPorts;
use super::sealed::is_sealed;
use super::spool_dir::{ReadError, SpoolDir, header_of, own_name, read, set_aside};
use super::spool_rewrite::rewrite_file;
use crate::connection::Rules;
use crate::id::RecordingId;
use crate::plain::ports_of;
use crate::replay::Replay;
use crate::spool::block::{self, OpeningCause, append_opening};
use crate::spool::name::Aside;
use crate::spool::scan::Tail;
use crate::spool::{Header, Record, SealCause, VERSION};
use crate::time::Mono;

/// What a spool directory holds.
#[derive(Debug, Default)]
pub struct Found {
    /// Files whose connections are over: to be finished.
    pub sealed: Vec<PathBuf>,
    /// Connections that were open: to be resumed, or sealed where nobody can go on.
    pub open: Vec<Resumed>,
    /// How many things were found that are no spool files, and set aside.
    pub foreign: usize,
}

/// The files of the spool directory, those together that may belong to one connection, oldest first. Only names are read,
/// and of files that have another's name the header.
///
/// # Errors
/// Where the directory cannot be read.
pub fn groups(dir: &SpoolDir) -> io::Result<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places = HashMap::new();
    for path in dir.list()? {
        let sum = sum_of_id(&path);
        let place = sum.map(|sum| *places.entry(sum).or_insert(groups.len()));
        match place.and_then(|place| groups.get_mut(place)) {
            Some(group) => group.files.push(path),
            None => groups.push(Group { sum, files: vec![path] }),
        }
    }
    Ok(groups)
}

/// The checksum of the id of the connection that a file is of.
fn sum_of_id(path: &Path) -> Option<u32> {
    if let Some(name) = own_name(path) {
        return Some(name.sum());
    }
    // Opening a pipe would wait for ever.
    let is_file = fs::symlink_metadata(path).is_ok_and(|file| file.is_file());
    let header = if is_file { header_of(path).ok()? } else { return None };
    Some(crc32c::crc32c(header.connection.as_str().as_bytes()))
}

/// Looks at the files of a group. Torn tails are cut off, so that appending can go on; damaged places stay as they
/// are; what is no spool file at all is set aside. No file, whatever it is, keeps the others from being found.
#[must_use]
pub fn look_at(group: &Group, rules: Rules) -> Found {
    let mut found = Found::default();
    for path in &group.files {
        match take_up(path, rules) {
            Ok(TakenUp::Sealed) => found.sealed.push(path.clone()),
            Ok(TakenUp::Open(resumed)) => found.open.push(*resumed),
            Ok(TakenUp::Nothing) => info!(path = %path.display(), "empty spool file removed"),
            Err(NotTakenUp::Foreign(reason)) => {
                found.foreign += 1;
                set_aside_foreign(path, &reason);
            }
            // The disk's errors pass, and rights can be given: to be finished when it can be read.
            Err(NotTakenUp::Unreadable(error)) => {
                warn!(path = %path.display(), %error, "spool file cannot be read, give the right to or mend the disk");
                found.sealed.push(path.clone());
            }
        }
    }
    // Of two open files of one connection the later one goes on.
    let mut superseded = Vec::new();
    for index in 0..found.open.len() {
        let is_of_same = |later: &Resumed| later.header.connection == found.open[index].header.connection;
        if found.open[index + 1..].iter().any(is_of_same) {
            superseded.push(index);
        }
    }
    for index in superseded.into_iter().rev() {
        let old = found.open.remove(index);
        // One that has to be written again gets no seal before: that says that there is nothing to be taken out.
        if !old.is_closed
            && let Err(error) = seal(&old.path, SealCause::NotResumed)
        {
            warn!(path = %old.path.display(), %error, "spool file cannot be sealed, it is finished as it is");
        }
        found.sealed.push(old.path);
    }
    found
}

impl Found {
    /// Adds what was found elsewhere.
    pub fn add(&mut self, other: Self) {
        self.sealed.extend(other.sealed);
        self.open.extend(other.open);
        self.foreign += other.foreign;
    }
}

/// Recovers what waits in `ingest`, while that receives: what is over goes to `sealed`, what is open goes on, with the `ports`
/// that it had. Ends when all is
/// done, or after `stop` when nothing is left that frames have come for; the rest is for the next start then.
pub fn recover(
    ingest: &Ingest,
    ports: Option<&Arc<RtpPorts>>,
    dir: &Path,
    rules: Rules,
    sealed: &mpsc::Sender<PathBuf>,
    stop: &CancellationToken,
) {
    let (mut open, mut over, mut foreign) = (0, 0, 0);
    // There may be more than the queue holds, and that must not hold up those that are open.
    let mut waiting = VecDeque::new();
    while let Some(group) = ingest.next_awaited(!stop.is_cancelled()) {
        // A bug that one file brings to light must not keep the others from being found. It is finished as it is.
        let found = catch_unwind(AssertUnwindSafe(|| look_at(&group, rules)));
        let found = found.unwrap_or_else(|_| Found { sealed: group.files.clone(), ..Found::default() });
        for resumed in &found.open {
            info!(connection = resumed.header.connection.as_str(), path = %resumed.path.display(), "connection found in the spool, waiting for its gateway");
        }
        open += found.open.len();
        over += found.sealed.len();
        foreign += found.foreign;
        let had = |resumed: &Resumed| Some((resumed.header.connection.clone(), resumed.call.ports?));
        // What cannot be gone on with is over, and its call goes on in another file.
        over += found.open.iter().filter(|resumed| resumed.is_closed).count();
        waiting.extend(
            found.open.iter().filter(|resumed| resumed.is_closed).map(|resumed| resumed.path.clone()),
        );
        let had: Vec<_> = found.open.iter().filter_map(had).collect();
        ingest.take_up(&group, found.open);
        if let Some(ports) = ports {
            had.into_iter().for_each(|(id, had)| ports.open_again(id, had));
        }
        waiting.extend(found.sealed);
        while let (Some(path), Ok(permit)) = (waiting.front(), sealed.try_reserve()) {
            permit.send(path.clone());
            waiting.pop_front();
        }
    }
    info!(path = %dir.display(), open, sealed = over, foreign, "spool looked through");
    for path in waiting {
        if sealed.blocking_send(path).is_err() {
            return;
        }
    }
}

fn set_aside_foreign(path: &Path, reason: &str) {
    match set_aside(path, Aside::Failed) {
        Ok(aside) => {
            error!(path = %aside.display(), error = reason, "no spool file, set aside: look at it, and remove it when it is not needed");
        }
        Err(error) => {
            error!(path = %path.display(), error = reason, cause = %error, "no spool file, and it cannot be set aside: remove it");
        }
    }
}

/// Appends a seal to the file of a connection that nobody will go on with.
///
/// # Errors
/// Where the disk says no.
pub fn seal(path: &Path, cause: SealCause) -> io::Result<()> {
    let (mut out, mut seal) = (Vec::new(), Vec::new());
    let header = header_of(path).ok();
    let recording = recording_of(path, header.as_ref());
    if header.is_some_and(|header| header.is_of_before()) {
        Record::append_seal(Mono(0), cause, recording, &mut out);
    } else {
        append_opening(OpeningCause::Resumed, &draw(), &mut out);
        block::append_room(&mut seal);
        Record::append_seal(Mono(0), cause, recording, &mut seal);
        block::complete(&mut seal, 0);
        out.append(&mut seal);
    }
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(&out)?;
    file.sync_all()
}

/// The recording that is made of a file, as its header says, or else its name. One of which neither does is read to its end.
fn recording_of(path: &Path, header: Option<&Header>) -> RecordingId {
    let said = header.map(|header| header.recording);
    let named = || own_name(path).and_then(|name| name.recording());
    said.or_else(named).unwrap_or_else(|| RecordingId::derived(path.as_os_str().as_bytes()))
}

/// Appends what is lost, and a seal, to a file that was sealed with so many bytes, and has none any more: somebody has cut it.
/// Nothing is done to one that has its seal, or is gone.
///
/// # Errors
/// Where the disk says no.
pub fn seal_cut(path: &Path, sealed_bytes: u64) -> io::Result<()> {
    let length = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // A longer one was not cut, and nothing is added to what is not ours.
    let is_whole = is_sealed(path).is_ok_and(|is_sealed| is_sealed);
    let header = header_of(path).ok();
    if length >= sealed_bytes || is_whole || header.is_none() {
        return Ok(());
    }
    let bytes = sealed_bytes - length;
    error!(path = %path.display(), bytes, "spool file was cut after the end of its call, what it had is lost: find out who cuts files in the spool directory");
    let (mut out, mut records) = (Vec::new(), Vec::new());
    append_opening(OpeningCause::MadeAnew, &draw(), &mut out);
    block::append_room(&mut records);
    Record::append_lost(Mono(0), bytes, &mut records);
    Record::append_seal(Mono(0), SealCause::Released, recording_of(path, header.as_ref()), &mut records);
    block::complete(&mut records, 0);
    out.append(&mut records);
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(&out)?;
    file.sync_all()
}

enum TakenUp {
    /// Made, and killed before the first byte of it was written.
    Nothing,
    Sealed,
    Open(Box<Resumed>),
}

enum NotTakenUp {
    /// Not one of our files, or nothing of it can be read; why.
    Foreign(String),
    /// The system did not let it be read.
    Unreadable(io::Error),
}

impl From<io::Error> for NotTakenUp {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl From<ReadError> for NotTakenUp {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Unreadable(error),
            ReadError::Header(error) => Self::Foreign(error.to_string()),
        }
    }
}

fn take_up(path: &Path, rules: Rules) -> Result<TakenUp, NotTakenUp> {
    // A symbolic link may lead anywhere, and opening a pipe would wait for ever.
    let file = fs::symlink_metadata(path)?;
    if !file.is_file() {
        return Err(NotTakenUp::Foreign("not a regular file".to_owned()));
    }
    if file.len() == 0 && own_name(path).is_some() {
        fs::remove_file(path)?;
        return Ok(TakenUp::Nothing);
    }
    if file.len() == 0 {
        return Err(NotTakenUp::Foreign("the file is empty".to_owned()));
    }
    // That it is over can be seen at its end, without reading all of it: whoever finishes it does.
    let is_over = || is_sealed(path).is_ok_and(|is_sealed| is_sealed);
    // No file of version 2 is sealed before what is to be taken out of it is, unless the disk had no room for that: then whoever
    // finishes it does.
    if header_of(path).is_ok_and(|header| !header.is_of_before()) && is_over() {
        return Ok(TakenUp::Sealed);
    }
    let (replay, tail) = read(path, |header| Replay::new(header, rules), Replay::record)?;
    if replay.is_sealed {
        take_out(path, &replay, rules);
        return Ok(TakenUp::Sealed);
    }
    cut_torn_tail(path, &tail)?;
    let is_of_before = replay.header.is_of_before();
    let (mut is_closed, is_to_be_rewritten) = (false, is_of_before || replay.taken_out().is_some());
    if is_to_be_rewritten && let Err(error) = rewrite_file(path, rules) {
        warn!(path = %path.display(), error = chain(&error), "spool file cannot be written again, the call goes on in another");
        is_closed = true;
    }
    let Replay { header, mut call, .. } = replay;
    if is_of_before {
        // There they stood in what a sender may write. Whoever opens them sees to it that they are in the range.
        call.ports = ports_of(&call.metadata.meta);
    }
    call.connection.claims_mut().note_taken_out();
    let header = Header { version: VERSION, ..header };
    Ok(TakenUp::Open(Box::new(Resumed { path: path.to_owned(), header, call, is_closed })))
}

/// Takes out of a file whose call is over what is to be taken out. The store may be down, and then nobody finishes it soon.
fn take_out(path: &Path, replay: &Replay, rules: Rules) {
    if replay.taken_out().is_some()
        && let Err(error) = rewrite_file(path, rules)
    {
        warn!(path = %path.display(), error = chain(&error), "what was paused cannot be taken out of the spool, tried again before it is published");
    }
}

fn cut_torn_tail(path: &Path, tail: &Tail) -> io::Result<()> {
    if tail.torn_bytes == 0 {
        return Ok(());
    }
    warn!(path = %path.display(), bytes = tail.torn_bytes, "torn end of a spool file is cut off");
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(tail.valid_bytes)?;
    file.sync_all()
}
