//! Files that are wrong: the error names file and tensor, and nothing panics.

use super::{Networks, adapter_path};
use crate::support::expect;
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, safetensors};
use darkroom::model::{
    lora::{LoraError, LoraFile},
    weights::Target,
};
use std::{collections::HashMap, fs, path::PathBuf};
use tempfile::TempDir;

type Tensors = HashMap<String, Tensor>;

struct Bench {
    networks: Networks,
    folder: TempDir,
}

impl Bench {
    fn new() -> Result<Self> {
        Ok(Self { networks: Networks::load(&Target::cpu())?, folder: tempfile::tempdir()? })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("mine.safetensors")
    }

    fn load(&self) -> Result<(), LoraError> {
        let file = LoraFile::open(&self.path(), &self.networks.places)?;
        file.load(&self.networks.transformer, &self.networks.clip).map(|_| ())
    }

    /// What is said of the file with these bytes.
    fn error_of(&self, bytes: &[u8]) -> Result<String> {
        fs::write(self.path(), bytes)?;
        let error = self.load().err().context("a broken file was loaded")?.to_string();
        ensure!(!error.contains('\n'), "more than a line: {error}");
        let folder = self.folder.path().display().to_string();
        ensure!(!error.contains(&folder), "it says where the file is: {error}");
        Ok(error)
    }

    /// What is said of a golden adapter after a change.
    fn error(
        &self,
        golden: &str,
        change: impl FnOnce(&mut Tensors) -> Result<()>,
    ) -> Result<String> {
        let mut tensors = safetensors::load(adapter_path(golden), &Device::Cpu)?;
        change(&mut tensors)?;
        safetensors::save(&tensors, self.path())?;
        self.error_of(&fs::read(self.path())?)
    }
}

fn zeros(shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?)
}

#[test]
fn tensors_without_a_meaning_are_listed() -> Result<()> {
    let bench = Bench::new()?;
    let error = bench.error("kohya", |t| {
        for i in 0..7 {
            t.insert(format!("lora_unet_double_blocks_9_img_mlp_{i}.lora_up.weight"), zeros(&[1])?);
        }
        Ok(())
    })?;
    let first = "lora_unet_double_blocks_9_img_mlp_0.lora_up.weight";
    expect(&error, &["mine.safetensors", "7 tensors fit no layer", first, ", ..."])?;
    let layer = "double_blocks.0.img_attn.norm.query_norm.scale";
    let insert = |name: &str, shape: &[usize]| {
        let (name, tensor) = (name.to_owned(), zeros(shape));
        move |t: &mut Tensors| {
            t.insert(name, tensor?);
            Ok(())
        }
    };
    expect(&bench.error("bfl", insert(layer, &[16]))?, &["1 tensors fit no layer", layer])?;
    let layer = "transformer_blocks.0.attn.to_q.oft_blocks";
    expect(&bench.error("diffusers", insert(layer, &[16]))?, &["1 tensors fit no layer", layer])?;
    let layer = "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight";
    let error = bench.error("kohya", insert(layer, &[2, 64]))?;
    expect(&error, &["1 tensors change the T5 text encoder", layer])?;
    let nothing = |tensors: &mut Tensors| {
        tensors.clear();
        Ok(())
    };
    expect(&bench.error("kohya", nothing)?, &["mine.safetensors holds no tensors"])
}

#[test]
fn what_does_not_fit_together_is_named() -> Result<()> {
    let bench = Bench::new()?;
    let (down, up) = (
        "lora_unet_double_blocks_1_img_attn_qkv.lora_down.weight",
        "lora_unet_double_blocks_1_img_attn_qkv.lora_up.weight",
    );
    let put = |name: &'static str, shape: &'static [usize]| {
        move |t: &mut Tensors| {
            t.insert(name.to_owned(), zeros(shape)?);
            Ok(())
        }
    };
    let take = |name: &'static str| {
        move |t: &mut Tensors| t.remove(name).map(|_| ()).context("it was there")
    };
    for (change, expected) in [
        (put(down, &[2, 128]), [down, "[2, 128]", "[2, 64]"]),
        (put(down, &[3, 64]), [up, "[192, 2]", "[192, 3]"]),
        (put(down, &[0, 64]), [down, "[0, 64]", "[1, 64]"]),
        (put(down, &[64]), [down, "[64]", "[64, 64]"]),
        (put(up, &[64, 2]), [up, "[64, 2]", "[192, 2]"]),
    ] {
        expect(&bench.error("kohya", change)?, &expected)?;
    }
    let layer = "double_blocks_1_img_attn_qkv are no whole adapter";
    expect(&bench.error("kohya", take(up))?, &[layer, down])?;
    expect(&bench.error("kohya", take(down))?, &[layer, up])?;
    let lokr = "lycoris_transformer_blocks_1_attn_to_q";
    let error = bench.error("lycoris_lokr", put_owned(format!("{lokr}.lokr_w1"), &[4, 2]))?;
    expect(&error, &[lokr, "[16, 16]", "one that makes [64, 64] of [4, 2]"])?;
    let error = bench.error("lycoris_lokr", put_owned(format!("{lokr}.lokr_w1"), &[0, 4]))?;
    expect(&error, &[lokr, "[0, 4]", "rows and columns"])?;
    let scale = "lora_unet_double_blocks_0_img_mlp_0.dora_scale";
    let error = bench.error("kohya_dora", put(scale, &[3]))?;
    expect(&error, &[scale, "[3]", "[256], [256, 1] or [1, 64]"])?;
    let other = "transformer.transformer_blocks.1.attn.to_k.lora_A.weight";
    let error = bench.error("kohya", put(other, &[2, 64]))?;
    expect(&error, &["are for the same layer", other, "lora_unet_double_blocks_1_img_attn_qkv"])
}

fn put_owned(name: String, shape: &'static [usize]) -> impl FnOnce(&mut Tensors) -> Result<()> {
    move |t| {
        t.insert(name, zeros(shape)?);
        Ok(())
    }
}

#[test]
fn what_are_no_numbers_is_named() -> Result<()> {
    let bench = Bench::new()?;
    let name = "single_blocks.2.linear2.lora_B.weight";
    for value in [f32::NAN, f32::INFINITY] {
        let error = bench.error("bfl", |t| {
            let mut values = vec![0.0; 128];
            values[77] = value;
            t.insert(name.to_owned(), Tensor::from_vec(values, (64, 2), &Device::Cpu)?);
            Ok(())
        })?;
        expect(&error, &["mine.safetensors", name, "NaN or infinity"])?;
    }
    let error = bench.error("bfl", |t| {
        t.insert(name.to_owned(), Tensor::zeros((64, 2), DType::U8, &Device::Cpu)?);
        Ok(())
    })?;
    expect(&error, &["mine.safetensors", name, "U8", "F32, F16 or BF16"])
}

#[test]
fn a_header_that_lies_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    let with = |json: &str, data: usize| {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    };
    let tensor = |shape: &str, from: u64, to: u64| {
        format!(
            "{{\"img_in.lora_A.weight\": \
             {{\"dtype\": \"F32\", \"shape\": {shape}, \"data_offsets\": [{from}, {to}]}}}}"
        )
    };
    let cases = [
        (vec![1; 7], "shorter than 8 bytes"),
        (u64::MAX.to_le_bytes().to_vec(), "its header claims 18446744073709551615 bytes"),
        (with("{}", 0)[..9].to_vec(), "its header claims 2 bytes"),
        (with("[1]", 0), "its header is wrong: "),
        (with("{\"a\": 1}", 0), "its header is wrong: "),
        (with("{}", 1), "take 0 bytes, but 1 follow the header"),
        (with(&tensor("[2, 2]", 0, 16), 15), "take 16 bytes, but 15 follow the header"),
        (with(&tensor("[2, 2]", 0, 16), 17), "take 16 bytes, but 17 follow the header"),
        (with(&tensor("[2, 2]", 16, 0), 16), "img_in.lora_A.weight has offsets that are none"),
        (with(&tensor("[2, 2]", 4, 20), 20), "take 16 bytes, but 20 follow the header"),
        (with(&tensor("[4294967296, 4294967296]", 0, 16), 16), "does not fill its bytes"),
        (with(&tensor("[-1]", 0, 16), 16), "its header is wrong: "),
    ];
    for (bytes, expected) in cases {
        expect(&bench.error_of(&bytes)?, &["mine.safetensors", expected])?;
    }
    let many: Vec<String> = (0..8_001)
        .map(|i| format!("\"{i}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}"))
        .collect();
    let error = bench.error_of(&with(&format!("{{{}}}", many.join(",")), 0))?;
    expect(&error, &["lists more than 8000 tensors"])
}

#[test]
fn no_damage_makes_an_adapter_panic() -> Result<()> {
    let bench = Bench::new()?;
    let mut state = 7_u64;
    let mut next = move |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut loaded = 0;
    for name in ["comfyui_diff", "lycoris_lokr", "bfl_bias", "kohya_clip"] {
        let whole = fs::read(adapter_path(name))?;
        let head = u64::from_le_bytes(whole[..8].try_into()?) as usize + 8;
        for _ in 0..250 {
            let mut bytes = whole.clone();
            for _ in 0..=next(3) {
                let at = next(head);
                match next(4) {
                    0 => bytes[at] ^= 1 << next(8),
                    1 => bytes[at] = b"0123456789{}[],:\""[next(17)],
                    2 => bytes.truncate(next(bytes.len())),
                    _ => {
                        bytes.remove(at.min(bytes.len() - 1));
                    }
                }
                bytes.resize(bytes.len().max(head), b' ');
            }
            fs::write(bench.path(), &bytes)?;
            loaded += usize::from(bench.load().is_ok());
        }
    }
    println!("{loaded} of 1000 damaged files were loaded");
    ensure!(loaded < 500, "{loaded} of 1000 damaged files were loaded");
    Ok(())
}
