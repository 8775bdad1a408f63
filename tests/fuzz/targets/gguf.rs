//! libFuzzer's way into `../gguf.rs`.
#![no_main]

#[path = "../gguf.rs"]
mod gguf;
#[path = "../weights.rs"]
mod weights;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gguf::gguf(bytes));
