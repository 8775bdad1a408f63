//! Weights of one component: which files hold them, what tensors are in there, and which have been
//! used.
//!
//! Called by the model's constructors. A tensor is asked for by name and by the shape that the
//! configuration implies; every disagreement is a [`LoadError`] that names file, tensor, expected
//! and found. What nobody asked for is surplus, and [`Weights::finish`] says so.

mod config;
mod entry;
mod files;
pub mod header;
mod mmap;
mod names;
mod place;
mod released;
mod single;
mod source;
mod stream;
mod vocabulary;

pub use config::ConfigFile;
pub use entry::Stored;
pub(crate) use place::is_plain;
pub use place::{Amount, Footprint, Placement};
pub use single::TensorFile;
pub use source::{Part, Source, parts_of};
pub use stream::Stream;
pub use vocabulary::Vocabulary;

use super::{error::LoadError, ops::Ops};
use candle_core::{DType, Device, Tensor};
use darkroom_kernels::quant::Format;
use entry::Entry;
use files::Files;
use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

/// Where the numbers go: device, type of computation, and which operations run them.
#[derive(Clone, Debug)]
pub struct Target {
    /// The device that holds the tensors.
    pub device: Device,
    /// The type of computation: f32 on a CPU, f32, bf16 or f16 on a GPU.
    pub dtype: DType,
    /// Own kernels or candle's stock operations.
    pub ops: Ops,
    /// Whether own kernels multiply quantised weights in bytes, with activations rounded to 8 bits.
    pub in_bytes: bool,
    /// Counts the calls of linear layers: one matrix product each, whatever the batch.
    pub linear_calls: Arc<AtomicU64>,
}

impl Target {
    /// The CPU with this project's kernels, in f32.
    #[must_use]
    pub fn cpu() -> Self {
        Self::new(Device::Cpu, DType::F32)
    }

    /// `device` computing in `dtype`, with own kernels where they exist.
    #[must_use]
    pub fn new(device: Device, dtype: DType) -> Self {
        let own = device.is_cpu() && dtype == DType::F32;
        let ops = if own { Ops::Own } else { Ops::Stock };
        Self { device, dtype, ops, in_bytes: false, linear_calls: Arc::default() }
    }
}

/// A view of one component's weights below a name prefix. Cheap to clone.
#[derive(Clone)]
pub struct Weights {
    shared: Arc<Shared>,
    prefix: String,
    placement: Placement,
}

struct Shared {
    part: Part,
    files: Files,
    target: Target,
    used: Mutex<HashSet<String>>,
}

impl Weights {
    /// Opens the weights of a part: of a folder `STEM.safetensors` or the shards that
    /// `STEM.safetensors.index.json` lists, or a file of any kind. Names are those of diffusers and
    /// transformers, whatever the file's are.
    ///
    /// # Errors
    /// [`LoadError`] where no file is there, a header is invalid, a shard does not hold what the
    /// index says, or a file does not hold the part.
    pub fn open(source: &Source, target: &Target) -> Result<Self, LoadError> {
        Ok(Self::new(source.part, Files::open(source)?, target))
    }

    /// The weights of `part` in a file whose bytes are in memory; errors name `path`.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn in_memory(
        path: &Path,
        bytes: Vec<u8>,
        part: Part,
        target: &Target,
    ) -> Result<Self, LoadError> {
        Ok(Self::new(part, Files::in_memory(path, bytes, part)?, target))
    }

    fn new(part: Part, files: Files, target: &Target) -> Self {
        let shared =
            Shared { part, files, target: target.clone(), used: Mutex::new(HashSet::new()) };
        Self { shared: Arc::new(shared), prefix: String::new(), placement: Placement::Unpacked }
    }

    /// The same weights, for a network whose matrices are to be at `placement`: unpacked, where nobody
    /// says so.
    #[must_use]
    pub fn place(&self, placement: Placement) -> Self {
        Self { placement, ..self.clone() }
    }

    /// Where matrices are to be.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// What the part takes, by its headers.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint::of(self.shared.files.entries())
    }

    /// The same weights, one level down: names are then relative to `prefix.name`.
    #[must_use]
    pub fn pp(&self, name: impl std::fmt::Display) -> Self {
        let prefix = self.full_name(name);
        Self { shared: self.shared.clone(), prefix, placement: self.placement }
    }

    fn full_name(&self, name: impl std::fmt::Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    /// Where in its component this view begins, as `transformer_blocks.0.attn.to_q`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.prefix
    }

    /// Where the tensors go.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.shared.target
    }

    /// Whether a tensor of that name is in the files.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.shared.files.get(&self.full_name(name)).is_some()
    }

    /// The tensor `name` of shape `shape`, on the target's device in the target's type.
    ///
    /// # Errors
    /// [`LoadError::Missing`], [`LoadError::Shape`], [`LoadError::Type`], or the device's refusal.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        let (entry, format) = self.entry(name, shape)?;
        let Target { device, dtype, .. } = &self.shared.target;
        let plain = match format {
            Format::F32 => Some(DType::F32),
            Format::F16 => Some(DType::F16),
            Format::BF16 => Some(DType::BF16),
            _ => None,
        };
        let tensor = match plain.filter(|_| entry.is_unscaled()) {
            Some(plain) => Tensor::from_raw_buffer(&entry.bytes(), plain, shape, device)?,
            None => Tensor::from_vec(entry.floats(format), shape, device)?,
        };
        Ok(tensor.to_dtype(*dtype)?)
    }

    /// The tensor `name` of shape `shape` as f32 numbers in host memory, in row-major order.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn host(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let (entry, format) = self.entry(name, shape)?;
        Ok(entry.floats(format))
    }

    /// Hands the rows of the matrix `name` [n, k] to `use_row` one by one, so that a half-precision
    /// matrix never needs a whole f32 copy.
    ///
    /// # Errors
    /// As [`Weights::stored`].
    pub fn matrix<T>(
        &self,
        name: &str,
        n: usize,
        k: usize,
        build: impl FnOnce(&mut dyn FnMut(usize, &mut [f32])) -> T,
    ) -> Result<T, LoadError> {
        let stored = self.stored(name, n, k)?;
        Ok(build(&mut |row, values| {
            stored.row(row, values);
        }))
    }

    /// The matrix `name` [n, k] as it lies in the file.
    ///
    /// # Errors
    /// As [`Weights::tensor`], and [`LoadError::Blocks`].
    pub fn stored(&self, name: &str, n: usize, k: usize) -> Result<Stored, LoadError> {
        let (entry, format) = self.entry(name, &[n, k])?;
        entry.stored(format, n, k).ok_or_else(|| LoadError::Blocks {
            path: entry.path().to_owned(),
            tensor: self.full_name(name),
            shape: vec![n, k],
            format: format.name(),
        })
    }

    /// All tensors with their shapes, in no order.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.shared.files.shapes()
    }

    /// The format of the tensor `name`, where there is such a tensor that can be computed with.
    #[must_use]
    pub fn format(&self, name: &str) -> Option<Format> {
        self.shared.files.get(&self.full_name(name))?.format()
    }

    fn entry(&self, name: &str, shape: &[usize]) -> Result<(&Entry, Format), LoadError> {
        let full = self.full_name(name);
        let entry = self.shared.files.get(&full).ok_or_else(|| LoadError::Missing {
            path: self.shared.files.path().to_owned(),
            tensor: full.clone(),
            expected: shape.to_vec(),
        })?;
        let format = entry.format().ok_or_else(|| LoadError::Type {
            path: entry.path().to_owned(),
            tensor: full.clone(),
            found: entry.encoding.to_string(),
            expected: "F32, F16 or BF16, an 8-bit float or a quantised type of ggml",
        })?;
        if entry.shape != shape {
            return Err(LoadError::Shape {
                path: entry.path().to_owned(),
                tensor: full,
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            });
        }
        self.shared.used.lock().unwrap_or_else(PoisonError::into_inner).insert(full);
        Ok((entry, format))
    }

    /// The configuration that the part's tensors imply, for a file that comes without one.
    ///
    /// # Errors
    /// [`LoadError::Config`] where they do not tell all of it.
    pub fn implied_config(&self) -> Result<ConfigFile, LoadError> {
        released::implied(self.shared.part, &self.shared.files)
    }

    /// The vocabulary that a GGUF of T5 has inside.
    ///
    /// # Errors
    /// [`LoadError::Tokenizer`] where there is one that cannot be used.
    pub fn vocabulary(&self) -> Result<Option<Vocabulary>, LoadError> {
        let Some((file, header)) = self.shared.files.single() else { return Ok(None) };
        Vocabulary::read(&file.path, file.bytes(), &header.metadata)
    }

    /// Says that these names may be present unused: copies that some writers keep of a tied tensor.
    pub fn allow(&self, names: &[&str]) {
        let mut used = self.shared.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.extend(names.iter().map(|name| self.full_name(name)));
    }

    /// Checks that every tensor in the files has been asked for.
    ///
    /// # Errors
    /// [`LoadError::Surplus`] with the first names otherwise.
    pub fn finish(&self) -> Result<(), LoadError> {
        let used = self.shared.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut surplus: Vec<&str> =
            self.shared.files.names().filter(|name| !used.contains(*name)).collect();
        if surplus.is_empty() {
            return Ok(());
        }
        surplus.sort_unstable();
        let count = surplus.len();
        surplus.truncate(5);
        let mut names = surplus.join(", ");
        if count > surplus.len() {
            names.push_str(", ...");
        }
        Err(LoadError::Surplus { path: self.shared.files.path().to_owned(), count, names })
    }
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weights({}, prefix {:?})", self.shared.files.path().display(), self.prefix)
    }
}
