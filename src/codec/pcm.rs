//! Payloads of G.711, G.722 and linear PCM, to samples.
//!
//! | format | bytes | samples |
//! | --- | --- | --- |
//! | PCMU, PCMA (RFC 3551 4.5.14) | one a sample | 8000 Hz, from tables of 256 |
//! | G722 (RFC 3551 4.5.2) | one for two samples | 16000 Hz, though RTP counts 8000 |
//! | L16 (RFC 3551 4.5.11) | two a sample, big-endian, channels in turn | at the RTP clock |
//!
//! Any bytes are sound: there is no payload that cannot be decoded. What is left of a payload that ends within a
//! sample is dropped. Loss is none of this module's business; G.722 decodes on from the state that it has.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use audio_codec_algorithms::{decode_alaw, decode_ulaw};

use crate::rtpmap::{Codec, Rtpmap};

use super::g722::G722Decoder;

/// What one unit of a 16-bit sample is in −1..1.
const UNIT: f32 = 1.0 / 32_768.0;
/// Digital silence has no level in dB; this is the least that RFC 6464 can say, and below one unit.
const LEAST_DBOV: f32 = -127.0;

/// A format whose payloads are decoded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PcmFormat {
    /// G.711 mu-law at 8000 Hz.
    Pcmu,
    /// G.711 A-law at 8000 Hz.
    Pcma,
    /// G.722 at 64 kbit/s and 16000 Hz.
    G722,
    /// Linear 16-bit samples.
    L16 {
        /// Samples of each channel in a second.
        sample_hz: u32,
        /// Interleaved channels: 1 or 2.
        channels: u8,
    },
}

impl PcmFormat {
    /// The format that a payload type stands for; `None` where it is another codec, L16 below 8000 Hz, above 96000 Hz
    /// or of more than two channels, or G.711 other than one channel at 8000 Hz. The clock of G.722 is not looked at:
    /// RFC 3551 has it wrong on purpose, and some gateways put it right.
    #[must_use]
    pub fn of(rtpmap: Rtpmap) -> Option<Self> {
        let Rtpmap { codec, clock_hz, channels } = rtpmap;
        match (codec, clock_hz, channels) {
            (Codec::Pcmu, 8000, 1) => Some(Self::Pcmu),
            (Codec::Pcma, 8000, 1) => Some(Self::Pcma),
            (Codec::G722, _, 1) => Some(Self::G722),
            (Codec::L16, 8000..=96_000, 1 | 2) => Some(Self::L16 { sample_hz: clock_hz, channels }),
            _ => None,
        }
    }

    /// Samples in a second, in hertz; not always the RTP clock.
    #[must_use]
    pub fn sample_hz(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma => 8000,
            Self::G722 => 16_000,
            Self::L16 { sample_hz, .. } => sample_hz,
        }
    }

    /// How long a payload of so many bytes sounds, in samples at [`Self::sample_hz`], those of both channels of a
    /// stereo format as one.
    #[must_use]
    pub fn samples(self, bytes: usize) -> u32 {
        let samples = match self {
            Self::Pcmu | Self::Pcma => bytes,
            Self::G722 => bytes.saturating_mul(2),
            Self::L16 { channels, .. } => bytes.checked_div(frame_bytes(channels)).unwrap_or(0),
        };
        u32::try_from(samples).unwrap_or(u32::MAX)
    }

    /// The same in samples at 48 kHz, rounded to the nearest.
    #[must_use]
    pub fn samples_48k(self, bytes: usize) -> u32 {
        let hz = u64::from(self.sample_hz());
        let scaled = u64::from(self.samples(bytes)).saturating_mul(48_000).saturating_add(hz / 2);
        u32::try_from(scaled.checked_div(hz).unwrap_or(0)).unwrap_or(u32::MAX)
    }

    /// How much later than it was said the codec brings a sound, encoder and decoder together, in samples at 48 kHz.
    ///
    /// Only G.722 delays: two mirror filters of 24 taps, 22 samples at 16 kHz; measured against FFmpeg's encoder in
    /// `tests/codecs.rs`.
    #[must_use]
    pub fn delay_samples_48k(self) -> i64 {
        match self {
            Self::G722 => 66,
            Self::Pcmu | Self::Pcma | Self::L16 { .. } => 0,
        }
    }
}

/// Bytes of one sample of each channel. Never zero.
fn frame_bytes(channels: u8) -> usize {
    usize::from(channels.max(1)).saturating_mul(2)
}

/// Decodes the payloads of one stream, in order.
#[derive(Clone, Debug)]
pub struct PcmDecoder {
    format: PcmFormat,
    /// Used by G.722 alone: the others remember nothing.
    g722: G722Decoder,
}

impl PcmDecoder {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub fn new(format: PcmFormat) -> Self {
        Self { format, g722: G722Decoder::new() }
    }

    /// Appends a payload's samples to `out`: one channel in −1..1 at [`PcmFormat::sample_hz`], the mean of both for
    /// stereo. As many as [`PcmFormat::samples`] says.
    pub fn decode(&mut self, payload: &[u8], out: &mut Vec<f32>) {
        match self.format {
            PcmFormat::Pcmu => out.extend(payload.iter().map(|byte| f32::from(decode_ulaw(*byte)) * UNIT)),
            PcmFormat::Pcma => out.extend(payload.iter().map(|byte| f32::from(decode_alaw(*byte)) * UNIT)),
            PcmFormat::G722 => {
                let samples = payload.iter().flat_map(|byte| self.g722.decode(*byte));
                out.extend(samples.map(|sample| f32::from(sample) * UNIT));
            }
            PcmFormat::L16 { channels, .. } => {
                let share = UNIT / f32::from(channels.max(1));
                let frames = payload.chunks_exact(frame_bytes(channels));
                out.extend(frames.map(|frame| big_endian(frame).map(f32::from).sum::<f32>() * share));
            }
        }
    }
}

/// The level of a payload of G.711 or L16, over all channels, in dB relative to a square wave of full scale (dBov):
/// 0 and less, −127 for digital silence. `None` for G.722, whose level takes decoding, and for an empty payload.
#[must_use]
pub fn energy_dbov(format: PcmFormat, payload: &[u8]) -> Option<f32> {
    let (energy, samples) = match format {
        PcmFormat::Pcmu => energy(payload.iter().map(|byte| decode_ulaw(*byte))),
        PcmFormat::Pcma => energy(payload.iter().map(|byte| decode_alaw(*byte))),
        PcmFormat::G722 => return None,
        PcmFormat::L16 { .. } => energy(big_endian(payload)),
    };
    let level = 10.0 * (energy / (samples * 32_768.0 * 32_768.0)).log10();
    (samples > 0.0).then_some(level.max(LEAST_DBOV))
}

/// The sum of squares, and of how many; exact for payloads of any length that a packet can have.
fn energy(samples: impl Iterator<Item = i16>) -> (f32, f32) {
    samples.fold((0.0, 0.0), |(energy, count), sample| {
        let sample = f32::from(sample);
        (energy + sample * sample, count + 1.0)
    })
}

fn big_endian(bytes: &[u8]) -> impl Iterator<Item = i16> + '_ {
    let (samples, _incomplete) = bytes.as_chunks();
    samples.iter().map(|sample| i16::from_be_bytes(*sample))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEREO: PcmFormat = PcmFormat::L16 { sample_hz: 44_100, channels: 2 };

    fn decoded(format: PcmFormat, payload: &[u8]) -> Vec<f32> {
        let mut out = Vec::new();
        PcmDecoder::new(format).decode(payload, &mut out);
        out
    }

    #[test]
    fn an_rtpmap_stands_for_a_format_only_if_it_can_be_decoded() {
        let format = |text| PcmFormat::of(Rtpmap::parse(text).unwrap());
        assert_eq!(format("PCMU/8000"), Some(PcmFormat::Pcmu));
        assert_eq!(format("PCMA/8000"), Some(PcmFormat::Pcma));
        assert_eq!(format("G722/8000"), Some(PcmFormat::G722));
        assert_eq!(format("G722/16000"), Some(PcmFormat::G722));
        assert_eq!(format("L16/44100/2"), Some(STEREO));
        assert_eq!(format("L16/96000"), Some(PcmFormat::L16 { sample_hz: 96_000, channels: 1 }));
        for not in
            ["L16/7999", "L16/96001", "L16/8000/3", "PCMU/16000", "PCMA/8000/2", "opus/48000/2", "CN/8000"]
        {
            assert_eq!(format(not), None, "{not}");
        }
    }

    #[test]
    fn a_payload_of_20_ms_is_960_samples_at_48_khz() {
        let narrow = PcmFormat::L16 { sample_hz: 11_025, channels: 1 };
        for (format, bytes, samples, samples_48k) in [
            (PcmFormat::Pcmu, 160, 160, 960),
            (PcmFormat::Pcma, 160, 160, 960),
            (PcmFormat::G722, 160, 320, 960),
            (STEREO, 882 * 4, 882, 960),
            (STEREO, 7, 1, 1),
            (narrow, 512, 256, 1115),
            (narrow, 1, 0, 0),
        ] {
            assert_eq!(
                (format.samples(bytes), format.samples_48k(bytes)),
                (samples, samples_48k),
                "{format:?}"
            );
        }
    }

    #[test]
    fn stereo_becomes_the_mean_and_an_incomplete_sample_is_dropped() {
        assert_eq!(decoded(STEREO, &[0x40, 0, 0xc0, 0, 0x20, 0, 0, 0, 0x7f, 0xff, 0x7f]), [0.0, 0.125]);
    }

    #[test]
    fn levels_are_relative_to_full_scale() {
        let mono = PcmFormat::L16 { sample_hz: 8000, channels: 1 };
        let level = |format, payload: &[u8]| energy_dbov(format, payload).unwrap();
        assert_eq!(level(mono, &[0x80, 0, 0x80, 0]), 0.0);
        assert!((level(mono, &[0x40, 0, 0xc0, 0]) + 6.02).abs() < 0.01);
        assert!((level(PcmFormat::Pcmu, &[0x00, 0x80]) + 0.172).abs() < 0.01);
        assert_eq!(level(PcmFormat::Pcmu, &[0xff; 160]), -127.0);
        // The smallest step of A-law, which has no zero: 8 units.
        assert!((level(PcmFormat::Pcma, &[0xd5; 160]) + 72.2).abs() < 0.1);
        assert_eq!(energy_dbov(PcmFormat::G722, &[1]), None);
        assert_eq!(energy_dbov(mono, &[1]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_as_many_samples_as_were_promised(
            payload in prop::collection::vec(any::<u8>(), 0..2000),
            kind in 0..4_usize,
            channels in 0..=u8::MAX,
            sample_hz in any::<u32>(),
        ) {
            let l16 = PcmFormat::L16 { sample_hz, channels };
            let format = [PcmFormat::Pcmu, PcmFormat::Pcma, PcmFormat::G722, l16][kind];
            let samples = decoded(format, &payload);
            prop_assert_eq!(samples.len(), usize::try_from(format.samples(payload.len())).unwrap());
            prop_assert!(samples.iter().all(|sample| (-1.0..=1.0).contains(sample)));
            prop_assert!(energy_dbov(format, &payload).is_none_or(|level| (-127.0..=0.0).contains(&level)));
            prop_assert!(format.samples_48k(payload.len()) <= format.samples(payload.len()).saturating_mul(48_000));
        }
    }
}
