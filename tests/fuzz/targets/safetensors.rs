//! libFuzzer's way into `../safetensors.rs`.
#![no_main]

#[path = "../safetensors.rs"]
mod safetensors;
#[path = "../weights.rs"]
mod weights;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| safetensors::safetensors(bytes));
