//! `POST /hooks/NAME`: a webhook of another service is verified, and becomes an event.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde_json::Value;

use super::problem::Problem;
use super::{App, body, decode, ingest, json_response};
use crate::clock::{Clock, SystemClock};
use crate::config::{Hook, ServeSettings, TemplatePart, Verify};
use crate::event::media_type::essence;
use crate::{NewEvent, threads};

mod verify;

/// A body of more bytes is looked at on another thread.
const LARGE: usize = 256 << 10;

/// The webhooks that are taken in, by their names.
#[derive(Debug)]
pub struct Hooks(BTreeMap<String, Arc<Hook>>);

/// Why a hook cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("the hook '{name}': {problem}")]
pub struct HookError {
    name: String,
    problem: String,
}

impl Hooks {
    /// The hooks of the settings.
    ///
    /// # Errors
    /// A secret cannot be had.
    pub fn new(settings: &ServeSettings) -> Result<Self, HookError> {
        let checked = |(name, hook): (&String, &Hook)| match verify::keys(hook).into_iter().find_map(Result::err) {
            None => Ok((name.clone(), Arc::new(hook.clone()))),
            Some(problem) => Err(HookError { name: name.clone(), problem }),
        };
        Ok(Self(settings.hooks.iter().map(checked).collect::<Result<_, _>>()?))
    }
}

/// What becomes of a webhook that its sender has signed.
enum Taken {
    /// It only asks whether there is an answer.
    Handshake(Response),
    Event(Box<NewEvent>),
}

/// Takes a webhook in.
pub(super) async fn receive(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let hook = app.hooks.0.get(&name).map(Arc::clone).ok_or_else(|| Problem::not_found("there is no such hook"))?;
    // Each secret as it is now; one that cannot be read is good for nothing.
    let read =
        |key: Result<_, String>| key.map_err(|error| tracing::warn!("a secret of the hook '{name}': {error}")).ok();
    let keys: Vec<_> = verify::keys(&hook).into_iter().filter_map(read).collect();
    if keys.is_empty() && hook.verify != Verify::None {
        // Whoever calls the hook must not learn why.
        return Err(Problem::unavailable("the hook is not set up"));
    }
    let body = body::read(body, &parts.headers, app.most_of_one_event(), &app.room).await?;
    let (bytes, headers, of_hook) = (body.bytes.clone(), parts.headers.clone(), Arc::clone(&hook));
    let take = move || -> Result<Taken, Problem> {
        verify::check(&of_hook, &keys, &headers, &bytes, SystemClock.now())?;
        let webhook = Webhook::new(&headers, &bytes);
        match webhook.handshake(&of_hook) {
            Some(answer) => Ok(Taken::Handshake(answer)),
            None => webhook.event(&of_hook).map(Box::new).map(Taken::Event),
        }
    };
    let taken = match body.bytes.len() > LARGE {
        false => take()?,
        true => threads::run(take).await.unwrap_or_else(|| Err(Problem::unavailable("the body could not be read")))?,
    };
    let event = match taken {
        Taken::Handshake(answer) => return Ok(answer),
        Taken::Event(event) => *event,
    };
    let answer = ingest::emit(&app, vec![event]).await?;
    // A browser that has sent a form shows what comes back.
    let is_browser = parts
        .headers
        .get(header::ACCEPT)
        .is_some_and(|accept| std::str::from_utf8(accept.as_bytes()).is_ok_and(|accept| accept.contains("text/html")));
    match hook.redirect.as_deref().filter(|_| is_browser).map(HeaderValue::from_str) {
        Some(Ok(location)) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SEE_OTHER;
            response.headers_mut().insert(header::LOCATION, location);
            Ok(response)
        }
        _ => Ok(answer),
    }
}

/// A webhook whose sender is known.
struct Webhook<'a> {
    headers: &'a HeaderMap,
    body: &'a Bytes,
    media_type: Option<&'a str>,
    /// The body, if it is JSON, or a form; null otherwise.
    content: Value,
}

impl<'a> Webhook<'a> {
    fn new(headers: &'a HeaderMap, body: &'a Bytes) -> Self {
        let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content = match media_type.map(essence).as_deref() {
            Some(decode::FORM) => {
                let fields = form_urlencoded::parse(body);
                let field = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
                    // GitHub and Slack put JSON into a field of this name.
                    let json = (name == "payload").then(|| serde_json::from_str(&value).ok()).flatten();
                    (name.into_owned(), json.unwrap_or_else(|| Value::from(&*value)))
                };
                match Value::from_iter(fields.map(field)) {
                    Value::Object(mut fields) => match fields.remove("payload") {
                        Some(payload) if fields.is_empty() => payload,
                        Some(payload) => {
                            fields.insert("payload".to_owned(), payload);
                            Value::Object(fields)
                        }
                        None => Value::Object(fields),
                    },
                    other => other,
                }
            }
            _ => serde_json::from_slice(body).unwrap_or_default(),
        };
        Self { headers, body, media_type, content }
    }

    /// The answer to what only asks whether there is an answer.
    fn handshake(&self, hook: &Hook) -> Option<Response> {
        match hook.verify {
            Verify::Slack if self.content["type"] == "url_verification" => {
                let challenge = self.content["challenge"].as_str()?;
                let body = serde_json::json!({ "challenge": challenge });
                Some(json_response(StatusCode::OK, format!("{body}\n")))
            }
            Verify::Github if self.headers.get("x-github-event").is_some_and(|event| event == "ping") => {
                Some(json_response(StatusCode::OK, "{\"pong\":true}\n".to_owned()))
            }
            _ => None,
        }
    }

    /// What a place of a template stands for.
    fn value(&self, part: &TemplatePart) -> Option<String> {
        match part {
            TemplatePart::Text(text) => Some(text.clone()),
            TemplatePart::Header(name) => self.headers.get(name)?.to_str().ok().map(str::to_owned),
            TemplatePart::Body(path) => {
                let value = path.iter().try_fold(&self.content, |value, name| match value {
                    Value::Array(all) => all.get(name.parse::<usize>().ok()?),
                    value => value.get(name),
                })?;
                match value {
                    Value::String(text) => Some(text.clone()),
                    Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
                    Value::Null | Value::Array(_) | Value::Object(_) => None,
                }
            }
        }
    }

    fn event(&self, hook: &Hook) -> Result<NewEvent, Problem> {
        let type_ = hook.type_.fill_tokens(|part| self.value(part));
        if type_.is_empty() {
            return Err(Problem::bad_request(format!("the webhook has nothing for its event's type '{}'", hook.type_)));
        }
        let mut event = NewEvent::new(type_);
        event = event.source(hook.source.fill_tokens(|part| self.value(part)));
        if let Some(id) = hook.id.as_ref().and_then(|id| id.fill(|part| self.value(part))) {
            event = event.id(id);
        }
        if let Some(subject) = hook.subject.as_ref().and_then(|subject| subject.fill(|part| self.value(part))) {
            event = event.subject(subject);
        }
        for (name, template) in &hook.attributes {
            if let Some(value) = template.fill(|part| self.value(part)) {
                event = event.extension(name, value);
            }
        }
        Ok(match self.media_type.map(essence).as_deref() {
            Some(decode::FORM) => event.data(decode::form_data(self.body)?, Some("application/json")),
            _ => event.data(decode::data(self.body, self.media_type)?, self.media_type),
        })
    }
}
