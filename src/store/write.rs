//! How changes get to the disk: files first, then the rows that name them, then what they replace
//! goes.

use super::{
    Address, BlobMode, Change, Class, Entry, Kind, SledStore, State, StoreError, Time, Usage,
    Written,
    blob::Blob,
    database::{ROWS, lock},
    disk::{Rows, failed},
    key,
    read::decode,
    remove::Obsolete,
    row::{INLINE, LARGEST, Row, Slot, ValueId},
    schema,
};
use crate::domain::{ObjectId, OwnerId};
use std::{collections::HashMap, sync::atomic::Ordering};

/// The largest value, sealed. What is stored is held in memory while it is written and read.
const LARGEST_VALUE: u64 = 1 << 30;

/// Under which condition an entry is written.
#[derive(Clone, Copy)]
enum If {
    Always,
    New,
    /// New, or expired at this moment.
    Free(Time),
}

/// A change whose files are on the disk.
struct Plan {
    class: Class,
    id: ObjectId,
    put: Option<Put>,
}

struct Put {
    row: Row,
    chunks: Vec<(ValueId, Vec<u8>)>,
    condition: If,
}

impl SledStore {
    pub(super) fn write_changes(
        &self,
        owner: OwnerId,
        changes: &[Change<'_>],
    ) -> Result<Written, StoreError> {
        self.check_writable()?;
        let mut files = Vec::new();
        let plans = changes.iter().map(|change| self.plan(owner, change, &mut files));
        let plans = plans.collect::<Result<Vec<_>, _>>().and_then(|plans| {
            // Also the names must be there before a row gives them.
            if !files.is_empty() {
                self.blobs.sync(&*self.disk)?;
            }
            Ok(plans)
        });
        let committed = plans.and_then(|plans| self.commit(owner, plans));
        let (written, obsolete, number) = committed.inspect_err(|_| {
            // Once rows were handed to sled they may be on the disk, and need their files.
            if !self.stopped.load(Ordering::SeqCst) {
                for file in files {
                    drop(self.disk.remove(&self.blobs.path(file)));
                }
            }
        })?;
        self.make_durable(number)?;
        self.clean(obsolete)?;
        Ok(written)
    }

    pub(super) fn check_writable(&self) -> Result<(), StoreError> {
        if self.stopped.load(Ordering::SeqCst) { Err(StoreError::WritesStopped) } else { Ok(()) }
    }

    /// After a failed commit or sync the rows in memory and on the disk may differ, and a later
    /// sync that succeeds would not prove the earlier one. Only opening again can tell.
    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        tracing::error!("a write failed: the store takes no more until it is opened again");
    }

    /// Seals what a change carries and writes its files.
    fn plan(
        &self,
        owner: OwnerId,
        change: &Change<'_>,
        files: &mut Vec<ValueId>,
    ) -> Result<Plan, StoreError> {
        let (entry, condition) = match change {
            Change::Delete(class, id) => return Ok(Plan { class: *class, id: *id, put: None }),
            Change::Add(entry) => (*entry, If::New),
            Change::Set(entry) => (*entry, If::Always),
            Change::Claim(claim) => {
                let entry = Entry {
                    class: Class::Key,
                    id: schema::hashed(&self.salt, owner, claim.text),
                    state: State::Stored,
                    created: claim.created,
                    expires: claim.expires,
                    record: claim.job.as_bytes(),
                    content: None,
                };
                (entry, If::Free(claim.created))
            }
        };
        let Entry { class, id, state, created, expires, record, content } = entry;
        let size = content.unwrap_or(record).len() as u64;
        let (record_slot, content_slot) = (Slot::Nothing, Slot::Nothing);
        let mut put = Put {
            row: Row { state, created, expires, size, record: record_slot, content: content_slot },
            chunks: Vec::new(),
            condition,
        };
        put.row.record = self.place(owner, &entry, class.record(), record, &mut put, files)?;
        if let Some(content) = content {
            put.row.content = self.place(owner, &entry, Kind::Content, content, &mut put, files)?;
        }
        Ok(Plan { class, id, put: Some(put) })
    }

    /// Seals a value and finds its place: in the row, in a file, or in chunks.
    fn place(
        &self,
        owner: OwnerId,
        entry: &Entry<'_>,
        kind: Kind,
        bytes: &[u8],
        put: &mut Put,
        files: &mut Vec<ValueId>,
    ) -> Result<Slot, StoreError> {
        let object = entry.id;
        let seal = |source| StoreError::Seal { object, kind, source };
        let sealed = self.sealer.seal(owner, object, kind, bytes).map_err(seal)?;
        let length = sealed.len() as u64;
        if length > LARGEST_VALUE {
            return Err(StoreError::TooLarge { size: length, limit: LARGEST_VALUE });
        }
        let taken = if let Slot::Inline(record) = &put.row.record { record.len() } else { 0 };
        if sealed.len() + taken <= INLINE {
            return Ok(Slot::Inline(sealed));
        }
        let value = *super::random_id()?.as_bytes();
        match self.mode {
            BlobMode::Sled => {
                let crc = crc32fast::hash(&sealed);
                put.chunks.push((value, sealed));
                Ok(Slot::Chunks { value, length, crc })
            }
            BlobMode::Files => {
                let (class, row) = (entry.class, put.row.clone());
                let blob = Blob { owner, object, class, kind, row, body: &sealed };
                let slot = self.blobs.write(&*self.disk, value, &blob)?;
                files.push(value);
                Ok(slot)
            }
        }
    }

    /// Changes the rows, all or none, and gives the files that no row names any more.
    fn commit(
        &self,
        owner: OwnerId,
        plans: Vec<Plan>,
    ) -> Result<(Written, Vec<Obsolete>, u64), StoreError> {
        let mut ledger = lock(&self.ledger);
        self.check_writable()?;
        let mut rows = Rows::new(&self.rows);
        let mut usage = ledger.get(&owner).copied().unwrap_or_default();
        let (mut written, mut obsolete) = (Written::default(), Vec::new());
        // Changes of one write see those before them.
        let mut seen: HashMap<(Class, ObjectId), Option<Row>> = HashMap::new();
        for Plan { class, id, put } in plans {
            let at = (owner, class, id);
            let (there, before) = match seen.remove(&(class, id)) {
                Some(row) => (row.is_some(), row),
                None => self.row_to_replace(at, put.as_ref(), &mut rows)?,
            };
            if there && put.is_none() {
                written.deleted.push(id);
            }
            if let Some(put) = &put {
                check(&put.condition, before.as_ref(), id, || self.record_of_key(at))?;
            }
            if let Some(before) = &before {
                remove_rows(&mut rows, at, before);
                obsolete.extend(Obsolete::of(owner, id, before));
                add(&mut usage, class, before, -1);
            }
            let after = put.map(|put| {
                add(&mut usage, class, &put.row, 1);
                put_rows(&mut rows, at, put)
            });
            seen.insert((class, id), after);
        }
        let number = self.commit_rows(&rows)?;
        ledger.insert(owner, usage);
        Ok((written, obsolete, number))
    }

    /// Hands rows to sled, while the ledger is locked. Gives the commit's number.
    pub(super) fn commit_rows(&self, rows: &Rows<'_>) -> Result<u64, StoreError> {
        let committed = self.disk.commit(rows).map_err(failed("write to", &self.folder));
        committed.inspect_err(|_| self.stop())?;
        Ok(self.commits.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Returns when the rows of a commit, and of those before it, are on the disk. One sync serves
    /// all who wait for it.
    pub(super) fn make_durable(&self, number: u64) -> Result<(), StoreError> {
        let mut durable = lock(&self.durable);
        self.check_writable()?;
        if *durable >= number {
            return Ok(());
        }
        let all = self.commits.load(Ordering::SeqCst);
        let path = self.folder.join(ROWS).join("db");
        let synced = self.disk.flush(&Rows::new(&self.rows));
        let synced = synced.and_then(|()| self.disk.sync(&self.file, &path));
        synced.map_err(failed("sync", &path)).inspect_err(|_| self.stop())?;
        *durable = all;
        Ok(())
    }

    /// Whether an entry is there, and its row. One that does not decode can still be replaced or
    /// deleted: what can be found of it goes, and the sweep finds the rest.
    fn row_to_replace(
        &self,
        at: Address,
        put: Option<&Put>,
        rows: &mut Rows<'_>,
    ) -> Result<(bool, Option<Row>), StoreError> {
        let (owner, class, id) = at;
        let key = key::entry(owner, class, id);
        let Some(bytes) = self.rows.get(&key).map_err(StoreError::Database)? else {
            return Ok((false, None));
        };
        match decode(id, &bytes) {
            Err(_) if put.is_none_or(|put| matches!(put.condition, If::Always)) => {
                rows.remove(key);
                for chunk in self.rows.scan_prefix(key::chunks(owner, id)).keys() {
                    rows.remove(chunk.map_err(StoreError::Database)?.to_vec());
                }
                Ok((true, None))
            }
            row => Ok((true, Some(row?))),
        }
    }

    /// The job that a key is held by.
    fn record_of_key(&self, at: Address) -> Result<ObjectId, StoreError> {
        let job = super::Store::record(self, at)?.unwrap_or_default();
        Ok(ObjectId::from_bytes(job.try_into().unwrap_or_default()))
    }

    /// Sets the state of entries, if they are still there.
    pub(super) fn set_states(&self, at: &[Address], state: State) -> Result<(), StoreError> {
        if at.is_empty() {
            return Ok(());
        }
        let ledger = lock(&self.ledger);
        self.check_writable()?;
        let mut rows = Rows::new(&self.rows);
        for &(owner, class, id) in at {
            if let Some(row) = self.row((owner, class, id))? {
                rows.put(key::entry(owner, class, id), Row { state, ..row }.encode());
            }
        }
        let number = self.commit_rows(&rows)?;
        drop(ledger);
        self.make_durable(number)
    }
}

fn check(
    condition: &If,
    before: Option<&Row>,
    object: ObjectId,
    holder: impl FnOnce() -> Result<ObjectId, StoreError>,
) -> Result<(), StoreError> {
    match (condition, before) {
        (If::Always, _) | (_, None) => Ok(()),
        (If::Free(now), Some(before)) if before.expires <= *now => Ok(()),
        (If::Free(_), Some(_)) => Err(StoreError::KeyTaken { job: holder()? }),
        (If::New, Some(_)) => Err(StoreError::Exists { object }),
    }
}

fn remove_rows(rows: &mut Rows<'_>, (owner, class, id): Address, row: &Row) {
    rows.remove(key::entry(owner, class, id));
    rows.remove(key::time(owner, class, row.created, id));
    for slot in [&row.record, &row.content] {
        if let Slot::Chunks { value, .. } = slot {
            rows.put(key::garbage(owner, id, *value), []);
        }
    }
}

fn put_rows(rows: &mut Rows<'_>, (owner, class, id): Address, put: Put) -> Row {
    rows.put(key::entry(owner, class, id), put.row.encode());
    // Keys are never listed: who asks for one has it.
    if class != Class::Key {
        rows.put(key::time(owner, class, put.row.created, id), []);
    }
    for (value, sealed) in put.chunks {
        for (number, chunk) in (0..).zip(sealed.chunks(LARGEST)) {
            rows.put(key::chunk(owner, id, value, number), chunk);
        }
    }
    put.row
}

/// Counts an entry in, or out.
pub(super) fn add(usage: &mut Usage, class: Class, row: &Row, sign: i64) {
    let count = |number: &mut u64, by: u64| {
        *number = if sign < 0 { number.saturating_sub(by) } else { number.saturating_add(by) };
    };
    match class {
        Class::Picture => count(&mut usage.pictures, 1),
        Class::Job => count(&mut usage.jobs, 1),
        Class::Key => {}
    }
    count(&mut usage.bytes, row.stored());
}
