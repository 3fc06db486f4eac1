//! The name of a segment, an object with many events:
//! `<time of the last event 23>-<nonce 16>-<slug>.<number of events>.ndjson` (FORMAT.md, 3.7).
//!
//! It sorts among the names of single events, by the time of the last event that it holds.

use std::cell::RefCell;
use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::identity::{base32_letter, base32_pair, is_base32};
use super::name::{EVENTS, KEY_FOLDER_LEN, SLUG_MAX_LEN, is_in_its_folder, is_slug};
use super::{EventName, EventTime, HashSlot, Identity, NameParts, minute_folder, parse_key};
use crate::recent::Recent;

/// The most events of one segment. They have consecutive microseconds, so that no segment is longer
/// than [`SEGMENT_SPAN_MICROS`].
pub const SEGMENT_MAX_EVENTS: u16 = 1_000;

/// How far the first event of a segment may lie before the next microsecond of its last one.
pub const SEGMENT_SPAN_MICROS: i64 = SEGMENT_MAX_EVENTS as i64;

/// The most bytes of one segment.
pub const SEGMENT_MAX_BYTES: usize = 1 << 20;

const SUFFIX: &str = ".ndjson";
const NONCE: Range<usize> = EventTime::LEN + 1..EventTime::LEN + 1 + SegmentNonce::LEN;
const SLUG_START: usize = NONCE.end + 1;

/// 80 random bits, a segment's own, as 16 characters of base32. A segment that is put again keeps
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentNonce([u8; Self::LEN]);

impl SegmentNonce {
    /// The length in bytes of its text.
    pub const LEN: usize = 16;

    /// How many of its characters the ids hold that evbus makes for a segment's events.
    pub const ID_LEN: usize = 12;

    /// From 128 random bits, of which 80 are used.
    pub fn random(a: u64, b: u64) -> Self {
        let bits = u128::from(a) << 64 | u128::from(b);
        Self(std::array::from_fn(|at| base32_letter(bits >> (123 - 5 * at))))
    }

    /// Reads its 16 characters.
    pub fn parse(text: &str) -> Option<Self> {
        let text: &[u8; Self::LEN] = text.as_bytes().try_into().ok()?;
        is_base32(text).then_some(Self(*text))
    }

    /// Its 16 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The identity of the event on this line, from 0, if evbus makes its id.
    pub fn identity(&self, line: u16) -> Identity {
        line_identity(self.as_str(), line)
    }
}

/// The identity of an event on a line of the segment with this nonce, if its id was made from it:
/// the first 12 characters of the nonce, and the line as two.
fn line_identity(nonce: &str, line: u16) -> Identity {
    let mut text = [b'0'; Identity::LEN];
    let (start, end) = text.split_at_mut(SegmentNonce::ID_LEN);
    start.iter_mut().zip(nonce.bytes()).for_each(|(at, byte)| *at = byte);
    end.copy_from_slice(&[base32_letter(u128::from(line >> 5)), base32_letter(u128::from(line))]);
    Identity::parse(std::str::from_utf8(&text).unwrap_or_default()).unwrap_or_else(|| Identity::random(0, 0))
}

/// A segment's name: always well-formed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName(Box<str>);

/// What a segment's name says, borrowed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentParts<'a> {
    /// The time of its last event.
    pub last: EventTime,
    /// The 16 characters of its nonce.
    pub nonce: &'a str,
    /// The slug of all its events or, with a `~`, how their slugs begin.
    pub slug: &'a str,
    /// How many events it holds: 2 to 1,000.
    pub len: u16,
}

impl SegmentParts<'_> {
    /// The time of its first event.
    pub fn first(&self) -> EventTime {
        EventTime::from_micros(self.last.as_micros() - i64::from(self.len) + 1)
    }

    /// The identity of an event on this line, from 0, if its id was made from the nonce.
    pub fn identity(&self, line: u16) -> Identity {
        line_identity(self.nonce, line)
    }

    /// Whether an event of it has this time.
    pub fn spans(&self, time: EventTime) -> bool {
        self.first() <= time && time <= self.last
    }
}

impl SegmentName {
    /// The name of a segment whose last event has the time `last`, with `len` events.
    pub fn new(last: EventTime, nonce: &SegmentNonce, slug: &str, len: u16) -> Self {
        Self(format!("{last}-{}-{slug}.{len}{SUFFIX}", nonce.as_str()).into())
    }

    /// The name of the segment at a key; none if the key is another's.
    pub fn from_key(key: &str) -> Option<Self> {
        parse_segment_key(key).map(|_| Self(key[KEY_FOLDER_LEN..].into()))
    }

    /// Its key on the store.
    pub fn key(&self) -> String {
        let time = EventTime::parse(&self.0[..EventTime::LEN]).unwrap_or(EventTime::MIN);
        format!("{}{}", minute_folder(time), self.0)
    }
}

impl Serialize for SegmentName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SegmentName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = text.get(..EventTime::LEN).and_then(EventTime::parse);
        let name = time.and_then(|time| Self::from_key(&format!("{}{text}", minute_folder(time))));
        name.ok_or_else(|| de::Error::custom("the name of no segment"))
    }
}

impl EventName {
    /// The name of the event on the next line of a segment, if it has the same type, if evbus has
    /// made the ids of both, and if neither has an ordering key; none on the last line, or if this
    /// name is not of that kind.
    pub fn next_in_segment(&self) -> Option<Self> {
        let own = Identity::parse(self.identity())?;
        if HashSlot::of(own.as_str()) != self.hash_slot() {
            return None;
        }
        let (nonce, line) = own.as_str().split_at(SegmentNonce::ID_LEN);
        let next = base32_pair(line)? + 1;
        let identity = (next < SEGMENT_MAX_EVENTS).then(|| line_identity(nonce, next))?;
        Some(Self::of_slug(self.time().next(), HashSlot::of(identity.as_str()), &identity, self.slug()))
    }

    /// Whether `next` is [`EventName::next_in_segment`] of this, provided that the hash slots of both are
    /// those of their identities: see [`EventName::has_slot_of_identity`].
    pub fn may_be_followed_by(&self, next: &Self) -> bool {
        let (Some((nonce, line)), Some((next_nonce, next_line))) = (nonce_and_line(self), nonce_and_line(next)) else {
            return false;
        };
        let is_next = |at: u16| at + 1 < SEGMENT_MAX_EVENTS && base32_pair(next_line) == Some(at + 1);
        next.time() == self.time().next()
            && nonce == next_nonce
            && base32_pair(line).is_some_and(is_next)
            && self.slug() == next.slug()
    }

    /// Whether the hash slot is that of the identity: the event has no ordering key then. A marker asks
    /// for the same names at each commit.
    pub fn has_slot_of_identity(&self) -> bool {
        thread_local! {
            static SLOTS: RefCell<Recent<Identity, HashSlot>> = RefCell::new(Recent::new(1 << 15));
        }
        let slot_of =
            |identity| SLOTS.with_borrow_mut(|slots| slots.get_or_insert(identity, |of| HashSlot::of(of.as_str())));
        Identity::parse(self.identity()).is_some_and(|identity| slot_of(identity) == self.hash_slot())
    }
}

/// The two parts of the identity of an event in a segment.
fn nonce_and_line(name: &EventName) -> Option<(&str, &str)> {
    name.identity().split_at_checked(SegmentNonce::ID_LEN)
}

/// What a key below `events/` is the key of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListedKey<'a> {
    /// A single event.
    Event(NameParts<'a>),
    /// A segment.
    Segment(SegmentParts<'a>),
}

impl<'a> ListedKey<'a> {
    /// Reads a key without keeping it; none if it is foreign.
    pub fn parse(key: &'a str) -> Option<Self> {
        match key.ends_with(SUFFIX) {
            true => parse_segment_key(key).map(Self::Segment),
            false => parse_key(key).map(Self::Event),
        }
    }

    /// The time that gives the key its place: of the event, or of the segment's last one.
    pub fn last(&self) -> EventTime {
        match self {
            Self::Event(event) => event.time,
            Self::Segment(segment) => segment.last,
        }
    }

    /// The time of the event, or of the segment's first one.
    pub fn first(&self) -> EventTime {
        match self {
            Self::Event(event) => event.time,
            Self::Segment(segment) => segment.first(),
        }
    }

    /// How many events lie there.
    pub fn event_count(&self) -> u64 {
        match self {
            Self::Event(_) => 1,
            Self::Segment(segment) => u64::from(segment.len),
        }
    }
}

/// Reads the key of a segment without keeping it; it must lie in the folder of its time.
pub fn parse_segment_key(key: &str) -> Option<SegmentParts<'_>> {
    let folder = key.strip_prefix(EVENTS)?.as_bytes();
    let name = key.get(KEY_FOLDER_LEN..)?;
    let stem = name.strip_suffix(SUFFIX)?;
    let bytes = stem.as_bytes();
    let separated = bytes.len() > SLUG_START && bytes[NONCE.start - 1] == b'-' && bytes[SLUG_START - 1] == b'-';
    if !separated || !is_in_its_folder(folder, name) {
        return None;
    }
    let last = EventTime::parse(stem.get(..EventTime::LEN)?)?;
    let nonce = stem.get(NONCE).filter(|nonce| is_base32(nonce.as_bytes()))?;
    let (slug, len) = stem.get(SLUG_START..)?.rsplit_once('.')?;
    let digits = len.bytes().all(|byte| byte.is_ascii_digit()) && !len.starts_with('0');
    let len = len.parse().ok().filter(|len| digits && (2..=SEGMENT_MAX_EVENTS).contains(len))?;
    let parts = SegmentParts { last, nonce, slug, len };
    let begins = last.as_micros() - i64::from(len) + 1 >= EventTime::MIN.as_micros();
    (is_slug(slug.as_bytes()) && begins).then_some(parts)
}

/// The slug of a segment whose events have these slugs: theirs if all are equal, else how all of
/// them begin, and a `~`.
pub fn segment_slug<'a>(slugs: impl IntoIterator<Item = &'a str>) -> String {
    let mut slugs = slugs.into_iter();
    let Some(first) = slugs.next() else { return "~".to_owned() };
    let (mut common, mut same) = (first, true);
    for slug in slugs {
        if slug == first && same {
            continue;
        }
        same = false;
        common = common.strip_suffix('~').unwrap_or(common);
        let other = slug.strip_suffix('~').unwrap_or(slug);
        // Slugs are ASCII.
        let len = common.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        common = &common[..len];
    }
    if same { first.to_owned() } else { format!("{}~", &common[..common.len().min(SLUG_MAX_LEN - 1)]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce() -> SegmentNonce {
        SegmentNonce::random(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210)
    }

    fn time(text: &str) -> EventTime {
        EventTime::parse(text).unwrap()
    }

    #[test]
    fn a_key_is_read_as_it_was_made() {
        let last = time("20261123T021500.000002Z");
        let key = SegmentName::new(last, &nonce(), "order.created", 3).key();
        assert_eq!(key, "events/20261123/0215/20261123T021500.000002Z-04hmasw9nf6yzzpw-order.created.3.ndjson");
        let parts = parse_segment_key(&key).unwrap();
        assert_eq!((parts.last, parts.slug, parts.len), (last, "order.created", 3));
        assert_eq!(parts.first(), time("20261123T021500.000000Z"));
        assert_eq!(parts.nonce, nonce().as_str());
        assert!(parts.spans(last) && parts.spans(parts.first()) && !parts.spans(last.next()));
        assert_eq!(ListedKey::parse(&key), Some(ListedKey::Segment(parts)));
    }

    #[test]
    fn other_keys_are_foreign() {
        let good = "events/20261123/0215/20261123T021500.000002Z-04hmasw9nf6yzzpw-a.b~.1000.ndjson";
        assert!(parse_segment_key(good).is_some());
        for (from, to) in [
            (".1000.", ".1001."),
            (".1000.", ".1."),
            (".1000.", ".02."),
            (".1000.", ".+2."),
            (".1000.", "."),
            ("a.b~", "A"),
            ("a.b~", ""),
            ("-04hm", "-i4hm"),
            ("0215/2", "0216/2"),
            ("20261123T", "20261323T"),
            (".ndjson", ".json"),
            ("events/", "timed/"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(parse_segment_key(&bad).is_none(), "{bad}");
        }
        // Its first event would lie before the first time there is.
        let early = "events/00000101/0000/00000101T000000.000001Z-04hmasw9nf6yzzpw-a.3.ndjson";
        assert!(parse_segment_key(early).is_none());
    }

    #[test]
    fn an_identity_names_the_segment_and_the_line() {
        assert_eq!(nonce().identity(0).as_str(), "04hmasw9nf6y00");
        assert_eq!(nonce().identity(999).as_str(), "04hmasw9nf6yz7");
    }

    #[test]
    fn the_slug_is_what_all_share() {
        for (slugs, slug) in [
            (&["order.created", "order.created"][..], "order.created"),
            (&["order.created", "order.paid"], "order.~"),
            (&["order", "order.paid", "order"], "order~"),
            (&["_rder~", "_rder~"], "_rder~"),
            (&["_rder~", "_rder"], "_rder~"),
            (&["a", "b"], "~"),
        ] {
            assert_eq!(segment_slug(slugs.iter().copied()), slug, "{slugs:?}");
        }
        let (long, longer) = ("a".repeat(120), format!("{}~", "a".repeat(119)));
        assert_eq!(segment_slug([&*long, &*longer]).len(), 120);
    }
}
