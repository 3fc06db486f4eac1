//! `through`: how far a shard has come. A whole event name, or a time, which means every name of that time.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::event::{EventName, EventTime, minute_folder};

/// A place in the order of all event names, after which work begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// Behind every name of this time and of all earlier ones.
    Time(EventTime),
    /// Behind this very name.
    Name(EventName),
}

impl Position {
    /// Before every event.
    pub const START: Self = Self::Time(EventTime::MIN);

    /// Its time: no later event is passed.
    pub fn time(&self) -> EventTime {
        match self {
            Self::Time(time) => *time,
            Self::Name(name) => name.time(),
        }
    }

    /// Whether an event lies at or before this position.
    pub fn covers(&self, name: &EventName) -> bool {
        match self {
            Self::Time(time) => name.time() <= *time,
            Self::Name(own) => name <= own,
        }
    }

    /// The key to list after, so that the first key listed is the first event not covered.
    pub fn list_after(&self) -> String {
        match self {
            // Behind the whole folder, so that it need not even be opened.
            Self::Time(time) if *time == time.minute_end() => {
                format!("{}~", minute_folder(*time).trim_end_matches('/'))
            }
            // '~' sorts behind the '-' that follows the time in every name.
            Self::Time(time) => format!("{}{time}~", minute_folder(*time)),
            Self::Name(name) => name.key(),
        }
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Name(this), Self::Name(that)) => this.cmp(that),
            (Self::Time(this), Self::Time(that)) => this.cmp(that),
            // A time sorts behind every name of that time.
            (Self::Time(this), Self::Name(that)) => this.cmp(&that.time()).then(Ordering::Greater),
            (Self::Name(this), Self::Time(that)) => this.time().cmp(that).then(Ordering::Less),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => time.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = EventTime::parse(&text).map(Self::Time);
        time.or_else(|| EventName::parse(&text).map(Self::Name))
            .ok_or_else(|| de::Error::custom(format!("'{text}' is neither an event name nor a time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{HashSlot, Identity};

    fn name(micros: i64) -> EventName {
        EventName::new(EventTime::from_micros(micros), HashSlot::of("k"), &Identity::random(1, 2), "t")
    }

    #[test]
    fn a_listing_after_a_position_skips_exactly_what_it_covers() {
        let minute_end = 60_000_000 - 1;
        for micros in [0, 1, 30_000_000, minute_end, minute_end + 1] {
            let position = Position::Time(EventTime::from_micros(micros));
            for other in [micros - 1, micros, micros + 1, 90_000_000] {
                let event = name(other);
                assert_eq!(position.covers(&event), event.key() <= position.list_after(), "{position} {event}");
                assert_eq!(Position::Name(name(micros)).covers(&event), event.key() <= name(micros).key());
            }
        }
    }

    #[test]
    fn at_the_end_of_a_minute_its_folder_is_behind() {
        let end = EventTime::from_micros(60_000_000 - 1);
        let after = Position::Time(end).list_after();
        assert!(minute_folder(end) < after && !after.starts_with(&minute_folder(end)), "{after}");
        assert!(minute_folder(end.next()) > after);
    }
}
