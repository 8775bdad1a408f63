//! Weights from anyone: no file takes more memory than twice its size and 16 MiB.

use crate::{ALONE, measure::peak_of, mutate::Random, weights::weights};
use anyhow::{Result, ensure};
use std::{path::Path, sync::PoisonError};

const FILES: usize = 10_000;

fn check(name: &str, file: &[u8]) -> Result<usize> {
    let peak = peak_of(|| weights(file));
    let most = 2 * file.len() + (16 << 20);
    ensure!(peak <= most, "{name} of {} bytes took {peak}, at most {most}", file.len());
    Ok(peak)
}

#[test]
fn no_mutated_file_of_weights_takes_more_than_twice_its_size_and_16_mib() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/formats");
    for (name, head) in [("t5.gguf", 8_000), ("flux-fp8-rows.safetensors", 12_000)] {
        let seed = std::fs::read(goldens.join(name))?;
        let mut random = Random(2);
        let mut highest = check(name, &seed)?;
        for _ in 0..FILES {
            let mut file = seed.clone();
            random.mutate(&mut file, head);
            highest = highest.max(check(name, &file)?);
        }
        println!("{name} of {} bytes and {FILES} like it: at most {highest} bytes", seed.len());
    }
    Ok(())
}

#[test]
fn no_file_that_is_all_header_takes_more_than_twice_its_size_and_16_mib() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let json = |text: String| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let offsets = r#""dtype":"F32","data_offsets":[0,0],"shape""#;
    let list = "1,".repeat(4 << 20);
    let named = |name: fn(usize) -> String| {
        let tensors = (0..8_000).map(|i| format!(r#""{}":{{{offsets}:[7,0]}}"#, name(i)));
        json(format!("{{{}}}", tensors.collect::<Vec<_>>().join(",")))
    };
    // each of these stands for four matrices
    let linear1 = |i: usize| format!("single_blocks.{i}.linear1.weight");
    let sign = r#""double_blocks.0.img_attn.qkv.weight":"#;
    let fused = format!(r#"{{{sign}{{{offsets}:[3,0]}},{}"#, {
        let tensors = (0..7_999).map(|i| format!(r#""{}":{{{offsets}:[7,0]}}"#, linear1(i)));
        tensors.collect::<Vec<_>>().join(",") + "}"
    });
    let keys = |count: usize| {
        let mut file = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend((count as u64).to_le_bytes());
        for i in 0..count {
            let key = format!("{i:05}");
            file.extend((key.len() as u64).to_le_bytes());
            file.extend(key.as_bytes());
            file.extend([0, 0, 0, 0, 1]);
        }
        file
    };
    for (name, file) in [
        ("brackets", json("[".repeat(16 << 20))),
        ("objects", json(r#"{"a":"#.repeat(3 << 20))),
        ("dimensions", json(format!(r#"{{"a":{{{offsets}:[{list}1]}}}}"#))),
        ("a long name", json(format!(r#"{{"{}":{{{offsets}:[0]}}}}"#, "a".repeat(15 << 20)))),
        ("metadata", json(format!(r#"{{"__metadata__":{{"a":[{list}1]}}}}"#))),
        ("many tensors", named(|i| i.to_string())),
        ("many fused tensors", json(fused)),
        ("many keys", keys(20_000)),
    ] {
        println!("{name} of {} bytes: {} bytes", file.len(), check(name, &file)?);
    }
    Ok(())
}
