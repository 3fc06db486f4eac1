//! handler stub
use std::{path::PathBuf, sync::Arc, time::Duration};
/// x
pub enum EventFile { /// x
 At(PathBuf), /// x
 Make(String) }
/// x
pub struct Job { /// x
pub event: Arc<[u8]>, /// x
pub file: EventFile, /// x
pub vars: Vec<(&'static str, String)> }
/// x
#[derive(Debug,Clone,PartialEq,Eq)]
pub enum Outcome { /// x
Exit(i32), /// x
Signal(i32), /// x
TimedOut, /// x
Stopped, /// x
NotStarted(String) }
/// x
#[derive(Debug,Clone)]
pub struct Report { /// x
pub outcome: Outcome, /// x
pub stderr_tail: String, /// x
pub took: Duration }
/// x
pub trait Handler { /// x
fn run(&self, job: Job) -> crate::clock::Fut<'_, Report>; /// x
fn stop(&self); /// x
fn check(&self) -> Result<(), String>; }
