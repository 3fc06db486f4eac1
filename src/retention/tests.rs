//! A store that loses its latest writes while prune is at work.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::bus::emit::{Draft, Emitter};
use crate::clock::{Fut, SystemClock};
use crate::event::{Event, Filter};
use crate::group::{Definition, Marker};
use crate::store::memory::{Calm, Contents, MemoryStore, Network, Operation, Route, Snapshot};
use crate::store::{Hints, Swap, object};

/// Loses what was written since a snapshot, just before a request of this number is carried out.
struct LosingNetwork {
    contents: Rc<Contents>,
    snapshot: Snapshot,
    requests_left: Cell<u32>,
}

impl Network for LosingNetwork {
    fn route(&self, operation: Operation, key: &str) -> Route {
        match self.requests_left.get() {
            0 => {}
            left => {
                self.requests_left.set(left - 1);
                if left == 1 {
                    self.contents.rewind(&self.snapshot);
                }
            }
        }
        Calm.route(operation, key)
    }
    fn later(&self, after: Duration, action: Box<dyn FnOnce()>) {
        Calm.later(after, action);
    }
    fn pause(&self, time: Duration) -> Fut<'static, ()> {
        Calm.pause(time)
    }
    fn page_len(&self) -> usize {
        3
    }
    fn hints(&self) -> Option<Box<dyn Hints>> {
        None
    }
    fn last_write_micros(&self) -> Option<i64> {
        None
    }
}

fn bus(contents: &Rc<Contents>, network: Rc<dyn Network>) -> BusHandle {
    let store = MemoryStore::new(Rc::clone(contents), network, object::PROFILE);
    BusHandle::new(Rc::new(store), Rc::new(SystemClock))
}

/// Whatever prune has read before the loss, it deletes nothing that a marker needs after it.
#[test]
fn nothing_is_deleted_because_of_what_was_known_before_a_loss() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut refused, mut passed) = (0, 0);
    for lost_at in 1..60 {
        let contents = Rc::<Contents>::default();
        let calm = bus(&contents, Rc::new(Calm));
        let group = GroupName::parse("g").unwrap();
        let (left, key) = runtime.block_on(async {
            let drafts = [Draft::named(Event::new("id", "/s", "t").build().unwrap())];
            let name = Emitter::new(calm.clone(), Duration::from_secs(1)).emit(&drafts).await.unwrap().remove(0).name;
            let start = Position::Time(EventTime::from_micros(0));
            let definition = Definition::new(EventTime::from_micros(0), &Filter::default(), 1, start.clone());
            definition::create(&*calm.store, &group, definition).await.unwrap();
            let snapshot = contents.snapshot();
            // The event is done, and the marker that says so is lost.
            let mut marker = Marker::new(start);
            marker.through = Position::Name(name.clone());
            let bytes = crate::bus::to_json_line(&marker);
            let swapped = calm.store.cas(&keys::marker(&group, 0), None, &bytes).await.unwrap();
            assert!(matches!(swapped, Swap::Swapped(_)));
            let requests_left = Cell::new(lost_at);
            let losing = Rc::new(LosingNetwork { contents: Rc::clone(&contents), snapshot, requests_left });
            let asked = PruneRequest { before: EventTime::MAX, dry_run: false };
            match prune(&bus(&contents, Rc::clone(&losing) as _), asked, None, |_| ()).await {
                Ok(_) => passed += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    refused += 1;
                }
            }
            (losing.requests_left.get(), name.key())
        });
        assert!(left > 0 || contents.read(&key).is_some(), "lost before request {lost_at}");
    }
    assert!(refused > 3 && passed > 3, "{refused} {passed}");
}
