//! What addresses of directories and of buckets have in common.

use super::ConfigDetail;

/// What was wrong with an address, and what decides the cure.
pub(super) type Problem = (String, Option<ConfigDetail>);

/// The bytes that `%41%42` encodes; none for a broken escape or a NUL.
pub(super) fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        let byte = u8::from_str_radix(digits, 16).ok().filter(|byte| *byte != 0)?;
        bytes.push(byte);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(bytes)
}
