//! Google Cloud Storage, by way of Google's own crate.
//!
//! Files of [`RESUMABLE_BYTES`] and more go by a resumable upload: a connection that breaks goes on where it was. The
//! session does not outlive the process. Every upload says that no object may be there (`ifGenerationMatch=0`) and what
//! its CRC-32C is, which the service checks and tells.
//!
//! Google's crate deletes by gRPC only, which no emulator speaks and which needs a connection of its own: the one request
//! that removes an object is made here.

use std::env;
use std::error::Error as _;
use std::net::IpAddr;
use std::time::Duration;

use google_cloud_auth::credentials::{self, CacheableResource, Credentials};
use google_cloud_auth::errors::CredentialsError;
use google_cloud_gax::error::Error;
use google_cloud_gax::retry_policy::{RetryPolicy, RetryPolicyExt as _};
use google_cloud_gax::retry_result::RetryResult;
use google_cloud_gax::retry_state::RetryState;
use google_cloud_storage::client::Storage;
use google_cloud_storage::retry_policy::RetryableErrors;
use reqwest::header::HeaderMap;
use tokio::fs::File;

use super::{Body, Bucket, Object, Put, StoreError, Trouble, answer, shown};
use crate::io::clock::Clock;
use crate::io::log::chain;
use crate::publish::label::component;

/// Smaller files are sent again as a whole: that is quicker than to ask how far they came.
const RESUMABLE_BYTES: usize = 2 << 20;
/// Tries of Google's crate over a hiccup, each of which goes on where the last one was. The rest is up to the outbox.
const TRIES_MAX: u32 = 4;
const TRIES_TIME_MAX: Duration = Duration::from_secs(60);
/// Removing takes no longer.
const REMOVE_MAX: Duration = Duration::from_secs(30);
/// Tokens that this machine signs itself are refused when they seem to be from the future, or an hour old.
const SKEW_MAX_SECS: u64 = 5 * 60;
const ENDPOINT: &str = "https://storage.googleapis.com";
/// The variable by which Google's command line is told of another endpoint, such as one of Private Service Connect.
const OTHER_ENDPOINT: &str = "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE";

/// A bucket of Google Cloud Storage.
#[derive(Clone, Debug)]
pub struct GcsStore {
    storage: Storage,
    /// For what Google's crate cannot do.
    web: reqwest::Client,
    credentials: Credentials,
    endpoint: String,
    bucket: Bucket,
}

impl GcsStore {
    /// Opens a bucket with what the environment says: `STORAGE_EMULATOR_HOST`, else credentials as Google's libraries
    /// find them, for Google's endpoint or the one that [`OTHER_ENDPOINT`] names.
    pub(super) async fn open(bucket: Bucket) -> Result<Self, StoreError> {
        let place = format!("gs://{}", bucket.name);
        let given = |variable| env::var(variable).ok().filter(|text| !text.is_empty());
        let (endpoint, credentials) = match given("STORAGE_EMULATOR_HOST") {
            Some(host) if host.contains("://") => (host, Ok(credentials::anonymous::Builder::new().build())),
            Some(host) => (format!("http://{host}"), Ok(credentials::anonymous::Builder::new().build())),
            None => {
                let endpoint = given(OTHER_ENDPOINT).unwrap_or_else(|| ENDPOINT.to_owned());
                if !is_private(&endpoint) {
                    let cause = format!("{OTHER_ENDPOINT} must begin with https://: tokens are sent there");
                    return Err(StoreError::new("opening", &place, Trouble::Refused, cause));
                }
                (endpoint, credentials::Builder::default().build())
            }
        };
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let refused = |error: &dyn std::error::Error| {
            StoreError::new("opening", &place, Trouble::Credentials, shown(&chain(error)))
        };
        let credentials = credentials.map_err(|error| refused(&error))?;
        let tries = RetryableErrors.with_attempt_limit(TRIES_MAX).with_time_limit(TRIES_TIME_MAX);
        let storage = Storage::builder()
            .with_endpoint(&endpoint)
            .with_credentials(credentials.clone())
            .with_retry_policy(Obedient(tries))
            .with_resumable_upload_threshold(RESUMABLE_BYTES)
            .build()
            .await
            .map_err(|error| refused(&error))?;
        let web = reqwest::Client::builder().timeout(REMOVE_MAX).build().map_err(|error| refused(&error))?;
        Ok(Self { storage, web, credentials, endpoint, bucket })
    }

    /// Where an object is, for people.
    #[must_use]
    pub fn place(&self, key: &str) -> String {
        format!("gs://{}/{}", self.bucket.name, self.bucket.key(key))
    }

    /// Puts an object.
    ///
    /// # Errors
    /// [`StoreError`] where it is not known to be there, whole.
    pub async fn put(&self, object: &Object) -> Result<Put, StoreError> {
        let place = self.place(&object.key);
        let name = self.bucket.key(&object.key);
        let labels = object.labels.iter().map(|(name, value)| (*name, value.clone()));
        let sent = match &object.body {
            Body::Text(text) => {
                let request = self.storage.write_object(self.resource(), name, text.clone());
                let request = request.set_if_generation_match(0).set_content_type(object.content_type);
                request.set_metadata(labels).with_known_crc32c(object.crc32c).send_unbuffered().await
            }
            Body::File(path) => {
                let file = File::open(path).await.map_err(|error| {
                    StoreError::new("reading what is put as", &place, Trouble::Passing, error)
                })?;
                let request = self.storage.write_object(self.resource(), name, file);
                let request = request.set_if_generation_match(0).set_content_type(object.content_type);
                request.set_metadata(labels).with_known_crc32c(object.crc32c).send_unbuffered().await
            }
        };
        match sent {
            Ok(stored) => {
                let sum = stored.checksums.and_then(|sums| sums.crc32c);
                if (u64::try_from(stored.size).ok(), sum) == (Some(object.bytes), Some(object.crc32c)) {
                    return Ok(Put::Created);
                }
                let cause = "the service tells another length or checksum than that of what was put";
                Err(StoreError::new("putting", place, Trouble::Passing, cause))
            }
            Err(error) if error.http_status_code() == Some(412) => self.whose(object).await,
            Err(error) => Err(failed("putting", &place, &error)),
        }
    }

    /// Whether a name is free.
    ///
    /// # Errors
    /// [`StoreError`] where the service does not tell.
    pub async fn is_free(&self, key: &str) -> Result<bool, StoreError> {
        match self.storage.read_object(self.resource(), self.bucket.key(key)).send().await {
            Ok(_) => Ok(false),
            Err(error) if error.http_status_code() == Some(404) => Ok(true),
            Err(error) => Err(failed("looking for", &self.place(key), &error)),
        }
    }

    /// Reads a small object.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be had.
    pub async fn read(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        let failed = |error| failed("reading", &self.place(key), &error);
        let request = self.storage.read_object(self.resource(), self.bucket.key(key));
        let mut answer = request.send().await.map_err(failed)?;
        let mut bytes = Vec::new();
        while let Some(piece) = answer.next().await {
            bytes.extend_from_slice(&piece.map_err(failed)?);
        }
        Ok(bytes)
    }

    /// Removes an object.
    ///
    /// # Errors
    /// [`StoreError`] where it may still be there.
    pub async fn remove(&self, key: &str) -> Result<(), StoreError> {
        let place = self.place(key);
        let says = |trouble, text: &str| StoreError::new("removing", &place, trouble, shown(text));
        let headers = self.credentials.headers(Default::default()).await;
        let headers = headers.map_err(|error| says(Trouble::Credentials, &chain(&error)))?;
        let CacheableResource::New { data: headers, .. } = headers else {
            return Err(says(Trouble::Passing, "no credentials came"));
        };
        let (bucket, name) = (component(&self.bucket.name), component(&self.bucket.key(key)));
        let url = format!("{}/storage/v1/b/{bucket}/o/{name}", self.endpoint);
        let answer = self.web.delete(url).headers(headers).send().await;
        let answer = answer.map_err(|error| says(Trouble::Passing, &chain(&error)))?;
        match answer.status().as_u16() {
            200..=299 | 404 => Ok(()),
            status => {
                let (trouble, after) = (trouble_of(status, answer.headers()), retry_after(answer.headers()));
                let text = answer.text().await.unwrap_or_default();
                Err(says(trouble, &format!("status {status}: {text}")).with_retry_after(after))
            }
        }
    }

    /// Whether what has the name is ours: the service tells length and checksum, without sending it. What has our length
    /// and another checksum is read: an answer that was damaged on its way must not make a second recording of one.
    ///
    /// # Errors
    /// [`StoreError`] where nothing has the name, or the service does not tell.
    pub async fn whose(&self, object: &Object) -> Result<Put, StoreError> {
        let failed = |error| match failed("comparing", &self.place(&object.key), &error) {
            // Removed meanwhile: then it is put again.
            gone if gone.trouble == Trouble::Bucket => StoreError { trouble: Trouble::Passing, ..gone },
            error => error,
        };
        let answer = self.storage.read_object(self.resource(), self.bucket.key(&object.key)).send().await;
        let mut answer = answer.map_err(failed)?;
        let found = answer.object();
        if u64::try_from(found.size).ok() != Some(object.bytes) {
            return Ok(Put::Taken);
        }
        if found.checksums.and_then(|sums| sums.crc32c) == Some(object.crc32c) {
            return Ok(Put::AlreadyThere);
        }
        let mut sum = 0;
        while let Some(piece) = answer.next().await {
            sum = crc32c::crc32c_append(sum, &piece.map_err(failed)?);
        }
        Ok(if sum == object.crc32c { Put::AlreadyThere } else { Put::Taken })
    }

    fn resource(&self) -> String {
        format!("projects/_/buckets/{}", self.bucket.name)
    }
}

/// Tries again as another policy says, except where the service asks to be left alone: then the outbox does, in time.
#[derive(Debug)]
struct Obedient<P>(P);

impl<P: RetryPolicy> RetryPolicy for Obedient<P> {
    fn on_error(&self, state: &RetryState, error: Error) -> RetryResult {
        match asked(&error) {
            Some(_) => RetryResult::Permanent(error),
            None => self.0.on_error(state, error),
        }
    }

    fn remaining_time(&self, state: &RetryState) -> Option<Duration> {
        self.0.remaining_time(state)
    }
}

fn asked(error: &Error) -> Option<Duration> {
    retry_after(error.http_headers()?)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    answer::retry_after(text_of(headers, "retry-after"), text_of(headers, "date"))
}

fn text_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn trouble_of(status: u16, headers: &HeaderMap) -> Trouble {
    let is_clock_wrong = answer::is_far_off(text_of(headers, "date"), Clock::start().wall(), SKEW_MAX_SECS);
    if status == 401 && is_clock_wrong { Trouble::Clock } else { Trouble::of_status(status) }
}

fn failed(doing: &'static str, place: &str, error: &Error) -> StoreError {
    let trouble = match error.http_status_code() {
        _ if error.is_authentication() => {
            match error.source().and_then(|cause| cause.downcast_ref::<CredentialsError>()) {
                Some(cause) if cause.is_transient() => Trouble::Passing,
                _ => Trouble::Credentials,
            }
        }
        Some(status) => trouble_of(status, error.http_headers().unwrap_or(&HeaderMap::new())),
        None => Trouble::Passing,
    };
    StoreError::new(doing, place, trouble, shown(&chain(error))).with_retry_after(asked(error))
}

/// Whether what is sent to a URL stays between here and there: it is encrypted, or does not leave the machine.
fn is_private(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    let is_here = host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback());
    url.scheme() == "https" || (url.scheme() == "http" && is_here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leaves_the_machine_only_encrypted() {
        for url in [
            "https://storage-x.p.googleapis.com",
            "http://127.0.0.1:1/",
            "http://localhost:1",
            "http://[::1]:1",
        ] {
            assert!(is_private(url), "{url}");
        }
        for url in [
            "http://storage.example",
            "http://10.0.0.1",
            "storage.example",
            "http://127.0.0.1.example",
            "ftp://127.0.0.1",
        ] {
            assert!(!is_private(url), "{url}");
        }
    }
}
