//! The speed of the kernels, in GFLOP/s (norms: GB/s), on all threads of the pool.
//!
//! `cargo bench -p darkroom-kernels [-- part-of-a-name]`. Linear layers are timed in turns with the
//! `gemm` crate, which candle multiplies with: the ratio holds on a machine that others use too,
//! where the figures themselves waver. Both get what suits them: the kernels packed weights, `gemm`
//! the plain `[n, k]` matrix as candle hands it over. Quantised layers are timed in turns with packed
//! `f32`. Medians of five.
#![expect(clippy::print_stdout, reason = "printing is what a benchmark is for")]

use std::hint::black_box;
use std::time::Instant;

use darkroom_kernels::quant::{self, Format, Matrix, Scale};
use darkroom_kernels::{
    Activation, ConvGeometry, Packed, PackedConv, Segment, attention, conv2d, group_norm,
    instruction_set, layer_norm_modulate, linear, rms_norm_rope,
};

const SAMPLES: usize = 5;
/// The formats whose speed is told: those that people use.
const FORMATS: [Format; 5] = [Format::BF16, Format::F8E4M3, Format::Q8_0, Format::Q6K, Format::Q4K];
/// A sample repeats its work until it lasts about this long.
const SECONDS: f64 = 0.1;

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with("--")).unwrap_or_default();
    let threads = rayon::current_num_threads();
    println!("{}, {threads} threads", instruction_set());
    for (rows, n, k) in linear_shapes() {
        if "linear".contains(&filter) {
            bench_linear(rows, n, k, threads);
        }
    }
    for rows in [1, 16, 256, 1024] {
        if "quant".contains(&filter) {
            bench_quant(rows, 3072, 3072);
        }
    }
    for (n, dim) in [(544, 32), (544, 128), (4608, 32), (4608, 128)] {
        if "attention".contains(&filter) {
            bench_attention(n, dim);
        }
    }
    if "conv".contains(&filter) {
        bench_conv(256, 3, 32, 1, 1);
        bench_conv(256, 32, 32, 1, 1);
        bench_conv(256, 32, 32, 2, 1);
        bench_conv(128, 32, 32, 1, 2);
        bench_conv(256, 128, 128, 1, 1);
        bench_conv(64, 512, 512, 1, 1);
    }
    if "norm".contains(&filter) {
        bench_norms();
    }
}

fn linear_shapes() -> Vec<(usize, usize, usize)> {
    let mut shapes = Vec::new();
    for size in [192, 768, 3072] {
        for rows in [1, 4, 16, 256, 768, 4608] {
            shapes.push((rows, size, size));
        }
    }
    shapes.extend([(4608, 768, 192), (4608, 192, 768), (16, 9216, 3072), (1024, 12288, 3072)]);
    shapes
}

/// Numbers of both signs, none of them special.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919) % 1013) as f32 / 506.5 - 1.0).collect()
}

/// Medians of the seconds that each contestant takes, timed in turns.
fn times<const N: usize>(mut contestants: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut repeats = [1; N];
    for (run, repeats) in contestants.iter_mut().zip(&mut repeats) {
        run(); // the first run meets cold caches and sleeping threads
        let start = Instant::now();
        run();
        *repeats = (SECONDS / start.elapsed().as_secs_f64().max(1e-7)).ceil() as usize;
    }
    let mut samples = [const { Vec::new() }; N];
    for _ in 0..SAMPLES {
        for (i, run) in contestants.iter_mut().enumerate() {
            let start = Instant::now();
            for _ in 0..repeats[i] {
                run();
            }
            samples[i].push(start.elapsed().as_secs_f64() / repeats[i] as f64);
        }
    }
    samples.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[SAMPLES / 2]
    })
}

fn bench_linear(rows: usize, n: usize, k: usize, threads: usize) {
    let (x, w) = (numbers(rows * k), numbers(n * k));
    let packed = Packed::new(&w, n, k);
    let (mut y, mut z) = (vec![0.0; rows * n], vec![0.0; rows * n]);
    let mut ours = || linear(black_box(&x), rows, &packed, None, Activation::None, &mut y);
    let parallelism =
        if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    let (columns, depth) = (n as isize, k as isize);
    let mut theirs = || {
        let (x, z) = (black_box(&x).as_ptr(), z.as_mut_ptr());
        // SAFETY: the sizes and strides describe z [rows, n], x [rows, k] and w [n, k] transposed.
        unsafe {
            #[rustfmt::skip]
            gemm::gemm(
                rows, n, k,
                z, 1, columns, false,
                x, 1, depth,
                w.as_ptr(), depth, 1,
                0.0, 1.0, false, false, false,
                parallelism,
            );
        }
    };
    let [own, other] = times([&mut ours, &mut theirs]);
    let flops = 2e-9 * (rows * n * k) as f64;
    let ratio = other / own;
    println!(
        "linear {rows:>5} x {k:>5} -> {n:>5}: {:7.1} GFLOP/s, gemm {:7.1}, {ratio:.2} times gemm",
        flops / own,
        flops / other,
    );
}

/// Weights as they lie in a file, in turns with the packed `f32` that they stand for.
fn bench_quant(rows: usize, n: usize, k: usize) {
    let (x, w) = (numbers(rows * k), numbers(n * k));
    let packed = Packed::new(&w, n, k);
    let flops = 2e-9 * (rows * n * k) as f64;
    for format in FORMATS {
        // Any byte will do but one that makes a scale subnormal, which some processors are slow with.
        let bytes = vec![0x31; format.row_bytes(k).expect("whole blocks") * n];
        let matrix =
            Matrix::new(format, n, k, &bytes, Scale::One).expect("as many bytes as needed");
        let (mut y, mut z) = (vec![0.0; rows * n], vec![0.0; rows * n]);
        let (none, act) = (None, Activation::None);
        let mut file = || quant::linear(black_box(&x), rows, &matrix, none, act, &mut y);
        let mut dense = || linear(black_box(&x), rows, &packed, none, act, &mut z);
        let mut v = vec![0.0; rows * n];
        let mut bytes = || quant::linear_in_bytes(black_box(&x), rows, &matrix, none, act, &mut v);
        let [file, dense, bytes] = times([&mut file, &mut dense, &mut bytes]);
        println!(
            "quant {:>7} {rows:>5} x {k:>5} -> {n:>5}: {:7.1} GFLOP/s, {:.2} times packed f32; in \
             bytes {:7.1}, {:.2} times",
            format.name(),
            flops / file,
            dense / file,
            flops / bytes,
            dense / bytes,
        );
    }
}

fn bench_attention(n: usize, dim: usize) {
    let heads = 4;
    let x = numbers(n * heads * dim);
    let mut out = vec![0.0; x.len()];
    let segments = [Segment { ranges: [0..n / 8, n / 8..n] }];
    let scale = 1.0 / (dim as f32).sqrt();
    let mut run = || attention(black_box(&x), &x, &x, heads, dim, scale, &segments, &mut out);
    let [seconds] = times([&mut run]);
    let flops = 4e-9 * (heads * n * n * dim) as f64;
    println!("attention {n:>5} tokens, {heads} heads of {dim:>3}: {:7.1} GFLOP/s", flops / seconds);
}

fn bench_conv(size: usize, cin: usize, cout: usize, stride: usize, upsample: usize) {
    let g = ConvGeometry {
        height: size,
        width: size,
        stride,
        pad_top: 1,
        pad_left: 1,
        pad_bottom: 1,
        pad_right: 1,
        upsample,
    };
    let (oh, ow) = (g.out_height(3), g.out_width(3));
    let weight = PackedConv::new(&numbers(cout * cin * 9), None, cout, cin, 3, 3);
    let (x, mut y) = (numbers(size * size * cin), vec![0.0; oh * ow * cout]);
    let mut run = || conv2d(black_box(&x), &g, &weight, 0..oh, &mut y);
    let [seconds] = times([&mut run]);
    let flops = 2e-9 * (oh * ow * cout * cin * 9) as f64;
    println!(
        "conv {size}x{size}x{cin} -> {oh}x{ow}x{cout}, 3x3, stride {stride}, upsample {upsample}: \
         {:7.1} GFLOP/s",
        flops / seconds
    );
}

/// Norms move memory rather than multiply: bytes read and written once each.
fn bench_norms() {
    let (rows, c, dim) = (1024, 3072, 128);
    let x = numbers(rows * c);
    let mut y = vec![0.0; x.len()];
    let gigabytes = 8e-9 * x.len() as f64;
    let (seq, angles) = (vec![0; rows], numbers(rows * dim / 2));
    let mut report = |name: &str, run: &mut dyn FnMut(&mut [f32])| {
        let [seconds] = times([&mut || run(&mut y)]);
        println!("norm {name} [{rows}, {c}]: {:5.1} GB/s", gigabytes / seconds);
    };
    report("layer_norm_modulate", &mut |y| {
        layer_norm_modulate(black_box(&x), c, 1e-6, &x[..c], &x[..c], &seq, y);
    });
    report("rms_norm_rope", &mut |y| {
        rms_norm_rope(black_box(&x), c / dim, dim, 1e-6, &x[..dim], &angles, &angles, y);
    });
    report("group_norm (128 channels)", &mut |y| {
        group_norm(black_box(&x), 128, 32, 1e-6, &x[..128], &x[..128], false, y);
    });
    report("group_norm with SiLU", &mut |y| {
        group_norm(black_box(&x), 128, 32, 1e-6, &x[..128], &x[..128], true, y);
    });
}
