//! The normalisations of rows, each with what the model does right after it, and the blocks of rows
//! that row-wise kernels are spread in.
//!
//! Sums over a row run in 16 lanes by the column's index, which a fixed tree joins.

use std::ops::Range;

use crate::math;
use crate::parallel;
use crate::simd::{Isa, Kernel, LANES, Simd, load_part, store_part};

/// Numbers that a task of a row-wise kernel takes, about.
const TASK: usize = 1 << 15;

/// Calls `task` with blocks of rows of `y`, `[rows, c]`, on all threads if that is worth it.
pub(crate) fn each_row_block(
    y: &mut [f32],
    c: usize,
    task: impl Fn(Range<usize>, &mut [f32]) + Sync + Send,
) {
    if y.is_empty() {
        return;
    }
    let rows = (TASK / c).max(1);
    let parallel = parallel::worthwhile(16 * y.len());
    parallel::for_each_chunk(parallel, y, rows * c, |i, y| {
        task(i * rows..i * rows + y.len() / c, y);
    });
}

/// Asserts that `per_sequence` is `[sequences, c]` and that each row's sequence is one of them.
pub(crate) fn check_sequences(seq_of_row: &[u32], per_sequence: &[f32], c: usize) {
    let needed = seq_of_row.iter().max().map_or(0, |&last| last as usize + 1);
    let fits = per_sequence.len() >= needed * c && (c == 0 || per_sequence.len().is_multiple_of(c));
    assert!(fits, "{} numbers for {needed} sequences of {c}", per_sequence.len());
}

/// `LayerNorm(x) * (1 + scale[seq]) + shift[seq]`: `x` and `y` `[rows, c]`, `shift` and `scale`
/// `[sequences, c]`; `seq_of_row` names each row's sequence.
///
/// # Panics
///
/// If a length does not fit the sizes above, or a row's sequence is none of those given.
pub fn layer_norm_modulate(
    x: &[f32],
    c: usize,
    eps: f32,
    shift: &[f32],
    scale: &[f32],
    seq_of_row: &[u32],
    y: &mut [f32],
) {
    layer_norm_modulate_on(Isa::best(), x, c, eps, shift, scale, seq_of_row, y);
}

pub(crate) fn layer_norm_modulate_on(
    isa: Isa,
    x: &[f32],
    c: usize,
    eps: f32,
    shift: &[f32],
    scale: &[f32],
    seq_of_row: &[u32],
    y: &mut [f32],
) {
    let rows = seq_of_row.len();
    assert_eq!(x.len(), rows * c, "x of [{rows}, {c}]");
    assert_eq!(y.len(), rows * c, "the output of [{rows}, {c}]");
    check_sequences(seq_of_row, shift, c);
    check_sequences(seq_of_row, scale, c);
    each_row_block(y, c, |rows, y| {
        let x = &x[rows.start * c..rows.end * c];
        isa.run(LayerNorm { x, c, eps, shift, scale, seq_of_row: &seq_of_row[rows], y });
    });
}

struct LayerNorm<'a> {
    x: &'a [f32],
    c: usize,
    eps: f32,
    shift: &'a [f32],
    scale: &'a [f32],
    seq_of_row: &'a [u32],
    y: &'a mut [f32],
}

impl Kernel for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let c = self.c;
        for (row, &seq) in self.seq_of_row.iter().enumerate() {
            let x = &self.x[row * c..][..c];
            let mut sum = s.splat(0.0);
            for x in x.chunks(LANES) {
                sum = s.add(sum, load_part(s, x, 0.0));
            }
            let mean = math::sum(s, sum) / c as f32;
            let mut squares = s.splat(0.0);
            for x in x.chunks(LANES) {
                let d = s.sub(load_part(s, x, mean), s.splat(mean));
                squares = s.fma(d, d, squares);
            }
            let variance = math::sum(s, squares) / c as f32;
            let (mean, inverse) = (s.splat(mean), s.splat(1.0 / (variance + self.eps).sqrt()));
            let shift = self.shift[seq as usize * c..][..c].chunks(LANES);
            let scale = self.scale[seq as usize * c..][..c].chunks(LANES);
            let y = self.y[row * c..][..c].chunks_mut(LANES);
            for (((x, shift), scale), y) in x.chunks(LANES).zip(shift).zip(scale).zip(y) {
                let normed = s.mul(s.sub(load_part(s, x, 0.0), mean), inverse);
                let scale = s.add(s.splat(1.0), load_part(s, scale, 0.0));
                store_part(s, s.fma(normed, scale, load_part(s, shift, 0.0)), y);
            }
        }
    }
}

/// `x / sqrt(mean(x^2) + eps) * weight` of each row: `x` and `y` `[rows, c]`, `weight` `[c]`.
///
/// # Panics
///
/// If the lengths of `x` and `y` differ or are no multiple of `c`.
pub fn rms_norm(x: &[f32], eps: f32, weight: &[f32], y: &mut [f32]) {
    rms_norm_on(Isa::best(), x, eps, weight, y);
}

pub(crate) fn rms_norm_on(isa: Isa, x: &[f32], eps: f32, weight: &[f32], y: &mut [f32]) {
    let c = weight.len();
    assert_eq!(x.len(), y.len(), "input and output of one size");
    if x.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(c), "{} numbers in rows of {c}", x.len());
    each_row_block(y, c, |rows, y| {
        isa.run(RmsNorm { x: &x[rows.start * c..rows.end * c], eps, weight, y });
    });
}

struct RmsNorm<'a> {
    x: &'a [f32],
    eps: f32,
    weight: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let c = self.weight.len();
        for (x, y) in self.x.chunks(c).zip(self.y.chunks_mut(c)) {
            let inverse = s.splat(inverse_rms(s, x, self.eps));
            let weight = self.weight.chunks(LANES);
            for ((x, weight), y) in x.chunks(LANES).zip(weight).zip(y.chunks_mut(LANES)) {
                let normed = s.mul(load_part(s, x, 0.0), inverse);
                store_part(s, s.mul(normed, load_part(s, weight, 0.0)), y);
            }
        }
    }
}

/// `1 / sqrt(mean(x^2) + eps)`.
#[inline(always)]
fn inverse_rms<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    let mut squares = s.splat(0.0);
    for x in x.chunks(LANES) {
        let x = load_part(s, x, 0.0);
        squares = s.fma(x, x, squares);
    }
    1.0 / (math::sum(s, squares) / x.len() as f32 + eps).sqrt()
}

/// RMSNorm of each head, times `weight`, then the rotation of interleaved pairs:
/// `(a cos - b sin, a sin + b cos)`. `x` and `y` `[rows, heads * dim]`, `weight` `[dim]`, `cos` and
/// `sin` `[rows, dim / 2]`.
///
/// # Panics
///
/// If `dim` is odd or a length does not fit the sizes above.
pub fn rms_norm_rope(
    x: &[f32],
    heads: usize,
    dim: usize,
    eps: f32,
    weight: &[f32],
    cos: &[f32],
    sin: &[f32],
    y: &mut [f32],
) {
    rms_norm_rope_on(Isa::best(), x, heads, dim, eps, weight, cos, sin, y);
}

pub(crate) fn rms_norm_rope_on(
    isa: Isa,
    x: &[f32],
    heads: usize,
    dim: usize,
    eps: f32,
    weight: &[f32],
    cos: &[f32],
    sin: &[f32],
    y: &mut [f32],
) {
    let width = heads * dim;
    assert!(dim.is_multiple_of(2), "a head of {dim} channels has no pairs to rotate");
    assert_eq!(weight.len(), dim, "the weight of a head of {dim} channels");
    assert_eq!(x.len(), y.len(), "input and output of one size");
    if x.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(width), "{} numbers in rows of {width}", x.len());
    let angles = x.len() / width * (dim / 2);
    assert!(cos.len() == angles && sin.len() == angles, "{angles} angles for the rows of x");
    each_row_block(y, width, |rows, y| {
        let x = &x[rows.start * width..rows.end * width];
        let angles = rows.start * (dim / 2)..rows.end * (dim / 2);
        let (cos, sin) = (&cos[angles.clone()], &sin[angles]);
        isa.run(RmsNormRope { x, heads, eps, weight, cos, sin, y });
    });
}

struct RmsNormRope<'a> {
    x: &'a [f32],
    heads: usize,
    eps: f32,
    weight: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for RmsNormRope<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.weight.len();
        for (i, (x, y)) in self.x.chunks(dim).zip(self.y.chunks_mut(dim)).enumerate() {
            let inverse = inverse_rms(s, x, self.eps);
            let angles = i / self.heads * (dim / 2)..(i / self.heads + 1) * (dim / 2);
            let angles = self.cos[angles.clone()].iter().zip(&self.sin[angles]);
            let x = x.chunks_exact(2).zip(self.weight.chunks_exact(2));
            // Lane-wise operations cannot reach a neighbour; the compiler vectorises this itself.
            for (((x, w), y), (cos, sin)) in x.zip(y.chunks_exact_mut(2)).zip(angles) {
                let (a, b) = (x[0] * inverse * w[0], x[1] * inverse * w[1]);
                y[0] = a * cos - b * sin;
                y[1] = a * sin + b * cos;
            }
        }
    }
}
