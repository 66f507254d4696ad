//! `sidetape check`: tries the configuration for real, and says what does not work.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::configure;
use crate::config::{Config, Settings, StorageKind};
use crate::io::clock::Clock;
use crate::io::spool_dir::{self, free_bytes, sync_dir};
use crate::io::store::{AUDIO, Body, Object, Put, Store, StoreError, Trouble};

/// Where it is set, recordings go to an emulator.
const EMULATOR: &str = "STORAGE_EMULATOR_HOST";

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
    pub async fn run(self) -> anyhow::Result<()> {
        let config = configure(&self.settings)?;
        let (record, dtmf, on_stop) = config.in_force();
        println!("configuration: ok, AUDIO_RECORD={record} AUDIO_DTMF={dtmf} AUDIO_ON_STOP={on_stop}");
        let missing = missing_directories(&config.spool_dir);
        let checked = check_spool(&config);
        // What a start would make is not left here: a name with a typing error would look like a spool.
        for made in missing {
            drop(fs::remove_dir(made));
        }
        checked.with_context(|| format!("spool {}", config.spool_dir.display()))?;
        println!("spool {}: written, synced and read back", config.spool_dir.display());
        let backup = config.backup_storage.map(|kind| ("backup storage", kind, &config.backup_path));
        let first = ("storage", config.storage, &config.storage_path);
        for (what, kind, path) in [first].into_iter().chain(backup) {
            let checked = check_store(kind, path).await.map_err(advised);
            match checked.with_context(|| format!("{what} {path}"))? {
                Probed::Kept => println!("{what} {path}: probe put, read back and removed"),
                Probed::Overwritten { is_read: true } => println!(
                    "{what} {path}: probe put, read back and removed; this emulator overwrites objects, the service does not"
                ),
                Probed::Overwritten { is_read: false } => println!(
                    "{what} {path}: probe put and removed, not read back: this emulator overwrites objects and gives nothing back that Google's library reads, unlike the service"
                ),
            }
        }
        Ok(())
    }
}

/// The directories that have to be made for one to be there, itself first.
fn missing_directories(path: &Path) -> Vec<&Path> {
    path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect()
}

/// What became of a probe whose name another took.
enum Probed {
    /// It stayed.
    Kept,
    /// It did not. That is good enough for an emulator alone, which has nobody's recordings.
    Overwritten {
        /// Whether it could be read back.
        is_read: bool,
    },
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

/// Puts a probe, puts it again as an attempt does that was cut short, tries to take its name, reads and removes it.
async fn check_store(kind: StorageKind, path: &str) -> anyhow::Result<Probed> {
    let is_emulator =
        kind == StorageKind::Gcs && std::env::var_os(EMULATOR).is_some_and(|host| !host.is_empty());
    let store = Store::open(kind, path).await?;
    // A name that no probe of any other machine or container has.
    let number = format!("{}-{}", Clock::start().wall().0, std::process::id());
    let key = format!("sidetape-probe-{number}.opus");
    let text = format!("sidetape probe {number}, to be removed\n");
    let tried = try_probe(&store, &key, &text, is_emulator).await;
    let removed = store.remove(&key).await;
    let probed = tried?;
    removed?;
    Ok(probed)
}

async fn try_probe(store: &Store, key: &str, text: &str, is_emulator: bool) -> anyhow::Result<Probed> {
    let probe = |text: &str| Object {
        key: key.to_owned(),
        body: Body::Text(text.to_owned().into()),
        bytes: text.len().try_into().unwrap_or(u64::MAX),
        crc32c: crc32c::crc32c(text.as_bytes()),
        content_type: AUDIO,
        labels: vec![("connection", "probe".to_owned())],
        temporary: key.to_owned(),
    };
    let put = store.put(probe(text)).await?;
    anyhow::ensure!(put == Put::Created, "{key} is there already, which nobody can have put: try again");
    let again = store.put(probe(text)).await?;
    if is_emulator && again == Put::Created {
        // Nor do all give back what Google's library reads.
        return match store.read(key).await {
            Ok(read) if read != text.as_bytes() => bail!("the probe reads back differently"),
            Ok(_) => Ok(Probed::Overwritten { is_read: true }),
            Err(_) => Ok(Probed::Overwritten { is_read: false }),
        };
    }
    anyhow::ensure!(again == Put::AlreadyThere, "what was put is not recognised");
    let taken = store.put(probe("another text")).await?;
    anyhow::ensure!(taken == Put::Taken, "this store overwrites objects: it ignores `If-None-Match: *`");
    let read = store.read(key).await?;
    anyhow::ensure!(read == text.as_bytes(), "the probe reads back differently");
    Ok(Probed::Kept)
}

/// Adds what to do to an error of the store.
fn advised(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<StoreError>().map(StoreError::trouble) {
        // A daemon would wait. Who checks wants to know now, and has mostly left something out.
        Some(Trouble::Passing) => error.context(
            "no answer that would do: look at the network, at the endpoint's address, and whether there are credentials",
        ),
        Some(trouble) => error.context(trouble.advice()),
        None => error,
    }
}
