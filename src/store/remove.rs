//! Removing values whose entry is gone: files from their folder, chunks from sled.
//!
//! Their rows are gone before, on the disk as well, so a crash in between leaves values that nobody
//! names. Of files the sweep finds those by itself; for chunks a row says so until they are gone.

use super::{
    SledStore, StoreError,
    database::lock,
    disk::{Rows, failed},
    key,
    row::{Row, Slot, ValueId},
};
use crate::domain::{ObjectId, OwnerId};
use std::io;

/// Chunks that are removed at once. In one large batch the deletion itself needs room: the file of
/// 300 deleted pictures grew from 619 to 1140 MB by it, and hardly in small ones.
const BATCH: usize = 64;

/// A value whose entry is gone.
#[derive(Clone, Copy, Debug)]
pub(super) enum Obsolete {
    File(ValueId),
    Chunks(OwnerId, ObjectId, ValueId),
}

impl Obsolete {
    /// The values of a row that lie outside it.
    pub(super) fn of(owner: OwnerId, id: ObjectId, row: &Row) -> Vec<Self> {
        let value = |slot: &Slot| match slot {
            Slot::File { file, .. } => Some(Self::File(*file)),
            Slot::Chunks { value, .. } => Some(Self::Chunks(owner, id, *value)),
            Slot::Nothing | Slot::Inline(_) => None,
        };
        [&row.record, &row.content].into_iter().filter_map(value).collect()
    }
}

impl SledStore {
    /// Removes values, also those that an earlier call could not remove.
    pub(super) fn clean(&self, obsolete: Vec<Obsolete>) -> Result<(), StoreError> {
        let mut all = std::mem::take(&mut *lock(&self.leftovers));
        all.extend(obsolete);
        let removed = self.clean_files(&all);
        let removed = removed.and_then(|()| self.clean_chunks(&all));
        // A deletion is not acknowledged before it happened; all of them are tried again.
        removed.inspect_err(|_| lock(&self.leftovers).extend(all))
    }

    fn clean_files(&self, obsolete: &[Obsolete]) -> Result<(), StoreError> {
        let (mut first, mut removed) = (Ok(()), false);
        for value in obsolete {
            let Obsolete::File(file) = value else { continue };
            let path = self.blobs.path(*file);
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    first = first.and(Err(failed("delete", &path)(error)));
                }
                _ => removed = true,
            }
        }
        if removed {
            first = first.and(self.blobs.sync(&*self.disk));
        }
        first
    }

    fn clean_chunks(&self, obsolete: &[Obsolete]) -> Result<(), StoreError> {
        let mut last = None;
        for value in obsolete {
            let Obsolete::Chunks(owner, id, value) = *value else { continue };
            self.check_writable()?;
            let prefix = [&key::chunks(owner, id)[..], &value].concat();
            let keys = self.rows.scan_prefix(prefix).keys().collect::<Result<Vec<_>, _>>();
            for keys in keys.map_err(StoreError::Database)?.chunks(BATCH) {
                let mut rows = Rows::new(&self.rows);
                keys.iter().for_each(|key| rows.remove(key.to_vec()));
                self.commit_rows(&rows)?;
                self.disk.flush(&rows).map_err(failed("write to", &self.folder))?;
            }
            let mut rows = Rows::new(&self.rows);
            rows.remove(key::garbage(owner, id, value));
            last = Some(self.commit_rows(&rows)?);
        }
        last.map_or(Ok(()), |number| self.make_durable(number))
    }

    /// The values of an owner whose chunks a crash left. Gives how many there were.
    pub(super) fn clean_garbage(&self, owner: OwnerId) -> Result<u64, StoreError> {
        let mut found = Vec::new();
        for key in self.rows.scan_prefix(key::garbages(owner)).keys() {
            let value = key::read_garbage(&key.map_err(StoreError::Database)?);
            found.extend(value.map(|(id, value)| Obsolete::Chunks(owner, id, value)));
        }
        let count = found.len() as u64;
        self.clean(found)?;
        Ok(count)
    }
}
