//! The layer in bytes: against a scalar one, for equal bits everywhere, and how much it loses.

use super::{assert_bits, noise, quant::weights, same_everywhere};
use crate::quant::{Format, Matrix, Scale, dequantize, linear_in_bytes, linear_in_bytes_on};
use crate::{Activation, Packed};

/// The nearest integers from -127 to 127 to `x` in units of the scale, and the scale.
fn rounded(x: &[f32]) -> (Vec<i32>, f32) {
    let most = x.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let by = if most > 0.0 { 127.0 / most } else { 0.0 };
    (x.iter().map(|x| (x * by).round_ties_even() as i32).collect(), most / 127.0)
}

/// `x w^T + bias` as the layer is meant, one output after another.
fn reference(x: &[f32], w: &[f32], bias: Option<&[f32]>, k: usize) -> Vec<f32> {
    let mut y = Vec::new();
    for x in x.chunks(k) {
        for (n, w) in w.chunks(k).enumerate() {
            let mut sum = bias.map_or(0.0, |bias| bias[n]);
            for (x, w) in x.chunks(32).zip(w.chunks(32)) {
                let ((x, x_scale), (w, w_scale)) = (rounded(x), rounded(w));
                let dot: i32 = x.iter().zip(&w).map(|(x, w)| x * w).sum();
                sum = (dot as f32).mul_add(x_scale * w_scale, sum);
            }
            y.push(sum);
        }
    }
    y
}

/// Rows, outputs and inputs: tiles and tasks that are whole and that are not.
fn shapes(format: Format) -> [(usize, usize, usize); 5] {
    let b = format.block();
    [(1, 1, b), (7, 16, 3 * b), (13, 33, 256), (6, 64, 512), (70, 300, 5 * b)]
}

#[test]
fn the_layer_is_the_scalar_one_everywhere() {
    for format in Format::ALL {
        for (i, (rows, n, k)) in shapes(format).into_iter().enumerate() {
            let bytes = weights(format, n, k, i);
            let matrix = Matrix::new(format, n, k, &bytes[1..], Scale::One).unwrap();
            let mut w = vec![0.0; n * k];
            dequantize(format, &bytes[1..], &mut w);
            let (x, bias) = (noise(rows * k, 1), noise(n, 3));
            let bias = (i % 2 == 0).then_some(bias.as_slice());
            let what = format!("[{rows}, {k}] x [{n}, {k}] of {} in bytes", format.name());
            let y = same_everywhere(&what, |isa, y| {
                y.resize(rows * n, f32::NAN);
                linear_in_bytes_on(isa, &x, rows, &matrix, bias, Activation::None, y);
            });
            assert_bits(&y, &reference(&x, &w, bias, k), &what);
        }
    }
}

#[test]
fn activations_and_scales_are_those_of_the_other_layers() {
    let (rows, n, k) = (9, 40, 256);
    let (x, scales) = (noise(rows * k, 1), noise(n, 4));
    let bytes = weights(Format::F8E4M3, n, k, 0);
    let matrix = Matrix::new(Format::F8E4M3, n, k, &bytes[1..], Scale::Rows(&scales)).unwrap();
    let mut plain = vec![0.0; rows * n];
    linear_in_bytes(&x, rows, &matrix, None, Activation::None, &mut plain);
    for act in [Activation::GeluTanh, Activation::Silu] {
        let mut y = vec![0.0; rows * n];
        linear_in_bytes(&x, rows, &matrix, None, act, &mut y);
        let mut expected = plain.clone();
        crate::activate(&mut expected, act);
        assert_bits(&y, &expected, &format!("{act:?}"));
    }
}

#[test]
fn rounding_both_sides_costs_little_of_what_quantised_weights_give() {
    let (rows, n, k) = (32, 64, 2048);
    let x = noise(rows * k, 1);
    for format in Format::ALL.into_iter().filter(|format| format.block() > 1) {
        let bytes = weights(format, n, k, 0);
        let matrix = Matrix::new(format, n, k, &bytes[1..], Scale::One).unwrap();
        let mut w = vec![0.0; n * k];
        dequantize(format, &bytes[1..], &mut w);
        let (mut exact, mut y) = (vec![0.0; rows * n], vec![0.0; rows * n]);
        crate::linear(&x, rows, &Packed::new(&w, n, k), None, Activation::None, &mut exact);
        linear_in_bytes(&x, rows, &matrix, None, Activation::None, &mut y);
        let square = |x: f32| f64::from(x) * f64::from(x);
        let noise: f64 = exact.iter().zip(&y).map(|(a, b)| square(a - b)).sum();
        let ratio = 10.0 * (exact.iter().map(|&x| square(x)).sum::<f64>() / noise).log10();
        assert!(ratio >= 40.0, "{}: {ratio:.1} dB", format.name());
    }
}

#[test]
fn what_is_no_number_stays_in_its_row_and_what_is_empty_is_fine() {
    let (rows, n, k) = (3, 17, 64);
    let bytes = weights(Format::Q8_0, n, k, 0);
    let matrix = Matrix::new(Format::Q8_0, n, k, &bytes[1..], Scale::One).unwrap();
    let (x, mut y) = (noise(rows * k, 1), vec![0.0; rows * n]);
    linear_in_bytes(&x, rows, &matrix, None, Activation::None, &mut y);
    let mut broken = x.clone();
    (broken[k + 3], broken[k + 40]) = (f32::INFINITY, f32::NEG_INFINITY);
    let mut found = vec![0.0; rows * n];
    linear_in_bytes(&broken, rows, &matrix, None, Activation::None, &mut found);
    assert!(found[n..2 * n].iter().all(|y| !y.is_finite()), "an infinity became a number");
    assert_bits(&found[..n], &y[..n], "the row before");
    assert_bits(&found[2 * n..], &y[2 * n..], "the row behind");

    let none = Matrix::new(Format::Q8_0, 0, 32, &[], Scale::One).unwrap();
    linear_in_bytes(&[0.0; 32], 1, &none, None, Activation::None, &mut []);
    let empty = Matrix::new(Format::Q8_0, 2, 0, &[], Scale::One).unwrap();
    let mut y = [0.0; 4];
    linear_in_bytes(&[], 2, &empty, Some(&[1.0, 2.0]), Activation::None, &mut y);
    assert_eq!(y, [1.0, 2.0, 1.0, 2.0], "a layer of no inputs gives its bias");
    linear_in_bytes(&[], 0, &empty, None, Activation::None, &mut []);
    linear_in_bytes(&[0.0; 64], 1, &matrix, None, Activation::None, &mut vec![1.0; n]);
}
