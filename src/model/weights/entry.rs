//! One tensor as it lies in its file, and a matrix of it that is computed with where it lies.

use super::{files::Mapped, header::Encoding, names::Rows};
use darkroom_kernels::quant::{self, Format};
use std::{borrow::Cow, ops::Range, path::Path, sync::Arc};

/// Bytes of a file.
#[derive(Clone, Debug)]
pub(super) struct Data {
    pub(super) file: Arc<Mapped>,
    pub(super) range: Range<usize>,
    /// Whether the second half comes first.
    pub(super) swapped: bool,
}

/// What the numbers are multiplied by.
#[derive(Clone, Debug, Default)]
pub(super) enum Scale {
    /// Nothing.
    #[default]
    One,
    /// All by the same.
    Tensor(f32),
    /// Each row by its own.
    Rows(Arc<[f32]>),
}

/// One tensor.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) data: Data,
    pub(super) encoding: Encoding,
    pub(super) shape: Vec<usize>,
    pub(super) scale: Scale,
}

impl Data {
    fn bytes(&self) -> Cow<'_, [u8]> {
        let bytes = self.file.bytes().get(self.range.clone()).unwrap_or_default();
        if !self.swapped {
            return Cow::Borrowed(bytes);
        }
        let (first, second) = bytes.split_at(bytes.len() / 2);
        Cow::Owned([second, first].concat())
    }
}

impl Scale {
    fn cut(&self, rows: Range<usize>, swapped: bool) -> Option<Self> {
        let Self::Rows(scales) = self else { return Some(self.clone()) };
        let scales = scales.get(rows)?;
        let (first, second) = scales.split_at(if swapped { scales.len() / 2 } else { 0 });
        Some(Self::Rows([second, first].concat().into()))
    }

    fn apply(&self, first_row: usize, row: usize, values: &mut [f32]) {
        match self {
            Self::One => {}
            Self::Tensor(scale) => values.iter_mut().for_each(|value| *value *= scale),
            Self::Rows(scales) => {
                let scales = scales.get(first_row..).unwrap_or_default();
                for (values, scale) in values.chunks_mut(row.max(1)).zip(scales) {
                    values.iter_mut().for_each(|value| *value *= scale);
                }
            }
        }
    }

    fn kernel(&self) -> quant::Scale<'_> {
        match self {
            Self::One => quant::Scale::One,
            Self::Tensor(scale) => quant::Scale::Tensor(*scale),
            Self::Rows(scales) => quant::Scale::Rows(scales),
        }
    }
}

impl Entry {
    /// The rows that a name stands for; nothing where they are no whole ones.
    pub(super) fn cut(mut self, rows: Rows) -> Option<Self> {
        let (from, to, of) = match rows {
            Rows::Of(from, to, of) => (from, to, of),
            Rows::Swapped => (0, 2, 2),
            Rows::Matrix => {
                while self.shape.len() > 2 && self.shape.last() == Some(&1) {
                    self.shape.pop();
                }
                (0, 1, 1)
            }
        };
        if of == 1 {
            return Some(self);
        }
        let (start, end) = (self.data.range.start, self.data.range.end);
        let (count, length) = (*self.shape.first()?, end - start);
        let whole = count > 0 && count % of == 0 && length % count == 0;
        // A cut inside a block of a quantised vector is none.
        let elements: usize = self.shape.iter().skip(1).product();
        let blocks = match self.encoding {
            Encoding::Weights(format) => format.row_bytes(elements) == Some(length / count.max(1)),
            Encoding::Bytes | Encoding::Other(_) => false,
        };
        if !whole || !blocks {
            return None;
        }
        let row = |part: usize| count / of * part;
        let byte = |part: usize| start + length / of * part;
        self.data.range = byte(from)..byte(to);
        self.data.swapped = rows == Rows::Swapped;
        self.scale = self.scale.cut(row(from)..row(to), self.data.swapped)?;
        self.shape[0] = row(to) - row(from);
        Some(self)
    }

    /// The numbers' format, or nothing where they are none to compute with.
    pub(super) fn format(&self) -> Option<Format> {
        let Encoding::Weights(format) = self.encoding else { return None };
        Some(format)
    }

    /// The file that it is in.
    pub(super) fn path(&self) -> &Path {
        &self.data.file.path
    }

    /// Bytes of it in the file.
    pub(super) fn len(&self) -> usize {
        self.data.range.len()
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> Cow<'_, [u8]> {
        self.data.bytes()
    }

    /// Whether its bytes alone say its numbers.
    pub(super) fn is_unscaled(&self) -> bool {
        matches!(self.scale, Scale::One)
    }

    /// All numbers in f32, in row-major order.
    pub(super) fn floats(&self, format: Format) -> Vec<f32> {
        let mut values = vec![0.0; self.shape.iter().product()];
        quant::dequantize(format, &self.data.bytes(), &mut values);
        let rows = self.shape.first().copied().unwrap_or(1).max(1);
        self.scale.apply(0, values.len() / rows, &mut values);
        values
    }

    /// As a matrix [n, k] where it lies; nothing where its rows are no whole blocks.
    pub(super) fn stored(&self, format: Format, n: usize, k: usize) -> Option<Stored> {
        let bytes = match self.data.bytes() {
            Cow::Borrowed(_) => Bytes::Mapped(self.data.file.clone(), self.data.range.clone()),
            Cow::Owned(bytes) => Bytes::Owned(bytes.into()),
        };
        let stored = Stored { format, n, k, bytes, scale: self.scale.clone() };
        stored.as_matrix().is_some().then_some(stored)
    }
}

#[derive(Clone, Debug)]
enum Bytes {
    Mapped(Arc<Mapped>, Range<usize>),
    Owned(Arc<[u8]>),
}

/// A matrix as it lies in its file. Cheap to clone; the file stays mapped as long as one lives.
#[derive(Clone)]
pub struct Stored {
    format: Format,
    n: usize,
    k: usize,
    bytes: Bytes,
    scale: Scale,
}

impl Stored {
    fn as_matrix(&self) -> Option<quant::Matrix<'_>> {
        quant::Matrix::new(self.format, self.n, self.k, self.bytes(), self.scale.kernel())
    }

    /// What the kernels compute with.
    #[must_use]
    pub fn matrix(&self) -> quant::Matrix<'_> {
        self.as_matrix().expect("its length was checked when it was made")
    }

    /// Rows: the outputs of a layer.
    #[must_use]
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns: the inputs of a layer.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// How its numbers are written.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Its bytes, row by row.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(file, range) => file.bytes().get(range.clone()).unwrap_or_default(),
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// Where it lies, if it is not a copy.
    pub(super) fn place(&self) -> Option<(Arc<Mapped>, Range<usize>)> {
        match &self.bytes {
            Bytes::Mapped(file, range) => Some((file.clone(), range.clone())),
            Bytes::Owned(_) => None,
        }
    }

    /// What its numbers are multiplied by, one or one for each row; nothing where they are not.
    #[must_use]
    pub fn scales(&self) -> Option<&[f32]> {
        match &self.scale {
            Scale::One => None,
            Scale::Tensor(scale) => Some(std::slice::from_ref(scale)),
            Scale::Rows(scales) => Some(scales),
        }
    }

    /// All numbers in f32, row by row.
    #[must_use]
    pub fn floats(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.n * self.k];
        quant::dequantize(self.format, self.bytes(), &mut values);
        self.scale.apply(0, self.k, &mut values);
        values
    }

    /// Writes row `row` to `values` [k] in f32. Whether there is such a row.
    pub fn row(&self, row: usize, values: &mut [f32]) -> bool {
        let length = self.format.row_bytes(self.k).unwrap_or(0);
        let start = row.checked_mul(length);
        let bytes = start.and_then(|start| self.bytes().get(start..start.checked_add(length)?));
        let Some(bytes) = bytes.filter(|_| row < self.n && values.len() == self.k) else {
            return false;
        };
        quant::dequantize(self.format, bytes, values);
        self.scale.apply(row, self.k, values);
        true
    }

    /// The rows `ids` in f32, [ids, k]: an embedding without a copy of its table. Nothing where an
    /// id is no row.
    #[must_use]
    pub fn rows(&self, ids: &[u32]) -> Option<Vec<f32>> {
        ids.iter().all(|&id| (id as usize) < self.n).then_some(())?;
        let mut values = vec![0.0; ids.len().checked_mul(self.k)?];
        for (values, &id) in values.chunks_exact_mut(self.k.max(1)).zip(ids) {
            self.row(id as usize, values);
        }
        Some(values)
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored({} [{}, {}])", self.format.name(), self.n, self.k)
    }
}
