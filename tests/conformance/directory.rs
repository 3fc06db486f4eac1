//! Tests of the directory store alone: foreign files, obstacles, versions as files, staging, modes.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use evbus::clock::SystemClock;
use evbus::store::dir::{DirOptions, DirStore};
use evbus::store::{ErrorDetail, ErrorKind, List, Obstruction, Put, Store, StoreError, Swap, Version};
use tempfile::TempDir;

use crate::block_on;

const MINUTE: &str = "events/20261123/0215";

struct DirBus {
    folder: TempDir,
    store: DirStore,
}

impl DirBus {
    fn new() -> Self {
        Self::with(DirOptions::default())
    }

    fn with(options: DirOptions) -> Self {
        let folder = TempDir::new().unwrap();
        let store = DirStore::create(&folder.path().join("bus"), options, &SystemClock).unwrap();
        Self { folder, store }
    }

    fn at(&self, key: &str) -> PathBuf {
        self.store.path().join(key)
    }

    fn put(&self, key: &str) -> Result<Put, StoreError> {
        block_on(self.store.put_new(key, key.as_bytes()))
    }

    fn read(&self, key: &str) -> Result<Option<String>, StoreError> {
        block_on(self.store.get(key)).map(|object| object.map(|object| String::from_utf8(object.bytes).unwrap()))
    }

    fn swap(&self, key: &str, version: Option<&Version>, content: &str) -> Result<Swap, StoreError> {
        block_on(self.store.cas(key, version, content.as_bytes()))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        block_on(self.store.list_after(List::all(prefix))).map(|page| page.keys)
    }

    /// Writes a file without the store.
    fn plant(&self, key: &str, content: &str) {
        fs::create_dir_all(self.at(key).parent().unwrap()).unwrap();
        fs::write(self.at(key), content).unwrap();
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.at(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[track_caller]
fn assert_damaged<T: std::fmt::Debug>(answer: Result<T, StoreError>, path: &Path) {
    let error = answer.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    let (what, path) = (error.to_string(), path.to_str().unwrap());
    assert!(!what.contains('\n'), "{what}");
    assert!(what.contains(path), "{what}");
    let named = match error.detail() {
        Some(ErrorDetail::Obstructed { path, .. } | ErrorDetail::SymbolicLink { path }) => path,
        Some(ErrorDetail::NotAFolder { path }) => path,
        other => panic!("{other:?}"),
    };
    assert!(named.contains(path), "{named}");
}

#[test]
fn foreign_files_among_the_events_are_listed_and_harmless() {
    let bus = DirBus::new();
    assert_eq!(bus.put(&format!("{MINUTE}/b.json")), Ok(Put::Created));
    for foreign in ["README", ".swp", "b.json~", "c"] {
        bus.plant(&format!("{MINUTE}/{foreign}"), "foreign");
    }
    bus.plant("events/lost+found/deep/x", "foreign");
    let below = [".swp", "README", "b.json", "b.json~", "c"].map(|name| format!("{MINUTE}/{name}"));
    let expected: Vec<String> = below.into_iter().chain(["events/lost+found/deep/x".to_owned()]).collect();
    assert_eq!(bus.list("events/").unwrap(), expected);
    assert_eq!(bus.put(&format!("{MINUTE}/c")), Ok(Put::Exists));
}

#[test]
fn names_that_are_not_utf8_are_skipped() {
    let bus = DirBus::new();
    assert_eq!(bus.put(&format!("{MINUTE}/b.json")), Ok(Put::Created));
    fs::write(bus.at(MINUTE).join(OsStr::from_bytes(b"bad\xff.json")), "x").unwrap();
    fs::create_dir(bus.at("events").join(OsStr::from_bytes(b"\xfe"))).unwrap();
    assert_eq!(bus.list("events/").unwrap(), [format!("{MINUTE}/b.json")]);
}

#[test]
fn a_file_in_place_of_a_folder_is_reported_with_a_cure() {
    let bus = DirBus::new();
    bus.plant("events/20261123", "a file");
    let folder = bus.at(MINUTE);
    assert_damaged(bus.put(&format!("{MINUTE}/a.json")), &folder);
    assert_damaged(bus.read(&format!("{MINUTE}/a.json")), &folder);
    assert_damaged(bus.list(&format!("{MINUTE}/")), &folder);
    let items: Vec<_> = (0..5).map(|n| (format!("{MINUTE}/{n}.json"), Bytes::new())).collect();
    assert_damaged(block_on(bus.store.put_many(&items)), &folder);
    assert_eq!(bus.names("staging"), Vec::<String>::new());
    // The rest of the bus still works.
    assert_eq!(bus.put("events/20261124/0000/a.json"), Ok(Put::Created));
    assert_eq!(bus.list("events/").unwrap(), ["events/20261123", "events/20261124/0000/a.json"]);
    fs::remove_dir_all(bus.at("events")).unwrap();
    bus.plant("events", "a file");
    assert_damaged(bus.list("events/"), &bus.at("events"));
    fs::remove_dir_all(bus.at("staging")).unwrap();
    bus.plant("staging", "a file");
    assert_damaged(bus.put("dedup/a.json"), &bus.at("staging"));
}

#[test]
fn a_folder_in_place_of_a_file_is_reported_with_a_cure() {
    let bus = DirBus::new();
    let key = format!("{MINUTE}/a.json");
    fs::create_dir_all(bus.at(&key)).unwrap();
    assert_eq!(bus.put(&key), Ok(Put::Exists));
    assert_damaged(bus.read(&key), &bus.at(&key));
    assert_damaged(block_on(bus.store.delete(&key)), &bus.at(&key));
    assert!(matches!(bus.swap("frontier", None, "1"), Ok(Swap::Swapped(_))));
    fs::create_dir(bus.at("frontier.2")).unwrap();
    assert_damaged(bus.read("frontier"), &bus.at("frontier.2"));
    symlink("nowhere", bus.at("frontier.3")).unwrap();
    assert_damaged(bus.read("frontier"), &bus.at("frontier.3"));
    symlink("loop.json", bus.at("loop.json")).unwrap();
    assert_damaged(bus.read("loop.json"), &bus.at("loop.json"));
}

#[test]
fn a_pipe_among_the_events_does_not_block_reads() {
    let bus = DirBus::new();
    let key = format!("{MINUTE}/pipe.json");
    fs::create_dir_all(bus.at(MINUTE)).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(bus.at(&key)).status().unwrap().success());
    assert_damaged(bus.read(&key), &bus.at(&key));
}

/// A user who may write to a bus must not make other processes read or write elsewhere. Regression
/// of a planted link that a worker of root followed.
#[test]
fn links_and_other_non_files_are_no_events_and_are_not_followed() {
    let bus = DirBus::new();
    let secret = bus.folder.path().join("secret");
    fs::write(&secret, "root's").unwrap();
    fs::create_dir_all(bus.at(MINUTE)).unwrap();
    let event = format!("{MINUTE}/20261123T021530.000001Z-7kq3f9x2m7qa5w0c-t.json");
    symlink(&secret, bus.at(&event)).unwrap();
    let pipe = bus.at(&event.replace("001Z", "002Z"));
    assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
    assert_damaged(bus.read(&event), &bus.at(&event));
    let listed = bus.list("events/").unwrap();
    assert_eq!(listed, [format!("{event}@"), format!("{}|", event.replace("001Z", "002Z"))]);
    assert!(listed.iter().all(|key| evbus::event::EventName::from_key(key).is_none()));
    // A folder behind a link is not the bus's, neither for a listing nor for a write.
    let elsewhere = bus.folder.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("0215")).unwrap();
    fs::write(elsewhere.join("0215/a.json"), "not ours").unwrap();
    symlink(&elsewhere, bus.at("events/20261124")).unwrap();
    assert_eq!(bus.list("events/").unwrap()[2..], ["events/20261124@"]);
    assert_damaged(bus.put("events/20261124/0215/b.json"), &bus.at("events/20261124/0215"));
    assert_damaged(bus.put("events/20261124/0216/b.json"), &bus.at("events/20261124/0216"));
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
}

#[test]
fn an_unusable_location_is_refused_with_the_reason() {
    let open = |path: &str| DirStore::open(Path::new(path), DirOptions::default(), &SystemClock).map(drop).unwrap_err();
    let error = open("/nonexistent/bus");
    assert_eq!(
        (error.kind(), error.detail()),
        (ErrorKind::NoBus, Some(&ErrorDetail::NoBus { address: "/nonexistent/bus".to_owned() }))
    );
    assert_eq!(open("/dev/null").kind(), ErrorKind::Damaged);
    // Not even root can make folders or files here.
    for unwritable in ["/proc/self", "/sys"] {
        let create = DirStore::create(&Path::new(unwritable).join("evbus-test"), DirOptions::default(), &SystemClock);
        let error = create.map(drop).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Denied | ErrorKind::Other | ErrorKind::NoBus), "{error:?}");
        assert!(error.to_string().starts_with("cannot create /"), "{error}");
        let store = DirStore::open(Path::new(unwritable), DirOptions::default(), &SystemClock).unwrap();
        assert!(block_on(store.put_new("events/a/x.json", b"x")).is_err());
        assert!(block_on(store.put_many(&[("events/a/x.json".to_owned(), Bytes::new())])).is_err());
        assert!(block_on(store.cas("frontier", None, b"x")).is_err());
    }
}

#[test]
fn a_full_disk_and_a_read_only_one_differ_in_error_kind() {
    let error = |errno| StoreError::system("cannot write", "/bus/staging/x", errno);
    assert_eq!(error(rustix::io::Errno::NOSPC).kind(), ErrorKind::Full);
    assert_eq!(error(rustix::io::Errno::DQUOT).kind(), ErrorKind::Full);
    assert_eq!(error(rustix::io::Errno::ROFS).kind(), ErrorKind::Denied);
    assert_eq!(error(rustix::io::Errno::ROFS).detail(), Some(&ErrorDetail::ReadOnly));
    assert_eq!(error(rustix::io::Errno::NOSPC).detail(), Some(&ErrorDetail::NoSpace));
}

/// Staging behind a link to another file system.
#[test]
fn a_bus_across_two_file_systems_is_reported_with_a_cure() {
    let bus = DirBus::new();
    let Ok(other) = TempDir::new_in("/dev/shm") else { panic!("needs /dev/shm") };
    fs::remove_dir(bus.at("staging")).unwrap();
    symlink(other.path(), bus.at("staging")).unwrap();
    let error = bus.put("events/a/x.json").unwrap_err();
    let path = bus.at("staging").display().to_string();
    let Some(ErrorDetail::Obstructed { by: Obstruction::SymbolicLink, path: at }) = error.detail() else {
        panic!("{error:?}")
    };
    assert!(at.starts_with(&path), "{at}");
}

#[test]
fn at_most_four_versions_are_kept() {
    let bus = DirBus::new();
    let mut version = None;
    for turn in 1..=12usize {
        match bus.swap("state/g/marker-000", version.as_ref(), "m").unwrap() {
            Swap::Swapped(next) => version = Some(next),
            Swap::Conflict => panic!("conflict"),
        }
        let newest: Vec<String> = (turn.saturating_sub(3).max(1)..=turn).map(|n| format!("marker-000.{n}")).collect();
        let mut names = bus.names("state/g");
        names.sort_by_key(|name| name.len());
        assert_eq!(names, newest);
    }
}

#[test]
fn a_name_that_resembles_a_version_is_ignored() {
    let bus = DirBus::new();
    let Swap::Swapped(first) = bus.swap("frontier", None, "1").unwrap() else { panic!("conflict") };
    let looks = [
        "frontier.01",
        "frontier.0",
        "frontier.9999999999999999",
        "frontier.99999999999999999999999",
        "frontier.-3",
        "frontier.2 ",
        "frontier.2.bak",
        "frontier.x",
        "frontier.",
    ];
    for name in looks {
        bus.plant(name, "foreign");
    }
    bus.plant(".7", "foreign");
    assert_eq!(bus.read("frontier").unwrap().unwrap(), "1");
    assert!(matches!(bus.swap("frontier", Some(&first), "2"), Ok(Swap::Swapped(_))));
    assert_eq!(bus.read("frontier").unwrap().unwrap(), "2");
    block_on(bus.store.delete("frontier")).unwrap();
    assert!(looks.iter().all(|name| bus.at(name).exists()));
}

#[test]
fn a_version_without_a_successor_is_reported_as_damage() {
    let bus = DirBus::new();
    bus.plant("frontier.999999999999999", "foreign");
    let found = block_on(bus.store.get("frontier")).unwrap().unwrap();
    assert_damaged(bus.swap("frontier", Some(&found.version), "next"), &bus.at("frontier.999999999999999"));
    assert_eq!(bus.names(""), ["frontier.999999999999999", "reserve", "staging"]);
}

#[test]
fn a_removed_version_number_is_not_reused() {
    let bus = DirBus::new();
    for n in 10..14 {
        bus.plant(&format!("frontier.{n}"), "newer");
    }
    // A writer is frozen after it has found version 13, while four more are written.
    let found = block_on(bus.store.get("frontier")).unwrap().unwrap();
    for n in 15..19 {
        bus.plant(&format!("frontier.{n}"), "newer");
    }
    assert_eq!(bus.swap("frontier", Some(&found.version), "stale"), Ok(Swap::Conflict));
    assert!(!bus.at("frontier.14").exists());
    assert_eq!(bus.read("frontier").unwrap().unwrap(), "newer");
}

#[test]
fn leftovers_in_staging_are_not_listed_and_removed_only_when_old() {
    let bus = DirBus::new();
    let hour = Duration::from_secs(3_600);
    let now = || fs::metadata(bus.at("staging")).unwrap().modified().unwrap();
    let age = |name: &str, age: Duration| {
        bus.plant(name, "");
        let file = fs::File::options().write(true).open(bus.at(name)).unwrap();
        file.set_modified(now() - age).unwrap();
    };
    age("staging/0123456789abcdef-0", hour * 2);
    age("staging/0123456789abcdef-12", hour / 2);
    age("staging/0123456789abcdef-13", Duration::ZERO);
    age("staging/notes.txt", hour * 2);
    assert_eq!(bus.list("").unwrap(), Vec::<String>::new());
    assert_eq!(block_on(bus.store.tidy(hour)), Ok(1));
    assert_eq!(bus.names("staging"), ["0123456789abcdef-12", "0123456789abcdef-13", "notes.txt"]);
    assert_eq!(block_on(bus.store.tidy(hour)), Ok(0));
}

#[test]
fn a_folder_removed_after_it_was_opened_is_made_again() {
    let bus = DirBus::new();
    let other = DirStore::open(bus.store.path(), DirOptions::default(), &SystemClock).unwrap();
    let keys: Vec<String> = (0..6).map(|n| format!("{MINUTE}/{n}.json")).collect();
    for key in &keys {
        assert_eq!(bus.put(key), Ok(Put::Created));
        // Another process's prune: day and minute are gone while this store holds the minute open.
        block_on(other.delete_many(std::slice::from_ref(key))).unwrap();
        assert!(!bus.at("events/20261123").exists());
    }
    let items: Vec<_> = keys.iter().map(|key| (key.clone(), Bytes::new())).collect();
    assert_eq!(block_on(bus.store.put_many(&items)), Ok(vec![Put::Created; 6]));
    assert_eq!(bus.list("events/").unwrap(), keys);
}

#[test]
fn staging_removed_while_running_is_made_again() {
    let bus = DirBus::new();
    for n in 0..3 {
        fs::remove_dir(bus.at("staging")).unwrap();
        assert_eq!(bus.put(&format!("{MINUTE}/{n}.json")), Ok(Put::Created));
    }
    fs::remove_dir(bus.at("staging")).unwrap();
    assert!(matches!(bus.swap("frontier", None, "1"), Ok(Swap::Swapped(_))));
    assert_eq!(bus.list("events/").unwrap().len(), 3);
}

#[test]
fn a_shared_bus_is_group_writable_under_any_umask() {
    let bus = DirBus::with(DirOptions { group_writable: true, ..DirOptions::default() });
    let key = format!("{MINUTE}/a.json");
    assert_eq!(bus.put(&key), Ok(Put::Created));
    assert!(matches!(bus.swap("state/g/marker-000", None, "1"), Ok(Swap::Swapped(_))));
    let mode = |key: &str| fs::metadata(bus.at(key)).unwrap().permissions().mode() & 0o7777;
    for folder in ["", "staging", "events", "events/20261123", MINUTE, "state", "state/g"] {
        assert_eq!(mode(folder), 0o2775, "{folder}");
    }
    // The usual umask, 022, would have removed the group's right.
    assert_eq!((mode(&key), mode("state/g/marker-000.1")), (0o664, 0o664));
    fs::set_permissions(bus.at(&key), Permissions::from_mode(0o600)).unwrap();
    assert_eq!(bus.put(&key), Ok(Put::Exists));
    assert_eq!(mode(&key), 0o600);
}

#[test]
fn an_absent_object_is_not_looked_for_among_the_events() {
    let bus = DirBus::new();
    // A search for versions would find this.
    bus.plant("dedup/abc.json.1", "x");
    assert_eq!(bus.read("dedup/abc.json").unwrap(), None);
    block_on(bus.store.delete("dedup/abc.json")).unwrap();
    assert!(bus.at("dedup/abc.json.1").exists());
}
