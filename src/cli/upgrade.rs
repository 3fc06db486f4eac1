//! `evbus upgrade`: brings a bus to the newest format.

use super::exit::Code;
use super::failure::Failure;
use super::output::Out;
use super::session::{Needs, Session, block_on};
use crate::bus::FORMAT;
use crate::store::dir::Execution;

/// Bring a bus to the newest format
///
/// Buses made by this evbus have it. On a bus of an older one, bulk emits put an object for each
/// event until it is upgraded. Upgrade evbus on all machines first: an older evbus refuses to work
/// on an upgraded bus, and says so. There is no way back.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evbus upgrade
  evbus --bus s3://acme-events/prod upgrade")]
pub(super) struct UpgradeArgs {}

pub(super) fn run(UpgradeArgs {}: UpgradeArgs, session: Session) -> Result<Code, Failure> {
    block_on(Needs::Everything, async {
        let mut opened = session.open(Execution::Inline).await?;
        let had = opened.bus.upgrade().await?;
        let mut out = Out::new();
        let address = &opened.address.display;
        out.line(&match had {
            FORMAT => format!("the bus {address} has format {FORMAT} already"),
            _ => format!("upgraded the bus {address} from format {had} to {FORMAT}"),
        })?;
        out.flush()?;
        Ok(Code::Done)
    })
}
