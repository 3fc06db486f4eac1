//! One event through its handler: read it, run the command, and what the outcome means.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::definition::Registered;
use super::lease::Lease;
use super::marker::{Open, Verdict};
use super::ops::Desk;
use super::retry::Retry;
use super::shard::Launch;
use super::{GroupName, letter};
use crate::bus::Place;
use crate::clock::Clock;
use crate::event::{Event, EventName, EventTime, Judgement};
use crate::handler::{EventFile, Handler, Job, Outcome, Permit, Report};
use crate::store::{StoreError, StoreResult};

/// What a run needs besides its event.
pub(super) struct Task {
    pub desk: Desk,
    /// When the last listing ended that may have shown the event.
    pub listed_at: Duration,
    pub handler: Rc<dyn Handler>,
    pub epoch: u64,
    pub max_attempts: u32,
    pub max_event_bytes: usize,
    pub url: String,
    pub tenure: Tenure,
}

/// Whether the owner may still start handlers; follows its commits, and pauses of its group.
pub(super) struct Tenure {
    pub lease: Lease,
    /// When the last successful commit was sent.
    pub commit_sent: Rc<Cell<Duration>>,
    pub pausing: Rc<Cell<bool>>,
}

impl Tenure {
    fn permit(&self, clock: Rc<dyn Clock>) -> Permit {
        let (lease, commit_sent, pausing) = (self.lease, Rc::clone(&self.commit_sent), Rc::clone(&self.pausing));
        Permit::new(move || !pausing.get() && lease.may_start(commit_sent.get(), clock.elapsed()))
    }
}

/// What became of an event that was started.
#[derive(Debug)]
pub(super) enum Ran {
    /// Its emitter has moved or retention has removed it, or its type is not wanted after all.
    NotMine,
    /// The group's condition does not hold for it; or why that cannot be said.
    PassedOver(Option<String>),
    /// The group did not want it, and wants something else since.
    Redefined(Registered),
    /// Its content cannot be parsed.
    Unparseable(String),
    /// Its content cannot be read now.
    Unreadable(StoreError),
    /// Its handler ran.
    Reported(Report),
}

impl Ran {
    /// The handler's own report, if it ran.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Reported(report) => Some(report),
            _ => None,
        }
    }
}

/// Runs one event.
pub(super) async fn run(task: Task, launch: Launch) -> Ran {
    let Desk { place, group, wants, .. } = &task.desk;
    let bytes = match letter::event_bytes(place, group, &launch.name, launch.letter.as_deref()).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ran::NotMine,
        Err(error) => return Ran::Unreadable(error),
    };
    let event = match Event::parse(&bytes, task.max_event_bytes) {
        Ok(event) => event,
        Err(error) => return Ran::Unparseable(error.to_string()),
    };
    let judgement = wants.judge(&event);
    if judgement != Judgement::Wanted {
        // Who emitted it may have told the group before that to want it.
        match task.desk.redefined(task.listed_at).await {
            Ok(Some(registered)) => return Ran::Redefined(registered),
            Ok(None) => {}
            Err(error) => return Ran::Unreadable(error),
        }
    }
    match judgement {
        Judgement::Wanted => {}
        Judgement::OtherType => return Ran::NotMine,
        Judgement::DoesNotHold => return Ran::PassedOver(None),
        Judgement::NoAnswer(why) => return Ran::PassedOver(Some(why)),
    }
    // Reading may have taken long: by now the shard may be somebody else's.
    let permit = task.tenure.permit(Rc::clone(&place.clock));
    if !permit.holds() {
        return Ran::Reported(Report::stopped());
    }
    let key = launch.name.key();
    // A redriven event may be in its letter only.
    let there = place.store.local_path(&key).filter(|path| launch.letter.is_none() || path.exists());
    let file = match there {
        Some(path) => EventFile::At(path),
        None => EventFile::Make(launch.name.to_string()),
    };
    let vars = vars(&task, &event, &launch);
    let job = Job { event: Arc::from(bytes), file, vars, tried: launch.attempt > 1, permit };
    Ran::Reported(task.handler.run(job).await)
}

fn vars(task: &Task, event: &Event, launch: &Launch) -> Vec<(&'static str, String)> {
    let mut vars = event_vars(event, &launch.name);
    vars.extend([
        ("EVBUS_GROUP", task.desk.group.to_string()),
        ("EVBUS_ATTEMPT", launch.attempt.to_string()),
        ("EVBUS_MAX_ATTEMPTS", task.max_attempts.to_string()),
        ("EVBUS_EPOCH", task.epoch.to_string()),
        ("EVBUS_URL", task.url.clone()),
    ]);
    vars
}

/// What a handler is told of its event.
fn event_vars(event: &Event, name: &EventName) -> Vec<(&'static str, String)> {
    let time = event.time().map_or_else(|| name.time().to_rfc3339(), str::to_owned);
    // CloudEvents distributed tracing extension: as tracing tools expect it of a process.
    let trace = [("TRACEPARENT", "traceparent"), ("TRACESTATE", "tracestate")];
    let trace = trace.into_iter().filter_map(|(name, of)| Some((name, event.attribute(of)?.into_owned())));
    let vars = [
        ("EVBUS_ID", event.id().to_owned()),
        ("EVBUS_TYPE", event.type_().to_owned()),
        ("EVBUS_SOURCE", event.source().to_owned()),
        ("EVBUS_SUBJECT", event.subject().unwrap_or_default().to_owned()),
        ("EVBUS_TIME", time),
        ("EVBUS_KEY", event.ordering_key().unwrap_or_default().to_owned()),
        ("EVBUS_CORRELATIONID", event.attribute("correlationid").unwrap_or(event.id().into()).into_owned()),
    ];
    vars.into_iter().chain(trace).collect()
}

/// Runs what is to be run for a new dead letter, with the event as any handler has it. Its failure changes nothing, and
/// is told; it is not run again.
pub(super) async fn mourn(
    place: &Place,
    group: &GroupName,
    name: &EventName,
    open: &Open,
    url: String,
    on_dead: &dyn Handler,
) -> Result<(), String> {
    let letter = open.dead.clone().unwrap_or_default();
    let found = letter::read(place, group, &letter).await.map_err(|error| error.to_string())?;
    let Some(found) = found else { return Ok(()) };
    let bytes = found.event_bytes().unwrap_or_default();
    let mut vars = Event::parse(&bytes, usize::MAX).map_or_else(|_| Vec::new(), |event| event_vars(&event, name));
    vars.extend([
        ("EVBUS_GROUP", group.to_string()),
        ("EVBUS_URL", url),
        ("EVBUS_ATTEMPT", found.attempts.to_string()),
        ("EVBUS_DEAD_LETTER", letter),
        ("EVBUS_DEAD_WHY", found.why.replace(char::is_control, " ")),
        ("EVBUS_DEAD_EXIT", found.exit.map_or_else(String::new, |code| code.to_string())),
    ]);
    let (file, permit) = (EventFile::Make(name.to_string()), Permit::new(|| true));
    let report = on_dead.run(Job { event: Arc::from(bytes), file, vars, tried: false, permit }).await;
    if report.succeeded() { Ok(()) } else { Err(report.why()) }
}

/// What a run means.
#[derive(Debug)]
pub(super) enum Judged {
    /// Its event has a verdict.
    Verdict(Verdict),
    /// It could not be read, which costs no attempt; why.
    Unread(String),
    /// The handler could not be started, for this event or any other, which costs no attempt; why.
    NotStarted(String),
}

/// Judges a run. Pure: time and chance are handed in.
pub(super) fn judge(ran: Ran, name: &EventName, attempt: u32, retry: &Retry, now: EventTime, random: u64) -> Judged {
    let report = match ran {
        Ran::NotMine | Ran::PassedOver(_) => return Judged::Verdict(Verdict::Done),
        Ran::Redefined(_) => return Judged::Verdict(Verdict::Again),
        Ran::Unreadable(error) => return Judged::Unread(error.to_string()),
        Ran::Unparseable(why) => {
            let dead = dead(name, format!("the event {why}"), String::new(), None, random);
            return Judged::Verdict(dead);
        }
        Ran::Reported(report) => report,
    };
    let exit = match &report.outcome {
        Outcome::Exit(0) => return Judged::Verdict(Verdict::Done),
        Outcome::Stopped => return Judged::Verdict(Verdict::Again),
        Outcome::NotStarted(why) => return Judged::NotStarted(why.clone()),
        Outcome::Exit(code) => Some(*code),
        Outcome::Signal(_) | Outcome::TimedOut => None,
    };
    let why = report.why();
    let dead_at_once = exit.is_some_and(|code| retry.dead_on.contains(&code));
    Judged::Verdict(if dead_at_once || attempt >= retry.max_attempts {
        dead(name, why, report.stderr_tail, exit, random)
    } else {
        Verdict::Retry { next: now.plus(retry.pause(attempt, random)), why }
    })
}

fn dead(name: &EventName, why: String, stderr: String, exit: Option<i32>, random: u64) -> Verdict {
    Verdict::Dead { letter: letter::fresh_name(name, random), why, stderr, exit }
}

/// A hash of an event's ordering key; of its identity, which no other event has, if it has none or cannot be parsed.
/// None if the event is gone.
pub(super) async fn ordering_key(
    place: &Place,
    group: &GroupName,
    name: &EventName,
    letter: Option<&str>,
    max_event_bytes: usize,
) -> StoreResult<Option<u64>> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let bytes = letter::event_bytes(place, group, name, letter).await?;
    let Some(bytes) = bytes else { return Ok(None) };
    let event = Event::parse(&bytes, max_event_bytes).ok();
    let mut hasher = DefaultHasher::new();
    match event.as_ref().and_then(Event::ordering_key) {
        Some(key) => (0u8, key).hash(&mut hasher),
        None => (1u8, name.identity()).hash(&mut hasher),
    }
    Ok(Some(hasher.finish()))
}
