//! The objects, and the operations of S3 and of Google's XML API on them: strongly consistent, in
//! the order of their bytes.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;

use super::http::{HttpRequest, HttpResponse, escaped, http_date, iso_date, unescaped};
use super::mode::ServerMode;

/// The most keys in a page of a listing.
const PAGE: usize = 1_000;

/// The API of a client; a request that is not signed as Amazon's clients do uses Google's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    S3,
    Google,
}

impl Dialect {
    fn of(request: &HttpRequest) -> Self {
        let amazons = request.headers.iter().any(|(name, _)| name.starts_with("x-amz-"));
        if amazons || request.access_key().is_some() { Self::S3 } else { Self::Google }
    }
}

/// What an ETag identifies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Etags {
    /// The write: each one has another ETag.
    #[default]
    Number,
    /// The content: equal content has an equal ETag, as on S3.
    Content,
}

/// Whether old versions are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VersioningStatus {
    #[default]
    Never,
    Enabled,
    Suspended,
}

/// The answers of a bucket's sub-resources.
#[derive(Debug, Clone, Default)]
pub struct BucketFacts {
    pub versioning: VersioningStatus,
    /// A `<LifecycleConfiguration>`, if there is one.
    pub lifecycle: Option<String>,
    /// The region; none for us-east-1, which has no name here.
    pub location: Option<String>,
    /// The answer of Google's JSON API about a bucket; none for no answer.
    pub resource: Option<String>,
}

struct StoredObject {
    body: Arc<[u8]>,
    /// The ETag with its quotes.
    etag: String,
    generation: u64,
    /// Seconds since the Unix epoch.
    changed: i64,
}

impl StoredObject {
    fn is(&self, tag: &str) -> bool {
        tag == "*" || tag.trim_matches('"') == self.etag.trim_matches('"')
    }

    fn tagged(&self, answer: HttpResponse, dialect: Dialect) -> HttpResponse {
        let answer = answer.with("ETag", &self.etag).with("Last-Modified", http_date(self.changed));
        match dialect {
            Dialect::S3 => answer,
            Dialect::Google => answer
                .with("x-goog-generation", self.generation.to_string())
                .with("x-goog-metageneration", "1")
                .with("x-goog-stored-content-length", self.body.len().to_string()),
        }
    }
}

/// All buckets; every name exists.
pub struct Buckets {
    /// By bucket and key.
    objects: BTreeMap<(String, String), StoredObject>,
    /// The newest generation; generations are microseconds, as on Google's.
    newest: u64,
    etags: Etags,
    page: usize,
    pub facts: BucketFacts,
}

impl Buckets {
    pub fn new(etags: Etags, page: usize, now: i64) -> Self {
        let newest = now.unsigned_abs() * 1_000_000;
        Self { objects: BTreeMap::new(), newest, etags, page: page.clamp(1, PAGE), facts: BucketFacts::default() }
    }

    /// `bucket/key` of all objects.
    pub fn keys(&self) -> Vec<String> {
        self.objects.keys().map(|(bucket, key)| format!("{bucket}/{key}")).collect()
    }

    pub fn body(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.objects.get(&(bucket.to_owned(), key.to_owned())).map(|object| object.body.to_vec())
    }

    pub fn answer(&mut self, request: &HttpRequest, modes: &[ServerMode], now: i64) -> HttpResponse {
        let path = request.path.trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let place = (bucket.to_owned(), key.to_owned());
        if let Some(resource) = self.facts.resource.as_deref().filter(|_| path.starts_with("storage/v1/b/")) {
            return HttpResponse::text(200, "application/json", resource);
        }
        match (request.method.as_str(), key) {
            ("GET", "") => self.about(request, bucket, modes),
            ("HEAD", "") => HttpResponse::new(200).with("x-amz-bucket-region", self.region()),
            ("PUT", "") => HttpResponse::new(200),
            ("POST", "") if request.parameter("delete").is_some() => self.delete_many(request, bucket, modes),
            ("PUT", _) => self.put(request, place, now),
            ("GET" | "HEAD", _) => self.get(request, &place),
            ("DELETE", _) => self.delete(request, &place),
            _ => {
                let why = "The specified method is not allowed against this resource.";
                HttpResponse::error(405, "MethodNotAllowed", why)
            }
        }
    }

    fn put(&mut self, request: &HttpRequest, place: (String, String), now: i64) -> HttpResponse {
        if let Some(refusal) = unmet(request, self.objects.get(&place)) {
            return refusal;
        }
        self.newest += 1;
        let etag = match self.etags {
            Etags::Number => format!("\"{:x}\"", self.newest),
            Etags::Content => content_tag(&request.body),
        };
        let object = StoredObject { body: request.body.as_slice().into(), etag, generation: self.newest, changed: now };
        let answer = object.tagged(HttpResponse::new(200), Dialect::of(request));
        self.objects.insert(place, object);
        answer
    }

    fn get(&self, request: &HttpRequest, place: &(String, String)) -> HttpResponse {
        let Some(object) = self.objects.get(place) else { return no_such_key() };
        if request.header("if-match").is_some_and(|tag| !object.is(tag)) {
            return precondition_failed();
        }
        if request.header("if-none-match").is_some_and(|tag| object.is(tag)) {
            return object.tagged(HttpResponse::new(304), Dialect::of(request));
        }
        let answer = ranged(request.header("range"), &object.body);
        object.tagged(answer.with("Accept-Ranges", "bytes"), Dialect::of(request))
    }

    /// A missing object is an error with Google, not with S3.
    fn delete(&mut self, request: &HttpRequest, place: &(String, String)) -> HttpResponse {
        match (self.objects.remove(place), Dialect::of(request)) {
            (None, Dialect::Google) => no_such_key(),
            _ => HttpResponse::new(204),
        }
    }

    fn delete_many(&mut self, request: &HttpRequest, bucket: &str, modes: &[ServerMode]) -> HttpResponse {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let keys = body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        let mut deleted = String::new();
        for key in keys {
            self.objects.remove(&(bucket.to_owned(), unescaped(key)));
            let bad = modes.contains(&ServerMode::BadBulkDelete);
            let key = if bad { String::new() } else { format!("<Key>{key}</Key>") };
            deleted.push_str(&format!("<Deleted>{key}</Deleted>"));
        }
        let namespace = "http://s3.amazonaws.com/doc/2006-03-01/";
        HttpResponse::xml(200, &format!("<DeleteResult xmlns=\"{namespace}\">{deleted}</DeleteResult>"))
    }

    fn region(&self) -> &str {
        self.facts.location.as_deref().unwrap_or("us-east-1")
    }

    /// A GET of a bucket: one of its sub-resources, or its listing.
    fn about(&self, request: &HttpRequest, bucket: &str, modes: &[ServerMode]) -> HttpResponse {
        if request.parameter("versioning").is_some() {
            let status = match self.facts.versioning {
                VersioningStatus::Never => "",
                VersioningStatus::Enabled => "<Status>Enabled</Status>",
                VersioningStatus::Suspended => "<Status>Suspended</Status>",
            };
            return HttpResponse::xml(200, &format!("<VersioningConfiguration>{status}</VersioningConfiguration>"));
        }
        if request.parameter("location").is_some() {
            let location = self.facts.location.as_deref().unwrap_or_default();
            return HttpResponse::xml(200, &format!("<LocationConstraint>{location}</LocationConstraint>"));
        }
        if request.parameter("lifecycle").is_some() {
            let none = "The lifecycle configuration does not exist";
            let none = || HttpResponse::error(404, "NoSuchLifecycleConfiguration", none);
            return self.facts.lifecycle.as_deref().map_or_else(none, |text| HttpResponse::xml(200, text));
        }
        self.list(request, bucket, modes)
    }

    fn list(&self, request: &HttpRequest, bucket: &str, modes: &[ServerMode]) -> HttpResponse {
        let prefix = request.parameter("prefix").unwrap_or_default();
        let start = request.parameter("start-after").filter(|_| !modes.contains(&ServerMode::IgnoreStartAfter));
        let after = match request.parameter("continuation-token").map(key_of) {
            None => start.unwrap_or_default().to_owned(),
            Some(Some(key)) => key,
            Some(None) => {
                let why = "The continuation token provided is incorrect";
                return HttpResponse::error(400, "InvalidArgument", why);
            }
        };
        let asked = request.parameter("max-keys").and_then(|keys| keys.parse().ok()).unwrap_or(PAGE);
        let page = asked.min(self.page);
        let mut found = self.behind(bucket, prefix, &after);
        let shown: Vec<_> = found.by_ref().take(page).collect();
        let more = shown.last().filter(|_| found.next().is_some()).map(|(key, _)| token_of(key));
        let etags = !modes.contains(&ServerMode::NoListEtags);
        listing(bucket, prefix, &shown, more, etags, Dialect::of(request))
    }

    /// The objects below a prefix whose keys are greater than `after`, in their order.
    fn behind<'a>(
        &'a self,
        bucket: &'a str,
        prefix: &'a str,
        after: &str,
    ) -> impl Iterator<Item = (&'a str, &'a StoredObject)> {
        let begin = |key: &str| (bucket.to_owned(), key.to_owned());
        let from = match after < prefix {
            true => Bound::Included(begin(prefix)),
            false if after.is_empty() => Bound::Included(begin("")),
            false => Bound::Excluded(begin(after)),
        };
        let objects = self.objects.range((from, Bound::Unbounded));
        objects
            .take_while(move |((of, key), _)| of == bucket && key.starts_with(prefix))
            .map(|((_, key), object)| (key.as_str(), object))
    }
}

/// The refusal of a PUT whose conditions do not hold (Amazon S3 user guide, Conditional writes;
/// Google Cloud Storage, HTTP headers for the XML API).
fn unmet(request: &HttpRequest, current: Option<&StoredObject>) -> Option<HttpResponse> {
    let generation = current.map_or(0, |object| object.generation).to_string();
    if request.header("if-none-match") == Some("*") && current.is_some() {
        return Some(precondition_failed());
    }
    if request.header("x-goog-if-generation-match").is_some_and(|wanted| wanted != generation) {
        return Some(precondition_failed());
    }
    match (request.header("if-match"), current) {
        (Some(_), None) => Some(no_such_key()),
        (Some(tag), Some(object)) if !object.is(tag) => Some(precondition_failed()),
        _ => None,
    }
}

fn no_such_key() -> HttpResponse {
    HttpResponse::error(404, "NoSuchKey", "The specified key does not exist.")
}

fn precondition_failed() -> HttpResponse {
    let why = "At least one of the pre-conditions you specified did not hold";
    HttpResponse::error(412, "PreconditionFailed", why)
}

fn content_tag(body: &[u8]) -> String {
    let hash = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, body).hash(&mut hasher);
        hasher.finish()
    };
    format!("\"{:016x}{:016x}\"", hash(0), hash(1))
}

/// The whole body, or the requested range (RFC 9110, 14).
fn ranged(range: Option<&str>, body: &[u8]) -> HttpResponse {
    let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return HttpResponse { status: 200, body: body.to_vec(), ..HttpResponse::default() };
    };
    let (all, first, last) = (body.len(), first.parse::<usize>(), last.parse::<usize>());
    let (from, to) = match (first, last) {
        (Ok(first), last) => (first, last.map_or(all, |last| all.min(last.saturating_add(1)))),
        (Err(_), Ok(length)) => (all.saturating_sub(length), all),
        (Err(_), Err(_)) => (all, all),
    };
    if from >= to {
        return HttpResponse::error(416, "InvalidRange", "The requested range is not satisfiable");
    }
    let answer = HttpResponse { status: 206, body: body[from..to].to_vec(), ..HttpResponse::default() };
    answer.with("Content-Range", format!("bytes {from}-{}/{all}", to - 1))
}

/// Tokens are not keys, so that a client that confuses them fails.
fn token_of(key: &str) -> String {
    key.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn key_of(token: &str) -> Option<String> {
    let pairs = token.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<_>>()?;
    String::from_utf8(bytes).ok()
}

/// `ListObjectsV2`, with Google's addition: each object's generation, which `object_store` does not
/// read.
fn listing(
    bucket: &str,
    prefix: &str,
    shown: &[(&str, &StoredObject)],
    more: Option<String>,
    etags: bool,
    dialect: Dialect,
) -> HttpResponse {
    let mut text = String::from("<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    text += &format!("<Name>{}</Name><Prefix>{}</Prefix>", escaped(bucket), escaped(prefix));
    text += &format!("<KeyCount>{}</KeyCount><IsTruncated>{}</IsTruncated>", shown.len(), more.is_some());
    for (key, object) in shown {
        text += &format!("<Contents><Key>{}</Key>", escaped(key));
        if dialect == Dialect::Google {
            text += &format!("<Generation>{}</Generation><MetaGeneration>1</MetaGeneration>", object.generation);
        }
        if etags {
            text += &format!("<ETag>{}</ETag>", escaped(&object.etag));
        }
        let changed = iso_date(object.changed);
        text += &format!("<LastModified>{changed}</LastModified><Size>{}</Size></Contents>", object.body.len());
    }
    if let Some(token) = more {
        text += &format!("<NextContinuationToken>{token}</NextContinuationToken>");
    }
    HttpResponse::xml(200, &(text + "</ListBucketResult>"))
}
