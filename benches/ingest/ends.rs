//! Row `ends`: how soon a call is published, when many end together.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::peer::{Daemon, PATIENCE};
use super::sender::{Calls, Stream};
use super::table::{Row, median, percentile};

const CALLS: usize = 200;
const MINUTES_10: Duration = Duration::from_secs(600);
const PACKETS: u64 = 30_000;
/// All calls end within this.
const ENDS: Duration = Duration::from_secs(1);
/// The daemon's default.
const LINGER_MS: f64 = 500.0;

/// Measures the time from the END of a call to the moment its manifest has its name in the store.
pub(crate) fn measure() -> Vec<Row> {
    let daemon = Daemon::start();
    let (mut calls, mut stream) = (Calls::begun(CALLS, MINUTES_10), Stream::connect(&daemon.stream()));
    for _ in 0..PACKETS {
        let channels = calls.channels();
        stream.send(calls.next(0..channels));
    }
    stream.settle();
    let begun = Instant::now();
    let mut ended_us = Vec::new();
    for call in 0..CALLS {
        let due = begun + ENDS * call as u32 / CALLS as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        ended_us.push(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as f64);
        stream.send_one(&calls.end(call));
    }
    let cpu_s = daemon.process.cpu_s();
    let waits: Vec<f64> = calls
        .ids()
        .iter()
        .zip(ended_us)
        .map(|(id, ended_us)| {
            let manifest = daemon.storage().join(format!("conversation_{id}_merged.json"));
            (published_us(&manifest) - ended_us) / 1000.0 - LINGER_MS
        })
        .collect();
    let cpu_s = daemon.process.cpu_s() - cpu_s;
    let p99 = percentile(waits.clone(), 99);
    vec![Row {
        what: "END → published, 200 calls of 10 min ending in one second".to_owned(),
        measured: format!("p99 {p99:.0} ms after the linger, median {:.0} ms", median(waits)),
        against: format!("{:.1} ms of processor time a call", cpu_s * 1000.0 / CALLS as f64),
        ratio: String::new(),
        goal: "p99 ≤ 500 ms",
        is_met: Some(p99 <= 500.0),
    }]
}

/// When a file got its name, in microseconds since 1970: renaming changes its ctime.
fn published_us(path: &Path) -> f64 {
    let begun = Instant::now();
    loop {
        if let Ok(file) = path.metadata() {
            return file.ctime() as f64 * 1e6 + file.ctime_nsec() as f64 / 1e3;
        }
        assert!(begun.elapsed() < PATIENCE, "{} is not published", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}
