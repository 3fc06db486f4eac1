//! What a server's answer means. Pure.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use jiff::tz::TimeZone;

use crate::event::EventTime;

/// The status by which a receiver says that it wants no more (CloudEvents Web Hooks, 2.2).
pub(super) const GONE: u16 = 410;

/// The forms of a date that were used before the one of RFC 5322 (RFC 9110, 5.6.7).
const OBSOLETE_DATES: [&str; 2] = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// How long the server asks to wait (RFC 9110, 10.2.3): seconds, or a date.
pub(super) fn retry_after(text: &str, now: EventTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long time.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    static DATES: DateTimeParser = DateTimeParser::new();
    let obsolete = |form| jiff::fmt::strtime::parse(form, text).and_then(|date| date.to_datetime());
    let obsolete = || OBSOLETE_DATES.into_iter().find_map(|form| obsolete(form).ok()?.to_zoned(TimeZone::UTC).ok());
    let date = DATES.parse_timestamp(text).ok().or_else(|| obsolete().map(|date| date.timestamp()))?;
    Some(EventTime::from_micros(date.as_microsecond()).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let now = EventTime::parse("20261123T021500.000000Z").unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(u64::from(u32::MAX))),
            ("Mon, 23 Nov 2026 02:16:30 GMT", Some(90)),
            ("Monday, 23-Nov-26 02:16:30 GMT", Some(90)),
            ("Mon Nov 23 02:16:30 2026", Some(90)),
            // It has passed already.
            ("Sun, 22 Nov 2026 02:16:30 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
            // The weekday is another.
            ("Fri, 23 Nov 2026 02:16:30 GMT", None),
        ] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
