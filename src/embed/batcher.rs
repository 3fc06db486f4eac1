//! Many events in one object: gathered, put together and acknowledged together.

use std::rc::Rc;
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::event_lines::EventLines;
use super::thread::{AckSender, TIMEOUT, ThreadState};
use super::{Bus, Emitted, Error, NewEvent, emitted};
use crate::bus::emit::{Ack, AckKind, Emitter, SegmentDraft};
use crate::clock::{Clock, SystemClock};
use crate::event::{SEGMENT_MAX_BYTES, SEGMENT_MAX_EVENTS};

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
    backlog: Arc<Backlog>,
    /// In KiB.
    room: Arc<Semaphore>,
    /// Of the call that waits for room: what is freed for it must not go to a later one.
    turn: Mutex<()>,
}

/// A call that waits for its events to be put.
struct Waiting {
    content: Content,
    answer: Answer,
    events: usize,
    bytes: usize,
    /// On the clock of the thread.
    since: Duration,
    /// The room that it takes, whether its caller waits for it or not.
    room: OwnedSemaphorePermit,
}

/// What is to be put.
enum Content {
    Events(Vec<NewEvent>),
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only the HTTP face takes lines"))]
    Lines(EventLines),
}

impl Content {
    /// How many events it is, and about how many bytes on the bus.
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Events(events) => (events.len(), events.iter().map(|event| event.content_len() + NAMES_BYTES).sum()),
            Self::Lines(lines) => (lines.len(), lines.content_len()),
        }
    }
}

/// To whom it is told what became of a call: the ids of its events, with their acks or alone.
enum Answer {
    Acks(AckSender),
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only the HTTP face takes lines"))]
    Ids(oneshot::Sender<Result<Vec<String>, Error>>),
}

impl Answer {
    fn fail(self, error: Error) {
        // The caller may be gone when it is answered.
        match self {
            Self::Acks(sender) => _ = sender.send(Err(error)),
            Self::Ids(sender) => _ = sender.send(Err(error)),
        }
    }
}

/// The calls that wait while the task that gathers waits for more: it is woken once, by the call that
/// makes them enough.
#[derive(Debug, Default)]
struct Backlog {
    waiting: std::sync::Mutex<WaitingCalls>,
    enough: Notify,
}

#[derive(Debug, Default)]
struct WaitingCalls {
    calls: usize,
    events: usize,
    bytes: usize,
    /// So many calls are enough.
    wanted: usize,
    /// No other call can come.
    is_closed: bool,
}

impl Backlog {
    fn waiting(&self) -> MutexGuard<'_, WaitingCalls> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a call over, and counts it.
    fn add(&self, call: Waiting, to: &mpsc::UnboundedSender<Waiting>) -> Result<(), Error> {
        let mut waiting = self.waiting();
        let (events, bytes) = (call.events, call.bytes);
        // Under the lock, so that it is not taken before it is counted.
        to.send(call).map_err(|_| Error::Closed)?;
        waiting.calls += 1;
        waiting.events += events;
        waiting.bytes += bytes;
        if waiting.is_enough() {
            self.enough.notify_one();
        }
        Ok(())
    }

    /// Counts a call no longer, which is put.
    fn remove(&self, call: &Waiting) {
        let mut waiting = self.waiting();
        waiting.calls -= 1;
        waiting.events -= call.events;
        waiting.bytes -= call.bytes;
    }

    /// Completes once so many calls wait, or a segment would be full.
    async fn enough(&self, wanted: usize) {
        loop {
            {
                let mut waiting = self.waiting();
                waiting.wanted = wanted;
                if waiting.is_enough() {
                    return;
                }
            }
            self.enough.notified().await;
        }
    }
}

impl WaitingCalls {
    fn is_enough(&self) -> bool {
        let is_full = self.events >= SEGMENT_MAX_EVENTS.into() || self.bytes >= SEGMENT_MAX_BYTES;
        is_full || self.is_closed || self.calls >= self.wanted
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.backlog.waiting().is_closed = true;
        self.backlog.enough.notify_one();
    }
}

impl Batcher {
    pub(super) fn new(bus: Bus) -> Self {
        Self { bus, linger: None, gathering: Arc::default() }
    }

    /// How long an event waits for others. Unless told otherwise, 100 ms on a bucket; on a directory 2 ms,
    /// or until as many calls wait as were put together last, so that one that comes alone does not wait.
    /// While a put is under way the next events gather in any case.
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
        if !self.has_segments() || events.iter().any(NewEvent::is_single) {
            return self.bus.thread.emit(events).await;
        }
        let (answer, answered) = oneshot::channel();
        self.hand_over(Content::Events(events), Answer::Acks(answer)).await?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Emits events on lines, all of them; returns their ids. The bus must have segments.
    #[cfg(feature = "cli")]
    pub(crate) async fn put_lines(&self, lines: EventLines) -> Result<Vec<String>, Error> {
        if lines.len() == 0 {
            return Ok(Vec::new());
        }
        let (answer, answered) = oneshot::channel();
        self.hand_over(Content::Lines(lines), Answer::Ids(answer)).await?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Whether many events may go into one object.
    pub(crate) fn has_segments(&self) -> bool {
        self.bus.thread.has_segments
    }

    /// Hands a call over to the task that gathers, once there is room for it.
    async fn hand_over(&self, content: Content, answer: Answer) -> Result<(), Error> {
        let gathering = self.gathering.get_or_init(|| self.begin(self.linger, self.linger.is_none()));
        let (events, bytes) = content.size();
        let size = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).clamp(1, ROOM_KIB);
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
        let call = Waiting { content, answer, events, bytes, since: SystemClock.elapsed(), room };
        gathering.backlog.add(call, &gathering.events)?;
        drop(turn);
        Ok(())
    }

    /// Begins to gather. An eager one may end the linger before its time, where puts cost nothing.
    fn begin(&self, linger: Option<Duration>, is_eager: bool) -> Gathering {
        let (events, incoming) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog::default());
        let gathers = Arc::clone(&backlog);
        // If the thread is gone, the receiver is, too, and emits say so.
        let _ = self.bus.thread.run(move |local| {
            let costs = local.bus.handle.store.requests().is_some();
            let linger = linger.unwrap_or(if costs { LINGER.1 } else { LINGER.0 });
            Box::pin(gather(local, incoming, gathers, linger, is_eager && !costs))
        });
        Gathering { events, backlog, room: Arc::new(Semaphore::new(ROOM_KIB as usize)), turn: Mutex::default() }
    }
}

/// Puts what comes, until no event can come any more. An eager one lingers for no more calls than were put
/// together last: those are answered at the same time, and come back so.
async fn gather(
    local: Rc<ThreadState>,
    mut incoming: mpsc::UnboundedReceiver<Waiting>,
    backlog: Arc<Backlog>,
    linger: Duration,
    is_eager: bool,
) {
    let handle = &local.bus.handle;
    let mut emitter = Emitter::new(handle.clone(), TIMEOUT);
    let mut wanted = if is_eager { 1 } else { usize::MAX };
    while let Some(first) = incoming.recv().await {
        let until = first.since.saturating_add(linger);
        tokio::select! { biased;
            () = backlog.enough(wanted) => {}
            () = handle.clock.sleep_until(until) => {}
        }
        let mut gathered = Gathered::default();
        let mut next = Some(first);
        while let Some(waiting) = next {
            backlog.remove(&waiting);
            gathered.add(&local, waiting);
            next = if gathered.segments.len() > SEGMENTS { None } else { incoming.try_recv().ok() };
        }
        if is_eager {
            wanted = gathered.calls.len().max(1);
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
    calls: Vec<(usize, Answer, OwnedSemaphorePermit)>,
}

impl Gathered {
    /// Adds the events of a call; answers at once if one is no good, and adds none.
    fn add(&mut self, local: &ThreadState, waiting: Waiting) {
        let Waiting { content, answer, events: count, room, .. } = waiting;
        let segments = self.segments.len();
        let in_last = self.segments.last().map(SegmentDraft::len);
        let added = match content {
            Content::Events(events) => events.into_iter().try_for_each(|event| self.add_event(local, event)),
            Content::Lines(lines) => {
                self.add_lines(local, &lines);
                Ok(())
            }
        };
        match added {
            Ok(()) => self.calls.push((count, answer, room)),
            Err(error) => {
                self.segments.truncate(segments);
                if let Some((last, len)) = self.segments.last_mut().zip(in_last) {
                    last.truncate(len);
                }
                answer.fail(error);
            }
        }
    }

    /// Adds an event to the last segment, or to a new one.
    fn add_event(&mut self, local: &ThreadState, mut event: NewEvent) -> Result<(), Error> {
        let clock = &*local.bus.handle.clock;
        loop {
            let last = self.last_segment(clock);
            match last.add(event.draft_in_segment(clock, local.bus.max_event_bytes(), last)?) {
                Ok(()) => return Ok(()),
                // With another segment the event has another id.
                Err(draft) => event = NewEvent::from(*draft),
            }
            self.segments.push(SegmentDraft::new(clock));
        }
    }

    fn add_lines(&mut self, local: &ThreadState, lines: &EventLines) {
        let clock = &*local.bus.handle.clock;
        for line in lines.lines.iter() {
            let now = clock.now();
            while self.last_segment(clock).add_line(&lines.template, now, line, usize::MAX).is_none() {
                self.segments.push(SegmentDraft::new(clock));
            }
        }
    }

    /// The last segment, or a new one if that has no room.
    fn last_segment(&mut self, clock: &dyn Clock) -> &mut SegmentDraft {
        if self.segments.last().is_none_or(|last| !last.has_room()) {
            self.segments.push(SegmentDraft::new(clock));
        }
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }

    async fn put(self, emitter: &mut Emitter) {
        match emitter.emit_segments(&self.segments).await {
            Ok(firsts) => {
                let segments = self.segments.iter().zip(firsts);
                let mut events =
                    segments.flat_map(|(segment, first)| (0..segment.len().into()).map(move |at| (segment, at, first)));
                for (count, answer, room) in self.calls {
                    drop(room);
                    let events = events.by_ref().take(count);
                    match answer {
                        Answer::Ids(sender) => {
                            let ids = events.map(|(segment, at, _)| segment.id(at).to_owned());
                            let _ = sender.send(Ok(ids.collect()));
                        }
                        Answer::Acks(sender) => {
                            let acks = events.map(|(segment, at, first)| {
                                let ack = Ack { name: segment.name(at, first), kind: AckKind::New };
                                (segment.id(at).to_owned(), ack)
                            });
                            let _ = sender.send(Ok(acks.collect()));
                        }
                    }
                }
            }
            Err(error) => self.calls.into_iter().for_each(|(_, answer, _)| answer.fail(error.clone().into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Query;

    fn waiting(calls: usize, events: usize, bytes: usize) -> WaitingCalls {
        WaitingCalls { calls, events, bytes, wanted: 8, is_closed: false }
    }

    #[test]
    fn the_linger_ends_with_enough_calls_or_a_full_segment() {
        assert!(!waiting(7, 999, (1 << 20) - 1).is_enough());
        assert!(waiting(8, 8, 8).is_enough());
        assert!(waiting(1, 1_000, 1).is_enough());
        assert!(waiting(1, 1, 1 << 20).is_enough());
        assert!(WaitingCalls { is_closed: true, ..waiting(1, 1, 1) }.is_enough());
    }

    /// With an hour's linger each of these would wait for others.
    #[tokio::test]
    async fn a_call_that_comes_alone_does_not_wait_where_puts_cost_nothing() {
        let folder = tempfile::TempDir::new().unwrap();
        let bus = Bus::create(&folder.path().join("bus").display().to_string()).await.unwrap();
        let hour = Duration::from_secs(3_600);
        let eager = bus.batcher();
        eager.gathering.set(eager.begin(Some(hour), true)).unwrap();
        for _ in 0..3 {
            eager.emit(NewEvent::new("order.created")).await.unwrap();
        }
        // A call that waits is put once nobody else can come.
        let lingering = bus.batcher().linger(hour);
        let event = [NewEvent::new("order.created")];
        let mut emit = Box::pin(async move { lingering.emit_all(event).await });
        let polled = futures_util::future::poll_immediate(&mut emit).await;
        assert!(polled.is_none());
        drop(emit);
        while bus.read(Query::new()).await.unwrap().len() < 4 {}
    }
}
