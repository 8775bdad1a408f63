//! Predicted memory against the memory that jobs need, and what a hostile file of weights takes. A
//! binary of its own, because its allocator counts; `benches/memory.rs` measures larger jobs.
#![expect(clippy::print_stdout, reason = "tests print the figures that they check")]

mod hostile;
mod measure;
#[path = "../fuzz/mutate.rs"]
mod mutate;
mod stock;
#[path = "../fuzz/weights.rs"]
mod weights;

use anyhow::{Result, ensure};
use darkroom::pipeline::Pipeline;
use measure::{Case, HEAD, adapted, golden, interleaved, measure, row, tiny, together};
use std::sync::{Mutex, PoisonError};

/// One test at a time: all of the process is counted.
static ALONE: Mutex<()> = Mutex::new(());

/// Every phase but text, which needs little, is the largest of some job.
const TINY: &[Case] = &[
    Case::new((16, 16), &[], 32),
    Case::new((128, 128), &[], 32),
    Case::new((128, 128), &[], 512),
    Case::new((256, 256), &[(4000, 3000)], 32),
    Case::new((256, 256), &[(4000, 3000), (3000, 4000), (2000, 2000)], 128).guided(),
    Case::new((176, 368), &[(800, 1500), (100, 100)], 64),
    Case::new((128, 128), &[(256, 384)], 64).exact(),
    STEPS,
    STEPS.cached(),
];
/// A job whose steps need the most.
const STEPS: Case = Case::new((96, 128), &[(96, 128); 8], 128).guided().exact();
/// What people do most: an edit of a picture in its own size.
const PICTURE: Case = Case::new((256, 256), &[(256, 256)], 32);
/// Jobs for the models of the goldens, whose numbers are small.
const GOLDEN: &[Case] = &[
    Case::new((96, 64), &[(64, 64)], 64).exact(),
    Case::new((128, 128), &[], 512),
    Case::new((128, 112), &[(128, 128), (64, 160)], 32).guided().exact(),
];

fn check(name: &str, pipeline: &mut Pipeline, cases: &[Case]) -> Result<()> {
    println!("{name}\n{HEAD}");
    for case in cases {
        let predicted = case.predicted(pipeline)?;
        let peaks = measure(pipeline, &[*case])?;
        println!("{}", row(&case.to_string(), &peaks, predicted));
        let ratio = peaks.highest() / predicted;
        ensure!((0.8..=1.25).contains(&ratio), "{name}, {case}: {ratio:.2} of the prediction");
        ensure!(peaks.left() < 1 << 18, "{name}, {case}: {} bytes are left", peaks.left());
    }
    Ok(())
}

#[test]
fn a_job_needs_within_a_quarter_of_what_was_predicted_and_leaves_nothing() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    check("kontext-tiny", &mut tiny()?, TINY)?;
    for name in ["base", "wide", "noguide"] {
        check(name, &mut golden(name)?, GOLDEN)?;
    }
    Ok(())
}

#[test]
fn a_model_that_was_loaded_has_what_its_plan_says() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (held, planned, all) in measure::loaded()? {
        println!(
            "{held} bytes are held of {planned} for networks, and {all} with the process's own"
        );
        ensure!(held as f64 >= 0.9 * planned as f64 && held <= all, "{held}, {planned}, {all}");
    }
    Ok(())
}

#[test]
fn adapters_take_what_was_predicted_and_stay_for_later_jobs() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    const JOB: Case = Case::new((48, 48), &[(48, 48)], 32).exact();
    println!("{HEAD}");
    for loras in [&["kohya"][..], &["comfyui_diff"], &["kohya_dora", "lycoris_lokr", "bfl_bias"]] {
        let (case, mut pipeline) = (JOB.adapted(loras), adapted()?);
        let (predicted, plain) = (case.predicted(&pipeline)?, JOB.predicted(&pipeline)?);
        let first = measure(&mut pipeline, &[case])?;
        println!("{}", row(&case.to_string(), &first, predicted));
        let ratio = first.highest() / predicted;
        ensure!((0.8..=1.25).contains(&ratio), "{case}: {ratio:.2} of the prediction");
        let (left, adapters) = (first.left() as f64, predicted - plain);
        ensure!(left < adapters + 262_144.0, "{case}: {left} bytes are left of {adapters}");
        // They are not read again.
        let second = measure(&mut pipeline, &[case])?;
        ensure!(second.left() < 1 << 16, "{case}: {} more bytes are left", second.left());
        ensure!(second.highest() < first.highest(), "{case}: it was read again");
    }
    Ok(())
}

#[test]
fn a_picture_in_tiles_takes_what_was_predicted_and_less_than_the_whole() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{HEAD}");
    let whole = tiny()?;
    let shapes: [(_, &[_], _); 3] =
        [((512, 384), &[], 32), ((256, 640), &[(256, 640)], 64), ((1024, 64), &[], 32)];
    for (size, images, text) in shapes {
        let case = Case::new(size, images, text).exact();
        let all = case.predicted(&whole)?;
        let mut pipeline = measure::tiled(all as u64 / 2)?;
        let predicted = case.predicted(&pipeline)?;
        let peaks = measure(&mut pipeline, &[case])?;
        println!("{}", row(&format!("{case}, in tiles"), &peaks, predicted));
        let ratio = peaks.highest() / predicted;
        ensure!((0.8..=1.25).contains(&ratio), "{case}: {ratio:.2} of the prediction");
        ensure!(predicted < 0.6 * all, "{case}: {predicted} is little less than {all}");
    }
    Ok(())
}

#[test]
fn jobs_together_need_little_less_than_they_are_allowed_for_and_never_more() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pipeline = tiny()?;
    println!("{HEAD}");
    let mixed = &TINY[TINY.len() - 5..TINY.len() - 1];
    for (name, cases, least) in [
        ("four alike", &[TINY[1]; 4][..], 0.6),
        ("four with a picture", &[PICTURE; 4], 0.6),
        ("three in steps", &[STEPS; 3], 0.8),
        // The peak of a long prompt is inside one unit, and nobody steps meanwhile.
        ("four with long prompts", &[TINY[2]; 4], 0.5),
        // Inputs are counted for all jobs, and gone once one has begun.
        ("mixed", mixed, 0.5),
    ] {
        let allowed = together(&pipeline, cases)?;
        // One after another in each phase, then some in steps while one is decoded.
        let in_turn = measure(&mut pipeline, cases)?;
        println!("{}", row(name, &in_turn, allowed));
        let at_once = interleaved(&mut pipeline, cases)?;
        println!("{}", row(&format!("{name}, at once"), &at_once, allowed));
        let ratio = in_turn.highest().max(at_once.highest()) / allowed;
        ensure!((least..=1.0).contains(&ratio), "{name}: {ratio:.2} of what is allowed");
    }
    Ok(())
}
