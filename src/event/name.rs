//! An event's name on the store: `<time 23>-<lane 2><identity 14>-<slug>.json`.
//!
//! A name alone tells time, lane, identity and (mostly) type, so that a listing is enough to know what is wanted. It
//! sorts by time, is under 200 bytes, and is a safe file name on every system whatever the type was.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::identity::is_base32;
use super::{EventTime, Identity, Lane};

/// The folder of all events, as a prefix of their keys.
pub const EVENTS: &str = "events/";

const SUFFIX: &str = ".json";
const SLUG_MAX_LEN: usize = 120;
const LANE: Range<usize> = EventTime::LEN + 1..EventTime::LEN + 1 + Lane::LEN;
const IDENTITY: Range<usize> = LANE.end..LANE.end + Identity::LEN;
const SLUG_START: usize = IDENTITY.end + 1;
/// `YYYYMMDD` and `HHMM` within the time.
const DAY: Range<usize> = 0..8;
const MINUTE: Range<usize> = 9..13;

/// The name of an event: always well-formed, and ordered as bytes, which is by time first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventName(Box<str>);

/// What a name says, borrowed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameParts<'a> {
    /// The time that gives the event its place.
    pub time: EventTime,
    /// The lane, which picks the shard.
    pub lane: Lane,
    /// The 14 characters of the identity.
    pub identity: &'a str,
    /// The type, as far as a file name can hold it; see [`slug_of`].
    pub slug: &'a str,
}

/// A text that is not an event's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event's name (<time>-<lane and identity>-<type>.json)")]
pub struct NameError;

impl EventName {
    /// The length in bytes of [`EventName::stem`].
    pub const STEM_LEN: usize = IDENTITY.end;

    /// The name of an event of this type.
    pub fn new(time: EventTime, lane: Lane, identity: &Identity, type_: &str) -> Self {
        Self(format!("{time}-{lane}{identity}-{}{SUFFIX}", slug_of(type_)).into())
    }

    /// Reads a name, strictly: nothing is taken for a name that [`EventName::new`] could not have its form from.
    pub fn parse(text: &str) -> Option<Self> {
        parse_parts(text).map(|_| Self(text.into()))
    }

    /// Reads the key that [`EventName::key`] makes; its folder must be that of its time.
    pub fn from_key(key: &str) -> Option<Self> {
        let path = key.strip_prefix(EVENTS)?.as_bytes();
        if path.get(8) != Some(&b'/') || path.get(13) != Some(&b'/') {
            return None;
        }
        // Both are bytes of ASCII, so what is behind them begins a character.
        let name = Self::parse(key.get(EVENTS.len() + 14..)?)?;
        let agrees = path[..8] == name.0.as_bytes()[DAY] && path[9..13] == name.0.as_bytes()[MINUTE];
        agrees.then_some(name)
    }

    /// Its key on the store: `events/20261123/0215/<name>`.
    pub fn key(&self) -> String {
        format!("{EVENTS}{}/{}/{}", &self.0[DAY], &self.0[MINUTE], self.0)
    }

    /// The same event under another time: what emit does with one that came too late.
    #[must_use]
    pub fn with_time(&self, time: EventTime) -> Self {
        Self(format!("{time}{}", &self.0[EventTime::LEN..]).into())
    }

    /// The time that gives the event its place.
    pub fn time(&self) -> EventTime {
        EventTime::parse(&self.0[..EventTime::LEN]).unwrap_or(EventTime::MIN)
    }

    /// The lane, which picks the shard.
    pub fn lane(&self) -> Lane {
        Lane::parse(&self.0[LANE]).unwrap_or(Lane::of(""))
    }

    /// The 14 characters of the identity.
    pub fn identity(&self) -> &str {
        &self.0[IDENTITY]
    }

    /// The type, as far as a file name can hold it; see [`slug_of`].
    pub fn slug(&self) -> &str {
        &self.0[SLUG_START..self.0.len() - SUFFIX.len()]
    }

    /// Time, lane and identity, 40 characters: enough to tell the event, and sorts with whole names.
    pub fn stem(&self) -> &str {
        &self.0[..Self::STEM_LEN]
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Borrow<str> for EventName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for EventName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for EventName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EventName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match parse_parts(&text) {
            Some(_) => Ok(Self(text.into())),
            None => Err(de::Error::custom(NameError)),
        }
    }
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
    // `get`, for these may lie within a character.
    let time = EventTime::parse(text.get(..EventTime::LEN)?)?;
    let lane = Lane::parse(text.get(LANE)?)?;
    let identity = text.get(IDENTITY).filter(|identity| is_base32(identity.as_bytes()))?;
    Some(NameParts { time, lane, identity, slug: text.get(SLUG_START..slug_end)? })
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
    Some((body, if slug.len() < SLUG_MAX_LEN { Extent::Whole } else { Extent::MaybeCut }))
}

/// How much of a type a slug shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// A character for each of the type's.
    Whole,
    /// More may have followed.
    MaybeCut,
}

/// Whether a slug keeps this byte.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')
}

/// Whether [`slug_of`] could have made this.
fn is_slug(slug: &[u8]) -> bool {
    let body = slug.strip_suffix(b"~").unwrap_or(slug);
    !slug.is_empty() && slug.len() <= SLUG_MAX_LEN && body.iter().all(|&byte| is_plain(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-order.created.json";

    fn any_time() -> impl Strategy<Value = EventTime> {
        (EventTime::MIN.as_micros()..=EventTime::MAX.as_micros()).prop_map(EventTime::from_micros)
    }

    /// Ordinary types, hostile ones, and any text at all.
    fn any_type() -> impl Strategy<Value = String> {
        let hostile = ["", ".", "..", "../../etc/passwd", "/", "\\", "a/b", "con", "nul.", "a:b", "~", "x~", ".json",
            "Order.Created", "a\0b", "a\nb", "-rf", "café", "\u{202e}", "*", "$(id)", "a b"];
        prop_oneof![
            "[a-z0-9._-]{1,30}",
            "\\PC{0,200}",
            proptest::collection::vec(any::<char>(), 0..200).prop_map(|chars| chars.into_iter().collect()),
            proptest::sample::select(&hostile[..]).prop_map(str::to_owned),
            ("[a-zé]", 100_usize..10_240).prop_map(|(letter, times)| letter.repeat(times)),
        ]
    }

    prop_compose! {
        fn any_name()(time in any_time(), key in "\\PC{0,9}", a: u64, b: u64, type_ in any_type()) -> EventName {
            EventName::new(time, Lane::of(&key), &Identity::random(a, b), &type_)
        }
    }

    #[test]
    fn a_name_tells_its_parts() {
        let name = EventName::parse(NAME).unwrap();
        assert_eq!(name.time().to_string(), "20261123T021530.123456Z");
        assert_eq!(name.lane().to_string(), "7k");
        assert_eq!(name.identity(), "q3f9x2m7qa5w0c");
        assert_eq!(name.slug(), "order.created");
        assert_eq!(name.stem(), "20261123T021530.123456Z-7kq3f9x2m7qa5w0c");
        assert_eq!(name.stem().len(), EventName::STEM_LEN);
        assert_eq!(EventName::STEM_LEN, 40);
        assert_eq!(name.key(), format!("events/20261123/0215/{NAME}"));
        assert_eq!(minute_folder(name.time()), "events/20261123/0215/");
    }

    #[test]
    fn refuses_what_is_no_name() {
        for text in [
            "",
            ".json",
            "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-.json",
            "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-order.created.json.tmp",
            "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-order.created.JSON",
            "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-order.created",
            "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-Order.json",
            "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-a~b.json",
            "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-a~~.json",
            "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-a/b.json",
            "20261123T021530.123456Z-7kq3f9x2m7qa5w0c-é.json",
            "20261123T021530.123456Z-7kq3f9x2m7qa5w0C-order.json",
            "20261123T021530.123456Z-7kq3f9x2m7qa5w0u-order.json",
            "20261123T021530.123456Z-7kq3f9x2m7qa5wé-order.json",
            "20261123T021530.123456Z_7kq3f9x2m7qa5w0c-order.json",
            "20261123T021530.123456Z-7kq3f9x2m7qa5w0c_order.json",
            "20260230T021530.123456Z-7kq3f9x2m7qa5w0c-order.json",
            "20261123T021530.12345Z-7kq3f9x2m7qa5w0c-order.json",
            "x20261123T021530.123456Z-7kq3f9x2m7qa5w0c-order.json",
        ] {
            assert_eq!(EventName::parse(text), None, "{text}");
            assert!(serde_json::from_value::<EventName>(text.into()).is_err());
        }
        let long = |slug: usize| format!("20261123T021530.123456Z-7kq3f9x2m7qa5w0c-{}.json", "a".repeat(slug));
        assert!(EventName::parse(&long(120)).is_some());
        assert_eq!(EventName::parse(&long(121)), None);
    }

    #[test]
    fn a_key_needs_the_folder_of_its_time() {
        assert_eq!(EventName::from_key(&format!("events/20261123/0215/{NAME}")), EventName::parse(NAME));
        for folder in ["", "events/", "events/20261123/", "events/20261123/0216/", "events/20261124/0215/",
            "events/20261123/0215", "events/20261123x0215/", "/events/20261123/0215/", "event/20261123/0215/",
            "events/2026112/30215/", "events/20261123/0215/0/", "events/éé"] {
            assert_eq!(EventName::from_key(&format!("{folder}{NAME}")), None, "{folder}");
        }
    }

    #[test]
    fn slugs() {
        for (type_, slug) in [
            ("order.created", "order.created"),
            ("a", "a"),
            ("-_.9", "-_.9"),
            ("..", ".."),
            ("", "~"),
            ("~", "_~"),
            ("order~", "order_~"),
            ("Order.Created", "_rder._reated~"),
            ("a/../b", "a_.._b~"),
            ("é", "_~"),
            ("a\u{0}\n b", "a___b~"),
        ] {
            assert_eq!(slug_of(type_), slug);
        }
        assert_eq!(slug_of(&"a".repeat(120)), "a".repeat(120));
        assert_eq!(slug_of(&"a".repeat(121)), format!("{}~", "a".repeat(119)));
        assert_eq!(slug_of(&"é".repeat(5_000)), format!("{}~", "_".repeat(119)));
    }

    proptest! {
        #[test]
        fn parts_come_back(time in any_time(), key in "\\PC{0,9}", a: u64, b: u64, type_ in any_type()) {
            let (lane, identity) = (Lane::of(&key), Identity::random(a, b));
            let name = EventName::new(time, lane, &identity, &type_);
            let slug = slug_of(&type_);
            let parts = NameParts { time, lane, identity: identity.as_str(), slug: &slug };
            prop_assert_eq!(parse_parts(name.as_str()), Some(parts));
            prop_assert_eq!(name.time(), time);
            prop_assert_eq!(name.lane(), lane);
            prop_assert_eq!(name.identity(), identity.as_str());
            prop_assert_eq!(name.slug(), slug_of(&type_));
            prop_assert_eq!(EventName::parse(name.as_str()).as_ref(), Some(&name));
            prop_assert_eq!(EventName::from_key(&name.key()).as_ref(), Some(&name));
            let json = serde_json::to_string(&name).unwrap();
            prop_assert_eq!(serde_json::from_str::<EventName>(&json).unwrap(), name);
        }

        #[test]
        fn a_slug_without_tilde_is_the_type(type_ in any_type()) {
            let slug = slug_of(&type_);
            prop_assert_eq!(slug == type_, !slug.ends_with('~'));
            prop_assert!(is_slug(slug.as_bytes()));
        }

        #[test]
        fn a_name_is_a_safe_file_name(name in any_name()) {
            let text = name.as_str();
            prop_assert!(text.len() < 200);
            prop_assert!(text.starts_with(|first: char| first.is_ascii_digit()) && text.ends_with(".json"));
            let safe = |c: char| c.is_ascii_alphanumeric() || "._-~".contains(c);
            prop_assert!(text.chars().all(safe));
            prop_assert_eq!(name.key().split('/').count(), 4);
        }

        /// SMB folds case. The only capitals are the `T` and `Z` of the time, in every name.
        #[test]
        fn no_two_names_differ_by_case_only(name in any_name()) {
            let text = name.as_str();
            let capitals: Vec<usize> = (0..text.len()).filter(|&at| text.as_bytes()[at].is_ascii_uppercase()).collect();
            prop_assert_eq!(capitals, vec![8, 22]);
            prop_assert_eq!(EventName::parse(&text.to_lowercase()), None);
            prop_assert_eq!(EventName::parse(&text.to_uppercase()), None);
        }

        #[test]
        fn names_and_keys_sort_by_time(a in any_name(), b in any_name()) {
            let order = a.time().cmp(&b.time()).then_with(|| a.cmp(&b));
            prop_assert_eq!(a.cmp(&b), order);
            prop_assert_eq!(a.key().cmp(&b.key()), order);
            prop_assert!(a.cmp(&b) == a.stem().cmp(b.stem()) || a.stem() == b.stem());
            let next = b.with_time(a.time().next());
            prop_assert!(next > a || a.time() == EventTime::MAX);
            prop_assert!(next.key() > a.key() || a.time() == EventTime::MAX);
        }

        #[test]
        fn another_time_is_all_that_changes(name in any_name(), time in any_time()) {
            let moved = name.with_time(time);
            prop_assert_eq!(moved.time(), time);
            prop_assert_eq!(&moved.as_str()[EventTime::LEN..], &name.as_str()[EventTime::LEN..]);
            prop_assert_eq!(EventName::parse(moved.as_str()).as_ref(), Some(&moved));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}", at in 0_usize..60) {
            let _ = EventName::parse(&text);
            let _ = EventName::from_key(&text);
            let _ = EventName::from_key(&format!("events/{text}"));
            let mut broken = NAME.to_owned();
            broken.insert(at.min(broken.len()), 'é');
            prop_assert_eq!(EventName::parse(&broken), None);
        }
    }
}
