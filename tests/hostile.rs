//! Frames, packets and clocks that are wrong, by accident or on purpose: counted, and without consequence for others.

mod rig;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

use rig::daemon::{Daemon, dropped, field};
use rig::gateway::{AI, CALLER, Gateway, SOCKETS, Socket, WHOLE, frame, kind};
use rig::judges::judge;
use rig::media::{SPEECH, START_US, Sender, Sent, voice};
use rig::place::Place;
use rig::recording::sounds_in;

/// An RTP packet of 20 ms of Opus.
fn rtp() -> Vec<u8> {
    Sender::new(7).packet(&[31 << 3, 0xff, 0xfe], 960).rtp
}

/// Every way in which a frame can be malformed, under the reason that the log gives for it.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let good = frame(kind::RTP, CALLER, START_US, b"nobody", &rtp());
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let meta = |body: &[u8]| frame(kind::META, WHOLE, 0, b"nobody", body);
    let rtp_of = |body: &[u8]| frame(kind::RTP, AI, 0, b"nobody", body);
    let rtcp_of = |body: &[u8]| frame(kind::RTCP, AI, 0, b"nobody", body);
    vec![
        ("short", vec![]),
        ("short", b"S".to_vec()),
        ("short", good[..15].to_vec()),
        ("bad_magic", with(0, b'X')),
        ("bad_magic", vec![0; 65_000]),
        ("bad_version", with(2, 0)),
        ("bad_version", with(2, 2)),
        ("unknown_kind", with(3, 0)),
        ("unknown_kind", with(3, kind::PONG)),
        ("unknown_kind", with(3, 255)),
        ("bad_channel", with(4, 2)),
        ("bad_channel", with(4, WHOLE)),
        ("bad_channel", frame(kind::HOLD, CALLER, 0, b"nobody", b"")),
        ("bad_channel", frame(kind::CLEAR, CALLER, 0, b"nobody", b"")),
        ("bad_channel", frame(kind::PING, AI, 0, b"nobody", b"")),
        ("bad_id_length", frame(kind::RTP, CALLER, 0, b"", &rtp())),
        ("bad_id_length", frame(kind::RTP, CALLER, 0, &[b'x'; 129], &rtp())),
        ("id_truncated", good[..20].to_vec()),
        ("id_truncated", with(5, 255)),
        ("trailer_truncated", with(7, 1)),
        ("id_not_utf8", frame(kind::RTP, CALLER, 0, b"caf\xe9", &rtp())),
        ("id_control_character", frame(kind::RTP, CALLER, 0, b"two\nlines", &rtp())),
        ("id_control_character", frame(kind::RTP, CALLER, 0, b"nul\0", &rtp())),
        ("id_control_character", frame(kind::META, WHOLE, 0, "\u{9b}31m".as_bytes(), b"{}")),
        ("bad_body", frame(kind::END, WHOLE, 0, b"nobody", b"1234567")),
        ("bad_body", frame(kind::HOLD, WHOLE, 0, b"nobody", b"x")),
        ("bad_body", frame(kind::RESUME, WHOLE, 0, b"nobody", b"{}")),
        ("bad_body", frame(kind::PING, WHOLE, 0, b"nobody", &[0; 65])),
        ("bad_json", meta(b"")),
        ("bad_json", meta(b"{")),
        ("bad_json", meta(b"[1]")),
        ("bad_json", meta(&[b'['; 60_000])),
        ("bad_json", meta(b"{\"a\":\"\xff\"}")),
        ("bad_json", frame(kind::MARK, AI, 0, b"nobody", br#"{"title":"no name"}"#)),
        ("bad_json", frame(kind::PAUSE, AI, 0, b"nobody", br#"{"mode":"loud"}"#)),
        ("bad_rtp", rtp_of(b"")),
        ("bad_rtp", rtp_of(&rtp()[..11])),
        ("bad_rtp", rtp_of(&[&[0x40], &rtp()[1..]].concat())),
        ("bad_rtp", rtp_of(&[&[0x8f], &rtp()[1..]].concat())),
        ("bad_rtp", rtp_of(&[&[0xa0], &rtp()[1..], &[200]].concat())),
        ("rtcp_as_rtp", rtp_of(&[0x80, 200, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("bad_rtcp", rtcp_of(b"")),
        ("bad_rtcp", rtcp_of(&rtp())),
        ("bad_rtcp", rtcp_of(&[0x80, 201, 0, 9, 0, 0, 0, 1])),
        ("unknown_connection", frame(kind::END, WHOLE, 0, b"nobody", b"")),
        ("unknown_connection", frame(kind::PAUSE, WHOLE, 0, b"nobody", b"")),
    ]
}

#[test]
fn every_malformed_frame_is_counted_by_its_reason_and_changes_nothing_else() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let malformed = malformed();
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let packets = voice(SPEECH, 150.0, malformed.len());
    for socket in SOCKETS {
        let id = format!("{socket:?}");
        let mut gateway = Gateway::connect(&place, &daemon, socket);
        let sent = Sender::new(1).packets(&packets);
        for (number, (reason, bytes)) in malformed.iter().enumerate() {
            gateway.play(&id, CALLER, &sent[number..=number]);
            // Another number of times each, so that no count can be mistaken for another.
            for _ in 0..=number {
                gateway.send(bytes);
                *expected.entry((*reason).to_owned()).or_default() += 1;
            }
        }
        gateway.end(&id);
        let (manifest, recording) = place.recording(&id);
        assert_eq!(manifest["outcome"], "ok", "{manifest}");
        assert!(recording.sounds(0) == sounds_in(&packets));
    }
    assert_eq!(dropped(&daemon.stop()), expected);
    assert_eq!(place.manifests().len(), SOCKETS.len(), "no malformed frame opened a connection");
}

#[test]
fn a_flood_is_logged_once_a_second_and_a_call_beside_it_is_whole() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let udp = daemon.udp();
    let is_over = AtomicBool::new(false);
    let packets = voice(SPEECH, 150.0, 1000);
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flood = UdpSocket::bind("127.0.0.1:0").unwrap();
            while !is_over.load(Ordering::Relaxed) {
                for (_, bytes) in malformed() {
                    flood.send_to(&bytes, udp).unwrap();
                }
            }
        });
        for socket in [Socket::UnixStream, Socket::UnixDgram] {
            let id = format!("{socket:?}");
            let mut gateway = Gateway::connect(&place, &daemon, socket);
            gateway.play(&id, CALLER, &Sender::new(1).packets(&packets));
            gateway.end(&id);
            let (manifest, recording) = place.recording(&id);
            assert_eq!(manifest["outcome"], "ok");
            assert!(recording.sounds(0) == sounds_in(&packets));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    let log = daemon.stop();
    let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("frames dropped")) {
        *lines.entry(field(line, "reason").unwrap()).or_default() += 1;
    }
    assert!(lines.len() >= 10, "{lines:?}");
    assert!(lines.values().all(|count| *count <= seconds + 2), "{seconds} s: {lines:?}");
    assert_eq!(place.manifests().len(), 2);
}

#[test]
fn a_stream_that_breaks_off_or_makes_no_sense_touches_no_other() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let packets = voice(SPEECH, 150.0, 60);
    let sent = Sender::new(1).packets(&packets);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let mut unfinished = Vec::new();
    for (number, bytes) in
        [&[0u8][..], &[0, 0], &[0xff, 0xff, 1, 2, 3], &[0; 3001], &[0xaa; 70_000], b"GET / HTTP/1.1\r\n\r\n"]
            .into_iter()
            .enumerate()
    {
        gateway.play("good", CALLER, &sent[number * 10..number * 10 + 10]);
        for is_closed in [true, false] {
            let mut stream = UnixStream::connect(place.stream()).unwrap();
            stream.write_all(bytes).unwrap();
            if !is_closed {
                unfinished.push(stream);
            }
        }
    }
    gateway.end("good");
    let (manifest, recording) = place.recording("good");
    assert_eq!(manifest["outcome"], "ok");
    assert!(recording.sounds(0) == sounds_in(&packets));
    let counts = dropped(&daemon.stop());
    assert!(counts.contains_key("stream_truncated"), "{counts:?}");
    assert_eq!(place.manifests().len(), 1);
}

/// Frames of any bytes, frames changed here and there, and frames that are whole with a body that is not.
fn hostile_frame() -> impl Strategy<Value = Vec<u8>> {
    let bodies = prop_oneof![
        Just(rtp()),
        Just(b"{}".to_vec()),
        Just(vec![]),
        Just(br#"{"conversation_id":"x","payload_types":{"111":"L16/8000/2","300":7},"labels":[]}"#.to_vec()),
        vec(any::<u8>(), 0..200),
        (vec(any::<u8>(), 0..100), any::<u8>(), any::<u8>()).prop_map(|(rest, first, second)| {
            // A packet that begins as RTP or RTCP does.
            [&[0x80 | (first & 0x3f), second], rest.as_slice()].concat()
        }),
    ];
    let whole = (1..=11u8, prop_oneof![Just(CALLER), Just(AI), Just(WHOLE)], any::<u64>(), 0..20u8, bodies)
        .prop_map(|(kind, channel, at_us, id, body)| {
            frame(kind, channel, at_us, format!("victim {id}").as_bytes(), &body)
        });
    let changed = (whole.clone(), vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), any::<bool>())
        .prop_map(|(mut bytes, changes, is_cut)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                if is_cut {
                    bytes.truncate(at.max(1));
                }
            }
            bytes
        });
    // A PING would be answered, which the rig does not expect.
    let is_ping = |bytes: &Vec<u8>| bytes.get(3) == Some(&kind::PING);
    prop_oneof![1 => vec(any::<u8>(), 0..400), 3 => whole, 3 => changed]
        .prop_filter("no ping", move |bytes| !is_ping(bytes))
}

/// A runner of as many cases as `PROPTEST_CASES` says (256 if it does not), divided by what one case costs.
fn runner(cost: u32) -> TestRunner {
    let config = Config::default();
    let cases = (config.cases / cost).max(1);
    TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 200, ..config })
}

#[test]
fn no_bytes_end_the_daemon_or_touch_another_call() {
    // The victims are looked at, too, of which most have no end.
    let place = Place::new().with("AUDIO_MAX_DURATION_SECS", "600").with("AUDIO_ON_STOP", "finish");
    let daemon = Daemon::start(&place);
    let gateways = RefCell::new(SOCKETS.map(|socket| Gateway::connect(&place, &daemon, socket)));
    let witness = "a witness whose name is too long to be met by changing three bytes";
    let packets = voice(SPEECH, 150.0, 200);
    let sent = RefCell::new(Sender::new(1).packets(&packets).into_iter());
    runner(1)
        .run(&vec(hostile_frame(), 1..30), |frames| {
            let mut gateways = gateways.borrow_mut();
            for (number, bytes) in frames.iter().enumerate() {
                gateways[number % 3].send(bytes);
            }
            if let Some(sent) = sent.borrow_mut().next() {
                gateways[2].play(witness, CALLER, &[sent]);
            }
            gateways.iter_mut().for_each(Gateway::sync);
            Ok(())
        })
        .unwrap();
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.play(witness, CALLER, &sent.into_inner().collect::<Vec<_>>());
    gateway.end(witness);
    let (manifest, recording) = place.recording(witness);
    assert_eq!(manifest["outcome"], "ok", "{manifest}");
    assert!(recording.sounds(0) == sounds_in(&packets));
    let log = daemon.stop();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
    // What the victims left is as it should be, whatever was sent.
    for manifest in place.manifests().iter().filter(|manifest| manifest["file"].is_object()) {
        place.recording_of(manifest);
        assert!(manifest["duration_ms"].as_u64().unwrap() <= 602_000, "{manifest}");
    }
}

/// Sends packets as caller beside an ordinary AI, and returns the manifest after checking the recording's form.
fn record(place: &Place, gateway: &mut Gateway, id: &str, caller: &[Sent], ai: &[Sent]) -> Value {
    gateway.play_both(id, caller, ai);
    gateway.end(id);
    place.manifest(id)
}

#[test]
fn whatever_rtp_holds_the_recording_is_valid_and_the_other_channel_whole() {
    let place = Place::new().with("AUDIO_MAX_DURATION_SECS", "600");
    let daemon = Daemon::start(&place);
    let gateway = RefCell::new(Gateway::connect(&place, &daemon, Socket::UnixStream));
    let packets = voice(SPEECH, 150.0, 50);
    let ai = Sender::new(2).packets(&packets);
    let count = RefCell::new(0);
    // Numbers are near each other more often than not, so that epochs form; payloads are Opus by their form at times.
    let near =
        |bits: u32| prop_oneof![3 => 0..40u32, 1 => 0..1u32 << bits, 1 => (1u32 << bits) - 40..1u32 << bits];
    let payload = prop_oneof![
        vec(any::<u8>(), 0..60),
        (any::<u8>(), vec(any::<u8>(), 0..60))
            .prop_map(|(toc, rest)| [&[toc & 0xfc], rest.as_slice()].concat()),
        Just(vec![]),
    ];
    let packet = (near(16), near(31), 0..3u32, prop_oneof![3 => Just(111u8), 1 => 0..128u8], payload);
    runner(4)
        .run(&vec(packet, 1..60), |caller| {
            let caller =
                (0u64..).zip(caller).map(|(n, (sequence, timestamp, ssrc, payload_type, payload))| {
                    let sequence = u16::try_from(sequence & 0xffff).expect("16 bits");
                    let payload_type = if (64..96).contains(&payload_type) { 111 } else { payload_type };
                    let at_us = START_US + n * 20_000;
                    let mut sender = Sender {
                        ssrc,
                        payload_type,
                        sequence,
                        timestamp: timestamp.wrapping_mul(480),
                        at_us,
                    };
                    Sent { at_us, ..sender.packet(&payload, 960) }
                });
            *count.borrow_mut() += 1;
            let id = format!("hostile {}", count.borrow());
            let manifest = record(&place, &mut gateway.borrow_mut(), &id, &caller.collect::<Vec<_>>(), &ai);
            let recording = place.recording_of(&manifest);
            recording.decode();
            prop_assert!(recording.sounds(1) == sounds_in(&packets), "{}", manifest);
            prop_assert!(recording.samples() <= 48_000 * 602);
            Ok(())
        })
        .unwrap();
    assert!(!daemon.stop().contains("ERROR"));
}

#[test]
fn a_single_absurd_clock_makes_no_hours_of_silence_and_loses_nothing_else() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixDgram);
    let packets = voice(SPEECH, 150.0, 150);
    let voices = voice(SPEECH, 250.0, 150);
    let ai = Sender::new(2).packets(&voices);
    let century_us = 100 * 365 * 86_400 * 1_000_000u64;
    for at in [0, 70, 149] {
        for (what, at_us, timestamp, sequence) in [
            ("a gateway clock of zero", 0, 0, 0),
            ("a gateway clock of 1970", 5, 0, 0),
            ("a gateway clock in a hundred years", START_US + century_us, 0, 0),
            ("a gateway clock beyond all years", u64::MAX, 0, 0),
            ("a gateway clock an hour ahead", START_US + 3_600_000_000, 0, 0),
            ("a gateway clock a day back", START_US - 86_400_000_000, 0, 0),
            ("a timestamp half way round", START_US, 1 << 31, 0),
            ("a timestamp an hour ahead", START_US, 48_000 * 3600, 0),
            ("a timestamp an hour back", START_US, 0u32.wrapping_sub(48_000 * 3600), 0),
            ("a sequence number half way round", START_US, 0, 1 << 15),
        ] {
            let mut caller = Sender::new(1).packets(&packets);
            let odd = &mut caller[at];
            let mut packet = odd.read();
            packet.header.timestamp = packet.header.timestamp.wrapping_add(timestamp);
            packet.header.sequence_number = packet.header.sequence_number.wrapping_add(sequence);
            odd.rtp = webrtc_util::marshal::Marshal::marshal(&packet).unwrap().to_vec();
            let id = format!("{what} at packet {at}");
            // The odd packet keeps its turn: sent between its neighbours, whatever its clock says.
            for (number, (mut from_caller, from_ai)) in caller.into_iter().zip(&ai).enumerate() {
                if number == at && (timestamp, sequence) == (0, 0) {
                    from_caller.at_us = at_us;
                }
                gateway.play(&id, CALLER, &[from_caller]);
                gateway.play(&id, AI, std::slice::from_ref(from_ai));
            }
            gateway.end(&id);
            let (manifest, recording) = place.recording(&id);
            let duration_ms = manifest["duration_ms"].as_u64().unwrap();
            assert!(duration_ms.abs_diff(5000) <= 1000, "{id} makes {duration_ms} ms: {manifest}");
            assert!(recording.sounds(1) == sounds_in(&voices), "{id}: the other channel");
            let (heard, sent) = (recording.sounds(0), sounds_in(&packets));
            let others = sent.iter().enumerate().filter(|(number, _)| *number != at);
            assert!(others.clone().all(|(_, sound)| heard.contains(sound)), "{id}: the other packets");
            assert!(heard.len() >= sent.len() - 1, "{id}: {} of {}", heard.len(), sent.len());
        }
    }
    daemon.stop();
}

#[test]
fn real_opus_in_a_call_with_damaged_packets_is_kept() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    let mut packets = voice(SPEECH, 150.0, 100);
    // Code 3 without a count, and nothing at all: no Opus packets. Half a packet still is one, of another sound.
    packets[10] = vec![packets[10][0] | 3];
    packets[20] = Vec::new();
    let half = packets[30].len() / 2;
    packets[30].truncate(half);
    let mut sender = Sender::new(1);
    let sent: Vec<_> = packets.iter().map(|packet| sender.packet(packet, 960)).collect();
    gateway.play("damaged", CALLER, &sent);
    gateway.end("damaged");
    let (manifest, recording) = place.recording("damaged");
    judge(&place.path_of(&manifest));
    let whole: Vec<_> =
        packets.into_iter().enumerate().filter(|(n, _)| ![10, 20].contains(n)).map(|(_, p)| p).collect();
    assert!(recording.sounds(0) == sounds_in(&whole));
    assert_eq!(manifest["outcome"], "degraded");
    assert_eq!(recording.samples(), 48 * 4000);
}
