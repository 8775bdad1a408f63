//! Safetensors as a function of bytes: what `tests/it/formats/fuzz.rs` and cargo-fuzz call.

/// Reads `bytes` as weights, whatever they are. It may refuse them, and nothing else.
pub(crate) fn safetensors(bytes: &[u8]) {
    crate::weights::weights(bytes);
}
