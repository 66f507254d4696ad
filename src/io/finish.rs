//! What happens to a connection that has been sealed: durability steps 3 to 8.
//!
//! 3. the spool file and its directory are synced, 4. the recording is rendered beside it, 5. it is put into the
//!    store, which reads it back, 6. the manifest is put, 8. the spool file is removed and the directory synced.
//!
//! (Step 7, the catalogue, is not built yet.) Each step can be done again, so a crash between any two of them, or an
//! error of the disk or the store, leads to nothing but another attempt: when is the matter of [`super::outbox`].
//! Between attempts of one process what was rendered stays beside the spool file; another process renders it again, to
//! the same bytes. The spool file stays until the store has it all.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tracing::{error, info, warn};

use super::backup::{Backup, Health};
use super::log::chain;
use super::render::{
    Keep, Options, RenderError, Rendered, RenderedFile, describe_failure, describe_gone, render,
};
use super::scratch::{Elsewhere, Room, Turn, tells_full};
use super::spool_dir::{ReadError, beside, header_from_name, set_aside, sync_dir};
use super::spool_file::remove_if_there;
use super::store::{AUDIO, Body, MANIFEST, Object, Put, Store, StoreError, Trouble};
use crate::manifest::{self, Manifest};
use crate::metrics::{Metrics, RetryCause, Upload};
use crate::publish::key::{self, Names};
use crate::publish::label::{cut_label, label};
use crate::spool::HeaderError;
use crate::spool::name::{Aside, Made};
use crate::time::Mono;

/// Recordings sent at once: enough for a link of some delay, few enough that a store that hangs ties up little.
pub const UPLOADS_MAX: usize = 8;
/// Names tried for one recording. Ten thousand calls of one name are a mistake in the template.
const NUMBERS_MAX: u32 = 10_000;

/// What a label tells of a consent, which the manifest has whole: S3 takes 2 KB for all labels of an object.
const CONSENT_MAX_BYTES: usize = 200;
/// What is said of a spool file that others have taken away.
const GONE: &str = "the spool file was removed by somebody else";

/// Makes a recording of a spool file.
pub type Renderer = fn(&Path, &Options) -> Result<Rendered, RenderError>;

/// Everything needed to finish a connection.
#[derive(Debug)]
pub struct Finisher {
    pub(super) store: Store,
    pub(super) backup: Option<Backup>,
    /// Of the first choice.
    pub(super) health: Health,
    template: String,
    pub(super) options: Options,
    metrics: Arc<Metrics>,
    pub(super) renderer: Renderer,
    /// Renderings at once: as many as there are cores, whatever the number of calls that end together.
    renders: Semaphore,
    uploads: Semaphore,
    pub(super) elsewhere: Elsewhere,
}

/// What has been made of a spool file, ready to be put into the store.
#[derive(Debug)]
pub struct Prepared {
    rendered: Rendered,
    end: End,
    since: Instant,
    /// Where it was not made beside the spool file.
    turn: Option<Turn>,
}

impl Prepared {
    pub(super) fn with_turn(self, turn: Turn) -> Self {
        Self { turn: Some(turn), ..self }
    }

    /// Whose it is.
    pub(super) fn connection_id(&self) -> &str {
        &self.rendered.manifest.connection_id
    }
}

/// What becomes of a spool file when its recording is published.
#[derive(Debug)]
enum End {
    Remove,
    /// It holds what the recording does not.
    Keep(Keep),
    /// No recording could be made, and why.
    Fail(String),
    /// It is not there any more.
    Gone,
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
    Store(#[from] StoreError),
    /// Every name is taken.
    #[error("every name from {0} to its 10000th variant is taken")]
    NoName(String),
    /// A bug.
    #[error("finishing panicked: please report it, with the spool file")]
    Panicked,
}

impl FinishError {
    /// Whether it may mend without a person's help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Store(error) => error.trouble().is_passing(),
            Self::NoName(_) | Self::Panicked => false,
            Self::Spool(_) | Self::Render(_) | Self::Read(_) => true,
        }
    }

    /// What it is counted under.
    #[must_use]
    pub fn cause(&self) -> RetryCause {
        match self {
            Self::Spool(_) | Self::Read(_) => RetryCause::Spool,
            Self::Render(_) => RetryCause::Render,
            Self::NoName(_) => RetryCause::NoName,
            Self::Panicked => RetryCause::Internal,
            Self::Store(error) => match error.trouble() {
                Trouble::Passing => RetryCause::StoreUnavailable,
                Trouble::Expired => RetryCause::Expired,
                Trouble::Credentials => RetryCause::Credentials,
                Trouble::Permission => RetryCause::Permission,
                Trouble::Bucket => RetryCause::Bucket,
                Trouble::Clock => RetryCause::Clock,
                Trouble::Refused => RetryCause::Refused,
            },
        }
    }

    /// How long the store asks to be left alone, if it does.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::Store(error) = self else { return None };
        error.retry_after()
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Store(error) => error.trouble().advice(),
            Self::NoName(_) => "AUDIO_OBJECT_KEY gives too many calls one name: put {connection_id} into it",
            Self::Panicked => "report it, with the spool file",
            Self::Spool(_) | Self::Render(_) | Self::Read(_) => {
                "nothing, unless it lasts: then look at the spool's disk"
            }
        }
    }
}

impl Finisher {
    /// Makes a finisher that publishes to `store` under keys of `template`.
    #[must_use]
    pub fn new(store: impl Into<Store>, template: String, options: Options, metrics: Arc<Metrics>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (renders, uploads) = (Semaphore::new(cores), Semaphore::new(UPLOADS_MAX));
        let (store, backup, health) = (store.into(), None, Health::default());
        let elsewhere = Elsewhere::default();
        Self {
            store,
            backup,
            health,
            template,
            options,
            metrics,
            renderer: render,
            renders,
            uploads,
            elsewhere,
        }
    }

    /// The same with a second store.
    #[must_use]
    pub fn with_backup(self, backup: Option<Backup>) -> Self {
        Self { backup, ..self }
    }

    /// The same with another way to make recordings.
    #[must_use]
    pub fn rendering_with(self, renderer: Renderer) -> Self {
        Self { renderer, ..self }
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Finishes one spool file: one attempt at everything that is left to do. `prepared` keeps what was rendered from
    /// one attempt to the next.
    ///
    /// # Errors
    /// [`FinishError`] where another attempt may succeed. A spool of which nothing can be made is set aside, with a
    /// manifest that says so, and is no error.
    pub async fn finish(
        self: &Arc<Self>,
        spool: &Path,
        prepared: &mut Option<Arc<Prepared>>,
    ) -> Result<(), FinishError> {
        if let Some(made) = prepared.as_ref()
            && made.rendered.files.iter().any(|file| !file.path.exists())
        {
            *prepared = None;
        }
        let ready = match prepared.clone() {
            Some(ready) => ready,
            None => {
                let made = match self.make(spool, Room::Beside).await {
                    Err(error) if tells_full(&error) => self.make_elsewhere(spool).await?,
                    made => made?,
                };
                let Some(made) = made.map(Arc::new) else { return Ok(()) };
                // What was not made beside the spool file is not kept: others wait for their turn.
                *prepared = made.turn.is_none().then(|| Arc::clone(&made));
                made
            }
        };
        let published = {
            let _permit = self.uploads.acquire().await;
            match self.publish(&self.store, spool, &ready).await {
                Ok(published) => {
                    self.health.note_success();
                    self.empty_backup(spool, &ready).await?;
                    published
                }
                Err(error @ FinishError::Store(_)) => return self.back_up(spool, &ready, error).await,
                Err(error) => return Err(error),
            }
        };
        let (finisher, path) = (Arc::clone(self), spool.to_owned());
        blocking(move || Ok(finisher.retire(&path, &ready, &published)?)).await
    }

    /// Renders a spool file, a few at a time.
    pub(super) async fn make(
        self: &Arc<Self>,
        spool: &Path,
        room: Room,
    ) -> Result<Option<Prepared>, FinishError> {
        let _permit = self.renders.acquire().await;
        let (finisher, path) = (Arc::clone(self), spool.to_owned());
        blocking(move || finisher.prepare(&path, &room)).await
    }

    /// Renders a spool file. Nothing, where it was set aside because not even a manifest can be made.
    fn prepare(&self, spool: &Path, room: &Room) -> Result<Option<Prepared>, FinishError> {
        let since = Instant::now();
        let directory = spool.parent().unwrap_or(Path::new("."));
        match File::open(spool) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(self.prepare_gone(spool, since));
            }
            Err(error) => return Err(error.into()),
        }
        sync_dir(directory)?;
        let begun = Instant::now();
        let rendered = match self.render_kept(spool, room)? {
            Ok(rendered) => rendered,
            // Not failed yet: it is made elsewhere.
            Err(error) if matches!(room, Room::Beside) && tells_full(&error) => return Err(error.into()),
            Err(error) => {
                Metrics::add(&self.metrics.failed_renders);
                if error.is_worth_a_retry() {
                    return Err(error.into());
                }
                return self.prepare_failure(spool, chain(&error), since);
            }
        };
        self.metrics.render_time.observe(begun.elapsed());
        let manifest = &rendered.manifest;
        info!(
            connection = ?manifest.connection_id,
            outcome = manifest.outcome.name(),
            reasons = manifest.reasons.join(" "),
            duration_ms = manifest.duration_ms,
            caller_packets = manifest.channels.caller.packets,
            ai_packets = manifest.channels.ai.packets,
            caller_lost = manifest.channels.caller.lost,
            ai_lost = manifest.channels.ai.lost,
            elapsed_ms = elapsed_ms(since),
            "recording finalised"
        );
        let end = rendered.keep.map_or(End::Remove, End::Keep);
        Ok(Some(Prepared { rendered, end, since, turn: None }))
    }

    /// Makes the manifest of a spool of which no recording can be made, or sets it aside if not even that can be done.
    fn prepare_failure(
        &self,
        spool: &Path,
        reason: String,
        since: Instant,
    ) -> Result<Option<Prepared>, FinishError> {
        let described = catch_unwind(AssertUnwindSafe(|| describe_failure(spool, &self.options, &reason)));
        match described {
            Ok(Ok(rendered)) => Ok(Some(Prepared { rendered, end: End::Fail(reason), since, turn: None })),
            Ok(Err(error @ ReadError::Io(_))) => Err(error.into()),
            Ok(Err(ReadError::Header(error))) => {
                // Somebody has put another file in its place: of what it was, only the name tells. What another version of
                // the program wrote is not lost.
                let is_readable = matches!(error, HeaderError::Version(_));
                let header = header_from_name(spool, Mono(0)).filter(|_| !is_readable);
                let Some(header) = header else { return self.give_up_untold(spool, &reason) };
                let rendered = describe_gone(header, &reason);
                Ok(Some(Prepared { rendered, end: End::Fail(reason), since, turn: None }))
            }
            Err(_) => self.give_up_untold(spool, &reason),
        }
    }

    /// Sets a spool aside of which not even a manifest can be made.
    fn give_up_untold(&self, spool: &Path, reason: &str) -> Result<Option<Prepared>, FinishError> {
        self.give_up(spool, None, reason)?;
        Ok(None)
    }

    /// Makes the manifest of a call whose spool file was taken away after its end: of what it was, only the name tells.
    fn prepare_gone(&self, spool: &Path, since: Instant) -> Option<Prepared> {
        let Some(header) = header_from_name(spool, Mono(0)) else {
            self.metrics.finish(manifest::Outcome::Failed);
            error!(outcome = "failed", path = %spool.display(), error = GONE, "no recording could be made, and the spool is lost");
            return None;
        };
        Some(Prepared { rendered: describe_gone(header, GONE), end: End::Gone, since, turn: None })
    }

    /// Does what is left when all is in the store.
    fn retire(&self, spool: &Path, ready: &Prepared, published: &Published) -> io::Result<()> {
        published.log(&ready.rendered, ready.since);
        let manifest = &ready.rendered.manifest;
        match &ready.end {
            End::Fail(reason) => return self.give_up(spool, Some(&manifest.connection_id), reason),
            End::Gone => {
                clear_up(spool)?;
                self.metrics.finish(manifest::Outcome::Failed);
                error!(
                    connection = ?manifest.connection_id,
                    outcome = "failed",
                    path = %spool.display(),
                    error = GONE,
                    "no recording could be made, and the spool is lost: find out who removes files from the spool directory"
                );
                return Ok(());
            }
            End::Remove | End::Keep(_) => {}
        }
        Metrics::add(&self.metrics.published);
        self.metrics.finish(manifest.outcome);
        self.metrics.record(manifest);
        self.metrics.end_to_published.observe(since_end(spool));
        clear_up(spool)?;
        let End::Keep(keep) = ready.end else { return remove(spool) };
        let (connection, kept) = (&manifest.connection_id, set_aside(spool, aside_of(keep))?);
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

    /// Sets a spool aside of which no recording can be made.
    fn give_up(&self, spool: &Path, connection: Option<&String>, reason: &str) -> io::Result<()> {
        clear_up(spool)?;
        let kept = set_aside(spool, Aside::Failed)?;
        self.metrics.finish(manifest::Outcome::Failed);
        error!(
            connection = connection.map(tracing::field::debug),
            outcome = "failed",
            path = %kept.display(),
            error = reason,
            "no recording could be made, the spool is kept"
        );
        Ok(())
    }

    /// Puts a rendering into the store under the first name that is free for all of it.
    pub(super) async fn publish(
        &self,
        store: &Store,
        spool: &Path,
        ready: &Prepared,
    ) -> Result<Published, FinishError> {
        let rendered = &ready.rendered;
        let manifest = &rendered.manifest;
        let names = Names {
            connection_id: &manifest.connection_id,
            conversation_id: manifest.conversation_id.as_deref(),
            tenant: manifest.tenant.as_deref(),
            start: rendered.start,
        };
        let key = key::render(&self.template, &names);
        let labels = labels(manifest);
        let temporary = spool.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for number in 1..=NUMBERS_MAX {
            let (audio_key, manifest_key) = key::numbered(&key, number);
            // A call without audio does not take the name of one that is still without its manifest. A store that does
            // not tell is asked by the put of the manifest.
            if rendered.files.is_empty() && matches!(store.is_free(&audio_key).await, Ok(false)) {
                continue;
            }
            let object = |key: &str, body, (bytes, crc32c), content_type| {
                let (key, labels, temporary) = (key.to_owned(), labels.clone(), temporary.clone());
                Object { key, body, bytes, crc32c, content_type, labels, temporary }
            };
            let json = to_json(manifest, rendered, &audio_key);
            let sum = (u64::try_from(json.len()).unwrap_or(u64::MAX), crc32c::crc32c(&json));
            let audio = rendered.files.iter().map(|file| {
                let key = key_of(file, &audio_key);
                object(&key, Body::File(file.path.clone()), (file.bytes, file.crc32c), AUDIO)
            });
            let last = object(&manifest_key, Body::Text(json.into()), sum, MANIFEST);
            if let Some(keys) = self.put_all(store, audio.chain([last])).await? {
                let shown = if rendered.files.is_empty() { &manifest_key } else { &audio_key };
                return Ok(Published { place: store.place(shown), keys });
            }
        }
        Err(FinishError::NoName(key))
    }

    /// Puts objects one after the other, and returns their keys. None if a name was taken; then none of those that were
    /// made here is left.
    async fn put_all(
        &self,
        store: &Store,
        objects: impl Iterator<Item = Object>,
    ) -> Result<Option<Vec<String>>, FinishError> {
        let (mut keys, mut made) = (Vec::new(), Vec::new());
        for object in objects {
            let key = object.key.clone();
            match self.put(store, object).await? {
                Put::Created => made.push(key.clone()),
                // It may belong to what was published before.
                Put::AlreadyThere => {}
                Put::Taken => {
                    for key in made {
                        store.remove(&key).await?;
                    }
                    return Ok(None);
                }
            }
            keys.push(key);
        }
        Ok(Some(keys))
    }

    /// Puts one object, and counts how that went.
    async fn put(&self, store: &Store, object: Object) -> Result<Put, StoreError> {
        let (bytes, since) = (object.bytes, Instant::now());
        // On the heap: what the clouds' crates keep while they wait would be copied at each level of callers, which
        // without optimisation takes more than a thread's stack.
        let put = Box::pin(store.put(object)).await;
        self.metrics.upload_time.observe(since.elapsed());
        self.metrics.uploads.add(match put {
            Ok(Put::Created) => Upload::Created,
            Ok(Put::AlreadyThere) => Upload::AlreadyThere,
            Ok(Put::Taken) => Upload::Taken,
            Err(_) => Upload::Failed,
        });
        if let Ok(Put::Created) = put {
            self.metrics.uploaded_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        put
    }
}

/// Does what takes the disk or the processor where nothing else waits for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FinishError> + Send + 'static,
) -> Result<T, FinishError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(FinishError::Panicked))
}

fn key_of(file: &RenderedFile, audio_key: &str) -> String {
    file.side.map_or_else(|| audio_key.to_owned(), |side| key::of_side(audio_key, side))
}

/// What of a call is written beside its objects: enough to find them by, without opening them.
fn labels(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let mut labels = vec![
        ("connection", label(&manifest.connection_id)),
        ("recording", manifest.recording_id.to_string()),
        ("outcome", manifest.outcome.name().to_owned()),
        ("duration", format!("{}.{:03}", manifest.duration_ms / 1000, manifest.duration_ms % 1000)),
    ];
    let consent = manifest.consent.as_ref().and_then(|consent| serde_json::to_string(consent).ok());
    let texts = [
        ("conversation", &manifest.conversation_id),
        ("tenant", &manifest.tenant),
        ("traceparent", &manifest.traceparent),
    ];
    labels.extend(texts.into_iter().filter_map(|(name, text)| Some((name, label(text.as_deref()?)))));
    labels.extend(consent.map(|consent| ("consent", cut_label(&consent, CONSENT_MAX_BYTES))));
    labels.retain(|(_, text)| !text.is_empty());
    labels
}

pub(super) struct Published {
    /// Where it is, for people.
    pub(super) place: String,
    /// What it is called in the store: audio and manifest.
    pub(super) keys: Vec<String>,
}

impl Published {
    fn log(&self, rendered: &Rendered, since: Instant) {
        let (connection, path, elapsed_ms) =
            (&rendered.manifest.connection_id, &self.place, elapsed_ms(since));
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
///
/// # Errors
/// Where the disk says no.
pub fn clear_up(spool: &Path) -> io::Result<()> {
    for made in Made::RENDERED {
        match fs::remove_file(beside(spool, made)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes a spool file whose recording is published.
fn remove(spool: &Path) -> io::Result<()> {
    // Somebody else may have done so: what is published is not lost by that.
    remove_if_there(spool)?;
    sync_dir(spool.parent().unwrap_or(Path::new(".")))
}

fn aside_of(keep: Keep) -> Aside {
    match keep {
        Keep::Undecodable => Aside::Kept,
        Keep::Damaged => Aside::Damaged,
    }
}

/// How long ago a connection ended: its seal was the last that was written to its spool file. By the wall clock, since
/// the daemon may have been started again in between.
fn since_end(spool: &Path) -> Duration {
    let written = fs::metadata(spool).and_then(|found| found.modified());
    written.ok().and_then(|written| written.elapsed().ok()).unwrap_or_default()
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
