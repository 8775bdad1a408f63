//! From pixels to a file's bytes. No metadata is written: what a result says of its origin is added
//! by `service`.

use super::{ImagingError, OutputFormat};
use crate::domain::Pixels;
use image::{ExtendedColorType, codecs::jpeg::JpegEncoder};

/// JPEG at this quality shows no blocks; chroma is not subsampled.
const JPEG_QUALITY: u8 = 95;
const WEBP_QUALITY: u8 = 90;

/// Encodes a picture: PNG lossless, JPEG (4:4:4) and WebP lossy with a `quality` from 1 to 100,
/// which is 95 and 90 where it is not given. PNG has no quality; one that is given is only checked.
///
/// # Errors
/// Where `quality` is out of range, a side is longer than the format can express, or the encoder
/// fails.
pub fn encode(
    picture: &Pixels,
    format: OutputFormat,
    quality: Option<u8>,
) -> Result<Vec<u8>, ImagingError> {
    if let Some(quality) = quality.filter(|quality| !(1..=100).contains(quality)) {
        return Err(ImagingError::Quality { quality });
    }
    let (width, height) = (picture.width(), picture.height());
    if width.max(height) > format.max_side() {
        return Err(ImagingError::TooLongForFormat { format, width, height });
    }
    let result = match format {
        OutputFormat::Png => png(picture),
        OutputFormat::Jpeg => jpeg(picture, quality.unwrap_or(JPEG_QUALITY)),
        OutputFormat::Webp => webp(picture, quality.unwrap_or(WEBP_QUALITY)),
    };
    result.map_err(|reason| ImagingError::Encode { format, reason })
}

fn png(picture: &Pixels) -> Result<Vec<u8>, String> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(|error| error.to_string())?;
    writer.write_image_data(picture.rgb()).map_err(|error| error.to_string())?;
    writer.finish().map_err(|error| error.to_string())?;
    Ok(file)
}

fn jpeg(picture: &Pixels, quality: u8) -> Result<Vec<u8>, String> {
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, quality)
        .encode(picture.rgb(), picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .map_err(|error| error.to_string())?;
    Ok(file)
}

fn webp(picture: &Pixels, quality: u8) -> Result<Vec<u8>, String> {
    let encoder = webp::Encoder::from_rgb(picture.rgb(), picture.width(), picture.height());
    let file = encoder.encode_simple(false, f32::from(quality));
    file.map(|file| file.to_vec()).map_err(|error| format!("{error:?}"))
}
