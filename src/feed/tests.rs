use super::state::Entry;
use super::*;
use crate::bus::emit::{Draft, Emitter};
use crate::clock::{Fut, SystemClock};
use crate::event::{Data, Filter};
use crate::store::Hints;
use crate::store::memory::{Calm, Contents, MemoryStore, Network, Operation, Route};
use crate::store::object::PROFILE;

/// A bus whose store several processes share.
fn handle(contents: &Rc<Contents>) -> BusHandle {
    BusHandle::new(Rc::new(MemoryStore::new(Rc::clone(contents), Rc::new(Calm), PROFILE)), Rc::new(SystemClock))
}

async fn emit(bus: &BusHandle, type_: &str, n: u32) {
    let make = |id: &str, time: EventTime| {
        Event::new(id, "/s", type_).time(time.to_rfc3339()).data(Data::json(&n.to_string()).unwrap()).build()
    };
    let draft = Draft::new(&SystemClock, None, None, make).unwrap();
    Emitter::new(bus.clone(), Duration::from_secs(1)).emit(&[draft]).await.unwrap();
}

/// The data of what a reader is given until there is no more, and its cursor then.
async fn read(reader: &mut Reader) -> (Vec<String>, Cursor) {
    let mut all = Vec::new();
    loop {
        let given = reader.next(2).await.unwrap();
        for item in &given.items {
            let event = Event::parse(&item.document, usize::MAX).unwrap();
            let Data::Json(data) = event.data() else { panic!("it has data") };
            all.push(data.get().to_owned());
        }
        if !given.more {
            return (all, reader.cursor().unwrap());
        }
    }
}

fn at(cursor: &Cursor) -> ReadFrom {
    ReadFrom::Cursor(Cursor::parse(&cursor.to_string()).unwrap())
}

/// A folder, where what is written lasts only from a flush on; whoever writes here may do without.
struct Folder {
    is_not_durable: bool,
}

impl Network for Folder {
    fn route(&self, operation: Operation, key: &str) -> Route {
        Calm.route(operation, key)
    }
    fn later(&self, after: Duration, action: Box<dyn FnOnce()>) {
        Calm.later(after, action);
    }
    fn pause(&self, time: Duration) -> Fut<'static, ()> {
        Calm.pause(time)
    }
    fn page_len(&self) -> usize {
        Calm.page_len()
    }
    fn hints(&self) -> Option<Box<dyn Hints>> {
        None
    }
    fn last_write_micros(&self) -> Option<i64> {
        None
    }
    fn flushes(&self) -> bool {
        true
    }
    fn is_not_durable(&self) -> bool {
        self.is_not_durable
    }
}

/// Readers keep cursors at W: it must not fall back behind them, whoever has raised it.
#[tokio::test]
async fn each_w_that_a_round_has_read_survives_a_power_cut() {
    let contents = Rc::<Contents>::default();
    let store = |is_not_durable| {
        let network = Rc::new(Folder { is_not_durable });
        Rc::new(MemoryStore::new(Rc::clone(&contents), network, PROFILE))
    };
    let feed = Feed::new(BusHandle::new(store(false), Rc::new(SystemClock)), FeedBounds::default());
    for second in 1..4 {
        let w = EventTime::from_micros(second * 1_000_000);
        frontier::raise(&*store(true), w).await.unwrap();
        feed.round().await.unwrap();
        feed.round().await.unwrap();
        contents.cut_power();
        assert_eq!(frontier::read(&*store(false)).await.unwrap().time, w);
    }
}

#[tokio::test]
async fn who_comes_back_to_the_same_log_sees_nothing_again() {
    let bus = handle(&Rc::default());
    let feed = Feed::new(bus.clone(), FeedBounds::default());
    emit(&bus, "a", 1).await;
    feed.round().await.unwrap();
    let reader = |start| Reader::new(&feed, Selection::default(), start);
    let (seen, cursor) = read(&mut reader(ReadFrom::Since(EventTime::MIN))).await;
    assert_eq!(seen, ["1"]);
    let (seen, _) = read(&mut reader(ReadFrom::Now)).await;
    assert_eq!(seen.len(), 0);
    emit(&bus, "a", 2).await;
    feed.round().await.unwrap();
    let (seen, later) = read(&mut reader(at(&cursor))).await;
    assert_eq!(seen, ["2"], "W has not moved, and still nothing is seen again");
    assert_eq!(read(&mut reader(at(&later))).await.0.len(), 0);
}

#[tokio::test]
async fn who_comes_to_another_server_misses_nothing() {
    let contents = Rc::default();
    let (bus, other) = (handle(&contents), handle(&contents));
    let feed = Feed::new(bus.clone(), FeedBounds::default());
    emit(&bus, "a", 1).await;
    feed.round().await.unwrap();
    let (seen, cursor) = read(&mut Reader::new(&feed, Selection::default(), ReadFrom::Since(EventTime::MIN))).await;
    assert_eq!(seen, ["1"]);
    emit(&bus, "a", 2).await;
    let feed = Feed::new(other.clone(), FeedBounds::default());
    feed.round().await.unwrap();
    let (seen, _) = read(&mut Reader::new(&feed, Selection::default(), at(&cursor))).await;
    assert_eq!(seen, ["1", "2"], "W has not moved: the first one is seen again");
    frontier::raise(&*other.store, other.clock.now()).await.unwrap();
    feed.round().await.unwrap();
    let (seen, cursor) = read(&mut Reader::new(&feed, Selection::default(), ReadFrom::Since(EventTime::MIN))).await;
    assert_eq!(seen, ["1", "2"]);
    let feed = Feed::new(bus.clone(), FeedBounds::default());
    feed.round().await.unwrap();
    let (seen, _) = read(&mut Reader::new(&feed, Selection::default(), at(&cursor))).await;
    assert_eq!(seen.len(), 0, "everything is at or before W");
}

#[tokio::test]
async fn settled_events_come_once_w_has_passed_them() {
    let bus = handle(&Rc::default());
    let feed = Feed::new(bus.clone(), FeedBounds::default());
    feed.round().await.unwrap();
    let selection = Selection { order: Order::Settled, ..Selection::default() };
    let mut reader = Reader::new(&feed, selection.clone(), ReadFrom::Since(EventTime::MIN));
    emit(&bus, "a", 1).await;
    feed.round().await.unwrap();
    assert_eq!(read(&mut reader).await.0.len(), 0);
    frontier::raise(&*bus.store, bus.clock.now()).await.unwrap();
    emit(&bus, "a", 2).await;
    assert_eq!(feed.round().await.unwrap(), 1);
    assert!(feed.state.borrow().above_w().is_some(), "the second one is above W");
    let (seen, cursor) = read(&mut reader).await;
    assert_eq!(seen, ["1"]);
    assert_eq!(cursor.place, None);
    frontier::raise(&*bus.store, bus.clock.now()).await.unwrap();
    feed.round().await.unwrap();
    assert_eq!(read(&mut reader).await.0, ["2"]);
    assert_eq!(read(&mut Reader::new(&feed, selection, at(&cursor))).await.0, ["2"]);
}

#[tokio::test]
async fn a_reader_gets_what_it_wants_and_may_see() {
    let bus = handle(&Rc::default());
    let feed = Feed::new(bus.clone(), FeedBounds::default());
    feed.round().await.unwrap();
    let filter = |types: &[&str], condition: Option<&str>| Filter {
        types: TypeFilter::new(&types.iter().map(|&type_| type_.to_owned()).collect::<Vec<_>>(), &[]).unwrap(),
        condition: condition.map(|text| crate::event::Condition::parse(text).unwrap()),
    };
    let selection = |filter, allowed: Option<&str>| Selection {
        filter,
        allowed: allowed.map(|pattern| TypeFilter::new(&[pattern.to_owned()], &[]).unwrap()),
        order: Order::Arrival,
    };
    let start = || ReadFrom::Since(EventTime::MIN);
    let mut readers = [
        Reader::new(&feed, selection(filter(&["a.*"], None), None), start()),
        Reader::new(&feed, selection(filter(&[], Some("data > 1")), None), start()),
        Reader::new(&feed, selection(filter(&[], None), Some("b.*")), start()),
        Reader::new(&feed, selection(filter(&["a.*"], None), Some("b.*")), start()),
    ];
    for (n, type_) in (1..).zip(["a.x", "a.y", "b.x"]) {
        emit(&bus, type_, n).await;
    }
    feed.round().await.unwrap();
    for (reader, wanted) in readers.iter_mut().zip([&["1", "2"][..], &["2", "3"], &["3"], &[]]) {
        assert_eq!(read(reader).await.0, wanted);
    }
}

#[tokio::test]
async fn who_comes_back_too_late_is_told_of_the_gap() {
    let bus = handle(&Rc::default());
    let feed = Feed::new(bus.clone(), FeedBounds::default());
    emit(&bus, "a", 1).await;
    feed.round().await.unwrap();
    let (_, cursor) = read(&mut Reader::new(&feed, Selection::default(), ReadFrom::Since(EventTime::MIN))).await;
    let pruned = bus.clock.now();
    crate::bus::horizon::raise(&*bus.store, pruned).await.unwrap();
    frontier::raise(&*bus.store, bus.clock.now()).await.unwrap();
    let feed = Feed::new(bus.clone(), FeedBounds::default());
    feed.round().await.unwrap();
    let given = Reader::new(&feed, Selection::default(), at(&cursor)).next(9).await.unwrap();
    assert_eq!(given.gap, Some(pruned));
    let given = Reader::new(&feed, Selection::default(), ReadFrom::Since(EventTime::MIN)).next(9).await.unwrap();
    assert_eq!(given.gap, None, "it has asked for what is there");
}

/// Puts an event of a named id under a time of its own, without asking anything.
async fn put(bus: &BusHandle, micros: i64, data: &str) -> EventName {
    let event = Event::new("id", "/s", "a").data(Data::json(data).unwrap()).build().unwrap();
    let identity = crate::event::Identity::named("/s", "id");
    let name = EventName::new(EventTime::from_micros(micros), event.hash_slot(&identity), &identity, "a");
    assert_eq!(bus.store.put_new(&name.key(), &event.to_json()).await.unwrap(), crate::store::Put::Created);
    name
}

#[tokio::test]
async fn a_log_that_nobody_read_meanwhile_is_another_one() {
    let bus = handle(&Rc::default());
    let feed = Feed::new(bus.clone(), FeedBounds::default());
    emit(&bus, "a", 1).await;
    feed.round().await.unwrap();
    let (_, cursor) = read(&mut Reader::new(&feed, Selection::default(), ReadFrom::Now)).await;
    let mut reader = Reader::new(&feed, Selection::default(), ReadFrom::Now);
    {
        let mut state = feed.state.borrow_mut();
        *state = state.anew(7);
    }
    emit(&bus, "a", 2).await;
    frontier::raise(&*bus.store, bus.clock.now()).await.unwrap();
    feed.round().await.unwrap();
    let (seen, _) = read(&mut Reader::new(&feed, Selection::default(), at(&cursor))).await;
    assert!(seen.contains(&"2".to_owned()), "{seen:?}");
    assert_eq!(read(&mut reader).await.0, seen, "also who has stayed");
}

#[tokio::test]
async fn only_an_equal_copy_is_hidden() {
    let bus = handle(&Rc::default());
    let feed = Feed::new(bus.clone(), FeedBounds::default());
    feed.round().await.unwrap();
    let mut reader = Reader::new(&feed, Selection::default(), ReadFrom::Now);
    for (micros, data) in [(1_000, "1"), (2_000, "1"), (3_000, "2"), (4_000, "1")] {
        put(&bus, micros, data).await;
        feed.round().await.unwrap();
    }
    assert_eq!(read(&mut reader).await.0, ["1", "2"]);
}

#[tokio::test]
async fn nothing_counts_as_given_where_a_call_is_dropped() {
    let bus = handle(&Rc::default());
    let feed = Feed::new(bus.clone(), FeedBounds::default());
    emit(&bus, "a", 1).await;
    feed.round().await.unwrap();
    let mut reader = Reader::new(&feed, Selection::default(), ReadFrom::Since(EventTime::MIN));
    let reading = reader.next(1);
    drop(reading);
    assert_eq!(read(&mut reader).await.0, ["1"]);
}

#[tokio::test]
async fn events_ahead_of_w_are_given_where_the_log_has_forgotten_them() {
    let bus = handle(&Rc::default());
    let feed = Feed::new(bus.clone(), FeedBounds { kept: 1, ..FeedBounds::default() });
    feed.round().await.unwrap();
    for n in 1..=3 {
        emit(&bus, "a", n).await;
        feed.round().await.unwrap();
    }
    assert_eq!(feed.state.borrow().log.first, 2);
    let (seen, _) = read(&mut Reader::new(&feed, Selection::default(), ReadFrom::Since(EventTime::MIN))).await;
    assert_eq!(seen, ["1", "2", "3"]);
}

#[tokio::test]
async fn an_event_that_is_gone_is_forgotten() {
    let bus = handle(&Rc::default());
    let feed = Feed::new(bus.clone(), FeedBounds::default());
    feed.round().await.unwrap();
    let name = put(&bus, 4_000_000_000_000_000, "1").await;
    feed.round().await.unwrap();
    assert!(feed.state.borrow().above_w().is_some());
    bus.store.delete(&name.key()).await.unwrap();
    feed.round().await.unwrap();
    assert!(feed.state.borrow().above_w().is_none());
}

#[tokio::test]
async fn documents_are_let_go_and_read_again() {
    let bus = handle(&Rc::default());
    let feed = Feed::new(bus.clone(), FeedBounds::default());
    feed.round().await.unwrap();
    emit(&bus, "a", 1).await;
    feed.round().await.unwrap();
    let reader = || Reader::new(&feed, Selection::default(), ReadFrom::Since(EventTime::MIN));
    assert_eq!(read(&mut reader()).await.0, ["1"]);
    {
        let mut state = feed.state.borrow_mut();
        let Some(Entry::Event(arrival)) = state.log.get(0).cloned() else { panic!("it is in the log") };
        state.keep(&arrival, FeedBounds::default().document_bytes + 1);
        assert!(arrival.content.borrow().is_none());
    }
    assert_eq!(read(&mut reader()).await.0, ["1"]);
}
