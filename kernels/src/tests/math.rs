//! The vectorised functions, against the library's in `f64`.

use crate::math;
use crate::reference;
use crate::simd::{Isa, Kernel, LANES, Simd};

/// One of the functions, applied to a whole slice.
#[derive(Clone, Copy, Debug)]
enum Function {
    Exp,
    ExpNonpositive,
    Silu,
    GeluTanh,
}

struct Map<'a>(Function, &'a mut [f32]);

impl Kernel for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.1.as_chunks_mut::<LANES>().0 {
            let v = s.load(x);
            let v = match self.0 {
                Function::Exp => math::exp(s, v),
                Function::ExpNonpositive => math::exp_nonpositive(s, v),
                Function::Silu => math::silu(s, v),
                Function::GeluTanh => math::gelu_tanh(s, v),
            };
            s.store(v, x);
        }
    }
}

fn apply(isa: Isa, function: Function, x: &[f32]) -> Vec<f32> {
    let mut y = x.to_vec();
    y.resize(x.len().next_multiple_of(LANES), 0.0);
    isa.run(Map(function, &mut y));
    y.truncate(x.len());
    y
}

/// Evenly spaced numbers and, between them, powers of two of both signs.
fn sweep(from: f32, to: f32) -> Vec<f32> {
    let even = (0..=20_000).map(|i| from + (to - from) * i as f32 / 20_000.0);
    let small = (-140..0).flat_map(|e| [2f32.powi(e), -(2f32.powi(e))]);
    even.chain(small.filter(|x| (from..=to).contains(x))).collect()
}

/// Asserts that the relative error stays below `units` of the last place of an `f32`; below
/// `floor` the error may be that of a number of that size.
fn check(function: Function, x: &[f32], exact: impl Fn(f64) -> f64, units: f64, floor: f64) {
    let y = apply(Isa::best(), function, x);
    for (&x, &y) in x.iter().zip(&y) {
        let exact = exact(f64::from(x));
        let unit = exact.abs().max(floor) * f64::from(f32::EPSILON);
        let off = (f64::from(y) - exact).abs() / unit;
        assert!(off <= units, "{function:?}({x:e}) is {y:e}, expected {exact:e}: {off} units");
    }
    for isa in Isa::available() {
        super::assert_bits(
            &apply(isa, function, x),
            &y,
            &format!("{function:?} on {}", isa.name()),
        );
    }
}

#[test]
fn the_functions_are_accurate_and_the_same_everywhere() {
    let least = f64::from(f32::MIN_POSITIVE);
    check(Function::Exp, &sweep(-87.0, 88.5), f64::exp, 2.0, least);
    check(Function::ExpNonpositive, &sweep(-87.0, 0.0), f64::exp, 2.0, least);
    check(Function::Silu, &sweep(-80.0, 80.0), reference::silu, 4.0, least);
    // Far down the left tail the exponential magnifies the rounding of its argument.
    check(Function::GeluTanh, &sweep(-3.0, 20.0), reference::gelu_tanh, 16.0, least);
    check(Function::GeluTanh, &sweep(-12.0, -3.0), reference::gelu_tanh, 3.0, 0.01);
}

#[test]
fn the_functions_keep_to_their_limits() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for isa in Isa::available() {
        let exp = apply(isa, Function::Exp, &[inf, -inf, 0.0, 1000.0, -1000.0, nan]);
        assert_eq!(exp[..5], [inf, 0.0, 1.0, inf, 0.0]);
        assert!(exp[5].is_nan());
        let weights = apply(isa, Function::ExpNonpositive, &[0.0, -inf, -90.0, nan]);
        assert_eq!(weights[..3], [1.0, 0.0, 0.0]);
        assert!(weights[3].is_nan());
        for function in [Function::Silu, Function::GeluTanh] {
            let y = apply(isa, function, &[0.0, 1e30, -1e4, nan]);
            assert_eq!(y[..2], [0.0, 1e30], "{function:?}");
            assert!(y[2] == 0.0 && y[3].is_nan(), "{function:?}: {y:?}");
        }
    }
}
