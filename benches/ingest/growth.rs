//! Row `growth`: what calls in real time cost, from 10 to 10,000 of them, as a picture.

use std::time::Duration;

use super::pace::{self, Paced};
use super::table::{Row, print_row, thousands};

/// How many calls, and every how many milliseconds each channel of them sends.
const POINTS: [usize; 7] = [10, 32, 100, 316, 1000, 3162, 10_000];
const HOW_LONG: Duration = Duration::from_secs(6);
const PACKET: Duration = Duration::from_millis(20);

/// Measures each point, prints it, and draws them.
pub(crate) fn measure() {
    let points: Vec<(usize, Paced)> =
        POINTS.iter().map(|calls| (*calls, pace::run(*calls, PACKET, HOW_LONG))).collect();
    for (calls, paced) in &points {
        print_row(&Row {
            what: format!("{} calls in real time", thousands(*calls as f64)),
            measured: format!(
                "{:.1} % of a core, {:.1} MiB",
                paced.cpu * 100.0,
                paced.memory_bytes / 1048576.0
            ),
            against: format!(
                "{} of {} packets lost",
                thousands(paced.lost as f64),
                thousands(paced.sent as f64)
            ),
            ratio: String::new(),
            goal: "",
            is_met: None,
        });
    }
}
