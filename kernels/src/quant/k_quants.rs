//! GGUF's K-quants: blocks of 256 weights in sub-blocks of 16 or 32, each with a quantised scale, and
//! a quantised minimum in some formats.

use super::decode::{Decoder, Unit};
use crate::simd::{Lanes, Simd};

/// Writes `q d` to a weight's place.
#[inline(always)]
fn scaled<S: Simd>(s: S, d: S::V, q: S::V, out: &mut Lanes) {
    s.store(s.mul(d, q), &mut out.0);
}

/// Writes `q d - m`, rounded twice as in the reference, to a weight's place.
#[inline(always)]
fn offset<S: Simd>(s: S, (d, m): (S::V, S::V), q: S::V, out: &mut Lanes) {
    s.store(s.sub(s.mul(d, q), m), &mut out.0);
}

/// The scales and minimums of the 8 sub-blocks of Q4_K and Q5_K, from the unit's first 16 bytes:
/// two halves that all are multiplied with, then 6 bits for each.
#[inline(always)]
fn scales_and_minimums<S: Simd>(unit: Unit<'_, S>) -> [(S::V, S::V); 8] {
    let s = unit.s;
    let [halves, scales, minimums, lower, ..] = unit.words(0);
    let (d, m) = (unit.half(halves), unit.half(s.shr(halves, 16)));
    let mut all = [(d, m); 8];
    for (i, (scale, minimum)) in all.iter_mut().enumerate() {
        let at = 8 * (i as u32 % 4);
        let (a, b) = if i < 4 {
            (unit.bits(scales, at, 6), unit.bits(minimums, at, 6))
        } else {
            // The upper two bits fill up the bytes of the first four.
            let upper = (unit.bits(scales, at + 6, 2), unit.bits(minimums, at + 6, 2));
            let lower = (unit.bits(lower, at, 4), unit.bits(lower, at + 4, 4));
            (s.or(lower.0, s.shl(upper.0, 4)), s.or(lower.1, s.shl(upper.1, 4)))
        };
        (*scale, *minimum) = (s.mul(d, s.to_float(a)), s.mul(m, s.to_float(b)));
    }
    all
}

/// `d q - m`, `q` of 4 bits.
pub(super) struct Q4K;

impl Decoder<256> for Q4K {
    const BYTES: usize = 144;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 256]) {
        let scales = scales_and_minimums(unit);
        let pairs = scales.as_chunks::<2>().0.iter();
        for (i, (out, pair)) in out.as_chunks_mut::<64>().0.iter_mut().zip(pairs).enumerate() {
            let (low, high) = out.split_at_mut(32);
            for (j, word) in unit.words(16 + 32 * i).into_iter().enumerate() {
                for byte in 0..4 {
                    let (at, bit) = (4 * j + byte, 8 * byte as u32);
                    offset(unit.s, pair[0], unit.number(word, bit, 4), &mut low[at]);
                    offset(unit.s, pair[1], unit.number(word, bit + 4, 4), &mut high[at]);
                }
            }
        }
    }
}

/// `d q - m`, `q` of 5 bits, the highest of which lie apart.
pub(super) struct Q5K;

impl Decoder<256> for Q5K {
    const BYTES: usize = 176;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 256]) {
        let s = unit.s;
        let scales = scales_and_minimums(unit);
        let fifth = unit.words(16);
        for (i, out) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            let (low, high) = out.split_at_mut(32);
            for (j, word) in unit.words(48 + 32 * i).into_iter().enumerate() {
                for byte in 0..4 {
                    let (at, bit) = (4 * j + byte, 8 * byte as u32);
                    for (half, out) in [&mut *low, &mut *high].into_iter().enumerate() {
                        let top = unit.bits(fifth[j], bit + (2 * i + half) as u32, 1);
                        let q = s.or(unit.bits(word, bit + 4 * half as u32, 4), s.shl(top, 4));
                        offset(s, scales[2 * i + half], s.to_float(q), &mut out[at]);
                    }
                }
            }
        }
    }
}

/// `d (q - 32)`, `q` of 6 bits, the upper two of which lie apart; 16 sub-blocks.
pub(super) struct Q6K;

impl Decoder<256> for Q6K {
    const BYTES: usize = 210;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 256]) {
        let s = unit.s;
        let d = unit.half(unit.word(208));
        let mut scales = [d; 16];
        let bytes = unit.words(192);
        for (i, scale) in scales.iter_mut().enumerate() {
            *scale = s.mul(d, unit.signed(bytes[i / 4], i as u32 % 4));
        }
        for (i, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            let upper = unit.words(128 + 32 * i);
            // Each of two runs of 32 bytes holds the lower bits of two runs of 32 weights, 64 apart.
            for run in 0..2 {
                for (j, word) in unit.words(64 * i + 32 * run).into_iter().enumerate() {
                    for byte in 0..4 {
                        let bit = 8 * byte as u32;
                        for high in 0..2 {
                            let part = 2 * high + run;
                            let top = unit.bits(upper[j], bit + 2 * part as u32, 2);
                            let low = unit.bits(word, bit + 4 * high as u32, 4);
                            let q = s.to_float(s.or(low, s.shl(top, 4)));
                            let scale = scales[8 * i + 2 * part + j / 4];
                            let at = 32 * part + 4 * j + byte;
                            scaled(s, scale, s.sub(q, s.splat(32.0)), &mut out[at]);
                        }
                    }
                }
            }
        }
    }
}

/// `d q`, `q` from -4 to 3, whose sign bits lie apart; 16 sub-blocks.
pub(super) struct Q3K;

impl Decoder<256> for Q3K {
    const BYTES: usize = 110;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 256]) {
        let s = unit.s;
        let [a, b, upper, d, ..] = unit.words(96);
        let d = unit.half(d);
        let mut scales = [d; 16];
        for (i, scale) in scales.iter_mut().enumerate() {
            let low = unit.bits([a, b][i / 4 % 2], (8 * (i % 4) + i / 8 * 4) as u32, 4);
            let high = unit.bits(upper, (8 * (i % 4) + i / 4 * 2) as u32, 2);
            let number = s.sub(s.to_float(s.or(low, s.shl(high, 4))), s.splat(32.0));
            *scale = s.mul(d, number);
        }
        let third = unit.words(0);
        for (i, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            for (j, word) in unit.words(32 + 32 * i).into_iter().enumerate() {
                for byte in 0..4 {
                    let bit = 8 * byte as u32;
                    for part in 0..4 {
                        let top = unit.bits(third[j], bit + (4 * i + part) as u32, 1);
                        let low = unit.bits(word, bit + 2 * part as u32, 2);
                        let q = s.to_float(s.or(low, s.shl(top, 2)));
                        let scale = scales[8 * i + 2 * part + j / 4];
                        let at = 32 * part + 4 * j + byte;
                        scaled(s, scale, s.sub(q, s.splat(4.0)), &mut out[at]);
                    }
                }
            }
        }
    }
}

/// `d q - m`, `q` of 2 bits; 16 sub-blocks.
pub(super) struct Q2K;

impl Decoder<256> for Q2K {
    const BYTES: usize = 84;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 256]) {
        let s = unit.s;
        let halves = unit.word(80);
        let (d, m) = (unit.half(halves), unit.half(s.shr(halves, 16)));
        let mut scales = [(d, m); 16];
        let bytes = unit.words(0);
        for (i, (scale, minimum)) in scales.iter_mut().enumerate() {
            let (word, bit) = (bytes[i / 4], 8 * (i as u32 % 4));
            *scale = s.mul(d, unit.number(word, bit, 4));
            *minimum = s.mul(m, unit.number(word, bit + 4, 4));
        }
        for (i, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            for (j, word) in unit.words(16 + 32 * i).into_iter().enumerate() {
                for byte in 0..4 {
                    for part in 0..4 {
                        let q = unit.number(word, (8 * byte + 2 * part) as u32, 2);
                        let scale = scales[8 * i + 2 * part + j / 4];
                        offset(s, scale, q, &mut out[32 * part + 4 * j + byte]);
                    }
                }
            }
        }
    }
}
