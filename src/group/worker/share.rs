//! Sharing a group's shards between its workers: who owns fewer asks who holds more.

use std::collections::BTreeMap;

use super::*;

impl Worker {
    /// Asks the worker that holds the most shards with work for half of what it holds more than I own.
    pub(super) fn ask_for_a_share(&mut self) {
        let now = self.now();
        let all_seen = self.shards.iter().all(|shard| shard.owned.is_some() || (shard.seen && !shard.looking));
        if self.draining() || self.paused() || self.told_to_end() || now < self.share_at || !all_seen {
            return;
        }
        let mine = self.shards.iter().filter(|shard| shard.owned.is_some()).count();
        let mut held: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, shard) in self.shards.iter().enumerate() {
            if let Some(holder) = shard.holder.as_deref().filter(|_| shard.owned.is_none()) {
                held.entry(holder).or_default().push(at);
            }
        }
        let Some(most) = held.into_values().max_by_key(Vec::len).filter(|most| most.len() >= mine + 2) else { return };
        self.share_at = now + self.settings.lease.length;
        for at in most.iter().rev().take((most.len() - mine) / 2) {
            let (desk, with) = (self.desk.clone(), self.me.worker.clone());
            let shard = u16::try_from(*at).unwrap_or(u16::MAX);
            self.shards[*at].look_at = now + Duration::from_secs(1);
            self.ops.push(Box::pin(async move {
                // One that does not arrive is asked for again.
                let _ = request::ask(&desk.place, &desk.group, shard, &request::Request::Share { with }).await;
                Ended::Sent
            }));
        }
    }

    /// Whether a shard is left to another worker, who asked for it. A drain keeps what it has: it ends soon enough.
    pub(super) fn yields(&self, shard: &Shard) -> bool {
        shard.yielding && !self.draining()
    }
}
