//! What the pages say is true: transcripts give what they show, links lead somewhere, and the picture
//! is of what evbus prints.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const EVBUS: &str = env!("CARGO_BIN_EXE_evbus");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page of the repository, relative to its root.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "docs/src", "examples", ".github"] {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        let paths = entries.map(|entry| Path::new(folder).join(entry.unwrap().file_name()));
        pages.extend(paths.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    }
    pages.sort();
    assert!(pages.len() > 15, "{pages:?}");
    pages
}

fn read(page: &Path) -> String {
    std::fs::read_to_string(root().join(page)).unwrap()
}

/// The lines outside code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// What links in a page point to: inline ones and reference definitions.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(text) {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, after)) = after.split_once(')') else { break };
            links.push(target.to_owned());
            rest = after;
        }
        if let Some((label, target)) = line.split_once("]: ")
            && label.starts_with('[')
        {
            links.push(target.trim().to_owned());
        }
    }
    links
}

/// The anchors that GitHub and mdBook give to headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let slug =
        |heading: &str| heading.to_lowercase().chars().filter(|c| kept(*c)).collect::<String>().replace(' ', "-");
    headings.map(slug).collect()
}

#[test]
fn every_link_has_a_target() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = read(&page);
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').map_or((&*link, None), |(path, anchor)| (path, Some(anchor)));
            let target = match path {
                "" => root().join(&page),
                _ => root().join(&page).parent().unwrap().join(path),
            };
            let there = target.exists()
                && anchor.is_none_or(|anchor| anchors(&std::fs::read_to_string(&target).unwrap()).contains(anchor));
            if !there {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn the_book_has_every_page_once() {
    let summary = links(&read(Path::new("docs/src/SUMMARY.md")));
    let listed: BTreeSet<String> = summary.iter().cloned().collect();
    assert_eq!(listed.len(), summary.len(), "{summary:?}");
    let pages = std::fs::read_dir(root().join("docs/src")).unwrap();
    let pages: BTreeSet<String> = pages.map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(listed, pages.into_iter().filter(|page| page != "SUMMARY.md").collect());
}

#[test]
fn the_readme_is_short() {
    let lines = read(Path::new("README.md")).lines().count();
    assert!((120..=150).contains(&lines), "{lines} lines");
}

/// A page as trycmd reads it: where an output ends with a line's end, it wants an empty line; and a
/// time of any length is one.
fn for_trycmd(page: &str) -> String {
    let (mut text, mut in_transcript, mut output) = (String::new(), false, false);
    for line in page.lines() {
        let fence = line.starts_with("```");
        let command = in_transcript && (line.starts_with("$ ") || line.starts_with("> ") || line.starts_with("? "));
        if (command || fence) && std::mem::take(&mut output) {
            text.push('\n');
        }
        output |= in_transcript && !command && !fence;
        in_transcript = if fence { line == "```console" } else { in_transcript };
        // How long something took is told in seconds, too: on a busy machine, or the first time.
        text.push_str(&line.replace("[..]ms", "[..]s"));
        text.push('\n');
    }
    text
}

/// Each page's transcripts run in its order, in a folder of the page's own.
#[test]
fn transcripts_print_what_they_show() {
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(EVBUS, bin.join("evbus")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let cases = trycmd::TestCases::new();
    cases.env("EVBUS_URL", "./bus").env("HOME", folder.path().display().to_string()).env("PATH", path);
    for variable in std::env::vars().map(|(name, _)| name) {
        assert!(!variable.starts_with("EVBUS_CONFIG"), "a config would change what is printed");
    }
    cases.register_bin("evbus", Path::new(EVBUS));
    for program in ["cat", "find", "mkdir", "touch"] {
        let path =
            ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(program)).into_iter().find(|path| path.exists());
        cases.register_bin(program, path.unwrap());
    }
    for page in pages().into_iter().filter(|page| page.as_os_str() == "README.md" || page.starts_with("docs")) {
        if !read(&page).contains("```console\n") {
            continue;
        }
        let name = page.display().to_string().replace('/', "-");
        let copy = folder.path().join(&name);
        std::fs::write(&copy, for_trycmd(&read(&page))).unwrap();
        // trycmd runs the transcripts of `x.md` in a copy of the folder `x.in`.
        std::fs::create_dir(copy.with_extension("in")).unwrap();
        cases.case(&copy);
    }
    cases.run();
}

#[test]
fn the_picture_matches_the_output() {
    let ran = Command::new("python3").arg(root().join("docs/demo.py")).args([EVBUS, "--check"]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
