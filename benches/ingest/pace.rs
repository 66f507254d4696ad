//! Rows `pace`, `crowd` and `memory`: calls in real time, over UDP. Each datagram is sent alone, but those of `crowd`: a
//! sender that sends half a million a second one by one would need a core and a half for itself.

use std::time::{Duration, Instant};

use super::peer::Daemon;
use super::sender::{Calls, Sending, Stream, Udp};
use super::table::{Row, thousands};

/// How often each channel sends.
const PACKET: Duration = Duration::from_millis(20);
/// The calls of a gateway do not all send at the same moment: they are spread over so many slots of a packet.
const SLOTS: usize = 80;
const WARM_UP: Duration = Duration::from_secs(2);
const HOW_LONG: Duration = Duration::from_secs(10);
const KIB: f64 = 1024.0;

/// What calls in real time cost.
pub(crate) struct Paced {
    /// Of one core.
    pub(crate) cpu: f64,
    pub(crate) memory_bytes: f64,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// How far the sender was behind its time, at most.
    pub(crate) behind: Duration,
    pub(crate) frames_per_s: f64,
}

/// Row `pace`.
pub(crate) fn real_time() -> Vec<Row> {
    let row = |what: &str, paced: &Paced, goal: &'static str| Row {
        what: format!("processor time at 1,000 calls in real time{what}"),
        measured: format!("{:.1} % of a core", paced.cpu * 100.0),
        against: format!("{} packets/s, {} lost", thousands(paced.frames_per_s), paced.lost),
        ratio: format!("{:.1} %", paced.cpu * 100.0),
        goal,
        is_met: (!goal.is_empty()).then_some(paced.cpu <= 0.2),
    };
    vec![
        row("", &run(Over::Udp, 1000, PACKET, HOW_LONG), "≤ 20 %"),
        row(", sent together (GSO)", &run(Over::UdpTogether, 1000, PACKET, HOW_LONG), "≤ 20 %"),
        row(", over the Unix stream", &run(Over::Stream, 1000, PACKET, HOW_LONG), ""),
    ]
}

/// Row `crowd`.
pub(crate) fn crowd() -> Vec<Row> {
    let paced = run(Over::UdpTogether, 5000, PACKET, HOW_LONG);
    vec![Row {
        what: "frames lost of 5,000 calls in real time".to_owned(),
        measured: format!("{} of {}", thousands(paced.lost as f64), thousands(paced.sent as f64)),
        against: format!(
            "{} packets/s, sent {} ms late at most; {:.0} % of a core",
            thousands(paced.frames_per_s),
            paced.behind.as_millis(),
            paced.cpu * 100.0
        ),
        ratio: format!("{:.3} %", 100.0 * paced.lost as f64 / paced.sent as f64),
        goal: "0",
        is_met: Some(paced.lost == 0),
    }]
}

/// Row `memory`.
pub(crate) fn memory() -> Vec<Row> {
    const CALLS: usize = 10_000;
    let paced = run(Over::Udp, CALLS, PACKET * 4, HOW_LONG);
    let kib = paced.memory_bytes / CALLS as f64 / KIB;
    vec![Row {
        what: "resident memory for each of 10,000 open calls".to_owned(),
        measured: format!("{kib:.1} KiB"),
        against: format!("{} packets/s, {} lost", thousands(paced.frames_per_s), paced.lost),
        ratio: format!("{:.0} MiB in all", paced.memory_bytes / KIB / KIB),
        goal: "≤ 16 KiB",
        is_met: Some(kib <= 16.0),
    }]
}

/// The way to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Udp,
    /// By a sender that is no bottleneck.
    UdpTogether,
    Stream,
}

/// The same, connected.
enum Link {
    Udp(Udp),
    Stream(Stream),
}

impl Link {
    fn send(&mut self, frames: &[u8]) {
        match self {
            Self::Udp(udp) => udp.send(frames),
            Self::Stream(stream) => stream.send_each(frames),
        }
    }

    /// Waits until all that was sent has been read.
    fn settle(&mut self) {
        match self {
            Self::Udp(udp) => udp.settle_whatever_is_lost(),
            Self::Stream(stream) => stream.settle(),
        }
    }
}

/// Sends calls in real time to a daemon of their own. `period` is the time between two packets of a channel.
pub(crate) fn run(way: Over, count: usize, period: Duration, how_long: Duration) -> Paced {
    let daemon = Daemon::start();
    let mut calls = Calls::new(count);
    let mut link = match way {
        Over::Udp => Link::Udp(Udp::connect(daemon.udp, Sending::Mmsg)),
        Over::UdpTogether => Link::Udp(Udp::connect(daemon.udp, Sending::Gso)),
        Over::Stream => Link::Stream(Stream::connect(&daemon.stream())),
    };
    send(&mut calls, &mut link, period, WARM_UP);
    let (begun, first, cpu_s) = (Instant::now(), calls.packets(), daemon.process.cpu_s());
    let behind = send(&mut calls, &mut link, period, how_long);
    let (elapsed, cpu_s) = (begun.elapsed().as_secs_f64(), daemon.process.cpu_s() - cpu_s);
    let memory_bytes = daemon.process.memory_bytes();
    link.settle();
    // What has been received is in the files within 100 ms.
    std::thread::sleep(Duration::from_millis(300));
    let sent = calls.packets();
    Paced {
        cpu: cpu_s / elapsed,
        memory_bytes,
        sent,
        lost: sent - daemon.spooled_packets(),
        behind,
        frames_per_s: (sent - first) as f64 / elapsed,
    }
}

/// Sends for so long. Returns how far it was behind its time, at most.
fn send(calls: &mut Calls, link: &mut Link, period: Duration, how_long: Duration) -> Duration {
    let (begun, slot, mut behind) = (Instant::now(), period / SLOTS as u32, Duration::ZERO);
    for number in 0.. {
        let due = begun + slot * number;
        if due >= begun + how_long {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        behind = behind.max(due.elapsed());
        let place = number as usize % SLOTS;
        let channels = calls.channels();
        link.send(calls.next(channels * place / SLOTS..channels * (place + 1) / SLOTS));
    }
    behind
}
