//! `sidetape serve`: the daemon, until SIGTERM or SIGINT, or until a drain (SIGUSR1, `POST /v1/drain`) is over.

use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::configure;
use crate::config::Settings;
use crate::daemon::{Daemon, Pulse};
use crate::io::ingest::Ingest;
use crate::io::log;

/// How often a drain says that it is still waiting.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Runs the daemon.
#[derive(clap::Args, Debug)]
pub struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    /// Runs until a signal asks to stop, or a drain is over. A second signal does not wait for what is still to be
    /// published.
    ///
    /// # Errors
    /// Where the configuration is wrong or the daemon cannot start.
    pub async fn run(self) -> anyhow::Result<()> {
        let config = configure(&self.settings)?;
        // Caught from before the first frame, so that no signal kills a daemon that has begun to record.
        let mut terminate = signal(SignalKind::terminate()).context("catching SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("catching SIGINT")?;
        let mut usr1 = signal(SignalKind::user_defined1()).context("catching SIGUSR1")?;
        raise_open_files();
        log::report_panics();
        let daemon = Daemon::start(config).await?;
        tell_service_manager(&[NotifyState::Ready]);
        let stopping = CancellationToken::new();
        if let Some(limit) = sd_notify::watchdog_enabled() {
            tokio::spawn(feed_watchdog(daemon.pulse(), limit / 3, stopping.clone()));
        }
        let mut drained = Box::pin(watch_drain(daemon.ingest()));
        let signal = loop {
            tokio::select! {
                _ = terminate.recv() => break Some("SIGTERM"),
                _ = interrupt.recv() => break Some("SIGINT"),
                _ = usr1.recv() => {
                    info!(signal = "SIGUSR1", "signal received");
                    daemon.ingest().drain();
                }
                () = &mut drained => break None,
            }
        };
        drop(drained);
        match signal {
            Some(signal) => info!(signal, "signal received"),
            None => info!("drained, the last connection is over"),
        }
        stopping.cancel();
        tell_service_manager(&[NotifyState::Stopping]);
        let mut shutdown = Box::pin(daemon.shutdown());
        // Behind a drain it is the first one that asks to stop, which is what is done.
        let mut is_told = signal.is_some();
        loop {
            tokio::select! {
                stopped = &mut shutdown => return stopped,
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            anyhow::ensure!(!is_told, "second signal, the rest stays in the spool");
            is_told = true;
        }
    }
}

/// Waits for a drain, and until the last connection is over. Says every so often how many are not. The service manager
/// is not told that this stops: it would allow no more time for that than for publishing.
async fn watch_drain(ingest: &Ingest) {
    ingest.drain_begun().await;
    let mut drained = Box::pin(ingest.drained());
    let mut report = tokio::time::interval(REPORT_EVERY);
    let mut is_begun = false;
    loop {
        tokio::select! {
            () = &mut drained => return,
            _ = report.tick() => {
                let open = ingest.left_open();
                tell_service_manager(&[NotifyState::Status(&format!("Draining, open calls: {open}"))]);
                if is_begun {
                    info!(open, "still draining");
                }
                is_begun = true;
            }
        }
    }
}

/// Tells systemd, or whoever started this with `NOTIFY_SOCKET`; nobody else.
fn tell_service_manager(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
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
            tell_service_manager(&[NotifyState::Watchdog]);
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
