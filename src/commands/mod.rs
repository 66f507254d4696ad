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

use crate::config::{Config, Fault, Faults, Settings, resolve, unknown};
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
/// [`Faults`] with all that is wrong, variables that nobody knows among it.
pub fn configure(settings: &Settings) -> Result<Config, Faults> {
    configure_with(settings, unknown_variables())
}

/// The same for a command that leaves the environment aside.
///
/// # Errors
/// [`Faults`] with all that is wrong.
pub fn configure_apart(settings: &Settings) -> Result<Config, Faults> {
    configure_with(settings, Vec::new())
}

fn configure_with(settings: &Settings, unknown: Vec<Fault>) -> Result<Config, Faults> {
    let mut faults = Vec::new();
    let config = resolve(settings).map_err(|found| faults = found.0).ok();
    // The filter is the one value that only the log can judge; its fault belongs to the others.
    let filter = settings.log.iter().filter(|text| !text.is_empty());
    faults.extend(filter.filter_map(|text| log::parse_filter(text).err()));
    faults.extend(unknown);
    match config {
        Some(config) if faults.is_empty() => {
            log::set_up(&config).map_err(|fault| Faults(vec![fault]))?;
            Ok(config)
        }
        _ => Err(Faults(faults)),
    }
}

/// The variables of this process that begin like settings and are none.
fn unknown_variables() -> Vec<Fault> {
    let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
    unknown(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
}
