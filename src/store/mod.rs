//! What is kept: pictures, jobs and idempotency keys, as bytes that their owner's seal protects.
//!
//! `service` and `accounts` call it, through [`Store`]; it knows neither HTTP nor what is in a
//! record. It blocks, so callers on an async runtime use a thread for it. It is the only module that
//! names sled, and [`Disk`] is the only way in which it writes.
//!
//! # On the disk
//!
//! ```text
//! <folder>/rows/                sled 0.34.7: `db` is its log, `snap.*` its start
//! <folder>/blobs/<file>.blob    a sealed value of more than 16 KiB; <file> is 32 random digits
//! <folder>/blobs/<file>.part    one that is not yet written to its end
//! ```
//!
//! sled has two trees. `store` holds the row `format`: the format of the folder and a salt.
//! `entries` holds everything else, and every key in it begins with the owner's 16 bytes:
//!
//! ```text
//! owner · p, j or k · id             an entry: a picture, a job, an idempotency key   (row.rs)
//! owner · t · class · !time · id     nothing: the list of a class, newest first       (key.rs)
//! owner · c · id · value · number    16 KiB of a sealed value, with blobs = "sled"
//! owner · g · id · value             nothing: the chunks of this value are to go
//! ```
//!
//! In the clear are owner, id, class, state, size, times, and where a value lies: what retention,
//! quotas and repairs need while nobody is signed in. Everything else of an entry is one record
//! under one seal ([`Sealer`]), and the content of a picture is another. There is no index on what a
//! record says. The key of an idempotency key is a salted hash of the client's text.
//!
//! Values of more than 16 KiB lie in files because sled keeps what it reads in memory and hardly
//! gives back the room of large values. A row says where each value lies, so a store may be opened
//! in either mode and finds what the other one wrote.
//!
//! # What is promised, and why it holds
//!
//! A write returns when it is on the disk: files are written under a temporary name, synced, renamed,
//! and their folder synced; then one batch of rows goes to sled, which applies it whole or not at
//! all; then sled's log is flushed and synced, which its own flush leaves to the system; then the
//! files and chunks that no entry names any more are removed, and that is synced. So
//!
//! | a crash | leaves | and opening |
//! | --- | --- | --- |
//! | before the rename | a `.part` file | deletes it |
//! | while sled writes a snapshot | a `.generating` file | deletes it, as sled stumbles over it |
//! | before the rows are on the disk | a file that no row names | deletes it |
//! | after that, before the values of a deletion are gone | them, and `g` rows for chunks | deletes them |
//!
//! and in each case nothing was acknowledged: a picture that was is whole, a deleted one is gone.
//! After an error in handing rows to sled or in syncing them nobody knows what the disk holds, so
//! the store takes no further write until it is opened again.
//!
//! Deleting removes rows and files. It does not overwrite what sled's log or the disk's free blocks
//! still hold: only the destruction of a key can do that, and that comes with the vault.
//!
//! **Invariant:** no byte of a record or a content reaches the disk but through a [`Sealer`].
//! **Invariant:** no text from outside is part of a key or a path; ids are parsed types.

mod blob;
mod database;
mod disk;
mod error;
mod export;
mod key;
mod read;
mod remove;
mod row;
mod salvage;
mod schema;
mod seal;
mod sweep;
mod types;
mod write;

pub use database::SledStore;
pub use disk::{Disk, RealDisk, Rows};
pub use error::{RowError, StoreError};
pub use export::{Export, Exported, Parts};
pub use salvage::{SalvageReport, salvage};
pub use seal::{Plain, SealError, Sealer};
pub use sweep::SweepReport;
pub use types::{
    Address, Change, Claim, Class, Cursor, DiskUse, Entry, Head, Kind, Page, Query, State, Time,
    Usage,
};

use crate::domain::{ObjectId, OwnerId};
use std::{fmt::Debug, path::PathBuf, sync::Arc};

/// Where sealed values of more than 16 KiB go. Reading works in either mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlobMode {
    /// Into a file each.
    #[default]
    Files,
    /// Into sled, in pieces of 16 KiB: one database, but memory grows with what is read, and the file
    /// stays at about twice what was ever stored at once; deleting makes room in it and not beside it.
    Sled,
}

impl BlobMode {
    /// All modes.
    pub const ALL: [Self; 2] = [Self::Files, Self::Sled];

    /// The value of `store.blobs`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Sled => "sled",
        }
    }
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its folder, made if it is not there.
    pub folder: PathBuf,
    /// Where large values go.
    pub blobs: BlobMode,
    /// What seals records and contents.
    pub sealer: Arc<dyn Sealer>,
    /// What every write passes.
    pub disk: Arc<dyn Disk>,
}

/// What a write did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The deleted entries that were there.
    pub deleted: Vec<ObjectId>,
}

/// What is kept. Every method blocks, and may be called from several threads at once.
pub trait Store: Debug + Send + Sync {
    /// The name of the sealer, for the privacy report.
    fn sealer(&self) -> &'static str;

    /// Makes all changes, or none. Returns when they are on the disk.
    ///
    /// # Errors
    /// An id or idempotency key is taken, a value is too large, or the disk or the sealer fails.
    /// After a failure of the disk a change may be found made or not made when the store is next
    /// opened, but never half.
    fn write(&self, owner: OwnerId, changes: &[Change<'_>]) -> Result<Written, StoreError>;

    /// What is known of an entry without opening it.
    ///
    /// # Errors
    /// The database fails, or the entry does not decode.
    fn head(&self, at: Address) -> Result<Option<Head>, StoreError>;

    /// The record of an entry.
    ///
    /// # Errors
    /// As [`Store::head`]; or it is lost or damaged, or its seal does not open.
    fn record(&self, at: Address) -> Result<Option<Vec<u8>>, StoreError>;

    /// The content of a picture.
    ///
    /// # Errors
    /// As [`Store::record`].
    fn content(&self, owner: OwnerId, id: ObjectId) -> Result<Option<Vec<u8>>, StoreError>;

    /// A page of an owner's entries, newest first.
    ///
    /// # Errors
    /// As [`Store::head`].
    fn list(&self, owner: OwnerId, query: &Query) -> Result<Page, StoreError>;

    /// Everyone who has something here.
    ///
    /// # Errors
    /// The database fails.
    fn owners(&self) -> Result<Vec<OwnerId>, StoreError>;

    /// What an owner has stored.
    fn usage(&self, owner: OwnerId) -> Usage;

    /// What all have stored.
    fn total(&self) -> Usage;

    /// Bytes on the disk.
    ///
    /// # Errors
    /// A folder cannot be read.
    fn disk_use(&self) -> Result<DiskUse, StoreError>;

    /// The job that an idempotency key stands for at this moment.
    ///
    /// # Errors
    /// As [`Store::record`].
    fn find_key(
        &self,
        owner: OwnerId,
        text: &str,
        now: Time,
    ) -> Result<Option<ObjectId>, StoreError>;

    /// The entries of all owners and classes whose time is over. Deleting them is the caller's.
    ///
    /// # Errors
    /// The database fails.
    fn expired(&self, now: Time) -> Result<Vec<Address>, StoreError>;

    /// Marks the jobs that were queued or running when the server ended, and counts them.
    ///
    /// # Errors
    /// The database or the disk fails.
    fn interrupt_unfinished(&self) -> Result<usize, StoreError>;

    /// Deletes pictures in one write, and gives those that were there.
    ///
    /// # Errors
    /// As [`Store::write`].
    fn delete_pictures(
        &self,
        owner: OwnerId,
        ids: &[ObjectId],
    ) -> Result<Vec<ObjectId>, StoreError> {
        let changes: Vec<_> = ids.iter().map(|id| Change::Delete(Class::Picture, *id)).collect();
        Ok(self.write(owner, &changes)?.deleted)
    }
}

/// A new id, random.
///
/// # Errors
/// The system gives no random bytes.
pub fn random_id() -> Result<ObjectId, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(StoreError::Random)?;
    Ok(ObjectId::from_bytes(bytes))
}
