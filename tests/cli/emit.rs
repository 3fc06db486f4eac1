//! emit: what is written, what is printed, what is refused.

use super::support::{Home, unique, until};

#[test]
fn one_event_is_one_readable_file_and_its_id_is_printed() {
    let home = Home::new();
    let id = home.run(&["emit", "backup.done", "-F", "rc=0", "-f", "host=db1"]).exits(0).out;
    let events = home.events();
    assert_eq!(events.len(), 1);
    let text = std::fs::read_to_string(&events[0]).unwrap();
    assert!(text.contains(&format!("\"id\":\"{}\"", id.trim())), "{text}");
    assert!(text.contains("\"rc\":0") && text.contains("\"host\":\"db1\""), "{text}");
    assert!(std::fs::read_dir(home.bus().join("staging")).unwrap().next().is_none());
}

#[test]
fn data_is_kept_byte_for_byte() {
    let home = Home::new();
    let data = r#"{"b":1.50, "a":[1,  2],"u":"é"}"#;
    home.run(&["emit", "x", data]).exits(0);
    home.feed(&["emit", "x", "-"], data).exits(0);
    home.file("d.json", data);
    home.run(&["emit", "x", "@d.json"]).exits(0);
    for event in home.events() {
        assert!(std::fs::read_to_string(event).unwrap().contains(data));
    }
}

#[test]
fn stdin_is_not_read_unless_requested() {
    let home = Home::new();
    let line = "printf 'a\\nb\\n' | while read x; do $EVBUS emit t -q; echo $x; done";
    assert_eq!(home.shell(line).exits(0).lines(), ["a", "b"]);
}

#[test]
fn data_that_is_not_json_is_refused_with_the_cure() {
    let home = Home::new();
    home.run(&["emit", "note", "hello"]).exits(2).says("not JSON", "--text");
    home.run(&["emit", "note", "hello", "--text"]).exits(0);
    assert_eq!(home.events().len(), 1);
}

#[test]
fn a_bad_line_is_named_and_earlier_ones_are_kept() {
    let home = Home::new();
    let ran = home.feed(&["emit", "t", "--ndjson"], "{\"n\":1}\n\n{\"n\":2}\n{n:3}\n{\"n\":4}\n").exits(2);
    assert_eq!(ran.lines().len(), 2);
    home.snapshot("a_bad_line_is_named_and_earlier_ones_are_kept", &ran);
    assert_eq!(home.event_count(), 2);
}

#[test]
fn a_document_without_a_required_attribute_is_refused_by_its_name() {
    let home = Home::new();
    home.feed(&["emit", "--ndjson"], "{\"specversion\":\"1.0\",\"id\":\"1\",\"type\":\"t\"}\n")
        .exits(2)
        .says("line 1: attribute 'source' is missing", "");
}

#[test]
fn a_repeated_id_is_stored_once() {
    let home = Home::new();
    for _ in 0..3 {
        assert_eq!(home.run(&["emit", "t", "--id", "nightly-1"]).exits(0).out, "nightly-1\n");
    }
    assert_eq!(home.events().len(), 1);
    home.run(&["emit", "t", "--id", "nightly-1", "--source", "//other"]).exits(0);
    assert_eq!(home.events().len(), 2);
}

#[test]
fn a_repeated_bulk_emit_with_ids_adds_no_duplicates() {
    let home = Home::new();
    let document = |n: u32| format!("{{\"specversion\":\"1.0\",\"id\":\"{n}\",\"source\":\"//s\",\"type\":\"t\"}}\n");
    let lines: String = (0..40).chain(0..3).map(document).collect();
    assert_eq!(home.feed(&["emit", "--ndjson"], &lines).exits(0).lines().len(), 43);
    let more: String = (0..50).map(document).collect();
    let ids = home.feed(&["emit", "--ndjson"], &more).exits(0).lines();
    assert_eq!((unique(ids).len(), home.events().len()), (50, 50));
}

#[test]
fn an_event_over_the_limit_is_refused() {
    let home = Home::new();
    home.file("big.json", &format!("\"{}\"", "x".repeat(1 << 20)));
    home.run(&["emit", "t", "@big.json"]).exits(2).says("limit", "--max-event");
    assert!(home.events().is_empty());
}

#[test]
fn an_event_time_in_the_future_is_refused() {
    let home = Home::new();
    home.run(&["emit", "t", "--time", "2999-01-01T00:00:00Z"]).exits(2).says("future", "--at");
}

#[test]
fn an_event_from_a_handler_has_its_causation_id() {
    let home = Home::new();
    let id = home.run(&["emit", "first"]).exits(0).out;
    home.run(&["drain", "-g", "chain", "-t", "first", "--from", "earliest", "--shell", "$EVBUS emit second"]).exits(0);
    let second = std::fs::read_to_string(&home.events()[1]).unwrap();
    assert!(second.contains(&format!("\"causationid\":\"{}\"", id.trim())), "{second}");
    assert!(second.contains(&format!("\"correlationid\":\"{}\"", id.trim())), "{second}");
}

#[test]
fn the_default_bus_is_created_and_a_named_one_is_not() {
    let home = Home::new();
    let mut command = home.evbus(&["emit", "t"]);
    assert!(command.env_remove("EVBUS_URL").output().unwrap().status.success());
    assert!(home.path().join(".local/share/evbus/bus.json").exists());
    home.run(&["--bus", "./nowhere", "emit", "t"]).exits(2).says("no bus at", "evbus init");
    assert!(!home.path().join("nowhere").exists());
}

#[test]
fn scheduled_events_wait_and_are_released_or_cancelled() {
    let home = Home::new();
    home.run(&["group", "create", "g", "--from", "earliest"]).exits(0);
    let drain = || {
        home.run(&["drain", "-q", "-g", "g", "--shell", "echo $EVBUS_ID $EVBUS_TIME >> seen"]).exits(0);
        home.lines("seen")
    };
    let tomorrow = home.run(&["emit", "report.due", "{\"n\":1}", "--delay", "1d"]).exits(0).lines().remove(0);
    home.run(&["emit", "later", "--at", "2999-12-24 09:30", "--id", "xmas"]).exits(0);
    home.run(&["emit", "later", "--at", "2999-12-24 09:30", "--id", "xmas"]).exits(0);
    let listed = home.run(&["ls", "--scheduled"]).exits(0).lines();
    assert!(listed.len() == 2 && listed[0].contains(&tomorrow) && listed[1].contains("2999-12-24 09:30"), "{listed:?}");
    assert_eq!(home.run(&["ls"]).exits(0).out, "");
    assert_eq!(home.run(&["get", &tomorrow, "--field", "data.n"]).exits(0).out, "1\n");
    assert_eq!(drain(), Vec::<String>::new());
    assert_eq!(home.run(&["cancel", "xmas", &tomorrow[..20]]).exits(0).lines().len(), 2);
    assert_eq!(home.run(&["ls", "--scheduled"]).exits(0).out, "");
    home.run(&["cancel", "xmas"]).exits(1).says("no event 'xmas' waits", "ls --scheduled");
    // An id that does not wait does not stop the cancel of the next; the source tells apart two
    // events with one id.
    for source in ["//a", "//b"] {
        home.run(&["emit", "t", "--at", "2999-01-01", "--id", "one", "--source", source]).exits(0);
    }
    home.run(&["cancel", "one"]).exits(1).says("may mean 2 events", "--source");
    assert_eq!(home.run(&["ls", "--scheduled", "--until", "2998-12-31"]).exits(0).out, "");
    assert_eq!(home.run(&["ls", "--scheduled", "--since", "2998-12-31"]).exits(0).lines().len(), 2);
    home.run(&["emit", "t", "--delay", "2h", "--id", "soon"]).exits(0);
    assert_eq!(home.run(&["ls", "--scheduled", "--until", "3h"]).exits(0).lines().len(), 1, "in three hours, not ago");
    home.run(&["cancel", "soon"]).exits(0);
    let ran = home.run(&["cancel", "none", "one", "--source", "//a"]).exits(1);
    assert_eq!((ran.out.as_str(), ran.err.contains("no event 'none' waits")), ("cancelled one\n", true), "{}", ran.err);
    home.run(&["cancel", "one"]).exits(0);
    // Two scheduled emits of one id are one event.
    home.run(&["emit", "t", "--delay", "1h", "--id", "twice"]).exits(0);
    home.run(&["emit", "t", "--delay", "2h", "--id", "twice"]).exits(0);
    home.run(&["cancel", "twice"]).exits(0);
    assert_eq!(home.run(&["ls", "--scheduled"]).exits(0).out, "");
    // A due entry comes with the next drain, as if emitted then.
    let soon = home.run(&["emit", "t", "--delay", "2s"]).exits(0).lines().remove(0);
    until("it is overdue", || home.run(&["status", "--max-lag", "1ms"]).code == 3);
    until("status says so", || home.run(&["status"]).exits(0).out.contains("and no worker has released it"));
    until("it is due and comes", || drain().len() == 1);
    assert!(home.lines("seen")[0].starts_with(&soon));
    assert_eq!((home.run(&["ls", "--scheduled"]).exits(0).out.as_str(), home.events().len()), ("", 1));
    home.run(&["get", &soon]).exits(0);
    home.run(&["cancel", &soon]).exits(1).says("waits", "");
    let past = home.run(&["emit", "t", "--at", "2020-01-01"]).exits(0);
    assert!(past.err.contains("2020-01-01 00:00 has passed: it came at once"), "{}", past.err);
    home.run(&["emit", "t", "--at", "tomorrow"]).exits(2).says("is not a time to come (write 02:00,", "--delay");
}
