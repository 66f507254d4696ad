//! From a spool file to a recording beside it: the core's stages, with the disk under them.
//!
//! Rendering is a function of the spool file and the options alone: the same file gives the same bytes, so it may be
//! done again after any crash or failure. Two passes over the file: the first reads it from front to back and keeps
//! metadata only, the second fetches payloads in the order of the recording. Memory: some 110 bytes a packet, measured:
//! 65 MiB for four hours of the demo's call, which are 586,320 packets; and 125 at most, whatever the packets are.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::demand::Demand;
use super::ogg_file::{ENCODER, OggFile, Written};
use super::scratch::{Room, path_of};
use super::sources::{Received, Until, write_compat, write_lossless};
use super::spool_dir::{ReadError, beside, read_from};
use crate::config::RecordingFormat;
use crate::id::Channel;
use crate::ledger::Ledger;
use crate::manifest::{self, Manifest, Muxed, Outcome};
use crate::mux::anew::AnewError;
use crate::mux::cells::NoCommonGrid;
use crate::mux::lossless::AssembleError;
use crate::mux::ogg::{Layout, PRE_SKIP};
use crate::recording::{Arrangement, arrange};
use crate::sound::SoundError;
use crate::spool::name::Made;
use crate::spool::scan::Tail;
use crate::spool::{Header, SealCause};
use crate::time::{Samples48k, Wall};

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
    /// Whether the digits of key presses are left out.
    pub masks_digits: bool,
}

/// A recording on disk, beside its spool file, and what it holds.
#[derive(Debug)]
pub struct Rendered {
    /// The manifest, which does not yet name a file.
    pub manifest: Manifest,
    /// The recording first, then each channel alone if wanted. Empty for a call without audio.
    pub files: Vec<RenderedFile>,
    /// Why the spool is to be kept although this is published, if it is.
    pub keep: Option<Keep>,
    /// When the recording starts, for its name.
    pub start: Wall,
    /// The word for its format.
    pub format: &'static str,
}

/// Why a spool file may hold more than was made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Audio of a codec that this version does not know.
    Undecodable,
    /// A source that spoke while another one did.
    Overlapping,
    /// Bytes that could not be read.
    Damaged,
}

/// So much audio of a second source may be left out at a change from one to the other.
const LEFT_OUT_MAX: Samples48k = Samples48k(48_000);

/// One rendered file.
#[derive(Clone, Debug)]
pub struct RenderedFile {
    /// What it is: `None` for the stereo recording, else the word that its key ends in.
    pub side: Option<&'static str>,
    /// Where it is.
    pub path: PathBuf,
    /// What keeps it there, if it has no name of its own.
    pub held: Option<Arc<File>>,
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
    /// The spool file has to be written again before anything may be made of it.
    #[error("what was paused is still in the spool file")]
    Paused,
    /// Another bug.
    #[error("rendering panicked: please report it, with the spool file")]
    Panicked,
}

impl RenderError {
    /// Whether another attempt may succeed: the disk's errors pass, a damaged spool stays so.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Read(ReadError::Io(_)) | Self::Write(_) | Self::Paused => true,
            Self::Sound(error) => matches!(error, SoundError::Fetch(_)),
            Self::Anew(error) => {
                matches!(error, AnewError::Store(_) | AnewError::Sound(SoundError::Fetch(_)))
            }
            Self::Assemble(error) => matches!(error, AssembleError::Fetch(_)),
            Self::Read(ReadError::Header(_)) | Self::Grid(_) | Self::Codec(_) | Self::Panicked => false,
        }
    }
}

/// Reads a spool file into a closed ledger.
///
/// # Errors
/// Where the disk or the file's header is bad.
pub fn read_ledger(spool: &Path, options: &Options) -> Result<(Ledger, Tail), ReadError> {
    read_ledger_while(&Demand::default(), spool, options)
}

/// The same for as long as there is a demand for it.
///
/// # Errors
/// Where the disk or the file's header is bad, or nobody waits any more.
pub(super) fn read_ledger_while(
    demand: &Demand,
    spool: &Path,
    options: &Options,
) -> Result<(Ledger, Tail), ReadError> {
    let file_bytes = fs::metadata(spool)?.len();
    let begin = |header| {
        let mut ledger = Ledger::new(header);
        ledger.expect(file_bytes);
        ledger.masks_digits = options.masks_digits;
        ledger
    };
    let input = demand.reader(File::open(spool)?);
    let (mut ledger, tail) = read_from(input, spool, begin, Ledger::record)?;
    ledger.close(options.longest);
    Ok((ledger, tail))
}

/// Renders a spool file's recording into files beside it.
///
/// # Errors
/// [`RenderError`]; whether another attempt is worth while, it says itself. [`RenderError::Paused`] asks for
/// [`super::spool_rewrite::rewrite_file`] before.
pub fn render(spool: &Path, options: &Options) -> Result<Rendered, RenderError> {
    render_in(spool, options, &Room::Beside)
}

/// The same, where there is room for the files.
pub(super) fn render_in(spool: &Path, options: &Options, room: &Room) -> Result<Rendered, RenderError> {
    let (ledger, tail) = read_ledger(spool, options)?;
    if ledger.has_paused {
        return Err(RenderError::Paused);
    }
    let call = arrange(&ledger, options.ai_offset_ms, options.longest);
    let keep = why_kept(&ledger, &tail, &call);
    let start = call.start;
    let format = options.format.name();
    // What the file itself says of the call does not depend on how it was written.
    let outline = manifest::describe(&ledger, &tail, &call, &Default::default(), Samples48k::default());
    if call.channels.iter().all(|channel| channel.packets.is_empty()) {
        return Ok(Rendered { manifest: outline, files: Vec::new(), keep, start, format });
    }
    let channels = Channel::BOTH.map(|channel| Received::of(&ledger, &call, channel));
    let beside: &[Channel] = if options.keep_channels { &Channel::BOTH } else { &[] };
    let silence = Samples48k::from_duration(options.tail);
    let mut files = Vec::new();
    let mut manifest;
    match options.format {
        RecordingFormat::Lossless => {
            let begin = |only| begin((spool, room), only, Layout::TwoMonoStreams, &ledger, &outline);
            let (id, until) = (&ledger.header.connection, Until::BehindAudio(silence));
            let (sources, file, measured) =
                write_lossless(spool, id, &channels, None, until, room, || begin(None))?;
            files.push(finish(file, (spool, room), None, measured.duration)?);
            manifest = manifest::describe(&ledger, &tail, &call, &measured.muxed, measured.duration);
            for channel in beside {
                let mut file = begin(Some(*channel))?;
                sources.write(spool, Some(*channel), until, &mut file)?;
                files.push(finish(file, (spool, room), Some(*channel), measured.duration)?);
            }
        }
        RecordingFormat::Compat => {
            let end = channels.iter().map(Received::end).max().unwrap_or_default();
            let duration = Samples48k(end.0 + silence.0);
            let muxed = Muxed { is_transcoded: true, ..Muxed::default() };
            manifest = manifest::describe(&ledger, &tail, &call, &[muxed; 2], duration);
            for only in [None].into_iter().chain(beside.iter().copied().map(Some)) {
                let mut file = begin((spool, room), only, Layout::Stereo, &ledger, &outline)?;
                let heard = write_compat(spool, only, &channels, options.gains_db, duration, &mut file)?;
                if only.is_none() {
                    manifest.channels.caller.enter(&heard[0], &call.channels[0]);
                    manifest.channels.ai.enter(&heard[1], &call.channels[1]);
                }
                files.push(finish(file, (spool, room), only, duration)?);
            }
        }
    }
    Ok(Rendered { manifest, files, keep, start, format })
}

fn why_kept(ledger: &Ledger, tail: &Tail, call: &Arrangement) -> Option<Keep> {
    if tail.damaged_bytes > 0 {
        return Some(Keep::Damaged);
    }
    let is_unusable = ledger.channels.iter().any(|channel| channel.has_unusable || channel.encrypted > 0);
    let is_left_out = call.channels.iter().any(|channel| channel.left_out > LEFT_OUT_MAX);
    is_unusable.then_some(Keep::Undecodable).or(is_left_out.then_some(Keep::Overlapping))
}

/// Makes the manifest of a connection of which no recording can be made.
///
/// # Errors
/// Where not even its spool's header can be read.
pub fn describe_failure(spool: &Path, options: &Options, reason: &str) -> Result<Rendered, ReadError> {
    let (ledger, tail) = read_ledger(spool, options)?;
    let call = Arrangement { start: ledger.header.opened, end: ledger.last_frame, ..Arrangement::default() };
    let mut manifest = manifest::describe(&ledger, &tail, &call, &Default::default(), Samples48k::default());
    manifest.outcome = Outcome::Failed;
    manifest.reasons.push(reason.to_owned());
    Ok(Rendered { manifest, files: Vec::new(), keep: None, start: call.start, format: "" })
}

/// Makes the manifest of a connection whose spool file is gone, of what its name tells.
#[must_use]
pub fn describe_gone(header: Header, reason: &str) -> Rendered {
    let start = header.opened;
    let mut ledger = Ledger::new(header);
    ledger.seal = Some(SealCause::Released);
    let call = Arrangement { start, end: start, ..Arrangement::default() };
    let tail = Tail { valid_bytes: 0, damaged_bytes: 0, torn_bytes: 0, missing_blocks: 0 };
    let mut manifest = manifest::describe(&ledger, &tail, &call, &Default::default(), Samples48k::default());
    manifest.outcome = Outcome::Failed;
    manifest.reasons.push(reason.to_owned());
    Rendered { manifest, files: Vec::new(), keep: None, start, format: "" }
}

/// The word for a file of a recording, and what it is beside the spool file.
fn names(only: Option<Channel>) -> (Option<&'static str>, Made) {
    match only {
        None => (None, Made::Opus),
        Some(Channel::Caller) => (Some("left"), Made::Left),
        Some(Channel::Ai) => (Some("right"), Made::Right),
    }
}

/// Begins a file of a recording. What an earlier attempt left there is written over.
fn begin(
    (spool, room): (&Path, &Room),
    only: Option<Channel>,
    stereo: Layout,
    ledger: &Ledger,
    manifest: &Manifest,
) -> io::Result<OggFile> {
    let (_, made) = names(only);
    let layout = if only.is_some() { Layout::Mono } else { stereo };
    let file = match room {
        Room::Beside => {
            let mut options = OpenOptions::new();
            // As private as the spool.
            options.create(true).write(true).truncate(true).mode(0o600).open(beside(spool, made))?.into()
        }
        elsewhere => elsewhere.nameless(spool)?,
    };
    Ok(OggFile::begin(file, layout, serial(&ledger.header, made.suffix()), &comments(manifest), PRE_SKIP))
}

fn finish(
    file: OggFile,
    (spool, room): (&Path, &Room),
    only: Option<Channel>,
    duration: Samples48k,
) -> io::Result<RenderedFile> {
    let (side, made) = names(only);
    let Written { file, bytes, sha256, crc32c } = file.finish(duration)?;
    let (path, held) = match room {
        Room::Beside => (beside(spool, made), None),
        _ => (path_of(&file), Some(Arc::new(file))),
    };
    Ok(RenderedFile { side, path, held, bytes, sha256, crc32c })
}

/// A serial number that is different for each file, and the same whenever a file is made again.
pub(super) fn serial(header: &Header, suffix: &str) -> u32 {
    let seed = [header.connection.as_str().as_bytes(), &header.opened.0.to_be_bytes()].concat();
    crc32c::crc32c_append(crc32c::crc32c(&seed), suffix.as_bytes())
}

fn comments(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let mut comments = vec![
        ("ENCODER", ENCODER.to_owned()),
        ("CONNECTION_ID", manifest.connection_id.clone()),
        ("DATE", manifest.started_at.clone()),
        ("START_TIME", manifest.started_at.clone()),
        ("OUTCOME", manifest.outcome.name().to_owned()),
        ("CHANNELS", "left=caller right=ai".to_owned()),
        ("RECORDING_ID", manifest.recording_id.to_string()),
    ];
    comments.extend(manifest.conversation_id.iter().map(|id| ("CONVERSATION_ID", id.clone())));
    comments
}
