//! The start and the end of a run.

use std::time::Duration;

use super::{Launch, RunningEvent, Shard};
use crate::bus::keys;
use crate::event::{EventName, EventTime, Identity};
use crate::group::marker::Verdict;
use crate::group::verdict::Fingerprint;

impl Shard {
    /// Reserves the event's place in `pending`. An event that runs alone starts only after the
    /// commit that counts its attempt (`None`).
    pub fn start(&mut self, name: &EventName, alone: bool, now: Duration) -> Option<Launch> {
        self.waiting.remove(name);
        let attempt = self.marker.attempt(name);
        if alone {
            self.marker.count_before_run(name);
            self.dirty = true;
        }
        self.running.insert(name.clone(), RunningEvent { attempt, alone, launched: !alone });
        self.last_active = now;
        (!alone).then(|| self.launch(name, attempt))
    }

    /// The launch of an event that was started alone, once its attempt is committed.
    pub fn launch_counted(&mut self, name: &EventName) -> Option<Launch> {
        let attempt = self.running.launch(name)?;
        Some(self.launch(name, attempt))
    }

    fn launch(&self, name: &EventName, attempt: u32) -> Launch {
        let dead_letter = self.marker.pending.get(name).and_then(|pending| pending.redriven_dead_letter.clone());
        // A redriven event must run, even as a copy.
        let copy_of = Identity::parse(name.identity()).and_then(|identity| self.succeeded.contents.get(&identity));
        let copy_of = copy_of.copied().filter(|_| dead_letter.is_none());
        Launch { name: name.clone(), attempt, dead_letter, copy_of }
    }

    /// Whether an event must run alone, even if the others need not.
    pub fn poison_candidate(&self, name: &EventName) -> bool {
        self.marker.pending.get(name).is_some_and(|pending| pending.poison_candidate)
    }

    /// Whether all attempts of an event are used up although none has ended with a verdict.
    pub fn exhausted(&self, name: &EventName, max_attempts: u32) -> bool {
        self.marker
            .pending
            .get(name)
            .is_some_and(|pending| pending.poison_candidate && pending.attempts >= max_attempts)
    }

    /// Records a verdict. `ran`: its handler ran to success here, for this content.
    pub fn settle(&mut self, name: &EventName, verdict: Verdict, ran: Option<Fingerprint>, now: Duration) {
        if !self.running.remove(name) {
            // An event that is given up without another run was not started.
            self.waiting.remove(name);
        }
        if let Some(content) = ran {
            self.succeeded.insert(name, content, self.bounds.window);
        }
        if verdict == Verdict::Done
            && let Some(dead_letter) =
                self.marker.pending.get(name).and_then(|pending| pending.redriven_dead_letter.clone())
        {
            self.deletes.push(keys::dead_letter(&self.group, &dead_letter));
        }
        let again = verdict == Verdict::Release;
        if again && !self.marker.pending.contains_key(name) && !self.marker.through.covers(name) {
            self.waiting.insert(name.clone());
            self.latest.look_anew();
        }
        if matches!(verdict, Verdict::Done | Verdict::Dead { .. }) {
            self.latest.forget(name);
        }
        if !again {
            self.marker.unclean = 0;
        }
        self.marker.record_verdict(name, verdict);
        self.dirty = true;
        self.last_active = now;
    }

    /// Gives up an event that is [`Shard::exhausted`]. Returns its attempts, which do not change.
    pub fn settle_exhausted(&mut self, name: &EventName, verdict: Verdict, now: Duration) -> u32 {
        // This verdict is no sign that handlers come back, so isolation mode goes on.
        let unclean = self.marker.unclean;
        self.settle(name, verdict, None, now);
        self.marker.unclean = unclean;
        let Some(pending) = self.marker.pending.get_mut(name) else { return 0 };
        // No run ended here, so no attempt counts.
        pending.attempts -= 1;
        pending.attempts
    }

    /// The event could not be read: it goes back to where it was, and costs no attempt.
    pub fn unread(&mut self, name: &EventName, retry_at: EventTime, why: String) {
        self.running.remove(name);
        let verdict = Verdict::Release;
        self.marker.record_verdict(name, verdict);
        let pending = self.marker.pending.entry(name.clone()).or_default();
        pending.next = Some(retry_at);
        pending.why = Some(why);
        self.dirty = true;
    }

    /// An event's letter is on the bus. A reset may have sent the event back to work meanwhile.
    pub fn dead_letter_written(&mut self, name: &EventName, letter: &str) {
        self.writing_dead_letters.remove(letter);
        if !self.marker.announces(name, letter) {
            return;
        }
        if let Some(redriven) = self.marker.dead_letter_written(name) {
            self.deletes.push(keys::dead_letter(&self.group, &redriven));
        }
        self.dirty = true;
    }

    /// A letter could not be written now.
    pub fn dead_letter_not_written(&mut self, letter: &str) {
        self.writing_dead_letters.remove(letter);
        self.dirty = true;
    }
}
