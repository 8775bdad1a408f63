//! The read-only memory map of a weights file: the one place outside `kernels/` with `unsafe`.
//!
//! Weights are read in place, so a file larger than memory can be loaded tensor by tensor, and the
//! pages belong to the page cache, not to this process.
#![allow(unsafe_code)] // see the SAFETY comment below: there is no safe way to map a file

use super::super::error::LoadError;
use std::{fs::File, path::Path};

/// Maps `path` read-only.
///
/// # Errors
/// [`LoadError::Io`] where the file cannot be opened or mapped (an empty file cannot).
pub(super) fn map(path: &Path) -> Result<memmap2::Mmap, LoadError> {
    let io = |source| LoadError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    // SAFETY: a map is undefined behaviour only if another process changes the file while it is
    // mapped. Weights are read-only data that this program never writes once they are in place;
    // whoever truncates them under a running server ends that server with SIGBUS, as with every
    // engine that maps its weights. The bytes are only ever read as plain numbers, for which every
    // bit pattern is valid.
    unsafe { memmap2::Mmap::map(&file) }.map_err(io)
}
