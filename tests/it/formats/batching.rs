//! Quantised weights in a packed batch: jobs with adapters, with shortened steps and plain ones give the
//! bytes that they give alone.

use super::wide;
use crate::support::{
    advance_to_ready, copy, decode_job, load_pipeline, params, picture, repository,
};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, safetensors};
use darkroom::{
    app::ModelEntry,
    domain::{EditParams, Lora, Prompt, Size},
    engine::{Engine, Job, Slot},
    model::weights::{Part, Source, Target, Weights},
    pipeline::{LoraShelf, Pipeline},
};
use darkroom_kernels::quant::Format;
use std::{collections::HashMap, fs, path::Path, sync::Arc};

const STEPS: u32 = 6;

/// Two layers of `wide` changed at rank 4.
fn adapter(file: &Path) -> Result<()> {
    let matrix = |rows: usize, columns: usize| {
        let values = (0..rows * columns).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0);
        Tensor::from_vec(values.collect::<Vec<_>>(), (rows, columns), &Device::Cpu)
    };
    let mut tensors = HashMap::new();
    for (layer, inputs) in
        [("transformer_blocks.0.attn.to_q", 256), ("single_transformer_blocks.0.proj_out", 1280)]
    {
        tensors.insert(format!("transformer.{layer}.lora_A.weight"), matrix(4, inputs)?);
        tensors.insert(format!("transformer.{layer}.lora_B.weight"), matrix(256, 4)?);
    }
    Ok(safetensors::save(&tensors, file)?)
}

/// `wide` with its transformer in `format`, and an adapter `two`.
fn pipeline(place: &Path, format: Format, in_bytes: bool) -> Result<Pipeline> {
    let folder = place.join("model");
    copy(&wide::path("model"), &folder)?;
    wide::write(format, &folder.join("transformer.weights"))?;
    let released = fs::read_to_string(repository("models/flux1-kontext-dev.toml"))?;
    let whole = r#"transformer = { path = "transformer", format = "diffusers" }"#;
    ensure!(released.contains(whole), "the released manifest has another line");
    let file = r#"transformer = { path = "transformer.weights", format = "file", config = "transformer/config.json" }"#;
    fs::write(place.join("model.toml"), released.replacen(whole, file, 1))?;
    fs::create_dir_all(place.join("loras"))?;
    adapter(&place.join("loras/two.safetensors"))?;
    let entry = ModelEntry::find(folder.to_str().context("UTF-8")?)?;
    let target = Target { in_bytes, ..Target::cpu() };
    let mut pipeline = load_pipeline(&entry.folder, &entry.manifest, &target)?;
    pipeline.shelve(Arc::new(LoraShelf::new(&place.join("loras"))));
    Ok(pipeline)
}

/// Jobs with an adapter, with shortened steps, with both and true CFG, and with neither.
fn jobs() -> Result<[Job; 4]> {
    let input = || picture(&wide::path("cases/edit_square/input.png"));
    let edit = |prompt, seed, lora: f32, step_cache| EditParams {
        num_inference_steps: STEPS,
        seed,
        step_cache,
        exact_size: true,
        max_sequence_length: 32,
        loras: [Lora { name: "two".to_owned(), scale: lora }]
            .into_iter()
            .filter(|lora| lora.scale != 0.0)
            .collect(),
        ..params(prompt)
    };
    let guided = EditParams {
        negative_prompt: Some(Prompt::new("grain, wet street")),
        true_cfg_scale: 2.5,
        size: Some(Size::new(96, 48)),
        ..edit("a watercolor painting", 8, -0.5, 0.9)
    };
    let of_text = EditParams { size: Some(Size::new(48, 80)), ..edit("a mountain", 9, 0.0, 0.9) };
    Ok([
        Job { params: edit("make it red", 7, 1.0, 0.0), images: vec![input()?] },
        Job { params: of_text, images: vec![] },
        Job { params: guided, images: vec![input()?] },
        Job { params: edit("make it red", 7, 0.0, 0.0), images: vec![input()?] },
    ])
}

/// The bytes of jobs that step together, and the passes that were shortened.
fn run(pipeline: &mut Pipeline, jobs: Vec<Job>) -> Result<(Vec<Vec<u8>>, Vec<usize>)> {
    let mut slots: Vec<Slot> = Vec::new();
    for job in jobs {
        let slot = pipeline.admit(job)?;
        advance_to_ready(pipeline, slot)?;
        slots.push(slot);
    }
    for _ in 0..STEPS {
        for outcome in pipeline.step(&slots) {
            outcome.result?;
        }
    }
    let shortened = slots.iter().map(|&slot| pipeline.shortened(slot)).collect();
    let mut results = Vec::new();
    for slot in slots {
        results.push(decode_job(pipeline, slot)?.rgb().to_vec());
        pipeline.release(slot);
    }
    Ok((results, shortened))
}

#[test]
fn on_quantised_weights_jobs_of_all_kinds_give_their_own_bytes_in_one_batch() -> Result<()> {
    for (format, in_bytes) in [
        (Format::F32, false),
        (Format::Q8_0, false),
        (Format::Q4K, false),
        (Format::F8E4M3, false),
        (Format::Q4K, true),
    ] {
        let place = tempfile::tempdir()?;
        let mut pipeline = pipeline(place.path(), format, in_bytes)?;
        let (mut alone, mut shortened) = (Vec::new(), Vec::new());
        for job in jobs()? {
            let (mut results, mut counts) = run(&mut pipeline, vec![job])?;
            alone.append(&mut results);
            shortened.append(&mut counts);
        }
        println!("{}: {shortened:?} of {STEPS} passes were shortened", format.name());
        ensure!(shortened[1] > 0 && shortened[2] > 0 && shortened[0] == 0 && shortened[3] == 0);
        ensure!(alone[0] != alone[3], "{}: the adapter changes nothing", format.name());
        let (together, counts) = run(&mut pipeline, jobs()?.into())?;
        ensure!(counts == shortened, "{}: {counts:?} beside others", format.name());
        for (index, (alone, together)) in alone.iter().zip(&together).enumerate() {
            ensure!(alone == together, "{}: the bytes of job {index} differ", format.name());
        }
        ensure!(format_in(place.path())? == format, "the file is of another format");
    }
    Ok(())
}

/// The format that a large matrix of the written file is in.
fn format_in(place: &Path) -> Result<Format> {
    let file = place.join("model/transformer.weights");
    let weights = Weights::open(&Source::new(file, Part::Transformer), &Target::cpu())?;
    weights.format("transformer_blocks.0.ff.net.2.weight").context("a format")
}
