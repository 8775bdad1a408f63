//! Blocks that are read ahead of their use and given back behind it, so that of a network whose weights
//! stay in their files only two blocks are in memory at a time.

use super::{Placement, Weights, entry::Stored, files::Mapped};
use std::{ops::Range, sync::Arc};

/// Bytes between two matrices of a block for which it is not cut in two.
const GAP: usize = 64 << 10;

/// Pages of a file.
#[derive(Debug)]
struct Pages {
    file: Arc<Mapped>,
    range: Range<usize>,
}

/// The pages of a network's blocks, in the order in which they run. Where they are not streamed it has
/// none, and does nothing.
#[derive(Debug)]
pub struct Stream {
    blocks: Vec<Vec<Pages>>,
}

/// A block that is running.
#[derive(Debug)]
#[must_use = "a block is given back when this is dropped"]
pub struct Here<'a>(&'a [Pages]);

impl Stream {
    /// The matrices of each block of a network whose weights are `weights`.
    pub fn new<'a, B>(weights: &Weights, blocks: impl Iterator<Item = B>) -> Self
    where
        B: Iterator<Item = &'a Stored>,
    {
        if weights.placement() != Placement::Streamed {
            return Self { blocks: Vec::new() };
        }
        Self { blocks: blocks.map(pages).collect() }
    }

    /// Told when block `index` begins: fetches the next one, which after the last is the first.
    pub fn enter(&self, index: usize) -> Here<'_> {
        let Some(here) = self.blocks.get(index) else { return Here(&[]) };
        let next = self.blocks.get(index + 1).or(self.blocks.first());
        // What was fetched already costs nothing.
        here.iter().chain(next.into_iter().flatten()).for_each(|p| p.file.fetch(&p.range));
        Here(here)
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|pages| pages.file.let_go(&pages.range));
    }
}

/// Joins what lies close together.
fn pages<'a>(matrices: impl Iterator<Item = &'a Stored>) -> Vec<Pages> {
    let mut all: Vec<Pages> = matrices
        .filter_map(|matrix| matrix.place().map(|(file, range)| Pages { file, range }))
        .collect();
    all.sort_by_key(|pages| (Arc::as_ptr(&pages.file) as usize, pages.range.start));
    all.dedup_by(|next, last| {
        let joins = Arc::ptr_eq(&next.file, &last.file) && next.range.start <= last.range.end + GAP;
        if joins {
            last.range.end = last.range.end.max(next.range.end);
        }
        joins
    });
    all
}
