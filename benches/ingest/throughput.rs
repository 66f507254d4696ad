//! Rows `udp` and `stream`: as many frames as come through without a loss.

use std::time::{Duration, Instant};

use super::peer::{Bare, Daemon, PATIENCE, Process};
use super::sender::{Calls, PING_BYTES, Sending, Stream, Udp};
use super::table::{Row, median, thousands};

/// Datagrams under way at most: well within the sockets' buffers, which hold 20,000 and more.
pub(crate) const WINDOW: usize = 4096;
const CALLS: usize = 1000;
/// Handed over at once.
const BATCH: usize = 64;
const STREAM_BATCH: usize = 400;
/// Each receiver in turn, so often.
const ROUNDS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(300);
const HOW_LONG: Duration = Duration::from_secs(2);

/// What one turn brought.
struct Turn {
    frames_per_s: f64,
    cpu_ns_per_frame: f64,
}

/// Measures UDP against the bare loop, and the byte stream against UDP if that is wanted.
pub(crate) fn measure(with_stream: bool) -> Vec<Row> {
    let [mut bare, mut udp, mut bare_together, mut udp_together, mut stream] = [const { Vec::new() }; 5];
    for _ in 0..ROUNDS {
        bare.push(bare_turn(Sending::Mmsg));
        udp.push(udp_turn(Sending::Mmsg));
        bare_together.push(bare_turn(Sending::Gso));
        udp_together.push(udp_turn(Sending::Gso));
        if with_stream {
            stream.push(stream_turn());
        }
    }
    let mut rows = Vec::new();
    for (how, ours, bare) in [("", &udp, &bare), (", sent together (GSO)", &udp_together, &bare_together)] {
        let what = format!("UDP frames parsed and spooled, none lost{how}");
        let is_met = |ratio| ratio >= 0.75;
        rows.push(compare(&what, "a bare `recv` loop", ours, bare, rate, "/s", "≥ 75 %", is_met));
        let what = format!("processor time of a UDP frame{how}");
        rows.push(compare(&what, "of the bare loop", ours, bare, cpu, " ns", "", |_| true));
    }
    if with_stream {
        rows.push(compare(
            "frames over the Unix stream",
            "our own UDP",
            &stream,
            &udp,
            rate,
            "/s",
            "≥ 300 %",
            |r| r >= 3.0,
        ));
        rows.push(compare(
            "processor time of a stream frame",
            "of our own UDP",
            &stream,
            &udp,
            cpu,
            " ns",
            "",
            |_| true,
        ));
    }
    rows
}

fn rate(turn: &Turn) -> f64 {
    turn.frames_per_s
}

fn cpu(turn: &Turn) -> f64 {
    turn.cpu_ns_per_frame
}

/// Medians of both, and the median of the ratios of turns that followed each other.
#[allow(clippy::too_many_arguments, reason = "a line of the table has so many columns")]
fn compare(
    what: &str,
    against: &str,
    ours: &[Turn],
    theirs: &[Turn],
    of: fn(&Turn) -> f64,
    unit: &str,
    goal: &'static str,
    is_met: fn(f64) -> bool,
) -> Row {
    let ratio = median(ours.iter().zip(theirs).map(|(ours, theirs)| of(ours) / of(theirs)).collect());
    let middle = |turns: &[Turn]| thousands(median(turns.iter().map(of).collect()));
    Row {
        what: what.to_owned(),
        measured: format!("{}{unit}", middle(ours)),
        against: format!("{against}: {}{unit}", middle(theirs)),
        ratio: format!("{:.0} %", ratio * 100.0),
        goal,
        is_met: (!goal.is_empty()).then(|| is_met(ratio)),
    }
}

fn bare_turn(sending: Sending) -> Turn {
    let bare = Bare::start(PING_BYTES);
    over_udp(&bare.process, &mut Calls::new(CALLS), Udp::connect(bare.udp, sending), |_| {})
}

fn udp_turn(sending: Sending) -> Turn {
    let daemon = Daemon::start();
    let (mut calls, udp) = (Calls::new(CALLS), Udp::connect(daemon.udp, sending));
    let turn = over_udp(&daemon.process, &mut calls, udp, |calls| wait_for_spool(&daemon, calls));
    assert_eq!(daemon.spooled_packets(), calls.packets(), "a packet is missing: {}", daemon.log());
    turn
}

fn stream_turn() -> Turn {
    let daemon = Daemon::start();
    let (mut calls, mut stream) = (Calls::new(CALLS), Stream::connect(&daemon.stream()));
    let turn = turn(&daemon.process, &mut calls, |calls, until| {
        while until.is_some_and(|until| Instant::now() < until) {
            for first in (0..calls.channels()).step_by(STREAM_BATCH) {
                let last = calls.channels().min(first + STREAM_BATCH);
                stream.send(calls.next(first..last));
            }
        }
        if until.is_none() {
            stream.settle();
            wait_for_spool(&daemon, calls);
        }
    });
    assert_eq!(daemon.spooled_packets(), calls.packets(), "a packet is missing: {}", daemon.log());
    turn
}

fn over_udp(process: &Process, calls: &mut Calls, mut udp: Udp, end: impl Fn(&Calls)) -> Turn {
    let mut since_ping = 0;
    turn(process, calls, |calls, until| {
        while until.is_some_and(|until| Instant::now() < until) {
            for first in (0..calls.channels()).step_by(BATCH) {
                let last = calls.channels().min(first + BATCH);
                udp.send(calls.next(first..last));
                since_ping += last - first;
                if since_ping >= WINDOW / 2 {
                    since_ping = 0;
                    udp.ping();
                    udp.settle(1);
                }
            }
        }
        if until.is_none() {
            udp.ping();
            udp.settle(0);
            end(calls);
        }
    })
}

/// Lets `send` warm the receiver up, then send until a time, then wait for all to be received; measures the latter two.
fn turn(process: &Process, calls: &mut Calls, mut send: impl FnMut(&mut Calls, Option<Instant>)) -> Turn {
    send(calls, Some(Instant::now() + WARM_UP));
    send(calls, None);
    let (cpu_s, first, begun) = (process.cpu_s(), calls.packets(), Instant::now());
    send(calls, Some(begun + HOW_LONG));
    send(calls, None);
    let (elapsed, cpu_s) = (begun.elapsed(), process.cpu_s() - cpu_s);
    let frames = (calls.packets() - first) as f64;
    Turn { frames_per_s: frames / elapsed.as_secs_f64(), cpu_ns_per_frame: cpu_s * 1e9 / frames }
}

/// Waits until the spool files have all bytes.
pub(crate) fn wait_for_spool(daemon: &Daemon, calls: &Calls) {
    let begun = Instant::now();
    while daemon.spooled_bytes() < calls.spool_bytes() {
        assert!(begun.elapsed() < PATIENCE, "frames are missing in the spool: {}", daemon.log());
        std::thread::sleep(Duration::from_millis(1));
    }
}
