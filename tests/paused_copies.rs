//! Packets that say again what was said before them, around pauses: RFC 2198 copies, in-band FEC and padding of Opus, key
//! presses; of two sources, some lost, some late, their payload types named first or last. Nothing that was said in a time
//! that is not kept is in the spool, neither live nor after a kill, and what was said outside of one is.

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
use sidetape::ledger::Ledger;
use sidetape::packet::parse_rtp;
use sidetape::red::blocks;
use sidetape::replay::{Replay, Rewrite};
use sidetape::spool::scan::{Located, Scanner};
use sidetape::spool::{Header, Record, RecordKind};
use sidetape::time::{Mono, Wall};

const OPENED_US: i64 = 1_767_323_045_000_000;
const FRAME_US: i64 = 20_000;
const FRAME_TICKS: u32 = 960;
const OPUS: u8 = 111;
const RED: u8 = 63;
const KEYS: u8 = 101;
/// Of key presses, too, and nobody says so.
const UNTOLD: u8 = 96;

/// What a source sends in a frame's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Copies of the two packets before.
    Red,
    /// In-band FEC.
    Fec,
    /// Padding that says the three packets before again.
    Padded,
    /// Of a key that is held, with all others next to it.
    Key,
    /// The same in a redundant packet.
    RedKey,
    /// Of a payload type that nobody tells.
    UntoldKey,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    kind: Kind,
    is_lost: bool,
    late_ms: i64,
}

/// How a time is said not to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Pause,
    /// PAUSE and RESUME with earlier times, so many frames after the end.
    Afterwards(i64),
    Record,
    /// The packets are not sent on meanwhile.
    Unsent,
}

#[derive(Clone, Copy, Debug)]
struct Out {
    gap: i64,
    frames: i64,
    told: Told,
    is_killed: bool,
}

#[derive(Clone, Debug)]
struct Story {
    sources: [Vec<Item>; 2],
    outs: Vec<Out>,
    is_stamped: bool,
    is_named_first: bool,
}

fn item() -> impl Strategy<Value = Item> {
    use Kind::{Fec, Key, Padded, Plain, Red, RedKey};
    let kind = prop_oneof![
        1 => Just(Plain), 3 => Just(Red), 2 => Just(Fec), 1 => Just(Padded), 3 => Just(Key), 1 => Just(RedKey)
    ];
    (kind, prop::bool::weighted(0.2), prop_oneof![3 => Just(0), 1 => 0..60i64])
        .prop_map(|(kind, is_lost, late_ms)| Item { kind, is_lost, late_ms })
}

fn story() -> impl Strategy<Value = Story> {
    let told = prop_oneof![
        3 => Just(Told::Pause),
        1 => (0..8i64).prop_map(Told::Afterwards),
        2 => Just(Told::Record),
        1 => Just(Told::Unsent),
    ];
    let out = (1..12i64, 1..14i64, told, prop::bool::weighted(0.2))
        .prop_map(|(gap, frames, told, is_killed)| Out { gap, frames, told, is_killed });
    let items = || prop::collection::vec(item(), 30..90);
    let outs = prop::collection::vec(out, 1..4);
    ([items(), items()], outs, any::<bool>(), any::<bool>()).prop_map(
        |(sources, outs, is_stamped, is_named_first)| Story { sources, outs, is_stamped, is_named_first },
    )
}

/// What a source says in a frame's time, in words that are nowhere else.
fn text(source: usize, at: usize) -> Vec<u8> {
    format!("<{source}said{at:04}>").into_bytes()
}

fn audio(source: usize, at: usize) -> Vec<u8> {
    [&[0xfc], &text(source, at)[..]].concat()
}

/// Where the key began that is held then.
fn began(items: &[Item], at: usize) -> usize {
    let is_key = |at: usize| matches!(items[at].kind, Kind::Key | Kind::RedKey | Kind::UntoldKey);
    (0..=at).rev().take_while(|at| is_key(*at)).last().unwrap()
}

fn key(items: &[Item], at: usize) -> [u8; 4] {
    let [high, low] = u16::try_from((at - began(items, at)) * 960).unwrap().to_be_bytes();
    [9, 10, high, low]
}

fn ticks(at: usize) -> u32 {
    u32::try_from(at).unwrap() * FRAME_TICKS
}

fn red(copies: &[(u8, u32, Vec<u8>)], payload_type: u8, own: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (payload_type, older, copy) in copies {
        payload.push(0x80 | payload_type);
        let bits = older << 10 | u32::try_from(copy.len()).unwrap();
        payload.extend_from_slice(&bits.to_be_bytes()[1..]);
    }
    payload.push(payload_type);
    copies.iter().for_each(|(.., copy)| payload.extend_from_slice(copy));
    [&payload, own].concat()
}

fn packet(source: usize, items: &[Item], at: usize) -> Vec<u8> {
    let before = |many: usize| (at.saturating_sub(many)..at).flat_map(|at| text(source, at));
    // An encoder knows nothing of the keys that were sent in the place of what it made.
    let is_audio = |at: &usize| !matches!(items[*at].kind, Kind::Key | Kind::RedKey | Kind::UntoldKey);
    let encoded = || (0..at).rev().find(is_audio).into_iter().flat_map(|at| text(source, at));
    let copies = |now: u32| -> Vec<_> {
        let copy = |at: usize| match items[at].kind {
            Kind::Key | Kind::RedKey | Kind::UntoldKey => {
                (KEYS, now.wrapping_sub(ticks(began(items, at))), key(items, at).to_vec())
            }
            _ => (OPUS, now.wrapping_sub(ticks(at)), audio(source, at)),
        };
        (at.saturating_sub(2)..at).map(copy).filter(|(_, older, _)| *older <= 0x3fff).collect()
    };
    let (payload_type, timestamp, payload) = match items[at].kind {
        Kind::Plain => (OPUS, ticks(at), audio(source, at)),
        Kind::Red => (RED, ticks(at), red(&copies(ticks(at)), OPUS, &audio(source, at))),
        Kind::Fec => {
            (OPUS, ticks(at), [9 << 3, 0xc0].into_iter().chain(encoded()).chain(text(source, at)).collect())
        }
        Kind::Padded => {
            let padding: Vec<u8> = before(3).collect();
            let head = [(31 << 3) | 3, 0x41, u8::try_from(padding.len()).unwrap()];
            (OPUS, ticks(at), [&head, &text(source, at)[..], &padding].concat())
        }
        Kind::Key => (KEYS, ticks(began(items, at)), key(items, at).to_vec()),
        Kind::UntoldKey => (UNTOLD, ticks(began(items, at)), key(items, at).to_vec()),
        Kind::RedKey => {
            let timestamp = ticks(began(items, at));
            // Copies of a key that goes on would be as old as itself.
            (RED, timestamp, red(&[], KEYS, &key(items, at)))
        }
    };
    let mut rtp = vec![0x80, payload_type];
    rtp.extend_from_slice(&u16::try_from(at).unwrap().wrapping_add(65_500).to_be_bytes());
    rtp.extend_from_slice(&timestamp.to_be_bytes());
    rtp.extend_from_slice(&[0, 0, 0, u8::try_from(source).unwrap()]);
    [rtp, payload].concat()
}

/// When a source's frame was said, behind the opening.
fn said_us(source: usize, at: usize) -> i64 {
    i64::try_from(at).unwrap() * FRAME_US + i64::try_from(source).unwrap() * 7000 + 1000
}

struct World {
    call: Call,
    header: Header,
    spool: Vec<u8>,
}

fn rules() -> Rules {
    Rules { max_duration: Duration::from_secs(14_400), ..Rules::for_reading(false) }
}

fn scan(spool: &[u8], mut each: impl FnMut(&Located<'_>)) {
    let mut scanner = Scanner::default();
    scanner.feed(spool);
    scanner.end();
    scanner.header().unwrap();
    while let Some(located) = scanner.next_record() {
        each(&located);
    }
}

impl World {
    fn new() -> Self {
        let call = Call::open(Mono(0), Stamp::received(Wall(OPENED_US)), rules());
        let header = Header::derived(ConnectionId::new("c").unwrap(), Wall(OPENED_US), Mono(0), 1);
        let mut spool = Vec::new();
        header.append_to(&mut spool);
        Record::state(Mono(0), &call.to_state()).append_to(&mut spool);
        Self { call, header, spool }
    }

    fn enter(&mut self, us: i64, stamp_us: Option<i64>, scope: Scope, message: &Message, body: &[u8]) {
        let now = Mono(u64::try_from(us).unwrap());
        let at = Stamp { received: Wall(OPENED_US + us), gateway: stamp_us.map(|us| Wall(OPENED_US + us)) };
        let (step, kept) = self.call.enter(now, at, scope, message, body).unwrap();
        let own = RecordKind::Tap(message.kind());
        let (kind, body) = match &kept {
            Kept::Whole => (own, body),
            Kept::Body(body) => (own, &body[..]),
            Kept::Withheld(header) => (RecordKind::Withheld, &header[..]),
            Kept::Unrecorded => return,
            other => panic!("{other:?}"),
        };
        Record { kind, scope, at: now, gateway: at.gateway, body }.append_to(&mut self.spool);
        if step.is_decision {
            Record::state(now, &self.call.to_state()).append_to(&mut self.spool);
        }
    }

    fn meta(&mut self, us: i64, stamp_us: Option<i64>, object: &serde_json::Value) {
        let message = Message::Meta(object.as_object().unwrap().clone());
        self.enter(us, stamp_us, Scope::Whole, &message, &serde_json::to_vec(&object).unwrap());
    }

    fn replay(&self) -> Replay {
        let mut replay = Replay::new(self.header.clone(), rules());
        scan(&self.spool, |located| replay.record(located));
        replay
    }

    fn rewrite(&mut self) {
        let taken_out = self.replay().taken_out();
        self.call.connection.claims_mut().note_taken_out();
        let Some(taken_out) = taken_out else { return };
        let mut out = Vec::new();
        self.header.append_to(&mut out);
        let mut rewrite = Rewrite::new(self.header.clone(), rules(), taken_out);
        scan(&self.spool, |located| rewrite.record(located, &mut out));
        self.spool = out;
    }

    fn kill(&mut self, us: i64) {
        self.rewrite();
        self.call = self.replay().call;
        self.call.note_restart(Wall(OPENED_US + us));
        self.call.connection.claims_mut().note_taken_out();
        let now = Mono(u64::try_from(us).unwrap());
        Record::resumed(now, &(OPENED_US + us).to_be_bytes()).append_to(&mut self.spool);
        Record::state(now, &self.call.to_state()).append_to(&mut self.spool);
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Packet(usize, usize),
    Begin(usize),
    End(usize),
    Afterwards(usize),
    Kill,
}

/// The times that are not kept, from and to.
fn times(story: &Story) -> Vec<(i64, i64)> {
    let mut at = 3;
    let time = |out: &Out| {
        let from = at + out.gap;
        let behind = if let Told::Afterwards(frames) = out.told { frames } else { 0 };
        at = from + out.frames + behind;
        (from * FRAME_US, (from + out.frames) * FRAME_US)
    };
    story.outs.iter().map(time).collect()
}

/// What happens, in the order of receipt.
fn events(story: &Story, times: &[(i64, i64)]) -> Vec<(i64, Event)> {
    let mut events = Vec::new();
    for (source, items) in story.sources.iter().enumerate() {
        for (at, item) in items.iter().enumerate() {
            let us = said_us(source, at);
            let is_in =
                |((from, to), out): (&(i64, i64), &Out)| out.told == Told::Unsent && *from <= us && us < *to;
            let late_us = if story.is_stamped { item.late_ms * 1000 } else { 0 };
            if !item.is_lost && !times.iter().zip(&story.outs).any(is_in) {
                events.push((us + late_us, Event::Packet(source, at)));
            }
        }
    }
    for (n, ((from, to), out)) in times.iter().zip(&story.outs).enumerate() {
        match out.told {
            Told::Afterwards(frames) => events.push((to + frames * FRAME_US, Event::Afterwards(n))),
            _ => events.extend([(*from, Event::Begin(n)), (*to, Event::End(n))]),
        }
        if out.is_killed {
            events.push(((from + to) / 2 + 100, Event::Kill));
        }
    }
    events.sort_by_key(|(us, _)| *us);
    events
}

fn happen(world: &mut World, story: &Story, times: &[(i64, i64)], us: i64, event: Event) {
    let stamp = |us: i64| story.is_stamped.then_some(us);
    let (pause, resume) = (Message::Pause(PauseMode::Silence), Message::Resume);
    match event {
        Event::Packet(source, at) => {
            let rtp = packet(source, &story.sources[source], at);
            let scope = Scope::Channel(Channel::Caller);
            world.enter(us, stamp(said_us(source, at)), scope, &Message::Rtp, &rtp);
        }
        Event::Begin(n) if story.outs[n].told == Told::Record => {
            world.meta(us, stamp(us), &serde_json::json!({ "record": false }));
        }
        Event::End(n) if story.outs[n].told == Told::Record => {
            world.meta(us, stamp(us), &serde_json::json!({ "record": true }));
        }
        Event::Begin(_) => world.enter(us, stamp(us), Scope::Whole, &pause, b""),
        Event::End(_) => world.enter(us, stamp(us), Scope::Whole, &resume, b""),
        Event::Afterwards(n) => {
            let (from, to) = times[n];
            world.enter(us, Some(from), Scope::Whole, &pause, b"");
            world.enter(us, Some(to), Scope::Whole, &resume, b"");
            world.rewrite();
        }
        Event::Kill => world.kill(us),
    }
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|found| found == text)
}

/// The key presses of which digits are in the spool: source, and the frame in which each began.
fn digits(spool: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    scan(spool, |located| {
        let record = &located.record;
        let Some(packet) = (record.kind == RecordKind::Tap(1)).then(|| parse_rtp(record.body).unwrap())
        else {
            return;
        };
        let mut note = |ticks: u32, payload: &[u8]| {
            if payload.first() == Some(&9) {
                let at = usize::try_from(ticks / FRAME_TICKS).unwrap();
                found.push((usize::try_from(packet.ssrc).unwrap(), at));
            }
        };
        match packet.payload_type {
            KEYS => note(packet.timestamp, packet.payload),
            RED => {
                let blocks = blocks(packet.payload).unwrap();
                let keys = blocks.iter().filter(|block| block.payload_type == KEYS);
                keys.for_each(|block| note(packet.timestamp.wrapping_sub(block.older_ticks), block.payload));
            }
            _ => {}
        }
    });
    found
}

fn check(story: &Story) -> Result<(), TestCaseError> {
    let mut world = World::new();
    let names = serde_json::json!({ "payload_types": {"63": "red/48000/2", "101": "telephone-event/48000"} });
    if story.is_named_first {
        world.meta(0, None, &names);
    }
    let times = times(story);
    let is_out = |source, at| {
        let us = said_us(source, at);
        times.iter().any(|(from, to)| *from <= us && us < *to)
    };
    let events = events(story, &times);
    for (us, event) in &events {
        happen(&mut world, story, &times, *us, *event);
    }
    if !story.is_named_first {
        world.meta(5_000_000, None, &names);
    }
    for (source, items) in story.sources.iter().enumerate() {
        for (at, item) in items.iter().enumerate() {
            let is_there = holds(&world.spool, &text(source, at));
            prop_assert!(!(is_out(source, at) && is_there), "{source}, {at} was not to be kept and is there");
            // One with in-band FEC may say again what was, and without a name nobody knows. Others are out only if they came in
            // a pause that they are older than.
            let late_us = said_us(source, at) + item.late_ms * 1000;
            let came_in = times.iter().any(|(from, to)| *from <= late_us && late_us < *to);
            let is_sure = matches!(item.kind, Kind::Plain | Kind::Padded)
                || item.kind == Kind::Red && story.is_named_first;
            if is_sure && !item.is_lost && !is_out(source, at) && !came_in {
                prop_assert!(is_there, "{source}, {at} was to be kept and is gone");
            }
        }
    }
    for (source, at) in digits(&world.spool) {
        prop_assert!(!is_out(source, at), "{source}, {at} is a key pressed in a pause");
    }
    world.rewrite();
    let once = world.spool.clone();
    world.rewrite();
    prop_assert!(world.spool == once, "what is written again once has nothing more to be taken out");
    Ok(())
}

/// The marks of a call in which a key was pressed for five frames, from the frame 10 on, and that is paused from `from` to `to`.
fn marks(kind: Kind, from: i64, to: i64, told: Told) -> Vec<serde_json::Value> {
    let item = |at| Item {
        kind: if (10..15).contains(&at) { kind } else { Kind::Plain },
        is_lost: false,
        late_ms: 0,
    };
    let out = Out { gap: from - 3, frames: to - from, told, is_killed: false };
    let sources = [(0..30).map(item).collect(), Vec::new()];
    let story = Story { sources, outs: vec![out], is_stamped: true, is_named_first: true };
    let mut world = World::new();
    let names = serde_json::json!({ "payload_types": {"63": "red/48000/2", "101": "telephone-event/48000"} });
    world.meta(0, None, &names);
    let times = times(&story);
    events(&story, &times).iter().for_each(|(us, event)| happen(&mut world, &story, &times, *us, *event));
    let mut ledger = Ledger::new(world.header.clone());
    scan(&world.spool, |located| ledger.record(located));
    ledger.close(Duration::from_secs(14_400));
    ledger.marks.iter().map(|mark| mark.fields.to_map().into()).collect()
}

#[test]
fn a_key_pressed_in_a_pause_leaves_its_mark_also_where_it_came_as_a_redundant_packet() {
    let (masked, whole) = (
        serde_json::json!({ "name": "telephone-event" }),
        serde_json::json!({ "name": "telephone-event", "event": "9" }),
    );
    for told in [Told::Pause, Told::Afterwards(3)] {
        for kind in [Kind::Key, Kind::RedKey] {
            for (from, to) in [(8, 20), (8, 13), (10, 11)] {
                let marks = marks(kind, from, to, told);
                assert_eq!(marks, std::slice::from_ref(&masked), "{kind:?} in {from}..{to}, {told:?}");
            }
            assert_eq!(marks(kind, 12, 20, told), std::slice::from_ref(&whole), "{kind:?} before the pause");
            assert_eq!(marks(kind, 18, 20, told), std::slice::from_ref(&whole), "{kind:?} outside");
        }
    }
}

#[test]
fn a_key_pressed_in_a_pause_is_in_no_mark_where_nobody_told_its_payload_type() {
    let digits = |from, to, told| {
        let marks = marks(Kind::UntoldKey, from, to, told);
        marks.iter().filter(|mark| mark.get("event").is_some()).count()
    };
    for told in [Told::Pause, Told::Afterwards(3), Told::Unsent, Told::Record] {
        for (from, to) in [(8, 20), (8, 13), (10, 11)] {
            assert_eq!(digits(from, to, told), 0, "in {from}..{to}, {told:?}");
        }
        assert_eq!(digits(18, 20, told), 1, "outside, {told:?}");
    }
}

proptest! {
    #![proptest_config(config(15, 400))]

    #[test]
    fn no_packet_says_again_what_was_not_to_be_kept(story in story()) {
        check(&story)?;
    }
}
