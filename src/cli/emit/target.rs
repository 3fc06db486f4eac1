//! Where events go: to the bus itself, or to a server before it.

use std::rc::Rc;
use std::time::Duration;

use crate::bus::emit::{AckKind, Draft, Emitter};
use crate::cli::failure::Failure;
use crate::clock::{Backoff, Clock};
use crate::event::EventName;
use crate::remote::{RemoteError, Server};

/// The most events of a request to a server.
const EVENTS: usize = 1_000;

/// The pauses before a server is asked again.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Where the events go.
pub(super) enum Target {
    Bus(Box<Emitter>),
    Server(RemoteEmitter),
    /// Nowhere: what would be emitted is only printed.
    Nowhere,
}

/// How an event was acknowledged.
pub(super) struct Sent {
    pub kind: AckKind,
    /// Its name on the bus, where that is known.
    pub name: Option<EventName>,
}

impl Target {
    /// How many events go together.
    pub fn batch(&self) -> usize {
        match self {
            Self::Bus(emitter) => emitter.batch(),
            Self::Server(server) => server.most,
            Self::Nowhere => EVENTS,
        }
    }
}

/// Emits through a server.
pub(super) struct RemoteEmitter {
    pub server: Server,
    pub clock: Rc<dyn Clock>,
    pub timeout: Duration,
    /// The most events that this server takes together, as far as is known.
    most: usize,
}

impl RemoteEmitter {
    /// An emitter that gives up on a server that does not answer after `timeout`.
    pub fn new(server: Server, clock: Rc<dyn Clock>, timeout: Duration) -> Self {
        Self { server, clock, timeout, most: EVENTS }
    }

    /// Emits the first of these events: all, unless that is too much for a request of this server.
    pub async fn emit(&mut self, drafts: &[Draft]) -> Result<Vec<Sent>, Failure> {
        loop {
            let part = &drafts[..drafts.len().min(self.most)];
            match self.emit_together(part).await {
                // Nothing of it is on the bus.
                Err(error) if error.is_too_large_together() && part.len() > 1 => self.most = part.len().div_ceil(2),
                sent => return Ok(sent?),
            }
        }
    }

    /// Emits events by one request. Their ids are their own, so that it may be repeated.
    async fn emit_together(&self, drafts: &[Draft]) -> Result<Vec<Sent>, RemoteError> {
        let until = self.clock.elapsed() + self.timeout;
        let mut retry = RETRY;
        loop {
            let left = until.saturating_sub(self.clock.elapsed());
            let error = match self.server.emit(drafts.iter().map(Draft::document), left).await {
                Ok(duplicates) => {
                    // Only of a single event it is known which one was there before.
                    let kind = if duplicates > 0 && drafts.len() == 1 { AckKind::Duplicate } else { AckKind::New };
                    return Ok(drafts.iter().map(|_| Sent { kind, name: None }).collect());
                }
                Err(RemoteError::Refused { status: 409, places, .. }) if !places.is_empty() => {
                    let kind = |place| if places.contains(&place) { AckKind::IdTaken } else { AckKind::New };
                    return Ok((0..drafts.len()).map(|place| Sent { kind: kind(place), name: None }).collect());
                }
                Err(error) => error,
            };
            let asked = match &error {
                RemoteError::Refused { retry_after: Some(pause), .. } => *pause,
                _ => Duration::ZERO,
            };
            let pause = retry.take().max(asked);
            if !error.is_temporary() || self.clock.elapsed() + pause >= until {
                return Err(error);
            }
            self.clock.sleep_until(self.clock.elapsed() + pause).await;
        }
    }
}
