//! The layers: which top-level module may name which, read from the paths in the code.

use super::code::{closing, line, words};
use std::path::Path;

/// The table of design: a module and those that it may name, besides `domain` and `config`, which
/// all but those two may. `*` stands for all.
///
/// It holds the whole design, also modules that are still to come: a layer is agreed on before its
/// code is written, and a module that has no row here is refused. Adding an edge means editing this
/// table, which is the change to look at hardest in a review.
const EDGES: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    ("app", &["*"]),
    ("cli", &["app"]),
    ("http", &["service", "ui"]),
    ("service", &["scheduler", "store", "vault", "accounts", "imaging", "telemetry"]),
    ("scheduler", &["engine"]),
    ("pipeline", &["engine", "model", "imaging"]),
    ("cluster", &["engine"]),
    ("accounts", &["store", "vault"]),
    ("store", &["vault"]),
    ("model", &[]),
    ("engine", &[]),
    ("imaging", &[]),
    ("vault", &[]),
    ("ui", &[]),
    ("hub", &[]),
    ("telemetry", &[]),
    ("config", &["domain"]),
    ("domain", &[]),
];

/// The top-level module that the file at `path`, below src/, belongs to.
pub(super) fn module(path: &str) -> &str {
    let path = path.strip_prefix("src/").unwrap_or(path);
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
}

/// The edges of one file that the table does not allow.
pub(super) fn check(path: &str, code: &str) -> Vec<(usize, String)> {
    let from = module(path);
    if !EDGES.iter().any(|(module, _)| *module == from) {
        return vec![(1, format!("module `{from}` has no row in the table of layers"))];
    }
    let named = named_modules(path, code).into_iter();
    named
        .filter(|(_, to)| !allowed(from, to))
        .map(|(at, to)| (line(code, at), format!("`{from}` names `{to}`: no such edge is allowed")))
        .collect()
}

fn allowed(from: &str, to: &str) -> bool {
    let known = EDGES.iter().any(|(module, _)| *module == to);
    let shared = ["domain", "config"];
    let row = EDGES.iter().find(|(module, _)| *module == from).map_or(&[][..], |(_, row)| *row);
    known
        && (from == to
            || row.contains(&to)
            || row.contains(&"*")
            || (shared.contains(&to) && !shared.contains(&from)))
}

/// Every top-level module that `code` names by a path, with the path's offset.
fn named_modules(path: &str, code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, word) in words(code) {
        let before = code[..at].trim_end();
        let inner = before.ends_with("::") && !before.ends_with("self::");
        let root = match word {
            _ if inner => None,
            "crate" => Some(at + word.len()),
            "darkroom" if path == "src/main.rs" => Some(at + word.len()),
            "super" => above_root(path, code, at),
            _ => None,
        };
        let Some(tail) = root.and_then(|end| code[end..].trim_start().strip_prefix("::")) else {
            continue;
        };
        let mut heads = Vec::new();
        first_names(tail, &mut heads);
        found.extend(heads.into_iter().map(|name| (at, name)));
    }
    found
}

/// Where a chain of `super::` that begins at `at` ends, if it climbs to the root of the crate.
fn above_root(path: &str, code: &str, at: usize) -> Option<usize> {
    let (mut end, mut steps) = (at, 0);
    while let Some(rest) = code[end..].strip_prefix("super") {
        steps += 1;
        end = code.len() - rest.len();
        if steps == depth(path) + inline_depth(code, at) {
            return Some(end);
        }
        end = code.len() - rest.strip_prefix("::")?.len();
    }
    None
}

/// How deep the module of the file at `path` lies below the crate's root.
fn depth(path: &str) -> usize {
    let parts = Path::new(path.strip_prefix("src/").unwrap_or(path)).with_extension("");
    let own = !["lib", "main", "mod"].iter().any(|name| parts.ends_with(name));
    parts.components().count() - usize::from(!own)
}

/// How many inline modules enclose the offset `at`.
fn inline_depth(code: &str, at: usize) -> usize {
    let bodies = words(&code[..at]).filter(|(_, word)| *word == "mod").filter_map(|(start, _)| {
        let open = start + code[start..].find(['{', ';'])?;
        code[open..].starts_with('{').then_some(open)
    });
    bodies.filter(|open| closing(code, *open) > at).count()
}

/// The first names of the use-tree that `tail` begins with: one, or each of a group.
fn first_names(tail: &str, names: &mut Vec<String>) {
    let tail = tail.trim_start();
    if !tail.starts_with('{') {
        let (_, name) = words(tail).next().filter(|(at, _)| *at == 0).unwrap_or((0, "*"));
        let raw = tail.strip_prefix("r#").and_then(|rest| words(rest).next());
        names.push(raw.map_or(name, |(_, name)| name).to_owned());
        return;
    }
    let group = &tail[1..closing(tail, 0)];
    let (mut start, mut level) = (0, 0);
    for (at, byte) in group.bytes().chain([b',']).enumerate() {
        match byte {
            b'{' => level += 1,
            b'}' => level -= 1,
            b',' if level == 0 => {
                if !group[start..at].trim().is_empty() {
                    first_names(&group[start..at], names);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

#[test]
fn a_forbidden_edge_is_found_however_it_is_written() {
    let bad = [
        ("src/engine/mod.rs", "use crate::model::Flux;", "`engine` names `model`"),
        ("src/engine/mod.rs", "use super::model::Flux;", "`engine` names `model`"),
        ("src/engine.rs", "use super::model;", "`engine` names `model`"),
        ("src/model/flux/block.rs", "use super::super::super::pipeline::X;", "names `pipeline`"),
        ("src/model/rope.rs", "mod t { use super::super::super::engine::E; }", "names `engine`"),
        ("src/model/rope.rs", "fn f() -> crate::imaging::X {}", "`model` names `imaging`"),
        ("src/domain/mod.rs", "use crate::config;", "`domain` names `config`"),
        (
            "src/pipeline/mod.rs",
            "use crate::{\n    domain::{Size, edit::{A, B}},\n    engine::Engine, cli::{self},\n};",
            "`pipeline` names `cli`",
        ),
        ("src/cli/mod.rs", "use crate::{app, {model::Flux, domain}};", "`cli` names `model`"),
        ("src/cli/mod.rs", "use crate::*;", "`cli` names `*`"),
        ("src/cli/mod.rs", "use crate::{self as all};", "`cli` names `self`"),
        ("src/cli/mod.rs", "pub use self::super::model::Flux;", "`cli` names `model`"),
        ("src/main.rs", "fn main() { darkroom::app::run() }", "`main` names `app`"),
        ("src/utils/mod.rs", "", "`utils` has no row"),
        ("src/utils.rs", "", "`utils` has no row"),
    ];
    for (path, code, expected) in bad {
        let found = check(path, code);
        assert!(found.iter().any(|(_, what)| what.contains(expected)), "{path}: {code}: {found:?}");
    }
    let good = [
        ("src/pipeline/mod.rs", "use crate::{domain::Size, engine::Engine, model::{self, ops}};"),
        ("src/pipeline/job.rs", "use super::pack; use crate::pipeline::pack;"),
        ("src/model/flux/block.rs", "use super::super::ops; use super::config;"),
        ("src/model/rope.rs", "mod tests { use super::*; use super::super::ops; }"),
        ("src/config/mod.rs", "use crate::domain::Size; pub(crate) fn f() {} pub(super) fn g() {}"),
        ("src/app/mod.rs", "use crate::{cli, model, pipeline};"),
        ("src/main.rs", "fn main() { darkroom::cli::run() }"),
    ];
    for (path, code) in good {
        assert_eq!(check(path, code), [], "{path}: {code}");
    }
}
