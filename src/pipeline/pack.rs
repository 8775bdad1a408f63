//! Between latents and tokens: 2x2 latent pixels are one token, and each token has a place.
//!
//! Reference: diffusers `_pack_latents`, `_prepare_latent_image_ids`; for several references
//! ComfyUI's methods `offset` and `index`.

use crate::{
    domain::{ReferenceMethod, Size},
    model::rope::Id,
};
use candle_core::{Result, Tensor};

/// Tokens along the sides of a picture of `size` pixels: (rows, columns).
pub(super) fn grid(size: Size) -> (usize, usize) {
    (size.height as usize / 16, size.width as usize / 16)
}

/// Latents [h, w, c] -> tokens [h / 2 * w / 2, c * 4], channels outermost within a token.
pub(super) fn pack(latents: &Tensor) -> Result<Tensor> {
    let (h, w, c) = latents.dims3()?;
    let x = latents.reshape((h / 2, 2, w / 2, 2, c))?; // (h, ph, w, pw, c)
    x.permute((0, 2, 4, 1, 3))?.reshape((h / 2 * (w / 2), c * 4)) // (h w, c ph pw)
}

/// Tokens of a picture of `size` pixels -> latents [h, w, c].
pub(super) fn unpack(tokens: &Tensor, size: Size) -> Result<Tensor> {
    let (h, w) = grid(size);
    let c = tokens.dim(1)? / 4;
    let x = tokens.reshape((h, w, c, 2, 2))?; // (h, w, c, ph, pw)
    x.permute((0, 3, 1, 4, 2))?.reshape((2 * h, 2 * w, c))
}

/// Places of the target's tokens, then of each reference's.
pub(super) fn ids(target: Size, references: &[Size], method: ReferenceMethod) -> Vec<Id> {
    let mut ids = Vec::new();
    let mut place = |size: Size, channel: usize, down: usize, right: usize| {
        let (rows, columns) = grid(size);
        for y in 0..rows {
            ids.extend(
                (0..columns).map(|x| [channel as f64, (y + down) as f64, (x + right) as f64]),
            );
        }
    };
    place(target, 0, 0, 0);
    match method {
        ReferenceMethod::Index => {
            for (i, &size) in references.iter().enumerate() {
                place(size, i + 1, 0, 0);
            }
        }
        ReferenceMethod::Offset => {
            // The canvas so far. The next reference goes where the canvas stays most square.
            let (mut height, mut width) = (0, 0);
            for &size in references {
                let (rows, columns) = grid(size);
                let (down, right) =
                    if rows + height > columns + width { (0, width) } else { (height, 0) };
                place(size, 1, down, right);
                height = height.max(rows + down);
                width = width.max(columns + right);
            }
        }
    }
    ids
}
