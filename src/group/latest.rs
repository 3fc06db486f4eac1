//! Only the latest: of events of one key that wait, a group runs the last one alone.
//!
//! The others are done once it has run to success, or is a dead letter: until then it may still turn out to be none that
//! the group wants, or to be gone. While one of a key runs, the next waits.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::event::{Condition, ConditionError, Event};

/// What events have in common of which the last counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LatestKey {
    /// The subject.
    Subject,
    /// The ordering key.
    Key,
    /// The type.
    Type,
    /// The answer of an expression in CEL.
    Expression(Condition),
}

/// What a group that runs only the latest goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// What events have in common.
    pub by: LatestKey,
    /// How long no later one may have come before the last is run.
    pub settle: Duration,
}

impl LatestKey {
    /// What is written: `subject`, `key`, `type`, or an expression.
    ///
    /// # Errors
    /// Where it is no expression.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        Ok(match text {
            "subject" => Self::Subject,
            "key" => Self::Key,
            "type" => Self::Type,
            expression => Self::Expression(Condition::parse(expression)?),
        })
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Subject => "subject",
            Self::Key => "key",
            Self::Type => "type",
            Self::Expression(expression) => expression.as_str(),
        }
    }

    /// Whether events of one key lie in one shard, however many there are.
    pub fn is_of_one_shard(&self) -> bool {
        *self == Self::Key
    }

    /// Whether [`LatestKey::of`] may take so long that others would wait for it.
    pub fn is_slow(&self, event: &Event) -> bool {
        matches!(self, Self::Expression(expression) if expression.is_slow(event))
    }

    /// The hash of an event's key. None: it has none, and is run for itself.
    pub fn of(&self, event: &Event) -> Option<u64> {
        let text = match self {
            Self::Subject => event.subject().map(str::to_owned),
            Self::Key => event.ordering_key().map(str::to_owned),
            Self::Type => Some(event.type_().to_owned()),
            Self::Expression(expression) => expression.text(event),
        };
        let mut hasher = DefaultHasher::new();
        text?.hash(&mut hasher);
        Some(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Data;

    #[test]
    fn an_event_without_the_key_is_run_for_itself() {
        let event = |data: &str| {
            let event = Event::new("1", "/s", "t").data(Data::json(data).unwrap());
            event.subject("x").build().unwrap()
        };
        let by = |text: &str| LatestKey::parse(text).unwrap();
        let one = event(r#"{"a":1,"b":{"c":"d"},"e":null,"f":[1,"x"]}"#);
        let of = |text: &str| by(text).of(&one);
        for text in ["subject", "key", "type", "data.a", "data.b.c", "data.a > 0", "data.f", "data.b.c + subject"] {
            assert!(of(text).is_some(), "{text}");
        }
        for text in ["data.z", "data.e", "data.b", "data.a + data.b.c"] {
            assert_eq!(of(text), None, "{text}");
        }
        let other = event(r#"{"a":2}"#);
        assert_eq!(of("subject"), by("subject").of(&other));
        assert_ne!(of("data.a"), by("data.a").of(&other));
        assert_eq!(by("subject").of(&Event::new("1", "/s", "t").build().unwrap()), None);
        assert!(LatestKey::parse("data.").is_err());
    }
}
