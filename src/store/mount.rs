//! What the kernel says of the mount that a bus lies on: whether inotify can serve, and whether NFS caches too much.

use std::path::Path;

use crate::store::{ErrorDetail, ErrorKind, NoHints, StoreError, StoreResult};

/// File systems where other hosts, or other views of the same files, write without inotify seeing it.
const BLIND: [&str; 12] =
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "afs", "overlay", "glusterfs", "lustre"];

/// One line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: String,
    /// The file system's type, such as `ext4` or `nfs4`.
    pub kind: String,
    /// Mount and super block options together.
    pub options: Vec<String>,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (own, shared) = (left.get(5)?, right.get(2).copied().unwrap_or(""));
        let options = own.split(',').chain(shared.split(',')).map(str::to_owned).collect();
        Some(Self { point: unescape(left.get(4)?), kind: (*right.first()?).to_owned(), options })
    }

    /// The mount that holds `path`, among the lines of a mountinfo. Of two at one place the later covers the earlier.
    pub fn holding(mountinfo: &str, path: &Path) -> Option<Self> {
        let mut best: Option<Self> = None;
        for mount in mountinfo.lines().filter_map(Self::parse).filter(|mount| path.starts_with(&mount.point)) {
            if best.as_ref().is_none_or(|best| mount.point.len() >= best.point.len()) {
                best = Some(mount);
            }
        }
        best
    }

    /// The mount of this machine that holds `path`.
    pub fn of(path: &Path) -> Option<Self> {
        let path = std::fs::canonicalize(path).ok()?;
        Self::holding(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &path)
    }

    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|own| own == option)
    }

    /// Whether inotify sees every writer here; else why not.
    pub fn inotify(&self) -> Result<(), NoHints> {
        if BLIND.contains(&self.kind.as_str()) || self.kind.starts_with("fuse") {
            return Err(NoHints(format!("{}: inotify does not see every writer", self.kind)));
        }
        Ok(())
    }

    /// Whether other hosts' events are hidden by a cache; else what is wrong.
    pub fn cache(&self) -> Result<(), String> {
        if !self.kind.starts_with("nfs") {
            return Ok(());
        }
        if !(self.has("lookupcache=none")) {
            return Err("lookupcache=all hides other hosts' events".to_owned());
        }
        let uncached = self.has("noac") || self.has("actimeo=0") || (self.has("acdirmin=0") && self.has("acdirmax=0"));
        if uncached { Ok(()) } else { Err("cached directory attributes hide other hosts' events".to_owned()) }
    }
}

/// Whether inotify sees every writer of the bus at `path`; else why not.
pub fn inotify_serves(path: &Path) -> Result<(), NoHints> {
    Mount::of(path).map_or(Ok(()), |mount| mount.inotify())
}

/// File systems on which the locks and the shared memory of SQLite's write-ahead log do not reach all who write.
const UNLOCKED: [&str; 6] = ["nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs"];

/// Refuses a mount that cannot hold a SQLite file with several writers (sqlite.org, Write-Ahead Logging).
pub fn refuse_unlocked(path: &Path) -> StoreResult<()> {
    let Some(mount) = Mount::of(path) else { return Ok(()) };
    if !UNLOCKED.contains(&mount.kind.as_str()) && !mount.kind.starts_with("fuse") {
        return Ok(());
    }
    let what = format!("{} is on {}, where SQLite's locks are not reliable", path.display(), mount.kind);
    Err(StoreError::new(ErrorKind::Unfit, what).with_detail(ErrorDetail::UnlockedMount))
}

/// Refuses a mount that hides other hosts' events.
pub fn refuse_caching(path: &Path) -> StoreResult<()> {
    let Some(mount) = Mount::of(path) else { return Ok(()) };
    mount.cache().map_err(|why| {
        StoreError::new(ErrorKind::Unfit, format!("{} ({}): {why}", path.display(), mount.kind))
            .with_detail(ErrorDetail::CachedMount)
    })
}

/// Spaces and the like are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let code = (byte == b'\\').then(|| text.get(text.len() - bytes.len()..text.len() - bytes.len() + 3)).flatten();
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(decoded) => {
                plain.push(decoded);
                bytes.nth(2);
            }
            None => plain.push(byte),
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:35 / /mnt/a\\040b rw,relatime shared:2 - nfs4 host:/x rw,vers=4.2,lookupcache=all,acregmin=3
41 22 0:36 / /mnt/good rw,relatime - nfs4 host:/y rw,lookupcache=none,acregmin=0,acdirmin=0,acdirmax=0
42 22 0:37 / /mnt/half rw,relatime - nfs host:/y rw,lookupcache=none
43 22 0:38 / /mnt/f rw - fuse.sshfs h: rw
44 22 0:39 / /var rw - overlay overlay rw";

    fn at(path: &str) -> Mount {
        Mount::holding(INFO, Path::new(path)).unwrap()
    }

    #[test]
    fn the_longest_mount_point_holds_a_path() {
        assert_eq!(at("/home/x").kind, "ext4");
        assert_eq!(at("/mnt/a b/bus").point, "/mnt/a b");
        assert_eq!(at("/mnt/goodness").kind, "ext4");
    }

    #[test]
    fn inotify_serves_only_where_it_sees_every_writer() {
        assert_eq!(at("/srv/bus").inotify(), Ok(()));
        for path in ["/mnt/a b", "/mnt/f/bus", "/var/bus"] {
            assert!(at(path).inotify().is_err(), "{path}");
        }
    }

    #[test]
    fn nfs_must_not_cache_lookups_nor_directory_attributes() {
        assert_eq!(at("/mnt/good/bus").cache(), Ok(()));
        assert_eq!(at("/srv").cache(), Ok(()));
        assert!(at("/mnt/a b/bus").cache().unwrap_err().contains("lookupcache"));
        assert!(at("/mnt/half/bus").cache().unwrap_err().contains("attributes"));
    }
}
