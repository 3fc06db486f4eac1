//! `evbus get`: prints one event exactly as stored; on a terminal, also its state in each group.

use bytes::Bytes;

use super::exit::Code;
use super::failure::Failure;
use super::output::{self, Out};
use super::session::{Needs, Opened, Session, block_on};
use super::{history, style, times};
use crate::bus::{BusHandle, keys, read};
use crate::cli::help_line::{command, text};
use crate::event::{Event, EventName};
use crate::group::definition;
use crate::store::dir::Execution;
use crate::store::{LARGEST_BYTES, system_words};

mod event_status;
mod field;
mod lookup;

/// How many matches of an ambiguous prefix an error names.
const NAMED: usize = 5;

/// Print one event exactly as stored
///
/// On a terminal, stderr also shows the event's state in every group, and its runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus get 20261123T021530-7kq3f9x2m7qa5w
  evbus get 20261123T0215 | jq .data
  evbus get invoice-42 --source //shop
  evbus get 20261123T021530-7kq3f9x2m7qa5w --field data.customer.name
  evbus get --field data.path                        # in a handler: of its own event")]
pub(super) struct GetArgs {
    /// The event's id, or the start of it (default in a handler: its own event)
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Print only this field, such as data.path or data.items.0; strings without quotes
    #[arg(long, value_name = "PATH")]
    field: Option<String>,
    /// Look up an id that the emitter chose with this source
    #[arg(long, value_name = "URI")]
    source: Option<String>,
}

pub(super) fn run(args: GetArgs, session: Session) -> Result<Code, Failure> {
    let Some(id) = &args.id else { return of_this_handler(&args, &session) };
    block_on(Needs::Everything, async {
        let opened = session.open(Execution::Inline).await?;
        let bus = opened.bus_handle();
        let names = lookup::find(bus, id, args.source.as_deref()).await?;
        if names.is_empty()
            && let [waiting] = &*super::cancel::waiting(bus, id, args.source.as_deref()).await?
            && let Some(object) = bus.store.get(&keys::scheduled(waiting)).await?
        {
            print(&object.bytes, args.field.as_deref())?;
            if output::on_terminal() {
                let due = times::clock_text(waiting.time(), session.environment.now, &session.environment.zone());
                output::note(&match waiting.time() > session.environment.now {
                    true => format!("it waits until {due}"),
                    false => format!("it was due at {due}, and comes with the next watch or drain"),
                });
            }
            return Ok(Code::Done);
        }
        let Some((name, rest)) = names.split_first() else {
            return Err(unknown(&opened, id, args.source.as_deref()));
        };
        let document = document_of(bus, id, (name, rest)).await?;
        print(&document, args.field.as_deref())?;
        if args.field.is_some() {
            return Ok(Code::Done);
        }
        let event = Event::parse(&document, opened.bus.max_event_bytes());
        if let Err(error) = &event {
            output::warn(&format!("{} {error}", name.key()));
        }
        if output::on_terminal() && output::notes_on_terminal() {
            for line in event_status::lines(bus, name, event.ok().as_ref(), &session).await? {
                output::note(&line);
            }
            let groups = definition::names(&*bus.store).await?;
            for line in history::runs_of(bus, &groups, name, &session.environment.zone()).await? {
                output::note(&line);
            }
        }
        Ok(Code::Done)
    })
}

fn unknown(opened: &Opened, id: &str, source: Option<&str>) -> Failure {
    Failure::failed(format!("no event '{id}' on {}", opened.address)).help(match source {
        Some(_) => [command("ls", ""), text(" lists what there is")],
        None => [command("ls", ""), text(" lists what there is; an id that the emitter chose may need its --source")],
    })
}

/// The document of the first of the events that an id has selected, which must be the only one.
async fn document_of(bus: &BusHandle, id: &str, (name, rest): (&EventName, &[EventName])) -> Result<Bytes, Failure> {
    if !rest.is_empty() {
        let names: Vec<EventName> = std::iter::once(name).chain(rest).cloned().collect();
        return Err(ambiguous(bus, id, &names).await?);
    }
    let document = read::document(bus, name, LARGEST_BYTES).await?;
    document.ok_or_else(|| Failure::failed(format!("event '{id}' was pruned just now")))
}

/// The event with an id, or the start of one, and its document.
pub(super) async fn one(opened: &Opened, id: &str) -> Result<(EventName, Bytes), Failure> {
    let bus = opened.bus_handle();
    let names = lookup::find(bus, id, None).await?;
    let (name, rest) = names.split_first().ok_or_else(|| unknown(opened, id, None))?;
    let document = document_of(bus, id, (name, rest)).await?;
    Ok((name.clone(), document))
}

/// Prints the event for which this process runs as a handler, from the file its worker made.
fn of_this_handler(args: &GetArgs, session: &Session) -> Result<Code, Failure> {
    let Some(file) = session.environment.var("EVBUS_FILE") else {
        return Err(
            Failure::usage("which event? give its id (in a handler, EVBUS_FILE names its own)").help(command("ls", ""))
        );
    };
    let bytes = std::fs::read(file).map_err(|error| {
        Failure::failed(format!("cannot read {}: {}", file.to_string_lossy(), system_words(&error)))
    })?;
    print(&bytes, args.field.as_deref())?;
    Ok(Code::Done)
}

/// Prints a document as stored, or one field of it.
fn print(document: &[u8], field: Option<&str>) -> Result<(), Failure> {
    let mut out = Out::new();
    match field {
        Some(path) => {
            let value = field::at(&String::from_utf8_lossy(document), path)
                .map_err(|why| Failure::failed(format!("the event has no field '{path}'{why}")))?;
            let shown = if output::on_terminal() { style::escape(&value) } else { value.as_str().into() };
            out.line(&shown)?;
        }
        None => {
            out.bytes(document)?;
            if !document.ends_with(b"\n") && output::on_terminal() {
                out.text("\n")?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// The error that names the events a prefix may mean.
async fn ambiguous(
    bus: &crate::bus::BusHandle,
    id: &str,
    names: &[crate::event::EventName],
) -> Result<Failure, Failure> {
    let mut ids = Vec::new();
    for name in names.iter().take(NAMED) {
        ids.push(lookup::id_at(bus, name).await?);
    }
    let more = if names.len() > NAMED { ", …" } else { "" };
    Ok(Failure::failed(format!("'{id}' is the beginning of several ids: {}{more}", ids.join(", ")))
        .help("give more of it"))
}
