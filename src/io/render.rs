//! From a spool file to a recording beside it: the core's stages, with the disk under them.
//!
//! Rendering is a function of the spool file and the options alone: the same file gives the same bytes, so it may be
//! done again after any crash or failure. Two passes over the file: the first reads it from front to back and keeps
//! metadata only, the second fetches payloads in the order of the recording. Memory: some 145 bytes a
//! packet at the most, measured: 208 MB for a call of four hours in 20 ms packets, which is 1.44 million of them.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tracing::warn;

use super::spool_dir::{ReadError, beside, read};
use crate::id::Channel;
use crate::ledger::Ledger;
use crate::manifest::{self, Manifest, Muxed, Outcome};
use crate::mux::anew::{AnewError, encode_anew};
use crate::mux::cells::{NoCommonGrid, Planner};
use crate::mux::lane::{Lane, Piece, UNIT};
use crate::mux::lossless::{AssembleError, Assembler};
use crate::mux::ogg::{Layout, PRE_SKIP, Pages, head, tags};
use crate::recording::{Arrangement, arrange};
use crate::spool::scan::Tail;
use crate::time::Samples48k;

/// What is read of the spool at once where a payload is wanted. The packets of a channel lie close together.
const WINDOW_BYTES: usize = 64 * 1024;
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
    pub start: crate::time::Wall,
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
    /// A channel could not be encoded anew.
    #[error(transparent)]
    Anew(#[from] AnewError<io::Error>),
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
            Self::Anew(error) => matches!(error, AnewError::Io(_)),
            Self::Assemble(error) => matches!(error, AssembleError::Fetch(_)),
            Self::Read(ReadError::Header(_)) | Self::Grid(_) => false,
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
    if call.channels.iter().all(|channel| channel.pieces.is_empty()) {
        let manifest = manifest::describe(&ledger, &tail, &call, &Default::default(), Samples48k::default());
        return Ok(Rendered { manifest, files: Vec::new(), is_spool_worth_keeping, start });
    }
    let (sources, measured) = Sources::of(spool, &ledger, &call, options)?;
    let manifest = manifest::describe(&ledger, &tail, &call, &measured.muxed, measured.duration);
    let mut files = vec![sources.write(spool, None, &ledger, &manifest, measured.duration)?];
    if options.keep_channels {
        for channel in Channel::BOTH {
            files.push(sources.write(spool, Some(channel), &ledger, &manifest, measured.duration)?);
        }
    }
    Ok(Rendered { manifest, files, is_spool_worth_keeping, start })
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
    Ok(Rendered { manifest, files: Vec::new(), is_spool_worth_keeping: true, start: call.start })
}

/// Both channels' pieces, and where their payloads are.
struct Sources<'a> {
    channels: [Source<'a>; 2],
}

struct Source<'a> {
    pieces: std::borrow::Cow<'a, [Piece]>,
    /// Where each piece's payload stands in the file.
    places: Vec<(u64, u16)>,
    file: PathBuf,
    is_anew: bool,
}

struct Measured {
    muxed: [Muxed; 2],
    duration: Samples48k,
}

impl<'a> Sources<'a> {
    /// Takes both channels as they were received; where they share no grid, one of them encoded anew: the one with
    /// less audio if that helps, else the other, else both. Finding out measures the call, and that comes along.
    fn of(
        spool: &Path,
        ledger: &'a Ledger,
        call: &'a Arrangement,
        options: &Options,
    ) -> Result<(Self, Measured), RenderError> {
        let received = |channel: Channel| {
            let arranged = &call.channels[channel.index()];
            let payloads = &ledger.channels[channel.index()].payloads;
            let place = |rx: &u32| {
                let payload = &payloads[crate::timeline::index(*rx)];
                (payload.offset, payload.length)
            };
            Source {
                pieces: arranged.pieces.as_slice().into(),
                places: arranged.sources.iter().map(place).collect(),
                file: spool.to_owned(),
                is_anew: false,
            }
        };
        let sources = Self { channels: Channel::BOTH.map(received) };
        let no_grid = match sources.measure(options) {
            Ok(measured) => return Ok((sources, measured)),
            Err(no_grid) => no_grid,
        };
        let audio = |channel: &Channel| -> i64 {
            let pieces = &call.channels[channel.index()].pieces;
            pieces.iter().map(|piece| i64::from(piece.shape.samples())).sum()
        };
        let mut order = Channel::BOTH;
        order.sort_by_key(audio);
        let [less, more] = order;
        for anew in [&[less][..], &[more], &[less, more]] {
            let mut sources = Self { channels: Channel::BOTH.map(received) };
            for channel in anew {
                let source = &mut sources.channels[channel.index()];
                *source = source.encode_anew(spool, *channel)?;
            }
            if let Ok(measured) = sources.measure(options) {
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

    /// Cuts the whole call into cells without writing any, which tells its length and whether it can be done.
    fn measure(&self, options: &Options) -> Result<Measured, NoCommonGrid> {
        let mut planner = self.planner();
        while planner.end().is_none_or(|end| planner.position() < end) {
            planner.next_cell()?;
        }
        let end = planner.end().unwrap_or(0) * UNIT;
        let silent = planner.silent_units();
        let muxed = [0, 1].map(|lane: usize| Muxed {
            silence: Samples48k(silent[lane] * UNIT),
            largest_move: planner.lanes()[lane].largest_move(),
            slips: planner.lanes()[lane].slips(),
            is_anew: self.channels[lane].is_anew,
        });
        Ok(Measured { muxed, duration: Samples48k(end + Samples48k::from_duration(options.tail).0) })
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
        duration: Samples48k,
    ) -> Result<RenderedFile, RenderError> {
        let (side, suffix, layout) = match only {
            None => (None, ".opus", Layout::TwoMonoStreams),
            Some(Channel::Caller) => (Some("left"), ".left", Layout::Mono),
            Some(Channel::Ai) => (Some("right"), ".right", Layout::Mono),
        };
        let path = beside(spool, suffix);
        let mut out = Hashed::create(&path)?;
        let mut windows = [Window::open(&self.channels[0].file)?, Window::open(&self.channels[1].file)?];
        let mut fetch = |channel: usize, piece: usize, payload: &mut Vec<u8>| {
            let (offset, length) = self.channels[channel].places[piece];
            windows[channel].read(offset, usize::from(length), payload)
        };
        // Different for each file, and the same whenever a file is made again.
        let seed =
            [ledger.header.connection.as_str().as_bytes(), &ledger.header.opened.0.to_be_bytes()].concat();
        let serial = crc32c::crc32c_append(crc32c::crc32c(&seed), suffix.as_bytes());
        let mut pages = Pages::new(serial, head(layout), tags(ENCODER, &comments(manifest)));
        let end = duration.0 + i64::from(PRE_SKIP);
        let mut planner = self.planner();
        let mut assembler = Assembler::default();
        while planner.position() * UNIT < end {
            let cell = planner.next_cell()?;
            let mut packet = Vec::with_capacity(512);
            match only {
                None => assembler.stereo_packet(&cell, &mut fetch, &mut packet)?,
                Some(channel) => assembler.mono_packet(channel.index(), &cell, &mut fetch, &mut packet)?,
            }
            pages.push(packet, u64::try_from(cell.units * UNIT).unwrap_or(0));
            out.write(&pages.take_bytes())?;
        }
        pages.finish(u64::try_from(end).unwrap_or(0));
        out.write(&pages.take_bytes())?;
        out.finish(path, side)
    }
}

impl Source<'_> {
    /// Encodes the channel anew into a file of its own, and returns it as it is there.
    fn encode_anew(&self, spool: &Path, channel: Channel) -> Result<Self, RenderError> {
        let path = beside(spool, &format!(".{channel}.anew"));
        let mut out = BufWriter::new(create_private(&path)?);
        let mut window = Window::open(&self.file)?;
        let mut places = Vec::new();
        let mut offset = 0;
        let fetch = |piece: usize, payload: &mut Vec<u8>| {
            let (offset, length) = self.places[piece];
            window.read(offset, usize::from(length), payload)
        };
        let store = |packet: &[u8]| {
            let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
            places.push((offset, length));
            offset += u64::from(length);
            out.write_all(packet)
        };
        let pieces = encode_anew(&self.pieces, fetch, store)?;
        out.flush()?;
        Ok(Self { pieces: pieces.into(), places, file: path, is_anew: true })
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

/// A file read at places that lie close together.
struct Window {
    file: File,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, start: 0, bytes: Vec::new() })
    }

    fn read(&mut self, offset: u64, length: usize, out: &mut Vec<u8>) -> io::Result<()> {
        if self.slice(offset, length).is_none() {
            self.bytes.resize(WINDOW_BYTES.max(length), 0);
            let mut filled = 0;
            while filled < self.bytes.len() {
                let at = offset + u64::try_from(filled).map_err(io::Error::other)?;
                match self.file.read_at(&mut self.bytes[filled..], at)? {
                    0 => break,
                    more => filled += more,
                }
            }
            self.bytes.truncate(filled);
            self.start = offset;
        }
        let bytes = self.slice(offset, length).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.extend_from_slice(bytes);
        Ok(())
    }

    fn slice(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from.checked_add(length)?)
    }
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
        let out = BufWriter::with_capacity(WINDOW_BYTES, create_private(path)?);
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
