//! The container image, as an engine builds it, from nothing: its metadata, and evbus as process 1.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::root::as_root;
use super::{EVBUS, example, fs, succeeds};

/// An engine with its own storage, which is removed with it.
struct ContainerEngine {
    folder: tempfile::TempDir,
}

impl ContainerEngine {
    fn buildah(&self, args: &[&str]) -> String {
        let mut command = as_root("buildah");
        let at = |name: &str| self.folder.path().join(name);
        command.arg("--root").arg(at("storage")).arg("--runroot").arg(at("run")).args(["--storage-driver", "vfs"]);
        succeeds(command.args(args)).0
    }

    /// Builds the image. The program under test replaces what the first stage would compile, and
    /// nothing is fetched.
    fn build(&self) -> Image {
        let at = |name: &str| self.folder.path().join(name);
        fs::create_dir_all(at("built/out/bin")).unwrap();
        fs::create_dir(at("context")).unwrap();
        fs::copy(EVBUS, at("built/out/bin/evbus")).unwrap();
        let (file, built) =
            (example("Containerfile").display().to_string(), format!("build={}", at("built").display()));
        let scratch = ["--build-arg", "BASE=scratch", "--build-context", &built];
        let context = at("context").display().to_string();
        let build = ["build", "--quiet", "--isolation", "chroot", "--tag", "evbus", "--file", &file];
        self.buildah(&[&build[..], &scratch, &[&context]].concat());
        let inspected = self.buildah(&["inspect", "--type", "image", "evbus"]);
        let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        let container = self.buildah(&["from", "--quiet", "evbus"]);
        let root = self.buildah(&["mount", container.trim()]);
        Image { root: root.trim().into(), config: inspected["OCIv1"]["config"].clone() }
    }
}

impl Drop for ContainerEngine {
    fn drop(&mut self) {
        let _ = as_root("rm").arg("-rf").arg(self.folder.path()).status();
    }
}

/// A built image: its files and its config (OCI image specification, config.md).
struct Image {
    root: PathBuf,
    config: serde_json::Value,
}

impl Image {
    fn words(&self, key: &str) -> Vec<String> {
        serde_json::from_value(self.config[key].clone()).unwrap_or_else(|_| panic!("no {key}: {}", self.config))
    }

    /// The entrypoint as process 1 of a container, with the image's user and environment.
    fn run(&self, args: &[&str]) -> Command {
        let (uid, gid) = self.config["User"].as_str().unwrap().split_once(':').unwrap();
        let mut command = as_root("env");
        command.arg("-i").args(self.words("Env"));
        // --kill-child: the processes inside end with `unshare`, however that ends.
        command.args(["unshare", "--pid", "--fork", "--kill-child", "--setuid", uid, "--setgid", gid]);
        command.arg(format!("--root={}", self.root.display())).args(self.words("Entrypoint")).args(args);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

/// Process 1 of a namespace, as seen from outside.
fn process_1(started: &Child) -> String {
    let mut pid = started.id().to_string();
    // sudo, if used, and `unshare` have one child each.
    loop {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
        if inside.split_whitespace().last() == Some("1") {
            return pid;
        }
        pid = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap().trim().to_owned();
    }
}

fn files_in(root: &Path) -> BTreeMap<String, u64> {
    let found = succeeds(as_root("find").arg(root).args(["-type", "f", "-printf", "%P %s\\n"])).0;
    found
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(path, len)| (path.to_owned(), len.parse().unwrap()))
        .collect()
}

#[test]
fn the_image_holds_evbus_alone_which_works_and_ends_in_order() {
    let engine = ContainerEngine { folder: tempfile::tempdir().unwrap() };
    let image = engine.build();
    assert_eq!(
        files_in(&image.root),
        BTreeMap::from([("usr/bin/evbus".to_owned(), fs::metadata(EVBUS).unwrap().len())])
    );
    assert_eq!(image.config["StopSignal"], "SIGTERM");
    assert_eq!(image.config["User"], "65532:65532", "not root");
    let started = [image.words("Entrypoint"), image.words("Cmd")].concat();
    assert_eq!(started, ["/usr/bin/evbus", "watch", "--metrics", "0.0.0.0:9464"]);
    assert!(image.words("Env").contains(&"EVBUS_URL=/bus".to_owned()));

    // An engine mounts the bus, and a folder for temporary files.
    for folder in ["bus", "tmp"] {
        succeeds(as_root("install").args(["-d", "-o", "65532", "-g", "65532"]).arg(image.root.join(folder)));
    }
    assert!(image.run(&["init", "/bus"]).status().unwrap().success(), "it needs no library");
    assert!(image.run(&["emit", "a", "--id", "1"]).status().unwrap().success());
    let watch = ["watch", "-g", "g", "-t", "a", "--from", "earliest", "--metrics", "127.0.0.1:0", "--"];
    let handler = ["/usr/bin/evbus", "emit", "-q", "b"];
    let mut watching = image.run(&[&watch[..], &handler].concat()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stderr.take().unwrap()).lines();
    let said: Vec<String> = lines.by_ref().map(Result::unwrap).take_while(|line| !line.contains("g: done ")).collect();
    assert!(said.iter().any(|line| line.starts_with("metrics on http://127.0.0.1:")), "{said:?}");

    succeeds(as_root("kill").arg("-TERM").arg(process_1(&watching)));
    assert_eq!(watching.wait().unwrap().code(), Some(0), "{:?}", lines.map(Result::unwrap).collect::<Vec<_>>());
}
