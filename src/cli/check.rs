//! `evbus check`: explains the config, or whether a pattern matches an event.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::{Value, json};

use super::exit::Code;
use super::failure::Failure;
use super::ls::{FilterArgs, WhereArg};
use super::output::{self, Out};
use super::relays::RelayPlan;
use super::session::{Needs, Opened, Session, block_on};
use super::sources;
use super::style::wanted;
use super::watchers::set_command;
use super::{style, times};
use crate::bus::read::{self, Range};
use crate::cli::help_line::command;
use crate::config::{Action, Config, Location, ServeSettings, Watcher};
use crate::event::{Condition, Event, EventTime, Filter, FilterResult, TypeFilter};
use crate::group::{GroupName, definition};
use crate::source::{After, Source};
use crate::store::dir::{Durability, Execution};
use crate::store::system_words;

mod loops;
mod serve;

/// Check the config, or whether a filter matches an event
///
/// Without --event, prints what each watcher of the config and serve would do, and whether groups agree;
/// exits 2 if the config cannot be used. With --event, exits 0 if the filter matches the event and
/// 1 if not.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus check
  evbus check --config ./evbus.toml --json
  evbus check -t 'order.*' --event f.json
  evbus get 20261123T021530-7kq3f9x2m7qa5w | evbus check -t 'order.*' --event -")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    condition: WhereArg,
    /// Test the filter with this event: a file, or '-' for stdin
    #[arg(long, value_name = "FILE")]
    event: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: CheckArgs, session: Session) -> Result<Code, Failure> {
    let given = !(args.filter.types.is_empty() && args.filter.not.is_empty() && args.condition.condition.is_none());
    match &args.event {
        Some(file) => matches(&args, file, &session),
        None if given => Err(Failure::usage("-t, --not and --where need an event to test")
            .help(command("check", "-t 'order.*' --event f.json"))),
        None => watchers(&args, &session),
    }
}

fn matches(args: &CheckArgs, file: &str, session: &Session) -> Result<Code, Failure> {
    let filter = Filter { types: args.filter.filter()?, condition: args.condition.condition()? };
    let cannot =
        |error: std::io::Error| Failure::usage(format!("cannot read the event {file}: {}", system_words(&error)));
    let mut bytes = Vec::new();
    match file.strip_prefix('@').unwrap_or(file) {
        "-" => std::io::stdin().lock().read_to_end(&mut bytes).map_err(cannot)?,
        path => std::fs::File::open(session.environment.cwd.join(path))
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(cannot)?,
    };
    let event =
        Event::parse(&bytes, usize::MAX).map_err(|error| Failure::usage(format!("the event {file} {error}")))?;
    let result = filter.evaluate(&event);
    let is_match = result == FilterResult::Wanted;
    let why = format!("{}{}", why(&filter.types, event.type_()), why_where(filter.condition.as_ref(), result));
    let mut out = Out::new();
    if args.json {
        out.json(&json!({"type": event.type_(), "match": is_match, "why": why}))?;
    } else {
        let verdict = if is_match { "match" } else { "no match" };
        out.line(&style::escape(&format!("{verdict}: {why}")))?;
    }
    out.flush()?;
    Ok(if is_match { Code::Done } else { Code::Failed })
}

/// Explains which pattern decides about a type.
fn why(filter: &TypeFilter, type_: &str) -> String {
    let by = |texts: &[String]| {
        let alone = |text: &&String| TypeFilter::new(&[(*text).clone()], &[]).is_ok_and(|filter| filter.matches(type_));
        texts.iter().find(alone).cloned()
    };
    let types = filter.types_text();
    match (by(&filter.not_text()), by(&types)) {
        (Some(not), _) => format!("'{type_}' is excluded by --not '{not}'"),
        (None, Some(pattern)) => format!("'{type_}' is wanted by '{pattern}'"),
        (None, None) if types.is_empty() => format!("'{type_}' is wanted, as every type is"),
        (None, None) => format!("'{type_}' is wanted by none of '{}'", types.join(",")),
    }
}

/// Explains what a condition says of an event whose type is wanted.
fn why_where(condition: Option<&Condition>, result: FilterResult) -> String {
    let Some(condition) = condition else { return String::new() };
    let text = condition.as_str();
    match result {
        FilterResult::OtherType => String::new(),
        FilterResult::Wanted => format!(", and '{text}' holds"),
        FilterResult::DoesNotHold => format!(", but '{text}' does not hold"),
        FilterResult::CannotEvaluate(why) => {
            format!(", but '{text}' cannot be evaluated: {why}; it would be dead at once")
        }
        FilterResult::NoAnswer(why) => format!(", but '{text}' has no answer, which counts as false: {why}"),
    }
}

/// What one watcher of the config would do.
struct WatcherPlan<'a> {
    watcher: &'a Watcher,
    filter: Filter,
    group: GroupLookup,
}

/// The watcher's group on the bus.
enum GroupLookup {
    /// The bus cannot be opened.
    Unknown,
    /// The group does not exist; holds the number of stored events that match.
    New(u64),
    /// The group exists and agrees; holds the number of stored events that match.
    Agrees(u64),
    /// The group exists and has another filter or other shards: the difference in words, and the
    /// filter if it differs.
    Differs(String, Option<Box<Filter>>),
}

fn watchers(args: &CheckArgs, session: &Session) -> Result<Code, Failure> {
    let config = session.config()?;
    let Some(path) = &config.path else {
        return Err(Failure::usage("there is no config file to check")
            .help("write ./evbus.toml, or name one with --config; see evbus.toml(5)"));
    };
    block_on(Needs::Everything, async {
        let address = session.address();
        let is_server = address.as_ref().is_ok_and(|address| matches!(address.location, Location::Server(_)));
        let opened = match address {
            Ok(address) => session.open_at(address, Execution::Inline, Durability::Full).await,
            Err(failure) => Err(failure),
        };
        let mut plans = Vec::new();
        for watcher in &config.watchers {
            let filter = watcher.filter()?;
            let group = match &opened {
                Ok(opened) => group_state(opened, watcher, &filter).await?,
                Err(_) => GroupLookup::Unknown,
            };
            plans.push(WatcherPlan { watcher, filter, group });
        }
        let relays = RelayPlan::of(&config)?;
        relays.iter().try_for_each(RelayPlan::check)?;
        let mut out = Out::new();
        let serves = config.serve != ServeSettings::default();
        if args.json {
            let watchers: Vec<Value> = plans.iter().map(document).collect();
            let relays = relays.iter().map(|relay| json!({"relay": relay.name, "from": relay.from.display}));
            let schedules = config.schedules.iter().map(|schedule| {
                let next = schedule.rule.next_after(session.environment.now).map(EventTime::to_rfc3339);
                let rule = schedule.rule.text();
                json!({"schedule": schedule.name, "type": schedule.type_, "rule": rule, "next": next})
            });
            let sources = config
                .sources
                .iter()
                .map(|source| json!({"source": source.name, "type": source.type_, "folder": source.place.to_string()}));
            let mut checked = json!({
                "config": path,
                "watchers": watchers,
                "relays": relays.collect::<Vec<_>>(),
                "schedules": schedules.collect::<Vec<_>>(),
                "sources": sources.collect::<Vec<_>>(),
            });
            if serves {
                checked["serve"] = serve::document(&config.serve);
            }
            out.json(&checked)?;
        } else {
            let unopened = if is_server { "behind a server, which is not asked" } else { "not to be opened" };
            let bus = opened.as_ref().map_or_else(|_| unopened.to_owned(), |opened| opened.address.to_string());
            let mut parts = vec![style::plural(plans.len() as u64, "watcher")];
            if !relays.is_empty() {
                parts.push(style::plural(relays.len() as u64, "relay"));
            }
            if !config.schedules.is_empty() {
                parts.push(style::plural(config.schedules.len() as u64, "schedule"));
            }
            if !config.sources.is_empty() {
                parts.push(style::plural(config.sources.len() as u64, "source"));
            }
            out.line(&style::escape(&format!("{}: {} · bus {bus}", path.display(), parts.join(", "))))?;
            for relay in &relays {
                out.line(&style::escape(&format!("relay {}: from {}", relay.name, relay.from.display)))?;
            }
            for schedule in &config.schedules {
                let (now, zone) = (session.environment.now, session.environment.zone());
                let next = schedule.rule.next_after(now);
                let next = next.map_or_else(|| "never".to_owned(), |next| times::clock_text(next, now, &zone));
                let what =
                    format!("schedule {}: {} by {}, next {next}", schedule.name, schedule.type_, schedule.rule.text());
                out.line(&style::escape(&what))?;
            }
            for source in &config.sources {
                out.line(&style::escape(&source_line(source)))?;
            }
            for plan in &plans {
                out.text(&text(plan))?;
            }
            if serves {
                out.text(&serve::text(&config.serve))?;
            }
        }
        out.flush()?;
        for plan in &plans {
            for type_ in loops::own_types(plan.watcher, &plan.filter) {
                output::warn(&format!(
                    "watcher '{}': its command emits {type_}, which it wants itself: each run would cause another",
                    plan.watcher.name
                ));
            }
        }
        for watcher in &config.watchers {
            super::watchers::check_action(watcher, session)
                .map_err(|failure| failure.context(&format!("watcher '{}'", watcher.name)))?;
        }
        serve::check(&config.serve).map_err(|failure| failure.context("serve"))?;
        if !is_server {
            let opened = opened?;
            config.sources.iter().try_for_each(|source| sources::refuse_bus(source, &opened.address))?;
            unwanted(&config, &plans, &opened).await?.iter().for_each(|what| output::warn(what));
        }
        for source in &config.sources {
            if let Some(error) = sources::trouble_of(source) {
                output::warn(&format!("source '{}': {error}", source.name));
            }
        }
        let refused = |plan: &WatcherPlan<'_>| match plan.group {
            GroupLookup::Differs(..) => true,
            GroupLookup::New(n) => n > 0 && plan.watcher.from.is_none(),
            GroupLookup::Agrees(_) | GroupLookup::Unknown => false,
        };
        Ok(if plans.iter().any(refused) { Code::Usage } else { Code::Done })
    })
}

/// What of the config emits that no group wants, and for which groups sources would wait in vain. Groups are those of the
/// config's watchers, and those on the bus.
async fn unwanted(config: &Config, plans: &[WatcherPlan<'_>], opened: &Opened) -> Result<Vec<String>, Failure> {
    if config.schedules.is_empty() && config.sources.is_empty() {
        return Ok(Vec::new());
    }
    let mut groups: BTreeMap<GroupName, TypeFilter> =
        plans.iter().map(|plan| (plan.watcher.group.clone(), plan.filter.types.clone())).collect();
    let store = &*opened.bus_handle().store;
    for group in definition::names(store).await? {
        let Some(found) = definition::find(store, &group).await? else { continue };
        groups.insert(group.clone(), found.definition.type_filter(&group)?);
    }
    let schedules = config.schedules.iter().map(|one| (format!("schedule '{}'", one.name), &one.type_));
    let sources = config.sources.iter().map(|one| (format!("source '{}'", one.name), &one.type_));
    let mut all: Vec<String> = schedules
        .chain(sources)
        .filter(|(_, type_)| !groups.values().any(|filter| filter.matches(type_)))
        .map(|(what, type_)| format!("{what}: no group wants its {type_}"))
        .collect();
    for source in &config.sources {
        for group in &source.groups {
            let why = match groups.get(group) {
                None => "there is no group",
                Some(filter) if !filter.matches(&source.type_) => "its events are not wanted by group",
                Some(_) => continue,
            };
            all.push(format!("source '{}': {why} '{group}', which it waits for: its files stay", source.name));
        }
    }
    Ok(all)
}

/// What a source does, in one line.
fn source_line(source: &Source) -> String {
    let changes: Vec<&str> = source.changes.iter().map(|change| change.as_str()).collect();
    let groups: Vec<&str> = source.groups.iter().map(GroupName::as_str).collect();
    let once_done = format!("once {} {} done", groups.join(", "), if groups.len() == 1 { "is" } else { "are" });
    let after = match &source.after {
        After::Leave => String::new(),
        After::Delete => format!(", then deleted {once_done}"),
        After::Move(to) => format!(", then moved to {} {once_done}", to.display()),
    };
    let (name, type_, changes) = (&source.name, &source.type_, changes.join(", "));
    format!("source {name}: {type_} for files in {} ({changes}){after}", source.place)
}

async fn group_state(opened: &Opened, watcher: &Watcher, filter: &Filter) -> Result<GroupLookup, Failure> {
    let store = &*opened.bus_handle().store;
    let range = Range { since: EventTime::MIN, until: EventTime::MAX, filter: filter.types.clone() };
    let (matching, _) = read::count(store, &range).await?;
    let Some(found) = definition::find(store, &watcher.group).await? else { return Ok(GroupLookup::New(matching)) };
    let current = found.definition.filter(&watcher.group)?;
    let shards = found.definition.shards;
    Ok(match watcher.shards {
        _ if current != *filter => GroupLookup::Differs(format!("wants {}", wanted(&current)), Some(Box::new(current))),
        Some(own) if own != shards => {
            GroupLookup::Differs(format!("has {}", style::plural(u64::from(shards), "shard")), None)
        }
        _ => GroupLookup::Agrees(matching),
    })
}

/// The lines for one watcher.
fn text(plan: &WatcherPlan<'_>) -> String {
    let watcher = plan.watcher;
    let group = &watcher.group;
    let events = |n: &u64| {
        let (count, verb) = (style::plural(*n, "stored event"), if *n == 1 { "matches" } else { "match" });
        format!("{count} {verb}")
    };
    let state = match &plan.group {
        GroupLookup::Unknown => "not looked at: the bus cannot be opened".to_owned(),
        GroupLookup::New(0) => "new".to_owned(),
        GroupLookup::New(n) if watcher.from.is_none() => {
            format!("new, and {}: it needs from = \"earliest\" or from = \"now\"", events(n))
        }
        GroupLookup::New(n) => format!("new; {}", events(n)),
        GroupLookup::Agrees(n) => format!("there; {}", events(n)),
        GroupLookup::Differs(how, None) => format!("there, but it {how}"),
        GroupLookup::Differs(how, Some(current)) => {
            format!("there, but it {how}   {}", set_command(group, &plan.filter, current))
        }
    };
    let retry = &watcher.retry;
    let span = |duration| times::format_duration(duration);
    let order = if watcher.ordered { ", in order" } else { "" };
    let latest = watcher.latest.as_ref().map_or_else(String::new, |latest| {
        let settle = if latest.settle.is_zero() { String::new() } else { format!(" after {}", span(latest.settle)) };
        format!(", only the latest by '{}'{settle}", latest.by.as_str())
    });
    let batch = watcher.batch.map_or_else(String::new, |batch| {
        format!(", each of up to {} within {}", style::plural(batch.size as u64, "event"), span(batch.linger))
    });
    let mut lines = vec![
        watcher.name.clone(),
        format!("  group    {group}, {state}"),
        format!("  wants    {}", wanted(&plan.filter)),
        action(&watcher.action),
        format!("  at once  {}{batch}{order}{latest}; time limit {}", watcher.concurrency, span(watcher.timeout)),
        format!(
            "  retries  {} after {}..{}; dead at once on {} {}",
            style::plural(u64::from(retry.max_attempts.saturating_sub(1)), "time"),
            span(retry.min),
            span(retry.max),
            if let Action::Webhook(_) = watcher.action { "status" } else { "exit" },
            retry.dead_on.iter().map(i32::to_string).collect::<Vec<_>>().join(", "),
        ),
    ];
    if let Some(argv) = &watcher.on_dead {
        lines.push(format!("  on dead  {}", argv.join(" ")));
    }
    lines.iter().map(|line| format!("{}\n", style::escape(line))).collect()
}

/// The line that says what is done with an event. Of secrets it has the places alone.
fn action(action: &Action) -> String {
    match action {
        Action::Command(argv) => format!("  runs     {}", argv.join(" ")),
        Action::Shell(line) => format!("  runs     {line}"),
        Action::Webhook(target) => {
            let signed = match &target.secrets[..] {
                [] => "not signed".to_owned(),
                secrets => {
                    format!("signed by {}", secrets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
                }
            };
            format!("  posts to {}, {signed}", target.shown())
        }
    }
}

fn document(plan: &WatcherPlan<'_>) -> Value {
    let watcher = plan.watcher;
    let (state, matching, why) = match &plan.group {
        GroupLookup::Unknown => ("unknown", None, None),
        GroupLookup::New(n) => ("new", Some(n), None),
        GroupLookup::Agrees(n) => ("there", Some(n), None),
        GroupLookup::Differs(how, _) => ("differs", None, Some(how)),
    };
    json!({
        "watcher": watcher.name,
        "group": watcher.group,
        "types": plan.filter.types.types_text(),
        "not": plan.filter.types.not_text(),
        "where": watcher.condition,
        "command": watcher.action.argv(),
        "url": if let Action::Webhook(target) = &watcher.action { Some(target.shown()) } else { None },
        "concurrency": watcher.concurrency,
        "batch": watcher.batch.map(|batch| json!({"size": batch.size, "linger": times::format_duration(batch.linger)})),
        "on_dead": watcher.on_dead,
        "ordered": watcher.ordered,
        "latest": watcher.latest.as_ref().map(|latest| {
            json!({"by": latest.by.as_str(), "settle": times::format_duration(latest.settle)})
        }),
        "timeout": times::format_duration(watcher.timeout),
        "max_attempts": watcher.retry.max_attempts,
        "state": state,
        "match": matching,
        "why": why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deciding_pattern_is_named() {
        let list = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let said =
            |types: &[&str], not: &[&str], type_| why(&TypeFilter::new(&list(types), &list(not)).unwrap(), type_);
        assert_eq!(said(&["a.*", "order.*"], &[], "order.x"), "'order.x' is wanted by 'order.*'");
        assert_eq!(said(&["order.*"], &["order.x"], "order.x"), "'order.x' is excluded by --not 'order.x'");
        assert_eq!(said(&[], &[], "order.x"), "'order.x' is wanted, as every type is");
        assert_eq!(said(&["order.*"], &[], "order.x.y"), "'order.x.y' is wanted by none of 'order.*'");
    }
}
