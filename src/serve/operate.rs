//! What operators see and do: all groups, a group's dead letters, an event in every group.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Request;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::parameters::{Parameters, read_object_or_nothing};
use super::problem::Problem;
use super::{App, body, fresh_json};
use crate::event::{NameMatch, TypeFilter};
use crate::group::GroupName;

/// How many dead letters are told unless told otherwise, and at most.
const LETTERS: u64 = 100;
const MOST_LETTERS: u64 = 1_000;

/// The largest body, in bytes.
const MOST_BODY: usize = 256 << 10;

/// What is done to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Pause,
    Resume,
    Redrive,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DeedBody {
    /// Why it is paused.
    why: Option<String>,
    /// The letters to put back to work; none: all.
    letters: Option<Vec<String>>,
}

fn fresh(document: &Value) -> Response {
    fresh_json(format!("{document}\n"))
}

/// All groups.
pub(super) async fn groups(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Problem> {
    let types = app.access.grant(request.headers())?.readable()?;
    Parameters::read(request.uri().query(), &[])?;
    let mut overview = app.bus.overview().await?;
    if let (Some(types), Some(groups)) = (types, overview["groups"].as_array_mut()) {
        for retries in groups.iter_mut().filter_map(|group| group["retries"].as_array_mut()) {
            retries.retain(|retry| may_be_read(&types, retry["type"].as_str().unwrap_or_default()));
        }
    }
    Ok(fresh(&overview))
}

/// Whether an event of this slug is surely of one of these types.
fn may_be_read(types: &TypeFilter, slug: &str) -> bool {
    types.matches_slug(slug) == NameMatch::Yes
}

/// The dead letters of a group, the newest first.
pub(super) async fn dead_letters(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let types = app.access.grant(request.headers())?.readable()?;
    let group = GroupName::parse(&name)?;
    let parameters = Parameters::read(request.uri().query(), &["limit"])?;
    let most = parameters.number("limit", 1, MOST_LETTERS, LETTERS)?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    Ok(fresh_json(app.bus.dead_letters(group, types, most).await?))
}

/// An event, and what has become of it in every group.
pub(super) async fn event(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let types = app.access.grant(request.headers())?.readable()?;
    let parameters = Parameters::read(request.uri().query(), &["source"])?;
    let source = parameters.text("source").ok_or_else(|| {
        Problem::bad_request("source: is needed, as an id alone is no name of an event").member("parameter", "source")
    })?;
    let found = app.bus.event_states(source.to_owned(), id.clone(), types).await?;
    found
        .map(|found| fresh(&found))
        .ok_or_else(|| Problem::not_found(format!("there is no event '{}'", id.escape_debug())))
}

/// Pauses a group, lets it go on, or puts dead letters of it back to work.
pub(super) async fn act(
    app: &App,
    group: GroupName,
    deed: Deed,
    (parts, body): (axum::http::request::Parts, Body),
) -> Result<Response, Problem> {
    Parameters::read(parts.uri.query(), &[])?;
    let body = body::read(body, &parts.headers, MOST_BODY, &app.room).await?;
    let said: DeedBody =
        read_object_or_nothing(&body.bytes).map_err(|why| Problem::bad_request(format!("the body: {why}")))?;
    Ok(fresh(&match deed {
        Deed::Redrive => json!({ "redriven": app.bus.redrive(group, said.letters).await? }),
        Deed::Pause => json!({ "changed": app.bus.set_paused(group, true, said.why).await? }),
        Deed::Resume => json!({ "changed": app.bus.set_paused(group, false, None).await? }),
    }))
}
