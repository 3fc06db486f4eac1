//! Outboxes: rows of applications' own transactions become events.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::postgres_server as server;
use super::support::{Home, NOTE, signal, sorted, unique, until};

/// A schema with an outbox, and its URL.
fn outbox() -> (String, String) {
    let schema = server::new_schema();
    let url = server::postgres().url(&schema);
    Home::at(&url).run(&["init"]).exits(0);
    (schema, url)
}

fn relay(home: &Home, from: &str) -> String {
    home.run(&["relay", "--from", from, "--once"]).exits(0).err
}

#[test]
fn committed_rows_become_events_in_their_order_and_others_do_not() {
    let (schema, from) = outbox();
    let at = server::postgres();
    at.answer(&format!(
        "INSERT INTO {schema}.outbox (type, subject, key, data, attr) \
         SELECT 'order.created', 'orders/' || n, 'k', json_build_object('n', n), '{{\"tenant\": \"t\"}}' \
         FROM generate_series(1, 1200) n"
    ));
    at.answer(&format!("BEGIN; INSERT INTO {schema}.outbox (type) VALUES ('never'); ROLLBACK"));
    let home = Home::new();
    assert!(relay(&home, &from).contains("1,200 moved"));
    assert_eq!(at.answer(&format!("SELECT count(*) FROM {schema}.outbox")), "0");
    home.run(&["drain", "-q", "-g", "g", "--ordered", "--from", "earliest", "--shell", "echo $EVBUS_SUBJECT >> seen"])
        .exits(0);
    let wanted: Vec<String> = (1..=1200).map(|n| format!("orders/{n}")).collect();
    assert_eq!(home.lines("seen"), wanted);
    assert!(relay(&home, &from).starts_with("0 moved to "));
}

#[test]
fn a_commit_that_comes_late_is_not_skipped() {
    let (schema, from) = outbox();
    let at = server::postgres();
    let home = Home::new();
    let mut late = at.psql_command().stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = late.stdin.take().unwrap();
    std::io::Write::write_all(
        &mut input,
        format!("BEGIN; INSERT INTO {schema}.outbox (id, type) VALUES ('late', 't');\n").as_bytes(),
    )
    .unwrap();
    until("the late transaction is open", || {
        at.answer(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE '%''late''%'",
        ) != "0"
    });
    at.answer(&format!("INSERT INTO {schema}.outbox (id, type) SELECT 'early' || n, 't' FROM generate_series(1, 5) n"));
    assert!(relay(&home, &from).contains("5 moved"), "an open transaction stops nobody");
    std::io::Write::write_all(&mut input, b"COMMIT;\n").unwrap();
    drop(input);
    assert!(late.wait().unwrap().success());
    assert!(relay(&home, &from).contains("1 moved"));
}

#[test]
fn rows_that_are_no_events_are_parked_and_can_be_put_back() {
    let (schema, postgres) = outbox();
    let at = server::postgres();
    at.answer(&format!(
        "INSERT INTO {schema}.outbox (id, type, data, attr) VALUES \
         ('good', 't', '1', NULL), ('bad', 't', NULL, '[]'), ('twice', 't', '1', NULL), ('twice', 't', '2', NULL)"
    ));
    let in_file = Home::in_sqlite();
    let file = in_file.path().join("bus.db");
    let application = rusqlite::Connection::open(&file).unwrap();
    application
        .execute_batch(
            "INSERT INTO evbus_outbox (id, type, data, attr) VALUES ('good', 't', '1', NULL), ('bad', 't', NULL, '[]'), \
             ('twice', 't', '1', NULL), ('twice', 't', '2', NULL)",
        )
        .unwrap();
    for from in [postgres, in_file.url()] {
        let home = Home::new();
        let said = relay(&home, &from);
        assert!(said.contains("2 moved, 2 parked"), "{said}");
        let parked = home.run(&["relay", "--from", &from, "--parked"]).exits(0);
        assert_eq!(parked.lines().len(), 2, "{}", parked.out);
        assert!(
            parked.out.contains("no JSON object") && parked.out.contains("another event has its id"),
            "{}",
            parked.out
        );
        assert!(home.run(&["relay", "--from", &from, "--redrive"]).exits(0).out.contains("2 rows put back"));
        assert!(relay(&home, &from).contains("0 moved, 2 parked"), "they are what they were");
        assert_eq!(home.run(&["ls"]).exits(0).lines().len(), 2);
        // So do `status` and `dead`, for a relay of the config.
        let config = home.file("evbus.toml", &format!("[relays.shop]\nfrom = '{from}'\n"));
        let with = |words: &[&str]| home.run(&[words, &["--config", config.to_str().unwrap()]].concat());
        let status = with(&["status"]).exits(0).out;
        assert!(status.contains("relay 'shop': 2 rows are no event, and parked"), "{status}");
        assert!(status.contains("dead ls --relay shop"), "{status}");
        let crossed = with(&["status", "--max-dead", "1"]).exits(3).err;
        assert!(crossed.contains("relay 'shop': 2 rows parked, over 1"), "{crossed}");
        let document: serde_json::Value = serde_json::from_str(&with(&["status", "--json"]).exits(0).out).unwrap();
        let relays = &document["relays"][0];
        assert_eq!((&relays["rows"], &relays["parked"]), (&0.into(), &2.into()), "{relays}");
        let metrics = with(&["status", "--prom"]).exits(0).out;
        assert!(metrics.contains("evbus_relay_parked_rows{relay=\"shop\"} 2\n"), "{metrics}");
        assert_eq!(with(&["dead", "ls", "--relay", "shop", "--json"]).exits(0).lines().len(), 2);
        let listed = with(&["dead", "ls", "--relay", "shop"]).exits(0).out;
        assert!(listed.contains("another event has its id"), "{listed}");
        assert!(with(&["dead", "redrive", "--relay", "shop"]).exits(0).err.contains("2 rows put back"));
        assert!(with(&["dead", "ls", "--relay", "shop"]).exits(0).err.contains("no parked rows"));
        with(&["dead", "ls", "--relay", "shed"]).exits(2).says("no relay 'shed'", "the config has shop");
    }
}

#[test]
fn a_row_that_the_database_cannot_give_as_text_is_parked_and_holds_up_no_other() {
    let at = server::of("-E SQL_ASCII --locale=C");
    let schema = server::new_schema();
    let from = at.url(&schema);
    Home::at(&from).run(&["init"]).exits(0);
    at.answer(&format!(
        "INSERT INTO {schema}.outbox (id, type, subject) \
         SELECT n::text, 't', CASE n WHEN 7 THEN E'\\xff' END FROM generate_series(1, 700) n"
    ));
    let home = Home::new();
    let said = relay(&home, &from);
    assert!(said.contains("699 moved, 1 parked"), "{said}");
    let parked = home.run(&["relay", "--from", &from, "--parked"]).exits(0);
    let parked: serde_json::Value = serde_json::from_str(&parked.out).unwrap();
    assert_eq!(parked["row"]["id"], "7", "{parked}");
    assert!(parked["reason"].as_str().unwrap().contains("0xff"), "{parked}");
    home.run(&["relay", "--from", &from, "--redrive"]).exits(0);
    at.answer(&format!("UPDATE {schema}.outbox SET subject = 'mended'"));
    assert!(relay(&home, &from).contains("1 moved"));
}

#[test]
fn another_programs_table_is_mapped() {
    let (schema, from) = outbox();
    let at = server::postgres();
    at.answer(&format!(
        "CREATE TABLE {schema}.theirs (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text NOT NULL, \
         aggregateid text NOT NULL, type text NOT NULL, payload jsonb); \
         INSERT INTO {schema}.theirs (aggregatetype, aggregateid, type, payload) VALUES ('order', '17', 'created', '{{}}'); \
         CREATE TABLE {schema}.own (no int PRIMARY KEY, event text, kind text, body json); \
         INSERT INTO {schema}.own VALUES (10, 'b', 'second', '2'), (9, 'a', 'first', '1')"
    ));
    let home = Home::new();
    let theirs = format!("{schema}.theirs");
    let ran = home.run(&["relay", "--from", &from, "--table", &theirs, "--preset", "debezium", "--once"]).exits(0);
    assert!(ran.err.contains("1 moved"), "{}", ran.err);
    let own = format!("{schema}.own");
    let map = "n=no,id=event,type=kind,data=body";
    home.run(&["relay", "--from", &from, "--table", &own, "--map", map, "--once"]).exits(0);
    home.run(&["drain", "-q", "-g", "g", "--from", "earliest", "--shell", "echo $EVBUS_TYPE $EVBUS_SUBJECT >> seen"])
        .exits(0);
    assert_eq!(home.lines("seen"), ["order.created 17", "first", "second"]);
    let missing = home.run(&["relay", "--from", &from, "--table", "nowhere", "--map", map, "--once"]);
    missing.exits(2).says("no table nowhere", "");
}

#[test]
fn no_committed_row_is_lost_or_doubled_whoever_is_killed() {
    let (schema, from) = outbox();
    let at = server::postgres();
    let home = Home::new();
    let over = AtomicBool::new(false);
    let committed: BTreeSet<String> = thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let schema = &schema;
                scope.spawn(move || {
                    // Some roll back, some stay open for a while, and ids come out of order.
                    let mut script = String::new();
                    let mut mine = Vec::new();
                    for n in 0..40 {
                        let id = format!("w{writer}-{n}");
                        let is_kept = (n * 7 + writer) % 5 != 0;
                        let pause = if n % 9 == writer { "SELECT pg_sleep(0.2);" } else { "" };
                        script.push_str(&format!(
                            "BEGIN; INSERT INTO {schema}.outbox (id, type, subject) VALUES ('{id}', 't', '{id}'); {pause} {};\n",
                            if is_kept { "COMMIT" } else { "ROLLBACK" }
                        ));
                        mine.extend(is_kept.then_some(id));
                    }
                    let ran = at.psql_command().args(["-f", "-"]).stdin(std::process::Stdio::piped()).spawn();
                    let mut ran = ran.unwrap();
                    std::io::Write::write_all(&mut ran.stdin.take().unwrap(), script.as_bytes()).unwrap();
                    assert!(ran.wait().unwrap().success());
                    mine
                })
            })
            .collect();
        let relays = scope.spawn(|| {
            let spawn = || home.spawn(&["relay", "-q", "--from", &from]);
            let (mut first, mut second) = (spawn(), spawn());
            let mut kills = 0;
            while !over.load(Ordering::SeqCst) {
                let seen = home.event_count();
                until("more events, or the end", || home.event_count() > seen + 20 || over.load(Ordering::SeqCst));
                if kills < 4 {
                    signal(&first, "KILL");
                    first.wait().unwrap();
                    first = std::mem::replace(&mut second, spawn());
                    kills += 1;
                }
            }
            (first, second)
        });
        let committed = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        until("the outbox is empty", || at.answer(&format!("SELECT count(*) FROM {schema}.outbox")) == "0");
        over.store(true, Ordering::SeqCst);
        let (mut first, mut second) = relays.join().unwrap();
        for relay in [&mut first, &mut second] {
            signal(relay, "TERM");
            assert!(relay.wait().unwrap().success());
        }
        committed
    });
    home.run(&["drain", "-q", "-g", "g", "--from", "earliest", "--shell", NOTE]).exits(0);
    let seen = home.lines("seen");
    assert_eq!(unique(seen.clone()), committed.iter().cloned().collect::<Vec<_>>(), "lost none");
    assert_eq!(sorted(seen.clone()).len(), unique(seen).len(), "doubled none");
}

#[test]
fn watch_and_drain_run_the_relays_of_the_config() {
    let in_file = Home::in_sqlite();
    let application = rusqlite::Connection::open(in_file.path().join("bus.db")).unwrap();
    let insert = |id: &str| {
        application.execute("INSERT INTO evbus_outbox (id, type) VALUES (?1, 't')", [id]).unwrap();
    };
    let home = Home::new();
    let config = format!(
        "[relays.shop]\nfrom = '{}'\n[watchers.w]\ntypes = ['**']\nfrom = 'earliest'\nshell = '{NOTE}'\n",
        in_file.url()
    );
    let config = home.file("evbus.toml", &config);
    let config = config.to_str().unwrap();
    insert("one");
    home.run(&["drain", "--config", config]).exits(0);
    assert_eq!(home.lines("seen"), ["one"]);
    let mut worker = home.spawn(&["watch", "--config", config]);
    insert("two");
    until("the row is an event, and handled", || home.lines("seen") == ["one", "two"]);
    signal(&worker, "TERM");
    assert!(worker.wait().unwrap().success());
    let bad = home.file("bad.toml", "[relays.x]\nfrom = 'postgres://h/d'\nmap = { colour = 'c' }\n");
    home.run(&["check", "--config", bad.to_str().unwrap()]).exits(2).says("bad.toml:3: 'colour'", "");
}

#[test]
fn a_table_whose_rows_cannot_be_told_apart_is_refused() {
    let (schema, from) = outbox();
    let at = server::postgres();
    at.answer(&format!(
        "CREATE TABLE {schema}.stamps (id text, type text, made timestamptz NOT NULL DEFAULT now()); \
         INSERT INTO {schema}.stamps (id, type) SELECT n::text, 't' FROM generate_series(1, 1200) n"
    ));
    let home = Home::new();
    let stamps = format!("{schema}.stamps");
    for map in ["n=made,id=id,type=type", "id=id,type=type"] {
        let ran = home.run(&["relay", "--from", &from, "--table", &stamps, "--map", map, "--once"]);
        ran.exits(1).says("unique", "");
    }
    assert_eq!(at.answer(&format!("SELECT count(*) FROM {schema}.stamps")), "1200");
    let in_file = Home::in_sqlite();
    let application = rusqlite::Connection::open(in_file.path().join("bus.db")).unwrap();
    application
        .execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, made TEXT NOT NULL, id TEXT, type TEXT); INSERT INTO t VALUES (1, 'x', 'a', 't')")
        .unwrap();
    for (map, code, word) in [
        ("n=made,id=id,type=type", 1, "unique"),
        // SQLite takes a name that is no column for a text, where it may.
        ("n=n,id=idd,type=type", 2, "no column 'idd'"),
        ("n=n,id=id,type=type,key=kee", 2, "no column 'kee'"),
    ] {
        let ran = home.run(&["relay", "--from", &in_file.url(), "--table", "t", "--map", map, "--once"]);
        ran.exits(code).says(word, "");
    }
    home.run(&["relay", "--from", &in_file.url(), "--table", "t", "--map", "n=n,id=id,type=type", "--once"]).exits(0);
    assert_eq!(home.run(&["ls"]).exits(0).lines().len(), 1);
}

#[test]
fn a_parked_row_that_is_no_text_hides_no_other() {
    let home = Home::in_sqlite();
    let application = rusqlite::Connection::open(home.path().join("bus.db")).unwrap();
    let insert = "INSERT INTO evbus_outbox (id, type, data) VALUES ('bad', 'blob', x'fffe'), ('odd', 'odd', '{')";
    application.execute_batch(insert).unwrap();
    let relay = |args: &[&str]| home.run(&[&["relay", "--from", &home.url()], args].concat());
    let parked = || relay(&["--parked"]).exits(0).out;
    relay(&["--once"]).exits(0);
    assert!(parked().contains("odd") && parked().contains("blob"), "{}", parked());
    relay(&["--redrive"]).exits(0);
    assert_eq!(parked(), "");
    relay(&["--once"]).exits(0);
    assert!(parked().contains("odd") && parked().contains("blob"), "parked again: {}", parked());
    let bytes: Vec<u8> = application
        .query_row("SELECT CAST(json_extract(row_, '$.data') AS BLOB) FROM evbus_outbox_parked LIMIT 1", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(bytes, b"\xff\xfe", "as it was");
    application.execute_batch("UPDATE evbus_outbox_parked SET row_ = replace(row_, '\"{\"', '\"{}\"')").unwrap();
    relay(&["--redrive"]).exits(0);
    relay(&["--once"]).exits(0);
    assert_eq!(home.run(&["ls", "-t", "odd"]).exits(0).lines().len(), 1);
}

#[test]
fn a_row_that_is_not_deleted_ends_the_relay_and_is_not_moved_for_ever() {
    let (schema, from) = outbox();
    let at = server::postgres();
    at.answer(&format!(
        "CREATE FUNCTION {schema}.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         CREATE TRIGGER keep BEFORE DELETE ON {schema}.outbox FOR EACH ROW EXECUTE FUNCTION {schema}.keep(); \
         INSERT INTO {schema}.outbox (type) SELECT 't' FROM generate_series(1, 600)"
    ));
    let home = Home::new();
    home.run(&["relay", "--from", &from, "--once"]).exits(1).says("500 of 500 rows", "");
}

#[test]
fn a_row_that_the_application_holds_stops_no_other() {
    let (schema, from) = outbox();
    let at = server::postgres();
    at.answer(&format!("INSERT INTO {schema}.outbox (id, type) SELECT n::text, 't' FROM generate_series(1, 3) n"));
    let mut holder = at.psql_command().stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = holder.stdin.take().unwrap();
    let hold = format!("BEGIN; SELECT id FROM {schema}.outbox WHERE id = '2' FOR UPDATE;\n");
    std::io::Write::write_all(&mut input, hold.as_bytes()).unwrap();
    let locks =
        format!("SELECT count(*) FROM pg_locks WHERE mode = 'RowShareLock' AND relation = '{schema}.outbox'::regclass");
    until("the row is held", || at.answer(&locks) != "0");
    let home = Home::new();
    assert!(relay(&home, &from).contains("2 moved"));
    drop(input);
    holder.wait().unwrap();
    assert!(relay(&home, &from).contains("1 moved"));
}

#[test]
fn a_relay_of_the_config_waits_for_its_database() {
    let (schema, from) = outbox();
    let at = server::postgres();
    at.answer(&format!("ALTER TABLE {schema}.outbox RENAME TO later"));
    let home = Home::new();
    let config = home.file("evbus.toml", &format!("[relays.shop]\nfrom = '{from}'\n"));
    let mut worker = home.spawn(&["watch", "--config", config.to_str().unwrap()]);
    at.answer(&format!("INSERT INTO {schema}.later (id, type) VALUES ('one', 't')"));
    at.answer(&format!("ALTER TABLE {schema}.later RENAME TO outbox"));
    until("the row is an event", || home.event_count() == 1);
    signal(&worker, "TERM");
    assert!(worker.wait().unwrap().success());
}

#[test]
fn rows_reach_a_bucket_while_the_relay_is_killed() {
    let (schema, from) = outbox();
    let at = server::postgres();
    let home = Home::at_bucket(&super::s3::seaweedfs().endpoint, "outbox");
    home.run(&["init"]).exits(0);
    at.answer(&format!(
        "INSERT INTO {schema}.outbox (id, type, data) SELECT 'row-' || n, 'github.push', json_build_object('n', n) \
         FROM generate_series(1, 329) n"
    ));
    let left = || at.answer(&format!("SELECT count(*) FROM {schema}.outbox"));
    let mut relay = home.spawn(&["relay", "-q", "--from", &from]);
    let work =
        || home.spawn(&["watch", "-q", "-g", "g", "-j", "8", "--poll", "1s", "--from", "earliest", "--shell", NOTE]);
    let mut worker = work();
    until("events reach the bucket", || home.run(&["ls", "-n", "1"]).lines().len() == 1);
    signal(&relay, "KILL");
    relay.wait().unwrap();
    let mut relay = home.spawn(&["relay", "-q", "--from", &from]);
    until("some are handled", || home.lines("seen").len() > 20);
    signal(&relay, "KILL");
    relay.wait().unwrap();
    let mut relay = home.spawn(&["relay", "-q", "--from", &from]);
    until("the outbox is empty", || left() == "0");
    until("all is handled", || unique(home.lines("seen")).len() == 329);
    for process in [&mut relay, &mut worker] {
        signal(process, "TERM");
        assert!(process.wait().unwrap().success());
    }
    // A relay that is killed between a put and its record leaves a copy, which is not run again where the first was.
    let ids = home.run(&["ls", "-n", "2000", "--json"]).exits(0).lines();
    let id = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].to_string();
    assert_eq!(unique(ids.iter().map(id).collect()).len(), 329);
    assert_eq!(home.lines("seen").len(), 329, "no worker was killed, and nothing runs twice");
}

#[test]
fn a_pass_does_not_go_on_in_another_session() {
    let (schema, from) = outbox();
    let at = server::postgres();
    let home = Home::in_sqlite();
    // The bus lets the pass wait between its reading and its deleting.
    let holder = rusqlite::Connection::open(home.path().join("bus.db")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    at.answer(&format!("INSERT INTO {schema}.outbox (id, type) VALUES ('first', 't')"));
    let mut relay = home.spawn(&["relay", "-q", "--from", &from]);
    let mine = format!(
        "FROM pg_stat_activity WHERE state = 'idle in transaction' AND pid IN \
         (SELECT pid FROM pg_locks WHERE relation = '{schema}.outbox'::regclass)"
    );
    until("the pass waits for the bus", || at.answer(&format!("SELECT count(*) {mine}")) == "1");
    at.answer(&format!("SELECT pg_terminate_backend(pid) {mine}"));
    // As after a failover, another event is there under the same number.
    at.answer(&format!("UPDATE {schema}.outbox SET id = 'second'"));
    holder.execute_batch("COMMIT").unwrap();
    until("the outbox is empty", || at.answer(&format!("SELECT count(*) FROM {schema}.outbox")) == "0");
    signal(&relay, "TERM");
    assert!(relay.wait().unwrap().success());
    assert!(home.run(&["ls", "--json"]).exits(0).out.contains("\"second\""));
}
