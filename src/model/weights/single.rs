//! One safetensors file by itself, whose tensors are not known before: an adapter's.
//!
//! Such files are put in place and replaced while the program runs, so it is not mapped but read: a
//! file that shrinks meanwhile is an error. Its header is read and checked as that of any other.

use super::{
    super::error::LoadError,
    header::{Encoding, Header, Malformed, TensorInfo},
    is_plain,
};
use darkroom_kernels::quant::{self, Format};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// What a header has before its JSON: its length.
const LENGTH: usize = 8;
/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// An open file.
#[derive(Debug)]
pub struct TensorFile {
    /// Without its folder, for errors.
    name: PathBuf,
    file: File,
    tensors: BTreeMap<String, TensorInfo>,
    metadata: HashMap<String, String>,
}

/// What a header says besides its tensors.
#[derive(Deserialize)]
struct Texts {
    #[serde(rename = "__metadata__", default)]
    metadata: HashMap<String, String>,
}

impl TensorFile {
    /// Opens `path` and checks its header; no number is read.
    ///
    /// # Errors
    /// [`LoadError::Io`] or [`LoadError::Format`].
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let name = PathBuf::from(path.file_name().unwrap_or_default());
        let io = |source| LoadError::Io { path: name.clone(), source };
        let bad = |Malformed { reason, .. }| {
            let (path, kind) = (name.clone(), "safetensors".to_owned());
            LoadError::Format { path, kind, reason }
        };
        let mut file = File::open(path).map_err(io)?;
        let data = file.metadata().map_err(io)?;
        // A folder, a pipe or the like is no file.
        let size = if data.is_file() { data.len() as usize } else { 0 };
        let mut head = vec![0; LENGTH.min(size)];
        file.read_exact(&mut head).map_err(io)?;
        let json = Header::json(&head, size).map_err(bad)?;
        head.resize(LENGTH + json, 0);
        file.read_exact(&mut head[LENGTH..]).map_err(io)?;
        let header = Header::of_safetensors(&head, size).map_err(bad)?;
        let Texts { metadata } = serde_json::from_slice(&head[LENGTH..]).map_err(|error| {
            bad(Malformed { kind: None, reason: format!("its metadata: {error}") })
        })?;
        let named = |tensor: TensorInfo| (tensor.name.clone(), tensor);
        Ok(Self { name, file, tensors: header.tensors.into_iter().map(named).collect(), metadata })
    }

    /// The name of the file, without its folder.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }

    /// The names of its tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor; of one that is not there `[]`.
    #[must_use]
    pub fn shape(&self, name: &str) -> &[usize] {
        self.tensors.get(name).map(|info| info.shape.as_slice()).unwrap_or_default()
    }

    /// A value of the header's metadata.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Checks that a tensor's numbers can be computed with.
    ///
    /// # Errors
    /// [`LoadError::Type`].
    pub fn check_type(&self, name: &str) -> Result<(), LoadError> {
        self.tensors.get(name).map_or(Ok(()), |info| self.format(name, info).map(|_| ()))
    }

    fn format(&self, name: &str, info: &TensorInfo) -> Result<Format, LoadError> {
        match info.encoding {
            Encoding::Weights(format) if is_plain(format) => Ok(format),
            other => Err(LoadError::Type {
                path: self.name.clone(),
                tensor: name.to_owned(),
                found: other.to_string(),
                expected: "F32, F16 or BF16",
            }),
        }
    }

    /// The numbers of a tensor, row by row, as f32.
    ///
    /// # Errors
    /// [`LoadError::Missing`], [`LoadError::Type`], or [`LoadError::Io`] where the file has become
    /// shorter.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, LoadError> {
        let info = self.tensors.get(name).ok_or_else(|| LoadError::Missing {
            path: self.name.clone(),
            tensor: name.to_owned(),
            expected: Vec::new(),
        })?;
        let format = self.format(name, info)?;
        let io = |source| LoadError::Io { path: self.name.clone(), source };
        let mut file = &self.file;
        file.seek(SeekFrom::Start(info.range.start as u64)).map_err(io)?;
        let mut left = info.range.len();
        let mut values = Vec::with_capacity(left / format.block_bytes());
        let mut piece = vec![0; PIECE.min(left)];
        while left > 0 {
            let piece = &mut piece[..PIECE.min(left)];
            file.read_exact(piece).map_err(io)?;
            left -= piece.len();
            let at = values.len();
            values.resize(at + piece.len() / format.block_bytes(), 0.0);
            quant::dequantize(format, piece, &mut values[at..]);
        }
        Ok(values)
    }
}
