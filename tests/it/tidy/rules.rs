//! What the code of one file must not contain.

use super::code::{closing, line, words};
use super::edges::module;

/// A dependency, and the top-level modules that alone may name it. A row may wait for its crate:
/// where it belongs is settled before it comes.
const HOMES: &[(&str, &[&str])] = &[
    ("candle_core", &["model", "pipeline", "app"]),
    ("candle_nn", &["model", "pipeline"]),
    ("darkroom_kernels", &["model"]),
    ("sled", &["store"]),
    ("axum", &["http", "ui", "app"]),
    // What opens connections to elsewhere.
    ("hf_hub", &["hub"]),
    ("hyper", &["hub"]),
    ("tokio_rustls", &["hub"]),
    ("rustls_native_certs", &["hub"]),
    ("async_nats", &["cluster"]),
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
];

/// Where `unsafe` may stand: the kernels, and these files of the package.
const UNSAFE: &[&str] = &["kernels/", "src/model/weights/mmap.rs", "src/vault/locked.rs"];

/// How far above `unsafe` its reason may begin, in lines.
const REASON_ABOVE: usize = 16;

/// Dependencies in files whose module is no home of theirs.
pub(super) fn homes(path: &str, code: &str) -> Vec<(usize, String)> {
    let refuse = |(at, word): (usize, &str)| {
        let (name, homes) = HOMES.iter().find(|(name, _)| *name == word)?;
        let stray = path.starts_with("src/") && !homes.contains(&module(path));
        stray.then(|| (line(code, at), format!("`{name}` belongs to {homes:?} alone")))
    };
    words(code).filter_map(refuse).collect()
}

/// `unsafe` out of place, or without a reason before it.
pub(super) fn unsafety(path: &str, text: &str, code: &str) -> Vec<(usize, String)> {
    let home = UNSAFE.iter().any(|home| path.starts_with(home));
    let lines: Vec<&str> = text.lines().collect();
    let refuse = |(at, word): (usize, &str)| {
        let number = line(code, at);
        let a_type = code[..at].trim_end().ends_with([':', '=', '<', ',', '&', '>']);
        if word != "unsafe" || (home && (a_type || reasoned(&lines[..number]))) {
            return None;
        }
        let what = if home { "`unsafe` without a SAFETY comment" } else { "`unsafe` out of place" };
        Some((number, what.to_owned()))
    };
    words(code).filter_map(refuse).collect()
}

/// Whether the last of `lines`, or the comment above the statement that it belongs to, says why.
fn reasoned(lines: &[&str]) -> bool {
    let says = |line: &str| {
        let comment = line.find("//").map_or("", |at| &line[at..]);
        comment.contains("SAFETY:") || comment.contains("# Safety")
    };
    let (last, above) = lines.split_last().expect("the line of an offset exists");
    let mut in_comment = false;
    let reachable = above.iter().rev().take(REASON_ABOVE).take_while(|line| {
        let line = line.trim();
        let comment = line.starts_with("//");
        let ends_another = line.is_empty() || line.ends_with([';', '{', '}']);
        let goes_on = comment || (!in_comment && (line.starts_with("#[") || !ends_another));
        in_comment |= comment;
        goes_on
    });
    says(last) || reachable.into_iter().any(|line| says(line))
}

/// Macros and attributes that must not be committed anywhere.
pub(super) fn unfinished(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, word) in words(code) {
        let called = code[at + word.len()..].starts_with('!');
        if called && ["todo", "unimplemented", "dbg"].contains(&word) {
            found.push((line(code, at), format!("`{word}!` is unfinished work")));
        }
    }
    // `#[schema(ignore)]` is about a field of the API's document.
    let attributes =
        code.match_indices("#[").filter(|(at, _)| !code[*at..].starts_with("#[schema("));
    for (at, _) in attributes {
        for (_, word) in words(&code[at..closing(code, at + 1)]) {
            if ["ignore", "should_panic"].contains(&word) {
                let what = format!("`#[{word}]`: a test runs, and says what it expects");
                found.push((line(code, at), what));
            }
        }
    }
    found
}

/// Printing outside the command line.
pub(super) fn prints(path: &str, code: &str) -> Vec<(usize, String)> {
    let prints = |(at, word): (usize, &str)| {
        let called = code[at + word.len()..].starts_with('!');
        let printer = ["print", "println", "eprint", "eprintln"].contains(&word);
        let refused = called && printer && module(path) != "cli";
        refused.then(|| (line(code, at), format!("`{word}!` outside src/cli")))
    };
    words(code).filter_map(prints).collect()
}

/// Panics without a text, in code (tests blanked) that runs for a person.
pub(super) fn panics(code: &str) -> Vec<(usize, String)> {
    let refuse = |(at, word): (usize, &str)| {
        let method = code[..at].trim_end().ends_with('.');
        let tail = code[at + word.len()..].strip_prefix('(').filter(|_| method)?.trim_start();
        let what = match word {
            "unwrap" if tail.starts_with(')') => "`.unwrap()`: handle it, or `expect` with a text",
            "expect" if !tail.starts_with('"') || tail.starts_with("\"\"") => {
                "`.expect()` whose argument is not a text that states the invariant"
            }
            _ => return None,
        };
        Some((line(code, at), what.to_owned()))
    };
    words(code).filter_map(refuse).collect()
}

fn found(check: impl Fn(&str) -> Vec<(usize, String)>, bad: &[&str], good: &[&str]) {
    for text in bad {
        assert!(!check(text).is_empty(), "not refused: {text}");
    }
    for text in good {
        assert_eq!(check(text), [], "refused: {text}");
    }
}

#[test]
fn a_dependency_away_from_home_is_found() {
    let bad = ["use candle_core::Tensor;", "fn f(x: candle_nn::Linear) {}", "use sled;"];
    found(|text| homes("src/cli/edit.rs", text), &bad, &["use clap::Parser;"]);
    let bad = ["darkroom_kernels::linear(x)", "use {clap as c, std::fs};", "axum::serve(a, b)"];
    found(|text| homes("src/pipeline/mod.rs", text), &bad, &["use candle_core::Tensor;"]);
}

#[test]
fn unsafe_out_of_place_or_without_a_reason_is_found() {
    let code = |text: &str| super::code::code(text);
    let stray = ["unsafe { f() }", "// SAFETY: it is fine.\nunsafe { f() }"];
    let good = ["// unsafe", "let x = \"unsafe\";", "#![deny(unsafe_code)]"];
    found(|text| unsafety("src/model/mod.rs", text, &code(text)), &stray, &good);
    let bad = [
        "unsafe { f() }",
        "unsafe impl Send for X {}",
        "// Fast.\nunsafe fn f() {}",
        "// SAFETY: of another.\nlet a = b;\nunsafe { f() }",
        "// SAFETY: of another.\n\nunsafe { f() }",
        "// SAFETY: of another.\nfn g() {\n    unsafe { f() }\n}",
    ];
    let good = [
        "// SAFETY: checked above.\nunsafe { f() }",
        "unsafe { f() } // SAFETY: checked above.",
        "// SAFETY: a long\n// reason.\n#[inline]\nunsafe impl Send for X {}",
        "/// # Safety\n/// `n` is in range.\n#[inline]\npub unsafe fn f(n: usize) {}",
        "// SAFETY: checked above.\nlet x: &[f32] =\n    unsafe { f() };",
        "type F = unsafe fn(usize);",
    ];
    found(|text| unsafety("kernels/src/x.rs", text, &code(text)), &bad, &good);
}

#[test]
fn unfinished_work_is_found() {
    let bad = [
        "todo!()",
        "let x = dbg!(y);",
        "unimplemented!(\"x\")",
        "#[ignore]\nfn t() {}",
        "#[ignore = \"slow\"]\nfn t() {}",
        "#[cfg_attr(debug_assertions, ignore)]\nfn t() {}",
        "#[should_panic(expected = \"x\")]\nfn t() {}",
    ];
    found(
        unfinished,
        &bad,
        &["#[test]\nfn ignore() { let todo = 1; }", "#[must_use]", "#[schema(ignore)]"],
    );
}

#[test]
fn printing_outside_the_command_line_is_found() {
    let bad = ["println!(\"{x}\")", "std::eprint!(\"x\")"];
    found(|text| prints("src/pipeline/mod.rs", text), &bad, &["write!(out, \"x\")", "println(x)"]);
    found(|text| prints("kernels/src/lib.rs", text), &bad, &[]);
    found(|text| prints("src/cli/mod.rs", text), &[], &bad);
}

#[test]
fn a_panic_without_a_text_is_found() {
    let bad = ["x.unwrap()", "x\n    .unwrap()", "x.expect(\"\")", "x.expect(message)"];
    let good = ["x.unwrap_or(1)", "x.expect(\"held\")", "x.expect(\n    \"held\",\n)", "unwrap()"];
    found(panics, &bad, &good);
}
