//! The linear layer.

use super::{assert_bits, assert_close, noise, same_everywhere};
use crate::elementwise::activate_on;
use crate::linear::linear_on;
use crate::simd::Isa;
use crate::{Activation, Packed, linear, reference};

const ACTIVATIONS: [Activation; 3] = [Activation::None, Activation::GeluTanh, Activation::Silu];

/// Rows around the heights of tiles; widths around lanes, panels and blocks of inputs.
const SHAPES: [(usize, usize, usize); 14] = [
    (1, 16, 16),
    (1, 1, 1),
    (2, 48, 64),
    (3, 7, 5),
    (5, 33, 100),
    (7, 64, 383),
    (11, 100, 385),
    (12, 17, 384),
    (13, 31, 769),
    (24, 192, 64),
    (25, 65, 130),
    (50, 96, 1000),
    (193, 40, 33),
    (200, 530, 70),
];

#[test]
fn agrees_with_the_reference_on_every_instruction_set() {
    for (i, (rows, n, k)) in SHAPES.into_iter().enumerate() {
        let (x, w) = (noise(rows * k, 1), noise(n * k, 2));
        let bias = noise(n, 3);
        let bias = (i % 2 == 0).then_some(bias.as_slice());
        let packed = Packed::new(&w, n, k);
        for act in ACTIVATIONS {
            let what = format!("[{rows}, {k}] x [{n}, {k}], {act:?}");
            let y = same_everywhere(&what, |isa, y| {
                y.resize(rows * n, f32::NAN);
                linear_on(isa, &x, rows, &packed, bias, act, y);
            });
            let expected = reference::linear(&x, rows, &w, (n, k), bias, act);
            // Each of the k additions rounds a sum of the order of sqrt(k) / 3.
            let tolerance = 3e-6 + 6e-8 * k as f64;
            assert_close(&y, &expected, tolerance, &what);
        }
    }
}

#[test]
fn an_activation_by_itself_has_the_bits_of_the_fused_one() {
    for (rows, n, k) in SHAPES {
        let (x, bias) = (noise(rows * k, 1), noise(n, 3));
        let packed = Packed::new(&noise(n * k, 2), n, k);
        for act in ACTIVATIONS {
            let what = format!("{rows} rows of {n}, {act:?}");
            let fused = same_everywhere(&what, |isa, y| {
                y.resize(rows * n, f32::NAN);
                linear_on(isa, &x, rows, &packed, Some(&bias), act, y);
            });
            let alone = same_everywhere(&what, |isa, y| {
                y.resize(rows * n, f32::NAN);
                linear_on(isa, &x, rows, &packed, Some(&bias), Activation::None, y);
                activate_on(isa, y, act);
            });
            assert_bits(&alone, &fused, &what);
        }
    }
}

#[test]
fn packed_weights_are_given_back_as_they_came() {
    let (n, k) = (37, 11);
    let w = noise(n * k, 2);
    let packed = Packed::new(&w, n, k);
    let mut row = vec![f32::NAN; k];
    for (i, w) in w.chunks(k).enumerate() {
        packed.row(i, &mut row);
        assert_bits(&row, w, &format!("row {i}"));
    }
    super::assert_refused("output 37 of a [37, 11] layer", move || {
        packed.row(n, &mut vec![0.0; k])
    });
}

#[test]
fn a_row_alone_has_the_bits_that_it_has_in_a_batch() {
    let (rows, n, k) = (230, 200, 450);
    let (x, bias) = (noise(rows * k, 1), noise(n, 3));
    let packed = Packed::new(&noise(n * k, 2), n, k);
    let mut whole = vec![0.0; rows * n];
    linear(&x, rows, &packed, Some(&bias), Activation::GeluTanh, &mut whole);
    for count in [1, 2, 3, 5, 8, 11, 12, 13, 25, 100] {
        for first in [0, 1, 17, rows - count] {
            let x = &x[first * k..][..count * k];
            let mut y = vec![0.0; count * n];
            linear(x, count, &packed, Some(&bias), Activation::GeluTanh, &mut y);
            assert_bits(&y, &whole[first * n..][..count * n], &format!("{count} from {first}"));
        }
    }
}

#[test]
fn empty_sizes_and_wild_numbers_are_fine() {
    linear(&[], 0, &Packed::new(&[0.0; 12], 3, 4), None, Activation::None, &mut []);
    linear(&[0.0; 8], 2, &Packed::new(&[], 0, 4), None, Activation::None, &mut []);
    let mut y = [0.0; 4];
    linear(&[], 2, &Packed::new(&[], 2, 0), Some(&[1.0, 2.0]), Activation::None, &mut y);
    assert_eq!(y, [1.0, 2.0, 1.0, 2.0], "a layer of no inputs gives its bias");

    for wild in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let (rows, n, k) = (3, 20, 10);
        let mut x = noise(rows * k, 1);
        x[k + 3] = wild;
        let packed = Packed::new(&noise(n * k, 2), n, k);
        for isa in Isa::available() {
            for act in ACTIVATIONS {
                let (mut y, mut calm) = (vec![0.0; rows * n], vec![0.0; n]);
                linear_on(isa, &x, rows, &packed, None, act, &mut y);
                linear_on(isa, &x[..k], 1, &packed, None, act, &mut calm);
                assert_bits(&y[..n], &calm, "a row beside a wild one");
                assert!(!wild.is_nan() || y[n..2 * n].iter().all(|y| y.is_nan()));
            }
        }
    }
}

#[test]
fn packing_row_by_row_is_packing_at_once() {
    let (n, k) = (21, 9);
    let w = noise(n * k, 1);
    let by_row = Packed::from_fn(n, k, |i, row| row.copy_from_slice(&w[i * k..][..k]));
    let columns: Vec<Vec<f32>> = (0..k).map(|i| (0..n).map(|o| w[o * k + i]).collect()).collect();
    let by_column = Packed::from_columns(n, k, |i| &columns[i]);
    let at_once = Packed::new(&w, n, k);
    for j in 0..at_once.panel_count() {
        let flat = |packed: &Packed| packed.panel(j).iter().flat_map(|l| l.0).collect::<Vec<_>>();
        assert_bits(&flat(&by_row), &flat(&at_once), "by row");
        assert_bits(&flat(&by_column), &flat(&at_once), "by column");
    }
    assert_eq!((at_once.n(), at_once.k(), at_once.bytes()), (n, k, 2 * k * 64));
}
