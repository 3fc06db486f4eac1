//! `evbus tail` through a server: long polls, each from the cursor of the one before.

use std::time::Duration;

use super::reader_is_gone;
use crate::cli::exit::Code;
use crate::cli::failure::Failure;
use crate::cli::ls::line::{LineEvent, LineFormatter};
use crate::cli::output::{self, Out};
use crate::clock::{Backoff, Clock};
use crate::event::{Event, EventName, EventTime, HashSlot, Identity};
use crate::recent::Recent;
use crate::remote::{MOST_EVENTS, ReadQuery, Server};

/// How many seconds a request waits for events. Between two requests it is looked whether anybody reads
/// the output.
const WAIT: u64 = 10;

/// How many events are remembered, so that none is shown twice.
const SHOWN: usize = 10_000;

/// The pauses between requests to a server that does not answer.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));

/// Prints the last events of those that are there, or all from a time on, and then each that comes.
pub(super) async fn follow(
    server: &Server,
    clock: &dyn Clock,
    mut line: LineFormatter,
    since: Option<EventTime>,
    lines: usize,
) -> Result<Code, Failure> {
    if (MOST_EVENTS + 1..usize::MAX).contains(&lines) {
        return Err(Failure::usage(format!("-n {lines}: a server gives at most the last {MOST_EVENTS}"))
            .help("--since 1h begins at a time"));
    }
    let query = ReadQuery {
        types: line.filter.clone(),
        since: since.map(EventTime::to_rfc3339),
        last: (lines < usize::MAX).then_some(lines),
    };
    let mut query = Server::query(&query);
    let (mut out, mut retry, mut is_away) = (Out::new(), RETRY, false);
    let mut shown = Recent::new(SHOWN);
    loop {
        let batch = match server.events(&query, WAIT).await {
            Ok(batch) => batch,
            Err(error) if error.is_temporary() => {
                if !std::mem::replace(&mut is_away, true) {
                    output::warn(&error.to_string());
                }
                retry.wait(clock).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        (retry, is_away) = (RETRY, false);
        if let Some(gap) = batch.gap {
            output::warn(&format!("events up to {gap} were pruned before they could be shown"));
        }
        line.now = clock.now();
        for document in batch.events {
            let bytes = document.get().as_bytes();
            let Ok(event) = Event::parse(bytes, usize::MAX) else { continue };
            // Over a restart of the server the last seconds come again.
            if shown.get(&(event.source().to_owned(), event.id().to_owned())).is_some() {
                continue;
            }
            shown.insert((event.source().to_owned(), event.id().to_owned()), ());
            // A server does not tell when an event came to the bus: most did when they happened.
            let time = event.occurred_at().unwrap_or(line.now);
            let identity = Identity::named(event.source(), event.id());
            let name = EventName::new(time, HashSlot::of(""), &identity, event.type_());
            if let Some(text) = line.text(&LineEvent::new(&name, bytes), 0) {
                out.line(&text)?;
            }
        }
        out.flush()?;
        if reader_is_gone() {
            return Ok(Code::Done);
        }
        query = batch.next;
    }
}
