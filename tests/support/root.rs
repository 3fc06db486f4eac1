//! What only root may do: mounts, users, containers.

use std::process::Command;

/// A program as root: directly, or by a sudo that needs no password.
pub fn as_root(program: &str) -> Command {
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout.trim_ascii() == b"0" {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}
