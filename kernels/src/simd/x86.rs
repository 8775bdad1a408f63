//! The lanes on AVX2 with FMA (two registers) and on AVX-512 (one).
//!
//! The methods are `#[inline(always)]` and end up inside the `#[target_feature]` functions at the
//! bottom of each implementation, where the intrinsics become single instructions.

use std::arch::x86_64::*;

use super::{Kernel, LANES, Simd};

/// Proof that the processor has AVX2 and FMA: only [`Avx2::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        has.then_some(Self(()))
    }
}

/// Proof that the processor has AVX-512F, AVX2 and FMA: only [`Avx512::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f") && Avx2::detect().is_some();
        has.then_some(Self(()))
    }
}

impl Avx512 {
    /// What a processor with AVX-512 has as well.
    pub(crate) fn lesser(self) -> Avx2 {
        Avx2(())
    }
}

/// Proof that the processor has AVX-512 VNNI too: only [`Vnni::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vnni(Avx512);

impl Vnni {
    pub(crate) fn detect(lanes: Avx512) -> Option<Self> {
        is_x86_feature_detected!("avx512vnni").then_some(Self(lanes))
    }

    #[inline(always)]
    pub(crate) fn lanes(self) -> Avx512 {
        self.0
    }
}

/// Lane-wise operations of two operands on the two halves of [`Avx2`]'s vector.
macro_rules! halves {
    ($($name:ident = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, a: Self::V, b: Self::V) -> Self::V {
            // SAFETY: `self` proves AVX2 and FMA.
            unsafe { [$intrinsic(a[0], b[0]), $intrinsic(a[1], b[1])] }
        }
    )*};
}

/// Shifts of the two halves of [`Avx2`]'s vector.
macro_rules! shift_halves {
    ($($name:ident = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, v: Self::V, by: u32) -> Self::V {
            // SAFETY: `self` proves AVX2.
            unsafe {
                let by = _mm_cvtsi32_si128(by.cast_signed());
                [
                    _mm256_castsi256_ps($intrinsic(_mm256_castps_si256(v[0]), by)),
                    _mm256_castsi256_ps($intrinsic(_mm256_castps_si256(v[1]), by)),
                ]
            }
        }
    )*};
}

impl Simd for Avx2 {
    type V = [__m256; 2];

    // 6 rows x 2 registers of sums, 2 of weights and 1 of activations: 15 of the 16 registers. With
    // two panels, 2 rows x 4 registers of sums and 4 of weights: 13.
    const TILE_ROWS: usize = 6;
    const PAIRED_ROWS: usize = 2;

    halves! {
        add = _mm256_add_ps;
        sub = _mm256_sub_ps;
        mul = _mm256_mul_ps;
        div = _mm256_div_ps;
        max = _mm256_max_ps;
        min = _mm256_min_ps;
        and = _mm256_and_ps;
        or = _mm256_or_ps;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        let from = from.as_ptr();
        // SAFETY: `self` proves AVX2 and FMA; both halves lie inside the 16 floats of `from`.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(LANES / 2))] }
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        let to = to.as_mut_ptr();
        // SAFETY: `self` proves AVX2 and FMA; both halves lie inside the 16 floats of `to`.
        unsafe {
            _mm256_storeu_ps(to, v[0]);
            _mm256_storeu_ps(to.add(LANES / 2), v[1]);
        }
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    shift_halves! {
        shl = _mm256_sll_epi32;
        shr = _mm256_srl_epi32;
        sar = _mm256_sra_epi32;
    }

    #[inline(always)]
    fn add_bits(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe {
            let a = [_mm256_castps_si256(a[0]), _mm256_castps_si256(a[1])];
            let b = [_mm256_castps_si256(b[0]), _mm256_castps_si256(b[1])];
            [
                _mm256_castsi256_ps(_mm256_add_epi32(a[0], b[0])),
                _mm256_castsi256_ps(_mm256_add_epi32(a[1], b[1])),
            ]
        }
    }

    #[inline(always)]
    fn to_float(self, v: Self::V) -> Self::V {
        // SAFETY: `self` proves AVX2.
        unsafe {
            [
                _mm256_cvtepi32_ps(_mm256_castps_si256(v[0])),
                _mm256_cvtepi32_ps(_mm256_castps_si256(v[1])),
            ]
        }
    }

    #[inline(always)]
    fn words(self, rows: [&[u8; 32]; LANES]) -> [Self::V; 8] {
        let mut words = [self.splat(0.0); 8];
        for half in 0..2 {
            // SAFETY: `self` proves AVX2; each load reads exactly the 32 bytes of a row.
            unsafe {
                let mut r = [_mm256_setzero_si256(); 8];
                for (r, row) in r.iter_mut().zip(&rows[half * 8..]) {
                    *r = _mm256_loadu_si256(row.as_ptr().cast());
                }
                // Of four rows: word i in the low half, word i + 4 in the high one.
                let mut quads = [[_mm256_setzero_si256(); 4]; 2];
                for (quad, r) in quads.iter_mut().zip(r.as_chunks::<4>().0) {
                    let a = [_mm256_unpacklo_epi32(r[0], r[1]), _mm256_unpackhi_epi32(r[0], r[1])];
                    let b = [_mm256_unpacklo_epi32(r[2], r[3]), _mm256_unpackhi_epi32(r[2], r[3])];
                    for i in 0..2 {
                        quad[2 * i] = _mm256_unpacklo_epi64(a[i], b[i]);
                        quad[2 * i + 1] = _mm256_unpackhi_epi64(a[i], b[i]);
                    }
                }
                for (i, (&a, &b)) in quads[0].iter().zip(&quads[1]).enumerate() {
                    words[i][half] = _mm256_castsi256_ps(_mm256_permute2x128_si256::<0x20>(a, b));
                    words[i + 4][half] =
                        _mm256_castsi256_ps(_mm256_permute2x128_si256::<0x31>(a, b));
                }
            }
        }
        words
    }

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma")]
        fn enter<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `self` proves AVX2 and FMA.
        unsafe { enter(self, kernel) }
    }
}

/// Lane-wise operations of two operands on [`Avx512`]'s vector.
macro_rules! whole {
    ($($name:ident = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, a: Self::V, b: Self::V) -> Self::V {
            // SAFETY: `self` proves AVX-512F.
            unsafe { $intrinsic(a, b) }
        }
    )*};
}

/// Integer operations of two operands on [`Avx512`]'s vector.
macro_rules! whole_bits {
    ($($name:ident = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, a: Self::V, b: Self::V) -> Self::V {
            // SAFETY: `self` proves AVX-512F.
            unsafe {
                let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
                _mm512_castsi512_ps($intrinsic(a, b))
            }
        }
    )*};
}

/// Shifts of [`Avx512`]'s vector.
macro_rules! shift_whole {
    ($($name:ident = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, v: Self::V, by: u32) -> Self::V {
            // SAFETY: `self` proves AVX-512F.
            unsafe {
                let by = _mm_cvtsi32_si128(by.cast_signed());
                _mm512_castsi512_ps($intrinsic(_mm512_castps_si512(v), by))
            }
        }
    )*};
}

impl Simd for Avx512 {
    type V = __m512;

    // 12 rows x 2 registers of sums: 24 of the 32 registers.
    const TILE_ROWS: usize = 12;
    const PAIRED_ROWS: usize = 12;

    whole! {
        add = _mm512_add_ps;
        sub = _mm512_sub_ps;
        mul = _mm512_mul_ps;
        div = _mm512_div_ps;
        max = _mm512_max_ps;
        min = _mm512_min_ps;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        // SAFETY: `self` proves AVX-512F; the load reads exactly the 16 floats of `from`.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        // SAFETY: `self` proves AVX-512F; the store writes exactly the 16 floats of `to`.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    whole_bits! {
        and = _mm512_and_si512;
        or = _mm512_or_si512;
        add_bits = _mm512_add_epi32;
    }

    shift_whole! {
        shl = _mm512_sll_epi32;
        shr = _mm512_srl_epi32;
        sar = _mm512_sra_epi32;
    }

    #[inline(always)]
    fn to_float(self, v: Self::V) -> Self::V {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_cvtepi32_ps(_mm512_castps_si512(v)) }
    }

    #[inline(always)]
    fn words(self, rows: [&[u8; 32]; LANES]) -> [Self::V; 8] {
        let mut words = [self.splat(0.0); 8];
        // SAFETY: `self` proves AVX-512F; each load reads exactly the 32 bytes of a row.
        unsafe {
            // Rows i and i + 8 in one register: two transpositions of 8 x 8 words at once.
            let mut r = [_mm512_setzero_si512(); 8];
            for (i, r) in r.iter_mut().enumerate() {
                let low = _mm512_castsi256_si512(_mm256_loadu_si256(rows[i].as_ptr().cast()));
                let high = _mm256_loadu_si256(rows[i + 8].as_ptr().cast());
                *r = _mm512_inserti64x4::<1>(low, high);
            }
            // Of four rows: word i in the even quarters, word i + 4 in the odd ones.
            let mut quads = [[_mm512_setzero_si512(); 4]; 2];
            for (quad, r) in quads.iter_mut().zip(r.as_chunks::<4>().0) {
                let a = [_mm512_unpacklo_epi32(r[0], r[1]), _mm512_unpackhi_epi32(r[0], r[1])];
                let b = [_mm512_unpacklo_epi32(r[2], r[3]), _mm512_unpackhi_epi32(r[2], r[3])];
                for i in 0..2 {
                    quad[2 * i] = _mm512_unpacklo_epi64(a[i], b[i]);
                    quad[2 * i + 1] = _mm512_unpackhi_epi64(a[i], b[i]);
                }
            }
            let even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
            let odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
            for (i, (&a, &b)) in quads[0].iter().zip(&quads[1]).enumerate() {
                words[i] = _mm512_castsi512_ps(_mm512_permutex2var_epi64(a, even, b));
                words[i + 4] = _mm512_castsi512_ps(_mm512_permutex2var_epi64(a, odd, b));
            }
        }
        words
    }

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx2,fma")]
        fn enter<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `self` proves AVX-512F, AVX2 and FMA.
        unsafe { enter(self, kernel) }
    }
}
