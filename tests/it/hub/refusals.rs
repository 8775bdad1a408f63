//! What a hub refuses, and what it says that cannot be right: each with its own words, and what to
//! do.

use super::{
    MODEL, Place, REPO, error_of, order,
    server::{STRANGER, TOKEN, What},
    tiny,
};
use crate::support::expect;
use anyhow::{Context, Result, ensure};
use darkroom::hub::{self, HubError};
use std::fs;

#[test]
fn a_gate_says_what_opens_it() -> Result<()> {
    let mut repository = tiny();
    repository.gated = true;
    let place = Place::new(vec![repository])?;
    let refused = |token: Option<&str>| -> Result<String> {
        let mut command = place.command(&["pull", REPO]);
        if let Some(token) = token {
            command.env("HF_TOKEN", token);
        }
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!token.is_some_and(|token| said.contains(token)), "the token is shown: {said}");
        error_of(&output)
    };
    let page = format!("{}/{REPO}", place.hub.url());
    let tokens = format!("{}/settings/tokens", place.hub.url());
    expect(&refused(None)?, &[REPO, "signed in", &page, &tokens, "HF_TOKEN", "--token-file"])?;
    expect(
        &refused(Some(STRANGER))?,
        &["has not been given lab/tiny", &page, "accept its licence"],
    )?;
    expect(&refused(Some("hf_unknown"))?, &["does not know the token (from HF_TOKEN)", &tokens])?;
    expect(&refused(Some("hf_two words"))?, &["the token in HF_TOKEN cannot be used"])?;
    ensure!(place.files().is_err(), "nothing was made");

    // By the variable, by a file that is named, and by that of the hub's own programs.
    let pull = |name: &str, value: &str, args: &[&str]| -> Result<()> {
        let args = [&["pull", REPO][..], args].concat();
        let output = place.command(&args).env(name, value).env("DARKROOM_LOG", "trace").output()?;
        let said = String::from_utf8([output.stdout, output.stderr].concat())?;
        ensure!(output.status.success(), "{said}");
        ensure!(!said.contains(TOKEN), "the token is shown: {said}");
        ensure!(place.files()? == MODEL, "{:?}", place.files());
        let record = fs::read_to_string(place.models().join("tiny.lock.toml"))?;
        ensure!(!record.contains(TOKEN));
        place.succeed(&["models", "remove", "tiny", "--yes"])?;
        Ok(())
    };
    let file = place.path().join("token.txt");
    fs::write(&file, format!("{TOKEN}\n"))?;
    let file = file.to_string_lossy();
    pull("HF_TOKEN", TOKEN, &[])?;
    pull("HF_TOKEN", STRANGER, &["--token-file", &file])?;
    pull("HF_TOKEN_PATH", &file, &[])?;
    fs::create_dir_all(place.path().join("hf"))?;
    fs::copy(&*file, place.path().join("hf/token"))?;
    pull("LANG", "C", &[])?;

    let said = error_of(&place.run(&["pull", REPO, "--token-file", "absent"])?)?;
    expect(&said, &["the token in absent cannot be used", "No such file"])?;
    fs::write(place.path().join("empty"), "\n")?;
    expect(&place.fail(&["pull", REPO, "--token-file", "empty"])?, &["it is empty"])
}

#[test]
fn what_is_not_there_is_named() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    expect(&place.fail(&["pull", "lab/absent"])?, &["lab/absent is not on 127.0.0.1", "private"])?;
    let said = place.fail(&["pull", "lab/tiny@v9"])?;
    expect(&said, &["lab/tiny has no revision \"v9\""])?;
    for wrong in ["lab/tiny@", "lab/tiny@a b", "lab/", "/tiny", "a/b/c", "lab/ti ny", "../tiny"] {
        expect(&place.fail(&["pull", wrong])?, &["is no repository, expected OWNER/REPO"])?;
    }
    expect(&place.fail(&["pull", "nothing"])?, &["\"nothing\" is not known", "kontext-tiny"])?;
    expect(&place.fail(&["pull", "kontext-tiny"])?, &["kontext-tiny is pulled from nowhere"])?;
    expect(&place.fail(&["pull", "lab/kontext-tiny"])?, &["another model's name"])?;

    // A file that the list has and the hub has not.
    place.hub.fail("HEAD", 1, What::Status(404, "X-Error-Code: EntryNotFound\r\n".to_owned()));
    expect(&place.refuse()?, &["lab/tiny has no file \"model_index.json\""])?;
    place.hub.change(|repositories| repositories[0].files.retain(|file| file.path == "README.md"));
    expect(&place.refuse()?, &["lab/tiny has nothing that a model is made of"])
}

#[test]
fn a_hub_that_asks_for_patience_gets_it_within_bounds() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    place.hub.fail("/cdn/", 2, What::Status(429, "Retry-After: 0\r\n".to_owned()));
    let mut waits = Vec::new();
    place.pull_with(&place.client(None)?, &mut |event| {
        if let super::Event::Wait { seconds, reason } = event {
            waits.push((seconds, reason.to_owned()));
        }
    })?;
    ensure!(waits.len() == 2 && waits.iter().all(|(seconds, _)| *seconds == 0), "{waits:?}");
    ensure!(waits.iter().all(|(_, reason)| reason.contains("too many requests")), "{waits:?}");

    for (head, seconds) in
        [("Retry-After: 4000\r\n", 4000), ("RateLimit: \"api\";r=0;t=900\r\n", 900)]
    {
        let place = Place::new(vec![tiny()])?;
        place.hub.fail("/cdn/", 1, What::Status(429, head.to_owned()));
        let error = place.pull().err().context("it is too long")?;
        ensure!(matches!(&error, HubError::Busy { seconds: s, .. } if *s == seconds), "{error}");
        place.pull()?;
    }
    // One that never has enough is not asked for ever.
    let place = Place::new(vec![tiny()])?;
    place.hub.fail("/cdn/", 100, What::Status(429, "Retry-After: 0\r\n".to_owned()));
    expect(&place.refuse()?, &["asks to wait 0 s"])?;
    let asked = place.hub.requests().into_iter().filter(|request| request.cdn).count();
    ensure!(asked == 5, "{asked} requests");
    Ok(())
}

#[test]
fn a_list_and_a_head_are_asked_for_again_too() -> Result<()> {
    for on in ["GET /api/", "HEAD"] {
        for head in ["Retry-After: 0\r\n", ""] {
            let place = Place::new(vec![tiny()])?;
            let status = if head.is_empty() { 503 } else { 429 };
            place.hub.fail(on, 2, What::Status(status, head.to_owned()));
            place.pull()?;
            ensure!(place.files()? == MODEL);
        }
    }
    Ok(())
}

#[test]
fn other_statuses_are_told() -> Result<()> {
    for (on, status, head, expected) in [
        ("/api/", 403, "X-Error-Message: not for you\r\n", "refuses lab/tiny: not for you"),
        ("/api/", 418, "", "status 418"),
        ("/api/", 500, "", "status 500"),
        ("/cdn/", 403, "X-Error-Code: GatedRepo\r\n", "status 403"),
        ("/cdn/", 401, "", "status 401"),
        ("/cdn/", 404, "", "status 404"),
        ("/cdn/", 502, "", "status 502"),
        ("/cdn/", 204, "", "status 204"),
    ] {
        let place = Place::new(vec![tiny()])?;
        place.hub.fail(on, 9, What::Status(status, head.to_owned()));
        expect(&place.refuse()?, &[expected])?;
    }
    Ok(())
}

#[test]
fn redirects_that_lead_nowhere_are_not_followed_for_ever() -> Result<()> {
    for (to, expected) in [
        ("Location: /api/models/lab/tiny/revision/main\r\n", "in a circle"),
        ("", "to no address"),
        ("Location: ftp://x.invalid/\r\n", "to no address of a web server"),
        ("Location: file:///etc/passwd\r\n", "to no address"),
        ("Location: http://127.0.0.1:1/\r\n", "127.0.0.1 cannot be reached"),
    ] {
        let place = Place::new(vec![tiny()])?;
        place.hub.fail("/api/", 100, What::Status(302, to.to_owned()));
        expect(&place.refuse()?, &[expected])?;
        let asked = place.hub.requests().len();
        ensure!(asked <= 9, "{asked} requests");
    }
    // One that leads somewhere is, as for a repository that has another name by now.
    let place = Place::new(vec![tiny()])?;
    let moved = format!("Location: /api/models/{REPO}/revision/main\r\n");
    place.hub.fail("/api/", 1, What::Status(307, moved));
    place.pull()?;
    Ok(())
}

#[test]
fn a_list_of_files_that_cannot_be_right_is_refused() -> Result<()> {
    let body = |json: &str| {
        let length = json.len();
        What::Raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{json}"))
    };
    let many = format!(
        "{{\"sha\":\"abc\",\"siblings\":[{}]}}",
        vec!["{\"rfilename\":\"a.json\"}"; 10_001].join(",")
    );
    for (fault, expected) in [
        (What::Endless, "larger than 8 MiB"),
        (body(""), "EOF"),
        (body("{}"), "missing field"),
        (body("[[[[[["), "cannot be used"),
        (body(r#"{"sha":"abc","siblings":"x"}"#), "invalid type"),
        (body(r#"{"sha":"../../x","siblings":[]}"#), "its commit is"),
        (body(r#"{"sha":"abc","siblings":[]}"#), "nothing that a model is made of"),
        (body(&many), "more than 10000 files"),
        (What::Raw("SSH-2.0-OpenSSH_9.6\r\n".to_owned()), "broke off"),
        (What::Raw(String::new()), "broke off"),
        (What::Raw(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20))), "broke off"),
    ] {
        let place = Place::new(vec![tiny()])?;
        place.hub.fail("/api/", 9, fault);
        expect(&place.refuse()?, &[expected])?;
        ensure!(place.files().is_err(), "nothing was made");
    }
    Ok(())
}

#[test]
fn what_a_head_does_not_say_is_told() -> Result<()> {
    for (head, expected) in [
        ("ETag: \"x\"\r\nX-Repo-Commit: other\r\nContent-Length: 1\r\n", "but \"other\""),
        ("Content-Length: 1\r\n", "the ETag of model_index.json"),
        ("Location: http://x.invalid/\r\nETag: \"x\"\r\n", "the length of model_index.json"),
    ] {
        let place = Place::new(vec![tiny()])?;
        let status = if head.starts_with("Location") { 302 } else { 200 };
        place.hub.fail("HEAD", 1, What::Status(status, head.to_owned()));
        expect(&place.refuse()?, &["does not say", expected])?;
    }
    Ok(())
}

#[test]
fn a_hub_that_is_not_there_is_named() -> Result<()> {
    let place = Place::new(Vec::new())?;
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let hub = hub::Hub::new(&format!("http://{address}"), None)?;
    let error = hub::pull(&hub, &place.models(), &order(REPO, "main"), &mut |_| {});
    expect(&error.err().context("nobody is there")?.to_string(), &["127.0.0.1 cannot be reached"])?;
    Ok(())
}
