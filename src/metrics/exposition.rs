//! The page that Prometheus reads: text exposition format 0.0.4, made anew for each request.
//!
//! Every metric is on it from the start, with each of its labels, so that an alert has a zero to rise from. Counters
//! end in `_total`, units are seconds and bytes, labels come from closed lists. Names beginning with `process_` are those
//! that Prometheus's own libraries use; all others begin with `sidetape_`. README.md names each.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::{BOUNDS_MS, Histogram};
use super::{DropReason, Metrics, RetryCause, Split, SpoolFigures, SpoolState, Upload, Word};
use crate::id::Channel;
use crate::manifest::Outcome;
use crate::time::{Wall, micros};

/// The media type of the page.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is not counted but looked at when the page is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// Whether new connections are taken and the spool can be written.
    pub is_ready: bool,
    /// Connections that are live, and how many there may be.
    pub open_connections: (usize, usize),
    /// What is in the spool directory.
    pub spool: SpoolSurvey,
    /// Whether the disk took what was last written.
    pub is_spool_writable: bool,
    /// Bytes received and not yet written.
    pub buffered_bytes: usize,
    /// Free bytes on the spool's disk, and those below which new connections are refused.
    pub free_bytes: (u64, u64),
    /// Datagrams that came while the UDP socket was full.
    pub udp_overflow: u64,
    /// The process as the system sees it.
    pub process: Process,
}

/// What is in the spool directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolSurvey {
    /// Files, in the order of [`SpoolState::ALL`].
    pub files: [u64; SpoolState::ALL.len()],
    /// Their bytes.
    pub bytes: [u64; SpoolState::ALL.len()],
    /// How long ago the oldest connection was opened whose recording is not in the first storage.
    pub oldest: Duration,
    /// How long the recording has waited that has waited longest for a storage.
    pub unpublished: Duration,
}

/// What the system tells of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// When it started.
    pub started: Wall,
    /// Processor time that it has used.
    pub cpu: Duration,
    /// Memory that it has.
    pub resident_bytes: u64,
    /// Descriptors that it has open, and how many it may have.
    pub fds: (u64, u64),
    /// Its threads.
    pub threads: u64,
}

/// Writes the page.
#[must_use]
pub fn page(metrics: &Metrics, spool: &SpoolFigures, gauges: &Gauges) -> String {
    let mut page = Page::default();
    page.gauge("sidetape_build_info", "1, with the version of the program.");
    page.sample("", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.gauge("sidetape_ready", "Whether new connections are taken and the spool can be written.");
    page.sample("", &[], u8::from(gauges.is_ready));
    of_frames(&mut page, metrics, gauges);
    of_connections(&mut page, metrics, gauges);
    of_spool(&mut page, spool, gauges);
    of_publishing(&mut page, metrics);
    of_process(&mut page, &gauges.process);
    page.text
}

fn of_frames(page: &mut Page, metrics: &Metrics, gauges: &Gauges) {
    let received = load(&metrics.frames).saturating_add(metrics.dropped.total());
    page.counter(
        "sidetape_received_frames_total",
        "Frames received, kept or refused; PINGs are not counted.",
    );
    page.sample("", &[], received);
    page.counter("sidetape_refused_frames_total", "Frames that were not kept, by the reason in the log.");
    page.split::<DropReason>("reason", &metrics.dropped);
    page.counter(
        "sidetape_udp_overflow_datagrams_total",
        "Datagrams that the kernel dropped because the UDP socket was full.",
    );
    page.sample("", &[], gauges.udp_overflow);
}

fn of_connections(page: &mut Page, metrics: &Metrics, gauges: &Gauges) {
    let (open, most) = gauges.open_connections;
    page.gauge("sidetape_open_connections", "Connections that are live.");
    page.sample("", &[], open);
    page.gauge("sidetape_max_connections", "How many connections may be live, AUDIO_MAX_CONNECTIONS.");
    page.sample("", &[], most);
    page.counter("sidetape_opened_connections_total", "Connections opened, parts of long calls included.");
    page.sample("", &[], load(&metrics.opened));
    page.counter("sidetape_resumed_connections_total", "Connections found open in the spool at the start.");
    page.sample("", &[], load(&metrics.resumed));
    page.counter(
        "sidetape_missing_channels_total",
        "How often a channel was not heard for AUDIO_SILENCE_ALERT_SECS while the other one talked.",
    );
    page.split_by_channel("kind", &metrics.missing);
    page.counter(
        "sidetape_finished_connections_total",
        "Connections whose manifest is published, by outcome.",
    );
    page.split::<Outcome>("outcome", &metrics.outcomes);
    page.counter("sidetape_recorded_seconds_total", "Length of published recordings.");
    page.sample("", &[], seconds(load(&metrics.recorded_ms).saturating_mul(1000)));
    page.counter("sidetape_recorded_packets_total", "RTP packets received for published recordings.");
    page.split::<Channel>("channel", &metrics.packets);
    page.counter(
        "sidetape_lost_packets_total",
        "Packets that published recordings lack: lost before the gateway, or between it and the daemon.",
    );
    page.split_by_channel("cause", &metrics.lost);
    page.counter("sidetape_recovered_packets_total", "Lost packets that were rebuilt from copies.");
    page.split::<Channel>("channel", &metrics.recovered);
}

fn of_spool(page: &mut Page, spool: &SpoolFigures, gauges: &Gauges) {
    let survey = &gauges.spool;
    page.gauge("sidetape_spool_files", "Files in the spool directory, by what they are.");
    for (state, count) in SpoolState::ALL.iter().zip(survey.files) {
        page.sample("", &[("state", state.name())], count);
    }
    page.gauge("sidetape_spool_bytes", "Bytes in the spool directory, by what they are in.");
    for (state, bytes) in SpoolState::ALL.iter().zip(survey.bytes) {
        page.sample("", &[("state", state.name())], bytes);
    }
    page.gauge(
        "sidetape_spool_oldest_seconds",
        "Time since the oldest connection was opened whose recording is not in the first storage; 0 without one.",
    );
    page.sample("", &[], seconds(micros(survey.oldest)));
    page.gauge(
        "sidetape_unpublished_oldest_seconds",
        "How long the ended connection has waited that has waited longest for a storage; 0 without one.",
    );
    page.sample("", &[], seconds(micros(survey.unpublished)));
    let (free, least) = gauges.free_bytes;
    page.gauge("sidetape_spool_free_bytes", "Free space on the spool's disk.");
    page.sample("", &[], free);
    page.gauge("sidetape_spool_min_free_bytes", "Free space below which new connections are refused.");
    page.sample("", &[], least);
    page.gauge("sidetape_spool_buffered_bytes", "Bytes received and not yet written.");
    page.sample("", &[], gauges.buffered_bytes);
    page.gauge("sidetape_spool_writable", "Whether the disk took what was last written.");
    page.sample("", &[], u8::from(gauges.is_spool_writable));
    page.counter("sidetape_spool_written_bytes_total", "Bytes written to the spool.");
    page.sample("", &[], load(&spool.written_bytes));
    page.counter(
        "sidetape_spool_errors_total",
        "Writes and syncs that the disk refused. They are tried again.",
    );
    page.sample("", &[("operation", "write")], load(&spool.failed_writes));
    page.sample("", &[("operation", "sync")], load(&spool.failed_syncs));
    page.histogram("sidetape_spool_write_seconds", "Time to write all that was received.", &spool.write_time);
    page.histogram("sidetape_spool_sync_seconds", "Time to sync what was written.", &spool.sync_time);
}

fn of_publishing(page: &mut Page, metrics: &Metrics) {
    page.histogram(
        "sidetape_render_seconds",
        "Time to make a recording of a spool file.",
        &metrics.render_time,
    );
    page.counter("sidetape_failed_renders_total", "Attempts to make a recording that failed.");
    page.sample("", &[], load(&metrics.failed_renders));
    page.counter("sidetape_uploads_total", "Objects sent to a storage, recordings and manifests, by result.");
    page.split::<Upload>("result", &metrics.uploads);
    page.histogram("sidetape_upload_seconds", "Time to upload an object, or to fail.", &metrics.upload_time);
    page.counter("sidetape_uploaded_bytes_total", "Bytes of objects that were created.");
    page.sample("", &[], load(&metrics.uploaded_bytes));
    page.counter(
        "sidetape_publish_retries_total",
        "Attempts to publish that failed, by cause; each is repeated.",
    );
    page.split::<RetryCause>("cause", &metrics.publish_retries);
    page.gauge(
        "sidetape_storage_failing_seconds",
        "For how long the first storage has taken no recording that was tried; 0 if it takes them.",
    );
    page.sample("", &[], seconds(load(&metrics.storage_failing_ms).saturating_mul(1000)));
    page.gauge(
        "sidetape_spool_lasts_seconds",
        "How long the spool's disk has room for new connections, at the rate at which it fills while the first storage fails; +Inf if it does not.",
    );
    let lasts = match load(&metrics.spool_lasts_ms) {
        0 if load(&metrics.storage_failing_ms) == 0 => "+Inf".to_owned(),
        u64::MAX => "+Inf".to_owned(),
        ms => seconds(ms.saturating_mul(1000)).to_string(),
    };
    page.sample("", &[], lasts);
    page.counter(
        "sidetape_published_recordings_total",
        "Recordings that the first storage has, with manifest.",
    );
    page.sample("", &[], load(&metrics.published));
    page.counter("sidetape_backed_up_recordings_total", "Recordings put into the backup storage.");
    page.sample("", &[], load(&metrics.backed_up));
    page.histogram(
        "sidetape_end_to_published_seconds",
        "Time from the end of a connection until the first storage has its recording and manifest.",
        &metrics.end_to_published,
    );
}

fn of_process(page: &mut Page, process: &Process) {
    page.counter("process_cpu_seconds_total", "Processor time used.");
    page.sample("", &[], seconds(micros(process.cpu)));
    page.gauge("process_resident_memory_bytes", "Memory in use.");
    page.sample("", &[], process.resident_bytes);
    page.gauge("process_open_fds", "Open file descriptors.");
    page.sample("", &[], process.fds.0);
    page.gauge("process_max_fds", "How many file descriptors may be open.");
    page.sample("", &[], process.fds.1);
    page.gauge("process_threads", "Threads.");
    page.sample("", &[], process.threads);
    page.gauge("process_start_time_seconds", "When the process started, in seconds since 1970.");
    page.sample("", &[], seconds(u64::try_from(process.started.0).unwrap_or(0)));
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Microseconds as seconds, to the digit.
fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    fn counter(&mut self, name: &'static str, help: &str) {
        debug_assert!(name.ends_with("_total"), "{name}: so counters are called");
        self.begin(name, "counter", help);
    }

    fn gauge(&mut self, name: &'static str, help: &str) {
        self.begin(name, "gauge", help);
    }

    fn begin(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// One line of the metric that was begun last. Labels are words of the program's own, which need no escapes.
    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let name = self.name;
        match labels.is_empty() {
            true => self.line(format_args!("{name}{suffix} {value}")),
            false => self.line(format_args!("{name}{suffix}{{{}}} {value}", labels.join(","))),
        }
    }

    fn split<W: Word>(&mut self, label: &str, counts: &Split<W>) {
        for word in W::ALL {
            self.sample("", &[(label, word.word())], counts.of(*word));
        }
    }

    /// The same of each channel, caller first.
    fn split_by_channel<W: Word>(&mut self, label: &str, counts: &[Split<W>; 2]) {
        for (channel, counts) in Channel::BOTH.into_iter().zip(counts) {
            for word in W::ALL {
                let labels = [("channel", channel.name()), (label, word.word())];
                self.sample("", &labels, counts.of(*word));
            }
        }
    }

    fn histogram(&mut self, name: &'static str, help: &str, histogram: &Histogram) {
        self.begin(name, "histogram", help);
        let counts = histogram.cumulated();
        for (bound_ms, count) in BOUNDS_MS.iter().zip(counts) {
            let bound = Duration::from_millis(*bound_ms).as_secs_f64().to_string();
            self.sample("_bucket", &[("le", &bound)], count);
        }
        let total = counts[BOUNDS_MS.len()];
        self.sample("_bucket", &[("le", "+Inf")], total);
        self.sample("_sum", &[], seconds(histogram.sum_us()));
        self.sample("_count", &[], total);
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{text}").expect("a text takes all that there is memory for");
    }
}

/// The names of all metrics, in the order of the page.
#[must_use]
pub fn names() -> Vec<String> {
    let page = page(&Metrics::default(), &SpoolFigures::default(), &Gauges::default());
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Loss;
    use super::*;
    use std::collections::BTreeSet;

    fn value<'t>(page: &'t str, sample: &str) -> &'t str {
        let found = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {sample} in {page}"))
    }

    #[test]
    fn what_was_counted_is_on_the_page() {
        let (metrics, spool) = (Metrics::default(), SpoolFigures::default());
        Metrics::add(&metrics.frames);
        metrics.drop_frame(DropReason::Late);
        metrics.finish(Outcome::Stale);
        metrics.lost[1].add_many(Loss::Socket, 7);
        metrics.end_to_published.observe(Duration::from_millis(1500));
        let gauges = Gauges { is_ready: true, udp_overflow: 5, ..Gauges::default() };
        let page = page(&metrics, &spool, &gauges);
        for (sample, expected) in [
            ("sidetape_received_frames_total", "2"),
            ("sidetape_refused_frames_total{reason=\"late\"}", "1"),
            ("sidetape_refused_frames_total{reason=\"short\"}", "0"),
            ("sidetape_udp_overflow_datagrams_total", "5"),
            ("sidetape_finished_connections_total{outcome=\"stale\"}", "1"),
            ("sidetape_lost_packets_total{channel=\"ai\",cause=\"socket\"}", "7"),
            ("sidetape_end_to_published_seconds_bucket{le=\"1\"}", "0"),
            ("sidetape_end_to_published_seconds_bucket{le=\"2.5\"}", "1"),
            ("sidetape_end_to_published_seconds_bucket{le=\"86400\"}", "1"),
            ("sidetape_end_to_published_seconds_sum", "1.500000"),
            ("sidetape_end_to_published_seconds_count", "1"),
            ("sidetape_ready", "1"),
        ] {
            assert_eq!(value(&page, sample), expected, "{sample}");
        }
    }

    #[test]
    fn no_sample_is_written_twice_and_each_has_help() {
        let page = page(&Metrics::default(), &SpoolFigures::default(), &Gauges::default());
        let mut seen = BTreeSet::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(seen.insert(sample), "{sample} twice");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
        for name in names() {
            assert!(page.contains(&format!("# HELP {name} ")), "{name}");
            assert!(name.starts_with("sidetape_") || name.starts_with("process_"), "{name}");
        }
    }
}
