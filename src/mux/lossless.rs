//! Writes cells as Ogg packets: the caller's Opus packet in self-delimiting form, then the AI's.
//!
//! Received packets are fetched one at a time, split into frames, and their frames put into the packets that cells
//! ask for. No frame's bytes change. Padding is not carried over.

use std::ops::Range;

use crate::opus::packet::{CELT_SILENCE, Framing, Malformed, join, parse};

use super::cells::{Cell, Side, Slot};

/// A frame could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError<E: std::error::Error + 'static> {
    /// The payload could not be read.
    #[error("reading a packet's payload")]
    Fetch(#[source] E),
    /// The payload is not what it was when it was received.
    #[error("a packet's payload has changed since it was received")]
    Changed(#[from] Malformed),
}

/// Puts the Ogg packets of one recording together.
#[derive(Debug, Default)]
pub struct Assembler {
    loaded: [Loaded; 2],
}

/// The packet of a channel that frames were taken from last: a packet may reach into several cells.
#[derive(Debug, Default)]
struct Loaded {
    piece: Option<usize>,
    payload: Vec<u8>,
    /// Where its frames are in the payload.
    frames: Vec<Range<usize>>,
}

impl Assembler {
    /// Appends the Ogg packet of a cell to `out`. `fetch` reads the payload of a piece of a channel (0 caller, 1 ai)
    /// into an empty buffer.
    ///
    /// # Errors
    /// [`AssembleError`] where `fetch` fails or what it reads is no Opus packet of the piece's shape.
    pub fn stereo_packet<E: std::error::Error + 'static>(
        &mut self,
        cell: &Cell,
        fetch: &mut impl FnMut(usize, usize, &mut Vec<u8>) -> Result<(), E>,
        out: &mut Vec<u8>,
    ) -> Result<(), AssembleError<E>> {
        self.side(0, &cell.sides[0], Framing::SelfDelimited, fetch, out)?;
        self.side(1, &cell.sides[1], Framing::Plain, fetch, out)
    }

    /// Appends the Opus packet of one channel's side of a cell to `out`, in the plain form.
    ///
    /// # Errors
    /// As [`Assembler::stereo_packet`].
    pub fn mono_packet<E: std::error::Error + 'static>(
        &mut self,
        channel: usize,
        cell: &Cell,
        fetch: &mut impl FnMut(usize, usize, &mut Vec<u8>) -> Result<(), E>,
        out: &mut Vec<u8>,
    ) -> Result<(), AssembleError<E>> {
        self.side(channel, &cell.sides[channel], Framing::Plain, fetch, out)
    }

    fn side<E: std::error::Error + 'static>(
        &mut self,
        channel: usize,
        side: &Side,
        framing: Framing,
        fetch: &mut impl FnMut(usize, usize, &mut Vec<u8>) -> Result<(), E>,
        out: &mut Vec<u8>,
    ) -> Result<(), AssembleError<E>> {
        // Nearly every side is a single frame, which needs no gathering.
        if let [slot] = side.slots[..] {
            let frame = self.loaded[channel].frame(channel, slot, fetch)?;
            join(side.configuration, &[frame], framing, out);
            return Ok(());
        }
        let mut bytes = Vec::new();
        let mut lengths = Vec::with_capacity(side.slots.len());
        for slot in &side.slots {
            let frame = self.loaded[channel].frame(channel, *slot, fetch)?;
            bytes.extend_from_slice(frame);
            lengths.push(frame.len());
        }
        let mut rest = bytes.as_slice();
        let mut frames = Vec::with_capacity(lengths.len());
        for length in lengths {
            let (frame, after) = rest.split_at(length);
            frames.push(frame);
            rest = after;
        }
        join(side.configuration, &frames, framing, out);
        Ok(())
    }
}

impl Loaded {
    fn frame<E: std::error::Error + 'static>(
        &mut self,
        channel: usize,
        slot: Slot,
        fetch: &mut impl FnMut(usize, usize, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<&[u8], AssembleError<E>> {
        let (piece, frame) = match slot {
            Slot::Empty => return Ok(&[]),
            Slot::Silence => return Ok(&CELT_SILENCE),
            Slot::Frame(piece, frame) => (piece, frame),
        };
        if self.piece != Some(piece) {
            self.piece = None;
            self.payload.clear();
            fetch(channel, piece, &mut self.payload).map_err(AssembleError::Fetch)?;
            self.frames.clear();
            let begin = self.payload.as_ptr().addr();
            self.frames.extend(parse(&self.payload)?.frames.map(|frame| {
                let start = frame.as_ptr().addr() - begin;
                start..start + frame.len()
            }));
            self.piece = Some(piece);
        }
        let range = self.frames.get(usize::from(frame)).cloned().ok_or(Malformed)?;
        Ok(self.payload.get(range).ok_or(Malformed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mux::cells::Planner;
    use crate::mux::lane::{Lane, Piece};
    use crate::opus::packet::{Configuration, Shape};
    use crate::time::Samples48k;
    use crate::timeline::Gap;
    use std::convert::Infallible;

    #[test]
    fn a_cell_holds_both_packets_and_libopus_takes_it() {
        // Three SILK frames in one packet beside a packet of 60 ms.
        let silk_20 = Configuration::of_toc(9 << 3);
        let silk_60 = Configuration::of_toc(11 << 3);
        let mut three = Vec::new();
        join(silk_20, &[b"one", b"three", b"five!"], Framing::Plain, &mut three);
        let mut long = Vec::new();
        join(silk_60, &[b"sixty"], Framing::Plain, &mut long);
        let piece = |configuration, frames| Piece {
            at: Samples48k(0),
            shape: Shape { configuration, frames },
            gap: Gap::Start,
            is_quiet: false,
        };
        let (caller, ai) = ([piece(silk_20, 3)], [piece(silk_60, 1)]);
        let mut planner = Planner::new([Lane::new(&caller), Lane::new(&ai)]);
        let cell = planner.next_cell().unwrap();
        let mut fetch = |channel: usize, _: usize, out: &mut Vec<u8>| -> Result<(), Infallible> {
            out.extend_from_slice(if channel == 0 { &three } else { &long });
            Ok(())
        };
        let mut packet = Vec::new();
        Assembler::default().stereo_packet(cell, &mut fetch, &mut packet).unwrap();
        assert!(packet.ends_with(&long));
        assert!(packet.windows(13).any(|window| window == b"onethreefive!"));
        let mut decoder = ::opus::MSDecoder::new(48_000, 2, 0, &[0, 1]).unwrap();
        let mut pcm = vec![0i16; 5760 * 2];
        assert_eq!(decoder.decode(&packet, &mut pcm, false).unwrap(), 2880);
    }
}
