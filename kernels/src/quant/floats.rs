//! Floating-point formats: moved into place by shifts, never through a multiplication that would
//! meet subnormal numbers, which processors are slow with.

use super::decode::{Decoder, Unit};
use crate::simd::{Lanes, Simd};

#[inline(always)]
fn bits<S: Simd>(s: S, bits: u32) -> S::V {
    s.splat(f32::from_bits(bits))
}

/// The number whose magnitude is `rest`, exponent and significand in the places that `f32` has for
/// them, of a format whose least normal number is `2^least`.
///
/// With the exponent's bias corrected, a subnormal `m 2^least` reads `(1 + m) 2^(least - 1)`. Twice
/// any number less `2^least` is right for subnormals and too large for others, so the smaller of
/// both is right for all.
#[inline(always)]
fn rebias<S: Simd>(s: S, rest: S::V, least: i32) -> S::V {
    let bias = (126 + least).cast_unsigned();
    let normal = s.add_bits(rest, bits(s, bias << 23));
    let twice = s.add_bits(rest, bits(s, (bias + 1) << 23));
    s.min(normal, s.sub(twice, bits(s, (bias + 1) << 23)))
}

/// The half-precision numbers in the lower halves of words.
#[inline(always)]
pub(super) fn half<S: Simd>(s: S, word: S::V) -> S::V {
    let rest = s.shl(s.and(word, bits(s, 0x7fff)), 13);
    let sign = s.shl(s.and(word, bits(s, 0x8000)), 16);
    let number = rebias(s, rest, -14);
    // The largest exponent, that of infinity and of what is no number, becomes `f32`'s: this bit
    // is set for it alone, and three of its neighbours make up the difference.
    let top = s.and(s.add_bits(rest, bits(s, 1 << 23)), bits(s, 1 << 28));
    let lift = s.or(s.or(s.shr(top, 1), top), s.shl(top, 1));
    s.or(s.add_bits(number, lift), sign)
}

/// The numbers of torch's `float8_e4m3fn` in words that hold a byte.
#[inline(always)]
fn e4m3<S: Simd>(s: S, byte: S::V) -> S::V {
    let rest = s.shl(s.and(byte, bits(s, 0x7f)), 20);
    let sign = s.shl(s.and(byte, bits(s, 0x80)), 24);
    let number = rebias(s, rest, -6);
    // There is no infinity, and the largest pattern, which reads 480, is no number. It alone
    // overflows here: infinity times zero is none either.
    let large = s.mul(number, s.splat(f32::MAX / 456.0));
    s.or(s.add(number, s.mul(large, s.splat(0.0))), sign)
}

pub(super) struct F32;

impl Decoder<8> for F32 {
    const BYTES: usize = 32;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 8]) {
        for (word, out) in unit.words(0).into_iter().zip(out) {
            unit.s.store(word, &mut out.0);
        }
    }
}

pub(super) struct F16;

impl Decoder<16> for F16 {
    const BYTES: usize = 32;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 16]) {
        let s = unit.s;
        for (word, out) in unit.words(0).into_iter().zip(out.as_chunks_mut::<2>().0) {
            s.store(half(s, word), &mut out[0].0);
            s.store(half(s, s.shr(word, 16)), &mut out[1].0);
        }
    }
}

pub(super) struct Bf16;

impl Decoder<16> for Bf16 {
    const BYTES: usize = 32;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 16]) {
        let s = unit.s;
        for (word, out) in unit.words(0).into_iter().zip(out.as_chunks_mut::<2>().0) {
            s.store(s.shl(word, 16), &mut out[0].0);
            s.store(s.and(word, bits(s, 0xffff_0000)), &mut out[1].0);
        }
    }
}

pub(super) struct F8e4m3;

impl Decoder<32> for F8e4m3 {
    const BYTES: usize = 32;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 32]) {
        for (word, out) in unit.words(0).into_iter().zip(out.as_chunks_mut::<4>().0) {
            for (i, out) in (0..).zip(out) {
                unit.s.store(e4m3(unit.s, unit.s.shr(word, 8 * i)), &mut out.0);
            }
        }
    }
}

pub(super) struct F8e5m2;

impl Decoder<32> for F8e5m2 {
    const BYTES: usize = 32;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 32]) {
        let s = unit.s;
        for (word, out) in unit.words(0).into_iter().zip(out.as_chunks_mut::<4>().0) {
            for (i, out) in (0..).zip(out) {
                // The upper byte of half precision.
                let byte = s.and(s.shr(word, 8 * i), bits(s, 0xff));
                s.store(half(s, s.shl(byte, 8)), &mut out.0);
            }
        }
    }
}
