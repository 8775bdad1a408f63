//! The store in both modes: how fast pictures go in and out, and what they cost in memory and on the
//! disk.
//!
//!     cargo bench --bench store            300 pictures of 1.5 MB
//!     cargo bench --bench store -- 40      40 of them
//!
//! Each mode runs in a process of its own, so that one's memory is not counted for the other.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use anyhow::{Context, Result, ensure};
use darkroom::{
    domain::{ObjectId, OwnerId},
    store::{BlobMode, Change, Entry, Options, SledStore, Store, Time},
};
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const SIZE: usize = 1_500_000;
const OWNER: OwnerId = OwnerId::LOCAL;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [mode, count, folder] = &arguments[..] {
        let mode = BlobMode::ALL.into_iter().find(|m| m.name() == mode).context("a mode")?;
        return measure(mode, count.parse()?, Path::new(folder));
    }
    let count = arguments.first().map_or("300", String::as_str);
    println!(
        "{count} pictures of {:.1} MB, each acknowledged before the next\n\n\
         | blobs | put, MB/s | median put, ms | worst put, ms | read, MB/s | memory before reading, \
         MB | after | disk full, MB | after deleting all, ms | disk then, MB | reopened, ms | disk \
         then, MB |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        SIZE as f64 / 1e6
    );
    for mode in BlobMode::ALL {
        // Beside the build, which is on a disk; the system's temporary folder may be memory.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let child = Command::new(std::env::current_exe()?)
            .args([mode.name(), count, &folder.path().display().to_string()])
            .status()?;
        ensure!(child.success(), "the run with blobs = {:?} failed", mode.name());
    }
    Ok(())
}

fn measure(mode: BlobMode, count: u64, folder: &Path) -> Result<()> {
    let open = || -> Result<SledStore> {
        let options = Options { blobs: mode, ..Options::new(folder) };
        Ok(SledStore::open(options)?.0)
    };
    let total = count as f64 * SIZE as f64 / 1e6;
    let store = open()?;
    let mut times = Vec::new();
    for number in 0..count {
        let content = noise(number);
        let started = Instant::now();
        let entry = Entry::picture(id(number), Time::from_millis(number), b"record", &content);
        store.write(OWNER, &[Change::Add(entry)])?;
        times.push(started.elapsed());
    }
    let put: Duration = times.iter().sum();
    times.sort();
    let full = disk(&store)?;
    drop(store);

    let store = open()?;
    let before = memory()?;
    let started = Instant::now();
    for number in 0..count {
        let content = store.content(OWNER, id(number))?.context("a picture")?;
        ensure!(content.len() == SIZE, "picture {number}");
    }
    let read = started.elapsed();
    let after = memory()?;

    let ids: Vec<ObjectId> = (0..count).map(id).collect();
    let started = Instant::now();
    store.delete_pictures(OWNER, &ids)?;
    let delete = started.elapsed();
    let deleted = disk(&store)?;
    drop(store);
    let started = Instant::now();
    let store = open()?;
    let reopen = started.elapsed();
    println!(
        "| {} | {:.0} | {:.1} | {:.0} | {:.0} | {before:.0} | {after:.0} | {full:.0} | {:.0} | \
         {deleted:.1} | {:.0} | {:.1} |",
        mode.name(),
        total / put.as_secs_f64(),
        millis(times[times.len() / 2]),
        millis(times[times.len() - 1]),
        total / read.as_secs_f64(),
        millis(delete),
        millis(reopen),
        disk(&store)?,
    );
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn disk(store: &SledStore) -> Result<f64> {
    let used = store.disk_use()?;
    Ok((used.rows + used.blobs) as f64 / 1e6)
}

/// Resident memory in MB; 0 where there is no /proc.
fn memory() -> Result<f64> {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Ok(0.0) };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}

fn id(number: u64) -> ObjectId {
    // Spread over the keys, as random ones are.
    let number = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    ObjectId::from_bytes(number.to_be_bytes())
}

/// Bytes that cannot be compressed.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(SIZE).collect()
}
