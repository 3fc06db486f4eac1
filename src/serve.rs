//! The HTTP face: events come in by POST, go out by GET, and webhooks of other services become events.
//!
//! A request is checked before its body is read: whose it is, from which page, and what it may do.
//! What is acknowledged, with 202, is on the bus. All errors are `application/problem+json` (RFC 9457).

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use tokio::sync::{Semaphore, watch};

use crate::clock::{Clock, SystemClock};
use crate::config::ServeSettings;
use crate::{Batcher, Bus};

mod access;
mod body;
mod connection;
mod decode;
mod egress;
mod groups;
mod guard;
mod hooks;
mod ingest;
mod listen;
mod operate;
mod page;
mod parameters;
mod problem;

pub use access::{Access, AccessError};
pub use groups::GroupBody;
pub(crate) use groups::{MOST_DELAY, MOST_EVENTS, MOST_TOKENS};
pub use hooks::{HookError, Hooks};
pub use listen::{ListenError, Listeners};

use problem::Problem;

/// The most KiB of bodies in memory.
const ROOM_KIB: usize = 64 << 10;

/// What every request needs.
struct App {
    bus: Bus,
    settings: ServeSettings,
    batcher: Batcher,
    access: Access,
    hooks: Hooks,
    /// For bodies, in KiB.
    room: Arc<Semaphore>,
    /// For members that wait: some connections are left for what they have to say.
    waiting: Semaphore,
    max_event_bytes: usize,
    /// Set once the server stops.
    stop: watch::Receiver<bool>,
}

impl App {
    /// The largest body that holds one event, in bytes: in a form a byte may be three.
    fn most_of_one_event(&self) -> usize {
        self.settings.max_body.min(self.max_event_bytes.saturating_mul(3))
    }
}

/// From where a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// By a Unix socket, which no web page can open.
    Unix,
    /// By the loopback interface.
    Loopback,
    /// By another one.
    Network,
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Peer {
    reach: Reach,
    /// Whether the client speaks TLS, to this server or to the proxy before it.
    is_tls: bool,
}

/// Answers requests until `stop` says so; then what is under way is finished.
pub async fn serve(
    bus: &Bus,
    settings: ServeSettings,
    (access, hooks): (Access, Hooks),
    listeners: Listeners,
    stop: watch::Receiver<bool>,
) {
    let batcher = match settings.linger {
        Some(linger) => bus.batcher().linger(linger),
        None => bus.batcher(),
    };
    let connections = settings.max_connections;
    let app = Arc::new(App {
        hooks,
        batcher,
        access,
        room: Arc::new(Semaphore::new(ROOM_KIB)),
        waiting: Semaphore::new((connections * 3 / 4).max(1)),
        max_event_bytes: bus.max_event_bytes(),
        stop: stop.clone(),
        bus: bus.clone(),
        settings,
    });
    let mut stopping = stop.clone();
    let give_back = async {
        connection::stopped(&mut stopping).await;
        // What members are saying now is still taken in.
        SystemClock.sleep_until(SystemClock.elapsed() + connection::GRACE).await;
        bus.stop_pulls().await;
    };
    tokio::join!(connection::serve(router(app), listeners, connections, stop), give_back);
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/events", get(egress::events).post(ingest::events).options(ingest::options))
        .route("/events/{id}", get(operate::event))
        .route("/groups", get(operate::groups))
        .route("/groups/{name}/dead", get(operate::dead_letters))
        .route("/groups/{name}", get(groups::get).post(groups::act).put(groups::put))
        .route("/hooks/{name}", post(hooks::receive))
        .route("/", get(page::html))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::js))
        .route("/session", get(page::session).post(page::sign_in).delete(page::sign_out))
        .route("/healthz", get(healthy))
        .route("/openapi.json", get(openapi))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), guard::check))
        .with_state(app)
}

async fn healthy() -> &'static str {
    "ok\n"
}

/// What there is, for programs (OpenAPI 3.1).
const OPENAPI: &str = include_str!("serve/openapi.json");

async fn openapi() -> Response {
    json_response(StatusCode::OK, OPENAPI.to_owned())
}

async fn no_such_path(request: Request<Body>) -> Problem {
    Problem::not_found(format!("there is nothing at {}", request.uri().path()))
}

async fn no_such_method(request: Request<Body>) -> Problem {
    Problem::method_not_allowed(format!("{} is not for {}", request.method(), request.uri().path()))
}

/// A response of JSON.
fn json_response(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// The same of what changes at any time.
fn fresh_json(body: impl Into<Body>) -> Response {
    let mut response = json_response(StatusCode::OK, String::new());
    *response.body_mut() = body.into();
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_of_this_version_and_of_these_paths() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let code = include_str!("serve.rs").split("mod tests").next().unwrap();
        let routes = code.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        let routes: std::collections::BTreeSet<&str> = routes.collect();
        let paths = document["paths"].as_object().unwrap().keys().map(String::as_str);
        let (operations, paths): (std::collections::BTreeSet<&str>, std::collections::BTreeSet<&str>) =
            paths.partition(|path| path.contains("}:"));
        assert_eq!(routes, paths);
        let known = groups::operations().map(|name| format!("/groups/{{name}}:{name}"));
        assert_eq!(operations, known.iter().map(String::as_str).collect());
    }
}
