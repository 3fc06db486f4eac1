//! `evbus watch`: runs handlers until it is stopped.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use tokio::sync::{Notify, watch as signal};

use super::exit::Code;
use super::failure::Failure;
use super::output;
use super::relays::RelayPlan;
use super::service::Service;
use super::session::Session;
use super::sources;
use super::watchers::{self, ConfigWatch, HangUp, Reloads, RunArgs};
use crate::config::{BusAddress, Config, Location};
use crate::group::worker::Stop;
use crate::store::system_words;

mod member;
mod metrics;
mod on_bus;
mod once;
mod reload;
mod units;

use reload::{reloading, try_out_again};
use units::{Prepared, Runs, Unit, Units};

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
    /// Refuses a unit that cannot run as it is; makes ready what it needs, such as its group, and says what it will do. With
    /// `dry`, changes and says nothing.
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
        match runs.prepare(unit, false).await {
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
    let reloading = reloading((args, session, address), (runs, units), (&asked, &other_bus), &service);
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
