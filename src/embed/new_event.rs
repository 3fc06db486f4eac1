//! An event to be emitted.

#[cfg(feature = "cli")]
use std::borrow::Cow;
use std::time::SystemTime;

use serde::Serialize;

use super::{Error, event_time};
use crate::bus::emit::{Draft, SegmentDraft};
use crate::clock::Clock;
use crate::config::default_source;
use crate::event::{Data, Event, EventBuilder, EventError, EventTime, check_size};

/// An event to be emitted. Its source is this host, and its id is made by evbus, unless they are
/// given.
#[derive(Debug, Clone)]
pub struct NewEvent {
    builder: EventBuilder,
    id: Option<String>,
    due: Option<SystemTime>,
    /// Whether it stays as it is, also without a time.
    is_complete: bool,
}

impl NewEvent {
    /// An event of a type, such as `order.created`.
    #[must_use]
    pub fn new(type_: impl Into<String>) -> Self {
        Self { builder: Event::new("", default_source(), type_), id: None, due: None, is_complete: false }
    }

    /// A whole event, as it is, with its own id.
    #[must_use]
    pub fn complete(event: Event) -> Self {
        Self { id: Some(event.id().to_owned()), builder: event.into_builder(), due: None, is_complete: true }
    }

    /// An id of the caller's own: emitted twice, the event is on the bus once.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Where it comes from, a URI reference.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.builder = self.builder.source(source);
        self
    }

    /// What it is about. It is the ordering key, too, unless [`NewEvent::key`] gives another.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.builder = self.builder.subject(subject);
        self
    }

    /// The ordering key: an ordered group runs events of one key one at a time, in order.
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> Self {
        self.extension("partitionkey", key)
    }

    /// A CloudEvents extension attribute.
    #[must_use]
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.builder = self.builder.extension(name, value.into());
        self
    }

    /// The data, as it is, and its media type, if it has one.
    #[must_use]
    pub fn data(mut self, data: Data, media_type: Option<&str>) -> Self {
        self.builder = self.builder.data(data);
        if let Some(media_type) = media_type {
            self.builder = self.builder.datacontenttype(media_type);
        }
        self
    }

    /// The data, as JSON.
    ///
    /// # Errors
    /// It cannot be serialised.
    pub fn json(mut self, data: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        let text = serde_json::to_string(data).map_err(Error::Data)?;
        self.builder = self.builder.data(Data::json(&text).map_err(Error::Data)?).datacontenttype("application/json");
        Ok(self)
    }

    /// The data, as text.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.builder = self.builder.data(Data::text(text)).datacontenttype("text/plain");
        self
    }

    /// The data, as bytes.
    #[must_use]
    pub fn binary(mut self, bytes: &[u8]) -> Self {
        self.builder = self.builder.data(Data::binary(bytes)).datacontenttype("application/octet-stream");
        self
    }

    /// Lets the event wait: groups get it at this time.
    #[must_use]
    pub fn at(mut self, time: SystemTime) -> Self {
        self.due = Some(time);
        self
    }

    /// Its type.
    pub fn type_(&self) -> &str {
        self.builder.type_()
    }

    /// Where it comes from.
    #[cfg(feature = "cli")]
    pub(super) fn own_source(&self) -> &str {
        self.builder.own_source()
    }

    /// The text of an extension attribute, if it has that.
    #[cfg(feature = "cli")]
    pub(super) fn own_extension(&self, name: &str) -> Option<Cow<'_, str>> {
        self.builder.own_extension(name)
    }

    /// The document that it becomes.
    #[cfg(test)]
    pub(crate) fn document_for_tests(self) -> Vec<u8> {
        self.draft(&crate::clock::SystemClock, usize::MAX).unwrap().0.document().to_vec()
    }

    /// Whether it is an object of its own, whatever comes with it: it has an id of the caller's own,
    /// or may wait.
    pub(super) fn is_single(&self) -> bool {
        self.id.is_some() || self.due.is_some()
    }

    /// How long its data and its attributes are together, in bytes, about.
    pub(super) fn content_len(&self) -> usize {
        self.builder.content_len()
    }

    /// The event with this id and of this time, if that is all that it is to have of its own.
    pub(super) fn plain(&self, id: &str, time: EventTime) -> Option<Event> {
        if self.is_single() {
            return None;
        }
        build(self.builder.clone(), id, time).ok()
    }

    /// The event as it is to be put, and until when it is to wait.
    pub(super) fn draft(self, clock: &dyn Clock, limit: usize) -> Result<(Draft, Option<EventTime>), Error> {
        let due = self.due.map(event_time).filter(|due| *due > clock.now());
        let Self { builder, id, is_complete, .. } = self;
        let make = |id: &str, time| if is_complete { builder.build() } else { build(builder, id, time) };
        let draft = Draft::new(clock, due, id.as_deref(), make)?;
        Ok((checked(draft, limit)?, due))
    }

    /// The event as it is to be put on the next line of a segment.
    pub(super) fn draft_in_segment(
        self,
        clock: &dyn Clock,
        limit: usize,
        segment: &SegmentDraft,
    ) -> Result<Draft, Error> {
        let make = |id: &str, time: EventTime| build(self.builder, id, time);
        checked(Draft::in_segment(clock, segment.nonce(), segment.len(), make)?, limit)
    }
}

/// An event of now that was not put: it gets another id and time.
impl From<Draft> for NewEvent {
    fn from(draft: Draft) -> Self {
        Self { builder: draft.into_event().into_builder(), id: None, due: None, is_complete: false }
    }
}

fn build(builder: EventBuilder, id: &str, time: EventTime) -> Result<Event, EventError> {
    builder.id(id).time(time.to_rfc3339()).build()
}

fn checked(draft: Draft, limit: usize) -> Result<Draft, Error> {
    draft.event().data().check_readable().map_err(Error::Data)?;
    check_size(draft.document(), limit)?;
    Ok(draft)
}
