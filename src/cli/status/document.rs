//! Status as one JSON document.

use serde_json::{Value, json};

use super::{GroupRow, RelayRow, StatusReport};
use crate::cli::cost::dollars;
use crate::cli::schedules::ScheduleRow;
use crate::cli::sources::SourceRow;
use crate::event::EventTime;
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
        "relays": report.relays.iter().map(relay).collect::<Vec<_>>(),
        "schedules": report.schedules.iter().map(|row| schedule(row, report)).collect::<Vec<_>>(),
        "sources": report.sources.iter().map(source).collect::<Vec<_>>(),
        "groups": report.groups.iter().map(|row| group(row, report)).collect::<Vec<_>>(),
    })
}

fn relay(row: &RelayRow) -> Value {
    match &row.counts {
        Ok(counts) => json!({"name": row.name, "from": row.from, "rows": counts.waiting, "parked": counts.parked}),
        Err(error) => json!({"name": row.name, "from": row.from, "error": error}),
    }
}

fn schedule(row: &ScheduleRow, report: &StatusReport) -> Value {
    json!({
        "name": row.name,
        "type": row.type_,
        "rule": row.rule,
        "next": row.next.map(EventTime::to_rfc3339),
        "late": row.late.map(|late| report.now.minus(late).to_rfc3339()),
        "error": row.error,
    })
}

fn source(row: &SourceRow) -> Value {
    json!({"name": row.name, "type": row.type_, "folder": row.place, "files": row.files, "error": row.error})
}

fn cost(made: Requests) -> Value {
    json!({
        "put": made.puts, "get": made.gets, "list": made.lists, "delete": made.deletes, "dollars": dollars(made),
    })
}

fn group(row: &GroupRow, report: &StatusReport) -> Value {
    let mut document = row.status.document(row.state, &row.lag, row.rate, report.now);
    document["cost"] = cost(row.cost());
    document
}
