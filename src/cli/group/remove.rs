//! `evbus group rm`: removes a group.

use std::time::Duration;

use super::confirmed;
use crate::bus::{BusHandle, keys};
use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::help_line::command;
use crate::cli::output;
use crate::cli::session::Opened;
use crate::cli::style;
use crate::group::GroupName;
use crate::group::lease::{Lease, Process};
use crate::group::marker::Owner;
use crate::group::owner::process_of;
use crate::group::status::{GroupStatus, Owned};
use crate::store::List;

/// Remove a group, its progress and its dead letters
///
/// Events stay. A group is not removed while a worker owns its shards. A watch without events to
/// run ends when it sees that the group is gone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus group rm mail
  evbus group rm old-report --yes")]
pub(super) struct GroupRemoveArgs {
    /// The group
    #[arg(value_name = "NAME")]
    name: String,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(args: &GroupRemoveArgs, opened: &Opened) -> Result<Code, Failure> {
    let bus = opened.bus_handle();
    let status = super::status(bus, &args.name).await?;
    let group = &status.group;
    refuse_live_owner(bus, &status).await?;
    let dead_letters = u64::try_from(status.dead_letters.len()).unwrap_or(u64::MAX);
    let what = format!("removes group '{group}' with its progress and {}", style::plural(dead_letters, "dead letter"));
    if !confirmed(&what, args.yes, &command("group", format_args!("rm {group} --yes")))? {
        return Ok(Code::Done);
    }
    let mut state = bus.store.list_after(List::all(&keys::state(group))).await?.keys;
    for marker in state.iter().filter(|key| !key.ends_with(".json")) {
        bus.store.delete(marker).await?;
    }
    // Dead letters and requests. The last one removes its folder; these two names also remove
    // folders that are empty.
    state.extend([keys::dead_letter(group, "none"), keys::request(group, 0, "none")]);
    bus.store.delete_many(&state).await?;
    bus.store.delete(&keys::group(group)).await?;
    output::note(&format!("removed group '{group}'"));
    Ok(Code::Done)
}

/// Refuses a group with a live owner. An owner whose process may be alive is observed for one
/// lease: a live one commits within that time.
async fn refuse_live_owner(bus: &BusHandle, status: &GroupStatus) -> Result<(), Failure> {
    let refused = |owner: &Owner| {
        let (host, pid) = (style::escape(&owner.host), owner.pid);
        let what = format!("{host}:{pid} works for group '{}' just now", status.group);
        Err(Failure::failed(what).help(format!("stop it first (on {host}: kill {pid})")))
    };
    if let Some(alive) = status.owners.iter().find(|owned| process_of(&owned.owner) == Process::Lives) {
        return refused(&alive.owner);
    }
    let suspects: Vec<&Owned> =
        status.owners.iter().filter(|owned| process_of(&owned.owner) == Process::MayLive).collect();
    let Some(first) = suspects.first() else { return Ok(()) };
    let lease = Lease::default().length;
    let (host, pid) = (&first.owner.host, first.owner.pid);
    output::note(&format!("looking whether {}:{pid} still works (up to {}s)", style::escape(host), lease.as_secs()));
    let before = versions(bus, &status.group, &suspects).await?;
    let until = bus.clock.elapsed() + lease;
    while bus.clock.elapsed() < until {
        bus.clock.sleep_until(bus.clock.elapsed() + Duration::from_millis(500)).await;
        if versions(bus, &status.group, &suspects).await? != before {
            return refused(&first.owner);
        }
    }
    Ok(())
}

async fn versions(
    bus: &BusHandle,
    group: &GroupName,
    owned: &[&Owned],
) -> Result<Vec<Option<crate::store::Version>>, Failure> {
    let mut versions = Vec::new();
    for owned in owned {
        let object = bus.store.get(&keys::marker(group, owned.shard)).await?;
        versions.push(object.map(|object| object.version));
    }
    Ok(versions)
}
