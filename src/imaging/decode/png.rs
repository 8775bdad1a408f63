//! PNG: keeps the header, the palette, its transparency and the pixels of the still picture.
//!
//! An animated PNG's still picture is its first frame (or what its maker wants shown in place of
//! the animation). The decoder verifies the checksum of every chunk that it is given.

use super::{Limits, Raster, orientation};
use crate::{
    domain::Size,
    imaging::{ImagingError, OutputFormat},
};
use image::metadata::Orientation;
use std::io::Cursor;
use zeroize::Zeroizing;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<(Raster, Orientation), ImagingError> {
    let essence = walk(bytes, limits)?;
    let mut decoder = png::Decoder::new(Cursor::new(&*essence.file));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(|error| explain(&error))?;
    let size = reader.output_buffer_size().ok_or_else(|| corrupt("its size overflows"))?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).map_err(|error| explain(&error))?;
    let channels = match frame.color_type {
        png::ColorType::Grayscale => 1,
        png::ColorType::GrayscaleAlpha => 2,
        png::ColorType::Rgb => 3,
        png::ColorType::Rgba => 4,
        png::ColorType::Indexed => return Err(corrupt("its palette is missing")),
    };
    let raster = Raster { width: frame.width, height: frame.height, channels, bytes: pixels };
    Ok((raster, orientation(essence.exif)))
}

pub(super) fn probe<'a>(
    bytes: &'a [u8],
    limits: &Limits,
) -> Result<(Size, Option<&'a [u8]>), ImagingError> {
    let essence = walk(bytes, limits)?;
    Ok((essence.size, essence.exif))
}

/// What of a file matters.
struct Essence<'a> {
    size: Size,
    file: Zeroizing<Vec<u8>>,
    exif: Option<&'a [u8]>,
}

fn walk<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Essence<'a>, ImagingError> {
    let truncated = || ImagingError::Truncated { format: OutputFormat::Png, bytes: bytes.len() };
    let mut rest = match bytes.strip_prefix(SIGNATURE) {
        Some(rest) => rest,
        None if SIGNATURE.starts_with(bytes) => return Err(truncated()),
        None => return Err(corrupt("its first bytes were changed, as by a transfer as text")),
    };
    let mut file = Zeroizing::new(Vec::with_capacity(bytes.len()));
    file.extend_from_slice(SIGNATURE);
    let mut exif = None;
    let mut header = None;
    loop {
        let (head, body) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let [a, b, c, d, kind @ ..] = *head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let data = body.get(..length).ok_or_else(truncated)?;
        let with_checksum = length.checked_add(4).and_then(|end| body.get(..end));
        let end = with_checksum.ok_or_else(truncated)?.len();
        if header.is_none() {
            let size = data.first_chunk::<8>().filter(|_| &kind == b"IHDR");
            let [w, x, y, z, height @ ..] = *size.ok_or_else(|| corrupt("it has no header"))?;
            let (width, height) = (u32::from_be_bytes([w, x, y, z]), u32::from_be_bytes(height));
            limits.check(width, height)?;
            header = Some(Size::new(width, height));
        }
        match &kind {
            b"IHDR" | b"PLTE" | b"tRNS" | b"IDAT" | b"IEND" => {
                // The decoder checks this too, but only when it has decoded what stands before.
                let [.., w, x, y, z] = body[..end] else { return Err(truncated()) };
                let mut checksum = crc32fast::Hasher::new();
                checksum.update(&kind);
                checksum.update(data);
                if checksum.finalize() != u32::from_be_bytes([w, x, y, z]) {
                    return Err(corrupt("a checksum in it is wrong"));
                }
                file.extend_from_slice(head);
                file.extend_from_slice(&body[..end]);
            }
            b"eXIf" => exif = exif.or(Some(data)),
            _ => {}
        }
        if &kind == b"IEND"
            && let Some(size) = header
        {
            return Ok(Essence { size, file, exif });
        }
        rest = &body[end..];
    }
}

fn corrupt(reason: impl Into<String>) -> ImagingError {
    ImagingError::Corrupt { format: OutputFormat::Png, reason: reason.into() }
}

fn explain(error: &png::DecodingError) -> ImagingError {
    // What comes behind it is the decoder's own state.
    let text = error.to_string().to_lowercase();
    let reason = text.split(" while decoding").next().unwrap_or_default();
    corrupt(reason.trim_end_matches('.'))
}
