//! A small object server of the tests' own, for what no real one can be made to do: S3, Google's XML API, and the
//! services that hand out credentials, on one port of the loopback address. It checks no signatures, and it misbehaves
//! as it is told.
//!
//! Whatever it is, it ends when it is dropped, with all its threads and connections.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::collections::{BTreeMap, HashMap};
use std::io::BufReader;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

#[path = "mini/http.rs"]
mod http;
#[path = "mini/identity.rs"]
mod identity;
#[path = "mini/mode.rs"]
mod mode;
#[path = "mini/s3.rs"]
mod s3;
#[path = "mini/socket.rs"]
mod socket;

use http::{Answer, Head, Request, now};
use identity::Service;
pub use mode::Mode;
use s3::Buckets;
pub use s3::{Etags, Facts, Versioning};
use socket::{bound, has_left};

/// What a server is like from its start.
#[derive(Debug, Clone)]
pub struct Options {
    /// 0: one that is free.
    pub port: u16,
    pub etags: Etags,
    /// No page of a listing has more keys, whatever is asked for.
    pub page: usize,
    /// Which requests meet a [`Mode`] that refuses a share of them.
    pub seed: u64,
    /// The machine's role, which the metadata service knows; none: the machine has none.
    pub role: Option<String>,
    /// What a request for a container's credentials must have in its `Authorization` header.
    pub authorization: Option<String>,
    /// The credentials that are handed out are good for so long.
    pub credentials_secs: i64,
    /// The server's clock is so far ahead of the machine's.
    pub ahead_secs: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            etags: Etags::Number,
            page: 1_000,
            seed: 0,
            role: Some("role1".to_owned()),
            authorization: None,
            credentials_secs: 3_600,
            ahead_secs: 0,
        }
    }
}

/// A request that has come, in the order of their coming.
#[derive(Debug, Clone)]
pub struct Seen {
    head: Head,
    /// None: it was not answered, or not yet.
    pub status: Option<u16>,
}

impl Deref for Seen {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

/// A server that runs until this is dropped.
pub struct Mini {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Mini {
    pub fn start(options: Options) -> Self {
        let listener = bound(options.port);
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::new(options));
        let accepting = Arc::clone(&shared);
        let accepting = Some(std::thread::spawn(move || accepting.accept(listener, address)));
        Self { address, shared, accepting }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it has these habits and no others; it has them when this returns.
    pub fn behave(&self, modes: &[Mode]) {
        let refuses = modes.contains(&Mode::Refuse);
        let mut state = self.shared.state();
        state.modes = modes.to_vec();
        self.shared.changed.notify_all();
        if refuses {
            state.cut_off();
            drop(state);
            self.wake();
            state = self.shared.state();
        }
        drop(self.shared.changed.wait_while(state, |state| state.listens == refuses));
    }

    /// What the sub-resources of every bucket tell from now on.
    pub fn tell(&self, facts: Facts) {
        self.shared.state().buckets.facts = facts;
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.state().seen.values().cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.state().seen.clear();
    }

    /// `bucket/key` of all that is stored, in the order of their bytes.
    pub fn keys(&self) -> Vec<String> {
        self.shared.state().buckets.keys()
    }

    /// What is stored under a key.
    pub fn stored(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.shared.state().buckets.body(bucket, key)
    }

    /// Wakes the one who accepts, so that it sees what is new.
    fn wake(&self) {
        let _ = TcpStream::connect(self.address);
    }
}

impl Drop for Mini {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.over = true;
        state.cut_off();
        drop(state);
        self.shared.changed.notify_all();
        self.wake();
        let _ = self.accepting.take().map(JoinHandle::join);
    }
}

struct State {
    modes: Vec<Mode>,
    over: bool,
    /// Whether a client can connect.
    listens: bool,
    /// What is counted: connections, requests, chances.
    count: u64,
    connections: HashMap<u64, TcpStream>,
    seen: BTreeMap<u64, Seen>,
    buckets: Buckets,
}

impl State {
    fn is(&self, mode: &Mode) -> bool {
        self.modes.contains(mode)
    }

    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn cut_off(&mut self) {
        for (_, connection) in self.connections.drain() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

struct Shared {
    options: Options,
    state: Mutex<State>,
    /// The habits are others, or the server has begun or ceased to listen, or is over.
    changed: Condvar,
}

impl Shared {
    fn new(options: Options) -> Self {
        let state = State {
            modes: Vec::new(),
            over: false,
            listens: true,
            count: 0,
            connections: HashMap::new(),
            seen: BTreeMap::new(),
            buckets: Buckets::new(options.etags, options.page, now()),
        };
        Self { options, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Serves each connection on a thread of its own, all of which end before this does.
    fn accept(&self, listener: TcpListener, address: SocketAddr) {
        let mut listener = Some(listener);
        std::thread::scope(|scope| {
            while !self.state().over {
                if let Some(listening) = self.listening(&mut listener, address)
                    && let Ok((client, _)) = listening.accept()
                {
                    scope.spawn(|| self.serve(client));
                }
            }
        });
    }

    /// None: what the listener has to do may have changed since.
    fn listening<'a>(&self, listener: &'a mut Option<TcpListener>, address: SocketAddr) -> Option<&'a TcpListener> {
        let mut state = self.state();
        if state.is(&Mode::Refuse) {
            *listener = None;
            state.listens = false;
            self.changed.notify_all();
            drop(self.changed.wait_while(state, |state| !state.over && state.is(&Mode::Refuse)));
            return None;
        }
        if listener.is_none() {
            *listener = TcpListener::bind(address).ok();
        }
        state.listens = listener.is_some();
        self.changed.notify_all();
        if listener.is_none() {
            // Somebody has the port for a moment.
            drop(self.changed.wait_timeout(state, Duration::from_millis(10)));
        }
        listener.as_ref()
    }

    fn serve(&self, client: TcpStream) {
        let Some(number) = self.registered(&client) else { return };
        let mut client = BufReader::new(client);
        while let Some(request) = Request::read(&mut client) {
            if self.answer(&request, client.get_ref()).is_none() {
                break;
            }
        }
        self.state().connections.remove(&number);
    }

    /// None: it came too late.
    fn registered(&self, client: &TcpStream) -> Option<u64> {
        client.set_nodelay(true).ok()?;
        let mut state = self.state();
        if state.over || state.is(&Mode::Refuse) {
            return None;
        }
        let number = state.next();
        state.connections.insert(number, client.try_clone().ok()?);
        Some(number)
    }

    /// None: the connection is to be closed.
    fn answer(&self, request: &Request, client: &TcpStream) -> Option<()> {
        let service = Service::of(request);
        let mut state = self.state();
        let number = state.next();
        state.seen.insert(number, Seen { head: request.head().clone(), status: None });
        let mut state = self.held(state, service, client)?;
        let answer = match service {
            Some(service) if state.is(&Mode::DenyIdentity) => service.denial(),
            Some(service) => service.answer(request, &self.options),
            None if state.is(&Mode::BreakOff) => return None,
            None => self.of_bucket(&mut state, request),
        };
        if let Some(seen) = state.seen.get_mut(&number) {
            seen.status = Some(answer.status);
        }
        drop(state);
        answer.write(client, &request.method, now() + self.options.ahead_secs).ok()
    }

    /// Waits while the server hangs. None: it is over, or the client did not wait.
    fn held<'a>(
        &self,
        state: MutexGuard<'a, State>,
        service: Option<Service>,
        client: &TcpStream,
    ) -> Option<MutexGuard<'a, State>> {
        let mode = if service.is_some() { Mode::HangIdentity } else { Mode::Hang };
        if !state.is(&mode) {
            return Some(state);
        }
        let state = self.changed.wait_while(state, |state| !state.over && state.is(&mode)).unwrap();
        (!state.over && !has_left(client)).then_some(state)
    }

    fn of_bucket(&self, state: &mut State, request: &Request) -> Answer {
        let State { modes, count, buckets, .. } = state;
        for mode in modes.iter() {
            *count += 1;
            if let Some(refusal) = mode.refusal(request, mixed(self.options.seed, *count) % 100) {
                return refusal;
            }
        }
        buckets.answer(request, modes, now() + self.options.ahead_secs)
    }
}

/// One of a seeded stream of numbers (splitmix64, Steele, Lea and Flood 2014).
fn mixed(seed: u64, at: u64) -> u64 {
    let mut z = seed.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
