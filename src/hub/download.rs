//! One file, from the hub to its place: loaded beside it, hashed while it comes, and renamed once it
//! is whole and what the hub said it is.
//!
//! A broken connection is taken up where it broke. So is a download of an earlier run: its part is
//! read again for the hash, and only the rest is asked for, with the ETag where the file's own
//! server gave one, so that a part is never joined to the rest of another file.

use super::{
    Event, HubError, Tell,
    client::{Answer, Rest},
    patience::Patience,
    repository::{Remote, Repository},
};
use sha2::{Digest, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

/// Bytes that are read or written at once.
const PIECE: usize = 1 << 20;

/// A file of a repository and where it goes.
pub(super) struct Download<'a> {
    pub(super) repository: &'a Repository<'a>,
    pub(super) commit: &'a str,
    /// Its path in the repository.
    pub(super) file: &'a str,
    pub(super) remote: &'a Remote,
    /// Its place on the disk.
    pub(super) target: &'a Path,
    /// What the first pause after a failure takes.
    pub(super) pause: Duration,
}

/// A whole file beside its place, synced.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) path: PathBuf,
    pub(super) sha256: String,
}

/// What is loaded so far.
struct Part {
    file: File,
    path: PathBuf,
    length: u64,
    hash: Sha256,
}

impl Download<'_> {
    /// Loads the file beside its place.
    pub(super) async fn run(&self, tell: Tell<'_>) -> Result<Loaded, HubError> {
        let mut part = Part::open(self.target, self.remote).await?;
        tell(Event::At(part.length));
        let (mut patience, mut etag) = (Patience::new(self.pause), None);
        while part.length < self.remote.size {
            let before = part.length;
            let error = match self.attempt(&mut part, &mut etag, tell).await {
                Ok(()) => break,
                // It was there a moment ago.
                Err(HubError::Unreachable { host, reason }) if before > 0 => {
                    HubError::Broken { host, reason }
                }
                Err(error) => error,
            };
            if part.length > before {
                patience.renew();
            }
            patience.wait(error, tell).await?;
        }
        self.finish(part)
    }

    /// Asks for what is missing, and takes what comes.
    async fn attempt(
        &self,
        part: &mut Part,
        etag: &mut Option<String>,
        tell: Tell<'_>,
    ) -> Result<(), HubError> {
        let rest = (part.length > 0).then_some(Rest { from: part.length, etag: etag.as_deref() });
        let mut answer = self.repository.open(self.commit, self.file, rest).await?;
        match answer.status() {
            206 if continues(&answer, part.length, self.remote.size) => {}
            // All of it, though only the rest was asked for; or a part that does not fit.
            200 => part.restart()?,
            _ => {
                part.restart()?;
                return Err(self.broken(&answer, "it does not continue where it was asked to"));
            }
        }
        // A weak ETag does not promise equal bytes.
        *etag = answer.header("etag").filter(|etag| etag.starts_with('"')).map(str::to_owned);
        let missing = self.remote.size - part.length;
        if let Some(length) = answer.number("content-length").filter(|length| *length != missing) {
            return Err(self.size(part.length + length));
        }
        while let Some(bytes) = answer.next().await? {
            if part.length + bytes.len() as u64 > self.remote.size {
                part.restart()?;
                return Err(self.size(self.remote.size + 1));
            }
            part.add(&bytes)?;
            tell(Event::At(part.length));
        }
        if part.length < self.remote.size {
            return Err(self.broken(&answer, "it ended early"));
        }
        Ok(())
    }

    /// Holds the whole file to what the hub said of it.
    fn finish(&self, part: Part) -> Result<Loaded, HubError> {
        let found = format!("{:x}", part.hash.finalize());
        if let Some(expected) = self.remote.sha256.as_ref().filter(|expected| **expected != found) {
            std::fs::remove_file(&part.path).map_err(HubError::io(&part.path))?;
            let (file, expected) = (self.file.to_owned(), expected.clone());
            return Err(HubError::Hash { file, expected, found });
        }
        part.file.sync_all().map_err(HubError::io(&part.path))?;
        Ok(Loaded { path: part.path, sha256: found })
    }

    fn broken(&self, answer: &Answer, reason: &str) -> HubError {
        HubError::Broken { host: answer.host().to_owned(), reason: reason.to_owned() }
    }

    fn size(&self, found: u64) -> HubError {
        HubError::Size { file: self.file.to_owned(), expected: self.remote.size, found }
    }
}

impl Part {
    /// What an earlier run left of this content, or nothing; what it left of another goes.
    async fn open(target: &Path, remote: &Remote) -> Result<Self, HubError> {
        let path = part_path(target, &remote.etag);
        remove_parts(target, Some(&path))?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(HubError::io(&path))?;
        let mut part = Self { file, path, length: 0, hash: Sha256::new() };
        let mut buffer = vec![0; PIECE];
        loop {
            let read = part.file.read(&mut buffer).map_err(HubError::io(&part.path))?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            part.hash.update(bytes);
            part.length += read as u64;
            // So that a signal is heard.
            tokio::task::yield_now().await;
        }
        if part.length > remote.size {
            part.restart()?;
        }
        Ok(part)
    }

    fn restart(&mut self) -> Result<(), HubError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(HubError::io(&self.path))?;
        self.length = 0;
        self.hash = Sha256::new();
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(HubError::io(&self.path))?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// Whether an answer is the rest from `from` on of a file of `size` bytes.
fn continues(answer: &Answer, from: u64, size: u64) -> bool {
    let range = answer.header("content-range").and_then(|range| range.strip_prefix("bytes "));
    range.is_some_and(|range| {
        let (place, total) = range.split_once('/').unwrap_or_default();
        let (start, _) = place.split_once('-').unwrap_or_default();
        start.parse() == Ok(from) && (total == "*" || total.parse() == Ok(size))
    })
}

/// Where the part of a file lies: `FILE.DIGEST.part`.
pub(super) fn part_path(target: &Path, etag: &str) -> PathBuf {
    let digest: String = format!("{:x}", Sha256::digest(etag)).chars().take(12).collect();
    let name = target.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    target.with_file_name(format!("{name}.{digest}.part"))
}

/// How much of a file an earlier run left, in bytes.
pub(super) fn loaded(target: &Path, remote: &Remote) -> u64 {
    std::fs::metadata(part_path(target, &remote.etag)).map_or(0, |part| part.len())
}

/// Whether a file is called as the part of one is.
pub(super) fn is_part(name: &str) -> bool {
    let digest = name.strip_suffix(".part").and_then(|rest| rest.rsplit_once('.'));
    let hexadecimal = |digest: &str| digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    digest.is_some_and(|(_, digest)| digest.len() == 12 && hexadecimal(digest))
}

/// Removes the parts of a file but one.
pub(super) fn remove_parts(target: &Path, but: Option<&Path>) -> Result<(), HubError> {
    let Some((folder, name)) = target.parent().zip(target.file_name()) else { return Ok(()) };
    let start = format!("{}.", name.to_string_lossy());
    let length = start.len() + "0123456789ab.part".len();
    for entry in std::fs::read_dir(folder).map_err(HubError::io(folder))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name.starts_with(&start) && name.len() == length && is_part(&name);
        if ours && Some(entry.path().as_path()) != but {
            std::fs::remove_file(entry.path()).map_err(HubError::io(&entry.path()))?;
        }
    }
    Ok(())
}

/// Renames a synced file into its place, for good.
pub(super) fn put(from: &Path, to: &Path) -> Result<(), HubError> {
    std::fs::rename(from, to).map_err(HubError::io(to))?;
    let Some(folder) = to.parent() else { return Ok(()) };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(HubError::io(folder))
}

/// Reads a file, and writes it to `copy` where one is wanted; gives its SHA-256 and its length.
/// `tell` hears how far it is.
pub(super) fn hash(
    path: &Path,
    copy: Option<&Path>,
    tell: Tell<'_>,
) -> Result<(String, u64), HubError> {
    let mut file = File::open(path).map_err(HubError::io(path))?;
    let mut out = copy.map(|copy| File::create(copy).map_err(HubError::io(copy))).transpose()?;
    let (mut hash, mut length, mut buffer) = (Sha256::new(), 0, vec![0; PIECE]);
    loop {
        let read = file.read(&mut buffer).map_err(HubError::io(path))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        if let (Some(out), Some(copy)) = (&mut out, copy) {
            out.write_all(bytes).map_err(HubError::io(copy))?;
        }
        length += read as u64;
        tell(Event::At(length));
    }
    if let (Some(out), Some(copy)) = (&out, copy) {
        out.sync_all().map_err(HubError::io(copy))?;
    }
    Ok((format!("{:x}", hash.finalize()), length))
}
