//! What the files around the code must be: their sizes, texts and links.

use std::collections::BTreeSet;
use std::path::Path;

/// Lines of a Rust file: above the first it needs a row and a reason in [`LONG`], above the second
/// it is cut.
const SOFT: usize = 400;
const HARD: usize = 600;

/// The Rust files above the soft limit, each with the reason why it is one file.
const LONG: &[(&str, &str)] = &[
    ("tests/it/imaging.rs", "one table of samples, and the checks that walk over it"),
    ("tests/it/settings.rs", "a row for each key and for each mistake, and the checks"),
];

/// Lines of README.md and of ARCHITECTURE.md.
const README: usize = 150;
const MAP: usize = 300;

/// A Rust file that does not say what it is, or that is too long.
pub(super) fn head_and_length(path: &str, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    if !text.starts_with("//! ") {
        found.push((1, "does not open with `//!`".to_owned()));
    }
    let lines = text.lines().count();
    let excused = LONG.iter().any(|(long, _)| *long == path);
    if lines > HARD {
        found.push((lines, format!("{lines} lines, {HARD} are allowed")));
    } else if lines > SOFT && !excused {
        found.push((lines, format!("{lines} lines: above {SOFT} needs a reason in LONG")));
    } else if lines <= SOFT && excused {
        found.push((lines, format!("{lines} lines: its row in LONG is not needed any more")));
    }
    found
}

/// The rows of [`LONG`] whose file is gone.
pub(super) fn stale_rows(root: &Path) -> Vec<String> {
    let gone = LONG.iter().filter(|(path, _)| !root.join(path).exists());
    gone.map(|(path, reason)| format!("{path}: excused ({reason}) but not there")).collect()
}

/// Paths of one machine and hosts of registries, which mean nothing elsewhere.
pub(super) fn machine(path: &str, text: &str) -> Vec<(usize, String)> {
    // Put together here, so that this file does not contain them.
    let folders = ["work", "root", "home"].map(|name| format!("/{name}/"));
    let hosts = ["index.cra@tes.io", "static.cra@tes.io", "pypi.o@rg/simple", "pytho@nhosted.org"];
    let more_hosts = ["registry.np@mjs.org", "deb.deb@ian.org", "proxy.gol@ang.org"];
    let hosts = hosts.iter().chain(&more_hosts).map(|host| host.replace('@', ""));
    let mut found = Vec::new();
    for host in hosts.filter(|_| path != "Cargo.lock") {
        let places = text.match_indices(host.as_str());
        found.extend(places.map(|(at, host)| (at, format!("names a registry's host, {host}"))));
    }
    for folder in folders {
        // Only at the start of a path: `a/work/b` and a link's middle are something else.
        let absolute = |at: &usize| {
            let before = text[..*at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || "_-./~}>)*".contains(c))
        };
        let places = text.match_indices(folder.as_str()).map(|(at, _)| at).filter(absolute);
        found.extend(places.map(|at| (at, format!("names a path of one machine, {folder}"))));
    }
    let beside = ["..", "shared"].join("/");
    let places = text.match_indices(beside.as_str());
    found.extend(places.map(|(at, _)| (at, format!("names {beside}, which a clone lacks"))));
    found.into_iter().map(|(at, what)| (super::code::line(text, at), what)).collect()
}

/// A README that is too long, or does not begin with the two commands.
pub(super) fn readme(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > README {
        found.push((lines, format!("{lines} lines, {README} are allowed")));
    }
    let top = text.find("\n## ").map_or(text, |end| &text[..end]);
    let blocks = top.split("```").skip(1).step_by(2);
    let commands: Vec<&str> =
        blocks.flat_map(|block| block.lines().skip(1)).filter(|line| !line.is_empty()).collect();
    let expected =
        matches!(commands[..], [run, "./test"] if run.starts_with("cargo run --release -- "));
    if !expected {
        let what = format!("the top must name one command that runs and ./test, not {commands:?}");
        found.push((1, what));
    }
    found
}

/// A map of the code that is too long, lacks one of `modules`, has one more, or names as an
/// enforcer a test that the file of that name in `tests` does not have.
pub(super) fn map(
    text: &str,
    modules: &BTreeSet<&str>,
    tests: &[(&str, &str)],
) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > MAP {
        found.push((lines, format!("{lines} lines, {MAP} are allowed")));
    }
    let heads = text.lines().filter_map(|line| line.strip_prefix("### `src/")?.strip_suffix('`'));
    let heads: BTreeSet<&str> = heads.collect();
    let differ = modules.symmetric_difference(&heads);
    found.extend(differ.map(|name| (1, format!("src/{name} and its section do not agree"))));
    // Only the table of enforcers names tests: elsewhere `imaging::decode` is a path of the code.
    for (number, row) in text.lines().enumerate().filter(|(_, line)| line.starts_with("| ")) {
        for (file, code) in tests {
            for (at, name) in row.match_indices(&format!("`{file}::")) {
                let test = row[at + name.len()..].split('`').next().unwrap_or_default();
                if !code.contains(&format!("fn {test}()")) {
                    found.push((number + 1, format!("names a test that is gone, {test}")));
                }
            }
        }
    }
    found
}

/// A CI script that does anything but run `./test`.
pub(super) fn ci(text: &str) -> Vec<(usize, String)> {
    let lines = text.lines().enumerate();
    let commands: Vec<_> =
        lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect();
    match commands[..] {
        [(_, r#"cd "$(dirname "$0")/.." && exec ./test"#)] => Vec::new(),
        _ => vec![(1, format!("calls something else than ./test: {commands:?}"))],
    }
}

/// The relative links of a Markdown text, with their offsets: no address, no anchor, no code.
pub(super) fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut fenced, mut start) = (false, 0);
    for line in text.split_inclusive('\n') {
        fenced ^= line.trim_start().starts_with("```");
        for (at, _) in line.match_indices("](").filter(|_| !fenced) {
            let target = &line[at + 2..];
            let target = &target[..target.find([')', ' ']).unwrap_or(target.len())];
            let path = target.split('#').next().unwrap_or(target);
            let in_code = line[..at].matches('`').count() % 2 == 1;
            if !in_code && !path.is_empty() && !path.contains(':') {
                found.push((start + at, path));
            }
        }
        start += line.len();
    }
    found
}

#[test]
fn a_file_without_a_head_or_too_long_is_found() {
    let lines = |n: usize| format!("//! x\n{}", "a\n".repeat(n - 1));
    for bad in ["use std::fs;\n", "// x\n", "\n//! x\n", &lines(401), &lines(601)] {
        assert!(!head_and_length("src/x.rs", bad).is_empty(), "not refused: {bad}");
    }
    assert_eq!(head_and_length("src/x.rs", &lines(400)), []);
}

#[test]
fn a_machines_path_or_a_registrys_host_is_found() {
    let host = ["https://index.crates", "io/x"].join(".");
    let bad = [
        ["open(\"", "work/main/x\")"].join("/"),
        ["cd ", "root/x"].join("/"),
        ["", "home/me/x"].join("/"),
        ["see ..", "shared/design.md"].join("/"),
        ["pip install -i https://pypi.org", "simple"].join("/"),
        host.clone(),
    ];
    for text in bad {
        assert!(!machine("README.md", &text).is_empty(), "not refused: {text}");
    }
    for text in ["src/work/x", "$HOME/x", "/homely/x", "https://example.org/home/x", "~/work/x"] {
        assert_eq!(machine("README.md", text), [], "refused: {text}");
    }
    assert_eq!(machine("Cargo.lock", &host), []);
}

#[test]
fn a_readme_without_its_two_commands_is_found() {
    let block = |commands: &str| format!("# D\n\n```sh\n{commands}```\n\n## More\n");
    let run = "cargo run --release -- edit --image x.jpg\n";
    let three = block(&format!("{run}./test\nls\n"));
    let long = block(&format!("{run}./test\n")) + &"x\n".repeat(150);
    let later = format!("# D\n## Use\n```\n{run}./test\n```\n");
    for bad in ["# D\n", &block(run), &block("./test\n"), &three, &long, &later] {
        assert!(!readme(bad).is_empty(), "not refused: {bad}");
    }
    assert_eq!(readme(&block(&format!("{run}./test\n"))), []);
}

#[test]
fn a_map_that_does_not_fit_the_code_is_found() {
    let modules = BTreeSet::from(["app", "cli"]);
    let check = |text: &str| map(text, &modules, &[("tidy", "fn here() {}")]);
    let good = "### `src/app`\n### `src/cli`\n`tidy::src`\n| x | `tidy::here` |\n";
    for bad in [
        "### `src/app`\n".to_owned(),
        format!("{good}### `src/gone`\n"),
        format!("{good}| x | `tidy::gone` |\n"),
        format!("{good}{}", "x\n".repeat(300)),
    ] {
        assert!(!check(&bad).is_empty(), "not refused: {bad}");
    }
    assert_eq!(check(good), []);
}

#[test]
fn a_ci_that_does_more_than_the_test_command_is_found() {
    let good = "#!/bin/sh\n# Why.\ncd \"$(dirname \"$0\")/..\" && exec ./test\n";
    for bad in ["#!/bin/sh\n", "cargo test\n", &format!("{good}ls\n"), &good.replace("/test", "/x")]
    {
        assert!(!ci(bad).is_empty(), "not refused: {bad}");
    }
    assert_eq!(ci(good), []);
}

#[test]
fn links_are_told_from_addresses_anchors_and_code() {
    let text =
        "[a](b.md#c) [d](https://e.f) [g](#h) `[i](j)`\n```\n[k](l)\n```\n![m](n/o.png \"p\")";
    let found: Vec<&str> = links(text).into_iter().map(|(_, path)| path).collect();
    assert_eq!(found, ["b.md", "n/o.png"]);
}
