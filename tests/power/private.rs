//! A room for what only root may do: mounts that no other process sees, and that end with the test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::root::as_root;

/// Set when a test runs again in a room: the room's folder.
const ROOM: &str = "EVBUS_POWER_ROOM";

/// Tries everything that the tests need, in small.
const PROBE: &str = "set -e; test -c /dev/fuse; mount -t tmpfs tmpfs \"$1\"; cd \"$1\"; truncate -s 4M disk; mkdir at; \
                     mkfs.ext4 -q -F disk; e2fsck -fy disk >/dev/null 2>&1; mount -o loop disk at; umount at";

/// Runs the body of the test of this name in its own mounts and in memory, or reports that it
/// cannot.
pub fn in_private_mounts(test: &str, body: impl FnOnce(&Path)) {
    if let Some(room) = std::env::var_os(ROOM).map(PathBuf::from) {
        assert!(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&room).status().unwrap().success());
        return body(&room);
    }
    let room = tempfile::tempdir().unwrap();
    if let Err(why) = probe(room.path()) {
        return not_tried(&format!("{test}: no mounts can be made here: {why}"));
    }
    let mut again = alone("env");
    again.arg(format!("{ROOM}={}", room.path().display()));
    again.args(std::env::vars().filter(|(name, _)| name.starts_with("EVBUS")).map(|(name, is)| format!("{name}={is}")));
    again.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let ended = again.output().unwrap();
    let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(ended.status.success(), "{said}");
    eprintln!("{said}");
}

/// Reports a test that was left out. println would not be shown for a test that passes.
pub fn not_tried(what: &str) {
    let _ = writeln!(std::io::stderr(), "NOT TRIED: {what}");
}

/// A program as root, in its own mounts.
fn alone(program: &str) -> Command {
    let mut command = as_root("unshare");
    command.args(["--mount", "--propagation", "private", program]);
    command
}

fn probe(room: &Path) -> Result<(), String> {
    let output = alone("sh").args(["-c", PROBE, "sh"]).arg(room).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(said.lines().last().unwrap_or("no /dev/fuse").to_owned()) }
}
