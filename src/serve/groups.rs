//! `/groups`: members without access to the store fetch a group's events, and say how each ended. The
//! operations and their JSON are those of the pull delivery of Azure Event Grid namespaces.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::connection::stopped;
use super::operate::{self, Deed};
use super::parameters::{Parameters, read_object, read_object_or_nothing};
use super::problem::Problem;
use super::{App, body, fresh_json, json_response};
use crate::clock::{Clock, SystemClock};
use crate::config::PullSettings;
use crate::config::instant::parse_past;
use crate::embed::{HandedOut, LockChange, Settlement, SettlementKind, WantedGroup};
use crate::event::{Condition, Filter, TypeFilter};
use crate::group::GroupName;
use crate::group::definition::{Definition, MOST_SHARDS, Start};

/// How many events a member is given unless told otherwise, and at most.
const EVENTS: usize = 1;
pub(crate) const MOST_EVENTS: usize = 100;

/// How many seconds a member waits unless told otherwise, and at most.
const WAIT: u64 = 60;
const MOST_WAIT: u64 = 120;

/// For how many seconds a release may hold an event back.
pub(crate) const MOST_DELAY: u64 = 7 * 24 * 3_600;

/// The largest body that changes locks, in bytes, and the most tokens in it.
const MOST_BODY: usize = 256 << 10;
pub(crate) const MOST_TOKENS: usize = 1_000;

/// What a member says left by its own handler is cut to this many bytes.
const STDERR_BYTES: usize = 4 << 10;

/// What a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Receive,
    Acknowledge,
    Release,
    Reject,
    RenewLock,
    Operate(Deed),
}

impl Operation {
    const ALL: [(&'static str, Self); 8] = [
        ("receive", Self::Receive),
        ("acknowledge", Self::Acknowledge),
        ("release", Self::Release),
        ("reject", Self::Reject),
        ("renewLock", Self::RenewLock),
        ("pause", Self::Operate(Deed::Pause)),
        ("resume", Self::Operate(Deed::Resume)),
        ("redrive", Self::Operate(Deed::Redrive)),
    ];
}

/// The names of the operations, as the path has them.
#[cfg(test)]
pub(super) fn operations() -> [&'static str; 8] {
    Operation::ALL.map(|(name, _)| name)
}

/// What a body says of locks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Locks {
    lock_tokens: Vec<String>,
    /// Of the handler that has failed.
    exit: Option<i32>,
    stderr: Option<String>,
}

/// The group and the operation of a path: `mail:receive`.
fn read_path(path: &str) -> Result<(GroupName, Operation), Problem> {
    let nothing = || Problem::not_found(format!("there is nothing at /groups/{path}"));
    let (group, name) = path.rsplit_once(':').ok_or_else(nothing)?;
    let (_, operation) = Operation::ALL.into_iter().find(|(known, _)| *known == name).ok_or_else(nothing)?;
    let group = GroupName::parse(group)?;
    Ok((group, operation))
}

/// Does what a member asks for.
pub(super) async fn act(
    State(app): State<Arc<App>>,
    Path(path): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let grant = app.access.grant(&parts.headers)?;
    let (group, operation) = read_path(&path)?;
    if let Operation::Operate(deed) = operation {
        grant.check_admin()?;
        return operate::act(&app, group, deed, (parts, body)).await;
    }
    grant.check_pull(&group)?;
    let query = parts.uri.query();
    let kind = match operation {
        Operation::Receive => return receive(&app, group, query).await,
        Operation::Acknowledge => Parameters::read(query, &[]).map(|_| Some(SettlementKind::Acknowledge))?,
        Operation::Reject => Parameters::read(query, &[]).map(|_| Some(SettlementKind::Reject))?,
        Operation::RenewLock | Operation::Operate(_) => Parameters::read(query, &[]).map(|_| None)?,
        Operation::Release => {
            let parameters = Parameters::read(query, &["releaseDelayInSeconds", "counted"])?;
            let delay = parameters.number("releaseDelayInSeconds", 0, MOST_DELAY, 0)?;
            Some(match parameters.flag("counted", true)? {
                true => SettlementKind::Release(Duration::from_secs(delay)),
                false => SettlementKind::Return,
            })
        }
    };
    let body = body::read(body, &parts.headers, MOST_BODY, &app.room).await?;
    let locks: Locks = read_object(&body.bytes)
        .map_err(|why| Problem::bad_request(format!("the body is not {{\"lockTokens\": [\"…\"]}}: {why}")))?;
    if !(1..=MOST_TOKENS).contains(&locks.lock_tokens.len()) {
        let what = format!("lockTokens: must be from 1 to {MOST_TOKENS} tokens");
        return Err(Problem::bad_request(what).member("parameter", "lockTokens"));
    }
    let change = match kind {
        None => LockChange::Renew,
        Some(kind) => {
            let mut stderr = locks.stderr.unwrap_or_default();
            // Its end tells why it failed.
            let cut = stderr.ceil_char_boundary(stderr.len().saturating_sub(STDERR_BYTES));
            stderr.drain(..cut);
            LockChange::Settle(Settlement { kind, exit: locks.exit, stderr })
        }
    };
    let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
    for (token, changed) in app.bus.change_locks(group, locks.lock_tokens, change).await? {
        match changed {
            Ok(()) => succeeded.push(token),
            Err(error) => {
                let error = json!({ "code": error.code(), "message": error.to_string() });
                failed.push(json!({ "lockToken": token, "error": error }));
            }
        }
    }
    let answer = json!({ "succeededLockTokens": succeeded, "failedLockTokens": failed });
    Ok(json_response(StatusCode::OK, format!("{answer}\n")))
}

/// What a body says of a group that is to be there.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupBody {
    /// Wanted types.
    pub types: Vec<String>,
    /// Unwanted types.
    pub not: Vec<String>,
    /// A CEL condition.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Where it starts: `earliest`, `now` or a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// How many shards it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<u16>,
}

impl GroupBody {
    fn wanted(&self) -> Result<WantedGroup, Problem> {
        let wrong = |name: &'static str| {
            move |why: String| Problem::bad_request(format!("{name}: {why}")).member("parameter", name)
        };
        let start = match self.start.as_deref() {
            None => None,
            Some("earliest") => Some(Start::Earliest),
            Some("now") => Some(Start::Now),
            Some(text) => {
                let time = parse_past(text, SystemClock.now(), &jiff::tz::TimeZone::UTC);
                Some(Start::At(time.map_err(|error| wrong("start")(error.to_string()))?))
            }
        };
        if self.shards.is_some_and(|shards| !(1..=MOST_SHARDS).contains(&shards)) {
            return Err(wrong("shards")(format!("must be from 1 to {MOST_SHARDS}")));
        }
        let condition = self.condition.as_deref().map(Condition::parse).transpose();
        let condition = condition.map_err(|error| wrong("where")(error.to_string()))?;
        let types = TypeFilter::new(&self.types, &self.not).map_err(|error| wrong("types")(error.to_string()))?;
        let is_said = !self.types.is_empty() || !self.not.is_empty() || condition.is_some();
        Ok(WantedGroup { filter: is_said.then_some(Filter { types, condition }), shards: self.shards, start })
    }
}

/// Describes a group.
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let grant = app.access.grant(request.headers())?;
    if read_path(&name).is_ok() {
        return Err(Problem::method_not_allowed(format!("/groups/{name} is for POST")));
    }
    let group = GroupName::parse(&name)?;
    grant.check_pull(&group)?;
    Parameters::read(request.uri().query(), &[])?;
    Ok(described(StatusCode::OK, &app.bus.find_group(group).await?))
}

fn described(status: StatusCode, definition: &Definition) -> Response {
    let text = serde_json::to_string(definition).unwrap_or_default();
    json_response(status, format!("{text}\n"))
}

/// Makes a group, unless it is there.
pub(super) async fn put(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    app.access.grant(&parts.headers)?.check_admin()?;
    let group = GroupName::parse(&name)?;
    Parameters::read(parts.uri.query(), &[])?;
    let body = body::read(body, &parts.headers, MOST_BODY, &app.room).await?;
    let asked: GroupBody = read_object_or_nothing(&body.bytes)
        .map_err(|why| Problem::bad_request(format!("the body is no description of a group: {why}")))?;
    let (definition, is_new) = app.bus.ensure_group(group, asked.wanted()?).await?;
    Ok(described(if is_new { StatusCode::CREATED } else { StatusCode::OK }, &definition))
}

async fn receive(app: &App, group: GroupName, query: Option<&str>) -> Result<Response, Problem> {
    let parameters = Parameters::read(query, &["maxEvents", "maxWaitTime"])?;
    let most = parameters.number("maxEvents", 1, MOST_EVENTS as u64, EVENTS as u64)?;
    let wait = Duration::from_secs(parameters.number("maxWaitTime", 0, MOST_WAIT, WAIT)?);
    let settings = app.settings.groups.get(&group).cloned().unwrap_or_default();
    let Ok(_waiting) = app.waiting.try_acquire() else { return Err(Problem::too_many()) };
    let mut stop = app.stop.clone();
    let most = usize::try_from(most).unwrap_or(MOST_EVENTS);
    let received = tokio::select! { biased;
        received = app.bus.receive(group, Arc::clone(&settings), most, wait) => received?,
        () = stopped(&mut stop) => return Err(Problem::unavailable("the server stops")),
    };
    Ok(fresh_json(received_text(&received, &settings)))
}

/// Events with what belongs to their locks.
fn received_text(received: &[HandedOut], settings: &PullSettings) -> Bytes {
    let size = received.iter().map(|one| one.event.len() + 300).sum::<usize>();
    let mut text = BytesMut::with_capacity(size + 100);
    text.put_slice(b"{\"value\":[");
    for (at, one) in received.iter().enumerate() {
        let properties = json!({
            "lockToken": one.token,
            "deliveryCount": one.attempt,
            "name": &*one.name,
            "epoch": one.epoch,
        });
        text.put_slice(if at > 0 { b",{\"brokerProperties\":" } else { b"{\"brokerProperties\":" });
        text.put_slice(properties.to_string().as_bytes());
        text.put_slice(b",\"event\":");
        text.put_slice(&one.event);
        text.put_u8(b'}');
    }
    let rest = format!(
        "],\"lockDurationInSeconds\":{},\"maxDeliveryCount\":{}}}\n",
        settings.lock.as_secs_f64(),
        settings.retry.max_attempts
    );
    text.put_slice(rest.as_bytes());
    text.freeze()
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn a_path_names_a_group_and_an_operation() {
        let status = |path: &str| read_path(path).map_err(|problem| problem.into_response().status().as_u16());
        let mail = GroupName::parse("mail").unwrap();
        for (name, operation) in Operation::ALL {
            assert_eq!(status(&format!("mail:{name}")).unwrap(), (mail.clone(), operation));
        }
        for (path, wanted) in
            [("mail", 404), ("mail:", 404), ("mail:Receive", 404), (":receive", 400), ("a:b:receive", 400), ("", 404)]
        {
            assert_eq!(status(path).unwrap_err(), wanted, "{path}");
        }
    }

    #[test]
    fn received_events_are_json_with_their_locks() {
        let one = |token: &str| HandedOut {
            token: token.to_owned(),
            event: Bytes::from_static(br#"{"specversion":"1.0","id":"\u00e4"}"#),
            name: "n.json".into(),
            attempt: 2,
            epoch: 3,
        };
        for count in 0..3 {
            let all: Vec<HandedOut> = ["a", "b"].into_iter().take(count).map(one).collect();
            let text = received_text(&all, &PullSettings::default());
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(value["value"].as_array().unwrap().len(), count);
            assert_eq!(value["lockDurationInSeconds"], 60.0);
            if count > 0 {
                assert_eq!(value["value"][0]["event"]["id"], "ä");
                assert_eq!(value["value"][0]["brokerProperties"]["deliveryCount"], 2);
            }
        }
    }
}
