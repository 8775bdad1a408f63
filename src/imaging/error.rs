//! Why a picture could not be read or written, in words for the person who sent it.

use super::OutputFormat;

/// A picture that cannot be used: what is the matter and what to do. It names no file; the caller
/// does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImagingError {
    /// There are no bytes at all.
    #[error("the picture is empty (0 bytes); send a PNG, JPEG or WebP file")]
    Empty,
    /// No picture format that is known.
    #[error("this is not a picture that can be read; send a PNG, JPEG or WebP file")]
    UnknownFormat,
    /// A known format which is not read here.
    #[error("this is a file of type {found}; save it as PNG, JPEG or WebP and send that")]
    ForeignFormat {
        /// The format's name.
        found: &'static str,
    },
    /// The file ends before the picture does.
    #[error("the {} picture is cut off after {bytes} bytes; send the whole file", format.name())]
    Truncated {
        /// The file's format.
        format: OutputFormat,
        /// How many bytes there are.
        bytes: usize,
    },
    /// The file contradicts its own format.
    #[error("the {} picture is damaged ({reason}); save it anew and send that", format.name())]
    Corrupt {
        /// The file's format.
        format: OutputFormat,
        /// What the decoder said.
        reason: String,
    },
    /// A valid file of a kind that hardly any program writes.
    #[error("the {} picture uses {feature}, which is not supported; save it anew", format.name())]
    Unsupported {
        /// The file's format.
        format: OutputFormat,
        /// The kind.
        feature: String,
    },
    /// More pixels than allowed.
    #[error(
        "the picture is {width}x{height}, that is {} megapixels; at most {} are allowed",
        megapixels(u64::from(*width) * u64::from(*height)),
        megapixels(*max_pixels)
    )]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The most pixels.
        max_pixels: u64,
    },
    /// A longer side than allowed.
    #[error("the picture is {width}x{height}; at most {max_side} pixels a side are allowed")]
    TooLong {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The longest side.
        max_side: u32,
    },
    /// A longer side than the output's format can express.
    #[error(
        "a {} file holds at most {} pixels a side, the picture is {width}x{height}; choose png",
        format.name(),
        format.max_side()
    )]
    TooLongForFormat {
        /// The output's format.
        format: OutputFormat,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A quality out of range.
    #[error("the quality is {quality}; choose a number from 1 to 100")]
    Quality {
        /// The quality that was asked for.
        quality: u8,
    },
    /// The encoder failed: want of memory, or a fault of ours.
    #[error("the picture could not be written as {} ({reason}); choose another format", format.name())]
    Encode {
        /// The output's format.
        format: OutputFormat,
        /// What the encoder said.
        reason: String,
    },
}

/// Megapixels with one decimal where it says something, rounded up so that what is over a limit
/// also reads as more.
fn megapixels(pixels: u64) -> String {
    let tenths = pixels.div_ceil(100_000);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => whole.to_string(),
        (whole, tenth) => format!("{whole}.{tenth}"),
    }
}
