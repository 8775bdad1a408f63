//! candle's flash attention over a packed batch: every sequence in one launch, no scores in memory.
//!
//! Written against candle-flash-attn's interface and checked by the compiler alone; see docs/gpu.md.

use super::{
    Segment,
    attention::{cut, filled, gather, place},
};
use candle_core::{DType, Result, Tensor};
use std::ops::Range;

/// Whether there is a kernel for these queries, of heads of `dim` channels.
pub(super) fn serves(q: &Tensor, dim: usize) -> bool {
    let half = matches!(q.dtype(), DType::F16 | DType::BF16);
    q.device().is_cuda() && half && dim <= 256 && dim.is_multiple_of(8)
}

/// As [`Ops::attention`](super::Ops::attention).
pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    scale: f32,
    segments: &[Segment],
) -> Result<Tensor> {
    let (rows, width) = q.dims2()?;
    let lengths: Vec<usize> = segments
        .iter()
        .map(|segment| segment.ranges.iter().map(Range::len).sum())
        .filter(|&length| length > 0)
        .collect();
    let Some(longest) = lengths.iter().max().copied() else { return q.zeros_like() };
    // The rows of a sequence must lie together: [text, image] of the first, then of the next.
    let ranges: Vec<Range<usize>> = segments.iter().flat_map(filled).collect();
    let n: usize = lengths.iter().sum();
    let by_head = |x| gather(x, &ranges)?.reshape((n, heads, width / heads));
    let mut ends = vec![0u32];
    for length in lengths {
        ends.push(ends.last().copied().unwrap_or(0) + length as u32);
    }
    let ends = Tensor::new(ends, q.device())?;
    let out = candle_flash_attn::flash_attn_varlen(
        &by_head(q)?,
        &by_head(k)?,
        &by_head(v)?,
        &ends,
        &ends,
        longest,
        longest,
        scale,
        false,
    )?;
    place(cut(&out.reshape((n, width))?, &ranges)?, rows, q)
}
