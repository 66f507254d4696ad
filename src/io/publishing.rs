//! Putting what was made of a spool file into a store, under a name that is free for all of it: durability steps 5 and 6.
//!
//! Nearly each recording has its name for itself. One that has not gets a number, `-2`, `-3` …: which, is guessed by
//! [`crate::publish::numbers`], so that ten thousand calls of one name cost each a few requests more, not thousands. Before
//! anything is put under a number, that is noted beside the spool file, as `….spool.name`: after a crash it is found there.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::{debug, info};

use super::backup::Choice;
use super::finish::{FinishError, Finisher, Prepared, elapsed_ms};
use super::render::{Rendered, RenderedFile};
use super::spool_dir::{number_note, sync_dir};
use super::spool_file::remove_if_there;
use super::spool_writer::lock;
use super::store::{AUDIO, Body, MANIFEST, Object, Put, Store, StoreError};
use crate::manifest::{self, Manifest};
use crate::metrics::Upload;
use crate::publish::key::{self, Names};
use crate::publish::label::{cut_label, label};
use crate::publish::numbers::{NUMBER_MAX, Search};

/// What a label tells of a consent, which the manifest has whole: S3 takes 2 KB for all labels of an object.
const CONSENT_MAX_BYTES: usize = 200;

/// What is in the store now.
pub(super) struct Published {
    /// Where it is, for people.
    pub(super) place: String,
    /// What it is called in the store: audio and manifest.
    pub(super) keys: Vec<String>,
}

impl Published {
    pub(super) fn log(&self, rendered: &Rendered, since: Instant) {
        let (connection, path, elapsed_ms) =
            (&rendered.manifest.connection_id, &self.place, elapsed_ms(since));
        match rendered.files.first() {
            Some(file) => info!(connection, %path, bytes = file.bytes, elapsed_ms, "recording published"),
            None => info!(connection, %path, elapsed_ms, "manifest published"),
        }
    }
}

impl Finisher {
    /// Puts a rendering into the store under the first name that is free for all of it.
    pub(super) async fn publish(
        &self,
        store: &Store,
        choice: Choice,
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
        let objects = |number| {
            let (audio_key, manifest_key) = key::numbered(&key, number);
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
            audio.chain([last]).collect::<Vec<_>>()
        };
        let (numbers, note) = (&self.numbers[choice.index()], number_note(spool, choice));
        // Where an earlier attempt has put it, that is where it is. Else nearly each recording has its name for itself.
        let noted = self.numbered(&note).await;
        for number in noted.into_iter().chain([1]) {
            let audio_and_manifest = objects(number);
            let is_shared = number == 1 && lock(numbers).knows(&key);
            // Saves the way of it all where the name has long been taken. What does not tell is asked by the put.
            if is_shared && matches!(store.whose(&audio_and_manifest[0]).await, Ok(Put::Taken)) {
                continue;
            }
            if let Some(published) = self.put_all(store, audio_and_manifest).await? {
                return Ok(published);
            }
        }
        let (mut taken, mut misses) = (1, 0_u32);
        loop {
            let known = if misses == 0 { lock(numbers).take(&key) } else { None };
            let number = match known {
                Some(number) => number,
                None => {
                    let free = search(&key, store, taken, misses.saturating_sub(1)).await?;
                    let free = free.ok_or_else(|| FinishError::NoName(key.clone()))?;
                    lock(numbers).enter(&key, free)
                }
            };
            if number > NUMBER_MAX {
                return Err(FinishError::NoName(key));
            }
            self.note_number(&note, number).await;
            if let Some(published) = self.put_all(store, objects(number)).await? {
                return Ok(published);
            }
            // Somebody else puts recordings under this name, too.
            (taken, misses) = (number, misses + 1);
        }
    }

    /// Puts objects one after the other, the manifest last. None if a name was taken; then none of those that were made here
    /// is left.
    async fn put_all(&self, store: &Store, objects: Vec<Object>) -> Result<Option<Published>, FinishError> {
        let place = objects.first().map_or_else(String::new, |object| store.place(&object.key));
        // A call without audio does not take the name of one that is still without its manifest. A store that does not
        // tell is asked by the put of the manifest.
        if let [manifest] = objects.as_slice()
            && matches!(store.is_free(&key::audio_of(&manifest.key)).await, Ok(false))
        {
            return Ok(None);
        }
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
        Ok(Some(Published { place, keys }))
    }

    /// The number that an earlier attempt has noted, before it put anything.
    async fn numbered(&self, note: &Path) -> Option<u32> {
        let note = note.to_owned();
        // A file that would make whoever reads it wait is none of ours.
        let is_file = |note: &Path| fs::symlink_metadata(note).is_ok_and(|found| found.is_file());
        let read =
            move || if is_file(&note) { fs::read_to_string(note) } else { Err(ErrorKind::NotFound.into()) };
        let read = self.hands.run(read).await;
        let number = read.ok()?.ok()?.trim().parse().ok()?;
        (2..=NUMBER_MAX).contains(&number).then_some(number)
    }

    /// Notes a number, so that after a crash the recording is found where it is. A disk that does not take the note is no
    /// reason not to publish.
    async fn note_number(&self, note: &Path, number: u32) {
        let path = note.to_owned();
        let write = move || {
            let mut file =
                OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(format!("{number}\n").as_bytes())?;
            file.sync_all()?;
            sync_dir(path.parent().unwrap_or(Path::new(".")))
        };
        if let Ok(Err(error)) = self.hands.run(write).await {
            debug!(path = %note.display(), %error, "the number of a recording cannot be noted");
        }
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

/// Removes the notes of numbers when nothing of a recording is to be found any more.
pub(super) fn forget_numbers(spool: &Path) {
    for choice in [Choice::First, Choice::Backup] {
        let note = number_note(spool, choice);
        if let Err(error) = remove_if_there(&note) {
            debug!(path = %note.display(), %error, "a note stays until the next start");
        }
    }
}

/// Searches for a number behind one that is taken. A store that does not tell what is free is asked by the put.
async fn search(key: &str, store: &Store, taken: u32, misses: u32) -> Result<Option<u32>, StoreError> {
    let mut search = Search::beyond(taken, misses);
    while let Some(number) = search.ask() {
        let (_, manifest_key) = key::numbered(key, number);
        match store.is_free(&manifest_key).await {
            Ok(is_free) => search.tell(is_free),
            Err(error) if error.trouble().is_passing() => return Err(error),
            Err(_) => return Ok(Some(number)),
        }
    }
    Ok(search.found())
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
