//! Sharing a group's shards between its workers: a worker that owns fewer asks one that owns more.

use std::collections::BTreeMap;
use std::time::Duration;

use super::shard::Shard;
use super::{Command, Engine, ShardSlot};
use crate::group::request::Request;

impl Engine {
    /// Asks the worker that holds the most shards with work for some of them, if it holds at least
    /// two more than this worker owns.
    pub(super) fn ask_for_a_share(&mut self) {
        let now = self.now();
        let all_seen = self.shards.iter().all(|shard| shard.owned.is_some() || (shard.seen && !shard.scanning));
        if self.draining() || self.paused() || self.is_stopping() || now < self.share_at || !all_seen {
            return;
        }
        let own = self.shards.iter().filter(|shard| shard.owned.is_some()).count();
        let mut held: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, shard) in self.shards.iter().enumerate() {
            if let Some(holder) = shard.holder.as_deref().filter(|_| shard.owned.is_none()) {
                held.entry(holder).or_default().push(at);
            }
        }
        let most = held.into_iter().max_by_key(|(_, shards)| shards.len());
        let Some((of, most)) = most.filter(|(_, shards)| shards.len() >= own + 2) else { return };
        let of = of.to_owned();
        // The owner gives each asking worker as many shards as make them even.
        self.share_at = now + self.settings.lease.length / 3;
        let Some(shard) = most.last().and_then(|at| u16::try_from(*at).ok()) else { return };
        let request = Request::Share { of, by: self.me.worker.clone(), owns: own };
        self.command(Command::Ask { shard, request });
    }

    /// Hands shards to the workers that have asked this one, each to the worker with the fewest,
    /// until they have as many as this worker keeps.
    pub(super) fn rebalance(&mut self) {
        let now = self.now();
        let mut others: BTreeMap<String, usize> = BTreeMap::new();
        for asked in &self.control.pending {
            let Some(Request::Share { of, by, owns }) = &asked.request else { continue };
            let shard = self.shards.get(usize::from(asked.shard)).and_then(|slot| slot.owned.as_deref());
            let new = shard.is_some_and(|shard| !shard.marker.folded.contains(&asked.id));
            if new && *of == self.me.worker {
                others.insert(by.clone(), *owns);
            }
        }
        // The asking workers did not count the shards that are being handed to them.
        for slot in &self.shards {
            let on_its_way = now < slot.handoff_at + self.settings.lease.length / 3;
            let to = match slot.owned.as_deref() {
                Some(shard) => shard.handing_off.as_ref(),
                None => slot.handoff.as_ref().filter(|_| on_its_way),
            };
            if let Some(owns) = to.and_then(|to| others.get_mut(to)) {
                *owns += 1;
            }
        }
        let owned = self.shards.iter_mut().filter_map(|slot| slot.owned.as_deref_mut());
        let mut owned: Vec<&mut Shard> =
            owned.filter(|shard| !shard.releasing && shard.handing_off.is_none()).collect();
        while let Some((by, owns)) =
            others.iter_mut().min_by_key(|(_, owns)| **owns).filter(|(_, owns)| **owns + 1 < owned.len())
            && let Some(shard) = owned.pop()
        {
            shard.handing_off = Some(by.clone());
            *owns += 1;
        }
    }

    /// When to read the requests. A worker with shards to give reads them more often: with a full
    /// window it makes no polls, which would show them, while the asking worker waits.
    pub(super) fn ask_at(&self) -> Duration {
        let has_work = |slot: &&ShardSlot| slot.owned.as_deref().is_some_and(|shard| shard.waiting_len() > 0);
        match self.shards.iter().filter(has_work).count() {
            0 | 1 => self.control.ask_at,
            _ => self.control.ask_at.min(self.control.asked_last + self.settings.lease.length / 3),
        }
    }

    /// Whether a shard is left to another worker, which has asked for it. A drain keeps its shards:
    /// it ends soon enough.
    pub(super) fn hands_off(&self, shard: &Shard) -> bool {
        shard.handing_off.is_some() && !self.draining()
    }
}
