//! Inputs are in memory only: a server is traced while a picture is uploaded in every way and edited
//! to the end, and then the disk is searched for it. The same checks over a server that leaks must
//! fail, or they would prove nothing.

mod canary;
mod leaky;
mod syscalls;

use super::{Place, Server, client::Client, client::Form, client::text};
use anyhow::{Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use canary::Canary;
use leaky::{LEAKED, Leak};
use rustix::process::Signal;
use serde_json::json;
use std::{path::PathBuf, process::Command, time::SystemTime};

/// Width and height of the picture: its result is large enough for a file of its own.
const SIDE: u32 = 136;
/// Edits until a preview was told. A step may be over before its preview is made.
const PATIENCE: u64 = 50;

/// What must not be.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// A file outside of the store was opened for writing, made or renamed.
    Opened(PathBuf),
    /// A piece of the picture was handed to the kernel, for this file or socket.
    Wrote(PathBuf, &'static str),
    /// A call of which the trace does not show what it writes.
    Unseen(&'static str),
    /// A call that cannot be read.
    Unclear(String),
    /// A file that holds a piece of the picture.
    Holds(PathBuf, &'static str),
    /// A file that was not there before and is no part of the store.
    Appeared(PathBuf),
}

/// What a run showed.
struct Run {
    /// Calls that were read.
    calls: usize,
    /// Previews that were told.
    previews: usize,
    findings: Vec<Finding>,
}

/// Runs a server under strace, sends it a picture in every way, and looks for that everywhere.
fn run(command: impl FnOnce(&Place) -> Result<Command>) -> Result<Run> {
    let place = Place::new()?;
    // As the kernel names it.
    let folder = place.path().canonicalize()?;
    let (store, output) = (folder.join("data"), folder.join("strace"));
    let canary = Canary::new(SIDE)?;
    let started = SystemTime::now();

    let command = command(&place)?;
    let mut traced = syscalls::traced(&command, &output)?;
    place.prepare(&mut traced);
    let own = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    traced.envs(own).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let server = Server::start(&mut traced)?;
    let (results, previews) = upload(server.client(), &canary)?;
    server.process.signal(Signal::TERM)?;
    // Its pipes are closed when strace has ended, too.
    server.process.wait()?;

    let seen = syscalls::read(&output, &store, &canary)?;
    let mut findings = seen.findings;
    for (result, stored) in results {
        ensure!(canary.find(&result).is_none(), "an edit left the picture as it was");
        let written = seen.written.windows(result.len()).any(|window| window == result);
        ensure!(written == stored, "the trace shows {written} for a result, not {stored}");
    }
    let everywhere = ["/tmp", "/var/tmp", "/dev/shm"].map(PathBuf::from);
    let everywhere = [&everywhere[..], &[std::env::temp_dir(), folder]].concat();
    let found = canary.scan(&everywhere, started).into_iter();
    findings.extend(found.map(|(path, encoding)| Finding::Holds(path, encoding)));
    findings.extend(place.left_behind()?.into_iter().map(Finding::Appeared));
    Ok(Run { calls: seen.calls, previews, findings })
}

/// Results of edits, each with whether it is to be stored.
type Results = Vec<(Vec<u8>, bool)>;

/// Sends the picture in every way, and waits for the end of each. Gives the results, and the number
/// of previews.
fn upload(client: Client, canary: &Canary) -> Result<(Results, usize)> {
    let (mut results, mut previews) = (Vec::new(), 0);
    let mut finish = |id: String, stored: bool| -> Result<usize> {
        let events = client.events(&id)?;
        ensure!(events.last().is_some_and(|(name, _)| name == "done"), "{events:?}");
        previews += events.iter().filter(|(name, _)| name == "preview").count();
        let job = client.job(&id)?;
        results.push((client.content(&text(&job["image"]["id"])?)?, stored));
        Ok(previews)
    };
    let form = |seed| Form::square(SIDE, 4, seed).of(&canary.png);
    finish(client.submit(&form(1))?, true)?;
    finish(client.submit(&form(2).text("ephemeral", "true"))?, false)?;
    let base64 = BASE64_STANDARD.encode(&canary.png);
    let url = format!("data:image/png;base64,{base64}");
    for (seed, image) in [(3, base64), (4, url)] {
        let edit = json!({
            "prompt": "make it blue", "image": image, "seed": seed, "width": SIDE, "height": SIDE,
            "num_inference_steps": 4,
        });
        finish(client.post("/api/edits", &edit)?.accepted()?, true)?;
    }
    // What is refused is not spooled either.
    let cut = Form::square(SIDE, 1, 5).of(&canary.png[..canary.png.len() / 2]);
    ensure!(client.edit(&cut)?.status == 422);
    let mut seed = 6;
    while finish(client.submit(&form(seed))?, true)? == 0 {
        seed += 1;
        ensure!(seed < PATIENCE, "no preview was told");
    }
    Ok((results, previews))
}

#[test]
fn no_byte_of_an_input_reaches_a_disk() -> Result<()> {
    let run = run(|place| Ok(place.command(&[])))?;
    println!("{} calls, {} previews", run.calls, run.previews);
    ensure!(run.findings.is_empty(), "{:#?}", run.findings);
    Ok(())
}

/// What is found of a server that leaks in this way.
fn found(leak: Leak) -> Result<Vec<Finding>> {
    Ok(run(|place| leaky::command(leak, &place.store()))?.findings)
}

/// Checks that both the trace and the search show the leak, and also where no file may be at all
/// that there is one.
fn ensure_caught(leak: Leak, encoding: &'static str, forbidden: bool) -> Result<()> {
    let findings = found(leak)?;
    let [mut wrote, mut holds, mut opened, mut appeared] = [false; 4];
    for finding in &findings {
        let (seen, path, of) = match finding {
            Finding::Wrote(path, of) => (&mut wrote, path, *of),
            Finding::Holds(path, of) => (&mut holds, path, *of),
            Finding::Opened(path) => (&mut opened, path, encoding),
            Finding::Appeared(path) => (&mut appeared, path, encoding),
            Finding::Unseen(_) | Finding::Unclear(_) => bail!("{finding:?}"),
        };
        ensure!(path.ends_with(LEAKED) && of == encoding, "{finding:?}");
        *seen = true;
    }
    let found = [wrote, holds, opened, appeared];
    ensure!(found == [true, true, forbidden, forbidden], "{findings:#?}");
    Ok(())
}

#[test]
fn the_checks_pass_a_server_that_does_not_leak() -> Result<()> {
    let findings = found(Leak::Nowhere)?;
    ensure!(findings.is_empty(), "{findings:#?}");
    Ok(())
}

#[test]
fn the_checks_catch_a_temporary_file() -> Result<()> {
    ensure_caught(Leak::Temporary, "the rows", true)
}

#[test]
fn the_checks_catch_a_file_inside_the_store() -> Result<()> {
    ensure_caught(Leak::Store, "the rows", false)
}

#[test]
fn the_checks_catch_base64_in_the_working_folder() -> Result<()> {
    ensure_caught(Leak::Working, "the rows in base64", true)
}
