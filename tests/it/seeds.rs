//! Seeds that travel: the noise of a seed is the noise that torch's CPU generator makes of it.

use crate::support::repository;
use anyhow::{Context, Result, ensure};
use candle_core::{Device, safetensors};
use darkroom::pipeline::randn;

#[test]
fn noise_is_that_of_torch_for_every_seed_and_length() -> Result<()> {
    let golden = safetensors::load(repository("tests/golden/randn.safetensors"), &Device::Cpu)?;
    ensure!(golden.len() == 30, "{} tensors", golden.len());
    let mut largest = 0f32;
    for (name, expected) in golden {
        let (seed, count) = name.split_once('.').context("SEED.COUNT")?;
        let found = randn(seed.parse()?, count.parse()?);
        let expected: Vec<f32> = expected.to_vec1()?;
        ensure!(found.len() == expected.len(), "{name}");
        let errors = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let worst = errors.fold(0.0, f32::max);
        ensure!(worst <= 1e-6, "{name} differs by {worst}");
        largest = largest.max(worst);
    }
    println!("the largest difference is {largest:e}");
    // torch's generator takes the lowest 32 bits of a seed
    ensure!(randn(42, 64) == randn((1 << 32) + 42, 64) && randn(42, 64) != randn(43, 64));
    Ok(())
}
