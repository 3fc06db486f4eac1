//! The bus itself: where things lie, emit, the frontier, reading.

mod decision;
pub mod emit;
pub mod frontier;
pub mod group_name;
pub mod keys;
pub mod read;
pub mod schedule;
mod settings;

use std::rc::Rc;

pub(crate) use settings::to_json_line;
pub use settings::{BusSettings, FORMAT, MAX_EVENT_BYTES, OpenBus, Sharing};

use crate::clock::Clock;
use crate::store::Store;

/// A store and a clock, as everything that works on a bus needs them.
#[derive(Clone)]
pub struct BusHandle {
    /// Where the bus is kept.
    pub store: Rc<dyn Store>,
    /// This process's time and randomness.
    pub clock: Rc<dyn Clock>,
}
