//! kill -9 at random moments, also while the store opens: what was acknowledged is there.
//!
//! The child is this test binary again, told by an environment variable. It prints what it is about
//! to do and what was acknowledged; the parent kills it and compares. More rounds:
//! `benches/store_crash.sh`, or `DARKROOM_CRASH_ROUNDS=200 cargo test --test it -- kill`.

use super::{ANN, at, files, id, noise};
use anyhow::{Context, Result, bail, ensure};
use darkroom::{
    domain::ObjectId,
    store::{BlobMode, Change, Class, Entry, Options, Plain, RealDisk, SledStore, Store},
};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// The child's orders: `folder mode first-number`.
const ORDERS: &str = "DARKROOM_STORE_CHILD";
const ROUNDS: u64 = 20;

fn options(folder: &Path, mode: BlobMode) -> Options {
    let (sealer, disk) = (Arc::new(Plain), Arc::new(RealDisk));
    Options { folder: folder.to_owned(), blobs: mode, sealer, disk }
}

/// How large the picture of a number is: some in rows, most in files.
fn length(number: u64) -> usize {
    [500, 9_000, 20_000, 70_000, 150_000, 400_000][number as usize % 6]
}

/// In the child: writes and deletes until it is killed. Elsewhere: nothing.
#[test]
fn child() -> Result<()> {
    let Ok(orders) = std::env::var(ORDERS) else { return Ok(()) };
    let parts: Vec<&str> = orders.splitn(3, ' ').collect();
    let [mode, first, folder] = parts[..] else { bail!("orders: {orders}") };
    let mode = BlobMode::ALL.into_iter().find(|m| m.name() == mode).context("a mode")?;
    work(Path::new(folder), mode, first.parse()?).inspect_err(|error| {
        drop(tell(&format!("failed {error:#}")));
    })
}

fn tell(text: &str) -> std::io::Result<()> {
    std::io::stdout().write_all(format!("@{text}\n").as_bytes())
}

fn work(folder: &Path, mode: BlobMode, first: u64) -> Result<()> {
    tell("opening")?;
    let (store, report) = SledStore::open(options(folder, mode))?;
    ensure!(report.lost.is_empty() && report.unreadable.is_empty(), "{report}");
    tell("opened")?;
    let mut old: Vec<u64> = Vec::new();
    for number in first.. {
        let content = noise(number, length(number));
        let record = number.to_string();
        let entry = Entry::picture(id(number), at(number), record.as_bytes(), &content);
        tell(&format!("put {number}"))?;
        store.write(ANN, &[Change::Add(entry)])?;
        tell(&format!("done put {number}"))?;
        old.push(number);
        if number % 3 == 0 && old.len() > 2 {
            // Two in one call, of which one may be a neighbour of what was just written.
            let gone = [old.remove(0), old.remove(0)];
            tell(&format!("delete {} {}", gone[0], gone[1]))?;
            store.delete_pictures(ANN, &gone.map(id))?;
            tell(&format!("done delete {} {}", gone[0], gone[1]))?;
        }
    }
    Ok(())
}

/// What the parent knows of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Present,
    Absent,
    /// Killed in the middle.
    Either,
}

#[derive(Default)]
struct Totals {
    puts: u64,
    deletes: u64,
    in_opening: u64,
    slowest_open: Duration,
}

struct Running(Child);

impl Drop for Running {
    /// Also when a check fails: no child outlives its parent's test.
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(folder: &Path, mode: BlobMode, first: u64) -> Result<(Running, ChildStdout)> {
    let name = format!("{}::child", module_path!());
    let name = name.split_once("::").context("a path")?.1;
    let mut child = Command::new(std::env::current_exe()?)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ORDERS, format!("{} {first} {}", mode.name(), folder.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let out = child.stdout.take().context("a pipe")?;
    Ok((Running(child), out))
}

/// Takes over what the child said. Gives the last number that it began, and whether it had opened.
fn learn(
    out: ChildStdout,
    known: &mut BTreeMap<u64, Known>,
    totals: &mut Totals,
) -> Result<(u64, bool)> {
    let (mut last, mut opened) = (0, false);
    for line in BufReader::new(out).lines() {
        let line = line?;
        // The test harness begins lines of its own, and the kill may have cut the last one.
        let Some((_, said)) = line.split_once('@') else { continue };
        let words: Vec<&str> = said.split(' ').collect();
        let numbers: Vec<u64> = words.iter().filter_map(|word| word.parse().ok()).collect();
        match words[0] {
            "opened" => opened = true,
            "put" => last = *numbers.first().context("a number")?,
            "failed" => bail!("the child failed before it was killed: {said}"),
            _ => {}
        }
        let (state, done) = match (words[0], words.get(1)) {
            ("put" | "delete", _) => (Known::Either, false),
            ("done", Some(&"put")) => (Known::Present, true),
            ("done", Some(&"delete")) => (Known::Absent, true),
            _ => continue,
        };
        known.extend(numbers.iter().map(|number| (*number, state)));
        if done && state == Known::Present {
            totals.puts += 1;
        } else if done {
            totals.deletes += numbers.len() as u64;
        }
    }
    Ok((last, opened))
}

/// Opens what the kill left, and compares. What could be either is settled by it.
fn verify(
    folder: &Path,
    mode: BlobMode,
    known: &mut BTreeMap<u64, Known>,
    totals: &mut Totals,
) -> Result<()> {
    let started = Instant::now();
    let (store, report) = SledStore::open(options(folder, mode))?;
    totals.slowest_open = totals.slowest_open.max(started.elapsed());
    ensure!(report.lost.is_empty() && report.unreadable.is_empty(), "{report}");
    let mut blobs = 0;
    for (number, state) in known.iter_mut() {
        let content = store.content(ANN, id(*number))?;
        let is = if content.is_some() { Known::Present } else { Known::Absent };
        ensure!(*state == Known::Either || *state == is, "{number} was {state:?} and is {is:?}");
        if let Some(content) = content {
            ensure!(content == noise(*number, length(*number)), "{number} changed");
            let record: Option<Vec<u8>> = store.record((ANN, Class::Picture, id(*number)))?;
            ensure!(record == Some(number.to_string().into_bytes()), "the record of {number}");
            blobs += usize::from(length(*number) > 16_384 && mode == BlobMode::Files);
        }
        *state = is;
    }
    let present = known.values().filter(|state| **state == Known::Present).count() as u64;
    ensure!(store.usage(ANN).pictures == present, "the usage is not {present}");
    let left = files(&folder.join("blobs"))?.len();
    ensure!(left == blobs, "{left} files for {blobs} pictures");
    // Room for the next round: most of it goes, and a part stays for ever.
    let ids: Vec<ObjectId> = known
        .iter()
        .filter(|(number, state)| **state == Known::Present && **number % 5 != 0)
        .map(|(number, _)| id(*number))
        .collect();
    store.delete_pictures(ANN, &ids)?;
    for state in known.iter_mut().filter(|(number, _)| ids.contains(&id(**number))) {
        *state.1 = Known::Absent;
    }
    Ok(())
}

fn rounds(mode: BlobMode) -> Result<()> {
    let wanted = std::env::var("DARKROOM_CRASH_ROUNDS").ok();
    let rounds = wanted.map(|text| text.parse()).transpose().context("rounds")?.unwrap_or(ROUNDS);
    let mut folder = tempfile::tempdir()?;
    let (mut known, mut totals, mut first) = (BTreeMap::new(), Totals::default(), 1);
    let seed = std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64;
    let (mut round, mut open_time) = (0, Duration::from_millis(60));
    // A slow machine gets more rounds, until there was enough to lose.
    while round < rounds || (round < 10 * rounds && (totals.puts < 110 || totals.deletes < 30)) {
        let dice = noise(seed ^ round, 2);
        let (child, out) = start(folder.path(), mode, first)?;
        let started = Instant::now();
        // Every third round ends before or while the store opens.
        let share = f64::from(dice[0]) / 255.0;
        let wait = if round % 3 == 2 {
            open_time.mul_f64(1.2 * share)
        } else {
            open_time + Duration::from_millis(30 + u64::from(dice[1]) * 2)
        };
        thread::sleep(wait.saturating_sub(started.elapsed()));
        drop(child);
        let (last, opened) = learn(out, &mut known, &mut totals)?;
        totals.in_opening += u64::from(!opened);
        first = first.max(last + 1);
        let started = Instant::now();
        let verified = verify(folder.path(), mode, &mut known, &mut totals);
        folder.disable_cleanup(verified.is_err());
        verified.with_context(|| format!("round {round}, kept in {}", folder.path().display()))?;
        open_time = (open_time + started.elapsed().min(Duration::from_millis(300))) / 2;
        round += 1;
    }
    println!(
        "blobs = {}: {round} kills, {} of them before the store was open; {} pictures and {} \
         deletions acknowledged; slowest opening {:.0} ms; seed {seed}",
        mode.name(),
        totals.in_opening,
        totals.puts,
        totals.deletes,
        totals.slowest_open.as_secs_f64() * 1e3,
    );
    ensure!(totals.puts >= 110 && totals.deletes >= 30, "too little was acknowledged");
    Ok(())
}

#[test]
fn kill_9_loses_nothing_and_brings_nothing_back_with_files() -> Result<()> {
    rounds(BlobMode::Files)
}

#[test]
fn kill_9_loses_nothing_and_brings_nothing_back_with_sled() -> Result<()> {
    rounds(BlobMode::Sled)
}
