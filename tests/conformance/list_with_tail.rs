//! For every store: a list with tail shows all changes, or does not claim to.

use std::sync::Arc;

use evbus::store::{List, Put, Store, Swap, TailFilter, TailMatch, Version};

use crate::StoreFixture;

const DEFINITION: &str = "groups/g.json";
const MARKER: &str = "state/g/marker-000";
const ENTRY: &str = "timed/20261123T021530.000001Z-7kq3f9x2m7qa5w0c-order.created.json";

async fn written(store: &dyn Store, key: &str, from: Option<&Version>, content: &str) -> Version {
    match store.cas(key, from, content.as_bytes()).await.unwrap() {
        Swap::Swapped(version) => version,
        Swap::Conflict => panic!("conflict on {key}"),
    }
}

fn shown() -> TailFilter {
    Arc::new(|key: &str| match key {
        ENTRY => TailMatch::Last,
        _ if key.starts_with("groups/") || key.starts_with("state/g/") => TailMatch::Yes,
        _ => TailMatch::No,
    })
}

async fn behind(store: &dyn Store) -> Option<Vec<(String, Version)>> {
    let list_with_tail = store.list_with_tail(List::all("events/").limit(100), shown()).await.unwrap();
    assert_eq!(list_with_tail.page.keys, ["events/20261123/0215/one.json"]);
    list_with_tail.tail
}

/// A regression: Google's listings have no generations, and looked as if there were no group and no
/// request.
pub async fn a_list_with_tail_shows_every_change_or_has_no_tail(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let store = &*bench.store;
    assert_eq!(store.put_new("events/20261123/0215/one.json", b"{}").await.unwrap(), Put::Created);
    let definition = written(store, DEFINITION, None, "definition").await;
    let mut marker = written(store, MARKER, None, "marker").await;
    for turn in 0..3 {
        if let Some(found) = behind(store).await {
            let all = [(DEFINITION.to_owned(), definition.clone()), (MARKER.to_owned(), marker.clone())];
            assert_eq!(found, all, "turn {turn}");
        }
        marker = written(store, MARKER, Some(&marker), &format!("marker {turn}")).await;
    }
}

/// The same for scheduled entries.
pub async fn a_list_with_tail_shows_scheduled_entries_or_has_no_tail(make: &dyn Fn() -> StoreFixture) {
    let bench = make();
    let store = &*bench.store;
    assert_eq!(store.put_new("events/20261123/0215/one.json", b"{}").await.unwrap(), Put::Created);
    assert_eq!(store.put_new(ENTRY, b"{}").await.unwrap(), Put::Created);
    let found = behind(store).await;
    let keys = found.map(|found| found.into_iter().map(|(key, _)| key).collect::<Vec<_>>());
    assert!(keys.as_ref().is_none_or(|keys| keys == &[ENTRY]), "{keys:?}");
}
