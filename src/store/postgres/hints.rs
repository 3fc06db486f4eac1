//! Notices by `NOTIFY`: a statement of its own after a commit, never within it, because all notifying transactions of a
//! server commit one after the other; and `LISTEN` on a connection of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{self, BoxStream, LocalBoxStream, StreamExt};
use tokio_postgres::{AsyncMessage, Client};

use super::database::Database;
use super::schema::quoted;
use super::session::{Session, connect};
use crate::clock::{Backoff, Clock, Fut};
use crate::store::Hints;

/// The least time between two notices of one process.
const GAP: Duration = Duration::from_millis(10);

/// How long the server may take to pass a notification on.
const PROOF: Duration = Duration::from_secs(5);

/// The channel of a schema: at most 63 bytes (PostgreSQL, NOTIFY).
fn channel(schema: &str) -> String {
    let name = format!("evbus_{schema}");
    let end = (0..=name.len().min(63)).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    name[..end].to_owned()
}

/// Tells others of this process's writes.
pub(super) struct Announcer {
    sql: Arc<str>,
    own: String,
    last: Cell<Option<Duration>>,
    /// Whether a notice waits until enough time has passed since the last one.
    is_held_back: Arc<AtomicBool>,
}

impl Announcer {
    pub(super) fn new(schema: &str, random: u64) -> Self {
        let own = format!("{random:016x}");
        let sql = format!("NOTIFY {}, '{own}'", quoted(&channel(schema))).into();
        Self { sql, own, last: Cell::default(), is_held_back: Arc::default() }
    }

    /// What this process's notices say, by which its own listener knows them.
    pub(super) fn own(&self) -> String {
        self.own.clone()
    }

    /// Sends a notice behind what was sent last, and does not wait for the answer. If the last one was sent a moment
    /// ago, it is sent a moment later.
    pub(super) fn announce(&self, session: &Session, now: Duration) {
        let wait = self.last.get().map_or(Duration::ZERO, |last| (last + GAP).saturating_sub(now));
        if wait.is_zero() {
            self.last.set(Some(now));
            // The first poll sends it.
            drop(session.client.batch_execute(&self.sql).now_or_never());
        } else if !self.is_held_back.swap(true, Ordering::Relaxed) {
            self.last.set(Some(now + wait));
            let (sql, client, is_held_back) =
                (Arc::clone(&self.sql), Arc::clone(&session.client), Arc::clone(&self.is_held_back));
            tokio::spawn(later(wait, is_held_back, client, sql));
        }
    }

    /// Sends what is held back.
    pub(super) async fn send_held_back(&self, session: &Session) {
        if self.is_held_back.swap(false, Ordering::Relaxed) {
            // It is only a hint.
            let _ = session.client.batch_execute(&self.sql).await;
        }
    }
}

/// Sends a notice after a time, unless it was sent by then.
#[allow(clippy::disallowed_methods, reason = "when a hint comes decides nothing, and a store's clock is of one thread")]
async fn later(wait: Duration, is_held_back: Arc<AtomicBool>, client: Arc<Client>, sql: Arc<str>) {
    tokio::time::sleep(wait).await;
    if is_held_back.swap(false, Ordering::Relaxed) {
        let _ = client.batch_execute(&sql).await;
    }
}

/// Listens for the notices of others, on a connection that it makes anew whenever it is lost.
pub(super) struct Listener {
    hints: LocalBoxStream<'static, ()>,
}

/// A connection that listens.
struct Listening {
    messages: BoxStream<'static, AsyncMessage>,
    _client: Client,
}

struct State {
    database: Rc<Database>,
    clock: Rc<dyn Clock>,
    own: String,
    listening: RefCell<Option<Listening>>,
    backoff: Backoff,
}

/// Whether a notice to itself arrives.
pub(super) async fn passes_notifications(database: &Rc<Database>, clock: Rc<dyn Clock>) -> bool {
    State::new(database, clock, String::new()).listen().await.is_some()
}

impl Listener {
    pub(super) fn new(database: &Rc<Database>, clock: Rc<dyn Clock>, own: String) -> Self {
        let state = State::new(database, clock, own);
        // A stream keeps what is under way when a wait for it is given up.
        let hints = stream::unfold(state, |mut state| async move {
            state.next().await;
            Some(((), state))
        });
        Self { hints: hints.boxed_local() }
    }
}

fn first_backoff() -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_mins(1))
}

impl Hints for Listener {
    fn next(&mut self) -> Fut<'_, ()> {
        Box::pin(async move {
            if self.hints.next().await.is_none() {
                std::future::pending::<()>().await;
            }
        })
    }
}

impl State {
    fn new(database: &Rc<Database>, clock: Rc<dyn Clock>, own: String) -> Self {
        let database = Rc::clone(database);
        Self { database, clock, own, listening: RefCell::default(), backoff: first_backoff() }
    }

    /// Waits for the next notice.
    async fn next(&mut self) {
        loop {
            let Some(mut listening) = self.listening.take() else {
                match self.listen().await {
                    Some(listening) => {
                        self.listening.replace(Some(listening));
                        self.backoff = first_backoff();
                        // What came before is not told.
                        return;
                    }
                    None => self.backoff.wait(&*self.clock).await,
                }
                continue;
            };
            while let Some(message) = listening.messages.next().await {
                if matches!(&message, AsyncMessage::Notification(note) if note.payload() != self.own) {
                    self.listening.replace(Some(listening));
                    return;
                }
            }
        }
    }

    /// Listens, and proves by a notice to itself that the server passes notices on: a pooler may not.
    async fn listen(&self) -> Option<Listening> {
        let config = self.database.listen.as_ref().unwrap_or(&self.database.config);
        let (client, mut connection) = connect(&self.database, config).await.ok()?;
        let messages = stream::poll_fn(move |context| connection.poll_message(context));
        let mut messages = messages
            .take_while(|message| std::future::ready(message.is_ok()))
            .filter_map(|message| std::future::ready(message.ok()))
            .boxed();
        let name = channel(&self.database.schema);
        let proof = format!("{:016x}", self.clock.random());
        let listen = format!("LISTEN {}", quoted(&name));
        let notify = format!("NOTIFY {}, '{proof}'", quoted(&name));
        let deadline = self.clock.elapsed() + PROOF;
        let proved = async {
            // From another session, while this one is idle: a pooler passes on what comes within a transaction.
            let mut asked = std::pin::pin!(
                async {
                    client.batch_execute(&listen).await.ok()?;
                    let (other, connection) = connect(&self.database, &self.database.config).await.ok()?;
                    let told = other.batch_execute(&notify);
                    futures_util::pin_mut!(told);
                    tokio::select! { told = told => told.ok(), _ = connection => None }
                }
                .fuse()
            );
            loop {
                tokio::select! {
                    answer = &mut asked => answer?,
                    message = messages.next() => match message? {
                        AsyncMessage::Notification(note) if note.payload() == proof => return Some(()),
                        _ => {}
                    },
                }
            }
        };
        tokio::select! {
            proved = proved => proved?,
            () = self.clock.sleep_until(deadline) => return None,
        }
        Some(Listening { messages, _client: client })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_fits_into_a_name() {
        assert_eq!(channel("evbus"), "evbus_evbus");
        let long = channel(&"ä".repeat(40));
        assert!(long.len() <= 63 && long.starts_with("evbus_ä"));
    }
}
