//! From bytes to an event.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::rules::{self, Attributes};
use super::write::without_mark;
use super::{Data, Event, EventBuilder, EventError};
use crate::event::{HashSlot, Identity};

/// A member of the document, its value not yet looked into.
type Member<'a> = (Cow<'a, str>, &'a RawValue);

/// Up to so many members are compared with each other; more are sorted.
const FEW_MEMBERS: usize = 16;

/// An event whose attributes all are as the specification wants them, borrowed from its document.
#[derive(Debug)]
pub(crate) struct EventView<'a> {
    id: Cow<'a, str>,
    source: Cow<'a, str>,
    type_: Cow<'a, str>,
    rest: PartialEvent<'a>,
}

impl<'a> EventView<'a> {
    /// Reads a document, as [`Event::parse`] does.
    pub fn parse(document: &'a [u8], limit: usize) -> Result<Self, EventError> {
        let document = without_mark(document).trim_ascii();
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
        let view = partial.finish()?;
        rules::check(&view.attributes())?;
        Ok(view)
    }

    /// Names the event within its source.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it happened.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What kind of event it is.
    pub fn type_(&self) -> &str {
        &self.type_
    }

    /// The id as it stands in the document; none if it has escapes.
    pub(super) fn borrowed_id(&self) -> Option<&'a str> {
        as_borrowed(&self.id)
    }

    /// The time as it stands in the document; none if there is none, or it has escapes.
    pub(super) fn borrowed_time(&self) -> Option<&'a str> {
        self.rest.time.as_ref().and_then(as_borrowed)
    }

    /// The data as it stands in the document, if it is JSON.
    pub(super) fn json_data(&self) -> Option<&'a str> {
        match self.rest.data {
            DataView::Json(data) => Some(data.get()),
            DataView::Absent | DataView::Base64(_) => None,
        }
    }

    /// See [`Event::ordering_key`].
    pub fn ordering_key(&self) -> Option<&str> {
        let key = self.rest.extensions.iter().find(|(name, _)| name == rules::PARTITION_KEY);
        key.and_then(|(_, key)| key.as_str()).or(self.rest.subject.as_deref())
    }

    /// See [`Event::hash_slot`].
    pub fn hash_slot(&self, identity: &Identity) -> HashSlot {
        HashSlot::of(self.ordering_key().unwrap_or(identity.as_str()))
    }

    fn attributes(&self) -> Attributes<'_, impl Iterator<Item = (&str, &Value)> + Clone> {
        let rest = &self.rest;
        Attributes {
            id: &self.id,
            source: &self.source,
            type_: &self.type_,
            subject: rest.subject.as_deref(),
            time: rest.time.as_deref(),
            datacontenttype: rest.datacontenttype.as_deref(),
            dataschema: rest.dataschema.as_deref(),
            extensions: rest.extensions.iter().map(|(name, value)| (&**name, value)),
            base64: match &rest.data {
                DataView::Base64(text) => Some(text),
                DataView::Absent | DataView::Json(_) => None,
            },
        }
    }
}

impl From<EventView<'_>> for Event {
    fn from(view: EventView<'_>) -> Self {
        let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        let rest = view.rest;
        let extensions = rest.extensions.into_iter().filter(|(_, value)| !value.is_null());
        let parts = EventBuilder {
            id: view.id.into_owned(),
            source: view.source.into_owned(),
            type_: view.type_.into_owned(),
            subject: owned(rest.subject),
            time: owned(rest.time),
            datacontenttype: owned(rest.datacontenttype),
            dataschema: owned(rest.dataschema),
            extensions: extensions.map(|(name, value)| (name.into_owned(), value)).collect(),
            data: match rest.data {
                DataView::Absent => Data::Absent,
                DataView::Json(value) => Data::Json(value.to_owned()),
                DataView::Base64(text) => Data::Base64(text.into_owned()),
            },
        };
        Self { parts }
    }
}

/// Checks that a bus takes a document of this size; white space around it does not count.
///
/// # Errors
/// [`EventError::TooLarge`].
pub fn check_size(document: &[u8], limit: usize) -> Result<(), EventError> {
    let size = document.trim_ascii().len();
    if size > limit { Err(EventError::TooLarge { size, limit }) } else { Ok(()) }
}

/// [`Data`], borrowed.
#[derive(Debug, Default)]
enum DataView<'a> {
    #[default]
    Absent,
    Json(&'a RawValue),
    Base64(Cow<'a, str>),
}

/// What has been read of an event so far.
#[derive(Debug, Default)]
struct PartialEvent<'a> {
    version: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    type_: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    datacontenttype: Option<Cow<'a, str>>,
    dataschema: Option<Cow<'a, str>>,
    extensions: Vec<(Cow<'a, str>, Value)>,
    data: DataView<'a>,
}

impl<'a> PartialEvent<'a> {
    fn take(&mut self, name: Cow<'a, str>, value: &'a RawValue) -> Result<(), EventError> {
        match &*name {
            "specversion" => self.version = string(&name, value)?,
            "id" => self.id = string(&name, value)?,
            "source" => self.source = string(&name, value)?,
            "type" => self.type_ = string(&name, value)?,
            "subject" => self.subject = string(&name, value)?,
            "time" => self.time = string(&name, value)?,
            "datacontenttype" => self.datacontenttype = string(&name, value)?,
            "dataschema" => self.dataschema = string(&name, value)?,
            "data" => self.take_data(DataView::Json(value))?,
            rules::DATA_BASE64 => {
                if let Some(text) = string(&name, value)? {
                    self.take_data(DataView::Base64(text))?;
                }
            }
            _ => {
                let value = scalar(&name, value)?;
                self.extensions.push((name, value));
            }
        }
        Ok(())
    }

    fn take_data(&mut self, data: DataView<'a>) -> Result<(), EventError> {
        if !matches!(self.data, DataView::Absent) {
            return Err(EventError::attribute(rules::DATA_BASE64, " and 'data' exclude each other"));
        }
        self.data = data;
        Ok(())
    }

    fn finish(mut self) -> Result<EventView<'a>, EventError> {
        let version = required("specversion", self.version.take())?;
        if version != rules::SPEC_VERSION {
            return Err(EventError::attribute("specversion", " is not \"1.0\", the only version known here"));
        }
        Ok(EventView {
            id: required("id", self.id.take())?,
            source: required("source", self.source.take())?,
            type_: required("type", self.type_.take())?,
            rest: self,
        })
    }
}

fn as_borrowed<'a>(text: &Cow<'a, str>) -> Option<&'a str> {
    match text {
        Cow::Borrowed(text) => Some(text),
        Cow::Owned(_) => None,
    }
}

fn required<'a>(name: &str, value: Option<Cow<'a, str>>) -> Result<Cow<'a, str>, EventError> {
    value.ok_or_else(|| EventError::attribute(name, " is missing"))
}

/// A string; none for `null`, which means unset (JSON format §2.2).
fn string<'a>(name: &str, value: &'a RawValue) -> Result<Option<Cow<'a, str>>, EventError> {
    match first_byte(value) {
        b'n' => Ok(None),
        b'"' => match value.get().trim_matches('"') {
            // Without an escape it stands there as it is.
            plain if plain.len() + 2 == value.get().len() && !plain.contains('\\') => Ok(Some(plain.into())),
            _ => serde_json::from_str(value.get()).map(Some).map_err(|error| bad_value(name, &error)),
        },
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
    let mut members_before = members.iter().enumerate();
    let repeated = members_before.find(|(at, (name, _))| match members.len() <= FEW_MEMBERS {
        true => members[..*at].iter().any(|(before, _)| before == name),
        false => !seen.insert(&**name),
    });
    match repeated {
        Some((_, (name, _))) => Err(EventError::attribute(name, " is given twice")),
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
        let mut members = Vec::with_capacity(FEW_MEMBERS);
        while let Some(name) = map.next_key_seed(MemberName)? {
            members.push((name, map.next_value()?));
        }
        Ok(members)
    }
}

/// The name of a member, borrowed where it has no escapes.
struct MemberName;

impl<'de> DeserializeSeed<'de> for MemberName {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for MemberName {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}
