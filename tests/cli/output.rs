//! What every verb prints, whole.

use super::support::Home;

/// A bus with an event that failed, one that is dead, one that waits, and three groups.
fn worked_on() -> (Home, String) {
    let home = Home::new();
    let emit = |args: &[&str]| home.run(&[&["emit"], args].concat()).exits(0).lines().remove(0);
    let first = emit(&["order.created", "-F", "total=99.5", "-f", "customer=Ada", "--subject", "order/1"]);
    emit(&["order.paid", "{\"total\":12}", "--source", "//shop", "--id", "invoice-42"]);
    emit(&["report.due", "--at", "2999-12-24 09:30", "--id", "later", "--source", "//shop"]);
    let drain = |group: &str, more: &[&str], line: &str| {
        let args = ["drain", "-q", "-g", group, "--from", "earliest", "--backoff", "1h..1h", "--shell", line];
        home.run(&[&args[..8], more, &args[8..]].concat()).exits(0);
    };
    drain("mail", &["-t", "order.*"], "true");
    drain("crm", &["-t", "order.created", "--max-attempts", "1"], "echo no database >&2; exit 7");
    (home, first)
}

fn shown(home: &Home, name: &str, args: &[&str]) {
    home.snapshot(name, &home.run(args));
}

#[test]
fn init_and_emit() {
    let home = Home::new();
    shown(&home, "init", &["init", "./other"]);
    shown(&home, "init-again", &["init", "./other"]);
    shown(&home, "emit", &["emit", "backup.done", "-F", "rc=0"]);
    shown(&home, "emit-json", &["emit", "backup.done", "-F", "rc=0", "--json", "--source", "//db1"]);
    shown(&home, "emit-no-type", &["emit"]);
    shown(&home, "emit-not-json", &["emit", "backup.done", "{rc:0}"]);
}

#[test]
fn events() {
    let (home, first) = worked_on();
    shown(&home, "ls", &["ls"]);
    shown(&home, "ls-json", &["ls", "--json", "-t", "order.paid"]);
    shown(&home, "ls-scheduled", &["ls", "--scheduled"]);
    shown(&home, "get", &["get", "invoice-42", "--source", "//shop"]);
    shown(&home, "get-field", &["get", &first, "--field", "data.customer"]);
    shown(&home, "get-unknown", &["get", "nothing"]);
    shown(&home, "cancel", &["cancel", "later", "--source", "//shop"]);
    shown(&home, "cancel-again", &["cancel", "later", "--source", "//shop"]);
}

#[test]
fn groups() {
    let (home, _) = worked_on();
    shown(&home, "group-ls", &["group", "ls"]);
    shown(&home, "group-ls-json", &["group", "ls", "mail", "--json"]);
    shown(&home, "group-create", &["group", "create", "audit", "--from", "now"]);
    shown(&home, "group-set", &["group", "set", "audit", "-t", "order.*", "--not", "order.test"]);
    shown(&home, "group-pause", &["group", "pause", "audit", "--why", "db restore"]);
    shown(&home, "group-resume", &["group", "resume", "audit"]);
    shown(&home, "group-reset", &["group", "reset", "audit", "--to", "earliest", "--yes"]);
    shown(&home, "group-rm-unasked", &["group", "rm", "audit"]);
    shown(&home, "group-rm", &["group", "rm", "audit", "--yes"]);
    shown(&home, "group-unknown", &["group", "pause", "mial"]);
}

#[test]
fn dead_letters() {
    let (home, _) = worked_on();
    shown(&home, "dead-ls", &["dead", "ls"]);
    shown(&home, "dead-show", &["dead", "show", "crm"]);
    shown(&home, "dead-redrive-unasked", &["dead", "redrive", "crm", "--all"]);
    shown(&home, "dead-redrive", &["dead", "redrive", "crm", "--all", "--yes"]);
    shown(&home, "dead-rm-which", &["dead", "rm", "crm"]);
}

#[test]
fn status_prune_and_check() {
    let (home, _) = worked_on();
    shown(&home, "status", &["status"]);
    shown(&home, "status-prom", &["status", "mail", "--prom"]);
    shown(&home, "status-threshold", &["status", "--max-dead", "0"]);
    shown(&home, "prune-dry-run", &["prune", "--keep", "0s", "--dry-run"]);
    shown(&home, "drain-nothing", &["drain", "-g", "mail", "-t", "order.*", "--", "true"]);
    shown(&home, "drain-other-filter", &["drain", "-g", "mail", "-t", "invoice.*", "--", "true"]);
    home.file("evbus.toml", "[watchers.mail]\ncommand = ['true']\ntypes = ['order.*']\n");
    shown(&home, "check", &["check"]);
    shown(&home, "check-json", &["check", "--json"]);
    home.file("evbus.toml", "[watchers.mail]\ncomand = ['true']\n");
    shown(&home, "check-misspelt", &["check"]);
}
