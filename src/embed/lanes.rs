//! Runs the closure of a consumer on the caller's runtime: each lane is a task that runs one event after
//! the other, so that a handler that takes no time does not wait for two changes of threads.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{Delivery, HandlerError};
use crate::clock::{Clock, SystemClock};
use crate::event::Event;
use crate::handler::SharedPermit;

/// The handler of a consumer.
pub(super) type Closure =
    Arc<dyn Fn(Delivery) -> Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>> + Send + Sync>;

/// How much work may wait before a lane: what waits has begun nowhere, and no other worker can take it.
const AHEAD: Duration = Duration::from_millis(5);

/// The most events that wait, for all lanes together.
pub(super) const MOST_AHEAD: usize = 32;

/// How long a lane goes on before other tasks of the runtime come to their turn.
const TURN: Duration = Duration::from_millis(1);

/// How a run ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself; how long it took.
    Ran(Result<(), HandlerError>, Duration),
    /// The closure has panicked.
    Panicked,
    /// It was cut short.
    Cancelled,
    /// It never began.
    NotBegun,
}

/// A run that waits for a lane.
struct WaitingRun {
    event: Bytes,
    attempt: u32,
    permit: Option<SharedPermit>,
    begun: Option<oneshot::Sender<()>>,
    ended: oneshot::Sender<Ended>,
    cancelled: oneshot::Receiver<()>,
}

impl WaitingRun {
    /// Whether it may still begin.
    fn may_begin(&mut self, now: Duration) -> bool {
        let is_cancelled = self.ended.is_closed() || self.cancelled.try_recv() == Err(TryRecvError::Closed);
        !is_cancelled && self.permit.as_ref().is_none_or(|permit| permit.holds(now))
    }
}

/// A run that was handed over. It is cut short where this is dropped.
pub(super) struct Running {
    cancel: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<Ended>,
}

impl Running {
    /// How it ends; none if the runtime ends.
    pub async fn ended(&mut self) -> Option<Ended> {
        (&mut self.ended).await.ok()
    }

    /// Cuts it short, and waits until it no longer runs. It may have ended by itself meanwhile.
    pub async fn end(&mut self) -> Option<Ended> {
        self.cancel.take();
        self.ended().await
    }
}

/// The lanes of a consumer.
pub(super) struct Lanes {
    shared: Arc<SharedLanes>,
    runtime: Handle,
}

struct SharedLanes {
    closure: Closure,
    group: String,
    state: Mutex<LaneState>,
}

struct LaneState {
    waiting: VecDeque<WaitingRun>,
    /// How many lanes there are, and may be.
    lanes: usize,
    most: usize,
    /// What a run has taken lately; none before the first.
    took: Option<Duration>,
    /// No run begins any more.
    is_closed: bool,
}

impl Lanes {
    /// At most so many lanes for a closure, on a runtime.
    pub fn new(closure: Closure, group: String, most: usize, runtime: Handle) -> Self {
        let state = LaneState { waiting: VecDeque::new(), lanes: 0, most, took: None, is_closed: false };
        Self { shared: Arc::new(SharedLanes { closure, group, state: Mutex::new(state) }), runtime }
    }

    /// Hands a run over; `begun` is told when it begins.
    pub fn run(
        &self,
        event: Bytes,
        attempt: u32,
        permit: Option<SharedPermit>,
        begun: Option<oneshot::Sender<()>>,
    ) -> Running {
        let (ended, on_end) = oneshot::channel();
        let (cancel, cancelled) = oneshot::channel();
        let needs_a_lane = {
            let mut state = self.shared.state();
            if state.is_closed {
                let _ = ended.send(Ended::NotBegun);
                return Running { cancel: None, ended: on_end };
            }
            state.waiting.push_back(WaitingRun { event, attempt, permit, begun, ended, cancelled });
            let needed = state.lanes < state.most;
            state.lanes += usize::from(needed);
            needed
        };
        if needs_a_lane {
            let lane = Lane { shared: Arc::clone(&self.shared), has_ended: false };
            self.runtime.spawn(async move { lane.run().await });
        }
        Running { cancel: Some(cancel), ended: on_end }
    }

    /// How many runs are best handed over at once: those that run, and what is over soon.
    pub fn most(&self) -> usize {
        let state = self.shared.state();
        state.most.saturating_add(state.ahead())
    }

    /// Lets no further run begin.
    pub fn close(&self) {
        let mut state = self.shared.state();
        state.is_closed = true;
        for run in std::mem::take(&mut state.waiting) {
            let _ = run.ended.send(Ended::NotBegun);
        }
    }
}

impl SharedLanes {
    fn state(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LaneState {
    /// How many runs may wait for a lane.
    fn ahead(&self) -> usize {
        let ahead = self.took.map_or(0, |took| AHEAD.as_nanos() / took.as_nanos().max(1));
        usize::try_from(ahead).unwrap_or(usize::MAX).saturating_mul(self.most).min(MOST_AHEAD)
    }

    /// A run has taken so long. One that takes long counts at once, one that does not in time. What is not
    /// over soon then is given back.
    fn note(&mut self, took: Duration) {
        self.took = Some(self.took.map_or(took, |before| took.max((before * 7 + took) / 8)));
        for run in self.waiting.drain(self.ahead().min(self.waiting.len())..) {
            let _ = run.ended.send(Ended::NotBegun);
        }
    }
}

/// A task that runs what waits, and ends where nothing does. Where the runtime ends it, what waits ends, too.
struct Lane {
    shared: Arc<SharedLanes>,
    has_ended: bool,
}

impl Drop for Lane {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut state = self.shared.state();
        state.lanes -= 1;
        if state.lanes == 0 {
            state.waiting.clear();
        }
    }
}

impl Lane {
    async fn run(mut self) {
        let mut turn = SystemClock.elapsed();
        while let Some(mut run) = self.next() {
            let now = SystemClock.elapsed();
            let event = if run.may_begin(now) { Event::parse(&run.event, usize::MAX).ok() } else { None };
            let WaitingRun { attempt, begun, ended, cancelled, .. } = run;
            let Some(event) = event else {
                let _ = ended.send(Ended::NotBegun);
                continue;
            };
            let delivery = Delivery { event, group: self.shared.group.clone(), attempt };
            // The closure itself may panic, its future may, and so may what that drops.
            let running = AssertUnwindSafe(async {
                if let Some(begun) = begun {
                    let _ = begun.send(());
                }
                tokio::select! { biased;
                    result = async { (self.shared.closure)(delivery).await } => Some(result),
                    _ = cancelled => None,
                }
            });
            let how = match running.catch_unwind().await {
                Ok(Some(result)) => Ended::Ran(result, SystemClock.elapsed().saturating_sub(now)),
                Ok(None) => Ended::Cancelled,
                Err(_) => Ended::Panicked,
            };
            if let Ended::Ran(_, took) = &how {
                self.shared.state().note(*took);
            }
            let _ = ended.send(how);
            if now.saturating_sub(turn) >= TURN {
                tokio::task::yield_now().await;
                turn = SystemClock.elapsed();
            }
        }
    }

    /// What waits longest. Without any the lane has ended, so that the next run gets another one.
    fn next(&mut self) -> Option<WaitingRun> {
        let mut state = self.shared.state();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.lanes -= 1;
            self.has_ended = true;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    const EVENT: &[u8] = br#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;

    fn lanes<R: Future<Output = ()> + Send + 'static>(
        most: usize,
        closure: impl Fn(u32) -> R + Send + Sync + 'static,
    ) -> Lanes {
        let closure = move |delivery: Delivery| {
            let running = closure(delivery.attempt());
            Box::pin(async move {
                running.await;
                Ok(())
            }) as Pin<Box<dyn Future<Output = _> + Send>>
        };
        Lanes::new(Arc::new(closure), "g".to_owned(), most, Handle::current())
    }

    fn run(lanes: &Lanes, attempt: u32) -> Running {
        lanes.run(Bytes::from_static(EVENT), attempt, None, None)
    }

    /// One lane, whose runs end at the gate; and how many have begun.
    fn gated() -> (Lanes, Arc<Notify>, Arc<AtomicUsize>) {
        let (gate, begun) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (opens, count) = (Arc::clone(&gate), Arc::clone(&begun));
        let lanes = lanes(1, move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            let opens = Arc::clone(&opens);
            async move { opens.notified().await }
        });
        (lanes, gate, begun)
    }

    #[tokio::test]
    async fn runs_begin_in_their_order_and_no_more_at_once_than_there_are_lanes() {
        for most in [1, 3] {
            let (begun, running) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
            let (order, now) = (Arc::clone(&begun), Arc::clone(&running));
            let lanes = lanes(most, move |attempt| {
                order.lock().unwrap().push(attempt);
                assert!(now.fetch_add(1, Ordering::Relaxed) < most);
                let now = Arc::clone(&now);
                async move {
                    tokio::task::yield_now().await;
                    now.fetch_sub(1, Ordering::Relaxed);
                }
            });
            let (mut under_way, mut ran) = (VecDeque::new(), Vec::new());
            for attempt in 0..200 {
                under_way.push_back((attempt, run(&lanes, attempt)));
                while under_way.len() >= lanes.most() || attempt == 199 {
                    let Some((attempt, mut running)) = under_way.pop_front() else { break };
                    match running.ended().await {
                        Some(Ended::Ran(Ok(()), _)) => ran.push(attempt),
                        // On a busy machine a run may have taken so long that those behind it were given back.
                        Some(Ended::NotBegun) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert_eq!(*begun.lock().unwrap(), ran);
            assert!(!ran.is_empty());
            // A lane that has ended is begun anew.
            assert!(matches!(run(&lanes, 200).ended().await, Some(Ended::Ran(..))));
        }
    }

    #[tokio::test]
    async fn what_waits_does_not_begin_once_it_may_not() {
        let (lanes, gate, begun) = gated();
        let mut first = run(&lanes, 1);
        let refused = SharedPermit::new(|_| false);
        let mut expired = lanes.run(Bytes::from_static(EVENT), 1, Some(refused), None);
        drop(run(&lanes, 1));
        gate.notify_one();
        assert!(matches!(first.ended().await, Some(Ended::Ran(..))));
        assert!(matches!(expired.ended().await, Some(Ended::NotBegun)));
        // One that runs goes on until it is ended; what waits, or comes later, never begins.
        let (mut under_way, mut waits) = (run(&lanes, 1), run(&lanes, 1));
        while begun.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        lanes.close();
        assert!(matches!(waits.ended().await, Some(Ended::NotBegun)));
        assert!(matches!(run(&lanes, 1).ended().await, Some(Ended::NotBegun)));
        assert!(matches!(under_way.end().await, Some(Ended::Cancelled)));
        assert_eq!(begun.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn with_the_runtime_all_that_waits_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut first, mut second) = runtime.block_on(async {
            let lanes = lanes(1, |_| std::future::pending());
            let runs = (run(&lanes, 1), run(&lanes, 1));
            tokio::task::yield_now().await;
            runs
        });
        drop(runtime);
        let other = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(other.block_on(first.ended()).is_none() && other.block_on(second.ended()).is_none());
    }

    #[tokio::test]
    async fn a_run_that_is_cut_short_while_it_waits_never_begins() {
        let (lanes, gate, begun) = gated();
        let (mut first, mut waits) = (run(&lanes, 1), run(&lanes, 1));
        let mut ends = Box::pin(waits.end());
        assert!(futures_util::future::poll_immediate(&mut ends).await.is_none());
        gate.notify_one();
        assert!(matches!(first.ended().await, Some(Ended::Ran(..))));
        assert!(matches!(ends.await, Some(Ended::NotBegun)));
        assert_eq!(begun.load(Ordering::Relaxed), 1);
    }

    /// Panics where it is dropped before its end.
    struct Fragile;

    impl Drop for Fragile {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }

    #[tokio::test]
    async fn a_panic_ends_one_run_also_where_it_comes_from_a_drop() {
        let lanes = lanes(1, |attempt| async move {
            let fragile = (attempt == 1).then(|| Fragile);
            if fragile.is_some() {
                std::future::pending::<()>().await;
            }
        });
        let (begun, on_begin) = oneshot::channel();
        let mut first = lanes.run(Bytes::from_static(EVENT), 1, None, Some(begun));
        let mut second = run(&lanes, 2);
        on_begin.await.unwrap();
        assert!(matches!(first.end().await, Some(Ended::Panicked)));
        assert!(matches!(second.ended().await, Some(Ended::Ran(..))));
    }

    #[tokio::test]
    async fn only_what_is_over_soon_is_handed_over_ahead() {
        let lanes = lanes(2, |_| async {});
        let most_after = |took: &[u64]| {
            lanes.shared.state().took = None;
            took.iter().for_each(|micros| lanes.shared.state().note(Duration::from_micros(*micros)));
            lanes.most()
        };
        assert_eq!(most_after(&[]), 2);
        assert_eq!(most_after(&[0]), 2 + 32);
        assert_eq!(most_after(&[1_000]), 2 + 2 * 5);
        assert_eq!(most_after(&[6_000]), 2);
        assert_eq!(most_after(&[1, 1, 6_000]), 2, "a slow one counts at once");
        assert!(most_after(&[6_000, 1, 1, 1]) > 2);
        // What waits is given back once it is not over soon.
        lanes.shared.state().lanes = 2;
        let mut all: Vec<Running> = (0..9).map(|_| run(&lanes, 1)).collect();
        assert_eq!(most_after(&[2_000]), 2 + 2 * 2);
        let given_back = all.iter_mut().filter_map(|run| run.ended.try_recv().ok());
        assert_eq!(given_back.filter(|ended| matches!(ended, Ended::NotBegun)).count(), 9 - 4);
        lanes.shared.state().lanes = 0;
    }
}
