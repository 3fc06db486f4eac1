//! Checks of the file system.

use std::path::Path;

use super::Finding;
use crate::bus::BusHandle;
use crate::cli::help_line::store::{NFS_CURE, make_room};
use crate::cli::help_line::{HelpLine, command, text};
use crate::cli::{style, times};
use crate::store::mount::Mount;

/// Less free room than this is a warning, in bytes.
const LITTLE_ROOM: u64 = 256 << 20;

/// Fewer free inodes than this is a warning; each event takes one.
const FEW_INODES: u64 = 20_000;

pub(super) fn mount(path: &Path) -> Vec<Finding> {
    let Some(mount) = Mount::of(path) else {
        return vec![Finding::warn("mount", "unknown: /proc/self/mountinfo cannot be read")];
    };
    let caching = match mount.cache() {
        Ok(()) => Finding::ok("mount", format!("{} at {}", mount.kind, mount.point)),
        Err(why) => Finding::fail("caching", why).cure(NFS_CURE),
    };
    let read_only = mount.options.iter().any(|option| option == "ro");
    let read_only = read_only.then(|| {
        Finding::fail("read-only", format!("{} is mounted read-only", mount.point))
            .cure(format!("mount -o remount,rw {}", mount.point))
    });
    std::iter::once(caching).chain(read_only).collect()
}

/// Whether a folder can be flushed, which every acknowledgement requires.
pub(super) fn flush(path: &Path) -> Finding {
    match std::fs::File::open(path).and_then(|folder| folder.sync_all()) {
        Ok(()) => Finding::ok("flush", "folders reach the disk"),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            Finding::warn("flush", "this file system cannot flush a folder: a power cut may lose new files")
        }
        Err(error) => Finding::fail("flush", format!("{error}")).cure("look at the kernel's log: dmesg"),
    }
}

pub(super) fn hints(bus: &BusHandle) -> Finding {
    match bus.store.hints() {
        Ok(_) => Finding::ok("hints", "inotify"),
        Err(why) => {
            let poll = times::format_duration(bus.store.profile().poll.1);
            Finding::warn("hints", format!("{why}: polling every {poll}"))
        }
    }
}

/// Free bytes and inodes available to this user.
pub(super) fn room(path: &Path) -> Vec<Finding> {
    let stat = match rustix::fs::statvfs(path) {
        Ok(stat) => stat,
        Err(errno) => return vec![Finding::warn("room", format!("unknown: {errno}"))],
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let mebibytes = style::thousands(free >> 20);
    // Some file systems create inodes on demand and report a total of 0.
    let inodes = (stat.f_files > 0).then_some(stat.f_favail);
    vec![room_finding(free, &mebibytes), inode_finding(inodes)]
}

fn room_finding(free: u64, mebibytes: &str) -> Finding {
    let cure = make_room();
    match free {
        0 => Finding::fail("room", "the disk is full").cure(cure),
        1..LITTLE_ROOM => Finding::warn("room", format!("{mebibytes} MiB free")).cure(cure),
        _ => Finding::ok("room", format!("{mebibytes} MiB free")),
    }
}

fn inode_finding(free: Option<u64>) -> Finding {
    let cure = HelpLine::from([text("each event takes one: "), command("prune", "--keep 7d")]);
    match free {
        None => Finding::ok("inodes", "made as needed"),
        Some(0) => Finding::fail("inodes", "none left").cure(cure),
        Some(free @ 1..FEW_INODES) => Finding::warn("inodes", format!("{} free", style::thousands(free))).cure(cure),
        Some(free) => Finding::ok("inodes", format!("{} free", style::thousands(free))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[test]
    fn low_disk_space_is_reported() {
        let levels = [0, 1 << 20, 1 << 40].map(|free| room_finding(free, "?").level);
        assert_eq!(levels, [Level::Fail, Level::Warn, Level::Ok]);
        let levels = [Some(0), Some(7), Some(1 << 30), None].map(|free| inode_finding(free).level);
        assert_eq!(levels, [Level::Fail, Level::Warn, Level::Ok, Level::Ok]);
    }
}
