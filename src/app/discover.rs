//! The parts of a model in a folder without a manifest, found by what its files hold.
//!
//! A folder of a part in diffusers' layout is that part. For the others every file in the model's
//! folder and in the folders right below it is looked into; one that holds a part is taken, two that
//! hold the same are a question to the user.

use super::AppError;
use crate::{
    config::{Component, Components, FILE, Manifest},
    model::{
        LoadError,
        weights::{Part, parts_of},
    },
};
use std::path::{Path, PathBuf};

/// The most files that are looked into: more are no model's.
const MAX_FILES: usize = 1000;

/// The released model's manifest, with the parts where they lie in `folder`.
pub(super) fn manifest(folder: &Path) -> Result<Manifest, AppError> {
    let mut manifest = Manifest::released()?;
    let mut found = Found { folder, held: None };
    let Components { transformer, vae, text_encoder, text_encoder_2, .. } = manifest.components;
    let there = |component: Option<Component>| component.filter(|c| folder.join(&c.path).is_dir());
    manifest.components = Components {
        transformer: found.part(transformer, Part::Transformer)?,
        vae: found.part(vae, Part::Vae)?,
        text_encoder: found.part(text_encoder, Part::Clip)?,
        text_encoder_2: found.part(text_encoder_2, Part::T5)?,
        tokenizer: there(manifest.components.tokenizer),
        tokenizer_2: there(manifest.components.tokenizer_2),
        scheduler: there(manifest.components.scheduler),
    };
    Ok(manifest)
}

/// Files, each with the parts in it.
type Holders = Vec<(PathBuf, Vec<Part>)>;

struct Found<'a> {
    folder: &'a Path,
    /// Which files hold what, and the first that cannot be read; nothing before it is needed.
    held: Option<(Holders, Option<LoadError>)>,
}

impl Found<'_> {
    /// The component of `part`: the released model's folder if it is there, else a file.
    fn part(&mut self, released: Component, part: Part) -> Result<Component, AppError> {
        if self.folder.join(&released.path).join("config.json").is_file() {
            return Ok(released);
        }
        let (held, broken) = self.held.get_or_insert_with(|| look(self.folder));
        let holds = |(_, parts): &&(PathBuf, Vec<Part>)| parts.contains(&part);
        let files: Vec<&Path> = held.iter().filter(holds).map(|(path, _)| &**path).collect();
        let (folder, part) = (self.folder.to_owned(), part.name());
        match files.as_slice() {
            [path] => {
                let path = path.strip_prefix(&folder).unwrap_or(path).to_owned();
                Ok(Component { path, format: FILE.to_owned(), config: None })
            }
            // A file that cannot be read may well be the one that is missing.
            [] => Err(match broken.take() {
                Some(error) => error.into(),
                None => AppError::NoPart { folder, part },
            }),
            several => {
                let names = several.iter().filter_map(|path| path.strip_prefix(&folder).ok());
                let names: Vec<String> = names.map(|path| path.display().to_string()).collect();
                Err(AppError::Ambiguous { folder, part, files: names.join(", ") })
            }
        }
    }
}

/// The parts in the files of `folder` and of the folders right below it, in order of their names.
fn look(folder: &Path) -> (Holders, Option<LoadError>) {
    let list = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let (folders, mut files): (Vec<_>, Vec<_>) =
        list(folder).into_iter().partition(|path| path.is_dir());
    files.extend(folders.iter().flat_map(|folder| list(folder)));
    files.retain(|path| path.is_file());
    files.sort();
    files.truncate(MAX_FILES);
    let mut broken = None;
    let mut held = Vec::new();
    for path in files {
        let weights = path.extension().is_some_and(|e| e == "safetensors" || e == "gguf");
        match parts_of(&path) {
            Ok(parts) => held.push((path, parts)),
            // Any other file may be anything, but one of this name should be readable.
            Err(error) if weights => broken = broken.or(Some(error)),
            Err(_) => {}
        }
    }
    (held, broken)
}
