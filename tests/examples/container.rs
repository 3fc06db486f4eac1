//! The image's layout, without the image: a root with nothing in it but evbus, which is process 1.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::{EVBUS, example, fs};

/// evbus as process 1 of an empty root; its handlers are what lies there, evbus itself.
fn contained(root: &std::path::Path, args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    // --kill-child: what runs there ends with `unshare`, whatever ends that.
    command.args(["--map-root-user", "--pid", "--fork", "--kill-child"]);
    command.arg(format!("--root={}", root.display())).args(["/usr/bin/evbus"]).args(args);
    command.env_clear().env("EVBUS_URL", "/bus").stderr(Stdio::piped());
    command
}

/// Process 1 of a namespace, as seen from outside.
fn process_1(unshare: &Child) -> String {
    let path = format!("/proc/{0}/task/{0}/children", unshare.id());
    fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn alone_in_an_empty_root_evbus_works_and_ends_in_order() {
    let file = fs::read_to_string(example("Containerfile")).unwrap();
    let last = file.rsplit("\nFROM ").next().unwrap();
    assert!(last.starts_with("gcr.io/distroless/static") && last.contains(":nonroot"), "not root, nothing but evbus");
    assert!(last.contains("ENTRYPOINT [\"/usr/bin/evbus\"]") && last.contains("STOPSIGNAL SIGTERM"));

    let root = tempfile::tempdir().unwrap();
    for folder in ["usr/bin", "bus", "tmp"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    fs::copy(EVBUS, root.path().join("usr/bin/evbus")).unwrap();
    assert!(contained(root.path(), &["init", "/bus"]).status().unwrap().success(), "it needs no library");
    assert!(contained(root.path(), &["emit", "a", "--id", "1"]).stdout(Stdio::null()).status().unwrap().success());

    let watch = ["watch", "-g", "g", "-t", "a", "--from", "earliest", "--metrics", "127.0.0.1:0", "--"];
    let handler = ["/usr/bin/evbus", "emit", "-q", "b"];
    let mut watching = contained(root.path(), &[&watch[..], &handler].concat()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stderr.take().unwrap()).lines();
    let said: Vec<String> = lines.by_ref().map(Result::unwrap).take_while(|line| !line.contains("g: done ")).collect();
    assert!(said.iter().any(|line| line.starts_with("metrics on http://127.0.0.1:")), "{said:?}");

    assert!(Command::new("kill").arg("-TERM").arg(process_1(&watching)).status().unwrap().success());
    assert_eq!(watching.wait().unwrap().code(), Some(0), "{:?}", lines.map(Result::unwrap).collect::<Vec<_>>());
}
