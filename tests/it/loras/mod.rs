//! Adapters: against the reference in every naming, inside packed batches, from files that are wrong,
//! and as jobs name them.

mod batching;
mod files;
mod goldens;
mod shelf;

use crate::support::repository;
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, safetensors};
use darkroom::model::{
    clip::ClipTextEncoder,
    flux::{FluxTransformer, Sequence},
    lora::{LoraError, LoraFile, Places},
    ops::Weighted,
    rope::{Id, Rope},
    weights::{ConfigFile, Part, Source, Target, Weights},
};
use std::{collections::HashMap, path::PathBuf};

/// The networks of the golden model `base`, which the golden adapters are for.
struct Networks {
    transformer: FluxTransformer,
    clip: ClipTextEncoder,
    places: Places,
    target: Target,
    goldens: HashMap<String, Tensor>,
}

fn adapter_path(name: &str) -> PathBuf {
    repository(&format!("tests/golden/loras/{name}.safetensors"))
}

impl Networks {
    fn load(target: &Target) -> Result<Self> {
        let part = |name: &str| repository(&format!("tests/golden/models/base/model/{name}"));
        let config = |name: &str| ConfigFile::open(&part(name).join("config.json"));
        let weights = |name: &str, of| Weights::open(&Source::new(part(name), of), target);
        let transformer = FluxTransformer::load(
            &config("transformer")?,
            &weights("transformer", Part::Transformer)?,
        )?;
        let clip =
            ClipTextEncoder::load(&config("text_encoder")?, &weights("text_encoder", Part::Clip)?)?;
        let places = Places::new(&transformer, &clip, target);
        let goldens = safetensors::load(adapter_path("goldens"), &Device::Cpu)?;
        Ok(Self { transformer, clip, places, target: target.clone(), goldens })
    }

    fn golden(&self, name: &str) -> Result<&Tensor> {
        self.goldens.get(name).with_context(|| format!("no golden {name}"))
    }

    fn open(&self, name: &str) -> Result<LoraFile, LoraError> {
        LoraFile::open(&adapter_path(name), &self.places)
    }

    /// The golden adapters of these names at these strengths, for the transformer and for CLIP.
    fn adapters(&self, named: &[(&str, f32)]) -> Result<[Vec<Weighted>; 2]> {
        let mut adapters = [Vec::new(), Vec::new()];
        for &(name, scale) in named {
            let adapter = self.open(name)?.load(&self.transformer, &self.clip)?;
            adapters[0].push(Weighted { deltas: adapter.transformer, scale });
            adapters[1].push(Weighted { deltas: adapter.clip, scale });
        }
        Ok(adapters)
    }

    /// What the transformer makes of the golden inputs, once for each list of adapters.
    fn velocities(&self, adapters: &[&[Weighted]]) -> Result<Vec<Tensor>> {
        let ids = self.golden("ids")?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        let ids: Vec<Id> = ids.iter().map(|id| [id[0], id[1], id[2]]).collect();
        let axes = self.transformer.config().axes_dims_rope;
        let rope = Rope::new(&ids, axes, &self.target.device)?;
        let number = |name| -> Result<f32> { Ok(self.golden(name)?.to_vec1::<f32>()?[0]) };
        let sequence = |adapters| -> Result<Sequence<'_>> {
            Ok(Sequence {
                text: self.golden("text")?,
                pooled: self.golden("pooled")?,
                image: self.golden("image")?,
                target: self.golden("velocity.plain")?.dim(0)?,
                rope: &rope,
                time: number("time")?,
                guidance: number("guidance")?,
                adapters,
                cache: None,
            })
        };
        let mut sequences: Vec<_> = adapters.iter().map(|a| sequence(a)).collect::<Result<_>>()?;
        Ok(self.transformer.forward(&mut sequences)?)
    }
}

/// The relative L2 of a difference.
fn relative(found: &Tensor, expected: &Tensor) -> Result<f64> {
    let l2 = |t: &Tensor| t.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>();
    Ok((l2(&(found - expected)?)? / l2(expected)?).sqrt())
}
