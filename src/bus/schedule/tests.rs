//! Who decides, and what is left behind.

use std::future::Future;
use std::rc::Rc;

use super::*;
use crate::bus::emit::AckKind;
use crate::clock::SetClock;
use crate::event::{EVENTS, Identity, dedup_hash, event_id};
use crate::store::memory::{Calm, Contents, MemoryStore};
use crate::store::{Put, object};

fn at(seconds: i64) -> EventTime {
    EventTime::from_micros(1_795_396_594_000_000 + seconds * 1_000_000)
}

struct ScheduleBus {
    contents: Rc<Contents>,
    clock: Rc<SetClock>,
    handle: BusHandle,
}

fn bus() -> ScheduleBus {
    let (contents, clock) = (Rc::<Contents>::default(), Rc::new(SetClock::at(at(0))));
    let store = MemoryStore::new(Rc::clone(&contents), Rc::new(Calm), object::PROFILE);
    ScheduleBus { contents, clock: Rc::clone(&clock), handle: BusHandle::new(Rc::new(store), clock) }
}

impl ScheduleBus {
    fn schedule(&self, id: &str, due: EventTime) -> EventName {
        let draft = Draft::named(Event::new(id, "/s", "t").build().unwrap());
        let mut emitter = Emitter::new(self.handle.clone(), TIMEOUT);
        done(emitter.schedule(&[draft], due)).unwrap().remove(0).name
    }

    /// Emits an event of another type under an id.
    fn emit_other(&self, id: &str) -> AckKind {
        let other = Draft::named(Event::new(id, "/s", "other").build().unwrap());
        done(Emitter::new(self.handle.clone(), TIMEOUT).emit(&[other])).unwrap()[0].kind
    }

    fn release(&self) -> Released {
        done(release(&self.handle, Some(&BTreeSet::new()), 1 << 20)).unwrap()
    }

    /// The ids of the events on the bus.
    fn events(&self) -> Vec<String> {
        let id = |key: &String| Event::parse(&self.contents.read(key).unwrap(), usize::MAX).unwrap().id().to_owned();
        self.contents.keys(EVENTS).iter().map(id).collect()
    }

    fn waiting(&self) -> Vec<String> {
        self.contents.keys(SCHEDULED)
    }
}

fn done<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn a_due_entry_is_released_once_and_removed() {
    let bus = bus();
    bus.schedule("tonight", at(100));
    bus.schedule("soon", at(10));
    bus.schedule("soon", at(10));
    assert_eq!((bus.waiting().len(), bus.release().next), (2, Some(at(10))));
    bus.clock.set(at(10));
    let released = bus.release();
    assert_eq!((released.events, released.next), (1, Some(at(100))));
    assert_eq!((bus.events(), bus.waiting().len()), (vec!["soon".to_owned()], 1));
    bus.schedule("soon", at(10));
    assert_eq!(bus.waiting().len(), 1, "an id that has come already is a repeat");
    bus.clock.set(at(1_000));
    bus.release();
    assert_eq!((bus.events(), bus.waiting()), (vec!["soon".to_owned(), "tonight".to_owned()], Vec::new()));
}

#[test]
fn an_event_keeps_its_id_its_bytes_and_its_order() {
    let bus = bus();
    let identity = Identity::random(1, 2);
    let fresh = Event::new(event_id(at(10), &identity), "/s", "t").build().unwrap();
    let drafts = [Draft::generated(fresh.clone(), identity), Draft::named(Event::new("b", "/s", "t").build().unwrap())];
    let acks = done(Emitter::new(bus.handle.clone(), TIMEOUT).schedule(&drafts, at(10))).unwrap();
    assert!(acks.iter().all(|ack| ack.kind == AckKind::New));
    bus.clock.set(at(20));
    bus.release();
    let keys = bus.contents.keys(EVENTS);
    assert_eq!(EventName::from_key(&keys[0]).unwrap().identity(), acks[0].name.identity());
    assert_eq!(bus.contents.read(&keys[0]).unwrap()[..], fresh.to_json());
    assert_eq!(bus.events()[1], "b");
}

#[test]
fn a_cancelled_entry_is_never_released() {
    let bus = bus();
    let name = bus.schedule("a", at(10));
    let entry = bus.contents.read(&keys::scheduled(&name)).unwrap();
    assert_eq!(done(cancel(&bus.handle, &name)), Ok(Cancelled::Yes));
    // A put of it was still on its way.
    assert_eq!(done(bus.handle.store.put_new(&keys::scheduled(&name), &entry)), Ok(Put::Created));
    bus.clock.set(at(20));
    bus.release();
    assert_eq!((bus.events(), bus.waiting()), (Vec::new(), vec![keys::decision(&name)]));
    done(forget(&*bus.handle.store, at(11))).unwrap();
    assert_eq!(bus.waiting(), Vec::<String>::new());
    // A process that had cancelled it and then died is taken at its word.
    let name = bus.schedule("b", at(30));
    assert_eq!(done(decide(&bus.handle, &name, Decision::Cancel)), Ok((Decision::Cancel, true)));
    bus.clock.set(at(40));
    bus.release();
    assert_eq!(bus.events(), Vec::<String>::new());
}

#[test]
fn a_cancelled_event_can_be_scheduled_again() {
    let bus = bus();
    let name = bus.schedule("a", at(10));
    assert_eq!(done(cancel(&bus.handle, &name)), Ok(Cancelled::Yes));
    let again = bus.schedule("a", at(10));
    assert_eq!((again != name, bus.schedule("a", at(10)) == again), (true, true));
    bus.clock.set(at(20));
    bus.release();
    assert_eq!(bus.events(), ["a"]);
}

#[test]
fn an_entry_in_release_cannot_be_cancelled_and_survives_its_releaser() {
    let bus = bus();
    let name = bus.schedule("a", at(10));
    bus.clock.set(at(20));
    assert_eq!(done(decide(&bus.handle, &name, Decision::Release)), Ok((Decision::Release, true)));
    assert_eq!(done(cancel(&bus.handle, &name)), Ok(Cancelled::TooLate));
    let first = bus.release();
    assert_eq!((first.events, first.others.len()), (0, 1), "it is left to the other for a while");
    assert_eq!(done(release(&bus.handle, Some(&first.others), 1 << 20)).unwrap().events, 1);
    assert_eq!((bus.events(), bus.waiting()), (vec!["a".to_owned()], Vec::new()));
    assert_eq!(done(cancel(&bus.handle, &name)), Ok(Cancelled::TooLate));
    assert_eq!(bus.waiting(), Vec::<String>::new());
}

#[test]
fn a_late_cancel_is_reported_as_too_late() {
    let bus = bus();
    let name = bus.schedule("a", at(10));
    bus.clock.set(at(20));
    bus.release();
    // Another saw the entry before that, has decided since, and has not taken it back yet.
    assert_eq!(done(decide(&bus.handle, &name, Decision::Cancel)), Ok((Decision::Cancel, true)));
    assert_eq!(done(cancel(&bus.handle, &name)), Ok(Cancelled::TooLate));
    // One whose answer was lost finds what it has decided itself.
    let again = bus.schedule("b", at(30));
    let before = bus.clock.next_random.get();
    assert_eq!(done(decide(&bus.handle, &again, Decision::Cancel)), Ok((Decision::Cancel, true)));
    bus.clock.next_random.set(before);
    assert_eq!(done(decide(&bus.handle, &again, Decision::Cancel)), Ok((Decision::Cancel, true)));
    assert_eq!(done(decide(&bus.handle, &again, Decision::Cancel)), Ok((Decision::Cancel, false)));
}

#[test]
fn two_releasers_emit_one_event() {
    let bus = bus();
    let name = bus.schedule("a", at(10));
    bus.clock.set(at(20));
    let bytes = bus.contents.read(&keys::scheduled(&name)).unwrap();
    // One has read the entry, and is slow; the other does it all.
    bus.release();
    let draft = Draft::stored(Event::parse(&bytes, usize::MAX).unwrap(), bytes.to_vec(), &name);
    let acks = done(Emitter::new(bus.handle.clone(), TIMEOUT).emit(&[draft.unwrap()])).unwrap();
    assert_eq!(acks[0].kind, AckKind::Duplicate);
    assert_eq!(bus.events(), ["a"]);
}

#[test]
fn a_broken_entry_is_reported_and_does_not_block_others() {
    let bus = bus();
    let name = bus.schedule("a", at(10));
    let store = &*bus.handle.store;
    let broken = keys::scheduled(&name.with_time(at(5)));
    assert_eq!(done(store.put_new(&broken, b"{")), Ok(Put::Created));
    assert_eq!(done(store.put_new("timed/readme", b"x")), Ok(Put::Created));
    bus.clock.set(at(20));
    let released = bus.release();
    assert_eq!((released.events, released.foreign.is_some()), (1, true));
    assert_eq!(bus.events(), ["a"]);
    assert!(bus.waiting().contains(&broken));
}

#[test]
fn a_single_release_takes_over_entries_in_release() {
    let bus = bus();
    let name = bus.schedule("a", at(10));
    bus.clock.set(at(20));
    assert_eq!(done(decide(&bus.handle, &name, Decision::Release)), Ok((Decision::Release, true)));
    assert_eq!(done(release(&bus.handle, None, 1 << 20)).unwrap().events, 1);
}

/// Whatever lies before them: names that are none, documents that are none, files that are too large.
#[test]
fn a_scheduled_entry_is_not_starved_by_invalid_entries() {
    let bus = bus();
    let name = bus.schedule("a", at(100));
    let store = &*bus.handle.store;
    for n in 0..3 * BATCH as i64 {
        let early = keys::scheduled(&name.with_time(at(1).plus(Duration::from_micros(n as u64))));
        let content = if n % 2 == 0 { "{".to_owned() } else { format!("{{\"x\":\"{}\"}}", "x".repeat(2_000)) };
        assert_eq!(done(store.put_new(&early, content.as_bytes())), Ok(Put::Created));
        assert_eq!(done(store.put_new(&format!("timed/0000/{n:04}"), b"x")), Ok(Put::Created));
    }
    bus.clock.set(at(200));
    let released = done(release(&bus.handle, Some(&BTreeSet::new()), 1_000)).unwrap();
    assert_eq!((released.events, released.foreign.is_some()), (1, true));
    assert_eq!(bus.events(), ["a"]);
}

/// Both were acknowledged, because the record of the first was gone: both come.
#[test]
fn an_entry_is_released_although_its_id_was_taken_later() {
    let bus = bus();
    bus.schedule("a", at(10));
    done(bus.handle.store.delete(&keys::dedup(&dedup_hash("/s", "a")))).unwrap();
    assert_eq!(bus.emit_other("a"), AckKind::New);
    bus.clock.set(at(20));
    assert_eq!(bus.release().events, 1);
    assert_eq!((bus.events().len(), bus.waiting()), (2, Vec::new()));
}

#[test]
fn an_id_is_free_again_once_its_event_is_cancelled() {
    let bus = bus();
    let name = bus.schedule("a", at(10));
    assert_eq!(bus.emit_other("a"), AckKind::IdTaken);
    assert_eq!(done(cancel(&bus.handle, &name)), Ok(Cancelled::Yes));
    assert_eq!(bus.emit_other("a"), AckKind::New);
    // Decided, and died: nothing may rely on the entry that is still there.
    let name = bus.schedule("b", at(30));
    assert_eq!(done(decide(&bus.handle, &name, Decision::Cancel)), Ok((Decision::Cancel, true)));
    let again = bus.schedule("b", at(40));
    assert_eq!(again.time(), at(40));
    bus.clock.set(at(50));
    bus.release();
    assert_eq!(bus.events(), ["a", "b"]);
}

/// An entry that is overdue keeps its id, however old it is.
#[test]
fn prune_keeps_the_ids_of_scheduled_events() {
    let bus = bus();
    let name = bus.schedule("a", at(10));
    done(crate::retention::forget_ids(&bus.handle, at(1_000))).unwrap();
    assert_eq!(bus.emit_other("a"), AckKind::IdTaken);
    done(cancel(&bus.handle, &name)).unwrap();
    assert_eq!(done(crate::retention::forget_ids(&bus.handle, at(1_000))), Ok(1));
}
