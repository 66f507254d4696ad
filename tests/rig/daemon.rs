//! The running program: started, watched through its log, stopped or killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use super::place::Place;
use super::wait_for;

/// A daemon that answers. It is killed when dropped, and its log is shown if the test failed.
pub(crate) struct Daemon {
    child: Leash,
    log: Log,
    reader: Option<JoinHandle<()>>,
}

/// A process that does not outlive the test, however that ends.
struct Leash(Child);

/// What the program has written to its error output so far.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

/// How a program ended that was meant to end by itself.
pub(crate) struct Ended {
    /// Its exit status; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    /// All that it wrote, to either output.
    pub(crate) said: String,
}

impl Daemon {
    /// Starts `serve` and waits until it says that it is ready.
    pub(crate) fn start(place: &Place) -> Self {
        Self::start_by(place.command("serve"))
    }

    /// Starts the daemon by a command that becomes it, and waits until it says that it is ready.
    pub(crate) fn start_by(command: Command) -> Self {
        Self::start_until(command, |line| line.ends_with("ready") || line.contains("ready "))
    }

    /// The same where the log is JSON.
    pub(crate) fn start_with_json_log(command: Command) -> Self {
        Self::start_until(command, |line| line.contains("\"message\":\"ready\""))
    }

    fn start_until(mut command: Command, is_ready: fn(&str) -> bool) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let log = Log::default();
        let (sink, output) = (log.clone(), child.stderr.take().expect("it is piped"));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                sink.push(&line);
            }
        });
        let mut daemon = Self { child: Leash(child), log, reader: Some(reader) };
        wait_for("the daemon to be ready", || {
            let ended = daemon.child.0.try_wait().expect("its state can be asked");
            assert!(ended.is_none(), "the daemon ended instead of starting: {ended:?}");
            daemon.log().lines().any(is_ready).then_some(())
        });
        daemon
    }

    /// Starts `serve` where it is expected to give up, and waits until it has.
    pub(crate) fn start_in_vain(place: &Place) -> Ended {
        let mut command = place.command("serve");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut leash = Leash(command.spawn().expect("the program starts"));
        let child = &mut leash.0;
        let status = wait_for_exit(child);
        let mut said = String::new();
        child.stdout.take().expect("it is piped").read_to_string(&mut said).expect("it writes text");
        child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("it writes text");
        Ended { code: status.code(), said }
    }

    /// The UDP address that it listens on, as its log says.
    pub(crate) fn udp(&self) -> SocketAddr {
        let log = self.log();
        let line =
            log.lines().find(|line| line.contains("listening") && field(line, "socket") == Some("udp"));
        let address = line.and_then(|line| field(line, "address")).expect("a log line with the udp address");
        address.parse().expect("an address and a port")
    }

    /// The most memory that it ever had, in KiB.
    pub(crate) fn most_memory_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// How much memory it has, in KiB, in a form that does not shrink when the machine is short of it.
    pub(crate) fn memory_kib(&self) -> u64 {
        self.status_kib("VmRSS:") + self.status_kib("VmSwap:")
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.0.id())).expect("Linux").count()
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.0.id())).expect("Linux");
        let line = status.lines().find(|line| line.starts_with(name)).expect("it is running");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.0.lock().expect("no thread panicked with the log").clone()
    }

    /// Asks it to stop, as a service manager does, and waits until it has. Returns its whole log.
    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = wait_for_exit(&mut self.child.0);
        self.read_to_end();
        assert!(status.success(), "the daemon stopped with {status}");
        self.log()
    }

    /// Asks it to stop, and does not wait.
    pub(crate) fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to take no new calls and to end with the last one, and does not wait.
    pub(crate) fn ask_to_drain(&self) {
        self.signal(Signal::USR1);
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(mut self) -> Ended {
        let status = wait_for_exit(&mut self.child.0);
        self.read_to_end();
        Ended { code: status.code(), said: self.log() }
    }

    /// Keeps it from running, as a machine that is too busy does, until [`Daemon::thaw`].
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        // A thread that runs stops when it is next interrupted.
        let threads = format!("/proc/{}/task", self.child.0.id());
        let is_stopped = |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"));
        wait_for("each thread to stop", || {
            let stats = std::fs::read_dir(&threads).ok()?.flatten();
            let mut stats =
                stats.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
            stats.all(is_stopped).then_some(())
        });
    }

    /// Lets it run again.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it without warning.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        wait_for_exit(&mut self.child.0);
    }

    /// Halts it as if its machine stood still, until [`Daemon::go_on`].
    pub(crate) fn halt(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Whether it is still running.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.0.try_wait().expect("its state can be asked").is_none()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.0), signal).expect("the daemon is there to be signalled");
    }

    fn read_to_end(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log is text");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.child.kill();
            self.read_to_end();
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
    }
}

impl Leash {
    fn kill(&mut self) {
        // Either may fail because the process has ended already, which is as good.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Log {
    fn push(&self, line: &str) {
        let mut log = self.0.lock().expect("no thread panicked with the log");
        log.push_str(line);
        log.push('\n');
    }
}

/// The value of a field `name=value` in a line of the log.
pub(crate) fn field<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .map(|v| v.trim_matches('"'))
}

/// The totals that the daemon tells when it stops.
pub(crate) fn dropped(log: &str) -> BTreeMap<String, u64> {
    let line = log.lines().find(|line| line.contains("stopped")).expect("a last line");
    let (_, totals) = line.split_once("dropped=").expect("what was dropped");
    let pairs = totals.trim_matches('"').split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.map(|(reason, count)| (reason.to_owned(), count.parse().expect("a number"))).collect()
}

fn wait_for_exit(child: &mut Child) -> ExitStatus {
    wait_for("the program to end", || child.try_wait().expect("its state can be asked"))
}
