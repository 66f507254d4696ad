//! Others take spool files away while calls are open, or after their end: each call has an outcome, and no other call notices.
//! And spool files that a version before has left.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use rig::daemon::Daemon;
use rig::disk::IoErrors;
use rig::gateway::{CALLER, Gateway, Socket, WHOLE, frame, kind};
use rig::media::{MUSIC, START_US, Sender, Sent, marked_packet, voice};
use rig::place::Place;
use rig::recording::sounds_in;
use rig::wait_for;
use sidetape::id::{Channel, ConnectionId, Scope};
use sidetape::spool::{Header, Record, RecordKind, SealCause};
use sidetape::time::{Mono, Wall};

/// A call that is open, with its first packets in the spool, and one beside it.
struct Calls {
    place: Place,
    daemon: Daemon,
    gateway: Gateway,
    payloads: Vec<Vec<u8>>,
    sent: Vec<Sent>,
}

impl Calls {
    fn begin(place: Place) -> Self {
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        let payloads: Vec<_> = (0..60).map(|n| marked_packet(&format!("packet {n:03}"))).collect();
        let sent = Sender::new(1).packets(&payloads);
        for id in ["victim", "other"] {
            gateway.meta(id, &json!({ "labels": { "of": id } }));
            gateway.play(id, CALLER, &sent[..30]);
        }
        gateway.sync();
        let file = || Some((spool_of(&place, "victim")?, spool_of(&place, "other")?));
        wait_for("both files", || {
            let (victim, other) = file()?;
            let has_all = |path: &Path| contains(&fs::read(path).unwrap_or_default(), b"packet 029");
            (has_all(&victim) && has_all(&other)).then_some(())
        });
        Self { place, daemon, gateway, payloads, sent }
    }

    fn victim(&self) -> PathBuf {
        spool_of(&self.place, "victim").unwrap()
    }

    /// Both calls go on for longer than the look at the files takes, and end. Returns the victim's manifest, its sounds, and the log.
    fn go_on(self, line: &str) -> (Value, Vec<rig::recording::Sound>, String, Place) {
        self.go_on_with(&["victim", "other"], line)
    }

    /// The same where nothing more comes of the victim but its end.
    fn go_on_without(self, line: &str) -> (Value, Vec<rig::recording::Sound>, String, Place) {
        self.go_on_with(&["other"], line)
    }

    fn go_on_with(mut self, ids: &[&str], line: &str) -> (Value, Vec<rig::recording::Sound>, String, Place) {
        for packets in self.sent[30..].chunks(5) {
            ids.iter().for_each(|id| self.gateway.play(id, CALLER, packets));
            self.gateway.sync();
            std::thread::sleep(Duration::from_millis(250));
        }
        for id in ["victim", "other"] {
            self.gateway.end(id);
        }
        wait_for(line, || self.daemon.log().contains(line).then_some(()));
        let (other, whole) = self.place.recording("other");
        assert_eq!((&other["outcome"], &other["reasons"]), (&json!("ok"), &json!([])));
        assert!(whole.sounds(0) == sounds_in(&self.payloads));
        let (manifest, recording) = self.place.recording("victim");
        assert_eq!(manifest["labels"]["of"], "victim");
        let sounds = recording.sounds(0);
        (manifest, sounds, self.daemon.stop(), self.place)
    }
}

/// Ways to take a file away.
const WAYS: [fn(&Place, &Path); 4] = [
    |_, file| fs::remove_file(file).unwrap(),
    |place, file| {
        fs::write(place.root().join("letter"), b"Dear Sir or Madam,\n").unwrap();
        fs::rename(place.root().join("letter"), file).unwrap();
    },
    |place, _| fs::rename(place.spool(), place.root().join("moved")).unwrap(),
    |_, file| {
        let file = fs::OpenOptions::new().write(true).open(file).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    },
];

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn spool_of(place: &Place, id: &str) -> Option<PathBuf> {
    let names = place.spool_files();
    let name = names.iter().find(|name| name.contains(&format!("-{id}-")) && name.ends_with(".spool"))?;
    Some(place.spool().join(name))
}

#[test]
fn a_spool_file_that_is_removed_under_a_live_call_is_copied_back() {
    let calls = Calls::begin(Place::new());
    fs::remove_file(calls.victim()).unwrap();
    let all = sounds_in(&calls.payloads);
    let (manifest, sounds, ..) = calls.go_on("it is copied back");
    assert_eq!((&manifest["outcome"], &manifest["reasons"]), (&json!("ok"), &json!([])));
    assert!(sounds == all);
}

#[test]
fn a_spool_file_that_another_takes_the_place_of_is_copied_back_and_the_other_set_aside() {
    let calls = Calls::begin(Place::new());
    let victim = calls.victim();
    fs::write(calls.place.root().join("letter"), b"Dear Sir or Madam,\n").unwrap();
    fs::rename(calls.place.root().join("letter"), &victim).unwrap();
    let all = sounds_in(&calls.payloads);
    let aside = PathBuf::from(format!("{}.failed", victim.display()));
    let (manifest, sounds, _, _place) = calls.go_on("it is copied back");
    assert_eq!(manifest["outcome"], "ok");
    assert!(sounds == all && fs::read(aside).unwrap() == b"Dear Sir or Madam,\n");
}

#[test]
fn a_spool_directory_that_is_moved_away_is_made_again_with_what_was_in_it() {
    let calls = Calls::begin(Place::new());
    fs::rename(calls.place.spool(), calls.place.root().join("moved")).unwrap();
    let all = sounds_in(&calls.payloads);
    let (manifest, sounds, log, _place) = calls.go_on("was removed or replaced, it is made anew");
    assert_eq!(manifest["outcome"], "ok");
    assert!(sounds == all && log.contains("it is copied back"));
}

#[test]
fn a_spool_file_that_is_cut_says_what_is_lost_and_goes_on_with_all_that_was_said_of_the_call() {
    let calls = Calls::begin(Place::new());
    let file = fs::OpenOptions::new().write(true).open(calls.victim()).unwrap();
    // Behind the header, the opening and a part of the state.
    file.set_len(300).unwrap();
    let all = sounds_in(&calls.payloads);
    let (manifest, sounds, log, _place) = calls.go_on("spool file was cut under a live call");
    assert_eq!(manifest["outcome"], "degraded", "{manifest}");
    assert!(manifest["reasons"].as_array().unwrap().contains(&json!("spool_damaged")), "{manifest}");
    assert!(!sounds.is_empty() && all.ends_with(&sounds), "what came afterwards is there");
    assert!(log.contains("ERROR"));
}

#[test]
fn a_spool_file_that_is_cut_in_half_costs_what_was_in_that_half() {
    let calls = Calls::begin(Place::new());
    WAYS[3](&calls.place, &calls.victim());
    let all = sounds_in(&calls.payloads);
    let (manifest, sounds, ..) = calls.go_on("spool file was cut under a live call");
    assert_eq!(manifest["outcome"], "degraded", "{manifest}");
    assert!(manifest["reasons"].as_array().unwrap().contains(&json!("spool_damaged")), "{manifest}");
    assert!(all.starts_with(&sounds[..4]) && all.ends_with(&sounds[sounds.len() - 25..]), "{manifest}");
}

#[test]
fn what_is_done_to_the_file_of_a_call_that_is_silent_is_mended_when_it_ends() {
    for (way, is_cut) in WAYS.into_iter().zip([false, false, false, true]) {
        let calls = Calls::begin(Place::new());
        way(&calls.place, &calls.victim());
        let all = sounds_in(&calls.payloads[..30]);
        let line = if is_cut { "spool file was cut under a live call" } else { "it is copied back" };
        let (manifest, sounds, ..) = calls.go_on_without(line);
        let expected = if is_cut { ("degraded", json!(["spool_damaged"])) } else { ("ok", json!([])) };
        assert_eq!((manifest["outcome"].as_str(), &manifest["reasons"]), (Some(expected.0), &expected.1));
        assert!(
            if is_cut { all.starts_with(&sounds) && sounds.len() > 3 } else { sounds == all },
            "{manifest}"
        );
    }
}

#[test]
fn what_is_done_to_the_file_of_a_silent_call_is_mended_when_the_daemon_stops() {
    for way in WAYS {
        let place = Place::new().with("AUDIO_RESUME_SECS", "30").with("AUDIO_ON_STOP", "resume");
        let calls = Calls::begin(place);
        way(&calls.place, &calls.victim());
        let Calls { place, daemon, payloads, sent, .. } = calls;
        let log = daemon.stop();
        assert!(log.contains("ERROR") && log.contains("under a live call"), "{log}");
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        for id in ["victim", "other"] {
            gateway.play(id, CALLER, &sent[30..]);
            gateway.end(id);
            let (manifest, recording) = place.recording(id);
            assert_eq!(manifest["labels"]["of"], id, "{manifest}");
            let (all, sounds) = (sounds_in(&payloads), recording.sounds(0));
            let is_cut = manifest["reasons"].as_array().unwrap().contains(&json!("spool_damaged"));
            assert!(
                sounds == all || (is_cut && id == "victim" && all.ends_with(&sounds[sounds.len() - 25..]))
            );
        }
        daemon.stop();
    }
}

#[test]
fn a_spool_file_is_mended_once_where_its_directory_cannot_be_synced() {
    let cut_to_nothing: fn(&Place, &Path) =
        |_, file| fs::OpenOptions::new().write(true).open(file).unwrap().set_len(0).unwrap();
    for (way, line) in
        [(WAYS[0], "it is copied back"), (cut_to_nothing, "spool file was cut under a live call")]
    {
        let mut place = Place::new();
        let Some(errors) = IoErrors::prepare(&mut place) else { return };
        let mut calls = Calls::begin(place);
        errors.set("folders");
        way(&calls.place, &calls.victim());
        let says = |line: &str| calls.daemon.log().matches(line).count();
        // It is looked at several times.
        for packets in calls.sent[30..50].chunks(2) {
            ["victim", "other"].iter().for_each(|id| calls.gateway.play(id, CALLER, packets));
            calls.gateway.sync();
            std::thread::sleep(Duration::from_millis(300));
        }
        wait_for("the daemon to say so", || (says("the spool cannot be synced") > 0).then_some(()));
        assert_eq!(says("under a live call"), 1, "{}", calls.daemon.log());
        assert_eq!(calls.place.spool_files().len(), 2, "{line}: {:?}", calls.place.spool_files());
        errors.set("");
        for id in ["victim", "other"] {
            calls.gateway.play(id, CALLER, &calls.sent[50..]);
            calls.gateway.end(id);
        }
        let (all, before) = (sounds_in(&calls.payloads), if line == "it is copied back" { 0 } else { 30 });
        let (manifest, recording) = calls.place.recording("victim");
        assert_eq!(manifest["labels"]["of"], "victim", "{line}: {manifest}");
        assert!(recording.sounds(0) == all[before..], "{line}: {manifest}");
        calls.daemon.stop();
    }
}

#[test]
fn what_was_paused_is_taken_out_for_good_where_the_directory_cannot_be_synced() {
    let mut place = Place::new();
    let Some(errors) = IoErrors::prepare(&mut place) else { return };
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let payloads: Vec<_> = (0..60).map(|n| marked_packet(&format!("said {n:03}"))).collect();
    let sent = Sender::new(1).packets(&payloads);
    gateway.play("c", CALLER, &sent[..50]);
    gateway.sync();
    wait_for("the packets to be in the spool", || place.spool_holds(&payloads[49]).then_some(()));
    errors.set("folders");
    gateway.say_at(kind::PAUSE, WHOLE, START_US + 20 * 20_000 + 10_000, "c");
    gateway.say_at(kind::RESUME, WHOLE, START_US + 30 * 20_000 + 10_000, "c");
    gateway.sync();
    wait_for("what was paused to be gone", || (!place.spool_holds(b"said 025")).then_some(()));
    // Nobody speaks, and the directory is synced again and again all the same.
    let failed = || daemon.log().matches("the spool cannot be synced, trying again").count();
    let before = failed();
    wait_for("two more attempts", || (failed() >= before + 2).then_some(()));
    for packets in sent[50..].chunks(2) {
        gateway.play("c", CALLER, packets);
        gateway.sync();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(place.spool_files().len(), 1, "{:?}", place.spool_files());
        assert!(!place.spool_holds(b"said 025"));
    }
    errors.set("");
    gateway.end("c");
    let (manifest, recording) = place.recording("c");
    assert_eq!(manifest["outcome"], "ok", "{manifest}");
    assert!(recording.sounds(0) == sounds_in(&[&payloads[..20], &payloads[30..]].concat()), "{manifest}");
    wait_for("the spool to be empty", || place.spool_files().is_empty().then_some(()));
    let log = daemon.stop();
    assert_eq!(log.matches("what was paused is taken out of the spool").count(), 1, "{log}");
    assert!(!log.contains("under a live call") && !place.holds(b"said 025"), "{log}");
}

#[test]
fn what_is_done_to_a_file_between_the_end_and_the_rendering_has_an_outcome() {
    for (way, reason) in WAYS.into_iter().zip([
        Some("the spool file was removed by somebody else"),
        Some("file does not begin with the magic STSP"),
        Some("the spool file was removed by somebody else"),
        None,
    ]) {
        let mut place = Place::new();
        let Some(errors) = IoErrors::prepare(&mut place) else { return };
        let mut calls = Calls::begin(place);
        errors.set("sync");
        calls.gateway.end("victim");
        let failed = "publishing failed, trying again";
        wait_for(failed, || calls.daemon.log().contains(failed).then_some(()));
        way(&calls.place, &calls.victim());
        errors.set("");
        let manifest = calls.place.manifest("victim");
        match reason {
            Some(reason) => {
                let reasons = manifest["reasons"].as_array().unwrap();
                assert_eq!(manifest["outcome"], "failed", "{manifest}");
                assert!(reasons.iter().any(|said| said == reason), "{manifest}");
                wait_for(reason, || {
                    calls
                        .daemon
                        .log()
                        .lines()
                        .any(|line| line.contains("ERROR") && line.contains(reason))
                        .then_some(())
                });
            }
            None => {
                assert_eq!(manifest["outcome"], "degraded", "{manifest}");
                assert!(
                    manifest["reasons"].as_array().unwrap().contains(&json!("spool_damaged")),
                    "{manifest}"
                );
                assert!(calls.daemon.log().contains("spool file was cut after the end of its call"));
            }
        }
        calls.gateway.play("other", CALLER, &calls.sent[30..]);
        calls.gateway.end("other");
        let (other, recording) = calls.place.recording("other");
        assert_eq!((&other["outcome"], &other["reasons"]), (&json!("ok"), &json!([])), "{other}");
        assert!(recording.sounds(0) == sounds_in(&calls.payloads));
        calls.daemon.stop();
    }
}

#[test]
fn a_file_that_is_gone_before_it_is_finished_has_an_outcome_and_what_is_published_has_one() {
    let mut place = Place::new();
    // A storage that takes nothing, for now.
    let blocked = place.root().join("blocked");
    fs::write(&blocked, b"no directory").unwrap();
    place.set("AUDIO_STORAGE_PATH", blocked.join("recordings").to_str().unwrap());
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let sent = Sender::new(1).packets(&voice(MUSIC, 150.0, 20));
    for id in ["gone", "kept"] {
        gateway.play(id, CALLER, &sent);
        gateway.end(id);
    }
    wait_for("both to wait", || (daemon.log().matches("publishing failed").count() >= 2).then_some(()));
    daemon.kill();
    fs::remove_file(&blocked).unwrap();
    let spool = spool_of(&place, "gone").unwrap();
    fs::remove_file(spool).unwrap();
    // What was listed when it was there, or rendered by the process before, is no recording without it.
    let daemon = Daemon::start(&place);
    wait_for("the other to be published", || daemon.log().contains("recording published").then_some(()));
    let log = daemon.stop();
    assert!(!log.contains("connection=\"gone\""), "nobody knows of it any more: {log}");
}

#[test]
fn a_second_daemon_after_the_lock_was_removed_is_told_of() {
    let place = Place::new();
    let first = Daemon::start(&place);
    fs::remove_file(place.spool().join("lock")).unwrap();
    let rival = Place::new()
        .with("AUDIO_SPOOL_DIR", place.spool().to_str().unwrap())
        .with("AUDIO_UDP_LISTEN", "127.0.0.1:0");
    // Whoever is quicker has it: then the other is refused, or told.
    let mut command = rival.command("serve");
    let mut child =
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let what = "one of both to be told";
    wait_for(what, || {
        let is_told = first.log().contains("the spool directory is not this process's any more");
        let is_refused = child.try_wait().unwrap().is_some() && first.log().contains("it is made anew");
        (is_told || is_refused).then_some(())
    });
    drop(child.kill());
    child.wait().unwrap();
    drop(first);
}

/// A spool file of version 1 of a call that is open: paused on the caller's channel, held, both channels referenced.
fn of_version_1(id: &str, seal: bool) -> (String, Vec<u8>, Vec<Vec<u8>>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(1);
    let opened = Wall(i64::try_from(now.as_micros()).unwrap());
    let connection = ConnectionId::new(id).unwrap();
    let header = Header { version: 1, ..Header::derived(connection, opened, Mono(7), 1) };
    let (mut bytes, caller) = (Vec::new(), Scope::Channel(Channel::Caller));
    header.append_to(&mut bytes);
    let mut append = |kind, scope, at, body: &[u8]| {
        Record { kind: RecordKind::Tap(kind), scope, at: Mono(at), gateway: None, body }
            .append_to(&mut bytes);
    };
    append(3, Scope::Whole, 7, br#"{"conversation_id":"of before","labels":{"a":"b"}}"#);
    append(4, Scope::Whole, 8, b"");
    let payloads: Vec<_> = (0..20).map(|n| marked_packet(&format!("{id} {n:03}"))).collect();
    for (at, sent) in (10u64..).step_by(20_000).zip(Sender::new(1).packets(&payloads)) {
        append(1, caller, at, &sent.rtp);
    }
    append(6, caller, 500_000, b"");
    if seal {
        Record::append_seal(Mono(600_000), SealCause::Released, header.recording, &mut bytes);
    }
    let sum = crc32c::crc32c(id.as_bytes());
    (format!("20260102T030405.678901Z-{id}-{sum:08x}.spool"), bytes, payloads)
}

#[test]
fn a_call_of_version_1_goes_on_as_version_2_with_its_pause_and_its_hold() {
    let place = Place::new().with("AUDIO_RESUME_SECS", "30");
    fs::create_dir_all(place.spool()).unwrap();
    let (name, bytes, payloads) = of_version_1("open", false);
    let (over, over_bytes, _) = of_version_1("over", true);
    fs::write(place.spool().join(&name), bytes).unwrap();
    fs::write(place.spool().join(over), over_bytes).unwrap();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let mut sender = Sender::new(1);
    (0..20).for_each(|_| sender.skip_packet(960));
    let secret: Vec<_> = (0..10).map(|n| marked_packet(&format!("secret {n:03}"))).collect();
    let mut play = |gateway: &mut Gateway, packets: &[Vec<u8>]| {
        for packet in sender.packets(packets) {
            gateway.send(&frame(kind::RTP, CALLER, 0, b"open", &packet.rtp));
        }
    };
    play(&mut gateway, &secret);
    gateway.say(kind::END, WHOLE, "open");
    gateway.sync();
    wait_for("the file to be of version 2", || {
        fs::read(place.spool().join(&name)).ok().filter(|bytes| bytes[5] == 2 && contains(bytes, b"STBK"))
    });
    assert_eq!(place.manifest("over")["conversation_id"], "of before");
    gateway.say(kind::RESUME, WHOLE, "open");
    let public: Vec<_> = (0..10).map(|n| marked_packet(&format!("public {n:03}"))).collect();
    play(&mut gateway, &public);
    gateway.say(kind::RELEASE, WHOLE, "open");
    gateway.sync();
    let (manifest, recording) = place.recording("open");
    assert_eq!((&manifest["outcome"], &manifest["labels"]), (&json!("recovered"), &json!({ "a": "b" })));
    assert!(recording.sounds(0) == sounds_in(&[payloads, public].concat()), "the pause held");
    assert!(!place.holds(b"secret"));
    daemon.stop();
}

#[test]
fn a_spool_file_that_is_cut_to_nothing_or_in_its_header_keeps_the_calls_name_and_its_pause_over_a_kill() {
    let long = "x".repeat(120);
    let ids = ["+49 30/1234:a@b.example", &long, "plain"];
    for cut in [0, 1, 30, 60] {
        let place = Place::new().with("AUDIO_RESUME_SECS", "30");
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        let mut sender = Sender::new(1);
        let mut play = |gateway: &mut Gateway, id: &str, what: &str| {
            for packet in sender.packets(&[marked_packet(what)]) {
                gateway.send(&frame(kind::RTP, CALLER, 0, id.as_bytes(), &packet.rtp));
            }
        };
        for id in ids {
            gateway.meta(id, &json!({ "tenant": "t" }));
            play(&mut gateway, id, "before");
            gateway.say(kind::PAUSE, WHOLE, id);
        }
        gateway.sync();
        let files = wait_for("the files", || {
            let files: Vec<_> =
                place.spool_files().into_iter().filter(|name| name.ends_with(".spool")).collect();
            let paths: Vec<_> = files.iter().map(|name| place.spool().join(name)).collect();
            let is_whole = |path: &PathBuf| fs::read(path).is_ok_and(|bytes| contains(&bytes, b"before"));
            (paths.len() == ids.len() && paths.iter().all(is_whole)).then_some(paths)
        });
        // Something comes at once, and is written where nothing says whose it is.
        for file in &files {
            fs::OpenOptions::new().write(true).open(file).unwrap().set_len(cut).unwrap();
        }
        ids.iter().for_each(|id| play(&mut gateway, id, "at once"));
        gateway.sync();
        let line = "spool file was cut under a live call";
        wait_for(line, || {
            ids.iter().for_each(|id| play(&mut gateway, id, "meanwhile"));
            gateway.sync();
            std::thread::sleep(Duration::from_millis(50));
            (daemon.log().matches(line).count() == ids.len()).then_some(())
        });
        wait_for("the states", || {
            let has_state = |path: &PathBuf| contains(&fs::read(path).unwrap(), br#""tenant":"t""#);
            files.iter().all(has_state).then_some(())
        });
        daemon.kill();
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        for id in ids {
            play(&mut gateway, id, "secret");
            gateway.say(kind::RESUME, WHOLE, id);
            play(&mut gateway, id, "public");
            gateway.end(id);
        }
        gateway.sync();
        for id in ids {
            let manifest = wait_for(id, || {
                let found = place.manifests();
                found.into_iter().find(|manifest| manifest["connection_id"] == *id)
            });
            assert_eq!(manifest["tenant"], "t", "cut at {cut}: {manifest}");
            assert!(manifest["reasons"].as_array().unwrap().contains(&json!("spool_damaged")), "{manifest}");
        }
        assert_eq!(place.manifests().len(), ids.len());
        assert!(!place.holds(b"secret") && place.holds(b"public"), "cut at {cut}: the pause held");
        daemon.stop();
    }
}

#[test]
fn a_spool_file_that_is_cut_after_the_end_of_the_call_still_ends_in_its_seal() {
    let mut place = Place::new().with("AUDIO_LINGER_MS", "400");
    let blocked = place.root().join("blocked");
    fs::write(&blocked, b"no directory").unwrap();
    place.set("AUDIO_STORAGE_PATH", blocked.join("recordings").to_str().unwrap());
    let mut calls = Calls::begin(place);
    let victim = calls.victim();
    calls.gateway.end("victim");
    calls.gateway.sync();
    WAYS[3](&calls.place, &victim);
    let line = "spool file was cut under a live call";
    wait_for(line, || calls.daemon.log().contains(line).then_some(()));
    wait_for("the end of the call", || calls.daemon.log().contains("publishing failed").then_some(()));
    assert!(sidetape::io::sealed::is_sealed(&victim).unwrap());
    calls.daemon.kill();
}
