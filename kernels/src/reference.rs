//! What the kernels compute, in plain scalar `f64`: the specification that the tests hold them to.

use crate::{Activation, ConvGeometry, Segment};

fn wide(x: f32) -> f64 {
    f64::from(x)
}

pub(crate) fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

pub(crate) fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

/// `x` `[rows, k]`, `w` `[n, k]` -> `[rows, n]`.
pub(crate) fn linear(
    x: &[f32],
    rows: usize,
    w: &[f32],
    (n, k): (usize, usize),
    bias: Option<&[f32]>,
    act: Activation,
) -> Vec<f64> {
    let mut y = Vec::with_capacity(rows * n);
    for r in 0..rows {
        for o in 0..n {
            let products = (0..k).map(|i| wide(x[r * k + i]) * wide(w[o * k + i]));
            let sum = bias.map_or(0.0, |b| wide(b[o])) + products.sum::<f64>();
            y.push(match act {
                Activation::None => sum,
                Activation::GeluTanh => gelu_tanh(sum),
                Activation::Silu => silu(sum),
            });
        }
    }
    y
}

/// `bias`: `[heads, 2 reach - 1]`, its middle for a key at the query's own place.
pub(crate) fn attention(
    [q, k, v]: [&[f32]; 3],
    heads: usize,
    dim: usize,
    scale: f32,
    bias: Option<&[f32]>,
    segments: &[Segment],
) -> Vec<f64> {
    let width = heads * dim;
    let mut out = vec![0.0; q.len()];
    for segment in segments {
        let rows: Vec<usize> = segment.ranges.iter().flat_map(Clone::clone).collect();
        for head in 0..heads {
            let at = |row: usize, d: usize| row * width + head * dim + d;
            let gain = |query: usize, key: usize| {
                bias.map_or(0.0, |bias| {
                    let span = bias.len() / heads;
                    wide(bias[head * span + span / 2 + key - query])
                })
            };
            for (query, &i) in rows.iter().enumerate() {
                let score = |(key, &j): (usize, &usize)| {
                    let products = (0..dim).map(|d| wide(q[at(i, d)]) * wide(k[at(j, d)]));
                    products.sum::<f64>() * wide(scale) + gain(query, key)
                };
                let scores: Vec<f64> = rows.iter().enumerate().map(score).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..dim {
                    let values = rows.iter().map(|&j| wide(v[at(j, d)]));
                    let sum: f64 = weights.iter().zip(values).map(|(w, v)| w * v).sum();
                    out[at(i, d)] = sum / total;
                }
            }
        }
    }
    out
}

/// All rows of the output, `[oh, ow, cout]`.
pub(crate) fn conv2d(
    x: &[f32],
    g: &ConvGeometry,
    w: &[f32],
    bias: &[f32],
    [cin, kh, kw]: [usize; 3],
) -> Vec<f64> {
    // The number at a place of the padded, enlarged picture.
    let pixel = |y: usize, x_: usize, c: usize| {
        let (y, x_) = (y.checked_sub(g.pad_top)?, x_.checked_sub(g.pad_left)?);
        let (y, x_) = (y / g.upsample, x_ / g.upsample);
        (y < g.height && x_ < g.width).then(|| wide(x[(y * g.width + x_) * cin + c]))
    };
    let mut out = Vec::new();
    for oy in 0..g.out_height(kh) {
        for ox in 0..g.out_width(kw) {
            for (o, &bias) in bias.iter().enumerate() {
                let mut sum = wide(bias);
                for c in 0..cin {
                    for ky in 0..kh {
                        for kx in 0..kw {
                            let x = pixel(oy * g.stride + ky, ox * g.stride + kx, c);
                            sum += x.unwrap_or(0.0) * wide(w[((o * cin + c) * kh + ky) * kw + kx]);
                        }
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}

fn mean_and_deviation(x: &[f64], eps: f32) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    (mean, (variance + wide(eps)).sqrt())
}

pub(crate) fn layer_norm_modulate(
    x: &[f32],
    c: usize,
    eps: f32,
    shift: &[f32],
    scale: &[f32],
    seq_of_row: &[u32],
) -> Vec<f64> {
    let mut y = Vec::new();
    for (row, &seq) in seq_of_row.iter().enumerate() {
        let x: Vec<f64> = x[row * c..][..c].iter().map(|&x| wide(x)).collect();
        let (mean, deviation) = mean_and_deviation(&x, eps);
        for (i, x) in x.iter().enumerate() {
            let at = seq as usize * c + i;
            y.push((x - mean) / deviation * (1.0 + wide(scale[at])) + wide(shift[at]));
        }
    }
    y
}

pub(crate) fn rms_norm(x: &[f32], eps: f32, weight: &[f32]) -> Vec<f64> {
    let mut y = Vec::new();
    for x in x.chunks(weight.len()) {
        let mean = x.iter().map(|&x| wide(x).powi(2)).sum::<f64>() / x.len() as f64;
        let normed = x.iter().map(|&x| wide(x) / (mean + wide(eps)).sqrt());
        y.extend(normed.zip(weight).map(|(x, &w)| x * wide(w)));
    }
    y
}

pub(crate) fn rms_norm_rope(
    x: &[f32],
    heads: usize,
    eps: f32,
    weight: &[f32],
    cos: &[f32],
    sin: &[f32],
) -> Vec<f64> {
    let dim = weight.len();
    let mut y = Vec::new();
    for (i, x) in rms_norm(x, eps, weight).chunks(dim).enumerate() {
        for pair in 0..dim / 2 {
            let angle = i / heads * (dim / 2) + pair;
            let (cos, sin) = (wide(cos[angle]), wide(sin[angle]));
            let (a, b) = (x[2 * pair], x[2 * pair + 1]);
            y.extend([a * cos - b * sin, a * sin + b * cos]);
        }
    }
    y
}

pub(crate) fn group_norm(
    x: &[f32],
    c: usize,
    groups: usize,
    eps: f32,
    weight: &[f32],
    bias: &[f32],
    silu_after: bool,
) -> Vec<f64> {
    let per = c / groups;
    let mut y = vec![0.0; x.len()];
    for group in 0..groups {
        let places: Vec<usize> = (0..x.len()).filter(|i| i % c / per == group).collect();
        let numbers: Vec<f64> = places.iter().map(|&i| wide(x[i])).collect();
        let (mean, deviation) = mean_and_deviation(&numbers, eps);
        for (&i, x) in places.iter().zip(&numbers) {
            let v = (x - mean) / deviation * wide(weight[i % c]) + wide(bias[i % c]);
            y[i] = if silu_after { silu(v) } else { v };
        }
    }
    y
}
