//! The daemon as a service: told to stop, told twice, drained, watched by its manager, and with a wall clock that is set.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use rig::daemon::{Daemon, dropped};
use rig::gateway::{AI, CALLER, Gateway, SOCKETS, Socket, WHOLE, kind};
use rig::http::{Answer, ask, ask_with, http_address, post};
use rig::media::{SPEECH, Sender, Sent, voice};
use rig::place::Place;
use rig::recording::sounds_in;
use rig::wait_for;

#[test]
fn the_service_manager_is_told_of_readiness_of_life_and_of_stopping() {
    let mut place = Place::new();
    let path = place.root().join("run/notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(rig::PATIENCE)).unwrap();
    place.set("NOTIFY_SOCKET", path.to_str().unwrap());
    place.set("WATCHDOG_USEC", "300000");
    let hear = || {
        let mut text = [0; 256];
        let length = manager.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap().trim().to_owned()
    };
    let daemon = Daemon::start(&place);
    assert_eq!(hear(), "READY=1");
    // It is ready when it says so, and not before.
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.sync();
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    assert!(begun.elapsed() > Duration::from_millis(500), "a third of the time allowed lies between two");
    // A drain takes as long as the calls do: whoever is told of stopping allows only so much time for that.
    gateway.meta("call", &json!({}));
    gateway.sync();
    daemon.ask_to_drain();
    let next = (0..100).map(|_| hear()).find(|text| text != "WATCHDOG=1");
    assert_eq!(next.as_deref(), Some("STATUS=Draining, open calls: 1"));
    assert_eq!(hear(), "WATCHDOG=1");
    daemon.ask_to_stop();
    let last = (0..100).map(|_| hear()).find(|text| text != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert_eq!(daemon.ended().code, Some(0));
}

/// Calls of both channels, many at once, that do not end.
fn open_calls(gateway: &mut Gateway, payloads: &[Vec<u8>], count: u32) {
    for call in 0..count {
        let id = format!("call {call}");
        gateway.play_both(
            &id,
            &Sender::new(call).packets(payloads),
            &Sender::new(call + 1).packets(payloads),
        );
    }
}

fn check_all(place: &Place, payloads: &[Vec<u8>], count: u32) {
    for call in 0..count {
        let (manifest, recording) = place.recording(&format!("call {call}"));
        assert!(recording.sounds(0) == sounds_in(payloads), "{manifest}");
        assert!(recording.sounds(1) == sounds_in(payloads), "{manifest}");
    }
    assert_eq!(place.manifests().len(), usize::try_from(count).unwrap(), "each once");
}

#[test]
fn what_the_grace_is_too_short_for_is_published_by_the_next_start() {
    let mut place = Place::new().with("AUDIO_SHUTDOWN_SECS", "0").with("AUDIO_ON_STOP", "finish");
    let payloads = voice(SPEECH, 150.0, 200);
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    open_calls(&mut gateway, &payloads, 40);
    gateway.sync();
    let asked = Instant::now();
    let log = daemon.stop();
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let published = place.manifests().len();
    assert!(published < 40, "the test is of no use if all were published: {log}");
    place.set("AUDIO_SHUTDOWN_SECS", "30");
    let _daemon = Daemon::start(&place);
    check_all(&place, &payloads, 40);
}

#[test]
fn asked_to_finish_under_load_it_publishes_what_it_had_read() {
    let place = Place::new().with("AUDIO_ON_STOP", "finish");
    let payloads = voice(SPEECH, 150.0, 100);
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    open_calls(&mut gateway, &payloads, 20);
    gateway.sync();
    std::thread::scope(|scope| {
        let udp = daemon.udp();
        scope.spawn(move || {
            // Goes on into the stop, and beyond.
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut sender = Sender::new(99);
            for _ in 0..20_000 {
                let sent = sender.packet(&[0x78, 1, 2], 960);
                let frame = rig::gateway::frame(kind::RTP, AI, sent.at_us, b"load", &sent.rtp);
                if socket.send_to(&frame, udp).is_err() {
                    break;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        daemon.stop();
    });
    let load = place.manifests_of("load").len();
    assert!(load <= 1);
    for call in 0..20 {
        let (_, recording) = place.recording(&format!("call {call}"));
        assert!(recording.sounds(0) == sounds_in(&payloads));
    }
    assert_eq!(place.manifests().len(), 20 + load);
    assert!(!place.spool_holds(b"STSP"), "the spool has nothing left");
}

#[test]
fn a_second_signal_ends_it_at_once_and_the_rest_stays_in_the_spool() {
    let place = Place::new().with("AUDIO_ON_STOP", "finish");
    let payloads = voice(SPEECH, 150.0, 50);
    // A file where the folder of recordings should be: nothing can be published.
    std::fs::remove_dir(place.storage()).unwrap();
    std::fs::write(place.storage(), b"").unwrap();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    open_calls(&mut gateway, &payloads, 3);
    gateway.sync();
    daemon.ask_to_stop();
    wait_for("an attempt", || daemon.log().contains("publishing failed").then_some(()));
    let asked = Instant::now();
    daemon.ask_to_stop();
    let ended = daemon.ended();
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(ended.code, Some(1));
    assert!(ended.said.contains("second signal"), "{}", ended.said);
    std::fs::remove_file(place.storage()).unwrap();
    std::fs::create_dir(place.storage()).unwrap();
    let _daemon = Daemon::start(&place);
    check_all(&place, &payloads, 3);
}

/// A call that says all of what names it.
fn begin(gateway: &mut Gateway, id: &str, sent: &[Sent]) {
    let said = json!({ "conversation_id": format!("{id} talks"), "tenant": "acme", "labels": { "a": id } });
    gateway.meta(id, &said);
    gateway.play(id, CALLER, sent);
    gateway.sync();
}

/// Checks that a call has one recording with all that was said in it, under the names that it was given.
fn check_one(place: &Place, id: &str, payloads: &[Vec<u8>], outcome: &str, reasons: &[&str]) {
    let (manifest, recording) = place.recording(id);
    assert_eq!(
        (&manifest["outcome"], &manifest["reasons"]),
        (&json!(outcome), &json!(reasons)),
        "{manifest}"
    );
    assert_eq!(manifest["conversation_id"], format!("{id} talks"));
    assert_eq!((&manifest["tenant"], &manifest["labels"]), (&json!("acme"), &json!({ "a": id })));
    assert!(recording.sounds(0) == sounds_in(payloads), "{manifest}");
    assert_eq!(place.manifests_of(id).len(), 1, "{id}");
}

/// Waits until a call whose end is told is in the store, which takes no longer than its linger.
fn end_and_wait(place: &Place, gateway: &mut Gateway, id: &str) {
    gateway.end(id);
    place.manifest(id);
}

#[test]
fn stopped_and_started_in_mid_call_it_makes_one_recording_without_missing_a_packet() {
    let place = Place::new().with("AUDIO_RESUME_SECS", "60");
    let payloads = voice(SPEECH, 150.0, 120);
    let mut packets = SOCKETS.map(|_| Sender::new(1).packets(&payloads).into_iter());
    // More than one restart is a recording still.
    for round in 0..3 {
        let daemon = Daemon::start(&place);
        for (socket, packets) in SOCKETS.into_iter().zip(&mut packets) {
            let mut gateway = Gateway::connect(&place, &daemon, socket);
            let (id, sent) = (format!("{socket:?}"), packets.take(40).collect::<Vec<_>>());
            match round {
                0 => begin(&mut gateway, &id, &sent),
                _ => gateway.play(&id, CALLER, &sent),
            }
            if round == 2 {
                gateway.end(&id);
                check_one(&place, &id, &payloads, "recovered", &["daemon_restarted"]);
            }
            gateway.sync();
        }
        let log = daemon.stop();
        let open = if round == 2 { 0 } else { SOCKETS.len() };
        let said = format!("stopping, open connections go on at the next start connections={open}");
        assert_eq!(log.contains(&said), open > 0, "{log}");
        assert!(open > 0 || !log.contains("stopping, "), "{log}");
        assert_eq!(place.manifests().len(), SOCKETS.len() - open);
    }
    assert!(!place.spool_holds(b"STSP"));
}

#[test]
fn many_open_calls_are_in_the_spool_after_a_stop_and_each_is_published_once() {
    let place = Place::new().with("AUDIO_RESUME_SECS", "60");
    let payloads = voice(SPEECH, 150.0, 50);
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    open_calls(&mut gateway, &payloads, 40);
    // Not even waited for: what the socket has when the signal comes is read.
    let log = daemon.stop();
    assert!(log.contains("go on at the next start connections=40 finalised=0"), "{log}");
    assert!(place.manifests().is_empty());
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    (0..40).for_each(|call| gateway.say(kind::END, WHOLE, &format!("call {call}")));
    check_all(&place, &payloads, 40);
    daemon.stop();
}

#[test]
fn a_call_that_only_lingers_is_finished_by_the_stop_and_one_that_is_held_goes_on() {
    let mut place = Place::new().with("AUDIO_RESUME_SECS", "60").with("AUDIO_LINGER_MS", "60000");
    let payloads = voice(SPEECH, 150.0, 50);
    let sent = Sender::new(1).packets(&payloads);
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    for id in ["lingers", "is held"] {
        begin(&mut gateway, id, &sent);
    }
    gateway.say(kind::HOLD, WHOLE, "is held");
    gateway.end("lingers");
    gateway.end("is held");
    let log = daemon.stop();
    assert!(log.contains("go on at the next start connections=1 finalised=1"), "{log}");
    assert_eq!(place.manifests().len(), 1);
    check_one(&place, "lingers", &payloads, "ok", &[]);

    place.set("AUDIO_LINGER_MS", "50");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.say(kind::RELEASE, WHOLE, "is held");
    check_one(&place, "is held", &payloads, "recovered", &["daemon_restarted"]);
    daemon.stop();
}

/// How a drain is asked for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    BySignal,
    OverHttp,
}

impl Asked {
    fn drain(self, daemon: &Daemon) {
        match self {
            Self::BySignal => daemon.ask_to_drain(),
            Self::OverHttp => {
                let answer = post(link(daemon), "/v1/drain", "");
                assert_eq!((answer.status, answer.json()), (202, json!({ "draining": true, "open": 1 })));
            }
        }
        wait_for("the drain to begin", || {
            daemon.log().contains("draining, new connections are").then_some(())
        });
    }
}

fn link(daemon: &Daemon) -> TcpStream {
    TcpStream::connect(http_address(daemon)).unwrap()
}

#[test]
fn a_drain_refuses_new_calls_and_ends_with_the_last_open_one() {
    let payloads = voice(SPEECH, 150.0, 100);
    let sent = Sender::new(1).packets(&payloads);
    for asked in [Asked::BySignal, Asked::OverHttp] {
        let place = Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0");
        let place = place.with("AUDIO_RTP_PORTS", "127.0.0.78:12000-12099");
        let mut daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        begin(&mut gateway, "goes on", &sent[..50]);
        begin(&mut gateway, "is over", &sent[..50]);
        end_and_wait(&place, &mut gateway, "is over");
        asked.drain(&daemon);
        asked.drain(&daemon);
        let ready = ask(link(&daemon), "GET", "/readyz");
        assert_eq!((ready.status, &ready.problem()["reason"]), (503, &json!("draining")));
        // Each frame of a new call is refused, and counted.
        gateway.meta("new", &json!({}));
        gateway.play("new", CALLER, &sent[..8]);
        gateway.meta("is over", &json!({ "reopen": true }));
        let plain =
            r#"{"caller":{"payload_types":{"0":"PCMU/8000"}},"ai":{"payload_types":{"0":"PCMU/8000"}}}"#;
        let answer = post(link(&daemon), "/v1/connections", plain);
        assert_eq!((answer.status, &answer.problem()["reason"]), (503, &json!("draining")));
        gateway.say(kind::HOLD, WHOLE, "goes on");
        gateway.play("goes on", CALLER, &sent[50..]);
        gateway.end("goes on");
        assert!(daemon.is_running(), "the call is held");
        gateway.say(kind::RELEASE, WHOLE, "goes on");
        let ended = daemon.ended();
        assert_eq!(ended.code, Some(0), "{asked:?} {}", ended.said);
        let log = ended.said;
        assert_eq!(dropped(&log), [("draining".to_owned(), 11)].into(), "{log}");
        assert_eq!(log.matches("draining, new connections are refused").count(), 1, "{log}");
        for line in ["refused open=1", "drained, the last connection is over", "reason=\"draining\""] {
            assert!(log.contains(line), "{log}");
        }
        check_one(&place, "goes on", &payloads, "ok", &[]);
        assert_eq!(place.manifests().len(), 2);
        assert!(!place.spool_holds(b"STSP"), "all is published");
    }
}

#[test]
fn a_drain_without_open_calls_ends_at_once() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    daemon.ask_to_drain();
    let ended = daemon.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(ended.said.contains("refused open=0"), "{}", ended.said);
}

#[test]
fn the_parts_of_a_long_call_are_no_new_calls_to_a_drain() {
    let place = Place::new().with("AUDIO_MAX_DURATION_SECS", "1");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let payloads = voice(SPEECH, 150.0, 3000);
    let mut sent = Sender::new(1).packets(&payloads).into_iter();
    gateway.play("long", CALLER, &sent.by_ref().take(1).collect::<Vec<_>>());
    gateway.sync();
    daemon.ask_to_drain();
    let mut count = 1;
    wait_for("the third part", || {
        let next: Vec<_> = sent.by_ref().take(1).collect();
        gateway.play("long", CALLER, &next);
        gateway.sync();
        count += u64::try_from(next.len()).unwrap();
        daemon.log().contains("part=3").then_some(())
    });
    gateway.end("long");
    let ended = daemon.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    let refused = dropped(&ended.said);
    assert!(refused.is_empty(), "{refused:?}");
    let packets: u64 = place
        .manifests()
        .iter()
        .map(|manifest| manifest["channels"]["caller"]["packets"].as_u64().unwrap())
        .sum();
    assert_eq!((packets, place.manifests().len()), (count, 3));
}

#[test]
fn a_drain_right_after_a_start_waits_for_the_calls_that_are_in_the_spool() {
    let mut place = Place::new().with("AUDIO_RESUME_SECS", "60").with("AUDIO_HTTP_LISTEN", "127.0.0.1:0");
    let payloads = voice(SPEECH, 150.0, 100);
    let sent = Sender::new(1).packets(&payloads);
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    for id in ["goes on", "is left"] {
        begin(&mut gateway, id, &sent[..50]);
    }
    daemon.stop();

    place.set("AUDIO_RESUME_SECS", "3");
    let daemon = Daemon::start(&place);
    daemon.ask_to_drain();
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.play("goes on", CALLER, &sent[50..51]);
    wait_for("the drain", || daemon.log().contains("draining, new connections are refused").then_some(()));
    gateway.play("new", CALLER, &sent[..1]);
    gateway.play("goes on", CALLER, &sent[51..]);
    gateway.sync();
    place.manifest("is left");
    assert!(place.manifests_of("goes on").is_empty(), "which still goes on");
    gateway.end("goes on");
    let ended = daemon.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(dropped(&ended.said), [("draining".to_owned(), 1)].into());
    check_one(&place, "goes on", &payloads, "recovered", &["daemon_restarted"]);
    let reasons = ["daemon_restarted", "gateway_did_not_resume"];
    check_one(&place, "is left", &payloads[..50], "recovered", &reasons);
    assert!(!place.spool_holds(b"STSP"));
}

#[test]
fn a_stop_during_a_drain_stops_at_once_and_does_with_open_calls_what_is_set() {
    let payloads = voice(SPEECH, 150.0, 100);
    let sent = Sender::new(1).packets(&payloads);
    for on_stop in ["resume", "finish"] {
        let place = Place::new().with("AUDIO_ON_STOP", on_stop).with("AUDIO_RESUME_SECS", "60");
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        begin(&mut gateway, "call", &sent[..50]);
        daemon.ask_to_drain();
        wait_for("the drain to begin", || daemon.log().contains("refused open=1").then_some(()));
        let log = daemon.stop();
        assert!(!log.contains("drained"), "{log}");
        if on_stop == "finish" {
            assert!(log.contains("stopping, open connections are finalised connections=1"), "{log}");
            check_one(&place, "call", &payloads[..50], "degraded", &["shutdown"]);
            continue;
        }
        assert!(place.manifests().is_empty());
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        gateway.play("call", CALLER, &sent[50..]);
        gateway.end("call");
        check_one(&place, "call", &payloads, "recovered", &["daemon_restarted"]);
        assert!(!daemon.stop().contains("drain"), "the next daemon knows nothing of it");
    }
}

#[test]
fn who_may_not_end_calls_may_not_drain_either() {
    let mut place = Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0");
    let daemon = Daemon::start(&place);
    let from = |daemon: &Daemon, method: &str, lines: &str| -> Answer {
        ask_with(link(daemon), method, "/v1/drain", lines)
    };
    assert_eq!(from(&daemon, "POST", "Origin: http://example.org\r\n").status, 403);
    assert_eq!(from(&daemon, "GET", "").status, 405);
    assert!(!daemon.stop().contains("draining"));
    place.set("AUDIO_HTTP_TOKEN", "0123456789abcdef");
    let daemon = Daemon::start(&place);
    assert_eq!(from(&daemon, "POST", "").status, 401);
    assert_eq!(ask(link(&daemon), "GET", "/readyz").status, 200);
    assert_eq!(from(&daemon, "POST", "Authorization: Bearer 0123456789abcdef\r\n").status, 202);
    assert_eq!(daemon.ended().code, Some(0));
}

/// The library that shows a program another wall clock, where it is installed.
fn faketime() -> Option<&'static Path> {
    let found = ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"));
    let found = found.into_iter().find(|path| Path::new(path).exists());
    assert!(found.is_some() || !rig::is_strict(), "the package faketime is not installed");
    if found.is_none() {
        println!("the package faketime is not installed");
    }
    found.map(|path| Path::new(Box::leak(path.into_boxed_str())))
}

#[test]
fn a_wall_clock_that_is_set_by_hours_stales_splits_and_stretches_nothing() {
    let Some(library) = faketime() else { return };
    let mut place = Place::new().with("AUDIO_SWEEP_INTERVAL_SECS", "1").with("AUDIO_RETENTION_SECS", "60");
    let clock = place.root().join("clock");
    let set = |seconds: i64| std::fs::write(&clock, format!("{seconds:+}\n")).unwrap();
    set(0);
    place.set("LD_PRELOAD", library.to_str().unwrap());
    place.set("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap());
    place.set("FAKETIME_NO_CACHE", "1");
    place.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let payloads = voice(SPEECH, 150.0, 200);
    let sent = Sender::new(1).packets(&payloads);
    let begun = Instant::now();
    for (number, packet) in sent.into_iter().enumerate() {
        match number {
            50 => set(3 * 3600),
            100 => set(-5 * 3600),
            150 => set(86_400),
            _ => {}
        }
        let due = Duration::from_millis(20 * u64::try_from(number).unwrap());
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        // No time of the gateway's: the daemon's own is what counts.
        gateway.play("call", CALLER, &[Sent { at_us: 0, ..packet }]);
    }
    gateway.end("call");
    let (manifest, recording) = place.recording("call");
    assert_eq!(manifest["outcome"], "ok", "{manifest}");
    assert_eq!(manifest["duration_ms"], 200 * 20 + 2000);
    assert!(recording.sounds(0) == sounds_in(&payloads));
    assert_eq!(place.manifests().len(), 1);
    let year = |line: &str| line.get(..10).map(str::to_owned);
    let log = daemon.stop();
    let dates: std::collections::BTreeSet<_> = log.lines().filter_map(year).collect();
    assert!(dates.len() >= 2, "the clock was set, or this is no test: {log}");
}
