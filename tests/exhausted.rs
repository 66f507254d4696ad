//! What runs out: bytes and names of the spool's disk, descriptors, memory. What was taken is in a recording in the end, and the
//! daemon goes on.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use rig::daemon::Daemon;
use rig::disk::{Disk, IoErrors, Memory};
use rig::gateway::{AI, CALLER, Gateway, Socket, WHOLE, kind};
use rig::judges::check_form;
use rig::media::{MUSIC, START_US, Sender, Sent, marked_packet, voice};
use rig::place::Place;
use rig::recording::{Recording, sounds_in};
use rig::wait_for;

/// Calls that share the disk.
const CALLS: usize = 6;

fn id(number: usize) -> String {
    format!("call-{number}")
}

/// Plays packets `from..to` of each call, one of each call at a time.
fn play_all(gateway: &mut Gateway, sent: &[Vec<Sent>], from: usize, to: usize) {
    for at in from..to {
        for (number, sent) in sent.iter().enumerate() {
            gateway.play(&id(number), CALLER, &sent[at..=at]);
        }
    }
    gateway.sync();
}

/// Each call has a voice of its own.
fn voices(packets: usize) -> Vec<Vec<Vec<u8>>> {
    (0..CALLS).map(|number| voice(MUSIC, 110.0 + 20.0 * number as f32, packets)).collect()
}

fn packets_of(voices: &[Vec<Vec<u8>>]) -> Vec<Vec<Sent>> {
    (1u32..).zip(voices).map(|(ssrc, voice)| Sender::new(ssrc).packets(voice)).collect()
}

fn says(daemon: &Daemon, line: &str) {
    wait_for(line, || daemon.log().contains(line).then_some(()));
}

fn count(log: &str, line: &str) -> usize {
    log.lines().filter(|found| found.contains(line)).count()
}

const ELSEWHERE: &str =
    "the spool's disk is full, recordings are made elsewhere and published one after the other";
const UNWRITTEN: &str = "the spool cannot be written, trying again";

/// What is kept of a small disk for the ends of calls, at least.
const RESERVE_BYTES: u64 = 256 << 10;

/// Fills a disk of one page a call with calls, ends them, and sees each of them published although nobody makes room. `is_there`
/// waits for the recording of a call and reads it.
fn is_published_from_a_full_disk(
    place: &Place,
    disk: &Disk,
    fill: impl FnOnce(),
    is_there: impl Fn(&str) -> Recording,
) {
    let (before, _) = disk.free();
    let daemon = Daemon::start(place);
    wait_for("the reserve", || (disk.free().0 + RESERVE_BYTES <= before).then_some(()));
    let mut gateway = Gateway::connect(place, &daemon, Socket::UnixStream);
    let voices = voices(300);
    let sent = packets_of(&voices);
    play_all(&mut gateway, &sent, 0, 150);
    for voice in &voices {
        wait_for("the packets to be in the spool", || place.spool_holds(&voice[149]).then_some(()));
    }
    fill();
    // As much again as is on disk, of which nothing fits in.
    play_all(&mut gateway, &sent, 150, 300);
    for number in 0..CALLS {
        gateway.end(&id(number));
    }
    for (number, voice) in voices.iter().enumerate() {
        assert!(
            is_there(&id(number)).sounds(0) == sounds_in(voice),
            "call {number}: each packet, as it came"
        );
    }
    wait_for("the spool to be empty", || place.spool_files().is_empty().then_some(()));
    assert!(disk.free().0 > 0, "each has freed what it took");
    let log = daemon.log();
    // Each is said once a minute, however many calls there are.
    assert!((1..4).contains(&count(&log, ELSEWHERE)), "{log}");
    assert!((1..4).contains(&count(&log, UNWRITTEN)), "{log}");
    assert_eq!(count(&log, "publishing failed"), 0, "{log}");
    // What comes now is recorded as ever.
    gateway.play("later", AI, &Sender::new(99).packets(&voices[0][..50]));
    gateway.end("later");
    assert!(is_there("later").sounds(1) == sounds_in(&voices[0][..50]));
    daemon.stop();
}

fn local(place: &Place) -> impl Fn(&str) -> Recording {
    |id| {
        let (manifest, recording) = place.recording(id);
        assert_eq!(manifest["outcome"], "ok", "{manifest}");
        recording
    }
}

#[test]
fn calls_that_end_on_a_disk_without_a_byte_are_published_and_each_makes_room() {
    let place = Place::new();
    let Some(disk) = Disk::mount(&place.spool(), 8192) else { return };
    let fill = || {
        disk.fill();
        assert_eq!(disk.free().0, 0);
    };
    is_published_from_a_full_disk(&place, &disk, fill, local(&place));
}

#[test]
fn so_are_calls_without_a_name_left_with_a_file_for_each_channel_too() {
    let place = Place::new().with("AUDIO_KEEP_CHANNELS", "true");
    let Some(disk) = Disk::mount_with(&place.spool(), "size=8192k,nr_inodes=64") else { return };
    let fill = || {
        disk.fill();
        disk.fill_names();
        assert_eq!(disk.free(), (0, 0));
    };
    is_published_from_a_full_disk(&place, &disk, fill, local(&place));
    assert_eq!(place.recordings().len(), 3 * (CALLS + 1));
}

#[test]
fn a_call_whose_spool_file_cannot_be_made_gets_one_when_it_ends() {
    let place = Place::new();
    let Some(disk) = Disk::mount_with(&place.spool(), "size=8192k,nr_inodes=16") else { return };
    let (before, _) = disk.free();
    let daemon = Daemon::start(&place);
    wait_for("the reserve", || (disk.free().0 + RESERVE_BYTES <= before).then_some(()));
    disk.fill_names();
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let payloads = voice(MUSIC, 150.0, 100);
    gateway.play("new", CALLER, &Sender::new(1).packets(&payloads));
    gateway.sync();
    says(&daemon, UNWRITTEN);
    assert!(place.spool_files().is_empty());
    gateway.end("new");
    assert!(local(&place)("new").sounds(0) == sounds_in(&payloads), "each packet, as it came");
    wait_for("the spool to be empty", || place.spool_files().is_empty().then_some(()));
    wait_for("the reserve again", || (disk.free().0 + RESERVE_BYTES <= before).then_some(()));
    daemon.stop();
}

#[cfg(all(feature = "gcs", feature = "s3", feature = "azure"))]
#[test]
fn every_cloud_takes_calls_from_a_disk_without_a_byte_and_a_name() {
    for cloud in rig::cloud::Cloud::all() {
        let place = cloud.place();
        let Some(disk) = Disk::mount_with(&place.spool(), "size=8192k,nr_inodes=64") else { return };
        let fill = || {
            disk.fill();
            disk.fill_names();
        };
        let is_there = |id: &str| {
            let name = |ending: &str| format!("conversation_{id}_merged.{ending}");
            let manifest = cloud.manifest(&name("json"));
            assert_eq!(manifest["outcome"], "ok", "{manifest}");
            let path = place.root().join("fetched.opus");
            std::fs::write(&path, cloud.await_object(&name("opus")).bytes).unwrap();
            let recording = Recording::read(&path);
            recording.check(&path, &manifest);
            recording
        };
        is_published_from_a_full_disk(&place, &disk, fill, is_there);
        assert_eq!(cloud.names().len(), 2 * (CALLS + 1), "{}: recording and manifest of each", cloud.name());
    }
}

#[test]
fn what_is_no_opus_and_what_is_encoded_anew_is_published_from_a_full_disk_too() {
    for format in ["lossless", "compat"] {
        let place = Place::new().with("AUDIO_FORMAT", format);
        let Some(disk) = Disk::mount(&place.spool(), 8192) else { return };
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        let mut sender = Sender { payload_type: 0, ..Sender::new(1) };
        let mut sent = Vec::new();
        for n in 0..500u32 {
            sender.timestamp = n * 160;
            let tone: Vec<u8> =
                (0..160).map(|at: u32| if (at / 10).is_multiple_of(2) { 0x10 } else { 0x90 }).collect();
            sent.push(sender.packet(&tone, 960));
        }
        gateway.play("g711", CALLER, &sent);
        gateway.sync();
        disk.fill();
        gateway.end("g711");
        let manifest = place.manifest("g711");
        check_form(&place.path_of(&manifest));
        assert_eq!(manifest["outcome"], "ok", "{manifest}");
        assert_eq!(manifest["channels"]["caller"]["packets"], 500);
        says(&daemon, ELSEWHERE);
        wait_for("the spool to be empty", || place.spool_files().is_empty().then_some(()));
        daemon.stop();
    }
}

#[test]
fn what_a_pause_takes_out_later_is_not_published_from_a_full_disk() {
    let place = Place::new();
    let Some(disk) = Disk::mount(&place.spool(), 8192) else { return };
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let secret = "4111 1111 1111 1111";
    let payloads: Vec<Vec<u8>> = (0..300)
        .map(|n| {
            marked_packet(&if (100..200).contains(&n) {
                format!("{secret} {n}")
            } else {
                format!("open {n}")
            })
        })
        .collect();
    let sent = Sender::new(1).packets(&payloads);
    gateway.play("card", CALLER, &sent);
    gateway.sync();
    wait_for("the packets to be in the spool", || place.spool_holds(&payloads[299]).then_some(()));
    disk.fill();
    let at = |packet: u64| START_US + packet * 20_000 + 10_000;
    gateway.say_at(kind::PAUSE, WHOLE, at(100), "card");
    gateway.say_at(kind::RESUME, WHOLE, at(200), "card");
    gateway.sync();
    says(&daemon, "what was paused cannot be taken out of the spool, trying again");
    gateway.end("card");
    let (manifest, recording) = place.recording("card");
    assert!(!manifest["paused"].as_array().unwrap().is_empty(), "{manifest}");
    let open = [&payloads[..100], &payloads[200..]].concat();
    assert!(recording.sounds(0) == sounds_in(&open), "all that was not paused is there");
    wait_for("the spool to be empty", || place.spool_files().is_empty().then_some(()));
    assert!(!place.holds(secret.as_bytes()), "and nothing of what was");
    daemon.stop();
}

#[test]
fn a_daemon_that_starts_on_a_full_disk_publishes_what_it_finds() {
    let mut place = Place::new().with("AUDIO_RESUME_SECS", "1");
    let Some(disk) = Disk::mount_with(&place.spool(), "size=8192k,nr_inodes=64") else { return };
    // The store is away, so that ended calls stay.
    let storage = place.storage();
    place.set("AUDIO_STORAGE_PATH", "/dev/null/away");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let voices = voices(150);
    let sent = packets_of(&voices);
    play_all(&mut gateway, &sent, 0, 150);
    for number in 0..CALLS / 2 {
        gateway.end(&id(number));
    }
    for voice in &voices {
        wait_for("the packets to be in the spool", || place.spool_holds(&voice[149]).then_some(()));
    }
    wait_for("the ends of the calls", || {
        (count(&daemon.log(), "publishing failed, trying again") >= CALLS / 2).then_some(())
    });
    daemon.kill();
    disk.fill();
    disk.fill_names();
    place.set("AUDIO_STORAGE_PATH", storage.to_str().unwrap());
    let daemon = Daemon::start(&place);
    for (number, voice) in voices.iter().enumerate() {
        let (_, recording) = place.recording(&id(number));
        assert!(recording.sounds(0) == sounds_in(voice), "call {number}: each packet, as it came");
    }
    wait_for("the spool to be empty", || place.spool_files().is_empty().then_some(()));
    daemon.stop();
}

#[test]
fn a_new_spool_on_a_full_disk_stops_the_start_with_its_name_and_the_cause() {
    let place = Place::new();
    let Some(disk) = Disk::mount_with(&place.spool(), "size=1024k,nr_inodes=16") else { return };
    disk.fill_names();
    let ended = Daemon::start_in_vain(&place);
    assert_eq!(ended.code, Some(1));
    assert!(ended.said.contains(place.spool().to_str().unwrap()), "{}", ended.said);
    assert!(ended.said.contains("No space left on device"), "{}", ended.said);
}

#[test]
fn a_quota_that_is_used_up_is_like_a_full_disk() {
    let mut place = Place::new();
    let Some(errors) = IoErrors::prepare(&mut place) else { return };
    place.set("FAIL_ON", ".spool.opus");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    errors.set("quota");
    let payloads = voice(MUSIC, 150.0, 100);
    gateway.play("c", CALLER, &Sender::new(1).packets(&payloads));
    gateway.end("c");
    let (manifest, recording) = place.recording("c");
    assert_eq!(manifest["outcome"], "ok", "{manifest}");
    assert!(recording.sounds(0) == sounds_in(&payloads), "each packet, as it came");
    let log = daemon.stop();
    assert_eq!((count(&log, ELSEWHERE), count(&log, "publishing failed")), (1, 0), "{log}");
}

#[test]
fn recover_ends_and_publishes_open_calls_on_a_full_disk() {
    let place = Place::new();
    let Some(disk) = Disk::mount(&place.spool(), 8192) else { return };
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    // Up to a few bytes before the end of a page: a disk without a free page has no room for more.
    let (mut sender, mut payloads, mut before, mut length) = (Sender::new(1), Vec::new(), None, 600);
    loop {
        payloads.push(marked_packet(&"x".repeat(length)));
        gateway.play("call", CALLER, &sender.packets(&payloads[payloads.len() - 1..]));
        gateway.sync();
        let spool = wait_for("the spool file", || place.spool_files().pop());
        let bytes = || usize::try_from(std::fs::metadata(place.spool().join(&spool)).unwrap().len()).unwrap();
        let least = before.unwrap_or(0) + length;
        wait_for("the packet to be in the spool", || (bytes() > least).then_some(()));
        let (now, left) = (bytes(), 4096 - bytes() % 4096);
        if left < 16 {
            break;
        }
        let beside = before.map(|before| now - before - length);
        before = Some(now);
        let last = beside.map(|beside| (left + 4096 - beside - 8) % 4096);
        length = last.filter(|last| (100..1200).contains(last)).unwrap_or(600);
    }
    daemon.kill();
    disk.fill();
    let output = place.command("recover").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (_, recording) = place.recording("call");
    assert!(recording.sounds(0) == sounds_in(&payloads), "each packet, as it came");
    assert!(place.spool_files().is_empty());
}

/// Plays many calls at once, kills the daemon, and ends them at the next, each started by `start`.
fn is_whole_over_a_kill(place: &Place, calls: usize, start: impl Fn() -> Daemon) {
    let payloads = voice(MUSIC, 150.0, 40);
    let sent = [1, 2].map(|ssrc| Sender::new(ssrc).packets(&payloads));
    let daemon = start();
    let mut gateway = Gateway::connect(place, &daemon, Socket::UnixStream);
    for (caller, ai) in sent[0].iter().zip(&sent[1]) {
        for number in 0..calls {
            gateway.play(&id(number), CALLER, std::slice::from_ref(caller));
            gateway.play(&id(number), AI, std::slice::from_ref(ai));
        }
    }
    gateway.sync();
    wait_for("the packets to be in the spool", || {
        let files = place.spool_files();
        let is_whole = |name: &String| {
            let bytes = std::fs::read(place.spool().join(name)).unwrap();
            bytes.windows(payloads[39].len()).filter(|window| *window == payloads[39]).count() == 2
        };
        (files.len() == calls && files.iter().all(is_whole)).then_some(())
    });
    daemon.kill();
    let mut daemon = start();
    let mut gateway = Gateway::connect(place, &daemon, Socket::UnixStream);
    for number in 0..calls {
        gateway.end(&id(number));
    }
    wait_for("all to be published", || (place.manifests().len() == calls).then_some(()));
    for manifest in place.manifests() {
        for channel in ["caller", "ai"] {
            assert_eq!(manifest["channels"][channel]["packets"], 40, "{manifest}");
        }
    }
    assert!(daemon.is_running());
    println!("{calls} calls: {} KiB at most", daemon.most_memory_kib());
    daemon.stop();
    assert!(place.spool_files().is_empty(), "{:?}", place.spool_files());
}

#[test]
fn few_descriptors_cost_no_packet_of_many_calls() {
    let place = Place::new();
    is_whole_over_a_kill(&place, 120, || Daemon::start_by(place.command_after("ulimit -n 40", "serve")));
}

#[test]
fn a_storm_of_calls_fits_into_little_memory() {
    let Some(memory) = Memory::limit(256) else { return };
    let place = Place::new();
    let start = || Daemon::start_by(place.command_after(&memory.enter(), "serve"));
    is_whole_over_a_kill(&place, 400, start);
}

/// More than what waits of a call while the disk takes nothing.
const BUFFER_KIB: u64 = 1024;

#[test]
fn a_call_that_is_paused_again_and_again_on_a_full_disk_takes_no_memory_and_its_last_pause_holds() {
    let place = Place::new().with("AUDIO_RESUME_SECS", "30");
    let Some(disk) = Disk::mount(&place.spool(), 8192) else { return };
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.meta("mad", &serde_json::json!({ "x": "y".repeat(60_000) }));
    let payloads: Vec<_> =
        (0..1200).map(|n| marked_packet(&format!("said {n:04} {}", "x".repeat(1000)))).collect();
    let packets = Sender::new(1).packets(&payloads);
    gateway.play("mad", CALLER, &packets[..5]);
    let other = Sender::new(2).packets(&payloads[..100]);
    gateway.play("other", CALLER, &other[..50]);
    gateway.sync();
    wait_for("the packets to be in the spool", || place.spool_holds(&payloads[49]).then_some(()));
    disk.fill();
    gateway.play("mad", CALLER, &packets[5..]);
    gateway.sync();
    says(&daemon, "spool_overflow");
    let before = daemon.memory_kib();
    for _ in 0..1500 {
        gateway.say(kind::PAUSE, WHOLE, "mad");
        gateway.say(kind::RESUME, WHOLE, "mad");
    }
    for wanted in [false, true].repeat(150) {
        gateway.meta("mad", &serde_json::json!({ "record": wanted }));
    }
    gateway.say(kind::PAUSE, WHOLE, "mad");
    gateway.play("other", CALLER, &other[50..]);
    gateway.sync();
    let grown = daemon.memory_kib().saturating_sub(before);
    assert!(grown < 4 * BUFFER_KIB, "{grown} KiB more");

    disk.empty();
    wait_for("what waited to be in the spool", || place.spool_holds(&payloads[99]).then_some(()));
    let has_room = |log: &str| count(log, UNWRITTEN) > 0;
    assert!(has_room(&daemon.log()));
    wait_for("the last of it", || place.spool_holds(b"said 0900").then_some(()));
    // Its state comes with what waited, or in the round after that.
    std::thread::sleep(std::time::Duration::from_millis(300));
    daemon.kill();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let mut sender = Sender::new(1);
    (0..1200).for_each(|_| sender.skip_packet(960));
    let mut play = |gateway: &mut Gateway, what: &str| {
        for packet in sender.packets(&[marked_packet(what)]) {
            gateway.send(&rig::gateway::frame(kind::RTP, CALLER, 0, b"mad", &packet.rtp));
        }
    };
    play(&mut gateway, "secret");
    gateway.say(kind::RESUME, WHOLE, "mad");
    play(&mut gateway, "public");
    for id in ["mad", "other"] {
        gateway.end(id);
    }
    let (manifest, recording) = place.recording("other");
    assert!(recording.sounds(0) == sounds_in(&payloads[..100]), "another call loses nothing: {manifest}");
    let (manifest, _) = place.recording("mad");
    assert!(!manifest["reasons"].to_string().contains("spool_damaged"), "{manifest}");
    assert!(!place.holds(b"secret") && place.holds(b"public"));
    daemon.stop();
}

#[test]
fn what_a_pause_could_not_take_out_before_a_stop_is_over_and_the_next_start_takes_it_out() {
    let mut place = Place::new().with("AUDIO_ON_STOP", "finish").with("AUDIO_SHUTDOWN_SECS", "1");
    let Some(errors) = IoErrors::prepare(&mut place) else { return };
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let payloads: Vec<_> = (0..60).map(|n| marked_packet(&format!("said {n:03}"))).collect();
    gateway.play("c", CALLER, &Sender::new(1).packets(&payloads));
    gateway.sync();
    wait_for("the packets to be in the spool", || place.spool_holds(&payloads[59]).then_some(()));
    errors.set("sync");
    gateway.say_at(kind::PAUSE, WHOLE, START_US + 40 * 20_000 + 10_000, "c");
    gateway.say_at(kind::RESUME, WHOLE, START_US + 50 * 20_000 + 10_000, "c");
    gateway.sync();
    says(&daemon, "what was paused cannot be taken out of the spool, trying again");
    let log = daemon.stop();
    assert!(log.contains("tried again before it is published"), "{log}");
    errors.set("");
    let daemon = Daemon::start(&place);
    let (manifest, recording) = place.recording("c");
    assert_eq!(manifest["reasons"], serde_json::json!(["shutdown"]), "it was over: {manifest}");
    assert!(recording.sounds(0) == sounds_in(&[&payloads[..40], &payloads[50..]].concat()), "{manifest}");
    wait_for("the spool to be empty", || place.spool_files().is_empty().then_some(()));
    assert!(!place.holds(b"said 045"));
    daemon.stop();
}
