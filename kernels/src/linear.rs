//! The linear layer, with the activation that follows it.

use std::ops::Range;

use crate::elementwise;
use crate::math;
use crate::packed::Packed;
use crate::parallel::Shared;
use crate::product::{Source, Weights, product};
use crate::simd::{Isa, Simd};

/// What a linear layer's outputs go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// GELU in its tanh form.
    GeluTanh,
    /// `x / (1 + e^-x)`.
    Silu,
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, s: S, v: S::V) -> S::V {
        match self {
            Self::None => v,
            Self::GeluTanh => math::gelu_tanh(s, v),
            Self::Silu => math::silu(s, v),
        }
    }

    /// Takes a rectangle of outputs `[_, n]`, which belongs to the caller, through it.
    pub(crate) fn finish(
        self,
        isa: Isa,
        y: &Shared<'_>,
        n: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        if self == Self::None {
            return;
        }
        for row in rows {
            // SAFETY: the rectangle is the caller's, and one row of it is held at a time.
            let y = unsafe { y.part(row * n + columns.start, columns.len()) };
            elementwise::activate_row(isa, y, self);
        }
    }
}

/// `y = act(x w^T + bias)`: `x` `[rows, k]`, the weights `[n, k]`, `bias` `[n]`, `y` `[rows, n]`.
///
/// Each output depends on its own row and on the weights alone, to the last bit.
///
/// # Panics
///
/// If a length does not fit the sizes above.
pub fn linear(
    x: &[f32],
    rows: usize,
    weight: &Packed,
    bias: Option<&[f32]>,
    act: Activation,
    y: &mut [f32],
) {
    linear_on(Isa::best(), x, rows, weight, bias, act, y);
}

/// The layer over any weights, on a given instruction set.
pub(crate) fn linear_on(
    isa: Isa,
    x: &[f32],
    rows: usize,
    weight: &impl Weights,
    bias: Option<&[f32]>,
    act: Activation,
    y: &mut [f32],
) {
    let (n, k) = (weight.n(), weight.k());
    check(x, rows, [n, k], bias, y);
    product(isa, &Rows { x, k }, rows, weight, bias, act, y);
}

/// Refuses lengths that do not fit a layer's sizes.
pub(crate) fn check(x: &[f32], rows: usize, [n, k]: [usize; 2], bias: Option<&[f32]>, y: &[f32]) {
    assert_eq!(x.len(), rows * k, "the input of {rows} rows of a [{n}, {k}] layer");
    assert_eq!(y.len(), rows * n, "the output of {rows} rows of a [{n}, {k}] layer");
    assert!(bias.is_none_or(|bias| bias.len() == n), "the bias of a [{n}, {k}] layer");
}

/// A matrix row by row.
struct Rows<'a> {
    x: &'a [f32],
    k: usize,
}

impl Source for Rows<'_> {
    fn read(&self, row: usize, start: usize, to: &mut [f32]) {
        to.copy_from_slice(&self.x[row * self.k + start..][..to.len()]);
    }
}
