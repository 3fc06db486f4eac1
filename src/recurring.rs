//! Schedules: events that come by themselves, at the times of a cron expression or in a period.
//!
//! Every host with the same config serves a schedule, and each of its times becomes one event: its id is made of the
//! schedule's name and that time, so that what several hosts emit is one event. A register per schedule holds up to which
//! time it was served, so that nothing is emitted anew after retention has forgotten the ids, and that times which passed
//! while no host ran are known.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bus::emit::{AckKind, Draft, Emitter};
use crate::bus::{BusHandle, keys, to_json_line};
use crate::event::{Data, Event, EventError, EventTime};
use crate::store::{ErrorKind, StoreError, StoreResult, Swap, Version};

mod rule;

pub use rule::{Rule, RuleError};

/// How long a bus that does not answer is asked.
const TIMEOUT: Duration = Duration::from_secs(30);

/// With [`CatchUp::None`] a time that passed longer ago is not made up for.
pub const LATEST: Duration = Duration::from_mins(10);

/// A register that is further ahead of the clock than this was written by a wrong one.
const AHEAD: Duration = Duration::from_hours(1);

/// How many rules of one schedule are remembered.
const RULES: usize = 8;

/// The most times that one pass makes up for.
const MOST: usize = 1_000;

/// What becomes of times that have passed while no host served the schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// None of them is made up for, unless it is the last one and passed less than [`LATEST`] ago.
    None,
    /// The last one is.
    #[default]
    Last,
    /// All of them are, in their order.
    All,
}

/// An event that comes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recurring {
    /// Its name, by which all hosts know it.
    pub name: String,
    /// When it is due.
    pub rule: Rule,
    /// Each time is put off by up to so much, by the same for every host.
    pub jitter: Duration,
    /// What becomes of times that were missed.
    pub catch_up: CatchUp,
    /// The event's type.
    pub type_: String,
    /// The event's subject.
    pub subject: Option<String>,
    /// The event's data.
    pub data: Option<Data>,
}

/// What a schedule's register holds: up to which time each of its rules was served, by the rule's text. There are several
/// while hosts differ in their configs, or in their time zones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ServedRecord {
    served: BTreeMap<String, EventTime>,
}

impl ServedRecord {
    /// Up to when a rule was served; none where a wrong clock has written it.
    fn through(&self, rule: &str, now: EventTime) -> Option<EventTime> {
        self.served.get(rule).copied().filter(|through| *through <= now.plus(AHEAD))
    }

    /// The same, with a rule served up to a time; rules that were served longest ago are forgotten.
    fn with(&self, rule: String, through: EventTime) -> Self {
        let mut served = self.served.clone();
        served.insert(rule.clone(), through);
        while served.len() > RULES {
            let others = served.iter().filter(|(other, _)| **other != rule);
            let Some(oldest) = others.min_by_key(|(_, through)| **through).map(|(other, _)| other.clone()) else {
                break;
            };
            served.remove(&oldest);
        }
        Self { served }
    }
}

/// Times that have come.
struct Due {
    /// Those that become events, in their order.
    times: Vec<EventTime>,
    /// How many are passed over.
    missed: u64,
    /// The last one of all.
    through: EventTime,
}

/// What a pass has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulePass {
    /// Events that this host has emitted.
    pub emitted: u64,
    /// Times that were passed over.
    pub missed: u64,
    /// When the next time is due, put off as it is.
    pub next: Option<EventTime>,
}

/// How a schedule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleState {
    /// The first time that was not served, if it has passed.
    pub late: Option<EventTime>,
    /// The next time to come.
    pub next: Option<EventTime>,
}

impl Recurring {
    /// The event of a time.
    ///
    /// # Errors
    /// The type, the subject or the name is none that an event can have.
    pub fn event(&self, due: EventTime) -> Result<Event, EventError> {
        let time = due.to_rfc3339();
        let source = format!("/schedules/{}", self.name);
        let id = format!("{}@{}", self.name, time.replace(".000000Z", "Z"));
        let mut builder = Event::new(id, source, self.type_.as_str()).time(&time);
        if let Some(subject) = &self.subject {
            builder = builder.subject(subject);
        }
        if let Some(data) = &self.data {
            builder = builder.data(data.clone()).datacontenttype("application/json");
        }
        builder.build()
    }

    /// When the event of a time is to be emitted.
    pub fn put_off(&self, due: EventTime) -> EventTime {
        let micros = u64::try_from(self.jitter.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 {
            return due;
        }
        let mut hasher = DefaultHasher::new();
        (&self.name, due.as_micros()).hash(&mut hasher);
        due.plus(Duration::from_micros(hasher.finish() % micros))
    }

    /// How it stands on a bus.
    ///
    /// # Errors
    /// The bus does not answer.
    pub async fn state(&self, bus: &BusHandle) -> StoreResult<ScheduleState> {
        let now = bus.clock.now();
        let served = read(bus, &self.name).await?.and_then(|(record, _)| record.through(&self.rule.text(), now));
        let late = served.and_then(|through| self.rule.next_after(through));
        let late = late.filter(|due| self.put_off(*due) <= now);
        Ok(ScheduleState { late, next: self.rule.next_after(now) })
    }
}

async fn read(bus: &BusHandle, name: &str) -> StoreResult<Option<(ServedRecord, Version)>> {
    let key = keys::schedule(name);
    let Some(object) = bus.store.get(&key).await? else { return Ok(None) };
    let record = serde_json::from_slice(&object.bytes)
        .map_err(|error| StoreError::new(ErrorKind::Damaged, format!("{key} cannot be read: {error}")))?;
    Ok(Some((record, object.version)))
}

/// Serves one schedule onto one bus.
pub struct Scheduler {
    bus: BusHandle,
    emitter: Emitter,
    schedule: Recurring,
    /// Up to when this process has looked: from there on it serves a rule that is new.
    looked: EventTime,
}

impl Scheduler {
    /// One that serves a schedule from now on, or from where it was left.
    pub fn new(bus: BusHandle, schedule: Recurring) -> Self {
        let looked = bus.clock.now();
        Self { emitter: Emitter::new(bus.clone(), TIMEOUT), bus, schedule, looked }
    }

    /// The schedule.
    pub fn schedule(&self) -> &Recurring {
        &self.schedule
    }

    /// Emits what is due, and notes it.
    ///
    /// # Errors
    /// The bus does not take it, or does not answer: the next pass begins where this one did.
    pub async fn pass(&mut self) -> StoreResult<SchedulePass> {
        let mut pass = SchedulePass::default();
        loop {
            let now = self.bus.clock.now();
            let found = read(&self.bus, &self.schedule.name).await?;
            let rule = self.schedule.rule.text();
            let (known, version) = found.map_or((None, None), |(record, version)| (Some(record), Some(version)));
            let known = known.unwrap_or_default();
            // A clock that was put back has looked at nothing yet.
            self.looked = self.looked.min(now);
            let since = known.through(&rule, now).unwrap_or(self.looked);
            let due = self.due(since, now);
            let own = self.emit(&due.times).await?;
            let record = known.with(rule, due.through);
            if known != record {
                let key = keys::schedule(&self.schedule.name);
                let swapped = self.bus.store.cas(&key, version.as_ref(), &to_json_line(&record)).await?;
                if swapped == Swap::Conflict {
                    // Another host has served it meanwhile.
                    pass.emitted += own;
                    continue;
                }
            }
            pass.emitted += own;
            pass.missed += due.missed;
            self.looked = due.through;
            let next = self.schedule.rule.next_after(due.through);
            pass.next = next.map(|due| self.schedule.put_off(due));
            return Ok(pass);
        }
    }

    /// The times after `since` whose events are to be there by `now`.
    fn due(&self, since: EventTime, now: EventTime) -> Due {
        let (mut due, mut passed) = (Due { times: Vec::new(), missed: 0, through: since }, 0_u64);
        while let Some(next) = self.next_by(due.through, now) {
            if due.times.len() == MOST {
                break;
            }
            // Of very many times the last one is looked for from the other end.
            let is_long = self.schedule.catch_up != CatchUp::All && passed >= MOST as u64;
            let next = if is_long { self.last_by(next, now) } else { next };
            due.through = next;
            passed += 1;
            match self.schedule.catch_up {
                CatchUp::All => {}
                CatchUp::Last | CatchUp::None => due.times.clear(),
            }
            due.times.push(next);
        }
        let is_long_past = |due: &EventTime| now.since(self.schedule.put_off(*due)) > LATEST;
        if self.schedule.catch_up == CatchUp::None {
            due.times.retain(|due| !is_long_past(due));
        }
        due.missed = passed - u64::try_from(due.times.len()).unwrap_or(u64::MAX);
        due
    }

    /// The next time, if its event is to be there by `now`.
    fn next_by(&self, time: EventTime, now: EventTime) -> Option<EventTime> {
        self.schedule.rule.next_after(time).filter(|next| self.schedule.put_off(*next) <= now)
    }

    /// A time near the last one by `now`, which is not before `first`.
    fn last_by(&self, first: EventTime, now: EventTime) -> EventTime {
        let mut back = Duration::from_mins(1);
        while now.minus(back) > first {
            if let Some(found) = self.next_by(now.minus(back), now) {
                return found;
            }
            back *= 2;
        }
        first
    }

    /// Returns how many events are this host's own.
    async fn emit(&mut self, due: &[EventTime]) -> StoreResult<u64> {
        let mut own = 0;
        for due in due.chunks(self.emitter.batch()) {
            let drafts: Result<Vec<Draft>, EventError> =
                due.iter().map(|due| self.schedule.event(*due).map(Draft::named)).collect();
            let drafts = drafts.map_err(|error| StoreError::new(ErrorKind::Unfit, error.to_string()))?;
            let acks = self.emitter.emit(&drafts).await?;
            own += u64::try_from(acks.iter().filter(|ack| ack.kind == AckKind::New).count()).unwrap_or(u64::MAX);
        }
        Ok(own)
    }
}

#[cfg(test)]
mod tests;
