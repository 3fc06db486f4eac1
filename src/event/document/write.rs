//! From an event to bytes.

use std::borrow::Cow;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::{Data, EventBuilder, rules};

/// The document and a newline.
pub(super) fn document(event: &EventBuilder) -> Vec<u8> {
    let mut document = Vec::with_capacity(256 + event.data.len());
    // Serialising strings into memory cannot fail.
    let written = serde_json::to_writer(&mut document, &Document(event));
    debug_assert!(written.is_ok(), "an event could not be written: {written:?}");
    document.push(b'\n');
    document
}

/// A JSON document on one line: its line breaks, which are only ever between tokens, become spaces.
pub fn one_line(document: &[u8]) -> Cow<'_, [u8]> {
    let document = document.trim_ascii();
    let breaks = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !document.iter().any(breaks) {
        return Cow::Borrowed(document);
    }
    Cow::Owned(document.iter().map(|byte| if breaks(byte) { b' ' } else { *byte }).collect())
}

impl Data {
    /// How many bytes of the document it takes, about.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Json(value) => value.get().len(),
            Self::Base64(text) => text.len(),
        }
    }
}

struct Document<'a>(&'a EventBuilder);

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", rules::SPEC_VERSION)?;
        map.serialize_entry("id", &event.id)?;
        map.serialize_entry("source", &event.source)?;
        map.serialize_entry("type", &event.type_)?;
        let optional = [
            ("subject", &event.subject),
            ("time", &event.time),
            ("datacontenttype", &event.datacontenttype),
            ("dataschema", &event.dataschema),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        for (name, value) in &event.extensions {
            map.serialize_entry(name, value)?;
        }
        match &event.data {
            Data::Absent => {}
            Data::Json(value) => map.serialize_entry("data", value)?,
            Data::Base64(text) => map.serialize_entry(rules::DATA_BASE64, text)?,
        }
        map.end()
    }
}
