//! The golden adapters: every naming and kind gives the velocity that the reference gives.

use super::{Networks, adapter_path, relative};
use anyhow::{Result, ensure};
use darkroom::model::{ops::Ops, weights::Target};

/// Relative L2 of a velocity and of a pooled embedding.
const RELATIVE: f64 = 1e-4;

/// A golden, and the adapters that give it.
const CASES: &[(&str, &[(&str, f32)])] = &[
    ("lora", &[("diffusers", 1.0)]),
    ("lora", &[("diffusers_old", 1.0)]),
    ("lora", &[("aitoolkit", 1.0)]),
    ("lora", &[("kohya", 1.0)]),
    ("lora", &[("kohya_split", 1.0)]),
    ("lora", &[("onetrainer", 1.0)]),
    ("lora", &[("comfyui", 1.0)]),
    ("lora", &[("fal", 1.0)]),
    ("lora", &[("bfl", 1.0)]),
    ("lora_half", &[("diffusers", 0.5)]),
    ("lora_half", &[("kohya", 2.0), ("bfl", -1.5)]),
    ("xlabs", &[("xlabs", 1.0)]),
    ("two", &[("diffusers", 0.75), ("xlabs", -0.5)]),
    ("bias", &[("bfl_bias", 1.0)]),
    ("dora", &[("peft_dora", 1.0)]),
    ("dora", &[("kohya_dora", 1.0)]),
    ("dora_half", &[("kohya_dora", 0.5)]),
    ("dora_inputs", &[("kohya_dora_inputs", 1.0)]),
    ("lokr", &[("lycoris_lokr", 1.0)]),
    ("lokr_bfl", &[("comfyui_lokr", 1.0)]),
    ("loha", &[("lycoris_loha", 1.0)]),
    ("diff", &[("comfyui_diff", 1.0)]),
    ("plain", &[]),
    ("plain", &[("kohya", 0.0)]),
];

fn check(target: &Target) -> Result<()> {
    let networks = Networks::load(target)?;
    for (golden, adapters) in CASES {
        let [transformer, _] = networks.adapters(adapters)?;
        let found = networks.velocities(&[&transformer])?.remove(0);
        let error = relative(&found, networks.golden(&format!("velocity.{golden}"))?)?;
        println!("velocity.{golden}, {adapters:?}: {error:.1e}");
        // Written so that a NaN fails.
        ensure!(error <= RELATIVE, "velocity.{golden}, {adapters:?}: off by {error:e}");
    }
    let ids = networks.golden("clip_ids")?.flatten_all()?.to_vec1::<i64>()?;
    let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
    for (golden, adapters) in [("plain", &[][..]), ("clip", &[("kohya_clip", 1.0)])] {
        let [_, clip] = networks.adapters(adapters)?;
        let pooled = networks.clip.pooled(&ids, &clip)?;
        let error = relative(&pooled, networks.golden(&format!("pooled.{golden}"))?)?;
        println!("pooled.{golden}: {error:.1e}");
        ensure!(error <= RELATIVE, "pooled.{golden}: off by {error:e}");
    }
    Ok(())
}

#[test]
fn adapters_of_every_naming_and_kind_meet_the_goldens() -> Result<()> {
    check(&Target::cpu())
}

/// The operations that run on a GPU, on the CPU.
#[test]
fn the_stock_operations_meet_them_too() -> Result<()> {
    check(&Target { ops: Ops::Stock, ..Target::cpu() })
}

#[test]
fn every_golden_adapter_is_in_a_case() -> Result<()> {
    let folder = adapter_path("x");
    for entry in std::fs::read_dir(folder.parent().unwrap_or(&folder))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_adapter = path.extension().is_some_and(|end| end == "safetensors");
        let used = CASES.iter().any(|(_, named)| named.iter().any(|(n, _)| *n == name));
        let elsewhere = ["goldens", "kohya_clip"].contains(&name.as_str());
        ensure!(!is_adapter || used || elsewhere, "{name} is in no case");
    }
    Ok(())
}

#[test]
fn a_file_says_what_it_is_and_what_it_will_take() -> Result<()> {
    let networks = Networks::load(&Target::cpu())?;
    let cases = [
        ("diffusers", "diffusers", "lora", 2),
        ("aitoolkit", "diffusers", "lora", 2),
        ("kohya", "kohya", "lora", 2),
        ("kohya_split", "kohya", "lora", 8),
        ("onetrainer", "onetrainer", "lora", 2),
        ("xlabs", "xlabs", "lora", 2),
        ("comfyui", "comfyui", "lora", 2),
        ("fal", "peft", "lora", 2),
        ("bfl", "bfl", "lora", 2),
        ("peft_dora", "peft", "dora", 2),
        ("lycoris_lokr", "lycoris", "lokr", 2),
        ("lycoris_loha", "lycoris", "loha", 9),
        ("comfyui_diff", "comfyui", "full", 0),
    ];
    for (name, family, kind, rank) in cases {
        let file = networks.open(name)?;
        let summary = file.summary();
        let families: Vec<_> = summary.families.iter().copied().collect();
        ensure!(families == [family], "{name}: {families:?}");
        ensure!(summary.kinds.contains(kind) && summary.kinds.len() <= 2, "{summary:?}");
        ensure!(summary.rank == rank && summary.work > 0, "{name}: {summary:?}");
        let adapter = file.load(&networks.transformer, &networks.clip)?;
        let (found, predicted) = (adapter.bytes() as u64, summary.bytes);
        println!("{name}: {found} bytes, predicted {predicted}");
        ensure!(found <= predicted, "{name}: {found} bytes, predicted {predicted}");
        ensure!(predicted < 5 * found, "{name}: {found} bytes, predicted {predicted}");
    }
    Ok(())
}
