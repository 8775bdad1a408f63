//! Resizing, to the bit as PIL's `Image.resize(size, LANCZOS)`.
//!
//! diffusers prepares references with PIL, so a different resampling would be a different picture to
//! the model. PIL's way: one side after the other, with 8 bits between; weights computed in `f64`
//! and rounded to integers; a filter that widens when it shrinks.
//!
//! This is Pillow 13, which shortens tall pictures vertically first. Pillow up to 12 always goes
//! horizontally first; the two differ by a few levels where that rule applies, else not at all.

use crate::domain::{Pixels, Size};
use std::{borrow::Cow, f64::consts::PI};

/// Fractional bits of a weight: what 32 leave beside a byte and room for overshoot.
const PRECISION: u32 = 32 - 8 - 2;
/// How far the filter reaches at scale 1, in pixels.
const REACH: f64 = 3.0;

/// Resizes a picture with the Lanczos filter. A side of length 0 counts as 1.
#[must_use]
pub fn resize(picture: &Pixels, size: Size) -> Pixels {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let (to_width, to_height) = (size.width.max(1) as usize, size.height.max(1) as usize);
    let mut rgb = Cow::Borrowed(picture.rgb());
    let vertical_first = vertical_first((width, height), (to_width, to_height));
    if vertical_first {
        rgb = Cow::Owned(vertical(&rgb, 3 * width, &weights(height, to_height)));
    }
    if to_width != width {
        rgb = Cow::Owned(horizontal(&rgb, width, &weights(width, to_width)));
    }
    if to_height != height && !vertical_first {
        rgb = Cow::Owned(vertical(&rgb, 3 * to_width, &weights(height, to_height)));
    }
    let (width, height) = (size.width.max(1), size.height.max(1));
    Pixels::new(width, height, rgb.into_owned()).expect("every output pixel was written")
}

/// Whether the height loses more than twice the pixels that the width loses.
fn vertical_first(from: (usize, usize), to: (usize, usize)) -> bool {
    to.1 < from.1 && from.1 - to.1 + 2 * to.0 > 2 * from.0
}

/// The input pixels that make an output pixel: the first, and each one's share.
struct Window {
    from: usize,
    weights: Vec<i32>,
}

fn weights(from: usize, to: usize) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = REACH * stretch;
    let inverse = 1.0 / stretch;
    let window = |pixel: usize| {
        let center = (pixel as f64 + 0.5) * scale;
        // Casts truncate, and saturate at 0.
        let first = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let share = |at: usize| lanczos((at as f64 - center + 0.5) * inverse);
        let shares: Vec<f64> = (first..end).map(share).collect();
        let sum: f64 = shares.iter().sum();
        let fixed = |share: f64| {
            let share = if sum == 0.0 { share } else { share / sum };
            (share * f64::from(1 << PRECISION)).round() as i32
        };
        Window { from: first, weights: shares.into_iter().map(fixed).collect() }
    };
    (0..to).map(window).collect()
}

fn lanczos(x: f64) -> f64 {
    if (-REACH..REACH).contains(&x) { sinc(x) * sinc(x / REACH) } else { 0.0 }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * PI;
    x.sin() / x
}

/// A weighted sum as a byte. `sum` starts at one half.
fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION - 1);

fn horizontal(rgb: &[u8], width: usize, windows: &[Window]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rgb.len() / width * windows.len());
    for row in rgb.chunks_exact(3 * width) {
        let (pixels, _) = row.as_chunks::<3>();
        for window in windows {
            let mut sums = [HALF; 3];
            let pixels = &pixels[window.from..window.from + window.weights.len()];
            for (pixel, weight) in pixels.iter().zip(&window.weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            out.extend(sums.map(byte));
        }
    }
    out
}

fn vertical(rgb: &[u8], stride: usize, windows: &[Window]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stride * windows.len());
    let mut sums = vec![0; stride];
    for window in windows {
        sums.fill(HALF);
        let rows = rgb[stride * window.from..].chunks_exact(stride);
        for (row, weight) in rows.zip(&window.weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        out.extend(sums.iter().map(|sum| byte(*sum)));
    }
    out
}
