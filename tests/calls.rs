//! How calls begin, end and are named: references, holds, stragglers, odd ids, pauses.

mod rig;

use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::json;

use rig::daemon::Daemon;
use rig::gateway::{AI, CALLER, Gateway, Socket, WHOLE, frame, kind};
use rig::media::{MUSIC, SAMPLES_20_MS, SPEECH, START_US, Sender, marked_packet, voice};
use rig::place::Place;
use rig::recording::{peak, sounds_in};
use rig::wait_for;

/// A running daemon with a gateway at one of its sockets.
fn begin(place: &Place, socket: Socket) -> (Daemon, Gateway) {
    let daemon = Daemon::start(place);
    let gateway = Gateway::connect(place, &daemon, socket);
    (daemon, gateway)
}

/// Lets a whole other call pass, with its own linger: what was due before is over then.
fn let_a_linger_pass(place: &Place, gateway: &mut Gateway) {
    let id = format!("meanwhile {}", place.manifests().len());
    gateway.play(&id, CALLER, &Sender::new(9).packets(&voice(SPEECH, 99.0, 1)));
    gateway.end(&id);
    place.manifest(&id);
}

#[test]
fn a_call_with_one_silent_side_is_a_recording() {
    let place = Place::new();
    let (_daemon, mut gateway) = begin(&place, Socket::Udp);
    for (channel, name, other) in [(CALLER, "caller", "ai"), (AI, "ai", "caller")] {
        let packets = voice(SPEECH, 150.0, 50);
        gateway.play(name, channel, &Sender::new(1).packets(&packets));
        gateway.end(name);
        let (manifest, recording) = place.recording(name);
        assert_eq!((&manifest["outcome"], &manifest["duration_ms"]), (&"ok".into(), &3000.into()));
        assert_eq!(
            (&manifest["outcome_told"], &manifest["absent"]),
            (&"degraded".into(), &json!([format!("{other}_absent")]))
        );
        assert_eq!(manifest["channels"][name]["packets"], 50);
        assert_eq!(manifest["channels"][other]["packets"], 0);
        assert!(recording.sounds(usize::from(channel)) == sounds_in(&packets));
        let silent = &recording.decode()[usize::from(1 - channel)];
        assert_eq!(peak(silent, 0..silent.len()), 0.0, "the other channel is silent");
    }
}

#[test]
fn what_is_done_about_a_gateways_clock_and_that_media_are_encrypted_is_told() {
    let place = Place::new();
    let (_daemon, mut gateway) = begin(&place, Socket::UnixStream);
    let now = u64::try_from(UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap();
    let sound = |at: u32| [0xff, 0xd5, 0x6a, 0x40][usize::try_from(at / 7 % 4).unwrap()];
    let mix = |value: u32, by: u32| (value ^ (value >> 15)).wrapping_mul(by);
    let drawn = |at: u32| mix(mix(at.wrapping_mul(0x9e37_79b9), 0x85eb_ca6b), 0xc2b2_ae35).to_be_bytes()[0];
    // What the bytes are, the time that the gateway tells of a true one, and the reason.
    type Call<'a> = (&'a str, &'a dyn Fn(u32) -> u8, &'a dyn Fn(u64) -> u64, &'a [&'a str]);
    let calls: [Call<'_>; 4] = [
        ("right", &sound, &|at| at, &[]),
        ("in nanoseconds", &sound, &|at| at * 1000, &["gateway_clock_corrected"]),
        ("standing still", &sound, &|_| now, &["gateway_clock_ignored"]),
        ("secret", &drawn, &|at| at, &["encrypted_media"]),
    ];
    let mut sender = Sender { payload_type: 0, ..Sender::new(1) };
    // Three seconds, in real time: a clock shows itself by the daemon's.
    for n in 0..150_u32 {
        sender.timestamp = n * 160;
        for (id, bytes, told, _) in calls {
            let payload: Vec<u8> = (n * 160..n * 160 + 160).map(bytes).collect();
            let packet = Sender { ..sender.clone() }.packet(&payload, 960);
            let at_us = told(now + u64::from(n) * 20_000);
            gateway.send(&frame(kind::RTP, CALLER, at_us, id.as_bytes(), &packet.rtp));
        }
        sender.sequence = sender.sequence.wrapping_add(1);
        std::thread::sleep(Duration::from_millis(20));
    }
    for (id, _, _, reasons) in calls {
        gateway.end(id);
        assert_eq!(place.manifest(id)["reasons"], json!(reasons), "{id}");
    }
}

#[test]
fn a_single_packet_is_a_recording() {
    let place = Place::new();
    let (_daemon, mut gateway) = begin(&place, Socket::UnixDgram);
    for (id, coding) in [("speech", SPEECH), ("music", MUSIC)] {
        let packets = voice(coding, 150.0, 1);
        gateway.play(id, AI, &Sender::new(1).packets(&packets));
        gateway.end(id);
        let (manifest, recording) = place.recording(id);
        assert_eq!((&manifest["outcome"], &manifest["duration_ms"]), (&"ok".into(), &2020.into()));
        assert!(recording.sounds(1) == sounds_in(&packets));
    }
}

#[test]
fn a_call_without_audio_leaves_a_manifest_and_no_recording() {
    let place = Place::new();
    let (_daemon, mut gateway) = begin(&place, Socket::Udp);
    gateway.meta("only metadata", &json!({"labels": {"campaign": "spring"}, "retry": 3}));
    gateway.end("only metadata");
    let mut comfort_noise = Sender::new(1);
    comfort_noise.payload_type = 13;
    gateway.play("only noise", CALLER, &[comfort_noise.packet(&[60], 160)]);
    gateway.end("only noise");
    for id in ["only metadata", "only noise"] {
        let manifest = place.manifest(id);
        assert_eq!(
            (&manifest["outcome"], &manifest["duration_ms"]),
            (&"absent".into(), &0.into()),
            "{manifest}"
        );
        assert!(manifest["file"].is_null(), "{manifest}");
    }
    let manifest = place.manifest("only metadata");
    assert_eq!((&manifest["labels"]["campaign"], &manifest["meta"]["retry"]), (&"spring".into(), &3.into()));
    assert_eq!(place.recordings(), [""; 0]);
}

#[test]
fn a_repeated_end_of_one_channel_does_not_end_the_other() {
    let place = Place::new();
    let (_daemon, mut gateway) = begin(&place, Socket::UnixStream);
    let packets = voice(SPEECH, 150.0, 40);
    let mut ai = Sender::new(2);
    gateway.play("twice", AI, &ai.packets(&packets[..20]));
    gateway.say(kind::END, CALLER, "twice");
    gateway.say(kind::END, CALLER, "twice");
    let_a_linger_pass(&place, &mut gateway);
    gateway.play("twice", AI, &ai.packets(&packets[20..]));
    gateway.say(kind::END, AI, "twice");
    gateway.say(kind::END, AI, "twice");
    gateway.end("twice");
    let (manifest, recording) = place.recording("twice");
    assert_eq!(manifest["outcome"], "ok");
    assert!(recording.sounds(1) == sounds_in(&packets));
    let_a_linger_pass(&place, &mut gateway);
    assert_eq!(place.manifests_of("twice").len(), 1, "and none of the later ones opened it again");
}

#[test]
fn a_call_whose_end_never_comes_is_closed_by_the_sweep_and_kept() {
    let place = Place::new().with("AUDIO_RETENTION_SECS", "1").with("AUDIO_SWEEP_INTERVAL_SECS", "1");
    let (daemon, mut gateway) = begin(&place, Socket::Udp);
    let packets = voice(SPEECH, 150.0, 50);
    gateway.play("forgotten", CALLER, &Sender::new(1).packets(&packets));
    gateway.say(kind::END, CALLER, "forgotten");
    let (manifest, recording) = place.recording("forgotten");
    assert_eq!(manifest["outcome"], "stale");
    assert!(recording.sounds(0) == sounds_in(&packets));
    assert!(daemon.stop().contains("sweep"));
}

#[test]
fn a_hold_keeps_a_silent_call_open() {
    let place = Place::new().with("AUDIO_RETENTION_SECS", "1").with("AUDIO_SWEEP_INTERVAL_SECS", "1");
    let (_daemon, mut gateway) = begin(&place, Socket::Udp);
    let packets = voice(SPEECH, 150.0, 40);
    for id in ["held", "silent"] {
        gateway.play(id, CALLER, &Sender::new(1).packets(&packets[..20]));
    }
    gateway.say(kind::HOLD, WHOLE, "held");
    gateway.sync();
    assert_eq!(place.manifest("silent")["outcome"], "stale");
    // Two sweeps more.
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(place.manifests().len(), 1);
    let mut caller = Sender::new(1);
    caller.packets(&packets[..20]);
    gateway.play("held", CALLER, &caller.packets(&packets[20..]));
    gateway.end("held");
    gateway.say(kind::RELEASE, WHOLE, "held");
    let (_, recording) = place.recording("held");
    assert!(recording.sounds(0) == sounds_in(&packets));
}

#[test]
fn a_call_that_was_closed_for_its_silence_goes_on_at_once_as_its_next_part() {
    let mut place = Place::new().with("AUDIO_RETENTION_SECS", "1").with("AUDIO_SWEEP_INTERVAL_SECS", "1");
    let (daemon, mut gateway) = begin(&place, Socket::UnixStream);
    let packets = voice(SPEECH, 150.0, 150);
    let sent = Sender::new(1).packets(&packets);
    gateway.meta("quiet", &json!({"tenant": "t", "conversation_id": "quiet"}));
    gateway.play("quiet", CALLER, &sent[..50]);
    assert_eq!(place.manifest("quiet")["outcome"], "stale");
    gateway.play("quiet", CALLER, &sent[50..100]);
    gateway.sync();
    wait_for("the spool to have the packets", || place.spool_holds(&packets[99][1..]).then_some(()));
    daemon.kill();

    // After a restart likewise.
    place.set("AUDIO_RESUME_SECS", "0");
    let (daemon, mut gateway) = begin(&place, Socket::UnixStream);
    let part = |number: usize| {
        place.nth_manifest("quiet", number);
        let mut parts = place.manifests_of("quiet").into_iter();
        parts.find(|manifest| manifest["part"] == number).expect("the part is published")
    };
    assert_eq!(part(2)["tenant"], "t");
    gateway.play("quiet", CALLER, &sent[100..]);
    gateway.send(&frame(kind::END, CALLER, 0, b"quiet", &150u64.to_be_bytes()));
    gateway.say(kind::END, AI, "quiet");
    let third = part(3);
    assert_eq!((&third["outcome"], &third["tenant"]), (&"ok".into(), &"t".into()), "{third}");
    assert!(place.recording_of(&third).sounds(0) == sounds_in(&packets[100..]));
    assert!(!daemon.stop().contains("late="));
}

#[test]
fn packets_behind_the_end_belong_to_the_call_until_the_linger_is_over() {
    let place = Place::new().with("AUDIO_LINGER_MS", "1500");
    let (_daemon, mut gateway) = begin(&place, Socket::Udp);
    let packets = voice(SPEECH, 150.0, 50);
    let sent = Sender::new(1).packets(&packets);
    gateway.play("early end", CALLER, &sent[..30]);
    gateway.end("early end");
    gateway.play("early end", CALLER, &sent[30..]);
    let (manifest, recording) = place.recording("early end");
    assert_eq!(
        (&manifest["outcome"], &manifest["channels"]["caller"]["packets"]),
        (&"ok".into(), &50.into())
    );
    assert!(recording.sounds(0) == sounds_in(&packets));
}

#[test]
fn a_hold_keeps_the_recording_open_and_a_release_gives_it_back() {
    let place = Place::new();
    let (daemon, mut gateway) = begin(&place, Socket::Udp);
    let packets = voice(SPEECH, 150.0, 60);
    let mut caller = Sender::new(1);
    gateway.play("held", CALLER, &caller.packets(&packets[..20]));
    gateway.say(kind::RELEASE, WHOLE, "held"); // there is nothing to give back
    gateway.say(kind::HOLD, WHOLE, "held");
    gateway.say(kind::HOLD, WHOLE, "held");
    gateway.end("held");
    let_a_linger_pass(&place, &mut gateway);
    gateway.play("held", CALLER, &caller.packets(&packets[20..40]));
    gateway.say(kind::RELEASE, WHOLE, "held");
    let_a_linger_pass(&place, &mut gateway);
    gateway.play("held", CALLER, &caller.packets(&packets[40..]));
    gateway.say(kind::RELEASE, WHOLE, "held");
    let (manifest, recording) = place.recording("held");
    assert_eq!(manifest["outcome"], "ok");
    assert!(recording.sounds(0) == sounds_in(&packets));
    daemon.stop();
}

#[test]
fn frames_that_come_too_late_do_not_open_the_call_again_unless_metadata_asks_for_it() {
    let place = Place::new();
    let (daemon, mut gateway) = begin(&place, Socket::Udp);
    let packets = [voice(SPEECH, 150.0, 20), voice(SPEECH, 120.0, 20), voice(SPEECH, 90.0, 20)];
    let mut caller = Sender::new(1);
    gateway.play("again", CALLER, &caller.packets(&packets[0]));
    gateway.end("again");
    let (_, first) = place.recording("again");

    gateway.play("again", CALLER, &caller.packets(&packets[1]));
    gateway.meta("again", &json!({"reopen": false}));
    gateway.end("again");
    let_a_linger_pass(&place, &mut gateway);
    assert_eq!(place.manifests_of("again").len(), 1);

    gateway.meta("again", &json!({"reopen": true}));
    gateway.play("again", CALLER, &caller.packets(&packets[2]));
    gateway.end("again");
    let manifest = place.nth_manifest("again", 2);
    let second = place
        .manifests_of("again")
        .into_iter()
        .find(|manifest| place.path_of(manifest).ends_with("conversation_again_merged-2.opus"));
    let second = place.recording_of(&second.unwrap_or(manifest));
    assert!(first.sounds(0) == sounds_in(&packets[0]) && second.sounds(0) == sounds_in(&packets[2]));
    assert_eq!(place.recordings().iter().filter(|name| name.contains("again")).count(), 2);

    let log = daemon.stop();
    let stop = log.lines().last().unwrap();
    assert!(stop.contains("late=22"), "20 packets, one META, one END: {stop}");
}

#[test]
fn every_id_gets_a_recording_and_none_a_file_outside_the_storage() {
    let long = ["x".repeat(128), "é".repeat(64), "通".repeat(42), "\u{1f600}".repeat(32)];
    let ids = [
        "a/b",
        "a_b",
        "a:b",
        "..",
        ".",
        "/",
        "//",
        "../../../etc/passwd",
        "/etc/passwd",
        "..\\..\\windows",
        "two words",
        " leading and trailing ",
        "-rf",
        ".hidden",
        "~",
        "$HOME",
        "*?[x]",
        "%2e%2e%2f",
        "a\u{202e}b",
        "\"quoted\"",
        "'",
        "CON",
        "call.opus",
        "call.json",
        "{id}",
        "é",
        "e\u{301}",
        "A",
        "a",
    ];
    let ids: Vec<&str> = ids.into_iter().chain(long.iter().map(String::as_str)).collect();
    let place = Place::new();
    let (daemon, mut gateway) = begin(&place, Socket::UnixStream);
    let packets = voice(SPEECH, 150.0, 3);
    for id in &ids {
        gateway.play(id, CALLER, &Sender::new(1).packets(&packets));
        gateway.end(id);
    }
    for id in &ids {
        let (manifest, recording) = place.recording(id);
        assert_eq!((&manifest["connection_id"], &manifest["outcome"]), (&(*id).into(), &"ok".into()));
        assert!(recording.sounds(0) == sounds_in(&packets), "{id:?}");
        assert_eq!(
            place.path_of(&manifest).parent(),
            Some(place.storage().as_path()),
            "{id:?} is directly inside"
        );
    }
    daemon.stop();
    assert_eq!(place.recordings().len(), ids.len());
    assert_eq!(place.manifests().len(), ids.len());
    only_these_folders_hold_files(&place);
}

/// Whatever there is under the root lies in the storage or in the spool.
fn only_these_folders_hold_files(place: &Place) {
    let inside = |file: &Path| {
        [place.storage(), place.spool()].iter().any(|at| place.root().join(file).starts_with(at))
    };
    let outside: Vec<_> = place.files().into_iter().filter(|file| !inside(file)).collect();
    assert!(outside.is_empty(), "{outside:?}");
}

#[test]
fn metadata_names_the_recording_and_stays_inside_the_storage() {
    let place =
        Place::new().with("AUDIO_OBJECT_KEY", "{tenant}/{yyyy}/{mm}/{dd}/{hh}/{connection_id}-{id}.opus");
    let (daemon, mut gateway) = begin(&place, Socket::Udp);
    let calls = [
        ("c1", json!({"conversation_id": "talk", "tenant": "acme"}), Some("acme/2026/01/02/03/c1-talk.opus")),
        ("c2", json!({"conversation_id": "../../../up", "tenant": "../.."}), None),
        ("c3", json!({"conversation_id": "/root", "tenant": ".."}), None),
        ("c4", json!({"conversation_id": 7}), None),
    ];
    for (id, meta, key) in &calls {
        gateway.play(id, CALLER, &Sender::new(1).packets(&voice(SPEECH, 150.0, 3)));
        gateway.meta(id, meta);
        gateway.end(id);
        let (manifest, _) = place.recording(id);
        assert_eq!(manifest["connection_id"], *id);
        if meta["conversation_id"].is_string() {
            assert_eq!(
                manifest["conversation_id"], meta["conversation_id"],
                "as given, whatever the name became"
            );
        }
        if let Some(key) = key {
            assert_eq!(manifest["file"]["key"], *key);
        }
        assert!(
            place
                .path_of(&manifest)
                .canonicalize()
                .unwrap()
                .starts_with(place.storage().canonicalize().unwrap())
        );
    }
    daemon.stop();
    only_these_folders_hold_files(&place);
}

#[test]
fn what_is_in_the_storage_already_is_never_overwritten() {
    let place = Place::new();
    for taken in [
        "conversation_x_merged.opus",
        "conversation_y_merged.json",
        "conversation_z_merged.opus",
        "conversation_z_merged-2.opus",
    ] {
        std::fs::write(place.storage().join(taken), r#"{"mine":true}"#).unwrap();
    }
    let (_daemon, mut gateway) = begin(&place, Socket::Udp);
    for (id, number) in [("x", "-2"), ("y", "-2"), ("z", "-3")] {
        gateway.play(id, CALLER, &Sender::new(1).packets(&voice(SPEECH, 150.0, 3)));
        gateway.end(id);
        let (manifest, _) = place.recording(id);
        assert_eq!(manifest["file"]["key"], format!("conversation_{id}_merged{number}.opus"));
    }
    let is_untouched = |name: &str| std::fs::read(place.storage().join(name)).unwrap() == br#"{"mine":true}"#;
    assert!(is_untouched("conversation_x_merged.opus") && is_untouched("conversation_y_merged.json"));
    assert!(is_untouched("conversation_z_merged.opus") && is_untouched("conversation_z_merged-2.opus"));
}

#[test]
fn calls_that_run_at_once_over_all_sockets_keep_apart() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateways = rig::gateway::SOCKETS.map(|socket| Gateway::connect(&place, &daemon, socket));
    let ids = ["one", "two", "three", "four", "five"];
    let calls: Vec<_> = (0..5u8)
        .map(|n| {
            (voice(SPEECH, 100.0 + 10.0 * f32::from(n), 60), voice(MUSIC, 200.0 + 10.0 * f32::from(n), 60))
        })
        .collect();
    let sent: Vec<_> = calls
        .iter()
        .map(|(caller, ai)| (Sender::new(1).packets(caller), Sender::new(1).packets(ai)))
        .collect();
    for at in 0..60 {
        for (n, id) in ids.iter().enumerate() {
            // Each call's channels come over different sockets, which the daemon reads in no particular order.
            gateways[n % 3].play(id, CALLER, &sent[n].0[at..=at]);
            gateways[(n + 1) % 3].play(id, AI, &sent[n].1[at..=at]);
        }
    }
    gateways.iter_mut().for_each(Gateway::sync);
    ids.iter().for_each(|id| gateways[0].end(id));
    for (id, (caller, ai)) in ids.iter().zip(&calls) {
        let (manifest, recording) = place.recording(id);
        assert_eq!(manifest["outcome"], "ok", "{manifest}");
        assert!(recording.sounds(0) == sounds_in(caller) && recording.sounds(1) == sounds_in(ai), "{id}");
    }
}

#[test]
fn datagrams_that_travel_together_are_frames_of_their_own() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let packets: Vec<_> = (0..60).map(|n| marked_packet(&format!("packet {n:02}"))).collect();
    let sent = Sender::new(1).packets(&packets);
    let mut together: Vec<_> =
        sent.iter().map(|sent| frame(kind::RTP, CALLER, sent.at_us, b"call", &sent.rtp)).collect();
    let length = u16::try_from(together[0].len()).unwrap();
    together.push(frame(kind::END, WHOLE, 0, b"call", b""));
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(daemon.udp()).unwrap();
    // One system call, which the kernel cuts into datagrams of so many bytes, or hands on whole to who can take it.
    let (bytes, cut) = (together.concat(), [ControlMessage::UdpGsoSegments(&length)]);
    sendmsg::<()>(udp.as_raw_fd(), &[IoSlice::new(&bytes)], &cut, MsgFlags::empty(), None).unwrap();
    let (manifest, recording) = place.recording("call");
    assert_eq!(
        (&manifest["outcome"], &manifest["channels"]["caller"]["packets"]),
        (&"ok".into(), &60.into())
    );
    assert!(recording.sounds(0) == sounds_in(&packets));
    assert!(daemon.stop().contains("dropped=\"none\""));
}

#[test]
fn an_ai_that_starts_two_seconds_late_is_heard_two_seconds_late() {
    let place = Place::new();
    let (_daemon, mut gateway) = begin(&place, Socket::Udp);
    let packets = [voice(SPEECH, 150.0, 200), voice(MUSIC, 150.0, 50)];
    gateway.play_both(
        "late",
        &Sender::new(1).packets(&packets[0]),
        &Sender::starting(2, 2000).packets(&packets[1]),
    );
    gateway.end("late");
    let (manifest, recording) = place.recording("late");
    assert_eq!((recording.first_heard_ms(0), recording.first_heard_ms(1)), (0, 2000));
    let decoded = recording.decode();
    assert_eq!(peak(&decoded[1], 0..48 * 2000), 0.0);
    assert!(peak(&decoded[1], 48 * 2000..48 * 2100) > 0.05);
    let first_at = &manifest["channels"]["ai"]["first_packet_at"];
    assert_eq!(*first_at, "2026-01-02T03:04:07.698901Z", "as the gateway said: its 20 ms were complete then");
}

#[test]
fn what_is_said_during_a_pause_is_nowhere() {
    let place = Place::new();
    let (daemon, mut gateway) = begin(&place, Socket::UnixStream);
    let say = |what: &str| {
        (0..25).map(|n| marked_packet(&format!("{what} number {n:02} of the caller"))).collect::<Vec<_>>()
    };
    let (before, secret, after) = (say("open"), say("secret"), say("public"));
    let ai = voice(SPEECH, 150.0, 75);
    let (mut caller, mut other) = (Sender::new(1), Sender::new(2));
    gateway.play_both("card", &caller.packets(&before), &other.packets(&ai[..25]));
    let body = br#"{"mode":"silence","reason":"card number"}"#;
    gateway.send(&frame(kind::PAUSE, CALLER, START_US + 500_000, b"card", body));
    gateway.play_both("card", &caller.packets(&secret), &other.packets(&ai[25..50]));
    gateway.say_at(kind::RESUME, CALLER, START_US + 1_000_000, "card");
    gateway.play_both("card", &caller.packets(&after), &other.packets(&ai[50..]));
    gateway.sync();
    wait_for("the last packet to be in the spool", || place.spool_holds(b"public number 24").then_some(()));
    assert!(place.spool_holds(b"open number 24"));
    assert!(!place.holds(b"secret"), "the spool has nothing of what was said");

    gateway.end("card");
    let (manifest, recording) = place.recording("card");
    assert_eq!(recording.sounds(0), sounds_in(&[before, after].concat()));
    assert!(recording.sounds(1) == sounds_in(&ai), "the other channel goes on");
    let starts: Vec<u64> = recording.heard(0).map(|placed| placed.at / 48).collect();
    assert_eq!((starts[24], starts[25]), (480, 1000), "the time is kept");
    assert_eq!(manifest["paused"][0]["channel"], "caller");
    let near = |name: &str, ms: u64| manifest["paused"][0][name].as_u64().unwrap().abs_diff(ms) <= 20;
    assert!(near("from_ms", 500) && near("to_ms", 1000), "{}", manifest["paused"]);
    assert_eq!(manifest["channels"]["caller"]["lost"], 0, "what was withheld is not lost");
    let log = daemon.stop();
    assert!(!place.holds(b"secret") && !log.contains("secret"));
}

#[test]
fn what_is_said_while_the_call_is_not_wanted_is_nowhere_and_no_loss() {
    let place = Place::new();
    let (daemon, mut gateway) = begin(&place, Socket::UnixStream);
    let say = |what: &str| {
        (0..75).map(|n| marked_packet(&format!("{what} number {n:02} of the caller"))).collect::<Vec<_>>()
    };
    let (before, secret, after) = (say("open"), say("secret"), say("public"));
    let mut caller = Sender::new(1);
    gateway.play("said no", CALLER, &caller.packets(&before));
    gateway.meta("said no", &json!({"record": false}));
    gateway.play("said no", CALLER, &caller.packets(&secret));
    gateway.meta("said no", &json!({"record": true}));
    gateway.play("said no", CALLER, &caller.packets(&after));
    gateway.send(&frame(kind::END, CALLER, 0, b"said no", &225u64.to_be_bytes()));
    gateway.say(kind::END, AI, "said no");
    let (manifest, recording) = place.recording("said no");
    assert_eq!((&manifest["outcome"], &manifest["reasons"]), (&"ok".into(), &json!([])), "{manifest}");
    let counts = &manifest["channels"]["caller"];
    assert_eq!((&counts["packets"], &counts["lost"]), (&225.into(), &0.into()), "{counts}");
    assert_eq!(recording.sounds(0), sounds_in(&[before, after].concat()));
    let starts: Vec<u64> = recording.heard(0).map(|placed| placed.at / 48).collect();
    assert_eq!((starts[74], starts[75]), (1480, 3000), "the time is kept");
    assert_eq!(manifest["paused"][0]["reason"], "not_wanted");
    daemon.stop();
    assert!(!place.holds(b"secret"));
}

/// What comes of packets 0 to 149 where a PAUSE of the time of the 40th comes behind the 99th, and then a frame after the 109th.
fn paused_afterwards(next: impl Fn(&mut Gateway, &[rig::media::Sent])) -> (Vec<usize>, serde_json::Value) {
    let place = Place::new();
    let (daemon, mut gateway) = begin(&place, Socket::UnixStream);
    let payloads: Vec<_> = (0..150).map(|n| marked_packet(&format!("number {n:03} of the caller"))).collect();
    let sent = Sender::new(1).packets(&payloads);
    gateway.play("card", CALLER, &sent[..100]);
    gateway.say_at(kind::PAUSE, WHOLE, sent[40].at_us, "card");
    gateway.play("card", CALLER, &sent[100..110]);
    next(&mut gateway, &sent);
    gateway.play("card", CALLER, &sent[110..]);
    gateway.end("card");
    let (manifest, recording) = place.recording("card");
    daemon.stop();
    let sounds = recording.sounds(0);
    let is_heard = |n: &usize| sounds.contains(&sounds_in(&payloads[*n..=*n])[0]);
    ((0..150).filter(is_heard).collect(), manifest)
}

#[test]
fn what_comes_between_a_pause_and_its_resume_is_kept_unless_it_is_of_the_time_between() {
    let all_but = |out: std::ops::Range<usize>| (0..150).filter(|n| !out.contains(n)).collect::<Vec<_>>();
    let (heard, manifest) = paused_afterwards(|gateway, sent| {
        gateway.say_at(kind::RESUME, WHOLE, sent[60].at_us, "card");
    });
    assert_eq!(heard, all_but(40..60));
    assert_eq!(
        (&manifest["outcome"], &manifest["channels"]["caller"]["packets"]),
        (&json!("ok"), &json!(150))
    );
    // A RESUME for each channel, with times that some of what waits is older than.
    let (heard, _) = paused_afterwards(|gateway, sent| {
        gateway.say_at(kind::RESUME, AI, sent[60].at_us, "card");
        gateway.say_at(kind::RESUME, CALLER, sent[105].at_us, "card");
    });
    assert_eq!(heard, all_but(40..105));
    // Without a time, or with one before the PAUSE.
    let (heard, _) = paused_afterwards(|gateway, _| gateway.say(kind::RESUME, WHOLE, "card"));
    assert_eq!(heard, all_but(40..110));
    let (heard, _) = paused_afterwards(|gateway, sent| {
        gateway.say_at(kind::RESUME, WHOLE, sent[30].at_us, "card");
    });
    assert_eq!(heard, all_but(40..150));
}

#[test]
fn what_waits_for_a_resume_that_does_not_come_is_of_the_pause() {
    let (heard, manifest) = paused_afterwards(|_, _| std::thread::sleep(Duration::from_millis(500)));
    assert_eq!(heard, (0..40).collect::<Vec<_>>());
    assert_eq!(manifest["channels"]["caller"]["packets"], 150);
    let (heard, manifest) = paused_afterwards(|gateway, sent| {
        std::thread::sleep(Duration::from_millis(500));
        gateway.say_at(kind::RESUME, WHOLE, sent[60].at_us, "card");
    });
    let expected = (0..40).chain(110..150).collect::<Vec<_>>();
    assert_eq!((heard, &manifest["channels"]["caller"]["lost"]), (expected, &json!(0)));
}

#[test]
fn a_pause_that_cannot_be_understood_is_refused_and_holds() {
    let place = Place::new();
    let (daemon, mut gateway) = begin(&place, Socket::UnixStream);
    let say =
        |what: &str| (0..25).map(|n| marked_packet(&format!("{what} number {n:02}"))).collect::<Vec<_>>();
    let (before, secret) = (say("open"), say("secret"));
    let mut caller = Sender::new(1);
    gateway.play("card", CALLER, &caller.packets(&before));
    gateway.send(&frame(kind::PAUSE, WHOLE, 0, b"card", br#"{"mode":"mute"}"#));
    gateway.play("card", CALLER, &caller.packets(&secret));
    gateway.send(&frame(kind::PAUSE, WHOLE, 0, b"nobody", b"mute"));
    gateway.end("card");
    let (manifest, recording) = place.recording("card");
    assert_eq!(recording.sounds(0), sounds_in(&before));
    assert_eq!(manifest["channels"]["caller"]["packets"], 50);
    let log = daemon.stop();
    let told = log.lines().find(|line| line.contains("frames dropped")).unwrap();
    assert!(told.contains(r#"reason="bad_json""#) && told.contains(r#"connection="card""#), "{told}");
    assert!(!place.holds(b"secret") && place.manifests().len() == 1);
}

#[test]
fn a_digit_whose_payload_type_nobody_has_told_is_masked_everywhere() {
    let place = Place::new().with("AUDIO_DTMF", "mask");
    let (daemon, mut gateway) = begin(&place, Socket::UnixStream);
    let mut caller = Sender::new(1);
    gateway.play("keys", CALLER, &caller.packets(&voice(SPEECH, 150.0, 20)));
    let mut keys = Sender { payload_type: 96, ..caller };
    for duration in [1, 2, 3] {
        let event = [5, 10, 3, duration];
        gateway.play("keys", CALLER, &[keys.packet(&event, 0)]);
    }
    gateway.end("keys");
    let (manifest, _) = place.recording("keys");
    assert_eq!((&manifest["outcome"], &manifest["reasons"]), (&"ok".into(), &json!([])), "{manifest}");
    daemon.stop();
    assert!(place.spool_files().is_empty(), "nothing is kept of it");
}

/// A packet of RFC 2198 with a copy of the packet before.
fn redundant(copy: &[u8], own: &[u8]) -> Vec<u8> {
    let bits = 960 << 10 | u32::try_from(copy.len()).expect("a short packet");
    [&[0x80 | 111][..], &bits.to_be_bytes()[1..], &[111], copy, own].concat()
}

#[test]
fn copies_of_what_was_said_during_a_pause_are_nowhere_either() {
    let place = Place::new();
    let (daemon, mut gateway) = begin(&place, Socket::UnixStream);
    let said: Vec<_> = (0..6).map(|n| marked_packet(&format!("digit {n} of the card"))).collect();
    let mut sender = Sender { payload_type: 63, ..Sender::new(1) };
    let sent: Vec<_> = (1..6).map(|n| sender.packet(&redundant(&said[n - 1], &said[n]), 960)).collect();
    gateway.meta("card", &json!({"payload_types": {"63": "red/48000/2"}}));
    gateway.play("card", CALLER, &sent[..1]);
    gateway.say(kind::PAUSE, WHOLE, "card");
    // The second comes late, when the pause is over.
    gateway.play("card", CALLER, &[sent[2].clone()]);
    gateway.sync();
    wait_for("what was paused to be noted", || place.spool_holds(b"digit 1").then_some(()));
    std::thread::sleep(Duration::from_millis(150));
    daemon.kill();
    let (_daemon, mut gateway) = begin(&place, Socket::UnixStream);
    gateway.play("card", CALLER, &[sent[1].clone()]);
    gateway.say(kind::RESUME, WHOLE, "card");
    gateway.play("card", CALLER, &[sent[2].clone(), sent[3].clone(), sent[4].clone()]);
    gateway.sync();
    wait_for("the last packet to be in the spool", || place.spool_holds(b"digit 5").then_some(()));
    for (digit, is_kept) in [(0, true), (1, true), (2, false), (3, false), (4, true), (5, true)] {
        assert_eq!(place.spool_holds(format!("digit {digit}").as_bytes()), is_kept, "digit {digit}");
    }
    gateway.end("card");
    let (_, recording) = place.recording("card");
    assert_eq!(recording.heard(0).map(|placed| placed.sound.clone()).collect::<Vec<_>>(), {
        sounds_in(&[&said[..2], &said[4..]].concat())
    });
}

#[test]
fn a_pause_of_the_whole_call_holds_for_both_channels() {
    let place = Place::new();
    let (_daemon, mut gateway) = begin(&place, Socket::Udp);
    let voices = [voice(SPEECH, 150.0, 60), voice(SPEECH, 250.0, 60)];
    let (mut caller, mut ai) = (Sender::new(1), Sender::new(2));
    let mut play = |gateway: &mut Gateway, from: usize, to: usize| {
        gateway.play_both("both", &caller.packets(&voices[0][from..to]), &ai.packets(&voices[1][from..to]));
    };
    play(&mut gateway, 0, 20);
    gateway.say_at(kind::PAUSE, WHOLE, START_US + 400_000, "both");
    play(&mut gateway, 20, 40);
    gateway.say_at(kind::RESUME, WHOLE, START_US + 800_000, "both");
    play(&mut gateway, 40, 60);
    gateway.end("both");
    let (_, recording) = place.recording("both");
    for (channel, voice) in voices.iter().enumerate() {
        assert!(recording.sounds(channel) == sounds_in(&[&voice[..20], &voice[40..]].concat()));
    }
}

#[test]
fn ai_audio_that_was_dropped_before_it_was_heard_is_left_out() {
    let place = Place::new();
    let (_daemon, mut gateway) = begin(&place, Socket::Udp);
    let caller = Sender::new(1).packets(&voice(SPEECH, 150.0, 150));
    // Two seconds of speech within 100 ms; the caller interrupts after one second.
    let packets = voice(SPEECH, 250.0, 100);
    let mut ai = Sender::new(2).packets(&packets);
    let burst = (START_US..).step_by(1000);
    ai.iter_mut().zip(burst).for_each(|(sent, at_us)| sent.at_us = at_us);
    gateway.play_both("cut", &caller, &ai);
    gateway.say_at(kind::CLEAR, AI, START_US + 1_000_000, "cut");
    gateway.end("cut");
    let (_, recording) = place.recording("cut");
    let heard = recording.sounds(1);
    assert!(heard == sounds_in(&packets)[..heard.len()], "the beginning of it");
    assert!(heard.len().abs_diff(50) <= 2, "one second, not {} frames", heard.len());
}

#[test]
fn marks_labels_and_what_the_socket_lost_are_in_the_manifest() {
    let place = Place::new();
    let (daemon, mut gateway) = begin(&place, Socket::Udp);
    gateway.meta("told", &json!({"labels": {"team": "red"}, "agent": {"id": 7}}));
    gateway.play("told", CALLER, &Sender::new(1).packets(&voice(SPEECH, 150.0, 100)));
    let mark = br#"{"name":"transfer","to":"sales"}"#;
    gateway.send(&frame(kind::MARK, AI, START_US + 1_500_000, b"told", mark));
    let report = [0x80, 201, 0, 1, 0, 0, 0, 1];
    gateway.send(&frame(kind::RTCP, CALLER, START_US, b"told", &report));
    gateway.send(&frame(kind::END, CALLER, 0, b"told", &105u64.to_be_bytes()));
    gateway.send(&frame(kind::END, AI, 0, b"told", &0u64.to_be_bytes()));
    gateway.sync();
    let (manifest, _) = place.recording("told");
    let mark = &manifest["marks"][0];
    assert_eq!(
        (&mark["name"], &mark["to"], &mark["channel"]),
        (&"transfer".into(), &"sales".into(), &"ai".into())
    );
    assert!(mark["offset_ms"].as_u64().unwrap().abs_diff(1500) <= 20, "{mark}");
    assert_eq!((&manifest["labels"]["team"], &manifest["meta"]["agent"]["id"]), (&"red".into(), &7.into()));
    assert_eq!(
        (&manifest["channels"]["caller"]["socket_lost"], &manifest["outcome"]),
        (&5.into(), &"degraded".into())
    );
    assert_eq!(manifest["channels"]["ai"]["socket_lost"], 0);
    assert!(!daemon.stop().contains("frames dropped"), "each kind of frame was taken");
}

#[test]
fn frames_that_are_refused_are_told_with_their_reasons_also_after_a_kill() {
    let place = Place::new().with("AUDIO_RESUME_SECS", "30");
    let (daemon, mut gateway) = begin(&place, Socket::UnixStream);
    let sent = Sender::new(1).packets(&voice(SPEECH, 150.0, 60));
    let broken = |gateway: &mut Gateway, packet: &[u8]| {
        // The padding bit is set, and what follows is no padding.
        let mut broken = packet.to_vec();
        broken[0] |= 0x20;
        *broken.last_mut().unwrap() = 255;
        gateway.send(&frame(kind::RTP, CALLER, 0, b"refused", &broken));
    };
    gateway.play("refused", CALLER, &sent[..20]);
    for packet in &sent[20..24] {
        broken(&mut gateway, &packet.rtp);
    }
    gateway.send(&frame(kind::META, WHOLE, 0, b"refused", b"[1]"));
    let dtls = [&[22, 0xfe, 0xfd][..], &[0; 60]].concat();
    gateway.send(&frame(kind::RTP, AI, 0, b"refused", &dtls));
    gateway.play("refused", CALLER, &sent[24..40]);
    gateway.sync();
    wait_for("all of it in the spool", || place.spool_holds(&sent[39].rtp).then_some(()));
    assert!(place.spool_holds(br#""bad_rtp":4"#));
    daemon.kill();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.play("refused", CALLER, &sent[40..]);
    gateway.send(&frame(kind::END, CALLER, 0, b"refused", &60u64.to_be_bytes()));
    gateway.say(kind::END, AI, "refused");
    let (manifest, _) = place.recording("refused");
    let channels = &manifest["channels"];
    // Of six, the fourth was the last to be noted before the kill: then there were twice as many as before.
    assert_eq!(channels["caller"]["refused"], json!({ "bad_rtp": 4 }), "{manifest}");
    assert_eq!((&channels["caller"]["packets"], &channels["caller"]["socket_lost"]), (&56.into(), &0.into()));
    let reasons = manifest["reasons"].as_array().unwrap();
    assert!(reasons.contains(&"caller_frames_refused".into()), "{manifest}");
    daemon.stop();
}

#[test]
fn metadata_of_the_wrong_form_is_said() {
    let place = Place::new();
    let (daemon, mut gateway) = begin(&place, Socket::Udp);
    gateway.meta("wrong", &json!({ "conversation_id": 12345, "payload_types": { "105": "PCMU" } }));
    gateway.meta("wrong", &json!({ "conversation_id": 12345 }));
    for channel in [CALLER, AI] {
        gateway.play("wrong", channel, &Sender::new(1).packets(&voice(SPEECH, 150.0, 10)));
    }
    gateway.end("wrong");
    let (manifest, _) = place.recording("wrong");
    assert_eq!(manifest["outcome"], "degraded");
    assert_eq!(manifest["reasons"], json!(["meta_not_understood"]));
    assert_eq!(manifest["meta"], json!({ "conversation_id": 12345 }));
    let log = daemon.stop();
    assert_eq!(log.matches("metadata of the wrong form").count(), 1, "{log}");
}

#[test]
fn a_call_beyond_the_longest_recording_goes_on_in_a_second_one() {
    let place = Place::new().with("AUDIO_MAX_DURATION_SECS", "1");
    let (_daemon, mut gateway) = begin(&place, Socket::Udp);
    let packets = voice(SPEECH, 150.0, 80);
    let mut caller = Sender::new(1);
    gateway.play("long", CALLER, &caller.packets(&packets[..50]));
    gateway.sync();
    let (_, first) = place.recording("long");
    gateway.play("long", CALLER, &caller.packets(&packets[50..]));
    gateway.end("long");
    place.nth_manifest("long", 2);
    let keys: Vec<_> =
        place.manifests_of("long").iter().map(|manifest| manifest["file"]["key"].clone()).collect();
    assert!(keys.contains(&"conversation_long_merged.opus".into()), "{keys:?}");
    assert!(keys.contains(&"conversation_long_merged-2.opus".into()), "{keys:?}");
    let second = rig::recording::Recording::read(&place.storage().join("conversation_long_merged-2.opus"));
    assert_eq!(
        [first.sounds(0), second.sounds(0)].concat(),
        sounds_in(&packets),
        "nothing is lost in between"
    );
    assert_eq!(second.first_heard_ms(0), 0);
}

#[test]
fn beyond_the_limit_new_calls_are_refused_and_the_open_one_goes_on() {
    let place = Place::new().with("AUDIO_MAX_CONNECTIONS", "1");
    let (daemon, mut gateway) = begin(&place, Socket::Udp);
    let packets = voice(SPEECH, 150.0, 40);
    let mut caller = Sender::new(1);
    gateway.play("first", CALLER, &caller.packets(&packets[..20]));
    gateway.play("second", CALLER, &Sender::new(2).packets(&packets));
    gateway.play("first", CALLER, &caller.packets(&packets[20..]));
    gateway.end("first");
    let (manifest, recording) = place.recording("first");
    assert_eq!(manifest["outcome"], "ok");
    assert!(recording.sounds(0) == sounds_in(&packets));
    let log = daemon.stop();
    assert!(log.lines().last().unwrap().contains("too_many_connections=40"), "{log}");
    assert_eq!(place.manifests().len(), 1);
}

#[test]
fn repeated_packets_are_counted_and_recorded_once() {
    let place = Place::new();
    let (_daemon, mut gateway) = begin(&place, Socket::Udp);
    let packets = voice(SPEECH, 150.0, 50);
    let mut sent = Sender::new(1).packets(&packets);
    sent.insert(11, sent[10].clone());
    sent.insert(30, sent[10].clone());
    sent.swap(40, 41);
    gateway.play("repeated", CALLER, &sent);
    gateway.end("repeated");
    let (manifest, recording) = place.recording("repeated");
    let counts = &manifest["channels"]["caller"];
    assert_eq!(
        (&counts["packets"], &counts["duplicate"], &counts["reordered"]),
        (&52.into(), &2.into(), &1.into())
    );
    assert_eq!((&counts["lost"], &manifest["outcome"]), (&0.into(), &"ok".into()));
    assert!(recording.sounds(0) == sounds_in(&packets));
    let starts: Vec<u64> = recording.heard(0).map(|placed| placed.at).collect();
    assert_eq!(starts, (0..50).map(|n| n * u64::from(SAMPLES_20_MS)).collect::<Vec<_>>());
}
