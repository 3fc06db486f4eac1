//! Status as one JSON document.

use serde_json::{Value, json};

use super::{GroupRow, StatusReport};
use crate::cli::cost::dollars;
use crate::cli::reporter::id_of;
use crate::event::EventTime;
use crate::group::lease::Process;
use crate::group::owner::process_of;
use crate::store::Requests;

pub(super) fn document(report: &StatusReport) -> Value {
    json!({
        "bus": report.bus,
        "origin": report.origin,
        "time": report.now.to_rfc3339(),
        "events": report.events,
        "objects": report.objects,
        "emit_cost": cost(report.emit_cost()),
        "oldest": report.oldest.map(EventTime::to_rfc3339),
        "scheduled": report.scheduled.map(EventTime::to_rfc3339),
        "groups": report.groups.iter().map(|row| group(row, report)).collect::<Vec<_>>(),
    })
}

fn cost(made: Requests) -> Value {
    json!({
        "put": made.puts, "get": made.gets, "list": made.lists, "delete": made.deletes, "dollars": dollars(made),
    })
}

fn group(row: &GroupRow, report: &StatusReport) -> Value {
    let status = &row.status;
    let definition = status.definition.as_ref();
    let retrying = status.retrying();
    let retry = |(name, pending): &(&crate::event::EventName, &crate::group::marker::PendingEvent)| {
        json!({
            "id": id_of(name),
            "type": name.slug(),
            "attempts": pending.attempts,
            "next": pending.next.map(EventTime::to_rfc3339),
            "why": pending.why,
        })
    };
    let owner = |owned: &crate::group::status::Owned| {
        json!({
            "shard": owned.shard,
            "host": owned.owner.host,
            "pid": owned.owner.pid,
            "since": owned.owner.since.to_rfc3339(),
            "gone": process_of(&owned.owner) == Process::Gone,
        })
    };
    json!({
        "group": status.group,
        "state": row.state.as_str(),
        "lag": row.lag.events,
        "oldest": row.lag.oldest.map(EventTime::to_rfc3339),
        "lag_seconds": row.age(report.now).map(|age| age.as_secs_f64()),
        "retrying": retrying.len(),
        // Bounded: a group whose handler always fails has a thousand retries.
        "retries": retrying.iter().take(10).map(retry).collect::<Vec<_>>(),
        "dead": row.dead(),
        "rate": row.rate,
        "shards": definition.map(|definition| definition.shards),
        "requests": status.requests,
        "unanswered": status.unanswered(),
        "cost": cost(row.cost()),
        "owners": status.owners.iter().map(owner).collect::<Vec<_>>(),
        "paused": definition.and_then(|definition| definition.paused.as_ref()).map(|paused| json!({
            "since": paused.since.to_rfc3339(),
            "why": paused.why,
        })),
        "damage": status.damage.as_ref().map(ToString::to_string),
    })
}
