//! The numbers of an adapter on their way from its file to the layers: matrices in host memory, row
//! by row.

use crate::model::{
    ops::{Linear, Ops},
    weights::Target,
};
use candle_core::{Device, Result, Tensor};
use std::ops::Range;

/// Rows of a difference that are put together at once.
const BLOCK: usize = 64;
/// Outputs that a CPU's packed weights are padded to a multiple of.
const PANEL: usize = 16;

/// A matrix in host memory, row by row.
#[derive(Clone, Debug, Default)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
}

/// A difference [outputs, inputs] as its parts.
#[derive(Debug)]
pub(super) enum Raw {
    /// up times down.
    Product {
        down: Matrix,
        up: Matrix,
    },
    Whole(Matrix),
    Kronecker {
        w1: Matrix,
        w2: Vec<Matrix>,
    },
}

/// Bytes of a matrix [n, k] in memory.
pub(super) fn packed_bytes(n: usize, k: usize, target: &Target) -> u64 {
    let (n, size) = match target.ops {
        Ops::Own => (n.next_multiple_of(PANEL), 4),
        Ops::Stock => (n, target.dtype.size_in_bytes()),
    };
    (n as u64).saturating_mul(k as u64).saturating_mul(size as u64)
}

/// Which rows of a Kronecker product's outer factor have the rows `rows` of the product, where the
/// inner one has `inner`.
pub(super) fn cover(rows: &[Range<usize>], inner: usize) -> Range<usize> {
    let start = rows.iter().map(|r| r.start).min().unwrap_or(0);
    let end = rows.iter().map(|r| r.end).max().unwrap_or(0);
    start / inner..end.div_ceil(inner)
}

impl Matrix {
    pub(super) fn new(values: Vec<f32>, rows: usize) -> Self {
        let columns = values.len().checked_div(rows).unwrap_or(0);
        Self { rows, columns, values }
    }

    pub(super) fn row(&self, i: usize) -> &[f32] {
        self.values.get(i * self.columns..(i + 1) * self.columns).unwrap_or_default()
    }

    /// The rows of these ranges, one after another.
    pub(super) fn select(&self, ranges: &[Range<usize>]) -> Self {
        let rows = ranges.iter().cloned().flatten();
        let values: Vec<f32> = rows.flat_map(|i| self.row(i)).copied().collect();
        Self { rows: ranges.iter().map(Range::len).sum(), columns: self.columns, values }
    }

    pub(super) fn scale(&mut self, by: f32) {
        for value in &mut self.values {
            *value *= by;
        }
    }

    fn transposed(&self) -> Self {
        let column = |j| self.values.iter().skip(j).step_by(self.columns.max(1));
        let values = (0..self.columns).flat_map(column).copied().collect();
        Self { rows: self.columns, columns: self.rows, values }
    }

    /// self times `other`, by the kernels of a CPU.
    pub(super) fn times(&self, other: &Self) -> Result<Self> {
        let layer = Linear::of(&other.transposed().values, other.rows, None, &Target::cpu())?;
        let x = Tensor::from_slice(&self.values, (self.rows, self.columns), &Device::Cpu)?;
        Ok(Self::new(layer.forward(&x)?.flatten_all()?.to_vec1()?, self.rows))
    }

    pub(super) fn layer(&self, bias: Option<&[f32]>, target: &Target) -> Result<Linear> {
        Linear::of(&self.values, self.columns, bias, target)
    }
}

impl Raw {
    /// The product number by number of two products, as one product of all pairs of their ranks, or
    /// as itself where that is smaller.
    pub(super) fn hadamard([first, second]: [[Matrix; 2]; 2]) -> Result<Self> {
        let [a, b] = first;
        let [c, d] = second;
        let (n, k, rank) = (a.rows, b.columns, a.columns.saturating_mul(c.columns));
        if rank.saturating_mul(n + k) > n * k {
            let (mut whole, other) = (a.times(&b)?, c.times(&d)?);
            for (value, other) in whole.values.iter_mut().zip(&other.values) {
                *value *= other;
            }
            return Ok(Self::Whole(whole));
        }
        let pairs = |a: &[f32], c: &[f32]| -> Vec<f32> {
            a.iter().flat_map(|a| c.iter().map(move |c| a * c)).collect()
        };
        let up = (0..n).flat_map(|i| pairs(a.row(i), c.row(i))).collect();
        let times = |b: &[f32], d: &[f32]| b.iter().zip(d).map(|(b, d)| b * d).collect::<Vec<_>>();
        let down = (0..b.rows).flat_map(|p| (0..d.rows).map(move |q| (p, q)));
        let down = down.flat_map(|(p, q)| times(b.row(p), d.row(q))).collect();
        Ok(Self::Product { down: Matrix::new(down, rank), up: Matrix::new(up, n) })
    }

    /// The rows of the difference that `ranges` name, in turn; each is given with its index.
    pub(super) fn rows(&self, ranges: &[Range<usize>]) -> Result<Rows<'_>> {
        let transposed = match self {
            Self::Product { down, .. } => {
                let down = down.transposed();
                Some(Linear::of(&down.values, down.columns, None, &Target::cpu())?)
            }
            _ => None,
        };
        let inner = match self {
            Self::Kronecker { w2, .. } => Some(inner(w2)?),
            _ => None,
        };
        let left = ranges.iter().cloned().flatten().collect::<Vec<_>>().into_iter();
        Ok(Rows { raw: self, left, block: Matrix::default(), at: 0, transposed, inner })
    }
}

/// The whole of a Kronecker product's inner factor.
fn inner(w2: &[Matrix]) -> Result<Matrix> {
    match w2 {
        [left, right] => left.times(right),
        _ => Ok(w2.first().cloned().unwrap_or_default()),
    }
}

/// The rows of a difference one after another.
pub(super) struct Rows<'a> {
    raw: &'a Raw,
    left: std::vec::IntoIter<usize>,
    block: Matrix,
    at: usize,
    /// down, for products of rows.
    transposed: Option<Linear>,
    /// w2, for Kronecker products.
    inner: Option<Matrix>,
}

impl Rows<'_> {
    /// The next row; empty after the last.
    pub(super) fn next(&mut self) -> Result<&[f32]> {
        if self.at >= self.block.rows {
            self.fill()?;
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block.row(self.at - 1))
    }

    fn fill(&mut self) -> Result<()> {
        let rows: Vec<usize> = self.left.by_ref().take(BLOCK).collect();
        let count = rows.len();
        self.block = match (self.raw, &self.transposed, &self.inner) {
            (Raw::Product { up, .. }, Some(down), _) if count > 0 => {
                let up: Vec<f32> = rows.iter().flat_map(|&i| up.row(i)).copied().collect();
                let x = Tensor::from_vec(up, (count, down.inputs()), &Device::Cpu)?;
                Matrix::new(down.forward(&x)?.flatten_all()?.to_vec1()?, count)
            }
            (Raw::Whole(whole), ..) => {
                Matrix::new(rows.iter().flat_map(|&i| whole.row(i)).copied().collect(), count)
            }
            (Raw::Kronecker { w1, .. }, _, Some(w2)) => {
                let row = |&i: &usize| {
                    let (outer, inner) = (w1.row(i / w2.rows), w2.row(i % w2.rows));
                    outer.iter().flat_map(move |a| inner.iter().map(move |b| a * b))
                };
                Matrix::new(rows.iter().flat_map(row).collect(), count)
            }
            _ => Matrix::default(),
        };
        Ok(())
    }
}
