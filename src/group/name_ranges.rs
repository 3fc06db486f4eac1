//! Names in a marker, shortened: a name, and how many follow it in its segment.
//!
//! `<name>+<n>` stands for a name and the `n` that [`EventName::next_in_segment`] gives one after
//! the other, so that a batch of a thousand events takes one entry, and the exact names can be read
//! back from the text alone.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::event::{EventName, SEGMENT_MAX_EVENTS};

/// What the text of an entry stands for: the first name, and how many follow.
fn parse(text: &str) -> Result<(EventName, u16), String> {
    let (name, following) = match text.split_once('+') {
        None => (text, 0),
        Some((name, following)) => {
            let following = following.parse().ok().filter(|number| (1..SEGMENT_MAX_EVENTS).contains(number));
            (name, following.ok_or_else(|| format!("not a number of names that follow: {text}"))?)
        }
    };
    let name = EventName::parse(name).ok_or_else(|| format!("not an event's name: {name}"))?;
    Ok((name, following))
}

/// The most events that a shard has pending.
pub(super) const MOST_PENDING: usize = 1_000_000;

/// The most names that the entries of one set may stand for: more than a shard has pending or done.
const MOST_NAMES: usize = 2 * MOST_PENDING;

/// All names of an entry, ascending; `before`: how many the entries before it stand for.
fn expand(text: &str, before: usize) -> Result<Vec<EventName>, String> {
    let (first, following) = parse(text)?;
    if before + usize::from(following) >= MOST_NAMES {
        return Err(format!("more than {MOST_NAMES} names: {text}"));
    }
    let mut names = vec![first];
    for _ in 0..following {
        let next = names.last().and_then(EventName::next_in_segment);
        names.push(next.ok_or_else(|| format!("fewer names can follow: {text}"))?);
    }
    Ok(names)
}

/// The entries for names in ascending order. `same`: whether two names may share one; `is_plain`: whether
/// the hash slot of a name is that of its identity.
fn shorten<'a, T: Copy>(
    names: impl Iterator<Item = (&'a EventName, T)>,
    same: impl Fn(T, T) -> bool,
    is_plain: impl Fn(&EventName, T) -> bool,
) -> Vec<(EntryName<'a>, T)> {
    let mut entries: Vec<(EntryName<'a>, T)> = Vec::new();
    let mut last: Option<(&EventName, T)> = None;
    for (name, value) in names {
        let follows =
            last.is_some_and(|(last, of)| last.may_be_followed_by(name) && is_plain(last, of) && is_plain(name, value));
        last = Some((name, value));
        match entries.last_mut() {
            Some((entry, of)) if follows && same(*of, value) => entry.following += 1,
            _ => entries.push((EntryName { first: name, following: 0 }, value)),
        }
    }
    entries
}

/// An entry's text.
struct EntryName<'a> {
    first: &'a EventName,
    following: u16,
}

impl serde::Serialize for EntryName<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.following {
            0 => serializer.serialize_str(self.first.as_str()),
            following => serializer.collect_str(&format_args!("{}+{following}", self.first)),
        }
    }
}

/// Whether a name's hash slot is that of its identity, once that was asked.
type Plain = Cell<Option<bool>>;

/// A set of names. It is written again and again, and remembers what that asks of each name.
#[derive(Debug, Clone, Default)]
pub struct NameSet(BTreeMap<EventName, Plain>);

impl NameSet {
    /// Whether it has a name.
    pub fn contains(&self, name: &EventName) -> bool {
        self.0.contains_key(name)
    }

    /// How many names it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first name.
    pub fn first(&self) -> Option<&EventName> {
        self.0.first_key_value().map(|(name, _)| name)
    }

    /// The names, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &EventName> {
        self.0.keys()
    }

    /// How many names lie within these texts.
    pub fn count_within(&self, within: (Bound<&str>, Bound<&str>)) -> usize {
        self.0.range::<str, _>(within).count()
    }

    /// Adds a name.
    pub fn insert(&mut self, name: EventName) {
        self.0.entry(name).or_default();
    }

    pub(super) fn remove(&mut self, name: &EventName) {
        self.0.remove(name);
    }

    pub(super) fn pop_first(&mut self) {
        self.0.pop_first();
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl PartialEq for NameSet {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for NameSet {}

impl IntoIterator for NameSet {
    type Item = EventName;
    type IntoIter = std::collections::btree_map::IntoKeys<EventName, Plain>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_keys()
    }
}

impl FromIterator<EventName> for NameSet {
    fn from_iter<I: IntoIterator<Item = EventName>>(names: I) -> Self {
        Self(names.into_iter().map(|name| (name, Plain::default())).collect())
    }
}

impl Serialize for NameSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_plain = |name: &EventName, plain: &Plain| {
            let is_plain = plain.get().unwrap_or_else(|| name.has_slot_of_identity());
            plain.set(Some(is_plain));
            is_plain
        };
        let entries = shorten(self.0.iter(), |_, _| true, is_plain);
        serializer.collect_seq(entries.into_iter().map(|(entry, _)| entry))
    }
}

impl<'de> Deserialize<'de> for NameSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut names = Vec::new();
        for entry in Vec::<String>::deserialize(deserializer)? {
            let expanded = expand(&entry, names.len()).map_err(de::Error::custom)?;
            names.extend(expanded);
        }
        Ok(names.into_iter().collect())
    }
}

/// A map by name; names share an entry if they have the same value.
pub(super) mod map {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use super::{BTreeMap, EventName, expand, shorten};

    pub fn serialize<T, S>(map: &BTreeMap<EventName, T>, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Serialize + PartialEq,
        S: Serializer,
    {
        let is_plain = |name: &EventName, _: &T| name.has_slot_of_identity();
        serializer.collect_map(shorten(map.iter(), |this, that| this == that, is_plain))
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<BTreeMap<EventName, T>, D::Error>
    where
        T: Deserialize<'de> + Clone,
        D: Deserializer<'de>,
    {
        let mut map = BTreeMap::new();
        for (entry, value) in BTreeMap::<String, T>::deserialize(deserializer)? {
            let expanded = expand(&entry, map.len()).map_err(de::Error::custom)?;
            map.extend(expanded.into_iter().map(|name| (name, value.clone())));
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{EventTime, HashSlot, SegmentNonce};

    /// The name of a line of a segment that begins at second `of`.
    fn name(of: i64, line: u16, key: Option<&str>) -> EventName {
        let identity = SegmentNonce::random(u64::try_from(of).unwrap_or(0), 7).identity(line);
        let slot = HashSlot::of(key.unwrap_or(identity.as_str()));
        EventName::new(EventTime::from_micros(of * 1_000_000 + i64::from(line)), slot, &identity, "order.paid")
    }

    fn texts(names: &NameSet) -> Vec<String> {
        let written = serde_json::to_value(names).unwrap();
        assert_eq!(serde_json::to_value(names).unwrap(), written, "what it remembers makes no difference");
        serde_json::from_value(written).unwrap()
    }

    fn read(texts: &[&str]) -> Result<NameSet, serde_json::Error> {
        serde_json::from_value(serde_json::Value::from(texts.to_vec()))
    }

    #[test]
    fn a_whole_segment_is_one_entry() {
        let names: NameSet = (0..1_000).map(|line| name(1, line, None)).collect();
        assert_eq!(texts(&names), [format!("{}+999", name(1, 0, None))]);
        assert_eq!(read(&[&format!("{}+999", name(1, 0, None))]).unwrap(), names);
    }

    #[test]
    fn names_with_ordering_keys_stand_alone() {
        let names: NameSet = (0..3).map(|line| name(1, line, Some("k"))).collect();
        assert_eq!(texts(&names).len(), 3);
    }

    #[test]
    fn values_that_differ_part_an_entry() {
        let map: BTreeMap<EventName, u8> = (0..6).map(|line| (name(1, line, None), u8::from(line >= 4))).collect();
        let json = map::serialize(&map, serde_json::value::Serializer).unwrap();
        assert_eq!(json.as_object().unwrap().len(), 2, "{json}");
        assert_eq!(map::deserialize::<u8, _>(json).unwrap(), map);
    }

    #[test]
    fn refuses_more_names_than_a_shard_can_have() {
        let entry = format!("{}+999", name(1, 0, None));
        assert_eq!(expand(&entry, MOST_PENDING).unwrap().len(), 1_000);
        assert!(expand(&entry, MOST_NAMES - 999).is_err());
    }

    #[test]
    fn refuses_what_stands_for_no_names() {
        let first = name(1, 998, None);
        assert!(read(&[&format!("{first}+1")]).is_ok());
        for entry in [
            format!("{first}+0"),
            format!("{first}+2"),
            format!("{first}+1000"),
            format!("{first}+"),
            format!("{first}+x"),
            format!("{}+1", name(1, 0, Some("k"))),
            "+1".to_owned(),
        ] {
            assert!(read(&[&entry]).is_err(), "{entry}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(lines in prop::collection::vec((1_i64..3, 0_u16..1_000, 0..9_u8), 0..300)) {
            let names: NameSet =
                lines.iter().map(|(of, line, keyed)| name(*of, *line, (*keyed == 0).then_some("k"))).collect();
            let texts = texts(&names);
            let read = read(&texts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
            prop_assert_eq!(read, names);
        }
    }
}
