//! Starting, stopping and being killed: what was received is in a recording, whatever happens to the daemon.

mod rig;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rig::daemon::Daemon;
use rig::gateway::{CALLER, Gateway, Socket};
use rig::judges::judge;
use rig::media::{SPEECH, Sender, marked_packet, voice};
use rig::place::Place;
use rig::recording::{peak, sounds_in};

/// What the contract allows to be lost of what the daemon had read when it was killed.
const LOSS_MAX: Duration = Duration::from_millis(100);

#[test]
fn asked_to_finish_when_it_stops_the_daemon_publishes_the_calls_that_are_open() {
    let place = Place::new().with("AUDIO_ON_STOP", "finish");
    let daemon = Daemon::start(&place);
    let packets = voice(SPEECH, 150.0, 50);
    for (socket, id) in rig::gateway::SOCKETS.into_iter().zip(["one", "two", "three"]) {
        let mut gateway = Gateway::connect(&place, &daemon, socket);
        gateway.play(id, CALLER, &Sender::new(1).packets(&packets));
        gateway.sync();
    }
    daemon.stop();
    assert_eq!(place.manifests().len(), 3, "it had published them when it ended");
    for id in ["one", "two", "three"] {
        let (manifest, recording) = place.recording(id);
        assert_eq!(manifest["outcome"], "degraded", "{manifest}");
        assert_eq!(manifest["reasons"], serde_json::json!(["shutdown"]));
        assert!(recording.sounds(0) == sounds_in(&packets));
    }
    assert!(!place.spool_holds(b"STSP"), "and the spool has nothing left");
}

#[test]
fn killed_in_mid_call_it_has_all_but_the_last_100_ms() {
    let place = Place::new().with("AUDIO_RESUME_SECS", "0");
    for (socket, id) in rig::gateway::SOCKETS.into_iter().zip(["udp", "dgram", "stream"]) {
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, socket);
        let (mut sender, mut packets, mut answered) = (Sender::new(1), Vec::new(), Vec::new());
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(600) {
            let packet = marked_packet(&format!("{id} packet {:08}", packets.len()));
            gateway.play(id, CALLER, &[sender.packet(&packet, 960)]);
            packets.push(packet);
            gateway.sync();
            answered.push(Instant::now());
        }
        let killed = Instant::now();
        daemon.kill();
        let promised = answered.iter().filter(|at| **at + LOSS_MAX <= killed).count();

        let daemon = Daemon::start(&place);
        let (manifest, recording) = place.recording(id);
        assert_eq!(manifest["outcome"], "recovered");
        let kept = recording.sounds(0);
        println!("{id}: {} sent, {promised} promised, {} kept", packets.len(), kept.len());
        assert!(kept.len() >= promised, "{} of {promised} packets are there", kept.len());
        assert!(kept == sounds_in(&packets[..kept.len()]), "in order, without a hole");
        judge(&place.path_of(&manifest));
        daemon.stop();
    }
    assert_eq!(place.manifests().len(), 3);
}

#[test]
fn a_gateway_that_goes_on_after_the_restart_gets_one_recording_with_silence_for_the_time_between() {
    let place = Place::new().with("AUDIO_RESUME_SECS", "30");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixDgram);
    let packets = voice(SPEECH, 150.0, 200);
    let sent = Sender::new(1).packets(&packets);
    gateway.play("goes on", CALLER, &sent[..50]);
    gateway.sync();
    rig::wait_for("the spool to have the packets", || place.spool_holds(&packets[49][1..]).then_some(()));
    daemon.kill();

    // What the gateway sends while there is no daemon is lost: 100 packets.
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixDgram);
    gateway.play("goes on", CALLER, &sent[150..]);
    gateway.end("goes on");
    let (manifest, recording) = place.recording("goes on");
    assert_eq!(manifest["outcome"], "recovered", "{manifest}");
    assert!(recording.sounds(0) == sounds_in(&[&packets[..50], &packets[150..]].concat()));
    let starts: Vec<u64> = recording.heard(0).map(|placed| placed.at / 48).collect();
    assert_eq!((starts[49], starts[50]), (980, 3000), "the time between is kept");
    // Up to 100 ms are concealed as any loss is; what the decoder has made up by then needs a moment to fade.
    let decoded = recording.decode();
    assert!(peak(&decoded[0], 48 * 1300..48 * 2950) < 0.01, "and silent");
    daemon.stop();
    assert_eq!(place.manifests().len(), 1);
    assert!(!place.spool_holds(b"STSP"));
}

#[test]
fn killed_at_any_moment_of_finishing_a_call_is_published_once_and_whole() {
    let place = Place::new().with("AUDIO_LINGER_MS", "0").with("AUDIO_RESUME_SECS", "0");
    let packets = voice(SPEECH, 150.0, 500);
    let ids: Vec<String> = (0..16).map(|n| format!("call {n}")).collect();
    let call = |id: &str| [packets.clone(), vec![marked_packet(&format!("the last of {id}!"))]].concat();
    for (id, wait_ms) in ids.iter().zip((0u64..).step_by(4)) {
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        let packets = call(id);
        gateway.play(id, CALLER, &Sender::new(1).packets(&packets));
        gateway.sync();
        rig::wait_for("the spool to have it all", || place.spool_holds(&packets[500][1..]).then_some(()));
        gateway.end(id);
        // Not to wait for anything: to hit another step each time.
        std::thread::sleep(Duration::from_millis(wait_ms));
        daemon.kill();
    }
    let daemon = Daemon::start(&place);
    for id in &ids {
        let (manifest, recording) = place.recording(id);
        assert!(["ok", "recovered"].contains(&manifest["outcome"].as_str().unwrap()), "{manifest}");
        assert!(recording.sounds(0) == sounds_in(&call(id)), "{id}");
    }
    daemon.stop();
    assert_eq!(place.recordings().len(), ids.len(), "{:?}", place.recordings());
    assert_eq!(place.manifests().len(), ids.len());
    assert!(!place.spool_holds(b"STSP"), "and the spool has nothing left: {:?}", place.files());
    assert!(place.files().len() <= 2 * ids.len() + 2, "nor are there temporary files: {:?}", place.files());
}

#[test]
fn recover_finishes_without_a_daemon_what_the_spool_holds() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    let packets = voice(SPEECH, 150.0, 50);
    gateway.play("left", CALLER, &Sender::new(1).packets(&packets));
    gateway.sync();
    rig::wait_for("the spool to have the packets", || place.spool_holds(&packets[49][1..]).then_some(()));
    daemon.kill();
    let output = place.command("recover").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (manifest, recording) = place.recording("left");
    assert_eq!(manifest["outcome"], "recovered");
    assert!(recording.sounds(0) == sounds_in(&packets));
}

#[test]
fn switched_off_the_daemon_answers_and_keeps_nothing() {
    let place = Place::new().with("AUDIO_CACHE_ENABLED", "false");
    let daemon = Daemon::start(&place);
    let packets: Vec<_> = (0..20).map(|n| marked_packet(&format!("not to be kept {n}"))).collect();
    for socket in rig::gateway::SOCKETS {
        let mut gateway = Gateway::connect(&place, &daemon, socket);
        gateway.play("off", CALLER, &Sender::new(1).packets(&packets));
        gateway.end("off");
    }
    daemon.stop();
    assert!(!place.holds(b"not to be kept"));
    assert_eq!((place.recordings(), place.manifests()), (vec![], vec![]));
}

#[test]
fn a_second_daemon_on_the_same_spool_is_refused_and_the_first_goes_on() {
    let place = Place::new();
    let mut daemon = Daemon::start(&place);
    let rival = Place::new().with("AUDIO_SPOOL_DIR", place.spool().to_str().unwrap());
    let ended = Daemon::start_in_vain(&rival);
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains("spool"), "it says why: {}", ended.said);
    assert!(daemon.is_running());
    Gateway::connect(&place, &daemon, Socket::Udp).sync();
    daemon.kill();
    drop(Daemon::start(&rival));
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    for (variable, socket) in
        [("AUDIO_UNIX_DGRAM", Socket::UnixDgram), ("AUDIO_UNIX_STREAM", Socket::UnixStream)]
    {
        let place = Place::new();
        let path = if socket == Socket::UnixDgram { place.dgram() } else { place.stream() };
        Daemon::start(&place).kill();
        assert!(path.exists(), "a killed daemon leaves its socket");
        let daemon = Daemon::start(&place);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);

        let rival = Place::new().with(variable, path.to_str().unwrap());
        let ended = Daemon::start_in_vain(&rival);
        assert_eq!(ended.code, Some(1), "{}", ended.said);
        assert!(ended.said.contains(path.to_str().unwrap()), "it says which: {}", ended.said);
        Gateway::connect(&place, &daemon, socket).sync();
        daemon.stop();
    }
}

#[test]
fn a_file_at_a_socket_s_path_is_not_touched() {
    let place = Place::new();
    std::fs::write(place.dgram(), "precious").unwrap();
    let ended = Daemon::start_in_vain(&place);
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert_eq!(std::fs::read(place.dgram()).unwrap(), b"precious");
}

#[test]
fn a_sender_without_a_name_of_its_own_can_send_datagrams() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let packets = voice(SPEECH, 150.0, 20);
    let nameless = UnixDatagram::unbound().unwrap();
    nameless.connect(place.dgram()).unwrap();
    for sent in Sender::new(1).packets(&packets) {
        nameless
            .send(&rig::gateway::frame(rig::gateway::kind::RTP, CALLER, sent.at_us, b"nameless", &sent.rtp))
            .unwrap();
    }
    nameless
        .send(&rig::gateway::frame(rig::gateway::kind::PING, rig::gateway::WHOLE, 0, b"nameless", b""))
        .unwrap();
    Gateway::connect(&place, &daemon, Socket::UnixDgram).end("nameless");
    let (_, recording) = place.recording("nameless");
    assert!(recording.sounds(0) == sounds_in(&packets));
}

#[test]
fn every_fault_of_a_configuration_is_told_at_once() {
    let place = Place::new()
        .with("AUDIO_FORMAT", "mp3")
        .with("AUDIO_TAIL_MS", "soon")
        .with("AUDIO_STORAGE_TYPE", "tape")
        .with("AUDIO_UDP_LISTEN", "0.0.0.0:0")
        .with("AUDIO_LOG", "sidetape=loud=louder");
    let ended = Daemon::start_in_vain(&place);
    assert_eq!(ended.code, Some(2), "{}", ended.said);
    for told in [
        ("AUDIO_FORMAT", "mp3"),
        ("AUDIO_TAIL_MS", "soon"),
        ("AUDIO_STORAGE_TYPE", "tape"),
        ("AUDIO_UDP_LISTEN", "0.0.0.0:0"),
        ("AUDIO_LOG", "sidetape=loud=louder"),
    ] {
        let line = ended.said.lines().find(|line| line.contains(told.0));
        assert!(line.is_some_and(|line| line.contains(told.1)), "{told:?} in {}", ended.said);
    }
    let output = place.command("serve").arg("--no-such-flag").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_variable_that_nobody_knows_and_a_level_that_is_none_stop_the_start_and_tell_the_nearest() {
    let place = Place::new()
        .with("AUDIO_LOG", "warning")
        .with("AUDIO_RETENTION_SEC", "60")
        .with("AUDIO_TAP_KYE", "hunter2 hunter2 hunter2")
        .with("AUDIO_GATEWAY_SERVICE_HOST", "10.0.0.1");
    for command in ["serve", "check", "recover"] {
        let output = place.command(command).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        for (variable, value, nearest) in [
            ("AUDIO_LOG=", "\"warning\"", "warn"),
            ("AUDIO_RETENTION_SEC=", "\"60\"", "AUDIO_RETENTION_SECS"),
            ("AUDIO_TAP_KYE=", "", "AUDIO_TAP_KEY"),
        ] {
            let line = said.lines().find(|line| line.starts_with(variable)).expect(variable);
            assert!(line.contains(value) && line.ends_with(nearest), "{line}");
        }
        assert!(said.lines().count() == 3 && !said.contains("hunter2"), "{said}");
    }
    assert_eq!(place.files(), Vec::<std::path::PathBuf>::new());
    // A sender that would send to another address than it was told to.
    let place = Place::new().with("AUDIO_UNIX_STRAEM", "/run/tap");
    let output = place.command("replay").arg("call.pcap").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().trim_end().ends_with("AUDIO_UNIX_STREAM"));
}

#[test]
fn a_spool_that_is_not_there_is_not_recovered_and_no_check_leaves_one() {
    let place = Place::new();
    let missing = place.root().join("no/such");
    let output = place.command("recover").env("AUDIO_SPOOL_DIR", &missing).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("AUDIO_SPOOL_DIR=") && said.contains(missing.to_str().unwrap()), "{said}");
    assert!(!place.root().join("no").exists());
    let output = place.command("check").env("AUDIO_SPOOL_DIR", &missing).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!place.root().join("no").exists());
}

#[test]
fn each_line_of_a_json_log_names_its_fields_once_and_the_connection_as_it_is() {
    let place = Place::new().with("AUDIO_LOG_FORMAT", "json").with("AUDIO_LOG", "debug");
    let daemon = Daemon::start_with_json_log(place.command("serve"));
    let packets = voice(SPEECH, 150.0, 20);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let id = "a call of \u{e9}";
    gateway.play(id, CALLER, &Sender::new(1).packets(&packets));
    gateway.end(id);
    place.recording(id);
    // Refused, and said with WARN.
    let late = Sender::new(1).packets(&packets[..1]);
    gateway.play(id, CALLER, &late);
    rig::wait_for("a refusal", || daemon.log().contains("frames dropped").then_some(()));
    let log = daemon.stop();
    let mut levels = std::collections::BTreeSet::new();
    for line in log.lines() {
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).expect(line);
        // A name that is there twice is in the text more often than in what was read of it.
        let again = serde_json::to_string(&fields).unwrap();
        assert_eq!(again.matches("\":").count(), line.matches("\":").count(), "{line}");
        if let Some(connection) = fields.get("connection") {
            assert_eq!(connection, id, "{line}");
            levels.insert(fields["level"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(levels.into_iter().collect::<Vec<_>>(), ["DEBUG", "INFO", "WARN"]);
}

#[test]
fn a_replay_says_which_packets_it_did_not_send_because_the_capture_cut_them() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let whole = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo-call.pcap")).unwrap();
    // Each tenth packet lacks its last bytes, and the last record of all likewise.
    let (mut bytes, mut rest, mut cut) = (whole[..24].to_vec(), &whole[24..], 0);
    for number in 1.. {
        let Some(header) = rest.first_chunk::<16>() else { break };
        let length = u32::from_le_bytes(header[8..12].try_into().unwrap());
        let (record, after) = rest.split_at(16 + length as usize);
        let lacks = if number % 10 == 0 { 9 } else { 0 };
        cut += u64::from(lacks > 0);
        bytes.extend([&record[..8], &(length - lacks).to_le_bytes(), &record[12..16]].concat());
        bytes.extend(&record[16..record.len() - lacks as usize]);
        rest = after;
    }
    bytes.extend(&whole[24..50]);
    let capture = place.root().join("cut.pcap");
    std::fs::write(&capture, bytes).unwrap();
    let to = format!("unix-stream:{}", place.stream().display());
    let output = place.command("replay").args(["--to", &to, "--id", "cut"]).arg(&capture).output().unwrap();
    let [said, told] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("its last 26 bytes are not read") && told.contains("capture whole packets"),
        "{told}"
    );
    let number = |text: &str, words: &str| {
        let number = text.split_once(words).unwrap().1.split(|c: char| !c.is_ascii_digit()).next().unwrap();
        number.parse::<u64>().unwrap()
    };
    assert_eq!(number(&told, "not sent: ") + number(&told, "caller and "), cut, "{told}");
    let (manifest, _) = place.recording("cut");
    let of = |name: &str| manifest["channels"]["caller"][name].as_u64().unwrap();
    assert_eq!(of("packets"), number(&said, "cut: sent "), "{said}");
    assert!(of("lost") > 0 && manifest["outcome"] == "degraded", "{manifest}");
    daemon.stop();
}

#[test]
fn a_replayed_call_longer_than_a_recording_may_be_makes_several_of_one_connection() {
    let place = Place::new().with("AUDIO_MAX_DURATION_SECS", "4").with("AUDIO_LINGER_MS", "100");
    let daemon = Daemon::start(&place);
    let capture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo-call.pcap");
    let to = format!("unix-stream:{}", place.stream().display());
    let output = place.command("replay").args(["--to", &to, "--id", "long", capture]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("of one connection id"), "{said}");
    let after = |words: &str| {
        let number = said.split_once(words).unwrap().1.split(|c: char| !c.is_ascii_digit()).next().unwrap();
        number.parse::<u64>().unwrap()
    };
    let (count, sent) = (after("sent as "), [after("long: sent "), after("caller and ")]);
    let manifests = rig::wait_for("all recordings", || {
        Some(place.manifests_of("long")).filter(|manifests| manifests.len() as u64 >= count)
    });
    let received = ["caller", "ai"].map(|name| {
        manifests.iter().map(|of| of["channels"][name]["packets"].as_u64().unwrap()).sum::<u64>()
    });
    assert_eq!((count > 1, received), (true, sent), "{said}");
    let mut parts: Vec<u64> = manifests.iter().map(|of| of["part"].as_u64().unwrap_or(1)).collect();
    parts.sort_unstable();
    assert_eq!(parts, (1..=count).collect::<Vec<_>>());
    assert!(manifests.iter().all(|of| of["duration_ms"].as_u64().unwrap() <= 6_100), "{manifests:?}");
    daemon.stop();
}
