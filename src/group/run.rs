//! The run of one event: reads it, runs its handler, and says what the outcome means.
//!
//! A run is handed on three times: the engine makes a [`Launch`], which says which event is to run;
//! the worker adds what a run of its group needs, a [`Task`]; and this file, once it has read the
//! event, makes of both the [`Job`] that the handler gets.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStringExt;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, LocalBoxStream, StreamExt};

use super::engine::Launch;
use super::latest::LatestKey;
use super::marker::PendingEvent;
use super::ops::GroupStore;
use super::verdict::{Fingerprint, RunResult};
use super::{GroupName, content, dead_letter};
use crate::bus::BusHandle;
use crate::event::{Data, Event, EventName, Filter, FilterResult, Identity, Likeness, NameMatch};
use crate::handler::{Handler, Job, JobVars, Permit, Reports, RunReport, Var};
use crate::store::{ErrorKind, StoreResult};
use crate::threads;

/// How long after its handler a worker may learn of the signal that has ended both.
const SIGNAL_DELAY: Duration = Duration::from_millis(200);

/// The most events of one start that are read at once.
const READS: usize = 64;

/// What runs need besides their events.
pub(super) struct Task {
    pub group_store: GroupStore,
    /// When the last listing ended that may have shown the event.
    pub listed_at: Duration,
    pub handler: Rc<dyn Handler>,
    pub epoch: u64,
    pub max_attempts: u32,
    pub max_event_bytes: usize,
    pub url: Rc<str>,
    /// Whether handlers may still start.
    pub permit: Permit,
    /// The key of its fingerprints.
    pub secret: u64,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("group", &self.group_store.group)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// Results by the places of their launches, as they come.
pub(super) type Results = LocalBoxStream<'static, Vec<(usize, RunResult)>>;

/// Runs one event.
pub(super) async fn run(task: Task, launch: Launch) -> RunResult {
    let task = Rc::new(task);
    let (job, content) = match prepare(&task, &launch).await {
        Ok(prepared) => prepared,
        Err(ran) => return ran,
    };
    let report = task.handler.run(job).await;
    task.wait_for_signals([&report]).await;
    RunResult::Reported(report, content)
}

/// Runs events that start together through a handler that takes them so.
pub(super) fn run_many(task: Task, launches: Vec<Launch>) -> Results {
    let task = Rc::new(task);
    let prepared = async move {
        let (mut given_up, mut jobs, mut begun) = (Vec::new(), Vec::new(), Vec::new());
        for (place, prepared) in prepare_many(&task, &launches).await.into_iter().enumerate() {
            match prepared {
                Ok((job, content)) => {
                    jobs.push(job);
                    begun.push((place, content));
                }
                Err(ran) => given_up.push((place, ran)),
            }
        }
        let reports = match task.handler.many().filter(|_| !jobs.is_empty()) {
            Some(many) => many.run_many(jobs),
            None => Box::pin(stream::empty()) as Reports,
        };
        let (task, begun) = (Rc::clone(&task), Rc::new(begun));
        let results = reports.then(move |reports| {
            let (task, begun) = (Rc::clone(&task), Rc::clone(&begun));
            async move {
                task.wait_for_signals(reports.iter().map(|(_, report)| report)).await;
                let reported = |(at, report): (usize, RunReport)| {
                    let (place, content) = begun[at];
                    (place, RunResult::Reported(report, content))
                };
                reports.into_iter().map(reported).collect()
            }
        });
        stream::iter((!given_up.is_empty()).then_some(given_up)).chain(results)
    };
    Box::pin(stream::once(prepared).flatten())
}

/// What a handler gets, and the fingerprint of its event; or the result, if it is not to run.
type Prepared = Result<(Job, Fingerprint), RunResult>;

/// Prepares events that start together; those that are to be read, several at once.
async fn prepare_many(task: &Rc<Task>, launches: &[Launch]) -> Vec<Prepared> {
    let known: Vec<Result<Prepared, &Launch>> =
        launches.iter().map(|launch| prepare_known(task, launch).ok_or(launch)).collect();
    let to_read: Vec<&Launch> = known.iter().filter_map(|known| known.as_ref().err().copied()).collect();
    let mut read = pin!(stream::iter(to_read).map(|launch| prepare_read(task, launch)).buffered(READS));
    let mut all = Vec::with_capacity(launches.len());
    for known in known {
        match known {
            Ok(known) => all.push(known),
            Err(_) => all.extend(read.next().await),
        }
    }
    all
}

/// Reads an event, unless it was read already, and makes of it what its handler gets, if it is to be
/// run.
async fn prepare(task: &Rc<Task>, launch: &Launch) -> Prepared {
    match prepare_known(task, launch) {
        Some(known) => known,
        None => prepare_read(task, launch).await,
    }
}

/// The same for an event that lies in a segment that was read already, and whose name tells that it
/// is wanted.
fn prepare_known(task: &Rc<Task>, launch: &Launch) -> Option<Prepared> {
    let GroupStore { bus, filter, .. } = &task.group_store;
    let name = &launch.name;
    let wanted = || filter.condition.is_none() && filter.types.matches_slug(name.slug()) == NameMatch::Yes;
    let found = bus.segments.document(name).filter(|found| found.is_event && wanted())?;
    if found.bytes.len() > task.max_event_bytes {
        return None;
    }
    let content = task.fingerprint(launch, &found.bytes);
    Some(content.and_then(|content| task.job(launch, found.bytes, found.likeness, content)))
}

async fn prepare_read(task: &Rc<Task>, launch: &Launch) -> Prepared {
    let (bytes, event) = read(task, launch).await?;
    let content = task.fingerprint(launch, &bytes)?;
    if let Some(ran) = unwanted(task, &event).await {
        return Err(ran);
    }
    task.job(launch, bytes, None, content)
}

impl Task {
    /// That of a content, unless it is a copy of one that has succeeded.
    fn fingerprint(&self, launch: &Launch, bytes: &[u8]) -> Result<Fingerprint, RunResult> {
        let content = Fingerprint::of(bytes, self.secret);
        if launch.copy_of == Some(content) { Err(RunResult::Copy) } else { Ok(content) }
    }

    fn job(
        self: &Rc<Self>,
        launch: &Launch,
        event: Bytes,
        likeness: Option<Likeness>,
        content: Fingerprint,
    ) -> Prepared {
        // Reading may have taken long: another worker may own the shard by now.
        if !self.permit.holds() {
            return Err(RunResult::Reported(RunReport::stopped(), content));
        }
        let (name, attempt) = (launch.name.clone(), launch.attempt);
        let vars = EventVars { task: Rc::clone(self), event: event.clone(), name, attempt };
        let (file, permit) = (launch.name.text(), self.permit.clone());
        Ok((Job { event, file, vars: Rc::new(vars), likeness, attempt, epoch: self.epoch, permit }, content))
    }

    /// Waits if a handler may have ended by a signal that is meant for its worker: stopping a service
    /// signals all its processes, and the worker may learn of that a moment later than its handler.
    async fn wait_for_signals(&self, reports: impl IntoIterator<Item = &RunReport>) {
        if reports.into_iter().any(RunReport::may_be_interrupted) {
            let clock = &self.group_store.bus.clock;
            clock.sleep_until(clock.elapsed() + SIGNAL_DELAY).await;
        }
    }
}

/// The event, if there is one to be run.
async fn read(task: &Task, launch: &Launch) -> Result<(Bytes, Event), RunResult> {
    let GroupStore { bus, group, .. } = &task.group_store;
    let (name, limit) = (&launch.name, task.max_event_bytes);
    let bytes = match content::read(bus, group, name, launch.dead_letter.as_deref(), limit).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) if launch.copy_of.is_some() => return Err(RunResult::NothingToRun),
        Ok(None) => {
            return Err(match &launch.dead_letter {
                Some(dead_letter) => gone_from_dead_letter(bus, group, dead_letter).await,
                None => gone(bus, name).await,
            });
        }
        // It is too large, or not a file at all: it will never be an event.
        Err(error) if error.kind() == ErrorKind::Damaged => return Err(RunResult::Unparsable(format!("({error})"))),
        Err(error) => return Err(RunResult::Unreadable(error.into())),
    };
    match Event::parse(&bytes, limit) {
        Ok(event) if name.fits(&event) => Ok((bytes, event)),
        Ok(_) => Err(RunResult::Foreign),
        Err(error) => Err(RunResult::Unparsable(error.to_string())),
    }
}

/// Tells a moved event from a gone one. An emitter that moves an event, or gives way to a twin,
/// leaves another copy; that copy may be an earlier one, if the twin was first.
async fn gone(bus: &BusHandle, name: &EventName) -> RunResult {
    let Some(identity) = Identity::parse(name.identity()) else { return RunResult::NothingToRun };
    match crate::bus::read::with_identity(&*bus.store, &identity).await {
        Ok(copies) if copies.iter().any(|copy| copy != name) => return RunResult::NothingToRun,
        Ok(_) => {}
        Err(error) => return RunResult::Unreadable(error.into()),
    }
    match crate::bus::read::is_in_later_segment(bus, name.identity(), name.time()).await {
        Ok(true) => RunResult::NothingToRun,
        Ok(false) => RunResult::Gone,
        Err(error) => RunResult::Unreadable(error.into()),
    }
}

/// A redriven letter that holds no event cannot be run; one that was removed need not be.
async fn gone_from_dead_letter(bus: &BusHandle, group: &GroupName, dead_letter: &str) -> RunResult {
    match dead_letter::read(bus, group, dead_letter).await {
        Ok(Some(_)) => RunResult::Gone,
        Ok(None) => RunResult::NothingToRun,
        Err(error) => RunResult::Unreadable(error.into()),
    }
}

/// What becomes of an event that the group does not want.
async fn unwanted(task: &Task, event: &Event) -> Option<RunResult> {
    let filter = &task.group_store.filter;
    let result = if filter.is_slow(event) {
        let (filter, event) = (Filter::clone(filter), event.clone());
        let broken_off = || FilterResult::CannotEvaluate("the answer broke off".to_owned());
        threads::run(move || filter.evaluate(&event)).await.unwrap_or_else(broken_off)
    } else {
        filter.evaluate(event)
    };
    if result == FilterResult::Wanted {
        return None;
    }
    // Before it was emitted, the group may have been changed to want it.
    match task.group_store.redefined(task.listed_at).await {
        Ok(Some(registered)) => return Some(RunResult::Redefined(registered.into())),
        Ok(None) => {}
        Err(error) => return Some(RunResult::Unreadable(error.into())),
    }
    Some(match result {
        FilterResult::Wanted => return None,
        FilterResult::OtherType => RunResult::NothingToRun,
        FilterResult::DoesNotHold => RunResult::Skipped(None),
        FilterResult::NoAnswer(why) => RunResult::Skipped(Some(why)),
        FilterResult::CannotEvaluate(why) => RunResult::Unparsable(format!("cannot be judged: {why}")),
    })
}

/// What a handler is told: of the event, and of the run.
#[derive(Debug)]
struct EventVars {
    task: Rc<Task>,
    event: Bytes,
    name: EventName,
    attempt: u32,
}

impl JobVars for EventVars {
    fn list(&self) -> Vec<Var> {
        let mut vars =
            Event::parse(&self.event, usize::MAX).map_or_else(|_| Vec::new(), |event| event_vars(&event, &self.name));
        let task = &self.task;
        vars.extend([
            ("EVBUS_GROUP", task.group_store.group.to_string().into()),
            ("EVBUS_ATTEMPT", self.attempt.to_string().into()),
            ("EVBUS_MAX_ATTEMPTS", task.max_attempts.to_string().into()),
            ("EVBUS_EPOCH", task.epoch.to_string().into()),
            ("EVBUS_URL", task.url.to_string().into()),
        ]);
        vars
    }

    fn keep_common(&self, vars: &mut Vec<Var>, is_like: bool) {
        let task = &self.task;
        // Of events that are alike most variables differ not at all, or were dropped at the second one.
        let own = OnceCell::new();
        vars.retain(|(name, value)| match *name {
            "EVBUS_TYPE" | "EVBUS_SOURCE" | "EVBUS_SUBJECT" | "EVBUS_KEY" if is_like => true,
            "EVBUS_GROUP" => *value == *task.group_store.group.as_str(),
            "EVBUS_ATTEMPT" => parses_to(value, self.attempt),
            "EVBUS_MAX_ATTEMPTS" => parses_to(value, task.max_attempts),
            "EVBUS_URL" => *value == *task.url,
            _ => own.get_or_init(|| self.list()).iter().any(|(own, its)| own == name && its == value),
        });
    }
}

fn parses_to(text: &OsStr, number: u32) -> bool {
    text.to_str().is_some_and(|text| text.parse() == Ok(number))
}

/// What a handler is told of its event.
pub(crate) fn event_vars(event: &Event, name: &EventName) -> Vec<Var> {
    let time = event.time().map_or_else(|| name.time().to_rfc3339(), str::to_owned);
    // The CloudEvents extension "Distributed Tracing", under the names that tracing tools expect in
    // a process.
    let trace = [("TRACEPARENT", "traceparent"), ("TRACESTATE", "tracestate")];
    let trace = trace.into_iter().filter_map(|(name, of)| Some((name, event.attribute(of)?.into_owned())));
    let vars = [
        ("EVBUS_ID", event.id().to_owned()),
        ("EVBUS_TYPE", event.type_().to_owned()),
        ("EVBUS_SOURCE", event.source().to_owned()),
        ("EVBUS_SUBJECT", event.subject().unwrap_or_default().to_owned()),
        ("EVBUS_TIME", time),
        ("EVBUS_KEY", event.ordering_key().unwrap_or_default().to_owned()),
        ("EVBUS_DEPTH", event.attribute("causationdepth").unwrap_or("0".into()).into_owned()),
        ("EVBUS_CORRELATIONID", event.attribute("correlationid").unwrap_or(event.id().into()).into_owned()),
    ];
    let texts = vars.into_iter().chain(trace).map(|(name, value)| (name, value.into()));
    texts.chain(path_var(event)).collect()
}

/// The path of the file that an event of a source tells of (see `source.rs`).
fn path_var(event: &Event) -> Option<Var> {
    #[derive(serde::Deserialize)]
    struct FileData {
        path: String,
        path_base64: Option<String>,
    }
    if !event.source().starts_with("/sources/") {
        return None;
    }
    let Data::Json(data) = event.data() else { return None };
    let file: FileData = serde_json::from_str(data.get()).ok()?;
    let bytes = file.path_base64.and_then(|text| Data::Base64(text).bytes());
    Some(("EVBUS_PATH", bytes.map_or_else(|| file.path.into(), OsStringExt::from_vec)))
}

/// Runs the `on_dead` command for a new dead letter, which gets the event as any handler does. A
/// failure changes nothing and is reported; the command is not run again.
pub(super) async fn run_on_dead(
    bus: &BusHandle,
    group: &GroupName,
    name: &EventName,
    pending: &PendingEvent,
    url: String,
    on_dead: &dyn Handler,
) -> Result<(), String> {
    let dead_letter = pending.new_dead_letter.clone().unwrap_or_default();
    let found = dead_letter::read(bus, group, &dead_letter).await.map_err(|error| error.to_string())?;
    let Some(found) = found else { return Ok(()) };
    let bytes = found.event_bytes().unwrap_or_default();
    let mut vars = Event::parse(&bytes, usize::MAX).map_or_else(|_| Vec::new(), |event| event_vars(&event, name));
    vars.extend([
        ("EVBUS_GROUP", group.to_string().into()),
        ("EVBUS_URL", url.into()),
        ("EVBUS_ATTEMPT", found.attempts.to_string().into()),
        ("EVBUS_DEAD_LETTER", dead_letter.into()),
        ("EVBUS_DEAD_WHY", found.why.replace(char::is_control, " ").into()),
        ("EVBUS_DEAD_EXIT", found.exit.map_or_else(String::new, |code| code.to_string()).into()),
    ]);
    let (file, permit) = (name.text(), Permit::new(|| true));
    let job = Job { event: bytes.into(), file, vars: Rc::new(vars), likeness: None, attempt: 1, epoch: 0, permit };
    let report = on_dead.run(job).await;
    if report.succeeded() { Ok(()) } else { Err(report.why()) }
}

/// A hash of the key by which the latest event is told. None: the event has none, or the group does not want it, or it is
/// gone; then it is run for itself, which shows which.
pub(super) async fn latest_key(
    store: &GroupStore,
    name: &EventName,
    dead_letter: Option<&str>,
    max_event_bytes: usize,
    by: &LatestKey,
) -> StoreResult<Option<u64>> {
    let bytes = match content::read(&store.bus, &store.group, name, dead_letter, max_event_bytes).await {
        Err(error) if error.kind() == ErrorKind::Damaged => return Ok(None),
        bytes => bytes?,
    };
    let event = bytes.and_then(|bytes| Event::parse(&bytes, max_event_bytes).ok()).filter(|event| name.fits(event));
    let Some(event) = event else { return Ok(None) };
    let (filter, by) = (Filter::clone(&store.filter), by.clone());
    let is_slow = filter.is_slow(&event) || by.is_slow(&event);
    let key = move || (filter.evaluate(&event) == FilterResult::Wanted).then(|| by.of(&event)).flatten();
    Ok(if is_slow { threads::run(key).await.flatten() } else { key() })
}

/// A hash of an event's ordering key. Without a key, or if the event cannot be parsed, a hash of
/// its identity, which no other event has. None if the event is gone.
pub(super) async fn ordering_key(
    bus: &BusHandle,
    group: &GroupName,
    name: &EventName,
    dead_letter: Option<&str>,
    max_event_bytes: usize,
) -> StoreResult<Option<u64>> {
    let bytes = match content::read(bus, group, name, dead_letter, max_event_bytes).await {
        Err(error) if error.kind() == ErrorKind::Damaged => Some(Bytes::new()),
        bytes => bytes?,
    };
    let Some(bytes) = bytes else { return Ok(None) };
    let event = Event::parse(&bytes, max_event_bytes).ok();
    let mut hasher = DefaultHasher::new();
    match event.as_ref().and_then(Event::ordering_key) {
        Some(key) => (0u8, key).hash(&mut hasher),
        None => (1u8, name.identity()).hash(&mut hasher),
    }
    Ok(Some(hasher.finish()))
}
