//! `evbus group create`.

use crate::bus::read::{self, Range};
use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::help_line::{command, text};
use crate::cli::ls::{FilterArgs, WhereArg};
use crate::cli::output;
use crate::cli::session::{Opened, Session};
use crate::cli::style;
use crate::cli::style::wanted;
use crate::config::StartFrom;
use crate::event::{EventTime, Filter};
use crate::group::GroupName;
use crate::group::definition::{self, Definition, MOST_SHARDS, Start};

/// Create a group
///
/// Filter, shards and start belong to the group and hold for every worker.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus group create mail -t 'order.*'
  evbus group create audit --from now
  evbus group create thumbs -t 'image.uploaded' --shards 4 --from 7d")]
pub(super) struct GroupCreateArgs {
    /// The group's name: lower-case letters, digits, '.', '_', '-'
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    condition: WhereArg,
    /// Set the number of shards, fixed at creation; at most this many workers can share the group
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_SHARDS)))]
    shards: u16,
    /// Set the start: earliest, now, or a time (needed if stored events match)
    #[arg(long, value_name = "START")]
    from: Option<String>,
}

/// A start as given on the command line.
pub(super) fn start_of(option: &str, text: &str, session: &Session) -> Result<Start, Failure> {
    let from = StartFrom::parse(text, &session.environment).map_err(|error| Failure::from(error).context(option))?;
    Ok(match from {
        StartFrom::Earliest => Start::Earliest,
        StartFrom::Now => Start::Now,
        StartFrom::Time(time) => Start::At(time),
    })
}

pub(super) async fn run(args: &GroupCreateArgs, session: &Session, opened: &Opened) -> Result<Code, Failure> {
    let group = GroupName::parse(&args.name)?;
    let filter = Filter { types: args.filter.filter()?, condition: args.condition.condition()? };
    let types = &filter.types;
    let start = args.from.as_deref().map(|text| start_of("--from", text, session)).transpose()?;
    let (store, clock) = (&*opened.bus_handle().store, &*opened.bus_handle().clock);
    if definition::find_durable(store, &group).await?.is_some() {
        return Err(exists(&group));
    }
    let start = match start {
        Some(start) => start,
        None => {
            let range = Range { since: EventTime::MIN, until: EventTime::MAX, filter: types.clone() };
            let (matching, _) = read::count(store, &range).await?;
            if matching > 0 {
                let count = style::plural(matching, "stored event");
                let verb = if matching == 1 { "matches" } else { "match" };
                return Err(Failure::usage(format!(
                    "{count} {verb} {}: where is '{group}' to start?",
                    wanted(&filter)
                ))
                .help("add --from now or --from earliest"));
            }
            Start::Earliest
        }
    };
    let start = definition::resolve(store, clock, start).await?;
    let definition = Definition::new(clock.now(), &filter, args.shards, start);
    match definition::create(store, &group, definition).await? {
        Some(_) => output::note(&format!("made group '{group}': {}", wanted(&filter))),
        None => return Err(exists(&group)),
    }
    Ok(Code::Done)
}

fn exists(group: &GroupName) -> Failure {
    Failure::failed(format!("there is a group '{group}' already")).help([
        command("group", format_args!("set {group}")),
        text(" changes its filter; "),
        command("group", format_args!("reset {group}")),
        text(" its place"),
    ])
}
