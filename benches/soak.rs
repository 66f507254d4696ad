//! Churn for as long as one likes: `cargo bench --bench soak -- SECONDS [CALLS_PER_SECOND]`.
//!
//! A release daemon is sent short calls over all three sockets, a few hundred a second opening and closing. Each call has
//! 5 to 45 packets of 20 ms in each direction, in real time. As the recordings appear, each is checked against its
//! manifest (outcome `ok`, size, every packet counted) and removed. Every ten seconds the daemon's memory, descriptors
//! and threads are read from `/proc`. At the end a line is laid through the second half of the samples: the daemon is
//! flat if that line does not rise. Exit status 1 if it does, or if any call is missing or not `ok`.
//!
//! Spool and storage are on `/dev/shm` unless `SIDETAPE_SOAK_DIR` says otherwise: a recording takes eight syncs, and
//! what is looked for here is not how many of those a disk can do.
#![allow(clippy::unwrap_used, reason = "a benchmark may fail")]

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use sidetape::frame::encode;
use sidetape::id::{Channel, ConnectionId, Scope};

const RTP: u8 = 1;
const END: u8 = 2;
const META: u8 = 3;
const PING: u8 = 11;
/// How often each gateway sends what is due: the length of a packet.
const TICK: Duration = Duration::from_millis(20);
const TICKS_PER_SECOND: u64 = 50;
/// One for each socket.
const GATEWAYS: u64 = 3;
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// A finished connection is remembered for a minute, so that memory grows for so long before it can be flat.
const WARM_UP: Duration = Duration::from_secs(75);
/// How long the last recordings may take to appear.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the line through the second half may rise by: allocators and bursts are not that even.
const RISE_MAX: f64 = 0.05;

/// The calls whose recordings are still to come, and the packets of each of their channels.
type Outstanding = Arc<Mutex<HashMap<String, u64>>>;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse::<u64>().ok());
    let seconds = Duration::from_secs(numbers.next().unwrap_or(30));
    let calls_per_second = numbers.next().unwrap_or(300);
    let shm = Path::new("/dev/shm");
    let parent = std::env::var_os("SIDETAPE_SOAK_DIR").map(PathBuf::from);
    let parent = parent.unwrap_or_else(|| if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() });
    let dir = tempfile::tempdir_in(&parent).unwrap();
    let daemon = Daemon::start(dir.path());
    println!("{calls_per_second} calls a second for {seconds:?}, spool and storage in {}", parent.display());

    let outstanding = Outstanding::default();
    let (is_over, is_drained) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let begun = Instant::now();
    let gateways: Vec<_> = Link::connect_all(dir.path(), daemon.udp)
        .into_iter()
        .enumerate()
        .map(|(number, link)| {
            let (outstanding, is_over) = (Arc::clone(&outstanding), Arc::clone(&is_over));
            std::thread::spawn(move || gateway(number, link, calls_per_second, &outstanding, &is_over))
        })
        .collect();
    let collector = {
        let (outstanding, is_drained) = (Arc::clone(&outstanding), Arc::clone(&is_drained));
        let storage = dir.path().join("storage");
        std::thread::spawn(move || collect(&storage, &outstanding, &is_drained))
    };

    let mut samples = Vec::new();
    let mut next = SAMPLE_EVERY;
    while begun.elapsed() < seconds {
        std::thread::sleep(next.min(seconds).saturating_sub(begun.elapsed()));
        samples.push(daemon.sample(begun.elapsed(), dir.path()));
        println!("{}", samples.last().unwrap().row());
        next += SAMPLE_EVERY;
    }
    is_over.store(true, Ordering::Relaxed);
    let opened: u64 = gateways.into_iter().map(|gateway| gateway.join().unwrap()).sum();
    let waiting_since = Instant::now();
    while !outstanding.lock().unwrap().is_empty() && waiting_since.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
    }
    let missing = outstanding.lock().unwrap().len();
    is_drained.store(true, Ordering::Relaxed);
    let collected = collector.join().unwrap();
    let log = daemon.stop(dir.path());
    report(&samples, seconds, opened, missing, &collected, &log)
}

/// What the recordings said.
#[derive(Default)]
struct Collected {
    good: u64,
    /// The first few that were not as they should be.
    bad: Vec<String>,
}

/// Prints the table and the verdict.
fn report(
    samples: &[Sample],
    seconds: Duration,
    opened: u64,
    missing: usize,
    collected: &Collected,
    log: &str,
) -> ExitCode {
    let settled = samples.iter().position(|sample| sample.at >= WARM_UP).unwrap_or(samples.len() - 1);
    println!("\n| | memory | descriptors | threads | files in the spool |\n| --- | --- | --- | --- | --- |");
    for sample in [&samples[settled], &samples[samples.len() / 2], samples.last().unwrap()] {
        println!("{}", sample.row());
    }
    let good = collected.good;
    println!(
        "\n{opened} calls opened, {good} recordings good, {} not, {missing} missing",
        collected.bad.len()
    );
    println!("{} lines of warnings in the log", log.lines().count());
    for line in collected.bad.iter().map(String::as_str).chain(log.lines()).take(20) {
        println!("  {line}");
    }
    let mut is_good = missing == 0 && collected.bad.is_empty() && good == opened && log.is_empty();
    let second_half = &samples[samples.len() / 2..];
    if second_half[0].at < WARM_UP || second_half.len() < 10 {
        println!("too short for a verdict on growth: five minutes or more");
    } else {
        for (name, of) in [
            ("memory", (|sample| sample.memory_kib) as fn(&Sample) -> f64),
            ("descriptors", |sample| sample.descriptors),
            ("threads", |sample| sample.threads),
        ] {
            let rise = rise(second_half, of);
            let is_flat = rise < RISE_MAX;
            let verdict = if is_flat { "flat" } else { "GROWS" };
            println!("{name}: {verdict}, {:+.2} % over the second half of {seconds:?}", rise * 100.0);
            is_good &= is_flat;
        }
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// By how much of its mean the straight line that fits best rises from the first to the last sample.
fn rise(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let points: Vec<(f64, f64)> =
        samples.iter().map(|sample| (sample.at.as_secs_f64(), of(sample))).collect();
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let span = points.last().unwrap().0 - points[0].0;
    covariance / variance * span / mean_y
}

/// What `/proc` says of the daemon at one moment.
struct Sample {
    at: Duration,
    memory_kib: f64,
    descriptors: f64,
    threads: f64,
    spool_files: usize,
}

impl Sample {
    fn row(&self) -> String {
        let Self { at, memory_kib, descriptors, threads, spool_files } = self;
        let memory_mib = memory_kib / 1024.0;
        format!(
            "| after {} s | {memory_mib:.1} MiB | {descriptors} | {threads} | {spool_files} |",
            at.as_secs()
        )
    }
}

/// The daemon under test.
struct Daemon {
    child: Child,
    udp: u16,
}

impl Daemon {
    fn start(dir: &Path) -> Self {
        // A free port, known beforehand: the log is kept to what is wrong, and does not say it.
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sidetape"))
            .arg("serve")
            .env_clear()
            .env("AUDIO_STORAGE_PATH", dir.join("storage"))
            .env("AUDIO_SPOOL_DIR", dir.join("spool"))
            .env("AUDIO_UDP_LISTEN", format!("127.0.0.1:{udp}"))
            .env("AUDIO_UNIX_DGRAM", dir.join("dgram"))
            .env("AUDIO_UNIX_STREAM", dir.join("stream"))
            .env("AUDIO_MIN_FREE_BYTES", "0")
            // Not the warning at the start, that a queue of this machine is short.
            .env("AUDIO_LOG", "warn,sidetape::daemon=error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let begun = Instant::now();
        // The stream socket is bound last.
        while UnixStream::connect(dir.join("stream")).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the daemon does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, udp }
    }

    fn sample(&self, at: Duration, dir: &Path) -> Sample {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(proc.join("status")).expect("the daemon runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse::<f64>().unwrap()
        };
        let count = |folder: &Path| fs::read_dir(folder).unwrap().count();
        Sample {
            at,
            memory_kib: field("VmRSS:"),
            descriptors: count(&proc.join("fd")) as f64,
            threads: field("Threads:"),
            spool_files: count(&dir.join("spool")) - 1, // the lock
        }
    }

    /// Asks it to stop, and returns what it had to complain of.
    fn stop(mut self, dir: &Path) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "the daemon stops without a fault");
        fs::read_to_string(dir.join("log")).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        drop(self.child.kill());
    }
}

/// A call that is being sent.
struct Call {
    id: ConnectionId,
    sent: u16,
    length: u16,
}

/// Opens, carries and ends its share of the calls until it is told to stop. Returns how many they were.
fn gateway(
    number: usize,
    mut link: Link,
    calls_per_second: u64,
    outstanding: &Outstanding,
    is_over: &AtomicBool,
) -> u64 {
    let (mut live, mut opened, mut ended) = (Vec::<Call>::new(), 0u64, Vec::new());
    let begun = Instant::now();
    for tick in 1u32.. {
        let due = begun + TICK * tick;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let due_calls = u64::from(tick) * calls_per_second / (TICKS_PER_SECOND * GATEWAYS);
        while opened < due_calls && !is_over.load(Ordering::Relaxed) {
            let id = ConnectionId::new(&format!("soak-{number}-{opened}")).unwrap();
            let length = 5 + (opened * 7 % 41) as u16;
            outstanding.lock().unwrap().insert(id.as_str().to_owned(), u64::from(length));
            link.send(&encode(META, Scope::Whole, None, &id, br#"{"labels":{"kind":"soak"}}"#));
            live.push(Call { id, sent: 0, length });
            opened += 1;
        }
        for call in &mut live {
            for channel in Channel::BOTH {
                let scope = Scope::Channel(channel);
                link.send(&encode(RTP, scope, None, &call.id, &rtp(call.sent)));
            }
            call.sent += 1;
        }
        live.retain(|call| {
            let is_live = call.sent < call.length;
            if !is_live {
                ended.push((call.id.clone(), call.length));
            }
            is_live
        });
        for (id, length) in ended.drain(..) {
            for channel in Channel::BOTH {
                let count = u64::from(length).to_be_bytes();
                link.send(&encode(END, Scope::Channel(channel), None, &id, &count));
            }
        }
        link.sync();
        if is_over.load(Ordering::Relaxed) && live.is_empty() {
            return opened;
        }
    }
    opened
}

/// 20 ms of something that decodes: a CELT frame of 40 bytes.
fn rtp(number: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 111];
    packet.extend_from_slice(&number.to_be_bytes());
    packet.extend_from_slice(&(u32::from(number) * 960).to_be_bytes());
    packet.extend_from_slice(&7u32.to_be_bytes());
    packet.push(31 << 3);
    packet.extend_from_slice(&[number.to_be_bytes()[1] | 1; 40]);
    packet
}

/// Checks and removes recordings as they appear, until all is drained.
fn collect(storage: &Path, outstanding: &Outstanding, is_drained: &AtomicBool) -> Collected {
    let mut collected = Collected::default();
    loop {
        let is_last = is_drained.load(Ordering::Relaxed);
        let names = fs::read_dir(storage).map(|entries| entries.flatten().map(|entry| entry.path()));
        for path in names.into_iter().flatten().filter(|path| path.extension().is_some_and(|e| e == "json")) {
            let manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            match check(storage, &manifest, outstanding) {
                None => collected.good += 1,
                Some(fault) if collected.bad.len() < 100 => collected.bad.push(fault),
                Some(_) => {}
            }
            fs::remove_file(&path).unwrap();
        }
        if is_last {
            return collected;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What is wrong with a recording, if anything; removes its audio.
fn check(storage: &Path, manifest: &Value, outstanding: &Outstanding) -> Option<String> {
    let id = manifest["connection_id"].as_str().unwrap();
    let Some(packets) = outstanding.lock().unwrap().remove(id) else {
        return Some(format!("a second recording of {id}: {manifest}"));
    };
    let Some(key) = manifest["file"]["key"].as_str() else { return Some(format!("no audio: {manifest}")) };
    let bytes = fs::metadata(storage.join(key)).map(|file| file.len());
    let is_good = manifest["outcome"] == "ok"
        && manifest["channels"]["caller"]["packets"] == packets
        && manifest["channels"]["ai"]["packets"] == packets
        && bytes.as_ref().is_ok_and(|bytes| manifest["file"]["bytes"] == *bytes);
    drop(fs::remove_file(storage.join(key)));
    (!is_good).then(|| format!("{packets} packets sent, {bytes:?} bytes stored: {manifest}"))
}

/// A connection to one of the daemon's sockets.
enum Link {
    Udp(UdpSocket),
    Datagram(UnixDatagram),
    Stream(UnixStream),
}

impl Link {
    fn connect_all(dir: &Path, udp_port: u16) -> [Self; 3] {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.connect(("127.0.0.1", udp_port)).unwrap();
        let datagram = UnixDatagram::bind(dir.join("gateway")).unwrap();
        datagram.connect(dir.join("dgram")).unwrap();
        let stream = UnixStream::connect(dir.join("stream")).unwrap();
        udp.set_read_timeout(Some(PATIENCE)).unwrap();
        datagram.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        [Self::Udp(udp), Self::Datagram(datagram), Self::Stream(stream)]
    }

    fn send(&mut self, frame: &[u8]) {
        match self {
            Self::Udp(socket) => drop(socket.send(frame).unwrap()),
            Self::Datagram(socket) => drop(socket.send(frame).unwrap()),
            Self::Stream(socket) => {
                let length = u16::try_from(frame.len()).unwrap().to_be_bytes();
                socket.write_all(&[&length, frame].concat()).unwrap();
            }
        }
    }

    /// Waits until the daemon has read all that was sent, so that no socket's buffer overruns.
    fn sync(&mut self) {
        self.send(&encode(PING, Scope::Whole, None, &ConnectionId::new("soak").unwrap(), b""));
        let mut answer = [0; 256];
        let length = match self {
            Self::Udp(socket) => socket.recv(&mut answer).unwrap(),
            Self::Datagram(socket) => socket.recv(&mut answer).unwrap(),
            Self::Stream(socket) => {
                let mut length = [0; 2];
                socket.read_exact(&mut length).unwrap();
                let length = usize::from(u16::from_be_bytes(length));
                socket.read_exact(&mut answer[..length]).unwrap();
                length
            }
        };
        assert!(length > 0, "an answer to a ping");
    }
}
