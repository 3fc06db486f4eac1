//! `evbus emit`: write events, and acknowledge them.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;

use super::exit::Code;
use super::failure::Failure;
use super::output::{self, Out};
use super::session::{Needs, Opened, Session, block_on};
use super::times;
use crate::bus::emit::{Draft, Emitter, Receipt};
use crate::config::World;
use crate::event::{Data, Event, EventBuilder, EventTime, Identity, event_id};
use crate::store::dir::{Durability, Execution};
use crate::store::{StoreResult, system_words};

mod bulk;
mod data;
mod plain;

pub(super) use plain::plain;

/// How long to wait for a store, unless told otherwise.
const PATIENCE: &str = "30s";
/// Durable before it is acknowledged: the default.
const FULL: &str = "full";

/// Write one event, or with --ndjson one a line
///
/// Prints the id once the event is safe: on the disk, and where every group will see it.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  evbus emit backup.done -F rc=0 -f host=db1
  evbus emit order.created '{\"id\":42,\"total\":99.5}' --subject order/42
  pg_dump app > app.sql; evbus emit dump.done -F rc=$? --id \"dump-$(date +%F)\"
  evbus emit --ndjson @events.ndjson           # each line a CloudEvent
  tail -f access.log | evbus emit log.line --text --ndjson -q
  evbus emit report.due --at 02:00             # evbus ls --scheduled; evbus cancel ID

DATA is JSON. '-' reads it from stdin, '@file' from a file; nothing else reads stdin but --ndjson.")]
pub(super) struct Args {
    /// The event's type, such as order.created
    #[arg(value_name = "TYPE")]
    type_: Option<String>,
    /// The data: JSON, '-' for stdin, or @FILE
    #[arg(value_name = "DATA", allow_negative_numbers = true)]
    data: Option<String>,
    /// Add a string field to the data
    #[arg(short = 'f', value_name = "KEY=VALUE")]
    string_field: Vec<String>,
    /// Add a field of any JSON type to the data
    #[arg(short = 'F', value_name = "KEY=JSON")]
    json_field: Vec<String>,
    /// DATA is text, not JSON
    #[arg(long)]
    text: bool,
    /// The data is this file's bytes ('@file', or '-' for stdin)
    #[arg(long, value_name = "@FILE", conflicts_with_all = ["text", "data", "ndjson"])]
    binary: Option<String>,
    /// One event a line, from stdin or @FILE: a CloudEvent, or with TYPE the data
    #[arg(long, value_name = "@FILE", num_args = 0..=1)]
    ndjson: Option<Option<String>>,
    /// The event's id: emitted twice with the same id and source, it is there once
    #[arg(long)]
    id: Option<String>,
    /// Who emits, a URI reference (default: //HOST)
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// What the event is about
    #[arg(long)]
    subject: Option<String>,
    /// The ordering key (default: the subject)
    #[arg(long)]
    key: Option<String>,
    /// When it happened (default: now): 10m ago, 09:30, 2026-11-20, RFC 3339
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// Let it wait until then: 02:00 (the next), 2026-12-24, '2026-12-24 09:30', RFC 3339; what has passed is now
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    at: Option<String>,
    /// Let it wait so long: 5m, 12h
    #[arg(long, value_name = "DURATION")]
    delay: Option<String>,
    /// Add an extension attribute
    #[arg(long, value_name = "NAME=VALUE")]
    attr: Vec<String>,
    /// The data's media type
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// The data's schema, a URI
    #[arg(long, value_name = "URI")]
    schema: Option<String>,
    /// Give up on a store that does not answer after this long
    #[arg(long, value_name = "DURATION", default_value = PATIENCE)]
    timeout: String,
    /// 'full': survives a power cut; 'none': survives the process
    #[arg(long, value_name = "LEVEL", default_value = FULL, value_parser = [FULL, "none"])]
    durability: String,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Print the event instead of its id
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

/// What goes to stdout for an acknowledged event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Print {
    Id,
    Event,
    Nothing,
}

pub(super) fn run(mut args: Args, session: Session) -> Result<Code, Failure> {
    args.take_type_from_ndjson()?;
    let patience = times::parse_duration(&args.timeout)?;
    let durability = if args.durability == "none" { Durability::None } else { Durability::Full };
    let address = session.address()?;
    block_on(Needs::of(&address), async {
        let opened = session.open_at(address, Execution::Inline, durability).await?;
        let mut emitter = Emitter::new(opened.place().clone(), patience);
        let maker = Maker::new(&args, &session, &opened)?;
        match &args.ndjson {
            Some(source) => bulk::run(&args, source.as_deref(), &maker, &mut emitter).await,
            None => {
                let draft = maker.single(&args, &session.world)?;
                let sent = maker.send(&mut emitter, std::slice::from_ref(&draft)).await;
                let receipts = sent.map_err(|error| cannot_emit(error, &draft))?;
                print(&mut Out::new(), args.print(), &[draft], &receipts)?;
                let past = |due: &EventTime| *due <= session.world.now;
                if let Some(due) = maker.due.filter(|due| !args.quiet && (past(due) || output::notes_on_terminal())) {
                    output::note(&waits(due, &session.world));
                }
                Ok(Code::Done)
            }
        }
    })
}

/// What became of `--at` or `--delay`, for whoever meant another day.
fn waits(due: EventTime, world: &World) -> String {
    let at = times::clock_text(due, world.now, &world.zone());
    if due > world.now { format!("it waits until {at}") } else { format!("{at} has passed: it came at once") }
}

fn cannot_emit(error: crate::store::StoreError, draft: &Draft) -> Failure {
    Failure::from(error).after(&format!("cannot emit {}", draft.event().type_()))
}

fn print(out: &mut Out, print: Print, drafts: &[Draft], receipts: &[Receipt]) -> Result<(), Failure> {
    for (draft, _) in drafts.iter().zip(receipts) {
        match print {
            Print::Nothing => {}
            Print::Id => out.line(draft.event().id())?,
            Print::Event => out.line(String::from_utf8_lossy(&draft.event().to_json()).trim_end())?,
        }
    }
    Ok(out.flush()?)
}

impl Args {
    /// Until when the events are to wait. A time that has come is now.
    fn due(&self, world: &World) -> Result<Option<EventTime>, Failure> {
        match (&self.at, &self.delay) {
            (Some(at), _) => times::parse_coming(at, world.now, &world.zone()).map(Some).map_err(|error| {
                Failure::usage(format!("--at {error}")).help("--delay DURATION, if it is to wait for a while")
            }),
            (None, Some(delay)) => Ok(Some(world.now.plus(times::parse_duration(delay)?))),
            (None, None) => Ok(None),
        }
    }

    fn print(&self) -> Print {
        match (self.quiet, self.json) {
            (true, _) => Print::Nothing,
            (false, true) => Print::Event,
            (false, false) => Print::Id,
        }
    }

    /// `--ndjson TYPE` reads as `--ndjson` and a type: only '@file' and '-' belong to the flag.
    fn take_type_from_ndjson(&mut self) -> Result<(), Failure> {
        let Some(value) = &mut self.ndjson else { return Ok(()) };
        if let Some(text) = value.take_if(|text| !text.starts_with('@') && text != "-")
            && let Some(other) = self.type_.replace(text)
        {
            self.data = Some(other);
        }
        if let Some(data) = &self.data {
            let what = format!("with --ndjson each line is an event; DATA '{data}' has no place");
            return Err(Failure::usage(what).help("evbus emit TYPE --ndjson @FILE"));
        }
        if !(self.string_field.is_empty() && self.json_field.is_empty() && self.id.is_none()) {
            return Err(Failure::usage("with --ndjson the lines are the events: -f, -F and --id have no place"));
        }
        Ok(())
    }
}

/// Makes drafts: what the flags and the environment say of every event of this run.
struct Maker {
    clock: Rc<dyn crate::clock::Clock>,
    max_event_bytes: usize,
    source: String,
    subject: Option<String>,
    content_type: Option<String>,
    schema: Option<String>,
    time: Option<String>,
    /// Until when the events are to wait.
    due: Option<EventTime>,
    /// Extension attributes: the ordering key, what `--attr` says, and where this event comes from.
    extensions: Vec<(String, String)>,
}

/// Whether a text is a `traceparent` (W3C Trace Context § 3.2.2): what is none is not passed on.
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
    fn new(args: &Args, session: &Session, opened: &Opened) -> Result<Self, Failure> {
        args.type_.as_deref().map_or(Ok(()), refuse_odd_type)?;
        let world = &session.world;
        let time = args.time.as_deref().map(|text| past(text, world)).transpose()?;
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
        // An event emitted by a handler says which event caused it (CloudEvents correlation extension).
        let var = |name: &str| world.var(name).and_then(|value| value.to_str()).filter(|value| !value.is_empty());
        for (name, variable) in [("causationid", "EVBUS_ID"), ("correlationid", "EVBUS_CORRELATIONID")] {
            if let Some(value) = var(variable).filter(|_| !extensions.iter().any(|(given, _)| given == name)) {
                extensions.push((name.to_owned(), value.to_owned()));
            }
        }
        // And which trace it belongs to (CloudEvents distributed tracing extension).
        let given = extensions.iter().any(|(name, _)| name == "traceparent");
        if let Some(parent) = var("TRACEPARENT").filter(|parent| !given && is_trace_parent(parent)) {
            extensions.push(("traceparent".to_owned(), parent.to_owned()));
            extensions.extend(var("TRACESTATE").map(|state| ("tracestate".to_owned(), state.to_owned())));
        }
        Ok(Self {
            clock: Rc::clone(&session.clock),
            max_event_bytes: opened.bus.max_event_bytes(),
            source: args.source.clone().unwrap_or_else(default_source),
            subject: args.subject.clone(),
            content_type: args.content_type.clone(),
            schema: args.schema.clone(),
            time,
            due: args.due(world)?,
            extensions,
        })
    }

    /// Emits, or lets wait what is to wait.
    async fn send(&self, emitter: &mut Emitter, drafts: &[Draft]) -> StoreResult<Vec<Receipt>> {
        match self.due.filter(|due| *due > self.clock.now()) {
            Some(due) => emitter.schedule(drafts, due).await,
            None => emitter.emit(drafts).await,
        }
    }

    /// The one event that the arguments describe.
    fn single(&self, args: &Args, world: &World) -> Result<Draft, Failure> {
        let Some(type_) = &args.type_ else {
            return Err(
                Failure::usage("no event type").help("evbus emit TYPE [DATA], for example: evbus emit backup.done")
            );
        };
        let (data, content_type) = data::from_args(args, world)?;
        self.draft(type_, data, content_type, args.id.as_deref())
    }

    /// An event of these flags with its own type and data.
    fn draft(&self, type_: &str, data: Data, content_type: Option<&str>, id: Option<&str>) -> Result<Draft, Failure> {
        // What waits happens when it comes.
        let now = self.due.unwrap_or(EventTime::MIN).max(self.clock.now());
        let identity = Identity::random(self.clock.random(), self.clock.random());
        let made = event_id(now, &identity);
        let mut event: EventBuilder = Event::new(id.unwrap_or(&made), self.source.clone(), type_);
        event = event.time(self.time.clone().unwrap_or_else(|| now.to_rfc3339()));
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
        let event = event.data(data).build()?;
        self.checked(match id {
            Some(_) => Draft::named(event),
            None => Draft::fresh(event, identity),
        })
    }

    /// A document that brings its own id and all the rest.
    fn document(&self, line: &[u8]) -> Result<Draft, Failure> {
        self.checked(Draft::named(Event::from_line(line, self.max_event_bytes)?))
    }

    fn checked(&self, draft: Draft) -> Result<Draft, Failure> {
        draft.event().to_json_within(self.max_event_bytes).map_err(|error| {
            Failure::usage(format!("the event {error}"))
                .help("emit a reference to the payload instead, or make another bus, for larger ones: evbus init --max-event 8MiB BUS")
        })?;
        Ok(draft)
    }
}

/// A type that no pattern can name is a slip of whoever typed it. CloudEvents that come as documents may have any.
fn refuse_odd_type(type_: &str) -> Result<(), Failure> {
    if type_.starts_with(['{', '[']) {
        return Err(Failure::usage(format!("'{type_}' is data; the event's type comes before it"))
            .help(format!("evbus emit TYPE '{type_}'")));
    }
    let odd = |what: &str| {
        let cure = "write tokens with dots between them, such as order.created";
        Err(Failure::usage(format!("type '{type_}' {what}, so no pattern could name it")).help(cure))
    };
    if type_.contains(['*', '>', ',']) || type_.starts_with('!') {
        return odd("has a character that patterns use");
    }
    if type_.split('.').any(str::is_empty) {
        return odd("has an empty token");
    }
    Ok(())
}

/// `--time`: when it happened.
fn past(text: &str, world: &World) -> Result<String, Failure> {
    let answer = times::parse_past(text, world.now, &world.zone());
    answer.map(EventTime::to_rfc3339).map_err(|error| match error {
        times::TimeError::Future { .. } => {
            Failure::usage(format!("--time {error}")).help("--at TIME, if the event is to wait until then")
        }
        error => Failure::usage(format!("--time {error}")),
    })
}

/// This host, as a URI reference.
pub(super) fn default_source() -> String {
    let name = rustix::system::uname();
    let host = name.nodename().to_string_lossy();
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let host: String = host.chars().filter(plain).collect();
    if host.is_empty() { "//localhost".to_owned() } else { format!("//{host}") }
}

/// The content of `@file`, or of stdin for `-`.
fn read_source(source: &str, cwd: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    match source.strip_prefix('@') {
        None => std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::failed(format!("cannot read stdin: {error}")))?,
        Some(path) => open(path, cwd)?
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::failed(format!("cannot read {path}: {error}")))?,
    };
    Ok(bytes)
}

fn open(path: &str, cwd: &Path) -> Result<std::fs::File, Failure> {
    let full = cwd.join(OsString::from(path));
    std::fs::File::open(&full).map_err(|error| Failure::usage(format!("cannot open {path}: {}", system_words(&error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_a_trace_parent_is_passed_on() {
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
