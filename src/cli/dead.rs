//! `evbus dead`: lists, shows, redrives and removes dead letters.

use super::exit::Code;
use super::failure::Failure;
use super::session::{Needs, Session, block_on};
use crate::store::dir::Execution;

mod act;
mod pick;
mod show;

/// List, show, redrive and remove dead letters
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus dead ls
  evbus dead show mail 20261123T021530-7kq3f9x2m7qa5w
  evbus dead redrive mail -t 'order.*'
  evbus dead rm mail --all
  evbus dead ls --relay shop                     # rows of an outbox that are no events

An ID is the event's id, the letter's name, or the start of one.")]
pub(super) struct DeadArgs {
    #[command(subcommand)]
    verb: DeadVerb,
}

#[derive(Debug, clap::Subcommand)]
enum DeadVerb {
    #[command(alias = "list")]
    Ls(show::DeadLsArgs),
    Show(show::DeadShowArgs),
    Redrive(act::DeadRedriveArgs),
    Rm(act::DeadRmArgs),
}

pub(super) fn run(args: DeadArgs, session: Session) -> Result<Code, Failure> {
    block_on(Needs::Everything, async {
        match &args.verb {
            DeadVerb::Ls(args) if args.relay.is_some() => return show::parked(args, &session).await,
            DeadVerb::Redrive(args) if args.relay.is_some() => return act::redrive_parked(args, &session).await,
            _ => {}
        }
        let opened = session.open(Execution::Inline).await?;
        match args.verb {
            DeadVerb::Ls(args) => show::list(&args, &session, &opened).await,
            DeadVerb::Show(args) => show::show(&args, &session, &opened).await,
            DeadVerb::Redrive(args) => act::redrive(&args, &opened).await,
            DeadVerb::Rm(args) => act::remove(&args, &opened).await,
        }
    })
}
