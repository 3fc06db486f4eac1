//! watch and drain: the main job.

use std::process::Stdio;

use super::support::{CliRun, Home, signal, sorted, unique, until};

/// Appends the event's id to `seen`.
const NOTE: &str = "echo $EVBUS_ID >> seen";

#[test]
fn a_drain_runs_due_events_once() {
    let home = Home::new();
    let ids = home.emit_many("order.created", 20);
    home.emit_many("other", 3);
    let drain = ["drain", "-g", "mail", "-t", "order.*", "--from", "earliest", "-j", "3", "--shell", NOTE];
    let ran = home.run(&drain).exits(0);
    home.snapshot("a_drain_runs_due_events_once", &ran);
    assert_eq!(sorted(home.lines("seen")), sorted(ids));
    let again = home.run(&drain).exits(0);
    assert_eq!((again.err.as_str(), home.lines("seen").len()), ("", 20));
}

#[test]
fn a_handler_gets_the_event_on_stdin_as_a_file_and_in_variables() {
    let home = Home::new();
    home.run(&["emit", "t", "{\"a\":1}", "--subject", "s/1", "--key", "k"]).exits(0);
    let show = "cat > in; cat \"$EVBUS_FILE\" > file; \
        echo $EVBUS_TYPE $EVBUS_SUBJECT $EVBUS_KEY $EVBUS_GROUP $EVBUS_ATTEMPT/$EVBUS_MAX_ATTEMPTS $EVBUS_URL > vars";
    home.run(&["drain", "-g", "g", "--from", "earliest", "--shell", show]).exits(0);
    let event = std::fs::read_to_string(&home.events()[0]).unwrap();
    assert_eq!(std::fs::read_to_string(home.path().join("in")).unwrap(), event);
    assert_eq!(std::fs::read_to_string(home.path().join("file")).unwrap(), event);
    assert_eq!(home.lines("vars"), [format!("t s/1 k g 1/15 {}", home.bus().display())]);
}

#[test]
fn a_failing_event_is_retried_then_dead_then_redriven() {
    let home = Home::new();
    let id = home.emit_many("t", 1).remove(0);
    let drain = [
        "drain",
        "-g",
        "g",
        "--from",
        "earliest",
        "--max-attempts",
        "2",
        "--backoff",
        "1ms..2ms",
        "--wait",
        "--shell",
        "echo run >> runs; test -e cured || { echo no database >&2; exit 7; }",
    ];
    let ran = home.run(&drain).exits(0);
    home.snapshot("a_failing_event_is_retried_then_dead_then_redriven", &ran);
    assert_eq!(home.lines("runs").len(), 2);
    let shown = home.run(&["dead", "show", "g"]).exits(0).out;
    assert!(shown.contains("exit 7") && shown.contains("no database"), "{shown}");
    home.file("cured", "");
    home.run(&["dead", "redrive", "g", &id]).exits(0);
    home.run(&drain).exits(0);
    assert_eq!(home.lines("runs").len(), 3);
    assert_eq!(home.run(&["dead", "ls", "g", "--json"]).exits(0).out.matches(&id).count(), 0);
}

#[test]
fn exit_65_is_dead_at_once_and_fails_strict() {
    let home = Home::new();
    home.emit_many("t", 1);
    home.run(&["drain", "--strict", "-g", "g", "--from", "earliest", "--shell", "exit 65"]).exits(3);
    assert_eq!(std::fs::read_dir(home.bus().join("state/g/dead")).unwrap().count(), 1);
}

#[test]
fn overlapping_drains_run_each_event_once() {
    let home = Home::new();
    let ids = home.emit_many("t", 60);
    home.run(&["group", "create", "g", "--from", "earliest"]).exits(0);
    let mut drains: Vec<_> = (0..6).map(|_| home.spawn(&["drain", "-g", "g", "-j", "2", "--shell", NOTE])).collect();
    for drain in &mut drains {
        assert!(drain.wait().unwrap().success());
    }
    home.run(&["drain", "-g", "g", "--shell", NOTE]).exits(0);
    assert_eq!(sorted(home.lines("seen")), sorted(ids));
}

#[test]
fn events_of_one_key_run_in_order_and_one_at_a_time() {
    let home = Home::new();
    let lines: String = (0..60)
        .map(|n| {
            format!(
                "{{\"specversion\":\"1.0\",\"id\":\"{n}\",\"source\":\"//s\",\"type\":\"t\",\"subject\":\"k{}\"}}\n",
                n % 3
            )
        })
        .collect();
    home.feed(&["emit", "--ndjson"], &lines).exits(0);
    let note = "echo start $EVBUS_ID >> $EVBUS_KEY; echo end $EVBUS_ID >> $EVBUS_KEY";
    home.run(&["drain", "-g", "g", "--from", "earliest", "-j", "8", "--ordered", "--shell", note]).exits(0);
    for key in 0..3 {
        let expected: Vec<String> =
            (0..20).map(|n| n * 3 + key).flat_map(|n| [format!("start {n}"), format!("end {n}")]).collect();
        assert_eq!(home.lines(&format!("k{key}")), expected);
    }
}

#[test]
fn a_watch_runs_new_events_and_stops_gracefully() {
    let home = Home::new();
    let mut watch = home.spawn(&["watch", "-g", "g", "-t", "t", "--shell", NOTE]);
    // Without a group, stored events would demand --from.
    until("the group is there", || home.bus().join("groups").exists());
    for n in 1..=5 {
        home.run(&["emit", "t"]).exits(0);
        until("the event is handled", || home.lines("seen").len() == n);
    }
    signal(&watch, "TERM");
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    // The shard was given back, so no worker waits for the lease.
    home.emit_many("t", 1);
    home.run(&["drain", "-g", "g", "--shell", NOTE]).exits(0);
    assert_eq!(home.lines("seen").len(), 6);
}

#[test]
fn a_watch_without_hints_ends_in_the_same_state() {
    let home = Home::new();
    let mut watch = home.spawn(&["watch", "-g", "g", "-t", "t", "--no-hints", "--poll", "50ms", "--shell", NOTE]);
    until("the group is there", || home.bus().join("groups").exists());
    let ids = home.emit_many("t", 10);
    until("all are handled", || home.lines("seen").len() == 10);
    signal(&watch, "INT");
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    assert_eq!(sorted(home.lines("seen")), sorted(ids));
}

#[test]
fn a_term_lets_the_running_handler_end() {
    let home = Home::new();
    home.emit_many("t", 2);
    let slow = "echo $EVBUS_ID >> begun; while ! test -e go; do sleep 0.05; done; echo $EVBUS_ID >> ended";
    let mut watch = home.spawn(&["watch", "-g", "g", "--from", "earliest", "--shell", slow]);
    until("the first handler runs", || !home.lines("begun").is_empty());
    signal(&watch, "TERM");
    home.file("go", "");
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    assert_eq!((home.lines("begun").len(), home.lines("ended").len()), (1, 1));
    home.run(&["drain", "-g", "g", "--shell", NOTE]).exits(0);
    assert_eq!(home.lines("seen").len(), 1);
}

#[test]
fn a_second_term_ends_the_handler_and_costs_no_attempt() {
    let home = Home::new();
    home.emit_many("t", 1);
    let hang = "echo run >> begun; exec sleep 1000";
    let mut watch = home.spawn(&["watch", "-g", "g", "--from", "earliest", "--shell", hang]);
    until("the handler runs", || !home.lines("begun").is_empty());
    signal(&watch, "TERM");
    until("the second signal ends it", || {
        signal(&watch, "TERM");
        watch.try_wait().unwrap().is_some()
    });
    home.run(&["drain", "-g", "g", "--shell", "echo $EVBUS_ATTEMPT > attempt"]).exits(0);
    assert_eq!(home.lines("attempt"), ["1"]);
}

#[test]
fn at_the_time_limit_a_handler_is_ended_with_its_children() {
    let home = Home::new();
    home.emit_many("t", 1);
    let hang = "sleep 1000 & echo $! > child; wait";
    let drain = ["drain", "-g", "g", "--from", "earliest", "--timeout", "1s", "--max-attempts", "1", "--shell", hang];
    let ran = home.run(&drain).exits(0);
    home.snapshot("at_the_time_limit_a_handler_is_ended_with_its_children", &ran);
    let child = home.lines("child").remove(0);
    until("the child is gone", || !std::path::Path::new(&format!("/proc/{child}")).exists());
}

#[test]
fn a_second_live_worker_with_another_command_is_warned_about() {
    let home = Home::new();
    home.emit_many("t", 1);
    home.shell("mkfifo gate").exits(0);
    let held = "echo $EVBUS_ID >> seen; read go < gate";
    let mut watch = home.spawn(&["watch", "-g", "g", "--from", "earliest", "--shell", held]);
    until("the first runs a handler", || !home.lines("seen").is_empty());
    let warning = format!(":{} runs another command for this group (sh ", watch.id());
    let same = home.run(&["drain", "-g", "g", "--shell", held]).exits(0);
    assert!(!same.err.contains(&warning), "{}", same.err);
    let other = home.run(&["drain", "-g", "g", "--shell", "true"]).exits(0);
    assert_eq!(other.err.matches(&warning).count(), 1, "{}", other.err);
    home.shell("echo go > gate").exits(0);
    signal(&watch, "TERM");
    assert!(watch.wait().unwrap().success());
}

#[test]
fn configured_watchers_run_concurrently() {
    let home = Home::new();
    home.file(
        "evbus.toml",
        "[watchers.a]\ntypes = ['a.*']\ncommand = ['sh', '-c', 'echo $EVBUS_TYPE >> seen-a']\n\
         [watchers.b]\ntypes = ['b.*']\nshell = 'echo $EVBUS_TYPE >> seen-b; exit 1'\n",
    );
    home.run(&["drain"]).exits(0);
    home.run(&["emit", "a.x"]).exits(0);
    home.run(&["emit", "b.x"]).exits(0);
    home.run(&["drain"]).exits(0);
    assert_eq!((home.lines("seen-a"), home.lines("seen-b")), (vec!["a.x".to_owned()], vec!["b.x".to_owned()]));
    home.run(&["drain", "c"]).exits(2).says("no watcher 'c'", "");
}

#[test]
fn output_is_passed_on_with_its_group_event_and_attempt() {
    let home = Home::new();
    let ids = home.emit_many("t", 2);
    let (drain, handler) =
        (["drain", "-g", "g", "--from", "earliest", "--wait"], "echo out; echo err >&2; exit $((2 - EVBUS_ATTEMPT))");
    let ran = home.run(&[&drain[..], &["--backoff", "1ms..1ms", "--shell", handler]].concat()).exits(0);
    let mut lines = ran.lines();
    lines.sort();
    let expected = ids.iter().flat_map(|id| [1, 2].map(|attempt| format!("g {id} #{attempt}| out")));
    assert_eq!(lines, sorted(expected.collect()));
    home.snapshot("output_is_passed_on_with_its_group_event_and_attempt", &ran);
    let batch = ["drain", "-g", "b", "--from", "earliest", "--batch", "9", "--shell", "echo out"];
    assert_eq!(home.run(&batch).exits(0).out, "b 2 events| out\n");
}

#[test]
fn a_closed_pipe_is_success() {
    let home = Home::new();
    home.emit_many("t", 500);
    let mut ls = home.evbus(&["ls", "--limit", "500"]).spawn().unwrap();
    drop(ls.stdout.take());
    assert_eq!(ls.wait().unwrap().code(), Some(0));
}

#[test]
fn a_paused_group_starts_no_event() {
    let home = Home::new();
    home.emit_many("t", 2);
    home.run(&["group", "create", "g", "--from", "earliest"]).exits(0);
    home.run(&["group", "pause", "g", "--why", "db restore"]).exits(0);
    let ran = home.run(&["drain", "-g", "g", "--shell", NOTE]).exits(0);
    home.snapshot("a_paused_group_starts_no_event", &ran);
    home.snapshot("a_paused_group_starts_no_event-2", &home.run(&["group", "ls", "g"]).exits(0));
    home.run(&["group", "ls", "h"]).exits(2).says("no group 'h'", "");
    home.run(&["group", "resume", "g"]).exits(0);
    home.run(&["drain", "-g", "g", "--shell", NOTE]).exits(0);
    assert_eq!(home.lines("seen").len(), 2);
}

#[test]
fn a_reset_replays_events() {
    let home = Home::new();
    let ids = home.emit_many("t", 5);
    home.run(&["drain", "-g", "g", "--from", "earliest", "--shell", NOTE]).exits(0);
    home.run(&["group", "reset", "g", "--to", "earliest"]).exits(2).says("", "--yes");
    home.run(&["group", "reset", "g", "--to", "earliest", "--yes"]).exits(0);
    home.run(&["drain", "-g", "g", "--shell", NOTE]).exits(0);
    assert_eq!((home.lines("seen").len(), unique(home.lines("seen"))), (10, sorted(ids)));
}

#[test]
fn prune_deletes_only_events_that_every_group_has_done() {
    let home = Home::new();
    home.run(&["prune", "--keep", "0s"]).exits(1).says("no groups", "");
    home.emit_many("t", 4);
    home.run(&["group", "create", "late", "--from", "earliest"]).exits(0);
    home.run(&["group", "create", "other", "-t", "x", "--from", "earliest"]).exits(0);
    let holders = home.run(&["prune", "--keep", "0s"]).exits(0).lines().join("\n");
    assert!(holders.contains("late: 4 (none yet)"), "{holders}");
    assert!(
        holders.contains("other: 4 that it has done or does not want") && holders.contains("evbus group rm other"),
        "{holders}"
    );
    assert_eq!(home.events().len(), 4);
    home.run(&["group", "rm", "other", "--yes"]).exits(0);
    home.run(&["drain", "-g", "late", "--shell", "true"]).exits(0);
    // The frontier stays behind the clock: an event younger than its lag waits for the next drain.
    until("the drain may pass them", || {
        home.run(&["drain", "-g", "late", "--shell", "true"]).exits(0);
        home.run(&["prune", "--keep", "0s"]).exits(0);
        home.events().is_empty()
    });
}

#[test]
fn tail_prints_existing_and_new_events() {
    let home = Home::new();
    let ids = home.emit_many("t", 3);
    let mut tail = home.evbus(&["tail", "-n", "2", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(tail.stdout.take().unwrap()));
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().contains(&ids[1]));
    assert!(next().contains(&ids[2]));
    let more = home.emit_many("t", 1).remove(0);
    assert!(next().contains(&more));
    signal(&tail, "TERM");
    tail.wait().unwrap();
}

#[test]
fn a_condition_filters_and_unanswered_events_are_counted() {
    let home = Home::new();
    for data in ["{\"width\":300}", "{\"width\":100}", "{\"height\":7}"] {
        home.run(&["emit", "image.uploaded", data]).exits(0);
    }
    home.run(&["emit", "other", "{\"width\":400}"]).exits(0);
    let drain = |condition: &str, line: &str| {
        let common = ["drain", "-g", "g", "-t", "image.*", "--from", "earliest", "--shell", line];
        home.run(&[&common[..], &["--where", condition]].concat())
    };
    drain("data.width >", "cat").exits(2).says("where 'data.width >' cannot be read at column 13", "");
    let first = drain("data.width > 256", "cat >> seen").exits(0);
    home.snapshot("a_condition_filters_and_unanswered_events_are_counted", &first);
    assert_eq!(home.lines("seen").len(), 1);
    let status = home.run(&["status", "g"]).exits(0).out;
    assert!(status.contains("g: where had no answer for 1 event, passed over"), "{status}");
    // The group owns the condition, as it owns the types.
    drain("data.width > 1", "cat")
        .exits(2)
        .says("wants 'image.*' where data.width > 256, not 'image.*' where", "--where 'data.width > 1'");
    home.run(&["group", "set", "g", "--where", "data.width > 1"]).exits(0);
    home.run(&["emit", "image.uploaded", "{\"width\":2}"]).exits(0);
    assert!(drain("data.width > 1", "cat >> seen").exits(0).err.contains("1 done, 0 left"));
    home.run(&["group", "set", "g", "--where", ""]).exits(0);
    home.snapshot("a_condition_filters_and_unanswered_events_are_counted-2", &home.run(&["group", "ls"]).exits(0));
}

#[test]
fn check_explains_the_result_of_a_condition() {
    let home = Home::new();
    let id = home.run(&["emit", "image.uploaded", "{\"width\":300}"]).exits(0).lines().remove(0);
    let event = home.run(&["get", &id]).exits(0).out;
    let check = |condition: &str| home.feed(&["check", "-t", "image.*", "--where", condition, "--event", "-"], &event);
    assert!(check("data.width > 256").exits(0).out.contains("and 'data.width > 256' holds"));
    assert!(check("data.width > 999").exits(1).out.contains("but 'data.width > 999' does not hold"));
    assert!(check("data.nope > 1").exits(1).out.contains("has no answer, which counts as false: No such key: nope"));
}

#[test]
fn a_broken_watcher_does_not_block_the_others() {
    let home = Home::new();
    home.file(
        "evbus.toml",
        "[watchers.good]\nshell = 'echo $EVBUS_ID >> seen'\n[watchers.lost]\ncommand = ['no-such-program']\n\
         [watchers.torn]\nshell = 'true'\n[watchers.bad]\nshell = 'exit 1'\n",
    );
    home.run(&["group", "create", "torn"]).exits(0);
    home.file("bus/groups/torn.json.9", "{");
    let ids = home.emit_many("t", 2);
    for group in ["good", "lost", "bad"] {
        home.run(&["group", "create", group, "--from", "earliest"]).exits(0);
    }
    let drain = home.run(&["drain"]).exits(2);
    home.snapshot("a_broken_watcher_does_not_block_the_others", &drain);
    assert_eq!(sorted(home.lines("seen")), sorted(ids.clone()));
    let watch = home.spawn(&["watch", "-q"]);
    let more = home.emit_many("t", 2);
    until("the good one works", || home.lines("seen").len() == 4);
    signal(&watch, "TERM");
    let watch = CliRun::of(watch.wait_with_output().unwrap());
    assert!(watch.err.contains("watcher 'lost' is not run"), "{}", watch.err);
    assert_eq!(sorted(home.lines("seen")), sorted([ids, more].concat()));
}

#[test]
fn a_handler_reads_one_field_of_its_event() {
    let home = Home::new();
    let id = home.run(&["emit", "t", "{\"path\":\"/a b\",\"n\":[1,2.50]}"]).exits(0).lines().remove(0);
    assert_eq!(home.run(&["get", &id, "--field", "data.n.1"]).exits(0).out, "2.50\n");
    home.run(&["get", &id, "--field", "data.no"]).exits(1).says("no field 'data.no'; data has n, path", "");
    home.run(&["get", "--field", "data.path"]).exits(2).says("which event?", "evbus ls");
    let line = "$EVBUS get --field data.path > path; $EVBUS get | cmp - $EVBUS_FILE";
    home.run(&["drain", "-g", "g", "--from", "earliest", "--shell", line]).exits(0);
    assert_eq!(home.lines("path"), ["/a b"]);
    home.snapshot("a_handler_reads_one_field_of_its_event", &home.run(&["status"]).exits(0));
}

#[test]
fn trace_context_propagates_through_handlers() {
    let home = Home::new();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    home.shell(&format!(
        "TRACEPARENT={parent} TRACESTATE=a=b $EVBUS emit first; TRACEPARENT=nonsense $EVBUS emit other"
    ));
    let line = "echo $EVBUS_TYPE $TRACEPARENT $TRACESTATE >> seen; [ $EVBUS_TYPE != first ] || $EVBUS emit second";
    for _ in 0..2 {
        home.run(&["drain", "-g", "g", "--from", "earliest", "--shell", line]).exits(0);
    }
    assert_eq!(
        sorted(home.lines("seen")),
        [format!("first {parent} a=b"), "other".to_owned(), format!("second {parent} a=b")]
    );
}

#[test]
fn a_batch_is_one_run_and_one_bad_event_costs_no_other_an_attempt() {
    let home = Home::new();
    let ids = home.emit_many("t", 100);
    let drain = |handler: &str| {
        let args =
            ["drain", "-g", "g", "--from", "earliest", "--batch", "100", "--max-attempts", "1", "--shell", handler];
        home.run(&args).exits(0)
    };
    let bad = &ids[62];
    let handler = format!("cat > batch; echo $EVBUS_BATCH >> runs; ! grep -q {bad} batch && cat batch >> seen");
    let ran = drain(&handler);
    home.snapshot("a_batch_is_one_run_and_one_bad_event_costs_no_other_an_attempt", &ran);
    assert_eq!(home.lines("runs")[..3], ["100", "50", "50"]);
    let id =
        |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    let mut good = ids.clone();
    good.remove(62);
    assert_eq!(sorted(home.lines("seen").iter().map(id).collect()), sorted(good));
    home.emit_many("t", 100);
    drain("cat > batch; echo $EVBUS_BATCH:$EVBUS_TYPE:$EVBUS_ID >> good; cmp batch $EVBUS_FILE");
    assert_eq!(home.lines("good"), ["100:t:"], "a hundred events are one run");
    // As text this is one line; in JSON each event is reported.
    home.emit_many("t", 100);
    let log = |format: &str| {
        let args = ["watch", "-g", format, "--from", "earliest", "--batch", "1000", "--log", format, "--shell"];
        let mut watch = home.evbus(&[&args[..], &["cat >/dev/null; touch $EVBUS_GROUP"]].concat());
        let log = home.path().join("log");
        let mut watch = watch.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
        until("the batch is done", || home.path().join(format).exists());
        signal(&watch, "TERM");
        assert_eq!(watch.wait().unwrap().code(), Some(0));
        std::fs::read_to_string(log).unwrap()
    };
    let people = log("human");
    assert!(people.contains("human: done 300 events in one run, ") && !people.contains("done 2026"), "{people}");
    let machine = log("json");
    assert_eq!(machine.matches("\"event\":\"done\"").count(), 300);
}

#[test]
fn on_dead_runs_once_per_dead_letter() {
    let home = Home::new();
    home.file(
        "evbus.toml",
        "[watchers.g]\nshell = 'echo no >&2; exit 65'\nfrom = 'earliest'\n\
         on_dead = ['sh', '-c', 'echo $EVBUS_ID $EVBUS_DEAD_WHY $EVBUS_DEAD_EXIT >> told; cat >> told; exit 3']\n",
    );
    let id = home.emit_many("t", 1).remove(0);
    let ran = home.run(&["drain"]).exits(0);
    home.snapshot("on_dead_runs_once_per_dead_letter", &ran);
    home.run(&["drain"]).exits(0);
    let told = home.lines("told");
    assert_eq!(told[0], format!("{id} exit 65 \"no\" 65"));
    assert_eq!(
        told[1..],
        home.events()
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap().trim_end().to_owned())
            .collect::<Vec<_>>()
    );
    home.file("evbus.toml", "[watchers.g]\nshell = 'true'\non_dead = ['no-such-program']\n");
    home.run(&["drain"]).exits(2).says("on_dead: handler 'no-such-program' not found", "extend PATH");
}

#[test]
fn a_group_with_a_live_worker_is_not_removed() {
    let home = Home::new();
    home.emit_many("t", 1);
    let mut watcher = home.spawn(&["watch", "-g", "g", "--from", "earliest", "--shell", NOTE]);
    until("it works", || home.lines("seen").len() == 1);
    home.run(&["group", "rm", "g", "--yes"]).exits(1).says("works for group 'g' just now", "stop it first");
    signal(&watcher, "TERM");
    assert!(watcher.wait().unwrap().success());
    home.run(&["group", "rm", "g", "--yes"]).exits(0);
    assert_eq!(home.lines("seen").len(), 1);
}

#[test]
fn a_worker_whose_bus_was_removed_ends_with_an_error() {
    let home = Home::new();
    home.emit_many("t", 1);
    let watcher = home.spawn(&["watch", "-q", "-g", "g", "--from", "earliest", "--poll", "100ms", "--shell", NOTE]);
    until("it works", || home.lines("seen").len() == 1);
    until("the bus is gone", || {
        // The worker may write into a folder that is just being emptied.
        let _ = std::fs::remove_dir_all(home.bus());
        !home.bus().exists()
    });
    let ended = CliRun::of(watcher.wait_with_output().unwrap());
    // The bus or the group, whichever the worker misses first.
    assert!(ended.code != 0 && ended.err.contains("was removed"), "{}", ended.err);
}

/// A regression: the events were taken in any order, and each shard stayed where its last one was.
#[test]
fn the_later_of_two_resets_wins() {
    let home = Home::new();
    home.emit_many("t", 40);
    home.run(&["group", "create", "g", "--from", "earliest", "--shards", "8"]).exits(0);
    home.run(&["drain", "-q", "-g", "g", "--", "true"]).exits(0);
    for to in ["now", "earliest"] {
        home.run(&["group", "reset", "g", "--to", to, "--yes"]).exits(0);
    }
    home.run(&["drain", "-q", "-g", "g", "--shell", "echo $EVBUS_ID >> seen"]).exits(0);
    assert_eq!(home.lines("seen").len(), 40);
}
