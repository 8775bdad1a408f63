//! Rounding to the formats whose loss is measured, as plainly as the formats allow: each block by its
//! extremes. ggml's own search for scales is a little better.

use darkroom_kernels::quant::{Format, dequantize};
use half::f16;

/// `values`, whole rows of whole blocks, in `format`, which is one of those below.
pub(super) fn quantise(format: Format, values: &[f32]) -> Vec<u8> {
    let blocks = |size: usize, block: fn(&[f32]) -> Vec<u8>| {
        values.chunks_exact(size).flat_map(block).collect()
    };
    match format {
        Format::F8E4M3 => f8(values),
        Format::Q8_0 => blocks(32, q8_0),
        Format::Q6K => blocks(256, q6_k),
        Format::Q5K => blocks(256, q45_k::<5>),
        Format::Q4K => blocks(256, q45_k::<4>),
        other => panic!("{} is not written here", other.name()),
    }
}

fn half(value: f32) -> ([u8; 2], f32) {
    let half = f16::from_f32(value);
    (half.to_le_bytes(), half.to_f32())
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

fn divide(value: f32, by: f32) -> f32 {
    if by == 0.0 { 0.0 } else { value / by }
}

/// The nearest of the 256 numbers, each in a search through them all in order.
fn f8(values: &[f32]) -> Vec<u8> {
    let codes: Vec<u8> = (0..=255).collect();
    let mut numbers = [0.0; 256];
    dequantize(Format::F8E4M3, &codes, &mut numbers);
    let mut order: Vec<u8> = (0..=255).filter(|&code| numbers[code as usize].is_finite()).collect();
    let number = |code: u8| numbers[code as usize];
    order.sort_by(|&a, &b| number(a).total_cmp(&number(b)));
    let nearest = |&value: &f32| {
        let above = order.partition_point(|&code| number(code) < value).min(order.len() - 1);
        let below = order[above.saturating_sub(1)];
        let above = order[above];
        if value - number(below) < number(above) - value { below } else { above }
    };
    values.iter().map(nearest).collect()
}

fn q8_0(block: &[f32]) -> Vec<u8> {
    let (d, scale) = half(largest(block) / 127.0);
    let codes = block.iter().map(|&x| divide(x, scale).round().clamp(-127.0, 127.0) as i8 as u8);
    d.into_iter().chain(codes).collect()
}

fn q6_k(block: &[f32]) -> Vec<u8> {
    let scales: Vec<f32> = block.chunks_exact(16).map(|part| largest(part) / 31.0).collect();
    let (d, scale) = half(largest(&scales) / 127.0);
    let scales: Vec<f32> = scales.iter().map(|s| divide(*s, scale).ceil().min(127.0)).collect();
    let code = |i: usize| {
        let code = divide(block[i], scale * scales[i / 16]).round().clamp(-32.0, 31.0);
        (code as i32 + 32) as u8
    };
    let (mut low, mut high) = (vec![0; 128], vec![0; 64]);
    for i in 0..256 {
        let (half, at) = (i / 128, i % 128);
        let (quarter, column) = (at / 32, at % 32);
        low[half * 64 + quarter % 2 * 32 + column] |= (code(i) & 15) << (quarter / 2 * 4);
        high[half * 32 + column] |= (code(i) >> 4) << (quarter * 2);
    }
    let scales = scales.iter().map(|&s| s as u8);
    low.into_iter().chain(high).chain(scales).chain(d).collect()
}

/// Q4_K and Q5_K: eight scales and minima of six bits, and BITS bits a number.
fn q45_k<const BITS: u32>(block: &[f32]) -> Vec<u8> {
    let top = ((1 << BITS) - 1) as f32;
    let parts = || block.chunks_exact(32);
    let least = |part: &[f32]| part.iter().fold(0f32, |least, &x| least.min(x));
    let most = |part: &[f32]| part.iter().fold(f32::MIN, |most, &x| most.max(x));
    let minima: Vec<f32> = parts().map(|part| -least(part)).collect();
    let scales: Vec<f32> = parts().map(|part| (most(part) - least(part)).max(0.0) / top).collect();
    let (d, scale) = half(largest(&scales) / 63.0);
    let (dmin, minimum) = half(largest(&minima) / 63.0);
    let six = |values: &[f32], by: f32| -> Vec<u8> {
        values.iter().map(|x| divide(*x, by).round().min(63.0) as u8).collect()
    };
    let (scales, minima) = (six(&scales, scale), six(&minima, minimum));
    let mut packed = [0; 12];
    for j in 0..4 {
        packed[j] = scales[j] | scales[j + 4] >> 4 << 6;
        packed[j + 4] = minima[j] | minima[j + 4] >> 4 << 6;
        packed[j + 8] = scales[j + 4] & 15 | minima[j + 4] << 4;
    }
    let code = |i: usize| {
        let (s, m) = (scale * f32::from(scales[i / 32]), minimum * f32::from(minima[i / 32]));
        divide(block[i] + m, s).round().clamp(0.0, top) as u8
    };
    let (mut low, mut high) = (vec![0; 128], vec![0; 32]);
    for i in 0..256 {
        let (part, column) = (i / 32, i % 32);
        low[part / 2 * 32 + column] |= (code(i) & 15) << (part % 2 * 4);
        high[column] |= (code(i) >> 4) << part;
    }
    let high = if BITS == 5 { high } else { Vec::new() };
    d.into_iter().chain(dmin).chain(packed).chain(high).chain(low).collect()
}
