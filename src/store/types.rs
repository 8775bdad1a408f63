//! What the store's callers speak: entries, their clear fields, and what to change.

use super::StoreError;
use crate::domain::{ObjectId, OwnerId};
use std::{
    fmt,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

/// A moment: milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// Later than all others: for what never expires.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment this many milliseconds after the beginning of 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the beginning of 1970.
    pub const fn millis(self) -> u64 {
        self.0
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        // A clock before 1970 is a broken clock; its pictures are the oldest ones.
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1))
    }
}

/// What an entry is. The byte is part of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Class {
    /// A picture: a record and a content.
    Picture = b'p' as isize,
    /// A job: a record, and a state that changes.
    Job = b'j' as isize,
    /// An idempotency key that a client sent.
    Key = b'k' as isize,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Job, Self::Key, Self::Picture];

    pub(super) const fn tag(self) -> u8 {
        self as u8
    }

    pub(super) fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.tag() == tag)
    }

    /// What its record is to a [`Sealer`](super::Sealer).
    pub(super) const fn record(self) -> Kind {
        match self {
            Self::Picture => Kind::Record,
            Self::Job => Kind::Job,
            Self::Key => Kind::Key,
        }
    }
}

/// What some sealed bytes are. A seal is bound to it, so that one cannot stand for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The content of a picture.
    Content = 1,
    /// All else of a picture.
    Record = 2,
    /// The record of a job.
    Job = 3,
    /// The record of an idempotency key.
    Key = 4,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        let all = [Self::Content, Self::Record, Self::Job, Self::Key];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Content => "picture",
            Self::Record => "record of a picture",
            Self::Job => "record of a job",
            Self::Key => "record of an idempotency key",
        })
    }
}

/// How an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// A picture or key that is there.
    Stored = 1,
    /// Its blob file is missing or cut short: what the sweep found, never a caller's choice.
    Lost = 2,
    /// A job that waits.
    Queued = 3,
    /// A job that runs.
    Running = 4,
    /// A job with a result.
    Done = 5,
    /// A job that could not be finished.
    Failed = 6,
    /// A job that someone stopped.
    Cancelled = 7,
    /// A job that was queued or running when the server ended; its input is gone by design.
    Interrupted = 8,
}

impl State {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        use State::{Cancelled, Done, Failed, Interrupted, Lost, Queued, Running, Stored};
        let all = [Stored, Lost, Queued, Running, Done, Failed, Cancelled, Interrupted];
        all.into_iter().find(|state| *state as u8 == byte)
    }

    /// Whether a job in this state still has something to do.
    pub const fn unfinished(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

/// What is known of an entry without opening a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its id.
    pub id: ObjectId,
    /// How it stands.
    pub state: State,
    /// When it was made.
    pub created: Time,
    /// From when on it is to be deleted.
    pub expires: Time,
    /// Bytes of its content, of its record where it has none, before sealing.
    pub size: u64,
    /// Bytes that it takes, sealed.
    pub stored: u64,
}

impl Head {
    /// Its place in a list: a page that begins behind it.
    pub const fn cursor(&self) -> Cursor {
        Cursor { created: self.created, id: self.id }
    }
}

/// An entry to write.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// What it is.
    pub class: Class,
    /// Its id.
    pub id: ObjectId,
    /// How it stands.
    pub state: State,
    /// When it was made.
    pub created: Time,
    /// From when on it is to be deleted.
    pub expires: Time,
    /// Everything about it that is not in the clear.
    pub record: &'a [u8],
    /// The bytes of a picture.
    pub content: Option<&'a [u8]>,
}

impl fmt::Debug for Entry<'_> {
    /// Without its bytes: a log must not hold a prompt.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("class", &self.class)
            .field("id", &self.id)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl<'a> Entry<'a> {
    /// A picture that never expires.
    pub const fn picture(id: ObjectId, created: Time, record: &'a [u8], content: &'a [u8]) -> Self {
        let class = Class::Picture;
        let (state, content) = (State::Stored, Some(content));
        Self { class, id, state, created, expires: Time::NEVER, record, content }
    }

    /// A job that never expires.
    pub const fn job(id: ObjectId, state: State, created: Time, record: &'a [u8]) -> Self {
        let class = Class::Job;
        Self { class, id, state, created, expires: Time::NEVER, record, content: None }
    }

    /// The same with an expiry.
    pub const fn expiring(self, expires: Time) -> Self {
        Self { expires, ..self }
    }
}

/// One change. All changes of one [`Store::write`](super::Store::write) happen, or none.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Change<'a> {
    /// Writes a new entry; refused if the id is taken.
    Add(Entry<'a>),
    /// Writes an entry over what the id may hold.
    Set(Entry<'a>),
    /// Claims an idempotency key for a job; refused with that job's id while another holds it.
    Claim(Claim<'a>),
    /// Deletes an entry, if it is there.
    Delete(Class, ObjectId),
}

/// An idempotency key for a job.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// What the client sent. Only a salted hash of it is stored.
    pub text: &'a str,
    /// The job that a repeated request is answered with.
    pub job: ObjectId,
    /// Now: a key that has expired by then is free.
    pub created: Time,
    /// Until when the key holds.
    pub expires: Time,
}

impl fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("job", &self.job).finish_non_exhaustive()
    }
}

/// Which entries to list, newest first.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Which class; keys are not listed.
    pub class: Class,
    /// Made at this moment or later.
    pub from: Option<Time>,
    /// Made before this moment.
    pub until: Option<Time>,
    /// Beginning behind this entry: the `next` of the page before.
    pub after: Option<Cursor>,
    /// Entries on the page, from 1 to [`Query::MAX`].
    pub limit: usize,
}

impl Query {
    /// The most entries of one page; a larger limit means this one.
    pub const MAX: usize = 1000;

    /// The newest entries of a class.
    pub const fn newest(class: Class, limit: usize) -> Self {
        Self { class, from: None, until: None, after: None, limit }
    }
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries, newest first.
    pub heads: Vec<Head>,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
}

/// A place in a list. It names an entry and not a number, so that newer entries move nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(super) created: Time,
    pub(super) id: ObjectId,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{}", self.created.0, self.id)
    }
}

impl FromStr for Cursor {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let (time, id) = text.split_at_checked(16).ok_or(StoreError::Cursor)?;
        let canonical = time.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let time = u64::from_str_radix(time, 16).ok().filter(|_| canonical);
        let created = Time(time.ok_or(StoreError::Cursor)?);
        Ok(Self { created, id: id.parse().map_err(|_| StoreError::Cursor)? })
    }
}

/// What an owner, or all of them, have stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Pictures.
    pub pictures: u64,
    /// Jobs, in any state.
    pub jobs: u64,
    /// Bytes of all entries, sealed.
    pub bytes: u64,
}

/// Which entry.
pub type Address = (OwnerId, Class, ObjectId);

/// Bytes on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUse {
    /// Of sled's folder.
    pub rows: u64,
    /// Of the blob files.
    pub blobs: u64,
}
