//! Why the store could not do something.

use super::{Kind, SealError};
use crate::domain::ObjectId;
use std::{io, path::PathBuf};

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or folder could not be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was to be done.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process has the store open.
    #[error(
        "the store in {} is in use by another process; stop that one first (one server, one store)",
        folder.display()
    )]
    Locked {
        /// The store's folder.
        folder: PathBuf,
    },
    /// The database cannot be opened.
    #[error(
        "the store in {} cannot be read ({reason}); nothing was changed. Copy the folder, then \
         salvage it with `darkroom repair`: the list of pictures is rebuilt from their files",
        folder.display()
    )]
    Corrupt {
        /// The store's folder.
        folder: PathBuf,
        /// What is wrong, as sled says it.
        reason: String,
    },
    /// A newer Darkroom wrote the store.
    #[error(
        "the store in {} has format {found}, this Darkroom knows formats up to {known}: use the \
         newer Darkroom that wrote it",
        folder.display()
    )]
    NewerStore {
        /// The store's folder.
        folder: PathBuf,
        /// The format on the disk.
        found: u32,
        /// The newest format that is known here.
        known: u32,
    },
    /// The database refused an operation.
    #[error("the store's database failed: {0}")]
    Database(#[source] sled::Error),
    /// An entry does not decode.
    #[error("the entry {object} cannot be read: {reason}")]
    Entry {
        /// Which one.
        object: ObjectId,
        /// What is wrong with its bytes.
        reason: RowError,
    },
    /// The bytes on the disk are not those that were written.
    #[error("the {kind} of {object} is damaged on the disk: {reason}")]
    Damaged {
        /// Which entry.
        object: ObjectId,
        /// Which part.
        kind: Kind,
        /// What does not fit.
        reason: &'static str,
    },
    /// The blob is not there any more.
    #[error("the {kind} of {object} is lost: its file is gone")]
    Lost {
        /// Which entry.
        object: ObjectId,
        /// Which part.
        kind: Kind,
    },
    /// A seal could not be made or opened.
    #[error("the {kind} of {object}: {source}")]
    Seal {
        /// Which entry.
        object: ObjectId,
        /// Which part.
        kind: Kind,
        /// The sealer's reason.
        source: SealError,
    },
    /// The value is too large to store.
    #[error("{size} bytes are too many for one object, the limit is {limit}")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A new entry has the id of another.
    #[error("the id {object} is taken")]
    Exists {
        /// The id.
        object: ObjectId,
    },
    /// The idempotency key is held by another job.
    #[error("the idempotency key belongs to the job {job}")]
    KeyTaken {
        /// That job.
        job: ObjectId,
    },
    /// An earlier write may or may not have reached the disk, so no other is taken.
    #[error(
        "a write to the store failed earlier, so it takes no others: see to the disk, then restart"
    )]
    WritesStopped,
    /// Not a cursor that a page gave.
    #[error("not a cursor of a page")]
    Cursor,
    /// The system gave no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Why the bytes of an entry do not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// A newer Darkroom wrote it.
    #[error("it has version {0}, of a newer Darkroom")]
    Newer(u8),
    /// It ends too early.
    #[error("it is cut short")]
    Short,
    /// It goes on after its end.
    #[error("it goes on after its end")]
    Long,
    /// A byte has none of the values that are known.
    #[error("its {0} is not known")]
    Unknown(&'static str),
}
