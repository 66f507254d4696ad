//! Where recordings go: a local directory, Google Cloud Storage, S3 and what speaks its protocol, or Azure Blob.
//!
//! What all of them do: an object appears whole or not at all, never in place of another, and counts as put only when
//! the store has confirmed its length and checksum. An object that is there already with the same length and checksum
//! is our own, left by an attempt that was cut short, and is not put again. Files are sent in pieces, so that memory does
//! not grow with them. None of them tries for ever: that is the outbox's task, which is told here whether trying again is
//! worth while, how soon, and what a person can do.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use crate::config::StorageKind;
use local::LocalStore;

#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
mod answer;
#[cfg(any(feature = "s3", feature = "azure"))]
mod cloud;
#[cfg(any(feature = "s3", feature = "azure"))]
mod exchange;
#[cfg(feature = "gcs")]
mod gcs;
pub mod local;
#[cfg(any(feature = "s3", feature = "azure"))]
mod objects;

/// The content type of recordings.
pub const AUDIO: &str = "audio/ogg; codecs=opus";
/// The content type of manifests.
pub const MANIFEST: &str = "application/json";

/// No answer takes longer, beside the time that the bytes take.
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
const ANSWER_MAX: Duration = Duration::from_secs(180);
/// A slower link counts as broken.
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
const SLOWEST_BYTES_PER_SECOND: u64 = 32 * 1024;

/// The longest text of an error that is shown: answers may be pages.
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
const ERROR_MAX_CHARS: usize = 400;

/// A store of one of the kinds.
#[derive(Clone, Debug)]
pub enum Store {
    /// A directory of this machine.
    Local(LocalStore),
    /// A bucket of S3, or a container of Azure.
    #[cfg(any(feature = "s3", feature = "azure"))]
    Objects(objects::ObjectsStore),
    /// A bucket of Google Cloud Storage.
    #[cfg(feature = "gcs")]
    Gcs(Box<gcs::GcsStore>),
}

/// A bucket or container, and what the names of all objects in it begin with.
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bucket {
    name: String,
    prefix: String,
}

/// What is to be put.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its name in the store.
    pub key: String,
    /// Where its bytes are.
    pub body: Body,
    /// How many they are.
    pub bytes: u64,
    /// Their CRC-32C.
    pub crc32c: u32,
    /// What they are, for those who fetch it.
    pub content_type: &'static str,
    /// What of the call is written beside it, where the store can: names, and values of plain ASCII.
    pub labels: Vec<(&'static str, String)>,
    /// A name without directories that nobody else uses and that is the same at every attempt.
    pub temporary: String,
}

/// The bytes of an object.
#[derive(Clone, Debug)]
pub enum Body {
    /// A file on disk, which is not changed while it is sent.
    File(PathBuf),
    /// A short text.
    Text(Bytes),
}

/// How an object got its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is there now.
    Created,
    /// It was there before, to the byte: an earlier attempt got so far.
    AlreadyThere,
    /// The name belongs to something else.
    Taken,
}

/// Why a store did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It may work the next time: the network, an overload, a full disk.
    Passing,
    /// The store does not take the credentials now: they may have expired, and be renewed.
    Expired,
    /// There are no credentials, or wrong ones.
    Credentials,
    /// They are not allowed to do this.
    Permission,
    /// There is no such bucket or container.
    Bucket,
    /// This machine's clock is not the store's.
    Clock,
    /// The store refuses the request as such.
    Refused,
}

impl Trouble {
    /// Whether it may mend without a person's help. If not, it is tried again, but seldom.
    #[must_use]
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Passing | Self::Expired)
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Passing => "nothing, unless it lasts: then look at the network, the store, and the disk",
            Self::Expired => {
                "credentials are not taken, nothing if they are renewed: else give the daemon others"
            }
            Self::Credentials => "credentials are missing or wrong: give the daemon others",
            Self::Permission => {
                "permission is missing: allow the credentials to create, read and delete objects"
            }
            Self::Bucket => "the bucket or container is missing: make it, or correct AUDIO_STORAGE_PATH",
            Self::Clock => "the clock of this machine is wrong: set it",
            Self::Refused => {
                "the store refuses the request: read the error, correct the settings or the bucket's policy"
            }
        }
    }

    /// What a status of HTTP means, where the answer says no more.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Expired,
            403 => Self::Permission,
            404 => Self::Bucket,
            // Timeout, conflict with another writer, an upload that is forgotten, a failed precondition, too many requests.
            408..=410 | 412 | 429 => Self::Passing,
            400..=499 => Self::Refused,
            _ => Self::Passing,
        }
    }
}

/// A store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {place}")]
pub struct StoreError {
    doing: &'static str,
    place: String,
    trouble: Trouble,
    retry_after: Option<Duration>,
    source: Box<dyn Error + Send + Sync>,
}

impl StoreError {
    /// Says what was tried on what, and why it failed.
    pub fn new(
        doing: &'static str,
        place: impl fmt::Display,
        trouble: Trouble,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { doing, place: place.to_string(), trouble, retry_after: None, source: source.into() }
    }

    /// The same, with the time that the store asks to be left alone.
    #[must_use]
    pub fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// Why the store did not do it.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        self.trouble
    }

    /// How long the store asks to be left alone, if it does.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
impl Bucket {
    /// Takes apart `bucket/prefix`, of which `config` has seen that it is sound.
    fn of(path: &str) -> Self {
        let (name, prefix) =
            path.trim_end_matches('/').split_once('/').unwrap_or((path.trim_end_matches('/'), ""));
        Self { name: name.to_owned(), prefix: prefix.to_owned() }
    }

    fn key(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) }
    }
}

impl Store {
    /// Opens a store. Nothing is sent yet.
    ///
    /// # Errors
    /// Where the settings of the store's own tools, such as credentials, cannot be used.
    pub async fn open(kind: StorageKind, path: &str) -> Result<Self, StoreError> {
        match kind {
            StorageKind::Local => Ok(LocalStore::new(Path::new(path)).into()),
            #[cfg(feature = "gcs")]
            StorageKind::Gcs => {
                let store = gcs::GcsStore::open(Bucket::of(path)).await?;
                Ok(Self::Gcs(Box::new(store)))
            }
            #[cfg(feature = "s3")]
            StorageKind::S3 => Ok(Self::Objects(cloud::s3(Bucket::of(path))?)),
            #[cfg(feature = "azure")]
            StorageKind::Azure => Ok(Self::Objects(cloud::azure(Bucket::of(path))?)),
            // `config` refuses what is not built.
            #[allow(unreachable_patterns, reason = "with all features there is nothing else")]
            other => {
                let cause = format!("this build has no {other:?}");
                Err(StoreError::new("opening", path, Trouble::Refused, cause))
            }
        }
    }

    /// Starts the thread without which nothing is put, where it takes one of its own.
    ///
    /// # Errors
    /// Where the system gives none.
    pub fn start_thread(&self) -> io::Result<()> {
        match self {
            Self::Local(store) => store.start_thread(),
            #[cfg(any(feature = "s3", feature = "azure"))]
            Self::Objects(_) => Ok(()),
            #[cfg(feature = "gcs")]
            Self::Gcs(_) => Ok(()),
        }
    }

    /// Where an object is, for people.
    #[must_use]
    pub fn place(&self, key: &str) -> String {
        match self {
            Self::Local(store) => store.path(key).display().to_string(),
            #[cfg(any(feature = "s3", feature = "azure"))]
            Self::Objects(store) => store.place(key),
            #[cfg(feature = "gcs")]
            Self::Gcs(store) => store.place(key),
        }
    }

    /// The directory that everything is in, of one on a local disk that can be had.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Local(store) => store.directory().ok(),
            #[allow(unreachable_patterns, reason = "a build may have no other")]
            _ => None,
        }
    }

    /// Puts an object, unless its name is taken.
    ///
    /// # Errors
    /// [`StoreError`] where it is not known to be there, whole.
    pub async fn put(&self, object: Object) -> Result<Put, StoreError> {
        match self {
            Self::Local(store) => {
                let key = object.key.clone();
                store.run(&key, move |store| store.put(&object)).await
            }
            #[cfg(any(feature = "s3", feature = "azure"))]
            Self::Objects(store) => within(&self.place(&object.key), object.bytes, store.put(&object)).await,
            #[cfg(feature = "gcs")]
            Self::Gcs(store) => within(&self.place(&object.key), object.bytes, store.put(&object)).await,
        }
    }

    /// Whether what has the name of an object is that object, which is not sent.
    ///
    /// # Errors
    /// [`StoreError`] where nothing has the name, or the store does not tell.
    pub async fn whose(&self, object: &Object) -> Result<Put, StoreError> {
        match self {
            Self::Local(store) => {
                let (key, object) = (object.key.clone(), object.clone());
                store.run(&key, move |store| store.whose(&object)).await
            }
            #[cfg(any(feature = "s3", feature = "azure"))]
            Self::Objects(store) => {
                within(&self.place(&object.key), object.bytes, store.whose_name(object)).await
            }
            #[cfg(feature = "gcs")]
            Self::Gcs(store) => within(&self.place(&object.key), object.bytes, store.whose(object)).await,
        }
    }

    /// Whether a name is free, as far as the store tells.
    ///
    /// # Errors
    /// [`StoreError`] where it does not tell.
    pub async fn is_free(&self, key: &str) -> Result<bool, StoreError> {
        match self {
            Self::Local(store) => store.is_free(key),
            #[cfg(any(feature = "s3", feature = "azure"))]
            Self::Objects(store) => within(&self.place(key), 0, store.is_free(key)).await,
            #[cfg(feature = "gcs")]
            Self::Gcs(store) => within(&self.place(key), 0, store.is_free(key)).await,
        }
    }

    /// Reads a small object back.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be had.
    pub async fn read(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Local(store) => store.read(key),
            #[cfg(any(feature = "s3", feature = "azure"))]
            Self::Objects(store) => within(&self.place(key), 0, store.read(key)).await,
            #[cfg(feature = "gcs")]
            Self::Gcs(store) => within(&self.place(key), 0, store.read(key)).await,
        }
    }

    /// Removes an object that was put a moment ago.
    ///
    /// # Errors
    /// [`StoreError`] where it may still be there.
    pub async fn remove(&self, key: &str) -> Result<(), StoreError> {
        match self {
            Self::Local(store) => store.remove(key),
            #[cfg(any(feature = "s3", feature = "azure"))]
            Self::Objects(store) => within(&self.place(key), 0, store.remove(key)).await,
            #[cfg(feature = "gcs")]
            Self::Gcs(store) => within(&self.place(key), 0, store.remove(key)).await,
        }
    }
}

impl From<LocalStore> for Store {
    fn from(store: LocalStore) -> Self {
        Self::Local(store)
    }
}

/// Waits for a store across the network, but not for ever: one that hangs must not keep what waits behind it.
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
async fn within<T>(
    place: &str,
    bytes: u64,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let limit = ANSWER_MAX + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND);
    let Ok(done) = tokio::time::timeout(limit, work).await else {
        let cause = format!("no end after {} s", limit.as_secs());
        return Err(StoreError::new("waiting for", place, Trouble::Passing, cause));
    };
    done
}

/// An error as it may be shown: in one line, not too long, and without a signature.
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
fn shown(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut from = 0;
    while let Some(at) = line[from..].find("sig=").map(|at| from + at + "sig=".len()) {
        let end = line[at..].find(['&', ' ', '"', ')', '<']).map_or(line.len(), |end| at + end);
        line.replace_range(at..end, "…");
        from = at;
    }
    match line.char_indices().nth(ERROR_MAX_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(all(test, any(feature = "s3", feature = "azure", feature = "gcs")))]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_without_its_signature() {
        let shown = shown("PUT https://a.b/c?sv=1&sig=se%2Bcret&se=2\n failed, sig=secret2 (sig=secret3)");
        assert_eq!(shown, "PUT https://a.b/c?sv=1&sig=…&se=2 failed, sig=… (sig=…)");
    }

    #[test]
    fn a_bucket_may_have_a_prefix() {
        for (path, name, key) in
            [("b", "b", "k"), ("b/", "b", "k"), ("b/c/d", "b", "c/d/k"), ("b/c/", "b", "c/k")]
        {
            let bucket = Bucket::of(path);
            assert_eq!((bucket.name.as_str(), bucket.key("k").as_str()), (name, key), "{path}");
        }
    }
}
