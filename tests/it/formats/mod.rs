//! Weights in every format: files of independent writers (tests/golden/formats/make.py) against what
//! the reference makes of them, files that lie, and how much each format loses.

mod batching;
mod edit;
mod fuzz;
mod hostile;
mod parts;
mod quality;
mod quantise;
mod wide;
mod write;

use crate::support::repository;
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, safetensors};
use darkroom::model::{
    flux::{FluxTransformer, Sequence},
    ops::Ops,
    rope::Rope,
    weights::{ConfigFile, Part, Placement, Source, Target, Weights},
};
use std::{collections::HashMap, path::PathBuf};

/// Relative L2 between a tensor and the reference's.
const RELATIVE: f64 = 1e-4;

fn golden(name: &str) -> PathBuf {
    repository("tests/golden/formats").join(name)
}

fn goldens() -> Result<HashMap<String, Tensor>> {
    Ok(safetensors::load(golden("golden.safetensors"), &Device::Cpu)?)
}

/// |found - expected| / |expected|.
fn distance(found: &Tensor, expected: &Tensor) -> Result<f64> {
    ensure!(found.shape() == expected.shape(), "{found:?} is not of {expected:?}");
    let l2 = |t: &Tensor| -> Result<f64> {
        Ok(t.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt())
    };
    Ok(l2(&(found - expected)?)? / l2(expected)?)
}

/// The ways to compute: own kernels and candle's operations, with weights everywhere they can be.
fn ways() -> [(Ops, Placement); 6] {
    let places = [Placement::Unpacked, Placement::Stored, Placement::Streamed];
    let [a, b, c] = places.map(|place| (Ops::Own, place));
    let [d, e, f] = places.map(|place| (Ops::Stock, place));
    [a, b, c, d, e, f]
}

/// What `transformer` predicts for the golden's inputs of `model` at time 0.7.
fn velocity(
    transformer: &FluxTransformer,
    inputs: &HashMap<String, Tensor>,
    model: &str,
) -> Result<Tensor> {
    let input = |name: &str| inputs.get(&format!("{model}.{name}")).context("an input");
    let ids: Vec<Vec<f32>> = input("img_ids")?.to_vec2()?;
    let ids: Vec<[f64; 3]> = ids.iter().map(|id| [id[0], id[1], id[2]].map(f64::from)).collect();
    let rope = Rope::new(&ids, transformer.config().axes_dims_rope, &Device::Cpu)?;
    let sequence = Sequence {
        text: input("text")?,
        pooled: input("pooled")?,
        image: input("hidden")?,
        target: ids.len(),
        rope: &rope,
        time: 0.7,
        guidance: 2.5,
        cache: None,
        adapters: &[],
    };
    transformer.forward(&mut [sequence])?.pop().context("one sequence")
}

fn transformer(
    file: &str,
    config: &str,
    (ops, placement): (Ops, Placement),
) -> Result<FluxTransformer> {
    let target = Target { ops, ..Target::cpu() };
    let weights = Weights::open(&Source::new(golden(file), Part::Transformer), &target)?;
    Ok(FluxTransformer::load(&ConfigFile::open(&golden(config))?, &weights.place(placement))?)
}

/// Files of a transformer, the model that each is of, and its configuration.
const TRANSFORMERS: [(&str, &str, &str); 6] = [
    ("all-in-one.safetensors", "tiny", "transformer.json"),
    ("flux-fp8.safetensors", "tiny", "transformer.json"),
    ("flux-fp8-scaled.safetensors", "tiny", "transformer.json"),
    ("flux-fp8-rows.safetensors", "tiny", "transformer.json"),
    ("flux-Q8_0.gguf", "tiny", "transformer.json"),
    ("mixed.gguf", "mixed", "mixed.json"),
];

#[test]
fn a_transformer_of_every_format_gives_what_its_dequantised_weights_give() -> Result<()> {
    let inputs = goldens()?;
    for (file, model, config) in TRANSFORMERS {
        let expected = inputs.get(&format!("velocity.{file}")).context("a velocity")?;
        let mut found_by = Vec::new();
        for way in ways() {
            let found = velocity(&transformer(file, config, way)?, &inputs, model)?;
            let distance = distance(&found, expected)?;
            println!("{file}, {way:?}: {distance:.1e} from the reference");
            ensure!(distance < RELATIVE, "{file}, {way:?}: {distance:e}");
            found_by.push(found.flatten_all()?.to_vec1::<f32>()?);
        }
        for of_ops in found_by.chunks(3) {
            let same = of_ops.iter().all(|found| *found == of_ops[0]);
            ensure!(same, "{file}: other bytes from the file than from copies");
        }
    }
    Ok(())
}

#[test]
fn in_bytes_a_transformer_is_within_35_decibels_of_its_dequantised_weights() -> Result<()> {
    let inputs = goldens()?;
    for (file, model, config) in TRANSFORMERS {
        let expected = inputs.get(&format!("velocity.{file}")).context("a velocity")?;
        let target = Target { in_bytes: true, ..Target::cpu() };
        let weights = Weights::open(&Source::new(golden(file), Part::Transformer), &target)?;
        let config = ConfigFile::open(&golden(config))?;
        let transformer = FluxTransformer::load(&config, &weights)?;
        let distance = distance(&velocity(&transformer, &inputs, model)?, expected)?;
        let decibels = -20.0 * distance.log10();
        println!("{file}: {decibels:.1} dB");
        // Plain floats are multiplied as they are.
        let plain = file == "all-in-one.safetensors";
        ensure!(decibels >= 35.0 && plain == (distance < RELATIVE), "{file}: {decibels:.1} dB");
    }
    Ok(())
}
