//! Documents that differ from one that was read in their ids, their times and their data alone, as
//! the lines of a bulk emit do: told by comparing bytes.

use std::ops::Range;

use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use super::read::EventView;
use super::rules;

/// The bytes that the documents of such events share. In between stand the id, the time and the data.
#[derive(Debug)]
pub struct Siblings<'a> {
    before_id: &'a [u8],
    before_time: &'a [u8],
    before_data: &'a [u8],
    after_data: &'a [u8],
}

/// Documents of one likeness differ in their ids, their times and their data alone: a hash of what
/// they share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Likeness([u8; 32]);

impl<'a> Siblings<'a> {
    /// Those of an event that was read from this document; none if its id, its time and its JSON data
    /// do not all stand there, in this order and without escapes.
    pub(crate) fn of(document: &'a [u8], event: &EventView<'a>) -> Option<Self> {
        let (id, time, data) = (event.borrowed_id()?, event.borrowed_time()?, event.json_data()?);
        let (id, time, data) = (place(document, id)?, place(document, time)?, place(document, data)?);
        if id.end > time.start || time.end > data.start {
            return None;
        }
        Some(Self {
            before_id: &document[..id.start],
            before_time: &document[id.end..time.start],
            before_data: &document[time.end..data.start],
            after_data: &document[data.end..],
        })
    }

    /// That of every document that is an event like these.
    pub fn likeness(&self) -> Likeness {
        let mut hash = Sha256::new();
        for part in [self.before_id, self.before_time, self.before_data, self.after_data] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Likeness(hash.finalize().into())
    }

    /// The id in a document that is an event like these: all else but its time and its data is the
    /// same. None if it is not, or not as far as can be told so.
    pub fn id<'b>(&self, document: &'b [u8]) -> Option<&'b str> {
        let (id, time, data) = self.parts(document)?;
        let good = rules::is_id(id) && rules::is_time(time) && serde_json::from_str::<IgnoredAny>(data).is_ok();
        good.then_some(id)
    }

    /// Whether a document that is known to be an event is like these.
    pub fn include(&self, event: &[u8]) -> bool {
        self.parts(event).is_some_and(|(_, _, data)| serde_json::from_str::<IgnoredAny>(data).is_ok())
    }

    /// The id, the time and the data of a document that has all else in common with these.
    fn parts<'b>(&self, document: &'b [u8]) -> Option<(&'b str, &'b str, &'b str)> {
        let rest = document.strip_prefix(self.before_id)?;
        let (id, rest) = plain(rest)?;
        let (time, rest) = plain(rest.strip_prefix(self.before_time)?)?;
        let data = rest.strip_prefix(self.before_data)?.strip_suffix(self.after_data)?;
        Some((id, time, std::str::from_utf8(data).ok()?))
    }
}

/// The text up to a quote, if it has no escapes, and what follows from the quote on.
fn plain(text: &[u8]) -> Option<(&str, &[u8])> {
    let end = text.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    let (plain, rest) = text.split_at(end);
    if rest[0] != b'"' {
        return None;
    }
    std::str::from_utf8(plain).ok().map(|plain| (plain, rest))
}

/// Where a part stands in a document; none if it is not a part of it.
fn place(document: &[u8], part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(document.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= document.len()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;

    const FIRST: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-11-23T02:15:30Z","partitionkey":"k","data":{"id":"2","time":"x"}}"#;

    fn id(first: &str, document: &str) -> Option<String> {
        let event = EventView::parse(first.as_bytes(), usize::MAX).unwrap();
        Siblings::of(first.as_bytes(), &event)?.id(document.as_bytes()).map(str::to_owned)
    }

    #[test]
    fn an_event_with_another_id_time_and_data_is_told() {
        let other = FIRST.replace(r#""1""#, r#""é""#).replace(r#"{"id":"2","time":"x"}"#, "[null, 1e9]");
        assert_eq!(id(FIRST, &other).as_deref(), Some("é"));
        assert_eq!(id(FIRST, &other.replace("15:30Z", "15:31+01:00")).as_deref(), Some("é"));
    }

    #[test]
    fn what_is_no_event_or_differs_in_more_is_not() {
        let replaced = |from: &str, to: &str| id(FIRST, &FIRST.replace(from, to));
        assert!(replaced("", "").is_some());
        for (from, to) in [
            (r#""k""#, r#""l""#),
            (r#""/s""#, r#""/t""#),
            (r#""id":"1""#, r#""id":"""#),
            (r#""id":"1""#, r#""id":"a\u0001""#),
            (r#""id":"1""#, "\"id\":\"a\u{7}\""),
            ("2026-11-23T02:15:30Z", "yesterday"),
            (r#""x"}"#, r#""x"},"id":"3""#),
            (r#""x"}"#, r#""x""#),
            (r#""x"}"#, r#""x"}}"#),
            (r#""x"}}"#, r#""x"}"#),
        ] {
            assert_eq!(replaced(from, to), None, "{from} {to}");
        }
    }

    #[test]
    fn an_event_of_another_order_has_none() {
        for first in [
            FIRST.replace(r#","time":"2026-11-23T02:15:30Z""#, ""),
            FIRST.replace(r#"{"id":"2","time":"x"}"#, "1").replace(r#""data":1"#, r#""subject":"1""#),
            FIRST.replace(r#""id":"1""#, r#""id":"\u0031""#),
            r#"{"data":1,"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-11-23T02:15:30Z"}"#
                .to_owned(),
        ] {
            assert_eq!(id(&first, &first), None, "{first}");
        }
    }

    /// Members behind the data are not a part of it.
    #[test]
    fn an_event_with_members_behind_its_data_is_not_included() {
        let first = FIRST.replace(r#"{"id":"2","time":"x"}"#, "1");
        let event = EventView::parse(first.as_bytes(), usize::MAX).unwrap();
        let like = Siblings::of(first.as_bytes(), &event).unwrap();
        let other = |data: &str| first.replace(r#""data":1"#, data);
        assert!(like.include(other(r#""data":[2]"#).as_bytes()));
        let subject = other(r#""data":1,"subject":"s""#);
        assert!(Event::parse(subject.as_bytes(), usize::MAX).is_ok() && !like.include(subject.as_bytes()));
    }

    proptest! {
        /// What is told to be an event is one, with this id; all but id, time and data are the first's.
        #[test]
        fn what_is_told_is_what_a_reader_finds(at in 0..FIRST.len(), by in "[\"\\\\{}\\[\\]:,0-9a-z \u{7}é]{0,3}", cut in 0..4_usize) {
            let end = (at + cut).min(FIRST.len());
            let changed = format!("{}{by}{}", &FIRST[..at], &FIRST[end..]);
            if let Some(id) = id(FIRST, &changed) {
                let (first, event) = (Event::parse(FIRST.as_bytes(), 9_999).unwrap(), Event::parse(changed.as_bytes(), 9_999).unwrap());
                prop_assert_eq!(event.id(), id);
                prop_assert_eq!(
                    (event.source(), event.type_(), event.subject(), event.extensions()),
                    (first.source(), first.type_(), first.subject(), first.extensions())
                );
            }
        }
    }
}
