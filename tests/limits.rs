//! What one sender may make the daemon hold: each limit with its reason, and what goes on beyond it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sidetape::config::{OnStop, RecordingFormat};
use sidetape::connection::Rules;
use sidetape::io::clock::Clock;
use sidetape::io::gate::{Gate, Via};
use sidetape::io::ingest::{Ingest, Limits};
use sidetape::io::render::read_ledger;
use sidetape::io::spool_dir::SpoolDir;
use sidetape::io::spool_writer::SpoolWriter;
use sidetape::metrics::{DropReason, Metrics};
use tempfile::TempDir;
use tokio::sync::mpsc;

use rig::gateway::{AI, CALLER, WHOLE, frame, kind};
use rig::media::{MUSIC, Sender, voice};
use rig::spool::options;

/// The receiving half of a daemon, in this process.
struct Receiver {
    ingest: Ingest,
    metrics: Arc<Metrics>,
    sealed: mpsc::Receiver<std::path::PathBuf>,
    folder: TempDir,
}

impl Receiver {
    fn new(max_packets: u64, max_connections: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let spool = Arc::new(SpoolDir::open(folder.path()).unwrap());
        let (sender, sealed) = mpsc::channel(100);
        let minute = Duration::from_secs(60);
        let reading = Rules::for_reading(false);
        let rules = Rules { retention: minute, resume: minute, max_duration: minute, ..reading };
        let writer = SpoolWriter::start(folder.path(), Duration::from_millis(100), rules, sender).unwrap();
        let limits = Limits { is_recording: true, max_connections, rules, max_packets };
        let metrics = Arc::new(Metrics::default());
        let gate = Gate::new(None);
        let ingest = Ingest::new(limits, gate, Clock::start(), Arc::clone(&metrics), spool, writer);
        Self { ingest, metrics, sealed, folder }
    }

    fn send(&self, kind: u8, channel: u8, id: &str, body: &[u8]) {
        self.ingest.receive(&frame(kind, channel, 0, id.as_bytes(), body), Via::Unix, self.ingest.now());
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.metrics.dropped(reason)
    }

    /// Ends all and returns the spool files, the oldest first.
    fn spools(mut self) -> (Vec<std::path::PathBuf>, TempDir) {
        self.ingest.handle_timers();
        self.ingest.shut_down(OnStop::Finish);
        self.ingest.stop_writer();
        let mut files = Vec::new();
        while let Ok(file) = self.sealed.try_recv() {
            files.push(file);
        }
        files.sort();
        (files, self.folder)
    }
}

#[test]
fn a_recording_of_too_many_packets_goes_on_as_another_part_and_loses_none() {
    let receiver = Receiver::new(400, 10);
    let payloads = voice(MUSIC, 150.0, 500);
    let (caller, ai) = (Sender::new(1).packets(&payloads), Sender::new(2).packets(&payloads));
    receiver.send(kind::META, WHOLE, "long", br#"{"labels":{"a":"b"}}"#);
    for (caller, ai) in caller.iter().zip(&ai) {
        receiver.send(kind::RTP, CALLER, "long", &caller.rtp);
        receiver.send(kind::RTP, AI, "long", &ai.rtp);
    }
    receiver.send(kind::END, WHOLE, "long", b"");
    let (files, _folder) = receiver.spools();
    let ledgers: Vec<_> =
        files.iter().map(|file| read_ledger(file, &options(RecordingFormat::Lossless)).unwrap().0).collect();
    let parts: Vec<_> = ledgers.iter().map(|ledger| ledger.header.part).collect();
    assert_eq!(parts, [1, 2, 3]);
    let packets: Vec<u64> = ledgers.iter().map(|l| l.channels[0].packets + l.channels[1].packets).collect();
    assert_eq!(packets, [400, 400, 200]);
    assert!(ledgers.iter().all(|ledger| ledger.metadata.labels["a"] == "b"), "each knows what was said");
}

#[test]
fn a_recording_of_the_smallest_packets_goes_on_as_another_part_before_finishing_it_takes_too_much() {
    let receiver = Receiver::new(u64::MAX, 10);
    receiver.send(kind::META, WHOLE, "small", br#"{"payload_types":{"100":"red/48000/2"}}"#);
    // Each packet brings one of a byte and a copy of a byte.
    let redundant = [0x80 | 111, 15, 0, 1, 111, 0xe0, 0xe0];
    for n in 0..400_000u32 {
        let sequence = u16::try_from((n * 2) & 0xffff).unwrap().to_be_bytes();
        let head = [0x80, 100, sequence[0], sequence[1]];
        let rtp = [&head[..], &(n * 960).to_be_bytes(), &[0, 0, 0, 1], &redundant].concat();
        receiver.send(kind::RTP, CALLER, "small", &rtp);
        if n % 5000 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    receiver.send(kind::END, WHOLE, "small", b"");
    let (files, _folder) = receiver.spools();
    let bytes: Vec<u64> = files.iter().map(|file| std::fs::metadata(file).unwrap().len()).collect();
    let packets = |bytes: &u64| bytes / 48;
    assert_eq!(files.len(), 2, "{bytes:?}");
    assert!((340_000..390_000).contains(&packets(&bytes[0])), "{bytes:?}");
}

#[test]
fn frames_beside_audio_have_a_limit_and_audio_and_the_end_go_on_beyond_it() {
    let receiver = Receiver::new(u64::MAX, 10);
    let sent = Sender::new(1).packets(&voice(MUSIC, 150.0, 2));
    receiver.send(kind::RTP, CALLER, "c", &sent[0].rtp);
    for n in 0..70_000 {
        receiver.send(kind::MARK, WHOLE, "c", format!(r#"{{"name":"{n}"}}"#).as_bytes());
        if n % 1000 == 0 {
            // A test has no gateway that waits for the disk.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert_eq!(receiver.dropped(DropReason::ControlFull), 70_000 - 65_536);
    receiver.send(kind::RTP, CALLER, "c", &sent[1].rtp);
    receiver.send(kind::PAUSE, WHOLE, "c", b"");
    receiver.send(kind::RESUME, WHOLE, "c", b"");
    receiver.send(kind::END, WHOLE, "c", b"");
    assert_eq!(receiver.dropped(DropReason::ControlFull), 70_000 - 65_536);
    assert_eq!(receiver.dropped(DropReason::SpoolOverflow), 0);
    let (files, _folder) = receiver.spools();
    let (ledger, _) = read_ledger(&files[0], &options(RecordingFormat::Lossless)).unwrap();
    assert_eq!(
        (ledger.channels[0].packets, ledger.marks.len(), ledger.pauses[0].all().len()),
        (2, 65_536, 1)
    );
    assert_eq!(ledger.seal, Some(sidetape::spool::SealCause::Released), "the end was understood");
}

#[test]
fn endless_metadata_is_refused_by_its_size_and_what_was_there_stays() {
    let receiver = Receiver::new(u64::MAX, 10);
    for n in 0..100 {
        let value = "v".repeat(1000);
        receiver.send(kind::META, WHOLE, "c", format!(r#"{{"key {n}":"{value}"}}"#).as_bytes());
    }
    assert!((35..=40).contains(&receiver.dropped(DropReason::MetadataFull)));
    let deep = format!("{}{}", r#"{"a":"#.repeat(200), "1".to_owned() + &"}".repeat(200));
    receiver.send(kind::META, WHOLE, "c", deep.as_bytes());
    assert_eq!(receiver.dropped(DropReason::Json), 1, "too deep");
    let (files, _folder) = receiver.spools();
    let (ledger, _) = read_ledger(&files[0], &options(RecordingFormat::Lossless)).unwrap();
    assert!(ledger.metadata.meta.len() >= 60 && ledger.metadata.meta.contains_key("key 0"));
}

#[test]
fn calls_that_come_and_go_too_fast_are_refused_before_they_fill_the_memory() {
    let receiver = Receiver::new(u64::MAX, 10);
    let sent = Sender::new(1).packets(&voice(MUSIC, 150.0, 1));
    for n in 0..100 {
        let id = format!("call {n}");
        receiver.send(kind::RTP, CALLER, &id, &sent[0].rtp);
        receiver.send(kind::END, WHOLE, &id, b"");
        std::thread::sleep(Duration::from_millis(2));
        receiver.ingest.handle_timers();
    }
    assert_eq!(receiver.metrics.opened.load(Ordering::Relaxed), 40, "four times what may be open at once");
    assert_eq!(receiver.dropped(DropReason::TooManyConnections), 60);
}

#[test]
fn holds_without_a_release_do_not_keep_a_call_for_ever() {
    let receiver = Receiver::new(u64::MAX, 10);
    receiver.send(kind::META, WHOLE, "held", b"{}");
    for _ in 0..1000 {
        receiver.send(kind::HOLD, WHOLE, "held", b"");
    }
    receiver.send(kind::END, WHOLE, "held", b"");
    receiver.ingest.handle_timers();
    assert_eq!(receiver.ingest.sweep(), (1, 0), "held, and not stale yet");
    // Nobody has to release it a thousand times: the sweep or the longest duration closes it.
    let (files, _folder) = receiver.spools();
    let (ledger, _) = read_ledger(&files[0], &options(RecordingFormat::Lossless)).unwrap();
    assert_eq!(ledger.seal, Some(sidetape::spool::SealCause::Shutdown));
}

#[test]
fn a_stop_that_finishes_calls_finishes_those_that_were_just_written_again() {
    let receiver = Receiver::new(100_000, 10);
    let payloads: Vec<_> =
        (0..3000u32).map(|n| rig::media::marked_packet(&format!("{n:04}").repeat(200))).collect();
    receiver.send(kind::META, WHOLE, "c", b"{}");
    let written = || {
        let found = receiver.ingest.live_spool("c").and_then(|file| std::fs::metadata(file).ok());
        found.map_or(0, |found| found.len())
    };
    for (n, packet) in (1u64..).zip(Sender::new(1).packets(&payloads)) {
        receiver.send(kind::RTP, CALLER, "c", &packet.rtp);
        if n % 500 == 0 {
            // No more may wait for the disk than 1 MiB.
            rig::wait_for("the disk", || (written() > n * 700).then_some(()));
        }
    }
    let age = |ms: u64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(now.as_micros()).unwrap() - ms * 1000
    };
    let pause = || {
        for (kind, at) in [(kind::PAUSE, age(20)), (kind::RESUME, age(10))] {
            receiver.ingest.receive(&frame(kind, WHOLE, at, b"c", b""), Via::Unix, receiver.ingest.now());
        }
    };
    let file = rig::wait_for("the file", || {
        let file = receiver.ingest.live_spool("c")?;
        let found = std::fs::metadata(&file).ok()?;
        (found.len() > 2_000_000).then(|| (file, std::os::unix::fs::MetadataExt::ino(&found)))
    });
    pause();
    let number =
        || std::fs::metadata(&file.0).map(|found| std::os::unix::fs::MetadataExt::ino(&found)).unwrap();
    while number() == file.1 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Not to be written again for a while, because that took a while.
    pause();
    let (spools, _folder) = receiver.spools();
    assert_eq!(spools, [file.0]);
}
