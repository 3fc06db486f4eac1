//! What has become of one event in a group.

use super::GroupStatus;
use crate::bus::BusHandle;
use crate::event::{Condition, Event, EventName, EventTime, FilterResult, NameMatch};
use crate::group::dead_letter::{self, DeadLetter};
use crate::group::marker::PendingEvent;
use crate::store::{StoreError, StoreResult};

/// What has become of an event in a group.
#[derive(Debug, Clone)]
pub enum EventState {
    /// It is run to success, or was none of the group's business.
    Done,
    /// The group does not want it; why, if not for its type.
    NotWanted(Option<String>),
    /// The group's condition cannot be asked: it dies at once; why.
    Unanswerable(String),
    /// It was given up; its letter, if that can be read.
    Dead(Option<Box<DeadLetter>>),
    /// Its letter is being written.
    Dying,
    /// An attempt has failed.
    Retrying {
        /// Counted attempts.
        attempts: u32,
        /// How the last one ended.
        why: String,
        /// When the next one is due.
        next: Option<EventTime>,
    },
    /// A dead letter of it was put back to work.
    Redriven,
    /// It runs, or is about to; the host and process id of its worker.
    Running(Option<(String, u32)>),
    /// It waits.
    Waiting {
        /// Whether the group is paused.
        paused: bool,
    },
    /// The group started behind it.
    NotReached,
    /// The group's files cannot be read.
    Damaged(StoreError),
}

impl GroupStatus {
    /// What has become of an event; `event` is none if its document cannot be read.
    ///
    /// # Errors
    /// The store's.
    pub async fn event_state(
        &self,
        bus: &BusHandle,
        name: &EventName,
        event: Option<&Event>,
    ) -> StoreResult<EventState> {
        if let Some(dead_letter) = self.dead_letter_of(name) {
            let dead_letter = dead_letter::readable(bus, &self.group, dead_letter).await?;
            return Ok(EventState::Dead(dead_letter.map(Box::new)));
        }
        Ok(self.excluded(event).unwrap_or_else(|| self.state_of(name)))
    }

    /// The event's newest dead letter that is still there.
    fn dead_letter_of(&self, name: &EventName) -> Option<&String> {
        self.dead_letters.iter().rev().find(|dead_letter| dead_letter.starts_with(name.stem()))
    }

    /// How the group's condition excludes the event; none if it does not.
    fn excluded(&self, event: Option<&Event>) -> Option<EventState> {
        let filter = self.definition.as_ref()?.filter(&self.group).ok()?;
        let condition = filter.condition.as_ref().map(Condition::as_str)?;
        match filter.evaluate(event?) {
            FilterResult::Wanted | FilterResult::OtherType => None,
            FilterResult::DoesNotHold => Some(EventState::NotWanted(Some(format!("'{condition}' does not hold")))),
            FilterResult::CannotEvaluate(why) => Some(EventState::Unanswerable(why)),
            FilterResult::NoAnswer(why) => {
                Some(EventState::NotWanted(Some(format!("'{condition}' has no answer: {why}"))))
            }
        }
    }

    fn state_of(&self, name: &EventName) -> EventState {
        let open = self.markers.iter().find_map(|marker| marker.pending.get(name));
        let started_behind = self.definition.as_ref().is_some_and(|definition| definition.start.covers(name));
        let paused = self.definition.as_ref().is_some_and(|definition| definition.paused.is_some());
        if let Some(error) = &self.damage {
            return EventState::Damaged(error.clone());
        }
        match open {
            _ if self.wants(name.slug()) == NameMatch::No => EventState::NotWanted(None),
            Some(PendingEvent { new_dead_letter: Some(_), .. }) => EventState::Dying,
            Some(PendingEvent { why: Some(why), attempts, next, .. }) => {
                EventState::Retrying { attempts: *attempts, why: why.clone(), next: *next }
            }
            Some(PendingEvent { redriven_dead_letter: Some(_), .. }) => EventState::Redriven,
            Some(_) => {
                let by = self.running().find(|(running, _)| *running == name);
                EventState::Running(by.map(|(_, owner)| (owner.host.clone(), owner.pid)))
            }
            None if self.is_unprocessed(name) => EventState::Waiting { paused },
            None if started_behind => EventState::NotReached,
            None => EventState::Done,
        }
    }
}
