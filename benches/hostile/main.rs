//! What it costs to finish a call that was made to cost much: `cargo bench --bench hostile`.
//!
//! Each kind is finished with n, 2n and 4n packets, in a process of its own, as is an ordinary call of as many. A ratio is
//! that of processor time to the ordinary call's; memory is the most that the process had, and what it may have: 64 MiB and
//! 1.5 times the bytes of its spool. Names of kinds as arguments select some, a number sets n.
//!
//! `cargo bench --bench hostile -- receive` tells what their frames cost a receiver: microseconds of processor time for a frame.
//!
//! `cargo bench --bench hostile -- search 3600` looks for worse ones for an hour; another number behind that, and it begins
//! with other patterns.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may fail, and prints")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "parts of calls that are made up"
)]

#[path = "../../tests/rig/cost.rs"]
mod cost;
#[path = "../../tests/rig/hostile.rs"]
mod hostile;
mod receive;
mod search;

use std::time::Duration;

use cost::{Cost, cost_of, finish_as_child};
use hostile::{KINDS, Make};

/// The least number of packets.
const PACKETS: usize = 100_000;

/// What it costs, others on the machine left out as far as three runs allow.
fn least_cost_of(file: &[u8]) -> Cost {
    let runs = (0..3).map(|_| cost_of(file));
    runs.min_by(|one, other| one.cpu_s.total_cmp(&other.cpu_s)).unwrap()
}

fn main() {
    finish_as_child();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [word, numbers @ ..] = &arguments[..]
        && word == "search"
    {
        let mut numbers = numbers.iter().map(|number| number.parse().unwrap());
        let seconds = numbers.next().unwrap_or(60);
        return search::search(Duration::from_secs(seconds), numbers.next().unwrap_or(1) as usize);
    }
    if arguments.first().is_some_and(|word| word == "receive") {
        println!("{:<26}{:>9}", "kind", "us");
        for kind in
            KINDS.iter().filter(|kind| arguments.len() == 1 || arguments.iter().any(|name| name == kind.name))
        {
            let mean = receive::receive(&(kind.make)(PACKETS / 5));
            println!("{:<26}{mean:>9.2}", kind.name);
        }
        return;
    }
    let packets = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(PACKETS);
    let names: Vec<&String> =
        arguments.iter().filter(|argument| argument.parse::<usize>().is_err()).collect();
    let mut ordinary: Vec<(Make, usize, Cost)> = Vec::new();
    println!("{:<24}{:>9}{:>10}{:>8}{:>9}{:>9}", "kind", "packets", "CPU ms", "ratio", "MiB", "of MiB");
    for kind in KINDS {
        if !names.is_empty() && !names.iter().any(|name| name.as_str() == kind.name) {
            continue;
        }
        for times in [1, 2, 4] {
            let packets = packets / kind.share * times;
            let known = ordinary
                .iter()
                .find(|(make, count, _)| *make as usize == kind.ordinary as usize && *count == packets);
            let usual = match known {
                Some((.., cost)) => *cost,
                None => least_cost_of(&(kind.ordinary)(packets)),
            };
            ordinary.push((kind.ordinary, packets, usual));
            let file = (kind.make)(packets);
            let cost = least_cost_of(&file);
            println!(
                "{:<24}{packets:>9}{:>10.1}{:>8.2}{:>9.1}{:>9.1}",
                kind.name,
                cost.cpu_s * 1e3,
                cost.cpu_s / usual.cpu_s,
                cost.peak_mib,
                64.0 + 1.5 * file.len() as f64 / f64::from(1 << 20),
            );
        }
    }
}
