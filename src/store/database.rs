//! [`SledStore`]: what it holds, and how it is opened. `read.rs`, `write.rs`, `remove.rs` and
//! `sweep.rs` do the rest.

use super::{
    BlobMode, Disk, Options, Plain, RealDisk, Sealer, StoreError, SweepReport, Usage, blob::Blobs,
    disk::failed, remove::Obsolete, schema, sweep,
};
use crate::domain::OwnerId;
use std::{
    collections::HashMap,
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64},
    },
    time::{Duration, Instant},
};

/// What sled keeps in memory of its pages. It holds no picture, unless `blobs = "sled"`.
const CACHE: u64 = 32 << 20;
/// Bytes of a segment of sled's log. A page above a quarter of it goes into a file of sled's own that
/// sled never syncs; a page has at most some 20 values of 16 KiB, so there are none. Part of the
/// format: sled refuses a store that was made with another.
const SEGMENT: usize = 2 << 20;
/// The folder of sled.
pub(super) const ROWS: &str = "rows";
/// The folder of the blob files.
pub(super) const BLOBS: &str = "blobs";
/// How long a lock is waited for: that of a process that is just ending, or of a store that was
/// closed in this one, which sled gives up a little later.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// The store on sled and, for large values, files.
#[derive(Debug)]
pub struct SledStore {
    pub(super) folder: PathBuf,
    pub(super) mode: BlobMode,
    pub(super) sealer: Arc<dyn Sealer>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) rows: sled::Tree,
    pub(super) blobs: Blobs,
    /// An own handle on sled's file: sled flushes it to the system, this syncs it to the disk.
    pub(super) file: File,
    pub(super) salt: [u8; schema::SALT],
    /// Held while rows are looked at and changed, but not while anything is synced.
    pub(super) ledger: Mutex<HashMap<OwnerId, Usage>>,
    /// Values of deleted entries that could not be removed yet.
    pub(super) leftovers: Mutex<Vec<Obsolete>>,
    /// Set when nobody knows any more what the disk holds of the rows in memory.
    pub(super) stopped: AtomicBool,
    /// How many times rows were committed, and how many of these commits are on the disk.
    pub(super) commits: AtomicU64,
    pub(super) durable: Mutex<u64>,
    _db: sled::Db,
}

/// A lock whose holder cannot leave half a change behind, so a panic of one does not matter.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Options {
    /// The real disk, no encryption, large values in files.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            blobs: BlobMode::Files,
            sealer: Arc::new(Plain),
            disk: Arc::new(RealDisk),
        }
    }
}

impl SledStore {
    /// Opens the store of a folder, makes it if it is not there, and repairs what a crash left.
    ///
    /// # Errors
    /// The folder is in use, its database cannot be read, a newer Darkroom wrote it, or the disk
    /// fails. A database that cannot be read is never a panic, and nothing of it is changed.
    pub fn open(options: Options) -> Result<(Self, SweepReport), StoreError> {
        let folder = options.folder.clone();
        // sled asserts what it reads in some places instead of checking it.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::open_inner(options)));
        let corrupt = |reason: String| StoreError::Corrupt { folder: folder.clone(), reason };
        match opened {
            Ok(Err(StoreError::Database(error))) => Err(corrupt(error.to_string())),
            Ok(result) => result,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                Err(corrupt(text.unwrap_or("sled gave up").to_owned()))
            }
        }
    }

    fn open_inner(options: Options) -> Result<(Self, SweepReport), StoreError> {
        let Options { folder, blobs: mode, sealer, disk } = options;
        let (rows, blobs) = (folder.join(ROWS), folder.join(BLOBS));
        for path in [&folder, &blobs] {
            disk.create_folder(path).map_err(failed("make", path))?;
        }
        let db = open_database(&folder, &rows, &*disk)?;
        let path = rows.join("db");
        let file = File::open(&path).map_err(failed("open", &path))?;
        for path in [&rows, &folder] {
            disk.sync_folder(path).map_err(failed("sync", path))?;
        }
        let blobs = Blobs::new(blobs);
        let has_blobs = !blobs.list()?.0.is_empty();
        let salt = schema::check(&folder, &db, &*disk, (&file, &path), has_blobs)?;
        let store = Self {
            rows: db.open_tree(schema::ENTRIES).map_err(StoreError::Database)?,
            blobs,
            ledger: Mutex::default(),
            leftovers: Mutex::default(),
            stopped: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            durable: Mutex::default(),
            _db: db,
            folder,
            mode,
            sealer,
            disk,
            file,
            salt,
        };
        let report = sweep::sweep(&store)?;
        tracing::info!(entries = report.entries, blobs = mode.name(), "store opened");
        Ok((store, report))
    }
}

/// Opens sled, and says in the store's words why it did not open.
pub(super) fn open_database(
    folder: &Path,
    rows: &Path,
    disk: &dyn Disk,
) -> Result<sled::Db, StoreError> {
    // No flush but the store's own, so that each is seen by `Disk`.
    let config = sled::Config::new()
        .path(rows)
        .cache_capacity(CACHE)
        .segment_size(SEGMENT)
        .flush_every_ms(None);
    let started = Instant::now();
    let open = || {
        drop_unfinished_snapshots(rows, disk)?;
        Ok::<_, StoreError>(config.open())
    };
    let mut opened = open()?;
    while opened.as_ref().is_err_and(locked) && started.elapsed() < LOCK_WAIT {
        std::thread::sleep(LOCK_WAIT / 20);
        opened = open()?;
    }
    opened.map_err(|error| match error {
        error if locked(&error) => StoreError::Locked { folder: folder.to_owned() },
        sled::Error::Io(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::Other
            ) =>
        {
            failed("open", rows)(error)
        }
        error => StoreError::Corrupt { folder: folder.to_owned(), reason: error.to_string() },
    })
}

/// Removes snapshots that sled was killed in the middle of.
///
/// sled 0.34.7 writes them under a name ending in `.generating` and renames them, but what it skips
/// when it opens are names of another ending, which an earlier version used. So it takes such a rest
/// for the newest snapshot and refuses to open. The rest is never needed: the snapshot before it goes
/// only after the renaming, and the log has everything.
fn drop_unfinished_snapshots(rows: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    let path = rows.join("db");
    // Under sled's own lock: whoever has it may be writing a snapshot, and opening says who has it.
    let Ok(file) = File::options().read(true).write(true).open(path) else { return Ok(()) };
    if file.try_lock().is_err() {
        return Ok(());
    }
    for entry in std::fs::read_dir(rows).map_err(failed("read", rows))? {
        let path = entry.map_err(failed("read", rows))?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            disk.remove(&path).map_err(failed("delete", &path))?;
            tracing::warn!("an unfinished snapshot of the database was deleted");
        }
    }
    Ok(())
}

/// sled has no error of its own for this.
fn locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(e) if e.to_string().contains("could not acquire lock"))
}
