//! Calls that have ended, and what outlives the process of each: that frames of it are late for a minute, and which part it was;
//! and where it ended while it was paused, or not wanted, that nothing of it is to be kept when it goes on.
//!
//! The notes are one small file of the spool directory, `ended`, with a line of JSON for each call: its id, its part, until when
//! frames of it are late, until when it is remembered, and what of its [`State`] stands, if anything does. In the round in which
//! calls end the writer appends their lines. Of two lines of one call the later one holds. Where most lines are of calls that are
//! forgotten, the file is written anew, beside itself; with the last call that is remembered it goes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::awaited::Group;
use super::ingest::Ingest;
use super::random::draw;
use super::sealed::is_sealed;
use super::slot::{Slot, SlotState};
use super::spool_file::{SpoolFile, remove_if_there};
use super::spool_writer::lock;
use crate::connection::call::{Call, State};
use crate::connection::{End, TOMBSTONE};
use crate::id::{ConnectionId, RecordingId};
use crate::replay::Anchor;
use crate::spool::Header;
use crate::time::{Mono, Wall, micros};

/// The name of the file.
const FILE: &str = "ended";
/// Of more calls there is no note that nothing is to be kept: the oldest goes. One may take some 20 KB.
const KEPT_OUT_MAX: usize = 256;
/// Of more calls there is none that they are over: so many end in a minute where 270 end each second.
const OVER_MAX: usize = 16_384;
/// More than twice as many notes take.
const FILE_MAX_BYTES: u64 = 32 * 1024 * 1024;
/// So much of calls that are forgotten is not worth writing the file anew.
const SPARE_BYTES: usize = 64 * 1024;

/// The notes of this process.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    by_connection: HashMap<String, Line>,
    /// The connections in the order in which they ended: those of which something is not to be kept, and the others.
    order: [BTreeMap<u64, String>; 2],
    count: u64,
    /// Bytes of all lines.
    bytes: usize,
    /// Lines that are still to be appended.
    new: Vec<u8>,
    /// How long the file is with those.
    file_bytes: usize,
    /// Whether the file is to be written anew.
    is_old: bool,
    is_failing: bool,
}

#[derive(Debug)]
struct Line {
    number: u64,
    is_kept_out: bool,
    text: String,
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    connection: String,
    part: u16,
    late_until: Wall,
    remembered_until: Wall,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<State>,
}

/// What is to be done to the file.
enum Change {
    Append(Vec<u8>),
    Replace(Vec<u8>),
}

impl Notes {
    /// Removes the note of a connection. False if there was none.
    fn remove(&mut self, connection: &str) -> bool {
        let Some(line) = self.by_connection.remove(connection) else { return false };
        self.order[usize::from(line.is_kept_out)].remove(&line.number);
        self.bytes -= line.text.len();
        true
    }

    fn add(&mut self, note: &Note) {
        let mut text = serde_json::to_string(note).expect("a note has only keys of text");
        text.push('\n');
        self.remove(&note.connection);
        self.count += 1;
        let (number, is_kept_out) = (self.count, note.state.is_some());
        self.new.extend_from_slice(text.as_bytes());
        self.bytes += text.len();
        self.file_bytes += text.len();
        let order = &mut self.order[usize::from(is_kept_out)];
        order.insert(number, note.connection.clone());
        self.by_connection.insert(note.connection.clone(), Line { number, is_kept_out, text });
        let notes_max = if is_kept_out { KEPT_OUT_MAX } else { OVER_MAX };
        let oldest = (order.len() > notes_max).then(|| order.values().next().cloned()).flatten();
        if let Some(oldest) = oldest {
            self.remove(&oldest);
        }
    }

    /// What has changed since it was asked last.
    fn take_change(&mut self) -> Option<Change> {
        let is_over = self.by_connection.is_empty() && self.file_bytes > 0;
        if self.is_old || is_over || self.file_bytes > self.bytes * 2 + SPARE_BYTES {
            return Some(Change::Replace(self.take_all()));
        }
        (!self.new.is_empty()).then(|| Change::Append(std::mem::take(&mut self.new)))
    }

    /// All lines, to be the whole file.
    fn take_all(&mut self) -> Vec<u8> {
        let lines = self.order.iter().flat_map(BTreeMap::values);
        let lines = lines.filter_map(|connection| self.by_connection.get(connection));
        let text: Vec<u8> = lines.flat_map(|line| line.text.bytes()).collect();
        self.new.clear();
        (self.is_old, self.file_bytes) = (false, text.len());
        text
    }
}

impl Ended {
    fn add(&self, note: &Note) {
        lock(&self.0).add(note);
    }

    /// Has all of it written anew.
    fn note_old(&self) {
        lock(&self.0).is_old = true;
    }

    /// Forgets a connection of which there is nothing to be remembered any more. Its line says itself until when it holds.
    pub(super) fn retire(&self, connection: &ConnectionId) {
        lock(&self.0).remove(connection.as_str());
    }

    /// Forgets a connection before its time.
    fn forget(&self, connection: &ConnectionId) {
        let notes = &mut *lock(&self.0);
        notes.is_old |= notes.remove(connection.as_str());
    }

    /// Writes what has changed. What cannot be written is tried in the next round.
    pub(super) fn write(&self, directory: &Path) {
        // Nobody who ends a call waits for the disk.
        let Some(change) = lock(&self.0).take_change() else { return };
        let written = match &change {
            // Others may have removed it.
            Change::Append(lines) => match append(directory, lines) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let all = lock(&self.0).take_all();
                    replace(directory, &all)
                }
                appended => appended,
            },
            Change::Replace(text) => replace(directory, text),
        };
        let notes = &mut *lock(&self.0);
        if let Err(error) = &written
            && !notes.is_failing
        {
            let path = path(directory);
            warn!(path = %path.display(), %error, "calls that have ended cannot be noted, a restart would forget their pauses and take what is late for another call");
        }
        notes.is_failing = written.is_err();
        notes.is_old |= written.is_err();
    }

    /// Makes what was written outlast a power failure.
    pub(super) fn sync(directory: &Path) -> io::Result<()> {
        match fs::File::open(path(directory)) {
            Ok(file) => file.sync_data(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// Appends lines to the file that is there.
fn append(directory: &Path, lines: &[u8]) -> io::Result<()> {
    fs::OpenOptions::new().append(true).open(path(directory))?.write_all(lines)
}

/// Makes the file of this text, and removes it where there is none.
fn replace(directory: &Path, text: &[u8]) -> io::Result<()> {
    let (path, new) = (path(directory), directory.join(format!("{FILE}.new")));
    if text.is_empty() {
        return remove_if_there(&path);
    }
    let mut options = fs::OpenOptions::new();
    let opened = options.create(true).write(true).truncate(true).mode(0o600).open(&new);
    let written = opened.and_then(|mut file| file.write_all(text)).and_then(|()| fs::rename(&new, &path));
    if written.is_err() {
        // It would take room.
        remove_if_there(&new)?;
    }
    written
}

/// Reads the notes that an earlier process has left, the last one of each call, in the order of their ends. What is not one is
/// passed over.
fn read(directory: &Path) -> Vec<Note> {
    let path = path(directory);
    let is_ours =
        fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() <= FILE_MAX_BYTES);
    let text = if is_ours { fs::read(&path).unwrap_or_default() } else { Vec::new() };
    let notes = text.split(|byte| *byte == b'\n').map(serde_json::from_slice::<Note>);
    let mut last = HashMap::new();
    let notes: Vec<_> = notes.filter_map(Result::ok).collect();
    for (number, note) in notes.iter().enumerate() {
        last.insert(note.connection.clone(), number);
    }
    let numbered = notes.into_iter().enumerate();
    numbered
        .filter(|(number, note)| last.get(&note.connection) == Some(number))
        .map(|(_, note)| note)
        .collect()
}

impl Ingest {
    /// Notes a call that is over: its frames are late from now on. One that nobody has ended goes on with the next of them; it is
    /// noted if anything is not to be kept then.
    pub(super) fn note_ended(&self, slot: &Slot, state: &SlotState, end: End, now: Mono) {
        let (is_kept_out, is_ended) = (state.call.is_kept_out(), end == End::Released);
        if !is_kept_out && !is_ended {
            return self.writer.ended().forget(&slot.id);
        }
        let wall = slot.anchor.wall_of(now);
        let tombstone = wall.plus_us(us(TOMBSTONE));
        self.writer.ended().add(&Note {
            connection: slot.id.as_str().to_owned(),
            part: slot.part,
            late_until: if is_ended { tombstone } else { wall },
            remembered_until: tombstone.plus_us(us(state.call.remembered())),
            state: is_kept_out.then(|| state.call.to_remembered()),
        });
    }

    /// Remembers the calls that ended in an earlier process, `found` being the files of all that are
    /// not finished. One that has been opened again, and is open, knows itself how it stands.
    pub fn recall(&self, found: &[Group]) {
        let by_sum: HashMap<_, _> = found.iter().filter_map(|group| Some((group.sum?, group))).collect();
        let (now, wall) = (self.clock.now(), self.clock.wall());
        for note in read(self.spool.path()) {
            if note.remembered_until <= wall {
                continue;
            }
            self.writer.ended().add(&note);
            let Note { connection, part, late_until, state, .. } = note;
            let Ok(id) = ConnectionId::new(&connection) else { continue };
            let group = by_sum.get(&crc32c::crc32c(id.as_str().as_bytes()));
            let is_open = |file: &PathBuf| !is_sealed(file).is_ok_and(|is_sealed| is_sealed);
            if group.is_some_and(|group| group.files.iter().any(is_open)) {
                continue;
            }
            let left_us = u64::try_from(late_until.0.saturating_sub(wall.0)).unwrap_or(0);
            let until = now.after(Duration::from_micros(left_us).min(TOMBSTONE));
            let call = Call::ended(state, now, until, self.limits.rules);
            let recording = RecordingId::draw(wall, draw());
            let header = Header { recording, ..Header::derived(id.clone(), wall, now, part) };
            // Which is never written.
            let file = SpoolFile::new(self.spool.new_file(&id, wall, recording), header);
            let slot = self.slot(id.clone(), part, (wall, Anchor::new(now, wall), None), file, call);
            self.connections.insert(id, std::sync::Arc::clone(&slot));
            self.wake_at(until, &slot);
        }
        // What is remembered no more has gone.
        self.writer.ended().note_old();
    }
}

fn us(duration: Duration) -> i64 {
    i64::try_from(micros(duration)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Rules;

    fn note(connection: &str, is_kept_out: bool) -> Note {
        let call =
            Call::open(Mono(0), crate::connection::pauses::Stamp::default(), Rules::for_reading(false));
        let (late_until, remembered_until) = (Wall(1), Wall(2));
        Note {
            connection: connection.to_owned(),
            part: 1,
            late_until,
            remembered_until,
            state: is_kept_out.then(|| call.to_remembered()),
        }
    }

    fn id(connection: &str) -> ConnectionId {
        ConnectionId::new(connection).unwrap()
    }

    #[test]
    fn so_many_notes_are_kept_and_no_file_without_one() {
        for (is_kept_out, notes_max) in [(true, KEPT_OUT_MAX), (false, OVER_MAX)] {
            let dir = tempfile::tempdir().unwrap();
            let (ended, file) = (Ended::default(), dir.path().join(FILE));
            ended.add(&note("of the other kind", !is_kept_out));
            for number in 0..notes_max + 5 {
                ended.add(&note(&format!("call {number}"), is_kept_out));
            }
            ended.note_old();
            ended.write(dir.path());
            let found = read(dir.path());
            assert_eq!(found.len(), notes_max + 1);
            assert!(!found.iter().any(|note| note.connection == "call 4"), "the oldest have gone");
            assert!(found.iter().any(|note| note.connection == "of the other kind"));
            // What is torn or another's is passed over.
            let mut bytes = fs::read(&file).unwrap();
            bytes.truncate(bytes.len() - 9);
            bytes[0] = b'x';
            fs::write(&file, bytes).unwrap();
            assert_eq!(read(dir.path()).len(), notes_max - 1);
            for number in 0..notes_max + 5 {
                ended.retire(&id(&format!("call {number}")));
            }
            ended.forget(&id("of the other kind"));
            ended.write(dir.path());
            assert!(!file.exists() && fs::read_dir(dir.path()).unwrap().count() == 0);
        }
    }

    #[test]
    fn the_last_line_of_a_call_holds_and_one_that_is_forgotten_before_its_time_is_gone_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let ended = Ended::default();
        let known = || {
            let known = read(dir.path()).into_iter();
            known.map(|note| (note.connection, note.part, note.state.is_some())).collect::<Vec<_>>()
        };
        ended.add(&note("a", true));
        ended.add(&note("b", true));
        ended.write(dir.path());
        ended.add(&Note { part: 2, ..note("a", false) });
        ended.write(dir.path());
        assert_eq!(known(), [("b".to_owned(), 1, true), ("a".to_owned(), 2, false)]);
        ended.forget(&id("b"));
        ended.write(dir.path());
        assert_eq!(known(), [("a".to_owned(), 2, false)]);
        // Others have removed it.
        fs::remove_file(dir.path().join(FILE)).unwrap();
        ended.add(&note("c", false));
        ended.write(dir.path());
        assert_eq!(known(), [("a".to_owned(), 2, false), ("c".to_owned(), 1, false)]);
    }

    #[test]
    fn a_line_is_appended_and_the_file_is_not_much_longer_than_what_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let (ended, file) = (Ended::default(), dir.path().join(FILE));
        let length = || usize::try_from(fs::metadata(&file).map_or(0, |found| found.len())).unwrap();
        let (mut longest, mut shrunk) = (0, 0);
        ended.add(&note("stays", false));
        for number in 0..5000 {
            let (connection, before) = (format!("call {number}"), length());
            ended.add(&note(&connection, number % 10 == 0));
            ended.write(dir.path());
            ended.retire(&id(&connection));
            longest = longest.max(length());
            shrunk += usize::from(length() < before);
        }
        assert!(longest < SPARE_BYTES * 2 && (1..100).contains(&shrunk), "{longest}, {shrunk} times");
        assert!(read(dir.path()).iter().any(|note| note.connection == "stays"));
    }

    #[test]
    fn a_disk_that_takes_no_note_is_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let ended = Ended::default();
        ended.add(&note("c", true));
        ended.write(&gone);
        fs::create_dir(&gone).unwrap();
        ended.write(&gone);
        assert_eq!(read(&gone).len(), 1);
    }
}
