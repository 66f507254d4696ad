//! Both channels of a call between its spool file and an Ogg file: which packets go in, and where they are read.
//!
//! [`Received`] is a channel as it came. For the format `lossless`, [`write_lossless`] brings both to pieces for the grid,
//! what is no Opus encoded on the way into a file without a name, and writes them into an [`OggFile`]; for `compat`,
//! [`write_compat`] decodes both and encodes them together.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use tracing::warn;

use super::demand::Demand;
use super::ogg_file::OggFile;
use super::payloads::{Place, Windows};
use super::render::RenderError;
use super::scratch::{Room, Sink};
use crate::id::{Channel, ConnectionId};
use crate::ledger::{ChannelLedger, Ledger, Payload};
use crate::manifest::Muxed;
use crate::mux::anew::{Anew, BLOCK, spans};
use crate::mux::cells::{NoCommonGrid, Planner};
use crate::mux::compat::Compat;
use crate::mux::lane::{Lane, Piece, UNIT};
use crate::mux::lossless::Assembler;
use crate::recording::{ArrangedChannel, Arrangement};
use crate::sound::{Audio, Sound, end_of};
use crate::time::Samples48k;
use crate::timeline::{self, Rx};

/// A channel's packets as they were received, and where their payloads are.
pub(super) struct Received<'a> {
    packets: &'a [Audio],
    /// Which of `payloads` each of them has.
    sources: &'a [u32],
    payloads: &'a [Payload],
    rx: &'a [Rx],
    demand: Demand,
}

impl<'a> Received<'a> {
    pub(super) fn of(ledger: &'a Ledger, call: &'a Arrangement, channel: Channel) -> Self {
        let ArrangedChannel { packets, sources, .. } = &call.channels[channel.index()];
        let ChannelLedger { payloads, rx, .. } = &ledger.channels[channel.index()];
        Self { packets, sources, payloads, rx, demand: Demand::default() }
    }

    /// The same, which is encoded no further when the demand for it is over.
    pub(super) fn wanted_by(self, demand: &Demand) -> Self {
        Self { demand: demand.clone(), ..self }
    }

    fn place(&self, packet: usize) -> Place {
        let at = timeline::index(self.sources[packet]);
        Place { offset: self.payloads[at].offset, length: self.rx[at].bytes, is_encoded: false }
    }

    /// Where the last packet ends.
    pub(super) fn end(&self) -> Samples48k {
        end_of(self.packets)
    }

    /// The packets as pieces for the grid: those of Opus as they are, the others, or with `is_all` all of them,
    /// encoded.
    fn to_source(&self, spool: &Path, is_all: bool, room: &Room) -> Result<Source<'_>, RenderError> {
        let spans = spans(self.packets, is_all);
        let pieces = Vec::with_capacity(self.packets.len());
        let mut source = Source { received: self, pieces, encoded: None, is_anew: is_all };
        let mut next = 0;
        if !spans.is_empty() {
            let mut out = BufWriter::new(room.nameless(spool)?);
            let mut windows = Windows::open(spool)?;
            let mut anew = Anew::new()?;
            let mut places = Vec::with_capacity(self.packets.len());
            let mut offset = 0;
            for span in spans {
                let kept = next..span.packets.start;
                places.extend(kept.clone().map(|packet| self.place(packet)));
                source.keep(kept);
                next = span.packets.end;
                let first = span.packets.start;
                let fetch = |packet, payload: &mut Vec<u8>| {
                    self.demand.check()?;
                    windows.read(self.place(first + packet), payload)
                };
                let mut sound = Sound::new(&self.packets[span.packets.clone()], span.from, fetch)?;
                let store = |packet: &[u8]| {
                    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
                    places.push(Place { offset, length, is_encoded: true });
                    offset += u64::from(length);
                    out.write_all(packet)
                };
                anew.encode(&span, &mut sound, store, &mut source.pieces)?;
            }
            places.extend((next..self.packets.len()).map(|packet| self.place(packet)));
            let file = out.into_inner().map_err(io::IntoInnerError::into_error).map(Sink::into_file)?;
            source.encoded = Some(Encoded { file, places });
        }
        source.keep(next..self.packets.len());
        Ok(source)
    }
}

/// One channel's pieces for the grid, and where their payloads are.
struct Source<'a> {
    received: &'a Received<'a>,
    pieces: Vec<Piece>,
    encoded: Option<Encoded>,
    is_anew: bool,
}

/// What of a channel was encoded.
struct Encoded {
    file: File,
    /// Where the payload of each of the channel's pieces is, there or in the spool.
    places: Vec<Place>,
}

impl Source<'_> {
    fn place(&self, piece: usize) -> Place {
        match &self.encoded {
            Some(encoded) => encoded.places[piece],
            None => self.received.place(piece),
        }
    }

    /// Takes Opus packets over as they are.
    fn keep(&mut self, packets: std::ops::Range<usize>) {
        self.pieces.extend(self.received.packets[packets].iter().filter_map(Piece::of));
    }
}

/// How far a file reaches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// So far behind the last audio.
    BehindAudio(Samples48k),
    /// Up to here.
    At(Samples48k),
}

/// What was measured of both channels while they were written.
pub(super) struct Measured {
    pub(super) muxed: [Muxed; 2],
    /// How long the file plays.
    pub(super) duration: Samples48k,
}

/// Writes both channels, or one alone, into the file that `begin` makes: as they were received, what is no Opus encoded;
/// where they share no grid, into another file with one of them encoded anew: the one with less audio if that helps,
/// else the other, else both. Returns the pieces, too, of which other files can be written.
pub(super) fn write_lossless<'a>(
    spool: &Path,
    connection: &ConnectionId,
    received: &'a [Received<'a>; 2],
    only: Option<Channel>,
    until: Until,
    room: &Room,
    mut begin: impl FnMut() -> io::Result<OggFile>,
) -> Result<(Sources<'a>, OggFile, Measured), RenderError> {
    let audio = |channel: &Channel| -> i64 {
        received[channel.index()].packets.iter().map(|packet| i64::from(packet.samples)).sum()
    };
    let mut order = Channel::BOTH;
    order.sort_by_key(audio);
    let [less, more] = order;
    let mut first_no_grid = None;
    for anew in [&[][..], &[less], &[more], &[less, more]] {
        let sources = Sources::of(spool, received, anew, room)?;
        let mut file = begin()?;
        let no_grid = match sources.write(spool, only, until, &mut file) {
            Err(RenderError::Grid(no_grid)) => no_grid,
            measured => {
                if let Some(NoCommonGrid { at_ms }) = first_no_grid {
                    warn!(
                        connection = connection.as_str(),
                        channel = anew.iter().map(|channel| channel.name()).collect::<Vec<_>>().join(" and "),
                        at_ms,
                        "channel encoded anew, the two share no frame grid"
                    );
                }
                return Ok((sources, file, measured?));
            }
        };
        first_no_grid.get_or_insert(no_grid);
    }
    Err(first_no_grid.expect("each attempt returned or was noted").into())
}

/// Both channels' pieces.
pub(super) struct Sources<'a> {
    channels: [Source<'a>; 2],
}

impl<'a> Sources<'a> {
    /// Takes both channels as they were received, what is no Opus encoded, and all of those in `anew`.
    fn of(
        spool: &Path,
        received: &'a [Received<'a>; 2],
        anew: &[Channel],
        room: &Room,
    ) -> Result<Self, RenderError> {
        let [caller, ai] = Channel::BOTH
            .map(|channel| received[channel.index()].to_source(spool, anew.contains(&channel), room));
        Ok(Self { channels: [caller?, ai?] })
    }

    fn planner(&self) -> Planner<'_> {
        let [caller, ai] = &self.channels;
        Planner::new([Lane::new(&caller.pieces), Lane::new(&ai.pieces)])
    }

    /// Writes both channels, or one alone.
    pub(super) fn write(
        &self,
        spool: &Path,
        only: Option<Channel>,
        until: Until,
        file: &mut OggFile,
    ) -> Result<Measured, RenderError> {
        let mut windows = Windows::open(spool)?;
        let encoded = |source: &Source<'_>| -> io::Result<Option<Windows>> {
            source.encoded.as_ref().map(|encoded| Ok(Windows::on(encoded.file.try_clone()?))).transpose()
        };
        let mut encoded = [encoded(&self.channels[0])?, encoded(&self.channels[1])?];
        let mut fetch = |channel: usize, piece: usize, payload: &mut Vec<u8>| {
            let place = self.channels[channel].place(piece);
            match &mut encoded[channel] {
                Some(encoded) if place.is_encoded => encoded.read(place, payload),
                _ => windows.read(place, payload),
            }
        };
        let mut planner = self.planner();
        let mut assembler = Assembler::default();
        // Where the audio ends is known when all of it has been brought to the grid.
        let duration = |planner: &Planner<'_>| match until {
            Until::At(end) => Some(end),
            Until::BehindAudio(tail) => planner.end().map(|end| Samples48k(end * UNIT + tail.0)),
        };
        while duration(&planner).is_none_or(|end| planner.position() * UNIT < file.samples(end)) {
            let cell = planner.next_cell()?;
            let packet = file.packet();
            match only {
                None => assembler.stereo_packet(cell, &mut fetch, packet)?,
                Some(channel) => assembler.mono_packet(channel.index(), cell, &mut fetch, packet)?,
            }
            file.push(cell.units * UNIT)?;
        }
        let muxed = [0, 1].map(|lane: usize| Muxed {
            recovered: 0,
            largest_move: planner.lanes()[lane].largest_move(),
            slips: planner.lanes()[lane].slips(),
            is_transcoded: self.channels[lane].encoded.is_some(),
            is_anew: self.channels[lane].is_anew,
        });
        Ok(Measured { muxed, duration: duration(&planner).unwrap_or_default() })
    }
}

/// Decodes both channels, or one alone, and encodes them as one stream that plays so long. Returns what was measured on
/// the way.
pub(super) fn write_compat(
    spool: &Path,
    only: Option<Channel>,
    received: &[Received<'_>; 2],
    gains_db: [f32; 2],
    duration: Samples48k,
    file: &mut OggFile,
) -> Result<[Muxed; 2], RenderError> {
    let channels: Vec<usize> = only.map_or(vec![0, 1], |only| vec![only.index()]);
    let mut sounds = Vec::new();
    for channel in &channels {
        let mut windows = Windows::open(spool)?;
        let received = &received[*channel];
        let fetch = move |packet, payload: &mut Vec<u8>| windows.read(received.place(packet), payload);
        sounds.push(Sound::new(received.packets, Samples48k(0), fetch)?);
    }
    let gains: Vec<f32> = channels.iter().map(|channel| gains_db[*channel]).collect();
    let mut encoder = Compat::new(&gains)?;
    let mut blocks = vec![[0.0; BLOCK]; channels.len()];
    let block = i64::try_from(BLOCK).map_err(io::Error::other)?;
    let mut at = 0;
    while at < file.samples(duration) {
        for (sound, block) in sounds.iter_mut().zip(&mut blocks) {
            sound.read(block)?;
        }
        encoder.encode(&blocks, file.packet())?;
        file.push(block)?;
        at += block;
    }
    let mut muxed = [Muxed { is_transcoded: true, ..Muxed::default() }; 2];
    for (channel, sound) in channels.iter().zip(&sounds) {
        muxed[*channel].recovered = sound.heard().recovered;
        muxed[*channel].largest_move = Samples48k(sound.heard().largest_shift);
    }
    Ok(muxed)
}
