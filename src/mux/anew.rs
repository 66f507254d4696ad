//! Encodes audio of a channel that cannot go into the file as it came: it is no Opus, or shares no grid with the other.
//!
//! Such audio is decoded as a player would decode it and encoded once, alone, in 20 ms frames of one configuration on
//! the 20 ms grid, which fit beside whatever the other channel holds. [`spans`] tells which stretches these are: around
//! them, and in long pauses, everything stays as it came. The encoder delays by the 312 samples that the file's
//! pre-skip drops, so what is heard stays where it was, to the sample.

use std::ops::Range;

use opus::{Application, Bandwidth, Bitrate, Channels, Encoder, Signal};

use crate::opus::packet::{Malformed, shape};
use crate::sound::{Audio, Format, Sound, SoundError};
use crate::time::Samples48k;
use crate::timeline::Gap;

use super::lane::Piece;

/// 20 ms at 48 kHz.
pub const BLOCK: usize = 960;
const BLOCK_SAMPLES: i64 = 960;
/// Ample for one voice; below libopus' threshold for changing to CELT, so that the configuration stays the same.
const BITS_PER_SECOND: i32 = 40_000;
/// A pause of a second ends a span: the file holds silence for it, not encoded silence.
const PAUSE_SAMPLES: i64 = 48_000;

/// The channel could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum AnewError<E: std::error::Error + 'static> {
    /// It could not be decoded.
    #[error(transparent)]
    Sound(#[from] SoundError<E>),
    /// A packet could not be stored.
    #[error("storing a packet while a channel is encoded")]
    Store(#[source] E),
    /// libopus refused.
    #[error("libopus, while a channel is encoded")]
    Codec(#[from] opus::Error),
    /// The encoder wrote what is no packet.
    #[error("the encoder's packet")]
    Malformed(#[from] Malformed),
}

/// A stretch of a channel to be encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which packets it holds.
    pub packets: Range<usize>,
    /// Where it begins, on the 20 ms grid.
    pub from: Samples48k,
    /// Where it ends, on the 20 ms grid.
    pub to: Samples48k,
}

/// Finds the stretches of a channel that have to be encoded: those that are no Opus, or with `is_all` all of it.
#[must_use]
pub fn spans(packets: &[Audio], is_all: bool) -> Vec<Span> {
    let is_encoded = |packet: &Audio| is_all || !matches!(packet.format, Format::Opus(_));
    let mut spans: Vec<Range<usize>> = Vec::new();
    for (at, packet) in packets.iter().enumerate().filter(|(_, packet)| is_encoded(packet)) {
        match spans.last_mut() {
            Some(span) if span.end == at && !is_pause(&packets[at - 1], packet) => span.end = at + 1,
            _ => spans.push(at..at + 1),
        }
    }
    let mut reached = 0;
    let on_grid = |range: Range<usize>| {
        let (first, last) = (packets[range.start].at.0, packets[range.end - 1].end());
        let before = range.start.checked_sub(1).map_or(0, |before| packets[before].end());
        // Beside a packet that stays as it is, whose grid was rounded, this one's is rounded likewise.
        let from = if before > floor(first) { floor(first + BLOCK_SAMPLES / 2) } else { floor(first) };
        let from = from.max(reached);
        let ceiling = floor(last + BLOCK_SAMPLES - 1);
        let following = packets.get(range.end).map_or(i64::MAX, |next| floor(next.at.0 + BLOCK_SAMPLES / 2));
        let to = ceiling.min(following).max(from + BLOCK_SAMPLES);
        reached = to;
        Span { packets: range, from: Samples48k(from), to: Samples48k(to) }
    };
    spans.into_iter().map(on_grid).collect()
}

fn is_pause(before: &Audio, packet: &Audio) -> bool {
    packet.noise.is_none() && packet.at.0 - before.end() >= PAUSE_SAMPLES
}

fn floor(at: i64) -> i64 {
    at.max(0) / BLOCK_SAMPLES * BLOCK_SAMPLES
}

/// An encoder of one channel.
pub struct Anew {
    encoder: Encoder,
}

impl Anew {
    /// Sets the encoder up.
    ///
    /// # Errors
    /// Where libopus has no memory.
    pub fn new() -> Result<Self, opus::Error> {
        let mut encoder = Encoder::new(48_000, Channels::Mono, Application::Voip)?;
        encoder.set_bitrate(Bitrate::Bits(BITS_PER_SECOND))?;
        encoder.set_signal(Signal::Voice)?;
        encoder.set_bandwidth(Bandwidth::Fullband)?;
        Ok(Self { encoder })
    }

    /// Encodes a span out of the sound of its packets, which begins where the span does. `store` takes each packet.
    /// Appends the pieces of the new packets to `pieces`.
    ///
    /// # Errors
    /// [`AnewError`].
    pub fn encode<E, F>(
        &mut self,
        span: &Span,
        sound: &mut Sound<'_, F>,
        mut store: impl FnMut(&[u8]) -> Result<(), E>,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), AnewError<E>>
    where
        E: std::error::Error + 'static,
        F: FnMut(usize, &mut Vec<u8>) -> Result<(), E>,
    {
        self.encoder.reset_state()?;
        let mut block = [0.0; BLOCK];
        let mut packet = [0; 1500];
        let mut at = span.from;
        while at < span.to {
            sound.read(&mut block)?;
            let length = self.encoder.encode_float(&block, &mut packet)?;
            store(&packet[..length]).map_err(AnewError::Store)?;
            let gap = match at == span.from {
                true if pieces.is_empty() => Gap::Start,
                true => Gap::Pause,
                false => Gap::None,
            };
            pieces.push(Piece { at, shape: shape(&packet[..length])?, gap, is_quiet: false });
            at.0 += BLOCK_SAMPLES;
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "sound made for a test")]
mod tests {
    use super::*;
    use crate::codec::pcm::PcmFormat;
    use opus::Decoder;
    use std::convert::Infallible;

    /// A second of a chirp in 60 ms SILK frames, beginning at 100 ms.
    fn chirp() -> (Vec<Vec<u8>>, Vec<Audio>) {
        let mut encoder = Encoder::new(48_000, Channels::Mono, Application::Voip).unwrap();
        encoder.set_bitrate(Bitrate::Bits(20_000)).unwrap();
        encoder.set_bandwidth(Bandwidth::Wideband).unwrap();
        encoder.set_signal(Signal::Voice).unwrap();
        let mut packets = Vec::new();
        let mut placed = Vec::new();
        for n in 0..17i64 {
            let pcm: Vec<i16> = (0..2880)
                .map(|i| {
                    let t = (n * 2880 + i) as f64 / 48_000.0;
                    ((t * (300.0 + 900.0 * t) * std::f64::consts::TAU).sin() * 9000.0) as i16
                })
                .collect();
            packets.push(encoder.encode_vec(&pcm, 1500).unwrap());
            let shape = shape(packets.last().unwrap()).unwrap();
            let gap = if n == 0 { Gap::Start } else { Gap::None };
            placed.push(audio(4800 + n * 2880, shape.samples(), Format::Opus(shape), gap));
        }
        (packets, placed)
    }

    fn audio(at: i64, samples: u32, format: Format, gap: Gap) -> Audio {
        Audio { at: Samples48k(at), samples, format, gap, missing: 0, noise: None, is_quiet: false }
    }

    #[test]
    fn what_is_encoded_anew_is_heard_where_it_was_in_frames_of_one_configuration() {
        let (packets, placed) = chirp();
        let fetch = |piece: usize, out: &mut Vec<u8>| -> Result<(), Infallible> {
            out.extend_from_slice(&packets[piece]);
            Ok(())
        };
        let found = spans(&placed, true);
        assert_eq!(found, [Span { packets: 0..17, from: Samples48k(4800), to: Samples48k(53_760) }]);
        let mut sound = Sound::new(&placed, found[0].from, fetch).unwrap();
        let (mut anew, mut pieces) = (Vec::new(), Vec::new());
        let store = |packet: &[u8]| {
            anew.push(packet.to_vec());
            Ok(())
        };
        Anew::new().unwrap().encode(&found[0], &mut sound, store, &mut pieces).unwrap();
        assert_eq!(pieces.len(), 51);
        assert_eq!(pieces[0].at, Samples48k(4800));
        let first = pieces[0].shape;
        assert_eq!((first.samples(), first.frames), (960, 1));
        assert!(pieces.iter().all(|piece| piece.shape == first), "one configuration");

        let decode = |packets: &[Vec<u8>]| {
            let mut decoder = Decoder::new(48_000, Channels::Mono).unwrap();
            let mut all = Vec::new();
            for packet in packets {
                let mut pcm = vec![0i16; 5760];
                let samples = decoder.decode(packet, &mut pcm, false).unwrap();
                all.extend(pcm[..samples].iter().map(|s| f64::from(*s)));
            }
            all
        };
        let (before, after) = (decode(&packets), decode(&anew));
        let likeness = |lag: i64| -> f64 {
            let shifted = after[usize::try_from(10_000 + lag).unwrap()..].iter();
            before[10_000..40_000].iter().zip(shifted).map(|(before, after)| before * after).sum()
        };
        let best = (-400..400).max_by(|a, b| likeness(*a).total_cmp(&likeness(*b))).unwrap();
        // SILK's own resampler moves the sound by a few samples (0.1 ms).
        assert!(best.abs() <= 5, "lag of {best} samples");
    }

    #[test]
    fn opus_stays_as_it_came_beside_what_is_encoded_and_long_pauses_are_left_out() {
        let opus = Format::Opus(shape(&[0x78, 1, 2]).unwrap());
        let pcm = Format::Pcm(PcmFormat::Pcmu);
        let call = [
            audio(100, 960, opus, Gap::Start),
            audio(1060, 960, pcm, Gap::None),
            audio(2020, 960, pcm, Gap::None),
            audio(2980, 960, opus, Gap::None),
            audio(60_000, 960, pcm, Gap::Pause),
            audio(120_000, 960, pcm, Gap::Pause),
        ];
        let found = spans(&call, false);
        let told: Vec<_> = found.iter().map(|s| (s.packets.clone(), s.from.0, s.to.0)).collect();
        assert_eq!(told, [(1..3, 960, 2880), (4..5, 59_520, 61_440), (5..6, 120_000, 120_960)]);
        assert_eq!(spans(&call[..1], false), []);
    }
}
