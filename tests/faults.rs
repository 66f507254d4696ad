//! Disks that are full, read-only or forbidden, and more than a daemon can take: what is lost, and what is not.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use sidetape::config::RecordingFormat::Lossless;
use sidetape::io::finish::Finisher;
use sidetape::io::render::{Options, RenderError, Rendered, render};
use sidetape::io::store::local::LocalStore;

use rig::daemon::Daemon;
use rig::disk::{Disk, IoErrors};
use rig::gateway::{AI, CALLER, Gateway, Socket, WHOLE, frame, kind};
use rig::http::{ask, http_address};
use rig::media::{MUSIC, SPEECH, Sender, voice};
use rig::place::Place;
use rig::recording::sounds_in;
use rig::spool::options;
use rig::wait_for;

#[test]
fn a_full_spool_disk_costs_open_calls_nothing_and_refuses_new_ones_until_there_is_room() {
    let place = Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0");
    let Some(disk) = Disk::mount(&place.spool(), 4096) else { return };
    let daemon = Daemon::start(&place);
    let http = http_address(&daemon);
    let ready = || ask(TcpStream::connect(&http).unwrap(), "GET", "/readyz");
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let payloads = voice(MUSIC, 150.0, 400);
    let sent = Sender::new(1).packets(&payloads);
    gateway.play("open", CALLER, &sent[..200]);
    gateway.sync();
    disk.fill();
    gateway.play("open", CALLER, &sent[200..390]);
    gateway.sync();
    wait_for("the daemon to notice", || (ready().status == 503).then_some(()));
    assert_eq!(ready().problem()["detail"], "spool_unwritable");
    gateway.play("new", CALLER, &sent[..5]);
    gateway.sync();
    for line in [r#"reason="spool_unwritable""#, "the spool cannot be written, trying again"] {
        wait_for(line, || daemon.log().contains(line).then_some(()));
    }

    disk.empty();
    wait_for("the daemon to notice", || (ready().status == 200).then_some(()));
    gateway.play("open", CALLER, &sent[390..]);
    gateway.end("open");
    gateway.play("newer", AI, &sent);
    gateway.end("newer");
    for (id, channel) in [("open", 0), ("newer", 1)] {
        let (manifest, recording) = place.recording(id);
        assert_eq!(manifest["outcome"], "ok", "{manifest}");
        assert!(recording.sounds(channel) == sounds_in(&payloads), "{id}: each packet, as it came");
    }
    wait_for("the spool to be empty", || place.spool_files().is_empty().then_some(()));
    daemon.stop();
}

#[test]
fn a_disk_that_fails_for_a_while_costs_nothing_of_what_was_received() {
    let mut place = Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0");
    let Some(errors) = IoErrors::prepare(&mut place) else { return };
    let daemon = Daemon::start(&place);
    let http = http_address(&daemon);
    let ready = || ask(TcpStream::connect(&http).unwrap(), "GET", "/readyz").status;
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let payloads = voice(MUSIC, 150.0, 400);
    let sent = Sender::new(1).packets(&payloads);
    let logs = |line: &str| wait_for(line, || daemon.log().contains(line).then_some(()));
    gateway.play("open", CALLER, &sent[..100]);
    gateway.sync();
    errors.set("write");
    gateway.play("open", CALLER, &sent[100..200]);
    gateway.sync();
    logs("the spool cannot be written, trying again");
    wait_for("the daemon to notice", || (ready() == 503).then_some(()));
    errors.set("sync");
    wait_for("the daemon to notice", || (ready() == 200).then_some(()));
    gateway.play("open", CALLER, &sent[200..300]);
    gateway.sync();
    logs("the spool cannot be synced, trying again");
    errors.set("read");
    gateway.play("open", CALLER, &sent[300..]);
    gateway.end("open");
    logs("publishing failed, trying again");
    assert!(place.manifests().is_empty());
    errors.set("");
    let (manifest, recording) = place.recording("open");
    assert_eq!(manifest["outcome"], "ok", "{manifest}");
    assert!(recording.sounds(0) == sounds_in(&payloads), "each packet, as it came");
    wait_for("the spool to be empty", || place.spool_files().is_empty().then_some(()));
    daemon.stop();
}

#[test]
fn a_disk_that_fails_when_all_is_published_makes_no_second_manifest() {
    let mut place = Place::new();
    let Some(errors) = IoErrors::prepare(&mut place) else { return };
    errors.set("names");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.play("once", CALLER, &Sender::new(1).packets(&voice(MUSIC, 150.0, 50)));
    gateway.end("once");
    place.recording("once");
    wait_for("another attempt", || {
        let log = daemon.log();
        ["attempt=2", "the spool is lost"].iter().any(|line| log.contains(line)).then_some(())
    });
    errors.set("");
    let log = daemon.stop();
    assert_eq!(place.manifests().len(), 1, "{:?}", place.manifests());
    assert_eq!(log.matches("recording published").count(), 1, "{log}");
}

/// Sends a backlog of both channels, 16-bit samples at 16 kHz, over a byte stream as fast as that takes it, and waits
/// until all of it is in the spool.
fn send_backlog(place: &Place, seconds: u32) {
    let mut stream = UnixStream::connect(place.stream()).unwrap();
    let mut bytes = Vec::new();
    let mut push = |frame: &[u8]| {
        bytes.extend_from_slice(&u16::try_from(frame.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(frame);
    };
    push(&frame(kind::META, WHOLE, 0, b"backlog", br#"{"payload_types":{"96":"L16/16000"}}"#));
    let mut senders = [1, 2].map(|ssrc| Sender { payload_type: 96, ..Sender::new(ssrc) });
    let sound = [7; 640];
    for n in 0..seconds * 50 {
        for (channel, sender) in [CALLER, AI].into_iter().zip(&mut senders) {
            sender.timestamp = n * 320;
            let sent = sender.packet(&sound, 960);
            push(&frame(kind::RTP, channel, sent.at_us, b"backlog", &sent.rtp));
        }
    }
    stream.write_all(&bytes).unwrap();
    let spool = wait_for("the spool file", || place.spool_files().pop());
    wait_for("all of it", || {
        let length = std::fs::metadata(place.spool().join(&spool)).ok()?.len();
        (length > u64::from(seconds) * 100 * 660).then_some(())
    });
}

#[test]
fn a_backlog_that_comes_at_once_over_a_byte_stream_is_whole() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    // 23 MB, twenty times what may wait for the disk.
    send_backlog(&place, 360);
    let log = daemon.log();
    assert!(!log.contains("spool_overflow"), "{log}");
    daemon.kill();
}

#[test]
fn a_disk_that_is_slower_than_its_sender_makes_a_byte_stream_wait() {
    let mut place = Place::new();
    let Some(errors) = IoErrors::prepare(&mut place) else { return };
    errors.set("slow");
    let daemon = Daemon::start(&place);
    let begun = Instant::now();
    // 6.6 MB, of which a write of 200 ms takes a megabyte at most.
    send_backlog(&place, 100);
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}: the disk was not slow", begun.elapsed());
    let log = daemon.log();
    assert!(!log.contains("spool_overflow"), "{log}");
    daemon.kill();
}

#[test]
fn a_call_that_ends_when_one_full_disk_has_spool_and_storage_is_finished_when_there_is_room() {
    let place = Place::new();
    let Some(disk) = Disk::mount(place.spool().parent().unwrap(), 2048) else { return };
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let payloads = voice(SPEECH, 150.0, 300);
    gateway.play("c", CALLER, &Sender::new(1).packets(&payloads));
    gateway.sync();
    wait_for("the last packet to be in the spool", || place.spool_holds(&payloads[299]).then_some(()));
    disk.fill();
    gateway.end("c");
    // There is room for the end; there is none for the recording.
    wait_for("the daemon to say so", || {
        daemon.log().contains("publishing failed, trying again").then_some(())
    });
    assert!(place.manifests().is_empty());
    disk.empty();
    let (manifest, recording) = place.recording("c");
    assert_eq!(manifest["outcome"], "ok");
    assert!(recording.sounds(0) == sounds_in(&payloads));
}

/// Plays a call into a storage that does not take it, and checks that it stays in the spool until it does.
fn is_published_later(place: &Place, break_it: impl FnOnce(), mend_it: impl FnOnce()) {
    let daemon = Daemon::start(place);
    let mut gateway = Gateway::connect(place, &daemon, Socket::UnixStream);
    let payloads = voice(MUSIC, 150.0, 100);
    break_it();
    gateway.play("kept", CALLER, &Sender::new(1).packets(&payloads));
    gateway.end("kept");
    wait_for("two attempts", || {
        (daemon.log().matches("publishing failed, trying again").count() >= 2).then_some(())
    });
    assert!(place.manifests().is_empty() && place.recordings().is_empty());
    assert!(place.spool_files().iter().any(|name| name.ends_with(".spool")), "the spool stays");
    // Recording goes on meanwhile.
    gateway.play("beside", AI, &Sender::new(2).packets(&payloads[..50]));
    gateway.sync();
    mend_it();
    gateway.end("beside");
    for (id, channel, count) in [("kept", 0, 100), ("beside", 1, 50)] {
        let (manifest, recording) = place.recording(id);
        assert_eq!(manifest["outcome"], "ok", "{manifest}");
        assert!(recording.sounds(channel) == sounds_in(&payloads[..count]));
    }
    wait_for("the spool to be empty", || place.spool_files().is_empty().then_some(()));
    assert_eq!(place.recordings().len(), 2, "nothing else is left in the storage");
    daemon.stop();
}

#[test]
fn what_a_full_storage_does_not_take_is_published_when_there_is_room() {
    let place = Place::new();
    let Some(disk) = Disk::mount(&place.storage(), 512) else { return };
    is_published_later(&place, || disk.fill(), || disk.empty());
}

#[test]
fn what_a_read_only_storage_does_not_take_is_published_when_it_can_be_written() {
    let place = Place::new();
    let Some(disk) = Disk::mount(&place.storage(), 4096) else { return };
    is_published_later(&place, || disk.set_read_only(true), || disk.set_read_only(false));
}

#[test]
fn what_a_forbidden_storage_does_not_take_is_published_when_it_is_allowed() {
    let is_root = rustix::process::geteuid().is_root();
    let place = if is_root { Place::new().for_nobody() } else { Place::new() };
    let storage = place.storage();
    let allow = |mode| std::fs::set_permissions(&storage, std::fs::Permissions::from_mode(mode)).unwrap();
    is_published_later(&place, || allow(0o555), || allow(0o755));
}

#[test]
fn a_spool_file_that_others_remove_before_it_can_be_kept_is_told_once() {
    let place = Place::new();
    // What is no directory takes no file.
    std::fs::remove_dir_all(place.storage()).ok();
    std::fs::write(place.storage(), "").unwrap();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let mut sender = Sender { payload_type: 3, ..Sender::new(1) };
    gateway.play("gsm", CALLER, &sender.packets(&vec![vec![0xd0; 33]; 50]));
    sender = Sender::new(2);
    gateway.play("gsm", AI, &sender.packets(&voice(SPEECH, 150.0, 50)));
    gateway.end("gsm");
    let logs = |line: &str| wait_for(line, || daemon.log().contains(line).then_some(()));
    logs("publishing failed");
    let spool = place.spool_files().into_iter().find(|name| name.ends_with(".spool")).unwrap();
    std::fs::remove_file(place.spool().join(spool)).unwrap();
    std::fs::remove_file(place.storage()).unwrap();
    logs("a spool file that was to be kept is gone");
    let (manifest, _) = place.recording("gsm");
    assert_eq!(manifest["reasons"], json!(["caller_packets_not_decodable"]), "{manifest}");
    assert_eq!(place.manifests().len(), 1);
    daemon.stop();
}

#[test]
fn a_spool_that_cannot_be_written_stops_the_start_with_its_name() {
    let place = Place::new();
    let Some(disk) = Disk::mount(&place.spool(), 1024) else { return };
    disk.set_read_only(true);
    let ended = Daemon::start_in_vain(&place);
    assert_eq!(ended.code, Some(1));
    assert!(ended.said.contains(place.spool().to_str().unwrap()), "{}", ended.said);
    assert!(ended.said.contains("Read-only file system"), "{}", ended.said);
}

#[test]
fn a_bug_in_finishing_one_call_fails_that_call_and_keeps_its_spool() {
    fn buggy(spool: &Path, options: &Options) -> Result<Rendered, RenderError> {
        assert!(!spool.to_str().unwrap().contains("victim"), "a bug that only this call brings to light");
        render(spool, options)
    }
    let place = Place::new();
    let payloads = voice(SPEECH, 150.0, 50);
    std::fs::create_dir_all(place.spool()).unwrap();
    let spools = ["a", "victim", "b"].map(|name| place.spool().join(format!("{name}.spool")));
    for (number, spool) in spools.iter().enumerate() {
        let sent = Sender::new(1).packets(&payloads[number..]);
        rig::spool::write_spool(spool, [&json!({}), &json!({})], [&sent, &[]]);
    }
    let store = LocalStore::new(&place.storage());
    let template = "{id}.opus".to_owned();
    let finisher = Finisher::new(store, template, options(Lossless), Arc::default()).rendering_with(buggy);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (sealed, to_finish) = tokio::sync::mpsc::channel(3);
        for spool in &spools {
            sealed.send(spool.clone()).await.unwrap();
        }
        drop(sealed);
        Arc::new(finisher).run(to_finish, Default::default()).await;
    });
    let mut outcomes: Vec<_> = place.manifests().iter().map(|m| m["outcome"].to_string()).collect();
    outcomes.sort();
    assert_eq!(outcomes, [r#""failed""#, r#""ok""#, r#""ok""#]);
    let failed = place.manifests().into_iter().find(|m| m["outcome"] == "failed").unwrap();
    assert!(failed["reasons"].to_string().contains("rendering panicked"), "{failed}");
    assert!(failed["file"].is_null());
    assert_eq!(place.spool_files(), ["victim.spool.failed"], "kept for a person, and not tried again");
}

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.next().to_be_bytes()[3]).collect()
    }
}

/// A datagram that nobody means well with.
fn hostile(dice: &mut Dice) -> Vec<u8> {
    const TIMES: [u64; 5] = [0, 1, u64::MAX, 253_402_300_799_999_999, 1 << 63];
    let length = dice.below(200);
    let body = dice.bytes(length);
    let id = match dice.below(4) {
        0 => format!("victim {}", dice.below(20)),
        1 => "x".repeat(128),
        _ => format!("{:x}", dice.next()),
    };
    let at_us = TIMES[usize::try_from(dice.below(5)).unwrap()];
    let channel = u8::try_from(dice.below(2)).unwrap();
    let tap = |kind, channel, body: &[u8]| frame(kind, channel, at_us, id.as_bytes(), body);
    match dice.below(8) {
        0 => body,
        1 => {
            let mut rtp = vec![0x80, 111];
            rtp.extend_from_slice(&dice.bytes(10));
            tap(kind::RTP, channel, &[rtp, body].concat())
        }
        2 => {
            let value = "v".repeat(usize::try_from(dice.below(1000)).unwrap());
            let meta = json!({ format!("{:x}", dice.next()): value });
            tap(kind::META, WHOLE, meta.to_string().as_bytes())
        }
        3 => tap(kind::META, WHOLE, "[".repeat(600).as_bytes()),
        4 => tap(kind::HOLD, WHOLE, b""),
        5 => tap(kind::END, WHOLE, &u64::MAX.to_be_bytes()),
        6 => tap(kind::MARK, WHOLE, br#"{"name":"x"}"#),
        _ => match u8::try_from(dice.below(256)).unwrap() {
            // Its answer would be taken for that to the flood's own.
            kind::PING => body,
            other => tap(other, channel, &body),
        },
    }
}

#[test]
fn a_flood_of_hostile_datagrams_stays_within_its_memory_and_touches_no_call() {
    // Ten million are `SIDETAPE_FLOOD=10000000`, best with --release.
    let count = std::env::var("SIDETAPE_FLOOD").map_or(50_000, |text| text.parse().unwrap());
    let mut place = Place::new().with("AUDIO_MAX_CONNECTIONS", "1000").with("AUDIO_RETENTION_SECS", "1");
    // The call has no end, and nobody goes on with it.
    place.set("AUDIO_ON_STOP", "finish");
    place.set("AUDIO_SWEEP_INTERVAL_SECS", "1");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let payloads = voice(SPEECH, 150.0, 2000);
    let sent = Sender::new(1).packets(&payloads);
    gateway.play("call", CALLER, &sent[..1]);
    gateway.sync();
    let mut flood = Gateway::connect(&place, &daemon, Socket::Udp);
    let mut parts = sent[1..].chunks(1 + sent.len() / 100);
    std::thread::scope(|scope| {
        let flood = scope.spawn(move || {
            let mut dice = Dice(0x5eed);
            // It waits for the daemon now and then: what the kernel drops is no test.
            (0..count).for_each(|_| flood.send(&hostile(&mut dice)));
        });
        while !flood.is_finished() {
            if let Some(part) = parts.next() {
                gateway.play("call", CALLER, part);
            } else {
                gateway.say(kind::HOLD, WHOLE, "call");
            }
            gateway.sync();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    parts.for_each(|part| gateway.play("call", CALLER, part));
    gateway.sync();
    let memory_mib = daemon.most_memory_kib() / 1024;
    let log = daemon.stop();
    // What was still to be finished is, by the next one.
    let next = Daemon::start(&place);
    let manifest = place.manifest("call");
    next.kill();
    let received = log.lines().rfind(|line| line.contains("stopped")).unwrap();
    println!("{count} hostile datagrams: {memory_mib} MiB at most; {received}");
    assert!(memory_mib < 512, "{memory_mib} MiB");
    assert!(place.recording_of(&manifest).sounds(0) == sounds_in(&payloads), "each packet, as it came");
}

#[test]
fn a_log_that_cannot_be_written_costs_neither_the_daemon_nor_a_call() {
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let without_reader = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    // Its reader reads nothing, and debug lines fill it.
    let (stuck, stuck_writer) = std::io::pipe().unwrap();
    let outs: [Stdio; 3] = [full(), without_reader(), stuck_writer.into()];
    for (out, how) in outs.into_iter().zip(["a full disk", "no reader", "a reader that reads nothing"]) {
        let place = Place::new().with("AUDIO_LOG", "trace").with("AUDIO_UDP_LISTEN", "");
        let mut child =
            place.command("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(out).spawn().unwrap();
        let stream = wait_for("the socket", || UnixStream::connect(place.stream()).ok());
        let payloads = voice(MUSIC, 150.0, 100);
        let send = |frame: &[u8]| {
            let length = u16::try_from(frame.len()).unwrap().to_be_bytes();
            (&stream).write_all(&[&length, frame].concat()).unwrap();
        };
        for n in 0..40 {
            let id = format!("call {n} {}", "x".repeat(90));
            for packet in Sender::new(1).packets(&payloads) {
                send(&frame(kind::RTP, CALLER, packet.at_us, id.as_bytes(), &packet.rtp));
            }
            send(&frame(kind::END, WHOLE, 0, id.as_bytes(), b""));
        }
        wait_for(how, || (place.manifests().len() == 40).then_some(()));
        assert!(place.manifests().iter().all(|manifest| manifest["outcome"] == "ok"), "{how}");
        assert!(child.try_wait().unwrap().is_none(), "{how}");
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let status = wait_for("its end", || child.try_wait().unwrap());
        assert!(status.success(), "{how}: {status}");
    }
    drop(stuck);
}
