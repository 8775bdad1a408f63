//! Sixteen virtual lanes of `f32`, and the choice of the instruction set that carries them.
//!
//! A kernel is a [`Kernel`]: its arguments in a struct, its body generic over [`Simd`]. [`Isa::run`]
//! compiles the body once for each instruction set and enters the one chosen. A value of an
//! instruction set's type exists only where the processor has it, which is what makes the methods
//! of [`Simd`] safe to call.

mod bytes;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use bytes::{Bytes, BytesKernel};
pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Lanes of the virtual vector: one AVX-512 register, two of AVX2, four of NEON.
pub(crate) const LANES: usize = 16;

/// Sixteen floats on one cache line: the unit in which weights are packed.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Lanes(pub(crate) [f32; LANES]);

impl Lanes {
    pub(crate) const ZERO: Self = Self([0.0; LANES]);
}

/// The lane-wise operations that kernels are written with.
///
/// Each is the correctly rounded IEEE operation (or pure bit motion) in every implementation, so
/// that equal inputs give equal bits whichever of them runs.
pub(crate) trait Simd: Copy + Send + Sync {
    /// Sixteen lanes.
    type V: Copy;

    /// Rows of the register tile of a matrix product. It changes speed only.
    const TILE_ROWS: usize;
    /// The most rows whose sums with two panels fit the registers: taller tiles take one panel.
    const PAIRED_ROWS: usize;

    fn splat(self, x: f32) -> Self::V;
    fn load(self, from: &[f32; LANES]) -> Self::V;
    fn store(self, v: Self::V, to: &mut [f32; LANES]);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `if a > b { a } else { b }`: a NaN in either place gives `b`.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { a } else { b }`: a NaN in either place gives `b`.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The bits of each lane shifted left.
    fn shl(self, v: Self::V, by: u32) -> Self::V;
    /// The bits of each lane shifted right, zeros coming in.
    fn shr(self, v: Self::V, by: u32) -> Self::V;
    /// The bits of each lane shifted right, copies of the sign coming in.
    fn sar(self, v: Self::V, by: u32) -> Self::V;
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    fn or(self, a: Self::V, b: Self::V) -> Self::V;
    /// The sum of the bits as integers, wrapping.
    fn add_bits(self, a: Self::V, b: Self::V) -> Self::V;
    /// The bits as a signed integer, which must fit 24 bits, to a number.
    fn to_float(self, v: Self::V) -> Self::V;
    /// Word `i` of each row, a little-endian `u32`, in the lane of its row: bits for `to_float`.
    fn words(self, rows: [&[u8; 32]; LANES]) -> [Self::V; 8];

    /// Runs `kernel` with this instruction set switched on.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;
}

/// A computation that can run on any instruction set.
///
/// `run` and all that it calls with lanes in hand must be `#[inline(always)]` and free of closures
/// over lanes: only what is inlined is compiled for the instruction set.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An instruction set that this processor has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Isa {
    /// Only taken on x86-64 by processors without AVX2, and by tests.
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Isa {
    /// The widest one; the standard library remembers what it detected.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn best() -> Self {
        match (Avx512::detect(), Avx2::detect()) {
            (Some(avx512), _) => Self::Avx512(avx512),
            (None, Some(avx2)) => Self::Avx2(avx2),
            (None, None) => Self::Portable(Portable),
        }
    }

    /// The only one: its fused multiply-add is native on AArch64.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn best() -> Self {
        Self::Portable(Portable)
    }

    /// All that this processor has, the portable one first.
    #[cfg(test)]
    pub(crate) fn available() -> Vec<Self> {
        let mut all = vec![Self::Portable(Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx2::detect().map(Self::Avx2));
            all.extend(Avx512::detect().map(Self::Avx512));
        }
        all
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }

    /// Runs `kernel` compiled for this instruction set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Portable(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.run(kernel),
        }
    }
}

/// Loads up to 16 floats; the lanes past the end hold `pad`.
#[inline(always)]
pub(crate) fn load_part<S: Simd>(simd: S, from: &[f32], pad: f32) -> S::V {
    if let Ok(whole) = from.try_into() {
        return simd.load(whole);
    }
    let mut lanes = [pad; LANES];
    for (lane, &x) in lanes.iter_mut().zip(from) {
        *lane = x;
    }
    simd.load(&lanes)
}

/// Stores as many lanes as `to` is long, up to 16.
#[inline(always)]
pub(crate) fn store_part<S: Simd>(simd: S, v: S::V, to: &mut [f32]) {
    if let Ok(whole) = to.try_into() {
        return simd.store(v, whole);
    }
    let mut lanes = [0.0; LANES];
    simd.store(v, &mut lanes);
    for (x, &lane) in to.iter_mut().zip(&lanes) {
        *x = lane;
    }
}
