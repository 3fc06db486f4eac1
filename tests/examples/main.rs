//! Everything in `examples/` must work as it stands: the tour, the crontab line, the unit and the
//! config.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use evbus::config::{Action, Watcher};
use evbus::group::GroupName;

mod container;
mod mariadb;
#[cfg(feature = "postgres")]
mod outbox;
mod postgres;
#[path = "../support/postgres.rs"]
mod postgres_server;
mod recipes;
#[path = "../support/root.rs"]
mod root;
#[path = "../support/s3.rs"]
mod s3;
#[path = "../support/until.rs"]
mod until;

const EVBUS: &str = env!("CARGO_BIN_EXE_evbus");

/// A variable that a crontab sets, and its value.
type Setting<'a> = (&'a str, &'a str);

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// A command whose environment is only the path, which leads to the program under test.
fn bare(program: &str, home: &Path) -> Command {
    let bin = home.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let evbus = bin.join("evbus");
    if !evbus.exists() {
        symlink(EVBUS, evbus).unwrap();
    }
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).env("TZ", "UTC").current_dir(home);
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    command
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

/// Both outputs of a command that must succeed.
#[track_caller]
fn succeeds(command: &mut Command) -> (String, String) {
    let output = run(command);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}\nout: {out}\nerr: {err}", output.status);
    (out, err)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_tour_kills_a_watcher_and_ends_with_a_status_where_all_is_done() {
    let home = tempfile::tempdir().unwrap();
    let (out, err) =
        succeeds(bare("bash", home.path()).arg(example("tour")).env("EVBUS", EVBUS).env("TMPDIR", home.path()));

    assert!(out.contains("$ kill -9 "), "{out}");
    assert!(err.contains("mail: took over shard 0"), "{err}");
    assert_eq!(out.matches(" order.created order/2\n").count(), 1, "caught up, once: {out}");
    assert_eq!(out.matches("| charged invoice/").count(), 3, "each invoice is charged once: {out}");
    assert!(err.contains("billing: dead after 2 attempts"), "{err}");

    let (_, status) = out.rsplit_once("$ evbus status\n").unwrap();
    let rows: Vec<Vec<&str>> = status.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows[0].starts_with(&["bus"]), "{status}");
    assert!(rows[1].starts_with(&["GROUP", "STATE", "LAG", "OLDEST", "RETRY", "DEAD"]), "{status}");
    assert!(rows[2].starts_with(&["billing", "ok", "0", "-", "0", "0"]), "{status}");
    assert!(rows[3].starts_with(&["mail", "ok", "0", "-", "0", "0"]), "{status}");
    assert_eq!(rows.len(), 4, "{status}");

    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["bin"], "the tour leaves nothing behind");
}

/// The parts that crontab(5) reads: settings, and lines of five time fields and a command.
fn read_crontab(text: &str) -> (Vec<Setting<'_>>, Vec<(Vec<&str>, &str)>) {
    let (mut settings, mut jobs) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line
            .split_once('=')
            .filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
        {
            Some(setting) => settings.push(setting),
            None => {
                let mut rest = line;
                let fields = (0..5).map(|_| {
                    let (field, after) = rest.split_once(' ').unwrap_or_else(|| panic!("too few fields: {line}"));
                    rest = after.trim_start();
                    field
                });
                let fields = fields.collect();
                jobs.push((fields, rest));
            }
        }
    }
    (settings, jobs)
}

#[test]
fn the_crontab_runs_due_events_every_minute_and_is_silent() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let crontab = fs::read_to_string(example("crontab")).unwrap();
    let (settings, jobs) = read_crontab(&crontab);

    let set: Vec<&str> = settings.iter().map(|(name, _)| *name).collect();
    assert_eq!(set, ["PATH", "EVBUS_URL", "MAILTO"]);
    let plain = |value: &str| !value.contains(['$', '"', '\'', '#']) && !value.ends_with(' ');
    assert!(settings.iter().all(|(_, value)| plain(value)), "cron takes values as they stand: {settings:?}");
    let [(fields, command), (_, alert)] = &jobs[..] else { panic!("two jobs: {jobs:?}") };
    assert_eq!(*fields, ["*"; 5]);
    assert!(!command.contains('%') && !alert.contains('%'), "cron makes a line break of '%'");

    fs::write(at("evbus.toml"), "[watchers.copy]\nfrom = 'earliest'\nshell = 'cat > copy.json'\n").unwrap();
    let bus = at("bus");
    let with_bus = |command: &mut Command| {
        command.env("EVBUS_URL", &bus);
        succeeds(command)
    };
    with_bus(bare("evbus", home.path()).args(["init"]).arg(&bus));
    let (id, _) = with_bus(bare("evbus", home.path()).args(["emit", "tick"]));
    let (out, err) = with_bus(bare("sh", home.path()).args(["-c", command]));

    assert_eq!((out.as_str(), err.as_str()), ("", ""), "cron would mail this");
    assert!(fs::read_to_string(at("copy.json")).unwrap().contains(id.trim()));

    // While all is well there is no output; once an event dies, there is something for cron to
    // mail.
    let (out, err) = with_bus(bare("sh", home.path()).args(["-c", alert]));
    assert_eq!((out.as_str(), err.as_str()), ("", ""));
    with_bus(bare("evbus", home.path()).args(["emit", "tick"]));
    with_bus(bare("evbus", home.path()).args(["drain", "-q", "-g", "copy", "--shell", "exit 65"]));
    let told = run(bare("sh", home.path()).args(["-c", alert]).env("EVBUS_URL", &bus));
    assert_eq!((told.status.code(), text(&told.stdout)), (Some(3), String::new()));
    assert_eq!(text(&told.stderr), "copy: 1 dead letter, over 0\n");
}

#[test]
fn systemd_accepts_the_units() {
    let there = Command::new("systemd-analyze").arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(there, "this test needs systemd-analyze: install the package 'systemd' (./test does)");
    let dir = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(example("evbus.service")).unwrap();
    let installed = "ExecStart=/usr/bin/evbus watch ";
    assert!(unit.contains(installed), "{unit}");

    let units = ["evbus.service", "evbus-drain.service", "evbus-drain.timer"].map(|name| {
        let (text, copy) = (fs::read_to_string(example(name)).unwrap(), dir.path().join(name));
        fs::write(&copy, text.replace("ExecStart=/usr/bin/evbus ", &format!("ExecStart={EVBUS} "))).unwrap();
        copy
    });
    let (out, err) = succeeds(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units));
    assert_eq!((out.as_str(), err.as_str()), ("", ""), "systemd-analyze verify has something to say");

    let seconds = |key: &str| -> u64 {
        let value = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap();
        value.strip_suffix('s').unwrap().parse().unwrap()
    };
    let default = Watcher::new("any".to_owned(), GroupName::parse("any").unwrap(), Action::Command(Vec::new()));
    let grace = 10;
    assert!(seconds("TimeoutStopSec") > default.stop_timeout.as_secs() + grace, "handlers get their time to end");
}

#[test]
fn evbus_accepts_the_config() {
    let home = tempfile::tempdir().unwrap();
    let bus = home.path().join("bus");
    succeeds(bare("evbus", home.path()).arg("init").arg(&bus));
    let config = example("evbus.toml");
    let (out, err) =
        succeeds(bare("evbus", home.path()).env("EVBUS_URL", &bus).arg("check").arg("--config").arg(config));
    assert_eq!(err, "", "no warnings");
    assert!(out.contains("audit") && out.contains("alarm"), "{out}");
}
