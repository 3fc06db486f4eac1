//! Databases: evbus beside what comes with the server, on the same server, with fsync.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

use evbus::clock::SystemClock;
use evbus::store::Store;
use evbus::store::postgres::{Database, PostgresStore, Ssl, SslMode};

use super::server::{self, Postgres};
use super::{ROUNDS, RatioBench, evbus, file_of_lines, handle_all, median, row, run, timed};

/// What an event is, in bytes, about.
const BODY: usize = 300;

pub fn databases(bench: &RatioBench) {
    let at = Postgres::start(&["shared_buffers=256MB", "max_wal_size=4GB"]);
    puts(&at);
    bulk(bench, &at);
    drained(&at);
    sqlite_singles(bench);
    sqlite_bulk(bench);
}

/// A new bus on the server; its URL.
fn new_bus(at: &Postgres) -> (String, String) {
    let schema = server::new_schema();
    let url = at.url(&schema);
    run(&mut evbus(Path::new(&url), &["init"]));
    (schema, url)
}

fn ratio(what: &str, [floor, ours]: [f64; 2], goal: &str) {
    row(what, format!("{floor:.0}/s"), format!("{ours:.0}/s"), format!("{:.2}", ours / floor), goal);
}

/// One put at a time by each of sixteen connections, and pgbench's bare insert.
fn puts(at: &Postgres) {
    const CLIENTS: usize = 16;
    const EACH: usize = 250;
    at.answer("CREATE TABLE bare (key text COLLATE \"C\" PRIMARY KEY, body bytea NOT NULL)");
    let script = server::write(
        at.folder.path(),
        "insert.sql",
        &format!(
            "\\set n random(1, 9000000000000000)\nINSERT INTO bare VALUES ('events/20261130/0902/' || :n, '\\x{}');\n",
            "61".repeat(BODY)
        ),
    );
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut bench = Command::new(server::programs().join("pgbench"));
        bench.args(["-n", "-c", &CLIENTS.to_string(), "-j", "2", "-t", &EACH.to_string(), "-h", "127.0.0.1"]);
        bench.args(["-p", &at.port.to_string(), "-U", server::USER, "-f"]).arg(&script).arg("postgres");
        let output = bench.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let tps = said.lines().find_map(|line| line.strip_prefix("tps = ")).unwrap();
        floors.push(tps.split(' ').next().unwrap().parse().unwrap());
        let (schema, _) = new_bus(at);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stores: Vec<PostgresStore> = (0..CLIENTS).map(|_| store(at, &schema)).collect();
        runtime.block_on(async {
            futures_util::future::join_all(stores.iter().map(|store| store.get("bus.json"))).await;
        });
        let took = timed(|| {
            runtime.block_on(async {
                let put = |client: usize| {
                    let store = &stores[client];
                    async move {
                        for n in 0..EACH {
                            let key = format!("events/20261130/0902/{round}-{client}-{n}.json");
                            let _ = store.put_new(&key, &[b'a'; BODY]).await.unwrap();
                        }
                    }
                };
                futures_util::future::join_all((0..CLIENTS).map(put)).await;
            });
        });
        ours.push((CLIENTS * EACH) as f64 / took);
    }
    ratio("PostgreSQL: one put, 16 clients; pgbench", [median(floors), median(ours)], ">= 0.8");
}

fn store(at: &Postgres, schema: &str) -> PostgresStore {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(at.port).user(server::USER).dbname("postgres");
    let database = Database {
        config,
        schema: schema.to_owned(),
        ssl: Ssl { mode: SslMode::Disable, root: None, identity: None },
        listen: None,
        unused_passwords: None,
        timeout: None,
    };
    PostgresStore::new(database, Rc::new(SystemClock), true)
}

/// A bulk emit, and COPY into a bare table of the same columns.
fn bulk(bench: &RatioBench, at: &Postgres) {
    const COUNT: usize = 100_000;
    let mut text = String::new();
    for n in 0..COUNT {
        writeln!(text, "events/20261130/0902/{n:0>40}\t\\\\x{}", "61".repeat(BODY)).unwrap();
    }
    let rows = server::write(at.folder.path(), "rows", &text);
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        at.answer("TRUNCATE bare");
        let copy = format!("\\copy bare FROM '{}'", rows.display());
        floors.push(COUNT as f64 / timed(|| run(at.psql_command().args(["-c", &copy]))));
        let (_, url) = new_bus(at);
        let emit = ["emit", "order.created", "--ndjson", "-q"];
        let took = timed(|| run(evbus(Path::new(&url), &emit).stdin(file_of_lines(bench, COUNT))));
        ours.push(COUNT as f64 / took);
    }
    ratio("PostgreSQL: emit --ndjson, 100,000; COPY", [median(floors), median(ours)], ">= 0.6");
}

/// A drain by a closure, and reading the rows by key.
fn drained(at: &Postgres) {
    const COUNT: usize = 10_000;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (schema, url) = new_bus(at);
        super::emit(Path::new(&url), COUNT);
        let read = format!("SELECT body FROM {schema}.object WHERE key = $1");
        let keys = format!("SELECT key FROM {schema}.object WHERE key > 'events/' AND key < 'events0' ORDER BY key");
        floors.push(runtime.block_on(async {
            let mut config = tokio_postgres::Config::new();
            config.host("127.0.0.1").port(at.port).user(server::USER).dbname("postgres");
            let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            let statement = client.prepare(&read).await.unwrap();
            let begun = std::time::Instant::now();
            for row in client.query(&keys, &[]).await.unwrap() {
                let key: String = row.get(0);
                client.query_one(&statement, &[&key]).await.unwrap();
            }
            COUNT as f64 / begun.elapsed().as_secs_f64()
        }));
        let took = timed(|| assert_eq!(runtime.block_on(handle_all(Path::new(&url), 16)), COUNT as u64));
        ours.push(COUNT as f64 / took);
    }
    ratio("PostgreSQL: drain of 10,000; reads by key", [median(floors), median(ours)], ">= 0.5");
}

fn sqlite_bus(bench: &RatioBench) -> String {
    let url = format!("sqlite://{}/bus.db", bench.fresh("sqlite").display());
    run(&mut evbus(Path::new(&url), &["init"]));
    url
}

/// One event by one process, and the shell of SQLite with one INSERT.
fn sqlite_singles(bench: &RatioBench) {
    const EACH: usize = 100;
    let body = "a".repeat(BODY);
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let bare = bench.fresh("bare").join("bare.db");
        let made = "PRAGMA journal_mode=WAL; CREATE TABLE t (key TEXT NOT NULL UNIQUE, body BLOB NOT NULL)";
        run(Command::new("sqlite3").arg(&bare).arg(made));
        let floor = timed(|| {
            for n in 0..EACH {
                let insert = format!("PRAGMA synchronous=FULL; INSERT INTO t VALUES ('events/{n}', '{body}')");
                run(Command::new("sqlite3").arg(&bare).arg(insert));
            }
        });
        let url = sqlite_bus(bench);
        let data = format!("\"{body}\"");
        let own = timed(|| {
            for _ in 0..EACH {
                run(&mut evbus(Path::new(&url), &["emit", "order.created", &data, "-q"]));
            }
        });
        floors.push(floor / EACH as f64 * 1e3);
        ours.push(own / EACH as f64 * 1e3);
    }
    let (floor, ours) = (median(floors), median(ours));
    let ratio = format!("{:.2}", ours / floor);
    row("SQLite: emit, a process; sqlite3", format!("{floor:.2} ms"), format!("{ours:.2} ms"), ratio, "< 1");
}

/// A bulk emit, and one transaction that inserts the same rows.
fn sqlite_bulk(bench: &RatioBench) {
    const COUNT: usize = 100_000;
    let body = vec![b'a'; BODY];
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let bare = rusqlite::Connection::open(bench.fresh("bare").join("bare.db")).unwrap();
        let made =
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (key TEXT NOT NULL UNIQUE, body BLOB)";
        bare.execute_batch(made).unwrap();
        floors.push(
            COUNT as f64
                / timed(|| {
                    bare.execute_batch("BEGIN IMMEDIATE").unwrap();
                    let mut insert = bare.prepare("INSERT INTO t VALUES (?1, ?2)").unwrap();
                    for n in 0..COUNT {
                        insert.execute(rusqlite::params![format!("events/20261130/0902/{n:0>40}"), body]).unwrap();
                    }
                    bare.execute_batch("COMMIT").unwrap();
                }),
        );
        let url = sqlite_bus(bench);
        let emit = ["emit", "order.created", "--ndjson", "-q"];
        let took = timed(|| run(evbus(Path::new(&url), &emit).stdin(file_of_lines(bench, COUNT))));
        ours.push(COUNT as f64 / took);
    }
    ratio("SQLite: emit --ndjson, 100,000; one transaction", [median(floors), median(ours)], ">= 0.5");
}

/// What the shells' packages bring; a bench does not install them.
pub fn is_there() -> bool {
    let there = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    fs::read_dir("/usr/lib/postgresql").is_ok() && there("psql") && there("sqlite3")
}
