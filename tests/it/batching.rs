//! Equal bytes: a job's result does not depend on what it is packed with, nor its cost in calls.

use crate::support::{
    advance_to_ready, decode_job, load_pipeline, params, picture, repository, run,
};
use anyhow::{Context, Result, ensure};
use darkroom::{
    config::Manifest,
    domain::{EditParams, Pixels, Prompt, Size},
    engine::{Engine, EngineError, Job, Slot},
    model::weights::Target,
    pipeline::Pipeline,
};
use std::sync::atomic::Ordering;

fn load(model: &str, target: &Target) -> Result<Pipeline> {
    let folder = repository(&format!("tests/golden/models/{model}/model"));
    Ok(load_pipeline(&folder, &Manifest::released()?, target)?)
}

/// Three jobs of different sizes and lengths: an edit, one with true CFG, and one without a picture.
fn jobs() -> Result<[Job; 3]> {
    let input = |case: &str| {
        picture(&repository(&format!("tests/golden/models/base/cases/{case}/input.png")))
    };
    let plain = |prompt, steps, seed| EditParams {
        num_inference_steps: steps,
        seed,
        exact_size: true,
        ..params(prompt)
    };
    let square = plain("make it black and white", 4, 7);
    let guided = EditParams {
        negative_prompt: Some(Prompt::new("grain, wet street")),
        true_cfg_scale: 2.5,
        size: Some(Size::new(96, 48)),
        max_sequence_length: 64,
        ..plain("turn the photo into a watercolor painting", 3, 8)
    };
    let text_only = EditParams {
        size: Some(Size::new(40, 72)), // generated at 48x80
        guidance_scale: 4.0,
        max_sequence_length: 20,
        ..plain("a snowy mountain", 2, 9)
    };
    Ok([
        Job { params: square, images: vec![input("edit_square")?] },
        Job { params: guided, images: vec![input("edit_portrait")?, input("edit_square")?] },
        Job { params: text_only, images: vec![] },
    ])
}

fn step(pipeline: &mut Pipeline, slots: &[Slot]) -> Result<()> {
    for outcome in pipeline.step(slots) {
        outcome.result?;
    }
    Ok(())
}

/// The jobs together: the second and third join while the first is under way.
fn together(pipeline: &mut Pipeline, jobs: [Job; 3]) -> Result<[Pixels; 3]> {
    let [a, b, c] = jobs;
    let a = pipeline.admit(a)?;
    advance_to_ready(pipeline, a)?;
    step(pipeline, &[a])?;
    let b = pipeline.admit(b)?;
    advance_to_ready(pipeline, b)?;
    step(pipeline, &[b, a])?;
    let c = pipeline.admit(c)?;
    advance_to_ready(pipeline, c)?;
    step(pipeline, &[c, a, b])?;
    step(pipeline, &[a, b, c])?;
    Ok([decode_job(pipeline, a)?, decode_job(pipeline, b)?, decode_job(pipeline, c)?])
}

#[test]
fn jobs_in_one_packed_batch_give_the_bytes_they_give_alone() -> Result<()> {
    for model in ["base", "wide", "noguide"] {
        let mut pipeline = load(model, &Target::cpu())?;
        let mut alone = Vec::new();
        for job in jobs()? {
            alone.push(run(&mut pipeline, job)?.0);
        }
        let packed = together(&mut pipeline, jobs()?)?;
        for (index, (alone, packed)) in alone.iter().zip(&packed).enumerate() {
            let size = (packed.width(), packed.height());
            ensure!(size == (alone.width(), alone.height()), "{model}, job {index}: {size:?}");
            ensure!(alone.rgb() == packed.rgb(), "{model}: the bytes of job {index} differ");
        }
        ensure!(
            alone[0].rgb() != alone[1].rgb() && (alone[2].width(), alone[2].height()) == (40, 72)
        );
    }
    Ok(())
}

#[test]
fn a_job_whose_steps_are_shortened_gives_its_own_bytes_beside_jobs_that_run_in_full() -> Result<()>
{
    const STEPS: u32 = 12;
    let jobs = || -> Result<[Job; 3]> {
        let [square, guided, plain] = jobs()?;
        let steps = |job: Job, step_cache| {
            let num_inference_steps = STEPS;
            let params = EditParams { num_inference_steps, step_cache, ..job.params };
            Job { params, images: job.images }
        };
        Ok([steps(square, 0.6), steps(guided, 0.5), steps(plain, 0.0)])
    };
    for model in ["base", "wide", "noguide"] {
        let mut pipeline = load(model, &Target::cpu())?;
        let (mut alone, mut counts) = (Vec::new(), Vec::new());
        for job in jobs()? {
            let slot = pipeline.admit(job)?;
            advance_to_ready(&mut pipeline, slot)?;
            for _ in 0..STEPS {
                step(&mut pipeline, &[slot])?;
            }
            counts.push(pipeline.shortened(slot));
            alone.push(decode_job(&mut pipeline, slot)?);
        }
        println!("{model}: {counts:?} passes shortened");
        let [square, guided, plain] = counts[..] else { anyhow::bail!("three jobs") };
        ensure!(square > 2 && square < 12 && guided > 0 && guided < 24 && plain == 0);

        let mut slots = Vec::new();
        for job in jobs()? {
            let slot = pipeline.admit(job)?;
            advance_to_ready(&mut pipeline, slot)?;
            slots.push(slot);
        }
        for _ in 0..STEPS {
            step(&mut pipeline, &slots)?;
        }
        for (index, (slot, alone)) in slots.into_iter().zip(&alone).enumerate() {
            ensure!(pipeline.shortened(slot) == counts[index], "{model}, job {index}");
            let packed = decode_job(&mut pipeline, slot)?;
            ensure!(alone.rgb() == packed.rgb(), "{model}: the bytes of job {index} differ");
        }
    }
    Ok(())
}

#[test]
fn a_step_of_three_jobs_makes_as_many_matrix_products_as_a_step_of_one() -> Result<()> {
    let target = Target::cpu();
    let mut pipeline = load("base", &target)?;
    let mut slots = Vec::new();
    for job in jobs()? {
        let slot = pipeline.admit(job)?;
        advance_to_ready(&mut pipeline, slot)?;
        slots.push(slot);
    }
    let mut calls = |slots: &[Slot]| -> Result<u64> {
        let before = target.linear_calls.load(Ordering::Relaxed);
        step(&mut pipeline, slots)?;
        Ok(target.linear_calls.load(Ordering::Relaxed) - before)
    };
    let one = calls(&slots[..1])?;
    let three = calls(&slots)?;
    println!("{one} matrix products for one job, {three} for three");
    // x_embedder, context_embedder, 3 embedders of 2 layers; 2 double blocks of 2 modulations,
    // 2 * (q, k, v, out, 2 of the feed-forward); 3 single blocks of 6; norm_out, proj_out.
    ensure!(one == 2 + 6 + 2 * (2 + 12) + 3 * 6 + 2, "a step of one job made {one} products");
    ensure!(three == one, "a step of three jobs made {three} products, of one {one}");
    Ok(())
}

#[test]
fn a_slot_answers_for_its_phase() -> Result<()> {
    let mut pipeline = load("base", &Target::cpu())?;
    let [job, ..] = jobs()?;
    let slot = pipeline.admit(job)?;
    let unknown = Slot(slot.0 + 100);
    let results = pipeline.step(&[slot, unknown, slot]);
    ensure!(results.len() == 2, "a slot named twice is answered once");
    for outcome in results {
        match outcome.result {
            Err(EngineError::WrongPhase { slot: s, .. }) if s == slot => {}
            Err(EngineError::UnknownSlot(s)) if s == unknown => {}
            other => anyhow::bail!("{:?}: {other:?}", outcome.slot),
        }
    }
    advance_to_ready(&mut pipeline, slot)?;
    step(&mut pipeline, &[slot])?;
    pipeline.release(slot);
    pipeline.release(slot);
    let error =
        pipeline.advance(slot, std::time::Duration::ZERO).err().context("it was released")?;
    ensure!(matches!(error, EngineError::UnknownSlot(_)), "{error}");
    Ok(())
}

#[test]
fn wrong_parameters_are_refused_with_field_value_and_remedy() -> Result<()> {
    let mut pipeline = load("base", &Target::cpu())?;
    let good = params("make it black and white");
    let cases: [(&str, EditParams); 8] = [
        (
            "prompt is empty, say what to change in the picture",
            EditParams { prompt: Prompt::new(" "), ..good.clone() },
        ),
        (
            "prompt is 32001 characters long, at most 32000 are allowed",
            EditParams { prompt: Prompt::new("x".repeat(32_001)), ..good.clone() },
        ),
        (
            "guidance_scale is NaN, expected a number from 0 to 100",
            EditParams { guidance_scale: f32::NAN, ..good.clone() },
        ),
        (
            "true_cfg_scale is -1, expected a number from 0 to 100",
            EditParams { true_cfg_scale: -1.0, ..good.clone() },
        ),
        (
            "num_inference_steps is 0, expected 1 to 1000",
            EditParams { num_inference_steps: 0, ..good.clone() },
        ),
        (
            "max_sequence_length is 513, expected 1 to 512",
            EditParams { max_sequence_length: 513, ..good.clone() },
        ),
        (
            "width is 8, expected 16 to 4096 pixels",
            EditParams { size: Some(Size::new(8, 64)), ..good.clone() },
        ),
        (
            "height is 5000, expected 16 to 4096 pixels",
            EditParams { size: Some(Size::new(64, 5000)), ..good },
        ),
    ];
    for (expected, params) in cases {
        let error = pipeline.admit(Job { params, images: vec![] }).err().context(expected)?;
        ensure!(error.to_string() == expected, "{error}");
    }
    Ok(())
}
