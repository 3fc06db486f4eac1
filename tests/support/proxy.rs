//! A proxy between a client and a real server. It keeps count and, if faulty, refuses, breaks off,
//! answers late, loses the answers to writes that were applied, and splits listings into small
//! pages. A seed decides what happens to which request.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A seeded stream of numbers (splitmix64, Steele, Lea and Flood 2014).
pub fn next(state: &AtomicU64) -> u64 {
    let mut z = state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A request.
#[derive(Debug, Clone)]
pub struct ProxiedRequest {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub body: String,
}

/// The options of a proxy.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProxyOptions {
    /// Whether it is faulty; otherwise it only keeps count.
    pub faulty: bool,
    /// Decides which fault comes when.
    pub seed: u64,
    /// How long some requests, or their answers, are held back.
    pub late: Option<Duration>,
    /// Whether listings come in pages of a key or two, or of none. Only for servers that check no
    /// signatures.
    pub splits_listings: bool,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ProxyFault {
    None,
    /// Not forwarded.
    Refused(&'static str),
    BrokenOff,
    /// Applied, and the answer is lost or replaced.
    AnswerLost,
    AnswerIs(&'static str),
    /// The answer breaks off in its middle.
    CutOff,
    /// Held back before it is applied, or its answer after that.
    LateBefore,
    LateAfter,
    /// A page with this many keys.
    Short(u64),
    Empty,
}

struct Proxy {
    server: String,
    options: ProxyOptions,
    state: AtomicU64,
    over: AtomicBool,
    seen: Mutex<Vec<ProxiedRequest>>,
    /// The targets of listings that were answered with an empty page.
    emptied: Mutex<HashMap<u64, String>>,
}

/// A proxy that runs until it is dropped.
pub struct RunningProxy {
    pub endpoint: String,
    address: std::net::SocketAddr,
    proxy: Arc<Proxy>,
}

impl RunningProxy {
    /// Each request so far.
    pub fn seen(&self) -> Vec<ProxiedRequest> {
        self.proxy.seen.lock().unwrap().clone()
    }
}

impl Drop for RunningProxy {
    fn drop(&mut self) {
        self.proxy.over.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, so that it sees the end.
        let _ = TcpStream::connect(self.address);
    }
}

/// Starts a proxy in front of the server at an endpoint.
pub fn start(endpoint: &str, options: ProxyOptions) -> RunningProxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = Arc::new(Proxy {
        server: endpoint.trim_start_matches("http://").to_owned(),
        options,
        state: AtomicU64::new(options.seed),
        over: AtomicBool::new(false),
        seen: Mutex::default(),
        emptied: Mutex::default(),
    });
    let serving = Arc::clone(&proxy);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if serving.over.load(Ordering::Relaxed) {
                return;
            }
            let proxy = Arc::clone(&serving);
            std::thread::spawn(move || proxy.serve(client));
        }
    });
    RunningProxy { endpoint: format!("http://{address}"), address, proxy }
}

impl Proxy {
    fn fault(&self, write: bool, listing: bool) -> ProxyFault {
        let state = &self.state;
        let late = self.options.late.is_some();
        if !self.options.faulty {
            return ProxyFault::None;
        }
        match next(state) % 200 {
            0..5 => ProxyFault::Refused("503 Slow Down"),
            5..8 if write => ProxyFault::Refused("409 Conflict"),
            8..11 => ProxyFault::BrokenOff,
            11..18 => ProxyFault::AnswerLost,
            18..24 => ProxyFault::AnswerIs("503 Service Unavailable"),
            24..27 => ProxyFault::AnswerIs("500 Internal Server Error"),
            // As a server answers a repeat of an applied write.
            27..31 if write => ProxyFault::AnswerIs("409 Conflict"),
            31..35 if write => ProxyFault::AnswerIs("412 Precondition Failed"),
            35..38 => ProxyFault::CutOff,
            38..41 if late => ProxyFault::LateBefore,
            41..44 if late => ProxyFault::LateAfter,
            44..80 if listing && self.options.splits_listings => ProxyFault::Short(1 + next(state) % 3),
            80..100 if listing && self.options.splits_listings => ProxyFault::Empty,
            _ => ProxyFault::None,
        }
    }

    /// Serves one request of one connection; the client opens another for its next.
    fn serve(&self, mut client: TcpStream) -> Option<()> {
        let request = self.unemptied(request(&mut client)?);
        let (write, listing) = (request.starts_with(b"PUT "), target(&request)?.contains("list-type="));
        let status = |text: &str| format!("HTTP/1.1 {text}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let method = String::from_utf8_lossy(request.split(|byte| *byte == b' ').next()?).into_owned();
        let body = request.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |end| end + 4);
        let body = String::from_utf8_lossy(&request[body..]).into_owned();
        self.seen.lock().unwrap().push(ProxiedRequest { method, target: target(&request)?.to_owned(), body });
        let answer = match self.fault(write, listing) {
            ProxyFault::Refused(text) => status(text).into_bytes(),
            ProxyFault::BrokenOff => return client.shutdown(Shutdown::Both).ok(),
            ProxyFault::AnswerLost => {
                self.forwarded(&request)?;
                return client.shutdown(Shutdown::Both).ok();
            }
            ProxyFault::AnswerIs(text) => {
                self.forwarded(&request)?;
                status(text).into_bytes()
            }
            ProxyFault::CutOff => {
                let answer = self.forwarded(&request)?;
                client.write_all(&answer[..answer.len() - answer.len().min(40)]).ok()?;
                return client.shutdown(Shutdown::Both).ok();
            }
            ProxyFault::LateBefore => {
                self.hold();
                self.forwarded(&request)?
            }
            ProxyFault::LateAfter => {
                let answer = self.forwarded(&request)?;
                self.hold();
                answer
            }
            ProxyFault::Short(keys) => {
                let more = format!("{}&max-keys={keys}", target(&request)?);
                self.forwarded(&retargeted(&request, &more)?)?
            }
            ProxyFault::Empty => self.emptied(target(&request)?),
            ProxyFault::None => self.forwarded(&request)?,
        };
        client.write_all(&answer).ok()
    }

    #[allow(clippy::disallowed_methods, reason = "being late is what is tried here; nothing waits for it to be over")]
    fn hold(&self) {
        std::thread::sleep(self.options.late.unwrap_or_default());
    }

    /// Forwards one request on a connection of its own, and reads the whole answer.
    fn forwarded(&self, request: &[u8]) -> Option<Vec<u8>> {
        let mut upstream = TcpStream::connect(&self.server).ok()?;
        let end = request.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, rest) = request.split_at(end);
        upstream.write_all(&[line, b"\r\nConnection: close", rest].concat()).ok()?;
        let mut answer = Vec::new();
        upstream.read_to_end(&mut answer).ok()?;
        Some(answer)
    }

    /// An empty page, with a token for the request's target.
    fn emptied(&self, target: &str) -> Vec<u8> {
        let number = next(&self.state);
        self.emptied.lock().unwrap().insert(number, target.to_owned());
        let page = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><KeyCount>0</KeyCount><IsTruncated>true\
             </IsTruncated><NextContinuationToken>emptied-{number}</NextContinuationToken></ListBucketResult>"
        );
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n", page.len());
        (head + &page).into_bytes()
    }

    /// Lets a request after an empty page ask for what that page should have had.
    fn unemptied(&self, request: Vec<u8>) -> Vec<u8> {
        let number = target(&request).and_then(|target| {
            let (_, rest) = target.split_once("continuation-token=emptied-")?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        });
        let Some(number) = number else { return request };
        let asked: Option<String> = self.emptied.lock().unwrap().get(&number).cloned();
        asked.and_then(|asked| retargeted(&request, &asked)).unwrap_or(request)
    }
}

/// The target of a request.
fn target(request: &[u8]) -> Option<&str> {
    let line = request.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.split(' ').nth(1)
}

fn retargeted(request: &[u8], target: &str) -> Option<Vec<u8>> {
    let end = request.windows(2).position(|pair| pair == b"\r\n")?;
    let method = request.split(|byte| *byte == b' ').next()?;
    Some([method, b" ", target.as_bytes(), b" HTTP/1.1", &request[end..]].concat())
}

/// One request with its body, unchanged.
fn request(client: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                return Some(bytes);
            }
        }
        let read = client.read(&mut chunk).ok().filter(|read| *read > 0)?;
        bytes.extend(&chunk[..read]);
    }
}
