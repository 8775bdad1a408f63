//! Convolution of a channel-last picture, as a matrix product over patches that are gathered as
//! they are needed: neither the patches nor the padded or enlarged picture are ever in memory.

use std::ops::Range;

use crate::linear::Activation;
use crate::packed::Packed;
use crate::product::{Source, product};
use crate::simd::Isa;

/// The weights `[cout, cin, kh, kw]` of a convolution, packed for [`conv2d`].
#[derive(Clone, Debug)]
pub struct PackedConv {
    weight: Packed,
    bias: Option<Vec<f32>>,
    cin: usize,
    kh: usize,
    kw: usize,
}

impl PackedConv {
    /// Packs `weight`, `[cout, cin, kh, kw]` as checkpoints hold it, and `bias`, `[cout]`.
    ///
    /// # Panics
    ///
    /// If a length does not fit these sizes.
    pub fn new(
        weight: &[f32],
        bias: Option<&[f32]>,
        cout: usize,
        cin: usize,
        kh: usize,
        kw: usize,
    ) -> Self {
        let k = cin * kh * kw;
        assert_eq!(weight.len(), cout * k, "weights of a [{cout}, {cin}, {kh}, {kw}] convolution");
        assert!(bias.is_none_or(|b| b.len() == cout), "the bias of {cout} output channels");
        // The channels of a pixel lie together in the picture, so they become the last axis.
        let weight = Packed::from_fn(cout, k, |o, row| {
            let from = &weight[o * k..][..k];
            for tap in 0..kh * kw {
                for c in 0..cin {
                    row[tap * cin + c] = from[c * kh * kw + tap];
                }
            }
        });
        Self { weight, bias: bias.map(<[f32]>::to_vec), cin, kh, kw }
    }

    /// Output channels.
    pub fn cout(&self) -> usize {
        self.weight.n()
    }
}

/// The picture that a convolution reads, and the steps in which it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Height of the picture as it is in memory.
    pub height: usize,
    /// Width of the picture as it is in memory.
    pub width: usize,
    /// Distance of neighbouring outputs, in both directions.
    pub stride: usize,
    /// Rows of zeros above the (enlarged) picture.
    pub pad_top: usize,
    /// Columns of zeros left of the (enlarged) picture.
    pub pad_left: usize,
    /// Rows of zeros below the (enlarged) picture.
    pub pad_bottom: usize,
    /// Columns of zeros right of the (enlarged) picture.
    pub pad_right: usize,
    /// How many times each pixel is repeated in both directions before the convolution: 1 or more.
    pub upsample: usize,
}

impl ConvGeometry {
    /// Rows of the output, for a kernel of `kernel` rows.
    pub fn out_height(&self, kernel: usize) -> usize {
        let padded = self.height * self.upsample + self.pad_top + self.pad_bottom;
        outputs(padded, kernel, self.stride)
    }

    /// Columns of the output, for a kernel of `kernel` columns.
    pub fn out_width(&self, kernel: usize) -> usize {
        let padded = self.width * self.upsample + self.pad_left + self.pad_right;
        outputs(padded, kernel, self.stride)
    }
}

fn outputs(padded: usize, kernel: usize, stride: usize) -> usize {
    if padded < kernel { 0 } else { (padded - kernel) / stride + 1 }
}

/// Convolves `x`, `[height, width, cin]`, and writes the output rows `rows` to `y`,
/// `[rows.len(), out_width, cout]`.
///
/// An output's bits do not depend on which other rows are asked for.
///
/// # Panics
///
/// If a length does not fit, if `rows` reaches past the output, or if the stride or the number of
/// repetitions is zero.
pub fn conv2d(
    x: &[f32],
    geometry: &ConvGeometry,
    weight: &PackedConv,
    rows: Range<usize>,
    y: &mut [f32],
) {
    conv2d_on(Isa::best(), x, geometry, weight, rows, y);
}

pub(crate) fn conv2d_on(
    isa: Isa,
    x: &[f32],
    geometry: &ConvGeometry,
    weight: &PackedConv,
    rows: Range<usize>,
    y: &mut [f32],
) {
    let g = *geometry;
    assert!(g.stride > 0 && g.upsample > 0, "a stride and a scale of at least one, found {g:?}");
    assert_eq!(x.len(), g.height * g.width * weight.cin, "the picture's size for {g:?}");
    let (height, width) = (g.out_height(weight.kh), g.out_width(weight.kw));
    assert!(rows.end <= height, "rows {rows:?} of an output of {height} rows");
    let pixels = rows.len() * width;
    assert_eq!(y.len(), pixels * weight.cout(), "the output's size for {g:?}, rows {rows:?}");
    let patches = Patches { x, g, weight, first: rows.start * width, width };
    let bias = weight.bias.as_deref();
    product(isa, &patches, pixels, &weight.weight, bias, Activation::None, y);
}

/// The patches under the kernel as rows of a matrix, `[pixels, kh * kw * cin]`.
struct Patches<'a> {
    x: &'a [f32],
    g: ConvGeometry,
    weight: &'a PackedConv,
    /// The output pixel of row 0.
    first: usize,
    /// Width of the output.
    width: usize,
}

impl Source for Patches<'_> {
    fn read(&self, row: usize, start: usize, mut to: &mut [f32]) {
        let PackedConv { cin, kw, .. } = *self.weight;
        let (out_y, out_x) = ((self.first + row) / self.width, (self.first + row) % self.width);
        let line = kw * cin; // one row of the kernel
        let (mut ky, mut at) = (start / line, start % line);
        while !to.is_empty() {
            let (part, rest) = to.split_at_mut((line - at).min(to.len()));
            self.read_line(out_y * self.g.stride + ky, out_x * self.g.stride, at, part);
            (to, ky, at) = (rest, ky + 1, 0);
        }
    }
}

impl Patches<'_> {
    /// Writes the numbers `at ..` of the `kw * cin` that the kernel sees in row `y` of the padded
    /// picture from column `x` on.
    fn read_line(&self, y: usize, x: usize, at: usize, to: &mut [f32]) {
        let (g, cin) = (&self.g, self.weight.cin);
        let Some(y) = y.checked_sub(g.pad_top).filter(|&y| y < g.height * g.upsample) else {
            return to.fill(0.0);
        };
        let picture = &self.x[y / g.upsample * g.width * cin..][..g.width * cin];
        // Where the whole line lies inside a picture that is not enlarged, it is one piece.
        let inside = x >= g.pad_left && x - g.pad_left + self.weight.kw <= g.width;
        if inside && g.upsample == 1 {
            let from = (x - g.pad_left) * cin + at;
            return to.copy_from_slice(&picture[from..][..to.len()]);
        }
        let (mut tap, mut channel, mut to) = (at / cin, at % cin, to);
        while !to.is_empty() {
            let (part, rest) = to.split_at_mut((cin - channel).min(to.len()));
            match (x + tap).checked_sub(g.pad_left).filter(|&x| x < g.width * g.upsample) {
                Some(x) => {
                    let from = x / g.upsample * cin + channel;
                    part.copy_from_slice(&picture[from..][..part.len()]);
                }
                None => part.fill(0.0),
            }
            (to, tap, channel) = (rest, tap + 1, 0);
        }
    }
}
