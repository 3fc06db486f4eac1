//! `evbus group ls`.

use serde_json::{Value, json};

use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::help_line::command;
use crate::cli::output::{self, Out};
use crate::cli::session::{Opened, Session};
use crate::cli::style::{Column, Table};
use crate::cli::times;
use crate::event::EventTime;
use crate::group::Position;
use crate::group::status::GroupStatus;

/// List the groups with their filter, shards and start
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus group ls
  evbus group ls --json | jq -r '.groups[].group'")]
pub(super) struct GroupListArgs {
    /// Show only this group
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &GroupListArgs, session: &Session, opened: &Opened) -> Result<Code, Failure> {
    let statuses = match &args.name {
        Some(name) => vec![super::status(opened.bus_handle(), name).await?],
        None => super::all(opened.bus_handle()).await?,
    };
    let mut out = Out::new();
    if args.json {
        out.json(&json!({"groups": statuses.iter().map(document).collect::<Vec<_>>()}))?;
        out.flush()?;
        return Ok(Code::Done);
    }
    if statuses.is_empty() {
        output::note(&format!("no groups; help: {}", command("group", "create NAME -t 'PATTERN'")));
        return Ok(Code::Done);
    }
    let columns = ["GROUP", "TYPES", "NOT"].map(Column::left);
    let columns = columns.into_iter().chain([Column::right("SHARDS")]).chain(["START", "NOTE"].map(Column::left));
    let mut table = Table::new(columns);
    for status in &statuses {
        table.row(row(status, session));
    }
    out.text(&table.to_string())?;
    Ok(Code::Done)
}

fn row(status: &GroupStatus, session: &Session) -> Vec<String> {
    let Some(definition) = &status.definition else {
        let damage = status.damage.as_ref().map_or_else(String::new, ToString::to_string);
        let unknown = std::iter::repeat_n("?".to_owned(), 4);
        return std::iter::once(status.group.to_string()).chain(unknown).chain([damage]).collect();
    };
    let list = |patterns: &[String], none: &str| if patterns.is_empty() { none.to_owned() } else { patterns.join(",") };
    let note = match (&definition.paused, &status.damage) {
        (_, Some(error)) => error.to_string(),
        (Some(paused), None) => {
            let why = paused.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            format!(
                "paused {}{why}",
                times::clock_text(paused.since, session.environment.now, &session.environment.zone())
            )
        }
        (None, None) => String::new(),
    };
    let condition = definition.condition.as_ref().map_or_else(String::new, |text| format!("where {text}"));
    let notes: Vec<String> = [condition, note].into_iter().filter(|note| !note.is_empty()).collect();
    vec![
        status.group.to_string(),
        list(&definition.types, "**"),
        list(&definition.not, "-"),
        definition.shards.to_string(),
        start_text(&definition.start, session),
        notes.join("; "),
    ]
}

/// A group's start as text.
fn start_text(start: &Position, session: &Session) -> String {
    match start.time() {
        EventTime::MIN => "earliest".to_owned(),
        time => times::clock_text(time, session.environment.now, &session.environment.zone()),
    }
}

fn document(status: &GroupStatus) -> Value {
    let definition = status.definition.as_ref();
    json!({
        "group": status.group,
        "types": definition.map(|definition| &definition.types),
        "not": definition.map(|definition| &definition.not),
        "where": definition.and_then(|definition| definition.condition.as_ref()),
        "shards": definition.map(|definition| definition.shards),
        "start": definition.map(|definition| &definition.start),
        "created": definition.map(|definition| definition.created.to_rfc3339()),
        "paused": definition.and_then(|definition| definition.paused.as_ref()).map(|paused| json!({
            "since": paused.since.to_rfc3339(),
            "why": paused.why,
        })),
        "damage": status.damage.as_ref().map(ToString::to_string),
    })
}
