//! The GPU kernels, compiled for this machine, against the references that the CPU's are held to.
//!
//! `cuda/host.hpp` makes plain C++ of the same `.cu` files that nvcc compiles. What it cannot show is
//! how a GPU runs them; what they compute it shows to the bit.

use super::{assert_bits, noise};
use crate::quant::{Format, dequantize};
use crate::reference;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

const EPS: f32 = 1e-6;
const THREADS: usize = 256;
const WARPS: usize = THREADS / 32;

/// The program that runs one kernel, compiled once.
static HOST: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/cuda");
    let path = std::env::current_exe().unwrap().with_extension("cuda");
    // Another process of the same tests may be at it too: each writes its own, the last one stays.
    let own = path.with_extension(format!("cuda-{}", std::process::id()));
    let compiler = std::env::var("CXX").unwrap_or("c++".to_owned());
    let output = Command::new(&compiler)
        .args(["-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&own)
        .arg("host.cpp")
        .current_dir(folder)
        .output();
    let output = output.unwrap_or_else(|error| panic!("{compiler}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(own, &path).unwrap();
    path
});

/// The parameters of a kernel, in the order of its signature.
#[derive(Default)]
struct Parameters(Vec<u8>);

impl Parameters {
    fn number<const N: usize>(mut self, bytes: [u8; N]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn array(mut self, bytes: &[u8]) -> Self {
        self.0.extend((bytes.len() as u64).to_le_bytes());
        self.0.extend(bytes);
        self
    }

    fn numbers(self, kind: Type, values: &[f32]) -> Self {
        self.array(&kind.encode(values))
    }

    fn nothing(self) -> Self {
        self.number(u64::MAX.to_le_bytes())
    }

    /// Runs `kernel` with an output of `len` numbers as the last parameter, its threads in rising
    /// and in falling order, which must make no difference.
    fn run(self, kernel: &str, kind: Type, blocks: usize, len: usize) -> Vec<f32> {
        let kernel = format!("{kernel}_{}", kind.name());
        let input = self.number(((len * kind.bytes()) as u64).to_le_bytes()).0;
        let once = |order: &str| {
            let mut child = Command::new(&*HOST)
                .args([&kernel, &blocks.to_string(), order])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(&input).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{kernel}, {order}: {}", output.status);
            output.stdout
        };
        let output = once("rising");
        assert!(output == once("falling"), "{kernel}: the order of the threads shows");
        kind.decode(&output)
    }
}

/// A type of numbers on the GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    F32,
    F16,
    Bf16,
}

impl Type {
    const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// How far a number near `x` may be from the one it was rounded from.
    fn rounding(self, x: f64) -> f64 {
        match self {
            Self::F32 => 0.0,
            Self::F16 => x.abs() / 2048.0 + 2f64.powi(-25),
            Self::Bf16 => x.abs() / 256.0,
        }
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F16 => {
                values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect()
            }
            Self::Bf16 => {
                values.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect()
            }
        }
    }

    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = || bytes.as_chunks::<2>().0.iter().copied();
        match self {
            Self::F32 => bytes.as_chunks::<4>().0.iter().map(|&x| f32::from_le_bytes(x)).collect(),
            Self::F16 => pairs().map(|x| half::f16::from_le_bytes(x).to_f32()).collect(),
            Self::Bf16 => pairs().map(|x| half::bf16::from_le_bytes(x).to_f32()).collect(),
        }
    }

    /// `values`, as this type holds them.
    fn hold(self, values: &[f32]) -> Vec<f32> {
        self.decode(&self.encode(values))
    }
}

/// Asserts that `found` is `expected` as `kind` rounds it, give or take `tolerance` before that.
#[track_caller]
fn assert_rounded(found: &[f32], expected: &[f64], kind: Type, tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(found) - expected).abs();
        let fine = off <= tolerance + kind.rounding(expected); // false for NaN
        assert!(fine, "{what}: [{i}] is {found}, expected {expected}: off by {off:e}");
    }
}

#[test]
fn the_layer_norm_of_a_gpu_agrees_with_the_reference_and_with_itself_row_by_row() {
    for (rows, c) in [(1, 1), (3, 15), (5, 300), (7, 3072)] {
        for kind in Type::ALL {
            let x: Vec<f32> = noise(rows * c, 1).iter().map(|x| 5.0 * x + 2.0).collect();
            let (x, shift) = (kind.hold(&x), kind.hold(&noise(3 * c, 2)));
            let scale = kind.hold(&noise(3 * c, 3));
            let seq: Vec<u32> = (0..rows).map(|row| (row * row % 3) as u32).collect();
            let run = |x: &[f32], seq: &[u32]| {
                let seq: Vec<u8> = seq.iter().flat_map(|s| s.to_le_bytes()).collect();
                Parameters::default()
                    .numbers(kind, x)
                    .numbers(kind, &shift)
                    .numbers(kind, &scale)
                    .array(&seq)
                    .number(3u32.to_le_bytes())
                    .number((c as u32).to_le_bytes())
                    .number(EPS.to_le_bytes())
                    .run("layer_norm_modulate", kind, x.len() / c, x.len())
            };
            let what = format!("[{rows}, {c}] in {kind:?}");
            let y = run(&x, &seq);
            let expected = reference::layer_norm_modulate(&x, c, EPS, &shift, &scale, &seq);
            assert_rounded(&y, &expected, kind, 5e-6, &what);
            let last = (rows - 1) * c;
            assert_bits(&run(&x[last..], &seq[rows - 1..]), &y[last..], &what);
        }
    }
}

#[test]
fn norm_and_rotation_of_a_gpu_agree_with_the_reference_and_with_themselves_row_by_row() {
    for (rows, heads, dim) in [(1, 1, 2), (3, 2, 34), (5, 3, 64), (9, 24, 128)] {
        let width = heads * dim;
        let angles = noise(rows * dim / 2, 3);
        let (cos, sin): (Vec<f32>, Vec<f32>) =
            angles.iter().map(|a| ((9.0 * a).cos(), (9.0 * a).sin())).unzip();
        let weight = noise(dim, 2);
        for kind in Type::ALL {
            let x = kind.hold(&noise(rows * width, 1));
            let run = |x: &[f32], cos: &[f32], sin: &[f32]| {
                let items = x.len() / dim;
                Parameters::default()
                    .numbers(kind, x)
                    .numbers(Type::F32, &weight)
                    .numbers(Type::F32, cos)
                    .numbers(Type::F32, sin)
                    .number((items as u64).to_le_bytes())
                    .number((heads as u32).to_le_bytes())
                    .number((dim as u32).to_le_bytes())
                    .number(EPS.to_le_bytes())
                    .run("rms_norm_rope", kind, items.div_ceil(WARPS), x.len())
            };
            let what = format!("[{rows}, {heads} * {dim}] in {kind:?}");
            let y = run(&x, &cos, &sin);
            let expected = reference::rms_norm_rope(&x, heads, EPS, &weight, &cos, &sin);
            assert_rounded(&y, &expected, kind, 1e-6, &what);
            let (last, half) = ((rows - 1) * width, (rows - 1) * dim / 2);
            assert_bits(&run(&x[last..], &cos[half..], &sin[half..]), &y[last..], &what);
        }
    }
}

#[test]
fn weights_of_every_format_are_unpacked_on_a_gpu_as_on_the_cpu() {
    for format in Format::ALL {
        // More than one block of threads, and not a whole number of them.
        let (n, k) = (5, (300usize).next_multiple_of(format.block()));
        let len = n * format.row_bytes(k).unwrap();
        let bytes: Vec<u8> = noise(len, 7).iter().map(|x| (x.to_bits() >> 4) as u8).collect();
        let mut plain = vec![0.0; n * k];
        dequantize(format, &bytes, &mut plain);
        for scales in [vec![], vec![0.37], noise(n, 1)] {
            let scaled = plain.iter().enumerate().map(|(i, &x)| match scales.as_slice() {
                [] => x,
                [scale] => x * scale,
                scales => x * scales[i / k],
            });
            let scaled: Vec<f32> = scaled.collect();
            for kind in Type::ALL {
                let parameters = Parameters::default().array(&bytes);
                let parameters = if scales.is_empty() {
                    parameters.nothing()
                } else {
                    parameters.numbers(Type::F32, &scales)
                };
                let y = parameters
                    .number(u32::from(scales.len() > 1).to_le_bytes())
                    .number((k as u64).to_le_bytes())
                    .number(((n * k) as u64).to_le_bytes())
                    .run(
                        &format!("dequantise_{}", format.name()),
                        kind,
                        (n * k).div_ceil(THREADS),
                        n * k,
                    );
                let expected = kind.hold(&scaled);
                for (i, (found, expected)) in y.iter().zip(&expected).enumerate() {
                    // A scale of random bytes may be infinite or none; NaN has many bits.
                    let same = found.to_bits() == expected.to_bits();
                    let same = same || (found.is_nan() && expected.is_nan());
                    let what = format!("{} in {kind:?}, {} scales", format.name(), scales.len());
                    assert!(same, "{what}: [{i}] is {found:e}, expected {expected:e}");
                }
            }
        }
    }
}
