//! Operations over a picture that are computed band by band, so that whoever runs them can do other
//! work in between: what the convolution, the normalisation and the attention of the VAE share.
//!
//! Where a band ends is decided by its work alone, never by load or threads, and a number's bits do
//! not depend on the band that it is in. Bands go into one buffer, which becomes the output: they
//! are never joined. Only own kernels run in bands; a stock operation is one unit.

use super::{expect, values};
use candle_core::{Device, Result, Shape, Storage, Tensor, bail};
use darkroom_kernels::{GroupSums, PackedKeys};
use std::ops::Range;

/// The most multiply-adds of a unit of work, or one row of pixels where that is more: some 5 ms of
/// two CPU threads, and less than a step of the smallest model for a picture of this size. Half as
/// much would make the passes some 3 % slower, as threads wait at the end of each unit.
pub const UNIT: u64 = 160_000_000;

/// How far an operation has come. One serves all operations of a pass, one after another.
#[derive(Debug, Default)]
pub struct Bands {
    /// The output, filled as far as the bands have come.
    y: Vec<f32>,
    /// Rows behind, of the operation or of its first walk over the picture.
    next: usize,
    /// What the first walk has found.
    pub(super) found: Found,
    spent: u64,
}

/// What an operation that walks over its input twice keeps of the first time.
#[derive(Debug, Default)]
pub(super) enum Found {
    #[default]
    Nothing,
    Sums(GroupSums),
    /// Keys and values, as far as they are computed.
    Rows([Vec<f32>; 2]),
    Keys(PackedKeys),
}

impl Bands {
    /// Multiply-adds of all bands so far; of stock operations none.
    #[must_use]
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// The rows of the next band of `rows`, each of so much work: a multiple of `step` of them.
    pub(super) fn take(&mut self, rows: usize, work: usize, step: usize) -> Range<usize> {
        let work = (work as u64).max(1);
        let count = usize::try_from(UNIT / work).unwrap_or(usize::MAX) / step * step;
        let band = self.next..rows.min(self.next.saturating_add(count.max(step)));
        self.next = band.end;
        self.spent += work * band.len() as u64;
        band
    }

    /// Begins the second walk over the picture.
    pub(super) fn again(&mut self) {
        self.next = 0;
    }

    /// Where the output rows `band` of `rows`, `width` numbers each, belong.
    pub(super) fn room(&mut self, rows: usize, width: usize, band: &Range<usize>) -> &mut [f32] {
        if self.y.is_empty() {
            self.y = vec![0.0; rows * width];
        }
        &mut self.y[band.start * width..band.end * width]
    }

    /// The output, if `band` was the last one of `rows`; then the next operation may begin.
    pub(super) fn finish(
        &mut self,
        band: &Range<usize>,
        rows: usize,
        shape: impl Into<Shape>,
    ) -> Result<Option<Tensor>> {
        if band.end < rows {
            return Ok(None);
        }
        let done = std::mem::replace(self, Self { spent: self.spent, ..Self::default() });
        Tensor::from_vec(done.y, shape.into(), &Device::Cpu).map(Some)
    }
}

/// Calls `task` with the values of a contiguous f32 tensor on the CPU.
pub(super) fn with_values<T>(x: &Tensor, task: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(task(values(storage, layout)?)),
        _ => bail!("a CPU kernel was given a tensor on a GPU"),
    }
}

/// Adds the rows `band` of `x`, `width` numbers each, to `y`.
pub(super) fn add(x: &Tensor, band: &Range<usize>, width: usize, y: &mut [f32]) -> Result<()> {
    with_values(x, |x| {
        let x = x.get(band.start * width..band.end * width).unwrap_or_default();
        expect("the numbers to be added", x.len(), y.len())?;
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
        Ok(())
    })?
}
