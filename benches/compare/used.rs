//! What a program takes: processor time by the kernel's account, time by the clock, and memory at its most.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// What one run of one or several programs took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Of all cores, the kernel's work for it included.
    pub(crate) cpu_s: f64,
    pub(crate) wall_s: f64,
    /// The most that one of the programs had at once.
    pub(crate) peak_mib: f64,
}

impl Used {
    /// One after the other.
    pub(crate) fn then(self, next: Self) -> Self {
        Self {
            cpu_s: self.cpu_s + next.cpu_s,
            wall_s: self.wall_s + next.wall_s,
            peak_mib: self.peak_mib.max(next.peak_mib),
        }
    }

    /// The run in the middle, by processor time.
    pub(crate) fn median(mut runs: Vec<Self>) -> Self {
        runs.sort_by(|a, b| a.cpu_s.total_cmp(&b.cpu_s));
        runs[runs.len() / 2]
    }
}

/// Runs a program to its end, or says why it cannot be measured: it is not installed, or lacks something that it needs.
pub(crate) fn run(command: &mut Command) -> Result<Used, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let before = children_cpu_s();
    let begun = Instant::now();
    let said = tempfile::tempfile().unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.try_clone().unwrap());
    let mut child = command.spawn().map_err(|error| format!("{name}: not installed ({error})"))?;
    let status = Path::new("/proc").join(child.id().to_string()).join("status");
    let mut peak_kib = 0;
    let status = loop {
        if let Ok(text) = std::fs::read_to_string(&status) {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
            peak_kib = peak_kib.max(kib.unwrap_or(0));
        }
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    if !status.success() {
        return Err(format!("{name}: {status}: {}", last_line(said)));
    }
    let wall_s = begun.elapsed().as_secs_f64();
    Ok(Used { cpu_s: children_cpu_s() - before, wall_s, peak_mib: peak_kib as f64 / 1024.0 })
}

/// The last thing that a program said, in which a table has no trouble with it.
fn last_line(mut said: File) -> String {
    let mut bytes = Vec::new();
    said.rewind().and_then(|()| said.read_to_end(&mut bytes)).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    line.replace('|', "/").chars().take(200).collect()
}

fn children_cpu_s() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
        .sum()
}
