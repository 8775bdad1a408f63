//! Convolution.

use super::{assert_bits, assert_close, noise, same_everywhere};
use crate::conv::conv2d_on;
use crate::{ConvGeometry, PackedConv, conv2d, reference};

/// Same size; half the size; twice the size; and one that is none of the model's.
fn geometries(height: usize, width: usize) -> [ConvGeometry; 4] {
    let same = ConvGeometry {
        height,
        width,
        stride: 1,
        pad_top: 1,
        pad_left: 1,
        pad_bottom: 1,
        pad_right: 1,
        upsample: 1,
    };
    [
        same,
        ConvGeometry { stride: 2, pad_top: 0, pad_left: 0, ..same },
        ConvGeometry { upsample: 2, ..same },
        ConvGeometry { stride: 3, pad_top: 0, pad_left: 2, pad_bottom: 3, upsample: 3, ..same },
    ]
}

#[test]
fn agrees_with_the_reference_on_every_instruction_set() {
    for (height, width, cin, cout, kernel) in
        [(4, 4, 1, 1, 3), (5, 9, 3, 16, 3), (7, 6, 20, 33, 3), (6, 5, 48, 7, 3), (5, 4, 17, 18, 1)]
    {
        let (x, w) = (noise(height * width * cin, 1), noise(cout * cin * kernel * kernel, 2));
        let bias = noise(cout, 3);
        let packed = PackedConv::new(&w, Some(&bias), cout, cin, kernel, kernel);
        for g in geometries(height, width) {
            let (oh, ow) = (g.out_height(kernel), g.out_width(kernel));
            let what = format!("{cin} -> {cout}, kernel {kernel}, {g:?}");
            let y = same_everywhere(&what, |isa, y| {
                y.resize(oh * ow * cout, f32::NAN);
                conv2d_on(isa, &x, &g, &packed, 0..oh, y);
            });
            let expected = reference::conv2d(&x, &g, &w, &bias, [cin, kernel, kernel]);
            assert_close(&y, &expected, 2e-5, &what);
        }
    }
}

#[test]
fn a_row_alone_has_the_bits_that_it_has_in_the_whole() {
    let (height, width, cin, cout) = (11, 13, 50, 20);
    let x = noise(height * width * cin, 1);
    let packed = PackedConv::new(&noise(cout * cin * 9, 2), None, cout, cin, 3, 3);
    for g in geometries(height, width) {
        let (oh, ow) = (g.out_height(3), g.out_width(3));
        let mut whole = vec![0.0; oh * ow * cout];
        conv2d(&x, &g, &packed, 0..oh, &mut whole);
        for rows in [0..0, 0..1, 1..3, oh - 1..oh, 2..oh, oh..oh] {
            let mut y = vec![0.0; rows.len() * ow * cout];
            conv2d(&x, &g, &packed, rows.clone(), &mut y);
            let expected = &whole[rows.start * ow * cout..rows.end * ow * cout];
            assert_bits(&y, expected, &format!("rows {rows:?}, {g:?}"));
        }
    }
}

#[test]
fn a_kernel_need_not_be_square() {
    let g = ConvGeometry { pad_left: 0, ..geometries(6, 8)[0] };
    let (x, w, bias) = (noise(6 * 8 * 4, 1), noise(5 * 4 * 2 * 3, 2), noise(5, 3));
    let packed = PackedConv::new(&w, Some(&bias), 5, 4, 2, 3);
    let mut y = vec![0.0; g.out_height(2) * g.out_width(3) * 5];
    conv2d(&x, &g, &packed, 0..g.out_height(2), &mut y);
    assert_close(&y, &reference::conv2d(&x, &g, &w, &bias, [4, 2, 3]), 1e-5, "2 x 3");
}

#[test]
fn empty_pictures_and_wild_numbers_are_fine() {
    let packed = PackedConv::new(&[1.0; 9], Some(&[0.5]), 1, 1, 3, 3);
    let empty = ConvGeometry { pad_top: 0, pad_bottom: 0, ..geometries(0, 5)[0] };
    assert_eq!((empty.out_height(3), empty.out_width(3)), (0, 5));
    conv2d(&[], &empty, &packed, 0..0, &mut []);
    // Nothing but padding: the bias everywhere.
    let g = geometries(0, 0)[0];
    let padded = ConvGeometry { pad_top: 2, pad_left: 2, pad_bottom: 2, pad_right: 2, ..g };
    let mut y = [0.0; 4];
    conv2d(&[], &padded, &packed, 0..2, &mut y);
    assert_eq!(y, [0.5; 4]);

    let mut x = vec![0.0; 49];
    x[3 * 7 + 3] = f32::NAN;
    let mut y = vec![0.0; 49];
    conv2d(&x, &geometries(7, 7)[0], &packed, 0..7, &mut y);
    for (i, y) in y.iter().enumerate() {
        let near = (i / 7).abs_diff(3) <= 1 && (i % 7).abs_diff(3) <= 1;
        assert_eq!(y.is_nan(), near, "pixel {i}");
    }
}
