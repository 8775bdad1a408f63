//! Models by name: the folder `models` with its manifests and style presets.

use super::AppError;
use crate::config::{Manifest, Styles};
use std::path::{Path, PathBuf};

/// The model that needs no download.
pub const DEFAULT_MODEL: &str = "kontext-tiny";

/// The folder `models`.
#[derive(Clone, Debug)]
pub struct Catalog {
    folder: PathBuf,
}

/// A model that can be loaded.
#[derive(Clone, Debug)]
pub struct ModelEntry {
    /// Its name: the manifest's, or the folder's.
    pub name: String,
    /// The folder with its files.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
}

impl Catalog {
    /// Finds `models` in the working folder, or beside the program or above it.
    ///
    /// # Errors
    /// [`AppError::NoCatalog`] where it is in none of these.
    pub fn find() -> Result<Self, AppError> {
        let here = std::env::current_dir().unwrap_or_default();
        let program = std::env::current_exe().unwrap_or_default();
        let candidates = std::iter::once(here.as_path()).chain(program.ancestors().skip(1));
        let manifest = format!("{DEFAULT_MODEL}.toml");
        candidates
            .map(|folder| folder.join("models"))
            .find(|models| models.join(&manifest).is_file())
            .map(|folder| Self { folder })
            .ok_or(AppError::NoCatalog(here))
    }

    /// The style presets.
    ///
    /// # Errors
    /// [`AppError::Config`] where the file is missing or wrong.
    pub fn styles(&self) -> Result<Styles, AppError> {
        Ok(Styles::open(&self.folder.join("styles.toml"))?)
    }

    fn named(&self, name: &str) -> Result<ModelEntry, AppError> {
        let path = self.folder.join(format!("{name}.toml"));
        let plain = !name.is_empty() && !name.contains(['/', '\\', '.']) && name != "styles";
        if !plain || !path.is_file() {
            return Err(AppError::UnknownModel { name: name.to_owned(), known: self.known() });
        }
        let manifest = Manifest::open(&path)?;
        let folder = self.folder.join(name);
        if !folder.is_dir() {
            let hint = "download the model in the diffusers layout to that folder, or name \
                        another folder with --model DIR";
            return Err(AppError::NotInstalled { name: name.to_owned(), folder, hint });
        }
        Ok(ModelEntry { name: name.to_owned(), folder, manifest })
    }

    fn known(&self) -> String {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "toml"))
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .filter(|name| name != "styles")
            .collect();
        names.sort();
        names.join(", ")
    }
}

impl ModelEntry {
    /// The model called `model`, or the one in the folder `model`.
    ///
    /// The manifest of a folder lies beside it under its name; a folder without one gets the values
    /// of the released model.
    ///
    /// # Errors
    /// [`AppError`] where there is no such model, or its manifest is wrong.
    pub fn find(model: &str) -> Result<Self, AppError> {
        let path = Path::new(model);
        let looks_like_path = model.contains(['/', '\\', '.']);
        if !(looks_like_path && path.is_dir()) {
            return match Catalog::find() {
                Ok(catalog) => match catalog.named(model) {
                    Err(AppError::UnknownModel { .. }) if path.is_dir() => Self::in_folder(path),
                    other => other,
                },
                Err(_) if path.is_dir() => Self::in_folder(path),
                Err(error) => Err(error),
            };
        }
        Self::in_folder(path)
    }

    fn in_folder(path: &Path) -> Result<Self, AppError> {
        // `.` and `..` have no name of their own; a link keeps its own, with the manifest beside it
        let folder = match path.file_name() {
            Some(_) => path.to_owned(),
            None => path.canonicalize().unwrap_or_else(|_| path.to_owned()),
        };
        let name = folder.file_name().and_then(|n| n.to_str()).unwrap_or("model").to_owned();
        let beside = folder.with_file_name(format!("{name}.toml"));
        let manifest =
            if beside.is_file() { Manifest::open(&beside)? } else { Manifest::released()? };
        Ok(Self { name, folder, manifest })
    }
}
