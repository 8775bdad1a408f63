//! Plain types that every layer shares: no I/O, no tensors, no HTTP.

mod bytes;
mod edit;
mod id;
mod lora;
mod pixels;
mod secret;
mod size;

pub use bytes::Bytes;
pub use edit::{AspectRatio, EditParams, ParamError, Prompt, ReferenceMethod};
pub use id::{ObjectId, OwnerId, ParseIdError};
pub use lora::Lora;
pub use pixels::Pixels;
pub use secret::SecretBytes;
pub use size::Size;
