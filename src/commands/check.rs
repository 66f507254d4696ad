//! `sidetape check`: tries the configuration for real, and says what does not work.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;

use super::configure;
use crate::config::{Config, Settings};
use crate::io::local::{LocalStore, Put};
use crate::io::spool_dir::{self, free_bytes, sync_dir};

/// Tries the configuration: the spool is written, a probe object put, read and removed.
#[derive(clap::Args, Debug)]
pub struct Check {
    #[command(flatten)]
    settings: Settings,
}

impl Check {
    /// Tries everything and prints a line for each thing that works.
    ///
    /// # Errors
    /// The first thing that does not work. A running daemon is not disturbed.
    pub fn run(self) -> anyhow::Result<()> {
        let config = configure(&self.settings)?;
        println!("configuration: ok");
        check_spool(&config).with_context(|| format!("spool {}", config.spool_dir.display()))?;
        println!("spool {}: written, synced and read back", config.spool_dir.display());
        check_store(&config).with_context(|| format!("storage {}", config.storage_path))?;
        println!("storage {}: probe put, read back and removed", config.storage_path);
        Ok(())
    }
}

fn check_spool(config: &Config) -> anyhow::Result<()> {
    spool_dir::make(&config.spool_dir).context("creating the directory")?;
    let probe = config.spool_dir.join(format!("probe-{}", std::process::id()));
    let mut file = fs::File::create(&probe).context("creating a file")?;
    file.write_all(b"sidetape").context("writing a file")?;
    file.sync_all().context("syncing a file")?;
    let read = fs::read(&probe).context("reading a file")?;
    fs::remove_file(&probe).context("removing a file")?;
    sync_dir(&config.spool_dir).context("syncing the directory")?;
    anyhow::ensure!(read == b"sidetape", "what was written reads back differently");
    let free_bytes = free_bytes(&config.spool_dir).context("asking for the free space")?;
    anyhow::ensure!(
        free_bytes >= config.min_free_bytes,
        "{free_bytes} bytes are free, AUDIO_MIN_FREE_BYTES={} are wanted",
        config.min_free_bytes
    );
    Ok(())
}

fn check_store(config: &Config) -> anyhow::Result<()> {
    let store = LocalStore::new(Path::new(&config.storage_path));
    let key = format!("sidetape-probe-{}.opus", std::process::id());
    let put = store.put(&key, &mut &b"sidetape"[..], &key)?;
    anyhow::ensure!(put != Put::Taken, "{key} is taken");
    let is_there = store.holds(&key, b"sidetape");
    store.remove(&key).context("removing the probe")?;
    anyhow::ensure!(is_there, "the probe reads back differently");
    Ok(())
}
