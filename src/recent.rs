//! A map that forgets what was not used for long.

use std::collections::HashMap;
use std::hash::Hash;

/// The entries that were used last: so many at least, and twice as many at most.
#[derive(Debug)]
pub struct Recent<K, V> {
    least: usize,
    newer: HashMap<K, V>,
    older: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// An empty map that keeps at least so many entries.
    pub fn new(least: usize) -> Self {
        Self { least, newer: HashMap::new(), older: HashMap::new() }
    }

    /// Adds an entry, as the newest.
    pub fn insert(&mut self, key: K, value: V) {
        if self.newer.len() >= self.least {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(key, value);
    }

    /// The value of a key that was inserted lately.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.newer.get(key).or_else(|| self.older.get(key))
    }

    /// The value of a key; if it is not there, what `make` gives. It is the newest entry then.
    pub fn get_or_insert(&mut self, key: K, make: impl FnOnce(&K) -> V) -> V
    where
        V: Copy,
    {
        if let Some(value) = self.newer.get(&key) {
            return *value;
        }
        let value = self.older.get(&key).copied().unwrap_or_else(|| make(&key));
        self.insert(key, value);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays() {
        let mut recent = Recent::new(2);
        for key in 0..10 {
            recent.insert(key, key);
            assert_eq!(recent.get_or_insert(0, |_| 7), 0, "it is used all the time");
        }
        assert_eq!((recent.get(&9), recent.get(&3)), (Some(&9), None));
        assert_eq!(recent.get_or_insert(3, |key| key + 10), 13);
    }
}
