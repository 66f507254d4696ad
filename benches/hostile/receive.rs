//! What it costs to receive the frames of such calls: on the thread of a receiver, from a frame's bytes to the spool's buffer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use sidetape::connection::Rules;
use sidetape::frame::encode;
use sidetape::id::ConnectionId;
use sidetape::io::clock::Clock;
use sidetape::io::gate::{Gate, Via};
use sidetape::io::ingest::{Ingest, Limits};
use sidetape::io::spool_dir::SpoolDir;
use sidetape::io::spool_writer::SpoolWriter;
use sidetape::metrics::Metrics;
use sidetape::spool::RecordKind;
use sidetape::spool::scan::Scanner;

/// So many frames are received without a pause: what the spool's writer takes is not what is measured.
const AT_ONCE: usize = 2000;

/// Receives the frames of a spool file; microseconds for each.
pub(crate) fn receive(file: &[u8]) -> f64 {
    let id = ConnectionId::new("hostile").unwrap();
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut scanner = Scanner::default();
    scanner.feed(file);
    scanner.end();
    drop(scanner.header().unwrap());
    while let Some(located) = scanner.next_record() {
        let record = &located.record;
        if let RecordKind::Tap(kind) = record.kind {
            frames.push(encode(kind, record.scope, record.gateway, &id, record.body));
        }
    }
    let folder = tempfile::TempDir::new().unwrap();
    let spool = Arc::new(SpoolDir::open(folder.path()).unwrap());
    let (sealed, _end) = tokio::sync::mpsc::channel(100);
    let minute = Duration::from_secs(60);
    let reading = Rules::for_reading(false);
    let longest = Duration::from_secs(14_400);
    let rules = Rules { linger: minute, retention: minute, resume: minute, max_duration: longest, ..reading };
    let writer = SpoolWriter::start(folder.path(), Duration::from_secs(1), rules, sealed).unwrap();
    let limits = Limits { is_recording: true, max_connections: 10, rules, max_packets: u64::MAX };
    let clock = Clock::start();
    let ingest = Ingest::new(limits, Gate::new(None), clock, Arc::new(Metrics::default()), spool, writer);
    let mut all = 0.0;
    for some in frames.chunks(AT_ONCE) {
        let before = clock_gettime(ClockId::ThreadCPUTime);
        for frame in some {
            std::hint::black_box(ingest.receive(frame, Via::Unix, ingest.now()));
        }
        let after = clock_gettime(ClockId::ThreadCPUTime);
        let us = (after.tv_sec - before.tv_sec) as f64 * 1e6 + (after.tv_nsec - before.tv_nsec) as f64 / 1e3;
        all += us;
        // Until the writer has it.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(4) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    ingest.stop_writer();
    all / frames.len().max(1) as f64
}
