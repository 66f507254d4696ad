//! Row `growth`: what calls in real time cost, from 10 to 10,000 of them, as a picture: `benches/growth-calls.svg`.

use std::path::Path;
use std::time::Duration;

use super::pace::{self, Over, Paced};
use super::plot::{Line, draw};
use super::table::{Row, print_row, thousands};

/// How many calls, and every how many milliseconds each channel of them sends.
const POINTS: [usize; 7] = [10, 32, 100, 316, 1000, 3162, 10_000];
const HOW_LONG: Duration = Duration::from_secs(6);
const MIB: f64 = 1048576.0;
const PACKET: Duration = Duration::from_millis(20);

/// Measures each point, prints it, and draws them.
pub(crate) fn measure() {
    let points: Vec<(usize, Paced)> =
        POINTS.iter().map(|calls| (*calls, pace::run(Over::UdpTogether, *calls, PACKET, HOW_LONG))).collect();
    for (calls, paced) in &points {
        print_row(&Row {
            what: format!("{} calls in real time", thousands(*calls as f64)),
            measured: format!("{:.1} % of a core, {:.1} MiB", paced.cpu * 100.0, paced.memory_bytes / MIB),
            against: format!(
                "{} packets/s, sent {} ms late at most, {} of {} lost",
                thousands(paced.frames_per_s),
                paced.behind.as_millis(),
                thousands(paced.lost as f64),
                thousands(paced.sent as f64)
            ),
            ratio: String::new(),
            goal: "",
            is_met: None,
        });
    }
    let of =
        |cost: fn(&Paced) -> f64| points.iter().map(|(calls, paced)| (*calls as f64, cost(paced))).collect();
    draw(
        Path::new("benches/growth-calls.svg"),
        "Receiving calls in real time over UDP",
        "calls at once, each of 100 packets a second",
        &[
            Line { name: "processor time, % of a core", points: of(|paced| paced.cpu * 100.0) },
            Line { name: "resident memory, MiB", points: of(|paced| paced.memory_bytes / MIB) },
        ],
    );
}
