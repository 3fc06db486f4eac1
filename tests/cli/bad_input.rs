//! Bad input: a clear error or a warning, a documented exit code, nothing lost or half written.

use std::os::unix::fs::PermissionsExt;

use super::support::{EVBUS, Home};

const NOTE: &str = "echo $EVBUS_ID >> seen";

#[test]
fn unknown_flags_and_verbs_are_one_line_errors() {
    let home = Home::new();
    home.run(&["emit", "t", "--sauce", "x"]).exits(2).says("--sauce", "--source");
    home.run(&["emitt", "t"]).exits(2).says("emitt", "emit");
    home.run(&["watch", "-g", "g", "./handler"]).exits(2).says("a command comes after '--'", "-- ./handler");
    home.file("order.log", "");
    home.run(&["watch", "-g", "g", "-t", "order.csv", "order.log", "--", "cat"]).exits(2).says("order.log", "quote it");
    home.run(&["drain", "-g", "g", "--", "echo hi"]).exits(2).says("'echo hi' not found", "--shell");
    home.run(&["drain", "-g", "g", "--poll", "0s", "--", "cat"]).exits(2).says("--poll 0s", "--poll 5s");
    home.run(&["drain", "-g", "g", "--dead-on", "300", "--", "cat"]).exits(2).says("--dead-on 300", "");
    home.run(&["watch", "--", "cat"]).exits(2).says("a command needs a group", "-g GROUP");
}

#[test]
fn a_type_that_no_pattern_can_name_is_refused() {
    let home = Home::new();
    home.run(&["emit", "{\"a\":1}"]).exits(2).says("is data", "evbus emit TYPE '{\"a\":1}'");
    for odd in ["a*", "a..b", "a.", "a,b", "!a"] {
        home.run(&["emit", odd]).exits(2).says("no pattern could name it", "order.created");
        home.feed(&["emit", odd, "--ndjson"], "1\n").exits(2).says("no pattern could name it", "");
    }
    assert!(home.events().is_empty());
}

#[test]
fn a_bus_is_not_made_twice_with_other_settings() {
    let home = Home::new();
    let bus = home.bus().display().to_string();
    home.run(&["init", &bus]).exits(0);
    home.run(&["init", "--max-event", "1MiB", &bus]).exits(0);
    home.run(&["init", "--max-event", "8MiB", &bus]).exits(2).says("takes events of up to 1,048,576 bytes", "another");
    let mode = || std::fs::metadata(home.bus()).unwrap().permissions().mode();
    let before = mode();
    home.run(&["init", "--shared", "group", &bus]).exits(2).says("is not shared", "another");
    assert_eq!(mode(), before, "nothing is half shared");
}

#[test]
fn a_pattern_expanded_by_the_shell_is_refused() {
    let home = Home::new();
    home.run(&["drain", "-g", "g", "-t", "order.", "--", "true"]).exits(2).says("quote it", "");
}

#[test]
fn group_names_are_safe_as_files() {
    let home = Home::new();
    for name in ["a/b", "..", "Mail", "", "a b"] {
        home.run(&["drain", "-g", name, "--", "true"]).exits(2).says("group name", "");
    }
}

#[test]
fn a_missing_or_not_executable_handler_is_refused_at_start() {
    let home = Home::new();
    home.run(&["drain", "-g", "g", "--", "./nope"]).exits(2).says("nope", "");
    home.file("plain", "#!/bin/sh\n");
    home.run(&["drain", "-g", "g", "--", "./plain"]).exits(2).says("not executable", "chmod +x");
    assert!(!home.bus().join("groups").exists());
}

#[test]
fn a_handler_that_vanishes_stalls_and_costs_no_attempt() {
    let home = Home::new();
    home.emit_many("t", 2);
    let script = home.script("handler", "rm -f handler; echo $EVBUS_ID >> seen");
    let ran = home.run(&["drain", "-g", "g", "--from", "earliest", "--", &script]).exits(1);
    home.snapshot("a_handler_that_vanishes_stalls_and_costs_no_attempt", &ran);
    home.script("handler", "echo $EVBUS_ATTEMPT >> attempts");
    super::support::until("the stalled event is due again", || {
        home.run(&["drain", "-g", "g", "--", &script]).exits(0);
        !home.lines("attempts").is_empty()
    });
    assert_eq!(home.lines("attempts"), ["1"]);
}

#[test]
fn a_new_group_needs_a_start_position_if_events_match() {
    let home = Home::new();
    home.emit_many("t", 3);
    home.run(&["group", "create", "mail", "--from", "now"]).exits(0);
    home.run(&["drain", "-g", "mial", "--", "true"])
        .exits(2)
        .says("did you mean 'mail'?); 3 events match", "--from now");
}

#[test]
fn a_worker_with_another_filter_or_other_shards_is_refused() {
    let home = Home::new();
    home.run(&["group", "create", "g", "-t", "a.*", "--shards", "2"]).exits(0);
    home.run(&["drain", "-g", "g", "-t", "b.*", "--", "true"])
        .exits(2)
        .says("wants 'a.*', not 'b.*'", "evbus group set g");
    home.run(&["drain", "-g", "g", "--shards", "3", "--", "true"]).exits(2).says("has 2 shards, not 3", "");
    home.run(&["drain", "-g", "g", "-t", "a.*", "--", "true"]).exits(0);
}

#[test]
fn two_watchers_of_one_group_with_different_shards_are_refused() {
    let home = Home::new();
    let config =
        "[watchers.a]\ngroup='g'\nshards=2\ncommand=['true']\n[watchers.b]\ngroup='g'\nshards=3\ncommand=['true']\n";
    home.file("evbus.toml", config);
    home.run(&["drain"]).exits(2).says("shards", "");
}

#[test]
fn an_unknown_config_key_names_the_nearest_and_the_line() {
    let home = Home::new();
    home.file("evbus.toml", "[watchers.a]\ncommand = ['true']\nconcurency = 4\n");
    home.run(&["drain"]).exits(2).says("evbus.toml:3: unknown key 'concurency'", "");
}

#[test]
fn foreign_files_among_the_events_are_ignored_and_reported() {
    let home = Home::new();
    let ids = home.emit_many("t", 2);
    let folder = home.events()[0].parent().unwrap().to_owned();
    std::fs::write(folder.join("README.txt"), "hello").unwrap();
    std::fs::write(home.bus().join("staging/0000000000000000-0"), "{\"half").unwrap();
    let ran = home.run(&["drain", "-g", "g", "--from", "earliest", "--shell", NOTE]).exits(0);
    home.snapshot("foreign_files_among_the_events_are_ignored_and_reported", &ran);
    assert_eq!(home.lines("seen"), ids);
}

#[test]
fn a_truncated_event_is_a_dead_letter_at_once() {
    let home = Home::new();
    let ids = home.emit_many("t", 3);
    std::fs::write(&home.events()[1], "{\"specversion\":\"1.").unwrap();
    let ran = home.run(&["drain", "-g", "g", "--from", "earliest", "--shell", NOTE]).exits(0);
    home.snapshot("a_truncated_event_is_a_dead_letter_at_once", &ran);
    assert_eq!(home.lines("seen"), [ids[0].clone(), ids[2].clone()]);
    let letter = std::fs::read_dir(home.bus().join("state/g/dead")).unwrap().next().unwrap().unwrap().path();
    assert!(std::fs::read_to_string(letter).unwrap().contains("{\\\"specversion\\\":\\\"1."));
}

#[test]
fn a_damaged_marker_stops_its_group_and_no_other() {
    let home = Home::new();
    home.emit_many("t", 2);
    for group in ["a", "b"] {
        home.run(&["drain", "-g", group, "--from", "earliest", "--shell", "true"]).exits(0);
    }
    let newest = |group: &str| {
        let folder = std::fs::read_dir(home.bus().join("state").join(group)).unwrap();
        let files = folder.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        files.max_by_key(|path| path.extension().unwrap().to_str().unwrap().parse::<u64>().unwrap()).unwrap()
    };
    std::fs::write(newest("a"), "{\"epoch\":").unwrap();
    home.emit_many("t", 1);
    home.run(&["drain", "-g", "a", "--shell", NOTE])
        .exits(1)
        .says("state/a/marker-000 cannot be read", "evbus group reset a");
    home.run(&["drain", "-g", "b", "--shell", NOTE]).exits(0);
    assert_eq!(home.lines("seen").len(), 1);
    home.run(&["group", "reset", "a", "--to", "earliest", "--yes"]).exits(0);
    home.run(&["drain", "-g", "a", "--shell", NOTE]).exits(0);
    assert_eq!(home.lines("seen").len(), 4);
}

#[test]
fn a_newer_bus_format_is_refused() {
    let home = Home::new();
    std::fs::write(home.bus().join("bus.json"), "{\"format\":3,\"colour\":\"blue\"}").unwrap();
    home.run(&["emit", "t"]).exits(1).says("format 3, newer than this evbus reads", "upgrade");
}

#[test]
fn a_file_in_place_of_a_folder_is_named() {
    let home = Home::new();
    std::fs::write(home.bus().join("events"), "").unwrap();
    home.run(&["emit", "t"]).exits(1).says("not a directory", "a file stands where a folder should be");
    home.file("file", "");
    home.run(&["--bus", "./file", "emit", "t"]).exits(1).says("not a directory", "");
}

/// Runs a shell line in its own mount namespace, where `$BUS` is a small file system.
fn on_small_disk(home: &Home, line: &str) -> super::support::CliRun {
    let script =
        format!("mkdir -p small; mount -t tmpfs -o size=400k none small; BUS=$PWD/small/bus; $EVBUS init $BUS; {line}");
    home.shell(&format!("exec unshare -rm sh -c '{script}'"))
}

#[test]
fn a_full_disk_is_reported_and_leaves_no_partial_file() {
    let home = Home::new();
    let ran = on_small_disk(
        &home,
        "while $EVBUS --bus $BUS emit t \"\\\"$(head -c 30000 /dev/zero | tr \"\\\\0\" x)\\\"\" -q; do :; done; \
         echo code $?; ls $BUS/staging | wc -l; rm -r $BUS/events; $EVBUS --bus $BUS emit t -q; echo $?",
    );
    home.snapshot("a_full_disk_is_reported_and_leaves_no_partial_file", &ran);
    assert!(ran.out.ends_with("0\n0\n"), "{}", ran.out);
}

#[test]
fn a_read_only_bus_is_reported() {
    let home = Home::new();
    let ran = on_small_disk(
        &home,
        "$EVBUS --bus $BUS emit t -q; mount -o remount,ro small; $EVBUS --bus $BUS emit t; echo $?; \
         $EVBUS --bus $BUS ls | wc -l",
    );
    home.snapshot("a_read_only_bus_is_reported", &ran);
    assert!(ran.out.ends_with("1\n1\n"), "{}", ran.out);
}

#[test]
fn a_bus_without_write_permission_is_reported() {
    let home = Home::new();
    std::fs::set_permissions(home.bus().join("staging"), std::fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write everywhere; an ordinary user of the namespace may not.
    let ran =
        home.shell(&format!("chmod 755 .; exec setpriv --reuid 65534 --regid 65534 --clear-groups {EVBUS} emit t"));
    std::fs::set_permissions(home.bus().join("staging"), std::fs::Permissions::from_mode(0o755)).unwrap();
    ran.exits(1).says("permission denied", "evbus doctor");
}
