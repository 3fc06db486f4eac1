//! The objects of a bucket that is no bus: listed in parts, moved, deleted.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::failure::ErrorContext;
use super::meter::Meter;
use super::{Bucket, Connected};
use crate::event::EventTime;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectState {
    /// Its key below the prefix.
    pub key: String,
    /// In bytes.
    pub size: u64,
    /// When it was put.
    pub mtime: EventTime,
    /// Which version it is: its ETag.
    pub etag: String,
}

impl ObjectState {
    fn of(key: &str, object: ObjectMeta) -> Self {
        Self {
            key: key.to_owned(),
            size: object.size,
            // The header of an answer tells whole seconds only.
            mtime: EventTime::from_micros(object.last_modified.timestamp() * 1_000_000),
            etag: object.e_tag.or(object.version).unwrap_or_default().trim_matches('"').to_owned(),
        }
    }
}

/// The objects below a prefix.
pub struct Objects {
    inner: Arc<dyn object_store::ObjectStore>,
    /// Ends in `/`, or is empty.
    prefix: String,
    shown: ErrorContext,
}

fn parse(key: &str) -> StoreResult<Path> {
    Path::parse(key)
        .map_err(|error| StoreError::new(ErrorKind::Other, format!("'{key}' cannot be a key in a bucket: {error}")))
}

/// A listing under way.
pub struct Listing {
    found: BoxStream<'static, object_store::Result<ObjectMeta>>,
    prefix: String,
    /// Whether all was listed.
    pub is_over: bool,
}

impl Objects {
    /// Connects to a bucket; no request is sent yet.
    ///
    /// # Errors
    /// Settings that cannot be understood.
    pub fn connect(bucket: &Bucket) -> StoreResult<Self> {
        let meter = Arc::new(Meter::default());
        let Connected { inner, .. } = bucket.connect(&meter)?;
        let prefix = bucket.prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { inner, prefix, shown: ErrorContext::of(bucket, meter) })
    }

    fn path(&self, key: &str) -> StoreResult<Path> {
        parse(&format!("{}{key}", self.prefix))
    }

    /// Begins to list them.
    pub fn list(&self) -> Listing {
        let below = (!self.prefix.is_empty()).then(|| Path::from(self.prefix.as_str()));
        Listing { found: self.inner.list(below.as_ref()), prefix: self.prefix.clone(), is_over: false }
    }

    /// The next objects of a listing, at most `most`.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn part(&self, listing: &mut Listing, most: usize) -> StoreResult<Vec<ObjectState>> {
        let mut part = Vec::new();
        while part.len() < most {
            let Some(object) = listing.found.next().await else {
                listing.is_over = true;
                break;
            };
            let object = object.map_err(|error| self.shown.failure("list", &self.prefix, error))?;
            let Some(key) = object.location.as_ref().strip_prefix(&listing.prefix).map(str::to_owned) else { continue };
            part.push(ObjectState::of(&key, object));
        }
        Ok(part)
    }

    /// What a key holds now.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn state(&self, key: &str) -> StoreResult<Option<ObjectState>> {
        match self.inner.head(&self.path(key)?).await {
            Ok(object) => Ok(Some(ObjectState::of(key, object))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.shown.failure("look at", key, error)),
        }
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn delete(&self, key: &str) -> StoreResult<()> {
        let deleted = self.inner.delete(&self.path(key)?).await;
        deleted.map_err(|error| self.shown.failure("delete", key, error))
    }

    /// Moves an object below another prefix of its bucket: copies it, then deletes it.
    ///
    /// # Errors
    /// The bucket's; it may then be at both places.
    pub async fn move_to(&self, object: &ObjectState, prefix: &str) -> StoreResult<()> {
        let key = &object.key;
        let from = self.path(key)?;
        let mut to = parse(&format!("{}/{key}", prefix.trim_matches('/')))?;
        if self.inner.head(&to).await.is_ok() {
            to = parse(&marked(to.as_ref(), &object.etag))?;
        }
        let copied = self.inner.copy(&from, &to).await;
        copied.map_err(|error| self.shown.failure("move", key, error))?;
        // Another that has taken its place is not deleted.
        match self.state(key).await? {
            Some(now) if now.etag == object.etag => self.delete(key).await,
            _ => Ok(()),
        }
    }
}

/// A key with a mark before its ending.
fn marked(key: &str, mark: &str) -> String {
    let mark: String = mark.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    let at = key.rfind('/').map_or(0, |at| at + 1);
    match key[at..].rfind('.').filter(|dot| *dot > 0) {
        Some(dot) => format!("{}.{mark}{}", &key[..at + dot], &key[at + dot..]),
        None => format!("{key}.{mark}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stands_before_the_ending() {
        assert_eq!(marked("a.b/c.pdf", "12-ab\"34cdefgh"), "a.b/c.12ab34cd.pdf");
        assert_eq!(marked("a.b/c", "12"), "a.b/c.12");
        assert_eq!(marked(".c", "12"), ".c.12");
    }
}
