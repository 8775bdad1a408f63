//! Loading: what is wrong with a model's files is said with file, tensor or field, expected and
//! found; every type of weights loads; nothing panics.

use crate::support::{copy, expect, load_pipeline, params, picture, repository, run};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, safetensors};
use darkroom::{
    config::Manifest,
    domain::EditParams,
    engine::Job,
    model::{LoadError, weights::Target},
    pipeline::Pipeline,
};
use std::{collections::HashMap, fs, path::PathBuf};
use tempfile::TempDir;

const TRANSFORMER: &str = "transformer/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

/// A copy of a golden model that may be broken.
struct Model {
    folder: TempDir,
}

impl Model {
    fn copy_of(name: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        copy(&repository(&format!("tests/golden/models/{name}/model")), folder.path())?;
        Ok(Self { folder })
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn load(&self) -> Result<Pipeline, LoadError> {
        let manifest = Manifest::released().expect("it is part of the program");
        load_pipeline(self.folder.path(), &manifest, &Target::cpu())
    }

    /// The error of loading it, as a person reads it; one line.
    fn error(&self) -> Result<String> {
        let error = self.load().err().context("a broken model was loaded")?.to_string();
        ensure!(!error.contains('\n'), "more than a line: {error}");
        Ok(error)
    }

    fn change_tensors(
        &self,
        file: &str,
        change: impl FnOnce(&mut HashMap<String, Tensor>) -> Result<()>,
    ) -> Result<()> {
        let path = self.path(file);
        let mut tensors = safetensors::load(&path, &Device::Cpu)?;
        change(&mut tensors)?;
        Ok(safetensors::save(&tensors, &path)?)
    }

    fn change_text(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let path = self.path(file);
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{file} has no {from}");
        Ok(fs::write(path, text.replacen(from, to, 1))?)
    }
}

#[test]
fn a_missing_misshapen_or_surplus_tensor_is_named() -> Result<()> {
    let model = Model::copy_of("base")?;
    let name = "transformer_blocks.1.attn.to_q.weight";
    let original = fs::read(model.path(TRANSFORMER))?;

    model.change_tensors(TRANSFORMER, |t| t.remove(name).map(|_| ()).context("it was there"))?;
    expect(&model.error()?, &[TRANSFORMER, name, "is missing", "[64, 64]"])?;

    fs::write(model.path(TRANSFORMER), &original)?;
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    model.change_tensors(TRANSFORMER, |t| {
        t.insert(name.to_owned(), zeros(&[64, 32])?);
        Ok(())
    })?;
    expect(&model.error()?, &[TRANSFORMER, name, "[64, 32]", "[64, 64]"])?;

    fs::write(model.path(TRANSFORMER), &original)?;
    model.change_tensors(TRANSFORMER, |t| {
        t.insert("lora.weight".to_owned(), zeros(&[1])?);
        Ok(())
    })?;
    expect(&model.error()?, &[TRANSFORMER, "1 tensors have no place", "lora.weight"])?;

    fs::write(model.path(TRANSFORMER), &original)?;
    model.change_tensors(TRANSFORMER, |t| {
        let integers = Tensor::zeros((64, 64), DType::I64, &Device::Cpu)?;
        t.insert(name.to_owned(), integers);
        Ok(())
    })?;
    expect(&model.error()?, &[TRANSFORMER, name, "I64", "F32, F16 or BF16"])?;

    // the same in the other components
    for (file, tensor) in [
        ("text_encoder_2/model.safetensors", "encoder.block.1.layer.0.SelfAttention.q.weight"),
        ("text_encoder/model.safetensors", "encoder.layers.1.mlp.fc1.bias"),
        (VAE, "decoder.up_blocks.3.resnets.0.conv_shortcut.weight"),
    ] {
        let model = Model::copy_of("base")?;
        let nested = |t: &HashMap<String, Tensor>| {
            let found = t.keys().find(|key| key.ends_with(tensor)).cloned();
            found.with_context(|| {
                format!("no {tensor} in {:?}", t.keys().take(50).collect::<Vec<_>>())
            })
        };
        model.change_tensors(file, |t| {
            let key = nested(t)?;
            t.remove(&key);
            Ok(())
        })?;
        expect(&model.error()?, &[file, tensor, "is missing"])?;
    }
    Ok(())
}

#[test]
fn a_damaged_or_absent_file_is_named() -> Result<()> {
    let model = Model::copy_of("base")?;
    let whole = fs::read(model.path(VAE))?;
    for length in [0, 4, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(model.path(VAE), &whole[..length])?;
        expect(&model.error()?, &[VAE, "not a valid safetensors file"])?;
    }
    let mut lying = whole.clone();
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(model.path(VAE), &lying)?;
    expect(&model.error()?, &[VAE, "header claims"])?;
    fs::remove_file(model.path(VAE))?;
    expect(&model.error()?, &["no weights in", "diffusion_pytorch_model.safetensors.index.json"])?;

    let model = Model::copy_of("base")?;
    fs::remove_file(model.path("vae/config.json"))?;
    expect(&model.error()?, &["cannot read", "vae/config.json"])?;
    let model = Model::copy_of("base")?;
    fs::remove_file(model.path("tokenizer/tokenizer.json"))?;
    expect(&model.error()?, &["no tokenizer.json here, nor vocab.json with merges.txt"])?;
    let model = Model::copy_of("wide")?;
    fs::write(model.path("tokenizer/merges.txt"), "#version: 0.2\na b c\n")?;
    expect(&model.error()?, &["merges.txt", "line 2"])
}

#[test]
fn an_index_is_held_to_its_word() -> Result<()> {
    let index = "transformer/diffusion_pytorch_model.safetensors.index.json";
    let name = "diffusion_pytorch_model-00002-of-00003.safetensors";
    let cases = [
        (name, "../vae/x.safetensors", "not a plain .safetensors file name"),
        (name, "other-00001.safetensors", "cannot read"),
        ("\"weight_map\"", "\"map\"", "missing field `weight_map`"),
        ("\"proj_out.weight\"", "\"proj_out.weights\"", "as the index says"),
    ];
    for (from, to, expected) in cases {
        let model = Model::copy_of("wide")?;
        model.change_text(index, from, to)?;
        expect(&model.error()?, &[expected])?;
    }
    let model = Model::copy_of("wide")?;
    fs::remove_file(model.path(&format!("transformer/{name}")))?;
    expect(&model.error()?, &["cannot read", name])
}

#[test]
fn a_wrong_value_in_a_configuration_is_named_with_what_is_allowed() -> Result<()> {
    let flux = "transformer/config.json";
    let vae = "vae/config.json";
    let t5 = "text_encoder_2/config.json";
    let clip = "text_encoder/config.json";
    let scheduler = "scheduler/scheduler_config.json";
    let cases = [
        (
            flux,
            "\"attention_head_dim\": 16",
            "\"attention_head_dim\": 24",
            "attention_head_dim = 24",
        ),
        (
            flux,
            "\"num_layers\": 2",
            "\"num_layers\": -2",
            "num_layers is -2, expected a whole number",
        ),
        (flux, "\"num_layers\": 2", "\"num_layers\": 99999999", "num_layers is 99999999"),
        (flux, "\"num_layers\": 2", "\"num_layer\": 2", "num_layers is missing"),
        (flux, "\"num_layers\": 2", "\"num_layers\": 3", "transformer_blocks.2"),
        (
            flux,
            "\"joint_attention_dim\": 64",
            "\"joint_attention_dim\": 65",
            "field joint_attention_dim is 65, expected d_model of text_encoder_2 = 64",
        ),
        (
            flux,
            "\"FluxTransformer2DModel\"",
            "\"SD3Transformer2DModel\"",
            "expected FluxTransformer2DModel",
        ),
        (flux, "\"patch_size\": 1", "\"patch_size\": 2", "patch_size is 2, expected 1"),
        (flux, "{", "", "not valid JSON"),
        (vae, "\"norm_num_groups\": 4", "\"norm_num_groups\": 3", "norm_num_groups is 3"),
        (vae, "\"scaling_factor\": 0.3611", "\"scaling_factor\": 0.0", "scaling_factor is 0"),
        (
            vae,
            "\"latent_channels\": 16",
            "\"latent_channels\": 8",
            "field in_channels is 64, expected 4 * latent_channels of the vae = 32",
        ),
        (t5, "\"d_model\": 64", "\"d_model\": \"64\"", "d_model is \"64\""),
        (t5, "\"feed_forward_proj\": \"gated-gelu\"", "\"feed_forward_proj\": \"swish\"", "swish"),
        (
            clip,
            "\"num_attention_heads\": 4",
            "\"num_attention_heads\": 5",
            "a multiple of num_attention_heads = 5",
        ),
        (clip, "\"hidden_act\": \"quick_gelu\"", "\"hidden_act\": \"relu\"", "quick_gelu or gelu"),
        (
            scheduler,
            "\"use_karras_sigmas\": false",
            "\"use_karras_sigmas\": true",
            "use_karras_sigmas is true",
        ),
        (
            scheduler,
            "\"base_image_seq_len\": 256",
            "\"base_image_seq_len\": 5000",
            "max_image_seq_len",
        ),
    ];
    for (file, from, to, expected) in cases {
        let model = Model::copy_of("base")?;
        model.change_text(file, from, to)?;
        let error = model.error()?;
        expect(&error, &[expected]).with_context(|| format!("{file}: {to}"))?;
        let folder = file.split('/').next().unwrap_or(file);
        expect(&error, &[folder])?;
    }
    Ok(())
}

#[test]
fn half_precision_weights_load_and_give_nearly_the_same() -> Result<()> {
    let input = picture(&repository("tests/golden/models/base/cases/edit_square/input.png"))?;
    let job = || Job {
        params: EditParams { exact_size: true, ..params("make it black and white") },
        images: vec![input.clone()],
    };
    let latents = |model: &Model| -> Result<Tensor> {
        let (_, trace) = run(&mut model.load()?, job())?;
        Ok(trace.get("latents.1").context("two steps")?.clone())
    };
    let model = Model::copy_of("base")?;
    let exact = latents(&model)?;
    for (dtype, bound) in [(DType::F16, 5e-3), (DType::BF16, 5e-2)] {
        let model = Model::copy_of("base")?;
        for file in
            [TRANSFORMER, VAE, "text_encoder/model.safetensors", "text_encoder_2/model.safetensors"]
        {
            model.change_tensors(file, |tensors| {
                for tensor in tensors.values_mut().filter(|t| t.dtype() == DType::F32) {
                    *tensor = tensor.to_dtype(dtype)?;
                }
                Ok(())
            })?;
        }
        let rounded = latents(&model)?;
        let l2 = |t: &Tensor| -> Result<f32> { Ok(t.sqr()?.sum_all()?.to_scalar()?) };
        let error = (l2(&(rounded - &exact)?)? / l2(&exact)?).sqrt();
        println!("{dtype:?} weights move the latents by {error:.1e}");
        ensure!(error > 0.0 && error < bound, "{dtype:?}: {error}");
    }
    Ok(())
}

#[test]
fn no_damage_to_a_model_makes_loading_panic() -> Result<()> {
    let model = Model::copy_of("base")?;
    let files = [
        TRANSFORMER,
        "vae/config.json",
        "transformer/config.json",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    ];
    let mut state = 1u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for file in files {
        let path = model.path(file);
        let whole = fs::read(&path)?;
        for _ in 0..40 {
            let mut damaged = whole.clone();
            for _ in 0..=random(3) {
                // the head of a weights file, where it says what is in it
                let place = random(damaged.len().min(4000));
                damaged[place] = random(256) as u8;
            }
            fs::write(&path, &damaged)?;
            drop(model.load()); // may work: a changed byte of a weight is a weight
        }
        fs::write(&path, whole)?;
    }
    Ok(())
}
