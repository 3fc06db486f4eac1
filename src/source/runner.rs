//! Runs one source onto one bus.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::after::{self, Finished, Unfinished};
use super::file::{FileState, FoundFile, ShortHash};
use super::notices::{Notice, Notices};
use super::seen::{Seen, Standing};
use super::settling::{Settling, Verdict};
use super::sure::{Sure, make_sure, open_among, stat};
use super::walk::Walk;
use super::{After, Change, Folder, Place, Source};
use crate::bus::BusHandle;
use crate::bus::emit::{Ack, AckKind, Draft, Emitter};
use crate::event::{Event, EventError, EventName};
use crate::store::object::{Listing, ObjectState, Objects};
use crate::store::{ErrorKind, StoreError, StoreResult, system_words};
use crate::threads;

/// How long a bus that does not answer is asked.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A folder that tells what happens is looked through as often all the same.
const BACKSTOP: Duration = Duration::from_hours(1);

/// How often it is looked whether the folder is still the same.
const LOOK: Duration = Duration::from_secs(30);

/// A folder that is not there is looked at as often.
const WAIT: Duration = Duration::from_secs(5);

/// After this time files are looked for again that could not be read, or were too many.
const AGAIN: Duration = Duration::from_mins(1);

/// How many files are looked at together.
const PART: usize = 512;

/// What a pass has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourcePass {
    /// Events that this host has emitted.
    pub emitted: u64,
    /// Why nothing can be done, or not all of it.
    pub trouble: Option<String>,
    /// Why the folder is looked through again and again, though that is not set.
    pub polls: Option<String>,
    /// A key of the bucket that was passed over, as it cannot be named.
    pub passed_over: Option<String>,
}

/// Where files are looked for.
enum Look {
    Folder(FolderLook),
    Bucket(Objects),
}

/// A folder under watch.
#[derive(Default)]
struct FolderLook {
    /// What it was when it was opened, with its device and number.
    open: Option<(Arc<Folder>, (u64, u64))>,
    notices: Option<Notices>,
    /// Why there are none.
    unwatched: Option<String>,
    /// Folders that came.
    came: BTreeSet<PathBuf>,
    /// Files that are taken for what they were, though their times were set.
    restated: BTreeSet<PathBuf>,
}

/// One that runs.
pub struct Runner {
    source: Arc<Source>,
    bus: BusHandle,
    emitter: Emitter,
    seen: Seen,
    settling: Settling,
    unfinished: Unfinished,
    look: Look,
    /// Set: what takes long is to be broken off.
    is_cancelled: Arc<AtomicBool>,
    /// Whether files were left out, as too many are waited for.
    leaves_out: bool,
    /// Whether the kernel is to tell what happens.
    watches: bool,
    /// When all is to be looked through.
    next_scan: Duration,
    /// Why nothing can be done, or not all of it.
    trouble: Option<String>,
    /// When it was met last.
    trouble_at: Duration,
    /// A key that the last look has passed over, as it cannot be named.
    passed_over: Option<String>,
    /// Events that this pass has emitted.
    emitted: u64,
}

impl Runner {
    /// Opens a source onto a bus; `watches`: it is to run for longer than a pass.
    ///
    /// # Errors
    /// The bus's; settings of a bucket that cannot be understood.
    pub async fn open(bus: BusHandle, source: Source, watches: bool) -> StoreResult<Self> {
        let look = match &source.place {
            Place::Folder(_) => Look::Folder(FolderLook::default()),
            Place::Bucket(bucket, _) => Look::Bucket(Objects::connect(bucket)?),
        };
        Ok(Self {
            seen: Seen::open(&bus, &source.name, source.wants(Change::Removed)).await?,
            emitter: Emitter::new(bus.clone(), TIMEOUT),
            settling: Settling::default(),
            unfinished: Unfinished::default(),
            look,
            is_cancelled: Arc::default(),
            leaves_out: false,
            watches,
            next_scan: Duration::ZERO,
            trouble: None,
            trouble_at: Duration::ZERO,
            passed_over: None,
            emitted: 0,
            source: Arc::new(source),
            bus,
        })
    }

    /// The source.
    pub fn source(&self) -> &Source {
        &self.source
    }

    fn now(&self) -> Duration {
        self.bus.clock.elapsed()
    }

    /// When the next pass is due, on the monotonic clock.
    pub fn next(&self) -> Duration {
        let look = self.now() + LOOK;
        let times = [self.settles_at(), self.unfinished.next(), self.seen.due(), Some(self.next_scan)];
        times.into_iter().flatten().fold(look, Duration::min)
    }

    /// When the next file may be finished.
    pub fn settles_at(&self) -> Option<Duration> {
        self.settling.next(self.source.settle)
    }

    /// Whether files were left out that are to be looked at by another pass.
    pub fn has_more(&self) -> bool {
        self.leaves_out
    }

    /// Looks through all of it at the next pass.
    pub fn look_anew(&mut self) {
        self.next_scan = Duration::ZERO;
    }

    /// Set, it breaks off what takes long.
    pub fn is_cancelled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_cancelled)
    }

    /// Completes once the kernel has told of something.
    pub async fn noticed(&self) {
        match &self.look {
            Look::Folder(FolderLook { notices: Some(notices), .. }) => notices.ready().await,
            _ => std::future::pending().await,
        }
    }

    /// Does what is due; `progress` is told of files that were looked at, and says whether to go on.
    ///
    /// # Errors
    /// The bus's, or the bucket's: the next pass looks at everything again.
    pub async fn pass(&mut self, progress: &mut dyn FnMut(u64) -> bool) -> StoreResult<SourcePass> {
        self.emitted = 0;
        let done = self.do_pass(progress).await;
        if done.is_err() {
            // What has not got its event is found again, but for what will be closed.
            self.settling.forget_found();
            self.next_scan = Duration::ZERO;
        }
        done?;
        // It is over once all was looked through without it.
        if self.trouble.is_some() && self.now().saturating_sub(self.trouble_at) > AGAIN + WAIT {
            self.trouble = None;
        }
        let polls = match &self.look {
            Look::Folder(look) => look.unwatched.clone(),
            Look::Bucket(_) => None,
        };
        let (trouble, passed_over) = (self.trouble.clone(), self.passed_over.clone());
        Ok(SourcePass { emitted: self.emitted, trouble, polls, passed_over })
    }

    /// Does with files what is to be done, where the groups are done with their events by now, and writes what the bus is
    /// to know.
    ///
    /// # Errors
    /// The bus's, or the bucket's.
    pub async fn end(&mut self) -> StoreResult<SourcePass> {
        self.unfinished.look_now();
        self.finish_files().await?;
        self.save().await?;
        Ok(SourcePass { trouble: self.trouble.clone(), ..SourcePass::default() })
    }

    /// Writes what the bus is to know.
    ///
    /// # Errors
    /// The bus's.
    pub async fn save(&mut self) -> StoreResult<()> {
        self.seen.save(&self.bus).await
    }

    async fn do_pass(&mut self, progress: &mut dyn FnMut(u64) -> bool) -> StoreResult<()> {
        let is_there = match &self.look {
            Look::Folder(_) => self.open_folder().await,
            Look::Bucket(objects) => {
                // The config may name another one: none of its objects was removed.
                let number = objects.number();
                if self.seen.folder().is_some_and(|known| known != number) {
                    self.seen.leave_all(self.now());
                }
                self.seen.set_folder(number);
                true
            }
        };
        if is_there {
            self.take_notices();
            if self.next_scan <= self.now() {
                self.scan(Path::new(""), progress).await?;
            }
            while let Some(folder) = self.came().and_then(BTreeSet::pop_first) {
                self.scan(&folder, progress).await?;
            }
            self.look_at_due().await?;
            self.finish_files().await?;
        }
        if self.seen.due().is_some_and(|due| due <= self.now()) {
            self.seen.save(&self.bus).await?;
        }
        Ok(())
    }

    fn came(&mut self) -> Option<&mut BTreeSet<PathBuf>> {
        match &mut self.look {
            Look::Folder(look) => Some(&mut look.came),
            Look::Bucket(_) => None,
        }
    }

    fn folder(&self) -> Option<Arc<Folder>> {
        match &self.look {
            Look::Folder(FolderLook { open: Some((folder, _)), .. }) => Some(Arc::clone(folder)),
            _ => None,
        }
    }

    /// Looks whether the folder is there and still the same, and watches it. Returns whether it can be used.
    async fn open_folder(&mut self) -> bool {
        let (Place::Folder(path), Look::Folder(look)) = (&self.source.place, &mut self.look) else { return false };
        let (asked, open) = (path.clone(), look.open.as_ref().map(|(_, place)| *place));
        let (number, known) = (self.seen.folder(), self.seen.below(Path::new("")));
        let found = threads::run(move || {
            let metadata = std::fs::metadata(&asked)?;
            let place = (metadata.dev(), metadata.ino());
            if open == Some(place) {
                return Ok(None);
            }
            // Also of what is no folder this tells why it cannot be looked through.
            let is_empty = std::fs::read_dir(&asked)?.next().is_none();
            let is_another = number.is_some_and(|number| number != place.1)
                && !known.is_empty()
                && !known.iter().any(|file| std::fs::symlink_metadata(asked.join(file)).is_ok());
            Ok::<_, std::io::Error>(Some((place, is_empty, is_another, Folder::of(&asked))))
        });
        let (place, is_empty, is_another, folder) = match found.await {
            Some(Ok(Some(found))) => found,
            Some(Ok(None)) => return true,
            Some(Err(error)) => {
                self.close_folder(format!("{}: {}", path.display(), system_words(&error)));
                return false;
            }
            None => return false,
        };
        if is_empty && !self.seen.is_empty() && self.seen.folder().is_some_and(|number| number != place.1) {
            let why = format!("{} is empty, and not the folder that it was: is it not mounted?", path.display());
            self.close_folder(why);
            return false;
        }
        *look = FolderLook { open: Some((Arc::new(folder), place)), ..FolderLook::default() };
        if is_another {
            // The config may name another one, or something may lie where nothing is mounted.
            self.seen.leave_all(self.now());
        }
        self.settling.forget();
        self.seen.set_folder(place.1);
        (self.next_scan, self.trouble) = (Duration::ZERO, None);
        true
    }

    fn close_folder(&mut self, why: String) {
        if let Look::Folder(look) = &mut self.look {
            *look = FolderLook::default();
        }
        self.settling.forget();
        (self.trouble, self.trouble_at) = (Some(why), self.now());
        self.next_scan = self.now() + WAIT;
    }

    /// Something is in the way of some files.
    fn note_trouble(&mut self, why: String) {
        self.trouble.get_or_insert(why);
        self.trouble_at = self.now();
        self.next_scan = self.next_scan.min(self.now() + AGAIN);
    }

    /// Takes in what the kernel has told.
    fn take_notices(&mut self) {
        let now = self.now();
        let Look::Folder(look) = &mut self.look else { return };
        let Some(notices) = &look.notices else { return };
        let (mut made, mut away) = (None, None);
        for notice in notices.take() {
            // What opens a file right after it was made has made it, and may write.
            let next_made = if let Notice::Made(path) = &notice { Some(path.clone()) } else { None };
            let patterns = &self.source.patterns;
            match notice {
                Notice::Lost => {
                    self.settling.forget();
                    self.next_scan = Duration::ZERO;
                }
                // The next pass opens what has taken its place.
                Notice::Ended => {
                    look.open = None;
                    self.next_scan = Duration::ZERO;
                }
                Notice::FolderCame(path) => {
                    if self.source.recursive && patterns.enters(&path) {
                        look.came.insert(path);
                    }
                }
                Notice::FolderGone(path) => {
                    self.settling.leave(&path);
                    for path in self.seen.below(&path) {
                        self.settling.gone(path, now);
                    }
                }
                Notice::Opened(path) => self.settling.opened(&path, made.as_ref() == Some(&path)),
                Notice::Read(path) => self.settling.read(&path, now),
                Notice::Made(path) if patterns.wants(&path) => self.settling.made(path, now),
                Notice::MovedIn(path, cookie) if patterns.wants(&path) => {
                    let is_open = away.as_ref().is_some_and(|(from, is_open)| *is_open && *from == cookie);
                    self.settling.moved_in(path, is_open, now);
                }
                Notice::MovedAway(path, cookie) if patterns.wants(&path) => {
                    away = Some((cookie, self.settling.is_written(&path)));
                    self.settling.gone(path, now);
                }
                Notice::Closed(path) if patterns.wants(&path) => self.settling.closed(path, now),
                Notice::Touched(path) if patterns.wants(&path) => self.settling.touched(path, now),
                Notice::Gone(path) if patterns.wants(&path) => self.settling.gone(path, now),
                Notice::Made(_)
                | Notice::MovedIn(..)
                | Notice::MovedAway(..)
                | Notice::Closed(_)
                | Notice::Touched(_)
                | Notice::Gone(_) => {}
            }
            made = next_made;
        }
    }

    /// Begins to watch, unless that is not to be relied on. Returns whether it is watched.
    fn watch(&mut self) -> bool {
        let Look::Folder(look) = &mut self.look else { return false };
        let is_local = look.open.as_ref().is_some_and(|(folder, _)| folder.is_local);
        if !self.watches || self.source.poll.is_some() || !is_local || look.unwatched.is_some() {
            return false;
        }
        if look.notices.is_none() {
            match Notices::new() {
                Ok(notices) => look.notices = Some(notices),
                Err(why) => look.unwatched = Some(why),
            }
        }
        look.notices.is_some()
    }

    /// Looks through a folder; an empty path is all of it.
    async fn scan(&mut self, below: &Path, progress: &mut dyn FnMut(u64) -> bool) -> StoreResult<()> {
        let is_all = below.as_os_str().is_empty();
        let is_watched = self.watch();
        if is_all {
            self.leaves_out = false;
            self.seen.begin_scan();
            if let Some(came) = self.came() {
                came.clear();
            }
        }
        let Some(mut parts) = self.parts(below) else { return Ok(()) };
        let (mut is_whole, mut trouble, begun) = (true, None, self.now());
        loop {
            let files = match parts.next(self).await? {
                Some(files) => files,
                None => return Ok(()),
            };
            let looked = files.len() as u64;
            is_whole &= self.judge(files).await?;
            if !progress(looked) {
                return Ok(());
            }
            if parts.is_over() {
                break;
            }
        }
        if let Parts::Listing(listing) = &parts {
            self.passed_over = listing.passed_over().map(str::to_owned);
        }
        if let Parts::Walk(Some(walk)) = &parts {
            is_whole &= walk.trouble.is_none();
            trouble.clone_from(&walk.trouble);
            if let (Some(why), Look::Folder(look)) = (&walk.unwatched, &mut self.look) {
                // Some folders are watched and some are not: none of them is relied on.
                look.notices = None;
                look.unwatched = Some(why.clone());
                self.settling.forget();
            }
        }
        if is_all && is_whole {
            let now = self.now();
            for path in self.seen.unmet(now) {
                self.settling.gone(path, now);
            }
        }
        if is_all {
            let is_watched = is_watched && matches!(&self.look, Look::Folder(look) if look.notices.is_some());
            let pause = match () {
                () if trouble.is_some() => AGAIN,
                () if !is_whole => self.source.settle.max(WAIT),
                () if is_watched => BACKSTOP,
                () => self.source.poll.unwrap_or(super::POLL),
            };
            // A long look leaves as much time to others.
            self.next_scan = self.now() + pause.max(self.now().saturating_sub(begun));
        }
        if let Some(why) = trouble {
            self.note_trouble(why);
        }
        Ok(())
    }

    fn parts(&self, below: &Path) -> Option<Parts> {
        match &self.look {
            Look::Folder(look) => {
                let (folder, _) = look.open.as_ref()?;
                let watches = look.notices.as_ref().map(Notices::watches);
                Some(Parts::Walk(Some(Box::new(Walk::new(&self.source, folder, below, watches)))))
            }
            Look::Bucket(objects) => Some(Parts::Listing(objects.list())),
        }
    }

    /// For how long nothing was done to a file, by the clock that stamps it.
    fn age(&self, state: &FileState) -> Option<Duration> {
        match self.folder() {
            Some(folder) if !folder.is_local => None,
            _ => {
                let now = self.bus.clock.now();
                (state.ctime <= now).then(|| now.since(state.ctime))
            }
        }
    }

    /// Takes in files that were found. Returns whether none was left out.
    async fn judge(&mut self, files: Vec<FoundFile>) -> StoreResult<bool> {
        let (now, mut is_whole, mut still) = (self.now(), true, Vec::new());
        for file in files {
            self.seen.meet(&file.path);
            match self.seen.standing(&file.path, &file.state) {
                Standing::Known(event) => {
                    self.add_unfinished(event, file.path, now);
                    continue;
                }
                Standing::Changed | Standing::New => {}
            }
            // An object is there once it is whole.
            if matches!(self.look, Look::Bucket(_)) {
                still.push(file);
                continue;
            }
            match self.settling.found(&file, self.age(&file.state), self.source.settle, now) {
                Some(Verdict::Wait | Verdict::Touched) => {}
                Some(Verdict::Closed | Verdict::Moved | Verdict::Still) => still.push(file),
                None => (is_whole, self.leaves_out) = (false, true),
            }
        }
        self.finished(still, true).await?;
        Ok(is_whole)
    }

    fn add_unfinished(&mut self, event: Option<EventName>, path: PathBuf, now: Duration) {
        if let Some(event) = event.filter(|_| self.source.after != After::Leave) {
            self.unfinished.add(event, path, now);
        }
    }

    /// Looks at the files that are due.
    async fn look_at_due(&mut self) -> StoreResult<()> {
        let due = self.settling.due(self.source.settle, self.now());
        for part in due.chunks(PART) {
            let states = self.states(part.to_vec()).await;
            let (now, mut closed, mut still, mut gone) = (self.now(), Vec::new(), Vec::new(), Vec::new());
            let mut touched = Vec::new();
            for (state, path) in states {
                let state = match state {
                    Ok(Some(state)) => state,
                    Ok(None) => {
                        self.settling.remove(&path);
                        gone.push(path);
                        continue;
                    }
                    Err(why) => {
                        // All is looked through again in a while.
                        self.settling.remove(&path);
                        self.note_trouble(why);
                        continue;
                    }
                };
                let file = FoundFile { path, state };
                if matches!(self.look, Look::Bucket(_)) {
                    self.settling.remove(&file.path);
                    still.push(file);
                    continue;
                }
                match self.settling.looked(&file, self.age(&file.state), self.source.settle, now) {
                    Verdict::Closed => closed.push(file),
                    Verdict::Moved | Verdict::Still => still.push(file),
                    Verdict::Touched => touched.push(file),
                    Verdict::Wait => {}
                }
            }
            self.remove(gone).await?;
            self.restate(touched).await;
            self.finished(closed, false).await?;
            self.finished(still, true).await?;
        }
        Ok(())
    }

    /// What files are now; none: they are gone; or why that cannot be told.
    async fn states(&self, paths: Vec<PathBuf>) -> Vec<(Result<Option<FileState>, String>, PathBuf)> {
        match (&self.look, self.folder()) {
            (Look::Bucket(objects), _) => {
                let keys: Vec<String> = paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
                let states = objects.states(&keys).await.into_iter().map(|object| match object {
                    Ok(object) => Ok(object.map(|object| object_file(object).state)),
                    Err(error) => Err(error.to_string()),
                });
                states.zip(paths).collect()
            }
            (Look::Folder(_), Some(folder)) => {
                let states = threads::run(move || paths.into_iter().map(|path| (stat(&folder, &path), path)).collect());
                states.await.unwrap_or_default()
            }
            (Look::Folder(_), None) => Vec::new(),
        }
    }

    /// Files whose times were set, and that no program has written, are what they were.
    async fn restate(&mut self, files: Vec<FoundFile>) {
        let asked: Vec<FoundFile> =
            files.into_iter().filter(|file| self.seen.standing(&file.path, &file.state) == Standing::Changed).collect();
        if asked.is_empty() {
            return;
        }
        let time = self.bus.clock.now();
        let looked = threads::run(move || {
            let open = open_among(&asked, time);
            asked.into_iter().partition::<Vec<_>, _>(|file| open.contains(&file.state.place))
        });
        let now = self.now();
        let Some((open, closed)) = looked.await else { return };
        for file in open {
            self.settling.touched(file.path, now);
        }
        let Look::Folder(look) = &mut self.look else { return };
        for file in closed {
            self.seen.restate(&file.path, &file.state, now);
            if let Some(event) = self.seen.event(&file.path) {
                self.unfinished.add(event, file.path.clone(), now);
            }
            // Should a program close it after all, it is another version.
            if look.restated.len() < super::settling::MOST {
                look.restated.insert(file.path);
            }
        }
    }

    /// Emits the events of files that seem finished.
    async fn finished(&mut self, files: Vec<FoundFile>, is_still: bool) -> StoreResult<()> {
        if files.is_empty() {
            return Ok(());
        }
        let sure = match self.folder() {
            None => files.into_iter().map(|file| Sure::Finished(file, None)).collect(),
            Some(folder) => {
                let source = Arc::clone(&self.source);
                let now = self.bus.clock.now();
                let sure = threads::run({
                    let is_cancelled = Arc::clone(&self.is_cancelled);
                    move || make_sure((&source, &folder), files, (is_still, now), &is_cancelled)
                });
                sure.await.unwrap_or_default()
            }
        };
        let (now, mut ready) = (self.now(), Vec::new());
        for sure in sure {
            match sure {
                Sure::Gone => {}
                Sure::Again(file, why) => {
                    if let Some(why) = why {
                        self.note_trouble(why);
                    }
                    self.settling.again(file, now);
                }
                Sure::Finished(file, sha256) => ready.extend(self.ready(file, sha256, now)),
            }
        }
        let batch = self.emitter.batch().min(PART);
        for part in ready.chunks(batch.max(1)) {
            self.emit(part).await?;
        }
        Ok(())
    }

    /// Whether a finished file is to have an event, and which one.
    fn ready(&mut self, file: FoundFile, sha256: Option<[u8; 32]>, now: Duration) -> Option<Ready> {
        let is_restated = match &mut self.look {
            Look::Folder(look) => look.restated.remove(&file.path),
            Look::Bucket(_) => false,
        };
        let was_known = match self.seen.standing(&file.path, &file.state) {
            Standing::Known(event) if !is_restated => {
                self.add_unfinished(event, file.path, now);
                return None;
            }
            Standing::New => false,
            Standing::Changed | Standing::Known(_) => true,
        };
        if sha256.is_some_and(|sha256| self.seen.has_content(&file.path, &sha256)) {
            self.seen.restate(&file.path, &file.state, now);
            self.add_unfinished(self.seen.event(&file.path), file.path, now);
            return None;
        }
        let Some(change) = self.source.change(was_known) else {
            self.seen.insert(&file.path, (&file.state, sha256.as_ref()), None, now);
            return None;
        };
        Some(Ready { file, sha256, change })
    }

    async fn emit(&mut self, ready: &[Ready]) -> StoreResult<()> {
        let event = |ready: &Ready| {
            let change = (ready.change, self.seen.removals(&ready.file.path));
            self.source.event(&ready.file, ready.sha256.as_ref(), change)
        };
        let events: Vec<_> = ready.iter().map(event).collect();
        let acks = self.put(events).await?;
        let now = self.now();
        for (Ready { file, sha256, .. }, ack) in ready.iter().zip(acks) {
            let event = (self.source.after != After::Leave).then_some(&ack.name);
            self.seen.insert(&file.path, (&file.state, sha256.as_ref()), event, now);
            self.add_unfinished(event.cloned(), file.path.clone(), now);
        }
        Ok(())
    }

    /// Puts events onto the bus, and counts those that are new.
    async fn put(&mut self, events: Vec<Result<Event, EventError>>) -> StoreResult<Vec<Ack>> {
        let unfit = |error: EventError| StoreError::new(ErrorKind::Unfit, error.to_string());
        let drafts = events.into_iter().map(|event| event.map(Draft::named).map_err(unfit));
        let drafts: Vec<Draft> = drafts.collect::<StoreResult<_>>()?;
        let mut acks = Vec::with_capacity(drafts.len());
        for drafts in drafts.chunks(self.emitter.batch().max(1)) {
            acks.extend(self.emitter.emit(drafts).await?);
        }
        self.emitted += acks.iter().filter(|ack| ack.kind == AckKind::New).count() as u64;
        Ok(acks)
    }

    /// Files are gone.
    async fn remove(&mut self, paths: Vec<PathBuf>) -> StoreResult<()> {
        let (wants, time) = (self.source.wants(Change::Removed), self.bus.clock.now());
        for part in paths.chunks(PART) {
            let mut versions: BTreeMap<&PathBuf, ShortHash> = BTreeMap::new();
            for path in part {
                if let Some(version) = self.seen.version(path).filter(|_| wants) {
                    versions.insert(path, version);
                }
            }
            let removals = versions.iter().map(|(path, version)| self.source.removal(path, *version, time));
            self.put(removals.collect()).await?;
            let now = self.now();
            for path in part {
                self.seen.remove(path, now);
            }
        }
        Ok(())
    }

    /// Does with files what is to be done, where the groups are done with their events.
    async fn finish_files(&mut self) -> StoreResult<()> {
        if self.unfinished.next().is_none_or(|next| next > self.now()) {
            return Ok(());
        }
        let done = self.unfinished.done(&self.bus, &self.source.groups, self.now()).await?;
        for (event, path) in done.files {
            // Another version has another event, which is not done by this.
            if self.seen.event(&path) != Some(event) {
                continue;
            }
            match self.finish_file(&path).await {
                Ok(Finished::Away) => self.seen.remove(&path, self.now()),
                // It is another version, the event of which comes, or was only touched: then it is looked at again.
                Ok(Finished::Other) => {}
                Err(why) => self.note_trouble(why),
            }
        }
        if let Some(why) = done.kept {
            self.note_trouble(why);
        }
        Ok(())
    }

    async fn finish_file(&self, path: &Path) -> Result<Finished, String> {
        let version = self.seen.version(path);
        if let Look::Bucket(objects) = &self.look {
            return self.finish_object(objects, path, version).await.map_err(|error| error.to_string());
        }
        let Some(folder) = self.folder() else { return Ok(Finished::Other) };
        let (source, asked) = (Arc::clone(&self.source), path.to_owned());
        let finished =
            threads::run(move || after::finish(&source, &folder, &asked, |state| Some(state.version()) == version));
        let finished = finished.await.unwrap_or(Ok(Finished::Other));
        finished.map_err(|error| {
            let doing = if self.source.after == After::Delete { "delete" } else { "move" };
            format!("cannot {doing} {}: {}", path.display(), system_words(&error))
        })
    }

    async fn finish_object(&self, objects: &Objects, path: &Path, version: Option<ShortHash>) -> StoreResult<Finished> {
        let key = path.to_string_lossy();
        let Some(object) = objects.state(&key).await? else { return Ok(Finished::Other) };
        if Some(object_file(object.clone()).state.version()) != version {
            return Ok(Finished::Other);
        }
        match &self.source.after {
            After::Leave => return Ok(Finished::Other),
            After::Delete => objects.delete(&key).await?,
            After::Move(to) => objects.move_to(&object, &to.to_string_lossy()).await?,
        }
        Ok(Finished::Away)
    }
}

/// A file that is to have an event.
struct Ready {
    file: FoundFile,
    sha256: Option<[u8; 32]>,
    change: Change,
}

/// What is looked through, a part at a time.
enum Parts {
    /// None while a part of it is looked for.
    Walk(Option<Box<Walk>>),
    Listing(Listing),
}

impl Parts {
    /// The next files; none: they cannot be looked for.
    async fn next(&mut self, runner: &Runner) -> StoreResult<Option<Vec<FoundFile>>> {
        match (self, &runner.look) {
            (Self::Walk(walk), _) => {
                let Some((back, files)) = (match walk.take() {
                    Some(walk) => walk.next().await,
                    None => None,
                }) else {
                    return Ok(None);
                };
                *walk = Some(Box::new(back));
                Ok(Some(files))
            }
            (Self::Listing(listing), Look::Bucket(objects)) => {
                let is_wanted = |object: &ObjectState| {
                    let (source, path) = (&runner.source, Path::new(&object.key));
                    (source.recursive || !object.key.contains('/')) && source.patterns.selects(path)
                };
                let is_known = |object: &ObjectState| {
                    let file = object_file(object.clone());
                    matches!(runner.seen.standing(&file.path, &file.state), Standing::Known(_))
                };
                let part = objects.part(listing, PART).await?;
                let (known, others) = part.into_iter().filter(is_wanted).partition::<Vec<_>, _>(is_known);
                let others = objects.real(listing, others).await?;
                Ok(Some(known.into_iter().chain(others).map(object_file).collect()))
            }
            (Self::Listing(_), Look::Folder(_)) => Ok(None),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Walk(walk) => walk.as_ref().is_none_or(|walk| walk.is_over),
            Self::Listing(listing) => listing.is_over(),
        }
    }
}

/// An object as a file.
fn object_file(object: ObjectState) -> FoundFile {
    let state =
        FileState { size: object.size, mtime: object.mtime, identity: object.etag, ctime: object.mtime, place: (0, 0) };
    FoundFile { path: PathBuf::from(object.key), state }
}
