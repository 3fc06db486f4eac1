//! When a schedule is due: a cron expression in a time zone, or a period.
//!
//! Over changes of the clock, cron(8) of Debian is followed. A job whose minute and hour are no wildcards runs once a day of
//! its rule: a time that the clock skips is due right after the skip, and one that comes twice is due the first time. A job
//! with a wildcard is due whenever the clock shows one of its times.

use std::time::Duration;

use cronexpr::{Crontab, FallbackTimezoneOption, ParseOptions};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::event::EventTime;

/// The shortest period.
pub const SHORTEST: Duration = Duration::from_secs(1);

/// More than the clocks of any zone were ever changed by at once.
const LONGEST_SKIP: SignedDuration = SignedDuration::from_hours(26);

/// What stands for a whole expression, as in crontab(5).
const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// When a schedule is due.
#[derive(Debug, Clone)]
pub enum Rule {
    /// At the times of a cron expression.
    Cron(CronRule),
    /// At every multiple of a period since the Unix epoch.
    Every(Duration),
}

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub struct CronRule {
    text: String,
    crontab: Box<Crontab>,
    zone: TimeZone,
    /// The zone's name in the rule's text.
    zone_name: String,
    /// Whether its minute and hour are no wildcards.
    is_fixed: bool,
}

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not five fields.
    #[error(
        "'{text}' is no cron expression: it has {fields} fields, not minute, hour, day of month, month, day of week"
    )]
    Fields {
        /// The text.
        text: String,
        /// How many it has.
        fields: usize,
    },
    /// A field that is none.
    #[error("'{text}' is no cron expression: {why}")]
    Field {
        /// The text.
        text: String,
        /// What is wrong, in one line.
        why: String,
    },
    /// It is never due, such as on a 30th of February.
    #[error("'{text}' is never due")]
    Never {
        /// The text.
        text: String,
    },
    /// Shorter than [`SHORTEST`].
    #[error("is less than 1s")]
    TooShort,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Rule {}

impl Rule {
    /// A cron expression of five fields, or a nickname (`@daily`), in a time zone.
    ///
    /// # Errors
    /// The text is none, or is never due.
    pub fn cron(text: &str, (zone, zone_name): (TimeZone, &str)) -> Result<Self, RuleError> {
        let text = text.trim();
        let nickname = NICKNAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let five = nickname.map_or(text, |(_, five)| five);
        let fields: Vec<&str> = five.split_whitespace().collect();
        let [minute, hour, _, _, _] = fields[..] else {
            return Err(RuleError::Fields { text: text.to_owned(), fields: fields.len() });
        };
        let is_fixed = !minute.starts_with('*') && !hour.starts_with('*');
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let crontab = cronexpr::parse_crontab_with(&fields.join(" "), options).map_err(|error| {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim().trim_start_matches('^').trim().to_owned();
            RuleError::Field { text: text.to_owned(), why }
        })?;
        let rule = CronRule {
            text: fields.join(" "),
            crontab: Box::new(crontab),
            zone,
            zone_name: zone_name.to_owned(),
            is_fixed,
        };
        match rule.civil_after(DateTime::constant(2024, 1, 1, 0, 0, 0, 0)) {
            Some(_) => Ok(Self::Cron(rule)),
            None => Err(RuleError::Never { text: text.to_owned() }),
        }
    }

    /// A period, of whole milliseconds.
    ///
    /// # Errors
    /// It is too short.
    pub fn every(period: Duration) -> Result<Self, RuleError> {
        if period < SHORTEST { Err(RuleError::TooShort) } else { Ok(Self::Every(period)) }
    }

    /// The first time after `time` at which it is due; none: never again.
    pub fn next_after(&self, time: EventTime) -> Option<EventTime> {
        match self {
            Self::Every(period) => {
                let period = i64::try_from(period.as_micros()).ok()?;
                let next = (time.as_micros().div_euclid(period) + 1).checked_mul(period)?;
                Some(EventTime::from_micros(next))
            }
            Self::Cron(cron) => {
                let after = Timestamp::from_microsecond(time.as_micros()).ok()?;
                let next = if cron.is_fixed { cron.fixed_after(after) } else { cron.wildcard_after(after) };
                next.map(|next| EventTime::from_micros(next.as_microsecond()))
            }
        }
    }

    /// The shortest time between two of the next times, as far as is looked.
    pub fn shortest_gap(&self, from: EventTime) -> Option<Duration> {
        let times = std::iter::successors(self.next_after(from), |time| self.next_after(*time));
        let times: Vec<EventTime> = times.take(200).collect();
        times.windows(2).map(|pair| pair[1].since(pair[0])).min()
    }

    /// The rule as text, by which two hosts see that they have the same one.
    pub fn text(&self) -> String {
        match self {
            Self::Every(period) => format!("every {period:?}"),
            Self::Cron(cron) => format!("{} {}", cron.text, cron.zone_name),
        }
    }
}

impl CronRule {
    /// The first time after `civil` that matches, whatever any clock shows.
    fn civil_after(&self, civil: DateTime) -> Option<DateTime> {
        let from = Offset::UTC.to_timestamp(civil).ok()?;
        let next = self.crontab.find_next(from).ok()?;
        Some(next.datetime())
    }

    /// The next time of a job that runs once for each of its times.
    fn fixed_after(&self, after: Timestamp) -> Option<Timestamp> {
        let mut civil = self.zone.to_datetime(after);
        let changed = self.zone.preceding(after).next().map(|transition| transition.timestamp());
        if changed.is_some_and(|changed| changed.duration_until(after) <= LONGEST_SKIP) {
            // What the clock has skipped is looked at again.
            civil = civil.checked_sub(LONGEST_SKIP).ok()?;
        }
        loop {
            civil = self.civil_after(civil)?;
            let instant = self.instant_of(civil)?;
            if instant > after {
                return Some(instant);
            }
        }
    }

    /// When the clock first shows a time, or has skipped it.
    fn instant_of(&self, civil: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(civil).ok(),
            AmbiguousOffset::Gap { after, .. } => {
                let before_skip = after.to_timestamp(civil).ok()?;
                self.zone.following(before_skip).next().map(|transition| transition.timestamp())
            }
        }
    }

    /// The next time of a job that runs whenever the clock shows one of its times.
    fn wildcard_after(&self, after: Timestamp) -> Option<Timestamp> {
        let civil = |at: Timestamp| self.zone.to_offset(at).to_datetime(at);
        let (mut from, mut shown) = (after, civil(after));
        loop {
            let next = self.zone.to_offset(from).to_timestamp(self.civil_after(shown)?).ok()?;
            match self.zone.following(from).next().map(|transition| transition.timestamp()) {
                Some(change) if next >= change => {
                    // From the change on the clock shows other times, the first of them at the change itself.
                    from = change;
                    shown = civil(change).checked_sub(SignedDuration::from_nanos(1)).ok()?;
                }
                _ => return Some(next),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
    /// Half an hour.
    const LORD_HOWE: &str = "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0";

    fn zone(posix: &str) -> TimeZone {
        TimeZone::posix(posix).unwrap()
    }

    fn at(text: &str) -> EventTime {
        EventTime::from_micros(text.parse::<Timestamp>().unwrap().as_microsecond())
    }

    fn next(rule: &str, zone_of: &str, after: &str) -> String {
        let next = Rule::cron(rule, (zone(zone_of), "zone")).unwrap().next_after(at(after)).unwrap();
        Timestamp::from_microsecond(next.as_micros()).unwrap().to_string()
    }

    #[test]
    fn times_are_those_of_the_zone() {
        for (rule, after, wanted) in [
            ("0 2 * * *", "2026-11-30T00:59:59Z", "2026-11-30T01:00:00Z"),
            ("0 2 * * *", "2026-11-30T01:00:00Z", "2026-12-01T01:00:00Z"),
            ("@hourly", "2026-11-30T01:00:00Z", "2026-11-30T02:00:00Z"),
            ("*/20 9-17 * * mon-fri", "2026-11-28T09:00:00Z", "2026-11-30T08:00:00Z"),
            ("30 6 L * *", "2026-11-29T09:00:00Z", "2026-11-30T05:30:00Z"),
            // Of two restricted days either is enough (crontab(5)).
            ("0 0 13 * fri", "2026-11-12T23:30:00Z", "2026-11-19T23:00:00Z"),
        ] {
            assert_eq!(next(rule, BERLIN, after), wanted, "{rule}");
        }
    }

    #[test]
    fn over_changes_of_the_clock_it_is_as_cron_has_it() {
        let cases = [
            // Skipped: due right after the skip, once; the next day as ever.
            ("30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
            ("30 2 * * *", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"),
            ("30 2,14 * * *", "2026-03-28T14:00:00Z", "2026-03-29T01:00:00Z"),
            // Comes twice: due the first time.
            ("30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
            ("30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
            // A wildcard follows the clock.
            ("*/30 * * * *", "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"),
            ("*/30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T00:00:00Z"),
            ("30 * * * *", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
        ];
        for (rule, after, wanted) in cases {
            assert_eq!(next(rule, BERLIN, after), wanted, "{rule} after {after}");
        }
    }

    /// Every minute of the days around a change, against the words of cron(8).
    #[test]
    fn every_minute_around_a_change_is_as_the_clock_shows_it() {
        let rules =
            ["*/7 * * * *", "15 * * * *", "5 1-3 * * *", "0,30 2 * * *", "40 1,2 * * *", "* 2 * * *", "59 23 * * *"];
        for (posix, days) in [
            (BERLIN, ["2026-03-28T00:00:00Z", "2026-10-24T00:00:00Z"]),
            (LORD_HOWE, ["2026-04-03T00:00:00Z", "2026-10-02T00:00:00Z"]),
        ] {
            let zone = zone(posix);
            for (text, day) in rules.iter().flat_map(|rule| days.map(|day| (*rule, day))) {
                let begin: Timestamp = day.parse().unwrap();
                let end = begin + SignedDuration::from_hours(72);
                let Rule::Cron(rule) = Rule::cron(text, (zone.clone(), "zone")).unwrap() else { unreachable!() };
                let matches = |shown: DateTime| rule.civil_after(shown - SignedDuration::from_nanos(1)) == Some(shown);
                let mut wanted = BTreeSet::new();
                let (mut now, mut latest) = (begin, None::<DateTime>);
                while now < end {
                    let shown = zone.to_datetime(now);
                    let is_new = latest.is_none_or(|latest| shown > latest);
                    if matches(shown) && (is_new || !rule.is_fixed) {
                        wanted.insert(now);
                    }
                    // What the clock has skipped since a minute ago.
                    let mut skipped = latest.map_or(shown, |latest| latest + SignedDuration::from_mins(1));
                    while rule.is_fixed && skipped < shown {
                        if matches(skipped) {
                            wanted.insert(now);
                        }
                        skipped += SignedDuration::from_mins(1);
                    }
                    latest = latest.max(Some(shown));
                    now += SignedDuration::from_mins(1);
                }
                let rule = Rule::Cron(rule);
                let mut found = BTreeSet::new();
                let mut time = EventTime::from_micros(begin.as_microsecond() - 1);
                while let Some(next) = rule.next_after(time).filter(|next| next.as_micros() < end.as_microsecond()) {
                    found.insert(Timestamp::from_microsecond(next.as_micros()).unwrap());
                    time = next;
                }
                assert_eq!(found, wanted, "{text} in {posix} from {day}");
            }
        }
    }

    #[test]
    fn a_period_counts_from_the_epoch() {
        let rule = Rule::every(Duration::from_mins(15)).unwrap();
        assert_eq!(rule.next_after(at("2026-11-30T02:14:59.5Z")), Some(at("2026-11-30T02:15:00Z")));
        assert_eq!(rule.next_after(at("2026-11-30T02:15:00Z")), Some(at("2026-11-30T02:30:00Z")));
        assert_eq!(Rule::every(Duration::from_millis(999)).unwrap_err(), RuleError::TooShort);
    }

    #[test]
    fn what_is_no_rule_says_why_in_one_line() {
        for (text, word) in [
            ("0 2 * *", "4 fields"),
            ("0 2 * * * *", "6 fields"),
            ("@often", "1 fields"),
            ("60 2 * * *", "60"),
            ("0 2 * * frday", "frday"),
            ("0 0 30 2 *", "never due"),
        ] {
            let error = Rule::cron(text, (TimeZone::UTC, "UTC")).unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
