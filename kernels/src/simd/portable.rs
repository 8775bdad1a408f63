//! The lanes in plain Rust: the meaning of every operation, and the path of processors that the
//! compiler vectorises well by itself (AArch64, whose fused multiply-add is in the base set).
//!
//! On x86-64 without AVX2 `mul_add` is a library call: right, and very slow.

use super::{Kernel, LANES, Simd};

/// Plain Rust; available everywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], op: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut out = a;
    for (a, b) in out.iter_mut().zip(b) {
        *a = op(*a, b);
    }
    out
}

impl Simd for Portable {
    type V = [f32; LANES];

    // On AArch64, 6 rows x 4 registers of sums and 4 of weights: 28 of the 32 registers.
    const TILE_ROWS: usize = 6;
    const PAIRED_ROWS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        *from
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        *to = v;
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let mut out = c;
        for (c, (a, b)) in out.iter_mut().zip(a.into_iter().zip(b)) {
            *c = a.mul_add(b, *c);
        }
        out
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn shl(self, v: Self::V, by: u32) -> Self::V {
        v.map(|x| f32::from_bits(x.to_bits() << by))
    }

    #[inline(always)]
    fn shr(self, v: Self::V, by: u32) -> Self::V {
        v.map(|x| f32::from_bits(x.to_bits() >> by))
    }

    #[inline(always)]
    fn sar(self, v: Self::V, by: u32) -> Self::V {
        v.map(|x| f32::from_bits((x.to_bits().cast_signed() >> by).cast_unsigned()))
    }

    #[inline(always)]
    fn and(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| f32::from_bits(a.to_bits() & b.to_bits()))
    }

    #[inline(always)]
    fn or(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| f32::from_bits(a.to_bits() | b.to_bits()))
    }

    #[inline(always)]
    fn add_bits(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| f32::from_bits(a.to_bits().wrapping_add(b.to_bits())))
    }

    #[inline(always)]
    fn to_float(self, v: Self::V) -> Self::V {
        v.map(|x| x.to_bits().cast_signed() as f32)
    }

    #[inline(always)]
    fn words(self, rows: [&[u8; 32]; LANES]) -> [Self::V; 8] {
        let mut words = [[0.0; LANES]; 8];
        for (lane, row) in rows.into_iter().enumerate() {
            for (word, bytes) in words.iter_mut().zip(row.as_chunks::<4>().0) {
                word[lane] = f32::from_bits(u32::from_le_bytes(*bytes));
            }
        }
        words
    }

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
}
