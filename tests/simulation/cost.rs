//! The requests of a bus in a bucket, counted by kind in virtual time.

use evbus::group::worker::Mode;
use evbus::store::memory::Operation;

use crate::bucket::{DAY, SimBucket};
use crate::executor::SECOND;

#[test]
fn an_idle_watcher_makes_at_most_3000_requests_a_day() {
    let bucket = SimBucket::new(1);
    bucket.emit(3, 1);
    let user = bucket.user();
    let runs = bucket.work(&user, &["one"], &Mode::Watch);
    bucket.pass(600 * SECOND);
    assert_eq!(runs.runs(), 3);
    let before = user.sum();
    bucket.pass(DAY);
    assert!(user.sum() - before <= 3_000, "{} requests a day", user.sum() - before);
}

#[test]
fn groups_of_one_process_share_their_polls() {
    let bucket = SimBucket::new(1);
    bucket.emit(3, 1);
    let user = bucket.user();
    let runs = bucket.work(&user, &["one", "two", "three"], &Mode::Watch);
    bucket.pass(600 * SECOND);
    assert_eq!(runs.runs(), 9);
    let before = user.sum();
    bucket.pass(DAY);
    assert!(user.sum() - before <= 3_000, "{} requests a day for three groups", user.sum() - before);
    // Each group gets the new events.
    let lists = user.of(Operation::List);
    bucket.emit(1, 1);
    bucket.until(|| runs.runs() == 12);
    assert!(user.of(Operation::List) - lists <= 2, "{} listings", user.of(Operation::List) - lists);
}

#[test]
fn an_event_on_an_idle_bus_costs_8_requests_from_emit_to_commit() {
    let bucket = SimBucket::new(1);
    bucket.emit(1, 1);
    let user = bucket.user();
    let runs = bucket.work(&user, &["one"], &Mode::Watch);
    bucket.pass(3_600 * SECOND);
    let marker = || bucket.contents.read("state/one/marker-000").unwrap();
    let before = user.sum();
    let emitted = bucket.emit(1, 1).sum();
    bucket.until(|| runs.runs() == 2);
    let id = bucket.contents.keys("events/").pop().unwrap();
    let name = id.rsplit('/').next().unwrap().to_owned();
    let done = || {
        let marker: serde_json::Value = serde_json::from_slice(&marker()).unwrap();
        marker["done"].as_array().is_some_and(|done| done.iter().any(|done| done.as_str() == Some(&name)))
    };
    bucket.until(done);
    let all = emitted + user.sum() - before;
    assert!(all <= 8, "{emitted} of {all} requests by emit, then {:?}", user.network.counts);
}

#[test]
fn a_backlog_costs_a_get_and_a_twentieth_of_a_request_for_each_event() {
    const EVENTS: u64 = 10_000;
    let bucket = SimBucket::new(1);
    let emitted = bucket.emit(EVENTS / 100, 100);
    assert_eq!(emitted.of(Operation::Put), EVENTS);
    assert!(emitted.sum() - EVENTS <= EVENTS / 100, "{:?}", emitted.network.counts);
    let user = bucket.user();
    let runs = bucket.work(&user, &["one"], &Mode::Drain { wait: false, most: None, span: None });
    bucket.until(|| runs.runs() == EVENTS);
    bucket.pass(60 * SECOND);
    assert_eq!(runs.runs(), EVENTS);
    let others = user.sum() - EVENTS;
    assert!(user.of(Operation::Get) >= EVENTS && others <= EVENTS / 20, "{:?}", user.network.counts);
}

/// In millionths of a cent for each event, by the prices of S3 Standard.
fn price(user: &crate::bucket::User, events: u64) -> u64 {
    let write = user.of(Operation::Put) + user.of(Operation::Cas) + user.of(Operation::List);
    (write * 500 + user.of(Operation::Get) * 40) / events
}

/// From emit to commit, at 100 events a segment, a million for at most 8 cents, and 11 by eight shards.
#[test]
fn events_in_segments_cost_a_hundredth() {
    const EVENTS: u64 = 10_000;
    for (shards, most) in [(1, 8), (8, 11)] {
        let bucket = SimBucket::new(1);
        let emitted = bucket.emit_segments(EVENTS / 100, 100);
        assert_eq!((emitted.of(Operation::Put), emitted.of(Operation::Get)), (EVENTS / 100, EVENTS / 100));
        let user = bucket.user();
        let drain = Mode::Drain { wait: false, most: None, span: None };
        let runs = bucket.work_wanting(&user, &["one"], &drain, move |group| group.shards = shards);
        bucket.until(|| runs.runs() == EVENTS);
        bucket.pass(60 * SECOND);
        assert_eq!(runs.runs(), EVENTS);
        let price = price(&emitted, EVENTS) + price(&user, EVENTS);
        println!("{shards} shards: {price} millionths of a cent; {:?}", user.network.counts);
        assert!(price <= most, "{shards} shards: {price}: {:?}", user.network.counts);
    }
}

#[test]
fn exclusion_by_type_reads_no_event_and_by_condition_reads_each_once() {
    const EVENTS: u64 = 2_000;
    let bucket = SimBucket::new(1);
    bucket.emit(EVENTS / 100, 100);
    let drain = Mode::Drain { wait: false, most: None, span: None };
    let by_type = bucket.user();
    let none = bucket.work_wanting(&by_type, &["one"], &drain, |group| group.types = vec!["no.such".to_owned()]);
    let by_condition = bucket.user();
    let neither =
        bucket.work_wanting(&by_condition, &["two"], &drain, |group| group.condition = Some("1 > 2".to_owned()));
    bucket.pass(120 * SECOND);
    assert_eq!((none.runs(), neither.runs()), (0, 0));
    assert!(by_type.sum() <= 40, "{:?}", by_type.network.counts);
    let gets = by_condition.of(Operation::Get);
    assert!((EVENTS..=EVENTS + EVENTS / 20).contains(&gets), "{:?}", by_condition.network.counts);
}
