//! stub
use super::{exit::Code, failure::Failure};
/// stub
#[derive(Debug, clap::Args)]
pub(super) struct Args {}
pub(super) fn run(_: Args) -> Result<Code, Failure> { Ok(Code::Done) }
