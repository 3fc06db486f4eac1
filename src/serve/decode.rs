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
use crate::event::{Data, Event, EventBuilder, TypeFilter};

/// What comes before the name of an attribute in a header.
const PREFIX: &str = "ce-";

/// The header that makes a repeat harmless (draft-ietf-httpapi-idempotency-key-header).
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

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

    /// The events in a body; none of them is larger than `limit` bytes.
    pub fn events(self, body: &Bytes, limit: usize) -> Result<Vec<NewEvent>, Problem> {
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
    let essence = media_type.map(essence).unwrap_or_default();
    let subtype = essence.split_once('/').map_or("", |(_, subtype)| subtype);
    if subtype == "json" || subtype.ends_with("+json") {
        let json = serde_json::from_slice(body).map(Data::Json);
        return json.map_err(|error| not_json(&error));
    }
    let is_text = essence.starts_with("text/") || subtype == "xml" || subtype.ends_with("+xml") || essence == FORM;
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

/// A media type without its parameters, in lower case.
pub(super) fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn charset(media_type: &str) -> Option<String> {
    let parameter = |parameter: &str| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    };
    media_type.split(';').skip(1).find_map(parameter)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;
    use axum::response::IntoResponse;

    use super::*;

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&str, &str)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in all.iter().map(header) {
            map.append(name, value);
        }
        map
    }

    /// The first event's document, without id and time where evbus makes them; or the status of the
    /// refusal.
    fn read(query: Option<&str>, all: &[(&str, &str)], body: &[u8]) -> Result<Vec<String>, u16> {
        let events = Form::of(query, &headers(all)).and_then(|form| form.events(&Bytes::copy_from_slice(body), 1_000));
        let document = |event: NewEvent| String::from_utf8(event.document_for_tests()).unwrap().trim_end().to_owned();
        match events {
            Ok(events) => Ok(events.into_iter().map(document).collect()),
            Err(problem) => Err(problem.into_response().status().as_u16()),
        }
    }

    const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n": 1}}"#;
    const BINARY: [(&str, &str); 4] =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];

    #[test]
    fn cloudevents_come_in_three_modes() {
        let one = Ok(vec![EVENT.to_owned()]);
        let structured = |media_type| read(None, &[("content-type", media_type)], EVENT.as_bytes());
        assert_eq!(structured("application/cloudevents+json"), one);
        assert_eq!(structured("Application/CloudEvents+JSON; charset=UTF-8"), one);
        assert_eq!(structured("application/cloudevents+json; charset=latin1"), Err(415));
        assert_eq!(structured("application/cloudevents+xml"), Err(415));
        assert_eq!(structured("application/cloudevents+avro"), Err(415));
        let batch = |body: &str| read(None, &[("content-type", "application/cloudevents-batch+json")], body.as_bytes());
        assert_eq!(batch(&format!("[{EVENT}]")), one);
        assert_eq!(batch("[]"), Ok(vec![]));
        assert_eq!(batch(EVENT), Err(400));
        assert_eq!(batch(&format!("[{EVENT},{{}}]")), Err(400));
        let mut binary = BINARY.to_vec();
        binary.push(("content-type", "application/json"));
        let wanted = EVENT.replace(r#""type":"t","#, r#""type":"t","datacontenttype":"application/json","#);
        assert_eq!(read(None, &binary, br#"{"n": 1}"#), Ok(vec![wanted]));
        assert_eq!(read(None, &binary, b"{"), Err(400));
    }

    #[test]
    fn attributes_are_decoded() {
        // The specification's example, a quoted string, and what is not encoded twice.
        for (value, wanted) in [
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("\"a \\\"b\\\" c\"", "a \"b\" c"),
            ("%2541", "%41"),
            ("100%", "100%"),
            ("%e2%82%ac", "€"),
            ("Straße", "Straße"),
        ] {
            let mut all = BINARY.to_vec();
            all.push(("ce-subject", value));
            let event = read(None, &all, b"").unwrap().remove(0);
            let event: serde_json::Value = serde_json::from_str(&event).unwrap();
            assert_eq!(event["subject"], wanted, "{value}");
        }
        for (name, value) in [
            ("ce-subject", "%FF"),
            ("ce-id", "2"),
            ("ce-datacontenttype", "text/plain"),
            ("ce-bad-name", "x"),
            ("ce-time", "yesterday"),
        ] {
            let mut all = BINARY.to_vec();
            all.push((name, value));
            assert_eq!(read(None, &all, b""), Err(400), "{name}");
        }
        for missing in 1..4 {
            let mut all = BINARY.to_vec();
            all.remove(missing);
            assert_eq!(read(None, &all, b""), Err(400), "{missing}");
        }
        assert_eq!(read(None, &[("ce-specversion", "0.3"), BINARY[1], BINARY[2], BINARY[3]], b""), Err(400));
    }

    #[test]
    fn data_is_kept_as_its_media_type_has_it() {
        let shape = |data: Result<Data, Problem>| match data.unwrap() {
            Data::Absent => "-".to_owned(),
            Data::Json(json) => json.get().to_owned(),
            Data::Base64(text) => format!("base64 {text}"),
        };
        for (media_type, body, wanted) in [
            (Some("application/json"), &b"{\"a\": 1}"[..], "{\"a\": 1}"),
            (Some("application/vnd.x+json; v=1"), b"7", "7"),
            (Some("text/plain"), b"hi \"you\"", r#""hi \"you\"""#),
            (Some("text/plain; charset=utf-8"), "ü".as_bytes(), "\"ü\""),
            (Some("text/plain; charset=latin1"), b"\xfc", "base64 /A=="),
            (Some("text/plain"), b"\xfc", "base64 /A=="),
            (Some("application/xml"), b"<a/>", "\"<a/>\""),
            (Some("image/png"), b"hi", "base64 aGk="),
            (None, b"hi", "base64 aGk="),
            (Some("application/json"), b"", "-"),
        ] {
            assert_eq!(shape(data(body, media_type)), wanted, "{media_type:?}");
        }
        assert_eq!(shape(form_data(b"a=1&b=x+y%20%C3%BC&b=2&b=3&c")), r#"{"a":"1","b":["x y ü","2","3"],"c":""}"#);
    }

    #[test]
    fn lines_are_events_or_their_data() {
        let lines = [("content-type", "application/x-ndjson")];
        assert_eq!(read(None, &lines, format!("{EVENT}\r\n\n{EVENT}").as_bytes()).unwrap().len(), 2);
        assert_eq!(read(None, &lines, b"").unwrap().len(), 0);
        let data = read(Some("type=order.created&subject=order%2F1"), &lines, b"1\n{\"a\": 2}\n").unwrap();
        assert_eq!(data.len(), 2);
        assert!(
            data[1].contains(r#""type":"order.created""#) && data[1].contains(r#""subject":"order/1""#),
            "{data:?}"
        );
        assert!(data[1].ends_with(r#""data":{"a": 2}}"#), "{data:?}");
        let problem = Form::of(None, &headers(&lines)).unwrap().events(&Bytes::from_static(b"\n\n{}"), 99).unwrap_err();
        let shown = format!("{problem:?}");
        assert!(shown.contains("line 3: the event attribute") && shown.contains("(\"line\", Number(3))"), "{shown}");
        let keyed = [lines[0], ("idempotency-key", "k")];
        assert_eq!(read(Some("type=a"), &keyed, b"1"), Err(400), "one id is not for many");
    }

    #[test]
    fn plain_data_needs_a_type() {
        let json = [("content-type", "application/json"), ("idempotency-key", "\"k 1\"")];
        let event = read(Some("type=a.b&key=k&source=//h"), &json, b"[1]").unwrap().remove(0);
        let event: serde_json::Value = serde_json::from_str(&event).unwrap();
        let wanted = serde_json::json!({
            "id": "k 1", "source": "//h", "type": "a.b", "partitionkey": "k",
            "datacontenttype": "application/json", "data": [1],
        });
        for (name, value) in wanted.as_object().unwrap() {
            assert_eq!(&event[name], value, "{name}");
        }
        for (query, status) in [
            (None, 400),
            (Some("subject=a"), 400),
            (Some("type="), 400),
            (Some("type=a%20"), 400),
            (Some("type=a.*"), 400),
            (Some("type=a&type=b"), 400),
            (Some("type=a&kind=b"), 400),
        ] {
            assert_eq!(read(query, &json, b"1"), Err(status), "{query:?}");
        }
        assert_eq!(read(Some("type=a"), &json, b"{"), Err(400));
        assert_eq!(read(Some("type=a"), &[], b"no JSON"), Err(400), "curl -d without a type of content is JSON");
        assert_eq!(read(Some("type=a"), &[("idempotency-key", "")], b"1"), Err(400));
        for (body, data) in [(&b"a=1"[..], r#"{"a":"1"}"#), (b"{\"a\": 1}", r#"{"a": 1}"#)] {
            let event = read(Some("type=a"), &[("content-type", FORM)], body).unwrap().remove(0);
            assert!(event.ends_with(&format!("\"data\":{data}}}")), "{event}");
        }
        assert_eq!(read(None, &[("content-type", "multipart/form-data; boundary=x")], b""), Err(415));
    }

    #[test]
    fn many_events_are_413() {
        let lines = [("content-type", "application/x-ndjson")];
        let many = "1\n".repeat(MOST_EVENTS);
        assert_eq!(read(Some("type=a"), &lines, many.as_bytes()).map(|events| events.len()), Ok(MOST_EVENTS));
        assert_eq!(read(Some("type=a"), &lines, format!("{many}1").as_bytes()), Err(413));
        let batch = [("content-type", "application/cloudevents-batch+json")];
        assert_eq!(read(None, &batch, format!("[{}1]", "1,".repeat(MOST_EVENTS)).as_bytes()), Err(413));
        assert_eq!(read(Some("type=a"), &[("content-type", "multipart/form-data; boundary=x")], b"--x"), Err(415));
        assert_eq!(read(Some("type=a"), &[("content-type", FORM)], b"{"), Err(400));
    }

    #[test]
    fn a_large_event_is_413() {
        let large = EVENT.replace("{\"n\": 1}", &format!("\"{}\"", "x".repeat(1_000)));
        assert_eq!(read(None, &[("content-type", "application/cloudevents+json")], large.as_bytes()), Err(413));
    }
}
