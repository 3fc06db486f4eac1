//! Watchers whose handler is a URL: what is sent, what an answer means, and what is never shown.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::mini::{Head, HttpRequest, HttpResponse};
use super::support::{Home, signal, until};

/// The secret of Standard Webhooks' own examples.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A request without its body, and the body.
type Request = (Head, Vec<u8>);

/// A receiver that answers as it is told, and keeps what it got.
struct Receiver {
    port: u16,
    got: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    /// Gives these answers in turn, then 204.
    fn new(answers: impl IntoIterator<Item = HttpResponse>) -> Self {
        Self::at(("127.0.0.1", 0), answers)
    }

    fn at(address: impl ToSocketAddrs, answers: impl IntoIterator<Item = HttpResponse>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let got = Arc::<Mutex<Vec<Request>>>::default();
        let (answers, kept) = (Mutex::new(answers.into_iter().collect::<VecDeque<_>>()), Arc::clone(&got));
        std::thread::spawn(move || {
            let answers = Arc::new(answers);
            for stream in listener.incoming().flatten() {
                let (answers, kept) = (Arc::clone(&answers), Arc::clone(&kept));
                std::thread::spawn(move || serve(&stream, &answers, &kept));
            }
        });
        Self { port, got }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// One that answers each request with these bytes, and then nothing more.
    fn unending(bytes: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming().flatten() {
                let mut from = BufReader::new(stream.try_clone().unwrap());
                let _ = HttpRequest::read(&mut from);
                let _ = (&stream).write_all(bytes.as_bytes());
                open.push(stream);
            }
        });
        port
    }

    fn requests(&self) -> Vec<Request> {
        self.got.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }
}

fn serve(stream: &TcpStream, answers: &Mutex<VecDeque<HttpResponse>>, kept: &Mutex<Vec<Request>>) {
    let mut from = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = HttpRequest::read(&mut from) {
        kept.lock().unwrap().push((request.head().clone(), request.body.clone()));
        let answer = answers.lock().unwrap().pop_front().unwrap_or_else(|| HttpResponse::new(204));
        if answer.write(stream, &request.method, 0).is_err() {
            return;
        }
    }
}

/// An address of this machine that is no other process's, for a port on which nothing listens.
fn own_address() -> (Ipv4Addr, u16) {
    let [.., high, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, 77, high, low), 4711)
}

fn says(status: u16, body: &str) -> HttpResponse {
    HttpResponse::text(status, "text/plain", body)
}

/// `drain` of group `g` to a URL, with more arguments.
fn drain<'a>(url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["drain", "-g", "g", "--from", "earliest", "--url", url], more].concat()
}

/// The group's dead letters.
fn letters(home: &Home) -> Vec<Value> {
    let files = std::fs::read_dir(home.bus().join("state/g/dead")).into_iter().flatten();
    let read = |file: std::io::Result<std::fs::DirEntry>| std::fs::read(file.unwrap().path()).unwrap();
    files.map(|file| serde_json::from_slice(&read(file)).unwrap()).collect()
}

#[test]
fn each_event_is_posted_once_it_is_signed() {
    let (home, receiver) = (Home::new(), Receiver::new([]));
    let id = home.run(&["emit", "order.created", "{\"n\": 1}", "--subject", "order/1"]).exits(0).out;
    home.file("headers.toml", &format!(
        "[watchers.g]\nurl = \"{}\"\nsecret = [\"env:OLD\", \"file:new\"]\nfrom = \"earliest\"\nheaders = {{ Authorization = \"env:TOKEN\", X-Kind = \"test\" }}\n",
        receiver.url("/hook?tenant=7")
    ));
    let new = home.file("new", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n");
    let run = |mode: &str| {
        let permitted = Command::new("chmod").arg(mode).arg(&new).status().unwrap();
        assert!(permitted.success());
        let mut command = home.evbus(&["--config", "headers.toml", "drain"]);
        Home::ran(command.env("OLD", SECRET).env("TOKEN", "Bearer abc"))
    };
    run("644").exits(2).says("file:", "").says("is open to others (mode 0644): chmod 600", "");
    assert_eq!(receiver.count(), 0);
    let ran = run("600").exits(0);
    for hidden in ["MfKQ9r8", "abc", "AAAA"] {
        assert!(!ran.err.contains(hidden) && !ran.out.contains(hidden), "{}", ran.err);
    }
    let [(head, body)] = &receiver.requests()[..] else { panic!("{}", receiver.count()) };
    assert_eq!((head.method.as_str(), head.path.as_str(), head.parameter("tenant")), ("POST", "/hook", Some("7")));
    assert_eq!(head.header("content-type"), Some("application/cloudevents+json; charset=utf-8"));
    assert_eq!(head.header("authorization"), Some("Bearer abc"));
    assert_eq!(head.header("x-kind"), Some("test"));
    assert!(head.header("user-agent").unwrap().starts_with("evbus/"));
    let document: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(document["id"], id.trim());
    // The hash slot and the identity, of which the second is the end of the id.
    let webhook_id = head.header("webhook-id").unwrap();
    assert!(webhook_id.len() == 16 && webhook_id.ends_with(id.trim().rsplit('-').next().unwrap()), "{webhook_id}");
    assert_eq!(head.header("webhook-signature").unwrap().split(' ').count(), 2, "one for each secret");
    home.run(&["--config", "headers.toml", "drain"]).exits(2).says("header authorization: env:TOKEN is not set", "");
    let checked = Home::ran(home.evbus(&["--config", "headers.toml", "check"]).env("OLD", SECRET).env("TOKEN", "abc"))
        .exits(0)
        .out;
    assert!(checked.contains(&format!("posts to {}?…, signed by env:OLD, file:", receiver.url("/hook"))), "{checked}");
    assert!(!checked.contains("tenant") && !checked.contains("MfKQ9r8"), "{checked}");
}

#[test]
fn answers_decide() {
    let home = Home::new();
    let receiver = Receiver::new([
        says(503, "busy\nreally").with("Retry-After", "3600"),
        says(422, &format!("no such field\n{}", "x".repeat(10_000))),
        says(302, "").with("Location", "/elsewhere"),
    ]);
    for n in 0..3 {
        home.run(&["emit", "t", &n.to_string()]).exits(0);
    }
    let url = receiver.url("/");
    let ran = home.run(&drain(&url, &["--backoff", "1s..2h", "-j", "1"])).exits(0);
    assert!(ran.err.contains("HTTP 503 \"busy\"") && ran.err.contains("HTTP 302"), "{}", ran.err);
    let [letter] = &letters(&home)[..] else { panic!("{:?}", letters(&home)) };
    assert_eq!(letter["why"], "HTTP 422 \"no such field\"");
    assert_eq!(letter["attempts"], 1);
    let kept = letter["stderr"].as_str().unwrap();
    assert!(kept.starts_with("no such field\nxxx") && kept.len() == 4096, "{}", kept.len());
    // The first waits for as long as it was asked to, the last for a second or so.
    until("the third event is sent again", || {
        home.run(&drain(&url, &[])).exits(0);
        receiver.count() == 4
    });
    assert!(receiver.requests().iter().all(|(head, _)| head.path == "/"), "no redirect is followed");
    let status = home.run(&["status", "--json"]).exits(0).out;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["groups"][0]["retrying"], 1, "{status}");
}

#[test]
fn an_answer_that_does_not_end_is_one_and_none_is_told() {
    let home = Home::new();
    home.run(&["emit", "t"]).exits(0);
    let answer = "HTTP/1.1 503 \r\nRetry-After: 3600\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n";
    let url = format!("http://127.0.0.1:{}/", Receiver::unending(answer));
    let ran = home.run(&drain(&url, &["--timeout", "1s", "--backoff", "1s..2h"])).exits(0);
    assert!(ran.err.contains("HTTP 503 \"busy\""), "{}", ran.err);
    let receiver = Receiver::new([]);
    home.run(&drain(&receiver.url("/"), &[])).exits(0);
    assert_eq!(receiver.count(), 0, "it is to be sent in an hour");

    home.run(&["emit", "t"]).exits(0);
    let url = format!("http://127.0.0.1:{}/", Receiver::unending(""));
    let ran = home.run(&drain(&url, &["--timeout", "1s", "--max-attempts", "1"])).exits(0);
    assert!(ran.err.contains(&format!("no answer from {} within 1 s", url.trim_end_matches('/'))), "{}", ran.err);

    home.run(&["emit", "t"]).exits(0);
    let mut drain =
        home.spawn(&drain(&format!("http://127.0.0.1:{}/", Receiver::unending("")), &["--stop-timeout", "0s"]));
    until("the request is under way", || {
        let status = home.run(&["status", "--json"]).exits(0).out;
        signal(&drain, "TERM");
        !status.is_empty() && drain.try_wait().unwrap().is_some()
    });
    home.run(&self::drain(&receiver.url("/"), &[])).exits(0);
    assert_eq!(receiver.count(), 1, "cut short, it has not failed");
}

#[test]
fn a_receiver_that_is_away_costs_no_attempt() {
    let home = Home::new();
    home.run(&["emit", "t"]).exits(0);
    let (closed, port) = own_address();
    let gone = Receiver::new([HttpResponse::new(410)]);
    let plain = Receiver::new([]);
    for (url, why) in [
        (format!("http://{closed}:{port}/"), "connection refused"),
        ("http://no-such-host.invalid/".to_owned(), "cannot reach http://no-such-host.invalid: "),
        (format!("https://127.0.0.1:{}/", plain.port), "cannot reach https://127.0.0.1:"),
        (gone.url("/"), "answers 410 Gone"),
    ] {
        let ran = home.run(&drain(&url, &["--max-attempts", "1"])).exits(75);
        assert!(ran.err.contains(why), "{}", ran.err);
    }
    let receiver = Receiver::new([]);
    home.run(&drain(&receiver.url("/"), &["--max-attempts", "1"])).exits(0);
    assert_eq!(receiver.count(), 1, "it is neither dead nor lost");
    let gone = Receiver::new([HttpResponse::new(410)]);
    home.run(&["emit", "t"]).exits(0);
    home.run(&drain(&gone.url("/"), &["--dead-on", "410"])).exits(0);
    assert_eq!(letters(&home)[0]["why"], "HTTP 410");
}

/// A watcher, killed at the end of its test.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_watcher_waits_for_its_receiver() {
    let home = Home::new();
    let (address, port) = own_address();
    for _ in 0..5 {
        home.run(&["emit", "t"]).exits(0);
    }
    let url = format!("http://{address}:{port}/");
    let mut watch = Watching(home.spawn(&["watch", "-g", "g", "--from", "earliest", "-j", "5", "--url", &url]));
    let mut lines = BufReader::new(watch.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let stalled = lines.find(|line| line.contains("connection refused")).unwrap();
    assert!(stalled.contains(&format!("cannot reach http://{address}:{port}")), "{stalled}");
    let receiver = Receiver::at((address, port), []);
    until("all events were sent", || receiver.count() == 5);
    signal(&watch.0, "TERM");
    assert!(watch.0.wait().unwrap().success());
    assert_eq!(letters(&home).len(), 0);
}

#[test]
fn requests_go_by_the_settings_of_their_watcher() {
    let home = Home::new();
    let (receiver, proxy) = (Receiver::new([]), Receiver::new([]));
    let config = |lines: &str| {
        home.run(&["emit", "t"]).exits(0);
        let url = format!("http://localhost:{}/hook", receiver.port);
        home.file("evbus.toml", &format!("[watchers.g]\nurl = \"{url}\"\nfrom = \"earliest\"\n{lines}\n"));
        Home::ran(home.evbus(&["drain"]).env("HTTP_PROXY", proxy.url("/")))
    };
    // A host is checked by the addresses that it has.
    let denied = config("deny = [\"loopback\"]\nproxy = \"none\"").exits(75);
    assert!(denied.err.contains("is in 'deny'"), "{}", denied.err);
    assert_eq!((receiver.count(), proxy.count()), (0, 0));
    config("proxy = \"none\"").exits(0);
    assert_eq!((receiver.count(), proxy.count()), (2, 0));
    config("").exits(0);
    assert_eq!((receiver.count(), proxy.count()), (2, 1), "by the environment's");
    // The proxy itself may be where the receiver may not.
    config(&format!("deny = [\"loopback\"]\nproxy = \"http://localhost:{}\"", proxy.port)).exits(0);
    assert_eq!((receiver.count(), proxy.count()), (2, 2));
    assert!(proxy.requests()[1].0.path.ends_with("/hook"));
}

#[test]
fn the_host_of_a_secret_url_is_not_shown() {
    let home = Home::new();
    home.run(&["emit", "t"]).exits(0);
    let drain = |url: &str| Home::ran(home.evbus(&drain("env:CHAT", &["--max-attempts", "1"])).env("CHAT", url));
    let ran = drain("http://token-3f9a.invalid/abc").exits(75);
    assert!(ran.err.contains("cannot reach env:CHAT: ") && !ran.err.contains("3f9a"), "{}", ran.err);
    let ran = drain("token-3f9a").exits(2).says("the url env:CHAT is no URL of a web server", "");
    assert!(!ran.err.contains("3f9a"), "{}", ran.err);
}

#[test]
fn an_event_that_no_header_can_hold_is_dead() {
    let (home, receiver) = (Home::new(), Receiver::new([]));
    let many: Vec<String> = (0..25_000).map(|n| format!("\"x{n}\":1")).collect();
    let event = format!("{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\",{}}}", many.join(","));
    home.feed(&["emit", "--ndjson"], &event).exits(0);
    home.run(&["emit", "t"]).exits(0);
    home.run(&drain(&receiver.url("/"), &["--format", "binary"])).exits(0);
    assert_eq!(receiver.count(), 1, "the other is sent");
    assert!(letters(&home)[0]["why"].as_str().unwrap().contains("too many for headers"));
}

#[test]
fn a_batch_is_one_request_and_halved_where_it_is_refused() {
    let home = Home::new();
    // The whole is refused, then its first half; of that, the second event.
    let receiver = Receiver::new([400, 400, 204, 400, 204].map(HttpResponse::new));
    for n in 0..4 {
        home.run(&["emit", "t", &n.to_string()]).exits(0);
    }
    home.run(&drain(&receiver.url("/"), &["--batch", "4"])).exits(0);
    let bodies: Vec<Vec<Value>> =
        receiver.requests().iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect();
    let data = |body: &Vec<Value>| body.iter().map(|event| event["data"].as_i64().unwrap()).collect::<Vec<_>>();
    assert_eq!(
        bodies.iter().map(data).collect::<Vec<_>>(),
        [vec![0, 1, 2, 3], vec![0, 1], vec![0], vec![1], vec![2, 3]]
    );
    let head = &receiver.requests()[0].0;
    assert_eq!(head.header("content-type"), Some("application/cloudevents-batch+json; charset=utf-8"));
    let [letter] = &letters(&home)[..] else { panic!() };
    assert_eq!(letter["why"], "HTTP 400");
    // A receiver that is busy is not asked again for each event.
    home.run(&["emit", "t"]).exits(0);
    home.run(&["emit", "t"]).exits(0);
    let busy = Receiver::new([HttpResponse::new(503)]);
    home.run(&drain(&busy.url("/"), &["--batch", "4", "--backoff", "1h..1h"])).exits(0);
    assert_eq!(busy.count(), 1);
    // The one that is meant by a status of dead_on is found.
    let home = Home::new();
    for n in 0..2 {
        home.run(&["emit", "t", &n.to_string()]).exits(0);
    }
    let missing = Receiver::new([404, 404, 204].map(HttpResponse::new));
    home.run(&drain(&missing.url("/"), &["--batch", "4", "--dead-on", "404"])).exits(0);
    assert_eq!((missing.count(), letters(&home).len()), (3, 1));
}

#[test]
fn on_dead_runs_for_a_webhook_too() {
    let (home, receiver) = (Home::new(), Receiver::new([says(400, "bad")]));
    home.run(&["emit", "t"]).exits(0);
    home.file("evbus.toml", &format!(
        "[watchers.g]\nurl = \"{}\"\nfrom = \"earliest\"\non_dead = [\"sh\", \"-c\", \"echo $EVBUS_DEAD_WHY > why\"]\n",
        receiver.url("/")
    ));
    home.run(&["drain"]).exits(0);
    assert_eq!(home.lines("why"), ["HTTP 400 \"bad\""]);
    home.run(&["dead", "redrive", "g", "--all", "--yes"]).exits(0);
    home.run(&["drain"]).exits(0);
    let ids: Vec<Option<String>> =
        receiver.requests().iter().map(|(head, _)| head.header("webhook-id").map(str::to_owned)).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "the same at every attempt: {ids:?}");
}

#[test]
fn wrong_settings_are_told() {
    let home = Home::new();
    let url = "https://crm.example/hook";
    for (args, why) in [
        (&["--url", "crm.example/hook"][..], "--url is no URL of a web server"),
        (&["--url", "ftp://crm.example/"], "--url is no URL of a web server"),
        (&["--url", "https://user:pass@crm.example/"], "--url has a password in it"),
        (&["--url", "http://169.254.169.254/latest"], "169.254.169.254 is a link-local or metadata address"),
        (&["--url", "http://[::ffff:a9fe:a9fe]/latest"], "is a link-local or metadata address"),
        (&["--url", url, "--secret", "hunter2"], "--secret is not where a secret is"),
        (&["--url", url, "--secret", "env:NO_SUCH"], "env:NO_SUCH is not set"),
        (&["--url", url, "--format", "xml"], "--format must be structured or binary"),
        (&["--url", url, "--format", "binary", "--batch", "2"], "a batch is sent as JSON"),
        (&["--url", url, "--dead-on", "65"], "--dead-on 65 is not the HTTP status of a failure: 300 to 599"),
    ] {
        let ran = home.run(&[&["drain", "-g", "g"], args].concat());
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.err);
        let ran = ran.says(why, "");
        assert!(!ran.err.contains("hunter2") && !ran.err.contains("pass@"), "{}", ran.err);
    }
    home.run(&["drain", "-g", "g", "--url", url, "--", "true"]).exits(2);
    home.run(&["drain", "-g", "g", "--secret", "env:X", "--", "true"]).exits(2).says("--secret is for --url", "");
    for (lines, why) in [
        ("command = [\"true\"]", "'url' in [watchers.g]: stands beside 'command' (keep one of them)"),
        ("env = [\"PATH\"]", "'env' in [watchers.g]: is for a command, and this watcher has a url"),
        ("secret = \"hunter2\"", "'secret' in [watchers.g]: is not where a secret is"),
        ("cert = \"a\"", "'cert' in [watchers.g]: needs 'key' beside it"),
        ("proxy = \"socks\"", "'proxy' in [watchers.g]: is no URL of a proxy"),
        ("proxy = \"http://me:hunter2@proxy\"", "'proxy' in [watchers.g]: has a password in it"),
        ("deny = [\"lan\"]", "'deny' in [watchers.g]: 'lan' is no range of addresses"),
        ("headers = { Host = \"x\" }", "'Host' in [watchers.g.headers]: is a header that evbus sets itself"),
        ("headers = { X = \"a\\nb\" }", "'X' in [watchers.g.headers]: is no value that a header can have"),
        (
            "retry = { dead_on = [65] }",
            "'dead_on' in [watchers.g.retry]: must be an array of whole numbers from 300 to 599",
        ),
        ("secrets = []", "unknown key 'secrets' in [watchers.g] (did you mean 'secret'?)"),
    ] {
        home.file("evbus.toml", &format!("[watchers.g]\nurl = \"{url}\"\n{lines}\n"));
        let ran = home.run(&["check"]).exits(2).says(why, "");
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    }
    home.file("evbus.toml", "[watchers.g]\ncommand = [\"true\"]\nsecret = \"env:X\"\n");
    home.run(&["check"]).exits(2).says("'secret' in [watchers.g]: is for a url, and this watcher has a 'command'", "");
    home.file("evbus.toml", "[watchers.g]\nurl = \"http://127.0.0.1:1/\"\ndeny = [\"loopback\"]\n");
    home.run(&["check"]).exits(2).says("127.0.0.1 is in 'deny'", "");
}

/// A receiver of another making, started and stopped by its own process.
struct Foreign {
    child: Child,
    port: u16,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Foreign {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.next().and_then(|line| line.parse().ok()).expect("its port");
        Self { child, port, lines: Box::new(lines) }
    }

    /// npm's `standardwebhooks` and `cloudevents`.
    fn node(tls: &[&Path]) -> Self {
        let folder = fetched();
        let mut command = Command::new("node");
        Self::start(command.arg(script("receiver.mjs")).arg(folder).arg(SECRET).args(tls))
    }

    /// PyPI's `standardwebhooks` and `cloudevents`.
    fn python() -> Self {
        let python = fetched().join("python/bin/python");
        Self::start(Command::new(python).arg(script("receiver.py")).arg(SECRET))
    }

    /// What it says of the next request.
    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().expect("a request")).unwrap()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/webhooks").join(name)
}

/// Where `./test` has put the libraries.
fn fetched() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/webhooks");
    assert!(folder.join("python").exists(), "{} is missing: ./test fetches it", folder.display());
    folder
}

/// The lines of a bus's events, with what is hard to carry in a header.
const EVENTS: [&str; 3] = [
    r#"{"specversion":"1.0","id":"1","source":"/test","type":"t","subject":"Straße \"1\" 100%","time":"2026-11-23T02:15:00Z","comexampleflag":"€😀","data":{"n":1.50,"text":"ü"}}"#,
    r#"{"specversion":"1.0","id":"2","source":"/test","type":"t","datacontenttype":"text/plain","data":"hello"}"#,
    r#"{"specversion":"1.0","id":"3","source":"/test","type":"t","datacontenttype":"image/gif","data_base64":"R0lGODlh"}"#,
];

/// Sends the events in one mode; returns what the receiver says of the requests.
fn sent_to(receiver: &mut Foreign, more: &[&str]) -> Vec<Value> {
    let home = Home::new();
    home.feed(&["emit", "--ndjson"], &EVENTS.join("\n")).exits(0);
    let url = format!("http://127.0.0.1:{}/", receiver.port);
    let args = drain(&url, &[&["--secret", "env:SECRET"], more].concat());
    let ran = Home::ran(home.evbus(&args).env("SECRET", SECRET)).exits(0);
    assert!(ran.err.contains("3 done"), "{}", ran.err);
    let requests = if more.contains(&"--batch") { 1 } else { 3 };
    (0..requests).map(|_| receiver.next()).collect()
}

#[test]
fn the_libraries_of_others_verify_and_read_what_is_sent() {
    for (mut receiver, is_node) in [(Foreign::node(&[]), true), (Foreign::python(), false)] {
        for mode in [&["--format", "structured"][..], &["--format", "binary"], &["--batch", "3"]] {
            let requests = sent_to(&mut receiver, mode);
            let events: Vec<&Value> = requests
                .iter()
                .flat_map(|request| {
                    assert_eq!(request["error"], Value::Null, "{request}");
                    request["events"].as_array().unwrap()
                })
                .collect();
            let [one, two, three] = &events[..] else { panic!("{events:?}") };
            // npm's library reads headers as they stand.
            let is_encoded = is_node && mode.contains(&"binary");
            let decoded = ["Straße \"1\" 100%", "€😀"];
            let [subject, flag] =
                if is_encoded { ["Stra%C3%9Fe%20%221%22%20100%25", "%E2%82%AC%F0%9F%98%80"] } else { decoded };
            assert_eq!((&one["subject"], &one["comexampleflag"]), (&subject.into(), &flag.into()), "{mode:?}");
            assert_eq!(one["data"]["text"], "ü", "{mode:?}");
            assert_eq!((&two["id"], &two["data"]), (&"2".into(), &"hello".into()), "{mode:?}");
            assert_eq!((&three["id"], &three["datacontenttype"]), (&"3".into(), &"image/gif".into()), "{mode:?}");
        }
    }
}

/// Runs openssl, which makes certificates.
fn openssl(folder: &Path, args: &str) {
    let ran = Command::new("openssl").args(args.split(' ')).current_dir(folder).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn certificates_are_checked_both_ways() {
    let home = Home::new();
    let folder = home.path();
    let make = |name: &str, more: &str| {
        openssl(
            folder,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout {name}.key -out {name}.pem -subj /CN={name} {more}"
            ),
        );
    };
    make("server", "-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:false");
    make("client", "-addext basicConstraints=critical,CA:false");
    let [cert, key, ca] = ["server.pem", "server.key", "client.pem"].map(|name| folder.join(name));
    let mut receiver = Foreign::node(&[&cert, &key, &ca]);
    home.run(&["emit", "t"]).exits(0);
    let config = |lines: &str| {
        let text = format!(
            "[watchers.g]\nurl = \"https://127.0.0.1:{}/\"\nsecret = \"env:SECRET\"\nfrom = \"earliest\"\n{lines}",
            receiver.port
        );
        home.file("evbus.toml", &text);
        Home::ran(home.evbus(&["drain"]).env("SECRET", SECRET))
    };
    let unknown = config("").exits(75);
    assert!(unknown.err.contains("invalid peer certificate"), "{}", unknown.err);
    // The server wants a certificate, and says so after the request.
    let anonymous = config("ca = \"server.pem\"\n").exits(75);
    assert!(anonymous.err.contains("certificate"), "{}", anonymous.err);
    config("ca = \"missing.pem\"\n").exits(2).says("missing.pem cannot be read: no such file or directory", "");
    config(
        "ca = \"server.pem\"\ncert = \"client.pem\"\nkey = \"client.key\"\nretry = { min = \"0s\", max = \"0s\" }\n",
    )
    .exits(0);
    assert_eq!(receiver.next()["error"], Value::Null);
}
