//! The connection to the server: made when it is first needed, and anew after it was lost.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode as Negotiated;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Row, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::database::{Database, SslMode};
use super::failure::{self, Doubt};
use super::{Parameter, failure::DatabaseProblem, schema, tls, unexpected};
use crate::clock::Clock;
use crate::store::{ErrorDetail, ErrorKind, StoreError, StoreResult};

/// A connection and the task that moves its bytes.
pub(super) struct Session {
    pub(super) client: Arc<Client>,
    task: AbortHandle,
    /// How often the server has said that a commit is not on its standbys.
    warnings: Arc<AtomicU64>,
    /// Whether the server's defaults are such that each statement needs a transaction that says otherwise.
    is_framed: bool,
}

/// Moves the bytes of a connection, and counts its warnings.
async fn driven(mut connection: ServerConnection, warnings: Arc<AtomicU64>) {
    let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
    while let Some(Ok(message)) = messages.next().await {
        // A wait that was cut short is a success with a warning (syncrep.c, SyncRepWaitForLSN).
        if matches!(&message, AsyncMessage::Notice(notice) if failure::is_not_replicated(notice)) {
            warnings.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The sessions of one store, one at a time.
pub(super) struct Sessions {
    database: Rc<Database>,
    clock: Rc<dyn Clock>,
    current: RefCell<Option<Rc<Session>>>,
    /// Held by the caller that connects.
    connecting: tokio::sync::Mutex<()>,
    /// Whether the bus's tables are known to be there, in a form that is known.
    is_checked: Cell<bool>,
}

/// Read committed and read write, whatever the role's or the database's defaults say.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

impl Sessions {
    pub(super) fn new(database: Rc<Database>, clock: Rc<dyn Clock>) -> Self {
        Self {
            database,
            clock,
            current: RefCell::default(),
            connecting: tokio::sync::Mutex::default(),
            is_checked: Cell::new(false),
        }
    }

    /// The session that is there, if one is.
    pub(super) fn open(&self) -> Option<Rc<Session>> {
        self.current.borrow().clone().filter(|session| !session.client.is_closed())
    }

    /// The failure of a statement, as a store's error.
    pub(super) fn failed(&self, doing: &str, error: &tokio_postgres::Error) -> StoreError {
        failure::failed(&self.database, doing, error, Doubt::InStatement)
    }

    /// The error that the server takes no writes, and shows what another server had some time ago.
    pub(super) fn standby(&self) -> StoreError {
        let what = format!("the PostgreSQL server {} is a standby", self.database.server());
        StoreError::new(ErrorKind::Unavailable, what).with_detail(ErrorDetail::Database(DatabaseProblem::Standby))
    }

    /// Runs one statement in a transaction of its own.
    pub(super) async fn run(
        &self,
        doing: &str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> StoreResult<(Rc<Session>, Vec<Row>)> {
        let found = self.in_time(doing, async {
            let session = self.session(true).await?;
            let warnings = session.warnings.load(Ordering::Relaxed);
            let rows = session.query(sql, parameters).await.map_err(|error| self.failed(doing, &error));
            if rows.is_ok() && warnings != session.warnings.load(Ordering::Relaxed) {
                return Err(failure::not_replicated(&self.database, doing));
            }
            Ok((session, rows?))
        });
        found.await
    }

    async fn in_time<T>(&self, doing: &str, asked: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        let deadline = self.clock.elapsed() + self.database.timeout();
        tokio::select! { biased;
            answer = asked => answer,
            () = self.clock.sleep_until(deadline) => {
                // What the statement has done, and will do, is not known; the next one must not wait for it.
                *self.current.borrow_mut() = None;
                let (server, took) = (self.database.server(), self.database.timeout().as_secs());
                let what = format!("cannot {doing}: no answer from the PostgreSQL server {server} within {took} s");
                Err(StoreError::new(ErrorKind::Unavailable, what))
            }
        }
    }

    async fn session(&self, needs_bus: bool) -> StoreResult<Rc<Session>> {
        if let Some(session) = self.open() {
            return Ok(session);
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(session) = self.open() {
            return Ok(session);
        }
        let session = Rc::new(self.connected().await?);
        if needs_bus && !self.is_checked.get() {
            self.check_bus(&session).await?;
            self.is_checked.set(true);
        }
        *self.current.borrow_mut() = Some(Rc::clone(&session));
        Ok(session)
    }

    async fn connected(&self) -> StoreResult<Session> {
        let failed = |error: tokio_postgres::Error| failure::failed(&self.database, "connect", &error, Doubt::Before);
        let (client, connection) = connect(&self.database, &self.database.config).await?;
        let warnings = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(driven(connection, Arc::clone(&warnings))).abort_handle();
        let mut session = Session { client: Arc::new(client), task, is_framed: false, warnings };
        let asked = session.client.query_typed(DEFAULTS, &[]).await.map_err(failed)?;
        let row = asked.first().ok_or_else(|| unexpected("no row"))?;
        let (recovery, is_framed, release): (bool, bool, i32) =
            (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?, row.try_get(2).map_err(failed)?);
        if recovery {
            return Err(self.standby());
        }
        if release < OLDEST {
            let what = format!(
                "the PostgreSQL server {} is of release {}, and evbus needs {}",
                self.database.server(),
                release / 10_000,
                OLDEST / 10_000
            );
            return Err(StoreError::new(ErrorKind::Unfit, what));
        }
        session.is_framed = is_framed;
        Ok(session)
    }

    /// Whether there are tables of a bus, in a form that is known.
    async fn check_bus(&self, session: &Session) -> StoreResult<()> {
        let failed = |error: tokio_postgres::Error| failure::failed(&self.database, "look", &error, Doubt::Before);
        let sql = format!("SELECT format FROM {}.meta", schema::quoted(&self.database.schema));
        let format: Option<i32> = match session.query(&sql, &[]).await {
            Ok(rows) => rows.first().map(|row| row.try_get(0)).transpose().map_err(failed)?,
            Err(error) => return Err(failed(error)),
        };
        match format {
            Some(format) if format <= schema::FORMAT => Ok(()),
            Some(format) => Err(StoreError::new(
                ErrorKind::Unfit,
                format!(
                    "the schema {} has format {format}, and this evbus knows {}",
                    self.database.schema,
                    schema::FORMAT
                ),
            )
            .with_detail(ErrorDetail::NewerFormat)),
            None => Err(failure::no_bus(&self.database)),
        }
    }

    pub(super) async fn create_schema(&self) -> StoreResult<()> {
        self.in_time(&format!("make the schema {}", self.database.schema), self.schema_made()).await
    }

    async fn schema_made(&self) -> StoreResult<()> {
        let session = self.session(false).await?;
        let name = &self.database.schema;
        match self.check_bus(&session).await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NoBus => {}
            Err(error) => return Err(error),
        }
        // Two that make it at once would both find nothing there.
        let lock = format!("SELECT pg_advisory_xact_lock(hashtext({}))", schema::literal(&format!("evbus {name}")));
        let sql = format!("{BEGIN};\n{lock};\n{}\nCOMMIT", schema::definition(name));
        let made = session.client.batch_execute(&sql).await;
        if made.is_err() {
            let _ = session.client.batch_execute("ROLLBACK").await;
        }
        made.map_err(|error| failure::failed(&self.database, &format!("make the schema {name}"), &error, Doubt::Before))
    }
}

/// A connection for statements of the caller's own.
pub struct Link {
    sessions: Sessions,
    /// The session that a transaction was begun in.
    pinned: RefCell<Option<Rc<Session>>>,
}

impl Link {
    /// A link that connects when it is first used.
    pub fn new(database: Database, clock: Rc<dyn Clock>) -> Self {
        Self { sessions: Sessions::new(Rc::new(database), clock), pinned: RefCell::default() }
    }

    /// Begins a transaction: until its end all statements are of it, or fail.
    ///
    /// # Errors
    /// The server's, or it does not answer.
    pub async fn begin(&self, sql: &str) -> StoreResult<()> {
        let begun = self.sessions.in_time("begin a transaction", async {
            let session = self.sessions.session(false).await?;
            session
                .client
                .batch_execute(sql)
                .await
                .map_err(|error| self.sessions.failed("begin a transaction", &error))?;
            Ok(session)
        });
        *self.pinned.borrow_mut() = Some(begun.await?);
        Ok(())
    }

    /// Ends the transaction; one that was cut off is over.
    ///
    /// # Errors
    /// The server's: it is not known whether a COMMIT took effect.
    pub async fn end(&self, sql: &str) -> StoreResult<()> {
        let ended = self.execute("end a transaction", sql).await;
        if self.pinned.take().is_some() && ended.is_err() {
            // The transaction goes with its session.
            *self.sessions.current.borrow_mut() = None;
        }
        ended
    }

    /// The rows of one statement.
    ///
    /// # Errors
    /// The server's, or it does not answer: then a transaction is over.
    pub async fn query(&self, doing: &str, sql: &str, parameters: &[Parameter<'_>]) -> StoreResult<Vec<Row>> {
        self.within(doing, async |session| session.client.query_typed(sql, parameters).await).await
    }

    /// Runs a statement without rows.
    ///
    /// # Errors
    /// As [`Link::query`].
    pub async fn execute(&self, doing: &str, sql: &str) -> StoreResult<()> {
        self.within(doing, async |session| session.client.batch_execute(sql).await).await
    }

    async fn within<T>(
        &self,
        doing: &str,
        ask: impl AsyncFnOnce(&Session) -> Result<T, tokio_postgres::Error>,
    ) -> StoreResult<T> {
        let pinned = self.pinned.borrow().clone();
        let answer = self.sessions.in_time(doing, async {
            let session = match pinned {
                Some(session) => session,
                None => self.sessions.session(false).await?,
            };
            ask(&session).await.map_err(|error| self.sessions.failed(doing, &error))
        });
        answer.await
    }

    /// Whether a transaction was begun, and not ended.
    pub fn is_in_transaction(&self) -> bool {
        self.pinned.borrow().is_some()
    }
}

/// PostgreSQL 13 has `gen_random_uuid()` without an extension.
const OLDEST: i32 = 130_000;

/// Whether it is a standby, whether statements need a frame, and the release.
const DEFAULTS: &str = "SELECT pg_is_in_recovery(), current_setting('default_transaction_isolation') <> 'read committed' \
     OR current_setting('default_transaction_read_only') <> 'off', current_setting('server_version_num')::int";

impl Session {
    /// The rows of one statement in a transaction of its own; the three requests of a framed one are sent at once.
    async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, tokio_postgres::Error> {
        if !self.is_framed {
            return self.client.query_typed(sql, parameters).await;
        }
        let (begun, rows, ended) = futures_util::future::join3(
            self.client.batch_execute(BEGIN),
            self.client.query_typed(sql, parameters),
            self.client.batch_execute("COMMIT"),
        )
        .await;
        begun?;
        let rows = rows?;
        ended.map(|()| rows)
    }
}

/// After this time of silence the other end is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What moves the bytes of a connection, with TLS or without.
pub(super) type ServerConnection = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Connects; the connection is still to be driven.
pub(super) async fn connect(database: &Database, config: &Config) -> StoreResult<(Client, ServerConnection)> {
    let mut config = config.clone();
    let on_this_machine = config.get_hosts().iter().all(|host| matches!(host, tokio_postgres::config::Host::Unix(_)));
    config.ssl_mode(match database.ssl.mode {
        _ if on_this_machine => Negotiated::Disable,
        SslMode::Disable => Negotiated::Disable,
        SslMode::Prefer => Negotiated::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Negotiated::Require,
    });
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(database.timeout() / 2);
    }
    config.tcp_user_timeout(database.timeout()).keepalives_idle(KEEPALIVE);
    let tls: MakeRustlsConnect = tls::connector(&database.ssl)?;
    config.connect(tls).await.map_err(|error| failure::failed(database, "connect", &error, Doubt::Before))
}
