//! A temporary home with a bus, and evbus run in it with a cleared environment.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

pub use super::until::until;

/// The program under test.
pub const EVBUS: &str = env!("CARGO_BIN_EXE_evbus");

/// A handler that notes the event's id.
pub const NOTE: &str = "echo $EVBUS_ID >> seen";

/// A home with a bus, or with the address of one.
pub struct Home {
    dir: TempDir,
    url: OsString,
    vars: Vec<(&'static str, &'static str)>,
}

/// The result of a run of evbus.
pub struct CliRun {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl CliRun {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts the exit code; shows the output if it differs.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "out: {}\nerr: {}", self.out, self.err);
        self
    }

    /// Asserts that stderr is one line that contains `error`, and, if given, a `help:` line that
    /// contains `help`.
    #[track_caller]
    pub fn says(self, error: &str, help: &str) -> Self {
        let lines: Vec<&str> = self.err.lines().collect();
        assert!(lines.first().is_some_and(|line| line.starts_with("error: ") && line.contains(error)), "{}", self.err);
        assert!(lines.len() <= 2, "{}", self.err);
        if !help.is_empty() {
            assert!(lines.get(1).is_some_and(|line| line.starts_with("help: ") && line.contains(help)), "{}", self.err);
        }
        self
    }

    /// The lines of stdout.
    pub fn lines(&self) -> Vec<String> {
        self.out.lines().map(str::to_owned).collect()
    }
}

/// What differs from run to run, and what stands for it in a snapshot.
const FILTERS: [(&str, &str); 13] = [
    (r"events/\d{8}/\d{4}/", "events/[MINUTE]/"),
    (r"staging/[0-9a-f]{16}-\d+", "staging/[DRAFT]"),
    (r"\d{8}T\d{6}\.\d{6}Z-[0-9a-z]{16}", "[NAME]"),
    (r"\d{8}T\d{6}-[0-9a-z]{14}(-[0-9a-f]{16})?", "[ID]"),
    (r"\d{4}-\d{2}-\d{2}T[0-9:.]{8,15}Z", "[TIME]"),
    (r"\b\d{2}:\d{2}:\d{2}(\.\d+)?\b", "[TIME]"),
    (r"\b\d{4}-\d{2}-\d{2} \d{2}:\d{2}\b", "[DAY]"),
    (r"· <?\d+(\.\d+)?m?s\b", "· [TOOK]"),
    (r"\b\d+(\.\d+)?m?s old\b", "[AGE] old"),
    (r"oldest \d+(\.\d+)?m?s\b", "oldest [AGE]"),
    (r"(event_age_seconds|lag_seconds\S*) [0-9.e-]+\n", "$1 [AGE]\n"),
    (r"127\.0\.0\.1:\d+", "[SERVER]"),
    (r"on [A-Za-z0-9._-]+:\d+", "on [HOST]"),
];

impl Home {
    /// Compares a run's exit code and output with the snapshot of this name, which is the test's;
    /// `INSTA_UPDATE=always` writes it anew.
    pub fn snapshot(&self, name: &str, ran: &CliRun) {
        let mut settings = insta::Settings::new();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.add_filter(&regex_escaped(&self.path().display().to_string()), "~");
        settings.add_filter(&format!("//{}\\b", rustix::system::uname().nodename().to_string_lossy()), "//[HOST]");
        for (pattern, stand_in) in FILTERS {
            settings.add_filter(pattern, stand_in);
        }
        let part = |name, text: &str| if text.is_empty() { String::new() } else { format!("--- {name}\n{text}") };
        let text = format!("exit {}\n{}{}", ran.code, part("stdout", &ran.out), part("stderr", &ran.err));
        settings.bind(|| insta::assert_snapshot!(name, text));
    }

    /// A home with an empty bus.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Self { url: dir.path().join("bus").into(), dir, vars: Vec::new() };
        home.run(&["init", home.bus().to_str().unwrap()]).exits(0);
        home
    }

    /// A home with an address in a server's bucket, without a bus.
    pub fn at_bucket(endpoint: &str, prefix: &str) -> Self {
        let url = format!("s3://{}/{prefix}?endpoint={endpoint}", super::s3::BUCKET);
        Self { dir: tempfile::tempdir().unwrap(), url: url.into(), vars: super::s3::CREDENTIALS.to_vec() }
    }

    /// A home with an address, without a bus.
    pub fn at(url: &str) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), url: url.into(), vars: Vec::new() }
    }

    /// A home with a new bus in a SQLite file.
    #[cfg(feature = "sqlite")]
    pub fn in_sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Self { url: format!("sqlite://{}/bus.db", dir.path().display()).into(), dir, vars: Vec::new() };
        home.run(&["init"]).exits(0);
        home
    }

    /// The address of the bus.
    pub fn url(&self) -> String {
        self.url.to_str().unwrap().to_owned()
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn bus(&self) -> PathBuf {
        self.path().join("bus")
    }

    /// A command in this home, with the bus in EVBUS_URL, a plain PATH, and nothing else.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(self.path());
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", self.path()).env("EVBUS_URL", &self.url);
        command.envs(self.vars.iter().copied());
        command.env("EVBUS", EVBUS).env("TZ", "UTC");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn evbus(&self, args: &[&str]) -> Command {
        let mut command = self.command(EVBUS);
        command.args(args);
        command
    }

    /// Runs a command and returns its result.
    pub fn ran(command: &mut Command) -> CliRun {
        CliRun::of(command.output().unwrap())
    }

    pub fn run(&self, args: &[&str]) -> CliRun {
        CliRun::of(self.evbus(args).output().unwrap())
    }

    /// Runs evbus with something on stdin.
    pub fn feed(&self, args: &[&str], input: &str) -> CliRun {
        let mut child = self.evbus(args).stdin(Stdio::piped()).spawn().unwrap();
        // The process may have refused its arguments and ended.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        CliRun::of(child.wait_with_output().unwrap())
    }

    /// Runs a shell line; `$EVBUS` is the program.
    pub fn shell(&self, line: &str) -> CliRun {
        CliRun::of(self.command("sh").args(["-c", line]).output().unwrap())
    }

    /// Starts a shell line; `$EVBUS` is the program.
    pub fn shell_spawn(&self, line: &str) -> Child {
        self.command("sh").args(["-c", line]).spawn().unwrap()
    }

    pub fn spawn(&self, args: &[&str]) -> Child {
        self.evbus(args).spawn().unwrap()
    }

    /// Writes a file of the home.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Writes an executable script.
    pub fn script(&self, name: &str, body: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.file(name, &format!("#!/bin/sh\n{body}\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The lines of a file in the home; none if it does not exist.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The events' files on the bus, in order.
    pub fn events(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        files_below(&self.bus().join("events"), &mut found);
        found.sort();
        found
    }

    /// Emits events of a type numbered from 1, each in a file of its own, and returns their ids.
    pub fn emit_many(&self, type_: &str, count: usize) -> Vec<String> {
        self.feed(&["emit", type_, "--ndjson", "--each"], &numbered(count)).exits(0).lines()
    }

    /// The same, in segments.
    pub fn emit_segments(&self, type_: &str, count: usize) -> Vec<String> {
        self.feed(&["emit", type_, "--ndjson"], &numbered(count)).exits(0).lines()
    }

    /// How many events are on the bus.
    pub fn event_count(&self) -> usize {
        self.run(&["ls", "--limit", "0"]).exits(0).lines().len()
    }
}

/// Lines of data, numbered from 1.
fn numbered(count: usize) -> String {
    (1..=count).map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

/// Sends a signal to a child process.
pub fn signal(child: &Child, name: &str) {
    let done = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap();
    assert!(done.success());
}

/// Sorted, with repeats removed.
pub fn unique(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines.dedup();
    lines
}

/// Sorted.
pub fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// A path as a pattern that matches only it.
fn regex_escaped(path: &str) -> String {
    path.replace('.', r"\.")
}
