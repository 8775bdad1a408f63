//! Names of files as a hub, a folder or a record gives them: inside the model's folder, or refused.

use super::HubError;
use std::path::{Path, PathBuf};

/// The longest name of a file or folder, in bytes, so that `.part` still fits behind it.
const NAME: usize = 200;
/// How deep folders may lie in each other.
const DEPTH: usize = 8;

/// What a model is made of, by extension. Nothing that is a program in disguise: pickles are not
/// taken from anywhere.
const KINDS: [&str; 6] = ["safetensors", "gguf", "json", "txt", "model", "md"];

/// `name` inside `folder`.
///
/// # Errors
/// [`HubError::FileName`] where it would lie elsewhere, or is no name that every system can have.
pub fn target(folder: &Path, name: &str, origin: &str) -> Result<PathBuf, HubError> {
    let parts: Vec<&str> = name.split('/').collect();
    let plain = |part: &&str| {
        let odd = |c: char| c.is_control() || "\\:*?\"<>|".contains(c);
        (1..=NAME).contains(&part.len()) && !part.starts_with('.') && !part.contains(odd)
    };
    if parts.len() > DEPTH || !parts.iter().all(plain) {
        let (origin, name) = (origin.to_owned(), super::error::shown(name));
        return Err(HubError::FileName { origin, name });
    }
    Ok(folder.join(name))
}

/// Whether a name's extension is one of those that models are made of.
pub(super) fn is_part_of_a_model(name: &str) -> bool {
    let hidden = name.split('/').any(|part| part.starts_with('.') && part != "." && part != "..");
    let kind = name.rsplit_once('.').map_or("", |(_, kind)| kind);
    !hidden && (KINDS.contains(&kind) || is_licence(name))
}

/// Whether a file says under which licence the others are.
pub(super) fn is_licence(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    !name.contains('/') && (upper.starts_with("LICENSE") || upper.starts_with("LICENCE"))
}

/// Whether a file holds weights.
pub(super) fn is_weights(name: &str) -> bool {
    [".safetensors", ".gguf"].iter().any(|kind| name.ends_with(kind))
}

/// What the model of a repository is called here: `flux-1-kontext-dev` for
/// `black-forest-labs/FLUX.1-Kontext-dev`.
#[must_use]
pub fn model_name(repo: &str) -> String {
    let (_, name) = repo.rsplit_once('/').unwrap_or(("", repo));
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    name.to_ascii_lowercase().chars().map(plain).collect()
}
