//! Edits photographs with kontext-tiny and holds the results against the truth.
//!
//! Shared by the test, which runs a few photographs, and by benches/edits.rs, which runs all.

use super::truth::{NAMES, truth};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use darkroom::{
    app::decode,
    config::Manifest,
    domain::{EditParams, Pixels, Prompt, ReferenceMethod},
    engine::{Engine, Job, Phase, Slot},
    imaging::resize,
    model::{
        vae::{Extent, Vae},
        weights::{ConfigFile, Part, Source, Target, Weights},
    },
    pipeline::{Checkpoint, Pipeline, Room},
};
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path, time::Duration};

/// What an edit must reach on average.
pub(crate) const MIN_PSNR: f64 = 18.0;

/// A wording that training never saw, for each edit.
#[derive(Deserialize)]
struct HeldOut {
    held_out: BTreeMap<String, [String; 3]>,
}

/// The three held-out wordings of each edit.
pub(crate) fn wordings(model: &Path) -> Result<BTreeMap<String, [String; 3]>> {
    let text = std::fs::read_to_string(model.join("train/held_out.toml"))?;
    let HeldOut { held_out } = toml::from_str(&text)?;
    ensure!(held_out.keys().map(String::as_str).eq(sorted_names()), "wordings of other edits");
    Ok(held_out)
}

fn sorted_names() -> Vec<&'static str> {
    let mut names = NAMES.to_vec();
    names.sort_unstable();
    names
}

/// A loaded kontext-tiny; `folder` may be a changed copy, the manifest is the shipped one.
pub(crate) struct Tiny {
    pipeline: Pipeline,
    manifest: Manifest,
}

/// A photograph at the size that the model works on, with all truths.
pub(crate) struct Photo {
    pub(crate) original: Pixels,
    pub(crate) input: Pixels,
    pub(crate) truths: Vec<Pixels>,
}

/// How one result compares.
pub(crate) struct Score {
    /// To its own truth, in dB.
    pub(crate) psnr: f64,
    /// Of an unedited copy, in dB.
    pub(crate) copy: f64,
    /// What the result is nearest to: an edit's index, or none for the input.
    pub(crate) nearest: Option<usize>,
}

impl Tiny {
    pub(crate) fn load(folder: &Path, manifest: &Path) -> Result<Self> {
        let manifest = Manifest::open(manifest)?;
        let checkpoint = Checkpoint::open(folder, &manifest, &Target::cpu())?;
        let pipeline = Pipeline::load(&checkpoint, &checkpoint.plan(Room::ample())?, |_| {})?;
        Ok(Self { pipeline, manifest })
    }

    /// Reads a photograph and computes every edit's truth at the size of the results.
    pub(crate) fn photo(&mut self, path: &Path) -> Result<Photo> {
        let original = decode(&std::fs::read(path)?)?;
        let slot = self.admit(&original, "x", 1)?;
        let size = self.pipeline.sizes(slot).context("planned")?.output;
        self.pipeline.release(slot);
        let input = resize(&original, size);
        let truths = NAMES
            .iter()
            .map(|name| truth(name, &input).context("an edit"))
            .collect::<Result<_>>()?;
        Ok(Photo { original, input, truths })
    }

    fn admit(&mut self, original: &Pixels, prompt: &str, seed: u64) -> Result<Slot> {
        let defaults = self.manifest.defaults;
        let params = EditParams {
            prompt: Prompt::new(prompt),
            negative_prompt: None,
            true_cfg_scale: 1.0,
            guidance_scale: defaults.guidance_scale,
            num_inference_steps: defaults.num_inference_steps,
            seed,
            size: None,
            aspect_ratio: None,
            max_sequence_length: defaults.max_sequence_length,
            reference_method: ReferenceMethod::Offset,
            step_cache: 0.0,
            exact_size: false,
            loras: Vec::new(),
        };
        Ok(self.pipeline.admit(Job { params, images: vec![original.clone()] })?)
    }

    /// Edits a photograph by each prompt, all of them in one packed batch.
    pub(crate) fn edit(&mut self, photo: &Photo, prompts: &[String]) -> Result<Vec<Pixels>> {
        let mut slots = Vec::new();
        for prompt in prompts {
            let slot = self.admit(&photo.original, prompt, 1)?;
            while !matches!(self.pipeline.advance(slot, Duration::from_secs(60))?, Phase::Ready) {}
            slots.push(slot);
        }
        for _ in 0..self.manifest.defaults.num_inference_steps {
            for outcome in self.pipeline.step(&slots) {
                outcome.result?;
            }
        }
        let mut results = Vec::new();
        for slot in slots {
            results.push(loop {
                if let Phase::Done(pixels) = self.pipeline.advance(slot, Duration::from_secs(60))? {
                    break pixels;
                }
            });
            self.pipeline.release(slot);
        }
        Ok(results)
    }
}

impl Photo {
    /// How `result` compares to the truth of edit `index`, to the input and to all other truths.
    pub(crate) fn score(&self, result: &Pixels, index: usize) -> Score {
        let to = |other: &Pixels| psnr(result, other);
        let mut nearest = (None, to(&self.input));
        for (i, truth) in self.truths.iter().enumerate() {
            let near = to(truth);
            if near > nearest.1 {
                nearest = (Some(i), near);
            }
        }
        let psnr_own = to(&self.truths[index]);
        Score { psnr: psnr_own, copy: psnr(&self.input, &self.truths[index]), nearest: nearest.0 }
    }
}

/// A picture through the autoencoder of the model in `folder`, nothing in between.
pub(crate) fn round_trip(folder: &Path, picture: &Pixels) -> Result<Pixels> {
    let folder = folder.join("vae");
    let weights = Weights::open(&Source::new(&folder, Part::Vae), &Target::cpu())?;
    let vae = Vae::load(&ConfigFile::open(&folder.join("config.json"))?, &weights)?;
    let whole = |mut pass| loop {
        if let Some(result) = vae.advance(&mut pass)? {
            break Ok::<Tensor, candle_core::Error>(result);
        }
    };
    let (width, height) = (picture.width(), picture.height());
    let values: Vec<f32> = picture.rgb().iter().map(|&x| f32::from(x) / 127.5 - 1.0).collect();
    let tensor = Tensor::from_vec(values, (height as usize, width as usize, 3), &Device::Cpu)?;
    let decoded = whole(vae.decode(&whole(vae.encode(tensor, Extent::Whole)?)?, Extent::Whole)?)?;
    let byte = |x: f32| (x * 127.5 + 127.5).round().clamp(0.0, 255.0) as u8;
    let rgb = decoded.flatten_all()?.to_vec1()?.into_iter().map(byte).collect();
    Pixels::new(width, height, rgb).context("a picture of the same size")
}

/// A copy of the model in `folder` whose transformer has the values of each tensor in another order.
pub(crate) fn shuffle_transformer(folder: &Path, copy: &Path) -> Result<()> {
    let mut parts = vec![folder.to_owned()];
    while let Some(part) = parts.pop() {
        let target = copy.join(part.strip_prefix(folder)?);
        std::fs::create_dir_all(&target)?;
        for entry in std::fs::read_dir(&part)? {
            let path = entry?.path();
            let to = target.join(path.file_name().context("a name")?);
            let weights = path.extension().is_some_and(|e| e == "safetensors");
            if path.is_dir() {
                parts.push(path);
            } else if weights && part.ends_with("transformer") {
                shuffle(&path, &to)?;
            } else {
                std::fs::copy(&path, &to)?;
            }
        }
    }
    Ok(())
}

fn shuffle(from: &Path, to: &Path) -> Result<()> {
    let mut state = 1u64;
    let mut tensors = candle_core::safetensors::load(from, &Device::Cpu)?;
    for tensor in tensors.values_mut() {
        let shape = tensor.shape().clone();
        let mut values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        for i in (1..values.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            values.swap(i, (state >> 33) as usize % (i + 1));
        }
        *tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
    }
    Ok(candle_core::safetensors::save(&tensors, to)?)
}

/// Peak signal to noise ratio of two pictures of one size, in dB.
pub(crate) fn psnr(a: &Pixels, b: &Pixels) -> f64 {
    let pairs = a.rgb().iter().zip(b.rgb());
    let sum: f64 = pairs.map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    let mean = sum / a.rgb().len() as f64;
    10.0 * (255.0 * 255.0 / mean.max(1e-9)).log10()
}

/// Mean of the largest minus the smallest channel, 0..1.
pub(crate) fn chroma(picture: &Pixels) -> f64 {
    let spread =
        |p: &[u8]| p.iter().max().zip(p.iter().min()).map_or(0.0, |(a, b)| f64::from(a - b));
    let sum: f64 = picture.rgb().chunks_exact(3).map(spread).sum();
    sum / 255.0 / (picture.rgb().len() / 3) as f64
}

/// Structural similarity of the lumas of two pictures of one size: Wang et al. 2004, windows of 8x8
/// pixels at every fourth place, all weights equal.
pub(crate) fn ssim(a: &Pixels, b: &Pixels) -> f64 {
    let luma = |p: &Pixels| -> Vec<f64> {
        let pixel =
            |c: &[u8]| 0.299 * f64::from(c[0]) + 0.587 * f64::from(c[1]) + 0.114 * f64::from(c[2]);
        p.rgb().chunks_exact(3).map(pixel).collect()
    };
    let (x, y, width) = (luma(a), luma(b), a.width() as usize);
    let (c1, c2) = ((0.01f64 * 255.0).powi(2), (0.03f64 * 255.0).powi(2));
    let mut values = Vec::new();
    for top in (0..=(a.height() as usize).saturating_sub(8)).step_by(4) {
        for left in (0..=width.saturating_sub(8)).step_by(4) {
            let window =
                || (top..top + 8).flat_map(|r| (left..left + 8).map(move |c| r * width + c));
            let mean = |v: &[f64]| window().map(|i| v[i]).sum::<f64>() / 64.0;
            let (mx, my) = (mean(&x), mean(&y));
            let cov = |u: &[f64], mu: f64, v: &[f64], mv: f64| {
                window().map(|i| (u[i] - mu) * (v[i] - mv)).sum::<f64>() / 63.0
            };
            let (vx, vy, vxy) = (cov(&x, mx, &x, mx), cov(&y, my, &y, my), cov(&x, mx, &y, my));
            values.push(
                (2.0 * mx * my + c1) * (2.0 * vxy + c2)
                    / ((mx * mx + my * my + c1) * (vx + vy + c2)),
            );
        }
    }
    values.iter().sum::<f64>() / values.len() as f64
}
