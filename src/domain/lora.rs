//! Adapters that a person names: which, and how strongly.

use super::ParamError;
use std::str::FromStr;

/// The most adapters of one job.
const MAX_LORAS: usize = 8;
/// The longest name, in characters.
const MAX_NAME: usize = 100;
/// The strongest, either way.
const MAX_SCALE: f32 = 10.0;

/// An adapter of the server's, at some strength.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Its name: letters, digits, `.`, `_` and `-`, and no point in front, so never a path.
    pub name: String,
    /// Its strength: 1 is as it was trained, 0 is off.
    pub scale: f32,
}

impl Lora {
    /// Checks a list of them.
    ///
    /// # Errors
    /// A [`ParamError`] about `loras`.
    pub fn validate_all(loras: &[Self]) -> Result<(), ParamError> {
        if loras.len() > MAX_LORAS {
            let allowed = format!("at most {MAX_LORAS} are allowed");
            return Err(ParamError::new("loras", format!("a list of {}", loras.len()), allowed));
        }
        loras.iter().try_for_each(Self::validate)
    }

    /// Checks name and strength.
    ///
    /// # Errors
    /// A [`ParamError`] about `loras`.
    pub fn validate(&self) -> Result<(), ParamError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let name = &self.name;
        if name.is_empty()
            || name.len() > MAX_NAME
            || name.starts_with('.')
            || !name.chars().all(plain)
        {
            let shown: String = name.chars().take(MAX_NAME).collect();
            let allowed = format!(
                "a name has 1 to {MAX_NAME} letters, digits, '.', '_' and '-', and no '.' in front"
            );
            return Err(ParamError::new("loras", format!("{shown:?}"), allowed));
        }
        if !(-MAX_SCALE..=MAX_SCALE).contains(&self.scale) {
            let allowed = format!("expected a scale from -{MAX_SCALE} to {MAX_SCALE}");
            return Err(ParamError::new("loras", format!("{name}={}", self.scale), allowed));
        }
        Ok(())
    }
}

/// `NAME` or `NAME=SCALE`.
impl FromStr for Lora {
    type Err = ParamError;

    fn from_str(text: &str) -> Result<Self, ParamError> {
        let (name, scale) = match text.rsplit_once('=') {
            None => (text, 1.0),
            Some((name, scale)) => {
                let number = scale.trim().parse().map_err(|_| {
                    let value = format!("{:?}", scale.chars().take(MAX_NAME).collect::<String>());
                    ParamError::new("loras", value, "expected NAME or NAME=SCALE")
                })?;
                (name, number)
            }
        };
        let lora = Self { name: name.trim().to_owned(), scale };
        lora.validate()?;
        Ok(lora)
    }
}
