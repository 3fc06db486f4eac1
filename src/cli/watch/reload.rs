//! A config that changes while a watch runs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::Notify;

use super::units::{Changes, Prepared, Unit, Units};
use super::{Preparing, WatchArgs, member, on_bus, refuse, report_not_run, wanted};
use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::service::Service;
use crate::cli::session::{Needs, Session, block_on};
use crate::clock::Backoff;
use crate::config::{BusAddress, Location};
use crate::group::worker::Stop;

/// The pauses before a reload is tried again that the bus has not answered.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Reloads the config whenever that is asked for, and again where the bus has not answered. Where it names another bus,
/// `other_bus` gets what was wanted until then, and all units are told to end.
pub(super) async fn reloading<R: Preparing>(
    (args, session, address): (&WatchArgs, &Session, &BusAddress),
    (runs, units): (&R, &Units<R::With>),
    (asked, other_bus): (&Notify, &RefCell<Option<Vec<Unit>>>),
    service: &Service,
) -> Infallible {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let (mut again_at, mut said) = (None, String::new());
    loop {
        tokio::select! {
            () = asked.notified() => {
                backoff = Backoff::new(PAUSES.0, PAUSES.1);
                said.clear();
            }
            () = sleep_until(session, again_at) => {}
        }
        if units.is_stopped() {
            if other_bus.borrow().is_some() {
                output::note("the watch begins again with this config once the running handlers have ended");
            }
            continue;
        }
        service.notify("RELOADING=1");
        units.set_changing(true);
        let reloaded = reload(args, &session.anew(), address, (runs, units)).await;
        again_at = None;
        match reloaded {
            _ if units.is_stopped() => {}
            Ok(Reloaded::Changed(changes)) => output::note(&format!("the config is reloaded: {changes}")),
            Ok(Reloaded::OtherBus) => {
                let what = "the config names another bus: the watch begins again once the running handlers have ended";
                output::note(what);
                other_bus.replace(Some(units.wanted()));
                units.stop(Stop::AfterRuns);
            }
            Err(failure) if failure.code() == Code::TryAgain => {
                if std::mem::replace(&mut said, failure.message().to_owned()) != failure.message() {
                    failure.context("the config is not reloaded, and is tried again").report();
                }
                again_at = Some(session.clock.elapsed() + backoff.take());
            }
            Err(failure) => _ = failure.context("the config is not reloaded").report(),
        }
        units.set_changing(false);
        if !units.is_stopped() {
            service.notify("READY=1");
        }
    }
}

/// Completes at a time of the session's clock; never, if there is none.
async fn sleep_until(session: &Session, at: Option<Duration>) {
    match at {
        Some(at) => session.clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What a reload has come to.
enum Reloaded {
    Changed(Changes),
    OtherBus,
}

/// Makes what runs equal to the config. What has changed must be able to begin, or nothing changes; what could not begin
/// before, and still cannot, is no reason against the rest.
async fn reload<R: Preparing>(
    args: &WatchArgs,
    session: &Session,
    address: &BusAddress,
    (runs, units): (&R, &Units<R::With>),
) -> Result<Reloaded, Failure> {
    args.refuse_other_config(session)?;
    let wanted = wanted(args, session)?;
    let now = session.address()?;
    refuse(&wanted, &now)?;
    if now.location != address.location {
        try_out((args, session, &now), &wanted, &units.wanted()).await?;
        return Ok(Reloaded::OtherBus);
    }
    let (mut able, mut failed) = (Vec::new(), BTreeMap::new());
    for unit in units.differing(&wanted) {
        match runs.prepare(unit, true).await {
            Ok(_) => able.push(unit),
            Err(failure) if failure.code() != Code::TryAgain && units.has_wanted(unit) => {
                failed.insert(unit.label(), report_not_run(unit, failure));
            }
            Err(failure) => return Err(failure.context(&unit.label())),
        }
    }
    let mut prepared = Vec::new();
    for unit in able {
        let with = runs.prepare(unit, false).await.map_err(|failure| failure.context(&unit.label()))?;
        prepared.push(Prepared { unit: unit.clone(), with });
    }
    // What has ended by itself meanwhile begins with another change.
    Ok(Reloaded::Changed(units.change_to(wanted, prepared, failed)))
}

/// Refuses what the config says by now where it could not run. `before` is what was wanted until now.
pub(super) fn try_out_again(args: &WatchArgs, session: &Session, before: &[Unit]) -> Result<(), Failure> {
    args.refuse_other_config(session)?;
    let (wanted, address) = (wanted(args, session)?, session.address()?);
    refuse(&wanted, &address)?;
    block_on(Needs::Everything, try_out((args, session, &address), &wanted, before))
}

/// Refuses another bus on which units could not run; those that could not before are no reason.
async fn try_out(
    (args, session, address): (&WatchArgs, &Session, &BusAddress),
    wanted: &[Unit],
    before: &[Unit],
) -> Result<(), Failure> {
    let watchers = wanted.iter().filter(|unit| !unit.is_in(before)).filter_map(|unit| match unit {
        Unit::Watcher(watcher) => Some(&**watcher),
        _ => None,
    });
    match &address.location {
        Location::Server(_) => member::try_out((args, session, address), watchers).await,
        _ => on_bus::try_out(session, watchers, address).await,
    }
}
