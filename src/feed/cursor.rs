//! Where a reader stands, as a text that a client keeps.

use std::fmt;

use crate::bus::Position;
use crate::event::{EventName, EventTime};

/// What makes a name of a stem: the last one that an event with this stem can have.
const LAST_SLUG: &str = "-~.json";

/// Where a reader stands. Everything that was acknowledged at or before the position has been given out;
/// behind it perhaps some, which the place in the log tells, for as long as that log is there.
///
/// As a text: the time, or the time, hash slot and identity of an event, then perhaps `_`, the log and
/// the number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Behind this nothing is certain to have been given out.
    pub position: Position,
    /// Where it goes on in a log.
    pub place: Option<LogPlace>,
}

/// A place in a log in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPlace {
    /// Which log.
    pub instance: u32,
    /// The number of the next event.
    pub number: u64,
}

impl Cursor {
    /// A cursor without a place in a log.
    pub fn at(position: Position) -> Self {
        Self { position, place: None }
    }

    /// Reads what [`fmt::Display`] writes; none of any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('_');
        let position = parts.next()?;
        let position = match position.len() {
            EventTime::LEN => Position::Time(EventTime::parse(position)?),
            EventName::STEM_LEN => Position::Name(EventName::parse(&format!("{position}{LAST_SLUG}"))?),
            _ => return None,
        };
        let place = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some(instance), Some(number), None)
                if instance.len() == 8 && !instance.starts_with('+') && !number.starts_with('+') =>
            {
                let instance = u32::from_str_radix(instance, 16).ok()?;
                Some(LogPlace { instance, number: number.parse().ok()? })
            }
            _ => return None,
        };
        Some(Self { position, place })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.position {
            Position::Time(time) => time.fmt(f)?,
            Position::Name(name) => f.write_str(name.stem())?,
        }
        match self.place {
            Some(LogPlace { instance, number }) => write!(f, "_{instance:08x}_{number}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{HashSlot, Identity};

    #[test]
    fn a_cursor_is_a_text() {
        let time = EventTime::from_micros(1_800_000_000_000_000);
        let name = EventName::new(time, HashSlot::of("k"), &Identity::random(1, 2), "order.created");
        for position in [Position::Time(time), Position::START, Position::Name(name.clone())] {
            for place in [None, Some(LogPlace { instance: 7, number: u64::MAX })] {
                let cursor = Cursor { position: position.clone(), place };
                let read = Cursor::parse(&cursor.to_string()).unwrap();
                assert_eq!((read.to_string(), read.place), (cursor.to_string(), place));
            }
        }
        // The type is not in the text: whatever it is, the event is covered.
        let read = Cursor::parse(&Cursor::at(Position::Name(name.clone())).to_string()).unwrap();
        assert!(read.position.covers(&name));
        let next = EventName::new(time.next(), HashSlot::of(""), &Identity::random(0, 0), "a");
        assert!(!read.position.covers(&next));
        for text in [
            "",
            "_",
            "20270115T080000.000000Z_",
            "20270115T080000.000000Z_1_2",
            "now",
            "20270115T080000.000000Z_00000007_",
        ] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
