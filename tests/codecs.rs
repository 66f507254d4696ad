//! Decoders of telephone audio beside FFmpeg's: the same bytes, compared sample by sample.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use sidetape::codec::pcm::{PcmDecoder, PcmFormat};

use rig::captures::audio_payloads;
use rig::judges::{decode_raw_with_ffmpeg, encode_g722_with_ffmpeg};

const MONO_8K: PcmFormat = PcmFormat::L16 { sample_hz: 8000, channels: 1 };

/// What FFmpeg calls the raw form of a format, and how it has to be told what is in it.
fn raw_form(format: PcmFormat) -> Vec<String> {
    let form = |name: &str, sample_hz: u32, channels: u8| {
        ["-f", name, "-ar", &sample_hz.to_string(), "-ac", &channels.to_string()].map(str::to_owned).to_vec()
    };
    match format {
        PcmFormat::Pcmu => form("mulaw", 8000, 1),
        PcmFormat::Pcma => form("alaw", 8000, 1),
        PcmFormat::G722 => ["-f", "g722"].map(str::to_owned).to_vec(),
        PcmFormat::L16 { sample_hz, channels } => form("s16be", sample_hz, channels),
    }
}

/// Decodes payloads one by one, lets FFmpeg decode all of them at once, and compares.
fn decodes_like_ffmpeg(format: PcmFormat, payloads: &[Vec<u8>]) {
    let Some(expected) = decode_raw_with_ffmpeg(&raw_form(format), &payloads.concat()) else { return };
    let mut decoder = PcmDecoder::new(format);
    let mut samples = Vec::new();
    for payload in payloads {
        decoder.decode(payload, &mut samples);
    }
    let channels = if let PcmFormat::L16 { channels, .. } = format { usize::from(channels) } else { 1 };
    assert_eq!(samples.len(), expected.len() / channels, "{format:?}");
    assert!(samples.len() > 200, "{format:?}: almost nothing was compared");
    for (at, (sample, expected)) in samples.iter().zip(expected.chunks(channels)).enumerate() {
        let mean = expected.iter().map(|sample| f32::from(*sample)).sum::<f32>()
            / f32::from(u16::try_from(channels).unwrap());
        assert_eq!(sample * 32_768.0, mean, "{format:?}, sample {at}");
    }
}

/// Bytes without any order, in packets of 160.
fn random_payloads(bytes: usize) -> Vec<Vec<u8>> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    let bytes: Vec<u8> = (0..bytes).map(|_| next()).collect();
    bytes.chunks(160).map(<[u8]>::to_vec).collect()
}

#[test]
fn every_code_of_g711_is_the_sample_that_ffmpeg_makes_of_it() {
    let codes: Vec<u8> = (0..=u8::MAX).collect();
    decodes_like_ffmpeg(PcmFormat::Pcmu, std::slice::from_ref(&codes));
    decodes_like_ffmpeg(PcmFormat::Pcma, &[codes]);
}

#[test]
fn any_bytes_decode_as_g722_to_the_bit() {
    // 5 s.
    decodes_like_ffmpeg(PcmFormat::G722, &random_payloads(5 * 8000));
}

#[test]
fn the_loudest_and_the_rarest_codes_decode_as_g722_to_the_bit() {
    // Each byte for 50 ms: the predictors and steps go to their limits.
    let payloads: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte; 400]).collect();
    decodes_like_ffmpeg(PcmFormat::G722, &payloads);
}

#[test]
fn linear_samples_are_what_ffmpeg_reads() {
    for format in [MONO_8K, PcmFormat::L16 { sample_hz: 44_100, channels: 2 }] {
        decodes_like_ffmpeg(format, &random_payloads(16_000));
    }
}

#[test]
fn real_calls_decode_as_ffmpeg_decodes_them() {
    let captures = [
        ("call1_g722.a.rtp", 9, PcmFormat::G722),
        ("call1_g722.o.rtp", 9, PcmFormat::G722),
        ("sip-rtp-g722.pcap", 9, PcmFormat::G722),
        ("call1_ulaw.a.rtp", 0, PcmFormat::Pcmu),
        ("call1_alaw.a.rtp", 8, PcmFormat::Pcma),
        // Four calls at different rates, two of them stereo: as bytes, they are all the same.
        ("sip-rtp-l16.pcap", 99, MONO_8K),
        ("sip-rtp-l16.pcap", 99, PcmFormat::L16 { sample_hz: 16_000, channels: 2 }),
    ];
    for (name, payload_type, format) in captures {
        let Some(payloads) = audio_payloads(name, payload_type) else { return };
        assert!(payloads.len() > 300, "{name} has {} packets", payloads.len());
        decodes_like_ffmpeg(format, &payloads);
    }
}

#[test]
fn g722_is_late_by_what_it_says() {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        i16::from_be_bytes([state.to_be_bytes()[0], state.to_be_bytes()[1]]) / 4
    };
    let noise: Vec<i16> = (0..16_000).map(|_| next()).collect();
    let Some(bytes) = encode_g722_with_ffmpeg(&noise) else { return };
    let mut decoded = Vec::new();
    PcmDecoder::new(PcmFormat::G722).decode(&bytes, &mut decoded);
    let likeness = |lag: usize| -> f64 {
        let pairs = noise.iter().zip(&decoded[lag..]);
        pairs.map(|(sent, heard)| f64::from(*sent) * f64::from(*heard)).sum()
    };
    let best = (0..100).max_by(|a, b| likeness(*a).total_cmp(&likeness(*b))).unwrap();
    println!("G.722 is late by {best} samples at 16 kHz");
    assert_eq!(i64::try_from(best * 3).unwrap(), PcmFormat::G722.delay_samples_48k());
}
