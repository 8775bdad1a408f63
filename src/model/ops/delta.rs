//! What adapters (LoRA and its relatives) add to a linear layer, for the rows of some sequences of a
//! packed batch and for no others.
//!
//! The layer's own product runs over the whole batch as ever; then each sequence that has adapters
//! gets what they say, a block of rows at a time, through the same kernels. The layer's weights are
//! never touched, rows of other sequences keep their bytes, and a row's result depends on itself
//! alone.
//!
//! Of a layer y = x W^T + b, and an adapter of strength s, it becomes y + s (x Delta^T + beta): Delta
//! is a product of small matrices (LoRA; LoHa, whose product of products is one of higher rank), a
//! Kronecker product (LoKr), or a whole matrix. Weight-decomposed adapters (DoRA) scale the columns
//! or rows of W + Delta too; their s goes from the layer as it is to the layer as they were trained,
//! as in ComfyUI.

use super::{Linear, Ops};
use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor, bail};
use darkroom_kernels::Activation;
use std::{collections::HashMap, ops::Range, sync::Arc};

/// Rows that are changed at once, so that what lies between takes little memory.
pub const DELTA_ROWS: usize = 1024;

/// What one adapter does to the linear layers of a network, by the layers' names.
#[derive(Debug, Default)]
pub struct Deltas(HashMap<String, Vec<Delta>>);

/// What an adapter does to one layer.
#[derive(Debug)]
pub struct Delta {
    /// How x becomes x Delta^T.
    pub form: DeltaForm,
    /// Added to the outputs [n].
    pub bias: Option<Tensor>,
    /// For DoRA.
    pub decomposed: Option<Decomposed>,
}

/// A matrix Delta [n, k], as its parts.
#[derive(Debug)]
pub enum DeltaForm {
    /// Delta is 0.
    Nothing,
    /// The product of the layers' weights; x goes through them from first to last.
    Product(Vec<Linear>),
    /// The Kronecker product of w1 [a, b] and w2 [c, d]: k = b d, and n are rows of a c.
    Kronecker {
        /// The outer factor.
        w1: Linear,
        /// The inner factor, itself a product as in [`DeltaForm::Product`].
        w2: Vec<Linear>,
        /// Which rows of it, one after another, are those of Delta.
        rows: Vec<Range<usize>>,
    },
}

/// A magnitude over the norm of W + Delta.
#[derive(Debug)]
pub struct Decomposed {
    /// What it belongs to.
    pub axis: Axis,
    /// The factors [n] or [k].
    pub factors: Tensor,
    /// The layer's own bias, which they do not scale.
    pub bias: Option<Tensor>,
}

/// What has a magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Each output, a row of the weights.
    Outputs,
    /// Each input, a column of the weights.
    Inputs,
}

/// An adapter at some strength.
#[derive(Clone, Debug)]
pub struct Weighted {
    /// What it does.
    pub deltas: Arc<Deltas>,
    /// Its strength; 0 leaves everything as it is.
    pub scale: f32,
}

/// The adapters of the rows of a packed matrix.
#[derive(Clone, Debug, Default)]
pub struct Patches(Vec<Patch>);

#[derive(Clone, Debug)]
struct Patch {
    rows: Range<usize>,
    adapters: Vec<Weighted>,
}

impl Deltas {
    /// Adds what is done to the layer called `name`.
    pub fn add(&mut self, name: &str, delta: Delta) {
        self.0.entry(name.to_owned()).or_default().push(delta);
    }

    /// Whether nothing is done to any layer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all matrices.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.values().flatten().map(Delta::bytes).sum()
    }
}

impl Patches {
    /// The patches of a matrix whose rows belong to the sequences `sequence_of_row`, each of which
    /// has the adapters `adapters[sequence]`.
    #[must_use]
    pub fn new(sequence_of_row: &[u32], adapters: &[&[Weighted]]) -> Self {
        let mut patches = Vec::new();
        let mut start = 0;
        for run in sequence_of_row.chunk_by(|a, b| a == b) {
            let rows = start..start + run.len();
            start = rows.end;
            let of = run.first().and_then(|&sequence| adapters.get(sequence as usize));
            let adapters: Vec<Weighted> =
                of.into_iter().copied().flatten().filter(|a| a.scale != 0.0).cloned().collect();
            if !adapters.is_empty() {
                patches.push(Patch { rows, adapters });
            }
        }
        Self(patches)
    }

    /// The same adapters for all of `rows` rows.
    #[must_use]
    pub fn whole(rows: usize, adapters: &[Weighted]) -> Self {
        Self::new(&vec![0; rows], &[adapters])
    }

    /// Whether they do anything to the layer called `name`.
    pub(super) fn touch(&self, name: &str) -> bool {
        let mut adapters = self.0.iter().flat_map(|patch| &patch.adapters);
        adapters.any(|adapter| adapter.deltas.0.contains_key(name))
    }

    /// Changes `y` [rows, n], what `layer` made of `x` [rows, k], in place.
    pub(super) fn apply(&self, layer: &Linear, x: &Tensor, y: &Tensor) -> Result<()> {
        for Patch { rows, adapters } in &self.0 {
            for start in rows.clone().step_by(DELTA_ROWS) {
                let count = DELTA_ROWS.min(rows.end - start);
                let (x, base) = (x.narrow(0, start, count)?, y.narrow(0, start, count)?);
                let mut sum: Option<Tensor> = None;
                for Weighted { deltas, scale } in adapters {
                    for delta in deltas.0.get(layer.name()).into_iter().flatten() {
                        let change = (delta.apply(layer, &x, &base)? * f64::from(*scale))?;
                        sum = Some((sum.as_ref().unwrap_or(&base) + change)?);
                    }
                }
                if let Some(sum) = sum {
                    y.slice_set(&sum, 0, start)?;
                }
            }
        }
        Ok(())
    }
}

impl Delta {
    /// What is added to `y` [rows, n], what `layer` makes of `x` [rows, k]; `y` may have been
    /// changed by no other adapter.
    fn apply(&self, layer: &Linear, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let change = match &self.decomposed {
            None => self.form.apply(x, layer.outputs())?,
            Some(Decomposed { axis, factors, bias }) => {
                let without_bias = |y: Tensor| match bias {
                    Some(bias) => y.broadcast_sub(bias),
                    None => Ok(y),
                };
                match axis {
                    // f (x W^T + x Delta^T) - x W^T
                    Axis::Outputs => {
                        let own = without_bias(y.clone())?;
                        let whole = (&own + self.form.apply(x, layer.outputs())?)?;
                        whole.broadcast_mul(factors)? - own
                    }
                    // (x f) (W + Delta)^T - x W^T
                    Axis::Inputs => {
                        let scaled = x.broadcast_mul(factors)?;
                        let own = without_bias(layer.forward(&(&scaled - x)?)?)?;
                        own + self.form.apply(&scaled, layer.outputs())?
                    }
                }?
            }
        };
        match &self.bias {
            Some(bias) => change.broadcast_add(bias),
            None => Ok(change),
        }
    }

    fn bytes(&self) -> usize {
        let matrices = match &self.form {
            DeltaForm::Nothing => 0,
            DeltaForm::Product(layers) => layers.iter().map(Linear::bytes).sum(),
            DeltaForm::Kronecker { w1, w2, .. } => {
                w1.bytes() + w2.iter().map(Linear::bytes).sum::<usize>()
            }
        };
        let size = |t: &Tensor| t.elem_count() * t.dtype().size_in_bytes();
        let factors = self.decomposed.as_ref().map(|d| &d.factors);
        matrices + self.bias.iter().chain(factors).map(size).sum::<usize>()
    }
}

impl DeltaForm {
    /// x [rows, k] -> x Delta^T [rows, n]
    fn apply(&self, x: &Tensor, n: usize) -> Result<Tensor> {
        match self {
            DeltaForm::Nothing => Tensor::zeros((x.dim(0)?, n), x.dtype(), x.device()),
            DeltaForm::Product(layers) => chain(layers, x),
            DeltaForm::Kronecker { w1, w2, rows: parts } => {
                let (rows, k) = x.dims2()?;
                let b = w1.inputs();
                let x = x.reshape((rows * b, k / b))?; // (rows b, d)
                let z = chain(w2, &x)?; // (rows b, c)
                let c = z.dim(1)?;
                let z = z.reshape((rows, b, c))?.transpose(1, 2)?.contiguous()?;
                let z = w1.forward(&z.reshape((rows * c, b))?)?; // (rows c, a)
                let a = w1.outputs();
                let z = z.reshape((rows, c, a))?.transpose(1, 2)?.contiguous()?;
                let z = z.reshape((rows, a * c))?;
                let parts: Vec<Tensor> =
                    parts.iter().map(|r| z.narrow(1, r.start, r.len())).collect::<Result<_>>()?;
                match parts.as_slice() {
                    [part] => part.contiguous(),
                    parts => Tensor::cat(parts, 1),
                }
            }
        }
    }
}

fn chain(layers: &[Linear], x: &Tensor) -> Result<Tensor> {
    let Some((first, rest)) = layers.split_first() else { bail!("a product of no matrices") };
    rest.iter().try_fold(first.forward(x)?, |x, layer| layer.forward(&x))
}

impl Ops {
    /// act(y), which may use y's memory.
    pub(super) fn activate(self, y: Tensor, act: Activation) -> Result<Tensor> {
        match (self, act) {
            (_, Activation::None) => Ok(y),
            (Ops::Own, act) => {
                y.inplace_op1(&OwnActivate(act))?;
                Ok(y)
            }
            (Ops::Stock, Activation::GeluTanh) => y.gelu(),
            (Ops::Stock, Activation::Silu) => y.silu(),
        }
    }
}

struct OwnActivate(Activation);

impl InplaceOp1 for OwnActivate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(y), Some((start, end))) = (storage, layout.contiguous_offsets())
        else {
            bail!("an activation was given something else than contiguous f32");
        };
        let Some(y) = y.get_mut(start..end) else { bail!("a tensor does not fit its storage") };
        darkroom_kernels::activate(y, self.0);
        Ok(())
    }
}
