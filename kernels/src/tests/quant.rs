//! Weights in the formats of files: their numbers against gguf-py's and torch's
//! (`tests/golden/make_quants.py`), and the linear layer over them against the plain one.

use super::{assert_bits, noise, same_everywhere};
use crate::linear::linear_on;
use crate::quant::{Format, Matrix, Scale, dequantize, dequantize_on, linear, linear_in_bytes};
use crate::simd::Isa;
use crate::{Activation, Packed};

const GOLDEN: &[u8] = include_bytes!("../../tests/golden/quants.bin");
/// Weights of each format in the golden file.
const WEIGHTS: usize = 1280;

/// The golden bytes of a format and the numbers they stand for.
fn golden(format: Format) -> (&'static [u8], Vec<f32>) {
    let mut rest = GOLDEN;
    for each in Format::ALL {
        let (bytes, after) = rest.split_at(each.row_bytes(WEIGHTS).unwrap());
        let (values, after) = after.split_at(4 * WEIGHTS);
        if each == format {
            let values = values.as_chunks::<4>().0;
            return (bytes, values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect());
        }
        rest = after;
    }
    unreachable!("every format is in `Format::ALL`");
}

/// `[n, k]` weights out of the golden blocks, in an order that depends on the seed, after one byte
/// that makes the address odd.
pub(super) fn weights(format: Format, n: usize, k: usize, seed: usize) -> Vec<u8> {
    let size = format.block_bytes();
    let (bytes, _) = golden(format);
    let blocks = bytes.len() / size;
    let count = n * k / format.block();
    let block = |i: usize| &bytes[(i * 7 + i / blocks + seed) % blocks * size..][..size];
    std::iter::once(0).chain((0..count).flat_map(|i| block(i).iter().copied())).collect()
}

/// Rows, outputs and blocks (or, where a block is one weight, inputs), around tiles and panels.
fn shapes(format: Format) -> Vec<(usize, usize, usize)> {
    let few = [(1, 16, 1), (1, 1, 1), (2, 33, 3), (5, 20, 2), (17, 47, 1), (200, 50, 3)];
    let odd = [(1, 35, 257), (2, 16, 7), (5, 20, 301), (17, 47, 64), (200, 50, 530), (13, 17, 1)];
    let shapes = if format.block() == 1 { odd } else { few };
    shapes.map(|(rows, n, blocks)| (rows, n, blocks * format.block())).to_vec()
}

#[test]
fn the_numbers_are_those_of_the_reference_bit_by_bit() {
    for format in Format::ALL {
        let (bytes, expected) = golden(format);
        for isa in Isa::available() {
            // From one block to all, so that each number of rows in a vector occurs.
            for blocks in (1..=WEIGHTS / format.block()).filter(|n| n % 37 < 10 || n % 40 == 0) {
                let (k, size) = (blocks * format.block(), blocks * format.block_bytes());
                let mut out = vec![f32::NAN; k];
                dequantize_on(isa, format, &bytes[..size], &mut out);
                let what = format!("{blocks} blocks of {} on {}", format.name(), isa.name());
                assert_bits(&out, &expected[..k], &what);
            }
        }
    }
}

#[test]
fn every_half_and_every_short_float_is_what_its_fields_say() {
    /// A number with so many bits of exponent and of significand, as IEEE 754 reads them.
    fn value(code: u16, exponent: u32, significand: u32) -> f32 {
        let field = i32::from(code >> significand & ((1 << exponent) - 1));
        let bias = (1 << (exponent - 1)) - 1;
        let fraction = f32::from(code & ((1 << significand) - 1)) / (1 << significand) as f32;
        let special = field == (1 << exponent) - 1;
        let magnitude = match (special, field) {
            (true, _) if fraction == 0.0 => f32::INFINITY,
            (true, _) => f32::NAN,
            (false, 0) => fraction * 2f32.powi(1 - bias),
            (false, _) => (1.0 + fraction) * 2f32.powi(field - bias),
        };
        if code >> (exponent + significand) == 1 { -magnitude } else { magnitude }
    }
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    for isa in Isa::available() {
        let halves: Vec<u16> = (0..=u16::MAX).collect();
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        let mut out = vec![0.0; halves.len()];
        dequantize_on(isa, Format::F16, &bytes, &mut out);
        for (&code, &found) in halves.iter().zip(&out) {
            assert!(same(found, value(code, 5, 10)), "{code:#x} is {found}");
        }
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let mut out = vec![0.0; bytes.len()];
        dequantize_on(isa, Format::F8E5M2, &bytes, &mut out);
        for (&code, &found) in bytes.iter().zip(&out) {
            assert!(same(found, value(code.into(), 5, 2)), "{code:#x} is {found}");
        }
        dequantize_on(isa, Format::F8E4M3, &bytes, &mut out);
        for (&code, &found) in bytes.iter().zip(&out) {
            // The largest exponent is an ordinary one, but for the code that is no number.
            let expected = match code & 0x7f {
                0x7f => f32::NAN,
                0x78.. => f32::from(8 + (code & 7)) * if code < 0x80 { 32.0 } else { -32.0 },
                _ => value(code.into(), 4, 3),
            };
            assert!(same(found, expected), "{code:#x} is {found}");
        }
    }
}

#[test]
fn the_layer_has_the_bits_of_the_plain_layer_over_dequantised_weights() {
    let acts = [Activation::None, Activation::GeluTanh, Activation::Silu];
    for format in Format::ALL {
        for (i, (rows, n, k)) in shapes(format).into_iter().enumerate() {
            let bytes = weights(format, n, k, i);
            let matrix = Matrix::new(format, n, k, &bytes[1..], Scale::One).unwrap();
            let mut w = vec![0.0; n * k];
            dequantize(format, &bytes[1..], &mut w);
            let packed = Packed::new(&w, n, k);
            let (x, bias) = (noise(rows * k, 1), noise(n, 3));
            let (bias, act) = ((i % 2 == 0).then_some(bias.as_slice()), acts[i % 3]);
            let what = format!("[{rows}, {k}] x [{n}, {k}] of {}", format.name());
            let y = same_everywhere(&what, |isa, y| {
                y.resize(rows * n, f32::NAN);
                linear_on(isa, &x, rows, &matrix, bias, act, y);
            });
            let mut expected = vec![0.0; rows * n];
            crate::linear(&x, rows, &packed, bias, act, &mut expected);
            assert_bits(&y, &expected, &what);
        }
    }
}

#[test]
fn a_row_alone_has_the_bits_that_it_has_in_a_batch() {
    let (rows, n, k) = (230, 40, 512);
    let (x, bias) = (noise(rows * k, 1), noise(n, 3));
    for format in [Format::Q8_0, Format::Q4K, Format::F8E4M3] {
        let bytes = weights(format, n, k, 0);
        let matrix = Matrix::new(format, n, k, &bytes[1..], Scale::One).unwrap();
        for layer in [linear, linear_in_bytes] {
            let mut whole = vec![0.0; rows * n];
            layer(&x, rows, &matrix, Some(&bias), Activation::GeluTanh, &mut whole);
            for count in [1, 2, 5, 11, 13, 100] {
                for first in [0, 17, rows - count] {
                    let x = &x[first * k..][..count * k];
                    let mut y = vec![0.0; count * n];
                    layer(x, count, &matrix, Some(&bias), Activation::GeluTanh, &mut y);
                    let what = format!("{count} from {first}");
                    assert_bits(&y, &whole[first * n..][..count * n], &what);
                }
            }
        }
    }
}

#[test]
fn scales_multiply_each_weight_once() {
    let (rows, n, k) = (3, 21, 96);
    let x = noise(rows * k, 1);
    let scales = noise(n, 4);
    for format in [Format::F8E4M3, Format::F8E5M2, Format::Q8_0] {
        let bytes = weights(format, n, k, 0);
        for scale in [Scale::One, Scale::Tensor(0.003_7), Scale::Rows(&scales)] {
            let mut w = vec![0.0; n * k];
            dequantize(format, &bytes[1..], &mut w);
            for (w, row) in w.iter_mut().zip((0..n).flat_map(|row| [row; 96])) {
                *w *= match scale {
                    Scale::One => 1.0,
                    Scale::Tensor(scale) => scale,
                    Scale::Rows(scales) => scales[row],
                };
            }
            let mut expected = vec![0.0; rows * n];
            let packed = Packed::new(&w, n, k);
            crate::linear(&x, rows, &packed, None, Activation::None, &mut expected);
            let matrix = Matrix::new(format, n, k, &bytes[1..], scale).unwrap();
            let y = same_everywhere("a scaled layer", |isa, y| {
                y.resize(rows * n, f32::NAN);
                linear_on(isa, &x, rows, &matrix, None, Activation::None, y);
            });
            assert_bits(&y, &expected, &format!("{} times {scale:?}", format.name()));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_what_is_empty_is_fine() {
    let new = |format, n, k, len, scale| Matrix::new(format, n, k, &vec![0; len], scale).is_some();
    assert!(new(Format::Q4K, 3, 512, 3 * 288, Scale::One));
    assert!(!new(Format::Q4K, 3, 512, 3 * 288 - 1, Scale::One), "a byte too few");
    assert!(!new(Format::Q4K, 3, 512, 3 * 288 + 1, Scale::One), "a byte too many");
    assert!(!new(Format::Q4K, 3, 300, 3 * 288, Scale::One), "no whole number of blocks");
    assert!(!new(Format::F32, usize::MAX, 8, 32, Scale::One), "more than can be counted");
    assert!(!new(Format::F32, 2, usize::MAX, 8, Scale::One), "more than can be counted");
    assert!(new(Format::F8E4M3, 2, 5, 10, Scale::Rows(&[1.0, 2.0])));
    assert!(!new(Format::F8E4M3, 2, 5, 10, Scale::Rows(&[1.0])), "a scale too few");

    for format in Format::ALL {
        assert_eq!(format.row_bytes(0), Some(0));
        assert_eq!(format.row_bytes(usize::MAX / format.block() * format.block()).is_some(), {
            format.block_bytes() <= format.block()
        });
        dequantize(format, &[], &mut []);
        let none = Matrix::new(format, 0, format.block(), &[], Scale::One).unwrap();
        linear(&vec![0.0; format.block()], 1, &none, None, Activation::None, &mut []);
        let mut y = [0.0; 4];
        let empty = Matrix::new(format, 2, 0, &[], Scale::One).unwrap();
        linear(&[], 2, &empty, Some(&[1.0, 2.0]), Activation::None, &mut y);
        assert_eq!(y, [1.0, 2.0, 1.0, 2.0], "a layer of no inputs gives its bias");
        linear(&[], 0, &empty, None, Activation::None, &mut []);
    }
}
