//! Named ids in bulk, with emitters that are killed at every operation on the store.

use super::*;

/// A store whose user is killed at one of its operations, before it takes place or just after.
struct Deadly {
    inner: MemoryStore,
    left: Cell<u32>,
    after: bool,
}

impl Deadly {
    async fn doing<T>(&self, operation: impl Future<Output = T>) -> T {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        if left == 1 {
            if self.after {
                operation.await;
            }
            return std::future::pending().await;
        }
        operation.await
    }
}

impl Store for Deadly {
    fn put_new<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> Fut<'a, StoreResult<Put>> {
        Box::pin(self.doing(self.inner.put_new(key, bytes)))
    }
    fn get<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<Option<Object>>> {
        Box::pin(self.doing(self.inner.get(key)))
    }
    fn list_after(&self, list: List) -> Fut<'_, StoreResult<Page>> {
        Box::pin(self.doing(self.inner.list_after(list)))
    }
    fn cas<'a>(&'a self, key: &'a str, version: Option<&'a Version>, bytes: &'a [u8]) -> Fut<'a, StoreResult<Swap>> {
        Box::pin(self.doing(self.inner.cas(key, version, bytes)))
    }
    fn delete<'a>(&'a self, key: &'a str) -> Fut<'a, StoreResult<()>> {
        Box::pin(self.doing(self.inner.delete(key)))
    }
    fn hints(&self) -> Result<Box<dyn Hints>, NoHints> {
        self.inner.hints()
    }
    fn profile(&self) -> Profile {
        self.inner.profile()
    }
}

fn emitter_that_dies(bus: &EmitBus, at: u32, after: bool) -> Emitter {
    let store = Deadly { inner: bus.store(), left: Cell::new(at), after };
    Emitter::new(BusHandle::new(Rc::new(store), Rc::new(SystemClock)), Duration::from_secs(5))
}

fn lines(count: usize, key: Option<&str>) -> Vec<Draft> {
    let line = |number: usize| {
        let event = event(&format!("line-{number}"), &number.to_string());
        Draft::named(match key {
            Some(key) => event.subject(key).build().unwrap(),
            None => event.build().unwrap(),
        })
    };
    (0..count).map(line).collect()
}

/// The data of all events that lie in segments or alone, in their order.
fn data(bus: &EmitBus) -> Vec<String> {
    let mut found = Vec::new();
    for key in bus.0.keys(EVENTS) {
        let bytes = bus.0.read(&key).unwrap();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let event = Event::parse(line, usize::MAX).unwrap();
            if let Data::Json(raw) = event.data() {
                found.push(raw.get().to_owned());
            }
        }
    }
    found
}

/// Emits all in calls of this many; none if the emitter was killed.
fn emit_all(emitter: &mut Emitter, drafts: &[Draft], call: usize) -> Option<Vec<AckKind>> {
    done(async {
        let emitting = async {
            let mut kinds = Vec::new();
            for part in drafts.chunks(call) {
                let acks = emitter.emit_chunks_from(part, 2).await.unwrap();
                assert_eq!(acks.len(), part.len());
                kinds.extend(acks.into_iter().map(|ack| ack.kind));
            }
            kinds
        };
        emitting.now_or_never()
    })
}

/// Whenever an emitter is killed, and however the repeat is cut, each event is there once, in order.
#[test]
fn a_repeat_of_a_killed_bulk_emit_puts_each_event_once() {
    for key in [None, Some("k")] {
        let drafts = lines(12, key);
        let all: Vec<String> = (0..12).map(|number: u32| number.to_string()).collect();
        for (after, passed, calls) in [(false, false, [5, 12]), (true, false, [12, 3]), (true, true, [4, 5])] {
            let mut killed = 0;
            for at in 1.. {
                let bus = EmitBus::new();
                let ended = emit_all(&mut emitter_that_dies(&bus, at, after), &drafts, calls[0]);
                if passed {
                    bus.raise(SystemClock.now().plus(Duration::from_secs(1)));
                }
                let kinds = emit_all(&mut bus.emitter([]), &drafts, calls[1]).unwrap();
                assert!(!kinds.contains(&AckKind::IdTaken));
                assert_eq!(data(&bus), all, "{key:?} {at} {after} {passed}");
                // A note is left at most where its emitter was killed after it had recorded everything.
                let records = bus.0.keys(keys::DEDUP);
                let is_idle =
                    |note: &str| note.split_once('-').is_none_or(|(hash, _)| records.contains(&format!("{hash}.json")));
                assert!(records.iter().all(|key| is_idle(key)), "{records:?}");
                if ended.is_some() {
                    break;
                }
                killed += 1;
            }
            assert!(killed >= 6, "{killed}");
        }
    }
}

#[test]
fn lines_that_were_emitted_are_told_however_they_come() {
    let bus = EmitBus::new();
    let drafts = lines(30, None);
    assert_eq!(emit_all(&mut bus.emitter([]), &drafts[..20], 20).unwrap(), [AckKind::New; 20]);
    for call in [1, 7, 30] {
        let kinds = emit_all(&mut bus.emitter([]), &drafts, call).unwrap();
        assert_eq!(kinds[..20], [AckKind::Duplicate; 20]);
    }
    assert_eq!(data(&bus).len(), 30);
    // One of another content, one twice, and one alone.
    let mut other = drafts[..5].to_vec();
    other[2] = Draft::named(event("line-2", "\"other\"").build().unwrap());
    other.push(drafts[1].clone());
    let kinds = emit_all(&mut bus.emitter([]), &other, 3).unwrap();
    assert_eq!((kinds[2], kinds[5]), (AckKind::IdTaken, AckKind::Duplicate));
    assert_eq!(done(bus.emitter([]).emit(&drafts[..1])).unwrap()[0].kind, AckKind::Duplicate);
    assert_eq!(data(&bus).len(), 30);
}

/// Both have found the first line free.
#[test]
fn of_two_emitters_of_the_same_lines_one_wins() {
    for cut in [3, 6, 9] {
        let bus = EmitBus::new();
        let drafts = lines(9, None);
        let (mut other, theirs) = (bus.emitter([]), drafts.clone());
        let told: Rc<RefCell<Vec<Ack>>> = Rc::default();
        let tells = Rc::clone(&told);
        let between: Option<Hook> = Some(Box::new(move || {
            Box::pin(async move {
                *tells.borrow_mut() = other.emit_chunks_from(&theirs[..cut], 2).await.unwrap();
            })
        }));
        // At its check, this one has put all of them.
        let acks = done(bus.emitter([between]).emit_chunks_from(&drafts, 2)).unwrap();
        assert_eq!((acks.len(), data(&bus).len(), told.borrow().len()), (9, 9, cut));
        // What either was told stays.
        for ack in acks.iter().chain(&*told.borrow()) {
            let is_there = |key: &String| look::names_at(key, &bus.0.read(key).unwrap()).contains(&ack.name);
            assert!(bus.0.keys(EVENTS).iter().any(is_there), "{}", ack.name);
        }
    }
}

/// A record that names a line in the midst of a segment leads on from there.
#[test]
fn a_record_of_a_line_within_a_segment_is_followed_from_there() {
    let bus = EmitBus::new();
    let drafts = lines(5, None);
    let acks = done(bus.emitter([]).emit_chunks_from(&drafts, 2)).unwrap();
    let segment = bus.0.keys(EVENTS)[0].rsplit_once('/').unwrap().1.to_owned();
    let record = format!("{{\"event\":\"{}\",\"segment\":\"{segment}\"}}", acks[2].name);
    let key = keys::dedup(&dedup_hash("//db1", "line-2"));
    assert_eq!(done(bus.store().put_new(&key, record.as_bytes())), Ok(Put::Created));
    let kinds = emit_all(&mut bus.emitter([]), &drafts[2..], 3).unwrap();
    assert_eq!((kinds, data(&bus).len()), (vec![AckKind::Duplicate; 3], 5));
}
