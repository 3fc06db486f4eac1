//! Makes events from the flags and the environment.

use std::rc::Rc;
use std::time::Duration;

use super::args::EmitArgs;
use super::source::smaller_or_larger_bus;
use super::target::{Sent, Target};
use super::{chain, data};
use crate::bus::chain::{DEPTH, LongChain};
use crate::bus::emit::{Ack, AckKind, Draft, Emitter, SegmentDraft};
use crate::cli::failure::Failure;
use crate::cli::help_line::{command, text};
use crate::cli::session::{Opened, Session};
use crate::cli::times;
use crate::clock::Clock;
use crate::config::{Environment, default_source};
use crate::event::{Data, Event, EventTemplate, EventTime, check_size, odd_type};
use crate::store::{ErrorDetail, ErrorKind, LARGEST_BYTES, Store, StoreError, StoreResult};

/// What the flags and the environment say about every event of this run.
pub(super) struct Maker {
    clock: Rc<dyn Clock>,
    /// Of the bus; none for a server.
    store: Option<Rc<dyn Store>>,
    timeout: Duration,
    pub max_event_bytes: usize,
    /// How many events may have caused each other before one; 0: any number.
    max_depth: u32,
    /// Whether the bus takes many events in one object.
    pub has_segments: bool,
    source: String,
    subject: Option<String>,
    content_type: Option<String>,
    schema: Option<String>,
    time: Option<String>,
    /// The time until which the events wait.
    pub due: Option<EventTime>,
    /// Extension attributes: the ordering key, `--attr`, and the cause of this event.
    extensions: Vec<(String, String)>,
}

/// Whether a text is a `traceparent` (W3C Trace Context § 3.2.2); any other text is dropped.
fn is_trace_parent(text: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    lengths == [2, 32, 16, 2]
        && parts.iter().all(|part| hex(part))
        && parts[0] != "ff"
        && !zero(parts[1])
        && !zero(parts[2])
}

impl Maker {
    /// What the flags say, for a bus that is open, or for a server.
    pub fn new(
        args: &EmitArgs,
        session: &Session,
        opened: Option<&Opened>,
        (timeout, depth): (Duration, Option<u32>),
    ) -> Result<Self, Failure> {
        args.type_.as_deref().map_or(Ok(()), refuse_odd_type)?;
        let environment = &session.environment;
        let time = args.time.as_deref().map(|text| past(text, environment)).transpose()?;
        let mut extensions = Vec::new();
        if let Some(key) = &args.key {
            extensions.push(("partitionkey".to_owned(), key.clone()));
        }
        for attribute in &args.attr {
            let (name, value) = attribute
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("--attr '{attribute}' has no '='")).help("--attr name=value"))?;
            extensions.push((name.to_owned(), value.to_owned()));
        }
        // An event emitted by a handler names the event that caused it (CloudEvents correlation
        // extension).
        let var = |name: &str| environment.var(name).and_then(|value| value.to_str()).filter(|value| !value.is_empty());
        for (name, variable) in [("causationid", "EVBUS_ID"), ("correlationid", "EVBUS_CORRELATIONID")] {
            if let Some(value) = var(variable).filter(|_| !extensions.iter().any(|(set, _)| set == name)) {
                extensions.push((name.to_owned(), value.to_owned()));
            }
        }
        // A server knows its bus's number.
        let max_depth = opened.map_or(0, |opened| opened.bus.settings.max_depth);
        match (extensions.iter().find(|(name, _)| name == DEPTH), depth) {
            (Some((_, own)), _) => {
                let type_ = args.type_.as_deref().unwrap_or_default();
                if let Some(chain) = LongChain::of_attribute(own, max_depth, type_) {
                    return Err(chain::refusal(&chain));
                }
            }
            (None, Some(depth)) => extensions.push((DEPTH.to_owned(), depth.to_string())),
            (None, None) => {}
        }
        // It also belongs to that event's trace (CloudEvents distributed tracing extension).
        let has_parent = extensions.iter().any(|(name, _)| name == "traceparent");
        if let Some(parent) = var("TRACEPARENT").filter(|parent| !has_parent && is_trace_parent(parent)) {
            extensions.push(("traceparent".to_owned(), parent.to_owned()));
            extensions.extend(var("TRACESTATE").map(|state| ("tracestate".to_owned(), state.to_owned())));
        }
        Ok(Self {
            clock: Rc::clone(&session.clock),
            store: opened.map(|opened| Rc::clone(&opened.bus_handle().store)),
            timeout,
            // A server knows the limit of its bus, and says so.
            max_event_bytes: opened.map_or(LARGEST_BYTES, |opened| opened.bus.max_event_bytes()),
            max_depth,
            has_segments: opened.is_some_and(|opened| opened.bus.settings.has_segments()),
            source: args.source.clone().unwrap_or_else(|| default_source().to_owned()),
            subject: args.subject.clone(),
            content_type: args.content_type.clone(),
            schema: args.schema.clone(),
            time,
            due: args.due(environment)?,
            extensions,
        })
    }

    /// Emits the events, or schedules them if they are due later; through a server perhaps only the first of
    /// them. Fails if the store makes no progress within the time-out.
    pub async fn send(&self, target: &mut Target, drafts: &[Draft]) -> Result<Vec<Sent>, Failure> {
        let due = self.due.filter(|due| *due > self.clock.now());
        let emitter = match target {
            Target::Bus(emitter) => emitter,
            Target::Server(_) if due.is_some() => {
                return Err(Failure::usage("a server takes no events for later: --at and --delay need the bus itself"));
            }
            Target::Server(server) => return server.emit(drafts).await,
            Target::Nowhere => return Ok(drafts.iter().map(|_| Sent { name: None, kind: AckKind::New }).collect()),
        };
        let sending = async {
            match due {
                Some(due) => emitter.schedule(drafts, due).await,
                None => emitter.emit(drafts).await,
            }
        };
        Ok(sent(self.within_the_timeout(sending, drafts.len() > 1).await?))
    }

    /// Emits the events of segments. Fails as [`Maker::send`] does.
    pub async fn send_segments(&self, emitter: &mut Emitter, segments: &[SegmentDraft]) -> StoreResult<Vec<EventTime>> {
        self.within_the_timeout(emitter.emit_segments(segments), true).await
    }

    /// Emits events with ids of their own, many in one object. Fails as [`Maker::send`] does.
    pub async fn send_chunks(&self, emitter: &mut Emitter, drafts: &[Draft]) -> StoreResult<Vec<Sent>> {
        Ok(sent(self.within_the_timeout(emitter.emit_chunks(drafts), true).await?))
    }

    /// Sends the hints that the store holds back, before the process ends.
    pub async fn send_hints(&self) {
        if let Some(store) = &self.store {
            store.send_hints().await;
        }
    }

    async fn within_the_timeout<T>(
        &self,
        sending: impl Future<Output = StoreResult<T>>,
        is_batch: bool,
    ) -> StoreResult<T> {
        let mut sending = std::pin::pin!(sending);
        // A batch may take longer, as long as requests are sent.
        let requests_now = || self.store.as_ref().and_then(|store| store.requests());
        let mut requests = is_batch.then(requests_now);
        loop {
            tokio::select! { biased;
                sent = &mut sending => return sent,
                () = self.clock.sleep_until(self.clock.elapsed() + self.timeout) => {}
            }
            let now = requests_now();
            if requests.as_ref().is_none_or(|before| *before == now) {
                let what = format!("no answer within {}", times::format_duration(self.timeout));
                return Err(StoreError::new(ErrorKind::Unavailable, what).with_detail(ErrorDetail::MayBeThere));
            }
            requests = Some(now);
        }
    }

    /// The one event that the arguments describe.
    pub fn single(&self, args: &EmitArgs, environment: &Environment) -> Result<Draft, Failure> {
        let Some(type_) = &args.type_ else {
            return Err(Failure::usage("no event type").help([
                command("emit", "TYPE [DATA]"),
                text(", for example: "),
                command("emit", "backup.done"),
            ]));
        };
        let (data, content_type) = data::from_args(args, environment, self.max_event_bytes)?;
        self.draft(type_, data, content_type, args.id.as_deref())
    }

    /// An event with these flags and its own type and data.
    pub fn draft(
        &self,
        type_: &str,
        data: Data,
        content_type: Option<&str>,
        id: Option<&str>,
    ) -> Result<Draft, Failure> {
        let build = |id: &str, time: EventTime| self.event(type_, data, content_type, id, time);
        self.checked(Draft::new(&*self.clock, self.due, id, build)?)
    }

    /// The same for the next line of a segment.
    pub fn draft_in_segment(
        &self,
        type_: &str,
        data: Data,
        content_type: Option<&str>,
        segment: &SegmentDraft,
    ) -> Result<Draft, Failure> {
        let build = |id: &str, time: EventTime| self.event(type_, data, content_type, id, time);
        self.checked(Draft::in_segment(&*self.clock, segment.nonce(), segment.len(), build)?)
    }

    /// What all events of a type have in common; none if an event is refused, or has a time of its own.
    pub fn template(&self, type_: &str) -> Option<EventTemplate> {
        let event = self.event(type_, Data::Absent, Some("application/json"), "0", self.clock.now()).ok();
        event.filter(|_| self.time.is_none()).map(|event| EventTemplate::new(&event))
    }

    /// The time of an event that is made now.
    pub fn now(&self) -> EventTime {
        self.clock.now()
    }

    /// A segment without events.
    pub fn segment(&self) -> SegmentDraft {
        SegmentDraft::new(&*self.clock)
    }

    fn event(
        &self,
        type_: &str,
        data: Data,
        content_type: Option<&str>,
        id: &str,
        time: EventTime,
    ) -> Result<Event, Failure> {
        let mut event = Event::new(id, self.source.clone(), type_);
        event = event.time(self.time.clone().unwrap_or_else(|| time.to_rfc3339()));
        if let Some(subject) = &self.subject {
            event = event.subject(subject.clone());
        }
        if let Some(media_type) = self.content_type.as_deref().or(content_type) {
            event = event.datacontenttype(media_type);
        }
        if let Some(schema) = &self.schema {
            event = event.dataschema(schema.clone());
        }
        for (name, value) in &self.extensions {
            event = event.extension(name.clone(), value.clone());
        }
        Ok(event.data(data).build()?)
    }

    /// A complete CloudEvents document, with its own id.
    pub fn document(&self, line: &[u8]) -> Result<Draft, Failure> {
        let event = Event::from_line(line, self.max_event_bytes)?;
        if let Some(chain) = LongChain::of_event(&event, self.max_depth) {
            return Err(chain::refusal(&chain));
        }
        self.checked(Draft::named(event))
    }

    fn checked(&self, draft: Draft) -> Result<Draft, Failure> {
        draft.event().data().check_readable().map_err(|error| {
            Failure::usage(format!("the data cannot be read by most readers of JSON: {error}"))
                .help("--text keeps it as a string, --binary as bytes")
        })?;
        check_size(draft.document(), self.max_event_bytes)
            .map_err(|error| Failure::usage(format!("the event {error}")).help(smaller_or_larger_bus()))?;
        Ok(draft)
    }
}

fn sent(acks: Vec<Ack>) -> Vec<Sent> {
    acks.into_iter().map(|ack| Sent { kind: ack.kind, name: Some(ack.name) }).collect()
}

/// Refuses a type that no pattern can match: on the command line it is a typing error. Documents
/// may have any type.
fn refuse_odd_type(type_: &str) -> Result<(), Failure> {
    if type_.starts_with(['{', '[']) {
        return Err(Failure::usage(format!("'{type_}' is data; the event's type comes before it"))
            .help(command("emit", format_args!("TYPE '{type_}'"))));
    }
    let odd = |what: &str| {
        let cure = "write tokens with dots between them, such as order.created";
        Err(Failure::usage(format!("type '{type_}' {what}, so no pattern could name it")).help(cure))
    };
    if let Some(what) = odd_type(type_) {
        return odd(what);
    }
    Ok(())
}

/// Reads `--time`, the time at which the event happened.
fn past(text: &str, environment: &Environment) -> Result<String, Failure> {
    let answer = times::parse_past(text, environment.now, &environment.zone());
    answer.map(EventTime::to_rfc3339).map_err(|error| match error {
        times::TimeError::Future { .. } => {
            Failure::usage(format!("--time {error}")).help("--at TIME, if the event is to wait until then")
        }
        error => Failure::usage(format!("--time {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_trace_parent_is_passed_on() {
        assert!(is_trace_parent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for text in [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "$(reboot)",
        ] {
            assert!(!is_trace_parent(text), "{text}");
        }
    }
}
