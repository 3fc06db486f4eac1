//! From an event to bytes.

use std::borrow::Cow;

use serde::Serialize;

use super::{Data, DataLine, Event, EventBuilder, rules};

/// The document and a newline.
pub(super) fn document(event: &EventBuilder) -> Vec<u8> {
    let mut document = Vec::with_capacity(256 + event.data.len());
    begin(&mut document);
    value(&mut document, &event.id);
    attributes_before_time(&mut document, event);
    if let Some(time) = &event.time {
        member(&mut document, "time", time);
    }
    attributes_after_time(&mut document, event);
    match &event.data {
        Data::Absent => {}
        Data::Json(data) => member(&mut document, "data", data),
        Data::Base64(text) => member(&mut document, rules::DATA_BASE64, text),
    }
    document.extend_from_slice(b"}\n");
    document
}

/// As far as the id.
fn begin(document: &mut Vec<u8>) {
    document.push(b'{');
    value(document, "specversion");
    document.push(b':');
    value(document, rules::SPEC_VERSION);
    name(document, "id");
}

fn attributes_before_time(document: &mut Vec<u8>, event: &EventBuilder) {
    member(document, "source", &event.source);
    member(document, "type", &event.type_);
    if let Some(subject) = &event.subject {
        member(document, "subject", subject);
    }
}

fn attributes_after_time(document: &mut Vec<u8>, event: &EventBuilder) {
    for (name, value) in [("datacontenttype", &event.datacontenttype), ("dataschema", &event.dataschema)] {
        if let Some(value) = value {
            member(document, name, value);
        }
    }
    for (name, value) in &event.extensions {
        member(document, name, value);
    }
}

fn member(document: &mut Vec<u8>, of: &str, is: &(impl Serialize + ?Sized)) {
    name(document, of);
    value(document, is);
}

/// The name of a further member, and its colon.
fn name(document: &mut Vec<u8>, name: &str) {
    document.push(b',');
    value(document, name);
    document.push(b':');
}

fn value(document: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Serialising strings into memory cannot fail.
    let written = serde_json::to_writer(document, value);
    debug_assert!(written.is_ok(), "an event could not be written: {written:?}");
}

/// Writes events that differ only in their ids, their times, and their data, which is JSON.
#[derive(Debug, Clone)]
pub struct EventTemplate {
    before_id: Vec<u8>,
    before_time: Vec<u8>,
    before_data: Vec<u8>,
    type_: String,
    ordering_key: Option<String>,
}

impl EventTemplate {
    /// Of events like this one, in all but their ids, times and data.
    pub fn new(event: &Event) -> Self {
        let parts = &event.parts;
        let mut template = Self {
            before_id: Vec::new(),
            before_time: Vec::new(),
            before_data: Vec::new(),
            type_: parts.type_.clone(),
            ordering_key: event.ordering_key().map(str::to_owned),
        };
        begin(&mut template.before_id);
        template.before_id.push(b'"');
        template.before_time.push(b'"');
        attributes_before_time(&mut template.before_time, parts);
        name(&mut template.before_time, "time");
        template.before_time.push(b'"');
        template.before_data.push(b'"');
        attributes_after_time(&mut template.before_data, parts);
        name(&mut template.before_data, "data");
        template
    }

    /// How many bytes they have in common.
    pub fn content_len(&self) -> usize {
        self.before_id.len() + self.before_time.len() + self.before_data.len()
    }

    /// Their type.
    pub fn type_(&self) -> &str {
        &self.type_
    }

    /// Their ordering key.
    pub fn ordering_key(&self) -> Option<&str> {
        self.ordering_key.as_deref()
    }

    /// Adds the document of an event and a newline, as [`Event::to_json`] gives it. `id` and `time`
    /// are written as they are: they have no character that JSON escapes.
    pub fn write(&self, document: &mut Vec<u8>, id: &str, time: &str, data: DataLine<'_>) {
        for part in [&*self.before_id, id.as_bytes(), &*self.before_time, time.as_bytes(), &*self.before_data] {
            document.extend_from_slice(part);
        }
        document.extend_from_slice(data.bytes());
        document.extend_from_slice(b"}\n");
    }
}

/// A document without the byte order mark that it may begin with: it may be ignored (RFC 8259 §8.1), and
/// some Windows tools write one.
pub(super) fn without_mark(document: &[u8]) -> &[u8] {
    document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document)
}

/// A JSON document on one line: its line breaks, which are only ever between tokens, become spaces. A
/// byte order mark, which only a file may begin with, is left out.
pub fn one_line(document: &[u8]) -> Cow<'_, [u8]> {
    let document = without_mark(document).trim_ascii();
    if !has_breaks(document) {
        return Cow::Borrowed(document);
    }
    let breaks = |byte: &u8| matches!(byte, b'\n' | b'\r');
    Cow::Owned(document.iter().map(|byte| if breaks(byte) { b' ' } else { *byte }).collect())
}

pub(super) fn has_breaks(text: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', text).is_some()
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
