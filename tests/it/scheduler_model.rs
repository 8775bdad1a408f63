//! The scheduler over the real pipeline, with a small model of the released architecture; and what
//! the pipeline says to a scheduler: previews and costs.

use crate::support::{advance_to_ready, load_pipeline, params, repository, run};
use anyhow::{Context, Result, bail, ensure};
use darkroom::{
    config::Manifest,
    domain::{EditParams, Pixels, Prompt, Size},
    engine::{Cost, Engine, Job, JobShape, PREVIEW_SIDE},
    model::weights::Target,
    pipeline::Pipeline,
    scheduler::{
        BuildError, Factory, Limits, Outcome, Priority, Request, Scheduler, SystemClock, User,
        spawn, spawn_all,
    },
};
use std::{sync::Arc, time::Duration};

fn load() -> Result<Pipeline> {
    let folder = repository("tests/golden/models/base/model");
    Ok(load_pipeline(&folder, &Manifest::released()?, &Target::cpu())?)
}

fn gradient(width: u32, height: u32) -> Option<Pixels> {
    let rgb = (0..width * height * 3).map(|i| (i * 7 % 251) as u8).collect();
    Pixels::new(width, height, rgb)
}

/// A job whose references have these sizes, at their own size.
fn job(seed: u64, steps: u32, prompt: &str, images: &[(u32, u32)]) -> Job {
    let params =
        EditParams { seed, num_inference_steps: steps, exact_size: true, ..params(prompt) };
    Job { params, images: images.iter().filter_map(|&(w, h)| gradient(w, h)).collect() }
}

fn jobs() -> Vec<Job> {
    let mut guided = job(2, 3, "turn the photo into a watercolor painting", &[(96, 48), (32, 32)]);
    guided.params.negative_prompt = Some(Prompt::new("grain"));
    guided.params.true_cfg_scale = 2.0;
    let mut from_text = job(3, 5, "a snowy mountain", &[]);
    from_text.params.size = Some(Size::new(40, 72));
    vec![
        job(1, 6, "make it black and white", &[(64, 64)]),
        guided,
        from_text,
        job(4, 4, "make it look like night", &[(128, 64)]),
        job(5, 8, "foggy", &[(48, 80)]),
    ]
}

fn limits() -> Limits {
    Limits {
        jobs: 8,
        jobs_per_user: 4,
        tokens: 100_000,
        memory: 1 << 32,
        waiting: 64,
        patience: Duration::from_secs(60),
        remembered: 64,
    }
}

fn factory() -> Factory {
    Box::new(|| Ok::<_, BuildError>(Box::new(load()?) as Box<dyn Engine>))
}

/// Runs each of the jobs alone, then all of them at once through the scheduler, and compares.
fn compare(scheduler: &Scheduler) -> Result<()> {
    let mut pipeline = load()?;
    let mut alone = Vec::new();
    for job in jobs() {
        alone.push(run(&mut pipeline, job)?.0);
    }
    let mut handles = Vec::new();
    for (index, job) in jobs().into_iter().enumerate() {
        let user = User::new(["ann", "bob"][index % 2]);
        let priority = Priority::Interactive;
        let request = Request { user, priority, job, cancel_on_disconnect: false };
        handles.push(scheduler.submit(request)?);
    }
    for (index, (handle, alone)) in handles.into_iter().zip(&alone).enumerate() {
        match handle.wait() {
            Outcome::Done(pixels) => ensure!(pixels == *alone, "the bytes of job {index} differ"),
            other => bail!("job {index}: {other:?}"),
        }
    }
    Ok(())
}

#[test]
fn jobs_of_five_sizes_through_the_scheduler_give_the_bytes_they_give_alone() -> Result<()> {
    let scheduler = spawn(factory(), limits(), Arc::new(SystemClock::start()))?;
    compare(&scheduler)?;
    let stats = scheduler.stats();
    let (steps, mean) = (stats.batch_jobs.count(), stats.batch_jobs.mean());
    println!("{steps} steps of {mean:.2} jobs, {:.1} ms each", 1e3 * stats.step_seconds.mean());
    ensure!(mean > 1.0, "nothing was packed");
    Ok(())
}

#[test]
fn jobs_on_two_engines_give_the_bytes_they_give_alone() -> Result<()> {
    let engines = ["cpu:0", "cpu:1"].map(|name| (name.to_owned(), factory()));
    let scheduler = spawn_all(engines.into(), limits(), Arc::new(SystemClock::start()))?;
    compare(&scheduler)?;
    let steps: Vec<u64> = scheduler.stats().engines.iter().map(|engine| engine.steps).collect();
    println!("steps of each engine: {steps:?}");
    ensure!(steps.iter().all(|steps| *steps > 0), "one had nothing to do: {steps:?}");
    Ok(())
}

#[test]
fn a_preview_is_the_end_of_the_last_steps_direction_in_the_manifests_colours() -> Result<()> {
    let mut pipeline = load()?;
    let slot = pipeline.admit(job(1, 4, "make it black and white", &[(64, 48)]))?;
    pipeline.trace(slot);
    ensure!(pipeline.preview(slot).is_none(), "nothing is there to show");
    advance_to_ready(&mut pipeline, slot)?;
    ensure!(pipeline.preview(slot).is_none(), "no step was done");
    pipeline.step(&[slot]);
    let shown = pipeline.preview(slot).context("a preview after a step")?;
    ensure!((shown.width(), shown.height()) == (8, 6), "{shown:?}");

    // The same by hand: tokens of 2x2 latent pixels, channels outermost within a token.
    let trace = pipeline.take_trace(slot).context("it was traced")?;
    let numbers = |name: &str| -> Result<Vec<f32>> {
        Ok(trace.get(name).context(name.to_owned())?.flatten_all()?.to_vec1()?)
    };
    let (latents, velocity) = (numbers("latents.0")?, numbers("velocity.0")?);
    let sigma = numbers("sigmas")?[1];
    let colours = Manifest::released()?.preview;
    for (at, found) in shown.rgb().iter().enumerate() {
        let (x, y, channel) = (at / 3 % 8, at / 24, at % 3);
        let mut value = f64::from(colours.bias[channel]);
        for (latent, row) in colours.matrix.iter().enumerate() {
            let token = y / 2 * 4 + x / 2;
            let index = token * 64 + latent * 4 + y % 2 * 2 + x % 2;
            let clean = f64::from(latents[index]) - f64::from(sigma) * f64::from(velocity[index]);
            value += clean * f64::from(row[channel]);
        }
        let expected = (value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0;
        ensure!((expected - f64::from(*found)).abs() < 0.51, "byte {at}: {found}, not {expected}");
    }
    // At the last step there is no way left: the latents themselves are shown.
    for _ in 0..3 {
        pipeline.step(&[slot]);
    }
    ensure!(pipeline.preview(slot).is_some());
    pipeline.advance(slot, Duration::ZERO)?;
    ensure!(pipeline.preview(slot).is_none(), "it is being decoded");
    pipeline.release(slot);
    ensure!(pipeline.preview(slot).is_none());
    Ok(())
}

#[test]
fn a_preview_has_at_most_256_pixels_a_side() -> Result<()> {
    let mut pipeline = load()?;
    let mut wide = job(1, 1, "a snowy mountain", &[]);
    wide.params.size = Some(Size::new(2560, 16));
    let slot = pipeline.admit(wide)?;
    advance_to_ready(&mut pipeline, slot)?;
    pipeline.step(&[slot]);
    let shown = pipeline.preview(slot).context("a preview after a step")?;
    ensure!((shown.width(), shown.height()) == (PREVIEW_SIDE, 2), "{shown:?}");
    Ok(())
}

fn cost(pipeline: &Pipeline, job: &Job) -> Result<Cost> {
    Ok(pipeline.cost(&JobShape { params: &job.params, images: &job.sizes() })?)
}

#[test]
fn a_cost_counts_tokens_and_grows_with_all_that_makes_a_job_larger() -> Result<()> {
    let pipeline = load()?;
    let base = job(1, 10, "foggy", &[(256, 256)]);
    let plain = cost(&pipeline, &base)?;
    println!("{plain:?}");
    // 32 of text, 16 * 16 of the target, as many of the reference.
    ensure!(plain.tokens == 32 + 2 * 256 && plain.steps == 10);
    ensure!(plain.before > 0 && plain.step > 0 && plain.after > 0);
    ensure!(plain.memory > 3 * 256 * 256 && plain.peak > 0);
    let mut guided = base.clone();
    guided.params.negative_prompt = Some(Prompt::new("grain"));
    guided.params.true_cfg_scale = 2.0;
    let guided = cost(&pipeline, &guided)?;
    ensure!(guided.tokens == 2 * plain.tokens && guided.step.abs_diff(2 * plain.step) <= 1);
    let two = cost(&pipeline, &job(1, 10, "foggy", &[(256, 256), (256, 256)]))?;
    ensure!(two.tokens == plain.tokens + 256 && two.before > plain.before);
    let large = cost(&pipeline, &job(1, 10, "foggy", &[(512, 512)]))?;
    ensure!(large.step > 4 * plain.step, "attention grows with the square of the tokens");
    ensure!(large.after >= 4 * plain.after && large.most() > 3 * plain.most());
    // A shape is refused for what a job is refused for, and the widest one does not overflow.
    let mut wrong = base;
    wrong.params.guidance_scale = -1.0;
    ensure!(
        cost(&pipeline, &wrong).is_err_and(|error| error.to_string().contains("guidance_scale"))
    );
    let params = EditParams { exact_size: true, ..params("foggy") };
    let images = [Size::new(u32::MAX, u32::MAX); 9];
    ensure!(pipeline.cost(&JobShape { params: &params, images: &images[..8] }).is_ok());
    ensure!(pipeline.cost(&JobShape { params: &params, images: &images }).is_err());
    Ok(())
}
