//! An event's name on the store: `<time 23>-<hash_slot 2><identity 14>-<slug>.json`.
//!
//! A name alone tells time, hash slot, identity and (mostly) type, so that a listing is enough to know what is wanted. It
//! sorts by time, is under 200 bytes, and is a safe file name on every system whatever the type was.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::identity::is_base32;
use super::time::ascii;
use super::{Event, EventTime, HashSlot, Identity, event_id, parse_event_id};

/// The folder of all events, as a prefix of their keys.
pub const EVENTS: &str = "events/";

const SUFFIX: &str = ".json";
pub(super) const SLUG_MAX_LEN: usize = 120;
const LANE: Range<usize> = EventTime::LEN + 1..EventTime::LEN + 1 + HashSlot::LEN;
const IDENTITY: Range<usize> = LANE.end..LANE.end + Identity::LEN;
const SLUG_START: usize = IDENTITY.end + 1;
/// The length of what stands before the name in a key.
pub(super) const KEY_FOLDER_LEN: usize = EVENTS.len() + 14;
/// `YYYYMMDD` and `HHMM` within the time.
const DAY: Range<usize> = 0..8;
const MINUTE: Range<usize> = 9..13;

/// The name of an event: always well-formed, and ordered as bytes, which is by time first. A clone shares the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventName {
    /// What the text begins with: most comparisons need no more.
    time: EventTime,
    text: Arc<str>,
}

/// What a name says, borrowed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameParts<'a> {
    /// The time that gives the event its place.
    pub time: EventTime,
    /// The hash slot, which picks the shard.
    pub hash_slot: HashSlot,
    /// The 14 characters of the identity.
    pub identity: &'a str,
    /// The type, as far as a file name can hold it; see [`slug_of`].
    pub slug: &'a str,
}

/// A text that is not an event's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event's name (<time>-<hash slot and identity>-<type>.json)")]
pub struct NameError;

impl EventName {
    /// The length in bytes of [`EventName::stem`].
    pub const STEM_LEN: usize = IDENTITY.end;

    /// The name of an event of this type.
    pub fn new(time: EventTime, hash_slot: HashSlot, identity: &Identity, type_: &str) -> Self {
        Self::of_slug(time, hash_slot, identity, &slug_of(type_))
    }

    /// The name of an event of a type with this slug, or of a document that is no event in a segment
    /// with this slug.
    pub(crate) fn of_slug(time: EventTime, hash_slot: HashSlot, identity: &Identity, slug: &str) -> Self {
        let mut text = String::with_capacity(SLUG_START + slug.len() + SUFFIX.len());
        text.push_str(ascii(&time.compact()));
        text.push('-');
        text.extend(hash_slot.letters());
        for part in [identity.as_str(), "-", slug, SUFFIX] {
            text.push_str(part);
        }
        Self { time, text: text.into() }
    }

    /// Reads a name, strictly: accepts only a text whose form [`EventName::new`] could have made.
    pub fn parse(text: &str) -> Option<Self> {
        parse_parts(text).map(|parts| Self { time: parts.time, text: text.into() })
    }

    /// Reads the key that [`EventName::key`] makes; its folder must be that of its time.
    pub fn from_key(key: &str) -> Option<Self> {
        parse_key(key).map(|parts| Self { time: parts.time, text: key[KEY_FOLDER_LEN..].into() })
    }

    /// Its key on the store: `events/20261123/0215/<name>`.
    pub fn key(&self) -> String {
        format!("{EVENTS}{}/{}/{}", &self.text[DAY], &self.text[MINUTE], self.text)
    }

    /// The same event under another time, as emit puts an event that came too late.
    #[must_use]
    pub fn with_time(&self, time: EventTime) -> Self {
        Self { time, text: format!("{time}{}", &self.text[EventTime::LEN..]).into() }
    }

    /// Whether an event can have this name: its identity is in its id or is made of its source and
    /// id, and its type is the name's. A name that does not agree is a foreign name, and tells
    /// nothing.
    pub fn fits(&self, event: &Event) -> bool {
        let of_id = parse_event_id(event.id()).is_some_and(|(_, identity)| identity.as_str() == self.identity());
        let identity = of_id || Identity::named(event.source(), event.id()).as_str() == self.identity();
        identity && slug_of(event.type_()) == self.slug()
    }

    /// The time that gives the event its place.
    pub fn time(&self) -> EventTime {
        self.time
    }

    /// The hash slot, which picks the shard.
    pub fn hash_slot(&self) -> HashSlot {
        HashSlot::parse(&self.text[LANE]).unwrap_or_else(|| HashSlot::of(""))
    }

    /// The 14 characters of the identity.
    pub fn identity(&self) -> &str {
        &self.text[IDENTITY]
    }

    /// The type, as far as a file name can hold it; see [`slug_of`].
    pub fn slug(&self) -> &str {
        &self.text[SLUG_START..self.text.len() - SUFFIX.len()]
    }

    /// Time, hash slot and identity, 40 characters: enough to tell the event, and sorts with whole names.
    pub fn stem(&self) -> &str {
        &self.text[..Self::STEM_LEN]
    }

    /// The whole name, shared.
    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// As the text, which [`Borrow`] asks for.
impl Hash for EventName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Borrow<str> for EventName {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl AsRef<str> for EventName {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl Serialize for EventName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for EventName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(NameError))
    }
}

/// The texts between which all names lie whose times are from `first` to `last`; the second one is
/// excluded.
pub fn names_between(first: EventTime, last: EventTime) -> [String; 2] {
    // '-' follows the time in a name, and '.' is the next character.
    [format!("{first}-"), format!("{last}.")]
}

/// The folder of a minute, as a prefix of keys: `events/20261123/0215/`.
pub fn minute_folder(time: EventTime) -> String {
    let text = time.to_string();
    format!("{EVENTS}{}/{}/", &text[DAY], &text[MINUTE])
}

/// Reads a name without keeping it: a listing of a million asks this of each.
pub fn parse_parts(text: &str) -> Option<NameParts<'_>> {
    let bytes = text.as_bytes();
    let slug_end = bytes.len().checked_sub(SUFFIX.len())?;
    let separated = slug_end > SLUG_START && bytes[LANE.start - 1] == b'-' && bytes[SLUG_START - 1] == b'-';
    if !separated || !text.ends_with(SUFFIX) || !is_slug(&bytes[SLUG_START..slug_end]) {
        return None;
    }
    // `get`, because these positions may lie within a character.
    let time = EventTime::parse(text.get(..EventTime::LEN)?)?;
    let hash_slot = HashSlot::parse(text.get(LANE)?)?;
    let identity = text.get(IDENTITY).filter(|identity| is_base32(identity.as_bytes()))?;
    Some(NameParts { time, hash_slot, identity, slug: text.get(SLUG_START..slug_end)? })
}

/// Reads the key of an event without keeping it. A key in another folder than that of its time is
/// no event's: a listing that took it for one would end at names that cannot be read.
pub fn parse_key(key: &str) -> Option<NameParts<'_>> {
    let folder = key.strip_prefix(EVENTS)?.as_bytes();
    // All that stands before a valid name is ASCII, so that what is behind it begins a character.
    let name = key.get(KEY_FOLDER_LEN..)?;
    let parts = parse_parts(name)?;
    is_in_its_folder(folder, name).then_some(parts)
}

/// Whether the folder of a key, without `events/`, is that of the name's time; both are long enough.
pub(super) fn is_in_its_folder(folder: &[u8], name: &str) -> bool {
    let (day, minute) = (&name.as_bytes()[DAY], &name.as_bytes()[MINUTE]);
    folder[..8] == *day && folder[8] == b'/' && folder[9..13] == *minute && folder[13] == b'/'
}

/// What a name says of a type: the type itself where it has only `[a-z0-9._-]` and at most 120 bytes. Otherwise every
/// other character becomes `_`, at most 119 are kept, and a `~` ends it, which no type can hold unreplaced: so a slug
/// without `~` *is* the type. Never empty.
pub fn slug_of(type_: &str) -> String {
    if !type_.is_empty() && type_.len() <= SLUG_MAX_LEN && type_.bytes().all(is_plain) {
        return type_.to_owned();
    }
    let mut slug: String = type_.chars().take(SLUG_MAX_LEN - 1).map(slug_char).collect();
    slug.push('~');
    slug
}

/// What a slug holds for one character of a type.
pub(super) fn slug_char(of_type: char) -> char {
    match u8::try_from(of_type) {
        Ok(byte) if is_plain(byte) => of_type,
        _ => '_',
    }
}

/// What the slug says of a type it does not hold as it is, and whether all of the type is in it.
pub(super) fn inexact_slug(slug: &str) -> Option<(&str, Extent)> {
    let body = slug.strip_suffix('~')?;
    Some((body, if slug.len() < SLUG_MAX_LEN { Extent::Whole } else { Extent::MaybeTruncated }))
}

/// How much of a type a slug shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// A character for each of the type's.
    Whole,
    /// More may have followed.
    MaybeTruncated,
}

/// Whether a slug keeps this byte.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')
}

/// Whether [`slug_of`] could have made this.
pub(super) fn is_slug(slug: &[u8]) -> bool {
    let body = slug.strip_suffix(b"~").unwrap_or(slug);
    !slug.is_empty() && slug.len() <= SLUG_MAX_LEN && body.iter().all(|&byte| is_plain(byte))
}

/// The id that evbus generates for an event, by which `evbus get` finds it.
pub fn id_of(name: &EventName) -> String {
    let identity = Identity::parse(name.identity());
    identity.map_or_else(|| name.stem().to_owned(), |identity| event_id(name.time(), &identity))
}

#[cfg(test)]
mod tests;
