//! `prune --archive` and `replay`: what is deleted is kept.

use std::fs;

use super::support::{Home, until};

/// All events are done with, and prune may delete them: into the archive `kept`.
fn pruned_into_archive(home: &Home) {
    let kept = home.path().join("kept");
    until("all are passed and pruned", || {
        home.run(&["drain", "-q", "-g", "g", "--from", "earliest", "--batch", "500", "--", "true"]).exits(0);
        home.run(&["prune", "--keep", "0s", "--archive", kept.to_str().unwrap()]).exits(0);
        home.events().is_empty()
    });
}

fn replayed(home: &Home, args: &[&str]) -> Vec<String> {
    let kept = home.path().join("kept");
    let all = [&["replay", "--archive", kept.to_str().unwrap()], args].concat();
    home.run(&all).exits(0).lines()
}

#[test]
fn what_is_pruned_is_kept_and_can_be_put_back() {
    let home = Home::new();
    let mut ids = home.emit_segments("order.paid", 1_200);
    ids.extend(home.emit_many("order.created", 3));
    let lines = home.run(&["ls", "--limit", "0", "--json"]).exits(0).lines();
    pruned_into_archive(&home);

    assert_eq!(replayed(&home, &[]), lines, "each as it lay there, in order");
    assert_eq!(replayed(&home, &["-t", "order.created"]), lines[1_200..]);
    assert_eq!(replayed(&home, &["--not", "order.paid", "-n", "2"]), lines[1_200..1_202]);
    assert_eq!(replayed(&home, &["--where", "data.n == 7"]), lines[6..7]);
    assert_eq!(replayed(&home, &["--until", "2020-01-01"]), [""; 0]);
    // The objects are what every tool reads.
    let objects = home.shell("find kept/segments -name '*.ndjson.zst' | sort").exits(0).lines();
    assert!(!objects.is_empty() && objects.len() < 10, "{objects:?}");

    let other = home.path().join("other");
    home.run(&["init", other.to_str().unwrap()]).exits(0);
    let back = "$EVBUS replay --archive ./kept | $EVBUS emit --bus ./other --ndjson";
    assert_eq!(home.shell(back).exits(0).lines(), ids);
    home.shell(back).exits(0);
    assert_eq!(home.run(&["ls", "--bus", other.to_str().unwrap(), "--limit", "0"]).exits(0).lines().len(), 1_203);
}

#[test]
fn an_event_that_was_archived_twice_is_replayed_once() {
    let home = Home::new();
    let mut ids = home.emit_segments("t", 30);
    home.run(&["drain", "-q", "-g", "g", "--from", "earliest", "--", "true"]).exits(0);
    // A prune that is killed between the archive and the deletes leaves this behind.
    home.shell("cp -a bus before").exits(0);
    pruned_into_archive(&home);
    home.shell("rm -r bus && mv before bus").exits(0);
    ids.extend(home.emit_many("t", 2));
    pruned_into_archive(&home);
    assert!(home.shell("find kept/segments -type f | wc -l").exits(0).out.trim() != "1");
    let ids: Vec<String> = ids.iter().map(|id| format!("\"id\":\"{id}\"")).collect();
    let lines = replayed(&home, &[]);
    assert_eq!(lines.len(), 32);
    assert!(lines.iter().zip(&ids).all(|(line, id)| line.contains(id)), "{lines:?}");
}

#[test]
fn nothing_is_deleted_that_the_archive_does_not_hold() {
    let home = Home::new();
    home.emit_many("t", 2);
    home.run(&["drain", "-q", "-g", "g", "--from", "earliest", "--", "true"]).exits(0);
    home.file("file", "");
    home.run(&["prune", "--keep", "0s", "--archive", "./file/kept"]).exits(1);
    let refused = home.run(&["prune", "--keep", "0s", "--archive", "./bus"]).exits(1);
    assert!(refused.err.contains("is a bus, and no archive"), "{}", refused.err);
    assert_eq!(home.events().len(), 2);
    // A file that is no event is kept, too; what is no file stays.
    home.emit_many("t", 2);
    let names = home.events();
    fs::write(&names[0], "not JSON\n").unwrap();
    fs::write(&names[2], "{\"n\":1}\n").unwrap();
    let marked = [b"\xef\xbb\xbf", &*fs::read(&names[3]).unwrap()].concat();
    fs::write(&names[3], marked).unwrap();
    let folder = &names[1];
    fs::remove_file(folder).unwrap();
    fs::create_dir(folder).unwrap();
    pruned_or_left(&home, 1);
    let kept = home.run(&["replay", "--archive", "./kept"]).exits(0);
    assert!(kept.err.contains("2 documents of the archive cannot be read as events"), "{}", kept.err);
    let lines = kept.lines();
    assert!(lines.len() == 1 && lines[0].starts_with('{'), "the one with a byte order mark, without it: {lines:?}");
}

/// Prunes into `kept` until only so many entries are left.
fn pruned_or_left(home: &Home, left: usize) {
    until("the rest is pruned", || {
        home.run(&["drain", "-q", "-g", "g", "--", "true"]);
        home.run(&["prune", "--keep", "0s", "--archive", "./kept"]).exits(0);
        home.shell("find bus/events -name '*.json' | wc -l").exits(0).out.trim() == left.to_string()
    });
}

#[test]
fn what_is_no_archive_is_not_replayed() {
    let home = Home::new();
    home.run(&["replay", "--archive", "./nothing"]).exits(2).says("no archive at", "prune --keep 30d --archive URL");
    let bus = home.bus();
    home.run(&["replay", "--archive", bus.to_str().unwrap()]).exits(2);
    home.shell("mkdir kept && echo '{\"archive\":2,\"created\":\"20261123T021530.123456Z\"}' > kept/archive.json")
        .exits(0);
    let newer = home.run(&["replay", "--archive", "./kept"]).exits(1);
    assert!(newer.err.contains("an archive of version 2"), "{}", newer.err);
}
