//! Which size everything has: the output, what is generated for it, and each reference.
//!
//! Black Forest Labs' rule: a reference is stretched to the nearest of the model's preferred sizes,
//! and the output has the size that the first reference was given. (diffusers chooses the output
//! on its own, which reframes the picture.)

use crate::{
    config::{ReferenceSize, Sizing},
    domain::{EditParams, ParamError, Size},
};

/// Latents are an eighth of the picture, and tokens two latents wide.
const MULTIPLE: u32 = 16;

/// The sizes of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// What the person gets.
    pub output: Size,
    /// What the model makes: the next multiple of 16.
    pub generated: Size,
    /// What each reference is resized to, in order.
    pub references: Vec<Size>,
}

impl Sizes {
    /// Plans the sizes of a job whose pictures have the sizes `images`.
    ///
    /// # Errors
    /// Where a picture is too small for `exact_size`, which never enlarges.
    pub fn plan(sizing: &Sizing, params: &EditParams, images: &[Size]) -> Result<Self, ParamError> {
        let preferred = |aspect: f64| nearest(&sizing.preferred_sizes, aspect);
        let floored = |size: &Size| {
            let floor = |side: u32| side / MULTIPLE * MULTIPLE;
            Size::new(floor(size.width), floor(size.height))
        };
        if params.exact_size
            && let Some(size) = images.iter().find(|s| s.width < MULTIPLE || s.height < MULTIPLE)
        {
            let allowed = format!("exact_size takes pictures of at least {MULTIPLE}x{MULTIPLE}");
            return Err(ParamError::new("image", size, allowed));
        }
        let output = match (params.size, params.aspect_ratio, images.first()) {
            (Some(size), _, _) => size,
            (None, Some(ratio), _) => preferred(ratio.ratio()),
            (None, None, Some(first)) if params.exact_size => floored(first),
            (None, None, Some(first)) => preferred(first.aspect()),
            (None, None, None) => preferred(1.0),
        };
        let up = |side: u32| side.next_multiple_of(MULTIPLE);
        let generated = Size::new(up(output.width), up(output.height));
        let reference = |size: &Size| match sizing.reference_size {
            _ if params.exact_size => floored(size),
            ReferenceSize::Preferred => preferred(size.aspect()),
            ReferenceSize::Output => generated,
        };
        Ok(Self { output, generated, references: images.iter().map(reference).collect() })
    }
}

/// The size whose aspect is nearest: by difference of ratios, ties to the narrower one.
pub(super) fn nearest(sizes: &[Size], aspect: f64) -> Size {
    let distance = |size: &Size| (aspect - size.aspect()).abs();
    let order = |a: &&Size, b: &&Size| distance(a).total_cmp(&distance(b)).then(a.cmp(b));
    // A manifest without sizes is refused when it is read.
    sizes.iter().min_by(order).copied().unwrap_or(Size::new(1024, 1024))
}
