//! Attention within the sequences of a packed batch, block by block with an online softmax: the
//! scores of a few queries and one block of keys are all that is ever in memory.
//!
//! Keys are counted from the start of their segment and taken in blocks of a constant size, so a
//! query's result depends on its segment alone, wherever that lies.

use std::ops::Range;

use rayon::prelude::*;

use crate::bias;
use crate::math;
use crate::packed::Packed;
use crate::parallel::{self, Shared};
use crate::simd::{Isa, Kernel, LANES, Lanes, Simd, store_part};
use crate::tile::{MAX_TILE_ROWS, accumulate};

/// Keys between two steps of the online softmax. It shapes the results' last bits.
const KEYS: usize = 128;
/// Room between the rows of scores, so that they do not all fall into one set of the cache.
const STRIDE: usize = KEYS + LANES;
/// Queries of a task: so many share a block of keys and values while it is in the cache.
pub(crate) const QUERIES: usize = 96;
/// Packed keys and values in memory at a time, in numbers: 32 MiB, or one head if that is more.
const PACKED: usize = 8 << 20;

/// The rows of one sequence in a packed batch: those of range 0, then those of range 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Ranges of rows; either may be empty.
    pub ranges: [Range<usize>; 2],
}

impl Segment {
    pub(crate) fn len(&self) -> usize {
        self.ranges[0].len() + self.ranges[1].len()
    }

    /// The row in the batch of the segment's row `i`.
    #[inline(always)]
    fn row(&self, i: usize) -> usize {
        let [first, second] = &self.ranges;
        if i < first.len() { first.start + i } else { second.start + (i - first.len()) }
    }
}

/// `softmax(q k^T * scale) v` within each segment and head: `q`, `k`, `v` and `out` are
/// `[rows, heads * dim]`.
///
/// Rows of no segment are left as they are. A row's bits depend on its segment's rows alone.
///
/// # Panics
///
/// If the lengths differ or are no multiple of `heads * dim`, if a segment reaches past the rows, or
/// if two segments share a row.
pub fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    heads: usize,
    dim: usize,
    scale: f32,
    segments: &[Segment],
    out: &mut [f32],
) {
    attention_on(Isa::best(), q, k, v, heads, dim, scale, None, segments, out);
}

pub(crate) fn attention_on(
    isa: Isa,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    heads: usize,
    dim: usize,
    scale: f32,
    bias: Option<&[f32]>,
    segments: &[Segment],
    out: &mut [f32],
) {
    let width = heads * dim;
    let len = q.len();
    assert!(k.len() == len && v.len() == len && out.len() == len, "q, k, v and out of one size");
    if len == 0 || width == 0 {
        return;
    }
    assert!(len.is_multiple_of(width), "{len} numbers in rows of {heads} heads of {dim}");
    check_segments(segments, len / width);
    let span = bias.map_or(0, |bias| bias::width(bias, heads, segments));
    let heads: Vec<Head> = segments
        .iter()
        .filter(|segment| segment.len() > 0)
        .flat_map(|segment| (0..heads).map(move |head| Head { segment, first: head * dim }))
        .collect();
    let flops = heads.iter().map(|head| 4 * head.segment.len().pow(2) * dim).sum();
    let parallel = parallel::worthwhile(flops);
    let out = &Shared::new(out);
    let mut rest = heads.as_slice();
    while !rest.is_empty() {
        let mut size = 0;
        let fitting = rest.iter().take_while(|head| {
            size += 2 * head.segment.len() * dim.next_multiple_of(LANES);
            size <= PACKED
        });
        let (batch, others) = rest.split_at(fitting.count().max(1));
        rest = others;
        let pack = |head: &Head| (head.keys(k, width, dim), head.values(v, width, dim));
        let packed: Vec<(Packed, Packed)> = if parallel {
            batch.par_iter().map(pack).collect()
        } else {
            batch.iter().map(pack).collect()
        };
        let tasks: Vec<(usize, usize)> = batch
            .iter()
            .enumerate()
            .flat_map(|(i, head)| (0..head.segment.len()).step_by(QUERIES).map(move |q| (i, q)))
            .collect();
        parallel::for_each(parallel, tasks.len(), |task| {
            let (i, first) = tasks[task];
            let (keys, values) = &packed[i];
            let head = &batch[i];
            let queries = first..head.segment.len().min(first + QUERIES);
            let bias = bias.map(|bias| &bias[head.first / dim * span..][..span]);
            isa.run(Queries { q, width, scale, bias, head, queries, keys, values, out });
        });
    }
}

fn check_segments(segments: &[Segment], rows: usize) {
    let mut taken = vec![false; rows];
    for range in segments.iter().flat_map(|segment| &segment.ranges).filter(|r| !r.is_empty()) {
        assert!(range.end <= rows, "a segment with the rows {range:?} of {rows}");
        for taken in &mut taken[range.clone()] {
            // Tasks write their rows without a lock.
            assert!(!std::mem::replace(taken, true), "a row of {range:?} in two segments");
        }
    }
}

/// One head of one segment.
pub(crate) struct Head<'a> {
    pub(crate) segment: &'a Segment,
    /// Its first column.
    pub(crate) first: usize,
}

impl Head<'_> {
    fn slice<'x>(&self, x: &'x [f32], width: usize, dim: usize, i: usize) -> &'x [f32] {
        &x[self.segment.row(i) * width + self.first..][..dim]
    }

    /// Panels of 16 keys, for the scores.
    pub(crate) fn keys(&self, k: &[f32], width: usize, dim: usize) -> Packed {
        let row = |i, to: &mut [f32]| to.copy_from_slice(self.slice(k, width, dim, i));
        Packed::from_fn(self.segment.len(), dim, row)
    }

    /// Panels of 16 channels, for the sums of values.
    pub(crate) fn values(&self, v: &[f32], width: usize, dim: usize) -> Packed {
        Packed::from_columns(dim, self.segment.len(), |i| self.slice(v, width, dim, i))
    }
}

/// A block of queries of one head, against all keys of its segment.
pub(crate) struct Queries<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) width: usize,
    pub(crate) scale: f32,
    /// What the head adds to its scores, by the way from the query to the key.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) head: &'a Head<'a>,
    pub(crate) queries: Range<usize>,
    pub(crate) keys: &'a Packed,
    pub(crate) values: &'a Packed,
    pub(crate) out: &'a Shared<'a>,
}

/// The scores of a tile of queries and a block of keys, then the weights made of them.
type Scores = [[f32; STRIDE]; MAX_TILE_ROWS];

/// What is known of a block of queries after some of the keys.
struct State {
    /// The queries, scaled: rows `stride` apart.
    q: Vec<f32>,
    stride: usize,
    /// The largest score so far.
    max: Vec<f32>,
    /// The sum of weights, relative to `max`, in lanes by the key's index.
    total: Vec<Lanes>,
    /// The weighted sums of values: `panels` for each query.
    sums: Vec<Lanes>,
    panels: usize,
}

impl Kernel for Queries<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut state = self.begin();
        let mut scores: Scores = [[0.0; STRIDE]; MAX_TILE_ROWS];
        let (count, n) = (self.queries.len(), self.keys.n());
        for start in (0..n).step_by(KEYS) {
            let keys = start..n.min(start + KEYS);
            for row in (0..count).step_by(S::TILE_ROWS) {
                let (state, scores, keys) = (&mut state, &mut scores, keys.clone());
                match (count - row).min(S::TILE_ROWS) {
                    1 => self.tile::<S, 1>(s, state, scores, row, keys),
                    2 => self.tile::<S, 2>(s, state, scores, row, keys),
                    3..=4 => self.tile::<S, 4>(s, state, scores, row, keys),
                    5..=6 => self.tile::<S, 6>(s, state, scores, row, keys),
                    7..=8 => self.tile::<S, 8>(s, state, scores, row, keys),
                    _ => self.tile::<S, MAX_TILE_ROWS>(s, state, scores, row, keys),
                }
            }
        }
        self.finish(s, &state);
    }
}

impl Queries<'_> {
    fn begin(&self) -> State {
        let dim = self.keys.k();
        // Tiles may reach past the last query: there are rows for that, all zeros.
        let rows = self.queries.len().next_multiple_of(MAX_TILE_ROWS);
        let stride = dim.next_multiple_of(LANES) + LANES;
        let mut q = vec![0.0; rows * stride];
        for (i, to) in self.queries.clone().zip(q.chunks_mut(stride)) {
            let from = self.head.slice(self.q, self.width, dim, i);
            for (to, x) in to.iter_mut().zip(from) {
                *to = x * self.scale;
            }
        }
        let panels = self.values.panel_count();
        State {
            q,
            stride,
            max: vec![f32::NEG_INFINITY; rows],
            total: vec![Lanes::ZERO; rows],
            sums: vec![Lanes::ZERO; rows * panels],
            panels,
        }
    }

    /// Takes the queries `row ..` of the block past the keys `keys`.
    #[inline(always)]
    fn tile<S: Simd, const R: usize>(
        &self,
        s: S,
        state: &mut State,
        scores: &mut Scores,
        row: usize,
        keys: Range<usize>,
    ) {
        let (first, end) = (keys.start / LANES, keys.end.div_ceil(LANES));
        let mut panel = first;
        while R <= S::PAIRED_ROWS && panel + 2 <= end {
            self.scores::<S, R, 2>(s, state, scores, row, panel, panel - first);
            panel += 2;
        }
        while panel < end {
            self.scores::<S, R, 1>(s, state, scores, row, panel, panel - first);
            panel += 1;
        }
        if let Some(bias) = self.bias {
            for (i, scores) in scores[..R].iter_mut().enumerate() {
                // Rows past the last query have its bias: they are dropped.
                let query = (self.queries.start + row + i).min(self.queries.end - 1);
                bias::add(s, bias, query, keys.start, &mut scores[..keys.len()]);
            }
        }
        let queries = &mut state.max[row..row + R];
        let rescale = softmax(s, scores, keys.len(), queries, &mut state.total[row..row + R]);
        let mut panel = 0;
        while R <= S::PAIRED_ROWS && panel + 2 <= state.panels {
            self.add_values::<S, R, 2>(s, state, scores, &rescale, row, keys.clone(), panel);
            panel += 2;
        }
        while panel < state.panels {
            self.add_values::<S, R, 1>(s, state, scores, &rescale, row, keys.clone(), panel);
            panel += 1;
        }
    }

    /// The scores with the keys of the panels `panel ..`, written from column `16 at` on.
    #[inline(always)]
    fn scores<S: Simd, const R: usize, const P: usize>(
        &self,
        s: S,
        state: &State,
        scores: &mut Scores,
        row: usize,
        panel: usize,
        at: usize,
    ) {
        let mut a = [&[][..]; R];
        let mut b = [&[][..]; P];
        for (i, a) in a.iter_mut().enumerate() {
            *a = &state.q[(row + i) * state.stride..][..self.keys.k()];
        }
        for (p, b) in b.iter_mut().enumerate() {
            *b = self.keys.panel(panel + p);
        }
        let sums = accumulate(s, [[s.splat(0.0); P]; R], a, b);
        for (sums, scores) in sums.iter().zip(scores) {
            let scores = scores[at * LANES..].as_chunks_mut::<LANES>().0;
            for (&sum, to) in sums.iter().zip(scores) {
                s.store(sum, to);
            }
        }
    }

    /// Rescales the sums of the channels in the panels `panel ..` and adds the weighted values.
    #[inline(always)]
    fn add_values<S: Simd, const R: usize, const P: usize>(
        &self,
        s: S,
        state: &mut State,
        weights: &Scores,
        rescale: &Lanes,
        row: usize,
        keys: Range<usize>,
        panel: usize,
    ) {
        let mut sums = [[s.splat(0.0); P]; R];
        let mut a = [&[][..]; R];
        let mut b = [&[][..]; P];
        for i in 0..R {
            a[i] = &weights[i][..keys.len()];
            let old = &state.sums[(row + i) * state.panels + panel..][..P];
            for (sum, old) in sums[i].iter_mut().zip(old) {
                *sum = s.mul(s.load(&old.0), s.splat(rescale.0[i]));
            }
        }
        for (p, b) in b.iter_mut().enumerate() {
            *b = &self.values.panel(panel + p)[keys.clone()];
        }
        sums = accumulate(s, sums, a, b);
        for (i, sums) in sums.iter().enumerate() {
            let new = &mut state.sums[(row + i) * state.panels + panel..][..P];
            for (&sum, new) in sums.iter().zip(new) {
                s.store(sum, &mut new.0);
            }
        }
    }

    /// Divides by the sum of weights and writes the rows out.
    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, state: &State) {
        let dim = self.keys.k();
        for (i, query) in self.queries.clone().enumerate() {
            let total = s.splat(math::sum(s, s.load(&state.total[i].0)));
            let start = self.head.segment.row(query) * self.width + self.head.first;
            // SAFETY: each task has its own queries and columns, and segments share no row.
            let out = unsafe { self.out.part(start, dim) };
            let sums = &state.sums[i * state.panels..][..state.panels];
            for (out, sums) in out.chunks_mut(LANES).zip(sums) {
                store_part(s, s.div(s.load(&sums.0), total), out);
            }
        }
    }
}

/// One step of the online softmax: the scores with so many keys become weights relative to each
/// query's new maximum. Returns, for each query, what earlier sums must be multiplied with.
#[inline(always)]
fn softmax<S: Simd>(
    s: S,
    scores: &mut Scores,
    keys: usize,
    max: &mut [f32],
    total: &mut [Lanes],
) -> Lanes {
    let padded = keys.next_multiple_of(LANES);
    let mut old = Lanes::ZERO;
    old.0[..max.len()].copy_from_slice(max);
    for (scores, max) in scores.iter_mut().zip(&mut *max) {
        scores[keys..padded].fill(f32::NEG_INFINITY);
        let mut largest = s.splat(*max);
        for x in scores[..padded].as_chunks::<LANES>().0 {
            largest = s.max(s.load(x), largest);
        }
        *max = math::max(s, largest);
    }
    let mut new = Lanes::ZERO;
    new.0[..max.len()].copy_from_slice(max);
    let mut rescale = Lanes::ZERO;
    s.store(math::exp_nonpositive(s, s.sub(s.load(&old.0), s.load(&new.0))), &mut rescale.0);
    for (i, (scores, total)) in scores.iter_mut().zip(total).enumerate() {
        let max = s.splat(new.0[i]);
        let mut sum = s.mul(s.load(&total.0), s.splat(rescale.0[i]));
        for x in scores[..padded].as_chunks_mut::<LANES>().0 {
            let weight = math::exp_nonpositive(s, s.sub(s.load(x), max));
            sum = s.add(sum, weight);
            s.store(weight, x);
        }
        s.store(sum, &mut total.0);
    }
    rescale
}
