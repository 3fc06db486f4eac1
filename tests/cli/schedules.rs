//! Schedules of the config: each time one event, whoever serves it.

use std::collections::BTreeSet;

use super::support::{Home, NOTE, signal, unique, until};

/// A home whose config has these schedules, and a watcher that notes ids.
fn home(schedules: &str) -> (Home, String) {
    let home = Home::new();
    let text = format!("{schedules}\n[watchers.w]\ntypes = ['tick.**']\nfrom = 'earliest'\nshell = '{NOTE}'\n");
    let config = home.file("evbus.toml", &text).to_str().unwrap().to_owned();
    (home, config)
}

const TICK: &str =
    "[schedules.tick]\nevery = '1s'\ntype = 'tick.due'\ncatch_up = 'all'\ndata = { full = true, n = [1, 2.5] }\n";

/// The seconds of ids such as `tick@2026-11-30T08:00:01Z`, since the first one.
fn seconds(ids: &[String]) -> Vec<i64> {
    let second = |id: &String| {
        let time = id.strip_prefix("tick@").unwrap_or_else(|| panic!("{id}"));
        time.parse::<jiff::Timestamp>().unwrap().as_second()
    };
    let first = ids.first().map_or(0, second);
    ids.iter().map(|id| second(id) - first).collect()
}

#[test]
fn every_time_is_one_event_though_hosts_are_killed() {
    let (home, config) = home(TICK);
    let watch = || home.spawn(&["watch", "-q", "--config", &config]);
    let (mut first, mut second) = (watch(), watch());
    until("the first times have come", || unique(home.lines("seen")).len() >= 2);
    signal(&first, "KILL");
    first.wait().unwrap();
    let mut third = watch();
    until("more times have come", || unique(home.lines("seen")).len() >= 4);
    for worker in [&mut second, &mut third] {
        signal(worker, "KILL");
        worker.wait().unwrap();
    }
    // While nobody serves it times pass; a drain makes up for them, and handles their events.
    until("a drain has handled later ones", || {
        home.run(&["drain", "-q", "--wait", "--config", &config]).exits(0);
        unique(home.lines("seen")).len() >= 7
    });
    let ids: Vec<String> = home.run(&["ls", "--json", "-n", "0"]).exits(0).lines();
    let id =
        |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    // A host that is killed between a put and its record leaves a copy.
    let ids = unique(ids.iter().map(id).collect());
    assert_eq!(
        seconds(&ids),
        (0..i64::try_from(ids.len()).unwrap()).collect::<Vec<_>>(),
        "each once, and none missing"
    );
    let seen: BTreeSet<String> = home.lines("seen").into_iter().collect();
    assert!(ids.iter().all(|id| seen.contains(id)), "{ids:?} {seen:?}");
    let event = home.run(&["get", &ids[0]]).exits(0).out;
    assert!(event.contains(r#""full":true"#) && event.contains("[1,2.5]"), "{event}");
}

#[test]
fn what_comes_next_is_shown_and_what_is_late_is_told() {
    let (home, config) = home("[schedules.nightly]\ncron = '0 2 * * *'\ntimezone = 'UTC'\ntype = 'tick.nightly'\n");
    let with = |words: &[&str]| home.run(&[words, &["--config", &config]].concat());
    let next = with(&["ls", "--scheduled"]).exits(0);
    assert!(next.out.contains("tick.nightly") && next.out.contains("nightly@"), "{}", next.out);
    assert_eq!(with(&["ls", "--scheduled", "-t", "order.*"]).exits(0).lines().len(), 0);
    let checked = with(&["check"]).out;
    assert!(checked.contains("schedule nightly: tick.nightly by 0 2 * * * UTC, next "), "{checked}");
    with(&["drain", "-q"]).exits(0);
    let status = with(&["status"]).exits(0).out;
    assert!(status.contains("SCHEDULE") && !status.contains("has been due"), "{status}");
    // As if the last one had been served long ago.
    let record = r#"{"served":{"0 2 * * * UTC":"20261101T020000.000000Z"}}"#;
    let kept = home.shell(&format!(
        "f=$(ls -d $EVBUS_URL/schedules/nightly.json*); test -d $f && f=$f/$(ls $f | tail -n 1); echo '{record}' > $f"
    ));
    kept.exits(0);
    let status = with(&["status", "--max-lag", "1h"]).exits(3);
    assert!(status.out.contains("schedule 'nightly': has been due for"), "{}", status.out);
    assert!(status.err.contains("schedule 'nightly' has been due for"), "{}", status.err);
    let served = with(&["drain"]).exits(0);
    assert!(served.err.contains("passed while nothing served it"), "{}", served.err);
    assert_eq!(home.lines("seen").len(), 1, "the last one is made up for");
}

#[test]
fn mistakes_are_named_with_their_line() {
    for (text, line, word) in [
        ("type = 't'\n", 1, "says not when"),
        ("cron = '0 2 * *'\ntype = 't'\n", 2, "4 fields"),
        ("cron = '61 2 * * *'\ntype = 't'\n", 2, "61"),
        ("cron = '0 0 30 2 *'\ntype = 't'\n", 2, "never due"),
        ("every = '10ms'\ntype = 't'\n", 2, "less than 1s"),
        ("every = '1h'\ncron = '@daily'\ntype = 't'\n", 2, "leave one out"),
        ("every = '1h'\ntimezone = 'UTC'\ntype = 't'\n", 3, "for cron alone"),
        ("cron = '@daily'\ntimezone = 'Mars/Base'\ntype = 't'\n", 3, "no time zone"),
        ("every = '1m'\ntype = 't'\njitter = '40s'\n", 4, "half of the time"),
        ("cron = '@daily'\n", 1, "has no type"),
        ("cron = '@daily'\ntype = ''\n", 3, "empty token"),
        ("cron = '@daily'\ntype = 'a.*'\n", 3, "patterns use"),
        ("cron = '@daily'\ntype = 't'\ncatch_up = 'most'\n", 4, "'most' is none of none, last and all"),
    ] {
        let (home, config) = home(&format!("[schedules.s]\n{text}"));
        let ran = home.run(&["check", "--config", &config]).exits(2);
        assert!(ran.err.contains(&format!("evbus.toml:{line}: ")) && ran.err.contains(word), "{text}: {}", ran.err);
        assert!(ran.err.lines().count() <= 2, "{}", ran.err);
    }
}
