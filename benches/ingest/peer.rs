//! The receiving end of a measurement, as a process of its own: the daemon, or a bare `recv` loop. What it costs is read
//! from `/proc`, the same way for both.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sidetape::io::spool_dir;
use sidetape::spool::RecordKind;
use tempfile::TempDir;

/// How long anything may take before the benchmark gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The argument by which this program becomes the bare loop.
pub(crate) const BARE: &str = "bare-recv";
/// The bare loop's receive buffer, as large as the daemon's.
const BUFFER_BYTES: usize = 32 * 1024 * 1024;
/// The unit of the times in `/proc/PID/stat`: USER_HZ, which is 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that does not outlive the benchmark.
pub(crate) struct Process(Child);

impl Process {
    /// The processor time that it has had, of user and system, in seconds.
    pub(crate) fn cpu_s(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        // The name is in parentheses and may hold anything; behind it the fields are plain. utime and stime are 14 and 15.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
        (ticks(14) + ticks(15)) / TICKS_PER_SECOND
    }

    /// Its resident memory, in bytes.
    pub(crate) fn memory_bytes(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() * 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A bare loop of blocking `recv` in another process: it counts, and gives back the PINGs, nothing else.
pub(crate) struct Bare {
    pub(crate) process: Process,
    pub(crate) udp: SocketAddr,
}

impl Bare {
    pub(crate) fn start(ping_bytes: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([BARE, &ping_bytes.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process: Process(child), udp: line.trim().parse().unwrap() }
    }
}

/// What the other process does: receives for ever.
pub(crate) fn be_bare(ping_bytes: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let forced = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES);
    forced.or_else(|_| rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BUFFER_BYTES)).unwrap();
    println!("{}", socket.local_addr().unwrap());
    let mut datagram = vec![0; 65_536];
    // The sender is asked for once, so that the loop need not: `recv` is what costs least.
    let (length, sender) = socket.recv_from(&mut datagram).unwrap();
    socket.connect(sender).unwrap();
    assert_eq!(socket.send(&datagram[..length]).unwrap(), length);
    let mut count = 0u64;
    loop {
        let length = socket.recv(&mut datagram).unwrap();
        count += 1;
        if length == ping_bytes {
            assert_eq!(socket.send(&datagram[..length]).unwrap(), length);
            std::hint::black_box(count);
        }
    }
}

/// The release daemon, with a folder of its own.
pub(crate) struct Daemon {
    pub(crate) process: Process,
    pub(crate) udp: SocketAddr,
    /// From `exec` to READY=1.
    pub(crate) ready_after: Duration,
    dir: TempDir,
}

impl Daemon {
    /// Starts it and waits until it receives.
    pub(crate) fn start() -> Self {
        Self::start_in(folder())
    }

    /// Starts it in a folder that may hold a spool already.
    pub(crate) fn start_in(dir: TempDir) -> Self {
        // A free port, known beforehand: the log is kept to what is wrong, and does not say it.
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let manager = UnixDatagram::bind(dir.path().join("manager")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let begun = Instant::now();
        let program = std::env::var_os("SIDETAPE_BENCH_PROGRAM");
        let child = Command::new(program.unwrap_or(env!("CARGO_BIN_EXE_sidetape").into()))
            .arg("serve")
            .env_clear()
            .env("AUDIO_STORAGE_PATH", dir.path().join("storage"))
            .env("AUDIO_SPOOL_DIR", dir.path().join("spool"))
            .env("AUDIO_UDP_LISTEN", udp.to_string())
            .env("AUDIO_UNIX_STREAM", dir.path().join("stream"))
            .env("AUDIO_MIN_FREE_BYTES", "0")
            .env("AUDIO_RESUME_SECS", "1")
            .env("AUDIO_LOG", "warn")
            .env("NOTIFY_SOCKET", dir.path().join("manager"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let process = Process(child);
        let mut said = [0; 256];
        let length = manager.recv(&mut said).expect("the daemon says that it is ready");
        assert!(said[..length].starts_with(b"READY=1"), "it says something else first");
        Self { process, udp, ready_after: begun.elapsed(), dir }
    }

    pub(crate) fn stream(&self) -> PathBuf {
        self.dir.path().join("stream")
    }

    pub(crate) fn storage(&self) -> PathBuf {
        self.dir.path().join("storage")
    }

    /// How many recordings are published, with their manifests.
    pub(crate) fn recordings(&self) -> usize {
        let names = fs::read_dir(self.storage()).into_iter().flatten().flatten().map(|entry| entry.path());
        names.filter(|path| path.extension().is_some_and(|extension| extension == "json")).count()
    }

    /// How many bytes its spool files have.
    pub(crate) fn spooled_bytes(&self) -> u64 {
        self.spool_files().iter().filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).sum()
    }

    /// How many RTP packets its spool files hold, every one of which is read and its checksum compared.
    pub(crate) fn spooled_packets(&self) -> u64 {
        let packets = self.spool_files().into_iter().map(|path| {
            let (count, _) = spool_dir::read(
                &path,
                |_| 0u64,
                |count, located| {
                    *count += u64::from(located.record.kind == RecordKind::Tap(1));
                },
            )
            .unwrap();
            count
        });
        packets.sum()
    }

    /// What it had to complain of.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn spool_files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path().join("spool")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "spool")).collect()
    }
}

/// A folder for a daemon: where `SIDETAPE_BENCH_DIR` says, else among the system's temporary files.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in(parent()).unwrap()
}

/// Where folders are made.
pub(crate) fn parent() -> PathBuf {
    std::env::var_os("SIDETAPE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// The file system that holds a folder, as `df` names it.
pub(crate) fn file_system(folder: &Path) -> String {
    let df = Command::new("df").args(["--output=fstype"]).arg(folder).output();
    let text = df.map(|df| String::from_utf8_lossy(&df.stdout).into_owned()).unwrap_or_default();
    text.lines().nth(1).unwrap_or("unknown").trim().to_owned()
}
