//! The golden model `wide`, whose matrices have whole blocks of every format, and its transformer in
//! each of them.

use super::{
    quantise::quantise,
    write::{Tensor as Written, gguf},
};
use crate::support::repository;
use anyhow::{Context, Result};
use candle_core::{Device, safetensors};
use darkroom_kernels::quant::Format;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// ggml's numbers of formats.
const KINDS: [(Format, u32); 4] =
    [(Format::Q8_0, 8), (Format::Q6K, 14), (Format::Q5K, 13), (Format::Q4K, 12)];
/// Stands for 8-bit floats, of which ggml knows nothing.
const FLOAT8: u32 = u32::MAX;

pub(super) fn path(path: &str) -> PathBuf {
    repository("tests/golden/models/wide").join(path)
}

/// Writes its transformer to `to`, the matrices in `format`, a file of GGUF; of 8-bit floats one of
/// safetensors with a scale for each matrix, as ComfyUI has them.
pub(super) fn write(format: Format, to: &Path) -> Result<()> {
    let mut written = Vec::new();
    for shard in 1..=3 {
        let name =
            format!("model/transformer/diffusion_pytorch_model-0000{shard}-of-00003.safetensors");
        for (name, tensor) in safetensors::load(path(&name), &Device::Cpu)? {
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            let shape = tensor.dims().iter().map(|&dim| dim as u64).collect();
            let matrix = tensor.rank() == 2 && tensor.dim(1)?.is_multiple_of(format.block());
            let plain = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
            let (kind, bytes) = match format {
                Format::F8E4M3 if matrix => {
                    let largest = values.iter().fold(0f32, |most, x| most.max(x.abs()));
                    let scale = largest / 448.0;
                    let scaled: Vec<f32> = values.iter().map(|x| x / scale).collect();
                    let layer = name.strip_suffix(".weight").context("a matrix")?;
                    let (name, bytes) = (format!("{layer}.scale_weight"), plain(&[scale]));
                    written.push(Written { name, shape: vec![], kind: 0, bytes });
                    (FLOAT8, quantise(format, &scaled))
                }
                _ => match KINDS.iter().find(|(other, _)| *other == format) {
                    Some((_, kind)) if matrix => (*kind, quantise(format, &values)),
                    _ => (0, plain(&values)),
                },
            };
            written.push(Written { name, shape, kind, bytes });
        }
    }
    let bytes = if format == Format::F8E4M3 { float8(&written)? } else { gguf(&[], &written) };
    Ok(fs::write(to, bytes)?)
}

/// A file of safetensors.
fn float8(tensors: &[Written]) -> Result<Vec<u8>> {
    let (mut header, mut data) = (BTreeMap::new(), Vec::new());
    for Written { name, shape, kind, bytes } in tensors {
        let dtype = if *kind == FLOAT8 { "F8_E4M3" } else { "F32" };
        let place = [data.len(), data.len() + bytes.len()];
        let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": place });
        header.insert(name, entry);
        data.extend_from_slice(bytes);
    }
    let header = serde_json::to_vec(&header)?;
    Ok([&(header.len() as u64).to_le_bytes()[..], &header, &data].concat())
}
