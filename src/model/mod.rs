//! The networks, as tensors only: FLUX transformer, T5 and CLIP text encoders, VAE.
//!
//! Used by `pipeline`. Knows no jobs, prompts, pictures or schedules. The reference for every block
//! is diffusers 0.42.1 and transformers 5.23.0; names of weights are theirs.

mod error;

pub mod clip;
pub mod flux;
pub mod lora;
pub mod ops;
pub mod rope;
pub mod t5;
pub mod vae;
pub mod weights;

pub use error::LoadError;
