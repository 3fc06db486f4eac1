//! The package under its own systemd, in a container: the promises of the units hold.

use std::fs;
use std::path::Path;

use super::{package, root};

#[test]
fn the_systemd_units_behave_as_documented() {
    let shared = tempfile::tempdir().unwrap();
    package(shared.path());
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/package");
    fs::copy(here.join("full_day"), shared.path().join("full_day")).unwrap();
    // The container ends within two minutes, whatever goes wrong in it.
    let mut boot = root::as_root("timeout");
    boot.args(["--kill-after=10", "180"]).arg(here.join("boot")).arg(shared.path());
    let said = boot.output().unwrap();
    let log = fs::read_to_string(shared.path().join("log")).unwrap_or_default();
    let ended = fs::read_to_string(shared.path().join("ended")).unwrap_or_default();
    let (log, said) = (log.trim_end(), String::from_utf8_lossy(&said.stderr));
    assert!(ended.trim() == "0" && log.ends_with("the day is over"), "ended with '{ended}'\n{log}\n{said}");
}
