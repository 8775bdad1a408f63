//! `darkroom doctor`: every line has a state, what is bad has a remedy, and the exit code says so.

use super::{Place, error_of, tiny};
use crate::support::{expect, repository};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{fs, os::unix::fs::symlink, process::Output};

fn place() -> Result<Place> {
    let place = Place::new(vec![tiny()])?;
    for name in ["flux1-kontext-dev.toml", "kontext-tiny"] {
        symlink(repository("models").join(name), place.models().join(name))?;
    }
    Ok(place)
}

fn checks(output: &Output) -> Result<Vec<Value>> {
    let text = String::from_utf8(output.stdout.clone())?;
    let all: Vec<Value> = serde_json::from_str(&text).with_context(|| text.clone())?;
    for check in &all {
        let fields: Vec<&String> = check.as_object().context("an object")?.keys().collect();
        ensure!(fields == ["check", "found", "remedy", "state"], "{check}");
        let state = check["state"].as_str().context("a state")?;
        ensure!(["ok", "warn", "bad"].contains(&state), "{check}");
        ensure!((state == "ok") == check["remedy"].is_null(), "{check}");
        ensure!(!check["found"].as_str().context("a text")?.contains('\n'), "{check}");
    }
    Ok(all)
}

fn find<'a>(checks: &'a [Value], name: &str) -> Result<&'a Value> {
    checks
        .iter()
        .find(|check| check["check"] == name)
        .with_context(|| format!("{name}: {checks:#?}"))
}

#[test]
fn all_is_looked_at_and_told_in_words_and_as_json() -> Result<()> {
    let place = place()?;
    let output = place.run(&["doctor", "--json"])?;
    let found = checks(&output)?;
    for name in [
        "settings",
        "device",
        "graphics card",
        "processor",
        "memory",
        "swap",
        "open files",
        "store",
        "models",
        "model.name",
        "would fit",
        "speed",
    ] {
        if name == "speed" && cfg!(any(feature = "cuda", feature = "metal")) {
            continue;
        }
        find(&found, name)?;
    }
    ensure!(output.status.success(), "{found:#?}");
    let text = |name: &str| Ok::<_, anyhow::Error>(find(&found, name)?["found"].to_string());
    expect(&text("processor")?, &["cores, kernels for "])?;
    expect(&text("memory")?, &[" GiB, of which "])?;
    expect(&text("would fit")?, &["flux1-kontext-dev: "])?;
    expect(
        &text("model.name")?,
        &["kontext-tiny is here", "transformer F16 unpacked", " with an edit of 256x256"],
    )?;

    let (out, _) = place.succeed(&["doctor"])?;
    for check in &found {
        let name = check["check"].as_str().context("a name")?;
        ensure!(out.lines().any(|line| line[6..].starts_with(name)), "{name}: {out}");
    }
    Ok(())
}

#[test]
fn what_is_bad_has_a_remedy_and_an_exit_code() -> Result<()> {
    let place = place()?;
    let bad = |variables: &[(&str, &str)], name: &str, parts: &[&str]| -> Result<()> {
        let mut command = place.command(&["doctor", "--json"]);
        command.envs(variables.iter().map(|(key, value)| (format!("DARKROOM__{key}"), value)));
        let output = command.output()?;
        let found = checks(&output)?;
        let check = find(&found, name)?;
        ensure!(check["state"] == "bad", "{check}");
        expect(&format!("{} {}", check["found"], check["remedy"]), parts)?;
        expect(&error_of(&output)?, &["1 of these things are bad"])
    };
    bad(&[("SERVER__DRAIN", "soon")], "settings", &["DARKROOM__SERVER__DRAIN", "correct it"])?;
    bad(
        &[("MODEL__NAME", "flux1-kontext-dev")],
        "model.name",
        &["darkroom pull flux1-kontext-dev"],
    )?;
    bad(&[("MODEL__NAME", "absent")], "model.name", &["is not known", "kontext-tiny"])?;
    #[cfg(not(feature = "cuda"))]
    bad(&[("MODEL__DEVICE", "cuda:0")], "device", &["--features cuda", "model.device"])?;
    Ok(())
}

#[test]
fn a_broken_pull_and_a_broken_record_are_findings() -> Result<()> {
    let place = place()?;
    place.hub.fail("/cdn/", 9, super::What::Status(403, String::new()));
    place.refuse()?;
    let found = checks(&place.run(&["doctor", "--json"])?)?;
    let check = find(&found, "pulled")?;
    ensure!(check["state"] == "warn", "{check}");
    expect(&check.to_string(), &["tiny", "not all of its files", "darkroom pull tiny goes on"])?;
    fs::write(place.models().join("tiny.lock.toml"), "version = 1\n[[file")?;
    let output = place.run(&["doctor", "--json"])?;
    let found = checks(&output)?;
    ensure!(find(&found, "pulled")?["state"] == "bad");
    ensure!(output.status.code() == Some(1));
    Ok(())
}
