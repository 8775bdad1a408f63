//! The bytes of an entry. A version stands first; old ones are read for ever.
//!
//! Version 1, numbers big-endian:
//!
//! ```text
//! version 1 · state 1 · created 8 · expires 8 · size 8 · record slot · content slot
//! slot:  0                                      nothing
//!        1 · length 4 · bytes                   the sealed bytes themselves
//!        2 · file 16 · length 8 · crc 4         in the blob file of that id
//!        3 · value 16 · length 8 · crc 4        in chunks of 16 KiB, in rows of their own
//! ```

use super::{Head, RowError, State, Time};
use crate::domain::ObjectId;
use std::fmt;

/// The version that is written.
const VERSION: u8 = 1;
/// The largest row, and so the largest value that sled ever holds.
pub(super) const LARGEST: usize = 16 << 10;
/// Bytes of a row around a sealed record: all but the record itself, with the largest content slot.
const AROUND: usize = 26 + 5 + 29;
/// The largest sealed value that lies in its row.
pub(super) const INLINE: usize = LARGEST - AROUND;

/// Where a sealed value lies.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Slot {
    Nothing,
    Inline(Vec<u8>),
    File { file: ValueId, length: u64, crc: u32 },
    Chunks { value: ValueId, length: u64, crc: u32 },
}

/// The name of a value outside its row: random, and new at every write.
pub(super) type ValueId = [u8; 16];

impl fmt::Debug for Slot {
    /// Without the bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Nothing => "Nothing",
            Self::Inline(_) => "Inline",
            Self::File { .. } => "File",
            Self::Chunks { .. } => "Chunks",
        };
        write!(f, "{name}({})", self.length())
    }
}

impl Slot {
    /// Bytes of the sealed value.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { length, .. } | Self::Chunks { length, .. } => *length,
        }
    }

    /// How many chunks it has.
    pub(super) fn chunks(&self) -> u32 {
        match self {
            // A length that no write made gives more chunks than there are: they read as missing.
            Self::Chunks { length, .. } => {
                u32::try_from(length.div_ceil(LARGEST as u64)).unwrap_or(u32::MAX)
            }
            _ => 0,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing => out.push(0),
            Self::Inline(bytes) => {
                out.push(1);
                out.extend((bytes.len() as u32).to_be_bytes());
                out.extend(bytes);
            }
            Self::File { file, length, crc } => {
                out.push(2);
                out.extend(file);
                out.extend(length.to_be_bytes());
                out.extend(crc.to_be_bytes());
            }
            Self::Chunks { value, length, crc } => {
                out.push(3);
                out.extend(value);
                out.extend(length.to_be_bytes());
                out.extend(crc.to_be_bytes());
            }
        }
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, RowError> {
        Ok(match take::<1>(bytes)? {
            [0] => Self::Nothing,
            [1] => {
                let length = u32::from_be_bytes(take(bytes)?) as usize;
                let (value, rest) = bytes.split_at_checked(length).ok_or(RowError::Short)?;
                *bytes = rest;
                Self::Inline(value.to_vec())
            }
            [2] => {
                let file = take(bytes)?;
                let length = u64::from_be_bytes(take(bytes)?);
                Self::File { file, length, crc: u32::from_be_bytes(take(bytes)?) }
            }
            [3] => {
                let value = take(bytes)?;
                let length = u64::from_be_bytes(take(bytes)?);
                Self::Chunks { value, length, crc: u32::from_be_bytes(take(bytes)?) }
            }
            _ => return Err(RowError::Unknown("place of a value")),
        })
    }
}

/// An entry, as it lies under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) state: State,
    pub(super) created: Time,
    pub(super) expires: Time,
    pub(super) size: u64,
    pub(super) record: Slot,
    pub(super) content: Slot,
}

impl Row {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.state as u8];
        for number in [self.created.millis(), self.expires.millis(), self.size] {
            out.extend(number.to_be_bytes());
        }
        self.record.encode(&mut out);
        self.content.encode(&mut out);
        out
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, RowError> {
        let bytes = &mut bytes;
        let [version] = take(bytes)?;
        match version {
            VERSION => {}
            0 => return Err(RowError::Unknown("version")),
            newer => return Err(RowError::Newer(newer)),
        }
        let [state] = take(bytes)?;
        let state = State::from_byte(state).ok_or(RowError::Unknown("state"))?;
        let mut number = || take(bytes).map(u64::from_be_bytes);
        let (created, expires, size) = (number()?, number()?, number()?);
        let row = Self {
            state,
            created: Time::from_millis(created),
            expires: Time::from_millis(expires),
            size,
            record: Slot::decode(bytes)?,
            content: Slot::decode(bytes)?,
        };
        if bytes.is_empty() { Ok(row) } else { Err(RowError::Long) }
    }

    pub(super) fn head(&self, id: ObjectId) -> Head {
        Head {
            id,
            state: self.state,
            created: self.created,
            expires: self.expires,
            size: self.size,
            stored: self.stored(),
        }
    }

    /// Bytes that it takes, sealed.
    pub(super) fn stored(&self) -> u64 {
        self.record.length().saturating_add(self.content.length())
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], RowError> {
    let (head, rest) = bytes.split_first_chunk().ok_or(RowError::Short)?;
    *bytes = rest;
    Ok(*head)
}
