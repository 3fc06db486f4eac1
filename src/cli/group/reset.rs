//! `evbus group reset`: sends a group to another position.

use super::confirmed;
use super::create::start_of;
use crate::bus::read::{self, Range};
use crate::bus::{BusHandle, keys, to_json_line};
use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::help_line::command;
use crate::cli::output;
use crate::cli::session::{Opened, Session};
use crate::cli::{style, times};
use crate::event::EventTime;
use crate::group::definition::{self, Definition};
use crate::group::request::{self, Request};
use crate::group::{GroupName, Marker, Position, read_marker};
use crate::store::{ErrorKind, Swap};

/// Process everything after a time again, and nothing before it
///
/// A worker ends its handlers for the group at once, and goes on from the new position. Dead
/// letters stay. A marker that cannot be read is replaced.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus group reset mail --to 2026-11-20        # replay since then
  evbus group reset mail --to earliest --yes
  evbus group reset audit --to now              # skip the backlog")]
pub(super) struct GroupResetArgs {
    /// The group
    #[arg(value_name = "NAME")]
    name: String,
    /// Set the new position: earliest, now, or a time
    #[arg(long, value_name = "START")]
    to: String,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(args: &GroupResetArgs, session: &Session, opened: &Opened) -> Result<Code, Failure> {
    let start = start_of("--to", &args.to, session)?;
    let (group, found) = super::registered(opened.bus_handle(), &args.name).await?;
    let what = consequence(&group, &found.definition, start, session, opened).await?;
    if !confirmed(&what, args.yes, &command("group", format_args!("reset {group} --to '{}' --yes", args.to)))? {
        return Ok(Code::Done);
    }
    let bus = opened.bus_handle();
    let to = definition::resolve(&*bus.store, &*bus.clock, start).await?;
    for shard in 0..found.definition.shards {
        match read_marker(bus, &group, shard, &found.definition).await {
            Ok(_) => request::ask(bus, &group, shard, &Request::Reset { to: to.clone() }).await?,
            Err(error) if error.kind() == ErrorKind::Damaged => {
                rewrite(bus, &group, shard, &found.definition, &to).await?
            }
            Err(error) => return Err(error.into()),
        }
    }
    let from = shown(start, session);
    output::note(&format!("'{group}' goes on from {from} as soon as a worker of the group runs"));
    Ok(Code::Done)
}

/// What the reset would do, as words that follow "this".
async fn consequence(
    group: &GroupName,
    definition: &Definition,
    start: definition::Start,
    session: &Session,
    opened: &Opened,
) -> Result<String, Failure> {
    let since = match start {
        definition::Start::Earliest => EventTime::MIN,
        definition::Start::At(time) => time,
        definition::Start::Now => {
            return Ok(format!("lets '{group}' skip everything stored so far, and ends what it runs just now"));
        }
    };
    // The count is left out if the filter cannot be read.
    let filter = definition.type_filter(group)?;
    let (count, _) = read::count(&*opened.bus_handle().store, &Range { since, until: EventTime::MAX, filter }).await?;
    let (count, from) = (style::plural(count, "stored event"), shown(start, session));
    Ok(format!("lets '{group}' process {count} from {from} on, done or not, and ends what it runs just now"))
}

/// A start as text.
fn shown(start: definition::Start, session: &Session) -> String {
    match start {
        definition::Start::Earliest => "the earliest".to_owned(),
        definition::Start::Now => "now".to_owned(),
        definition::Start::At(time) => times::clock_text(time, session.environment.now, &session.environment.zone()),
    }
}

/// Replaces a marker that cannot be read, which fences its owner.
async fn rewrite(
    bus: &BusHandle,
    group: &GroupName,
    shard: u16,
    definition: &Definition,
    to: &Position,
) -> Result<(), Failure> {
    let key = keys::marker(group, shard);
    let Some(object) = bus.store.get(&key).await? else { return Ok(()) };
    let marker = Marker {
        made: definition.created,
        epoch: epoch_in(&object.bytes) + 1,
        nonce: format!("{:016x}", bus.clock.random()),
        ..Marker::new(to.clone())
    };
    let bytes = to_json_line(&marker);
    match bus.store.cas(&key, Some(&object.version), &bytes).await? {
        Swap::Swapped(_) => Ok(()),
        Swap::Conflict => Err(Failure::failed(format!("{key} changed just now")).help("try again")),
    }
}

/// The epoch in what is left of a damaged marker.
fn epoch_in(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    let after = text.split_once("\"epoch\"").map_or("", |(_, after)| after.trim_start_matches([' ', ':']));
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_recovered_from_a_damaged_marker() {
        assert_eq!(epoch_in(br#"{"epoch": 17, "nonce": "#), 17);
        assert_eq!(epoch_in(br#"{"epoch":3}"#), 3);
        assert_eq!(epoch_in(b"\xff\0garbage"), 0);
        assert_eq!(epoch_in(b""), 0);
    }
}
