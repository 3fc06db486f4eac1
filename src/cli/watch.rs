//! `evbus watch`: runs handlers until it is stopped.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{Notify, watch as signal};

use super::exit::Code;
use super::failure::Failure;
use super::output;
use super::relays::RelayPlan;
use super::service::Service;
use super::session::{Needs, Session, block_on};
use super::sources;
use super::watchers::{self, ConfigWatch, HangUp, Reloads, RunArgs};
use crate::clock::Backoff;
use crate::config::{BusAddress, Config, Location};
use crate::group::worker::Stop;
use crate::store::system_words;

mod member;
mod metrics;
mod on_bus;
mod once;
mod units;

use units::{Changes, Prepared, Runs, Unit, Units};

/// The pauses before a reload is tried again that the bus has not answered.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Run a command for each event, until stopped
///
/// Runs the watchers of the config, or the one that the options describe. Events that came while no
/// worker ran are run first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus watch                                        # all watchers of evbus.toml
  evbus watch -g mail -t 'order.*' -- ./send-mail
  evbus watch -g thumbs -t 'image.uploaded' -j 4 --timeout 2m -- make-thumb --size 256
  evbus watch -g audit -t 'backup.**' --shell 'cat >> audit.log'
  evbus watch -g crm -t 'order.*' --url https://crm.example/hook --secret env:CRM_SECRET
  evbus watch --metrics 9464                         # http://127.0.0.1:9464/metrics and /healthz
  evbus watch --bus https://bus.example -g mail -- ./send-mail

The event comes on the command's stdin, its attributes as EVBUS_ID, EVBUS_TYPE … Exit 0: done;
65: dead at once; anything else: retry. An event may be run more than once. See evbus-handler(7).

TERM, INT, and HUP from a closing terminal: start nothing more and let running handlers finish; a second
signal ends them. HUP to a daemon (no terminal, watchers from the config): reload the config.

Through a server (evbus-serve(1)) this is a member of the group: what is tried again and in what order is
decided there. EVBUS_TOKEN holds the token.

/healthz answers 200 while every watcher works, and 503 with one line for each watcher that is stalled
(nothing can start), cannot reach the bus, or has ended.")]
pub(super) struct WatchArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Serve /metrics for Prometheus, and /healthz; a port alone means the loopback interface
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
    /// Reload the config when its file changes, as on HUP to a daemon
    #[arg(long, conflicts_with_all = ["group", "once"])]
    reload: bool,
    /// Run the handler for this one event now, outside of the group, and end: nothing is recorded
    #[arg(long, value_name = "ID", conflicts_with_all = ["metrics", "dry_run"])]
    once: Option<String>,
    /// The config that the watch has begun with.
    #[arg(skip)]
    found: Option<PathBuf>,
}

impl WatchArgs {
    /// What looks for changes of the config, if it is to.
    fn config_watch(&self, session: &Session) -> Option<ConfigWatch> {
        let path = self.found.clone().filter(|_| self.reload);
        path.map(|path| ConfigWatch::new(path, &session.clock))
    }

    /// Refuses another config than the one that the watch has begun with. It is searched for as it was then: a file that
    /// another user can write by now is none.
    fn refuse_other_config(&self, session: &Session) -> Result<(), Failure> {
        let (Some(path), now) = (&self.found, session.config_quietly()?.path) else { return Ok(()) };
        match now {
            Some(now) if now == *path => Ok(()),
            Some(other) => Err(Failure::usage(format!(
                "{} is gone or ignored, and {} is another config",
                path.display(),
                other.display()
            ))),
            None => Err(Failure::usage(format!("{} is gone or ignored", path.display()))),
        }
    }
}

/// What a kind of bus has for the units of a watch.
trait Preparing: Runs {
    /// Refuses a unit that cannot run as it is. The bus is not asked.
    fn check(&self, unit: &Unit) -> Result<(), Failure>;

    /// Makes ready what a unit needs, such as its group, and says what it will do. With `dry`, changes and says nothing.
    async fn prepare(&self, unit: &Unit, dry: bool) -> Result<Self::With, Failure>;
}

/// Why all units have ended.
enum End {
    /// They were told to, or have failed.
    Ended(Code),
    /// The config names another bus: the process is to begin again. Until then these units were wanted.
    OtherBus(Vec<Unit>),
}

pub(super) fn run(mut args: WatchArgs, session: Session) -> Result<Code, Failure> {
    watchers::ignore_terminal_stops();
    if args.once.is_some() {
        args.run.needs_no_group();
    }
    if let Some(id) = &args.once {
        return once::run(id, args.run.watchers(&session, "watch")?, &args, &session);
    }
    args.found = if args.run.in_config() { session.config_quietly()?.path } else { None };
    // Before the config is read: a change of it meanwhile is one.
    let mut config = args.config_watch(&session);
    let mut wanted = wanted(&args, &session)?;
    let address = session.address()?;
    refuse(&wanted, &address)?;
    loop {
        let ended = match &address.location {
            Location::Server(_) => member::watch(&args, &session, (wanted, config), &address),
            _ => on_bus::watch(&args, &session, (wanted, config), &address),
        };
        wanted = match ended.map_err(Failure::of_a_worker)? {
            End::Ended(code) => return Ok(code),
            End::OtherBus(units) => units,
        };
        config = args.config_watch(&session);
        // The config was valid when the change came, but may have changed since.
        if let Err(failure) = try_out_again(&args, &session.anew(), &wanted) {
            failure.context("the config is not reloaded; the watchers go on unchanged").report();
            continue;
        }
        // The process replaces itself, so that a supervisor sees no end.
        output::pump::flush_all();
        let again = std::process::Command::new(current_program()).args(std::env::args_os().skip(1)).exec();
        Failure::failed(format!("cannot restart: {}; the watchers go on unchanged", system_words(&again))).report();
    }
}

/// Refuses what the config says by now where it could not run. `before` is what was wanted until now.
fn try_out_again(args: &WatchArgs, session: &Session, before: &[Unit]) -> Result<(), Failure> {
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

/// This program's file; one that has taken its place; or the program as it runs, where there is none any more.
fn current_program() -> PathBuf {
    let running = PathBuf::from("/proc/self/exe");
    let Ok(path) = std::env::current_exe() else { return running };
    // As proc_pid_exe(5) shows a file that was replaced.
    let replaced = path.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    [Some(path), replaced].into_iter().flatten().find(|path| path.exists()).unwrap_or(running)
}

/// What is to run: the watcher of the options, the named ones of the config, or all that it has.
fn wanted(args: &WatchArgs, session: &Session) -> Result<Vec<Unit>, Failure> {
    let watchers = args.run.watchers(session, "watch")?.into_iter().map(Unit::watcher);
    let config = if args.run.takes_all() { session.config_quietly()? } else { Config::default() };
    let relays = RelayPlan::of(&config)?.into_iter().map(Unit::Relay);
    let schedules = config.schedules.into_iter().map(Unit::Schedule);
    let sources = config.sources.into_iter().map(Unit::Source);
    Ok(watchers.chain(relays).chain(schedules).chain(sources).collect())
}

/// Refuses what cannot run on a bus of this kind.
fn refuse(units: &[Unit], bus: &BusAddress) -> Result<(), Failure> {
    let is_server = matches!(bus.location, Location::Server(_));
    units.iter().try_for_each(|unit| match unit {
        Unit::Watcher(_) => Ok(()),
        _ if is_server => {
            Err(Failure::usage("relays, schedules and sources need the bus itself, and not a server of it"))
        }
        Unit::Source(source) => sources::refuse_bus(source, bus),
        Unit::Relay(_) | Unit::Schedule(_) => Ok(()),
    })
}

/// Prepares units as the process starts, and begins those that can be. One that cannot is reported, and the others run,
/// unless it is the only watcher or the bus cannot be reached.
async fn begin<R: Preparing>(runs: &R, units: &Units<R::With>, wanted: Vec<Unit>) -> Result<(), Failure> {
    let is_alone = wanted.iter().filter(|unit| unit.is_watcher()).count() == 1;
    let (mut prepared, mut failed) = (Vec::new(), BTreeMap::new());
    for unit in &wanted {
        let ready = async {
            runs.check(unit)?;
            runs.prepare(unit, false).await
        };
        match ready.await {
            Ok(with) => prepared.push(Prepared { unit: unit.clone(), with }),
            Err(failure) if is_alone && unit.is_watcher() || failure.code() == Code::TryAgain => return Err(failure),
            Err(failure) => _ = failed.insert(unit.label(), report_not_run(unit, failure)),
        }
    }
    units.change_to(wanted, prepared, failed);
    Ok(())
}

fn report_not_run(unit: &Unit, failure: Failure) -> Code {
    failure.context(&format!("{} is not run", unit.label())).report()
}

/// Runs units until they have ended, with what the config says by then, and `beside` meanwhile.
async fn run_until_stopped<R: Preparing>(
    (args, session, address): (&WatchArgs, &Session, &BusAddress),
    config: Option<ConfigWatch>,
    (runs, units): (&R, &Units<R::With>),
    beside: impl Future<Output = Infallible>,
) -> Result<End, Failure> {
    let (stop, mut stopped) = signal::channel(Stop::No);
    let told = stopped.clone();
    let (asked, other_bus) = (Notify::new(), RefCell::new(None));
    let service = Service::new(&session.environment);
    service.notify("READY=1");
    let until_stopped = service.notify_until_stopped(&*session.clock, stopped.clone());
    let reloading = async {
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
                    let what =
                        "the config names another bus: the watch begins again once the running handlers have ended";
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
    };
    let stopping = async {
        while stopped.changed().await.is_ok() {
            units.stop(*stopped.borrow_and_update());
        }
        std::future::pending().await
    };
    let reloads = Reloads { hang_up: HangUp::of(args.run.in_config()), asked: &asked, config };
    let code = tokio::select! { biased;
        code = units.run_all(runs, &|label| output::note(&format!("{label} has ended"))) => code,
        never = stopping => match never {},
        failure = watchers::on_signals_or_reloads(stop, Some(reloads)) => {
            failure?;
            Code::Done
        }
        () = until_stopped => Code::Done,
        never = reloading => match never {},
        never = beside => match never {},
    };
    // Who is told to stop meanwhile does not begin again.
    let other_bus = other_bus.take().filter(|_| *told.borrow() == Stop::No);
    Ok(other_bus.map_or(End::Ended(code), End::OtherBus))
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
        let ready = async {
            runs.check(unit)?;
            runs.prepare(unit, true).await
        };
        match ready.await {
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
