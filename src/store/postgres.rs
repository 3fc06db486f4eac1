//! The PostgreSQL store: the six operations on tables of one schema, each in one statement.
//!
//! An object is a row of `object`, which is never changed. A register is the row of its key in `register` with the
//! greatest number: `cas` deletes the row that it replaces, which only one of several writers can, and inserts the next,
//! so that a read begins at the newest row even while an old snapshot keeps the others from being vacuumed.
//!
//! A server can lose its latest commits: by a failover to a standby that had not received them, or because an older
//! backup is restored. Every answer therefore comes with a token of the server's start and of the table's file
//! ([`schema::token`]); a `cas` under another token than that of its version is a conflict, and [`Store::rewinds`]
//! counts the changes.
//!
//! Statements are unnamed and leave no state in the session, so that a pooler may give each transaction another one.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};

use super::{
    ErrorKind, Gate, Hints, Item, LARGEST_BYTES, List, NoHints, Object, Page, Profile, Put, Store, StoreError,
    StoreResult, Swap, Version, put_in_runs, refuse_after_rewind,
};
use crate::clock::{Clock, Fut};

mod database;
mod failure;
mod hints;
pub mod schema;
mod session;
mod tls;

pub use database::{Database, Ssl, SslMode};
pub use failure::DatabaseProblem;
use hints::{Announcer, Listener};
pub use session::Link;
use session::{Session, Sessions};

/// How many rows one statement of a listing or of a deletion takes.
const CHUNK: usize = 1_000;

/// How a database is best used.
pub const PROFILE: Profile = Profile {
    lag: Duration::from_secs(2),
    // Each commit is a flush of the log, which the emitters' share.
    commit_gap: Duration::from_millis(10),
    hold: Duration::from_mins(1),
    // Where a pooler does not pass notifications on, polls alone find what is new.
    poll: (Duration::from_millis(50), Duration::from_secs(2)),
    batch: 512,
    scans_folders: false,
};

/// One process's connection to a bus in a PostgreSQL database.
pub struct PostgresStore {
    database: Rc<Database>,
    clock: Rc<dyn Clock>,
    sessions: Sessions,
    statements: Statements,
    announcer: Announcer,
    /// Whether a put is flushed before it is acknowledged.
    is_durable: bool,
    /// Whether a commit is flushed without its statement's own word, as far as is known.
    commits_flush: Cell<bool>,
    /// The token of the latest answer.
    token: RefCell<Option<String>>,
    rewinds: Cell<u64>,
    last_write: Cell<Option<i64>>,
}

/// How a commit is to be flushed.
const DURABLE: &str = "CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' \
     ELSE current_setting('synchronous_commit') END";

/// The texts of the statements, for one schema.
struct Statements {
    /// Without a frame: the server plans it in half the time.
    put_bare: String,
    put_new: String,
    put_many: String,
    get: String,
    /// Of what is no register, which is planned in half the time.
    get_object: String,
    list: String,
    list_objects: String,
    swap: String,
    create: String,
    delete: String,
    flushed: String,
    flush: String,
}

impl Statements {
    fn of(schema: &str, is_durable: bool) -> Self {
        let (s, token) = (schema::quoted(schema), schema::token(schema));
        let with_level =
            |level: &str| format!("commit AS MATERIALIZED (SELECT set_config('synchronous_commit', {level}, true))");
        // A role's setting must not take the promise away; a stronger one stays. Only events may do without: a server
        // that starts its processes anew after a crash loses them, and the token does not show it.
        let commit = with_level(DURABLE);
        let put_commit = with_level(if is_durable { DURABLE } else { "'off'" });
        let written = format!("{token}, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint");
        Self {
            put_bare: format!(
                "INSERT INTO {s}.object (key, body) VALUES ($1, $2) ON CONFLICT DO NOTHING \
                 RETURNING pg_postmaster_start_time(), clock_timestamp(), current_setting('synchronous_commit')"
            ),
            put_new: format!(
                "WITH {put_commit} INSERT INTO {s}.object (key, body) SELECT $1, $2 FROM commit \
                 ON CONFLICT DO NOTHING RETURNING {written}"
            ),
            put_many: format!(
                "WITH {put_commit} INSERT INTO {s}.object (key, body) \
                 SELECT i.key, i.body FROM commit, unnest($1::text[], $2::bytea[]) AS i (key, body) \
                 ON CONFLICT DO NOTHING RETURNING {written}, key"
            ),
            // The scan of the registers begins at the newest row of the key, and does not leave the key's rows.
            get: format!(
                "SELECT {token}, octet_length(o.body), CASE WHEN octet_length(o.body) <= $2 THEN o.body END, \
                 r.n, r.ver::text, octet_length(r.body), CASE WHEN octet_length(r.body) <= $2 THEN r.body END \
                 FROM (SELECT 1) AS one \
                 LEFT JOIN {s}.object o ON o.key = $1 \
                 LEFT JOIN LATERAL (SELECT key, n, ver, body FROM {s}.register \
                 WHERE (key, n) <= ($1, {max}) AND key >= $1 ORDER BY key DESC, n DESC LIMIT 1) r \
                 ON r.key = $1 AND r.n > 0",
                max = i64::MAX
            ),
            get_object: format!(
                "SELECT {token}, octet_length(o.body), CASE WHEN octet_length(o.body) <= $2 THEN o.body END, \
                 NULL::bigint FROM (SELECT 1) AS one LEFT JOIN {s}.object o ON o.key = $1"
            ),
            list_objects: format!(
                "SELECT {token}, array(SELECT key FROM {s}.object WHERE key > $1 AND key < $2 ORDER BY key LIMIT $3)"
            ),
            // From one register to the next, without a look at the rows that each has had.
            list: format!(
                "WITH RECURSIVE registers (key) AS (\
                 (SELECT key FROM {s}.register WHERE key > $1 AND key < $2 ORDER BY key, n LIMIT 1) UNION ALL \
                 SELECT (SELECT r.key FROM {s}.register r WHERE r.key > registers.key AND r.key < $2 \
                 ORDER BY r.key, r.n LIMIT 1) FROM registers WHERE registers.key IS NOT NULL) \
                 SELECT {token}, array(SELECT key FROM (\
                 (SELECT key FROM {s}.object WHERE key > $1 AND key < $2 ORDER BY key LIMIT $3) UNION ALL \
                 (SELECT key FROM registers WHERE EXISTS (SELECT FROM {s}.register r WHERE r.key = registers.key \
                 AND r.n > 0) LIMIT $3)) AS k ORDER BY key LIMIT $3)"
            ),
            swap: format!(
                "WITH {commit}, old AS (DELETE FROM {s}.register WHERE key = $1 AND n = $2 AND ver = $3::text::uuid \
                 AND {token} = $4 RETURNING n) \
                 INSERT INTO {s}.register (key, n, ver, body) SELECT $1, old.n + 1, gen_random_uuid(), $5 \
                 FROM commit, old RETURNING {written}, n, ver::text"
            ),
            // The row of number 0 stays for as long as the register is there: of several writers that make a register
            // one inserts it, also after others have been swapped away.
            create: format!(
                "WITH {commit}, anchor AS (INSERT INTO {s}.register (key, n, ver, body) \
                 SELECT $1, 0, gen_random_uuid(), '' FROM commit WHERE ($2 = '' OR {token} = $2) \
                 AND NOT EXISTS (SELECT FROM {s}.register WHERE key = $1) \
                 ON CONFLICT DO NOTHING RETURNING key) \
                 INSERT INTO {s}.register (key, n, ver, body) SELECT $1, 1, gen_random_uuid(), $3 FROM anchor \
                 RETURNING {written}, n, ver::text"
            ),
            // The row of number 0 goes last, once no other was there when the statement began: it keeps a late writer
            // that makes the register from winning beside one that has swapped it.
            delete: format!(
                "WITH {commit}, objects AS (DELETE FROM {s}.object WHERE key = ANY ($1) \
                 AND ($2 = '' OR {token} = $2)), \
                 registers AS (DELETE FROM {s}.register d WHERE key = ANY ($1) AND ($2 = '' OR {token} = $2) \
                 AND (n > 0 OR NOT EXISTS (SELECT FROM {s}.register r WHERE r.key = d.key AND r.n > 0))) \
                 SELECT {written}, (SELECT count(*) FROM {s}.register WHERE key = ANY ($1)) FROM commit"
            ),
            // A commit waits for the standbys, if it is to: what is visible may not have, if its writer was cut off.
            flushed: "SELECT pg_current_wal_insert_lsn() <= pg_current_wal_flush_lsn() \
                      AND (current_setting('synchronous_standby_names') = '' \
                      OR current_setting('synchronous_commit') IN ('off', 'local'))"
                .to_owned(),
            // A commit of a message in the log that means nothing.
            flush: format!(
                "SELECT set_config('synchronous_commit', {DURABLE}, true), \
                 pg_logical_emit_message(true, 'evbus', '') IS NULL"
            ),
        }
    }
}

/// Whether no register lies under a prefix (FORMAT.md, 3.1).
fn has_objects_alone(prefix: &str) -> bool {
    ["events/", "timed/", "dedup/"].iter().any(|folder| prefix.starts_with(folder))
}

/// A version as text: number, random part, token.
fn version(n: i64, random: &str, token: &str) -> Version {
    Version(format!("{n}.{random}.{token}"))
}

fn parts(version: &Version) -> Option<(i64, &str, &str)> {
    let mut parts = version.0.splitn(3, '.');
    let (n, random, token) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
    // What is no uuid would be an error of the statement.
    let is_uuid = random.len() == 36 && random.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (n > 0 && is_uuid).then_some((n, random, token))
}

/// A server's time in microseconds since the Unix epoch.
struct ServerTime(i64);

impl<'a> FromSql<'a> for ServerTime {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        /// The epoch of the binary form, 2000-01-01 (PostgreSQL, `timestamptz_send`).
        const EPOCH: i64 = 946_684_800_000_000;
        Ok(Self(i64::from_be_bytes(raw.try_into()?).saturating_add(EPOCH)))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::TIMESTAMPTZ
    }
}

/// A parameter of a statement.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

impl PostgresStore {
    /// A store that connects when it is first used.
    pub fn new(database: Database, clock: Rc<dyn Clock>, is_durable: bool) -> Self {
        let database = Rc::new(database);
        Self {
            sessions: Sessions::new(Rc::clone(&database), Rc::clone(&clock)),
            statements: Statements::of(&database.schema, is_durable),
            announcer: Announcer::new(&database.schema, clock.random()),
            database,
            clock,
            is_durable,
            commits_flush: Cell::new(true),
            token: RefCell::default(),
            rewinds: Cell::default(),
            last_write: Cell::default(),
        }
    }

    /// Runs a statement and takes in the token that its answer begins with, if it has any rows.
    async fn run(&self, doing: &str, sql: &str, parameters: &[Parameter<'_>]) -> StoreResult<(Rc<Session>, Vec<Row>)> {
        let (session, rows) = self.sessions.run(doing, sql, parameters).await?;
        if let Some(row) = rows.first() {
            self.saw(row.try_get(0).map_err(|error| self.sessions.failed(doing, &error))?)?;
        }
        Ok((session, rows))
    }

    fn known_token(&self) -> String {
        self.token.borrow().clone().unwrap_or_default()
    }

    fn saw(&self, token: &str) -> StoreResult<()> {
        if token.starts_with(schema::STANDBY) {
            return Err(self.sessions.standby());
        }
        let mut known = self.token.borrow_mut();
        if known.as_deref() != Some(token) {
            self.rewinds.set(self.rewinds.get() + u64::from(known.is_some()));
            *known = Some(token.to_owned());
        }
        Ok(())
    }

    /// Takes in what a statement says that has written: the server's time.
    fn wrote(&self, session: &Rc<Session>, row: &Row) -> StoreResult<()> {
        let written: i64 = row.try_get(1).map_err(|error| self.sessions.failed("write", &error))?;
        self.last_write.set(Some(written));
        self.announcer.announce(session, self.clock.elapsed());
        Ok(())
    }

    async fn put(&self, key: &str, bytes: &[u8]) -> StoreResult<Put> {
        let parameters: [Parameter<'_>; 2] = [(&key, Type::TEXT), (&bytes, Type::BYTEA)];
        let doing = format!("write {key}");
        if self.is_durable && self.commits_flush.get() && self.token.borrow().is_some() {
            return self.put_bare(&doing, &parameters).await;
        }
        let (session, rows) = self.run(&doing, &self.statements.put_new, &parameters).await?;
        let Some(row) = rows.first() else { return Ok(Put::Exists) };
        self.wrote(&session, row)?;
        Ok(Put::Created)
    }

    /// A put whose answer tells of the token only its first part, the server's start, and by which level it was committed.
    /// What else makes the token is seen by the next read: a restored dump, say, which an emitter's look at W shows.
    async fn put_bare(&self, doing: &str, parameters: &[Parameter<'_>]) -> StoreResult<Put> {
        let (session, rows) = self.sessions.run(doing, &self.statements.put_bare, parameters).await?;
        let Some(row) = rows.first() else { return Ok(Put::Exists) };
        let failed = |error| self.sessions.failed(doing, &error);
        let (started, written): (ServerTime, ServerTime) =
            (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        let level: &str = row.try_get(2).map_err(failed)?;
        if level == "off" {
            // The role's own setting: from now on each statement says what it needs.
            self.commits_flush.set(false);
            self.sessions.run("flush", &self.statements.flush, &[]).await?;
        }
        let is_known = self.known_token().starts_with(&format!("{:x}-", started.0));
        if !is_known {
            // Its answer has the whole token.
            self.read("events/", 0).await?;
        }
        self.last_write.set(Some(written.0));
        self.announcer.announce(&session, self.clock.elapsed());
        Ok(Put::Created)
    }

    /// Puts items in one transaction, and answers for each.
    async fn put_together(&self, items: &[Item]) -> StoreResult<Vec<Put>> {
        if let [(key, bytes)] = items {
            return Ok(vec![self.put(key, bytes).await?]);
        }
        let keys: Vec<&str> = items.iter().map(|(key, _)| key.as_str()).collect();
        let bodies: Vec<&[u8]> = items.iter().map(|(_, bytes)| &bytes[..]).collect();
        let parameters: [Parameter<'_>; 2] = [(&keys, Type::TEXT_ARRAY), (&bodies, Type::BYTEA_ARRAY)];
        let (session, rows) = self.run("write events", &self.statements.put_many, &parameters).await?;
        let mut created = HashSet::with_capacity(rows.len());
        for row in &rows {
            created.insert(row.try_get::<_, &str>(2).map_err(|error| self.sessions.failed("write events", &error))?);
        }
        if let Some(row) = rows.first() {
            self.wrote(&session, row)?;
        }
        let answer = |key: &&str| if created.contains(key) { Put::Created } else { Put::Exists };
        Ok(keys.iter().map(answer).collect())
    }

    async fn read(&self, key: &str, limit: usize) -> StoreResult<Option<Object>> {
        let most = i32::try_from(limit).unwrap_or(i32::MAX);
        let parameters: [Parameter<'_>; 2] = [(&key, Type::TEXT), (&most, Type::INT4)];
        let doing = format!("read {key}");
        let sql = if has_objects_alone(key) { &self.statements.get_object } else { &self.statements.get };
        let (_, rows) = self.run(&doing, sql, &parameters).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let failed = |error| self.sessions.failed(&doing, &error);
        let (size, body): (Option<i32>, Option<&[u8]>) =
            (row.try_get(1).map_err(failed)?, row.try_get(2).map_err(failed)?);
        let number: Option<i64> = row.try_get(3).map_err(failed)?;
        let (size, body, version) = match (size, number) {
            (Some(size), _) => (size, body, Version(String::new())),
            (None, Some(number)) => {
                let (random, token): (&str, &str) = (row.try_get(4).map_err(failed)?, row.try_get(0).map_err(failed)?);
                (row.try_get(5).map_err(failed)?, row.try_get(6).map_err(failed)?, version(number, random, token))
            }
            (None, None) => return Ok(None),
        };
        match body {
            Some(body) => Ok(Some(Object { bytes: body.to_vec(), version })),
            None => Err(StoreError::too_large(key, u64::try_from(size).unwrap_or(0), limit)),
        }
    }

    async fn list(&self, list: List) -> StoreResult<Page> {
        let mut page = Page::default();
        let Some((mut after, end)) = list.range() else { return Ok(page) };
        let doing = format!("list {}", list.prefix);
        let is_plain = has_objects_alone(&list.prefix);
        let sql = if is_plain { &self.statements.list_objects } else { &self.statements.list };
        loop {
            let wanted = list.limit.saturating_sub(page.keys.len()).saturating_add(1).min(CHUNK);
            let most = i64::try_from(wanted).unwrap_or(i64::MAX);
            let parameters: [Parameter<'_>; 3] = [(&after, Type::TEXT), (&end, Type::TEXT), (&most, Type::INT8)];
            let (_, rows) = self.run(&doing, sql, &parameters).await?;
            let keys: Vec<String> = match rows.first() {
                Some(row) => row.try_get(1).map_err(|error| self.sessions.failed(&doing, &error))?,
                None => Vec::new(),
            };
            let is_last = keys.len() < wanted;
            if page.take(&list, &mut after, keys) || is_last {
                return Ok(page);
            }
        }
    }

    async fn swap(&self, key: &str, from: Option<&Version>, bytes: &[u8]) -> StoreResult<Swap> {
        let doing = format!("write {key}");
        let (session, rows) = match from {
            Some(from) => {
                let Some((n, random, token)) = parts(from) else { return Ok(Swap::Conflict) };
                let parameters: [Parameter<'_>; 5] = [
                    (&key, Type::TEXT),
                    (&n, Type::INT8),
                    (&random, Type::TEXT),
                    (&token, Type::TEXT),
                    (&bytes, Type::BYTEA),
                ];
                self.run(&doing, &self.statements.swap, &parameters).await?
            }
            None => {
                // What is made was looked for under the token that is known, if any is.
                let token = self.known_token();
                let parameters: [Parameter<'_>; 3] = [(&key, Type::TEXT), (&token, Type::TEXT), (&bytes, Type::BYTEA)];
                self.run(&doing, &self.statements.create, &parameters).await?
            }
        };
        let Some(row) = rows.first() else { return Ok(Swap::Conflict) };
        self.wrote(&session, row)?;
        let failed = |error| self.sessions.failed(&doing, &error);
        let (token, n, random): (&str, i64, &str) =
            (row.try_get(0).map_err(failed)?, row.try_get(2).map_err(failed)?, row.try_get(3).map_err(failed)?);
        Ok(Swap::Swapped(version(n, random, token)))
    }

    /// Deletes under the token that is known: what is not needed any more may be, after the loss of what says so.
    async fn remove(&self, keys: &[String]) -> StoreResult<()> {
        let (known, rewinds) = (self.known_token(), self.rewinds.get());
        for chunk in keys.chunks(CHUNK) {
            // Until a statement has seen none: a register that was swapped meanwhile has a row that it did not see.
            loop {
                let parameters: [Parameter<'_>; 2] = [(&chunk, Type::TEXT_ARRAY), (&known, Type::TEXT)];
                let (session, rows) = self.run("delete events", &self.statements.delete, &parameters).await?;
                let Some(row) = rows.first() else { break };
                refuse_after_rewind(self, rewinds)?;
                self.wrote(&session, row)?;
                let registers: i64 = row.try_get(2).map_err(|error| self.sessions.failed("delete events", &error))?;
                if registers == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Makes the schema, or brings an older one up to date. Harmless where it is there.
    ///
    /// # Errors
    /// The server does not let it, or the schema is one of a later release.
    pub async fn create_schema(&self) -> StoreResult<()> {
        self.sessions.create_schema().await
    }

    /// Whether notifications arrive, for `doctor`: a pooler may not pass them on.
    pub async fn passes_notifications(&self) -> bool {
        hints::passes_notifications(&self.database, Rc::clone(&self.clock)).await
    }

    /// Runs one statement that changes nothing, for `doctor`.
    ///
    /// # Errors
    /// The server's.
    pub async fn ask(&self, sql: &str) -> StoreResult<Vec<Row>> {
        Ok(self.sessions.run("look", sql, &[]).await?.1)
    }
}

impl Store for PostgresStore {
    fn put_new<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> Fut<'a, StoreResult<Put>> {
        Box::pin(self.put(key, bytes))
    }

    fn get<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<Option<Object>>> {
        Box::pin(self.read(key, LARGEST_BYTES))
    }

    fn get_within<'a>(&'a self, key: &'a str, limit: usize) -> Fut<'a, StoreResult<Option<Object>>> {
        Box::pin(self.read(key, limit))
    }

    fn list_after(&self, list: List) -> Fut<'_, StoreResult<Page>> {
        Box::pin(self.list(list))
    }

    fn cas<'a>(&'a self, key: &'a str, version: Option<&'a Version>, bytes: &'a [u8]) -> Fut<'a, StoreResult<Swap>> {
        Box::pin(self.swap(key, version, bytes))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<()>> {
        Box::pin(async move { self.remove(&[key.to_owned()]).await })
    }

    fn hints(&self) -> Result<Box<dyn Hints>, NoHints> {
        Ok(Box::new(Listener::new(&self.database, Rc::clone(&self.clock), self.announcer.own())))
    }

    fn profile(&self) -> Profile {
        PROFILE
    }

    /// Items are put in one transaction for as long as none depends on one before it.
    fn put_gated<'a>(&'a self, items: &'a [Item], gate: &'a dyn Gate) -> Fut<'a, StoreResult<Vec<Put>>> {
        Box::pin(put_in_runs(items.len(), gate, async |run| self.put_together(&items[run]).await))
    }

    fn delete_many<'a>(&'a self, keys: &'a [String]) -> Fut<'a, StoreResult<()>> {
        Box::pin(self.remove(keys))
    }

    /// What is visible has been flushed, but where a writer did without: then a commit of this process flushes all
    /// before it.
    fn persist<'a>(&'a self, _key: &'a str) -> Fut<'a, StoreResult<()>> {
        Box::pin(async move {
            if !self.is_durable {
                return Ok(());
            }
            let (_, rows) = self.sessions.run("flush", &self.statements.flushed, &[]).await?;
            if rows.first().and_then(|row| row.try_get(0).ok()) == Some(true) {
                return Ok(());
            }
            self.sessions.run("flush", &self.statements.flush, &[]).await.map(drop)
        })
    }

    fn persist_many<'a>(&'a self, keys: &'a [String]) -> Fut<'a, StoreResult<()>> {
        Box::pin(async move {
            match keys.first() {
                Some(key) => self.persist(key).await,
                None => Ok(()),
            }
        })
    }

    fn rewinds(&self) -> u64 {
        self.rewinds.get()
    }

    fn send_hints(&self) -> Fut<'_, ()> {
        Box::pin(async move {
            if let Some(session) = self.sessions.open() {
                self.announcer.send_held_back(&session).await;
            }
        })
    }

    fn last_write_micros(&self) -> Option<i64> {
        self.last_write.get()
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PostgresStore({:?})", self.database)
    }
}

/// The error that a server's answer is not what it should be.
fn unexpected(what: &str) -> StoreError {
    StoreError::new(ErrorKind::Damaged, format!("the PostgreSQL server's answer is not understood: {what}"))
}
