//! The house rules, enforced by text search over the tree: layers, homes of dependencies, `unsafe`,
//! lengths of files, and what the texts around the code must say.
//!
//! Every rule is a pure function over a path and a text, in a file of `tidy/`, with a table of bad
//! snippets that it must refuse. The tests here run them over the tree.

mod code;
mod edges;
mod files;
mod rules;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The largest file that may be committed, in bytes.
const MAX_FILE: u64 = 8 << 20;
/// The largest that the shipped model may be in all, without what trained it, in bytes.
const MAX_MODEL: u64 = 30_000_000;
/// What someone who opens the repository expects to find.
const EXPECTED: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "deny.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "test",
    ".ci/run",
];

/// A Rust file.
struct Source {
    path: String,
    text: String,
    /// `text` without comments and the insides of strings.
    code: String,
}

static TREE: LazyLock<Vec<String>> = LazyLock::new(|| tree(root()));

static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let folders = ["src/", "kernels/", "tests/", "benches/"];
    let rust = TREE.iter().filter(|path| {
        path.ends_with(".rs") && folders.iter().any(|folder| path.starts_with(folder))
    });
    rust.map(|path| {
        let text = read(path);
        Source { path: path.clone(), code: code::code(&text), text }
    })
    .collect()
});

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn size(path: &str) -> u64 {
    root().join(path).metadata().map_or(0, |metadata| metadata.len())
}

/// The files that are committed or would be: git's list, or every file where there is no git.
fn tree(root: &Path) -> Vec<String> {
    let git = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output();
    let listed = match git {
        Ok(output) if output.status.success() => output.stdout,
        _ => return walk(root),
    };
    let listed = String::from_utf8(listed).expect("paths are UTF-8");
    let paths: BTreeSet<&str> = listed.split_terminator('\0').collect();
    paths.into_iter().filter(|path| root.join(path).is_file()).map(str::to_owned).collect()
}

/// Every file below `root`, without what builds leave behind.
fn walk(root: &Path) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in root.join(&folder).read_dir().expect("a folder of the tree can be read") {
            let entry = entry.expect("an entry of the tree can be read");
            let path = folder.join(entry.file_name());
            let kind = entry.file_type().expect("an entry has a type");
            let name = entry.file_name();
            let skipped = ["target", ".git", "node_modules", "__pycache__"];
            if kind.is_dir() && !skipped.iter().any(|skipped| name == *skipped) {
                folders.push(path);
            } else if kind.is_file() {
                found.insert(path.to_str().expect("paths are UTF-8").to_owned());
            }
        }
    }
    found.into_iter().collect()
}

/// Runs a rule over the sources that `concerns` picks and fails with all that it found.
fn over_sources(
    concerns: impl Fn(&Source) -> bool,
    rule: impl Fn(&Source) -> Vec<(usize, String)>,
) {
    let mut seen = 0;
    let mut refused = Vec::new();
    for source in SOURCES.iter().filter(|source| concerns(source)) {
        seen += 1;
        let found = rule(source).into_iter();
        refused.extend(found.map(|(line, what)| format!("{}:{line}: {what}", source.path)));
    }
    assert!(seen > 0, "the rule saw no file");
    none(&refused);
}

fn none(refused: &[String]) {
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
}

fn ships(source: &Source) -> bool {
    source.path.starts_with("src/") || source.path.starts_with("kernels/src/")
}

/// Whether the file is a module that is compiled for tests alone.
fn test_only(source: &Source) -> bool {
    let declared = SOURCES.iter().filter(|parent| ships(parent)).flat_map(|parent| {
        let folder = Path::new(&parent.path).with_extension("");
        let own = ["lib", "main", "mod"].iter().any(|name| folder.ends_with(name));
        let folder = if own { folder.parent().map(Path::to_owned) } else { Some(folder) };
        let folder = folder.unwrap_or_default();
        code::test_modules(&parent.code).into_iter().map(move |name| folder.join(name))
    });
    let path = Path::new(&source.path);
    declared
        .into_iter()
        .any(|module| path.starts_with(&module) || path.with_extension("") == module)
}

#[test]
fn modules_name_only_what_the_table_of_layers_allows() {
    over_sources(
        |source| source.path.starts_with("src/"),
        |source| edges::check(&source.path, &source.code),
    );
}

#[test]
fn dependencies_stay_at_home() {
    over_sources(ships, |source| rules::homes(&source.path, &source.code));
}

#[test]
fn unsafe_stands_in_its_places_with_its_reasons() {
    over_sources(|_| true, |source| rules::unsafety(&source.path, &source.text, &source.code));
    let lib = SOURCES.iter().find(|source| source.path == "src/lib.rs").expect("src/lib.rs exists");
    assert!(lib.code.contains("#![deny(unsafe_code)]"), "src/lib.rs does not deny unsafe_code");
}

#[test]
fn no_work_is_left_unfinished() {
    over_sources(|_| true, |source| rules::unfinished(&source.code));
}

#[test]
fn only_the_command_line_prints() {
    over_sources(ships, |source| rules::prints(&source.path, &code::without_tests(&source.code)));
}

#[test]
fn shipped_code_panics_only_with_a_text() {
    over_sources(
        |source| ships(source) && !test_only(source),
        |source| rules::panics(&code::without_tests(&source.code)),
    );
}

#[test]
fn rust_files_say_what_they_are_and_stay_short() {
    over_sources(|_| true, |source| files::head_and_length(&source.path, &source.text));
    none(&files::stale_rows(root()));
}

#[test]
fn no_text_names_one_machine() {
    let mut refused = Vec::new();
    for path in TREE.iter().filter(|path| size(path) <= MAX_FILE) {
        let bytes = std::fs::read(root().join(path)).expect("a file of the tree can be read");
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let found = files::machine(path, &text).into_iter();
        refused.extend(found.map(|(line, what)| format!("{path}:{line}: {what}")));
    }
    none(&refused);
}

#[test]
fn expected_files_are_there_and_say_what_they_must() {
    let missing = EXPECTED.iter().filter(|path| size(path) == 0);
    none(&missing.map(|path| format!("{path}: missing or empty")).collect::<Vec<_>>());
    let modules = SOURCES.iter().filter(|source| source.path.starts_with("src/"));
    let modules = modules.map(|source| edges::module(&source.path));
    let modules = modules.filter(|module| !["lib", "main"].contains(module)).collect();
    let tests = SOURCES.iter().filter_map(|source| {
        let file = source.path.strip_prefix("tests/it/")?.strip_suffix(".rs")?;
        Some((file, source.code.as_str()))
    });
    let tests: Vec<(&str, &str)> = tests.collect();
    let map = files::map(&read("ARCHITECTURE.md"), &modules, &tests);
    let readme = files::readme(&read("README.md"));
    let ci = files::ci(&read(".ci/run"));
    let all = [("ARCHITECTURE.md", map), ("README.md", readme), (".ci/run", ci)];
    let refused = all.into_iter().flat_map(|(path, found)| {
        found.into_iter().map(move |(line, what)| format!("{path}:{line}: {what}"))
    });
    none(&refused.collect::<Vec<_>>());
}

#[test]
fn nothing_large_is_committed() {
    let large = TREE.iter().filter(|path| size(path) > MAX_FILE);
    none(&large.map(|path| format!("{path}: {} bytes", size(path))).collect::<Vec<_>>());
    let folder = "models/kontext-tiny/";
    let model: u64 = TREE
        .iter()
        .filter_map(|path| Some((path, path.strip_prefix(folder)?)))
        .filter(|(_, inner)| !inner.starts_with("train/"))
        .map(|(path, _)| size(path))
        .sum();
    assert!(model > 0, "{folder} is empty");
    assert!(model <= MAX_MODEL, "{folder} is {model} bytes, {MAX_MODEL} are allowed");
}

#[test]
fn links_between_texts_resolve() {
    let mut refused = Vec::new();
    for path in TREE.iter().filter(|path| path.ends_with(".md")) {
        let text = read(path);
        let folder = root().join(path);
        let folder = folder.parent().expect("a file has a folder");
        for (at, target) in files::links(&text) {
            if !folder.join(target).exists() {
                refused.push(format!("{path}:{}: {target} is not there", code::line(&text, at)));
            }
        }
    }
    none(&refused);
}

#[test]
fn manifests_parse() {
    let inside = |path: &&String| path.strip_prefix("models/").is_some_and(|p| !p.contains('/'));
    let manifests: Vec<_> =
        TREE.iter().filter(inside).filter(|path| path.ends_with(".toml")).collect();
    assert!(!manifests.is_empty(), "models/ has no manifest");
    let wrong = manifests.into_iter().filter_map(|path| {
        let error = read(path).parse::<toml::Table>().err()?;
        Some(format!("{path}: {error}"))
    });
    none(&wrong.collect::<Vec<_>>());
}

#[test]
fn the_tree_is_the_same_with_and_without_git() {
    // What git ignores besides builds may differ, so only this way: all that git lists is found.
    let walked: BTreeSet<String> = walk(root()).into_iter().collect();
    let missed: Vec<String> = TREE.iter().filter(|path| !walked.contains(*path)).cloned().collect();
    none(&missed);
}
