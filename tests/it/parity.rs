//! Number for number against the reference: every model and case in tests/golden/models, which
//! diffusers made (tests/golden/make_goldens.py). A further folder there is picked up by itself.
//!
//! The table of the largest errors is printed, and stands in docs/parity.md, which
//! `UPDATE_GOLDENS=1` writes anew.

use crate::support::{load_pipeline, params, picture, repository, run};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use darkroom::{
    config::Manifest,
    domain::{EditParams, Prompt, Size},
    engine::Job,
    model::{ops::Ops, weights::Target},
    pipeline::{Pipeline, Trace},
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// Relative L2 of every tensor that is computed.
const RELATIVE: f64 = 1e-4;
/// Largest difference of any noise value.
const NOISE: f64 = 1e-6;
/// Largest difference of any decoded value, whose range is about -1..1.
const DECODED: f64 = 2e-3;

/// case.json, as make_goldens.py writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    prompt: String,
    negative: Option<String>,
    #[serde(default = "one")]
    true_cfg: f32,
    image: Option<[u32; 2]>,
    size: [u32; 2],
    steps: u32,
    guidance: f32,
    seed: u64,
    #[serde(default = "longest")]
    max_seq: usize,
    #[serde(default)]
    step_cache: f32,
    /// Passes that the reference's cache shortened.
    shortened: Option<usize>,
}

fn one() -> f32 {
    1.0
}

fn longest() -> usize {
    512
}

impl Case {
    fn params(&self) -> EditParams {
        EditParams {
            negative_prompt: self.negative.clone().map(Prompt::new),
            true_cfg_scale: self.true_cfg,
            guidance_scale: self.guidance,
            num_inference_steps: self.steps,
            seed: self.seed,
            size: Some(Size::new(self.size[0], self.size[1])),
            max_sequence_length: self.max_seq,
            step_cache: self.step_cache,
            exact_size: true,
            ..params(&self.prompt)
        }
    }
}

/// The folders in `path`, by name.
fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
    let mut folders: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|p| p.is_dir()).collect();
    folders.sort();
    Ok(folders)
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The largest errors of one case, by kind of tensor.
type Errors = BTreeMap<&'static str, f64>;

fn compare(trace: &Trace, golden: &HashMap<String, Tensor>, errors: &mut Errors) -> Result<()> {
    for (name, expected) in golden {
        let found = trace.get(name).with_context(|| format!("the run has no {name}"))?;
        ensure!(
            found.dims() == expected.dims(),
            "{name}: {:?}, expected {:?}",
            found.dims(),
            expected.dims()
        );
        let kind = name.split('.').next().unwrap_or(name);
        if kind == "t5_ids" || kind == "clip_ids" {
            let ids = |t: &Tensor| t.flatten_all()?.to_vec1::<i64>();
            ensure!(ids(found)? == ids(expected)?, "{name} differs");
            continue;
        }
        let difference = (found - expected)?.to_dtype(DType::F64)?;
        let l2 = |t: &Tensor| t.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>();
        let relative = (l2(&difference)? / l2(expected)?.max(f64::MIN_POSITIVE)).sqrt();
        let largest = difference.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
        let mut keep = |column: &'static str, error: f64, bound: f64| {
            let worst = errors.entry(column).or_default();
            *worst = worst.max(error);
            // written so that a NaN fails
            ensure!(error <= bound, "{name}: {column} is {error:e}, at most {bound:e} is allowed");
            Ok(())
        };
        match kind {
            "img_ids" => ensure!(largest == 0.0, "{name} differs"),
            "noise" => keep("noise, largest", largest, NOISE)?,
            "prompt_embeds" => keep("prompt_embeds", relative, RELATIVE)?,
            "pooled_embeds" => keep("pooled_embeds", relative, RELATIVE)?,
            "reference_pixels" => keep("reference_pixels, levels", largest * 127.5, 1.001)?,
            "reference_latents" => keep("reference_latents", relative, RELATIVE)?,
            "sigmas" => keep("sigmas", relative, RELATIVE)?,
            "velocity" => keep("velocity", relative, RELATIVE)?,
            "latents" => keep("latents", relative, RELATIVE)?,
            "decoded" => {
                keep("decoded", relative, RELATIVE)?;
                keep("decoded, largest", largest, DECODED)?;
            }
            other => anyhow::bail!("golden {name}: nothing is known of {other}"),
        }
    }
    Ok(())
}

fn check_case(pipeline: &mut Pipeline, folder: &Path) -> Result<Errors> {
    let text = std::fs::read_to_string(folder.join("case.json"))?;
    let case: Case = serde_json::from_str(&text)?;
    ensure!(case.shortened.is_none_or(|passes| passes > 2), "the golden's cache hardly served");
    let images = match case.image {
        Some(_) => vec![picture(&folder.join("input.png"))?],
        None => vec![],
    };
    let (pixels, trace) = run(pipeline, Job { params: case.params(), images })?;
    let golden = candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu)?;
    ensure!(golden.len() >= 9, "the golden holds {} tensors only", golden.len());
    let mut errors = Errors::new();
    compare(&trace, &golden, &mut errors)?;
    let expected = picture(&folder.join("output.png"))?;
    ensure!((pixels.width(), pixels.height()) == (expected.width(), expected.height()));
    let pairs = pixels.rgb().iter().zip(expected.rgb());
    let levels = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(255);
    ensure!(levels <= 1, "output.png differs by {levels} levels");
    errors.insert("output, levels", f64::from(levels));
    Ok(errors)
}

/// Every case of every model; a row of errors for each.
fn check_all(target: &Target) -> Result<Vec<(String, Errors)>> {
    let mut rows = Vec::new();
    for model in folders(&repository("tests/golden/models"))? {
        let manifest = Manifest::released()?;
        let mut pipeline = load_pipeline(&model.join("model"), &manifest, target)?;
        for case in folders(&model.join("cases"))? {
            let row = format!("{} / {}", name(&model), name(&case));
            rows.push((row.clone(), check_case(&mut pipeline, &case).context(row)?));
        }
    }
    Ok(rows)
}

fn table(rows: &[(String, Errors)]) -> String {
    let mut columns: Vec<&'static str> = rows.iter().flat_map(|(_, e)| e.keys().copied()).collect();
    columns.sort_unstable();
    columns.dedup();
    let mut text = String::from("| model / case |");
    for column in &columns {
        write!(text, " {column} |").ok();
    }
    text.push_str("\n| --- |");
    text.push_str(&" --- |".repeat(columns.len()));
    for (row, errors) in rows {
        write!(text, "\n| {row} |").ok();
        for column in &columns {
            match errors.get(column) {
                Some(error) if *error == 0.0 => text.push_str(" 0 |"),
                Some(error) => write!(text, " {error:.1e} |").unwrap_or_default(),
                None => text.push_str(" |"),
            }
        }
    }
    text.push('\n');
    text
}

#[test]
fn every_golden_of_the_reference_is_met() -> Result<()> {
    let rows = check_all(&Target::cpu())?;
    ensure!(rows.len() >= 19, "only {} cases were found", rows.len());
    let table = table(&rows);
    println!("{table}");
    let document = repository("docs/parity.md");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        let text = std::fs::read_to_string(&document)?;
        let head = text.split("\n| model / case |").next().unwrap_or_default().trim_end();
        std::fs::write(&document, format!("{head}\n\n{table}"))?;
    }
    let text = std::fs::read_to_string(&document)?;
    for (row, _) in &rows {
        ensure!(text.contains(&format!("| {row} |")), "docs/parity.md has no row for {row}");
    }
    Ok(())
}

/// The operations that run on a GPU, on the CPU: the same goldens hold them.
#[test]
fn the_stock_operations_meet_the_goldens_too() -> Result<()> {
    let target = Target { ops: Ops::Stock, ..Target::cpu() };
    let rows = check_all(&target)?;
    println!("{}", table(&rows));
    Ok(())
}
