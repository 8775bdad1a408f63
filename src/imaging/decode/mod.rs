//! From a file's bytes to pixels, for files that anyone may have made.
//!
//! Each format has a walker (`png`, `jpeg`, `webp`) that goes over the file's chunks first. It finds
//! the size, which is checked before anything is allocated; it tells a file that is cut off; it
//! takes the EXIF orientation; and it hands the decoder a new file made of the chunks that hold
//! pixels. So profiles, texts, thumbnails and further frames never reach a decoder: they cannot
//! explode there, and nothing of them can be in the result.
//!
//! What becomes of a picture, as diffusers' `load_image` does it with PIL except for transparency:
//! - The EXIF orientation is applied.
//! - Grey, palette and CMYK become RGB; of 16 bits the upper 8 count.
//! - Transparency is laid over white, as a person sees it on a page. (PIL's `convert('RGB')` would
//!   drop the alpha channel and show whatever colour lies under it.)
//! - Colour profiles and gamma are ignored: numbers are taken as sRGB.
//! - Of an animation, the first picture is taken.
//!
//! The new file is zeroed when it is dropped; what the decoders themselves hold is not.

mod jpeg;
mod png;
mod webp;

use super::{ImagingError, OutputFormat};
use crate::domain::{Pixels, Size};
use image::{DynamicImage, RgbImage, metadata::Orientation};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a picture may be, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pixels in all. Decoding takes up to 11 bytes for each (a progressive JPEG: 3 for the result,
    /// 6 for its coefficients, and some), and another 3 where the picture is turned.
    pub max_pixels: u64,
    /// Pixels on a side.
    pub max_side: u32,
}

impl Default for Limits {
    /// 64 megapixels, 32768 on a side.
    fn default() -> Self {
        Self { max_pixels: 64_000_000, max_side: 32_768 }
    }
}

impl Limits {
    fn check(&self, width: u32, height: u32) -> Result<(), ImagingError> {
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(ImagingError::TooLarge { width, height, max_pixels: self.max_pixels });
        }
        if width.max(height) > self.max_side {
            return Err(ImagingError::TooLong { width, height, max_side: self.max_side });
        }
        Ok(())
    }
}

/// Decodes a PNG, JPEG or WebP file to 8-bit RGB, upright, without metadata.
///
/// # Errors
/// Where `bytes` is not such a file, is cut off or damaged, or is larger than `limits`. A picture is
/// never given in part.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Pixels, ImagingError> {
    let format = sniff(bytes)?;
    let run = || match format {
        OutputFormat::Png => png::decode(bytes, limits),
        OutputFormat::Jpeg => jpeg::decode(bytes, limits),
        OutputFormat::Webp => webp::decode(bytes, limits),
    };
    // The decoders are other people's code. Should one panic on some file, then that file is at
    // fault for the person who sent it, and no state of ours is shared with the decoder.
    let (raster, orientation) = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(ImagingError::Corrupt { format, reason: "the decoder gave up".to_owned() })
    })?;
    Ok(turn(raster.width, raster.height, raster.flatten(), orientation))
}

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its format.
    pub format: OutputFormat,
    /// The size of its picture, upright.
    pub size: Size,
}

/// Reads what [`decode`] will give, and checks all that can be checked without decoding: the format,
/// the limits, and that the file does not end too early.
///
/// # Errors
/// As [`decode`].
pub fn probe(bytes: &[u8], limits: &Limits) -> Result<Probe, ImagingError> {
    let format = sniff(bytes)?;
    let (size, exif) = match format {
        OutputFormat::Png => png::probe(bytes, limits)?,
        OutputFormat::Jpeg => jpeg::probe(bytes, limits)?,
        OutputFormat::Webp => webp::probe(bytes, limits)?,
    };
    let turned = orientation(exif).to_exif() >= Orientation::Rotate90FlipH.to_exif();
    let size = if turned { Size::new(size.height, size.width) } else { size };
    Ok(Probe { format, size })
}

/// Decoded bytes, `channels` of 8 bits a pixel: grey, grey and alpha, RGB, or RGBA.
struct Raster {
    width: u32,
    height: u32,
    channels: usize,
    bytes: Vec<u8>,
}

impl Raster {
    /// RGB, transparency over white.
    fn flatten(self) -> Vec<u8> {
        let over_white = |value: u8, alpha: u8| {
            let (value, alpha) = (u32::from(value), u32::from(alpha));
            // At most 255, since it is the rounded mean of two bytes.
            ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        };
        let mut bytes = self.bytes;
        match self.channels {
            1 => bytes.iter().flat_map(|&grey| [grey; 3]).collect(),
            2 => {
                let (pixels, _) = bytes.as_chunks::<2>();
                pixels.iter().flat_map(|&[grey, alpha]| [over_white(grey, alpha); 3]).collect()
            }
            3 => bytes,
            _ => {
                // In place: the target of a pixel never lies behind its source.
                let pixels = bytes.len() / 4;
                for pixel in 0..pixels {
                    let alpha = bytes[4 * pixel + 3];
                    for channel in 0..3 {
                        bytes[3 * pixel + channel] = over_white(bytes[4 * pixel + channel], alpha);
                    }
                }
                bytes.truncate(3 * pixels);
                bytes.shrink_to_fit();
                bytes
            }
        }
    }
}

/// Puts a picture upright.
fn turn(width: u32, height: u32, rgb: Vec<u8>, orientation: Orientation) -> Pixels {
    let picture = RgbImage::from_raw(width, height, rgb).expect("the walkers give a full raster");
    let mut picture = DynamicImage::ImageRgb8(picture);
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width(), picture.height());
    Pixels::new(width, height, picture.into_rgb8().into_raw()).expect("as many pixels as before")
}

/// The orientation that an EXIF block asks for.
fn orientation(exif: Option<&[u8]>) -> Orientation {
    let tiff = exif.map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif));
    tiff.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}

/// Tells the format from the first bytes.
fn sniff(bytes: &[u8]) -> Result<OutputFormat, ImagingError> {
    /// Formats that people send, by a mark and its place in the file.
    const FOREIGN: [(usize, &[u8], &str); 15] = [
        (0, b"GIF8", "GIF"),
        (0, b"BM", "BMP"),
        (0, b"II*\0", "TIFF"),
        (0, b"MM\0*", "TIFF"),
        (4, b"ftypavi", "AVIF"),
        (4, b"ftyphei", "HEIC"),
        (4, b"ftyphev", "HEIC"),
        (4, b"ftypmif1", "HEIC"),
        (4, b"ftyp", "video"),
        (4, b"JXL ", "JPEG XL"),
        (0, b"\xff\x0a", "JPEG XL"),
        (4, b"jP  ", "JPEG 2000"),
        (0, b"8BPS", "Photoshop"),
        (0, b"%PDF", "PDF"),
        (0, b"<svg", "SVG"),
    ];
    let has = |at: usize, mark: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(mark));
    if bytes.is_empty() {
        return Err(ImagingError::Empty);
    }
    if has(0, b"\x89PNG") {
        return Ok(OutputFormat::Png);
    }
    if has(0, b"\xff\xd8\xff") {
        return Ok(OutputFormat::Jpeg);
    }
    if has(0, b"RIFF") && has(8, b"WEBP") {
        return Ok(OutputFormat::Webp);
    }
    match FOREIGN.iter().find(|(at, mark, _)| has(*at, mark)) {
        Some(&(_, _, found)) => Err(ImagingError::ForeignFormat { found }),
        None => Err(ImagingError::UnknownFormat),
    }
}
