//! The same bus in a database, on real servers: the main job, and what only a database does.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::postgres_server::{self as server, Postgres};
use super::support::{Home, NOTE, signal, sorted, unique, until};

/// A home with a new bus on the shared server.
fn in_postgres() -> Home {
    let home = Home::at(&server::postgres().url(&server::new_schema()));
    home.run(&["init"]).exits(0);
    home
}

fn both() -> [Home; 2] {
    [in_postgres(), Home::in_sqlite()]
}

#[test]
fn a_database_runs_every_event_despite_a_killed_worker() {
    for home in both() {
        home.run(&["group", "create", "all", "--from", "earliest", "--shards", "8"]).exits(0);
        let emit = |type_: &str, count: u32| {
            let lines: String = (0..count).map(|n| format!("{{\"n\":{n}}}\n")).collect();
            home.file(type_, &lines);
            home.shell_spawn(&format!("$EVBUS emit {type_} --each --ndjson @{type_} >> acked"))
        };
        let watch = |group: &str, note: &str| {
            home.evbus(&["watch", "-q", "-g", group, "-j", "2", "--from", "earliest", "--shell", note]).spawn().unwrap()
        };
        let mut workers: Vec<_> = (0..3).map(|_| watch("all", NOTE)).collect();
        workers.push(watch("own", "echo $EVBUS_ID >> own"));
        let mut emitters = [emit("order.created", 165), emit("order.paid", 164)];
        until("the first events are handled", || home.lines("seen").len() > 20);
        signal(&workers[0], "KILL");
        for emitter in &mut emitters {
            assert!(emitter.wait().unwrap().success());
        }
        until("all is handled", || unique(home.lines("seen")).len() == 329 && unique(home.lines("own")).len() == 329);
        for worker in &workers[1..] {
            signal(worker, "TERM");
        }
        assert!(workers.iter_mut().skip(1).all(|worker| worker.wait().unwrap().success()));
        workers[0].wait().unwrap();
        let acked = sorted(home.lines("acked"));
        assert_eq!(unique(home.lines("seen")), acked);
        assert_eq!(sorted(home.lines("own")), acked, "no process was killed there, and nothing runs twice");
    }
}

#[test]
fn the_other_verbs_work_on_a_database() {
    for home in both() {
        let ids = home.emit_segments("order.created", 40);
        assert_eq!(ids.len(), 40);
        home.run(&["emit", "order.failed", "{}"]).exits(0);
        home.run(&["emit", "order.late", "--at", "2099-01-01T00:00:00Z"]).exits(0);
        assert_eq!(home.run(&["ls"]).exits(0).lines().len(), 41);
        assert_eq!(home.run(&["ls", "--scheduled"]).exits(0).lines().len(), 1);
        let failing = "case $EVBUS_TYPE in order.failed) exit 65;; esac; echo $EVBUS_ID >> seen";
        home.run(&["drain", "-q", "-g", "g", "--from", "earliest", "--shell", failing]);
        assert_eq!(home.lines("seen").len(), 40);
        let dead = home.run(&["dead", "ls", "g"]).exits(0);
        assert!(dead.out.contains("order.failed"), "{}", dead.out);
        home.run(&["dead", "redrive", "g", "--all", "--yes"]);
        home.run(&["drain", "-q", "-g", "g", "--shell", NOTE]).exits(0);
        assert_eq!(home.lines("seen").len(), 41);
        assert!(!home.run(&["dead", "ls", "g"]).exits(0).out.contains("order.failed"));
        let status = home.run(&["status", "--json"]).exits(0);
        assert!(status.out.contains("\"lag\":0") || status.out.contains("\"lag\": 0"), "{}", status.out);
        home.run(&["emit", "order.soon", "--id", "soon", "--delay", "10ms"]).exits(0);
        until("the event is due, released and handled", || {
            home.run(&["drain", "-q", "-g", "g", "--shell", NOTE]).exits(0);
            home.lines("seen").contains(&"soon".to_owned())
        });
        until("what is done is gone", || {
            home.run(&["drain", "-q", "-g", "g", "--shell", NOTE]).exits(0);
            home.run(&["prune", "--keep", "0s", "--yes"]).exits(0);
            home.run(&["ls"]).exits(0).lines().len() < 42
        });
        let doctor = home.run(&["doctor"]).exits(0);
        assert!(doctor.out.contains("create, swap, list"), "{}", doctor.out);
        assert_eq!(home.run(&["emit", "x", "--id", "one"]).exits(0).out, home.run(&["emit", "x", "--id", "one"]).out);
    }
}

#[test]
fn what_was_acknowledged_survives_a_killed_server() {
    let mut at = Postgres::start(&[]);
    let home = Home::at(&at.url("evbus"));
    home.run(&["init"]).exits(0);
    let mut worker = home.spawn(&["watch", "-q", "-g", "g", "--from", "earliest", "--shell", NOTE]);
    // What the server refuses while it starts is tried again.
    let emitting = "for n in $(seq 60); do until $EVBUS emit t --id $n >> acked; do :; done; done";
    let mut emitter = home.shell_spawn(emitting);
    for kills in 1..=2 {
        until("events are emitted", || home.lines("acked").len() >= 15 * kills);
        at.kill();
        at.begin("true");
    }
    // A backend that is killed makes the server start its processes anew.
    let backends = "SELECT min(pid) FROM pg_stat_activity WHERE application_name = 'evbus' AND pid <> pg_backend_pid()";
    let pid = at.answer(backends);
    if !pid.is_empty() {
        let _ = Command::new("kill").args(["-KILL", &pid]).status();
    }
    assert!(emitter.wait().unwrap().success());
    at.wait_until_ready();
    until("all is handled", || unique(home.lines("seen")) == sorted(home.lines("acked")));
    assert_eq!(home.lines("acked").len(), 60);
    signal(&worker, "TERM");
    assert!(worker.wait().unwrap().success());
}

#[test]
fn a_failover_loses_what_was_not_replicated_and_nothing_else() {
    let primary = Postgres::start(&["wal_keep_size=64MB", "hot_standby=on"]);
    let folder = server::folder();
    let copy = format!(
        "{}/pg_basebackup -h 127.0.0.1 -p {} -U {} -D {}/data -R -X stream -c fast",
        server::programs().display(),
        primary.port,
        server::USER,
        folder.path().display()
    );
    let mut standby = Postgres::run(folder, &copy, &[]);
    let both = format!(
        "postgres://{}@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
        server::USER,
        primary.port,
        standby.port
    );
    let home = Home::at(&both);
    home.run(&["init"]).exits(0);
    let mut worker = home.spawn(&["watch", "-q", "-g", "g", "-j", "4", "--from", "earliest", "--shell", NOTE]);
    let before = home.emit_many("t", 50);
    until("they are handled", || unique(home.lines("seen")).len() == 50);
    let there = primary.answer("SELECT pg_current_wal_flush_lsn()");
    let received = format!("SELECT pg_last_wal_replay_lsn() >= '{there}'");
    until("the standby has all of it", || standby.answer(&received) == "t");
    // From now on the standby receives nothing; it is away, and comes back as the primary.
    standby.kill();
    let lost = home.emit_many("t", 10);
    until("these are handled, too", || unique(home.lines("seen")).len() == 60);
    let mut primary = primary;
    primary.kill();
    standby.begin("true");
    standby.answer("SELECT pg_promote()");
    let after = home.emit_many("t", 30);
    until("the new ones are handled", || after.iter().all(|id| home.lines("seen").contains(id)));
    // What is replicated is done, and stays done; what is lost is gone; nothing waits.
    home.run(&["drain", "-q", "-g", "g", "--wait", "--shell", NOTE]).exits(0);
    let mut all: Vec<String> = before.iter().chain(&after).cloned().collect();
    all.sort();
    assert_eq!(sorted(ids_on(&home)), all);
    assert!(lost.iter().all(|id| !all.contains(id)));
    signal(&worker, "TERM");
    assert!(worker.wait().unwrap().success());
    // An emitter after the failover is not confused by what was acknowledged before it.
    home.run(&["drain", "-q", "-g", "other", "--from", "earliest", "--shell", "echo $EVBUS_ID >> other"]).exits(0);
    assert_eq!(sorted(home.lines("other")), all);
}

/// The ids of the events on a bus.
fn ids_on(home: &Home) -> Vec<String> {
    let listed = home.run(&["ls", "--json"]).exits(0);
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    listed.out.lines().map(id).collect()
}

#[test]
fn a_restored_backup_is_noticed_by_workers() {
    let at = Postgres::start(&[]);
    let home = Home::at(&at.url("evbus"));
    home.run(&["init"]).exits(0);
    let mut worker = home.spawn(&["watch", "-q", "-g", "g", "--from", "earliest", "--shell", NOTE]);
    home.emit_many("t", 20);
    until("they are handled", || unique(home.lines("seen")).len() == 20);
    let mut dump = Command::new(server::programs().join("pg_dump"));
    dump.args([
        "-h",
        "127.0.0.1",
        "-U",
        server::USER,
        "-p",
        &at.port.to_string(),
        "--clean",
        "--schema",
        "evbus",
        "postgres",
    ]);
    let dump = dump.output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    home.file("dump.sql", &String::from_utf8(dump.stdout).unwrap());
    home.emit_many("t", 20);
    until("these, too", || unique(home.lines("seen")).len() == 40);
    let restored = at.psql_command().args(["-1", "-f"]).arg(home.path().join("dump.sql")).output().unwrap();
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let after = home.emit_many("t", 20);
    until("the new ones are handled", || after.iter().all(|id| home.lines("seen").contains(id)));
    signal(&worker, "TERM");
    assert!(worker.wait().unwrap().success());
    assert_eq!(ids_on(&home).len(), 40);
}

/// A pooler before a server, which gives each transaction another session.
struct Pooler {
    port: u16,
    shell: std::process::Child,
    _folder: tempfile::TempDir,
}

impl Pooler {
    fn start(at: &Postgres) -> Self {
        let (folder, port) = (server::folder(), server::free_port());
        let path = folder.path().display();
        let settings = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} dbname=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n\
             server_round_robin = 1\nunix_socket_dir =\nlogfile = {path}/pooler.log\npidfile = {path}/pooler.pid\n",
            at.port
        );
        // The user of the connections to the server.
        let settings = settings.replace("dbname=postgres", &format!("dbname=postgres user={}", server::USER));
        server::write(folder.path(), "pooler.ini", &settings);
        let script = format!(
            "PATH=$PATH:/usr/sbin pgbouncer -q {path}/pooler.ini </dev/null & pooler=$!; cat >/dev/null; \
             kill -KILL $pooler; wait $pooler"
        );
        let shell = server::shell(&script);
        until("the pooler listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { port, shell, _folder: folder }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

#[test]
fn a_pooler_in_transaction_mode_may_lie_between() {
    let at = Postgres::start(&[]);
    let pooler = Pooler::start(&at);
    let direct = at.url("evbus");
    let url = direct.replace(&format!(":{}/", at.port), &format!(":{}/", pooler.port));
    let home = Home::at(&url);
    home.run(&["init"]).exits(0);
    let doctor = home.run(&["doctor"]).exits(0);
    assert!(doctor.out.contains("no notification arrives"), "{}", doctor.out);
    let listening = Home::at(&format!("{url}&listen=127.0.0.1:{}", at.port));
    assert!(listening.run(&["doctor"]).exits(0).out.contains("notifications arrive"));
    let mut workers = [
        home.spawn(&["watch", "-q", "-g", "g", "-j", "4", "--from", "earliest", "--shell", NOTE]),
        home.spawn(&["watch", "-q", "-g", "g", "-j", "4", "--from", "earliest", "--shell", NOTE]),
    ];
    let ids = home.emit_many("t", 100);
    until("all is handled", || unique(home.lines("seen")).len() == 100);
    for worker in &mut workers {
        signal(worker, "TERM");
        assert!(worker.wait().unwrap().success());
    }
    assert_eq!(sorted(home.lines("seen")), sorted(ids));
}

/// Passes bytes on to a server until it is told to lose an answer: the next request is passed on, and the connection cut
/// once its answer comes.
fn losing_proxy(port: u16, loses: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let armed = Arc::new(AtomicBool::new(false));
            let (loses, seen) = (Arc::clone(&loses), Arc::clone(&armed));
            thread::spawn(move || {
                let mut buffer = [0; 65_536];
                while let Ok(len @ 1..) = from_client.read(&mut buffer) {
                    // Only a statement that writes is worth it.
                    if buffer[..len].windows(6).any(|part| part == b"INSERT") && loses.swap(false, Ordering::SeqCst) {
                        seen.store(true, Ordering::SeqCst);
                    }
                    if to_server.write_all(&buffer[..len]).is_err() {
                        break;
                    }
                }
                let _ = to_server.shutdown(Shutdown::Both);
            });
            let (mut from_server, mut to_client) = (server, client);
            thread::spawn(move || {
                let mut buffer = [0; 65_536];
                while let Ok(len @ 1..) = from_server.read(&mut buffer) {
                    if armed.load(Ordering::SeqCst) || to_client.write_all(&buffer[..len]).is_err() {
                        break;
                    }
                }
                let _ = to_client.shutdown(Shutdown::Both);
            });
        }
    });
    at
}

#[test]
fn an_answer_that_is_lost_after_the_commit_is_read_back() {
    let at = server::postgres();
    let schema = server::new_schema();
    let loses = Arc::new(AtomicBool::new(false));
    let port = losing_proxy(at.port, Arc::clone(&loses));
    let url = at.url(&schema).replace(&format!(":{}/", at.port), &format!(":{port}/"));
    let home = Home::at(&url);
    home.run(&["init"]).exits(0);
    for n in 0..5 {
        loses.store(true, Ordering::SeqCst);
        home.run(&["emit", "t", &n.to_string()]).exits(0);
        assert!(!loses.load(Ordering::SeqCst), "an answer was lost");
    }
    assert_eq!(at.answer(&format!("SELECT count(*) FROM {schema}.events")), "5");
    // A commit of a marker, whose answer is lost: it is the worker's own.
    let mut worker = home.spawn(&["watch", "-q", "-g", "g", "--from", "earliest", "--shell", NOTE]);
    until("all is handled", || home.lines("seen").len() == 5);
    loses.store(true, Ordering::SeqCst);
    home.run(&["emit", "t", "5"]).exits(0);
    until("the last is handled", || home.lines("seen").len() == 6);
    signal(&worker, "TERM");
    assert!(worker.wait().unwrap().success());
    assert_eq!(home.lines("seen").len(), 6);
}

#[test]
fn mistakes_of_an_address_are_named_and_passwords_are_not() {
    let at = server::postgres();
    let run = |url: &str| Home::at(url).run(&["emit", "t", "--timeout", "1s"]);
    let good = |rest: &str| format!("postgres://tester:geheim@127.0.0.1:{}{rest}", at.port);
    let none = format!("postgres://tester:geheim@127.0.0.1:{}/postgres", server::free_port());
    for (url, code, error, help) in [
        (good("/postgres?schema=nobody"), 2, "no bus in the schema nobody", "evbus init 'postgres://tester@"),
        (good("/nowhere"), 2, "nowhere", "createdb nowhere"),
        (none, 75, "connection refused", "pg_isready"),
        (good("/postgres?sslmode=require"), 1, "TLS", "sslmode"),
        (good("/postgres?colour=red"), 2, "'colour'", ""),
    ] {
        let ran = run(&url);
        assert!(!ran.err.contains("geheim"), "{}", ran.err);
        ran.exits(code).says(error, help);
    }
    Home::at("sqlite:///nowhere/bus.db")
        .run(&["emit", "t"])
        .exits(2)
        .says("/nowhere/bus.db holds no bus", "evbus init");
    let shown = Home::at(&good("/postgres?schema=x")).run(&["init", "--print-sql"]).exits(0);
    assert!(shown.out.contains("CREATE TABLE IF NOT EXISTS \"x\".object"));
    assert!(!at.psql("SELECT 1 FROM x.object").status.success(), "nothing was made");
}

/// The block of SQL of SECURITY.md under a heading, for a schema.
fn grants(role: &str, schema: &str) -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/SECURITY.md")).unwrap();
    let after = text.split_once("## Roles in a database").expect("the section is there").1;
    let block = after.split("```sql").skip(1).map(|block| block.split_once("```").unwrap().0);
    let mine = block.filter(|block| block.contains(&format!("TO {role}"))).collect::<String>();
    assert!(!mine.is_empty(), "{role}");
    mine.replace("evbus.", &format!("{schema}.")).replace("SCHEMA evbus", &format!("SCHEMA {schema}"))
}

#[test]
fn the_roles_of_the_security_page_can_what_it_says_and_no_more() {
    let at = Postgres::start(&[]);
    Home::at(&at.url("evbus")).run(&["init"]).exits(0);
    let home_of = |role: &str| {
        at.answer(&format!("CREATE ROLE {role} LOGIN"));
        at.answer(&grants(role, "evbus"));
        Home::at(&at.url("evbus").replace(server::USER, role))
    };
    let emitter = home_of("emitter");
    emitter.run(&["emit", "t", "--id", "one"]).exits(0);
    emitter.feed(&["emit", "t", "--ndjson"], "{}\n{}\n{}\n").exits(0);
    emitter
        .run(&["drain", "-g", "g", "--from", "earliest", "--shell", "true"])
        .exits(75)
        .says("permission denied", "doctor");
    let worker = home_of("worker");
    worker.run(&["drain", "-q", "-g", "g", "--from", "earliest", "--shell", NOTE]).exits(0);
    assert_eq!(worker.lines("seen").len(), 4);
    worker.run(&["prune", "--keep", "0s", "--yes"]);
    let application = home_of("application");
    application.run(&["emit", "t"]).exits(1).says("permission denied", "doctor");
    at.answer("SET ROLE application; INSERT INTO evbus.outbox (type) VALUES ('t')");
    assert!(!at.psql("SET ROLE application; DELETE FROM evbus.outbox").status.success());
    let relay = home_of("relay");
    relay.run(&["relay", "--from", &relay.url(), "--once", "-q"]).exits(0);
    assert_eq!(at.answer("SELECT count(*) FROM evbus.outbox"), "0");
}

#[test]
fn a_copy_moves_events_between_any_two_kinds() {
    let from = Home::new();
    let ids = from.emit_segments("order.created", 30);
    from.run(&["emit", "order.paid", "--id", "mine", "{}"]).exits(0);
    from.run(&["emit", "order.late", "--at", "2099-01-01T00:00:00Z"]).exits(0);
    let mut last = from.url();
    for to in both() {
        let first = from.run(&["copy", &last, &to.url()]).exits(0);
        assert!(first.err.contains("copied 31 events") && first.err.contains("1 wait"), "{}", first.err);
        let again = from.run(&["copy", &last, &to.url()]).exits(0);
        assert!(again.err.contains("copied 0 events") && again.err.contains("31 were there"), "{}", again.err);
        let mut all = ids.clone();
        all.push("mine".to_owned());
        assert_eq!(sorted(ids_on(&to)), sorted(all));
        assert_eq!(to.run(&["ls", "--scheduled"]).exits(0).lines().len(), 1);
        // From the database back to a directory.
        last = to.url();
        let back = Home::new();
        back.run(&["copy", &last, &back.url(), "-t", "order.paid", "-q"]).exits(0);
        assert_eq!(ids_on(&back), ["mine"]);
    }
    from.run(&["copy", &from.url(), &from.url()]).exits(2).says("the same bus", "");
    let link = from.path().join("link");
    std::os::unix::fs::symlink(from.bus(), &link).unwrap();
    from.run(&["copy", &from.url(), link.to_str().unwrap()]).exits(2).says("the same bus", "");
}

#[test]
fn a_mirror_goes_on_with_what_comes() {
    let [from, to] = [Home::new(), Home::in_sqlite()];
    from.emit_many("t", 5);
    let mut mirror = from.spawn(&["copy", &from.url(), &to.url(), "--follow", "-q"]);
    until("the first are there", || ids_on(&to).len() == 5);
    from.emit_many("t", 5);
    until("the others, too", || ids_on(&to).len() == 10);
    signal(&mirror, "TERM");
    assert!(mirror.wait().unwrap().success());
}

#[test]
fn a_frozen_writer_of_a_sqlite_file_holds_up_others_for_as_long_as_it_is_frozen() {
    let home = Home::in_sqlite();
    let file = home.path().join("bus.db");
    let frozen = rusqlite::Connection::open(&file).unwrap();
    frozen.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ran = home.run(&["emit", "t", "--timeout", "1s"]);
    assert_eq!(ran.code, 75, "{}", ran.err);
    assert!(ran.err.contains("locked"), "{}", ran.err);
    let mut waiting = home.spawn(&["emit", "t", "--timeout", "60s"]);
    frozen.execute_batch("COMMIT").unwrap();
    assert!(waiting.wait().unwrap().success());
}

#[test]
fn a_sqlite_file_that_is_replaced_is_noticed() {
    let home = Home::in_sqlite();
    let file = home.path().join("bus.db");
    let mut command = home.evbus(&["watch", "-q", "-g", "g", "--from", "earliest", "--shell", NOTE]);
    let mut worker = command.stderr(fs::File::create(home.path().join("said")).unwrap()).spawn().unwrap();
    home.emit_many("t", 5);
    until("they are handled", || home.lines("seen").len() == 5);
    let backup = home.path().join("backup.db");
    rusqlite::Connection::open(&file).unwrap().execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    rusqlite::Connection::open(&backup).unwrap().pragma_update(None, "journal_mode", "WAL").unwrap();
    home.emit_many("t", 5);
    until("these, too", || home.lines("seen").len() == 10);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(home.path().join(format!("bus.db{suffix}")));
    }
    until("the worker waits for it", || home.lines("said").iter().any(|line| line.contains("holds no bus")));
    fs::rename(&backup, &file).unwrap();
    let after = home.emit_many("t", 5);
    until("the new ones are handled", || after.iter().all(|id| home.lines("seen").contains(id)));
    signal(&worker, "TERM");
    assert!(worker.wait().unwrap().success());
    assert_eq!(ids_on(&home).len(), 10);
}
