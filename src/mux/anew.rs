//! Encodes one channel anew, where the two share no grid: the exception, and the manifest says so.
//!
//! The channel is decoded as a player would decode it and encoded once, in 20 ms frames of one configuration on the
//! 20 ms grid, which fit beside whatever the other channel holds. Encoder and decoder delay by the same 312 samples
//! that the file's pre-skip drops, so the input is taken 312 samples ahead: what is heard stays where it was.
//! Memory: a few frames.

use opus::{Application, Bandwidth, Bitrate, Channels, Decoder, Encoder, Signal};

use crate::opus::packet::{Malformed, parse, shape};
use crate::time::Samples48k;
use crate::timeline::Gap;

use super::lane::{Atom, Lane, Piece, STEP_UNITS, UNIT};

/// 20 ms at 48 kHz.
const BLOCK: usize = 960;
/// The delay of libopus' encoder for speech at 48 kHz: what [`super::ogg::PRE_SKIP`] drops.
const LOOK_AHEAD: usize = 312;
/// Ample for one voice; below libopus' threshold for changing to CELT, so that the configuration stays the same.
const BITS_PER_SECOND: i32 = 40_000;
/// Concealment of a loss is decoded this long; then silence. 100 ms.
const CONCEAL_SAMPLES: i64 = 4800;

/// The channel could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum AnewError<E: std::error::Error + 'static> {
    /// A payload could not be read, or a packet not be stored.
    #[error("reading or storing a packet while a channel is encoded anew")]
    Io(#[source] E),
    /// libopus refused.
    #[error("libopus, while a channel is encoded anew")]
    Codec(#[from] opus::Error),
    /// The encoder wrote what is no packet.
    #[error("the encoder's packet")]
    Malformed(#[from] Malformed),
}

/// Decodes the packets of a channel and encodes them anew. `fetch` reads the payload of a piece into an empty buffer;
/// `store` takes each new packet. Returns the pieces of the new packets, in order.
///
/// # Errors
/// [`AnewError`]; a packet that cannot be decoded is no error, it is concealed.
pub fn encode_anew<E: std::error::Error + 'static>(
    pieces: &[Piece],
    mut fetch: impl FnMut(usize, &mut Vec<u8>) -> Result<(), E>,
    store: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Vec<Piece>, AnewError<E>> {
    let mut lane = Lane::new(pieces);
    let mut decoder = Decoder::new(48_000, Channels::Mono)?;
    let mut blocks: Option<Blocks<_>> = None;
    let mut store = Some(store);
    let (mut loaded, mut payload) = (None, Vec::new());
    while let Some(atom) = next_atom(&mut lane) {
        if loaded != Some(atom.piece) {
            payload.clear();
            fetch(atom.piece, &mut payload).map_err(AnewError::Io)?;
            loaded = Some(atom.piece);
        }
        let blocks = match &mut blocks {
            Some(blocks) => blocks,
            None => {
                let store = store.take().expect("there is one first frame");
                blocks.insert(Blocks::begin(atom.start.div_euclid(STEP_UNITS) * STEP_UNITS * UNIT, store)?)
            }
        };
        blocks.fill_gap(&atom, &mut decoder)?;
        let packet = parse(&payload)?;
        let mut alone = vec![packet.configuration.toc()];
        alone.extend_from_slice(packet.frames.get(usize::from(atom.frame)).ok_or(Malformed)?);
        blocks.decode(&mut decoder, &alone, packet.configuration.frame_samples())?;
    }
    blocks.map_or(Ok(Vec::new()), Blocks::finish)
}

fn next_atom(lane: &mut Lane<'_>) -> Option<Atom> {
    while lane.window().is_empty() && !lane.is_exhausted() {
        lane.fill_to(lane.end());
    }
    lane.take()
}

/// Decoded sound on its way into the encoder, 20 ms at a time.
struct Blocks<S> {
    encoder: Encoder,
    store: S,
    pieces: Vec<Piece>,
    /// Where the next block begins in the recording.
    at: i64,
    /// Sound that has been decoded and not yet encoded, from `at` + 312 on.
    pcm: Vec<i16>,
    /// Samples still to be dropped at the beginning.
    skip: usize,
    /// Where the sound decoded so far ends.
    end: i64,
}

impl<S> Blocks<S> {
    fn begin<E: std::error::Error + 'static>(at: i64, store: S) -> Result<Self, AnewError<E>>
    where
        S: FnMut(&[u8]) -> Result<(), E>,
    {
        let mut encoder = Encoder::new(48_000, Channels::Mono, Application::Voip)?;
        encoder.set_bitrate(Bitrate::Bits(BITS_PER_SECOND))?;
        encoder.set_signal(Signal::Voice)?;
        encoder.set_bandwidth(Bandwidth::Fullband)?;
        Ok(Self { encoder, store, pieces: Vec::new(), at, pcm: Vec::new(), skip: LOOK_AHEAD, end: at })
    }

    fn fill_gap<E: std::error::Error + 'static>(
        &mut self,
        atom: &Atom,
        decoder: &mut Decoder,
    ) -> Result<(), AnewError<E>>
    where
        S: FnMut(&[u8]) -> Result<(), E>,
    {
        let concealed = match atom.gap {
            Gap::Silence => i64::MAX,
            Gap::Loss | Gap::None => CONCEAL_SAMPLES,
            Gap::Pause => 960,
            Gap::Start => 0,
        };
        let from = self.end;
        while self.end < atom.start * UNIT {
            let samples = (atom.start * UNIT - self.end).min(960);
            if self.end - from < concealed && !self.pieces.is_empty() {
                let samples = u32::try_from(samples).expect("at most 960");
                self.decode(decoder, &[], samples)?;
            } else {
                let silence = vec![0; usize::try_from(samples).expect("at most 960")];
                self.push(&silence)?;
            }
        }
        Ok(())
    }

    /// Decodes a packet of one frame, or conceals its time if libopus will not have it.
    fn decode<E: std::error::Error + 'static>(
        &mut self,
        decoder: &mut Decoder,
        packet: &[u8],
        samples: u32,
    ) -> Result<(), AnewError<E>>
    where
        S: FnMut(&[u8]) -> Result<(), E>,
    {
        let mut pcm = vec![0; usize::try_from(samples).expect("at most 2880")];
        if decoder.decode(packet, &mut pcm, false).is_err() {
            decoder.decode(&[], &mut pcm, false)?;
        }
        self.push(&pcm)
    }

    fn push<E: std::error::Error + 'static>(&mut self, pcm: &[i16]) -> Result<(), AnewError<E>>
    where
        S: FnMut(&[u8]) -> Result<(), E>,
    {
        let skipped = self.skip.min(pcm.len());
        self.skip -= skipped;
        self.pcm.extend_from_slice(&pcm[skipped..]);
        self.end += i64::try_from(pcm.len()).expect("a frame is short");
        let mut packet = [0; 1500];
        while self.pcm.len() >= BLOCK {
            let length = self.encoder.encode(&self.pcm[..BLOCK], &mut packet)?;
            self.pcm.drain(..BLOCK);
            (self.store)(&packet[..length]).map_err(AnewError::Io)?;
            let gap = if self.pieces.is_empty() { Gap::Start } else { Gap::None };
            self.pieces.push(Piece {
                at: Samples48k(self.at),
                shape: shape(&packet[..length])?,
                gap,
                is_quiet: false,
            });
            self.at += i64::try_from(BLOCK).expect("a constant");
        }
        Ok(())
    }

    fn finish<E: std::error::Error + 'static>(mut self) -> Result<Vec<Piece>, AnewError<E>>
    where
        S: FnMut(&[u8]) -> Result<(), E>,
    {
        let end = self.end;
        while self.at < end {
            self.push(&[0; 120])?;
        }
        Ok(self.pieces)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "sound made for a test")]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// A second of a chirp in 60 ms SILK frames, beginning at 100 ms.
    fn chirp() -> (Vec<Vec<u8>>, Vec<Piece>) {
        let mut encoder = Encoder::new(48_000, Channels::Mono, Application::Voip).unwrap();
        encoder.set_bitrate(Bitrate::Bits(20_000)).unwrap();
        encoder.set_bandwidth(Bandwidth::Wideband).unwrap();
        encoder.set_signal(Signal::Voice).unwrap();
        let mut packets = Vec::new();
        let mut pieces = Vec::new();
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
            pieces.push(Piece { at: Samples48k(4800 + n * 2880), shape, gap, is_quiet: false });
        }
        (packets, pieces)
    }

    #[test]
    fn what_is_encoded_anew_is_heard_where_it_was_in_frames_of_one_configuration() {
        let (packets, pieces) = chirp();
        let mut anew = Vec::new();
        let fetch = |piece: usize, out: &mut Vec<u8>| -> Result<(), Infallible> {
            out.extend_from_slice(&packets[piece]);
            Ok(())
        };
        let new_pieces = encode_anew(&pieces, fetch, |packet| {
            anew.push(packet.to_vec());
            Ok(())
        })
        .unwrap();
        assert_eq!(new_pieces.len(), 51);
        assert_eq!(new_pieces[0].at, Samples48k(4800));
        let first = new_pieces[0].shape;
        assert_eq!((first.samples(), first.frames), (960, 1));
        assert!(new_pieces.iter().all(|piece| piece.shape == first), "one configuration");

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
}
