//! `--lora NAME|FILE[=SCALE]`.

use crate::domain::{Lora, ParamError};
use std::{path::PathBuf, str::FromStr};

/// Characters of a file's name that messages show.
const NAME: usize = 80;

/// A LoRA that a person names, and where it is, if that is outside of models/loras.
#[derive(Clone, Debug)]
pub(super) struct LoraArg {
    pub(super) lora: Lora,
    pub(super) file: Option<PathBuf>,
}

impl FromStr for LoraArg {
    type Err = ParamError;

    fn from_str(text: &str) -> Result<Self, ParamError> {
        // A file's name may itself have a `=` in it.
        let whole = PathBuf::from(text);
        let (path, scale) = match text.rsplit_once('=') {
            Some((path, scale)) if !whole.is_file() => (PathBuf::from(path), Some(scale)),
            _ => (whole, None),
        };
        if !path.is_file() {
            return Ok(Self { lora: text.parse()?, file: None });
        }
        // A name for messages: a file may be called anything.
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '-' };
        let name: String = stem.chars().take(NAME).map(plain).collect();
        let lora = format!("{name}={}", scale.unwrap_or("1")).parse()?;
        Ok(Self { lora, file: Some(path) })
    }
}
