//! The memory plan: what is chosen for which room, that it changes no byte, and that what is said to be
//! given back is.

use crate::support::{advance_to_ready, copy, decode_job, params, repository};
use anyhow::{Context, Result, ensure};
use darkroom::{
    config::Manifest,
    domain::Pixels,
    engine::{Engine, Job},
    model::{
        ops::Ops,
        weights::{Part, Placement, Target},
    },
    pipeline::{Checkpoint, Pipeline, Plan, Room, TooSmall},
};
use std::path::Path;

const MIB: u64 = 1 << 20;

/// kontext-tiny in `folder`, opened.
fn open(folder: &Path, ops: Ops) -> Result<Checkpoint> {
    let manifest = Manifest::open(&repository("models/kontext-tiny.toml"))?;
    Ok(Checkpoint::open(folder, &manifest, &Target { ops, ..Target::cpu() })?)
}

fn tiny(ops: Ops) -> Result<Checkpoint> {
    open(&repository("models/kontext-tiny"), ops)
}

fn budget(bytes: u64) -> Room {
    Room { budget: Some(bytes), ..Room::ample() }
}

/// Where transformer, T5, CLIP and VAE are.
fn places(plan: &Plan) -> [Placement; 4] {
    [Part::Transformer, Part::T5, Part::Clip, Part::Vae].map(|part| plan.placement(part))
}

/// The plans for less and less memory, each different from the last, and why there is none below.
fn plans(checkpoint: &Checkpoint) -> Result<(Vec<Plan>, TooSmall)> {
    let ample = checkpoint.plan(Room::ample())?;
    let mut bytes = ample.weights + ample.cached + ample.usual.bytes;
    let mut plans = vec![ample];
    loop {
        match checkpoint.plan(budget(bytes)) {
            Ok(plan) => {
                let taken = plan.weights + plan.cached + plan.jobs;
                ensure!(taken == bytes, "{taken} of {bytes} are given away");
                ensure!(plan.jobs >= plan.usual.bytes, "no room for a usual edit: {plan:?}");
                if plans.last().map(places) != Some(places(&plan)) {
                    plans.push(plan);
                }
            }
            Err(error) => return Ok((plans, error)),
        }
        bytes -= MIB / 8;
    }
}

#[test]
fn with_less_memory_encoders_go_first_then_the_transformer_and_then_nothing_runs() -> Result<()> {
    use Placement::{Stored, Streamed, Unpacked};
    let (plans, error) = plans(&tiny(Ops::Own)?)?;
    let seen: Vec<_> = plans.iter().map(places).collect();
    println!("{seen:?}");
    // The encoders are small here: where they are read from is decided with the transformer's place.
    ensure!(
        seen.first() == Some(&[Unpacked; 4]) && seen.contains(&[Stored, Stored, Stored, Unpacked])
    );
    ensure!(seen.last() == Some(&[Streamed, Streamed, Stored, Unpacked]), "{seen:?}");
    ensure!(
        plans.windows(2).all(|two| two[1].weights + two[1].cached < two[0].weights + two[0].cached)
    );
    ensure!(error.weights + error.usual.bytes > error.budget, "{error:?}");
    let said = error.to_string();
    for part in ["memory.budget is ", "needs at least ", " for its weights", "raise it"] {
        ensure!(said.contains(part), "{part:?} is not in: {said}");
    }
    Ok(())
}

#[test]
fn without_a_budget_there_is_always_a_plan_and_most_of_what_is_free_is_used() -> Result<()> {
    let checkpoint = tiny(Ops::Own)?;
    let free = 4096 * MIB;
    let plan = checkpoint.plan(Room { free, total: 2 * free, ..Room::ample() })?;
    let taken = plan.weights + plan.cached + plan.jobs;
    ensure!(taken == (free as f64 * 0.8) as u64, "{taken} of {free}");
    ensure!(plan.whole == free, "a whole picture may take half of all, not {}", plan.whole);
    let none = checkpoint.plan(Room { free: 0, ..Room::ample() })?;
    ensure!(none.placement(Part::Transformer) == Placement::Streamed && none.jobs > 0, "{none:?}");
    let said = checkpoint.plan(Room { jobs: Some(7 * MIB), ..Room::ample() })?;
    ensure!(said.jobs == 7 * MIB && said.whole == 7 * MIB, "{said:?}");
    Ok(())
}

#[test]
fn several_engines_share_a_budget() {
    let room = Room { budget: Some(12), jobs: Some(5), ..Room::ample() }.split(3);
    assert_eq!((room.budget, room.jobs, room.free), (Some(4), Some(5), Room::ample().free / 3));
}

/// The bytes of an edit with two steps.
fn edit(pipeline: &mut Pipeline) -> Result<Vec<u8>> {
    let mut params = params("make it black and white");
    params.num_inference_steps = 2;
    let grey = Pixels::new(256, 256, vec![90; 3 * 256 * 256]).context("a picture")?;
    let job = Job { params, images: vec![grey] };
    let slot = pipeline.admit(job)?;
    advance_to_ready(pipeline, slot)?;
    for _ in 0..2 {
        for outcome in pipeline.step(&[slot]) {
            outcome.result?;
        }
    }
    let pixels = decode_job(pipeline, slot)?;
    pipeline.release(slot);
    Ok(pixels.rgb().to_vec())
}

/// The least budget in which the model runs.
fn least(checkpoint: &Checkpoint) -> Result<u64> {
    let error = checkpoint.plan(budget(1)).err().context("one byte is enough")?;
    Ok(error.weights + error.usual.bytes)
}

#[test]
fn no_plan_changes_a_byte() -> Result<()> {
    for ops in [Ops::Own, Ops::Stock] {
        let checkpoint = tiny(ops)?;
        let mut first = None;
        for room in [Room::ample(), budget(least(&checkpoint)?)] {
            let plan = checkpoint.plan(room)?;
            // A picture in the model's own size goes whole through the VAE in each of them.
            let bytes = edit(&mut Pipeline::load(&checkpoint, &plan, |_| {})?)?;
            ensure!(*first.get_or_insert(bytes.clone()) == bytes, "{ops:?}, {plan}: other bytes");
        }
    }
    Ok(())
}

/// Bytes that this process has of the mapped files in a folder.
#[cfg(target_os = "linux")]
fn mapped(folder: &Path) -> Result<u64> {
    let maps = std::fs::read_to_string("/proc/self/smaps")?;
    let folder = folder.canonicalize()?.display().to_string();
    let (mut here, mut sum) = (false, 0);
    for line in maps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if !first.ends_with(':') {
            here = line.contains(&folder);
        } else if here && first == "Rss:" {
            let kib = line.split_whitespace().nth(1).context("a number")?;
            sum += kib.parse::<u64>()? * 1024;
        }
    }
    Ok(sum)
}

#[cfg(target_os = "linux")]
#[test]
fn blocks_that_were_streamed_are_given_back_and_others_stay() -> Result<()> {
    // A copy, whose maps are those of no other test.
    let folder = tempfile::tempdir()?;
    copy(&repository("models/kontext-tiny"), folder.path())?;
    let checkpoint = open(folder.path(), Ops::Own)?;
    let folder = folder.path().join("transformer");
    let sizes = std::fs::read_dir(&folder)?.map(|file| Ok(file?.metadata()?.len()));
    let size: u64 = sizes.sum::<Result<_>>()?;
    let left = |place: Placement| -> Result<u64> {
        let (plans, _) = plans(&checkpoint)?;
        let plan = plans.iter().find(|plan| plan.placement(Part::Transformer) == place);
        let mut pipeline = Pipeline::load(&checkpoint, plan.context("such a plan")?, |_| {})?;
        edit(&mut pipeline)?;
        mapped(&folder)
    };
    // Streamed first: loading alone touches nothing of a matrix that stays in its file.
    let (streamed, stored) = (left(Placement::Streamed)?, left(Placement::Stored)?);
    println!(
        "{size} bytes: {streamed} of them in memory after a streamed edit, {stored} after another"
    );
    ensure!(streamed < size / 4 && stored > size / 4 * 3, "{streamed} and {stored} of {size}");
    Ok(())
}
