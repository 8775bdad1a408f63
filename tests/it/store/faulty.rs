//! A disk that fails when it is told to, remembers what it was given, and can lose its power: then
//! nothing is left of what was not synced.

use anyhow::{Context, Result};
use darkroom::store::{Disk, RealDisk, Rows};
use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

/// When to fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    /// The number of the operation, from 1.
    pub(super) operation: usize,
    /// Whether the operation happens all the same, and only its answer is an error.
    pub(super) happens: bool,
    /// Whether all later ones fail too, as after a crash.
    pub(super) for_good: bool,
}

/// A sync that says it was done and was not: what the tests must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    File,
    Folder,
    Rows,
}

/// What is left when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// All that was written: a process that was killed.
    Nothing,
    /// Of files and names what was synced, of sled's log everything: it went out early.
    Files,
    /// Of everything what was synced.
    All,
}

#[derive(Debug, Default)]
pub(super) struct Faulty {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    fault: Option<Fault>,
    lie: Option<Lie>,
    operations: usize,
    failed: bool,
    /// Files whose content is not on the disk, under their present names.
    unsynced: HashSet<PathBuf>,
    /// How to take back what happened to names since the last sync of their folder.
    undo: Vec<Undo>,
    /// sled's files as they were when its log was last synced.
    image: Vec<(PathBuf, Vec<u8>)>,
    largest: usize,
}

#[derive(Debug)]
enum Undo {
    Create(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf, Vec<u8>),
}

impl Faulty {
    pub(super) fn new(fault: Option<Fault>, lie: Option<Lie>) -> Self {
        Self { inner: Mutex::new(Inner { fault, lie, ..Inner::default() }) }
    }

    /// How many operations there were.
    pub(super) fn operations(&self) -> usize {
        self.inner().operations
    }

    /// The longest value that sled was given.
    pub(super) fn largest(&self) -> usize {
        self.inner().largest
    }

    /// What the folder of a closed store is after a crash.
    pub(super) fn crash(&self, rows: &Path, loss: Loss) -> Result<()> {
        let mut inner = self.inner();
        if loss == Loss::Nothing {
            return Ok(());
        }
        for path in &inner.unsynced {
            // The name may be there already, with only some of the content behind it.
            let bytes = fs::read(path)?;
            fs::write(path, &bytes[..bytes.len() / 2])?;
        }
        for undo in std::mem::take(&mut inner.undo).into_iter().rev() {
            match undo {
                Undo::Create(path) => fs::remove_file(path)?,
                Undo::Rename(from, to) => fs::rename(to, from)?,
                Undo::Remove(path, bytes) => fs::write(path, bytes)?,
            }
        }
        if loss == Loss::All && rows.exists() {
            fs::remove_dir_all(rows)?;
            for (path, bytes) in &inner.image {
                fs::create_dir_all(path.parent().context("a file has a folder")?)?;
                fs::write(path, bytes)?;
            }
        }
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no test panics with the disk locked")
    }

    /// Does one operation, or fails.
    fn operation<T>(
        &self,
        act: impl FnOnce(&mut Inner) -> io::Result<T>,
        half: impl FnOnce(),
    ) -> io::Result<T> {
        let mut inner = self.inner();
        inner.operations += 1;
        let now = inner.fault.filter(|fault| fault.operation == inner.operations);
        let later = inner.failed && inner.fault.is_some_and(|fault| fault.for_good);
        if now.is_none() && !later {
            return act(&mut inner);
        }
        inner.failed = true;
        if now.is_some_and(|fault| fault.happens) {
            act(&mut inner)?;
        } else if now.is_some() {
            half();
        }
        Err(io::Error::other("the disk failed"))
    }
}

impl Disk for Faulty {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.operation(|_| RealDisk.create_folder(path), || {})
    }

    fn create(&self, path: &Path, parts: &[&[u8]]) -> io::Result<File> {
        let act = |inner: &mut Inner| {
            let file = RealDisk.create(path, parts)?;
            inner.unsynced.insert(path.to_owned());
            inner.undo.push(Undo::Create(path.to_owned()));
            Ok(file)
        };
        // A full disk takes some of it.
        let half = || drop(fs::write(path, &parts.concat()[..parts.concat().len() / 2]));
        self.operation(act, half)
    }

    fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        let act = |inner: &mut Inner| {
            RealDisk.sync(file, path)?;
            if path.ends_with("rows/db") {
                if inner.lie != Some(Lie::Rows) {
                    let rows = path.parent().unwrap_or(path);
                    let files = super::files(rows).map_err(io::Error::other)?;
                    let read = |path: PathBuf| Ok((path.clone(), fs::read(path)?));
                    inner.image = files.into_iter().map(read).collect::<io::Result<_>>()?;
                }
            } else if inner.lie != Some(Lie::File) {
                inner.unsynced.remove(path);
            }
            Ok(())
        };
        self.operation(act, || {})
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let act = |inner: &mut Inner| {
            RealDisk.rename(from, to)?;
            if inner.unsynced.remove(from) {
                inner.unsynced.insert(to.to_owned());
            }
            inner.undo.push(Undo::Rename(from.to_owned(), to.to_owned()));
            Ok(())
        };
        self.operation(act, || {})
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let act = |inner: &mut Inner| {
            let bytes = fs::read(path)?;
            RealDisk.remove(path)?;
            inner.unsynced.remove(path);
            inner.undo.push(Undo::Remove(path.to_owned(), bytes));
            Ok(())
        };
        self.operation(act, || {})
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let act = |inner: &mut Inner| {
            RealDisk.sync_folder(path)?;
            if inner.lie != Some(Lie::Folder) && path.ends_with("blobs") {
                inner.undo.clear();
            }
            Ok(())
        };
        self.operation(act, || {})
    }

    fn commit(&self, rows: &Rows<'_>) -> io::Result<()> {
        let act = |inner: &mut Inner| {
            let lengths = rows.changes().filter_map(|(_, value)| value.map(<[u8]>::len));
            inner.largest = lengths.fold(inner.largest, usize::max);
            RealDisk.commit(rows)
        };
        self.operation(act, || {})
    }

    fn flush(&self, rows: &Rows<'_>) -> io::Result<()> {
        self.operation(|_| RealDisk.flush(rows), || {})
    }
}
