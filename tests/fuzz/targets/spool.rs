//! Spool files: as they come, and made of records with right checksums, on the way to the pieces of a recording, to a
//! connection that goes on after a restart, and to a file that is written again.
//!
//! The first byte says what the others are: bit 0 that they are a program that makes a file, and not a file; bit 1 that its
//! records go through [`Call::enter`], as those of a daemon do; bit 2 that digits are masked; bit 3 that the file is of version 1.
//! The rest of it is the size of the pieces in which the file is read.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sidetape::connection::Rules;
use sidetape::connection::call::{Call, Kept};
use sidetape::connection::pauses::{Stamp, TakenOut};
use sidetape::frame::{Message, parse_body};
use sidetape::id::{Channel, ConnectionId, RecordingId, Scope};
use sidetape::ledger::Ledger;
use sidetape::manifest::describe;
use sidetape::recording::arrange;
use sidetape::replay::{Anchor, Replay, Rewrite};
use sidetape::spool::block::{self, OpeningCause, append_opening};
use sidetape::spool::scan::{Located, Scanner, Tail};
use sidetape::spool::{BODY_OFFSET, Header, Record, RecordKind, SealCause, VERSION};
use sidetape::time::{Mono, Samples48k, Wall};

const LONGEST: Duration = Duration::from_secs(14_400);
const OPENED: Wall = Wall(1_767_323_045_000_000);
/// How long the blocks of a file are that is written again.
const BLOCK_BYTES: usize = 1000;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let piece = usize::from(choice >> 4) + 1;
    let rules = Rules::for_reading(choice & 4 != 0);
    if choice & 1 == 0 {
        check(rest, piece, rules);
        return;
    }
    let mut file = File::begin(rules, if choice & 8 == 0 { VERSION } else { 1 });
    file.run(rest, choice & 2 != 0);
    let (bytes, call) = file.end();
    if let (Some((replay, once)), Some(call)) = (check(&bytes, piece, rules), call) {
        check_same(&call, &replay.call);
        check_nothing_left(&once, &Channel::BOTH.map(|channel| call.connection.claims().taken_out(channel)));
    }
});

/// A spool file in the making.
struct File {
    bytes: Vec<u8>,
    /// Where the block begins that is not complete.
    block: Option<usize>,
    number: u32,
    version: u16,
    call: Call,
    anchor: Anchor,
    /// Steady time of the last record, and by the wall.
    at: (Mono, Wall),
    sequence: u16,
    /// Whether the file is one that a daemon may have left: then `call` is what it had in mind.
    is_whole: bool,
}

impl File {
    fn begin(rules: Rules, version: u16) -> Self {
        let mut bytes = Vec::new();
        let header = Header::derived(ConnectionId::new("fuzz").expect("a good id"), OPENED, Mono(7), 1);
        let header = Header { version, ..header };
        header.append_to(&mut bytes);
        let mut file = Self {
            bytes,
            block: None,
            number: 0,
            version,
            call: Call::open(Mono(0), Stamp::received(OPENED), rules),
            anchor: Anchor::of(&header),
            at: (Mono(7), OPENED),
            sequence: 0,
            is_whole: true,
        };
        file.open(OpeningCause::Made);
        file.note_state();
        file
    }

    /// One step after the other: what it does, its scope, a delay, how old the gateway says that it is, a length, and a body.
    fn run(&mut self, mut steps: &[u8], is_entered: bool) {
        while let Some(([what, scope, delay, age, length], rest)) = steps.split_first_chunk::<5>() {
            let (body, rest) = rest.split_at(usize::from(*length).min(rest.len()));
            steps = rest;
            let delay = u64::from(*delay) * 1000;
            self.at = (Mono(self.at.0.0 + delay), self.at.1.plus_us(delay as i64));
            // Up to some six seconds ago; an odd one says nothing.
            let gateway = (age & 1 == 0).then(|| self.at.1.plus_us(i64::from(*age) * -25_000));
            let scope = match scope & 3 {
                0 | 1 => Scope::Channel(Channel::Caller),
                2 => Scope::Channel(Channel::Ai),
                _ => Scope::Whole,
            };
            self.step(*what, scope, gateway, body, is_entered);
        }
    }

    fn step(&mut self, what: u8, scope: Scope, gateway: Option<Wall>, body: &[u8], is_entered: bool) {
        let number = body.first().copied().unwrap_or(0);
        match what {
            0..64 => {
                self.sequence += 1;
                let payload_type = [111, 0, 63, 101, 96, 13, 111, 111][usize::from(what % 8)];
                let packet = [&[0x80, payload_type][..], &self.sequence.to_be_bytes(), &[0; 3], &[number, 0, 0, 0, 1], body];
                let scope = if scope == Scope::Whole { Scope::Channel(Channel::Ai) } else { scope };
                self.frame(1, scope, gateway, &packet.concat(), is_entered);
            }
            64..88 => self.frame(6, scope, gateway, [&b""[..], br#"{"mode":"cut"}"#][usize::from(number & 1)], is_entered),
            88..112 => self.frame(7, scope, gateway, b"", is_entered),
            112..120 => self.frame(8, scope, gateway, br#"{"name":"card","digits":"4111"}"#, is_entered),
            120..124 => self.frame(8, scope, gateway, body, is_entered),
            124..128 => {
                let said = [&br#"{"record":false}"#[..], br#"{"record":true}"#][usize::from(number & 1)];
                self.frame(3, Scope::Whole, gateway, said, is_entered);
            }
            128..132 => {
                let said = [&br#"{"payload_types":{"63":"red/48000/2"}}"#[..], br#"{"payload_types":{"111":"PCMU/8000"}}"#];
                self.frame(3, scope, gateway, said[usize::from(number & 1)], is_entered);
            }
            // As it came, whatever it is.
            132..148 => self.frame(1 + what % 10, scope, gateway, body, is_entered),
            148..160 => self.note_state(),
            160..172 => self.damaged_state(what, body),
            172..180 => self.resume(number, what & 1 == 0),
            180..190 => self.end_block(true),
            190..194 => {
                self.end_block(true);
                self.open(OpeningCause::Resumed);
            }
            // From here on it is not what a daemon leaves.
            194..200 => self.other(RecordKind::Withheld, scope, gateway, body),
            200..204 => self.other(RecordKind::State, scope, gateway, body),
            204..208 => self.other(RecordKind::Lost, scope, gateway, body),
            208..212 => self.other(RecordKind::Dropped, scope, gateway, body),
            212..216 => self.other(RecordKind::Resumed, scope, gateway, body),
            216..218 => self.other(RecordKind::Seal, scope, gateway, &[1]),
            218..226 => self.end_block(false),
            226..230 => {
                self.number += u32::from(number);
                self.is_whole = false;
            }
            230..240 => self.tear(usize::from(number)),
            240..250 => self.flip(number),
            _ => {
                self.end_block(true);
                self.bytes.extend_from_slice(body);
                self.is_whole = false;
            }
        }
    }

    /// A frame, or what a daemon keeps of it.
    fn frame(&mut self, kind: u8, scope: Scope, gateway: Option<Wall>, body: &[u8], is_entered: bool) {
        let message = parse_body(kind, body);
        let (Ok(message), true) = (message, is_entered) else {
            self.is_whole = false;
            self.append(RecordKind::Tap(kind), scope, gateway, body);
            return;
        };
        let at = Stamp::of(self.at.1, gateway);
        let Ok((step, kept)) = self.call.enter(Mono(0), at, scope, &message, body) else { return };
        match kept {
            Kept::Whole => self.append(RecordKind::Tap(kind), scope, gateway, body),
            Kept::Body(body) => self.append(RecordKind::Tap(kind), scope, gateway, &body),
            Kept::Withheld(header) => self.append(RecordKind::Withheld, scope, gateway, &header),
            // What is not kept tells nobody by which clock the packets are.
            Kept::Unrecorded => self.is_whole = false,
            Kept::Refused(_) | Kept::Reopen => {}
        }
        if step.is_decision {
            self.note_state();
        }
    }

    fn append(&mut self, kind: RecordKind, scope: Scope, gateway: Option<Wall>, body: &[u8]) {
        if self.version == VERSION && self.block.is_none() {
            self.block = Some(self.bytes.len());
            block::append_room(&mut self.bytes);
        }
        Record { kind, scope, at: self.at.0, gateway, body }.append_to(&mut self.bytes);
    }

    fn other(&mut self, kind: RecordKind, scope: Scope, gateway: Option<Wall>, body: &[u8]) {
        self.is_whole = false;
        self.append(kind, scope, gateway, body);
    }

    fn note_state(&mut self) {
        let state = self.call.to_state();
        self.append(RecordKind::State, Scope::Whole, None, &state);
    }

    /// The state as another version may note it, or as nobody does.
    fn damaged_state(&mut self, what: u8, body: &[u8]) {
        let mut state = self.call.to_state();
        if what < 164 {
            state.splice(1..1, *br#""later":{"a":[null]},"#);
            self.append(RecordKind::State, Scope::Whole, None, &state);
            return;
        }
        for pair in body.chunks_exact(3) {
            let at = usize::from(u16::from_be_bytes([pair[0], pair[1]])) % state.len();
            // Mostly digits, so that it can still be read.
            state[at] = if state[at].is_ascii_digit() { b'0' + pair[2] % 10 } else { state[at] };
            if pair[2] > 250 {
                state[at] = pair[2];
            }
        }
        self.other(RecordKind::State, Scope::Whole, None, &state);
    }

    /// The daemon is started again, and the wall clock may have been set.
    fn resume(&mut self, number: u8, is_set: bool) {
        self.end_block(true);
        self.open(OpeningCause::Resumed);
        let step_us = if is_set { i64::from(number.cast_signed()) * 100_000 } else { 0 };
        self.at = (Mono(u64::from(number)), self.at.1.plus_us(step_us));
        self.anchor = Anchor::new(self.at.0, self.at.1);
        self.append(RecordKind::Resumed, Scope::Whole, None, &self.at.1.0.to_be_bytes());
        self.call.note_restart(self.at.1);
        self.note_state();
    }

    fn open(&mut self, cause: OpeningCause) {
        if self.version == VERSION {
            append_opening(cause, &[1; block::RANDOM_BYTES], &mut self.bytes);
            self.number = 0;
        }
    }

    fn end_block(&mut self, is_right: bool) {
        let Some(begin) = self.block.take() else { return };
        block::complete(&mut self.bytes[begin..], self.number);
        self.number += 1;
        if !is_right {
            // The sum of its records, which the header's own sum is not wrong for.
            let mut other = self.bytes.split_off(begin);
            let length = other.len();
            other[length - 1] ^= 1;
            block::complete(&mut other, self.number - 1);
            other[length - 1] ^= 1;
            self.bytes.append(&mut other);
        }
    }

    fn tear(&mut self, bytes: usize) {
        self.end_block(true);
        self.bytes.truncate(self.bytes.len() - bytes.min(self.bytes.len()));
        self.open(OpeningCause::Resumed);
        self.is_whole = false;
    }

    fn flip(&mut self, bit: u8) {
        self.end_block(true);
        let at = self.bytes.len().saturating_sub(1 + usize::from(bit));
        if let Some(byte) = self.bytes.get_mut(at) {
            *byte ^= 1 << (bit & 7);
        }
        self.is_whole = false;
    }

    /// The file, and what the daemon had in mind when it was killed, where it is one that a daemon leaves.
    fn end(mut self) -> (Vec<u8>, Option<Call>) {
        self.end_block(true);
        (self.bytes, self.is_whole.then_some(self.call))
    }
}

/// A connection that goes on after a kill is what it was: nothing is kept that would not have been.
fn check_same(live: &Call, replayed: &Call) {
    let (live_claims, claims) = (live.connection.claims(), replayed.connection.claims());
    for channel in Channel::BOTH {
        let seen = |standing: [Option<_>; 2]| {
            standing.map(|one: Option<sidetape::connection::pauses::Standing>| one.map(|one| (one.from, one.mode)))
        };
        assert_eq!(seen(claims.standing(channel)), seen(live_claims.standing(channel)), "what stands on {channel:?}");
        assert_eq!(replayed.counts(channel).received, live.counts(channel).received);
    }
    assert_eq!(claims.is_referenced(), live_claims.is_referenced());
    assert_eq!(replayed.metadata, live.metadata);
}

/// Each record of a file and its end, with what `begin` makes of its header; nothing without one.
fn scan<T>(
    bytes: &[u8],
    piece: usize,
    begin: impl FnOnce(Header) -> T,
    mut each: impl FnMut(&mut T, &Located<'_>),
) -> Option<(T, Tail)> {
    let mut scanner = Scanner::default();
    let mut begin = Some(begin);
    let mut made: Option<T> = None;
    for part in bytes.chunks(piece).map(Some).chain([None]) {
        match part {
            Some(part) => scanner.feed(part),
            None => scanner.end(),
        }
        if made.is_none() {
            made = scanner.header().ok()?.and_then(|header| Some(begin.take()?(header)));
        }
        let Some(made) = &mut made else { continue };
        while let Some(located) = scanner.next_record() {
            each(made, &located);
        }
    }
    Some((made?, scanner.tail()))
}

/// The places, kinds and sums of the records of a file, and its end.
fn outline(bytes: &[u8], piece: usize) -> Option<(Vec<(u64, RecordKind, u32)>, Tail)> {
    scan(bytes, piece, |_| Vec::new(), |found, located| {
        let record = &located.record;
        let at = usize::try_from(located.body_offset).expect("a small file");
        assert_eq!(&bytes[at..at + record.body.len()], record.body);
        found.push((located.body_offset, record.kind, sum_of(record.body)));
    })
}

/// Tells bodies from each other.
fn sum_of(bytes: &[u8]) -> u32 {
    bytes.iter().fold(5381, |sum: u32, byte| sum.wrapping_mul(33) ^ u32::from(*byte))
}

/// Reads a file in every way that it is read, and checks what has to hold whatever is in it.
///
/// Returns what it says of its connection, and the file without what is to be taken out.
fn check(bytes: &[u8], piece: usize, rules: Rules) -> Option<(Replay, Vec<u8>)> {
    let (found, tail) = outline(bytes, bytes.len().max(1))?;
    for piece in [piece, 64] {
        assert_eq!(outline(bytes, piece).as_ref(), Some(&(found.clone(), tail)), "in pieces of {piece}");
    }
    check_tail(bytes, &found, &tail);
    let (replay, _) = scan(bytes, 4096, |header| Replay::new(header, rules), Replay::record)?;
    let ledger = ledger(bytes, rules)?;
    let taken_out = replay.taken_out();
    assert!(!ledger.has_paused || taken_out.is_some(), "what nobody takes out keeps the call from being published for ever");
    recording(&ledger, &tail);
    let once = rewrite(bytes, rules, taken_out.unwrap_or_default())?;
    Some((replay, once))
}

/// Where a file ends, and that it can be gone on with there.
fn check_tail(bytes: &[u8], found: &[(u64, RecordKind, u32)], tail: &Tail) {
    let length = bytes.len() as u64;
    assert_eq!(tail.valid_bytes + tail.torn_bytes, length);
    assert!(tail.damaged_bytes <= tail.valid_bytes);
    assert!(tail.torn_bytes == 0 || !found.iter().any(|(_, kind, _)| *kind == RecordKind::Seal));
    let mut whole = bytes[..tail.valid_bytes as usize].to_vec();
    let (again, cut) = outline(&whole, 4096).expect("it has its header");
    assert_eq!((&again[..], cut), (found, Tail { torn_bytes: 0, ..*tail }));
    append_opening(OpeningCause::Resumed, &[2; block::RANDOM_BYTES], &mut whole);
    let begin = whole.len();
    block::append_room(&mut whole);
    Record::append_seal(Mono(1), SealCause::NotResumed, RecordingId::derived(b"c"), &mut whole);
    block::complete(&mut whole[begin..], 0);
    let (more, gone_on) = outline(&whole, 4096).expect("it has its header");
    assert_eq!((&more[..found.len()], more.len()), (found, found.len() + 1));
    assert_eq!(more[found.len()].0, (begin + block::HEADER_BYTES + BODY_OFFSET) as u64);
    assert_eq!((gone_on.damaged_bytes, gone_on.torn_bytes), (tail.damaged_bytes, 0));
}

fn ledger(bytes: &[u8], rules: Rules) -> Option<Ledger> {
    let begin = |header| {
        let mut ledger = Ledger::new(header);
        ledger.masks_digits = rules.masks_digits;
        ledger
    };
    let (mut ledger, _) = scan(bytes, 4096, begin, Ledger::record)?;
    ledger.close(LONGEST);
    Some(ledger)
}

fn recording(ledger: &Ledger, tail: &Tail) {
    let call = arrange(ledger, 0, LONGEST);
    for channel in &call.channels {
        assert!(channel.packets.is_sorted_by_key(|packet| packet.at));
        assert_eq!(channel.packets.len(), channel.sources.len());
    }
    let manifest = describe(ledger, tail, &call, &Default::default(), Samples48k(0));
    assert!(!manifest.outcome.name().is_empty());
}

/// The file written again in blocks, and whether anything is not as it was.
fn write_again(bytes: &[u8], rules: Rules, taken_out: [TakenOut; 2]) -> Option<(Vec<u8>, bool)> {
    let begin = |header: Header| {
        let mut out = Vec::new();
        Header { version: VERSION, ..header.clone() }.append_to(&mut out);
        append_opening(OpeningCause::Rewritten, &[3; block::RANDOM_BYTES], &mut out);
        (Rewrite::new(header, rules, taken_out), out, Vec::new(), 0)
    };
    let (made, _) = scan(bytes, 4096, begin, |(rewrite, out, block, number), located| {
        if block.is_empty() {
            block::append_room(block);
        }
        rewrite.record(located, block);
        if block.len() >= BLOCK_BYTES {
            block::complete(block, *number);
            out.append(block);
            *number += 1;
        }
    })?;
    let (rewrite, mut out, mut block, number) = made;
    block::complete(&mut block, number);
    out.append(&mut block);
    Some((out, rewrite.is_other()))
}

/// Takes out what a pause covers: after that nothing of it is left, and there is nothing more to be done.
fn rewrite(bytes: &[u8], rules: Rules, taken_out: [TakenOut; 2]) -> Option<Vec<u8>> {
    let (once, _) = write_again(bytes, rules, taken_out.clone())?;
    check_nothing_left(&once, &taken_out);
    let count = |bytes: &[u8]| outline(bytes, 4096).map_or(0, |(found, _)| found.len());
    assert!((0..=1).contains(&(count(&once) - count(bytes))), "it is never a record that is left out");
    let ledger = ledger(&once, rules).expect("it has a header");
    assert!(!ledger.has_paused, "the call would never be published");
    let replay = scan(&once, 4096, |header| Replay::new(header, rules), Replay::record);
    let left = replay.and_then(|(replay, _)| replay.taken_out()).unwrap_or_default();
    for taken_out in [taken_out, left] {
        let again = write_again(&once, rules, taken_out);
        let (again, is_other) = again.expect("it has its header");
        assert!(!is_other && once == again, "there is nothing more to be done");
    }
    Some(once)
}

/// Checks that a file has neither a packet nor a mark's fields of these times.
fn check_nothing_left(bytes: &[u8], taken_out: &[TakenOut; 2]) {
    scan(bytes, 4096, |header| Anchor::of(&header), |anchor, located| {
        let record = &located.record;
        if let RecordKind::Resumed = record.kind {
            *anchor = Anchor::of_resumed(record).unwrap_or(*anchor);
        }
        let own = anchor.stamp(record).own();
        let is_out = record.scope.channels().any(|channel| taken_out[channel.index()].has(own));
        assert!(!is_out || record.kind != RecordKind::Tap(1), "a packet of {own:?} is left");
        if let (RecordKind::Tap(8), true) = (record.kind, is_out)
            && let Ok(Message::Mark(fields)) = parse_body(8, record.body)
        {
            assert!(fields.keys().all(|name| name == "name"), "a mark of {own:?} is left");
        }
    });
}
