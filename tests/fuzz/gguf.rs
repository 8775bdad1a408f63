//! GGUF as a function of bytes: what `tests/it/formats/fuzz.rs` and cargo-fuzz call.

/// Reads `bytes` as weights, whatever they are. It may refuse them, and nothing else.
pub(crate) fn gguf(bytes: &[u8]) {
    let whole = [b"GGUF", bytes.strip_prefix(b"GGUF").unwrap_or(bytes)].concat();
    crate::weights::weights(&whole);
}
