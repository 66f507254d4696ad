//! The outbox: which sealed spool files are tried when, until the store has them all.
//!
//! The spool directory is the outbox. What is here is a window on it of at most [`ITEMS_MAX`] small files and as many large
//! ones, so that memory, descriptors and disk space for renderings stay flat however long a store is down; what does not
//! fit in is found again by listing the directory as soon as there is room. No file is waited for by another: each has its
//! own next attempt, and what is due takes its turn with the finisher.
//!
//! After a failure that may pass, the wait doubles from one second to a minute, or is what the store asks for. What only a
//! person can mend (missing rights, a missing bucket) is reported once for each file and tried every quarter of an hour.
//! When one file gets through, others that wait for the storage follow at once, two for each, instead of in their time: those,
//! too, that waited for a person, who has come then.
//!
//! What is published, and of which only the spool file is left that the disk does not remove, stays here and outside the
//! window: else it would be published, told and counted again. There is no more of it than the directory holds.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::finish::{FinishError, Finisher, Prepared};
use super::log::chain;
use super::recover::seal_cut;
use super::retire::clear_up;
use super::sealed::{is_sealed, oldest_sealed};
use super::spool_dir::connection_of;
use crate::publish::turns::Size;

/// Spool files of one size known at once. A waiting one holds its manifest, some 10 KB and at worst some 250 KB.
pub const ITEMS_MAX: usize = 256;
/// The first wait before another attempt.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The wait for a person.
const RETRY_SELDOM: Duration = Duration::from_secs(15 * 60);
/// No store is left alone for longer, whatever it asks for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// How soon the directory is listed again where that failed.
const LIST_AGAIN: Duration = Duration::from_secs(10);
/// One that has failed may follow another when it has waited for so long: else those that fail for reasons of their own
/// would be tried as often as others succeed.
const FOLLOW_AFTER: Duration = Duration::from_secs(5);
/// The same for one that waits for a person.
const FOLLOW_SELDOM: Duration = Duration::from_secs(30);
/// Finished files that are remembered: what may be listed while they are finished.
const FINISHED_MAX: usize = 4 * ITEMS_MAX;
/// Files that follow one that got through.
const FOLLOWERS: usize = 2;

/// A spool file and how far it has come.
struct Item {
    spool: PathBuf,
    size: Size,
    /// How long it was when it was seen to be sealed; 0 if it was not.
    sealed_bytes: u64,
    /// Attempts that have failed.
    failures: u32,
    wait: Duration,
    prepared: Option<Arc<Prepared>>,
    /// When it may follow another that gets through, if it is the storage that does not take it.
    follows_from: Option<Instant>,
    /// Whether it was said that a person is needed.
    is_reported: bool,
}

/// One attempt's item and how it went.
type Done = (Item, Result<(), FinishError>);
/// A listed directory, which files and how many were asked for, and those that were found.
type Listed = (PathBuf, Size, usize, io::Result<Vec<PathBuf>>);

/// Of one size.
#[derive(Default)]
struct Window {
    known: usize,
    /// The directory, where it holds files that are not known here, and when to list it.
    beyond: Option<(PathBuf, Instant)>,
}

struct Outbox {
    finisher: Arc<Finisher>,
    /// Everything below, by path. Without a size it is outside its window.
    known: HashMap<PathBuf, Option<Size>>,
    windows: [Window; 2],
    /// By the time of the next attempt; the number tells those of one moment apart, first come first served.
    waiting: BTreeMap<(Instant, u64), Item>,
    active: JoinSet<Done>,
    active_paths: HashMap<Id, PathBuf>,
    /// Those that were finished lately: a file may be told of twice, by its writer and by a listing.
    finished: VecDeque<PathBuf>,
    numbers: u64,
    listing: JoinSet<Listed>,
}

impl Finisher {
    /// Finishes each spool file that comes out of `sealed`, until that is closed and all are done, or `stop`. It is
    /// never waited for: whoever seals goes on at once.
    pub async fn run(self: Arc<Self>, mut sealed: mpsc::Receiver<PathBuf>, stop: CancellationToken) {
        let mut outbox = Outbox::new(self);
        let mut is_closed = false;
        while !(is_closed && outbox.is_empty()) {
            outbox.start_due();
            let next = outbox.next_start();
            tokio::select! {
                spool = sealed.recv(), if !is_closed => match spool {
                    Some(spool) => outbox.admit(spool),
                    None => is_closed = true,
                },
                Some(done) = outbox.active.join_next_with_id() => outbox.finished(done),
                Some(listed) = outbox.listing.join_next() => outbox.listed(listed),
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

impl Item {
    /// Whose recording it is: by what was made of the file, else by the file.
    fn connection(&self) -> Option<String> {
        match &self.prepared {
            Some(ready) => Some(ready.connection_id().to_owned()),
            None => connection_of(&self.spool),
        }
    }

    /// Whether it only waits for the disk to remove its spool file.
    fn is_published(&self) -> bool {
        self.prepared.as_ref().is_some_and(|ready| ready.is_published())
    }

    /// Others may cut a spool file behind the end of its call: then it says so itself from now on, and is finished.
    async fn tell_of_cut(&self, finisher: &Finisher) {
        let (spool, bytes) = (self.spool.clone(), self.sealed_bytes);
        let told = finisher.hands.run(move || seal_cut(&spool, bytes)).await;
        if let Ok(Err(error)) = told {
            warn!(connection = connection_of(&self.spool), path = %self.spool.display(), %error, "spool file was cut after the end of its call, and that cannot be noted");
        }
    }
}

impl Outbox {
    fn new(finisher: Arc<Finisher>) -> Self {
        Self {
            finisher,
            known: HashMap::new(),
            windows: Default::default(),
            waiting: BTreeMap::new(),
            active: JoinSet::new(),
            active_paths: HashMap::new(),
            finished: VecDeque::new(),
            numbers: 0,
            listing: JoinSet::new(),
        }
    }

    fn is_empty(&self) -> bool {
        let is_all = self.windows.iter().all(|window| window.beyond.is_none());
        self.known.is_empty() && is_all && self.listing.is_empty()
    }

    /// Takes a file in. Where there is no room, the one whose turn is furthest away makes room, and is found again.
    fn admit(&mut self, spool: PathBuf) {
        if self.known.contains_key(&spool) || (self.finished.contains(&spool) && !spool.exists()) {
            return;
        }
        let size = size_of(&spool);
        if self.windows[size.index()].known >= ITEMS_MAX {
            let is_in_window = |item: &Item| item.size == size && !item.is_published();
            let last = self.waiting.iter().rev().find(|(_, item)| is_in_window(item));
            match last.map(|(at, item)| (*at, item.failures)) {
                Some((at, 1..)) => {
                    if let Some(last) = self.waiting.remove(&at) {
                        self.forget(&last);
                    }
                }
                // One that has no seal, as a file that could not be read at the start, would not be found again.
                _ if is_sealed(&spool).is_ok_and(|is_sealed| is_sealed) => {
                    return self.look_later(&spool, size, Duration::ZERO);
                }
                _ => {}
            }
        }
        self.known.insert(spool.clone(), Some(size));
        self.windows[size.index()].known += 1;
        let is_over = is_sealed(&spool).is_ok_and(|is_sealed| is_sealed);
        let sealed_bytes = spool.metadata().ok().filter(|_| is_over).map_or(0, |found| found.len());
        let item = Item {
            spool,
            size,
            sealed_bytes,
            failures: 0,
            wait: RETRY_FIRST,
            prepared: None,
            follows_from: None,
            is_reported: false,
        };
        self.enqueue(item, Instant::now());
    }

    fn enqueue(&mut self, item: Item, at: Instant) {
        self.numbers += 1;
        self.waiting.insert((at, self.numbers), item);
    }

    /// Lets go of a file, which stays in the directory, and of what was rendered of it.
    fn forget(&mut self, Item { spool, size, .. }: &Item) {
        self.drop_known(spool);
        if let Err(error) = clear_up(spool) {
            debug!(path = %spool.display(), %error, "what was rendered stays until the next attempt");
        }
        self.look_later(spool, *size, Duration::ZERO);
    }

    fn drop_known(&mut self, spool: &Path) {
        self.leave_window(spool);
        self.known.remove(spool);
    }

    /// Has a file take up no room any more.
    fn leave_window(&mut self, spool: &Path) {
        if let Some(size) = self.known.get_mut(spool).and_then(Option::take) {
            self.windows[size.index()].known -= 1;
        }
    }

    fn look_later(&mut self, spool: &Path, size: Size, wait: Duration) {
        let directory = spool.parent().unwrap_or(Path::new(".")).to_owned();
        self.windows[size.index()].beyond = Some((directory, Instant::now() + wait));
    }

    /// Starts what is due, and a listing where there is room for what it finds.
    fn start_due(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.waiting.first_entry() {
            if first.key().0 > now {
                break;
            }
            let mut item = first.remove();
            let (finisher, path) = (Arc::clone(&self.finisher), item.spool.clone());
            let task = self.active.spawn(async move {
                if item.prepared.is_none() && item.sealed_bytes > 0 {
                    item.tell_of_cut(&finisher).await;
                }
                let result = finisher.finish(&item.spool, &mut item.prepared).await;
                (item, result)
            });
            self.active_paths.insert(task.id(), path);
        }
        let Some((size, at)) = self.next_listing() else { return };
        let window = &mut self.windows[size.index()];
        let Some((directory, _)) = window.beyond.take_if(|_| at <= now) else { return };
        let (known, room, finisher) =
            (self.known.clone(), ITEMS_MAX - window.known, Arc::clone(&self.finisher));
        self.listing.spawn(async move {
            let listed = directory.clone();
            let is_wanted = move |path: &Path| !known.contains_key(path) && size_of(path) == size;
            let found = finisher.hands.run(move || oldest_sealed(&listed, room, is_wanted)).await;
            (directory, size, room, found.unwrap_or_else(|error| Err(io::Error::other(error))))
        });
    }

    /// Files of which size are to be listed next, and when, where there is room for what is found.
    fn next_listing(&self) -> Option<(Size, Instant)> {
        let due = |size: Size| {
            let window = &self.windows[size.index()];
            let (_, at) = window.beyond.as_ref().filter(|_| window.known <= ITEMS_MAX / 2)?;
            Some((size, *at))
        };
        let due = [Size::Small, Size::Large].into_iter().filter_map(due).min_by_key(|(_, at)| *at);
        due.filter(|_| self.listing.is_empty())
    }

    /// When there is something to start, unless something else happens before.
    fn next_start(&self) -> Option<Instant> {
        let due = self.waiting.first_key_value().map(|((at, _), _)| *at);
        let listing = self.next_listing().map(|(_, at)| at);
        [due, listing].into_iter().flatten().min()
    }

    fn listed(&mut self, listed: Result<Listed, JoinError>) {
        let Ok((directory, size, room, found)) = listed else { return };
        match found {
            Ok(found) => {
                if found.len() == room {
                    self.windows[size.index()].beyond = Some((directory, Instant::now()));
                }
                found.into_iter().for_each(|spool| self.admit(spool));
            }
            Err(error) => {
                warn!(path = %directory.display(), %error, "the spool cannot be listed, look at its disk");
                self.windows[size.index()].beyond = Some((directory, Instant::now() + LIST_AGAIN));
            }
        }
    }

    fn finished(&mut self, done: Result<(Id, Done), JoinError>) {
        let (item, error) = match done {
            Ok((id, (item, result))) => {
                self.active_paths.remove(&id);
                match result {
                    Ok(()) => return self.succeeded(&item),
                    Err(error) => (item, error),
                }
            }
            Err(panic) => {
                let Some(spool) = self.active_paths.remove(&panic.id()) else { return };
                self.drop_known(&spool);
                error!(connection = connection_of(&spool), path = %spool.display(), error = %panic, "finishing panicked, the spool is kept: please report it");
                return;
            }
        };
        self.failed(item, &error);
    }

    fn succeeded(&mut self, item: &Item) {
        self.drop_known(&item.spool);
        self.finished.push_back(item.spool.clone());
        if self.finished.len() > FINISHED_MAX {
            self.finished.pop_front();
        }
        if item.failures > 0 {
            let connection = item.prepared.as_ref().map(|ready| ready.connection_id());
            info!(connection, path = %item.spool.display(), attempt = item.failures + 1, "publishing succeeded at last");
        }
        let now = Instant::now();
        let may_follow = |((at, _), waiting): &(&(Instant, u64), &Item)| {
            *at > now && waiting.follows_from.is_some_and(|from| now > from)
        };
        let followers: Vec<_> =
            self.waiting.iter().filter(may_follow).map(|(at, _)| *at).take(FOLLOWERS).collect();
        for at in followers {
            if let Some(item) = self.waiting.remove(&at) {
                self.enqueue(item, now);
            }
        }
    }

    fn failed(&mut self, mut item: Item, error: &FinishError) {
        self.finisher.metrics().publish_retries.add(error.cause());
        item.failures = item.failures.saturating_add(1);
        if item.is_published() {
            self.leave_window(&item.spool);
        }
        let now = Instant::now();
        let is_told = match error.is_passing() {
            // The more often, the seldomer it is said.
            true => item.failures.is_power_of_two(),
            false => !item.is_reported,
        };
        let connection = if is_told { item.connection() } else { None };
        let (attempt, path, cause) = (item.failures, item.spool.display(), chain(error));
        let advice = error.advice();
        let wait = if error.is_passing() {
            let asked = error.retry_after().unwrap_or_default().min(RETRY_AFTER_MAX);
            let wait = jitter(item.wait, attempt, &item.spool).max(asked);
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            if is_told {
                warn!(connection, %path, attempt, wait_ms, error = cause, advice, "publishing failed, trying again");
            } else {
                debug!(%path, attempt, wait_ms, error = cause, "publishing failed, trying again");
            }
            wait
        } else {
            if !is_told {
                debug!(%path, attempt, error = cause, "publishing failed, as before");
            } else {
                error!(connection, %path, attempt, error = cause, advice, "publishing failed, and will until that is mended; tried seldom, the recording stays in the spool");
            }
            jitter(RETRY_SELDOM, attempt, &item.spool)
        };
        item.is_reported = !error.is_passing();
        let is_of_storage = error.is_passing() || matches!(error, FinishError::Store(_));
        let follow_after = if error.is_passing() { FOLLOW_AFTER } else { FOLLOW_SELDOM };
        item.follows_from = is_of_storage.then_some(now + follow_after);
        item.wait = (item.wait * 2).min(RETRY_MAX);
        self.enqueue(item, now + wait);
    }
}

/// The size of a spool file that is sealed, and so has its length.
fn size_of(spool: &Path) -> Size {
    Size::of(spool.metadata().map_or(0, |found| found.len()))
}

/// Spreads attempts that failed together over the second half of their wait.
fn jitter(wait: Duration, attempt: u32, spool: &Path) -> Duration {
    let seed = format!("{attempt}{}", spool.display());
    let half = wait / 2;
    half + half.mul_f64(f64::from(crc32c::crc32c(seed.as_bytes())) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RecordingFormat;
    use crate::id::ConnectionId;
    use crate::io::render::Options;
    use crate::io::store::local::LocalStore;
    use crate::spool::Header;
    use crate::time::{Mono, Wall};

    #[test]
    fn what_only_waits_to_be_removed_takes_no_room_and_is_not_let_go_of() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            tail: Duration::ZERO,
            ai_offset_ms: 0,
            keep_channels: false,
            longest: Duration::from_secs(60),
            format: RecordingFormat::Lossless,
            gains_db: [0.0; 2],
            masks_digits: false,
        };
        let store = LocalStore::new(dir.path());
        let finisher = Finisher::new(store, "{id}.opus".to_owned(), options, Arc::default());
        let mut outbox = Outbox::new(Arc::new(finisher));
        let spool = |number: usize| dir.path().join(format!("{number}.spool"));
        (0..ITEMS_MAX).for_each(|number| outbox.admit(spool(number)));
        for (number, mut item) in std::mem::take(&mut outbox.waiting).into_values().enumerate() {
            let header = Header::derived(ConnectionId::new("c").unwrap(), Wall(1), Mono(0), 1);
            item.prepared = (number < 100).then(|| Arc::new(Prepared::published(header)));
            outbox.failed(item, &io::Error::other("the disk says no").into());
        }
        let small = |outbox: &Outbox| outbox.windows[Size::Small.index()].known;
        assert_eq!((small(&outbox), outbox.known.len()), (ITEMS_MAX - 100, ITEMS_MAX));
        // More than there is room for: some of those that were not published make room.
        (ITEMS_MAX..ITEMS_MAX + 200).for_each(|number| outbox.admit(spool(number)));
        assert_eq!((small(&outbox), outbox.known.len()), (ITEMS_MAX, ITEMS_MAX + 100));
        assert!((0..100).all(|number| outbox.known.contains_key(&spool(number))));
        assert!(outbox.windows[Size::Small.index()].beyond.is_some(), "the others are found again");
        (0..100).for_each(|number| outbox.drop_known(&spool(number)));
        assert_eq!((small(&outbox), outbox.known.len()), (ITEMS_MAX, ITEMS_MAX));
    }
}
