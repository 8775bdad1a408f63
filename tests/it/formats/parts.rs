//! The other parts in foreign containers, and the tokenizer inside a GGUF.

use super::{RELATIVE, distance, golden, goldens};
use crate::support::expect;
use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use darkroom::model::{
    t5::T5Encoder,
    vae::{Extent, Pass, Vae},
    weights::{ConfigFile, Part, Source, Target, Weights, parts_of},
};

fn open(file: &str, part: Part) -> Result<Weights> {
    Ok(Weights::open(&Source::new(golden(file), part), &Target::cpu())?)
}

#[test]
fn the_autoencoder_of_a_checkpoint_gives_what_the_reference_gives() -> Result<()> {
    let inputs = goldens()?;
    let get = |name: &str| inputs.get(name).context("a golden");
    let config = ConfigFile::open(&golden("vae.json"))?;
    let vae = Vae::load(&config, &open("all-in-one.safetensors", Part::Vae)?)?;
    // (1, c, h, w) of the reference -> (h, w, c)
    let here = |t: &Tensor| t.squeeze(0)?.permute((1, 2, 0))?.contiguous();
    let end = |mut pass: Pass| loop {
        if let Some(result) = vae.advance(&mut pass)? {
            return Ok::<_, candle_core::Error>(result);
        }
    };
    for (name, pass) in [
        ("decoded", vae.decode(&here(get("latents")?)?, Extent::Whole)?),
        ("encoded", vae.encode(here(get("picture")?)?, Extent::Whole)?),
    ] {
        let distance = distance(&end(pass)?, &here(get(name)?)?)?;
        println!("{name}: {distance:.1e} from the reference");
        ensure!(distance < RELATIVE, "{name}: {distance:e}");
    }
    Ok(())
}

#[test]
fn t5_of_llama_cpps_names_gives_what_the_reference_gives() -> Result<()> {
    let inputs = goldens()?;
    let get = |name: &str| inputs.get(name).context("a golden");
    let weights = open("t5.gguf", Part::T5)?;
    let config = ConfigFile::open(&golden("text_encoder_2.json"))?;
    let implied = weights.implied_config()?;
    for field in ["vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"] {
        ensure!(implied.size(field)? == config.size(field)?, "{field}");
    }
    let ids: Vec<i64> = get("t5_ids")?.flatten_all()?.to_vec1()?;
    let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
    for config in [config, implied] {
        let encoder = T5Encoder::load(&config, &weights)?;
        let mut pass = encoder.encode(&ids)?;
        let embeds = loop {
            if let Some(embeds) = encoder.advance(&mut pass)? {
                break embeds;
            }
        };
        let distance = distance(&embeds, &get("embeds")?.squeeze(0)?)?;
        println!("T5: {distance:.1e} from the reference");
        ensure!(distance < RELATIVE, "{distance:e}");
    }
    Ok(())
}

#[test]
fn what_a_file_holds_is_told_by_its_tensors() -> Result<()> {
    let all = Part::ALL.to_vec();
    for (file, parts) in [
        ("all-in-one.safetensors", all),
        ("flux-fp8-scaled.safetensors", vec![Part::Transformer]),
        ("flux-fp8-rows.safetensors", vec![Part::Transformer]),
        ("mixed.gguf", vec![Part::Transformer]),
        ("t5.gguf", vec![Part::T5]),
        ("golden.safetensors", vec![]),
    ] {
        ensure!(parts_of(&golden(file))? == parts, "{file}");
    }
    let error = open("t5.gguf", Part::Vae).err().context("no autoencoder is in it")?.to_string();
    expect(&error, &["t5.gguf", "vae", "parts in it: text_encoder_2", "manifest"])
}
