//! A whole model from a folder of this machine: for those without a way to a hub.
//!
//! Nobody vouches for such files, so their hashes are recorded as `unverified`, unless the model was
//! pulled before: then they have to be what is recorded.

use super::{
    Checked, Event, HubError, Lock, Order, Record, Tell, Work,
    download::{hash, part_path, put, remove_parts},
    lock::Guard,
    path::target,
    pull::{record_of, room},
    select::{part, whole},
};
use std::path::{Path, PathBuf};

/// What the part of a file is called whose ETag nobody tells.
const NO_ETAG: &str = "folder";
/// How deep a folder is searched.
const DEPTH: usize = 8;

/// Takes the model that `order` names from `folder` into `models`: copies of its files, or hard
/// links to them where `link` is set.
///
/// # Errors
/// [`HubError`]; files that are whole until then stay, and the next call goes on from there.
pub fn import(
    models: &Path,
    order: &Order,
    folder: &Path,
    link: bool,
    tell: Tell<'_>,
) -> Result<Lock, HubError> {
    let _guard = Guard::take(models, &order.name)?;
    let mut lock = record_of(models, order)?;
    let home = models.join(&order.name);
    let mut names = Vec::new();
    walk(folder, "", DEPTH, &mut names)?;
    names.sort();

    let mut files = Vec::new();
    for wanted in &order.wanted {
        let found = if wanted.path.is_empty() {
            let (files, chosen) = whole(&names, &wanted.repo, &order.folders, &order.variant)?;
            lock.variant = chosen;
            files
        } else {
            let found = part(&names, &wanted.path, &wanted.into);
            // A file that lies as it does in no repository, but has its name.
            if found.is_empty() { part(&names, &wanted.into, &wanted.into) } else { found }
        };
        if found.is_empty() {
            let missing = if wanted.path.is_empty() { "weights" } else { &wanted.path };
            return Err(HubError::Import {
                folder: folder.to_owned(),
                name: order.name.clone(),
                missing: missing.to_owned(),
            });
        }
        for (file, path) in found {
            let (source, place) = (folder.join(&file), target(&home, &path, "the folder")?);
            let size = std::fs::metadata(&source).map_err(HubError::io(&source))?.len();
            files.push((source, path, place, size));
        }
    }
    let whole = |(_, path, place, size): &&(PathBuf, String, PathBuf, u64)| {
        let same = lock.file(path).is_some_and(|file| file.size == *size);
        same && std::fs::metadata(place).is_ok_and(|data| data.len() == *size)
    };
    let present = files.iter().filter(whole).count();
    let bytes = files.iter().filter(|file| !whole(file)).map(|(.., size)| size).sum();
    if !link {
        room(models, bytes)?;
    }
    tell(Event::Plan { files: files.len(), present, bytes });

    let missing: Vec<_> = files.iter().filter(|file| !whole(file)).cloned().collect();
    for (source, path, place, size) in missing {
        if place.exists() && lock.file(&path).is_none() {
            return Err(HubError::InTheWay(place));
        }
        if let Some(parent) = place.parent() {
            std::fs::create_dir_all(parent).map_err(HubError::io(parent))?;
        }
        tell(Event::File { path: &path, size, work: Work::Copy });
        remove_parts(&place, None)?;
        let beside = part_path(&place, NO_ETAG);
        let (sha256, _) = hash(&source, (!link).then_some(&beside), tell)?;
        if link {
            // The file itself, not a link that leads to it.
            let source = source.canonicalize().map_err(HubError::io(&source))?;
            std::fs::hard_link(&source, &beside).map_err(HubError::io(&beside))?;
        }
        let recorded = lock.file(&path);
        if let Some(recorded) = recorded.filter(|recorded| recorded.sha256 != sha256) {
            let recorded = recorded.sha256.clone();
            std::fs::remove_file(&beside).map_err(HubError::io(&beside))?;
            let lock = Lock::path(models, &order.name).display().to_string();
            return Err(HubError::Changed { file: path, recorded, found: sha256, lock });
        }
        if recorded.is_none() {
            let (source, revision) = ("folder".to_owned(), String::new());
            let check = Checked::Unverified;
            lock.record(Record { path, size, sha256, check, source, revision });
            lock.write(models, &order.name)?;
        }
        put(&beside, &place)?;
        tell(Event::Done);
    }
    lock.complete = true;
    lock.write(models, &order.name)?;
    Ok(lock)
}

/// The files in a folder and in those below it, with `/` between folders. Links are followed: the
/// hub's own programs fill folders with them.
fn walk(root: &Path, below: &str, depth: usize, names: &mut Vec<String>) -> Result<(), HubError> {
    let folder = root.join(below);
    for entry in std::fs::read_dir(&folder).map_err(HubError::io(&folder))? {
        let entry = entry.map_err(HubError::io(&folder))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        match std::fs::metadata(entry.path()) {
            Ok(data) if data.is_file() => names.push(path),
            Ok(data) if data.is_dir() && depth > 0 => walk(root, &path, depth - 1, names)?,
            _ => {}
        }
    }
    Ok(())
}
