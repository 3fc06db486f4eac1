//! Regression tests for faults found in use: lost events and stuck events.

use std::os::unix::fs::symlink;

use super::support::{Home, NOTE, until};

/// The path of an event's file, with another time, identity or type in its name.
fn beside(event: &std::path::Path, from: &str, to: &str) -> std::path::PathBuf {
    let name = event.file_name().unwrap().to_str().unwrap();
    assert!(name.contains(from), "{name}");
    event.with_file_name(name.replacen(from, to, 1))
}

/// The 16 characters of hash slot and identity in an event's name.
fn identity(event: &std::path::Path) -> String {
    event.file_name().unwrap().to_str().unwrap()[24..40].to_owned()
}

#[test]
fn an_attribute_too_long_for_the_environment_stops_no_group() {
    let home = Home::new();
    let long = "x".repeat(140_000);
    let line = |id: &str, subject: &str| {
        format!(
            "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"//a\",\"type\":\"t\",\"subject\":\"{subject}\"}}\n"
        )
    };
    home.file("line", &line("1", &long));
    home.run(&["emit", "--ndjson", "@line"]).exits(2).says("'subject' is longer than 16,384 bytes", "");
    // Another writer can put such an event there.
    home.file("line", &line("1", "short"));
    home.run(&["emit", "--ndjson", "@line"]).exits(0);
    std::fs::write(&home.events()[0], line("1", &long)).unwrap();
    let good = home.emit_many("t", 2);
    let ran = home.run(&["drain", "-g", "g", "--from", "earliest", "--shell", NOTE]).exits(0);
    home.snapshot("an_attribute_too_long_for_the_environment_stops_no_group", &ran);
    assert_eq!(home.lines("seen"), good);
}

#[test]
fn a_handler_that_moves_its_event_file_affects_no_other() {
    let home = Home::new();
    let id = home.emit_many("t", 1).remove(0);
    std::fs::create_dir(home.path().join("done")).unwrap();
    home.run(&["group", "create", "b", "--from", "earliest"]).exits(0);
    let take = "echo changed >> $EVBUS_FILE; mv \"$EVBUS_FILE\" done/";
    home.run(&["drain", "-g", "a", "--from", "earliest", "--shell", take]).exits(0);
    assert_eq!(std::fs::read_dir(home.path().join("done")).unwrap().count(), 1);
    home.run(&["drain", "-g", "b", "--shell", "cat >> whole; echo $EVBUS_ID >> seen"]).exits(0);
    assert_eq!((home.lines("seen"), home.lines("whole").len()), (vec![id], 1));
}

#[test]
fn a_removed_event_becomes_a_dead_letter() {
    let home = Home::new();
    home.emit_many("t", 2);
    home.run(&["group", "create", "g", "--from", "earliest"]).exits(0);
    // Between the listing and the run, the first handler removes the second event.
    let take = "echo $EVBUS_ID >> seen; rm -f bus/events/*/*/*";
    let ran = home.run(&["drain", "-g", "g", "--shell", take]).exits(0);
    home.snapshot("a_removed_event_becomes_a_dead_letter", &ran);
    assert_eq!(home.run(&["dead", "ls", "g"]).exits(0).lines().len(), 2);
}

#[test]
fn an_id_belongs_to_one_event() {
    let home = Home::new();
    home.run(&["emit", "dump.started", "--id", "dump-1"]).exits(0);
    home.run(&["emit", "dump.started", "--id", "dump-1"]).exits(0);
    let ran = home.run(&["emit", "dump.done", "-F", "rc=1", "--id", "dump-1", "--json"]).exits(1);
    assert_eq!(ran.out, "");
    ran.says("id 'dump-1' of //", "--if-exists ok");
    home.run(&["emit", "dump.done", "--id", "dump-1", "--if-exists", "ok"]).exits(0);
    assert_eq!(home.events().len(), 1);
    // The same for a scheduled entry.
    home.run(&["emit", "dump.due", "--id", "dump-9", "--delay", "1h"]).exits(0);
    home.run(&["emit", "dump.due", "--id", "dump-9", "--delay", "2h"]).exits(0);
    for timing in [&["--delay", "2h"][..], &[]] {
        let ran = home.run(&[&["emit", "dump.done", "--id", "dump-9"], timing].concat()).exits(1);
        ran.says("id 'dump-9' of //", "--if-exists ok");
    }
    assert_eq!(home.run(&["ls", "--scheduled"]).exits(0).lines().len(), 1);
    assert_eq!(home.events().len(), 1);
    let line =
        |type_: &str| format!("{{\"specversion\":\"1.0\",\"id\":\"2\",\"source\":\"//a\",\"type\":\"{type_}\"}}\n");
    home.file("lines", &(line("a") + &line("b") + &line("a")));
    let ran = home.run(&["emit", "--ndjson", "@lines"]).exits(1);
    home.snapshot("an_id_belongs_to_one_event", &ran);
    assert_eq!(home.events().len(), 2);
}

#[test]
fn a_forged_copy_does_not_cause_an_event_to_be_skipped() {
    let home = Home::new();
    home.run(&["emit", "order.paid", "{\"victim\":1}"]).exits(0);
    let victim = home.events().remove(0);
    let whole = std::fs::read_to_string(&victim).unwrap();
    let evil = "{\"specversion\":\"1.0\",\"id\":\"evil\",\"source\":\"/evil\",\"type\":\"order.paid\"}\n";
    let year = &victim.file_name().unwrap().to_str().unwrap()[..4];
    let folder = home.bus().join("events/20200101/0000");
    std::fs::create_dir_all(&folder).unwrap();
    let identity = identity(&victim);
    let earlier = |micros: u32, slug: &str| folder.join(format!("20200101T000000.{micros:06}Z-{identity}-{slug}.json"));
    // The same identity with other content; the same id and source with other data; the same time
    // and identity with another type.
    std::fs::write(earlier(1, "order.paid"), evil).unwrap();
    std::fs::write(earlier(2, "order.paid"), whole.replace("victim", "evil")).unwrap();
    std::fs::write(beside(&victim, "order.paid", "order.sent"), whole.replace("order.paid", "order.sent")).unwrap();
    // A name in the folder of another time takes no event's place.
    std::fs::write(folder.join(victim.file_name().unwrap()), &whole).unwrap();
    assert!(year > "2020");
    let ran = home.run(&["drain", "-g", "g", "--from", "earliest", "--shell", "cat >> ran"]).exits(0);
    home.snapshot("a_forged_copy_does_not_cause_an_event_to_be_skipped", &ran);
    assert_eq!(
        home.lines("ran").iter().filter(|line| line.contains("\"victim\":1")).count(),
        2,
        "{:?}",
        home.lines("ran")
    );
    assert!(!home.lines("ran").iter().any(|line| line.contains("/evil")));
}

#[test]
fn a_huge_file_or_link_fills_no_memory_and_leaks_no_secret() {
    let home = Home::new();
    home.emit_many("t", 1);
    let event = home.events().remove(0);
    let other = |last: &str| beside(&event, &identity(&event), &format!("zz0123456789abc{last}"));
    let huge = std::fs::File::create(other("d")).unwrap();
    huge.set_len(900 << 20).unwrap();
    home.file("secret", "root's own");
    symlink(home.path().join("secret"), other("e")).unwrap();
    let line = format!("ulimit -v 2000000; exec $EVBUS drain -g g --from earliest --shell '{NOTE}'");
    let ran = home.shell(&line).exits(0);
    home.snapshot("a_huge_file_or_link_fills_no_memory_and_leaks_no_secret", &ran);
    let letters = home.shell("cat bus/state/g/dead/*").exits(0).out;
    assert!(letters.len() < 2_000 && !letters.contains("root's own"), "{letters}");
}

#[test]
fn unreadable_data_is_refused_or_dead_and_never_skipped() {
    let home = Home::new();
    home.run(&["group", "create", "g", "--where", "data.width > 256", "--from", "earliest"]).exits(0);
    let deep = format!("{{\"width\":300,\"note\":{}{}}}", "[".repeat(140), "]".repeat(140));
    for data in ["{\"width\":300,\"note\":1e999}", "{\"width\":300,\"note\":\"\\ud800\"}", &deep] {
        home.run(&["emit", "t", data]).exits(2).says("cannot be read by most readers of JSON", "--text");
    }
    home.run(&["emit", "t", "{\"width\":300}"]).exits(0);
    home.run(&["emit", "t", "{\"width\":300,\"note\":1}"]).exits(0);
    // Another writer removes the whole event.
    let event = home.events().remove(1);
    let text = std::fs::read_to_string(&event).unwrap();
    std::fs::write(&event, text.replace("\"note\":1", "\"note\":1e999")).unwrap();
    let ran = home.run(&["drain", "-g", "g", "--shell", NOTE]).exits(0);
    home.snapshot("unreadable_data_is_refused_or_dead_and_never_skipped", &ran);
}

#[test]
fn a_too_expensive_condition_is_a_dead_letter_and_blocks_no_other() {
    let home = Home::new();
    let nested = "data.l.all(x, data.l.all(y, x + y >= 0 && type == 't'))";
    home.run(&["group", "create", "g", "--where", nested, "--from", "earliest"]).exits(0);
    let list = vec!["1"; 20_000].join(",");
    home.feed(&["emit", "t", "-"], &format!("{{\"l\":[{list}]}}")).exits(0);
    home.run(&["emit", "t", "{\"l\":[1]}"]).exits(0);
    let ran = home.run(&["drain", "-g", "g", "--shell", NOTE]).exits(0);
    home.snapshot("a_too_expensive_condition_is_a_dead_letter_and_blocks_no_other", &ran);
    let chain = format!("data.x{} > 0", " + 1".repeat(8_000));
    home.run(&["group", "set", "g", "--where", &chain]).exits(2).says("more than", "");
}

/// A chain in a group's definition that an older version, or another writer, has left.
#[test]
fn an_oversized_condition_stops_only_its_own_group() {
    let home = Home::new();
    home.run(&["group", "create", "bad", "--where", "data.x > 0", "--from", "earliest"]).exits(0);
    home.emit_many("t", 1);
    let file = home.bus().join("groups/bad.json.1");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("data.x", &format!("data.x{}", " + 1".repeat(8_000)))).unwrap();
    home.run(&["drain", "-g", "good", "--from", "earliest", "--shell", NOTE]).exits(0);
    for (args, code) in [
        (vec!["status"], 0),
        (vec!["group", "ls"], 0),
        (vec!["prune", "--keep", "1s"], 0),
        (vec!["drain", "-g", "bad", "--shell", NOTE], 1),
        (vec!["group", "set", "bad", "--where", "true"], 0),
        (vec!["drain", "-g", "bad", "--shell", NOTE], 0),
    ] {
        home.run(&args).exits(code);
    }
}

/// A host's clock was years ahead for a moment.
#[test]
fn a_frontier_years_ahead_breaks_neither_status_nor_prune() {
    let home = Home::new();
    home.run(&["group", "create", "g", "--from", "earliest"]).exits(0);
    home.file("bus/frontier.1", "{\"w\":\"20910601T000000.000000Z\"}\n");
    home.run(&["emit", "t"]).exits(0);
    until("it is seen how long it waits", || home.run(&["status", "--max-lag", "1ms"]).code == 3);
    until("what is done can be pruned", || {
        home.run(&["drain", "-q", "-g", "g", "--shell", NOTE]).exits(0);
        home.run(&["prune", "--keep", "1ms"]).exits(0);
        home.events().is_empty()
    });
    assert_eq!(home.lines("seen").len(), 1);
}

/// A regression: the events after it were not shown.
#[test]
fn a_huge_file_among_the_events_hides_no_event() {
    let home = Home::new();
    let first = home.emit_many("first", 1).remove(0);
    let folder = home.bus().join("events/20200101/0000");
    std::fs::create_dir_all(&folder).unwrap();
    let huge = folder.join("20200101T000000.000000Z-zz0123456789abcd-a.json");
    std::fs::File::create(huge).unwrap().set_len(100 << 20).unwrap();
    let ran = home.run(&["ls", "--limit", "0"]).exits(0);
    assert!(ran.out.contains(&first) && ran.err.contains("warning: "), "{}{}", ran.out, ran.err);
}

/// A regression: the request was ignored. It may need any event.
#[test]
fn an_unreadable_request_holds_back_prune() {
    let home = Home::new();
    home.emit_many("t", 1);
    let drain = || home.run(&["drain", "-q", "-g", "g", "--from", "earliest", "--", "true"]).exits(0);
    let would = || home.run(&["prune", "--keep", "0s", "--dry-run"]).exits(0);
    until("it may go", || drain().code == 0 && would().out.contains("would delete 1 event"));
    let requests = home.bus().join("state/g/requests");
    std::fs::create_dir_all(&requests).unwrap();
    let odd = requests.join("000-00000000000000ff.json");
    std::fs::write(&odd, "{\"odd\":1}").unwrap();
    home.run(&["prune", "--keep", "0s"]).exits(0);
    assert_eq!(home.events().len(), 1);
    std::fs::remove_file(odd).unwrap();
    home.run(&["prune", "--keep", "0s"]).exits(0);
    assert_eq!(home.events().len(), 0);
}
