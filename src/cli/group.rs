//! `evbus group`: lists, creates, changes, pauses, resets and removes groups.

use super::exit::Code;
use super::failure::Failure;
use super::session::{Needs, Session, block_on};
use crate::store::dir::Execution;

mod consent;
mod create;
mod find;
mod list;
mod remove;
mod reset;
mod set;

pub(super) use consent::agreed;
pub(super) use find::{all, registered, standing};

/// List, create, change, pause, reset and remove groups
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus group ls
  evbus group create mail -t 'order.*' --not 'order.test' --from earliest
  evbus group pause mail --why 'db restore'
  evbus group reset mail --to 2026-11-20")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    #[command(alias = "list")]
    Ls(list::Args),
    Create(create::Args),
    Set(set::Args),
    Pause(set::PauseArgs),
    Resume(set::ResumeArgs),
    Reset(reset::Args),
    Rm(remove::Args),
}

pub(super) fn run(args: Args, session: Session) -> Result<Code, Failure> {
    block_on(Needs::Everything, async {
        let opened = session.open(Execution::Inline).await?;
        match args.verb {
            Verb::Ls(args) => list::run(&args, &session, &opened).await,
            Verb::Create(args) => create::run(&args, &session, &opened).await,
            Verb::Set(args) => set::run(&args, &opened).await,
            Verb::Pause(args) => set::pause(&args, &opened).await,
            Verb::Resume(args) => set::resume(&args, &opened).await,
            Verb::Reset(args) => reset::run(&args, &session, &opened).await,
            Verb::Rm(args) => remove::run(&args, &opened).await,
        }
    })
}
