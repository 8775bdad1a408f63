//! One safetensors file by itself, whose tensors are not known before: an adapter's.
//!
//! Such files are put in place and replaced while the program runs, so it is not mapped but read: a
//! file that shrinks meanwhile is an error. Its header may claim anything: every number in it is
//! checked against the file, and the tensors must fill it one after another.

use super::super::error::LoadError;
use darkroom_kernels::quant::{self, Format};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// The largest header that is read, in bytes, and the most tensors that it may list.
const MAX_HEADER: u64 = 16 << 20;
const MAX_TENSORS: usize = 20_000;
/// What a header has before its JSON: its length.
const LENGTH: u64 = 8;
/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// An open file.
#[derive(Debug)]
pub struct TensorFile {
    /// Without its folder, for errors.
    name: PathBuf,
    file: File,
    /// Where the first number is.
    start: u64,
    tensors: BTreeMap<String, Info>,
    metadata: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// A header: tensors, and texts under one name that is no tensor's.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__", default)]
    metadata: HashMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Info>,
}

impl TensorFile {
    /// Opens `path` and checks its header; no number is read.
    ///
    /// # Errors
    /// [`LoadError::Io`] or [`LoadError::Format`].
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let name = PathBuf::from(path.file_name().unwrap_or_default());
        let io = |source| LoadError::Io { path: name.clone(), source };
        let bad = |reason: String| {
            let (path, kind) = (name.clone(), "safetensors".to_owned());
            LoadError::Format { path, kind, reason }
        };
        let mut file = File::open(path).map_err(io)?;
        let data = file.metadata().map_err(io)?;
        if !data.is_file() || data.len() < LENGTH {
            return Err(bad("it is shorter than 8 bytes".to_owned()));
        }
        let mut length = [0; LENGTH as usize];
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER.min(data.len() - LENGTH) {
            return Err(bad(format!(
                "its header claims {length} bytes, at most {MAX_HEADER} and what the file has are \
                 allowed"
            )));
        }
        let mut text = vec![0; length as usize];
        file.read_exact(&mut text).map_err(io)?;
        let header: Header =
            serde_json::from_slice(&text).map_err(|error| bad(format!("its header: {error}")))?;
        let start = LENGTH + length;
        let Header { metadata, tensors } = header;
        check(&tensors, data.len() - start).map_err(bad)?;
        Ok(Self { name, file, start, tensors, metadata })
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

    fn format(&self, name: &str, info: &Info) -> Result<Format, LoadError> {
        match info.dtype.as_str() {
            "F32" => Ok(Format::F32),
            "F16" => Ok(Format::F16),
            "BF16" => Ok(Format::BF16),
            other => Err(LoadError::Type {
                path: self.name.clone(),
                tensor: name.to_owned(),
                found: other.to_owned(),
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
        let [from, to] = info.data_offsets;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.start + from)).map_err(io)?;
        let mut left = (to - from) as usize;
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

/// Bytes of a number; 0 of a type that is not known.
fn width(dtype: &str) -> usize {
    match dtype {
        "F64" | "I64" | "U64" => 8,
        "F32" | "I32" | "U32" => 4,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" => 1,
        _ => 0,
    }
}

/// Checks that the tensors fill `size` bytes one after another, each as long as its shape says.
fn check(tensors: &BTreeMap<String, Info>, size: u64) -> Result<(), String> {
    if tensors.len() > MAX_TENSORS {
        return Err(format!(
            "it lists {} tensors, at most {MAX_TENSORS} are allowed",
            tensors.len()
        ));
    }
    let mut order: Vec<(&String, &Info)> = tensors.iter().collect();
    order.sort_by_key(|(_, info)| info.data_offsets);
    let mut end = 0;
    for (name, info) in order {
        let [from, to] = info.data_offsets;
        let elements = info.shape.iter().try_fold(1_usize, |n, &size| n.checked_mul(size));
        let bytes = elements.and_then(|n| n.checked_mul(width(&info.dtype)));
        if from != end || to < from || to > size || bytes.is_none_or(|n| n as u64 != to - from) {
            return Err(format!(
                "the place of tensor {name} does not fit its shape, the file or the other tensors"
            ));
        }
        end = to;
    }
    if end == size {
        Ok(())
    } else {
        Err("it is truncated, or its header does not cover the file".to_owned())
    }
}
