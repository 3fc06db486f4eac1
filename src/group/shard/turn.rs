//! What may start next: what is due again, then what waits; in an ordered group one event of a key at a time.

use super::*;

/// Whose turn it is, in an ordered group.
enum Turn {
    Free,
    Held,
    Unknown(EventName),
}

impl Shard {
    /// The next event to start: what is due again first, then what waits, in order.
    pub fn next(&self, retry: &Retry, ordered: bool, now: EventTime) -> Next {
        let due = self.marker.open.iter().filter(|(name, open)| {
            open.dead.is_none() && !self.running.contains_key(*name) && retry.due(open.next, now)
        });
        let due = due.map(|(name, _)| name);
        let room = self.open_len() < self.bounds.open;
        let fresh = self.waiting.iter().filter(|_| room);
        if !ordered {
            let mut candidates = due.chain(fresh);
            return candidates
                .find(|name| !self.copy_runs(name))
                .map_or(Next::Nothing, |name| Next::Start(name.clone()));
        }
        // A copy that runs may be gone from the bus by now, and then nobody can read its key.
        for name in due.chain(fresh.take(1_000)).filter(|name| !self.copy_runs(name)) {
            match self.turn(name) {
                Turn::Free => return Next::Start(name.clone()),
                Turn::Unknown(name) => return Next::ReadKey(name),
                Turn::Held => {}
            }
        }
        Next::Nothing
    }

    /// Whether an event of an ordered group is the first of its key that is not settled.
    fn turn(&self, name: &EventName) -> Turn {
        let lane = name.lane();
        let earlier = self.waiting.range(..name.clone()).chain(self.unconfirmed.range(..name.clone()));
        let others = self.running.keys().chain(self.marker.open.keys().filter(|open| *open < name)).chain(earlier);
        for other in others.filter(|other| *other != name && other.lane() == lane) {
            let Some(mine) = self.order_keys.get(name) else { return Turn::Unknown(name.clone()) };
            match self.order_keys.get(other) {
                None => return Turn::Unknown(other.clone()),
                // It was moved while it ran: until its run ends it may be of any key.
                Some(None) if self.running.contains_key(other) => return Turn::Held,
                Some(Some(theirs)) if *mine == Some(*theirs) => return Turn::Held,
                Some(_) => {}
            }
        }
        Turn::Free
    }

    /// Notes the hash of an event's ordering key.
    pub fn learn_key(&mut self, name: &EventName, key: Option<u64>) {
        self.order_keys.insert(name.clone(), key);
    }

    /// Whether another copy of the same event runs just now: then this one waits for its verdict.
    fn copy_runs(&self, name: &EventName) -> bool {
        self.running.keys().any(|other| other != name && other.identity() == name.identity())
    }
}
