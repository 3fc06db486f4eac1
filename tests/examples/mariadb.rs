//! The MySQL recipe of `docs/src/outbox.md`, word for word, on a real MariaDB server, Debian's.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use super::postgres_server as server;
use super::until::until;
use super::{bare, run, succeeds, text};

/// A running server, which is reached by a socket alone. It ends with this process, however that ends.
struct MariaDb {
    folder: TempDir,
    /// Its script ends the server at the end of its stdin.
    shell: Child,
}

/// The server of this program.
fn mariadb() -> &'static MariaDb {
    static SERVER: OnceLock<MariaDb> = OnceLock::new();
    SERVER.get_or_init(MariaDb::start)
}

impl MariaDb {
    fn start() -> Self {
        let folder = server::folder();
        let at = folder.path().display();
        // Without the kernel's asynchronous I/O, of which a host has little for all its servers.
        let script = format!(
            "PATH=$PATH:/usr/sbin\n\
             mariadb-install-db --no-defaults --datadir={at}/data --auth-root-authentication-method=normal \
             --skip-test-db --innodb-use-native-aio=0 >{at}/log 2>&1 || exit\n\
             mariadbd --no-defaults --datadir={at}/data --socket={at}/socket --pid-file={at}/pid --skip-networking \
             --innodb-use-native-aio=0 >>{at}/log 2>&1 </dev/null & server=$!\n\
             cat >/dev/null; kill $server; wait $server; cd /; rm -rf {at}"
        );
        let mut started = Self { shell: server::shell(&script), folder };
        until("MariaDB is ready", || {
            let log = || fs::read_to_string(started.folder.path().join("log")).unwrap_or_default();
            assert!(started.shell.try_wait().unwrap().is_none(), "{}", log());
            run(&mut started.client("SELECT 1")).status.success()
        });
        started
    }

    fn options(&self) -> String {
        format!("[client]\nsocket = {}/socket\nuser = root\n", self.folder.path().display())
    }

    fn client(&self, sql: &str) -> Command {
        let mut command = Command::new("mariadb");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.args(["--no-defaults", "--user=root", "--batch", "--skip-column-names"]);
        command.arg(format!("--socket={}/socket", self.folder.path().display())).args(["-e", sql]);
        command
    }

    fn answer(&self, sql: &str) -> String {
        succeeds(&mut self.client(sql)).0
    }
}

/// The blocks of the page's section on MySQL: the table, and the script.
fn recipe() -> [String; 2] {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/outbox.md");
    let page = fs::read_to_string(page).unwrap();
    let section = page.split_once("## MySQL and MariaDB").unwrap().1;
    ["sql", "sh"].map(|language| {
        let block = section.split_once(&format!("```{language}\n")).unwrap().1;
        block.split_once("\n```").unwrap().0.to_owned()
    })
}

/// A home with the script, and a new database with the table.
fn shop(name: &str) -> (TempDir, PathBuf) {
    let (database, home, [table, script]) = (mariadb(), tempfile::tempdir().unwrap(), recipe());
    database.answer(&format!("CREATE DATABASE {name} CHARACTER SET utf8mb4; USE {name}; {table}"));
    fs::write(home.path().join(".my.cnf"), database.options()).unwrap();
    let path = home.path().join("outbox-mysql");
    fs::write(&path, script).unwrap();
    succeeds(bare("evbus", home.path()).args(["init"]).env("EVBUS_URL", home.path().join("bus")));
    (home, path)
}

/// The script, which moves the rows of a database once.
fn mover(home: &TempDir, script: &Path, name: &str) -> Command {
    let mut command = bare("sh", home.path());
    command.arg(script).arg(name).env("EVBUS_URL", home.path().join("bus"));
    command
}

fn events(home: &TempDir) -> Vec<Value> {
    let mut ls = bare("evbus", home.path());
    ls.args(["ls", "--json", "-n", "0"]).env("EVBUS_URL", home.path().join("bus"));
    succeeds(&mut ls).0.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn rows_are_moved_once_though_scripts_are_killed_and_transactions_come_late() {
    let ((home, script), database) = (shop("moved"), mariadb());
    let insert =
        |id: &str| format!("INSERT INTO moved.outbox (id, type, data) VALUES ('{id}', 'order.created', '{{}}');");
    let writers: Vec<Child> = (0..4)
        .map(|writer| {
            let transactions = (0..150).map(|n| {
                let (kept, end) = (n % 5 != 0, if n % 5 == 0 { "ROLLBACK" } else { "COMMIT" });
                // Some stay open, so that numbers behind theirs are read and deleted before them.
                let pause = if n % 10 == 1 { "DO SLEEP(0.05);" } else { "" };
                format!("BEGIN; {} {pause} {end};", insert(&format!("{writer}-{n}-{kept}")))
            });
            database.client(&transactions.collect::<String>()).spawn().unwrap()
        })
        .collect();
    for kill in 0..2 {
        let rows: String = (0..400).map(|n| insert(&format!("{kill}-of-{n}"))).collect();
        database.answer(&rows);
        let so_far = events(&home).len();
        let mut moving = mover(&home, &script, "moved").process_group(0).spawn().unwrap();
        until("the emit has begun", || {
            assert!(moving.try_wait().unwrap().is_none(), "the script has ended");
            events(&home).len() > so_far
        });
        let killed = Command::new("kill").args(["-KILL", "--", &format!("-{}", moving.id())]).status();
        assert!(killed.unwrap().success());
        moving.wait().unwrap();
    }
    succeeds(&mut mover(&home, &script, "moved"));
    assert!(writers.into_iter().all(|mut writer| writer.wait().unwrap().success()));
    // Two at once, as when cron begins one while the last still runs.
    let both = [mover(&home, &script, "moved").spawn().unwrap(), mover(&home, &script, "moved").spawn().unwrap()];
    assert!(both.into_iter().all(|mut moving| moving.wait().unwrap().success()));
    assert_eq!(database.answer("SELECT count(*) FROM moved.outbox").trim(), "0");
    let ids: BTreeSet<String> = events(&home).iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    let written = (0..4).flat_map(|writer| (0..150).filter(|n| n % 5 != 0).map(move |n| format!("{writer}-{n}-true")));
    let inserted = (0..2).flat_map(|kill| (0..400).map(move |n| format!("{kill}-of-{n}")));
    assert_eq!(ids, written.chain(inserted).collect());
}

#[test]
fn a_row_arrives_as_it_is_and_one_that_is_no_event_waits() {
    let ((home, script), database) = (shop("odd"), mariadb());
    let odd = serde_json::json!({"text": "a\\b \"quoted\" it's, \t tab\nline é 漢 😀 %s $1", "n": 2.5, "none": null});
    // The quotes of SQL and its backslashes, doubled.
    let literal = odd.to_string().replace('\\', "\\\\").replace('\'', "''");
    database.answer(&format!(
        "SET NAMES utf8mb4; SET time_zone = '+00:00'; INSERT INTO odd.outbox (id, type, subject, `key`, data, time) \
         VALUES ('one', 'order.created', 'orders/é', 'k', '{literal}', '2026-11-30 08:00:00.25'), \
         ('two', 'order.paid', NULL, NULL, NULL, '2026-11-30 08:00:01')"
    ));
    succeeds(&mut mover(&home, &script, "odd"));
    let found = events(&home);
    let by_id = |id: &str| found.iter().find(|event| event["id"] == id).unwrap();
    let one = by_id("one");
    assert_eq!((&one["data"], &one["subject"], &one["partitionkey"]), (&odd, &"orders/é".into(), &"k".into()));
    let time: jiff::Timestamp = one["time"].as_str().unwrap().parse().unwrap();
    assert_eq!(time, "2026-11-30T08:00:00.25Z".parse().unwrap());
    assert_eq!((&by_id("two")["subject"], by_id("two").get("data")), (&Value::Null, Some(&Value::Null)));

    database.answer("INSERT INTO odd.outbox (id, type) VALUES ('three', 'a'), ('four', ''), ('five', 'b')");
    let refused = run(&mut mover(&home, &script, "odd"));
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("line 2"), "{}", text(&refused.stderr));
    assert_eq!(database.answer("SELECT id FROM odd.outbox WHERE id IN ('four', 'five') ORDER BY n"), "four\nfive\n");
    database.answer("UPDATE odd.outbox SET type = 'a' WHERE id = 'four'");
    succeeds(&mut mover(&home, &script, "odd"));
    let ids: BTreeSet<String> = events(&home).iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["one", "two", "three", "four", "five"].map(str::to_owned).into());
}
