//! The page: groups, events as they come, dead letters. Three static files, and a cookie for the token,
//! because a browser's `EventSource` sends no header.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;

use super::access::{cookie_of, presented};
use super::problem::Problem;
use super::{App, Peer, fresh_json};

const HTML: &str = include_str!("page/index.html");
const CSS: &str = include_str!("page/page.css");
const JS: &str = include_str!("page/page.js");

/// Only this server's own files, no script in the page itself, and no other page around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn html() -> Response {
    file("text/html; charset=utf-8", HTML)
}

pub(super) async fn css() -> Response {
    file("text/css; charset=utf-8", CSS)
}

pub(super) async fn js() -> Response {
    file("text/javascript; charset=utf-8", JS)
}

fn file(media_type: &'static str, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Says what the page may do.
pub(super) async fn session(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let grant = app.access.grant(&headers)?;
    let token = presented(&headers).is_some();
    let may = json!({ "admin": grant.check_admin().is_ok(), "read": grant.readable().is_ok(), "token": token });
    Ok(fresh_json(format!("{may}\n")))
}

/// Keeps a token for the page, where no script can read it and no other site can send it.
pub(super) async fn sign_in(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.access.grant(&headers)?;
    match headers.get(header::AUTHORIZATION).and(presented(&headers)) {
        Some(token) => Ok(with_cookie(&cookie_of(&token), peer)),
        None => Err(Problem::bad_request("there is no token: Authorization: Bearer TOKEN")),
    }
}

pub(super) async fn sign_out(Extension(peer): Extension<Peer>) -> Response {
    with_cookie(&format!("{}; Max-Age=0", cookie_of(b"")), peer)
}

fn with_cookie(cookie: &str, peer: Peer) -> Response {
    let secure = if peer.is_tls { "; Secure" } else { "" };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(cookie) = HeaderValue::from_str(&format!("{cookie}; Path=/; HttpOnly; SameSite=Strict{secure}")) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}
