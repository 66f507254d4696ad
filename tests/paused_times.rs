//! Any order and times of PAUSE, RESUME, decisions, parts, kills, stops and rewriting: what was said in a paused time is in no spool
//! file, and what was not is. Each payload and each mark carries its own time. What is paused is told by a model that keeps
//! a list of all that happened and looks at each payload on its own.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "rig/histories.rs"]
mod histories;

use std::time::Duration;

use histories::config;
use proptest::prelude::*;
use sidetape::connection::Rules;
use sidetape::connection::call::{Call, Kept};
use sidetape::connection::pauses::Stamp;
use sidetape::frame::{Message, PauseMode};
use sidetape::id::{Channel, ConnectionId, Scope};
use sidetape::replay::{Replay, Rewrite};
use sidetape::spool::scan::Scanner;
use sidetape::spool::{Header, Record, RecordKind, SealCause};
use sidetape::time::{Mono, Wall};

const OPENED_US: i64 = 1_767_323_045_000_000;

/// What happens next, so many milliseconds after what was before.
#[derive(Clone, Debug)]
enum Event {
    /// A packet of a channel, perhaps with a stamp that is so much older than its receipt.
    Packet(usize, Option<i64>),
    /// Likewise a mark, of a channel or of both.
    Mark(Option<usize>, Option<i64>),
    Pause(Option<usize>, Option<i64>),
    Resume(Option<usize>, Option<i64>),
    Decide(bool, Option<i64>),
    Part,
    Kill,
    /// An orderly stop, and another start.
    Stop,
    Rewrite,
}

fn event() -> impl Strategy<Value = Event> {
    let channel = prop_oneof![Just(None), (0..2usize).prop_map(Some)];
    let age = prop_oneof![Just(None), (-60..3000i64).prop_map(Some), Just(Some(0))];
    let jitter = prop_oneof![3 => Just(Some(0)), 2 => (0..400i64).prop_map(Some), 1 => Just(None)];
    prop_oneof![
        24 => (0..2usize, jitter).prop_map(|(channel, age)| Event::Packet(channel, age)),
        3 => (channel.clone(), age.clone()).prop_map(|(channel, age)| Event::Mark(channel, age)),
        3 => (channel.clone(), age.clone()).prop_map(|(channel, age)| Event::Pause(channel, age)),
        3 => (channel, age.clone()).prop_map(|(channel, age)| Event::Resume(channel, age)),
        2 => (any::<bool>(), age).prop_map(|(is_recorded, age)| Event::Decide(is_recorded, age)),
        1 => Just(Event::Part),
        1 => Just(Event::Kill),
        1 => Just(Event::Stop),
        1 => Just(Event::Rewrite),
    ]
}

/// A time in which a channel is not kept, with the places of its commands in the order of receipt.
#[derive(Clone, Debug)]
struct Told {
    from: i64,
    is_stamped: bool,
    begun: usize,
    /// When it ended, whether that is a stamp, and where.
    end: Option<(i64, bool, usize)>,
    /// When that was received.
    ended: i64,
}

/// What the model knows of one channel, for one of both reasons.
#[derive(Clone, Debug, Default)]
struct Lane {
    told: Vec<Told>,
    last: Option<(i64, bool)>,
    /// When that was received.
    last_received: i64,
}

impl Lane {
    fn own(&self, stamp: Option<i64>, received: i64) -> i64 {
        match (stamp, self.last) {
            (Some(stamp), Some((last, false))) => stamp.min(received.max(last)),
            (Some(stamp), _) => stamp,
            (None, Some((last, _))) => last + 1,
            (None, None) => received,
        }
    }

    /// When a mark without a stamp was made, by the clock of the packets.
    fn by_packets(&self, received: i64) -> i64 {
        match self.last {
            Some((last, true)) => (received - self.last_received + last).max(last + 1),
            _ => received,
        }
    }

    fn standing(&self) -> Option<(i64, bool)> {
        let open: Vec<_> = self.told.iter().filter(|told| told.end.is_none()).collect();
        let first = open.first()?;
        let earlier = open.iter().filter(|told| told.is_stamped).min_by_key(|told| told.from);
        Some(
            earlier
                .filter(|told| told.from < first.from)
                .map_or((first.from, first.is_stamped), |told| (told.from, true)),
        )
    }

    fn begin(&mut self, stamp: Option<i64>, received: i64, place: usize) {
        let from = self.own(stamp, received);
        self.told.push(Told { from, is_stamped: stamp.is_some(), begun: place, end: None, ended: i64::MAX });
    }

    fn end(&mut self, stamp: Option<i64>, received: i64, place: usize) {
        let Some((from, is_stamped)) = self.standing() else { return };
        let to = self.own(stamp, received);
        if is_stamped && stamp.is_some() && to < from {
            return;
        }
        // Without a time: behind the last packet, or when it came where that has no time either.
        let over = match self.last {
            Some((_, false)) => received.min(self.own(None, received)),
            _ => self.own(None, received),
        };
        let is_stamp = stamp.is_some() && to >= from;
        let to = if is_stamp { to } else { over };
        for told in self.told.iter_mut().filter(|told| told.end.is_none()) {
            told.end = Some((to, is_stamp, place));
            told.ended = received;
        }
    }

    /// Whether what has this own time, and was received at this place, must not be kept; `None` where times meet to the
    /// microsecond, or only clocks that are not the same tell them apart.
    fn is_paused(&self, own: i64, place: usize) -> Option<bool> {
        let mut answer = Some(false);
        for told in &self.told {
            let (to, _, ended) = told.end.unwrap_or((i64::MAX, false, usize::MAX));
            if told.begun < place && place < ended {
                return Some(true);
            }
            if own == told.from || own == to || own + 1 == told.from || own + 1 == to {
                answer = None;
                continue;
            }
            let is_in = told.from < own
                && (own < to || place < told.begun && told.end.is_some_and(|(_, is_stamp, _)| !is_stamp));
            match (is_in, told.is_stamped) {
                (true, true) => return Some(true),
                // When one without a time began, by the clock of what came late, is a guess.
                (true, false) if place > ended => answer = None,
                _ => {}
            }
            // What comes late, behind a RESUME without a time, is of the pause only as far as the packets before tell.
            let is_stamp = told.end.is_none_or(|(_, is_stamp, _)| is_stamp);
            if !is_stamp && place > ended && told.from < own && own <= told.ended {
                answer = None;
            }
            // It may have been taken out before it was told when the pause ended.
            if told.is_stamped && place < told.begun && told.from < own {
                answer = None;
            }
        }
        answer
    }
}

struct Spool {
    header: Header,
    bytes: Vec<u8>,
    part: u16,
}

struct Sent {
    channel: Option<usize>,
    /// By the clock of each channel's packets.
    own: [i64; 2],
    place: usize,
    text: String,
    is_mark: bool,
}

struct World {
    call: Call,
    spool: Spool,
    done: Vec<Spool>,
    is_flagged: bool,
    lanes: [[Lane; 2]; 2],
    sent: Vec<Sent>,
    sequence: u16,
    /// Where a part was full.
    parts: Vec<usize>,
}

fn rules() -> Rules {
    Rules { max_duration: Duration::from_secs(14_400), ..Rules::for_reading(false) }
}

fn new_spool(part: u16, call: &Call, now: Mono) -> Spool {
    let opened = Wall(OPENED_US + i64::try_from(now.0).unwrap());
    let header = Header::derived(ConnectionId::new("c").unwrap(), opened, now, part);
    let mut bytes = Vec::new();
    header.append_to(&mut bytes);
    Record::state(now, &call.to_state()).append_to(&mut bytes);
    Spool { header, bytes, part }
}

fn scan(spool: &Spool, mut each: impl FnMut(&sidetape::spool::scan::Located<'_>)) {
    let mut scanner = Scanner::default();
    scanner.feed(&spool.bytes);
    scanner.end();
    scanner.header().unwrap();
    while let Some(located) = scanner.next_record() {
        each(&located);
    }
}

fn replay(spool: &Spool) -> Replay {
    let mut replay = Replay::new(spool.header.clone(), rules());
    scan(spool, |located| replay.record(located));
    replay
}

/// Writes a file again, as the rewriter does.
fn rewrite(spool: &mut Spool) {
    let Some(taken_out) = replay(spool).taken_out() else { return };
    let mut out = Vec::new();
    spool.header.append_to(&mut out);
    let mut rewrite = Rewrite::new(spool.header.clone(), rules(), taken_out);
    scan(spool, |located| rewrite.record(located, &mut out));
    spool.bytes = out;
}

impl World {
    fn new() -> Self {
        let call = Call::open(Mono(0), Stamp::received(Wall(OPENED_US)), rules());
        let spool = new_spool(1, &call, Mono(0));
        let (lanes, sent, done) = Default::default();
        Self { call, spool, done, is_flagged: false, lanes, sent, sequence: 0, parts: Vec::new() }
    }

    fn enter(&mut self, now: Mono, stamp: Option<i64>, scope: Scope, message: &Message, body: &[u8]) {
        let at = Stamp { received: Wall(received(now)), gateway: stamp.map(Wall) };
        let (step, kept) = self.call.enter(now, at, scope, message, body).unwrap();
        let own = RecordKind::Tap(message.kind());
        let (kind, body) = match &kept {
            Kept::Whole => (own, body),
            Kept::Body(body) => (own, &body[..]),
            Kept::Withheld(header) => (RecordKind::Withheld, &header[..]),
            Kept::Unrecorded => return,
            other => panic!("{other:?}"),
        };
        Record { kind, scope, at: now, gateway: at.gateway, body }.append_to(&mut self.spool.bytes);
        if step.is_decision {
            Record::state(now, &self.call.to_state()).append_to(&mut self.spool.bytes);
        }
        if step.takes_out && !matches!(message, Message::Rtp) {
            self.call.connection.claims_mut().note_taken_out();
            self.is_flagged = true;
        }
    }

    fn happen(&mut self, place: usize, now: Mono, event: &Event) {
        let at = received(now);
        let stamp = |age: &Option<i64>| age.map(|ms| at - ms * 1000);
        let scope =
            |channel: &Option<usize>| channel.map_or(Scope::Whole, |at| Scope::Channel(Channel::BOTH[at]));
        let lanes = |channel: &Option<usize>| channel.map_or(0..2, |at| at..at + 1);
        match event {
            Event::Packet(channel, age) => {
                let own = stamp(age).unwrap_or(at);
                let text = format!("said-{own:016}-{place:05}");
                self.sequence = self.sequence.wrapping_add(1);
                let mut rtp = vec![0x80, 0];
                rtp.extend_from_slice(&self.sequence.to_be_bytes());
                rtp.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, u8::try_from(*channel).unwrap()]);
                rtp.extend_from_slice(text.as_bytes());
                for lane in &mut self.lanes {
                    lane[*channel].last = Some((own, age.is_some()));
                    lane[*channel].last_received = at;
                }
                self.enter(now, stamp(age), scope(&Some(*channel)), &Message::Rtp, &rtp);
                let own = [own; 2];
                self.sent.push(Sent { channel: Some(*channel), own, place, text, is_mark: false });
            }
            Event::Mark(channel, age) => {
                let own = stamp(age).unwrap_or(at);
                let text = format!("mark-{own:016}-{place:05}");
                let object = serde_json::json!({ "name": "m", "text": text });
                let body = serde_json::to_vec(&object).unwrap();
                let message = Message::Mark(object.as_object().unwrap().clone());
                let own = self.lanes[0].each_ref().map(|lane| stamp(age).unwrap_or(lane.by_packets(at)));
                self.enter(now, stamp(age), scope(channel), &message, &body);
                self.sent.push(Sent { channel: *channel, own, place, text, is_mark: true });
            }
            Event::Pause(channel, age) => {
                lanes(channel).for_each(|lane| self.lanes[0][lane].begin(stamp(age), at, place));
                self.enter(now, stamp(age), scope(channel), &Message::Pause(PauseMode::Silence), b"");
            }
            Event::Resume(channel, age) => {
                lanes(channel).for_each(|lane| self.lanes[0][lane].end(stamp(age), at, place));
                self.enter(now, stamp(age), scope(channel), &Message::Resume, b"");
            }
            Event::Decide(is_recorded, age) => {
                for lane in &mut self.lanes[1] {
                    if *is_recorded {
                        lane.end(stamp(age), at, place);
                    } else {
                        lane.begin(stamp(age), at, place);
                    }
                }
                let object = serde_json::json!({ "record": is_recorded });
                let body = serde_json::to_vec(&object).unwrap();
                let message = Message::Meta(object.as_object().unwrap().clone());
                self.enter(now, stamp(age), Scope::Whole, &message, &body);
            }
            Event::Part => {
                self.parts.push(place);
                self.rewrite();
                let recording = self.spool.header.recording;
                Record::append_seal(now, SealCause::PartFull, recording, &mut self.spool.bytes);
                self.call = self.call.next_part(now);
                let next = new_spool(self.spool.part + 1, &self.call, now);
                self.done.push(std::mem::replace(&mut self.spool, next));
            }
            Event::Kill => self.restart(now),
            Event::Stop => {
                self.rewrite();
                Record::state(now, &self.call.to_state()).append_to(&mut self.spool.bytes);
                self.restart(now);
            }
            Event::Rewrite => self.rewrite(),
        }
    }

    fn restart(&mut self, now: Mono) {
        rewrite(&mut self.spool);
        self.is_flagged = false;
        self.call = replay(&self.spool).call;
        self.call.note_restart(Wall(received(now)));
        self.call.connection.claims_mut().note_taken_out();
        let wall = Wall(received(now)).0.to_be_bytes();
        Record::resumed(now, &wall).append_to(&mut self.spool.bytes);
        Record::state(now, &self.call.to_state()).append_to(&mut self.spool.bytes);
    }

    fn rewrite(&mut self) {
        if std::mem::take(&mut self.is_flagged) {
            rewrite(&mut self.spool);
        }
    }

    fn check(mut self) -> Result<(), TestCaseError> {
        self.rewrite();
        self.done.push(self.spool);
        for sent in &self.sent {
            let channels = sent.channel.map_or(0..2, |at| at..at + 1);
            let lanes: Vec<(&Lane, i64)> = channels
                .flat_map(|at| self.lanes.iter().map(move |lane| (&lane[at], sent.own[at])))
                .collect();
            let answers: Vec<_> = lanes.iter().map(|(lane, own)| lane.is_paused(*own, sent.place)).collect();
            let is_there = self
                .done
                .iter()
                .any(|spool| spool.bytes.windows(sent.text.len()).any(|found| found == sent.text.as_bytes()));
            // A pause that reaches back into a part that is over is told to a person.
            let is_of_part_before = lanes
                .iter()
                .flat_map(|(lane, _)| &lane.told)
                .any(|told| self.parts.iter().any(|part| sent.place < *part && *part < told.begun));
            if answers.contains(&Some(true)) {
                prop_assert!(!is_there || is_of_part_before, "{} was paused and is there", sent.text);
            } else if !answers.contains(&None) && !sent.is_mark {
                prop_assert!(is_there, "{} was not paused and is gone", sent.text);
            }
        }
        Ok(())
    }
}

fn received(now: Mono) -> i64 {
    OPENED_US + i64::try_from(now.0).unwrap()
}

proptest! {
    #![proptest_config(config(14, 600))]

    #[test]
    fn nothing_of_a_paused_time_is_in_a_spool_file_and_all_else_is(
        events in prop::collection::vec((1..120u64, event()), 1..80)
    ) {
        let mut world = World::new();
        let mut now = Mono(0);
        for (place, (after_ms, event)) in events.iter().enumerate() {
            now = now.after(Duration::from_millis(*after_ms));
            world.happen(place, now, event);
        }
        let told = |error| TestCaseError::fail(format!("{error}: {events:?}"));
        world.check().map_err(told)?;
    }
}
