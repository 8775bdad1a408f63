//! From the bytes of 16 rows to a panel: every format is unpacked with a row in each lane.
//!
//! The one step that moves numbers between lanes is [`Simd::words`], which turns 32 bytes of each
//! row into eight vectors of words. Scales, minimums and weights are then cut out of the words by
//! shifts, for all 16 rows at once.

use super::{Format, floats, k_quants, legacy};
use crate::parallel;
use crate::simd::{Isa, Kernel, LANES, Lanes, Simd};

/// A whole number of blocks of any format: weights of a row in the blocks that [`dequantize`]
/// treats as rows of a matrix.
const RUN: usize = 256;

/// Bytes of 16 rows, all from the same input on; none is shorter than the last.
pub(super) type Rows<'a> = [&'a [u8]; LANES];

/// What a format's decoder reads: one unit of each of 16 rows.
#[derive(Clone, Copy)]
pub(super) struct Unit<'a, S> {
    pub(super) s: S,
    rows: &'a Rows<'a>,
    at: usize,
}

impl<S: Simd> Unit<'_, S> {
    /// The words from byte `offset` of the unit on. Beyond the end of a row there are zeros.
    #[inline(always)]
    pub(super) fn words(&self, offset: usize) -> [S::V; 8] {
        let start = self.at + offset;
        let padded;
        let mut rows = [&[0; 32]; LANES];
        if start + 32 <= self.rows[LANES - 1].len() {
            for (to, row) in rows.iter_mut().zip(self.rows) {
                *to = row[start..][..32].as_array().expect("a slice of 32 bytes");
            }
        } else {
            padded = pad(self.rows, start);
            rows = padded.each_ref();
        }
        self.s.words(rows)
    }

    /// The word at byte `offset`.
    #[inline(always)]
    pub(super) fn word(&self, offset: usize) -> S::V {
        self.words(offset)[0]
    }

    /// `count` bits of `word` from bit `from` on, as bits.
    #[inline(always)]
    pub(super) fn bits(&self, word: S::V, from: u32, count: u32) -> S::V {
        let mask = self.s.splat(f32::from_bits((1 << count) - 1));
        self.s.and(self.s.shr(word, from), mask)
    }

    /// `count` bits of `word` from bit `from` on, as a number.
    #[inline(always)]
    pub(super) fn number(&self, word: S::V, from: u32, count: u32) -> S::V {
        self.s.to_float(self.bits(word, from, count))
    }

    /// Byte `i` of `word`, as a signed number.
    #[inline(always)]
    pub(super) fn signed(&self, word: S::V, i: u32) -> S::V {
        self.s.to_float(self.s.sar(self.s.shl(word, 24 - 8 * i), 24))
    }

    /// The half-precision number in the lower half of `word`.
    #[inline(always)]
    pub(super) fn half(&self, word: S::V) -> S::V {
        floats::half(self.s, word)
    }
}

/// 32 bytes of each row, zeros beyond its end.
#[cold]
fn pad(rows: &Rows<'_>, start: usize) -> [[u8; 32]; LANES] {
    let mut padded = [[0; 32]; LANES];
    for (to, row) in padded.iter_mut().zip(rows) {
        for (to, byte) in to.iter_mut().zip(row.iter().skip(start)) {
            *to = *byte;
        }
    }
    padded
}

/// A format that is read `N` weights at a time.
pub(super) trait Decoder<const N: usize> {
    /// Bytes of `N` weights.
    const BYTES: usize;

    /// Writes the weights of a unit: `out[i]` holds weight `i` of each row.
    fn decode<S: Simd>(unit: Unit<'_, S>, out: &mut [Lanes; N]);
}

#[inline(always)]
fn units<S: Simd, D: Decoder<N>, const N: usize>(s: S, rows: &Rows<'_>, out: &mut [Lanes]) {
    let (whole, rest) = out.as_chunks_mut::<N>();
    let end = whole.len() * D::BYTES;
    for (i, out) in whole.iter_mut().enumerate() {
        D::decode(Unit { s, rows, at: i * D::BYTES }, out);
    }
    if !rest.is_empty() {
        let mut out = [Lanes::ZERO; N];
        D::decode(Unit { s, rows, at: end }, &mut out);
        rest.copy_from_slice(&out[..rest.len()]);
    }
}

/// Writes the first `out.len()` weights of each row: `out[i]` holds weight `i` of each.
///
/// The one place where the decoders are compiled: they are long.
pub(super) fn decode(isa: Isa, format: Format, rows: &Rows<'_>, out: &mut [Lanes]) {
    isa.run(Decode { format, rows, out });
}

struct Decode<'a> {
    format: Format,
    rows: &'a Rows<'a>,
    out: &'a mut [Lanes],
}

impl Kernel for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { format, rows, out } = self;
        match format {
            Format::F32 => units::<S, floats::F32, 8>(s, rows, out),
            Format::F16 => units::<S, floats::F16, 16>(s, rows, out),
            Format::BF16 => units::<S, floats::Bf16, 16>(s, rows, out),
            Format::F8E4M3 => units::<S, floats::F8e4m3, 32>(s, rows, out),
            Format::F8E5M2 => units::<S, floats::F8e5m2, 32>(s, rows, out),
            Format::Q8_0 => units::<S, legacy::Q8_0, 32>(s, rows, out),
            Format::Q5_0 => units::<S, legacy::Q5_0, 32>(s, rows, out),
            Format::Q5_1 => units::<S, legacy::Q5_1, 32>(s, rows, out),
            Format::Q4_0 => units::<S, legacy::Q4_0, 32>(s, rows, out),
            Format::Q4_1 => units::<S, legacy::Q4_1, 32>(s, rows, out),
            Format::Q6K => units::<S, k_quants::Q6K, 256>(s, rows, out),
            Format::Q5K => units::<S, k_quants::Q5K, 256>(s, rows, out),
            Format::Q4K => units::<S, k_quants::Q4K, 256>(s, rows, out),
            Format::Q3K => units::<S, k_quants::Q3K, 256>(s, rows, out),
            Format::Q2K => units::<S, k_quants::Q2K, 256>(s, rows, out),
        }
    }
}

/// Writes to `out` the numbers that `bytes`, whole blocks of `format`, stand for.
///
/// They have the bits that gguf-py's `dequantize`, or torch's conversion to `float32`, gives.
///
/// # Panics
///
/// If the lengths do not fit each other.
pub fn dequantize(format: Format, bytes: &[u8], out: &mut [f32]) {
    dequantize_on(Isa::best(), format, bytes, out);
}

pub(crate) fn dequantize_on(isa: Isa, format: Format, bytes: &[u8], out: &mut [f32]) {
    let expected = format.row_bytes(out.len());
    assert_eq!(expected, Some(bytes.len()), "bytes of {} weights in {}", out.len(), format.name());
    let run = RUN / format.block() * format.block_bytes();
    let parallel = parallel::worthwhile(4 * out.len());
    parallel::for_each_chunk(parallel, out, RUN * LANES, |i, out| {
        // Up to 16 runs, which lie one behind the other; the last may be shorter.
        let bytes = &bytes[i * LANES * run..];
        let mut rows = [&[][..]; LANES];
        for (i, row) in rows.iter_mut().enumerate() {
            let rest = bytes.get(i * run..).unwrap_or_default();
            *row = &rest[..rest.len().min(run)];
        }
        let mut lanes = [Lanes::ZERO; RUN];
        decode(isa, format, &rows, &mut lanes);
        for (lane, out) in out.chunks_mut(RUN).enumerate() {
            for (out, lanes) in out.iter_mut().zip(&lanes) {
                *out = lanes.0[lane];
            }
        }
    });
}
