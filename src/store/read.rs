//! Reading: entries, their parts, lists, sums. It is also where [`Store`] is implemented.

use super::{
    Address, Class, Cursor, DiskUse, Head, Kind, Page, Query, RowError, SledStore, State, Store,
    StoreError, Time, Usage, Written,
    blob::ReadError,
    database::{ROWS, lock},
    disk::failed,
    key,
    row::{Row, Slot},
    schema, types,
};
use crate::domain::{ObjectId, OwnerId};
use std::{io, ops::Bound, path::Path};

/// How often a value is read again because its entry was replaced meanwhile.
const READS: usize = 4;

impl SledStore {
    pub(super) fn row(&self, (owner, class, id): Address) -> Result<Option<Row>, StoreError> {
        let bytes = self.rows.get(key::entry(owner, class, id)).map_err(StoreError::Database)?;
        let decode = |bytes: sled::IVec| decode(id, &bytes);
        bytes.map(decode).transpose()
    }

    /// Every entry of a class, one after another, without its blobs.
    pub(super) fn entries(
        &self,
        owner: OwnerId,
        class: Class,
    ) -> impl Iterator<Item = Result<(ObjectId, Result<Row, RowError>), StoreError>> {
        self.rows.scan_prefix(key::entries(owner, class)).filter_map(|entry| match entry {
            Ok((key, bytes)) => Some(Ok((key::read_entry(&key)?.1, Row::decode(&bytes)))),
            Err(error) => Some(Err(StoreError::Database(error))),
        })
    }

    /// One part of an entry, opened.
    fn part(
        &self,
        at: Address,
        kind: Kind,
        slot: fn(&Row) -> &Slot,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let (owner, _, id) = at;
        let Some(mut row) = self.row(at)? else { return Ok(None) };
        for _ in 0..READS {
            let sealed = self.load(owner, id, kind, slot(&row));
            // What cannot be read may have been replaced or deleted between its row and its value.
            if sealed.is_err() {
                let Some(now) = self.row(at)? else { return Ok(None) };
                if now != row {
                    row = now;
                    continue;
                }
            }
            let Some(sealed) = sealed? else { return Ok(None) };
            let opened = self.sealer.open(owner, id, kind, sealed);
            let seal = |source| StoreError::Seal { object: id, kind, source };
            return opened.map(Some).map_err(seal);
        }
        Err(StoreError::Damaged { object: id, kind, reason: "it changes all the time" })
    }

    fn load(
        &self,
        owner: OwnerId,
        object: ObjectId,
        kind: Kind,
        slot: &Slot,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let lost = || StoreError::Lost { object, kind };
        let damaged = |reason| StoreError::Damaged { object, kind, reason };
        match slot {
            Slot::Nothing => Ok(None),
            Slot::Inline(bytes) => Ok(Some(bytes.clone())),
            Slot::File { file, length, crc } => {
                self.blobs.read(*file, *length, *crc).map(Some).map_err(|error| match error {
                    ReadError::Damaged(reason) => damaged(reason),
                    ReadError::Io(error) if error.kind() == io::ErrorKind::NotFound => lost(),
                    ReadError::Io(error) => failed("read", &self.blobs.path(*file))(error),
                })
            }
            Slot::Chunks { value, length, crc } => {
                let mut bytes = Vec::new();
                for number in 0..slot.chunks() {
                    let key = key::chunk(owner, object, *value, number);
                    let chunk = self.rows.get(key).map_err(StoreError::Database)?;
                    bytes.extend_from_slice(&chunk.ok_or_else(lost)?);
                }
                let whole = bytes.len() as u64 == *length && crc32fast::hash(&bytes) == *crc;
                if whole {
                    Ok(Some(bytes))
                } else {
                    Err(damaged("its chunks do not have its checksum"))
                }
            }
        }
    }
}

impl Store for SledStore {
    fn sealer(&self) -> &'static str {
        self.sealer.name()
    }

    fn write(&self, owner: OwnerId, changes: &[types::Change<'_>]) -> Result<Written, StoreError> {
        self.write_changes(owner, changes)
    }

    fn head(&self, at: Address) -> Result<Option<Head>, StoreError> {
        Ok(self.row(at)?.map(|row| row.head(at.2)))
    }

    fn record(&self, at: Address) -> Result<Option<Vec<u8>>, StoreError> {
        self.part(at, at.1.record(), |row| &row.record)
    }

    fn content(&self, owner: OwnerId, id: ObjectId) -> Result<Option<Vec<u8>>, StoreError> {
        self.part((owner, Class::Picture, id), Kind::Content, |row| &row.content)
    }

    fn list(&self, owner: OwnerId, query: &Query) -> Result<Page, StoreError> {
        let limit = query.limit.clamp(1, Query::MAX);
        let prefix = key::times(owner, query.class);
        let place = |cursor: Cursor| {
            Bound::Excluded(key::time(owner, query.class, cursor.created, cursor.id))
        };
        // Newer ones come first, so the first that is before `until` begins the list.
        let first = query.until.map(|until| match until.millis().checked_sub(1) {
            Some(last) => Bound::Included(key::time(
                owner,
                query.class,
                Time::from_millis(last),
                ObjectId::from_bytes([0; 16]),
            )),
            None => Bound::Excluded([&prefix[..], &[0xff; 25]].concat()),
        });
        let begin = Bound::Included(prefix.clone());
        let later = |bound: Option<Bound<Vec<u8>>>, than: Bound<Vec<u8>>| match bound {
            Some(bound) if bound_key(&bound) > bound_key(&than) => bound,
            _ => than,
        };
        let start = later(query.after.map(place), later(first, begin));
        let mut page = Page { heads: Vec::new(), next: None };
        let mut last = None;
        for key in self.rows.range((start, Bound::Unbounded)).keys() {
            let key = key.map_err(StoreError::Database)?;
            let Some(cursor) = key::read_time(&key).filter(|_| key.starts_with(&prefix)) else {
                break;
            };
            if query.from.is_some_and(|from| cursor.created < from) {
                break;
            }
            if page.heads.len() == limit {
                page.next = last;
                break;
            }
            // An entry that goes while the list is read is not on it any more.
            if let Some(head) = self.head((owner, query.class, cursor.id))? {
                page.heads.push(head);
                last = Some(cursor);
            }
        }
        Ok(page)
    }

    fn owners(&self) -> Result<Vec<OwnerId>, StoreError> {
        let mut owners = Vec::new();
        let mut start = Some([0; 16]);
        while let Some(from) = start {
            let key = self.rows.range(from..).keys().next().transpose();
            let owner = key.map_err(StoreError::Database)?.and_then(|key| key::owner(&key));
            owners.extend(owner);
            start = owner.and_then(key::behind);
        }
        Ok(owners)
    }

    fn usage(&self, owner: OwnerId) -> Usage {
        lock(&self.ledger).get(&owner).copied().unwrap_or_default()
    }

    fn total(&self) -> Usage {
        lock(&self.ledger).values().fold(Usage::default(), |sum, usage| Usage {
            pictures: sum.pictures + usage.pictures,
            jobs: sum.jobs + usage.jobs,
            bytes: sum.bytes + usage.bytes,
        })
    }

    fn disk_use(&self) -> Result<DiskUse, StoreError> {
        let rows = folder_size(&self.folder.join(ROWS))?;
        Ok(DiskUse { rows, blobs: folder_size(self.blobs.folder())? })
    }

    fn find_key(
        &self,
        owner: OwnerId,
        text: &str,
        now: Time,
    ) -> Result<Option<ObjectId>, StoreError> {
        let id = schema::hashed(&self.salt, owner, text);
        let at = (owner, Class::Key, id);
        if self.row(at)?.is_none_or(|row| row.expires <= now) {
            return Ok(None);
        }
        Ok(self.record(at)?.and_then(|job| Some(ObjectId::from_bytes(job.try_into().ok()?))))
    }

    fn expired(&self, now: Time) -> Result<Vec<Address>, StoreError> {
        self.all(|row| row.expires <= now)
    }

    fn interrupt_unfinished(&self) -> Result<usize, StoreError> {
        let unfinished = self.all(|row| row.state.unfinished())?;
        self.set_states(&unfinished, State::Interrupted)?;
        Ok(unfinished.len())
    }
}

impl SledStore {
    /// The readable entries of which something is true.
    fn all(&self, wanted: impl Fn(&Row) -> bool) -> Result<Vec<Address>, StoreError> {
        let mut found = Vec::new();
        for owner in self.owners()? {
            for class in Class::ALL {
                for entry in self.entries(owner, class) {
                    let (id, row) = entry?;
                    found.extend(row.is_ok_and(|row| wanted(&row)).then_some((owner, class, id)));
                }
            }
        }
        Ok(found)
    }
}

fn bound_key(bound: &Bound<Vec<u8>>) -> &[u8] {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => key,
        Bound::Unbounded => &[],
    }
}

pub(super) fn decode(object: ObjectId, bytes: &[u8]) -> Result<Row, StoreError> {
    Row::decode(bytes).map_err(|reason| StoreError::Entry { object, reason })
}

fn folder_size(folder: &Path) -> Result<u64, StoreError> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).map_err(failed("read", folder))? {
        let entry = entry.map_err(failed("read", folder))?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => sum += folder_size(&entry.path())?,
            Ok(metadata) => sum += metadata.len(),
            // Deleted between the list and the look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", &entry.path())(error)),
        }
    }
    Ok(sum)
}
