//! The store: one contract for every mode, faults at every operation, repairs, crashes.

mod concurrent;
mod contract;
mod crash;
mod faults;
mod faulty;
mod format;
mod repair;
mod seals;

use crate::support::noise;
use anyhow::{Context, Result, ensure};
use darkroom::{
    domain::{ObjectId, OwnerId},
    store::{
        BlobMode, Change, Disk, Entry, Options, Plain, RealDisk, Sealer, SledStore, Store,
        SweepReport, Time,
    },
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

const ANN: OwnerId = OwnerId::from_bytes([0xaa; 16]);
const BOB: OwnerId = OwnerId::from_bytes([0xbb; 16]);

/// A store in a folder of its own, which can be closed and opened again.
struct Fixture {
    folder: TempDir,
    mode: BlobMode,
    sealer: Arc<dyn Sealer>,
    disk: Arc<dyn Disk>,
    store: Option<SledStore>,
}

impl Fixture {
    fn new(mode: BlobMode) -> Result<Self> {
        Self::with(mode, Arc::new(Plain), Arc::new(RealDisk))
    }

    fn with(mode: BlobMode, sealer: Arc<dyn Sealer>, disk: Arc<dyn Disk>) -> Result<Self> {
        let mut fixture = Self { folder: tempfile::tempdir()?, mode, sealer, disk, store: None };
        fixture.reopen()?;
        Ok(fixture)
    }

    fn options(&self) -> Options {
        Options {
            folder: self.folder.path().join("store"),
            blobs: self.mode,
            sealer: self.sealer.clone(),
            disk: self.disk.clone(),
        }
    }

    fn blobs(&self) -> PathBuf {
        self.options().folder.join("blobs")
    }

    fn rows(&self) -> PathBuf {
        self.options().folder.join("rows")
    }

    fn reopen(&mut self) -> Result<SweepReport> {
        self.store = None;
        let (store, report) = SledStore::open(self.options())?;
        self.store = Some(store);
        Ok(report)
    }

    fn close(&mut self) {
        self.store = None;
    }

    fn store(&self) -> &SledStore {
        self.store.as_ref().expect("the fixture's store is open")
    }
}

/// Runs a test in every mode.
fn each(test: impl Fn(&mut Fixture) -> Result<()>) -> Result<()> {
    for mode in BlobMode::ALL {
        let mut fixture = Fixture::new(mode)?;
        test(&mut fixture).with_context(|| format!("with blobs = {:?}", mode.name()))?;
    }
    Ok(())
}

/// The id with this number.
fn id(number: u64) -> ObjectId {
    ObjectId::from_bytes(u128::from(number).to_be_bytes())
}

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// Puts a picture made at `number`, whose record is its number as a text.
fn put(store: &dyn Store, owner: OwnerId, number: u64, length: usize) -> Result<Vec<u8>> {
    let content = noise(number, length);
    let record = number.to_string();
    let entry = Entry::picture(id(number), at(number), record.as_bytes(), &content);
    store.write(owner, &[Change::Add(entry)])?;
    Ok(content)
}

/// Checks that an error says all of `parts`.
fn says<T: std::fmt::Debug>(
    result: Result<T, darkroom::store::StoreError>,
    parts: &[&str],
) -> Result<()> {
    let error = result.err().context("no error")?.to_string();
    for part in parts {
        ensure!(error.contains(part), "{part:?} is not in: {error}");
    }
    Ok(())
}

/// Opens the database itself. sled gives up the lock of a closed one a little later.
fn open_sled(rows: &Path) -> Result<sled::Db> {
    let config = sled::Config::new().path(rows).segment_size(2 << 20);
    for _ in 0..50 {
        if let Ok(db) = config.open() {
            return Ok(db);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(config.open()?)
}

/// All files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// Whether `marker` stands anywhere in a folder's files, or in their names.
fn holds(folder: &Path, marker: &[u8]) -> Result<bool> {
    for path in files(folder)? {
        let name = path.as_os_str().as_encoded_bytes();
        for text in [name, &std::fs::read(&path)?] {
            if text.windows(marker.len()).any(|window| window == marker) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
