//! From a spool file to a recording beside it: the core's stages, with the disk under them.
//!
//! Rendering is a function of the spool file and the options alone: the same file gives the same bytes, so it may be
//! done again after any crash or failure. Two passes over the file: the first reads it from front to back and keeps
//! metadata only, the second fetches payloads in the order of the recording. Memory: some 220 bytes a
//! packet, measured: 123 MB for four hours of the demo's call, which are 586,320 packets, in either format.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tracing::warn;

use super::payloads::{Place, Window};
use super::spool_dir::{ReadError, beside, read};
use crate::config::RecordingFormat;
use crate::id::Channel;
use crate::ledger::Ledger;
use crate::manifest::{self, Manifest, Muxed, Outcome};
use crate::mux::anew::{Anew, AnewError, BLOCK, spans};
use crate::mux::cells::{NoCommonGrid, Planner};
use crate::mux::compat::Compat;
use crate::mux::lane::{Lane, Piece, UNIT};
use crate::mux::lossless::{AssembleError, Assembler};
use crate::mux::ogg::{Layout, PRE_SKIP, Pages, head, tags};
use crate::recording::{Arrangement, arrange};
use crate::sound::{Audio, Format, Sound, SoundError, end_of};
use crate::spool::scan::Tail;
use crate::time::{Samples48k, Wall};

/// Written to disk at once.
const WRITE_BYTES: usize = 64 * 1024;
/// The encoder that the tags name.
const ENCODER: &str = concat!("sidetape ", env!("CARGO_PKG_VERSION"));

/// What the operator chose about recordings.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Silence after the last audio.
    pub tail: Duration,
    /// Shift of the AI channel, in milliseconds.
    pub ai_offset_ms: i64,
    /// Whether each channel becomes a file of its own, too.
    pub keep_channels: bool,
    /// How long a recording may be.
    pub longest: Duration,
    /// How it is made.
    pub format: RecordingFormat,
    /// Gain of caller and AI in decibels, in the format `compat`.
    pub gains_db: [f32; 2],
}

/// A recording on disk, beside its spool file, and what it holds.
#[derive(Debug)]
pub struct Rendered {
    /// The manifest, which does not yet name a file.
    pub manifest: Manifest,
    /// The recording first, then each channel alone if wanted. Empty for a call without audio.
    pub files: Vec<RenderedFile>,
    /// Whether the spool holds audio that the recording does not.
    pub is_spool_worth_keeping: bool,
    /// When the recording starts, for its name.
    pub start: Wall,
    /// The word for its format.
    pub format: &'static str,
}

/// One rendered file.
#[derive(Clone, Debug)]
pub struct RenderedFile {
    /// What it is: `None` for the stereo recording, else the word that its key ends in.
    pub side: Option<&'static str>,
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its CRC-32C, in hexadecimal.
    pub crc32c: u32,
}

/// No recording could be made.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The spool file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The disk said no.
    #[error("writing a recording")]
    Write(#[from] io::Error),
    /// A channel could not be decoded.
    #[error(transparent)]
    Sound(#[from] SoundError<io::Error>),
    /// A channel could not be encoded.
    #[error(transparent)]
    Anew(#[from] AnewError<io::Error>),
    /// libopus refused.
    #[error("libopus, while a recording is encoded")]
    Codec(#[from] opus::Error),
    /// A packet of the recording could not be put together.
    #[error(transparent)]
    Assemble(#[from] AssembleError<io::Error>),
    /// Even channels encoded anew share no grid: a bug.
    #[error(transparent)]
    Grid(#[from] NoCommonGrid),
}

impl RenderError {
    /// Whether another attempt may succeed: the disk's errors pass, a damaged spool stays so.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Read(ReadError::Io(_)) | Self::Write(_) => true,
            Self::Sound(error) => matches!(error, SoundError::Fetch(_)),
            Self::Anew(error) => {
                matches!(error, AnewError::Store(_) | AnewError::Sound(SoundError::Fetch(_)))
            }
            Self::Assemble(error) => matches!(error, AssembleError::Fetch(_)),
            Self::Read(ReadError::Header(_)) | Self::Grid(_) | Self::Codec(_) => false,
        }
    }
}

/// Reads a spool file into a closed ledger.
///
/// # Errors
/// Where the disk or the file's header is bad.
pub fn read_ledger(spool: &Path, longest: Duration) -> Result<(Ledger, Tail), ReadError> {
    let (mut ledger, tail) = read(spool, Ledger::new, Ledger::record)?;
    ledger.close(longest);
    Ok((ledger, tail))
}

/// Renders a spool file's recording into files beside it.
///
/// # Errors
/// [`RenderError`]; whether another attempt is worth while, it says itself.
pub fn render(spool: &Path, options: &Options) -> Result<Rendered, RenderError> {
    let (ledger, tail) = read_ledger(spool, options.longest)?;
    let call = arrange(&ledger, options.ai_offset_ms, options.longest);
    let is_spool_worth_keeping =
        Channel::BOTH.into_iter().any(|channel| manifest::has_unusable(&ledger, channel));
    let start = call.start;
    let format = options.format.name();
    if call.channels.iter().all(|channel| channel.packets.is_empty()) {
        let manifest = manifest::describe(&ledger, &tail, &call, &Default::default(), Samples48k::default());
        return Ok(Rendered { manifest, files: Vec::new(), is_spool_worth_keeping, start, format });
    }
    let channels = Channel::BOTH.map(|channel| Received::of(&ledger, &call, channel));
    let sides: &[Option<Channel>] = match options.keep_channels {
        true => &[None, Some(Channel::Caller), Some(Channel::Ai)],
        false => &[None],
    };
    let mut files = Vec::new();
    let mut manifest;
    match options.format {
        RecordingFormat::Lossless => {
            let (sources, (muxed, end)) = Sources::of(spool, &ledger, channels)?;
            let extent = Extent::of_call(end, options);
            manifest = manifest::describe(&ledger, &tail, &call, &muxed, extent.duration);
            for side in sides {
                files.push(sources.write(spool, *side, &ledger, &manifest, extent)?);
            }
        }
        RecordingFormat::Compat => {
            let end = channels.iter().map(|channel| end_of(&channel.packets)).max().unwrap_or_default();
            let extent = Extent::of_call(end, options);
            let muxed = Muxed { is_transcoded: true, ..Muxed::default() };
            manifest = manifest::describe(&ledger, &tail, &call, &[muxed; 2], extent.duration);
            for side in sides {
                let (file, heard) =
                    write_compat(spool, *side, &ledger, &manifest, &channels, extent, options.gains_db)?;
                if side.is_none() {
                    manifest.channels.caller.enter(&heard[0], &call.channels[0]);
                    manifest.channels.ai.enter(&heard[1], &call.channels[1]);
                }
                files.push(file);
            }
        }
    }
    Ok(Rendered { manifest, files, is_spool_worth_keeping, start, format })
}

/// Makes the manifest of a connection of which no recording can be made.
///
/// # Errors
/// Where not even its spool's header can be read.
pub fn describe_failure(spool: &Path, options: &Options, reason: &str) -> Result<Rendered, ReadError> {
    let (ledger, tail) = read_ledger(spool, options.longest)?;
    let call = Arrangement { start: ledger.header.opened, end: ledger.last_frame, ..Arrangement::default() };
    let mut manifest = manifest::describe(&ledger, &tail, &call, &Default::default(), Samples48k::default());
    manifest.outcome = Outcome::Failed;
    manifest.reasons.push(reason.to_owned());
    Ok(Rendered { manifest, files: Vec::new(), is_spool_worth_keeping: true, start: call.start, format: "" })
}

/// What of the arrangement a file holds.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// Samples that players drop at the beginning.
    pre_skip: u16,
    /// How long the file plays.
    duration: Samples48k,
}

impl Extent {
    fn of_call(end: Samples48k, options: &Options) -> Self {
        let duration = Samples48k(end.0 + Samples48k::from_duration(options.tail).0);
        Self { pre_skip: PRE_SKIP, duration }
    }

    /// Samples in all packets, the dropped ones among them.
    fn samples(self) -> i64 {
        self.duration.0 + i64::from(self.pre_skip)
    }
}

/// A channel's packets as they were received, and where their payloads are.
struct Received {
    packets: Vec<Audio>,
    places: Vec<Place>,
}

impl Received {
    fn of(ledger: &Ledger, call: &Arrangement, channel: Channel) -> Self {
        let arranged = &call.channels[channel.index()];
        let payloads = &ledger.channels[channel.index()].payloads;
        let place = |rx: &u32| {
            let payload = &payloads[crate::timeline::index(*rx)];
            Place { offset: payload.offset, length: payload.length, is_encoded: false }
        };
        Self { packets: arranged.packets.clone(), places: arranged.sources.iter().map(place).collect() }
    }

    /// The packets as pieces for the grid: those of Opus as they are, the others, or with `is_all` all of them,
    /// encoded into a file beside the spool.
    fn to_source(&self, spool: &Path, channel: Channel, is_all: bool) -> Result<Source, RenderError> {
        let path = beside(spool, &format!(".{channel}.anew"));
        let spans = spans(&self.packets, is_all);
        let mut source = Source {
            pieces: Vec::with_capacity(self.packets.len()),
            places: Vec::with_capacity(self.packets.len()),
            encoded: path.clone(),
            is_transcoded: !spans.is_empty(),
            is_anew: is_all,
        };
        let mut next = 0;
        if !spans.is_empty() {
            let mut out = BufWriter::new(create_private(&path)?);
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
            out.flush()?;
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
    encoded: PathBuf,
    is_transcoded: bool,
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
type Measured = ([Muxed; 2], Samples48k);

/// Both channels' pieces.
struct Sources {
    channels: [Source; 2],
}

impl Sources {
    /// Takes both channels as they were received, what is no Opus encoded; where they share no grid, one of them
    /// encoded anew: the one with less audio if that helps, else the other, else both.
    fn of(spool: &Path, ledger: &Ledger, received: [Received; 2]) -> Result<(Self, Measured), RenderError> {
        let of = |anew: &[Channel]| -> Result<Self, RenderError> {
            let [caller, ai] = Channel::BOTH
                .map(|channel| received[channel.index()].to_source(spool, channel, anew.contains(&channel)));
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
                    connection = ?ledger.header.connection.as_str(),
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
            is_transcoded: self.channels[lane].is_transcoded,
            is_anew: self.channels[lane].is_anew,
        });
        Ok((muxed, Samples48k(end)))
    }

    fn planner(&self) -> Planner<'_> {
        let [caller, ai] = &self.channels;
        Planner::new([Lane::new(&caller.pieces), Lane::new(&ai.pieces)])
    }

    fn write(
        &self,
        spool: &Path,
        only: Option<Channel>,
        ledger: &Ledger,
        manifest: &Manifest,
        extent: Extent,
    ) -> Result<RenderedFile, RenderError> {
        let layout = if only.is_some() { Layout::Mono } else { Layout::TwoMonoStreams };
        let mut file = OggFile::create(spool, only, layout, ledger, manifest, extent)?;
        let mut windows = [Window::open(spool)?, Window::open(spool)?];
        let encoded =
            |source: &Source| source.is_transcoded.then(|| Window::open(&source.encoded)).transpose();
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
        while planner.position() * UNIT < extent.samples() {
            let cell = planner.next_cell()?;
            let mut packet = Vec::with_capacity(512);
            match only {
                None => assembler.stereo_packet(&cell, &mut fetch, &mut packet)?,
                Some(channel) => assembler.mono_packet(channel.index(), &cell, &mut fetch, &mut packet)?,
            }
            file.push(packet, cell.units * UNIT)?;
        }
        file.finish()
    }
}

/// Decodes both channels, or one, and encodes them as one stream. Returns what was measured on the way, too.
fn write_compat(
    spool: &Path,
    only: Option<Channel>,
    ledger: &Ledger,
    manifest: &Manifest,
    received: &[Received; 2],
    extent: Extent,
    gains_db: [f32; 2],
) -> Result<(RenderedFile, [Muxed; 2]), RenderError> {
    let layout = if only.is_some() { Layout::Mono } else { Layout::Stereo };
    let channels: Vec<usize> = only.map_or(vec![0, 1], |only| vec![only.index()]);
    let mut file = OggFile::create(spool, only, layout, ledger, manifest, extent)?;
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
    while at < extent.samples() {
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
    Ok((file.finish()?, muxed))
}

/// An Ogg Opus file in the making.
struct OggFile {
    out: Hashed,
    pages: Pages,
    path: PathBuf,
    side: Option<&'static str>,
    extent: Extent,
}

impl OggFile {
    fn create(
        spool: &Path,
        only: Option<Channel>,
        layout: Layout,
        ledger: &Ledger,
        manifest: &Manifest,
        extent: Extent,
    ) -> Result<Self, RenderError> {
        let (side, suffix) = match only {
            None => (None, ".opus"),
            Some(Channel::Caller) => (Some("left"), ".left"),
            Some(Channel::Ai) => (Some("right"), ".right"),
        };
        // Different for each file, and the same whenever a file is made again.
        let seed =
            [ledger.header.connection.as_str().as_bytes(), &ledger.header.opened.0.to_be_bytes()].concat();
        let serial = crc32c::crc32c_append(crc32c::crc32c(&seed), suffix.as_bytes());
        let pages = Pages::new(serial, head(layout, extent.pre_skip), tags(ENCODER, &comments(manifest)));
        let path = beside(spool, suffix);
        Ok(Self { out: Hashed::create(&path)?, pages, path, side, extent })
    }

    fn push(&mut self, packet: Vec<u8>, samples: i64) -> io::Result<()> {
        self.pages.push(packet, u64::try_from(samples).unwrap_or(0));
        self.out.write(&self.pages.take_bytes())
    }

    fn finish(mut self) -> Result<RenderedFile, RenderError> {
        self.pages.finish(u64::try_from(self.extent.samples()).unwrap_or(0));
        self.out.write(&self.pages.take_bytes())?;
        self.out.finish(self.path, self.side)
    }
}

fn comments(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let mut comments = vec![
        ("ENCODER", ENCODER.to_owned()),
        ("CONNECTION_ID", manifest.connection_id.clone()),
        ("DATE", manifest.started_at.clone()),
        ("START_TIME", manifest.started_at.clone()),
        ("OUTCOME", manifest.outcome.name().to_owned()),
        ("CHANNELS", "left=caller right=ai".to_owned()),
    ];
    comments.extend(manifest.conversation_id.iter().map(|id| ("CONVERSATION_ID", id.clone())));
    comments
}

/// Makes a file beside a spool file, as private as that.
fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)
}

/// A file whose checksums are known when it is written.
struct Hashed {
    out: BufWriter<File>,
    sha256: Sha256,
    crc32c: u32,
    bytes: u64,
}

impl Hashed {
    fn create(path: &Path) -> io::Result<Self> {
        let out = BufWriter::with_capacity(WRITE_BYTES, create_private(path)?);
        Ok(Self { out, sha256: Sha256::new(), crc32c: 0, bytes: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sha256.update(bytes);
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        self.bytes += u64::try_from(bytes.len()).map_err(io::Error::other)?;
        self.out.write_all(bytes)
    }

    fn finish(self, path: PathBuf, side: Option<&'static str>) -> Result<RenderedFile, RenderError> {
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let sha256: String = self.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(RenderedFile { side, path, bytes: self.bytes, sha256, crc32c: self.crc32c })
    }
}
