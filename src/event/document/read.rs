//! From bytes to an event.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::{Data, Event, EventBuilder, EventError, rules};

/// A member of the document, its value not yet looked into.
type Member<'a> = (String, &'a RawValue);

pub(super) fn parse(document: &[u8], limit: usize) -> Result<Event, EventError> {
    // A byte order mark may be ignored (RFC 8259 §8.1); some Windows tools write one.
    let document = document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document).trim_ascii();
    check_size(document, limit)?;
    if document.is_empty() {
        return Err(EventError::Empty);
    }
    let text = std::str::from_utf8(document).map_err(|error| EventError::NotText(error.valid_up_to()))?;
    let members = members_of(text)?;
    refuse_repeats(&members)?;
    let mut partial = PartialEvent::default();
    for (name, value) in members {
        partial.take(name, value)?;
    }
    partial.finish()
}

/// Checks that a bus takes a document of this size; white space around it does not count.
///
/// # Errors
/// [`EventError::TooLarge`].
pub fn check_size(document: &[u8], limit: usize) -> Result<(), EventError> {
    let size = document.trim_ascii().len();
    if size > limit { Err(EventError::TooLarge { size, limit }) } else { Ok(()) }
}

/// What has been read of an event so far.
#[derive(Default)]
struct PartialEvent {
    version: Option<String>,
    id: Option<String>,
    source: Option<String>,
    type_: Option<String>,
    rest: EventBuilder,
}

impl PartialEvent {
    fn take(&mut self, name: String, value: &RawValue) -> Result<(), EventError> {
        match name.as_str() {
            "specversion" => self.version = string(&name, value)?,
            "id" => self.id = string(&name, value)?,
            "source" => self.source = string(&name, value)?,
            "type" => self.type_ = string(&name, value)?,
            "subject" => self.rest.subject = string(&name, value)?,
            "time" => self.rest.time = string(&name, value)?,
            "datacontenttype" => self.rest.datacontenttype = string(&name, value)?,
            "dataschema" => self.rest.dataschema = string(&name, value)?,
            "data" => self.take_data(Data::Json(value.to_owned()))?,
            rules::DATA_BASE64 => {
                if let Some(text) = string(&name, value)? {
                    self.take_data(Data::Base64(text))?;
                }
            }
            _ => {
                let value = scalar(&name, value)?;
                self.rest.extensions.insert(name, value);
            }
        }
        Ok(())
    }

    fn take_data(&mut self, data: Data) -> Result<(), EventError> {
        if self.rest.data != Data::Absent {
            return Err(EventError::attribute(rules::DATA_BASE64, " and 'data' exclude each other"));
        }
        self.rest.data = data;
        Ok(())
    }

    fn finish(self) -> Result<Event, EventError> {
        let version = required("specversion", self.version)?;
        if version != rules::SPEC_VERSION {
            return Err(EventError::attribute("specversion", " is not \"1.0\", the only version known here"));
        }
        let rest = EventBuilder {
            id: required("id", self.id)?,
            source: required("source", self.source)?,
            type_: required("type", self.type_)?,
            ..self.rest
        };
        rest.build()
    }
}

fn required(name: &str, value: Option<String>) -> Result<String, EventError> {
    value.ok_or_else(|| EventError::attribute(name, " is missing"))
}

/// A string; none for `null`, which means unset (JSON format §2.2).
fn string(name: &str, value: &RawValue) -> Result<Option<String>, EventError> {
    match first_byte(value) {
        b'n' => Ok(None),
        b'"' => serde_json::from_str(value.get()).map(Some).map_err(|error| bad_value(name, &error)),
        _ => Err(EventError::attribute(name, " must be a string")),
    }
}

/// The value of an extension; arrays and objects are not even read.
fn scalar(name: &str, value: &RawValue) -> Result<Value, EventError> {
    match first_byte(value) {
        b'[' | b'{' => Ok(Value::Array(Vec::new())),
        // A whole number in JSON that the general reader would make a float of.
        b'-' if value.get() == "-0" => Ok(Value::from(0)),
        // Too large for any number, so too large for 32 bits.
        b'-' | b'0'..=b'9' => Ok(serde_json::from_str(value.get()).unwrap_or_else(|_| Value::from(f64::MAX))),
        _ => serde_json::from_str(value.get()).map_err(|error| bad_value(name, &error)),
    }
}

/// What is left to go wrong in JSON that has been walked over once: half of a surrogate pair.
fn bad_value(name: &str, error: &serde_json::Error) -> EventError {
    EventError::attribute(name, format!(" is not a string: {error}"))
}

fn first_byte(value: &RawValue) -> u8 {
    value.get().bytes().next().unwrap_or_default()
}

fn refuse_repeats(members: &[Member<'_>]) -> Result<(), EventError> {
    let mut seen = BTreeSet::new();
    match members.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        Some((name, _)) => Err(EventError::attribute(name, " is given twice")),
        None => Ok(()),
    }
}

fn members_of(text: &str) -> Result<Vec<Member<'_>>, EventError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = reader.deserialize_map(Members).and_then(|members| reader.end().map(|()| members));
    members.map_err(|error| match error.classify() {
        Category::Data => EventError::NotObject,
        Category::Eof => EventError::Truncated,
        Category::Syntax | Category::Io => EventError::NotJson(error.to_string()),
    })
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<Member<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}
