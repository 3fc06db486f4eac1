//! The bus itself: where things lie, emit, the frontier, reading.

pub mod chain;
mod decision;
pub mod emit;
mod format;
pub mod frontier;
pub mod group_name;
pub mod horizon;
pub mod keys;
pub mod look;
mod position;
pub mod read;
pub mod schedule;
mod segment;
mod settings;

use std::rc::Rc;

pub use format::FORMAT;
pub(crate) use format::to_json_line;
pub use position::Position;
pub use segment::SegmentCache;
pub use settings::{BusSettings, MAX_DEPTH, MAX_EVENT_BYTES, OpenBus, Sharing};

use emit::EmitTimes;

use crate::clock::Clock;
use crate::store::Store;

/// A store and a clock, as everything that works on a bus needs them.
#[derive(Clone)]
pub struct BusHandle {
    /// Where the bus is kept.
    pub store: Rc<dyn Store>,
    /// This process's time and randomness.
    pub clock: Rc<dyn Clock>,
    /// The segments that this process has read last.
    pub segments: Rc<SegmentCache>,
    /// The times that this process has given to events.
    pub times: Rc<EmitTimes>,
}

impl BusHandle {
    /// A handle that has read nothing yet.
    pub fn new(store: Rc<dyn Store>, clock: Rc<dyn Clock>) -> Self {
        Self { store, clock, segments: Rc::default(), times: Rc::default() }
    }
}
