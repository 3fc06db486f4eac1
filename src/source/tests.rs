//! What a source's settings mean, and what its events are. The command-line tests run sources on folders.

use std::os::unix::ffi::OsStrExt;

use super::file::FileState;
use super::*;

fn source() -> Source {
    Source {
        name: "in".to_owned(),
        place: Place::Folder("/srv/inbox".into()),
        type_: "scan.arrived".to_owned(),
        changes: vec![Change::Arrived],
        patterns: Patterns::new(Vec::new(), Vec::new()).unwrap(),
        recursive: false,
        settle: SETTLE,
        poll: None,
        sha256: false,
        after: After::Leave,
        groups: Vec::new(),
    }
}

fn file(path: &[u8]) -> FoundFile {
    let time = EventTime::from_micros(1_795_396_590_000_000);
    let state = FileState { size: 7, mtime: time, identity: "12".to_owned(), ctime: time.next(), place: (3, 12) };
    FoundFile { path: std::ffi::OsStr::from_bytes(path).into(), state }
}

/// Of two that emit one file at once, a killed one may leave its copy: a worker knows it by its bytes.
#[test]
fn every_host_makes_the_same_event_of_a_file() {
    let event = source().event(&file(b"a b.pdf"), None, (Change::Arrived, 0)).unwrap();
    let text = String::from_utf8(event.to_json()).unwrap();
    assert_eq!((event.subject(), event.source(), event.type_()), (Some("a b.pdf"), "/sources/in", "scan.arrived"));
    assert!(text.contains(r#""time":"2026-11-23T01:16:30.000000Z""#), "the file's: {text}");
    let data = r#""data":{"path":"/srv/inbox/a b.pdf","size":7,"mtime":"2026-11-23T01:16:30.000000Z","inode":12}"#;
    assert!(text.contains(data), "{text}");
    assert_eq!(text.as_bytes(), source().event(&file(b"a b.pdf"), None, (Change::Arrived, 0)).unwrap().to_json());
}

#[test]
fn a_name_that_is_no_text_is_told_in_full() {
    let event = source().event(&file(b"\xff\n"), None, (Change::Arrived, 0)).unwrap();
    let text = String::from_utf8(event.to_json()).unwrap();
    assert_eq!(event.subject(), Some("%FF%0A"));
    // "/srv/inbox/\xff\n" in base64.
    assert!(text.contains(r#""path_base64":"L3Nydi9pbmJveC//Cg==""#), "{text}");
}

#[test]
fn the_last_word_of_the_type_tells_the_change() {
    let of = |type_: &str| {
        let source = Source { type_: type_.to_owned(), ..source() };
        Change::ALL.map(|change| source.type_of(change))
    };
    assert_eq!(of("scan.arrived"), ["scan.arrived", "scan.changed", "scan.removed"]);
    assert_eq!(of("arrived"), ["arrived", "changed", "removed"]);
    assert_eq!(of("scan"), ["scan"; 3]);
    assert_eq!(of("disarrived"), ["disarrived"; 3]);
    let several = |type_: &str| {
        let changes = vec![Change::Arrived, Change::Removed];
        Source { type_: type_.to_owned(), changes, ..source() }.validate()
    };
    assert_eq!(several("scan.arrived"), Ok(()));
    assert_eq!(several("scan"), Err(("type", SourceError::Type)));
}

#[test]
fn a_later_version_arrives_unless_changes_are_told_apart() {
    let with = |changes: &[Change]| Source { changes: changes.to_vec(), ..source() };
    let of = |changes: &[Change]| (with(changes).change(false), with(changes).change(true));
    let (arrived, changed) = (Some(Change::Arrived), Some(Change::Changed));
    assert_eq!(of(&[Change::Arrived]), (arrived, arrived));
    assert_eq!(of(&[Change::Arrived, Change::Changed]), (arrived, changed));
    assert_eq!(of(&[Change::Changed]), (None, changed));
    assert_eq!(of(&[Change::Removed]), (None, None));
}
