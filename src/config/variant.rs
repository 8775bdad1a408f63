//! Where a model comes from: `[source]` and `[[variants]]` of its manifest, which `darkroom pull`
//! reads.
//!
//! The source is the repository of the release. A variant says which parts come from elsewhere, and
//! in which precision. Sizes and hashes of files are not written down: the hub tells them, and the
//! first pull records them.

use super::{Component, Components, Manifest, manifest::FILE};
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path};

/// The repository of the release, which has every part in a folder of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// `OWNER/REPO` on the hub.
    pub repo: String,
    /// A branch, tag or commit of it.
    #[serde(default = "main")]
    pub revision: String,
    /// The type of its weights.
    pub precision: String,
    /// What the weights of each part take in memory, in bytes.
    pub bytes: BTreeMap<String, u64>,
}

/// The model in one form.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// How a person names it: `bf16`, `q4_k_m`.
    pub name: String,
    /// What it is, in a few words.
    pub about: String,
    /// The parts that the source has not, or not so, by their names in `[components]`.
    #[serde(default)]
    pub parts: BTreeMap<String, Part>,
}

/// Where one part of a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// `OWNER/REPO` on the hub.
    pub repo: String,
    /// A branch, tag or commit of it.
    #[serde(default = "main")]
    pub revision: String,
    /// A folder of the repository, with `/` at its end, or one file.
    pub path: String,
    /// The type of its weights, as its publisher calls it.
    pub precision: String,
    /// What its weights take in memory, in bytes.
    pub bytes: u64,
}

fn main() -> String {
    "main".to_owned()
}

impl Manifest {
    /// Where the parts of a variant come from, each with its name and where it goes in the model's
    /// folder. None where the manifest has no `[source]`.
    #[must_use]
    pub fn parts(&self, variant: &Variant) -> Vec<(&'static str, Part, String)> {
        let Some(source) = &self.source else { return Vec::new() };
        let each = self.components.each().into_iter();
        each.map(|(name, component, _)| {
            let folder = component.path.display().to_string();
            let released = || Part {
                repo: source.repo.clone(),
                revision: source.revision.clone(),
                path: format!("{folder}/"),
                precision: source.precision.clone(),
                bytes: source.bytes.get(name).copied().unwrap_or_default(),
            };
            let part = variant.parts.get(name).cloned().unwrap_or_else(released);
            let into = part.file().map_or(folder, str::to_owned);
            (name, part, into)
        })
        .collect()
    }

    /// What all weights of a variant take in memory, in bytes.
    #[must_use]
    pub fn bytes(&self, variant: &Variant) -> u64 {
        self.parts(variant).iter().map(|(_, part, _)| part.bytes).sum()
    }

    /// The manifest of a variant that is here: a part that is one file lies directly in the model's
    /// folder.
    #[must_use]
    pub fn of_variant(mut self, name: &str) -> Self {
        let variant = self.variants.iter().find(|variant| variant.name == name);
        for (name, part) in variant.cloned().into_iter().flat_map(|variant| variant.parts) {
            if let (Some(file), Some(place)) = (part.file(), part_mut(&mut self.components, &name))
            {
                *place = Component { path: file.into(), format: FILE.to_owned(), config: None };
            }
        }
        self
    }

    /// What is wrong with source and variants, if something is.
    pub(super) fn check_variants(&self) -> Result<(), String> {
        let names: Vec<&str> =
            self.components.each().into_iter().map(|(name, _, _)| name).collect();
        let known = |key: &str, name: &str| {
            let known = names.contains(&name).then_some(());
            known.ok_or_else(|| format!("{key} has {name:?}, expected one of {}", names.join(", ")))
        };
        if let Some(source) = &self.source {
            repository("source", &source.repo, &source.revision)?;
            source.bytes.keys().try_for_each(|name| known("source.bytes", name))?;
        } else if !self.variants.is_empty() {
            return Err("there are variants, but no [source]".to_owned());
        }
        for (index, variant) in self.variants.iter().enumerate() {
            let name = &variant.name;
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
            if name.is_empty() || !name.chars().all(plain) {
                return Err(format!("variants.name is {name:?}, expected a-z, 0-9, _ and -"));
            }
            if self.variants.iter().take(index).any(|other| other.name == *name) {
                return Err(format!("variants.name {name:?} is there twice"));
            }
            for (part, from) in &variant.parts {
                known("variants.parts", part)?;
                let key = format!("variants.parts.{part}");
                repository(&key, &from.repo, &from.revision)?;
                let path = from.path.strip_suffix('/').unwrap_or(&from.path);
                let inside = |part| matches!(part, std::path::Component::Normal(_));
                if path.is_empty() || !Path::new(path).components().all(inside) {
                    let expected = "a file of the repository, or a folder with / at its end";
                    return Err(format!("{key}.path is {:?}, expected {expected}", from.path));
                }
            }
        }
        Ok(())
    }
}

impl Part {
    /// The name of its file where it is one; none where it is a folder.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        let (_, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        (!file.is_empty()).then_some(file)
    }
}

fn part_mut<'a>(components: &'a mut Components, name: &str) -> Option<&'a mut Component> {
    match name {
        "transformer" => Some(&mut components.transformer),
        "vae" => Some(&mut components.vae),
        "text_encoder" => Some(&mut components.text_encoder),
        "text_encoder_2" => Some(&mut components.text_encoder_2),
        "tokenizer" => components.tokenizer.as_mut(),
        "tokenizer_2" => components.tokenizer_2.as_mut(),
        "scheduler" => components.scheduler.as_mut(),
        _ => None,
    }
}

fn repository(key: &str, repo: &str, revision: &str) -> Result<(), String> {
    if !is_repository(repo) {
        return Err(format!("{key}.repo is {repo:?}, expected OWNER/REPO"));
    }
    if !is_revision(revision) {
        return Err(format!("{key}.revision is {revision:?}, expected a branch, tag or commit"));
    }
    Ok(())
}

/// Whether a text is `OWNER/REPO` as the hub allows it.
#[must_use]
pub fn is_repository(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let name = |name: &str| {
        (1..=96).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('.')
    };
    text.split_once('/').is_some_and(|(owner, repo)| name(owner) && name(repo))
}

/// Whether a text can be a branch, a tag or a commit.
#[must_use]
pub fn is_revision(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    (1..=200).contains(&text.len()) && text.chars().all(plain) && !text.contains("..")
}
