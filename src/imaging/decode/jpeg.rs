//! JPEG: keeps the tables, frame and scans of the first picture in the file.
//!
//! A file that does not reach its end marker is cut off. The decoder runs in its strict mode, in
//! which broken codes are an error and not a grey area, and gets a file without oddities that this
//! mode would refuse. (A file that was cut and then given an end marker decodes with a flat rest, as
//! with libjpeg and PIL: only its pixels could tell.)
//!
//! Which colours the numbers mean is decided here as libjpeg does; component ids and the Adobe
//! marker are rewritten to say so.

use super::{Limits, Raster, orientation};
use crate::{
    domain::Size,
    imaging::{ImagingError, OutputFormat},
};
use image::metadata::Orientation;
use zeroize::Zeroizing;
use zune_jpeg::{
    JpegDecoder,
    errors::DecodeErrors,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

/// Real files have up to about twenty; each costs a pass over the picture.
const MAX_SCANS: usize = 64;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<(Raster, Orientation), ImagingError> {
    let mut walker = Walker::new(bytes);
    let frame = walker.walk(limits)?;
    let (space, channels) =
        if frame.ids.len() == 1 { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(frame.width.into())
        .set_max_height(frame.height.into())
        .jpeg_set_max_scans(MAX_SCANS + 1)
        .jpeg_set_out_colorspace(space);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&*walker.file), options);
    decoder.decode_headers().map_err(|error| explain(&error))?;
    let mut pixels = vec![0; usize::from(frame.width) * usize::from(frame.height) * channels];
    decoder.decode_into(&mut pixels).map_err(|error| explain(&error))?;
    let (width, height) = (frame.width.into(), frame.height.into());
    let raster = Raster { width, height, channels, bytes: pixels };
    Ok((raster, orientation(walker.exif)))
}

pub(super) fn probe<'a>(
    bytes: &'a [u8],
    limits: &Limits,
) -> Result<(Size, Option<&'a [u8]>), ImagingError> {
    let mut walker = Walker::new(bytes);
    let frame = walker.walk(limits)?;
    Ok((Size::new(frame.width.into(), frame.height.into()), walker.exif))
}

/// What the frame header says.
struct Frame {
    width: u16,
    height: u16,
    /// The components' ids.
    ids: Vec<u8>,
}

/// Goes over the segments and writes those that count to `file`.
struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
    file: Zeroizing<Vec<u8>>,
    exif: Option<&'a [u8]>,
    jfif: bool,
}

impl<'a> Walker<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut file = Zeroizing::new(Vec::with_capacity(bytes.len()));
        file.extend_from_slice(&[0xff, 0xd8]);
        Self { bytes, at: 2, file, exif: None, jfif: false }
    }

    fn walk(&mut self, limits: &Limits) -> Result<Frame, ImagingError> {
        let mut frame = None;
        let mut adobe = None;
        let mut scans = 0;
        loop {
            match self.marker()? {
                // Stand-alone markers, which have no place here.
                0x01 | 0xd0..=0xd8 => {}
                0xd9 if scans > 0 => {
                    self.file.extend([0xff, 0xd9]);
                    return frame.ok_or_else(|| corrupt("it has no frame"));
                }
                0xd9 => return Err(corrupt("it holds no picture")),
                marker @ (0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf) => {
                    if frame.is_some() {
                        return Err(corrupt("it has two frames"));
                    }
                    let segment = self.segment()?;
                    let header = read_frame(marker, segment, limits)?;
                    self.write_frame(marker, segment, &header, adobe);
                    frame = Some(header);
                }
                0xda => {
                    scans += 1;
                    if scans > MAX_SCANS {
                        return Err(unsupported(format!("more than {MAX_SCANS} scans")));
                    }
                    let frame = frame.as_ref().ok_or_else(|| corrupt("it has no frame"))?;
                    let segment = self.segment()?;
                    self.write_scan(segment, frame, adobe)?;
                    self.write_entropy()?;
                }
                0xdc => return Err(unsupported("a height that follows the picture")),
                // Tables and the restart interval.
                marker @ (0xc4 | 0xdb | 0xdd) => {
                    let segment = self.segment()?;
                    self.write(marker, segment);
                }
                0xe0 => self.jfif |= self.segment()?.starts_with(b"JFIF\0"),
                0xe1 => {
                    let exif = self.segment()?.strip_prefix(b"Exif\0\0");
                    self.exif = self.exif.or(exif);
                }
                0xee => {
                    let data = self.segment()?.strip_prefix(b"Adobe");
                    adobe = data.and_then(|data| data.get(6).copied()).or(adobe);
                }
                _ => {
                    self.segment()?;
                }
            }
        }
    }

    /// The next marker; bytes before it are skipped, as libjpeg does.
    fn marker(&mut self) -> Result<u8, ImagingError> {
        let rest = &self.bytes[self.at..];
        let found =
            rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff));
        let found = found.ok_or_else(|| self.truncated())?;
        self.at += found + 2;
        Ok(rest[found + 1])
    }

    /// The data of a segment.
    fn segment(&mut self) -> Result<&'a [u8], ImagingError> {
        let rest = &self.bytes[self.at..];
        let length = rest.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)));
        let length = length.ok_or_else(|| self.truncated())?;
        if length < 2 {
            return Err(corrupt("a segment is shorter than its own length"));
        }
        let segment = rest.get(2..length).ok_or_else(|| self.truncated())?;
        self.at += length;
        Ok(segment)
    }

    fn write(&mut self, marker: u8, segment: &[u8]) {
        // The segment's length came from two bytes, and none grows.
        let length = (segment.len() as u16 + 2).to_be_bytes();
        self.file.extend([0xff, marker, length[0], length[1]]);
        self.file.extend_from_slice(segment);
    }

    /// Writes the frame header, preceded by what the decoder needs to take the colours right.
    fn write_frame(&mut self, marker: u8, segment: &[u8], frame: &Frame, adobe: Option<u8>) {
        if frame.ids.len() == 4 {
            // Version and two flags, then 0: CMYK, 2: YCCK. Both inverted, as Adobe's always are.
            let transform = if adobe == Some(2) { 2 } else { 0 };
            self.write(0xee, &[b"Adobe".as_slice(), &[0, 100, 0, 0, 0, 0, transform]].concat());
        }
        let mut segment = segment.to_vec();
        for (index, component) in segment[6..].chunks_exact_mut(3).enumerate() {
            component[0] = self.plain_id(index, frame, adobe);
        }
        self.write(marker, &segment);
    }

    fn write_scan(
        &mut self,
        segment: &[u8],
        frame: &Frame,
        adobe: Option<u8>,
    ) -> Result<(), ImagingError> {
        let mut segment = segment.to_vec();
        let count = usize::from(*segment.first().unwrap_or(&0));
        if segment.len() != 4 + 2 * count || !(1..=4).contains(&count) {
            return Err(corrupt("a scan's header has the wrong length"));
        }
        for component in segment[1..=2 * count].chunks_exact_mut(2) {
            let index = frame.ids.iter().position(|id| *id == component[0]);
            let index = index.ok_or_else(|| corrupt("a scan names no component of the frame"))?;
            component[0] = self.plain_id(index, frame, adobe);
        }
        self.write(0xda, &segment);
        Ok(())
    }

    /// The id by which the decoder knows a component: R, G, B, or else 1 and up.
    fn plain_id(&self, index: usize, frame: &Frame, adobe: Option<u8>) -> u8 {
        let rgb = match (frame.ids.as_slice(), adobe) {
            ([_, _, _], _) if self.jfif => false,
            ([_, _, _], Some(transform)) => transform == 0,
            (ids, _) => ids == b"RGB",
        };
        if rgb { b"RGB"[index] } else { index as u8 + 1 }
    }

    /// Writes a scan's data, up to the next marker that is no restart.
    fn write_entropy(&mut self) -> Result<(), ImagingError> {
        let rest = &self.bytes[self.at..];
        let ends = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff | 0xd0..=0xd7);
        let end = rest.windows(2).position(ends).ok_or_else(|| self.truncated())?;
        self.file.extend_from_slice(&rest[..end]);
        self.at += end;
        Ok(())
    }

    fn truncated(&self) -> ImagingError {
        ImagingError::Truncated { format: OutputFormat::Jpeg, bytes: self.bytes.len() }
    }
}

fn read_frame(marker: u8, segment: &[u8], limits: &Limits) -> Result<Frame, ImagingError> {
    let bad = || corrupt("the frame's header has the wrong length");
    let (&[precision, a, b, c, d, count], components) =
        segment.split_first_chunk().ok_or_else(bad)?;
    if components.len() != 3 * usize::from(count) {
        return Err(bad());
    }
    let (height, width) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    limits.check(width.into(), height.into())?;
    match (marker, precision) {
        (0xc0..=0xc2, 8) => {}
        (0xc0..=0xc2, bits) => return Err(unsupported(format!("{bits} bits a colour"))),
        (0xc9..=0xcb | 0xcd..=0xcf, _) => return Err(unsupported("arithmetic coding")),
        (0xc3, _) => return Err(unsupported("lossless coding")),
        _ => return Err(unsupported("hierarchical coding")),
    }
    if width == 0 || height == 0 {
        return Err(corrupt("a side is 0 pixels long"));
    }
    if !matches!(count, 1 | 3 | 4) {
        return Err(unsupported(format!("{count} components")));
    }
    let ids = components.chunks_exact(3).map(|component| component[0]).collect();
    Ok(Frame { width, height, ids })
}

fn corrupt(reason: impl Into<String>) -> ImagingError {
    ImagingError::Corrupt { format: OutputFormat::Jpeg, reason: reason.into() }
}

fn unsupported(feature: impl Into<String>) -> ImagingError {
    ImagingError::Unsupported { format: OutputFormat::Jpeg, feature: feature.into() }
}

fn explain(error: &DecodeErrors) -> ImagingError {
    let said = error.to_string();
    let line = said.lines().next().unwrap_or_default().trim().trim_end_matches('.');
    corrupt(line.to_lowercase())
}
