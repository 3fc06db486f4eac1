//! Which files of a folder are meant: those that match, and are not ignored, in the syntax of gitignore(5).

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// What most programs call a file that they are still writing, and what is hidden.
pub const IGNORED: [&str; 10] =
    [".*", "*~", "\\#*#", "*.part", "*.partial", "*.filepart", "*.crdownload", "*.tmp", "*.temp", "*.swp"];

/// Patterns that select files by their path below a folder. Upper and lower case are the same.
#[derive(Debug, Clone)]
pub struct Patterns {
    wanted: (Vec<String>, Gitignore),
    ignored: (Vec<String>, Gitignore),
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        (&self.wanted.0, &self.ignored.0) == (&other.wanted.0, &other.ignored.0)
    }
}

impl Eq for Patterns {}

fn compile<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Gitignore, String> {
    let mut builder = GitignoreBuilder::new("");
    builder.case_insensitive(true).map_err(|error| error.to_string())?;
    for line in lines {
        let what = |why: &dyn std::fmt::Display| format!("'{}' is no pattern: {why}", line.escape_debug());
        let is_empty = line.trim().is_empty() || line.starts_with('#');
        if is_empty {
            return Err(what(&"it selects nothing"));
        }
        builder.add_line(None, line).map_err(|error| what(&error))?;
    }
    builder.build().map_err(|error| error.to_string())
}

impl Patterns {
    /// Files that match one of `wanted`, or all if that is empty, but none of `ignored` nor of [`IGNORED`]. A pattern of
    /// `ignored` that begins with `!` takes back an earlier one.
    ///
    /// # Errors
    /// The pattern that is none, and why.
    pub fn new(wanted: Vec<String>, ignored: Vec<String>) -> Result<Self, String> {
        let compiled = (
            compile(wanted.iter().map(String::as_str))?,
            compile(IGNORED.into_iter().chain(ignored.iter().map(String::as_str)))?,
        );
        Ok(Self { wanted: (wanted, compiled.0), ignored: (ignored, compiled.1) })
    }

    /// Whether a folder is looked into, by its path below the source's folder.
    pub fn enters(&self, folder: &Path) -> bool {
        !self.ignored.1.matched(folder, true).is_ignore()
    }

    /// Whether a file is meant, by its path below the source's folder; the folders above it are looked into.
    pub fn wants(&self, file: &Path) -> bool {
        let is_wanted = self.wanted.0.is_empty() || self.wanted.1.matched_path_or_any_parents(file, false).is_ignore();
        is_wanted && !self.ignored.1.matched(file, false).is_ignore()
    }

    /// Whether a file is meant, with all folders above it.
    pub fn selects(&self, file: &Path) -> bool {
        let folders = file.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        self.wants(file) && folders.into_iter().all(|folder| self.enters(folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(wanted: &[&str], ignored: &[&str]) -> Patterns {
        let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        Patterns::new(owned(wanted), owned(ignored)).unwrap()
    }

    #[test]
    fn names_of_unfinished_files_are_passed_over() {
        let all = patterns(&[], &[]);
        for file in ["a.pdf", "a", "with space", "sub/a.pdf", "a#", "part", "x.parts"] {
            assert!(all.selects(Path::new(file)), "{file}");
        }
        let names =
            [".a", "a~", "#a#", "a.part", "A.PART", "a.crdownload", "a.tmp", "sub/.x", ".git/config", "b.filepart"];
        for file in names {
            assert!(!all.selects(Path::new(file)), "{file}");
        }
    }

    #[test]
    fn patterns_have_the_syntax_of_gitignore() {
        let pdf = patterns(&["*.pdf", "/scans/"], &["old/", "!keep.tmp", "/top.pdf"]);
        for file in ["a.pdf", "A.PDF", "sub/a.pdf", "scans/x", "sub/top.pdf"] {
            assert!(pdf.selects(Path::new(file)), "{file}");
        }
        for file in ["a.txt", "old/a.pdf", "sub/old/b/a.pdf", "top.pdf", "sub/scans/x"] {
            assert!(!pdf.selects(Path::new(file)), "{file}");
        }
        assert!(patterns(&[], &["!keep.tmp"]).selects(Path::new("keep.tmp")));
        assert!(!patterns(&[], &["!keep.tmp"]).selects(Path::new("other.tmp")));
    }

    #[test]
    fn a_pattern_that_is_none_is_named() {
        let refused = |line: &str| Patterns::new(vec![line.to_owned()], Vec::new()).unwrap_err();
        assert!(refused("a[z-a]").starts_with("'a[z-a]' is no pattern: "), "{}", refused("a[z-a]"));
        assert_eq!(refused(""), "'' is no pattern: it selects nothing");
        assert_eq!(refused("# x"), "'# x' is no pattern: it selects nothing");
    }

    #[test]
    fn names_need_be_no_text() {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"\xff\n.pdf");
        assert!(patterns(&["*.pdf"], &[]).selects(Path::new(name)));
        assert!(!patterns(&[], &["*.pdf"]).selects(Path::new(name)));
    }
}
