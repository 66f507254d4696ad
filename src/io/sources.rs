//! Both channels of a call between its spool file and an Ogg file: which packets go in, and where they are read.
//!
//! [`Received`] is a channel as it came. For the format `lossless`, [`Sources`] brings both to pieces for the grid, what
//! is no Opus encoded on the way into a file without a name, and writes them into an [`OggFile`]; for `compat`,
//! [`write_compat`] decodes both and encodes them together.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use tracing::warn;

use super::ogg_file::OggFile;
use super::payloads::{Place, Window};
use super::render::RenderError;
use super::spool_dir::nameless_beside;
use crate::id::{Channel, ConnectionId};
use crate::ledger::Ledger;
use crate::manifest::Muxed;
use crate::mux::anew::{Anew, BLOCK, spans};
use crate::mux::cells::{NoCommonGrid, Planner};
use crate::mux::compat::Compat;
use crate::mux::lane::{Lane, Piece, UNIT};
use crate::mux::lossless::Assembler;
use crate::recording::Arrangement;
use crate::sound::{Audio, Format, Sound, end_of};
use crate::time::Samples48k;

/// A channel's packets as they were received, and where their payloads are.
pub(super) struct Received {
    packets: Vec<Audio>,
    places: Vec<Place>,
}

impl Received {
    pub(super) fn of(ledger: &Ledger, call: &Arrangement, channel: Channel) -> Self {
        let arranged = &call.channels[channel.index()];
        let payloads = &ledger.channels[channel.index()].payloads;
        let place = |rx: &u32| {
            let payload = &payloads[crate::timeline::index(*rx)];
            Place { offset: payload.offset, length: payload.length, is_encoded: false }
        };
        Self { packets: arranged.packets.clone(), places: arranged.sources.iter().map(place).collect() }
    }

    /// Where the last packet ends.
    pub(super) fn end(&self) -> Samples48k {
        end_of(&self.packets)
    }

    /// The packets as pieces for the grid: those of Opus as they are, the others, or with `is_all` all of them,
    /// encoded.
    fn to_source(&self, spool: &Path, is_all: bool) -> Result<Source, RenderError> {
        let spans = spans(&self.packets, is_all);
        let mut source = Source {
            pieces: Vec::with_capacity(self.packets.len()),
            places: Vec::with_capacity(self.packets.len()),
            encoded: None,
            is_anew: is_all,
        };
        let mut next = 0;
        if !spans.is_empty() {
            let mut out = BufWriter::new(nameless_beside(spool)?);
            let mut window = Window::open(spool)?;
            let mut anew = Anew::new()?;
            let mut offset = 0;
            for span in spans {
                source.keep(self, next..span.packets.start);
                next = span.packets.end;
                let places = &self.places[span.packets.clone()];
                let fetch = |packet: usize, payload: &mut Vec<u8>| window.read(places[packet], payload);
                let mut sound = Sound::new(&self.packets[span.packets.clone()], span.from, fetch)?;
                let places = &mut source.places;
                let store = |packet: &[u8]| {
                    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
                    places.push(Place { offset, length, is_encoded: true });
                    offset += u64::from(length);
                    out.write_all(packet)
                };
                anew.encode(&span, &mut sound, store, &mut source.pieces)?;
            }
            source.encoded = Some(out.into_inner().map_err(io::IntoInnerError::into_error)?);
        }
        source.keep(self, next..self.packets.len());
        Ok(source)
    }
}

/// One channel's pieces for the grid, and where their payloads are.
struct Source {
    pieces: Vec<Piece>,
    places: Vec<Place>,
    /// The file of those that were encoded.
    encoded: Option<File>,
    is_anew: bool,
}

impl Source {
    /// Takes Opus packets over as they are.
    fn keep(&mut self, received: &Received, packets: std::ops::Range<usize>) {
        self.places.extend_from_slice(&received.places[packets.clone()]);
        self.pieces.extend(received.packets[packets].iter().filter_map(|packet| match packet.format {
            Format::Opus(shape) => {
                Some(Piece { at: packet.at, shape, gap: packet.gap, is_quiet: packet.is_quiet })
            }
            Format::Pcm(_) => None,
        }));
    }
}

/// What was measured of both channels, and where the conversation ends.
pub(super) type Measured = ([Muxed; 2], Samples48k);

/// Both channels' pieces.
pub(super) struct Sources {
    channels: [Source; 2],
}

impl Sources {
    /// Takes both channels as they were received, what is no Opus encoded; where they share no grid, one of them
    /// encoded anew: the one with less audio if that helps, else the other, else both.
    pub(super) fn of(
        spool: &Path,
        connection: &ConnectionId,
        received: &[Received; 2],
    ) -> Result<(Self, Measured), RenderError> {
        let of = |anew: &[Channel]| -> Result<Self, RenderError> {
            let [caller, ai] = Channel::BOTH
                .map(|channel| received[channel.index()].to_source(spool, anew.contains(&channel)));
            Ok(Self { channels: [caller?, ai?] })
        };
        let sources = of(&[])?;
        let no_grid = match sources.measure() {
            Ok(measured) => return Ok((sources, measured)),
            Err(no_grid) => no_grid,
        };
        let audio = |channel: &Channel| -> i64 {
            received[channel.index()].packets.iter().map(|packet| i64::from(packet.samples)).sum()
        };
        let mut order = Channel::BOTH;
        order.sort_by_key(audio);
        let [less, more] = order;
        for anew in [&[less][..], &[more], &[less, more]] {
            let sources = of(anew)?;
            if let Ok(measured) = sources.measure() {
                warn!(
                    connection = ?connection.as_str(),
                    channel = anew.iter().map(|channel| channel.name()).collect::<Vec<_>>().join(" and "),
                    at_ms = no_grid.at_ms,
                    "channel encoded anew, the two share no frame grid"
                );
                return Ok((sources, measured));
            }
        }
        Err(no_grid.into())
    }

    /// Cuts the whole call into cells without writing any, which tells where it ends and whether it can be done.
    fn measure(&self) -> Result<Measured, NoCommonGrid> {
        let mut planner = self.planner();
        while planner.end().is_none_or(|end| planner.position() < end) {
            planner.next_cell()?;
        }
        let end = planner.end().unwrap_or(0) * UNIT;
        let muxed = [0, 1].map(|lane: usize| Muxed {
            recovered: 0,
            largest_move: planner.lanes()[lane].largest_move(),
            slips: planner.lanes()[lane].slips(),
            is_transcoded: self.channels[lane].encoded.is_some(),
            is_anew: self.channels[lane].is_anew,
        });
        Ok((muxed, Samples48k(end)))
    }

    fn planner(&self) -> Planner<'_> {
        let [caller, ai] = &self.channels;
        Planner::new([Lane::new(&caller.pieces), Lane::new(&ai.pieces)])
    }

    /// Writes both channels, or one alone, as far as the file's extent goes.
    pub(super) fn write(
        &self,
        spool: &Path,
        only: Option<Channel>,
        file: &mut OggFile,
    ) -> Result<(), RenderError> {
        let mut windows = [Window::open(spool)?, Window::open(spool)?];
        let encoded = |source: &Source| -> io::Result<Option<Window>> {
            source.encoded.as_ref().map(|file| Ok(Window::on(file.try_clone()?))).transpose()
        };
        let mut encoded = [encoded(&self.channels[0])?, encoded(&self.channels[1])?];
        let mut fetch = |channel: usize, piece: usize, payload: &mut Vec<u8>| {
            let place = self.channels[channel].places[piece];
            match &mut encoded[channel] {
                Some(encoded) if place.is_encoded => encoded.read(place, payload),
                _ => windows[channel].read(place, payload),
            }
        };
        let mut planner = self.planner();
        let mut assembler = Assembler::default();
        while planner.position() * UNIT < file.extent().samples() {
            let cell = planner.next_cell()?;
            let mut packet = Vec::with_capacity(512);
            match only {
                None => assembler.stereo_packet(&cell, &mut fetch, &mut packet)?,
                Some(channel) => assembler.mono_packet(channel.index(), &cell, &mut fetch, &mut packet)?,
            }
            file.push(packet, cell.units * UNIT)?;
        }
        Ok(())
    }
}

/// Decodes both channels, or one alone, and encodes them as one stream, as far as the file's extent goes. Returns what
/// was measured on the way.
pub(super) fn write_compat(
    spool: &Path,
    only: Option<Channel>,
    received: &[Received; 2],
    gains_db: [f32; 2],
    file: &mut OggFile,
) -> Result<[Muxed; 2], RenderError> {
    let channels: Vec<usize> = only.map_or(vec![0, 1], |only| vec![only.index()]);
    let mut sounds = Vec::new();
    for channel in &channels {
        let mut window = Window::open(spool)?;
        let Received { packets, places } = &received[*channel];
        let fetch = move |packet: usize, payload: &mut Vec<u8>| window.read(places[packet], payload);
        sounds.push(Sound::new(packets, Samples48k(0), fetch)?);
    }
    let gains: Vec<f32> = channels.iter().map(|channel| gains_db[*channel]).collect();
    let mut encoder = Compat::new(&gains)?;
    let mut blocks = vec![[0.0; BLOCK]; channels.len()];
    let block = i64::try_from(BLOCK).map_err(io::Error::other)?;
    let mut at = 0;
    while at < file.extent().samples() {
        for (sound, block) in sounds.iter_mut().zip(&mut blocks) {
            sound.read(block)?;
        }
        file.push(encoder.encode(&blocks)?, block)?;
        at += block;
    }
    let mut muxed = [Muxed { is_transcoded: true, ..Muxed::default() }; 2];
    for (channel, sound) in channels.iter().zip(&sounds) {
        muxed[*channel].recovered = sound.heard().recovered;
        muxed[*channel].largest_move = Samples48k(sound.heard().largest_shift);
    }
    Ok(muxed)
}
