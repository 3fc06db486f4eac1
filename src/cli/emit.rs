//! `evbus emit`: writes events and prints their ids.

use std::rc::Rc;

use super::exit::Code;
use super::failure::Failure;
use super::output;
use super::session::{Needs, Session, block_on};
use super::times;
use crate::bus::emit::{AckKind, Emitter};
use crate::config::Environment;
use crate::event::{EventName, EventTime};
use crate::store::dir::{Durability, Execution};

mod acks;
mod args;
mod bulk;
mod chain;
mod data;
mod lines;
mod maker;
mod plain;
mod source;
mod target;

use acks::{Acks, taken};
pub(super) use args::EmitArgs;
use maker::Maker;
pub(super) use plain::plain;
use target::{RemoteEmitter, Sent, Target};

pub(super) fn run(mut args: EmitArgs, session: Session) -> Result<Code, Failure> {
    args.take_type_from_ndjson()?;
    let timeout = times::parse_duration(&args.timeout)?;
    let durability = if args.durability == "none" { Durability::None } else { Durability::Full };
    let mut address = session.address()?;
    address.limit_timeout(timeout);
    block_on(Needs::of(&address), async {
        let (maker, mut target) = match session.server(&address)? {
            Some(server) => {
                let emitter = RemoteEmitter::new(server, Rc::clone(&session.clock), timeout);
                let depth = chain::depth(&session.environment, None).await;
                (Maker::new(&args, &session, None, (timeout, depth))?, Target::Server(emitter))
            }
            None => {
                let opened = session.open_at(address, Execution::Inline, durability).await?;
                let (bus, most) = (opened.bus_handle(), opened.bus.settings.max_depth);
                let depth = chain::depth(&session.environment, Some(bus)).await;
                chain::refuse_long(&session.environment, (depth, args.type_.as_deref()), most, bus).await?;
                let emitter = Emitter::new(bus.clone(), timeout);
                (Maker::new(&args, &session, Some(&opened), (timeout, depth))?, Target::Bus(Box::new(emitter)))
            }
        };
        if args.dry_run {
            target = Target::Nowhere;
        }
        let code = match &args.ndjson {
            Some(source) => bulk::run(&args, source.as_deref(), &maker, &mut target).await,
            None => single(&args, &session.environment, &maker, &mut target).await,
        };
        maker.send_hints().await;
        code
    })
}

async fn single(
    args: &EmitArgs,
    environment: &Environment,
    maker: &Maker,
    target: &mut Target,
) -> Result<Code, Failure> {
    let draft = maker.single(args, environment)?;
    let sent = maker.send(target, std::slice::from_ref(&draft)).await;
    let emitted = sent.map_err(|failure| failure.context(&format!("cannot emit {}", draft.event().type_())))?;
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
fn waits(due: EventTime, sent: &Sent, environment: &Environment) -> String {
    let at = |time| times::clock_text(time, environment.now, &environment.zone());
    let until = sent.name.as_ref().map(EventName::time).filter(|time| *time > environment.now);
    match (sent.kind, until) {
        (AckKind::Duplicate, Some(until)) => {
            format!("it was emitted before, and waits until {}", at(until))
        }
        (AckKind::Duplicate, None) => "it was emitted before".to_owned(),
        _ if due > environment.now => format!("it waits until {}", at(due)),
        _ => format!("{} has passed: it came at once", at(due)),
    }
}
