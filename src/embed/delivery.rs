//! What a handler gets, and what it answers.

use std::ops::Deref;

use serde::de::DeserializeOwned;

use crate::event::{Data, Event};

/// An event that is delivered to a handler. It dereferences to the [`Event`].
#[derive(Debug, Clone)]
pub struct Delivery {
    pub(super) event: Event,
    pub(super) group: String,
    pub(super) attempt: u32,
}

impl Delivery {
    /// The group that it is delivered for.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Which attempt it is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The data, where it is JSON; an event without data reads as `null`.
    ///
    /// # Errors
    /// The data is no JSON, or not of this form.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match self.event.data() {
            Data::Json(raw) => serde_json::from_str(raw.get()),
            _ => serde_json::from_str("null"),
        }
    }
}

impl Deref for Delivery {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}

/// Why a handler failed. Every error converts into one that is tried again.
#[derive(Debug)]
pub struct HandlerError {
    pub(super) why: String,
    pub(super) dead: bool,
}

impl HandlerError {
    /// The event is tried again, with growing pauses, until its attempts are used up.
    pub fn retry(why: impl Into<String>) -> Self {
        Self { why: why.into(), dead: false }
    }

    /// Another attempt would fail as well: the event becomes a dead letter at once.
    pub fn dead(why: impl Into<String>) -> Self {
        Self { why: why.into(), dead: true }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let mut why = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            why = format!("{why}: {cause}");
            source = cause.source();
        }
        Self::retry(why)
    }
}

/// What a handler may return: nothing, or a `Result`.
pub trait HandlerResult {
    /// How the attempt ended.
    ///
    /// # Errors
    /// It failed.
    fn into_result(self) -> Result<(), HandlerError>;
}

impl HandlerResult for () {
    fn into_result(self) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl<E: Into<HandlerError>> HandlerResult for Result<(), E> {
    fn into_result(self) -> Result<(), HandlerError> {
        self.map_err(Into::into)
    }
}
