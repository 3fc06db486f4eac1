//! What an event is: its document, its name on the store, its type patterns. Pure: no I/O, no clock, no randomness.

mod condition;
mod document;
mod identity;
mod name;
mod pattern;
mod time;

pub use condition::{Condition, ConditionError, Filter, FilterResult, Unanswered};
pub use document::{CORE_ATTRIBUTES, Data, Event, EventBuilder, EventError, check_size, one_line};
pub use identity::{HashSlot, Identity, dedup_hash, event_id, parse_event_id};
pub use name::{EVENTS, EventName, NameError, NameParts, minute_folder, parse_key, parse_parts, slug_of};
pub use pattern::{NameMatch, PatternError, TypeFilter, TypePattern};
pub use time::{EventTime, EventTimeError};
