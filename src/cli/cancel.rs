//! `evbus cancel`: removes events that wait for their time.

use super::exit::Code;
use super::failure::Failure;
use super::output::Out;
use super::session::{Needs, Session, block_on};
use crate::bus::schedule::{self, Cancelled};
use crate::bus::{BusHandle, keys};
use crate::cli::help_line::{command, text};
use crate::event::{Event, EventName, Identity, id_of};
use crate::store::dir::Execution;

/// Cancel events that wait for their time
///
/// An event that has come, or is coming at this moment, cannot be cancelled: evbus cancels all
/// others, then exits 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus ls --scheduled
  evbus cancel 20261224T093000-7kq3f9x2m7qa5w
  evbus emit report.due --id report-7 --delay 1h && evbus cancel report-7")]
pub(super) struct CancelArgs {
    /// Event ids, or the start of them
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Look up ids that the emitter chose with this source
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(args: CancelArgs, session: Session) -> Result<Code, Failure> {
    block_on(Needs::Everything, async {
        let opened = session.open(Execution::Inline).await?;
        let (mut out, mut code) = (Out::new(), Code::Done);
        for id in &args.ids {
            match cancel(opened.bus_handle(), id, args.source.as_deref()).await {
                Ok(()) if args.quiet => {}
                Ok(()) => {
                    out.line(&format!("cancelled {id}"))?;
                    out.flush()?;
                }
                Err(failure) if failure.code() == Code::Failed => code = failure.report(),
                Err(failure) => return Err(failure),
            }
        }
        Ok(code)
    })
}

async fn cancel(bus: &BusHandle, id: &str, source: Option<&str>) -> Result<(), Failure> {
    let mut late = false;
    for name in of_one(bus, id, source).await? {
        late |= schedule::cancel(bus, &name).await? == Cancelled::TooLate;
    }
    match late {
        true => {
            Err(Failure::failed(format!("event '{id}' has come already")).help(command("get", format_args!("{id}"))))
        }
        false => Ok(()),
    }
}

/// The entries of one event: an event with a named id may wait more than once.
async fn of_one(bus: &BusHandle, id: &str, source: Option<&str>) -> Result<Vec<EventName>, Failure> {
    let found = waiting(bus, id, source).await?;
    let several = found.iter().any(|name| name.identity() != found[0].identity());
    match found.len() {
        0 => {
            let failure = Failure::failed(format!("no event '{id}' waits"));
            Err(match id.split_once('@') {
                // As a schedule's times are shown, which are no events before they come.
                Some((name, time)) if time.parse::<jiff::Timestamp>().is_ok() => {
                    failure.help(format!("'{name}' is a schedule: its times are changed in the config"))
                }
                _ => failure.help(command("ls", "--scheduled")),
            })
        }
        more if several => {
            let what = format!("'{id}' may mean {more} events that wait");
            Err(Failure::failed(what).help([
                text("give more of it, its --source, or its id as evbus makes it: "),
                command("ls", "--scheduled"),
            ]))
        }
        _ => Ok(found),
    }
}

/// The waiting events whose generated ids begin with `id`; if there are none, those whose emitter
/// gave them this id. With `source`, only the event with this named id.
pub(super) async fn waiting(bus: &BusHandle, id: &str, source: Option<&str>) -> Result<Vec<EventName>, Failure> {
    let store = &*bus.store;
    let (all, _) = schedule::entries(store, usize::MAX, |_| true).await?;
    if let Some(source) = source {
        let identity = Identity::named(source, id).to_string();
        return Ok(all.into_iter().filter(|name| name.identity() == identity).collect());
    }
    let found: Vec<EventName> = all.iter().filter(|name| id_of(name).starts_with(id)).cloned().collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let mut named = Vec::new();
    for name in all {
        let Some(object) = store.get(&keys::scheduled(&name)).await? else { continue };
        if Event::parse(&object.bytes, usize::MAX).is_ok_and(|event| event.id() == id) {
            named.push(name);
        }
    }
    Ok(named)
}
