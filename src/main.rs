//! The `sidetape` program: parses the command line, runs one command, and turns its end into an exit status:
//! 0 good, 1 failed, 2 wrong usage or configuration.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use sidetape::commands::{Cli, Command};
use sidetape::config::Faults;
use sidetape::io::log;

/// Threads for work that blocks, beside one a core that reads what is sent to a store: the store's crates look up names and
/// read files on them. Recordings are made, the spool is kept and HTTP is served on threads of their own. Without a limit
/// churn adds one after the other, each with its memory, up to tokio's 512.
const BLOCKING_BESIDE_SENDING: usize = 4;

/// The stack of each thread, of which only what is used takes memory. Signing a token within an upload by Google's crate
/// needs 2.1 MB in a build without optimisation, where the usual stack has 2 MiB; overflowing one ends the process.
const STACK_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = run(cli.command);
    log::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Faults>() => {
            say(&format!("{error}"));
            ExitCode::from(2)
        }
        Err(error) => {
            say(&format!("sidetape: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard error, where `eprintln` would panic if that takes nothing.
fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

fn run(command: Command) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .max_blocking_threads(cores + BLOCKING_BESIDE_SENDING)
        .build()?;
    let result = runtime.block_on(command.run());
    // A disk that hangs must not keep the process: what is cut off here is done again by the next start.
    runtime.shutdown_background();
    result
}
