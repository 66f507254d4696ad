//! Spool files: as they come, and made of records with right checksums, on the way to the pieces of a recording.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sidetape::id::{Channel, ConnectionId, Scope};
use sidetape::ledger::Ledger;
use sidetape::manifest::describe;
use sidetape::recording::arrange;
use sidetape::spool::scan::Scanner;
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

/// A spool file of records: each a kind, a scope, a delay, whether the gateway gave a time, a length, and a body.
fn build(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let connection = ConnectionId::new("fuzz").expect("a good id");
    Header::derived(connection, Wall(1_767_323_045_000_000), Mono(0), 1).append_to(&mut out);
    let mut at = 0u64;
    while let Some(([kind, scope, delay, jitter, length], rest)) = bytes.split_first_chunk::<5>() {
        let (body, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = rest;
        at += u64::from(*delay) * 1000;
        let kind = match kind {
            0 => RecordKind::Withheld,
            1..128 => RecordKind::Tap(1),
            _ => RecordKind::Tap(kind & 15),
        };
        let scope = match scope & 3 {
            0 | 1 => Scope::Channel(Channel::Caller),
            2 => Scope::Channel(Channel::Ai),
            _ => Scope::Whole,
        };
        let gateway = (jitter & 1 == 1).then_some(Wall(1_767_323_045_000_000 + at as i64 - i64::from(*jitter) * 500));
        Record { kind, scope, at: Mono(at), gateway, body }.append_to(&mut out);
    }
    out
}

fn read(bytes: &[u8], piece: usize) {
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
