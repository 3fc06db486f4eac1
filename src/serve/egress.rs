//! `GET /events`: events go out, from one cursor, in three ways: a batch, a stream of server-sent events,
//! and a WebSocket.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Extension, FromRequestParts, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use serde_json::json;
use tokio::sync::watch;

use super::connection::{Held, stopped};
use super::problem::Problem;
use super::{App, access::Grant};
use crate::Bus;
use crate::clock::{Clock, SystemClock};
use crate::config::instant::parse_past;
use crate::config::units::parse_duration;
use crate::embed::{Delivered, Subscription};
use crate::event::media_type::essence;
use crate::event::{Condition, Event, EventTime, Filter, TypeFilter};
use crate::feed::{Cursor, FeedItem, Order, ReadFrom, Selection};

const STREAM: &str = "text/event-stream";
const BATCH: &str = "application/cloudevents-batch+json; charset=utf-8";

/// What a client of a WebSocket asks for (CloudEvents WebSockets binding 1.0.2).
const PROTOCOL: &str = "cloudevents.json";

/// The attribute of an event on a WebSocket that holds the cursor behind it.
const CURSOR_ATTRIBUTE: &str = "evbuscursor";

/// The header of a batch before which events were pruned.
const GAP: HeaderName = HeaderName::from_static("evbus-gap");

/// A stream without events is kept alive so.
const IDLE: Duration = Duration::from_secs(15);

/// How long a client waits before it comes back, in milliseconds.
const RETRY_MILLIS: u32 = 2_000;

/// How far a cursor may be ahead of the clock.
const AHEAD: Duration = Duration::from_hours(25);

/// The most bytes of a message from a client of a WebSocket, which has nothing to say.
const MESSAGE_BYTES: usize = 4 << 10;

/// How many events a batch has unless told otherwise, and at most.
const LIMIT: usize = 100;
const MOST: usize = 1_000;

/// How long a request for a batch may wait.
const MOST_WAIT: Duration = Duration::from_secs(60);

/// What the query asks for.
struct Asked {
    selection: Selection,
    after: Option<Cursor>,
    since: Option<EventTime>,
    /// First the last so many of those that are there.
    last: Option<usize>,
    limit: usize,
    wait: Duration,
    /// The query without its place, for the link to the next batch.
    rest: String,
}

/// Gives events out in the way that the request's headers ask for.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Extension(held): Extension<Arc<Held>>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let grant = app.access.grant(request.headers())?;
    let asked = Asked::read(request.uri().query(), &grant)?;
    let (mut parts, _) = request.into_parts();
    // Another protocol may be passed over (RFC 9110, 7.8).
    let upgrade = parts.headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
    if upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket")) {
        let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &app).await;
        let upgrade = upgrade.map_err(|error| Problem::bad_request(error.to_string()))?.protocols([PROTOCOL]);
        let upgrade = upgrade.max_message_size(MESSAGE_BYTES).max_frame_size(MESSAGE_BYTES);
        // What each connection holds, also while nothing comes; 128 KiB unless told.
        let upgrade = upgrade.read_buffer_size(MESSAGE_BYTES).write_buffer_size(MESSAGE_BYTES);
        let start = asked.start(&app.bus, ReadFrom::Now).await?;
        let (subscription, _) = app.bus.subscribe(asked.selection, start, IDLE).await?;
        let stop = app.stop.clone();
        return Ok(upgrade.on_upgrade(|socket| async move {
            talk(socket, subscription, stop).await;
            drop(held);
        }));
    }
    if accepts_stream(&parts.headers) {
        let last = parts.headers.get("last-event-id").filter(|last| !last.is_empty());
        let last = last.map(|last| {
            let cursor = last.to_str().ok().and_then(read_cursor);
            cursor.ok_or_else(|| Problem::bad_request("Last-Event-ID is none that this server has sent"))
        });
        let start = match last.transpose()? {
            Some(cursor) => ReadFrom::Cursor(cursor),
            None => asked.start(&app.bus, ReadFrom::Now).await?,
        };
        return match app.bus.subscribe(asked.selection, start, IDLE).await {
            Ok((subscription, cursor)) => Ok(stream(subscription, &cursor, app.stop.clone())),
            // After another status an EventSource would not come back.
            Err(error) if error.is_transient() => Ok(stream_of(Body::from(format!("retry: {RETRY_MILLIS}\n\n")))),
            Err(error) => Err(error.into()),
        };
    }
    let start = asked.start(&app.bus, ReadFrom::Since(EventTime::MIN)).await?;
    let mut stop = app.stop.clone();
    let polled = app.bus.poll(asked.selection, start, asked.limit, asked.wait);
    let delivered = tokio::select! { biased;
        delivered = polled => delivered?,
        () = stopped(&mut stop) => return Err(Problem::unavailable("the server stops")),
    };
    Ok(batch(&delivered, &asked.rest))
}

/// A cursor that an evbus may have given: none has been ahead of its clock by a day.
fn read_cursor(text: &str) -> Option<Cursor> {
    Cursor::parse(text).filter(|cursor| cursor.position.time() <= SystemClock.now().plus(AHEAD))
}

fn accepts_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    accepted.flat_map(|accept| accept.split(',')).any(|one| essence(one) == STREAM && !is_refused(one))
}

/// Whether a media range has the weight 0, which means "not acceptable" (RFC 9110, 12.4.2).
fn is_refused(range: &str) -> bool {
    range.split(';').skip(1).any(|parameter| {
        let weight = parameter.trim().split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("q"));
        weight.is_some_and(|(_, weight)| weight.parse() == Ok(0.0))
    })
}

impl Asked {
    fn read(query: Option<&str>, grant: &Grant) -> Result<Self, Problem> {
        let (mut types, mut not) = (Vec::new(), Vec::new());
        let (mut condition, mut after, mut since, mut last) = (None, None, None, None);
        let (mut limit, mut wait, mut order) = (LIMIT, Duration::ZERO, Order::Arrival);
        let (mut rest, mut seen) = (form_urlencoded::Serializer::new(String::new()), BTreeSet::new());
        let now = SystemClock.now();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let wrong = |why: String| Problem::bad_request(format!("{name}: {why}")).member("parameter", &*name);
            if !["type", "not"].contains(&&*name) && !seen.insert(name.clone().into_owned()) {
                return Err(wrong("is there twice".to_owned()));
            }
            match &*name {
                "type" => types.extend(value.split(',').map(str::to_owned)),
                "not" => not.extend(value.split(',').map(str::to_owned)),
                "where" => {
                    condition = Some(Condition::parse(&value).map_err(|error| wrong(error.to_string()))?);
                }
                "after" => {
                    let cursor = read_cursor(&value).ok_or_else(|| wrong("is no cursor of this server".to_owned()))?;
                    after = Some(cursor);
                    continue;
                }
                "since" => {
                    let time = parse_past(&value, now, &jiff::tz::TimeZone::UTC);
                    since = Some(time.map_err(|error| wrong(error.to_string()))?);
                    continue;
                }
                "last" => {
                    match value.parse() {
                        Ok(number) if number <= MOST => last = Some(number),
                        _ => return Err(wrong(format!("must be a whole number up to {MOST}"))),
                    }
                    continue;
                }
                "limit" => match value.parse() {
                    Ok(number) if (1..=MOST).contains(&number) => limit = number,
                    _ => return Err(wrong(format!("must be a whole number from 1 to {MOST}"))),
                },
                "wait" => {
                    wait = parse_duration(&value).map_err(|error| wrong(error.to_string()))?.min(MOST_WAIT);
                }
                "order" => match &*value {
                    "settled" => order = Order::Settled,
                    "arrival" => order = Order::Arrival,
                    _ => return Err(wrong("must be settled or arrival".to_owned())),
                },
                _ => {
                    let known = "is not a parameter (type, not, where, after, since, last, limit, wait and order are)";
                    return Err(wrong(known.to_owned()));
                }
            }
            rest.append_pair(&name, &value);
        }
        if !not.is_empty() && types.is_empty() {
            types.push("**".to_owned());
        }
        let types = TypeFilter::new(&types, &not)
            .map_err(|error| Problem::bad_request(error.to_string()).member("parameter", "type"))?;
        let selection = Selection { filter: Filter { types, condition }, allowed: grant.readable()?, order };
        Ok(Self { selection, after, since, last, limit, wait, rest: rest.finish() })
    }

    async fn start(&self, bus: &Bus, otherwise: ReadFrom) -> Result<ReadFrom, Problem> {
        Ok(match (&self.after, self.since, self.last) {
            (Some(cursor), ..) => ReadFrom::Cursor(cursor.clone()),
            (None, since, Some(last)) => {
                let types = self.selection.filter.types.clone();
                bus.last_events(types, since.unwrap_or(EventTime::MIN), last).await?
            }
            (None, Some(since), None) => ReadFrom::Since(since),
            (None, None, None) => otherwise,
        })
    }
}

/// A batch, with a link to the next one.
fn batch(delivered: &Delivered, rest: &str) -> Response {
    let size = delivered.items.iter().map(|item| item.document.len() + 1).sum::<usize>();
    let mut body = BytesMut::with_capacity(size + 3);
    body.put_u8(b'[');
    for (at, item) in delivered.items.iter().enumerate() {
        if at > 0 {
            body.put_u8(b',');
        }
        body.put_slice(&item.document);
    }
    body.put_slice(b"]\n");
    let mut response = Response::new(Body::from(body.freeze()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(BATCH));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let mut query = format!("after={}", delivered.cursor);
    if !rest.is_empty() {
        query.push('&');
        query.push_str(rest);
    }
    // Everything in it is encoded.
    if let Ok(link) = HeaderValue::from_str(&format!("</events?{query}>; rel=\"next\"")) {
        headers.insert(header::LINK, link);
    }
    if let Some(gap) = delivered.gap
        && let Ok(gap) = HeaderValue::from_str(&gap.to_rfc3339())
    {
        headers.insert(GAP, gap);
    }
    response
}

/// Server-sent events: the cursor is the id of each.
fn stream(subscription: Subscription, cursor: &Cursor, stop: watch::Receiver<bool>) -> Response {
    let begin = Bytes::from(format!("retry: {RETRY_MILLIS}\n{}", cursor_text(cursor)));
    let next = |(begin, mut subscription, mut stop): (Option<Bytes>, Subscription, watch::Receiver<bool>)| async move {
        if let Some(begin) = begin {
            return Some((Ok::<_, std::io::Error>(begin), (None, subscription, stop)));
        }
        let delivered = tokio::select! { biased;
            delivered = subscription.next() => delivered?,
            () = stopped(&mut stop) => return None,
        };
        // What cannot be read ends the stream; the client comes back.
        let chunk = delivered.ok().map(|delivered| stream_text(&delivered))?;
        Some((Ok(chunk), (None, subscription, stop)))
    };
    stream_of(Body::from_stream(futures_util::stream::unfold((Some(begin), subscription, stop), next)))
}

fn stream_of(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(STREAM));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would gather it otherwise.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn stream_text(delivered: &Delivered) -> Bytes {
    let size = delivered.items.iter().map(|item| item.document.len() + 128).sum::<usize>();
    let mut text = BytesMut::with_capacity(size.max(128));
    if let Some(gap) = delivered.gap {
        text.put_slice(format!("event: gap\ndata: {}\n\n", json!({ "pruned": gap.to_rfc3339() })).as_bytes());
    }
    for FeedItem { document, cursor, .. } in &delivered.items {
        text.put_slice(format!("id: {cursor}\ndata: ").as_bytes());
        text.put_slice(document);
        text.put_slice(b"\n\n");
    }
    match (delivered.items.is_empty(), delivered.has_moved) {
        (false, _) => {}
        (true, true) => text.put_slice(cursor_text(&delivered.cursor).as_bytes()),
        // A comment keeps the connection alive.
        (true, false) => text.put_slice(b":\n\n"),
    }
    text.freeze()
}

/// What moves the cursor of a client without an event of the bus. With an id alone some libraries would
/// keep nothing.
fn cursor_text(cursor: &Cursor) -> String {
    format!("event: cursor\nid: {cursor}\ndata: {{}}\n\n")
}

/// One event a message, each with its cursor; until the client goes, or the server stops.
async fn talk(mut socket: WebSocket, mut subscription: Subscription, mut stop: watch::Receiver<bool>) {
    let close = |code, reason: &'static str| Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    loop {
        let delivered = tokio::select! { biased;
            () = stopped(&mut stop) => {
                let _ = socket.send(close(close_code::RESTART, "the server stops")).await;
                return;
            }
            // Nothing is expected; pings are answered by the library.
            received = socket.recv() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
            delivered = subscription.next() => delivered,
        };
        let Some(Ok(delivered)) = delivered else {
            let _ = socket.send(close(close_code::AGAIN, "the bus cannot be read now")).await;
            return;
        };
        let gap = delivered.gap.map(|gap| gap_event(gap, &delivered.cursor));
        let events = delivered.items.iter().map(|item| with_cursor(&item.document, &item.cursor));
        let mut sent = true;
        for text in gap.into_iter().chain(events) {
            sent = sent && socket.feed(Message::Text(text.into())).await.is_ok();
        }
        if delivered.items.is_empty() {
            sent = sent && socket.send(Message::Ping(Bytes::new())).await.is_ok();
        }
        if !sent || socket.flush().await.is_err() {
            return;
        }
    }
}

/// The event with its cursor as an attribute; one that it has from another bus is replaced.
fn with_cursor(document: &[u8], cursor: &Cursor) -> String {
    let text = String::from_utf8_lossy(document);
    if text.contains(CURSOR_ATTRIBUTE)
        && let Ok(event) = Event::parse(document, usize::MAX)
        && event.extensions().contains_key(CURSOR_ATTRIBUTE)
        && let Ok(event) = event.into_builder().extension(CURSOR_ATTRIBUTE, cursor.to_string()).build()
    {
        return String::from_utf8_lossy(event.to_json().trim_ascii_end()).into_owned();
    }
    match text.strip_suffix('}') {
        Some(open) => format!("{open},\"{CURSOR_ATTRIBUTE}\":\"{cursor}\"}}"),
        None => text.into_owned(),
    }
}

/// What tells a client of a WebSocket that it may have missed events.
fn gap_event(gap: EventTime, cursor: &Cursor) -> String {
    let event = json!({
        "specversion": "1.0",
        "id": format!("gap-{cursor}"),
        "source": "/evbus",
        "type": "evbus.gap",
        "data": { "pruned": gap.to_rfc3339() },
    });
    event.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_for_those_who_accept_one() {
        let accepts = |all: &[&'static str]| {
            let values = all.iter().map(|value| (header::ACCEPT, HeaderValue::from_static(value)));
            accepts_stream(&values.collect())
        };
        for accepted in [&["text/event-stream"][..], &["*/*", "a/b, Text/Event-Stream; q=0.5"]] {
            assert!(accepts(accepted), "{accepted:?}");
        }
        for other in [&[][..], &["*/*"], &["text/event-stream;q=0"], &["text/event-stream; a=b; Q=0.000, a/b"]] {
            assert!(!accepts(other), "{other:?}");
        }
    }

    #[test]
    fn an_event_has_its_cursor_on_a_websocket() {
        let cursor = Cursor::parse("20261129T021530.000000Z_0000abcd_7").unwrap();
        let text = with_cursor(br#"{"id":"1","data":{"a":{}}}"#, &cursor);
        assert_eq!(text, r#"{"id":"1","data":{"a":{}},"evbuscursor":"20261129T021530.000000Z_0000abcd_7"}"#);
        let text =
            with_cursor(br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","evbuscursor":"x"}"#, &cursor);
        assert_eq!(text.matches("evbuscursor").count(), 1, "{text}");
        let gap: serde_json::Value = serde_json::from_str(&gap_event(EventTime::MIN, &cursor)).unwrap();
        assert_eq!(gap["type"], "evbus.gap");
    }
}
