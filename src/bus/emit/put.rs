//! Puts that are sure of their outcome: repeated while the store does not answer, and read back where
//! an answer may belong to another writer, or to an earlier try.

use std::time::Duration;

use crate::bus::BusHandle;
use crate::clock::{Backoff, Fut};
use crate::store::{ErrorKind, Gate, Item, Put, StoreResult, get_durable};

/// Puts on one bus, which give up on a store that does not answer after a time-out.
pub(super) struct SurePuts {
    pub bus: BusHandle,
    pub timeout: Duration,
}

/// A gate of all items, for the items from an index on.
struct GateFrom<'a> {
    gate: &'a dyn Gate,
    at: usize,
}

impl Gate for GateFrom<'_> {
    fn opens(&self, at: usize) -> Fut<'_, StoreResult<bool>> {
        self.gate.opens(self.at + at)
    }

    fn chain(&self, at: usize) -> Option<u64> {
        self.gate.chain(self.at + at)
    }

    fn is_always_open(&self) -> bool {
        self.gate.is_always_open()
    }
}

impl SurePuts {
    /// Puts the items in order, each only once the one before it is there and `gate` opens for it,
    /// so that an ordered group sees them in order. An item that the gate refuses is not put.
    /// Returns the indices of the items whose keys another writer had taken.
    pub(super) async fn put_in_order(&self, items: &[Item], gate: &dyn Gate) -> StoreResult<Vec<usize>> {
        let mut taken = Vec::new();
        let mut at = 0;
        while at < items.len() {
            let from = GateFrom { gate, at };
            let answers = match self.bus.store.put_gated(&items[at..], &from).await {
                Ok(answers) => answers,
                // Which of them arrived is unknown: the same names are put again, the first by
                // itself.
                Err(error) if error.kind() == ErrorKind::Unavailable => vec![Put::Exists],
                Err(error) => return Err(error),
            };
            if answers.is_empty() {
                return Ok(taken);
            }
            for answer in answers {
                if answer == Put::Exists {
                    if !self.retry(async || gate.opens(at).await).await? {
                        return Ok(taken);
                    }
                    let (key, bytes) = &items[at];
                    if self.put_and_read_back(key, bytes).await?.is_some() {
                        taken.push(at);
                    }
                }
                at += 1;
            }
        }
        Ok(taken)
    }

    /// Makes sure that `bytes` are at `key`, durably: puts until a `get` shows whose content the
    /// key has. Returns what another writer has put there; none if the content is `bytes`.
    pub(super) async fn put_and_read_back(&self, key: &str, bytes: &[u8]) -> StoreResult<Option<Vec<u8>>> {
        let store = &self.bus.store;
        loop {
            if let Some(object) = self.retry(async || get_durable(&**store, key).await).await? {
                return Ok((object.bytes != bytes).then_some(object.bytes));
            }
            let put = self.retry(async || store.put_new(key, bytes).await).await?;
            if put == Put::Created {
                return Ok(None);
            }
        }
    }

    /// Repeats an operation that is harmless to repeat until the store answers or the timeout ends.
    pub(super) async fn retry<T>(&self, mut operation: impl AsyncFnMut() -> StoreResult<T>) -> StoreResult<T> {
        let clock = &self.bus.clock;
        let deadline = clock.elapsed() + self.timeout;
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
        loop {
            match operation().await {
                Err(error)
                    if error.kind() == ErrorKind::Unavailable && clock.elapsed() + backoff.pause() < deadline =>
                {
                    backoff.wait(&**clock).await;
                }
                answer => return answer,
            }
        }
    }
}
