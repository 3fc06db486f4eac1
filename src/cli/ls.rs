//! `evbus ls`: list events.

use bytes::Bytes;

use super::exit::Code;
use super::failure::Failure;
use super::output::{self, Out};
use super::session::{Needs, Session, block_on};
use super::{style, times};
use crate::bus::read::{self, Range};
use crate::bus::{BusHandle, keys, schedule};
use crate::config::Environment;
use crate::event::{Condition, EventName, EventTime, HashSlot, Identity, NameMatch, TypeFilter};
use crate::recurring::Recurring;
use crate::store::dir::Execution;
use crate::store::{ErrorKind, LARGEST_BYTES, StoreResult};

pub(super) mod line;

use line::{LineEvent, LineFormat, LineFormatter};

/// How many events are read and printed at a time.
const PAGE: usize = 1_000;

/// List events, oldest first
///
/// Prints time, type, id and subject of the newest events in the range, one per line.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus ls --since 1h
  evbus ls -t 'order.**' --not 'order.test.*' --since 2026-11-20 --until 09:30
  evbus ls --json --limit 0 | jq -r .type | sort | uniq -c
  evbus ls --scheduled --until 2026-12-24

Times: 10m, 7d (ago), 09:30, 2026-11-20, RFC 3339; local unless they name a zone. An event's time is
when it came to the bus.")]
pub(super) struct LsArgs {
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Show events from this time on
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show events up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show at most N events, the newest; 0 for all
    #[arg(short = 'n', long, value_name = "N", default_value_t = PAGE)]
    limit: usize,
    /// Show events that wait for their time, the next first; --since and --until then select by the
    /// due time, in the forms of emit's --at and --delay
    #[arg(long)]
    scheduled: bool,
    /// Print each event's JSON document, one per line
    #[arg(long)]
    json: bool,
}

/// Lists scheduled entries, and the next event of each schedule of the config.
async fn scheduled(
    bus: &BusHandle,
    line: &LineFormatter,
    range: Range,
    limit: usize,
    (schedules, out): (&[Recurring], &mut Out),
) -> Result<Code, Failure> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let wanted = move |name: &EventName| {
        range.filter.matches_slug(name.slug()) != NameMatch::No && (range.since..=range.until).contains(&name.time())
    };
    let next = |schedule: &Recurring| {
        let due = schedule.rule.next_after(bus.clock.now())?;
        let event = schedule.event(due).ok()?;
        let identity = Identity::named(event.source(), event.id());
        let name = EventName::new(schedule.put_off(due), HashSlot::of(""), &identity, event.type_());
        Some((name, event.to_json().into()))
    };
    let next: Vec<(EventName, Bytes)> = schedules.iter().filter_map(next).filter(|(name, _)| wanted(name)).collect();
    let (names, more) = schedule::entries(&*bus.store, limit, wanted).await?;
    let mut found = Vec::with_capacity(names.len() + next.len());
    for name in names {
        let object = readable(bus.store.get(&keys::scheduled(&name)).await)?;
        found.extend(object.map(|object| (name, object.bytes.into())));
    }
    found.extend(next);
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found.truncate(limit);
    print(line, &found, out)?;
    if more {
        let count = style::thousands(u64::try_from(limit).unwrap_or(u64::MAX));
        output::note(&format!("the next {count}; there are more after them (--limit 0 for all)"));
    }
    Ok(Code::Done)
}

/// The type filter that `ls`, `tail`, `check` and the group commands take.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct FilterArgs {
    /// Select these types, such as 'order.*' or 'backup.**' (repeat, or separate by commas)
    #[arg(short = 't', long = "type", value_name = "PATTERN")]
    pub(super) types: Vec<String>,
    /// Exclude these types
    #[arg(long, value_name = "PATTERN")]
    pub(super) not: Vec<String>,
}

impl FilterArgs {
    /// The parsed filter.
    pub(super) fn filter(&self) -> Result<TypeFilter, Failure> {
        Ok(TypeFilter::new(&self.types, &self.not)?)
    }
}

/// The condition that the group commands and `check` take.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct WhereArg {
    /// Select events by a CEL condition on the event, such as 'data.width > 256'
    #[arg(long = "where", value_name = "CEL", allow_hyphen_values = true)]
    pub(super) condition: Option<String>,
}

impl WhereArg {
    /// The parsed condition; an empty text means none.
    pub(super) fn condition(&self) -> Result<Option<Condition>, Failure> {
        let given = self.condition.as_deref().filter(|text| !text.trim().is_empty());
        Ok(given.map(Condition::parse).transpose()?)
    }
}

/// The value of an option that takes a time.
pub(super) fn time_of(option: &str, text: &str, environment: &Environment) -> Result<EventTime, Failure> {
    let time = times::parse_time_any(text, environment.now, &environment.zone());
    time.map_err(|error| Failure::from(error).context(option))
}

/// The value of an option that takes a future time, in the forms of `emit`: a duration counts from
/// now.
fn due_of(option: &str, text: &str, environment: &Environment) -> Result<EventTime, Failure> {
    if let Ok(delay) = times::parse_duration(text) {
        return Ok(environment.now.plus(delay));
    }
    let time = times::parse_coming(text, environment.now, &environment.zone());
    time.map_err(|error| Failure::from(error).context(option).help("a duration, 3h, is from now"))
}

pub(super) fn run(args: LsArgs, session: Session) -> Result<Code, Failure> {
    let read = if args.scheduled { due_of } else { time_of };
    let time = |option, text: &Option<String>| {
        text.as_deref().map(|text| read(option, text, &session.environment)).transpose()
    };
    let since = time("--since", &args.since)?.unwrap_or(EventTime::MIN);
    let until = time("--until", &args.until)?.unwrap_or(EventTime::MAX);
    if since > until {
        return Err(Failure::usage("--since is later than --until, so nothing lies between them"));
    }
    let range = Range { since, until, filter: args.filter.filter()? };
    block_on(Needs::Everything, async {
        let opened = session.open(Execution::Inline).await?;
        let format = if args.json { LineFormat::Json } else { LineFormat::Day };
        let line = LineFormatter {
            format,
            filter: range.filter.clone(),
            now: session.environment.now,
            zone: session.environment.zone(),
        };
        let bus = opened.bus_handle();
        let mut out = Out::new();
        if args.scheduled {
            // A broken config stops no look at a bus that it does not name.
            let schedules = session.config_or_warning().map(|config| config.schedules).unwrap_or_default();
            return scheduled(bus, &line, range, args.limit, (&schedules, &mut out)).await;
        }
        if args.limit > 0 {
            let (names, more) = read::newest(bus, &range, args.limit, session.clock.now()).await?;
            print(&line, &documents(bus, &names).await?, &mut out)?;
            if more {
                let count = style::thousands(u64::try_from(args.limit).unwrap_or(u64::MAX));
                output::note(&format!("the newest {count}; there are more before them (--limit 0 for all)"));
            }
            return Ok(Code::Done);
        }
        let mut pages = read::NamePages::of(bus, &range);
        while let Some(names) = pages.next().await? {
            print(&line, &documents(bus, &names).await?, &mut out)?;
        }
        Ok(Code::Done)
    })
}

/// The object found. A damaged one is reported and left out, so that the others are still shown.
pub(super) fn readable<T>(found: StoreResult<Option<T>>) -> Result<Option<T>, Failure> {
    match found {
        Err(error) if error.kind() == ErrorKind::Damaged => {
            output::warn(&error.to_string());
            Ok(None)
        }
        found => Ok(found?),
    }
}

/// The events of a page, with their documents.
pub(super) async fn documents(bus: &BusHandle, names: &[EventName]) -> Result<Vec<(EventName, Bytes)>, Failure> {
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let document = readable(read::document(bus, name, LARGEST_BYTES).await)?;
        found.extend(document.map(|document| (name.clone(), document)));
    }
    Ok(found)
}

/// Prints a page of events, with aligned columns.
fn print(line: &LineFormatter, events: &[(EventName, Bytes)], out: &mut Out) -> Result<(), Failure> {
    let width = events.iter().map(|(name, _)| name.slug().len()).max().unwrap_or(0).min(40);
    for (name, document) in events {
        let found = LineEvent::new(name, document);
        if let Some(text) = line.text(&found, width) {
            out.line(&text)?;
        }
    }
    Ok(out.flush()?)
}
