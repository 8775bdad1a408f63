//! Adapters (LoRA and its relatives) from files of every program that writes them.
//!
//! `pipeline` opens a [`LoraFile`], which reads the header alone and says what the file will do and
//! cost, and later loads an [`Adapter`], which a job hands to the networks. A model's weights are
//! read for DoRA's norms and never changed.
//!
//! A file's names decide what it is, never its own: `keys` knows prefixes and suffixes, `names` the
//! layers, `plan` what the tensors of a layer are together, `matrix` and `build` what is made of
//! their numbers. Whatever has no meaning here is an error that lists it.

mod build;
mod cost;
mod error;
mod keys;
mod matrix;
mod metadata;
mod names;
mod plan;

pub use error::LoraError;
pub use names::Layers;

use super::{
    clip::ClipTextEncoder,
    flux::FluxTransformer,
    ops::{Deltas, Linear},
    weights::{Target, TensorFile},
};
use names::Names;
use plan::Plan;
use std::{collections::BTreeSet, path::Path, sync::Arc};

/// Bytes of matrices that are loaded at once: some milliseconds.
const UNIT: u64 = 4 << 20;

/// The layers of a model that adapters may change, under all names that they have in files.
#[derive(Debug)]
pub struct Places {
    transformer: Names,
    clip: Names,
    target: Target,
}

/// What an adapter's file will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Who writes such names: `diffusers`, `kohya` and so on.
    pub families: BTreeSet<&'static str>,
    /// Kinds of adapters: `lora`, `dora`, `lokr`, `loha`, `full`.
    pub kinds: BTreeSet<&'static str>,
    /// The highest rank; 0 where nothing has one.
    pub rank: usize,
    /// Bytes that it takes in memory.
    pub bytes: u64,
    /// Multiply-adds of a step for each token, at most.
    pub work: u64,
}

/// An adapter's file, of which the header was read and checked.
#[derive(Debug)]
pub struct LoraFile {
    file: TensorFile,
    plan: Plan,
    target: Target,
    summary: Summary,
}

/// What an adapter does to each network.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// To the transformer.
    pub transformer: Arc<Deltas>,
    /// To CLIP's text encoder.
    pub clip: Arc<Deltas>,
}

impl Places {
    /// The layers of these networks, whose adapters will be computed with as `target` says.
    #[must_use]
    pub fn new(transformer: &FluxTransformer, clip: &ClipTextEncoder, target: &Target) -> Self {
        Self::of(&shapes(transformer.layers()), &shapes(clip.layers()), target)
    }

    /// The layers of these shapes.
    #[must_use]
    pub fn of(transformer: &Layers, clip: &Layers, target: &Target) -> Self {
        Self {
            transformer: Names::of_transformer(transformer),
            clip: Names::of_clip(clip),
            target: target.clone(),
        }
    }
}

fn shapes<'a>(layers: impl Iterator<Item = &'a Linear>) -> Layers {
    layers.map(|l| (l.name().to_owned(), [l.outputs(), l.inputs()])).collect()
}

impl LoraFile {
    /// Reads the header of the file at `path`.
    ///
    /// # Errors
    /// [`LoraError`] where a tensor has no place in the model, does not fit its place, or its
    /// companions are missing.
    pub fn open(path: &Path, places: &Places) -> Result<Self, LoraError> {
        let file = TensorFile::open(path)?;
        let plan = Plan::read(&file, &places.transformer, &places.clip)?;
        let (mut bytes, mut work) = (0_u64, 0_u64);
        for change in &plan.changes {
            bytes = bytes.saturating_add(change.bytes(&file, &places.target));
            work = work.saturating_add(change.work(&file));
        }
        let (families, kinds) = (plan.families.clone(), plan.kinds.clone());
        let summary = Summary { families, kinds, rank: plan.rank, bytes, work };
        Ok(Self { file, plan, target: places.target.clone(), summary })
    }

    /// What it will do.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// How many parts it has, which are loaded one after another.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.plan.changes.len()
    }

    /// Reads the numbers of the parts from `from` on, packs them for the layers of these networks,
    /// and adds them to `deltas`, the transformer's and CLIP's. Some megabytes are read at a time;
    /// gives the part to go on with.
    ///
    /// # Errors
    /// [`LoraError`] where a tensor holds what is no number, or the device fails.
    pub fn load_part(
        &self,
        from: usize,
        transformer: &FluxTransformer,
        clip: &ClipTextEncoder,
        deltas: &mut [Deltas; 2],
    ) -> Result<usize, LoraError> {
        let transformer = transformer.layers().map(|l| (l.name(), l)).collect();
        let clip = clip.layers().map(|l| (l.name(), l)).collect();
        let (mut next, mut bytes) = (from, 0);
        while let Some(change) = self.plan.changes.get(next).filter(|_| bytes < UNIT) {
            build::build(change, &self.file, [&transformer, &clip], &self.target, deltas)?;
            bytes += change.cost(&self.file, &self.target);
            next += 1;
        }
        Ok(next)
    }

    /// Loads all parts.
    ///
    /// # Errors
    /// As [`LoraFile::load_part`].
    pub fn load(
        &self,
        transformer: &FluxTransformer,
        clip: &ClipTextEncoder,
    ) -> Result<Adapter, LoraError> {
        let (mut next, mut deltas) = (0, [Deltas::default(), Deltas::default()]);
        while next < self.parts() {
            next = self.load_part(next, transformer, clip, &mut deltas)?;
        }
        let [transformer, clip] = deltas.map(Arc::new);
        Ok(Adapter { transformer, clip })
    }
}

impl Adapter {
    /// Bytes that it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.transformer.bytes() + self.clip.bytes()
    }
}
