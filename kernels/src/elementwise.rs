//! The gated residual, and an activation by itself.

use crate::linear::Activation;
use crate::norm::{check_sequences, each_row_block};
use crate::simd::{Isa, Kernel, LANES, Simd, load_part, store_part};

/// `y = x + gate[seq] * u`: `x`, `u` and `y` `[rows, c]`, `gate` `[sequences, c]`; `seq_of_row`
/// names each row's sequence.
///
/// # Panics
///
/// If a length does not fit the sizes above, or a row's sequence is none of `gate`'s.
pub fn gated_add(x: &[f32], gate: &[f32], u: &[f32], c: usize, seq_of_row: &[u32], y: &mut [f32]) {
    gated_add_on(Isa::best(), x, gate, u, c, seq_of_row, y);
}

pub(crate) fn gated_add_on(
    isa: Isa,
    x: &[f32],
    gate: &[f32],
    u: &[f32],
    c: usize,
    seq_of_row: &[u32],
    y: &mut [f32],
) {
    let rows = seq_of_row.len();
    assert_eq!(x.len(), rows * c, "x of [{rows}, {c}]");
    assert_eq!(u.len(), rows * c, "the update of [{rows}, {c}]");
    assert_eq!(y.len(), rows * c, "the output of [{rows}, {c}]");
    check_sequences(seq_of_row, gate, c);
    each_row_block(y, c, |rows, y| {
        let part = rows.start * c..rows.end * c;
        let (x, u, seq_of_row) = (&x[part.clone()], &u[part], &seq_of_row[rows]);
        isa.run(GatedAdd { x, gate, u, c, seq_of_row, y });
    });
}

struct GatedAdd<'a> {
    x: &'a [f32],
    gate: &'a [f32],
    u: &'a [f32],
    c: usize,
    seq_of_row: &'a [u32],
    y: &'a mut [f32],
}

impl Kernel for GatedAdd<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let c = self.c;
        for (row, &seq) in self.seq_of_row.iter().enumerate() {
            let at = row * c;
            let gate = self.gate[seq as usize * c..][..c].chunks(LANES);
            let (x, u) = (self.x[at..][..c].chunks(LANES), self.u[at..][..c].chunks(LANES));
            let y = self.y[at..][..c].chunks_mut(LANES);
            for (((x, u), gate), y) in x.zip(u).zip(gate).zip(y) {
                let (x, u) = (load_part(s, x, 0.0), load_part(s, u, 0.0));
                store_part(s, s.fma(load_part(s, gate, 0.0), u, x), y);
            }
        }
    }
}

/// `y = act(y)`: what [`linear`](crate::linear) does with its outputs, to the bit, for a caller that
/// has changed them first.
pub fn activate(y: &mut [f32], act: Activation) {
    activate_on(Isa::best(), y, act);
}

pub(crate) fn activate_on(isa: Isa, y: &mut [f32], act: Activation) {
    if act != Activation::None {
        each_row_block(y, 1, |_, y| activate_row(isa, y, act));
    }
}

/// Takes `y` through `act` on this thread.
pub(crate) fn activate_row(isa: Isa, y: &mut [f32], act: Activation) {
    isa.run(Activate { y, act });
}

struct Activate<'a> {
    y: &'a mut [f32],
    act: Activation,
}

impl Kernel for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for y in self.y.chunks_mut(LANES) {
            store_part(s, self.act.apply(s, load_part(s, y, 0.0)), y);
        }
    }
}
