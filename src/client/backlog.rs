//! What a gateway has handed over and the daemon does not surely have: a queue, and a window of what was sent of it.
//!
//! Frames wait in the queue. [`Backlog::next_batch`] takes some of them to be sent with a PING behind them. In the window
//! they stay until that is answered, and [`KEEP`] longer: what the daemon has read is in its spool only 100 ms later.
//! Where the link breaks, the window goes back to the head of the queue and is sent once more, so that a daemon that was
//! killed loses nothing. It recognises RTP packets that it has; what a repeat could harm is left out
//! ([`Backlog::give_back`]).
//!
//! Invariants: frames leave in the order in which they came; none is given up without being counted; nothing here waits
//! or does I/O. Limits: the bytes of all frames here are at most the limit that it began with, and a reserve that only
//! frames other than audio may use, because those are few, and one of them may be a PAUSE.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::frame::HEADER_BYTES;

/// How much longer than until it is confirmed a frame is kept. The daemon promises its spool within 100 ms.
pub(super) const KEEP: Duration = Duration::from_millis(250);
/// What frames other than audio may take beyond the limit.
const RESERVE_BYTES: usize = 1024 * 1024;

const RTP: u8 = 1;
const END: u8 = 2;
const MARK: u8 = 8;
const RTCP: u8 = 10;

/// What has become of the frames that a [`super::Sender`] was handed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames taken into the queue.
    pub accepted: u64,
    /// Frames that the daemon has said to have read.
    pub confirmed: u64,
    /// Frames given up because the queue was full.
    pub dropped: u64,
    /// Frames that the protocol cannot carry, being too long.
    pub refused: u64,
    /// Frames sent once more after the link broke.
    pub repeated: u64,
    /// How often a daemon was found; all but the first are returns.
    pub connects: u64,
    /// Whether it answers now.
    pub is_connected: bool,
    /// The bytes of all frames that are kept now.
    pub held_bytes: usize,
}

/// How much may be on its way unconfirmed, and go out in one piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) batch_frames: usize,
    pub(super) batch_bytes: usize,
    pub(super) unconfirmed_frames: usize,
    pub(super) unconfirmed_bytes: usize,
}

/// Frames to be sent with the PING of this number behind them.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) frames: Arc<[Bytes]>,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Backlog {
    limit_bytes: usize,
    queue: VecDeque<Waiting>,
    window: VecDeque<Sent>,
    unconfirmed_frames: usize,
    unconfirmed_bytes: usize,
    number: u64,
    counters: Counters,
}

#[derive(Clone, Debug)]
struct Waiting {
    frame: Bytes,
    /// It has been counted as such, and is repeated to be on the safe side.
    is_confirmed: bool,
}

#[derive(Debug)]
struct Sent {
    batch: Batch,
    /// How many of the frames are confirmed by this batch for the first time.
    fresh: u64,
    bytes: usize,
    at: Instant,
    confirmed_at: Option<Instant>,
}

impl Backlog {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            queue: VecDeque::new(),
            window: VecDeque::new(),
            unconfirmed_frames: 0,
            unconfirmed_bytes: 0,
            number: 0,
            counters: Counters::default(),
        }
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes a whole frame into the queue, if there is room.
    pub(super) fn push(&mut self, frame: Vec<u8>) {
        let is_audio = matches!(kind_of(&frame), RTP | RTCP);
        let reserve = if is_audio { 0 } else { RESERVE_BYTES };
        if self.counters.held_bytes + frame.len() > self.limit_bytes.saturating_add(reserve) {
            self.counters.dropped += 1;
            return;
        }
        self.counters.accepted += 1;
        self.counters.held_bytes += frame.len();
        self.queue.push_back(Waiting { frame: frame.into(), is_confirmed: false });
    }

    /// Counts a frame that cannot be sent.
    pub(super) fn refuse(&mut self) {
        self.counters.refused += 1;
    }

    /// A number that no PING has had.
    pub(super) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Moves frames from the queue to the window, as many as `pace` lets go out now.
    pub(super) fn next_batch(&mut self, pace: Pace, now: Instant) -> Option<Batch> {
        if self.unconfirmed_frames >= pace.unconfirmed_frames
            || self.unconfirmed_bytes >= pace.unconfirmed_bytes
        {
            return None;
        }
        let (mut frames, mut bytes, mut fresh) = (Vec::new(), 0, 0);
        while frames.len() < pace.batch_frames && bytes < pace.batch_bytes {
            let Some(next) = self.queue.pop_front() else { break };
            bytes += next.frame.len();
            fresh += u64::from(!next.is_confirmed);
            frames.push(next.frame);
        }
        if frames.is_empty() {
            return None;
        }
        self.unconfirmed_frames += frames.len();
        self.unconfirmed_bytes += bytes;
        let batch = Batch { number: self.next_number(), frames: frames.into() };
        self.window.push_back(Sent { batch: batch.clone(), fresh, bytes, at: now, confirmed_at: None });
        Some(batch)
    }

    /// Notes the answer to a PING: what was sent before it has been read. Of datagrams that is only known of those right
    /// before it; if a PING before it has no answer, its datagrams are taken for lost, as by a daemon that was
    /// restarted meanwhile.
    pub(super) fn confirm(&mut self, number: u64, now: Instant, is_lossy: bool) {
        let mut is_one_lost = false;
        for sent in self.window.iter_mut().take_while(|sent| sent.batch.number <= number) {
            if sent.confirmed_at.is_some() {
                continue;
            }
            if is_lossy && sent.batch.number < number {
                is_one_lost = true;
                continue;
            }
            sent.confirmed_at = Some(now);
            self.unconfirmed_frames -= sent.batch.frames.len();
            self.unconfirmed_bytes -= sent.bytes;
            self.counters.confirmed += sent.fresh;
        }
        if is_one_lost {
            self.give_back(number);
        }
        // Asked only here, because a daemon that answers is one whose disk has had that time, too.
        let is_safe = |sent: &Sent| {
            sent.confirmed_at.is_some_and(|confirmed| now.saturating_duration_since(confirmed) >= KEEP)
        };
        while self.window.front().is_some_and(is_safe) {
            self.counters.held_bytes -= self.window.pop_front().map_or(0, |sent| sent.bytes);
        }
    }

    /// Notes that the link broke: what may not have arrived is sent once more.
    pub(super) fn break_off(&mut self) {
        self.counters.is_connected = false;
        self.give_back(u64::MAX);
    }

    /// Notes that the daemon answers.
    pub(super) fn connect(&mut self) {
        self.counters.connects += 1;
        self.counters.is_connected = true;
    }

    /// Notes that it does not, although the link is there.
    pub(super) fn miss(&mut self) {
        self.counters.is_connected = false;
    }

    /// When the oldest batch was sent that is not confirmed.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        self.window.iter().find(|sent| sent.confirmed_at.is_none()).map(|sent| sent.at)
    }

    /// Whether the daemon has read all that was handed over.
    pub(super) fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.unconfirmed_frames == 0
    }

    /// Puts the batches up to `number` back to the head of the queue. Of those that the daemon has read, not all: a MARK
    /// would be there twice, and audio of a call whose END it has read could open that call once more.
    fn give_back(&mut self, number: u64) {
        let over = self.calls_that_are_over();
        let count = self.window.iter().take_while(|sent| sent.batch.number <= number).count();
        let mut again = Vec::new();
        for sent in self.window.drain(..count) {
            let is_confirmed = sent.confirmed_at.is_some();
            if !is_confirmed {
                self.unconfirmed_frames -= sent.batch.frames.len();
                self.unconfirmed_bytes -= sent.bytes;
            }
            for frame in sent.batch.frames.iter() {
                let kind = kind_of(frame);
                if is_confirmed && (kind == MARK || (kind != END && over.contains(&call_of(frame).to_vec()))) {
                    self.counters.held_bytes -= frame.len();
                    continue;
                }
                again.push(Waiting { frame: frame.clone(), is_confirmed });
            }
        }
        self.counters.repeated += u64::try_from(again.len()).unwrap_or(u64::MAX);
        for waiting in again.into_iter().rev() {
            self.queue.push_front(waiting);
        }
    }
}
