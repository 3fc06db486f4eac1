//! One thread, virtual time, one seed, which decides which ready task runs next and all later
//! chance.
//!
//! A [`SimProcess`] owns tasks. It may be **killed** (its futures are dropped where they stand;
//! requests it has sent still arrive) or **frozen** (it is not polled for a while, and its timers
//! fire late).

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use crate::rng::Rng;

/// Virtual microseconds since the simulation began.
pub type Micros = u64;

/// One second.
pub const SECOND: Micros = 1_000_000;

/// More polls than this while no time passes: a task spins.
const MOST_POLLS_AT_ONCE: u64 = 20_000;

/// More polls than this in one seed: a task nearly spins.
const MOST_POLLS: u64 = 2_000_000;

type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

/// The tasks that may be polled, filled by wakers.
#[derive(Default)]
struct Ready {
    list: Vec<usize>,
    queued: Vec<bool>,
}

impl Ready {
    fn push(&mut self, task: usize) {
        if self.queued.len() <= task {
            self.queued.resize(task + 1, false);
        }
        if !std::mem::replace(&mut self.queued[task], true) {
            self.list.push(task);
        }
    }
}

struct TaskWaker {
    task: usize,
    ready: Arc<Mutex<Ready>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.lock().unwrap().push(self.task);
    }
}

struct TaskSlot {
    process: Rc<SimProcess>,
    future: Option<TaskFuture>,
    waker: Waker,
}

enum QueuedEvent {
    Wake(Rc<Alarm>),
    Call(Box<dyn FnOnce()>),
}

struct Alarm {
    waker: RefCell<Option<Waker>>,
}

struct TimerEntry {
    at: Micros,
    order: u64,
    event: QueuedEvent,
}

impl PartialEq for TimerEntry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for TimerEntry {}
impl PartialOrd for TimerEntry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for TimerEntry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A process: tasks that live and die together.
pub struct SimProcess {
    /// Never used twice.
    pub pid: u32,
    dead: Cell<bool>,
    pub thaws_at: Cell<Micros>,
    waiters: RefCell<Vec<Waker>>,
}

impl SimProcess {
    /// Whether it was killed or has ended.
    pub fn dead(&self) -> bool {
        self.dead.get()
    }

    /// Completes once the process is dead.
    pub async fn ended(&self) {
        std::future::poll_fn(|context| {
            if self.dead() {
                return Poll::Ready(());
            }
            self.waiters.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// The simulated machines.
pub struct Simulation {
    me: Weak<Self>,
    now: Cell<Micros>,
    order: Cell<u64>,
    pids: Cell<u32>,
    events: RefCell<BinaryHeap<Reverse<TimerEntry>>>,
    tasks: RefCell<Vec<Option<TaskSlot>>>,
    free: RefCell<Vec<usize>>,
    ready: Arc<Mutex<Ready>>,
    /// The only source of randomness.
    pub rng: Rng,
    polls: Cell<u64>,
    polls_now: Cell<u64>,
    trouble: RefCell<Option<String>>,
    trace: Cell<u64>,
}

impl Simulation {
    /// A simulation without processes.
    pub fn new(seed: u64) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            me: me.clone(),
            now: Cell::new(0),
            order: Cell::new(0),
            pids: Cell::new(0),
            events: RefCell::default(),
            tasks: RefCell::default(),
            free: RefCell::default(),
            ready: Arc::default(),
            rng: Rng::new(seed),
            polls: Cell::new(0),
            polls_now: Cell::new(0),
            trouble: RefCell::new(None),
            trace: Cell::new(seed),
        })
    }

    fn strong(&self) -> Rc<Self> {
        self.me.upgrade().unwrap()
    }

    /// Virtual time.
    pub fn now(&self) -> Micros {
        self.now.get()
    }

    /// How many times a task was polled.
    pub fn polls(&self) -> u64 {
        self.polls.get()
    }

    /// A hash of all notes, in order.
    pub fn trace(&self) -> u64 {
        self.trace.get()
    }

    /// Adds to the trace.
    pub fn note(&self, what: u64) {
        let mixed = (self.trace.get() ^ what ^ self.now()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.trace.set(mixed ^ (mixed >> 29));
    }

    /// Ends the simulation with a complaint; the first one counts.
    pub fn complain(&self, what: String) {
        self.trouble.borrow_mut().get_or_insert(what);
    }

    /// The complaint, if there is one.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// A new process without tasks.
    pub fn process(&self) -> Rc<SimProcess> {
        self.pids.set(self.pids.get() + 1);
        Rc::new(SimProcess {
            pid: self.pids.get(),
            dead: Cell::new(false),
            thaws_at: Cell::new(0),
            waiters: RefCell::default(),
        })
    }

    /// Runs a future in a process.
    pub fn spawn(&self, process: &Rc<SimProcess>, future: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let task = self.free.borrow_mut().pop().unwrap_or_else(|| {
            tasks.push(None);
            tasks.len() - 1
        });
        let waker = Waker::from(Arc::new(TaskWaker { task, ready: Arc::clone(&self.ready) }));
        tasks[task] = Some(TaskSlot { process: Rc::clone(process), future: Some(Box::pin(future)), waker });
        self.ready.lock().unwrap().push(task);
    }

    /// Kills a process now; requests that it has sent still arrive.
    pub fn kill(&self, process: &Rc<SimProcess>) {
        if process.dead.replace(true) {
            return;
        }
        let mut dropped = Vec::new();
        for (task, slot) in self.tasks.borrow_mut().iter_mut().enumerate() {
            // The process that is being polled has no future here: it is dropped after its poll.
            if slot.as_ref().is_some_and(|slot| Rc::ptr_eq(&slot.process, process) && slot.future.is_some()) {
                dropped.push(slot.take());
                self.free.borrow_mut().push(task);
            }
        }
        drop(dropped);
        for waker in process.waiters.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Stops a process until a time.
    pub fn freeze(&self, process: &SimProcess, until: Micros) {
        process.thaws_at.set(process.thaws_at.get().max(until));
    }

    /// Runs `action` after a time, whether processes have died or not.
    pub fn later(&self, after: Micros, action: impl FnOnce() + 'static) {
        self.push(self.now() + after, QueuedEvent::Call(Box::new(action)));
    }

    fn push(&self, at: Micros, event: QueuedEvent) {
        self.order.set(self.order.get() + 1);
        self.events.borrow_mut().push(Reverse(TimerEntry { at, order: self.order.get(), event }));
    }

    /// Completes at a time, or later if its process is frozen then.
    pub fn sleep_until(&self, at: Micros) -> Sleep {
        Sleep { simulation: self.strong(), at, alarm: None }
    }

    /// Completes after a time.
    pub fn sleep(&self, time: Micros) -> Sleep {
        self.sleep_until(self.now() + time)
    }

    /// Runs until a time, or until there is trouble.
    pub fn run_until(&self, until: Micros) {
        while self.trouble.borrow().is_none() {
            if let Some(task) = self.pick() {
                self.poll(task);
                continue;
            }
            let Some(entry) = self.due(until) else { break };
            if entry.at > self.now() {
                self.now.set(entry.at);
                self.polls_now.set(0);
            }
            match entry.event {
                QueuedEvent::Wake(alarm) => {
                    if let Some(waker) = alarm.waker.borrow_mut().take() {
                        waker.wake();
                    }
                }
                QueuedEvent::Call(action) => action(),
            }
        }
        if self.trouble.borrow().is_none() {
            self.now.set(self.now().max(until));
        }
    }

    fn due(&self, until: Micros) -> Option<TimerEntry> {
        let mut events = self.events.borrow_mut();
        let due = events.peek().is_some_and(|Reverse(entry)| entry.at <= until);
        if due { events.pop().map(|Reverse(entry)| entry) } else { None }
    }

    fn pick(&self) -> Option<usize> {
        let mut ready = self.ready.lock().unwrap();
        if ready.list.is_empty() {
            return None;
        }
        let at = if ready.list.len() == 1 { 0 } else { self.rng.below(ready.list.len()) };
        let task = ready.list.swap_remove(at);
        ready.queued[task] = false;
        Some(task)
    }

    fn poll(&self, task: usize) {
        let (process, mut future, waker) = {
            let mut tasks = self.tasks.borrow_mut();
            let Some(slot) = tasks.get_mut(task).and_then(Option::as_mut) else { return };
            let thaws_at = slot.process.thaws_at.get();
            if thaws_at > self.now() {
                let alarm = Rc::new(Alarm { waker: RefCell::new(Some(slot.waker.clone())) });
                self.push(thaws_at, QueuedEvent::Wake(alarm));
                return;
            }
            let Some(future) = slot.future.take() else { return };
            (Rc::clone(&slot.process), future, slot.waker.clone())
        };
        self.count_poll();
        let ended = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() || process.dead();
        if ended {
            drop(future);
            self.tasks.borrow_mut()[task] = None;
            self.free.borrow_mut().push(task);
        } else if let Some(slot) = &mut self.tasks.borrow_mut()[task] {
            slot.future = Some(future);
        }
    }

    fn count_poll(&self) {
        self.polls.set(self.polls.get() + 1);
        self.polls_now.set(self.polls_now.get() + 1);
        if self.polls_now.get() > MOST_POLLS_AT_ONCE || self.polls.get() > MOST_POLLS {
            self.complain("a task spins: polls without end".to_owned());
        }
    }

    /// Drops everything that still waits, so that no reference cycle keeps it.
    pub fn clear(&self) {
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        let events = std::mem::take(&mut *self.events.borrow_mut());
        drop(events);
    }
}

/// See [`Simulation::sleep_until`].
pub struct Sleep {
    simulation: Rc<Simulation>,
    at: Micros,
    alarm: Option<Rc<Alarm>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.simulation.now() >= self.at {
            return Poll::Ready(());
        }
        match &self.alarm {
            Some(alarm) => *alarm.waker.borrow_mut() = Some(context.waker().clone()),
            None => {
                let alarm = Rc::new(Alarm { waker: RefCell::new(Some(context.waker().clone())) });
                self.simulation.push(self.at, QueuedEvent::Wake(Rc::clone(&alarm)));
                self.alarm = Some(alarm);
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(alarm) = &self.alarm {
            // `try`, because it may be dropped while its own waker runs.
            if let Ok(mut waker) = alarm.waker.try_borrow_mut() {
                *waker = None;
            }
        }
    }
}
