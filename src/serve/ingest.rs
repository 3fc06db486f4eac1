//! `POST /events`: events come in, and are acknowledged once they are on the bus.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use serde::Serialize;

use super::decode::{Events, Form};
use super::problem::Problem;
use super::{App, body, json_response};
use crate::bus::chain::DEPTH;
use crate::bus::emit::AckKind;
use crate::{NewEvent, threads};

/// A body of more bytes is read on another thread.
const LARGE: usize = 256 << 10;

/// CloudEvents Web Hooks 1.0.2, 4.
pub(super) const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// Takes events in.
pub(super) async fn events(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let grant = app.access.grant(&parts.headers)?;
    grant.check_emits()?;
    let form = Form::of(parts.uri.query(), &parts.headers)?;
    if let Some(type_) = form.type_() {
        grant.check_emit(type_)?;
    }
    let most = if form.is_one() { app.most_of_one_event() } else { app.settings.max_body };
    let body = body::read(body, &parts.headers, most, &app.room).await?;
    let (limit, has_segments) = (app.max_event_bytes, app.batcher.has_segments());
    let events = match body.bytes.len() > LARGE {
        false => form.read(&body.bytes, limit, has_segments)?,
        true => {
            let bytes = body.bytes.clone();
            let read = threads::run(move || form.read(&bytes, limit, has_segments)).await;
            read.unwrap_or_else(|| Err(Problem::unavailable("the body could not be read")))?
        }
    };
    match events {
        // Their type is checked above.
        Events::Lines(lines) => {
            let ids = app.batcher.put_lines(lines).await?;
            Ok(accepted(ids.iter().map(|id| &**id), 0))
        }
        Events::Each(events) => {
            for event in &events {
                grant.check_emit(event.type_())?;
            }
            emit(&app, events).await
        }
    }
}

/// Emits events, and tells their ids.
pub(super) async fn emit(app: &App, events: Vec<NewEvent>) -> Result<Response, Problem> {
    if let Some((place, chain)) = app.bus.long_chain(&events).await? {
        let problem = Problem::bad_request(chain.to_string()).member("attribute", DEPTH);
        return Err(if events.len() > 1 { problem.at("element", place + 1) } else { problem });
    }
    let acks = app.batcher.put_all(events).await?;
    let taken = acks.iter().enumerate().filter(|(_, (_, ack))| ack.kind == AckKind::IdTaken);
    let (places, taken): (Vec<usize>, Vec<&str>) = taken.map(|(place, (id, _))| (place, &**id)).unzip();
    if let Some(first) = taken.first() {
        let what = match taken.len() {
            1 => format!("id '{first}' is another event's"),
            all => format!("{all} ids are other events', the first is '{first}'"),
        };
        let others = if taken.len() < acks.len() { "; the others are on the bus" } else { "" };
        // Events of several sources may have one id.
        return Err(Problem::conflict(format!("{what}{others}")).member("ids", taken).member("places", places));
    }
    let duplicates = acks.iter().filter(|(_, ack)| ack.kind == AckKind::Duplicate).count();
    Ok(accepted(acks.iter().map(|(id, _)| &**id), duplicates))
}

/// What was emitted.
fn accepted<'a>(ids: impl Iterator<Item = &'a str>, duplicates: usize) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        ids: Vec<&'a str>,
        duplicates: usize,
    }
    let mut body = serde_json::to_string(&Body { ids: ids.collect(), duplicates }).unwrap_or_default();
    body.push('\n');
    json_response(StatusCode::ACCEPTED, body)
}

/// Consents to the deliveries of a sender of webhooks. A page's preflight request, which other headers
/// tell, is answered before.
pub(super) async fn options(headers: HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    answer.insert(header::ALLOW, HeaderValue::from_static("GET, POST, OPTIONS"));
    if let Some(origin) = headers.get(REQUEST_ORIGIN) {
        answer.insert(ALLOWED_ORIGIN, origin.clone());
        if headers.contains_key(REQUEST_RATE) {
            answer.insert(ALLOWED_RATE, HeaderValue::from_static("*"));
        }
    }
    response
}
