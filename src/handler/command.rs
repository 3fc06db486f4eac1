//! A user's command as a handler.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::children::{Unreaped, reap};
use super::input::{self, PlacedFile};
use super::orphan_reaper::{OrphanReaper, RUN_VARIABLE};
use super::output::{self, LineSink, LineSource, Output, OutputPipe, OutputTails, Stream};
use super::process::{KillReason, OutputPipes, ProcessGroup, see_through};
use super::program::ProgramError;
use super::{Handler, Job, Obstacle, Outcome, RunReport, named_digest, program};
use crate::clock::{Clock, Fut};
use crate::handler::Var;

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
        named_digest(program, &self.argv)
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
    /// Made at the first run and used for all of them, so that the environment is put together only
    /// once.
    template: RefCell<Option<std::process::Command>>,
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
        Self { command, clock, output, reaper, stop, unreaped, template: RefCell::default() }
    }

    async fn outcome(&self, job: Job) -> (Outcome, OutputTails) {
        // From here on a stop reaches this run.
        let stop = self.stop.notified();
        let limit = self.command.timeout.map(|timeout| self.clock.elapsed() + timeout);
        let file = match PlacedFile::place(self.reaper.folders(job.event.len()), &job.file, &job.event) {
            Ok(file) => file,
            Err(error) => {
                return not_started(program::refused(&error, |error| {
                    format!("cannot write the event's file: {error}").into()
                }));
            }
        };
        // Registered before the start, so that no end is missed.
        let children = match signal(SignalKind::child()) {
            Ok(children) => children,
            Err(error) => return not_started(format!("cannot watch for the end of handlers: {error}").into()),
        };
        let (process_group, pipes) = match self.start(&job.event, &job.vars.list(), &file) {
            Ok(started) => started,
            Err(reason) => return not_started(reason),
        };
        match see_through(
            process_group,
            children,
            pipes,
            self.kill_reason(stop, limit),
            self.command.grace,
            &*self.clock,
        )
        .await
        {
            Ok(end) => end,
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

    fn start(
        &self,
        event: &[u8],
        vars: &[Var],
        file: &PlacedFile,
    ) -> Result<(ProcessGroup<'_>, OutputPipes), Obstacle> {
        reap(&self.unreaped);
        self.reaper.ensure();
        let plumbing = |error: io::Error| {
            program::refused(&error, |error| format!("cannot make pipes for handler '{}': {error}", self.name()).into())
        };
        let stdin = input::stdin(event).map_err(plumbing)?;
        let sink = self.sink(vars);
        let (stdout, out) = self.stdout(&sink).map_err(plumbing)?;
        let (err, stderr) = output::pipe().map_err(plumbing)?;
        let pipes = OutputPipes { out, err: OutputPipe::new(err, Stream::Err, &sink) };
        let entry = self.reaper.begin();
        let child = self.spawn([stdin, stdout, stderr], vars, file, entry.token())?;
        let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
            return Err(format!("handler '{}' has no process number", self.name()).into());
        };
        entry.started(group);
        Ok((ProcessGroup::new(child, group, entry, &self.unreaped), pipes))
    }

    /// Where the lines of one run go, and which events the run is for.
    fn sink(&self, vars: &[Var]) -> LineSink {
        let var = |wanted: &str| {
            let found = vars.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.to_string_lossy().into_owned()).unwrap_or_default()
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

    fn spawn(&self, stdio: [OwnedFd; 3], vars: &[Var], file: &PlacedFile, token: &str) -> Result<Child, Obstacle> {
        let mut template = self.template.borrow_mut();
        let command = match &mut *template {
            Some(command) => command,
            None => template.insert(self.template()?),
        };
        let [stdin, stdout, stderr] = stdio;
        command.stdin(stdin).stdout(stdout).stderr(stderr).env("EVBUS_FILE", file.path());
        command.env(RUN_VARIABLE, token);
        command.envs(vars.iter().map(|(name, value)| (name, value)));
        let spawned = command.spawn();
        // The template must let go of the child's ends at once: a pipe ends when its last holder
        // closes it. And no run may see the variables of another.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        for (name, _) in vars {
            command.env_remove(name);
        }
        spawned.map_err(|error| {
            // The program may have moved: look for it again next time.
            *template = None;
            program::refused(&error, |error| program::refusal(self.name(), self.command.cwd.as_deref(), error))
        })
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

fn not_started(obstacle: Obstacle) -> (Outcome, OutputTails) {
    (Outcome::NotStarted(obstacle.into()), OutputTails::default())
}

impl Handler for CommandHandler {
    fn run(&self, job: Job) -> Fut<'_, RunReport> {
        Box::pin(async move {
            let start = self.clock.elapsed();
            let (outcome, tails) = self.outcome(job).await;
            let took = self.clock.elapsed().saturating_sub(start);
            RunReport { stdout_tail: tails.out.text(), ..RunReport::new(outcome, tails.err.text(), took) }
        })
    }

    fn terminate(&self) {
        self.stop.notify_waiters();
    }

    fn check(&self) -> Result<(), Obstacle> {
        Ok(program::find(self.name(), self.command.cwd.as_deref()).map(drop)?)
    }
}
