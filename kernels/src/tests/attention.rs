//! Attention.

use std::ops::Range;

use super::{assert_bits, assert_close, assert_refused, noise, same_everywhere};
use crate::attention::attention_on;
use crate::simd::Isa;
use crate::{PackedKeys, Segment, attention, attention_biased, reference};

fn segment(first: Range<usize>, second: Range<usize>) -> Segment {
    Segment { ranges: [first, second] }
}

/// q, k and v, drawn wide enough that the softmax has work to do.
fn inputs(len: usize) -> [Vec<f32>; 3] {
    [1, 2, 3].map(|seed| noise(len, seed).into_iter().map(|x| 3.0 * x).collect())
}

#[test]
fn agrees_with_the_reference_on_every_instruction_set() {
    // Lengths around tiles, panels, blocks of keys and blocks of queries.
    for (heads, dim, n) in [
        (1, 8, 1),
        (2, 16, 2),
        (1, 32, 5),
        (3, 20, 12),
        (2, 33, 17),
        (1, 128, 127),
        (2, 16, 128),
        (2, 32, 129),
        (1, 48, 300),
        (1, 100, 97),
        (1, 256, 40),
        (1, 512, 70),
        (1, 1, 30),
    ] {
        let rows = n + 7;
        let [q, k, v] = inputs(rows * heads * dim);
        let scale = 1.0 / (dim as f32).sqrt();
        let segments = [segment(2..2 + n / 3, 3 + n / 3..3 + n)];
        let what = format!("{heads} heads of {dim}, {n} rows");
        let y = same_everywhere(&what, |isa, y| {
            y.resize(rows * heads * dim, 0.0);
            attention_on(isa, &q, &k, &v, heads, dim, scale, None, &segments, y);
        });
        let expected = reference::attention([&q, &k, &v], heads, dim, scale, None, &segments);
        assert_close(&y, &expected, 2e-5, &what);
    }
}

#[test]
fn a_bias_by_position_agrees_with_the_reference_on_every_instruction_set() {
    // One that reaches as far as it must, and one that reaches further.
    for (heads, dim, n, reach) in
        [(1, 8, 1, 1), (2, 16, 12, 12), (3, 20, 17, 30), (2, 64, 129, 129), (1, 24, 300, 511)]
    {
        let rows = n + 7;
        let [q, k, v] = inputs(rows * heads * dim);
        let bias: Vec<f32> = noise(heads * (2 * reach - 1), 4).iter().map(|x| 6.0 * x).collect();
        let segments = [segment(2..2 + n / 3, 3 + n / 3..3 + n)];
        let what = format!("{heads} heads of {dim}, {n} rows, a bias for {reach}");
        let y = same_everywhere(&what, |isa, y| {
            y.resize(rows * heads * dim, 0.0);
            attention_on(isa, &q, &k, &v, heads, dim, 0.3, Some(&bias), &segments, y);
        });
        let qkv = [&q[..], &k, &v];
        let expected = reference::attention(qkv, heads, dim, 0.3, Some(&bias), &segments);
        assert_close(&y, &expected, 2e-5, &what);
    }
}

#[test]
fn a_bias_of_zeros_changes_no_bits_and_a_longer_one_of_the_same_numbers_neither() {
    let (heads, dim, rows) = (2, 24, 150);
    let [q, k, v] = inputs(rows * heads * dim);
    let segments = [segment(0..20, 50..150), segment(20..50, 0..0)];
    let run = |bias: &[f32]| {
        let mut y = vec![0.0; rows * heads * dim];
        attention_biased(&q, &k, &v, heads, dim, 0.2, bias, &segments, &mut y);
        y
    };
    let mut plain = vec![0.0; rows * heads * dim];
    attention(&q, &k, &v, heads, dim, 0.2, &segments, &mut plain);
    assert_bits(&run(&vec![0.0; heads * 239]), &plain, "a bias of zeros");
    let bias = noise(heads * 239, 4);
    let longer: Vec<f32> =
        bias.chunks(239).flat_map(|head| [&[9.0; 5], head, &[9.0; 5]].concat()).collect();
    assert_bits(&run(&longer), &run(&bias), "a bias that reaches further");
    // Too short, without a middle, and not the same for each head.
    for bias in [&bias[..2 * 237], &bias[..2 * 238], &bias[1..]] {
        assert_refused("for 2 heads and 120 rows", || drop(run(bias)));
    }
}

#[test]
fn a_segment_alone_has_the_bits_that_it_has_in_a_batch() {
    let (heads, dim, rows) = (2, 24, 700);
    let width = heads * dim;
    let [q, k, v] = inputs(rows * width);
    let segments = [
        segment(0..5, 300..431),
        segment(5..6, 431..432),
        segment(6..6, 450..581),
        segment(7..30, 600..690),
        segment(40..290, 0..0),
        segment(0..0, 0..0),
    ];
    let mut whole = vec![0.0; rows * width];
    attention(&q, &k, &v, heads, dim, 0.2, &segments, &mut whole);
    let mut covered = vec![false; rows];
    for Segment { ranges: [first, second] } in &segments {
        let gather = |x: &[f32]| {
            let part = |r: &Range<usize>| x[r.start * width..r.end * width].to_vec();
            [part(first), part(second)].concat()
        };
        let alone = segment(0..first.len(), first.len()..first.len() + second.len());
        let mut y = vec![0.0; (first.len() + second.len()) * width];
        attention(&gather(&q), &gather(&k), &gather(&v), heads, dim, 0.2, &[alone], &mut y);
        assert_bits(&gather(&whole), &y, &format!("segment {first:?}, {second:?}"));
        covered[first.clone()].fill(true);
        covered[second.clone()].fill(true);
    }
    for (row, covered) in covered.into_iter().enumerate() {
        let untouched = whole[row * width..][..width].iter().all(|&y| y == 0.0);
        assert_eq!(untouched, !covered, "row {row}");
    }
}

#[test]
fn queries_that_come_in_bands_have_the_bits_that_they_have_together() {
    for (dim, n) in [(1, 1), (20, 30), (96, 300)] {
        let [q, k, v] = inputs(n * dim);
        let mut whole = vec![0.0; n * dim];
        attention(&q, &k, &v, 1, dim, 0.3, &[segment(0..n, 0..0)], &mut whole);
        let keys = PackedKeys::new(&k, &v, dim);
        for band in [1, 7, 12, 48, 100, n] {
            let banded = same_everywhere(&format!("bands of {band}"), |isa, y| {
                y.resize(n * dim, f32::NAN);
                for (q, y) in q.chunks(band * dim).zip(y.chunks_mut(band * dim)) {
                    keys.attend_on(isa, q, 0.3, y);
                }
            });
            assert_bits(&banded, &whole, &format!("{n} queries of {dim} in bands of {band}"));
        }
        keys.attend(&[], 0.3, &mut []);
    }
}

#[test]
fn more_heads_than_are_packed_at_a_time() {
    // 5 heads of 1100 x 512 keys and values exceed what is held packed at once.
    let (heads, dim, rows) = (9, 512, 1100);
    let [q, k, v] = inputs(rows * heads * dim);
    let mut whole = vec![0.0; rows * heads * dim];
    let segments = [segment(0..rows, 0..0)];
    attention(&q, &k, &v, heads, dim, 0.02, &segments, &mut whole);
    for head in [0, 8] {
        let column = |x: &[f32]| -> Vec<f32> {
            x.chunks(heads * dim).flat_map(|row| &row[head * dim..][..dim]).copied().collect()
        };
        let mut y = vec![0.0; rows * dim];
        attention(&column(&q), &column(&k), &column(&v), 1, dim, 0.02, &segments, &mut y);
        assert_bits(&column(&whole), &y, &format!("head {head}"));
    }
}

#[test]
fn empty_sizes_and_wild_numbers_are_fine() {
    attention(&[], &[], &[], 2, 8, 1.0, &[segment(0..0, 0..0)], &mut []);
    attention(&[], &[], &[], 0, 0, 1.0, &[], &mut []);
    attention_biased(&[], &[], &[], 2, 8, 1.0, &[], &[segment(0..0, 0..0)], &mut []);
    let (dim, rows) = (16, 40);
    for wild in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        for place in 0..3 {
            let mut qkv = inputs(rows * dim);
            qkv[place][25 * dim + 3] = wild;
            let segments = [segment(0..20, 0..0), segment(20..40, 0..0)];
            for isa in Isa::available() {
                let [q, k, v] = &qkv;
                let (mut y, mut calm) = (vec![0.0; rows * dim], vec![0.0; rows * dim]);
                attention_on(isa, q, k, v, 1, dim, 0.25, None, &segments, &mut y);
                attention_on(isa, q, k, v, 1, dim, 0.25, None, &segments[..1], &mut calm);
                assert_bits(&y[..20 * dim], &calm[..20 * dim], "a segment beside a wild one");
                assert!(!wild.is_nan() || y[25 * dim..].iter().any(|y| y.is_nan()));
            }
        }
    }
}

#[test]
fn far_apart_scores_neither_overflow_nor_vanish() {
    let (dim, rows) = (16, 300);
    let [mut q, mut k, v] = inputs(rows * dim);
    for x in q.iter_mut().chain(&mut k) {
        *x *= 30.0;
    }
    let segments = [segment(0..rows, 0..0)];
    let mut y = vec![0.0; rows * dim];
    attention(&q, &k, &v, 1, dim, 1.0, &segments, &mut y);
    let expected = reference::attention([&q, &k, &v], 1, dim, 1.0, None, &segments);
    // Scores of some 1e5 carry an error of some 1e-2 in f32, which the softmax magnifies wherever
    // two of them nearly tie.
    assert_close(&y, &expected, 0.2, "scores up to 1e5");
}

#[test]
fn a_row_in_two_segments_is_refused() {
    let x = [0.0; 4];
    let segments = [segment(0..2, 3..4), segment(1..3, 0..0)];
    assert_refused("in two segments", || {
        attention(&x, &x, &x, 1, 1, 1.0, &segments, &mut [0.0; 4]);
    });
}
