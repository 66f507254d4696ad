//! Calls that ended while they were paused, or not wanted: a note of each outlives the process, for as long as the call is
//! remembered. A restart between the end and a `reopen` must not forget that nothing is to be kept.
//!
//! The notes are one small file of the spool directory, `ended`, with a line of JSON for each call: its id, its part, until when
//! frames of it are late, until when it is remembered, and what of its [`State`] stands. The writer writes the file anew, beside
//! itself, in the round in which a note has come or gone, and removes it with the last one.

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
use crate::connection::TOMBSTONE;
use crate::connection::call::{Call, State};
use crate::id::{ConnectionId, RecordingId};
use crate::replay::Anchor;
use crate::spool::Header;
use crate::time::{Mono, Wall, micros};

/// The name of the file.
const FILE: &str = "ended";
/// Of more calls there is no note: the oldest goes. It is all written anew for each, and one may take some 20 KB.
const NOTES_MAX: usize = 256;
/// More than so many notes take.
const FILE_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The notes of this process.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    /// By connection: when it came, and its line.
    lines: BTreeMap<String, (u64, String)>,
    count: u64,
    is_changed: bool,
    is_failing: bool,
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    connection: String,
    part: u16,
    late_until: Wall,
    remembered_until: Wall,
    state: State,
}

impl Ended {
    fn add(&self, note: &Note) {
        let line = serde_json::to_string(note).expect("a note has only keys of text");
        let notes = &mut *lock(&self.0);
        notes.count += 1;
        notes.lines.insert(note.connection.clone(), (notes.count, line));
        notes.is_changed = true;
        if notes.lines.len() > NOTES_MAX {
            let oldest = notes.lines.iter().min_by_key(|(_, (count, _))| *count);
            let oldest = oldest.map(|(connection, _)| connection.clone());
            oldest.and_then(|connection| notes.lines.remove(&connection));
        }
    }

    /// Has all of it written anew.
    fn note_changed(&self) {
        lock(&self.0).is_changed = true;
    }

    /// Removes the note of a connection, if there is one.
    pub(super) fn forget(&self, connection: &ConnectionId) {
        let notes = &mut *lock(&self.0);
        notes.is_changed |= notes.lines.remove(connection.as_str()).is_some();
    }

    /// Writes what has changed. What cannot be written is tried in the next round.
    pub(super) fn write(&self, directory: &Path) {
        let notes = &mut *lock(&self.0);
        if !std::mem::take(&mut notes.is_changed) {
            return;
        }
        let written = write(directory, notes.lines.values().map(|(_, line)| line.as_str()));
        if let Err(error) = &written
            && !notes.is_failing
        {
            let path = path(directory);
            warn!(path = %path.display(), %error, "calls that ended in a pause cannot be noted, a restart would forget their pauses");
        }
        notes.is_failing = written.is_err();
        notes.is_changed = written.is_err();
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

fn write<'n>(directory: &Path, lines: impl ExactSizeIterator<Item = &'n str>) -> io::Result<()> {
    let (path, new) = (path(directory), directory.join(format!("{FILE}.new")));
    if lines.len() == 0 {
        return remove_if_there(&path);
    }
    let mut text = Vec::new();
    for line in lines {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    let mut options = fs::OpenOptions::new();
    let opened = options.create(true).write(true).truncate(true).mode(0o600).open(&new);
    let written = opened.and_then(|mut file| file.write_all(&text)).and_then(|()| fs::rename(&new, &path));
    if written.is_err() {
        // It would take room.
        remove_if_there(&new)?;
    }
    written
}

/// Reads the notes that an earlier process has left. What is not one is passed over.
fn read(directory: &Path) -> Vec<Note> {
    let path = path(directory);
    let is_ours =
        fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() <= FILE_MAX_BYTES);
    let text = if is_ours { fs::read(&path).unwrap_or_default() } else { Vec::new() };
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .take(NOTES_MAX)
        .collect()
}

impl Ingest {
    /// Notes a call that is over, if anything is not to be kept of it when it goes on.
    pub(super) fn note_ended(&self, slot: &Slot, state: &SlotState, now: Mono) {
        if !state.call.is_kept_out() {
            return self.writer.ended().forget(&slot.id);
        }
        let late_until = slot.anchor.wall_of(now).plus_us(us(TOMBSTONE));
        self.writer.ended().add(&Note {
            connection: slot.id.as_str().to_owned(),
            part: slot.part,
            late_until,
            remembered_until: late_until.plus_us(us(state.call.remembered())),
            state: state.call.to_remembered(),
        });
    }

    /// Remembers the calls that ended in an earlier process while they were paused, `found` being the files of all that are
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
        self.writer.ended().note_changed();
    }
}

fn us(duration: Duration) -> i64 {
    i64::try_from(micros(duration)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Rules;

    fn note(connection: &str) -> Note {
        let call =
            Call::open(Mono(0), crate::connection::pauses::Stamp::default(), Rules::for_reading(false));
        let (late_until, remembered_until) = (Wall(1), Wall(2));
        Note {
            connection: connection.to_owned(),
            part: 1,
            late_until,
            remembered_until,
            state: call.to_remembered(),
        }
    }

    #[test]
    fn so_many_notes_are_kept_and_no_file_without_one() {
        let dir = tempfile::tempdir().unwrap();
        let (ended, file) = (Ended::default(), dir.path().join(FILE));
        for number in 0..NOTES_MAX + 5 {
            ended.add(&note(&format!("call {number}")));
        }
        ended.write(dir.path());
        let found = read(dir.path());
        assert_eq!(found.len(), NOTES_MAX);
        assert!(!found.iter().any(|note| note.connection == "call 4"), "the oldest have gone");
        // What is torn or another's is passed over.
        let mut bytes = fs::read(&file).unwrap();
        bytes.truncate(bytes.len() - 9);
        bytes[0] = b'x';
        fs::write(&file, bytes).unwrap();
        assert_eq!(read(dir.path()).len(), NOTES_MAX - 2);
        for number in 0..NOTES_MAX + 5 {
            ended.forget(&ConnectionId::new(&format!("call {number}")).unwrap());
        }
        ended.write(dir.path());
        assert!(!file.exists() && fs::read_dir(dir.path()).unwrap().count() == 0);
    }

    #[test]
    fn a_disk_that_takes_no_note_is_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let ended = Ended::default();
        ended.add(&note("c"));
        ended.write(&gone);
        fs::create_dir(&gone).unwrap();
        ended.write(&gone);
        assert_eq!(read(&gone).len(), 1);
    }
}
