//! The daemon as a service: told to stop, told twice, watched by its manager, and with a wall clock that is set.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use rig::daemon::Daemon;
use rig::gateway::{AI, CALLER, Gateway, Socket};
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
    let mut place = Place::new().with("AUDIO_SHUTDOWN_SECS", "0");
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
fn asked_to_stop_under_load_it_publishes_what_it_had_read() {
    let place = Place::new();
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
                let frame = rig::gateway::frame(rig::gateway::kind::RTP, AI, sent.at_us, b"load", &sent.rtp);
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
    let place = Place::new();
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
