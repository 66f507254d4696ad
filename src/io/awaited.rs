//! Calls of an earlier process that are not recovered yet, and the frames that have come for them.
//!
//! A start receives at once, while the spool is still being read. A frame whose connection may be in a file that nobody has
//! looked at must neither open a second recording nor be refused: it is held here, and handed on as soon as that file's turn
//! is over, which comes next because of it. What may be in a file is told by its name, which has the checksum of
//! the connection's id; another id of the same checksum is held as well, and harmed no more than that.
//!
//! What is held is in memory alone, so this is the one time in which a kill may take more than 100 ms: as long as it takes to read
//! the files of the calls that go on. It is bounded as all that is received and not yet on disk.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ingest::Ingest;
use super::spool_writer::{BUFFER_MAX_BYTES, BUFFERS_MAX_BYTES, lock};
use crate::time::Mono;

/// The kind byte of frames with audio.
const RTP: u8 = 1;

/// Spool files that may belong to one connection: they are recovered together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The checksum of the connection's id, if it could be told.
    pub sum: Option<u32>,
    /// The files, oldest first.
    pub files: Vec<PathBuf>,
}

/// A frame that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldFrame {
    pub(super) bytes: Vec<u8>,
    /// When it arrived.
    pub(super) at: Mono,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It waits.
    Held,
    /// There is no room for it.
    Full,
    /// Its connection is in no file that nobody has looked at.
    NotAwaited,
}

/// Files that are to be recovered, and frames that wait for that.
#[derive(Debug, Default)]
pub struct Awaited {
    /// Whether there are any: all that a frame is asked in the life of a daemon after its start.
    is_any: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Files that nobody has looked at, in the order in which they are to be.
    waiting: BTreeMap<usize, Group>,
    /// What is held for each checksum, until its group is done with.
    held: HashMap<u32, Held>,
    /// Checksums of groups for which frames have come.
    wanted: VecDeque<u32>,
    held_bytes: usize,
}

#[derive(Debug, Default)]
struct Held {
    /// The place of its group.
    place: usize,
    frames: Vec<HeldFrame>,
    bytes: usize,
    /// Frames that there was no room for.
    dropped: u32,
}

impl Awaited {
    /// Groups to be recovered in this order, where frames do not ask for another.
    #[must_use]
    pub fn new(groups: Vec<Group>) -> Self {
        let sums = groups.iter().enumerate().filter_map(|(place, group)| Some((group.sum?, place)));
        let held = sums.map(|(sum, place)| (sum, Held { place, ..Held::default() })).collect();
        let is_any = AtomicBool::new(!groups.is_empty());
        let waiting = groups.into_iter().enumerate().collect();
        Self { is_any, inner: Mutex::new(Inner { waiting, held, ..Inner::default() }) }
    }

    /// Whether all has been recovered.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_any.load(Ordering::Acquire)
    }

    /// How many groups are not recovered yet. Whether a call in them is open is not known before.
    pub(super) fn left(&self) -> usize {
        let inner = &*lock(&self.inner);
        let begun = inner.held.values().filter(|held| !inner.waiting.contains_key(&held.place));
        inner.waiting.len() + begun.count()
    }

    /// Holds a frame if its connection may be in a file that nobody has looked at.
    pub(super) fn hold(&self, connection: &str, bytes: &[u8], at: Mono) -> Hold {
        if !self.is_any.load(Ordering::Acquire) {
            return Hold::NotAwaited;
        }
        let sum = crc32c::crc32c(connection.as_bytes());
        let inner = &mut *lock(&self.inner);
        let Some(held) = inner.held.get_mut(&sum) else { return Hold::NotAwaited };
        // A PAUSE must not find that audio has taken all the room.
        let is_audio = bytes.get(3) == Some(&RTP);
        let room = if is_audio { BUFFER_MAX_BYTES } else { BUFFER_MAX_BYTES * 2 };
        if held.bytes + bytes.len() > room || inner.held_bytes + bytes.len() > BUFFERS_MAX_BYTES {
            held.dropped = held.dropped.saturating_add(1);
            return Hold::Full;
        }
        if held.bytes == 0 {
            inner.wanted.push_back(sum);
        }
        held.frames.push(HeldFrame { bytes: bytes.to_vec(), at });
        held.bytes += bytes.len();
        inner.held_bytes += bytes.len();
        Hold::Held
    }

    /// The group to look at next: one for which frames have come, or else, if `all` are wanted, the first.
    pub(super) fn next(&self, all: bool) -> Option<Group> {
        let inner = &mut *lock(&self.inner);
        while let Some(sum) = inner.wanted.pop_front() {
            let group = inner.held.get(&sum).and_then(|held| inner.waiting.remove(&held.place));
            if group.is_some() {
                return group;
            }
        }
        let first = if all { inner.waiting.pop_first() } else { None };
        first.map(|(_, group)| group)
    }

    /// Hands what is held for a group to `handle`, in order, until there is nothing more. Then calls `end` with the number of
    /// frames that there was no room for, before anybody can find the group gone.
    pub(super) fn release(&self, group: &Group, mut handle: impl FnMut(&HeldFrame), end: impl FnOnce(u32)) {
        loop {
            let mut guard = lock(&self.inner);
            let inner = &mut *guard;
            let held = group.sum.and_then(|sum| inner.held.get_mut(&sum));
            let frames = held.map(|held| {
                inner.held_bytes -= std::mem::take(&mut held.bytes);
                std::mem::take(&mut held.frames)
            });
            let frames = frames.unwrap_or_default();
            if frames.is_empty() {
                let held = group.sum.and_then(|sum| inner.held.remove(&sum));
                end(held.map_or(0, |held| held.dropped));
                self.is_any.store(!inner.waiting.is_empty() || !inner.held.is_empty(), Ordering::Release);
                return;
            }
            drop(guard);
            frames.iter().for_each(&mut handle);
        }
    }
}

impl Ingest {
    /// The same, that waits for what the spool holds of an earlier process.
    #[must_use]
    pub fn awaiting(mut self, awaited: Awaited) -> Self {
        self.awaited = awaited;
        self
    }

    /// The group of spool files that is to be recovered next; only one that frames have come for, unless `all` are wanted.
    pub fn next_awaited(&self, all: bool) -> Option<Group> {
        self.awaited.next(all)
    }

    /// Whether all that the spool held of an earlier process is known.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        self.awaited.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(connection: &str) -> Group {
        Group { sum: Some(crc32c::crc32c(connection.as_bytes())), files: vec![connection.into()] }
    }

    fn released(awaited: &Awaited, group: &Group) -> (Vec<Vec<u8>>, u32) {
        let (mut frames, mut dropped) = (Vec::new(), 0);
        awaited.release(group, |frame| frames.push(frame.bytes.clone()), |count| dropped = count);
        (frames, dropped)
    }

    #[test]
    fn the_group_that_frames_have_come_for_is_next() {
        let (first, second, third) = (group("a"), group("b"), group("c"));
        let awaited = Awaited::new(vec![first.clone(), second, third.clone()]);
        assert_eq!(awaited.next(true), Some(first.clone()));
        assert_eq!(awaited.left(), 3, "that it is looked at does not recover it");
        assert_eq!(awaited.hold("c", b"1", Mono(1)), Hold::Held);
        assert_eq!(awaited.hold("c", b"2", Mono(2)), Hold::Held);
        assert_eq!(awaited.hold("a", b"3", Mono(3)), Hold::Held, "it is being looked at");
        assert_eq!(awaited.hold("d", b"4", Mono(4)), Hold::NotAwaited);
        assert_eq!(awaited.next(false), Some(third.clone()));
        assert_eq!(awaited.next(false), None, "the other one is not wanted");
        assert_eq!(released(&awaited, &third), (vec![b"1".to_vec(), b"2".to_vec()], 0));
        assert_eq!(released(&awaited, &first), (vec![b"3".to_vec()], 0));
        assert_eq!(awaited.left(), 1);
        assert_eq!(awaited.hold("c", b"5", Mono(5)), Hold::NotAwaited);
        assert!(awaited.next(true).is_some() && awaited.next(true).is_none());
    }

    #[test]
    fn what_comes_while_frames_are_handed_on_follows_them() {
        let group = group("a");
        let awaited = Awaited::new(vec![group.clone()]);
        awaited.hold("a", b"1", Mono(1));
        let mut frames = Vec::new();
        let handle = |frame: &HeldFrame| {
            if frames.is_empty() {
                assert_eq!(awaited.hold("a", b"2", Mono(2)), Hold::Held);
            }
            frames.push(frame.bytes.clone());
        };
        awaited.release(&group, handle, |_| {});
        assert_eq!(frames, [b"1", b"2"]);
    }

    #[test]
    fn what_is_held_is_bounded_and_what_is_not_is_counted() {
        let group = group("a");
        let awaited = Awaited::new(vec![group.clone()]);
        let mut frame = vec![0; BUFFER_MAX_BYTES / 2];
        frame[3] = RTP;
        let holds: Vec<_> = (0..4).map(|_| awaited.hold("a", &frame, Mono(1))).collect();
        assert_eq!(holds, [Hold::Held, Hold::Held, Hold::Full, Hold::Full]);
        let (frames, dropped) = released(&awaited, &group);
        assert_eq!((frames.len(), dropped), (2, 2));
    }
}
