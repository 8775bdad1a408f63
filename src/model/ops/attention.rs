//! Attention over the sequences of a packed batch. The full score matrix is never in memory: own
//! kernels run block by block with an online softmax, the stock path a slice of queries at a time.

use super::{Ops, Segment, expect, matrix, output, values};
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};

/// Scores that the stock path holds at once, in numbers: 64 MiB of f32.
const SCORES: usize = 16 << 20;

impl Ops {
    /// softmax(q k^T * scale) v for each segment and head.
    ///
    /// q, k, v: [rows, heads * dim], the packed rows of all sequences. A segment's keys are the rows
    /// of its first range, then of its second. -> [rows, heads * dim]; rows of no segment are 0.
    ///
    /// # Errors
    /// Where shapes do not fit, or the device fails.
    pub fn attention(
        self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        heads: usize,
        scale: f32,
        segments: &[Segment],
    ) -> Result<Tensor> {
        match self {
            Ops::Own => q.apply_op3_no_bwd(k, v, &OwnAttention { heads, scale, segments }),
            Ops::Stock => stock(q, k, v, heads, scale, segments),
        }
    }
}

struct OwnAttention<'a> {
    heads: usize,
    scale: f32,
    segments: &'a [Segment],
}

impl CustomOp3 for OwnAttention<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = matrix(q_layout)?;
        expect("rows of k", matrix(k_layout)?.0, rows)?;
        expect("rows of v", matrix(v_layout)?.0, rows)?;
        expect("the width's rest by heads", width % self.heads, 0)?;
        for range in self.segments.iter().flat_map(|s| &s.ranges) {
            expect("rows of a segment past the matrix", range.end.saturating_sub(rows), 0)?;
        }
        let mut out = vec![0.0; rows * width];
        darkroom_kernels::attention(
            values(q, q_layout)?,
            values(k, k_layout)?,
            values(v, v_layout)?,
            self.heads,
            width / self.heads,
            self.scale,
            self.segments,
            &mut out,
        );
        output(out, (rows, width))
    }
}

fn stock(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    scale: f32,
    segments: &[Segment],
) -> Result<Tensor> {
    let (rows, width) = q.dims2()?;
    // (rows, heads * dim) -> (heads, n, dim) of one segment
    let gather = |x: &Tensor, segment: &Segment| -> Result<Tensor> {
        let parts = segment.ranges.iter().filter(|r| !r.is_empty());
        let parts: Vec<Tensor> =
            parts.map(|r| x.narrow(0, r.start, r.len())).collect::<Result<_>>()?;
        let x = Tensor::cat(&parts, 0)?;
        x.reshape((x.dim(0)?, heads, width / heads))?.transpose(0, 1)?.contiguous()
    };
    // Pieces of the output, by the row where they belong.
    let mut pieces: Vec<(usize, Tensor)> = Vec::new();
    for segment in segments {
        let n: usize = segment.ranges.iter().map(std::ops::Range::len).sum();
        if n == 0 {
            continue;
        }
        let (q, v) = (gather(q, segment)?, gather(v, segment)?);
        let kt = gather(k, segment)?.transpose(1, 2)?.contiguous()?; // (heads, dim, n)
        let slice = (SCORES / (heads * n)).max(1);
        let mut outputs = Vec::new();
        for start in (0..n).step_by(slice) {
            let q = q.narrow(1, start, slice.min(n - start))?.contiguous()?;
            let scores = (q.matmul(&kt)?.to_dtype(DType::F32)? * f64::from(scale))?;
            let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.to_dtype(v.dtype())?;
            outputs.push(weights.matmul(&v)?); // (heads, slice, dim)
        }
        let out = Tensor::cat(&outputs, 1)?.transpose(0, 1)?.reshape((n, width))?;
        let mut taken = 0;
        for range in segment.ranges.iter().filter(|r| !r.is_empty()) {
            pieces.push((range.start, out.narrow(0, taken, range.len())?));
            taken += range.len();
        }
    }
    pieces.sort_by_key(|(start, _)| *start);
    let mut filled = Vec::new();
    let mut next = 0;
    for (start, piece) in pieces {
        if start > next {
            filled.push(Tensor::zeros((start - next, width), q.dtype(), q.device())?);
        }
        next = start + piece.dim(0)?;
        filled.push(piece);
    }
    if next < rows {
        filled.push(Tensor::zeros((rows - next, width), q.dtype(), q.device())?);
    }
    Tensor::cat(&filled, 0)
}
