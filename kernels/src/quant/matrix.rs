//! A weight as it lies in a file, and the linear layer over it.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use super::Format;
use super::decode::{Rows, decode};
use crate::linear::{Activation, linear_on};
use crate::product::{Piece, Weights};
use crate::simd::{Isa, LANES, Lanes};

/// Inputs that are decoded at a time: a block of any format.
const INPUTS: usize = 256;

thread_local! {
    /// The piece of a weight that a task of this thread works with.
    static PIECE: RefCell<Vec<Lanes>> = const { RefCell::new(Vec::new()) };
}

/// What the numbers of a weight are multiplied with, once and in `f32`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale<'a> {
    /// Nothing.
    One,
    /// One number.
    Tensor(f32),
    /// A number for each output.
    Rows(&'a [f32]),
}

/// The weights `[n, k]` of a linear layer, row by row as they lie in a file, at any address.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    format: Format,
    n: usize,
    k: usize,
    bytes: &'a [u8],
    scale: Scale<'a>,
}

impl<'a> Matrix<'a> {
    /// `None` if a row is no whole number of blocks, if `bytes` does not hold exactly `n` rows, or if
    /// the scales are not `n`.
    pub fn new(
        format: Format,
        n: usize,
        k: usize,
        bytes: &'a [u8],
        scale: Scale<'a>,
    ) -> Option<Self> {
        let size = format.row_bytes(k)?.checked_mul(n)?;
        let scales = !matches!(scale, Scale::Rows(scales) if scales.len() != n);
        (bytes.len() == size && scales).then_some(Self { format, n, k, bytes, scale })
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }
}

impl fmt::Debug for Matrix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, n, k, .. } = self;
        let mut debug = f.debug_struct("Matrix");
        debug.field("format", format).field("n", n).field("k", k).finish_non_exhaustive()
    }
}

/// `y = act(x w^T + bias)`: `x` `[rows, k]`, the weights `[n, k]`, `bias` `[n]`, `y` `[rows, n]`.
///
/// Each output has the bits that [`linear`](crate::linear()) gives with the dequantised weights.
///
/// # Panics
///
/// If a length does not fit the sizes above.
pub fn linear(
    x: &[f32],
    rows: usize,
    weight: &Matrix<'_>,
    bias: Option<&[f32]>,
    act: Activation,
    y: &mut [f32],
) {
    linear_on(Isa::best(), x, rows, weight, bias, act, y);
}

impl Weights for Matrix<'_> {
    fn n(&self) -> usize {
        self.n
    }

    fn k(&self) -> usize {
        self.k
    }

    fn pieces(&self, isa: Isa, panels: Range<usize>, mut task: impl FnMut(Piece<'_>)) {
        PIECE.with_borrow_mut(|lanes| {
            if lanes.len() < panels.len() * INPUTS {
                lanes.resize(panels.len() * INPUTS, Lanes::ZERO);
            }
            let mut start = 0;
            // At least once: a layer of no inputs gives its bias.
            loop {
                let inputs = start..self.k.min(start + INPUTS);
                for (panel, out) in panels.clone().zip(lanes.chunks_mut(INPUTS)) {
                    self.decode(isa, panel, start, &mut out[..inputs.len()]);
                }
                start = inputs.end;
                task(Piece { lanes, stride: INPUTS, panels: panels.clone(), inputs });
                if start == self.k {
                    break;
                }
            }
        });
    }
}

impl Matrix<'_> {
    /// Decodes the inputs from `start` on of a panel, as many as `out` holds.
    pub(super) fn decode(&self, isa: Isa, panel: usize, start: usize, out: &mut [Lanes]) {
        let Self { format, n, bytes, scale, .. } = *self;
        let row_bytes = bytes.len() / n;
        let start = start / format.block() * format.block_bytes();
        // The lanes beyond the last output are dropped: they may hold any row.
        let output = |lane: usize| (panel * LANES + lane).min(n - 1);
        let mut rows: Rows<'_> = [&[]; LANES];
        for (lane, row) in rows.iter_mut().enumerate() {
            *row = &bytes[output(lane) * row_bytes..][start..row_bytes];
        }
        decode(isa, format, &rows, out);
        let scales: [f32; LANES] = match scale {
            Scale::One => return,
            Scale::Tensor(scale) => [scale; LANES],
            Scale::Rows(scales) => std::array::from_fn(|lane| scales[output(lane)]),
        };
        for lanes in out {
            for (x, scale) in lanes.0.iter_mut().zip(scales) {
                *x *= scale;
            }
        }
    }
}
