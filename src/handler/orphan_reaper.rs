//! Ends what a worker leaves running when it is killed with a signal that it cannot catch.
//!
//! The orphan reaper is a small child of the worker, in its own process group. It waits for the end
//! of a pipe that only the worker holds open. The worker keeps the process groups of its running
//! handlers in a memory file, the *registry*, which the reaper reads only when the pipe has ended:
//! so the start and the end of a handler cost a small write or two, and wake no process. The reaper
//! kills every group that is still listed, the handler's own children included.
//!
//! Before a handler has a process group its line holds the run's token, which is also in its
//! environment: by that token the reaper finds a handler that was just being started when the
//! worker was killed.
//!
//! The files that `EVBUS_FILE` names lie in a folder of the worker, which the reaper removes.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::fs::MemfdFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal};
use tokio::signal::unix::{SignalKind, signal};

use super::input::MEMORY;

/// One line of the registry: a process group, a run's token, or 0, and a line feed.
const LINE_BYTES: usize = 28;
/// The variable that holds a run's token.
pub(super) const RUN_VARIABLE: &str = "EVBUS_RUN";
/// How often, at intervals of 20 ms, the reaper looks for the token of a process that is being
/// started.
const LOOKS: u32 = 50;
/// After this many deaths a reaper is not started again.
const MOST_STARTS: u32 = 5;

/// A run's file of at most so many bytes lies in memory.
const SMALL_BYTES: usize = 64 << 10;

/// The hidden argument by which the program runs [`orphan_reaper_main`] instead of a command.
pub const ORPHAN_REAPER_ARGUMENT: &str = "__reap-orphans";

/// The start of the name of a worker's folder; its number in 16 digits follows.
const FOLDER_PREFIX: &str = "evbus-";
/// The length of a worker's number, in digits.
const WORKER_LEN: usize = 16;

/// Keeps a reaper process, and the registry of what it has to end. One is enough for all handlers
/// of a worker.
#[derive(Debug)]
pub struct OrphanReaper {
    argv: Vec<String>,
    folders: [PathBuf; 2],
    /// Whether the user has said where temporary files are to lie.
    folder_is_given: bool,
    state: RefCell<ReaperState>,
}

#[derive(Debug, Default)]
struct ReaperState {
    registry: Option<OwnedFd>,
    process: Option<ReaperProcess>,
    starts: u32,
    free: Vec<u32>,
    lines: u32,
    runs: u64,
}

/// The reaper process. It ends when `parent_pipe`, which no other process holds open, is closed.
#[derive(Debug)]
struct ReaperProcess {
    child: Child,
    _parent_pipe: OwnedFd,
}

impl OrphanReaper {
    /// A reaper that is this same program, run with the hidden argument `__reap-orphans`; no
    /// process is started yet. `random` is a number that no other worker has.
    #[must_use]
    pub fn new(random: u64) -> Self {
        let worker = format!("{random:0WORKER_LEN$x}");
        // This same file, even if an upgrade has since put another in its place.
        let argv = vec!["/proc/self/exe".to_owned(), ORPHAN_REAPER_ARGUMENT.to_owned(), worker.clone()];
        Self::of(argv, &worker)
    }

    /// A reaper that is another program, which must do what [`orphan_reaper_main`] does.
    #[cfg(test)]
    pub(super) fn with_program(argv: Vec<String>) -> Self {
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1 << 16);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let worker = format!("{:0WORKER_LEN$x}", (u64::from(std::process::id()) << 32) | number);
        Self::of(argv, &worker)
    }

    fn of(argv: Vec<String>, worker: &str) -> Self {
        let folder_is_given = std::env::var_os("TMPDIR").is_some();
        Self { argv, folders: folders_of(worker), folder_is_given, state: RefCell::default() }
    }

    /// The folders for the file of a run of so many bytes; the first one with room is used. A small
    /// file is quickest in memory, and lies there unless the user has given a folder.
    pub(super) fn folders(&self, len: usize) -> [&Path; 2] {
        let [temporary, memory] = &self.folders;
        if len <= SMALL_BYTES && !self.folder_is_given { [memory, temporary] } else { [temporary, memory] }
    }

    /// Starts the reaper unless it runs already. A worker works on even if no reaper can be
    /// started.
    pub(super) fn ensure(&self) {
        let mut state = self.state.borrow_mut();
        let runs = state.process.as_mut().is_some_and(|process| matches!(process.child.try_wait(), Ok(None)));
        if !runs && state.starts < MOST_STARTS {
            state.starts += 1;
            state.process = self.start(&mut state.registry).ok();
        }
    }

    fn start(&self, registry: &mut Option<OwnedFd>) -> io::Result<ReaperProcess> {
        let registry = match registry {
            Some(registry) => registry,
            None => registry.insert(rustix::fs::memfd_create("evbus-registry", MemfdFlags::CLOEXEC)?),
        };
        let (read, parent_pipe) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (program, arguments) = self.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(read)
            .stdout(registry.try_clone()?)
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        super::children::adopt(&child);
        Ok(ReaperProcess { child, _parent_pipe: parent_pipe })
    }

    /// Lists a run that is about to be started, until the entry is dropped.
    pub(super) fn begin(&self) -> Registration<'_> {
        let (line, run) = {
            let mut state = self.state.borrow_mut();
            state.runs += 1;
            let line = state.free.pop().unwrap_or_else(|| {
                state.lines += 1;
                state.lines - 1
            });
            (line, state.runs)
        };
        let token = format!("{:x}-{run:x}", std::process::id());
        self.write(line, &token);
        Registration { reaper: self, line, token }
    }

    fn write(&self, line: u32, entry: &str) {
        let mut text = String::with_capacity(LINE_BYTES);
        // Writing to a String cannot fail. A registry that cannot be written protects no run, and
        // stops none.
        let _ = writeln!(text, "{entry:>width$}", width = LINE_BYTES - 1);
        if let Some(registry) = &self.state.borrow().registry {
            let _ = rustix::io::pwrite(registry, text.as_bytes(), u64::from(line) * LINE_BYTES as u64);
        }
    }
}

impl Drop for OrphanReaper {
    fn drop(&mut self) {
        if let Some(mut process) = self.state.get_mut().process.take() {
            // After an orderly end nothing is left to reap. Killed rather than asked, so that the
            // wait is short.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
        for folder in &self.folders {
            // Only an empty folder is removed: files that a handler has put there are not evbus's.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// A run that the reaper ends if the worker dies now.
#[derive(Debug)]
pub(super) struct Registration<'a> {
    reaper: &'a OrphanReaper,
    line: u32,
    token: String,
}

impl Registration<'_> {
    /// What the run's environment must hold as [`RUN_VARIABLE`].
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// The run has a process group now. The entry must be dropped before its leader is reaped:
    /// after that, the number may belong to another process.
    pub(super) fn started(&self, group: Pid) {
        self.reaper.write(self.line, &group.as_raw_nonzero().to_string());
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.reaper.write(self.line, "0");
        self.reaper.state.borrow_mut().free.push(self.line);
    }
}

/// The reaper's program: stdin is the pipe whose end means that the worker is gone, stdout the
/// registry.
#[must_use]
pub fn orphan_reaper_main() -> ExitCode {
    // An orderly stop of the worker often signals all its processes, and the reaper must outlive
    // it. Without this it still serves after a kill -9, so a failure is no reason to give up.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let _deaf = runtime.as_ref().map(|runtime| {
        let _inside = runtime.enter();
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(|kind| signal(kind).ok())
    });
    let reaped = reap_on_parent_exit(&mut io::stdin().lock(), io::stdout().as_fd());
    if let Some(worker) = std::env::args().nth(2) {
        remove_folders(&worker);
    }
    match reaped {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The folders for the files of runs: a temporary one of the worker's, and one in memory.
fn folders_of(worker: &str) -> [PathBuf; 2] {
    let temporary = std::env::temp_dir();
    // A handler may run in another folder, so the path must be absolute.
    let temporary = std::path::absolute(&temporary).unwrap_or(temporary);
    [temporary, PathBuf::from(MEMORY)].map(|folder| folder.join(format!("{FOLDER_PREFIX}{worker}")))
}

/// Removes what is left of a worker's files.
fn remove_folders(worker: &str) {
    if worker.len() == WORKER_LEN && worker.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        for folder in folders_of(worker) {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Waits for the end of `parent_pipe`, then kills every process group in `registry`, and handlers
/// that were just being started.
fn reap_on_parent_exit(parent_pipe: &mut impl Read, registry: impl AsFd) -> io::Result<()> {
    io::copy(parent_pipe, &mut io::sink())?;
    let mut line = [0; LINE_BYTES];
    let mut offset = 0;
    let mut tokens = Vec::new();
    while rustix::io::pread(&registry, &mut line, offset)? == LINE_BYTES {
        offset += LINE_BYTES as u64;
        match (listed_group(&line), listed_token(&line)) {
            // The group may have ended since.
            (Some(group), _) => _ = rustix::process::kill_process_group(group, Signal::KILL),
            (None, Some(token)) => tokens.push(format!("{RUN_VARIABLE}={token}")),
            (None, None) => {}
        }
    }
    for _ in 0..LOOKS {
        tokens.retain(|token| !kill_by_token(token));
        if tokens.is_empty() {
            break;
        }
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let _ = rustix::event::poll(&mut [], Some(&pause));
    }
    Ok(())
}

/// Kills the process groups of all processes that have this token in the environment. Returns
/// whether there was one.
fn kill_by_token(token: &str) -> bool {
    let mut found = false;
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == token.as_bytes()) {
            found = true;
            let group = rustix::process::getpgid(Some(pid)).ok().filter(|group| group.as_raw_nonzero().get() > 1);
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
        }
    }
    found
}

/// The token of one line.
fn listed_token(line: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(line).ok()?.trim();
    (text.contains('-') && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')).then_some(text)
}

/// The group of one line. Never 1, which would mean every process there is.
fn listed_group(line: &[u8]) -> Option<Pid> {
    let number = std::str::from_utf8(line).ok()?.trim().parse().ok()?;
    if number > 1 { Pid::from_raw(number) } else { None }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// What [`orphan_reaper_main`] does, in shell: to test the registry apart from the reaper's
    /// program.
    const SHELL_GUARD: &str = "cat >/dev/null; while read g; do test $g -lt 2 || kill -9 -$g; done </dev/stdout";

    fn sleeper() -> (Child, Pid) {
        let child = Command::new("sleep").arg("1000").stdout(Stdio::null()).process_group(0).spawn().unwrap();
        let group = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        (child, group)
    }

    fn shell_reaper() -> OrphanReaper {
        OrphanReaper::with_program(["sh", "-c", SHELL_GUARD].map(str::to_owned).to_vec())
    }

    /// Closes the worker's end of the pipe; the reaper's process does its work and ends.
    fn end_its_worker(reaper: &OrphanReaper) {
        let ReaperProcess { mut child, _parent_pipe: parent_pipe } = reaper.state.borrow_mut().process.take().unwrap();
        drop(parent_pipe);
        child.wait().unwrap();
    }

    fn enlist(reaper: &OrphanReaper, group: Pid) -> Registration<'_> {
        let entry = reaper.begin();
        entry.started(group);
        entry
    }

    #[test]
    fn a_handler_being_started_is_found_by_its_token() {
        let reaper = OrphanReaper::with_program(vec!["cat".to_owned()]);
        reaper.ensure();
        let entry = reaper.begin();
        let mut child = Command::new("sleep");
        child.arg("1000").env(RUN_VARIABLE, entry.token()).stdout(Stdio::null()).process_group(0);
        let mut child = child.spawn().unwrap();
        let registry = reaper.state.borrow().registry.as_ref().unwrap().try_clone().unwrap();
        reap_on_parent_exit(&mut io::empty(), registry).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    fn process_number(reaper: &OrphanReaper) -> u32 {
        reaper.state.borrow().process.as_ref().unwrap().child.id()
    }

    #[test]
    fn the_end_of_the_parent_pipe_kills_only_listed_processes() {
        let reaper = OrphanReaper::with_program(vec!["cat".to_owned()]);
        reaper.ensure();
        let ((mut listed, one), (mut struck, two)) = (sleeper(), sleeper());
        let gone = enlist(&reaper, two);
        let _entry = enlist(&reaper, one);
        drop(gone);
        let registry = reaper.state.borrow().registry.as_ref().unwrap().try_clone().unwrap();
        reap_on_parent_exit(&mut io::empty(), registry).unwrap();
        assert_eq!(listed.wait().unwrap().signal(), Some(9));
        // If the reaper had sent its KILL, this TERM would come too late.
        rustix::process::kill_process(two, Signal::TERM).unwrap();
        assert_eq!(struck.wait().unwrap().signal(), Some(15));
    }

    #[test]
    fn a_reaper_kills_listed_handlers_when_its_worker_dies() {
        let reaper = shell_reaper();
        reaper.ensure();
        let (mut child, group) = sleeper();
        let _entry = enlist(&reaper, group);
        end_its_worker(&reaper);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_dead_reaper_is_replaced_and_knows_running_handlers() {
        let reaper = shell_reaper();
        reaper.ensure();
        let (mut child, group) = sleeper();
        let _entry = enlist(&reaper, group);
        let first = process_number(&reaper);
        {
            let mut state = reaper.state.borrow_mut();
            let process = state.process.as_mut().unwrap();
            process.child.kill().unwrap();
            process.child.wait().unwrap();
        }
        reaper.ensure();
        assert_ne!(process_number(&reaper), first);
        end_its_worker(&reaper);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_missing_reaper_does_not_stop_handlers() {
        let reaper = OrphanReaper::with_program(vec!["/no/such/reaper".to_owned()]);
        for _ in 0..10 {
            reaper.ensure();
        }
        assert_eq!(reaper.state.borrow().starts, MOST_STARTS);
        let (mut child, group) = sleeper();
        drop(enlist(&reaper, group));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn only_the_workers_own_folder_is_removed() {
        let random = (u64::from(std::process::id()) << 32) | 7;
        let [worker, another] = [random, random + 1].map(|number| format!("{number:0WORKER_LEN$x}"));
        let folders = [&worker, &another].map(|worker| folders_of(worker)[0].clone());
        for folder in &folders {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("1-t.json"), "{}").unwrap();
        }
        for none in ["", "..", "*", &worker[1..], &format!("{worker}/..")] {
            remove_folders(none);
        }
        assert!(folders[0].exists());
        remove_folders(&worker);
        assert!(!folders[0].exists() && folders[1].exists());
        remove_folders(&another);
    }

    #[test]
    fn no_registry_line_addresses_every_process() {
        assert_eq!(listed_group(b"         1\n"), None);
        assert_eq!(listed_group(b"         0\n"), None);
        assert_eq!(listed_group(b"        -5\n"), None);
        assert_eq!(listed_group(b"garbage...\n"), None);
        assert_eq!(listed_group(b"    12-ab\n"), None);
        assert_eq!(listed_group(b"      4711\n"), Pid::from_raw(4711));
        assert_eq!(listed_token(b"      4711\n"), None);
        assert_eq!(listed_token(b"   12f-ab\n"), Some("12f-ab"));
    }
}
