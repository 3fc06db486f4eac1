//! What an operator sees, and how running workers react to the operator's commands.

use std::collections::BTreeSet;

use super::support::{EVBUS, Home, signal, until};

#[test]
fn get_shows_the_status_of_an_event_in_every_group() {
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
    // The states are shown on a terminal only.
    assert_eq!(home.run(&["get", &id]).exits(0).err, "");
    let command = format!("{EVBUS} get {id}");
    let output = home.command("script").args(["-qec", &command, "/dev/null"]).output().unwrap();
    let shown = super::support::CliRun::of(output);
    let lines: Vec<&str> = shown.out.lines().map(str::trim_end).collect();
    let next = lines.iter().find_map(|line| line.split_once("; next ")).map(|(_, next)| next).unwrap();
    // Then come the runs, which the workers of three groups have had.
    let (states, runs) = lines[1..].split_at(9);
    let ends = |run: &&str| run.split("  ").last().unwrap().split_once("ms ").unwrap().1.to_owned();
    assert_eq!(
        runs.iter().map(ends).collect::<Vec<_>>(),
        ["dead: exit 8 \"no\"", "done", &format!("failed: exit 7; next {next}")]
    );
    assert_eq!(
        states,
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
fn a_running_worker_applies_a_pause_and_a_new_filter() {
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
    assert!(home.lines("log").contains(&"g: wants 'b' now".to_owned()));
    home.run(&["emit", "a"]).exits(0);
    home.run(&["group", "pause", "g"]).exits(0);
    // The worker logs the pause once it has seen it; later events wait.
    until("it has heard", || home.lines("log").contains(&"g: paused".to_owned()));
    home.run(&["emit", "b"]).exits(0);
    home.run(&["group", "resume", "g"]).exits(0);
    until("it goes on", || home.lines("seen").len() == 3);
    assert_eq!(home.lines("seen"), ["a", "b", "b"], "what it no longer wants is not run");
    signal(&watch, "TERM");
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn prometheus_metrics_follow_the_conventions() {
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

#[test]
fn status_shows_running_events_and_their_worker() {
    let home = Home::new();
    let id = home.emit_many("t", 1).remove(0);
    // The gate is made before its reader, which would otherwise find no file and end.
    let made = home.command("mkfifo").arg("gate").status().unwrap();
    assert!(made.success());
    let mut watch =
        home.spawn(&["watch", "-q", "-g", "g", "--from", "earliest", "--shell", "touch runs; read forever <gate"]);
    until("the handler runs", || home.path().join("runs").exists());
    let owner = format!(":{}", watch.id());
    // All of it in one answer, because the next one may differ.
    until("its worker has said so", || {
        let status = home.run(&["status"]).exits(0).out;
        let row = status.lines().find(|line| line.starts_with("g ")).unwrap_or_default();
        status.contains(&format!("g: runs {id}, ")) && row.contains("working") && row.ends_with(&owner)
    });
    // A second pause keeps the reason of the first.
    home.run(&["group", "pause", "g", "--why", "db restore"]).exits(0);
    home.run(&["group", "pause", "g"]).exits(0);
    assert!(home.run(&["status"]).exits(0).out.contains("(db restore)"));
    std::fs::write(home.path().join("gate"), "go\n").unwrap();
    signal(&watch, "TERM");
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn suggested_commands_name_the_selected_bus() {
    let home = Home::new();
    let bus = home.path().join("other").display().to_string();
    home.run(&["init", "--bus", &bus]).exits(0);
    home.run(&["--bus", &bus, "group", "create", "g", "--from", "earliest"]).exits(0);
    home.run(&["--bus", &bus, "emit", "t"]).exits(0);
    let status = home.run(&["status", "--bus", &bus]).exits(0).out;
    assert!(status.contains(&format!("evbus --bus {bus} drain -g g -- CMD, or evbus --bus {bus} watch")), "{status}");
    home.run(&["get", "none", "--bus", &bus]).exits(1).says("no event", &format!("evbus --bus {bus} ls"));
}

#[test]
fn check_and_drain_refuse_the_same_config() {
    let home = Home::new();
    home.emit_many("t", 1);
    home.file("evbus.toml", "[watchers.a]\ncommand = ['true']\n");
    assert!(home.run(&["check"]).exits(2).out.contains("it needs from = \"earliest\""));
    home.run(&["drain"]).exits(2);
    home.file("evbus.toml", "[watchers.a]\ncommand = ['true']\nfrom = 'earliest'\n");
    home.run(&["check"]).exits(0);
    home.run(&["drain"]).exits(0);
}
