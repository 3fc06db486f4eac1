//! What `watch` serves: Prometheus metrics, the health check, and systemd's notifications.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};

use super::support::{Home, signal, until};

/// A watcher with its log in a file, and the address that it serves on.
fn served(home: &Home, args: &[&str], more: &[(&str, &str)]) -> (Child, String) {
    let mut command = home.evbus(&["watch", "--metrics", "127.0.0.1:0"]);
    let mut child = command.args(args).envs(more.iter().copied()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let address =
        lines.find_map(|line| Some(line.strip_prefix("metrics on http://")?.strip_suffix("/metrics")?.to_owned()));
    // The rest of the output is drained, so that a full pipe does not stop the watcher.
    std::thread::spawn(move || lines.count());
    (child, address.unwrap())
}

fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn metrics_and_health_are_served_on_the_loopback_interface() {
    let home = Home::new();
    home.emit_many("t", 3);
    let (mut child, address) = served(&home, &["-g", "g", "--from", "earliest", "--shell", "exit 65"], &[]);
    until("all are dead", || ask(&address, "GET /metrics").contains("evbus_worker_dead_total{group=\"g\"} 3\n"));
    let metrics = ask(&address, "GET /metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n") && metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("\nevbus_events 3\n") && metrics.contains("# TYPE evbus_worker_dead_total counter\n"));
    assert!(ask(&address, "GET /healthz").ends_with("\r\n\r\nok\n"));
    assert!(ask(&address, "GET /").starts_with("HTTP/1.1 404 "));
    assert!(ask(&address, "POST /metrics").starts_with("HTTP/1.1 405 "));
    // Connections without a request do not hold up others.
    let _idle: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(&address).unwrap()).collect();
    assert!(ask(&address, "HEAD /healthz").starts_with("HTTP/1.1 200 "));
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
    home.run(&["watch", "--metrics", "nowhere", "-g", "g", "--shell", "x"]).exits(2).says("no address", "9464");
}

#[test]
fn a_stalled_group_is_unhealthy() {
    let home = Home::new();
    let handler = home.script("handler", "exit 0");
    let (mut child, address) = served(&home, &["-g", "g", "--", &handler], &[]);
    assert!(ask(&address, "GET /healthz").ends_with("ok\n"));
    std::fs::remove_file(&handler).unwrap();
    home.emit_many("t", 1);
    until("its handler is missed", || ask(&address, "GET /healthz").starts_with("HTTP/1.1 503 "));
    assert!(ask(&address, "GET /healthz").contains("g: handler"));
    home.script("handler", "exit 0");
    until("it goes on", || ask(&address, "GET /healthz").ends_with("ok\n"));
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_watcher_that_the_config_has_no_more_is_not_unhealthy() {
    let home = Home::new();
    let handler = home.script("handler", "exit 0");
    let bad = format!("[watchers.bad]\ntypes = ['t']\nfrom = 'now'\ncommand = ['{handler}']\n");
    let good = "[watchers.good]\ntypes = ['u']\nfrom = 'now'\nshell = 'true'\n";
    home.file("evbus.toml", &format!("{good}{bad}"));
    let (mut child, address) = served(&home, &["--reload"], &[]);
    std::fs::remove_file(&handler).unwrap();
    home.emit_many("t", 1);
    until("its handler is missed", || ask(&address, "GET /healthz").contains("bad: handler"));
    home.file("evbus.toml", good);
    until("it is not wanted", || ask(&address, "GET /healthz").ends_with("ok\n"));
    // Nor is one of two watchers of a group, of which the other works.
    let of_group = |name: &str, action: &str| {
        format!("[watchers.{name}]\ngroup = 'both'\nshards = 8\ntypes = ['v']\nfrom = 'now'\n{action}\n")
    };
    home.script("handler", "exit 0");
    let [bad, good] = [of_group("x", &format!("command = ['{handler}']")), of_group("y", "shell = 'true'")];
    home.file("evbus.toml", &format!("{bad}{good}"));
    until("both work", || home.run(&["group", "ls"]).out.contains("both"));
    std::fs::remove_file(&handler).unwrap();
    until("its handler is missed", || {
        home.emit_many("v", 1);
        ask(&address, "GET /healthz").contains("both: handler")
    });
    home.file("evbus.toml", &good);
    until("the other works", || ask(&address, "GET /healthz").ends_with("ok\n"));
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
}

#[test]
fn systemd_is_notified_of_ready_watchdog_and_stopping() {
    let home = Home::new();
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let hear = || {
        let mut said = [0; 64];
        let len = socket.recv(&mut said).unwrap();
        String::from_utf8_lossy(&said[..len]).into_owned()
    };
    home.emit_many("t", 1);
    let handler = "echo \"${NOTIFY_SOCKET-unset} ${WATCHDOG_USEC-unset}\" > seen; sleep 1000";
    let args = ["-g", "g", "--from", "earliest", "--shell", handler];
    let service = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "20000")];
    let (mut child, _) = served(&home, &args, &service);
    assert_eq!(hear(), "READY=1");
    assert_eq!((hear(), hear()), ("WATCHDOG=1".to_owned(), "WATCHDOG=1".to_owned()));
    until("its handler runs", || home.lines("seen") == ["unset unset"]);
    signal(&child, "TERM");
    // The process waits for its handler, and sends signs of life meanwhile.
    while hear() != "STOPPING=1" {}
    assert_eq!(hear(), "WATCHDOG=1");
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
}

#[test]
fn each_log_line_names_its_event_and_attempt() {
    let home = Home::new();
    let id = home.emit_many("t", 1).remove(0);
    let drain = |format: &str| {
        let handler = "echo out; echo no >&2; exit 1";
        let args =
            ["drain", "-g", format, "--from", "earliest", "--max-attempts", "1", "--log", format, "--shell", handler];
        home.run(&args).exits(0)
    };
    let people = drain("human");
    assert_eq!(people.out, format!("human {id} #1| out\n"));
    assert_eq!(people.err.lines().next(), Some(&*format!("human {id} #1| no")));
    assert!(people.err.contains(&format!("human: dead after 1 attempt: exit 1 \"no\" ({id} t)\n")), "{}", people.err);
    let machine = drain("json");
    assert_eq!(machine.out, format!("json {id} #1| out\n"));
    let lines: Vec<serde_json::Value> =
        machine.err.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of =
        |event: &str| lines.iter().find(|line| line["event"] == event).unwrap_or_else(|| panic!("{}", machine.err));
    let (said, dead) = (of("stderr"), of("dead"));
    assert_eq!((&said["message"], &said["attempt"]), (&"no".into(), &"1".into()));
    assert_eq!((&dead["attempt"], &dead["why"], &dead["level"]), (&1.into(), &"exit 1 \"no\"".into(), &"ERROR".into()));
    for line in [said, dead] {
        assert_eq!((&line["group"], &line["id"]), (&"json".into(), &id.as_str().into()));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }
    let mut odd = home.evbus(&["drain", "-g", "g", "--from", "now", "--shell", "x"]);
    let refused = super::support::CliRun::of(odd.env("EVBUS_LOG", "a=b=c").output().unwrap()).exits(2);
    refused.says("EVBUS_LOG: 'a=b=c' selects no logs", "EVBUS_LOG=debug");
}
