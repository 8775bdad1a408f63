//! The read-only memory map of a weights file: the one place outside `kernels/` with `unsafe`.
//!
//! Weights are read in place, so a file larger than memory can be loaded tensor by tensor, and the
//! pages belong to the page cache, not to this process.
#![allow(unsafe_code)] // see the SAFETY comment below: there is no safe way to map a file

use super::super::error::LoadError;
use memmap2::{Advice, Mmap, UncheckedAdvice};
use std::{fs::File, ops::Range, path::Path};

/// Maps `path` read-only.
///
/// # Errors
/// [`LoadError::Io`] where the file cannot be opened or mapped (an empty file cannot).
pub(super) fn map(path: &Path) -> Result<Mmap, LoadError> {
    let io = |source| LoadError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    // SAFETY: a map is undefined behaviour only if another process changes the file while it is
    // mapped. Weights are read-only data that this program never writes once they are in place;
    // whoever truncates them under a running server ends that server with SIGBUS, as with every
    // engine that maps its weights. The bytes are only ever read as plain numbers, for which every
    // bit pattern is valid.
    unsafe { Mmap::map(&file) }.map_err(io)
}

/// Asks the system to read `range` ahead. That it does not is no fault: then it reads on use.
pub(super) fn fetch(map: &Mmap, range: &Range<usize>) {
    let _ = map.advise_range(Advice::WillNeed, range.start, range.len());
}

/// Takes the pages of `range` out of this process.
pub(super) fn let_go(map: &Mmap, range: &Range<usize>) {
    // SAFETY: on memory of its own this advice would throw data away. These are unchanged pages of a
    // file that is mapped read-only: whoever reads them afterwards gets the file's bytes again.
    let advice =
        unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    let _ = advice; // where it is not taken, the pages stay
}
