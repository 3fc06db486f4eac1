//! A file system on a recorded disk, and what a power cut may leave of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::recorder::{DiskRecorder, RecordedStep, Recording};
use super::rng::Rng;

/// Enough for a bus, and quick to copy.
const DISK_BYTES: usize = 32 << 20;

/// The unit that a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

/// The unit that the file system writes as a whole.
const BLOCK_BYTES: usize = 4096;

/// The file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalMode {
    /// ext4 with a journal, the usual case: a flush of one file makes all earlier changes durable,
    /// too.
    Journal,
    /// ext4 without a journal: a flush covers only what it names.
    NoJournal,
}

impl JournalMode {
    /// An empty file system.
    fn make(self, room: &Path) -> Vec<u8> {
        let file = room.join("empty");
        std::fs::write(&file, vec![0; DISK_BYTES]).unwrap();
        // Without work that is left for later, in the background.
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-b", "4096", "-N", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"]);
        match self {
            Self::Journal => mkfs.args(["-J", "size=4"]),
            Self::NoJournal => mkfs.args(["-O", "^has_journal"]),
        };
        succeeds(mkfs.arg(&file)).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        bytes
    }

    /// The size of the pieces that a cut tears the disk into. A journal's checksums detect a torn
    /// block. Without a journal a torn block of a folder is a damaged folder, and such a file
    /// system promises nothing on a disk that tears blocks.
    fn unit_bytes(self, rng: &Rng) -> usize {
        if self == Self::Journal { rng.one(&[SECTOR_BYTES, BLOCK_BYTES]) } else { BLOCK_BYTES }
    }
}

/// Runs a program; the error is its output.
fn succeeds(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let said = || format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim_ascii());
    if output.status.success() { Ok(()) } else { Err(said()) }
}

/// A file system in a file, mounted by a loop device, until dropped.
pub struct Mounted {
    folder: PathBuf,
}

impl Mounted {
    fn new(file: &Path, folder: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(folder).unwrap();
        succeeds(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(file).arg(folder))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if succeeds(Command::new("umount").arg(&self.folder)).is_err() {
            let _ = Command::new("umount").arg("--lazy").arg(&self.folder).status();
        }
    }
}

/// Records what `work` does to a fresh file system. It gets the mount point and the recorder, which
/// takes marks.
pub fn record(mode: JournalMode, room: &Path, work: impl FnOnce(&Path, &DiskRecorder)) -> Recording {
    let folder = room.join("recorder");
    std::fs::create_dir_all(&folder).unwrap();
    let recorder = DiskRecorder::start(mode.make(room), &folder);
    let mounted = Mounted::new(&recorder.disk(), &room.join("recorded")).unwrap();
    work(mounted.path(), &recorder);
    // Taken before the unmount, which would flush everything.
    recorder.take()
}

/// Which writes since the last flush are on the disk.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kept {
    None,
    All,
    /// This many of the first units.
    First(usize),
    /// Each unit by itself, with this probability.
    Share(f64),
}

/// A moment at which the power fails, and what the disk keeps of the writes that were not flushed.
pub struct Cut {
    /// How many steps had been done.
    pub at: usize,
    kept: Kept,
    unit_bytes: usize,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cut after step {}, kept {:?} of units of {} B", self.at, self.kept, self.unit_bytes)
    }
}

impl Cut {
    /// A cut at this moment that keeps a random part.
    pub fn new(at: usize, mode: JournalMode, rng: &Rng) -> Self {
        let kept = match rng.below(4) {
            0 => Kept::None,
            1 => Kept::All,
            2 => Kept::First(rng.below(64)),
            _ => Kept::Share(rng.one(&[0.1, 0.5, 0.9])),
        };
        Self { at, kept, unit_bytes: mode.unit_bytes(rng) }
    }

    /// A cut that keeps nothing that was not flushed.
    pub fn bare(at: usize) -> Self {
        Self { at, kept: Kept::None, unit_bytes: BLOCK_BYTES }
    }

    /// The disk after the cut.
    pub fn image(&self, recording: &Recording, rng: &Rng) -> Vec<u8> {
        let mut disk = recording.base.clone();
        let done = &recording.steps[..self.at];
        let flushed = done.iter().rposition(|step| matches!(step, RecordedStep::Flush)).unwrap_or(0);
        let mut units = 0;
        for (index, step) in done.iter().enumerate() {
            let RecordedStep::Write { offset, bytes } = step else { continue };
            for (unit, chunk) in bytes.chunks(self.unit_bytes).enumerate() {
                if index < flushed || self.keeps(units, rng) {
                    let from = offset + unit * self.unit_bytes;
                    disk[from..from + chunk.len()].copy_from_slice(chunk);
                }
                units += usize::from(index >= flushed);
            }
        }
        disk
    }

    fn keeps(&self, unit: usize, rng: &Rng) -> bool {
        match self.kept {
            Kept::None => false,
            Kept::All => true,
            Kept::First(units) => unit < units,
            Kept::Share(share) => rng.chance(share),
        }
    }
}

/// Does what the next boot does: checks a file system without a journal, and mounts it for `look`.
pub fn boot(mode: JournalMode, image: &[u8], room: &Path, look: impl FnOnce(&Path) -> Vec<String>) -> Vec<String> {
    let file = room.join("cut");
    std::fs::write(&file, image).unwrap();
    if mode == JournalMode::NoJournal {
        let check = Command::new("e2fsck").arg("-fy").arg(&file).output().unwrap();
        // 1 and 2: errors were found and corrected, e2fsck(8).
        if !matches!(check.status.code(), Some(0..=2)) {
            return vec![format!("e2fsck: {}", String::from_utf8_lossy(&check.stdout))];
        }
    }
    match Mounted::new(&file, &room.join("booted")) {
        Ok(mounted) => look(mounted.path()),
        Err(error) => vec![error],
    }
}
