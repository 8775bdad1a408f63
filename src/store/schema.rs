//! What the store says of itself: the format of the folder, and a salt.

use super::{
    StoreError,
    disk::{Disk, Rows, failed},
};
use crate::domain::{ObjectId, OwnerId};
use sha2::{Digest, Sha256};
use std::{fs::File, path::Path};

/// The tree of the entries.
pub(super) const ENTRIES: &str = "entries";
/// The tree of what is not an owner's.
const STORE: &str = "store";
/// The row with the format and the salt: `format 4, big-endian · salt 32`.
const FORMAT_ROW: &[u8] = b"format";
/// The format that this Darkroom writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// Bytes of the salt.
pub(super) const SALT: usize = 32;

/// Checks the format, or writes it into a new store. Gives the salt.
pub(super) fn check(
    folder: &Path,
    db: &sled::Db,
    disk: &dyn Disk,
    (file, path): (&File, &Path),
    has_blobs: bool,
) -> Result<[u8; SALT], StoreError> {
    let tree = db.open_tree(STORE).map_err(StoreError::Database)?;
    let corrupt =
        |reason: &str| StoreError::Corrupt { folder: folder.to_owned(), reason: reason.to_owned() };
    if let Some(row) = tree.get(FORMAT_ROW).map_err(StoreError::Database)? {
        let (format, salt) = row.split_first_chunk().ok_or_else(|| corrupt("its format row"))?;
        let found = u32::from_be_bytes(*format);
        if found > FORMAT {
            return Err(StoreError::NewerStore { folder: folder.to_owned(), found, known: FORMAT });
        }
        return salt.try_into().map_err(|_| corrupt("its format row has no salt"));
    }
    // Made before anything else, so what is there without it is the rest of a damaged store. An
    // empty list must never make orphans of all files.
    let entries = db.open_tree(ENTRIES).map_err(StoreError::Database)?;
    if has_blobs || !entries.is_empty() {
        return Err(corrupt("there are pictures, but the database does not know them"));
    }
    let mut salt = [0; SALT];
    getrandom::fill(&mut salt).map_err(StoreError::Random)?;
    let mut rows = Rows::new(&tree);
    rows.put(FORMAT_ROW, [&FORMAT.to_be_bytes()[..], &salt].concat());
    disk.commit(&rows)
        .and_then(|()| disk.flush(&rows))
        .and_then(|()| disk.sync(file, path))
        .map_err(failed("write to", folder))?;
    Ok(salt)
}

/// The id that a client's text is found by: salted, so that it says nothing without the folder.
pub(super) fn hashed(salt: &[u8; SALT], owner: OwnerId, text: &str) -> ObjectId {
    let hash = Sha256::new().chain_update(salt).chain_update(owner.as_bytes());
    let hash: [u8; 32] = hash.chain_update(text).finalize().into();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    ObjectId::from_bytes(id)
}
