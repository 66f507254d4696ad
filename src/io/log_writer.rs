//! Log lines on their way to standard error, which may be a pipe whose reader has gone, a full disk or a slow terminal.
//!
//! Whoever logs puts a line into a queue and goes on; a thread writes. What the queue has no room for, and what cannot be
//! written, is counted, and told as soon as a line gets through again. Nothing waits for the log, and no failure of it ends the
//! process.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use super::spool_writer::lock;

/// Lines that may wait, in bytes: some ten thousand.
const WAITING_MAX_BYTES: usize = 2 * 1024 * 1024;
/// A line longer than this is cut off: no event of this program is.
const LINE_MAX_BYTES: usize = 64 * 1024;

/// The lines of one process.
#[derive(Clone, Debug, Default)]
pub(super) struct LogWriter {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Whoever waits for all to be written.
    idle: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    lost: u64,
    /// Whether a line is being written.
    is_busy: bool,
}

/// One line in the making.
#[derive(Debug)]
pub(super) struct Line {
    to: Arc<Shared>,
    bytes: Vec<u8>,
}

impl LogWriter {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let writer = Self::default();
        let shared = Arc::clone(&writer.shared);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&shared, out))?;
        Ok(writer)
    }

    /// Waits until all lines are written, but no longer than that.
    pub(super) fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut queue = lock(&self.shared.queue);
        while !queue.lines.is_empty() || queue.is_busy {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            let woken = self.shared.idle.wait_timeout(queue, left);
            queue = woken.map_or_else(|poisoned| poisoned.into_inner().0, |(queue, _)| queue);
        }
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { to: Arc::clone(&self.shared), bytes: Vec::new() }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = LINE_MAX_BYTES.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let mut queue = lock(&self.to.queue);
        if queue.bytes + self.bytes.len() > WAITING_MAX_BYTES {
            queue.lost += 1;
            return;
        }
        queue.bytes += self.bytes.len();
        queue.lines.push_back(std::mem::take(&mut self.bytes));
        drop(queue);
        self.to.wake.notify_one();
    }
}

/// Writes lines for ever.
fn write_all(shared: &Shared, mut out: impl Write) {
    loop {
        let (line, lost) = next(shared);
        let told = if lost > 0 { told(lost) } else { Vec::new() };
        let is_written =
            out.write_all(&told).and_then(|()| out.write_all(&line)).and_then(|()| out.flush()).is_ok();
        let mut queue = lock(&shared.queue);
        queue.is_busy = false;
        if !is_written {
            queue.lost += lost + 1;
        }
        drop(queue);
        shared.idle.notify_all();
    }
}

/// Waits for a line. How many were lost before it is told beside it.
fn next(shared: &Shared) -> (Vec<u8>, u64) {
    let mut queue = lock(&shared.queue);
    loop {
        if let Some(line) = queue.lines.pop_front() {
            queue.bytes -= line.len();
            queue.is_busy = true;
            return (line, std::mem::take(&mut queue.lost));
        }
        queue = shared.wake.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
    }
}

/// The line that tells of others, in a form that those who read text and those who read JSON find.
fn told(lost: u64) -> Vec<u8> {
    format!("{{\"level\":\"WARN\",\"message\":\"log lines were lost, standard error did not take them\",\"count\":{lost}}}\n")
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Takes what it is allowed to, and reports it.
    struct Slow {
        allowed: mpsc::Receiver<bool>,
        taken: mpsc::Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.is_empty() {
                return Ok(0);
            }
            if !self.allowed.recv().unwrap_or(true) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.taken.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (LogWriter, mpsc::Sender<bool>, mpsc::Receiver<String>) {
        let (allow, allowed) = mpsc::channel();
        let (taken, received) = mpsc::channel();
        (LogWriter::start(Slow { allowed, taken }).unwrap(), allow, received)
    }

    fn log(writer: &LogWriter, text: &str) {
        writeln!(writer.make_writer(), "{text}").unwrap();
    }

    #[test]
    fn lines_come_whole_and_in_order() {
        let (writer, allow, received) = slow();
        for line in ["a", "b", "c"] {
            log(&writer, line);
            allow.send(true).unwrap();
        }
        writer.flush(PATIENCE);
        assert_eq!(received.try_iter().collect::<String>(), "a\nb\nc\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_later() {
        let (writer, allow, received) = slow();
        for line in ["a", "b"] {
            log(&writer, line);
            allow.send(false).unwrap();
        }
        writer.flush(PATIENCE);
        log(&writer, "c");
        allow.send(true).unwrap();
        allow.send(true).unwrap();
        writer.flush(PATIENCE);
        let taken: Vec<_> = received.try_iter().collect();
        assert!(taken[0].contains("log lines were lost") && taken[0].contains("\"count\":2"), "{taken:?}");
        assert_eq!(taken[1], "c\n");
    }

    #[test]
    fn nobody_waits_for_a_log_that_takes_nothing() {
        let (writer, allow, received) = slow();
        let line = "x".repeat(1000);
        for _ in 0..10_000 {
            log(&writer, &line);
        }
        writer.flush(Duration::from_millis(1));
        drop(allow);
        writer.flush(PATIENCE);
        let taken: Vec<_> = received.try_iter().collect();
        // Some may be lost before the thread takes its first line: they are told in a line of their own.
        let told: Vec<_> = taken.iter().filter(|line| line.contains("log lines were lost")).collect();
        let count = |line: &&String| -> usize {
            line.split("\"count\":").nth(1).unwrap().trim_end_matches("}\n").parse().unwrap()
        };
        let lost: usize = told.iter().map(count).sum();
        assert!(lost > 0);
        assert_eq!(lost + taken.len() - told.len(), 10_000);
    }
}
