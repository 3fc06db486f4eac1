//! Finds a group by its name.

use crate::bus::BusHandle;
use crate::cli::failure::Failure;
use crate::cli::help_line::command;
use crate::cli::style;
use crate::group::GroupName;
use crate::group::definition::{self, Registered};
use crate::group::status::{self, GroupStatus};

/// The group and its definition.
pub(in crate::cli) async fn registered(bus: &BusHandle, name: &str) -> Result<(GroupName, Registered), Failure> {
    let group = GroupName::parse(name)?;
    match definition::find(&*bus.store, &group).await? {
        Some(registered) => Ok((group, registered)),
        None => Err(unknown(bus, name).await?),
    }
}

/// The status of one group.
pub(in crate::cli) async fn status(bus: &BusHandle, name: &str) -> Result<GroupStatus, Failure> {
    match status::read(bus, &GroupName::parse(name)?).await? {
        Some(status) => Ok(status),
        None => Err(unknown(bus, name).await?),
    }
}

/// The status of all groups.
pub(in crate::cli) async fn all(bus: &BusHandle) -> Result<Vec<GroupStatus>, Failure> {
    Ok(status::all(bus).await?)
}

pub(in crate::cli) async fn unknown(bus: &BusHandle, name: &str) -> Result<Failure, Failure> {
    let groups = definition::names(&*bus.store).await?;
    let near = style::did_you_mean(name, groups.iter().map(GroupName::as_str));
    let args = if groups.is_empty() { format!("create {name}") } else { "ls".to_owned() };
    Ok(Failure::usage(format!("no group '{name}'{near}")).help(command("group", args)))
}
