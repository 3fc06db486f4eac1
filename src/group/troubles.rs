//! Errors of operations that go on trying, which the worker must know at once.

use std::cell::RefCell;

use tokio::sync::Notify;

use crate::store::StoreError;

/// The errors that operations have met which go on trying.
#[derive(Default)]
pub(super) struct Troubles {
    last: RefCell<Option<StoreError>>,
    news: Notify,
}

impl Troubles {
    /// An operation has failed, and tries again.
    pub fn met(&self, error: StoreError) {
        *self.last.borrow_mut() = Some(error);
        self.news.notify_one();
    }

    /// Completes when an error was met.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// The last error, once.
    pub fn take(&self) -> Option<StoreError> {
        self.last.borrow_mut().take()
    }
}
