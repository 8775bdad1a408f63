//! Attention with a bias by relative position, as T5 has it: a score gains what its head knows of the
//! way from the query to the key.

use crate::attention::{Segment, attention_on};
use crate::simd::{Isa, LANES, Simd, load_part, store_part};

/// [`attention`](crate::attention()) with `bias` added to the scores before the softmax.
///
/// `bias` is `[heads, 2 reach - 1]`: what key `j` adds for query `i`, both counted from the start of
/// their segment, stands at `reach - 1 + j - i`. So no matrix of all pairs is ever in memory.
///
/// # Panics
///
/// As [`attention`](crate::attention()); if `bias` has not that size for a `reach` of at least the
/// longest segment.
pub fn attention_biased(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    heads: usize,
    dim: usize,
    scale: f32,
    bias: &[f32],
    segments: &[Segment],
    out: &mut [f32],
) {
    attention_on(Isa::best(), q, k, v, heads, dim, scale, Some(bias), segments, out);
}

/// The numbers that `bias` has for each head: enough for every segment.
pub(crate) fn width(bias: &[f32], heads: usize, segments: &[Segment]) -> usize {
    let longest = segments.iter().map(Segment::len).max().unwrap_or(0);
    let width = bias.len() / heads;
    let fits = bias.len().is_multiple_of(heads) && !width.is_multiple_of(2);
    assert!(
        fits && width.div_ceil(2) >= longest,
        "a bias of {} numbers for {heads} heads and {longest} rows",
        bias.len()
    );
    width
}

/// Adds what one head's `bias` has for `query` and the keys `first ..` to their scores.
#[inline(always)]
pub(crate) fn add<S: Simd>(s: S, bias: &[f32], query: usize, first: usize, scores: &mut [f32]) {
    let bias = &bias[bias.len() / 2 + first - query..][..scores.len()];
    for (scores, bias) in scores.chunks_mut(LANES).zip(bias.chunks(LANES)) {
        store_part(s, s.add(load_part(s, scores, 0.0), load_part(s, bias, 0.0)), scores);
    }
}
