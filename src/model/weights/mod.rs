//! Weights of one component: which files hold them, what tensors are in there, and which have been
//! used.
//!
//! Called by the model's constructors. A tensor is asked for by name and by the shape that the
//! configuration implies; every disagreement is a [`LoadError`] that names file, tensor, expected
//! and found. What nobody asked for is surplus, and [`Weights::finish`] says so.

mod config;
mod files;
mod mmap;
mod single;

pub use config::ConfigFile;
pub use single::TensorFile;

use super::{error::LoadError, ops::Ops};
use candle_core::{DType, Device, Tensor};
use files::{Entry, Files};
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
        Self { device, dtype, ops, linear_calls: Arc::default() }
    }
}

/// A view of one component's weights below a name prefix. Cheap to clone.
#[derive(Clone)]
pub struct Weights {
    shared: Arc<Shared>,
    prefix: String,
}

struct Shared {
    files: Files,
    target: Target,
    used: Mutex<HashSet<String>>,
}

impl Weights {
    /// Opens the weights in `folder`: `stem.safetensors`, or the shards that
    /// `stem.safetensors.index.json` lists.
    ///
    /// # Errors
    /// [`LoadError`] where no file is there, a header is invalid, or a shard does not hold what the
    /// index says.
    pub fn open(folder: &Path, stem: &str, target: &Target) -> Result<Self, LoadError> {
        let shared = Shared {
            files: Files::open(folder, stem)?,
            target: target.clone(),
            used: Mutex::new(HashSet::new()),
        };
        Ok(Self { shared: Arc::new(shared), prefix: String::new() })
    }

    /// The same weights, one level down: names are then relative to `prefix.name`.
    #[must_use]
    pub fn pp(&self, name: impl std::fmt::Display) -> Self {
        let prefix = self.full_name(name);
        Self { shared: self.shared.clone(), prefix }
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
        self.shared.files.shape(&self.full_name(name)).is_some()
    }

    /// The tensor `name` of shape `shape`, on the target's device in the target's type.
    ///
    /// # Errors
    /// [`LoadError::Missing`], [`LoadError::Shape`], [`LoadError::Type`], or the device's refusal.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        let entry = self.entry(name, shape)?;
        let Target { device, dtype, .. } = &self.shared.target;
        let tensor = Tensor::from_raw_buffer(entry.bytes, entry.dtype, shape, device)?;
        Ok(tensor.to_dtype(*dtype)?)
    }

    /// The tensor `name` of shape `shape` as f32 numbers in host memory, in row-major order.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn host(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let entry = self.entry(name, shape)?;
        let mut values = vec![0.0; shape.iter().product()];
        entry.read_f32(0, &mut values);
        Ok(values)
    }

    /// Hands the rows of the matrix `name` [n, k] to `use_row` one by one, so that a half-precision
    /// matrix never needs a whole f32 copy.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn matrix<T>(
        &self,
        name: &str,
        n: usize,
        k: usize,
        build: impl FnOnce(&mut dyn FnMut(usize, &mut [f32])) -> T,
    ) -> Result<T, LoadError> {
        let entry = self.entry(name, &[n, k])?;
        Ok(build(&mut |row, values| entry.read_f32(row * k, values)))
    }

    /// The rows `ids` of the matrix `name` [n, k] as f32 numbers in host memory, one after another:
    /// nothing else of a large table is read. An id past the table gives zeros.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn rows(&self, name: &str, n: usize, k: usize, ids: &[u32]) -> Result<Vec<f32>, LoadError> {
        let entry = self.entry(name, &[n, k])?;
        let mut values = vec![0.0; ids.len() * k];
        for (&id, row) in ids.iter().zip(values.chunks_mut(k.max(1))) {
            entry.read_f32(id as usize * k, row);
        }
        Ok(values)
    }

    fn entry(&self, name: &str, shape: &[usize]) -> Result<Entry<'_>, LoadError> {
        let full = self.full_name(name);
        let entry = self.shared.files.get(&full)?.ok_or_else(|| LoadError::Missing {
            path: self.shared.files.path().to_owned(),
            tensor: full.clone(),
            expected: shape.to_vec(),
        })?;
        if entry.shape != shape {
            return Err(LoadError::Shape {
                path: entry.path.to_owned(),
                tensor: full,
                expected: shape.to_vec(),
                found: entry.shape.to_vec(),
            });
        }
        self.shared.used.lock().unwrap_or_else(PoisonError::into_inner).insert(full);
        Ok(entry)
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
