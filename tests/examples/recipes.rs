//! The recipes with real files, a real bucket, and programs that fail.

use std::io::{BufRead, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::until::until;
use super::{EVBUS, bare, example, fs, run, s3, succeeds, text};

/// A home with its own bus and a recipe's config.
fn home(config: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    if !config.is_empty() {
        fs::copy(example(config), home.path().join("evbus.toml")).unwrap();
    }
    home
}

fn evbus(home: &Path, args: &[&str]) -> String {
    succeeds(bare("evbus", home).args(args)).0
}

/// Drains all watchers until nothing is left to do.
fn drain(home: &Path) {
    // One watcher takes what another emits: at most three follow from each other.
    for _ in 0..3 {
        succeeds(bare("evbus", home).args(["drain", "-q"]));
    }
}

fn lines(path: impl AsRef<Path>) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Runs a shell line on a host of its own, as far as a program can tell: name, processes and
/// network are separate. Several hosts share the folder.
fn on_host(name: &str, shared: &Path, line: &str) -> Command {
    let mut command = bare("unshare", shared);
    command.args(["--map-root-user", "--uts", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-c", &format!("hostname {name} && {line}")]);
    command
}

#[test]
fn a_backup_spans_two_hosts_and_a_bad_one_is_reported() {
    let home = home("backup/evbus.toml");
    let at = |name: &str| home.path().join(name);
    for folder in ["data", "backups", "offsite"] {
        fs::create_dir(at(folder)).unwrap();
    }
    fs::write(at("data/file"), "content").unwrap();
    // From cron on the host that has the data, while the other host is down.
    let nightly = |name: &str, from: &str| {
        let line = format!("exec sh {} {name} {from} backups", example("backup/nightly").display());
        assert!(run(&mut on_host("db1", home.path(), &line)).status.success(), "that it failed is told on the bus");
    };
    nightly("db", "data");
    assert_eq!(fs::read_dir(at("offsite")).unwrap().count(), 0);
    assert!(evbus(home.path(), &["ls", "--json"]).contains("\"source\":\"//db1\""));

    let mut vault = on_host("vault", home.path(), "exec evbus watch -q 2>/dev/null").spawn().unwrap();
    until("the good one is copied", || fs::read_dir(at("offsite")).unwrap().count() == 1);
    assert_eq!(lines(at("alerts")), Vec::<String>::new());
    let owners = evbus(home.path(), &["status", "--json"]);
    assert!(owners.contains("\"host\":\"vault\""), "{owners}");

    // One backup that failed, and one that is damaged before its check.
    nightly("gone", "no-such-folder");
    until("the failure is told", || lines(at("alerts")) == ["backup of gone ended with 2"]);
    stop(&mut vault);
    nightly("broken", "data");
    let broken = fs::read_dir(at("backups")).unwrap().map(|entry| entry.unwrap().path());
    let broken = broken.into_iter().find(|path| path.display().to_string().contains("broken")).unwrap();
    fs::write(broken, "rot").unwrap();
    let mut vault = on_host("vault", home.path(), "exec evbus watch -q 2>/dev/null").spawn().unwrap();
    until("the rot is told", || lines(at("alerts")).len() == 2);
    assert!(lines(at("alerts"))[1].starts_with("backup of broken: exit 65"), "{:?}", lines(at("alerts")));
    assert_eq!(fs::read_dir(at("offsite")).unwrap().count(), 1);
    stop(&mut vault);
}

/// Stops the processes on a host in order.
fn stop(host: &mut std::process::Child) {
    let children = format!("/proc/{0}/task/{0}/children", host.id());
    let pid = fs::read_to_string(children).unwrap();
    succeeds(Command::new("kill").arg("-TERM").arg(pid.trim()));
    assert!(host.wait().unwrap().success());
}

#[test]
fn images_become_thumbnails_and_the_index_has_their_history_in_order() {
    let home = home("media/evbus.toml");
    let at = |name: &str| home.path().join(name);
    fs::create_dir_all(at("bin")).unwrap();
    fs::create_dir(at("thumbs")).unwrap();
    fs::write(at("bin/convert"), "#!/bin/sh\necho \"$1 as $3\" > \"$4\"\n").unwrap();
    fs::set_permissions(at("bin/convert"), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, width) in [("a", "800"), ("b", "100")] {
        let (path, width) = (format!("path=in/{name}.png"), format!("width={width}"));
        evbus(home.path(), &["emit", "image.uploaded", "--subject", name, "-f", &path, "-F", &width]);
    }
    drain(home.path());
    let thumbs: Vec<_> = fs::read_dir(at("thumbs")).unwrap().map(|entry| lines(entry.unwrap().path())).collect();
    assert_eq!(thumbs, [["in/a.png as 256x256"]]);
    let of_a: Vec<String> = lines(at("index")).into_iter().filter(|line| line.starts_with("a ")).collect();
    assert_eq!(of_a, ["a image.uploaded", "a image.thumbnail"]);
    assert_eq!(lines(at("index")).len(), 3);
}

/// Makes an executable script of the home.
fn script(home: &Path, name: &str, body: &str) {
    fs::write(home.join(name), format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(home.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_folder_is_consumed_once_and_what_fails_stays() {
    let home = home("consume-folder/evbus.toml");
    let at = |name: &str| home.path().join(name);
    fs::create_dir_all(at("inbox/2026")).unwrap();
    script(home.path(), "consume", "case $EVBUS_PATH in *bad*) exit 65;; esac; cat \"$EVBUS_PATH\" >> taken");
    for (name, content) in [("a.pdf", "a\n"), ("2026/B.JPG", "b\n"), ("bad.png", "c\n"), ("notes.txt", "d\n")] {
        fs::write(at("inbox").join(name), content).unwrap();
    }
    succeeds(bare("evbus", home.path()).args(["drain", "-q"]));
    let mut taken = lines(at("taken"));
    taken.sort();
    assert_eq!(taken, ["a", "b"]);
    assert!(at("done/a.pdf").exists() && at("done/2026/B.JPG").exists() && at("inbox/bad.png").exists());
    assert!(at("inbox/notes.txt").exists(), "it is none of the documents");
    script(home.path(), "consume", "cat \"$EVBUS_PATH\" >> taken");
    evbus(home.path(), &["dead", "redrive", "consume", "--all", "--yes"]);
    succeeds(bare("evbus", home.path()).args(["drain", "-q"]));
    assert!(at("done/bad.png").exists());
    assert_eq!(lines(at("taken")).len(), 3);
}

#[test]
fn two_hosts_share_a_crontab() {
    let home = home("cron-on-two-hosts/evbus.toml");
    let at = |name: &str| home.path().join(name);
    evbus(home.path(), &["init", "./bus"]);
    let config = fs::read_to_string(at("evbus.toml")).unwrap();
    // Neither 2 o'clock nor a quarter of an hour is waited for.
    let config = config.replace("every = \"15m\"", "every = \"1s\"");
    fs::write(at("evbus.toml"), format!("[bus]\nurl = \"./bus\"\n{config}")).unwrap();
    script(home.path(), "report", "echo $EVBUS_ID >> reports; hostname >> hosts");
    script(home.path(), "backup", "true");
    let begin = |name: &str| on_host(name, home.path(), "exec evbus watch -q").spawn().unwrap();
    let (mut one, mut other) = (begin("one"), begin("other"));
    until("some reports are made", || lines(at("reports")).len() >= 3);
    one.kill().unwrap();
    one.wait().unwrap();
    let before = lines(at("reports")).len();
    until("the other host goes on", || lines(at("reports")).len() >= before + 3);
    other.kill().unwrap();
    other.wait().unwrap();
    let mut ids = lines(at("reports"));
    let runs = ids.len();
    ids.sort();
    ids.dedup();
    // A run that was under way when its host was killed is run again.
    assert!(runs - ids.len() <= 1, "{:?}", lines(at("reports")));
    assert!(ids.iter().all(|id| id.starts_with("report@")), "{ids:?}");
}

#[test]
fn many_changes_are_one_build_and_the_last_is_built() {
    let home = home("rebuild/evbus.toml");
    let at = |name: &str| home.path().join(name);
    fs::create_dir_all(at("src/deep")).unwrap();
    fs::write(at("Makefile"), "all:\n\t@echo begin >> log; sleep 0.3; cat src/deep/last > built; echo end >> log\n")
        .unwrap();
    let mut watch = bare("evbus", home.path()).args(["watch", "-q"]).spawn().unwrap();
    fs::write(at("src/first"), "0").unwrap();
    fs::write(at("src/deep/last"), "0").unwrap();
    until("it looks", || evbus(home.path(), &["ls"]).lines().count() == 2);
    for n in 0..40 {
        fs::write(at("src/deep/last"), n.to_string()).unwrap();
        fs::write(at(&format!("src/file{n}")), "x").unwrap();
    }
    until("the last change is built", || fs::read_to_string(at("built")).is_ok_and(|built| built == "39"));
    until("the build has ended", || lines(at("log")).last().is_some_and(|line| line == "end"));
    let status = std::process::Command::new("kill").arg(watch.id().to_string()).status().unwrap();
    assert!(status.success() && watch.wait().unwrap().success());
    let log = lines(at("log"));
    assert!(log.chunks(2).all(|build| build == ["begin", "end"]), "one at a time: {log:?}");
    assert!(log.len() / 2 < 20, "{} builds for 80 changes", log.len() / 2);
}

#[test]
fn large_data_goes_by_reference_and_altered_content_is_refused() {
    let home = home("");
    let at = |name: &str| home.path().join(name);
    fs::create_dir(at("store")).unwrap();
    fs::write(at("film.mov"), vec![7; 5 << 20]).unwrap();
    let put = |name: &str| succeeds(bare("sh", home.path()).arg(example("large/put")).args(["film", name, "store"]));
    put("film.mov");
    put("film.mov");
    assert_eq!(fs::read_dir(at("store")).unwrap().count(), 1, "the same content is stored once");
    let handler = example("large/handler").display().to_string();
    let drain = ["drain", "-q", "-g", "films", "--from", "earliest", "--", &handler];
    succeeds(bare("evbus", home.path()).args(drain));
    assert_eq!(fs::read(at("received-film.mov")).unwrap(), vec![7; 5 << 20]);

    fs::write(at("other.mov"), "other").unwrap();
    put("other.mov");
    let stored = fs::read_dir(at("store")).unwrap().map(|entry| entry.unwrap().path());
    let stored = stored.into_iter().find(|path| fs::metadata(path).unwrap().len() == 5).unwrap();
    fs::write(stored, "rotten").unwrap();
    succeeds(bare("evbus", home.path()).args(drain));
    assert!(evbus(home.path(), &["dead", "show", "films"]).contains("exit 65"));
}

/// A command with the address of a bucket's server, for evbus and for rclone.
fn with_bucket<'a>(command: &'a mut Command, server: &s3::S3Server) -> &'a mut Command {
    command.envs(s3::CREDENTIALS).env("AWS_ENDPOINT_URL_S3", &server.endpoint);
    let remote = [("TYPE", "s3"), ("PROVIDER", "Other"), ("ENV_AUTH", "true"), ("ENDPOINT", server.endpoint.as_str())];
    for (name, value) in remote {
        command.env(format!("RCLONE_CONFIG_DROP_{name}"), value);
    }
    let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/s3/bin");
    let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path).unwrap().to_owned();
    command.env("PATH", format!("{}:{}", path.display(), bin.display())).env("RCLONE_CONFIG", "/dev/null")
}

#[test]
fn a_file_in_a_drop_folder_is_one_event_however_often_it_is_listed() {
    let server = s3::seaweedfs();
    let home = home("");
    let remote = format!("drop:{}/dropped", s3::BUCKET);
    let rclone = |args: &[&str]| succeeds(with_bucket(bare("rclone", home.path()).args(args), server));
    let list = || {
        let mut command = bare("sh", home.path());
        succeeds(with_bucket(command.arg(example("drop-folder")).args([&remote, "file.dropped"]), server));
        let ids = evbus(home.path(), &["ls", "--json", "--limit", "0"]);
        ids.lines().filter(|line| line.contains("file.dropped")).count()
    };
    fs::create_dir(home.path().join("in")).unwrap();
    fs::write(home.path().join("in/a; b.csv"), "1").unwrap();
    fs::write(home.path().join("in/c.csv"), "2").unwrap();
    rclone(&["copy", "in", &remote]);
    assert_eq!((list(), list()), (2, 2));
    fs::write(home.path().join("in/c.csv"), "three").unwrap();
    rclone(&["copy", "in", &remote]);
    assert_eq!(list(), 3, "written anew, it is another event");
    assert!(evbus(home.path(), &["ls", "--json"]).contains("\"subject\":\"a; b.csv\""));
}

#[test]
fn a_bus_moves_from_a_directory_to_a_bucket_and_no_event_is_lost() {
    let server = s3::seaweedfs();
    let home = home("");
    let new = format!("s3://{}/moved", s3::BUCKET);
    let at = |program: &str, args: &[&str]| {
        let mut command = bare(program, home.path());
        with_bucket(command.args(args), server);
        succeeds(&mut command).0
    };
    let drain = |bus: &str| at("evbus", &["--bus", bus, "drain", "-q", "-g", "g", "--shell", "echo $EVBUS_ID >> seen"]);
    let old = home.path().join("old").display().to_string();
    at("evbus", &["init", &old]);
    at("evbus", &["init", &new]);
    at(
        "evbus",
        &[
            "--bus",
            &old,
            "group",
            "create",
            "g",
            "-t",
            "order.*",
            "--not",
            "order.test",
            "--where",
            "data.n > 0",
            "--from",
            "earliest",
        ],
    );
    let mut ids = vec![at("evbus", &["--bus", &old, "emit", "order.a", "-F", "n=1"])];
    let script = example("move-bus").display().to_string();
    at(&script, &["history", &old, &new]);
    assert_eq!(at("evbus", &["--bus", &new, "ls"]).lines().count(), 1, "to be read");
    at(&script, &["groups", &old, &new]);
    let group = at("evbus", &["--bus", &new, "group", "ls", "--json"]);
    assert!(group.contains("\"order.test\"") && group.contains("data.n > 0"), "{group}");
    // The emitters move first, while events still wait on the old bus.
    ids.push(at("evbus", &["--bus", &new, "emit", "order.a", "-F", "n=2"]));
    let waits = run(bare("evbus", home.path()).args(["--bus", &old, "status", "--max-lag", "0s"]));
    assert_eq!(waits.status.code(), Some(3), "{}", text(&waits.stderr));
    drain(&old);
    at(&script, &["wait", &old]);
    drain(&new);
    let ids: Vec<String> = ids.iter().map(|id| id.trim().to_owned()).collect();
    assert_eq!(lines(home.path().join("seen")), ids);
}

#[test]
fn two_buses_share_a_config_and_the_default_one_is_staging() {
    let home = home("two-buses.toml");
    let config = home.path().join("evbus.toml");
    let here = |name: &str| home.path().join(name).display().to_string();
    let local = fs::read_to_string(&config)
        .unwrap()
        .replace("/srv/bus-staging", &here("one"))
        .replace("s3://acme-events/production?region=eu-central-1", &here("two"));
    fs::write(&config, local).unwrap();
    for bus in ["one", "two"] {
        evbus(home.path(), &["init", &here(bus)]);
    }
    evbus(home.path(), &["emit", "order.created"]);
    evbus(home.path(), &["--bus", "production", "emit", "order.paid"]);
    assert!(evbus(home.path(), &["ls"]).contains("order.created"));
    let production = succeeds(bare(EVBUS, home.path()).args(["ls"]).env("EVBUS_URL", "production")).0;
    assert!(production.contains("order.paid") && !production.contains("order.created"), "{production}");
}

/// What the two sites sign by.
const SITES_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A server of a recipe, which ends with this.
struct Serving {
    child: std::process::Child,
    address: String,
}

impl Serving {
    fn new(home: &Path) -> Self {
        let mut command = bare("evbus", home);
        command.args(["serve", "--listen", "127.0.0.1:0"]).env("OWN_TOKEN", "own").env("GITHUB_HOOK", "hook");
        command.env("SITES_SECRET", SITES_SECRET);
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stderr.as_mut().unwrap()), &mut line).unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().to_owned();
        Self { child, address }
    }

    /// Posts to a hook as the proxy before the server does; returns the status.
    fn post(&self, home: &Path, path: &str, headers: &[&str], body: &str) -> String {
        let mut command = bare("curl", home);
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: bus.example.org", "-d", body]);
        headers.iter().for_each(|header| _ = command.args(["-H", header]));
        succeeds(command.arg(format!("http://{}{path}", self.address))).0
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_push_to_main_is_deployed() {
    let home = home("github-deploy/evbus.toml");
    let home = home.path();
    let deploy = home.join("deploy");
    fs::write(&deploy, "#!/bin/sh\nevbus get --field data.after >> deployed\n").unwrap();
    fs::set_permissions(&deploy, fs::Permissions::from_mode(0o755)).unwrap();
    let server = Serving::new(home);
    for (delivery, branch) in [("d1", "main"), ("d2", "topic"), ("d1", "main"), ("d2", "topic")] {
        let body = format!(
            "{{\"ref\":\"refs/heads/{branch}\",\"after\":\"{delivery}\",\"repository\":{{\"full_name\":\"a/b\"}}}}"
        );
        let sign = format!("printf %s '{body}' | openssl dgst -sha256 -hmac hook | sed 's/.* //'");
        let signature = succeeds(bare("sh", home).args(["-c", &sign])).0;
        let headers = [
            "Content-Type: application/json",
            "X-GitHub-Event: push",
            &format!("X-GitHub-Delivery: {delivery}"),
            &format!("X-Hub-Signature-256: sha256={}", signature.trim()),
        ];
        assert_eq!(server.post(home, "/hooks/github", &headers, &body), "202");
    }
    assert_eq!(server.post(home, "/events?type=github.push", &["Content-Type: application/json"], "{}"), "401");
    drain(home);
    assert_eq!(lines(home.join("deployed")), ["d1"]);
}

#[test]
fn a_form_becomes_a_mail() {
    let home = home("contact-form/evbus.toml");
    let home = home.path();
    let server = Serving::new(home);
    let sendmail = home.join("bin/sendmail");
    fs::write(&sendmail, "#!/bin/sh\ncat >> mails\necho >> mails\n").unwrap();
    fs::set_permissions(&sendmail, fs::Permissions::from_mode(0o755)).unwrap();
    let browser = ["Origin: https://www.example.org", "Accept: text/html"];
    let send = |form: &str| server.post(home, "/hooks/contact", &browser, form);
    assert_eq!(send("email=a%40b.c%0ABcc%3A+x%40y.z&text=hello&website="), "303");
    assert_eq!(send("email=a%40b.c&text=spam&website=x"), "303");
    assert_eq!(send("email=a%40b.c&text=spam"), "303");
    let elsewhere = ["Origin: https://evil.example", "Accept: text/html"];
    assert_eq!(server.post(home, "/hooks/contact", &elsewhere, "text=x&website="), "403");
    drain(home);
    let mails = fs::read_to_string(home.join("mails")).unwrap();
    assert!(mails.contains("hello") && !mails.contains("spam"), "{mails}");
    assert_eq!(mails.matches("Reply-To: ").count(), 1, "{mails}");
    assert!(!mails.lines().any(|line| line.starts_with("Bcc")), "{mails}");
    // The form of the page has these fields.
    let page = fs::read_to_string(example("contact-form/index.html")).unwrap();
    for field in ["name=\"email\"", "name=\"text\"", "name=\"website\""] {
        assert!(page.contains(field), "{field}");
    }
}

#[test]
fn two_sites_hear_of_each_other_and_nothing_goes_in_circles() {
    let (a, b) = (home("two-sites/evbus.toml"), home("two-sites/evbus.toml"));
    let (at_a, at_b) = (Serving::new(a.path()), Serving::new(b.path()));
    let forward = |from: &Path, to: &Serving| {
        let mut command = bare("evbus", from);
        command.args(["drain", "other", "-q"]).env("SITES_SECRET", SITES_SECRET);
        succeeds(command.env("OTHER_SITE", format!("http://{}/hooks/other", to.address)));
    };
    // Both begin now.
    forward(a.path(), &at_b);
    forward(b.path(), &at_a);
    evbus(a.path(), &["emit", "order.created", "{\"n\":1}", "--subject", "order/1"]);
    evbus(a.path(), &["emit", "secret.plan", "1"]);
    forward(a.path(), &at_b);
    let came = evbus(b.path(), &["ls", "--json"]);
    let came: serde_json::Value = serde_json::from_str(&came).unwrap_or_else(|error| panic!("{error}: {came}"));
    let sent: serde_json::Value =
        serde_json::from_str(&evbus(a.path(), &["ls", "-t", "order.created", "--json"])).unwrap();
    for attribute in ["id", "source", "type", "subject", "data"] {
        assert_eq!(came[attribute], sent[attribute], "{came}");
    }
    assert_eq!(came["causationid"], sent["id"]);
    // At b a handler answers it; nothing of this goes back.
    let answer = ["drain", "-g", "answer", "-t", "order.created", "--from", "earliest", "-q", "--", "evbus", "emit"];
    evbus(b.path(), &[&answer[..], &["order.answered", "2"]].concat());
    forward(b.path(), &at_a);
    assert_eq!(evbus(a.path(), &["ls"]).lines().count(), 2);
    evbus(b.path(), &["emit", "invoice.created", "3"]);
    forward(b.path(), &at_a);
    forward(a.path(), &at_b);
    assert_eq!((evbus(a.path(), &["ls"]).lines().count(), evbus(b.path(), &["ls"]).lines().count()), (3, 3));
}

/// A web server of one page.
fn give_out(web: &TcpListener, page: &str) {
    for stream in web.incoming() {
        let (mut stream, page) = (stream.unwrap(), page.to_owned());
        // A browser may open a connection without a request.
        std::thread::spawn(move || {
            let mut request = std::io::BufReader::new(&stream).lines();
            while request.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let length = page.len();
            let head = format!("HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(format!("{head}{page}").as_bytes());
        });
    }
}

#[test]
fn a_dashboard_shows_events_as_they_come() {
    let home = home("dashboard/evbus.toml");
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = web.local_addr().unwrap().port().to_string();
    let config = home.path().join("evbus.toml");
    let here = fs::read_to_string(&config).unwrap().replace("localhost:8000", &format!("localhost:{port}"));
    fs::write(&config, here).unwrap();
    std::thread::spawn(move || give_out(&web, &fs::read_to_string(example("dashboard/index.html")).unwrap()));
    let server = Serving::new(home.path());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = bare("node", home.path());
    command.arg(root.join("tests/examples/dashboard.mjs")).arg(root.join("target/webhooks"));
    let seen = succeeds(command.arg(port).arg(format!("http://{}", server.address))).0;
    let seen: serde_json::Value = serde_json::from_str(seen.lines().last().unwrap()).unwrap();
    assert_eq!(seen, serde_json::json!({ "before": ["failed (1)"], "hosts": ["db1", "<b>web</b>"], "other": 0 }));
}
