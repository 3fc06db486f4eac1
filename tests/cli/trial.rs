//! To try things without consequences, and what keeps a handler from emitting for ever.

use super::support::{Home, NOTE, signal, sorted, until};

#[test]
fn a_handler_can_be_tried_with_one_event_outside_of_its_group() {
    let home = Home::new();
    let id = home.run(&["emit", "order.paid", r#"{"total":7}"#, "--subject", "order/1"]).exits(0).lines().remove(0);
    let ran = home.run(&["watch", "--once", &id, "--", "sh", "-c", "cat; echo $EVBUS_SUBJECT $EVBUS_ATTEMPT"]).exits(0);
    assert!(ran.out.contains(r#"{"total":7}"#) && ran.out.contains("order/1 1"), "{}", ran.out);
    assert!(ran.err.contains("no group has recorded it"), "{}", ran.err);
    let failed = home.run(&["watch", "--once", &id, "--", "sh", "-c", "echo it is wrong >&2; exit 65"]).exits(1);
    assert!(failed.err.contains("it is wrong") && failed.err.contains("exit 65"), "{}", failed.err);
    home.run(&["watch", "--once", "20990101T", "--", "true"]).exits(1).says("no event '20990101T'", "");
    // A watcher of the config, the only one that wants the event.
    let config = format!(
        "[watchers.mail]\ntypes = ['mail.*']\nshell = 'exit 9'\n\
         [watchers.orders]\ntypes = ['order.*']\nshell = '{NOTE}'\nbatch = {{ size = 10, linger = '1h' }}\n"
    );
    let config = home.file("evbus.toml", &config);
    let config = config.to_str().unwrap();
    home.run(&["watch", "-q", "--config", config, "--once", &id]).exits(0);
    assert_eq!(home.lines("seen"), [id.as_str()]);
    home.run(&["watch", "-q", "--config", config, "mail", "--once", &id]).exits(1).says("exit 9", "");
    let groups = home.run(&["group", "ls", "--json"]).exits(0).out;
    assert!(!groups.contains("\"name\""), "no group was made: {groups}");
}

#[test]
fn events_of_the_bus_can_be_run_again_without_a_group() {
    let home = Home::new();
    let ids = home.emit_many("order.paid", 30);
    home.run(&["emit", "mail.sent"]).exits(0);
    let script = format!("{NOTE}; case $EVBUS_ID in {}) exit 4;; esac", ids[7]);
    let ran = home.run(&["replay", "-t", "order.*", "-j", "3", "--", "sh", "-c", &script]).exits(1);
    assert!(ran.err.contains("29 done, 1 failed") && ran.err.contains(&format!("{}: exit 4", ids[7])), "{}", ran.err);
    assert_eq!(sorted(home.lines("seen")), sorted(ids));
    assert!(home.run(&["replay", "-n", "2", "--", "true"]).exits(0).err.contains("2 done, 0 failed"));
    home.run(&["replay"]).exits(2);
    home.run(&["replay", "-t", "t"]).exits(2).says("neither a command", "evbus replay -t 'TYPE' -- CMD");
    home.run(&["replay", "-j", "0", "--", "true"]).exits(2).says("-j 0 is not between 1 and 1000", "");
}

#[test]
fn a_signal_ends_all_that_is_to_be_run_again() {
    let home = Home::new();
    home.emit_many("t", 20);
    let mut replay = home.spawn(&["replay", "--", "sh", "-c", "echo $EVBUS_ID >> begun; sleep 60"]);
    until("the first one runs", || home.lines("begun").len() == 1);
    signal(&replay, "TERM");
    assert_eq!(replay.wait().unwrap().code(), Some(1));
    assert_eq!(home.lines("begun").len(), 1);
}

#[test]
fn an_emit_can_be_looked_at_before_it_is_made() {
    let home = Home::new();
    let shown = home.run(&["emit", "order.paid", r#"{"total":7}"#, "--dry-run", "--id", "x"]).exits(0).out;
    assert!(shown.contains(r#""id":"x""#) && shown.contains(r#"{"total":7}"#), "{shown}");
    let shown = home.shell("seq 3 | $EVBUS emit n --ndjson --dry-run").exits(0);
    assert_eq!(shown.lines().len(), 3, "{}", shown.out);
    home.shell("echo '{' | $EVBUS emit n --ndjson --dry-run").exits(2);
    home.run(&["emit", "n", "[", "--dry-run"]).exits(2);
    assert_eq!(home.event_count(), 0);
}

#[test]
fn a_chain_without_an_end_is_cut_off_and_its_types_are_named() {
    let home = Home::new();
    home.run(&["init", "--max-depth", "3", "./deep"]).exits(0);
    home.run(&["init", "--max-depth", "4", "./deep"]).exits(2).says("lets 3 events cause each other", "");
    let on_deep = |words: &[&str]| home.run(&[&["--bus", "./deep"], words].concat());
    on_deep(&["emit", "loop.start"]).exits(0);
    let forever = "case $EVBUS_TYPE in loop.a) $EVBUS emit loop.b;; *) $EVBUS emit loop.a;; esac";
    until("the chain has come to its end", || {
        on_deep(&["drain", "-q", "-g", "g", "--from", "earliest", "--max-attempts", "1", "--shell", forever]);
        !on_deep(&["dead", "ls", "g"]).out.is_empty()
    });
    assert_eq!(on_deep(&["ls"]).exits(0).lines().len(), 4);
    let why = on_deep(&["dead", "show", "g"]).exits(0).out;
    let chain = "4 events would have caused each other, and the bus allows 3: loop.b <- loop.a <- loop.b <- loop.a <- loop.start";
    assert!(why.contains(chain) && !why.contains("loop.start <- …"), "{why}");
    assert!(on_deep(&["dead", "ls", "g"]).out.contains("would have caused each other"), "the reason, and not the cure");
    assert!(why.contains(r#""causationdepth":"3""#), "{why}");
    on_deep(&["emit", "t", "--attr", "causationdepth=4"]).exits(1).says("4 events would have caused each other", "");
    // An environment that has lost the depth is as deep as its event.
    let last = on_deep(&["ls", "-t", "loop.b", "--json"]).exits(0).lines().pop().unwrap();
    let id = serde_json::from_str::<serde_json::Value>(&last).unwrap()["id"].as_str().unwrap().to_owned();
    let emit = |depth: &str| {
        let args = ["--bus", "./deep", "emit", "t", "--dry-run"];
        let mut command = home.evbus(&args);
        command.env("EVBUS_ID", &id);
        Home::ran(if depth.is_empty() { &mut command } else { command.env("EVBUS_DEPTH", depth) })
    };
    assert!(emit("").exits(0).out.contains(r#""causationdepth":"3""#));
    assert!(emit("7").exits(1).err.contains("8 events"));
}

#[test]
fn check_warns_of_a_handler_that_emits_what_it_wants() {
    let home = Home::new();
    let config = "[watchers.a]\ntypes = ['order.*']\nfrom = 'now'\nshell = 'true && evbus emit order.paid'\n\
                  [watchers.b]\ntypes = ['order.*']\nfrom = 'now'\nshell = 'evbus emit mail.sent'\n";
    let config = home.file("evbus.toml", config);
    let checked = home.run(&["check", "--config", config.to_str().unwrap()]).exits(0).err;
    assert!(checked.contains("watcher 'a': its command emits order.paid, which it wants itself"), "{checked}");
    assert!(!checked.contains("watcher 'b'"), "{checked}");
}

#[test]
fn check_shows_what_emits_by_itself_and_warns_where_no_group_wants_it() {
    let home = Home::new();
    let config = "[watchers.a]\ntypes = ['file.*']\nfrom = 'now'\nshell = 'true'\n\
                  [sources.inbox]\nfolder = 'inbox'\nafter = 'delete'\ngroups = ['a', 'b', 'elsewhere']\n[sources.scans]\nfolder = 'scans'\ntype = 'scan.arrived'\n\
                  [schedules.nightly]\ncron = '0 2 * * *'\ntype = 'backup.due'\n[schedules.hourly]\nevery = '1h'\ntype = 'tick'\n";
    let config = home.file("evbus.toml", config);
    home.run(&["group", "create", "elsewhere", "-t", "tick", "--from", "now"]).exits(0);
    let check = |args: &[&str]| home.run(&[&["check", "--config", config.to_str().unwrap()], args].concat()).exits(0);
    let said = check(&[]).err;
    assert!(said.contains("source 'scans': no group wants its scan.arrived"), "{said}");
    assert!(said.contains("schedule 'nightly': no group wants its backup.due"), "{said}");
    assert!(said.contains("source 'inbox': there is no group 'b', which it waits for: its files stay"), "{said}");
    assert!(said.contains("source 'inbox': its events are not wanted by group 'elsewhere'"), "{said}");
    assert!(said.contains("source 'inbox': cannot look into "), "{said}");
    assert!(!said.contains("group 'a'") && !said.contains("hourly"), "{said}");
    let line = check(&[]).out.lines().find(|line| line.starts_with("source inbox: ")).unwrap().to_owned();
    assert!(line.ends_with("/inbox (arrived), then deleted once a, b, elsewhere are done"), "{line}");
    let shown: serde_json::Value = serde_json::from_str(&check(&["--json"]).out).unwrap();
    assert_eq!((&shown["sources"][1]["type"], &shown["relays"]), (&"scan.arrived".into(), &serde_json::json!([])));
    assert_eq!(
        (&shown["schedules"][1]["schedule"], &shown["schedules"][1]["rule"]),
        (&"hourly".into(), &"every 3600s".into())
    );
    let metrics = home.run(&["status", "--prom", "--config", config.to_str().unwrap()]).exits(0).out;
    // The folders are not there, and a schedule that was never served is not late.
    for line in ["evbus_source_up{source=\"inbox\"} 0", "evbus_schedule_late_seconds{schedule=\"hourly\"} 0"] {
        assert!(metrics.lines().any(|shown| shown == line), "{line}: {metrics}");
    }
    std::fs::create_dir(home.path().join("inbox")).unwrap();
    std::fs::write(home.path().join("inbox/file"), "x").unwrap();
    // The other folder is not there, and one of the groups is not.
    home.run(&["drain", "--config", config.to_str().unwrap()]).exits(1);
    let metrics = home.run(&["status", "--prom", "--config", config.to_str().unwrap()]).exits(0).out;
    assert!(metrics.contains("evbus_source_up{source=\"inbox\"} 1\n"), "{metrics}");
    assert!(metrics.contains("evbus_source_files{source=\"inbox\"} 1\n"), "{metrics}");
}
