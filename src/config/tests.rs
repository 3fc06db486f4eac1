//! The config file, from search to settings; `address` tests where the bus is.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;

use super::*;
use crate::event::EventTime;
use crate::group::history::HistoryLimits;
use crate::group::latest::{Latest, LatestKey};
use crate::group::retry::Retry;

mod address;

const FULL: &str = include_str!("../../fixtures/config/full.toml");

/// An environment whose folders are all below one root.
fn environment(root: &Path) -> Environment {
    for folder in ["home", "cwd", "etc/evbus", "home/.config/evbus"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    Environment {
        vars: [("HOME", root.join("home"))].map(|(name, value)| (name.into(), value.into())).into(),
        home: Some(root.join("home")),
        cwd: root.join("cwd"),
        uid: fs::metadata(root).unwrap().uid(),
        etc: root.join("etc"),
        now: EventTime::from_micros(1_795_396_594_000_000), // 2026-11-23T01:16:34Z
        zone: Some(TimeZone::UTC),
    }
}

fn nowhere() -> Environment {
    Environment {
        vars: std::collections::BTreeMap::new(),
        home: Some("/home/ann".into()),
        cwd: "/desk".into(),
        uid: 1000,
        etc: "/nowhere".into(),
        now: EventTime::from_micros(1_795_396_594_000_000),
        zone: Some(TimeZone::UTC),
    }
}

fn file(text: &str) -> ConfigFile {
    ConfigFile { path: "/srv/app/evbus.toml".into(), shown: "evbus.toml".to_owned(), text: text.as_bytes().to_vec() }
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(&nowhere(), &file(text)).map_err(|error| error.to_string())
}

fn resolve(environment: &Environment, config: &Config, flag: Option<&str>) -> Result<BusAddress, ConfigError> {
    BusAddress::resolve(environment, config, flag.map(OsStr::new))
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn reads_every_key() {
    let config = parse(FULL).unwrap();
    let expected = Watcher {
        name: "thumbnails".to_owned(),
        group: crate::group::GroupName::parse("thumbs").unwrap(),
        types: vec!["image.uploaded".to_owned(), "image.replaced".to_owned()],
        not: vec!["image.uploaded.test".to_owned()],
        condition: Some("data.width > 256".to_owned()),
        from: Some(StartFrom::Earliest),
        action: Action::Command(["make-thumb", "--size", "256"].map(str::to_owned).to_vec()),
        cwd: Some("/srv/app/desk/thumbs".into()),
        concurrency: 4,
        batch: Some(BatchSettings { size: 100, linger: secs(5) }),
        ordered: true,
        latest: Some(Latest { by: LatestKey::Key, settle: secs(2) }),
        history: Some(KeptHistory::Within(HistoryLimits { age: secs(86_400), bytes: 1_000_000 })),
        timeout: secs(90),
        retry: Retry { max_attempts: 3, min: secs(2), max: secs(60), jitter: false, dead_on: vec![64, 65] },
        on_dead: Some(["notify-me", "--now"].map(str::to_owned).to_vec()),
        env: Some(["PATH", "HOME", "LANG"].map(str::to_owned).to_vec()),
        poll: Some(Duration::from_millis(500)),
        hints: false,
        stop_timeout: secs(5),
        shards: Some(8),
    };
    assert_eq!(config.watchers[0], expected);
    let names: Vec<_> = config.watchers.iter().map(|watcher| watcher.name.as_str()).collect();
    assert_eq!(names, ["thumbnails", "mail", "audit"], "the order of the file");
    assert_eq!(config.bus, Some(Address::Named("bus".to_owned())));
    assert_eq!(config.path.as_deref(), Some(Path::new("/srv/app/evbus.toml")));
}

#[test]
fn fills_in_the_defaults() {
    let config = parse(FULL).unwrap();
    let mail = config.watcher("mail").unwrap();
    let line = "mail -s \"$EVBUS_TYPE\" ops@example.org";
    let group = crate::group::GroupName::parse("mail").unwrap();
    let expected = Watcher::new("mail".to_owned(), group, Action::Shell(line.to_owned()));
    assert_eq!(mail, &expected);
    assert_eq!((mail.concurrency, mail.timeout, mail.stop_timeout), (1, secs(300), secs(30)));
    assert!(mail.hints && !mail.ordered);
    assert_eq!(mail.action.argv(), Some(["/bin/sh", "-c", line].map(str::to_owned).to_vec()));
    let retry = Retry { max_attempts: 15, min: secs(1), max: secs(600), jitter: true, dead_on: vec![65] };
    assert_eq!(mail.retry, retry);

    let audit = config.watcher("audit").unwrap();
    assert_eq!(audit.retry, Retry { max_attempts: 1, ..retry });
    let day = EventTime::from_micros(1_795_132_800_000_000); // 2026-11-20T00:00:00Z
    assert_eq!(audit.from, Some(StartFrom::Time(day)));
}

#[test]
fn an_empty_file_is_an_empty_config() {
    let expected = Config { path: Some("/srv/app/evbus.toml".into()), ..Config::default() };
    assert_eq!(parse("").unwrap(), expected);
    assert_eq!(parse("\u{feff}# nothing yet\n[watchers]\n").unwrap(), expected);
}

/// `[watchers.w]` with a command on line 2 and `line` on line 3.
fn with(line: &str) -> String {
    format!("[watchers.w]\ncommand = [\"x\"]\n{line}\n")
}

#[test]
fn unknown_keys_name_the_nearest_and_the_line() {
    let table = [
        (
            with("concurency = 4"),
            "evbus.toml:3: unknown key 'concurency' in [watchers.w] (did you mean 'concurrency'?)",
        ),
        (
            with("stop-timeout = '5s'"),
            "evbus.toml:3: unknown key 'stop-timeout' in [watchers.w] (did you mean 'stop_timeout'?)",
        ),
        (with("colour = 'red'"), "evbus.toml:3: unknown key 'colour' in [watchers.w]"),
        (
            with("max_attempts = 3"),
            "evbus.toml:3: unknown key 'max_attempts' in [watchers.w] (did you mean 'retry.max_attempts'?)",
        ),
        (with("linger = '5s'"), "evbus.toml:3: unknown key 'linger' in [watchers.w] (did you mean 'batch.linger'?)"),
        (
            with("retry = { min = '1s', jiter = true }"),
            "evbus.toml:3: unknown key 'jiter' in [watchers.w.retry] (did you mean 'jitter'?)",
        ),
        (
            with("[watchers.w.retry]\n\nmaxx = '1s'"),
            "evbus.toml:5: unknown key 'maxx' in [watchers.w.retry] (did you mean 'max'?)",
        ),
        ("\n[watcher.w]\nshell = 'x'".to_owned(), "evbus.toml:2: unknown key 'watcher' (did you mean 'watchers'?)"),
        ("[bus]\nuri = '/x'".to_owned(), "evbus.toml:2: unknown key 'uri' in [bus] (did you mean 'url'?)"),
        (
            "[buses.a]\nurl = '/x'\nulr = '/x'".to_owned(),
            "evbus.toml:3: unknown key 'ulr' in [buses.a] (did you mean 'url'?)",
        ),
        ("\"a\\u001b\\n\" = 1".to_owned(), "evbus.toml:1: unknown key 'a\\u{1b}\\n'"),
    ];
    for (text, error) in table {
        assert_eq!(parse(&text).unwrap_err(), error, "{text}");
    }
}

#[test]
fn wrong_values_name_key_and_cure() {
    let table = [
        ("concurrency = '4'", "'concurrency' in [watchers.w]: must be a whole number from 1 to 1000, not a string"),
        ("concurrency = 0", "'concurrency' in [watchers.w]: must be a whole number from 1 to 1000, not 0"),
        (
            "concurrency = 0x7fffffffffffffffff",
            "'concurrency' in [watchers.w]: must be a whole number from 1 to 1000, not 0x7fffffffffffffffff",
        ),
        ("shards = 1.5", "'shards' in [watchers.w]: must be a whole number from 1 to 256, not 1.5"),
        ("history = 7", "'history' in [watchers.w]: must be true, false, or { keep = \"7d\", size = \"4MB\" }, not 7"),
        ("settle = '2s'", "'settle' in [watchers.w]: is for latest (add latest = \"subject\")"),
        (
            "latest = 'data.'",
            "'latest' in [watchers.w]: 'data.' cannot be read at column 6: no viable alternative at input '.'",
        ),
        (
            "latest = 'subject'\nshards = 2",
            "'latest' in [watchers.w]: by 'subject' needs a group of one shard: events of one of these may lie in several (latest = \"key\" takes any number)",
        ),
        (
            "latest = 'type'\nordered = true",
            "'latest' in [watchers.w]: by 'type' and an order by keys do not go together (latest = \"key\" does)",
        ),
        ("ordered = 'yes'", "'ordered' in [watchers.w]: must be true or false, not a string"),
        ("timeout = 30", "'timeout' in [watchers.w]: must be a duration with its unit: \"30s\""),
        ("timeout = '30'", "'timeout' in [watchers.w]: '30' has no unit (durations carry their unit: 30s, 5m, 7d)"),
        (
            "timeout = 'soon'",
            "'timeout' in [watchers.w]: 'soon' is not a duration (write 500ms, 30s, 5m, 1h30m, 7d or 2w)",
        ),
        ("timeout = '0s'", "'timeout' in [watchers.w]: must be longer than 0s"),
        ("poll = '0s'", "'poll' in [watchers.w]: must be longer than 0s"),
        ("types = 'a.b'", "'types' in [watchers.w]: must be an array of strings: [\"a.b\"], not a string"),
        ("types = []", "'types' in [watchers.w]: is empty (leave it out to take every type)"),
        ("types = ['a', 7]", "'types' in [watchers.w]: must be an array of strings, not 7"),
        (
            "env = ['PATH=/bin']",
            "'env' in [watchers.w]: 'PATH=/bin' is not the name of a variable (write env = [\"PATH\", \"HOME\"])",
        ),
        ("group = 'a/b'", "group name 'a/b': use lower-case letters, digits, '.', '_', '-'"),
        ("group = 7", "'group' in [watchers.w]: must be a string in quotes, not 7"),
        ("shell = 'x'", "'shell' in [watchers.w]: stands beside 'command' (keep one of them)"),
        ("cwd = \"a\\u0000\"", "'cwd' in [watchers.w]: holds a NUL character"),
        ("retry = 3", "'retry' in [watchers.w]: must be a table: [watchers.w.retry], not 3"),
        ("retry = { min = '2m', max = '1m' }", "'retry' in [watchers.w]: min (2m) is longer than max (1m)"),
        (
            "retry = { dead_on = [0] }",
            "'dead_on' in [watchers.w.retry]: must be an array of whole numbers from 1 to 255, not this array",
        ),
        (
            "retry = { dead_on = 65 }",
            "'dead_on' in [watchers.w.retry]: must be an array of whole numbers from 1 to 255, not 65",
        ),
        (
            "retry = { max_attempts = 0 }",
            "'max_attempts' in [watchers.w.retry]: must be a whole number from 1 to 4294967295, not 0",
        ),
        (
            "from = 'tomorrow'",
            "'from' in [watchers.w]: must be earliest, now or a time: 'tomorrow' is not a time (write 10m, 7d, 2026-11-20, 09:30 or 2026-11-20T09:30:00Z)",
        ),
        ("where = 'data.x >'", "where 'data.x >' cannot be read at column 9: it ends too early"),
        ("where = 1", "'where' in [watchers.w]: must be a string in quotes, not 1"),
        ("on_dead = 'notify'", "'on_dead' in [watchers.w]: must be an array of strings: [\"notify\"], not a string"),
        ("on_dead = []", "'on_dead' in [watchers.w]: is empty (write on_dead = [\"PROGRAM\", \"ARG\"])"),
        ("batch = 3", "'batch' in [watchers.w]: must be a table: { size = 100, linger = \"5s\" }, not 3"),
        ("batch = { linger = '1s' }", "'batch' in [watchers.w]: has no size (write { size = 100 })"),
        ("batch = { size = 0 }", "'size' in [watchers.w.batch]: must be a whole number from 1 to 1000, not 0"),
        (
            "batch = { size = 501 }\nconcurrency = 2",
            "'batch' in [watchers.w]: batches of 501, 2 at a time, are 1002 events; at most 1000 can be under way",
        ),
    ];
    for (line, error) in table {
        assert_eq!(parse(&with(line)).unwrap_err(), format!("evbus.toml:3: {error}"), "{line}");
    }
    assert!(parse(&with("from = '2030-01-01'")).unwrap_err().contains("is in the future (it is 2026-11-23 01:16 now"));
}

#[test]
fn bad_patterns_are_refused_at_their_line() {
    for key in ["types", "not"] {
        let error = parse(&with(&format!("{key} = [\n  'order.*',\n  'order.',\n]"))).unwrap_err();
        assert!(error.starts_with(&format!("evbus.toml:5: '{key}' in [watchers.w]: ")), "{error}");
        assert!(error.contains("quote it") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_watcher_needs_exactly_one_command() {
    let cure = "(write command = [\"PROGRAM\", \"ARG\"])";
    let table = [
        (
            "",
            "1: 'w' in [watchers]: has no command (add command = [\"PROGRAM\", \"ARG\"], shell = \"…\" or url = \"https://…\")".to_owned(),
        ),
        ("command = []", format!("2: 'command' in [watchers.w]: is empty {cure}")),
        ("command = ['']", format!("2: 'command' in [watchers.w]: is empty {cure}")),
        (
            "command = 'ls -l'",
            "2: 'command' in [watchers.w]: must be an array of strings: [\"ls\", \"-l\"], not a string".to_owned(),
        ),
        ("shell = ' '", "2: 'shell' in [watchers.w]: is empty (write shell = \"PROGRAM ARG | …\")".to_owned()),
        ("shell = ['ls']", "2: 'shell' in [watchers.w]: must be a string in quotes, not this array".to_owned()),
    ];
    for (line, error) in table {
        assert_eq!(parse(&format!("[watchers.w]\n{line}")).unwrap_err(), format!("evbus.toml:{error}"), "{line}");
    }
    let error = parse("[watchers.Mail]\nshell = 'x'").unwrap_err();
    let cure = "use lower-case letters, digits, '.', '_', '-'; or add group = \"…\" to the watcher";
    assert_eq!(error, format!("evbus.toml:1: group name 'Mail': {cure}"));
}

#[test]
fn broken_files_are_one_line() {
    for (text, start) in
        [("a = 1\nb = \n", "evbus.toml:2: "), ("[watchers.w\n", "evbus.toml:1: "), ("x = 1\n\nx = 2", "evbus.toml:3: ")]
    {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(start) && !error.contains('\n'), "{error}");
    }
    let broken = ConfigFile { text: b"# fine\n\xff\xfe\n".to_vec(), ..file("") };
    assert_eq!(Config::parse(&nowhere(), &broken).unwrap_err().to_string(), "evbus.toml:2: this is not UTF-8 text");
}

#[test]
fn one_group_has_one_filter() {
    let two = |a: &str, b: &str| {
        format!("[watchers.a]\ngroup = 'g'\nshell = 'x'\n{a}\n[watchers.b]\ngroup = 'g'\nshell = 'y'\n{b}\n")
    };
    let table = [
        ("types = ['x']", "types = ['y']", Some("types")),
        ("types = ['x']", "", Some("types")),
        ("not = ['x']", "", Some("not")),
        ("types = ['a']", "types = ['b']\nnot = ['x']", Some("types and not")),
        ("types = ['a,b', '!c']", "types = ['b', 'a']\nnot = ['c']", None),
        ("where = 'data.x > 1'", "where = 'data.x > 2'", Some("where")),
        ("where = 'data.x > 1'", "", Some("where")),
        ("shards = 2", "shards = 4", Some("shards")),
        ("shards = 2", "", Some("shards")),
        ("from = 'now'", "from = 'earliest'", Some("from")),
        ("from = 'now'", "", None),
        ("types = ['x', 'y']", "types = ['y', 'x']", None),
        ("concurrency = 2", "timeout = '1s'", None),
    ];
    for (a, b, key) in table {
        let expected = key.map(|key| format!("evbus.toml:5: [watchers.b] and [watchers.a] (line 1) name one group 'g' with different {key} (make them equal, or give one another group)"));
        assert_eq!(parse(&two(a, b)).err(), expected, "{a} / {b}");
    }
    assert!(parse("[watchers.a]\nshell = 'x'\ntypes = ['x']\n[watchers.b]\nshell = 'y'\ntypes = ['y']").is_ok());
}

#[test]
fn an_unknown_watcher_is_reported_with_the_nearest_name() {
    let config = parse(FULL).unwrap();
    let error = config.watcher("mial").unwrap_err();
    assert_eq!(error.to_string(), "no watcher 'mial' in /srv/app/evbus.toml (did you mean 'mail'?)");
    let names = ["thumbnails", "mail", "audit"].map(str::to_owned).to_vec();
    assert_eq!(error.detail(), Some(&ConfigDetail::Watchers { names }));
    let error = Config::default().watcher("mail").unwrap_err();
    assert_eq!(error.to_string(), "no watcher 'mail'");
    assert_eq!(error.detail(), Some(&ConfigDetail::NoFile));
}

#[test]
fn the_first_config_file_that_exists_counts() {
    let root = tempfile::tempdir().unwrap();
    let mut environment = environment(root.path());
    let found =
        |environment: &Environment| Config::find(environment, None).unwrap().file.map(|file| (file.path, file.shown));
    assert_eq!(found(&environment), None);

    let places =
        ["etc/evbus/evbus.toml", "home/.config/evbus/evbus.toml", "xdg/evbus/evbus.toml", "cwd/evbus.toml", "env.toml"];
    fs::create_dir_all(root.path().join("xdg/evbus")).unwrap();
    for place in places {
        let path = root.path().join(place);
        fs::write(&path, "").unwrap();
        match place {
            "xdg/evbus/evbus.toml" => {
                drop(environment.vars.insert("XDG_CONFIG_HOME".into(), root.path().join("xdg").into()))
            }
            "env.toml" => drop(environment.vars.insert("EVBUS_CONFIG".into(), path.clone().into())),
            _ => {}
        }
        let shown = if place == "cwd/evbus.toml" { "evbus.toml".to_owned() } else { path.display().to_string() };
        assert_eq!(found(&environment), Some((path, shown)), "{place}");
    }
    fs::write(root.path().join("cwd/mine.toml"), "[watchers.m]\nshell = 'x'\n").unwrap();
    let config = Config::load(&environment, Some(Path::new("mine.toml"))).unwrap();
    assert_eq!(config.path, Some(root.path().join("cwd/mine.toml")));
    assert_eq!(config.watchers.len(), 1);
}

#[test]
fn a_relative_xdg_folder_and_an_empty_variable_are_ignored() {
    let root = tempfile::tempdir().unwrap();
    let mut environment = environment(root.path());
    environment.vars.insert("XDG_CONFIG_HOME".into(), "xdg".into());
    environment.vars.insert("EVBUS_CONFIG".into(), "".into());
    fs::write(root.path().join("home/.config/evbus/evbus.toml"), "").unwrap();
    assert!(Config::find(&environment, None).unwrap().file.unwrap().path.ends_with("home/.config/evbus/evbus.toml"));
}

#[test]
fn a_named_config_file_must_exist_and_be_readable() {
    let root = tempfile::tempdir().unwrap();
    let mut environment = environment(root.path());
    fs::write(root.path().join("etc/evbus/evbus.toml"), "").unwrap();
    let error = Config::load(&environment, Some(Path::new("gone.toml"))).unwrap_err();
    assert_eq!(error.to_string(), "no config file at gone.toml (--config)");
    environment.vars.insert("EVBUS_CONFIG".into(), "/gone/evbus.toml".into());
    let error = Config::load(&environment, None).unwrap_err();
    assert_eq!(error.to_string(), "no config file at /gone/evbus.toml (EVBUS_CONFIG)");
    let error = Config::load(&environment, Some(root.path())).unwrap_err();
    assert!(error.to_string().starts_with("cannot read the config file /"), "{error}");
}

#[test]
fn a_local_config_of_another_user_is_ignored() {
    let root = tempfile::tempdir().unwrap();
    let mut environment = environment(root.path());
    let local = root.path().join("cwd/evbus.toml");
    fs::write(&local, "[watchers.evil]\nshell = 'x'\n").unwrap();
    fs::write(root.path().join("etc/evbus/evbus.toml"), "").unwrap();
    assert_eq!(Config::load(&environment, None).unwrap().watchers.len(), 1, "mine");

    // Root's files are trusted, so a test that runs as root gives the file away.
    if environment.uid == 0 {
        std::os::unix::fs::chown(&local, Some(4242), None).unwrap();
    } else {
        environment.uid += 1;
    }
    let owner = fs::metadata(&local).unwrap().uid();
    let config = Config::load(&environment, None).unwrap();
    assert_eq!(config.path, Some(root.path().join("etc/evbus/evbus.toml")), "the next one counts");
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].starts_with(&format!("ignoring ./evbus.toml: it belongs to user {owner}")));
    assert_eq!(Config::load(&environment, Some(Path::new("evbus.toml"))).unwrap().watchers.len(), 1, "named: taken");
}

#[test]
fn a_pipe_or_folder_in_place_of_the_config_is_ignored() {
    let root = tempfile::tempdir().unwrap();
    let environment = environment(root.path());
    let local = root.path().join("cwd/evbus.toml");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &local, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let found = Config::find(&environment, None).unwrap();
    assert_eq!(found.warnings, ["ignoring ./evbus.toml: it is not a file"]);
    fs::remove_file(&local).unwrap();
    fs::create_dir(&local).unwrap();
    assert_eq!(Config::find(&environment, None).unwrap(), found);
}

#[test]
fn an_unknown_home_folder_is_not_invented() {
    let environment = Environment { home: None, ..nowhere() };
    assert_eq!(environment.expand(Path::new("~/x"), Path::new("/base")), Path::new("/base/~/x"));
    assert_eq!(environment.xdg("XDG_CONFIG_HOME", ".config"), None);
}

#[test]
fn the_environment_is_read_from_the_process() {
    let environment = Environment::from_process();
    assert!(environment.cwd.is_absolute());
    assert_eq!(environment.etc, Path::new("/etc"));
    assert!(environment.var("EVBUS_NO_SUCH_VARIABLE").is_none());
    assert!(environment.now > nowhere().now.minus(Duration::from_secs(40 * 365 * 86_400)));
}
