//! What is sent: an event by the HTTP binding of CloudEvents 1.0.2, in one of its three modes.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::header::HeaderValue;
use serde_json::value::RawValue;

use crate::event::media_type::is_json;
use crate::event::{CORE_ATTRIBUTES, Data, Event, EventName, hex, one_line, sha256_of_much};

const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";
const BATCH: &str = "application/cloudevents-batch+json; charset=utf-8";
const JSON: &str = "application/json";

/// The most bytes of an event's attributes as headers: more than any server takes.
const HEADER_BYTES: usize = 32 << 10;

/// What is encoded in a header (HTTP binding, 3.1.3.2); all that is not ASCII is encoded, too.
const IN_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// In which form an event is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WebhookFormat {
    /// The whole event as JSON in the body.
    #[default]
    Structured,
    /// The data in the body, the attributes in headers.
    Binary,
}

/// The parts of a request that tell of the event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// The content for one event; an error says why it cannot be sent so.
pub(super) fn content(event: &[u8], format: WebhookFormat) -> Result<Content, String> {
    match format {
        WebhookFormat::Structured => Ok(Content { headers: typed(STRUCTURED), body: one_line(event).into_owned() }),
        WebhookFormat::Binary => {
            let event = Event::parse(event, usize::MAX).map_err(|error| format!("the event {error}"))?;
            let content = binary(&event);
            let size: usize = content.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            if size > HEADER_BYTES {
                return Err(format!("its attributes are {size} bytes, too many for headers (use format structured)"));
            }
            match event.datacontenttype() {
                Some(media_type) if !media_type.is_ascii() || HeaderValue::from_str(media_type).is_err() => {
                    Err("its datacontenttype is none that a header can have (use format structured)".to_owned())
                }
                _ => Ok(content),
            }
        }
    }
}

/// The content for many events, given one on each line.
pub(super) fn batch(lines: &[u8]) -> Content {
    let mut body = Vec::with_capacity(lines.len() + 2);
    body.push(b'[');
    body.extend_from_slice(lines.trim_ascii_end());
    // Within an event there is no line break, and behind the last there is none now.
    body.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b',');
    body.push(b']');
    Content { headers: typed(BATCH), body }
}

/// What names the request, the same at each attempt: of the event's name what tells the event, without
/// its time, which an emitter may change; of many events a hash of all.
pub(super) fn id(name: &str, body: &[u8]) -> String {
    if let Some(name) = EventName::parse(name) {
        return format!("{}{}", name.hash_slot(), name.identity());
    }
    format!("batch_{}", hex(&sha256_of_much(body)[..16]))
}

fn typed(media_type: &str) -> Vec<(String, String)> {
    vec![("content-type".to_owned(), media_type.to_owned())]
}

fn binary(event: &Event) -> Content {
    let core = CORE_ATTRIBUTES.iter().copied().filter(|name| *name != "datacontenttype");
    let extensions = event.extensions().keys().map(String::as_str);
    let header = |name: &str| {
        let value = event.attribute(name)?;
        Some((format!("ce-{name}"), utf8_percent_encode(&value, IN_HEADER).to_string()))
    };
    let mut headers: Vec<(String, String)> = core.chain(extensions).filter_map(header).collect();
    let media_type = event.datacontenttype();
    let (body, implied) = match event.data() {
        Data::Absent => (Vec::new(), None),
        Data::Json(json) => (bytes_of(json, media_type), Some(JSON)),
        bytes @ Data::Base64(_) => (bytes.bytes().unwrap_or_default(), None),
    };
    if let Some(media_type) = media_type.or(implied) {
        headers.push(("content-type".to_owned(), media_type.to_owned()));
    }
    Content { headers, body }
}

/// The data as its media type has it: JSON as it stands, the text of a string where the type is
/// another (JSON format, 3.1.1).
fn bytes_of(json: &RawValue, media_type: Option<&str>) -> Vec<u8> {
    let text = media_type.filter(|media_type| !is_json(media_type));
    match text.and_then(|_| serde_json::from_str::<String>(json.get()).ok()) {
        Some(text) => text.into_bytes(),
        None => json.get().as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary_of(event: &str) -> (Vec<(String, String)>, String) {
        let content = content(event.as_bytes(), WebhookFormat::Binary).unwrap();
        (content.headers, String::from_utf8(content.body).unwrap())
    }

    fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
        headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn attributes_are_headers_in_binary_mode() {
        let (headers, body) = binary_of(
            r#"{"specversion":"1.0","id":"a b","source":"/s%","type":"t","subject":"Straße \"1\"","time":"2026-11-23T02:15:00Z","attempt":3,"flag":true,"euro":"€😀","data":{"n": 1}}"#,
        );
        assert_eq!(body, r#"{"n": 1}"#, "byte for byte");
        for (name, wanted) in [
            ("ce-specversion", Some("1.0")),
            ("ce-id", Some("a%20b")),
            ("ce-source", Some("/s%25")),
            ("ce-type", Some("t")),
            ("ce-subject", Some("Stra%C3%9Fe%20%221%22")),
            ("ce-time", Some("2026-11-23T02:15:00Z")),
            ("ce-attempt", Some("3")),
            ("ce-flag", Some("true")),
            // The example of the specification.
            ("ce-euro", Some("%E2%82%AC%F0%9F%98%80")),
            ("ce-datacontenttype", None),
            ("content-type", Some("application/json")),
        ] {
            assert_eq!(value(&headers, name), wanted, "{name}");
        }
    }

    #[test]
    fn data_is_sent_as_its_media_type_has_it() {
        let event = |rest: &str| format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{rest}}}"#);
        for (rest, media_type, wanted) in [
            ("", None, ""),
            (r#","datacontenttype":"text/plain""#, Some("text/plain"), ""),
            (r#","data":"a""#, Some("application/json"), "\"a\""),
            (r#","datacontenttype":"text/plain","data":"a\nb""#, Some("text/plain"), "a\nb"),
            (r#","datacontenttype":"text/plain","data":7"#, Some("text/plain"), "7"),
            (
                r#","datacontenttype":"application/vnd.x+json; v=1","data":"a""#,
                Some("application/vnd.x+json; v=1"),
                "\"a\"",
            ),
            (r#","datacontenttype":"TEXT/JSON","data":"a""#, Some("TEXT/JSON"), "\"a\""),
            (r#","data_base64":"aGk=""#, None, "hi"),
            // Its last bits, which mean nothing, are not 0.
            (r#","data_base64":"aGl=""#, None, "hi"),
            (r#","datacontenttype":"image/png","data_base64":"aGk=""#, Some("image/png"), "hi"),
        ] {
            let (headers, body) = binary_of(&event(rest));
            assert_eq!((value(&headers, "content-type"), body.as_str()), (media_type, wanted), "{rest}");
        }
    }

    #[test]
    fn what_no_header_can_hold_is_not_sent_in_binary_mode() {
        let event = |rest: &str| format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{rest}}}"#);
        let many: String = (0..25_000).map(|n| format!(",\"x{n}\":1")).collect();
        for (rest, why) in [
            (many, "bytes, too many for headers"),
            (format!(",\"{}\":1", "x".repeat(70_000)), "bytes, too many for headers"),
            (",\"datacontenttype\":\"text/plain; charset=ü\"".to_owned(), "datacontenttype"),
        ] {
            let event = event(&rest);
            let error = content(event.as_bytes(), WebhookFormat::Binary).unwrap_err();
            assert!(error.contains(why) && error.len() < 100, "{error}");
            assert!(content(event.as_bytes(), WebhookFormat::Structured).is_ok());
        }
    }

    #[test]
    fn a_batch_is_an_array() {
        let lines = b"{\"id\":\"1\"}\n{\"id\":\"2\",\"data\":\"a\\nb\"}\n";
        let content = batch(lines);
        assert_eq!(content.body, br#"[{"id":"1"},{"id":"2","data":"a\nb"}]"#);
        assert!(serde_json::from_slice::<serde_json::Value>(&content.body).is_ok());
        assert_eq!(batch(b"{}\n").body, b"[{}]");
    }

    #[test]
    fn the_id_stays_when_the_time_changes() {
        let name = "20261123T021530.123456Z-4m7kq3f9x2m7qa5w-order.created.json";
        let later = name.replace("021530", "021531");
        assert_eq!(id(name, b""), "4m7kq3f9x2m7qa5w");
        assert_eq!(id(&later, b"other"), id(name, b""));
        let of_batch = id("batch.ndjson", b"[{}]");
        assert_eq!(of_batch, id("batch.ndjson", b"[{}]"));
        assert_ne!(of_batch, id("batch.ndjson", b"[]"));
        assert!(!of_batch.contains('.'), "the signature joins by dots");
    }
}
