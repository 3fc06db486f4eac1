//! What operators see and do: all groups, their dead letters, an event in every group.

use std::rc::Rc;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::thread::ThreadState;
use super::{Bus, Error};
use crate::bus::{BusHandle, read};
use crate::clock::Fut;
use crate::event::{Event, EventName, EventTime, Identity, NameMatch, TypeFilter, parse_event_id};
use crate::group::dead_letter::{DeadLetter, Enclosed};
use crate::group::operate;
use crate::group::status::{self, EventState, GroupStatus};
use crate::group::{GroupName, dead_letter};
use crate::store::{LARGEST_BYTES, StoreResult};

/// The most bytes of dead letters that are shown together, but for a single one.
const LETTERS_BYTES: usize = 4 << 20;

/// The most copies of an event that an id is asked for.
const COPIES: usize = 2;

impl Bus {
    /// The groups in JSON, each with its last hour as far as it was measured: that begins with the first
    /// call.
    ///
    /// # Errors
    /// The store does not answer.
    pub(crate) async fn overview(&self) -> Result<Value, Error> {
        let document = self
            .thread
            .call(|local| Box::pin(async move { Ok::<_, Error>(local.overview.ask(&local.bus.handle).await?) }))
            .await??;
        self.thread.run(|local| Box::pin(async move { local.overview.follow(&local.bus.handle).await }))?;
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
    ) -> Result<String, Error> {
        #[derive(Serialize)]
        struct Letter {
            #[serde(flatten)]
            document: Value,
            stderr: String,
            event: Option<Box<RawValue>>,
        }
        #[derive(Serialize)]
        struct Letters {
            group: GroupName,
            count: usize,
            letters: Vec<Letter>,
        }
        let read = move |local: Rc<ThreadState>| -> Fut<'static, Result<Letters, Error>> {
            Box::pin(async move {
                let bus = &local.bus.handle;
                let status = group_status(bus, &group).await?;
                let (mut letters, mut bytes) = (Vec::new(), 0);
                for name in status.dead_letters.iter().rev() {
                    let event = dead_letter::event_of(name);
                    let slug = event.as_ref().map_or("", |event| event.slug());
                    if types.as_ref().is_some_and(|types| types.matches_slug(slug) != NameMatch::Yes) {
                        continue;
                    }
                    let found = dead_letter::readable(bus, &group, name).await?;
                    let document = dead_letter::document(&group, name, found.as_ref(), false);
                    let (stderr, event) = match found {
                        Some(DeadLetter { stderr, content: Enclosed::Event(raw), .. }) => (stderr, Some(raw)),
                        Some(DeadLetter { stderr, .. }) => (stderr, None),
                        None => (String::new(), None),
                    };
                    bytes += stderr.len() + event.as_ref().map_or(0, |event| event.get().len());
                    letters.push(Letter { document, stderr, event });
                    if letters.len() >= most || bytes >= LETTERS_BYTES {
                        break;
                    }
                }
                Ok(Letters { group, count: status.dead_letters.len(), letters })
            })
        };
        let letters = self.thread.call(read).await??;
        serde_json::to_string(&letters).map_err(Error::Data)
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
                    let status = operate::status_for_redrive(bus, &group).await?;
                    let status = status.ok_or(Error::NoGroup { group: group.to_string() })?;
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
