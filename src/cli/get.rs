//! `evbus get`: one event, exactly as it is stored, and on a terminal how each group stands to it.

use super::exit::Code;
use super::failure::Failure;
use super::output::{self, Out};
use super::session::{Needs, Session, block_on};
use crate::event::Event;
use crate::store::dir::Execution;

mod lookup;
mod standing;

/// So many matches of a short prefix are named.
const NAMED: usize = 5;

/// Print one event exactly as it is stored
///
/// On a terminal also says, on stderr, what became of it in every group.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus get 20261123T021530-7kq3f9x2m7qa5w
  evbus get 20261123T0215 | jq .data
  evbus get invoice-42 --source //shop")]
pub(super) struct Args {
    /// The event's id, or the beginning of it
    #[arg(value_name = "ID")]
    id: String,
    /// The event's source, for an id that its emitter made up
    #[arg(long, value_name = "URI")]
    source: Option<String>,
}

pub(super) fn run(args: Args, session: Session) -> Result<Code, Failure> {
    block_on(Needs::Everything, async {
        let opened = session.open(Execution::Inline).await?;
        let place = opened.place();
        let names = lookup::find(place, &args.id, args.source.as_deref()).await?;
        let Some((name, rest)) = names.split_first() else {
            return Err(Failure::failed(format!("no event '{}' on {}", args.id, opened.address)).help(
                match args.source {
                    Some(_) => "evbus ls lists what there is",
                    None => "evbus ls lists what there is; an id that its emitter made up may need its --source",
                },
            ));
        };
        if !rest.is_empty() {
            return Err(ambiguous(place, &args.id, &names).await?);
        }
        let Some(object) = place.store.get(&name.key()).await? else {
            return Err(Failure::failed(format!("event '{}' was pruned just now", args.id)));
        };
        let mut out = Out::new();
        out.bytes(&object.bytes)?;
        if !object.bytes.ends_with(b"\n") && output::on_terminal() {
            out.text("\n")?;
        }
        if let Err(error) = Event::parse(&object.bytes, opened.bus.max_event_bytes()) {
            output::warn(&format!("{} {error}", name.key()));
        }
        if output::on_terminal() && output::notes_on_terminal() {
            for line in standing::lines(place, name, &session).await? {
                output::note(&line);
            }
        }
        Ok(Code::Done)
    })
}

/// The error that names the events a prefix could mean.
async fn ambiguous(place: &crate::bus::Place, id: &str, names: &[crate::event::EventName]) -> Result<Failure, Failure> {
    let mut ids = Vec::new();
    for name in names.iter().take(NAMED) {
        ids.push(lookup::id_at(place, name).await?);
    }
    let more = if names.len() > NAMED { ", …" } else { "" };
    Ok(Failure::failed(format!("'{id}' is the beginning of several ids: {}{more}", ids.join(", ")))
        .help("give more of it"))
}
