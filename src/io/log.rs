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
        tracing::error!(location, message, "a bug: please report this line");
    }));
}

/// Parses the text of `AUDIO_LOG`.
///
/// # Errors
/// A [`Fault`] where it is no filter.
pub fn parse_filter(text: &str) -> Result<EnvFilter, Fault> {
    // The default is this program's own lines. What its libraries say of each broken connection it says itself, once.
    let directives = if text == "info" { "warn,sidetape=info" } else { text };
    EnvFilter::try_new(directives).map_err(|_| Fault {
        variable: "AUDIO_LOG",
        value: text.to_owned(),
        takes: "a level (error, warn, info, debug, trace), or a filter such as info,sidetape=debug"
            .to_owned(),
    })
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
        let connection =
            crate::frame::address_of(bytes).map(|(_, connection)| connection.escape_debug().to_string());
        warn!(
            reason = reason.name(),
            count,
            connection = connection.as_deref().unwrap_or("unknown"),
            bytes = bytes.len(),
            "frames dropped"
        );
    }
}
