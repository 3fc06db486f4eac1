//! Makes sure of files by asking the file system: blocking.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::file::{FileState, FoundFile, open_file};
use super::{Folder, Source, walk};
use crate::event::EventTime;
use crate::store::system_words;

/// Files that were changed within this time may be mapped by a program that writes.
const RECENT: Duration = Duration::from_hours(1);

/// A file that has been made sure of.
pub(super) enum Sure {
    /// It is finished; its content's hash, if that is asked for.
    Finished(FoundFile, Option<[u8; 32]>),
    /// It is not: it was changed, or a program has it open, or why it cannot be read.
    Again(FoundFile, Option<String>),
    /// It is gone.
    Gone,
}

/// The state of a file; none: there is none.
pub(super) fn stat(folder: &Folder, path: &Path) -> Result<Option<FileState>, String> {
    let full = folder.path.join(path);
    let metadata = match std::fs::symlink_metadata(&full) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot look at {}: {}", path.display(), system_words(&error))),
    };
    // To open a file makes a client ask its server anew (nfs(5), close-to-open).
    let opened = if folder.is_local { None } else { open_file(&full).ok() };
    let metadata = opened.and_then(|file| file.metadata().ok()).unwrap_or(metadata);
    Ok(Some(FileState::of(&metadata, folder.has_stable_numbers)))
}

fn content(path: &Path, is_cancelled: &AtomicBool) -> std::io::Result<[u8; 32]> {
    use ring::digest::{Context, SHA256};
    use std::io::Read;
    let mut file = open_file(path)?;
    let (mut hasher, mut buffer) = (Context::new(&SHA256), vec![0; 256 * 1024]);
    loop {
        if is_cancelled.load(Ordering::Relaxed) {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish().as_ref().try_into().unwrap_or_default()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Makes sure of files that seem finished; `is_still`: nothing but their standing still tells it.
pub(super) fn make_sure(
    (source, folder): (&Source, &Folder),
    files: Vec<FoundFile>,
    (is_still, now): (bool, EventTime),
    is_cancelled: &AtomicBool,
) -> Vec<Sure> {
    let open = if is_still { open_among(&files, now) } else { Vec::new() };
    let sure = |file: FoundFile| {
        let sha256 = source.sha256.then(|| content(&folder.path.join(&file.path), is_cancelled)).transpose();
        match stat(folder, &file.path) {
            Err(why) => Sure::Again(file, Some(why)),
            Ok(None) => Sure::Gone,
            Ok(Some(state)) if state != file.state => Sure::Again(FoundFile { state, ..file }, None),
            Ok(Some(_)) if open.contains(&file.state.place) => Sure::Again(file, None),
            Ok(Some(_)) => match sha256 {
                Ok(sha256) => Sure::Finished(file, sha256),
                Err(error) => {
                    let why = format!("cannot read {}: {}", file.path.display(), system_words(&error));
                    Sure::Again(file, Some(why))
                }
            },
        }
    };
    files.into_iter().map(sure).collect()
}

/// Those among files that programs have open for writing.
pub(super) fn open_among(files: &[FoundFile], now: EventTime) -> Vec<(u64, u64)> {
    // A write to mapped memory sets the file's times once it is written back.
    let is_recent = |file: &FoundFile| now.since(file.state.ctime) < RECENT;
    walk::open_for_writing(files.iter().map(|file| (&*file.path, file.state.place)), files.iter().any(is_recent))
}
