//! Where a bucket is, and how to talk to it.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{Certificate, ClientOptions};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::PaginatedListStore;
use object_store::{BackoffConfig, RetryConfig};

use super::credentials::{AwsCredentials, CredentialInputs};
use super::failure;
use super::meter::{Meter, Metered};
use crate::store::{BucketProblem, ErrorDetail, ErrorKind, StoreError, StoreResult, system_words};

/// How long one request may take. With its repeats that is well below a lease, which the library's
/// default of minutes is not.
const TIMEOUT: Duration = Duration::from_secs(8);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long, and how often, a request is repeated.
const RETRY_FOR: Duration = Duration::from_secs(4);
const RETRIES: usize = 3;

/// The protocol that a bucket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Amazon's S3 and its kin.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

/// Chooses the library of cryptography that TLS uses in this process; only the first call does.
pub(crate) fn choose_cryptography() {
    let _ = rustls::crypto::ring::default_provider().install_default();
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
    /// The protocol that it speaks.
    pub kind: Kind,
    /// The bucket's name, or the container's.
    pub name: String,
    /// Where in the bucket the bus is; empty: all of it.
    pub prefix: String,
    /// Endpoint, region, credentials: under the names of the provider's environment variables, in lower case; and
    /// `ca_bundle`, a file.
    pub settings: Vec<(String, String)>,
    /// The identity towards S3, where the settings have no access key.
    pub identity: CredentialInputs,
}

/// A way to a bucket.
pub(super) struct Connected {
    pub(super) inner: Arc<dyn object_store::ObjectStore>,
    /// The same, a page at a time.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only sources list what is no bus"))]
    pub(super) pages: Arc<dyn PaginatedListStore>,
    /// The source of the credentials, if it may give others later.
    pub(super) credentials: Option<Arc<AwsCredentials>>,
}

/// Secrets never reach a log.
impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let settings: Vec<&str> = self.settings.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "Bucket({}://{}/{}, {settings:?})", self.kind.scheme(), self.name, self.prefix)
    }
}

impl Bucket {
    /// From now on no request takes longer than this, and none is repeated after it, if this is
    /// less than usual.
    pub fn limit_timeout(&mut self, limit: Duration) {
        self.settings.push(("timeout_millis".to_owned(), limit.as_millis().to_string()));
    }

    fn at_most(&self, usual: Duration) -> Duration {
        let limit = self.setting("timeout_millis").and_then(|millis| millis.parse().ok()).map(Duration::from_millis);
        // A time-out of zero does not mean that there is no limit.
        limit.map_or(usual, |limit| usual.min(limit.max(Duration::from_millis(100))))
    }

    /// How long a request waits for its answer.
    pub(super) fn timeout(&self) -> Duration {
        self.at_most(TIMEOUT)
    }

    /// Whether one of two places is in the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        let is_same = (self.kind, &self.name, self.endpoint()) == (other.kind, &other.name, other.endpoint());
        let parts = |bucket: &Self| -> Vec<String> {
            bucket.prefix.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let (own, others) = (parts(self), parts(other));
        is_same && (own.starts_with(&others) || others.starts_with(&own))
    }

    /// A setting, if it is set.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn connect(&self, meter: &Arc<Meter>) -> StoreResult<Connected> {
        choose_cryptography();
        let credentials = self.credentials()?;
        let built = |options: ClientOptions| self.built(options, credentials.clone(), meter);
        let options = self.options()?.with_allow_http(self.plain_http());
        let without_certificates = || options.clone().with_no_system_certificates(true);
        let inner = match self.kind {
            Kind::S3 if self.plain_http() => built(without_certificates()),
            // The server that gives the tokens may still be asked over TLS.
            _ if self.plain_http() => match built(options.clone()) {
                Err(error) if failure::lacks_certificates(&error) => built(without_certificates()),
                built => built,
            },
            _ => built(options),
        };
        let (inner, pages) = inner.map_err(|error| failure::not_built(self, &error))?;
        Ok(Connected { inner, pages, credentials })
    }

    fn built(
        &self,
        options: ClientOptions,
        credentials: Option<Arc<AwsCredentials>>,
        meter: &Arc<Meter>,
    ) -> object_store::Result<(Arc<dyn object_store::ObjectStore>, Arc<dyn PaginatedListStore>)> {
        // Three builders of one shape, without a common trait. The bucket comes last, so that no
        // setting names another.
        macro_rules! built {
            ($builder:expr, $key:ty, $named:ident) => {{
                let mut builder = $builder;
                for (name, value) in &self.settings {
                    if let Ok(key) = name.parse::<$key>() {
                        builder = builder.with_config(key, value);
                    }
                }
                let builder =
                    builder.$named(&self.name).with_client_options(options).with_retry(retry(self.at_most(RETRY_FOR)));
                let built = Arc::new(builder.with_http_connector(Metered { meter: Arc::clone(meter) }).build()?);
                (Arc::clone(&built) as Arc<dyn object_store::ObjectStore>, built as Arc<dyn PaginatedListStore>)
            }};
        }
        Ok(match (self.kind, credentials) {
            (Kind::S3, Some(credentials)) => {
                built!(AmazonS3Builder::new().with_credentials(credentials), AmazonS3ConfigKey, with_bucket_name)
            }
            (Kind::S3, None) => built!(AmazonS3Builder::new(), AmazonS3ConfigKey, with_bucket_name),
            (Kind::Gcs, _) => built!(GoogleCloudStorageBuilder::new(), GoogleConfigKey, with_bucket_name),
            (Kind::Azure, _) => built!(MicrosoftAzureBuilder::new(), AzureConfigKey, with_container_name),
        })
    }

    /// The credentials that are looked up when they are needed; none where the settings have some.
    pub(super) fn credentials(&self) -> StoreResult<Option<Arc<AwsCredentials>>> {
        if self.kind != Kind::S3 || self.setting("aws_access_key_id").is_some() {
            return Ok(None);
        }
        Ok(Some(Arc::new(AwsCredentials::new(self.identity.clone(), self.options()?))))
    }

    pub(super) fn options(&self) -> StoreResult<ClientOptions> {
        let options =
            ClientOptions::new().with_timeout(self.timeout()).with_connect_timeout(self.at_most(CONNECT_TIMEOUT));
        let Some(bundle) = self.setting("ca_bundle") else { return Ok(options) };
        let refused = |why: &str| {
            StoreError::new(ErrorKind::Unfit, format!("no CA certificates can be had from {bundle}: {why}"))
                .with_detail(ErrorDetail::Bucket(self.kind, BucketProblem::CertificateFile))
        };
        let text = std::fs::read(self.identity.path(bundle)).map_err(|error| refused(&system_words(&error)))?;
        let certificates = Certificate::from_pem_bundle(&text).map_err(|_| refused("it is not PEM"))?;
        if certificates.is_empty() {
            return Err(refused("it has none"));
        }
        let options = options.with_no_system_certificates(true);
        Ok(certificates.into_iter().fold(options, ClientOptions::with_root_certificate))
    }

    /// Plain HTTP only where the endpoint says so.
    pub(super) fn plain_http(&self) -> bool {
        self.endpoint().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }

    /// The server that was named, if one was.
    pub(super) fn endpoint(&self) -> Option<&str> {
        ["aws_endpoint_url_s3", "aws_endpoint_url", "google_base_url", "azure_endpoint"]
            .into_iter()
            .find_map(|name| self.setting(name))
    }
}

fn retry(retry_timeout: Duration) -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(1), base: 2.0 };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_a_bucket_overlap_where_one_is_in_the_other() {
        let place = |name: &str, prefix: &str, endpoint: &str| Bucket {
            kind: Kind::S3,
            name: name.to_owned(),
            prefix: prefix.to_owned(),
            settings: vec![("aws_endpoint_url".to_owned(), endpoint.to_owned())],
            identity: CredentialInputs::default(),
        };
        let bus = place("b", "in/bus", "http://a");
        for (prefix, expected) in [
            ("", true),
            ("in", true),
            ("in/", true),
            ("in/bus/x", true),
            ("in/busy", false),
            ("i", false),
            ("out", false),
        ] {
            let source = place("b", prefix, "http://a");
            assert_eq!((source.overlaps(&bus), bus.overlaps(&source)), (expected, expected), "{prefix}");
        }
        assert!(!place("c", "in", "http://a").overlaps(&bus));
        assert!(!place("b", "in", "http://other").overlaps(&bus));
    }
}
