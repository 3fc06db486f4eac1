//! What `doctor` asks a PostgreSQL server: what it is, what it promises, and what holds it back.

use std::rc::Rc;

use super::{Finding, content, machine, settings, tried};
use crate::cli::session::Session;
use crate::cli::style;
use crate::store::postgres::{Database, PostgresStore, schema};
use crate::store::{StoreError, StoreResult};

pub(super) async fn findings(database: Database, session: &Session, shown: &str) -> Vec<Finding> {
    let name = database.schema.clone();
    let store = Rc::new(PostgresStore::new(database, Rc::clone(&session.clock), true));
    let bus = crate::bus::BusHandle::new(store.clone(), Rc::clone(&session.clock));
    let (first, found) = settings(&bus, shown).await;
    let mut findings = vec![first];
    if found.is_none() {
        return findings;
    }
    match looked_at(&store, &name).await {
        Ok(more) => findings.extend(more),
        Err(error) => findings.push(Finding::error("server", &error)),
    }
    let may_write = findings.iter().all(|finding| finding.what != "privileges" || finding.cure.is_none());
    if may_write {
        findings.extend(tried(&*bus.store, &bus).await);
    }
    findings.push(machine::open_files());
    findings.extend(content::findings(None, &bus).await);
    findings
}

/// One row of texts.
async fn texts(store: &PostgresStore, sql: &str) -> StoreResult<Vec<Option<String>>> {
    let rows = store.ask(sql).await?;
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    let text = |at| {
        row.try_get(at).map_err(|error: tokio_postgres::Error| {
            StoreError::new(crate::store::ErrorKind::Damaged, format!("column {at}: {error}"))
        })
    };
    (0..row.len()).map(text).collect()
}

async fn looked_at(store: &PostgresStore, name: &str) -> StoreResult<Vec<Finding>> {
    let quoted = schema::quoted(name);
    let server = texts(
        store,
        "SELECT current_setting('server_version'), current_setting('server_encoding'), \
         current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), \
         current_setting('fsync'), current_setting('full_page_writes'), current_setting('default_transaction_isolation'), \
         current_setting('max_connections'), (SELECT count(*)::text FROM pg_stat_activity), current_user::text",
    )
    .await?;
    let of = |at: usize| server.get(at).cloned().flatten().unwrap_or_default();
    let mut findings = vec![Finding::ok("server", format!("PostgreSQL {}, as {}, schema {name}", of(0), of(9)))];
    findings.push(match of(1).as_str() {
        "UTF8" => Finding::ok("encoding", "UTF8"),
        other => Finding::warn("encoding", format!("{other}: the view {name}.events may not be readable"))
            .cure("createdb --encoding UTF8 --template template0"),
    });
    findings.push(durability(&of(2), &of(3), &of(4), &of(5)));
    findings.push(privileges(store, &quoted).await?);
    findings.push(connections(&of(8), &of(7)));
    findings.push(vacuum(store, name).await?);
    findings.push(hints(store).await);
    Ok(findings)
}

/// Whether what is acknowledged outlasts a crash, and a failover.
fn durability(commit: &str, standbys: &str, fsync: &str, full_pages: &str) -> Finding {
    if fsync != "on" || full_pages != "on" {
        return Finding::fail("durability", format!("fsync = {fsync}, full_page_writes = {full_pages}"))
            .cure("set both to on in postgresql.conf: a power cut may destroy the whole database");
    }
    let replicated = match standbys {
        "" => "no synchronous standby: a failover may lose the last events".to_owned(),
        names => format!("synchronous standbys {names}"),
    };
    match commit {
        "off" => Finding::ok("durability", format!("synchronous_commit = off is overridden by evbus; {replicated}")),
        commit => Finding::ok("durability", format!("synchronous_commit = {commit}; {replicated}")),
    }
}

async fn privileges(store: &PostgresStore, quoted: &str) -> StoreResult<Finding> {
    let has = |table: &str, privilege: &str| {
        let table = format!("{quoted}.{table}");
        let (named, missing) = (schema::literal(&table), schema::literal(&format!("{privilege} on {table}")));
        format!("CASE WHEN NOT has_table_privilege({named}, '{privilege}') THEN {missing} END")
    };
    let all = [
        has("object", "SELECT"),
        has("object", "INSERT"),
        has("object", "DELETE"),
        has("register", "SELECT"),
        has("register", "INSERT"),
        has("register", "DELETE"),
    ];
    let missing: Vec<String> =
        texts(store, &format!("SELECT {}", all.join(", "))).await?.into_iter().flatten().collect();
    Ok(match missing.as_slice() {
        [] => Finding::ok("privileges", "read, write and delete"),
        missing => Finding::warn("privileges", format!("missing: {}", missing.join(", ")))
            .cure("a worker needs all of them; SECURITY.md has the roles"),
    })
}

fn connections(used: &str, most: &str) -> Finding {
    let detail = format!("{used} of {most} connections are in use; each worker has two");
    match (used.parse::<u32>(), most.parse::<u32>()) {
        (Ok(used), Ok(most)) if used.saturating_mul(10) >= most.saturating_mul(9) => {
            Finding::warn("connections", detail).cure("raise max_connections, or put a pooler before the server")
        }
        _ => Finding::ok("connections", detail),
    }
}

/// What keeps dead rows, and how many there are.
async fn vacuum(store: &PostgresStore, name: &str) -> StoreResult<Finding> {
    let literal = schema::literal(name);
    let found = texts(
        store,
        &format!(
            "SELECT (SELECT coalesce(sum(n_dead_tup), 0)::text FROM pg_stat_user_tables WHERE schemaname = {literal}), \
             (SELECT extract(epoch FROM max(clock_timestamp() - xact_start))::bigint::text FROM pg_stat_activity \
             WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()), \
             (SELECT count(*)::text FROM pg_replication_slots WHERE NOT active AND xmin IS NOT NULL), \
             (SELECT count(*)::text FROM pg_prepared_xacts), \
             pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')::text"
        ),
    )
    .await?;
    let number = |at: usize| found.get(at).cloned().flatten().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let (dead, oldest, slots, prepared) = (number(0), number(1), number(2), number(3));
    let sees_all = found.get(4).is_some_and(|sees_all| sees_all.as_deref() == Some("true"));
    let (whose, how) = match sees_all {
        true => ("oldest transaction", ""),
        false => ("oldest transaction of this role", " (GRANT pg_read_all_stats shows all)"),
    };
    let detail = format!("{} dead rows; the {whose} is {oldest} s old{how}", style::thousands(dead));
    Ok(if slots > 0 || prepared > 0 {
        Finding::warn(
            "vacuum",
            format!("{detail}; {slots} idle slots and {prepared} prepared transactions hold it back"),
        )
        .cure("drop the slot, or end the prepared transaction: dead rows stay until then")
    } else if oldest > 3_600 {
        Finding::warn("vacuum", detail)
            .cure("end the transaction that is that old (pg_stat_activity): dead rows stay until then")
    } else {
        Finding::ok("vacuum", detail)
    })
}

/// Whether notifications arrive.
async fn hints(store: &PostgresStore) -> Finding {
    match store.passes_notifications().await {
        true => Finding::ok("hints", "notifications arrive"),
        false => Finding::warn("hints", "no notification arrives, as behind a pooler: polling every 50ms to 2s")
            .cure("add listen=HOST:PORT of the server itself to the URL"),
    }
}
