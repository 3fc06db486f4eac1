//! What operators do to a group: change its definition, put dead letters back to work.

use std::collections::BTreeSet;

use super::GroupName;
use super::dead_letter;
use super::definition::{self, Definition, Paused};
use super::request::{self, Request};
use super::status::{self, GroupStatus};
use crate::bus::BusHandle;
use crate::store::{ErrorKind, StoreError, StoreResult};

/// Changes a definition, again if another process has changed it meanwhile; false if there was nothing to
/// change, none if there is no such group.
///
/// # Errors
/// The store's, and those of `to`.
pub async fn change<E: From<StoreError>>(
    bus: &BusHandle,
    group: &GroupName,
    mut to: impl FnMut(&mut Definition) -> Result<(), E>,
) -> Result<Option<bool>, E> {
    loop {
        let Some(found) = definition::find(&*bus.store, group).await? else { return Ok(None) };
        let mut definition = found.definition.clone();
        to(&mut definition)?;
        if definition == found.definition {
            return Ok(Some(false));
        }
        if definition::replace(&*bus.store, group, &found.version, definition).await?.is_some() {
            return Ok(Some(true));
        }
    }
}

/// Pauses a group, or lets it go on; returns as [`change`] does. Of a group that is paused already, the
/// reason stays if none is given.
///
/// # Errors
/// The store's.
pub async fn set_paused(
    bus: &BusHandle,
    group: &GroupName,
    paused: bool,
    why: Option<&str>,
) -> StoreResult<Option<bool>> {
    let since = bus.clock.now();
    change(bus, group, |definition| {
        definition.paused = paused.then(|| match definition.paused.take() {
            Some(before) => Paused { since: before.since, why: why.map(str::to_owned).or(before.why) },
            None => Paused { since, why: why.map(str::to_owned) },
        });
        Ok(())
    })
    .await
}

/// Dead letters that were put back to work.
#[derive(Debug, Default)]
pub struct Redriven {
    /// Their names.
    pub dead_letters: Vec<String>,
    /// Those that cannot be read, or are gone; they stay as they are.
    pub unreadable: Vec<String>,
}

/// The status of a group of which dead letters are to be put back to work; none if there is no such group.
/// It leaves out those that were put back before. So these requests are durable from here on: whoever repeats
/// a redrive is told that nothing is left to do.
///
/// # Errors
/// The store's.
pub async fn status_for_redrive(bus: &BusHandle, group: &GroupName) -> StoreResult<Option<GroupStatus>> {
    let status = status::read(bus, group).await?;
    request::persist(bus, group).await?;
    Ok(status)
}

/// Requests a redrive once for each event, of letters of [`status_for_redrive`].
///
/// # Errors
/// The group's definition cannot be read, or the store fails.
pub async fn redrive(bus: &BusHandle, status: &GroupStatus, dead_letters: &[String]) -> StoreResult<Redriven> {
    let group = &status.group;
    let shards = match (&status.definition, &status.damage) {
        (Some(definition), _) => definition.shards,
        (None, Some(error)) => return Err(error.clone()),
        (None, None) => return Err(StoreError::new(ErrorKind::Damaged, format!("group '{group}' has no definition"))),
    };
    let mut asked = BTreeSet::new();
    let mut redriven = Redriven::default();
    for name in dead_letters {
        let dead_letter = dead_letter::readable(bus, group, name).await?;
        let Some(event) = dead_letter.map(|dead_letter| dead_letter.name) else {
            redriven.unreadable.push(name.clone());
            continue;
        };
        if asked.insert(event.clone()) {
            let shard = event.hash_slot().shard(shards);
            let request = Request::Redrive { event, letter: name.clone() };
            request::ask(bus, group, shard, &request).await?;
        }
        redriven.dead_letters.push(name.clone());
    }
    Ok(redriven)
}
