//! What happens to a connection that has been sealed: durability steps 3 to 8.
//!
//! 3. the spool file and its directory are synced, 4. the recording is rendered beside it and synced, 5. it is put
//!    into the store, which reads it back, 6. the manifest is put, 8. the spool file is removed and the directory synced.
//!
//! (Step 7, the catalogue, is not built yet.) Each step can be done again, so a crash between any two of them, or an
//! error of the disk or the store, leads to nothing but another attempt: at once after a restart, or after a wait
//! that doubles from one second to a minute. Attempts go on for as long as it takes; the spool file stays until then.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::local::{LocalStore, Put, PutError};
use super::log::chain;
use super::render::{Keep, Options, RenderError, Rendered, describe_failure, render};
use super::spool_dir::{ReadError, beside, set_aside, sync_dir};
use crate::manifest::{self, Manifest};
use crate::metrics::Metrics;
use crate::publish::key::{self, Names};

/// The first wait before another attempt.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Names tried for one recording. Ten thousand calls of one name are a mistake in the template.
const NUMBERS_MAX: u32 = 10_000;

/// Makes a recording of a spool file.
pub type Renderer = fn(&Path, &Options) -> Result<Rendered, RenderError>;

/// Everything needed to finish a connection.
#[derive(Debug)]
pub struct Finisher {
    store: LocalStore,
    template: String,
    options: Options,
    metrics: Arc<Metrics>,
    renderer: Renderer,
    /// Renderings at once: as many as there are cores, whatever the number of calls that end together.
    permits: Semaphore,
}

/// A connection could not be finished this time.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The spool could not be synced, or cleared up.
    #[error("working on the spool")]
    Spool(#[from] io::Error),
    /// No recording could be made.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// Not even a manifest could be made.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store did not take it.
    #[error(transparent)]
    Put(#[from] PutError),
    /// Every name is taken.
    #[error("every name from {0} to its 10000th variant is taken")]
    NoName(String),
}

impl Finisher {
    /// Makes a finisher that publishes to `store` under keys of `template`.
    #[must_use]
    pub fn new(store: LocalStore, template: String, options: Options, metrics: Arc<Metrics>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { store, template, options, metrics, renderer: render, permits: Semaphore::new(cores) }
    }

    /// The same with another way to make recordings.
    #[must_use]
    pub fn rendering_with(self, renderer: Renderer) -> Self {
        Self { renderer, ..self }
    }

    /// Finishes each spool file that comes out of `sealed`, until that is closed and all are done, or `stop`.
    pub async fn run(self: Arc<Self>, mut sealed: mpsc::Receiver<PathBuf>, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        while let Some(spool) = sealed.recv().await {
            let (finisher, stop) = (Arc::clone(&self), stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = finisher.finish_at_last(spool) => {},
                    () = stop.cancelled() => {},
                }
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Finishes one spool file, with as many attempts as it takes.
    async fn finish_at_last(self: Arc<Self>, spool: PathBuf) {
        let mut wait = RETRY_FIRST;
        for attempt in 1u32.. {
            let Ok(permit) = self.permits.acquire().await else { return };
            let (finisher, path) = (Arc::clone(&self), spool.clone());
            let result = tokio::task::spawn_blocking(move || finisher.finish(&path, attempt)).await;
            drop(permit);
            match result {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    Metrics::add(&self.metrics.publish_retries);
                    let cause = chain(&error);
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    warn!(path = %spool.display(), attempt, wait_ms, error = cause, "publishing failed, trying again");
                }
                Err(panic) => {
                    error!(path = %spool.display(), error = %panic, "finishing panicked, the spool is kept");
                    return;
                }
            }
            tokio::time::sleep(jitter(wait, attempt, &spool)).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Finishes one spool file: one attempt, counted from 1, at everything that is left to do.
    ///
    /// # Errors
    /// [`FinishError`] where another attempt may succeed. A spool of which nothing can be made is set aside, with a
    /// manifest that says so, and is no error.
    pub fn finish(&self, spool: &Path, attempt: u32) -> Result<(), FinishError> {
        let started = Instant::now();
        let directory = spool.parent().unwrap_or(Path::new("."));
        File::open(spool)?.sync_all()?;
        sync_dir(directory)?;
        // A bug that one call brings to light must not leave it unfinished for ever.
        let rendered = catch_unwind(AssertUnwindSafe(|| (self.renderer)(spool, &self.options)));
        let rendered = match rendered.unwrap_or(Err(RenderError::Panicked)) {
            Ok(rendered) => rendered,
            Err(error) if error.is_worth_a_retry() => return Err(error.into()),
            Err(error) => return self.give_up(spool, &chain(&error)),
        };
        let manifest = &rendered.manifest;
        if attempt == 1 {
            info!(
                connection = ?manifest.connection_id,
                outcome = manifest.outcome.name(),
                reasons = manifest.reasons.join(" "),
                duration_ms = manifest.duration_ms,
                caller_packets = manifest.channels.caller.packets,
                ai_packets = manifest.channels.ai.packets,
                caller_lost = manifest.channels.caller.lost,
                ai_lost = manifest.channels.ai.lost,
                elapsed_ms = elapsed_ms(started),
                "recording finalised"
            );
        }
        let published = self.publish(spool, &rendered)?;
        published.log(&rendered, started);
        Metrics::add(&self.metrics.published);
        self.metrics.finish(manifest.outcome);
        clear_up(spool)?;
        let Some(keep) = rendered.keep else { return Ok(remove(spool)?) };
        let (connection, kept) = (&manifest.connection_id, set_aside(spool, keep_suffix(keep))?);
        let path = kept.display();
        match keep {
            Keep::Undecodable => {
                warn!(?connection, %path, "spool kept, it holds audio of a codec that this version cannot record");
            }
            Keep::Damaged => {
                error!(?connection, %path, "spool file is damaged, what could be read is published; look at the disk, remove the file when it is not needed");
            }
        }
        Ok(())
    }

    /// Puts a rendering into the store under the first name that is free for all of it.
    fn publish(&self, spool: &Path, rendered: &Rendered) -> Result<Published, FinishError> {
        let manifest = &rendered.manifest;
        let names = Names {
            connection_id: &manifest.connection_id,
            conversation_id: manifest.conversation_id.as_deref(),
            tenant: manifest.tenant.as_deref(),
            start: rendered.start,
        };
        let key = key::render(&self.template, &names);
        let temporary = spool.file_stem().unwrap_or_default().to_string_lossy();
        for number in 1..=NUMBERS_MAX {
            let (audio_key, manifest_key) = key::numbered(&key, number);
            let json = to_json(manifest, rendered, &audio_key);
            // What an earlier attempt has put is no obstacle, what another call has put is.
            let is_ours = self.store.holds(&manifest_key, &json);
            if !is_ours && !self.store.is_free(&manifest_key) {
                continue;
            }
            if rendered.files.is_empty() && !is_ours && !self.store.is_free(&audio_key) {
                continue;
            }
            if !self.put_files(rendered, &audio_key, &temporary)? {
                continue;
            }
            match self.store.put(&manifest_key, &mut json.as_slice(), &temporary)? {
                Put::Created | Put::AlreadyThere => {
                    let shown = if rendered.files.is_empty() { &manifest_key } else { &audio_key };
                    let path = self.store.path(shown);
                    return Ok(Published { connection_id: manifest.connection_id.clone(), path });
                }
                // Another call took the name between the look and the put.
                Put::Taken => self.store.remove(&audio_key)?,
            }
        }
        Err(FinishError::NoName(key))
    }

    /// Puts the audio files. False if a name was taken; then none of those put here is left.
    fn put_files(&self, rendered: &Rendered, audio_key: &str, temporary: &str) -> Result<bool, FinishError> {
        let mut created = Vec::new();
        for file in &rendered.files {
            let key = file.side.map_or_else(|| audio_key.to_owned(), |side| key::of_side(audio_key, side));
            match self.store.put(&key, &mut File::open(&file.path)?, temporary)? {
                Put::Created => created.push(key),
                Put::AlreadyThere => {}
                Put::Taken => {
                    for key in created {
                        self.store.remove(&key)?;
                    }
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Sets aside a spool of which no recording can be made, with a manifest that says why if that can be made.
    fn give_up(&self, spool: &Path, reason: &str) -> Result<(), FinishError> {
        // Where not even that can be done without a panic, the log alone tells.
        let described = catch_unwind(AssertUnwindSafe(|| describe_failure(spool, &self.options, reason)));
        let connection = match described {
            Ok(Ok(rendered)) => Some(self.publish(spool, &rendered)?.connection_id),
            Ok(Err(ReadError::Header(_))) | Err(_) => None,
            Ok(Err(error)) => return Err(error.into()),
        };
        clear_up(spool)?;
        let kept = set_aside(spool, ".failed")?;
        self.metrics.finish(manifest::Outcome::Failed);
        error!(
            connection = connection.as_ref().map(tracing::field::debug),
            outcome = "failed",
            path = %kept.display(),
            error = reason,
            "no recording could be made, the spool is kept"
        );
        Ok(())
    }
}

struct Published {
    connection_id: String,
    path: PathBuf,
}

impl Published {
    fn log(&self, rendered: &Rendered, started: Instant) {
        let (connection, path, elapsed_ms) = (&self.connection_id, self.path.display(), elapsed_ms(started));
        match rendered.files.first() {
            Some(file) => info!(?connection, %path, bytes = file.bytes, elapsed_ms, "recording published"),
            None => info!(?connection, %path, elapsed_ms, "manifest published"),
        }
    }
}

fn to_json(manifest: &Manifest, rendered: &Rendered, audio_key: &str) -> Vec<u8> {
    let file = rendered.files.first().map(|file| manifest::File {
        key: audio_key.to_owned(),
        bytes: file.bytes,
        sha256: file.sha256.clone(),
        crc32c: format!("{:08x}", file.crc32c),
        format: rendered.format,
    });
    let manifest = Manifest { file, ..manifest.clone() };
    let mut json = serde_json::to_vec_pretty(&manifest).expect("a manifest has only keys of text");
    json.push(b'\n');
    json
}

/// Removes what rendering left beside a spool file.
fn clear_up(spool: &Path) -> io::Result<()> {
    for suffix in [".opus", ".left", ".right"] {
        match fs::remove_file(beside(spool, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes a spool file whose recording is published.
fn remove(spool: &Path) -> io::Result<()> {
    fs::remove_file(spool)?;
    sync_dir(spool.parent().unwrap_or(Path::new(".")))
}

fn keep_suffix(keep: Keep) -> &'static str {
    match keep {
        Keep::Undecodable => ".kept",
        Keep::Damaged => ".damaged",
    }
}

/// Spreads attempts that failed together over the second half of their wait.
fn jitter(wait: Duration, attempt: u32, spool: &Path) -> Duration {
    let seed = format!("{attempt}{}", spool.display());
    let half = wait / 2;
    half + half.mul_f64(f64::from(crc32c::crc32c(seed.as_bytes())) / f64::from(u32::MAX))
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
