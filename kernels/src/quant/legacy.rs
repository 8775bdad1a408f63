//! GGUF's formats with blocks of 32 weights: one scale, or a scale and a minimum, for each.

use super::decode::{Decoder, Unit};
use crate::simd::{Lanes, Simd};

/// `d q`, `q` a signed byte.
pub(super) struct Q8_0;

impl Decoder<32> for Q8_0 {
    const BYTES: usize = 34;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 32]) {
        let d = unit.half(unit.word(0));
        for (word, out) in unit.words(2).into_iter().zip(out.as_chunks_mut::<4>().0) {
            for (i, out) in (0..).zip(out) {
                unit.s.store(unit.s.mul(unit.signed(word, i), d), &mut out.0);
            }
        }
    }
}

/// `d (q - 8)`, `q` of 4 bits.
pub(super) struct Q4_0;

impl Decoder<32> for Q4_0 {
    const BYTES: usize = 18;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 32]) {
        let d = unit.half(unit.word(0));
        nibbles::<S, Centred>(unit, 2, None, d, unit.s.splat(8.0), out);
    }
}

/// `d q + m`, `q` of 4 bits.
pub(super) struct Q4_1;

impl Decoder<32> for Q4_1 {
    const BYTES: usize = 20;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 32]) {
        let (d, m) = scale_and_minimum(unit);
        nibbles::<S, Offset>(unit, 4, None, d, m, out);
    }
}

/// `d (q - 16)`, `q` of 5 bits, the highest of which lie apart.
pub(super) struct Q5_0;

impl Decoder<32> for Q5_0 {
    const BYTES: usize = 22;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 32]) {
        let d = unit.half(unit.word(0));
        nibbles::<S, Centred>(unit, 6, Some(unit.word(2)), d, unit.s.splat(16.0), out);
    }
}

/// `d q + m`, `q` of 5 bits, the highest of which lie apart.
pub(super) struct Q5_1;

impl Decoder<32> for Q5_1 {
    const BYTES: usize = 24;

    #[inline(always)]
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; 32]) {
        let (d, m) = scale_and_minimum(unit);
        nibbles::<S, Offset>(unit, 8, Some(unit.word(4)), d, m, out);
    }
}

#[inline(always)]
fn scale_and_minimum<S: Simd>(unit: Unit<'_, S>) -> (S::V, S::V) {
    let word = unit.word(0);
    (unit.half(word), unit.half(unit.s.shr(word, 16)))
}

/// What a block's two constants do with a quantised number.
trait Weight {
    fn weight<S: Simd>(s: S, q: S::V, d: S::V, c: S::V) -> S::V;
}

/// `d (q - c)`.
struct Centred;

impl Weight for Centred {
    #[inline(always)]
    fn weight<S: Simd>(s: S, q: S::V, d: S::V, c: S::V) -> S::V {
        s.mul(d, s.sub(q, c))
    }
}

/// `d q + c`, rounded twice as in the reference.
struct Offset;

impl Weight for Offset {
    #[inline(always)]
    fn weight<S: Simd>(s: S, q: S::V, d: S::V, c: S::V) -> S::V {
        s.add(s.mul(d, q), c)
    }
}

/// A block whose byte `i`, from byte `offset` on, holds the lower 4 bits of the weights `i` and
/// `i + 16`; bit `i` of `fifth` is the fifth bit of weight `i`.
#[inline(always)]
fn nibbles<S: Simd, W: Weight>(
    unit: Unit<'_, S>,
    offset: usize,
    fifth: Option<S::V>,
    d: S::V,
    c: S::V,
    out: &mut [Lanes; 32],
) {
    let s = unit.s;
    let words = unit.words(offset);
    for (i, out) in (0..).zip(out) {
        let byte = i % 16;
        let mut q = unit.bits(words[byte / 4], (8 * (byte % 4) + i / 16 * 4) as u32, 4);
        if let Some(fifth) = fifth {
            q = s.or(q, s.shl(unit.bits(fifth, i as u32, 1), 4));
        }
        s.store(W::weight(s, s.to_float(q), d, c), &mut out.0);
    }
}
