//! The blocked matrix product behind `linear`, `conv` and `quant`: rows that a [`Source`] hands out,
//! times the panels of [`Weights`], plus bias, through an activation.
//!
//! The activation goes over a task's outputs at its end: inside the tiles it would be compiled once for
//! each of them.
//!
//! Blocks, tiles and threads only decide when an element is computed. Each one starts from its bias
//! and takes its products in ascending order of the input's index; between blocks of inputs the sum
//! so far waits in the output.

use std::ops::Range;

use crate::linear::Activation;
use crate::parallel::{self, Shared};
use crate::simd::{Isa, Kernel, LANES, Lanes, Simd, load_part};
use crate::tile::{MAX_TILE_ROWS, accumulate};

/// Inputs taken at a time: twelve rows of as many stay in the first-level cache.
const INPUTS: usize = 384;
/// Room between the rows of a strip, so that they do not all fall into one set of the cache.
const STRIDE: usize = INPUTS + LANES;
/// Rows and panels of a task. The weights of a block, `PANELS * INPUTS` cache lines, stay in the
/// second-level cache while the rows pass by.
const ROWS: usize = 192;
const PANELS: usize = 16;

/// The left matrix, read piece by piece.
pub(crate) trait Source: Sync {
    /// Writes the inputs `start ..` of row `row`, as many as `to` holds.
    fn read(&self, row: usize, start: usize, to: &mut [f32]);
}

/// The right matrix, `[n, k]`, which hands out its weights in panels of 16 outputs.
pub(crate) trait Weights: Sync {
    fn n(&self) -> usize;
    fn k(&self) -> usize;
    /// Calls `task` with all inputs of the panels `panels`: piece by piece in ascending order, and
    /// at least once.
    fn pieces(&self, isa: Isa, panels: Range<usize>, task: impl FnMut(Piece<'_>));
}

/// Some inputs of some panels.
#[derive(Clone)]
pub(crate) struct Piece<'a> {
    /// The panels, `stride` lanes apart.
    pub(crate) lanes: &'a [Lanes],
    pub(crate) stride: usize,
    pub(crate) panels: Range<usize>,
    pub(crate) inputs: Range<usize>,
}

impl Piece<'_> {
    #[inline(always)]
    fn panel(&self, panel: usize, inputs: Range<usize>) -> &[Lanes] {
        let lanes = &self.lanes[(panel - self.panels.start) * self.stride..];
        &lanes[inputs.start - self.inputs.start..][..inputs.len()]
    }
}

/// `y = act(a w^T + bias)`, `y` row by row `[rows, n]`.
pub(crate) fn product(
    isa: Isa,
    a: &impl Source,
    rows: usize,
    weight: &impl Weights,
    bias: Option<&[f32]>,
    act: Activation,
    y: &mut [f32],
) {
    let (n, k) = (weight.n(), weight.k());
    let panels = n.div_ceil(LANES);
    let parallel = parallel::worthwhile(2 * rows * n * k.max(1));
    let (row_step, panel_step) = grid(rows, panels, parallel);
    let across = panels.div_ceil(panel_step);
    let y = &Shared::new(y);
    parallel::for_each(parallel, rows.div_ceil(row_step) * across, |task| {
        let (row, panel) = (task / across * row_step, task % across * panel_step);
        let rows = row..rows.min(row + row_step);
        let panels = panel..panels.min(panel + panel_step);
        weight.pieces(isa, panels.clone(), |weight| {
            isa.run(Block { a, weight, n, bias, y, rows: rows.clone() });
        });
        let columns = panels.start * LANES..n.min(panels.end * LANES);
        act.finish(isa, y, n, rows, columns);
    });
}

/// Rows and panels of a task: fewer than would suit the caches if threads would else stay idle.
fn grid(rows: usize, panels: usize, parallel: bool) -> (usize, usize) {
    let (mut r, mut p) = (ROWS, PANELS);
    let wanted = if parallel { 4 * rayon::current_num_threads() } else { 1 };
    while rows.div_ceil(r) * panels.div_ceil(p) < wanted {
        if r > 2 * MAX_TILE_ROWS {
            r /= 2;
        } else if p > 2 {
            p /= 2;
        } else {
            break;
        }
    }
    (r, p)
}

/// One rectangle of the output, and the inputs of a piece.
struct Block<'a, A> {
    a: &'a A,
    weight: Piece<'a>,
    n: usize,
    bias: Option<&'a [f32]>,
    y: &'a Shared<'a>,
    rows: Range<usize>,
}

/// The inputs of one row of tiles.
type Strip = [[f32; STRIDE]; MAX_TILE_ROWS];

impl<A: Source> Kernel for Block<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut strip: Strip = [[0.0; STRIDE]; MAX_TILE_ROWS];
        let Range { mut start, end } = self.weight.inputs;
        // At least once: a layer of no inputs gives its bias.
        loop {
            let inputs = start..end.min(start + INPUTS);
            for row in self.rows.clone().step_by(S::TILE_ROWS) {
                let rows = row..self.rows.end.min(row + S::TILE_ROWS);
                for (row, to) in rows.clone().zip(&mut strip) {
                    self.a.read(row, start, &mut to[..inputs.len()]);
                }
                // Rows beyond those wanted are computed from what the strip held, and dropped.
                match rows.len().min(S::TILE_ROWS) {
                    1 => self.sweep::<S, 1>(s, &strip, rows, inputs.clone()),
                    2 => self.sweep::<S, 2>(s, &strip, rows, inputs.clone()),
                    3..=4 => self.sweep::<S, 4>(s, &strip, rows, inputs.clone()),
                    5..=6 => self.sweep::<S, 6>(s, &strip, rows, inputs.clone()),
                    7..=8 => self.sweep::<S, 8>(s, &strip, rows, inputs.clone()),
                    _ => self.sweep::<S, MAX_TILE_ROWS>(s, &strip, rows, inputs.clone()),
                }
            }
            start = inputs.end;
            if start == end {
                break;
            }
        }
    }
}

impl<A: Source> Block<'_, A> {
    /// Takes a strip past all panels.
    #[inline(always)]
    fn sweep<S: Simd, const R: usize>(
        &self,
        s: S,
        strip: &Strip,
        rows: Range<usize>,
        inputs: Range<usize>,
    ) {
        let Range { start: mut panel, end } = self.weight.panels;
        while R <= S::PAIRED_ROWS && panel + 2 <= end {
            self.tile::<S, R, 2>(s, strip, rows.clone(), inputs.clone(), panel);
            panel += 2;
        }
        while panel < end {
            self.tile::<S, R, 1>(s, strip, rows.clone(), inputs.clone(), panel);
            panel += 1;
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const P: usize>(
        &self,
        s: S,
        strip: &Strip,
        rows: Range<usize>,
        inputs: Range<usize>,
        panel: usize,
    ) {
        let n = self.n;
        let columns = panel * LANES..n.min((panel + P) * LANES);
        // SAFETY: the rectangle belongs to this task, which holds one part at a time.
        let part = |row: usize| unsafe { self.y.part(row * n + columns.start, columns.len()) };
        // A tile at an edge passes through this block of memory, so that the code for that exists once
        // and not for each register.
        let mut block = [[Lanes::ZERO; P]; R];
        let whole = rows.len() == R && columns.len() == P * LANES;

        let mut sums = [[s.splat(0.0); P]; R];
        if inputs.start == 0 {
            let mut start = [s.splat(0.0); P];
            if let Some(bias) = self.bias {
                for (start, bias) in start.iter_mut().zip(bias[columns.clone()].chunks(LANES)) {
                    *start = load_part(s, bias, 0.0);
                }
            }
            sums = [start; R];
        } else if whole {
            for (i, sums) in sums.iter_mut().enumerate() {
                let y = part(rows.start + i).as_chunks::<LANES>().0;
                for (sum, y) in sums.iter_mut().zip(&y[..P]) {
                    *sum = s.load(y);
                }
            }
        } else {
            for (row, block) in rows.clone().zip(&mut block) {
                for (to, from) in block.iter_mut().zip(part(row).chunks(LANES)) {
                    to.0[..from.len()].copy_from_slice(from);
                }
            }
            for (sum, from) in sums.as_flattened_mut().iter_mut().zip(block.as_flattened()) {
                *sum = s.load(&from.0);
            }
        }

        let mut a = [&strip[0][..]; R];
        let mut b = [&[][..]; P];
        for (a, row) in a.iter_mut().zip(strip) {
            *a = &row[..inputs.len()];
        }
        for (p, b) in b.iter_mut().enumerate() {
            *b = self.weight.panel(panel + p, inputs.clone());
        }
        let sums = accumulate(s, sums, a, b);

        if whole {
            for (i, sums) in sums.iter().enumerate() {
                let y = part(rows.start + i).as_chunks_mut::<LANES>().0;
                for (&sum, y) in sums.iter().zip(&mut y[..P]) {
                    s.store(sum, y);
                }
            }
            return;
        }
        for (&sum, to) in sums.as_flattened().iter().zip(block.as_flattened_mut()) {
            s.store(sum, &mut to.0);
        }
        for (row, from) in rows.zip(&block) {
            for (y, from) in part(row).chunks_mut(LANES).zip(from) {
                y.copy_from_slice(&from.0[..y.len()]);
            }
        }
    }
}
