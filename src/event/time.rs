//! Moments in UTC, to the microsecond, and their fixed-width text: the part of a name that gives it its place.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_MINUTE: i64 = 60 * MICROS_PER_SECOND;
const SECONDS_PER_DAY: i64 = 86_400;

/// Microseconds since the Unix epoch, in UTC without leap seconds.
///
/// Always within [`EventTime::MIN`] and [`EventTime::MAX`]: every way of making one clamps to them, so that each
/// value prints as exactly [`EventTime::LEN`] characters, and the texts sort as the times do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(i64);

/// A text that is not a time in the form `20261123T021530.123456Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time like 20261123T021530.123456Z")]
pub struct EventTimeError;

impl EventTime {
    /// 0000-01-01T00:00:00.000000Z.
    pub const MIN: Self = Self(-62_167_219_200_000_000);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_799_999_999);
    /// The length in bytes of every time's text.
    pub const LEN: usize = 23;

    /// Microseconds since the Unix epoch; what lies outside `MIN..=MAX` becomes the nearer of the two.
    pub const fn from_micros(micros: i64) -> Self {
        if micros < Self::MIN.0 {
            Self::MIN
        } else if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Self(micros)
        }
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Later by `by`, whole microseconds, at most [`EventTime::MAX`].
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self::from_micros(self.0.saturating_add(whole_micros(by)))
    }

    /// Earlier by `by`, whole microseconds, at least [`EventTime::MIN`].
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self::from_micros(self.0.saturating_sub(whole_micros(by)))
    }

    /// The next microsecond; [`EventTime::MAX`] has none and stays.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::from_micros(self.0 + 1)
    }

    /// How much later this is than `other`; zero if it is not.
    pub fn since(self, other: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0 - other.0).unwrap_or(0))
    }

    /// The last microsecond of its minute: the highest time that shares its folder.
    #[must_use]
    pub const fn minute_end(self) -> Self {
        Self(self.0 - self.0.rem_euclid(MICROS_PER_MINUTE) + MICROS_PER_MINUTE - 1)
    }

    /// Reads the text that [`fmt::Display`] writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let text: &[u8; Self::LEN] = text.as_bytes().try_into().ok()?;
        if text[15] != b'.' || text[22] != b'Z' {
            return None;
        }
        let seconds = compact_seconds(&text[..15])?;
        Some(Self(seconds * MICROS_PER_SECOND + digits(&text[16..22])?))
    }

    /// Reads the text of [`EventTime::seconds_text`].
    pub fn parse_seconds(text: &str) -> Option<Self> {
        compact_seconds(text.as_bytes()).map(|seconds| Self(seconds * MICROS_PER_SECOND))
    }

    /// `YYYYMMDDTHHMMSS`, the fraction cut off, as in the ids that evbus makes.
    pub fn seconds_text(self) -> String {
        ascii(&self.compact()[..15]).to_owned()
    }

    /// `YYYY-MM-DDTHH:MM:SS.ffffffZ`, as CloudEvents wants it (RFC 3339).
    pub fn to_rfc3339(self) -> String {
        let compact = self.compact();
        let t = ascii(&compact);
        // Made for each event of a bulk emit: formatting would take three times as long.
        let mut text = String::with_capacity(Self::LEN + 4);
        let separated = [(&t[..4], "-"), (&t[4..6], "-"), (&t[6..8], "T"), (&t[9..11], ":"), (&t[11..13], ":")];
        for (part, separator) in separated {
            text.push_str(part);
            text.push_str(separator);
        }
        text.push_str(&t[13..]);
        text
    }

    /// Reads an RFC 3339 date-time with any offset. A fraction finer than a microsecond is cut, and a leap second
    /// (`:60`) is the last microsecond before it. A moment outside `MIN..=MAX` by its offset becomes the nearer.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        let (clock, rest) = text.split_at_checked(19)?;
        let (fraction, rest) = rfc3339_fraction(rest)?;
        let offset = rfc3339_offset(rest)?;
        let separated = clock[4] == b'-' && clock[7] == b'-' && clock[13] == b':' && clock[16] == b':';
        if !separated || !matches!(clock[10], b'T' | b't') {
            return None;
        }
        let days = days_of(digits(&clock[..4])?, digits(&clock[5..7])?, digits(&clock[8..10])?)?;
        let (second, fraction) = match digits(&clock[17..19])? {
            60 => (59, MICROS_PER_SECOND - 1),
            second => (second, fraction),
        };
        let of_day = second_of_day(digits(&clock[11..13])?, digits(&clock[14..16])?, second)?;
        Some(Self::from_micros((days * SECONDS_PER_DAY + of_day - offset) * MICROS_PER_SECOND + fraction))
    }

    /// The 23 bytes of its text.
    pub(super) fn compact(self) -> [u8; Self::LEN] {
        let seconds = self.0.div_euclid(MICROS_PER_SECOND);
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let (year, month, day) = civil_of(seconds.div_euclid(SECONDS_PER_DAY));
        let mut text = *b"00000000T000000.000000Z";
        put_digits(&mut text[..4], year);
        put_digits(&mut text[4..6], month);
        put_digits(&mut text[6..8], day);
        put_digits(&mut text[9..11], of_day / 3600);
        put_digits(&mut text[11..13], of_day / 60 % 60);
        put_digits(&mut text[13..15], of_day % 60);
        put_digits(&mut text[16..22], self.0.rem_euclid(MICROS_PER_SECOND));
        text
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(ascii(&self.compact()))
    }
}

impl fmt::Debug for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EventTime {
    type Err = EventTimeError;

    fn from_str(text: &str) -> Result<Self, EventTimeError> {
        Self::parse(text).ok_or(EventTimeError)
    }
}

impl Serialize for EventTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(ascii(&self.compact()))
    }
}

impl<'de> Deserialize<'de> for EventTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

fn whole_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Bytes that are ASCII by construction.
pub(super) fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn put_digits(field: &mut [u8], mut value: i64) {
    for digit in field.iter_mut().rev() {
        // A remainder of ten fits a byte.
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// The value of bytes that are all ASCII digits; at most 18 of them.
fn digits(field: &[u8]) -> Option<i64> {
    let mut value = 0;
    for byte in field {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(value)
}

/// Seconds since the epoch of `YYYYMMDDTHHMMSS`.
fn compact_seconds(text: &[u8]) -> Option<i64> {
    let text: &[u8; 15] = text.try_into().ok()?;
    if text[8] != b'T' {
        return None;
    }
    let days = days_of(digits(&text[..4])?, digits(&text[4..6])?, digits(&text[6..8])?)?;
    let of_day = second_of_day(digits(&text[9..11])?, digits(&text[11..13])?, digits(&text[13..15])?)?;
    Some(days * SECONDS_PER_DAY + of_day)
}

fn second_of_day(hour: i64, minute: i64, second: i64) -> Option<i64> {
    (hour < 24 && minute < 60 && second < 60).then_some(hour * 3600 + minute * 60 + second)
}

/// The microseconds of an optional `.digits`, and what follows it.
fn rfc3339_fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(rest) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (fraction, rest) = rest.split_at(length);
    let kept = &fraction[..length.min(6)];
    let missing = u32::try_from(6 - kept.len()).ok()?;
    (length > 0).then_some((digits(kept)? * 10_i64.pow(missing), rest))
}

/// Seconds east of UTC of `Z`, `z`, `+HH:MM` or `-HH:MM`.
fn rfc3339_offset(text: &[u8]) -> Option<i64> {
    match text {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let seconds = second_of_day(digits(&[*h1, *h2])?, digits(&[*m1, *m2])?, 0)?;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// Days since 1970-01-01 of a date of the Gregorian calendar, if there is such a date. After Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms": years begin in March, so that the leap day is their last.
fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Year, month and day of a number of days since 1970-01-01: the inverse of [`days_of`].
fn civil_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;
