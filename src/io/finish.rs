//! What happens to a connection that has been sealed: durability steps 3 to 8.
//!
//! 3. the spool file and its directory are synced, 4. the recording is rendered beside it, 5. it is put into the
//!    store, which reads it back, 6. the manifest is put, 8. the spool file is removed and the directory synced.
//!
//! (Step 7, the catalogue, is not built yet.) Each step can be done again, so a crash between any two of them, or an
//! error of the disk or the store, leads to nothing but another attempt: when is the matter of [`super::outbox`].
//! Between attempts of one process what was rendered stays beside the spool file; another process renders it again, to
//! the same bytes. The spool file stays until the store has it all.
//!
//! Rendering has threads of its own, one for each core and one for small files: whose turn it is, says
//! [`crate::publish::turns`]. A spool file that ends the process whenever it is rendered is found out by `super::trials`.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};
use tracing::{error, info};

use super::backup::{Backup, Choice, Health};
use super::doubts::warn_of;
use super::log::chain;
use super::render::{Keep, Options, RenderError, Rendered, describe_failure, describe_gone, render};
use super::retire::DEADLY;
use super::scratch::{Elsewhere, Room, TurnElsewhere, tells_full};
use super::spool_dir::{ReadError, header_from_name, header_of, sync_dir};
use super::store::{Store, StoreError, Trouble};
use super::threads::{Threads, ThreadsError};
use super::trials::{Standing, Trials};
use super::turnstile::{Turn, Turnstile};
use crate::manifest;
use crate::metrics::{Metrics, RetryCause};
use crate::publish::numbers::{NUMBER_MAX, Numbers};
use crate::publish::turns::Size;
use crate::spool::HeaderError;
use crate::time::Mono;

/// Recordings sent at once: enough for a link of some delay, few enough that a store that hangs ties up little.
pub const UPLOADS_MAX: usize = 8;
/// Recordings of each size that wait to be sent, or are: so many lie on the disk at once while a store is slow.
const AHEAD_MAX: usize = 2 * UPLOADS_MAX;
/// How long a suspect waits before it asks for its turn: others that the same start finds shall have asked by then.
const SUSPECT_AFTER: Duration = Duration::from_secs(2);
/// How long others wait for a suspect that is rendered alone.
const ALONE_MAX: Duration = Duration::from_secs(600);
/// Threads for what the disk may take long for, beside rendering.
const HANDS: usize = 4;
/// How much less processor rendering gets than receiving, where both want it: about a third.
const NICE: i32 = 5;
/// What is said of a spool file that others have taken away.
pub(super) const GONE: &str = "the spool file was removed by somebody else";

/// Makes a recording of a spool file.
pub type Renderer = fn(&Path, &Options) -> Result<Rendered, RenderError>;

/// Everything needed to finish a connection.
#[derive(Debug)]
pub struct Finisher {
    pub(super) store: Store,
    pub(super) backup: Option<Backup>,
    /// Of the first choice.
    pub(super) health: Health,
    pub(super) template: String,
    pub(super) options: Options,
    pub(super) metrics: Arc<Metrics>,
    pub(super) renderer: Renderer,
    renderers: Threads,
    /// For what else the disk may take long for.
    pub(super) hands: Threads,
    /// Renderings at once: as many as there are cores, and a small one, whatever the number of calls that end together.
    renders: Arc<Turnstile>,
    uploads: Arc<Turnstile>,
    /// By size.
    ahead: [Semaphore; 2],
    trials: Arc<Trials>,
    /// Of the first choice and of the backup.
    pub(super) numbers: [Mutex<Numbers>; 2],
    pub(super) elsewhere: Elsewhere,
}

/// What has been made of a spool file, ready to be put into the store.
#[derive(Debug)]
pub struct Prepared {
    pub(super) rendered: Rendered,
    pub(super) end: End,
    pub(super) since: Instant,
    is_published: bool,
    /// Where it was not made beside the spool file.
    turn: Option<TurnElsewhere>,
}

impl Prepared {
    pub(super) fn with_turn(self, turn: TurnElsewhere) -> Self {
        Self { turn: Some(turn), ..self }
    }

    /// Notes that the store has it: what was made is not needed any more.
    fn note_published(&mut self) {
        self.is_published = true;
        self.rendered.files.clear();
        self.turn = None;
    }

    /// Whether the store has it, and only its spool file is left.
    pub(super) fn is_published(&self) -> bool {
        self.is_published
    }

    /// Whose it is.
    pub(super) fn connection_id(&self) -> &str {
        &self.rendered.manifest.connection_id
    }

    /// Whether it is a recording, and not the manifest alone that says why there is none.
    pub(super) fn is_recording(&self) -> bool {
        matches!(self.end, End::Remove | End::Keep(_))
    }

    /// How much there is to send.
    fn bytes(&self) -> u64 {
        self.rendered.files.iter().map(|file| file.bytes).sum()
    }
}

/// What becomes of a spool file when its recording is published.
#[derive(Debug)]
pub(super) enum End {
    Remove,
    /// It holds what the recording does not.
    Keep(Keep),
    /// No recording could be made, and why.
    Fail(String),
    /// Making it ends the process.
    Convict,
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
    #[error("every name from {0} to its variant {NUMBER_MAX} is taken")]
    NoName(String),
    /// A bug.
    #[error("finishing panicked: please report it, with the spool file")]
    Panicked,
}

impl From<ThreadsError> for FinishError {
    fn from(error: ThreadsError) -> Self {
        match error {
            ThreadsError::Start(error) => Self::Spool(error),
            ThreadsError::Panicked => Self::Panicked,
        }
    }
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
        Self {
            store: store.into(),
            backup: None,
            health: Health::default(),
            template,
            options,
            metrics,
            renderer: render,
            renderers: Threads::new("renderer", cores + 1, NICE),
            hands: Threads::new("finisher", HANDS, 0),
            renders: Turnstile::new(cores, 1),
            uploads: Turnstile::new(UPLOADS_MAX, 1),
            ahead: [Semaphore::new(AHEAD_MAX), Semaphore::new(AHEAD_MAX)],
            trials: Arc::default(),
            numbers: Default::default(),
            elsewhere: Elsewhere::default(),
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

    /// Starts the threads without which nothing is finished, so that they are there when memory is short.
    ///
    /// # Errors
    /// Where the system gives none.
    pub fn start_threads(&self) -> io::Result<()> {
        self.renderers.start(usize::MAX)?;
        self.hands.start(1)?;
        self.store.start_thread()
    }

    /// Says that the process is about to end: whoever kills it from now on does not do so for what it renders.
    pub fn stop_trials(&self) {
        self.trials.end();
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
        if let Some(ready) = prepared.as_ref().filter(|ready| ready.is_published()) {
            let (finisher, path, ready) = (Arc::clone(self), spool.to_owned(), Arc::clone(ready));
            return Ok(self.hands.run(move || finisher.retire(&path, &ready)).await??);
        }
        if let Some(made) = prepared.as_ref()
            && made.rendered.files.iter().any(|file| !file.path.exists())
        {
            *prepared = None;
        }
        let (ready, _ahead) = match prepared.clone() {
            Some(ready) => (ready, None),
            None => {
                let (made, ahead) = match self.make(spool, Room::Beside).await {
                    Err(error) if tells_full(&error) => self.make_elsewhere(spool).await?,
                    made => made?,
                };
                let Some(made) = made.map(Arc::new) else { return Ok(()) };
                // What was not made beside the spool file is not kept: others wait for their turn.
                *prepared = made.turn.is_none().then(|| Arc::clone(&made));
                (made, ahead)
            }
        };
        let published = {
            let _turn = self.uploads.enter(ready.bytes()).await;
            match self.publish(&self.store, Choice::First, spool, &ready).await {
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
        let tell = move || {
            finisher.tell_published(&path, &ready, &published);
            ready
        };
        // From here on, this alone holds it.
        *prepared = None;
        let mut ready = self.hands.run(tell).await?;
        if let Some(ready) = Arc::get_mut(&mut ready) {
            ready.note_published();
        }
        let (finisher, path) = (Arc::clone(self), spool.to_owned());
        let left = Arc::clone(prepared.insert(ready));
        Ok(self.hands.run(move || finisher.retire(&path, &left)).await??)
    }

    /// Makes a recording on a thread for that, when it is its turn. What else is returned is held until it was sent, or was
    /// not: with too much on its way nothing more is made.
    pub(super) async fn make(
        self: &Arc<Self>,
        spool: &Path,
        room: Room,
    ) -> Result<(Option<Prepared>, Option<SemaphorePermit<'_>>), FinishError> {
        let path = spool.to_owned();
        let trials = Arc::clone(&self.trials);
        let look = move || (trials.standing(&path), fs::metadata(&path).map_or(0, |found| found.len()));
        let (standing, bytes) = self.hands.run(look).await?;
        let is_alone = standing == Standing::Suspect;
        let (turn, ahead) = if is_alone {
            sleep(SUSPECT_AFTER).await;
            // All others wait for one that is alone: it waits for nobody.
            (self.renders.enter_alone().await, None)
        } else {
            let turn = self.renders.enter(bytes).await;
            (turn, self.ahead[Size::of(bytes).index()].acquire().await.ok())
        };
        let key = turn.key();
        let (finisher, path) = (Arc::clone(self), spool.to_owned());
        // The turn lasts as long as the work, also where nobody waits for that any more.
        let work = move || {
            let _turn = turn;
            finisher.prepare(&path, standing, &room)
        };
        let mut making = pin!(self.renderers.run(work));
        if is_alone {
            if let Ok(made) = timeout(ALONE_MAX, &mut making).await {
                return Ok((made??, ahead));
            }
            self.trials.end_alone(spool);
            Turn::end_alone(key);
        }
        Ok((making.await??, ahead))
    }

    /// Renders a spool file. Nothing, where it was set aside because not even a manifest can be made.
    fn prepare(
        &self,
        spool: &Path,
        standing: Standing,
        room: &Room,
    ) -> Result<Option<Prepared>, FinishError> {
        let since = Instant::now();
        let directory = spool.parent().unwrap_or(Path::new("."));
        match File::open(spool) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(self.prepare_gone(spool, since));
            }
            Err(error) => return Err(error.into()),
        }
        if standing == Standing::Convicted {
            return self.prepare_convicted(spool, since);
        }
        let mut trial = self.trials.begin(spool, standing);
        sync_dir(directory)?;
        let begun = Instant::now();
        let made = self.render_kept(spool, room);
        let is_without_room = match &made {
            Ok(Ok(_)) => false,
            Ok(Err(error)) => tells_full(error),
            Err(error) => tells_full(error),
        };
        if is_without_room {
            trial.adjourn();
        }
        let rendered = match made? {
            Ok(rendered) => rendered,
            // Not failed yet: it is made elsewhere.
            Err(error) if is_without_room && matches!(room, Room::Beside) => return Err(error.into()),
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
            connection = manifest.connection_id,
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
        warn_of(manifest);
        let end = rendered.keep.map_or(End::Remove, End::Keep);
        Ok(Some(Prepared { rendered, end, since, is_published: false, turn: None }))
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
            Ok(Ok(rendered)) => Ok(Some(Prepared {
                rendered,
                end: End::Fail(reason),
                since,
                is_published: false,
                turn: None,
            })),
            Ok(Err(error @ ReadError::Io(_))) => Err(error.into()),
            Ok(Err(ReadError::Header(error))) => {
                // Somebody has put another file in its place: of what it was, only the name tells. What another version of
                // the program wrote is not lost.
                let is_readable = matches!(error, HeaderError::Version(_));
                let header = header_from_name(spool, Mono(0)).filter(|_| !is_readable);
                let Some(header) = header else { return self.give_up_untold(spool, &reason) };
                Ok(Some(Prepared {
                    rendered: describe_gone(header, &reason),
                    end: End::Fail(reason),
                    since,
                    is_published: false,
                    turn: None,
                }))
            }
            Err(_) => self.give_up_untold(spool, &reason),
        }
    }

    /// Makes the manifest of a call whose recording cannot be made without harm. Its header alone is read: what ends the
    /// process may be anything behind that.
    fn prepare_convicted(&self, spool: &Path, since: Instant) -> Result<Option<Prepared>, FinishError> {
        Metrics::add(&self.metrics.failed_renders);
        let header = header_of(spool).ok().or_else(|| header_from_name(spool, Mono(0)));
        let Some(header) = header else {
            self.convict(spool, None)?;
            return Ok(None);
        };
        Ok(Some(Prepared {
            rendered: describe_gone(header, DEADLY),
            end: End::Convict,
            since,
            is_published: false,
            turn: None,
        }))
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
        Some(Prepared {
            rendered: describe_gone(header, GONE),
            end: End::Gone,
            since,
            is_published: false,
            turn: None,
        })
    }
}

#[cfg(test)]
impl Prepared {
    /// One that the store has.
    pub(super) fn published(header: crate::spool::Header) -> Self {
        let rendered = describe_gone(header, GONE);
        Self { rendered, end: End::Remove, since: Instant::now(), is_published: true, turn: None }
    }
}

pub(super) fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
