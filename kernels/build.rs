//! Compiles `cuda/*.cu` to PTX where the feature `cuda` is on.
//!
//! One PTX for compute capability 8.0: the driver compiles it for the GPU that is there, now or newer,
//! so building needs the toolkit and no GPU.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

/// The files, each of which becomes one module.
const FILES: [&str; 3] = ["dequantise", "norm", "rope"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    println!("cargo::rerun-if-changed=cuda");
    for variable in ["CUDA_HOME", "CUDA_PATH", "NVCC", "NVCC_CCBIN"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    for file in FILES {
        // Without --fmad=false products and sums would fuse as the compiler likes.
        let status = Command::new(nvcc())
            .args(["--ptx", "-arch=compute_80", "-std=c++17", "-O3", "--fmad=false"])
            .args(["-Werror", "all-warnings", "-o"])
            .arg(out.join(file).with_extension("ptx"))
            .arg(format!("cuda/{file}.cu"))
            .status()
            .map_err(|error| format!("nvcc of the CUDA toolkit could not be run: {error}"))?;
        if !status.success() {
            return Err(format!("nvcc could not compile cuda/{file}.cu").into());
        }
    }
    Ok(())
}

/// Where candle's build looks first: the compiler that is named, then the one on the path.
fn nvcc() -> PathBuf {
    let named = std::env::var_os("NVCC").map(PathBuf::from);
    let below = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os);
    let mut below = below.map(|home| PathBuf::from(home).join("bin/nvcc"));
    named.or_else(|| below.find(|path| path.exists())).unwrap_or("nvcc".into())
}
