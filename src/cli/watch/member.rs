//! `evbus watch` through a server: this process is a member of the group, whose state is the server's.

use std::rc::Rc;

use tokio::sync::watch as signal;

use super::units::{Prepared, Runs, Unit, Units};
use super::{End, Preparing, WatchArgs};
use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::reporter::Printer;
use crate::cli::session::{Needs, Session, block_on};
use crate::cli::style;
use crate::cli::watchers::{self, ConfigWatch, HandlerParts, agree};
use crate::config::{BusAddress, StartFrom, Watcher};
use crate::group::definition::Definition;
use crate::group::worker::Stop;
use crate::group::worker_event::{Reporter, WorkerEvent};
use crate::remote::{GroupBody, Member, MemberParts, RemoteError, Server};

/// Runs watchers as members of their groups until a signal ends them.
pub(super) fn watch(
    args: &WatchArgs,
    session: &Session,
    (wanted, config): (Vec<Unit>, Option<ConfigWatch>),
    address: &BusAddress,
) -> Result<End, Failure> {
    refuse_metrics(args)?;
    if args.run.dry_run {
        return Err(Failure::usage("--dry-run needs the bus itself"));
    }
    block_on(Needs::Everything, async {
        let Some(server) = session.server(address)?.map(Rc::new) else { return Ok(End::Ended(Code::Usage)) };
        let printer = args.run.printer(session, true);
        let parts = HandlerParts::new(session, &printer);
        let (runs, units) = (AsMember { args, session, server, printer, parts }, Units::new());
        super::begin(&runs, &units, wanted).await?;
        let beside = std::future::pending();
        super::run_until_stopped((args, session, address), config, (&runs, &units), beside).await
    })
}

fn refuse_metrics(args: &WatchArgs) -> Result<(), Failure> {
    match args.metrics {
        Some(_) => Err(Failure::usage("--metrics needs the bus itself: the server has the state of the groups")),
        None => Ok(()),
    }
}

/// Refuses a server through which watchers could not run.
pub(super) async fn try_out(
    (args, session, address): (&WatchArgs, &Session, &BusAddress),
    watchers: impl Iterator<Item = &Watcher>,
) -> Result<(), Failure> {
    refuse_metrics(args)?;
    let Some(server) = session.server(address)? else { return Ok(()) };
    for watcher in watchers {
        let fits = ready(watcher, &server, session, true).await;
        fits.map_err(|failure| failure.context(&format!("watcher '{}'", watcher.name)))?;
    }
    Ok(())
}

/// Refuses a watcher that cannot run through this server, or joins its group, which is made if it is not there and the
/// token allows it. With `dry`, none is made.
async fn ready(
    watcher: &Watcher,
    server: &Server,
    session: &Session,
    dry: bool,
) -> Result<Option<Definition>, Failure> {
    let filter = watcher.filter()?;
    refuse_settings_of_the_server(watcher)?;
    watchers::check_action(watcher, session)?;
    let Some(definition) = joined(server, watcher, dry).await? else { return Ok(None) };
    agree(watcher, &filter, &definition).map_err(|failure| {
        failure.help("change the group where the bus is, leave the options out, or join another group")
    })?;
    Ok(Some(definition))
}

struct AsMember<'a> {
    args: &'a WatchArgs,
    session: &'a Session,
    server: Rc<Server>,
    printer: Rc<Printer>,
    parts: HandlerParts,
}

impl Runs for AsMember<'_> {
    type With = ();

    async fn run(&self, of: Prepared<()>, _: bool, stop: signal::Receiver<Stop>) -> Code {
        let Unit::Watcher(watcher) = of.unit else { return Code::Done };
        let parts = MemberParts {
            server: Rc::clone(&self.server),
            group: watcher.group.clone(),
            handler: self.parts.handler(&watcher),
            capacity: watcher.taken(),
            dead_on: watcher.retry.dead_on.clone(),
            stop_timeout: watcher.stop_timeout,
            clock: Rc::clone(&self.session.clock),
            reporter: Rc::clone(&self.printer) as Rc<dyn Reporter>,
            stop,
        };
        match Member::new(parts).run().await {
            Ok(()) => Code::Done,
            Err(error) => {
                self.printer.report(&watcher.group, &WorkerEvent::Ended);
                Failure::from(error).context(&format!("watcher '{}' ended", watcher.name)).report()
            }
        }
    }
}

impl Preparing for AsMember<'_> {
    async fn prepare(&self, unit: &Unit, dry: bool) -> Result<(), Failure> {
        let Unit::Watcher(watcher) = unit else { return Ok(()) };
        let Some(definition) = ready(watcher, &self.server, self.session, dry).await? else { return Ok(()) };
        if !self.args.run.quiet && !dry {
            let (group, paused) = (&watcher.group, if definition.paused.is_some() { ", paused" } else { "" });
            let wanted = style::wanted(&definition.filter(group)?);
            output::note(&format!("watching {}: group '{group}', {wanted}{paused}", self.server.url()));
        }
        Ok(())
    }
}

/// The watcher's group.
async fn joined(server: &Server, watcher: &Watcher, dry: bool) -> Result<Option<Definition>, Failure> {
    let group = &watcher.group;
    match server.find_group(group).await {
        Ok(definition) => return Ok(Some(definition)),
        Err(error) if error.status() == Some(404) && dry => return Ok(None),
        Err(error) if error.status() == Some(404) => {}
        Err(error) => return Err(error.into()),
    }
    let start = watcher.from.map(|from| match from {
        StartFrom::Earliest => "earliest".to_owned(),
        StartFrom::Now => "now".to_owned(),
        StartFrom::Time(time) => time.to_rfc3339(),
    });
    let wanted = GroupBody {
        types: watcher.types.clone(),
        not: watcher.not.clone(),
        condition: watcher.condition.clone(),
        start,
        shards: watcher.shards,
    };
    server.ensure_group(group, &wanted).await.map(Some).map_err(|error| match error {
        RemoteError::Refused { status: 403, .. } => {
            Failure::usage(format!("there is no group '{group}', and the token may not make one"))
                .help(format!("where the bus is: evbus group create {group}"))
        }
        RemoteError::Refused { status: 409, .. } => {
            Failure::usage(error.to_string()).help("--from now or --from earliest")
        }
        error => error.into(),
    })
}

/// When an event is tried again, and in what order events run, is decided where the group's state is.
fn refuse_settings_of_the_server(watcher: &Watcher) -> Result<(), Failure> {
    let default = Watcher::new(watcher.name.clone(), watcher.group.clone(), watcher.action.clone());
    let (own, usual) = (&watcher.retry, &default.retry);
    let retry_differs =
        (own.max_attempts, own.min, own.max, own.jitter) != (usual.max_attempts, usual.min, usual.max, usual.jitter);
    let in_config = format!("[serve.groups.{}] of the server's config says it; leave it out here", watcher.group);
    let (what, help) = if watcher.latest.is_some() {
        ("which events are superseded", "leave latest out here".to_owned())
    } else if watcher.ordered {
        ("the order of events", in_config)
    } else if retry_differs {
        ("when an event is tried again", in_config)
    } else if watcher.on_dead.is_some() {
        ("what is done with a dead letter", "leave on_dead out here".to_owned())
    } else {
        return Ok(());
    };
    Err(Failure::usage(format!("'{}': {what} is decided where the bus is", watcher.name)).help(help))
}
