//! What an emitting process does: single events and segments, bulk imports, scheduled events and their
//! cancels, and the segments of a foreign writer.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use evbus::bus::emit::{Draft, Emitter, SegmentDraft};
use evbus::bus::look::names_at;
use evbus::bus::{BusHandle, frontier, schedule};
use evbus::clock::Clock;
use evbus::event::{
    Data, Event, EventName, EventTime, Identity, SegmentName, SegmentNonce, event_id, one_line, slug_of,
};
use evbus::store::{ErrorKind, Put, StoreResult};

use crate::executor::{Micros, SECOND, SimProcess};
use crate::rng::{self, Rng};
use crate::world::{CancelStatus, JUNK, KnownEvent, World};

/// One emitting process: goes on where the last one died.
pub async fn emit_all(
    world: Rc<World>,
    process: Rc<SimProcess>,
    [bus, not_durable]: [BusHandle; 2],
    at: usize,
    next: Rc<Cell<usize>>,
) {
    let plan = &world.plan;
    let mut not_durable = Emitter::new(not_durable, Duration::from_secs(60));
    let clock = Rc::clone(&bus.clock);
    let pid = process.pid;
    let mut emitter = Emitter::new(bus.clone(), Duration::from_secs(60));
    let mut order = 0;
    while next.get() < plan.events_each {
        let rng = &world.simulation.rng;
        if next.get() >= plan.backlog {
            world.simulation.sleep(rng.around(plan.emit_pause) as Micros).await;
        }
        let owner = if plan.twins { 0 } else { at };
        if let Some(import) = import_drafts(&world, owner, next.get()) {
            match emit_import(&world, &bus, pid, &varied(&world, &import)).await {
                Ok(()) => next.set(next.get() + import.len()),
                Err(error) => {
                    world.log_line(|| format!("p{pid} cannot import from {}: {error}", import[0].0));
                    if error.kind() == ErrorKind::Unfit {
                        return;
                    }
                }
            }
            continue;
        }
        if rng.chance(plan.foreign) {
            next.set(next.get() + 1);
            if let Err(error) = emit_foreign(&world, &bus, pid).await {
                world.log_line(|| format!("p{pid} cannot write a segment: {error}"));
            }
            continue;
        }
        if rng.chance(plan.segments) {
            let left = plan.events_each - next.get();
            let (segments, ids) = segment_drafts(&world, &*clock, left, (pid, &mut order));
            next.set(next.get() + ids.len());
            match emitter.emit_segments(&segments).await {
                Ok(firsts) => {
                    let names = segments.iter().zip(firsts).flat_map(|(segment, first)| segment.names(first));
                    ids.iter().zip(names).for_each(|(id, name)| acknowledge(&world, &bus, pid, id, name, false));
                }
                Err(error) => world.log_line(|| format!("p{pid} cannot emit {ids:?}: {error}")),
            }
            continue;
        }
        let batch = rng.one(&[1, 1, 1, 2, 4]).min(plan.events_each - next.get());
        let named = rng.chance(plan.named);
        let drafts: Vec<(String, Draft)> = (0..batch)
            .map(|part| {
                order += 1;
                draft(&world, &*clock, named.then(|| (owner, next.get() + part)), (pid, order))
            })
            .collect();
        let (ids, drafts): (Vec<String>, Vec<Draft>) = drafts.into_iter().unzip();
        let wait = rng.chance(plan.waits).then(|| (rng.between(0.0, 60.0) * 1e6) as Micros);
        let due = wait.map_or(0, |wait| world.simulation.now() + wait);
        for id in ids.iter().filter(|_| wait.is_some()) {
            if let Some(known) = world.events.borrow_mut().get_mut(id) {
                known.latest_due = known.latest_due.max(due);
                if !named {
                    (known.due, known.order) = (due, None);
                }
            }
        }
        if !named {
            next.set(next.get() + batch);
        }
        if named && plan.power > 0.0 && rng.chance(0.3) {
            // A first emit without a flush, which the next one repeats.
            let _ = match wait {
                Some(wait) => not_durable.schedule(&drafts, clock.now().plus(Duration::from_micros(wait))).await,
                None => not_durable.emit(&drafts).await,
            };
        }
        let sent = match wait {
            Some(wait) => emitter.schedule(&drafts, clock.now().plus(Duration::from_micros(wait))).await,
            None => emitter.emit(&drafts).await,
        };
        match sent {
            Ok(acks) => {
                for (id, ack) in ids.iter().zip(acks) {
                    acknowledge(&world, &bus, pid, id, ack.name, wait.is_some());
                }
                if wait.is_some() && !named && world.simulation.rng.chance(0.3) {
                    cancel(&world, &bus, &ids[0]).await;
                }
                if named {
                    next.set(next.get() + batch);
                }
            }
            Err(error) => {
                world.log_line(|| format!("p{pid} cannot emit {ids:?}: {error}"));
                if error.kind() == ErrorKind::Unfit {
                    // The process's clock is wrong: another machine goes on.
                    return;
                }
            }
        }
    }
}

/// Notes the first acknowledgement of an event.
fn acknowledge(world: &World, bus: &BusHandle, pid: u32, id: &str, name: EventName, is_scheduled: bool) {
    // It was acknowledged before its emitter could learn that it is lost.
    if bus.store.rewinds() < world.contents.rewinds() && !world.lies_on_bus(&name) {
        return;
    }
    let mut events = world.events.borrow_mut();
    let known = events.get_mut(id).expect("it was made");
    if known.acked.is_none() {
        world.log_line(|| format!("p{pid} {id} acknowledged as {name}"));
        // A worker whose clock is seconds slow releases the event that much later.
        let comes = if is_scheduled { known.latest_due + 11 * SECOND } else { 0 };
        known.acked = Some((world.simulation.now().max(comes), name));
    }
}

/// The events of a bulk import, if one is to be made at this place: the same ones for whoever repeats
/// it.
fn import_drafts(world: &World, owner: usize, at: usize) -> Option<Vec<(String, Draft)>> {
    let of_place = Rng::new(rng::hash(&format!("import-{owner}-{at}")) ^ rng::mix(world.seed));
    of_place.chance(world.plan.imports).then(|| {
        let count = 2 + of_place.below(3 * world.plan.segment_len);
        let draft = |n| {
            let id = format!("bulk-{owner}-{at}-{n}");
            let (event, _) = made(world, id.clone(), None, None);
            (id, Draft::named(event))
        };
        (0..count).map(draft).collect()
    })
}

/// The import as one attempt of its writer has it: perhaps without a line that other attempts have, and
/// perhaps with one that they have not. Then an event may come to lie in two segments.
fn varied(world: &World, import: &[(String, Draft)]) -> Vec<(String, Draft)> {
    let (rng, mut import) = (&world.simulation.rng, import.to_vec());
    if world.plan.answers_all() {
        return import;
    }
    if rng.chance(0.2) {
        import.remove(rng.below(import.len()));
    }
    if rng.chance(0.2) {
        let id = format!("extra-{}", rng.next());
        let (event, _) = made(world, id.clone(), None, None);
        import.insert(rng.below(import.len() + 1), (id, Draft::named(event)));
    }
    import
}

/// Emits a bulk import by a new emitter, in calls of any length.
async fn emit_import(world: &World, bus: &BusHandle, pid: u32, import: &[(String, Draft)]) -> StoreResult<()> {
    let mut emitter = Emitter::new(bus.clone(), Duration::from_secs(60));
    let mut rest = import;
    while !rest.is_empty() {
        let (now, later) = rest.split_at((1 + world.simulation.rng.below(world.plan.segment_len)).min(rest.len()));
        let drafts: Vec<Draft> = now.iter().map(|(_, draft)| draft.clone()).collect();
        for ((id, _), ack) in now.iter().zip(emitter.emit_chunks_from(&drafts, 2).await?) {
            acknowledge(world, bus, pid, id, ack.name, false);
        }
        rest = later;
    }
    Ok(())
}

/// A segment of a writer that is not evbus, and knows its rules (FORMAT.md, 5.6). Some of its lines are
/// no events, and the last may be missing: each of these must end as a dead letter.
async fn emit_foreign(world: &World, bus: &BusHandle, pid: u32) -> StoreResult<()> {
    let rng = &world.simulation.rng;
    let (nonce, type_) = (SegmentNonce::random(rng.next(), rng.next()), "order.paid");
    let len = (2 + rng.below(world.plan.longest_segment() - 1)) as u16;
    let (mut ids, mut text) = (Vec::new(), Vec::new());
    for line in 0..len {
        if rng.chance(0.5) {
            let id = format!("{JUNK}{}-{line}", nonce.as_str());
            let identity = Identity::named(nonce.as_str(), &line.to_string());
            know(world, KnownEvent { n: Some(1), ..KnownEvent::new(&id, type_, world.simulation.now()) }, &identity);
            ids.push(id);
            if line + 1 < len || rng.chance(0.5) {
                text.extend_from_slice(rng.one(&["junk\n", "\n", "{\"id\":1}\n", "[]\n"]).as_bytes());
            }
        } else {
            let id = format!("foreign-{}-{line}", nonce.as_str());
            let event = Event::new(&*id, "/simulation", type_).build().expect("a valid event");
            know(world, KnownEvent::new(&id, type_, world.simulation.now()), &Identity::named("/simulation", &id));
            ids.push(id);
            text.extend_from_slice(one_line(&event.to_json()).trim_ascii());
            text.push(b'\n');
        }
    }
    let behind = i64::from(len) - 1;
    let plus = |time: EventTime, micros: i64| EventTime::from_micros(time.as_micros() + micros);
    let (mut earliest, mut before) = (EventTime::MIN, None);
    for reputs in 0..40 {
        let last = bus.clock.now().max(plus(earliest, behind));
        let key = SegmentName::new(last, &nonce, &slug_of(type_), len).key();
        if bus.store.put_new(&key, &text).await? == Put::Exists {
            // It promises nothing.
            return Ok(());
        }
        let w = frontier::read(&*bus.store).await?.time;
        if let Some(before) = before.replace(key.clone()) {
            bus.store.delete(&before).await?;
        }
        if plus(last, -behind) > w {
            for (id, name) in ids.iter().zip(names_at(&key, &text)) {
                acknowledge(world, bus, pid, id, name, false);
            }
            return Ok(());
        }
        earliest = plus(w, (world.plan.profile.lag.as_micros() as i64) << reputs.min(20));
    }
    Ok(())
}

/// A few segments, with at most `left` events.
fn segment_drafts(
    world: &World,
    clock: &dyn Clock,
    left: usize,
    (pid, order): (u32, &mut u32),
) -> (Vec<SegmentDraft>, Vec<String>) {
    let rng = &world.simulation.rng;
    let (mut segments, mut ids) = (Vec::new(), Vec::new());
    for _ in 0..rng.one(&[1, 1, 2, 3]) {
        let mut segment = SegmentDraft::new(clock);
        for _ in 0..(1 + rng.below(world.plan.segment_len)).min(left - ids.len()) {
            let nonce = *segment.nonce();
            *order += 1;
            let (line, order) = (segment.len(), (pid, *order));
            let draft = Draft::in_segment(clock, &nonce, line, |id, _| {
                let (event, _) = made(world, id.to_owned(), Some(nonce.identity(line)), Some(order));
                ids.push(id.to_owned());
                Ok::<_, ()>(event)
            });
            segment.add(draft.expect("it is made")).expect("there is room");
        }
        segments.push(segment);
    }
    (segments, ids)
}

/// Cancels a scheduled entry, sooner or later, or just when it is due.
async fn cancel(world: &World, bus: &BusHandle, id: &str) {
    let (rng, now) = (&world.simulation.rng, world.simulation.now());
    let after = match rng.chance(0.5) {
        true => {
            (world.events.borrow()[id].due + (rng.between(0.0, 4.0) * 1e6) as Micros).saturating_sub(now + 2 * SECOND)
        }
        false => (rng.between(0.0, 60.0) * 1e6) as Micros,
    };
    world.simulation.sleep(after).await;
    let name = world.events.borrow()[id].acked.as_ref().map(|(_, name)| name.clone());
    let Some(name) = name else { return };
    world.events.borrow_mut().get_mut(id).unwrap().cancelled = CancelStatus::Perhaps;
    let answer = schedule::cancel(bus, &name).await;
    world.log_line(|| format!("{id} cancelled: {answer:?}"));
    let cancelled = match answer {
        Ok(schedule::Cancelled::Yes) => CancelStatus::Yes,
        Ok(schedule::Cancelled::TooLate) => CancelStatus::No,
        Err(_) => return,
    };
    if cancelled == CancelStatus::Yes && world.groups.borrow().iter().any(|group| group.runs.contains_key(id)) {
        world.complain(format!("{id} was cancelled, and had run"));
    }
    world.events.borrow_mut().get_mut(id).unwrap().cancelled = cancelled;
}

fn draft(world: &World, clock: &dyn Clock, named: Option<(usize, usize)>, order: (u32, u32)) -> (String, Draft) {
    let rng = &world.simulation.rng;
    let identity = Identity::random(rng.next(), rng.next());
    let id = match named {
        Some((emitter, number)) => format!("named-{emitter}-{number}"),
        None => event_id(clock.now(), &identity),
    };
    let (event, identity) =
        made(world, id.clone(), named.is_none().then_some(identity), named.is_none().then_some(order));
    let draft = if named.is_some() { Draft::named(event) } else { Draft::generated(event, identity) };
    (id, draft)
}

/// The event of an id, which is known from now on; its identity is that of its id unless it is given.
fn made(world: &World, id: String, identity: Option<Identity>, order: Option<(u32, u32)>) -> (Event, Identity) {
    // A repeat must have the same content, so the id decides all of it.
    let of_id = Rng::new(rng::hash(&id) ^ rng::mix(world.seed));
    let type_ = of_id.one(&["order.created", "order.paid", "user.seen", "Ünlisted Type"]).to_owned();
    let key = of_id.chance(0.7).then(|| format!("key{}", of_id.below(world.plan.keys)));
    let mut event = Event::new(&*id, "/simulation", &*type_);
    if let Some(key) = &key {
        event = event.subject(key);
    }
    let n = of_id.one(&[Some(0), Some(1), None]);
    if let Some(n) = n {
        event = event.data(Data::json(&format!("{{\"n\":{n}}}")).expect("valid JSON"));
    }
    let event = event.build().expect("a valid event");
    let identity = identity.unwrap_or_else(|| Identity::named("/simulation", &id));
    know(world, KnownEvent { key, order, n, ..KnownEvent::new(&id, &type_, world.simulation.now()) }, &identity);
    (event, identity)
}

fn know(world: &World, event: KnownEvent, identity: &Identity) {
    world.by_identity.borrow_mut().insert(identity.to_string(), event.id.clone());
    world.events.borrow_mut().entry(event.id.clone()).or_insert(event);
}
