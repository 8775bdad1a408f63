//! How much each format loses: the velocity of the golden model `wide` against that of its f32
//! weights. The table stands in docs/formats.md.

use super::{
    quantise::quantise,
    write::{Tensor as Written, gguf},
};
use crate::support::repository;
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, safetensors};
use darkroom::model::{
    flux::{FluxTransformer, Sequence},
    rope::Rope,
    weights::{ConfigFile, Part, Source, Target, Weights},
};
use darkroom_kernels::quant::{Format, dequantize};
use std::{collections::HashMap, path::Path};

/// Each format, ggml's number of it, and the least signal to noise in decibels. Of 8-bit floats
/// ggml knows nothing; they are written as what they dequantise to.
const FORMATS: [(Format, u32, f64); 5] = [
    (Format::Q8_0, 8, 40.0),
    (Format::Q6K, 14, 29.0),
    (Format::Q5K, 13, 23.0),
    (Format::F8E4M3, 0, 24.0),
    (Format::Q4K, 12, 17.0),
];

fn wide(path: &str) -> std::path::PathBuf {
    repository("tests/golden/models/wide").join(path)
}

/// The transformer's tensors in f32.
fn tensors() -> Result<HashMap<String, Tensor>> {
    let mut all = HashMap::new();
    for shard in 1..=3 {
        let name = format!("diffusion_pytorch_model-0000{shard}-of-00003.safetensors");
        let path = wide("model/transformer").join(name);
        all.extend(safetensors::load(path, &Device::Cpu)?);
    }
    Ok(all)
}

/// The transformer in `source` at the first step of an edit.
fn velocity(source: &Path) -> Result<Tensor> {
    let inputs = safetensors::load(wide("cases/edit_square/golden.safetensors"), &Device::Cpu)?;
    let input = |name: &str| inputs.get(name).with_context(|| name.to_owned());
    let rows = |t: &Tensor| if t.rank() == 3 { t.squeeze(0) } else { Ok(t.clone()) };
    let noise = rows(input("noise")?)?;
    let image = Tensor::cat(&[&noise, &rows(input("reference_latents")?)?], 0)?;
    let ids: Vec<Vec<f32>> = input("img_ids")?.to_dtype(DType::F32)?.to_vec2()?;
    let ids: Vec<[f64; 3]> = ids.iter().map(|id| [id[0], id[1], id[2]].map(f64::from)).collect();
    let rope = Rope::new(&ids, [16, 56, 56], &Device::Cpu)?;
    let weights = Weights::open(&Source::new(source, Part::Transformer), &Target::cpu())?;
    let config = ConfigFile::open(&wide("model/transformer/config.json"))?;
    let sequence = Sequence {
        text: &rows(input("prompt_embeds")?)?,
        pooled: input("pooled_embeds")?,
        image: &image,
        target: noise.dim(0)?,
        rope: &rope,
        time: input("sigmas")?.to_vec1::<f32>()?[0],
        guidance: 2.5,
        cache: None,
        adapters: &[],
    };
    let velocity = FluxTransformer::load(&config, &weights)?.forward(&mut [sequence])?;
    velocity.into_iter().next().context("one sequence")
}

#[test]
fn a_format_loses_no_more_than_its_rounding() -> Result<()> {
    let exact = velocity(&wide("model/transformer"))?;
    let tensors = tensors()?;
    let place = tempfile::tempdir()?;
    println!("| format | signal to noise of the velocity |\n| --- | --- |");
    for (format, kind, least) in FORMATS {
        let mut written = Vec::new();
        for (name, tensor) in &tensors {
            let mut values = tensor.flatten_all()?.to_vec1::<f32>()?;
            let matrix = tensor.rank() == 2 && tensor.dim(1)?.is_multiple_of(format.block());
            let plain = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
            let (kind, bytes) = match format {
                _ if !matrix => (0, plain(&values)),
                Format::F8E4M3 => {
                    dequantize(format, &quantise(format, &values), &mut values);
                    (0, plain(&values))
                }
                _ => (kind, quantise(format, &values)),
            };
            let shape = tensor.dims().iter().map(|&dim| dim as u64).collect();
            written.push(Written { name: name.clone(), shape, kind, bytes });
        }
        let path = place.path().join(format.name());
        std::fs::write(&path, gguf(&[], &written))?;
        let noise = super::distance(&velocity(&path)?, &exact)?;
        let decibels = -20.0 * noise.log10();
        println!("| {} | {decibels:.1} dB |", format.name());
        ensure!(decibels >= least, "{}: {decibels:.1} dB, expected {least}", format.name());
    }
    Ok(())
}
