//! Errors of operations that go on trying, which the worker must know at once.

use std::cell::RefCell;

use tokio::sync::Notify;

use crate::store::StoreError;

/// The errors that operations have met which go on trying.
#[derive(Default)]
pub(super) struct Troubles {
    last: RefCell<Option<StoreError>>,
    changed: Notify,
}

impl Troubles {
    /// An operation has failed, and tries again.
    pub fn record(&self, error: StoreError) {
        *self.last.borrow_mut() = Some(error);
        self.changed.notify_one();
    }

    /// Completes when an error was met.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The last error, once.
    pub fn take(&self) -> Option<StoreError> {
        self.last.borrow_mut().take()
    }
}
