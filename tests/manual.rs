//! The manual pages in `man/` are those that the command line's definitions make. `EVBUS_BLESS=1` writes them anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test ends by panicking"
)]

use std::fs;
use std::path::Path;

#[test]
fn the_committed_pages_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let bless = std::env::var_os("EVBUS_BLESS").is_some();
    let pages = evbus::cli::manual::pages();
    for (name, page) in &pages {
        let path = folder.join(name);
        if bless {
            fs::write(&path, page).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == *page, "man/{name} is out of date: EVBUS_BLESS=1 cargo test --test manual");
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_known = !name.ends_with(".1") || pages.iter().any(|(page, _)| *page == name);
        assert!(is_known, "man/{name} is the page of no verb");
    }
}
