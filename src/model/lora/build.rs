//! From a plan and the numbers of its file to what is done to each layer.

use super::{
    error::LoraError,
    keys::Network,
    matrix::{Matrix, Raw, cover},
    names::Part,
    plan::{Change, Factor, Form, Scale},
};
use crate::model::{
    ops::{self, Axis, Decomposed, Delta, Deltas, Linear},
    weights::{Target, TensorFile},
};
use candle_core::{Device, Tensor};
use std::{collections::HashMap, ops::Range};

type Result<T> = std::result::Result<T, LoraError>;

/// The linear layers of a network, by their names.
pub(super) type Found<'a> = HashMap<&'a str, &'a Linear>;

/// Reads the numbers of a change, and adds what it does to the transformer or to CLIP.
pub(super) fn build(
    change: &Change,
    file: &TensorFile,
    [transformer, clip]: [&Found<'_>; 2],
    target: &Target,
    deltas: &mut [Deltas; 2],
) -> Result<()> {
    let (layers, to) = match (change.network, deltas) {
        (Network::Clip, [_, to]) => (clip, to),
        (_, [to, _]) => (transformer, to),
    };
    Builder { file, layers, target }.change(change, to)
}

struct Builder<'a> {
    file: &'a TensorFile,
    layers: &'a Found<'a>,
    target: &'a Target,
}

/// A difference with what belongs to its factors.
struct Numbers {
    raw: Option<Raw>,
    down_bias: Option<Vec<f32>>,
    up_bias: Option<Vec<f32>>,
}

impl Builder<'_> {
    fn change(&self, change: &Change, to: &mut Deltas) -> Result<()> {
        let numbers = self.numbers(change)?;
        let bias = change.bias.as_deref().map(|name| self.read(name)).transpose()?;
        let magnitude = match &change.magnitude {
            Some((name, axis)) => Some((self.read(name)?, *axis)),
            None => None,
        };
        let factors = match (&magnitude, &numbers.raw) {
            (Some((magnitude, axis)), Some(raw)) => {
                Some((self.factors(change, raw, magnitude, *axis)?, *axis))
            }
            _ => None,
        };
        for part in &change.place.parts {
            let decomposed = match &factors {
                Some((factors, axis)) => {
                    let own = match axis {
                        Axis::Outputs => select(factors, &part.rows),
                        Axis::Inputs => factors.clone(),
                    };
                    let bias = self.layer(part)?.bias()?;
                    Some(Decomposed { axis: *axis, factors: self.vector(&own)?, bias })
                }
                None => None,
            };
            let bias = bias.as_ref().map(|bias| self.vector(&select(bias, &part.rows)));
            let form = self.form(&numbers, part)?;
            to.add(&part.layer, Delta { form, bias: bias.transpose()?, decomposed });
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let values = self.file.read(name)?;
        if values.iter().all(|x| x.is_finite()) {
            return Ok(values);
        }
        Err(LoraError::NotFinite { file: self.file.name(), tensor: name.to_owned() })
    }

    fn matrix(&self, name: &str) -> Result<Matrix> {
        let rows = self.file.shape(name).first().copied().unwrap_or(0);
        Ok(Matrix::new(self.read(name)?, rows))
    }

    fn factor(&self, factor: &Factor) -> Result<Vec<Matrix>> {
        factor.tensors.iter().map(|name| self.matrix(name)).collect()
    }

    fn numbers(&self, change: &Change) -> Result<Numbers> {
        let scale = match &change.scale {
            Scale::One => 1.0,
            Scale::Known(scale) => *scale,
            Scale::Alpha(name, rank) => {
                self.read(name)?.first().copied().unwrap_or(0.0) / *rank as f32
            }
        };
        let optional = |name: &Option<String>| name.as_deref().map(|n| self.read(n)).transpose();
        let (mut down_bias, mut up_bias) = (None, None);
        let raw = match &change.form {
            Form::LowRank { down, up, down_bias: a, up_bias: b } => {
                (down_bias, up_bias) = (optional(a)?, optional(b)?);
                for value in up_bias.iter_mut().flatten() {
                    *value *= scale;
                }
                let (down, mut up) = (self.matrix(down)?, self.matrix(up)?);
                up.scale(scale);
                Some(Raw::Product { down, up })
            }
            Form::Hadamard([[a, b], [c, d]]) => {
                let (mut a, b) = (self.matrix(a)?, self.matrix(b)?);
                a.scale(scale);
                Some(Raw::hadamard([[a, b], [self.matrix(c)?, self.matrix(d)?]]).map_err(device)?)
            }
            Form::Kronecker([first, second]) => {
                let mut w1 = match self.factor(first)?.as_slice() {
                    [left, right] => left.times(right).map_err(device)?,
                    other => other.first().cloned().unwrap_or_default(),
                };
                w1.scale(scale);
                Some(Raw::Kronecker { w1, w2: self.factor(second)? })
            }
            Form::Whole(name) => Some(Raw::Whole(self.matrix(name)?)),
            Form::Nothing => None,
        };
        Ok(Numbers { raw, down_bias, up_bias })
    }

    /// The rows of a difference that are one layer's.
    fn form(&self, numbers: &Numbers, part: &Part) -> Result<ops::DeltaForm> {
        let target = self.target;
        let Some(raw) = &numbers.raw else { return Ok(ops::DeltaForm::Nothing) };
        let form = match raw {
            Raw::Product { down, up } => {
                let up = up.select(&part.rows);
                let bias = numbers.up_bias.as_ref().map(|bias| select(bias, &part.rows));
                let (down, up, down_bias) = trimmed(down, up, numbers.down_bias.as_deref());
                ops::DeltaForm::Product(vec![
                    down.layer(down_bias.as_deref(), target)?,
                    up.layer(bias.as_deref(), target)?,
                ])
            }
            Raw::Whole(whole) => {
                ops::DeltaForm::Product(vec![whole.select(&part.rows).layer(None, target)?])
            }
            Raw::Kronecker { w1, w2 } => {
                let inner = w2.first().map_or(1, |left| left.rows).max(1);
                let outer = cover(&part.rows, inner);
                let shift = outer.start * inner;
                let rows = part.rows.iter().map(|r| r.start - shift..r.end - shift).collect();
                // The last factor is the first that an input goes through.
                let w2 = w2.iter().rev().map(|w| w.layer(None, target));
                ops::DeltaForm::Kronecker {
                    w1: w1.select(std::slice::from_ref(&outer)).layer(None, target)?,
                    w2: w2.collect::<candle_core::Result<_>>()?,
                    rows,
                }
            }
        };
        Ok(form)
    }

    /// Magnitudes over the norms of W + Delta, which go over all parts together.
    fn factors(
        &self,
        change: &Change,
        raw: &Raw,
        magnitude: &[f32],
        axis: Axis,
    ) -> Result<Vec<f32>> {
        let mut squares = vec![0.0_f64; magnitude.len()];
        for part in &change.place.parts {
            let mut deltas = raw.rows(&part.rows).map_err(device)?;
            let mut outputs = part.rows.iter().cloned().flatten();
            let mut failure = None;
            self.layer(part)?.rows(|weights| {
                let output = outputs.next().unwrap_or_default();
                match deltas.next() {
                    Ok(delta) => {
                        let whole = weights.iter().zip(delta).map(|(w, d)| f64::from(w + d));
                        for (input, value) in whole.enumerate() {
                            let at = if axis == Axis::Outputs { output } else { input };
                            if let Some(square) = squares.get_mut(at) {
                                *square += value * value;
                            }
                        }
                    }
                    Err(error) => failure = Some(error),
                }
            })?;
            if let Some(error) = failure {
                return Err(device(error));
            }
        }
        // A norm of zero: the epsilon is LyCORIS'.
        let norm = |square: &f64| square.sqrt() as f32 + f32::EPSILON;
        Ok(magnitude.iter().zip(&squares).map(|(m, square)| m / norm(square)).collect())
    }

    fn layer(&self, part: &Part) -> Result<&Linear> {
        self.layers.get(part.layer.as_str()).copied().ok_or_else(|| LoraError::Unknown {
            file: self.file.name(),
            count: 1,
            names: part.layer.clone(),
        })
    }

    fn vector(&self, values: &[f32]) -> candle_core::Result<Tensor> {
        let (device, dtype) = (&self.target.device, self.target.dtype);
        Tensor::from_slice(values, values.len(), &Device::Cpu)?.to_device(device)?.to_dtype(dtype)
    }
}

fn device(error: candle_core::Error) -> LoraError {
    LoraError::File(error.into())
}

fn select(values: &[f32], ranges: &[Range<usize>]) -> Vec<f32> {
    ranges.iter().filter_map(|r| values.get(r.clone())).flatten().copied().collect()
}

/// A product without the ranks that do nothing to these outputs. Where a file has several layers as
/// one, each often has ranks of its own.
fn trimmed(
    down: &Matrix,
    up: Matrix,
    down_bias: Option<&[f32]>,
) -> (Matrix, Matrix, Option<Vec<f32>>) {
    let used = |rank: &usize| up.values.iter().skip(*rank).step_by(up.columns).any(|&x| x != 0.0);
    let mut ranks: Vec<usize> = (0..up.columns).filter(used).collect();
    if ranks.is_empty() {
        ranks.push(0);
    }
    let bias = |bias: &[f32]| ranks.iter().filter_map(|&r| bias.get(r)).copied().collect();
    let down_bias = down_bias.map(bias);
    if ranks.len() == up.columns {
        return (down.clone(), up, down_bias);
    }
    let rows: Vec<Range<usize>> = ranks.iter().map(|&r| r..r + 1).collect();
    let values = (0..up.rows).flat_map(|i| ranks.iter().map(move |&r| (i, r)));
    let values = values.filter_map(|(i, r)| up.row(i).get(r)).copied().collect();
    (down.select(&rows), Matrix::new(values, up.rows), down_bias)
}

impl From<candle_core::Error> for LoraError {
    fn from(error: candle_core::Error) -> Self {
        device(error)
    }
}
