//! The objects of a bucket that is no bus: listed in parts, moved, deleted.
//!
//! Other programs have chosen their keys. Some of these `object_store` cannot name: those with an empty part, with `.` or
//! `..` as one, with a control character. A page that holds one fails as a whole, and the error names it; so the pages
//! become smaller until it stands alone, and the listing goes on behind it.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::{Error as PathError, Path, PathPart};
use object_store::{ObjectMeta, ObjectStoreExt};

use sha2::{Digest, Sha256};

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

/// How many keys a page has at most: as many as S3 gives (its API reference, `ListObjectsV2`).
const PAGE: usize = 1_000;

/// A page that fails is asked for with so many times fewer keys.
const SHRINKS: usize = 8;

/// How many objects are asked for at once.
const AT_ONCE: usize = 16;

/// The objects below a prefix.
pub struct Objects {
    inner: Arc<dyn object_store::ObjectStore>,
    pages: Arc<dyn PaginatedListStore>,
    /// Ends in `/`, or is empty.
    prefix: String,
    number: u64,
    shown: ErrorContext,
}

fn parse(key: &str) -> StoreResult<Path> {
    Path::parse(key)
        .map_err(|error| StoreError::new(ErrorKind::Other, format!("'{key}' cannot be a key in a bucket: {error}")))
}

/// Where a listing goes on.
enum Position {
    Start,
    /// At the page of this token.
    Token(String),
    /// Behind this text, be there a key of it or not.
    Behind(String),
    End,
}

/// A listing under way.
pub struct Listing {
    position: Position,
    /// What was fetched and not handed out.
    page: VecDeque<ObjectMeta>,
    page_size: usize,
    /// The last key that was passed over.
    passed_over: Option<String>,
    /// Whether there are keys that begin with a `/`, once it was asked.
    has_rooted: Option<bool>,
}

impl Listing {
    /// Whether all was listed.
    pub fn is_over(&self) -> bool {
        self.page.is_empty() && matches!(self.position, Position::End)
    }

    /// A key that was passed over, as it cannot be named to the bucket, if there was one.
    pub fn passed_over(&self) -> Option<&str> {
        self.passed_over.as_deref()
    }
}

/// The key that made a page fail, as it cannot be named.
fn unnameable(error: &object_store::Error) -> Option<&str> {
    match error {
        object_store::Error::InvalidPath {
            source: PathError::EmptySegment { path } | PathError::BadSegment { path, .. },
        } => Some(path),
        _ => None,
    }
}

/// Whether a key can have this part between its slashes.
pub fn is_nameable(part: &str) -> bool {
    PathPart::parse(part).is_ok() && !part.is_empty()
}

/// A text behind which no key is left that cannot be named for the same part as this one: it sorts behind all that begins
/// with what goes up to that part.
fn behind(key: &str) -> String {
    let mut end = 0;
    for part in key.split_inclusive('/') {
        let (name, is_inner) = part.strip_suffix('/').map_or((part, false), |name| (name, true));
        // A '/' at the beginning is no part.
        let is_root = end == 0 && name.is_empty();
        if !is_root && !is_nameable(name) {
            return match is_inner {
                true => format!("{}{}", &key[..end + part.len()], char::MAX),
                false => key.to_owned(),
            };
        }
        end += part.len();
    }
    key.to_owned()
}

impl Objects {
    /// Connects to a bucket; no request is sent yet.
    ///
    /// # Errors
    /// Settings that cannot be understood.
    pub fn connect(bucket: &Bucket) -> StoreResult<Self> {
        let meter = Arc::new(Meter::default());
        let Connected { inner, pages, .. } = bucket.connect(&meter)?;
        let prefix = bucket.prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let place = format!("{}://{}/{prefix}", bucket.kind.scheme(), bucket.name);
        let digest = Sha256::digest(place.as_bytes());
        let number = digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
        Ok(Self { inner, pages, prefix, number, shown: ErrorContext::of(bucket, meter) })
    }

    fn path(&self, key: &str) -> StoreResult<Path> {
        parse(&format!("{}{key}", self.prefix))
    }

    /// A number that another place in a bucket does not have, but for chance.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Begins to list them.
    pub fn list(&self) -> Listing {
        let (position, page) = (Position::Start, VecDeque::new());
        Listing { position, page, page_size: PAGE, passed_over: None, has_rooted: None }
    }

    /// The next objects of a listing, at most `most`; there may be none of them before it is over.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn part(&self, listing: &mut Listing, most: usize) -> StoreResult<Vec<ObjectState>> {
        if listing.page.is_empty() {
            self.fetch(listing).await?;
        }
        let page = &mut listing.page;
        let part = page.drain(..most.min(page.len())).filter_map(|object| {
            let key = object.location.as_ref().strip_prefix(&self.prefix).filter(|key| !key.is_empty())?.to_owned();
            Some(ObjectState::of(&key, object))
        });
        Ok(part.collect())
    }

    /// Asks for the next page, or passes over a key.
    async fn fetch(&self, listing: &mut Listing) -> StoreResult<()> {
        let (offset, page_token) = match &listing.position {
            Position::Start => (None, None),
            Position::Token(token) => (None, Some(token.clone())),
            Position::Behind(text) => (Some(text.clone()), None),
            Position::End => return Ok(()),
        };
        let max_keys = Some(listing.page_size);
        let options = PaginatedListOptions { offset, page_token, max_keys, ..PaginatedListOptions::default() };
        let prefix = Some(self.prefix.as_str()).filter(|prefix| !prefix.is_empty());
        match self.pages.list_paginated(prefix, options).await {
            Ok(page) => {
                listing.page = page.result.objects.into();
                listing.position = page.page_token.map_or(Position::End, Position::Token);
                listing.page_size = (listing.page_size * SHRINKS).min(PAGE);
                Ok(())
            }
            Err(error) => match unnameable(&error).map(str::to_owned) {
                Some(_) if listing.page_size > 1 => {
                    listing.page_size = (listing.page_size / SHRINKS).max(1);
                    Ok(())
                }
                // A server that heeds no offset would be asked for ever.
                Some(key) if listing.passed_over.as_ref() != Some(&key) => {
                    listing.position = Position::Behind(behind(&key));
                    listing.passed_over = Some(key);
                    Ok(())
                }
                _ => Err(self.shown.failure("list", &self.prefix, error)),
            },
        }
    }

    /// Those of the objects that are there under their keys. `object_store` leaves out a `/` at a key's beginning or end, so
    /// that the mark of a folder looks like an empty object; such a mark has no content.
    ///
    /// # Errors
    /// The bucket's.
    pub async fn real(&self, listing: &mut Listing, objects: Vec<ObjectState>) -> StoreResult<Vec<ObjectState>> {
        let mut asks_all = self.prefix.is_empty() && !objects.is_empty();
        if asks_all {
            asks_all = match listing.has_rooted {
                Some(has_rooted) => has_rooted,
                None => *listing.has_rooted.insert(self.has_rooted().await?),
            };
        }
        let (asked, mut real): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| asks_all || object.size == 0);
        let keys: Vec<String> = asked.iter().map(|object| object.key.clone()).collect();
        for (object, now) in asked.into_iter().zip(self.states(&keys).await) {
            if now?.is_some_and(|now| now.etag == object.etag && now.size == object.size) {
                real.push(object);
            }
        }
        Ok(real)
    }

    /// Whether the bucket has keys that begin with a `/`.
    async fn has_rooted(&self) -> StoreResult<bool> {
        let options = PaginatedListOptions { max_keys: Some(1), ..PaginatedListOptions::default() };
        match self.pages.list_paginated(Some("/"), options).await {
            Ok(page) => Ok(!page.result.objects.is_empty()),
            Err(error) if unnameable(&error).is_some() => Ok(true),
            Err(error) => Err(self.shown.failure("list", "/", error)),
        }
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

    /// What keys hold now, in their order.
    pub async fn states(&self, keys: &[String]) -> Vec<StoreResult<Option<ObjectState>>> {
        stream::iter(keys).map(|key| self.state(key)).buffered(AT_ONCE).collect().await
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
    fn what_cannot_be_named_is_passed_over_with_its_like() {
        let max = char::MAX;
        for (key, prefix) in [
            ("x//y.pdf", Some("x//")),
            ("//y", Some("//")),
            ("/a//", Some("/a//")),
            ("in/./q.pdf", Some("in/./")),
            ("in/../q/.", Some("in/../")),
            ("in/n\nl/a", Some("in/n\nl/")),
            ("in/n\nl", None),
            ("in/..", None),
        ] {
            assert!(Path::parse(key).is_err_and(|error| unnameable(&error.into()) == Some(key)), "{key:?}");
            let expected = prefix.map_or(key.to_owned(), |prefix| format!("{prefix}{max}"));
            assert_eq!(behind(key), expected, "{key:?}");
        }
        assert!(Path::parse("/a.b/..c/").is_ok());
    }

    #[test]
    fn a_mark_stands_before_the_ending() {
        assert_eq!(marked("a.b/c.pdf", "12-ab\"34cdefgh"), "a.b/c.12ab34cd.pdf");
        assert_eq!(marked("a.b/c", "12"), "a.b/c.12");
        assert_eq!(marked(".c", "12"), ".c.12");
    }
}
