//! A database's server in bad and in odd states: a full disk, old snapshots, certificates.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use super::postgres_server::{self as server, Postgres};
use super::support::{Home, NOTE, signal, sorted, unique, until};

/// Certificates for 127.0.0.1 and for another host, and an authority that the server has nothing to do with.
const CERTIFICATES: &str = "for name in own other stranger; do \
    case $name in own) san=IP:127.0.0.1;; *) san=DNS:elsewhere.example;; esac; \
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $name.key -out $name.pem \
    -days 2 -subj /CN=$name -addext subjectAltName=$san || exit; chmod 600 $name.key; chmod 644 $name.pem; done";

#[test]
fn a_server_is_trusted_by_its_certificate_as_psql_does() {
    let folder = server::folder();
    let at = folder.path().display().to_string();
    let make = format!(
        "(cd {at} && {CERTIFICATES} && {}/initdb -D {at}/data -U {} -A trust --no-sync && \
         echo 'hostssl all all 127.0.0.1/32 trust' > {at}/data/pg_hba.conf)",
        server::programs().display(),
        server::USER
    );
    let certificate = |name: &str| [format!("ssl_cert_file={at}/{name}.pem"), format!("ssl_key_file={at}/{name}.key")];
    let [cert, key] = certificate("own");
    let mut own = Postgres::run(folder, &make, &["ssl=on", &cert, &key]);
    let home = |parameters: &str| Home::at(&format!("{}&{parameters}", own.url("evbus")));
    let root = |name: &str| format!("sslrootcert={at}/{name}.pem");
    home("sslmode=require").run(&["init"]).exits(0);
    for trusted in
        [format!("sslmode=verify-full&{}", root("own")), format!("sslmode=verify-ca&{}", root("own")), String::new()]
    {
        home(&trusted).run(&["emit", "t"]).exits(0);
    }
    let refused = home("sslmode=disable").run(&["emit", "t"]).exits(1);
    assert!(refused.err.contains("no encryption") || refused.err.contains("SSL off"), "{}", refused.err);
    for stranger in ["sslmode=verify-full", "sslmode=verify-ca"] {
        let ran = home(&format!("{stranger}&{}", root("stranger"))).run(&["emit", "t"]).exits(1);
        ran.says("certificate", "sslrootcert");
    }
    assert_eq!(home("sslmode=require").run(&["ls"]).exits(0).lines().len(), 3);
    // A certificate of another host is good for `verify-ca` alone.
    own.kill();
    let [cert, key] = certificate("other");
    own.set(&["ssl=on", &cert, &key]);
    own.begin("true");
    let home = |parameters: &str| Home::at(&format!("{}&{parameters}", own.url("evbus")));
    home(&format!("sslmode=verify-ca&{}", root("other"))).run(&["emit", "t"]).exits(0);
    let ran = home(&format!("sslmode=verify-full&{}", root("other"))).run(&["emit", "t"]).exits(1);
    ran.says("certificate", "sslrootcert");
}

#[test]
fn a_full_disk_loses_nothing_and_the_bus_goes_on_when_there_is_room() {
    let at = Postgres::on_a_small_disk("4m", &["autovacuum=off"]);
    at.answer(&format!("CREATE TABLESPACE small LOCATION '{}/small'", at.folder.path().display()));
    at.answer("ALTER DATABASE postgres SET default_tablespace = small");
    let home = Home::at(&at.url("evbus"));
    home.run(&["init"]).exits(0);
    at.answer("CREATE TABLE ballast AS SELECT repeat(md5(n::text), 60) FROM generate_series(1, 400) n");
    let mut worker = home.spawn(&["watch", "-q", "-g", "g", "--from", "earliest", "--shell", NOTE]);
    home.file("big", &format!("{{\"id\":\"{}\"}}", "0123456789abcdef".repeat(400)));
    let mut acked = Vec::new();
    let full = loop {
        let ran = home.run(&["emit", "t", "@big", "--timeout", "1s"]);
        match ran.code {
            0 => acked.extend(ran.lines()),
            _ => break ran,
        }
        assert!(acked.len() < 4_000, "the disk is never full");
    };
    assert_eq!(full.code, 1, "{}", full.err);
    assert!(full.err.contains("SQLSTATE 53100"), "{}", full.err);
    assert!(full.err.contains("make room on the server's disk"), "{}", full.err);
    at.answer("DROP TABLE ballast");
    until("there is room", || {
        let ran = home.run(&["emit", "t", "--timeout", "1s"]);
        acked.extend(ran.lines());
        ran.code == 0
    });
    until("all is handled", || acked.iter().all(|id| home.lines("seen").contains(id)));
    signal(&worker, "TERM");
    assert!(worker.wait().unwrap().success());
    assert_eq!(unique(home.lines("seen")), sorted(acked), "what was refused is not there");
}

#[test]
fn an_old_snapshot_and_its_dead_rows_hold_up_nobody() {
    let at = Postgres::start(&["fsync=off"]);
    let home = Home::at(&at.url("evbus"));
    home.run(&["init"]).exits(0);
    home.emit_many("t", 5);
    home.run(&["drain", "-q", "-g", "g", "--from", "earliest", "--shell", NOTE]).exits(0);
    let mut pinned = at.psql_command().stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut input = pinned.stdin.take().unwrap();
    input.write_all(b"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM evbus.object;\n").unwrap();
    until("the snapshot is taken", || {
        at.answer("SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND state LIKE 'idle%'") == "1"
    });
    // What 50,000 commits of the group's marker leave behind.
    at.answer(
        "DO $$ DECLARE last bigint; BEGIN SELECT max(n) INTO last FROM evbus.register WHERE key = 'state/g/marker-000'; \
         FOR i IN last..last + 49999 LOOP \
         WITH gone AS (DELETE FROM evbus.register WHERE key = 'state/g/marker-000' AND n = i RETURNING *) \
         INSERT INTO evbus.register SELECT key, n + 1, gen_random_uuid(), body FROM gone; COMMIT; END LOOP; END $$",
    );
    let mut worker = home.spawn(&["watch", "-q", "-g", "g", "--shell", NOTE]);
    let more = home.emit_many("t", 20);
    until("the new ones are handled", || more.iter().all(|id| home.lines("seen").contains(id)));
    signal(&worker, "TERM");
    assert!(worker.wait().unwrap().success());
    assert_eq!(home.lines("seen").len(), 25, "nothing runs twice");
    home.run(&["prune", "--keep", "0s", "--yes"]).exits(0);
    home.run(&["drain", "-q", "-g", "late", "--from", "earliest", "--shell", NOTE]).exits(0);
    let doctor = home.run(&["doctor"]).out;
    let dead = doctor.lines().find(|line| line.contains("dead rows")).expect("a finding").to_owned();
    assert!(!dead.contains(" 0 dead rows"), "{dead}");
    drop(input);
    pinned.wait().unwrap();
}

#[test]
fn the_log_of_a_sqlite_file_grows_no_more_when_a_frozen_reader_ends() {
    let home = Home::in_sqlite();
    let file = home.path().join("bus.db");
    let reader = rusqlite::Connection::open(&file).unwrap();
    home.emit_many("t", 1);
    reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;").unwrap();
    let lines: String = (0..4_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    home.file("lines", &lines);
    let emit = || home.run(&["emit", "t", "--each", "--ndjson", "@lines"]).exits(0);
    let log = || fs::metadata(home.path().join("bus.db-wal")).map_or(0, |log| log.len());
    emit();
    let held = log();
    emit();
    assert!(log() > held, "a reader that is frozen holds the log back");
    reader.execute_batch("COMMIT").unwrap();
    emit();
    let after = log();
    emit();
    assert!(log() <= after, "{} {after}", log());
    home.run(&["drain", "-q", "-g", "g", "--from", "earliest", "--batch", "1000", "--", "true"]).exits(0);
}
