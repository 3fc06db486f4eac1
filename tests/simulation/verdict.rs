//! What must hold once the faults have stopped, and at the end.

use std::collections::BTreeMap;
use std::rc::Rc;

use evbus::bus::look::names_at;
use evbus::event::{EVENTS, EventName};

use crate::executor::{Micros, SECOND};
use crate::handler::{Fate, fate};
use crate::plan::GroupPlan;
use crate::world::{GroupRecord, KnownEvent, World};

/// The latest arrival of a delayed put after the faults.
const LAST_PUT: Micros = 450 * SECOND;

/// By then every process that the last fault froze is thawed.
const LAST_THAW: Micros = 160 * SECOND;

/// The longest idle time of a shard with work: a lease and a poll.
const IDLE: Micros = (15 + 30) * SECOND;

/// By this time after the last acknowledgement everything must be settled, if no handler kills its
/// worker.
const PATIENCE: Micros = 1_500 * SECOND;

/// How long the events that such a handler keeps from being settled wait longer: for each of its attempts
/// the next worker, a lease, and what an ordered group holds back.
const KILLED: Micros = 5 * (30 + 15 + 60) * SECOND;

/// Runs on without faults until everything is handled, then checks the rest.
pub fn settle(world: &Rc<World>) {
    let simulation = &world.simulation;
    let begun = simulation.now();
    let mut settled_at = None;
    while simulation.trouble().is_none() {
        simulation.run_until(simulation.now() + 5 * SECOND);
        let open = missing(world);
        idle(world, begun, &open);
        let unseen = world.clients.iter().find_map(|client| client.misses(world));
        if !open.is_empty() || world.emitting.get() > 0 || unfinished(world) || unseen.is_some() {
            settled_at = None;
            // What lies an hour ahead is settled in an hour, unless a worker has something to do there.
            let ahead = if world.plan.wild_clocks && unseen.is_some() { 3_600 * SECOND } else { 0 };
            let waited = simulation.now().saturating_sub(begun + LAST_PUT + PATIENCE + ahead);
            if waited > 0 && waited > KILLED * killers(world) {
                let emitting = world.emitting.get();
                world.complain(format!("the backlog is never done: {emitting} {:?} {unseen:?}", open.first()));
            }
            continue;
        }
        let settled_at = *settled_at.get_or_insert(simulation.now());
        if simulation.now() >= settled_at + 30 * SECOND && simulation.now() >= begun + LAST_THAW {
            break;
        }
    }
    order(world);
    imported_once(world);
    quiet(world);
}

/// How many handlers kill their workers.
fn killers(world: &World) -> u64 {
    let events = world.events.borrow();
    let kills = |group: usize| events.keys().filter(|id| fate(world, group, id) == Fate::Kill).count() as u64;
    (0..world.plan.groups.len()).map(kills).sum()
}

/// An event of a bulk import lies in one segment, however often its emitter was killed. Where answers
/// are lost, a copy that was to be deleted may stay; so may one that lies alone.
fn imported_once(world: &World) {
    if !world.plan.answers_all() {
        return;
    }
    let mut copies: BTreeMap<String, Vec<EventName>> = BTreeMap::new();
    let segments = world.contents.keys(EVENTS).into_iter().filter(|key| EventName::from_key(key).is_none());
    for key in segments {
        for name in names_at(&key, &world.contents.read(&key).unwrap_or_default()) {
            if let Some(id) = world.id_of(name.as_str()).filter(|id| id.starts_with("bulk-")) {
                copies.entry(id).or_default().push(name);
            }
        }
    }
    if let Some((id, names)) = copies.iter().find(|(_, names)| names.len() > 1) {
        world.complain(format!("{id} is on the bus more than once: {names:?}"));
    }
}

/// A group, a shard, an event, and since when it is missing.
type Missing = (usize, u16, String, Micros);

fn missing(world: &World) -> Vec<Missing> {
    let groups = world.groups.borrow();
    let events = world.events.borrow();
    let mut missing = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        for known in events.values() {
            let Some((acked, name)) = &known.acked else { continue };
            if world.expected(at, group, known) && !group.is_settled(Some(known), &known.id, name) {
                let since = (*acked).max(group.created);
                missing.push((at, name.hash_slot().shard(group.shards()), known.id.clone(), since));
            }
        }
        for event in group.redrives.values() {
            let id = world.id_of(event.as_str()).unwrap_or_default();
            missing.push((at, event.hash_slot().shard(group.shards()), id, 0));
        }
        for marker in group.markers.values() {
            for name in marker.pending.keys() {
                let id = world.id_of(name.as_str()).unwrap_or_default();
                missing.push((at, name.hash_slot().shard(group.shards()), id, 0));
            }
        }
    }
    missing.sort();
    missing
}

/// Whether an event on the bus, acknowledged or not, has still to run in a group.
fn unfinished(world: &World) -> bool {
    let (groups, events) = (world.groups.borrow(), world.events.borrow());
    let wanted = |group: &GroupRecord, name: &EventName| {
        let known = world.id_of(name.as_str()).and_then(|id| events.get(&id));
        known.is_some_and(|known| group.filter.matches(&known.type_) || group.wants(known))
    };
    groups.iter().filter(|group| group.definition.is_some()).any(|group| {
        world.present.borrow().iter().filter(|name| wanted(group, name)).any(|name| {
            let marker = group.markers.get(&name.hash_slot().shard(group.shards()));
            marker.map_or_else(|| !group.through(0).covers(name), |marker| marker.is_unprocessed(name))
        })
    })
}

/// No shard with due work stays idle longer than a lease and a poll while there is a worker for it.
fn idle(world: &World, begun: Micros, missing: &[Missing]) {
    let now = world.simulation.now();
    let groups = world.groups.borrow();
    for (at, shard, id, since) in missing {
        let group = &groups[*at];
        if group.paused || world.occupied(*at, *shard) {
            continue;
        }
        let active = group.active.get(shard).copied().unwrap_or(0);
        let from = active.max(*since).max(begun + LAST_THAW).max(group.resumed).max(group.staffed);
        let pending = group.markers.get(shard).map(|marker| &marker.pending);
        let retried = pending.is_some_and(|pending| {
            pending
                .iter()
                .any(|(name, pending)| pending.next.is_some() && world.id_of(name.as_str()).as_ref() == Some(id))
        });
        let pause = if retried { world.plan.retry.max.as_micros() as Micros } else { 0 };
        // A new owner of an ordered group holds back the rest of a segment.
        let ordered = world.plan.groups[*at].ordered && world.plan.has_segments();
        let hold = if ordered { 2 * world.plan.profile.lag.as_micros() as Micros } else { 0 };
        if now > from + IDLE + pause + hold {
            world.complain(format!(
                "{}/{shard} has {id} to do and does nothing for {} s",
                group.name,
                (now - from) / SECOND
            ));
            return;
        }
    }
}

/// Events of one emitter and key are first settled in the order of their emission.
fn order(world: &World) {
    let groups = world.groups.borrow();
    let events = world.events.borrow();
    // Where only the latest is run, an earlier one may be run once the later one has turned out to be none.
    let promises = |plan: &GroupPlan| plan.ordered && plan.latest.is_none();
    for (at, group) in groups.iter().enumerate().filter(|(at, _)| promises(&world.plan.groups[*at])) {
        let mut rows: Vec<&KnownEvent> = events
            .values()
            .filter(|known| known.order.is_some() && known.key.is_some() && world.expected(at, group, known))
            .collect();
        rows.sort_by_key(|known| (known.key.clone(), known.order));
        for (at, later) in rows.iter().enumerate() {
            for earlier in &rows[..at] {
                if earlier.key == later.key && earlier.order.map(|o| o.0) == later.order.map(|o| o.0) {
                    in_order(world, group, earlier, later);
                }
            }
        }
    }
}

fn in_order(world: &World, group: &GroupRecord, earlier: &KnownEvent, later: &KnownEvent) {
    let (Some(first), Some(second)) = (group.runs.get(&earlier.id), group.runs.get(&later.id)) else { return };
    // A copy that its emitter had given up and deleted may appear late, out of order: it was never
    // acknowledged.
    let late = |name: &String| world.late_copies.borrow().contains(name.as_str());
    if let (Some(settled), Some((started, name))) = (first.first_settled, &second.first_start)
        && *started < settled
        && !late(name)
    {
        world.complain(format!(
            "{}: {} was started at {started} before {} of the same key and emitter was settled at {settled}",
            group.name, later.id, earlier.id
        ));
    }
}

/// An idle bus writes nothing and sends only its polls; events whose time comes may still move.
fn quiet(world: &Rc<World>) {
    world.prunes.set(false);
    // Owners give idle shards back after a minute.
    world.simulation.run_until(world.simulation.now() + 130 * SECOND);
    let mut noise = None;
    for _ in 0..4 {
        noise = noise_of(world, 2);
        if noise.is_none() || world.simulation.trouble().is_some() {
            return;
        }
    }
    world.complain(noise.unwrap_or_default());
}

/// Writes and requests of an idle bus over its limit; none if it keeps the limit.
fn noise_of(world: &Rc<World>, minutes: u64) -> Option<String> {
    let (asked, written) = (world.asked.get(), world.written.get());
    world.simulation.run_until(world.simulation.now() + minutes * 60 * SECOND);
    let (asked, written) = (world.asked.get() - asked, world.written.get() - written);
    world.log_line(|| format!("idle for {minutes} minutes: {asked} requests, {written} writes"));
    if written > 0 {
        return Some(format!("an idle bus wrote {written} times in {minutes} minutes"));
    }
    // A listing is read in pages, and events in a worker's future are listed again each time.
    let listed = if world.plan.lists_with_tail { world.contents.keys("").len() } else { world.present.borrow().len() };
    let pages = (listed / world.plan.page_len) as u64 + 2;
    // A cancelled entry leaves its decision for a day.
    let pages_of_scheduled = (world.contents.keys("timed/").len() / world.plan.page_len) as u64 + 1;
    let groups = world.plan.groups.iter();
    let most: u64 = groups
        .map(|group| {
            // Each half minute, each watcher: events, requests, the definition, the markers.
            let listings = (world.present.borrow().len() / group.bounds.window) as u64 + 1;
            // Scheduled entries are listed, too.
            let mut each = pages + 2 + pages_of_scheduled + listings * 2 + u64::from(group.shards);
            if world.present.borrow().len() > 2 * group.bounds.window {
                // With more events in its future than a watcher remembers, it scans each shard
                // again, and once more for the new ones.
                each += 2 * u64::from(group.shards) * (pages + 2);
            }
            let watching = group.watchers as u64 * (minutes * 2 + 1) * each;
            // Every few seconds, each drain: the definition, requests, and each shard's marker, W
            // and events.
            let draining = 2 + pages_of_scheduled + u64::from(group.shards) * (pages + 2);
            watching + group.drains as u64 * minutes * 12 * draining
        })
        .sum();
    (asked > most).then(|| format!("an idle bus was asked {asked} times in {minutes} minutes, more than {most}"))
}
