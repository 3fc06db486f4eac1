//! Events of other programs that end a chain which is too long.

use std::borrow::Cow;
use std::time::Duration;

use super::{Bus, Error, NewEvent};
use crate::bus::chain::{DEPTH, LongChain};

/// How far back events are looked for that have no id of their own: whoever may emit may ask for it.
const REACH: Duration = Duration::from_hours(1);

impl Bus {
    /// The first of these events that ends a chain which is longer than the bus allows: its place, and the chain.
    ///
    /// # Errors
    /// The bus is closed.
    pub(crate) async fn long_chain(&self, events: &[NewEvent]) -> Result<Option<(usize, LongChain)>, Error> {
        let most = self.thread.max_depth;
        let long = |(place, event): (usize, &NewEvent)| {
            let chain = LongChain::of_attribute(&event.own_extension(DEPTH)?, most, event.type_())?;
            Some((place, chain, event.own_source().to_owned(), event.own_extension("causationid").map(Cow::into_owned)))
        };
        let Some((place, chain, source, cause)) = events.iter().enumerate().find_map(long) else { return Ok(None) };
        let traced = self
            .thread
            .call(move |local| Box::pin(async move { chain.traced(&local.bus.handle, &source, cause, REACH).await }));
        Ok(Some((place, traced.await?)))
    }
}
