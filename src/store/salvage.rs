//! Making a store readable again whose database does not open.
//!
//! The database is put aside, and the list of pictures is made anew from the headers of their
//! files. What lay in the database alone is gone then: pictures of less than 16 KiB, all of
//! `blobs = "sled"`, jobs, and idempotency keys.

use super::{
    BlobMode, Class, Kind, Options, SledStore, State, StoreError,
    blob::{Blobs, Header, ReadError, body},
    database::{ROWS, open_database},
    disk::{Rows, failed},
    key,
    row::{Row, Slot, ValueId},
};
use crate::domain::{ObjectId, OwnerId};
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

/// What salvaging did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Where the database was put, if its list had to be made anew.
    pub database: Option<PathBuf>,
    /// Pictures that are on the new list.
    pub pictures: usize,
    /// Files whose header or content is damaged, put beside the old database.
    pub damaged: Vec<PathBuf>,
}

/// Makes the store of a folder readable again, as far as its files allow. Nobody may have it open.
///
/// # Errors
/// The folder is in use, or the disk fails.
pub fn salvage(options: &Options) -> Result<SalvageReport, StoreError> {
    let mut report = SalvageReport::default();
    let rows = options.folder.join(ROWS);
    let disk = &*options.disk;
    match SledStore::open(options.clone()) {
        Err(StoreError::Corrupt { .. }) => {}
        other => return other.map(|_| report),
    }
    let aside = free_name(&options.folder);
    disk.rename(&rows, &aside).map_err(failed("rename", &rows))?;
    disk.sync_folder(&options.folder).map_err(failed("sync", &options.folder))?;
    let blobs = Blobs::new(options.folder.join(super::database::BLOBS));
    let found = collect(options, &blobs, &aside, &mut report)?;
    // An empty store first: it has the format, and no file is an orphan before its row is there.
    let kept = Options { folder: aside.join("empty"), blobs: BlobMode::Files, ..options.clone() };
    drop(SledStore::open(kept.clone())?);
    let db = open_database(&kept.folder, &kept.folder.join(ROWS), disk)?;
    let tree = db.open_tree(super::schema::ENTRIES).map_err(StoreError::Database)?;
    for ((owner, class, id), row) in found {
        let mut batch = Rows::new(&tree);
        batch.put(key::entry(owner, class, id), row.encode());
        if class != Class::Key {
            batch.put(key::time(owner, class, row.created, id), []);
        }
        disk.commit(&batch).map_err(failed("write to", &kept.folder))?;
        report.pictures += usize::from(class == Class::Picture);
    }
    let path = kept.folder.join(ROWS).join("db");
    let file = File::open(&path).map_err(failed("open", &path))?;
    disk.flush(&Rows::new(&tree))
        .and_then(|()| disk.sync(&file, &path))
        .map_err(failed("sync", &path))?;
    drop((tree, db));
    // The new list takes the old one's place at once and whole.
    disk.rename(&kept.folder.join(ROWS), &rows).map_err(failed("rename", &rows))?;
    disk.sync_folder(&options.folder).map_err(failed("sync", &options.folder))?;
    report.database = Some(aside);
    Ok(report)
}

type Found = BTreeMap<(OwnerId, Class, ObjectId), Row>;

/// Reads every blob file, and puts the damaged ones aside.
fn collect(
    options: &Options,
    blobs: &Blobs,
    aside: &Path,
    report: &mut SalvageReport,
) -> Result<Found, StoreError> {
    let mut found = Found::new();
    let mut records = Vec::new();
    for file in blobs.list()?.0 {
        let path = blobs.path(file);
        match read(&path, file) {
            Ok((header, slot)) => {
                let at = (header.owner, header.class, header.object);
                if header.kind == Kind::Content {
                    found.insert(at, Row { content: slot, ..header.row });
                } else {
                    records.push((at, header, slot));
                }
            }
            Err(ReadError::Io(error)) => return Err(failed("read", &path)(error)),
            Err(ReadError::Damaged(_)) => {
                let to = aside.join(path.file_name().unwrap_or_default());
                options.disk.rename(&path, &to).map_err(failed("rename", &path))?;
                report.damaged.push(to);
            }
        }
    }
    for (at, header, slot) in records {
        // A record that is a file of its own: of a picture that has a row by now, or of a job.
        let row = found.entry(at).or_insert(header.row);
        row.record = slot;
    }
    for row in found.values_mut() {
        if row.state.unfinished() {
            row.state = State::Interrupted;
        }
    }
    Ok(found)
}

fn read(path: &Path, file: ValueId) -> Result<(Header, Slot), ReadError> {
    let mut open = File::open(path).map_err(ReadError::Io)?;
    let header = Header::read(&mut open)?;
    let (length, crc) = (header.length, header.crc);
    body(&mut open, length, crc)?;
    Ok((header, Slot::File { file, length, crc }))
}

/// A name for the old database that is not taken.
fn free_name(folder: &Path) -> PathBuf {
    let names = (1_u64..).map(|number| folder.join(format!("rows.damaged-{number}")));
    names.into_iter().find(|path| !path.exists()).unwrap_or_else(|| folder.join("rows.damaged"))
}
