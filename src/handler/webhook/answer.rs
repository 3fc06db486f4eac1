//! What a server's answer means. Pure.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;

use crate::event::EventTime;
use crate::handler::Outcome;

/// The status by which a receiver says that it wants no more (CloudEvents Web Hooks, 2.2).
const GONE: u16 = 410;

/// How a run ended that was answered with this status. An answer that the receiver is gone is about
/// every event, and costs none of them an attempt.
pub(super) fn outcome(status: u16, server: &str) -> Outcome {
    match status {
        GONE => {
            let why = format!("{server} answers 410 Gone: it wants no more events");
            Outcome::NotStarted(Box::new(super::passing(why)))
        }
        status => Outcome::Status(status),
    }
}

/// How long the server asks to wait (RFC 9110, 10.2.3): seconds, or a date.
pub(super) fn retry_after(text: &str, now: EventTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long time.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    static DATES: DateTimeParser = DateTimeParser::new();
    let date = DATES.parse_timestamp(text).ok()?;
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

    #[test]
    fn a_receiver_that_is_gone_costs_no_attempt() {
        assert!(matches!(outcome(410, "https://h"), Outcome::NotStarted(obstacle) if obstacle.is_temporary));
        for status in [200, 204, 302, 400, 404, 500, 503] {
            assert_eq!(outcome(status, "https://h"), Outcome::Status(status));
        }
    }
}
