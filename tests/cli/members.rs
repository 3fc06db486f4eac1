//! Members of a group that go through a server: over plain HTTP, and as `evbus emit`, `tail` and `watch`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::serve::{Answer, Server};
use super::support::{Home, signal, until};

/// What a member is given, waiting for it.
fn receive(server: &Server, group: &str, most: usize) -> Vec<Value> {
    let receipt = server.post(&format!("/groups/{group}:receive?maxEvents={most}&maxWaitTime=60"), &[], "").is(200);
    assert_eq!(receipt.header("cache-control"), Some("no-store"));
    receipt.json()["value"].as_array().unwrap().clone()
}

fn token(received: &Value) -> &str {
    received["brokerProperties"]["lockToken"].as_str().unwrap()
}

/// Changes one lock.
fn change(server: &Server, operation: &str, token: &str, rest: &Value) -> Answer {
    let mut body = rest.clone();
    body["lockTokens"] = json!([token]);
    server.post(&format!("/groups/mail:{operation}"), &[], &body.to_string())
}

/// The code of the error that a token has.
fn failure(server: &Server, operation: &str, token: &str) -> String {
    let answer = change(server, operation, token, &json!({})).is(200).json();
    answer["failedLockTokens"][0]["error"]["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[test]
fn a_member_fetches_events_and_says_how_they_ended() {
    let home = Home::new();
    let server = Server::new(&home);
    server.post("/groups/mail:receive", &[], "").is(404);
    let made = server.ask("PUT", "/groups/mail", &[], b"{\"types\": [\"order.*\"], \"shards\": 2}").is(201).json();
    assert_eq!((&made["types"], &made["shards"]), (&json!(["order.*"]), &2.into()));
    assert_eq!(server.ask("PUT", "/groups/mail", &[], b"").is(200).json(), made);
    assert_eq!(server.get("/groups/mail").is(200).json(), made);
    server.ask("PUT", "/groups/mail", &[], b"{\"types\": [\"other\"]}").is(409);
    for n in 0..4 {
        server.post("/events?type=order.created", &[], &n.to_string()).is(202);
    }
    server.post("/events?type=other", &[], "9").is(202);
    let unsaid = server.ask("PUT", "/groups/late", &[], b"{}").is(409).json();
    assert_eq!(unsaid["parameter"], "start", "{unsaid}");

    // What is there is found without waiting, too.
    let first = server.post("/groups/mail:receive?maxEvents=3&maxWaitTime=0", &[], "").is(200).json();
    let mut all = first["value"].as_array().unwrap().clone();
    assert!(!all.is_empty());
    while all.len() < 4 {
        all.extend(receive(&server, "mail", 3));
    }
    let data: BTreeSet<i64> = all.iter().map(|one| one["event"]["data"].as_i64().unwrap()).collect();
    assert_eq!(data, BTreeSet::from([0, 1, 2, 3]));
    assert!(all.iter().all(|one| one["brokerProperties"]["deliveryCount"] == 1));
    let none = server.post("/groups/mail:receive?maxWaitTime=0", &[], "").is(200).json();
    assert_eq!(none["value"], json!([]), "each is one member's");

    let acknowledged = change(&server, "acknowledge", token(&all[0]), &json!({})).is(200).json();
    assert_eq!(acknowledged, json!({ "succeededLockTokens": [token(&all[0])], "failedLockTokens": [] }));
    change(&server, "reject", token(&all[1]), &json!({ "exit": 9, "stderr": "no such order" })).is(200);
    let released =
        change(&server, "release?releaseDelayInSeconds=0", token(&all[2]), &json!({ "stderr": "busy" })).is(200);
    assert_eq!(released.json()["failedLockTokens"], json!([]));
    let returned = change(&server, "release?counted=false", token(&all[3]), &json!({})).is(200).json();
    assert_eq!(returned["failedLockTokens"], json!([]));
    assert_eq!(failure(&server, "acknowledge", token(&all[1])), "SettledOtherwise");
    assert_eq!(failure(&server, "acknowledge", "x"), "NoToken");
    assert_eq!(failure(&server, "renewLock", "0000000000000001-1-00000001"), "OtherWorker");

    let again = receive(&server, "mail", 1);
    assert_eq!(
        (&again[0]["event"]["id"], &again[0]["brokerProperties"]["deliveryCount"]),
        (&all[3]["event"]["id"], &1.into())
    );
    change(&server, "renewLock", token(&again[0]), &json!({})).is(200);
    change(&server, "acknowledge", token(&again[0]), &json!({})).is(200);
    let again = receive(&server, "mail", 1);
    assert_eq!(
        (&again[0]["event"]["id"], &again[0]["brokerProperties"]["deliveryCount"]),
        (&all[2]["event"]["id"], &2.into())
    );
    change(&server, "acknowledge", token(&again[0]), &json!({})).is(200);

    let dead: Value =
        serde_json::from_str(home.run(&["dead", "ls", "mail", "--json"]).exits(0).lines()[0].as_str()).unwrap();
    assert_eq!((&dead["exit"], &dead["attempts"]), (&9.into(), &1.into()), "{dead}");
    let id = all[1]["event"]["id"].as_str().unwrap();
    let shown = home.run(&["dead", "show", "mail", id]).exits(0).out;
    assert!(shown.contains("no such order"), "{shown}");
    until("all is done", || {
        let status: Value = serde_json::from_str(&home.run(&["status", "--json"]).exits(0).out).unwrap();
        status["groups"][0]["lag"] == 0
    });
}

#[test]
fn what_a_member_asks_for_wrongly_is_named() {
    let home = Home::new();
    let server = Server::new(&home);
    server.ask("PUT", "/groups/mail", &[], b"").is(201);
    for (path, body, parameter) in [
        ("receive?maxEvents=0", "", "maxEvents"),
        ("receive?maxEvents=101", "", "maxEvents"),
        ("receive?maxWaitTime=1s", "", "maxWaitTime"),
        ("receive?maxevents=1", "", "maxevents"),
        ("acknowledge?x=1", "{\"lockTokens\":[\"a\"]}", "x"),
        ("release?releaseDelayInSeconds=-1", "{\"lockTokens\":[\"a\"]}", "releaseDelayInSeconds"),
        ("release?counted=no", "{\"lockTokens\":[\"a\"]}", "counted"),
        ("acknowledge", "{\"lockTokens\":[]}", "lockTokens"),
    ] {
        let problem = server.post(&format!("/groups/mail:{path}"), &[], body).is(400).json();
        assert_eq!(problem["parameter"], *parameter, "{problem}");
    }
    for body in ["", "[]", "{}", "{\"lockTokens\":[1]}", "{\"lockTokens\":[\"a\"],\"more\":1}"] {
        server.post("/groups/mail:acknowledge", &[], body).is(400);
    }
    server.post("/groups/mail:recieve", &[], "").is(404);
    server.post("/groups/Mail:receive", &[], "").is(400);
    for body in ["[]", "{\"types\":[\"a..b\"]}", "{\"where\":\"(\"}", "{\"start\":\"soon\"}", "{\"shards\":0}"] {
        server.ask("PUT", "/groups/new", &[], body.as_bytes()).is(400);
    }
}

#[test]
fn a_lock_that_expires_is_an_attempt() {
    let home = Home::new();
    let config = "[serve.groups.mail]\nlock = \"1s\"\nretry = { min = \"0s\", max_attempts = 2 }\n";
    let server = Server::configured(&home, config);
    server.ask("PUT", "/groups/mail", &[], b"").is(201);
    server.post("/events?type=t", &[], "1").is(202);
    let first = receive(&server, "mail", 1);
    let second = receive(&server, "mail", 1);
    assert_eq!(second[0]["brokerProperties"]["deliveryCount"], 2);
    assert_eq!(failure(&server, "acknowledge", token(&first[0])), "LockExpired");
    until("it is dead", || !home.run(&["dead", "ls", "mail", "--json"]).exits(0).out.is_empty());
    assert_eq!(failure(&server, "acknowledge", token(&second[0])), "LockExpired");
}

#[test]
fn a_server_that_stops_gives_its_locks_back() {
    let home = Home::new();
    let mut server = Server::new(&home);
    server.ask("PUT", "/groups/mail", &[], b"").is(201);
    server.post("/events?type=t", &[], "1").is(202);
    let before = receive(&server, "mail", 1);
    signal(&server.child, "TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let status: Value = serde_json::from_str(&home.run(&["status", "--json"]).exits(0).out).unwrap();
    assert_eq!(status["groups"][0]["owners"], json!([]), "{status}");
    let server = Server::new(&home);
    let after = receive(&server, "mail", 1);
    assert_eq!(after[0]["event"], before[0]["event"]);
    assert_eq!(after[0]["brokerProperties"]["deliveryCount"], 1, "that was no attempt");
    assert_eq!(failure(&server, "acknowledge", token(&before[0])), "OtherWorker");
    // Killed, it leaves its locks behind; that members hold events hinders no other.
    server.post("/events?type=t", &[], "2").is(202);
    server.kill();
    for _ in 0..2 {
        let server = Server::new(&home);
        assert_eq!(receive(&server, "mail", 1).len(), 1);
        server.kill();
    }
    let server = Server::new(&home);
    let mut last = receive(&server, "mail", 1);
    last.extend(receive(&server, "mail", 1));
    let data: BTreeSet<i64> = last.iter().map(|one| one["event"]["data"].as_i64().unwrap()).collect();
    assert_eq!(data, BTreeSet::from([1, 2]));
    last.iter().for_each(|one| _ = change(&server, "acknowledge", token(one), &json!({})).is(200));
}

#[test]
fn members_that_wait_leave_connections_to_others() {
    let home = Home::new();
    let server = Server::configured(&home, "[serve]\nmax_connections = 4\n");
    server.ask("PUT", "/groups/mail", &[], b"").is(201);
    std::thread::scope(|scope| {
        // One that comes while the test asks is refused, too, and comes again.
        let wait = || loop {
            let answer = server.post("/groups/mail:receive?maxWaitTime=60", &[], "");
            if answer.status != 429 {
                return answer.is(200).json();
            }
        };
        let waiting: Vec<_> = (0..3).map(|_| scope.spawn(wait)).collect();
        until("one too many is refused", || server.post("/groups/mail:receive?maxWaitTime=1", &[], "").status == 429);
        for n in 0..3 {
            server.post("/events?type=t", &[], &n.to_string()).is(202);
        }
        let taken: usize =
            waiting.into_iter().map(|member| member.join().unwrap()["value"].as_array().unwrap().len()).sum();
        assert_eq!(taken, 3);
    });
}

#[test]
fn a_group_that_is_made_anew_waits_for_nobody() {
    let home = Home::new();
    let server = Server::new(&home);
    server.ask("PUT", "/groups/mail", &[], b"").is(201);
    server.post("/events?type=t", &[], "1").is(202);
    let held = receive(&server, "mail", 1);
    // As by an operator who does not ask for workers first.
    home.shell("rm -r bus/groups/mail.json* bus/state/mail").exits(0);
    home.run(&["group", "create", "mail", "--from", "earliest", "--shards", "4"]).exits(0);
    // Whoever has an event of the former group may keep its lock for as long as the former worker does.
    let again = until_some(|| {
        change(&server, "renewLock", token(&held[0]), &json!({})).is(200);
        let receipt = server.post("/groups/mail:receive?maxWaitTime=1", &[], "");
        (receipt.status == 200).then(|| receipt.json()["value"].as_array().unwrap().first().cloned()).flatten()
    });
    assert_eq!(again["event"]["data"], 1);
}

fn until_some<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    until("it is there", || {
        found = look();
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn only_its_groups_are_for_a_token_that_may_pull() {
    let home = Home::new();
    let config = "[serve.tokens.phone]\nsecret = \"env:TOKEN\"\nmay = [\"pull:mail\"]\n";
    let server = Server::configured(&home, config);
    home.run(&["group", "create", "mail"]).exits(0);
    home.run(&["group", "create", "other"]).exits(0);
    home.run(&["emit", "t", "1"]).exits(0);
    let bearer = ("authorization", "Bearer s3cret");
    server.post("/groups/mail:receive", &[], "").is(401);
    let received = server.post("/groups/mail:receive", &[bearer], "").is(200).json();
    assert_eq!(received["value"][0]["event"]["data"], 1);
    let other = server.post("/groups/other:receive", &[bearer], "").is(403);
    assert!(other.header("www-authenticate").unwrap().contains("pull:other"), "{}", other.head);
    server.ask("GET", "/groups/other", &[bearer], b"").is(403);
    server.ask("GET", "/groups/mail", &[bearer], b"").is(200);
    server.ask("PUT", "/groups/mail", &[bearer], b"").is(403);
    server.ask("GET", "/events", &[bearer], b"").is(403);
}

/// `evbus` with the server as its bus.
fn through(home: &Home, server: &Server, args: &[&str]) -> std::process::Command {
    let mut command = home.evbus(args);
    command.env("EVBUS_URL", server.url("/")).env("EVBUS_TOKEN", "s3cret");
    command
}

/// A process that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn events_are_emitted_and_followed_through_a_server() {
    let home = Home::new();
    // Less than what is emitted together below.
    let config = "[serve]\nmax_body = \"16KiB\"\n[serve.tokens.all]\nsecret = \"env:TOKEN\"\nmay = [\"admin\"]\n";
    let server = Server::configured(&home, config);
    home.run(&["emit", "old", "0"]).exits(0);
    let emit = |args: &[&str]| Home::ran(&mut through(&home, &server, args));
    let id = emit(&["emit", "order.created", "{\"n\":1}", "--subject", "s"]).exits(0).lines().remove(0);
    assert!(home.run(&["get", &id]).exits(0).out.contains("\"subject\":\"s\""));
    for _ in 0..2 {
        assert_eq!(emit(&["emit", "order.created", "2", "--id", "x", "--source", "//shop"]).exits(0).lines(), ["x"]);
    }
    emit(&["emit", "order.created", "3", "--id", "x", "--source", "//shop"]).exits(1).says(
        "id 'x' of //shop is another event's: this one is not on the bus",
        "evbus get --source //shop x shows it; --if-exists ok accepts that",
    );
    emit(&["emit", "order.created", "3", "--id", "x", "--source", "//shop", "--if-exists", "ok"]).exits(0);
    let lines: String = (0..1_500).map(|n| format!("{n}\n")).collect();
    home.file("lines", &lines);
    assert_eq!(emit(&["emit", "line", "--ndjson", "@lines"]).exits(0).lines().len(), 1_500);
    assert_eq!(home.run(&["ls", "-t", "line", "-n", "0"]).exits(0).lines().len(), 1_500);
    let large = format!("\"{}\"", "x".repeat(20_000));
    assert!(emit(&["emit", "line", &large]).exits(1).err.contains("over the limit of 16384 bytes"));
    // Of two events with one id the one that is not taken is on the bus.
    let event = |source: &str, n: u32| {
        format!("{{\"specversion\":\"1.0\",\"id\":\"x\",\"source\":\"{source}\",\"type\":\"twin\",\"data\":{n}}}\n")
    };
    home.file("twins", &(event("//other", 5) + &event("//shop", 3)));
    let twins = emit(&["emit", "--ndjson", "@twins"]).exits(1);
    assert!(twins.err.contains("line 2: id 'x' of //shop is another event's"), "{}", twins.err);
    home.run(&["get", "--source", "//other", "x"]).exits(0);
    emit(&["emit", "order.created", "--delay", "1h"]).exits(2);
    for verb in [&["ls"][..], &["status"], &["drain", "-g", "a", "--", "true"], &["init"], &["doctor"]] {
        let refused = emit(verb).exits(2);
        assert!(refused.err.contains("is a server, through which only emit, tail and watch go"), "{}", refused.err);
    }

    let mut tail = Running(
        through(&home, &server, &["tail", "-n", "2", "-t", "order.**"]).stdout(Stdio::piped()).spawn().unwrap(),
    );
    let mut shown = BufReader::new(tail.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(shown.next().unwrap().contains(&id));
    assert!(shown.next().unwrap().contains("order.created  x  2"));
    home.run(&["emit", "order.paid", "{\"n\":4}"]).exits(0);
    assert!(shown.next().unwrap().contains("order.paid"));

    // No proxy hears of the token.
    let mut proxied = through(&home, &server, &["emit", "t"]);
    Home::ran(proxied.env("http_proxy", "http://127.0.0.1:9").env("ALL_PROXY", "http://127.0.0.1:9")).exits(0);
    let mut wrong = through(&home, &server, &["emit", "t"]);
    Home::ran(wrong.env("EVBUS_TOKEN", "wrong")).exits(1).says("cannot emit t: ", "EVBUS_TOKEN holds the token");
    let url = server.url("/");
    server.kill();
    Home::ran(home.evbus(&["--bus", &url, "emit", "t", "--timeout", "1s"]).env("EVBUS_TOKEN", "s3cret")).exits(75);
}

#[test]
fn a_watch_through_a_server_is_a_member_of_the_group() {
    let home = Home::new();
    let config = "[serve.groups.mail]\nlock = \"1s\"\nretry = { min = \"0s\", max_attempts = 3 }\n";
    let server = Server::configured(&home, config);
    let watch = |args: &[&str]| Home::ran(&mut through(&home, &server, &[&["watch", "-g", "mail"], args].concat()));
    watch(&["--ordered", "--", "true"]).exits(2);
    watch(&["--max-attempts", "2", "--", "true"]).exits(2);
    watch(&["--metrics", "0", "--", "true"]).exits(2);
    watch(&["--", "no-such-command"]).exits(2);
    // One that is a webhook starts, and is refused for another reason.
    watch(&["-t", "a..b", "--url", "http://127.0.0.1:9/"]).exits(2);
    // By kind of event: done, failing, dead at once, and outliving its first lock, which is renewed.
    let handler = home.script(
        "handler",
        "cat > /dev/null\n\
         echo \"$EVBUS_TYPE $EVBUS_ATTEMPT $EVBUS_MAX_ATTEMPTS $EVBUS_GROUP\" >> ran\n\
         case $EVBUS_TYPE in\n\
         order.bad) echo broken >&2; exit 7 ;;\n\
         order.dead) exit 65 ;;\n\
         order.slow) sleep 2 ;;\n\
         esac\n",
    );
    home.run(&["group", "create", "mail", "-t", "order.*"]).exits(0);
    let args = ["watch", "-g", "mail", "-t", "order.*", "-j", "4", "--", &handler];
    let mut member = Running(through(&home, &server, &args).stderr(Stdio::piped()).spawn().unwrap());
    for type_ in ["order.good", "order.bad", "order.dead", "order.slow", "other"] {
        home.run(&["emit", type_]).exits(0);
    }
    let is_done = || {
        let status: Value = serde_json::from_str(&home.run(&["status", "--json"]).exits(0).out).unwrap();
        status["groups"][0]["lag"] == 0
    };
    until("all are done or dead", is_done);
    let mut ran = home.lines("ran");
    ran.sort();
    assert_eq!(
        ran,
        [
            "order.bad 1 3 mail",
            "order.bad 2 3 mail",
            "order.bad 3 3 mail",
            "order.dead 1 3 mail",
            "order.good 1 3 mail",
            "order.slow 1 3 mail"
        ]
    );
    let dead = home.run(&["dead", "ls", "mail", "--json"]).exits(0).lines();
    let mut exits: Vec<i64> =
        dead.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["exit"].as_i64().unwrap()).collect();
    exits.sort_unstable();
    assert_eq!(exits, [7, 65]);
    signal(&member.0, "TERM");
    assert_eq!(member.0.wait().unwrap().code(), Some(0));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut member.0.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("attempt 1 failed: exit 7 \"broken\""), "{said}");
    assert!(said.contains("dead after 3 attempts"), "{said}");
}

#[test]
fn a_chain_through_a_server_is_as_long_as_its_bus_allows() {
    let home = Home::at("./deep");
    home.run(&["init", "--max-depth", "3"]).exits(0);
    let server = Server::configured(&home, "[serve.groups.g]\nretry = { min = \"0s\", max_attempts = 1 }\n");
    home.run(&["group", "create", "g"]).exits(0);
    home.run(&["emit", "loop.start"]).exits(0);
    let forever = "case $EVBUS_TYPE in loop.a) exec $EVBUS emit loop.b;; *) exec $EVBUS emit loop.a;; esac";
    let member = Running(through(&home, &server, &["watch", "-g", "g", "--shell", forever]).spawn().unwrap());
    until("the chain has come to its end", || !home.run(&["dead", "ls", "g"]).exits(0).out.is_empty());
    drop(member);
    assert_eq!(home.run(&["ls"]).exits(0).lines().len(), 4);
    let why = home.run(&["dead", "show", "g"]).exits(0).out;
    let chain = "4 events would have caused each other, and the bus allows 3: loop.b <- loop.a <- loop.b <- loop.a <- loop.start";
    assert!(why.contains(chain) && !why.contains("loop.start <- …"), "{why}");

    // A whole event tells by itself how long its chain is.
    let event = |depth: u32| {
        format!(r#"{{"specversion":"1.0","id":"{depth}","source":"//there","type":"a","causationdepth":"{depth}"}}"#)
    };
    let emit = |address: &str, lines: &str| home.feed(&["--bus", address, "emit", "--ndjson"], lines);
    let both = format!("{}\n{}\n", event(3), event(4));
    let says = "4 events would have caused each other, and the bus allows 3: a";
    let refused = emit(&server.url("/"), &both).exits(1).err;
    assert!(refused.contains(&format!("element 2: {says}")), "{refused}");
    let refused = emit(&home.url(), &both).exits(1).err;
    assert!(refused.contains(&format!("line 2: {says} <- …")), "{refused}");
    emit(&server.url("/"), &event(3)).exits(0);
}

#[test]
fn what_a_killed_member_had_goes_to_another() {
    let home = Home::new();
    let server = Server::configured(&home, "[serve.groups.mail]\nlock = \"1s\"\nretry = { min = \"0s\" }\n");
    let hanging = home.script("hang", "echo taken >> taken\nexec sleep 1000\n");
    let mut killed = Running(through(&home, &server, &["watch", "-g", "mail", "--", &hanging]).spawn().unwrap());
    until("the group is there", || home.run(&["group", "ls"]).exits(0).out.contains("mail"));
    home.run(&["emit", "t"]).exits(0);
    until("it is taken", || home.lines("taken").len() == 1);
    killed.0.kill().unwrap();
    let handler = home.script("handler", "echo $EVBUS_ATTEMPT >> done\n");
    // A server that restarts, too, leaves its members waiting.
    let mut command = through(&home, &server, &["watch", "-g", "mail", "--", &handler]);
    let mut other = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(other.0.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("watching http://"), "{line}");
    let address = server.kill().to_string();
    home.file("serve.toml", "[serve.groups.mail]\nlock = \"1s\"\nretry = { min = \"0s\" }\n");
    let _server = Server::with(&home, &["--config", "serve.toml", "serve", "--listen", &address]);
    until("the other has run it", || home.lines("done").len() == 1);
    drop(other);
}

#[test]
fn a_reload_that_the_server_did_not_answer_is_tried_again() {
    let (home, own) = (Home::new(), tempfile::tempdir().unwrap());
    let server = Server::new(&home);
    let address = server.address.to_string();
    let config = |n: u32| {
        let text =
            format!("[bus]\nurl = 'http://{address}'\n[watchers.w]\nfrom = 'earliest'\nshell = 'echo {n} >> seen'\n");
        std::fs::write(own.path().join("new.toml"), text).unwrap();
        std::fs::rename(own.path().join("new.toml"), own.path().join("evbus.toml")).unwrap();
    };
    config(1);
    let said = std::fs::File::create(own.path().join("said")).unwrap();
    let mut watch = home.evbus(&["watch", "--reload"]);
    let mut watch = watch.env_remove("EVBUS_URL").current_dir(own.path()).stderr(said).spawn().unwrap();
    let read = |name: &str| std::fs::read_to_string(own.path().join(name)).unwrap_or_default();
    home.emit_many("t", 1);
    until("it works", || read("seen") == "1\n");
    server.kill();
    config(2);
    until("it is told", || read("said").contains("the config is not reloaded, and is tried again: watcher 'w': "));
    let _server = Server::with(&home, &["serve", "--listen", &address]);
    until("it is reloaded", || read("said").contains("the config is reloaded: changed: watcher 'w'"));
    home.emit_many("t", 1);
    until("the new settings count", || read("seen") == "1\n2\n");
    signal(&watch, "TERM");
    assert!(watch.wait().unwrap().success());
}
