//! An event in the making.

#[cfg(feature = "cli")]
use std::borrow::Cow;

use serde_json::{Map, Value};

use super::rules::{self, Attributes};
#[cfg(feature = "cli")]
use super::string_encoding;
use super::{Data, Event, EventError};

/// The parts of an event, not yet checked: [`EventBuilder::build`] does that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventBuilder {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) type_: String,
    pub(super) subject: Option<String>,
    pub(super) time: Option<String>,
    pub(super) datacontenttype: Option<String>,
    pub(super) dataschema: Option<String>,
    pub(super) extensions: Map<String, Value>,
    pub(super) data: Data,
}

impl EventBuilder {
    /// What every event must have.
    pub fn new(id: impl Into<String>, source: impl Into<String>, type_: impl Into<String>) -> Self {
        Self { id: id.into(), source: source.into(), type_: type_.into(), ..Self::default() }
    }

    /// What kind of event it is.
    pub fn type_(&self) -> &str {
        &self.type_
    }

    /// Where it comes from.
    #[cfg(feature = "cli")]
    pub(crate) fn own_source(&self) -> &str {
        &self.source
    }

    /// The text of an extension attribute, if it has that.
    #[cfg(feature = "cli")]
    pub(crate) fn own_extension(&self, name: &str) -> Option<Cow<'_, str>> {
        self.extensions.get(name).map(string_encoding)
    }

    /// Names the event within its source.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Where it comes from, a URI reference.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// What it is about.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// When it happened, in RFC 3339; see [`super::EventTime::to_rfc3339`].
    #[must_use]
    pub fn time(mut self, time: impl Into<String>) -> Self {
        self.time = Some(time.into());
        self
    }

    /// The media type of the data.
    #[must_use]
    pub fn datacontenttype(mut self, media_type: impl Into<String>) -> Self {
        self.datacontenttype = Some(media_type.into());
        self
    }

    /// The URI of the schema of the data.
    #[must_use]
    pub fn dataschema(mut self, uri: impl Into<String>) -> Self {
        self.dataschema = Some(uri.into());
        self
    }

    /// An extension attribute: a string, a boolean or an integer of 32 bits. `null` takes it away.
    #[must_use]
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.into(), value.into());
        self
    }

    /// What it carries.
    #[must_use]
    pub fn data(mut self, data: Data) -> Self {
        self.data = data;
        self
    }

    /// The event.
    ///
    /// # Errors
    /// The first attribute that is not as the specification wants it.
    pub fn build(mut self) -> Result<Event, EventError> {
        rules::check(&self.attributes())?;
        self.extensions.retain(|_, value| !value.is_null());
        Ok(Event { parts: self })
    }

    /// How many bytes its data and its attributes take in the document, about, without names and marks.
    pub(crate) fn content_len(&self) -> usize {
        let texts = [&self.subject, &self.time, &self.datacontenttype, &self.dataschema];
        let texts = texts.into_iter().flatten().chain([&self.id, &self.source, &self.type_]).map(String::len);
        // An extension that is no text is a number or a boolean.
        let extension = |(name, value): (&String, &Value)| name.len() + value.as_str().map_or(16, str::len);
        self.data.len() + texts.sum::<usize>() + self.extensions.iter().map(extension).sum::<usize>()
    }

    fn attributes(&self) -> Attributes<'_, impl Iterator<Item = (&str, &Value)> + Clone> {
        Attributes {
            id: &self.id,
            source: &self.source,
            type_: &self.type_,
            subject: self.subject.as_deref(),
            time: self.time.as_deref(),
            datacontenttype: self.datacontenttype.as_deref(),
            dataschema: self.dataschema.as_deref(),
            extensions: self.extensions.iter().map(|(name, value)| (&**name, value)),
            base64: match &self.data {
                Data::Base64(text) => Some(text),
                Data::Absent | Data::Json(_) => None,
            },
        }
    }
}
