//! evbus on a bus of the file system under test, and evbus killed at a chosen system call.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The program under test.
fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_evbus").into()
}

/// A bus, and a home outside of its disk.
pub struct DiskBus {
    url: PathBuf,
    home: PathBuf,
}

/// The result of a run of evbus.
pub struct EvbusRun {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl EvbusRun {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Asserts success.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "out: {}\nerr: {}", self.out, self.err);
        self
    }
}

impl DiskBus {
    pub fn new(disk: &Path, home: &Path) -> Self {
        Self { url: disk.join("bus"), home: home.to_owned() }
    }

    /// A file outside of the disk, which no power cut affects.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", &self.home);
        command.env("EVBUS_URL", &self.url).env("TZ", "UTC").current_dir(&self.home).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> EvbusRun {
        EvbusRun::of(&self.command(&program()).args(args).output().unwrap())
    }

    /// The same, but killed as it begins its `nth` system call of this name, if it makes that many.
    pub fn run_killed(&self, args: &[&str], call: &str, nth: usize) -> EvbusRun {
        let mut command = self.command(Path::new("strace"));
        command.args(["-qq", "-f", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:signal=KILL:when={nth}")]);
        EvbusRun::of(&command.arg(program()).args(args).output().unwrap())
    }
}

/// Whether strace is installed and may trace.
pub fn can_kill() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    *CAN.get_or_init(|| strace.status().is_ok_and(|status| status.success()))
}
