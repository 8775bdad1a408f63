//! Attention over the sequences of a packed batch. The full score matrix is never in memory: own
//! kernels, flash attention and Metal's run block by block with an online softmax, the rest of the
//! stock path a slice of queries at a time.

use super::{Ops, Segment, expect, matrix, output, values};
use candle_core::{CpuStorage, CustomOp3, D, DType, Device, Layout, Result, Shape, Tensor, bail};
use std::ops::Range;

/// Scores that the stock path holds at once, in numbers: 16 MiB of f32, several times while they
/// become weights.
const SCORES: usize = 4 << 20;

/// Sizes of a head that candle's attention on Metal has kernels for, as its `Sdpa::metal_fwd` says.
const SDPA_DIMS: [usize; 7] = [32, 64, 72, 80, 96, 128, 256];

/// What each head adds to a score for the way from the query to the key.
#[derive(Clone, Debug)]
pub struct RelativeBias {
    host: Vec<f32>,
    heads: usize,
    /// The same numbers [heads, 2 reach - 1] on the device, for the stock path.
    device: Option<Tensor>,
}

impl RelativeBias {
    /// Wraps `values` [heads, 2 reach - 1] for the given implementation and device: what key `j` adds
    /// for query `i` stands at `reach - 1 + j - i`.
    ///
    /// # Errors
    /// Where the size does not fit, or the device refuses an allocation.
    pub fn new(values: Vec<f32>, heads: usize, ops: Ops, device: &Device) -> Result<Self> {
        let span = values.len() / heads.max(1);
        if span * heads != values.len() || span.is_multiple_of(2) {
            bail!("a bias of {} numbers does not fit {heads} heads", values.len());
        }
        let device = match ops {
            Ops::Own => None,
            Ops::Stock => Some(Tensor::from_slice(&values, (heads, span), device)?),
        };
        Ok(Self { host: values, heads, device })
    }

    /// Rows of the longest segment that it reaches over.
    fn reach(&self) -> usize {
        (self.host.len() / self.heads).div_ceil(2)
    }

    /// The part for `queries` and all `n` keys, [heads, queries, n].
    fn part(&self, queries: Range<usize>, n: usize) -> Result<Tensor> {
        let Some(device) = &self.device else {
            bail!("a bias for own kernels was given to a stock operation")
        };
        let middle = self.reach() - 1;
        let places: Vec<u32> = queries
            .clone()
            .flat_map(|query| (0..n).map(move |key| (middle + key - query) as u32))
            .collect();
        let places = Tensor::from_vec(places, queries.len() * n, device.device())?;
        device.index_select(&places, 1)?.reshape((self.heads, queries.len(), n))
    }
}

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
            Ops::Own => {
                q.apply_op3_no_bwd(k, v, &OwnAttention { heads, scale, bias: None, segments })
            }
            Ops::Stock => stock(q, k, v, heads, scale, None, segments),
        }
    }

    /// [`Ops::attention`] with `bias` added to the scores.
    ///
    /// # Errors
    /// As [`Ops::attention`], and where the bias does not reach over a segment.
    pub fn attention_biased(
        self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        scale: f32,
        bias: &RelativeBias,
        segments: &[Segment],
    ) -> Result<Tensor> {
        let longest = segments.iter().map(rows_of).max().unwrap_or(0);
        expect("rows past the bias's reach", longest.saturating_sub(bias.reach()), 0)?;
        let (heads, bias) = (bias.heads, Some(bias));
        match self {
            Ops::Own => q.apply_op3_no_bwd(k, v, &OwnAttention { heads, scale, bias, segments }),
            Ops::Stock => stock(q, k, v, heads, scale, bias, segments),
        }
    }
}

fn rows_of(segment: &Segment) -> usize {
    segment.ranges.iter().map(Range::len).sum()
}

struct OwnAttention<'a> {
    heads: usize,
    scale: f32,
    bias: Option<&'a RelativeBias>,
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
        let [q, k, v] = [values(q, q_layout)?, values(k, k_layout)?, values(v, v_layout)?];
        let Self { heads, scale, bias, segments } = *self;
        let dim = width / heads;
        match bias {
            None => darkroom_kernels::attention(q, k, v, heads, dim, scale, segments, &mut out),
            Some(bias) => {
                let bias = &bias.host;
                let out = &mut out;
                darkroom_kernels::attention_biased(q, k, v, heads, dim, scale, bias, segments, out);
            }
        }
        output(out, (rows, width))
    }
}

/// candle's operations, on any device.
fn stock(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    scale: f32,
    bias: Option<&RelativeBias>,
    segments: &[Segment],
) -> Result<Tensor> {
    let (rows, width) = q.dims2()?;
    let dim = width / heads;
    #[cfg(feature = "flash-attn")]
    if bias.is_none() && super::flash::serves(q, dim) {
        return super::flash::attention(q, k, v, heads, scale, segments);
    }
    let mut pieces = Vec::new();
    for segment in segments {
        let ranges = filled(segment);
        let n: usize = ranges.iter().map(Range::len).sum();
        if n == 0 {
            continue;
        }
        let by_head = |x| gather(x, &ranges)?.reshape((n, heads, dim))?.transpose(0, 1);
        let [q, k, v] = [by_head(q)?, by_head(k)?, by_head(v)?]; // (heads, n, dim)
        let out = if q.device().is_metal() && bias.is_none() && SDPA_DIMS.contains(&dim) {
            let one = |x: Tensor| x.unsqueeze(0)?.contiguous();
            candle_nn::ops::sdpa(&one(q)?, &one(k)?, &one(v)?, None, false, scale, 1.0)?
                .squeeze(0)?
        } else {
            in_slices(&q, &k, &v, scale, bias)?
        };
        pieces.extend(cut(&out.transpose(0, 1)?.reshape((n, width))?, &ranges)?);
    }
    place(pieces, rows, q)
}

/// softmax(q k^T * scale + bias) v of each head, a slice of queries at a time. q, k, v [heads, n, dim].
fn in_slices(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f32,
    bias: Option<&RelativeBias>,
) -> Result<Tensor> {
    let (heads, n, _) = q.dims3()?;
    let kt = k.transpose(1, 2)?.contiguous()?; // (heads, dim, n)
    let v = v.contiguous()?;
    let slice = (SCORES / (heads * n)).max(1);
    let mut outputs = Vec::new();
    for start in (0..n).step_by(slice) {
        let queries = start..n.min(start + slice);
        let q = q.narrow(1, start, queries.len())?.contiguous()?;
        let mut scores = (q.matmul(&kt)?.to_dtype(DType::F32)? * f64::from(scale))?;
        if let Some(bias) = bias {
            scores = (scores + bias.part(queries, n)?)?;
        }
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.to_dtype(v.dtype())?;
        outputs.push(weights.matmul(&v)?); // (heads, slice, dim)
    }
    Tensor::cat(&outputs, 1)
}

/// The ranges of rows that a segment has.
pub(super) fn filled(segment: &Segment) -> Vec<Range<usize>> {
    segment.ranges.iter().filter(|range| !range.is_empty()).cloned().collect()
}

/// The rows of `ranges`, one range after another.
pub(super) fn gather(x: &Tensor, ranges: &[Range<usize>]) -> Result<Tensor> {
    let parts = ranges.iter().map(|range| x.narrow(0, range.start, range.len()));
    Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)
}

/// Rows of the output that lie together, by the first one's place.
pub(super) type Piece = (usize, Tensor);

/// What [`gather`] put together, in pieces again.
pub(super) fn cut(x: &Tensor, ranges: &[Range<usize>]) -> Result<Vec<Piece>> {
    let mut taken = 0;
    let one = |range: &Range<usize>| {
        let piece = x.narrow(0, taken, range.len())?;
        taken += range.len();
        Ok((range.start, piece))
    };
    ranges.iter().map(one).collect()
}

/// Puts the pieces where they belong among `rows` rows alike `like`'s; the others are 0.
pub(super) fn place(mut pieces: Vec<Piece>, rows: usize, like: &Tensor) -> Result<Tensor> {
    let zeros = |n| Tensor::zeros((n, like.dim(1)?), like.dtype(), like.device());
    pieces.sort_by_key(|(start, _)| *start);
    let mut filled = Vec::new();
    let mut next = 0;
    for (start, piece) in pieces {
        if start > next {
            filled.push(zeros(start - next)?);
        }
        next = start + piece.dim(0)?;
        filled.push(piece);
    }
    if next < rows {
        filled.push(zeros(rows - next)?);
    }
    Tensor::cat(&filled, 0)
}
