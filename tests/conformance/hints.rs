//! Hints of the directory store come for every published object, from any writer.

use std::time::Duration;

use evbus::clock::SystemClock;
use evbus::store::dir::{DirOptions, DirStore};
use evbus::store::inotify::{InotifyHints, PUBLISHES};
use evbus::store::mount::inotify_serves;
use evbus::store::{Hints, Put, Store, Swap};
use tempfile::TempDir;

use crate::block_on;

fn open(folder: &TempDir) -> DirStore {
    DirStore::create(folder.path(), DirOptions::default(), &SystemClock).unwrap()
}

/// Takes hints even where the store would poll, because only this machine writes here.
fn hints_of(store: &DirStore) -> Box<dyn Hints> {
    match inotify_serves(store.path()) {
        Ok(()) => store.hints().unwrap(),
        Err(why) => {
            assert_eq!(store.hints().err(), Some(why));
            Box::new(InotifyHints::watch(&store.path().join("staging"), PUBLISHES, None).unwrap())
        }
    }
}

/// Fails instead of waiting for ever.
async fn hinted(hints: &mut dyn Hints) {
    tokio::time::timeout(Duration::from_secs(60), hints.next()).await.expect("a hint");
}

#[test]
fn a_put_by_another_thread_is_hinted() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    block_on(async {
        let mut hints = hints_of(&store);
        for turn in 0..20 {
            let writer = open(&folder);
            let thread = std::thread::spawn(move || {
                block_on(async {
                    let put = writer.put_new(&format!("events/20261123/{turn:04}/{turn}.json"), b"x").await;
                    assert_eq!(put, Ok(Put::Created));
                });
            });
            hinted(&mut *hints).await;
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_swap_is_hinted() {
    let folder = TempDir::new().unwrap();
    let (store, writer) = (open(&folder), open(&folder));
    block_on(async {
        let mut hints = hints_of(&store);
        assert!(matches!(writer.cas("frontier", None, b"w").await, Ok(Swap::Swapped(_))));
        hinted(&mut *hints).await;
    });
}

#[test]
fn a_bus_without_staging_is_polled() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    std::fs::remove_dir(folder.path().join("staging")).unwrap();
    block_on(async { assert!(store.hints().is_err()) });
}
