//! Mistakes of new users, and the answers to them.

use super::support::{Home, NOTE};

#[test]
fn help_is_a_subcommand() {
    let home = Home::new();
    home.snapshot("help_is_a_subcommand", &home.run(&["help"]).exits(0));
    assert_eq!(home.run(&["help", "emit"]).exits(0).out, home.run(&["emit", "--help"]).exits(0).out);
    home.snapshot("help_is_a_subcommand-2", &home.run(&["help", "dead", "redrive"]).exits(0));
    home.run(&["help", "nosuch"]).exits(2);
}

#[test]
fn a_field_without_its_flag_suggests_the_flag() {
    let home = Home::new();
    home.run(&["emit", "t", "rc=0"]).exits(2).says("DATA 'rc=0' is not JSON", "-f rc=0");
    home.run(&["emit", "t", "plain words"]).exits(2).says("not JSON", "--text, if it is meant as text");
}

#[test]
fn an_empty_url_variable_is_refused() {
    let home = Home::new();
    let ran = Home::ran(home.evbus(&["emit", "t"]).env("EVBUS_URL", ""));
    ran.exits(2).says("EVBUS_URL: it is empty", "unset EVBUS_URL");
}

#[test]
fn an_unknown_time_zone_is_reported() {
    let home = Home::new();
    let ran = Home::ran(home.evbus(&["ls"]).env("TZ", "Mars/Olympus")).exits(0);
    home.snapshot("an_unknown_time_zone_is_reported", &ran);
    for known in ["Europe/Berlin", "UTC", "CET-1CEST,M3.5.0,M10.5.0/3", ":Europe/Paris"] {
        let ran = Home::ran(home.evbus(&["ls"]).env("TZ", known)).exits(0);
        assert_eq!(ran.err, "", "{known}");
    }
}

#[test]
fn prune_can_be_quiet_and_a_condition_may_begin_with_a_minus() {
    let home = Home::new();
    home.run(&["group", "create", "g", "--from", "earliest"]).exits(0);
    let ran = home.run(&["prune", "--keep", "1d", "-q"]).exits(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    home.run(&["emit", "t", "{\"n\":1}", "-q"]).exits(0);
    let event = std::fs::read_to_string(&home.events()[0]).unwrap();
    assert!(
        home.feed(&["check", "--where", "-data.n == -1", "--event", "-"], &event).exits(0).out.starts_with("match")
    );
}

#[test]
fn a_single_retry_is_counted_in_the_singular() {
    let home = Home::new();
    home.run(&["emit", "t", "-q"]).exits(0);
    let ran = home.run(&["drain", "-g", "g", "--from", "earliest", "--shell", "exit 1"]).exits(0);
    home.snapshot("a_single_retry_is_counted_in_the_singular", &ran);
    home.run(&["status", "nosuch"]).exits(2).says("no group 'nosuch'", "evbus group ls");
}

#[test]
fn a_bus_path_need_not_be_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let home = Home::new();
    let path = std::ffi::OsString::from_vec(b"./odd\xff/bus".to_vec());
    let evbus = |args: &[&str]| {
        let mut command = home.evbus(&["--bus"]);
        command.arg(&path).args(args);
        Home::ran(&mut command)
    };
    evbus(&["init"]).exits(0);
    evbus(&["emit", "t", "-q"]).exits(0);
    evbus(&["drain", "-g", "g", "--from", "earliest", "--shell", NOTE]).exits(0);
    assert_eq!(home.lines("seen").len(), 1);
}

#[test]
fn a_drain_runs_in_a_deleted_working_folder() {
    let home = Home::new();
    home.emit_many("t", 1);
    let line = "mkdir gone; cd gone; rmdir ../gone; $EVBUS drain -g g --from earliest --shell 'echo ran'";
    assert!(home.shell(line).exits(0).out.contains("| ran"));
}

#[test]
fn a_config_writable_or_linked_by_others_is_ignored() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let config = home.file("evbus.toml", "[watchers.x]\nfrom = 'now'\ncommand = ['true']\n");
    home.snapshot("a_config_writable_or_linked_by_others_is_ignored", &home.run(&["check"]).exits(0));
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o666)).unwrap();
    let ran = home.run(&["check"]);
    home.snapshot("a_config_writable_or_linked_by_others_is_ignored-2", &ran);
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).unwrap();
    if rustix::process::geteuid().is_root() {
        home.shell(
            "mkdir other && mv evbus.toml other/ && ln -s other/evbus.toml evbus.toml && chown -h 65534 evbus.toml",
        )
        .exits(0);
        let ran = home.run(&["check"]);
        home.snapshot("a_config_writable_or_linked_by_others_is_ignored-3", &ran);
    }
}

#[test]
fn an_empty_command_or_bus_name_is_refused() {
    let home = Home::new();
    home.emit_many("t", 1);
    home.run(&["drain", "-g", "g", "--from", "earliest", "--shell", " "])
        .exits(2)
        .says("--shell has no command", "--shell '");
    home.run(&["init", ""]).exits(2).says("the bus to make has no name", "evbus init ./bus");
}
