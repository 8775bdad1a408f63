//! Tests of the kernels: against the scalar reference, and for equal bits on every instruction set,
//! in every batch and on any number of threads.

mod attention;
mod bytes;
mod conv;
mod cuda;
mod linear;
mod math;
mod norm;
mod quant;

use crate::simd::Isa;

/// Numbers from -1 to 1, the same for the same seed.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Asserts that `call` is refused by a panic that says `expected`.
#[track_caller]
fn assert_refused(expected: &str, call: impl FnOnce() + std::panic::UnwindSafe) {
    let panic = std::panic::catch_unwind(call).expect_err("a refusal");
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    assert!(text.contains(expected), "{text}");
}

/// Asserts that no number is further from the reference than `tolerance`.
#[track_caller]
fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        let fine = difference <= tolerance; // false for NaN
        assert!(fine, "{what}: [{i}] is {found}, expected {expected}: off by {difference:e}");
    }
}

#[track_caller]
fn assert_bits(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let same = found.to_bits() == expected.to_bits();
        assert!(same, "{what}: [{i}] is {found:e}, expected the bits of {expected:e}");
    }
}

/// Runs a kernel on every instruction set, and on the best one with one and with several threads;
/// asserts that all results have the same bits, and returns them.
#[track_caller]
fn same_everywhere(what: &str, run: impl Fn(Isa, &mut Vec<f32>) + Sync) -> Vec<f32> {
    let on = |isa, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut y = Vec::new();
        pool.install(|| run(isa, &mut y));
        y
    };
    let alone = on(Isa::best(), 1);
    for isa in Isa::available() {
        // The portable lanes are slow on x86-64, where one thread count must do.
        let threads: &[usize] = if matches!(isa, Isa::Portable(_)) { &[2] } else { &[1, 2, 5] };
        for &threads in threads {
            let what = format!("{what} on {} with {threads} threads", isa.name());
            assert_bits(&on(isa, threads), &alone, &what);
        }
    }
    alone
}
