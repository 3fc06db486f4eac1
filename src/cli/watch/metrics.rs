//! `watch --metrics`: serves the status as Prometheus metrics, this process's counters, and
//! `/healthz`.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{AbortHandle, Abortable};
use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::units::{Unit, Units};
use crate::cli::failure::Failure;
use crate::cli::help_line;
use crate::cli::prometheus::{MetricKind, Metrics};
use crate::cli::session::{Opened, Session};
use crate::cli::status::{self, Emitters};
use crate::config::Watcher;
use crate::group::GroupName;
use crate::group::worker_event::{Reporter, WorkerEvent};
use crate::store::system_words;

/// Prometheus text format, version 0.0.4.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Request time-out.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Most connections at a time; a new one then replaces the oldest.
const CONNECTIONS: usize = 64;

/// Most bytes in the head of a request.
const HEAD_BYTES: usize = 16 << 10;

/// Counters of this process for one group.
#[derive(Debug, Default)]
struct Counters {
    done: u64,
    failed: u64,
    dead: u64,
    skipped: u64,
    superseded: u64,
}

/// A watcher's obstacle, by which its group's work stops here.
struct Trouble {
    group: GroupName,
    why: String,
}

/// Counts what workers report, and passes it on.
pub(super) struct CountingReporter {
    next: Rc<dyn Reporter>,
    groups: RefCell<BTreeMap<GroupName, Counters>>,
    /// By the names of watchers.
    troubles: RefCell<BTreeMap<String, Trouble>>,
}

/// Notes a watcher's obstacles, and passes on what its worker reports.
struct WatcherReporter {
    watcher: String,
    tally: Rc<CountingReporter>,
    next: Rc<dyn Reporter>,
}

impl Reporter for WatcherReporter {
    fn report(&self, group: &GroupName, event: &WorkerEvent) {
        let why = match event {
            WorkerEvent::Stalled { obstacle } => Some(help_line::obstacle_text(obstacle)),
            WorkerEvent::Unreachable { error } => Some(error.to_string()),
            WorkerEvent::Ended => Some("its worker has ended".to_owned()),
            _ => None,
        };
        let mut troubles = self.tally.troubles.borrow_mut();
        if let Some(why) = why {
            troubles.insert(self.watcher.clone(), Trouble { group: group.clone(), why });
        } else if let WorkerEvent::GoesOn = event {
            troubles.remove(&self.watcher);
        }
        drop(troubles);
        self.next.report(group, event);
    }
}

impl CountingReporter {
    /// Counts nothing until it is told of groups.
    pub(super) fn new(next: Rc<dyn Reporter>) -> Self {
        Self { next, groups: RefCell::default(), troubles: RefCell::default() }
    }

    /// Counts for a watcher's group from now on. What its worker reports goes through the reporter that is returned, and
    /// on to `next`; the watcher's last worker may have ended by an obstacle.
    pub(super) fn for_watcher(tally: &Rc<Self>, watcher: &Watcher, next: Rc<dyn Reporter>) -> Rc<dyn Reporter> {
        tally.groups.borrow_mut().entry(watcher.group.clone()).or_default();
        tally.troubles.borrow_mut().remove(&watcher.name);
        Rc::new(WatcherReporter { watcher: watcher.name.clone(), tally: Rc::clone(tally), next })
    }

    /// The counters as Prometheus metrics.
    fn text(&self) -> String {
        let mut metrics = Metrics::default();
        let mut each = |name, help, value: fn(&Counters) -> u64| {
            let mut samples = metrics.metric(name, MetricKind::Counter, help);
            for (group, counters) in self.groups.borrow().iter() {
                samples.add(&[("group", group)], value(counters));
            }
        };
        each("evbus_worker_done_total", "Events that this process has handled.", |counters| counters.done);
        each("evbus_worker_failed_attempts_total", "Attempts that failed.", |counters| counters.failed);
        each("evbus_worker_dead_total", "Events that this process has given up.", |counters| counters.dead);
        each("evbus_worker_passed_over_total", "Events for which `where` did not hold.", |counters| counters.skipped);
        each(
            "evbus_worker_superseded_total",
            "Events that a later one of their key has superseded (`latest`).",
            |counters| counters.superseded,
        );
        metrics.into_text()
    }

    /// The obstacles of wanted watchers, one line for each that has one.
    fn troubles(&self, wanted: &[Watcher]) -> Vec<String> {
        let troubles = self.troubles.borrow();
        let troubles = wanted.iter().filter_map(|watcher| troubles.get(&watcher.name));
        let lines = troubles.map(|of| format!("{}: {}", of.group, of.why.replace(char::is_control, " ")));
        lines.collect()
    }
}

impl Reporter for CountingReporter {
    fn report(&self, group: &GroupName, event: &WorkerEvent) {
        if let Some(counters) = self.groups.borrow_mut().get_mut(group) {
            match &event {
                WorkerEvent::Done { .. } => counters.done += 1,
                WorkerEvent::Retrying { .. } => counters.failed += 1,
                WorkerEvent::Dead { .. } => (counters.failed, counters.dead) = (counters.failed + 1, counters.dead + 1),
                WorkerEvent::Skipped { .. } => counters.skipped += 1,
                WorkerEvent::Superseded { .. } => counters.superseded += 1,
                _ => {}
            }
        }
        self.next.report(group, event);
    }
}

/// Listens, on the loopback interface if only a port is given.
pub(super) async fn listen(address: &str) -> Result<TcpListener, Failure> {
    let port = address.strip_prefix(':').unwrap_or(address);
    let named: Vec<SocketAddr> = match port.parse::<u16>() {
        Ok(port) => vec![SocketAddr::from(([127, 0, 0, 1], port))],
        Err(_) => address
            .to_socket_addrs()
            .map_err(|_| {
                Failure::usage(format!("--metrics '{}' is no address", address.escape_debug()))
                    .help("--metrics 9464 (on the loopback interface), or --metrics 0.0.0.0:9464")
            })?
            .collect(),
    };
    let cannot = |error: std::io::Error| {
        Failure::failed(format!("cannot listen on {}: {}", address.escape_debug(), system_words(&error)))
    };
    TcpListener::bind(&*named).await.map_err(cannot)
}

/// Answers requests for as long as it is polled.
pub(super) async fn serve(
    listener: TcpListener,
    (opened, session): (&Opened, &Session),
    tally: &CountingReporter,
    units: &Units<impl Sized>,
) -> Infallible {
    let page = MetricsPage { opened, session, wanted: &|| units.wanted(), tally, kept: RefCell::default() };
    let mut asking = FuturesUnordered::new();
    let mut open: VecDeque<(u64, AbortHandle)> = VecDeque::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // No descriptor is available until a connection ends.
                    page.pause().await;
                    continue;
                };
                if open.len() == CONNECTIONS && let Some((_, longest)) = open.pop_front() {
                    longest.abort();
                }
                let (handle, registration) = AbortHandle::new_pair();
                number += 1;
                open.push_back((number, handle));
                let answering = Abortable::new(page.answer_all(stream), registration);
                let this = number;
                asking.push(async move {
                    let _ = answering.await;
                    this
                });
            }
            Some(ended) = asking.next() => open.retain(|(number, _)| *number != ended),
        }
    }
}

/// The content that is served.
struct MetricsPage<'a> {
    opened: &'a Opened,
    session: &'a Session,
    wanted: &'a dyn Fn() -> Vec<Unit>,
    tally: &'a CountingReporter,
    /// The last status and its time; it is kept because it reads much of the bus.
    kept: RefCell<Option<(Duration, String)>>,
}

impl MetricsPage<'_> {
    async fn pause(&self) {
        let clock = &self.opened.bus_handle().clock;
        clock.sleep_until(clock.elapsed() + Duration::from_millis(100)).await;
    }

    async fn answer_all(&self, stream: TcpStream) {
        let clock = &self.opened.bus_handle().clock;
        let service = service_fn(|request| async move { Ok::<_, Infallible>(self.answer(&request).await) });
        let mut http = http1::Builder::new();
        http.keep_alive(false).max_buf_size(HEAD_BYTES);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            // A client that does not speak HTTP is not worth a message.
            _ = connection => {}
            () = clock.sleep_until(clock.elapsed() + REQUEST_TIMEOUT) => {}
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<String> {
        let (status, kind, text) = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/metrics") => match self.status().await {
                Ok(text) => (StatusCode::OK, METRICS, text + &self.tally.text()),
                Err(failure) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{}\n", failure.message())),
            },
            (&Method::GET | &Method::HEAD, "/healthz") => match &*self.troubles() {
                [] => (StatusCode::OK, PLAIN, "ok\n".to_owned()),
                troubles => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, troubles.join("\n") + "\n"),
            },
            (&Method::GET | &Method::HEAD, _) => {
                (StatusCode::NOT_FOUND, PLAIN, "there are /metrics and /healthz\n".to_owned())
            }
            _ => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".to_owned()),
        };
        let mut response = Response::new(text);
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }

    /// What keeps watchers that the config wants from working.
    fn troubles(&self) -> Vec<String> {
        let watchers: Vec<Watcher> = (self.wanted)().into_iter().filter_map(Unit::into_watcher).collect();
        self.tally.troubles(&watchers)
    }

    fn emitters(&self) -> Emitters {
        let mut emitters = Emitters::default();
        for unit in (self.wanted)() {
            match unit {
                Unit::Watcher(_) => {}
                Unit::Relay(plan) => emitters.relays.push(plan),
                Unit::Schedule(schedule) => emitters.schedules.push(schedule),
                Unit::Source(source) => emitters.sources.push(source),
            }
        }
        emitters
    }

    /// The status, read again if the last one is too old; on a bucket each read costs listings.
    async fn status(&self) -> Result<String, Failure> {
        let bus = self.opened.bus_handle();
        let most = if bus.store.requests().is_some() { Duration::from_mins(1) } else { Duration::from_secs(5) };
        let now = bus.clock.elapsed();
        let kept = self.kept.borrow().clone().filter(|(made, _)| now.saturating_sub(*made) < most);
        if let Some((_, text)) = kept {
            return Ok(text);
        }
        let text = status::metrics(self.opened, self.session, &self.emitters()).await?;
        *self.kept.borrow_mut() = Some((now, text.clone()));
        Ok(text)
    }
}
