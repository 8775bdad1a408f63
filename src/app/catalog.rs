//! Models by name: the folder `models` with its manifests and style presets.

use super::{AppError, Compute, discover, serve::shown};
use crate::{
    config::{Manifest, Styles},
    http,
    hub::Lock,
    service::ModelName,
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// The model that needs no download.
pub(super) const DEFAULT_MODEL: &str = "kontext-tiny";

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

    /// The folder itself.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The manifest of a model.
    pub(super) fn manifest(&self, name: &str) -> Result<Manifest, AppError> {
        Ok(Manifest::open(&self.folder.join(format!("{name}.toml")))?)
    }

    /// The folder with adapters, which need not be there.
    #[must_use]
    pub fn loras(&self) -> PathBuf {
        self.folder.join("loras")
    }

    fn named(&self, name: &str) -> Result<ModelEntry, AppError> {
        let plain = !name.is_empty() && !name.contains(['/', '\\', '.']) && name != "styles";
        let lock = if plain { Lock::read(&self.folder, name)? } else { None };
        let folder = self.folder.join(name);
        if !plain || !self.folder.join(format!("{name}.toml")).is_file() {
            return match lock {
                // One of a repository that no manifest names.
                Some(lock) if lock.complete && folder.is_dir() => ModelEntry::in_folder(&folder),
                _ => {
                    let known = self.names().join(", ");
                    Err(AppError::UnknownModel { name: name.to_owned(), known })
                }
            };
        }
        if !folder.is_dir() || lock.as_ref().is_some_and(|lock| !lock.complete) {
            return Err(AppError::NotInstalled { name: name.to_owned(), folder });
        }
        let manifest = self.manifest(name)?;
        let manifest = match lock {
            Some(lock) => manifest.of_variant(&lock.variant),
            None => manifest,
        };
        Ok(ModelEntry { name: name.to_owned(), folder, manifest })
    }

    /// The models that have a manifest.
    pub(super) fn names(&self) -> Vec<String> {
        self.stems(|stem| (!stem.contains('.') && stem != "styles").then_some(stem))
    }

    /// The models that have a manifest or were pulled.
    pub(super) fn known_or_pulled(&self) -> Vec<String> {
        let pulled =
            self.stems(|stem| stem.strip_suffix(".lock").filter(|name| !name.contains('.')));
        let all: BTreeSet<String> = self.names().into_iter().chain(pulled).collect();
        all.into_iter().collect()
    }

    /// What `name` makes of the names of the TOML files without their extension, sorted.
    fn stems(&self, name: impl Fn(&str) -> Option<&str>) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "toml"))
            .filter_map(|path| Some(name(path.file_stem()?.to_str()?)?.to_owned()))
            .collect();
        names.sort();
        names
    }

    /// All models that have a manifest, and the one that runs.
    pub(super) fn models(
        &self,
        entry: &ModelEntry,
        name: &ModelName,
        devices: &[Compute],
    ) -> Vec<http::Model> {
        let others = self.names().into_iter().filter(|other| *other != entry.name);
        let others = others.filter_map(|name| {
            let manifest = self.manifest(&name).ok()?;
            let installed = self.named(&name).is_ok();
            let (family, licence) = (manifest.family, manifest.licence);
            Some(http::Model { name, family, licence, installed, running: None })
        });
        let sizes = entry.manifest.sizing().preferred_sizes;
        let running = http::Running {
            version: name.version.clone(),
            device: shown(devices, |device| device.device().to_owned()),
            precision: devices.first().map_or("", Compute::precision).to_owned(),
            preferred_sizes: sizes.iter().map(|size| [size.width, size.height]).collect(),
        };
        let running = http::Model {
            name: entry.name.clone(),
            family: entry.manifest.family.clone(),
            licence: entry.manifest.licence.clone(),
            installed: true,
            running: Some(running),
        };
        std::iter::once(running).chain(others).collect()
    }
}

impl ModelEntry {
    /// The model called `model`, or the one in the folder `model`.
    ///
    /// The manifest of a folder lies beside it under its name; a folder without one gets the values
    /// of the released model, and its parts are found by what its folders and files hold.
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

    /// Which files it consists of: twelve hexadecimal digits of a digest of their names, lengths and
    /// contents. Of a large file pieces from its whole length are read: weights that were trained
    /// further differ everywhere, and a server must not read 24 GB before it starts.
    ///
    /// # Errors
    /// [`AppError::Read`].
    pub fn version(&self) -> Result<String, AppError> {
        let mut hash = Sha256::new();
        for path in self.files() {
            let name = path.strip_prefix(&self.folder).unwrap_or(&path);
            hash.update(name.to_string_lossy().as_bytes());
            sample(&path, &mut hash).map_err(|source| AppError::Read { path, source })?;
        }
        Ok(hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Bytes of its files, about what its weights take in memory.
    pub(super) fn bytes(&self) -> u64 {
        let length = |path: PathBuf| std::fs::metadata(path).map_or(0, |data| data.len());
        self.files().into_iter().map(length).sum()
    }

    /// The files of its parts, in order of their names.
    fn files(&self) -> Vec<PathBuf> {
        let parts = self.manifest.components.paths();
        let mut files = BTreeSet::new(); // several parts may be in one
        for path in parts.into_iter().map(|part| self.folder.join(part)) {
            match std::fs::read_dir(&path) {
                Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
                Err(_) => _ = files.insert(path),
            }
        }
        files.into_iter().filter(|path| path.is_file()).collect()
    }

    fn in_folder(path: &Path) -> Result<Self, AppError> {
        // `.` and `..` have no name of their own; a link keeps its own, with the manifest beside it
        let folder = match path.file_name() {
            Some(_) => path.to_owned(),
            None => path.canonicalize().unwrap_or_else(|_| path.to_owned()),
        };
        let name = folder.file_name().and_then(|n| n.to_str()).unwrap_or("model").to_owned();
        let beside = folder.with_file_name(format!("{name}.toml"));
        let manifest = match beside.is_file() {
            true => Manifest::open(&beside)?,
            false => discover::manifest(&folder)?,
        };
        Ok(Self { name, folder, manifest })
    }
}

/// Adds a file's length to a digest, and what is in it: all of a small one, of a large one 64 pieces.
fn sample(path: &Path, hash: &mut Sha256) -> io::Result<()> {
    const PIECE: u64 = 64 << 10;
    const PIECES: u64 = 64;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    hash.update(length.to_be_bytes());
    if length <= PIECE * PIECES {
        io::copy(&mut file, hash)?;
        return Ok(());
    }
    for piece in 0..PIECES {
        // From the first byte to the last, in equal steps.
        file.seek(SeekFrom::Start((length - PIECE) / (PIECES - 1) * piece))?;
        io::copy(&mut (&mut file).take(PIECE), hash)?;
    }
    Ok(())
}
