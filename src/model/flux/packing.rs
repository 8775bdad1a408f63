//! Where each sequence's rows lie in the packed matrices of a batch.

use super::Sequence;
use crate::model::{
    ops::{Ops, Patches, RowMap, Segment, Weighted},
    rope::Rope,
};
use candle_core::{Result, Tensor};
use std::ops::Range;

/// The layout of one batch. All matrices are [text of all sequences | image of all sequences].
pub(super) struct Packing {
    /// For attention: each sequence's text rows and image rows in the whole matrix.
    pub(super) segments: Vec<Segment>,
    /// Sequence of each row of the text part, the image part, the whole, and the targets.
    pub(super) text_rows: RowMap,
    pub(super) image_rows: RowMap,
    pub(super) all_rows: RowMap,
    pub(super) target_rows: RowMap,
    /// The sequences' adapters, for the rows of each of these matrices.
    pub(super) patches: AllPatches,
    /// Angles of all rows.
    pub(super) rope: Rope,
    /// Rows of the text part.
    pub(super) texts: usize,
    /// Rows of the image part.
    pub(super) images: usize,
    /// The targets' rows in the whole matrix.
    targets: Vec<Range<usize>>,
    /// Each sequence's rows in the text part, and in the image part.
    pub(super) spans: Vec<[Range<usize>; 2]>,
}

/// Those rows of `x`, range after range.
pub(super) fn rows(x: &Tensor, ranges: impl Iterator<Item = Range<usize>>) -> Result<Tensor> {
    let parts: Vec<Tensor> =
        ranges.map(|range| x.narrow(0, range.start, range.len())).collect::<Result<_>>()?;
    Tensor::cat(&parts, 0)
}

/// What adapters do to the rows of each matrix of a batch.
pub(super) struct AllPatches {
    /// Of the matrices with one row for each sequence.
    pub(super) sequences: Patches,
    pub(super) texts: Patches,
    pub(super) images: Patches,
    pub(super) all: Patches,
    pub(super) targets: Patches,
}

impl Packing {
    pub(super) fn new(sequences: &[&Sequence<'_>], ops: Ops, half_head: usize) -> Result<Self> {
        let mut text_of = Vec::new();
        let mut image_of = Vec::new();
        let mut target_of = Vec::new();
        let mut texts = Vec::new();
        let mut images = Vec::new();
        for (index, sequence) in (0u32..).zip(sequences) {
            let (text, image) = (sequence.text.dim(0)?, sequence.image.dim(0)?);
            texts.push(text_of.len()..text_of.len() + text);
            images.push(image_of.len()..image_of.len() + image);
            text_of.extend(std::iter::repeat_n(index, text));
            image_of.extend(std::iter::repeat_n(index, image));
            target_of.extend(std::iter::repeat_n(index, sequence.target));
        }
        let after = text_of.len();
        let shifted = |r: &Range<usize>| r.start + after..r.end + after;
        let segments =
            texts.iter().zip(&images).map(|(t, i)| Segment { ranges: [t.clone(), shifted(i)] });
        let targets = images.iter().zip(sequences).map(|(i, s)| {
            let start = i.start + after;
            start..start + s.target
        });

        let Some(device) = sequences.first().map(|s| s.image.device().clone()) else {
            candle_core::bail!("a batch of no sequences");
        };
        let still = Rope::still(after, half_head, &device)?;
        let angles = |first: &Tensor, of: fn(&Rope) -> &Tensor| {
            let rest = sequences.iter().map(|s| of(s.rope));
            Tensor::cat(&std::iter::once(first).chain(rest).collect::<Vec<_>>(), 0)
        };
        let rope =
            Rope { cos: angles(&still.cos, |r| &r.cos)?, sin: angles(&still.sin, |r| &r.sin)? };
        let all_of = [text_of.as_slice(), image_of.as_slice()].concat();
        let adapters: Vec<&[Weighted]> = sequences.iter().map(|s| s.adapters).collect();
        let each: Vec<u32> = (0u32..).take(sequences.len()).collect();
        let patches = AllPatches {
            sequences: Patches::new(&each, &adapters),
            texts: Patches::new(&text_of, &adapters),
            images: Patches::new(&image_of, &adapters),
            all: Patches::new(&all_of, &adapters),
            targets: Patches::new(&target_of, &adapters),
        };
        Ok(Self {
            segments: segments.collect(),
            targets: targets.collect(),
            patches,
            spans: texts.iter().cloned().zip(images).map(|(t, i)| [t, i]).collect(),
            texts: text_of.len(),
            images: image_of.len(),
            text_rows: RowMap::new(text_of, ops, &device)?,
            image_rows: RowMap::new(image_of, ops, &device)?,
            all_rows: RowMap::new(all_of, ops, &device)?,
            target_rows: RowMap::new(target_of, ops, &device)?,
            rope,
        })
    }

    /// The targets' rows of the whole matrix, sequence after sequence.
    pub(super) fn targets(&self, x: &Tensor) -> Result<Tensor> {
        rows(x, self.targets.iter().cloned())
    }

    /// The prediction of each sequence.
    pub(super) fn split_targets(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let mut start = 0;
        let mut parts = Vec::with_capacity(self.targets.len());
        for range in &self.targets {
            parts.push(x.narrow(0, start, range.len())?.contiguous()?);
            start += range.len();
        }
        Ok(parts)
    }
}
