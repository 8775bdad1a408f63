//! `NAME.lock.toml`, the record of a model that was pulled: what each file was when it was first
//! here, where it came from, and who vouches for it.

use super::{HubError, download::put, path::target, repository::is_sha256};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

/// The version of the record's form.
const VERSION: u32 = 1;
/// The largest record that is read, in bytes.
const MAX: u64 = 8 << 20;
/// What a person reads who opens one.
const HEAD: &str = "\
# Written by `darkroom pull`: what each file of the model was when it was first here. `darkroom models
# verify` compares. `check = \"hub\"`: the hub told this SHA-256 before the file came. `check =
# \"unverified\"`: nobody told one, so it is what was found in the file that came.

";

/// The record of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// The variant of the manifest, or the file that was chosen; empty where there is no choice.
    pub variant: String,
    /// Whether all files are there.
    pub complete: bool,
    /// Its files, in order of their paths.
    #[serde(rename = "file", default)]
    pub files: Vec<Record>,
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its path in the model's folder, with `/` between folders.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// The SHA-256 of its content, in hexadecimal.
    pub sha256: String,
    /// Who told that.
    pub check: Checked,
    /// The repository, `OWNER/REPO`, or `folder` where it came from one of this machine.
    pub source: String,
    /// The commit; empty where it came from a folder.
    pub revision: String,
}

/// Who vouches for a file's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checked {
    /// The hub told it before the file came.
    Hub,
    /// Nobody: it is what came.
    Unverified,
}

impl Lock {
    pub(super) fn new(variant: &str) -> Self {
        let variant = variant.to_owned();
        Self { version: VERSION, variant, complete: false, files: Vec::new() }
    }

    /// Where the record of the model `name` lies.
    #[must_use]
    pub fn path(models: &Path, name: &str) -> PathBuf {
        models.join(format!("{name}.lock.toml"))
    }

    /// The record of the model `name`, if it has one.
    ///
    /// # Errors
    /// [`HubError::Lock`] where it cannot be used, [`HubError::FileName`] where it names a file
    /// outside of the model's folder.
    pub fn read(models: &Path, name: &str) -> Result<Option<Self>, HubError> {
        let path = Self::path(models, name);
        let wrong = |reason: String| HubError::Lock { path: path.clone(), reason };
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(HubError::io(&path)(error)),
            Ok(data) if data.len() > MAX => {
                return Err(wrong(format!("it is larger than {MAX} bytes")));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(&path).map_err(HubError::io(&path))?;
        let lock: Self =
            toml::from_str(&text).map_err(|error| wrong(error.message().replace('\n', ", ")))?;
        if lock.version != VERSION {
            let version = lock.version;
            return Err(wrong(format!("it has version {version}, this Darkroom reads {VERSION}")));
        }
        for file in &lock.files {
            target(models, &file.path, &path.display().to_string())?;
            if !is_sha256(&file.sha256) {
                return Err(wrong(format!("sha256 of {} is none", file.path)));
            }
        }
        Ok(Some(lock))
    }

    /// Writes it whole or not at all.
    pub(super) fn write(&self, models: &Path, name: &str) -> Result<(), HubError> {
        let path = Self::path(models, name);
        let text = toml::to_string(self)
            .map_err(|error| HubError::Lock { path: path.clone(), reason: error.to_string() })?;
        let beside = path.with_extension("toml.new");
        let mut file = File::create(&beside).map_err(HubError::io(&beside))?;
        let written =
            file.write_all(HEAD.as_bytes()).and_then(|()| file.write_all(text.as_bytes()));
        written.and_then(|()| file.sync_all()).map_err(HubError::io(&beside))?;
        put(&beside, &path)
    }

    /// What is recorded of a file.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&Record> {
        self.files.iter().find(|file| file.path == path)
    }

    pub(super) fn record(&mut self, record: Record) {
        self.files.retain(|file| file.path != record.path);
        self.files.push(record);
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
    }

    /// The bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Files for whose hash the hub vouched.
    #[must_use]
    pub fn vouched(&self) -> usize {
        self.files.iter().filter(|file| file.check == Checked::Hub).count()
    }
}

/// Held by the one process that changes a model's files. The system lets go of it when that process
/// ends, however it ends.
#[derive(Debug)]
pub(super) struct Guard {
    _file: File,
}

impl Guard {
    pub(super) fn take(models: &Path, name: &str) -> Result<Self, HubError> {
        let path = models.join(format!(".{name}.pull"));
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(HubError::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(HubError::InUse { name: name.to_owned() })
            }
            Err(std::fs::TryLockError::Error(error)) => Err(HubError::io(&path)(error)),
        }
    }
}
