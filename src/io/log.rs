//! The log: how it is set up, and how dropped frames are kept from flooding it.

use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use tracing::warn;
use tracing_subscriber::EnvFilter;

use super::log_writer::LogWriter;
use super::spool_writer::lock;
use crate::config::{Config, Fault, LogFormat};
use crate::metrics::DropReason;
use crate::time::Mono;

/// Each kind of refusal is reported at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What `AUDIO_LOG` takes.
const LOG_TAKES: &str =
    "a level (error, warn, info, debug, trace, off), or a filter such as info,sidetape=debug";
/// The levels.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// How long the end of the process waits for the last lines.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// The way to standard error.
static WRITER: OnceLock<LogWriter> = OnceLock::new();

/// Sets up the log on standard error. Called once, by a command.
///
/// # Errors
/// A [`Fault`] where the filter cannot be parsed.
pub fn set_up(config: &Config) -> Result<(), Fault> {
    let filter = parse_filter(&config.log)?;
    let writer = match LogWriter::start(std::io::stderr()) {
        Ok(writer) => WRITER.get_or_init(|| writer).clone(),
        // A system without a thread to give will not let a daemon start either.
        Err(_) => LogWriter::default(),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    // A log that was set up before, as in tests, stays as it is.
    let was_set = match config.log_format {
        LogFormat::Text => builder.try_init().is_err(),
        LogFormat::Json => builder.json().flatten_event(true).try_init().is_err(),
    };
    if was_set {
        tracing::debug!("the log was set up before");
    }
    Ok(())
}

/// Waits for the last lines to be written, a second at most.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush(FLUSH_PATIENCE);
    }
}

/// Lets panics be lines of the log like any other, instead of text beside it.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("without a message");
        // `message` is what each line of JSON calls its own words.
        tracing::error!(location, panic = message, "a bug: please report this line");
    }));
}

/// Parses the text of `AUDIO_LOG`.
///
/// # Errors
/// A [`Fault`] where it is no filter, or has a word that is no level: the library would take that for the name of a module,
/// and log nothing but what comes from there.
pub fn parse_filter(text: &str) -> Result<EnvFilter, Fault> {
    let fault = |takes: String| Fault { variable: "AUDIO_LOG".into(), value: text.to_owned(), takes };
    // The default is this program's own lines. What its libraries say of each broken connection it says itself, once.
    let directives = if text == "info" { "warn,sidetape=info" } else { text };
    let mut parts = directives.split(',');
    if let Some(word) = parts.find(|part| is_no_level(part)) {
        let nearest = nearest_level(word);
        return Err(fault(format!("{LOG_TAKES}; {word:?} is no level, the nearest is {nearest}")));
    }
    EnvFilter::try_new(directives).map_err(|_| {
        let level = directives.rsplit('=').next().unwrap_or_default();
        let is_word = level.bytes().all(|byte| byte.is_ascii_alphabetic()) && is_no_level(level);
        let nearest =
            is_word.then(|| format!("; {level:?} is no level, the nearest is {}", nearest_level(level)));
        fault(format!("{LOG_TAKES}{}", nearest.unwrap_or_default()))
    })
}

/// Whether a part of a filter is a single word and neither a level nor a module of this program.
fn is_no_level(part: &str) -> bool {
    let is_word = !part.is_empty() && !part.contains(['=', '[', ']', '{', '}', ':', '"']);
    let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part));
    is_word && !is_level && part != "sidetape" && !matches!(part.parse(), Ok(0..=5_u8))
}

fn nearest_level(word: &str) -> &'static str {
    let word = word.to_ascii_lowercase();
    let likeness = |level: &str| strsim::jaro_winkler(level, &word);
    LEVELS.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or("info")
}

/// An error and its causes in one line, each told once.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Counts what may come in floods, and says when to report it: at most once a second.
#[derive(Debug, Default)]
pub struct Sparing {
    seen: Mutex<(u64, Option<Instant>)>,
}

impl Sparing {
    /// Counts one more. Returns how many there have been, if that is to be reported now.
    pub fn count(&self) -> Option<u64> {
        let mut seen = lock(&self.seen);
        let (count, reported) = &mut *seen;
        *count += 1;
        if reported.is_some_and(|reported| reported.elapsed() < REPORT_EVERY) {
            return None;
        }
        *reported = Some(Instant::now());
        Some(*count)
    }
}

/// Reports dropped frames, each reason at most once a second.
#[derive(Debug)]
pub struct DropLog {
    /// When each reason was reported last, by its place in the list of reasons. Locked only for dropped frames.
    last: Mutex<[Option<Mono>; DropReason::ALL.len()]>,
}

impl Default for DropLog {
    fn default() -> Self {
        Self { last: Mutex::new([None; DropReason::ALL.len()]) }
    }
}

impl DropLog {
    /// Reports that a frame was dropped, with the reason's total, unless that was done less than a second ago.
    pub fn report(&self, reason: DropReason, count: u64, now: Mono, bytes: &[u8]) {
        if reason == DropReason::Disabled {
            return;
        }
        let place = DropReason::ALL.iter().position(|other| *other == reason).unwrap_or(0);
        {
            let mut last = lock(&self.last);
            if last[place].is_some_and(|last| now.since(last) < REPORT_EVERY) {
                return;
            }
            last[place] = Some(now);
        }
        let connection = crate::frame::address_of(bytes).map(|(_, connection)| connection);
        warn!(
            reason = reason.name(),
            count,
            connection = connection.unwrap_or("unknown"),
            bytes = bytes.len(),
            "frames dropped"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_no_filter() {
        let filters = [
            "info",
            "WARN",
            "off",
            "0",
            "5",
            "sidetape",
            "info,sidetape::io=debug",
            "info,hyper=trace",
            "[call{connection}]=debug",
            "info,sidetape::io",
            "debug,",
        ];
        for filter in filters {
            assert!(parse_filter(filter).is_ok(), "{filter}");
        }
        for (wrong, nearest) in [
            ("warning", "warn"),
            ("information", "info"),
            ("verbose", "error"),
            ("info,dbug", "debug"),
            ("7", "error"),
            ("sidetape=warning", "warn"),
            ("fatal", "trace"),
        ] {
            let takes = parse_filter(wrong).map(drop).unwrap_err().takes;
            assert!(takes.starts_with(LOG_TAKES), "{takes}");
            assert!(
                ["verbose", "7", "fatal"].contains(&wrong)
                    || takes.ends_with(&format!("the nearest is {nearest}")),
                "{wrong}: {takes}"
            );
        }
    }
}
