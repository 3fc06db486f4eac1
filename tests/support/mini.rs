//! A small object server of the tests' own, for what no real server can be made to do: S3, Google's
//! XML API, and the services that give out credentials, on one port of the loopback address. It
//! checks no signatures, and it misbehaves on request.
//!
//! It ends when it is dropped, with all its threads and connections, whatever it does at that
//! moment.

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

use http::now;
pub use http::{Head, HttpRequest, HttpResponse};
use identity::IdentityService;
pub use mode::ServerMode;
use s3::Buckets;
pub use s3::{BucketFacts, Etags, VersioningStatus};
use socket::{bound, has_left};

/// The options of a server.
#[derive(Debug, Clone)]
pub struct MiniOptions {
    /// The port; 0 for a free one.
    pub port: u16,
    pub etags: Etags,
    /// The most keys in a page of a listing, whatever limit a request has.
    pub page: usize,
    /// Selects the requests for a [`ServerMode`] that refuses a share of them.
    pub seed: u64,
    /// The machine's role, which the metadata service gives out; none if it has no role.
    pub role: Option<String>,
    /// The `Authorization` header that a request for a container's credentials must have.
    pub authorization: Option<String>,
    /// How long credentials are valid, in seconds.
    pub credentials_secs: i64,
    /// How far the server's clock is ahead of the machine's, in seconds.
    pub ahead_secs: i64,
}

impl Default for MiniOptions {
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

/// A request, as recorded in the order of arrival.
#[derive(Debug, Clone)]
pub struct SeenRequest {
    head: Head,
    /// The status of the answer; none if there was no answer yet.
    pub status: Option<u16>,
}

impl Deref for SeenRequest {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

/// A server that runs until it is dropped.
pub struct Mini {
    address: SocketAddr,
    shared: Arc<MiniShared>,
    accepting: Option<JoinHandle<()>>,
}

impl Mini {
    pub fn start(options: MiniOptions) -> Self {
        let listener = bound(options.port);
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(MiniShared::new(options));
        let accepting = Arc::clone(&shared);
        let accepting = Some(std::thread::spawn(move || accepting.accept(listener, address)));
        Self { address, shared, accepting }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Replaces all modes; the new ones are in effect when this returns.
    pub fn behave(&self, modes: &[ServerMode]) {
        let refuses = modes.contains(&ServerMode::Refuse);
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

    /// Sets what the sub-resources of every bucket say.
    pub fn set_facts(&self, facts: BucketFacts) {
        self.shared.state().buckets.facts = facts;
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.shared.state().seen.values().cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.state().seen.clear();
    }

    /// `bucket/key` of all objects, in the order of their bytes.
    pub fn keys(&self) -> Vec<String> {
        self.shared.state().buckets.keys()
    }

    /// The content of a key.
    pub fn stored(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.shared.state().buckets.body(bucket, key)
    }

    /// Wakes the accepting thread, so that it sees a change.
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

struct MiniState {
    modes: Vec<ServerMode>,
    over: bool,
    /// Whether a client can connect.
    listens: bool,
    /// Numbers connections, requests and chances.
    count: u64,
    connections: HashMap<u64, TcpStream>,
    seen: BTreeMap<u64, SeenRequest>,
    buckets: Buckets,
}

impl MiniState {
    fn is(&self, mode: &ServerMode) -> bool {
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

struct MiniShared {
    options: MiniOptions,
    state: Mutex<MiniState>,
    /// Notified when the modes or the listener change, or when the server ends.
    changed: Condvar,
}

impl MiniShared {
    fn new(options: MiniOptions) -> Self {
        let state = MiniState {
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

    fn state(&self) -> MutexGuard<'_, MiniState> {
        self.state.lock().unwrap()
    }

    /// Serves each connection on its own thread; all of these end before this function returns.
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

    /// None if the state may have changed since.
    fn listening<'a>(&self, listener: &'a mut Option<TcpListener>, address: SocketAddr) -> Option<&'a TcpListener> {
        let mut state = self.state();
        if state.is(&ServerMode::Refuse) {
            *listener = None;
            state.listens = false;
            self.changed.notify_all();
            drop(self.changed.wait_while(state, |state| !state.over && state.is(&ServerMode::Refuse)));
            return None;
        }
        if listener.is_none() {
            *listener = TcpListener::bind(address).ok();
        }
        state.listens = listener.is_some();
        self.changed.notify_all();
        if listener.is_none() {
            // Another process has the port for a moment.
            drop(self.changed.wait_timeout(state, Duration::from_millis(10)));
        }
        listener.as_ref()
    }

    fn serve(&self, client: TcpStream) {
        let Some(number) = self.registered(&client) else { return };
        let mut client = BufReader::new(client);
        while let Some(request) = HttpRequest::read(&mut client) {
            if self.answer(&request, client.get_ref()).is_none() {
                break;
            }
        }
        self.state().connections.remove(&number);
    }

    /// None if the connection came too late.
    fn registered(&self, client: &TcpStream) -> Option<u64> {
        client.set_nodelay(true).ok()?;
        let mut state = self.state();
        if state.over || state.is(&ServerMode::Refuse) {
            return None;
        }
        let number = state.next();
        state.connections.insert(number, client.try_clone().ok()?);
        Some(number)
    }

    /// None if the connection is to be closed.
    fn answer(&self, request: &HttpRequest, client: &TcpStream) -> Option<()> {
        let service = IdentityService::of(request);
        let mut state = self.state();
        let number = state.next();
        state.seen.insert(number, SeenRequest { head: request.head().clone(), status: None });
        let mut state = self.held(state, service, client)?;
        let answer = match service {
            Some(service) if state.is(&ServerMode::DenyIdentity) => service.denial(),
            Some(service) => service.answer(request, &self.options),
            None if state.is(&ServerMode::BreakOff) => return None,
            None => self.of_bucket(&mut state, request),
        };
        if let Some(seen) = state.seen.get_mut(&number) {
            seen.status = Some(answer.status);
        }
        drop(state);
        answer.write(client, &request.method, now() + self.options.ahead_secs).ok()
    }

    /// Waits while the server hangs; none if the server ended or the client left meanwhile.
    fn held<'a>(
        &self,
        state: MutexGuard<'a, MiniState>,
        service: Option<IdentityService>,
        client: &TcpStream,
    ) -> Option<MutexGuard<'a, MiniState>> {
        let mode = if service.is_some() { ServerMode::HangIdentity } else { ServerMode::Hang };
        if !state.is(&mode) {
            return Some(state);
        }
        let state = self.changed.wait_while(state, |state| !state.over && state.is(&mode)).unwrap();
        (!state.over && !has_left(client)).then_some(state)
    }

    fn of_bucket(&self, state: &mut MiniState, request: &HttpRequest) -> HttpResponse {
        let MiniState { modes, count, buckets, .. } = state;
        for mode in modes.iter() {
            *count += 1;
            if let Some(refusal) = mode.refusal(request, mixed(self.options.seed, *count) % 100) {
                return refusal;
            }
        }
        buckets.answer(request, modes, now() + self.options.ahead_secs)
    }
}

/// A number of a seeded sequence (splitmix64, Steele, Lea and Flood 2014).
fn mixed(seed: u64, at: u64) -> u64 {
    let mut z = seed.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
