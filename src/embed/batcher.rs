//! Many events in one object: gathered, put together and acknowledged together.

use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::thread::{AckSender, TIMEOUT, ThreadState};
use super::{Bus, Emitted, Error, NewEvent, emitted};
use crate::bus::emit::{Ack, AckKind, Emitter, SegmentDraft};
use crate::clock::{Clock, SystemClock};

/// How long the first event of a segment waits for others, where puts cost nothing and where they
/// are charged for.
const LINGER: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// The most segments that are put side by side.
const SEGMENTS: usize = 8;

/// The most KiB of events that wait, or are being put.
const ROOM_KIB: u32 = 16 << 10;

/// About what the names and the marks in a document take, in bytes.
const NAMES_BYTES: usize = 256;

/// Emits many events with few writes: what comes within a moment goes into one object, with one
/// check, and is acknowledged together. Made by [`Bus::batcher`]; clones share what they gather.
///
/// Events with an ordering key keep the order of the calls. An event with an id of the caller's own
/// or for a later time, and all events of a bus without segments, are put one by one, as
/// [`Bus::emit`] does.
///
/// ```
/// # #[tokio::main(flavor = "multi_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("evbus-batcher-{}", std::process::id()));
/// # std::fs::create_dir(&folder)?;
/// # let bus = evbus::Bus::create(&folder.join("bus").display().to_string()).await?;
/// let batcher = bus.batcher();
/// let emits = (0..100).map(|n| {
///     let batcher = batcher.clone();
///     tokio::spawn(async move { batcher.emit(evbus::NewEvent::new("page.viewed").json(&n)?).await })
/// });
/// for emit in emits.collect::<Vec<_>>() {
///     emit.await??;
/// }
/// # std::fs::remove_dir_all(folder)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Batcher {
    bus: Bus,
    linger: Option<Duration>,
    /// Begun by the first event.
    gathering: Arc<OnceLock<Gathering>>,
}

/// The way to the task that gathers.
#[derive(Debug)]
struct Gathering {
    events: mpsc::UnboundedSender<Waiting>,
    /// In KiB.
    room: Arc<Semaphore>,
    /// Of the call that waits for room: what is freed for it must not go to a later one.
    turn: Mutex<()>,
}

/// The events of a call that wait to be put.
struct Waiting {
    events: Vec<NewEvent>,
    /// On the clock of the thread.
    since: Duration,
    answer: AckSender,
    /// The room that it takes, whether its caller waits for it or not.
    room: OwnedSemaphorePermit,
}

impl Batcher {
    pub(super) fn new(bus: Bus) -> Self {
        Self { bus, linger: None, gathering: Arc::default() }
    }

    /// How long an event waits for others; 2 ms on a directory and 100 ms on a bucket unless told
    /// otherwise. While a put is under way the next events gather in any case.
    #[must_use]
    pub fn linger(self, linger: Duration) -> Self {
        Self { linger: Some(linger), gathering: Arc::default(), ..self }
    }

    /// Emits an event. After `Ok` it is on the disk, or durable in the bucket. Waits first while
    /// 16 MiB of other events are not acknowledged yet.
    ///
    /// # Errors
    /// See [`Bus::emit`]. An error of the store fails all events that were put together.
    pub async fn emit(&self, event: NewEvent) -> Result<Emitted, Error> {
        self.emit_all([event]).await?.pop().ok_or(Error::Closed)
    }

    /// Emits events in their order, all of them or, if one is no valid event, none. After `Ok` all are
    /// on the disk, or durable in the bucket. Waits as [`Batcher::emit`] does.
    ///
    /// A hundred events and more with ids of the caller's own are told to be repeats where the whole
    /// list is emitted again, or one that begins in it and goes on in its order.
    ///
    /// # Errors
    /// See [`Bus::emit`]. If an id is another event's, the other events are on the bus all the same.
    pub async fn emit_all(&self, events: impl IntoIterator<Item = NewEvent>) -> Result<Vec<Emitted>, Error> {
        let acks = self.put_all(events.into_iter().collect()).await?;
        acks.into_iter().map(emitted).collect()
    }

    /// The same, with the acks of all.
    pub(crate) async fn put_all(&self, events: Vec<NewEvent>) -> Result<Vec<(String, Ack)>, Error> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        if !self.bus.thread.has_segments || events.iter().any(NewEvent::is_single) {
            return self.bus.thread.emit(events).await;
        }
        let gathering = self.gathering.get_or_init(|| self.begin());
        let size = events.iter().map(|event| event.content_len() + NAMES_BYTES).sum::<usize>() >> 10;
        let size = u32::try_from(size).unwrap_or(u32::MAX).clamp(1, ROOM_KIB);
        // Where there is room this call is not put behind later ones, as a task that has done much may be.
        let turn = match gathering.turn.try_lock() {
            Ok(turn) => turn,
            Err(_) => gathering.turn.lock().await,
        };
        let all = Arc::clone(&gathering.room);
        let room = match Arc::clone(&all).try_acquire_many_owned(size) {
            Ok(room) => room,
            Err(_) => all.acquire_many_owned(size).await.map_err(|_| Error::Closed)?,
        };
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { events, since: SystemClock.elapsed(), answer, room };
        gathering.events.send(waiting).map_err(|_| Error::Closed)?;
        drop(turn);
        answered.await.map_err(|_| Error::Closed)?
    }

    fn begin(&self) -> Gathering {
        let (events, incoming) = mpsc::unbounded_channel();
        let linger = self.linger;
        // If the thread is gone, the receiver is, too, and emits say so.
        let _ = self.bus.thread.run(move |local| Box::pin(gather(local, incoming, linger)));
        Gathering { events, room: Arc::new(Semaphore::new(ROOM_KIB as usize)), turn: Mutex::default() }
    }
}

/// Puts what comes, until no event can come any more.
async fn gather(local: Rc<ThreadState>, mut incoming: mpsc::UnboundedReceiver<Waiting>, linger: Option<Duration>) {
    let handle = &local.bus.handle;
    let linger = linger.unwrap_or(if handle.store.requests().is_some() { LINGER.1 } else { LINGER.0 });
    let mut emitter = Emitter::new(handle.clone(), TIMEOUT);
    while let Some(first) = incoming.recv().await {
        let until = first.since.saturating_add(linger);
        let mut gathered = Gathered::default();
        gathered.add(&local, first);
        loop {
            let next = match incoming.try_recv() {
                Ok(next) => next,
                Err(_) if gathered.has_full() => break,
                Err(_) => tokio::select! { biased;
                    next = incoming.recv() => match next {
                        Some(next) => next,
                        None => break,
                    },
                    () = handle.clock.sleep_until(until) => break,
                },
            };
            gathered.add(&local, next);
            if gathered.segments.len() > SEGMENTS {
                break;
            }
        }
        gathered.put(&mut emitter).await;
        local.note_emit();
    }
}

/// Events that are put together.
#[derive(Default)]
struct Gathered {
    segments: Vec<SegmentDraft>,
    /// Of each call: how many of the events are its own.
    calls: Vec<(usize, AckSender, OwnedSemaphorePermit)>,
}

impl Gathered {
    /// Adds the events of a call; answers at once if one is no good, and adds none.
    fn add(&mut self, local: &ThreadState, waiting: Waiting) {
        let Waiting { events, answer, room, .. } = waiting;
        let (count, segments) = (events.len(), self.segments.len());
        let in_last = self.segments.last().map(SegmentDraft::len);
        match events.into_iter().try_for_each(|event| self.add_event(local, event)) {
            Ok(()) => self.calls.push((count, answer, room)),
            Err(error) => {
                self.segments.truncate(segments);
                if let Some((last, len)) = self.segments.last_mut().zip(in_last) {
                    last.truncate(len);
                }
                // The caller may be gone when it is answered.
                let _ = answer.send(Err(error));
            }
        }
    }

    /// Adds an event to the last segment, or to a new one.
    fn add_event(&mut self, local: &ThreadState, mut event: NewEvent) -> Result<(), Error> {
        let clock = &*local.bus.handle.clock;
        loop {
            if self.segments.last().is_none_or(|last| !last.has_room()) {
                self.segments.push(SegmentDraft::new(clock));
            }
            let Some(last) = self.segments.last_mut() else { return Ok(()) };
            match last.add(event.draft_in_segment(clock, local.bus.max_event_bytes(), last)?) {
                Ok(()) => return Ok(()),
                // With another segment the event has another id.
                Err(draft) => event = NewEvent::from(*draft),
            }
            self.segments.push(SegmentDraft::new(clock));
        }
    }

    /// Whether a segment is full, so that nothing is gained by waiting.
    fn has_full(&self) -> bool {
        self.segments.len() > 1 || self.segments.iter().any(|segment| !segment.has_room())
    }

    async fn put(self, emitter: &mut Emitter) {
        match emitter.emit_segments(&self.segments).await {
            Ok(firsts) => {
                let names = self.segments.iter().zip(firsts).flat_map(|(segment, first)| segment.names(first));
                let ids = self.segments.iter().flat_map(SegmentDraft::events).map(|(id, _)| id.to_owned());
                let mut acks = ids.zip(names.map(|name| Ack { name, kind: AckKind::New }));
                for (count, answer, room) in self.calls {
                    drop(room);
                    let _ = answer.send(Ok(acks.by_ref().take(count).collect()));
                }
            }
            Err(error) => self.calls.into_iter().for_each(|(_, answer, _)| _ = answer.send(Err(error.clone().into()))),
        }
    }
}
