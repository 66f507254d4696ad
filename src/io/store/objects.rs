//! S3, what speaks its protocol, and Azure Blob, by way of `object_store`.
//!
//! What fits into one request of [`PART_BYTES`] is put by one, which creates or fails. More is sent in parts:
//!
//! - S3: the request that completes the upload creates or fails (see [`super::exchange`]).
//! - Azure: the upload goes to a temporary name, from which the store itself copies, which creates or fails.
//!
//! A part that fails is sent again, not the whole; another process begins anew. The store's own MD5 is compared where it
//! tells one (S3 by its ETag, unless the bucket is encrypted with keys of KMS; Azure for small files), else the object
//! is read back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest as _, Md5};
use object_store::path::Path as ObjectPath;
use object_store::{
    Attribute, AttributeValue, Attributes, BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt as _,
    PutMode, PutMultipartOptions, PutOptions, RetryConfig,
};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tracing::debug;

use super::exchange::{Notes, noted, notes};
use super::{Body, Bucket, Object, Put, StoreError, Trouble, shown};
use crate::io::log::chain;

/// Sent by one request, and held in memory for it. S3 takes no smaller parts than 5 MiB, and no more than 10,000.
const PART_BYTES: u64 = 8 << 20;
/// Read back at once.
const READ_BYTES: u64 = 4 << 20;
/// A part takes so long at 70 kB/s.
const REQUEST_MAX: Duration = Duration::from_secs(120);
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(all(feature = "s3", feature = "azure")),
    allow(dead_code, reason = "a build may have one of the two")
)]
pub(super) enum Service {
    S3,
    Azure,
}

/// A bucket of S3, or a container of Azure.
#[derive(Clone, Debug)]
pub struct ObjectsStore {
    store: Arc<dyn ObjectStore>,
    service: Service,
    bucket: Bucket,
}

impl ObjectsStore {
    pub(super) fn new(store: Arc<dyn ObjectStore>, service: Service, bucket: Bucket) -> Self {
        Self { store, service, bucket }
    }

    /// Where an object is, for people.
    #[must_use]
    pub fn place(&self, key: &str) -> String {
        let scheme = if self.service == Service::S3 { "s3" } else { "az" };
        format!("{scheme}://{}/{}", self.bucket.name, self.bucket.key(key))
    }

    /// Puts an object.
    ///
    /// # Errors
    /// [`StoreError`] where it is not known to be there, whole.
    pub async fn put(&self, object: &Object) -> Result<Put, StoreError> {
        let place = self.place(&object.key);
        let path = self.path(&object.key)?;
        if object.bytes > PART_BYTES {
            // Saves the way of it all where the name is taken. A store may not tell, if nothing is there.
            if matches!(self.is_free(&object.key).await, Ok(false)) {
                return self.whose(&path, object).await;
            }
        }
        let (sent, notes) = noted(self.send(&path, object)).await;
        match sent {
            Ok(Sent { is_verified: true }) => Ok(Put::Created),
            Ok(Sent { is_verified: false }) => match self.whose(&path, object).await? {
                Put::Taken => {
                    let cause = "what was put reads back differently";
                    Err(StoreError::new("putting", place, Trouble::Passing, cause))
                }
                _ => Ok(Put::Created),
            },
            Err(Failure::Store(error)) => {
                let is_taken = matches!(
                    &error,
                    object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }
                ) || notes.status == Some(412);
                if is_taken {
                    self.whose(&path, object).await
                } else {
                    Err(failed("putting", &place, &error, &notes))
                }
            }
            Err(Failure::Disk(error)) => {
                Err(StoreError::new("reading what is put as", place, Trouble::Passing, error))
            }
        }
    }

    /// Whether what has the name of an object is that object.
    ///
    /// # Errors
    /// [`StoreError`] where nothing has the name, or the store does not tell.
    pub async fn whose_name(&self, object: &Object) -> Result<Put, StoreError> {
        self.whose(&self.path(&object.key)?, object).await
    }

    /// Whether a name is free.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not tell.
    pub async fn is_free(&self, key: &str) -> Result<bool, StoreError> {
        let path = self.path(key)?;
        match noted(self.store.head(&path)).await {
            (Ok(_), _) => Ok(false),
            (Err(object_store::Error::NotFound { .. }), _) => Ok(true),
            (Err(error), notes) => Err(failed("looking for", &self.place(key), &error, &notes)),
        }
    }

    /// Reads a small object.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be had.
    pub async fn read(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.path(key)?;
        let (read, notes) = noted(async { self.store.get(&path).await?.bytes().await }).await;
        read.map(|bytes| bytes.to_vec()).map_err(|error| failed("reading", &self.place(key), &error, &notes))
    }

    /// Removes an object.
    ///
    /// # Errors
    /// [`StoreError`] where it may still be there.
    pub async fn remove(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let (removed, notes) = noted(self.store.delete(&path)).await;
        removed.map_err(|error| failed("removing", &self.place(key), &error, &notes))
    }

    /// Not `Path::from`, which would encode `~` and others, and so name another object.
    fn path(&self, key: &str) -> Result<ObjectPath, StoreError> {
        ObjectPath::parse(self.bucket.key(key))
            .map_err(|error| StoreError::new("naming", self.place(key), Trouble::Refused, error))
    }

    async fn send(&self, path: &ObjectPath, object: &Object) -> Result<Sent, Failure> {
        let mut file = match &object.body {
            Body::Text(text) => return self.send_whole(path, text.clone(), object).await,
            Body::File(file) => File::open(file).await.map_err(Failure::Disk)?,
        };
        if object.bytes <= PART_BYTES {
            let whole = next_part(&mut file).await?;
            return self.send_whole(path, whole, object).await;
        }
        match self.service {
            Service::S3 => self.send_parts(path, &mut file, object).await,
            Service::Azure => {
                let beside = self
                    .path(&beside(object))
                    .map_err(|error| Failure::Disk(std::io::Error::other(error)))?;
                self.send_parts(&beside, &mut file, object).await?;
                let copied = self.store.copy_if_not_exists(&beside, path).await;
                if let (Err(error), _) = noted(self.store.delete(&beside)).await {
                    debug!(path = %beside, %error, "the temporary object stays until the next attempt");
                }
                copied?;
                Ok(Sent { is_verified: false })
            }
        }
    }

    async fn send_whole(&self, path: &ObjectPath, whole: Bytes, object: &Object) -> Result<Sent, Failure> {
        let sum: [u8; 16] = Md5::digest(&whole).into();
        let options =
            PutOptions { mode: PutMode::Create, attributes: attributes(object), ..PutOptions::default() };
        let put = self.store.put_opts(path, whole.into(), options).await?;
        let is_verified = match self.service {
            Service::S3 => put.e_tag.is_some_and(|tag| tag.trim_matches('"') == hex(&sum)),
            Service::Azure => notes().content_md5.is_some_and(|told| told == base64(&sum)),
        };
        Ok(Sent { is_verified })
    }

    async fn send_parts(&self, path: &ObjectPath, file: &mut File, object: &Object) -> Result<Sent, Failure> {
        let options =
            PutMultipartOptions { attributes: attributes(object), ..PutMultipartOptions::default() };
        let mut upload = self.store.put_multipart_opts(path, options).await?;
        let (mut sums, mut parts) = (Md5::new(), 0);
        let sent = loop {
            let part = match next_part(file).await {
                Ok(part) if part.is_empty() => break upload.complete().await.map_err(Failure::Store),
                Ok(part) => part,
                Err(error) => break Err(error),
            };
            sums.update(Md5::digest(&part));
            parts += 1;
            if let Err(error) = upload.put_part(part.into()).await {
                break Err(error.into());
            }
        };
        match sent {
            Ok(put) => {
                let sum: [u8; 16] = sums.finalize().into();
                let expected = format!("{}-{parts}", hex(&sum));
                Ok(Sent { is_verified: put.e_tag.is_some_and(|tag| tag.trim_matches('"') == expected) })
            }
            Err(error) => {
                // Parts that nobody completes cost money until they are removed.
                if let Err(error) = noted(upload.abort()).await.0 {
                    debug!(%path, %error, "parts stay in the store until its own rules remove them");
                }
                Err(error)
            }
        }
    }

    /// Whether what has the name is ours, to the byte.
    async fn whose(&self, path: &ObjectPath, object: &Object) -> Result<Put, StoreError> {
        let place = self.place(&object.key);
        let reading = async {
            let found = self.store.head(path).await?;
            if found.size != object.bytes {
                return Ok(Put::Taken);
            }
            let (mut at, mut sum) = (0, 0);
            while at < found.size {
                let end = found.size.min(at + READ_BYTES);
                let piece = self.store.get_range(path, at..end).await?;
                sum = crc32c::crc32c_append(sum, &piece);
                at = end;
            }
            Ok(if sum == object.crc32c { Put::AlreadyThere } else { Put::Taken })
        };
        let (put, notes) = noted(reading).await;
        put.map_err(|error: object_store::Error| failed("reading back", &place, &error, &notes))
    }
}

struct Sent {
    is_verified: bool,
}

enum Failure {
    Store(object_store::Error),
    Disk(std::io::Error),
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error)
    }
}

/// How long and how often `object_store` tries itself: over a hiccup, no longer. The rest is up to the outbox.
pub(super) fn retries() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(200),
        max_backoff: Duration::from_secs(5),
        ..BackoffConfig::default()
    };
    RetryConfig { backoff, max_retries: 3, retry_timeout: Duration::from_secs(60) }
}

/// For emulators an endpoint may be plain HTTP; nothing else is.
pub(super) fn client(endpoint: Option<&str>) -> ClientOptions {
    let is_plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    ClientOptions::new().with_timeout(REQUEST_MAX).with_connect_timeout(CONNECT_MAX).with_allow_http(is_plain)
}

fn attributes(object: &Object) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, object.content_type.into());
    for (name, value) in &object.labels {
        attributes.insert(Attribute::Metadata((*name).into()), AttributeValue::from(value.clone()));
    }
    attributes
}

/// The temporary name of an object that is sent in parts.
fn beside(object: &Object) -> String {
    let directory =
        object.key.rsplit_once('/').map_or(String::new(), |(directory, _)| format!("{directory}/"));
    format!("{directory}.{}.part", object.temporary)
}

async fn next_part(file: &mut File) -> Result<Bytes, Failure> {
    let mut part = Vec::new();
    file.take(PART_BYTES).read_to_end(&mut part).await.map_err(Failure::Disk)?;
    Ok(part.into())
}

/// Says what an error of `object_store` means.
pub(super) fn failed(
    doing: &'static str,
    place: &str,
    error: &object_store::Error,
    notes: &Notes,
) -> StoreError {
    let text = chain(error);
    let trouble = trouble(&text, notes);
    StoreError::new(doing, place, trouble, shown(&text)).with_retry_after(notes.retry_after)
}

fn trouble(text: &str, notes: &Notes) -> Trouble {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["RequestTimeTooSkewed"]) || (notes.is_clock_wrong && matches!(notes.status, Some(401 | 403))) {
        return Trouble::Clock;
    }
    if says(&[
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "AuthenticationFailed",
        "failed to authenticate",
    ]) {
        return Trouble::Credentials;
    }
    // Another process may have removed it: then it is put again.
    if says(&["NoSuchKey", "BlobNotFound", "NoSuchUpload"]) {
        return Trouble::Passing;
    }
    match notes.status {
        Some(status) => Trouble::of_status(status),
        // Without credentials the network of Amazon's and Azure's own machines is asked for some.
        None if says(&["169.254.169.254", "redential", "access token"]) => Trouble::Credentials,
        None => Trouble::Passing,
    }
}

fn hex(sum: &[u8; 16]) -> String {
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The 24 characters of Base64 that MD5 is told in.
fn base64(sum: &[u8; 16]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| char::from(DIGITS[(bits & 63) as usize]);
    let mut text = String::with_capacity(24);
    for three in sum.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digits = [18, 12, 6, 0].map(|shift| digit(bits >> shift));
        text.extend(digits.into_iter().take(three.len() + 1));
    }
    text + "=="
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_is_told_as_stores_tell_it() {
        let sum: [u8; 16] = Md5::digest(b"").into();
        assert_eq!(
            (hex(&sum).as_str(), base64(&sum).as_str()),
            ("d41d8cd98f00b204e9800998ecf8427e", "1B2M2Y8AsgTpgAmY7PhCfg==")
        );
    }

    #[test]
    fn what_a_person_has_to_mend_is_told_apart() {
        let of = |status, text| trouble(text, &Notes { status, ..Notes::default() });
        assert_eq!(of(Some(403), "AccessDenied"), Trouble::Permission);
        assert_eq!(of(Some(403), "<Code>InvalidAccessKeyId</Code>"), Trouble::Credentials);
        assert_eq!(of(Some(404), "NoSuchBucket"), Trouble::Bucket);
        assert_eq!(of(Some(400), "MetadataTooLarge"), Trouble::Refused);
        assert_eq!(of(Some(503), "SlowDown"), Trouble::Passing);
        assert_eq!(of(None, "connection refused"), Trouble::Passing);
        let late = Notes { status: Some(403), is_clock_wrong: true, ..Notes::default() };
        assert_eq!(trouble("AuthenticationFailed", &late), Trouble::Clock);
    }
}
