//! Putting what was made of a spool file into a store, under a name that is free for all of it: durability steps 5 and 6.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::info;

use super::finish::{FinishError, Finisher, Prepared, elapsed_ms};
use super::render::{Rendered, RenderedFile};
use super::store::{AUDIO, Body, MANIFEST, Object, Put, Store, StoreError};
use crate::manifest::{self, Manifest};
use crate::metrics::Upload;
use crate::publish::key::{self, Names};
use crate::publish::label::{cut_label, label};

/// Names tried for one recording. Ten thousand calls of one name are a mistake in the template.
const NUMBERS_MAX: u32 = 10_000;
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
            Some(file) => info!(?connection, %path, bytes = file.bytes, elapsed_ms, "recording published"),
            None => info!(?connection, %path, elapsed_ms, "manifest published"),
        }
    }
}

impl Finisher {
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
