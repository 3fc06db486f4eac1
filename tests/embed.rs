//! The bus inside another program, on a runtime with several threads.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evbus::{Batcher, Bus, Consumer, Data, Delivery, Error, GroupBuilder, HandlerError, NewEvent, Query};
use futures_util::StreamExt;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

/// A time that this century does not reach.
fn far() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(200 * 365 * 24 * 3_600)
}

/// A new bus; it goes with the folder.
async fn bus() -> (TempDir, Bus) {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::create(&path(&folder)).await.unwrap();
    (folder, bus)
}

fn path(folder: &TempDir) -> String {
    folder.path().join("bus").display().to_string()
}

fn numbered(number: usize) -> NewEvent {
    NewEvent::new("order.created").json(&number).unwrap()
}

#[test]
fn public_types_are_send_and_sync() {
    fn is<T: Send + Sync + 'static>() {}
    is::<Bus>();
    is::<Batcher>();
    is::<GroupBuilder>();
    is::<Consumer>();
    is::<Delivery>();
    is::<NewEvent>();
    is::<Error>();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_many_tasks_are_each_handled_once() {
    let (_folder, bus) = bus().await;
    let emits = (0..200).map(|number| {
        let bus = bus.clone();
        tokio::spawn(async move { bus.emit(numbered(number)).await.unwrap().id })
    });
    let mut ids = BTreeSet::new();
    for emit in emits.collect::<Vec<_>>() {
        assert!(ids.insert(emit.await.unwrap()));
    }
    let (seen, mut all) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let consumer = bus.group("mail").types(["order.*"]).concurrency(8).handler(move |event| {
        let seen = seen.clone();
        async move { seen.send((event.id().to_owned(), event.json::<usize>().unwrap())).unwrap() }
    });
    let running = tokio::spawn(consumer.run(async move { _ = stopped.await }));
    let mut handled = BTreeSet::new();
    for _ in 0..200 {
        let (id, _) = all.recv().await.unwrap();
        assert!(handled.insert(id), "twice");
    }
    // And what is emitted while it runs.
    ids.insert(bus.emit(numbered(200)).await.unwrap().id);
    handled.insert(all.recv().await.unwrap().0);
    assert_eq!(handled, ids);
    stop.send(()).unwrap();
    assert_eq!(running.await.unwrap().unwrap().done, 201);
}

/// A regression: the call that was putting others got its own answer only when no more came.
#[tokio::test(flavor = "multi_thread")]
async fn each_emit_is_answered_while_others_arrive() {
    let (_folder, bus) = bus().await;
    // Bits of the tasks that have been answered.
    let answered = Arc::new(AtomicU32::new(0));
    let tasks = (0..4u32).map(|task| {
        let (bus, answered) = (bus.clone(), Arc::clone(&answered));
        tokio::spawn(async move {
            for number in 0..500 {
                bus.emit(numbered(number)).await.unwrap();
                answered.fetch_or(1 << task, Ordering::SeqCst);
                if answered.load(Ordering::SeqCst) == 0b1111 {
                    return true;
                }
            }
            false
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert!(task.await.unwrap(), "500 calls of this task were answered before the first one of another");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_one_after_the_other_keep_their_order() {
    let (_folder, bus) = bus().await;
    for number in 0..30 {
        bus.emit(numbered(number)).await.unwrap();
    }
    let events = bus.read(Query::new().types(["order.*"]).limit(20)).await.unwrap();
    let numbers: Vec<String> = events.iter().map(|event| number_in(event.data())).collect();
    assert_eq!(numbers, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(bus.read(Query::new().types(["other"])).await.unwrap().len(), 0);
    assert_eq!(bus.read(Query::new().since(far())).await.unwrap().len(), 0);
}

fn number_in(data: &Data) -> String {
    match data {
        Data::Json(raw) => raw.get().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_error_is_retried_and_a_dead_one_is_not() {
    let (folder, bus) = bus().await;
    for type_ in ["flaky", "bad", "panics"] {
        bus.emit(NewEvent::new(type_)).await.unwrap();
    }
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    let consumer = bus.group("g").max_attempts(1).handler(move |event| {
        let counted = Arc::clone(&counted);
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            match event.type_() {
                "flaky" => Err(std::io::Error::other("not now").into()),
                "bad" => Err(HandlerError::dead("never")),
                _ => panic!("on purpose"),
            }
        }
    });
    let totals = consumer.drain().await.unwrap();
    assert_eq!((totals.done, totals.dead, attempts.load(Ordering::SeqCst)), (0, 3, 3));
    let letters = std::fs::read_dir(folder.path().join("bus/state/g/dead")).unwrap();
    let whys: BTreeSet<String> =
        letters.map(|letter| std::fs::read_to_string(letter.unwrap().path()).unwrap()).collect();
    for why in ["not now", "never", "the handler panicked"] {
        assert!(whys.iter().any(|letter| letter.contains(why)), "{whys:?}");
    }
    // With attempts left, a failure is no dead letter.
    bus.emit(NewEvent::new("flaky")).await.unwrap();
    let again = bus.group("again").types(["flaky"]);
    let totals = again.handler(|_| async { Err::<(), _>(HandlerError::retry("later")) }).drain().await.unwrap();
    assert_eq!((totals.retries, totals.dead, totals.left), (2, 0, 2));
}

/// A regression: the closure was called on the thread of the bus, which ended by its panic.
#[tokio::test(flavor = "multi_thread")]
async fn a_closure_that_panics_before_its_future_costs_one_event() {
    let (_folder, bus) = bus().await;
    bus.emit(NewEvent::new("t").text("no number")).await.unwrap();
    bus.emit(numbered(7)).await.unwrap();
    let consumer = bus.group("g").max_attempts(1).handler(|event| {
        let number: usize = event.json().expect("on purpose");
        async move { assert_eq!(number, 7) }
    });
    let totals = consumer.drain().await.unwrap();
    assert_eq!((totals.done, totals.dead), (1, 1));
    bus.emit(numbered(8)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_id_makes_a_repeat_harmless() {
    let (_folder, bus) = bus().await;
    let paid = |amount: u32| NewEvent::new("order.paid").id("pay-1").source("//shop").json(&amount).unwrap();
    assert!(!bus.emit(paid(5)).await.unwrap().duplicate);
    assert!(bus.emit(paid(5)).await.unwrap().duplicate);
    assert!(matches!(bus.emit(paid(6)).await, Err(Error::IdTaken { id }) if id == "pay-1"));
    let later = NewEvent::new("reminder").id("r").at(far());
    assert!(!bus.emit(later.clone()).await.unwrap().duplicate);
    assert!(bus.emit(later).await.unwrap().duplicate);
    assert_eq!(bus.read(Query::new()).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_consumer_ends_its_handlers_and_loses_no_event() {
    let (folder, bus) = bus().await;
    bus.emit(numbered(1)).await.unwrap();
    let (started, mut starts) = mpsc::unbounded_channel();
    let alive = Arc::new(Mutex::new(()));
    let held = Arc::clone(&alive);
    let consumer = bus.group("g").handler(move |_| {
        let (started, held) = (started.clone(), Arc::clone(&held));
        async move {
            let _held = held;
            started.send(()).unwrap();
            std::future::pending::<()>().await;
        }
    });
    let running = tokio::spawn(consumer.run(std::future::pending()));
    starts.recv().await.unwrap();
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    // The handler's future goes, and with it what it holds; then the shard is released.
    drop(bus);
    while Arc::strong_count(&alive) > 1 {
        tokio::task::yield_now().await;
    }
    let bus = Bus::open(&path(&folder)).await.unwrap();
    loop {
        let totals = bus.group("g").handler(|_| async {}).drain().await.unwrap();
        if totals.done == 1 {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_has_its_error_kind() {
    let (folder, bus) = bus().await;
    let nowhere = folder.path().join("none").display().to_string();
    assert!(matches!(Bus::open(&nowhere).await, Err(Error::Store(_))));
    assert!(matches!(Bus::open("ftp://x/y").await, Err(Error::Address(_))));
    assert!(matches!(bus.emit(NewEvent::new("")).await, Err(Error::Event(_))));
    let large = NewEvent::new("t").text(&"x".repeat(2 << 20));
    assert!(matches!(bus.emit(large).await, Err(Error::Event(_))));
    assert!(matches!(bus.read(Query::new().types(["a**b"])).await, Err(Error::Pattern(_))));
    let drain = |group: GroupBuilder| group.handler(|_| async {}).drain();
    drain(bus.group("g").types(["a"])).await.unwrap();
    assert!(matches!(drain(bus.group("g").types(["b"])).await, Err(Error::GroupDiffers { what: "filter", .. })));
    assert!(matches!(drain(bus.group("g").types(["a"]).shards(4)).await, Err(Error::GroupDiffers { .. })));
    assert!(matches!(drain(bus.group("a/b")).await, Err(Error::GroupName(_))));
    assert!(matches!(drain(bus.group("h").condition("1 +")).await, Err(Error::Condition(_))));
    let error = bus.emit(NewEvent::new("")).await.unwrap_err();
    assert!(error.to_string().starts_with("the event "), "{error}");
}

/// How many objects hold events.
fn objects(folder: &TempDir) -> usize {
    let events = folder.path().join("bus/events");
    walkdir::WalkDir::new(events).into_iter().filter(|entry| entry.as_ref().unwrap().file_type().is_file()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batcher_puts_many_events_into_one_object() {
    let (folder, bus) = bus().await;
    let batcher = bus.batcher().linger(Duration::from_secs(3_600));
    // A full segment does not wait.
    let emits: Vec<_> = (0..1_000)
        .map(|number| {
            let batcher = batcher.clone();
            tokio::spawn(async move { batcher.emit(numbered(number)).await.unwrap().id })
        })
        .collect();
    let mut ids = BTreeSet::new();
    for emit in emits {
        assert!(ids.insert(emit.await.unwrap()));
    }
    assert_eq!(objects(&folder), 1);
    let events = bus.read(Query::new().limit(5_000)).await.unwrap();
    assert_eq!(events.iter().map(|event| event.id().to_owned()).collect::<BTreeSet<_>>(), ids);
    let handled = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&handled);
    let handler = bus.group("all").handler(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        async {}
    });
    assert_eq!((handler.drain().await.unwrap().done, handled.load(Ordering::Relaxed)), (1_000, 1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batcher_answers_each_event_for_itself() {
    let (_folder, bus) = bus().await;
    let batcher = bus.batcher();
    let named = || NewEvent::new("order.created").id("1");
    let large = NewEvent::new("order.created").text(&"x".repeat(2 << 20));
    let (good, first, bad) =
        tokio::join!(batcher.emit(numbered(1)), batcher.emit(named()), batcher.emit(NewEvent::new("")));
    assert!(!good.unwrap().duplicate && !first.unwrap().duplicate);
    assert!(matches!(bad, Err(Error::Event(_))), "{bad:?}");
    assert!(matches!(batcher.emit(large).await, Err(Error::Event(_))));
    assert!(batcher.emit(named()).await.unwrap().duplicate, "an id of its own is there once");
    assert_eq!(bus.read(Query::new()).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batcher_keeps_the_order_of_a_key() {
    let (_folder, bus) = bus().await;
    let batcher = bus.batcher();
    // The first poll of each emit is in this order.
    let emits = (0..3_000).map(|number| batcher.emit(numbered(number).key("k")));
    for emitted in futures_util::future::join_all(emits).await {
        emitted.unwrap();
    }
    // More than there is room for, with new calls while others wait for room.
    let large = "x".repeat(64 << 10);
    let event = |number: usize| NewEvent::new("order.created").json(&(number, &large)).unwrap().key("k");
    let calls = futures_util::stream::iter(3_000..3_900).map(|number| batcher.emit(event(number)));
    let answers: Vec<_> = calls.buffered(300).collect().await;
    assert!(answers.iter().all(Result::is_ok));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&seen);
    let handler = bus.group("all").ordered().handler(move |event| {
        let number = event.json::<usize>().or_else(|_| event.json::<(usize, String)>().map(|(number, _)| number));
        list.lock().unwrap().push(number.unwrap());
        async {}
    });
    handler.drain().await.unwrap();
    assert!(seen.lock().unwrap().iter().copied().eq(0..3_900));
}
