//! Schedules as they run: beside workers, or once.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::failure::Failure;
use super::output;
use super::session::{Opened, Session};
use super::style;
use super::times;
use crate::clock::Backoff;
use crate::group::worker::Stop;
use crate::recurring::{Recurring, SchedulePass, Scheduler};
use crate::store::StoreError;

/// The clock is looked at as often: a machine may have slept meanwhile, or its clock have been set.
const LOOK: Duration = Duration::from_secs(20);

/// The pauses of a schedule whose bus does not answer.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Serves a schedule beside the workers, until it is told to stop.
pub(super) async fn follow(schedule: &Recurring, opened: &Opened, session: &Session, mut stop: watch::Receiver<Stop>) {
    let (clock, bus) = (&*session.clock, opened.bus_handle());
    let mut scheduler = Scheduler::new(bus.clone(), schedule.clone());
    let (mut trouble, mut said) = (Backoff::new(PAUSES.0, PAUSES.1), String::new());
    let (mut next, mut last) = (None, clock.now());
    while *stop.borrow() == Stop::No {
        // A clock that was put back says nothing of what was to come.
        if clock.now() < std::mem::replace(&mut last, clock.now()) {
            next = None;
        }
        let pause = match next {
            Some(next) if clock.now() < next => next.since(clock.now()),
            _ => match scheduler.pass().await {
                Ok(pass) => {
                    if !std::mem::take(&mut said).is_empty() {
                        output::note(&format!("schedule '{}' goes on", schedule.name));
                        trouble = Backoff::new(PAUSES.0, PAUSES.1);
                    }
                    tell_missed(schedule, pass);
                    next = pass.next;
                    if next.is_none() { LOOK } else { Duration::ZERO }
                }
                Err(error) => {
                    report(schedule, &error, &mut said);
                    trouble.take()
                }
            },
        };
        if pause.is_zero() {
            continue;
        }
        tokio::select! { biased;
            changed = stop.changed() => if changed.is_err() { return },
            () = clock.sleep_until(clock.elapsed() + pause.min(LOOK)) => {}
        }
    }
}

fn report(schedule: &Recurring, error: &StoreError, said: &mut String) {
    let what = error.to_string();
    if what != *said {
        output::warn(&format!("schedule '{}' waits: {what}", schedule.name));
        *said = what;
    }
}

fn tell_missed(schedule: &Recurring, pass: SchedulePass) {
    if pass.missed > 0 {
        let missed = style::plural(pass.missed, "time");
        let verb = if pass.missed == 1 { "is" } else { "are" };
        let what = format!("schedule '{}': {missed} passed while nothing served it", schedule.name);
        output::note(&format!("{what}, and {verb} not made up for (see catch_up)"));
    }
}

/// Serves schedules once. Returns whether all went well.
pub(super) async fn once_all(schedules: &[Recurring], opened: &Opened, is_quiet: bool) -> bool {
    let mut all_well = true;
    for schedule in schedules {
        let mut scheduler = Scheduler::new(opened.bus_handle().clone(), schedule.clone());
        let clock = &*opened.bus_handle().clock;
        loop {
            match scheduler.pass().await {
                Ok(pass) => {
                    if !is_quiet {
                        tell_missed(schedule, pass);
                    }
                    if pass.next.is_none_or(|next| next > clock.now()) {
                        break;
                    }
                }
                Err(error) => {
                    all_well = false;
                    Failure::from(error).context(&format!("schedule '{}'", schedule.name)).report();
                    break;
                }
            }
        }
    }
    all_well
}

/// How a schedule stands, as it is shown.
pub(super) struct ScheduleRow {
    pub(super) name: String,
    pub(super) type_: String,
    pub(super) rule: String,
    pub(super) next: Option<crate::event::EventTime>,
    /// How long a time has waited to be served.
    pub(super) late: Option<Duration>,
    /// Why it is not known.
    pub(super) error: Option<String>,
}

/// A time that is this late is worth a word.
const LATE: Duration = Duration::from_secs(30);

/// The rows of schedules.
pub(super) async fn rows(schedules: &[Recurring], opened: &Opened) -> Vec<ScheduleRow> {
    let bus = opened.bus_handle();
    join_all(schedules.iter().map(|schedule| async move {
        let (state, error) = match schedule.state(bus).await {
            Ok(state) => (Some(state), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let late = state.and_then(|state| state.late).map(|due| bus.clock.now().since(schedule.put_off(due)));
        ScheduleRow {
            name: schedule.name.clone(),
            type_: schedule.type_.clone(),
            rule: schedule.rule.text(),
            next: state.and_then(|state| state.next),
            late,
            error,
        }
    }))
    .await
}

impl ScheduleRow {
    /// What is wrong with it.
    pub(super) fn trouble(&self) -> Option<String> {
        let late = self.late.filter(|late| *late >= LATE).map(|late| {
            format!("has been due for {}, and no watch or drain has served it", times::format_duration(late))
        });
        self.error.clone().or(late)
    }
}
