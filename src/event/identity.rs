//! An event's identity (70 bits) and its hash slot (10 bits), both written in Crockford's base32.

use std::fmt;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::EventTime;

/// Crockford's base32, lower case: no `i`, `l`, `o`, `u`.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The share of the events that one ordering key falls into: 10 bits of its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashSlot(u16);

impl HashSlot {
    /// How many hash slots there are.
    pub const COUNT: u16 = 1024;
    /// The length in bytes of every hash slot's text.
    pub const LEN: usize = 2;

    /// The hash slot of an ordering key: the first 10 bits of the SHA-256 of its UTF-8.
    pub fn of(key: &str) -> Self {
        let hash = Sha256::digest(key.as_bytes());
        Self(u16::from_be_bytes([hash[0], hash[1]]) >> 6)
    }

    /// The shard of this hash slot in a group of `shards`; a group always has at least one.
    pub const fn shard(self, shards: u16) -> u16 {
        if shards == 0 { 0 } else { self.0 % shards }
    }

    /// 0..1024.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The two characters of its text.
    pub(super) fn letters(self) -> [char; Self::LEN] {
        [letter_of(u128::from(self.0) >> 5), letter_of(u128::from(self.0))]
    }

    /// Reads the two characters that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        base32_pair(text).map(Self)
    }
}

impl fmt::Display for HashSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.letters().into_iter().try_for_each(|letter| f.write_char(letter))
    }
}

/// The identity of an event, apart from its time: 70 bits as 14 characters. It is random, or, where
/// the emitter named the id, the hash of (source, id), so that a repeat has the same identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity([u8; Identity::LEN]);

impl Identity {
    /// The length in bytes of every identity's text.
    pub const LEN: usize = 14;

    /// From 128 random bits, of which 70 are used.
    pub fn random(a: u64, b: u64) -> Self {
        Self::of_bits(u128::from(a) << 64 | u128::from(b))
    }

    /// Of an event whose emitter gave it an id: the first 70 bits of the hash of (source, id).
    pub fn named(source: &str, id: &str) -> Self {
        let mut first = [0; 16];
        first.copy_from_slice(&hash_of(source, id)[..16]);
        Self::of_bits(u128::from_be_bytes(first))
    }

    /// Reads the 14 characters that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let text: &[u8; Self::LEN] = text.as_bytes().try_into().ok()?;
        is_base32(text).then_some(Self(*text))
    }

    /// Its 14 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The highest 70 of 128 bits.
    fn of_bits(bits: u128) -> Self {
        let mut text = [0; Self::LEN];
        for (place, letter) in (1..).zip(text.iter_mut()) {
            *letter = ALPHABET[(bits >> (128 - 5 * place) & 31) as usize];
        }
        Self(text)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The id that evbus gives an event: `20261123T021530-7kq3f9x2m7qa5w`, its second and its identity.
pub fn event_id(time: EventTime, identity: &Identity) -> String {
    let mut id = time.seconds_text();
    id.reserve_exact(1 + Identity::LEN);
    id.push('-');
    id.push_str(identity.as_str());
    id
}

/// The second and the identity in an id made by [`event_id`].
pub fn parse_event_id(text: &str) -> Option<(EventTime, Identity)> {
    let (second, identity) = text.split_once('-')?;
    Some((EventTime::parse_seconds(second)?, Identity::parse(identity)?))
}

/// The name, under `dedup/`, of what an emitter calls (source, id): 64 hexadecimal digits.
pub fn dedup_hash(source: &str, id: &str) -> String {
    hex(&hash_of(source, id))
}

/// The SHA-256 of much: of more than a few hundred bytes it pays to ask the processor for its instructions.
pub fn sha256_of_much(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap_or_default()
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether all bytes are of the alphabet.
pub(super) fn is_base32(text: &[u8]) -> bool {
    text.iter().all(|&byte| value_of(byte).is_some())
}

/// SHA-256 of the length of `source` (8 bytes, big-endian), `source`, `id`: no two pairs have the
/// same encoding.
fn hash_of(source: &str, id: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((source.len() as u64).to_be_bytes());
    hash.update(source.as_bytes());
    hash.update(id.as_bytes());
    hash.finalize().into()
}

/// The letter of the lowest five bits.
pub(super) fn base32_letter(bits: u128) -> u8 {
    ALPHABET[(bits & 31) as usize]
}

fn letter_of(bits: u128) -> char {
    char::from(base32_letter(bits))
}

/// The ten bits of two letters.
pub(super) fn base32_pair(text: &str) -> Option<u16> {
    let &[high, low] = text.as_bytes() else { return None };
    Some(u16::from(value_of(high)?) << 5 | u16::from(value_of(low)?))
}

/// The five bits of a letter. A table, since a listing asks 16 times for each name.
fn value_of(letter: u8) -> Option<u8> {
    const VALUES: [u8; 256] = {
        let mut values = [u8::MAX; 256];
        let mut value = 0;
        while value < ALPHABET.len() {
            values[ALPHABET[value] as usize] = value as u8;
            value += 1;
        }
        values
    };
    let value = VALUES[usize::from(letter)];
    (value < 32).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hash_slot_is_the_start_of_the_hash() {
        // SHA-256 of "abc" begins ba78: 10111010 01 are its first ten bits.
        assert_eq!(HashSlot::of("abc").number(), 0b10_1110_1001);
        assert_eq!(HashSlot::of("abc").to_string(), "q9");
        assert_eq!(HashSlot::of("abc").shard(1), 0);
        assert_eq!(HashSlot::of("abc").shard(8), 0b001);
        assert_eq!(HashSlot::of("abc").shard(0), 0);
    }

    #[test]
    fn every_hash_slot_has_its_own_text() {
        let texts: std::collections::BTreeSet<String> = (0..HashSlot::COUNT).map(|n| HashSlot(n).to_string()).collect();
        assert_eq!(texts.len(), usize::from(HashSlot::COUNT));
        assert!((0..HashSlot::COUNT).all(|n| HashSlot::parse(&HashSlot(n).to_string()) == Some(HashSlot(n))));
    }

    #[test]
    fn refuses_other_characters() {
        for text in ["", "0", "000", "0i", "l0", "o0", "u0", "A0", "é", "0-"] {
            assert_eq!(HashSlot::parse(text), None, "{text}");
        }
        for text in ["", "7kq3f9x2m7qa5", "7kq3f9x2m7qa5w0", "7kq3f9x2m7qa5W", "7kq3f9x2m7qa5u", "7kq3f9x2m7qaé"] {
            assert_eq!(Identity::parse(text), None, "{text}");
        }
    }

    /// A bus outlives this binary: what it hashed once it must hash the same for ever.
    #[test]
    fn hashes_never_change() {
        // printf '\0\0\0\0\0\0\0\1ab' | sha256sum
        let hash = dedup_hash("a", "b");
        assert_eq!(hash, "bfd8d48c5ab028a9c554ccc9d65ed6fc15a987f4f98cdd8bbfd5f17860493bac");
        assert_eq!(Identity::named("a", "b").as_str(), "qzcd932tp0makh");
    }

    #[test]
    fn random_uses_both_numbers() {
        assert_eq!(Identity::random(0, 0).as_str(), "00000000000000");
        assert_eq!(Identity::random(u64::MAX, u64::MAX).as_str(), "zzzzzzzzzzzzzz");
        assert_eq!(Identity::random(1 << 63, 0).as_str(), "g0000000000000");
        assert_eq!(Identity::random(0, 1 << 58).as_str(), "00000000000001");
    }

    #[test]
    fn ids_start_with_their_second() {
        let identity = Identity::parse("7kq3f9x2m7qa5w").unwrap();
        let time = EventTime::parse("20261123T021530.123456Z").unwrap();
        let id = event_id(time, &identity);
        assert_eq!(id, "20261123T021530-7kq3f9x2m7qa5w");
        let second = EventTime::parse("20261123T021530.000000Z").unwrap();
        assert_eq!(parse_event_id(&id), Some((second, identity)));
        for text in ["", "-", "20261123T021530", "20261123T021530-", "20261123T021530-7kq3f9x2m7qa5w-", "x-y"] {
            assert_eq!(parse_event_id(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn identities_parse_back(a: u64, b: u64) {
            let identity = Identity::random(a, b);
            prop_assert_eq!(Identity::parse(identity.as_str()), Some(identity));
        }

        #[test]
        fn a_shifted_boundary_gives_another_identity(source in "\\PC{1,9}", id in "\\PC{1,9}", at in 0_usize..9) {
            let joined = format!("{source}{id}");
            prop_assume!(joined.is_char_boundary(at) && at != source.len() && at <= joined.len());
            prop_assert_ne!(dedup_hash(&source, &id), dedup_hash(&joined[..at], &joined[at..]));
            prop_assert_ne!(Identity::named(&source, &id), Identity::named(&joined[..at], &joined[at..]));
        }
    }
}
