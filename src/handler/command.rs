//! A user's command as a handler.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::Pid;
use sha2::{Digest, Sha256};
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::Notify;

use super::children::{Unreaped, reap};
use super::input::{self, PlacedFile};
use super::orphan_reaper::{OrphanReaper, RUN_VARIABLE};
use super::output::{self, LineSink, LineSource, Output, OutputPipe, Stream};
use super::process::{KillReason, OutputPipes, ProcessGroup, see_through};
use super::program::ProgramError;
use super::{Handler, Job, Obstacle, Outcome, RunReport, program};
use crate::clock::{Clock, Fut};

/// How to run a group's handler.
#[derive(Debug, Clone)]
pub struct CommandSpec {
    /// The program and its arguments; a shell form is `["sh", "-c", text]`. The event is never
    /// among them.
    pub argv: Vec<String>,
    /// The folder where it runs; none: the worker's. A relative program path is looked up from
    /// there.
    pub cwd: Option<PathBuf>,
    /// The names of the worker's variables that it may see; none: all of them.
    pub env: Option<Vec<String>>,
    /// How long a run may take.
    pub timeout: Option<Duration>,
    /// How long a handler has between TERM and KILL.
    pub grace: Duration,
    /// What its lines of output are marked with.
    pub label: String,
}

impl CommandSpec {
    /// The program's name, and a digest by which two workers can tell whether they run the same:
    /// `make-thumb 5f2b11c0`.
    pub fn digest(&self) -> String {
        let program = self.argv.first().map_or("", |program| program.rsplit('/').next().unwrap_or(program));
        let mut hash = Sha256::new();
        for part in &self.argv {
            hash.update(part);
            hash.update([0]);
        }
        let hash = hash.finalize();
        format!("{program} {:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3])
    }
}

/// Runs a [`CommandSpec`] for each event, each in a process group of its own.
pub struct CommandHandler {
    command: CommandSpec,
    clock: Rc<dyn Clock>,
    output: Rc<dyn Output>,
    reaper: Rc<OrphanReaper>,
    stop: Notify,
    unreaped: Unreaped,
    /// Commands that are used again and again, one for each run that goes on or is prepared, so that the
    /// environment is not put together for each run.
    templates: RefCell<Vec<std::process::Command>>,
}

/// A run that can start at once.
struct PreparedRun {
    command: std::process::Command,
    file: PlacedFile,
    /// The variables that the command has for this run alone.
    vars: Vec<(&'static str, String)>,
    pipes: OutputPipes,
    /// Registered before the start, so that no end is missed.
    children: unix::Signal,
}

impl CommandHandler {
    /// A handler with its own orphan reaper.
    pub fn new(command: CommandSpec, clock: Rc<dyn Clock>, output: Rc<dyn Output>) -> Self {
        let reaper = Rc::new(OrphanReaper::new(clock.random()));
        Self::with_reaper(command, clock, output, reaper)
    }

    /// A handler that shares an orphan reaper with others of the same worker.
    pub fn with_reaper(
        command: CommandSpec,
        clock: Rc<dyn Clock>,
        output: Rc<dyn Output>,
        reaper: Rc<OrphanReaper>,
    ) -> Self {
        let (stop, unreaped) = (Notify::new(), Unreaped::default());
        Self { command, clock, output, reaper, stop, unreaped, templates: RefCell::default() }
    }

    async fn outcome(&self, job: Job) -> RunReport {
        // From here on a stop reaches this run.
        let stop = self.stop.notified();
        let prepared = match self.prepare(&job) {
            Ok(prepared) => prepared,
            Err(obstacle) => return not_started(obstacle),
        };
        let Some(_turn) = job.turn.take().await.filter(|_| job.permit.holds()) else {
            self.put_back(prepared.command, &prepared.vars);
            return RunReport::stopped();
        };
        let begun = self.clock.elapsed();
        let limit = self.command.timeout.map(|timeout| begun + timeout);
        // The file is there until the run has ended.
        let PreparedRun { command, file: _file, vars, pipes, children } = prepared;
        let process_group = match self.start(command, &vars) {
            Ok(started) => started,
            Err(obstacle) => return not_started(obstacle),
        };
        let kill = self.kill_reason(stop, limit);
        match see_through(process_group, children, pipes, kill, self.command.grace, &*self.clock).await {
            Ok((outcome, tail)) => RunReport::new(outcome, tail.text(), self.clock.elapsed().saturating_sub(begun)),
            Err(error) => not_started(format!("cannot wait for handler '{}': {error}", self.name()).into()),
        }
    }

    async fn kill_reason(&self, stop: impl Future<Output = ()>, limit: Option<Duration>) -> KillReason {
        let Some(limit) = limit else {
            stop.await;
            return KillReason::Stop;
        };
        tokio::select! { biased;
            () = stop => KillReason::Stop,
            () = self.clock.sleep_until(limit) => KillReason::Limit,
        }
    }

    /// Does all that can be done before the run's turn.
    fn prepare(&self, job: &Job) -> Result<PreparedRun, Obstacle> {
        let file = PlacedFile::place(self.reaper.folders(job.event.len()), &job.file, &job.event).map_err(|error| {
            program::refused(&error, |error| format!("cannot write the event's file: {error}").into())
        })?;
        let children = signal(SignalKind::child())
            .map_err(|error| Obstacle::from(format!("cannot watch for the end of handlers: {error}")))?;
        let plumbing = |error: io::Error| {
            program::refused(&error, |error| format!("cannot make pipes for handler '{}': {error}", self.name()).into())
        };
        let vars = job.vars.list();
        let stdin = input::stdin(&job.event).map_err(plumbing)?;
        let sink = self.sink(&vars);
        let (stdout, out) = self.stdout(&sink).map_err(plumbing)?;
        let (err, stderr) = output::pipe().map_err(plumbing)?;
        let pipes = OutputPipes { out, err: OutputPipe::new(err, Stream::Err, &sink) };
        let known = self.templates.borrow_mut().pop();
        let mut command = match known {
            Some(command) => command,
            None => self.template()?,
        };
        command.stdin(stdin).stdout(stdout).stderr(stderr).env("EVBUS_FILE", file.path());
        command.envs(vars.iter().map(|(name, value)| (name, value)));
        Ok(PreparedRun { command, file, vars, pipes, children })
    }

    fn start(
        &self,
        mut command: std::process::Command,
        vars: &[(&'static str, String)],
    ) -> Result<ProcessGroup<'_>, Obstacle> {
        reap(&self.unreaped);
        self.reaper.ensure();
        let entry = self.reaper.begin();
        command.env(RUN_VARIABLE, entry.token());
        let child = command.spawn().map_err(|error| {
            // The program may have moved: look for it again next time.
            self.templates.borrow_mut().clear();
            program::refused(&error, |error| program::refusal(self.name(), self.command.cwd.as_deref(), error))
        })?;
        self.put_back(command, vars);
        let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
            return Err(format!("handler '{}' has no process number", self.name()).into());
        };
        entry.started(group);
        Ok(ProcessGroup::new(child, group, entry, &self.unreaped))
    }

    /// Keeps a command for other runs. It must let go of the child's ends at once: a pipe ends when its
    /// last holder closes it. And no run may see the variables of another.
    fn put_back(&self, mut command: std::process::Command, vars: &[(&'static str, String)]) {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        for (name, _) in vars {
            command.env_remove(name);
        }
        self.templates.borrow_mut().push(command);
    }

    /// Where the lines of one run go, and which events the run is for.
    fn sink(&self, vars: &[(&'static str, String)]) -> LineSink {
        let var = |wanted: &str| {
            vars.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let (id, attempt, events) = (var("EVBUS_ID"), var("EVBUS_ATTEMPT"), var("EVBUS_BATCH"));
        let source = Rc::new(LineSource { label: self.command.label.clone(), id, attempt, events });
        LineSink { output: Rc::clone(&self.output), source }
    }

    /// What becomes the handler's stdout, and evbus's end of it if the lines are wanted.
    fn stdout(&self, sink: &LineSink) -> io::Result<(OwnedFd, Option<OutputPipe>)> {
        if !self.output.wants(Stream::Out) {
            return Ok((std::fs::OpenOptions::new().write(true).open("/dev/null")?.into(), None));
        }
        let (read, write) = output::pipe()?;
        Ok((write, Some(OutputPipe::new(read, Stream::Out, sink))))
    }

    /// The part of the command that does not change from run to run. The program is given by its
    /// path, and no closure runs between fork and exec, so that the library can use posix_spawn,
    /// which does not copy the worker's page tables.
    fn template(&self) -> Result<std::process::Command, ProgramError> {
        let program = program::find(self.name(), self.command.cwd.as_deref())?;
        let mut command = std::process::Command::new(program);
        command.arg0(self.name()).args(self.command.argv.iter().skip(1)).process_group(0);
        command.env_clear().envs(self.environment());
        if let Some(cwd) = &self.command.cwd {
            command.current_dir(cwd);
        }
        Ok(command)
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let allowed = self.command.env.as_ref().map(|names| names.iter().map(OsString::from).collect::<BTreeSet<_>>());
        let seen = |name: &OsString| {
            // A service manager speaks to its service, not to the programs that the service runs
            // (sd_notify(3)).
            let services = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"].iter().any(|own| name == own);
            !services && allowed.as_ref().is_none_or(|names| names.contains(name))
        };
        std::env::vars_os().filter(|(name, _)| seen(name)).collect()
    }

    fn name(&self) -> &str {
        self.command.argv.first().map_or("", String::as_str)
    }
}

fn not_started(obstacle: Obstacle) -> RunReport {
    RunReport::new(Outcome::NotStarted(obstacle.into()), String::new(), Duration::ZERO)
}

impl Handler for CommandHandler {
    fn run(&self, job: Job) -> Fut<'_, RunReport> {
        Box::pin(self.outcome(job))
    }

    fn prepares_ahead(&self) -> bool {
        true
    }

    fn terminate(&self) {
        self.stop.notify_waiters();
    }

    fn check(&self) -> Result<(), Obstacle> {
        Ok(program::find(self.name(), self.command.cwd.as_deref()).map(drop)?)
    }
}
