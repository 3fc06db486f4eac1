//! Many events in one object: as users meet it.

use std::path::PathBuf;

use super::support::{Home, NOTE, until};

/// The one file of the events.
fn segment(home: &Home) -> PathBuf {
    let mut files = home.events();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

#[test]
fn a_bulk_emit_makes_a_file_for_many_events_and_every_verb_shows_each() {
    let home = Home::new();
    let ids = home.emit_segments("order.created", 1_500);
    let files = home.events();
    assert_eq!(files.len(), 2, "a thousand in one file");
    assert!(files[0].to_str().unwrap().ends_with("-order.created.1000.ndjson"), "{files:?}");
    let text = std::fs::read_to_string(&files[1]).unwrap();
    assert_eq!(text.lines().count(), 500);

    assert_eq!(home.event_count(), 1_500);
    let newest = home.run(&["ls", "--limit", "3", "--json"]).exits(0).lines();
    assert_eq!(newest, text.lines().skip(497).collect::<Vec<_>>(), "the newest, each as it lies there");
    assert_eq!(home.run(&["ls", "-t", "order.paid"]).exits(0).out, "");
    let status = home.run(&["status", "--json"]).exits(0).out;
    assert!(status.contains("\"events\":1500"), "{status}");

    let last = ids.last().unwrap();
    let whole = home.run(&["get", last]).exits(0).out;
    assert_eq!(whole, format!("{}\n", text.lines().last().unwrap()));
    assert_eq!(home.run(&["get", last, "--field", "data.n"]).exits(0).out, "1500\n");
    assert_eq!(home.run(&["get", &last[..last.len() - 1]]).exits(1).out, "", "several lines of the segment");
    let doctor = home.run(&["doctor"]).exits(0).out;
    assert!(doctor.contains("ok   objects     1,500 events in 2 objects\n"), "{doctor}");
    assert!(!doctor.contains("foreign"), "{doctor}");
}

#[test]
fn a_handler_gets_its_own_event_and_prune_deletes_the_file_when_all_are_done() {
    let home = Home::new();
    let ids = home.emit_segments("t", 20);
    let handler = "cat > stdin; cmp stdin $EVBUS_FILE && [ $(wc -l < stdin) = 1 ] && $EVBUS get --field id >> seen
        [ $(wc -l < seen) -ne 5 ] || exit 65";
    let ran = home.run(&["drain", "-g", "g", "--from", "earliest", "--shell", handler]).exits(0);
    assert!(ran.err.contains(&ids[4]), "{}", ran.err);
    assert_eq!(home.lines("seen"), ids);
    assert_eq!(home.run(&["prune", "--keep", "1h"]).exits(0).lines().len(), 1);
    assert_eq!(home.event_count(), 20);
    // Every verb names an event by the id that emit has printed.
    let shown = home.run(&["dead", "show", "g", &ids[4]]).exits(0).out;
    assert!(shown.contains(&ids[4]), "{shown}");
    // The dead letter holds the event; its file may go.
    until("the drain may pass them", || {
        home.run(&["drain", "-g", "g", "--", "true"]).exits(0);
        home.run(&["prune", "--keep", "0s"]).exits(0);
        home.events().is_empty()
    });
    home.run(&["dead", "redrive", "g", "--all", "--yes"]).exits(0);
    home.run(&["drain", "-g", "g", "--shell", NOTE]).exits(0);
    assert_eq!(home.lines("seen")[20], ids[4]);
}

#[test]
fn prune_keeps_a_segment_of_which_one_event_is_needed() {
    let home = Home::new();
    home.emit_segments("t", 10);
    let fails = "echo >> seen; [ $(wc -l < seen) -ne 3 ]";
    let drain = ["drain", "-g", "g", "--from", "earliest", "--backoff", "1h..1h", "--shell", fails];
    home.run(&drain).exits(0);
    until("the others are passed", || {
        home.run(&["drain", "-g", "g", "--backoff", "1h..1h", "--shell", "true"]);
        let marker = std::fs::read_to_string(newest_marker(&home)).unwrap();
        marker.contains("\"done\":[]")
    });
    let kept = home.run(&["prune", "--keep", "0s"]).exits(0).out;
    assert!(kept.contains("10"), "{kept}");
    assert_eq!(home.event_count(), 10);
}

fn newest_marker(home: &Home) -> PathBuf {
    let files = std::fs::read_dir(home.bus().join("state/g")).unwrap().map(|entry| entry.unwrap().path());
    let version = |path: &PathBuf| path.extension().and_then(|end| end.to_str()?.parse::<u64>().ok());
    files.max_by_key(version).unwrap()
}

#[test]
fn data_over_several_lines_is_one_line_of_a_segment() {
    let home = Home::new();
    let pretty = "[\n  {\n    \"n\": 1,\n    \"text\": \"a\\nb\"\n  },\n  {\n    \"n\": 2\n  },\n  3\n]\n";
    let ids = home.feed(&["emit", "t", "--ndjson"], pretty).exits(0).lines();
    assert_eq!(std::fs::read_to_string(segment(&home)).unwrap().lines().count(), 3);
    home.run(&["drain", "-g", "g", "--from", "earliest", "--shell", NOTE]).exits(0);
    assert_eq!(home.lines("seen"), ids);
    assert_eq!(home.run(&["get", &ids[0], "--field", "data.text"]).exits(0).out, "a\nb\n");
}

#[test]
fn a_file_each_where_it_is_asked_for() {
    let home = Home::new();
    home.emit_many("t", 3);
    assert_eq!(home.events().len(), 3);
    // One event alone is a file as any other, and is found by its id.
    let ids = home.emit_segments("one", 1);
    assert_eq!(home.events().len(), 4);
    assert!(home.run(&["get", &ids[0]]).exits(0).out.contains("\"one\""));
    assert!(home.run(&["get", &ids[0][..24]]).exits(0).out.contains("\"one\""));

    let other = home.path().join("other");
    let bus = other.to_str().unwrap();
    home.run(&["init", "--segments", "off", bus]).exits(0);
    home.run(&["init", bus]).exits(0);
    home.run(&["init", "--segments", "on", bus]).exits(2).says("has no segments", "move");
    home.feed(&["--bus", bus, "emit", "t", "--ndjson"], "1\n2\n3\n").exits(0);
    let listed = home.shell("find other/events -type f").exits(0);
    assert_eq!(listed.lines().len(), 3);
}

#[test]
fn a_bus_of_the_first_format_gets_no_segments() {
    let home = Home::new();
    let settings = std::fs::read_to_string(home.bus().join("bus.json")).unwrap();
    std::fs::write(home.bus().join("bus.json"), settings.replace("\"format\":2", "\"format\":1")).unwrap();
    home.emit_segments("t", 3);
    assert_eq!(home.events().len(), 3);
}

#[test]
fn a_line_that_is_no_event_is_a_dead_letter_and_hides_no_other() {
    let home = Home::new();
    let ids = home.emit_segments("t", 4);
    let path = segment(&home);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    // The second is no event, the fourth is missing.
    std::fs::write(&path, format!("{}\n{{\"specversion\":\"1.\n{}\n", lines[0], lines[2])).unwrap();
    let ran = home.run(&["drain", "-g", "g", "--from", "earliest", "--shell", NOTE]).exits(0);
    home.snapshot("a_line_that_is_no_event_is_a_dead_letter_and_hides_no_other", &ran);
    assert_eq!(home.lines("seen"), [ids[0].clone(), ids[2].clone()]);
    assert_eq!(home.run(&["dead", "ls", "g"]).exits(0).lines().len(), 3);
    // A line that the name does not count is no event of the bus.
    std::fs::write(&path, format!("{text}{}\n", lines[0])).unwrap();
    assert_eq!(home.event_count(), 4);
}

#[test]
fn the_events_of_a_removed_segment_become_dead_letters() {
    let home = Home::new();
    home.emit_segments("t", 3);
    home.run(&["group", "create", "g", "--from", "earliest"]).exits(0);
    // All of them have failed once, and are tried again by another process.
    home.run(&["drain", "-g", "g", "--backoff", "0s..0s", "-j", "3", "--max", "3", "--shell", "exit 1"]);
    std::fs::remove_file(segment(&home)).unwrap();
    home.run(&["drain", "-g", "g", "--backoff", "0s..0s", "--shell", NOTE]).exits(0);
    assert!(home.lines("seen").is_empty());
    let dead = home.run(&["dead", "ls", "g"]).exits(0);
    assert_eq!(dead.lines().len(), 4, "{}", dead.out);
}

#[test]
fn an_event_over_the_size_of_a_segment_has_a_file_of_its_own() {
    let home = Home::new();
    let bus = home.path().join("large");
    let bus = bus.to_str().unwrap();
    home.run(&["init", "--max-event", "4MiB", bus]).exits(0);
    let long = "x".repeat(2 << 20);
    let ids =
        home.feed(&["--bus", bus, "emit", "t", "--ndjson"], &format!("1\n2\n\"{long}\"\n3\n4\n")).exits(0).lines();
    let listed = home.shell("find large/events -type f | sort").exits(0).lines();
    assert_eq!(listed.len(), 3, "{listed:?}");
    assert!(listed[0].ends_with(".2.ndjson") && listed[1].ends_with("-t.json"), "{listed:?}");
    assert_eq!(home.run(&["--bus", bus, "ls"]).exits(0).lines().len(), 5);
    let data = home.run(&["--bus", bus, "get", &ids[2], "--field", "data"]).exits(0).out;
    assert_eq!(data.len(), long.len() + 1);
}

#[test]
fn an_ordered_group_runs_the_events_of_a_key_in_their_order() {
    let home = Home::new();
    let lines: String = (0..40).map(|n| format!("{n}\n")).collect();
    for key in ["a", "b"] {
        home.feed(&["emit", "t", "--ndjson", "--key", key], &lines).exits(0);
    }
    let note = "echo $EVBUS_KEY $($EVBUS get --field data) >> seen";
    home.run(&["drain", "-g", "g", "--from", "earliest", "--ordered", "-j", "4", "--shell", note]).exits(0);
    for key in ["a", "b"] {
        let own: Vec<String> = home.lines("seen").into_iter().filter(|line| line.starts_with(key)).collect();
        assert_eq!(own, (0..40).map(|n| format!("{key} {n}")).collect::<Vec<_>>());
    }
}

#[test]
fn a_watcher_runs_the_events_of_a_segment_that_comes_and_tail_shows_them() {
    let home = Home::new();
    home.run(&["group", "create", "g", "--shards", "4"]).exits(0);
    let mut watch = home.spawn(&["watch", "-q", "-g", "g", "-j", "2", "--shell", NOTE]);
    let mut tail = home.shell_spawn("exec $EVBUS tail -n 0 > tail");
    until("the watcher owns something", || !home.emit_many("first", 1).is_empty() && !home.lines("seen").is_empty());
    let ids = home.emit_segments("t", 200);
    until("all have run", || ids.iter().all(|id| home.lines("seen").contains(id)));
    until("all are shown", || ids.iter().all(|id| home.lines("tail").iter().any(|line| line.contains(id.as_str()))));
    for child in [&mut watch, &mut tail] {
        super::support::signal(child, "TERM");
        child.wait().unwrap();
    }
    let seen = home.lines("seen");
    assert!(ids.iter().all(|id| seen.iter().filter(|line| line == &id).count() == 1), "each once");
}

#[test]
fn a_batch_takes_the_events_of_a_segment_together() {
    let home = Home::new();
    let ids = home.emit_segments("t", 300);
    let count = "wc -l >> sizes";
    home.run(&["drain", "-g", "g", "--from", "earliest", "--batch", "100", "--shell", count]).exits(0);
    let sizes: Vec<usize> = home.lines("sizes").iter().map(|line| line.trim().parse().unwrap()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), ids.len());
    assert!(sizes.len() <= 6, "{sizes:?}");
}

#[test]
fn a_bus_of_the_format_without_segments_can_be_upgraded() {
    let home = Home::new();
    let settings = home.bus().join("bus.json");
    let old = std::fs::read_to_string(&settings).unwrap().replace("\"format\":2", "\"format\":1");
    std::fs::write(&settings, &old).unwrap();
    home.emit_segments("t", 3);
    assert_eq!(home.events().len(), 3, "readers of that format know no segments");
    let told = home.run(&["doctor"]).exits(0).out;
    assert!(told.contains("warn bus.json    format 1") && told.contains("cure: evbus upgrade lets bulk"), "{told}");

    let upgraded = home.run(&["upgrade"]).exits(0).out;
    assert!(upgraded.starts_with("upgraded the bus ") && upgraded.ends_with(" from format 1 to 2\n"), "{upgraded}");
    assert!(home.run(&["upgrade"]).exits(0).out.ends_with(" has format 2 already\n"));
    assert_eq!(std::fs::read_to_string(&settings).unwrap(), old, "it is never changed");
    home.emit_segments("t", 3);
    // The drain raises the frontier, which names the format.
    home.run(&["drain", "-g", "g", "--from", "earliest", "--shell", NOTE]).exits(0);
    assert_eq!(home.lines("seen").len(), 6);
    until("the frontier was raised", || {
        home.run(&["drain", "-g", "g", "--", "true"]).exits(0);
        home.bus().join("frontier.2").exists()
    });
    home.emit_segments("t", 3);
    assert_eq!(home.events().len(), 5);

    // A format that is newer than this evbus stops it, whichever document names it.
    std::fs::write(home.bus().join("frontier.99"), "{\"w\":\"00000101T000000.000000Z\",\"format\":3}\n").unwrap();
    home.run(&["ls"]).exits(1).says("has format 3, newer than this evbus reads (2)", "upgrade evbus on this machine");
}
