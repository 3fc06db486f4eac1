//! What happens to an emitter between its put and its check.

mod chunks;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use futures_util::FutureExt;

use super::*;
use crate::bus::look;
use crate::clock::{Clock, Fut, SystemClock};
use crate::event::{
    Data, DataLine, EVENTS, Event, EventBuilder, EventTemplate, HashSlot, Identity, dedup_hash, parse_segment_key,
};
use crate::store::memory::{Calm, Contents, MemoryStore};
use crate::store::object::PROFILE;
use crate::store::{Hints, List, NoHints, Object, Page, Profile, Put, Store, Swap, Version};

type Hook = Box<dyn FnOnce() -> Fut<'static, ()>>;

/// A memory store that lets something else happen before it answers a `get` of a key that begins so: for each the next.
struct Hooked {
    inner: MemoryStore,
    on: &'static str,
    before: RefCell<VecDeque<Option<Hook>>>,
}

impl Store for Hooked {
    fn put_new<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> Fut<'a, StoreResult<Put>> {
        self.inner.put_new(key, bytes)
    }
    fn get<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<Option<Object>>> {
        Box::pin(async move {
            let next = key.starts_with(self.on).then(|| self.before.borrow_mut().pop_front()).flatten().flatten();
            if let Some(hook) = next {
                hook().await;
            }
            self.inner.get(key).await
        })
    }
    fn list_after(&self, list: List) -> Fut<'_, StoreResult<Page>> {
        self.inner.list_after(list)
    }
    fn cas<'a>(&'a self, key: &'a str, version: Option<&'a Version>, bytes: &'a [u8]) -> Fut<'a, StoreResult<Swap>> {
        self.inner.cas(key, version, bytes)
    }
    fn delete<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<()>> {
        self.inner.delete(key)
    }
    fn hints(&self) -> Result<Box<dyn Hints>, NoHints> {
        self.inner.hints()
    }
    fn profile(&self) -> Profile {
        self.inner.profile()
    }
}

struct EmitBus(Rc<Contents>);

impl EmitBus {
    fn new() -> Self {
        Self(Rc::default())
    }

    fn store(&self) -> MemoryStore {
        MemoryStore::new(Rc::clone(&self.0), Rc::new(Calm), PROFILE)
    }

    fn emitter(&self, hooks: impl IntoIterator<Item = Option<Hook>>) -> Emitter {
        self.emitter_on(keys::FRONTIER, hooks)
    }

    fn emitter_on(&self, on: &'static str, hooks: impl IntoIterator<Item = Option<Hook>>) -> Emitter {
        let store = Hooked { inner: self.store(), on, before: RefCell::new(hooks.into_iter().collect()) };
        let handle = BusHandle::new(Rc::new(store), Rc::new(SystemClock));
        Emitter::new(handle, Duration::from_secs(5))
    }

    /// Another host emits the draft, wholly; then, `passed`, W moves on to the time that this was acknowledged under.
    fn another_emits(&self, draft: Draft, passed: bool) -> Option<Hook> {
        let (mut other, store) = (self.emitter([]), self.store());
        Some(Box::new(move || {
            Box::pin(async move {
                let acks = other.emit(&[draft]).await.unwrap();
                if passed {
                    frontier::raise(&store, acks[0].name.time()).await.unwrap();
                }
            })
        }))
    }

    fn raise(&self, to: EventTime) {
        done(frontier::raise(&self.store(), to)).unwrap();
    }

    /// The data of the events on the bus, in the order of their names.
    fn data(&self) -> Vec<String> {
        let data = |key: &String| match Event::parse(&self.0.read(key).unwrap(), usize::MAX).unwrap().data() {
            Data::Json(raw) => raw.get().to_owned(),
            _ => String::new(),
        };
        self.0.keys(EVENTS).iter().map(data).collect()
    }
}

fn done<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn event(id: &str, data: &str) -> EventBuilder {
    Event::new(id, "//db1", "dump.done").data(Data::json(data).unwrap())
}

fn named(data: &str) -> Draft {
    Draft::named(event("dump-1", data).build().unwrap())
}

fn of_key(key: &str, number: u64) -> Draft {
    let event = event(&number.to_string(), &number.to_string()).subject(key).build().unwrap();
    Draft::generated(event, Identity::random(number << 40, number))
}

fn ahead() -> EventTime {
    SystemClock.now().plus(Duration::from_secs(600))
}

/// Both find W ahead, and so choose the same time; the later one must not take away what the other was acknowledged on.
#[test]
fn one_id_emitted_by_two_hosts_is_stored_once() {
    for (hooks_before, passed) in [(0, false), (0, true), (1, false), (1, true), (2, true)] {
        let bus = EmitBus::new();
        bus.raise(ahead());
        let hooks = (0..hooks_before).map(|_| None).chain([bus.another_emits(named("1"), passed)]);
        let ack = done(bus.emitter(hooks).emit(&[named("1")])).unwrap().remove(0);
        assert_eq!(bus.data(), ["1"], "acknowledged by both, and there: {hooks_before} {passed}");
        assert_eq!(bus.0.keys(EVENTS), [ack.name.key()]);
    }
}

/// Both find W ahead of the clock; the first puts its events behind it.
#[test]
fn the_times_of_two_emitters_of_a_process_grow() {
    let bus = EmitBus::new();
    bus.raise(ahead());
    let handle = BusHandle::new(Rc::new(bus.store()), Rc::new(SystemClock));
    let [mut one, mut other] = [(); 2].map(|()| Emitter::new(handle.clone(), Duration::from_secs(5)));
    let first = done(one.emit(&[of_key("k", 1), of_key("k", 2)])).unwrap().remove(1);
    let second = done(other.emit(&[of_key("k", 3)])).unwrap().remove(0);
    assert!(first.name < second.name, "{} {}", first.name, second.name);
}

/// The other is the one who comes too late: while it emits, this one is acknowledged on the first copy of both.
#[test]
fn a_first_copy_is_kept_while_its_twin_may_be_acknowledged_on_it() {
    let bus = EmitBus::new();
    bus.raise(ahead());
    // The first check of the other finds W before the copy that both have put; its second does not.
    let mut this = bus.emitter([None, None]);
    let (outer, store) = (bus.another_emits(named("1"), false), bus.store());
    let late: Option<Hook> = Some(Box::new(move || {
        Box::pin(async move {
            let w = frontier::read(&store).await.unwrap().time;
            outer.unwrap()().await;
            frontier::raise(&store, w.plus(Duration::from_hours(1))).await.unwrap();
        })
    }));
    let mut other = bus.emitter([None, late]);
    let first = done(other.emit(&[named("1")])).unwrap().remove(0);
    let second = done(this.emit(&[named("1")])).unwrap().remove(0);
    assert_eq!((first.name.clone(), second.kind), (second.name, AckKind::Duplicate));
    assert_eq!(bus.0.keys(EVENTS), [first.name.key()]);
}

/// The same, and the one who comes too late dies before it has asked for the record, which would put things right.
#[test]
fn a_first_copy_outlives_a_twin_that_dies_between_its_puts() {
    let bus = EmitBus::new();
    bus.raise(ahead());
    let (mut this, store, acknowledged) = (bus.emitter([]), bus.store(), Rc::new(RefCell::new(None)));
    let ours = Rc::clone(&acknowledged);
    let late: Option<Hook> = Some(Box::new(move || {
        Box::pin(async move {
            let ack = this.emit(&[named("1")]).await.unwrap().remove(0);
            frontier::raise(&store, ack.name.time()).await.unwrap();
            *ours.borrow_mut() = Some(ack.name);
        })
    }));
    let dies: Option<Hook> = Some(Box::new(|| Box::pin(std::future::pending())));
    let mut other = bus.emitter([None, late, dies]);
    assert_eq!(done(async { other.emit(&[named("1")]).now_or_never() }), None, "it has died");
    let acknowledged = acknowledged.take().unwrap();
    assert!(bus.0.read(&acknowledged.key()).is_some(), "acknowledged and gone: {acknowledged}");
    assert_eq!(bus.data(), ["1", "1", "1"], "all copies that the late one has put");
}

#[test]
fn an_id_of_another_event_is_reported_as_taken() {
    let bus = EmitBus::new();
    let mut emitter = bus.emitter([]);
    let kind = |acks: StoreResult<Vec<Ack>>| -> Vec<AckKind> { acks.unwrap().iter().map(|ack| ack.kind).collect() };
    assert_eq!(kind(done(emitter.emit(&[named("{\"a\":1,\"b\":2}")]))), [AckKind::New]);
    assert_eq!(kind(done(emitter.emit(&[named("{\"a\": 1, \"b\": 2}")]))), [AckKind::Duplicate]);
    let other_subject = Draft::named(event("dump-1", "{\"a\":1,\"b\":2}").subject("s").build().unwrap());
    for other in [named("3"), other_subject] {
        assert_eq!(kind(done(emitter.emit(std::slice::from_ref(&other)))), [AckKind::IdTaken]);
        assert_eq!(kind(done(emitter.schedule(&[other], ahead()))), [AckKind::IdTaken]);
    }
    let (one, two) = (event("x", "1").build().unwrap(), event("x", "2").build().unwrap());
    let batch = [&one, &two, &one].map(|event| Draft::named(event.clone()));
    assert_eq!(kind(done(emitter.emit(&batch))), [AckKind::New, AckKind::IdTaken, AckKind::Duplicate]);
    // One that waits is found by its time, too.
    let waits = |data: &str| vec![Draft::named(event("w", data).build().unwrap())];
    let due = ahead();
    assert_eq!(kind(done(emitter.schedule(&waits("1"), due))), [AckKind::New]);
    assert_eq!(kind(done(emitter.schedule(&waits("2"), due))), [AckKind::IdTaken]);
}

/// An id is of one event from the time at which it is acknowledged, not from the time at which it comes.
#[test]
fn an_id_stays_taken_while_its_event_is_scheduled() {
    let bus = EmitBus::new();
    let mut emitter = bus.emitter([]);
    let kind = |acks: StoreResult<Vec<Ack>>| -> Vec<AckKind> { acks.unwrap().iter().map(|ack| ack.kind).collect() };
    let due = ahead();
    let first = done(emitter.schedule(&[named("1")], due)).unwrap().remove(0);
    assert_eq!(first.kind, AckKind::New);
    let later = due.plus(Duration::from_secs(60));
    assert_eq!(kind(done(emitter.schedule(&[named("2")], later))), [AckKind::IdTaken]);
    assert_eq!(kind(done(emitter.emit(&[named("2")]))), [AckKind::IdTaken]);
    let again = done(emitter.schedule(&[named("1")], later)).unwrap().remove(0);
    assert_eq!((again.kind, &again.name), (AckKind::Duplicate, &first.name), "it comes when it was to come");
    assert_eq!(bus.0.keys(keys::SCHEDULED), [keys::scheduled(&first.name)]);
    assert_eq!(bus.data(), Vec::<String>::new());
    // Emitted without a time, it comes at once; the id is its own still.
    assert_eq!(kind(done(emitter.emit(&[named("1")]))), [AckKind::New]);
    assert_eq!(kind(done(emitter.schedule(&[named("2")], later))), [AckKind::IdTaken]);
    assert_eq!(kind(done(emitter.schedule(&[named("1")], later))), [AckKind::Duplicate]);
    // Of one batch the first.
    let (one, two) = (event("x", "1").build().unwrap(), event("x", "2").build().unwrap());
    let batch = [&one, &two, &one].map(|event| Draft::named(event.clone()));
    let kinds = kind(done(emitter.schedule(&batch, due)));
    assert_eq!(kinds, [AckKind::New, AckKind::IdTaken, AckKind::Duplicate]);
    assert_eq!(bus.0.keys(keys::SCHEDULED).len(), 2);
}

/// Both have found the id free. The entry of the one that is refused stays: it has the key of an equal one that may have
/// been acknowledged.
#[test]
fn one_of_two_concurrent_schedules_of_an_id_gets_id_taken() {
    let bus = EmitBus::new();
    let (mut other, due) = (bus.emitter([]), ahead());
    let between: Option<Hook> = Some(Box::new(move || {
        Box::pin(async move {
            let acks = other.schedule(&[named("1")], due.plus(Duration::from_secs(1))).await.unwrap();
            assert_eq!(acks[0].kind, AckKind::New);
        })
    }));
    // The hook is called as the entry of this one is put, before its record.
    let mut this = bus.emitter_on(keys::SCHEDULED, [between]);
    assert_eq!(done(this.schedule(&[named("2")], due)).unwrap()[0].kind, AckKind::IdTaken);
    assert_eq!(bus.0.keys(keys::SCHEDULED).len(), 2);
}

/// Of two equal ones in a batch the second is a repeat of the first, which is not on the bus.
#[test]
fn every_repeat_in_a_batch_reports_a_taken_id() {
    let bus = EmitBus::new();
    let (due, draft) = (ahead(), named("2"));
    let entry = keys::scheduled(&draft.name(due));
    assert_eq!(done(bus.store().put_new(&entry, named("1").bytes.as_slice())), Ok(Put::Created));
    let acks = done(bus.emitter([]).schedule(&[draft.clone(), draft], due)).unwrap();
    assert_eq!(acks.iter().map(|ack| ack.kind).collect::<Vec<_>>(), [AckKind::IdTaken, AckKind::IdTaken]);
}

/// An equal entry is cancelled while this one is put: the decision would cancel this one, too.
#[test]
fn an_entry_that_is_cancelled_while_it_is_put_gets_another_name() {
    let bus = EmitBus::new();
    let (due, store) = (ahead(), bus.store());
    let key = keys::decision(&named("1").name(due));
    let cancelled: Option<Hook> = Some(Box::new(move || {
        Box::pin(async move {
            let decision = br#"{"decision":"cancel","by":"x"}"#;
            assert_eq!(store.put_new(&key, decision).await, Ok(Put::Created));
        })
    }));
    let acks = done(bus.emitter_on(keys::SCHEDULED, [None, cancelled]).schedule(&[named("1")], due)).unwrap();
    assert_eq!((acks[0].kind, acks[0].name.time()), (AckKind::New, due.next()));
}

/// Another finds the same id while it puts; its event is another.
#[test]
fn an_id_taken_during_the_put_is_reported_and_leaves_no_copy() {
    let bus = EmitBus::new();
    let acks = done(bus.emitter([bus.another_emits(named("1"), false)]).emit(&[named("2")])).unwrap();
    assert_eq!((acks[0].kind, bus.data()), (AckKind::IdTaken, vec!["1".to_owned()]));
}

/// A process that may write records can hide no event: a record that names nothing, or another id, does not count.
#[test]
fn a_false_dedup_record_is_ignored() {
    let bus = EmitBus::new();
    let other = done(bus.emitter([]).emit(&[of_key("k", 7)])).unwrap().remove(0).name;
    let gone = other.with_time(other.time().next());
    let key = keys::dedup(&dedup_hash("//db1", "dump-1"));
    for lie in [gone, other] {
        let _ = done(bus.store().delete(&key));
        let record = format!("{{\"event\":\"{lie}\"}}");
        assert_eq!(done(bus.store().put_new(&key, record.as_bytes())), Ok(Put::Created));
        let ack = done(bus.emitter([]).emit(&[named("1")])).unwrap().remove(0);
        assert_eq!(ack.kind, AckKind::New);
        assert!(bus.0.read(&ack.name.key()).is_some());
        assert_eq!(done(bus.emitter([]).emit(&[named("1")])).unwrap()[0].kind, AckKind::Duplicate);
        let _ = done(bus.store().delete(&ack.name.key()));
    }
}

/// W comes to stand within the batch: no event of a key may be there while an earlier one of it came too late.
#[test]
fn a_late_batch_shows_the_events_of_a_key_in_order() {
    let bus = EmitBus::new();
    let (contents, store) = (Rc::clone(&bus.0), bus.store());
    // What a group sees whose W has passed the first.
    let seen: Rc<RefCell<Vec<String>>> = Rc::default();
    let saw = Rc::clone(&seen);
    let between: Option<Hook> = Some(Box::new(move || {
        Box::pin(async move {
            let first = EventName::from_key(&contents.keys(EVENTS)[0]).unwrap();
            frontier::raise(&store, first.time()).await.unwrap();
        })
    }));
    let contents = Rc::clone(&bus.0);
    let look: Option<Hook> = Some(Box::new(move || {
        saw.borrow_mut().extend(contents.keys(EVENTS));
        Box::pin(std::future::ready(()))
    }));
    let drafts: Vec<Draft> = (0..4).map(|number| of_key("k", number)).collect();
    let acks = done(bus.emitter([between, look]).emit(&drafts)).unwrap();
    assert_eq!(seen.borrow().len(), 1, "of the first copies only the first: {:?}", seen.borrow());
    assert_eq!((bus.data(), acks.len()), (["0", "1", "2", "3"].map(str::to_owned).to_vec(), 4));
}

/// What has no key in common is put together, and checked once.
#[test]
fn events_of_different_keys_share_a_check() {
    let bus = EmitBus::new();
    let late: Option<Hook> = Some(Box::new(|| panic!("a second question")));
    let drafts: Vec<Draft> = (0..9).map(|number| of_key(&format!("key {number}"), number)).collect();
    done(bus.emitter([None, late]).emit(&drafts)).unwrap();
    assert_eq!(bus.data().len(), 9);
}

fn segment_of(keys: &[Option<&str>]) -> SegmentDraft {
    let mut segment = SegmentDraft::new(&SystemClock);
    for key in keys {
        let nonce = *segment.nonce();
        let draft = Draft::in_segment(&SystemClock, &nonce, segment.len(), |id, _| {
            let event = event(id, &segment.len().to_string());
            match key {
                Some(key) => event.subject(*key).build(),
                None => event.build(),
            }
        });
        assert!(segment.add(draft.unwrap()).is_ok());
    }
    segment
}

/// What a template writes is what the events themselves would.
#[test]
fn a_line_of_a_template_is_the_document_of_its_event() {
    let like = |id: &str| Event::new(id, "/a\"b\"", "Order.Paid").subject("é").extension("partitionkey", "k\"");
    let template = EventTemplate::new(&event("0", "1").build().unwrap());
    let keyed = EventTemplate::new(&like("0").datacontenttype("application/json").build().unwrap());
    let now = EventTime::parse("20261123T021530.123456Z").unwrap();
    let mut segment = SegmentDraft::new(&SystemClock);
    for (template, data) in [(&template, " {\"n\": 1} "), (&keyed, "[\"\\u00e9\"]"), (&keyed, "null")] {
        assert!(segment.add_line(template, now, DataLine::check(data.as_bytes()).unwrap(), 1_000).is_some());
    }
    // Neither what is no JSON, nor what would be several lines, nor what is too long.
    for data in ["", "{", "[1,\n2]", "1e999", "\"\\ud800\""] {
        assert!(DataLine::check(data.as_bytes()).is_none(), "{data}");
    }
    let long = format!("\"{}\"", "x".repeat(1_000));
    assert_eq!(segment.add_line(&template, now, DataLine::check(long.as_bytes()).unwrap(), 1_000), None);
    let documents: Vec<(String, Vec<u8>)> =
        segment.events().map(|(id, document)| (id.to_owned(), document.to_vec())).collect();
    let names = segment.names(now);
    assert_eq!(names.len(), 3);
    for ((id, document), name) in documents.iter().zip(&names) {
        let event = Event::parse(document, usize::MAX).unwrap();
        assert_eq!((event.id(), event.to_json()), (&**id, document.clone()));
        assert!(name.fits(&event) && event.time() == Some("2026-11-23T02:15:30.123456Z"));
    }
    assert_eq!(names[2].hash_slot(), HashSlot::of("k\""));
    let key = done(EmitBus::new().emitter([]).emit_segments(&[segment]));
    assert!(key.is_ok());
}

/// W passes only the first event of a segment: all of it is put again, and nothing is left of the first copy.
#[test]
fn a_segment_that_came_too_late_in_part_is_put_again_as_a_whole() {
    let bus = EmitBus::new();
    let store = bus.store();
    let contents = Rc::clone(&bus.0);
    let passes: Option<Hook> = Some(Box::new(move || {
        Box::pin(async move {
            let keys = contents.keys(EVENTS);
            let first = parse_segment_key(&keys[0]).unwrap().first();
            frontier::raise(&store, first).await.unwrap();
        })
    }));
    let segment = segment_of(&[None; 5]);
    let first = done(bus.emitter([passes]).emit_segments(std::slice::from_ref(&segment))).unwrap()[0];
    let keys = bus.0.keys(EVENTS);
    assert_eq!(keys.len(), 1, "{keys:?}");
    let names = look::names_at(&keys[0], &bus.0.read(&keys[0]).unwrap());
    assert_eq!(segment.names(first), names);
    let w = done(frontier::read(&bus.store())).unwrap().time;
    assert!(names.iter().all(|name| name.time() > w), "{w} {names:?}");
}

#[test]
fn segments_of_one_emitter_follow_each_other_without_a_gap_for_others_between() {
    let bus = EmitBus::new();
    let mut emitter = bus.emitter([]);
    let mut last = EventTime::MIN;
    for _ in 0..3 {
        let segments: Vec<SegmentDraft> = (0..4).map(|n| segment_of(&vec![None; 1 + 300 * n])).collect();
        let firsts = done(emitter.emit_segments(&segments)).unwrap();
        for name in segments.iter().zip(firsts).flat_map(|(segment, first)| segment.names(first)) {
            assert!(name.time() > last, "{last} {name}");
            last = name.time();
        }
        let one = done(emitter.emit(&[of_key("k", 1)])).unwrap();
        assert!(one[0].name.time() > last);
        last = one[0].name.time();
    }
}

/// With an ordering key each segment is checked before the next is put; without one they are put side by side.
#[test]
fn segments_with_an_ordering_key_are_acknowledged_one_by_one() {
    for (key, there) in [(None, 3), (Some("k"), 1)] {
        let bus = EmitBus::new();
        let (contents, seen) = (Rc::clone(&bus.0), Rc::new(Cell::new(0)));
        let at_the_check = Rc::clone(&seen);
        let look: Option<Hook> =
            Some(Box::new(move || Box::pin(async move { at_the_check.set(contents.keys(EVENTS).len()) })));
        let segments = [segment_of(&[key, None]), segment_of(&[None, key]), segment_of(&[None, None])];
        done(bus.emitter([look]).emit_segments(&segments)).unwrap();
        assert_eq!((seen.get(), bus.0.keys(EVENTS).len()), (there, 3));
    }
}
