//! Finds, creates or refuses a watcher's group.

use crate::bus::read;
use crate::cli::failure::Failure;
use crate::cli::help_line::{HelpPart, command, text};
use crate::cli::session::Opened;
use crate::cli::style::{self, wanted};
use crate::config::{StartFrom, Watcher, several_shards};
use crate::event::{EventTime, Filter, TypeFilter};
use crate::group::definition::{self, Definition, Registered, Start};
use crate::group::{GroupName, read_marker};
use crate::store::StoreResult;

/// A watcher whose group exists and agrees with it.
pub(in crate::cli) struct Ready {
    pub(in crate::cli) watcher: Watcher,
    pub(in crate::cli) registered: Registered,
    /// Whether the group existed before.
    pub(in crate::cli) found: bool,
}

/// Finds or creates a watcher's group; with `dry`, creates nothing.
pub(in crate::cli) async fn prepare(watcher: Watcher, opened: &Opened, dry: bool) -> Result<Ready, Failure> {
    let store = &*opened.bus_handle().store;
    let filter = watcher.filter()?;
    let found = definition::find_durable(store, &watcher.group).await?;
    let (found, registered) = match found {
        Some(registered) => (true, registered),
        None => (false, make(&watcher, &filter, opened, dry).await?),
    };
    agree(&watcher, &filter, &registered.definition)?;
    Ok(Ready { watcher, registered, found })
}

async fn make(watcher: &Watcher, filter: &Filter, opened: &Opened, dry: bool) -> Result<Registered, Failure> {
    let (store, clock) = (&*opened.bus_handle().store, &*opened.bus_handle().clock);
    let start = match &watcher.from {
        Some(StartFrom::Earliest) => Start::Earliest,
        Some(StartFrom::Now) => Start::Now,
        Some(StartFrom::Time(time)) => Start::At(*time),
        None => {
            refuse_silent_start(&watcher.group, &filter.types, opened).await?;
            Start::Earliest
        }
    };
    let start = if dry { crate::group::Position::START } else { definition::resolve(store, clock, start).await? };
    let definition = Definition::new(clock.now(), filter, watcher.shards.unwrap_or(1), start);
    if dry {
        return Ok(Registered { definition, version: crate::store::Version(String::new()) });
    }
    Ok(definition::ensure(store, &watcher.group, definition).await?)
}

/// Refuses to create a group without a start if stored events match its filter.
async fn refuse_silent_start(group: &GroupName, filter: &TypeFilter, opened: &Opened) -> Result<(), Failure> {
    let store = &*opened.bus_handle().store;
    let range = read::Range { since: EventTime::MIN, until: EventTime::MAX, filter: filter.clone() };
    let (matching, _) = read::count(store, &range).await?;
    if matching == 0 {
        return Ok(());
    }
    let groups = definition::names(store).await?;
    let near = style::nearest(group.as_str(), groups.iter().map(GroupName::as_str));
    let near = near.map_or_else(String::new, |near| format!(" (did you mean '{near}'?)"));
    let (count, verb) = (style::thousands(matching), if matching == 1 { "event matches" } else { "events match" });
    Err(Failure::usage(format!("no group '{group}'{near}; {count} {verb}"))
        .help("add --from now or --from earliest (in a config: from = \"now\")"))
}

/// Refuses a filter that differs from the group's: two workers with different filters would skip
/// each other's events.
pub(in crate::cli) fn agree(watcher: &Watcher, filter: &Filter, definition: &Definition) -> Result<(), Failure> {
    let group = &watcher.group;
    let current = definition.filter(group)?;
    let types_given = !(watcher.types.is_empty() && watcher.not.is_empty());
    let differs = (types_given && current.types != filter.types)
        || ((types_given || filter.condition.is_some()) && current.condition != filter.condition);
    if differs {
        let own =
            Filter { types: if types_given { filter.types.clone() } else { current.types.clone() }, ..filter.clone() };
        let what = format!("group '{group}' wants {}, not {}", wanted(&current), wanted(&own));
        return Err(Failure::usage(what).help(set_command(group, &own, &current)));
    }
    if let Some(shards) = watcher.shards.filter(|shards| *shards != definition.shards) {
        let what = format!(
            "group '{group}' has {}, not {shards}; that is fixed when it is made",
            shards_text(definition.shards)
        );
        return Err(Failure::usage(what).help([
            text("leave shards out, or give another group: "),
            command("group", format_args!("create {group}-{shards} --shards {shards}")),
        ]));
    }
    if let Some(latest) = watcher.latest.as_ref().filter(|latest| !latest.by.is_of_one_shard())
        && definition.shards > 1
    {
        let what =
            format!("group '{group}' has {}, and latest {}", shards_text(definition.shards), several_shards(latest));
        return Err(Failure::usage(what).help("give another group, or latest = \"key\""));
    }
    Ok(())
}

/// The command that changes a group's filter from `in_place_of` to `filter`; options that are not
/// given keep their part.
pub(in crate::cli) fn set_command(group: &GroupName, filter: &Filter, in_place_of: &Filter) -> HelpPart {
    let types = filter.types.types_text();
    let types = if types.is_empty() { vec!["**".to_owned()] } else { types };
    let mut flags: Vec<String> = types.iter().map(|text| format!("-t '{text}'")).collect();
    match filter.types.not_text() {
        not if not.is_empty() && !in_place_of.types.not_text().is_empty() => flags.push("--not ''".to_owned()),
        not => flags.extend(not.iter().map(|text| format!("--not '{text}'"))),
    }
    match &filter.condition {
        Some(condition) => flags.push(format!("--where {}", style::quoted(condition.as_str()))),
        None if in_place_of.condition.is_some() => flags.push("--where ''".to_owned()),
        None => {}
    }
    command("group", format_args!("set {group} {}", flags.join(" ")))
}

fn shards_text(shards: u16) -> String {
    style::plural(u64::from(shards), "shard")
}

/// The number of wanted events that wait, and the time of the slowest shard's `through`.
pub(in crate::cli) async fn backlog(ready: &Ready, opened: &Opened) -> StoreResult<(u64, EventTime)> {
    let definition = &ready.registered.definition;
    let filter = definition.type_filter(&ready.watcher.group)?;
    let (mut waiting, mut slowest) = (0, EventTime::MAX);
    for shard in 0..definition.shards {
        let (marker, _) = read_marker(opened.bus_handle(), &ready.watcher.group, shard, definition).await?;
        let range = read::Range { since: marker.through.time(), until: EventTime::MAX, filter: filter.clone() };
        let shards = definition.shards;
        let is_unprocessed =
            |name: &crate::event::EventName| name.hash_slot().shard(shards) == shard && marker.is_unprocessed(name);
        let mut pages = read::NamePages::of(opened.bus_handle(), &range).of_len(10_000);
        while let Some(names) = pages.next().await? {
            waiting += u64::try_from(names.iter().filter(|name| is_unprocessed(name)).count()).unwrap_or(0);
        }
        waiting += u64::try_from(marker.pending.keys().filter(|name| name.time() < range.since).count()).unwrap_or(0);
        slowest = slowest.min(marker.through.time());
    }
    Ok((waiting, slowest))
}

/// Events that slightly wider patterns would match: `7 more match 'backup.**'`.
pub(in crate::cli) async fn near_misses(
    ready: &Ready,
    since: EventTime,
    opened: &Opened,
) -> Result<Option<String>, Failure> {
    let filter = ready.registered.definition.type_filter(&ready.watcher.group)?;
    for pattern in filter.types_text() {
        let wider = match pattern.strip_suffix(".*") {
            Some(stem) => format!("{stem}.**"),
            None if pattern.ends_with("**") => continue,
            None => format!("{pattern}.**"),
        };
        let wide = TypeFilter::new(std::slice::from_ref(&wider), &[])?;
        let count = |filter| read::Range { since, until: EventTime::MAX, filter };
        let (more, _) = read::count(&*opened.bus_handle().store, &count(wide)).await?;
        let (own, _) = if pattern.ends_with(".*") {
            let own = TypeFilter::new(std::slice::from_ref(&pattern), &[])?;
            read::count(&*opened.bus_handle().store, &count(own)).await?
        } else {
            (0, None)
        };
        if more > own {
            return Ok(Some(format!("{} more match '{wider}'", style::thousands(more - own))));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Condition;

    fn filter(types: &[&str], not: &[&str], condition: Option<&str>) -> Filter {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let condition = condition.map(|text| Condition::parse(text).unwrap());
        Filter { types: TypeFilter::new(&owned(types), &owned(not)).unwrap(), condition }
    }

    #[test]
    fn the_set_command_clears_removed_filters() {
        let group = GroupName::parse("g").unwrap();
        let plain = filter(&["a.*"], &[], None);
        let rich = filter(&[], &["b", "c"], Some("type == 'x'"));
        let set = |to, from| set_command(&group, to, from).to_string();
        assert_eq!(set(&plain, &plain), "evbus group set g -t 'a.*'");
        assert_eq!(set(&plain, &rich), "evbus group set g -t 'a.*' --not '' --where ''");
        let quoted = r"evbus group set g -t '**' --not 'b' --not 'c' --where 'type == '\''x'\'''";
        assert_eq!(set(&rich, &plain), quoted);
    }
}
