//! The token that opens gated repositories: where it is found, and that nothing shows it.

use super::{HubError, pull::Folders};
use std::path::Path;
use zeroize::Zeroizing;

/// The longest token that is taken, in bytes; the hub's have 37.
const MAX: u64 = 1024;

/// A token of the hub, with the place where it was found. Its `Debug` shows the place alone.
pub struct Token {
    secret: Zeroizing<String>,
    place: String,
}

impl Token {
    /// The first of: what the file `file` holds, `HF_TOKEN`, the file that `HF_TOKEN_PATH` names,
    /// and the one in which the hub's own programs keep it.
    ///
    /// # Errors
    /// [`HubError::Token`] where one of them is there and cannot be used.
    pub fn find(file: Option<&Path>) -> Result<Option<Self>, HubError> {
        if let Some(file) = file {
            return read(file).map(Some);
        }
        if let Some(value) = std::env::var_os("HF_TOKEN").filter(|value| !value.is_empty()) {
            let value = value.into_string().unwrap_or_default();
            return Self::new(&value, "HF_TOKEN".to_owned()).map(Some);
        }
        let named = std::env::var_os("HF_TOKEN_PATH").filter(|path| !path.is_empty());
        if let Some(path) = named {
            return read(Path::new(&path)).map(Some);
        }
        match Folders::cache() {
            Some(cache) if cache.token_path().is_file() => read(&cache.token_path()).map(Some),
            _ => Ok(None),
        }
    }

    /// Takes a token; `place` is what messages call it.
    ///
    /// # Errors
    /// [`HubError::Token`] where it is empty or could not stand in a header.
    pub fn new(text: &str, place: String) -> Result<Self, HubError> {
        let secret = text.trim();
        let reason = match secret {
            "" => "it is empty",
            _ if !secret.bytes().all(|byte| byte.is_ascii_graphic()) => {
                "it has other characters than letters, digits and marks"
            }
            _ => return Ok(Self { secret: Zeroizing::new(secret.to_owned()), place }),
        };
        Err(HubError::Token { place, reason: reason.to_owned() })
    }

    /// Where it was found.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The value of the header `Authorization`, marked as secret.
    pub(super) fn header(&self) -> Option<hyper::header::HeaderValue> {
        let text = Zeroizing::new(format!("Bearer {}", self.secret.as_str()));
        let mut value = hyper::header::HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(from {})", self.place)
    }
}

fn read(path: &Path) -> Result<Token, HubError> {
    let place = path.display().to_string();
    let failed = |reason: String| HubError::Token { place: place.clone(), reason };
    let size = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > MAX {
        return Err(failed(format!("it has {size} bytes, a token has at most {MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    Token::new(&Zeroizing::new(text), place)
}
