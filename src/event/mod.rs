//! What an event is: its document, its name on the store, its type patterns. Pure: no I/O, no clock, no randomness.

mod condition;
mod document;
mod identity;
pub mod media_type;
mod name;
mod pattern;
mod segment;
mod time;

pub use condition::{Condition, ConditionError, Filter, FilterResult, Unanswered};
pub(crate) use document::EventView;
pub use document::{
    CORE_ATTRIBUTES, Data, DataLine, DataLines, Event, EventBuilder, EventError, EventTemplate, Likeness, Siblings,
    check_size, one_line,
};
pub use identity::{HashSlot, Identity, dedup_hash, event_id, hex, parse_event_id, sha256_of_much};
pub use name::{
    EVENTS, EventName, NameError, NameParts, id_of, minute_folder, names_between, parse_key, parse_parts, slug_of,
};
pub use pattern::{NameMatch, PatternError, TypeFilter, TypePattern, odd_type};
pub use segment::{
    ListedKey, SEGMENT_MAX_BYTES, SEGMENT_MAX_EVENTS, SEGMENT_SPAN_MICROS, SegmentName, SegmentNonce, SegmentParts,
    parse_segment_key, segment_slug,
};
pub use time::{EventTime, EventTimeError};
