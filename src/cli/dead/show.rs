//! `evbus dead ls` and `evbus dead show`.

use super::pick;
use crate::cli::colour::NOTE;
use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::group;
use crate::cli::help_line::command;
use crate::cli::output::{self, Out};
use crate::cli::relays::RelayPlan;
use crate::cli::session::{Opened, Session};
use crate::cli::style::{self, Column, Table};
use crate::cli::times;
use crate::group::GroupName;
use crate::group::dead_letter::{self, DeadLetter, Enclosed};
use crate::group::status::GroupStatus;

/// List dead letters, oldest event first
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus dead ls
  evbus dead ls mail --json | jq -r .id")]
pub(super) struct DeadLsArgs {
    /// Show only this group's letters
    #[arg(value_name = "GROUP")]
    group: Option<String>,
    /// Show the parked rows of a relay of the config: [relays.NAME]
    #[arg(long, value_name = "NAME", conflicts_with = "group")]
    pub(super) relay: Option<String>,
    /// Print one JSON document per line
    #[arg(long)]
    json: bool,
}

/// Show a dead letter: the handler's last output and the event
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus dead show mail                          # all of them
  evbus dead show mail 20261123T021530-7kq3f9x2m7qa5w
  evbus dead show mail --json | jq .event.data")]
pub(super) struct DeadShowArgs {
    /// The group
    #[arg(value_name = "GROUP")]
    group: String,
    /// Event ids or letter names, or the start of them (default: all)
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Print one JSON document per line
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(args: &DeadLsArgs, session: &Session, opened: &Opened) -> Result<Code, Failure> {
    let statuses = match &args.group {
        Some(name) => vec![group::status(opened.bus_handle(), name).await?],
        None => group::all(opened.bus_handle()).await?,
    };
    let mut out = Out::new();
    let columns = ["GROUP", "DIED", "ID", "TYPE"].map(Column::left);
    let columns = columns.into_iter().chain([Column::right("ATTEMPTS")]).chain([Column::left("WHY")]);
    let mut table = Table::new(columns);
    for status in &statuses {
        for name in &status.dead_letters {
            let dead_letter = dead_letter::readable(opened.bus_handle(), &status.group, name).await?;
            if args.json {
                out.json(&dead_letter::document(&status.group, name, dead_letter.as_ref(), false))?;
            } else {
                table.row(row(&status.group, name, dead_letter.as_ref(), session));
            }
        }
    }
    if args.json {
        out.flush()?;
    } else if table.is_empty() {
        output::note("no dead letters");
    } else {
        out.text(&table.to_string())?;
        advise(&statuses);
    }
    Ok(Code::Done)
}

/// Lists the parked rows of a relay.
pub(super) async fn parked(args: &DeadLsArgs, session: &Session) -> Result<Code, Failure> {
    let plan = RelayPlan::named(session, args.relay.as_deref().unwrap_or_default())?;
    let parked = plan.outbox(session).await?.parked().await?;
    let mut out = Out::new();
    if args.json {
        for row in &parked {
            out.json(&row.document())?;
        }
        out.flush()?;
        return Ok(Code::Done);
    }
    if parked.is_empty() {
        output::note(&format!("relay '{}' has no parked rows", plan.name));
        return Ok(Code::Done);
    }
    let mut table = Table::new(["N", "WHY", "ROW"].map(Column::left));
    for row in &parked {
        table.row(vec![row.number.clone(), row.reason.clone(), row.row.clone()]);
    }
    out.text(&table.to_string())?;
    if output::on_terminal() {
        let redrive = command("dead", format_args!("redrive --relay {}", plan.name));
        output::note_labelled(NOTE, "help", &redrive.to_string());
    }
    Ok(Code::Done)
}

/// Prints the next commands, on a terminal only.
fn advise(statuses: &[GroupStatus]) {
    if let Some(status) =
        statuses.iter().find(|status| !status.dead_letters.is_empty()).filter(|_| output::on_terminal())
    {
        let group = &status.group;
        let [show, redrive] =
            [format!("show {group}"), format!("redrive {group} ID")].map(|args| command("dead", args));
        output::note_labelled(NOTE, "help", &format!("{show}; {redrive}"));
    }
}

fn row(group: &GroupName, name: &str, dead_letter: Option<&DeadLetter>, session: &Session) -> Vec<String> {
    let event = dead_letter::event_of(name);
    let type_ = event.map_or_else(|| "?".to_owned(), |event| event.slug().to_owned());
    let id = dead_letter::shown_id(name, dead_letter);
    match dead_letter {
        Some(dead_letter) => vec![
            group.to_string(),
            times::clock_text(dead_letter.died, session.environment.now, &session.environment.zone()),
            id,
            type_,
            dead_letter.attempts.to_string(),
            dead_letter.why.clone(),
        ],
        None => [group.as_str(), "?", &id, &type_, "?", "the letter cannot be read"].map(str::to_owned).to_vec(),
    }
}

pub(super) async fn show(args: &DeadShowArgs, session: &Session, opened: &Opened) -> Result<Code, Failure> {
    let status = group::status(opened.bus_handle(), &args.group).await?;
    let dead_letters = match args.ids.as_slice() {
        [] => status.dead_letters.clone(),
        ids => pick::by_ids(opened.bus_handle(), &status, ids).await?,
    };
    if dead_letters.is_empty() {
        output::note(&format!("group '{}' has no dead letters", status.group));
    }
    let mut out = Out::new();
    for (index, name) in dead_letters.iter().enumerate() {
        let dead_letter = dead_letter::readable(opened.bus_handle(), &status.group, name).await?;
        if args.json {
            out.json(&dead_letter::document(&status.group, name, dead_letter.as_ref(), true))?;
            continue;
        }
        if index > 0 {
            out.line("")?;
        }
        out.text(&sheet(&status.group, name, dead_letter.as_ref(), session))?;
    }
    Ok(out.flush().map(|()| Code::Done)?)
}

/// The text for one letter.
fn sheet(group: &GroupName, name: &str, dead_letter: Option<&DeadLetter>, session: &Session) -> String {
    let id = style::escape(&dead_letter::shown_id(name, dead_letter)).into_owned();
    let Some(dead_letter) = dead_letter else {
        let remove = command("dead", format_args!("rm {group} {name}"));
        return format!("{id}\n  the letter cannot be read   {remove}\n");
    };
    let died = times::clock_text(dead_letter.died, session.environment.now, &session.environment.zone());
    let mut text = format!("{id}  {}\n", style::escape(dead_letter.name.slug()));
    let attempts = style::plural(u64::from(dead_letter.attempts), "attempt");
    text.push_str(&format!("  died {died} after {attempts}: {}\n", style::escape(&dead_letter.why)));
    if !dead_letter.stderr.trim().is_empty() {
        text.push_str("  output\n");
        for line in dead_letter.stderr.lines() {
            text.push_str(&format!("    {}\n", style::escape(line)));
        }
    }
    let content = match &dead_letter.content {
        Enclosed::Event(raw) => Some(raw.get()),
        Enclosed::Text(text) => Some(text.as_str()),
        Enclosed::Unfit(why) => Some(why.as_str()),
        Enclosed::Nothing => None,
    };
    match content {
        Some(content) => text.push_str(&format!("  event\n    {}\n", style::escape(content.trim()))),
        None => text.push_str("  the event was gone when it died\n"),
    }
    text.push_str(&format!("  {}\n", command("dead", format_args!("redrive {group} {id}"))));
    text
}
