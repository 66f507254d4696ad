//! `sidetape serve`: the daemon, until SIGTERM or SIGINT.

use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::configure;
use crate::config::Settings;
use crate::daemon::{Daemon, Pulse};
use crate::io::log;

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
        log::report_panics();
        let daemon = Daemon::start(config).await?;
        tell_service_manager(NotifyState::Ready);
        let stopping = CancellationToken::new();
        if let Some(limit) = sd_notify::watchdog_enabled() {
            tokio::spawn(feed_watchdog(daemon.pulse(), limit / 3, stopping.clone()));
        }
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "signal received");
        stopping.cancel();
        tell_service_manager(NotifyState::Stopping);
        tokio::select! {
            stopped = daemon.shutdown() => stopped,
            _ = terminate.recv() => anyhow::bail!("second signal, the rest stays in the spool"),
            _ = interrupt.recv() => anyhow::bail!("second signal, the rest stays in the spool"),
        }
    }
}

/// Tells systemd, or whoever started this with `NOTIFY_SOCKET`; nobody else.
fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "the service manager cannot be told");
    }
}

/// Tells the service manager every so often that the daemon works, as long as it does. How long stopping may take is
/// another limit of the manager's.
async fn feed_watchdog(pulse: Pulse, every: Duration, stopping: CancellationToken) {
    let mut interval = tokio::time::interval(every);
    loop {
        interval.tick().await;
        if pulse.is_felt() || stopping.is_cancelled() {
            tell_service_manager(NotifyState::Watchdog);
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
