//! Every codec in both formats: real captures rendered, decoded by libopus, and compared with each other.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::cast_possible_truncation, reason = "lengths of a few minutes")]

mod rig;

use serde_json::{Value, json};
use sidetape::config::RecordingFormat::{self, Compat, Lossless};

use rig::captures::streams;
use rig::judges::judge;
use rig::media::{SPEECH, Sender, Sent, voice};
use rig::recording::{Recording, sounds_in};
use rig::spool::{options, record};

/// File; for each of its streams the codec, the packets that were lost, and seconds from first to last as tshark
/// tells them.
type Known = (&'static str, &'static [(&'static str, u64, f64)]);

const CAPTURES: [Known; 27] = [
    ("call1_alaw.a.rtp", &[("PCMA", 0, 8.1)]),
    ("call1_alaw.o.rtp", &[("PCMA", 0, 8.1)]),
    ("call1_ulaw.a.rtp", &[("PCMU", 0, 11.8)]),
    ("call1_ulaw.o.rtp", &[("PCMU", 0, 11.8)]),
    ("call1_g722.a.rtp", &[("G722", 0, 12.4)]),
    ("call1_g722.o.rtp", &[("G722", 0, 12.4)]),
    ("opus-2013785496.pcap", &[("opus", 0, 15.3)]),
    ("ulaw-2013785496.pcap", &[("PCMU", 0, 19.5)]),
    ("16_bit_48khz_60_fec_rtp.pcapng", &[("opus", 0, 60.0)]),
    ("16_bit_48khz_60_fec_dropped.pcapng", &[("opus", 29, 60.0)]),
    ("40msalaw.pcap", &[("PCMA", 0, 33.0)]),
    ("g711a.pcap", &[("PCMA", 0, 7.0)]),
    ("sip-rtp-opus.pcap", &[("opus", 0, 8.5)]),
    ("sip-rtp-g711.pcap", &[("PCMU", 0, 8.5), ("PCMA", 0, 8.3)]),
    ("sip-rtp-g722.pcap", &[("G722", 0, 8.5)]),
    ("sip-rtp-l16.pcap", &[("L16", 0, 8.5), ("L16", 0, 8.5), ("L16", 0, 11.7), ("L16", 0, 8.5)]),
    ("opus-edge-congestion20_60_40.pcapng", &[("opus", 6, 119.8)]),
    ("rtp-534late-24loss-7000total.pcapng", &[("opus", 24, 142.2)]),
    ("pcmu_8k_no_jitter.pcap", &[("PCMU", 0, 50.5)]),
    ("gigaset-n510-ip-pro-rfc2833.pcap", &[("PCMU", 0, 49.9)]),
    ("dtmf3presses.pcap", &[("PCMU", 0, 23.9), ("PCMU", 0, 23.9)]),
    ("milliwatt.pcmu.rtp.pcap", &[("PCMU", 0, 4.6)]),
    ("bark.rtp", &[("PCMU", 0, 0.3)]),
    ("audio-80-75-0c60.pcapng", &[("PCMA", 240, 65.7)]),
    ("SIP_DTMF2.pcap", &[("PCMA", 2, 20.0), ("PCMA", 0, 20.0)]),
    ("sinora.pcap", &[("PCMU", 0, 17.0), ("PCMU", 0, 16.2), ("PCMU", 0, 17.0), ("PCMU", 0, 15.7)]),
    ("derived_stereo_celt_96k_20s.pcap", &[("opus", 0, 20.0)]),
];

/// What the SDP of each call said, where it is not the default. SSRC, rtpmaps. That the key presses of one are of type 96
/// nobody says.
fn payload_types(file: &str, ssrc: u32) -> Value {
    match (file, ssrc) {
        ("sip-rtp-l16.pcap", 0x043d_a974) => json!({"99": "L16/8000/2"}),
        ("sip-rtp-l16.pcap", 0x043f_fa0c) => json!({"99": "L16/16000/2"}),
        ("sip-rtp-l16.pcap", 0x043d_a985) => json!({"99": "L16/11025"}),
        ("sip-rtp-l16.pcap", _) => json!({"99": "L16/48000"}),
        ("opus-2013785496.pcap", _) => json!({"101": "telephone-event/48000"}),
        _ => json!({}),
    }
}

fn check_all(format: RecordingFormat) {
    let place = tempfile::tempdir().unwrap();
    for (file, known) in CAPTURES {
        let Some(streams) = streams(file) else { return };
        assert_eq!(streams.len(), known.len(), "streams of {file}");
        for ((ssrc, sent), (codec, lost, seconds)) in streams.iter().zip(known) {
            let name = format!("{file} {ssrc:08x}");
            let maps = payload_types(file, *ssrc);
            let (rendered, decoded) =
                record(place.path(), [&maps, &json!({})], [sent, &[]], &options(format));
            judge(&rendered.files[0].path);
            let caller = &rendered.manifest.channels.caller;
            assert_eq!(caller.codec.as_deref(), Some(*codec), "{name}");
            assert_eq!(caller.packets, sent.len() as u64, "{name}");
            assert_eq!((caller.lost, caller.stray, caller.overlapping), (*lost, 0, 0), "{name}: lost");
            let is_as_it_came = format == Lossless && *codec == "opus";
            assert_eq!(caller.transcoded, !is_as_it_came, "{name}");
            let duration_s = rendered.manifest.duration_ms as f64 / 1000.0;
            assert!((duration_s - seconds).abs() < 0.5, "{name}: {duration_s} s, not {seconds}");
            assert!(decoded[0].len().abs_diff((duration_s * 48_000.0) as usize) <= 48, "{name}");
            let shift_most_ms = if format == Compat { 2.0 } else { 15.0 };
            assert!(caller.max_shift_ms <= shift_most_ms, "{name}: {} ms", caller.max_shift_ms);
            assert!(
                decoded[1].iter().all(|sample| sample.abs() < 0.001),
                "{name}: nothing on the other side"
            );
        }
    }
}

#[test]
fn every_capture_is_whole_in_lossless() {
    check_all(Lossless);
}

#[test]
fn every_capture_is_whole_in_compat() {
    check_all(Compat);
}

/// The rms of a difference against that of the original, in decibels.
fn error_db(original: &[f32], other: &[f32]) -> f64 {
    let power = |samples: &mut dyn Iterator<Item = f32>| -> f64 { samples.map(|s| f64::from(s * s)).sum() };
    let error = power(&mut original.iter().zip(other).map(|(a, b)| a - b));
    10.0 * (error / power(&mut original.iter().copied())).log10()
}

#[test]
fn what_fec_brings_back_is_counted_and_close_to_the_original() {
    let file = "16_bit_48khz_60_fec_dropped.pcapng";
    let (Some(whole), Some(dropped)) = (streams("16_bit_48khz_60_fec_rtp.pcapng"), streams(file)) else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let none = json!({});
    let render = |sent, format| record(place.path(), [&none, &none], [sent, &[]], &options(format));
    let (_, original) = render(&whole[0].1, Compat);
    let (rendered, repaired) = render(&dropped[0].1, Compat);
    let caller = &rendered.manifest.channels.caller;
    assert_eq!((caller.lost, caller.recovered), (29, 29));
    let error = error_db(&original[0], &repaired[0]);
    println!("error with FEC {error:.1} dB");
    // Some of it is that the two are placed some samples apart, by the least delayed packets of each.
    assert!(error < -12.0, "{error:.1} dB");
}

/// The lag of one sound behind another in milliseconds, up to 15, over four seconds, at 12 kHz.
fn lag_ms(reference: &[f32], other: &[f32]) -> f64 {
    let slow = |samples: &[f32]| -> Vec<f32> {
        samples.chunks_exact(4).map(|four| four.iter().sum::<f32>() / 4.0).collect()
    };
    let (reference, other) = (slow(reference), slow(other));
    let (from, to) = (12_000, 60_000);
    let likeness = |lag: i64| -> f32 {
        let start = usize::try_from(from as i64 + lag).unwrap();
        reference[from..to].iter().zip(&other[start..]).map(|(a, b)| a * b).sum()
    };
    let best = (-180..=180).max_by(|a, b| likeness(*a).total_cmp(&likeness(*b))).unwrap();
    best as f64 / 12.0
}

#[test]
fn one_prompt_in_every_codec_lines_up() {
    let place = tempfile::tempdir().unwrap();
    for (format, most_ms) in [(Compat, 1.0), (Lossless, 10.0)] {
        let mut reference: Option<Vec<f32>> = None;
        // The sender's own resamplers put its 48 kHz call 1.25 ms before its 8 kHz ones, in the payloads themselves
        // (NumPy and FFmpeg measure the same), and its 16 kHz ones in the middle: those are what is compared with.
        for file in ["sip-rtp-g722.pcap", "sip-rtp-g711.pcap", "sip-rtp-l16.pcap", "sip-rtp-opus.pcap"] {
            let Some(streams) = streams(file) else { return };
            // The call at 11025 Hz is sent slower than it is spoken, and is no measure for anything.
            for (ssrc, sent) in streams.iter().filter(|(ssrc, _)| *ssrc != 0x043d_a985) {
                let maps = payload_types(file, *ssrc);
                let sides = [&maps, &json!({})];
                let (_, [caller, _]) = record(place.path(), sides, [sent, &[]], &options(format));
                let Some(reference) = &reference else {
                    reference = Some(caller);
                    continue;
                };
                let lag = lag_ms(reference, &caller);
                println!("{format:?} {file} {ssrc:08x}: {lag:.2} ms behind G.722");
                assert!(lag.abs() <= most_ms, "{format:?} {file} {ssrc:08x}: {lag} ms");
            }
        }
    }
}

#[test]
fn copies_in_redundant_packets_take_the_places_of_lost_ones() {
    let place = tempfile::tempdir().unwrap();
    let payloads = voice(SPEECH, 140.0, 100);
    let mut sender = Sender { payload_type: 63, ..Sender::new(7) };
    let mut sent = Vec::new();
    for (n, payload) in payloads.iter().enumerate() {
        let mut redundant = Vec::new();
        let copy = n.checked_sub(1).map(|before| &payloads[before]);
        if let Some(copy) = copy {
            // F and payload type 111, 14 bits of timestamp offset, 10 bits of length.
            let bits = 960 << 10 | u32::try_from(copy.len()).unwrap();
            redundant.push(0x80 | 111);
            redundant.extend_from_slice(&bits.to_be_bytes()[1..]);
        }
        redundant.push(111);
        redundant.extend(copy.into_iter().flatten());
        redundant.extend_from_slice(payload);
        sent.push(sender.packet(&redundant, 960));
    }
    let kept: Vec<Sent> =
        sent.into_iter().enumerate().filter(|(n, _)| n % 9 != 4).map(|(_, sent)| sent).collect();
    let maps = json!({"63": "red/48000/2", "111": "opus/48000/2"});
    let (rendered, _) = record(place.path(), [&maps, &json!({})], [&kept, &[]], &options(Lossless));
    let caller = &rendered.manifest.channels.caller;
    assert_eq!((caller.lost, caller.recovered), (11, 11));
    assert_eq!((caller.duplicate, caller.reordered, caller.stray), (0, 0, 0), "copies are no duplicates");
    assert_eq!(caller.codec.as_deref(), Some("opus"));
    let recording = Recording::read(&rendered.files[0].path);
    let heard: Vec<_> = recording.heard(0).map(|placed| placed.sound.clone()).collect();
    assert!(heard == sounds_in(&payloads), "every frame, byte for byte");
}

#[test]
fn opus_behind_another_codec_stays_as_it_came() {
    let place = tempfile::tempdir().unwrap();
    let payloads = voice(SPEECH, 140.0, 100);
    let mut sender = Sender { payload_type: 0, ..Sender::new(7) };
    // A second of A-law would be another second; mu-law has 160 bytes in 20 ms of its clock of 8000 Hz.
    let mut sent = Vec::new();
    for n in 0..50u32 {
        let tone: Vec<u8> = (0..160).map(|i| if (i / 10 + n) % 2 == 0 { 0x90 } else { 0x10 }).collect();
        sender.timestamp = n * 160;
        sent.push(sender.packet(&tone, 960));
    }
    sender.payload_type = 111;
    sender.timestamp = 8_000_000;
    sent.extend(sender.packets(&payloads));
    let none = json!({});
    let (rendered, decoded) = record(place.path(), [&none, &none], [&sent, &[]], &options(Lossless));
    let caller = &rendered.manifest.channels.caller;
    assert_eq!(caller.codec.as_deref(), Some("PCMU+opus"));
    assert_eq!((caller.lost, caller.transcoded, rendered.manifest.duration_ms), (0, true, 3000));
    let recording = Recording::read(&rendered.files[0].path);
    let heard: Vec<_> = recording.heard(0).map(|placed| placed.sound.clone()).collect();
    assert_eq!(heard.len(), 150);
    assert!(heard[50..] == sounds_in(&payloads), "every Opus frame, byte for byte");
    let loud = decoded[0].iter().filter(|sample| sample.abs() > 0.05).count();
    assert!(loud > 100_000, "both codecs are heard");
}

/// What is said `time_s` into a call: each second a sweep of its own, so that one second is like no other.
fn sweep(time_s: f64) -> f64 {
    let (second, within) = (time_s.floor(), time_s.fract());
    let from_hz = 300.0 + 37.0 * (second % 11.0);
    0.4 * (std::f64::consts::TAU * (from_hz * within + 1300.0 * within * within)).sin()
}

/// A sender of L16 at 8 kHz whose clock is off by so many ppm.
fn drifting(ssrc: u32, ppm: f64, seconds: u32) -> Vec<Sent> {
    let pace = 1.0 / (1.0 + ppm * 1e-6);
    let mut sender = Sender { payload_type: 96, ..Sender::new(ssrc) };
    (0..seconds * 50)
        .map(|n| {
            let payload: Vec<u8> = (0..160)
                .flat_map(|i| {
                    let spoken_s = f64::from(n * 160 + i) / 8000.0 * pace;
                    ((sweep(spoken_s) * 32_000.0) as i16).to_be_bytes()
                })
                .collect();
            sender.timestamp = n * 160;
            let mut sent = sender.packet(&payload, 960);
            // It leaves when it has been spoken, and the network takes 5 to 12 ms.
            let jitter_us = u64::from(n.wrapping_mul(2_654_435_761) >> 16) % 7000;
            sent.at_us = 1_000_000 + (f64::from(n + 1) * 20_000.0 * pace) as u64 + 5000 + jitter_us;
            sent
        })
        .collect()
}

#[test]
fn a_drifting_clock_moves_nothing_in_compat() {
    // Two hours are `SIDETAPE_DRIFT_SECONDS=7200`, best with --release.
    let seconds = std::env::var("SIDETAPE_DRIFT_SECONDS").map_or(180, |text| text.parse().unwrap());
    let place = tempfile::tempdir().unwrap();
    let maps = json!({"96": "L16/8000"});
    let sent = [drifting(1, 100.0, seconds), drifting(2, -100.0, seconds)];
    let (rendered, decoded) = record(place.path(), [&maps, &maps], [&sent[0], &sent[1]], &options(Compat));
    let channels = &rendered.manifest.channels;
    for (channel, (decoded, counts)) in decoded.iter().zip([&channels.caller, &channels.ai]).enumerate() {
        assert_eq!(counts.lost, 0);
        let lags: Vec<f64> = (1..seconds - 2).map(|second| lag_at(decoded, second)).collect();
        let least = lags.iter().copied().fold(f64::MAX, f64::min);
        let most = lags.iter().copied().fold(f64::MIN, f64::max);
        println!("channel {channel}: {:.1} ppm, lag {least:.2} to {most:.2} ms", counts.drift_ppm);
        assert!(most - least <= 1.0, "channel {channel}: lag from {least} to {most} ms");
        assert!(most.abs() <= 15.0 && least.abs() <= 15.0, "channel {channel}");
    }
}

/// How far a second of a recording is behind what was said, in milliseconds, to a twelfth.
fn lag_at(decoded: &[f32], second: u32) -> f64 {
    let start = usize::try_from(second).unwrap() * 48_000 + 9600;
    // Half a second at 12 kHz, in which the sweep runs through 1.3 kHz.
    let said: Vec<f64> =
        (0..6000).map(|i| sweep(f64::from(second) + 0.2 + f64::from(i) / 12_000.0)).collect();
    let likeness = |lag: i64| -> f64 {
        let from = usize::try_from(start as i64 + lag).unwrap();
        said.iter().enumerate().map(|(i, said)| said * f64::from(decoded[from + 4 * i])).sum()
    };
    let lags = (-360..=720).step_by(4);
    lags.max_by(|a, b| likeness(*a).total_cmp(&likeness(*b))).unwrap() as f64 / 48.0
}
