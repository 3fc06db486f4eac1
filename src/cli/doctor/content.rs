//! Checks of the files on the bus.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use walkdir::WalkDir;

use super::Finding;
use crate::bus::read::{self, Range};
use crate::bus::{BusHandle, frontier, keys};
use crate::cli::help_line::{command, text};
use crate::cli::{style, times};
use crate::event::{EVENTS, Event, EventTime, ListedKey, TypeFilter};
use crate::group::{definition, status};
use crate::store::dir::STAGING;
use crate::store::{LARGEST_BYTES, List, StoreResult};

/// How many of the newest events are read.
const READ: usize = 1_000;

/// An unfinished file older than this was abandoned by its writer.
const ABANDONED: Duration = Duration::from_hours(24);

pub(super) async fn findings(path: Option<&Path>, bus: &BusHandle) -> Vec<Finding> {
    let mut findings = vec![frontier_finding(bus).await];
    for looked in [groups(bus).await, objects(bus).await, unreadable(bus).await] {
        match looked {
            Ok(found) => findings.extend(found),
            Err(error) => findings.push(Finding::error("reading", &error)),
        }
    }
    findings.extend(path.and_then(|path| staging(path, bus)));
    findings
}

async fn frontier_finding(bus: &BusHandle) -> Finding {
    let now = bus.clock.now();
    match frontier::read(&*bus.store).await {
        Err(error) => Finding::error("frontier", &error),
        Ok(frontier) if frontier.time.since(now) > Duration::from_secs(60) => {
            let ahead = times::format_duration(frontier.time.since(now));
            let detail = format!("{ahead} ahead of this clock: new events are dated behind it");
            Finding::warn("frontier", detail).cure("no event is lost, and ages follow the events' own times until then; find the machine whose clock is wrong")
        }
        Ok(frontier) if frontier.time == EventTime::MIN => Finding::ok("frontier", "not needed yet"),
        Ok(frontier) => Finding::ok("frontier", frontier.time.to_rfc3339()),
    }
}

async fn groups(bus: &BusHandle) -> StoreResult<Vec<Finding>> {
    let names = definition::names(&*bus.store).await?;
    let mut findings = Vec::new();
    for group in &names {
        let status = status::read(bus, group).await?;
        if let Some(error) = status.and_then(|status| status.damage) {
            findings.push(Finding::error("group", &error));
        }
    }
    let others = bus.store.list_after(List::all(keys::GROUPS)).await?.keys;
    let others: Vec<String> = others.into_iter().filter(|key| keys::group_of(key).is_none()).collect();
    findings.extend(foreign_finding("groups", &others, others.len()));
    if findings.is_empty() {
        findings.push(Finding::ok("groups", style::plural(names.len() as u64, "group")));
    }
    Ok(findings)
}

/// What a listing shows of the objects among the events.
#[derive(Default)]
struct Objects {
    events: u64,
    /// That hold them.
    objects: u64,
    /// That hold none by their names.
    foreign: usize,
    /// The first of those.
    first: Option<String>,
}

/// Reports how many events lie in how many objects, and keys that are not event names.
async fn objects(bus: &BusHandle) -> StoreResult<Vec<Finding>> {
    let found: Arc<Mutex<Objects>> = Arc::default();
    let seen = Arc::clone(&found);
    let list = List::all(EVENTS).keep(move |key| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match ListedKey::parse(key) {
            Some(parts) => {
                seen.objects += 1;
                seen.events += parts.event_count();
            }
            None => {
                seen.foreign += 1;
                seen.first.get_or_insert_with(|| key.to_owned());
            }
        }
        false
    });
    bus.store.list_after(list).await?;
    let Objects { events, objects, foreign, first } =
        std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    let detail = format!("{} in {}", style::plural(events, "event"), style::plural(objects, "object"));
    Ok([Finding::ok("objects", detail)]
        .into_iter()
        .chain(foreign_finding("events", first.as_slice(), foreign))
        .collect())
}

fn foreign_finding(among: &str, some: &[String], count: usize) -> Option<Finding> {
    let first = some.first()?;
    let files = style::plural(count as u64, "foreign file");
    let detail = format!("{files} among the {among}, such as {first}");
    Some(Finding::warn("foreign", detail).cure("they are passed over; move them away"))
}

/// Reports newest events that cannot be read.
async fn unreadable(bus: &BusHandle) -> StoreResult<Vec<Finding>> {
    let range = Range { since: EventTime::MIN, until: EventTime::MAX, filter: TypeFilter::default() };
    let (names, _) = read::newest(bus, &range, READ, bus.clock.now()).await?;
    let (mut bad, mut first) = (0u64, None);
    for name in &names {
        let Some(bytes) = read::document(bus, name, LARGEST_BYTES).await? else { continue };
        if let Err(error) = Event::parse(&bytes, usize::MAX) {
            bad += 1;
            first.get_or_insert_with(|| format!("{} {error}", name.key()));
        }
    }
    let Some(first) = first else { return Ok(vec![Finding::ok("events", "the newest can be read")]) };
    let detail = format!("{bad} of the newest {} cannot be read, such as {first}", names.len());
    Ok(vec![Finding::warn("events", detail).cure("groups make dead letters of them")])
}

/// Reports files whose writer ended before they were complete.
fn staging(path: &Path, bus: &BusHandle) -> Option<Finding> {
    let now = bus.clock.now();
    let entries = WalkDir::new(path.join(STAGING)).min_depth(1).into_iter().filter_map(Result::ok);
    let old = entries.filter(|entry| {
        let modified = entry.metadata().ok().and_then(|metadata| metadata.modified().ok());
        let time = modified.and_then(|time| jiff::Timestamp::try_from(time).ok());
        time.is_some_and(|time| now.since(EventTime::from_micros(time.as_microsecond())) > ABANDONED)
    });
    let count = old.count();
    (count > 0).then(|| {
        let files = style::plural(count as u64, "unfinished file");
        Finding::warn("staging", format!("{files} from emits that died"))
            .cure([command("prune", "--keep 7d"), text(" removes them")])
    })
}
