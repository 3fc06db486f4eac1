//! How workers identify their processes to each other.

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::lease::Process;
use super::marker::Owner;
use crate::bus::BusHandle;

/// This process and its command, as the owner in a marker.
pub fn this_process(bus: &BusHandle, command: String) -> Owner {
    Owner {
        worker: format!("{:016x}", bus.clock.random()),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        pid: std::process::id(),
        boot: boot(),
        since: bus.clock.now(),
        command,
    }
}

/// Identifies this boot of this machine and the process namespace: where both are equal, process
/// ids are comparable.
fn boot() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), namespace.display())
}

/// Whether an owner's process is alive, as far as this machine can tell.
pub fn process_of(owner: &Owner) -> Process {
    let here = boot();
    // Without /proc, all machines would have the same text.
    let known = here.len() > 40;
    if owner.boot != here || !known {
        return Process::MayLive;
    }
    let Some(pid) = i32::try_from(owner.pid).ok().and_then(Pid::from_raw) else { return Process::MayLive };
    match test_kill_process(pid) {
        Err(Errno::SRCH) => Process::Gone,
        // A zombie: it has ended, and its parent has not waited for it yet (proc_pid_stat(5)).
        _ if std::fs::read_to_string(format!("/proc/{}/stat", owner.pid)).is_ok_and(|stat| stat.contains(") Z ")) => {
            Process::Gone
        }
        _ => Process::Lives,
    }
}
