//! `evbus watch`: runs handlers until it is stopped.

use std::cell::Cell;
use std::convert::Infallible;
use std::os::unix::process::CommandExt;

use tokio::sync::{Notify, watch as signal};

use super::exit::Code;
use super::failure::Failure;
use super::output;
use super::relays::RelayPlan;
use super::service::Service;
use super::session::Session;
use super::sources;
use super::watchers::{self, ConfigWatch, HangUp, Reloads, RunArgs, Starting};
use crate::config::{BusAddress, Config, Location};
use crate::group::worker::Stop;
use crate::store::system_words;

mod member;
mod metrics;
mod on_bus;
mod once;
mod units;

use units::{Unit, Units};

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
}

impl WatchArgs {
    /// What looks for changes of the config, if it is to.
    fn config_watch(&self, session: &Session) -> Result<Option<ConfigWatch>, Failure> {
        let path = if self.reload { session.config_quietly()?.path } else { None };
        Ok(path.map(|path| ConfigWatch::new(path, &session.clock)))
    }
}

/// How units are run: by workers on the bus itself, or as members through a server.
trait Runs {
    /// Refuses a unit that cannot run as it is, and changes nothing.
    async fn check(&self, unit: &Unit) -> Result<(), Failure>;

    /// Makes ready what a unit needs to run, such as its group, and says what it will do.
    async fn prepare(&self, unit: &Unit) -> Result<(), Failure>;

    /// Runs a unit that was prepared until it is told to stop, or has failed and said so.
    async fn run(&self, unit: Unit, stop: signal::Receiver<Stop>) -> Code;
}

/// Why all units have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// They were told to, or failed.
    Ended(Code),
    /// The config names another bus: the process is to begin again.
    OtherBus,
}

pub(super) fn run(mut args: WatchArgs, session: Session) -> Result<Code, Failure> {
    watchers::ignore_terminal_stops();
    if args.once.is_some() {
        args.run.needs_no_group();
    }
    if let Some(id) = &args.once {
        return once::run(id, args.run.watchers(&session, "watch")?, &args, &session);
    }
    let wanted = wanted(&args, &session)?;
    loop {
        let address = session.address()?;
        refuse(&wanted, &address)?;
        let ended = match &address.location {
            Location::Server(_) => member::watch(&args, &session, wanted.clone(), &address),
            _ => on_bus::watch(&args, &session, wanted.clone()),
        };
        if let End::Ended(code) = ended.map_err(Failure::of_a_worker)? {
            return Ok(code);
        }
        // The config was valid when the change came, but may have changed since.
        if let Err(failure) = self::wanted(&args, &session) {
            failure.context("the config is not reloaded; the watchers go on unchanged").report();
            continue;
        }
        // The process replaces itself, so that a supervisor sees no end.
        let again = std::process::Command::new(current_program()?).args(std::env::args_os().skip(1)).exec();
        return Err(Failure::failed(format!("cannot restart: {}", system_words(&again))));
    }
}

fn current_program() -> Result<std::path::PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::failed(format!("cannot restart: {}", system_words(&error))))
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

/// The units that could be prepared. One that could not is reported, and the others still run.
async fn prepared(runs: &impl Runs, wanted: Vec<Unit>) -> Result<Starting<Unit>, Failure> {
    let mut starting = Starting::new(wanted.iter().filter(|unit| unit.is_watcher()).count());
    for unit in wanted {
        let label = unit.label();
        let start = async {
            runs.check(&unit).await?;
            runs.prepare(&unit).await?;
            Ok(unit)
        };
        starting.take(&label, start.await)?;
    }
    Ok(starting)
}

/// Runs units until they have ended, with what the config says by then, and `beside` meanwhile.
async fn run_until_stopped(
    (args, session, address): (&WatchArgs, &Session, &BusAddress),
    units: &Units,
    runs: &impl Runs,
    beside: impl Future<Output = Infallible>,
) -> Result<End, Failure> {
    let (stop, mut stopped) = signal::channel(Stop::No);
    let told = stopped.clone();
    let (asked, is_other_bus) = (Notify::new(), Cell::new(false));
    let reloads = Reloads { asked: &asked, config: args.config_watch(session)? };
    let service = Service::new(&session.environment);
    service.notify("READY=1");
    let until_stopped = service.notify_until_stopped(&*session.clock, stopped.clone());
    let reloading = async {
        loop {
            asked.notified().await;
            service.notify("RELOADING=1");
            match reload(args, &session.anew(), address, units, runs).await {
                Ok(Some(changes)) => {
                    service.notify("READY=1");
                    output::note(&format!("the config is reloaded: {changes}"));
                }
                Ok(None) => {
                    output::note(
                        "the config names another bus: the watch begins again once the running handlers have ended",
                    );
                    is_other_bus.set(true);
                    units.stop(Stop::Starts);
                }
                Err(failure) => {
                    service.notify("READY=1");
                    failure.context("the config is not reloaded").report();
                }
            }
        }
    };
    let stopping = async {
        while stopped.changed().await.is_ok() {
            units.stop(*stopped.borrow_and_update());
        }
        std::future::pending().await
    };
    let run = async |unit, stop| runs.run(unit, stop).await;
    let code = tokio::select! { biased;
        code = units.run_all(&run, &|label| output::note(&format!("{label} has ended"))) => code,
        never = stopping => match never {},
        failure = watchers::on_signals_or_reloads(stop, HangUp::of(args.run.in_config()), reloads) => {
            failure?;
            Code::Done
        }
        () = until_stopped => Code::Done,
        never = reloading => match never {},
        never = beside => match never {},
    };
    // Who is told to stop meanwhile does not begin again.
    let begins_again = is_other_bus.get() && *told.borrow() == Stop::No;
    Ok(if begins_again { End::OtherBus } else { End::Ended(code) })
}

/// Makes what runs equal to the config, and says what was different; nothing: it names another bus.
async fn reload(
    args: &WatchArgs,
    session: &Session,
    address: &BusAddress,
    units: &Units,
    runs: &impl Runs,
) -> Result<Option<String>, Failure> {
    let wanted = wanted(args, session)?;
    let now = session.address()?;
    refuse(&wanted, &now)?;
    if now.location != address.location {
        return Ok(None);
    }
    let differing = units.differing(&wanted);
    for unit in &differing {
        runs.check(unit).await.map_err(|failure| failure.context(&unit.label()))?;
    }
    for unit in &differing {
        runs.prepare(unit).await.map_err(|failure| failure.context(&unit.label()))?;
    }
    Ok(Some(units.change_to(wanted).text()))
}
