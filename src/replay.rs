//! A connection out of its spool file: its state made again from the records, and the file without what is to be taken out.
//!
//! [`Replay`] leads to the state in which the last record left the connection. Where a PAUSE with an earlier time has come,
//! there may be payloads in the file that lie in it; [`Rewrite`] says record by record what stays. What it leaves out is never
//! a record, but a payload or a mark's fields, so the timeline stays whole.

use crate::connection::Rules;
use crate::connection::call::{Call, Kept, State, name_only};
use crate::connection::pauses::{Stamp, TakenOut};
use crate::frame::{Message, parse_body};
use crate::id::{Channel, Scope};
use crate::spool::scan::Located;
use crate::spool::{Header, Record, RecordKind, SealCause};
use crate::time::{Mono, Wall};

/// A pair of readings of the daemon's two clocks: what brings a steady time to the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    mono: Mono,
    wall: Wall,
}

impl Anchor {
    /// Readings of the same moment.
    #[must_use]
    pub fn new(mono: Mono, wall: Wall) -> Self {
        Self { mono, wall }
    }

    /// The pair that a file begins with.
    #[must_use]
    pub fn of(header: &Header) -> Self {
        Self::new(header.opened_mono, header.opened)
    }

    /// The pair that a RESUMED notes, if it is whole.
    #[must_use]
    pub fn of_resumed(record: &Record<'_>) -> Option<Self> {
        let wall = <[u8; 8]>::try_from(record.body).ok()?;
        Some(Self::new(record.at, Wall(i64::from_be_bytes(wall))))
    }

    /// A steady time by the wall.
    #[must_use]
    pub fn wall_of(self, at: Mono) -> Wall {
        let us = i128::from(at.0) - i128::from(self.mono.0);
        self.wall.plus_us(i64::try_from(us).unwrap_or(0))
    }

    /// When what a record tells of happened.
    #[must_use]
    pub fn stamp(self, record: &Record<'_>) -> Stamp {
        Stamp::of(self.wall_of(record.at), record.gateway)
    }
}

/// A connection's state, made again from its records.
#[derive(Clone, Debug)]
pub struct Replay {
    /// What the file says of itself.
    pub header: Header,
    /// The connection as its records left it, not yet told of a restart.
    pub call: Call,
    /// Whether the recording is over.
    pub is_sealed: bool,
    anchor: Anchor,
}

impl Replay {
    /// Begins with the header of a spool file.
    #[must_use]
    pub fn new(header: Header, rules: Rules) -> Self {
        // Before version 2 there was no way to say that a call is not wanted.
        let is_recorded = rules.is_recorded || header.is_of_before();
        let rules = Rules { is_recorded, ..rules };
        let anchor = Anchor::of(&header);
        let call = Call::open(Mono(0), Stamp::received(header.opened), rules);
        Self { header, call, is_sealed: false, anchor }
    }

    /// Takes the next record.
    pub fn record(&mut self, located: &Located<'_>) {
        let record = &located.record;
        let at = self.anchor.stamp(record);
        match record.kind {
            RecordKind::Tap(kind) => {
                if let Ok(message) = parse_body(kind, record.body) {
                    self.call.replay(at, record.scope, &message, record.body);
                }
            }
            RecordKind::Withheld => self.call.replay_withheld(at, record.scope, record.body),
            RecordKind::State => {
                if let Ok(state) = serde_json::from_slice::<State>(record.body) {
                    self.call.replay_state(state);
                }
            }
            RecordKind::Resumed => self.anchor = Anchor::of_resumed(record).unwrap_or(self.anchor),
            RecordKind::Seal => self.is_sealed = true,
            RecordKind::Dropped | RecordKind::Lost => {}
        }
    }

    /// The times of which the file may still hold something that is to be taken out, of caller and AI. `None` if there are none.
    #[must_use]
    pub fn taken_out(&self) -> Option<[TakenOut; 2]> {
        let taken_out = Channel::BOTH.map(|channel| self.call.connection.claims().taken_out(channel));
        taken_out.iter().any(|times| !times.is_empty()).then_some(taken_out)
    }
}

/// What stays of a spool file, record by record.
#[derive(Debug)]
pub struct Rewrite {
    taken_out: [TakenOut; 2],
    /// Which of them packets of caller and AI have come behind: when it ended.
    ended: [Option<Wall>; 2],
    replay: Replay,
    is_begun: bool,
    is_other: bool,
}

impl Rewrite {
    /// Begins with the header of a file, and the times of which nothing stays.
    #[must_use]
    pub fn new(header: Header, rules: Rules, taken_out: [TakenOut; 2]) -> Self {
        let is_other = header.is_of_before();
        let replay = Replay::new(header, rules);
        Self { taken_out, ended: [None; 2], replay, is_begun: false, is_other }
    }

    /// Whether anything is not as it was.
    #[must_use]
    pub fn is_other(&self) -> bool {
        self.is_other
    }

    /// Appends what stays of the next record to `out`.
    pub fn record(&mut self, located: &Located<'_>, out: &mut Vec<u8>) {
        let record = &located.record;
        if !std::mem::replace(&mut self.is_begun, true) && record.kind != RecordKind::State {
            let state = self.replay.call.to_state();
            Record::state(record.at, &state).append_to(out);
        }
        let at = self.replay.anchor.stamp(record);
        let kept = match record.kind {
            RecordKind::Tap(1) => {
                let is_out = self.is_packet_out(at, record.scope);
                self.replay.call.redact_again(at, record.scope, record.body, is_out)
            }
            RecordKind::Withheld => {
                // It may be the first behind a time that was taken out before, which pays for that: no other is to pay again.
                if self.is_packet_out(at, record.scope) {
                    self.replay.call.redact_again(at, record.scope, record.body, true);
                }
                Kept::Whole
            }
            RecordKind::Tap(8) if self.is_mark_out(at, record.scope) => match parse_body(8, record.body) {
                Ok(message @ Message::Mark(_)) => Kept::Body(name_only(&message)),
                _ => Kept::Whole,
            },
            _ => Kept::Whole,
        };
        let header;
        let (kind, body) = match &kept {
            Kept::Withheld(withheld) => {
                header = *withheld;
                (RecordKind::Withheld, &header[..])
            }
            Kept::Body(body) => (record.kind, &body[..]),
            Kept::Whole | Kept::Unrecorded | Kept::Refused(_) | Kept::Reopen => (record.kind, record.body),
        };
        let stays = Record { kind, body, ..*record };
        self.is_other |= stays != *record;
        // One of version 1 does not say whose it is.
        let seal = SealCause::from_body(body).filter(|_| kind == RecordKind::Seal);
        let seal = seal.map(|cause| cause.to_body(self.replay.header.recording));
        let stays = Record { body: seal.as_ref().map_or(stays.body, |body| &body[..]), ..stays };
        stays.append_to(out);
        // What payload types mean, and what is withheld: as the records that stay say.
        self.replay.record(&Located { record: stays, body_offset: located.body_offset });
    }

    /// Whether a packet is of a time that is taken out. If it is the first behind one, that is noted.
    fn is_packet_out(&mut self, at: Stamp, scope: Scope) -> bool {
        let mut is_out = false;
        for channel in scope.channels() {
            let taken_out = &self.taken_out[channel.index()];
            is_out |= taken_out.has(at.own());
            let ended = taken_out.ended_before(at.own());
            let known = &mut self.ended[channel.index()];
            if let Some(last) = ended.filter(|ended| known.is_none_or(|known| known < *ended)) {
                self.replay.call.end_taken_out(channel, last);
                *known = ended;
            }
        }
        is_out
    }

    fn is_mark_out(&self, at: Stamp, scope: Scope) -> bool {
        let claims = self.replay.call.connection.claims();
        scope
            .channels()
            .any(|channel| self.taken_out[channel.index()].has(claims.by_packets(channel, at).own()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConnectionId;
    use crate::spool::scan::Scanner;
    use std::time::Duration;

    const OPENED: Wall = Wall(1_000_000_000_000);

    fn rules() -> Rules {
        let second = Duration::from_secs(1);
        Rules {
            linger: second,
            retention: second * 1800,
            resume: second * 15,
            max_duration: second * 14_400,
            is_recorded: true,
            masks_digits: false,
        }
    }

    fn header() -> Header {
        Header::derived(ConnectionId::new("c").unwrap(), OPENED, Mono(0), 1)
    }

    /// One packet each 100 ms from 0 to 2 s, each with its number as payload, and commands where they belong.
    fn file(commands: &[(u64, u8, Option<i64>)]) -> Vec<u8> {
        let mut out = Vec::new();
        header().append_to(&mut out);
        for tenth in 0..20u8 {
            let at = Mono(u64::from(tenth) * 100_000);
            let gateway = Some(OPENED.plus_us(i64::from(tenth) * 100_000));
            let rtp = [0x80, 0, 0, tenth, 0, 0, 0, tenth, 0, 0, 0, 1, tenth];
            let scope = Scope::Channel(Channel::Caller);
            Record { kind: RecordKind::Tap(1), scope, at, gateway, body: &rtp }.append_to(&mut out);
            for (_, kind, time) in commands.iter().filter(|(after, ..)| *after == u64::from(tenth)) {
                let gateway = time.map(|tenth| OPENED.plus_us(tenth * 100_000));
                let body: &[u8] = if *kind == 8 { br#"{"name":"card","digits":"4111"}"# } else { b"" };
                let kind = RecordKind::Tap(*kind);
                Record { kind, scope: Scope::Whole, at, gateway, body }.append_to(&mut out);
            }
        }
        Record::append_seal(Mono(3_000_000), SealCause::Released, header().recording, &mut out);
        out
    }

    fn scan(bytes: &[u8], mut each: impl FnMut(&Located<'_>)) {
        let mut scanner = Scanner::default();
        scanner.feed(bytes);
        scanner.end();
        scanner.header().unwrap();
        while let Some(located) = scanner.next_record() {
            each(&located);
        }
    }

    fn replay(bytes: &[u8]) -> Replay {
        let mut replay = Replay::new(header(), rules());
        scan(bytes, |located| replay.record(located));
        replay
    }

    /// The file written again.
    fn rewrite(bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        header().append_to(&mut out);
        let taken_out = replay(bytes).taken_out().unwrap_or_default();
        let mut rewrite = Rewrite::new(header(), rules(), taken_out);
        scan(bytes, |located| rewrite.record(located, &mut out));
        (out, rewrite.is_other())
    }

    /// The numbers of the packets whose payload is in a file.
    fn payloads(bytes: &[u8]) -> Vec<u8> {
        let mut found = Vec::new();
        scan(bytes, |located| {
            if located.record.kind == RecordKind::Tap(1) {
                found.push(located.record.body[12]);
            }
        });
        found
    }

    const PAUSE: u8 = 6;
    const RESUME: u8 = 7;

    #[test]
    fn what_a_pause_with_an_earlier_time_covers_is_taken_out() {
        let bytes = file(&[(19, PAUSE, Some(5)), (19, RESUME, Some(9))]);
        let (rewritten, is_other) = rewrite(&bytes);
        assert!(is_other);
        assert_eq!(payloads(&rewritten), [0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
        let replayed = replay(&rewritten);
        assert!(replayed.is_sealed);
        assert_eq!(replayed.call.counts(Channel::Caller).received, 20, "each packet is still counted");
        let (again, is_other) = rewrite(&rewritten);
        assert!(!is_other && again == rewritten, "there is nothing more to take out");
    }

    /// Packets as [`file`] has them, of Opus with in-band FEC: each says again what the one before it said.
    fn file_with_fec(commands: &[(u8, i64)]) -> Vec<u8> {
        let mut out = Vec::new();
        header().append_to(&mut out);
        let mut put = |kind, at: u64, tenth: i64, body: &[u8]| {
            let (at, gateway) = (Mono(at * 100_000), Some(OPENED.plus_us(tenth * 100_000)));
            let scope = Scope::Channel(Channel::Caller);
            Record { kind: RecordKind::Tap(kind), scope, at, gateway, body }.append_to(&mut out);
        };
        for tenth in 0..20u8 {
            let [high, low] = (u16::from(tenth) * 960).to_be_bytes();
            let silk = [9 << 3, 0xc0, tenth];
            let head = [0x80, 111, 0, tenth, 0, 0, high, low, 0, 0, 0, 1];
            put(1, tenth.into(), tenth.into(), &[&head[..], &silk].concat());
        }
        commands.iter().for_each(|(kind, tenth)| put(*kind, 20, *tenth, b""));
        out
    }

    #[test]
    fn only_the_first_packet_behind_a_pause_pays_for_it_however_often_the_file_is_written_again() {
        let last_bytes = |bytes: &[u8]| {
            let mut found = Vec::new();
            scan(bytes, |located| {
                if located.record.kind == RecordKind::Tap(1) {
                    found.push(located.record.body[14]);
                }
            });
            found
        };
        let (once, _) = rewrite(&file_with_fec(&[(PAUSE, 5), (RESUME, 9)]));
        assert_eq!(last_bytes(&once), [0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
        assert!(replay(&once).taken_out().is_some(), "what a restart takes for a reason to write it again");
        let (again, is_other) = rewrite(&once);
        assert_eq!(last_bytes(&again), last_bytes(&once));
        assert!(!is_other && again == once);
        // Another pause has it written again.
        let (two, _) = rewrite(&file_with_fec(&[(PAUSE, 5), (RESUME, 9), (PAUSE, 14), (RESUME, 16)]));
        assert_eq!(last_bytes(&two), [0, 1, 2, 3, 4, 10, 11, 12, 13, 17, 18, 19]);
        let (again, is_other) = rewrite(&two);
        assert!(!is_other && again == two);
    }

    #[test]
    fn a_pause_that_stands_takes_out_all_from_its_time_on() {
        let (rewritten, _) = rewrite(&file(&[(19, PAUSE, Some(17))]));
        assert_eq!(payloads(&rewritten).last(), Some(&16));
        assert!(replay(&rewritten).call.connection.claims().pause(Channel::Caller).is_some());
    }

    #[test]
    fn a_marks_fields_are_taken_out_and_its_name_stays() {
        let holds = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|found| found == text);
        let bytes = file(&[(6, 8, Some(6)), (12, 8, Some(12)), (19, PAUSE, Some(5)), (19, RESUME, Some(9))]);
        let (rewritten, _) = rewrite(&bytes);
        let count = |bytes: &[u8]| bytes.windows(4).filter(|found| *found == b"4111").count();
        assert_eq!((count(&bytes), count(&rewritten)), (2, 1));
        assert!(holds(&rewritten, br#"{"name":"card"}"#));
    }

    #[test]
    fn a_mark_without_a_time_is_in_a_pause_by_the_clock_of_the_packets() {
        // The gateway is half a second ahead of the daemon, or behind.
        for ahead in [5i64, -5] {
            let mut bytes = Vec::new();
            header().append_to(&mut bytes);
            let at = |tenth: i64| Mono(u64::try_from(tenth * 100_000).unwrap());
            let stamp = |tenth: i64| Some(OPENED.plus_us((tenth + ahead) * 100_000));
            let mut put = |kind, channel, at, gateway, body: &[u8]| {
                let scope = if channel { Scope::Channel(Channel::Caller) } else { Scope::Whole };
                Record { kind: RecordKind::Tap(kind), scope, at, gateway, body }.append_to(&mut bytes);
            };
            for tenth in 10..30 {
                let number = u8::try_from(tenth).unwrap();
                let rtp = [0x80, 0, 0, number, 0, 0, 0, number, 0, 0, 0, 1, number];
                put(1, true, at(tenth), stamp(tenth), &rtp);
                if tenth == 20 {
                    put(8, false, at(tenth), None, br#"{"name":"card","digits":"4111"}"#);
                }
            }
            put(PAUSE, false, at(30), stamp(19), b"");
            put(RESUME, false, at(30), stamp(22), b"");
            let (rewritten, _) = rewrite(&bytes);
            assert!(!rewritten.windows(4).any(|found| found == b"4111"), "{ahead}");
        }
    }

    #[test]
    fn a_state_that_cannot_be_read_costs_nothing_but_itself_and_one_of_a_later_version_is_read() {
        let paused = file(&[(5, PAUSE, Some(6))]);
        let state = replay(&paused).call.to_state();
        let noted = |state: &[u8]| {
            let mut bytes = file(&[]);
            Record::state(Mono(2_500_000), state).append_to(&mut bytes);
            replay(&bytes).call
        };
        assert!(noted(&state).connection.claims().pause(Channel::Caller).is_some());
        // Each object of it has a field more.
        let mut later: serde_json::Value = serde_json::from_slice(&state).unwrap();
        add_to_each_object(&mut later);
        let later = serde_json::to_vec(&later).unwrap();
        assert!(later.len() > state.len() + 100);
        assert_eq!(noted(&later).to_state(), noted(&state).to_state());
        let unread = [&b""[..], b"{}", b"null", b"\xff", &state[..state.len() - 1]];
        for unread in unread {
            let mut bytes = paused.clone();
            Record::state(Mono(2_500_000), unread).append_to(&mut bytes);
            let replayed = replay(&bytes);
            assert!(replayed.call.to_state() == state && replayed.is_sealed);
        }
    }

    fn add_to_each_object(json: &mut serde_json::Value) {
        // What a sender has said is its own, and maps of payload types and of reasons are no objects with names of ours.
        const FREE: [&str; 5] = ["labels", "meta", "consent", "payload_types", "refused"];
        match json {
            serde_json::Value::Object(fields) => {
                let known = fields.iter_mut().filter(|(name, _)| !FREE.contains(&name.as_str()));
                known.for_each(|(_, field)| add_to_each_object(field));
                fields.insert("later".to_owned(), serde_json::json!({ "a": [1, null] }));
            }
            serde_json::Value::Array(fields) => fields.iter_mut().for_each(add_to_each_object),
            _ => {}
        }
    }

    #[test]
    fn a_file_without_such_a_pause_is_as_it_was() {
        let bytes = file(&[(5, PAUSE, Some(6)), (9, RESUME, Some(10))]);
        assert_eq!(replay(&bytes).taken_out(), None);
    }
}
