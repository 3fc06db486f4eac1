//! The thread on which a bus is used: the store and the workers stay on it, calls come to it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::{Error, NewEvent};
use crate::bus::OpenBus;
use crate::bus::emit::{Ack, Draft, Emitter};
use crate::clock::{Clock, Fut, SystemClock};
use crate::config::{BusAddress, Config, Environment};
use crate::event::{Event, EventName};
use crate::open;
use crate::store::dir::{Durability, Execution};
use crate::store::{ErrorKind, StoreResult};

/// How long an emit asks a store that does not answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// A call, as it runs on the thread.
type ThreadJob = Box<dyn FnOnce(Rc<ThreadState>) -> Fut<'static, ()> + Send>;

/// Tells the caller of an emit how it went, as soon as that is known.
pub(super) type AckSender = oneshot::Sender<Result<(String, Ack), Error>>;

/// The way to the thread of a bus. The thread ends after the last handle is dropped and the calls
/// under way have ended.
#[derive(Debug)]
pub(super) struct BusThread {
    jobs: mpsc::UnboundedSender<ThreadJob>,
    /// Whether many events may go into one object.
    pub has_segments: bool,
}

/// What the thread has.
pub(super) struct ThreadState {
    pub bus: OpenBus,
    /// What `EVBUS_URL` would be.
    pub url: String,
    /// Events to be put by the call that is putting others now.
    waiting: RefCell<VecDeque<(Draft, AckSender)>>,
    /// One emitter for all: its times grow, so that the order of calls stays. None while a call is
    /// putting.
    emitter: RefCell<Option<Emitter>>,
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
        let has_segments = answer.await.map_err(|_| Error::Closed)??;
        Ok(Self { jobs, has_segments })
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

    /// Emits an event; returns its id.
    pub async fn emit(&self, event: NewEvent) -> Result<(String, Ack), Error> {
        let (answer, answered) = oneshot::channel();
        self.run(move |local| Box::pin(async move { local.emit(event, answer).await }))?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Runs a task on the thread.
    pub fn run(&self, job: impl FnOnce(Rc<ThreadState>) -> Fut<'static, ()> + Send + 'static) -> Result<(), Error> {
        self.jobs.send(Box::new(job)).map_err(|_| Error::Closed)
    }
}

impl ThreadState {
    /// Puts an event together with those that come meanwhile, or lets it wait until it is due.
    async fn emit(&self, event: NewEvent, answer: AckSender) {
        let handle = &self.bus.handle;
        // The caller may be gone when it is answered.
        match event.draft(&*handle.clock, self.bus.max_event_bytes()) {
            Err(error) => _ = answer.send(Err(error)),
            Ok((draft, Some(due))) => {
                let acks = Emitter::new(handle.clone(), TIMEOUT).schedule(std::slice::from_ref(&draft), due).await;
                let _ = answer.send(only(&draft, acks));
            }
            Ok((draft, None)) => {
                self.waiting.borrow_mut().push_back((draft, answer));
                self.put_waiting().await;
            }
        }
    }

    /// Puts what waits, unless another call does: that one takes it along.
    async fn put_waiting(&self) {
        let Some(mut emitter) = self.emitter.borrow_mut().take() else { return };
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
                Ok(acks) => {
                    for ((draft, ack), answer) in drafts.iter().zip(acks).zip(answers) {
                        let _ = answer.send(only(draft, Ok(vec![ack])));
                    }
                }
                // What is wrong with one event, such as a damaged record of its id, must not fail
                // the others. What is wrong with the store fails them all.
                Err(error) if drafts.len() > 1 && error.kind() == ErrorKind::Damaged => {
                    for (draft, answer) in drafts.into_iter().zip(answers) {
                        let acks = emitter.emit(std::slice::from_ref(&draft)).await;
                        let _ = answer.send(only(&draft, acks));
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
        let found = match crate::bus::read::document(&self.bus.handle, name, limit).await {
            Err(error) if error.kind() == ErrorKind::Damaged => None,
            found => found?,
        };
        Ok(found.and_then(|bytes| Event::parse(&bytes, limit).ok()))
    }
}

/// The answer for a single event: its id and its ack.
fn only(draft: &Draft, acks: StoreResult<Vec<Ack>>) -> Result<(String, Ack), Error> {
    let ack = acks?.into_iter().next().ok_or(Error::Closed)?;
    Ok((draft.event().id().to_owned(), ack))
}

fn serve(
    address: &BusAddress,
    create: bool,
    mut incoming: mpsc::UnboundedReceiver<ThreadJob>,
    opened: oneshot::Sender<Result<bool, Error>>,
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
            }),
            Err(error) => {
                let _ = opened.send(Err(error.into()));
                return;
            }
        };
        let _ = opened.send(Ok(local.bus.settings.has_segments()));
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
