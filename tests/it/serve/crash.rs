//! kill -9 at random moments, also while the server starts: whatever a client was told holds.
//!
//! A client submits edits, downloads what is done and deletes some of it, until its server is gone.
//! The next start is compared with what it was told, and goes on from there. More rounds, and
//! another build: `benches/server_crash.sh`.

use super::{
    Place, Process, Server, client::Client, client::Form, client::text, client::unless_cut,
    fresh_seed, noise,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

const ROUNDS: u64 = 20;
/// Jobs that a client has in the server at once.
const AT_ONCE: usize = 4;
/// The largest image that lies in the database, in bytes.
const ROW: usize = 16 << 10;

/// What a client was told of an image, or of what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Image {
    /// It is there. Its digest is known once it was downloaded.
    There(Option<[u8; 32]>),
    /// It is deleted.
    Gone,
    /// Its deletion was asked for and not answered.
    Either(Option<[u8; 32]>),
}

/// What a client was told of a job: that it was taken, or which image it gave.
type Job = Option<String>;

#[derive(Default)]
struct Totals {
    images: u64,
    deletions: u64,
    in_files: u64,
    interrupted: u64,
    in_starting: u64,
    slowest_start: Duration,
}

impl Totals {
    /// Whether there was enough to lose in so many rounds.
    fn enough(&self, rounds: u64) -> bool {
        let images = self.images >= 4 * rounds && 2 * self.in_files >= rounds;
        images && self.deletions >= rounds && self.in_starting > 0
    }
}

/// Everything that a client was told.
#[derive(Default)]
struct Ledger {
    jobs: BTreeMap<String, Job>,
    images: BTreeMap<String, Image>,
    /// The images that are there; those of this round stand last, in the order of their making.
    order: Vec<String>,
    totals: Totals,
    /// Edits so far, each with a seed of its own.
    edits: u64,
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl Ledger {
    /// Works until the server is gone.
    fn work(&mut self, client: Client, dice: &[u8]) -> Result<()> {
        let mut dice = dice.iter().cycle();
        loop {
            let mut jobs = Vec::new();
            for _ in 0..AT_ONCE {
                self.edits += 1;
                // Small ones lie in the database, large ones in files of their own.
                let side = if self.edits.is_multiple_of(4) { 136 } else { 32 };
                let taken = client.edit(&Form::square(side, 1, self.edits));
                let Some(reply) = unless_cut(taken)? else { return Ok(()) };
                let id = reply.accepted()?;
                self.jobs.insert(id.clone(), None);
                jobs.push(id);
            }
            for id in jobs {
                let over = |job: &Value| job["state"] != "queued" && job["state"] != "running";
                let Some(job) = unless_cut(client.until(&id, over))? else { return Ok(()) };
                ensure!(job["state"] == "done", "{job}");
                let image = self.done(id, &job)?;
                let Some(content) = unless_cut(client.content(&image))? else { return Ok(()) };
                darkroom::app::decode(&content).with_context(|| image.clone())?;
                self.totals.in_files += u64::from(content.len() > ROW);
                self.images.insert(image, Image::There(Some(digest(&content))));
                if !self.delete(client, *dice.next().context("a die")?)? {
                    return Ok(());
                }
            }
        }
    }

    /// Deletes the oldest image, the newest, which may still be on its way to somewhere, both in one
    /// request, or none. False where the server is gone.
    fn delete(&mut self, client: Client, die: u8) -> Result<bool> {
        let last = self.order.len().checked_sub(1).context("an image")?;
        let chosen: Vec<String> = match die % 8 {
            0 => vec![self.order.remove(0)],
            1 => vec![self.order.remove(last)],
            2 if last > 0 => vec![self.order.remove(last), self.order.remove(0)],
            _ => return Ok(true),
        };
        for id in &chosen {
            if let Some(Image::There(digest)) = self.images.get(id).copied() {
                self.images.insert(id.clone(), Image::Either(digest));
            }
        }
        let reply = if let [id] = &chosen[..] {
            client.delete(&format!("/api/images/{id}"))
        } else {
            client.post("/api/images/delete", &json!({ "ids": chosen }))
        };
        let Some(reply) = unless_cut(reply)? else { return Ok(false) };
        ensure!(reply.status == 204 || reply.status == 200, "{reply:?}");
        for id in chosen {
            self.images.insert(id, Image::Gone);
            self.totals.deletions += 1;
        }
        Ok(true)
    }

    /// Takes over that a job is done, and gives its image.
    fn done(&mut self, id: String, job: &Value) -> Result<String> {
        let image = text(&job["image"]["id"])?;
        self.jobs.insert(id, Some(image.clone()));
        if !self.images.contains_key(&image) {
            self.images.insert(image.clone(), Image::There(None));
            self.order.push(image.clone());
            self.totals.images += 1;
        }
        Ok(image)
    }

    /// Compares a server that was started again with all that its predecessors said. What could be
    /// either is settled by it.
    fn verify(&mut self, client: Client) -> Result<()> {
        for (id, known) in self.jobs.clone() {
            let reply = client.get(&format!("/api/jobs/{id}"))?;
            let is = known.as_ref().and_then(|image| self.images.get(image).copied());
            if reply.status == 404 && matches!(is, Some(Image::Gone | Image::Either(_))) {
                continue;
            }
            ensure!(reply.status == 200 && is != Some(Image::Gone), "{id}, {is:?}: {reply:?}");
            let job = reply.json()?;
            if job["state"] == "done" {
                let image = self.done(id, &job)?;
                ensure!(known.is_none_or(|known| known == image), "another image: {job}");
            } else {
                ensure!(known.is_none(), "a job that was done is not any more: {job}");
                ensure!(job["state"] == "interrupted", "{job}");
                self.totals.interrupted += 1;
                self.jobs.remove(&id);
            }
        }
        let listed = self.adopt(client)?;
        for (image, is) in &mut self.images {
            let reply = client.get(&format!("/api/images/{image}/content"))?;
            let found = (reply.status == 200).then(|| digest(&reply.body));
            let known = match *is {
                Image::Gone => {
                    ensure!(reply.status == 404, "{image} is back: {reply:?}");
                    let reply = client.get(&format!("/api/images/{image}"))?;
                    ensure!(reply.status == 404, "{image} is back: {reply:?}");
                    None
                }
                Image::Either(known) if found.is_some() => known,
                Image::Either(_) => {
                    ensure!(reply.status == 404, "{image}: {reply:?}");
                    None
                }
                Image::There(known) => {
                    ensure!(found.is_some(), "{image} is lost: {}", reply.status);
                    known
                }
            };
            ensure!(known.is_none_or(|known| found == Some(known)), "{image} has changed");
            ensure!(listed.contains(image) == found.is_some(), "{image} and the list differ");
            *is = found.map_or(Image::Gone, |found| Image::There(Some(found)));
        }
        self.order = self
            .images
            .iter()
            .filter(|(_, is)| **is != Image::Gone)
            .map(|(id, _)| id.clone())
            .collect();
        // A deleted image takes its job along.
        self.jobs.retain(|_, image| {
            image.as_ref().is_none_or(|image| self.images.get(image) != Some(&Image::Gone))
        });
        Ok(())
    }

    /// Lists all images. One of a job whose 202 the kill swallowed is new here.
    fn adopt(&mut self, client: Client) -> Result<BTreeSet<String>> {
        let (mut listed, mut next) = (BTreeSet::new(), Some(String::new()));
        while let Some(cursor) = next {
            let page = client.get(&format!("/api/images?limit=50&cursor={cursor}"))?.json()?;
            for image in page["images"].as_array().context("a list")? {
                let (id, job) = (text(&image["id"])?, text(&image["job"])?);
                ensure!(listed.insert(id.clone()), "{id} is listed twice");
                if !self.images.contains_key(&id) {
                    ensure!(!self.jobs.contains_key(&job), "{id} of {job}, which is not done");
                    self.jobs.insert(job, Some(id.clone()));
                    self.images.insert(id, Image::There(None));
                }
            }
            next = page["next"].as_str().map(str::to_owned);
        }
        Ok(listed)
    }
}

#[test]
fn kill_9_loses_nothing_that_was_acknowledged_and_brings_nothing_back() -> Result<()> {
    let wanted = std::env::var("DARKROOM_CRASH_ROUNDS").ok();
    let rounds = wanted.map(|text| text.parse()).transpose().context("rounds")?.unwrap_or(ROUNDS);
    let program = std::env::var_os("DARKROOM_CRASH_PROGRAM").map(PathBuf::from);
    let mut place = program.map_or_else(Place::new, |program| Place::of(&program))?;
    let seed = fresh_seed()?;
    println!("seed {seed}");
    let checked = kill_and_compare(&place, rounds, seed);
    place.folder.disable_cleanup(checked.is_err());
    let (kills, totals) = checked.with_context(|| format!("in {}", place.path().display()))?;
    println!(
        "| kills (before it was ready) | images acknowledged (in files) | deletions acknowledged | \
         jobs interrupted | lost, changed or back | slowest start |\n\
         | {kills} ({}) | {} ({}) | {} | {} | 0 | {:.0} ms |",
        totals.in_starting,
        totals.images,
        totals.in_files,
        totals.deletions,
        totals.interrupted,
        totals.slowest_start.as_secs_f64() * 1e3,
    );
    ensure!(totals.enough(rounds), "too little was acknowledged");
    Ok(())
}

fn kill_and_compare(place: &Place, rounds: u64, seed: u64) -> Result<(u64, Totals)> {
    let mut ledger = Ledger::default();
    let mut usual_start = Duration::from_millis(200);
    let mut round = 0;
    // A slow machine gets more rounds, until there was enough to lose.
    while round < rounds || (round < 10 * rounds && !ledger.totals.enough(rounds)) {
        let dice = noise(seed ^ round, 64);
        if round % 3 == 2 {
            let process = Process::new(&mut place.command(&[]))?;
            thread::sleep(usual_start.mul_f64(1.1 * f64::from(dice[0]) / 255.0));
            let ready = process.said.find(super::READY).is_some();
            ledger.totals.in_starting += u64::from(!ready);
        } else {
            let started = Instant::now();
            let server = place.start(&[]).with_context(|| format!("round {round}"))?;
            let took = started.elapsed();
            ledger.totals.slowest_start = ledger.totals.slowest_start.max(took);
            usual_start = (usual_start + took.min(Duration::from_secs(2))) / 2;
            ledger.verify(server.client()).with_context(|| format!("round {round}"))?;
            let wait = Duration::from_millis(200 + u64::from(dice[0]) * 4);
            ledger = work_until_killed(ledger, server, wait, &dice)?;
        }
        round += 1;
    }
    let server = place.start(&[])?;
    ledger.verify(server.client())?;
    server.stop()?;
    Ok((round, ledger.totals))
}

/// Lets a client work for a while, and kills its server under it.
fn work_until_killed(
    mut ledger: Ledger,
    server: Server,
    wait: Duration,
    dice: &[u8],
) -> Result<Ledger> {
    let client = server.client();
    thread::scope(|scope| {
        let works = scope.spawn(|| ledger.work(client, dice));
        thread::sleep(wait);
        // Dropping it is a kill -9.
        drop(server);
        works.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
    })?;
    Ok(ledger)
}
