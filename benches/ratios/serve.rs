//! The HTTP face: events posted over many connections beside a bulk emit of the same events, how soon readers of
//! server-sent events have one, and what they cost. A bare server of the same library shows what HTTP alone does.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::routing::get;
use futures_util::StreamExt;
use tokio::io::AsyncReadExt;

use super::{ROUNDS, RatioBench, evbus, figure, file_of_lines, median, monotonic_ns, row, run, timed};

/// The argument that makes this program the bare server.
pub const BARE: &str = "bare-server";

const CONNECTIONS: usize = 64;

/// Events posted one by one, and a hundred a request.
const SINGLE: usize = 20_000;
const TOGETHER: usize = 200_000;
const A_REQUEST: usize = 100;

/// Events whose way to a reader is timed, in each round.
const TIMED: usize = 60;

/// Idle readers whose memory is measured.
const READERS: usize = 900;

/// Events to all of them, and how many nanoseconds lie between two: fifty a second.
const TO_ALL: usize = 200;
const PAUSE_NS: f64 = 2e7;

/// Events that members take.
const MEMBERS_EVENTS: usize = 50_000;

/// A server, which ends with this.
struct Server(Child, SocketAddr);

/// Answers each POST with its body, and begins a stream that stays open for each GET.
#[allow(clippy::print_stderr, reason = "evbus serve tells its address there, too")]
pub fn bare() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        eprintln!("http://{}", listener.local_addr().unwrap());
        let begin = || futures_util::stream::once(async { Ok::<_, Infallible>("event: cursor\n\n") });
        let stream = async move || Body::from_stream(begin().chain(futures_util::stream::pending()));
        let echo = async |body: Body| (StatusCode::ACCEPTED, axum::body::to_bytes(body, usize::MAX).await.unwrap());
        let router = Router::new().route("/events", get(stream).post(echo));
        axum::serve(axum::serve::ListenerExt::tap_io(listener, |io| io.set_nodelay(true).unwrap()), router)
            .await
            .unwrap();
    });
}

impl Server {
    fn new(bus: &std::path::Path) -> Self {
        Self::started(&mut evbus(bus, &["serve", "--listen", "127.0.0.1:0"]))
    }

    fn bare() -> Self {
        Self::started(Command::new(std::env::current_exe().unwrap()).arg(BARE))
    }

    fn started(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().parse().unwrap();
        Self(child, address)
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn request(address: SocketAddr, media_type: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /events?type=order.created HTTP/1.1\r\nHost: {address}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends a request, and reads the body of its answer.
fn exchange(stream: &mut BufReader<TcpStream>, request: &[u8], status: &str) -> String {
    stream.get_mut().write_all(request).unwrap();
    let (mut line, mut length) = (String::new(), 0);
    stream.read_line(&mut line).unwrap();
    assert!(line.contains(status), "{line}");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::with_capacity(64 << 10, stream)
}

/// Sends the same request again and again over all connections.
fn post_all(address: SocketAddr, request: &[u8], count: usize) {
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut stream = connect(address);
                for _ in 0..count / CONNECTIONS {
                    exchange(&mut stream, request, " 202 ");
                }
            });
        }
    });
}

pub fn serve(bench: &RatioBench) {
    let data = format!("{{\"n\":7,\"note\":\"{}\"}}", "x".repeat(80));
    for (what, events, a_request, goal) in [
        ("POST of one event, 64 connections", SINGLE, 1, ">= 0.5"),
        ("POST of 100 events, 64 connections", TOGETHER, A_REQUEST, ">= 0.85"),
    ] {
        let (mut floors, mut echoes, mut ours) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let bus = bench.bus();
            let lines = file_of_lines(bench, events);
            floors.push(
                events as f64 / timed(|| run(evbus(&bus, &["emit", "order.created", "--ndjson", "-q"]).stdin(lines))),
            );
            let body = if a_request == 1 { data.clone() } else { format!("{data}\n").repeat(a_request) };
            let media_type = if a_request == 1 { "application/json" } else { "application/x-ndjson" };
            for (server, rates) in [(Server::bare(), &mut echoes), (Server::new(&bench.bus()), &mut ours)] {
                let request = request(server.1, media_type, &body);
                rates.push(events as f64 / timed(|| post_all(server.1, &request, events / a_request)));
            }
        }
        let (floor, echo, ours) = (median(floors), median(echoes), median(ours));
        row(what, format!("{floor:.0}/s"), format!("{ours:.0}/s"), format!("{:.2}", ours / floor), goal);
        // What no HTTP server of this library can exceed.
        let what = "  the same posted to a bare axum echo";
        row(what, format!("{floor:.0}/s"), format!("{echo:.0}/s"), format!("{:.2}", echo / floor), "");
    }
    to_a_reader(bench, &data);
    to_all_readers(bench);
    idle_readers(bench);
    members(bench);
}

/// From the first byte of a POST to a reader's line, beside a POST to a bare server and one durable put.
fn to_a_reader(bench: &RatioBench, data: &str) {
    let (bare, server) = (Server::bare(), Server::new(&bench.bus()));
    let mut echo = connect(bare.1);
    let mut reader = stream(server.1);
    let mut poster = connect(server.1);
    let request = request(server.1, "application/json", data);
    let (mut echoes, mut puts, mut arrivals) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let folder = bench.fresh("a1");
        let line = bench.floor(&["a1", folder.to_str().unwrap(), "0", &TIMED.to_string()]);
        puts.push(figure(&line, "p50_us=") / 1e3);
        for _ in 0..TIMED {
            let begun = monotonic_ns();
            exchange(&mut echo, &request, " 202 ");
            echoes.push((monotonic_ns() - begun) / 1e6);
        }
        for _ in 0..TIMED {
            let begun = monotonic_ns();
            exchange(&mut poster, &request, " 202 ");
            while !line_of(&mut reader).contains("order.created") {}
            arrivals.push((monotonic_ns() - begun) / 1e6);
        }
    }
    let (floor, arrival) = (median(echoes) + median(puts), median(arrivals));
    row(
        "POST to an SSE reader's line, p50",
        format!("{floor:.2} ms"),
        format!("{arrival:.2} ms"),
        format!("{:.2}", arrival / floor),
        "<= 2",
    );
}

fn stream(address: SocketAddr) -> BufReader<TcpStream> {
    let mut stream = connect(address);
    let head = format!("GET /events HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n");
    stream.get_mut().write_all(head.as_bytes()).unwrap();
    while !line_of(&mut stream).starts_with("event: cursor") {}
    stream
}

/// One that is read by a task.
async fn stream_of_a_task(address: SocketAddr) -> tokio::net::TcpStream {
    let stream = stream(address).into_inner();
    stream.set_nonblocking(true).unwrap();
    tokio::net::TcpStream::from_std(stream).unwrap()
}

fn line_of(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    assert!(stream.read_line(&mut line).unwrap() > 0, "the stream has ended");
    line
}

/// A WebSocket that is open.
fn websocket(address: SocketAddr) -> BufReader<TcpStream> {
    let mut stream = connect(address);
    let head = format!(
        "GET /events HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.get_mut().write_all(head.as_bytes()).unwrap();
    assert!(line_of(&mut stream).contains(" 101 "));
    while line_of(&mut stream) != "\r\n" {}
    stream
}

/// What a reader that waits costs the server.
fn idle_readers(bench: &RatioBench) {
    let bare = memory_of_each(&Server::bare(), stream);
    for (what, open, floor, goal) in [
        ("an idle SSE reader", stream as fn(SocketAddr) -> BufReader<TcpStream>, Some(bare), "<= 8 KiB"),
        ("an idle WebSocket", websocket, None, "<= 16 KiB"),
    ] {
        let each = memory_of_each(&Server::new(&bench.bus()), open);
        let [floor, ratio] = match floor {
            Some(floor) => [format!("{floor:.1} KiB"), format!("{:.2}", each / floor)],
            None => ["-".to_owned(), "-".to_owned()],
        };
        row(what, floor, format!("{each:.1} KiB"), ratio, goal);
    }
}

/// In KiB.
fn memory_of_each(server: &Server, open: fn(SocketAddr) -> BufReader<TcpStream>) -> f64 {
    drop(open(server.1));
    let before = server.resident_kib();
    let readers: Vec<BufReader<TcpStream>> = (0..READERS).map(|_| open(server.1)).collect();
    (server.resident_kib() - before) as f64 / readers.len() as f64
}

/// Fifty events a second to all readers: how long each is on its way, from before its POST.
fn to_all_readers(bench: &RatioBench) {
    let server = Server::new(&bench.bus());
    let (ready, begin) = std::sync::mpsc::channel();
    // On one thread, which costs the machine less than as many threads as there are readers.
    let reading = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
        runtime.block_on(async {
            let mut readers = Vec::with_capacity(READERS);
            for _ in 0..READERS {
                readers.push(tokio::task::spawn_local(arrivals(stream_of_a_task(server.1).await)));
            }
            ready.send(()).unwrap();
            let mut late = Vec::with_capacity(READERS * TO_ALL);
            for reader in readers {
                late.extend(reader.await.unwrap());
            }
            late
        })
    });
    begin.recv().unwrap();
    let mut poster = connect(server.1);
    for _ in 0..TO_ALL {
        let begun = monotonic_ns();
        let request = request(server.1, "application/json", &format!("{{\"at\":{begun}}}"));
        exchange(&mut poster, &request, " 202 ");
        let left = PAUSE_NS - (monotonic_ns() - begun);
        std::thread::sleep(std::time::Duration::from_nanos(left.max(0.0) as u64));
    }
    let mut late = reading.join().unwrap();
    late.sort_by(f64::total_cmp);
    let of = |part: f64| late[((late.len() - 1) as f64 * part) as usize];
    row(
        "50 events/s to 900 SSE readers, p99",
        format!("p50 {:.1} ms", of(0.5)),
        format!("{:.1} ms", of(0.99)),
        "-".to_owned(),
        "<= 50 ms",
    );
}

/// How late each event comes to a reader, in milliseconds.
async fn arrivals(mut stream: tokio::net::TcpStream) -> Vec<f64> {
    let (mut late, mut buffer, mut text) = (Vec::with_capacity(TO_ALL), [0; 4096], String::new());
    while late.len() < TO_ALL {
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "the stream has ended");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        let now = monotonic_ns();
        while let Some((line, rest)) = text.split_once('\n') {
            if let Some((_, sent)) = line.split_once("\"at\":") {
                late.push((now - sent.split('}').next().unwrap().parse::<f64>().unwrap()) / 1e6);
            }
            text = rest.to_owned();
        }
    }
    late
}

/// Members that take a hundred events and acknowledge them, beside a drain with batches of a hundred.
fn members(bench: &RatioBench) {
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let bus = bench.bus();
        let emit = |bus: &std::path::Path| {
            run(evbus(bus, &["emit", "order.created", "--ndjson", "-q"]).stdin(file_of_lines(bench, MEMBERS_EVENTS)));
        };
        emit(&bus);
        let drain = ["drain", "-g", "mail", "--from", "earliest", "-q", "--batch", "100", "-j", "4", "--", "true"];
        floors.push(MEMBERS_EVENTS as f64 / timed(|| run(&mut evbus(&bus, &drain))));
        let bus = bench.bus();
        emit(&bus);
        run(evbus(&bus, &["group", "create", "mail", "--from", "earliest"]).stderr(Stdio::null()));
        let server = Server::new(&bus);
        let left = std::sync::atomic::AtomicUsize::new(MEMBERS_EVENTS);
        // Until the last event is acknowledged: another member may wait for more for a second by then.
        let began = monotonic_ns();
        let ended = std::thread::scope(|scope| {
            let members: Vec<_> = (0..4).map(|_| scope.spawn(|| member(server.1, &left))).collect();
            members.into_iter().map(|member| member.join().unwrap()).fold(began, f64::max)
        });
        ours.push(MEMBERS_EVENTS as f64 / ((ended - began) / 1e9));
    }
    let (floor, ours) = (median(floors), median(ours));
    let what = "receive and acknowledge, 100 at a time";
    row(what, format!("{floor:.0}/s"), format!("{ours:.0}/s"), format!("{:.2}", ours / floor), ">= 0.5");
}

/// Takes and acknowledges until nothing is left. Returns when its last acknowledgement was answered.
fn member(address: SocketAddr, left: &std::sync::atomic::AtomicUsize) -> f64 {
    use std::sync::atomic::Ordering::Relaxed;
    let mut stream = connect(address);
    let mut ask = |operation: &str, body: &str| {
        let head = format!("POST /groups/mail:{operation} HTTP/1.1\r\nHost: {address}\r\nContent-Length: ");
        exchange(&mut stream, format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes(), " 200 ")
    };
    let mut ended = 0.0;
    while left.load(Relaxed) > 0 {
        let received = ask("receive?maxEvents=100&maxWaitTime=1", "");
        let tokens: Vec<&str> =
            received.split("\"lockToken\":").skip(1).map(|rest| rest.split(',').next().unwrap()).collect();
        if tokens.is_empty() {
            continue;
        }
        ask("acknowledge", &format!("{{\"lockTokens\":[{}]}}", tokens.join(",")));
        ended = monotonic_ns();
        left.fetch_sub(tokens.len(), Relaxed);
    }
    ended
}
