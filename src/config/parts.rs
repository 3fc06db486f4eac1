//! What addresses of directories and of buckets have in common.

use percent_encoding::percent_decode_str;

use super::ConfigDetail;

/// What was wrong with an address, and what decides the cure.
pub(super) type Problem = (String, Option<ConfigDetail>);

/// The bytes that `%41%42` encodes; none for a broken escape or a NUL.
pub(super) fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    // The decoder leaves a broken escape as it is.
    let is_escape = |rest: &str| rest.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    let bytes: Vec<u8> = text.split('%').skip(1).all(is_escape).then(|| percent_decode_str(text).collect())?;
    (!bytes.contains(&0)).then_some(bytes)
}
