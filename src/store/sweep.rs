//! What opening repairs: the two kinds of orphan that a crash, or someone in the folder, leaves.
//!
//! A file that no row names is the rest of a write or a deletion that was never acknowledged: it is
//! deleted. A row whose file is gone or cut short is a picture that was lost: its entry says so from
//! then on, and the report names it. If the file comes back, so does the picture.

use super::{
    Class, SledStore, State, Store, StoreError, Usage, blob::Blobs, blob::Header, blob::ReadError,
    disk::failed, row::Row, row::Slot, row::ValueId, write,
};
use crate::domain::{ObjectId, OwnerId};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    fs::File,
};

/// What the sweep found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepReport {
    /// Entries that were looked at.
    pub entries: u64,
    /// Files of writes that were never finished, deleted.
    pub unfinished_files: u64,
    /// Values in sled whose deletion was not finished, deleted.
    pub unfinished_deletions: u64,
    /// Files that no entry named, deleted.
    pub orphaned_files: u64,
    /// Entries that were marked as lost just now, because their file is gone or cut short.
    pub lost: Vec<(OwnerId, ObjectId)>,
    /// Entries whose lost file is there again.
    pub found_again: Vec<(OwnerId, ObjectId)>,
    /// Entries that cannot be read. While there is one, no file is taken for an orphan.
    pub unreadable: Vec<(OwnerId, ObjectId)>,
    /// Files that may be orphans, kept because of unreadable entries.
    pub kept_files: u64,
    /// Files in the folder that are not the store's. They are left alone.
    pub foreign_files: u64,
}

impl fmt::Display for SweepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries", self.entries)?;
        for (count, what) in [
            (self.unfinished_files, "unfinished files deleted"),
            (self.unfinished_deletions, "unfinished deletions finished"),
            (self.orphaned_files, "files without an entry deleted"),
            (self.lost.len() as u64, "pictures lost: their files are gone or cut short"),
            (self.found_again.len() as u64, "lost pictures found again"),
            (self.unreadable.len() as u64, "entries cannot be read"),
            (self.kept_files, "files without an entry kept, as some entries cannot be read"),
            (self.foreign_files, "files that are not the store's left alone"),
        ] {
            if count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        Ok(())
    }
}

pub(super) fn sweep(store: &SledStore) -> Result<SweepReport, StoreError> {
    let mut report = SweepReport::default();
    let (files, strangers) = store.blobs.list()?;
    let mut orphans: HashSet<ValueId> = files.into_iter().collect();
    let mut ledger = HashMap::new();
    let (mut lost, mut found) = (Vec::new(), Vec::new());
    for owner in store.owners()? {
        let mut usage = Usage::default();
        report.unfinished_deletions += store.clean_garbage(owner)?;
        for class in Class::ALL {
            for entry in store.entries(owner, class) {
                let (id, row) = entry?;
                report.entries += 1;
                let Ok(row) = row else {
                    report.unreadable.push((owner, id));
                    continue;
                };
                write::add(&mut usage, class, &row, 1);
                let there = files_are_there(store, &row, &mut orphans)?;
                match (there, row.state == State::Lost) {
                    (true, true) => found.push((owner, class, id)),
                    (false, false) => lost.push((owner, class, id)),
                    _ => {}
                }
            }
        }
        ledger.insert(owner, usage);
    }
    store.set_states(&lost, State::Lost)?;
    // How a lost job stood is not known any more.
    let (jobs, others): (Vec<_>, Vec<_>) = found.iter().partition(|at| at.1 == Class::Job);
    store.set_states(&jobs, State::Interrupted)?;
    store.set_states(&others, State::Stored)?;
    report.lost = lost.iter().map(|(owner, _, id)| (*owner, *id)).collect();
    report.found_again = found.iter().map(|(owner, _, id)| (*owner, *id)).collect();
    delete_files(store, &orphans, &strangers, &mut report)?;
    *super::database::lock(&store.ledger) = ledger;
    if report.changed() {
        tracing::warn!("store swept: {report}");
    }
    Ok(report)
}

impl SweepReport {
    /// Whether there was anything to repair or to tell.
    pub fn changed(&self) -> bool {
        *self != Self { entries: self.entries, ..Self::default() }
    }
}

/// Whether all files of an entry are there in full length. What it names is no orphan in any case.
fn files_are_there(
    store: &SledStore,
    row: &Row,
    orphans: &mut HashSet<ValueId>,
) -> Result<bool, StoreError> {
    let mut there = true;
    for slot in [&row.record, &row.content] {
        let Slot::File { file, length, .. } = slot else { continue };
        // Only the first bytes are read: whether the rest is what was written, reading it tells.
        there &= orphans.remove(file) && whole(store, *file, *length)?;
    }
    Ok(there)
}

fn whole(store: &SledStore, file: ValueId, length: u64) -> Result<bool, StoreError> {
    let path = store.blobs.path(file);
    let read = |error| failed("read", &path)(error);
    let mut open = File::open(&path).map_err(read)?;
    let size = open.metadata().map_err(read)?.len();
    match Header::read(&mut open) {
        Ok(header) => Ok(header.length == length && header.file_length() == size),
        Err(ReadError::Damaged(_)) => Ok(false),
        Err(ReadError::Io(error)) => Err(read(error)),
    }
}

fn delete_files(
    store: &SledStore,
    orphans: &HashSet<ValueId>,
    others: &[std::path::PathBuf],
    report: &mut SweepReport,
) -> Result<(), StoreError> {
    let remove = |path: &std::path::Path| store.disk.remove(path).map_err(failed("delete", path));
    for path in others {
        if Blobs::unfinished(path) {
            remove(path)?;
            report.unfinished_files += 1;
        } else {
            report.foreign_files += 1;
        }
    }
    if report.unreadable.is_empty() {
        orphans.iter().try_for_each(|file| remove(&store.blobs.path(*file)))?;
        report.orphaned_files = orphans.len() as u64;
    } else {
        report.kept_files = orphans.len() as u64;
    }
    if report.unfinished_files + report.orphaned_files > 0 {
        store.blobs.sync(&*store.disk)?;
    }
    Ok(())
}
