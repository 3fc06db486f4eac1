//! From where a request may come: the names of this server, against DNS rebinding, and the pages that
//! may call it. A page of another site must not be able to emit to a developer's machine.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;

use super::problem::Problem;
use super::{App, Peer, Reach};
use crate::config::{ServeSettings, is_loopback};

const METHODS: &str = "GET, POST, PUT";

/// How many seconds a browser may rely on the answer to its preflight request.
const PREFLIGHT_SECONDS: u64 = 7_200;

/// What a page of another origin may read of a response.
const EXPOSED: &str = "link, evbus-gap, location, retry-after, www-authenticate";

/// Refuses a request by its host and its origin, and tells a page of an allowed origin that it may read
/// the response.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        return Problem::bad_request("the connection is not known").into_response();
    };
    let (origin, mut response) = match judge(&app.settings, peer, request.uri(), request.headers()) {
        // That the origin is allowed was checked before.
        Ok(origin) if is_preflight(&request) => (origin, preflight(request.headers())),
        Ok(origin) => (origin, next.run(request).await),
        Err(problem) => (None, problem.into_response()),
    };
    let headers = response.headers_mut();
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Whether a browser asks for a page if it may send a request (Fetch, CORS-preflight request). Hooks are for
/// services and forms: a page's program may send them no JSON.
fn is_preflight(request: &Request<Body>) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        && !request.headers().contains_key(super::ingest::REQUEST_ORIGIN)
        && !request.uri().path().starts_with("/hooks/")
}

fn preflight(headers: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    answer.insert(header::ALLOW, HeaderValue::from_static("GET, POST, PUT, OPTIONS"));
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(PREFLIGHT_SECONDS));
    response
}

/// The allowed origin of a page from elsewhere; none if the request comes from no page, or from one of
/// this server.
fn judge(settings: &ServeSettings, peer: Peer, uri: &Uri, headers: &HeaderMap) -> Result<Option<HeaderValue>, Problem> {
    if percent_decode_str(uri.path()).decode_utf8().is_err() {
        return Err(Problem::bad_request("the path is not UTF-8, percent-encoded"));
    }
    let host = host(uri, headers)?;
    let name = without_port(&host);
    let knows_names = peer.reach == Reach::Loopback || (peer.reach == Reach::Network && !settings.hosts.is_empty());
    if knows_names && !is_loopback(name) && !settings.hosts.iter().any(|known| known == name) {
        let what = format!("'{}' is not a name of this server (see hosts in [serve])", name.escape_debug());
        return Err(Problem::misdirected(what));
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(None) };
    let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
    let scheme = if peer.is_tls { "https" } else { "http" };
    if peer.reach != Reach::Unix && text == format!("{scheme}://{host}") {
        return Ok(None);
    }
    if settings.origins.contains(&text) {
        return Ok(Some(origin.clone()));
    }
    let what = format!("pages of '{}' may not call this server (see origins in [serve])", text.escape_debug());
    Err(Problem::forbidden(what))
}

/// The host that the client has asked for, with its port, in lower case.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<String, Problem> {
    let mut all = headers.get_all(header::HOST).iter();
    let text = match (uri.authority(), all.next(), all.next()) {
        (_, _, Some(_)) => None,
        (Some(authority), ..) => Some(authority.as_str()),
        (None, host, None) => host.and_then(|host| host.to_str().ok()),
    };
    match text.map(str::trim) {
        None | Some("") => Err(Problem::bad_request("the request has no single Host header")),
        Some(text) if text.contains('@') => Err(Problem::bad_request("the Host header holds an '@'")),
        Some(text) => Ok(text.to_ascii_lowercase()),
    }
}

fn without_port(host: &str) -> &str {
    let end = host.find(']').map_or(0, |bracket| bracket + 1);
    match host[end..].find(':') {
        Some(colon) => &host[..end + colon],
        None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Peer = Peer { reach: Reach::Loopback, is_tls: false };

    fn judged(peer: Peer, host: &str, origin: Option<&str>) -> Result<bool, u16> {
        let settings = ServeSettings {
            hosts: vec!["bus.example".to_owned()],
            origins: vec!["https://app.example".to_owned()],
            ..ServeSettings::default()
        };
        let mut headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_str(host).unwrap())]);
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        match judge(&settings, peer, &Uri::from_static("/events"), &headers) {
            Ok(origin) => Ok(origin.is_some()),
            Err(problem) => Err(problem.into_response().status().as_u16()),
        }
    }

    #[test]
    fn only_own_names_are_answered() {
        for host in ["localhost", "LOCALHOST:8787", "127.0.0.1:8787", "[::1]:8787", "127.8.8.8", "bus.example:443"] {
            assert_eq!(judged(LOCAL, host, None), Ok(false), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example:8787", "10.0.0.1", "[::2]", "bus.example.", "localhost@evil"]
        {
            assert!(judged(LOCAL, host, None).is_err(), "{host}");
        }
        let unix = Peer { reach: Reach::Unix, ..LOCAL };
        assert_eq!(judged(unix, "anything", None), Ok(false));
        let remote = Peer { reach: Reach::Network, ..LOCAL };
        assert_eq!(judged(remote, "other.example", None), Err(421), "where hosts are named, only these");
    }

    #[test]
    fn a_path_is_utf_8() {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost"))]);
        let judged = |path| judge(&ServeSettings::default(), LOCAL, &Uri::from_static(path), &headers).is_ok();
        assert!(judged("/groups/%C3%A9") && !judged("/groups/%FF"));
    }

    #[test]
    fn only_pages_of_known_origins_may_call() {
        assert_eq!(judged(LOCAL, "localhost:8787", Some("http://localhost:8787")), Ok(false), "its own page");
        assert_eq!(judged(LOCAL, "localhost:8787", Some("https://APP.example")), Ok(true));
        for origin in [
            "null",
            "http://localhost",
            "http://localhost:8788",
            "https://localhost:8787",
            "http://evil.example",
            "https://app.example.evil",
            "https://app.example:444",
        ] {
            assert_eq!(judged(LOCAL, "localhost:8787", Some(origin)), Err(403), "{origin}");
        }
        let tls = Peer { is_tls: true, ..LOCAL };
        assert_eq!(judged(tls, "bus.example", Some("https://bus.example")), Ok(false));
        let unix = Peer { reach: Reach::Unix, ..LOCAL };
        assert_eq!(judged(unix, "x", Some("http://x")), Err(403), "no page opens a Unix socket by itself");
    }
}
