//! A picture that would be known again anywhere: its file, its rows of RGB, and the base64 of both.
//! No other run has the same, so whatever holds a piece of it has that from this run.

use super::super::{fresh_seed, picture};
use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Bytes of a piece.
const PIECE: usize = 32;
/// How far apart the places are at which bytes are compared with all pieces: of what is copied, any
/// 47 bytes that lie together are found.
const APART: usize = 16;
/// Bytes of a file that are searched at once, and how many of them again with the next.
const CHUNK: usize = 1 << 20;
const AGAIN: usize = 1 << 12;
/// How far the clock of a file system may be behind.
const TICK: Duration = Duration::from_secs(2);

/// The picture, and every piece of every encoding of it.
pub(super) struct Canary {
    pub(super) png: Vec<u8>,
    /// The encoding that a piece is of.
    pieces: HashMap<[u8; PIECE], &'static str>,
    /// Whether any piece begins with these two bytes: most places are passed by this.
    begins: Vec<bool>,
}

impl Canary {
    pub(super) fn new(side: u32) -> Result<Self> {
        let (pixels, png) = picture(fresh_seed()?, side)?;
        let begins = vec![false; 1 << 16];
        let mut canary = Self { png: png.clone(), pieces: HashMap::new(), begins };
        canary.add("the file", &png);
        canary.add("the rows", pixels.rgb());
        for start in 0..3 {
            // Base64 looks different at each of three offsets.
            canary.add("the file in base64", BASE64_STANDARD.encode(&png[start..]).as_bytes());
            let rows = BASE64_STANDARD.encode(&pixels.rgb()[start..]);
            canary.add("the rows in base64", rows.as_bytes());
        }
        Ok(canary)
    }

    fn add(&mut self, encoding: &'static str, bytes: &[u8]) {
        // How a file begins, any other of its kind and size has as well.
        for piece in bytes.windows(PIECE).skip(2 * PIECE) {
            let Some(piece) = piece.first_chunk() else { continue };
            self.pieces.insert(*piece, encoding);
            self.begins[first(piece)] = true;
        }
    }

    /// The encoding of a piece of the picture that is in `bytes`.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<&'static str> {
        let places = bytes.windows(PIECE).step_by(APART);
        let mut likely = places.filter(|place| self.begins[first(place)]);
        likely.find_map(|place| self.pieces.get(place).copied())
    }

    /// The files in these folders that were written since `started` and hold a piece, with its
    /// encoding.
    pub(super) fn scan(
        &self,
        folders: &[PathBuf],
        started: SystemTime,
    ) -> BTreeSet<(PathBuf, &'static str)> {
        let mut found = BTreeSet::new();
        for path in folders.iter().flat_map(|folder| files(folder)) {
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let late = metadata.modified().is_ok_and(|at| at + TICK >= started);
            if late && let Some(encoding) = self.find_in(&path) {
                found.insert((path, encoding));
            }
        }
        found
    }

    /// As `find`, in a file. One that is gone or somebody else's holds nothing of ours.
    fn find_in(&self, path: &Path) -> Option<&'static str> {
        let mut file = File::open(path).ok()?;
        let mut bytes = Vec::new();
        loop {
            let read = file.by_ref().take(CHUNK as u64).read_to_end(&mut bytes).ok()?;
            if let Some(encoding) = self.find(&bytes) {
                return Some(encoding);
            }
            if read == 0 {
                return None;
            }
            bytes.drain(..bytes.len().saturating_sub(AGAIN));
        }
    }
}

/// The first two bytes, as a number.
fn first(piece: &[u8]) -> usize {
    usize::from(piece[0]) << 8 | usize::from(piece[1])
}

/// Every plain file below a folder, as far as it can be looked into. Links are not followed.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}
