//! Attention whose queries come in bands: keys and values are packed once and outlive the calls.

use crate::attention::{Head, QUERIES, Queries, Segment};
use crate::packed::Packed;
use crate::parallel::{self, Shared};
use crate::simd::Isa;
use crate::tile::MAX_TILE_ROWS;

/// The keys and values of one head of one sequence, packed once for queries that come bit by bit.
#[derive(Clone, Debug)]
pub struct PackedKeys {
    keys: Packed,
    values: Packed,
}

impl PackedKeys {
    /// Packs `k` and `v`, both `[rows, dim]`.
    ///
    /// # Panics
    ///
    /// If the lengths differ or are no multiple of `dim`, or `dim` is zero.
    pub fn new(k: &[f32], v: &[f32], dim: usize) -> Self {
        assert!(dim > 0 && k.len() == v.len() && k.len().is_multiple_of(dim), "rows of {dim}");
        let segment = Segment { ranges: [0..k.len() / dim, 0..0] };
        let head = Head { segment: &segment, first: 0 };
        Self { keys: head.keys(k, dim, dim), values: head.values(v, dim, dim) }
    }

    /// Writes to `out` what [`attention`](crate::attention()) gives the queries `q`, both `[queries, dim]`.
    ///
    /// A query's bits depend on itself, the keys and the values alone.
    ///
    /// # Panics
    ///
    /// If the lengths differ or are no multiple of `dim`.
    pub fn attend(&self, q: &[f32], scale: f32, out: &mut [f32]) {
        self.attend_on(Isa::best(), q, scale, out);
    }

    pub(crate) fn attend_on(&self, isa: Isa, q: &[f32], scale: f32, out: &mut [f32]) {
        let (dim, n) = (self.keys.k(), self.keys.n());
        assert!(q.len() == out.len() && q.len().is_multiple_of(dim), "queries of {dim}");
        let count = q.len() / dim;
        let segment = Segment { ranges: [0..count, 0..0] };
        let head = &Head { segment: &segment, first: 0 };
        let parallel = parallel::worthwhile(4 * count * n * dim);
        // Few queries are shared out evenly, in whole tiles.
        let share = if parallel { count.div_ceil(rayon::current_num_threads()) } else { count };
        let block = share.next_multiple_of(MAX_TILE_ROWS).clamp(MAX_TILE_ROWS, QUERIES);
        let out = &Shared::new(out);
        let (keys, values) = (&self.keys, &self.values);
        parallel::for_each(parallel, count.div_ceil(block), |task| {
            let queries = task * block..count.min((task + 1) * block);
            isa.run(Queries { q, width: dim, scale, bias: None, head, queries, keys, values, out });
        });
    }
}
