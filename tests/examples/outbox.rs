//! The two applications with an outbox: an order and its event in one transaction, while everything is killed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::until::until;
use super::{bare, example, postgres_server as server, succeeds, text};

/// What `./test` has fetched.
fn fetched(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/webhooks").join(name);
    assert!(path.exists(), "{} is not there: ./test fetches it", path.display());
    path
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Runs an application, a relay and a worker, and kills each; then counts.
fn orders_events_and_mails_agree(name: &str, app: impl Fn(&Path) -> Command) {
    let at = server::postgres();
    at.answer(&format!("CREATE DATABASE {name}"));
    let database = format!("postgres://{}@127.0.0.1:{}/{name}", server::USER, at.port);
    let home = tempfile::tempdir().unwrap();
    let evbus = |args: &[&str]| {
        let mut command = bare("evbus", home.path());
        command.args(args).env("EVBUS_URL", home.path().join("bus"));
        command
    };
    let counted = |sql: &str| -> usize {
        let output = at.psql_command().args(["-d", name, "-c", sql]).output().unwrap();
        text(&output.stdout).trim().parse().unwrap_or(0)
    };
    succeeds(&mut evbus(&["init", &database]));
    succeeds(&mut evbus(&["init", home.path().join("bus").to_str().unwrap()]));
    let order = |count: &str| {
        let mut command = app(home.path());
        command.arg(count).env("DATABASE_URL", &database);
        command
    };
    // The first run makes the table of orders.
    let (said, _) = succeeds(&mut order("10"));
    assert_eq!(said.trim(), "committed 8, rolled back 2");
    let relay = || evbus(&["relay", "-q", "--from", &database]).spawn().unwrap();
    let note = "echo \"$EVBUS_SUBJECT\" >> mails";
    let work =
        || evbus(&["watch", "-q", "-g", "mail", "--from", "earliest", "-j", "4", "--shell", note]).spawn().unwrap();
    let mails = || fs::read_to_string(home.path().join("mails")).unwrap_or_default();
    let (mut relaying, mut working) = (relay(), work());
    for turn in 0..3 {
        let taking = order("100000").spawn().unwrap();
        let before = counted("SELECT count(*) FROM orders");
        until("orders are taken", || counted("SELECT count(*) FROM orders") > before + 60);
        match turn {
            0 => {
                kill(relaying);
                relaying = relay();
            }
            1 => {
                kill(working);
                working = work();
            }
            _ => {}
        }
        kill(taking);
    }
    until("the outbox is empty", || counted("SELECT count(*) FROM evbus.outbox") == 0);
    let orders = counted("SELECT count(*) FROM orders");
    let unique = || mails().lines().collect::<BTreeSet<_>>().len();
    until("each order has its mail", || unique() == orders);
    kill(relaying);
    kill(working);
    let (listed, _) = succeeds(&mut evbus(&["ls", "-t", "order.created", "--json", "-n", "0"]));
    // The relay that was killed between a put and its record may have left copies of ids.
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].to_string();
    let ids: BTreeSet<String> = listed.lines().map(id).collect();
    assert_eq!(ids.len(), orders, "an event for each order, and no other");
    let sql = "SELECT 'orders/' || id FROM orders";
    let output = at.psql_command().args(["-d", name, "-c", sql]).output().unwrap();
    let output = text(&output.stdout);
    let wanted: BTreeSet<&str> = output.lines().collect();
    let mailed = mails();
    assert_eq!(mailed.lines().collect::<BTreeSet<_>>(), wanted);
}

#[test]
fn the_application_in_python_loses_and_doubles_nothing() {
    let python = fetched("python/bin/python");
    orders_events_and_mails_agree("shop_python", |home| {
        let mut command = bare(python.to_str().unwrap(), home);
        command.arg(example("outbox-python/app.py"));
        command
    });
}

#[test]
fn the_application_in_node_loses_and_doubles_nothing() {
    let modules = fetched("node_modules");
    orders_events_and_mails_agree("shop_node", |home| {
        let app = home.join("app.mjs");
        if !app.exists() {
            fs::copy(example("outbox-node/app.mjs"), &app).unwrap();
            symlink(&modules, home.join("node_modules")).unwrap();
        }
        let mut command = bare("node", home);
        command.arg(app);
        command
    });
}
