//! Finds the events that an id, or the start of one, may mean.

use std::time::Duration;

use crate::bus::emit::remembered;
use crate::bus::{BusHandle, read};
use crate::cli::failure::Failure;
use crate::cli::help_line::command;
use crate::cli::progress::Progress;
use crate::event::{Event, EventName, EventTime, Identity, TypeFilter, id_of, parse_event_id};
use crate::store::{LARGEST_BYTES, StoreResult};

/// The search stops at this many matches: the id is ambiguous.
const ENOUGH: usize = 6;

/// How far before and after the moment that an id tells its event is looked for.
const CLOCKS_DIFFER: Duration = Duration::from_mins(1);
const CAME_LATE: Duration = Duration::from_mins(5);

/// The events that `id` may mean: none, one, or several.
pub(super) async fn find(bus: &BusHandle, id: &str, source: Option<&str>) -> Result<Vec<EventName>, Failure> {
    if id.is_empty() {
        return Err(Failure::usage("an empty id means every event").help(command("ls", "")));
    }
    let store = &*bus.store;
    if let Some(source) = source {
        return Ok(match remembered(bus, source, id).await? {
            Some(name) => vec![name],
            None => read::with_identity(store, &Identity::named(source, id)).await?,
        });
    }
    if id.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'T' | b'-' | b'a'..=b'z'))
        && begins_with_digits(id)
    {
        let found = match id.len() {
            ..8 => read::with_id_prefix(bus, id, ENOUGH).await?,
            _ => read::find(bus, id, ENOUGH).await?,
        };
        if !found.is_empty() {
            return Ok(once_each(found));
        }
    }
    if let Some(name) = remembered(bus, crate::config::default_source(), id).await? {
        return Ok(vec![name]);
    }
    let (since, until) = match parse_event_id(id) {
        // One that came through a server, or from another bus: it came soon after it was made.
        Some((made, _)) => (made.minus(CLOCKS_DIFFER), made.plus(CAME_LATE)),
        None => (EventTime::MIN, EventTime::MAX),
    };
    in_documents(bus, id, since, until).await
}

fn begins_with_digits(id: &str) -> bool {
    id.bytes().take(8).all(|byte| byte.is_ascii_digit())
}

/// The last resort: without its source, a named id can only be found in the documents. An equal id
/// ends the search.
async fn in_documents(
    bus: &BusHandle,
    id: &str,
    since: EventTime,
    until: EventTime,
) -> Result<Vec<EventName>, Failure> {
    let range = read::Range { since, until, filter: TypeFilter::default() };
    let mut progress = Progress::new("reading events", None);
    let mut found = Vec::new();
    let mut pages = read::NamePages::of(bus, &range);
    while let Some(names) = pages.next().await? {
        for name in &names {
            let own = document_id(bus, name).await?;
            match own.filter(|own| own.starts_with(id)) {
                Some(own) if own == id => {
                    progress.end();
                    return Ok(vec![name.clone()]);
                }
                Some(_) if found.len() < ENOUGH => found.push(name.clone()),
                _ => {}
            }
        }
        progress.advance(u64::try_from(names.len()).unwrap_or(0));
    }
    progress.end();
    Ok(found)
}

async fn document_id(bus: &BusHandle, name: &EventName) -> StoreResult<Option<String>> {
    let document = read::document(bus, name, LARGEST_BYTES).await?;
    Ok(document.and_then(|bytes| Event::parse(&bytes, usize::MAX).ok()).map(|event| event.id().to_owned()))
}

/// The id of the event at `name`: from its document, else the generated one.
pub(super) async fn id_at(bus: &BusHandle, name: &EventName) -> StoreResult<String> {
    Ok(document_id(bus, name).await?.unwrap_or_else(|| id_of(name)))
}

/// Drops earlier names of an event: while its emitter puts it again, it has two.
fn once_each(names: Vec<EventName>) -> Vec<EventName> {
    let mut once: Vec<EventName> = Vec::new();
    for name in names {
        once.retain(|earlier| earlier.identity() != name.identity());
        once.push(name);
    }
    once
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::HashSlot;

    #[test]
    fn two_names_of_one_event_are_listed_once() {
        let name = |micros, id| {
            EventName::new(EventTime::from_micros(micros), HashSlot::of(""), &Identity::named("s", id), "a")
        };
        assert_eq!(once_each(vec![name(1, "x"), name(2, "x"), name(3, "y")]), [name(2, "x"), name(3, "y")]);
    }
}
