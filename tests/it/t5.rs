//! T5 by itself: the reference's numbers where the golden models have none, and a pass block by
//! block.

use crate::support::{expect, load_pipeline, params, picture, repository};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, safetensors};
use darkroom::{
    config::Manifest,
    domain::{EditParams, Prompt},
    engine::{Engine, Job, Phase},
    model::{
        ops::Ops,
        t5::{Pass, T5Encoder},
        weights::{ConfigFile, Part, Source, Target, Weights},
    },
};
use std::{collections::HashMap, time::Duration};

/// The encoders of make_t5.py.
const ENCODERS: [&str; 2] = ["relu", "gated"];

fn load(name: &str, target: &Target) -> Result<T5Encoder> {
    let folder = repository(&format!("tests/golden/t5/{name}"));
    let weights = Weights::open(&Source::new(&folder, Part::T5), target)?;
    Ok(T5Encoder::load(&ConfigFile::open(&folder.join("config.json"))?, &weights)?)
}

fn golden(name: &str) -> Result<HashMap<String, Tensor>> {
    let file = repository(&format!("tests/golden/t5/{name}/golden.safetensors"));
    Ok(safetensors::load(file, &Device::Cpu)?)
}

fn ids(golden: &HashMap<String, Tensor>, n: usize) -> Result<Vec<u32>> {
    let ids = golden.get(&format!("ids.{n}")).context("its ids")?;
    Ok(ids.to_dtype(DType::U32)?.to_vec1()?)
}

/// The rest of a pass.
fn finish(encoder: &T5Encoder, mut pass: Pass) -> Result<Tensor> {
    loop {
        if let Some(embeddings) = encoder.advance(&mut pass)? {
            return Ok(embeddings);
        }
    }
}

fn bits(x: &Tensor) -> Result<Vec<u32>> {
    Ok(x.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}

#[test]
fn the_reference_is_met_with_both_feed_forwards_and_at_every_length() -> Result<()> {
    for (name, ops) in ENCODERS.into_iter().flat_map(|n| [(n, Ops::Own), (n, Ops::Stock)]) {
        let encoder = load(name, &Target { ops, ..Target::cpu() })?;
        let golden = golden(name)?;
        let mut worst = 0f64;
        for n in [1, 5, 60, 200] {
            let found = finish(&encoder, encoder.encode(&ids(&golden, n)?)?)?;
            let expected = golden.get(&format!("embeddings.{n}")).context("its embeddings")?;
            ensure!(found.dims() == expected.dims(), "{name}: {:?}", found.dims());
            let l2 = |t: &Tensor| t.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>();
            let relative = (l2(&(&found - expected)?)? / l2(expected)?).sqrt();
            // written so that a NaN fails
            ensure!(relative <= 1e-5, "{name}, {ops:?}, {n} ids: off by {relative:e}");
            worst = worst.max(relative);
        }
        println!("{name}, {ops:?}: {worst:.1e}");
    }
    Ok(())
}

#[test]
fn passes_that_take_turns_give_the_bytes_they_give_alone() -> Result<()> {
    let encoder = load("gated", &Target::cpu())?;
    let golden = golden("gated")?;
    let (long, short) = (ids(&golden, 200)?, ids(&golden, 60)?);
    let alone =
        [finish(&encoder, encoder.encode(&long)?)?, finish(&encoder, encoder.encode(&short)?)?];
    let [mut long, mut short] = [encoder.encode(&long)?, encoder.encode(&short)?];
    for block in 1..3 {
        ensure!(encoder.advance(&mut long)?.is_none() && encoder.advance(&mut short)?.is_none());
        ensure!(long.progress(&encoder) == (block, 3), "{:?}", long.progress(&encoder));
    }
    let turns = [finish(&encoder, long)?, finish(&encoder, short)?];
    for (alone, turns) in alone.iter().zip(&turns) {
        ensure!(bits(alone)? == bits(turns)?, "the bytes differ");
    }
    Ok(())
}

#[test]
fn an_id_that_the_model_does_not_know_is_refused() -> Result<()> {
    let encoder = load("relu", &Target::cpu())?;
    let error = encoder.encode(&[1, 37]).err().context("37 ids are 0 to 36")?;
    expect(&error.to_string(), &["id 37", "knows 37 ids"])
}

/// One unit of a job's text is a block of T5, or CLIP.
#[test]
fn text_is_told_block_by_block() -> Result<()> {
    let model = repository("tests/golden/models/wide/model");
    let mut pipeline = load_pipeline(&model, &Manifest::released()?, &Target::cpu())?;
    let image = picture(&repository("tests/golden/models/wide/cases/edit_square/input.png"))?;
    let params = EditParams {
        negative_prompt: Some(Prompt::new("grain")),
        true_cfg_scale: 2.0,
        ..params("make it black and white")
    };
    let slot = pipeline.admit(Job { params, images: vec![image] })?;
    let mut told = Vec::new();
    while let Phase::Text(progress) = pipeline.advance(slot, Duration::ZERO)? {
        told.push((progress.done, progress.total));
    }
    // Two prompts of three blocks and CLIP; with the last of them the pictures begin.
    ensure!(told == (1..8).map(|done| (done, 8)).collect::<Vec<_>>(), "{told:?}");
    Ok(())
}
