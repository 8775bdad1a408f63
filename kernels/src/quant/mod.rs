//! Matrix products straight from the weights of a file: GGUF's quantised formats, 8-bit floats and
//! half precision, none of which is ever in memory as `f32`.
//!
//! A task of the product turns the weights that it needs next, a few panels of a few hundred
//! inputs, into the layout of [`Packed`](crate::Packed) and takes its rows past them. The numbers
//! are those that gguf-py and torch make of the same bytes, and the product's steps those of
//! [`linear`](crate::linear()), so the results have the bits of a layer whose weights were
//! dequantised beforehand. [`linear_in_bytes`] gives that up for speed.

mod bytes;
mod decode;
mod floats;
mod k_quants;
mod legacy;
mod matrix;

pub use bytes::linear_in_bytes;
#[cfg(test)]
pub(crate) use bytes::linear_in_bytes_on;
pub use decode::dequantize;
#[cfg(test)]
pub(crate) use decode::dequantize_on;
pub use matrix::{Matrix, Scale, linear};

/// How the numbers of a weight lie in a file.
///
/// Sources: `ggml-common.h` and `gguf/quants.py` of llama.cpp for GGUF's, the OCP 8-bit floating
/// point specification for `F8E4M3` (torch's `float8_e4m3fn`) and `F8E5M2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the formats")]
pub enum Format {
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    Q8_0,
    Q6K,
    Q5K,
    Q5_0,
    Q5_1,
    Q4K,
    Q4_0,
    Q4_1,
    Q3K,
    Q2K,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 15] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::F8E4M3,
        Self::F8E5M2,
        Self::Q8_0,
        Self::Q6K,
        Self::Q5K,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q4K,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q3K,
        Self::Q2K,
    ];

    /// The name: GGUF's, or safetensors' where GGUF has none.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::Q8_0 => "Q8_0",
            Self::Q6K => "Q6_K",
            Self::Q5K => "Q5_K",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q4K => "Q4_K",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q3K => "Q3_K",
            Self::Q2K => "Q2_K",
        }
    }

    /// Weights of a block, the least that can be read; a row is a whole number of blocks.
    pub fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 | Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::Q8_0 | Self::Q5_0 | Self::Q5_1 | Self::Q4_0 | Self::Q4_1 => 32,
            Self::Q6K | Self::Q5K | Self::Q4K | Self::Q3K | Self::Q2K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::Q8_0 => 34,
            Self::Q6K => 210,
            Self::Q5K => 176,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q4K => 144,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q3K => 110,
            Self::Q2K => 84,
        }
    }

    /// Bytes of `k` weights; `None` if they are no whole number of blocks, or too many to count.
    pub fn row_bytes(self, k: usize) -> Option<usize> {
        let whole = k.is_multiple_of(self.block());
        whole.then(|| (k / self.block()).checked_mul(self.block_bytes())).flatten()
    }
}
