//! `evbus emit`: writes events and prints their ids.

use super::exit::Code;
use super::failure::Failure;
use super::output;
use super::session::{Needs, Session, block_on};
use super::times;
use crate::bus::emit::{Ack, AckKind, Draft, Emitter};
use crate::config::Environment;
use crate::event::EventTime;
use crate::store::dir::{Durability, Execution};

mod acks;
mod args;
mod bulk;
mod data;
mod lines;
mod maker;
mod plain;
mod source;

use acks::{Acks, taken};
pub(super) use args::EmitArgs;
use maker::Maker;
pub(super) use plain::plain;

pub(super) fn run(mut args: EmitArgs, session: Session) -> Result<Code, Failure> {
    args.take_type_from_ndjson()?;
    let timeout = times::parse_duration(&args.timeout)?;
    let durability = if args.durability == "none" { Durability::None } else { Durability::Full };
    let mut address = session.address()?;
    address.limit_timeout(timeout);
    block_on(Needs::of(&address), async {
        let opened = session.open_at(address, Execution::Inline, durability).await?;
        let mut emitter = Emitter::new(opened.bus_handle().clone(), timeout);
        let maker = Maker::new(&args, &session, &opened, timeout)?;
        match &args.ndjson {
            Some(source) => bulk::run(&args, source.as_deref(), &maker, &mut emitter).await,
            None => single(&args, &session.environment, &maker, &mut emitter).await,
        }
    })
}

async fn single(
    args: &EmitArgs,
    environment: &Environment,
    maker: &Maker,
    emitter: &mut Emitter,
) -> Result<Code, Failure> {
    let draft = maker.single(args, environment)?;
    let sent = maker.send(emitter, std::slice::from_ref(&draft)).await;
    let emitted = sent.map_err(|error| cannot_emit(error, &draft))?;
    if let Some(ack) = emitted.first().filter(|ack| ack.kind == AckKind::IdTaken) {
        return match args.if_exists.as_deref() {
            Some("ok") => Ok(Code::Done),
            _ => Err(taken(&draft, ack)),
        };
    }
    let mut acks = Acks::new(args.print());
    acks.report(std::iter::once(&draft).zip(&emitted));
    acks.end()?;
    let past = |due: &EventTime| *due <= environment.now;
    if let Some(due) = maker.due.filter(|due| !args.quiet && (past(due) || output::notes_on_terminal())) {
        output::note(&waits(due, &emitted[0], environment));
    }
    Ok(Code::Done)
}

/// Says when an event given with `--at` or `--delay` comes: the day may not be the intended one.
fn waits(due: EventTime, ack: &Ack, environment: &Environment) -> String {
    let at = |time| times::clock_text(time, environment.now, &environment.zone());
    match ack.kind {
        AckKind::Duplicate if ack.name.time() > environment.now => {
            format!("it was emitted before, and waits until {}", at(ack.name.time()))
        }
        AckKind::Duplicate => "it was emitted before".to_owned(),
        _ if due > environment.now => format!("it waits until {}", at(due)),
        _ => format!("{} has passed: it came at once", at(due)),
    }
}

fn cannot_emit(error: crate::store::StoreError, draft: &Draft) -> Failure {
    Failure::from(error).context(&format!("cannot emit {}", draft.event().type_()))
}
