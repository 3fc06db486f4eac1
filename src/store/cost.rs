//! The number of requests, where each has its price.

use serde::{Deserialize, Serialize};

/// Requests made of a store that charges for each, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Requests {
    /// Writes, conditional or not, with their repeats.
    pub puts: u64,
    /// Reads of one object.
    pub gets: u64,
    /// Pages of listings.
    pub lists: u64,
    /// Removals, of one object or of many.
    pub deletes: u64,
}

impl Requests {
    /// Whether there are no requests.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The requests since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            puts: self.puts.saturating_sub(earlier.puts),
            gets: self.gets.saturating_sub(earlier.gets),
            lists: self.lists.saturating_sub(earlier.lists),
            deletes: self.deletes.saturating_sub(earlier.deletes),
        }
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            puts: self.puts + more.puts,
            gets: self.gets + more.gets,
            lists: self.lists + more.lists,
            deletes: self.deletes + more.deletes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_since_and_together() {
        let million = Requests { puts: 1_000_000, gets: 1_000_000, lists: 1_000_000, deletes: 1_000_000 };
        assert_eq!(million.plus(million).since(million), million);
        assert!(million.since(million).is_none());
    }
}
