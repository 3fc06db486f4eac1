//! Databases: evbus beside what comes with the server, on the same server, with fsync.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Barrier;

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
    queues(bench, &at);
    let quick = reached(bench, &at);
    pinned(bench, &at, quick);
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
    /// Of the program that has the clients.
    const THREADS: usize = 2;
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
        bench.args([
            "-n",
            "-c",
            &CLIENTS.to_string(),
            "-j",
            &THREADS.to_string(),
            "-t",
            &EACH.to_string(),
            "-h",
            "127.0.0.1",
        ]);
        bench.args(["-p", &at.port.to_string(), "-U", server::USER, "-f"]).arg(&script).arg("postgres");
        let output = bench.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let tps = said.lines().find_map(|line| line.strip_prefix("tps = ")).unwrap();
        floors.push(tps.split(' ').next().unwrap().parse().unwrap());
        let (schema, _) = new_bus(at);
        let connected = Barrier::new(THREADS + 1);
        let took = std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (schema, connected) = (&schema, &connected);
                scope.spawn(move || {
                    put_from(at, schema, (CLIENTS / THREADS, EACH), &format!("{round}-{thread}"), connected)
                });
            }
            connected.wait();
            timed(|| _ = connected.wait())
        });
        ours.push((CLIENTS * EACH) as f64 / took);
    }
    ratio("PostgreSQL: one put, 16 clients; pgbench", [median(floors), median(ours)], ">= 0.8");
}

/// So many clients on one thread, each of which puts so many events.
fn put_from(at: &Postgres, schema: &str, (clients, each): (usize, usize), mark: &str, connected: &Barrier) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stores: Vec<PostgresStore> = (0..clients).map(|_| store(at, schema)).collect();
    runtime.block_on(futures_util::future::join_all(stores.iter().map(|store| store.get("bus.json"))));
    connected.wait();
    let put = async |client: usize| {
        for n in 0..each {
            let key = format!("events/20261130/0902/{mark}-{client}-{n}.json");
            let _ = stores[client].put_new(&key, &[b'a'; BODY]).await.unwrap();
        }
    };
    runtime.block_on(futures_util::future::join_all((0..clients).map(put)));
    connected.wait();
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

/// Milliseconds until a handler's first line, p50.
#[derive(Clone, Copy)]
struct Reached {
    notify: f64,
    emit: f64,
    outbox: f64,
}

/// From the put, and from the insert of an outbox's row, to the handler's first line; and NOTIFY to a listener that starts
/// the same program.
fn reached(bench: &RatioBench, at: &Postgres) -> Reached {
    let of: Vec<Reached> = (0..ROUNDS).map(|_| reached_once(bench, at)).collect();
    let pick = |of_one: fn(&Reached) -> f64| median(of.iter().map(of_one).collect());
    let quick = Reached { notify: pick(|r| r.notify), emit: pick(|r| r.emit), outbox: pick(|r| r.outbox) };
    let shown = |ms: f64| format!("{ms:.2} ms");
    let ratio = format!("{:.2}", quick.emit / quick.notify);
    row("PostgreSQL: emit to handler, p50; NOTIFY", shown(quick.notify), shown(quick.emit), ratio, "<= 3");
    let more = format!("+{:.1} ms", quick.outbox - quick.emit);
    row("PostgreSQL: outbox row to handler, p50; emit", shown(quick.emit), shown(quick.outbox), more, "<= +10 ms");
    quick
}

fn reached_once(bench: &RatioBench, at: &Postgres) -> Reached {
    const COUNT: usize = 60;
    const GAP: std::time::Duration = std::time::Duration::from_millis(25);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = bench.fresh("stamps");
    let program = bench.floor.display().to_string();
    let middle = |sent: &[f64], stamps: &Path| {
        let lines = || fs::read_to_string(stamps).unwrap_or_default();
        while lines().lines().filter(|line| !line.starts_with("0 ")).count() < sent.len() {
            std::thread::sleep(GAP);
        }
        let taken = lines();
        let taken = taken.lines().filter_map(|line| {
            let (seq, at) = line.split_once(' ').unwrap();
            let sent = sent.get(seq.parse::<usize>().unwrap().checked_sub(1)?)?;
            Some((at.parse::<f64>().unwrap() - sent) / 1e6)
        });
        median(taken.collect())
    };
    let now = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
    };
    let client = || {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(at.port).user(server::USER).dbname("postgres");
        config
    };
    let notify = {
        let stamps = folder.join("notify");
        let (program, to) = (program.clone(), stamps.clone());
        let sent = runtime.block_on(async {
            let (listener, mut connection) = client().connect(tokio_postgres::NoTls).await.unwrap();
            let notes = futures_util::stream::poll_fn(move |context| connection.poll_message(context));
            let told = tokio::spawn(futures_util::StreamExt::for_each(notes, move |message| {
                if let Ok(tokio_postgres::AsyncMessage::Notification(note)) = message {
                    let mut child = Command::new(&program);
                    let mut child = child.args(["hstdin", to.to_str().unwrap()]).stdin(Stdio::piped()).spawn().unwrap();
                    let line = format!("{{\"seq\":{}}}", note.payload());
                    std::io::Write::write_all(&mut child.stdin.take().unwrap(), line.as_bytes()).unwrap();
                    child.wait().unwrap();
                }
                std::future::ready(())
            }));
            listener.batch_execute("LISTEN bare").await.unwrap();
            let (sender, connection) = client().connect(tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            let mut sent = Vec::new();
            for seq in 1..=COUNT {
                std::thread::sleep(GAP);
                sent.push(now());
                sender.batch_execute(&format!("NOTIFY bare, '{seq}'")).await.unwrap();
            }
            tokio::time::timeout(GAP * 8, told).await.unwrap_err();
            sent
        });
        middle(&sent, &stamps)
    };
    let (schema, url) = new_bus(at);
    let stamps = folder.join("own");
    let config = folder.join("evbus.toml");
    let text = format!(
        "[relays.shop]\nfrom = '{url}'\n[watchers.g]\ntypes = ['**']\nfrom = 'earliest'\ncommand = ['{program}', 'hstdin', '{}']\n",
        stamps.display()
    );
    fs::write(&config, text).unwrap();
    let watch = evbus(Path::new(&url), &["watch", "-q", "--config", config.to_str().unwrap()]).spawn().unwrap();
    let count = || fs::read_to_string(&stamps).unwrap_or_default().lines().count();
    // The first event makes the worker the owner of its shard.
    while count() < 1 {
        run(&mut evbus(Path::new(&url), &["emit", "t", "{\"seq\":0}", "-q"]));
        std::thread::sleep(GAP * 8);
    }
    let sent = runtime.block_on(async {
        let bus = evbus::Bus::open(&url).await.unwrap();
        let mut sent = Vec::new();
        for seq in 1..=COUNT {
            std::thread::sleep(GAP);
            sent.push(now());
            let event = evbus::NewEvent::new("t").json(&serde_json::json!({"seq": seq})).unwrap();
            bus.emit(event).await.unwrap();
        }
        sent
    });
    let emit = middle(&sent, &stamps);
    let _ = fs::remove_file(&stamps);
    let sent = runtime.block_on(async {
        let (sender, connection) = client().connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let insert =
            format!("INSERT INTO {schema}.outbox (type, data) VALUES ('t', ('{{\"seq\":' || $1::int || '}}')::json)");
        let insert = sender.prepare(&insert).await.unwrap();
        let mut sent = Vec::new();
        for seq in 1..=COUNT {
            std::thread::sleep(GAP);
            sent.push(now());
            sender.execute(&insert, &[&i32::try_from(seq).unwrap()]).await.unwrap();
        }
        sent
    });
    let outbox = middle(&sent, &stamps);
    super::stop(watch);
    Reached { notify, emit, outbox }
}

/// The same with an old snapshot, and half a million dead rows that it keeps.
fn pinned(bench: &RatioBench, at: &Postgres, quick: Reached) {
    const DEAD: usize = 500_000;
    let (schema, url) = new_bus(at);
    run(evbus(Path::new(&url), &["emit", "old", "--ndjson", "--each", "-q"]).stdin(file_of_lines(bench, 1_000)));
    let mut holder = at.psql_command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = holder.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1;\n").unwrap();
    let mut first = [0];
    std::io::Read::read_exact(&mut holder.stdout.take().unwrap(), &mut first).unwrap();
    let drain = ["drain", "-q", "-g", "g", "--from", "earliest", "--batch", "1000", "--", "true"];
    let emit = ["emit", "t", "--ndjson", "--each", "-q"];
    let prune = ["prune", "--keep", "0s", "--yes", "-q"];
    let round = |count: usize| {
        let emit = timed(|| run(evbus(Path::new(&url), &emit).stdin(file_of_lines(bench, count))));
        (emit, timed(|| run(&mut evbus(Path::new(&url), &drain))))
    };
    let clean = round(10_000);
    let dead = format!(
        "INSERT INTO {schema}.object SELECT 'events/20260101/0000/20260101T000000.' || lpad(n::text, 6, '0') || \
         'Z-7k00000000000000-t.json', '\\x7b7d' FROM generate_series(1, {DEAD}) n; \
         DELETE FROM {schema}.object WHERE key LIKE 'events/20260101/%'"
    );
    at.answer(&dead);
    let full = round(10_000);
    for (what, clean, full) in [("emit", clean.0, full.0), ("drain", clean.1, full.1)] {
        let name = format!("PostgreSQL: {what}, 500,000 dead rows; without");
        let shown = |seconds: f64| format!("{:.0} ms", seconds * 1e3);
        row(&name, shown(clean), shown(full), format!("{:.2}", full / clean), "<= 1.3");
    }
    let took = timed(|| run(&mut evbus(Path::new(&url), &prune)));
    row("PostgreSQL: prune of 20,000 behind them", String::new(), format!("{took:.2} s"), String::new(), "-");
    let slow = reached_once(bench, at);
    for (what, quick, slow) in [("emit", quick.emit, slow.emit), ("outbox row", quick.outbox, slow.outbox)] {
        let name = format!("PostgreSQL: {what} to handler, pinned; without");
        row(&name, format!("{quick:.2} ms"), format!("{slow:.2} ms"), format!("{:.2}", slow / quick), "<= 1.3");
    }
    drop(input);
    holder.wait().unwrap();
}

/// Other queues in the same server, at a bulk emit and a drain by 1,000.
fn queues(bench: &RatioBench, at: &Postgres) {
    const COUNT: usize = 100_000;
    drop(file_of_lines(bench, COUNT));
    let lines = bench.dir.path().join(format!("lines-{COUNT}"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/queues.py");
    let folder = bench.fresh("queues");
    let (mut theirs, mut emits, mut drains) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let url = format!("postgres://{}@127.0.0.1:{}/postgres", server::USER, at.port);
        let output = Command::new("python3").arg(&script).arg(url).arg(&folder).arg(&lines).output().unwrap();
        theirs.push(String::from_utf8(output.stdout).unwrap());
        let (_, url) = new_bus(at);
        let emit = ["emit", "order.created", "--ndjson", "-q"];
        let took = timed(|| run(evbus(Path::new(&url), &emit).stdin(file_of_lines(bench, COUNT))));
        emits.push(COUNT as f64 / took);
        let drain = ["drain", "-q", "-g", "g", "--from", "earliest", "--batch", "1000", "--", "true"];
        drains.push(COUNT as f64 / timed(|| run(&mut evbus(Path::new(&url), &drain))));
    }
    for (peer, what, ours) in [
        ("pgmq", "emit", median(emits.clone())),
        ("graphile-worker", "emit", median(emits)),
        ("pgmq", "drain", median(drains)),
    ] {
        let of = |text: &String| {
            let line = text.lines().find(|line| line.starts_with(peer))?;
            Some(super::figure(line, &format!("{what}/s=")))
        };
        let rates: Vec<f64> = theirs.iter().filter_map(of).collect();
        if !rates.is_empty() {
            ratio(&format!("PostgreSQL: {what}, 100,000 by 1,000; {peer}"), [median(rates), ours], "> 1");
        }
    }
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
