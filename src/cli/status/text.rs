//! Status as text: a header, a table, and the obstacles of each group.

use anstyle::Style;
use jiff::tz::TimeZone;

use super::{GroupRow, StatusReport};
use crate::cli::colour::{BAD, Colours, GOOD, NOTE, WARNING};
use crate::cli::help_line::{self, HelpLine, command};
use crate::cli::style::{self, Column, Table};
use crate::cli::times;
use crate::group::GroupName;
use crate::group::lease::Process;
use crate::group::owner::process_of;
use crate::group::status::GroupState;
use crate::relay::OutboxCounts;

pub(super) fn text(report: &StatusReport, zone: &TimeZone, colours: Colours) -> String {
    let oldest = report
        .oldest
        .map_or_else(String::new, |oldest| format!(" · oldest {}", times::format_duration(report.now.since(oldest))));
    let mut text = format!(
        "bus {} ({}) · {}{oldest}\n",
        style::escape(&report.bus),
        style::escape(&report.origin),
        style::plural(report.events, "event")
    );
    if report.groups.is_empty() {
        text.push_str(&format!("no groups yet   {}\n", command("group", "create NAME -t 'PATTERN'")));
        return text + &relays(report) + &schedules(report, zone) + &sources(report);
    }
    let numbers = ["LAG", "OLDEST", "RETRY", "DEAD", "RATE"].map(Column::right);
    let columns =
        [Column::left("GROUP"), Column::left("STATE").painted(colours, state_style)].into_iter().chain(numbers);
    let mut table = Table::new(columns.chain([Column::left("OWNER")]));
    for row in &report.groups {
        table.row(cells(row, report));
    }
    text.push_str(&table.to_string());
    if let Some(overdue) = report.overdue() {
        let overdue = times::format_duration(overdue);
        text.push_str(&format!(
            "due for {overdue}, and no worker has released it   {}\n",
            command("ls", "--scheduled")
        ));
    }
    for row in &report.groups {
        let group = &row.status.group;
        if let Some(line) = trouble(row, report, zone) {
            text.push_str(&format!("{group}: {}\n", style::escape(&line)));
        }
        if row.status.unanswered() > 0 {
            let passed = style::plural(row.status.unanswered(), "event");
            text.push_str(&format!(
                "{group}: where had no answer for {passed}, passed over   {}\n",
                command("group", format_args!("ls {group}"))
            ));
        }
    }
    text + &relays(report) + &schedules(report, zone) + &sources(report)
}

/// A table of the relays, and what is wrong with them.
fn relays(report: &StatusReport) -> String {
    if report.relays.is_empty() {
        return String::new();
    }
    let columns = [Column::left("RELAY"), Column::right("ROWS"), Column::right("PARKED"), Column::left("FROM")];
    let (mut table, mut troubles) = (Table::new(columns), String::new());
    for row in &report.relays {
        let count = |of: fn(&OutboxCounts) -> u64| match &row.counts {
            Ok(counts) => style::thousands(of(counts)),
            Err(_) => "?".to_owned(),
        };
        table.row(vec![row.name.clone(), count(|of| of.waiting), count(|of| of.parked), row.from.clone()]);
        let trouble = match &row.counts {
            Err(error) => style::escape(error).into_owned(),
            Ok(_) if row.parked() > 0 => {
                let look = command("dead", format_args!("ls --relay {}", row.name));
                format!(
                    "{} no event, and parked   {look}",
                    match row.parked() {
                        1 => "1 row is".to_owned(),
                        many => format!("{} rows are", style::thousands(many)),
                    }
                )
            }
            Ok(_) => continue,
        };
        troubles.push_str(&format!("relay '{}': {trouble}\n", row.name));
    }
    table.to_string() + &troubles
}

/// A table of the schedules, and what is wrong with them.
fn schedules(report: &StatusReport, zone: &TimeZone) -> String {
    if report.schedules.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["SCHEDULE", "NEXT", "TYPE", "RULE"].map(Column::left));
    let mut troubles = String::new();
    for row in &report.schedules {
        let next = row.next.map_or_else(|| "-".to_owned(), |next| times::clock_text(next, report.now, zone));
        table.row(vec![row.name.clone(), next, row.type_.clone(), row.rule.clone()]);
        if let Some(trouble) = row.trouble() {
            troubles.push_str(&format!("schedule '{}': {}\n", row.name, style::escape(&trouble)));
        }
    }
    table.to_string() + &troubles
}

/// A table of the sources, and what is wrong with them.
fn sources(report: &StatusReport) -> String {
    if report.sources.is_empty() {
        return String::new();
    }
    let columns = [Column::left("SOURCE"), Column::right("FILES"), Column::left("TYPE"), Column::left("FOLDER")];
    let (mut table, mut troubles) = (Table::new(columns), String::new());
    for row in &report.sources {
        let files = row.files.map_or_else(|| "-".to_owned(), style::thousands);
        table.row(vec![row.name.clone(), files, row.type_.clone(), row.place.clone()]);
        if let Some(trouble) = &row.error {
            troubles.push_str(&format!("source '{}': {}\n", row.name, style::escape(trouble)));
        }
    }
    table.to_string() + &troubles
}

/// The cost of the emits and of each group's requests, one line each.
pub(super) fn costs(report: &StatusReport) -> String {
    let (emits, events) = (report.emit_cost(), style::plural(report.events, "event"));
    let emits = match emits.is_none() || report.events == 0 {
        true => String::new(),
        false => format!(
            "emit: {events} in {}: {}, {} a million\n",
            style::plural(report.objects, "object"),
            style::cost(emits),
            style::dollars_of(emits, report.events)
        ),
    };
    let line = |row: &GroupRow| match row.cost() {
        made if made.is_none() => format!("{}: its requests cost nothing\n", row.status.group),
        made => format!("{}: {} since the group was made\n", row.status.group, style::cost(made)),
    };
    emits + &report.groups.iter().map(line).collect::<String>()
}

fn cells(row: &GroupRow, report: &StatusReport) -> Vec<String> {
    vec![
        row.status.group.to_string(),
        row.state.to_string(),
        style::thousands(row.lag.events),
        row.age(report.now).map_or_else(|| "-".to_owned(), times::format_duration),
        style::thousands(row.status.retrying().len() as u64),
        style::thousands(row.dead()),
        row.rate.map_or_else(|| "-".to_owned(), rate_text),
        owner_text(row),
    ]
}

fn rate_text(rate: f64) -> String {
    if rate >= 100.0 { format!("{rate:.0}/s") } else { format!("{rate:.1}/s") }
}

/// The first owner, the number of others, and the reason of a pause.
fn owner_text(row: &GroupRow) -> String {
    let owners = &row.status.owners;
    let first = owners.first().map(|first| {
        let gone = if process_of(&first.owner) == Process::Gone { " (gone)" } else { "" };
        format!("{}:{}{gone}", first.owner.host, first.owner.pid)
    });
    let mut others: Vec<_> = owners.iter().map(|owned| (&owned.owner.host, owned.owner.pid)).collect();
    others.sort();
    others.dedup();
    let more = if others.len() > 1 { format!(" +{}", others.len() - 1) } else { String::new() };
    let paused = row.status.definition.as_ref().and_then(|definition| definition.paused.as_ref());
    let why = paused.and_then(|paused| paused.why.as_ref()).map_or_else(String::new, |why| format!(" ({why})"));
    format!("{}{more}{why}", first.unwrap_or_else(|| "-".to_owned()))
}

/// The colour of a state in the table.
fn state_style(state: &str) -> Style {
    match GroupState::ALL.into_iter().find(|known| known.to_string() == state) {
        Some(GroupState::Ok | GroupState::Working) => GOOD,
        Some(GroupState::Waiting | GroupState::Failing) => WARNING,
        Some(GroupState::Stalled | GroupState::Damaged) => BAD,
        Some(GroupState::Paused) | None => NOTE,
    }
}

/// The commands that start a worker of a group.
fn start_a_worker(group: &GroupName) -> HelpLine {
    [command("drain", format_args!("-g {group} -- CMD")), help_line::text(", or "), command("watch", "")].into()
}

/// What holds a group up, and the next command.
fn trouble(row: &GroupRow, report: &StatusReport, zone: &TimeZone) -> Option<String> {
    let group = &row.status.group;
    let retrying = row.status.retrying();
    let last = retrying.iter().find_map(|(name, pending)| Some((*name, pending.why.as_ref()?, pending.next)));
    let failing = last.map(|(name, why, next)| {
        let next =
            next.map_or_else(String::new, |next| format!("; next {}", times::clock_text(next, report.now, zone)));
        (name, format!("{why}{next}"))
    });
    Some(match row.state {
        GroupState::Ok => return None,
        GroupState::Working => {
            let (name, owner) = row.status.running().min_by_key(|(name, _)| name.time())?;
            let (id, age) = (crate::event::id_of(name), times::format_duration(report.now.since(name.time())));
            format!("runs {id}, {age} old, on {}:{}   {}", owner.host, owner.pid, command("get", &id))
        }
        GroupState::Waiting => format!("no worker runs   {}", start_a_worker(group)),
        GroupState::Paused => format!("paused   {}", command("group", format_args!("resume {group}"))),
        GroupState::Damaged => {
            let error = row.status.damage.as_ref()?;
            let help = HelpLine::of(error).map_or_else(String::new, |help| format!("   {help}"));
            format!("{error}{help}")
        }
        GroupState::Stalled => {
            let why = failing.map_or_else(String::new, |(_, why)| format!(", such as {why}"));
            format!(
                "all {} pending events have failed, nothing new is started{why}",
                style::thousands(retrying.len() as u64)
            )
        }
        GroupState::Failing if !row.status.has_live_owner(process_of) && row.lag.events > 0 => {
            let why = failing.map_or_else(String::new, |(_, why)| format!(": {why}"));
            format!("no worker runs{why}   {}", start_a_worker(group))
        }
        GroupState::Failing => match failing {
            Some((_, why)) if row.dead() > 0 => format!("{why}   {}", command("dead", format_args!("ls {group}"))),
            Some((name, why)) => format!("{why}   {}", command("get", crate::event::id_of(name))),
            None => {
                let dead = style::plural(row.dead(), "dead letter");
                format!("{dead}   {}", command("dead", format_args!("ls {group}")))
            }
        },
    })
}
