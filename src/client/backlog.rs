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

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::frame::HEADER_BYTES;

/// How much longer than until it is confirmed a frame is kept. The daemon promises its spool within 100 ms; a busy
/// machine may take its time.
pub(super) const KEEP: Duration = Duration::from_millis(500);
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
    /// How long after the last PING the next is sent, although there is nothing to say, as long as frames are kept.
    /// Datagrams need it: nothing else tells there that the daemon was killed and started again in a pause of the audio.
    pub(super) beat: Option<Duration>,
}

/// Frames to be sent with the PING of this number behind them.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) frames: Vec<Bytes>,
}

/// The queue, the window, and what became of the frames in them.
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
    /// The daemon has read it once, and it is repeated to be on the safe side.
    is_confirmed: bool,
}

#[derive(Debug)]
struct Sent {
    number: u64,
    frames: Vec<Waiting>,
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
        let limit = self.limit_bytes.saturating_add(if is_audio { 0 } else { RESERVE_BYTES });
        let is_read = |sent: &Sent| sent.confirmed_at.is_some();
        // What the daemon has read is kept only as long as there is room.
        while self.counters.held_bytes + frame.len() > limit && self.window.front().is_some_and(is_read) {
            self.forget_oldest();
        }
        if self.counters.held_bytes + frame.len() > limit {
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

    /// Moves frames from the queue to the window, as many as `pace` lets go out now. None at all if only a PING is due.
    pub(super) fn next_batch(&mut self, pace: Pace, now: Instant) -> Option<Batch> {
        if self.unconfirmed_frames >= pace.unconfirmed_frames
            || self.unconfirmed_bytes >= pace.unconfirmed_bytes
        {
            return None;
        }
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while frames.len() < pace.batch_frames && bytes < pace.batch_bytes {
            let Some(next) = self.queue.pop_front() else { break };
            bytes += next.frame.len();
            frames.push(next);
        }
        if frames.is_empty() && !self.is_beat_due(pace, now) {
            return None;
        }
        self.unconfirmed_frames += frames.len();
        self.unconfirmed_bytes += bytes;
        let number = self.next_number();
        let batch = Batch { number, frames: frames.iter().map(|waiting| waiting.frame.clone()).collect() };
        self.window.push_back(Sent { number, frames, bytes, at: now, confirmed_at: None });
        Some(batch)
    }

    fn is_beat_due(&self, pace: Pace, now: Instant) -> bool {
        let is_kept = self.window.iter().any(|sent| !sent.frames.is_empty());
        let last = self.window.back().map(|sent| sent.at);
        is_kept && last.zip(pace.beat).is_some_and(|(at, beat)| now.saturating_duration_since(at) >= beat)
    }

    /// Notes the answer to a PING: what was sent before it has been read. Of datagrams that is only known of those right
    /// before it; if a PING before it has no answer, its datagrams are taken for lost, as by a daemon that was
    /// restarted meanwhile.
    pub(super) fn confirm(&mut self, number: u64, now: Instant, is_lossy: bool) {
        let (mut is_one_lost, mut asked_at) = (false, None);
        for sent in self.window.iter_mut().take_while(|sent| sent.number <= number) {
            if sent.confirmed_at.is_some() {
                continue;
            }
            if is_lossy && sent.number < number {
                is_one_lost = true;
                continue;
            }
            sent.confirmed_at = Some(now);
            asked_at = Some(sent.at);
            self.unconfirmed_frames -= sent.frames.len();
            self.unconfirmed_bytes -= sent.bytes;
            for waiting in &mut sent.frames {
                self.counters.confirmed += u64::from(!waiting.is_confirmed);
                waiting.is_confirmed = true;
            }
        }
        if is_one_lost {
            self.give_back(number);
        }
        // A daemon that answers what was asked so much later was still there to write. When the answer is looked at
        // says nothing: it may have been under way while the daemon was killed.
        let is_safe = |sent: &Sent| match (sent.confirmed_at, asked_at) {
            (Some(_), _) if sent.frames.is_empty() => true,
            (Some(confirmed_at), Some(asked_at)) => asked_at.saturating_duration_since(confirmed_at) >= KEEP,
            _ => false,
        };
        while self.window.front().is_some_and(is_safe) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        self.counters.held_bytes -= self.window.pop_front().map_or(0, |sent| sent.bytes);
    }

    /// Notes that the link broke: what may not have arrived is sent once more. Returns whether that is news.
    pub(super) fn break_off(&mut self) -> bool {
        self.give_back(u64::MAX);
        std::mem::take(&mut self.counters.is_connected)
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

    /// Puts the batches before `number` back to the head of the queue. Of those that the daemon has read, not all: a MARK
    /// would be there twice, and audio of a call whose END it has read could open that call once more.
    fn give_back(&mut self, number: u64) {
        let over = self.calls_that_are_over();
        let count = self.window.iter().take_while(|sent| sent.number < number).count();
        let mut again = Vec::new();
        for sent in self.window.drain(..count) {
            let is_confirmed = sent.confirmed_at.is_some();
            if !is_confirmed {
                self.unconfirmed_frames -= sent.frames.len();
                self.unconfirmed_bytes -= sent.bytes;
            }
            for waiting in sent.frames {
                let (kind, call) = (kind_of(&waiting.frame), call_of(&waiting.frame));
                let is_harmful = kind == MARK || (kind != END && over.contains(call));
                if waiting.is_confirmed && is_harmful {
                    self.counters.held_bytes -= waiting.frame.len();
                } else {
                    again.push(waiting);
                }
            }
        }
        self.counters.repeated += u64::try_from(again.len()).unwrap_or(u64::MAX);
        for waiting in again.into_iter().rev() {
            self.queue.push_front(waiting);
        }
    }

    /// The calls of which the daemon has read an END for both channels.
    fn calls_that_are_over(&self) -> HashSet<Vec<u8>> {
        let mut ended: HashMap<&[u8], [bool; 2]> = HashMap::new();
        for waiting in self.window.iter().flat_map(|sent| &sent.frames) {
            if waiting.is_confirmed && kind_of(&waiting.frame) == END {
                let channels = ended.entry(call_of(&waiting.frame)).or_default();
                match waiting.frame.get(4) {
                    Some(0) => channels[0] = true,
                    Some(1) => channels[1] = true,
                    _ => *channels = [true; 2],
                }
            }
        }
        let over = ended.into_iter().filter(|(_, channels)| *channels == [true; 2]);
        over.map(|(call, _)| call.to_vec()).collect()
    }
}

fn kind_of(frame: &[u8]) -> u8 {
    frame.get(3).copied().unwrap_or(0)
}

fn call_of(frame: &[u8]) -> &[u8] {
    let length = frame.get(5).map_or(0, |length| usize::from(*length));
    frame.get(HEADER_BYTES..HEADER_BYTES + length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::encode;
    use crate::id::{Channel, ConnectionId, Scope};

    const PACE: Pace = Pace {
        batch_frames: 4,
        batch_bytes: 10_000,
        unconfirmed_frames: 8,
        unconfirmed_bytes: 100_000,
        beat: None,
    };

    fn frame(kind: u8, call: &str, scope: Scope, number: u8) -> Vec<u8> {
        encode(kind, scope, None, &ConnectionId::new(call).unwrap(), &[number])
    }

    fn rtp(number: u8) -> Vec<u8> {
        frame(RTP, "call", Scope::Channel(Channel::Caller), number)
    }

    /// Takes what may go out now; the last bytes of the frames in each batch, and the batches' numbers.
    fn take(backlog: &mut Backlog, now: Instant) -> (Vec<u8>, Vec<u64>) {
        let batches: Vec<Batch> = std::iter::from_fn(|| backlog.next_batch(PACE, now)).collect();
        let last = |frame: &Bytes| *frame.last().unwrap();
        let frames = batches.iter().flat_map(|batch| &batch.frames).map(last).collect();
        (frames, batches.iter().map(|batch| batch.number).collect())
    }

    fn filled(count: u8) -> Backlog {
        let mut backlog = Backlog::new(1_000_000);
        (0..count).for_each(|number| backlog.push(rtp(number)));
        backlog
    }

    #[test]
    fn no_more_goes_out_than_may_be_unconfirmed_and_all_of_it_in_order() {
        let (mut backlog, now) = (filled(20), Instant::now());
        let (frames, numbers) = take(&mut backlog, now);
        assert_eq!((frames, numbers), ((0..8).collect(), vec![1, 2]));
        backlog.confirm(1, now, false);
        assert_eq!(take(&mut backlog, now).0, [8, 9, 10, 11]);
        backlog.confirm(3, now, false);
        assert_eq!(take(&mut backlog, now).0, (12..20).collect::<Vec<_>>());
        assert!(!backlog.is_settled());
        backlog.confirm(5, now, false);
        assert!(backlog.is_settled());
        assert_eq!(backlog.counters().confirmed, 20);
    }

    #[test]
    fn a_broken_link_gives_back_what_is_not_confirmed_and_what_may_not_be_on_the_disk_yet() {
        let (mut backlog, start) = (filled(4), Instant::now());
        take(&mut backlog, start);
        backlog.confirm(1, start, false);
        (4..8).for_each(|number| backlog.push(rtp(number)));
        take(&mut backlog, start + KEEP);
        backlog.confirm(2, start + KEEP, false);
        (8..12).for_each(|number| backlog.push(rtp(number)));
        take(&mut backlog, start + KEEP);
        backlog.push(rtp(12));
        backlog.break_off();
        assert_eq!(backlog.counters().repeated, 8);
        assert_eq!(
            take(&mut backlog, start + KEEP).0,
            (4..12).collect::<Vec<_>>(),
            "then what came meanwhile"
        );
        backlog.confirm(5, start + KEEP, false);
        assert_eq!(take(&mut backlog, start + KEEP).0, [12]);
        backlog.confirm(6, start + KEEP, false);
        let counters = backlog.counters();
        assert_eq!((counters.accepted, counters.confirmed), (13, 13), "a repeat is not counted twice");
        backlog.push(rtp(13));
        take(&mut backlog, start + 2 * KEEP);
        backlog.confirm(7, start + 2 * KEEP, false);
        assert_eq!(backlog.counters().held_bytes, rtp(13).len());
    }

    #[test]
    fn only_a_daemon_that_answers_what_was_asked_later_makes_anything_safe() {
        let (mut backlog, start) = (filled(8), Instant::now());
        take(&mut backlog, start);
        backlog.confirm(1, start, false);
        // The answer was there long ago, but looked at only now; the daemon may have been killed right after it.
        backlog.confirm(2, start + 10 * KEEP, false);
        backlog.break_off();
        assert_eq!(take(&mut backlog, start + 10 * KEEP).0, (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn datagrams_before_an_unanswered_ping_are_sent_again_and_a_stopped_daemon_costs_no_repeat() {
        let (mut backlog, now) = (filled(8), Instant::now());
        take(&mut backlog, now);
        let probe = backlog.next_number();
        backlog.confirm(1, now, true);
        backlog.confirm(2, now, true);
        backlog.confirm(probe, now, true);
        assert_eq!((backlog.counters().repeated, backlog.is_settled()), (0, true));

        let mut backlog = filled(8);
        take(&mut backlog, now);
        let probe = backlog.next_number();
        backlog.confirm(1, now, true);
        backlog.confirm(probe, now, true);
        assert_eq!(take(&mut backlog, now).0, (0..8).collect::<Vec<_>>(), "the daemon was restarted");
        backlog.confirm(probe + 1, now, true);
        backlog.confirm(probe + 2, now, true);
        assert_eq!(backlog.counters().confirmed, 8);
    }

    #[test]
    fn a_daemon_that_was_restarted_in_a_pause_is_noticed_as_long_as_it_matters() {
        let pace = Pace { beat: Some(KEEP / 5), ..PACE };
        let (mut backlog, start) = (filled(4), Instant::now());
        backlog.next_batch(pace, start).unwrap();
        backlog.confirm(1, start, true);
        assert!(backlog.next_batch(pace, start).is_none());
        let beat = backlog.next_batch(pace, start + KEEP / 5).unwrap();
        assert!(beat.frames.is_empty());
        // That one went to nobody.
        let next = backlog.next_batch(pace, start + KEEP / 2).unwrap();
        backlog.confirm(next.number, start + KEEP / 2, true);
        assert_eq!(take(&mut backlog, start + KEEP / 2).0, [0, 1, 2, 3]);

        backlog.confirm(4, start + KEEP, true);
        let mut beats = 0;
        for fifth in 6..100 {
            let now = start + KEEP / 5 * fifth;
            if let Some(beat) = backlog.next_batch(pace, now) {
                backlog.confirm(beat.number, now, true);
                beats += 1;
            }
        }
        assert_eq!((beats, backlog.counters().held_bytes), (5, 0), "it ends when nothing is kept");
    }

    #[test]
    fn a_finished_call_is_not_opened_again_and_no_mark_is_made_twice() {
        let mut backlog = Backlog::new(1_000_000);
        let now = Instant::now();
        let (caller, ai) = (Scope::Channel(Channel::Caller), Scope::Channel(Channel::Ai));
        for (number, (kind, call, scope)) in (1..).zip([
            (RTP, "over", caller),
            (RTP, "going on", caller),
            (END, "over", caller),
            (END, "over", ai),
            (END, "going on", ai),
            (MARK, "going on", caller),
            (RTP, "late end", caller),
        ]) {
            backlog.push(frame(kind, call, scope, number));
        }
        backlog.push(frame(END, "late end", Scope::Whole, 8));
        take(&mut backlog, now);
        backlog.confirm(1, now, false);
        backlog.break_off();
        assert_eq!(take(&mut backlog, now).0, [2, 3, 4, 5, 6, 7, 8], "the end of a call is no harm");
        backlog.confirm(4, now, false);
        backlog.break_off();
        assert_eq!(take(&mut backlog, now).0, [2, 3, 4, 5, 8]);
    }

    #[test]
    fn a_full_queue_drops_and_counts_audio_but_has_room_for_a_pause() {
        let one = rtp(0).len();
        let mut backlog = Backlog::new(10 * one);
        (0..15).for_each(|number| backlog.push(rtp(number)));
        backlog.push(frame(6, "call", Scope::Whole, 99));
        let counters = backlog.counters();
        assert_eq!((counters.accepted, counters.dropped), (11, 5));
        assert_eq!(counters.held_bytes, 11 * one);
        let (now, mut half) = (Instant::now(), Backlog::new(10 * one));
        (0..10).for_each(|number| half.push(rtp(number)));
        take(&mut half, now);
        half.confirm(1, now, false);
        (0..5).for_each(|number| half.push(rtp(number)));
        assert_eq!(half.counters().dropped, 1, "what the daemon has read makes room: {half:?}");
        for _ in 0..RESERVE_BYTES {
            backlog.push(frame(6, "call", Scope::Whole, 99));
        }
        assert!(backlog.counters().held_bytes <= 10 * one + RESERVE_BYTES, "nothing grows without end");
    }
}
