//! `darkroom models`: the list, the check against the record, and what goes and what stays.

use super::{MODEL, Place, REPO, WEIGHTS, noise, tiny};
use crate::support::{expect, repository, sha256};
use anyhow::{Context, Result, ensure};
use std::{fs, os::unix::fs::symlink};

#[test]
fn the_list_says_what_is_here_and_who_vouches_for_it() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    for name in ["flux1-kontext-dev.toml", "kontext-tiny"] {
        symlink(repository("models").join(name), place.models().join(name))?;
    }
    place.pull()?;
    fs::copy(place.models().join("kontext-tiny.toml"), place.models().join("mine.toml"))?;
    fs::create_dir(place.models().join("mine"))?;
    let (out, _) = place.succeed(&["models", "list"])?;
    let line = |name: &str| {
        out.lines()
            .find(|line| line.split_whitespace().next() == Some(name))
            .context(name.to_owned())
    };
    expect(line("model")?, &["here", "variant", "size", "checked by hash", "licence"])?;
    expect(line("flux1-kontext-dev")?, &[" no ", "FLUX.1 [dev] Non-Commercial License"])?;
    expect(line("kontext-tiny")?, &["comes with Darkroom", " MiB ", "MIT OR Apache-2.0"])?;
    expect(line("tiny")?, &[" yes ", "297.9 KiB", "2 of 6 files, others unverified", "unknown"])?;
    expect(line("mine")?, &["yes, not pulled"])?;
    ensure!(out.lines().count() == 5, "{out}");
    ensure!(out.lines().all(|line| line.len() <= 140), "{out}");
    Ok(())
}

#[test]
fn a_check_finds_every_kind_of_damage_and_says_where() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    let (out, _) = place.succeed(&["models", "verify"])?;
    expect(&out, &["nothing was pulled"])?;
    let said = place.fail(&["models", "verify", "kontext-tiny"])?;
    expect(&said, &["kontext-tiny was not pulled", "kontext-tiny.lock.toml"])?;
    expect(&place.fail(&["models", "verify", "absent"])?, &["\"absent\" is not known"])?;

    place.pull()?;
    for args in [&["models", "verify"][..], &["models", "verify", "tiny"]] {
        let (out, _) = place.succeed(args)?;
        let good = out.lines().filter(|line| line.ends_with(": ok")).count();
        ensure!(good == MODEL.len() && out.lines().count() == MODEL.len(), "{out}");
    }
    let mut other = noise(300_000);
    other[299_999] ^= 1;
    fs::write(place.file(WEIGHTS), &other)?;
    fs::write(place.file("tokenizer/vocab.json"), b"{\"b\": 2}x")?;
    fs::remove_file(place.file("LICENSE.md"))?;
    let output = place.run(&["models", "verify", "tiny"])?;
    expect(&super::error_of(&output)?, &["3 files are not what was recorded"])?;
    let out = String::from_utf8(output.stdout)?;
    let changed = format!(
        "tiny/{WEIGHTS}: changed: SHA-256 {} instead of {}",
        sha256(&other),
        sha256(&noise(300_000))
    );
    expect(
        &out,
        &[
            &changed,
            "tiny/tokenizer/vocab.json: has 9 bytes instead of 8",
            "tiny/LICENSE.md: missing",
            "tiny/model_index.json: ok",
        ],
    )
}

#[test]
fn what_pull_put_there_goes_and_nothing_else() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    symlink(repository("models/kontext-tiny"), place.models().join("kontext-tiny"))?;
    place.pull()?;
    fs::write(place.file("vae/notes.txt"), b"mine")?;
    let said = place.fail(&["models", "remove", "tiny"])?;
    expect(&said, &["nobody can be asked here: say --yes"])?;
    ensure!(place.file(WEIGHTS).exists());
    let (_, said) = place.succeed(&["models", "remove", "tiny", "--yes"])?;
    expect(&said, &["tiny: 6 files are gone", "its folder stays"])?;
    ensure!(place.files()? == ["vae/notes.txt"], "{:?}", place.files());
    ensure!(!place.file("transformer").exists(), "a folder that is empty goes");
    ensure!(!place.models().join("tiny.lock.toml").exists());

    let said = place.fail(&["models", "remove", "tiny", "--yes"])?;
    expect(&said, &["\"tiny\" is not known"])?;
    let said = place.fail(&["models", "remove", "kontext-tiny", "--yes"])?;
    expect(&said, &["kontext-tiny comes with Darkroom and is not removed"])?;
    ensure!(repository("models/kontext-tiny/model_index.json").exists());

    // A second model stays where it is, and what a broken pull left goes too.
    fs::remove_file(place.file("vae/notes.txt"))?;
    place.hub.fail("/cdn/", 1, super::What::Cut(1000));
    place.hub.fail("/cdn/", 4, super::What::Cut(0));
    place.refuse()?;
    ensure!(place.files()?.iter().any(|file| file.ends_with(".part")));
    fs::write(place.file("transformer/my.weights.part"), b"mine")?;
    place.succeed(&["models", "remove", "tiny", "--yes"])?;
    ensure!(place.files()? == ["transformer/my.weights.part"], "{:?}", place.files());
    Ok(())
}

#[test]
fn a_pulled_repository_is_a_model_by_its_name() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    place.succeed(&["pull", REPO])?;
    // It is found, and then it is what it is: no model that runs.
    let said = place.fail(&["edit", "--model", "tiny", "--prompt", "x"])?;
    ensure!(!said.contains("is not known") && said.contains("tiny"), "{said}");
    Ok(())
}
