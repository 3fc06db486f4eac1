//! Groups that run only the latest of each key, and the history of what was run.

use super::support::{Home, signal, sorted, until};

/// Emits an event with a subject and a number.
fn emit(home: &Home, subject: &str, n: usize) -> String {
    home.run(&["emit", "page.saved", "--subject", subject, "-F", &format!("n={n}")]).exits(0).out.trim().to_owned()
}

const NOTE: &str = r#"echo "$EVBUS_SUBJECT $(evbus_field)" >> seen"#;

fn note() -> String {
    NOTE.replace("evbus_field", "$EVBUS get --field data.n")
}

#[test]
fn only_the_last_of_each_key_is_run() {
    let home = Home::new();
    let mut ids = Vec::new();
    for n in 0..12 {
        ids.push(emit(&home, ["a", "b", "c"][n % 3], n));
    }
    let note = note();
    let run = ["drain", "-g", "site", "--from", "earliest", "--latest", "subject", "--shell", &note];
    let drained = home.run(&run).exits(0);
    assert!(drained.err.contains("3 done, 9 superseded, 0 left"), "{}", drained.err);
    assert_eq!(sorted(home.lines("seen")), ["a 9", "b 10", "c 11"]);
    let status = home.run(&["status", "--json"]).exits(0).out;
    assert!(status.contains(r#""superseded":9"#), "{status}");
    let shown = home.run(&["history", "site", "-n", "0", "--json"]).exits(0).lines();
    let results = |word: &str| shown.iter().filter(|line| line.contains(&format!(r#""result":"{word}""#))).count();
    assert_eq!((shown.len(), results("done"), results("superseded")), (12, 3, 9));
    let superseded = shown.iter().find(|line| line.contains(&ids[0])).unwrap();
    assert!(superseded.contains(&format!(r#""by":"{}""#, ids[9])), "{superseded}");
    // By the content, and with a failure: the last one dies, and the others are done.
    let fails = "echo the cause >&2; exit 65";
    let by = ["drain", "-g", "other", "--from", "earliest", "--latest", "data.n > 5", "--shell", fails];
    let drained = home.run(&by).exits(0);
    assert!(drained.err.contains("0 done, 2 dead, 10 superseded, 0 left"), "{}", drained.err);
    let failed = home.run(&["history", "--failed"]).exits(0).out;
    assert_eq!(failed.matches("dead: exit 65 \"the cause\"\n    | the cause\n").count(), 2, "{failed}");
    assert_eq!(home.run(&["history", "site", "--failed"]).exits(0).out, "");
    home.run(&["history", "nobody"]).exits(1).says("no group 'nobody'", "evbus group ls");
}

#[test]
fn while_one_runs_the_next_waits_and_the_last_is_never_lost() {
    let home = Home::new();
    let shell =
        format!("test -e held || {{ touch begun; while [ ! -e go ]; do sleep 0.05; done; touch held; }}; {}", note());
    let args = ["watch", "-q", "-g", "site", "-j", "4", "--latest", "key", "--settle", "20ms", "--shell", &shell];
    let mut watch = home.spawn(&args);
    until("the group is there", || home.run(&["group", "ls"]).out.contains("site"));
    emit(&home, "a", 0);
    until("the first is run", || home.path().join("begun").exists());
    for n in 1..20 {
        emit(&home, "a", n);
    }
    signal(&watch, "KILL");
    watch.wait().unwrap();
    let mut watch = home.spawn(&args);
    home.file("go", "");
    until("the last is run", || home.lines("seen").contains(&"a 19".to_owned()));
    let last = emit(&home, "a", 20);
    until("one that comes later is run", || home.lines("seen").contains(&"a 20".to_owned()));
    until("it is known", || home.run(&["history", "--json"]).exits(0).out.contains(&last));
    signal(&watch, "TERM");
    assert!(watch.wait().unwrap().success());
    // Of those that waited for the killed one, and for its successor, few were run.
    assert!(home.lines("seen").len() <= 5, "{:?}", home.lines("seen"));
    let left = home.run(&["drain", "-g", "site", "--latest", "key", "--shell", "false"]).exits(0);
    assert_eq!(left.err, "", "nothing is left");
}

#[test]
fn a_history_can_be_followed_and_left_out() {
    let home = Home::new();
    let out = home.path().join("followed");
    home.emit_many("early", 3);
    let drain = |group: &str, type_: &str, shell: &str| {
        home.run(&["drain", "-q", "-g", group, "-t", type_, "--from", "earliest", "--shell", shell]).exits(0);
    };
    drain("early", "early", "true");
    let mut command = home.evbus(&["history", "--follow", "--json", "-n", "1"]);
    let mut follow = command.stdout(std::fs::File::create(&out).unwrap()).spawn().unwrap();
    until("the last one has come", || home.lines("followed").len() == 1);
    // Also the runs of a group that is made now.
    let ids = home.emit_many("t", 3);
    drain("g", "t", "echo out; echo err >&2");
    until("all have come", || home.lines("followed").len() == 4);
    signal(&follow, "TERM");
    follow.wait().unwrap();
    let lines = home.lines("followed");
    let has = |id: &String| lines.iter().any(|line| line.contains(id) && line.contains(r#""output":["out","err"]"#));
    assert!(ids.iter().all(has), "{lines:?}");
    home.emit_many("t", 3);
    home.run(&["drain", "-q", "-g", "g", "--no-history", "--", "true"]).exits(0);
    assert_eq!(home.run(&["history", "g", "--json"]).exits(0).lines().len(), 3, "nothing more is kept");
    assert_eq!(home.run(&["history", "g", "-n", "1"]).exits(0).lines().len(), 1);
    home.run(&["group", "rm", "g", "--yes"]).exits(0);
    assert!(!home.bus().join("state/g/history").exists() || home.shell("ls bus/state/g/history").out.is_empty());
}

#[test]
fn what_does_not_go_with_the_latest_is_refused() {
    let home = Home::new();
    home.run(&["group", "create", "many", "--from", "now", "--shards", "4"]).exits(0);
    let refused = |args: &[&str], says: &str| {
        home.run(&[&["drain"], args, &["--", "true"]].concat()).exits(2).says(says, "");
    };
    refused(&["-g", "many", "--latest", "subject"], "needs a group of one shard");
    refused(&["-g", "new", "--latest", "type", "--ordered"], "do not go together");
    refused(&["-g", "new", "--latest", "data."], "--latest 'data.' cannot be read at column 6");
    refused(&["-g", "new", "--settle", "1s"], "--latest");
    home.run(&["drain", "-q", "-g", "many", "--latest", "key", "--", "true"]).exits(0);
}
