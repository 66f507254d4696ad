//! Stretches of live calls: what is heard in them, and the route that hands them out.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};
use sidetape::config::RecordingFormat::{self, Compat, Lossless};
use sidetape::id::Channel;
use sidetape::io::stretch::{Stretch, StretchError, Wanted, stretch};
use sidetape::time::Wall;

use rig::captures::streams;
use rig::daemon::Daemon;
use rig::gateway::{AI, CALLER, Gateway, Socket, WHOLE, kind};
use rig::http::{ask, http_address};
use rig::judges::judge;
use rig::media::{HYBRID, MUSIC, SPEECH, START_US, Sender, Sent, voice};
use rig::place::Place;
use rig::recording::{peak, sounds_in};
use rig::spool::{decode, options, record, write_spool};

const SECOND_US: i64 = 1_000_000;

/// Cuts a stretch out of a spool file, has it judged, and decodes it.
fn cut(
    spool: &Path,
    wanted: Wanted,
    format: RecordingFormat,
) -> Result<(Stretch, [Vec<f32>; 2]), StretchError> {
    let mut made = stretch(spool, wanted, None, &options(format))?;
    let mut bytes = Vec::new();
    made.file.read_to_end(&mut bytes).unwrap();
    assert_eq!(made.bytes, bytes.len() as u64);
    let path = spool.with_extension("stretch.opus");
    std::fs::write(&path, &bytes).unwrap();
    judge(&path);
    let decoded = decode(&path);
    Ok((made, decoded))
}

/// The rms of a difference against that of the original, in decibels; the least of those that a shift by up to `slack`
/// samples gives.
fn error_db(whole: &[f32], from: usize, other: &[f32], slack: usize) -> f64 {
    let power = |samples: &mut dyn Iterator<Item = f32>| -> f64 { samples.map(|s| f64::from(s * s)).sum() };
    // Of two silences, below -50 dB of full scale, one is as good as the other.
    let silence = other.len() as f64 * 1e-5;
    let error = |first: usize| {
        let original = &whole[first..first + other.len()];
        let error = power(&mut original.iter().zip(other).map(|(a, b)| a - b));
        10.0 * (error / (power(&mut original.iter().copied()) + silence)).log10()
    };
    (from.saturating_sub(slack)..=from + slack).map(error).fold(f64::MAX, f64::min)
}

/// Cuts stretches out of a call and compares them with the same seconds of its recording.
fn compare(
    payload_types: [&Value; 2],
    channels: [&[Sent]; 2],
    format: RecordingFormat,
    slack: usize,
    error_most_db: f64,
) {
    let place = tempfile::tempdir().unwrap();
    let (rendered, whole) = record(place.path(), payload_types, channels, &options(format));
    let spool = place.path().join("call.spool");
    for (from_ms, to_ms) in [(0, 700), (40, 90), (2000, 4000), (3123, 5456)] {
        for channel in [None, Some(Channel::Caller), Some(Channel::Ai)] {
            let at = |ms: i64| rendered.start.plus_us(ms * 1000);
            let wanted = Wanted { channel, from: at(from_ms), to: at(to_ms) };
            let (made, decoded) = cut(&spool, wanted, format).unwrap();
            assert_eq!((made.from, made.to), (wanted.from, wanted.to));
            let from = usize::try_from(from_ms * 48).unwrap();
            for side in Channel::BOTH.into_iter().filter(|side| channel.is_none_or(|only| only == *side)) {
                let decoded = &decoded[side.index()];
                assert_eq!(decoded.len(), usize::try_from((to_ms - from_ms) * 48).unwrap());
                let error = error_db(&whole[side.index()], from, decoded, slack);
                let what = format!("{format:?} {from_ms}..{to_ms} ms of {side} as {channel:?}");
                assert!(error < error_most_db, "{what}: {error:.1} dB");
            }
        }
    }
}

#[test]
fn a_stretch_of_opus_sounds_as_the_recording_does_there() {
    let none = json!({});
    let caller = Sender::new(1).packets(&voice(SPEECH, 150.0, 300));
    let ai = Sender::starting(2, 333).packets(&voice(MUSIC, 220.0, 300));
    let hybrid = Sender::starting(3, 20).packets(&voice(HYBRID, 180.0, 300));
    compare([&none, &none], [&caller, &ai], Lossless, 0, -30.0);
    compare([&none, &none], [&hybrid, &caller], Lossless, 0, -30.0);
    compare([&none, &none], [&caller, &ai], Compat, 10, -8.0);
}

#[test]
fn a_stretch_of_other_codecs_sounds_as_the_recording_does_there() {
    let (Some(ulaw), Some(g722)) = (streams("call1_ulaw.a.rtp"), streams("call1_g722.a.rtp")) else { return };
    // Two encodings of the same sound, and each within 8 samples of its place.
    compare([&json!({}), &json!({})], [&ulaw[0].1, &g722[0].1], Lossless, 10, -8.0);
    compare([&json!({}), &json!({})], [&ulaw[0].1, &g722[0].1], Compat, 10, -8.0);
}

#[test]
fn a_stretch_has_nothing_of_the_other_channel_and_is_bounded_by_what_there_is() {
    let place = tempfile::tempdir().unwrap();
    let spool = place.path().join("call.spool");
    // Frames that share no grid: alone each of them stays as it came.
    let caller = Sender::new(1).packets(&voice(rig::media::Coding { units: 24, ..MUSIC }, 150.0, 60));
    let ai = Sender::starting(2, 10).packets(&voice(MUSIC, 300.0, 180));
    write_spool(&spool, [&json!({}), &json!({})], [&caller, &ai]);
    let start = i64::try_from(START_US).unwrap();
    let wanted = |channel, from, to| Wanted { channel, from: Wall(from), to: Wall(to) };
    let (made, decoded) = cut(&spool, wanted(Some(Channel::Ai), i64::MIN, i64::MAX), Lossless).unwrap();
    assert!((made.from.0 - start).abs() < 20_000, "it begins with the recording");
    let length_us = made.to.0 - made.from.0;
    assert!((length_us - 3_600_000).abs() < 40_000, "{length_us} µs: it ends with the audio");
    assert!(peak(&decoded[0], 9600..19_200) > 0.05);

    let outside = cut(&spool, wanted(None, start - 9 * SECOND_US, start - 5 * SECOND_US), Lossless);
    assert!(matches!(outside, Err(StretchError::Outside { .. })));
    let outside = cut(&spool, wanted(None, start + 60 * SECOND_US, start + 61 * SECOND_US), Lossless);
    assert!(matches!(outside, Err(StretchError::Outside { .. })));
    let empty = cut(&spool, wanted(None, start + SECOND_US, start + SECOND_US), Lossless);
    assert!(matches!(empty, Err(StretchError::Empty { .. })));
    let before: Vec<_> =
        std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(before.len(), 2, "the spool and what this test wrote, nothing else: {before:?}");
}

#[test]
fn a_stretch_without_packets_is_silence_of_its_length() {
    let place = tempfile::tempdir().unwrap();
    let spool = place.path().join("call.spool");
    let mut sender = Sender::new(1);
    let mut caller = sender.packets(&voice(SPEECH, 150.0, 50));
    sender.skip_time(48_000 * 60);
    caller.extend(sender.packets(&voice(SPEECH, 150.0, 50)));
    write_spool(&spool, [&json!({}), &json!({})], [&caller, &[]]);
    let start = i64::try_from(START_US).unwrap();
    for format in [Lossless, Compat] {
        for channel in [None, Some(Channel::Caller), Some(Channel::Ai)] {
            let (from, to) = (Wall(start + 20 * SECOND_US), Wall(start + 22 * SECOND_US));
            let (_, decoded) = cut(&spool, Wanted { channel, from, to }, format).unwrap();
            assert_eq!(decoded[0].len(), 96_000);
            assert!(peak(&decoded[0], 0..96_000) < 0.001, "{format:?} {channel:?}");
        }
    }
}

/// A file that is still written ends anywhere.
#[test]
fn a_torn_end_of_the_spool_takes_nothing_but_the_torn_packet() {
    let place = tempfile::tempdir().unwrap();
    let spool = place.path().join("call.spool");
    let caller = Sender::new(1).packets(&voice(SPEECH, 150.0, 100));
    write_spool(&spool, [&json!({}), &json!({})], [&caller, &[]]);
    let whole = std::fs::read(&spool).unwrap();
    let all = Wanted { channel: Some(Channel::Caller), from: Wall(i64::MIN), to: Wall(i64::MAX) };
    let mut longest = 0;
    for length in (whole.len() / 2..whole.len()).step_by(37) {
        std::fs::write(&spool, &whole[..length]).unwrap();
        let made = stretch(&spool, all, None, &options(Lossless)).unwrap();
        let length_us = made.to.0 - made.from.0;
        assert!(length_us >= longest && length_us >= 900_000, "{length_us} µs of {length} bytes");
        longest = length_us;
    }
    assert!(longest >= 1_960_000, "{longest} µs");
}

#[test]
fn the_audio_route_serves_a_live_call_and_does_not_disturb_it() {
    let place = Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0");
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let get = |target: &str| ask(TcpStream::connect(&address).unwrap(), "GET", target);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let id = "a/b ü";
    let route = "/v1/connections/a%2Fb%20%C3%BC/audio";
    let payloads = voice(SPEECH, 150.0, 300);
    let sent = Sender::new(1).packets(&payloads);
    gateway.play(id, CALLER, &sent[..200]);
    gateway.sync();

    let from = START_US + 1_000_000;
    let query =
        format!("?channel=caller&from={from}&to={}&pre_roll_ms=250&post_roll_ms=750", from + 1_000_000);
    let answer = get(&format!("{route}{query}"));
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(answer.header("content-type"), Some("audio/ogg; codecs=opus"));
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    assert_eq!(answer.header("sidetape-from"), Some((from - 250_000).to_string().as_str()));
    assert_eq!(answer.header("sidetape-to"), Some((from + 1_750_000).to_string().as_str()));
    let path = place.root().join("stretch.opus");
    std::fs::write(&path, &answer.body).unwrap();
    judge(&path);
    let decoded = decode(&path);
    assert_eq!(decoded[0].len(), 96_000);
    assert!((0..10).all(|n| peak(&decoded[0], n * 9600..(n + 1) * 9600) > 0.05), "sound from end to end");

    // All of it, with silence up to now.
    let answer = get(route);
    std::fs::write(&path, &answer.body).unwrap();
    let seconds = decode(&path)[0].len() as f64 / 48_000.0;
    assert!((4.0..60.0).contains(&seconds), "{seconds} s");

    for (query, status, word) in [
        ("?channel=left", 400, "channel"),
        ("?from=now", 400, "from"),
        ("?form=1", 400, "form"),
        ("?from=2&to=1", 400, "ends"),
        ("?pre_roll_ms=86400001", 400, "pre_roll_ms"),
        ("?pre_roll_ms=-1", 400, "pre_roll_ms"),
        ("?from=1&to=2", 416, "audio"),
    ] {
        let answer = get(&format!("{route}{query}"));
        assert_eq!(answer.status, status, "{query}: {}", answer.head);
        let problem = answer.problem();
        assert!(problem["detail"].as_str().unwrap().contains(word), "{query}: {problem}");
    }
    assert_eq!(get("/v1/connections/nobody/audio").status, 404);
    assert_eq!(get("/v1/connections/%ff/audio").problem()["status"], 400);
    assert_eq!(get("/v2").problem()["status"], 404);
    assert_eq!(ask(TcpStream::connect(&address).unwrap(), "POST", route).problem()["status"], 405);
    gateway.meta("silent", &json!({"labels": {}}));
    gateway.sync();
    assert_eq!(get("/v1/connections/silent/audio").problem()["status"], 416);
    gateway.end("silent");

    // A client that does not read its answer does not hold up the stop.
    let mut idle = TcpStream::connect(&address).unwrap();
    write!(idle, "GET {route} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    gateway.play(id, CALLER, &sent[200..]);
    gateway.end(id);
    let (manifest, recording) = place.recording(id);
    assert_eq!(manifest["outcome"], "ok");
    assert!(recording.sounds(usize::from(CALLER)) == sounds_in(&payloads), "each packet, as it came");
    assert_eq!(get(route).problem()["status"], 404, "the call is over");
    daemon.stop();
}

#[test]
fn what_was_paused_is_in_no_stretch() {
    let place = Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0");
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let sent = Sender::new(1).packets(&voice(MUSIC, 150.0, 150));
    gateway.play("c", AI, &sent[..50]);
    gateway.say_at(kind::PAUSE, WHOLE, sent[49].at_us, "c");
    gateway.play("c", AI, &sent[50..100]);
    gateway.say_at(kind::RESUME, WHOLE, sent[99].at_us, "c");
    gateway.play("c", AI, &sent[100..]);
    gateway.sync();
    let target = format!("/v1/connections/c/audio?channel=ai&from={START_US}&to={}", START_US + 3_000_000);
    let answer = ask(TcpStream::connect(&address).unwrap(), "GET", &target);
    assert_eq!(answer.status, 200, "{}", answer.head);
    let path = place.root().join("stretch.opus");
    std::fs::write(&path, &answer.body).unwrap();
    let [sound, _] = decode(&path);
    assert_eq!(sound.len(), 144_000);
    assert!(peak(&sound, 4800..43_200) > 0.05 && peak(&sound, 105_600..139_200) > 0.05);
    assert!(peak(&sound, 52_800..91_200) < 0.001, "the second second is silent");
}

#[test]
fn health_and_readiness_are_told_over_a_unix_socket_too() {
    let mut place = Place::new();
    let socket = place.root().join("run/http");
    place.set("AUDIO_HTTP_LISTEN", &format!("unix:{}", socket.display()));
    let daemon = Daemon::start(&place);
    let get = |target: &str| ask(UnixStream::connect(&socket).unwrap(), "GET", target);
    assert_eq!(get("/healthz").status, 200);
    assert_eq!(get("/readyz").status, 200);
    daemon.kill();
    // The dead socket is replaced; and who takes no calls is not ready.
    place.set("AUDIO_MAX_CONNECTIONS", "1");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.meta("the one", &json!({}));
    gateway.sync();
    assert_eq!(get("/healthz").status, 200);
    let answer = get("/readyz");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.problem()["detail"], "too_many_connections");
}
