//! Dot products of bytes: integers, so every implementation gives the same ones.

#[cfg(target_arch = "x86_64")]
use super::x86::Vnni;
use super::{Isa, LANES, Portable, Simd};

/// What a product of bytes needs besides lanes.
pub(crate) trait Bytes: Simd {
    /// Whether [`Bytes::dot`] adds `128 * (x[0] + x[1] + x[2] + x[3])` to what it is to give.
    const BIASED: bool;
    /// Rows and panels of a register tile. They change speed only.
    const TILE: [usize; 2];

    /// Adds to each lane, as an integer, the products of its four bytes of `weights`, which stand 128
    /// above their values, with the four of `x`. No byte of `x` is -128.
    fn dot(self, sums: Self::V, weights: Self::V, x: [i8; 4]) -> Self::V;

    /// Runs `kernel` with this instruction set switched on.
    fn enter<K: BytesKernel>(self, kernel: K);
}

/// A computation with products of bytes; as [`Kernel`](super::Kernel).
pub(crate) trait BytesKernel {
    fn run<S: Bytes>(self, simd: S);
}

impl Isa {
    /// Runs `kernel` on this instruction set, or on the next lesser one that has products of bytes.
    pub(crate) fn run_bytes<K: BytesKernel>(self, kernel: K) {
        match self {
            Self::Portable(simd) => simd.enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => match Vnni::detect(simd) {
                Some(simd) => simd.enter(kernel),
                None => simd.lesser().enter(kernel),
            },
        }
    }
}

impl Bytes for Portable {
    const BIASED: bool = false;
    const TILE: [usize; 2] = [4, 1];

    #[inline(always)]
    fn dot(self, sums: Self::V, weights: Self::V, x: [i8; 4]) -> Self::V {
        let mut out = sums;
        for lane in 0..LANES {
            let products = weights[lane].to_bits().to_le_bytes().into_iter().zip(x);
            let dot: i32 = products.map(|(w, x)| (i32::from(w) - 128) * i32::from(x)).sum();
            out[lane] = f32::from_bits(sums[lane].to_bits().wrapping_add(dot.cast_unsigned()));
        }
        out
    }

    fn enter<K: BytesKernel>(self, kernel: K) {
        kernel.run(self);
    }
}

#[cfg(target_arch = "x86_64")]
mod of_x86 {
    use super::super::{Avx2, Kernel};
    use super::*;
    use std::arch::x86_64::*;

    impl Bytes for Avx2 {
        const BIASED: bool = false;
        const TILE: [usize; 2] = [3, 1];

        #[inline(always)]
        fn dot(self, sums: Self::V, weights: Self::V, x: [i8; 4]) -> Self::V {
            let mut out = sums;
            // SAFETY: `self` proves AVX2.
            unsafe {
                let x = _mm256_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned)));
                let (size, ones) = (_mm256_abs_epi8(x), _mm256_set1_epi16(1));
                let bias = _mm256_set1_epi8(-128);
                for (out, weights) in out.iter_mut().zip(weights) {
                    let weights = _mm256_xor_si256(_mm256_castps_si256(weights), bias);
                    // At most 2 * 127 * 127 each, which 16 bits hold.
                    let pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(weights, x));
                    let sum = _mm256_castps_si256(*out);
                    let sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
                    *out = _mm256_castsi256_ps(sum);
                }
            }
            out
        }

        fn enter<K: BytesKernel>(self, kernel: K) {
            #[target_feature(enable = "avx2,fma")]
            fn enter<K: BytesKernel>(simd: Avx2, kernel: K) {
                kernel.run(simd);
            }
            // SAFETY: `self` proves AVX2 and FMA.
            unsafe { enter(self, kernel) }
        }
    }

    impl Bytes for Vnni {
        const BIASED: bool = true;
        // 12 registers of sums, 12 of integers, 2 of weights and 1 of activations: 27 of 32.
        const TILE: [usize; 2] = [6, 2];

        #[inline(always)]
        fn dot(self, sums: Self::V, weights: Self::V, x: [i8; 4]) -> Self::V {
            // SAFETY: `self` proves AVX-512F and AVX-512 VNNI.
            unsafe {
                let x = _mm512_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned)));
                let (sums, weights) = (_mm512_castps_si512(sums), _mm512_castps_si512(weights));
                _mm512_castsi512_ps(_mm512_dpbusd_epi32(sums, weights, x))
            }
        }

        fn enter<K: BytesKernel>(self, kernel: K) {
            #[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
            fn enter<K: BytesKernel>(simd: Vnni, kernel: K) {
                kernel.run(simd);
            }
            // SAFETY: `self` proves AVX-512F, AVX-512 VNNI, AVX2 and FMA.
            unsafe { enter(self, kernel) }
        }
    }

    /// Methods that are those of the lanes without products of bytes.
    macro_rules! same {
        ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {$(
            #[inline(always)]
            fn $name(self $(, $arg: $type)*) -> $result {
                self.lanes().$name($($arg),*)
            }
        )*};
    }

    impl Simd for Vnni {
        type V = __m512;
        const TILE_ROWS: usize = 12;
        const PAIRED_ROWS: usize = 12;

        same! {
            splat(x: f32) -> __m512;
            load(from: &[f32; LANES]) -> __m512;
            store(v: __m512, to: &mut [f32; LANES]) -> ();
            add(a: __m512, b: __m512) -> __m512;
            sub(a: __m512, b: __m512) -> __m512;
            mul(a: __m512, b: __m512) -> __m512;
            div(a: __m512, b: __m512) -> __m512;
            fma(a: __m512, b: __m512, c: __m512) -> __m512;
            max(a: __m512, b: __m512) -> __m512;
            min(a: __m512, b: __m512) -> __m512;
            shl(v: __m512, by: u32) -> __m512;
            shr(v: __m512, by: u32) -> __m512;
            sar(v: __m512, by: u32) -> __m512;
            and(a: __m512, b: __m512) -> __m512;
            or(a: __m512, b: __m512) -> __m512;
            add_bits(a: __m512, b: __m512) -> __m512;
            to_float(v: __m512) -> __m512;
            words(rows: [&[u8; 32]; LANES]) -> [__m512; 8];
        }

        fn run<K: Kernel>(self, kernel: K) -> K::Output {
            self.lanes().run(kernel)
        }
    }
}
