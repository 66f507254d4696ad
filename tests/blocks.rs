//! What a start makes of spool files of format 2 as a kill or a bad disk left them: torn in a header, an opening, a block or a
//! STATE, damaged in one, without a block, and with what a PAUSE with an earlier time should have taken out.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sidetape::connection::Rules;
use sidetape::connection::call::Call;
use sidetape::connection::pauses::Stamp;
use sidetape::frame::parse_body;
use sidetape::id::{Channel, ConnectionId, RecordingId, Scope};
use sidetape::spool::block::{self, OpeningCause, append_opening};
use sidetape::spool::{Header, Record, RecordKind, SealCause, VERSION};
use sidetape::time::{Mono, Wall};

use rig::daemon::Daemon;
use rig::disk::Disk;
use rig::gateway::{CALLER, Gateway, Socket, WHOLE, frame, kind};
use rig::media::{Sender, marked_packet};
use rig::place::Place;
use rig::recording::sounds_in;
use rig::wait_for;

const PAUSE: u8 = 6;
const RESUME: u8 = 7;

/// A spool file in the making, as a daemon writes one: with what it has in mind of the call.
#[derive(Clone)]
struct File {
    id: String,
    opened: Wall,
    bytes: Vec<u8>,
    /// Where each record of the block begins that was ended last.
    begins: Vec<usize>,
    records: Vec<u8>,
    number: u32,
    version: u16,
    recording: RecordingId,
    call: Call,
    at_us: u64,
    sender: Sender,
    /// What was said, each packet 20 ms.
    said: Vec<Vec<u8>>,
}

impl File {
    /// A call that began a second ago: header, opening, and a first block that is not ended.
    fn begin(id: &str) -> Self {
        Self::of_version(VERSION, id)
    }

    fn of_version(version: u16, id: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(1);
        let opened = Wall(i64::try_from(now.as_micros()).unwrap());
        let call = Call::open(Mono(0), Stamp::received(opened), Rules::for_reading(false));
        let (bytes, begins, records, said) = Default::default();
        let header = Header::derived(ConnectionId::new(id).unwrap(), opened, Mono(0), 1);
        let mut file = Self {
            id: id.to_owned(),
            opened,
            bytes,
            begins,
            records,
            number: 0,
            version,
            recording: header.recording,
            call,
            at_us: 0,
            sender: Sender::new(1),
            said,
        };
        Header { version, ..header }.append_to(&mut file.bytes);
        file.open(OpeningCause::Made);
        file.note_state();
        file
    }

    fn open(&mut self, cause: OpeningCause) {
        if self.version != VERSION {
            return;
        }
        append_opening(cause, &[u8::try_from(self.bytes.len() % 251).unwrap(); 32], &mut self.bytes);
        self.number = 0;
    }

    fn append(&mut self, kind: RecordKind, scope: Scope, gateway: Option<Wall>, body: &[u8]) {
        Record { kind, scope, at: Mono(self.at_us), gateway, body }.append_to(&mut self.records);
    }

    fn note_state(&mut self) {
        if self.version == VERSION {
            let state = self.call.to_state();
            self.append(RecordKind::State, Scope::Whole, None, &state);
        }
    }

    /// A frame as a daemon keeps it; its own time is so long ago.
    fn frame(&mut self, number: u8, scope: Scope, age_us: u64, body: &[u8]) {
        let own = self.opened.plus_us(i64::try_from(self.at_us - age_us).unwrap());
        let at =
            Stamp { received: self.opened.plus_us(i64::try_from(self.at_us).unwrap()), gateway: Some(own) };
        self.call.enter(Mono(0), at, scope, &parse_body(number, body).unwrap(), body).unwrap();
        self.append(RecordKind::Tap(number), scope, Some(own), body);
    }

    /// So many packets of the caller, 20 ms each.
    fn say(&mut self, count: usize) {
        for _ in 0..count {
            self.at_us += 20_000;
            let payload = marked_packet(&format!("{} said {:03}", self.id, self.said.len()));
            let packet = self.sender.packet(&payload, 960);
            self.frame(1, Scope::Channel(Channel::Caller), 0, &packet.rtp);
            self.said.push(payload);
        }
    }

    fn end_block(&mut self) {
        if self.version != VERSION {
            return self.bytes.append(&mut self.records);
        }
        let start = self.bytes.len();
        block::append_room(&mut self.bytes);
        let records = std::mem::take(&mut self.records);
        self.begins.clear();
        let mut at = 0;
        while at < records.len() {
            self.begins.push(start + block::HEADER_BYTES + at);
            let length = u32::from_be_bytes(records[at..at + 4].try_into().unwrap());
            at += 8 + usize::try_from(length).unwrap();
        }
        self.bytes.extend_from_slice(&records);
        block::complete(&mut self.bytes[start..], self.number);
        self.number += 1;
    }

    /// The daemon was killed, and has gone on.
    fn restart(&mut self) {
        self.open(OpeningCause::Resumed);
        let wall = self.opened.plus_us(i64::try_from(self.at_us).unwrap());
        self.append(RecordKind::Resumed, Scope::Whole, None, &wall.0.to_be_bytes());
        self.note_state();
    }

    fn seal(&mut self) {
        Record::append_seal(Mono(self.at_us), SealCause::Released, self.recording, &mut self.records);
        self.end_block();
    }

    /// The same file as far as this, of another connection whose id is as long.
    fn cut(&self, at: usize) -> Vec<u8> {
        self.bytes[..at].to_vec()
    }

    fn path(&self, place: &Place) -> PathBuf {
        let sum = crc32c::crc32c(self.id.as_bytes());
        place.spool().join(format!("20260102T030405.678901Z-{}-{sum:08x}.spool", self.id))
    }

    fn write(&self, place: &Place) {
        fs::create_dir_all(place.spool()).unwrap();
        fs::write(self.path(place), &self.bytes).unwrap();
    }
}

/// A place where nobody waits for a gateway.
fn place() -> Place {
    Place::new().with("AUDIO_RESUME_SECS", "0")
}

/// Starts a daemon, lets it finish all that it finds, and returns what it said.
fn start(place: &Place) -> String {
    let daemon = Daemon::start(place);
    let is_pending = || place.spool_files().iter().any(|name| name.ends_with(".spool"));
    wait_for("the spool to be finished", || (!is_pending()).then_some(()));
    daemon.stop()
}

fn has_reason(manifest: &Value, reason: &str) -> bool {
    manifest["reasons"].as_array().unwrap().contains(&json!(reason))
}

/// Goes on with a call whose caller is paused: what comes is not kept until a RESUME, and then it is. Returns the manifest.
fn goes_on_paused(place: &Place, file: &File, before: &[Vec<u8>]) -> Value {
    let daemon = Daemon::start(place);
    let mut gateway = Gateway::connect(place, &daemon, Socket::UnixStream);
    // The gateway has gone on meanwhile.
    let begun = file.opened.plus_us(i64::try_from(file.at_us).unwrap());
    let passed =
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() - u128::try_from(begun.0).unwrap();
    let mut sender = file.sender.clone();
    sender.skip_time(u32::try_from(passed * 48 / 1000).unwrap());
    let mut play = |gateway: &mut Gateway, what: &str| {
        let payloads: Vec<_> = (0..5).map(|n| marked_packet(&format!("{what} {n}"))).collect();
        for packet in sender.packets(&payloads) {
            gateway.send(&frame(kind::RTP, CALLER, 0, file.id.as_bytes(), &packet.rtp));
        }
        payloads
    };
    play(&mut gateway, "secret");
    gateway.say(kind::RESUME, WHOLE, &file.id);
    let public = play(&mut gateway, "public");
    gateway.end(&file.id);
    let (manifest, recording) = place.recording(&file.id);
    assert!(recording.sounds(0) == sounds_in(&[before, &public].concat()), "{manifest}");
    assert!(!place.holds(b"secret"), "the pause held");
    daemon.stop();
    manifest
}

#[test]
fn killed_in_the_first_bytes_of_a_file_it_has_an_outcome_wherever_that_was() {
    let place = place();
    let make = |id: &str| {
        let mut file = File::begin(id);
        let front = file.bytes.len();
        file.say(3);
        file.end_block();
        (front, file)
    };
    let (front, whole) = make("torn-0000");
    let header = front - block::OPENING_BYTES;
    let cuts: Vec<_> =
        (1..whole.bytes.len()).step_by(7).chain([header - 1, header, front - 1, front]).collect();
    let files: Vec<_> = cuts
        .iter()
        .map(|cut| {
            let (_, mut file) = make(&format!("torn-{cut:04}"));
            file.bytes = file.cut(*cut);
            file.write(&place);
            (*cut, file)
        })
        .collect();
    let log = start(&place);
    for (cut, file) in &files {
        if *cut < header {
            let aside = format!("{}.failed", file.path(&place).display());
            assert!(fs::read(&aside).unwrap() == file.bytes, "{cut}");
            assert!(log.lines().any(|line| line.contains("ERROR") && line.contains(&aside)), "{cut}: {log}");
            continue;
        }
        let manifest = place.manifest(&file.id);
        assert!(!has_reason(&manifest, "spool_damaged"), "{cut}: {manifest}");
        let kept =
            file.begins[1..].iter().skip(1).chain([&whole.bytes.len()]).filter(|end| *end <= cut).count();
        assert_eq!(manifest["outcome"], if kept == 0 { "absent" } else { "recovered" }, "{cut}: {manifest}");
        if kept > 0 {
            assert!(
                place.recording(&file.id).1.sounds(0) == sounds_in(&file.said[..kept]),
                "{cut}: {manifest}"
            );
        }
    }
}

#[test]
fn killed_while_it_notes_that_it_goes_on_the_pause_before_still_holds() {
    let mut file = File::begin("resumed");
    file.say(5);
    file.frame(PAUSE, Scope::Whole, 0, b"");
    file.end_block();
    let whole = file.bytes.len();
    file.restart();
    file.end_block();
    let opening = whole + block::OPENING_BYTES;
    // Nothing of it, in the opening, in the header of the block, in RESUMED, in the STATE, and all of it.
    let cuts = [whole, whole + 3, whole + 20, opening, opening + 9, opening + 40, file.begins[1] + 3];
    for cut in cuts.into_iter().chain([file.begins[1] + 300, file.bytes.len() - 1, file.bytes.len()]) {
        let place = Place::new().with("AUDIO_RESUME_SECS", "30");
        File { bytes: file.cut(cut), ..file.clone() }.write(&place);
        let manifest = goes_on_paused(&place, &file, &file.said);
        assert_eq!(manifest["outcome"], "recovered", "{cut}: {manifest}");
        assert!(!has_reason(&manifest, "spool_damaged"), "{cut}: {manifest}");
    }
}

#[test]
fn a_pause_whose_record_was_damaged_holds_after_the_next_resumption() {
    let mut file = File::begin("healed");
    file.say(5);
    file.end_block();
    file.frame(PAUSE, Scope::Whole, 0, b"");
    file.end_block();
    let pause = file.begins[0];
    // The state that would have told is damaged, too, and the one after it is not.
    for is_first_damaged in [false, true] {
        let place = Place::new().with("AUDIO_RESUME_SECS", "30");
        let mut file = file.clone();
        file.bytes[pause + 20] ^= 1;
        file.restart();
        file.end_block();
        if is_first_damaged {
            let state = file.begins[1] + 100;
            file.bytes[state] ^= 1;
            file.restart();
            file.end_block();
        }
        file.write(&place);
        let manifest = goes_on_paused(&place, &file, &file.said);
        assert!(has_reason(&manifest, "spool_damaged"), "{manifest}");
    }
}

#[test]
fn a_damaged_state_costs_nothing_but_itself() {
    let mut file = File::begin("state");
    file.end_block();
    let state = file.begins[0] + 60;
    file.say(5);
    file.frame(PAUSE, Scope::Whole, 0, b"");
    file.end_block();
    file.restart();
    file.end_block();
    let second = file.begins[1] + 60;
    for at in [state, second] {
        let place = Place::new().with("AUDIO_RESUME_SECS", "30");
        let mut file = file.clone();
        file.bytes[at] ^= 4;
        file.write(&place);
        let manifest = goes_on_paused(&place, &file, &file.said);
        assert!(has_reason(&manifest, "spool_damaged"), "{manifest}");
    }
}

/// A file of two blocks, and where the second one stands.
fn file_with_two_blocks() -> (File, std::ops::Range<usize>) {
    let mut file = File::begin("missing");
    file.say(5);
    file.end_block();
    let from = file.bytes.len();
    file.say(5);
    file.end_block();
    let second = from..file.bytes.len();
    (file, second)
}

#[test]
fn a_block_that_is_missing_is_told_of() {
    let place = place();
    let (mut file, missing) = file_with_two_blocks();
    file.say(5);
    file.seal();
    file.bytes.drain(missing);
    file.write(&place);
    start(&place);
    let (manifest, recording) = place.recording("missing");
    assert_eq!(
        (&manifest["outcome"], has_reason(&manifest, "spool_damaged")),
        (&json!("degraded"), true),
        "{manifest}"
    );
    assert!(recording.sounds(0) == sounds_in(&[&file.said[..5], &file.said[10..]].concat()));
}

#[test]
fn what_a_kill_left_beside_a_file_is_removed_and_the_file_itself_is_finished() {
    let place = place();
    let mut file = File::begin("beside");
    file.say(5);
    file.seal();
    file.write(&place);
    let beside = format!("{}.new", file.path(&place).display());
    fs::write(&beside, &file.bytes[..200]).unwrap();
    let log = start(&place);
    let (manifest, recording) = place.recording("beside");
    assert_eq!(manifest["outcome"], "ok", "{manifest}");
    assert!(recording.sounds(0) == sounds_in(&file.said));
    assert!(place.spool_files().is_empty() && !log.contains("ERROR"), "{log}");
}

/// A call of which the last 100 ms are paused by a PAUSE that came later, and the daemon was killed before it took them out.
fn with_a_late_pause(version: u16, id: &str, is_over: bool) -> File {
    let mut file = File::of_version(version, id);
    file.say(20);
    file.frame(PAUSE, Scope::Whole, 90_000, b"");
    if is_over {
        file.at_us += 10_000;
        file.frame(RESUME, Scope::Whole, 0, b"");
        file.seal();
    } else {
        file.end_block();
    }
    file
}

#[test]
fn what_a_pause_takes_out_of_an_open_file_is_gone_before_the_call_goes_on() {
    let place = Place::new().with("AUDIO_RESUME_SECS", "30");
    let file = with_a_late_pause(VERSION, "late", false);
    file.write(&place);
    assert!(place.holds(b"late said 019"));
    let daemon = Daemon::start(&place);
    wait_for("the start", || daemon.log().contains("spool looked through").then_some(()));
    assert!(
        place.holds(b"late said 014") && !place.holds(b"late said 016") && !place.holds(b"late said 019")
    );
    daemon.stop();
    goes_on_paused(&place, &file, &file.said[..15]);
}

#[test]
fn what_a_pause_takes_out_of_a_sealed_file_is_not_published() {
    let place = place();
    let file = with_a_late_pause(VERSION, "late", true);
    file.write(&place);
    start(&place);
    let (manifest, recording) = place.recording("late");
    assert!(recording.sounds(0) == sounds_in(&file.said[..15]), "{manifest}");
    assert!(!place.holds(b"late said 019"));
}

#[test]
fn what_a_pause_takes_out_is_gone_after_a_start_while_the_store_is_down() {
    let mut place = place();
    let blocked = place.root().join("blocked");
    fs::write(&blocked, b"no directory").unwrap();
    place.set("AUDIO_STORAGE_PATH", blocked.join("recordings").to_str().unwrap());
    let files: Vec<_> = (0..40).map(|n| with_a_late_pause(1, &format!("before-{n:02}"), true)).collect();
    files.iter().for_each(|file| file.write(&place));
    with_a_late_pause(VERSION, "over", true).write(&place);
    with_a_late_pause(VERSION, "open", false).write(&place);
    with_a_late_pause(1, "open-before", false).write(&place);
    let daemon = Daemon::start(&place);
    wait_for("the start", || daemon.log().contains("spool looked through").then_some(()));
    let has = |id: &str, number: u32| place.holds(format!("{id} said {number:03}").as_bytes());
    let ids = files.iter().map(|file| file.id.as_str()).chain(["open", "open-before"]);
    for id in ids {
        assert!(has(id, 14) && !has(id, 16) && !has(id, 19), "{id}");
    }
    // Nobody leaves one of this version, and whoever finishes it sees to it before he asks the store.
    wait_for("the one that was sealed too soon", || (!has("over", 19)).then_some(()));
    assert!(place.manifests().is_empty());
    daemon.kill();
}

#[test]
fn a_call_of_version_1_that_the_disk_has_no_room_for_goes_on_in_another_file_with_its_pause() {
    let place = Place::new().with("AUDIO_RESUME_SECS", "30");
    let Some(disk) = Disk::mount(&place.spool(), 1024) else { return };
    let mut file = File::of_version(1, "full");
    file.say(20);
    file.frame(PAUSE, Scope::Whole, 0, b"");
    file.end_block();
    file.write(&place);
    disk.fill();
    let daemon = Daemon::start(&place);
    let line = "spool file cannot be written again, the call goes on in another";
    wait_for(line, || daemon.log().contains(line).then_some(()));
    disk.empty();
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let mut play = |gateway: &mut Gateway, what: &str| {
        let payloads: Vec<_> = (0..5).map(|n| marked_packet(&format!("{what} {n}"))).collect();
        for packet in file.sender.packets(&payloads) {
            gateway.send(&frame(kind::RTP, CALLER, 0, b"full", &packet.rtp));
        }
        payloads
    };
    play(&mut gateway, "secret");
    gateway.say(kind::RESUME, WHOLE, "full");
    let public = play(&mut gateway, "public");
    gateway.end("full");
    place.nth_manifest("full", 2);
    let mut parts = place.manifests_of("full");
    parts.sort_by_key(|manifest| manifest["started_at"].to_string());
    let sounds = |manifest: &Value| place.recording_of(manifest).sounds(0);
    assert!(sounds(&parts[0]) == sounds_in(&file.said), "{}", parts[0]);
    assert!(sounds(&parts[1]) == sounds_in(&public), "{}", parts[1]);
    assert!(!place.holds(b"secret"));
    daemon.stop();
}

#[test]
fn a_block_that_is_missing_is_still_told_of_when_the_file_was_written_again() {
    let place = place();
    let (mut file, missing) = file_with_two_blocks();
    file.say(20);
    file.frame(PAUSE, Scope::Whole, 90_000, b"");
    file.end_block();
    file.bytes.drain(missing);
    file.write(&place);
    start(&place);
    let (manifest, recording) = place.recording("missing");
    assert!(has_reason(&manifest, "spool_damaged"), "{manifest}");
    assert!(recording.sounds(0) == sounds_in(&[&file.said[..5], &file.said[10..25]].concat()));
}
