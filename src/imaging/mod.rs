//! Pictures as files: decoding within limits, resizing as PIL does, encoding without metadata.
//!
//! `service` decodes what a person sends and encodes what the engine made; `pipeline` resizes
//! references. Nothing here reads or writes a file, or trusts a name: a format is told from content.

mod decode;
mod encode;
mod error;
mod format;
mod resize;

pub use decode::{Limits, Probe, decode, probe};
pub use encode::encode;
pub use error::ImagingError;
pub use format::OutputFormat;
pub use resize::resize;
