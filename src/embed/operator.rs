//! What operators see and do: the groups with their last hour, dead letters, an event in every group.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::thread::ThreadState;
use super::{Bus, Error};
use crate::bus::{BusHandle, read};
use crate::event::{Event, EventName, EventTime, Identity, TypeFilter, parse_event_id};
use crate::group::operate;
use crate::group::owner::process_of;
use crate::group::status::{self, EventState, GroupStatus};
use crate::group::{GroupName, dead_letter};
use crate::store::{LARGEST_BYTES, StoreResult};

/// How far apart the points of the history are at least, and how many of them are kept: an hour.
const STEP: Duration = Duration::from_secs(10);
const POINTS: usize = 360;

/// Measured again for whoever asks after this time at the earliest.
const FRESH: Duration = Duration::from_secs(1);

/// Counting costs a listing: it is done for one part in so many of the time.
const PART: u32 = 20;

/// For how long it is measured after the last request.
const MEASURED: Duration = Duration::from_hours(1);

/// The most copies of an event that an id is asked for.
const COPIES: usize = 2;

/// What was measured of the groups.
#[derive(Default)]
pub(super) struct Overview {
    last: RefCell<Option<Measured>>,
    points: RefCell<VecDeque<Point>>,
    /// When the last request came.
    asked_at: Cell<Duration>,
    is_followed: Cell<bool>,
    /// One measures at a time.
    turn: tokio::sync::Mutex<()>,
}

/// The groups at a moment.
struct Measured {
    at: Duration,
    took: Duration,
    groups: Vec<Value>,
    counts: HashMap<GroupName, Counts>,
}

/// What the next rate is measured by.
struct Counts {
    /// Events behind this time are counted.
    after: EventTime,
    wanted: u64,
    left: u64,
}

/// A point of the history.
struct Point {
    at: Duration,
    time: EventTime,
    groups: Vec<(GroupName, [Option<f64>; 4])>,
}

/// The series of the history, in the order of a point's values.
const SERIES: [&str; 4] = ["lag", "rate", "retrying", "dead"];

impl Overview {
    /// Measures, unless that was done a moment ago.
    async fn measure(&self, bus: &BusHandle) -> StoreResult<()> {
        let _turn = self.turn.lock().await;
        let begun = bus.clock.elapsed();
        if let Some(last) = &*self.last.borrow()
            && begun < last.at + FRESH.max(last.took * PART)
        {
            return Ok(());
        }
        let statuses = status::all(bus).await?;
        let floors: Vec<EventTime> = statuses.iter().map(|status| status.floor().time()).collect();
        let after: Vec<EventTime> = {
            let last = self.last.borrow();
            let counts = |status: &GroupStatus| last.as_ref()?.counts.get(&status.group).map(|counts| counts.after);
            statuses.iter().zip(&floors).map(|(status, floor)| counts(status).unwrap_or(*floor)).collect()
        };
        let tally = status::tally(bus, &statuses, &after).await?;
        let again = if after == floors { None } else { Some(status::tally(bus, &statuses, &floors).await?) };
        let (now, at) = (bus.clock.now(), bus.clock.elapsed());
        let mut measured = Measured { at, took: at.saturating_sub(begun), groups: Vec::new(), counts: HashMap::new() };
        let mut point = Point { at, time: now, groups: Vec::new() };
        let wanted: Vec<u64> = again.as_ref().unwrap_or(&tally).lags().map(|lag| lag.wanted).collect();
        let last = self.last.take();
        for (((status, lag), after), wanted) in statuses.iter().zip(tally.lags()).zip(floors).zip(wanted) {
            let rate = last.as_ref().and_then(|last| {
                let before = last.counts.get(&status.group)?;
                let done = (before.left + lag.wanted).checked_sub(before.wanted + lag.events)?;
                Some(per_second(done, at.saturating_sub(last.at)))
            });
            let state = status.state(&lag, process_of);
            let mut document = status.document(state, &lag, rate, now);
            if let Some(definition) = &status.definition {
                document["types"] = json!(definition.types);
                document["not"] = json!(definition.not);
                document["where"] = json!(definition.condition);
            }
            let number = |key: &str| document[key].as_f64();
            point.groups.push((status.group.clone(), SERIES.map(number)));
            measured.groups.push(document);
            measured.counts.insert(status.group.clone(), Counts { after, wanted, left: lag.events });
        }
        *self.last.borrow_mut() = Some(measured);
        let mut points = self.points.borrow_mut();
        if points.back().is_none_or(|last| at >= last.at + STEP) {
            points.push_back(point);
            let over = points.len().saturating_sub(POINTS);
            points.drain(..over);
        }
        Ok(())
    }

    fn document(&self, now: EventTime) -> Value {
        let points = self.points.borrow();
        let times: Vec<String> = points.iter().map(|point| point.time.to_rfc3339()).collect();
        let mut groups: BTreeMap<String, Vec<Vec<Value>>> = BTreeMap::new();
        for (place, point) in points.iter().enumerate() {
            for (group, values) in &point.groups {
                let series = groups.entry(group.to_string()).or_insert_with(|| {
                    // It was not there before.
                    vec![vec![Value::Null; place]; SERIES.len()]
                });
                for (series, value) in series.iter_mut().zip(values) {
                    series.resize(place, Value::Null);
                    series.push(json!(value));
                }
            }
        }
        let named = |series: Vec<Vec<Value>>| -> Value {
            let named: Map<String, Value> =
                SERIES.iter().zip(series).map(|(name, values)| ((*name).to_owned(), Value::from(values))).collect();
            named.into()
        };
        let history: Map<String, Value> = groups.into_iter().map(|(group, series)| (group, named(series))).collect();
        json!({
            "time": now.to_rfc3339(),
            "groups": self.last.borrow().as_ref().map_or_else(Vec::new, |last| last.groups.clone()),
            "history": { "times": times, "groups": history },
        })
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
fn per_second(events: u64, span: Duration) -> f64 {
    events as f64 / span.as_secs_f64().max(0.001)
}

impl Bus {
    /// The groups in JSON, each with its last hour as far as it was measured: that begins with the first
    /// call.
    ///
    /// # Errors
    /// The store does not answer.
    pub(crate) async fn overview(&self) -> Result<Value, Error> {
        let document = self
            .thread
            .call(|local| {
                Box::pin(async move {
                    let (overview, bus) = (&local.overview, &local.bus.handle);
                    overview.asked_at.set(bus.clock.elapsed());
                    overview.measure(bus).await?;
                    Ok::<_, Error>(overview.document(bus.clock.now()))
                })
            })
            .await??;
        self.thread.run(|local| Box::pin(async move { local.measure_on().await }))?;
        Ok(document)
    }

    /// The newest dead letters of a group, and how many there are; of these types alone.
    ///
    /// # Errors
    /// There is no such group, or the store does not answer.
    pub(crate) async fn dead_letters(
        &self,
        group: GroupName,
        types: Option<TypeFilter>,
        most: usize,
    ) -> Result<Value, Error> {
        self.thread
            .call(move |local| {
                Box::pin(async move {
                    let bus = &local.bus.handle;
                    let status = group_status(bus, &group).await?;
                    let mut shown = Vec::new();
                    for name in status.dead_letters.iter().rev() {
                        let found = dead_letter::readable(bus, &group, name).await?;
                        let type_ = found.as_ref().map_or("", |found| found.name.slug());
                        if types.as_ref().is_none_or(|types| types.matches(type_)) {
                            shown.push(dead_letter::document(&group, name, found.as_ref(), true));
                        }
                        if shown.len() >= most {
                            break;
                        }
                    }
                    Ok(json!({ "group": group, "count": status.dead_letters.len(), "letters": shown }))
                })
            })
            .await?
    }

    /// Puts dead letters of a group back to work; none: all. Returns how many.
    ///
    /// # Errors
    /// There is no such group, or the store does not answer.
    pub(crate) async fn redrive(&self, group: GroupName, dead_letters: Option<Vec<String>>) -> Result<usize, Error> {
        self.thread
            .call(move |local| {
                Box::pin(async move {
                    let bus = &local.bus.handle;
                    let status = group_status(bus, &group).await?;
                    let chosen = match dead_letters {
                        None => status.dead_letters.clone(),
                        Some(names) => {
                            status.dead_letters.iter().filter(|name| names.contains(name)).cloned().collect()
                        }
                    };
                    Ok(operate::redrive(bus, &status, &chosen).await?.dead_letters.len())
                })
            })
            .await?
    }

    /// Pauses a group, or lets it go on; whether that is a change.
    ///
    /// # Errors
    /// There is no such group, or the store does not answer.
    pub(crate) async fn set_paused(&self, group: GroupName, paused: bool, why: Option<String>) -> Result<bool, Error> {
        self.thread
            .call(move |local| {
                Box::pin(async move {
                    let changed = operate::set_paused(&local.bus.handle, &group, paused, why.as_deref()).await?;
                    changed.ok_or(Error::NoGroup { group: group.to_string() })
                })
            })
            .await?
    }

    /// An event and what has become of it in every group; none if there is none of these types.
    ///
    /// # Errors
    /// The store does not answer.
    pub(crate) async fn event_states(
        &self,
        source: String,
        id: String,
        types: Option<TypeFilter>,
    ) -> Result<Option<Value>, Error> {
        self.thread
            .call(move |local| {
                Box::pin(async move {
                    let bus = &local.bus.handle;
                    let Some((name, event, document)) = find_event(bus, &source, &id).await? else { return Ok(None) };
                    if types.is_some_and(|types| !types.matches(event.type_())) {
                        return Ok(None);
                    }
                    let mut groups = Vec::new();
                    for status in status::all(bus).await? {
                        let state = status.event_state(bus, &name, Some(&event)).await?;
                        groups.push(state_document(&status.group, &state));
                    }
                    let event: Value = serde_json::from_slice(&document).unwrap_or(Value::Null);
                    Ok(Some(json!({ "event": event, "name": name, "groups": groups })))
                })
            })
            .await?
    }
}

impl ThreadState {
    /// Measures for as long as requests have come in the last hour.
    async fn measure_on(&self) {
        let (overview, clock) = (&self.overview, &self.bus.handle.clock);
        if overview.is_followed.replace(true) {
            return;
        }
        while clock.elapsed() < overview.asked_at.get() + MEASURED {
            clock.sleep_until(clock.elapsed() + STEP).await;
            // What cannot be measured now is a gap in the history.
            let _ = overview.measure(&self.bus.handle).await;
        }
        overview.is_followed.set(false);
    }
}

async fn group_status(bus: &BusHandle, group: &GroupName) -> Result<GroupStatus, Error> {
    status::read(bus, group).await?.ok_or(Error::NoGroup { group: group.to_string() })
}

/// The event with this source and id, and its name and document.
async fn find_event(bus: &BusHandle, source: &str, id: &str) -> StoreResult<Option<(EventName, Event, Vec<u8>)>> {
    let mut names = match parse_event_id(id) {
        Some(_) => read::find(bus, id, COPIES).await?,
        None => Vec::new(),
    };
    if names.is_empty() {
        names = read::with_identity(&*bus.store, &Identity::named(source, id)).await?;
    }
    for name in names.into_iter().rev() {
        let Some(document) = read::document(bus, &name, LARGEST_BYTES).await? else { continue };
        let event = Event::parse(&document, usize::MAX).ok();
        if let Some(event) = event.filter(|event| event.id() == id && event.source() == source) {
            return Ok(Some((name, event, document.to_vec())));
        }
    }
    Ok(None)
}

fn state_document(group: &GroupName, state: &EventState) -> Value {
    let (word, rest) = match state {
        EventState::Done => ("done", json!({})),
        EventState::NotWanted(why) => ("not wanted", json!({ "why": why })),
        EventState::Unanswerable(why) => ("dead", json!({ "why": why })),
        EventState::Dead(dead_letter) => (
            "dead",
            json!({
                "why": dead_letter.as_ref().map(|dead_letter| &dead_letter.why),
                "attempts": dead_letter.as_ref().map(|dead_letter| dead_letter.attempts),
            }),
        ),
        EventState::Dying => ("dead", json!({ "why": "its letter is being written" })),
        EventState::Retrying { attempts, why, next } => {
            ("retrying", json!({ "why": why, "attempts": attempts, "next": next.map(EventTime::to_rfc3339) }))
        }
        EventState::Redriven => ("waiting", json!({ "why": "redriven" })),
        EventState::Running(by) => {
            ("running", json!({ "why": by.as_ref().map(|(host, pid)| format!("on {host}:{pid}")) }))
        }
        EventState::Waiting { paused } => ("waiting", json!({ "why": paused.then_some("the group is paused") })),
        EventState::NotReached => ("not reached", json!({ "why": "the group started behind it" })),
        EventState::Damaged(error) => ("damaged", json!({ "why": error.to_string() })),
    };
    let mut document = json!({ "group": group, "state": word });
    if let (Some(document), Value::Object(rest)) = (document.as_object_mut(), rest) {
        document.extend(rest.into_iter().filter(|(_, value)| !value.is_null()));
    }
    document
}
