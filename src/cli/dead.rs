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

An ID is the event's id, the letter's name, or the start of one.")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    #[command(alias = "list")]
    Ls(show::LsArgs),
    Show(show::ShowArgs),
    Redrive(act::RedriveArgs),
    Rm(act::RmArgs),
}

pub(super) fn run(args: Args, session: Session) -> Result<Code, Failure> {
    block_on(Needs::Everything, async {
        let opened = session.open(Execution::Inline).await?;
        match args.verb {
            Verb::Ls(args) => show::list(&args, &session, &opened).await,
            Verb::Show(args) => show::show(&args, &session, &opened).await,
            Verb::Redrive(args) => act::redrive(&args, &opened).await,
            Verb::Rm(args) => act::remove(&args, &opened).await,
        }
    })
}
