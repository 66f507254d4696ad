//! Opens S3 and Azure with the settings that the tools of these services take from the environment.

use std::env;
#[cfg(any(feature = "s3", feature = "azure"))]
use std::sync::Arc;

use super::exchange::Witness;
use super::objects::{ObjectsStore, Service, client, retries};
use super::{Bucket, StoreError, Trouble};

/// Opens a bucket with what `AWS_…` variables say.
#[cfg(feature = "s3")]
pub(super) fn s3(bucket: Bucket) -> Result<ObjectsStore, StoreError> {
    use object_store::aws::AmazonS3Builder;
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].into_iter().find_map(given);
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&bucket.name)
        .with_client_options(client(endpoint.as_deref()))
        .with_retry(retries())
        .with_http_connector(Witness);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let store = builder.build().map_err(|error| refused("s3", &bucket, &error))?;
    Ok(ObjectsStore::new(Arc::new(store), Service::S3, bucket))
}

/// Opens a container with what `AZURE_…` variables say.
#[cfg(feature = "azure")]
pub(super) fn azure(bucket: Bucket) -> Result<ObjectsStore, StoreError> {
    use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
    let connection = given("AZURE_STORAGE_CONNECTION_STRING").unwrap_or_default();
    let part = |name| part_of(&connection, name);
    let account = part("AccountName").or_else(|| given("AZURE_STORAGE_ACCOUNT"));
    let key = part("AccountKey").or_else(|| given("AZURE_STORAGE_KEY"));
    let endpoint = part("BlobEndpoint").or_else(|| given("AZURE_STORAGE_ENDPOINT"));
    let endpoint = endpoint.or_else(|| {
        let (account, suffix) = (part("AccountName")?, part("EndpointSuffix")?);
        let protocol = part("DefaultEndpointsProtocol").unwrap_or_else(|| "https".to_owned());
        Some(format!("{protocol}://{account}.blob.{suffix}"))
    });
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(&bucket.name)
        .with_client_options(client(endpoint.as_deref()))
        .with_retry(retries())
        .with_http_connector(Witness);
    let settings = [
        (AzureConfigKey::AccountName, account),
        (AzureConfigKey::AccessKey, key),
        (AzureConfigKey::Endpoint, endpoint),
        (AzureConfigKey::SasKey, part("SharedAccessSignature")),
    ];
    for (name, value) in settings {
        if let Some(value) = value {
            builder = builder.with_config(name, value);
        }
    }
    let store = builder.build().map_err(|error| refused("az", &bucket, &error))?;
    Ok(ObjectsStore::new(Arc::new(store), Service::Azure, bucket))
}

fn given(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|text| !text.is_empty())
}

/// One part of a connection string, which is `Name=value;Name=value`. Values may hold `=`.
#[cfg(feature = "azure")]
fn part_of(connection: &str, name: &str) -> Option<String> {
    let mut parts = connection.split(';').filter_map(|part| part.split_once('='));
    parts.find(|(found, _)| found.trim() == name).map(|(_, value)| value.trim().to_owned())
}

/// Builders refuse settings, and may quote them.
fn refused(scheme: &str, bucket: &Bucket, error: &object_store::Error) -> StoreError {
    let place = format!("{scheme}://{}", bucket.name);
    let error = super::shown(&crate::io::log::chain(error));
    StoreError::new("opening", place, Trouble::Credentials, error)
}

#[cfg(all(test, feature = "azure"))]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_is_taken_apart() {
        let text = "DefaultEndpointsProtocol=http;AccountName=dev;AccountKey=a+b/c==;BlobEndpoint=http://127.0.0.1:1/dev;";
        assert_eq!(part_of(text, "AccountKey").as_deref(), Some("a+b/c=="));
        assert_eq!(part_of(text, "BlobEndpoint").as_deref(), Some("http://127.0.0.1:1/dev"));
        assert_eq!(part_of(text, "SharedAccessSignature"), None);
    }
}
