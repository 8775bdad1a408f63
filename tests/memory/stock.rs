//! The memory of attention by candle's operations, which a GPU runs.

use crate::{ALONE, measure::HEAP};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use darkroom::model::ops::{Ops, Segment};
use std::sync::PoisonError;

#[test]
fn stock_attention_never_holds_a_whole_matrix_of_scores() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (rows, heads, dim) = (6000, 2, 16);
    let values = |seed: usize| {
        let values =
            (0..rows * heads * dim).map(|i| ((i + seed) * 7919 % 1009) as f32 / 504.5 - 1.0);
        Tensor::from_vec(values.collect::<Vec<_>>(), (rows, heads * dim), &Device::Cpu)
    };
    let (q, k, v) = (values(0)?, values(1)?, values(2)?);
    // Text and image of one sequence, some rows of none between them.
    let segments = [Segment { ranges: [0..500, 600..rows] }];
    let run = |ops: Ops| ops.attention(&q, &k, &v, heads, 0.25, &segments);
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    let stock = run(Ops::Stock)?;
    let peak = HEAP.peak_usage().saturating_sub(before);
    let scores = heads * (rows - 100).pow(2) * size_of::<f32>();
    println!("stock attention: {peak} bytes at its peak, {scores} in all scores");
    ensure!(peak < scores, "{peak} bytes, and {scores} would be all scores");

    let own = run(Ops::Own)?.flatten_all()?.to_vec1::<f32>()?;
    let stock = stock.flatten_all()?.to_vec1::<f32>()?;
    let off = own.iter().zip(&stock).map(|(own, stock)| (own - stock).abs()).fold(0.0, f32::max);
    ensure!(off < 1e-5, "slices of queries give other numbers: off by {off:e}");
    Ok(())
}
