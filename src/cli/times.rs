//! Times, durations and sizes as they are typed and shown. The config file knows the same forms, so the reading is
//! done in [`crate::config`]; the verbs find it all here.

pub use crate::config::instant::{TimeError, clock_text, parse_coming, parse_past, parse_time_any};
pub use crate::config::units::{UnitError, format_duration, parse_duration, parse_range, parse_size};
