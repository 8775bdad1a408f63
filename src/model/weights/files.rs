//! The safetensors files of one component: headers read and checked, data left in the map.
//!
//! Every offset is checked against the file by the safetensors crate before a byte is used; on top
//! of that a header may not be larger or list more tensors than any real model does.

use super::{super::error::LoadError, mmap};
use candle_core::DType;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    path::{Path, PathBuf},
};

/// The largest header that is read, in bytes. The released transformer's has 60 KB.
const MAX_HEADER: u64 = 16 << 20;
/// The most tensors that one file may list. The released transformer has 780.
const MAX_TENSORS: usize = 20_000;

/// The open files of a component.
pub(super) struct Files {
    path: PathBuf,
    shards: Vec<(PathBuf, memmap2::Mmap)>,
    table: HashMap<String, Located>,
}

struct Located {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// One tensor as it lies in its file.
pub(super) struct Entry<'a> {
    pub(super) path: &'a Path,
    pub(super) shape: &'a [usize],
    pub(super) dtype: DType,
    pub(super) bytes: &'a [u8],
}

impl Entry<'_> {
    /// Reads `values.len()` numbers from element `start` on, converted to f32. What lies beyond the
    /// tensor stays as it was.
    pub(super) fn read_f32(&self, start: usize, values: &mut [f32]) {
        let size = self.dtype.size_in_bytes();
        let bytes = self.bytes.get(start * size..).unwrap_or_default();
        match self.dtype {
            DType::F16 => {
                for (value, b) in values.iter_mut().zip(bytes.chunks_exact(2)) {
                    *value = f16::from_le_bytes([b[0], b[1]]).to_f32();
                }
            }
            DType::BF16 => {
                for (value, b) in values.iter_mut().zip(bytes.chunks_exact(2)) {
                    *value = bf16::from_le_bytes([b[0], b[1]]).to_f32();
                }
            }
            // Files::get gives out nothing but these three types.
            _ => {
                for (value, b) in values.iter_mut().zip(bytes.chunks_exact(4)) {
                    *value = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
        }
    }
}

impl Files {
    pub(super) fn open(folder: &Path, stem: &str) -> Result<Self, LoadError> {
        let single = folder.join(format!("{stem}.safetensors"));
        let index = folder.join(format!("{stem}.safetensors.index.json"));
        let mut files = Self { path: folder.to_owned(), shards: Vec::new(), table: HashMap::new() };
        if single.is_file() {
            files.add(&single)?;
            files.path = single;
        } else if index.is_file() {
            files.add_index(folder, &index)?;
        } else {
            return Err(LoadError::NoWeights {
                folder: folder.to_owned(),
                expected: format!("{stem}.safetensors"),
            });
        }
        Ok(files)
    }

    fn add(&mut self, path: &Path) -> Result<(), LoadError> {
        let bad = |reason: String| LoadError::Format { path: path.to_owned(), reason };
        let io = |source| LoadError::Io { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(io)?.len() < 8 {
            return Err(bad("it is shorter than 8 bytes".to_owned()));
        }
        let map = mmap::map(path)?;
        let head = map.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if head > MAX_HEADER {
            return Err(bad(format!(
                "its header claims {head} bytes, at most {MAX_HEADER} are allowed"
            )));
        }
        let (size, metadata) =
            SafeTensors::read_metadata(&map).map_err(|error| bad(describe(&error)))?;
        let tensors = metadata.tensors();
        if tensors.len() > MAX_TENSORS {
            return Err(bad(format!(
                "it lists {} tensors, at most {MAX_TENSORS} are allowed",
                tensors.len()
            )));
        }
        let start = size + 8;
        let shard = self.shards.len();
        for (name, info) in tensors {
            let (from, to) = info.data_offsets;
            let located = Located {
                shard,
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: start + from..start + to,
            };
            if self.table.insert(name.clone(), located).is_some() {
                return Err(bad(format!("tensor {name} is in another shard too")));
            }
        }
        self.shards.push((path.to_owned(), map));
        Ok(())
    }

    fn add_index(&mut self, folder: &Path, index: &Path) -> Result<(), LoadError> {
        let bad = |reason: String| LoadError::Index { path: index.to_owned(), reason };
        let text = std::fs::read_to_string(index)
            .map_err(|source| LoadError::Io { path: index.to_owned(), source })?;
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let Index { weight_map } =
            serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        let shards: std::collections::BTreeSet<&String> = weight_map.values().collect();
        for shard in shards {
            // A name with a folder in it could point anywhere on the disk.
            if shard.contains(['/', '\\']) || !shard.ends_with(".safetensors") {
                return Err(bad(format!("shard {shard:?} is not a plain .safetensors file name")));
            }
            self.add(&folder.join(shard))?;
        }
        for (tensor, shard) in &weight_map {
            let found = self.table.get(tensor).and_then(|t| self.shards.get(t.shard));
            if found.is_none_or(|(path, _)| path.file_name() != Some(shard.as_ref())) {
                return Err(bad(format!("tensor {tensor} is not in {shard} as the index says")));
            }
        }
        Ok(())
    }

    /// The tensor `name`, or nothing where it is in no file.
    ///
    /// # Errors
    /// [`LoadError::Type`] where its numbers are none to compute with.
    pub(super) fn get(&self, name: &str) -> Result<Option<Entry<'_>>, LoadError> {
        let Some(located) = self.table.get(name) else { return Ok(None) };
        let Some((path, map)) = self.shards.get(located.shard) else { return Ok(None) };
        let dtype = match located.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(LoadError::Type {
                    path: path.clone(),
                    tensor: name.to_owned(),
                    found: format!("{other:?}"),
                });
            }
        };
        let bytes = map.get(located.range.clone()).unwrap_or_default();
        Ok(Some(Entry { path, shape: &located.shape, dtype, bytes }))
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.table.get(name).map(|located| located.shape.as_slice())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.table.keys().map(String::as_str)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The crate's reasons in words of a user: the usual cause is a broken download.
fn describe(error: &safetensors::SafeTensorError) -> String {
    use safetensors::SafeTensorError as E;
    match error {
        E::MetadataIncompleteBuffer | E::HeaderTooSmall | E::InvalidHeaderLength => {
            "it is truncated, or its header does not cover the file".to_owned()
        }
        other => other.to_string(),
    }
}
