//! `sidetape serve`: the daemon, until SIGTERM or SIGINT.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::configure;
use crate::config::Settings;
use crate::daemon::Daemon;

/// Runs the daemon.
#[derive(clap::Args, Debug)]
pub struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    /// Runs until a signal asks to stop. A second signal does not wait for what is still to be published.
    ///
    /// # Errors
    /// Where the configuration is wrong or the daemon cannot start.
    pub async fn run(self) -> anyhow::Result<()> {
        let config = configure(&self.settings)?;
        // Caught from before the first frame, so that no signal kills a daemon that has begun to record.
        let mut terminate = signal(SignalKind::terminate()).context("catching SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("catching SIGINT")?;
        raise_open_files();
        let daemon = Daemon::start(config).await?;
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "signal received");
        tokio::select! {
            stopped = daemon.shutdown() => stopped,
            _ = terminate.recv() => anyhow::bail!("second signal, the rest stays in the spool"),
            _ = interrupt.recv() => anyhow::bail!("second signal, the rest stays in the spool"),
        }
    }
}

/// Raises the limit of open files to what the system allows: each live connection has its spool file open.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit of open files stays as it is");
    }
}
