//! WebP: keeps the pixels and the alpha of the picture, or of an animation's first frame.
//!
//! A frame is decoded as a still picture of its own and laid on a white canvas here. Its own header
//! must agree with the file's, since the decoder allocates by the former.

use super::{Limits, Raster, orientation};
use crate::{
    domain::Size,
    imaging::{ImagingError, OutputFormat},
};
use image::{ImageDecoder, codecs::webp::WebPDecoder, metadata::Orientation};
use std::io::Cursor;
use zeroize::Zeroizing;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<(Raster, Orientation), ImagingError> {
    let essence = walk(bytes, limits)?;
    let frame = &essence.frame;
    let file = frame.file();
    let decoder =
        WebPDecoder::new(Cursor::new(file.as_slice())).map_err(|error| explain(&error))?;
    if decoder.dimensions() != (frame.width, frame.height) {
        return Err(corrupt("its headers disagree"));
    }
    let channels = usize::from(decoder.color_type().channel_count());
    let mut pixels = vec![0; frame.width as usize * frame.height as usize * channels];
    decoder.read_image(&mut pixels).map_err(|error| explain(&error))?;
    let raster = Raster { width: frame.width, height: frame.height, channels, bytes: pixels };
    let whole = (frame.width, frame.height) == (essence.width, essence.height);
    let raster = if whole { raster } else { essence.lay_on_canvas(raster) };
    Ok((raster, orientation(essence.exif)))
}

pub(super) fn probe<'a>(
    bytes: &'a [u8],
    limits: &Limits,
) -> Result<(Size, Option<&'a [u8]>), ImagingError> {
    let essence = walk(bytes, limits)?;
    Ok((Size::new(essence.width, essence.height), essence.exif))
}

/// What of a file matters.
struct Essence<'a> {
    width: u32,
    height: u32,
    frame: Frame<'a>,
    exif: Option<&'a [u8]>,
}

impl Essence<'_> {
    /// The frame at its place on a white canvas.
    fn lay_on_canvas(&self, raster: Raster) -> Raster {
        let mut canvas = vec![255; self.width as usize * self.height as usize * 3];
        let row = 3 * raster.width as usize;
        let rows = raster.flatten();
        for (y, line) in rows.chunks_exact(row).enumerate() {
            let at =
                3 * ((self.frame.y as usize + y) * self.width as usize + self.frame.x as usize);
            canvas[at..at + row].copy_from_slice(line);
        }
        Raster { width: self.width, height: self.height, channels: 3, bytes: canvas }
    }
}

/// A picture within the file.
struct Frame<'a> {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
    alpha: Option<&'a [u8]>,
    lossy: bool,
    animated: bool,
    bits: &'a [u8],
}

impl Frame<'_> {
    /// A file of this picture alone.
    fn file(&self) -> Zeroizing<Vec<u8>> {
        let room = self.bits.len() + self.alpha.map_or(0, <[u8]>::len) + 64;
        let mut chunks = Zeroizing::new(Vec::with_capacity(room));
        chunks.extend_from_slice(b"RIFF\0\0\0\0WEBP");
        let mut push = |kind: &[u8; 4], data: &[u8]| {
            chunks.extend_from_slice(kind);
            // Its length was read from four bytes.
            chunks.extend((data.len() as u32).to_le_bytes());
            chunks.extend_from_slice(data);
            chunks.extend((data.len() % 2 == 1).then_some(0));
        };
        if let Some(alpha) = self.alpha.filter(|_| self.lossy) {
            let [a, b, c, _] = (self.width - 1).to_le_bytes();
            let [d, e, f, _] = (self.height - 1).to_le_bytes();
            push(b"VP8X", &[0x10, 0, 0, 0, a, b, c, d, e, f]);
            push(b"ALPH", alpha);
        }
        push(if self.lossy { b"VP8 " } else { b"VP8L" }, self.bits);
        let length = (chunks.len() as u32 - 8).to_le_bytes();
        chunks[4..8].copy_from_slice(&length);
        chunks
    }
}

fn walk<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Essence<'a>, ImagingError> {
    let truncated = || ImagingError::Truncated { format: OutputFormat::Webp, bytes: bytes.len() };
    let length = bytes.get(4..).and_then(|rest| rest.first_chunk()).ok_or_else(truncated)?;
    let body = bytes.get(12..).ok_or_else(truncated)?;
    let length = (u32::from_le_bytes(*length) as usize).saturating_sub(4);
    let missing = length > body.len();
    let mut chunks = Chunks { rest: body.get(..length).unwrap_or(body) };
    let cut = |error, whole: bool| match error {
        ImagingError::Corrupt { .. } if !whole => truncated(),
        error => error,
    };
    let mut canvas = None;
    let mut alpha = None;
    let mut frame = None;
    let mut exif = None;
    while let Some((kind, data, whole)) = chunks.next_chunk() {
        match &kind {
            b"VP8X" if canvas.is_none() && frame.is_none() => {
                let size = data.get(4..).and_then(|rest| rest.first_chunk::<6>());
                let [a, b, c, d, e, f] = *size.ok_or_else(truncated)?;
                let side = |bytes| u32::from_le_bytes(bytes) + 1;
                let size = (side([a, b, c, 0]), side([d, e, f, 0]));
                limits.check(size.0, size.1)?;
                canvas = Some(size);
            }
            b"ALPH" if frame.is_none() => alpha = Some(data),
            b"VP8 " | b"VP8L" if frame.is_none() => {
                let read = read_frame(&kind, data, limits).map_err(|error| cut(error, whole))?;
                frame = Some(Frame { alpha, ..read });
            }
            b"ANMF" if frame.is_none() => {
                frame = Some(animated(data, limits).map_err(|error| cut(error, whole))?);
            }
            b"EXIF" => exif = exif.or(Some(data)),
            _ => {}
        }
        if !whole {
            return Err(truncated());
        }
    }
    if missing {
        return Err(truncated());
    }
    let frame = frame.ok_or_else(|| corrupt("it holds no picture"))?;
    let (width, height) = canvas.unwrap_or((frame.width, frame.height));
    let fits = match frame.animated {
        true => frame.x + frame.width <= width && frame.y + frame.height <= height,
        false => (frame.width, frame.height) == (width, height),
    };
    if !fits {
        return Err(corrupt("its picture does not fit its canvas"));
    }
    Ok(Essence { width, height, frame, exif })
}

/// The chunks of a file or of a frame.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    /// The next chunk's kind, what there is of its data, and whether that is all of it.
    fn next_chunk(&mut self) -> Option<([u8; 4], &'a [u8], bool)> {
        let (&[a, b, c, d, length @ ..], body) = self.rest.split_first_chunk::<8>()?;
        let length = u32::from_le_bytes(length) as usize;
        let data = body.get(..length).unwrap_or(body);
        self.rest = body.get(length.saturating_add(length % 2)..).unwrap_or_default();
        Some(([a, b, c, d], data, data.len() == length))
    }
}

/// The picture in an animation's frame.
fn animated<'a>(data: &'a [u8], limits: &Limits) -> Result<Frame<'a>, ImagingError> {
    let bad = || corrupt("its first frame is too short");
    let head = data.first_chunk::<16>().ok_or_else(bad)?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], 0]);
    let (x, y) = (2 * number(0), 2 * number(3));
    let mut chunks = Chunks { rest: &data[16..] };
    let mut alpha = None;
    while let Some((kind, data, whole)) = chunks.next_chunk() {
        if !whole {
            return Err(bad());
        }
        match &kind {
            b"ALPH" => alpha = Some(data),
            b"VP8 " | b"VP8L" => {
                let read = read_frame(&kind, data, limits)?;
                if (read.width, read.height) != (number(6) + 1, number(9) + 1) {
                    return Err(corrupt("its first frame's headers disagree"));
                }
                return Ok(Frame { x, y, alpha, animated: true, ..read });
            }
            _ => {}
        }
    }
    Err(corrupt("its first frame holds no picture"))
}

/// A picture by its own header.
fn read_frame<'a>(
    kind: &[u8; 4],
    bits: &'a [u8],
    limits: &Limits,
) -> Result<Frame<'a>, ImagingError> {
    let bad = || corrupt("its picture has no header");
    let lossy = kind == b"VP8 ";
    let (width, height) = if lossy {
        let head = bits.first_chunk::<10>().filter(|head| head[3..6] == [0x9d, 0x01, 0x2a]);
        let [.., a, b, c, d] = *head.ok_or_else(bad)?;
        // The upper two bits are a hint to scale, which no program heeds.
        let side = |bytes| u32::from(u16::from_le_bytes(bytes) & 0x3fff);
        (side([a, b]), side([c, d]))
    } else {
        let head = bits.first_chunk::<5>().filter(|head| head[0] == 0x2f);
        let [_, sizes @ ..] = *head.ok_or_else(bad)?;
        let sizes = u32::from_le_bytes(sizes);
        ((sizes & 0x3fff) + 1, ((sizes >> 14) & 0x3fff) + 1)
    };
    if width == 0 || height == 0 {
        return Err(corrupt("a side is 0 pixels long"));
    }
    limits.check(width, height)?;
    Ok(Frame { x: 0, y: 0, width, height, alpha: None, lossy, animated: false, bits })
}

fn corrupt(reason: impl Into<String>) -> ImagingError {
    ImagingError::Corrupt { format: OutputFormat::Webp, reason: reason.into() }
}

fn explain(error: &image::ImageError) -> ImagingError {
    corrupt(error.to_string().trim_end_matches('.').to_lowercase())
}
