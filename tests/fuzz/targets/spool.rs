//! Spool files: as they come, and made of records with right checksums, on the way to the pieces of a recording.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sidetape::connection::Rules;
use sidetape::connection::call::Call;
use sidetape::connection::pauses::Stamp;
use sidetape::id::{Channel, ConnectionId, Scope};
use sidetape::ledger::Ledger;
use sidetape::manifest::describe;
use sidetape::recording::arrange;
use sidetape::replay::{Anchor, Replay, Rewrite};
use sidetape::spool::block::{self, OpeningCause, append_opening};
use sidetape::spool::scan::{Located, Scanner};
use sidetape::spool::{Header, Record, RecordKind};
use sidetape::time::{Mono, Samples48k, Wall};

const LONGEST: Duration = Duration::from_secs(14_400);

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    if choice & 1 == 0 {
        read(rest, usize::from(choice >> 1) + 1);
    } else {
        read(&build(rest), 4096);
    }
});

const OPENED: Wall = Wall(1_767_323_045_000_000);

/// A spool file of records in blocks: each record a kind, a scope, a delay, whether the gateway gave a time, a length, and a
/// body. Some blocks are torn, some are followed by another opening.
fn build(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut call = Call::open(Mono(0), Stamp::received(OPENED), Rules::for_reading(false));
    let connection = ConnectionId::new("fuzz").expect("a good id");
    Header::derived(connection, Wall(1_767_323_045_000_000), Mono(0), 1).append_to(&mut out);
    append_opening(OpeningCause::Made, &[1; block::RANDOM_BYTES], &mut out);
    let (mut at, mut begin, mut number) = (0u64, out.len(), 0);
    block::append_room(&mut out);
    while let Some(([kind, scope, delay, jitter, length], rest)) = bytes.split_first_chunk::<5>() {
        let (body, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = rest;
        at += u64::from(*delay) * 1000;
        if length & 31 == 7 {
            block::complete(&mut out[begin..], number);
            number += u32::from(delay & 7 != 0);
            if delay & 15 == 3 {
                out.truncate(out.len() - usize::from(*jitter).min(out.len() - begin));
            }
            if delay & 15 < 5 {
                append_opening(OpeningCause::Resumed, &[2; block::RANDOM_BYTES], &mut out);
                number = 0;
            }
            begin = out.len();
            block::append_room(&mut out);
        }
        let noted;
        let (kind, body) = match kind {
            0 => (RecordKind::Withheld, body),
            1..120 => (RecordKind::Tap(1), body),
            120 => (RecordKind::State, body),
            121..125 => {
                noted = call.to_state();
                (RecordKind::State, &noted[..])
            }
            125 => (RecordKind::Lost, body),
            126 => (RecordKind::Resumed, body),
            _ => (RecordKind::Tap(kind & 15), body),
        };
        let scope = match scope & 3 {
            0 | 1 => Scope::Channel(Channel::Caller),
            2 => Scope::Channel(Channel::Ai),
            _ => Scope::Whole,
        };
        let gateway = (jitter & 1 == 1).then_some(Wall(1_767_323_045_000_000 + at as i64 - i64::from(*jitter) * 500));
        if let RecordKind::Tap(kind) = kind
            && let Ok(message) = sidetape::frame::parse_body(kind, body)
        {
            call.replay(Stamp { received: OPENED.plus_us(at as i64), gateway }, scope, &message, body);
        }
        Record { kind, scope, at: Mono(at), gateway, body }.append_to(&mut out);
    }
    block::complete(&mut out[begin..], number);
    out
}

/// Each record of a file, with what `begin` makes of its header; nothing without one.
fn scan<T>(bytes: &[u8], begin: impl FnOnce(Header) -> T, mut each: impl FnMut(&mut T, &Located<'_>)) -> Option<T> {
    let mut scanner = Scanner::default();
    scanner.feed(bytes);
    scanner.end();
    let mut made = scanner.header().ok().flatten().map(begin)?;
    while let Some(located) = scanner.next_record() {
        each(&mut made, &located);
    }
    Some(made)
}

/// Takes out what a pause covers, as long as there is anything: after that nothing of it is left, and nothing changes any more.
fn rewrite(bytes: &[u8]) {
    let rules = Rules::for_reading(false);
    let Some(replay) = scan(bytes, |header| Replay::new(header, rules), Replay::record) else { return };
    let Some(taken_out) = replay.taken_out() else { return };
    let again = |bytes: &[u8]| {
        let mut out = Vec::new();
        let begin = |header: Header| {
            header.append_to(&mut out);
            (Rewrite::new(header, rules, taken_out.clone()), out)
        };
        scan(bytes, begin, |(rewrite, out), located| rewrite.record(located, out))
    };
    let Some((_, once)) = again(bytes) else { return };
    let Some((second, twice)) = again(&once) else { return };
    assert!(!second.is_other() && once == twice);
    scan(&once, |header| Anchor::of(&header), |anchor, located| {
        let record = &located.record;
        if let RecordKind::Resumed = record.kind {
            *anchor = Anchor::of_resumed(record).unwrap_or(*anchor);
        }
        if let (RecordKind::Tap(1), Scope::Channel(channel)) = (record.kind, record.scope) {
            assert!(!taken_out[channel.index()].has(anchor.stamp(record).own()));
        }
    });
}

fn read(bytes: &[u8], piece: usize) {
    rewrite(bytes);
    let mut scanner = Scanner::default();
    let mut ledger = None;
    for part in bytes.chunks(piece).map(Some).chain([None]) {
        match part {
            Some(part) => scanner.feed(part),
            None => scanner.end(),
        }
        if ledger.is_none() {
            match scanner.header() {
                Ok(header) => ledger = header.map(Ledger::new),
                Err(_) => return,
            }
        }
        if let Some(ledger) = &mut ledger {
            while let Some(located) = scanner.next_record() {
                ledger.record(&located);
            }
        }
    }
    let (Some(mut ledger), tail) = (ledger, scanner.tail()) else { return };
    assert!(tail.valid_bytes <= bytes.len() as u64);
    ledger.close(LONGEST);
    let call = arrange(&ledger, 0, LONGEST);
    for channel in &call.channels {
        assert!(channel.packets.is_sorted_by_key(|packet| packet.at));
        assert_eq!(channel.packets.len(), channel.sources.len());
    }
    let manifest = describe(&ledger, &tail, &call, &Default::default(), Samples48k(0));
    assert!(!manifest.outcome.name().is_empty());
}
