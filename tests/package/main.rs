//! The Debian package: its files, its installation and removal, and evbus's dependencies.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::{Path, PathBuf};
use std::process::Command;

mod booted;
#[path = "../support/root.rs"]
mod root;

/// A tool that `./test` has built.
fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin").join(name);
    assert!(path.exists(), "{} is not there: ./test builds it", path.display());
    path
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A package of the program under test: a release build would take minutes.
fn package(folder: &Path) -> PathBuf {
    // cargo-deb takes the program from cargo's usual path.
    let target = folder.join("target");
    std::fs::create_dir_all(target.join("release")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_evbus"), target.join("release/evbus")).unwrap();
    let deb = folder.join("evbus.deb");
    let mut command = Command::new(tool("cargo-deb"));
    command.args(["deb", "--fast", "--no-build", "--no-strip", "--offline", "-q", "--output"]).arg(&deb);
    succeeds(command.env("CARGO_TARGET_DIR", &target).current_dir(env!("CARGO_MANIFEST_DIR")));
    deb
}

#[test]
fn the_debian_package_installs_works_and_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let deb = package(folder.path());
    let listed = succeeds(Command::new("dpkg-deb").arg("--contents").arg(&deb));
    for path in [
        "./usr/bin/evbus",
        "./usr/share/man/man1/evbus-emit.1.gz",
        "./usr/share/man/man5/evbus.toml.5.gz",
        "./usr/share/man/man7/evbus-handler.7.gz",
        "./usr/share/bash-completion/completions/evbus",
        "./usr/share/zsh/vendor-completions/_evbus",
        "./usr/share/fish/vendor_completions.d/evbus.fish",
        "./usr/lib/systemd/system/evbus.service",
        "./usr/lib/systemd/system/evbus-drain.timer",
        "./usr/share/doc/evbus/examples/postgres/load",
        "./usr/share/doc/evbus/copyright",
    ] {
        assert!(listed.lines().any(|line| line.ends_with(&format!(" {path}"))), "no {path}:\n{listed}");
    }
    assert_eq!(succeeds(Command::new("dpkg-deb").arg("--field").arg(&deb).arg("Depends")).trim(), "");

    // Installed into its own root, so that this machine stays unchanged.
    let root = folder.path().join("root");
    for name in ["updates", "info"] {
        std::fs::create_dir_all(root.join("var/lib/dpkg").join(name)).unwrap();
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let dpkg = |args: &[&str], package: &Path| {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", root.display())).arg("--force-not-root").arg("--force-script-chrootless");
        command.arg(format!("--log={}", folder.path().join("log").display()));
        succeeds(command.args(["--force-bad-path", "--no-triggers"]).args(args).arg(package))
    };
    dpkg(&["--install"], &deb);
    let said = succeeds(Command::new(root.join("usr/bin/evbus")).arg("--version").env_clear());
    assert_eq!(said.trim(), concat!("evbus ", env!("CARGO_PKG_VERSION")));
    dpkg(&["--remove"], Path::new("evbus"));
    assert!(!root.join("usr/bin/evbus").exists() && !root.join("usr/share/doc/evbus").exists());
}

#[test]
fn dependencies_satisfy_deny_toml() {
    let mut command = Command::new(tool("cargo-deny"));
    command.args(["--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    succeeds(command.current_dir(env!("CARGO_MANIFEST_DIR")));
}
