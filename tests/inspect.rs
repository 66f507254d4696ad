//! `sidetape inspect` from outside: true words and a true picture of whole, lossy, damaged, foreign and hostile files.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::cast_possible_truncation, reason = "lengths of a few seconds")]

mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use opus::{Application, Channels, Encoder};
use serde_json::{Value, json};
use sidetape::config::RecordingFormat::{self, Compat, Lossless};
use sidetape::manifest::File;
use tempfile::TempDir;

use rig::daemon::Daemon;
use rig::gateway::{AI, Gateway, Socket, WHOLE, frame, kind};
use rig::is_strict;
use rig::media::{SPEECH, START_US, Sender, Sent, voice};
use rig::picture::{LEFT, PLOT, boxes, edge, extent, read_picture};
use rig::place::Place;
use rig::spool::{options, record};

/// What the program said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn inspect(arguments: &[&Path]) -> Said {
    let output =
        Command::new(env!("CARGO_BIN_EXE_sidetape")).arg("inspect").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let said = Said {
        code: output.status.code().expect("no signal"),
        out: text(output.stdout),
        err: text(output.stderr),
    };
    assert!(!said.err.contains("panicked"), "{}", said.err);
    let is_plain = |c: char| c == '\n' || !c.is_control();
    assert!(said.out.chars().chain(said.err.chars()).all(is_plain), "{:?}", said.out);
    said
}

impl Said {
    fn verdict(&self) -> &str {
        self.out.lines().next().unwrap_or_default()
    }

    /// What stands behind a name at the beginning of a line.
    fn row(&self, name: &str) -> &str {
        let lines = &mut self.out.lines();
        let row = lines
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("no {name}: {}", self.out));
        row.trim()
    }
}

/// Publishes a call as the store would: the file, and the manifest beside it.
fn publish(folder: &Path, name: &str, channels: [&[Sent]; 2], format: RecordingFormat) -> PathBuf {
    let none = json!({});
    let (mut rendered, _) = record(folder, [&none, &none], channels, &options(format));
    let file = &rendered.files[0];
    let path = folder.join(format!("{name}.opus"));
    fs::rename(&file.path, &path).unwrap();
    rendered.manifest.file = Some(File {
        key: format!("{name}.opus"),
        bytes: file.bytes,
        sha256: file.sha256.clone(),
        crc32c: format!("{:08x}", file.crc32c),
        format: rendered.format,
    });
    fs::write(path.with_extension("json"), serde_json::to_vec(&rendered.manifest).unwrap()).unwrap();
    path
}

fn two_voices() -> [Vec<Sent>; 2] {
    let packets = [voice(SPEECH, 120.0, 150), voice(SPEECH, 210.0, 150)];
    [Sender::new(1).packets(&packets[0]), Sender::new(2).packets(&packets[1])]
}

fn whole_call(format: RecordingFormat) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let [caller, ai] = two_voices();
    let path = publish(folder.path(), "call", [&caller, &ai], format);
    (folder, path)
}

/// A tone of an amplitude, encoded by libopus.
fn tone(amplitude: f32, packets: usize) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(48_000, Channels::Mono, Application::Audio).unwrap();
    let mut at = 0u16;
    let mut encode = || {
        let pcm: Vec<f32> = (0..960)
            .map(|_| {
                at = (at + 1) % 120;
                (f32::from(at) / 120.0 * std::f32::consts::TAU).sin() * amplitude
            })
            .collect();
        encoder.encode_vec_float(&pcm, 4000).unwrap()
    };
    (0..packets).map(|_| encode()).collect()
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let path = path.with_extension("json");
    let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(path, manifest.to_string()).unwrap();
}

#[test]
fn a_loss_a_pause_and_a_mark_are_told_and_shown_at_their_times() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    let packets = [voice(SPEECH, 120.0, 300), voice(SPEECH, 210.0, 300)];
    let mut caller = Sender::new(1).packets(&packets[0]);
    let ai = Sender::new(2).packets(&packets[1]);
    // 100 ms of the caller are lost, and the AI's fourth second is not to be kept.
    caller.drain(75..80);
    gateway.play_both("seen", &caller[..95], &ai[..100]);
    gateway.send(&frame(kind::MARK, WHOLE, START_US + 2_500_000, b"seen", br#"{"name":"barge-in <1>"}"#));
    gateway.play_both("seen", &caller[95..145], &ai[100..150]);
    gateway.say_at(kind::PAUSE, AI, START_US + 3_000_000, "seen");
    gateway.play_both("seen", &caller[145..195], &ai[150..200]);
    gateway.say_at(kind::RESUME, AI, START_US + 4_000_000, "seen");
    gateway.play_both("seen", &caller[195..], &ai[200..]);
    gateway.end("seen");
    let (manifest, _) = place.recording("seen");
    let path = place.path_of(&manifest);
    let said = inspect(&[&path]);
    assert_eq!((said.code, said.verdict()), (0, "degraded: caller_packets_lost"), "{}", said.out);
    assert_eq!(said.row("Connection"), "seen");
    assert_eq!(said.row("Started"), manifest["started_at"]);
    assert_eq!(said.row("Outcome"), "degraded: caller_packets_lost");
    assert_eq!(said.row("Length"), "0:08.000");
    assert!(said.row("Manifest").ends_with("size and checksum agree"), "{}", said.out);
    assert!(said.row("Lost").starts_with('5') && said.row("Lost").ends_with('0'), "{}", said.out);
    let holes = manifest["channels"]["caller"]["holes"].as_array().unwrap();
    let [hole] = &holes[..] else { panic!("one loss: {holes:?}") };
    let times = ["from_ms", "to_ms"].map(|name| hole[name].as_u64().unwrap());
    assert!(times[0].abs_diff(1500) <= 20 && times[1].abs_diff(1600) <= 20, "{hole}");
    let clock = |ms: u64| format!("0:0{}.{:03}", ms / 1000, ms % 1000);
    assert_eq!(said.row("Holes"), format!("caller  {}\u{2013}{} lost", clock(times[0]), clock(times[1])));
    let pause = ["from_ms", "to_ms"].map(|name| manifest["paused"][0][name].as_u64().unwrap());
    assert!(pause[0].abs_diff(3000) <= 20 && pause[1].abs_diff(4000) <= 20);
    assert_eq!(
        said.row("Paused"),
        format!("ai      {}\u{2013}{}, not kept", clock(pause[0]), clock(pause[1]))
    );
    let mark = manifest["marks"][0]["offset_ms"].as_u64().unwrap();
    assert!(mark.abs_diff(2500) <= 20);
    assert_eq!(said.row("Marks"), format!("{:<11} barge-in <1>", clock(mark)));

    let svg = read_picture(&path.with_extension("svg"));
    let pixels = |ms: u64| ms as f64 / 8000.0 * PLOT;
    let is_near = |found: [f64; 2], times: [u64; 2]| {
        (found[0] - pixels(times[0])).abs() <= 1.0 && (found[1] - pixels(times[1])).abs() <= 1.0
    };
    for class in ["loss", "rail"] {
        let found = extent(&svg, 0, class);
        assert!(is_near(found, times), "{class}: {found:?}");
        assert!(boxes(&svg, 1, class).is_empty(), "nothing of the AI is lost");
    }
    assert!(is_near(extent(&svg, 1, "pause"), pause) && boxes(&svg, 0, "pause").is_empty());
    let line = svg.split("class=\"mark\" d=\"M").nth(1).unwrap().split(' ').next().unwrap();
    assert!((line.parse::<f64>().unwrap() - LEFT - pixels(mark)).abs() < 1.0);
    for text in ["barge-in &lt;1&gt;", ">paused<", ">seen<", ">degraded<", "5 lost", ">0:07<"] {
        assert!(svg.contains(text), "{text}");
    }
    daemon.stop();
}

#[test]
fn a_folder_where_nothing_may_be_written_costs_the_picture_and_not_the_words() {
    let (folder, path) = whole_call(Lossless);
    // Not even a user who may write everywhere puts a file in the place of a folder.
    let picture = path.with_extension("svg");
    fs::create_dir(&picture).unwrap();
    fs::write(picture.join("kept"), "").unwrap();
    let said = inspect(&[&path]);
    assert_eq!((said.code, said.verdict(), said.err.as_str()), (0, "whole: nothing was lost", ""));
    assert!(said.row("Picture").starts_with("none: cannot write"), "{}", said.out);
    assert!(said.row("Picture").contains("--svg puts it elsewhere"), "{}", said.out);
    assert_eq!(inspect(&[&path, "--svg".as_ref(), &picture]).code, 1, "where it was asked for");
    let elsewhere = folder.path().join("elsewhere.svg");
    assert_eq!(inspect(&[&path, "--svg".as_ref(), &elsewhere]).code, 0);
    // Its title is what people know the call by.
    let manifest: Value = serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
    let id = manifest["connection_id"].as_str().unwrap();
    assert!(read_picture(&elsewhere).contains(&format!(">{id}<")));
    edit(&path, |manifest| manifest["conversation_id"] = json!("talk of the town"));
    assert_eq!(inspect(&[&path, "--svg".as_ref(), &elsewhere]).code, 0);
    assert!(read_picture(&elsewhere).contains(">talk of the town<"));
}

#[test]
fn a_whole_call_is_whole_in_both_formats_and_looks_the_same_each_time() {
    for (format, layout) in [
        (Lossless, "Ogg Opus, two mono streams, nothing transcoded (mapping family 1)"),
        (Compat, "Ogg Opus, coupled stereo, both channels transcoded (mapping family 0)"),
    ] {
        let (folder, path) = whole_call(format);
        let said = inspect(&[&path]);
        assert_eq!((said.code, said.verdict()), (0, "whole: nothing was lost"), "{}{}", said.out, said.err);
        assert_eq!((said.row("Format"), said.row("Length")), (layout, "0:03.000"));
        assert!(!said.out.contains("warning"), "{}", said.out);
        for good in [
            "right checksum",
            "positions of pages agree",
            "end of the stream is marked",
            "every packet decodes",
        ] {
            assert!(said.out.contains(good), "{good}: {}", said.out);
        }
        let svg = read_picture(&path.with_extension("svg"));
        for lane in [0, 1] {
            assert!(boxes(&svg, lane, "loss").is_empty() && boxes(&svg, lane, "damage").is_empty());
            assert!(edge(&svg, lane, "peak").iter().filter(|(_, height)| *height > 0.05).count() > 500);
        }
        // By the manifest, to another place, and without a picture.
        fs::remove_file(path.with_extension("svg")).unwrap();
        let other = folder.path().join("other picture.svg");
        let again = inspect(&[&path.with_extension("json"), "--svg".as_ref(), &other]);
        assert_eq!((again.code, read_picture(&other)), (0, svg));
        assert_eq!(inspect(&["--no-picture".as_ref(), &path]).code, 0);
        assert!(!path.with_extension("svg").exists());
        assert_eq!(inspect(&[&path, "--svg".as_ref(), &path]).code, 1, "never over the recording");
        assert_eq!(inspect(&["--no-picture".as_ref(), &path]).code, 0, "which is as it was");
        assert_eq!(inspect(&[]).code, 2);
    }
}

#[test]
fn the_waveform_is_as_high_as_the_sound_and_flat_where_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let caller = Sender::new(1).packets(&tone(0.25, 200));
    // The AI says nothing, then half a second of a louder tone.
    let ai = Sender::starting(2, 3000).packets(&tone(0.64, 25));
    for format in [Lossless, Compat] {
        let path = publish(folder.path(), "tone", [&caller, &ai], format);
        let said = inspect(&[&path]);
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        assert!(said.row("Level").starts_with("-15."), "{}", said.out);
        assert!(said.row("Active").contains("% (0:00.5"), "{}", said.out);
        let svg = read_picture(&path.with_extension("svg"));
        let within = |lane, class, range: std::ops::Range<f64>| -> Vec<f64> {
            let steps = edge(&svg, lane, class).into_iter().filter(|(x, _)| range.contains(x));
            steps.map(|(_, height)| height).collect()
        };
        let is_all = |heights: Vec<f64>, expected: f64| {
            assert!(heights.len() > 100, "{}", heights.len());
            heights.iter().all(|height| (height - expected).abs() < expected * 0.12)
        };
        assert!(is_all(within(0, "peak", 30.0..1490.0), 0.25), "{format:?}");
        assert!(is_all(within(0, "rms", 30.0..1490.0), 0.25 / 2f64.sqrt()), "{format:?}");
        assert!(is_all(within(1, "peak", 1150.0..1300.0), 0.64), "{format:?}");
        assert!(within(1, "peak", 5.0..1100.0).iter().all(|height| *height < 0.001), "{format:?}");
    }
}

#[test]
fn a_channel_that_is_silent_all_the_way_is_not_overlooked() {
    let folder = tempfile::tempdir().unwrap();
    let [caller, _] = two_voices();
    let path = publish(folder.path(), "one", [&caller, &[]], Lossless);
    let said = inspect(&[&path]);
    let warning = "the AI's channel is silent all the way";
    assert!(said.out.contains(&format!("warning: {warning}\n")), "{}", said.out);
    assert_eq!(said.code, 0, "the file is good");
    assert!(read_picture(&path.with_extension("svg")).contains(&warning.replace('\'', "&#39;")));
    // Packets come, and nothing is in them.
    let silent = Sender::new(2).packets(&tone(0.0, 150));
    let path = publish(folder.path(), "sent", [&silent, &caller], Compat);
    assert!(inspect(&[&path]).out.contains("warning: the caller's channel is silent all the way\n"));
}

#[test]
fn the_same_sound_in_both_channels_is_not_overlooked() {
    let folder = tempfile::tempdir().unwrap();
    let packets = voice(SPEECH, 120.0, 150);
    let [caller, ai] = [1, 2].map(|ssrc| Sender::new(ssrc).packets(&packets));
    for format in [Lossless, Compat] {
        let path = publish(folder.path(), "twice", [&caller, &ai], format);
        assert!(inspect(&[&path]).out.contains("warning: both channels are identical\n"), "{format:?}");
    }
}

#[test]
fn a_file_that_is_cut_off_is_shown_as_far_as_it_goes() {
    let (_folder, path) = whole_call(Lossless);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() * 2 / 3]).unwrap();
    let said = inspect(&[&path]);
    assert_eq!(said.code, 1);
    assert!(said.verdict().starts_with("damaged: "), "{}", said.out);
    for fault in [
        "a page is cut off",
        "end-of-stream flag",
        "sha256 is not the manifest's",
        "the manifest says 0:03.000",
    ] {
        assert!(said.verdict().contains(fault) && said.err.contains(fault), "{fault}: {}", said.out);
    }
    let length = said.row("Length");
    assert!(length.starts_with("0:00.99"), "one whole page of a second, less the pre-skip: {length}");
    let svg = read_picture(&path.with_extension("svg"));
    assert!(svg.contains(">damaged<"));
    for lane in [0, 1] {
        let [from, to] = extent(&svg, lane, "damage");
        assert!(
            (from - PLOT * 0.994 / 3.0).abs() < 2.0 && to == PLOT,
            "what is cut off is shown: {from} {to}"
        );
    }
}

#[test]
fn a_damaged_page_is_a_gap_at_its_time_and_the_rest_stays_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    // Silence, and a tone in the last second.
    let caller = Sender::starting(1, 4000).packets(&tone(0.25, 50));
    let ai = Sender::new(2).packets(&voice(SPEECH, 120.0, 250));
    let path = publish(folder.path(), "torn", [&caller, &ai], Lossless);
    let mut bytes = fs::read(&path).unwrap();
    let pages: Vec<usize> =
        bytes.windows(4).enumerate().filter(|(_, w)| *w == b"OggS").map(|(at, _)| at).collect();
    // Two of headers, then a page for each second: the third of those is hit.
    let at = pages[4] + 500;
    bytes[at] ^= 0xff;
    fs::write(&path, &bytes).unwrap();
    let said = inspect(&[&path]);
    assert_eq!((said.code, said.row("Length")), (1, "0:05.000"), "{}", said.out);
    assert!(
        said.verdict().contains("0:01.000 of audio is missing from the file, first at 0:01.99"),
        "{}",
        said.out
    );
    assert!(said.verdict().contains("checksum is wrong") && said.verdict().contains("1 page is missing"));
    let svg = read_picture(&path.with_extension("svg"));
    for lane in [0, 1] {
        let [from, to] = extent(&svg, lane, "damage");
        assert!((from - 0.4 * PLOT).abs() < 4.0 && (to - 0.6 * PLOT).abs() < 4.0, "{from} {to}");
    }
    let loud = edge(&svg, 0, "peak").into_iter().filter(|(_, height)| *height > 0.1).map(|(x, _)| x);
    assert!((loud.fold(f64::MAX, f64::min) - 0.8 * PLOT).abs() < 6.0, "the tone is where it was");
}

#[test]
fn what_is_no_recording_is_refused_in_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("strange.opus");
    for (bytes, word) in [
        (Vec::new(), "the file is empty"),
        (b"RIFF....WAVEfmt ".repeat(1000), "not an ogg file"),
        (vec![0; 300_000], "not an ogg file"),
        (b"OggS".repeat(50_000), "not an ogg file"),
        (ogg_of(&[b"\x01vorbis and so on"]), "not an ogg opus file"),
        (
            ogg_of(&[b"OpusHead\x01\x06\0\0\x80\xbb\0\0\0\0\x01\x04\x02\0\x04\x01\x02\x03\x05", b"x"]),
            "6 channels",
        ),
        (ogg_of(&[b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\xff\x02\0\0\x01", b"x"]), "family 255"),
        (ogg_of(&[b"OpusHead", b"x"]), "header is too short"),
    ] {
        fs::write(&path, &bytes).unwrap();
        let said = inspect(&[&path]);
        assert_eq!(said.code, 1, "{word}");
        assert!(said.verdict().starts_with("unreadable: ") && said.verdict().contains(word), "{}", said.out);
        assert!(said.err.contains(word) && !path.with_extension("svg").exists(), "{}", said.err);
    }
    let said = inspect(&[&folder.path().join("nowhere.opus")]);
    assert_eq!((said.code, said.verdict()), (1, "unreadable: there is no such file"));
    assert_eq!(inspect(&[folder.path()]).code, 1, "a directory");
}

fn ogg_of(packets: &[&[u8]]) -> Vec<u8> {
    let mut writer = ogg::PacketWriter::new(Vec::new());
    for packet in packets {
        writer.write_packet(packet.to_vec(), 1, ogg::PacketWriteEndInfo::EndPage, 0).unwrap();
    }
    writer.into_inner()
}

#[test]
fn without_a_manifest_the_file_tells_what_it_can() {
    let (_folder, path) = whole_call(Lossless);
    fs::remove_file(path.with_extension("json")).unwrap();
    let said = inspect(&[&path]);
    assert_eq!(said.code, 0);
    assert_eq!(said.verdict(), "unknown: the file itself is sound, but there is no manifest beside it");
    assert_eq!((said.row("Connection"), said.row("Outcome")), ("call", "ok"), "as the comments say");
    assert!(said.out.contains("caller (left)"), "the comments name the channels");
    assert!(read_picture(&path.with_extension("svg")).contains(">unknown<"));
    for (text, word) in [("{\"schema\":1,", "no JSON"), ("[]", "no JSON object"), ("", "no JSON")] {
        fs::write(path.with_extension("json"), text).unwrap();
        let said = inspect(&[&path]);
        assert_eq!(said.code, 0);
        assert!(said.verdict().starts_with("unknown: ") && said.verdict().contains(word), "{}", said.out);
    }
}

#[test]
fn a_file_that_is_not_what_its_manifest_says_fails_and_is_shown_all_the_same() {
    let (_folder, path) = whole_call(Lossless);
    edit(&path, |manifest| manifest["file"]["sha256"] = "0".repeat(64).into());
    let said = inspect(&[&path]);
    assert_eq!((said.code, said.verdict()), (1, "damaged: its sha256 is not the manifest's"));
    assert!(said.row("Manifest").contains("does not agree"), "{}", said.out);
    assert!(said.out.contains("every packet decodes") && path.with_extension("svg").exists());
    let (_folder, path) = whole_call(Lossless);
    edit(&path, |manifest| manifest["file"]["bytes"] = 7.into());
    assert!(inspect(&[&path]).verdict().contains("the manifest says 7"));
    let (_folder, path) = whole_call(Lossless);
    edit(&path, |manifest| manifest["duration_ms"] = 9000.into());
    assert!(inspect(&[&path]).verdict().contains("it plays 0:03.000, the manifest says 0:09.000"));
    let (_folder, path) = whole_call(Lossless);
    edit(&path, |manifest| manifest["schema"] = 99.into());
    let said = inspect(&[&path]);
    assert_eq!((said.code, said.verdict()), (0, "whole: nothing was lost"));
    let (_folder, path) = whole_call(Lossless);
    fs::remove_file(&path).unwrap();
    assert_eq!(inspect(&[&path]).code, 1, "the manifest names a file, and there is none");
}

#[test]
fn a_call_without_audio_is_told_in_words() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    gateway.meta("nothing", &json!({"conversation_id": "c-1"}));
    gateway.end("nothing");
    assert_eq!(place.manifest("nothing")["outcome"], "absent");
    let path = place.storage().join("conversation_c-1_merged.json");
    for path in [path.clone(), path.with_extension("opus")] {
        let said = inspect(&[&path]);
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        assert!(said.verdict().starts_with("absent: no audio came"), "{}", said.out);
        assert_eq!(said.row("Connection"), "nothing");
        assert!(!path.with_extension("svg").exists(), "there is nothing to be drawn");
    }
    daemon.stop();
}

#[test]
fn a_hostile_manifest_is_shown_and_does_no_harm() {
    let (_folder, path) = whole_call(Lossless);
    let nasty = "\u{1b}[2J\u{7}</text><script>alert(1)</script>\u{0}\u{fffe}\u{202e}\r\n]]>&bogus;";
    edit(&path, |manifest| {
        manifest["connection_id"] = nasty.into();
        manifest["outcome"] = nasty.into();
        manifest["reasons"] = json!([nasty, 7, null, {"a": []}]);
        manifest["started_at"] = nasty.into();
        let channel = json!({"codec": nasty, "lost": u64::MAX, "packets": u64::MAX, "drift_ppm": 1e308,
            "error_ms": -1e308, "silence_ms": u64::MAX, "recovered": -5, "holes": [
                {"lost": true, "from_ms": u64::MAX, "to_ms": u64::MAX}, {"lost": true, "from_ms": 100, "to_ms": 1e15},
                {"lost": true, "from_ms": 200, "to_ms": 1e8}, {"lost": true, "from_ms": 500, "to_ms": 400}, [], 5]});
        manifest["channels"] = json!({"caller": channel, "ai": [1, 2, 3]});
        let mark = |n: u64| json!({"name": nasty, "offset_ms": n, "channel": if n.is_multiple_of(2) {"ai"} else {"?"}});
        manifest["marks"] = (0..50_000).map(mark).collect();
        manifest["paused"] =
            json!([{"channel": "both", "from_ms": 0, "to_ms": 1e8}, {"from_ms": "0", "to_ms": {}}]);
    });
    let said = inspect(&[&path]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.len() < 20_000, "{} bytes", said.out.len());
    let svg = read_picture(&path.with_extension("svg"));
    assert!(svg.contains("&lt;script&gt;"), "shown, as text");
    for text in
        ["null", "7", "{\"file\":7,\"channels\":[],\"marks\":{},\"duration_ms\":1e999}", &"[".repeat(100_000)]
    {
        fs::write(path.with_extension("json"), text).unwrap();
        assert_eq!(inspect(&[&path]).code, 0, "{}", text.len());
    }
}

#[test]
fn files_of_other_encoders_are_looked_at_too() {
    let folder = tempfile::tempdir().unwrap();
    let wav = folder.path().join("tone.wav");
    let source = "sine=frequency=440:duration=4:sample_rate=48000";
    let run = |command: &mut Command| match command.output() {
        Ok(output) => {
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(error) => {
            assert!(!is_strict(), "{command:?}: {error}");
            false
        }
    };
    for (channels, layout) in
        [("1", "Ogg Opus, mono (mapping family 0)"), ("2", "Ogg Opus, coupled stereo (mapping family 0)")]
    {
        let quiet = ["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", source, "-ac", channels];
        let by_ffmpeg = folder.path().join(format!("ffmpeg-{channels}.opus"));
        let by_opusenc = folder.path().join(format!("opusenc-{channels}.opus"));
        let mut is_there = run(Command::new("ffmpeg").args(quiet).args(["-c:a", "libopus"]).arg(&by_ffmpeg));
        is_there &= run(Command::new("ffmpeg").args(quiet).arg(&wav));
        is_there &= run(Command::new("opusenc")
            .args(["--quiet", "--comment", "title=caf\u{e9}"])
            .args([&wav, &by_opusenc]));
        if !is_there {
            return;
        }
        for path in [&by_ffmpeg, &by_opusenc] {
            let said = inspect(&[path]);
            assert_eq!(said.code, 0, "{}{}", said.out, said.err);
            assert_eq!((said.row("Format"), said.row("Length")), (layout, "0:04.000"), "{}", path.display());
            let svg = read_picture(&path.with_extension("svg"));
            let heights = edge(&svg, 0, "peak").into_iter().filter(|(x, _)| (20.0..1480.0).contains(x));
            // FFmpeg's tone has an amplitude of an eighth; two channels of it are each 3 dB lower.
            let expected = if channels == "1" { 0.125 } else { 0.125 / 2f64.sqrt() };
            assert!(
                heights.into_iter().all(|(_, height)| (height - expected).abs() < 0.03),
                "{}",
                path.display()
            );
            assert_eq!(said.out.contains("identical"), channels == "2");
        }
    }
    // One behind the other, as internet radio does.
    let chained = folder.path().join("chained.opus");
    let parts = ["ffmpeg-2.opus", "opusenc-2.opus"].map(|name| fs::read(folder.path().join(name)).unwrap());
    fs::write(&chained, parts.concat()).unwrap();
    let said = inspect(&[&chained]);
    assert_eq!((said.code, said.row("Length")), (0, "0:08.000"), "{}{}", said.out, said.err);
    assert!(said.out.contains("2 streams one behind the other"), "{}", said.out);
}

#[test]
fn the_gain_in_the_header_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let path = publish(folder.path(), "gain", [&Sender::new(1).packets(&tone(0.25, 100)), &[]], Lossless);
    fs::remove_file(path.with_extension("json")).unwrap();
    let mut reader = ogg::PacketReader::new(std::io::Cursor::new(fs::read(&path).unwrap()));
    let mut writer = ogg::PacketWriter::new(Vec::new());
    while let Some(mut packet) = reader.read_packet().unwrap() {
        if packet.data.starts_with(b"OpusHead") {
            // Half the amplitude: -6.02 dB in 1/256 dB.
            packet.data[16..18].copy_from_slice(&(-1541i16).to_le_bytes());
        }
        let end = match (packet.last_in_stream(), packet.last_in_page()) {
            (true, _) => ogg::PacketWriteEndInfo::EndStream,
            (_, true) => ogg::PacketWriteEndInfo::EndPage,
            _ => ogg::PacketWriteEndInfo::NormalPacket,
        };
        let (serial, granule) = (packet.stream_serial(), packet.absgp_page());
        writer.write_packet(packet.data, serial, end, granule).unwrap();
    }
    fs::write(&path, writer.into_inner()).unwrap();
    let said = inspect(&[&path]);
    assert!(said.out.contains("gain -6.02 dB") && said.row("Level").starts_with("-21."), "{}", said.out);
}

#[test]
fn no_flipped_bit_makes_it_panic_or_go_on_for_ever() {
    use sidetape::io::listen::listen;
    let (_folder, path) = whole_call(Lossless);
    let good = fs::read(&path).unwrap();
    let whole = listen(good.as_slice()).unwrap();
    assert!(whole.damage.is_empty() && whole.undecodable == 0);
    // With the checksums made right again, so that what is behind them is reached, too.
    let mut seed = 1u32;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        usize::try_from(seed).unwrap()
    };
    let mut refused = 0;
    for round in 0..300 {
        let mut bad = good.clone();
        let until = if round % 3 == 0 { 200 } else { bad.len() };
        for _ in 0..=round % 4 {
            bad[random() % until] ^= 1 << (random() % 8);
        }
        if round % 2 == 0 {
            mend_checksums(&mut bad);
        }
        match listen(bad.as_slice()) {
            Ok(heard) => {
                assert!(heard.duration.0 <= 2 * 86_400 * 48_000, "{:?}", heard.duration);
                assert_eq!(heard.bytes, good.len() as u64);
            }
            Err(_) => refused += 1,
        }
    }
    assert!((1..200).contains(&refused), "{refused} refused: the others were listened to");
    for length in (0..good.len()).step_by(97) {
        if let Ok(heard) = listen(&good[..length]) {
            assert!(!heard.is_ended && heard.duration <= whole.duration);
        }
    }
}

/// Writes the right checksum into each page that can be found.
fn mend_checksums(bytes: &mut [u8]) {
    let mut at = 0;
    while at + 27 <= bytes.len() && bytes[at..].starts_with(b"OggS") {
        let segments = usize::from(bytes[at + 26]);
        let Some(table) = bytes.get(at + 27..at + 27 + segments) else { return };
        let end = at + 27 + segments + table.iter().map(|length| usize::from(*length)).sum::<usize>();
        if end > bytes.len() {
            return;
        }
        bytes[at + 22..at + 26].fill(0);
        let mut sum = 0u32;
        for byte in &bytes[at..end] {
            sum ^= u32::from(*byte) << 24;
            for _ in 0..8 {
                sum = if sum >> 31 == 1 { (sum << 1) ^ 0x04c1_1db7 } else { sum << 1 };
            }
        }
        bytes[at + 22..at + 26].copy_from_slice(&sum.to_le_bytes());
        at = end;
    }
}
