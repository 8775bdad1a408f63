//! One denoising step of many jobs: their tokens packed into one batch for the transformer, then
//! guidance and the Euler step of each.

use super::{job::Running, parts::Parts};
use crate::model::flux::Sequence;
use candle_core::{DType, Result, Tensor};

use super::job::{Denoising, Stage};

/// Training timesteps; the schedule's unit in diffusers.
const TIMESTEPS: f32 = 1000.0;

/// Steps every job of `jobs`, all of which are being denoised.
pub(super) fn step(parts: &Parts, jobs: &mut [&mut Running]) -> Result<()> {
    let inputs: Vec<Tensor> = jobs
        .iter()
        .filter_map(|job| job.denoising())
        .map(|d| input(d, parts))
        .collect::<Result<_>>()?;
    let mut sequences = Vec::new();
    for (running, image) in jobs.iter_mut().zip(&inputs) {
        let guidance = running.params.guidance_scale;
        let adapters = running.attached.transformer.as_slice();
        let Stage::Denoising(job) = &mut running.stage else { continue };
        // diffusers counts time in thousands and hands a thousandth of that to the model
        let time = job.sigmas[job.step] * TIMESTEPS / TIMESTEPS;
        let mut caches = job.caches.iter_mut();
        for conditioning in std::iter::once(&job.positive).chain(&job.negative) {
            sequences.push(Sequence {
                text: &conditioning.text,
                pooled: &conditioning.pooled,
                image,
                target: job.latents.dim(0)?,
                rope: &job.rope,
                time,
                guidance,
                adapters,
                cache: caches.next(),
            });
        }
    }
    let mut predictions = parts.transformer.forward(&mut sequences)?.into_iter();
    drop(sequences);
    for running in jobs {
        let scale = f64::from(running.params.true_cfg_scale);
        let Stage::Denoising(job) = &mut running.stage else { continue };
        let mut next = || match predictions.next() {
            Some(prediction) => prediction.to_dtype(DType::F32),
            None => candle_core::bail!("the transformer gave fewer predictions than sequences"),
        };
        let mut velocity = next()?;
        if job.negative.is_some() {
            let negative = next()?;
            velocity = (&negative + ((velocity - &negative)? * scale)?)?;
        }
        let (now, then) = (job.sigmas[job.step], job.sigmas[job.step + 1]);
        job.latents = (&job.latents + (&velocity * f64::from(then - now))?)?;
        if let Some(trace) = &mut running.trace {
            trace.rows(format!("velocity.{}", job.step), &velocity)?;
            trace.rows(format!("latents.{}", job.step), &job.latents)?;
        }
        job.velocity = Some(velocity);
        job.step += 1;
    }
    Ok(())
}

/// The target's latents, then the references', in the type of computation.
fn input(job: &Denoising, parts: &Parts) -> Result<Tensor> {
    let latents = job.latents.to_dtype(parts.target.dtype)?;
    match &job.references {
        Some(references) => Tensor::cat(&[&latents, references], 0), // (target + references, 64)
        None => Ok(latents),
    }
}
