//! A bus behind an evbus server, used over HTTP: by a machine that cannot reach the store itself.

use std::error::Error;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LINK, RETRY_AFTER};
use reqwest::{Client, Method, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config::is_loopback;
use crate::event::TypeFilter;
use crate::group::{Definition, GroupName};
use crate::handler::{Obstacle, SettlementKind, WebhookTarget, http_cause, http_client};
pub use crate::serve::GroupBody;

mod member;

pub use member::{Member, MemberParts};

/// How long a request may take beyond what it is told to wait for.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The media types of requests.
const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json";

/// The header of a batch before which events were pruned.
const GAP: &str = "evbus-gap";

/// The most events of a batch.
pub const MOST_EVENTS: usize = 1_000;

/// Why a server has not done what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RemoteError {
    /// It cannot be reached, or has not answered.
    #[error("{url}: {why}")]
    Unreachable {
        /// Of the server.
        url: String,
        /// In the system's words.
        why: String,
    },
    /// It has answered with another status than success.
    #[error("{url}: {detail} (HTTP {status})")]
    Refused {
        /// Of the server.
        url: String,
        /// The status.
        status: u16,
        /// What it says about it.
        detail: String,
        /// Whether it is about one event of several.
        is_about_one: bool,
        /// The places of the events whose ids are other events', from 0.
        places: Vec<usize>,
        /// When to try again.
        retry_after: Option<Duration>,
    },
    /// Its answer is not that of an evbus.
    #[error("{url}: it answers as no evbus server does: {why}")]
    Strange {
        /// Of the server.
        url: String,
        /// What is odd.
        why: String,
    },
}

impl RemoteError {
    /// Whether the same request may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused { status: 408 | 425 | 429 | 500..=599, .. })
    }

    /// Whether a request for fewer events may succeed.
    pub fn is_too_large_together(&self) -> bool {
        matches!(self, Self::Refused { status: 413, is_about_one: false, .. })
    }

    /// The status of the answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// A server, and what is sent along with each request.
#[derive(Debug, Clone)]
pub struct Server {
    client: Client,
    url: Url,
    authorization: Option<HeaderValue>,
}

/// Why a server cannot be used from here.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The URL is none.
    #[error("'{0}' is no URL of a server")]
    NoUrl(String),
    /// A token would cross the network in clear text.
    #[error("{0}: the token would pass in clear text (use https)")]
    ClearText(String),
    /// The token is none.
    #[error("the token has characters that no header can hold")]
    Token,
    /// There is no client.
    #[error("{}", .0.why)]
    Client(Obstacle),
}

/// Events that were given out.
#[derive(Debug)]
pub struct Batch {
    /// Their documents, in JSON.
    pub events: Vec<Box<RawValue>>,
    /// The query of the next batch.
    pub next: String,
    /// Up to when events were pruned that were perhaps not seen, in RFC 3339.
    pub gap: Option<String>,
}

/// Which events to read.
#[derive(Debug, Clone, Default)]
pub struct ReadQuery {
    /// Of these types.
    pub types: TypeFilter,
    /// From this time on, in RFC 3339.
    pub since: Option<String>,
    /// First the last so many of those that are there.
    pub last: Option<usize>,
}

/// An event under a lock, with what belongs to it.
#[derive(Debug, Deserialize)]
pub struct Received {
    /// Of the lock.
    #[serde(rename = "brokerProperties")]
    pub properties: LockProperties,
    /// The event's document.
    pub event: Box<RawValue>,
}

/// What belongs to an event under a lock.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockProperties {
    /// By which it is settled.
    pub lock_token: String,
    /// Which attempt it is, from 1.
    pub delivery_count: u32,
    /// The event's name on the bus.
    pub name: String,
    /// That of the shard's ownership.
    pub epoch: u64,
}

/// What a member is given.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The events; none where there are none.
    pub value: Vec<Received>,
    /// How long their locks hold, in seconds.
    pub lock_duration_in_seconds: f64,
    /// After this many attempts an event is dead.
    pub max_delivery_count: u32,
}

/// The body of a request that changes locks.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LockChanges {
    /// The tokens.
    pub lock_tokens: Vec<String>,
    /// The exit code of the handler that has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// What it left on stderr.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stderr: String,
}

/// What has come of changes to locks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockAnswer {
    /// Tokens that are good for nothing, and why.
    pub failed_lock_tokens: Vec<FailedLock>,
}

/// A token that is good for nothing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedLock {
    /// The token.
    pub lock_token: String,
    /// Why.
    pub error: LockFailure,
}

/// Why a token is good for nothing.
#[derive(Debug, Deserialize)]
pub struct LockFailure {
    /// In words.
    pub message: String,
}

/// An error as the server tells it (RFC 9457).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ProblemBody {
    detail: String,
    /// Of the event that is wrong.
    line: Option<u64>,
    places: Vec<usize>,
}

struct Answer {
    headers: HeaderMap,
    body: Vec<u8>,
}

/// What is sent.
struct Sent {
    method: Method,
    path: String,
    query: String,
    body: Option<(&'static str, Vec<u8>)>,
    wait: Duration,
    /// How long the answer may take beyond that.
    timeout: Duration,
}

impl Sent {
    fn new(method: Method, path: impl Into<String>) -> Self {
        let query = String::new();
        Self { method, path: path.into(), query, body: None, wait: Duration::ZERO, timeout: TIMEOUT }
    }
}

impl Server {
    /// A server at a URL, which is not asked yet.
    ///
    /// # Errors
    /// The URL is none, or the token would not be safe.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, ServerError> {
        let url = WebhookTarget::parse_url(url).map_err(|_| ServerError::NoUrl(url.to_owned()))?;
        let authorization = match token {
            None => None,
            Some(_) if url.scheme() == "http" && !url.host_str().is_some_and(is_loopback) => {
                return Err(ServerError::ClearText(url.to_string()));
            }
            Some(token) => {
                let mut value =
                    HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| ServerError::Token)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let client = http_client(&url, TIMEOUT).map_err(ServerError::Client)?;
        Ok(Self { client, url, authorization })
    }

    /// Emits events, whose documents these are; repeating it is harmless. Returns how many of them were on
    /// the bus before. The answer may take so long.
    ///
    /// # Errors
    /// It is not known whether they are on the bus, or some are not.
    pub async fn emit(&self, documents: impl Iterator<Item = &[u8]>, timeout: Duration) -> Result<u64, RemoteError> {
        #[derive(Deserialize)]
        struct Emitted {
            duplicates: u64,
        }
        let mut body = Vec::new();
        for document in documents {
            body.extend_from_slice(document.trim_ascii_end());
            body.push(b'\n');
        }
        let sent =
            Sent { body: Some((NDJSON, body)), timeout: timeout.min(TIMEOUT), ..Sent::new(Method::POST, "events") };
        let answer = self.send(sent).await?;
        self.read::<Emitted>(&answer.body).map(|emitted| emitted.duplicates)
    }

    /// The query of the first batch.
    pub fn query(read: &ReadQuery) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, patterns) in [("type", read.types.types_text()), ("not", read.types.not_text())] {
            for pattern in patterns {
                query.append_pair(name, &pattern);
            }
        }
        if let Some(since) = &read.since {
            query.append_pair("since", since);
        }
        if let Some(last) = read.last {
            query.append_pair("last", &last.to_string());
        }
        query.append_pair("limit", &MOST_EVENTS.to_string());
        query.finish()
    }

    /// The next events by a query, of [`Server::query`] or of the batch before; where there are none, waits
    /// for so many seconds.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn events(&self, query: &str, wait: u64) -> Result<Batch, RemoteError> {
        let sent = Sent {
            query: format!("{query}&wait={wait}s"),
            wait: Duration::from_secs(wait),
            ..Sent::new(Method::GET, "events")
        };
        let answer = self.send(sent).await?;
        let text = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let next = text(LINK.as_str()).and_then(next_query).ok_or_else(|| self.strange("it links to no next batch"))?;
        Ok(Batch { events: self.read(&answer.body)?, next, gap: text(GAP).map(str::to_owned) })
    }

    /// What a group is.
    ///
    /// # Errors
    /// There is none (status 404), or the token does not allow it.
    pub async fn find_group(&self, group: &GroupName) -> Result<Definition, RemoteError> {
        let sent = Sent::new(Method::GET, format!("groups/{group}"));
        self.read(&self.send(sent).await?.body)
    }

    /// Makes a group, unless it is there.
    ///
    /// # Errors
    /// The group is another one, or the token does not allow it.
    pub async fn ensure_group(&self, group: &GroupName, wanted: &GroupBody) -> Result<Definition, RemoteError> {
        let body = serde_json::to_vec(wanted).unwrap_or_default();
        let sent = Sent { body: Some((JSON, body)), ..Sent::new(Method::PUT, format!("groups/{group}")) };
        self.read(&self.send(sent).await?.body)
    }

    /// Takes events of a group under locks; where there are none, waits for so many seconds.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn receive(&self, group: &GroupName, most: usize, wait: u64) -> Result<Receipt, RemoteError> {
        let sent = Sent {
            query: format!("maxEvents={most}&maxWaitTime={wait}"),
            wait: Duration::from_secs(wait),
            ..Sent::new(Method::POST, format!("groups/{group}:receive"))
        };
        let answer = self.send(sent).await?;
        self.read(&answer.body)
    }

    /// Says how events under locks have ended. Repeating it is harmless. The answer may take so long.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn settle(
        &self,
        group: &GroupName,
        kind: SettlementKind,
        changes: &LockChanges,
        timeout: Duration,
    ) -> Result<LockAnswer, RemoteError> {
        let (operation, query) = match kind {
            SettlementKind::Acknowledge => ("acknowledge", String::new()),
            SettlementKind::Release(pause) => {
                let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
                ("release", format!("releaseDelayInSeconds={seconds}"))
            }
            SettlementKind::Return => ("release", "counted=false".to_owned()),
            SettlementKind::Reject => ("reject", String::new()),
        };
        self.change_locks(group, operation, query, changes, timeout).await
    }

    /// Lets locks hold for their full time from now on.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn renew(
        &self,
        group: &GroupName,
        changes: &LockChanges,
        timeout: Duration,
    ) -> Result<LockAnswer, RemoteError> {
        self.change_locks(group, "renewLock", String::new(), changes, timeout).await
    }

    async fn change_locks(
        &self,
        group: &GroupName,
        operation: &str,
        query: String,
        changes: &LockChanges,
        timeout: Duration,
    ) -> Result<LockAnswer, RemoteError> {
        let sent = Sent {
            query,
            body: Some((JSON, serde_json::to_vec(changes).unwrap_or_default())),
            timeout: timeout.min(TIMEOUT),
            ..Sent::new(Method::POST, format!("groups/{group}:{operation}"))
        };
        let answer = self.send(sent).await?;
        self.read(&answer.body)
    }

    async fn send(&self, sent: Sent) -> Result<Answer, RemoteError> {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/{}", self.url.path().trim_end_matches('/'), sent.path));
        url.set_query(Some(&*sent.query).filter(|query| !query.is_empty()));
        let mut request = self.client.request(sent.method, url).header(ACCEPT, JSON).timeout(sent.wait + sent.timeout);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some((media_type, body)) = sent.body {
            request = request.header(CONTENT_TYPE, media_type).body(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?.to_vec();
        if status.is_success() {
            return Ok(Answer { headers, body });
        }
        let problem: ProblemBody = serde_json::from_slice(&body).unwrap_or_default();
        let detail = match problem.detail {
            // What else answers there, such as a proxy, has words of its own.
            detail if detail.is_empty() => status.canonical_reason().unwrap_or("refused").to_owned(),
            detail => detail,
        };
        let seconds = headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
        Err(RemoteError::Refused {
            url: self.url.to_string(),
            status: status.as_u16(),
            detail,
            is_about_one: problem.line.is_some(),
            places: problem.places,
            retry_after: seconds.map(Duration::from_secs),
        })
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, RemoteError> {
        serde_json::from_slice(body).map_err(|error| self.strange(&error.to_string()))
    }

    fn strange(&self, why: &str) -> RemoteError {
        RemoteError::Strange { url: self.url.to_string(), why: why.to_owned() }
    }

    fn unreachable(&self, error: &(dyn Error + 'static)) -> RemoteError {
        RemoteError::Unreachable { url: self.url.to_string(), why: http_cause(error) }
    }

    /// Its URL, as `EVBUS_URL` would have it.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }
}

/// The query of `</events?after=…>; rel="next"` (RFC 8288), without what it says of waiting.
fn next_query(link: &str) -> Option<String> {
    let (target, rel) = link.strip_prefix('<')?.split_once('>')?;
    let (_, query) = target.split_once('?').filter(|_| rel.contains("rel=\"next\""))?;
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("wait=")).collect();
    Some(kept.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_does_not_pass_in_clear_text() {
        for url in ["http://127.0.0.1:8787", "http://localhost", "http://[::1]:1/", "https://bus.example/x"] {
            assert!(Server::new(url, Some("t")).is_ok(), "{url}");
        }
        for url in ["http://bus.example", "http://10.0.0.1:8787"] {
            assert!(Server::new(url, None).is_ok(), "{url}");
            assert!(matches!(Server::new(url, Some("t")), Err(ServerError::ClearText(_))), "{url}");
        }
        assert!(matches!(Server::new("https://bus.example", Some("a\nb")), Err(ServerError::Token)));
        assert!(matches!(Server::new("s3://x", None), Err(ServerError::NoUrl(_))));
    }

    #[test]
    fn the_next_query_is_that_of_the_link() {
        let link = "</events?after=20261130T000000.000000Z&type=a&wait=30s&limit=5>; rel=\"next\"";
        assert_eq!(next_query(link).as_deref(), Some("after=20261130T000000.000000Z&type=a&limit=5"));
        for link in ["", "</events>; rel=\"next\"", "</events?a=b>; rel=\"prev\"", "<x"] {
            assert_eq!(next_query(link), None, "{link}");
        }
    }

    #[test]
    fn a_first_query_has_what_is_asked_for() {
        let types = TypeFilter::new(&["order.*".to_owned(), "a".to_owned()], &["order.test".to_owned()]).unwrap();
        let read = ReadQuery { types, since: Some("2026-11-30T00:00:00Z".to_owned()), last: Some(10) };
        let wanted = "type=a&type=order.*&not=order.test&since=2026-11-30T00%3A00%3A00Z&last=10&limit=1000";
        assert_eq!(Server::query(&read), wanted);
        assert_eq!(Server::query(&ReadQuery::default()), "limit=1000");
    }

    #[test]
    fn what_may_succeed_later_is_told_apart() {
        let refused = |status| RemoteError::Refused {
            url: String::new(),
            status,
            detail: String::new(),
            is_about_one: false,
            places: Vec::new(),
            retry_after: None,
        };
        assert!(refused(413).is_too_large_together() && !refused(400).is_too_large_together());
        assert!([429, 500, 503, 504].into_iter().all(|status| refused(status).is_temporary()));
        assert!([400, 401, 403, 404, 409, 413].into_iter().all(|status| !refused(status).is_temporary()));
    }
}
