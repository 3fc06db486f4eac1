//! `evbus dead redrive` and `evbus dead rm`.

use super::pick;
use crate::bus::keys;
use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::group;
use crate::cli::help_line::{HelpLine, command, text};
use crate::cli::output;
use crate::cli::relays::RelayPlan;
use crate::cli::session::{Opened, Session};
use crate::cli::style;
use crate::event::TypeFilter;
use crate::group::GroupName;
use crate::group::dead_letter;
use crate::group::operate::{self, Redriven};
use crate::group::owner::process_of;
use crate::group::status::GroupStatus;

/// Put dead letters back to work
///
/// The group's worker runs their events again, with fresh attempts. A letter is removed once its
/// event is done.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus dead redrive mail 20261123T021530-7kq3f9x2m7qa5w
  evbus dead redrive mail -t 'order.*'
  evbus dead redrive mail --all --yes
  evbus dead redrive --relay shop                # rows of an outbox, put back to be moved")]
pub(super) struct DeadRedriveArgs {
    /// The group
    #[arg(value_name = "GROUP", required_unless_present = "relay")]
    group: Option<String>,
    /// Event ids or letter names, or the start of them
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Redrive all letters of the group
    #[arg(long, conflicts_with_all = ["ids", "types"])]
    all: bool,
    /// Redrive letters whose event type matches
    #[arg(short = 't', long = "type", value_name = "PATTERN", conflicts_with = "ids")]
    types: Vec<String>,
    /// Put back all parked rows of a relay of the config: [relays.NAME]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["group", "ids", "types"])]
    pub(super) relay: Option<String>,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

/// Remove dead letters for good
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus dead rm mail 20261123T021530-7kq3f9x2m7qa5w
  evbus dead rm mail --all --yes")]
pub(super) struct DeadRmArgs {
    /// The group
    #[arg(value_name = "GROUP")]
    group: String,
    /// Event ids or letter names, or the start of them
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Remove all letters of the group
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

/// Puts the parked rows of a relay back into their outbox.
pub(super) async fn redrive_parked(args: &DeadRedriveArgs, session: &Session) -> Result<Code, Failure> {
    let plan = RelayPlan::named(session, args.relay.as_deref().unwrap_or_default())?;
    let back = plan.outbox(session).await?.redrive().await?;
    output::note(&format!("relay '{}': {} put back", plan.name, style::plural(back, "row")));
    Ok(Code::Done)
}

pub(super) async fn redrive(args: &DeadRedriveArgs, opened: &Opened) -> Result<Code, Failure> {
    let bus = opened.bus_handle();
    let group = args.group.as_deref().unwrap_or_default();
    let Some(status) = operate::status_for_redrive(bus, &GroupName::parse(group)?).await? else {
        return Err(group::unknown(bus, group).await?);
    };
    let dead_letters = match (&args.ids[..], &args.types[..], args.all) {
        ([], [], false) => return Err(nothing_named("redrive", &status)),
        ([], [], true) => status.dead_letters.clone(),
        ([], types, _) => pick::by_type(bus, &status, &TypeFilter::new(types, &[])?).await?,
        (ids, ..) => pick::by_ids(bus, &status, ids).await?,
    };
    if dead_letters.is_empty() {
        output::note(&format!("group '{}' has no such dead letters", status.group));
        return Ok(Code::Done);
    }
    let what = format!("puts {} of '{}' back to work", counted(&dead_letters), status.group);
    if args.all
        && !group::confirmed(&what, args.yes, &command("dead", format_args!("redrive {} --all --yes", status.group)))?
    {
        return Ok(Code::Done);
    }
    let Redriven { dead_letters: redriven, unreadable } = operate::redrive(bus, &status, &dead_letters).await?;
    for name in unreadable {
        output::warn(&format!("letter {name} cannot be read; it stays as it is"));
    }
    let when = if status.has_live_owner(process_of) { "" } else { " as soon as a worker of the group runs" };
    output::note(&format!("{}: {} back to work{when}", status.group, counted(&redriven)));
    Ok(Code::Done)
}

pub(super) async fn remove(args: &DeadRmArgs, opened: &Opened) -> Result<Code, Failure> {
    let bus = opened.bus_handle();
    let status = group::status(bus, &args.group).await?;
    let dead_letters = match (&args.ids[..], args.all) {
        ([], false) => return Err(nothing_named("rm", &status)),
        ([], true) => status.dead_letters.clone(),
        (ids, _) => pick::by_ids(bus, &status, ids).await?,
    };
    if dead_letters.is_empty() {
        output::note(&format!("group '{}' has no dead letters", status.group));
        return Ok(Code::Done);
    }
    let which = if args.all { "--all".to_owned() } else { args.ids.join(" ") };
    let what = format!("removes {} of '{}' for good", counted(&dead_letters), status.group);
    if !group::confirmed(&what, args.yes, &command("dead", format_args!("rm {} {which} --yes", status.group)))? {
        return Ok(Code::Done);
    }
    let keys: Vec<String> = dead_letters.iter().map(|name| keys::dead_letter(&status.group, name)).collect();
    bus.store.delete_many(&keys).await?;
    output::note(&format!("{}: {} removed", status.group, counted(&dead_letters)));
    Ok(Code::Done)
}

fn counted(dead_letters: &[String]) -> String {
    style::plural(u64::try_from(dead_letters.len()).unwrap_or(u64::MAX), "dead letter")
}

fn nothing_named(verb: &str, status: &GroupStatus) -> Failure {
    let group = &status.group;
    Failure::usage("which dead letters?").help(match &status.dead_letters[..] {
        [] => HelpLine::from(format!("group '{group}' has none")),
        [only] => HelpLine::from(command("dead", format_args!("{verb} {group} {}", dead_letter::shown_id(only, None)))),
        _ => [
            command("dead", format_args!("{verb} {group} ID")),
            text(", or --all; "),
            command("dead", format_args!("ls {group}")),
        ]
        .into(),
    })
}
