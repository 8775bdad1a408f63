//! The kernels of Darkroom: matrix products, convolutions, attention and the norms between them.
//!
//! # Equal bytes, alone or batched
//!
//! Every element of every output is computed by a sequence of floating-point operations that
//! depends on that element's own inputs and on the length of the reduction, and on nothing else:
//! not on how many rows travel with it, not on the tile it falls in, not on the number of threads
//! and not on the instruction set. A request therefore gets the same bits whether it runs alone
//! or beside others, on a laptop or on a server.
//!
//! This holds by construction. Each kernel is written once, over the 16 virtual lanes of
//! `simd::Simd`, and compiled for every instruction set; the few operations of that trait are
//! correctly rounded everywhere, and the compiler neither contracts nor reorders them. Sums run
//! either strictly in order (matrix products), or over 16 lanes that a fixed tree joins (norms and
//! softmax), or in `f64` over chunks of a constant size (pictures). Tiling, packing and threads only
//! decide *when* an element is computed.
//!
//! # Finding one's way
//!
//! `simd` holds the lanes and the choice of instruction set, `tile` the one inner loop that all
//! matrix products share, `product` the blocks around it for `linear` and `conv`, `math` the
//! vectorised `exp` and its relatives; `linear`, `conv`, `attention`, `norm`, `group_norm` and
//! `elementwise` are the kernels themselves, `bias` is attention with a bias by relative position,
//! `keys` attention for queries that come in bands, and `quant` is `linear` over weights in the
//! formats of files. `allocator` has large buffers given back. `../cuda` holds the kernels for a GPU,
//! and `cuda` launches them.

mod allocator;
mod attention;
mod bias;
mod conv;
#[cfg(feature = "cuda")]
pub mod cuda;
mod elementwise;
mod group_norm;
mod keys;
mod linear;
mod math;
mod norm;
mod packed;
mod parallel;
mod product;
pub mod quant;
mod simd;
mod tile;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use allocator::give_back_large_buffers;
pub use attention::{Segment, attention};
pub use bias::attention_biased;
pub use conv::{ConvGeometry, PackedConv, conv2d};
pub use elementwise::{activate, gated_add};
pub use group_norm::{GroupSums, group_norm};
pub use keys::PackedKeys;
pub use linear::{Activation, linear};
pub use norm::{layer_norm_modulate, rms_norm, rms_norm_rope};
pub use packed::Packed;

/// The instruction set that the kernels run on here: `"avx512"`, `"avx2"` or `"portable"`.
///
/// It decides how fast the results come, never what they are.
pub fn instruction_set() -> &'static str {
    simd::Isa::best().name()
}
