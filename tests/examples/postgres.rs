//! The PostgreSQL recipe on a real server, which the test starts on its own socket.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{bare, example, succeeds, text};

/// A server in a folder. It ends with its shell, which ends with this process.
struct PostgresServer {
    folder: tempfile::TempDir,
    shell: Child,
}

/// Where Debian installs the server's programs.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql");
    let versions = versions.unwrap_or_else(|error| panic!("PostgreSQL is not there ({error}): ./test installs it"));
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.unwrap().path().join("bin")).collect();
    versions.sort();
    versions.pop().unwrap()
}

impl PostgresServer {
    #[allow(clippy::disallowed_methods, reason = "another process's start is waited for")]
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // PostgreSQL refuses to run as root.
        let root = rustix::process::geteuid().is_root();
        if root {
            succeeds(Command::new("chown").arg("nobody").arg(folder.path()));
        }
        let (at, bin) = (folder.path().display(), programs());
        let script = format!(
            "{0}/initdb -D {at}/data -U tester -A trust -E UTF8 --locale=C.UTF-8 >{at}/log 2>&1 || exit; \
             {0}/postgres -D {at}/data -k {at} -c listen_addresses= -c fsync=off >>{at}/log 2>&1 </dev/null & server=$!; \
             cat >/dev/null; kill -INT $server; wait $server",
            bin.display()
        );
        let mut shell = Command::new(if root { "setpriv" } else { "sh" });
        if root {
            shell.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "sh"]);
        }
        let shell = shell.args(["-c", &script]).current_dir("/").stdin(Stdio::piped()).spawn().unwrap();
        let server = Self { folder, shell };
        for _ in 0..600 {
            if server.psql("SELECT 1").output().unwrap().status.success() {
                return server;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("no PostgreSQL: {}", fs::read_to_string(server.folder.path().join("log")).unwrap_or_default());
    }

    fn with<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("PGHOST", self.folder.path()).env("PGUSER", "tester").env("PGDATABASE", "postgres")
    }

    fn psql(&self, sql: &str) -> Command {
        let mut command = Command::new("psql");
        self.with(&mut command).args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        command
    }

    fn answer(&self, sql: &str) -> String {
        succeeds(&mut self.psql(sql)).0.trim_end().to_owned()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

fn feed(home: &Path, lines: &str) {
    let mut emit = bare("evbus", home).args(["emit", "t", "--ndjson", "-q"]).stdin(Stdio::piped()).spawn().unwrap();
    emit.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(emit.wait().unwrap().success());
}

#[test]
fn a_batch_is_one_copy_and_json_escapes_round_trip() {
    let server = PostgresServer::start();
    let home = tempfile::tempdir().unwrap();
    server.answer(&fs::read_to_string(example("postgres/schema.sql")).unwrap());
    let load = example("postgres/load");
    let drain = |batch: &str| {
        let mut command = bare("evbus", home.path());
        server.with(&mut command);
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
    assert_eq!(server.answer("SELECT count(*), count(DISTINCT event->'data'->>'n') FROM events"), "250|250");
    assert_eq!(server.answer("SELECT event->'data'->>'text' FROM events WHERE event->'data'->>'n' = '0'"), odd);

    // After a replay no row is there twice. jsonb has no NUL: that event alone becomes a dead
    // letter.
    succeeds(bare("evbus", home.path()).args(["group", "reset", "warehouse", "--to", "earliest", "--yes"]));
    feed(home.path(), "{\"n\":250,\"text\":\"a\\u0000b\"}\n{\"n\":251}\n");
    let said = drain("100");
    assert!(said.contains("251 done") && said.contains("1 dead, 0 left"), "{said}");
    assert_eq!(server.answer("SELECT count(*) FROM events"), "251");
}
