//! Sources as they run: in the foreground, beside workers, or once.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::failure::Failure;
use super::output;
use super::progress::Progress;
use super::session::{Opened, Session};
use super::style;
use crate::clock::Backoff;
use crate::config::{BusAddress, Location};
use crate::group::worker::Stop;
use crate::source::{self, Place, Runner, Source, SourcePass};
use crate::store::{StoreError, system_words};

/// The pauses of a source whose bus does not answer.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// How much longer than `settle` files are waited for that were found later than others.
const BEYOND: Duration = Duration::from_secs(1);

/// Notices are gathered for this time: files may be opened and closed all the time.
const GATHER: Duration = Duration::from_millis(20);

/// More files than this are worth a line that tells how far it is.
const MANY: u64 = 2_000;

/// Refuses a source whose files are the bus's own.
pub(super) fn refuse_bus(source: &Source, bus: &BusAddress) -> Result<(), Failure> {
    let meets = match (&source.place, &bus.location) {
        (Place::Folder(folder), Location::Dir(bus)) => {
            folder.starts_with(bus) || (source.recursive && bus.starts_with(folder))
        }
        (Place::Bucket(place, _), Location::Bucket(bus, _)) => place.overlaps(bus),
        _ => false,
    };
    if !meets {
        return Ok(());
    }
    let (bus, place) = (&bus.display, &source.place);
    let what = format!("source '{}': the bus {bus} lies in {place}: each event would be a file", source.name);
    Err(Failure::usage(what).help("keep them apart"))
}

/// What is said of a source, once each.
struct Said<'a> {
    name: &'a str,
    trouble: String,
    polls: String,
    passed_over: String,
}

impl<'a> Said<'a> {
    fn of(name: &'a str) -> Self {
        Self { name, trouble: String::new(), polls: String::new(), passed_over: String::new() }
    }

    fn trouble(&mut self, why: &str) {
        if why != self.trouble {
            match why.is_empty() {
                true => output::note(&format!("source '{}' goes on", self.name)),
                false => output::warn(&format!("source '{}' waits: {why}", self.name)),
            }
            why.clone_into(&mut self.trouble);
        }
    }

    fn pass(&mut self, pass: &SourcePass) {
        self.trouble(pass.trouble.as_deref().unwrap_or_default());
        if let Some(why) = pass.polls.as_deref().filter(|why| *why != self.polls) {
            let what = format!("source '{}' is looked through again and again, as the kernel does not tell", self.name);
            output::warn(&format!("{what}: {why}"));
            why.clone_into(&mut self.polls);
        }
        self.passed_over(pass);
    }

    fn passed_over(&mut self, pass: &SourcePass) {
        if let Some(key) = pass.passed_over.as_deref().filter(|key| *key != self.passed_over) {
            let what = format!("source '{}' passes over keys such as '{}'", self.name, key.escape_debug());
            output::warn(&format!(
                "{what}: a part that is empty, '.', '..' or has a control character cannot be asked for"
            ));
            key.clone_into(&mut self.passed_over);
        }
    }
}

/// Serves one source until it is told to stop; a folder or a bus that is not there is waited for. Returns how many events
/// it has emitted.
pub(super) async fn follow(
    source: &Source,
    opened: &Opened,
    session: &Session,
    mut stop: watch::Receiver<Stop>,
) -> u64 {
    let (clock, bus) = (&*session.clock, opened.bus_handle());
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut said = Said::of(&source.name);
    let (mut runner, mut emitted) = (None, 0);
    while *stop.borrow() == Stop::No {
        let done = match &mut runner {
            None => Runner::open(bus.clone(), source.clone(), true).await.map(|opened| {
                runner = Some(opened);
                SourcePass::default()
            }),
            Some(runner) => {
                let mut shown = ScanProgress::new();
                let mut progress = |files| {
                    shown.add(files);
                    *stop.borrow() == Stop::No
                };
                let is_cancelled = runner.is_cancelled();
                let pass = {
                    let mut passing = pin!(runner.pass(&mut progress));
                    let mut told = stop.clone();
                    tokio::select! { biased;
                        pass = &mut passing => pass,
                        _ = told.changed() => {
                            is_cancelled.store(true, Ordering::Relaxed);
                            passing.await
                        }
                    }
                };
                shown.end();
                pass.inspect(|pass| said.pass(pass))
            }
        };
        let until = match (&done, &runner) {
            (Ok(pass), Some(runner)) => {
                emitted += pass.emitted;
                backoff = Backoff::new(PAUSES.0, PAUSES.1);
                runner.next()
            }
            (Err(error), _) => {
                said.trouble(&error.to_string());
                clock.elapsed() + backoff.take()
            }
            (Ok(_), None) => continue,
        };
        let noticed = async {
            match (&done, &runner) {
                (Ok(_), Some(runner)) => runner.noticed().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! { biased;
            changed = stop.changed() => if changed.is_err() { break },
            () = noticed => clock.sleep_until(clock.elapsed() + GATHER).await,
            () = clock.sleep_until(until) => {}
        }
    }
    if let Some(mut runner) = runner
        && let Err(error) = runner.save().await
    {
        said.trouble(&error.to_string());
    }
    emitted
}

/// Says how far a long look has come.
struct ScanProgress {
    progress: Option<Progress>,
    files: u64,
}

impl ScanProgress {
    fn new() -> Self {
        Self { progress: None, files: 0 }
    }

    /// So many more files were looked at.
    fn add(&mut self, files: u64) {
        self.files += files;
        if self.files > MANY {
            let progress = self.progress.get_or_insert_with(|| Progress::new("looking at files", None));
            progress.say(format!("looking at files: {}", style::thousands(self.files)));
        }
    }

    fn end(self) {
        if let Some(progress) = self.progress {
            progress.end();
        }
    }
}

/// Serves a source once: what has finished arriving, and what does so within its `settle`. Returns it with the count of
/// events.
pub(super) async fn once(source: &Source, opened: &Opened, session: &Session) -> Result<(Runner, SourcePass), Failure> {
    let failed = |error: StoreError| Failure::from(error).context(&format!("source '{}'", source.name));
    let mut runner = Runner::open(opened.bus_handle().clone(), source.clone(), false).await.map_err(failed)?;
    let mut shown = ScanProgress::new();
    let mut progress = |files| {
        shown.add(files);
        true
    };
    let mut pass = runner.pass(&mut progress).await.map_err(failed)?;
    shown.end();
    // Files that go on changing are left to another time.
    let mut end = session.clock.elapsed() + source.settle + BEYOND;
    loop {
        match runner.settles_at().filter(|at| *at <= end) {
            Some(at) => session.clock.sleep_until(at).await,
            None if runner.has_more() => {
                runner.look_anew();
                end = session.clock.elapsed() + source.settle + BEYOND;
            }
            None => break,
        }
        let again = runner.pass(&mut |_| true).await.map_err(failed)?;
        pass = SourcePass { emitted: pass.emitted + again.emitted, ..again };
    }
    Said::of(&source.name).passed_over(&pass);
    if let Some(why) = &pass.trouble {
        return Err(Failure::failed(why.clone()).context(&format!("source '{}'", source.name)));
    }
    Ok((runner, pass))
}

/// Serves sources once. Returns those that ran, and whether all went well.
pub(super) async fn once_all(sources: &[Source], opened: &Opened, session: &Session) -> (Vec<Runner>, bool) {
    let served = join_all(sources.iter().map(|source| once(source, opened, session))).await;
    let (mut runners, mut all_well) = (Vec::new(), true);
    for served in served {
        match served {
            Ok((runner, _)) => runners.push(runner),
            Err(failure) => {
                failure.report();
                all_well = false;
            }
        }
    }
    (runners, all_well)
}

/// Does with files what is to be done after the workers have run. Returns whether all went well.
pub(super) async fn end_all(runners: &mut [Runner]) -> bool {
    let mut all_well = true;
    for runner in runners {
        let name = runner.source().name.clone();
        let ended = runner.end().await;
        let trouble = match ended {
            Ok(SourcePass { trouble: Some(why), .. }) => Failure::failed(why),
            Ok(_) => continue,
            Err(error) => Failure::from(error),
        };
        all_well = false;
        trouble.context(&format!("source '{name}'")).report();
    }
    all_well
}

/// How a source stands, as it is shown.
pub(super) struct SourceRow {
    pub(super) name: String,
    pub(super) type_: String,
    pub(super) place: String,
    /// How many files have their events; none: it has never run.
    pub(super) files: Option<u64>,
    /// Why that is not known, or what is in its way on this host.
    pub(super) error: Option<String>,
}

/// Why a source's folder cannot be looked into from here.
pub(super) fn trouble_of(source: &Source) -> Option<String> {
    let Place::Folder(folder) = &source.place else { return None };
    let error = std::fs::read_dir(folder).err()?;
    Some(format!("cannot look into {}: {}", folder.display(), system_words(&error)))
}

/// The rows of sources.
pub(super) async fn rows(sources: &[Source], opened: &Opened) -> Vec<SourceRow> {
    join_all(sources.iter().map(|source| async move {
        let (files, error) = match source::count(opened.bus_handle(), &source.name).await {
            Ok(files) => (files, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let error = error.or_else(|| trouble_of(source));
        let (name, type_, place) = (source.name.clone(), source.type_.clone(), source.place.to_string());
        SourceRow { name, type_, place, files, error }
    }))
    .await
}
