use proptest::prelude::*;

use super::*;

fn any_time() -> impl Strategy<Value = EventTime> {
    (EventTime::MIN.as_micros()..=EventTime::MAX.as_micros()).prop_map(EventTime::from_micros)
}

#[test]
fn known_times_convert_both_ways() {
    for (micros, text) in [
        (0, "19700101T000000.000000Z"),
        (-1, "19691231T235959.999999Z"),
        (951_782_400_000_000, "20000229T000000.000000Z"),
        (1_795_400_130_123_456, "20261123T021530.123456Z"),
        (i64::MIN, "00000101T000000.000000Z"),
        (i64::MAX, "99991231T235959.999999Z"),
    ] {
        assert_eq!(EventTime::from_micros(micros).to_string(), text);
        assert_eq!(EventTime::parse(text), Some(EventTime::from_micros(micros)), "{text}");
    }
}

#[test]
fn every_day_of_the_calendar_follows_the_one_before() {
    let mut expected = (0, 1, 1);
    for days in -719_528..=2_932_896 {
        assert_eq!(civil_of(days), expected);
        let (year, month, day) = expected;
        assert_eq!(days_of(year, month, day), Some(days));
        expected = if day < days_in(year, month) {
            (year, month, day + 1)
        } else if month < 12 {
            (year, month + 1, 1)
        } else {
            (year + 1, 1, 1)
        };
    }
    assert_eq!(expected, (10_000, 1, 1));
}

#[test]
fn refuses_inexact_forms() {
    for text in [
        "",
        "20261123T021530.123456",
        "20261123T021530.123456z",
        "20261123t021530.123456Z",
        "20261123 021530.123456Z",
        "20261123T021530,123456Z",
        "20261123T021530.12345Z",
        "20261123T021530.1234567Z",
        "2026+123T021530.123456Z",
        "20261123T02153:.123456Z",
        "20261123T02153/.123456Z",
        "2026112éT021530.12345Z",
        "20260230T021530.123456Z",
        "20250229T021530.123456Z",
        "19000229T021530.123456Z",
        "20261301T021530.123456Z",
        "20260001T021530.123456Z",
        "20260100T021530.123456Z",
        "20261123T240000.000000Z",
        "20261123T026000.000000Z",
        "20261123T021560.000000Z",
    ] {
        assert_eq!(EventTime::parse(text), None, "{text}");
    }
    assert!(EventTime::parse("20240229T235959.999999Z").is_some());
    assert!(EventTime::parse("20000229T235959.999999Z").is_some());
    assert_eq!("x".parse::<EventTime>(), Err(EventTimeError));
}

#[test]
fn reads_rfc3339() {
    for (text, compact) in [
        ("2026-11-23T02:15:30Z", "20261123T021530.000000Z"),
        ("2026-11-23t02:15:30z", "20261123T021530.000000Z"),
        ("2026-11-23T02:15:30.1Z", "20261123T021530.100000Z"),
        ("2026-11-23T02:15:30.123456789Z", "20261123T021530.123456Z"),
        ("2026-11-23T02:15:30.999999999999999999999999+00:00", "20261123T021530.999999Z"),
        ("2026-11-23T02:15:30-00:00", "20261123T021530.000000Z"),
        ("2026-11-23T02:15:30+05:30", "20261122T204530.000000Z"),
        ("2026-12-31T23:15:30-01:00", "20270101T001530.000000Z"),
        ("2016-12-31T23:59:60Z", "20161231T235959.999999Z"),
        ("2017-01-01T00:59:60.5+01:00", "20161231T235959.999999Z"),
        ("0000-01-01T00:00:00+01:00", "00000101T000000.000000Z"),
        ("9999-12-31T23:59:59-01:00", "99991231T235959.999999Z"),
    ] {
        assert_eq!(EventTime::from_rfc3339(text).map(|time| time.to_string()).as_deref(), Some(compact), "{text}");
    }
}

#[test]
fn refuses_invalid_rfc3339() {
    for text in [
        "",
        "2026-11-23",
        "2026-11-23T02:15:30",
        "2026-11-23T02:15Z",
        "2026-11-23 02:15:30Z",
        "2026-11-23T02:15:30.Z",
        "2026-11-23T02:15:30,5Z",
        "2026-11-23T02:15:30+0100",
        "2026-11-23T02:15:30+01",
        "2026-11-23T02:15:30+24:00",
        "2026-11-23T02:15:30+01:60",
        "2026-11-23T02:15:30Zulu",
        "2026-11-23T02:15:30.5é",
        "2026-11-23T02:15:61Z",
        "2026-11-23T24:00:00Z",
        "2026-02-30T00:00:00Z",
        "+026-02-03T00:00:00Z",
        "20261123T021530.123456Z",
    ] {
        assert_eq!(EventTime::from_rfc3339(text), None, "{text}");
    }
}

#[test]
fn arithmetic_stays_within_its_ends() {
    let second = Duration::from_secs(1);
    assert_eq!(EventTime::from_micros(EventTime::MIN.as_micros() - 1), EventTime::MIN);
    assert_eq!(EventTime::from_micros(EventTime::MAX.as_micros() + 1), EventTime::MAX);
    assert_eq!(EventTime::MAX.plus(second), EventTime::MAX);
    assert_eq!(EventTime::MIN.minus(Duration::MAX), EventTime::MIN);
    assert_eq!(EventTime::MIN.plus(Duration::MAX), EventTime::MAX);
    assert_eq!(EventTime::MAX.next(), EventTime::MAX);
    assert_eq!(EventTime::MAX.minute_end(), EventTime::MAX);
    assert_eq!(EventTime::from_micros(5).since(EventTime::from_micros(2)), Duration::from_micros(3));
    assert_eq!(EventTime::from_micros(2).since(EventTime::from_micros(5)), Duration::ZERO);
    assert_eq!(EventTime::from_micros(-1).minute_end(), EventTime::from_micros(-1));
    assert_eq!(EventTime::from_micros(0).minute_end(), EventTime::from_micros(59_999_999));
}

#[test]
fn serde_uses_the_text() {
    let time = EventTime::from_micros(0);
    let json = serde_json::to_string(&time).unwrap();
    assert_eq!(json, "\"19700101T000000.000000Z\"");
    assert_eq!(serde_json::from_str::<EventTime>(&json).unwrap(), time);
    assert!(serde_json::from_str::<EventTime>("\"1970\"").is_err());
}

proptest! {
    #[test]
    fn texts_parse_back(time in any_time()) {
        let text = time.to_string();
        prop_assert_eq!(text.len(), EventTime::LEN);
        prop_assert_eq!(EventTime::parse(&text), Some(time));
        prop_assert_eq!(EventTime::from_rfc3339(&time.to_rfc3339()), Some(time));
        let second = EventTime::parse_seconds(&time.seconds_text()).unwrap();
        prop_assert!(second <= time && time.since(second) < Duration::from_secs(1));
    }

    #[test]
    fn texts_sort_as_times_do(a in any_time(), b in any_time()) {
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        prop_assert_eq!(a.cmp(&a.next()), a.to_string().cmp(&a.next().to_string()));
    }

    #[test]
    fn a_minute_ends_where_its_text_does(time in any_time()) {
        let end = time.minute_end();
        prop_assert!(end >= time);
        prop_assert_eq!(&end.to_string()[..13], &time.to_string()[..13]);
        prop_assert!(end == EventTime::MAX || end.next().to_string()[..13] != time.to_string()[..13]);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let _ = EventTime::parse(&text);
        let _ = EventTime::from_rfc3339(&text);
    }
}
