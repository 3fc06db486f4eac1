//! `evbus watch`: runs handlers until it is stopped.

use std::cell::Cell;
use std::os::unix::process::CommandExt;
use std::rc::Rc;

use futures_util::future::join4;
use tokio::sync::watch as signal;

use super::exit::Code;
use super::failure::Failure;
use super::output;
use super::relays::{self, RelayPlan};
use super::schedules;
use super::service::Service;
use super::session::{Needs, Opened, Session, block_on};
use super::sources;
use super::style;
use super::watchers::{self, ConfigWatch, HangUp, HistoryKeeper, Ready, RunArgs, SignalAction, Starting};
use crate::config::{BusAddress, Location, Watcher};
use crate::group::worker::{Mode, Stop};
use crate::group::worker_event::Reporter;
use crate::recurring::Recurring;
use crate::source::Source;
use crate::store::dir::{Durability, Execution};
use crate::store::system_words;

mod member;
mod metrics;
mod once;

use metrics::CountingReporter;

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

/// What runs beside the watchers of the config.
#[derive(Default)]
struct Helpers {
    relays: Vec<RelayPlan>,
    schedules: Vec<Recurring>,
    sources: Vec<Source>,
}

impl Helpers {
    fn of_config(session: &Session) -> Result<Self, Failure> {
        let config = session.config_quietly()?;
        Ok(Self { relays: RelayPlan::of(&config)?, schedules: config.schedules, sources: config.sources })
    }

    fn is_empty(&self) -> bool {
        self.relays.is_empty() && self.schedules.is_empty() && self.sources.is_empty()
    }

    fn refused(&self, bus: &BusAddress) -> Option<Failure> {
        self.sources.iter().find_map(|source| sources::refuse_bus(source, bus).err())
    }

    /// The bus once more, for what they emit, where a store passes over its own notices: those of a database, which
    /// would leave the workers of this process to find the events by their polls.
    async fn open(&self, opened: &Opened, session: &Session) -> Result<Option<Opened>, Failure> {
        let passes_over_own = match &opened.address.location {
            #[cfg(feature = "postgres")]
            Location::Postgres(..) => true,
            _ => false,
        };
        if !passes_over_own || self.is_empty() {
            return Ok(None);
        }
        session.open_at(opened.address.clone(), Execution::Threaded, Durability::Full).await.map(Some)
    }
}

pub(super) fn run(mut args: WatchArgs, session: Session) -> Result<Code, Failure> {
    watchers::ignore_terminal_stops();
    if args.once.is_some() {
        args.run.needs_no_group();
    }
    let watchers = args.run.watchers(&session, "watch")?;
    let helpers = if args.run.takes_all() { Helpers::of_config(&session)? } else { Helpers::default() };
    if let Some(id) = &args.once {
        return once::run(id, watchers, &args, &session);
    }
    loop {
        let action = Cell::new(SignalAction::Stop);
        let address = session.address()?;
        let code = match &address.location {
            Location::Server(_) if !helpers.is_empty() => {
                Err(Failure::usage("relays, schedules and sources need the bus itself, and not a server of it"))
            }
            _ if let Some(refused) = helpers.refused(&address) => Err(refused),
            Location::Server(_) => member::watch(&args, &session, watchers.clone(), &address, &action),
            _ => watch(&args, &session, (watchers.clone(), &helpers), &action),
        };
        let code = code.map_err(Failure::of_a_worker)?;
        if action.get() == SignalAction::Stop {
            return Ok(code);
        }
        // The config was valid when the signal came, but may have changed since.
        if let Err(failure) = args.run.watchers(&session, "watch").and_then(|_| Helpers::of_config(&session)) {
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

fn watch(
    args: &WatchArgs,
    session: &Session,
    (watchers, helpers): (Vec<Watcher>, &Helpers),
    action: &Cell<SignalAction>,
) -> Result<Code, Failure> {
    block_on(Needs::Everything, async {
        let opened = session.open(Execution::Threaded).await?;
        let beside = helpers.open(&opened, session).await?;
        if args.run.dry_run {
            return super::drain::dry_run(watchers, &opened, session).await;
        }
        let listener = match &args.metrics {
            Some(address) => Some(metrics::listen(address).await?),
            None => None,
        };
        let service = Service::new(&session.environment);
        let mut starting = Starting::new(&watchers);
        for watcher in watchers {
            let name = watcher.name.clone();
            let start = async {
                watchers::check_action(&watcher, session)?;
                let ready = watchers::prepare(watcher, &opened, false).await?;
                args.run.note_start(&ready);
                if !args.run.quiet {
                    announce(&ready, &opened).await?;
                }
                Ok(ready)
            };
            starting.take(&name, start.await)?;
        }
        let Starting { ready, mut code, .. } = starting;
        let (stop, stopped) = signal::channel(Stop::No);
        let end = stop.clone();
        let printer = args.run.printer(session, true);
        let tally =
            Rc::new(CountingReporter::new(Rc::clone(&printer) as _, ready.iter().map(|ready| &ready.watcher.group)));
        let tallied = Rc::clone(&tally) as Rc<dyn Reporter>;
        let history = HistoryKeeper::new(tallied, &opened, ready.iter().map(|ready| &ready.watcher));
        let reporter = Rc::clone(&history) as Rc<dyn Reporter>;
        let served = async {
            let Some(listener) = listener else { return std::future::pending().await };
            if let Ok(address) = listener.local_addr() {
                output::note(&format!("metrics on http://{address}/metrics"));
            }
            metrics::serve(listener, (&opened, session), &tally, &helpers.relays).await
        };
        let hang_up = HangUp::of(args.run.in_config());
        let config = args.config_watch(session)?;
        let readable = || may_reload(args, session, &service);
        service.notify("READY=1");
        let ended = tokio::select! {
            biased;
            ended = async {
                let has_watchers = !ready.is_empty();
                let runs = async {
                    let runs = watchers::run_all(ready, &opened, &Mode::Watch, (&printer, &reporter), &stopped);
                    let ended = runs.await;
                    // Relays, schedules and sources alone go on; beside watchers they end with the last of these.
                    if has_watchers {
                        let _ = end.send(Stop::Starts);
                    }
                    ended
                };
                let beside = beside.as_ref().unwrap_or(&opened);
                let relayed = relays::follow_all(&helpers.relays, beside, session, &stopped);
                let scheduled = schedules::follow_all(&helpers.schedules, beside, session, &stopped);
                let sourced = sources::follow_all(&helpers.sources, beside, session, &stopped);
                join4(runs, relayed, scheduled, sourced).await.0
            } => ended,
            failure = watchers::on_signals_or_changes(stop, (hang_up, config), action, &readable) => {
                failure?;
                return Ok(Code::Done);
            }
            () = service.notify_until_stopped(&*session.clock, stopped.clone()) => return Ok(Code::Done),
            never = served => match never {},
            never = history.keep() => match never {},
        };
        history.write().await;
        for watcher in ended {
            if let Err(failed) = watcher.outcome {
                code = failed;
            }
        }
        Ok(code)
    })
}

/// Whether the config can be read anew; one that cannot is reported, and the workers go on unchanged.
fn may_reload(args: &WatchArgs, session: &Session, service: &Service) -> bool {
    match args.run.watchers(session, "watch").and_then(|_| Helpers::of_config(session)) {
        Ok(_) => {
            output::note("the config is reloaded once the running handlers have ended");
            service.notify("RELOADING=1");
            true
        }
        Err(failure) => {
            failure.context("the config is not reloaded").report();
            false
        }
    }
}

/// Prints the first line: what is watched, how much waits, and which events the patterns narrowly
/// miss.
async fn announce(ready: &Ready, opened: &Opened) -> Result<(), Failure> {
    let definition = &ready.registered.definition;
    let filter = definition.filter(&ready.watcher.group)?;
    let (waiting, through) = watchers::backlog(ready, opened).await?;
    let near = watchers::near_misses(ready, through, opened).await?;
    let near = near.map_or_else(String::new, |near| format!(" ({near})"));
    let paused = if definition.paused.is_some() { ", paused" } else { "" };
    output::note(&format!(
        "watching {}: group '{}', {}, {} waiting{near}{paused}",
        opened.address,
        ready.watcher.group,
        style::wanted(&filter),
        style::thousands(waiting),
    ));
    Ok(())
}
