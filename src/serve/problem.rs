//! Errors as `application/problem+json` (RFC 9457).

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::Error;
use crate::bus::group_name::GroupNameError;
use crate::event::EventError;
use crate::store::ErrorKind;

/// After this many seconds a client may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_STORE: Duration = Duration::from_secs(5);

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    /// Further members, such as the line or the attribute that is wrong.
    members: Vec<(&'static str, Value)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), members: Vec::new(), headers: Vec::new() }
    }

    /// 400: the request is not as it is to be.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401: the bearer is not known.
    pub fn unauthorized(detail: impl Into<String>, challenge: &'static str) -> Self {
        let challenge = HeaderValue::from_static(challenge);
        Self::new(StatusCode::UNAUTHORIZED, detail).header(header::WWW_AUTHENTICATE, challenge)
    }

    /// 403: the request is refused, whoever sends it.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 403: the bearer may not do this.
    pub fn insufficient(scope: &str) -> Self {
        let problem = Self::forbidden(format!("the token does not allow {scope}"));
        let scope: String =
            scope.chars().filter(|c| c.is_ascii_graphic() && *c != '"' && *c != '\\').take(120).collect();
        let challenge = format!("Bearer realm=\"evbus\", error=\"insufficient_scope\", scope=\"{scope}\"");
        match HeaderValue::from_str(&challenge) {
            Ok(challenge) => problem.header(header::WWW_AUTHENTICATE, challenge),
            Err(_) => problem,
        }
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 405; which methods there are is told by the router.
    pub fn method_not_allowed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }

    /// 408: the body comes too slowly. The connection is not used again.
    pub fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the body comes too slowly").closing()
    }

    /// 409: an id is another event's.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// 413. The connection is not used again: the rest of the body is not read.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail).closing()
    }

    /// 415.
    pub fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    /// 421: the name of another server.
    pub fn misdirected(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, detail)
    }

    /// 429: more bodies are under way than fit into memory.
    pub fn too_many() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too much is under way").retry_after(RETRY_AFTER).closing()
    }

    /// 503.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(RETRY_STORE)
    }

    fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// Names the event of a body by its number, from 1: `line` or `element`.
    pub fn at(mut self, what: &'static str, number: usize) -> Self {
        self.detail = format!("{what} {number}: {}", self.detail);
        self.member(what, number)
    }

    /// Adds a member.
    pub fn member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn retry_after(self, pause: Duration) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(pause.as_secs()))
    }

    fn closing(self) -> Self {
        self.header(header::CONNECTION, HeaderValue::from_static("close"))
    }
}

impl From<EventError> for Problem {
    fn from(error: EventError) -> Self {
        let detail = format!("the event {error}");
        match error {
            EventError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail),
            EventError::Attribute { name, .. } => Self::bad_request(detail).member("attribute", name),
            _ => Self::bad_request(detail),
        }
    }
}

impl From<GroupNameError> for Problem {
    fn from(error: GroupNameError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Event(error) => error.into(),
            Error::Data(error) => {
                Self::bad_request(format!("the data cannot be read by most readers of JSON: {error}"))
            }
            Error::NoGroup { .. } => Self::not_found(error.to_string()),
            Error::GroupDiffers { .. } => Self::conflict(error.to_string()),
            Error::NeedsStart { .. } => {
                Self::conflict(format!("{error} (add \"start\": \"now\" or \"earliest\")")).member("parameter", "start")
            }
            Error::IdTaken { id } => Self::conflict(format!("id '{id}' is another event's")),
            Error::Store(error) => match error.kind() {
                ErrorKind::Unavailable | ErrorKind::Full | ErrorKind::NotDurable | ErrorKind::Denied => {
                    Self::unavailable(error.to_string())
                }
                ErrorKind::NoBus | ErrorKind::Damaged | ErrorKind::Unfit | ErrorKind::Other => {
                    Self::internal(error.to_string())
                }
            },
            Error::Closed | Error::Thread(_) => Self::unavailable(error.to_string()),
            error => Self::bad_request(error.to_string()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or_default();
        let mut body =
            json!({ "type": "about:blank", "title": title, "status": self.status.as_u16(), "detail": self.detail });
        for (name, value) in self.members {
            body[name] = value;
        }
        let mut response = Response::new(Body::from(format!("{body}\n")));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.extend(self.headers);
        response
    }
}
