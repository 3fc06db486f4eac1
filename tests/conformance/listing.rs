//! For every store: listings.

use std::collections::BTreeSet;

use bytes::Bytes;
use evbus::store::{Item, List, Page, Put, Store, Swap};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use crate::StoreFixture;

const MINUTES: [&str; 3] = ["events/20261123/0215/", "events/20261123/0216/", "events/20261124/0000/"];

fn name(minute: usize, micros: u32) -> String {
    let times = ["20261123T0215", "20261123T0216", "20261124T0000"];
    format!("{}{}30.{micros:06}Z-7kq3f9x2m7qa5w0c-order.created.json", MINUTES[minute], times[minute])
}

async fn fill(store: &dyn Store, keys: impl IntoIterator<Item = String>) -> Vec<String> {
    let items: Vec<Item> = keys.into_iter().map(|key| (key, Bytes::from_static(b"x"))).collect();
    assert!(store.put_many(&items).await.unwrap().into_iter().all(|put| put == Put::Created));
    let mut keys: Vec<String> = items.into_iter().map(|(key, _)| key).collect();
    keys.sort();
    keys
}

async fn page(store: &dyn Store, after: &str, limit: usize) -> Page {
    store.list_after(List::all("events/").after(after).limit(limit)).await.unwrap()
}

pub async fn nested_folders_are_listed_in_byte_order(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    // `-` and `.` sort before `/`, digits and letters after it.
    let keys = ["b/x", "b-/x", "b.x", "b/x-", "b/x-y/z", "b/x.y", "b0", "a/z/z", "a/z-", "é/x", "~", "B/x", "b/y/"]
        .map(|key| format!("events/{}.json", key.trim_end_matches('/')));
    let keys = fill(&*bench.store, keys).await;
    assert_eq!(page(&*bench.store, "", usize::MAX).await, Page { keys: keys.clone(), is_truncated: false });
    // Every limit returns the start of it, wherever files and folders interleave.
    for limit in 0..=keys.len() {
        let expected = Page { keys: keys[..limit].to_vec(), is_truncated: limit < keys.len() };
        assert_eq!(page(&*bench.store, "", limit).await, expected, "limit {limit}");
    }
    let inner = bench.store.list_after(List::all("events/b/")).await.unwrap();
    assert_eq!(inner.keys, keys.iter().filter(|key| key.starts_with("events/b/")).cloned().collect::<Vec<_>>());
    assert_eq!(bench.store.list_after(List::all("elsewhere/")).await.unwrap(), Page::default());
}

pub async fn after_is_exclusive(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let keys = fill(&*bench.store, (0..9).map(|n| name(n / 3, n as u32 % 3))).await;
    let afters = [
        ("", 0),
        ("events/", 0),
        (&keys[0][..], 1),
        (&keys[2], 3),
        (&keys[8], 9),
        // A time with `~` means every name of that time.
        ("events/20261123/0215/20261123T021530.000000Z~", 1),
        ("events/20261123/0215/20261123T021530.000001Z", 1),
        ("events/20261123/0216/20261123T021630.000002Z~", 6),
        // In a missing folder, earlier and later.
        ("events/20261122/2359/20261122T235900.000000Z~", 0),
        ("events/20261123/0215/", 0),
        ("events/20261123/0215~", 3),
        ("events/20261123/0218/20261123T021800.000000Z~", 6),
        ("events/20261125/0000/x", 9),
        ("dedup/x", 0),
        ("frontier", 9),
    ];
    for (after, skipped) in afters {
        let expected = Page { keys: keys[skipped..].to_vec(), is_truncated: false };
        assert_eq!(page(&*bench.store, after, usize::MAX).await, expected, "after {after:?}");
    }
}

/// evbus itself never makes this request.
pub async fn a_listing_after_a_folder_name_includes_its_contents(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let keys = fill(&*bench.store, (0..3).map(|n| name(0, n))).await;
    assert_eq!(page(&*bench.store, "events/20261123/0215", usize::MAX).await, Page { keys, is_truncated: false });
}

pub async fn limit_and_truncation_are_exact(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let keys = fill(&*bench.store, (0..9).map(|n| name(n / 3, n as u32 % 3))).await;
    for from in 0..keys.len() {
        for limit in 0..=10 {
            let after = if from == 0 { "" } else { &keys[from - 1] };
            let end = (from + limit).min(keys.len());
            let expected = Page { keys: keys[from..end].to_vec(), is_truncated: end < keys.len() };
            assert_eq!(page(&*bench.store, after, limit).await, expected, "from {from}, limit {limit}");
        }
    }
    // Keys that the filter drops do not count as more.
    let list = List::all("events/").limit(3).keep(|key| key.starts_with(MINUTES[0]));
    assert_eq!(bench.store.list_after(list).await.unwrap(), Page { keys: keys[..3].to_vec(), is_truncated: false });
}

pub async fn a_listing_keeps_what_its_filter_accepts(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let keys = fill(&*bench.store, (0..30).map(|n| name(n / 10, n as u32))).await;
    let odd: Vec<String> = keys.iter().filter(|key| key.contains("1Z-") || key.contains("5Z-")).cloned().collect();
    let list = List::all("events/").keep(|key| key.contains("1Z-") || key.contains("5Z-"));
    assert_eq!(bench.store.list_after(list.clone()).await.unwrap(), Page { keys: odd.clone(), is_truncated: false });
    assert_eq!(
        bench.store.list_after(list.clone().limit(2)).await.unwrap(),
        Page { keys: odd[..2].to_vec(), is_truncated: true }
    );
    assert_eq!(bench.store.list_after(list.keep(|_| false)).await.unwrap(), Page::default());
    // The filter sees every key after `after` once.
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&seen);
    let list = List::all("events/").after(keys[3].clone()).keep(move |key| {
        log.lock().unwrap().push(key.to_owned());
        false
    });
    assert_eq!(bench.store.list_after(list).await.unwrap(), Page::default());
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    assert_eq!(seen, keys[4..]);
}

pub async fn a_register_is_listed_once(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    for key in ["groups/b.json", "groups/a.json", "groups/a-b.json"] {
        let mut version = None;
        for _ in 0..6 {
            match bench.store.cas(key, version.as_ref(), b"{}").await.unwrap() {
                Swap::Swapped(next) => version = Some(next),
                Swap::Conflict => panic!("conflict"),
            }
        }
    }
    let expected = ["groups/a-b.json", "groups/a.json", "groups/b.json"].map(str::to_owned).to_vec();
    let listed = bench.store.list_after(List::all("groups/")).await.unwrap();
    assert_eq!(listed, Page { keys: expected.clone(), is_truncated: false });
    let listed = bench.store.list_after(List::all("groups/").limit(3)).await.unwrap();
    assert_eq!(listed, Page { keys: expected.clone(), is_truncated: false });
    let listed = bench.store.list_after(List::all("groups/").after("groups/a-b.json").limit(1)).await.unwrap();
    assert_eq!(listed, Page { keys: vec![expected[1].clone()], is_truncated: true });
    bench.store.delete("groups/a.json").await.unwrap();
    assert_eq!(bench.store.list_after(List::all("groups/")).await.unwrap().keys.len(), 2);
}

pub async fn a_listing_is_complete_after_every_put(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let mut keys = BTreeSet::new();
    for n in 0..40u32 {
        let key = name(n as usize % 3, n * 7 % 40);
        assert_eq!(bench.store.put_new(&key, b"x").await.unwrap(), Put::Created);
        keys.insert(key);
        assert_eq!(page(&*bench.store, "", usize::MAX).await.keys, keys.iter().cloned().collect::<Vec<_>>());
    }
}

pub async fn pages_cover_all_of_10_000_keys(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let keys = fill(&*bench.store, (0..10_000).map(|n| name(n % 3, n as u32 * 31 % 10_000))).await;
    for limit in [997, 3_334, 10_000] {
        let mut whole: Vec<String> = Vec::new();
        loop {
            let after = whole.last().cloned().unwrap_or_default();
            let page = page(&*bench.store, &after, limit).await;
            assert!(page.keys.len() == limit || !page.is_truncated);
            whole.extend(page.keys);
            if !page.is_truncated {
                break;
            }
        }
        assert!(whole == keys, "limit {limit}");
    }
}

/// Folders and files whose names sort around `/` and around each other.
fn any_key() -> impl Strategy<Value = String> {
    let part = || prop::sample::select(vec!["a", "a-", "a.", "a0", "b", "~", "é", "aa"]);
    (prop::collection::vec(part(), 0..3), part()).prop_map(|(folders, file)| {
        let folders: String = folders.into_iter().map(|folder| format!("{folder}/")).collect();
        format!("events/{folders}{file}.json")
    })
}

fn any_after() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        any_key(),
        any_key().prop_map(|key| key.replace(".json", "~")),
        any_key().prop_map(|key| key.rsplit_once('/').unwrap().0.to_owned()),
        any_key().prop_map(|key| format!("{}/", key.rsplit_once('/').unwrap().0)),
        "[a-z/~]{0,12}",
    ]
}

pub async fn random_listings_match_a_sorted_set(make: &dyn Fn() -> StoreFixture) {
    let queries = prop::collection::vec((any_after(), 0usize..40, 1usize..4), 12);
    let cases = (prop::collection::btree_set(any_key(), 0..60), queries);
    let runner = &mut TestRunner::new_with_rng(
        Config { failure_persistence: None, ..Config::with_cases(24) },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    for _ in 0..24 {
        let (keys, queries) = cases.new_tree(runner).unwrap().current();
        let bench = make();
        fill(&*bench.store, keys.clone()).await;
        for (after, limit, modulus) in queries {
            let kept = move |key: &str| key.len().is_multiple_of(modulus);
            let wanted: Vec<&String> = keys.iter().filter(|key| **key > after && kept(key)).collect();
            let expected = Page {
                keys: wanted.iter().take(limit).map(|key| (*key).clone()).collect(),
                is_truncated: wanted.len() > limit,
            };
            let list = List::all("events/").after(after.clone()).limit(limit).keep(kept);
            let listed = bench.store.list_after(list).await.unwrap();
            assert_eq!(listed, expected, "{keys:?} after {after:?}, limit {limit}, modulus {modulus}");
        }
    }
}
