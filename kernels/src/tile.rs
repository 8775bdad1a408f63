//! The one inner loop of every matrix product: a register tile of sums.

use crate::simd::{Lanes, Simd};

/// The largest [`Simd::TILE_ROWS`].
pub(crate) const MAX_TILE_ROWS: usize = 12;

/// Adds `sum_k a[i][k] * b[p][k]` to the sums, `k` strictly ascending, one fused multiply-add each.
///
/// `a`: rows of at least `b[0].len()` numbers. `b`: as many panels of 16 columns, of one length. A
/// product may be cut anywhere along `k` and continued with the sums so far: the operations on each
/// element stay the same, in the same order.
#[inline(always)]
pub(crate) fn accumulate<S: Simd, const ROWS: usize, const PANELS: usize>(
    simd: S,
    mut sums: [[S::V; PANELS]; ROWS],
    a: [&[f32]; ROWS],
    b: [&[Lanes]; PANELS],
) -> [[S::V; PANELS]; ROWS] {
    // Cut to one length here, so that the loop below needs no bounds checks.
    let len = b[0].len();
    let (mut rows, mut panels) = (a, b);
    for row in &mut rows {
        *row = &row[..len];
    }
    for panel in &mut panels {
        *panel = &panel[..len];
    }
    for k in 0..len {
        let mut weights = [simd.splat(0.0); PANELS];
        for p in 0..PANELS {
            weights[p] = simd.load(&panels[p][k].0);
        }
        for i in 0..ROWS {
            let x = simd.splat(rows[i][k]);
            for p in 0..PANELS {
                sums[i][p] = simd.fma(x, weights[p], sums[i][p]);
            }
        }
    }
    sums
}
