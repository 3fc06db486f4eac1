//! When a file has finished arriving. Pure.
//!
//! The kernel tells when a writer closes a file and when a file is moved in: then it is finished, once nothing more has
//! happened to it for a moment. Without notices, and for what lay there before, a file is finished once its size and times
//! have stood still for the source's `settle`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{FileState, FoundFile};

/// How long nothing may have happened to a file after it was closed: some programs set its times then. It is longer than
/// the step of a file system's clock, so that a write that comes later gives the file another time.
pub const MOMENT: Duration = Duration::from_millis(50);

/// A file that was made is looked at after this time without a notice.
pub const LONG: Duration = Duration::from_hours(1);

/// The most files that are waited for at once. Those that are found beyond are found again.
pub const MOST: usize = 10_000;

/// Files that are waited for.
#[derive(Debug, Default)]
pub struct Settling {
    files: HashMap<PathBuf, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    phase: Phase,
    /// The state when it was looked at last.
    state: Option<FileState>,
    /// Since when that has not changed, on the monotonic clock.
    since: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The program that has made it has it open, and will close it.
    Written,
    /// A program has it open: to write or to read it.
    Open,
    /// It was closed by a writer.
    Closed,
    /// It was moved in.
    Moved,
    /// It was found, or linked.
    Found,
    /// It has its event, and its times or modes were set: by a program that has closed it, or will.
    Touched,
    /// It is gone: another may take its place.
    Gone,
}

/// What is known of a file that is due to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has finished arriving, and its writer has said so.
    Closed,
    /// It was moved in; programs that have it open are not known of.
    Moved,
    /// It has stood still for long enough; programs that have it open are not known of.
    Still,
    /// It is what it was; only its times or modes were set.
    Touched,
    /// It is to be looked at again.
    Wait,
}

impl Settling {
    /// A file was found. `age`: for how long nothing was done to it by the clock that stamps files, where that is known.
    /// It is waited for unless the verdict says that it is finished. None: too many files are waited for.
    pub fn found(
        &mut self,
        file: &FoundFile,
        age: Option<Duration>,
        settle: Duration,
        now: Duration,
    ) -> Option<Verdict> {
        // What is waited for is looked at when it is due; but one that differs from what it was is more than touched.
        match self.files.get(&file.path).map(|waiting| waiting.phase) {
            None | Some(Phase::Touched) => {}
            // A program that may only read has made it, and will not tell that it has closed it.
            Some(Phase::Written) if age.is_some_and(|age| age >= LONG) => {}
            Some(_) => return Some(Verdict::Wait),
        }
        if age.is_some_and(|age| age >= settle) {
            return Some(Verdict::Still);
        }
        if self.files.len() >= MOST {
            return None;
        }
        self.files
            .insert(file.path.clone(), Waiting { phase: Phase::Found, state: Some(file.state.clone()), since: now });
        Some(Verdict::Wait)
    }

    fn enter(&mut self, path: PathBuf, phase: Phase, now: Duration) {
        self.files.insert(path, Waiting { phase, state: None, since: now });
    }

    /// A program has made a file, or a link to one: if it opens it, it will close it.
    pub fn made(&mut self, path: PathBuf, now: Duration) {
        self.enter(path, Phase::Found, now);
    }

    /// A program has opened a file, to read or to write; `is_maker`: it has made it. What is finished already is no matter.
    pub fn opened(&mut self, path: &Path, is_maker: bool) {
        if let Some(waiting) = self.files.get_mut(path)
            && waiting.phase == Phase::Found
            && waiting.state.is_none()
        {
            waiting.phase = if is_maker { Phase::Written } else { Phase::Open };
        }
    }

    /// A file was moved in; `is_written`: the program that has made it has it open.
    pub fn moved_in(&mut self, path: PathBuf, is_written: bool, now: Duration) {
        self.enter(path, if is_written { Phase::Written } else { Phase::Moved }, now);
    }

    /// Whether the program that has made a file has it open.
    pub fn is_written(&self, path: &Path) -> bool {
        self.files.get(path).is_some_and(|waiting| waiting.phase == Phase::Written)
    }

    /// A folder is gone: nothing below it will be told.
    pub fn leave(&mut self, folder: &Path) {
        self.files.retain(|path, _| !path.starts_with(folder));
    }

    /// Forgets what is found again; a file that is written will be closed.
    pub fn forget_found(&mut self) {
        self.files.retain(|_, waiting| matches!(waiting.phase, Phase::Written | Phase::Open));
    }

    /// A file was closed by a program that could only read it.
    pub fn read(&mut self, path: &Path, now: Duration) {
        if self.is_open(path) {
            self.enter(path.to_owned(), Phase::Found, now);
        }
    }

    /// A file was closed by a program that could write it.
    pub fn closed(&mut self, path: PathBuf, now: Duration) {
        self.enter(path, Phase::Closed, now);
    }

    /// A file's times or modes were set.
    pub fn touched(&mut self, path: PathBuf, now: Duration) {
        match self.files.get_mut(&path) {
            Some(waiting) if waiting.phase == Phase::Gone => waiting.phase = Phase::Found,
            Some(waiting) => waiting.since = now,
            None => self.enter(path, Phase::Touched, now),
        }
    }

    /// A file is gone, or has another name. It counts from when that was told first: a look may come more often than the
    /// source's `settle`.
    pub fn gone(&mut self, path: PathBuf, now: Duration) {
        if self.files.get(&path).is_none_or(|waiting| waiting.phase != Phase::Gone) {
            self.enter(path, Phase::Gone, now);
        }
    }

    /// A file is not waited for any more.
    pub fn remove(&mut self, path: &Path) {
        self.files.remove(path);
    }

    /// Notices were lost: a file that is open may have been closed. All of them are found again.
    pub fn forget(&mut self) {
        self.files.clear();
    }

    /// Whether a program has a file open, which may have been linked.
    fn is_open(&self, path: &Path) -> bool {
        self.files.get(path).is_some_and(|waiting| waiting.phase == Phase::Open)
    }

    /// The same as [`Settling::found`] for one that was looked at and is not finished after all: it changed, or a program
    /// has it open.
    pub fn again(&mut self, file: FoundFile, now: Duration) {
        self.files.insert(file.path, Waiting { phase: Phase::Found, state: Some(file.state), since: now });
    }

    fn due_at(waiting: &Waiting, settle: Duration) -> Option<Duration> {
        match waiting.phase {
            Phase::Written | Phase::Open => None,
            Phase::Closed | Phase::Moved => Some(waiting.since + MOMENT),
            Phase::Found | Phase::Touched | Phase::Gone => Some(waiting.since + settle),
        }
    }

    /// When a file is to be looked at next.
    pub fn next(&self, settle: Duration) -> Option<Duration> {
        self.files.values().filter_map(|waiting| Self::due_at(waiting, settle)).min()
    }

    /// The files that are to be looked at now.
    pub fn due(&self, settle: Duration, now: Duration) -> Vec<PathBuf> {
        let is_due = |waiting: &Waiting| Self::due_at(waiting, settle).is_some_and(|due| due <= now);
        self.files.iter().filter(|(_, waiting)| is_due(waiting)).map(|(path, _)| path.clone()).collect()
    }

    /// A due file was looked at; `age` as in [`Settling::found`]. Only [`Verdict::Wait`] leaves it among those that are
    /// waited for.
    pub fn looked(&mut self, file: &FoundFile, age: Option<Duration>, settle: Duration, now: Duration) -> Verdict {
        let Some(waiting) = self.files.get_mut(&file.path) else { return Verdict::Wait };
        let verdict = match waiting.phase {
            // A write of this very moment: the next one might leave the same time.
            Phase::Closed if age.is_some_and(|age| age < MOMENT / 2) => Verdict::Wait,
            Phase::Closed => Verdict::Closed,
            Phase::Moved => Verdict::Moved,
            Phase::Found if waiting.state.as_ref() == Some(&file.state) => Verdict::Still,
            // What was linked has no state yet, but a time by which it stood still.
            Phase::Found if waiting.state.is_none() && age.is_some_and(|age| age >= settle) => Verdict::Still,
            Phase::Touched => Verdict::Touched,
            Phase::Found | Phase::Written | Phase::Open | Phase::Gone => Verdict::Wait,
        };
        match verdict {
            Verdict::Wait if waiting.phase == Phase::Closed => waiting.since = now,
            Verdict::Wait => *waiting = Waiting { phase: Phase::Found, state: Some(file.state.clone()), since: now },
            Verdict::Closed | Verdict::Moved | Verdict::Still | Verdict::Touched => _ = self.files.remove(&file.path),
        }
        verdict
    }

    /// How many files are waited for.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.files.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventTime;

    const SETTLE: Duration = Duration::from_secs(2);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn file(size: u64) -> FoundFile {
        let time = EventTime::from_micros(size.cast_signed());
        let state = FileState { size, mtime: time, identity: "1".into(), ctime: time, place: (1, 1) };
        FoundFile { path: "a".into(), state }
    }

    #[test]
    fn a_closed_file_is_finished_a_moment_later() {
        let mut settling = Settling::default();
        let path = PathBuf::from("a");
        settling.made(path.clone(), at(0));
        settling.opened(&path, true);
        settling.read(&path, at(5));
        assert_eq!((settling.next(SETTLE), settling.due(SETTLE, at(99_999)).len()), (None, 0), "its writer pauses");
        assert_eq!(settling.found(&file(1), Some(at(99_999)), SETTLE, at(0)), Some(Verdict::Wait), "it is open");
        settling.closed(path.clone(), at(10));
        settling.opened(&path, false);
        assert_eq!((settling.next(SETTLE), settling.due(SETTLE, at(59)).len()), (Some(at(60)), 0));
        settling.touched(path.clone(), at(40));
        assert_eq!(settling.due(SETTLE, at(89)).len(), 0, "its times were set");
        assert_eq!(settling.due(SETTLE, at(90)), [path]);
        assert_eq!(settling.looked(&file(1), Some(at(3)), SETTLE, at(90)), Verdict::Wait, "written just now");
        assert_eq!(settling.looked(&file(1), Some(at(60)), SETTLE, at(140)), Verdict::Closed);
        assert_eq!(settling.len(), 0);
    }

    #[test]
    fn a_found_file_is_finished_once_it_stands_still() {
        let mut settling = Settling::default();
        assert_eq!(settling.found(&file(1), Some(SETTLE), SETTLE, at(0)), Some(Verdict::Still), "it lay there");
        assert_eq!(settling.found(&file(1), None, SETTLE, at(0)), Some(Verdict::Wait));
        settling.opened(Path::new("a"), false);
        assert_eq!(settling.due(SETTLE, at(1_999)).len(), 0);
        assert_eq!(settling.due(SETTLE, at(2_000)).len(), 1, "it may be opened by readers alone");
        assert_eq!(settling.looked(&file(2), None, SETTLE, at(2_000)), Verdict::Wait, "it grows");
        assert_eq!(settling.next(SETTLE), Some(at(4_000)));
        assert_eq!(settling.looked(&file(2), None, SETTLE, at(4_000)), Verdict::Still);
        assert_eq!(settling.len(), 0);
    }

    #[test]
    fn a_link_is_finished_though_nothing_is_closed() {
        let mut settling = Settling::default();
        settling.made("a".into(), at(0));
        assert_eq!(settling.looked(&file(1), Some(SETTLE), SETTLE, at(2_000)), Verdict::Still);
        settling.made("a".into(), at(0));
        settling.opened(Path::new("a"), false);
        settling.read(Path::new("a"), at(500));
        assert_eq!(settling.next(SETTLE), Some(at(2_500)), "only read");
        assert_eq!(settling.looked(&file(1), Some(at(100)), SETTLE, at(2_500)), Verdict::Wait);
        assert_eq!(settling.looked(&file(1), Some(at(2_100)), SETTLE, at(4_500)), Verdict::Still);
    }

    #[test]
    fn a_file_whose_times_were_set_is_what_it_was_unless_it_is_closed() {
        let mut settling = Settling::default();
        settling.touched("a".into(), at(0));
        assert_eq!(settling.next(SETTLE), Some(at(2_000)));
        assert_eq!(settling.looked(&file(1), None, SETTLE, at(2_000)), Verdict::Touched);
        settling.touched("a".into(), at(3_000));
        settling.closed("a".into(), at(3_100));
        assert_eq!(settling.looked(&file(1), None, SETTLE, at(3_200)), Verdict::Closed);
    }

    #[test]
    fn a_file_that_takes_the_place_of_another_is_waited_for() {
        let mut settling = Settling::default();
        settling.gone("a".into(), at(0));
        assert_eq!(settling.due(SETTLE, at(2_000)).len(), 1);
        assert_eq!(settling.looked(&file(1), Some(SETTLE), SETTLE, at(2_000)), Verdict::Wait, "it is there again");
        assert_eq!(settling.looked(&file(1), Some(SETTLE), SETTLE, at(4_000)), Verdict::Still);
        settling.gone("a".into(), at(5_000));
        settling.gone("a".into(), at(6_000));
        assert_eq!(settling.next(SETTLE), Some(at(7_000)), "each look tells it again");
        settling.closed("a".into(), at(5_010));
        assert_eq!(settling.looked(&file(1), None, SETTLE, at(5_060)), Verdict::Closed);
    }

    #[test]
    fn a_file_that_is_moved_while_it_is_written_is_waited_for() {
        let mut settling = Settling::default();
        settling.made("a".into(), at(0));
        settling.opened(Path::new("a"), true);
        assert!(settling.is_written(Path::new("a")));
        settling.gone("a".into(), at(1));
        settling.moved_in("b".into(), true, at(1));
        settling.forget_found();
        assert_eq!((settling.next(SETTLE), settling.len()), (None, 1));
        assert_eq!(
            settling.found(&FoundFile { path: "b".into(), ..file(1) }, Some(LONG), SETTLE, at(2)),
            Some(Verdict::Still)
        );
        settling.moved_in("b".into(), false, at(1));
        assert_eq!(settling.looked(&FoundFile { path: "b".into(), ..file(1) }, None, SETTLE, at(51)), Verdict::Moved);
        settling.made("sub/c".into(), at(0));
        settling.leave(Path::new("sub"));
        assert_eq!(settling.len(), 0);
    }

    #[test]
    fn more_files_than_can_be_waited_for_are_found_again() {
        let mut settling = Settling::default();
        for n in 0..MOST {
            let found = FoundFile { path: n.to_string().into(), ..file(1) };
            assert_eq!(settling.found(&found, None, SETTLE, at(0)), Some(Verdict::Wait));
        }
        assert_eq!(settling.found(&file(1), None, SETTLE, at(0)), None);
        assert_eq!(settling.found(&file(1), Some(SETTLE), SETTLE, at(0)), Some(Verdict::Still));
        settling.forget();
        assert_eq!(settling.found(&file(1), None, SETTLE, at(0)), Some(Verdict::Wait));
    }
}
