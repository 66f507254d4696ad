//! `sidetape recover`: finishes what a spool directory holds, without a daemon.

use std::sync::Arc;

use anyhow::Context as _;

use tokio::signal::unix::{SignalKind, signal};

use super::configure;
use crate::config::{Fault, Faults, Settings};
use crate::daemon::{finisher, rules};
use crate::io::backup::backed_up;
use crate::io::finish::Finisher;
use crate::io::recover::{Found, groups, look_at, seal};
use crate::io::spool_dir::SpoolDir;
use crate::metrics::Metrics;
use crate::spool::SealCause;

/// Finishes and publishes every connection in the spool directory.
#[derive(clap::Args, Debug)]
pub struct Recover {
    #[command(flatten)]
    settings: Settings,
}

impl Recover {
    /// Seals what is open, and finishes all. One attempt each: a person is waiting.
    ///
    /// # Errors
    /// Where the spool is not there, is in use or cannot be read, or a connection could not be finished; the others are.
    pub async fn run(self) -> anyhow::Result<()> {
        let config = configure(&self.settings)?;
        // A daemon makes its directory. Here a name with a typing error would look like a spool with nothing in it.
        if !config.spool_dir.is_dir() {
            let value = config.spool_dir.display().to_string();
            let takes = "a directory that is there: this is none".to_owned();
            return Err(Faults(vec![Fault { variable: "AUDIO_SPOOL_DIR".into(), value, takes }]).into());
        }
        let spool = SpoolDir::open(&config.spool_dir)?;
        // On a full disk, open calls have no room for their ends but this.
        spool.give_up_reserve().context("giving up the spool's reserve")?;
        let mut found = Found::default();
        for group in groups(&spool).context("looking through the spool")? {
            found.add(look_at(&group, rules(&config)));
        }
        let mut files = found.sealed;
        for open in found.open {
            // One that has to be written again gets no seal before: that says that there is nothing to be taken out.
            if !open.is_closed {
                seal(&open.path, SealCause::NotResumed)
                    .with_context(|| format!("sealing {}", open.path.display()))?;
            }
            files.push(open.path);
        }
        let finisher =
            finisher(&config, Arc::new(Metrics::default())).await.context("opening the storage")?;
        files.extend(backed_up(spool.path()).context("listing the spool")?);
        let finishing = async {
            let mut failed = 0;
            for file in &files {
                if let Err(error) = finisher.finish(file, &mut None).await {
                    let advice = error.advice();
                    failed += 1;
                    eprintln!("{}: {:#} ({advice})", file.display(), anyhow::Error::new(error));
                }
            }
            failed
        };
        let mut terminate = signal(SignalKind::terminate()).context("catching SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("catching SIGINT")?;
        let failed = tokio::select! {
            failed = finishing => failed,
            _ = terminate.recv() => return stop(&finisher),
            _ = interrupt.recv() => return stop(&finisher),
        };
        println!("{} of {} connections finished", files.len() - failed, files.len());
        if found.foreign > 0 {
            println!("{} files are no spool files, and were set aside", found.foreign);
        }
        anyhow::ensure!(failed == 0, "{failed} connections stay in the spool");
        Ok(())
    }
}

/// Sees to it that a call is not blamed for the end of a process that a person has stopped.
fn stop(finisher: &Finisher) -> anyhow::Result<()> {
    finisher.stop_trials();
    anyhow::bail!("stopped by a signal, the rest stays in the spool")
}
