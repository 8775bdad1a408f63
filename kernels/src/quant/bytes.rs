//! The linear layer in bytes: activations and weights are rounded to 8 bits, in groups of 32 inputs with
//! a scale for each, and multiplied as integers. It is not the layer over the dequantised weights any
//! more, but where a processor multiplies bytes it takes three fifths of the time.
//!
//! A group's dot product is exact; then it is multiplied with the product of both scales and added, in
//! the order of the inputs. So an output's bits depend on its own row and on the weights alone.

use std::cell::RefCell;
use std::ops::Range;

use super::Matrix;
use crate::linear::{Activation, check};
use crate::parallel::{self, Shared};
use crate::simd::{Bytes, BytesKernel, Isa, LANES, Lanes, load_part, store_part};

/// Inputs that have a scale.
const GROUP: usize = 32;
/// Four inputs each, that a lane takes at a time.
const QUADS: usize = GROUP / 4;
/// Inputs of a weight that are decoded at a time: a block of any format.
const INPUTS: usize = 256;
/// Groups of those.
const GROUPS: usize = INPUTS / GROUP;
/// Rows and panels of a task: the weights of a panel are decoded once for so many rows, and with their
/// codes stay in the second-level cache.
const ROWS: usize = 1024;
const PANELS: usize = 16;
/// The largest code.
const MOST: f32 = 127.0;
/// Added to a number below 2^22 it leaves the number, rounded to even, in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// The codes of 256 inputs of a panel: of each group eight times four inputs of 16 outputs, 128 above
/// their values, and the scales.
#[derive(Clone)]
struct Panel {
    codes: [Lanes; GROUPS * QUADS],
    scales: [Lanes; GROUPS],
}

impl Panel {
    const ZERO: Self = Self { codes: [Lanes::ZERO; GROUPS * QUADS], scales: [Lanes::ZERO; GROUPS] };
}

thread_local! {
    /// What a task of this thread works with.
    static PIECE: RefCell<Vec<Panel>> = const { RefCell::new(Vec::new()) };
}

/// Activations in codes.
struct Codes {
    /// Groups of a row.
    groups: usize,
    bytes: Vec<[[i8; 4]; QUADS]>,
    scales: Vec<f32>,
    /// -128 times the sum of a group's codes, as the bits of an integer.
    below: Vec<f32>,
}

/// `y = act(x w^T + bias)` with both factors rounded to 8 bits: `x` `[rows, k]`, the weights `[n, k]`,
/// `bias` `[n]`, `y` `[rows, n]`.
///
/// # Panics
///
/// If a length does not fit the sizes above.
pub fn linear_in_bytes(
    x: &[f32],
    rows: usize,
    weight: &Matrix<'_>,
    bias: Option<&[f32]>,
    act: Activation,
    y: &mut [f32],
) {
    linear_in_bytes_on(Isa::best(), x, rows, weight, bias, act, y);
}

pub(crate) fn linear_in_bytes_on(
    isa: Isa,
    x: &[f32],
    rows: usize,
    weight: &Matrix<'_>,
    bias: Option<&[f32]>,
    act: Activation,
    y: &mut [f32],
) {
    let (n, k) = (weight.n(), weight.k());
    check(x, rows, [n, k], bias, y);
    let parallel = parallel::worthwhile(rows * n * k.max(1));
    let codes = &Codes::new(isa, x, rows, k, parallel);
    let panels = n.div_ceil(LANES);
    let (row_step, panel_step) = grid(rows, panels, parallel);
    let across = panels.div_ceil(panel_step);
    let y = &Shared::new(y);
    parallel::for_each(parallel, rows.div_ceil(row_step) * across, |task| {
        let (row, panel) = (task / across * row_step, task % across * panel_step);
        let rows = row..rows.min(row + row_step);
        let panels = panel..panels.min(panel + panel_step);
        PIECE.with_borrow_mut(|piece| {
            if piece.len() < panels.len() {
                piece.resize(panels.len(), Panel::ZERO);
            }
            let mut start = 0;
            // At least once: a layer of no inputs gives its bias.
            loop {
                let inputs = start..k.min(start + INPUTS);
                for (panel, out) in panels.clone().zip(&mut *piece) {
                    let mut lanes = [Lanes::ZERO; INPUTS];
                    weight.decode(isa, panel, start, &mut lanes[..inputs.len()]);
                    isa.run_bytes(Pack { lanes: &lanes, out });
                }
                let last = inputs.end == k;
                let (rows, panels) = (rows.clone(), panels.clone());
                isa.run_bytes(Block { codes, piece, n, bias, y, rows, panels, inputs });
                start += INPUTS;
                if last {
                    break;
                }
            }
        });
        let columns = panels.start * LANES..n.min(panels.end * LANES);
        act.finish(isa, y, n, rows, columns);
    });
}

/// Rows and panels of a task: fewer if threads would else stay idle.
fn grid(rows: usize, panels: usize, parallel: bool) -> (usize, usize) {
    let (mut r, mut p) = (ROWS, PANELS);
    let wanted = if parallel { 4 * rayon::current_num_threads() } else { 1 };
    while rows.div_ceil(r) * panels.div_ceil(p) < wanted && (p > 2 || r > 64) {
        // Each halving of the rows decodes the weights once more.
        if p > 2 { p /= 2 } else { r /= 2 }
    }
    (r, p)
}

impl Codes {
    fn new(isa: Isa, x: &[f32], rows: usize, k: usize, parallel: bool) -> Self {
        let groups = k.div_ceil(GROUP);
        let count = rows * groups;
        let mut codes = Self {
            groups,
            bytes: vec![[[0; 4]; QUADS]; count],
            scales: vec![0.0; count],
            below: vec![0.0; count],
        };
        let each = groups.max(1);
        let parts = codes.bytes.chunks_mut(each).zip(codes.scales.chunks_mut(each));
        let parts = parts.zip(codes.below.chunks_mut(each)).zip(x.chunks(k.max(1)));
        let round = |(((bytes, scales), below), x)| {
            isa.run_bytes(Round { x, bytes, scales, below });
        };
        parallel::for_each_of(parallel, parts.collect(), round);
        codes
    }
}

/// Rounds a row of activations.
struct Round<'a> {
    x: &'a [f32],
    bytes: &'a mut [[[i8; 4]; QUADS]],
    scales: &'a mut [f32],
    below: &'a mut [f32],
}

impl BytesKernel for Round<'_> {
    #[inline(always)]
    fn run<S: Bytes>(self, _: S) {
        let to = self.bytes.iter_mut().zip(self.scales).zip(self.below);
        for (((bytes, scale), below), x) in to.zip(self.x.chunks(GROUP)) {
            let mut group = [0.0; GROUP];
            group[..x.len()].copy_from_slice(x);
            let most = group.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let by = if most > 0.0 { MOST / most } else { 0.0 };
            // What is no number takes its whole group with it.
            *scale = most / MOST + group.iter().fold(0.0, |taint, x| taint + 0.0 * x);
            let mut sum = 0_i32;
            for (bytes, x) in bytes.iter_mut().zip(group.as_chunks::<4>().0) {
                for (byte, x) in bytes.iter_mut().zip(x) {
                    *byte = code(x * by).to_le_bytes()[0].cast_signed();
                    sum += i32::from(*byte);
                }
            }
            *below = f32::from_bits((-128 * sum).cast_unsigned());
        }
    }
}

/// The nearest integer to `x`, which is within -127 to 127, in the lowest byte. Of a NaN it is any: its
/// scale is one too.
#[inline(always)]
fn code(x: f32) -> u32 {
    (x + ROUND).to_bits()
}

/// Rounds 256 inputs of a panel.
struct Pack<'a> {
    lanes: &'a [Lanes; INPUTS],
    out: &'a mut Panel,
}

impl BytesKernel for Pack<'_> {
    #[inline(always)]
    fn run<S: Bytes>(self, _: S) {
        let groups = self.lanes.as_chunks::<GROUP>().0;
        let codes = self.out.codes.as_chunks_mut::<QUADS>().0;
        for ((group, codes), scale) in groups.iter().zip(codes).zip(&mut self.out.scales) {
            let (mut most, mut taint) = ([0.0_f32; LANES], [0.0_f32; LANES]);
            for x in group {
                for ((most, taint), x) in most.iter_mut().zip(&mut taint).zip(x.0) {
                    *most = most.max(x.abs());
                    *taint += 0.0 * x;
                }
            }
            let mut by = [0.0; LANES];
            let to = by.iter_mut().zip(&mut scale.0);
            for ((by, scale), (most, taint)) in to.zip(most.into_iter().zip(taint)) {
                *by = if most > 0.0 { MOST / most } else { 0.0 };
                *scale = most / MOST + taint; // as for activations
            }
            for (to, from) in codes.iter_mut().zip(group.as_chunks::<4>().0) {
                let mut words = [0_u32; LANES];
                for (i, x) in from.iter().enumerate() {
                    for ((word, x), by) in words.iter_mut().zip(x.0).zip(by) {
                        *word |= (code(x * by) & 0xff) << (8 * i);
                    }
                }
                for (to, word) in to.0.iter_mut().zip(words) {
                    *to = f32::from_bits(word ^ 0x8080_8080); // each byte 128 higher
                }
            }
        }
    }
}

/// One rectangle of the output, and up to 256 inputs.
struct Block<'a> {
    codes: &'a Codes,
    piece: &'a [Panel],
    n: usize,
    bias: Option<&'a [f32]>,
    y: &'a Shared<'a>,
    rows: Range<usize>,
    panels: Range<usize>,
    inputs: Range<usize>,
}

impl BytesKernel for Block<'_> {
    #[inline(always)]
    fn run<S: Bytes>(self, s: S) {
        match S::TILE {
            [6, 2] => self.sweep::<S, 6, 2>(s),
            [4, 1] => self.sweep::<S, 4, 1>(s),
            _ => self.sweep::<S, 3, 1>(s),
        }
    }
}

impl Block<'_> {
    #[inline(always)]
    fn sweep<S: Bytes, const R: usize, const P: usize>(&self, s: S) {
        let mut panel = self.panels.start;
        while panel < self.panels.end {
            let paired = panel + P <= self.panels.end;
            let mut row = self.rows.start;
            while row < self.rows.end {
                let rows = row..self.rows.end.min(row + R);
                match (rows.len() == R, paired) {
                    (true, true) => self.tile::<S, R, P>(s, rows, panel),
                    (true, false) => self.tile::<S, R, 1>(s, rows, panel),
                    (false, _) => {
                        for row in rows {
                            for panel in panel..self.panels.end.min(panel + P) {
                                self.tile::<S, 1, 1>(s, row..row + 1, panel);
                            }
                        }
                    }
                }
                row += R;
            }
            panel += P;
        }
    }

    #[inline(always)]
    fn tile<S: Bytes, const R: usize, const P: usize>(
        &self,
        s: S,
        rows: Range<usize>,
        panel: usize,
    ) {
        let n = self.n;
        let columns = panel * LANES..n.min((panel + P) * LANES);
        // SAFETY: the rectangle belongs to this task, which holds one part at a time.
        let part = |row: usize| unsafe { self.y.part(row * n + columns.start, columns.len()) };
        let mut sums = [[s.splat(0.0); P]; R];
        for (i, sums) in sums.iter_mut().enumerate() {
            let from = match self.bias {
                _ if self.inputs.start > 0 => &*part(rows.start + i),
                Some(bias) => &bias[columns.clone()],
                None => continue,
            };
            for (sum, from) in sums.iter_mut().zip(from.chunks(LANES)) {
                *sum = load_part(s, from, 0.0);
            }
        }
        let first = self.inputs.start / GROUP;
        for group in 0..self.inputs.len().div_ceil(GROUP) {
            let at = |i: usize| (rows.start + i) * self.codes.groups + first + group;
            let mut dots = [[s.splat(0.0); P]; R];
            if S::BIASED {
                for (i, dots) in dots.iter_mut().enumerate() {
                    *dots = [s.splat(self.codes.below[at(i)]); P];
                }
            }
            let mut x = [&[[0; 4]; QUADS]; R];
            for (i, x) in x.iter_mut().enumerate() {
                *x = &self.codes.bytes[at(i)];
            }
            let mut weights = [&[][..]; P];
            let mut scales = [s.splat(0.0); P];
            for p in 0..P {
                let panel = &self.piece[panel - self.panels.start + p];
                weights[p] = &panel.codes[group * QUADS..][..QUADS];
                scales[p] = s.load(&panel.scales[group].0);
            }
            for quad in 0..QUADS {
                let mut w = [s.splat(0.0); P];
                for p in 0..P {
                    w[p] = s.load(&weights[p][quad].0);
                }
                for i in 0..R {
                    for p in 0..P {
                        dots[i][p] = s.dot(dots[i][p], w[p], x[i][quad]);
                    }
                }
            }
            for i in 0..R {
                let scale = s.splat(self.codes.scales[at(i)]);
                for p in 0..P {
                    let by = s.mul(scale, scales[p]);
                    sums[i][p] = s.fma(s.to_float(dots[i][p]), by, sums[i][p]);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (sum, y) in sums.into_iter().zip(part(rows.start + i).chunks_mut(LANES)) {
                store_part(s, sum, y);
            }
        }
    }
}
