//! Pictures in and out: files, or the pipe that `-` stands for.

use super::CliError;
use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
};

/// The largest file that is taken as a picture, in bytes.
const MAX_INPUT: u64 = 256 << 20;

/// What an argument is called in messages.
pub(super) fn name(path: &Path) -> String {
    if is_pipe(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// Whether an argument stands for a pipe.
pub(super) fn is_pipe(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Reads a file, or standard input.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |source| CliError::Read { name: name(path), source };
    let mut bytes = Vec::new();
    let limit = MAX_INPUT + 1;
    let count = if is_pipe(path) {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    if count.map_err(failed)? as u64 > MAX_INPUT {
        let reason = format!("it is larger than {} MiB", MAX_INPUT >> 20);
        return Err(failed(std::io::Error::other(reason)));
    }
    Ok(bytes)
}

/// Writes a file whole or not at all, or standard output.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let written = if is_pipe(path) {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush())
    } else {
        replace(path, bytes)
    };
    written.map_err(|source| {
        let name = if is_pipe(path) { "standard output".to_owned() } else { name(path) };
        CliError::Write { name, source: source.into() }
    })
}

/// Writes beside `path`, then renames: what was there stays until the new file is complete.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // A device or pipe is written to, not replaced.
    if path.exists() && !path.is_file() {
        return std::fs::write(path, bytes);
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let done = std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path));
    if done.is_err() {
        // The first error is the one to tell.
        drop(std::fs::remove_file(&partial));
    }
    done
}

/// A name for a result in the working folder: `stem-suffix.extension`, numbered where that is taken.
pub(super) fn free_name(stem: &str, suffix: &str, extension: &str) -> PathBuf {
    let base = format!("{stem}-{suffix}");
    let numbered = (2..).map(|n| format!("{base}-{n}"));
    let mut names = std::iter::once(base.clone()).chain(numbered);
    let free = names.find_map(|name| {
        let path = PathBuf::from(format!("{name}.{extension}"));
        (!path.exists()).then_some(path)
    });
    free.unwrap_or_else(|| PathBuf::from(format!("{base}.{extension}")))
}
