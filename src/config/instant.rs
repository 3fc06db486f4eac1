//! The text forms of times: `10m` (ago), `2026-11-20`, `09:30`, RFC 3339. They are local unless
//! they name a zone.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, Zoned};

use super::units::{UnitError, parse_duration};
use crate::event::EventTime;

/// Why a text is not a usable time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// None of the forms of a time.
    #[error("'{}' is not a time (write 10m, 7d, 2026-11-20, 09:30 or 2026-11-20T09:30:00Z)", .0.escape_debug())]
    Malformed(String),
    /// None of the forms of a future time.
    #[error("'{}' is not a time to come (write 02:00, 2026-12-24, '2026-12-24 09:30' or 2026-12-24T09:30:00Z)", .0.escape_debug())]
    NotComing(String),
    /// An invalid duration.
    #[error(transparent)]
    Duration(#[from] UnitError),
    /// A time in the future where only a past one makes sense.
    #[error("'{}' is in the future (it is {now} now; write a time that has passed, like 10m or 09:30)", .text.escape_debug())]
    Future {
        /// The text.
        text: String,
        /// The present local date and time.
        now: String,
    },
}

/// Parses a past time: an age (`10m`, `7d`, `10m ago`), a local date (its first moment), a local
/// time of day (the last one), a local date and time, or RFC 3339.
///
/// # Errors
/// None of these forms, or later than `now`.
pub fn parse_past(text: &str, now: EventTime, tz: &TimeZone) -> Result<EventTime, TimeError> {
    let time = parse_time_any(text, now, tz)?;
    if time > now {
        return Err(TimeError::Future { text: text.to_owned(), now: minute_text(now, tz) });
    }
    Ok(time)
}

/// As [`parse_past`], but a date may be in the future.
///
/// # Errors
/// None of the forms.
pub fn parse_time_any(text: &str, now: EventTime, tz: &TimeZone) -> Result<EventTime, TimeError> {
    let malformed = || TimeError::Malformed(text.to_owned());
    let bytes = text.as_bytes();
    if bytes.get(4) == Some(&b'-') {
        return from_date(text, tz).map(event_time).ok_or_else(malformed);
    }
    if text.contains(':') {
        return last_time_of_day(text, now, tz).map(event_time).ok_or_else(malformed);
    }
    let age = text.strip_suffix(" ago").unwrap_or(text);
    match parse_duration(age) {
        Ok(age) => Ok(now.minus(age)),
        Err(UnitError::Duration(_)) => Err(malformed()),
        Err(error) => Err(error.into()),
    }
}

/// Parses a time that may be in the future: a local date (its first moment), a local time of day
/// (the next one), a local date and time, or RFC 3339.
///
/// # Errors
/// None of these forms.
pub fn parse_coming(text: &str, now: EventTime, tz: &TimeZone) -> Result<EventTime, TimeError> {
    if !text.contains(':') || text.as_bytes().get(4) == Some(&b'-') {
        return from_date(text, tz).map(event_time).ok_or_else(|| TimeError::NotComing(text.to_owned()));
    }
    next_time_of_day(text, now, tz).map(event_time).ok_or_else(|| TimeError::NotComing(text.to_owned()))
}

/// Local time as text: `02:16:34` for today, else `2026-11-24 02:16`.
pub fn clock_text(time: EventTime, now: EventTime, tz: &TimeZone) -> String {
    match (zoned(time, tz), zoned(now, tz)) {
        (Some(time), Some(now)) if time.date() == now.date() => time.strftime("%H:%M:%S").to_string(),
        _ => minute_text(time, tz),
    }
}

fn minute_text(time: EventTime, tz: &TimeZone) -> String {
    // A time outside the calendar's years is shown as a number.
    zoned(time, tz)
        .map_or_else(|| format!("{}us", time.as_micros()), |time| time.strftime("%Y-%m-%d %H:%M").to_string())
}

/// Parses a text that begins with a date.
fn from_date(text: &str, tz: &TimeZone) -> Option<Timestamp> {
    let date: Date = text.get(..10)?.parse().ok()?;
    let Some(rest) = text.get(10..).filter(|rest| !rest.is_empty()) else {
        // Where the clocks go forward at midnight there is no 00:00; this is the first moment of
        // the day.
        return tz.to_timestamp(date.at(0, 0, 0, 0)).ok();
    };
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    match rest.find(['Z', 'z', '+', '-']) {
        Some(_) => text.parse().ok(),
        None => tz.to_timestamp(DateTime::from_parts(date, time_of_day(rest)?)).ok(),
    }
}

/// The last moment, up to now, at which local clocks showed `text`.
fn last_time_of_day(text: &str, now: EventTime, tz: &TimeZone) -> Option<Timestamp> {
    let time = time_of_day(text)?;
    let now = zoned(now, tz)?;
    let today = now.date();
    [today, today.yesterday().ok()?]
        .into_iter()
        .flat_map(|date| moments(DateTime::from_parts(date, time), tz))
        .find(|moment| *moment <= now.timestamp())
}

/// The first moment after now at which local clocks will show `text`.
fn next_time_of_day(text: &str, now: EventTime, tz: &TimeZone) -> Option<Timestamp> {
    let time = time_of_day(text)?;
    let now = zoned(now, tz)?;
    let today = now.date();
    let days = [today, today.tomorrow().ok()?];
    let mut moments: Vec<Timestamp> =
        days.into_iter().flat_map(|date| moments(DateTime::from_parts(date, time), tz)).collect();
    moments.sort_unstable();
    moments.into_iter().find(|moment| *moment > now.timestamp())
}

/// The moments of a local time, latest first: two in the hour that the clocks repeat.
fn moments(local: DateTime, tz: &TimeZone) -> Vec<Timestamp> {
    let found = tz.to_ambiguous_timestamp(local);
    let later = matches!(found.offset(), AmbiguousOffset::Fold { .. }).then(|| found.later().ok()).flatten();
    later.into_iter().chain(found.compatible().ok()).collect()
}

/// `09:30`, `09:30:15` or `09:30:15.25`; nothing shorter and no zone.
fn time_of_day(text: &str) -> Option<Time> {
    let bytes = text.as_bytes();
    let is_clock =
        bytes.len() >= 5 && bytes[2] == b':' && bytes.iter().all(|b| b.is_ascii_digit() || b":.".contains(b));
    if is_clock { text.parse().ok() } else { None }
}

fn zoned(time: EventTime, tz: &TimeZone) -> Option<Zoned> {
    Some(Timestamp::from_microsecond(time.as_micros()).ok()?.to_zoned(tz.clone()))
}

fn event_time(timestamp: Timestamp) -> EventTime {
    EventTime::from_micros(timestamp.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Central Europe, written out so that no zone database is needed.
    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn at(text: &str) -> EventTime {
        event_time(text.parse().unwrap())
    }

    /// 02:16:34 in Berlin.
    fn now() -> EventTime {
        at("2026-11-23T01:16:34Z")
    }

    #[test]
    fn reads_every_form() {
        let table = [
            ("10m", "2026-11-23T01:06:34Z"),
            ("7d", "2026-11-16T01:16:34Z"),
            ("10m ago", "2026-11-23T01:06:34Z"),
            ("0s", "2026-11-23T01:16:34Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("2026-07-20", "2026-07-19T22:00:00Z"),
            ("2026-11-23", "2026-11-22T23:00:00Z"),
            ("02:16", "2026-11-23T01:16:00Z"),
            ("02:16:34", "2026-11-23T01:16:34Z"),
            ("02:16:35", "2026-11-22T01:16:35Z"),
            ("09:30", "2026-11-22T08:30:00Z"),
            ("2026-11-20 09:30", "2026-11-20T08:30:00Z"),
            ("2026-11-20T09:30", "2026-11-20T08:30:00Z"),
            ("2026-11-20 09:30:15", "2026-11-20T08:30:15Z"),
            ("2026-11-20T09:30:15.25", "2026-11-20T08:30:15.25Z"),
            ("2026-11-20T09:30:00Z", "2026-11-20T09:30:00Z"),
            ("2026-11-20t09:30:00z", "2026-11-20T09:30:00Z"),
            ("2026-11-20 09:30:00+05:30", "2026-11-20T04:00:00Z"),
            ("2026-11-20T09:30:00.123456789-08:00", "2026-11-20T17:30:00.123456Z"),
        ];
        for (text, expected) in table {
            assert_eq!(parse_past(text, now(), &berlin()), Ok(at(expected)), "{text}");
        }
    }

    #[test]
    fn refuses_other_forms() {
        let texts = [
            "",
            "now",
            "yesterday",
            "09",
            "9:30",
            "25:00",
            "09:30Z",
            "2026-02-30",
            "2026-11-20T",
            "2026-11",
            "2026-11-20T09",
            "2026-11-20x09:30",
            "2026-11-20 9:30",
            "20261120",
            "20261120T093000",
            "1 week ago",
            "last week",
            "-10m",
            "2026-11-20T09:30:00Zx",
            "2026-é1-20",
        ];
        for text in texts {
            let error = parse_past(text, now(), &berlin()).unwrap_err();
            match text {
                "09" | "20261120" => {
                    assert!(matches!(error, TimeError::Duration(_)), "{text}: {error}")
                }
                _ => assert_eq!(error, TimeError::Malformed(text.to_owned()), "{text}"),
            }
        }
    }

    #[test]
    fn refuses_the_future_and_names_the_cure() {
        for text in ["2026-11-24", "2026-11-23 02:17", "2026-11-23T01:16:34.000001Z"] {
            let error = parse_past(text, now(), &berlin()).unwrap_err();
            let cure = "is in the future (it is 2026-11-23 02:16 now; write a time that has passed, like 10m or 09:30)";
            assert_eq!(error.to_string(), format!("'{text}' {cure}"));
            assert!(parse_time_any(text, now(), &berlin()).unwrap() > now());
        }
    }

    #[test]
    fn a_time_of_day_is_the_last_one_also_when_clocks_change() {
        // 25 October 2026: 02:00 to 03:00 comes twice, from 00:00Z and from 01:00Z.
        let table = [
            ("2026-10-25T02:00:00Z", "02:30", "2026-10-25T01:30:00Z"),
            ("2026-10-25T01:10:00Z", "02:30", "2026-10-25T00:30:00Z"),
            ("2026-10-25T00:10:00Z", "02:30", "2026-10-24T00:30:00Z"),
            // 29 March 2026: there is no 02:30, so it means 03:30.
            ("2026-03-29T12:00:00Z", "02:30", "2026-03-29T01:30:00Z"),
        ];
        for (now, text, expected) in table {
            assert_eq!(parse_past(text, at(now), &berlin()), Ok(at(expected)), "{text} at {now}");
        }
    }

    #[test]
    fn a_day_begins_at_its_first_existing_moment() {
        // Clocks go from 00:00 to 01:00 on the first Sunday of September, as in Chile.
        let chile = TimeZone::posix("<-04>4<-03>,M9.1.6/24,M4.1.6/24").unwrap();
        assert_eq!(parse_past("2026-09-06", now(), &chile), Ok(at("2026-09-06T04:00:00Z")));
    }

    #[test]
    fn a_future_time_is_the_next_occurrence() {
        let table = [
            ("02:16", "2026-11-24T01:16:00Z"),
            ("02:16:34", "2026-11-24T01:16:34Z"),
            ("02:16:35", "2026-11-23T01:16:35Z"),
            ("23:00", "2026-11-23T22:00:00Z"),
            ("2026-12-24", "2026-12-23T23:00:00Z"),
            ("2026-12-24 09:30", "2026-12-24T08:30:00Z"),
            ("2026-12-24T09:30:00Z", "2026-12-24T09:30:00Z"),
            ("2020-01-01", "2019-12-31T23:00:00Z"),
        ];
        for (text, expected) in table {
            assert_eq!(parse_coming(text, now(), &berlin()), Ok(at(expected)), "{text}");
        }
        // In the hour that comes twice, the first pass is the next.
        let night = at("2026-10-24T23:00:00Z");
        assert_eq!(parse_coming("02:30", night, &berlin()), Ok(at("2026-10-25T00:30:00Z")));
        for text in ["", "5m", "tomorrow", "25:00", "9:30"] {
            assert_eq!(parse_coming(text, now(), &berlin()), Err(TimeError::NotComing(text.to_owned())));
        }
    }

    #[test]
    fn prints_the_time_today_and_the_date_else() {
        let table = [
            ("2026-11-23T01:16:34.9Z", "02:16:34"),
            ("2026-11-22T23:00:00Z", "00:00:00"),
            ("2026-11-22T22:59:59Z", "2026-11-22 23:59"),
            ("2026-11-24T01:16:34Z", "2026-11-24 02:16"),
        ];
        for (time, text) in table {
            assert_eq!(clock_text(at(time), now(), &berlin()), text);
        }
        // The last hours of the year 9999 are past the end of the calendar.
        let far = EventTime::from_micros(i64::MAX);
        assert_eq!(clock_text(far, now(), &berlin()), format!("{}us", far.as_micros()));
    }

    proptest! {
        #[test]
        fn never_panics_and_never_names_the_future(text in "[0-9:.TZ +-]{0,26}") {
            if let Ok(time) = parse_past(&text, now(), &berlin()) {
                prop_assert!(time <= now());
            }
        }
    }
}
