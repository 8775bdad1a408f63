//! GroupNorm of a channel-last picture.
//!
//! Sums run in `f64`, over chunks of pixels whose size is a constant: a million pixels lose no
//! accuracy, and the order of additions is the same on any number of threads.

use rayon::prelude::*;

use crate::math;
use crate::norm::each_row_block;
use crate::parallel;
use crate::simd::{Isa, Kernel, LANES, Simd, load_part, store_part};

/// Pixels whose sums are taken together.
const CHUNK: usize = 1024;

/// GroupNorm of `x`, `[pixels, c]`, times `weight` plus `bias`, both `[c]`, through SiLU if `silu`.
/// Group `i` is the channels `i c / groups ..`.
///
/// # Panics
///
/// If a length does not fit the sizes above, or `c` is no multiple of `groups`.
pub fn group_norm(
    x: &[f32],
    c: usize,
    groups: usize,
    eps: f32,
    weight: &[f32],
    bias: &[f32],
    silu: bool,
    y: &mut [f32],
) {
    group_norm_on(Isa::best(), x, c, groups, eps, weight, bias, silu, y);
}

pub(crate) fn group_norm_on(
    isa: Isa,
    x: &[f32],
    c: usize,
    groups: usize,
    eps: f32,
    weight: &[f32],
    bias: &[f32],
    silu: bool,
    y: &mut [f32],
) {
    let mut sums = GroupSums::new(c, groups);
    sums.add_on(isa, x);
    sums.apply_on(isa, x, eps, weight, bias, silu, y);
}

/// What GroupNorm has to know of a whole picture before it can change a pixel, for pictures that
/// are walked over in bands: all of them through [`GroupSums::add`], then through
/// [`GroupSums::apply`].
#[derive(Clone, Debug)]
pub struct GroupSums {
    /// For each group, the sum of its numbers and of their squares.
    of_groups: Vec<[f64; 2]>,
    c: usize,
    pixels: usize,
}

impl GroupSums {
    /// Pixels of a band, or a multiple of them: sums are taken over so many at a time.
    pub const PIXELS: usize = CHUNK;

    /// Of no pixels yet, for `c` channels.
    ///
    /// # Panics
    ///
    /// If `c` is no multiple of `groups`, or there are none.
    pub fn new(c: usize, groups: usize) -> Self {
        assert!(groups > 0 && c.is_multiple_of(groups), "{c} channels in {groups} groups");
        Self { of_groups: vec![[0.0; 2]; groups], c, pixels: 0 }
    }

    /// Pixels so far.
    pub fn pixels(&self) -> usize {
        self.pixels
    }

    /// Adds the next pixels, `[pixels, c]`. All bands but the last are a multiple of
    /// [`GroupSums::PIXELS`]; then the sums have the bits that they have in one band.
    ///
    /// # Panics
    ///
    /// If these are not whole pixels, or an earlier band was the last.
    pub fn add(&mut self, x: &[f32]) {
        self.add_on(Isa::best(), x);
    }

    fn add_on(&mut self, isa: Isa, x: &[f32]) {
        if x.is_empty() {
            return;
        }
        let c = self.c;
        assert!(x.len().is_multiple_of(c), "{} numbers in pixels of {c}", x.len());
        assert!(self.pixels.is_multiple_of(CHUNK), "a band after {} pixels", self.pixels);
        self.pixels += x.len() / c;
        for chunk in moments(isa, x, c, self.of_groups.len()) {
            for (total, part) in self.of_groups.iter_mut().zip(chunk) {
                total[0] += part[0];
                total[1] += part[1];
            }
        }
    }

    /// Writes to `y` what [`group_norm`] of the whole picture gives the pixels `x`.
    ///
    /// # Panics
    ///
    /// If a length does not fit.
    pub fn apply(
        &self,
        x: &[f32],
        eps: f32,
        weight: &[f32],
        bias: &[f32],
        silu: bool,
        y: &mut [f32],
    ) {
        self.apply_on(Isa::best(), x, eps, weight, bias, silu, y);
    }

    fn apply_on(
        &self,
        isa: Isa,
        x: &[f32],
        eps: f32,
        weight: &[f32],
        bias: &[f32],
        silu: bool,
        y: &mut [f32],
    ) {
        let c = self.c;
        assert_eq!(x.len(), y.len(), "input and output of one size");
        assert!(weight.len() == c && bias.len() == c, "weight and bias of {c} channels");
        if x.is_empty() {
            return;
        }
        assert!(x.len().is_multiple_of(c), "{} numbers in pixels of {c}", x.len());
        let per = c / self.of_groups.len();
        let count = (self.pixels * per) as f64;
        let (mut mean, mut scale) = (vec![0.0; c], vec![0.0; c]);
        for (group, [sum, squares]) in self.of_groups.iter().enumerate() {
            let centre = sum / count;
            let variance = (squares / count - centre * centre).max(0.0);
            let inverse = 1.0 / (variance + f64::from(eps)).sqrt();
            for channel in group * per..(group + 1) * per {
                mean[channel] = centre as f32;
                scale[channel] = (inverse * f64::from(weight[channel])) as f32;
            }
        }
        each_row_block(y, c, |rows, y| {
            let x = &x[rows.start * c..rows.end * c];
            isa.run(Apply { x, mean: &mean, scale: &scale, bias, silu, y });
        });
    }
}

/// For each chunk and group, the sum of its numbers and of their squares.
fn moments(isa: Isa, x: &[f32], c: usize, groups: usize) -> Vec<Vec<[f64; 2]>> {
    let of_chunk = |x: &[f32]| {
        let (mut sums, mut squares) = (vec![0.0; c], vec![0.0; c]);
        isa.run(Moments { x, sums: &mut sums, squares: &mut squares });
        let of_groups = sums.chunks(c / groups).zip(squares.chunks(c / groups));
        of_groups.map(|(sums, squares)| [sums.iter().sum(), squares.iter().sum()]).collect()
    };
    if parallel::worthwhile(4 * x.len()) {
        x.par_chunks(CHUNK * c).map(of_chunk).collect()
    } else {
        x.chunks(CHUNK * c).map(of_chunk).collect()
    }
}

/// Adds up each channel's numbers and their squares.
struct Moments<'a> {
    x: &'a [f32],
    sums: &'a mut [f64],
    squares: &'a mut [f64],
}

impl Kernel for Moments<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        // Plain arithmetic: `f64` has no lanes of its own here, and the compiler vectorises over
        // the channels itself.
        for x in self.x.chunks(self.sums.len()) {
            for ((&x, sum), square) in x.iter().zip(&mut *self.sums).zip(&mut *self.squares) {
                let x = f64::from(x);
                *sum += x;
                *square += x * x;
            }
        }
    }
}

struct Apply<'a> {
    x: &'a [f32],
    mean: &'a [f32],
    scale: &'a [f32],
    bias: &'a [f32],
    silu: bool,
    y: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let c = self.mean.len();
        for (x, y) in self.x.chunks(c).zip(self.y.chunks_mut(c)) {
            for at in (0..c).step_by(LANES) {
                let lanes = at..c.min(at + LANES);
                let x = s.sub(
                    load_part(s, &x[lanes.clone()], 0.0),
                    load_part(s, &self.mean[lanes.clone()], 0.0),
                );
                let scale = load_part(s, &self.scale[lanes.clone()], 0.0);
                let mut v = s.fma(x, scale, load_part(s, &self.bias[lanes.clone()], 0.0));
                if self.silu {
                    v = math::silu(s, v);
                }
                store_part(s, v, &mut y[lanes]);
            }
        }
    }
}
