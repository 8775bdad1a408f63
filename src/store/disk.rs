//! The one place that every write of the store passes: files, rows, and their way to the platter.
//!
//! Each method does the real thing unless it is overridden. A test overrides them to record, to
//! fail, and to forget what was not synced; nothing else in the store may write.

use super::StoreError;
use std::{
    fmt::Debug,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

/// Every way in which the store changes the disk.
pub trait Disk: Debug + Send + Sync {
    /// Makes a folder and those above it.
    ///
    /// # Errors
    /// The system's.
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700); // pictures are nobody else's
        builder.recursive(true).create(path)
    }

    /// Makes a new file of `parts`, without syncing it.
    ///
    /// # Errors
    /// The system's, also when the file is there already.
    fn create(&self, path: &Path, parts: &[&[u8]]) -> io::Result<File> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        Ok(file)
    }

    /// Returns when the content and length of an open file are on the disk.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self, file: &File, _path: &Path) -> io::Result<()> {
        file.sync_all()
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Returns when the names in a folder are on the disk.
    ///
    /// # Errors
    /// The system's.
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Hands rows to the database, all or none, without flushing them.
    ///
    /// # Errors
    /// The database's.
    fn commit(&self, rows: &Rows<'_>) -> io::Result<()> {
        rows.apply()
    }

    /// Returns when the database has written all its rows to its file; see [`Disk::sync`] for the
    /// rest of their way.
    ///
    /// # Errors
    /// The database's.
    fn flush(&self, rows: &Rows<'_>) -> io::Result<()> {
        rows.tree.flush()?;
        Ok(())
    }
}

/// The disk as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}

/// Rows to put into the database, or to remove from it.
#[derive(Debug)]
pub struct Rows<'a> {
    tree: &'a sled::Tree,
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl<'a> Rows<'a> {
    pub(super) const fn new(tree: &'a sled::Tree) -> Self {
        Self { tree, changes: Vec::new() }
    }

    pub(super) fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), Some(value.into())));
    }

    pub(super) fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), None));
    }

    /// Every key, with its value where it is put and not removed. A later one of a key counts.
    pub fn changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.changes.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    fn apply(&self) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for (key, value) in self.changes() {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        Ok(self.tree.apply_batch(batch)?)
    }
}

/// The error of an operation on `path`.
pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { what, path: path.to_owned(), source }
}
