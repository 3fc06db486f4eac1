//! Looks through a folder, a part at a time, and watches the folders that it enters.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use walkdir::WalkDir;

use super::file::{FileState, FoundFile};
use super::notices::Watches;
use super::{Folder, Source};
use crate::store::system_words;
use crate::threads;

/// How many files a part has at most.
const PART: usize = 512;

/// A walk under way.
pub struct Walk {
    source: Arc<Source>,
    folder: Arc<Folder>,
    entries: walkdir::IntoIter,
    watches: Option<Watches>,
    /// What could not be looked at, the first of it.
    pub trouble: Option<String>,
    /// Why folders are not watched.
    pub unwatched: Option<String>,
    /// Whether all was looked at.
    pub is_over: bool,
}

impl Walk {
    /// Begins a walk at a folder below the source's folder; an empty path is that itself.
    pub fn new(source: &Arc<Source>, folder: &Arc<Folder>, below: &Path, watches: Option<Watches>) -> Self {
        let depth = if source.recursive { usize::MAX } else { 1 };
        let entries = WalkDir::new(folder.path.join(below)).max_depth(depth).into_iter();
        Self {
            source: Arc::clone(source),
            folder: Arc::clone(folder),
            entries,
            watches,
            trouble: None,
            unwatched: None,
            is_over: false,
        }
    }

    /// The next files, on another thread; there may be none of them before the walk is over.
    pub async fn next(self) -> Option<(Self, Vec<FoundFile>)> {
        let part = threads::run(move || {
            let mut walk = self;
            let files = walk.part();
            (walk, files)
        });
        part.await
    }

    fn part(&mut self) -> Vec<FoundFile> {
        let mut files = Vec::new();
        let mut looked = 0;
        while looked < 8 * PART && files.len() < PART {
            let Some(entry) = self.entries.next() else {
                self.is_over = true;
                break;
            };
            looked += 1;
            match entry {
                Ok(entry) => files.extend(self.entry(&entry)),
                Err(error) => self.note(&error),
            }
        }
        files
    }

    fn note(&mut self, error: &walkdir::Error) {
        // What vanishes meanwhile is no trouble, unless it is the folder itself.
        let is_gone = error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        if !is_gone || error.depth() == 0 {
            let why = error.io_error().map_or_else(|| error.to_string(), system_words);
            let path = error.path().unwrap_or(&self.folder.path).display().to_string();
            self.trouble.get_or_insert_with(|| format!("{path}: {why}"));
        }
    }

    fn entry(&mut self, entry: &walkdir::DirEntry) -> Option<FoundFile> {
        let below = entry.path().strip_prefix(&self.folder.path).ok()?;
        if entry.file_type().is_dir() {
            let enters = below.as_os_str().is_empty()
                || (self.source.recursive && self.source.patterns.enters(below) && !self.source.is_own(entry.path()));
            if !enters {
                self.entries.skip_current_dir();
            } else if let Some(watches) = &self.watches
                && let Err(why) = watches.add(entry.path(), below)
            {
                self.unwatched.get_or_insert(why);
            }
            return None;
        }
        if !entry.file_type().is_file() || !self.source.patterns.wants(below) {
            return None;
        }
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                self.note(&error);
                return None;
            }
        };
        Some(FoundFile { path: below.to_owned(), state: FileState::of(&metadata, self.folder.has_stable_numbers) })
    }
}

/// The files among these that programs have open for writing, or mapped, as far as this process may see: their devices and
/// numbers (proc_pid_fd(5), proc_pid_fdinfo(5), proc_pid_maps(5)). `maps`: also look for those that are mapped, which
/// takes longer.
pub fn open_for_writing<'a>(among: impl Iterator<Item = (&'a Path, (u64, u64))>, maps: bool) -> Vec<(u64, u64)> {
    let mut names: HashMap<&OsStr, Vec<(u64, u64)>> = HashMap::new();
    for (path, place) in among {
        names.entry(path.file_name().unwrap_or_default()).or_default().push(place);
    }
    let mut open = Vec::new();
    let Ok(processes) = std::fs::read_dir("/proc") else { return open };
    let is_number = |name: &OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    for process in processes.flatten().filter(|process| is_number(&process.file_name())) {
        let files = std::fs::read_dir(process.path().join("fd"));
        for file in files.into_iter().flatten().flatten() {
            // To ask for more than the name of what lies on a server that is gone would wait for it.
            let Ok(target) = std::fs::read_link(file.path()) else { continue };
            let Some(places) = target.file_name().and_then(|name| names.get(name)) else { continue };
            let Ok(metadata) = std::fs::metadata(file.path()) else { continue };
            let place = (metadata.dev(), metadata.ino());
            if places.contains(&place) && writes(&process.path().join("fdinfo").join(file.file_name())) {
                open.push(place);
            }
        }
        if maps {
            let mapped = std::fs::read(process.path().join("maps")).unwrap_or_default();
            let numbers: Vec<u64> = mapped.split(|byte| *byte == b'\n').filter_map(written_map).collect();
            open.extend(names.values().flatten().filter(|(_, number)| numbers.contains(number)));
        }
    }
    open
}

/// The number of the file that a line of maps maps to be written to.
fn written_map(line: &[u8]) -> Option<u64> {
    let mut words = line.split(|byte| *byte == b' ');
    let modes = words.nth(1)?;
    let number = str::from_utf8(words.nth(2)?).ok()?.parse().ok()?;
    (modes.get(1) == Some(&b'w') && modes.get(3) == Some(&b's') && number != 0).then_some(number)
}

/// Whether a descriptor was opened for writing.
fn writes(info: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(info) else { return false };
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    // O_WRONLY is 1, O_RDWR is 2 (fcntl.h).
    flags.is_some_and(|flags| flags & 3 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_open_for_writing_is_known() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("f");
        let file = std::fs::File::create(&path).unwrap();
        let metadata = file.metadata().unwrap();
        let place = (metadata.dev(), metadata.ino());
        let open = || open_for_writing([(&*path, place)].into_iter(), true);
        assert_eq!(open(), [place]);
        drop(file);
        let _read = std::fs::File::open(&path).unwrap();
        assert_eq!(open(), []);
        let line = |modes: &str| format!("7f00-7f01 {modes} 00000000 fe:00 1234                       /srv/a b");
        assert_eq!(written_map(line("rw-s").as_bytes()), Some(1234));
        for modes in ["rw-p", "r--s", "---p"] {
            assert_eq!(written_map(line(modes).as_bytes()), None, "{modes}");
        }
        assert_eq!(written_map(b"7f00-7f01 rw-s 00000000 00:01 0"), None);
    }
}
