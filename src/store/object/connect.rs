//! Where a bucket is, and how to talk to it.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::ClientOptions;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, RetryConfig};

use super::meter::{Meter, Metered};
use crate::store::{ErrorKind, StoreError, StoreResult};

/// How long one request may take: with its repeats well below a lease, which the library's own minutes are not.
const TIMEOUT: Duration = Duration::from_secs(8);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// A request is repeated for so long, and so often.
const RETRY_FOR: Duration = Duration::from_secs(4);
const RETRIES: usize = 3;

/// Whose protocol a bucket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Amazon's S3 and its kin.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Kind {
    /// The scheme of its URLs.
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

/// A place in a bucket.
#[derive(Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Whose protocol it speaks.
    pub kind: Kind,
    /// The bucket's name, or the container's.
    pub name: String,
    /// Where in the bucket the bus is; empty: all of it.
    pub prefix: String,
    /// Endpoint, region, credentials: under the names of the provider's environment variables, in lower case.
    pub settings: Vec<(String, String)>,
}

/// Secrets never reach a log.
impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let settings: Vec<&str> = self.settings.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "Bucket({}://{}/{}, {settings:?})", self.kind.scheme(), self.name, self.prefix)
    }
}

impl Bucket {
    /// A setting, if it is set.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn connect(&self, meter: &Arc<Meter>) -> StoreResult<Arc<dyn object_store::ObjectStore>> {
        // The first to come chooses for the process; whoever comes later finds it done.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let refused = |error: object_store::Error| {
            let text = super::failure::one_line(&error);
            if text.contains("Missing AccessKeyId") || text.contains("Missing SecretAccessKey") {
                return super::failure::no_credentials(&self.name);
            }
            StoreError::new(ErrorKind::Unfit, format!("{}://{}: {text}", self.kind.scheme(), self.name))
        };
        // Three builders of one shape, without a trait that says so.
        macro_rules! built {
            ($builder:expr, $key:ty) => {{
                let mut builder = $builder;
                for (name, value) in &self.settings {
                    if let Ok(key) = name.parse::<$key>() {
                        builder = builder.with_config(key, value);
                    }
                }
                let builder = builder.with_client_options(options(self.plain_http())).with_retry(retry());
                let connector = Metered { meter: Arc::clone(meter) };
                Ok(Arc::new(builder.with_http_connector(connector).build().map_err(refused)?))
            }};
        }
        match self.kind {
            Kind::S3 => built!(AmazonS3Builder::new().with_bucket_name(&self.name), AmazonS3ConfigKey),
            Kind::Gcs => built!(GoogleCloudStorageBuilder::new().with_bucket_name(&self.name), GoogleConfigKey),
            Kind::Azure => built!(MicrosoftAzureBuilder::new().with_container_name(&self.name), AzureConfigKey),
        }
    }

    /// Plain HTTP only where the endpoint says so.
    fn plain_http(&self) -> bool {
        self.endpoint().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }

    /// The server that was named, if one was.
    pub(super) fn endpoint(&self) -> Option<&str> {
        ["aws_endpoint_url_s3", "aws_endpoint_url", "google_base_url", "azure_endpoint"]
            .into_iter()
            .find_map(|name| self.setting(name))
    }
}

fn options(plain_http: bool) -> ClientOptions {
    ClientOptions::new().with_timeout(TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT).with_allow_http(plain_http)
}

fn retry() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(1), base: 2.0 };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_FOR }
}
