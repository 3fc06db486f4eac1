//! Folders and buckets whose files become events: each finished file once.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Child;

use evbus::store::object::BucketStore;
use evbus::store::{List, Put, Store};

use super::s3;
use super::support::{Home, signal, sorted, until};

/// A home with folders for files.
fn home() -> (Home, PathBuf) {
    let home = Home::new();
    let inbox = home.path().join("inbox");
    fs::create_dir(&inbox).unwrap();
    fs::create_dir(home.path().join("elsewhere")).unwrap();
    (home, inbox)
}

/// The events of sources on the bus: type and subject, in their order.
fn told(home: &Home) -> Vec<String> {
    let shown = home.run(&["ls", "--json", "-n", "0"]).exits(0).lines();
    let mut ids = BTreeSet::new();
    let line = |line: &String| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let told = format!("{} {}", event["type"].as_str().unwrap(), event["subject"].as_str().unwrap());
        // A source that is killed between a put and its record leaves a copy.
        ids.insert(event["id"].as_str().unwrap().to_owned()).then_some(told)
    };
    shown.iter().filter_map(line).collect()
}

fn subjects(home: &Home) -> Vec<String> {
    sorted(told(home).iter().map(|told| told.split_once(' ').unwrap().1.to_owned()).collect())
}

fn stop(process: Child) {
    signal(&process, "TERM");
    let ended = process.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

fn kill(mut process: Child) {
    signal(&process, "KILL");
    process.wait().unwrap();
}

/// A command that notes which file it got, and whether the file was whole by then.
const WHOLE: &str = r#"case "$(tail -c 3 "$EVBUS_PATH")" in END) echo "$EVBUS_SUBJECT" >> seen;; *) echo "$EVBUS_SUBJECT" >> torn;; esac"#;

/// Rounds of all habits, with a source that is killed again and again.
fn writers_are_followed(source: &[&str], rounds: usize) {
    let (home, _) = home();
    let writers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/writers.py");
    let handler = home.spawn(&["watch", "-q", "-g", "all", "--from", "earliest", "-j", "4", "--shell", WHOLE]);
    let args = [&["source", "-q", "inbox", "--settle", "300ms"], source].concat();
    let begin = || home.spawn(&args);
    let mut running = begin();
    let rounds_text = rounds.to_string();
    let writer = home
        .command("python3")
        .args([writers.to_str().unwrap(), "inbox", "elsewhere", "0.5", &rounds_text])
        .stdout(fs::File::create(home.path().join("written")).unwrap())
        .stderr(fs::File::create(home.path().join("writers-error")).unwrap())
        .spawn();
    let mut writer = writer.unwrap();
    for written in (3..11 * rounds).step_by(3) {
        until("more is written", || home.lines("written").len() >= written || writer.try_wait().unwrap().is_some());
        kill(running);
        running = begin();
    }
    assert!(writer.wait().unwrap().success(), "{:?}", home.lines("writers-error"));
    let written = sorted(home.lines("written"));
    assert_eq!(written.len(), 11 * rounds);
    until("each file has its event", || home.lines("seen").len() + home.lines("torn").len() >= written.len());
    stop(running);
    // What lies there is known: another look adds nothing.
    let again =
        home.run(&[&["source", "inbox", "--once", "--settle", "300ms"], &source[source.len().min(2)..]].concat());
    assert!(again.exits(0).err.starts_with("0 events to "), "nothing is left");
    stop(handler);
    assert_eq!(home.lines("torn"), Vec::<String>::new(), "files that were still written");
    assert_eq!(subjects(&home), written, "each once");
}

#[test]
fn writers_of_every_habit_are_followed_though_the_source_is_killed() {
    writers_are_followed(&[], 2);
}

#[test]
fn writers_of_every_habit_are_followed_where_the_kernel_does_not_tell() {
    writers_are_followed(&["--poll", "100ms"], 1);
}

#[test]
fn several_hosts_emit_each_file_once() {
    let (home, inbox) = home();
    for n in 0..200 {
        fs::write(inbox.join(format!("lay-{n:03}")), n.to_string()).unwrap();
    }
    let config = home.file(
        "evbus.toml",
        "[sources.in]\nfolder = 'inbox'\nsettle = '200ms'\n[watchers.w]\ntypes = ['file.arrived']\nfrom = 'earliest'\nshell = 'echo $EVBUS_SUBJECT >> seen'\n",
    );
    let config = config.to_str().unwrap();
    let watch = || home.spawn(&["watch", "-q", "--config", config]);
    let mut hosts = vec![watch(), watch()];
    for n in 0..200 {
        fs::write(inbox.join(format!("came-{n:03}")), n.to_string()).unwrap();
        if n == 50 {
            kill(hosts.remove(0));
        }
        if n == 100 {
            home.run(&["drain", "-q", "--config", config]).exits(0);
            hosts.push(watch());
        }
    }
    until("all files are handled", || home.lines("seen").len() >= 400);
    for host in hosts {
        stop(host);
    }
    home.run(&["drain", "-q", "--wait", "--config", config]).exits(0);
    let files: Vec<String> =
        fs::read_dir(&inbox).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(subjects(&home), sorted(files));
    let status = home.run(&["status", "--config", config]).exits(0).out;
    assert!(status.contains("SOURCE  FILES  TYPE"), "{status}");
    assert!(status.contains("in        400  file.arrived"), "{status}");
}

#[test]
fn retention_does_not_bring_files_back() {
    let (home, inbox) = home();
    for n in 0..3 {
        fs::write(inbox.join(n.to_string()), "x").unwrap();
    }
    let once = |says: &str| {
        let err = home.run(&["source", "inbox", "--once", "--settle", "10ms"]).exits(0).err;
        assert!(err.starts_with(says), "{err}");
    };
    once("3 events to ");
    until("events and ids are forgotten", || {
        home.run(&["drain", "-q", "-g", "g", "--from", "earliest", "--", "true"]).exits(0);
        home.run(&["prune", "--keep", "0s", "--yes"]).exits(0);
        home.event_count() == 0 && fs::read_dir(home.bus().join("dedup")).unwrap().count() == 0
    });
    once("0 events to ");
    fs::write(inbox.join("2"), "another").unwrap();
    once("1 event to ");
    assert_eq!(subjects(&home), ["2"]);
}

#[test]
fn changes_and_removals_are_told_where_they_are_asked_for() {
    let (home, inbox) = home();
    let source =
        home.spawn(&["source", "inbox", "--settle", "100ms", "-r", "--events", "arrived,changed,removed", "--sha256"]);
    let wait = |what: &[&str]| until("events come", || told(&home) == what);
    fs::create_dir_all(inbox.join("new/deep")).unwrap();
    fs::write(inbox.join("new/deep/a"), "one").unwrap();
    wait(&["file.arrived new/deep/a"]);
    fs::write(inbox.join("new/deep/a"), "one").unwrap();
    fs::write(inbox.join("b"), "two").unwrap();
    wait(&["file.arrived new/deep/a", "file.arrived b"]);
    // An editor's save: the old file is moved aside, and another takes its place.
    fs::rename(inbox.join("b"), inbox.join("b~")).unwrap();
    fs::write(inbox.join("b"), "three").unwrap();
    wait(&["file.arrived new/deep/a", "file.arrived b", "file.changed b"]);
    fs::rename(inbox.join("new"), home.path().join("elsewhere/new")).unwrap();
    wait(&["file.arrived new/deep/a", "file.arrived b", "file.changed b", "file.removed new/deep/a"]);
    stop(source);
    // What happens while it does not run is found.
    fs::remove_file(inbox.join("b")).unwrap();
    fs::write(inbox.join("c"), "four").unwrap();
    let args =
        ["source", "inbox", "--once", "--settle", "10ms", "-r", "--events", "arrived,changed,removed", "--sha256"];
    home.run(&args).exits(0);
    assert_eq!(sorted(told(&home).split_off(4)), ["file.arrived c", "file.removed b"]);
    let event = home
        .run(&[
            "get",
            home.run(&["ls", "--json", "-n", "0"])
                .out
                .lines()
                .next()
                .and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok())
                .unwrap()["id"]
                .as_str()
                .unwrap(),
        ])
        .exits(0)
        .out;
    assert!(
        event.contains(r#""sha256":"7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed""#),
        "{event}"
    );
}

#[test]
fn a_file_is_moved_or_deleted_once_its_groups_are_done() {
    let (home, inbox) = home();
    let text = "[sources.in]\nfolder = 'inbox'\nsettle = '50ms'\nafter = 'move:done'\ngroups = ['a', 'b']\n\
                [watchers.a]\ntypes = ['file.arrived']\nfrom = 'earliest'\nshell = 'test $EVBUS_SUBJECT != bad || exit 65'\n\
                [watchers.b]\ntypes = ['file.arrived']\nfrom = 'earliest'\nshell = 'test -f \"$EVBUS_PATH\"'\n";
    let config = home.file("evbus.toml", text).to_str().unwrap().to_owned();
    for name in ["one", "two", "bad"] {
        fs::write(inbox.join(name), name).unwrap();
    }
    let drain = |names: &[&str]| home.run(&[&["drain", "-q", "--config", &config], names].concat()).exits(0);
    drain(&[]);
    let listed = |folder: &str| {
        let entries = fs::read_dir(home.path().join(folder)).into_iter().flatten();
        sorted(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
    };
    assert_eq!((listed("done"), listed("inbox")), (vec!["one".into(), "two".into()], vec!["bad".to_owned()]));
    // One of the same name is not lost, and one that was replaced meanwhile is left.
    fs::write(inbox.join("one"), "once more").unwrap();
    let watch = home.spawn(&["watch", "-q", "--config", &config]);
    until("it is moved, too", || listed("inbox") == ["bad"]);
    assert_eq!(listed("done").len(), 3);
    home.run(&["dead", "rm", "a", "--all", "--yes"]).exits(0);
    until("what is given up is moved", || listed("inbox").is_empty());
    stop(watch);
    assert_eq!(fs::read_to_string(home.path().join("done/one")).unwrap(), "one");
    let refused = home.run(&["source", "inbox", "--after", "delete"]).exits(2);
    assert!(refused.err.contains("--group"), "{}", refused.err);
}

#[test]
fn a_folder_that_is_not_there_is_waited_for() {
    let (home, inbox) = home();
    fs::write(inbox.join("a"), "x").unwrap();
    let (gone, err) = (home.path().join("gone"), home.path().join("err"));
    let args = ["source", "-q", "inbox", "--settle", "50ms", "--events", "arrived,removed"];
    let source = home.evbus(&args).stderr(fs::File::create(&err).unwrap()).spawn().unwrap();
    until("the file is told", || told(&home) == ["file.arrived a"]);
    let said = || fs::read_to_string(&err).unwrap();
    fs::rename(&inbox, &gone).unwrap();
    until("it says that it waits", || said().contains("source 'inbox' waits: ") || said().contains("waits: "));
    // An empty folder in its place is a mount point whose mount is missing.
    fs::create_dir(&inbox).unwrap();
    until("it says what it takes it for", || said().contains("is it not mounted?"));
    fs::remove_dir(&inbox).unwrap();
    fs::rename(&gone, &inbox).unwrap();
    fs::write(inbox.join("b"), "x").unwrap();
    until("it goes on", || told(&home).len() == 2);
    stop(source);
    assert_eq!(told(&home), ["file.arrived a", "file.arrived b"], "nothing is taken for removed");
    assert!(said().contains("goes on"), "{}", said());
    // Another folder that is not empty is looked through, and says nothing of files that it may never have had.
    fs::rename(&inbox, &gone).unwrap();
    fs::create_dir(&inbox).unwrap();
    fs::write(inbox.join("c"), "x").unwrap();
    home.run(&[&args[..], &["--once"]].concat()).exits(0);
    assert_eq!(told(&home).split_off(2), ["file.arrived c"]);
    fs::remove_dir_all(&inbox).unwrap();
    home.run(&[&args[..], &["--once"]].concat()).exits(1).says("inbox: no such file or directory", "");
}

#[test]
fn names_may_be_anything_and_links_are_passed_over() {
    let (home, inbox) = home();
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff\n%.txt");
    for name in [std::ffi::OsStr::new("a b 'c'.txt"), odd, "ä.txt".as_ref(), "-x".as_ref(), "z.part".as_ref()] {
        fs::write(inbox.join(name), "x").unwrap();
    }
    std::os::unix::fs::symlink("/etc/hostname", inbox.join("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", inbox.join("dangling")).unwrap();
    assert!(home.shell("mkfifo inbox/pipe").code == 0);
    home.run(&["source", "inbox", "--once", "--settle", "10ms"]).exits(0);
    assert_eq!(subjects(&home), ["-x", "a b 'c'.txt", "odd%FF%0A%25.txt", "ä.txt"]);
    let shell = "printf '%s|' \"$EVBUS_PATH\" >> paths; test -f \"$EVBUS_PATH\"";
    home.run(&["drain", "-q", "-g", "g", "--from", "earliest", "--strict", "--shell", shell]).exits(0);
    let paths = fs::read(home.path().join("paths")).unwrap();
    let has = |name: &std::ffi::OsStr| {
        let path = inbox.join(name);
        paths.split(|byte| *byte == b'|').any(|one| one == path.as_os_str().as_bytes())
    };
    assert!(has(odd) && has("ä.txt".as_ref()) && has("a b 'c'.txt".as_ref()), "{}", String::from_utf8_lossy(&paths));
}

fn async_run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn objects_of_a_bucket_are_files() {
    let home = Home::at_bucket(&s3::seaweedfs().endpoint, "sources-bus");
    home.run(&["init"]).exits(0);
    let place = Home::at_bucket(&s3::seaweedfs().endpoint, "sources-in").url();
    let objects = |prefix: &str| BucketStore::connect(&s3::seaweedfs().bucket(prefix)).unwrap();
    let put = |key: &str, content: &str| {
        let store = objects("sources-in");
        async_run(async {
            store.delete(key).await.unwrap();
            assert_eq!(store.put_new(key, content.as_bytes()).await.unwrap(), Put::Created);
        });
    };
    let keys = |prefix: &str| {
        let list = List::all("");
        let store = objects(prefix);
        sorted(async_run(async { store.list_after(list).await.unwrap().keys }))
    };
    for key in ["a.pdf", "sub/b.pdf", "c.txt", "sub/.hidden.pdf"] {
        put(key, key);
    }
    let source = |more: &[&str]| {
        let args = [&["source", &place, "--once", "--match", "*.pdf", "--name", "up"][..], more].concat();
        home.run(&args).exits(0).err
    };
    assert!(source(&[]).starts_with("2 events to "), "both");
    assert!(source(&[]).starts_with("0 events to "), "known");
    put("a.pdf", "another");
    assert!(source(&[]).starts_with("1 event to "), "replaced");
    let shell = "echo $EVBUS_PATH >> seen";
    home.run(&["drain", "-q", "-g", "g", "--from", "earliest", "--shell", shell]).exits(0);
    let seen = home.lines("seen");
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|path| path.starts_with("s3://") && path.ends_with(".pdf")), "{seen:?}");
    put("sub/d.pdf", "d");
    let moves = ["--after", "move:sources-done", "--group", "g"];
    assert!(source(&moves).starts_with("1 event to "), "its group is not done");
    home.run(&["drain", "-q", "-g", "g", "--shell", shell]).exits(0);
    source(&moves);
    assert_eq!(keys("sources-done"), ["sub/d.pdf"]);
    assert_eq!(keys("sources-in"), ["a.pdf", "c.txt", "sub/.hidden.pdf", "sub/b.pdf"]);
}

/// Puts an object under a key of which nothing is taken away, or deletes it, on a server that checks no signature.
fn put_raw(key: &str, content: Option<&str>) {
    let place = s3::ministack().endpoint.strip_prefix("http://").unwrap().to_owned();
    let (verb, content) = content.map_or(("DELETE", ""), |content| ("PUT", content));
    let mut stream = std::net::TcpStream::connect(&place).unwrap();
    let (bucket, length) = (s3::BUCKET, content.len());
    let head = format!("{verb} /{bucket}/{key} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n");
    stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{content}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{key}: {answer}");
}

#[test]
fn keys_that_cannot_be_named_stop_no_bucket() {
    let home = Home::new();
    let run = |args: &[&str]| Home::ran(home.evbus(args).envs(s3::CREDENTIALS)).exits(0);
    let endpoint = &s3::ministack().endpoint;
    let place = |prefix: &str| format!("s3://{}/{prefix}?endpoint={endpoint}", s3::BUCKET);
    for n in 0..300 {
        put_raw(&format!("odd/{n:03}.pdf"), Some("good"));
    }
    for n in 0..30 {
        put_raw(&format!("odd/100//{n}.pdf"), Some("odd"));
    }
    for key in ["150/./a.pdf", "200.pdf%0A", "sub//", "~/../b.pdf"] {
        put_raw(&format!("odd/{key}"), Some("odd"));
    }
    // The marks of folders are no files; an empty file is one.
    for key in ["", "sub/", "empty.pdf", "299.pdf/"] {
        put_raw(&format!("odd/{key}"), Some(""));
    }
    put_raw("odd/~~.pdf", Some("the last"));
    let once = |place: &str, name: &str| run(&["source", place, "--once", "--name", name]);
    let first = once(&place("odd"), "below");
    assert!(first.err.contains("passes over keys such as 'odd/~/../b.pdf'"), "{}", first.err);
    assert!(first.err.contains("302 events to "), "{}", first.err);
    assert!(once(&place("odd"), "below").err.contains("0 events to "), "known");

    let config = format!("[sources.in]\nfolder = '{}'\nevents = ['removed']\nsettle = '50ms'\n", place("odd"));
    home.file("evbus.toml", &config);
    run(&["drain", "-q"]);
    put_raw("odd/007.pdf", None);
    put_raw("odd/299.pdf", None);
    run(&["drain", "-q"]);
    let removed = told(&home).into_iter().filter(|told| told.starts_with("file.removed")).collect();
    assert_eq!(sorted(removed), ["file.removed 007.pdf", "file.removed 299.pdf"]);

    let config = format!("[sources.in]\nfolder = '{}'\nevents = ['removed']\nsettle = '50ms'\n", place("even"));
    home.file("evbus.toml", &config);
    run(&["drain", "-q"]);
    assert_eq!(told(&home).iter().filter(|told| told.starts_with("file.removed")).count(), 2, "another place");

    put_raw("/rooted.pdf", Some("odd"));
    put_raw("rooted.txt", Some("good"));
    let root = format!("s3://{}?endpoint={endpoint}", s3::BUCKET);
    let rooted = run(&["source", &root, "--once", "--name", "root", "--match", "*rooted*"]).err;
    assert!(rooted.contains("1 event to "), "{rooted}");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let (home, _) = home();
    let check = |source: &str, says: &str| {
        let config = home.file("evbus.toml", &format!("[sources.in]\n{source}\n"));
        home.run(&["check", "--config", config.to_str().unwrap()]).exits(2).says(says, "");
    };
    check("type = 'a.b'", "has no folder (add folder = \"/srv/inbox\")");
    check("folder = 'inbox'\ntype = 'scan'\nevents = ['arrived', 'changed']", "must end in '.arrived'");
    check("folder = 'inbox'\nevents = ['came']", "'came' is none of arrived, changed and removed");
    check("folder = 'inbox'\nafter = 'delete'", "needs groups = [\"GROUP\"]");
    check("folder = 'inbox'\nafter = 'burn'\ngroups = ['g']", "'burn' is none of leave, delete and move:FOLDER");
    check("folder = 'inbox'\nafter = 'move:inbox'\ngroups = ['g']", "is below the folder itself");
    check(
        "folder = 'inbox'\nevents = 'removed'\ntype = 'x.arrived'\nafter = 'delete'\ngroups = 'g'",
        "does not go together",
    );
    check("folder = 'inbox'\nmatch = ['a[z-a]']", "'a[z-a]' is no pattern");
    check("folder = 'inbox'\nsettle = '0s'", "must be longer than 0s");
    check("folder = 's3://bucket/in'\nsha256 = true", "is for folders");
    for to in ["s3://bucket/done", "../done", "/done", "a//b"] {
        let source = format!("folder = 's3://bucket/in'\nafter = 'move:{to}'\ngroups = ['g']");
        check(&source, &format!("'{to}' is no prefix in the same bucket (move:done)"));
    }
    check("folder = 'bus'", "each event would be a file");
    check("folder = '.'\nrecursive = true", "each event would be a file");
    check("folder = 'postgres://h/d'", "is neither a folder nor a bucket");
    assert_eq!(home.event_count(), 0);
}

#[test]
fn a_look_takes_in_all_that_has_arrived() {
    let (home, inbox) = home();
    for n in 0..1_300 {
        fs::write(inbox.join(n.to_string()), "x").unwrap();
    }
    let once = home.run(&["source", "inbox", "--once", "--settle", "200ms"]).exits(0);
    assert!(once.err.starts_with("1,300 events to "), "{}", once.err);
}

#[test]
fn only_the_version_that_was_processed_is_deleted() {
    let (home, inbox) = home();
    let text = "[sources.in]\nfolder = 'inbox'\nsettle = '50ms'\nafter = 'delete'\ngroups = ['g']\n\
                [watchers.g]\ntypes = ['file.arrived']\nfrom = 'earliest'\n\
                shell = 'cat \"$EVBUS_PATH\" >> got; touch begun; while [ ! -e go ]; do sleep 0.05; done'\n";
    let config = home.file("evbus.toml", text).to_str().unwrap().to_owned();
    let watch = home.spawn(&["watch", "-q", "--config", &config]);
    fs::write(inbox.join("f"), "one\n").unwrap();
    until("the first version is run", || home.path().join("begun").exists());
    fs::write(inbox.join("f"), "another\n").unwrap();
    until("the second version is told", || told(&home).len() == 2);
    // Its times are set after its event, as some programs do, which makes no other version of it.
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let times = fs::FileTimes::new().set_accessed(time).set_modified(time);
    fs::File::open(inbox.join("f")).unwrap().set_times(times).unwrap();
    home.file("go", "");
    until("both are run, and the file is gone", || !inbox.join("f").exists());
    assert_eq!(home.lines("got"), ["one", "another"]);
    stop(watch);
    assert_eq!(told(&home).len(), 2);
}

#[test]
fn a_file_that_no_group_has_processed_stays() {
    let (home, inbox) = home();
    fs::write(inbox.join("f"), "x").unwrap();
    home.run(&["group", "create", "other", "-t", "scan.*", "--from", "earliest"]).exits(0);
    let args = ["source", "inbox", "--once", "--settle", "10ms", "--after", "delete", "-g"];
    let refused = home.run(&[&args[..], &["other"]].concat()).exits(1);
    assert!(
        refused.err.is_empty() || refused.err.contains("group 'other' does not want the event of f"),
        "{}",
        refused.err
    );
    assert!(inbox.join("f").exists());
    home.run(&["group", "create", "late", "--from", "now"]).exits(0);
    home.run(&[&args[..], &["late", "--name", "second"]].concat());
    assert!(inbox.join("f").exists());
}

#[test]
fn what_comes_back_is_told_again_where_removals_are() {
    let (home, inbox) = home();
    let args = ["source", "-q", "inbox", "-r", "--settle", "50ms", "--events", "arrived,removed"];
    let source = home.spawn(&args);
    let elsewhere = home.path().join("elsewhere");
    let wait = |what: &[&str]| until("events come", || told(&home) == what);
    fs::write(inbox.join("f"), "x").unwrap();
    wait(&["file.arrived f"]);
    fs::rename(inbox.join("f"), elsewhere.join("f")).unwrap();
    wait(&["file.arrived f", "file.removed f"]);
    fs::rename(elsewhere.join("f"), inbox.join("f")).unwrap();
    wait(&["file.arrived f", "file.removed f", "file.arrived f"]);
    // A file that is written while its folder is away is found when that is back.
    fs::create_dir(inbox.join("sub")).unwrap();
    let open = fs::File::create(inbox.join("sub/x")).unwrap();
    fs::write(inbox.join("sub/y"), "x").unwrap();
    until("the other is told", || told(&home).len() == 4);
    fs::rename(inbox.join("sub"), elsewhere.join("sub")).unwrap();
    drop(open);
    until("it is gone", || told(&home).len() == 5);
    fs::rename(elsewhere.join("sub"), inbox.join("sub")).unwrap();
    until("both are told", || {
        let told = told(&home);
        told.len() == 7 && told.contains(&"file.arrived sub/x".to_owned())
    });
    stop(source);
}

#[test]
fn what_a_watch_emits_itself_wakes_its_own_watchers() {
    let (home, inbox) = home();
    let config = "[sources.in]\nfolder = 'inbox'\n[watchers.w]\nfrom = 'earliest'\npoll = '1h'\nshell = 'echo $EVBUS_SUBJECT >> seen'\n";
    let config = home.file("evbus.toml", config);
    let watch = home.spawn(&["watch", "-q", "--config", config.to_str().unwrap()]);
    // What lay there at the start may be found by the first looks of both.
    for n in 0..5 {
        fs::write(inbox.join(n.to_string()), "x").unwrap();
        until("it is handled without a poll", || home.lines("seen").len() == n + 1);
    }
    stop(watch);
}

#[test]
fn files_of_another_folder_were_not_removed() {
    let (home, inbox) = home();
    let other = home.path().join("elsewhere");
    let drain = |folder: &str| {
        let config = home.file(
            "evbus.toml",
            &format!("[sources.in]\nfolder = '{folder}'\nsettle = '10ms'\nevents = ['arrived', 'removed']\n"),
        );
        home.run(&["drain", "-q", "--config", config.to_str().unwrap()]).exits(0);
    };
    fs::write(inbox.join("one"), "x").unwrap();
    drain("inbox");
    fs::write(other.join("two"), "x").unwrap();
    drain("elsewhere");
    drain("inbox");
    assert_eq!(told(&home), ["file.arrived one", "file.arrived two"]);
    // In the folder itself it is one.
    fs::write(inbox.join("three"), "x").unwrap();
    fs::remove_file(inbox.join("one")).unwrap();
    drain("inbox");
    assert_eq!(sorted(told(&home)[2..].to_vec()), ["file.arrived three", "file.removed one"]);
}
