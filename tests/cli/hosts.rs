//! Several hosts share a group on a real server: one is cut off for longer than a lease and
//! returns, and all are replaced one by one while events come.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};

use super::bucket::{owned, owners};
use super::s3;
use super::support::{EVBUS, Home, signal, sorted, unique, until};

/// A handler that notes the event and its worker.
const NOTE: &str = "echo $EVBUS_ID $WHO >> seen; sleep 0.2";

fn watch() -> [&'static str; 10] {
    ["watch", "-g", "g", "-j", "2", "--poll", "1s", "--shell", NOTE, "--log=json"]
}

/// A worker whose log goes to a file of its name.
fn worker(home: &Home, who: &str) -> Child {
    let log = std::fs::File::create(home.path().join(who)).unwrap();
    home.evbus(&watch()).env("WHO", who).stderr(log).spawn().unwrap()
}

/// A worker in its own network namespace; lines on its stdin control its network.
fn worker_apart(home: &Home, who: &str, endpoint: &str) -> Child {
    let way_out = home.path().join("way-out");
    lead_out(&way_out, endpoint.trim_start_matches("http://").to_owned());
    let port = endpoint.rsplit(':').next().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/cut_off.py");
    let log = std::fs::File::create(home.path().join(who)).unwrap();
    let mut command = home.command("unshare");
    command.args(["-rn", "python3", script, way_out.to_str().unwrap(), port, EVBUS]).args(watch());
    command.env("WHO", who).stdin(Stdio::piped()).stderr(log).spawn().unwrap()
}

/// Connects a Unix socket, which every namespace can reach, to a server.
fn lead_out(socket: &Path, server: String) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for inside in listener.incoming().flatten() {
            let Ok(outside) = std::net::TcpStream::connect(&server) else { continue };
            let (mut from, mut to) = (inside.try_clone().unwrap(), outside.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
            let (mut from, mut to): (_, UnixStream) = (outside, inside);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        }
    });
}

fn tell(child: &mut Child, what: &str) {
    writeln!(child.stdin.as_mut().unwrap(), "{what}").unwrap();
}

/// The number of shards taken over from a worker that had not given them back, from the new owners'
/// logs.
fn taken_over(home: &Home, by: &[&str]) -> usize {
    let shard = |line: String| {
        let fact: serde_json::Value = serde_json::from_str(&line).ok()?;
        (fact["event"] == "acquired" && fact["unclean"] == true).then(|| fact["shard"].as_u64())?
    };
    let shards: Vec<u64> = by.iter().flat_map(|who| home.lines(who)).filter_map(shard).collect();
    shards.iter().collect::<std::collections::BTreeSet<_>>().len()
}

/// The runs: event and worker.
fn seen(home: &Home) -> Vec<(String, String)> {
    let pair = |line: &String| line.split_once(' ').map(|(id, who)| (id.to_owned(), who.to_owned()));
    home.lines("seen").iter().filter_map(pair).collect()
}

fn ids(seen: &[(String, String)]) -> Vec<String> {
    seen.iter().map(|(id, _)| id.clone()).collect()
}

/// Stops a worker and starts its replacement, while the others go on.
fn replace(home: &Home, old: &mut Child, who: &str) -> Child {
    let new = worker(home, who);
    signal(old, "TERM");
    assert!(old.wait().unwrap().success());
    until("the new one works", || !home.lines(who).is_empty() && seen(home).iter().any(|(_, by)| by == who));
    new
}

#[test]
fn a_partitioned_host_is_fenced_and_a_rolling_restart_repeats_none() {
    let server = s3::seaweedfs();
    let home = Home::at_bucket(&server.endpoint, "hosts");
    home.run(&["init"]).exits(0);
    home.run(&["group", "create", "g", "--from", "earliest", "--shards", "8"]).exits(0);
    let mut acked = home.emit_many("t", 500);
    // Emits, so that there is work while shards change owners.
    let mut feed = |is_so: bool| {
        if acked.len() < home.lines("seen").len() + 300 {
            acked.extend(home.emit_many("t", 200));
        }
        is_so
    };
    let mut cut = worker_apart(&home, "cut", &server.endpoint);
    until("it owns all", || feed(owned(&home) == [8]));
    let mut others = [worker(&home, "one"), worker(&home, "two")];
    until("they share", || feed(owned(&home) == [2, 3, 3]));

    let others_have: usize = owners(&home).iter().filter(|pid| others.iter().any(|other| other.id() == **pid)).count();
    tell(&mut cut, "down");
    until("the others have taken its shards over", || feed(taken_over(&home, &["one", "two"]) >= 8 - others_have));
    tell(&mut cut, "up");
    // Either another worker fenced it, or its lease ended before its next write.
    let lost = ["\"fenced\"", "\"let_go\""];
    let fenced = || home.lines("cut").iter().any(|line| lost.iter().any(|event| line.contains(event)));
    until("it learns that it has lost them", || feed(fenced()));
    acked.extend(home.emit_many("t", 100));
    until("all is handled", || acked.iter().all(|id| ids(&seen(&home)).contains(id)));
    let runs = seen(&home);
    let twice: Vec<&String> = acked.iter().filter(|id| runs.iter().filter(|(of, _)| of == *id).count() > 1).collect();
    let by_cut = |id: &&String| runs.iter().any(|(of, by)| of == *id && by == "cut");
    assert!(twice.iter().all(by_cut), "only what the one that was cut off had run is run again: {twice:?}");

    // The workers are replaced one by one, while events come.
    let before = seen(&home).len();
    let more = std::thread::scope(|scope| {
        let emitter = scope.spawn(|| (0..30).flat_map(|_| home.emit_many("t", 10)).collect::<Vec<_>>());
        tell(&mut cut, "term");
        assert!(cut.wait().unwrap().success());
        let [one, two] = &mut others;
        let newer = [replace(&home, one, "three"), replace(&home, two, "four")];
        others = newer;
        emitter.join().unwrap()
    });
    until("all is handled", || seen(&home).len() >= before + more.len());
    for worker in &mut others {
        signal(worker, "TERM");
        assert!(worker.wait().unwrap().success());
    }
    let after: Vec<String> = ids(&seen(&home)[before..]);
    assert_eq!(sorted(after), sorted(more), "each once");
    let left = home.run(&["drain", "-g", "g", "--shell", NOTE]).exits(0);
    assert_eq!(left.err, "", "nothing was left");
    assert!(unique(ids(&seen(&home))).len() >= acked.len() + 300);
}
