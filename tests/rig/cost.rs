//! What it costs to finish a spool file: processor time and the most memory, in a process of its own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sidetape::config::RecordingFormat;
use sidetape::connection::Rules;
use sidetape::io::render::{Options, RenderError, Rendered, render};
use sidetape::io::spool_rewrite::rewrite_file;

/// The file that a child process is to finish.
const FILE: &str = "SIDETAPE_FINISH";

/// The longest recording, as configured by default.
const LONGEST: Duration = Duration::from_secs(14_400);

/// What it costs to finish a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) cpu_s: f64,
    /// The most memory that the process had.
    pub(crate) peak_mib: f64,
}

/// Finishes the spool file that the environment names, tells what that cost, and ends the process; returns where it names
/// none. To be called first by the program that calls [`cost_of`].
pub(crate) fn finish_as_child() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let rendered = finish(Path::new(&path), LONGEST);
    let manifest = serde_json::to_vec(&rendered.manifest).expect("a manifest");
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let cpu_s = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    println!("finished {cpu_s} {} {}", kib / 1024.0, manifest.len());
    std::process::exit(0);
}

/// Makes the recording of a spool file, as a finisher does.
pub(crate) fn finish(path: &Path, longest: Duration) -> Rendered {
    let options = Options {
        tail: Duration::ZERO,
        ai_offset_ms: 0,
        keep_channels: false,
        longest,
        format: RecordingFormat::Lossless,
        gains_db: [0.0; 2],
        masks_digits: false,
    };
    // What a finisher does where something paused is still there.
    let rendered = match render(path, &options) {
        Err(RenderError::Paused) => {
            rewrite_file(path, Rules::for_reading(false)).expect("another file");
            render(path, &options)
        }
        rendered => rendered,
    };
    rendered.expect("a recording")
}

/// What it costs to finish a spool file of these bytes.
pub(crate) fn cost_of(file: &[u8]) -> Cost {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("call.spool");
    std::fs::write(&path, file).expect("room");
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "finish_one", "--nocapture", "--include-ignored"])
        .env(FILE, &path)
        .output()
        .expect("this program runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find_map(|line| line.split("finished ").nth(1));
    let Some(line) = line else { panic!("{said}{}", String::from_utf8_lossy(&output.stderr)) };
    let mut numbers = line.split(' ').map(|number| number.parse::<f64>().expect("a number"));
    let mut next = || numbers.next().expect("three numbers");
    Cost { cpu_s: next(), peak_mib: next() }
}
