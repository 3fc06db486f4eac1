//! The text forms of durations and sizes. Each carries its unit, so none can be misread.

use std::time::Duration;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Units of time, longest first, in nanoseconds.
const TIME_UNITS: [(&str, u128); 6] = [
    ("w", 7 * 86_400 * NANOS_PER_SECOND),
    ("d", 86_400 * NANOS_PER_SECOND),
    ("h", 3_600 * NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("s", NANOS_PER_SECOND),
    ("ms", 1_000_000),
];

/// Units of size, in bytes.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("kib", 1 << 10),
    ("mb", 1_000_000),
    ("mib", 1 << 20),
    ("gb", 1_000_000_000),
    ("gib", 1 << 30),
];

/// The longest duration: a hundred years.
const MAX_DURATION_NANOS: u128 = 36_500 * 86_400 * NANOS_PER_SECOND;

/// Why a text is not a duration, range or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A bare number.
    #[error("'{}' has no unit (durations carry their unit: 30s, 5m, 7d)", .0.escape_debug())]
    NoUnit(String),
    /// Not a sequence of numbers with units, longest unit first.
    #[error("'{}' is not a duration (write 500ms, 30s, 5m, 1h30m, 7d or 2w)", .0.escape_debug())]
    Duration(String),
    /// Zero, in a unit other than seconds.
    #[error("'{}' is no time at all (write 0s if that is meant)", .0.escape_debug())]
    Zero(String),
    /// More than a hundred years.
    #[error("'{}' is more than 100 years", .0.escape_debug())]
    TooLong(String),
    /// Not two durations with `..` between them.
    #[error("'{}' is not a range of durations (write MIN..MAX: 1s..10m)", .0.escape_debug())]
    Range(String),
    /// The lower end is above the upper one.
    #[error("'{}' begins after its end (write MIN..MAX: 1s..10m)", .0.escape_debug())]
    Backwards(String),
    /// Not a whole number with a unit of size.
    #[error("'{}' is not a size (write 4096, 500KB, 8MiB or 1GiB)", .0.escape_debug())]
    Size(String),
}

/// Parses a duration: `500ms`, `2s`, `1.5s`, `1h30m`, `7d`, `2w`.
///
/// # Errors
/// A bare number, an unknown unit, units out of order, or more than a hundred years. Zero is
/// written `0s`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UnitError::NoUnit(text.to_owned()));
    }
    let nanos = sum_of_parts(text).ok_or_else(|| UnitError::Duration(text.to_owned()))?;
    if nanos == 0 && text != "0s" {
        return Err(UnitError::Zero(text.to_owned()));
    }
    if nanos > MAX_DURATION_NANOS {
        return Err(UnitError::TooLong(text.to_owned()));
    }
    // Both fit: the bound above is far below what a u64 of seconds holds.
    let seconds = u64::try_from(nanos / NANOS_PER_SECOND).unwrap_or(u64::MAX);
    Ok(Duration::new(seconds, u32::try_from(nanos % NANOS_PER_SECOND).unwrap_or(0)))
}

/// The nanoseconds of `1h30m`; none for another form. Saturates.
fn sum_of_parts(text: &str) -> Option<u128> {
    let mut rest = text;
    let mut units = TIME_UNITS.as_slice();
    let mut sum = 0u128;
    while !rest.is_empty() || sum_is_untouched(units) {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, after) = after.split_at(after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len()));
        let place = units.iter().position(|(name, _)| *name == unit)?;
        sum = sum.saturating_add(scaled(number, units[place].1)?);
        units = &units[place + 1..];
        rest = after;
    }
    Some(sum)
}

/// Whether no part has been read yet: an empty text is not a duration.
fn sum_is_untouched(units: &[(&str, u128)]) -> bool {
    units.len() == TIME_UNITS.len()
}

/// `number` (digits, with a fraction of up to nine) times `unit`. Saturates.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let whole = whole.parse::<u128>().unwrap_or(u128::MAX);
    let fraction = fraction.parse::<u128>().ok()? * unit / 10u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(whole.saturating_mul(unit).saturating_add(fraction))
}

/// A duration in few characters, rounded down: `350ms`, `4.2s`, `41s`, `6m02s`, `3h07m`, `6d`.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.is_zero() => "0s".to_owned(),
        0 if duration.as_millis() == 0 => "<1ms".to_owned(),
        0 => format!("{}ms", duration.as_millis()),
        1..10 => match duration.subsec_millis() / 100 {
            0 => format!("{seconds}s"),
            tenths => format!("{seconds}.{tenths}s"),
        },
        10..60 => format!("{seconds}s"),
        60..3_600 => two_units(seconds / 60, 'm', seconds % 60, 's'),
        // Exactly a day is `1d`; up to two days, hours are more precise.
        3_600..172_800 if seconds != 86_400 => two_units(seconds / 3_600, 'h', seconds / 60 % 60, 'm'),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn two_units(high: u64, high_unit: char, low: u64, low_unit: char) -> String {
    match low {
        0 => format!("{high}{high_unit}"),
        _ => format!("{high}{high_unit}{low:02}{low_unit}"),
    }
}

/// Parses a range of durations, `1s..10m`, both ends included.
///
/// # Errors
/// No `..`, an end that is not a duration, or a lower end above the upper one.
pub fn parse_range(text: &str) -> Result<(Duration, Duration), UnitError> {
    let (min, max) = text.split_once("..").ok_or_else(|| UnitError::Range(text.to_owned()))?;
    let (min, max) = (parse_duration(min)?, parse_duration(max)?);
    if min > max {
        return Err(UnitError::Backwards(text.to_owned()));
    }
    Ok((min, max))
}

/// Parses a size in bytes: `4096`, `1MB` (a million), `8MiB` (8 · 2²⁰). Letter case does not
/// matter.
///
/// # Errors
/// A fraction, an unknown unit (`8M` could mean either), or more than a u64 holds.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let size = || {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let unit = unit.to_ascii_lowercase();
        let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(*bytes)
    };
    size().ok_or_else(|| UnitError::Size(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_durations() {
        let table = [
            ("500ms", 500),
            ("2s", 2_000),
            ("1.5s", 1_500),
            ("0.25s", 250),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h30m5s250ms", 5_405_250),
            ("7d", 604_800_000),
            ("2w", 1_209_600_000),
            ("90m", 5_400_000),
            ("1.5d", 129_600_000),
            ("0.5w", 302_400_000),
            ("0s", 0),
            ("36500d", 3_153_600_000_000),
        ];
        for (text, millis) in table {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_invalid_durations() {
        let owned = str::to_owned;
        for text in [
            "", "s", "5", "5 m", "5min", "m5", "1m1h", "1s1s", "-5m", "+5m", "1.s", ".5s", "1..2s", "5m3", "５s",
            "1h 5m", "1,5s", "1,000s", "1:30:00",
        ] {
            let expected = match text {
                "5" => UnitError::NoUnit(owned("5")),
                _ => UnitError::Duration(owned(text)),
            };
            assert_eq!(parse_duration(text), Err(expected), "{text}");
        }
        assert_eq!(parse_duration("0"), Err(UnitError::NoUnit(owned("0"))));
        for text in ["0m", "0ms", "0.0s", "0h0m"] {
            assert_eq!(parse_duration(text), Err(UnitError::Zero(owned(text))));
        }
        for text in ["36501d", &format!("{}w", "9".repeat(60))] {
            assert_eq!(parse_duration(text), Err(UnitError::TooLong(owned(text))));
        }
    }

    #[test]
    fn prints_durations_in_few_characters() {
        let table = [
            (0, "0s"),
            (350, "350ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (4_290, "4.2s"),
            (9_999, "9.9s"),
            (10_900, "10s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (362_000, "6m02s"),
            (2_470_000, "41m10s"),
            (3_599_999, "59m59s"),
            (3_600_000, "1h"),
            (5_400_000, "1h30m"),
            (86_399_000, "23h59m"),
            (86_400_000, "1d"),
            (86_460_000, "24h01m"),
            (172_799_000, "47h59m"),
            (172_800_000, "2d"),
            (590_000_000, "6d"),
        ];
        for (millis, text) in table {
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(format_duration(Duration::from_micros(999)), "<1ms");
    }

    #[test]
    fn reads_ranges() {
        assert_eq!(parse_range("1s..10m"), Ok((Duration::from_secs(1), Duration::from_secs(600))));
        assert_eq!(parse_range("5s..5s"), Ok((Duration::from_secs(5), Duration::from_secs(5))));
        assert_eq!(parse_range("5s"), Err(UnitError::Range("5s".to_owned())));
        assert_eq!(parse_range("2m..1m"), Err(UnitError::Backwards("2m..1m".to_owned())));
        assert_eq!(parse_range("1..10m"), Err(UnitError::NoUnit("1".to_owned())));
        assert_eq!(parse_range("..10m"), Err(UnitError::Duration(String::new())));
    }

    #[test]
    fn reads_sizes() {
        let table = [
            ("4096", 4_096),
            ("0", 0),
            ("12B", 12),
            ("1kB", 1_000),
            ("500KB", 500_000),
            ("1KiB", 1_024),
            ("1MB", 1_000_000),
            ("8MiB", 8_388_608),
            ("8mib", 8_388_608),
            ("1GiB", 1_073_741_824),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "8M", "1.5MiB", "-1", "8 MiB", "99999999999999999999", "18446744073709551615KB"] {
            assert_eq!(parse_size(text), Err(UnitError::Size(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn errors_name_the_cure() {
        let text = parse_duration("30").unwrap_err().to_string();
        assert_eq!(text, "'30' has no unit (durations carry their unit: 30s, 5m, 7d)");
        assert!(!parse_duration("\u{1b}[2J").unwrap_err().to_string().contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[0-9a-z.µ ]{0,24}") {
            let _ = (parse_duration(&text), parse_range(&text), parse_size(&text));
        }

        #[test]
        fn a_printed_duration_parses_back_as_half_to_all_of_it(millis in 0u64..4_000_000_000) {
            let duration = Duration::from_millis(millis);
            let read = parse_duration(&format_duration(duration)).unwrap();
            prop_assert!(read <= duration);
            prop_assert!(duration - read <= duration / 2, "{duration:?} became {read:?}");
        }
    }
}
