//! Blob files: the sealed values that are too large for a row, one file each.
//!
//! A file says whose it is, so that the list of pictures can be rebuilt from the files alone:
//!
//! ```text
//! "drkblob" 7 · version 1 · owner 16 · object 16 · class 1 · kind 1
//! body length 8 · body crc 4 · row length 4 · row · crc of all before 4 · body
//! ```
//!
//! The row is the entry's own, with this value's slot empty. The body is the sealed value.

use super::{
    Class, Disk, Kind, StoreError,
    disk::failed,
    row::{LARGEST, Row, Slot, ValueId},
};
use crate::domain::{ObjectId, OwnerId};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The first bytes of a blob file; the last of them is the version.
const MAGIC: &[u8; 8] = b"drkblob\x01";
/// Bytes before the row.
const FIXED: usize = 8 + 16 + 16 + 2 + 8 + 4 + 4;
/// What a file is called until its content is on the disk.
const PART: &str = "part";
/// What it is called then.
const BLOB: &str = "blob";

/// A value that goes into a file.
pub(super) struct Blob<'a> {
    pub(super) owner: OwnerId,
    pub(super) object: ObjectId,
    pub(super) class: Class,
    pub(super) kind: Kind,
    pub(super) row: Row,
    pub(super) body: &'a [u8],
}

/// What stands before the body of a file.
pub(super) struct Header {
    pub(super) owner: OwnerId,
    pub(super) object: ObjectId,
    pub(super) class: Class,
    pub(super) kind: Kind,
    pub(super) row: Row,
    pub(super) length: u64,
    pub(super) crc: u32,
}

/// The folder of the blob files.
#[derive(Debug)]
pub(super) struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    pub(super) const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path(&self, file: ValueId) -> PathBuf {
        self.named(file, BLOB)
    }

    fn named(&self, file: ValueId, extension: &str) -> PathBuf {
        // Ids of objects are written alike.
        self.folder.join(format!("{}.{extension}", ObjectId::from_bytes(file)))
    }

    /// Writes a file under its last name, with its content on the disk; its name is there after
    /// [`Blobs::sync`]. What an error leaves behind is a file that no row names.
    pub(super) fn write(
        &self,
        disk: &dyn Disk,
        file: ValueId,
        blob: &Blob<'_>,
    ) -> Result<Slot, StoreError> {
        let crc = crc32fast::hash(blob.body);
        let header = blob.header(crc);
        let (part, path) = (self.named(file, PART), self.path(file));
        let written = disk
            .create(&part, &[&header, blob.body])
            .and_then(|open| disk.sync(&open, &part))
            .and_then(|()| disk.rename(&part, &path));
        if let Err(error) = written {
            // The first error is the one to tell, and the sweep removes what this could not.
            drop(disk.remove(&part));
            return Err(failed("write", &path)(error));
        }
        Ok(Slot::File { file, length: blob.body.len() as u64, crc })
    }

    /// Returns when the names in the folder are on the disk.
    pub(super) fn sync(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        disk.sync_folder(&self.folder).map_err(failed("sync", &self.folder))
    }

    /// The body of a file, or why there is none.
    pub(super) fn read(&self, file: ValueId, length: u64, crc: u32) -> Result<Vec<u8>, ReadError> {
        let mut open = File::open(self.path(file)).map_err(ReadError::Io)?;
        let header = Header::read(&mut open)?;
        if header.length != length || header.crc != crc {
            return Err(ReadError::Damaged("its header does not fit its entry"));
        }
        body(&mut open, length, crc)
    }

    /// The files of the folder: their ids, and the names that are no ids.
    pub(super) fn list(&self) -> Result<(Vec<ValueId>, Vec<PathBuf>), StoreError> {
        let read = |error| failed("read", &self.folder)(error);
        let (mut files, mut others) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&self.folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let id = stem.and_then(|stem| stem.parse::<ObjectId>().ok());
            match id.filter(|_| path.extension().is_some_and(|extension| extension == BLOB)) {
                Some(id) => files.push(*id.as_bytes()),
                None => others.push(path),
            }
        }
        Ok((files, others))
    }

    /// Whether a path is that of a file that was never finished.
    pub(super) fn unfinished(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == PART)
    }
}

impl Blob<'_> {
    fn header(&self, crc: u32) -> Vec<u8> {
        let row = self.row.encode();
        let mut out = MAGIC.to_vec();
        out.extend(self.owner.as_bytes());
        out.extend(self.object.as_bytes());
        out.extend([self.class.tag(), self.kind as u8]);
        out.extend((self.body.len() as u64).to_be_bytes());
        out.extend(crc.to_be_bytes());
        out.extend((row.len() as u32).to_be_bytes());
        out.extend(row);
        out.extend(crc32fast::hash(&out).to_be_bytes());
        out
    }
}

/// Why a blob file could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    Io(io::Error),
    Damaged(&'static str),
}

impl Header {
    /// Reads the header, and leaves the file where the body begins.
    pub(super) fn read(file: &mut impl Read) -> Result<Self, ReadError> {
        const FOREIGN: ReadError = ReadError::Damaged("its file has no header of Darkroom's");
        let mut bytes = exactly(file, FIXED)?;
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(FOREIGN)?;
        let mut take = |count: usize| {
            let (head, tail) = rest.split_at_checked(count).ok_or(FOREIGN)?;
            rest = tail;
            Ok::<_, ReadError>(head)
        };
        let owner = OwnerId::from_bytes(array(take(16)?)?);
        let object = ObjectId::from_bytes(array(take(16)?)?);
        let [class, kind] = array(take(2)?)?;
        let length = u64::from_be_bytes(array(take(8)?)?);
        let crc = u32::from_be_bytes(array(take(4)?)?);
        let row = u32::from_be_bytes(array(take(4)?)?) as usize;
        if row > LARGEST {
            return Err(FOREIGN);
        }
        let tail = exactly(file, row + 4)?;
        let (row, sum) = tail.split_at(row);
        bytes.extend(row);
        if crc32fast::hash(&bytes).to_be_bytes() != sum {
            return Err(ReadError::Damaged("its file's header does not have its checksum"));
        }
        let class = Class::from_tag(class).ok_or(FOREIGN)?;
        let kind = Kind::from_byte(kind).ok_or(FOREIGN)?;
        let row = Row::decode(row).map_err(|_| FOREIGN)?;
        Ok(Self { owner, object, class, kind, row, length, crc })
    }

    /// The bytes of the whole file.
    pub(super) fn file_length(&self) -> u64 {
        self.length.saturating_add((FIXED + self.row.encode().len() + 4) as u64)
    }
}

/// The rest of a file whose header was read.
pub(super) fn body(file: &mut impl Read, length: u64, crc: u32) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    // The file's own length decides what is allocated, whatever the header says.
    file.take(length.saturating_add(1)).read_to_end(&mut body).map_err(ReadError::Io)?;
    if body.len() as u64 != length {
        return Err(ReadError::Damaged("its file does not have its length"));
    }
    if crc32fast::hash(&body) != crc {
        return Err(ReadError::Damaged("its file does not have its checksum"));
    }
    Ok(body)
}

fn exactly(file: &mut impl Read, count: usize) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; count];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(ReadError::Damaged("its file is cut short"))
        }
        Err(error) => Err(ReadError::Io(error)),
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], ReadError> {
    bytes.try_into().map_err(|_| ReadError::Damaged("its file is cut short"))
}
