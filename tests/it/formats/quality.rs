//! How much each format loses: the velocity of the golden model `wide` against that of its f32
//! weights. The table stands in docs/formats.md.

use super::wide;
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, safetensors};
use darkroom::model::{
    flux::{FluxTransformer, Sequence},
    rope::Rope,
    weights::{ConfigFile, Part, Source, Target, Weights},
};
use darkroom_kernels::quant::Format;
use std::path::Path;

/// Each format, and the least signal to noise in decibels.
const FORMATS: [(Format, f64); 5] = [
    (Format::Q8_0, 40.0),
    (Format::Q6K, 29.0),
    (Format::Q5K, 23.0),
    (Format::F8E4M3, 24.0),
    (Format::Q4K, 17.0),
];

/// The transformer in `source` at the first step of an edit.
fn velocity(source: &Path, target: &Target) -> Result<Tensor> {
    let inputs =
        safetensors::load(wide::path("cases/edit_square/golden.safetensors"), &Device::Cpu)?;
    let input = |name: &str| inputs.get(name).with_context(|| name.to_owned());
    let rows = |t: &Tensor| if t.rank() == 3 { t.squeeze(0) } else { Ok(t.clone()) };
    let noise = rows(input("noise")?)?;
    let image = Tensor::cat(&[&noise, &rows(input("reference_latents")?)?], 0)?;
    let ids: Vec<Vec<f32>> = input("img_ids")?.to_dtype(DType::F32)?.to_vec2()?;
    let ids: Vec<[f64; 3]> = ids.iter().map(|id| [id[0], id[1], id[2]].map(f64::from)).collect();
    let rope = Rope::new(&ids, [16, 56, 56], &Device::Cpu)?;
    let weights = Weights::open(&Source::new(source, Part::Transformer), target)?;
    let config = ConfigFile::open(&wide::path("model/transformer/config.json"))?;
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
    let (cpu, in_bytes) = (Target::cpu(), Target { in_bytes: true, ..Target::cpu() });
    let exact = velocity(&wide::path("model/transformer"), &cpu)?;
    let place = tempfile::tempdir()?;
    println!("| format | signal to noise of the velocity | in bytes | in bytes against itself |");
    println!("| --- | --- | --- | --- |");
    let decibels = |found: &Tensor, expected: &Tensor| -> Result<f64> {
        Ok(-20.0 * super::distance(found, expected)?.log10())
    };
    for (format, least) in FORMATS {
        let path = place.path().join(format.name());
        wide::write(format, &path)?;
        let (plain, coarse) = (velocity(&path, &cpu)?, velocity(&path, &in_bytes)?);
        let [of_format, of_bytes, of_both] =
            [decibels(&plain, &exact)?, decibels(&coarse, &plain)?, decibels(&coarse, &exact)?];
        let name = format.name();
        println!("| {name} | {of_format:.1} dB | {of_both:.1} dB | {of_bytes:.1} dB |");
        ensure!(of_format >= least, "{name}: {of_format:.1} dB, expected {least}");
        ensure!(of_bytes >= 35.0, "{name} in bytes: {of_bytes:.1} dB, expected 35");
    }
    Ok(())
}
