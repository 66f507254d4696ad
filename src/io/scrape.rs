//! What a scrape of the metrics looks at besides the counters: the spool directory, its disk, the kernel, this process.
//!
//! Nothing of it is kept up to date in between: it costs something only when somebody asks, and one asks at a time. A
//! look at the directory takes some microseconds a file, and no file of it is opened.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

use super::ingest::Ingest;
use super::spool_dir::parse_name;
use super::spool_writer::lock;
use crate::metrics::SpoolState;
use crate::metrics::exposition::{Gauges, Process, SpoolSurvey, page};
use crate::spool::name::{FileName, State};
use crate::time::Wall;

/// Makes the page of metrics.
#[derive(Debug)]
pub struct Scrape {
    ingest: Arc<Ingest>,
    min_free_bytes: u64,
    /// The UDP socket's number in the kernel's list.
    udp_inode: Option<u64>,
    started: Wall,
}

impl Scrape {
    /// Looks at what `ingest` works on. `min_free_bytes` is what its disk is to have free, `udp_inode` the number of the
    /// UDP socket.
    #[must_use]
    pub fn new(ingest: Arc<Ingest>, min_free_bytes: u64, udp_inode: Option<u64>) -> Self {
        let started = ingest.clock.wall();
        Self { ingest, min_free_bytes, udp_inode, started }
    }

    /// Makes the page. It reads a directory: not for a thread that others wait for.
    #[must_use]
    pub fn page(&self) -> String {
        let (ingest, writer) = (&self.ingest, &self.ingest.writer);
        let gauges = Gauges {
            is_ready: ingest.refusal().is_none(),
            open_connections: (ingest.open.load(Ordering::Relaxed), ingest.limits.max_connections),
            spool: survey_of(ingest),
            is_spool_writable: !writer.is_failing(),
            buffered_bytes: writer.buffered_bytes(),
            free_bytes: (ingest.spool.free_bytes().unwrap_or(0), self.min_free_bytes),
            udp_overflow: self.udp_inode.and_then(udp_overflow).unwrap_or(0),
            process: process(self.started),
        };
        page(ingest.metrics(), writer.figures(), &gauges)
    }
}

/// How many recordings wait for a storage. It reads a directory.
pub(super) fn waiting(ingest: &Ingest) -> u64 {
    let files = survey_of(ingest).files;
    SpoolState::ALL
        .iter()
        .zip(files)
        .filter(|(state, _)| **state == SpoolState::Unpublished)
        .map(|(_, count)| count)
        .sum()
}

fn survey_of(ingest: &Ingest) -> SpoolSurvey {
    let path = ingest.spool.path();
    // Before the directory: what ends in between counts as live, which it was.
    let live = live_spools(ingest);
    survey(path, &live, SystemTime::now()).unwrap_or_else(|error| {
        warn!(path = %path.display(), %error, "the spool cannot be listed, look at its disk");
        SpoolSurvey::default()
    })
}

fn live_spools(ingest: &Ingest) -> HashSet<PathBuf> {
    let slots = ingest.slots();
    let live = slots.iter().filter(|slot| lock(&slot.state).call.connection.is_live());
    live.map(|slot| slot.file.path.clone()).collect()
}

/// Counts what is in a spool directory, of which the files in `live` belong to calls that go on.
///
/// # Errors
/// Where the directory cannot be listed. A file that is gone meanwhile is passed over.
pub fn survey(directory: &Path, live: &HashSet<PathBuf>, now: SystemTime) -> io::Result<SpoolSurvey> {
    let mut survey = SpoolSurvey::default();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let (Some(name), Ok(found)) = (parse_name(&path), entry.metadata()) else { continue };
        let state = state_of(&name, live.contains(&path));
        let place = SpoolState::ALL.iter().position(|other| *other == state).expect("ALL holds every state");
        survey.files[place] += 1;
        survey.bytes[place] += found.len();
        let since = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        // The seal is the last that is written to a file.
        if state == SpoolState::Unpublished
            && let Ok(sealed) = found.modified()
        {
            survey.unpublished = survey.unpublished.max(since(sealed));
        }
        let is_wanted = matches!(state, SpoolState::Open | SpoolState::Unpublished | SpoolState::Backup);
        if is_wanted && let Some(name) = name.spool_name() {
            let opened = UNIX_EPOCH + Duration::from_micros(u64::try_from(name.opened().0).unwrap_or(0));
            survey.oldest = survey.oldest.max(since(opened));
        }
    }
    Ok(survey)
}

/// What a file of the spool directory is, by its name.
fn state_of(name: &FileName, is_live: bool) -> SpoolState {
    match (name.made(), name.state()) {
        (Some(made), _) => made.into(),
        (None, State::Aside(why, _)) => why.into(),
        (None, State::Pending) if is_live => SpoolState::Open,
        (None, State::Pending) => SpoolState::Unpublished,
    }
}

/// Datagrams that the kernel has dropped because a UDP socket was full: the last column of its list of sockets.
fn udp_overflow(inode: u64) -> Option<u64> {
    let inode = inode.to_string();
    ["/proc/self/net/udp", "/proc/self/net/udp6"].into_iter().find_map(|list| {
        let sockets = fs::read_to_string(list).ok()?;
        let columns = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let own = columns.into_iter().find(|columns| columns.get(9) == Some(&inode.as_str()))?;
        own.last()?.parse().ok()
    })
}

/// What the system tells of this process; zero where it does not.
fn process(started: Wall) -> Process {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(cpu.tv_sec).unwrap_or(0);
    let open = fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count().saturating_sub(1));
    Process {
        started,
        cpu: Duration::new(seconds, u32::try_from(cpu.tv_nsec).unwrap_or(0)),
        resident_bytes: number("VmRSS:").saturating_mul(1024),
        // Less the one that lists them.
        fds: (u64::try_from(open).unwrap_or(0), getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)),
        threads: number("Threads:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_of_a_spool_counts_as_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let name = |second: u32, rest: &str| {
            dir.path().join(format!("20260102T0304{second:02}.000000Z-c-01234567{rest}"))
        };
        let open = name(10, ".spool");
        for path in [
            open.clone(),
            name(7, ".spool"),
            name(7, ".spool.opus"),
            name(7, ".spool.left"),
            name(5, ".spool.backup"),
            name(1, ".spool.failed-2"),
            name(1, ".spool.kept"),
            name(1, ".spool.damaged"),
            // As versions before named what turned out damaged when it was in the backup.
            name(1, ".spool.backup.damaged"),
            name(5, ".spool.backup-2"),
            name(5, ".spool.backup.opus"),
            dir.path().join("lock"),
            dir.path().join("notes.txt"),
        ] {
            fs::write(path, b"1234").unwrap();
        }
        let live = HashSet::from([open]);
        let now = UNIX_EPOCH + Duration::from_micros(1_767_323_055_000_000);
        let survey = survey(dir.path(), &live, now).unwrap();
        assert_eq!(survey.files, [1, 1, 2, 3, 2, 1, 1]);
        assert_eq!(survey.bytes, [4, 4, 8, 12, 8, 4, 4]);
        assert_eq!(survey.oldest, Duration::from_secs(10), "that in the backup, opened at 05");
        assert_eq!(survey.unpublished, Duration::ZERO, "written just now, by a clock that is ahead");
        let later = SystemTime::now() + Duration::from_secs(100);
        let survey = super::survey(dir.path(), &live, later).unwrap();
        assert!((90..110).contains(&survey.unpublished.as_secs()), "{:?}", survey.unpublished);
    }

    #[test]
    fn the_process_is_seen_as_the_system_sees_it() {
        let process = process(Wall(1));
        assert!(process.resident_bytes > 1_000_000 && process.threads > 0, "{process:?}");
        assert!(process.fds.0 > 2 && process.fds.0 < process.fds.1, "{process:?}");
        assert!(process.cpu > Duration::ZERO);
    }
}
