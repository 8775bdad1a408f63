//! Jobs with adapters beside plain ones: each gives the bytes that it gives alone.

use super::{Networks, adapter_path};
use crate::support::{
    advance_to_ready, decode_job, load_pipeline, params, picture, repository, run,
};
use anyhow::{Result, ensure};
use candle_core::Tensor;
use darkroom::{
    config::Manifest,
    domain::{EditParams, Lora, Pixels, Prompt, Size},
    engine::{Engine, Job, Slot},
    model::{ops::Weighted, weights::Target},
    pipeline::{LoraShelf, Pipeline},
};
use std::sync::Arc;

pub(super) fn pipeline() -> Result<Pipeline> {
    let folder = repository("tests/golden/models/base/model");
    let mut pipeline = load_pipeline(&folder, &Manifest::released()?, &Target::cpu())?;
    let adapters = adapter_path("x");
    pipeline.shelve(Arc::new(LoraShelf::new(adapters.parent().unwrap_or(&adapters))));
    Ok(pipeline)
}

pub(super) fn named(loras: &[(&str, f32)]) -> Vec<Lora> {
    let lora = |&(name, scale): &(&str, f32)| Lora { name: name.to_owned(), scale };
    loras.iter().map(lora).collect()
}

/// Four jobs of different sizes: with one adapter, with two and true CFG, with none, and with the
/// first one's at another strength.
fn jobs() -> Result<[Job; 4]> {
    let input = |case: &str| {
        picture(&repository(&format!("tests/golden/models/base/cases/{case}/input.png")))
    };
    let edit = |prompt, seed, loras: &[(&str, f32)]| EditParams {
        num_inference_steps: 3,
        seed,
        exact_size: true,
        loras: named(loras),
        ..params(prompt)
    };
    let guided = EditParams {
        negative_prompt: Some(Prompt::new("grain, wet street")),
        true_cfg_scale: 2.5,
        size: Some(Size::new(96, 48)),
        ..edit("a watercolor painting", 8, &[("kohya_clip", 1.0), ("kohya_dora", -0.5)])
    };
    let text_only = EditParams { size: Some(Size::new(48, 80)), ..edit("a mountain", 9, &[]) };
    Ok([
        Job {
            params: edit("make it red", 7, &[("kohya", 0.8)]),
            images: vec![input("edit_square")?],
        },
        Job { params: guided, images: vec![input("edit_portrait")?, input("edit_square")?] },
        Job { params: text_only, images: vec![] },
        Job {
            params: edit("make it red", 7, &[("kohya", -0.3), ("lycoris_lokr", 1.0)]),
            images: vec![input("edit_square")?],
        },
    ])
}

fn together(pipeline: &mut Pipeline, jobs: [Job; 4]) -> Result<Vec<Pixels>> {
    let mut slots: Vec<Slot> = Vec::new();
    for job in jobs {
        let slot = pipeline.admit(job)?;
        advance_to_ready(pipeline, slot)?;
        slots.push(slot);
    }
    for _ in 0..3 {
        for outcome in pipeline.step(&slots) {
            outcome.result?;
        }
    }
    slots.into_iter().map(|slot| decode_job(pipeline, slot)).collect()
}

#[test]
fn jobs_with_adapters_beside_plain_ones_give_the_bytes_they_give_alone() -> Result<()> {
    let mut pipeline = pipeline()?;
    let mut alone = Vec::new();
    for job in jobs()? {
        alone.push(run(&mut pipeline, job)?.0);
    }
    let packed = together(&mut pipeline, jobs()?)?;
    for (index, (alone, packed)) in alone.iter().zip(&packed).enumerate() {
        ensure!(alone.rgb() == packed.rgb(), "the bytes of job {index} differ");
    }
    // A job without adapters is what it is on a server without any, and the others are not.
    let folder = repository("tests/golden/models/base/model");
    let mut bare = load_pipeline(&folder, &Manifest::released()?, &Target::cpu())?;
    for (index, (mut job, alone)) in jobs()?.into_iter().zip(&alone).enumerate() {
        let plain = job.params.loras.is_empty();
        job.params.loras.clear();
        let same = run(&mut bare, job)?.0.rgb() == alone.rgb();
        ensure!(same == plain, "job {index}: equal bytes without its adapters is {same}");
    }
    ensure!(alone[0].rgb() != alone[3].rgb(), "two strengths give the same bytes");
    Ok(())
}

/// Every kind at once, also on rows beyond the number that is changed at a time.
#[test]
fn a_sequence_has_the_velocity_in_a_batch_that_it_has_alone() -> Result<()> {
    let networks = Networks::load(&Target::cpu())?;
    let lists: [&[(&str, f32)]; 5] = [
        &[("kohya_dora", 0.7), ("bfl", 1.0)],
        &[],
        &[("comfyui_lokr", 1.0), ("kohya_dora_inputs", -1.0)],
        &[("bfl", -2.0)],
        &[("lycoris_loha", 1.0), ("comfyui_diff", 0.5), ("bfl_bias", 1.0)],
    ];
    let lists: Vec<Vec<Weighted>> = lists
        .iter()
        .map(|named| networks.adapters(named).map(|[transformer, _]| transformer))
        .collect::<Result<_>>()?;
    // So many of each that a block of rows ends inside a sequence.
    let mut batch: Vec<&[Weighted]> = Vec::new();
    for _ in 0..20 {
        batch.extend(lists.iter().map(Vec::as_slice));
    }
    let bits = |t: &Tensor| -> Result<Vec<u32>> {
        Ok(t.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
    };
    let alone: Vec<Tensor> = lists
        .iter()
        .map(|list| Ok(networks.velocities(&[list])?.remove(0)))
        .collect::<Result<_>>()?;
    for (index, packed) in networks.velocities(&batch)?.iter().enumerate() {
        let list = index % lists.len();
        ensure!(bits(packed)? == bits(&alone[list])?, "sequence {index}, adapters {list}");
    }
    Ok(())
}
