//! The `sidetape` program: parses the command line, runs one command, and turns its end into an exit status:
//! 0 good, 1 failed, 2 wrong usage or configuration.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sidetape::commands::{
    check::Check, demo::Demo, inspect::Inspect, load::Load, recover::Recover, replay::Replay, serve::Serve,
};
use sidetape::config::Faults;

/// Threads for work that blocks, beside one a core that finishes recordings: two stretches or manifests of live calls,
/// their delivery, a scrape or list, the stop. Without a limit churn adds one after the other, each with its memory, up to tokio's 512.
const BLOCKING_BESIDE_FINISHING: usize = 10;

/// The stack of each thread, of which only what is used takes memory. Signing a token within an upload by Google's crate
/// needs 2.1 MB in a build without optimisation, where the usual stack has 2 MiB; overflowing one ends the process.
const STACK_BYTES: usize = 8 << 20;

/// Records calls: RTP in over a local socket, one stereo Ogg Opus file per call out.
#[derive(Debug, Parser)]
#[command(name = "sidetape", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(Serve),
    /// Record a real call through a daemon of its own, to see that it works
    Demo(Demo),
    /// Send a capture's RTP to a running daemon
    Replay(Replay),
    /// Finish what a spool directory holds, without a daemon
    Recover(Recover),
    /// Say what a recording holds, in words and as a picture
    Inspect(Inspect),
    /// Send many calls at once to a running daemon, and check their recordings
    Load(Load),
    /// Try the configuration for real
    Check(Check),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = run(cli.command);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Faults>() => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("sidetape: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .max_blocking_threads(cores + BLOCKING_BESIDE_FINISHING)
        .build()?;
    let result = runtime.block_on(async {
        match command {
            Command::Serve(serve) => serve.run().await,
            Command::Demo(demo) => demo.run().await,
            Command::Replay(replay) => replay.run().await,
            Command::Recover(recover) => recover.run().await,
            Command::Inspect(inspect) => inspect.run(),
            Command::Load(load) => load.run().await,
            Command::Check(check) => check.run().await,
        }
    });
    // A disk that hangs must not keep the process: what is cut off here is done again by the next start.
    runtime.shutdown_background();
    result
}
