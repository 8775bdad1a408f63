//! Whole models whose parts come as files: in a manifest, or found in a folder.

use super::{RELATIVE, distance, golden, goldens};
use crate::support::{advance_to_ready, copy, expect, load_pipeline, params, repository, run};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, safetensors};
use darkroom::{
    app::ModelEntry,
    config::Manifest,
    domain::{EditParams, Size},
    engine::{Engine, Job},
    model::weights::Target,
    pipeline::Pipeline,
};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A part of each kind, as a user may have collected them.
const PARTS: &str = r#"
transformer = { path = "flux-Q8_0.gguf", format = "file", config = "transformer.json" }
vae = { path = "all-in-one.safetensors", format = "file", config = "vae.json" }
text_encoder = { path = "all-in-one.safetensors", format = "file", config = "text_encoder.json" }
text_encoder_2 = { path = "t5.gguf", format = "file" }
tokenizer = { path = "tokenizer", format = "tokenizers" }
"#;

/// A folder with the goldens' files, and a manifest beside it that names `parts`.
fn model(parts: &str) -> Result<(TempDir, ModelEntry)> {
    let place = tempfile::tempdir()?;
    let folder = place.path().join("model");
    copy(&golden(""), &folder)?;
    copy(&base("tokenizer"), &folder.join("tokenizer"))?;
    let released = fs::read_to_string(repository("models/flux1-kontext-dev.toml"))?;
    let (before, rest) = released.split_once("[components]\n").context("components")?;
    let (_, after) = rest.split_once("\n# What").context("defaults")?;
    let manifest = format!("{before}[components]\n{parts}\n# What{after}");
    fs::write(place.path().join("model.toml"), manifest)?;
    let entry = ModelEntry::find(folder.to_str().context("UTF-8")?)?;
    Ok((place, entry))
}

fn base(part: &str) -> PathBuf {
    repository("tests/golden/models/base/model").join(part)
}

fn load(entry: &ModelEntry) -> Result<Pipeline> {
    Ok(load_pipeline(&entry.folder, &entry.manifest, &Target::cpu())?)
}

fn latents(pipeline: &mut Pipeline, prompt: &str) -> Result<Vec<Tensor>> {
    let size = Some(Size::new(64, 64));
    let params = EditParams { size, exact_size: true, ..params(prompt) };
    let (_, trace) = run(pipeline, Job { params, images: Vec::new() })?;
    let step = |i: usize| trace.get(&format!("latents.{i}")).cloned().context("a step");
    (0..2).map(step).collect()
}

#[test]
fn an_edit_with_a_part_of_each_kind_is_the_references() -> Result<()> {
    let (_place, entry) = model(PARTS)?;
    let inputs = goldens()?;
    let found = latents(&mut load(&entry)?, "turn the photo into a watercolor painting")?;
    for (i, found) in found.iter().enumerate() {
        let expected = inputs.get(&format!("edit.latents.{i}")).context("a step")?;
        let distance = distance(&found.flatten_all()?, &expected.flatten_all()?)?;
        println!("latents after step {i}: {distance:.1e} from the reference");
        ensure!(distance < RELATIVE, "step {i}: {distance:e}");
    }
    // the version reads each file once, though two parts are in one
    ensure!(entry.version()?.len() == 12);
    Ok(())
}

/// A text and its ids by SentencePiece.
#[derive(serde::Deserialize)]
struct Tokens {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn the_tokenizer_inside_a_gguf_gives_sentencepieces_ids() -> Result<()> {
    let (_place, entry) = model(PARTS)?;
    let mut pipeline = load(&entry)?;
    let texts: Vec<Tokens> = serde_json::from_slice(&fs::read(golden("tokens.json"))?)?;
    ensure!(texts.len() > 5);
    // An empty prompt is none.
    for Tokens { text, ids } in texts.into_iter().filter(|tokens| !tokens.text.trim().is_empty()) {
        let params =
            EditParams { size: Some(Size::new(64, 64)), exact_size: true, ..params(&text) };
        let slot = pipeline.admit(Job { params, images: Vec::new() })?;
        pipeline.trace(slot);
        advance_to_ready(&mut pipeline, slot)?;
        let trace = pipeline.take_trace(slot).context("it was traced")?;
        pipeline.release(slot);
        let found = trace.get("t5_ids").context("ids")?.flatten_all()?;
        let mut padded = ids;
        padded.resize(32, 0);
        let padded: Vec<i64> = padded.into_iter().map(i64::from).collect();
        ensure!(found.to_dtype(DType::I64)?.to_vec1::<i64>()? == padded, "{text:?}: {found}");
    }
    Ok(())
}

#[test]
fn what_a_manifest_lacks_is_named_with_what_to_get() -> Result<()> {
    for (from, to, expected) in [
        ("tokenizer = {", "# {", "no tokenizer: copy the folder tokenizer of black-forest-labs"),
        (
            r#""t5.gguf", format = "file""#,
            r#""all-in-one.safetensors", format = "file""#,
            "has its tokenizer inside",
        ),
        ("flux-Q8_0.gguf", "t5.gguf", "no tensors of a FLUX model's transformer are in it"),
        ("flux-Q8_0.gguf", "tokenizer/tokenizer.json", "not a valid safetensors file"),
        ("flux-Q8_0.gguf", "absent.gguf", "cannot read"),
        (r#", config = "transformer.json""#, "", "field axes_dims_rope"),
        (r#", config = "vae.json""#, "", "field norm_num_groups"),
        (r#", config = "text_encoder.json""#, "", "field num_attention_heads"),
    ] {
        ensure!(PARTS.contains(from), "{from}");
        let (_place, entry) = model(&PARTS.replace(from, to))?;
        let error = load(&entry).err().context(to)?.to_string();
        expect(&error, &[expected]).context(from)?;
        ensure!(!error.contains('\n'), "{error}");
    }
    let wrong = [
        (r#""vae.json""#, r#""../vae.json""#, "components.vae.config is \"../vae.json\""),
        (
            r#""tokenizer", format = "tokenizers""#,
            r#""tokenizer", format = "tokenizers", config = "x""#,
            "components.tokenizer.config is given",
        ),
    ];
    for (from, to, expected) in wrong {
        ensure!(PARTS.contains(from), "{from}");
        expect(&model(&PARTS.replace(from, to)).err().context(to)?.to_string(), &[expected])?;
    }
    Ok(())
}

/// The tensors of a golden model's part, whose file or shards are in `folder`.
fn tensors(folder: &Path) -> Result<HashMap<String, Tensor>> {
    let mut all = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            all.extend(safetensors::load(path, &Device::Cpu)?);
        }
    }
    Ok(all)
}

#[test]
fn a_folder_of_files_is_put_together_by_what_they_hold() -> Result<()> {
    let wide = repository("tests/golden/models/wide/model");
    let place = tempfile::tempdir()?;
    let folder = place.path().join("files");
    for part in ["text_encoder", "tokenizer", "tokenizer_2"] {
        copy(&wide.join(part), &folder.join(part))?;
    }
    // names that say nothing; one in a folder, as ComfyUI has them
    fs::create_dir(folder.join("unet"))?;
    for (part, file) in
        [("transformer", "unet/a.safetensors"), ("vae", "b.bin"), ("text_encoder_2", "c")]
    {
        safetensors::save(&tensors(&wide.join(part))?, folder.join(file))?;
    }
    let find =
        || -> Result<ModelEntry> { Ok(ModelEntry::find(folder.to_str().unwrap_or_default())?) };
    let entry = find()?;
    let mut pipeline = load(&entry)?;
    let found = latents(&mut pipeline, "make it red")?;
    let mut whole = load_pipeline(&wide, &Manifest::released()?, &Target::cpu())?;
    let expected = latents(&mut whole, "make it red")?;
    for (found, expected) in found.iter().zip(&expected) {
        let bytes = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        ensure!(bytes(found)? == bytes(expected)?, "the files give another result");
    }

    let twice = folder.join("d.safetensors");
    fs::copy(folder.join("b.bin"), &twice)?;
    let error = find().err().context("two files hold the VAE")?.to_string();
    expect(&error, &["hold the vae", "b.bin", "d.safetensors", "manifest"])?;
    fs::remove_file(folder.join("b.bin"))?;
    fs::write(&twice, fs::read(&twice)?.split_at(1000).0)?;
    let error = find().err().context("the VAE's file is cut off")?.to_string();
    expect(&error, &["d.safetensors is not a valid safetensors file"])?;
    fs::remove_file(&twice)?;
    let error = find().err().context("there is no VAE")?.to_string();
    expect(&error, &["no vae in", "a folder vae", "safetensors or GGUF"])
}
