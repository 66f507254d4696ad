//! `sidetape recover`: finishes what a spool directory holds, without a daemon.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use anyhow::Context as _;

use tokio::signal::unix::{SignalKind, signal};

use super::configure;
use crate::config::{Fault, Faults, Settings};
use crate::daemon::{finisher, rules};
use crate::io::backup::backed_up;
use crate::io::finish::Finisher;
use crate::io::recover::{Found, groups, look_at, seal};
use crate::io::spool_dir::{SpoolDir, parse_name};
use crate::metrics::Metrics;
use crate::spool::SealCause;
use crate::spool::name::{Aside, FileName, State};

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
    /// Where the spool is not there, is in use or cannot be read, a connection could not be finished, or a file was set
    /// aside; the others are finished.
    pub async fn run(self) -> anyhow::Result<()> {
        let config = configure(&self.settings)?;
        // A daemon makes its directory. Here a name with a typing error would look like a spool with nothing in it.
        if !config.spool_dir.is_dir() {
            let value = config.spool_dir.display().to_string();
            let takes = "a directory that is there: this is none".to_owned();
            return Err(Faults(vec![Fault { variable: "AUDIO_SPOOL_DIR".into(), value, takes }]).into());
        }
        let spool = SpoolDir::open(&config.spool_dir)?;
        let aside_before = set_aside(spool.path()).context("listing the spool")?;
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
        let aside = set_aside(spool.path()).context("listing the spool")?;
        let new: Vec<_> = aside.difference(&aside_before).collect();
        for name in &new {
            println!("set aside: {}", name.display());
        }
        let before = aside.len() - new.len();
        if before > 0 {
            println!("{before} files were set aside before, and were not touched");
        }
        anyhow::ensure!(failed == 0, "{failed} connections stay in the spool");
        anyhow::ensure!(new.is_empty(), "{} files were set aside: README.md says what each is", new.len());
        Ok(())
    }
}

/// What waits for a person in the spool directory.
fn set_aside(directory: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let is_aside = |name: &FileName| match name.state() {
        State::Aside(why, _) => why != Aside::BackedUp && name.made().is_none(),
        State::Pending => false,
    };
    let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    let paths = entries.into_iter().map(|entry| entry.path());
    Ok(paths.filter(|path| parse_name(path).is_some_and(|name| is_aside(&name))).collect())
}

/// Sees to it that a call is not blamed for the end of a process that a person has stopped.
fn stop(finisher: &Finisher) -> anyhow::Result<()> {
    finisher.stop_trials();
    anyhow::bail!("stopped by a signal, the rest stays in the spool")
}
