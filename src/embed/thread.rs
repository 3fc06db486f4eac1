//! The thread on which a bus is used: the store and the workers stay on it, calls come to it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::{Error, NewEvent};
use crate::bus::emit::{Ack, Draft, Emitter};
use crate::bus::{MAX_EVENT_BYTES, OpenBus, Place, Settings, Sharing};
use crate::clock::{Clock, Fut, SystemClock};
use crate::config::{BusAddress, Config, Environment, Location};
use crate::event::{Event, EventName, EventTime};
use crate::open;
use crate::store::dir::{DirOptions, DirStore, Durability, Execution};
use crate::store::{ErrorKind, StoreResult};

/// How long an emit asks a store that does not answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A call, as it runs on the thread.
type Job = Box<dyn FnOnce(Rc<Local>) -> Fut<'static, ()> + Send>;

/// Tells the caller of an emit how it went, as soon as that is known.
type Answer = oneshot::Sender<Result<Ack, Error>>;

/// The way to the thread of a bus. The thread ends after the last handle is dropped and the calls
/// under way have ended.
#[derive(Debug)]
pub(super) struct BusThread {
    jobs: mpsc::UnboundedSender<Job>,
}

/// What the thread has.
pub(super) struct Local {
    pub bus: OpenBus,
    /// What `EVBUS_URL` would be.
    pub url: String,
    /// Events to be put by the call that is putting others now.
    waiting: RefCell<VecDeque<(Draft, Answer)>>,
    emitting: Cell<bool>,
    emitter: RefCell<Option<Emitter>>,
    /// Puts for the thread to drive.
    puts: mpsc::UnboundedSender<Fut<'static, ()>>,
}

impl BusThread {
    /// Starts the thread, which opens the bus; with `create` it makes a directory's that is not
    /// there.
    pub async fn start(address: &str, create: bool) -> Result<Self, Error> {
        let address = BusAddress::resolve(&Environment::from_process(), &Config::default(), Some(OsStr::new(address)))?;
        let (jobs, incoming) = mpsc::unbounded_channel();
        let (opened, answer) = oneshot::channel();
        let serve = move || serve(&address, create, incoming, opened);
        std::thread::Builder::new().name("evbus".to_owned()).spawn(serve).map_err(Error::Thread)?;
        answer.await.map_err(|_| Error::Closed)??;
        Ok(Self { jobs })
    }

    /// Runs a call on the thread.
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(Rc<Local>) -> Fut<'static, T> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |local| {
            Box::pin(async move {
                // The caller may be gone by then.
                let _ = answer.send(call(local).await);
            })
        });
        self.jobs.send(job).map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)
    }

    /// Emits an event; returns its id.
    pub async fn emit(&self, event: NewEvent) -> Result<(String, Ack), Error> {
        let (answer, answered) = oneshot::channel();
        let id = self
            .call(move |local| {
                Box::pin(async move {
                    let (draft, due) = event.draft(&*local.bus.place.clock, local.bus.max_event_bytes())?;
                    let id = draft.event().id().to_owned();
                    local.take(draft, due, answer);
                    Ok::<_, Error>(id)
                })
            })
            .await??;
        Ok((id, answered.await.map_err(|_| Error::Closed)??))
    }
}

impl Local {
    /// Takes an event to be put, or to wait until it is due.
    fn take(self: &Rc<Self>, draft: Draft, due: Option<EventTime>, answer: Answer) {
        let local = Rc::clone(self);
        let put: Fut<'static, ()> = match due {
            Some(due) => Box::pin(async move {
                let mut emitter = Emitter::new(local.bus.place.clone(), TIMEOUT);
                let _ = answer.send(only(emitter.schedule(std::slice::from_ref(&draft), due).await));
            }),
            None => {
                self.waiting.borrow_mut().push_back((draft, answer));
                if self.emitting.replace(true) {
                    // The call that is putting others takes it along.
                    return;
                }
                Box::pin(async move {
                    local.put_waiting().await;
                    local.emitting.set(false);
                })
            }
        };
        // The thread drives it; it ends before the thread does.
        let _ = self.puts.send(put);
    }

    async fn put_waiting(&self) {
        // One emitter for all: its times grow, so that the order of calls stays.
        let emitter = self.emitter.borrow_mut().take();
        let mut emitter = emitter.unwrap_or_else(|| Emitter::new(self.bus.place.clone(), TIMEOUT));
        loop {
            let batch: Vec<_> = {
                let mut waiting = self.waiting.borrow_mut();
                let most = waiting.len().min(emitter.batch());
                waiting.drain(..most).collect()
            };
            if batch.is_empty() {
                break;
            }
            let (drafts, answers): (Vec<Draft>, Vec<_>) = batch.into_iter().unzip();
            match emitter.emit(&drafts).await {
                // The caller may be gone by now.
                Ok(acks) => acks.into_iter().zip(answers).for_each(|(ack, answer)| _ = answer.send(Ok(ack))),
                // What is wrong with one event, such as a damaged record of its id, must not fail
                // the others. What is wrong with the store fails them all.
                Err(error) if drafts.len() > 1 && error.kind() == ErrorKind::Damaged => {
                    for (draft, answer) in drafts.into_iter().zip(answers) {
                        let _ = answer.send(only(emitter.emit(std::slice::from_ref(&draft)).await));
                    }
                }
                Err(error) => answers.into_iter().for_each(|answer| _ = answer.send(Err(error.clone().into()))),
            }
        }
        *self.emitter.borrow_mut() = Some(emitter);
    }

    /// The event under a name, if it is there and can be read.
    pub async fn event(&self, name: &EventName) -> StoreResult<Option<Event>> {
        let limit = self.bus.max_event_bytes();
        let found = match self.bus.place.store.get_within(&name.key(), limit).await {
            Err(error) if error.kind() == ErrorKind::Damaged => None,
            found => found?,
        };
        Ok(found.and_then(|object| Event::parse(&object.bytes, limit).ok()))
    }
}

/// The ack of a single event.
fn only(acks: StoreResult<Vec<Ack>>) -> Result<Ack, Error> {
    acks?.into_iter().next().ok_or(Error::Closed)
}

fn serve(
    address: &BusAddress,
    create: bool,
    mut incoming: mpsc::UnboundedReceiver<Job>,
    opened: oneshot::Sender<Result<(), Error>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = opened.send(Err(Error::Thread(error)));
            return;
        }
    };
    runtime.block_on(async {
        let (puts, mut incoming_puts) = mpsc::unbounded_channel();
        let local = match open_bus(address, create).await {
            Ok(bus) => Rc::new(Local {
                bus,
                url: address.display.clone(),
                waiting: RefCell::default(),
                emitting: Cell::default(),
                emitter: RefCell::default(),
                puts,
            }),
            Err(error) => {
                let _ = opened.send(Err(error.into()));
                return;
            }
        };
        let _ = opened.send(Ok(()));
        let mut running = FuturesUnordered::new();
        let mut closed = false;
        while !(closed && running.is_empty() && incoming_puts.is_empty()) {
            tokio::select! {
                job = incoming.recv(), if !closed => match job {
                    Some(job) => running.push(job(Rc::clone(&local))),
                    None => closed = true,
                },
                Some(put) = incoming_puts.recv() => running.push(put),
                Some(()) = running.next() => {}
            }
        }
    });
}

async fn open_bus(address: &BusAddress, create: bool) -> StoreResult<OpenBus> {
    let clock: Rc<dyn Clock> = Rc::new(SystemClock);
    match (open::bus(address, &clock, Execution::Threaded, Durability::Full).await, &address.location) {
        (Err(error), Location::Dir(path)) if create && error.kind() == ErrorKind::NoBus => {
            let options =
                DirOptions { execution: Execution::Threaded, durability: Durability::Full, group_writable: false };
            let place = Place { store: Rc::new(DirStore::create(path, options, &*clock)?), clock };
            let settings = Settings::new(place.clock.now(), MAX_EVENT_BYTES, Sharing::Umask);
            Ok(OpenBus::create(place, settings, &address.display).await?.0)
        }
        (opened, _) => opened,
    }
}
