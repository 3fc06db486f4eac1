//! `evbus serve`: events in and out over HTTP, who may what, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::support::{Home, signal, until};

/// A running server, which ends with this.
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
    /// What it has printed before it served.
    begin: Vec<String>,
}

impl Server {
    pub fn new(home: &Home) -> Self {
        Self::with(home, &["serve", "--listen", "127.0.0.1:0"])
    }

    pub fn configured(home: &Home, config: &str) -> Self {
        home.file("serve.toml", config);
        Self::with(home, &["--config", "serve.toml", "serve", "--listen", "127.0.0.1:0"])
    }

    pub fn with(home: &Home, args: &[&str]) -> Self {
        Self::of(home.evbus(args).env("TOKEN", "s3cret").env("HOOK", "It's a Secret to Everybody"))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut begin = Vec::new();
        let address = loop {
            let mut line = String::new();
            assert!(said.read_line(&mut line).unwrap() > 0, "it has ended: {begin:?} {:?}", child.wait());
            begin.push(line.trim_end().to_owned());
            let address = line.split("://").nth(1).and_then(|address| address.trim().parse().ok());
            if let Some(address) = address {
                break address;
            }
        };
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { child, address, begin }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends a request, and reads the answer until its end.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let stream = TcpStream::connect(self.address).unwrap();
        ask(stream, &self.address.to_string(), method, path, headers, body)
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.ask("POST", path, headers, body.as_bytes())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    /// Opens a stream of server-sent events.
    fn stream(&self, path: &str, headers: &[(&str, &str)]) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n", self.address);
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        stream
    }

    pub fn kill(mut self) -> SocketAddr {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer to a request.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}{}", self.head, self.body);
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}{}", self.head, self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let is_it = |line: &&str| line.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name));
        self.head.lines().find(is_it).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    }

    /// The query of the link to the next batch.
    fn next(&self) -> String {
        let link = self.header("link").unwrap();
        link.strip_prefix('<').and_then(|link| link.split('>').next()).unwrap().to_owned()
    }

    /// The ids of a batch.
    fn ids(&self) -> Vec<String> {
        let events = self.json();
        events.as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The data of a batch.
    fn data(&self) -> Vec<Value> {
        self.json().as_array().unwrap().iter().map(|event| event["data"].clone()).collect()
    }
}

fn ask(
    mut stream: impl Read + Write,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head.push_str(&format!("Host: {host}\r\n"));
    }
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).unwrap();
    // A request that is refused is not read whole.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: '{answer}'"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// The next message of a stream: its fields by name. Comments are passed over.
fn message(stream: &mut impl BufRead) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream has ended: {fields:?}");
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() && !fields.is_empty() {
            return fields;
        }
        if let Some((name, value)) = line.split_once(": ").filter(|(name, _)| ["id", "event", "data"].contains(name)) {
            fields.push((name.to_owned(), value.to_owned()));
        }
    }
}

/// The next event of a stream: its cursor and its data.
fn event(stream: &mut impl BufRead) -> (String, Value) {
    loop {
        let fields = message(stream);
        let field = |name: &str| fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
        if field("event").is_none() {
            let event: Value = serde_json::from_str(&field("data").unwrap()).unwrap();
            return (field("id").unwrap(), event["data"].clone());
        }
    }
}

/// The first message of a stream: the cursor from where it reads.
fn first_cursor(stream: &mut impl BufRead) -> String {
    let fields = message(stream);
    assert_eq!(fields[0], ("event".to_owned(), "cursor".to_owned()), "{fields:?}");
    fields[1].1.clone()
}

const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"order.created","data":{"n": 1}}"#;
const CLOUDEVENT: (&str, &str) = ("content-type", "application/cloudevents+json");
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

#[test]
fn what_is_accepted_is_on_the_bus() {
    let home = Home::new();
    let server = Server::new(&home);
    assert!(server.begin[0].starts_with(&format!("serving {}", home.url())), "{:?}", server.begin);
    let posted = server.post("/events?type=backup.done&subject=db1", &[], "{\"rc\": 0}").is(202).json();
    let id = posted["ids"][0].as_str().unwrap();
    let stored: Value = serde_json::from_str(&home.run(&["get", id]).exits(0).out).unwrap();
    assert_eq!(
        (&stored["type"], &stored["subject"], &stored["data"]["rc"]),
        (&"backup.done".into(), &"db1".into(), &0.into())
    );
    for duplicates in [0, 1] {
        let posted = server.post("/events", &[CLOUDEVENT], EVENT).is(202).json();
        assert_eq!(posted, serde_json::json!({ "ids": ["1"], "duplicates": duplicates }));
    }
    let other = EVENT.replace("1}", "2}");
    let taken = server.post("/events", &[CLOUDEVENT], &other).is(409);
    assert_eq!(taken.header("content-type"), Some("application/problem+json"));
    assert_eq!((&taken.json()["ids"], &taken.json()["places"]), (&serde_json::json!(["1"]), &serde_json::json!([0])));
    for duplicates in [0, 1] {
        let keyed = [("idempotency-key", "\"pay-1\"")];
        let posted = server.post("/events?type=paid", &keyed, "1").is(202).json();
        assert_eq!(posted, serde_json::json!({ "ids": ["pay-1"], "duplicates": duplicates }));
    }
    let lines: String = (0..250).map(|n| format!("{n}\n")).collect();
    let posted = server.post("/events?type=line", &[NDJSON], &lines).is(202).json();
    assert_eq!(posted["ids"].as_array().unwrap().len(), 250);
    let refused = server.post("/events?type=cut.off", &[NDJSON], "1\n\n{\"a\":").is(400).json();
    assert_eq!((&refused["line"], &refused["status"]), (&3.into(), &400.into()), "{refused}");
    assert!(!home.run(&["ls"]).exits(0).out.contains("cut.off"), "all or none");
    assert_eq!(home.run(&["ls", "-t", "line", "-n", "1000"]).exits(0).lines().len(), 250);
}

#[test]
fn named_events_in_bulk_are_repeats_when_they_come_again() {
    let home = Home::new();
    let server = Server::new(&home);
    let lines: String = (0..300).map(|n| EVENT.replace("\"id\":\"1\"", &format!("\"id\":\"{n}\"")) + "\n").collect();
    for duplicates in [0, 300] {
        assert_eq!(server.post("/events", &[NDJSON], &lines).is(202).json()["duplicates"], duplicates);
    }
    assert_eq!(home.run(&["ls", "-n", "1000"]).exits(0).lines().len(), 300);
}

#[test]
fn refusals_name_what_is_wrong() {
    let home = Home::new();
    let server = Server::configured(&home, "[serve]\nmax_body = \"1KiB\"\n");
    for (path, headers, body, status, said) in [
        ("/events", &[][..], "{}", 400, "no event type"),
        ("/events?kind=a", &[], "{}", 400, "'kind' is not a parameter"),
        ("/events?type=a.*", &[], "{}", 400, "none that a pattern could name"),
        (
            "/events",
            &[CLOUDEVENT],
            "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"\",\"type\":\"t\"}",
            400,
            "attribute 'source'",
        ),
        ("/events", &[("content-type", "application/cloudevents+xml")], "<a/>", 415, "is not taken"),
        ("/events?type=a", &[("content-encoding", "gzip")], "x", 415, "Content-Encoding"),
        (
            "/events?type=a",
            &[("content-encoding", "identity"), ("content-encoding", "gzip")],
            "x",
            415,
            "Content-Encoding",
        ),
        ("/events?type=a", &[("host", "evil.example")], "1", 421, "is not a name of this server"),
        ("/events?type=a", &[("origin", "https://evil.example")], "1", 403, "may not call this server"),
        ("/hooks/none", &[], "1", 404, "no such hook"),
        ("/hooks/%ff", &[], "1", 400, "the path is not UTF-8"),
        ("/groups/%ff:receive", &[], "", 400, "the path is not UTF-8"),
        ("/nothing", &[], "1", 404, "nothing at /nothing"),
        ("/healthz", &[], "1", 405, "POST is not for /healthz"),
    ] {
        let answer = server.post(path, headers, body).is(status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        let problem = answer.json();
        assert!(problem["detail"].as_str().unwrap().contains(said), "{path} {problem}");
        assert_eq!(problem["status"], status);
    }
    let large = "x".repeat(2_000);
    server.post("/events?type=a", &[("content-type", "text/plain")], &large).is(413);
    let named = server.post("/events", &[CLOUDEVENT], &EVENT.replace("/s", "a b")).is(400).json();
    assert_eq!(named["attribute"], "source");
    for (query, said) in [
        ("after=yesterday", "after: is no cursor"),
        ("after=99991231T235959.999999Z", "after: is no cursor"),
        ("limit=0", "limit: must be a whole number from 1 to 1000"),
        ("where=data.", "where: "),
        ("type=a..b", "pattern 'a..b'"),
        ("order=random", "order: must be settled or arrival"),
        ("token=x", "token: is not a parameter"),
    ] {
        let answer = server.get(&format!("/events?{query}"));
        assert_eq!(answer.status, 400, "{query} {}", answer.body);
        let problem = answer.json();
        assert!(problem["detail"].as_str().unwrap().contains(said), "{query} {problem}");
    }
    assert_eq!(home.run(&["ls"]).exits(0).out, "");
    server.get("/healthz").is(200);
    assert_eq!(server.get("/openapi.json").is(200).json()["openapi"], "3.1.0");
}

#[test]
fn tokens_say_who_may_what() {
    let home = Home::new();
    let server = Server::configured(
        &home,
        "[serve.tokens.shop]\nsecret = \"env:TOKEN\"\nmay = [\"emit:order.*\"]\n[serve.tokens.all]\nsecret = \"file:all\"\nmay = [\"read:**\"]\n"
            .replace("file:all", &private(&home, "all", "reader").display().to_string().replace(home.path().to_str().unwrap(), "file:."))
            .as_str(),
    );
    let bearer = ("authorization", "Bearer s3cret");
    let none = server.post("/events?type=order.created", &[], "1").is(401);
    assert_eq!(none.header("www-authenticate"), Some("Bearer realm=\"evbus\""));
    let wrong = server.post("/events?type=order.created", &[("authorization", "Bearer wrong")], "1").is(401);
    assert!(wrong.header("www-authenticate").unwrap().contains("invalid_token"));
    assert!(!wrong.body.contains("wrong") && !wrong.body.contains("s3cret"), "{}", wrong.body);
    server.post("/events?type=order.created", &[bearer], "1").is(202);
    let other = server.post("/events?type=invoice.created", &[bearer], "1").is(403);
    assert!(other.header("www-authenticate").unwrap().contains("insufficient_scope"));
    // One that is not allowed refuses all.
    let mixed = format!("{EVENT}\n{}\n", EVENT.replace("order.created", "secret.read").replace("\"1\"", "\"2\""));
    server.post("/events", &[NDJSON, bearer], &mixed).is(403);
    server.ask("GET", "/events", &[bearer], b"").is(403);
    let reader = ("authorization", "Bearer reader");
    assert_eq!(server.ask("GET", "/events", &[reader], b"").is(200).ids().len(), 1);
    server.post("/events?type=order.created", &[reader], "1").is(403);
}

#[test]
fn check_tells_what_would_be_served() {
    let home = Home::new();
    home.file(
        "evbus.toml",
        "[serve.tokens.shop]\nsecret = \"env:TOKEN\"\nmay = [\"emit:order.*\", \"read:**\", \"pull:mail\"]\n[serve.groups.mail]\nlock = \"5m\"\nordered = true\n[serve.hooks.gh]\nverify = \"github\"\nsecret = \"env:HOOK\"\n",
    );
    let check = |token: &str| Home::ran(home.evbus(&["check"]).env("TOKEN", token).env("HOOK", "hook"));
    let said = check("s3cret").exits(0).out;
    for line in [
        "  listens  127.0.0.1:8787, in clear text",
        "  token    shop by env:TOKEN: may emit order.*; read **; pull mail",
        "  group    mail: locks of 5m, dead after 15 attempts, ordered by key",
        "  hook     /hooks/gh, verified as github by env:HOOK: github.{x-github-event}.{body.action}",
    ] {
        assert!(said.lines().any(|said| said == line), "{said}");
    }
    assert!(!said.contains("s3cret"), "{said}");
    check("").exits(2).says("serve: the token 'shop': env:TOKEN is empty", "");
}

/// A file that only its owner may read.
fn private(home: &Home, name: &str, content: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = home.file(name, content);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn what_others_could_reach_is_not_served_without_care() {
    let home = Home::new();
    let refused = |config: &str, said: &str| {
        home.file("serve.toml", config);
        let mut command = home.evbus(&["--config", "serve.toml", "serve"]);
        Home::ran(command.env("TOKEN", "s3cret")).exits(2).says(said, "");
    };
    let token = "[serve.tokens.a]\nsecret = \"env:TOKEN\"\nmay = [\"admin\"]\n";
    refused("[serve]\nlisten = \"0.0.0.0:0\"\n", "there is no token");
    refused(&format!("[serve]\nlisten = \"0.0.0.0:0\"\n{token}"), "in clear text");
    refused(&token.replace("TOKEN", "NO_SUCH_TOKEN"), "env:NO_SUCH_TOKEN is not set");
    refused(&token.replace("admin", "emit"), "'emit' is none of");
    refused("[serve.hooks.gh]\nverify = \"github\"\n", "has no secret");
    refused(
        "[serve.hooks.gh]\nverify = \"github\"\nsecret = \"env:NO_SUCH\"\n",
        "the hook 'gh': env:NO_SUCH is not set",
    );
    refused("[serve.hooks.gh]\ntype = \"a\"\n", "has no verify");
    refused("[serve.groups.mail]\nlock = \"0s\"\n", "must be from 1s to 1h");
    refused("[serve.groups.mail]\nretry = { dead_on = [65] }\n", "a member rejects what is dead");
    refused("[serve.groups.Mail]\n", "group name 'Mail'");
    refused("[serve.groups.mail]\nlocks = \"1s\"\n", "unknown key 'locks' in [serve.groups.mail]");
    refused("[serve]\nlisten = \"example.org:80\"\n", "is not ADDRESS:PORT");
    refused("[serve]\ncert = \"x\"\n", "needs 'key' beside it");
    home.run(&["serve", "--listen", "nowhere"]).exits(2).says("--listen 'nowhere'", "--listen 8787");
    let server = Server::new(&home);
    home.run(&["serve", "--listen", &server.address.to_string()]).exits(1).says("address already in use", "--listen");
}

#[test]
fn batches_follow_each_other_without_gap_or_repeat() {
    let home = Home::new();
    let server = Server::new(&home);
    for n in 0..5 {
        server.post("/events?type=a", &[], &n.to_string()).is(202);
        server.post("/events?type=b", &[], &n.to_string()).is(202);
    }
    let (mut path, mut seen) = ("/events?type=a&limit=2".to_owned(), Vec::new());
    loop {
        let batch = server.get(&path).is(200);
        assert_eq!(batch.header("cache-control"), Some("no-store"));
        let data = batch.data();
        path = batch.next();
        if data.is_empty() {
            break;
        }
        assert!(data.len() <= 2);
        seen.extend(data);
    }
    assert_eq!(seen, (0..5).map(Value::from).collect::<Vec<_>>());
    // A request that waits is answered by the next event.
    let waiting = format!("{path}&wait=60s");
    let address = server.address;
    let waits = std::thread::spawn(move || {
        let stream = TcpStream::connect(address).unwrap();
        ask(stream, &address.to_string(), "GET", &waiting, &[], b"").is(200).data()
    });
    server.post("/events?type=b", &[], "9").is(202);
    server.post("/events?type=a", &[], "5").is(202);
    assert_eq!(waits.join().unwrap(), [Value::from(5)]);
    let filtered = server.get("/events?not=b&where=data%20%3E%203").is(200).data();
    assert_eq!(filtered, [Value::from(4), Value::from(5)]);
}

#[test]
fn settled_events_come_without_a_worker() {
    let home = Home::new();
    let server = Server::new(&home);
    server.post("/events?type=a", &[], "1").is(202);
    until("W is raised by the server", || server.get("/events?order=settled").is(200).data() == [Value::from(1)]);
}

#[test]
fn a_stream_goes_on_where_it_was() {
    let home = Home::new();
    let server = Server::new(&home);
    server.post("/events?type=a", &[], "0").is(202);
    let mut stream = server.stream("/events?type=a", &[]);
    let begin = first_cursor(&mut stream);
    server.post("/events?type=a", &[], "1").is(202);
    server.post("/events?type=b", &[], "2").is(202);
    server.post("/events?type=a", &[], "3").is(202);
    let (_, first) = event(&mut stream);
    let (cursor, second) = event(&mut stream);
    assert_eq!((first, second), (1.into(), 3.into()), "from now on");
    drop(stream);
    server.post("/events?type=a", &[], "4").is(202);
    // At the same server nothing is seen again, also from where nothing had come yet.
    let again = |cursor: &str| server.stream("/events?type=a", &[("Last-Event-ID", cursor)]);
    assert_eq!(event(&mut again(&cursor)).1, 4);
    assert_eq!(event(&mut again(&begin)).1, 1);
    // Also after it was killed nothing is missing.
    let address = server.kill();
    home.run(&["emit", "a", "5", "-q"]).exits(0);
    let server = Server::with(&home, &["serve", "--listen", &address.to_string()]);
    let mut stream = server.stream("/events?type=a", &[("Last-Event-ID", &cursor)]);
    let mut seen = Vec::new();
    while seen.last() != Some(&Value::from(5)) {
        seen.push(event(&mut stream).1);
    }
    assert!(seen.contains(&Value::from(4)), "{seen:?}");
    server.ask("GET", "/events", &[("accept", "text/event-stream"), ("last-event-id", "x")], b"").is(400);
}

#[test]
fn a_reader_that_comes_too_late_is_told() {
    let home = Home::new();
    let server = Server::new(&home);
    server.post("/events?type=a", &[], "1").is(202);
    let old = server.get("/events?after=20200101T000000.000000Z").is(200);
    assert_eq!((old.data().len(), old.header("evbus-gap")), (1, None));
    until("the event is pruned", || {
        home.run(&["drain", "-g", "g", "--from", "earliest", "--", "true"]).exits(0);
        home.run(&["prune", "--keep", "0s", "--yes"]).exits(0);
        home.events().is_empty()
    });
    let late = server.get("/events?after=20200101T000000.000000Z").is(200);
    assert!(late.header("evbus-gap").is_some(), "{}", late.head);
    let mut stream = server.stream("/events", &[("Last-Event-ID", "20200101T000000.000000Z")]);
    first_cursor(&mut stream);
    assert_eq!(message(&mut stream)[0], ("event".to_owned(), "gap".to_owned()));
    assert_eq!(server.get("/events").is(200).header("evbus-gap"), None, "it asks for what is there");
}

#[test]
fn webhooks_of_other_services_become_events() {
    let home = Home::new();
    let server = Server::configured(
        &home,
        "[serve]\norigins = [\"https://site.example\"]\n[serve.hooks.github]\nverify = \"github\"\nsecret = \"env:HOOK\"\nattributes = { delivery = \"{x-github-delivery}\" }\n[serve.hooks.contact]\nverify = \"none\"\ntype = \"contact.sent\"\nsubject = \"{body.name}\"\nredirect = \"https://site.example/thanks\"\n",
    );
    // GitHub's own example of a signature.
    let signature = ("x-hub-signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
    let headers =
        [signature, ("x-github-event", "issues"), ("x-github-delivery", "d-1"), ("content-type", "text/plain")];
    for duplicates in [0, 1] {
        let posted = server.post("/hooks/github", &headers, "Hello, World!").is(202).json();
        assert_eq!(posted, serde_json::json!({ "ids": ["d-1"], "duplicates": duplicates }));
    }
    let refused = server.post("/hooks/github", &headers, "Hello, World?").is(401);
    assert!(!refused.body.contains("757107"), "{}", refused.body);
    server.post("/hooks/github", &headers[1..], "Hello, World!").is(401);
    let ping = [signature, ("x-github-event", "ping"), ("x-github-delivery", "d-0")];
    server.post("/hooks/github", &ping, "Hello, World!").is(200);
    let form = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("origin", "https://site.example"),
        ("accept", "text/html,*/*"),
    ];
    let sent = server.post("/hooks/contact", &form, "name=J+Doe&text=hi").is(303);
    assert_eq!(sent.header("location"), Some("https://site.example/thanks"));
    let events = server.get("/events").is(200).json();
    assert_eq!(events.as_array().unwrap().len(), 2, "{events}");
    let event = |at: usize, name: &str| events[at][name].clone();
    assert_eq!((event(0, "type"), event(0, "source")), ("github.issues".into(), "/hooks/github".into()));
    assert_eq!((event(0, "data"), event(0, "delivery")), ("Hello, World!".into(), "d-1".into()));
    assert_eq!((event(1, "type"), event(1, "subject")), ("contact.sent".into(), "J Doe".into()));
    assert_eq!(event(1, "data"), serde_json::json!({ "name": "J Doe", "text": "hi" }));
}

#[test]
fn consent_and_preflight_are_told_apart() {
    let home = Home::new();
    let server = Server::configured(&home, "[serve]\norigins = [\"https://app.example\"]\n");
    let consent = [("webhook-request-origin", "eventemitter.example.com"), ("webhook-request-rate", "120")];
    let answer = server.ask("OPTIONS", "/events", &consent, b"").is(204);
    assert_eq!(answer.header("webhook-allowed-origin"), Some("eventemitter.example.com"));
    assert_eq!(answer.header("webhook-allowed-rate"), Some("*"));
    assert_eq!(answer.header("access-control-allow-methods"), None);
    let preflight = |path, origin| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,authorization"),
        ];
        server.ask("OPTIONS", path, &headers, b"")
    };
    for path in ["/events", "/groups/mail:receive"] {
        let answer = preflight(path, "https://app.example").is(204);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
        assert_eq!(answer.header("access-control-allow-headers"), Some("content-type,authorization"));
        assert_eq!(answer.header("webhook-allowed-origin"), None);
        preflight(path, "https://evil.example").is(403);
    }
    preflight("/hooks/any", "https://app.example").is(405);
    let cross = server.ask("POST", "/events?type=a", &[("origin", "https://app.example")], b"1").is(202);
    assert_eq!(cross.header("access-control-allow-origin"), Some("https://app.example"));
}

#[test]
fn it_ends_with_its_streams_and_finishes_what_is_under_way() {
    let home = Home::new();
    let mut server = Server::new(&home);
    let mut stream = server.stream("/events", &[]);
    first_cursor(&mut stream);
    // Half a request, whose other half comes after the signal.
    let mut half = TcpStream::connect(server.address).unwrap();
    let head = format!("POST /events?type=late HTTP/1.1\r\nHost: {}\r\nContent-Length: 4\r\n\r\n12", server.address);
    half.write_all(head.as_bytes()).unwrap();
    // One that never says anything.
    let _silent = TcpStream::connect(server.address).unwrap();
    until("the request is under way", || server.get("/healthz").status == 200);
    signal(&server.child, "TERM");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("data:"), "{rest}");
    half.write_all(b"34").unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(home.run(&["ls"]).exits(0).out.contains("late"));
}

#[test]
fn a_unix_socket_is_served_and_goes_with_its_server() {
    let home = Home::new();
    let path = home.path().join("s.sock");
    let listen = format!("unix:{}", path.display());
    let server = Server::with(&home, &["serve", "--listen", "127.0.0.1:0", "--listen", &listen]);
    let ask = |path: &Path| ask(UnixStream::connect(path).unwrap(), "anything", "POST", "/events?type=a", &[], b"1");
    ask(&path).is(202);
    home.run(&["serve", "--listen", &listen]).exits(1).says("address already in use", "");
    // One that a killed server has left is replaced.
    server.kill();
    assert!(path.exists());
    let mut server = Server::with(&home, &["serve", "--listen", "127.0.0.1:0", "--listen", &listen]);
    ask(&path).is(202);
    signal(&server.child, "TERM");
    server.child.wait().unwrap();
    assert!(!path.exists());
}

#[test]
fn tls_is_spoken() {
    let home = Home::new();
    let made = home.shell(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost && chmod 600 key.pem",
    );
    made.exits(0);
    let server = Server::configured(&home, "[serve]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n");
    let port = server.address.port();
    let asked = home.shell(&format!(
        "curl -sS --cacert cert.pem --resolve localhost:{port}:127.0.0.1 -d 1 'https://localhost:{port}/events?type=a'"
    ));
    assert!(asked.out.contains("\"duplicates\":0"), "{}{}", asked.out, asked.err);
    home.shell("chmod 644 key.pem").exits(0);
    home.run(&["--config", "serve.toml", "serve"]).exits(2).says("is open to others (mode 0644)", "");
}

#[test]
fn a_bus_that_may_not_be_written_is_read_all_the_same() {
    if rustix::process::geteuid().is_root() {
        // Root writes everywhere.
        return;
    }
    let home = Home::new();
    home.run(&["emit", "a", "1", "-q"]).exits(0);
    home.shell("chmod -R a-w bus").exits(0);
    let server = Server::new(&home);
    assert_eq!(server.get("/events").is(200).data(), [Value::from(1)]);
    let refused = server.post("/events?type=a", &[], "2").is(503);
    assert!(refused.header("retry-after").is_some() && refused.body.contains("permission denied"), "{}", refused.body);
    home.shell("chmod -R u+w bus").exits(0);
}

// ---- clients that others wrote

/// The libraries that `./test` fetches.
fn fetched() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/webhooks")
}

/// A script of a client, for a server.
fn script(server: &Server, script: &str, args: &[&str]) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve");
    let mut command = match script.ends_with(".mjs") {
        true => {
            let mut command = Command::new("node");
            command.arg(scripts.join(script)).arg(fetched());
            command
        }
        false => {
            let mut command = Command::new(fetched().join("python/bin/python"));
            command.arg(scripts.join(script));
            command
        }
    };
    command.arg(server.url("")).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a script to its end; returns the last line that it prints.
pub fn client(server: &Server, name: &str, args: &[&str]) -> Value {
    seen(name, script(server, name, args).spawn().unwrap())
}

fn seen(name: &str, script: Child) -> Value {
    let ran = script.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{name}: {out}{err}");
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

/// A reader that says when it is connected, and what it has seen by its end.
struct Reading {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Reading {
    fn begin(server: &Server, name: &str, args: &[&str]) -> Self {
        let mut child = script(server, name, args).stderr(Stdio::inherit()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut reading = Self { child, lines };
        reading.until("open");
        reading
    }

    /// Reads up to the next line that tells this.
    fn until(&mut self, what: &str) -> Value {
        loop {
            let line = self.lines.next().expect("it has not ended").unwrap();
            let line: Value = serde_json::from_str(&line).unwrap();
            if line.get(what).is_some() {
                return line;
            }
        }
    }

    fn end(mut self) -> Value {
        let last = self.lines.by_ref().last().unwrap().unwrap();
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&last).unwrap()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_libraries_of_cloudevents_emit() {
    let home = Home::new();
    let server = Server::new(&home);
    for (name, subject) in [("client.mjs", "js.*"), ("client.py", "py.*")] {
        let answers = client(&server, name, &["emit"]);
        for (mode, events) in [("structured", 6), ("binary", 6), ("batch", 2)] {
            assert_eq!(answers[mode].as_array().map(Vec::len), Some(events), "{name} {mode} {answers}");
        }
        assert_eq!(answers["read"].as_array().map(Vec::len), Some(9), "{name} {answers}");
        assert_eq!(home.run(&["ls", "-t", subject, "-n", "100"]).exits(0).lines().len(), 9);
    }
}

#[test]
fn libraries_read_streams_over_a_restart() {
    for (name, kind) in [("client.mjs", "sse"), ("client.py", "sse")] {
        let home = Home::new();
        let mut server = Server::new(&home);
        let emit = |id: &str| home.run(&["emit", "order.created", "--id", id, "-q"]).exits(0);
        let mut reading = Reading::begin(&server, name, &[kind, "type=order.*", "4"]);
        // Killed before anything came, and after.
        server = Server::with(&home, &["serve", "--listen", &server.kill().to_string()]);
        emit("e1");
        reading.until("id");
        emit("e2");
        reading.until("id");
        let address = server.kill();
        emit("e3");
        server = Server::with(&home, &["serve", "--listen", &address.to_string()]);
        emit("e4");
        let seen = reading.end();
        let mut ids: Vec<&str> = seen["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids, ["e1", "e2", "e3", "e4"], "{name} {seen}");
        drop(server);
    }
}

#[test]
fn libraries_read_websockets() {
    for name in ["client.mjs", "client.py"] {
        let home = Home::new();
        let server = Server::new(&home);
        let reading = Reading::begin(&server, name, &["ws", "type=order.*", "4"]);
        for n in 0..4 {
            home.run(&["emit", "order.created", "--id", &n.to_string(), "-q"]).exits(0);
            home.run(&["emit", "invoice.created", "-q"]).exits(0);
        }
        let seen = reading.end();
        assert_eq!(seen["ids"], serde_json::json!(["0", "1", "2", "3"]), "{name} {seen}");
    }
}

#[test]
fn the_openapi_document_is_kept() {
    let home = Home::new();
    home.run(&["group", "create", "shop"]).exits(0);
    let server = Server::configured(
        &home,
        "[serve]\nmax_body = \"256KiB\"\norigins = [\"https://app.example\"]\n[serve.hooks.shop]\nverify = \"none\"\ntype = \"hook.{body.kind}\"\nid = \"{x-delivery}\"\nredirect = \"https://app.example/\"\n",
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ran = Command::new(root.join("target/schemathesis/bin/python"))
        .arg(root.join("tests/serve/contract.py"))
        .arg(server.url(""))
        .arg(root.join("src/serve/openapi.json"))
        .current_dir(root)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn libraries_sign_webhooks() {
    let home = Home::new();
    private(&home, "standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let server = Server::configured(
        &home,
        "[serve.hooks.github]\nverify = \"github\"\nsecret = \"env:HOOK\"\n[serve.hooks.standard]\nverify = \"standard\"\nsecret = \"file:standard\"\ntype = \"standard.{body.type}\"\n",
    );
    let seen = client(&server, "client.mjs", &["github", "It's a Secret to Everybody"]);
    assert!(seen["accepted"].as_u64().is_some_and(|accepted| accepted > 300), "{seen}");
    assert_eq!((&seen["repeated"], &seen["wrong"]), (&seen["accepted"], &401.into()), "{seen}");
    for name in ["client.mjs", "client.py"] {
        let seen = client(&server, name, &["standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
        assert_eq!(
            (&seen["accepted"][1]["duplicates"], &seen["wrong"], &seen["old"]),
            (&1.into(), &401.into(), &401.into())
        );
    }
}
