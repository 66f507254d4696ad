//! Recordings of whole calls, real and synthetic: valid for every judge, complete to the byte, exact to the sample.

mod rig;

use opus::{Application, Bandwidth};
use serde_json::Value;

use rig::captures::{Capture, opus_captures};
use rig::daemon::Daemon;
use rig::gateway::{AI, CALLER, Gateway, SOCKETS, Socket};
use rig::judges::{decode_with_ffmpeg, judge};
use rig::media::{Coding, HYBRID, MUSIC, SAMPLES_20_MS, SPEECH, START_US, Sender, samples_of, voice};
use rig::place::Place;
use rig::recording::{PRE_SKIP, Recording, decode_packets, peak, sounds_in};

/// The tail of silence that the daemon adds, in milliseconds.
const TAIL_MS: u64 = 2000;

/// Replays each capture as caller beside the capture that stands `distances` further in the list as AI, over one
/// socket. Six distances are all other captures.
fn replay_captures_beside_others(socket: Socket, distances: [usize; 2]) {
    let Some(captures) = opus_captures(START_US) else { return };
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, socket);
    for distance in distances {
        for (index, caller) in captures.iter().enumerate() {
            let ai = &captures[(index + distance) % captures.len()];
            let id = format!("{} beside {}", caller.name, ai.name);
            gateway.play_both(&id, &caller.sent, &ai.sent);
            gateway.end(&id);
            let (manifest, recording) = place.recording(&id);
            judge(&place.path_of(&manifest));
            check_call(&manifest, &recording, [caller, ai]);
        }
    }
    assert_eq!(place.recordings().len(), captures.len() * distances.len());
    daemon.stop();
}

fn check_call(manifest: &Value, recording: &Recording, captures: [&Capture; 2]) {
    let id = &manifest["connection_id"];
    let is_whole = captures.iter().all(|capture| capture.lost == 0);
    assert_eq!(
        manifest["outcome"],
        if is_whole { "ok" } else { "degraded" },
        "{id}: {}",
        manifest["reasons"]
    );
    assert_eq!(manifest["reasons"].as_array().map(Vec::is_empty), Some(is_whole), "{id}");
    let decoded = recording.decode();
    let mut end = 0;
    for (channel, (capture, name)) in captures.into_iter().zip(["caller", "ai"]).enumerate() {
        let counts = &manifest["channels"][name];
        assert_eq!(counts["codec"], "opus", "{id}");
        assert_eq!(counts["packets"], capture.packets, "{id}");
        assert_eq!(counts["lost"], capture.lost, "{id}: lost on {name}");
        assert_eq!(counts["reordered"], capture.reordered, "{id}: reordered on {name}");
        assert_eq!(counts["duplicate"], 0, "{id}");
        assert_eq!(counts["late"], 0, "{id}");
        check_channel(recording, channel, capture);
        assert!(decoded[channel] == recording.decode_alone(channel), "{id}: {name} decodes as it does alone");
        let last = recording.heard(channel).last().expect("captures have sound");
        end = end.max(last.at + last.samples);
    }
    assert_eq!(recording.samples(), end + TAIL_MS * 48, "{id}: the audio and the tail");
    assert!(
        recording.heard(0).chain(recording.heard(1)).any(|placed| placed.at == 0),
        "{id}: no silence ahead"
    );
}

/// Every frame of the capture stands in the recording byte for byte, once, in order, and at its time.
fn check_channel(recording: &Recording, channel: usize, capture: &Capture) {
    let expected = capture.sounds();
    let heard: Vec<_> = recording.heard(channel).collect();
    assert_eq!(heard.len(), expected.len(), "frames of {}", capture.name);
    let (first_ticks, first_at) = (expected[0].0, heard[0].at);
    for (index, (placed, (ticks, sound))) in heard.iter().zip(&expected).enumerate() {
        assert!(placed.sound == *sound, "frame {index} of {}", capture.name);
        let from_first = i64::try_from(placed.at - first_at).expect("a recording is short");
        let shift = (from_first - (ticks - first_ticks)).abs();
        assert!(
            shift <= i64::from(SAMPLES_20_MS),
            "frame {index} of {} is {shift} samples off",
            capture.name
        );
    }
}

#[test]
fn captures_beside_others_over_udp_are_whole() {
    replay_captures_beside_others(SOCKETS[0], [1, 4]);
}

#[test]
fn captures_beside_others_over_unix_datagrams_are_whole() {
    replay_captures_beside_others(SOCKETS[1], [2, 5]);
}

#[test]
fn captures_beside_others_over_a_unix_stream_are_whole() {
    replay_captures_beside_others(SOCKETS[2], [3, 6]);
}

#[test]
fn key_presses_of_a_real_call_are_marks_and_no_audio() {
    let Some(captures) = opus_captures(START_US) else { return };
    let capture = &captures[0];
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    gateway.play("keys", CALLER, &capture.sent);
    gateway.end("keys");
    let manifest = place.manifest("keys");
    let marks = manifest["marks"].as_array().unwrap();
    let keys: String = marks.iter().map(|mark| mark["event"].as_str().unwrap()).collect();
    assert_eq!(keys, "2013785496", "as the file's name says");
    assert!(marks.iter().all(|mark| mark["channel"] == "caller" && mark["name"] == "telephone-event"));
    let offsets: Vec<_> = marks.iter().map(|mark| mark["offset_ms"].as_u64().unwrap()).collect();
    assert!(offsets.is_sorted() && *offsets.last().unwrap() < 15_300, "{offsets:?}");
}

#[test]
fn without_loss_each_channel_decodes_as_its_packets_do_without_anything_else() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    for (index, (left, right)) in [(SPEECH, HYBRID), (HYBRID, MUSIC), (MUSIC, SPEECH)].into_iter().enumerate()
    {
        let id = format!("lossless-{index}");
        let packets = [voice(left, 110.0, 150), voice(right, 205.0, 100)];
        let caller = Sender::new(1).packets(&packets[0]);
        let ai = Sender::starting(2, 700).packets(&packets[1]);
        gateway.play_both(&id, &caller, &ai);
        gateway.end(&id);

        let (manifest, recording) = place.recording(&id);
        assert_eq!(manifest["outcome"], "ok", "{manifest}");
        let decoded = recording.decode();
        for (channel, offset) in [(0, 0), (1, 700 * 48)] {
            let alone = decode_packets(&packets[channel]);
            let heard = &decoded[channel][offset..offset + alone.len()];
            assert!(heard == alone, "{id}: channel {channel} is its packets, sample for sample");
            assert!(peak(heard, 0..heard.len()) > 0.05, "and they are no silence");
            assert!(peak(&decoded[channel], 0..offset) == 0.0, "{id}: silence before them");
        }
        compare_in_ffmpeg(&place, &manifest, &recording);
    }
    daemon.stop();
}

/// Compares FFmpeg's libopus on the recording with FFmpeg's libopus on each channel in a file of its own.
fn compare_in_ffmpeg(place: &Place, manifest: &Value, recording: &Recording) {
    let Some(stereo) = decode_with_ffmpeg(&place.path_of(manifest)) else { return };
    let samples = usize::try_from(recording.samples()).expect("a recording is short");
    assert_eq!(stereo.len() / 2, samples, "the length that ffmpeg plays");
    for channel in 0..2 {
        let path = place.root().join(format!("mono-{channel}.opus"));
        recording.write_mono(channel, &path);
        let mono = decode_with_ffmpeg(&path).expect("ffmpeg is there");
        let one: Vec<i16> = stereo.iter().skip(channel).step_by(2).copied().collect();
        assert!(one == mono, "ffmpeg hears channel {channel} as it does alone");
    }
}

#[test]
fn every_mode_and_every_packet_length_is_kept_beside_every_other() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixDgram);
    // Units of 2.5 ms. Above 60 ms, and above 20 ms where there is CELT, a packet has several frames.
    let lengths = |coding: Coding, units: &[usize]| {
        units.iter().map(move |units| Coding { units: *units, ..coding }).collect::<Vec<_>>()
    };
    let narrow = Coding { bandwidth: Bandwidth::Narrowband, bits: 12_000, ..SPEECH };
    let codings = [
        lengths(SPEECH, &[4, 8, 16, 24, 32, 40, 48]),
        lengths(narrow, &[8, 24]),
        lengths(HYBRID, &[4, 8, 16, 24, 48]),
        lengths(MUSIC, &[1, 2, 4, 8, 16, 24, 48]),
    ]
    .concat();
    for (index, coding) in codings.iter().enumerate() {
        for distance in [0, 1, 5, 9] {
            let other = codings[(index + distance) % codings.len()];
            let id = format!("{index} and {distance} further");
            let packets = [voice(*coding, 120.0, 480 / coding.units), voice(other, 190.0, 480 / other.units)];
            let [caller, ai] = [1, 2].map(Sender::new);
            let sent =
                [caller, ai].into_iter().zip(&packets).map(|(mut sender, packets)| sender.packets(packets));
            let [caller, ai] = sent.collect::<Vec<_>>().try_into().unwrap();
            gateway.play_both(&id, &caller, &ai);
            gateway.end(&id);
            let (manifest, recording) = place.recording(&id);
            assert_eq!(manifest["outcome"], "ok", "{coding:?} beside {other:?}: {manifest}");
            for (channel, packets) in packets.iter().enumerate() {
                let sounds = recording.sounds(channel);
                assert!(sounds == sounds_in(packets), "channel {channel} of {coding:?} beside {other:?}");
            }
            let decoded = recording.decode();
            assert!(decoded[0] == recording.decode_alone(0) && decoded[1] == recording.decode_alone(1));
        }
    }
    daemon.stop();
}

#[test]
fn packets_of_every_code_lose_their_padding_and_nothing_else() {
    let single = voice(SPEECH, 130.0, 64);
    let mut packets = Vec::new();
    for (index, group) in single.chunks(4).enumerate() {
        let count = index % 4 + 1;
        let group: Vec<&[u8]> = group[..count].iter().map(Vec::as_slice).collect();
        let mut packet = vec![0; 4000];
        let length = opus::Repacketizer::new().unwrap().combine(&group, &mut packet).unwrap();
        packet.truncate(length);
        if index % 3 == 2 {
            packet.resize(length + 100 * (index + 1), 0);
            opus::packet::pad(&mut packet, length).unwrap();
        }
        packets.push(packet);
    }
    let codes: Vec<u8> = packets.iter().map(|packet| packet[0] & 3).collect();
    assert!([0, 2, 3].iter().all(|code| codes.contains(code)), "{codes:?}");
    // Frames of one size: codes 1 and 3 without lengths.
    packets.push([&[single[0][0] | 1], &single[0][1..], &single[0][1..]].concat());
    packets.push([&[single[0][0] | 3, 3], &single[0][1..], &single[0][1..], &single[0][1..]].concat());

    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    gateway.play_both(
        "codes",
        &Sender::new(1).packets(&packets),
        &Sender::new(2).packets(&voice(MUSIC, 90.0, 99)),
    );
    gateway.end("codes");
    let (manifest, recording) = place.recording("codes");
    judge(&place.path_of(&manifest));
    assert!(recording.sounds(0) == sounds_in(&packets));
    assert!(recording.decode()[0] == recording.decode_alone(0));
}

#[test]
fn a_lost_packet_is_an_empty_frame_that_decoders_conceal() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    let packets = voice(SPEECH, 140.0, 100);
    let sent = Sender::new(1).packets(&packets);
    let is_lost = |index: usize| [30, 31, 60].contains(&index);
    let arrived: Vec<_> =
        sent.iter().enumerate().filter(|(index, _)| !is_lost(*index)).map(|(_, s)| s.clone()).collect();
    gateway.play("lossy", CALLER, &arrived);
    gateway.end("lossy");
    let (manifest, recording) = place.recording("lossy");
    assert_eq!(
        (&manifest["outcome"], &manifest["channels"]["caller"]["lost"]),
        (&"degraded".into(), &3.into())
    );
    for (index, placed) in recording.channels[0].iter().take(100).enumerate() {
        assert_eq!(placed.at, 960 * u64::try_from(index).unwrap());
        assert_eq!(placed.sound.is_empty(), is_lost(index), "frame {index}");
    }
    let decoded = recording.decode();
    assert!(decoded[0] == recording.decode_alone(0));
    assert!(peak(&decoded[0], 30 * 960..31 * 960) > 0.01, "concealed, not silent");
}

#[test]
fn silence_suppression_keeps_its_time_and_is_no_loss() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    let packets = voice(SPEECH, 140.0, 60);
    let mut sender = Sender::new(1);
    let mut sent = sender.packets(&packets[..30]);
    sender.skip_time(48_000 * 3);
    sent.extend(sender.packets(&packets[30..]));
    gateway.play("quiet", CALLER, &sent);
    gateway.end("quiet");
    let (manifest, recording) = place.recording("quiet");
    assert_eq!((&manifest["outcome"], &manifest["channels"]["caller"]["lost"]), (&"ok".into(), &0.into()));
    let starts: Vec<u64> = recording.heard(0).map(|placed| placed.at / 48).collect();
    let expected: Vec<u64> = (0..60).map(|index| index * 20 + if index < 30 { 0 } else { 3000 }).collect();
    assert_eq!(starts, expected);
    for ms in (0..3700).step_by(100) {
        println!("{ms} {}", peak(&recording.decode()[0], 48 * ms..48 * (ms + 100)));
    }
    assert!(peak(&recording.decode()[0], 48 * 1500..48 * 3500) < 0.01, "the pause is quiet");
}

#[test]
fn where_the_channels_share_no_grid_only_one_is_encoded_anew_and_the_manifest_says_so() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    // True 60 ms frames beside frames that change their configuration every 20 ms: no packet can hold three of those.
    let long = voice(Coding { units: 24, ..SPEECH }, 120.0, 50);
    let (wide, narrow) = (voice(SPEECH, 180.0, 150), voice(MUSIC, 180.0, 150));
    let mixed: Vec<_> =
        wide.into_iter().zip(narrow).enumerate().map(|(i, (w, n))| if i % 2 == 0 { w } else { n }).collect();
    gateway.play_both("no grid", &Sender::new(1).packets(&long), &Sender::new(2).packets(&mixed));
    gateway.end("no grid");
    let (manifest, recording) = place.recording("no grid");
    judge(&place.path_of(&manifest));
    let kept = [recording.sounds(0) == sounds_in(&long), recording.sounds(1) == sounds_in(&mixed)];
    assert!(kept[0] != kept[1], "one channel is kept and one is not: {kept:?}");
    assert!(manifest.to_string().contains("anew"), "{manifest}");
    let span = 48 * 3000;
    for channel in recording.decode() {
        assert!(peak(&channel, 4800..span - 4800) > 0.05, "both are heard");
    }
    assert_eq!(recording.samples(), 48 * (3000 + TAIL_MS));
}

#[test]
fn channels_are_also_published_alone_where_that_is_asked_for() {
    let place = Place::new().with("AUDIO_KEEP_CHANNELS", "true");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    let packets = [voice(SPEECH, 140.0, 50), voice(MUSIC, 140.0, 75)];
    gateway.play_both("pair", &Sender::new(1).packets(&packets[0]), &Sender::new(2).packets(&packets[1]));
    gateway.end("pair");
    let (manifest, _) = place.recording("pair");
    let stereo = place.path_of(&manifest);
    for (suffix, packets) in ["_left.opus", "_right.opus"].into_iter().zip(packets) {
        let path = stereo.to_str().unwrap().replace(".opus", suffix);
        judge(path.as_ref());
        let mut reader = ogg::PacketReader::new(std::fs::File::open(&path).unwrap());
        let mut sounds = Vec::new();
        let (mut count, mut granule) = (0, 0);
        while let Some(packet) = reader.read_packet().unwrap() {
            if count >= 2 {
                sounds.extend(rig::recording::sounds_of(&packet.data));
                granule = packet.absgp_page();
            }
            count += 1;
        }
        assert!(sounds == sounds_in(&packets), "{path}");
        assert_eq!(granule, PRE_SKIP + 48 * (1500 + TAIL_MS), "{path} is as long as the call");
    }
}

#[test]
fn a_sender_that_says_its_packets_are_longer_than_they_are_loses_nothing() {
    // 20 ms of audio in packets whose timestamps advance by 60 ms: silence between, no frame lost.
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    let packets = voice(Coding { application: Application::Audio, ..MUSIC }, 140.0, 30);
    assert!(packets.iter().all(|packet| samples_of(packet) == SAMPLES_20_MS));
    let mut sender = Sender::new(1);
    let sent: Vec<_> = packets.iter().map(|packet| sender.packet(packet, 3 * SAMPLES_20_MS)).collect();
    gateway.play("sparse", AI, &sent);
    gateway.end("sparse");
    let (_, recording) = place.recording("sparse");
    assert!(recording.sounds(1) == sounds_in(&packets));
    let starts: Vec<u64> = recording.heard(1).map(|placed| placed.at).collect();
    assert_eq!(starts, (0..30).map(|index| index * 2880).collect::<Vec<_>>());
}

#[test]
fn the_tail_and_the_shift_of_the_ai_are_as_configured() {
    for (shift_ms, first_heard_ms) in [("250", [0, 250]), ("-240", [240, 0])] {
        let place = Place::new().with("AUDIO_AI_OFFSET_MS", shift_ms).with("AUDIO_TAIL_MS", "0");
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
        let packets = voice(SPEECH, 140.0, 50);
        gateway.play_both("shifted", &Sender::new(1).packets(&packets), &Sender::new(2).packets(&packets));
        gateway.end("shifted");
        let (manifest, recording) = place.recording("shifted");
        for (channel, expected_ms) in first_heard_ms.into_iter().enumerate() {
            // 20 ms frames stand on a grid of 20 ms.
            assert!(recording.first_heard_ms(channel).abs_diff(expected_ms) <= 10, "{shift_ms}: {manifest}");
            assert!(recording.sounds(channel) == sounds_in(&packets));
        }
        let ms = manifest["duration_ms"].as_u64().unwrap();
        assert!(ms.abs_diff(1000 + first_heard_ms[0].max(first_heard_ms[1])) <= 10, "no tail: {ms} ms");
    }
}
