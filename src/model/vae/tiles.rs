//! A pass in tiles that overlap and are blended, so that it takes the memory of one tile whatever the
//! size of the picture. Norms and attention see their tile only: the result is another than that of
//! the whole picture, if hardly to the eye.
//!
//! Reference: diffusers `AutoencoderKL.tiled_decode`, `_tiled_encode`, `blend_v`, `blend_h`.

use candle_core::{Result, Tensor, bail};

/// Tiles have one of so many parts in common with the next.
pub const OVERLAP: usize = 4;

/// Sides of tiles. Sizes of the result are those of the input times the pass's factor, which is below
/// one where it encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Of a tile of the input.
    side: usize,
    /// From one tile of the input to the next.
    stride: usize,
    /// Rows and columns of a tile of the result that are blended with the tile before.
    extent: usize,
    /// Rows and columns of a tile of the result that are in the result.
    limit: usize,
}

impl Layout {
    /// Tiles whose side is `side` in the input and `becomes` in the result, both multiples of
    /// [`OVERLAP`].
    pub(super) fn new(side: usize, becomes: usize) -> Self {
        let (stride, extent) = (side - side / OVERLAP, becomes / OVERLAP);
        Self { side, stride, extent, limit: becomes - extent }
    }

    /// Whether a picture [h, w, c] is larger than a tile.
    pub(super) fn cuts(&self, x: &Tensor) -> Result<bool> {
        let (h, w, _) = x.dims3()?;
        Ok(h > self.side || w > self.side)
    }
}

/// A picture that is taken tile by tile, row by row.
#[derive(Debug)]
pub(super) struct Tiles {
    layout: Layout,
    /// [h, w, c]
    input: Tensor,
    rows: usize,
    columns: usize,
    /// Tiles of the result that are behind.
    behind: usize,
    /// The last rows of the tiles above this row.
    above: Vec<Tensor>,
    /// The last columns of the tile on the left.
    left: Option<Tensor>,
    /// What this row of tiles adds to the result so far.
    row: Vec<Tensor>,
    /// The rows before.
    done: Vec<Tensor>,
}

impl Tiles {
    pub(super) fn new(layout: Layout, input: Tensor) -> Result<Self> {
        let (h, w, _) = input.dims3()?;
        let (rows, columns) = (h.div_ceil(layout.stride), w.div_ceil(layout.stride));
        let (above, left, row, done) = (Vec::new(), None, Vec::new(), Vec::new());
        Ok(Self { layout, input, rows, columns, behind: 0, above, left, row, done })
    }

    /// Tiles behind and in all.
    pub(super) fn progress(&self) -> (usize, usize) {
        (self.behind, self.rows * self.columns)
    }

    /// The tile that is next.
    pub(super) fn next(&self) -> Result<Tensor> {
        let (h, w, _) = self.input.dims3()?;
        let Layout { side, stride, .. } = self.layout;
        let (top, left) =
            (self.behind / self.columns * stride, self.behind % self.columns * stride);
        let rows = self.input.narrow(0, top, side.min(h - top))?;
        rows.narrow(1, left, side.min(w - left))?.contiguous()
    }

    /// Takes what became of that tile. After the last gives the whole result.
    pub(super) fn put(&mut self, mut tile: Tensor) -> Result<Option<Tensor>> {
        let Layout { extent, limit, .. } = self.layout;
        let (row, column) = (self.behind / self.columns, self.behind % self.columns);
        if row > 0 {
            let Some(above) = self.above.get(column) else { bail!("a tile without one above") };
            tile = blend(above, tile, 0, extent)?;
        }
        if let Some(left) = self.left.take() {
            tile = blend(&left, tile, 1, extent)?;
        }
        let (h, w, _) = tile.dims3()?;
        let part = tile.narrow(0, 0, limit.min(h))?.narrow(1, 0, limit.min(w))?;
        self.row.push(part.contiguous()?);
        self.behind += 1;
        let (last, bottom) = (column + 1 == self.columns, row + 1 == self.rows);
        if !last {
            self.left = Some(end(&tile, 1, extent)?);
        }
        if !bottom {
            let strip = end(&tile, 0, extent)?;
            match self.above.get_mut(column) {
                Some(above) => *above = strip,
                None => self.above.push(strip),
            }
        }
        if last {
            self.done.push(Tensor::cat(&std::mem::take(&mut self.row), 1)?);
        }
        if !last || !bottom {
            return Ok(None);
        }
        // The rows go at once: what is done with the whole needs the room.
        Tensor::cat(&std::mem::take(&mut self.done), 0).map(Some)
    }
}

/// The last rows or columns of a tile, at most `extent`.
fn end(tile: &Tensor, dim: usize, extent: usize) -> Result<Tensor> {
    let n = tile.dim(dim)?;
    let count = extent.min(n);
    tile.narrow(dim, n - count, count)?.contiguous()
}

/// `tile` with its first rows or columns faded in from the last ones of `before`.
fn blend(before: &Tensor, tile: Tensor, dim: usize, extent: usize) -> Result<Tensor> {
    let n = tile.dim(dim)?;
    let count = before.dim(dim)?.min(n).min(extent);
    if count == 0 {
        return Ok(tile);
    }
    let ramp = |weight: fn(f64) -> f64| -> Result<Tensor> {
        let weights = (0..count).map(|i| weight(i as f64 / count as f64) as f32);
        let shape = if dim == 0 { (count, 1, 1) } else { (1, count, 1) };
        let weights = Tensor::from_vec(weights.collect::<Vec<_>>(), shape, tile.device())?;
        weights.to_dtype(tile.dtype())
    };
    let from = end(before, dim, count)?.broadcast_mul(&ramp(|x| 1.0 - x)?)?;
    let to = tile.narrow(dim, 0, count)?.broadcast_mul(&ramp(|x| x)?)?;
    Tensor::cat(&[(from + to)?, tile.narrow(dim, count, n - count)?], dim)
}
