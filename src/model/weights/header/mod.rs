//! What a weights file says of itself: which tensors it holds, and where.
//!
//! The readers take the whole file as bytes, usually a memory map, and touch its header only. A file
//! comes from anyone, so each number is checked against the file before it is used, every list has a
//! bound, and what is kept is smaller than the header that said it: a hostile file costs
//! milliseconds. The kind of a file is told by its first bytes, never by its name.

mod gguf;
mod safetensors;

use darkroom_kernels::quant::Format;
pub use gguf::{Metadata, Value};
use std::{collections::HashSet, fmt, ops::Range};

/// The most tensors that one file may list. A released checkpoint with everything in it, each
/// layer with two notes on its scale, has 3,500.
const MAX_TENSORS: usize = 8_000;
/// The most dimensions of a tensor, padding of ones included.
pub(super) const MAX_DIMS: usize = 8;

/// The container that a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Hugging Face's.
    Safetensors,
    /// ggml's, versions 2 and 3.
    Gguf,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "GGUF",
        })
    }
}

/// How the numbers of a tensor are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// One that can be computed with.
    Weights(Format),
    /// Bytes, which hold a text or a marker.
    Bytes,
    /// Any other, by its name in the file.
    Other(&'static str),
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weights(format) => format.name(),
            Self::Bytes => "U8",
            Self::Other(name) => name,
        })
    }
}

/// One tensor of a file.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// Its shape, the dimension that lies closest in memory last.
    pub shape: Vec<usize>,
    /// How its numbers are written.
    pub encoding: Encoding,
    /// Where its bytes lie in the file.
    pub range: Range<usize>,
}

/// The header of a file, checked against it.
#[derive(Clone, Debug)]
pub struct Header {
    /// The container.
    pub kind: Kind,
    /// All tensors; no two have the same name or share a byte.
    pub tensors: Vec<TensorInfo>,
    /// What a GGUF says besides its tensors; empty for safetensors, whose metadata nobody needs.
    pub metadata: Metadata,
}

/// Why a file's header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Malformed {
    /// The container that the file would be; nothing where it is none of them.
    pub kind: Option<Kind>,
    /// What is wrong with it.
    pub reason: String,
}

impl Header {
    /// Reads the header of the file that `bytes` are the whole of.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let safetensors = || safetensors::read(bytes, bytes.len());
        let (kind, read) = match bytes {
            [b'G', b'G', b'U', b'F', ..] => (Kind::Gguf, gguf::read(bytes)),
            // Safetensors' length before its JSON may begin like anything.
            [_, _, _, _, _, _, _, _, b'{', ..] => (Kind::Safetensors, safetensors()),
            // A pickled checkpoint, whole or in a zip file: it would run whatever code it holds.
            [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] => {
                let reason = "it is a pickled checkpoint, whose code could do anything: convert it \
                              to safetensors";
                return Err(Malformed { kind: None, reason: reason.to_owned() });
            }
            _ => (Kind::Safetensors, safetensors()),
        };
        Self::checked(kind, read, bytes.len())
    }

    /// Bytes of the JSON in a file of safetensors of `size` bytes that begins with the eight `bytes`.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn json(bytes: &[u8], size: usize) -> Result<usize, Malformed> {
        safetensors::length(bytes, size).map_err(|reason| malformed(Kind::Safetensors, &reason))
    }

    /// Reads the header of a file of safetensors of `size` bytes that begins with `bytes`, the JSON
    /// included.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn of_safetensors(bytes: &[u8], size: usize) -> Result<Self, Malformed> {
        Self::checked(Kind::Safetensors, safetensors::read(bytes, size), size)
    }

    fn checked(kind: Kind, read: Result<Self, String>, size: usize) -> Result<Self, Malformed> {
        let checked = read.and_then(|header| check(&header, size).map(|()| header));
        checked.map_err(|reason| malformed(kind, &reason))
    }
}

/// A reason may quote the file, and an error is one line.
fn malformed(kind: Kind, reason: &str) -> Malformed {
    Malformed { kind: Some(kind), reason: reason.chars().take(400).map(plain).collect() }
}

/// Checks names and places of the tensors against each other and against the file's length.
fn check(header: &Header, length: usize) -> Result<(), String> {
    let mut names = HashSet::with_capacity(header.tensors.len());
    for tensor in &header.tensors {
        if !names.insert(tensor.name.as_str()) {
            return Err(format!("tensor {} is in it twice", shown(&tensor.name)));
        }
        if tensor.range.end > length {
            return Err(format!(
                "tensor {} ends at byte {}, but the file has {length}: it is truncated",
                shown(&tensor.name),
                tensor.range.end
            ));
        }
    }
    let mut places: Vec<_> = header.tensors.iter().filter(|t| !t.range.is_empty()).collect();
    places.sort_unstable_by_key(|tensor| tensor.range.start);
    for pair in places.windows(2) {
        if let [a, b] = pair
            && b.range.start < a.range.end
        {
            return Err(format!("tensors {} and {} overlap", shown(&a.name), shown(&b.name)));
        }
    }
    Ok(())
}

/// Numbers of a tensor, or nothing where there are too many, or would be but for a dimension of 0.
fn count_of(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim.max(1)))?;
    Some(shape.iter().product())
}

/// Bytes of a tensor, or nothing where they are too many or its rows do not fill whole blocks.
fn size_of(shape: &[usize], format: Format) -> Option<usize> {
    let row = shape.last().copied().unwrap_or(1);
    let rows = count_of(shape)?.checked_div(row).unwrap_or(0);
    format.row_bytes(row)?.checked_mul(rows)
}

/// A name as an error shows it: no line breaks, not too long.
fn shown(name: &str) -> String {
    name.chars().take(80).map(plain).collect()
}

fn plain(c: char) -> char {
    if c.is_control() { '?' } else { c }
}
