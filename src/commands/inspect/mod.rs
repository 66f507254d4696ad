//! `sidetape inspect`: says what a recording holds, in words and as a picture.
//!
//! The file is listened to, the manifest beside it read, and both compared. Either may be missing or damaged: then
//! what the other tells is shown. Nothing is changed but the picture.

mod told;
mod verdict;
mod words;

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::io::listen::{Heard, listen};
use crate::picture::{Band, BandKind, Lane, Mark, Picture, Spread, clock, draw};
use crate::time::Samples48k;
use told::{Told, ToldMinute, plain};
use verdict::{Evidence, Verdict, channel_of, has_roles, judge, label};

/// A manifest longer than this is none: the longest that this version writes is a tenth of it.
const MANIFEST_MAX_BYTES: u64 = 16 << 20;
/// As of recordings: for their owner and group.
const PICTURE_MODE: u32 = 0o640;

/// Says what a recording holds, in words and as a picture.
#[derive(clap::Args, Debug)]
pub struct Inspect {
    /// The recording, or its manifest. Any Ogg Opus file of one or two channels will do
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the picture goes; without it, beside the file
    #[arg(long, value_name = "PATH", conflicts_with = "no_picture")]
    svg: Option<PathBuf>,
    /// Words only
    #[arg(long)]
    no_picture: bool,
}

impl Inspect {
    /// Prints the summary and writes the picture.
    ///
    /// # Errors
    /// Where the file cannot be read, is damaged, or is not what its manifest says, or the picture cannot be where it was
    /// asked for; after all that could be said.
    pub fn run(self) -> anyhow::Result<()> {
        let is_manifest = self.file.extension().is_some_and(|extension| extension == "json");
        let (audio, manifest) = match is_manifest {
            true => (self.file.with_extension("opus"), self.file.clone()),
            false => (self.file.clone(), self.file.with_extension("json")),
        };
        let told = read_manifest(&manifest);
        let heard = hear(&audio, told.0.as_ref());
        let evidence = Evidence::of(&heard, &told);
        let verdict = judge(&evidence);
        let names = [&audio, &manifest].map(|path| plain(&path.display().to_string()));
        let mut out = words::summary(&evidence, &verdict, [&names[0], &names[1]]);
        let drawn = match evidence.heard {
            Some(heard) if !self.no_picture => {
                let path = self.svg.clone().unwrap_or_else(|| audio.with_extension("svg"));
                let svg = draw(&picture(&evidence, heard, &verdict, &names[0]));
                match write_picture(&path, &svg, [&audio, &manifest]) {
                    Ok(()) => {
                        out.push_str(&format!("\nPicture       {}\n", plain(&path.display().to_string())));
                        Ok(())
                    }
                    // Nobody asked for it there: recordings are often where only the daemon may write.
                    Err(error) if self.svg.is_none() => {
                        out.push_str(&format!("\nPicture       none: {}\n", plain(&format!("{error:#}"))));
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            _ => Ok(()),
        };
        io::stdout().write_all(out.as_bytes()).context("writing to standard output")?;
        drawn?;
        anyhow::ensure!(verdict.faults.is_empty(), "{}: {}", names[0], verdict.faults.join("; "));
        Ok(())
    }
}

/// What `inspect` prints and draws of a recording and a manifest that are in memory.
#[must_use]
pub fn explain(recording: &[u8], manifest: &[u8]) -> (String, Option<String>) {
    let told = parse_manifest(manifest);
    let heard = match listen(recording) {
        Ok(heard) => (Some(heard), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let evidence = Evidence::of(&heard, &told);
    let verdict = judge(&evidence);
    let words = words::summary(&evidence, &verdict, ["recording", "manifest"]);
    (words, evidence.heard.map(|heard| draw(&picture(&evidence, heard, &verdict, "recording"))))
}

/// Listens to the audio. Returns why that could not be done, too, unless the manifest says that there is none.
fn hear(path: &Path, told: Option<&Told>) -> (Option<Heard>, Option<String>) {
    let error = match open(path).map(listen) {
        Ok(Ok(heard)) => return (Some(heard), None),
        Ok(Err(error)) => format!("{:#}", anyhow::Error::new(error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let outcome = told.and_then(|told| told.outcome.as_deref());
            let has_none = matches!(outcome, Some("absent" | "declined" | "failed"));
            if has_none && told.is_some_and(|told| !told.has_file) {
                return (None, None);
            }
            "there is no such file".to_owned()
        }
        Err(error) => error.to_string(),
    };
    (None, Some(error))
}

/// Opens a regular file: anything else might never end.
fn open(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    File::open(path)
}

/// Reads the manifest, or says why there is none to go by.
fn read_manifest(path: &Path) -> (Option<Told>, Option<String>) {
    let mut bytes = Vec::new();
    let read = open(path).and_then(|file| file.take(MANIFEST_MAX_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return (None, Some("there is no manifest beside it".to_owned()));
        }
        Err(error) => return (None, Some(format!("the manifest cannot be read: {error}"))),
        Ok(length) if u64::try_from(length).is_ok_and(|length| length > MANIFEST_MAX_BYTES) => {
            return (None, Some("the manifest is too long to be one".to_owned()));
        }
        Ok(_) => {}
    }
    parse_manifest(&bytes)
}

fn parse_manifest(bytes: &[u8]) -> (Option<Told>, Option<String>) {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(manifest) if manifest.is_object() => (Some(Told::of(&manifest)), None),
        Ok(_) => (None, Some("the manifest is no JSON object".to_owned())),
        Err(error) => (None, Some(format!("the manifest is no JSON: {error}"))),
    }
}

fn picture<'a>(evidence: &Evidence<'_>, heard: &'a Heard, verdict: &Verdict, file: &str) -> Picture<'a> {
    let told = evidence.told;
    let count = heard.channels.len();
    let roles = has_roles(evidence);
    let connection =
        words::identity(evidence, "CONNECTION_ID", told.and_then(|told| told.connection_id.as_ref()));
    let conversation =
        words::identity(evidence, "CONVERSATION_ID", told.and_then(|told| told.conversation_id.as_ref()));
    let started = words::identity(evidence, "START_TIME", told.and_then(|told| told.started_at.as_ref()));
    let subtitle = [
        started,
        Some(clock(heard.duration, true)),
        told.and_then(words::outcome),
        Some(verdict.because.clone()).filter(|_| told.is_none() || !verdict.faults.is_empty()),
    ];
    Picture {
        tone: verdict.tone,
        verdict: verdict.word.clone(),
        title: conversation.or(connection).unwrap_or_else(|| file.to_owned()),
        subtitle: subtitle.into_iter().flatten().collect::<Vec<_>>().join("  \u{b7}  "),
        warnings: verdict.warnings.clone(),
        duration: span(told, heard),
        lanes: (0..count)
            .map(|index| Lane {
                label: label(index, count, roles).to_owned(),
                missing: missing(evidence, heard, index),
                counts: counts(evidence, heard, index),
                envelope: &heard.channels[index].envelope,
                bands: bands(told, heard, index),
                spreads: spreads(told, heard, index),
            })
            .collect(),
        marks: told.into_iter().flat_map(|told| marks(told, count)).collect(),
    }
}

fn counts(evidence: &Evidence<'_>, heard: &Heard, index: usize) -> String {
    let channel = channel_of(index, heard.channels.len());
    let told = channel.and_then(|channel| Some(&evidence.told?.channels[channel.index()]));
    let level = heard.channels[index].level;
    let mut texts: Vec<String> = Vec::new();
    let mut say = |text: Option<String>| texts.extend(text);
    if let Some(told) = told {
        say(told.codec.clone());
        say(told.packets.map(|count| format!("{count} packets")));
        say(told.lost.filter(|count| *count == 0).map(|_| "none lost".to_owned()));
        say(told.error_ms.map(|ms| format!("placed within {ms:.1} ms")));
        say(told.drift_ppm.map(|ppm| format!("drift {ppm:.1} ppm")));
    }
    say(level.active_dbfs.map(|db| format!("{db:.1} dBFS")));
    say(Some(format!("active {} %", (100 * level.active.0 / heard.duration.0.max(1)).clamp(0, 100))));
    texts.join("  \u{b7}  ")
}

/// What is missing of a channel by the manifest.
fn missing(evidence: &Evidence<'_>, heard: &Heard, index: usize) -> String {
    let channel = channel_of(index, heard.channels.len());
    let Some(told) = channel.and_then(|channel| Some(&evidence.told?.channels[channel.index()])) else {
        return String::new();
    };
    let counts =
        [(told.lost, "lost"), (told.recovered, "recovered"), (told.socket_lost, "lost by the socket")];
    let above_zero = counts.into_iter().filter_map(|(count, what)| Some((count.filter(|c| *c > 0)?, what)));
    let mut texts: Vec<String> = above_zero.map(|(count, what)| format!("{count} {what}")).collect();
    texts.extend(told.more_holes.as_ref().map(|more| {
        let how = if more.minutes.is_empty() { "are not drawn" } else { "drawn by the minute" };
        format!("{} later holes {how}", more.count)
    }));
    texts.join(", ")
}

/// How long the recording is, or was by its manifest.
fn span(told: Option<&Told>, heard: &Heard) -> Samples48k {
    told.and_then(|told| told.duration).map_or(heard.duration, |duration| duration.max(heard.duration))
}

fn bands(told: Option<&Told>, heard: &Heard, index: usize) -> Vec<Band> {
    let channel = channel_of(index, heard.channels.len());
    let mut bands: Vec<Band> = Vec::new();
    if let (Some(told), Some(channel)) = (told, channel) {
        bands.extend(told.channels[channel.index()].holes.iter().map(|hole| {
            let kind = if hole.is_loss { BandKind::Loss } else { BandKind::Silence };
            Band { kind, from: hole.from, to: hole.to }
        }));
        let of_channel = told.paused.iter().filter(|pause| pause.channel.is_none_or(|of| of == channel));
        bands.extend(of_channel.map(|pause| Band { kind: BandKind::Pause, from: pause.from, to: pause.to }));
    }
    // What is cut off is drawn where it should be, else half a call looks like a whole one.
    let end = span(told, heard);
    if end.0 - heard.duration.0 > verdict::DURATION_SLACK {
        bands.push(Band { kind: BandKind::Damage, from: heard.duration, to: end });
    }
    bands.extend(heard.missing.iter().map(|(from, to)| Band {
        kind: BandKind::Damage,
        from: *from,
        to: *to,
    }));
    bands
}

/// Holes that the manifest tells by the minute.
fn spreads(told: Option<&Told>, heard: &Heard, index: usize) -> Vec<Spread> {
    let channel = channel_of(index, heard.channels.len());
    let more =
        told.zip(channel).and_then(|(told, channel)| told.channels[channel.index()].more_holes.as_ref());
    let minutes = more.into_iter().flat_map(|more| &more.minutes);
    let of_minute =
        |minute: &ToldMinute| {
            [(BandKind::Loss, minute.lost), (BandKind::Silence, minute.silence)]
                .map(|(kind, length)| Spread { kind, from: minute.from, to: minute.to, length })
        };
    minutes.flat_map(of_minute).collect()
}

fn marks(told: &Told, count: usize) -> Vec<Mark> {
    let lane =
        |mark: &told::ToldMark| mark.channel.map(|channel| channel.index()).filter(|lane| *lane < count);
    let mut marks: Vec<Mark> = told
        .marks
        .iter()
        .map(|mark| Mark { at: mark.at, name: mark.name.clone(), lane: lane(mark) })
        .collect();
    marks.sort_by_key(|mark| mark.at);
    marks
}

/// Writes the picture in one step, never over the recording or its manifest.
fn write_picture(path: &Path, svg: &str, sources: [&Path; 2]) -> anyhow::Result<()> {
    let same = |source: &&Path| match (fs::canonicalize(path), fs::canonicalize(source)) {
        (Ok(picture), Ok(source)) => picture == source,
        _ => path == *source,
    };
    anyhow::ensure!(!sources.iter().any(same), "the picture would be written over {}", path.display());
    let tried = || format!("cannot write the picture {}; --svg puts it elsewhere", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new()
        .prefix(".sidetape-")
        .suffix(".svg.part")
        .permissions(Permissions::from_mode(PICTURE_MODE))
        .tempfile_in(folder)
        .with_context(tried)?;
    temporary.write_all(svg.as_bytes()).with_context(tried)?;
    temporary.persist(path).with_context(tried)?;
    Ok(())
}
