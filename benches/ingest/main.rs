//! What it costs to receive calls, row by row of one table: `cargo bench --bench ingest [-- ROW…]`.
//!
//! | row | what is measured |
//! | --- | --- |
//! | `udp` | frames a second from a socket into spool files, against a bare loop of blocking `recv` that throws away |
//! | `stream` | the same over the Unix stream socket, against our own UDP |
//! | `pace` | processor time of 1,000 calls in real time, 100,000 packets a second |
//! | `crowd` | frames lost of 5,000 calls in real time, both cores shared with the sender |
//! | `memory` | resident memory of 10,000 open calls |
//! | `ends` | from the last END of a call to its manifest in the store, 200 calls of ten minutes within one second |
//! | `start` | from `exec` to READY with 1,000 calls in the spool |
//! | `growth` | processor time and memory from 10 to 10,000 calls |
//!
//! All rows but `growth` without an argument. Each daemon is the release program as a process of its own, with a folder
//! of its own: in `SIDETAPE_BENCH_DIR`, else among the temporary files. `SIDETAPE_BENCH_PROGRAM` names another build.
//! Processor time is what `/proc/PID/stat` says of that process: system calls included, the sender's not.
//!
//! **No loss** is not a matter of luck in `udp` and `stream`: the sender never has more than [`throughput::WINDOW`]
//! datagrams under way that no PING has told to be read, so that no socket can overrun. The rate is what comes through then,
//! up to the moment at which the last byte is in a spool file; all files are read back, and each packet must be there. The
//! bare loop gets the same datagrams of the same sender, in the same window, in turn with the daemon.
//!
//! **Two ways of sending.** Datagrams sent one by one, as most gateways send them, cost the sender more than any receiver: it
//! bounds both. Sent together, 64 to a system call that the kernel passes on as one piece (UDP GSO), they cost it next to
//! nothing: the receivers bound themselves, and one that takes them as they come (UDP GRO), as ours does, is ahead of one
//! to which the kernel has to cut them.
//!
//! Packets: 60 bytes of Opus, 20 ms, ids of 36 bytes, so datagrams of 124 bytes.
#![allow(clippy::unwrap_used, reason = "a benchmark may fail")]
#![allow(clippy::cast_possible_truncation, reason = "counts of a benchmark are small")]

mod ends;
mod growth;
#[path = "../machine/mod.rs"]
mod machine;
mod pace;
mod peer;
#[path = "../plot/mod.rs"]
mod plot;
mod sender;
mod start;
mod table;
mod throughput;

use std::process::ExitCode;

use table::{Row, print_head, print_row};

type Measure = fn() -> Vec<Row>;

const ROWS: [(&str, Measure); 5] = [
    ("pace", pace::real_time),
    ("crowd", pace::crowd),
    ("memory", pace::memory),
    ("ends", ends::measure),
    ("start", start::measure),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [name, ping_bytes] = &arguments[..]
        && name == peer::BARE
    {
        peer::be_bare(ping_bytes.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    let is_wanted =
        |name: &str| arguments.iter().any(|word| word == name) || (arguments.is_empty() && name != "growth");
    let known = ROWS.iter().map(|(name, _)| *name).chain(["udp", "stream", "growth"]);
    let known: Vec<&str> = known.collect();
    if let Some(unknown) = arguments.iter().find(|word| !known.contains(&word.as_str())) {
        eprintln!("no row is called {unknown}: there are {}", known.join(", "));
        return ExitCode::from(2);
    }
    print_head();
    if is_wanted("udp") || is_wanted("stream") {
        throughput::measure(is_wanted("stream")).iter().for_each(print_row);
    }
    for (_, measure) in ROWS.iter().filter(|(name, _)| is_wanted(name)) {
        measure().iter().for_each(print_row);
    }
    if is_wanted("growth") {
        growth::measure();
    }
    ExitCode::SUCCESS
}
