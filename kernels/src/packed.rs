//! Weights as the matrix products read them: panels of 16 outputs, one cache line per input.

use std::fmt;
use std::ops::Range;

use crate::product::{Piece, Weights};
use crate::simd::{Isa, LANES, Lanes};

/// The weights `[n, k]` of a linear layer, packed for [`linear`](crate::linear).
///
/// Panel `j` holds the outputs `16 j ..`, as `k` cache lines of 16 numbers; the last panel is
/// padded with zeros.
#[derive(Clone)]
pub struct Packed {
    panels: Vec<Lanes>,
    n: usize,
    k: usize,
}

impl Packed {
    /// Packs `w`, `[n, k]` row by row as checkpoints hold it.
    ///
    /// # Panics
    ///
    /// If `w` does not hold `n * k` numbers.
    pub fn new(w: &[f32], n: usize, k: usize) -> Self {
        assert_eq!(w.len(), n * k, "weights of a [{n}, {k}] layer");
        Self::from_fn(n, k, |i, row| row.copy_from_slice(&w[i * k..][..k]))
    }

    /// Packs weights that come row by row: `row(i, buffer)` writes the `k` weights of output `i`.
    ///
    /// The weights are needed as `f32` one row at a time only, so that half-precision checkpoints
    /// never grow to twice their size. The buffer holds zeros or an earlier row when handed over.
    pub fn from_fn(n: usize, k: usize, mut row: impl FnMut(usize, &mut [f32])) -> Self {
        let mut panels = vec![Lanes::ZERO; n.div_ceil(LANES) * k];
        let mut buffer = vec![0.0; k];
        for i in 0..n {
            row(i, &mut buffer);
            let panel = &mut panels[i / LANES * k..][..k];
            for (lanes, &x) in panel.iter_mut().zip(&buffer) {
                lanes.0[i % LANES] = x;
            }
        }
        Self { panels, n, k }
    }

    /// Packs weights that come column by column: `column(k)` is the weight of each output for input
    /// `k`.
    pub(crate) fn from_columns<'a>(
        n: usize,
        k: usize,
        column: impl Fn(usize) -> &'a [f32],
    ) -> Self {
        let mut panels = vec![Lanes::ZERO; n.div_ceil(LANES) * k];
        for i in 0..k {
            for (j, part) in column(i).chunks(LANES).enumerate() {
                panels[j * k + i].0[..part.len()].copy_from_slice(part);
            }
        }
        Self { panels, n, k }
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Writes the `k` weights of output `i` to `to`, as they were packed.
    ///
    /// # Panics
    ///
    /// If there is no such output, or `to` does not hold `k` numbers.
    pub fn row(&self, i: usize, to: &mut [f32]) {
        assert!(i < self.n && to.len() == self.k, "output {i} of a [{}, {}] layer", self.n, self.k);
        for (x, lanes) in to.iter_mut().zip(self.panel(i / LANES)) {
            *x = lanes.0[i % LANES];
        }
    }

    /// Size in memory, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(self.panels.as_slice())
    }

    /// The number of panels of 16 outputs.
    pub(crate) fn panel_count(&self) -> usize {
        self.n.div_ceil(LANES)
    }

    /// The weights of the outputs `16 j ..`, for all inputs.
    #[inline(always)]
    pub(crate) fn panel(&self, j: usize) -> &[Lanes] {
        &self.panels[j * self.k..][..self.k]
    }
}

impl Weights for Packed {
    fn n(&self) -> usize {
        self.n
    }

    fn k(&self) -> usize {
        self.k
    }

    fn pieces(&self, _: Isa, panels: Range<usize>, mut task: impl FnMut(Piece<'_>)) {
        let lanes = &self.panels[panels.start * self.k..panels.end * self.k];
        task(Piece { lanes, stride: self.k, panels, inputs: 0..self.k });
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed").field("n", &self.n).field("k", &self.k).finish_non_exhaustive()
    }
}
