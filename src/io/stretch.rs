//! A stretch of a call as an Ogg Opus file, out of a spool file that may still be written: the live call is not
//! disturbed, and nothing is changed.
//!
//! What the spool says so far is placed as a recording of it would be, and only the packets of the stretch are read,
//! with 200 ms in front of them, so that decoders have settled where the stretch begins: the file's pre-skip drops
//! these. A packet that is not yet whole on disk is not there yet. Cost: one reading of the spool file, and the memory
//! of rendering it.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::demand::Demand;
use super::ogg_file::{ENCODER, OggFile};
use super::render::{Options, RenderError, read_ledger_while, serial};
use super::scratch::Room;
use super::sources::{Received, Until, write_compat, write_lossless};
use super::spool_dir::{ReadError, nameless_beside};
use crate::config::RecordingFormat;
use crate::id::Channel;
use crate::ledger::Ledger;
use crate::mux::ogg::{Layout, PRE_SKIP};
use crate::recording::{ArrangedChannel, arrange};
use crate::time::{Mono, Samples48k, Wall};

/// How often it is tried while a spool file is written again: for three seconds, where that takes less than one.
const TRIES: u32 = 60;
const TRY_EVERY: Duration = Duration::from_millis(50);

/// A stretch that somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// One channel alone, or with `None` both, in stereo.
    pub channel: Option<Channel>,
    /// Where it begins, by the clock of the gateway's timestamps.
    pub from: Wall,
    /// Where it ends.
    pub to: Wall,
}

/// A stretch of a call.
#[derive(Debug)]
pub struct Stretch {
    /// An Ogg Opus file without a name, to be read from its beginning.
    pub file: File,
    /// Its length.
    pub bytes: u64,
    /// Where it begins: as was wanted, but not before the recording does.
    pub from: Wall,
    /// Where it ends: as was wanted, but not in the future.
    pub to: Wall,
}

/// There is no such stretch.
#[derive(Debug, thiserror::Error)]
pub enum StretchError {
    /// It ends where it begins, or before.
    #[error("the stretch ends at {to}, which is not after its beginning at {from}", to = to.0, from = from.0)]
    Empty {
        /// Where it was to begin.
        from: Wall,
        /// Where it was to end.
        to: Wall,
    },
    /// Nothing of it has been received.
    #[error("there is audio from {from} to {to} only (microseconds since 1970)", from = from.0, to = to.0)]
    Outside {
        /// Where the recording begins.
        from: Wall,
        /// Where it ends so far.
        to: Wall,
    },
    /// No audio has been received at all.
    #[error("no audio has been received yet")]
    NoAudio,
    /// The file could not be made.
    #[error(transparent)]
    Render(#[from] RenderError),
}

impl From<io::Error> for StretchError {
    fn from(error: io::Error) -> Self {
        Self::Render(error.into())
    }
}

impl From<ReadError> for StretchError {
    fn from(error: ReadError) -> Self {
        Self::Render(error.into())
    }
}

/// Makes a file of a stretch. `now`, by the daemon's clock, is how far silence reaches behind the last audio; without
/// it a stretch ends there. Where the spool file is being written again, that is waited for: nothing of what a pause takes
/// out is handed out meanwhile.
///
/// # Errors
/// [`StretchError`].
pub fn stretch(
    spool: &Path,
    wanted: Wanted,
    now: Option<Mono>,
    options: &Options,
) -> Result<Stretch, StretchError> {
    stretch_while(&Demand::default(), spool, wanted, now, options)
}

/// The same for as long as there is a demand for it.
///
/// # Errors
/// [`StretchError`], soon after the demand is over.
pub fn stretch_while(
    demand: &Demand,
    spool: &Path,
    wanted: Wanted,
    now: Option<Mono>,
    options: &Options,
) -> Result<Stretch, StretchError> {
    for _ in 0..TRIES {
        demand.check()?;
        let before = identity(spool)?;
        match try_stretch(demand, spool, wanted, now, options) {
            Err(StretchError::Render(RenderError::Paused)) => std::thread::sleep(TRY_EVERY),
            // The places of payloads were read from one file, and the payloads perhaps from another.
            made if identity(spool).is_ok_and(|after| after == before) => return made,
            _ => {}
        }
    }
    Err(RenderError::Paused.into())
}

/// Which file stands at a path.
fn identity(spool: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(spool)?;
    Ok((found.dev(), found.ino()))
}

fn try_stretch(
    demand: &Demand,
    spool: &Path,
    wanted: Wanted,
    now: Option<Mono>,
    options: &Options,
) -> Result<Stretch, StretchError> {
    let Wanted { channel, from, to } = wanted;
    if to <= from {
        return Err(StretchError::Empty { from, to });
    }
    let (ledger, _) = read_ledger_while(demand, spool, options)?;
    if ledger.has_paused {
        return Err(RenderError::Paused.into());
    }
    demand.check()?;
    let mut call = arrange(&ledger, options.ai_offset_ms, options.longest);
    if call.channels.iter().all(|channel| channel.packets.is_empty()) {
        return Err(StretchError::NoAudio);
    }
    let end = now.map_or(call.end, |now| ledger.time_of(now).max(call.end));
    let (from, to) = (from.max(call.start), to.min(end));
    let (begins, ends) = (call.position(from), call.position(to));
    if ends <= begins {
        return Err(StretchError::Outside { from: call.start, to: end });
    }
    let lead = call.keep_only(begins, ends);
    for other in Channel::BOTH.into_iter().filter(|other| channel.is_some_and(|only| only != *other)) {
        call.channels[other.index()] = ArrangedChannel::default();
    }
    let pre_skip = u16::try_from(lead.0).expect("less than a second") + PRE_SKIP;
    let duration = Samples48k(ends.0 - begins.0);
    let received = Channel::BOTH.map(|channel| Received::of(&ledger, &call, channel).wanted_by(demand));
    let layout = match (channel, options.format) {
        (Some(_), _) => Layout::Mono,
        (None, RecordingFormat::Lossless) => Layout::TwoMonoStreams,
        (None, RecordingFormat::Compat) => Layout::Stereo,
    };
    let serial = serial(&ledger.header, &format!("{}-{}", from.0, to.0));
    let comments = comments(&ledger, channel, from);
    let begin = || {
        let file = OggFile::begin(nameless_beside(spool)?, layout, serial, &comments, pre_skip);
        Ok(file.wanted_by(demand))
    };
    let file = match options.format {
        RecordingFormat::Lossless => {
            let (id, until) = (&ledger.header.connection, Until::At(duration));
            write_lossless(spool, id, &received, channel, until, &Room::Beside, begin)?.1
        }
        RecordingFormat::Compat => {
            let mut file = begin()?;
            write_compat(spool, channel, &received, options.gains_db, duration, &mut file)?;
            file
        }
    };
    let written = file.finish(duration)?;
    let mut file = written.file;
    file.rewind()?;
    Ok(Stretch { file, bytes: written.bytes, from, to })
}

fn comments(ledger: &Ledger, channel: Option<Channel>, from: Wall) -> Vec<(&'static str, String)> {
    let mut comments = vec![
        ("ENCODER", ENCODER.to_owned()),
        ("CONNECTION_ID", ledger.header.connection.to_string()),
        ("DATE", from.to_rfc3339()),
        ("START_TIME", from.to_rfc3339()),
        ("CHANNELS", channel.map_or("left=caller right=ai".to_owned(), |channel| channel.name().to_owned())),
    ];
    comments.extend(ledger.metadata.conversation_id.iter().map(|id| ("CONVERSATION_ID", id.clone())));
    comments
}
