//! `evbus emit`: writes events and prints their ids.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

use super::exit::Code;
use super::failure::Failure;
use super::output;
use super::session::{Needs, Session, block_on};
use super::times;
use crate::bus::emit::{Ack, AckKind, Draft, Emitter};
use crate::cli::hint::{command, text};
use crate::config::Environment;
use crate::event::EventTime;
use crate::store::dir::{Durability, Execution};
use crate::store::system_words;

mod acks;
mod bulk;
mod data;
mod lines;
mod maker;
mod plain;

use acks::{Acks, Print};
use maker::Maker;
pub(super) use plain::plain;

/// The default time-out for a store that does not answer.
const TIMEOUT: &str = "30s";
/// The default durability: on disk before the acknowledgement.
const FULL: &str = "full";

/// Write one event, or with --ndjson one per line
///
/// Prints the id once the event is safe: on the disk, and visible to every group.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  evbus emit backup.done -F rc=0 -f host=db1
  evbus emit order.created '{\"id\":42,\"total\":99.5}' --subject order/42
  pg_dump app > app.sql; rc=$?; evbus emit dump.done -F rc=$rc --id \"dump-$(date +%F)-$rc\"
  evbus emit --ndjson @events.ndjson           # each line a CloudEvent
  tail -f access.log | evbus emit log.line --text --ndjson -q
  evbus emit report.due --at 02:00             # evbus ls --scheduled; evbus cancel ID

DATA is JSON. '-' reads it from stdin, '@file' from a file. Otherwise only --ndjson reads stdin.")]
pub(super) struct EmitArgs {
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
    /// Take DATA as text, not as JSON
    #[arg(long)]
    text: bool,
    /// Take the data from a file's bytes ('@FILE', or '-' for stdin)
    #[arg(long, value_name = "@FILE", conflicts_with_all = ["text", "data", "ndjson"])]
    binary: Option<String>,
    /// Emit one event per line, or per element of a JSON array, gzipped or not, from stdin or
    /// @FILE: CloudEvents, or with TYPE only their data
    #[arg(long, value_name = "@FILE", num_args = 0..=1)]
    ndjson: Option<Option<String>>,
    /// Set the id; a repeat with the same id and source is harmless
    #[arg(long)]
    id: Option<String>,
    /// Set the source, a URI reference (default: //HOST)
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// Set the subject: what the event is about
    #[arg(long)]
    subject: Option<String>,
    /// Set the ordering key (default: the subject)
    #[arg(long)]
    key: Option<String>,
    /// Set when it happened (default: now): 10m ago, 09:30, 2026-11-20, RFC 3339
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// Deliver at this time: 02:00 (next), 2026-12-24, '2026-12-24 09:30', RFC 3339; a past time
    /// means now
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    at: Option<String>,
    /// Deliver after this long, by this machine's clock: 5m, 12h
    #[arg(long, value_name = "DURATION")]
    delay: Option<String>,
    /// Add an extension attribute
    #[arg(long, value_name = "NAME=VALUE")]
    attr: Vec<String>,
    /// Set the data's media type
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Set the data's schema, a URI
    #[arg(long, value_name = "URI")]
    schema: Option<String>,
    /// Fail if the store does not answer for this long
    #[arg(long, value_name = "DURATION", default_value = TIMEOUT)]
    timeout: String,
    /// Survive a power cut ('full') or only the process's end ('none')
    #[arg(long, value_name = "LEVEL", default_value = FULL, value_parser = [FULL, "none"])]
    durability: String,
    /// Handle an id that another event has: fail ('error') or ignore it ('ok') (default: error)
    #[arg(long, value_name = "WHAT", value_parser = ["error", "ok"])]
    if_exists: Option<String>,
    /// Handle a line that is not an event: 'stop', or 'skip' it (default: stop)
    #[arg(long, value_name = "WHAT", value_parser = ["stop", "skip"], requires = "ndjson")]
    on_error: Option<String>,
    /// Append the lines that --on-error skip skips to this file
    #[arg(long, value_name = "FILE", requires = "on_error")]
    rejects: Option<String>,
    /// With --text, replace bytes that are not UTF-8 by U+FFFD
    #[arg(long, requires = "text")]
    lossy: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Print the event instead of its id
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

pub(super) fn run(mut args: EmitArgs, session: Session) -> Result<Code, Failure> {
    args.take_type_from_ndjson()?;
    let timeout = times::parse_duration(&args.timeout)?;
    let durability = if args.durability == "none" { Durability::None } else { Durability::Full };
    let mut address = session.address()?;
    address.limit_timeout(timeout);
    block_on(Needs::of(&address), async {
        let opened = session.open_at(address, Execution::Inline, durability).await?;
        let mut emitter = Emitter::new(opened.bus_handle().clone(), timeout);
        let maker = Maker::new(&args, &session, &opened, timeout)?;
        match &args.ndjson {
            Some(source) => bulk::run(&args, source.as_deref(), &maker, &mut emitter).await,
            None => single(&args, &session.environment, &maker, &mut emitter).await,
        }
    })
}

async fn single(
    args: &EmitArgs,
    environment: &Environment,
    maker: &Maker,
    emitter: &mut Emitter,
) -> Result<Code, Failure> {
    let draft = maker.single(args, environment)?;
    let sent = maker.send(emitter, std::slice::from_ref(&draft)).await;
    let emitted = sent.map_err(|error| cannot_emit(error, &draft))?;
    if let Some(ack) = emitted.first().filter(|ack| ack.kind == AckKind::IdTaken) {
        return match args.if_exists.as_deref() {
            Some("ok") => Ok(Code::Done),
            _ => Err(taken(&draft, ack)),
        };
    }
    let mut acks = Acks::new(args.print());
    acks.report(&[draft], &emitted);
    acks.end()?;
    let past = |due: &EventTime| *due <= environment.now;
    if let Some(due) = maker.due.filter(|due| !args.quiet && (past(due) || output::notes_on_terminal())) {
        output::note(&waits(due, &emitted[0], environment));
    }
    Ok(Code::Done)
}

/// The error for an id that belongs to another event.
fn taken(draft: &Draft, ack: &Ack) -> Failure {
    let (id, source) = (draft.event().id(), draft.event().source());
    let what = format!("id '{id}' of {source} is another event's, {}: this one is not on the bus", ack.name);
    Failure::failed(what)
        .hint([command("get", format_args!("--source {source} {id}")), text(" shows it; --if-exists ok accepts that")])
}

/// Says when an event given with `--at` or `--delay` comes: the day may not be the intended one.
fn waits(due: EventTime, ack: &Ack, environment: &Environment) -> String {
    let at = |time| times::clock_text(time, environment.now, &environment.zone());
    match ack.kind {
        AckKind::Duplicate if ack.name.time() > environment.now => {
            format!("it was emitted before, and waits until {}", at(ack.name.time()))
        }
        AckKind::Duplicate => "it was emitted before".to_owned(),
        _ if due > environment.now => format!("it waits until {}", at(due)),
        _ => format!("{} has passed: it came at once", at(due)),
    }
}

fn cannot_emit(error: crate::store::StoreError, draft: &Draft) -> Failure {
    Failure::from(error).after(&format!("cannot emit {}", draft.event().type_()))
}

impl EmitArgs {
    /// The time from `--at` or `--delay`; none for events without a delay.
    fn due(&self, environment: &Environment) -> Result<Option<EventTime>, Failure> {
        match (&self.at, &self.delay) {
            (Some(at), _) => times::parse_coming(at, environment.now, &environment.zone()).map(Some).map_err(|error| {
                Failure::usage(format!("--at {error}")).hint("--delay DURATION, if it is to wait for a while")
            }),
            (None, Some(delay)) => Ok(Some(environment.now.plus(times::parse_duration(delay)?))),
            (None, None) => Ok(None),
        }
    }

    /// Whether lines that are not events are skipped.
    fn skips(&self) -> bool {
        self.on_error.as_deref() == Some("skip")
    }

    fn print(&self) -> Print {
        match (self.quiet, self.json) {
            (true, _) => Print::Nothing,
            (false, true) => Print::Event,
            (false, false) => Print::Id,
        }
    }

    /// Reads `--ndjson TYPE` as the flag and a type: only '@file' and '-' are values of the flag.
    fn take_type_from_ndjson(&mut self) -> Result<(), Failure> {
        let Some(value) = &mut self.ndjson else { return Ok(()) };
        if let Some(text) = value.take_if(|text| !text.starts_with('@') && text != "-")
            && let Some(other) = self.type_.replace(text)
        {
            self.data = Some(other);
        }
        if let Some(data) = &self.data {
            let what = format!("with --ndjson each line is an event; DATA '{data}' has no place");
            return Err(Failure::usage(what).hint(command("emit", "TYPE --ndjson @FILE")));
        }
        if !(self.string_field.is_empty() && self.json_field.is_empty() && self.id.is_none()) {
            return Err(Failure::usage("with --ndjson the lines are the events: -f, -F and --id have no place"));
        }
        Ok(())
    }
}

/// The content of `@file`, or of stdin for `-`, if it is not larger than `limit`, in bytes.
fn read_source(source: &str, cwd: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let most = (limit as u64).saturating_add(1);
    let (shown, read) = match source.strip_prefix('@') {
        None => ("stdin", std::io::stdin().lock().take(most).read_to_end(&mut bytes)),
        Some(path) => (path, open(path, cwd)?.take(most).read_to_end(&mut bytes)),
    };
    read.map_err(|error| Failure::failed(format!("cannot read {shown}: {}", system_words(&error))))?;
    if bytes.len() > limit {
        return Err(Failure::usage(format!("{shown} holds more than this bus's limit of {limit} bytes"))
            .hint(maker::smaller_or_larger_bus()));
    }
    Ok(bytes)
}

fn open(path: &str, cwd: &Path) -> Result<std::fs::File, Failure> {
    let full = cwd.join(OsString::from(path));
    std::fs::File::open(&full).map_err(|error| Failure::usage(format!("cannot open {path}: {}", system_words(&error))))
}
