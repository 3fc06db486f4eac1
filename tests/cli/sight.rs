//! What the operator sees, and what running workers hear of what the operator does.

use std::collections::BTreeSet;

use super::support::{EVBUS, Home, signal, until};

#[test]
fn get_tells_what_became_of_an_event_in_every_group() {
    let home = Home::new();
    let drain = |group: &str, more: &[&str], line: &str| {
        let args = ["drain", "-q", "-g", group, "--from", "earliest", "--backoff", "1h..1h", "--shell", line];
        home.run(&[&args[..8], more, &args[8..]].concat()).exits(0);
    };
    let id = home.run(&["emit", "t", "-F", "n=1"]).exits(0).lines().remove(0);
    drain("done", &[], "true");
    drain("failing", &[], "exit 7");
    drain("dead", &["--max-attempts", "1"], "echo no >&2; exit 8");
    for (group, flags) in [
        ("late", &["--from", "now"][..]),
        ("others", &["-t", "x", "--from", "earliest"]),
        ("picky", &["--where", "data.n > 1", "--from", "earliest"]),
        ("puzzled", &["--where", "data.m > 1", "--from", "earliest"]),
        ("waiting", &["--from", "earliest"]),
        ("zzz", &["--from", "earliest"]),
    ] {
        home.run(&[&["group", "create", group], flags].concat()).exits(0);
    }
    home.run(&["group", "pause", "zzz"]).exits(0);
    // The states are for a terminal.
    assert_eq!(home.run(&["get", &id]).exits(0).err, "");
    let command = format!("{EVBUS} get {id}");
    let shown = super::support::Ran::of(home.command("script").args(["-qec", &command, "/dev/null"]).output().unwrap());
    let lines: Vec<&str> = shown.out.lines().map(str::trim_end).collect();
    let next = lines.iter().find_map(|line| line.split_once("; next ")).map(|(_, next)| next).unwrap();
    assert_eq!(
        lines[1..],
        [
            "dead     dead after 1 attempt: exit 8 \"no\"   evbus dead show dead",
            "done     done",
            &format!("failing  retrying after 1 attempt: exit 7; next {next}"),
            "late     not reached: the group started behind it",
            "others   not wanted",
            "picky    not wanted: 'data.n > 1' does not hold",
            "puzzled  not wanted: 'data.m > 1' has no answer: No such key: m",
            "waiting  waiting",
            "zzz      waiting: the group is paused",
        ]
    );
}

#[test]
fn a_running_worker_hears_of_a_pause_and_of_another_filter() {
    let home = Home::new();
    let mut watch = home.evbus(&["watch", "-g", "g", "-t", "a", "--shell", "echo $EVBUS_TYPE >> seen"]);
    let log = std::fs::File::create(home.path().join("log")).unwrap();
    let mut watch = watch.stderr(log).spawn().unwrap();
    until("the group is there", || home.bus().join("groups").exists());
    home.run(&["emit", "a"]).exits(0);
    until("it works", || home.lines("seen") == ["a"]);
    home.run(&["group", "set", "g", "-t", "b"]).exits(0);
    home.run(&["emit", "b"]).exits(0);
    until("what it wants now is run", || home.lines("seen") == ["a", "b"]);
    home.run(&["emit", "a"]).exits(0);
    home.run(&["group", "pause", "g"]).exits(0);
    // It says so once it has heard; what comes after that waits.
    until("it has heard", || home.lines("log").contains(&"g: paused".to_owned()));
    home.run(&["emit", "b"]).exits(0);
    home.run(&["group", "resume", "g"]).exits(0);
    until("it goes on", || home.lines("seen").len() == 3);
    assert_eq!(home.lines("seen"), ["a", "b", "b"], "what it no longer wants is not run");
    signal(&watch, "TERM");
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn what_prometheus_reads_follows_its_conventions() {
    let home = Home::new();
    home.emit_many("t", 3);
    for group in ["a", "b"] {
        home.run(&["drain", "-q", "-g", group, "--from", "earliest", "--max-attempts", "1", "--shell", "exit 1"])
            .exits(0);
    }
    let text = home.run(&["status", "--prom"]).exits(0).out;
    let (mut described, mut names) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(name.starts_with("evbus_") && ["gauge", "counter"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            described.insert(name);
        } else if !line.starts_with("# HELP ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            for label in labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()) {
                assert!(["group", "state"].contains(&label.split('=').next().unwrap()), "bounded: {line}");
            }
            names.insert(name);
        }
    }
    assert_eq!(names.difference(&described).count(), 0, "{text}");
    assert!(names.contains("evbus_events"), "{text}");
    assert!(text.contains("{group=\"a\"} 3\n"), "three dead letters: {text}");
}
