//! Is what lies here still what was pulled? And away with it.

use super::{
    Event, HubError, Lock, Tell, Work,
    download::{hash, is_part},
    lock::Guard,
};
use std::{
    collections::BTreeSet,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// What became of a recorded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is as recorded.
    Good,
    /// It is not there.
    Missing,
    /// It has another length, in bytes.
    Size(u64),
    /// It has the length, and other content: the SHA-256 of that.
    Changed(String),
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files that are gone.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the model's folder stays, because other things are in it.
    pub kept: bool,
}

/// Reads every file of the model `name`, and compares it with the record.
///
/// # Errors
/// [`HubError::NotPulled`] where there is no record, [`HubError`] where a file cannot be read.
pub fn verify(models: &Path, name: &str, tell: Tell<'_>) -> Result<(Lock, Vec<Finding>), HubError> {
    let lock = recorded(models, name)?;
    let mut findings = Vec::with_capacity(lock.files.len());
    for file in &lock.files {
        let place = models.join(name).join(&file.path);
        findings.push(match std::fs::metadata(&place) {
            Err(error) if error.kind() == ErrorKind::NotFound => Finding::Missing,
            Err(error) => return Err(HubError::io(&place)(error)),
            Ok(data) if data.len() != file.size => Finding::Size(data.len()),
            Ok(_) => {
                tell(Event::File { path: &file.path, size: file.size, work: Work::Check });
                let (found, _) = hash(&place, None, tell)?;
                tell(Event::Done);
                if found == file.sha256 { Finding::Good } else { Finding::Changed(found) }
            }
        });
    }
    Ok((lock, findings))
}

/// Removes the files of the model `name` that are recorded, what is left of broken downloads, the
/// folders that are empty then, and the record. Nothing else.
///
/// # Errors
/// As [`verify`]; the record goes last, so that the next call removes what this one left.
pub fn remove(models: &Path, name: &str) -> Result<Removed, HubError> {
    let _guard = Guard::take(models, name)?;
    let lock = recorded(models, name)?;
    let home = models.join(name);
    let (mut removed, mut folders) = (Removed::default(), BTreeSet::new());
    for file in &lock.files {
        let place = home.join(&file.path);
        match std::fs::remove_file(&place) {
            Ok(()) => {
                removed.files += 1;
                removed.bytes += file.size;
            }
            Err(error)
                if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {}
            Err(error) => return Err(HubError::io(&place)(error)),
        }
        let above = place.ancestors().skip(1).take_while(|folder| folder.starts_with(&home));
        folders.extend(above.map(Path::to_owned));
    }
    remove_parts_below(&home, &mut folders)?;
    // The deepest first; a folder in which something is left stays.
    for folder in folders.iter().rev() {
        drop(std::fs::remove_dir(folder));
    }
    removed.kept = home.exists();
    let path = Lock::path(models, name);
    std::fs::remove_file(&path).map_err(HubError::io(&path))?;
    Ok(removed)
}

/// Removes what broken downloads left, and adds their folders.
fn remove_parts_below(folder: &Path, folders: &mut BTreeSet<PathBuf>) -> Result<(), HubError> {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // Of a link the type is that: what it leads to is somebody else's.
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder {
            remove_parts_below(&entry.path(), folders)?;
        } else if is_part(&entry.file_name().to_string_lossy()) {
            std::fs::remove_file(entry.path()).map_err(HubError::io(&entry.path()))?;
            folders.insert(folder.to_owned());
        }
    }
    Ok(())
}

fn recorded(models: &Path, name: &str) -> Result<Lock, HubError> {
    let lock: PathBuf = Lock::path(models, name);
    Lock::read(models, name)?.ok_or_else(|| HubError::NotPulled { name: name.to_owned(), lock })
}
