//! The header of GGUF, versions 2 and 3: key-value pairs, then tensors, then their bytes.
//!
//! Only little-endian files are read, which is what all converters write.
//!
//! Source: github.com/ggml-org/ggml, docs/gguf.md; the numbers of the types are `ggml_type`'s.

use super::{Encoding, Header, Kind, MAX_DIMS, MAX_TENSORS, TensorInfo, count_of, shown, size_of};
use darkroom_kernels::quant::Format;
use std::{collections::HashMap, ops::Range};

/// The most key-value pairs of a file. Writers make about fifty, and one for each reshaped tensor.
const MAX_KEYS: usize = 20_000;
/// The longest name or key, as ggml has it.
const MAX_NAME: usize = 65_535;
/// Where tensors begin if the file does not say so: at multiples of this.
const ALIGNMENT: u64 = 32;

/// The key-value pairs of a GGUF file. Texts and lists stay in the file.
#[derive(Clone, Debug, Default)]
pub struct Metadata(HashMap<String, Value>);

/// One value of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number, negative ones too.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// Yes or no.
    Flag(bool),
    /// UTF-8 text, by where it lies.
    Text(Range<usize>),
    /// A list of values of the same size, by where it lies.
    Numbers {
        /// ggml's number of their type.
        of: u32,
        /// How many.
        count: usize,
        /// Where.
        range: Range<usize>,
    },
    /// A list of texts, by where it lies.
    Texts {
        /// How many.
        count: usize,
        /// Where: each with its length before it.
        range: Range<usize>,
    },
}

pub(super) const UINT8: u32 = 0;
pub(super) const INT32: u32 = 5;
pub(super) const FLOAT32: u32 = 6;
const TEXT: u32 = 8;
const LIST: u32 = 9;

/// Bytes of a value of a type, or nothing where they vary.
fn width(of: u32) -> Option<usize> {
    match of {
        UINT8 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4 | INT32 | FLOAT32 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<Header, String> {
    let mut file = Cursor { bytes, at: 4 };
    let version = file.u32()?;
    if version.swap_bytes() == 2 || version.swap_bytes() == 3 {
        return Err("it is big-endian; convert it again on a little-endian machine".to_owned());
    }
    if !(2..=3).contains(&version) {
        return Err(format!("its version is {version}, expected 2 or 3"));
    }
    let tensors = file.count("tensors", MAX_TENSORS)?;
    let keys = file.count("keys", MAX_KEYS)?;
    let mut metadata = HashMap::new();
    for _ in 0..keys {
        let key = file.name()?;
        let of = file.u32()?;
        let value = file.value(of).map_err(|reason| format!("key {}: {reason}", shown(&key)))?;
        let twice = format!("key {} is in it twice", shown(&key));
        if metadata.insert(key, value).is_some() {
            return Err(twice);
        }
    }
    let metadata = Metadata(metadata);
    let mut listed = Vec::new();
    for _ in 0..tensors {
        listed.push(file.tensor()?);
    }
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT,
        Some(Value::Integer(n)) if (1..=1 << 16).contains(n) => *n as u64,
        Some(_) => return Err("general.alignment is no number from 1 to 65536".to_owned()),
    };
    let data = (file.at as u64).next_multiple_of(alignment);
    let tensors = listed
        .into_iter()
        .map(|(name, shape, kind, offset)| {
            let wrong = |reason: String| format!("tensor {} {reason}", shown(&name));
            let (encoding, length) = size(kind, &shape).map_err(wrong)?;
            let start = data.checked_add(offset).and_then(|at| usize::try_from(at).ok());
            let range = start.and_then(|start| Some(start..start.checked_add(length)?));
            let range = range.ok_or_else(|| wrong(format!("is at byte {offset}")))?;
            Ok(TensorInfo { name, shape, encoding, range })
        })
        .collect::<Result<_, String>>()?;
    Ok(Header { kind: Kind::Gguf, tensors, metadata })
}

/// The encoding of ggml's type number `kind`, and the bytes of a tensor of `shape`.
fn size(kind: u32, shape: &[usize]) -> Result<(Encoding, usize), String> {
    let plain = |name, size: usize| {
        let length = count_of(shape).and_then(|count| count.checked_mul(size));
        Ok((Encoding::Other(name), length.ok_or_else(|| format!("has shape {shape:?}"))?))
    };
    let format = match kind {
        0 => Format::F32,
        1 => Format::F16,
        2 => Format::Q4_0,
        3 => Format::Q4_1,
        6 => Format::Q5_0,
        7 => Format::Q5_1,
        8 => Format::Q8_0,
        10 => Format::Q2K,
        11 => Format::Q3K,
        12 => Format::Q4K,
        13 => Format::Q5K,
        14 => Format::Q6K,
        30 => Format::BF16,
        24 => return plain("I8", 1),
        25 => return plain("I16", 2),
        26 => return plain("I32", 4),
        27 => return plain("I64", 8),
        28 => return plain("F64", 8),
        other => {
            return Err(format!(
                "has ggml's type {other}, which is not read: take a file of a K type (Q2_K to \
                 Q6_K), Q4_0 to Q8_0, F16 or BF16"
            ));
        }
    };
    let length = size_of(shape, format);
    let length = length.ok_or_else(|| format!("has shape {shape:?} in {}", format.name()))?;
    Ok((Encoding::Weights(format), length))
}

/// A place in the file. Every step is checked against its end.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(length);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or("its header ends beyond the file: it is truncated")?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things of which each takes at least a byte.
    fn count(&mut self, what: &str, most: usize) -> Result<usize, String> {
        let count = self.u64()?;
        let allowed = count <= most as u64;
        if allowed { Ok(count as usize) } else { Err(format!("it claims {count} {what}")) }
    }

    /// The bytes of a text; no more than the file has.
    fn text(&mut self) -> Result<&'a [u8], String> {
        let length = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        self.take(length)
    }

    fn name(&mut self) -> Result<String, String> {
        let bytes = self.text()?;
        let name = std::str::from_utf8(bytes).ok().filter(|name| name.len() <= MAX_NAME);
        Ok(name.ok_or("a name in it is too long, or no UTF-8 text")?.to_owned())
    }

    fn value(&mut self, of: u32) -> Result<Value, String> {
        Ok(match of {
            UINT8 => Value::Integer(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            INT32 => Value::Integer(i32::from_le_bytes(self.array()?).into()),
            FLOAT32 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Flag(u8::from_le_bytes(self.array()?) != 0),
            10 => Value::Integer(self.u64()?.into()),
            11 => Value::Integer(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            TEXT => {
                let length = self.text()?.len();
                Value::Text(self.at - length..self.at)
            }
            LIST => self.list()?,
            other => return Err(format!("type {other} of a value is not known")),
        })
    }

    fn list(&mut self) -> Result<Value, String> {
        let of = self.u32()?;
        let count = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        if of == TEXT {
            let start = self.at;
            for _ in 0..count {
                self.text()?; // of eight bytes at least, so the file ends this loop
            }
            return Ok(Value::Texts { count, range: start..self.at });
        }
        // Lists of lists are in no file that exists, and could be as deep as the file is long.
        let width = width(of).ok_or_else(|| format!("a list of type {of} is not read"))?;
        let length = count.checked_mul(width).ok_or("a list in it is too long")?;
        self.take(length)?;
        Ok(Value::Numbers { of, count, range: self.at - length..self.at })
    }

    /// Name, shape, type and offset of a tensor.
    fn tensor(&mut self) -> Result<(String, Vec<usize>, u32, u64), String> {
        let name = self.name()?;
        let dims = self.u32()? as usize;
        if dims > MAX_DIMS {
            return Err(format!("tensor {} has {dims} dimensions", shown(&name)));
        }
        let mut shape = Vec::with_capacity(dims);
        for _ in 0..dims {
            let dim = usize::try_from(self.u64()?);
            shape.push(dim.map_err(|_| format!("tensor {} is too large", shown(&name)))?);
        }
        shape.reverse(); // ggml's first dimension lies closest in memory
        Ok((name, shape, self.u32()?, self.u64()?))
    }
}

impl Metadata {
    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The whole number of `key`.
    #[must_use]
    pub fn integer(&self, key: &str) -> Option<i128> {
        let Some(Value::Integer(n)) = self.get(key) else { return None };
        Some(*n)
    }

    /// The text of `key`, which lies in `file`.
    #[must_use]
    pub fn text<'a>(&self, key: &str, file: &'a [u8]) -> Option<&'a str> {
        let Some(Value::Text(range)) = self.get(key) else { return None };
        std::str::from_utf8(file.get(range.clone())?).ok()
    }

    /// The texts of `key`, which lie in `file`; nothing where there are more than `most`, or one of
    /// them is no UTF-8.
    #[must_use]
    pub fn texts<'a>(&self, key: &str, most: usize, file: &'a [u8]) -> Option<Vec<&'a str>> {
        let Some(Value::Texts { count, range }) = self.get(key) else { return None };
        if *count > most {
            return None;
        }
        let mut list = Cursor { bytes: file.get(..range.end)?, at: range.start };
        (0..*count).map(|_| std::str::from_utf8(list.text().ok()?).ok()).collect()
    }

    /// The bytes of a list of u8 or i8 under `key`.
    #[must_use]
    pub fn bytes<'a>(&self, key: &str, file: &'a [u8]) -> Option<&'a [u8]> {
        let Some(Value::Numbers { of: UINT8 | 1, range, .. }) = self.get(key) else { return None };
        file.get(range.clone())
    }

    /// The numbers of a list of f32 under `key`; nothing where there are more than `most`.
    #[must_use]
    pub fn floats(&self, key: &str, most: usize, file: &[u8]) -> Option<Vec<f32>> {
        Some(self.words(key, FLOAT32, most, file)?.map(f32::from_le_bytes).collect())
    }

    /// The numbers of a list of i32 under `key`; nothing where there are more than `most`.
    #[must_use]
    pub fn integers(&self, key: &str, most: usize, file: &[u8]) -> Option<Vec<i32>> {
        Some(self.words(key, INT32, most, file)?.map(i32::from_le_bytes).collect())
    }

    fn words<'a>(
        &self,
        key: &str,
        wanted: u32,
        most: usize,
        file: &'a [u8],
    ) -> Option<impl Iterator<Item = [u8; 4]> + use<'a>> {
        let Some(Value::Numbers { of, count, range }) = self.get(key) else { return None };
        let fits = *of == wanted && *count <= most;
        let (words, _) = file.get(range.clone()).filter(|_| fits)?.as_chunks::<4>();
        Some(words.iter().copied())
    }
}
