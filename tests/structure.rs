//! The layers of `src`: which may use which, and that no two units of a layer use each other. A layer
//! is a module of the crate; a unit is a file directly below it, with the files below that.
//! And that each mutant of the simulation still fits the code that it changes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The layers, from the lowest up: each may use those before it, and no other.
const LAYERS: [&str; 22] = [
    "recent",
    "event",
    "clock",
    "threads",
    "store",
    "secret",
    "handler",
    "bus",
    "feed",
    "group",
    "archive",
    "copy",
    "recurring",
    "relay",
    "source",
    "retention",
    "config",
    "open",
    "embed",
    "serve",
    "remote",
    "cli",
];

type Module = Vec<String>;

/// The text of each module, without its tests and comments.
fn modules() -> BTreeMap<Module, String> {
    let mut modules = BTreeMap::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &Vec::new(), &mut modules);
    assert!(modules.len() > 100, "{}", modules.len());
    modules
}

fn collect(folder: &Path, of: &Module, modules: &mut BTreeMap<Module, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut module = of.clone();
        if stem != "mod" {
            module.push(stem.clone());
        }
        if stem == "tests" || (of.is_empty() && matches!(&*stem, "lib" | "main")) {
            continue;
        }
        if path.is_dir() {
            collect(&path, &module, modules);
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code = text.lines().map(|line| line.split("//").next().unwrap());
            modules.insert(module, code.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// `a::{b, c::{d}}` as `a::b` and `a::c::d`.
fn expanded(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, body)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().trim().to_owned()];
    };
    let body = body.trim_end().strip_suffix('}').unwrap();
    let (mut parts, mut part, mut depth) = (Vec::new(), String::new(), 0);
    for c in body.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| expanded(part)).map(|part| format!("{head}{part}")).collect()
}

/// The paths that a module names: in `use`, and in its code.
fn paths(text: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let mut code = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("use ") {
        let starts = ["crate::", "super::", "self::"].iter().any(|start| after.starts_with(start));
        code.push_str(before);
        rest = after;
        if starts && let Some((tree, after)) = after.split_once(';') {
            paths.extend(expanded(tree));
            rest = after;
        }
    }
    code.push_str(rest);
    let other = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
    let named = code.split(other).filter(|word| word.starts_with("crate::") || word.starts_with("super::"));
    paths.extend(named.map(str::to_owned));
    paths
}

/// The module that a path leads to, as far as it leads to one.
fn resolved(modules: &BTreeMap<Module, String>, from: &Module, path: &str) -> Option<Module> {
    let mut at = from.clone();
    for (number, part) in path.split("::").enumerate() {
        match part {
            "crate" if number == 0 => at.clear(),
            "super" => _ = at.pop(),
            "self" => {}
            part => at.push(part.to_owned()),
        }
    }
    while !at.is_empty() && !modules.contains_key(&at) {
        at.pop();
    }
    (!at.is_empty()).then_some(at)
}

/// Which modules each module uses.
fn uses() -> Vec<(Module, Module)> {
    let modules = modules();
    let of = |(module, text): (&Module, &String)| -> Vec<(Module, Module)> {
        let found = paths(text).into_iter().filter_map(|path| resolved(&modules, module, &path));
        found.map(|used| (module.clone(), used)).collect()
    };
    modules.iter().flat_map(of).collect()
}

#[test]
fn no_layer_uses_a_later_one() {
    let level = |layer: &str| LAYERS.iter().position(|known| *known == layer).expect("a layer that is not in LAYERS");
    let mut upward = Vec::new();
    for (module, used) in uses() {
        if module[0] != used[0] && level(&module[0]) < level(&used[0]) {
            upward.push(format!("{} uses {}", module.join("::"), used.join("::")));
        }
    }
    assert_eq!(upward, Vec::<String>::new());
}

#[test]
fn no_two_units_of_a_layer_use_each_other() {
    let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, used) in uses() {
        // The layer, and the unit in it.
        let [from, to] = [module, used].map(|module| module.into_iter().take(2).collect::<Module>());
        if from.len() == 2 && to.len() == 2 && from != to {
            edges.entry(from).or_default().insert(to);
        }
    }
    let reaches = |from: &Module, to: &Module| {
        let (mut open, mut seen) = (vec![from], BTreeSet::new());
        while let Some(unit) = open.pop() {
            for next in edges.get(unit).into_iter().flatten() {
                if next == to {
                    return true;
                }
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        false
    };
    let circles: Vec<String> = edges.keys().filter(|unit| reaches(unit, unit)).map(|unit| unit.join("::")).collect();
    assert_eq!(circles, Vec::<String>::new());
}

#[test]
fn use_trees_are_parsed() {
    assert_eq!(expanded("a::{b, c::{d, self}, e as f}"), ["a::b", "a::c::d", "a::c::self", "a::e"]);
    let found = paths("use crate::bus::{BusHandle, keys};\nfn f() { super::x::y() }");
    assert!(
        ["crate::bus::BusHandle", "crate::bus::keys", "super::x::y"].iter().all(|path| found.contains(*path)),
        "{found:?}"
    );
}

/// The changes of a mutant of the simulation (see `tests/simulation/mutants/run`): the file, and the lines that must
/// stand in it once.
fn mutant_changes(mutant: &str) -> Vec<(&str, &str)> {
    let change = |part| {
        let (head, rest) = str::split_once(part, "\n--- old\n").expect("old lines");
        let (old, _) = rest.split_once("--- new\n").expect("new lines");
        (head.lines().next().unwrap(), old.trim_end_matches('\n'))
    };
    mutant.split("--- and ").map(change).collect()
}

#[test]
fn each_mutant_applies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for entry in std::fs::read_dir(root.join("tests/simulation/mutants")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        for (file, old) in mutant_changes(&std::fs::read_to_string(&path).unwrap()) {
            let count = std::fs::read_to_string(root.join(file)).unwrap().matches(old).count();
            assert_eq!(count, 1, "{}: its old lines stand {count} times in {file}", path.display());
        }
        seen += 1;
    }
    assert!(seen > 50, "{seen}");
}
