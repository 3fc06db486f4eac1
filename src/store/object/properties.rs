//! How a bucket treats what is put into it, read for `doctor`. The crate has no calls for this.

use futures_util::TryStreamExt;
use object_store::client::{HttpConnector as _, HttpRequest, ReqwestConnector};

use super::{Bucket, Kind};

mod azure;
mod google;
mod s3;

/// No answer about a bucket is larger.
const LARGEST_BYTES: usize = 1 << 20;

/// An answer about a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketProperty<T> {
    /// It is so.
    Known(T),
    /// These credentials may not see it.
    Denied,
    /// The server does not tell.
    Unknown,
}

impl<T> BucketProperty<T> {
    fn map<U>(self, convert: impl FnOnce(T) -> U) -> BucketProperty<U> {
        match self {
            Self::Known(value) => BucketProperty::Known(convert(value)),
            Self::Denied => BucketProperty::Denied,
            Self::Unknown => BucketProperty::Unknown,
        }
    }
}

/// What becomes of objects that are replaced or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioning {
    /// It is gone.
    Off,
    /// They are gone, except versions that were kept before.
    Suspended,
    /// It stays.
    On,
    /// They stay for this many seconds.
    SoftDelete(u64),
}

/// A lifecycle rule that is enabled and may hold for a bus's objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// The rule's name, or its place in the list.
    pub name: String,
    /// It holds where a key begins with one of these; none: everywhere.
    pub prefixes: Vec<String>,
    /// It deletes objects.
    pub ends_objects: bool,
    /// It moves objects to another storage class.
    pub moves_objects: bool,
    /// It deletes versions that were replaced or deleted before.
    pub ends_old_versions: bool,
}

impl Rule {
    /// Whether the rule holds for a key of the bus at a prefix.
    pub fn touches(&self, bus: &str) -> bool {
        let bus = if bus.is_empty() { String::new() } else { format!("{bus}/") };
        self.prefixes.is_empty()
            || self.prefixes.iter().any(|prefix| bus.starts_with(prefix.as_str()) || prefix.starts_with(&bus))
    }
}

/// What a bucket says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketProperties {
    /// Where it is.
    pub region: BucketProperty<String>,
    /// Whether it keeps what is replaced or deleted.
    pub versioning: BucketProperty<Versioning>,
    /// What it does by itself.
    pub rules: BucketProperty<Vec<Rule>>,
}

impl Bucket {
    /// Reads how the bucket treats what is put there; `key` is of an object on the bus.
    pub async fn properties(&self, key: &str) -> BucketProperties {
        match self.kind {
            Kind::S3 => self.s3_properties().await,
            Kind::Gcs => self.google_properties().await,
            Kind::Azure => self.azure_properties(key).await,
        }
    }

    /// The region that requests to S3 are signed for.
    pub fn region(&self) -> &str {
        self.setting("aws_region").unwrap_or("us-east-1")
    }

    /// Status and text of the answer to a request; none if there was no answer.
    async fn answer(&self, request: HttpRequest) -> Option<(u16, String)> {
        let plain = self.plain_http();
        let options = self.options().ok()?.with_allow_http(plain);
        let options = if plain { options.with_no_system_certificates(true) } else { options };
        let response = ReqwestConnector::default().connect(&options).ok()?.execute(request).await.ok()?;
        let status = response.status().as_u16();
        let mut chunks = response.into_body().bytes_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.try_next().await.ok()? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LARGEST_BYTES {
                return None;
            }
        }
        Some((status, String::from_utf8_lossy(&bytes).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_touches_a_bus_below_above_or_at_its_prefix() {
        let rule = |prefixes: &[&str]| Rule {
            prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
            ..Rule::default()
        };
        for prefixes in [&[][..], &[""], &["pro"], &["prod/"], &["prod/events/"], &["logs/", "prod"]] {
            assert!(rule(prefixes).touches("prod"), "{prefixes:?}");
        }
        for prefixes in [&["product/"][..], &["logs/"], &["prod-2"]] {
            assert!(!rule(prefixes).touches("prod"), "{prefixes:?}");
            assert!(rule(prefixes).touches(""), "{prefixes:?}");
        }
    }
}
