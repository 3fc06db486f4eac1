//! An event on its way to the bus, and what became of it.

use std::rc::Rc;

use crate::bus::keys;
use crate::clock::Clock;
use crate::event::{
    DataLine, Event, EventName, EventTemplate, EventTime, HashSlot, Identity, SEGMENT_MAX_BYTES, SEGMENT_MAX_EVENTS,
    SegmentName, SegmentNonce, dedup_hash, event_id, one_line, segment_slug, slug_of,
};

/// An event on its way to the bus.
#[derive(Debug, Clone)]
pub struct Draft {
    pub(super) event: Event,
    pub(super) bytes: Vec<u8>,
    pub(super) identity: Identity,
    /// Set where the emitter named the id: a repeat is harmless.
    pub(super) dedup: Option<String>,
}

impl Draft {
    /// An event whose id evbus has made from `identity`.
    pub fn generated(event: Event, identity: Identity) -> Self {
        Self { bytes: event.to_json(), event, identity, dedup: None }
    }

    /// An event of now, or of when it is due, with the id that its emitter has named. Without one
    /// evbus makes an id of the same moment. `make` gets the id and the time.
    pub fn new<E>(
        clock: &dyn Clock,
        due: Option<EventTime>,
        id: Option<&str>,
        make: impl FnOnce(&str, EventTime) -> Result<Event, E>,
    ) -> Result<Self, E> {
        let time = due.unwrap_or(EventTime::MIN).max(clock.now());
        if let Some(id) = id {
            return Ok(Self::named(make(id, time)?));
        }
        let identity = Identity::random(clock.random(), clock.random());
        Ok(Self::generated(make(&event_id(time, &identity), time)?, identity))
    }

    /// An event of now for a line of a segment, with an id that names the segment and the line.
    pub fn in_segment<E>(
        clock: &dyn Clock,
        nonce: &SegmentNonce,
        line: u16,
        make: impl FnOnce(&str, EventTime) -> Result<Event, E>,
    ) -> Result<Self, E> {
        let (time, identity) = (clock.now(), nonce.identity(line));
        Ok(Self::generated(make(&event_id(time, &identity), time)?, identity))
    }

    /// An event whose emitter named its id: emitted twice, it is there once.
    pub fn named(event: Event) -> Self {
        let identity = Identity::named(event.source(), event.id());
        let dedup = Some(dedup_hash(event.source(), event.id()));
        Self { bytes: event.to_json(), event, identity, dedup }
    }

    /// An event that has waited, with its stored bytes and identity: released twice, it is on the
    /// bus once. None if the name tells no identity.
    pub(in crate::bus) fn stored(event: Event, bytes: Vec<u8>, name: &EventName) -> Option<Self> {
        let dedup = Some(dedup_hash(event.source(), event.id()));
        Some(Self { identity: Identity::parse(name.identity())?, bytes, event, dedup })
    }

    /// The same event, put whether or not another event has its id.
    pub(in crate::bus) fn without_dedup(self) -> Self {
        Self { dedup: None, ..self }
    }

    /// The key of the record of its id.
    pub(super) fn record_key(&self) -> String {
        keys::dedup(self.dedup.as_deref().unwrap_or_default())
    }

    /// The event itself.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The event alone.
    pub fn into_event(self) -> Event {
        self.event
    }

    /// The document, as it is put.
    pub fn document(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether its emitter named the id.
    pub fn is_named(&self) -> bool {
        self.dedup.is_some()
    }

    /// Its size on the bus, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Where the event lies if it comes at `time`.
    pub(super) fn name(&self, time: EventTime) -> EventName {
        EventName::new(time, self.event.hash_slot(&self.identity), &self.identity, self.event.type_())
    }
}

/// Events on their way to the bus as one segment.
#[derive(Debug, Clone)]
pub struct SegmentDraft {
    nonce: SegmentNonce,
    lines: Vec<DraftLine>,
    pub(super) bytes: Vec<u8>,
}

/// What the name of an event follows from, beside its time.
#[derive(Debug, Clone)]
struct DraftLine {
    id: Box<str>,
    /// The end of its line.
    end: usize,
    identity: Identity,
    ordering_key: Option<Rc<str>>,
    slug: Rc<str>,
}

impl SegmentDraft {
    /// A segment without events.
    pub fn new(clock: &dyn Clock) -> Self {
        Self::of_nonce(SegmentNonce::random(clock.random(), clock.random()))
    }

    /// A segment without events, which is to be put again: it has its nonce.
    pub(super) fn of_nonce(nonce: SegmentNonce) -> Self {
        Self { nonce, lines: Vec::new(), bytes: Vec::new() }
    }

    /// How many events it holds.
    pub fn len(&self) -> u16 {
        u16::try_from(self.lines.len()).unwrap_or(u16::MAX)
    }

    /// Whether another event may fit in.
    pub fn has_room(&self) -> bool {
        self.len() < SEGMENT_MAX_EVENTS
    }

    /// Whether it holds no event.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Its nonce, from which the ids of its events are made.
    pub fn nonce(&self) -> &SegmentNonce {
        &self.nonce
    }

    /// The ids of the events and their documents, in their order.
    pub fn events(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        let begins = std::iter::once(0).chain(self.lines.iter().map(|line| line.end));
        self.lines.iter().zip(begins).map(|(line, begin)| (&*line.id, &self.bytes[begin..line.end]))
    }

    /// Adds an event made by [`Draft::in_segment`] for the next line. Gives it back if there is no
    /// room for it; for one event alone there always is.
    pub fn add(&mut self, draft: Draft) -> Result<(), Box<Draft>> {
        if self.append(&draft) { Ok(()) } else { Err(Box::new(draft)) }
    }

    /// Adds an event, if there is room for it.
    pub(super) fn append(&mut self, draft: &Draft) -> bool {
        // Data that was given over several lines is one line here.
        let line = one_line(&draft.bytes);
        if !self.fits(self.bytes.len(), line.len() + 1) {
            return false;
        }
        self.bytes.extend_from_slice(&line);
        self.bytes.push(b'\n');
        let (type_, key) = (draft.event.type_(), draft.event.ordering_key());
        self.push(draft.event.id().into(), draft.identity, type_, key);
        true
    }

    /// Takes back all events but the first `len`.
    pub fn truncate(&mut self, len: u16) {
        self.lines.truncate(len.into());
        self.bytes.truncate(self.lines.last().map_or(0, |line| line.end));
    }

    /// Adds an event of a template, made at `now`, for the next line. None, and nothing is added, if
    /// there is no room for it, or if it would be longer than `most` bytes; else its size.
    pub fn add_line(
        &mut self,
        template: &EventTemplate,
        now: EventTime,
        data: DataLine<'_>,
        most: usize,
    ) -> Option<usize> {
        let identity = self.nonce.identity(self.len());
        let (id, begin) = (event_id(now, &identity), self.bytes.len());
        template.write(&mut self.bytes, &id, &now.to_rfc3339(), data);
        let size = self.bytes.len() - begin;
        if size > most || !self.fits(begin, size) {
            self.bytes.truncate(begin);
            return None;
        }
        self.push(id.into(), identity, template.type_(), template.ordering_key());
        Some(size)
    }

    /// Whether a line of this size fits behind the lines before it.
    fn fits(&self, before: usize, size: usize) -> bool {
        self.has_room() && (before + size <= SEGMENT_MAX_BYTES || self.is_empty())
    }

    /// The line that `bytes` ends with is an event.
    fn push(&mut self, id: Box<str>, identity: Identity, type_: &str, ordering_key: Option<&str>) {
        let last = self.lines.last();
        // Most have the type and the key of the one before.
        let slug = slug_of(type_);
        let slug = last.map(|last| Rc::clone(&last.slug)).filter(|last| **last == *slug).unwrap_or_else(|| slug.into());
        let ordering_key = ordering_key.map(|key| {
            let last = last.and_then(|last| last.ordering_key.clone()).filter(|last| **last == *key);
            last.unwrap_or_else(|| key.into())
        });
        self.lines.push(DraftLine { id, end: self.bytes.len(), identity, ordering_key, slug });
    }

    /// The names of its events, if the first of them has this time.
    pub fn names(&self, first: EventTime) -> Vec<EventName> {
        (0..self.lines.len()).map(|at| self.name(at, first)).collect()
    }

    /// The name of its event at a place, if the first of them has this time.
    pub fn name(&self, at: usize, first: EventTime) -> EventName {
        let line = &self.lines[at];
        let time = EventTime::from_micros(first.as_micros().saturating_add_unsigned(at as u64));
        let hash_slot = HashSlot::of(line.ordering_key.as_deref().unwrap_or(line.identity.as_str()));
        EventName::of_slug(time, hash_slot, &line.identity, &line.slug)
    }

    /// The id of its event at a place.
    pub fn id(&self, at: usize) -> &str {
        &self.lines[at].id
    }

    /// The key under which it lies, if its first event has this time. One event alone is a single
    /// object.
    pub(super) fn key(&self, first: EventTime) -> String {
        if self.lines.len() == 1 {
            return self.name(0, first).key();
        }
        let slug = segment_slug(self.lines.iter().map(|line| &*line.slug));
        let last = EventTime::from_micros(first.as_micros() + i64::from(self.len()) - 1);
        SegmentName::new(last, &self.nonce, &slug, self.len()).key()
    }

    /// Whether an event of it has an ordering key.
    pub fn has_ordering_key(&self) -> bool {
        self.lines.iter().any(|line| line.ordering_key.is_some())
    }
}

/// Whether an acknowledged event is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckKind {
    /// It was put now.
    New,
    /// It had been acknowledged before.
    Duplicate,
    /// Its id had been acknowledged before, for an event of another type, subject or data: this one is not on the bus.
    IdTaken,
}

/// The acknowledgement of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Where it lies.
    pub name: EventName,
    /// Whether this emit added it.
    pub kind: AckKind,
}

/// Where an event lies: its name, and the key of its object, which may be a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventCopy {
    pub name: EventName,
    pub key: String,
}

impl EventCopy {
    /// An object of its own.
    pub fn single(name: EventName) -> Self {
        Self { key: name.key(), name }
    }
}

/// An event that is on the bus, or waits, but is not yet acknowledged.
pub(super) struct Unacknowledged {
    /// The draft's, among those emitted together.
    pub index: usize,
    pub name: EventName,
}
