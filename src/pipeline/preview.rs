//! A look at a job under way, without the VAE: latents through a matrix, a pixel each.
//!
//! `Pipeline::preview` calls it between two steps.

use super::{
    job::{Denoising, byte},
    pack,
};
use crate::{
    config::Preview,
    domain::{Pixels, Size},
    engine::PREVIEW_SIDE,
    imaging,
};
use candle_core::{Device, Result};

/// The picture where the last step's velocity leads. None before the first step, and from latents
/// that the matrix has no rows for.
pub(super) fn preview(job: &Denoising, size: Size, colours: &Preview) -> Result<Option<Pixels>> {
    let (Some(velocity), Some(&sigma)) = (&job.velocity, job.sigmas.get(job.step)) else {
        return Ok(None);
    };
    // The step went from the noise level before to this one along the velocity; the rest of the way
    // to level 0 is as straight.
    let tokens = (&job.latents - (velocity * f64::from(sigma))?)?;
    let latents = pack::unpack(&tokens, size)?; // (h, w, c)
    let (h, w, c) = latents.dims3()?;
    if c != colours.matrix.len() {
        return Ok(None);
    }
    let values = latents.flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
    let mut rgb = Vec::with_capacity(3 * h * w);
    for latent in values.chunks_exact(c) {
        for channel in 0..3 {
            let terms = latent.iter().zip(&colours.matrix).map(|(x, row)| x * row[channel]);
            rgb.push(byte(colours.bias[channel] + terms.sum::<f32>()));
        }
    }
    Ok(Pixels::new(w as u32, h as u32, rgb).map(shrink))
}

/// At most [`PREVIEW_SIDE`] pixels a side.
fn shrink(picture: Pixels) -> Pixels {
    let (width, height) = (picture.width(), picture.height());
    let longest = width.max(height);
    if longest <= PREVIEW_SIDE {
        return picture;
    }
    let side = |side: u32| (side * PREVIEW_SIDE).div_ceil(longest);
    imaging::resize(&picture, Size::new(side(width), side(height)))
}
