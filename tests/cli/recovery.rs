//! Faults that must not hold up other groups or the stop, and whose cure must need no restart.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use super::mini::{Mini, MiniOptions};
use super::support::{CliRun, Home, NOTE, signal, until};

/// Runs a line in its own mount namespace, with a file system of `size` at `small` and a bus on it.
fn on_small_disk(home: &Home, options: &str, line: &str) -> CliRun {
    let script = format!(
        "mkdir -p small; mount -t tmpfs -o {options} none small; export EVBUS_URL=$PWD/small/bus; $EVBUS init $EVBUS_URL; {line}"
    );
    home.file("line", &script);
    home.shell("exec unshare -rm sh line")
}

#[test]
fn a_temporarily_full_disk_is_waited_for() {
    let home = Home::new();
    let line = "$EVBUS watch -q -g g --from now --shell 'echo $EVBUS_ID >> seen; until [ -e full ]; do sleep 0.1; done' 2> said &
        until $EVBUS group ls | grep -q g; do sleep 0.1; done; $EVBUS emit t -q
        until [ -e seen ]; do sleep 0.1; done
        rm -rf small/bus/reserve; head -c 3m /dev/zero > small/filler 2>/dev/null; touch full
        until grep -q 'waiting: ' said; do sleep 0.1; done
        rm small/filler
        until $EVBUS status g | grep -q ' ok '; do sleep 0.1; done
        kill $!; wait $!; echo ended $?; wc -l < seen; grep -c 'waiting: ' said; grep -c 'lost shard' said";
    let ran = on_small_disk(&home, "size=2m", line);
    assert!(ran.out.ends_with("ended 0\n1\n1\n0\n"), "{}{}", ran.out, ran.err);
}

#[test]
fn a_disk_filled_by_the_backlog_can_be_drained_and_pruned() {
    let home = Home::new();
    let line = "$EVBUS group create g --from earliest 2>/dev/null
        while yes '{}' | head -n 50 | $EVBUS emit t --ndjson --each -q 2>/dev/null; do :; done
        while $EVBUS emit t -q 2>/dev/null; do :; done
        $EVBUS drain -q -g g -- true; echo drain $?
        until $EVBUS drain -q -g g -- true; $EVBUS prune --keep 0s -q; echo prune $?; [ ! -d small/bus/events ] || \
        [ -z \"$(ls small/bus/events)\" ]; do sleep 0.2; done
        $EVBUS emit t -q; echo emit $?; ls small/bus/reserve | wc -l";
    let ran = on_small_disk(&home, "size=4m,nr_inodes=300", line);
    assert!(ran.out.contains("drain 0\n") && !ran.out.contains("prune 1"), "{}{}", ran.out, ran.err);
    assert!(ran.out.ends_with("emit 0\n16\n"), "{}{}", ran.out, ran.err);
}

/// Root's umask has made a file of the group unreadable for a moment.
#[test]
fn a_temporary_permission_error_is_waited_for() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TRIED: a refusal that is repaired; it needs root");
        return;
    }
    let home = Home::new();
    let line = "chmod 755 .; mkdir w; chown 65534:65534 w; cp $EVBUS evbus; cd w; \
        U='setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=. EVBUS_URL=./bus'; E=../evbus
        $U $E init ./bus >/dev/null; $U $E group create g --from earliest 2>/dev/null
        $U $E watch -q -g g --poll 1s --shell 'echo $EVBUS_ID >> seen' 2> err & W=$!
        $U $E emit t -q; until [ -e seen ]; do sleep 0.1; done
        chown root bus/groups/g.json.1; chmod 600 bus/groups/g.json.1
        until grep -q 'g: waiting: ' err; do sleep 0.1; done
        chown 65534 bus/groups/g.json.1; $U $E emit t -q
        until [ $(wc -l < seen) = 2 ]; do sleep 0.1; done
        kill $W; wait $W; echo ended $?; grep -c waiting err";
    let ran = home.shell(line);
    assert!(ran.out.ends_with("ended 0\n1\n"), "{}{}", ran.out, ran.err);
}

#[test]
fn files_made_by_root_belong_to_the_owner_of_the_bus() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TRIED: what root makes is given to the owner; it needs root");
        return;
    }
    let home = Home::new();
    let line = "chown -R 65534:65533 bus; umask 077; $EVBUS emit t -q; $EVBUS drain -q -g g --from earliest -- true
        find bus ! -user 65534 -o ! -group 65533; find bus -name '*-t.json' -perm 644; find bus/events -type d ! -perm 755";
    let ran = home.shell(line).exits(0);
    assert_eq!(ran.lines().len(), 1, "{}", ran.out);
}

/// Runs a line with `./evbus` as a user who owns the bus and has no other processes; none where
/// that cannot be tried.
fn as_user(home: &Home, user: u32, line: &str) -> Option<CliRun> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TRIED: another user; it needs root");
        return None;
    }
    Some(home.shell(&format!(
        "chmod 755 .; cp -n $EVBUS evbus; [ ! -e bus ] || chown -R {user}:{user} bus
         HOME=. exec setpriv --reuid {user} --regid {user} --clear-groups {line}"
    )))
}

#[test]
fn a_drain_at_the_process_limit_does_not_panic() {
    let home = Home::new();
    home.emit_many("t", 1);
    let line = "prlimit --nproc=1 ./evbus drain -g g --from earliest -- /bin/true";
    let Some(ran) = as_user(&home, 65432, line) else { return };
    let why = "the system has no process to spare for handler '/bin/true'";
    assert!(ran.code == 75 && ran.err.contains(why), "{} {}", ran.code, ran.err);
}

/// A regression: a panic with six descriptors; with thirteen, exit 0 and an event that had not run.
#[test]
fn a_drain_out_of_file_descriptors_fails_or_completes() {
    let home = Home::new();
    home.emit_many("t", 1);
    for limit in [5, 6, 7, 12, 13, 14, 20] {
        let line =
            format!("rm -f seen; exec prlimit --nofile={limit} $EVBUS drain -g g{limit} --from earliest -- touch seen");
        let ran = home.shell(&line);
        let code = if home.path().join("seen").exists() { 0 } else { 75 };
        assert!(ran.code == code && !ran.err.contains("panicked"), "{limit}: {} {}", ran.code, ran.err);
    }
}

#[test]
fn a_drain_fails_if_due_events_cannot_be_released() {
    let home = Home::new();
    home.run(&["emit", "t", "--delay", "1s"]).exits(0);
    until("it is due", || home.run(&["ls", "--scheduled", "--until", "0s"]).exits(0).out.contains(" t "));
    home.shell("chmod 000 bus/timed").exits(0);
    let Some(ran) = as_user(&home, 65430, "./evbus drain -q -g g --from earliest -- true") else { return };
    assert!(ran.code == 75 && ran.err.contains("timed"), "{} {}", ran.code, ran.err);
}

#[test]
fn a_drain_without_permission_exits_as_retryable() {
    let home = Home::new();
    home.emit_many("t", 1);
    for (user, refused) in [(65428, "bus/groups"), (65429, "bus/state")] {
        home.shell(&format!("mkdir -p {refused}; chmod 000 {refused}")).exits(0);
        let Some(ran) = as_user(&home, user, "./evbus drain -q -g g --from earliest -- true") else { return };
        assert!(ran.code == 75 && ran.err.contains("ermission"), "{refused}: {} {}", ran.code, ran.err);
        home.shell(&format!("chmod 755 {refused}")).exits(0);
    }
}

/// Server names are resolved on a thread.
#[test]
fn a_bucket_is_unavailable_at_the_thread_limit() {
    let mini = Mini::start(MiniOptions::default());
    let home = Home::at_bucket(&mini.endpoint().replace("127.0.0.1", "localhost"), "p");
    home.run(&["init"]).exits(0);
    for verb in ["ls", "emit t", "drain -g g -- /bin/true"] {
        let Some(ran) = as_user(&home, 65431, &format!("prlimit --nproc=1 ./evbus {verb}")) else { return };
        ran.exits(75).says("cannot start a thread", "ulimit -u");
    }
}

#[test]
fn a_paused_reader_blocks_only_the_handler_that_writes() {
    let home = Home::new();
    home.file(
        "evbus.toml",
        "[watchers.chatty]\ntypes = ['c']\nfrom = 'earliest'\nshell = 'yes | head -c 3000000; echo $EVBUS_ID >> talked'\n\
         [watchers.quiet]\ntypes = ['q']\nfrom = 'earliest'\nshell = 'echo $EVBUS_ID >> seen'\n",
    );
    let mut watch = home.evbus(&["watch", "-q", "--stop-timeout", "1s"]).spawn().unwrap();
    home.run(&["emit", "c", "-q"]).exits(0);
    until("the chatty one runs", || home.run(&["status", "chatty"]).exits(0).out.contains("runs "));
    home.run(&["emit", "q", "-q"]).exits(0);
    until("the other group goes on", || home.lines("seen").len() == 1);
    assert!(home.lines("talked").is_empty(), "it waits for its reader");
    // Once the output is read, the watcher goes on, and nothing is missing.
    let mut out = watch.stdout.take().unwrap();
    let lines = std::thread::spawn(move || {
        let (mut count, mut buffer) = (0, vec![0; 1 << 16]);
        while count < 1_500_000 {
            let read = out.read(&mut buffer).unwrap();
            assert!(read > 0, "{count}");
            count += buffer[..read].iter().filter(|byte| **byte == b'\n').count();
        }
        (out, count)
    });
    let (_out, count) = lines.join().unwrap();
    until("the chatty one ends", || home.lines("talked").len() == 1);
    assert_eq!(count, 1_500_000);
    // Without a reader again: a stop still works.
    home.run(&["emit", "c", "-q"]).exits(0);
    until("it talks again", || home.run(&["status", "chatty"]).exits(0).out.contains("runs "));
    signal(&watch, "TERM");
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn a_non_blocking_stdout_loses_no_output() {
    let home = Home::new();
    // The socket's reader makes the shared descriptor non-blocking, as Node.js does.
    let script = "import os, subprocess, sys, time\nr, w = os.pipe(); os.set_blocking(w, False)\n\
        p = subprocess.Popen([os.environ['EVBUS'], 'drain', '-q', '-g', 'g', '--from', 'earliest', '--shell', 'seq 200000'], stdout=w)\n\
        os.close(w); n = 0\nwhile True:\n  b = os.read(r, 65536)\n  if not b: break\n  n += b.count(b'\\n')\nprint(n, p.wait())\n";
    home.emit_many("t", 1);
    home.file("reader.py", script);
    assert_eq!(home.shell("python3 reader.py").exits(0).out, "200000 0\n");
}

#[test]
fn a_closed_terminal_is_a_graceful_stop() {
    let home = Home::new();
    home.emit_many("t", 1);
    let shell = "echo begin >> log; until [ -e go ]; do sleep 0.05; done; echo end >> log";
    let mut watch = home.spawn(&["watch", "-q", "-g", "g", "--from", "earliest", "--shell", shell]);
    until("it runs", || home.lines("log").len() == 1);
    signal(&watch, "HUP");
    home.file("go", "");
    assert_eq!((watch.wait().unwrap().code(), home.lines("log")), (Some(0), vec!["begin".into(), "end".into()]));
    // nohup has SIGHUP ignored, which must stay so.
    let mut watch = home.shell_spawn("trap '' HUP; exec $EVBUS watch -q -g g --poll 100ms --shell 'echo again >> log'");
    until("it is there", || {
        home.run(&["status", "g"]).exits(0).out.contains(&format!(":{}", watch.id())) || {
            home.run(&["emit", "t", "-q"]).exits(0);
            home.lines("log").len() > 2
        }
    });
    signal(&watch, "HUP");
    let before = home.lines("log").len();
    home.run(&["emit", "t", "-q"]).exits(0);
    until("it goes on", || home.lines("log").len() > before);
    signal(&watch, "TERM");
    watch.wait().unwrap();
}

#[test]
fn a_daemon_reloads_its_config() {
    let home = Home::new();
    let config = |name: &str| format!("[watchers.{name}]\nfrom = 'earliest'\nshell = 'echo {name} >> seen'\n");
    home.file("evbus.toml", &config("one"));
    // In its own session, the process has no terminal.
    let mut watch = home.command("setsid").args(["-w", super::support::EVBUS, "watch"]).spawn().unwrap();
    home.emit_many("t", 1);
    until("it works", || home.lines("seen") == ["one"]);
    let pid = home.run(&["status", "one", "--json"]).exits(0).out;
    let pid: serde_json::Value = serde_json::from_str(&pid).unwrap();
    let pid = pid["groups"][0]["owners"][0]["pid"].as_u64().unwrap().to_string();
    let hup = || assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    home.file("evbus.toml", "[watchers.one\n");
    hup();
    home.run(&["emit", "t", "-q", "--bus", home.bus().to_str().unwrap()]).exits(0);
    until("a config that cannot be read changes nothing", || home.lines("seen") == ["one", "one"]);
    home.file("evbus.toml", &config("two"));
    hup();
    until("the new one works", || home.lines("seen").iter().filter(|line| *line == "two").count() == 2);
    // The config breaks while the running handler still ends.
    home.file(
        "evbus.toml",
        "[watchers.three]\nfrom = 'now'\nshell = 'until [ -e go ]; do sleep 0.1; done; echo three >> seen'\n",
    );
    hup();
    let bus = home.bus();
    let groups = ["group", "ls", "--bus", bus.to_str().unwrap()];
    until("it is read", || home.run(&groups).exits(0).out.contains("three"));
    home.run(&["emit", "t", "-q"]).exits(0);
    let of_three = ["status", "three", "--bus", bus.to_str().unwrap()];
    until("it runs", || home.run(&of_three).exits(0).out.contains("runs "));
    hup();
    home.file("evbus.toml", "[watchers.three\n");
    home.file("go", "");
    home.run(&["emit", "t", "-q", "--bus", home.bus().to_str().unwrap()]).exits(0);
    until("what it said goes on", || home.lines("seen").iter().filter(|line| *line == "three").count() == 2);
    assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    watch.wait().unwrap();
    let mut said = String::new();
    watch.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("the config is not reloaded: ") && said.contains("group 'two'"), "{said}");
}

#[test]
fn a_watch_can_reload_its_config_by_itself() {
    let home = Home::new();
    let config = |name: &str| {
        format!("[bus]\nurl = './bus'\n[watchers.{name}]\nfrom = 'earliest'\nshell = 'echo {name} >> seen'\n")
    };
    home.file("evbus.toml", &config("one"));
    let mut watch = reloading(&home);
    home.emit_many("t", 1);
    until("it works", || home.lines("seen") == ["one"]);
    home.file("evbus.toml", "[watchers.one\n");
    hear(&home, "the config is not reloaded: ");
    home.run(&["emit", "t", "-q", "--bus", home.bus().to_str().unwrap()]).exits(0);
    until("a config that cannot be read changes nothing", || home.lines("seen") == ["one", "one"]);
    std::fs::remove_file(home.path().join("evbus.toml")).unwrap();
    hear(&home, "/evbus.toml is gone or ignored");
    // As an editor saves it.
    home.file("new.toml", &config("two"));
    std::fs::rename(home.path().join("new.toml"), home.path().join("evbus.toml")).unwrap();
    until("the new one works", || home.lines("seen").iter().filter(|line| *line == "two").count() == 2);
    signal(&watch, "TERM");
    assert!(watch.wait().unwrap().success());
    home.run(&["watch", "--reload", "-g", "g", "--", "true"]).exits(2);
}

/// A watch of the config that reloads it by itself, and says what it says to the file `said`.
fn reloading(home: &Home) -> std::process::Child {
    let said = std::fs::File::create(home.path().join("said")).unwrap();
    home.evbus(&["watch", "--reload"]).env_remove("EVBUS_URL").stderr(said).spawn().unwrap()
}

fn hear(home: &Home, what: &str) {
    hear_times(home, what, 1);
}

fn hear_times(home: &Home, what: &str, times: usize) {
    until(what, || home.lines("said").iter().filter(|line| line.contains(what)).count() == times);
}

#[test]
fn a_reload_touches_only_what_has_changed() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("inbox")).unwrap();
    let watcher = |name: &str, type_: &str, shell: &str| {
        format!("[watchers.{name}]\ntypes = ['{type_}']\nfrom = 'earliest'\nshell = '{shell}'\n")
    };
    // No time to stop: that counts for a signal, and not for a reload.
    let long = watcher("long", "long", "echo begins >> log; until [ -e go ]; do sleep 0.05; done; echo ends >> log")
        + "stop_timeout = '0s'\n";
    let config = |parts: &[&str]| {
        home.file("new.toml", &format!("[bus]\nurl = './bus'\n{}", parts.concat()));
        std::fs::rename(home.path().join("new.toml"), home.path().join("evbus.toml")).unwrap();
    };
    let logged = |what: &str| home.lines("log").iter().filter(|line| *line == what).count();
    let emit = |type_: &str| _ = home.run(&["emit", type_, "-q"]).exits(0);
    let [a, b] = ["a", "b"].map(|name| watcher(name, "short", &format!("echo {name} >> log")));
    config(&[&long, &a, &b]);
    let mut watch = reloading(&home);
    emit("long");
    until("the long handler runs", || logged("begins") == 1);

    let (a, c) = (watcher("a", "short", "echo a2 >> log"), watcher("c", "*.arrived", "echo $EVBUS_SUBJECT >> log"));
    let source = "[sources.in]\nfolder = 'inbox'\nsettle = '50ms'\n";
    config(&[&long, &a, &c, source]);
    let said = "is reloaded: new: watcher 'c', source 'in'; changed: watcher 'a'; removed: watcher 'b'";
    hear(&home, said);
    hear(&home, "watcher 'b' has ended");
    emit("short");
    until("the new settings count", || logged("a2") == 1);
    std::fs::write(home.path().join("inbox/file"), "x").unwrap();
    until("the new watcher and the new source work", || logged("file") == 1);
    assert_eq!((logged("begins"), logged("ends"), logged("b")), (1, 0, 0), "the long one goes on, and b has ended");

    // What the bus does not have so changes nothing, either.
    config(&[&long, &a, &watcher("c", "other", "true"), "[schedules.s]\nevery = '1h'\ntype = 't'\n"]);
    hear(&home, "is not reloaded: watcher 'c': group 'c' wants '*.arrived', not 'other'");
    // A long handler ends by its old settings, and holds up only its own watcher.
    config(&[&watcher("long", "long", "echo new >> log"), &a]);
    hear(&home, "is reloaded: changed: watcher 'long'; removed: source 'in', watcher 'c'");
    emit("short");
    until("the others go on", || logged("a2") == 2);
    assert_eq!((logged("ends"), logged("new")), (0, 0));
    emit("long");
    // The group is as it is by then.
    home.run(&["group", "pause", "long"]).exits(0);
    home.file("go", "");
    until("the long one ends", || logged("ends") == 1);
    emit("short");
    until("the others go on", || logged("a2") == 3);
    assert_eq!(logged("new"), 0, "it is paused");
    home.run(&["group", "resume", "long"]).exits(0);
    until("the new settings are taken", || logged("new") == 1);
    assert_eq!((logged("begins"), logged("ends")), (1, 1));
    signal(&watch, "TERM");
    assert!(watch.wait().unwrap().success());
}

#[test]
fn a_watcher_that_cannot_run_holds_up_no_reload_and_a_wrong_relay_no_watcher() {
    let home = Home::new();
    let config = |more: &str, n: u32| {
        let shell = format!("[watchers.good]\nfrom = 'earliest'\nshell = 'echo {n} >> seen'\n");
        home.file("new.toml", &format!("[bus]\nurl = './bus'\n{shell}{more}"));
        std::fs::rename(home.path().join("new.toml"), home.path().join("evbus.toml")).unwrap();
    };
    let bad = "[watchers.bad]\nfrom = 'now'\ncommand = ['./missing']\n";
    config(bad, 1);
    let mut watch = reloading(&home);
    hear(&home, "watcher 'bad' is not run");
    config(bad, 2);
    hear(&home, "is reloaded: changed: watcher 'good'");
    config(&format!("{bad}[watchers.worse]\nfrom = 'now'\ncommand = ['./missing']\n"), 3);
    hear(&home, "is not reloaded: watcher 'worse': ");
    home.emit_many("t", 1);
    until("the last good settings count", || home.lines("seen") == ["2"]);
    config("", 4);
    hear_times(&home, "is reloaded: changed: watcher 'good'", 2);
    signal(&watch, "TERM");
    assert!(watch.wait().unwrap().success(), "what failed is not wanted any more");
    config("[relays.r]\nfrom = './bus'\n", 5);
    let mut watch = reloading(&home);
    hear(&home, "relay 'r' is not run");
    home.emit_many("t", 1);
    until("the watcher works", || home.lines("seen").last().unwrap() == "5");
    signal(&watch, "TERM");
    assert_eq!(watch.wait().unwrap().code(), Some(2));
}

#[test]
fn the_history_of_a_group_is_kept_by_those_of_its_watchers_that_keep_one() {
    let home = Home::new();
    let watcher = |name: &str, more: &str| {
        format!("[watchers.{name}]\ngroup = 'g'\nshards = 8\nfrom = 'earliest'\nshell = 'true'\n{more}")
    };
    home.file("evbus.toml", &[watcher("a", ""), watcher("b", "history = false\n")].concat());
    let mut watch = home.spawn(&["watch"]);
    // They share the shards.
    until("some are kept", || {
        home.emit_many("t", 1);
        !home.run(&["history", "g"]).out.is_empty()
    });
    signal(&watch, "TERM");
    assert!(watch.wait().unwrap().success());
}

#[test]
fn a_reload_follows_the_config_to_another_bus() {
    let home = Home::new();
    let config = |bus: &str| {
        let text = format!("[bus]\nurl = './{bus}'\n[watchers.w]\nfrom = 'earliest'\nshell = '{NOTE}'\n");
        home.file("new.toml", &text);
        std::fs::rename(home.path().join("new.toml"), home.path().join("evbus.toml")).unwrap();
    };
    for bus in ["one", "two"] {
        home.run(&["init", home.path().join(bus).to_str().unwrap()]).exits(0);
    }
    let emit = |bus: &str| {
        home.run(&["emit", "t", "--id", bus, "--bus", home.path().join(bus).to_str().unwrap()]).exits(0);
    };
    config("one");
    let mut watch = reloading(&home);
    emit("one");
    until("it works", || home.lines("seen") == ["one"]);
    config("three");
    hear(&home, "the config is not reloaded: no bus at ");
    config("two");
    hear(&home, "the config names another bus");
    emit("two");
    until("it works on the other", || home.lines("seen") == ["one", "two"]);
    signal(&watch, "TERM");
    assert!(watch.wait().unwrap().success());
}

#[test]
fn a_reload_takes_no_config_that_others_can_write_and_no_other_one() {
    let home = Home::new();
    let path = home.path().join("evbus.toml");
    let config = |n: u32, mode: u32| {
        let text = format!("[bus]\nurl = './bus'\n[watchers.w]\nfrom = 'earliest'\nshell = 'echo {n} >> seen'\n");
        let new = home.file("new.toml", &text);
        std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    config(1, 0o644);
    let mut watch = reloading(&home);
    home.emit_many("t", 1);
    until("it works", || home.lines("seen") == ["1"]);
    config(2, 0o666);
    hear(&home, "the config is not reloaded: ");
    hear(&home, "evbus.toml is gone or ignored");
    home.emit_many("t", 1);
    until("it goes on", || home.lines("seen") == ["1", "1"]);
    config(3, 0o644);
    hear(&home, "the config is reloaded: changed: watcher 'w'");
    signal(&watch, "TERM");
    assert!(watch.wait().unwrap().success());
}

#[test]
fn a_config_that_breaks_before_the_watch_begins_again_leaves_it_as_it_was() {
    let home = Home::new();
    let config = |bus: &str| {
        let shell = "echo $EVBUS_ID >> seen; [ $EVBUS_ID != slow ] || until [ -e go ]; do sleep 0.05; done";
        let text = format!("[bus]\nurl = './{bus}'\n[watchers.w]\nfrom = 'earliest'\nshell = '{shell}'\n");
        home.file("new.toml", &text);
        std::fs::rename(home.path().join("new.toml"), home.path().join("evbus.toml")).unwrap();
    };
    let path = |bus: &str| home.path().join(bus).to_str().unwrap().to_owned();
    let emit = |id: &str, bus: &str| _ = home.run(&["emit", "t", "--id", id, "--bus", &path(bus)]).exits(0);
    for bus in ["one", "two"] {
        home.run(&["init", &path(bus)]).exits(0);
    }
    config("one");
    let mut watch = reloading(&home);
    emit("slow", "one");
    until("it runs", || home.lines("seen") == ["slow"]);
    config("two");
    hear(&home, "the config names another bus");
    home.file("evbus.toml", "[watchers");
    home.file("go", "");
    hear(&home, "the watchers go on unchanged");
    emit("after", "one");
    until("it works on the first", || home.lines("seen") == ["slow", "after"]);
    config("two");
    hear_times(&home, "the config names another bus", 2);
    emit("two", "two");
    until("it works on the second", || home.lines("seen") == ["slow", "after", "two"]);
    signal(&watch, "TERM");
    assert!(watch.wait().unwrap().success());
}

/// A service manager signals all processes of a service at once.
#[test]
fn a_handler_ended_with_its_worker_costs_no_attempt() {
    let home = Home::new();
    home.emit_many("t", 1);
    let shell = "echo $$ >> pids; exec sleep 1000";
    let mut watch = home.spawn(&["watch", "-q", "-g", "g", "--from", "earliest", "--shell", shell]);
    until("it runs", || home.lines("pids").len() == 1);
    let pid = home.lines("pids").remove(0);
    let both = format!("kill -TERM {pid} {}", watch.id());
    home.shell(&both).exits(0);
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    home.run(&["drain", "-g", "g", "--shell", "echo $EVBUS_ATTEMPT >> attempts"]).exits(0);
    assert_eq!(home.lines("attempts"), ["1"]);
}

#[test]
fn a_handler_that_asks_the_terminal_fails_at_once() {
    let home = Home::new();
    home.emit_many("t", 1);
    let line = "exec $EVBUS drain -g g --from earliest --max-attempts 1 --timeout 4m \
        --shell 'read answer </dev/tty || { echo refused >> got; exit 65; }'";
    home.file("line", line);
    let ran = home.shell("script -qec 'sh line' /dev/null").exits(0);
    assert_eq!(home.lines("got"), ["refused"], "{}", ran.out);
}

#[test]
fn health_is_served_despite_idle_connections() {
    let home = Home::new();
    let mut watch = home
        .evbus(&["watch", "-g", "g", "--from", "now", "--metrics", "127.0.0.1:0", "--shell", NOTE])
        .stderr(Stdio::from(std::fs::File::create(home.path().join("said")).unwrap()))
        .spawn()
        .unwrap();
    let address =
        || home.lines("said").iter().find_map(|line| Some(line.split_once("http://")?.1.split_once('/')?.0.to_owned()));
    until("it listens", || address().is_some());
    let address = address().unwrap();
    let mut sitting: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for stream in &mut sitting {
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nX: ");
    }
    let mut asks = TcpStream::connect(&address).unwrap();
    asks.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    asks.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    signal(&watch, "TERM");
    watch.wait().unwrap();
}

#[test]
fn process_1_reaps_orphaned_children() {
    let home = Home::new();
    if !home.shell("unshare -rpf --mount-proc true").out.is_empty()
        || home.shell("unshare -rpf --mount-proc true").code != 0
    {
        eprintln!("NOT TRIED: process 1; no process namespace can be made here");
        return;
    }
    home.emit_many("t", 20);
    let shell = "(exec sleep 0.05) >/dev/null 2>&1 & echo $EVBUS_ID >> seen";
    let line = format!("exec unshare -rpf --mount-proc $EVBUS watch -q -g g --from earliest --shell '{shell}'");
    let mut watch = home.shell_spawn(&line);
    until("all have run", || home.lines("seen").len() == 20);
    let first = || home.shell(&format!("ps -o pid= --ppid {}", watch.id())).out.trim().to_owned();
    until("nothing is left of them", || {
        // The orphan reaper may run; a zombie must not remain.
        let states = home.shell(&format!("ps -o stat= --ppid {}", first())).out;
        !states.contains('Z')
    });
    home.shell(&format!("kill -KILL {}", first())).exits(0);
    watch.wait().unwrap();
}
