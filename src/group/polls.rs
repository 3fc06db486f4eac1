//! One poll for all the groups of a process, where a listing costs something.
//!
//! Groups that follow the same bus need the same listing: what is new behind the newest event? The
//! group that is due first makes it; a group that is due meanwhile waits for the same answer, and
//! the others are told when it is there. Only polls are shared: they find work, and nothing relies
//! on when they began.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use futures_util::future::{FutureExt, Shared, WeakShared};

use crate::bus::{BusHandle, keys};
use crate::clock::Fut;
use crate::event::EVENTS;
use crate::store::{List, PageWithTail, StoreResult, TailMatch};

/// A poll that shows more events than this is not shared: the groups are not at the same position
/// any more.
const MOST: usize = 900;

/// What one poll has shown: every event and every register, wanted or not.
#[derive(Debug)]
pub struct PollResult {
    /// Which poll of this process it was; the first is 1.
    pub number: u64,
    /// It shows what is greater than this key.
    pub after: String,
    /// What it has shown.
    pub page: PageWithTail,
}

type PollFuture = Fut<'static, StoreResult<Rc<PollResult>>>;
type SharedPollFuture = Shared<PollFuture>;

/// The polls of one process on one bus.
#[derive(Default)]
pub struct Polls {
    made: Cell<u64>,
    /// The poll that is under way, as long as a group waits for it, and the key after which it
    /// lists.
    running: RefCell<Option<(String, WeakShared<PollFuture>)>>,
    latest: RefCell<Option<Rc<PollResult>>>,
    /// The tasks to wake when the next poll comes back.
    listeners: RefCell<Vec<Waker>>,
}

impl Polls {
    /// Completes once a poll later than `seen` has come back, and sets it to that.
    pub(super) async fn news(&self, seen: &mut u64) {
        std::future::poll_fn(|context| {
            if self.made.get() > *seen {
                *seen = self.made.get();
                return Poll::Ready(());
            }
            let mut listeners = self.listeners.borrow_mut();
            if !listeners.iter().any(|waker| waker.will_wake(context.waker())) {
                listeners.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Whether a poll later than `seen` has come back that shows all that is greater than `after`.
    pub(super) fn has_news(&self, after: &str, seen: u64) -> bool {
        self.later(after, seen).is_some()
    }

    fn later(&self, after: &str, seen: u64) -> Option<Rc<PollResult>> {
        self.latest.borrow().clone().filter(|poll| poll.number > seen && covers(poll, after))
    }

    /// Everything greater than `after`, from a poll later than `seen`: one that has come back, one
    /// that is under way, or a new one.
    pub(super) async fn after(self: Rc<Self>, bus: BusHandle, after: String, seen: u64) -> StoreResult<Rc<PollResult>> {
        if let Some(poll) = self.later(&after, seen) {
            return Ok(poll);
        }
        let under_way = self.under_way(&after);
        under_way.unwrap_or_else(|| self.begin(bus, after)).await
    }

    fn under_way(&self, after: &str) -> Option<SharedPollFuture> {
        let running = self.running.borrow();
        let (from, answer) = running.as_ref()?;
        answer.upgrade().filter(|answer| from.as_str() <= after && answer.peek().is_none())
    }

    fn begin(self: &Rc<Self>, bus: BusHandle, after: String) -> SharedPollFuture {
        let (me, from) = (Rc::clone(self), after.clone());
        let poll: PollFuture = Box::pin(async move {
            let list = List::all(EVENTS).after(from.clone()).limit(MOST);
            let page = bus.store.list_with_tail(list, Arc::new(showing)).await?;
            me.made.set(me.made.get() + 1);
            let poll = Rc::new(PollResult { number: me.made.get(), after: from, page });
            *me.latest.borrow_mut() = Some(Rc::clone(&poll));
            for listener in me.listeners.take() {
                listener.wake();
            }
            Ok(poll)
        });
        let answer = poll.shared();
        *self.running.borrow_mut() = answer.downgrade().map(|weak| (after, weak));
        answer
    }
}

/// Which keys behind the events a poll shows, for any group.
fn showing(key: &str) -> TailMatch {
    match key {
        _ if keys::scheduled_name(key).is_some() => TailMatch::Last,
        _ if keys::is_dead_letter(key) || key.starts_with(keys::SCHEDULED) => TailMatch::No,
        _ => TailMatch::Yes,
    }
}

/// A truncated poll serves only the groups that waited for it: the others would come to the same
/// end, one after the other.
fn covers(poll: &PollResult, after: &str) -> bool {
    poll.after.as_str() <= after && !poll.page.page.is_truncated
}
