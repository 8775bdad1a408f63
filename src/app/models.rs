//! `darkroom pull` and `darkroom models`: names become orders for `hub`, and records become answers.

use super::{AppError, Catalog, DEFAULT_MODEL, ModelEntry, fit::choose, machine::Machine};
use crate::{
    config::{Manifest, Variant, is_repository, is_revision},
    hub::{self, Finding, Hub, Lock, Order, Removed, Tell, Wanted},
};
use std::path::Path;

/// What is to be pulled, as a person says it.
#[derive(Clone, Copy, Debug)]
pub struct PullRequest<'a> {
    /// A model's name, or `OWNER/REPO[@REVISION]`.
    pub model: &'a str,
    /// The variant, where the machine is not to choose.
    pub variant: Option<&'a str>,
    /// A folder of this machine that has the files.
    pub from: Option<&'a Path>,
    /// Whether its files are linked instead of copied.
    pub link: bool,
    /// The file with the token.
    pub token_file: Option<&'a Path>,
}

/// What is known before the first byte comes.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The model's name here.
    pub name: &'a str,
    /// Its variant, where it has any.
    pub variant: &'a str,
    /// Why this one, where the machine decided.
    pub reason: Option<String>,
    /// Its licence, where a manifest says it.
    pub licence: Option<&'a str>,
}

/// A line of `darkroom models list`.
#[derive(Debug)]
pub struct Listed {
    /// The model.
    pub name: String,
    /// Whether it is here.
    pub state: ModelState,
    /// The variant that is here, or a dash.
    pub variant: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its licence, where a manifest says it.
    pub licence: String,
    /// Files that are recorded, and how many of them the hub vouched for.
    pub recorded: Option<(usize, usize)>,
}

/// Whether a model is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// It comes with Darkroom.
    Shipped,
    /// It was pulled.
    Pulled,
    /// It was pulled in part.
    Incomplete,
    /// Its folder is there, and was not made by `pull`.
    Own,
    /// It is not here.
    Absent,
}

/// Pulls a model, or takes it from a folder; `plan` is told what it will be.
///
/// # Errors
/// [`AppError`] where it is not known, and where it cannot be had.
pub fn pull(
    request: &PullRequest<'_>,
    plan: impl FnOnce(Plan<'_>),
    tell: Tell<'_>,
) -> Result<Lock, AppError> {
    let catalog = Catalog::find()?;
    let models = catalog.folder();
    let (order, licence, reason) = order(&catalog, request)?;
    plan(Plan { name: &order.name, variant: &order.variant, reason, licence: licence.as_deref() });
    let lock = match request.from {
        Some(folder) => hub::import(models, &order, folder, request.link, tell)?,
        None => hub::pull(&Hub::from_env(request.token_file)?, models, &order, tell)?,
    };
    Ok(lock)
}

/// All models that have a manifest or were pulled.
///
/// # Errors
/// [`AppError`] where there is no folder of models, or a record cannot be read.
pub fn list() -> Result<Vec<Listed>, AppError> {
    let catalog = Catalog::find()?;
    catalog.known_or_pulled().into_iter().map(|name| listed(&catalog, name)).collect()
}

/// Compares a pulled model with its record; all of them where none is named. Gives each with what
/// became of its files.
///
/// # Errors
/// [`AppError`] where it was not pulled, or a file cannot be read.
pub fn verify(
    name: Option<&str>,
    tell: Tell<'_>,
) -> Result<Vec<(String, Lock, Vec<Finding>)>, AppError> {
    let catalog = Catalog::find()?;
    let models = catalog.folder();
    let names = match name {
        Some(name) => vec![known(&catalog, name)?],
        None => {
            let pulled = |name: &String| Lock::path(models, name).is_file();
            catalog.known_or_pulled().into_iter().filter(pulled).collect()
        }
    };
    let check = |name: String| {
        let (lock, findings) = hub::verify(models, &name, tell)?;
        Ok((name, lock, findings))
    };
    names.into_iter().map(check).collect()
}

/// What would be removed with a model: files and bytes.
///
/// # Errors
/// As [`remove`].
pub fn removable(name: &str) -> Result<(usize, u64), AppError> {
    let catalog = Catalog::find()?;
    let name = known(&catalog, name)?;
    if name == DEFAULT_MODEL {
        return Err(AppError::Shipped(name));
    }
    let models = catalog.folder();
    match Lock::read(models, &name)? {
        Some(lock) => Ok((lock.files.len(), lock.bytes())),
        None => Err(hub::HubError::NotPulled { lock: Lock::path(models, &name), name }.into()),
    }
}

/// Removes a model that was pulled.
///
/// # Errors
/// [`AppError`] where it was not, comes with Darkroom, or cannot be removed.
pub fn remove(name: &str) -> Result<Removed, AppError> {
    removable(name)?;
    Ok(hub::remove(Catalog::find()?.folder(), name)?)
}

/// An order, the licence of what is ordered, and why this variant where nobody named it.
type Ordered = (Order, Option<String>, Option<String>);

/// What is to be pulled.
fn order(catalog: &Catalog, request: &PullRequest<'_>) -> Result<Ordered, AppError> {
    let model = request.model;
    let (repo, revision) = match model.split_once('@') {
        Some((repo, revision)) if is_revision(revision) => (repo, Some(revision)),
        Some(_) => return Err(AppError::NoRepository(model.to_owned())),
        None => (model, None),
    };
    if !repo.contains('/') && revision.is_none() {
        let name = known(catalog, model)?;
        return match Lock::read(catalog.folder(), &name)? {
            Some(lock) if !catalog.names().contains(&name) => of_record(name, &lock),
            _ => of_manifest(catalog, &name, None, request),
        };
    }
    if !is_repository(repo) {
        return Err(AppError::NoRepository(model.to_owned()));
    }
    let source = |name: &String| {
        let source = catalog.manifest(name).ok().and_then(|manifest| manifest.source);
        source.is_some_and(|source| source.repo.eq_ignore_ascii_case(repo))
    };
    if let Some(name) = catalog.names().into_iter().find(source) {
        return of_manifest(catalog, &name, revision, request);
    }
    let variant = request.variant.unwrap_or_default();
    let order = of_repository(hub::model_name(repo), repo, revision.unwrap_or("main"), variant)?;
    if catalog.names().contains(&order.name) {
        // Its files would be taken for those of the model that is called so.
        return Err(AppError::NameTaken { name: order.name, repo: repo.to_owned() });
    }
    Ok((order, None, None))
}

/// An order for a repository that no manifest names.
fn of_repository(
    name: String,
    repo: &str,
    revision: &str,
    variant: &str,
) -> Result<Order, AppError> {
    let released = Manifest::released()?;
    let folders = released.components.paths().into_iter();
    let wanted = Wanted {
        repo: repo.to_owned(),
        revision: revision.to_owned(),
        path: String::new(),
        into: String::new(),
    };
    Ok(Order {
        name,
        variant: variant.to_owned(),
        wanted: vec![wanted],
        folders: folders.map(|folder| folder.display().to_string()).collect(),
    })
}

/// An order for what is missing of such a repository.
fn of_record(name: String, lock: &Lock) -> Result<Ordered, AppError> {
    let file = lock.files.first().filter(|file| is_repository(&file.source));
    let file = file.ok_or_else(|| AppError::NoSource(name.clone()))?;
    Ok((of_repository(name, &file.source, &file.revision, &lock.variant)?, None, None))
}

/// An order for a model of a manifest.
fn of_manifest(
    catalog: &Catalog,
    name: &str,
    revision: Option<&str>,
    request: &PullRequest<'_>,
) -> Result<Ordered, AppError> {
    let manifest = catalog.manifest(name)?;
    let Some(source) = &manifest.source else { return Err(AppError::NoSource(name.to_owned())) };
    let (variant, reason) = variant(catalog, name, &manifest, request)?;
    let wanted = manifest.parts(variant).into_iter().map(|(_, part, into)| Wanted {
        revision: match revision {
            Some(revision) if part.repo == source.repo => revision.to_owned(),
            _ => part.revision,
        },
        repo: part.repo,
        path: part.path,
        into,
    });
    let order = Order {
        name: name.to_owned(),
        variant: variant.name.clone(),
        wanted: wanted.collect(),
        folders: Vec::new(),
    };
    Ok((order, Some(manifest.licence.clone()), reason))
}

/// The variant that is named, else the one that is here already, else the one that the folder has,
/// else the one that fits the machine.
fn variant<'a>(
    catalog: &Catalog,
    name: &str,
    manifest: &'a Manifest,
    request: &PullRequest<'_>,
) -> Result<(&'a Variant, Option<String>), AppError> {
    let variants = &manifest.variants;
    let find = |wanted: &str| {
        variants.iter().find(|variant| variant.name == wanted).ok_or_else(|| {
            let known: Vec<&str> = variants.iter().map(|variant| &*variant.name).collect();
            let (name, variant) = (name.to_owned(), wanted.to_owned());
            AppError::UnknownVariant { name, variant, known: known.join(", ") }
        })
    };
    if let Some(wanted) = request.variant {
        return Ok((find(wanted)?, None));
    }
    if let Some(lock) = Lock::read(catalog.folder(), name)? {
        return Ok((find(&lock.variant)?, Some("it is the one that is here".to_owned())));
    }
    if let Some(folder) = request.from {
        let there = |variant: &&Variant| {
            manifest.parts(variant).iter().all(|(_, part, _)| {
                folder.join(&part.path).exists()
                    || part.file().is_some_and(|file| folder.join(file).is_file())
            })
        };
        if let Some(variant) = variants.iter().find(there) {
            return Ok((variant, Some("its files are in that folder".to_owned())));
        }
    }
    let choice = choose(manifest, &Machine::look());
    let choice = choice.ok_or_else(|| AppError::NoSource(name.to_owned()))?;
    Ok((choice.variant, Some(choice.reason)))
}

fn listed(catalog: &Catalog, name: String) -> Result<Listed, AppError> {
    let manifest = catalog.manifest(&name).ok();
    let lock = Lock::read(catalog.folder(), &name)?;
    let here = catalog.folder().join(&name).is_dir();
    let state = match &lock {
        _ if name == DEFAULT_MODEL => ModelState::Shipped,
        Some(lock) if lock.complete => ModelState::Pulled,
        Some(_) => ModelState::Incomplete,
        None if here => ModelState::Own,
        None => ModelState::Absent,
    };
    let bytes = match (&lock, here) {
        (Some(lock), _) => lock.bytes(),
        (None, true) => ModelEntry::find(&name).map_or(0, |model| model.bytes()),
        (None, false) => 0,
    };
    let variant = lock.as_ref().map(|lock| lock.variant.clone()).filter(|name| !name.is_empty());
    Ok(Listed {
        name,
        state,
        variant: variant.unwrap_or_else(|| "-".to_owned()),
        bytes,
        licence: manifest.map_or_else(|| "unknown".to_owned(), |manifest| manifest.licence),
        recorded: lock.map(|lock| (lock.files.len(), lock.vouched())),
    })
}

/// A model that has a manifest or was pulled.
fn known(catalog: &Catalog, name: &str) -> Result<String, AppError> {
    let all = catalog.known_or_pulled();
    match all.iter().any(|known| known == name) {
        true => Ok(name.to_owned()),
        false => Err(AppError::UnknownModel { name: name.to_owned(), known: all.join(", ") }),
    }
}
