//! What must hold after every change of the store.

use std::rc::Rc;

use evbus::bus::look::names_at;
use evbus::event::{EventName, EventTime};
use evbus::group::dead_letter::DeadLetter;
use evbus::group::{Marker, Position};

use crate::rng;
use crate::world::{GroupRecord, World};

/// Watches the store.
pub fn observe(world: &Rc<World>) {
    let watching = Rc::downgrade(world);
    world.contents.observe(Box::new(move |key, old, new| {
        let Some(world) = watching.upgrade() else { return };
        world.simulation.note(rng::hash(key).rotate_left(7) ^ u64::from(new.is_some()));
        changed(&world, key, old, new);
        notify(&world);
    }));
}

/// Sends hints, sometimes, and sometimes for no reason.
fn notify(world: &Rc<World>) {
    if !world.plan.hints {
        return;
    }
    let rng = &world.simulation.rng;
    world.notifiers.borrow_mut().retain(|(process, _)| !process.dead());
    for (_, notifier) in world.notifiers.borrow().iter() {
        if !rng.chance(world.plan.hints_lost) {
            let notifier = Rc::clone(notifier);
            world.simulation.later(rng.around(20_000.0) as u64, move || notifier.notify());
        }
    }
}

/// Takes a change back that was not flushed. No actor has made this change, so it is not checked.
fn rewound(world: &World, key: &str, new: Option<&[u8]>) {
    world.log_line(|| format!("{key} is as it was before: {}", new.is_some()));
    if key == "frontier" {
        return world.frontier.set(new.map_or(EventTime::MIN, w_of));
    }
    let mut groups = world.groups.borrow_mut();
    for group in groups.iter_mut() {
        if key == evbus::bus::keys::group(&group.name) {
            group.definition = new.map(|bytes| serde_json::from_slice(bytes).unwrap());
            group.paused = group.definition.as_ref().is_some_and(|definition| definition.paused.is_some());
            group.resumed = world.simulation.now();
        }
        let Some(shard) = evbus::bus::keys::marker_of(&group.name, key) else { continue };
        group.markers.remove(&shard);
        if let Some(bytes) = new {
            let marker: Marker = serde_json::from_slice(bytes).unwrap();
            world.replaced.borrow_mut().remove(&(group.name.to_string(), shard, marker.nonce.clone()));
            group.markers.insert(shard, marker);
        } else {
            world.replaced.borrow_mut().remove(&(group.name.to_string(), shard, String::new()));
        }
    }
}

fn w_of(content: &[u8]) -> EventTime {
    let text: serde_json::Value = serde_json::from_slice(content).unwrap();
    text["w"].as_str().unwrap().parse().unwrap()
}

fn changed(world: &World, key: &str, old: Option<&[u8]>, new: Option<&[u8]>) {
    let register = key == "frontier" || key.starts_with("groups/") || key.contains("/marker-");
    if world.rewinding.get() && register {
        return rewound(world, key, new);
    }
    if key == "frontier" {
        return frontier(world, new);
    }
    if key.starts_with("events/") {
        world.put_at.borrow_mut().insert(key.to_owned(), world.simulation.now());
        let names = names_at(key, new.or(old).unwrap_or_default());
        let is_overdue = world.overdue.borrow().contains(key);
        return names.into_iter().for_each(|name| event(world, name, new.is_some(), is_overdue));
    }
    let mut groups = world.groups.borrow_mut();
    for (at, group) in groups.iter_mut().enumerate() {
        if key == evbus::bus::keys::group(&group.name) {
            return definition(world, group, new);
        }
        let Some(rest) = key.strip_prefix(&evbus::bus::keys::state(&group.name)) else { continue };
        if let Some(shard) = rest.strip_prefix("marker-") {
            let new = serde_json::from_slice(new.expect("a marker is never deleted")).expect("a marker parses");
            return marker(world, at, group, shard.parse().unwrap(), new);
        }
        if rest.starts_with("requests/") {
            match new {
                Some(bytes) => world.requested(group, key, bytes),
                None => forgotten(group, key),
            }
        }
        if let Some(letter) = rest.strip_prefix("dead/") {
            self::letter(world, group, letter, old, new);
        }
    }
}

fn frontier(world: &World, new: Option<&[u8]>) {
    let w = w_of(new.expect("the frontier stays"));
    if w <= world.frontier.get() {
        world.complain(format!("the frontier falls from {} to {w}", world.frontier.get()));
    }
    world.log_line(|| format!("W is {w}"));
    world.frontier.set(w);
}

fn event(world: &World, name: EventName, there: bool, is_overdue: bool) {
    world.log_line(|| {
        format!("{} {name} {}", if there { "put" } else { "gone" }, world.id_of(name.as_str()).unwrap_or_default())
    });
    if there {
        let id = world.id_of(name.as_str());
        let known = |id: String| world.events.borrow().get(&id).is_some_and(|known| known.acked.is_some());
        if is_overdue || world.deleted.borrow().contains(&name) || id.is_some_and(known) {
            world.late_copies.borrow_mut().insert(name.clone());
        }
        world.present.borrow_mut().insert(name);
    } else {
        world.present.borrow_mut().remove(&name);
        world.deleted.borrow_mut().insert(name);
    }
}

fn definition(world: &World, group: &mut GroupRecord, new: Option<&[u8]>) {
    let definition: evbus::group::Definition = serde_json::from_slice(new.expect("groups are never removed")).unwrap();
    if group.definition.is_none() {
        group.created = world.simulation.now();
        if definition.start.time() > world.frontier.get() {
            world.complain(format!("{} starts at {}, above W {}", group.name, definition.start, world.frontier.get()));
        }
    }
    let paused = definition.paused.is_some();
    if paused != group.paused {
        group.resumed = world.simulation.now();
    }
    world.log_line(|| format!("{} starts at {}, paused: {paused}", group.name, definition.start));
    group.paused = paused;
    group.definition = Some(definition);
}

fn forgotten(group: &mut GroupRecord, key: &str) {
    if let Some((_, id)) = evbus::bus::keys::request_of(&group.name, key) {
        group.redrives.remove(id);
    }
}

fn letter(world: &World, group: &mut GroupRecord, letter: &str, old: Option<&[u8]>, new: Option<&[u8]>) {
    let Some(id) = world.id_of(letter) else { return };
    world.log_line(|| format!("letter {letter} of {id}: {}", new.is_some()));
    let (now, shards) = (world.simulation.now(), group.shards());
    let key = world.events.borrow().get(&id).and_then(|known| known.key.clone());
    let runs = group.runs.entry(id).or_default();
    match (old, new) {
        (None, Some(bytes)) => {
            runs.letters += 1;
            runs.first_settled.get_or_insert(now);
            let content: DeadLetter = serde_json::from_slice(bytes).expect("a letter parses");
            // What is no event never starts a handler.
            group.active.insert(content.name.hash_slot().shard(shards), now);
            let whole = content.event_bytes().is_some();
            if !whole && runs.kept.contains(&content.name) {
                world.complain(format!("letter {letter} is without its event, which an earlier one held"));
            }
            runs.kept.extend(Some(content.name.clone()).filter(|_| whole));
            group.note_settled(key.as_ref(), &content.name);
        }
        (Some(_), None) => runs.letters -= 1,
        _ => {}
    }
}

/// Checks a write of a shard's marker.
fn marker(world: &World, at: usize, group: &mut GroupRecord, shard: u16, new: Marker) {
    let start = || group.definition.as_ref().map_or(Position::START, |definition| definition.start.clone());
    let old = group.markers.remove(&shard).unwrap_or_else(|| Marker::new(start()));
    world.log_line(|| {
        let owner = new.owner.as_ref().map(|owner| owner.pid);
        format!(
            "{}/{shard} epoch {} owner {owner:?} through {} done {:?} open {:?} unclean {}",
            group.name,
            new.epoch,
            new.through,
            new.done.iter().filter_map(|name| world.id_of(name.as_str())).collect::<Vec<_>>(),
            new.pending
                .iter()
                .map(|(name, pending)| (
                    world.id_of(name.as_str()),
                    pending.attempts,
                    pending.next.map(|n| n.to_string()),
                    pending.new_dead_letter.is_some()
                ))
                .collect::<Vec<_>>(),
            new.unclean
        )
    });
    owner(world, group, shard, &old, &new);
    // What is given up will be a dead letter: from now on it counts for those before it.
    for name in new.pending.iter().filter(|(_, pending)| pending.new_dead_letter.is_some()).map(|(name, _)| name) {
        let key = world.id_of(name.as_str()).and_then(|id| world.events.borrow().get(&id)?.key.clone());
        group.note_settled(key.as_ref(), name);
    }
    let reset = new.folded.difference(&old.folded).filter_map(|id| group.resets.get(id).cloned()).last();
    match &reset {
        Some((_, to, _)) => excuse(world, group, shard, to),
        None => {
            if new.through < old.through {
                world.complain(format!("{}/{shard}: through falls to {}", group.name, new.through));
            }
            left_pending(world, group, shard, &old, &new);
        }
    }
    let from = reset.map_or_else(|| old.through.clone(), |(_, to, _)| to);
    passed(world, group, shard, &from, &old, &new);
    done(world, group, shard, &old, &new);
    limits(world, at, group, shard, &new);
    group.markers.insert(shard, new);
}

/// Owners follow each other, each with its own epoch.
fn owner(world: &World, group: &GroupRecord, shard: u16, old: &Marker, new: &Marker) {
    let owner = |marker: &Marker| marker.owner.as_ref().map(|owner| owner.worker.clone());
    let fine = match new.epoch.checked_sub(old.epoch) {
        Some(0) => old.owner.is_some() && (owner(new).is_none() || owner(new) == owner(old)),
        Some(1) => new.owner.is_some(),
        _ => false,
    };
    // Each commit has its own nonce, which is its version: none is replaced twice.
    let once = world.replaced.borrow_mut().insert((group.name.to_string(), shard, old.nonce.clone()));
    if !once {
        world.complain(format!("{}/{shard}: two swaps from the version {:?}", group.name, old.nonce));
    }
    if !fine || new.nonce == old.nonce {
        let (was, is) = (old.owner.as_ref().map(|o| o.pid), new.owner.as_ref().map(|o| o.pid));
        world.complain(format!(
            "{}/{shard}: epoch {} of {was:?} is followed by {} of {is:?}",
            group.name, old.epoch, new.epoch
        ));
    }
}

/// An operator's reset: the events before it need not be processed any more.
fn excuse(world: &World, group: &mut GroupRecord, shard: u16, to: &Position) {
    let shards = group.shards();
    for known in world.events.borrow().values() {
        if let Some((_, name)) = &known.acked
            && name.hash_slot().shard(shards) == shard
            && to.covers(name)
        {
            group.runs.entry(known.id.clone()).or_default().excused = true;
        }
    }
}

/// Whether an event has been processed, or need not be.
fn settled(world: &World, group: &GroupRecord, id: Option<&String>, name: &EventName) -> bool {
    let Some(id) = id else { return true };
    let events = world.events.borrow();
    let known = events.get(id);
    let wanted = known.is_none_or(|known| group.wants(known));
    world.deleted.borrow().contains(name) || !wanted || group.is_settled(known, id, name)
}

/// An event that left `pending` was processed, or its letter exists.
fn left_pending(world: &World, group: &GroupRecord, shard: u16, old: &Marker, new: &Marker) {
    for (name, pending) in old.pending.iter().filter(|(name, _)| !new.pending.contains_key(*name)) {
        let id = world.id_of(name.as_str());
        // An event that a power cut has removed was not acknowledged: nothing of it may be left to
        // redrive.
        let acked = id.as_ref().and_then(|id| world.events.borrow().get(id).map(|known| known.acked.is_some()));
        let deleted =
            world.deleted.borrow().contains(name) && (pending.redriven_dead_letter.is_none() || acked != Some(true));
        let buried = pending
            .new_dead_letter
            .as_ref()
            .is_some_and(|letter| world.contents.read(&evbus::bus::keys::dead_letter(&group.name, letter)).is_some());
        let succeeded = id.as_ref().and_then(|id| group.runs.get(id)).is_some_and(|runs| !runs.successes.is_empty());
        let superseded = id.as_ref().is_some_and(|id| {
            let later =
                world.events.borrow().get(id).and_then(|known| group.latest_settled.get(known.key.as_ref()?)).cloned();
            later.is_some_and(|later| later > *name)
        });
        // Redriven twice, and dead again meanwhile: its newer letter exists.
        let newer = pending.redriven_dead_letter.is_some()
            && id.as_ref().and_then(|id| group.runs.get(id)).is_some_and(|runs| runs.letters > 0);
        let known = id.as_ref().and_then(|id| world.events.borrow().get(id).map(|known| group.wants(known)));
        let unwanted = id.is_none() || newer || known == Some(false);
        if !(deleted || buried || unwanted || ((succeeded || superseded) && pending.new_dead_letter.is_none())) {
            world.complain(format!("{}/{shard}: {id:?} {name} leaves open, neither done nor dead", group.name));
        }
    }
}

/// `through` is at most W and passes only names that are settled, pending or not acknowledged.
fn passed(world: &World, group: &GroupRecord, shard: u16, from: &Position, old: &Marker, new: &Marker) {
    if new.through.time() > world.frontier.get() {
        world.complain(format!("{}/{shard}: through {} above W {}", group.name, new.through, world.frontier.get()));
    }
    let shards = group.shards();
    let present = world.present.borrow();
    let edge = EventName::parse(&format!("{}-000000000000000a-a.json", from.time())).unwrap();
    for name in present.range(edge..).take_while(|name| name.time() <= new.through.time()) {
        if name.hash_slot().shard(shards) != shard || from.covers(name) || !new.through.covers(name) {
            continue;
        }
        let known = new.pending.contains_key(name) || old.done.contains(name);
        let id = world.id_of(name.as_str());
        let acked = id.as_ref().and_then(|id| world.events.borrow().get(id).and_then(|known| known.acked.clone()));
        let acked = acked.is_some_and(|(_, acked)| acked == *name);
        if acked && !known && !settled(world, group, id.as_ref(), name) {
            world.complain(format!("{}/{shard}: through {} passes {id:?} {name}", group.name, new.through));
        }
    }
}

/// `done` lists only processed events.
fn done(world: &World, group: &GroupRecord, shard: u16, old: &Marker, new: &Marker) {
    for name in new.done.iter().filter(|name| !old.done.contains(name)) {
        let id = world.id_of(name.as_str());
        if !settled(world, group, id.as_ref(), name) {
            world.complain(format!("{}/{shard}: {id:?} is said to be done and is not", group.name));
        }
    }
}

/// Markers stay small.
fn limits(world: &World, at: usize, group: &GroupRecord, shard: u16, new: &Marker) {
    let bounds = world.plan.groups[at].bounds;
    if new.pending.len() > bounds.pending {
        world.complain(format!("{}/{shard}: open holds {} of {}", group.name, new.pending.len(), bounds.pending));
    }
    // Events that come in behind the done names push those out of the window, those of a segment
    // together.
    if new.done.len() > 3 * bounds.window + 2 * world.plan.longest_segment() {
        world.complain(format!("{}/{shard}: done holds {} of {}", group.name, new.done.len(), bounds.window));
    }
}
