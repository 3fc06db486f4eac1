//! Times, durations and sizes on the command line. The config file has the same forms, so
//! [`crate::config`] parses them; this module names them for the commands.

pub use crate::config::instant::{TimeError, clock_text, parse_coming, parse_past, parse_time_any};
pub use crate::config::units::{UnitError, format_duration, parse_duration, parse_range, parse_size};
