//! Where a network's matrices are while it runs, and what it takes there.

use super::entry::Entry;
use darkroom_kernels::quant::Format;
use std::{collections::HashMap, fmt};

/// Where the matrices of a network are. Convolutions, norms and biases are always unpacked, and tables
/// of embeddings always in their file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In memory, ready for a product: in the type of computation and the order of the kernels. On a
    /// CPU that are plain floats; its kernels take quantised weights best as they lie in the file.
    Unpacked,
    /// As they are in the file, and unpacked in each product: on a CPU there, as pages of the system's
    /// cache; on a GPU a copy of those bytes on the device.
    Stored,
    /// As they are in the file, and there alone: the pages of a block are fetched ahead of its use and
    /// given back behind it, and a GPU gets them for each product.
    Streamed,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unpacked => "unpacked",
            Self::Stored => "as stored",
            Self::Streamed => "streamed",
        })
    }
}

/// What a part takes, by the headers of its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Matrices that are plain floats.
    pub floats: Amount,
    /// Matrices that are quantised.
    pub quantised: Amount,
    /// Everything that is neither a matrix nor a table of embeddings.
    pub others: Amount,
    /// The largest matrix.
    pub largest: Amount,
    /// Bytes in the files of the largest block's matrices.
    pub block: u64,
    /// The format that most bytes are in.
    pub format: Option<Format>,
}

/// So much of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Numbers.
    pub numbers: u64,
    /// Their bytes in the file.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.numbers += other.numbers;
        self.bytes += other.bytes;
    }
}

/// What a tensor is, for a footprint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Matrix,
    Table,
    Other,
}

/// Tables of embeddings, of which a prompt's rows are read.
const TABLES: [&str; 3] = ["shared.weight", "embed_tokens.weight", "token_embedding.weight"];

impl Kind {
    fn of(name: &str, shape: &[usize]) -> Self {
        match shape {
            [_, _] if TABLES.iter().any(|table| name.ends_with(table)) => Self::Table,
            [_, _] if name.ends_with(".weight") => Self::Matrix,
            _ => Self::Other,
        }
    }
}

impl Footprint {
    pub(super) fn of<'a>(entries: impl Iterator<Item = (&'a str, &'a Entry)>) -> Self {
        let mut print = Self::default();
        let mut blocks: HashMap<String, u64> = HashMap::new();
        let mut formats: HashMap<&'static str, (u64, Format)> = HashMap::new();
        for (name, entry) in entries {
            let numbers = entry.shape.iter().map(|&n| n as u64).product();
            let amount = Amount { numbers, bytes: entry.len() as u64 };
            if let Some(format) = entry.format() {
                formats.entry(format.name()).or_insert((0, format)).0 += amount.bytes;
            }
            match (Kind::of(name, &entry.shape), entry.format()) {
                (Kind::Table, _) => continue,
                (Kind::Other, _) => {
                    print.others.add(amount);
                    continue;
                }
                (Kind::Matrix, Some(format)) if !is_plain(format) => print.quantised.add(amount),
                (Kind::Matrix, _) => print.floats.add(amount),
            }
            if amount.numbers > print.largest.numbers {
                print.largest = amount;
            }
            if let Some(block) = block(name) {
                *blocks.entry(block.to_owned()).or_default() += amount.bytes;
            }
        }
        print.block = blocks.into_values().max().unwrap_or_default();
        let most = formats.into_iter().max_by_key(|(name, (bytes, _))| (*bytes, *name));
        print.format = most.map(|(_, (_, format))| format);
        print
    }

    /// Bytes of memory, or of the device, where `number` is those of a number in the type of computation
    /// and `on_cpu` says whether own kernels run.
    #[must_use]
    pub fn held(&self, placement: Placement, number: u64, on_cpu: bool) -> u64 {
        let Self { floats, quantised, others, largest, .. } = self;
        // On a GPU a matrix that is not unpacked is so while it is used.
        let passing = number * largest.numbers + largest.bytes;
        let matrices = match placement {
            Placement::Unpacked if on_cpu => number * floats.numbers,
            Placement::Unpacked => number * (floats.numbers + quantised.numbers),
            Placement::Stored | Placement::Streamed if on_cpu => 0,
            Placement::Stored => number * floats.numbers + quantised.bytes + passing,
            Placement::Streamed => passing,
        };
        number * others.numbers + matrices
    }

    /// Bytes of the files that a CPU's kernels read in each pass.
    #[must_use]
    pub fn mapped(&self, placement: Placement) -> u64 {
        match placement {
            Placement::Unpacked => self.quantised.bytes,
            Placement::Stored => self.floats.bytes + self.quantised.bytes,
            Placement::Streamed => 2 * self.block,
        }
    }
}

/// Whether numbers are floats as computations have them.
pub(crate) fn is_plain(format: Format) -> bool {
    matches!(format, Format::F32 | Format::F16 | Format::BF16)
}

/// The name up to its first number, that included: `transformer_blocks.0`.
fn block(name: &str) -> Option<&str> {
    let mut end = 0;
    for piece in name.split('.') {
        end += piece.len();
        if piece.bytes().all(|byte| byte.is_ascii_digit()) && !piece.is_empty() {
            return name.get(..end);
        }
        end += 1;
    }
    None
}
