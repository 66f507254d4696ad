//! A store of each cloud behind one face: what to set for a daemon that publishes there, and what has got there.
//!
//! S3 is moto's, Azure is Azurite's, each where it is installed; Google Cloud Storage is the rig's own server.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

use super::gcs::Gcs;
use super::place::{Place, without_absent};
use super::stores::{AZURITE_ACCOUNT, AZURITE_KEY, Azurite, Moto};
use super::wait_for;

/// The bucket or container that each store has.
pub(crate) const BUCKET: &str = "calls";

/// One store of each kind.
pub(crate) enum Cloud {
    S3(Moto),
    Azure(Azurite),
    Gcs(Gcs),
}

/// An object with what is known of it.
pub(crate) struct Stored {
    pub(crate) bytes: Vec<u8>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) content_type: String,
}

impl Cloud {
    /// All that are installed, each with a bucket.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self::Gcs(Gcs::start(BUCKET))];
        if let Some(moto) = Moto::start() {
            moto.create_bucket(BUCKET);
            all.push(Self::S3(moto));
        }
        if let Some(azurite) = Azurite::start() {
            azurite.create_container(BUCKET);
            all.push(Self::Azure(azurite));
        }
        all
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::S3(_) => "s3",
            Self::Azure(_) => "azure",
            Self::Gcs(_) => "gcs",
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::S3(moto) => moto.address(),
            Self::Azure(azurite) => azurite.address(),
            Self::Gcs(gcs) => gcs.address(),
        }
    }

    /// A place whose daemon publishes here, by way of `at`.
    pub(crate) fn place_at(&self, at: SocketAddr) -> Place {
        let mut place =
            Place::new().with("AUDIO_STORAGE_TYPE", self.name()).with("AUDIO_STORAGE_PATH", "calls/pre fix");
        let endpoint = format!("http://{at}");
        match self {
            Self::S3(_) => {
                place.set("AWS_ACCESS_KEY_ID", "test");
                place.set("AWS_SECRET_ACCESS_KEY", "not-to-be-logged");
                place.set("AWS_REGION", "us-east-1");
                place.set("AWS_ENDPOINT_URL", &endpoint);
            }
            Self::Azure(_) => {
                let text = format!(
                    "DefaultEndpointsProtocol=http;AccountName={AZURITE_ACCOUNT};AccountKey={AZURITE_KEY};BlobEndpoint={endpoint}/{AZURITE_ACCOUNT};"
                );
                place.set("AZURE_STORAGE_CONNECTION_STRING", &text);
            }
            Self::Gcs(_) => place.set("STORAGE_EMULATOR_HOST", &at.to_string()),
        }
        place
    }

    pub(crate) fn place(&self) -> Place {
        self.place_at(self.address())
    }

    pub(crate) fn object(&self, name: &str) -> Option<Stored> {
        let name = format!("pre fix/{name}");
        let found = match self {
            Self::S3(moto) => moto.object(BUCKET, &name)?,
            Self::Azure(azurite) => azurite.object(BUCKET, &name)?,
            Self::Gcs(gcs) => {
                let found = gcs.object(&name)?;
                return Some(Stored {
                    bytes: found.bytes,
                    labels: found.metadata,
                    content_type: found.content_type,
                });
            }
        };
        let line = found.head.lines().find(|line| line.to_lowercase().starts_with("content-type:"));
        let content_type = line.and_then(|line| line.split_once(": ")).expect("a content type").1.to_owned();
        Some(Stored { bytes: found.bytes, labels: found.metadata, content_type })
    }

    /// The names of all recordings and manifests here, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = match self {
            Self::S3(moto) => moto.names(BUCKET),
            Self::Azure(azurite) => azurite.names(BUCKET),
            Self::Gcs(gcs) => gcs.names(),
        };
        let strip = |name: &String| name.strip_prefix("pre fix/").expect("all are under it").to_owned();
        names.iter().map(strip).collect()
    }

    pub(crate) fn await_object(&self, name: &str) -> Stored {
        wait_for(&format!("{name} in {}", self.name()), || self.object(name))
    }

    pub(crate) fn manifest(&self, name: &str) -> Value {
        without_absent(serde_json::from_slice(&self.await_object(name).bytes).expect("a manifest is JSON"))
    }
}
