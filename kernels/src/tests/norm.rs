//! The normalisations and the gated residual.

use super::{assert_bits, assert_close, assert_refused, noise, same_everywhere};
use crate::elementwise::gated_add_on;
use crate::group_norm::group_norm_on;
use crate::norm::{layer_norm_modulate_on, rms_norm_on, rms_norm_rope_on};
use crate::{
    GroupSums, gated_add, group_norm, layer_norm_modulate, reference, rms_norm, rms_norm_rope,
};

const EPS: f32 = 1e-6;

/// Rows of three sequences, mixed.
fn sequences(rows: usize) -> Vec<u32> {
    (0..rows).map(|row| (row * row % 3) as u32).collect()
}

#[test]
fn layer_norm_agrees_with_the_reference_and_with_itself_row_by_row() {
    for (rows, c) in [(1, 1), (3, 16), (5, 15), (13, 100), (300, 192), (11, 3072)] {
        let x: Vec<f32> = noise(rows * c, 1).iter().map(|x| 5.0 * x + 2.0).collect();
        let (shift, scale) = (noise(3 * c, 2), noise(3 * c, 3));
        let seq = sequences(rows);
        let what = format!("[{rows}, {c}]");
        let y = same_everywhere(&what, |isa, y| {
            y.resize(rows * c, f32::NAN);
            layer_norm_modulate_on(isa, &x, c, EPS, &shift, &scale, &seq, y);
        });
        let expected = reference::layer_norm_modulate(&x, c, EPS, &shift, &scale, &seq);
        assert_close(&y, &expected, 5e-6, &what);
        for row in 0..rows {
            let (part, seq) = (row * c..(row + 1) * c, &seq[row..=row]);
            let mut alone = vec![0.0; c];
            layer_norm_modulate(&x[part.clone()], c, EPS, &shift, &scale, seq, &mut alone);
            assert_bits(&alone, &y[part], &format!("{what}, row {row}"));
        }
    }
}

#[test]
fn gated_add_agrees_with_the_reference() {
    for (rows, c) in [(1, 1), (4, 16), (7, 37), (300, 192)] {
        let (x, u, gate) = (noise(rows * c, 1), noise(rows * c, 2), noise(3 * c, 3));
        let seq = sequences(rows);
        let what = format!("[{rows}, {c}]");
        let y = same_everywhere(&what, |isa, y| {
            y.resize(rows * c, f32::NAN);
            gated_add_on(isa, &x, &gate, &u, c, &seq, y);
        });
        let expected = |i: usize| {
            let gate = gate[seq[i / c] as usize * c + i % c];
            f64::from(x[i]) + f64::from(gate) * f64::from(u[i])
        };
        assert_close(&y, &(0..rows * c).map(expected).collect::<Vec<_>>(), 2e-7, &what);
    }
}

#[test]
fn rms_norm_agrees_with_the_reference_and_with_itself_row_by_row() {
    for (rows, c) in [(1, 1), (3, 16), (5, 15), (13, 100), (300, 96), (9, 4096)] {
        let (x, weight) = (noise(rows * c, 1), noise(c, 2));
        let what = format!("[{rows}, {c}]");
        let y = same_everywhere(&what, |isa, y| {
            y.resize(rows * c, f32::NAN);
            rms_norm_on(isa, &x, EPS, &weight, y);
        });
        assert_close(&y, &reference::rms_norm(&x, EPS, &weight), 1e-6, &what);
        for (row, (x, y)) in x.chunks(c).zip(y.chunks(c)).enumerate() {
            let mut alone = vec![0.0; c];
            rms_norm(x, EPS, &weight, &mut alone);
            assert_bits(&alone, y, &format!("{what}, row {row}"));
        }
    }
}

#[test]
fn rms_norm_and_rotation_agree_with_the_reference_and_with_themselves_row_by_row() {
    for (rows, heads, dim) in [(1, 1, 2), (3, 2, 16), (5, 3, 34), (9, 24, 128), (400, 6, 32)] {
        let width = heads * dim;
        let (x, weight) = (noise(rows * width, 1), noise(dim, 2));
        let angles = noise(rows * dim / 2, 3);
        let (cos, sin): (Vec<f32>, Vec<f32>) =
            angles.iter().map(|a| ((9.0 * a).cos(), (9.0 * a).sin())).unzip();
        let what = format!("[{rows}, {heads} * {dim}]");
        let y = same_everywhere(&what, |isa, y| {
            y.resize(rows * width, f32::NAN);
            rms_norm_rope_on(isa, &x, heads, dim, EPS, &weight, &cos, &sin, y);
        });
        let expected = reference::rms_norm_rope(&x, heads, EPS, &weight, &cos, &sin);
        assert_close(&y, &expected, 1e-6, &what);
        for row in 0..rows {
            let (part, half) = (row * width..(row + 1) * width, row * dim / 2..(row + 1) * dim / 2);
            let mut alone = vec![0.0; width];
            let (x, cos, sin) = (&x[part.clone()], &cos[half.clone()], &sin[half]);
            rms_norm_rope(x, heads, dim, EPS, &weight, cos, sin, &mut alone);
            assert_bits(&alone, &y[part], &format!("{what}, row {row}"));
        }
    }
}

#[test]
fn group_norm_agrees_with_the_reference() {
    for (pixels, c, groups) in [(1, 4, 2), (10, 6, 3), (33, 32, 32), (1025, 40, 4), (3000, 64, 32)]
    {
        // A mean far from zero is where a careless variance goes wrong.
        let x: Vec<f32> = noise(pixels * c, 1).iter().map(|x| x + 50.0).collect();
        let (weight, bias) = (noise(c, 2), noise(c, 3));
        for silu in [false, true] {
            let what = format!("[{pixels}, {c}] in {groups} groups, SiLU: {silu}");
            let y = same_everywhere(&what, |isa, y| {
                y.resize(pixels * c, f32::NAN);
                group_norm_on(isa, &x, c, groups, EPS, &weight, &bias, silu, y);
            });
            let expected = reference::group_norm(&x, c, groups, EPS, &weight, &bias, silu);
            // Half a unit in the last place of a mean near 50, over a deviation of 0.6.
            assert_close(&y, &expected, 1e-5, &what);
        }
    }
}

#[test]
fn group_norm_in_bands_has_the_bits_that_it_has_in_the_whole() {
    let (pixels, c, groups) = (5 * GroupSums::PIXELS + 100, 12, 3);
    let (x, weight, bias) = (noise(pixels * c, 1), noise(c, 2), noise(c, 3));
    let mut whole = vec![0.0; pixels * c];
    group_norm(&x, c, groups, EPS, &weight, &bias, true, &mut whole);
    for chunks in [1, 2, 5, 9] {
        let band = chunks * GroupSums::PIXELS * c;
        let mut sums = GroupSums::new(c, groups);
        x.chunks(band).for_each(|x| sums.add(x));
        assert_eq!(sums.pixels(), pixels);
        let mut y = vec![f32::NAN; pixels * c];
        for (x, y) in x.chunks(band).zip(y.chunks_mut(band)) {
            sums.apply(x, EPS, &weight, &bias, true, y);
        }
        assert_bits(&y, &whole, &format!("bands of {chunks} chunks"));
    }
    assert_refused("a band after 3 pixels", || {
        let mut sums = GroupSums::new(1, 1);
        sums.add(&[0.0; 3]);
        sums.add(&[0.0; 3]);
    });
}

#[test]
fn group_norm_is_accurate_over_a_million_pixels() {
    let (pixels, c) = (1 << 20, 2);
    let x: Vec<f32> = noise(pixels * c, 1).iter().map(|x| x + 3.0).collect();
    let mut y = vec![0.0; pixels * c];
    group_norm(&x, c, 1, EPS, &[1.0; 2], &[0.0; 2], false, &mut y);
    let expected = reference::group_norm(&x, c, 1, EPS, &[1.0; 2], &[0.0; 2], false);
    assert_close(&y, &expected, 1e-6, "a million pixels");
}

#[test]
fn empty_sizes_and_wild_numbers_are_fine() {
    layer_norm_modulate(&[], 8, EPS, &[], &[], &[], &mut []);
    layer_norm_modulate(&[], 0, EPS, &[], &[], &[0, 0], &mut []);
    gated_add(&[], &[], &[], 8, &[], &mut []);
    rms_norm(&[], EPS, &[1.0; 8], &mut []);
    rms_norm_rope(&[], 2, 8, EPS, &[1.0; 8], &[], &[], &mut []);
    group_norm(&[], 4, 2, EPS, &[1.0; 4], &[0.0; 4], true, &mut []);

    for wild in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let mut x = noise(32, 1);
        x[20] = wild;
        let mut y = [0.0; 32];
        layer_norm_modulate(&x, 16, EPS, &[0.0; 16], &[0.0; 16], &[0, 0], &mut y);
        assert!(y[..16].iter().all(|y| y.is_finite()), "a row beside a wild one");
        rms_norm(&x, EPS, &[1.0; 16], &mut y);
        assert!(y[..16].iter().all(|y| y.is_finite()), "a row beside a wild one");
        rms_norm_rope(&x, 1, 16, EPS, &[1.0; 16], &[1.0; 16], &[0.0; 16], &mut y);
        assert!(y[..16].iter().all(|y| y.is_finite()), "a row beside a wild one");
        group_norm(&x, 2, 2, EPS, &[1.0; 2], &[0.0; 2], true, &mut y);
        assert!(y.iter().skip(1).step_by(2).all(|y| y.is_finite()), "a group beside a wild one");
        gated_add(&x, &[wild; 16], &x, 16, &[0, 0], &mut y);
    }
}

#[test]
fn a_sequence_that_is_not_there_is_refused() {
    assert_refused("numbers for 3 sequences of 4", || {
        gated_add(&[0.0; 8], &[0.0; 8], &[0.0; 8], 4, &[0, 2], &mut [0.0; 8]);
    });
}
