//! A disk that records: a FUSE file system with a file `disk`, in memory, whose every write and
//! flush is recorded in order, and a file `marks`, to which any process can write a mark.
//!
//! Nothing may be cached above it: without FUSE's writeback cache, and with direct I/O, a write has
//! been recorded when the loop device's write returns, and the loop device turns a flush of the
//! block layer into an fsync of `disk`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

const DISK: INodeNo = INodeNo(2);
const MARKS: INodeNo = INodeNo(3);

/// The kernel may cache: only its own writes change the disk.
const FOREVER: Duration = Duration::from_hours(1);

/// One recorded step.
pub enum RecordedStep {
    /// Bytes were handed to the disk, which may keep them in its cache.
    Write { offset: usize, bytes: Vec<u8> },
    /// Everything written before is durable.
    Flush,
    /// A mark, one line.
    Mark(String),
}

/// The initial disk, and the steps on it.
pub struct Recording {
    pub base: Vec<u8>,
    pub steps: Vec<RecordedStep>,
}

impl Recording {
    /// The marks in the first `steps` steps.
    pub fn marks(&self, steps: usize) -> impl Iterator<Item = &str> {
        self.steps[..steps].iter().filter_map(|step| match step {
            RecordedStep::Mark(text) => Some(text.as_str()),
            _ => None,
        })
    }
}

/// What the file system shares with its starter.
struct SharedDisk {
    disk: Vec<u8>,
    steps: Vec<RecordedStep>,
}

/// The file system, mounted.
pub struct DiskRecorder {
    base: Vec<u8>,
    shared: Arc<Mutex<SharedDisk>>,
    folder: PathBuf,
    _session: BackgroundSession,
}

impl DiskRecorder {
    /// Mounts it at a folder; the disk begins as `base`.
    pub fn start(base: Vec<u8>, folder: &Path) -> Self {
        let shared = Arc::new(Mutex::new(SharedDisk { disk: base.clone(), steps: Vec::new() }));
        let filesystem = RecordingFilesystem { shared: Arc::clone(&shared) };
        let _session = fuser::spawn_mount(filesystem, folder, &Config::default()).unwrap();
        Self { base, shared, folder: folder.to_owned(), _session }
    }

    /// The disk.
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// The file to which any process can append a line, as a mark of that moment.
    pub fn marks(&self) -> PathBuf {
        self.folder.join("marks")
    }

    /// Marks this moment.
    pub fn mark(&self, text: &str) {
        locked(&self.shared).steps.push(RecordedStep::Mark(text.to_owned()));
    }

    /// What was recorded since the start.
    pub fn take(&self) -> Recording {
        Recording { base: self.base.clone(), steps: std::mem::take(&mut locked(&self.shared).steps) }
    }
}

impl Drop for DiskRecorder {
    fn drop(&mut self) {
        // Lazily, because a loop device may be released a moment after its file system.
        let _ = Command::new("umount").arg("--lazy").arg(&self.folder).status();
    }
}

fn locked(shared: &Mutex<SharedDisk>) -> MutexGuard<'_, SharedDisk> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers the kernel, on one thread, so that the order of the answers is the order of the record.
struct RecordingFilesystem {
    shared: Arc<Mutex<SharedDisk>>,
}

impl RecordingFilesystem {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let size = if inode == DISK { locked(&self.shared).disk.len() as u64 } else { 0 };
        let (kind, perm) =
            if inode == INodeNo::ROOT { (FileType::Directory, 0o700) } else { (FileType::RegularFile, 0o600) };
        let [atime, mtime, ctime, crtime] = [UNIX_EPOCH; 4];
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime,
            mtime,
            ctime,
            crtime,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for RecordingFilesystem {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.to_str() {
            Some("disk") => reply.entry(&FOREVER, &self.attributes(DISK), Generation(0)),
            Some("marks") => reply.entry(&FOREVER, &self.attributes(MARKS), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let shared = locked(&self.shared);
        let disk: &[u8] = if inode == DISK { &shared.disk } else { &[] };
        let from = (offset as usize).min(disk.len());
        reply.data(&disk[from..(from + size as usize).min(disk.len())]);
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut shared = locked(&self.shared);
        if inode == MARKS {
            let text = String::from_utf8_lossy(data);
            shared.steps.extend(text.lines().map(|line| RecordedStep::Mark(line.to_owned())));
            return reply.written(data.len() as u32);
        }
        let offset = offset as usize;
        let Some(place) = shared.disk.get_mut(offset..offset + data.len()) else { return reply.error(Errno::ENOSPC) };
        place.copy_from_slice(data);
        shared.steps.push(RecordedStep::Write { offset, bytes: data.to_vec() });
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if inode == DISK {
            locked(&self.shared).steps.push(RecordedStep::Flush);
        }
        reply.ok();
    }
}
