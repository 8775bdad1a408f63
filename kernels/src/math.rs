//! Vectorised `exp`, GELU and SiLU, and the fixed trees that join 16 lanes into one number.
//!
//! Polynomials instead of library calls: a library's `exp` differs between systems, these give the
//! same bits everywhere.

use crate::simd::{LANES, Simd};

/// 1.5 * 2^23: adding it to a float below 2^22 rounds that to an integer, held in the lowest bits.
const ROUND: f32 = 12_582_912.0;
/// The exponent bias of `f32`.
const BIAS: f32 = 127.0;
/// ln 2 in two parts, their sum good to 48 bits.
const LN2_HI: f32 = std::f32::consts::LN_2;
const LN2_LO: f32 = -1.904_654_2e-9;
/// `exp(r) = 1 + r + r^2 q(r)` on |r| <= ln 2 / 2, lowest power first: a minimax fit of the
/// relative error (3.2e-9) whose coefficients were rounded to `f32` one after another.
const Q: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_277, 0.008_368_689, 0.001_381_983_2];

/// `exp(r)` for |r| <= ln 2 / 2.
#[inline(always)]
fn exp_reduced<S: Simd>(s: S, r: S::V) -> S::V {
    let mut q = s.splat(Q[4]);
    for &c in Q[..4].iter().rev() {
        q = s.fma(q, r, s.splat(c));
    }
    s.add(s.splat(1.0), s.fma(s.mul(r, r), q, r))
}

/// `x - n ln 2`.
#[inline(always)]
fn reduce<S: Simd>(s: S, x: S::V, n: S::V) -> S::V {
    let r = s.fma(n, s.splat(-LN2_HI), x);
    s.fma(n, s.splat(-LN2_LO), r)
}

/// `e^x` to within 2 units in the last place; overflows to infinity, underflows gradually to zero,
/// NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // The bounds lie just past where the result overflows and vanishes. Constants first: `min` and
    // `max` then hand a NaN on.
    let x = s.max(s.splat(-105.0), s.min(s.splat(90.0), x));
    let n = s.sub(s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND)), s.splat(ROUND));
    let p = exp_reduced(s, reduce(s, x, n));
    // 2^n in two factors: alone it leaves the range of `f32` before the product does.
    let half = s.sub(s.fma(n, s.splat(0.5), s.splat(ROUND)), s.splat(ROUND));
    let rest = s.sub(n, half);
    s.mul(s.mul(p, pow2(s, half)), pow2(s, rest))
}

/// `2^n` for integers `n` from -127 (which gives zero) to 127.
#[inline(always)]
fn pow2<S: Simd>(s: S, n: S::V) -> S::V {
    s.shl(s.add(n, s.splat(ROUND + BIAS)), 23)
}

/// `e^x` for `x <= 0`, as softmax needs it: cheaper than [`exp`], and zero wherever the result
/// would be subnormal. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp_nonpositive<S: Simd>(s: S, x: S::V) -> S::V {
    // At the bound n is -127, whose biased exponent is zero.
    let x = s.max(s.splat(-88.0), x);
    let biased = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND + BIAS));
    let n = s.sub(biased, s.splat(ROUND + BIAS));
    s.mul(exp_reduced(s, reduce(s, x, n)), s.shl(biased, 23))
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    let e = exp(s, s.mul(x, s.splat(-1.0)));
    s.div(x, s.add(s.splat(1.0), e))
}

/// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, as `x / (1 + e^-2u)`, which loses nothing to
/// cancellation where the tanh nears -1.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    const TWO_U: f32 = -1.595_769; // -2 sqrt(2 / pi)
    const CUBIC: f32 = -0.071_354_814; // -2 sqrt(2 / pi) * 0.044715
    let per_x = s.fma(s.mul(x, x), s.splat(CUBIC), s.splat(TWO_U));
    let e = exp(s, s.mul(x, per_x));
    s.div(x, s.add(s.splat(1.0), e))
}

/// Joins 16 lanes by `op` in a fixed tree: halves onto halves, four times.
#[inline(always)]
fn tree<S: Simd>(s: S, v: S::V, op: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    s.store(v, &mut lanes);
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] = op(lanes[i], lanes[i + width]);
        }
    }
    lanes[0]
}

/// The sum of the lanes.
#[inline(always)]
pub(crate) fn sum<S: Simd>(s: S, v: S::V) -> f32 {
    tree(s, v, |a, b| a + b)
}

/// The largest lane.
#[inline(always)]
pub(crate) fn max<S: Simd>(s: S, v: S::V) -> f32 {
    tree(s, v, |a, b| if a > b { a } else { b })
}
