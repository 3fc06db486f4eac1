//! What Azure shows of a container to its users: whether what is read is one of several versions
//! (Azure Storage REST API, Get Blob: `x-ms-version-id`). The container's rules and region are
//! shown only to the account's owners.

use std::sync::Arc;

use object_store::ObjectStoreExt as _;
use object_store::path::Path;

use super::{BucketProperties, BucketProperty, Versioning};
use crate::store::object::Bucket;
use crate::store::object::meter::Meter;

impl Bucket {
    /// `key` is of an object that is there.
    pub(super) async fn azure_properties(&self, key: &str) -> BucketProperties {
        let versioning = match self.has_versions(key).await {
            Some(true) => BucketProperty::Known(Versioning::On),
            Some(false) => BucketProperty::Known(Versioning::Off),
            None => BucketProperty::Unknown,
        };
        BucketProperties { region: BucketProperty::Unknown, versioning, rules: BucketProperty::Unknown }
    }

    async fn has_versions(&self, key: &str) -> Option<bool> {
        let connected = self.connect(&Arc::new(Meter::default())).ok()?;
        let path = Path::parse(format!("{}/{key}", self.prefix.trim_matches('/'))).ok()?;
        Some(connected.inner.head(&path).await.ok()?.version.is_some())
    }
}
