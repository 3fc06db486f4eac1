//! The rules for a run of a command, on real processes.

use std::cell::{Cell, RefCell};
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::*;
use crate::clock::SystemClock;

/// Collects lines, and notifies a task that waits for one.
#[derive(Default)]
struct Heard {
    lines: RefCell<Vec<(Stream, String)>>,
    bytes: Cell<usize>,
    news: Notify,
}

impl Heard {
    async fn wait_for(&self, line: &str) {
        while !self.lines.borrow().iter().any(|(_, heard)| heard == line) {
            self.news.notified().await;
        }
    }

    fn of(&self, wanted: Stream) -> Vec<String> {
        self.lines.borrow().iter().filter(|(stream, _)| *stream == wanted).map(|(_, line)| line.clone()).collect()
    }
}

impl Output for Heard {
    fn line(&self, source: &LineSource, stream: Stream, line: &[u8]) {
        assert_eq!(source.label, "test");
        self.bytes.set(self.bytes.get() + line.len());
        if self.bytes.get() < 1 << 20 {
            self.lines.borrow_mut().push((stream, String::from_utf8_lossy(line).into_owned()));
        }
        self.news.notify_one();
    }
}

fn shell(text: &str) -> CommandSpec {
    CommandSpec {
        argv: ["sh", "-c", text].map(str::to_owned).to_vec(),
        cwd: None,
        env: None,
        timeout: None,
        grace: Duration::from_secs(600),
        label: "test".to_owned(),
    }
}

fn handler(command: CommandSpec, output: Rc<dyn Output>) -> CommandHandler {
    let reaper = OrphanReaper::with_program(vec!["cat".to_owned()]);
    CommandHandler::with_reaper(command, Rc::new(SystemClock), output, Rc::new(reaper))
}

fn job(event: &[u8]) -> Job {
    let (file, permit) = ("event.json".to_owned(), Permit::new(|| true));
    let (event, file, vars) = (Bytes::copy_from_slice(event), file.into(), Rc::new(Vec::new()));
    Job { event, file, vars, likeness: None, attempt: 1, epoch: 1, permit }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn run_job(command: CommandSpec, job: Job) -> (RunReport, Rc<Heard>) {
    let heard = Rc::new(Heard::default());
    let report = block_on(handler(command, heard.clone()).run(job));
    (report, heard)
}

fn run(text: &str, event: &[u8]) -> (RunReport, Rc<Heard>) {
    run_job(shell(text), job(event))
}

fn not_started(command: CommandSpec) -> String {
    let check = handler(command.clone(), Rc::new(Discard)).check();
    match run_job(command, job(b"")).0.outcome {
        Outcome::NotStarted(obstacle) => {
            assert_eq!(check, Err(*obstacle.clone()));
            obstacle.why
        }
        other => panic!("it started: {other:?}"),
    }
}

#[test]
fn the_exit_code_or_signal_is_reported() {
    assert_eq!(run("exit 0", b"").0.outcome, Outcome::Exit(0));
    assert_eq!(run("exit 65", b"").0.outcome, Outcome::Exit(65));
    assert_eq!(run("kill -SEGV $$", b"").0.outcome, Outcome::Signal(11));
}

#[test]
fn an_event_of_any_size_is_on_stdin() {
    for size in [0, 1, 4096, 4097, 3 << 20] {
        let (report, heard) = run("wc -c", &vec![b'e'; size]);
        assert_eq!((report.outcome, heard.of(Stream::Out)), (Outcome::Exit(0), vec![size.to_string()]));
    }
    assert_eq!(run("echo $0", b"").1.of(Stream::Out), ["sh"], "the program's name is as it was given");
    assert_eq!(run("cat", b"{\"a\":\n1}").1.of(Stream::Out), ["{\"a\":", "1}"]);
}

#[test]
fn a_handler_need_not_read_its_stdin() {
    assert_eq!(run("exit 3", &vec![b'e'; 3 << 20]).0.outcome, Outcome::Exit(3));
    assert_eq!(run("exec <&-; exit 4", &vec![b'e'; 3 << 20]).0.outcome, Outcome::Exit(4));
}

#[test]
fn large_output_before_large_input_does_not_deadlock() {
    let text = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; test $(wc -c) = 3145728";
    let (report, heard) = run(text, &vec![b'e'; 3 << 20]);
    assert_eq!(report.outcome, Outcome::Exit(0));
    assert_eq!(heard.bytes.get(), 6_000_000);
    assert_eq!(report.stderr_tail, "\0".repeat(4096));
}

#[test]
fn lines_come_with_their_stream_and_the_tail_of_stderr_is_kept() {
    let (report, heard) = run("echo one; echo two >&2; printf '\\033[1mthree' >&2", b"");
    assert_eq!(heard.of(Stream::Out), ["one"]);
    assert_eq!(heard.of(Stream::Err), ["two", "\u{1b}[1mthree"]);
    assert_eq!(report.stderr_tail, "two\n\u{1b}[1mthree");
}

#[test]
fn discarded_output_keeps_the_tail() {
    let report = block_on(handler(shell("echo out; echo why >&2; exit 1"), Rc::new(Discard)).run(job(b"")));
    assert_eq!((report.outcome, report.stderr_tail.as_str()), (Outcome::Exit(1), "why\n"));
}

#[test]
fn the_environment_is_inherited_or_restricted() {
    let mut command = CommandSpec { argv: vec!["env".to_owned()], ..shell("") };
    let told = Job { vars: Rc::new(vec![("EVBUS_ID", "7".into())]), ..job(b"") };
    let (_, heard) = run_job(command.clone(), told.clone());
    let all = heard.of(Stream::Out);
    assert!(all.iter().any(|line| line.starts_with("PATH=")) && all.contains(&"EVBUS_ID=7".to_owned()));
    assert!(all.len() > 3, "{all:?}");
    command.env = Some(vec!["PATH".to_owned(), "NOT_SET_ANYWHERE".to_owned()]);
    let mut narrow = run_job(command, told).1.of(Stream::Out);
    narrow.sort();
    for own in ["EVBUS_FILE=", "EVBUS_RUN="] {
        assert!(narrow.iter().any(|line| line.starts_with(own)));
        narrow.retain(|line| !line.starts_with(own));
    }
    let path = format!("PATH={}", std::env::var("PATH").unwrap());
    assert_eq!(narrow, ["EVBUS_ID=7".to_owned(), path]);
}

#[test]
fn a_run_does_not_see_the_variables_of_the_one_before() {
    let heard = Rc::new(Heard::default());
    let handler = handler(shell("echo ${EVBUS_KEY-unset}"), heard.clone());
    block_on(async {
        handler.run(Job { vars: Rc::new(vec![("EVBUS_KEY", "k".into())]), ..job(b"") }).await;
        handler.run(job(b"")).await;
    });
    assert_eq!(heard.of(Stream::Out), ["k", "unset"]);
}

#[test]
fn a_temporary_event_file_is_private_and_removed() {
    let made = Job { file: "a/../b.json".into(), ..job(b"the event") };
    let (_, heard) = run_job(
        shell("cat \"$EVBUS_FILE\"; echo; stat -c %a \"$EVBUS_FILE\" \"${EVBUS_FILE%/*}\"; echo \"$EVBUS_FILE\""),
        made,
    );
    let [event, mode, folder_mode, path] = heard.of(Stream::Out).try_into().unwrap();
    assert_eq!((event.as_str(), mode.as_str(), folder_mode.as_str()), ("the event", "600", "700"));
    let folder = Path::new(&path).parent().unwrap();
    let memory = std::env::var_os("TMPDIR").is_none().then(|| super::input::MEMORY.into());
    assert_eq!(folder.parent(), Some(&*memory.unwrap_or_else(std::env::temp_dir)));
    assert!(path.ends_with("a_.._b.json") && !folder.exists(), "{path}");
}

#[test]
fn a_large_event_file_lies_on_the_disk() {
    let (_, heard) = run_job(shell("wc -c < \"$EVBUS_FILE\"; echo \"$EVBUS_FILE\""), job(&[b'x'; (64 << 10) + 1]));
    let [len, path] = heard.of(Stream::Out).try_into().unwrap();
    assert_eq!(len.trim(), "65537");
    assert!(Path::new(&path).starts_with(std::env::temp_dir()), "{path}");
}

/// A regression: it was the shared folder of temporary files.
#[test]
fn a_handler_that_removes_its_files_folder_does_not_affect_the_next() {
    let heard = Rc::new(Heard::default());
    let handler = handler(shell("cat \"$EVBUS_FILE\" && rm -r \"${EVBUS_FILE%/*}\""), heard.clone());
    block_on(async {
        for event in [b"1\n", b"2\n"] {
            assert_eq!(handler.run(job(event)).await.outcome, Outcome::Exit(0));
        }
    });
    assert_eq!(heard.of(Stream::Out), ["1", "2"]);
}

#[test]
fn a_handler_runs_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let command = CommandSpec { cwd: Some(path.clone()), ..shell("pwd") };
    assert_eq!(run_job(command, job(b"")).1.of(Stream::Out), [path.to_str().unwrap()]);
}

#[test]
fn a_handler_may_clean_up_at_its_time_limit() {
    // The trap is set long before the limit on any machine that runs this at all; otherwise the
    // handler dies of TERM and the line is missing.
    let command = CommandSpec {
        timeout: Some(Duration::from_secs(2)),
        ..shell("trap 'echo bye; exit 0' TERM; sleep 1000 & wait")
    };
    let (report, heard) = run_job(command, job(b""));
    assert_eq!((report.outcome, heard.of(Stream::Out)), (Outcome::TimedOut, vec!["bye".to_owned()]));
}

#[test]
fn a_handler_that_ignores_term_is_killed_with_its_children() {
    let text = "trap '' TERM; (sleep 1000 & echo $!; wait) & wait";
    let (timeout, grace) = (Some(Duration::from_millis(500)), Duration::from_millis(50));
    let (report, heard) = run_job(CommandSpec { timeout, grace, ..shell(text) }, job(b""));
    assert_eq!(report.outcome, Outcome::TimedOut);
    let [grandchild] = heard.of(Stream::Out).try_into().unwrap();
    assert!(gone(&grandchild), "{grandchild} is left");
}

/// Whether this process has ended. One that a signal has just killed may still be exiting, or wait
/// for init.
fn gone(pid: &str) -> bool {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    loop {
        match fs::read_to_string(&path) {
            Err(_) => return true,
            Ok(stat) if stat.contains(") Z ") || stat.contains(") X ") => return true,
            // SIGKILL was sent before this check: it is pending, or it was not sent at all.
            Ok(_) => match fs::read_to_string(format!("/proc/{pid}/status")) {
                Ok(status) if !killed(&status) => return false,
                _ => std::thread::yield_now(),
            },
        }
    }
}

fn killed(status: &str) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap_or("0").trim(), 16).unwrap()
    };
    (mask("ShdPnd:") | mask("SigPnd:")) & (1 << 8) != 0
}

#[test]
fn a_stop_ends_running_handlers_and_no_later_ones() {
    let heard = Rc::new(Heard::default());
    let handler = handler(shell("echo up; test $EVBUS_ID = later || exec sleep 1000"), heard.clone());
    let tagged = |id: &str| Job { vars: Rc::new(vec![("EVBUS_ID", id.into())]), ..job(b"") };
    block_on(async {
        let stop = async {
            while heard.lines.borrow().len() < 2 {
                heard.news.notified().await;
            }
            handler.terminate();
        };
        let (one, two, ()) = tokio::join!(handler.run(tagged("1")), handler.run(tagged("2")), stop);
        assert_eq!((one.outcome, two.outcome), (Outcome::Stopped, Outcome::Stopped));
        assert_eq!(handler.run(tagged("later")).await.outcome, Outcome::Exit(0));
    });
}

#[test]
fn a_dropped_run_is_killed() {
    let heard = Rc::new(Heard::default());
    let handler = handler(shell("echo $$; echo up; exec sleep 1000"), heard.clone());
    block_on(async {
        tokio::select! {
            report = handler.run(job(b"")) => panic!("it ended: {report:?}"),
            () = heard.wait_for("up") => {}
        }
    });
    assert!(gone(&heard.of(Stream::Out)[0]));
}

#[test]
fn a_background_child_does_not_block_the_run_and_survives() {
    let (report, heard) = run("sleep 1000 & echo $!", b"");
    assert_eq!(report.outcome, Outcome::Exit(0));
    let child = heard.of(Stream::Out).remove(0);
    let alive = !gone(&child);
    let pid = rustix::process::Pid::from_raw(child.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert!(alive);
}

/// Writes an executable by another process. If this one did, a handler that another test starts at
/// that moment could inherit the file open for writing, and it could not be run (ETXTBSY).
fn executable(path: &Path, content: &str) {
    let text = "printf %s \"$1\" >\"$2\" && chmod +x \"$2\"";
    let status = std::process::Command::new("sh").args(["-c", text, "sh", content]).arg(path).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_handler_that_cannot_start_reports_cause_and_cure() {
    let named = |name: &str| CommandSpec { argv: vec![name.to_owned()], ..shell("") };
    assert_eq!(not_started(named("no-such-thing")), "handler 'no-such-thing' not found in PATH");
    assert_eq!(not_started(CommandSpec { argv: Vec::new(), ..shell("") }), "the handler's command is empty");
    let folder = tempfile::tempdir().unwrap();
    let cwd = Some(folder.path().to_owned());
    let file = folder.path().join("x.sh");
    fs::write(&file, "#!/bin/sh\nexit 0\n").unwrap();
    let relative = CommandSpec { cwd: cwd.clone(), ..named("./x.sh") };
    assert_eq!(not_started(relative.clone()), "handler './x.sh' is not executable");
    let missing = CommandSpec { cwd, ..named("./y.sh") };
    assert_eq!(not_started(missing), "handler './y.sh' not found");
    assert!(not_started(named(folder.path().to_str().unwrap())).ends_with("is a directory"));
    let nowhere = CommandSpec { cwd: Some(folder.path().join("gone")), ..shell("true") };
    assert!(not_started(nowhere).ends_with("no such directory"));
    fs::remove_file(&file).unwrap();
    executable(&file, "#!/bin/sh\nexit 0\n");
    assert_eq!(run_job(relative, job(b"")).0.outcome, Outcome::Exit(0));
}

#[test]
fn a_file_that_is_no_program_costs_no_attempt() {
    let folder = tempfile::tempdir().unwrap();
    for (content, part) in [("just text", "neither a program nor a script"), ("#!/no/such/shell\n", "the interpreter")]
    {
        let file = folder.path().join("x");
        executable(&file, content);
        let command = CommandSpec { argv: vec![file.to_str().unwrap().to_owned()], ..shell("") };
        let outcome = run_job(command, job(b"")).0.outcome;
        assert!(
            matches!(&outcome, Outcome::NotStarted(obstacle) if obstacle.why.contains(part) && !obstacle.is_temporary),
            "{outcome:?}"
        );
    }
}
