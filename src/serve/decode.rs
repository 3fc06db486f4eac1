//! From a request to events: CloudEvents in the three modes of the HTTP binding 1.0.2, lines of JSON,
//! and plain data with `?type=T`.

use std::collections::BTreeMap;
use std::fmt;

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::problem::Problem;
use crate::NewEvent;
use crate::embed::EventLines;
use crate::event::media_type::{essence, is_json, is_xml};
use crate::event::{Data, Event, EventBuilder, TypeFilter};

/// What comes before the name of an attribute in a header.
const PREFIX: &str = "ce-";

/// The header that makes a repeat harmless (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: &str = "idempotency-key";

const SPEC_VERSION: &str = "1.0";

/// The most events of a request.
const MOST_EVENTS: usize = 10_000;

/// In which form the events come.
#[derive(Debug)]
pub(super) enum Form {
    /// One CloudEvent, as JSON.
    Structured,
    /// An array of CloudEvents, as JSON.
    Batch,
    /// One CloudEvent, its attributes in headers; its media type, if it has one.
    Binary(Box<EventBuilder>, Option<String>),
    /// A CloudEvent on each line.
    Lines,
    /// Data on each line, of events of this description.
    DataLines(Box<Description>),
    /// The data of one event.
    Data(Box<Description>, Option<String>),
}

/// What was sent.
#[derive(Debug)]
pub(super) enum Events {
    Each(Vec<NewEvent>),
    /// Data on lines, all of it plain.
    Lines(EventLines),
}

/// What `?type=T&subject=S` says of events whose data alone is sent.
#[derive(Debug, Clone)]
pub(super) struct Description {
    pub type_: String,
    pub source: Option<String>,
    pub subject: Option<String>,
    pub key: Option<String>,
    pub id: Option<String>,
}

impl Form {
    /// The form that a request's query and headers tell.
    pub fn of(query: Option<&str>, headers: &HeaderMap) -> Result<Self, Problem> {
        let description = Description::read(query, headers)?;
        let media_type = match headers.get(header::CONTENT_TYPE) {
            Some(media_type) => Some(text(media_type).ok_or_else(|| Problem::bad_request("Content-Type is not text"))?),
            None => None,
        };
        let essence = media_type.map(essence);
        let form = match (essence.as_deref(), description) {
            (Some("application/cloudevents+json"), None) => Self::Structured,
            (Some("application/cloudevents-batch+json"), None) => Self::Batch,
            (Some("application/cloudevents+json" | "application/cloudevents-batch+json"), Some(_)) => {
                return Err(Problem::bad_request("a CloudEvent has a type: leave the query out"));
            }
            (Some(other), _) if other.starts_with("application/cloudevents") => {
                return Err(Problem::unsupported(format!(
                    "'{other}' is not taken (send application/cloudevents+json)"
                )));
            }
            (
                Some("application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines"),
                it,
            ) => match it {
                Some(Description { id: Some(_), .. }) => {
                    return Err(Problem::bad_request("Idempotency-Key is for one event, and these are lines"));
                }
                Some(description) => Self::DataLines(Box::new(description)),
                None => Self::Lines,
            },
            (Some("multipart/form-data"), _) => {
                return Err(Problem::unsupported("multipart/form-data is not taken"));
            }
            (_, Some(description)) => Self::Data(Box::new(description), media_type.map(str::to_owned)),
            (_, None) if headers.contains_key("ce-specversion") => {
                Self::Binary(Box::new(attributes(headers)?), media_type.map(str::to_owned))
            }
            (_, None) => {
                let what =
                    "no event type: add ?type=TYPE to the URL, or send a CloudEvent (application/cloudevents+json)";
                return Err(Problem::bad_request(what));
            }
        };
        if !matches!(form, Self::Binary(..) | Self::Data(..))
            && let Some(charset) = media_type.and_then(charset).filter(|charset| charset != "utf-8")
        {
            return Err(Problem::unsupported(format!("charset '{charset}' is not taken (JSON is UTF-8)")));
        }
        Ok(form)
    }

    /// Whether it is one event.
    pub fn is_one(&self) -> bool {
        matches!(self, Self::Structured | Self::Binary(..) | Self::Data(..))
    }

    /// The type of all events, if it is known without the body.
    pub fn type_(&self) -> Option<&str> {
        match self {
            Self::Binary(builder, _) => Some(builder.type_()),
            Self::DataLines(description) | Self::Data(description, _) => Some(&description.type_),
            Self::Structured | Self::Batch | Self::Lines => None,
        }
    }

    /// What is in a body; no event is larger than `limit` bytes. `has_segments`: many events may go into one
    /// object.
    pub fn read(self, body: &Bytes, limit: usize, has_segments: bool) -> Result<Events, Problem> {
        if let Self::DataLines(description) = &self
            && has_segments
            && let event = description.event().data(Data::Absent, Some(JSON))
            && let Some(lines) = EventLines::check(&event, body, MOST_EVENTS, limit)
        {
            return Ok(Events::Lines(lines));
        }
        self.events(body, limit).map(Events::Each)
    }

    fn events(self, body: &Bytes, limit: usize) -> Result<Vec<NewEvent>, Problem> {
        let complete = |bytes: &[u8]| Ok::<_, Problem>(NewEvent::complete(Event::parse(bytes, limit)?));
        match self {
            Self::Structured => Ok(vec![complete(body)?]),
            Self::Batch => {
                let Elements(elements) = serde_json::from_slice(body)
                    .map_err(|error| Problem::bad_request(format!("the batch is not a JSON array: {error}")))?;
                let read = |(at, element): (usize, &&RawValue)| {
                    complete(element.get().as_bytes()).map_err(|problem| problem.at("element", at + 1))
                };
                refuse_many(elements.len())?;
                elements.iter().enumerate().map(read).collect()
            }
            Self::Binary(builder, media_type) => {
                let mut builder = builder.data(data(body, media_type.as_deref())?);
                if let Some(media_type) = media_type {
                    builder = builder.datacontenttype(media_type);
                }
                Ok(vec![NewEvent::complete(builder.build()?)])
            }
            Self::Lines => lines(body, complete),
            Self::DataLines(description) => {
                let event = description.event();
                lines(body, |line| {
                    let data = serde_json::from_slice(line).map(Data::Json);
                    let data = data.map_err(|error| not_json(&error))?;
                    Ok(event.clone().data(data, Some(JSON)))
                })
            }
            Self::Data(description, media_type) => {
                let essence = media_type.as_deref().map(essence);
                let (data, media_type) = match essence.as_deref() {
                    // What curl says of all that it sends with -d, also of JSON.
                    Some(FORM) => match serde_json::from_slice(body) {
                        Ok(json) => (Data::Json(json), Some(JSON)),
                        Err(error) if body.trim_ascii().starts_with(b"{") || body.trim_ascii().starts_with(b"[") => {
                            return Err(not_json(&error));
                        }
                        Err(_) => (form_data(body)?, Some(JSON)),
                    },
                    _ if body.is_empty() => (Data::Absent, None),
                    None => (data(body, Some(JSON))?, Some(JSON)),
                    Some(_) => (data(body, media_type.as_deref())?, media_type.as_deref()),
                };
                Ok(vec![description.event().data(data, media_type)])
            }
        }
    }
}

const JSON: &str = "application/json";
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

impl Description {
    /// None if there is no query.
    fn read(query: Option<&str>, headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut found = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !["type", "source", "subject", "key"].contains(&&*name) {
                let what = format!("'{}' is not a parameter (type, source, subject and key are)", name.escape_debug());
                return Err(Problem::bad_request(what).member("parameter", &*name));
            }
            if found.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(Problem::bad_request(format!("'{name}' is there twice")).member("parameter", &*name));
            }
        }
        if found.is_empty() {
            return Ok(None);
        }
        let type_ = found.remove("type").ok_or_else(|| Problem::bad_request("no event type: add type=TYPE"))?;
        let is_odd = |c: char| matches!(c, '*' | '>' | '!' | ',') || c.is_whitespace();
        if type_.contains(is_odd) || TypeFilter::new(std::slice::from_ref(&type_), &[]).is_err() {
            let what = format!("type '{}' is none that a pattern could name", type_.escape_debug());
            return Err(Problem::bad_request(what).member("attribute", "type"));
        }
        let id = headers.get(IDEMPOTENCY_KEY).map(|key| text(key).filter(|key| !key.trim().is_empty()));
        let id = match id {
            Some(None) => return Err(Problem::bad_request("Idempotency-Key is empty or not text")),
            Some(Some(key)) => Some(unquoted(key.trim())),
            None => None,
        };
        let mut take = |name| found.remove(name).filter(|value| !value.is_empty());
        Ok(Some(Self { type_, source: take("source"), subject: take("subject"), key: take("key"), id }))
    }

    fn event(&self) -> NewEvent {
        let mut event = NewEvent::new(&self.type_);
        if let Some(source) = &self.source {
            event = event.source(source);
        }
        if let Some(subject) = &self.subject {
            event = event.subject(subject);
        }
        if let Some(key) = &self.key {
            event = event.key(key);
        }
        if let Some(id) = &self.id {
            event = event.id(id);
        }
        event
    }
}

/// The events on lines; those that are blank are passed over.
fn lines(body: &[u8], event: impl Fn(&[u8]) -> Result<NewEvent, Problem>) -> Result<Vec<NewEvent>, Problem> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let lines = body.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    let mut events = Vec::new();
    for (at, line) in lines {
        refuse_many(events.len() + 1)?;
        events.push(event(line).map_err(|problem| problem.at("line", at + 1))?);
    }
    Ok(events)
}

/// The elements of an array; of one that is too long, one more than may be.
struct Elements<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ElementsVisitor)
    }
}

struct ElementsVisitor;

impl<'de> Visitor<'de> for ElementsVisitor {
    type Value = Elements<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() <= MOST_EVENTS
            && let Some(element) = array.next_element()?
        {
            elements.push(element);
        }
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Elements(elements))
    }
}

/// Events take more memory than their bytes.
fn refuse_many(events: usize) -> Result<(), Problem> {
    match events > MOST_EVENTS {
        true => Err(Problem::too_large(format!("the body holds more than {MOST_EVENTS} events"))),
        false => Ok(()),
    }
}

/// Data as an event of this media type carries it: JSON as it stands, text as a string, all else as
/// bytes.
pub(super) fn data(body: &[u8], media_type: Option<&str>) -> Result<Data, Problem> {
    if body.is_empty() {
        return Ok(Data::Absent);
    }
    if media_type.is_some_and(is_json) {
        let json = serde_json::from_slice(body).map(Data::Json);
        return json.map_err(|error| not_json(&error));
    }
    let is_text = media_type.is_some_and(|media_type| {
        let essence = essence(media_type);
        essence.starts_with("text/") || is_xml(media_type) || essence == FORM
    });
    let is_utf8 = media_type.and_then(charset).is_none_or(|charset| charset == "utf-8");
    Ok(match std::str::from_utf8(body) {
        Ok(text) if is_text && is_utf8 => Data::text(text),
        _ => Data::binary(body),
    })
}

fn not_json(error: &serde_json::Error) -> Problem {
    // Of one line the column is enough.
    let error = error.to_string().replace(" at line 1 column ", " at column ");
    Problem::bad_request(format!("the data is not JSON: {error}"))
}

/// The fields of a form as a JSON object of strings; of a name that is there more than once, an array.
pub(super) fn form_data(body: &[u8]) -> Result<Data, Problem> {
    let mut fields = serde_json::Map::new();
    for (at, (name, value)) in form_urlencoded::parse(body).enumerate() {
        if at == MOST_EVENTS {
            return Err(Problem::too_large(format!("the form has more than {MOST_EVENTS} fields")));
        }
        let value = serde_json::Value::from(&*value);
        match fields.get_mut(&*name) {
            None => _ = fields.insert(name.into_owned(), value),
            Some(serde_json::Value::Array(all)) => all.push(value),
            Some(first) => *first = serde_json::Value::from(vec![first.take(), value]),
        }
    }
    Data::json(&serde_json::Value::from(fields).to_string())
        .map_err(|error| Problem::bad_request(format!("the form cannot be read: {error}")))
}

/// The attributes in headers.
fn attributes(headers: &HeaderMap) -> Result<EventBuilder, Problem> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for (header, value) in headers {
        let Some(name) = header.as_str().strip_prefix(PREFIX) else { continue };
        let wrong =
            |what: &str| Problem::bad_request(format!("header '{header}' {what}")).member("attribute", name.to_owned());
        let value = decoded(value).ok_or_else(|| wrong("is not UTF-8 text, percent-encoded"))?;
        if found.insert(name.to_owned(), value).is_some() {
            return Err(wrong("is there twice"));
        }
    }
    let mut take = |name: &'static str| {
        let missing = || Problem::bad_request(format!("header 'ce-{name}' is missing")).member("attribute", name);
        found.remove(name).ok_or_else(missing)
    };
    let version = take("specversion")?;
    if version != SPEC_VERSION {
        let what = format!("header 'ce-specversion' is '{}', not '1.0'", version.escape_debug());
        return Err(Problem::bad_request(what).member("attribute", "specversion"));
    }
    let mut builder = EventBuilder::new(take("id")?, take("source")?, take("type")?);
    for (name, value) in found {
        builder = match &*name {
            "subject" => builder.subject(value),
            "time" => builder.time(value),
            "dataschema" => builder.dataschema(value),
            "datacontenttype" => {
                let what = "header 'ce-datacontenttype' is not one: Content-Type tells it";
                return Err(Problem::bad_request(what).member("attribute", "datacontenttype"));
            }
            _ => builder.extension(name, value),
        };
    }
    Ok(builder)
}

/// The value of an attribute in a header: quotes around it are taken away, then percent-encoding
/// (HTTP binding, 3.1.3.2).
fn decoded(value: &HeaderValue) -> Option<String> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    Some(percent_decode_str(&unquoted(text)).decode_utf8().ok()?.into_owned())
}

/// A quoted string (RFC 9110, 5.6.4) without its quotes; any other text as it is.
fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else { return text.to_owned() };
    let mut unquoted = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        unquoted.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    unquoted
}

fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

fn charset(media_type: &str) -> Option<String> {
    let parameter = |parameter: &str| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    };
    media_type.split(';').skip(1).find_map(parameter)
}

#[cfg(test)]
mod tests;
