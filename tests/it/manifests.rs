//! Manifests and style presets: the shipped ones are valid, wrong ones say what is wrong.

use crate::support::{expect, repository};
use anyhow::{Context, Result, ensure};
use darkroom::{
    app::ModelEntry,
    config::{ConfigError, Manifest, Styles},
};
use std::fs;

#[test]
fn a_manifest_says_what_is_wrong_with_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("broken.toml");
    let whole = fs::read_to_string(repository("models/flux1-kontext-dev.toml"))?;
    let cases = [
        ("family = \"flux-kontext\"", "family = \"sdxl\"", "family is \"sdxl\""),
        ("[1024, 1024]", "[1024, 1000]", "[1024, 1000], expected multiples of 16"),
        ("reference_size = \"preferred\"", "reference_size = \"huge\"", "unknown variant `huge`"),
        ("num_inference_steps = 30", "num_inference_steps = 0", "num_inference_steps is 0"),
        ("num_inference_steps = 30", "steps = 30", "unknown field `steps`"),
        ("max_sequence_length = 512", "max_sequence_length = 513", "max_sequence_length is 513"),
        ("path = \"vae\"", "path = \"../vae\"", "components.vae.path"),
        (
            "path = \"vae\", format = \"diffusers\"",
            "path = \"vae\", format = \"ckpt\"",
            "components.vae.format",
        ),
        ("    [-0.1262, -0.0982, -0.0778],\n", "", "preview.matrix has 15 rows, expected 16"),
        ("[preview]", "[preview", "line"),
        ("repo = \"black-forest-labs/", "repo = \"..", "source.repo is \"..FLUX"),
        (
            "[source.bytes]",
            "[source.bytes]\nunet = 1",
            "source.bytes has \"unet\", expected one of",
        ),
        ("name = \"bf16\"", "name = \"BF 16\"", "variants.name is \"BF 16\""),
        ("name = \"bf16\"", "name = \"q8_0\"", "variants.name \"q8_0\" is there twice"),
        ("[variants.parts.transformer]", "[variants.parts.unet]", "variants.parts has \"unet\""),
        ("path = \"split_files/", "path = \"../", "variants.parts.transformer.path is \"../"),
    ];
    for (from, to, expected) in cases {
        ensure!(whole.contains(from), "{from}");
        fs::write(&path, whole.replacen(from, to, 1))?;
        let error = Manifest::open(&path).err().context(to)?.to_string();
        expect(&error, &["broken.toml", expected])?;
        ensure!(!error.contains('\n'), "{error}");
    }
    fs::write(&path, &whole)?;
    ensure!(Manifest::open(&path)? == Manifest::released()?);
    Ok(())
}

#[test]
fn every_shipped_manifest_and_the_styles_are_valid() -> Result<()> {
    let mut manifests = 0;
    for entry in fs::read_dir(repository("models"))? {
        let path = entry?.path();
        // Records of pulled models lie there too.
        let manifest = path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.ends_with(".toml") && name.matches('.').count() == 1 && name != "styles.toml"
        });
        if manifest {
            Manifest::open(&path)?;
            manifests += 1;
        }
    }
    ensure!(manifests >= 2, "{manifests} manifests");
    let styles = Styles::open(&repository("models/styles.toml"))?;
    ensure!(styles.iter().count() >= 12);
    let error = styles.get("nonsense").err().context("no such style")?;
    ensure!(
        matches!(&error, ConfigError::Unknown { known, .. } if known.contains("black-and-white"))
    );

    let folder = tempfile::tempdir()?;
    let path = folder.path().join("styles.toml");
    let style = |name: &str, prompt: &str| {
        format!(
            "[[style]]\nname = {name:?}\ntitle = \"T\"\ndescription = \"D.\"\nprompt = {prompt:?}\n"
        )
    };
    for (text, expected) in [
        (style("Big Name", "x"), "style.name is \"Big Name\""),
        (style("a", "x") + &style("a", "y"), "style \"a\" is there twice"),
        (style("a", " "), "style \"a\" has an empty prompt"),
    ] {
        fs::write(&path, text)?;
        expect(&Styles::open(&path).err().context(expected)?.to_string(), &[expected])?;
    }
    Ok(())
}

#[test]
fn a_folder_without_a_manifest_gets_the_released_values_and_one_beside_it_counts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = folder.path().join("mine");
    for part in ["transformer", "vae", "text_encoder", "text_encoder_2"] {
        fs::create_dir_all(model.join(part))?;
        fs::write(model.join(part).join("config.json"), "{}")?;
    }
    for part in ["tokenizer", "tokenizer_2", "scheduler"] {
        fs::create_dir(model.join(part))?;
    }
    let entry = ModelEntry::find(&model.to_string_lossy())?;
    ensure!(entry.name == "mine" && entry.manifest == Manifest::released()?);
    fs::copy(repository("models/kontext-tiny.toml"), folder.path().join("mine.toml"))?;
    let entry = ModelEntry::find(&model.to_string_lossy())?;
    ensure!(entry.manifest.defaults.max_sequence_length == 32, "the manifest beside the folder");
    let error = ModelEntry::find("no-such-model").err().context("it is not there")?.to_string();
    expect(&error, &["no-such-model", "kontext-tiny"])
}
