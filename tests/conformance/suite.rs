//! For every store: create, read, swap, delete.

use bytes::Bytes;
use evbus::store::{ErrorKind, Item, Put, Store, StoreResult, Swap, Version};
use futures_util::future::join_all;

use crate::StoreFixture;

async fn bytes(store: &dyn Store, key: &str) -> Option<Vec<u8>> {
    store.get(key).await.unwrap().map(|object| object.bytes)
}

async fn swapped(store: &dyn Store, key: &str, from: Option<&Version>, content: &[u8]) -> Version {
    match store.cas(key, from, content).await.unwrap() {
        Swap::Swapped(version) => version,
        Swap::Conflict => panic!("conflict on {key} from {from:?}"),
    }
}

pub async fn an_object_is_created_once(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    assert_eq!(bench.store.put_new("events/a/b/one.json", b"first").await.unwrap(), Put::Created);
    assert_eq!(bench.store.put_new("events/a/b/one.json", b"second").await.unwrap(), Put::Exists);
    assert_eq!(bytes(&*bench.store, "events/a/b/one.json").await.unwrap(), b"first");
    assert_eq!(bench.store.put_new("top.json", b"").await.unwrap(), Put::Created);
    assert_eq!(bytes(&*bench.store, "top.json").await.unwrap(), b"");
}

pub async fn an_absent_key_reads_as_none(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    for key in ["absent", "events/absent/absent.json", "state/g/marker-000"] {
        assert_eq!(bytes(&*bench.store, key).await, None, "{key}");
    }
    assert_eq!(bench.store.put_new("events/here.json", b"x").await.unwrap(), Put::Created);
    assert_eq!(bytes(&*bench.store, "events/her.json").await, None);
    assert_eq!(bytes(&*bench.store, "events/here.jso").await, None);
}

pub async fn a_register_is_swapped_from_its_version_only(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let store = &*bench.store;
    let key = "state/g/marker-000";
    let first = swapped(store, key, None, b"1").await;
    let object = store.get(key).await.unwrap().unwrap();
    assert_eq!((object.bytes.as_slice(), &object.version), (b"1".as_slice(), &first));
    assert_eq!(store.cas(key, None, b"other").await.unwrap(), Swap::Conflict);
    let second = swapped(store, key, Some(&first), b"2").await;
    assert_ne!(first, second);
    assert_eq!(store.cas(key, Some(&first), b"other").await.unwrap(), Swap::Conflict);
    assert_eq!(bytes(store, key).await.unwrap(), b"2");
    // Keys that begin or end alike are not affected.
    for other in ["state/g/marker-00", "state/g/marker-0000", "state/g/arker-000", "marker-000"] {
        assert_eq!(bytes(store, other).await, None, "{other}");
    }
}

pub async fn swaps_form_a_chain(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let mut version = None;
    for turn in 0..25 {
        let content = format!("{turn}");
        version = Some(swapped(&*bench.store, "frontier", version.as_ref(), content.as_bytes()).await);
        let object = bench.store.get("frontier").await.unwrap().unwrap();
        assert_eq!((object.bytes, Some(object.version)), (content.into_bytes(), version.clone()));
    }
}

pub async fn stale_and_future_versions_conflict(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let store = &*bench.store;
    let mut versions = vec![swapped(store, "frontier", None, b"0").await];
    // Never the same content twice: a bucket's version is a hash of it.
    for turn in 1..=8 {
        versions.push(swapped(store, "frontier", versions.last(), format!("x{turn}").as_bytes()).await);
    }
    let newest = versions.pop().unwrap();
    for stale in &versions {
        assert_eq!(store.cas("frontier", Some(stale), b"stale").await.unwrap(), Swap::Conflict, "{stale:?}");
    }
    for odd in ["99", "999999999999999", "99999999999999999999999", "-1", "0", "", "x", "1 "] {
        let swap = store.cas("frontier", Some(&Version(odd.to_owned())), b"odd").await.unwrap();
        assert_eq!(swap, Swap::Conflict, "{odd:?}");
    }
    assert_eq!(store.cas("frontier", None, b"new").await.unwrap(), Swap::Conflict);
    assert_eq!(store.cas("absent", Some(&newest), b"from nothing").await.unwrap(), Swap::Conflict);
    let object = store.get("frontier").await.unwrap().unwrap();
    assert_eq!((object.bytes.as_slice(), object.version), (b"x8".as_slice(), newest));
}

pub async fn deleting_is_final_and_idempotent(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let store = &*bench.store;
    assert_eq!(store.put_new("events/a/x.json", b"1").await.unwrap(), Put::Created);
    let mut version = None;
    for turn in 0..6 {
        version = Some(swapped(store, "state/g/marker-001", version.as_ref(), format!("m{turn}").as_bytes()).await);
    }
    swapped(store, "state/g/marker-002", None, b"stays").await;
    for key in ["events/a/x.json", "state/g/marker-001", "never/there", "never"] {
        for _ in 0..2 {
            store.delete(key).await.unwrap();
            assert_eq!(bytes(store, key).await, None, "{key}");
        }
    }
    assert_eq!(bytes(store, "state/g/marker-002").await.unwrap(), b"stays");
    assert_eq!(store.put_new("events/a/x.json", b"2").await.unwrap(), Put::Created);
    let anew = swapped(store, "state/g/marker-001", None, b"anew").await;
    // Versions count from the start again; a client that missed the deletion at the same count must
    // not swap.
    let mut latest = anew;
    for turn in 0..5 {
        latest = swapped(store, "state/g/marker-001", Some(&latest), format!("anew{turn}").as_bytes()).await;
    }
    assert_eq!(store.cas("state/g/marker-001", version.as_ref(), b"stale").await.unwrap(), Swap::Conflict);
    assert_eq!(bytes(store, "state/g/marker-001").await.unwrap(), b"anew4");
}

pub async fn odd_characters_are_kept(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let keys = [
        "a b.json",
        "~.json",
        "-rf.json",
        "%2F.json",
        "ä€😀.json",
        "a\\b.json",
        "*?.json",
        "'\".json",
        "..json",
        "x..json",
        ".h.json",
    ];
    let mut keys: Vec<String> = keys.iter().map(|name| format!("state/g/odd/{name}")).collect();
    for key in &keys {
        assert_eq!(bench.store.put_new(key, key.as_bytes()).await.unwrap(), Put::Created, "{key}");
        assert_eq!(bytes(&*bench.store, key).await.unwrap(), key.as_bytes(), "{key}");
    }
    keys.sort();
    let listed = bench.store.list_after(evbus::store::List::all("state/g/odd/")).await.unwrap();
    assert_eq!(listed.keys, keys);
}

pub async fn concurrent_puts_and_gets_succeed(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let keys: Vec<String> = (0..64).map(|n| format!("events/{}/{n:03}.json", n % 5)).collect();
    let puts = join_all(keys.iter().map(|key| bench.store.put_new(key, key.as_bytes()))).await;
    assert!(puts.into_iter().all(|put| put.unwrap() == Put::Created));
    for (key, object) in keys.iter().zip(join_all(keys.iter().map(|key| bench.store.get(key))).await) {
        assert_eq!(object.unwrap().unwrap().bytes, key.as_bytes());
    }
}

pub async fn concurrent_creates_have_one_winner(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let names: Vec<String> = (0..16).map(|n| format!("writer {n}")).collect();
    let puts = join_all(names.iter().map(|name| bench.store.put_new("events/one.json", name.as_bytes()))).await;
    let won: Vec<&String> =
        names.iter().zip(puts).filter(|(_, put)| *put == Ok(Put::Created)).map(|(name, _)| name).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(bytes(&*bench.store, "events/one.json").await.unwrap(), won[0].as_bytes());
    let base = swapped(&*bench.store, "frontier", None, b"base").await;
    let swaps = join_all(names.iter().map(|name| bench.store.cas("frontier", Some(&base), name.as_bytes()))).await;
    // On a network a loser may get no answer in time.
    let remote = bench.store.requests().is_some();
    let refused = |swap: &StoreResult<Swap>| match swap {
        Ok(swap) => *swap == Swap::Conflict,
        Err(error) => remote && error.kind() == ErrorKind::Unavailable,
    };
    let won: Vec<&String> = names.iter().zip(swaps).filter(|(_, swap)| !refused(swap)).map(|(name, _)| name).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(bytes(&*bench.store, "frontier").await.unwrap(), won[0].as_bytes());
}

pub async fn large_objects_are_stored(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let large: Vec<u8> = (0..5_000_003u32).map(|n| (n % 251) as u8).collect();
    assert_eq!(bench.store.put_new("events/large.json", &large).await.unwrap(), Put::Created);
    assert!(bytes(&*bench.store, "events/large.json").await.unwrap() == large);
    swapped(&*bench.store, "state/g/marker-000", None, &large).await;
    assert!(bytes(&*bench.store, "state/g/marker-000").await.unwrap() == large);
}

pub async fn many_objects_are_put_in_one_call(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    assert_eq!(bench.store.put_many(&[]).await.unwrap(), []);
    for count in [1, 3, 4, 50] {
        let items: Vec<Item> =
            (0..count).map(|n| (format!("events/{count}/{}/{n:03}.json", n % 3), Bytes::from(vec![n as u8]))).collect();
        // A taken key ends an ordered batch: the caller handles it before anything after it is
        // visible.
        let taken = count / 2;
        assert_eq!(bench.store.put_new(&items[taken].0, b"theirs").await.unwrap(), Put::Created);
        let answers = bench.store.put_many(&items).await.unwrap();
        assert!(answers.len() > taken && answers.len() <= count, "{answers:?}");
        for (at, answer) in answers.iter().enumerate() {
            assert_eq!(*answer, if at == taken { Put::Exists } else { Put::Created }, "{at} of {count}");
        }
        assert_eq!(bytes(&*bench.store, &items[taken].0).await.unwrap(), b"theirs");
        for (key, _) in &items[answers.len()..] {
            assert_eq!(bench.store.get(key).await.unwrap(), None);
        }
        let rest = bench.store.put_many(&items[answers.len()..]).await.unwrap();
        assert_eq!(rest, vec![Put::Created; count - answers.len()]);
    }
}

/// A gate that lets the first items through, which all are of one chain.
struct UpTo(usize);

impl evbus::store::Gate for UpTo {
    fn opens(&self, at: usize) -> evbus::clock::Fut<'_, StoreResult<bool>> {
        Box::pin(std::future::ready(Ok(at < self.0)))
    }

    fn chain(&self, _: usize) -> Option<u64> {
        Some(0)
    }
}

/// Events with one hash slot may share an ordering key: they become visible in their order, and
/// none passes one that is in doubt.
pub async fn events_of_a_hash_slot_become_visible_in_order(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let key = |n: usize| format!("events/20261123/0215/20261123T021530.{n:06}Z-7kq3f9x2m7qa5w0c-order.created.json");
    let items: Vec<Item> = (0..20).map(|n| (key(n), Bytes::from(vec![n as u8]))).collect();
    assert_eq!(bench.store.put_new(&items[12].0, b"theirs").await.unwrap(), Put::Created);
    let answers = bench.store.put_gated(&items, &UpTo(items.len())).await.unwrap();
    assert_eq!(answers[..12], [Put::Created; 12]);
    assert!(answers[12..].iter().all(|answer| *answer == Put::Exists), "{answers:?}");
    for (key, _) in &items[13..] {
        assert_eq!(bench.store.get(key).await.unwrap(), None, "{key}");
    }
}

pub async fn many_objects_are_deleted_in_one_call(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let keys: Vec<String> = (0..30).map(|n| format!("events/day{}/{}/{n}.json", n % 2, n % 3)).collect();
    for key in &keys {
        assert_eq!(bench.store.put_new(key, b"x").await.unwrap(), Put::Created);
    }
    let (stay, go) = keys.split_at(4);
    let go: Vec<String> = go.iter().cloned().chain(["events/day0/absent/x.json".to_owned()]).collect();
    bench.store.delete_many(&go).await.unwrap();
    bench.store.delete_many(&go).await.unwrap();
    let mut stay = stay.to_vec();
    stay.sort();
    assert_eq!(bench.store.list_after(evbus::store::List::all("events/")).await.unwrap().keys, stay);
    // Folders that are empty now can be written to again.
    for key in &go {
        assert_eq!(bench.store.put_new(key, b"again").await.unwrap(), Put::Created);
    }
}

pub async fn a_persisted_object_can_be_read(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    bench.store.persist("frontier").await.unwrap();
    swapped(&*bench.store, "frontier", None, b"w").await;
    bench.store.persist("frontier").await.unwrap();
    swapped(&*bench.store, "state/g/marker-000", None, b"m").await;
    bench.store.persist("state/g/marker-000").await.unwrap();
    assert_eq!(bytes(&*bench.store, "frontier").await.unwrap(), b"w");
    let keys = ["events/a/x.json", "events/b/y.json", "dedup/z.json", "events/never/there.json", "top.json"];
    let keys: Vec<String> = keys.map(str::to_owned).into();
    for key in &keys[..3] {
        assert_eq!(bench.store.put_new(key, b"x").await.unwrap(), Put::Created);
    }
    // Missing keys need nothing, and nothing is created for them.
    for some in [&keys[..0], &keys[..1], &keys[2..4], &keys] {
        bench.store.persist_many(some).await.unwrap();
    }
    let listed = bench.store.list_after(evbus::store::List::all("events/")).await.unwrap();
    assert_eq!(listed.keys, keys[..2]);
    let writes = bench.store.last_write_micros();
    assert!(writes.is_none_or(|micros| micros > 1_500_000_000_000_000), "{writes:?}");
}

pub async fn an_object_over_the_limit_is_not_read(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    assert_eq!(bench.store.put_new("events/a/x.json", b"12345678").await.unwrap(), Put::Created);
    swapped(&*bench.store, "frontier", None, b"12345678").await;
    for key in ["events/a/x.json", "frontier"] {
        let read = async |limit| bench.store.get_within(key, limit).await;
        assert_eq!(read(8).await.unwrap().unwrap().bytes, b"12345678");
        let error = read(7).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Damaged && error.to_string().contains("8 bytes"), "{error}");
    }
    assert_eq!(bench.store.get_within("events/a/y.json", 0).await.unwrap(), None);
}

/// What the gate lets through becomes visible in its turn, and nothing after the closed gate does.
pub async fn a_closed_gate_ends_a_batch(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let key = |n: usize| format!("events/20261123/0215/20261123T021530.{n:06}Z-7kq3f9x2m7qa5w0c-order.created.json");
    let items: Vec<Item> = (0..8).map(|n| (key(n), Bytes::from(vec![n as u8]))).collect();
    for let_ in [0, 3, 8] {
        let answers = bench.store.put_gated(&items, &UpTo(let_)).await.unwrap();
        let created = answers.iter().filter(|put| **put == Put::Created).count();
        let listed = bench.store.list_after(evbus::store::List::all("events/")).await.unwrap();
        assert_eq!((created, listed.keys.len()), (let_, let_));
        let keys: Vec<String> = items.iter().map(|(key, _)| key.clone()).collect();
        bench.store.delete_many(&keys).await.unwrap();
    }
}
