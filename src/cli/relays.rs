//! Relays as they run: in the foreground, beside workers, or once.

use std::time::Duration;

use tokio::sync::watch;

use super::failure::Failure;
use super::output;
use super::session::{Opened, Session};
use super::style;
use crate::clock::Backoff;
use crate::config::{BusAddress, Config, Location};
use crate::event::Event;
use crate::group::worker::Stop;
use crate::relay::{Columns, Outbox, PAUSES, Pass, Relay};
use crate::store::{ErrorKind, StoreError};

/// For how long after the last row passes follow each other quickly.
const LIVELY: Duration = Duration::from_secs(5);

/// What a relay moves, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RelayPlan {
    /// Its name in messages.
    pub(super) name: String,
    pub(super) from: BusAddress,
    pub(super) table: Option<String>,
    pub(super) columns: Columns,
    pub(super) source: Option<String>,
}

impl RelayPlan {
    /// One relay of the config file.
    pub(super) fn named(session: &Session, name: &str) -> Result<Self, Failure> {
        let plans = Self::of(&session.config()?)?;
        let names: Vec<String> = plans.iter().map(|plan| plan.name.clone()).collect();
        plans.into_iter().find(|plan| plan.name == name).ok_or_else(|| {
            let known = match names.is_empty() {
                true => "the config has none: [relays.NAME]".to_owned(),
                false => format!("the config has {}", names.join(", ")),
            };
            Failure::usage(format!("there is no relay '{name}'")).help(known)
        })
    }

    /// The relays of a config.
    pub(super) fn of(config: &Config) -> Result<Vec<Self>, Failure> {
        let plan = |relay: &crate::config::RelaySettings| -> Result<Self, Failure> {
            Ok(Self {
                name: relay.name.clone(),
                from: BusAddress::of_relay(config, &relay.from)?,
                table: relay.table.clone(),
                columns: relay.columns.clone(),
                source: relay.source.clone(),
            })
        };
        config.relays.iter().map(plan).collect()
    }

    /// Refuses what has no outbox.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match &self.from.location {
            #[cfg(feature = "postgres")]
            Location::Postgres(..) => Ok(()),
            #[cfg(feature = "sqlite")]
            Location::Sqlite(_) => Ok(()),
            Location::Dir(_) | Location::Bucket(..) | Location::Server(_) => Err(self.no_outbox()),
        }
    }

    fn no_outbox(&self) -> Failure {
        Failure::usage(format!("{} is no database, and has no outbox", self.from.display))
            .help("name one: postgres://host/database or sqlite:///path/file.db")
    }

    /// Opens the outbox.
    pub(super) async fn outbox(&self, session: &Session) -> Result<Box<dyn Outbox>, Failure> {
        let _ = (session, &self.table, &self.columns);
        match &self.from.location {
            #[cfg(feature = "postgres")]
            Location::Postgres(database, _) => {
                let database = (**database).clone();
                let (table, columns) = (self.table.as_deref(), self.columns.clone());
                let clock = std::rc::Rc::clone(&session.clock);
                Ok(Box::new(crate::relay::postgres::PostgresOutbox::open(database, table, columns, clock).await?))
            }
            #[cfg(feature = "sqlite")]
            Location::Sqlite(path) => {
                let (table, columns) = (self.table.as_deref(), self.columns.clone());
                Ok(Box::new(crate::relay::sqlite::SqliteOutbox::open(path, table, columns)?))
            }
            _ => Err(self.no_outbox()),
        }
    }

    /// Opens the relay onto a bus.
    pub(super) async fn open(&self, opened: &Opened, session: &Session) -> Result<Relay, Failure> {
        if let Some(source) = &self.source {
            let event = Event::new("id", source.as_str(), "type").build();
            event.map_err(|error| Failure::usage(format!("the source of the rows is none: {error}")))?;
        }
        let outbox = self.outbox(session).await?;
        let bus = opened.bus_handle().clone();
        Ok(Relay::new(outbox, bus, opened.bus.max_event_bytes(), self.source.clone()))
    }
}

/// What a relay has done by its end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moved {
    pub(super) moved: u64,
    pub(super) parked: u64,
    pub(super) is_other: bool,
}

impl Moved {
    fn add(&mut self, pass: Pass) {
        self.moved += pass.moved;
        self.parked += pass.parked;
        self.is_other = pass.is_other;
    }

    /// As text: `12 moved, 1 parked`.
    pub(super) fn text(self) -> String {
        match (self.moved, self.parked) {
            (0, 0) if self.is_other => "another relay is active".to_owned(),
            (moved, 0) => format!("{} moved", style::thousands(moved)),
            (moved, parked) => format!("{} moved, {} parked", style::thousands(moved), style::thousands(parked)),
        }
    }
}

/// Moves what is there, then ends.
pub(super) async fn once(relay: &mut Relay) -> Result<Moved, StoreError> {
    let mut all = Moved::default();
    loop {
        let pass = relay.pass().await?;
        all.add(pass);
        if pass.is_other || !pass.has_more {
            return Ok(all);
        }
    }
}

/// Moves rows as they come, until it is told to stop. A database or a bus that does not answer is waited for.
///
/// # Errors
/// What waiting does not mend.
pub(super) async fn follow(
    name: &str,
    relay: &mut Relay,
    session: &Session,
    mut stop: watch::Receiver<Stop>,
) -> Result<Moved, StoreError> {
    let clock = &*session.clock;
    let mut all = Moved::default();
    let mut trouble = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let (mut in_trouble, mut last_row) = (false, clock.elapsed());
    while *stop.borrow() == Stop::No {
        // A pass that was begun is ended: what it has emitted is deleted.
        let pause = match relay.pass().await {
            Ok(pass) => {
                if !pass.is_other && std::mem::take(&mut in_trouble) {
                    output::note(&format!("relay '{name}' goes on"));
                    trouble = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
                }
                if pass.parked > 0 {
                    let what = style::plural(pass.parked, "row");
                    let shows = match name.contains(':') {
                        true => format!("evbus relay --from {name} --parked"),
                        false => format!("evbus dead ls --relay {name}"),
                    };
                    output::warn(&format!("relay '{name}': {what} parked; {shows} shows why"));
                }
                all.add(pass);
                if pass.moved + pass.parked > 0 {
                    last_row = clock.elapsed();
                }
                match clock.elapsed().saturating_sub(last_row) {
                    _ if pass.has_more => Duration::ZERO,
                    _ if pass.is_other => Duration::from_secs(1),
                    idle if idle < LIVELY => PAUSES.0,
                    _ => PAUSES.1,
                }
            }
            Err(error) if error.kind() == ErrorKind::Unavailable || error.kind() == ErrorKind::Full => {
                if !std::mem::replace(&mut in_trouble, true) {
                    output::warn(&format!("relay '{name}' waits: {error}"));
                }
                trouble.take()
            }
            Err(error) => return Err(error),
        };
        if pause.is_zero() {
            continue;
        }
        tokio::select! { biased;
            changed = stop.changed() => if changed.is_err() { break },
            () = relay.changed() => {}
            () = clock.sleep_until(clock.elapsed() + pause) => {}
        }
    }
    Ok(all)
}

/// The longest pause before a relay that has failed is tried again.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Runs a relay of the config beside the workers, until it is told to stop. One that fails is reported and tried again: an
/// operator may mend its database while the workers go on.
pub(super) async fn follow_planned(
    plan: &RelayPlan,
    opened: &Opened,
    session: &Session,
    mut stop: watch::Receiver<Stop>,
) {
    let clock = &*session.clock;
    let first = Backoff::new(Duration::from_secs(1), LONGEST_PAUSE);
    let (mut backoff, mut said) = (first, String::new());
    while *stop.borrow() == Stop::No {
        let begun = clock.elapsed();
        let ran = async {
            let mut relay = plan.open(opened, session).await?;
            output::note(&format!("relay '{}': moving rows from {}", plan.name, plan.from.display));
            Ok::<_, Failure>(follow(&plan.name, &mut relay, session, stop.clone()).await?)
        };
        let Err(failure) = ran.await else { return };
        // One that has run for a while has not failed again and again.
        if clock.elapsed().saturating_sub(begun) > LONGEST_PAUSE {
            backoff = first;
        }
        let failure = failure.context(&format!("relay '{}' waits", plan.name));
        if failure.message() != said {
            failure.message().clone_into(&mut said);
            failure.report();
        }
        let pause = backoff.take();
        tokio::select! { biased;
            changed = stop.changed() => if changed.is_err() { return },
            () = clock.sleep_until(clock.elapsed() + pause) => {}
        }
    }
}

/// Runs the relays of the config once. Returns whether all went well.
pub(super) async fn once_all(plans: &[RelayPlan], opened: &Opened, session: &Session, is_quiet: bool) -> bool {
    let mut all_well = true;
    for plan in plans {
        let ran = async {
            let mut relay = plan.open(opened, session).await?;
            Ok::<_, Failure>(once(&mut relay).await?)
        };
        match ran.await {
            Ok(moved) if !is_quiet && moved.moved + moved.parked > 0 => {
                output::note(&format!("relay '{}': {}", plan.name, moved.text()));
            }
            Ok(_) => {}
            Err(failure) => {
                all_well = false;
                failure.context(&format!("relay '{}'", plan.name)).report();
            }
        }
    }
    all_well
}
