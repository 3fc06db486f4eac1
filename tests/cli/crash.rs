//! Killed workers: no event is lost, and none of their processes survives.

use super::support::{Home, signal, unique, until};

#[test]
fn no_event_is_lost_when_workers_are_killed() {
    let home = Home::new();
    let ids = home.emit_many("t", 300);
    home.run(&["group", "create", "g", "--from", "earliest", "--shards", "2"]).exits(0);
    let handler = "echo $EVBUS_ID >> seen";
    let mut kills = 0;
    while unique(home.lines("seen")).len() < 300 {
        let before = home.lines("seen").len();
        let mut watch = home.spawn(&["watch", "-q", "-g", "g", "-j", "2", "--shell", handler]);
        until("it makes some progress", || {
            home.lines("seen").len() >= before + 40 || unique(home.lines("seen")).len() == 300
        });
        signal(&watch, "KILL");
        watch.wait().unwrap();
        kills += 1;
    }
    assert!(kills >= 3, "{kills}");
    home.run(&["drain", "-g", "g", "--shell", handler]).exits(0);
    assert_eq!(unique(home.lines("seen")), super::support::sorted(ids));
    // At least once: only events that ran when their worker was killed may run again.
    assert!(home.lines("seen").len() <= 300 + kills * 60, "{}", home.lines("seen").len());
}

/// A regression: the event's file stayed, with its content.
#[test]
fn a_handler_does_not_outlive_its_killed_worker() {
    let home = Home::new();
    home.emit_many("t", 1);
    let hang = "sleep 1000 & echo $$ $! > pids.new; mv pids.new pids; wait";
    let tmp = home.path().join("tmp");
    std::fs::create_dir(&tmp).unwrap();
    let files = || std::fs::read_dir(&tmp).unwrap().count();
    let mut watch = home.evbus(&["watch", "-q", "-g", "g", "--from", "earliest", "--shell", hang]);
    let mut watch = watch.env("TMPDIR", &tmp).spawn().unwrap();
    until("the handler runs", || !home.lines("pids").is_empty());
    assert_eq!(files(), 1);
    signal(&watch, "KILL");
    watch.wait().unwrap();
    for pid in home.lines("pids").remove(0).split(' ') {
        until("the handler is gone", || !runs(pid));
    }
    until("so is the event's file", || files() == 0);
}

/// Whether a process exists and is not a zombie.
fn runs(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_handler_that_kills_its_worker_becomes_a_dead_letter() {
    let home = Home::new();
    home.emit_many("good", 3);
    home.emit_many("killer", 1);
    home.emit_many("good", 3);
    let handler = "test $EVBUS_TYPE = good && echo $EVBUS_ID >> seen || kill -9 $PPID";
    let drain = [
        "drain",
        "-g",
        "g",
        "--from",
        "earliest",
        "-j",
        "2",
        "--max-attempts",
        "3",
        "--backoff",
        "1ms..2ms",
        "--wait",
        "--shell",
        handler,
    ];
    let letters = || std::fs::read_dir(home.bus().join("state/g/dead")).map_or(0, Iterator::count);
    until("the killer is a dead letter", || {
        home.run(&drain);
        letters() == 1 && unique(home.lines("seen")).len() == 6
    });
    home.run(&drain).exits(0);
}

#[test]
fn a_killed_emit_loses_no_acknowledged_event() {
    let home = Home::new();
    let document = |n: u32| format!("{{\"specversion\":\"1.0\",\"id\":\"{n}\",\"source\":\"//s\",\"type\":\"t\"}}");
    let lines: Vec<String> = (0..3_000).map(document).collect();
    home.file("lines", &format!("{}\n", lines.join("\n")));
    let mut emit = home.command("sh").args(["-c", "exec $EVBUS emit --ndjson @lines > acked"]).spawn().unwrap();
    until("some are acknowledged", || !home.lines("acked").is_empty());
    signal(&emit, "KILL");
    emit.wait().unwrap();
    let acknowledged = home.lines("acked");
    let on_bus = home.events().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect::<String>();
    for id in &acknowledged {
        assert!(on_bus.contains(&format!("\"id\":\"{id}\"")), "{id} was acknowledged and is not there");
    }
    // A repeat with the same ids adds no acknowledged event a second time.
    assert_eq!(home.run(&["emit", "--ndjson", "@lines"]).exits(0).lines().len(), 3_000);
    home.run(&["drain", "-g", "g", "--from", "earliest", "-j", "2", "--shell", "echo $EVBUS_ID >> seen"]).exits(0);
    let seen = home.lines("seen");
    assert_eq!(unique(seen.clone()).len(), 3_000);
    for id in &acknowledged {
        assert_eq!(seen.iter().filter(|other| *other == id).count(), 1, "{id}");
    }
}
