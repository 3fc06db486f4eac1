//! The PostgreSQL recipe on a real server.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use super::postgres_server as server;
use super::{bare, example, succeeds, text};

/// What psql prints for a statement that must succeed, on the server of this program.
fn answer(sql: &str) -> String {
    server::postgres().answer(sql)
}

fn feed(home: &Path, lines: &str) {
    let mut emit = bare("evbus", home).args(["emit", "t", "--ndjson", "-q"]).stdin(Stdio::piped()).spawn().unwrap();
    emit.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(emit.wait().unwrap().success());
}

#[test]
fn a_batch_is_one_copy_and_json_escapes_round_trip() {
    let home = tempfile::tempdir().unwrap();
    answer(&fs::read_to_string(example("postgres/schema.sql")).unwrap());
    let load = example("postgres/load");
    let drain = |batch: &str| {
        let mut command = bare("evbus", home.path());
        let server = server::postgres();
        command.env("PGHOST", "127.0.0.1").env("PGPORT", server.port.to_string()).env("PGUSER", server::USER);
        command.env("PGDATABASE", "postgres");
        let limits = ["--max-attempts", "1", "--batch", batch, "--"];
        let output = command.args(["drain", "-g", "warehouse", "--from", "earliest"]).args(limits).arg(&load).output();
        text(&output.unwrap().stderr)
    };

    // Characters with a meaning in PostgreSQL's COPY, in CSV or in JSON.
    let odd = concat!(r#"a\b \n \\. \. "quoted" it''s, \t ; $1 %s é 漢 "#, "\u{9}\u{1}\u{2}", r"😀 \N NULL");
    let mut lines = format!("{}\n", serde_json::json!({"n": 0, "text": odd}));
    for n in 1..250 {
        writeln!(lines, "{{\"n\":{n}}}").unwrap();
    }
    feed(home.path(), &lines);
    let said = drain("100");
    assert!(said.contains("warehouse: 250 done, 0 left"), "{said}");
    assert_eq!(answer("SELECT count(*), count(DISTINCT event->'data'->>'n') FROM events"), "250|250");
    assert_eq!(answer("SELECT event->'data'->>'text' FROM events WHERE event->'data'->>'n' = '0'"), odd);

    // After a replay no row is there twice. jsonb has no NUL: that event alone becomes a dead
    // letter.
    succeeds(bare("evbus", home.path()).args(["group", "reset", "warehouse", "--to", "earliest", "--yes"]));
    feed(home.path(), "{\"n\":250,\"text\":\"a\\u0000b\"}\n{\"n\":251}\n");
    let said = drain("100");
    assert!(said.contains("251 done") && said.contains("1 dead, 0 left"), "{said}");
    assert_eq!(answer("SELECT count(*) FROM events"), "251");
}
