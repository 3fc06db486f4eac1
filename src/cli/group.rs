//! `evbus group`: lists, creates, changes, pauses, resets and removes groups.

use super::exit::Code;
use super::failure::Failure;
use super::session::{Needs, Session, block_on};
use crate::store::dir::Execution;

mod confirm;
mod create;
mod find;
mod list;
mod remove;
mod reset;
mod set;

pub(super) use confirm::confirmed;
pub(super) use find::{all, registered, status, unknown};

/// List, create, change, pause, reset and remove groups
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus group ls
  evbus group create mail -t 'order.*' --not 'order.test' --from earliest
  evbus group pause mail --why 'db restore'
  evbus group reset mail --to 2026-11-20")]
pub(super) struct GroupArgs {
    #[command(subcommand)]
    verb: GroupVerb,
}

#[derive(Debug, clap::Subcommand)]
enum GroupVerb {
    #[command(alias = "list")]
    Ls(list::GroupListArgs),
    Create(create::GroupCreateArgs),
    Set(set::GroupSetArgs),
    Pause(set::GroupPauseArgs),
    Resume(set::GroupResumeArgs),
    Reset(reset::GroupResetArgs),
    Rm(remove::GroupRemoveArgs),
}

pub(super) fn run(args: GroupArgs, session: Session) -> Result<Code, Failure> {
    block_on(Needs::Everything, async {
        let opened = session.open(Execution::Inline).await?;
        match args.verb {
            GroupVerb::Ls(args) => list::run(&args, &session, &opened).await,
            GroupVerb::Create(args) => create::run(&args, &session, &opened).await,
            GroupVerb::Set(args) => set::run(&args, &opened).await,
            GroupVerb::Pause(args) => set::pause(&args, &opened).await,
            GroupVerb::Resume(args) => set::resume(&args, &opened).await,
            GroupVerb::Reset(args) => reset::run(&args, &session, &opened).await,
            GroupVerb::Rm(args) => remove::run(&args, &opened).await,
        }
    })
}
