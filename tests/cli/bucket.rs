//! The same bus in a bucket, on real servers: the main job, and faults of a bucket.

use super::proxy::{self, ProxyOptions};
use super::s3;
use super::support::{CliRun, Home, signal, sorted, unique, until};

/// Appends the event's id to `seen`.
const NOTE: &str = "echo $EVBUS_ID >> seen";

/// A home with a bus in the bucket of the server that keeps acknowledged writes.
fn home(prefix: &str) -> Home {
    let home = Home::at_bucket(&s3::seaweedfs().endpoint, prefix);
    let made = home.run(&["init"]).exits(0);
    assert!(made.out.starts_with("made the bus s3://"), "{}", made.out);
    home
}

#[test]
fn a_bucket_runs_every_event_despite_a_killed_worker() {
    let home = home("job");
    home.run(&["group", "create", "all", "--from", "earliest", "--shards", "4"]).exits(0);
    let lines: String = (0..150).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    home.file("lines", &lines);
    // Two processes emit while three workers share a group and a fourth has its own; one is killed
    // meanwhile.
    let emit = |type_: &str| home.shell_spawn(&format!("$EVBUS emit {type_} --ndjson @lines >> acked"));
    let watch = |group: &str, who: usize, note: &str| {
        let args = ["watch", "-q", "-g", group, "-j", "2", "--poll", "1s", "--from", "earliest", "--shell", note];
        home.evbus(&args).env("WHO", who.to_string()).spawn().unwrap()
    };
    let mut workers: Vec<_> = (0..3).map(|who| watch("all", who, "echo $EVBUS_ID $WHO >> seen")).collect();
    workers.push(watch("own", 3, "echo $EVBUS_ID >> own"));
    let id = |line: String| line.split(' ').next().unwrap().to_owned();
    let seen = || home.lines("seen").into_iter().map(id).collect::<Vec<_>>();
    let mut emitters = [emit("order.created"), emit("order.paid")];
    until("the first events are handled", || home.lines("seen").len() > 20);
    signal(&workers[0], "KILL");
    for emitter in &mut emitters {
        assert!(emitter.wait().unwrap().success());
    }
    until("all is handled", || unique(seen()).len() == 300 && unique(home.lines("own")).len() == 300);
    for worker in &workers[1..] {
        signal(worker, "TERM");
    }
    assert!(workers.iter_mut().skip(1).all(|worker| worker.wait().unwrap().success()));
    workers[0].wait().unwrap();
    let acked = sorted(home.lines("acked"));
    assert_eq!(unique(seen()), acked);
    assert_eq!(sorted(home.lines("own")), acked, "no process was killed there, and nothing runs twice");
    // Only events that the killed worker had run and not recorded ran again: once each, by another
    // worker.
    let runs = unique(home.lines("seen"));
    let twice = |id: &&String| runs.iter().filter(|run| run.starts_with(*id)).count() > 1;
    assert!(acked.iter().filter(twice).all(|id| runs.contains(&format!("{id} 0"))), "{runs:?}");
    assert_eq!((seen().len(), runs.len()), (runs.len(), 300 + acked.iter().filter(twice).count()));
    let idle = home.run(&["drain", "-g", "all", "--shell", NOTE]).exits(0);
    assert_eq!(idle.err, "");
}

#[test]
fn shards_spread_over_joining_workers() {
    let home = home("spread");
    home.run(&["group", "create", "g", "--from", "earliest", "--shards", "8"]).exits(0);
    let ids = home.emit_many("t", 900);
    // Slow enough that work is left while the shards change owners.
    let slow = "echo $EVBUS_ID >> seen; sleep 0.2";
    let watch = || home.spawn(&["watch", "-q", "-g", "g", "--poll", "1s", "--shell", slow]);
    let mut workers = vec![watch()];
    until("the first owns all", || owned(&home) == [8]);
    workers.extend([watch(), watch()]);
    until("each owns two or three", || owned(&home) == [2, 3, 3]);
    for worker in &mut workers {
        signal(worker, "TERM");
        assert!(worker.wait().unwrap().success());
    }
    home.run(&["drain", "-q", "-g", "g", "-j", "16", "--shell", NOTE]).exits(0);
    assert_eq!(sorted(home.lines("seen")), sorted(ids), "nothing was lost, and nothing ran twice");
}

/// The process that owns each owned shard.
pub fn owners(home: &Home) -> Vec<u32> {
    let status = home.run(&["status", "g", "--json"]).exits(0).out;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let owners = status["groups"][0]["owners"].as_array().unwrap();
    owners.iter().map(|owner| u32::try_from(owner["pid"].as_u64().unwrap()).unwrap()).collect()
}

/// How many shards each owner has, the fewest first.
pub fn owned(home: &Home) -> Vec<usize> {
    let mut counts = std::collections::BTreeMap::new();
    for pid in owners(home) {
        *counts.entry(pid).or_insert(0) += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    counts
}

#[test]
fn dead_letters_redrives_and_prune_work_in_a_bucket() {
    let home = home("dead");
    let id = home.emit_many("t", 1).remove(0);
    let drain = |line: &str| {
        home.run(&["drain", "-g", "g", "--from", "earliest", "--max-attempts", "1", "--shell", line]).exits(0)
    };
    assert!(drain("echo broken >&2; exit 3").err.contains("1 dead, 0 left"));
    assert!(home.run(&["dead", "show", "g"]).exits(0).out.contains("broken"));
    home.run(&["dead", "redrive", "g", &id]).exits(0);
    assert!(drain(NOTE).err.contains("1 done, 0 left"));
    assert_eq!(home.lines("seen"), std::slice::from_ref(&id));
    assert!(home.run(&["get", &id]).exits(0).out.contains(&id));
    home.run(&["emit", "t", "--id", "mine"]).exits(0);
    home.run(&["emit", "t", "--id", "mine"]).exits(0);
    assert_eq!(home.run(&["ls"]).exits(0).lines().len(), 2);
    let cost = home.run(&["status", "--cost"]).exits(0).out;
    let emits = "emit: 2 events in 2 objects: 2 put, 2 get, 0 list, 0 delete, about $0.000011, $5.40 a million\n";
    assert!(cost.contains(emits), "{cost}");
    assert!(drain(NOTE).err.contains("1 done, 0 left"));
    let kept = home.url().replacen("/dead?", "/dead-kept?", 1);
    until("what is done can be pruned", || {
        home.run(&["drain", "-q", "-g", "g", "--shell", NOTE]).exits(0);
        home.run(&["prune", "--keep", "0s", "--archive", &kept]).exits(0);
        home.run(&["ls"]).exits(0).lines().is_empty()
    });
    let lines = home.run(&["replay", "--archive", &kept]).exits(0).lines();
    assert!(lines.len() == 2 && lines[0].contains(&id) && lines[1].contains("\"id\":\"mine\""), "{lines:?}");
}

#[test]
fn workers_wait_for_an_unreachable_server_and_continue() {
    let mut server = s3::Restartable::start();
    let home = Home::at_bucket(&server.endpoint, "gone");
    home.run(&["init"]).exits(0);
    let before = home.emit_many("t", 3);
    let watch = "exec $EVBUS watch -g g --poll 1s --from earliest --shell 'echo $EVBUS_ID >> seen' 2> said";
    let mut watch = home.shell_spawn(watch);
    until("it works", || home.lines("seen").len() == 3);
    server.kill();
    home.run(&["emit", "t", "--timeout", "1s"]).exits(75).says("cannot reach http://127.0.0.1:", "");
    until("it waits", || home.lines("said").iter().any(|line| line.contains("g: waiting: ")));
    server.restart();
    let after = home.emit_many("t", 3);
    until("it goes on", || home.lines("seen").len() == 6);
    signal(&watch, "TERM");
    assert!(watch.wait().unwrap().success());
    assert_eq!(sorted(home.lines("seen")), sorted([before, after].concat()));
    let said = home.lines("said").join("\n");
    assert_eq!((said.matches("waiting: ").count(), said.matches("goes on").count()), (1, 1), "{said}");
}

#[test]
fn bucket_errors_are_reported() {
    let server = s3::seaweedfs();
    let url = |bucket: &str, endpoint: &str| format!("s3://{bucket}/x?endpoint={endpoint}");
    let home = Home::at_bucket(&server.endpoint, "none");
    home.run(&["ls"]).exits(2).says("no bus at s3://evbus/none", "evbus init");
    home.run(&["ls", "--bus", &url("nobody", &server.endpoint)]).exits(1).says("no bucket 'nobody' at http", "");
    home.run(&["ls", "--bus", &url("evbus", "http://127.0.0.1:1")]).exits(75).says("connection refused", "");
    let with = |name: &str, value: &str| {
        let output = home.evbus(&["ls"]).env(name, value).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, err) = with("AWS_SECRET_ACCESS_KEY", "hush-hush");
    assert!(code == Some(1) && err.contains("the secret key is wrong") && !err.contains("hush"), "{err}");
    let (code, err) = with("AWS_ACCESS_KEY_ID", "XX");
    assert!(code == Some(1) && err.contains("does not know this access key"), "{err}");
    let (code, err) = with("AWS_PROFILE", "lab");
    assert!(code == Some(2) && err.contains("no AWS profile 'lab'"), "{err}");
    home.run(&["init", "--shared", "group"]).exits(2).says("--shared is for folders", "");
}

#[test]
fn a_missing_write_permission_is_reported() {
    let home = home("read-only");
    let as_reader = |args: &[&str]| {
        let mut command = home.evbus(args);
        command.env("AWS_ACCESS_KEY_ID", s3::READER).env("AWS_SECRET_ACCESS_KEY", "RS");
        CliRun::of(command.output().unwrap())
    };
    as_reader(&["ls"]).exits(0);
    as_reader(&["emit", "t"]).exits(1).says("no permission", "evbus doctor");
    let told = as_reader(&["doctor"]).exits(1).out;
    for line in ["FAIL permissions  may not write", "cure: allow s3:PutObject on arn:aws:s3:::evbus/read-only/*"] {
        assert!(told.contains(line), "{told}");
    }
    assert!(!told.contains("may not list") && !told.contains("may not read"), "{told}");
    home.run(&["emit", "t"]).exits(0);
    assert!(home.run(&["doctor"]).exits(0).out.contains("ok   permissions  write, read, list, delete"));
}

#[test]
fn no_bus_is_created_on_a_server_that_ignores_conditions() {
    let home = Home::at_bucket(&s3::rclone().endpoint, "unfit");
    home.run(&["init"]).exits(1).says("cannot carry a bus: create: two creators of one key both won", "conditional");
    home.run(&["ls"]).exits(2).says("no bus at", "");
}

/// A policy in SECURITY.md, by its heading.
fn policy(heading: &str) -> serde_json::Value {
    let text = include_str!("../../SECURITY.md");
    let (_, after) = text.split_once(&format!("**{heading}.**")).unwrap();
    let json = after.split("```").nth(1).unwrap().strip_prefix("json").unwrap();
    serde_json::from_str(json).unwrap()
}

/// Whether a policy for the prefix `prod` allows an action on a key.
fn allows(policy: &serde_json::Value, action: &str, key: &str) -> bool {
    let resource = format!("arn:aws:s3:::acme-events/{key}");
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => resource.starts_with(start),
        None => resource == pattern || (action == "s3:ListBucket" && pattern == "arn:aws:s3:::acme-events"),
    };
    let any = |list: &serde_json::Value, fits: &dyn Fn(&str) -> bool| {
        list.as_array().unwrap().iter().any(|item| fits(item.as_str().unwrap()))
    };
    let statements = policy["Statement"].as_array().unwrap();
    statements.iter().any(|of| any(&of["Action"], &|given| given == action) && any(&of["Resource"], &fits))
}

#[test]
fn the_documented_policies_cover_every_request() {
    let server = s3::seaweedfs();
    let admin = Home::at_bucket(&server.endpoint, "prod");
    admin.run(&["init"]).exits(0);
    admin.run(&["group", "create", "g", "--from", "earliest"]).exits(0);
    let judged = |proxy: &proxy::RunningProxy, heading: &str| {
        let policy = policy(heading);
        for proxy::ProxiedRequest { method, target, body } in proxy.seen() {
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let key = path.trim_start_matches('/').trim_start_matches(s3::BUCKET).trim_start_matches('/');
            let (action, keys) = match (method.as_str(), query.contains("list-type=")) {
                ("GET", true) => ("s3:ListBucket", vec![key]),
                ("GET", false) => ("s3:GetObject", vec![key]),
                ("PUT", _) => ("s3:PutObject", vec![key]),
                // Several keys in one request, named in the body (Amazon S3 API reference,
                // DeleteObjects).
                ("POST", _) => {
                    let keys = body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
                    ("s3:DeleteObject", keys.collect())
                }
                _ => ("s3:DeleteObject", vec![key]),
            };
            assert!(!keys.is_empty(), "{method} {target} {body}");
            for key in keys {
                assert!(allows(&policy, action, key), "{heading}: {method} {key}");
            }
        }
        assert!(!proxy.seen().is_empty());
    };
    let emits = proxy::start(&server.endpoint, ProxyOptions::default());
    let emitter = Home::at_bucket(&emits.endpoint, "prod");
    emitter.emit_many("t", 20);
    for _ in 0..2 {
        emitter.run(&["emit", "t", "--id", "mine"]).exits(0);
    }
    let waits = emitter.run(&["emit", "t", "--delay", "1d"]).exits(0).lines().remove(0);
    emitter.run(&["cancel", &waits]).exits(0);
    judged(&emits, "Emit only");
    let consumes = proxy::start(&server.endpoint, ProxyOptions::default());
    let consumer = Home::at_bucket(&consumes.endpoint, "prod");
    let drain = |line: &str| consumer.run(&["drain", "-g", "g", "--max-attempts", "1", "--shell", line]).exits(0);
    assert!(drain("exit 1").err.contains("21 dead"));
    admin.run(&["dead", "redrive", "g", "--all", "--yes"]).exits(0);
    assert!(drain("true").err.contains("21 done"));
    judged(&consumes, "Consume only");
}

#[test]
fn scheduled_events_are_released_when_due_in_a_bucket() {
    let home = home("waits");
    home.run(&["group", "create", "g", "--from", "earliest"]).exits(0);
    home.run(&["emit", "later", "--delay", "1d"]).exits(0);
    let mut watcher = home.evbus(&["watch", "-q", "-g", "g", "--poll", "1s", "--shell", NOTE]).spawn().unwrap();
    let id = home.run(&["emit", "t", "--delay", "1s"]).exits(0).lines().remove(0);
    until("it has come", || home.lines("seen") == [id.as_str()]);
    signal(&watcher, "TERM");
    assert!(watcher.wait().unwrap().success());
    assert_eq!(home.run(&["ls", "--scheduled"]).exits(0).lines().len(), 1);
    // A drain looks for scheduled entries itself.
    let id = home.run(&["emit", "t", "--delay", "1ms"]).exits(0).lines().remove(0);
    let drain = || home.run(&["drain", "-q", "-g", "g", "--shell", NOTE]).exits(0);
    until("it has come", || drain().code == 0 && home.lines("seen").contains(&id));
    assert_eq!(home.lines("seen").len(), 2);
}
