//! Downloads that are cut, stall, lie or are killed: the rest comes, and only the rest, or nothing
//! that is wrong stays.

use super::{Event, MODEL, Place, REPO, WEIGHTS, given, noise, server::What, tiny};
use crate::support::{expect, sha256};
use anyhow::{Context, Result, ensure};
use darkroom::hub::HubError;
use rustix::process::{Pid, Signal, kill_process};
use std::{fs, process::Child, thread, time::Duration};

const SIZE: usize = 300_000;

/// What is left of the weights beside their place.
fn parts(place: &Place) -> Result<Vec<u64>> {
    let folder = place.file("transformer");
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut sizes = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".part") {
            sizes.push(entry.metadata()?.len());
        }
    }
    Ok(sizes)
}

fn is_whole(place: &Place) -> Result<()> {
    ensure!(place.files()? == MODEL, "{:?}", place.files());
    ensure!(fs::read(place.file(WEIGHTS))? == noise(SIZE));
    Ok(())
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    place.hub.fail("/cdn/", 3, What::Cut(70_000));
    let mut waits = 0;
    place.pull_with(&place.client(None)?, &mut |event| {
        waits += usize::from(matches!(event, Event::Wait { .. }));
    })?;
    is_whole(&place)?;
    ensure!(waits == 3, "{waits} pauses");
    // Four answers, and together not a byte more than the file has.
    let given = given(&place.hub, WEIGHTS);
    ensure!(given == (SIZE, 4), "{given:?}");
    Ok(())
}

#[test]
fn the_rest_is_asked_for_with_the_etag_of_what_is_here() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    place.hub.fail("/cdn/", 1, What::Cut(70_000));
    place.pull()?;
    let hash = sha256(&noise(SIZE));
    let rest = place.hub.requests().into_iter().filter(|r| r.head.contains_key("range"));
    let rest: Vec<_> = rest.filter(|request| request.cdn).collect();
    ensure!(rest.len() == 1, "{rest:#?}");
    ensure!(rest[0].head.get("range").map(String::as_str) == Some("bytes=70000-"));
    let etag = format!("\"cdn-{}\"", &hash[..8]);
    ensure!(rest[0].head.get("if-range") == Some(&etag), "{rest:#?}");
    Ok(())
}

#[test]
fn a_connection_that_breaks_again_and_again_ends_and_the_next_pull_goes_on() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    place.hub.fail("/cdn/", 1, What::Cut(100_000));
    place.hub.fail("/cdn/", 4, What::Cut(0));
    let said = place.refuse()?;
    expect(&said, &["127.0.0.1", "broke off", "goes on from there"])?;
    ensure!(parts(&place)? == [100_000], "{:?}", parts(&place));
    place.hub.requests();
    place.pull()?;
    is_whole(&place)?;
    ensure!(given(&place.hub, WEIGHTS) == (SIZE - 100_000, 1), "only the rest came");
    Ok(())
}

#[test]
fn a_connection_that_says_nothing_is_given_up_and_taken_up() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    let mut hub = place.client(None)?;
    hub.patience = Duration::from_millis(500);
    place.hub.fail("/cdn/", 1, What::Stall(50_000));
    let mut said = Vec::new();
    place.pull_with(&hub, &mut |event| {
        if let Event::Wait { reason, .. } = event {
            said.push(reason.to_owned());
        }
    })?;
    is_whole(&place)?;
    ensure!(said.iter().any(|said| said.contains("sent nothing for")), "{said:?}");
    // A hub that never answers at all is given up for good.
    let place = Place::new(vec![tiny()])?;
    place.hub.fail("/api/models", 9, What::Stall(0));
    let error = place.pull_with(&hub_of(&place)?, &mut |_| {}).err().context("no answer")?;
    ensure!(matches!(error, HubError::Stalled { .. }), "{error}");
    Ok(())
}

fn hub_of(place: &Place) -> Result<darkroom::hub::Hub> {
    let mut hub = place.client(None)?;
    hub.patience = Duration::from_millis(500);
    Ok(hub)
}

#[test]
fn a_damaged_file_is_told_and_deleted_and_the_next_pull_loads_it_anew() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    place.hub.fail("/cdn/", 1, What::Corrupt);
    let mut damaged = noise(SIZE);
    damaged[0] ^= 1;
    let said = place.refuse()?;
    expect(&said, &[WEIGHTS, "is damaged", &sha256(&damaged), &sha256(&noise(SIZE)), "deleted"])?;
    ensure!(!place.file(WEIGHTS).exists() && parts(&place)?.is_empty());
    let lock = darkroom::hub::Lock::read(&place.models(), "tiny")?.context("files came before")?;
    ensure!(!lock.complete && lock.file(WEIGHTS).is_none());
    place.pull()?;
    is_whole(&place)
}

#[test]
fn a_damaged_part_is_found_by_the_hash_of_the_whole() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    place.hub.fail("/cdn/", 1, What::Cut(100_000));
    place.hub.fail("/cdn/", 4, What::Cut(0));
    place.refuse()?;
    for entry in fs::read_dir(place.file("transformer"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "part") {
            let mut bytes = fs::read(&path)?;
            bytes[50_000] ^= 1;
            fs::write(&path, bytes)?;
        }
    }
    expect(&place.refuse()?, &[WEIGHTS, "is damaged"])?;
    place.pull()?;
    is_whole(&place)
}

#[test]
fn lengths_that_do_not_fit_are_told_and_nothing_wrong_stays() -> Result<()> {
    for (more, found) in [(7, SIZE + 7), (-7, SIZE - 7)] {
        let place = Place::new(vec![tiny()])?;
        place.hub.fail("/cdn/", 1, What::Longer(more));
        let said = place.refuse()?;
        expect(&said, &[&format!("{WEIGHTS} has {found} bytes, the hub said {SIZE}")])?;
        ensure!(!place.file(WEIGHTS).exists());
        place.pull()?;
        is_whole(&place)?;
    }
    Ok(())
}

#[test]
fn a_server_without_ranges_or_with_wrong_ones_gives_the_whole_file() -> Result<()> {
    for (fault, answers) in [(What::WholeInstead, 2), (What::OtherRange, 3)] {
        let place = Place::new(vec![tiny()])?;
        place.hub.fail("/cdn/", 1, What::Cut(100_000));
        place.hub.fail("/cdn/", 1, fault);
        place.pull()?;
        is_whole(&place)?;
        let (_, asked) = given(&place.hub, WEIGHTS);
        ensure!(asked == answers, "{asked} answers");
    }
    Ok(())
}

#[test]
fn a_part_of_another_content_is_not_continued() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    place.hub.fail("/cdn/", 1, What::Cut(100_000));
    place.hub.fail("/cdn/", 4, What::Cut(0));
    place.refuse()?;
    let other: Vec<u8> = noise(SIZE).into_iter().rev().collect();
    place.hub.change(|repositories| {
        let file = repositories[0].files.iter_mut().find(|file| file.path == WEIGHTS);
        file.expect("it is there").bytes.clone_from(&other);
    });
    place.hub.requests();
    place.pull()?;
    ensure!(fs::read(place.file(WEIGHTS))? == other);
    ensure!(place.files()? == MODEL, "the old part is gone: {:?}", place.files());
    let ranges = place.hub.requests().into_iter().filter(|r| r.head.contains_key("range")).count();
    ensure!(ranges == 0, "the whole file was asked for");
    Ok(())
}

#[test]
fn a_file_that_the_hub_has_changed_since_the_first_pull_is_refused() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    let lock = place.pull()?;
    for path in [WEIGHTS, "transformer/config.json"] {
        fs::remove_file(place.file(path))?;
        place.hub.change(|repositories| {
            let file = repositories[0].files.iter_mut().find(|file| file.path == path);
            let file = file.expect("it is there");
            file.bytes.reverse();
        });
        let said = place.refuse()?;
        expect(&said, &[path, "is not what it was at the first pull", "tiny.lock.toml"])?;
        ensure!(!place.file(path).exists());
        ensure!(darkroom::hub::Lock::read(&place.models(), "tiny")?.as_ref() == Some(&lock));
        place.hub.change(|repositories| *repositories = vec![tiny()]);
        place.pull()?;
    }
    is_whole(&place)
}

/// A pull that has loaded 120000 bytes of the weights and hangs.
fn hanging(place: &Place) -> Result<Child> {
    place.hub.fail("/cdn/", 1, What::Stall(120_000));
    let child = place.command(&["pull", REPO]).spawn()?;
    for _ in 0..6000 {
        if parts(place)? == [120_000] {
            return Ok(child);
        }
        thread::sleep(Duration::from_millis(10));
    }
    anyhow::bail!("it loads nothing: {:?}", parts(place)?)
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("an id")?;
    Ok(kill_process(id, signal)?)
}

#[test]
fn a_pull_that_is_killed_or_interrupted_goes_on_with_the_rest() -> Result<()> {
    for (how, code) in [(Signal::KILL, None), (Signal::INT, Some(1)), (Signal::TERM, None)] {
        let place = Place::new(vec![tiny()])?;
        let child = hanging(&place)?;
        signal(&child, how)?;
        let output = child.wait_with_output()?;
        ensure!(output.status.code() == code, "{how:?}: {}", output.status);
        if how == Signal::INT {
            let said = String::from_utf8(output.stderr)?;
            expect(&said, &["error: interrupted", "the same command goes on from there"])?;
        }
        ensure!(parts(&place)? == [120_000]);
        place.hub.requests();
        place.succeed(&["pull", REPO])?;
        is_whole(&place)?;
        ensure!(given(&place.hub, WEIGHTS) == (SIZE - 120_000, 1), "{how:?}: only the rest came");
    }
    Ok(())
}

#[test]
fn two_pulls_at_once_are_one_too_many() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    let mut child = hanging(&place)?;
    let said = place.fail(&["pull", REPO])?;
    expect(&said, &["another darkroom is pulling or removing tiny right now"])?;
    let said = place.fail(&["models", "remove", "tiny", "--yes"])?;
    expect(&said, &["another darkroom is pulling or removing tiny right now"])?;
    child.kill()?;
    child.wait()?;
    place.succeed(&["pull", REPO])?;
    is_whole(&place)
}

#[test]
fn without_room_nothing_is_begun_and_the_figures_are_told() -> Result<()> {
    let place = Place::new(vec![tiny()])?;
    let huge = "X-Linked-Size: 1000000000000000000\r\nX-Linked-ETag: \"x\"\r\nLocation: http://x.invalid/\r\n";
    place.hub.fail(WEIGHTS, 1, What::Status(302, huge.to_owned()));
    let said = place.refuse()?;
    expect(&said, &["not enough room in ", "models: 931322574.7 GiB are needed, ", " are free"])?;
    ensure!(place.files().is_err(), "nothing was made");
    Ok(())
}
