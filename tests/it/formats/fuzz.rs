//! Ten thousand mutated files of each container: none panics, none takes long.
//!
//! The functions are those of `tests/fuzz`, which cargo-fuzz runs too. The mutator is seeded: a file
//! that fails is the same at the next run. Memory is watched by `tests/memory`.

#[path = "../../fuzz/gguf.rs"]
mod gguf;
#[path = "../../fuzz/mutate.rs"]
mod mutate;
#[path = "../../fuzz/safetensors.rs"]
mod safetensors;

use super::golden;
use anyhow::{Result, ensure};
use mutate::Random;
use std::fs;

const FILES: usize = 10_000;
/// Time of this thread for a file, in nanoseconds: not of the clock, which other work disturbs.
const MOST: u64 = 1_000_000_000;
/// Nanoseconds that this thread has computed, where the system tells.
fn worked() -> Option<u64> {
    fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

fn mutated(seeds: &[&str], head: usize, read: fn(&[u8])) -> Result<()> {
    let seeds: Vec<Vec<u8>> =
        seeds.iter().map(|name| fs::read(golden(name))).collect::<Result<_, _>>()?;
    for seed in &seeds {
        read(seed);
    }
    let mut random = Random(1);
    let mut longest = 0;
    for number in 0..FILES {
        let mut file = seeds[number % seeds.len()].clone();
        random.mutate(&mut file, head);
        let start = worked();
        read(&file);
        let spent = worked().zip(start).map_or(0, |(end, start)| end - start);
        ensure!(spent < MOST, "file {number} took {spent} ns");
        longest = longest.max(spent);
    }
    println!("{FILES} files, at most {:.1} ms of work for one", longest as f64 / 1e6);
    Ok(())
}

#[test]
fn no_mutated_gguf_panics_or_takes_long() -> Result<()> {
    mutated(&["t5.gguf", "flux-Q8_0.gguf"], 8_000, gguf::gguf)
}

#[test]
fn no_mutated_safetensors_panics_or_takes_long() -> Result<()> {
    let seeds = ["flux-fp8-scaled.safetensors", "flux-fp8-rows.safetensors"];
    mutated(&seeds, 12_000, safetensors::safetensors)
}
