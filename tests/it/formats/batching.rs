//! Quantised weights in a packed batch: jobs with adapters, with shortened steps and plain ones give the
//! bytes that they give alone.

use super::{
    quantise::quantise,
    write::{Tensor as Written, gguf},
};
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
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::Arc,
};

const STEPS: u32 = 6;

/// Writes the transformer in `from` to `to`, its matrices in `format`; those of 8-bit floats with a
/// scale each, as ComfyUI has them.
fn transformer(from: &Path, format: Format, to: &Path) -> Result<()> {
    let mut written = Vec::new();
    for shard in 1..=3 {
        let name = format!("diffusion_pytorch_model-0000{shard}-of-00003.safetensors");
        for (name, tensor) in safetensors::load(from.join(name), &Device::Cpu)? {
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            let shape = tensor.dims().iter().map(|&dim| dim as u64).collect();
            let matrix = tensor.rank() == 2 && tensor.dim(1)?.is_multiple_of(format.block());
            let plain = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
            let (kind, bytes) = match format {
                Format::Q8_0 if matrix => (8, quantise(format, &values)),
                Format::Q4K if matrix => (12, quantise(format, &values)),
                Format::F8E4M3 if matrix => {
                    let largest = values.iter().fold(0f32, |most, x| most.max(x.abs()));
                    let scale = largest / 448.0;
                    let scaled: Vec<f32> = values.iter().map(|x| x / scale).collect();
                    let layer = name.strip_suffix(".weight").context("a matrix")?;
                    let (name, bytes) = (format!("{layer}.scale_weight"), plain(&[scale]));
                    written.push(Written { name, shape: vec![], kind: 0, bytes });
                    (1, quantise(format, &scaled))
                }
                _ => (0, plain(&values)),
            };
            written.push(Written { name, shape, kind, bytes });
        }
    }
    let bytes = if format == Format::F8E4M3 { float8(&written)? } else { gguf(&[], &written) };
    Ok(fs::write(to, bytes)?)
}

/// A file of safetensors: kind 0 is f32, 1 are 8-bit floats.
fn float8(tensors: &[Written]) -> Result<Vec<u8>> {
    let (mut header, mut data) = (BTreeMap::new(), Vec::new());
    for Written { name, shape, kind, bytes } in tensors {
        let dtype = if *kind == 0 { "F32" } else { "F8_E4M3" };
        let place = [data.len(), data.len() + bytes.len()];
        let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": place });
        header.insert(name, entry);
        data.extend_from_slice(bytes);
    }
    let header = serde_json::to_vec(&header)?;
    Ok([&(header.len() as u64).to_le_bytes()[..], &header, &data].concat())
}

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
fn pipeline(place: &Path, format: Format) -> Result<Pipeline> {
    let (folder, wide) = (place.join("model"), repository("tests/golden/models/wide/model"));
    copy(&wide, &folder)?;
    transformer(&wide.join("transformer"), format, &folder.join("transformer.weights"))?;
    let released = fs::read_to_string(repository("models/flux1-kontext-dev.toml"))?;
    let whole = r#"transformer = { path = "transformer", format = "diffusers" }"#;
    ensure!(released.contains(whole), "the released manifest has another line");
    let file = r#"transformer = { path = "transformer.weights", format = "file", config = "transformer/config.json" }"#;
    fs::write(place.join("model.toml"), released.replacen(whole, file, 1))?;
    fs::create_dir_all(place.join("loras"))?;
    adapter(&place.join("loras/two.safetensors"))?;
    let entry = ModelEntry::find(folder.to_str().context("UTF-8")?)?;
    let mut pipeline = load_pipeline(&entry.folder, &entry.manifest, &Target::cpu())?;
    pipeline.shelve(Arc::new(LoraShelf::new(&place.join("loras"))));
    Ok(pipeline)
}

/// Jobs with an adapter, with shortened steps, with both and true CFG, and with neither.
fn jobs() -> Result<[Job; 4]> {
    let input = || picture(&repository("tests/golden/models/wide/cases/edit_square/input.png"));
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
    for format in [Format::F32, Format::Q8_0, Format::Q4K, Format::F8E4M3] {
        let place = tempfile::tempdir()?;
        let mut pipeline = pipeline(place.path(), format)?;
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
