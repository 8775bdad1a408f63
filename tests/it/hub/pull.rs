//! Pulls that go well: what comes, from where, who asked for it, and what is recorded.

use super::{
    Event, MODEL, Place, REPO, WEIGHTS, error_of, given, noise, order,
    server::{COMMIT, File, TOKEN},
    tiny,
};
use crate::support::{expect, sha256};
use anyhow::{Context, Result, ensure};
use darkroom::hub::{self, Checked, HubError, Work};
use std::{fs, os::unix::fs::MetadataExt};

#[test]
fn the_files_of_a_model_come_and_nothing_else_and_what_they_are_is_recorded() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    let (mut planned, mut begun, mut done) = (None, Vec::new(), 0);
    let lock = place.pull_with(&place.client(None)?, &mut |event| match event {
        Event::Plan { files, present, bytes } => planned = Some((files, present, bytes)),
        Event::File { path, size, work } => begun.push((path.to_owned(), size, work)),
        Event::At(_) | Event::Wait { .. } => {}
        Event::Done => done += 1,
    })?;
    ensure!(place.files()? == MODEL, "{:?}", place.files());
    for file in tiny().files.iter().filter(|file| MODEL.contains(&file.path.as_str())) {
        ensure!(fs::read(place.file(&file.path))? == file.bytes, "{}", file.path);
        let record = lock.file(&file.path).with_context(|| file.path.clone())?;
        ensure!(record.sha256 == sha256(&file.bytes) && record.size == file.bytes.len() as u64);
        let check = if file.linked { Checked::Hub } else { Checked::Unverified };
        ensure!(record.check == check, "{}: {:?}", file.path, record.check);
        ensure!(record.source == REPO && record.revision == COMMIT);
    }
    ensure!(lock.complete && lock.vouched() == 2 && lock.files.len() == MODEL.len());
    let bytes = lock.bytes();
    ensure!(planned == Some((MODEL.len(), 0, bytes)), "{planned:?}");
    ensure!(begun.len() == MODEL.len() && done == MODEL.len());
    ensure!(begun.contains(&(WEIGHTS.to_owned(), 300_000, Work::Download)), "{begun:?}");

    // The record is read back as it was, and says in words what it is.
    ensure!(hub::Lock::read(&place.models(), "tiny")? == Some(lock));
    let text = fs::read_to_string(place.models().join("tiny.lock.toml"))?;
    expect(&text, &["darkroom models", "check = \"hub\"", "check = \"unverified\"", COMMIT])
}

#[test]
fn a_second_pull_asks_for_the_list_alone() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    let first = place.pull()?;
    place.hub.requests();
    ensure!(place.pull()? == first);
    let asked: Vec<String> = place.hub.requests().into_iter().map(|request| request.line).collect();
    // At the commit that is recorded, not at what the branch is by now.
    let line = format!("GET /api/models/{REPO}/revision/{COMMIT} HTTP/1.1");
    ensure!(asked == [line], "{asked:?}");

    // One that is gone comes again, and has to be the same.
    fs::remove_file(place.file("vae/diffusion_pytorch_model.safetensors"))?;
    fs::write(place.file("transformer/config.json"), b"{")?;
    ensure!(place.pull()? == first);
    ensure!(fs::read(place.file("transformer/config.json"))? == b"{\"a\": 1}");
    ensure!(place.files()? == MODEL);
    Ok(())
}

#[test]
fn requests_say_the_program_and_its_version_and_the_token_goes_to_the_hub_alone() -> Result<()> {
    let mut repository = tiny();
    repository.gated = true;
    let place = Place::new(vec![repository])?;
    place.pull_with(&place.client(Some(TOKEN))?, &mut |_| {})?;
    let requests = place.hub.requests();
    ensure!(requests.iter().any(|request| request.cdn), "linked files come from elsewhere");
    for request in requests {
        let token = request.head.get("authorization").map(String::as_str);
        let expected = format!("Bearer {TOKEN}");
        ensure!(token == (!request.cdn).then_some(expected.as_str()), "{request:?}");
        let agent = format!("darkroom/{}", env!("CARGO_PKG_VERSION"));
        ensure!(request.head.get("user-agent") == Some(&agent), "{request:?}");
        let names: Vec<&str> = request.head.keys().map(String::as_str).collect();
        let allowed = ["authorization", "host", "if-range", "range", "user-agent"];
        ensure!(names.iter().all(|name| allowed.contains(name)), "{names:?}");
        ensure!(!request.line.contains("hf_"), "{request:?}");
    }
    Ok(())
}

#[test]
fn a_repository_of_single_files_gives_the_one_that_is_named() -> Result<()> {
    let mut repository = tiny();
    repository.files.retain(|file| file.path != "model_index.json");
    for name in ["model-Q4_K_M.gguf", "model-Q8_0.gguf"] {
        let bytes = noise(2000);
        repository.files.push(File { path: name.to_owned(), bytes, linked: true });
    }
    let place = Place::new(vec![repository])?;
    let said = place.refuse()?;
    expect(&said, &["no model_index.json", "--variant", "model-Q4_K_M.gguf", "model-Q8_0.gguf"])?;
    ensure!(place.files().is_err(), "nothing was made");

    let mut order = order(REPO, "main");
    order.variant = "model-Q8_0.gguf".to_owned();
    let client = place.client(None)?;
    let pull = |order: &hub::Order| hub::pull(&client, &place.models(), order, &mut |_| {});
    pull(&order)?;
    ensure!(place.files()? == ["LICENSE.md", "model-Q8_0.gguf"], "{:?}", place.files());

    order.variant = "model-Q4_K_M.gguf".to_owned();
    let error = pull(&order).err().context("another file is here")?.to_string();
    expect(&error, &["\"model-Q8_0.gguf\"", "\"model-Q4_K_M.gguf\"", "darkroom models remove tiny"])
}

#[test]
fn what_other_programs_pulled_is_taken_from_their_folder() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    let cache = place.path().join("hf/hub/models--lab--tiny");
    let snapshot = cache.join("snapshots").join(COMMIT);
    fs::create_dir_all(snapshot.join("transformer"))?;
    fs::create_dir_all(snapshot.join("vae"))?;
    fs::create_dir_all(cache.join("blobs"))?;
    // As the hub's programs do it: a link to a blob.
    let blob = cache.join("blobs").join(sha256(&noise(300_000)));
    fs::write(&blob, noise(300_000))?;
    std::os::unix::fs::symlink(&blob, snapshot.join(WEIGHTS))?;
    // One that is damaged counts as not there.
    let mut damaged = noise(5000);
    damaged[17] ^= 1;
    fs::write(snapshot.join("vae/diffusion_pytorch_model.safetensors"), damaged)?;

    let (_, said) = place.succeed(&["pull", REPO])?;
    ensure!(place.files()? == MODEL);
    ensure!(fs::read(place.file(WEIGHTS))? == noise(300_000));
    ensure!(!fs::symlink_metadata(place.file(WEIGHTS))?.is_symlink());
    expect(&said, &[&format!("copying {WEIGHTS}"), "tiny is complete: 6 files"])?;
    ensure!(given(&place.hub, WEIGHTS) == (0, 0), "it did not come from the hub");
    Ok(())
}

#[test]
fn a_folder_gives_its_files_as_copies_or_links() -> Result<()> {
    let place = Place::new(Vec::new())?;
    let folder = place.path().join("downloaded");
    for file in tiny().files {
        let path = folder.join(&file.path);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(path, file.bytes)?;
    }
    let import =
        |link| hub::import(&place.models(), &order(REPO, "main"), &folder, link, &mut |_| {});
    let lock = import(false)?;
    ensure!(place.files()? == MODEL, "{:?}", place.files());
    ensure!(lock.complete && lock.vouched() == 0, "nobody vouches for a folder");
    ensure!(lock.files.iter().all(|file| file.source == "folder" && file.revision.is_empty()));
    ensure!(place.hub.requests().is_empty(), "nobody was asked");
    let inode = |path: &std::path::Path| fs::metadata(path).map(|data| data.ino());
    ensure!(inode(&place.file(WEIGHTS))? != inode(&folder.join(WEIGHTS))?);

    // What was recorded stays so.
    fs::remove_file(place.file(WEIGHTS))?;
    let mut other = noise(300_000);
    other[99] ^= 1;
    fs::write(folder.join(WEIGHTS), &other)?;
    let error = import(false).err().context("it is another")?.to_string();
    expect(&error, &[WEIGHTS, &sha256(&other), &sha256(&noise(300_000)), "tiny.lock.toml"])?;
    ensure!(!place.file(WEIGHTS).exists());
    ensure!(!place.files()?.iter().any(|file| file.ends_with(".part")), "{:?}", place.files());
    fs::write(folder.join(WEIGHTS), noise(300_000))?;
    ensure!(import(true)? == lock);
    ensure!(inode(&place.file(WEIGHTS))? == inode(&folder.join(WEIGHTS))?, "a link");

    let empty = tempfile::tempdir()?;
    let error =
        hub::import(&place.models(), &order("lab/other", "main"), empty.path(), false, &mut |_| {});
    ensure!(matches!(error, Err(HubError::Import { .. })), "{error:?}");
    Ok(())
}

#[test]
fn a_file_that_pull_did_not_put_there_is_never_replaced() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    fs::create_dir_all(place.file("vae"))?;
    let mine = place.file("vae/diffusion_pytorch_model.safetensors");
    fs::write(&mine, b"mine")?;
    let said = place.refuse()?;
    expect(&said, &["vae/diffusion_pytorch_model.safetensors is in the way"])?;
    ensure!(fs::read(&mine)? == b"mine");
    Ok(())
}

#[test]
fn the_environment_names_the_hub_or_forbids_it() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    for (endpoint, expected) in [
        ("ftp://127.0.0.1", "it does not begin so"),
        ("127.0.0.1:80", "HF_ENDPOINT"),
        ("http://", "HF_ENDPOINT"),
        ("http://user:secret@127.0.0.1", "HF_ENDPOINT"),
    ] {
        let output = place.command(&["pull", REPO]).env("HF_ENDPOINT", endpoint).output()?;
        expect(&error_of(&output)?, &[expected])?;
    }
    let output = place.command(&["pull", REPO]).env("HF_HUB_OFFLINE", "1").output()?;
    expect(&error_of(&output)?, &["HF_HUB_OFFLINE", "--from"])?;
    ensure!(place.hub.requests().is_empty());
    let slash = format!("{}/", place.hub.url());
    let output = place.command(&["pull", REPO]).env("HF_ENDPOINT", slash).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
