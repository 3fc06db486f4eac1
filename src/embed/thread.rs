//! The thread on which a bus is used: the store and the workers stay on it, calls come to it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

#[cfg(feature = "cli")]
use super::overview::Overview;
#[cfg(feature = "cli")]
use super::pulled::PulledGroups;
use super::{Error, NewEvent};
use crate::bus::emit::{Ack, Draft, Emitter, LEAST_IN_CHUNKS};
use crate::bus::read::{self, Range};
use crate::bus::{BusSettings, OpenBus};
use crate::clock::{Clock, Fut, SystemClock};
use crate::config::{BusAddress, Config, Environment};
use crate::event::{Event, EventName, EventTime, Filter, TypeFilter};
#[cfg(feature = "cli")]
use crate::feed::{Feed, FeedBounds};
use crate::group::GroupName;
use crate::group::definition::{self, Definition, Registered, Start};
use crate::open;
use crate::store::dir::{Durability, Execution};
use crate::store::{ErrorKind, StoreResult};

/// How long an emit asks a store that does not answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// A call, as it runs on the thread.
type ThreadJob = Box<dyn FnOnce(Rc<ThreadState>) -> Fut<'static, ()> + Send>;

/// Tells the caller of an emit how it went, as soon as that is known: each event's id and ack.
pub(super) type AckSender = oneshot::Sender<Result<Vec<(String, Ack)>, Error>>;

/// The way to the thread of a bus. The thread ends after the last handle is dropped and the calls
/// under way have ended.
#[derive(Debug)]
pub(super) struct BusThread {
    jobs: mpsc::UnboundedSender<ThreadJob>,
    /// Whether many events may go into one object.
    pub has_segments: bool,
    /// The largest event, in bytes.
    pub max_event_bytes: usize,
    /// How many events may have caused each other before one; 0: any number.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only the HTTP face takes events of other programs"))]
    pub max_depth: u32,
}

/// What the thread has.
pub(super) struct ThreadState {
    pub bus: OpenBus,
    /// What `EVBUS_URL` would be.
    pub url: String,
    /// Events to be put by the call that is putting others now.
    waiting: RefCell<VecDeque<WaitingCall>>,
    /// One emitter for all: its times grow, so that the order of calls stays. None while a call is
    /// putting.
    emitter: RefCell<Option<Emitter>>,
    /// Begun by the first reader.
    #[cfg(feature = "cli")]
    feed: std::cell::OnceCell<Rc<Feed>>,
    /// Those whose members fetch their events.
    #[cfg(feature = "cli")]
    pub pulled: PulledGroups,
    /// What operators see of the groups.
    #[cfg(feature = "cli")]
    pub overview: Overview,
}

/// A group that is to be there.
#[derive(Debug, Clone, Default)]
pub(crate) struct WantedGroup {
    /// Which events it is to want; none: as it stands, or all.
    pub filter: Option<Filter>,
    /// How many shards it is to have.
    pub shards: Option<u16>,
    /// Where it starts if it is made.
    pub start: Option<Start>,
}

/// The events of a call that wait to be put.
struct WaitingCall {
    drafts: Vec<Draft>,
    answer: AckSender,
}

impl BusThread {
    /// Starts the thread, which opens the bus; with `create` it makes a directory's that is not
    /// there.
    pub async fn start(address: &str, create: bool) -> Result<Self, Error> {
        let address = BusAddress::resolve(&Environment::from_process(), &Config::default(), Some(OsStr::new(address)))?;
        Self::start_at(address, create).await
    }

    /// The same, at an address that is known.
    pub async fn start_at(address: BusAddress, create: bool) -> Result<Self, Error> {
        let (jobs, incoming) = mpsc::unbounded_channel();
        let (opened, answer) = oneshot::channel();
        let serve = move || serve(&address, create, incoming, opened);
        std::thread::Builder::new().name("evbus".to_owned()).spawn(serve).map_err(Error::Thread)?;
        let (settings, max_event_bytes) = answer.await.map_err(|_| Error::Closed)??;
        let (has_segments, max_depth) = (settings.has_segments(), settings.max_depth);
        Ok(Self { jobs, has_segments, max_event_bytes, max_depth })
    }

    /// Runs a call on the thread.
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(Rc<ThreadState>) -> Fut<'static, T> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.run(move |local| {
            Box::pin(async move {
                // The caller may be gone by then.
                let _ = answer.send(call(local).await);
            })
        })?;
        answered.await.map_err(|_| Error::Closed)
    }

    /// Emits events in their order; returns their ids.
    pub async fn emit(&self, events: Vec<NewEvent>) -> Result<Vec<(String, Ack)>, Error> {
        let (answer, answered) = oneshot::channel();
        self.run(move |local| Box::pin(async move { local.emit(events, answer).await }))?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Runs a task on the thread.
    pub fn run(&self, job: impl FnOnce(Rc<ThreadState>) -> Fut<'static, ()> + Send + 'static) -> Result<(), Error> {
        self.jobs.send(Box::new(job)).map_err(|_| Error::Closed)
    }
}

impl ThreadState {
    /// Puts events together with those that come meanwhile, or lets them wait until they are due.
    async fn emit(&self, events: Vec<NewEvent>, answer: AckSender) {
        let (clock, most) = (&*self.bus.handle.clock, self.bus.max_event_bytes());
        let drafts = events.into_iter().map(|event| event.draft(clock, most)).collect::<Result<Vec<_>, _>>();
        // The caller may be gone when it is answered.
        let drafts = match drafts {
            Ok(drafts) => drafts,
            Err(error) => return drop(answer.send(Err(error))),
        };
        if drafts.iter().any(|(_, due)| due.is_some()) {
            return drop(answer.send(self.emit_or_schedule(drafts).await));
        }
        let drafts: Vec<Draft> = drafts.into_iter().map(|(draft, _)| draft).collect();
        let in_chunks = drafts.len() >= LEAST_IN_CHUNKS && self.bus.settings.has_segments();
        if in_chunks && drafts.iter().all(Draft::is_named) {
            let acks = Emitter::new(self.bus.handle.clone(), TIMEOUT).emit_chunks(&drafts).await;
            self.note_emit();
            return drop(answer.send(with_ids(&drafts, acks)));
        }
        self.waiting.borrow_mut().push_back(WaitingCall { drafts, answer });
        self.put_waiting().await;
    }

    /// Emits events some of which are for a later time, one after the other.
    async fn emit_or_schedule(&self, drafts: Vec<(Draft, Option<EventTime>)>) -> Result<Vec<(String, Ack)>, Error> {
        let mut emitter = Emitter::new(self.bus.handle.clone(), TIMEOUT);
        let mut acks = Vec::with_capacity(drafts.len());
        for (draft, due) in drafts {
            let draft = std::slice::from_ref(&draft);
            let ack = match due {
                Some(due) => emitter.schedule(draft, due).await,
                None => emitter.emit(draft).await,
            };
            acks.extend(with_ids(draft, ack)?);
        }
        Ok(acks)
    }

    /// Puts what waits, unless another call does: that one takes it along.
    async fn put_waiting(&self) {
        let Some(mut emitter) = self.emitter.borrow_mut().take() else { return };
        loop {
            let calls = self.next_calls(emitter.batch());
            if calls.is_empty() {
                break;
            }
            let (mut drafts, mut answers) = (Vec::new(), Vec::with_capacity(calls.len()));
            for WaitingCall { drafts: more, answer } in calls {
                let begin = drafts.len();
                drafts.extend(more);
                answers.push((begin..drafts.len(), answer));
            }
            match emit_in_batches(&mut emitter, &drafts).await {
                Ok(acks) => {
                    self.note_emit();
                    for (place, answer) in answers {
                        let _ = answer.send(with_ids(&drafts[place.clone()], Ok(acks[place].to_vec())));
                    }
                }
                // What is wrong with one event, such as a damaged record of its id, must not fail
                // the others. What is wrong with the store fails them all.
                Err(error) if answers.len() > 1 && error.kind() == ErrorKind::Damaged => {
                    for (place, answer) in answers {
                        let acks = emit_in_batches(&mut emitter, &drafts[place.clone()]).await;
                        let _ = answer.send(with_ids(&drafts[place], acks));
                    }
                }
                Err(error) => answers.into_iter().for_each(|(_, answer)| _ = answer.send(Err(error.clone().into()))),
            }
        }
        *self.emitter.borrow_mut() = Some(emitter);
    }

    /// What readers read.
    #[cfg(feature = "cli")]
    pub fn feed(&self) -> &Rc<Feed> {
        self.feed.get_or_init(|| Feed::new(self.bus.handle.clone(), FeedBounds::default()))
    }

    /// Tells readers that events of this process have come.
    pub fn note_emit(&self) {
        #[cfg(feature = "cli")]
        if let Some(feed) = self.feed.get() {
            feed.note_emit();
        }
    }

    /// The next calls that wait, with about `most` events.
    fn next_calls(&self, most: usize) -> Vec<WaitingCall> {
        let mut waiting = self.waiting.borrow_mut();
        let (mut calls, mut events) = (Vec::new(), 0);
        while events < most
            && let Some(call) = waiting.pop_front()
        {
            events += call.drafts.len();
            calls.push(call);
        }
        calls
    }

    /// A group as it is there, or as it is made now; whether it was made.
    pub async fn find_or_make(&self, name: &GroupName, wanted: &WantedGroup) -> Result<(Registered, bool), Error> {
        let (store, clock) = (&*self.bus.handle.store, &*self.bus.handle.clock);
        let filter = wanted.filter.clone().unwrap_or_default();
        let (found, is_new) = match definition::find_durable(store, name).await? {
            Some(found) => (found, false),
            None => {
                let start = match wanted.start {
                    Some(start) => start,
                    None => self.only_start(name, &filter.types).await?,
                };
                let start = definition::resolve(store, clock, start).await?;
                let new = Definition::new(clock.now(), &filter, wanted.shards.unwrap_or(1), start);
                (definition::ensure(store, name, new).await?, true)
            }
        };
        let differs = |what| Error::GroupDiffers { group: name.to_string(), what };
        if wanted.filter.is_some() && found.definition.filter(name)? != filter {
            return Err(differs("filter"));
        }
        if wanted.shards.is_some_and(|shards| shards != found.definition.shards) {
            return Err(differs("number of shards"));
        }
        Ok((found, is_new))
    }

    /// Where a group starts that no event waits for: it makes no difference.
    async fn only_start(&self, name: &GroupName, types: &TypeFilter) -> Result<Start, Error> {
        let range = Range { since: EventTime::MIN, until: EventTime::MAX, filter: types.clone() };
        match read::count(&*self.bus.handle.store, &range).await? {
            (0, _) => Ok(Start::Earliest),
            (events, _) => Err(Error::NeedsStart { group: name.to_string(), events }),
        }
    }

    /// The event under a name, if it is there and can be read.
    pub async fn event(&self, name: &EventName) -> StoreResult<Option<Event>> {
        let limit = self.bus.max_event_bytes();
        let found = match crate::bus::read::document(&self.bus.handle, name, limit).await {
            Err(error) if error.kind() == ErrorKind::Damaged => None,
            found => found?,
        };
        Ok(found.and_then(|bytes| Event::parse(&bytes, limit).ok()))
    }
}

/// Emits events, no more at a time than are put again together if W has passed one of them.
async fn emit_in_batches(emitter: &mut Emitter, drafts: &[Draft]) -> StoreResult<Vec<Ack>> {
    let mut acks = Vec::with_capacity(drafts.len());
    for batch in drafts.chunks(emitter.batch().max(1)) {
        acks.extend(emitter.emit(batch).await?);
    }
    Ok(acks)
}

/// The ids of events that were emitted, with their acks.
fn with_ids(drafts: &[Draft], acks: StoreResult<Vec<Ack>>) -> Result<Vec<(String, Ack)>, Error> {
    let ids = drafts.iter().map(|draft| draft.event().id().to_owned());
    Ok(ids.zip(acks?).collect())
}

fn serve(
    address: &BusAddress,
    create: bool,
    mut incoming: mpsc::UnboundedReceiver<ThreadJob>,
    opened: oneshot::Sender<Result<(BusSettings, usize), Error>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = opened.send(Err(Error::Thread(error)));
            return;
        }
    };
    runtime.block_on(async {
        let local = match open_bus(address, create).await {
            Ok(bus) => Rc::new(ThreadState {
                emitter: RefCell::new(Some(Emitter::new(bus.handle.clone(), TIMEOUT))),
                bus,
                url: address.display.clone(),
                waiting: RefCell::default(),
                #[cfg(feature = "cli")]
                feed: std::cell::OnceCell::new(),
                #[cfg(feature = "cli")]
                pulled: PulledGroups::default(),
                #[cfg(feature = "cli")]
                overview: Overview::default(),
            }),
            Err(error) => {
                let _ = opened.send(Err(error.into()));
                return;
            }
        };
        let _ = opened.send(Ok((local.bus.settings.clone(), local.bus.max_event_bytes())));
        let mut running = FuturesUnordered::new();
        let mut closed = false;
        while !(closed && running.is_empty()) {
            tokio::select! {
                job = incoming.recv(), if !closed => match job {
                    Some(job) => running.push(job(Rc::clone(&local))),
                    None => closed = true,
                },
                Some(()) = running.next() => {}
            }
        }
    });
}

async fn open_bus(address: &BusAddress, create: bool) -> StoreResult<OpenBus> {
    let clock: Rc<dyn Clock> = Rc::new(SystemClock);
    match create {
        true => open::or_make(address, &clock, Execution::Threaded, Durability::Full).await,
        false => open::bus(address, &clock, Execution::Threaded, Durability::Full).await,
    }
}
