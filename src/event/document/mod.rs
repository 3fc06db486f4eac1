//! The event itself: CloudEvents 1.0.2, in its JSON format.
//!
//! An [`Event`] is made by [`Event::parse`] or by an [`EventBuilder`]; both end in the same checks, so what is
//! written can be read. The data is kept byte for byte.

mod builder;
mod lines;
mod read;
mod readable;
mod rules;
mod sibling;
#[cfg(test)]
mod tests;
mod write;

use std::borrow::Cow;

use base64::Engine;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

pub use builder::EventBuilder;
pub use lines::{DataLine, DataLines};
pub(crate) use read::EventView;
pub use read::check_size;
pub use rules::CORE_ATTRIBUTES;
pub use sibling::{Likeness, Siblings};
pub use write::{EventTemplate, one_line};

use rules::BASE64;

use super::{EventTime, HashSlot, Identity};

/// A CloudEvent whose attributes all are as the specification wants them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Checked.
    parts: EventBuilder,
}

/// What an event carries.
#[derive(Debug, Clone, Default)]
pub enum Data {
    /// Nothing.
    #[default]
    Absent,
    /// A JSON value (`null` is one), byte for byte as it was given.
    Json(Box<RawValue>),
    /// Bytes, in base64 (RFC 4648 §4): the member `data_base64`.
    Base64(String),
}

/// Why a document is no event of this bus.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Longer than the bus takes, in bytes.
    #[error("is {} bytes, over this bus's limit of {}", grouped(*.size), grouped(*.limit))]
    TooLarge {
        /// Of the document, white space around it left out.
        size: usize,
        /// The bus's setting.
        limit: usize,
    },
    /// Nothing but white space.
    #[error("is empty")]
    Empty,
    /// Not UTF-8, which JSON has to be (RFC 8259 §8.1).
    #[error("is not UTF-8 text (at byte {0})")]
    NotText(usize),
    /// JSON that ends too early: as a rule, a file that was cut off.
    #[error("is cut off in the middle of its JSON")]
    Truncated,
    /// Not JSON; where and why.
    #[error("is not JSON: {0}")]
    NotJson(String),
    /// JSON, but not an object.
    #[error("is not a JSON object")]
    NotObject,
    /// An attribute, or `data_base64`, is not as the specification wants it.
    #[error("attribute '{}'{problem}", printable(.name))]
    Attribute {
        /// The attribute's name as given; printed escaped and shortened.
        name: String,
        /// To be read right after the name.
        problem: Cow<'static, str>,
    },
}

impl Event {
    /// Reads one document. White space around it and a byte order mark are ignored; `limit` is in bytes.
    ///
    /// # Errors
    /// Whatever the CloudEvents specification forbids, with the name of the attribute.
    pub fn parse(document: &[u8], limit: usize) -> Result<Self, EventError> {
        read::EventView::parse(document, limit).map(Self::from)
    }

    /// Reads one line of NDJSON; the same as [`Event::parse`].
    ///
    /// # Errors
    /// As [`Event::parse`].
    pub fn from_line(line: &[u8], limit: usize) -> Result<Self, EventError> {
        Self::parse(line, limit)
    }

    /// Begins an event with what every event must have.
    #[expect(clippy::new_ret_no_self, reason = "an event exists only after its builder's checks")]
    pub fn new(id: impl Into<String>, source: impl Into<String>, type_: impl Into<String>) -> EventBuilder {
        EventBuilder::new(id, source, type_)
    }

    /// To make another event of this one.
    pub fn into_builder(self) -> EventBuilder {
        self.parts
    }

    /// Names the event within its source.
    pub fn id(&self) -> &str {
        &self.parts.id
    }

    /// Where it happened, a URI reference.
    pub fn source(&self) -> &str {
        &self.parts.source
    }

    /// What kind of event it is.
    pub fn type_(&self) -> &str {
        &self.parts.type_
    }

    /// What it is about, within the source.
    pub fn subject(&self) -> Option<&str> {
        self.parts.subject.as_deref()
    }

    /// When it happened, as given: RFC 3339.
    pub fn time(&self) -> Option<&str> {
        self.parts.time.as_deref()
    }

    /// When it happened, as a number.
    pub fn occurred_at(&self) -> Option<EventTime> {
        self.time().and_then(EventTime::from_rfc3339)
    }

    /// The media type of the data; without one, it is JSON.
    pub fn datacontenttype(&self) -> Option<&str> {
        self.parts.datacontenttype.as_deref()
    }

    /// The URI of the schema of the data.
    pub fn dataschema(&self) -> Option<&str> {
        self.parts.dataschema.as_deref()
    }

    /// The extension attributes in the order of the document: strings, booleans, and integers of 32 bits.
    pub fn extensions(&self) -> &Map<String, Value> {
        &self.parts.extensions
    }

    /// What it carries.
    pub fn data(&self) -> &Data {
        &self.parts.data
    }

    /// An attribute by its name, in the string encoding of the specification (§ Type System).
    pub fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        let core = match name {
            "specversion" => Some(rules::SPEC_VERSION),
            "id" => Some(self.id()),
            "source" => Some(self.source()),
            "type" => Some(self.type_()),
            "subject" => self.subject(),
            "time" => self.time(),
            "datacontenttype" => self.datacontenttype(),
            "dataschema" => self.dataschema(),
            extension => return self.extensions().get(extension).map(string_encoding),
        };
        core.map(Cow::Borrowed)
    }

    /// What events must share to be handled in order: `partitionkey` (the CloudEvents extension "Partitioning"), else
    /// the subject.
    pub fn ordering_key(&self) -> Option<&str> {
        self.extensions().get(rules::PARTITION_KEY).and_then(Value::as_str).or_else(|| self.subject())
    }

    /// The hash slot of its ordering key; of its identity, if it has none.
    pub fn hash_slot(&self, identity: &Identity) -> HashSlot {
        HashSlot::of(self.ordering_key().unwrap_or(identity.as_str()))
    }

    /// The document: one JSON object and a newline at its end. It is one line unless the JSON given as data holds
    /// line breaks of its own, which are kept; [`one_line`] is for readers that need it so.
    pub fn to_json(&self) -> Vec<u8> {
        write::document(&self.parts)
    }
}

impl Data {
    /// JSON as the user gave it, kept but for the white space around it.
    ///
    /// # Errors
    /// The JSON reader's message, with the position.
    pub fn json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(Self::Json)
    }

    /// Whether every reader of JSON can hold it: numbers within a double, strings of whole characters, and no more than 127
    /// levels. What cannot be held is valid JSON (RFC 8259 § 6 to 9 lets readers set such limits), kept by the bus, and
    /// lost on conditions and on most programs.
    ///
    /// # Errors
    /// The JSON reader's message, with the position.
    pub fn check_readable(&self) -> Result<(), serde_json::Error> {
        match self {
            Self::Json(raw) => serde_json::from_str::<readable::Readable>(raw.get()).map(|_| ()),
            Self::Absent | Self::Base64(_) => Ok(()),
        }
    }

    /// Plain text, as a JSON string.
    pub fn text(text: &str) -> Self {
        serde_json::value::to_raw_value(text).map_or(Self::Absent, Self::Json)
    }

    /// The bytes, if it carries bytes.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Base64(text) => BASE64.decode(text).ok(),
            Self::Absent | Self::Json(_) => None,
        }
    }

    /// Any bytes.
    pub fn binary(bytes: &[u8]) -> Self {
        Self::Base64(BASE64.encode(bytes))
    }
}

/// By the bytes of the document.
impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => true,
            (Self::Json(this), Self::Json(that)) => this.get() == that.get(),
            (Self::Base64(this), Self::Base64(that)) => this == that,
            _ => false,
        }
    }
}

impl Eq for Data {}

impl EventError {
    fn attribute(name: &str, problem: impl Into<Cow<'static, str>>) -> Self {
        Self::Attribute { name: name.to_owned(), problem: problem.into() }
    }
}

fn string_encoding(value: &Value) -> Cow<'_, str> {
    value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed)
}

/// A name from a document as it may be shown on a terminal.
fn printable(name: &str) -> String {
    let shown: String = name.chars().take(40).flat_map(char::escape_debug).collect();
    if name.chars().nth(40).is_some() { shown + "…" } else { shown }
}

/// `1048576` as `1,048,576`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
