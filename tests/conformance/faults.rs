//! A real server behind a proxy that refuses, breaks off, and loses answers to writes that were applied: what was
//! acknowledged is there, once, and every event of it is run.
//!
//! `EVBUS_FAULT_SEEDS=1000 cargo test --release --test conformance faults` tries more schedules than the test run does.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evbus::bus::Place;
use evbus::bus::emit::{Draft, Emitter};
use evbus::clock::{Clock, Fut, SystemClock};
use evbus::event::{Event, Identity, event_id};
use evbus::group::definition::{self, Definition};
use evbus::group::facts::Silent;
use evbus::group::lease::{Lease, Process};
use evbus::group::marker::Owner;
use evbus::group::retry::Retry;
use evbus::group::worker::{Mode, Settings, Stop, Worker, Workplace};
use evbus::group::{Bounds, GroupName, Position};
use evbus::handler::{Handler, Job, Outcome, Report};
use evbus::store::object::BucketStore;

use crate::{block_on, s3};

/// A seeded stream of numbers (splitmix64, Steele, Lea and Flood 2014).
fn next(state: &AtomicU64) -> u64 {
    let mut z = state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What becomes of one request.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Not even forwarded.
    Refused(&'static str),
    BrokenOff,
    /// Applied, and the answer is lost, or is another one.
    AnswerLost,
    AnswerIs(&'static str),
}

fn fault(state: &AtomicU64, write: bool) -> Fault {
    match next(state) % 100 {
        0..3 => Fault::Refused("503 Slow Down"),
        3..5 if write => Fault::Refused("409 Conflict"),
        5..7 => Fault::BrokenOff,
        7..11 => Fault::AnswerLost,
        11..15 => Fault::AnswerIs("503 Service Unavailable"),
        15..17 => Fault::AnswerIs("500 Internal Server Error"),
        _ => Fault::None,
    }
}

/// One request with its body, as it came.
fn request(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    client.read_exact(&mut body).ok()?;
    bytes.extend(body);
    Some(bytes)
}

/// Forwards one request on a connection of its own, and reads the whole answer.
fn forwarded(server: &str, request: &[u8]) -> Option<Vec<u8>> {
    let mut upstream = TcpStream::connect(server).ok()?;
    let end = request.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, rest) = request.split_at(end);
    upstream.write_all(&[line, b"\r\nConnection: close", rest].concat()).ok()?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).ok()?;
    Some(answer)
}

/// Serves one request of one connection; the client opens another for its next.
fn serve(mut client: TcpStream, server: &str, state: &AtomicU64) -> Option<()> {
    let request = request(&mut client)?;
    let status = |text: &str| format!("HTTP/1.1 {text}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes();
    let answer = match fault(state, request.starts_with(b"PUT ")) {
        Fault::Refused(text) => status(text),
        Fault::BrokenOff => return client.shutdown(Shutdown::Both).ok(),
        Fault::AnswerLost => {
            forwarded(server, &request)?;
            return client.shutdown(Shutdown::Both).ok();
        }
        Fault::AnswerIs(text) => {
            forwarded(server, &request)?;
            status(text)
        }
        Fault::None => forwarded(server, &request)?,
    };
    client.write_all(&answer).ok()
}

/// The endpoint of a proxy before a server; it lives as long as the test program.
fn proxy(seed: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = s3::ministack().endpoint.trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        let state = Arc::new(AtomicU64::new(seed));
        for client in listener.incoming().flatten() {
            let (server, state) = (server.clone(), Arc::clone(&state));
            std::thread::spawn(move || serve(client, &server, &state));
        }
    });
    endpoint
}

/// Notes what it is run for.
#[derive(Default)]
struct Notes(RefCell<BTreeMap<String, u32>>);

impl Handler for Notes {
    fn run(&self, job: Job) -> Fut<'_, Report> {
        let id = job.vars.iter().find(|(name, _)| *name == "EVBUS_ID").map(|(_, id)| id.clone()).unwrap();
        *self.0.borrow_mut().entry(id).or_default() += 1;
        let report = Report { outcome: Outcome::Exit(0), stderr_tail: String::new(), took: Duration::ZERO };
        Box::pin(std::future::ready(report))
    }
    fn stop(&self) {}
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

fn draft(seed: u64, n: usize) -> Draft {
    if n.is_multiple_of(3) {
        let event = Event::new(format!("named-{seed}-{n}"), "/faults", "t").build().unwrap();
        return Draft::named(event);
    }
    let identity = Identity::random(SystemClock.random(), SystemClock.random());
    Draft::fresh(Event::new(event_id(SystemClock.now(), &identity), "/faults", "t").build().unwrap(), identity)
}

/// Emits in batches of one to five; the ids that were acknowledged.
async fn emitted(place: &Place, seed: u64, dice: &AtomicU64) -> Vec<String> {
    let mut emitter = Emitter::new(place.clone(), Duration::from_secs(60));
    let mut acked = Vec::new();
    let mut n = 0;
    while n < 24 {
        let batch: Vec<Draft> = (0..=next(dice) % 5).map(|more| draft(seed, n + more as usize)).collect();
        n += batch.len();
        // Twice with one id is once.
        for _ in 0..2 {
            let receipts = emitter.emit(&batch).await.expect("the server answers most requests");
            assert_eq!(receipts.len(), batch.len());
            if !n.is_multiple_of(2) {
                break;
            }
        }
        acked.extend(batch.iter().map(|draft| draft.event().id().to_owned()));
    }
    acked
}

async fn drained(place: &Place, group: &GroupName, notes: &Rc<Notes>) {
    let registered = loop {
        if let Ok(Some(found)) = definition::find(&*place.store, group).await {
            break found;
        }
    };
    let me = Owner {
        worker: format!("{:016x}", place.clock.random()),
        host: "here".to_owned(),
        pid: 1,
        boot: "this".to_owned(),
        since: place.clock.now(),
        command: "notes".to_owned(),
    };
    let (_sender, stop) = tokio::sync::watch::channel(Stop::No);
    let workplace = Workplace {
        place: place.clone(),
        group: group.clone(),
        registered,
        handler: Rc::clone(notes) as Rc<dyn Handler>,
        reporter: Rc::new(Silent),
        me,
        alive: Rc::new(|_| Process::MayLive),
        stop,
        polls: None,
    };
    let settings = Settings {
        mode: Mode::Drain { wait: true, most: None, span: None },
        concurrency: 4,
        ordered: false,
        retry: Retry::default(),
        stop_timeout: Duration::from_secs(5),
        lease: Lease::default(),
        bounds: Bounds::default(),
        poll: None,
        hints: false,
        url: "s3://evbus".to_owned(),
        max_event_bytes: 1 << 20,
    };
    let summary = Worker::new(workplace, settings).unwrap().run().await.unwrap();
    assert_eq!((summary.left, summary.dead), (0, 0), "{summary:?}");
}

fn schedule(seed: u64) {
    let dice = AtomicU64::new(!seed);
    let bucket = s3::Server::bucket_at(&proxy(seed), &format!("faults/{seed}"));
    let place = Place { store: Rc::new(BucketStore::connect(&bucket).unwrap()), clock: Rc::new(SystemClock) };
    let (group, notes) = (GroupName::parse("g").unwrap(), Rc::new(Notes::default()));
    block_on(async {
        let made = Definition {
            created: SystemClock.now(),
            types: Vec::new(),
            not: Vec::new(),
            shards: 2,
            start: Position::START,
            paused: None,
        };
        while definition::create(&*place.store, &group, made.clone()).await.is_err() {}
        let acked = emitted(&place, seed, &dice).await;
        drained(&place, &group, &notes).await;
        let runs = notes.0.borrow();
        for id in &acked {
            assert!(runs.contains_key(id), "seed {seed}: {id} was acknowledged and not run");
        }
        let twice: Vec<&String> = runs.iter().filter(|(_, runs)| **runs > 1).map(|(id, _)| id).collect();
        assert_eq!(twice, Vec::<&String>::new(), "seed {seed}: nobody was killed, so nothing runs twice");
    });
}

#[test]
fn what_is_acknowledged_through_a_faulty_network_is_run() {
    let seeds = std::env::var("EVBUS_FAULT_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(20);
    (0..seeds).for_each(schedule);
}
