//! The keys of rows. Each begins with the owner, so that whatever walks over the entries of one
//! owner cannot reach those of another.

use super::{Class, Cursor, Time, row::ValueId};
use crate::domain::{ObjectId, OwnerId};

/// Bytes of an id.
const ID: usize = 16;
/// Behind the owner: a chunk of a value.
const CHUNK: u8 = b'c';
/// Behind the owner: a value that is to go.
const GARBAGE: u8 = b'g';
/// Behind the owner: an entry's place in the list of its class.
const TIME: u8 = b't';

/// `owner · class · id`: an entry.
pub(super) fn entry(owner: OwnerId, class: Class, id: ObjectId) -> Vec<u8> {
    [&entries(owner, class)[..], id.as_bytes()].concat()
}

/// What the keys of all entries of a class begin with.
pub(super) fn entries(owner: OwnerId, class: Class) -> Vec<u8> {
    [owner.as_bytes(), &[class.tag()][..]].concat()
}

/// `owner · c · id · value · number`: a chunk of a large value.
pub(super) fn chunk(owner: OwnerId, id: ObjectId, value: ValueId, number: u32) -> Vec<u8> {
    [&chunks(owner, id)[..], &value, &number.to_be_bytes()].concat()
}

/// What the keys of all chunks of an entry begin with.
pub(super) fn chunks(owner: OwnerId, id: ObjectId) -> Vec<u8> {
    [owner.as_bytes(), &[CHUNK][..], id.as_bytes()].concat()
}

/// `owner · g · id · value`: a value whose entry is gone, and whose chunks are to go.
pub(super) fn garbage(owner: OwnerId, id: ObjectId, value: ValueId) -> Vec<u8> {
    [&garbages(owner)[..], id.as_bytes(), &value].concat()
}

/// What the keys of all of them begin with.
pub(super) fn garbages(owner: OwnerId) -> Vec<u8> {
    [owner.as_bytes(), &[GARBAGE][..]].concat()
}

/// The value that such a key names.
pub(super) fn read_garbage(key: &[u8]) -> Option<(ObjectId, ValueId)> {
    let (id, value) = key.get(ID + 1..)?.split_first_chunk::<ID>()?;
    Some((ObjectId::from_bytes(*id), value.try_into().ok()?))
}

/// `owner · t · class · inverted time · id`: walking forward gives the newest first.
pub(super) fn time(owner: OwnerId, class: Class, created: Time, id: ObjectId) -> Vec<u8> {
    let inverted = (!created.millis()).to_be_bytes();
    [&times(owner, class)[..], &inverted, id.as_bytes()].concat()
}

/// What the keys of a class's list begin with.
pub(super) fn times(owner: OwnerId, class: Class) -> Vec<u8> {
    [owner.as_bytes(), &[TIME, class.tag()][..]].concat()
}

/// The place that a key of a list stands for.
pub(super) fn read_time(key: &[u8]) -> Option<Cursor> {
    let (inverted, id) = key.get(ID + 2..)?.split_first_chunk::<8>()?;
    let created = Time::from_millis(!u64::from_be_bytes(*inverted));
    Some(Cursor { created, id: ObjectId::from_bytes(id.try_into().ok()?) })
}

/// The owner whose key it is.
pub(super) fn owner(key: &[u8]) -> Option<OwnerId> {
    key.first_chunk().map(|bytes| OwnerId::from_bytes(*bytes))
}

/// The entry whose key it is.
pub(super) fn read_entry(key: &[u8]) -> Option<(Class, ObjectId)> {
    let (tag, id) = key.get(ID..)?.split_first()?;
    Some((Class::from_tag(*tag)?, ObjectId::from_bytes(id.try_into().ok()?)))
}

/// The first key that the owner after this one could have, unless this one is the last.
pub(super) fn behind(owner: OwnerId) -> Option<[u8; ID]> {
    u128::from_be_bytes(*owner.as_bytes()).checked_add(1).map(u128::to_be_bytes)
}
