//! The autoencoder in tiles: against the reference's, within its memory, and chosen by sizes alone.

use crate::support::{advance_to_ready, decode_job, params, repository};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, safetensors};
use darkroom::{
    config::Manifest,
    domain::{Pixels, Size},
    engine::{Engine, Job, JobShape},
    model::{
        ops::Ops,
        vae::{Extent, Pass, Vae},
        weights::{ConfigFile, Part, Source, Target, Weights},
    },
    pipeline::{Checkpoint, Pipeline, Room},
};
use std::collections::HashMap;

fn wide(ops: Ops) -> Result<Vae> {
    let folder = repository("tests/golden/models/wide/model/vae");
    let target = Target { ops, ..Target::cpu() };
    let weights = Weights::open(&Source::new(&folder, Part::Vae), &target)?;
    Ok(Vae::load(&ConfigFile::open(&folder.join("config.json"))?, &weights)?)
}

/// The result of a pass, and the operations that it took; progress must be told without a jump.
fn walk(vae: &Vae, mut pass: Pass) -> Result<(Tensor, usize)> {
    loop {
        let (done, total) = pass.progress(vae);
        let result = vae.advance(&mut pass)?;
        let (now, same) = pass.progress(vae);
        ensure!(same == total && (done..=done + 1).contains(&now), "{done}, then {now} of {same}");
        if let Some(result) = result {
            ensure!(now == total, "the end came after {now} of {total}");
            return Ok((result, total));
        }
    }
}

fn furthest(found: &Tensor, expected: &Tensor) -> Result<f32> {
    ensure!(found.shape() == expected.shape(), "{found:?} is not of {expected:?}");
    let difference = (found.to_dtype(DType::F32)? - expected)?.abs()?;
    Ok(difference.flatten_all()?.max(0)?.to_scalar()?)
}

#[test]
fn the_references_tiles_are_met_with_own_and_with_stock_operations() -> Result<()> {
    let golden: HashMap<String, Tensor> =
        safetensors::load(repository("tests/golden/tiles.safetensors"), &Device::Cpu)?;
    for ops in [Ops::Own, Ops::Stock] {
        let vae = wide(ops)?;
        for (name, tiles) in [("112x72", 6), ("96x56", 4), ("64x104", 6)] {
            let get = |kind: &str| golden.get(&format!("{name}.{kind}")).context("a tensor");
            let (picture, latents, decoded) = (get("picture")?, get("latents")?, get("decoded")?);
            let (_, stages) = walk(&vae, vae.encode(picture.clone(), Extent::Whole)?)?;
            let (encoded, units) = walk(&vae, vae.encode(picture.clone(), Extent::Tiles)?)?;
            ensure!(units == tiles * stages, "{name}: {units} operations in tiles of {stages}");
            let encoding = furthest(&encoded, latents)?;
            let (result, _) = walk(&vae, vae.decode(latents, Extent::Tiles)?)?;
            let decoding = furthest(&result, decoded)?;
            let (whole, _) = walk(&vae, vae.decode(latents, Extent::Whole)?)?;
            let apart = furthest(&whole, decoded)?;
            println!("{ops:?}, {name}: {encoding:.1e}, {decoding:.1e}; the whole {apart:.1e}");
            ensure!(encoding < 1e-4 && decoding < 1e-4, "{ops:?}, {name}: not the reference's");
            ensure!(apart > 1e-2, "{name}: tiles that change nothing show nothing");
        }
    }
    Ok(())
}

#[test]
fn a_picture_no_larger_than_a_tile_is_not_cut() -> Result<()> {
    let vae = wide(Ops::Own)?;
    let picture = Tensor::zeros((64, 48, 3), DType::F32, &Device::Cpu)?;
    let (whole, units) = walk(&vae, vae.encode(picture.clone(), Extent::Whole)?)?;
    let (tiles, same) = walk(&vae, vae.encode(picture, Extent::Tiles)?)?;
    ensure!(units == same && furthest(&tiles, &whole)? == 0.0);
    Ok(())
}

/// `wide` where a pass over a whole picture may take so much.
fn within(jobs: Option<u64>) -> Result<Pipeline> {
    let folder = repository("tests/golden/models/wide/model");
    let checkpoint = Checkpoint::open(&folder, &Manifest::released()?, &Target::cpu())?;
    let plan = checkpoint.plan(Room { jobs, ..Room::ample() })?;
    Ok(Pipeline::load(&checkpoint, &plan, |_| {})?)
}

#[test]
fn an_edit_that_does_not_fit_whole_goes_in_tiles_whatever_is_beside_it() -> Result<()> {
    let size = Size::new(144, 112);
    let picture = Pixels::new(144, 112, vec![90; 3 * 144 * 112]).context("a picture")?;
    let job = |seed: u64| {
        let mut params = params("make it black and white");
        (params.size, params.seed, params.num_inference_steps) = (Some(size), seed, 1);
        params.exact_size = true;
        Job { params, images: vec![picture.clone()] }
    };
    let run = |pipeline: &mut Pipeline, beside: bool| -> Result<Vec<u8>> {
        let slot = pipeline.admit(job(1))?;
        let other = beside.then(|| pipeline.admit(job(2))).transpose()?;
        let slots: Vec<_> = [Some(slot), other].into_iter().flatten().collect();
        for &slot in &slots {
            advance_to_ready(pipeline, slot)?;
        }
        for outcome in pipeline.step(&slots) {
            outcome.result?;
        }
        let pixels = decode_job(pipeline, slot)?;
        slots.iter().for_each(|&slot| pipeline.release(slot));
        Ok(pixels.rgb().to_vec())
    };
    let most = |pipeline: &Pipeline| -> Result<u64> {
        let Job { params, .. } = job(1);
        let shape = JobShape { params: &params, images: &[size] };
        Ok(pipeline.cost_model().cost(&shape)?.most())
    };
    let mut whole = within(None)?;
    let mut tiled = within(Some(most(&whole)? / 2))?;
    ensure!(most(&tiled)? < most(&whole)?, "tiles are said to take as much as the whole");
    let (expected, found) = (run(&mut whole, false)?, run(&mut tiled, false)?);
    ensure!(expected != found, "no tiles were made");
    ensure!(found == run(&mut tiled, true)?, "beside another job there were other bytes");
    Ok(())
}
