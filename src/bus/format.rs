//! The format of a bus, a number that `bus.json` and the frontier name; and how its documents are
//! written.

use serde::Serialize;

use crate::store::{ErrorDetail, ErrorKind, StoreError, StoreResult};

/// The format of new buses, and the newest that this evbus reads.
pub const FORMAT: u32 = 2;

/// The first format in which events may lie in segments.
pub(super) const FORMAT_WITH_SEGMENTS: u32 = 2;

/// Refuses a format that this evbus does not know.
pub(super) fn refuse_newer(format: u32, bus: &str) -> StoreResult<()> {
    if format <= FORMAT {
        return Ok(());
    }
    let what = format!("{bus} has format {format}, newer than this evbus reads ({FORMAT})");
    Err(StoreError::new(ErrorKind::Unfit, what).with_detail(ErrorDetail::NewerFormat))
}

/// A document of the bus: one line of JSON. It cannot fail for what is given: plain structs with
/// string keys.
pub(crate) fn to_json_line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}
