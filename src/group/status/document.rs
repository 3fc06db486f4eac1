//! A group's status as JSON.

use serde_json::{Value, json};

use super::{GroupState, GroupStatus, Lag, Owned};
use crate::event::{EventName, EventTime, id_of};
use crate::group::lease::Process;
use crate::group::marker::PendingEvent;
use crate::group::owner::process_of;

/// The most retries that are told one by one: a group whose handler always fails has a thousand.
const RETRIES: usize = 10;

impl GroupStatus {
    /// The status in JSON; `rate` in events a second, if it was measured.
    pub fn document(&self, state: GroupState, lag: &Lag, rate: Option<f64>, now: EventTime) -> Value {
        let definition = self.definition.as_ref();
        let retrying = self.retrying();
        let retry = |(name, pending): &(&EventName, &PendingEvent)| {
            json!({
                "id": id_of(name),
                "type": name.slug(),
                "attempts": pending.attempts,
                "next": pending.next.map(EventTime::to_rfc3339),
                "why": pending.why,
            })
        };
        let owner = |owned: &Owned| {
            json!({
                "shard": owned.shard,
                "host": owned.owner.host,
                "pid": owned.owner.pid,
                "since": owned.owner.since.to_rfc3339(),
                "gone": process_of(&owned.owner) == Process::Gone,
            })
        };
        json!({
            "group": self.group,
            "state": state.as_str(),
            "lag": lag.events,
            "oldest": lag.oldest.map(EventTime::to_rfc3339),
            "lag_seconds": lag.oldest.map(|oldest| now.since(oldest).as_secs_f64()),
            "retrying": retrying.len(),
            "retries": retrying.iter().take(RETRIES).map(retry).collect::<Vec<_>>(),
            "dead": self.dead_letters.len(),
            "rate": rate,
            "shards": definition.map(|definition| definition.shards),
            "requests": self.requests,
            "unanswered": self.unanswered(),
            "superseded": self.superseded(),
            "owners": self.owners.iter().map(owner).collect::<Vec<_>>(),
            "paused": definition.and_then(|definition| definition.paused.as_ref()).map(|paused| json!({
                "since": paused.since.to_rfc3339(),
                "why": paused.why,
            })),
            "damage": self.damage.as_ref().map(ToString::to_string),
        })
    }
}
