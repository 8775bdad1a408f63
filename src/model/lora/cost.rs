//! What an adapter takes in memory and computes, from the header of its file.

use super::{
    matrix::{cover, packed_bytes},
    names::Part,
    plan::{Change, Form},
};
use crate::model::weights::{Target, TensorFile};
use std::ops::Range;

impl Change {
    /// The rank of each product that a layer will be given.
    fn rank(&self, file: &TensorFile) -> usize {
        let columns = |name: &String| file.shape(name).first().copied().unwrap_or(0);
        match &self.form {
            Form::LowRank { down, .. } => columns(down),
            Form::Hadamard([[_, first], [_, second]]) => {
                columns(first).saturating_mul(columns(second))
            }
            _ => 0,
        }
    }

    /// The matrices [n, k] that it becomes, for each of its layers.
    fn matrices(&self, file: &TensorFile) -> Vec<Vec<[usize; 2]>> {
        let (k, rank) = (self.place.inputs, self.rank(file));
        let of = |part: &Part| {
            let n: usize = part.rows.iter().map(Range::len).sum();
            match &self.form {
                Form::LowRank { .. } | Form::Hadamard(_) => vec![[rank, k], [n, rank]],
                Form::Whole(_) => vec![[n, k]],
                Form::Nothing => Vec::new(),
                Form::Kronecker([first, second]) => {
                    let [c, d] = second.shape;
                    let inner = match second.rank {
                        Some(rank) => vec![[rank, d], [c, rank]],
                        None => vec![[c, d]],
                    };
                    let outer = cover(&part.rows, c);
                    std::iter::once([outer.len(), first.shape[1]]).chain(inner).collect()
                }
            }
        };
        self.place.parts.iter().map(of).collect()
    }

    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self, file: &TensorFile, target: &Target) -> u64 {
        let matrices = self.matrices(file).into_iter().flatten();
        let vectors = 3 * 4 * (self.place.outputs + self.place.inputs) as u64;
        matrices.map(|[n, k]| packed_bytes(n, k, target)).sum::<u64>() + vectors
    }

    /// What loading it costs, in bytes of matrices that take as long: for norms the layer's own
    /// weights are read too.
    pub(super) fn cost(&self, file: &TensorFile, target: &Target) -> u64 {
        let own = if self.magnitude.is_some() { 4 } else { 0 };
        let (n, k) = (self.place.outputs as u64, self.place.inputs as u64);
        self.bytes(file, target).saturating_add(own * n * k)
    }

    /// Multiply-adds for each row, about: a Kronecker product takes its inner factor once for each
    /// column of the outer one.
    pub(super) fn work(&self, file: &TensorFile) -> u64 {
        let product = |[n, k]: [usize; 2]| (n as u64).saturating_mul(k as u64);
        let times = |i: usize| match &self.form {
            Form::Kronecker([_, second]) if i == 0 => second.shape[0] as u64,
            Form::Kronecker([first, _]) => first.shape[1] as u64,
            _ => 1,
        };
        let of = |matrices: Vec<[usize; 2]>| -> u64 {
            matrices.into_iter().enumerate().map(|(i, m)| product(m).saturating_mul(times(i))).sum()
        };
        self.matrices(file).into_iter().map(of).sum()
    }
}
