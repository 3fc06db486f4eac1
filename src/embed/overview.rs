//! The groups with their last hour.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::bus::BusHandle;
use crate::event::EventTime;
use crate::group::GroupName;
use crate::group::owner::process_of;
use crate::group::status::{self, GroupStatus};
use crate::store::StoreResult;

/// How far apart the points of the history are at least, and how many of them are kept: an hour.
const STEP: Duration = Duration::from_secs(10);
const POINTS: usize = 360;

/// Measured again for whoever asks after this time at the earliest; where requests cost, after a longer one.
const FRESH: Duration = Duration::from_secs(1);
const FRESH_CHARGED: Duration = Duration::from_secs(30);

/// Counting costs a listing: it is done for one part in so many of the time.
const PART: u32 = 20;

/// For how long it is measured after the last request.
const MEASURED: Duration = Duration::from_hours(1);

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
    /// The groups as they are now, with their last hour.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn ask(&self, bus: &BusHandle) -> StoreResult<Value> {
        self.asked_at.set(bus.clock.elapsed());
        self.measure(bus).await?;
        Ok(self.document(bus.clock.now()))
    }

    /// Measures for as long as it was asked in the last hour, unless that is done already.
    pub async fn follow(&self, bus: &BusHandle) {
        if self.is_followed.replace(true) {
            return;
        }
        let clock = &bus.clock;
        while clock.elapsed() < self.asked_at.get() + MEASURED {
            clock.sleep_until(clock.elapsed() + STEP).await;
            // What cannot be measured now is a gap in the history.
            let _ = self.measure(bus).await;
        }
        self.is_followed.set(false);
    }

    /// Measures, unless that was done a moment ago.
    async fn measure(&self, bus: &BusHandle) -> StoreResult<()> {
        let _turn = self.turn.lock().await;
        let begun = bus.clock.elapsed();
        let fresh = if bus.store.requests().is_some() { FRESH_CHARGED } else { FRESH };
        if let Some(last) = &*self.last.borrow()
            && begun < last.at + fresh.max(last.took * PART)
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
