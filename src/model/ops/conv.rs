//! Convolution of a channel-last picture, with the paddings and the doubling that the VAE needs.

use super::{
    Ops,
    bands::{Bands, add, with_values},
    expect,
};
use crate::model::{error::LoadError, weights::Weights};
use candle_core::{Result, Tensor, bail};
use darkroom_kernels::{ConvGeometry, PackedConv};

/// Multiply-adds that take as long as fresh memory for a number does.
const NUMBER: usize = 32;

/// A square convolution with bias.
#[derive(Clone, Debug)]
pub struct Conv2d {
    inner: Inner,
    kernel: usize,
    cin: usize,
    cout: usize,
    form: Form,
}

/// How the convolution meets the picture's borders and scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Stride 1, same size.
    Same,
    /// Stride 2, padded by one on the right and at the bottom only: half the size.
    Halve,
    /// The picture is doubled by nearest neighbour, then convolved: twice the size.
    Double,
}

#[derive(Clone, Debug)]
enum Inner {
    Own(PackedConv),
    Stock { weight: Tensor, bias: Tensor },
}

impl Conv2d {
    /// Loads `weight` [cout, cin, kernel, kernel] and `bias` [cout].
    ///
    /// # Errors
    /// A [`LoadError`] that names the tensor.
    pub fn load(
        weights: &Weights,
        cin: usize,
        cout: usize,
        kernel: usize,
        form: Form,
    ) -> std::result::Result<Self, LoadError> {
        let shape = [cout, cin, kernel, kernel];
        let inner = match weights.target().ops {
            Ops::Own => {
                let (weight, bias) =
                    (weights.host("weight", &shape)?, weights.host("bias", &[cout])?);
                Inner::Own(PackedConv::new(&weight, Some(&bias), cout, cin, kernel, kernel))
            }
            Ops::Stock => Inner::Stock {
                weight: weights.tensor("weight", &shape)?,
                bias: weights.tensor("bias", &[cout])?,
            },
        };
        Ok(Self { inner, kernel, cin, cout, form })
    }

    /// Runs the next band of x [h, w, cin] -> [h', w', cout], plus `onto` of the output's shape.
    /// Gives the output after the last.
    ///
    /// # Errors
    /// Where a shape does not fit, or the device fails.
    pub fn advance(
        &self,
        bands: &mut Bands,
        x: &Tensor,
        onto: Option<&Tensor>,
    ) -> Result<Option<Tensor>> {
        let (h, w, cin) = x.dims3()?;
        expect("the picture's channels", cin, self.cin)?;
        if h == 0 || w == 0 {
            bail!("a picture of no pixels");
        }
        let packed = match &self.inner {
            Inner::Own(packed) => packed,
            Inner::Stock { weight, bias } => {
                let y = self.whole(x, weight, bias)?;
                return match onto {
                    Some(onto) => onto + y,
                    None => Ok(y),
                }
                .map(Some);
            }
        };
        let geometry = self.geometry(h, w);
        let (oh, ow) = (geometry.out_height(self.kernel), geometry.out_width(self.kernel));
        let width = ow * self.cout;
        let band = bands.take(oh, width * (self.kernel.pow(2) * cin + NUMBER), 1);
        let y = bands.room(oh, width, &band);
        with_values(x, |x| darkroom_kernels::conv2d(x, &geometry, packed, band.clone(), y))?;
        if let Some(onto) = onto {
            add(onto, &band, width, y)?;
        }
        bands.finish(&band, oh, (oh, ow, self.cout))
    }

    fn whole(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let (h, w, _) = x.dims3()?;
        let x = x.permute((2, 0, 1))?.unsqueeze(0)?.contiguous()?; // (1, cin, h, w)
        let half = self.kernel / 2;
        let y = match self.form {
            Form::Same => x.conv2d(weight, half, 1, 1, 1)?,
            Form::Halve => {
                let x = x.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?;
                x.conv2d(weight, 0, 2, 1, 1)?
            }
            Form::Double => x.upsample_nearest2d(2 * h, 2 * w)?.conv2d(weight, half, 1, 1, 1)?,
        };
        y.squeeze(0)?.permute((1, 2, 0))?.contiguous()?.broadcast_add(bias)
    }

    fn geometry(&self, height: usize, width: usize) -> ConvGeometry {
        let half = self.kernel / 2;
        let (stride, before, after, upsample) = match self.form {
            Form::Same => (1, half, half, 1),
            Form::Halve => (2, 0, 1, 1),
            Form::Double => (1, half, half, 2),
        };
        ConvGeometry {
            height,
            width,
            stride,
            pad_top: before,
            pad_left: before,
            pad_bottom: after,
            pad_right: after,
            upsample,
        }
    }
}
