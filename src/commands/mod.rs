//! What the program does when it is called: one file for each command.

pub mod check;
pub mod demo;
pub mod inspect;
pub mod load;
pub mod ready;
pub mod recover;
pub mod replay;
pub mod serve;

use clap::{Parser, Subcommand};

use crate::config::{Config, Faults, Settings, resolve};
use crate::io::log;

/// Records calls: RTP in over a local socket, one stereo Ogg Opus file per call out.
#[derive(Debug, Parser)]
#[command(
    name = "sidetape",
    version,
    after_help = "Exit status: 0 good, 1 failed, 2 wrong usage or configuration"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands. What `deploy/man` and `deploy/completions` say is made of these definitions.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    Serve(serve::Serve),
    /// Record a real call through a daemon of its own, to see that it works
    Demo(demo::Demo),
    /// Send a capture's RTP to a running daemon
    Replay(replay::Replay),
    /// Finish what a spool directory holds, without a daemon
    Recover(recover::Recover),
    /// Say what a recording holds, in words and as a picture
    Inspect(inspect::Inspect),
    /// Send many calls at once to a running daemon, and check their recordings
    Load(load::Load),
    /// Try the configuration for real
    Check(check::Check),
    /// Ask a running daemon whether it takes calls, for health checks
    Ready(ready::Ready),
}

impl Command {
    /// Runs the command that was asked for.
    ///
    /// # Errors
    /// What kept it from its end: [`Faults`] where the configuration is wrong, else why it failed.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Serve(serve) => serve.run().await,
            Self::Demo(demo) => demo.run().await,
            Self::Replay(replay) => replay.run().await,
            Self::Recover(recover) => recover.run().await,
            Self::Inspect(inspect) => inspect.run(),
            Self::Load(load) => load.run().await,
            Self::Check(check) => check.run().await,
            Self::Ready(ready) => ready.run().await,
        }
    }
}

/// Checks the settings and sets up the log: how every command that needs a configuration begins.
///
/// # Errors
/// [`Faults`] with all that is wrong.
pub fn configure(settings: &Settings) -> Result<Config, Faults> {
    let config = resolve(settings).map_err(|mut faults| {
        // The filter is the one value that only the log can judge; its fault belongs to the others.
        faults.0.extend(settings.log.iter().filter_map(|text| log::parse_filter(text).err()));
        faults
    })?;
    log::set_up(&config).map_err(|fault| Faults(vec![fault]))?;
    Ok(config)
}
