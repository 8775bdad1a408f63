//! The VAE's work in short units: none is larger than it may be, and where the cuts fall changes
//! neither a byte of a result nor the order of what is told.

use crate::support::{load_pipeline, params, repository};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use darkroom::{
    config::Manifest,
    domain::{EditParams, Pixels, Size},
    engine::{Engine, Job, Phase, Progress, Slot},
    model::{
        ops::UNIT,
        vae::{Extent, Pass, Vae},
        weights::{ConfigFile, Part, Source, Target, Weights},
    },
    pipeline::Pipeline,
};
use std::time::Duration;

/// More than any phase takes.
const LONG: Duration = Duration::from_secs(3600);

fn noise(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect()
}

fn tiny_vae() -> Result<Vae> {
    let folder = repository("models/kontext-tiny/vae");
    let weights = Weights::open(&Source::new(&folder, Part::Vae), &Target::cpu())?;
    Ok(Vae::load(&ConfigFile::open(&folder.join("config.json"))?, &weights)?)
}

/// Walks through a pass. Its result, the multiply-adds of its longest unit, and its units.
fn walk(vae: &Vae, mut pass: Pass) -> Result<(Tensor, u64, usize)> {
    let (mut longest, mut units) = (0, 0);
    loop {
        let (spent, (done, total)) = (pass.spent(), pass.progress(vae));
        let result = vae.advance(&mut pass)?;
        units += 1;
        ensure!(pass.spent() > spent, "unit {units} did nothing");
        longest = longest.max(pass.spent() - spent);
        let (now, same) = pass.progress(vae);
        ensure!(same == total && (done..=done + 1).contains(&now), "{done}, then {now} of {same}");
        if let Some(result) = result {
            ensure!(now == total, "the end came after {now} of {total}");
            return Ok((result, longest, units));
        }
    }
}

#[test]
fn no_unit_is_longer_than_it_may_be_where_a_row_has_1024_pixels() -> Result<()> {
    // Rows are what is cut, so a strip has the units of a square picture as wide.
    let (vae, height, width) = (tiny_vae()?, 64, 1024);
    let picture = Tensor::from_vec(noise(height * width * 3), (height, width, 3), &Device::Cpu)?;
    let (latents, longest, units) = walk(&vae, vae.encode(picture, Extent::Whole)?)?;
    println!("encoding: {units} units, {longest} multiply-adds in the longest, {UNIT} allowed");
    ensure!(longest <= UNIT, "a unit of encoding has {longest} multiply-adds");
    let (_, longest, units) = walk(&vae, vae.decode(&latents, Extent::Whole)?)?;
    println!("decoding: {units} units, {longest} multiply-adds in the longest, {UNIT} allowed");
    ensure!(longest <= UNIT, "a unit of decoding has {longest} multiply-adds");
    // In a square picture each pixel of the middle looks at 128 * 128 others.
    let middle = vae.config().block_out_channels.last().copied().unwrap_or_default();
    let queries = 2 * middle * (128 * 128 + middle) * 48;
    ensure!(queries as u64 <= UNIT, "a unit of attention has {queries} multiply-adds");
    Ok(())
}

/// Advances a job until its phase is over, with so much time for each call. What it was told last,
/// and how often.
fn through(pipeline: &mut Pipeline, slot: Slot, budget: Duration) -> Result<(Phase, usize)> {
    let mut last: Option<(u8, Progress)> = None;
    for calls in 1.. {
        let told = pipeline.advance(slot, budget)?;
        let (kind, progress) = match told {
            Phase::Text(progress) => (0, progress),
            Phase::Images(progress) => (1, progress),
            Phase::Decoding(progress) => (2, progress),
            Phase::Ready | Phase::Done(_) => return Ok((told, calls)),
        };
        ensure!(progress.done <= progress.total, "{progress:?}");
        if let Some((_, before)) = last.filter(|(before, _)| *before == kind) {
            ensure!(before.total == progress.total, "{before:?}, then {progress:?}");
            ensure!(before.done <= progress.done, "{before:?}, then {progress:?}");
        }
        last = Some((kind, progress));
    }
    anyhow::bail!("a phase without an end")
}

#[test]
fn the_bytes_are_the_same_unit_by_unit_and_in_one_go() -> Result<()> {
    let manifest = Manifest::open(&repository("models/kontext-tiny.toml"))?;
    let folder = repository("models/kontext-tiny");
    let mut pipeline = load_pipeline(&folder, &manifest, &Target::cpu())?;
    let rgb: Vec<u8> = (0..3 * 256 * 192_usize).map(|i| (i * 7919 % 251) as u8).collect();
    let mut run = |budget| -> Result<(Pixels, [usize; 2])> {
        let params = EditParams {
            size: Some(Size::new(256, 192)),
            num_inference_steps: 1,
            ..params("make it black and white")
        };
        let image = Pixels::new(256, 192, rgb.clone());
        let slot = pipeline.admit(Job { params, images: image.into_iter().collect() })?;
        let (_, before) = through(&mut pipeline, slot, budget)?;
        for outcome in pipeline.step(&[slot]) {
            outcome.result?;
        }
        let (told, after) = through(&mut pipeline, slot, budget)?;
        pipeline.release(slot);
        let Phase::Done(pixels) = told else { anyhow::bail!("{told:?} instead of a picture") };
        Ok((pixels, [before, after]))
    };
    let (whole, calls) = run(LONG)?;
    // Text, and that the pictures begin; pictures, and that it is ready. Then the result at once.
    ensure!(calls[0] <= 3 && calls[1] <= 2, "{calls:?} calls of an hour each");
    let (cut, calls) = run(Duration::ZERO)?;
    println!("{} calls before the steps, {} after them", calls[0], calls[1]);
    ensure!(calls[0] > 50 && calls[1] > 90, "{calls:?} calls of a unit each");
    ensure!(whole.rgb() == cut.rgb(), "the bytes differ");
    Ok(())
}
