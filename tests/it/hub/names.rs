//! Names of files that would lie outside of the model's folder, from a hub and from a record.

use super::{
    Place, REPO, Repository, order,
    server::{File, What},
    tiny,
};
use crate::support::expect;
use anyhow::{Context, Result, ensure};
use darkroom::hub;
use std::fs;

/// Names that leave a folder, on one system or another.
const LEAVING: &[&str] = &[
    "../evil.json",
    "/evil.json",
    "vae/../../evil.json",
    "vae/..",
    "..",
    "vae//evil.json",
    "./evil.json",
    "vae/./evil.json",
    "..\\evil.json",
    "vae\\..\\..\\evil.json",
    "C:\\evil.json",
    "",
    "vae/",
    "vae/evil\0.json",
];

#[test]
fn a_hub_whose_names_leave_the_folder_is_not_believed_anything() -> Result<()> {
    for name in LEAVING {
        let mut repository = tiny();
        repository.files.push(File {
            path: (*name).to_owned(),
            bytes: b"evil".to_vec(),
            linked: false,
        });
        let place = Place::new(vec![repository])?;
        let said = place.refuse()?;
        expect(&said, &[REPO, "leaves the model's folder", "nothing was pulled"])?;
        ensure!(place.files().is_err(), "{name:?}");
        let beside: Vec<_> =
            fs::read_dir(place.path())?.map(|e| Ok(e?.file_name())).collect::<Result<_>>()?;
        ensure!(beside == ["models"], "{name:?}: {beside:?}");
    }
    Ok(())
}

#[test]
fn names_that_no_model_has_are_refused_or_left_out() -> Result<()> {
    let long = format!("vae/{}.json", "x".repeat(300));
    let deep = format!("vae/{}x.json", "a/".repeat(20));
    for name in [&*long, &*deep, "vae/a:b.json", "vae/new\nline.json", "vae/tab\t.json"] {
        let mut repository = tiny();
        repository.files.push(File { path: name.to_owned(), bytes: b"{}".to_vec(), linked: false });
        let place = Place::new(vec![repository])?;
        let said = place.refuse()?;
        expect(&said, &["leaves the model's folder"])?;
        ensure!(said.len() < 400, "{said}");
    }
    // What is hidden or a program is no part of a model.
    let mut repository = tiny();
    for name in ["vae/.git/config.json", "vae/run.sh", "vae/model.py", "transformer/x.ckpt"] {
        repository.files.push(File { path: name.to_owned(), bytes: b"x".to_vec(), linked: false });
    }
    let place = Place::new(vec![repository])?;
    place.pull()?;
    ensure!(place.files()? == super::MODEL, "{:?}", place.files());
    Ok(())
}

#[test]
fn spaces_and_letters_of_all_kinds_reach_the_hub_escaped() -> Result<()> {
    let name = "vae/größe 100% #1.json";
    let repository = Repository::new(
        REPO,
        &[("model_index.json", b"{}", false), ("vae/a b.json", b"{}", false)],
    );
    let place = Place::new(vec![repository])?;
    place.hub.fail("HEAD /lab/tiny/resolve", 9, What::Status(404, String::new()));
    place.refuse()?;
    place.hub.change(|repositories| {
        repositories[0].files[1].path = name.to_owned();
        repositories[0].files.swap(0, 1);
    });
    place.hub.requests();
    place.refuse()?;
    let asked = place.hub.requests().into_iter().find(|request| request.is("HEAD", "vae"));
    let line = asked.context("it was asked for")?.line;
    ensure!(line.contains("/vae/gr%C3%B6%C3%9Fe%20100%25%20%231.json "), "{line}");
    Ok(())
}

#[test]
fn a_record_whose_names_leave_the_folder_is_not_used() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    let lock = place.pull()?;
    let path = place.models().join("tiny.lock.toml");
    let text = fs::read_to_string(&path)?;
    let victim = place.path().join("victim.json");
    fs::write(&victim, b"{}")?;
    for name in ["../../victim.json", "/etc/passwd", "vae/../../../victim.json", ""] {
        fs::write(&path, text.replacen("\"LICENSE.md\"", &format!("{name:?}"), 1))?;
        for args in
            [&["models", "verify"][..], &["models", "remove", "tiny", "--yes"], &["pull", REPO]]
        {
            expect(&place.fail(args)?, &["leaves the model's folder"])?;
        }
    }
    for (from, to, expected) in [
        ("version = 1", "version = 2", "it has version 2"),
        ("complete = true", "complete = \"yes\"", "invalid type"),
        ("[[file]]", "[[file", "tiny.lock.toml"),
        (&lock.files[0].sha256, "abc", "sha256 of LICENSE.md is none"),
        ("check = \"hub\"", "check = \"me\"", "unknown variant"),
    ] {
        ensure!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 2))?;
        expect(&place.fail(&["models", "verify", "tiny"])?, &[expected])?;
    }
    ensure!(victim.exists());
    fs::write(&path, text)?;
    ensure!(hub::Lock::read(&place.models(), "tiny")? == Some(lock));
    Ok(())
}

#[test]
fn a_model_is_called_after_its_repository() {
    for (repo, name) in [
        ("black-forest-labs/FLUX.1-Kontext-dev", "flux-1-kontext-dev"),
        ("lab/tiny", "tiny"),
        ("lab/A_b.C", "a_b-c"),
    ] {
        assert_eq!(hub::model_name(repo), name);
        assert_eq!(order(repo, "main").name, name);
    }
}
