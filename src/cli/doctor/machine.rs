//! Checks of this machine and this user.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::Access;
use rustix::process::{Resource, geteuid, getrlimit};

use super::Finding;
use crate::bus::{BusSettings, Sharing};
use crate::cli::times;
use crate::clock::Clock;
use crate::event::EventTime;
use crate::store::Store;

/// The number of open files that a worker with many handlers needs.
const ENOUGH_FILES: u64 = 1_024;

/// Each `watch` and `tail` takes one inotify instance.
const ENOUGH_INSTANCES: u64 = 16;

/// The folders of a bus in which evbus writes files.
const FOLDERS: [&str; 6] = ["", "staging", "events", "groups", "state", "dedup"];

/// This user's name; the number if there is no name.
pub(super) fn user() -> String {
    name_of(geteuid().as_raw())
}

/// A user's name in passwd(5).
fn name_of(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}

/// Whether this user may write to the bus, and whether its other users can change what this user
/// writes.
pub(super) fn permissions(path: &Path, settings: Option<&BusSettings>) -> Vec<Finding> {
    let me = geteuid().as_raw();
    let refused: Vec<&str> = FOLDERS.into_iter().filter(|folder| !may_write(&path.join(folder))).collect();
    if let Some(first) = refused.first() {
        let shown = path.join(first);
        let cure = format!(
            "ls -ld {} shows the permissions; for several users make a bus with: evbus init --shared GROUP BUS",
            shown.display()
        );
        return vec![Finding::fail("writing", format!("{} may not write to {}", user(), shown.display())).cure(cure)];
    }
    let Ok(owner) = std::fs::metadata(path).map(|metadata| metadata.uid()) else { return Vec::new() };
    let shared = settings.is_some_and(|settings| settings.sharing == Sharing::Group);
    if owner == me || shared {
        return vec![Finding::ok("writing", if shared { "shared by a Unix group" } else { "the bus is this user's" })];
    }
    let owner = name_of(owner);
    let detail = format!("the bus belongs to {owner}: what {} writes there, {owner} may not be able to change", user());
    vec![
        Finding::warn("writing", detail)
            .cure(format!("run evbus as {owner}, or make a bus with: evbus init --shared GROUP")),
    ]
}

/// A missing folder counts as writable, because evbus creates it.
fn may_write(folder: &Path) -> bool {
    !folder.exists() || rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// Compares this machine's clock with the store's; needs a recent write.
pub(super) fn clock(store: &dyn Store, clock: &dyn Clock) -> Option<Finding> {
    let written = EventTime::from_micros(store.last_write_micros()?);
    Some(clock_finding(clock.now(), written))
}

/// The write came shortly before `now`, so a difference of a second or two is normal.
fn clock_finding(now: EventTime, written: EventTime) -> Finding {
    let (ahead, behind) = (now.since(written), written.since(now));
    let (difference, side) = if ahead > behind { (ahead, "ahead of") } else { (behind, "behind") };
    let detail = format!("{} {side} the store's", times::format_duration(difference));
    match difference.as_secs() {
        0..=2 => Finding::ok("clock", "agrees with the store's"),
        3..=86_400 => Finding::warn("clock", detail).cure("timedatectl status"),
        _ if ahead > behind => {
            Finding::fail("clock", format!("{detail}: emit refuses that")).cure("timedatectl status")
        }
        _ => Finding::warn("clock", detail).cure("timedatectl status"),
    }
}

pub(super) fn open_files() -> Finding {
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < ENOUGH_FILES => {
            Finding::warn("open files", format!("at most {limit}")).cure(format!("ulimit -n {ENOUGH_FILES}"))
        }
        Some(limit) => Finding::ok("open files", format!("at most {limit}")),
        None => Finding::ok("open files", "no limit"),
    }
}

/// The kernel's limit of inotify instances (inotify(7)); none where it is unknown.
pub(super) fn inotify() -> Option<Finding> {
    let text = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").ok()?;
    let instances: u64 = text.trim().parse().ok()?;
    let detail = format!("at most {instances} instances for a user");
    Some(if instances < ENOUGH_INSTANCES {
        Finding::warn("inotify", detail).cure("sysctl fs.inotify.max_user_instances=128")
    } else {
        Finding::ok("inotify", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;
    use std::time::Duration;

    #[test]
    fn clock_skew_is_reported() {
        let written = EventTime::from_micros(1_800_000_000_000_000);
        let ahead = |seconds| clock_finding(written.plus(Duration::from_secs(seconds)), written).level;
        let behind = |seconds| clock_finding(written.minus(Duration::from_secs(seconds)), written).level;
        assert_eq!([ahead(0), ahead(2), behind(2)], [Level::Ok; 3]);
        assert_eq!([ahead(3), ahead(3_600), behind(10), behind(864_000)], [Level::Warn; 4]);
        assert_eq!(ahead(90_000), Level::Fail, "emit refuses a clock a day ahead");
    }

    #[test]
    fn known_uids_are_shown_by_name() {
        assert_eq!(name_of(0), "root");
        assert_eq!(name_of(4_000_000_000), "4000000000");
    }
}
